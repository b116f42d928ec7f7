//! Memory of an Ultralight C: pages, lock bits, and the mutual login with its two-key triple
//! DES, done here on blocks without the driver's code. After the MF0ICU2 data sheet rev. 3.5
//! §7.5 (memory, AUTH0, AUTH1) and §9 (commands). What does not live here: the reader's
//! commands (`chip`).

use std::fmt;

use des::TdesEde2;
use des::cipher::{BlockDecrypt, BlockEncrypt, KeyInit};

const PAGE: usize = 4;
const PAGES: usize = 48;
/// The last page that READ shows; the key lies behind it.
const LAST_SHOWN: usize = 0x2B;
/// Lock bytes 0 and 1.
const LOCKS: usize = 2;
const ONE_TIME: usize = 3;
/// Lock bytes 2 and 3; bits are only ever set.
const MORE_LOCKS: usize = 0x28;
/// A counter that only rises.
const COUNTER: usize = 0x29;
const AUTH0: usize = 0x2A;
const AUTH1: usize = 0x2B;
const KEY: usize = 0x2C;

type Block = [u8; 8];

/// One of these chips.
#[derive(Clone)]
pub(super) struct UltralightC {
    pages: [[u8; PAGE]; PAGES],
    state: State,
    /// Challenges given, so that each is another.
    challenges: u64,
    failed: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    /// Waits for the proof; the challenge, plain and as it was sent.
    Challenged(Block, Block),
    LoggedIn,
    /// A refused command puts the chip to sleep until it is selected again.
    Asleep,
}

impl fmt::Debug for UltralightC {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UltralightC").field("failed", &self.failed).finish_non_exhaustive()
    }
}

impl UltralightC {
    pub(super) fn as_delivered(uid: &[u8]) -> Self {
        let mut pages = [[0; PAGE]; PAGES];
        let check = |bytes: &[u8], from: u8| bytes.iter().fold(from, |check, byte| check ^ byte);
        let (first, second) = uid.split_at(uid.len().min(3));
        let bytes = [first, &[check(first, 0x88)], second, &[check(second, 0), 0x48, 0, 0]].concat();
        pages.iter_mut().zip(bytes.as_chunks().0).for_each(|(to, from)| *to = *from);
        if let Some(page) = pages.get_mut(AUTH0) {
            *page = [0x30, 0, 0, 0];
        }
        // Each half of the key backwards (§7.5.7): "BREAKMEI" and "FYOUCAN!".
        pages.iter_mut().skip(KEY).zip(b"BREAKMEIFYOUCAN!".as_chunks().0).for_each(|(to, from)| *to = *from);
        Self { pages, state: State::Open, challenges: 0, failed: 0 }
    }

    pub(super) fn reset(&mut self) {
        self.state = State::Open;
    }

    pub(super) fn cell_mut(&mut self, page: usize, offset: usize) -> Option<&mut u8> {
        self.pages.get_mut(page)?.get_mut(offset)
    }

    pub(super) fn stored(&self, page: usize) -> Option<&[u8]> {
        self.pages.get(page).map(<[u8; PAGE]>::as_slice)
    }

    /// Logins that failed; the chip itself counts none.
    pub(super) fn failed_logins(&self) -> u32 {
        self.failed
    }

    fn byte(&self, page: usize, at: usize) -> u8 {
        self.pages.get(page).and_then(|page| page.get(at)).copied().unwrap_or(0)
    }

    fn is_closed(&self, page: usize) -> bool {
        self.state != State::LoggedIn && page >= usize::from(self.byte(AUTH0, 0))
    }

    fn is_locked(&self, page: usize) -> bool {
        let bit = |at: usize, bit: usize| self.byte(MORE_LOCKS, at) >> bit & 1 == 1;
        match page {
            ONE_TIME..=7 => self.byte(LOCKS, 2) >> page & 1 == 1,
            8..=15 => self.byte(LOCKS, 3) >> (page - 8) & 1 == 1,
            // Bits of lock bytes 2 and 3 by four pages each, then counter, AUTH0, AUTH1, key (§7.5.3).
            16..=27 => bit(0, 1 + (page - 16) / 4),
            28..=39 => bit(0, 5 + (page - 28) / 4),
            COUNTER => bit(1, 4),
            AUTH0 => bit(1, 5),
            AUTH1 => bit(1, 6),
            KEY..PAGES => bit(1, 7),
            _ => false,
        }
    }

