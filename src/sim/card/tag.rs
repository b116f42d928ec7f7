//! Memory of an NTAG21x or Ultralight EV1: pages, and a password that may guard them.
//! After the NTAG213/215/216 data sheet rev. 3.2 §8.5, §8.8 and §10, and the MF0ULx1
//! data sheet rev. 3.3. What does not live here: the reader's commands (`chip`).

const PAGE: usize = 4;
/// Page of the static lock bytes (§8.5.2); the pages before it are the maker's.
const LOCKS: usize = 2;
/// One-time programmable, or the capability container (§8.5.3).
const ONE_TIME: usize = 3;
/// ACCESS: the password guards reading, too.
const PROT: u8 = 0x80;
/// ACCESS: configuration pages are frozen.
const CFGLCK: u8 = 0x40;
/// ACCESS: the chip counts its readings.
const NFC_CNT_EN: u8 = 0x10;
/// ACCESS: wrong passwords until the chip is locked.
const AUTHLIM: u8 = 0x07;

/// One of these chips.
#[derive(Debug, Clone)]
pub(super) struct Tag {
    pages: Vec<[u8; PAGE]>,
    version: [u8; 8],
    /// First of the four configuration pages.
    config: usize,
    logged_in: bool,
    /// A refused command puts the chip to sleep until it is selected again.
    asleep: bool,
    /// Wrong passwords in a row; kept without power.
    wrong: u8,
    /// Wrong passwords at all: the card itself forgets them at a right one.
    refused: u32,
    counted: u32,
    counted_since_power: bool,
}

/// Which chip.
pub(super) struct Kind {
    pub pages: usize,
    /// Size byte of the capability container; 0: one-time pages empty.
    pub size: u8,
    pub version: [u8; 8],
    pub config: usize,
}

impl Tag {
    pub(super) fn as_delivered(uid: &[u8], kind: &Kind) -> Self {
        let check = |bytes: &[u8], from: u8| bytes.iter().fold(from, |check, byte| check ^ byte);
        let (first, second) = uid.split_at(uid.len().min(3));
        let mut bytes = [first, &[check(first, 0x88)], second, &[check(second, 0), 0x48, 0, 0]].concat();
        bytes.extend(if kind.size == 0 { [0; PAGE] } else { [0xE1, 0x10, kind.size, 0x00] });
        let mut pages: Vec<[u8; PAGE]> = bytes.as_chunks().0.to_vec();
        pages.resize(kind.pages, [0; PAGE]);
        // AUTH0 behind the end: no protection; the password is all ones.
        for (page, bytes) in [(kind.config, [0, 0, 0, 0xFF]), (kind.config + 2, [0xFF; PAGE])] {
            if let Some(place) = pages.get_mut(page) {
                *place = bytes;
            }
        }
        Self {
            pages,
            version: kind.version,
            config: kind.config,
            logged_in: false,
            asleep: false,
            wrong: 0,
            refused: 0,
            counted: 0,
            counted_since_power: false,
        }
    }

    pub(super) fn cell_mut(&mut self, page: usize, offset: usize) -> Option<&mut u8> {
        self.pages.get_mut(page)?.get_mut(offset)
    }

    pub(super) fn stored(&self, page: usize) -> Option<&[u8]> {
        self.pages.get(page).map(<[u8; PAGE]>::as_slice)
    }

    pub(super) fn reset(&mut self) {
        self.logged_in = false;
        self.asleep = false;
        self.counted_since_power = false;
    }

    fn config(&self, page: usize, byte: usize) -> u8 {
        self.pages.get(self.config + page).and_then(|page| page.get(byte)).copied().unwrap_or(0)
    }

    /// By the static lock bits: page 3 and 4 to 7 in the first byte, 8 to 15 in the second.
    fn is_locked(&self, page: usize) -> bool {
        let Some([_, _, low, high]) = self.pages.get(LOCKS).copied() else { return false };
        match page {
            ONE_TIME..=7 => low >> page & 1 == 1,
            8..=15 => high >> (page - 8) & 1 == 1,
            _ => false,
        }
    }

    fn is_guarded(&self, page: usize) -> bool {
        !self.logged_in && page >= usize::from(self.config(0, 3))
    }

