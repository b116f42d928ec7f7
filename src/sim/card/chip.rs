//! What reader and card together answer to an APDU. Pure. Access conditions in a
//! Classic trailer are not enforced, and there is no purse: identification needs neither.

use super::profile::{CardProfile, Technology};

const OK: [u8; 2] = [0x90, 0x00];
const FAILED: [u8; 2] = [0x63, 0x00];
const WRONG_LENGTH: [u8; 2] = [0x67, 0x00];
const NOT_FOUND: [u8; 2] = [0x6A, 0x82];
const UNSUPPORTED: [u8; 2] = [0x6A, 0x81];
const UNKNOWN: [u8; 2] = [0x6D, 0x00];
const BLOCK: usize = 16;
const PAGE: usize = 4;

/// A card in a field.
#[derive(Debug, Clone)]
pub struct Chip {
    profile: CardProfile,
    memory: Vec<u8>,
    /// Keys loaded into the reader, by slot.
    keys: [Option<[u8; 6]>; 2],
    /// Sector that is open after an authentication.
    open: Option<usize>,
    /// After a failed authentication a Classic card is silent until it is selected again.
    halted: bool,
    /// Frames of a DESFire answer that were not fetched yet.
    more: Vec<Vec<u8>>,
    /// Challenges given, so that each is another.
    challenges: u64,
}

impl Chip {
    /// A card as delivered.
    #[must_use]
    pub fn new(profile: CardProfile) -> Self {
        let memory = memory(&profile);
        Self { profile, memory, keys: [None; 2], open: None, halted: false, more: Vec::new(), challenges: 0 }
    }

    /// The field was switched off or the card reset.
    pub fn reset(&mut self) {
        self.open = None;
        self.halted = false;
        self.more.clear();
    }

    /// Answers one APDU.
    pub fn apdu(&mut self, apdu: &[u8]) -> Vec<u8> {
        let [class, ins, p1, p2, rest @ ..] = apdu else { return WRONG_LENGTH.to_vec() };
        match class {
            0xFF => self.reader(*ins, *p1, *p2, rest),
            0x90 if self.profile.technology == Technology::Desfire => self.desfire(*ins, rest),
            0x00 => self.processor(*ins, *p1, rest),
            _ => UNKNOWN.to_vec(),
        }
    }

    /// Pseudo-APDUs (PC/SC part 3 §3.2.2; ACR122U API for the rest).
    fn reader(&mut self, ins: u8, p1: u8, p2: u8, rest: &[u8]) -> Vec<u8> {
        match (ins, p1, p2) {
            (0xCA, 0x00, 0x00) => cut(&self.profile.uid, rest),
            (0xCA, 0x01, 0x00) => match self.profile.answer_to_select() {
                Some(select) => cut(&select, rest),
                None => UNSUPPORTED.to_vec(),
            },
            (0x82, 0x00 | 0x20, slot) => self.load_key(slot, rest),
            (0x86, 0x00, 0x00) => match rest {
                [5, 1, high, low, kind @ (0x60 | 0x61), slot] => {
                    self.authenticate([*high, *low], *kind, *slot)
                }
                _ => WRONG_LENGTH.to_vec(),
            },
            (0x88, 0x00, block) => match rest {
                [kind @ (0x60 | 0x61), slot, ..] => self.authenticate([0, block], *kind, *slot),
                _ => WRONG_LENGTH.to_vec(),
            },
            (0xB0, high, low) => self.read(u16::from_be_bytes([high, low]).into(), rest),
            (0xD6, high, low) => self.write(u16::from_be_bytes([high, low]).into(), rest),
            (0x00, 0x00, 0x00) if self.profile.direct_transmit => self.direct(rest),
            _ => UNSUPPORTED.to_vec(),
        }
    }

    fn load_key(&mut self, slot: u8, rest: &[u8]) -> Vec<u8> {
        let key = rest.strip_prefix(&[6]).and_then(|key| key.try_into().ok());
        match (self.keys.get_mut(usize::from(slot)), key) {
            (Some(place), Some(key)) => {
                *place = Some(key);
                OK.to_vec()
            }
            _ => FAILED.to_vec(),
        }
    }

    fn authenticate(&mut self, block: [u8; 2], _kind: u8, slot: u8) -> Vec<u8> {
        let block = usize::from(u16::from_be_bytes(block));
        let key = self.keys.get(usize::from(slot)).copied().flatten();
        let fits = self.is_classic() && (block + 1) * BLOCK <= self.memory.len();
        if !fits || self.halted || key != Some(self.profile.key) {
            self.open = None;
            self.halted = self.is_classic();
            return FAILED.to_vec();
        }
        self.open = Some(sector(block));
        OK.to_vec()
    }