    /// READ: four pages; behind the last that may be read it begins again at page 0.
    pub(super) fn read(&mut self, page: usize) -> Option<[u8; 4 * PAGE]> {
        self.plain()?;
        let hidden = self.byte(AUTH1, 0) & 1 == 0;
        let shown = (0..=LAST_SHOWN).take_while(|page| !(hidden && self.is_closed(*page))).count();
        if page >= shown {
            return self.sleep();
        }
        let mut bytes = [0; 4 * PAGE];
        for (at, byte) in bytes.iter_mut().enumerate() {
            *byte = self.byte((page + at / PAGE) % shown, at % PAGE);
        }
        Some(bytes)
    }

    pub(super) fn write(&mut self, page: usize, data: &[u8]) -> bool {
        self.try_write(page, data).is_some()
    }

    fn try_write(&mut self, page: usize, data: &[u8]) -> Option<()> {
        self.plain()?;
        let allowed = page >= LOCKS && !self.is_closed(page) && !self.is_locked(page);
        let Ok(data) = <[u8; PAGE]>::try_from(data) else { return self.sleep() };
        let frozen = self.byte(LOCKS, 2);
        match self.pages.get_mut(page).filter(|_| allowed) {
            Some(place) => {
                match page {
                    LOCKS => lock(place, data, frozen),
                    ONE_TIME => place.iter_mut().zip(data).for_each(|(to, from)| *to |= from),
                    MORE_LOCKS => place.iter_mut().zip(data).take(2).for_each(|(to, from)| *to |= from),
                    COUNTER => count(place, data),
                    _ => *place = data,
                }
                Some(())
            }
            None => self.sleep(),
        }
    }

    /// The chip's own commands, as a reader relays them. Nothing: it refused.
    pub(super) fn command(&mut self, command: &[u8]) -> Option<Vec<u8>> {
        match command {
            [0x1A, 0x00] => self.challenge(),
            [0xAF, proof @ ..] => self.proof(proof),
            [0x30, page] => self.read((*page).into()).map(|bytes| bytes.to_vec()),
            [0xA2, page, data @ ..] => self.write((*page).into(), data).then(|| vec![0x0A]),
            _ => self.sleep(),
        }
    }

    /// Whether an ordinary command is heard: not asleep, and not in the middle of a login.
    fn plain(&mut self) -> Option<()> {
        match self.state {
            State::Open | State::LoggedIn => Some(()),
            State::Challenged(..) | State::Asleep => self.sleep(),
        }
    }

    fn sleep<T>(&mut self) -> Option<T> {
        self.state = State::Asleep;
        None
    }

    fn cipher(&self) -> TdesEde2 {
        let mut key = [0; 16];
        for (half, pages) in key.chunks_mut(8).zip(self.pages.get(KEY..).unwrap_or_default().chunks(2)) {
            half.iter_mut().zip(pages.as_flattened().iter().rev()).for_each(|(to, from)| *to = *from);
        }
        TdesEde2::new((&key).into())
    }

    fn challenge(&mut self) -> Option<Vec<u8>> {
        self.plain()?;
        self.challenges += 1;
        let plain = self.challenges.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_be_bytes();
        let mut sent = plain;
        self.cipher().encrypt_block((&mut sent).into());
        self.state = State::Challenged(plain, sent);
        Some([&[0xAF], sent.as_slice()].concat())
    }

    /// One chain of blocks through the whole exchange, the vector of each being the block before.
    fn proof(&mut self, proof: &[u8]) -> Option<Vec<u8>> {
        let (State::Challenged(ours, vector), Ok(proof)) = (self.state, <[u8; 16]>::try_from(proof)) else {
            return self.sleep();
        };
        let ([first, second], _) = proof.as_chunks::<8>() else { return self.sleep() };
        let theirs = xor(self.decrypted(first), vector);
        let mut wanted = ours;
        wanted.rotate_left(1);
        if xor(self.decrypted(second), *first) != wanted {
            self.failed += 1;
            return self.sleep();
        }
        let mut answer = theirs;
        answer.rotate_left(1);
        let mut answer = xor(answer, *second);
        self.cipher().encrypt_block((&mut answer).into());
        self.state = State::LoggedIn;
        Some([&[0x00], answer.as_slice()].concat())
    }