    /// READ: four pages; behind the last that may be read it begins again at page 0.
    pub(super) fn read(&mut self, page: usize) -> Option<[u8; 4 * PAGE]> {
        let hidden = self.config(1, 0) & PROT != 0;
        let readable = (0..self.pages.len()).take_while(|page| !(hidden && self.is_guarded(*page))).count();
        if self.asleep || page >= readable {
            self.asleep = true;
            return None;
        }
        if self.config(1, 0) & NFC_CNT_EN != 0 && !std::mem::replace(&mut self.counted_since_power, true) {
            self.counted += 1;
        }
        let mut bytes = [0; 4 * PAGE];
        for (at, byte) in bytes.iter_mut().enumerate() {
            *byte = self.shown((page + at / PAGE) % readable, at % PAGE);
        }
        Some(bytes)
    }

    /// Password and PACK read as zeros.
    fn shown(&self, page: usize, byte: usize) -> u8 {
        let shown =
            if page >= self.config + 2 { None } else { self.pages.get(page).and_then(|page| page.get(byte)) };
        shown.copied().unwrap_or(0)
    }

    pub(super) fn write(&mut self, page: usize, data: &[u8]) -> bool {
        let frozen = self.config(1, 0) & CFGLCK != 0 && (self.config..self.config + 2).contains(&page);
        let allowed =
            !self.asleep && page >= LOCKS && !frozen && !self.is_guarded(page) && !self.is_locked(page);
        match (self.pages.get_mut(page), <[u8; PAGE]>::try_from(data)) {
            (Some(place), Ok(data)) if allowed => {
                match page {
                    LOCKS => lock(place, data),
                    ONE_TIME => place.iter_mut().zip(data).for_each(|(to, from)| *to |= from),
                    _ => *place = data,
                }
                true
            }
            _ => {
                self.asleep = true;
                false
            }
        }
    }

    /// The chip's own commands, as a reader relays them. Nothing: it refused.
    pub(super) fn command(&mut self, command: &[u8]) -> Option<Vec<u8>> {
        let answer = match command {
            _ if self.asleep => None,
            [0x60] => Some(self.version.to_vec()),
            [0x1B, password @ ..] => self.log_in(password),
            [0x30, page] => self.read((*page).into()).map(|bytes| bytes.to_vec()),
            [0x3A, first, last] if first <= last => self.fast_read(*first, *last),
            [0x39, 0x02] if self.config(1, 0) & NFC_CNT_EN != 0 => {
                self.counted.to_le_bytes().get(..3).map(<[u8]>::to_vec)
            }
            [0xA2, page, data @ ..] => self.write((*page).into(), data).then(|| vec![0x0A]),
            _ => None,
        };
        self.asleep |= answer.is_none();
        answer
    }

    fn fast_read(&self, first: u8, last: u8) -> Option<Vec<u8>> {
        let hidden = self.config(1, 0) & PROT != 0;
        let range = usize::from(first)..=usize::from(last);
        let allowed =
            *range.end() < self.pages.len() && !range.clone().any(|page| hidden && self.is_guarded(page));
        allowed.then(|| {
            range
                .flat_map(|page| (0..PAGE).map(move |byte| (page, byte)))
                .map(|(p, b)| self.shown(p, b))
                .collect()
        })
    }

    fn log_in(&mut self, password: &[u8]) -> Option<Vec<u8>> {
        let limit = self.config(1, 0) & AUTHLIM;
        let locked = limit > 0 && self.wrong >= limit;
        let right = self.pages.get(self.config + 2).is_some_and(|right| password == right.as_slice());
        if locked || !right {
            self.logged_in = false;
            self.wrong = self.wrong.saturating_add(1);
            self.refused += 1;
            return None;
        }
        self.wrong = 0;
        self.logged_in = true;
        self.pages.get(self.config + 3).map(|pack| pack[..2].to_vec())
    }

    /// Wrong passwords in a row.
    pub(super) fn wrong_passwords(&self) -> u8 {
        self.wrong
    }

    /// Wrong passwords at all.
    pub(super) fn refused(&self) -> u32 {
        self.refused
    }
}

/// Lock bits are only ever set; the three lowest freeze the bits of page 3, of 4 to 9, and of 10 to 15.
fn lock(place: &mut [u8; PAGE], data: [u8; PAGE]) {
    let ([_, _, low, high], [_, _, more_low, more_high]) = (place, data);
    let (mut may_low, mut may_high) = (0xFF, 0xFF);
    for (bit, frozen_low, frozen_high) in [(0x01, 0x08, 0x00), (0x02, 0xF0, 0x03), (0x04, 0x00, 0xFC)] {
        if *low & bit != 0 {
            may_low &= !frozen_low;
            may_high &= !frozen_high;
        }
    }
    *low |= more_low & may_low;
    *high |= more_high & may_high;
}