    fn read(&mut self, address: usize, rest: &[u8]) -> Vec<u8> {
        if self.is_classic() {
            if self.halted || self.open != Some(sector(address)) {
                return FAILED.to_vec();
            }
            let length = rest.first().map_or(BLOCK, |le| if *le == 0 { BLOCK } else { usize::from(*le) });
            return self.bytes(address * BLOCK, length, false);
        }
        if self.memory.is_empty() {
            return UNSUPPORTED.to_vec();
        }
        // READ brings four pages and begins again at page 0 after the last (NTAG21x datasheet §10.2).
        let length = rest.first().map_or(BLOCK, |le| if *le == 0 { BLOCK } else { usize::from(*le) });
        if length > BLOCK || address * PAGE >= self.memory.len() {
            return FAILED.to_vec();
        }
        self.bytes(address * PAGE, length, true)
    }

    fn bytes(&self, from: usize, length: usize, wrap: bool) -> Vec<u8> {
        let bytes: Vec<u8> = if wrap {
            self.memory.iter().cycle().skip(from).take(length).copied().collect()
        } else {
            self.memory.iter().skip(from).take(length).copied().collect()
        };
        if bytes.len() < length { FAILED.to_vec() } else { [bytes.as_slice(), &OK].concat() }
    }

    fn write(&mut self, address: usize, rest: &[u8]) -> Vec<u8> {
        let Some((_, data)) = rest.split_first().filter(|(length, data)| usize::from(**length) == data.len())
        else {
            return WRONG_LENGTH.to_vec();
        };
        let (unit, allowed) = if self.is_classic() {
            (BLOCK, address > 0 && !self.halted && self.open == Some(sector(address)))
        } else {
            (PAGE, address >= 4)
        };
        let place = self.memory.get_mut(address * unit..(address + 1) * unit);
        match place {
            Some(place) if allowed && data.len() == unit => {
                place.copy_from_slice(data);
                OK.to_vec()
            }
            _ => FAILED.to_vec(),
        }
    }

    /// ACR122U direct transmit of PN532 InCommunicateThru: `D4 42` and the card's own command.
    fn direct(&self, rest: &[u8]) -> Vec<u8> {
        match rest {
            [3, 0xD4, 0x42, 0x60] => match self.version() {
                Some(version) => [&[0xD5, 0x43, 0x00][..], &version, &OK].concat(),
                // No answer from the card: PN532 error 01, time-out.
                None => [&[0xD5, 0x43, 0x01][..], &OK].concat(),
            },
            _ => FAILED.to_vec(),
        }
    }

    /// Answer to GET_VERSION (NTAG21x datasheet table 28, MF0ULx1 table 15).
    fn version(&self) -> Option<[u8; 8]> {
        let (product, size) = match self.profile.technology {
            Technology::Ntag213 => (0x04, 0x0F),
            Technology::Ntag215 => (0x04, 0x11),
            Technology::Ntag216 => (0x04, 0x13),
            Technology::UltralightEv1 => return Some([0, 4, 3, 1, 1, 0, 0x0B, 3]),
            _ => return None,
        };
        Some([0x00, 0x04, product, 0x02, 0x01, 0x00, size, 0x03])
    }

    /// Native commands in ISO 7816 wrapping (MF3D(H)x2 datasheet, GetVersion).
    fn desfire(&mut self, ins: u8, rest: &[u8]) -> Vec<u8> {
        match (ins, rest) {
            (0x60, [] | [0]) => {
                let tail =
                    [self.profile.uid.as_slice(), &[0xCF, 0x39, 0xD4, 0x49, 0x80, 0x34, 0x20]].concat();
                let software = vec![0x04, 0x01, 0x01, 0x02, 0x01, 0x18, 0x05];
                self.more = vec![tail, software];
                [&[0x04, 0x01, 0x01, 0x12, 0x00, 0x18, 0x05][..], &[0x91, 0xAF]].concat()
            }
            (0xAF, [] | [0]) => match self.more.pop() {
                Some(frame) => {
                    let status = if self.more.is_empty() { 0x00 } else { 0xAF };
                    [frame.as_slice(), &[0x91, status]].concat()
                }
                // Command aborted.
                None => vec![0x91, 0xCA],
            },
            (0x5A, [3, 0, 0, 0, ..]) => vec![0x91, 0x00],
            // Application not found.
            (0x5A, _) => vec![0x91, 0xA0],
            // No applications.
            (0x6A, _) => vec![0x91, 0x00],
            // Authentication error: the real UID is for who knows a key.
            (0x51, _) => vec![0x91, 0xAE],
            // Illegal command.
            _ => vec![0x91, 0x1C],
        }
    }