    fn decrypted(&self, block: &Block) -> Block {
        let mut plain = *block;
        self.cipher().decrypt_block((&mut plain).into());
        plain
    }
}

fn xor(a: Block, b: Block) -> Block {
    std::array::from_fn(|at| a.get(at).copied().unwrap_or(0) ^ b.get(at).copied().unwrap_or(0))
}

/// As on the other Type 2 chips: bits are only ever set, and the three lowest freeze the others.
fn lock(place: &mut [u8; PAGE], data: [u8; PAGE], frozen: u8) {
    let ([_, _, low, high], [_, _, more_low, more_high]) = (place, data);
    let (mut may_low, mut may_high) = (0xFF, 0xFF);
    for (bit, frozen_low, frozen_high) in [(0x01, 0x08, 0x00), (0x02, 0xF0, 0x03), (0x04, 0x00, 0xFC)] {
        if frozen & bit != 0 {
            may_low &= !frozen_low;
            may_high &= !frozen_high;
        }
    }
    *low |= more_low & may_low;
    *high |= more_high & may_high;
}

/// Sixteen bits, low byte first: set once, then raised by at most 15 (§7.5.11).
fn count(place: &mut [u8; PAGE], data: [u8; PAGE]) {
    let ([low, high, ..], [more_low, more_high, ..]) = (place, data);
    let now = u16::from_le_bytes([*low, *high]);
    let then = match (now, u16::from_le_bytes([more_low, more_high])) {
        (0, first) => first,
        (now, more @ 0..=15) => now.saturating_add(more),
        (now, _) => now,
    };
    [*low, *high] = then.to_le_bytes();
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The numerical example of the data sheet, §7.5.5: the reader's challenge, the proof, the answer.
    #[test]
    fn the_published_login() {
        let mut chip = UltralightC::as_delivered(&[0x04, 0xA1, 0xB2, 0xC3, 0xD4, 0x5E, 0x80]);
        let plain = chip.decrypted(&hex::decode("577293FD2F34CA51").unwrap().try_into().unwrap());
        assert_eq!(hex::encode_upper(plain), "51E764602678DF2B");
        chip.state = State::Challenged(plain, hex::decode("577293FD2F34CA51").unwrap().try_into().unwrap());
        let proof = hex::decode("AF0A638559FC7737F9F15D7862EBBE967A").unwrap();
        assert_eq!(hex::encode_upper(chip.command(&proof).unwrap()), "003B884FA07C137CE1");
        assert_eq!(chip.state, State::LoggedIn);
    }

    #[test]
    fn what_is_closed_needs_the_key() {
        let mut chip = UltralightC::as_delivered(&[0x04, 0xA1, 0xB2, 0xC3, 0xD4, 0x5E, 0x80]);
        assert!(chip.write(8, &[1, 2, 3, 4]));
        assert!(chip.write(AUTH0, &[8, 0, 0, 0]));
        assert_eq!(chip.read(7).map(|bytes| bytes[4..8].to_vec()), Some(vec![0x04, 0xA1, 0xB2, 0x9F]));
        assert_eq!(chip.read(8), None);
        chip.reset();
        assert!(!chip.write(9, &[1; 4]));
        chip.reset();
        assert!(chip.write(5, &[1; 4]), "open below AUTH0");
        assert_eq!(chip.command(&[0x60]), None, "no GET_VERSION");
        assert_eq!(chip.read(4), None, "asleep");
        chip.reset();
        assert!(chip.command(&[0x1A, 0x00]).unwrap().starts_with(&[0xAF]));
        assert_eq!(chip.command(&[&[0xAF], [0; 16].as_slice()].concat()), None);
        assert_eq!(chip.failed_logins(), 1);
        chip.reset();
        chip.command(&[0x1A, 0x00]);
        assert_eq!(chip.read(4), None, "a login is not interrupted");
    }
}
