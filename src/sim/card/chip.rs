//! What reader and card together answer to an APDU. Pure. The memories are in
//! `classic`, `tag`, `ultralight_c` and `desfire`; other processor cards know no more here than
//! identification asks.

use super::classic::{Classic, Key};
use super::desfire::Desfire;
use super::fmcos::{Fmcos, Masters};
use super::ntag424;
use super::profile::{CardProfile, Technology};
use super::psam::Psam;
use super::sle4442::Sle4442;
use super::tag::{Kind, Tag};
use super::ultralight_c::UltralightC;

const OK: [u8; 2] = [0x90, 0x00];
const FAILED: [u8; 2] = [0x63, 0x00];
const WRONG_LENGTH: [u8; 2] = [0x67, 0x00];
const NOT_FOUND: [u8; 2] = [0x6A, 0x82];
const UNSUPPORTED: [u8; 2] = [0x6A, 0x81];
const UNKNOWN: [u8; 2] = [0x6D, 0x00];
const BLOCK: usize = 16;

#[derive(Debug, Clone)]
enum Memory {
    Blocks(Classic),
    Pages(Tag),
    TripleDes(Box<UltralightC>),
    Files(Box<Desfire>),
    Contact(Box<Sle4442>),
    Purse(Box<Fmcos>),
    /// In a card slot.
    Sam(Box<Psam>),
    /// The technology is only identified.
    None,
}

/// A card in a field.
#[derive(Debug, Clone)]
pub struct Chip {
    profile: CardProfile,
    memory: Memory,
    /// Keys loaded into the reader, by slot.
    keys: [Option<[u8; 6]>; 2],
    /// Challenges given, so that each is another.
    challenges: u64,
}

impl Chip {
    /// A card as delivered.
    #[must_use]
    pub fn new(profile: CardProfile) -> Self {
        let memory = memory(&profile);
        Self { profile, memory, keys: [None; 2], challenges: 0 }
    }

    /// A CPU card with a purse, as its maker personalises it with these keys.
    #[must_use]
    pub fn with_purse(profile: CardProfile, masters: &Masters) -> Self {
        let memory = Memory::Purse(Box::new(Fmcos::personalised(&profile.uid, masters)));
        Self { profile, memory, keys: [None; 2], challenges: 0 }
    }

    /// A purchase SAM, for a card slot.
    #[must_use]
    pub fn sam(psam: Psam) -> Self {
        let mut profile = CardProfile::new(Technology::Cpu);
        // T=0, no historical bytes.
        profile.atr = Some(vec![0x3B, 0x00]);
        Self { profile, memory: Memory::Sam(Box::new(psam)), keys: [None; 2], challenges: 0 }
    }

    /// Of a purchase SAM: transactions it approved, and wrong answers that it still takes.
    #[must_use]
    pub fn sam_state(&self) -> Option<(u32, u8)> {
        match &self.memory {
            Memory::Sam(psam) => Some((psam.sequence, psam.tries_left())),
            _ => None,
        }
    }

    /// Of a CPU card: fen in its purse, and its counters of loads and purchases.
    #[must_use]
    pub fn purse(&self) -> Option<(u32, u16, u16)> {
        match &self.memory {
            Memory::Purse(purse) => Some(purse.purse()),
            _ => None,
        }
    }

    /// Somebody else's terminal was at a CPU card's purse.
    pub fn set_purse(&mut self, fen: u32) {
        if let Memory::Purse(purse) = &mut self.memory {
            purse.set_balance(fen);
        }
    }

    /// A CPU card of the kind that names a transaction by the counter before it.
    pub fn prove_by_counter_before(&mut self) {
        if let Memory::Purse(purse) = &mut self.memory {
            purse.prove_by_counter_before();
        }
    }

    /// From now on a CPU card is an imitation of itself: whatever can be read is right, and it has
    /// no purse keys. It takes every purchase, and its word for one is wrong.
    pub fn imitate(&mut self) {
        if let Memory::Purse(purse) = &mut self.memory {
            purse.imitate();
        }
    }