    /// ISO 7816-4 commands of processor cards.
    fn processor(&mut self, ins: u8, p1: u8, rest: &[u8]) -> Vec<u8> {
        let technology = self.profile.technology;
        let name: &[u8] = match rest.split_first() {
            Some((length, data)) => data.get(..usize::from(*length)).unwrap_or(data),
            None => &[],
        };
        match (technology, ins, p1) {
            (Technology::Cpu, 0xA4, 0x00) if matches!(name, [] | [0x3F, 0x00]) => select(b"1PAY.SYS.DDF01"),
            (Technology::Cpu, 0xA4, 0x04) if name == b"1PAY.SYS.DDF01" => select(name),
            (Technology::Bank, 0xA4, 0x04) if name == b"2PAY.SYS.DDF01" => select(name),
            (Technology::Cpu | Technology::Bank | Technology::Desfire, 0xA4, _) => NOT_FOUND.to_vec(),
            (Technology::Cpu, 0x84, 0x00) => match rest {
                [length @ (4 | 8)] => self.challenge(usize::from(*length)),
                _ => WRONG_LENGTH.to_vec(),
            },
            _ => UNKNOWN.to_vec(),
        }
    }

    /// Differs every time and is the same in every run.
    fn challenge(&mut self, length: usize) -> Vec<u8> {
        self.challenges += 1;
        let mixed = self.challenges.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_be_bytes();
        [mixed.get(..length).unwrap_or(&mixed), &OK].concat()
    }

    fn is_classic(&self) -> bool {
        matches!(self.profile.technology, Technology::Classic1k | Technology::Classic4k)
    }
}

/// Data and status for the Le that was asked: 00 is all, too long is the warning 6282, too short `6C` and the length.
fn cut(data: &[u8], rest: &[u8]) -> Vec<u8> {
    let wanted = usize::from(rest.first().copied().unwrap_or(0));
    match wanted {
        0 => [data, &OK].concat(),
        _ if wanted == data.len() => [data, &OK].concat(),
        _ if wanted > data.len() => [data, &[0x62, 0x82]].concat(),
        _ => vec![0x6C, u8::try_from(data.len()).unwrap_or(0)],
    }
}

/// File control information with the name (ISO 7816-4 §7.4.1).
fn select(name: &[u8]) -> Vec<u8> {
    let length = u8::try_from(name.len()).unwrap_or(0);
    [&[0x6F, length + 2, 0x84, length], name, &OK].concat()
}

/// Sector of a block: four blocks each, from sector 32 sixteen.
fn sector(block: usize) -> usize {
    if block < 128 { block / 4 } else { 32 + (block - 128) / 16 }
}

fn memory(profile: &CardProfile) -> Vec<u8> {
    let check = |bytes: &[u8], from: u8| bytes.iter().fold(from, |check, byte| check ^ byte);
    match profile.technology {
        Technology::Classic1k => classic(profile, 64),
        Technology::Classic4k => classic(profile, 256),
        Technology::UltralightEv1 | Technology::Ntag213 | Technology::Ntag215 | Technology::Ntag216 => {
            // (pages, capability container size) by the NTAG21x datasheet §8.5.6.
            let (pages, size) = match profile.technology {
                Technology::Ntag213 => (45, 0x12),
                Technology::Ntag215 => (135, 0x3E),
                Technology::Ntag216 => (231, 0x6D),
                _ => (20, 0),
            };
            let (first, second) = profile.uid.split_at(profile.uid.len().min(3));
            let mut bytes = [first, &[check(first, 0x88)], second, &[check(second, 0), 0x48, 0, 0]].concat();
            // An Ultralight's one-time pages are zero as delivered.
            bytes.extend(if size == 0 { [0; 4] } else { [0xE1, 0x10, size, 0x00] });
            bytes.resize(pages * PAGE, 0);
            bytes
        }
        _ => Vec::new(),
    }
}

/// Manufacturer block, then empty data with factory trailers: key A reads as zeros, access FF0780 69, key B.
fn classic(profile: &CardProfile, blocks: usize) -> Vec<u8> {
    let mut bytes = profile.uid.clone();
    bytes.push(profile.uid.iter().fold(0, |check, byte| check ^ byte));
    bytes.extend(if blocks > 64 { [0x18, 0x02, 0x00] } else { [0x08, 0x04, 0x00] });
    bytes.resize(BLOCK, 0);
    for block in 1..blocks {
        let last = sector(block) != sector(block + 1);
        if last {
            bytes.extend([0; 6]);
            bytes.extend([0xFF, 0x07, 0x80, 0x69]);
            bytes.extend(profile.key);
        } else {
            bytes.extend([0; BLOCK]);
        }
    }
    bytes
}

#[cfg(test)]
#[path = "chip_tests.rs"]
mod tests;
