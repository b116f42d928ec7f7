//! Memory of a MIFARE Classic: sectors, two keys each, access conditions, and silence
//! after a failed authentication. After the MF1S50YYX_V1 and MF1S70YYX_V1 data sheets
//! rev. 3.2 §8.6 and §8.7. What does not live here: the reader's commands (`chip`).

const BLOCK: usize = 16;
const KEY: usize = 6;
/// Access bits of a card as delivered, and the byte behind them.
const AS_DELIVERED: [u8; 4] = [0xFF, 0x07, 0x80, 0x69];

/// Which key was used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Key {
    A,
    B,
}

/// The memory and what is open.
#[derive(Debug, Clone)]
pub(super) struct Classic {
    blocks: Vec<[u8; BLOCK]>,
    open: Option<(usize, Key)>,
    halted: bool,
}

/// What a sector's access bits say of one group of blocks: C1, C2, C3.
type Condition = (bool, bool, bool);

impl Classic {
    /// Manufacturer block, then empty data under trailers with `key` as A and B.
    pub(super) fn as_delivered(uid: &[u8], blocks: usize, key: [u8; KEY]) -> Self {
        let check = uid.iter().fold(0, |check, byte| check ^ byte);
        let kind: [u8; 3] = if blocks > 64 { [0x18, 0x02, 0x00] } else { [0x08, 0x04, 0x00] };
        let maker = uid.iter().copied().chain([check]).chain(kind);
        let trailer = key.into_iter().chain(AS_DELIVERED).chain(key);
        let blocks = (0..blocks).map(|block| match block {
            0 => filled(maker.clone()),
            _ if is_trailer(block) => filled(trailer.clone()),
            _ => [0; BLOCK],
        });
        Self { blocks: blocks.collect(), open: None, halted: false }
    }

    pub(super) fn stored(&self, block: usize) -> Option<&[u8]> {
        self.blocks.get(block).map(<[u8; BLOCK]>::as_slice)
    }

    pub(super) fn cell_mut(&mut self, block: usize, offset: usize) -> Option<&mut u8> {
        self.blocks.get_mut(block)?.get_mut(offset)
    }

    pub(super) fn reset(&mut self) {
        self.open = None;
        self.halted = false;
    }

    pub(super) fn authenticate(&mut self, block: usize, kind: Key, key: Option<[u8; KEY]>) -> bool {
        let trailer = self.blocks.get(trailer_of(block)).filter(|_| block < self.blocks.len());
        let right = trailer.map(|trailer| match kind {
            Key::A => trailer.iter().take(KEY).copied().collect::<Vec<u8>>(),
            Key::B => trailer.iter().skip(BLOCK - KEY).copied().collect(),
        });
        let opened = !self.halted && right.is_some() && key.map(|key| key.to_vec()) == right;
        self.open = opened.then_some((sector(block), kind));
        self.halted = !opened;
        opened
    }

    /// A block, or its first bytes.
    pub(super) fn read(&self, block: usize, length: usize) -> Option<Vec<u8>> {
        let (condition, key) = self.condition(block)?;
        let stored = self.blocks.get(block)?;
        let shown = if is_trailer(block) {
            let shows_b = key_b_is_readable(condition);
            let bytes = stored.iter().enumerate().map(|(at, byte)| match at {
                0..KEY => 0,
                _ if at >= BLOCK - KEY && !(shows_b && key == Key::A) => 0,
                _ => *byte,
            });
            filled(bytes)
        } else {
            // Table 8 of the data sheet.
            let allowed = match condition {
                (true, true, true) => false,
                (false, true, true) | (true, false, true) => key == Key::B,
                _ => true,
            };
            if !allowed {
                return None;
            }
            *stored
        };
        shown.get(..length).map(<[u8]>::to_vec)
    }

    pub(super) fn write(&mut self, block: usize, data: &[u8]) -> bool {
        let Some((condition, key)) = self.condition(block) else { return false };
        let Ok(data) = <[u8; BLOCK]>::try_from(data) else { return false };
        let allowed = if is_trailer(block) {
            // All of key A, access bits and key B (table 7): part of a trailer is never written here.
            match condition {
                (false, false, true) => key == Key::A,
                (false, true, true) => key == Key::B,
                _ => false,
            }
        } else {
            match condition {
                (false, false, false) => true,
                (true, false, false) | (true, true, false) | (false, true, true) => key == Key::B,
                _ => false,
            }
        };
        match self.blocks.get_mut(block) {
            Some(place) if allowed && block > 0 => {
                *place = data;
                true
            }
            _ => false,
        }
    }

    /// The conditions of a block and the key that opened its sector; none where access
    /// bits contradict themselves: such a sector is locked for ever.
    fn condition(&self, block: usize) -> Option<(Condition, Key)> {
        let (open, key) = self.open.filter(|_| !self.halted)?;
        let trailer = self.blocks.get(trailer_of(block))?;
        let [six, seven, eight] = trailer.get(KEY..KEY + 3)?.try_into().ok()?;
        let (c1, c2, c3) = (seven >> 4, eight & 0x0F, eight >> 4);
        let agree = six == (!c2 << 4 | !c1 & 0x0F) && seven & 0x0F == !c3 & 0x0F;
        let bit = |bits: u8, at: usize| bits >> at & 1 == 1;
        let of = |at| (bit(c1, at), bit(c2, at), bit(c3, at));
        // A key B that can be read opens nothing.
        let useless = key == Key::B && key_b_is_readable(of(3));
        (open == sector(block) && agree && !useless).then(|| (of(group(block)), key))
    }
}

/// Table 7: conditions under which key B is data.
fn key_b_is_readable(trailer: Condition) -> bool {
    matches!(trailer, (false, false, false) | (false, true, false) | (false, false, true))
}

fn filled(bytes: impl Iterator<Item = u8>) -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    block.iter_mut().zip(bytes).for_each(|(to, from)| *to = from);
    block
}

/// Sector of a block: four blocks each, from sector 32 sixteen.
fn sector(block: usize) -> usize {
    if block < 128 { block / 4 } else { 32 + (block - 128) / 16 }
}

fn trailer_of(block: usize) -> usize {
    if block < 128 { block / 4 * 4 + 3 } else { block / 16 * 16 + 15 }
}

fn is_trailer(block: usize) -> bool {
    trailer_of(block) == block
}

/// Which of the four pairs of access bits is a block's; in large sectors five blocks share one.
fn group(block: usize) -> usize {
    if block < 128 { block % 4 } else { block % 16 / 5 }
}