    /// A CPU card that cannot be asked for its last transaction any more.
    pub fn keep_no_proof(&mut self) {
        if let Memory::Purse(purse) = &mut self.memory {
            purse.keep_no_proof();
        }
    }

    /// The field was switched off or the card reset.
    pub fn reset(&mut self) {
        match &mut self.memory {
            Memory::Blocks(classic) => classic.reset(),
            Memory::Pages(tag) => tag.reset(),
            Memory::TripleDes(tag) => tag.reset(),
            Memory::Files(files) => files.reset(),
            Memory::Contact(card) => card.reset(),
            Memory::Purse(purse) => purse.reset(),
            Memory::Sam(psam) => psam.reset(),
            Memory::None => {}
        }
    }

    /// The card.
    #[must_use]
    pub fn profile(&self) -> &CardProfile {
        &self.profile
    }

    /// The same card, as another reader shows it.
    #[must_use]
    pub fn in_another_reader(mut self, profile: CardProfile) -> Self {
        self.profile = profile;
        self.keys = [None; 2];
        self.reset();
        self
    }

    /// What a block or page holds, past every guard.
    #[must_use]
    pub fn stored(&self, at: usize) -> Option<&[u8]> {
        match &self.memory {
            Memory::Blocks(classic) => classic.stored(at),
            Memory::Pages(tag) => tag.stored(at),
            Memory::TripleDes(tag) => tag.stored(at),
            Memory::Contact(card) => card.stored().get(at..),
            _ => None,
        }
    }

    /// A byte of a block, page or file (of a contact card: of what begins at an address), past every
    /// guard: for cards whose memory has rotted.
    pub fn cell_mut(&mut self, at: usize, offset: usize) -> Option<&mut u8> {
        match &mut self.memory {
            Memory::Blocks(classic) => classic.cell_mut(at, offset),
            Memory::Pages(tag) => tag.cell_mut(at, offset),
            Memory::TripleDes(tag) => tag.cell_mut(at, offset),
            Memory::Files(files) => files.cell_mut(at, offset),
            Memory::Contact(card) => card.cell_mut(at + offset),
            Memory::Purse(purse) => purse.cell_mut(offset),
            Memory::Sam(_) | Memory::None => None,
        }
    }

    /// Wrong passwords in a row that a tag has counted.
    #[must_use]
    pub fn wrong_passwords(&self) -> u8 {
        match &self.memory {
            Memory::Pages(tag) => tag.wrong_passwords(),
            _ => 0,
        }
    }

    /// Passwords, logins and codes that were wrong since the card was made, also such as it has
    /// forgotten at a right one.
    #[must_use]
    pub fn tries_lost(&self) -> u32 {
        match &self.memory {
            Memory::Pages(tag) => tag.refused(),
            Memory::Contact(card) => card.refused(),
            _ => self.failed_logins(),
        }
    }

    /// Logins that a DESFire, NTAG 424 or Ultralight C refused.
    #[must_use]
    pub fn failed_logins(&self) -> u32 {
        match &self.memory {
            Memory::Files(files) => files.failed_logins(),
            Memory::TripleDes(tag) => tag.failed_logins(),
            Memory::Purse(purse) => purse.failed_logins(),
            _ => 0,
        }
    }

    /// Keys of the applications on a DESFire or NTAG 424, or of a CPU card: for tests of what must be
    /// seen nowhere.
    #[must_use]
    pub fn application_keys(&self) -> Vec<[u8; 16]> {
        match &self.memory {
            Memory::Files(files) => files.application_keys(),
            Memory::Purse(purse) => purse.keys(),
            _ => Vec::new(),
        }
    }

    /// What it shows of itself: its UID, or of an SLE4442 the serial it was given, else its
    /// maker's bytes.
    #[must_use]
    pub fn shown(&self) -> Vec<u8> {
        let Memory::Contact(card) = &self.memory else { return self.profile.uid.clone() };
        let stored = card.stored();
        let part = |from: usize, to: usize| stored.get(from..to).unwrap_or_default().to_vec();
        let (serial, complement) = (part(8, 14), part(14, 20));
        let whole = serial.iter().zip(&complement).all(|(byte, other)| byte ^ other == 0xFF);
        if whole { serial } else { part(0, 8) }
    }

    /// The SLE4442 with a serial already, its profile's UID: as one whose issue was cut off.
    #[must_use]
    pub fn named(mut self) -> Self {
        let serial = self.profile.uid.clone();
        if let Memory::Contact(card) = &mut self.memory {
            card.name(&serial);
        }
        self
    }

    /// Of an SLE4442: its code, and the tries it has left.
    #[must_use]
    pub fn code(&self) -> Option<([u8; 3], u32)> {
        match &self.memory {
            Memory::Contact(card) => Some((card.code(), card.tries_left())),
            _ => None,
        }
    }

    /// Somebody else gave an SLE4442 this code.
    pub fn set_code(&mut self, code: [u8; 3]) {
        if let Memory::Contact(card) = &mut self.memory {
            card.set_code(code);
        }
    }

    /// Answers one APDU.
    pub fn apdu(&mut self, apdu: &[u8]) -> Vec<u8> {
        let [class, ins, p1, p2, rest @ ..] = apdu else { return WRONG_LENGTH.to_vec() };
        match (class, &mut self.memory) {
            (0xFF, Memory::Contact(card)) => return card.apdu(*ins, *p1, *p2, rest),
            (0x00 | 0x80, Memory::Purse(purse)) => return purse.apdu(apdu),
            (_, Memory::Sam(psam)) => return psam.apdu(apdu),
            _ => {}
        }
        match class {
            0xFF => self.reader(*ins, *p1, *p2, rest),
            0x00 => self.processor(*ins, *p1, rest),
            0x90 => match &mut self.memory {
                Memory::Files(files) => files.wrapped(*ins, rest),
                _ => UNKNOWN.to_vec(),
            },
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

    fn authenticate(&mut self, block: [u8; 2], kind: u8, slot: u8) -> Vec<u8> {
        let block = usize::from(u16::from_be_bytes(block));
        let key = self.keys.get(usize::from(slot)).copied().flatten();
        let kind = if kind == 0x60 { Key::A } else { Key::B };
        let opened = match &mut self.memory {
            Memory::Blocks(classic) => classic.authenticate(block, kind, key),
            _ => false,
        };
        if opened { OK.to_vec() } else { FAILED.to_vec() }
    }

    fn read(&mut self, address: usize, rest: &[u8]) -> Vec<u8> {
        let length = rest.first().map_or(BLOCK, |le| if *le == 0 { BLOCK } else { usize::from(*le) });
        let bytes = match &mut self.memory {
            Memory::Blocks(classic) => classic.read(address, length),
            Memory::Pages(tag) => tag.read(address).and_then(|bytes| bytes.get(..length).map(<[u8]>::to_vec)),
            Memory::TripleDes(tag) => {
                tag.read(address).and_then(|bytes| bytes.get(..length).map(<[u8]>::to_vec))
            }
            _ => return UNSUPPORTED.to_vec(),
        };
        bytes.map_or(FAILED.to_vec(), |bytes| [bytes.as_slice(), &OK].concat())
    }

    fn write(&mut self, address: usize, rest: &[u8]) -> Vec<u8> {
        let Some((_, data)) = rest.split_first().filter(|(length, data)| usize::from(**length) == data.len())
        else {
            return WRONG_LENGTH.to_vec();
        };
        let written = match &mut self.memory {
            Memory::Blocks(classic) => classic.write(address, data),
            Memory::Pages(tag) => tag.write(address, data),
            Memory::TripleDes(tag) => tag.write(address, data),
            _ => false,
        };
        if written { OK.to_vec() } else { FAILED.to_vec() }
    }

    /// ACR122U direct transmit of PN532 InCommunicateThru: `D4 42` and the card's own command.
    fn direct(&mut self, rest: &[u8]) -> Vec<u8> {
        match rest.split_first() {
            Some((length, [0xD4, 0x42, command @ ..])) if usize::from(*length) == command.len() + 2 => {
                let answer = match &mut self.memory {
                    Memory::Pages(tag) => tag.command(command),
                    Memory::TripleDes(tag) => tag.command(command),
                    _ => None,
                };
                match answer {
                    Some(answer) => [&[0xD5, 0x43, 0x00][..], &answer, &OK].concat(),
                    // No answer from the card: PN532 error 01, time-out.
                    None => [&[0xD5, 0x43, 0x01][..], &OK].concat(),
                }
            }
            _ => FAILED.to_vec(),
        }
    }

    /// ISO 7816-4 commands of processor cards.
    fn processor(&mut self, ins: u8, p1: u8, rest: &[u8]) -> Vec<u8> {
        let technology = self.profile.technology;
        let name: &[u8] = match rest.split_first() {
            Some((length, data)) => data.get(..usize::from(*length)).unwrap_or(data),
            None => &[],
        };
        if let (Technology::Ntag424, 0xA4, 0x04, Memory::Files(files)) =
            (technology, ins, p1, &mut self.memory)
        {
            let known = name == ntag424::NAME && files.select(ntag424::APPLICATION).is_ok();
            return if known { OK.to_vec() } else { NOT_FOUND.to_vec() };
        }
        match (technology, ins, p1) {
            (Technology::Cpu, 0xA4, 0x00) if matches!(name, [] | [0x3F, 0x00]) => select(b"1PAY.SYS.DDF01"),
            (Technology::Cpu, 0xA4, 0x04) if name == b"1PAY.SYS.DDF01" => select(name),
            (Technology::Bank, 0xA4, 0x04) if name == b"2PAY.SYS.DDF01" => select(name),
            (Technology::Cpu | Technology::Bank | Technology::Desfire | Technology::DesfireEv1, 0xA4, _) => {
                NOT_FOUND.to_vec()
            }
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

/// GET_VERSION by table 28 of the NTAG21x data sheet and table 15 of the MF0ULx1 one;
/// capability container by §8.5.6; configuration pages by §8.5.7.
fn memory(profile: &CardProfile) -> Memory {
    let ntag = |size| [0x00, 0x04, 0x04, 0x02, 0x01, 0x00, size, 0x03];
    let ultralight = |size| [0x00, 0x04, 0x03, 0x01, 0x01, 0x00, size, 0x03];
    let kind = match profile.technology {
        Technology::Classic1k => {
            return Memory::Blocks(Classic::as_delivered(&profile.uid, 64, profile.key));
        }
        Technology::Classic4k => {
            return Memory::Blocks(Classic::as_delivered(&profile.uid, 256, profile.key));
        }
        Technology::Desfire => {
            return Memory::Files(Box::new(Desfire::as_delivered(&profile.uid)));
        }
        Technology::DesfireEv1 => {
            return Memory::Files(Box::new(Desfire::ev1_as_delivered(&profile.uid)));
        }
        Technology::UltralightC => {
            return Memory::TripleDes(Box::new(UltralightC::as_delivered(&profile.uid)));
        }
        Technology::Sle4442 => return Memory::Contact(Box::new(Sle4442::as_delivered())),
        Technology::Ntag424 => return Memory::Files(Box::new(ntag424::as_delivered(&profile.uid))),
        Technology::Ntag213 => Kind { pages: 45, size: 0x12, version: ntag(0x0F), config: 0x29 },
        Technology::Ntag215 => Kind { pages: 135, size: 0x3E, version: ntag(0x11), config: 0x83 },
        Technology::Ntag216 => Kind { pages: 231, size: 0x6D, version: ntag(0x13), config: 0xE3 },
        Technology::UltralightEv1 => Kind { pages: 20, size: 0, version: ultralight(0x0B), config: 0x10 },
        Technology::UltralightEv1Large => {
            Kind { pages: 41, size: 0, version: ultralight(0x0E), config: 0x25 }
        }
        _ => return Memory::None,
    };
    Memory::Pages(Tag::as_delivered(&profile.uid, &kind))
}

#[cfg(test)]
#[path = "chip_tests.rs"]
mod tests;
