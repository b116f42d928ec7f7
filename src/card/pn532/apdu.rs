//! A PN532 as a PC/SC reader: what its pseudo-APDUs (PC/SC 2.01 part 3 §3.2.2, ACR122U API v2.04
//! for the direct transmit) ask of the chip, and what its word is in status words. Pure: each
//! APDU is one command of the chip, or is answered without it. What does not live here: the line.

use zeroize::Zeroizing;

use super::command::{Request, Target, outcome};
use crate::card::apdu::{Command, MAX_RESPONSE_BYTES, Response, StatusWord};
use crate::card::probe::Answer;

const FAILED: StatusWord = StatusWord(0x6300);
const WRONG_LENGTH: StatusWord = StatusWord(0x6700);
const UNSUPPORTED: StatusWord = StatusWord(0x6A81);
const NO_KEY: StatusWord = StatusWord(0x6982);
const SHORTER: StatusWord = StatusWord(0x6282);
/// READ brings so much of both families (NTAG213/215/216 data sheet rev. 3.2 §10.2,
/// MF1S50YYX_V1 data sheet rev. 3.2 §12.2).
const READ_BYTES: usize = 16;
const READ: u8 = 0x30;
const WRITE_BLOCK: u8 = 0xA0;
const WRITE_PAGE: u8 = 0xA2;

/// The reader as its user sees it, with a card selected.
pub(super) struct Reader {
    target: Target,
    keys: [Option<Zeroizing<[u8; 6]>>; 2],
}

/// What an APDU comes to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// This, without a word to the chip.
    Known(Answer),
    /// A command of the chip, and how to read its answer.
    Chip(Request, Shape),
}

/// How the chip's answer becomes a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// Good or not.
    Done,
    /// So many of the bytes that were read.
    Read(usize),
    /// The chip's own answer, as a direct transmit brings it.
    Direct,
    /// The card's response APDU.
    Apdu,
}

fn known(status: StatusWord) -> Asked {
    Asked::Known(Answer::Response(Response { data: Vec::new(), status }))
}

impl Reader {
    pub(super) fn new(target: Target) -> Self {
        Self { target, keys: [None, None] }
    }

    pub(super) fn target(&self) -> &Target {
        &self.target
    }

    /// The card was selected anew.
    pub(super) fn selected(&mut self, target: Target) {
        self.target = target;
    }

    /// What this APDU asks of the chip.
    pub(super) fn ask(&mut self, command: &Command) -> Asked {
        let bytes = command.to_bytes();
        match bytes.as_slice() {
            [0xFF, 0xCA, 0x00, 0x00, rest @ ..] => Self::told(&self.target.uid, rest),
            [0xFF, 0xCA, 0x01, 0x00, rest @ ..] if !self.target.ats.is_empty() => {
                Self::told(&self.target.ats, rest)
            }
            [0xFF, 0x82, 0x00 | 0x20, slot, 6, key @ ..] => self.load_key(*slot, key),
            [0xFF, 0x86, 0x00, 0x00, 5, 0x01, 0x00, block, kind @ (0x60 | 0x61), slot] => {
                self.authenticate(*kind, *block, *slot)
            }
            [0xFF, 0xB0, 0x00, at, rest @ ..] if !self.target.is_processor() => Self::read(*at, rest),
            [0xFF, 0xD6, 0x00, at, length, data @ ..] if !self.target.is_processor() => {
                self.update(*at, *length, data)
            }
            // InCommunicateThru, the one command of the chip that a card driver relays.
            [0xFF, 0x00, 0x00, 0x00, length, 0xD4, 0x42, data @ ..]
                if usize::from(*length) == data.len() + 2 =>
            {
                Asked::Chip(Request::through(data), Shape::Direct)
            }
            [0xFF, ..] => known(UNSUPPORTED),
            apdu if self.target.is_processor() => Asked::Chip(Request::exchange(apdu), Shape::Apdu),
            _ => known(UNSUPPORTED),
        }
    }

    /// Data for the Le that was asked (ISO/IEC 7816-4:2020 §5.2).
    fn told(data: &[u8], rest: &[u8]) -> Asked {
        let wanted = rest.first().copied().map_or(0, usize::from);
        let status = match wanted {
            0 => StatusWord::OK,
            _ if wanted == data.len() => StatusWord::OK,
            _ if wanted > data.len() => SHORTER,
            _ => return known(StatusWord(0x6C00 | u16::try_from(data.len() & 0xFF).unwrap_or(0))),
        };
        Asked::Known(Answer::Response(Response { data: data.to_vec(), status }))
    }

    fn load_key(&mut self, slot: u8, key: &[u8]) -> Asked {
        match (self.keys.get_mut(usize::from(slot)), <[u8; 6]>::try_from(key)) {
            (Some(place), Ok(key)) => {
                *place = Some(Zeroizing::new(key));
                known(StatusWord::OK)
            }
            _ => known(FAILED),
        }
    }

    /// The login takes key and UID; of a longer UID the last four bytes (NXP AN10927 rev. 3.2 §3.1.2).
    fn authenticate(&self, kind: u8, block: u8, slot: u8) -> Asked {
        let key = self.keys.get(usize::from(slot)).and_then(Option::as_ref);
        let (Some(key), Some(uid)) = (key, self.target.uid.last_chunk::<4>()) else { return known(NO_KEY) };
        if !self.target.is_classic() {
            return known(UNSUPPORTED);
        }
        let mut login = Zeroizing::new(Vec::with_capacity(12));
        login.extend_from_slice(&[kind, block]);
        login.extend_from_slice(&key[..]);
        login.extend_from_slice(uid);
        // A Classic counts no wrong keys.
        Asked::Chip(Request::exchange(&login).repeatable(), Shape::Done)
    }

    fn read(at: u8, rest: &[u8]) -> Asked {
        let wanted = match rest.first().copied().map_or(0, usize::from) {
            0 => READ_BYTES,
            wanted @ 1..=READ_BYTES => wanted,
            _ => return known(StatusWord(0x6C10)),
        };
        Asked::Chip(Request::exchange(&[READ, at]).repeatable(), Shape::Read(wanted))
    }

    fn update(&self, at: u8, length: u8, data: &[u8]) -> Asked {
        let (code, size) = if self.target.is_classic() { (WRITE_BLOCK, 16) } else { (WRITE_PAGE, 4) };
        if usize::from(length) != data.len() || data.len() != size {
            return known(WRONG_LENGTH);
        }
        let mut write = Zeroizing::new(Vec::with_capacity(2 + size));
        write.extend_from_slice(&[code, at]);
        write.extend_from_slice(data);
        // The same bytes at the same place; lock bits and one-time pages are only ever set.
        Asked::Chip(Request::exchange(&write).repeatable(), Shape::Done)
    }
}

/// What the chip's answer, behind its code, is in a response.
pub(super) fn answer(shape: Shape, chip: &[u8]) -> Answer {
    let response = |data: &[u8], status| Answer::Response(Response { data: data.to_vec(), status });
    match (shape, outcome(chip)) {
        (Shape::Done, Ok(_)) => response(&[], StatusWord::OK),
        (Shape::Read(wanted), Ok(read)) => match read.get(..wanted) {
            Some(bytes) => response(bytes, StatusWord::OK),
            None => response(&[], FAILED),
        },
        (Shape::Done | Shape::Read(_), Err(_)) => response(&[], FAILED),
        (Shape::Direct, _) if chip.len() + 4 <= MAX_RESPONSE_BYTES => {
            response(&[&[0xD5, 0x43], chip].concat(), StatusWord::OK)
        }
        (Shape::Apdu, Ok(apdu)) => Response::parse(apdu).map_or(Answer::NotTransmitted, Answer::Response),
        (Shape::Direct | Shape::Apdu, _) => Answer::NotTransmitted,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::card::apdu::ClassicKeyType;

    fn target(sak: u8, uid: &str, ats: &str) -> Target {
        Target { sak, uid: hex::decode(uid).unwrap(), ats: hex::decode(ats).unwrap() }
    }

    fn chip(asked: &Asked) -> String {
        match asked {
            Asked::Chip(request, _) => hex::encode_upper(request.bytes()),
            Asked::Known(Answer::Response(response)) => {
                format!("{}/{}", hex::encode_upper(&response.data), response.status)
            }
            Asked::Known(_) => "none".into(),
        }
    }

    #[test]
    fn what_each_apdu_asks_of_the_chip() {
        let classic = || Reader::new(target(0x08, "3A91C45E", ""));
        let long = || Reader::new(target(0x08, "04A1B2C3D45E80", ""));
        let tag = || Reader::new(target(0x00, "04A1B2C3D45E80", ""));
        let processor = || Reader::new(target(0x20, "04A1B2C3D45E80", "067577810280"));
        let update = |len: usize| Command::new([0xFF, 0xD6, 0, 5]).with_data(&vec![0xAB; len]);
        let ats = || Command::new([0xFF, 0xCA, 1, 0]).expecting(0);
        let cases: [(&str, Reader, Command, &str); 17] = [
            ("UID", tag(), Command::get_uid(), "04A1B2C3D45E80/9000"),
            ("UID, right Le", tag(), Command::get_uid().expecting(7), "04A1B2C3D45E80/9000"),
            ("UID, long Le", tag(), Command::get_uid().expecting(9), "04A1B2C3D45E80/6282"),
            ("UID, short Le", tag(), Command::get_uid().expecting(4), "/6C07"),
            ("ATS", processor(), ats(), "067577810280/9000"),
            ("ATS of a tag", tag(), ats(), "/6A81"),
            ("read", tag(), Command::read_block(4, 16), "40013004"),
            ("read too much", tag(), Command::read_block(4, 17), "/6C10"),
            ("write a page", tag(), update(4), "4001A205ABABABAB"),
            ("a page is no block", tag(), update(16), "/6700"),
            ("write a block", classic(), update(16), "4001A005ABABABABABABABABABABABABABABABAB"),
            ("a block is no page", classic(), update(4), "/6700"),
            ("no key loaded", classic(), Command::authenticate(4), "/6982"),
            ("GET_VERSION", tag(), Command::direct_transmit(&[0xD4, 0x42, 0x60]), "4260"),
            ("no other command of the chip", tag(), Command::direct_transmit(&[0xD4, 0x06, 1, 2]), "/6A81"),
            ("an APDU", processor(), Command::desfire(0x60), "40019060000000"),
            ("an APDU for a tag", long(), Command::desfire(0x60), "/6A81"),
        ];
        for (name, mut reader, command, expected) in cases {
            assert_eq!(chip(&reader.ask(&command)), expected, "{name}");
        }
        for (mut reader, uid) in [(classic(), "3A91C45E"), (long(), "C3D45E80")] {
            assert_eq!(chip(&reader.ask(&Command::load_key(&[0xA5; 6]))), "/9000");
            let login = reader.ask(&Command::authenticate_with(7, ClassicKeyType::B));
            assert_eq!(chip(&login), format!("40016107A5A5A5A5A5A5{uid}"));
        }
    }

    #[test]
    fn what_repeating_could_spoil_is_not_repeatable() {
        let mut tag = Reader::new(target(0x00, "04A1B2C3D45E80", ""));
        let mut processor = Reader::new(target(0x20, "04A1B2C3D45E80", "067577810280"));
        let password = Command::direct_transmit(&[0xD4, 0x42, 0x1B, 1, 2, 3, 4]);
        let once = [tag.ask(&password), processor.ask(&Command::desfire(0xC7))];
        let often = [tag.ask(&Command::read_block(4, 16))];
        let repeatable = |asked: &Asked| matches!(asked, Asked::Chip(request, _) if request.is_repeatable());
        assert!(!once.iter().any(repeatable) && often.iter().all(repeatable));
    }

    #[test]
    fn what_the_chip_says_in_status_words() {
        let cases = [
            (Shape::Done, "00", "/9000"),
            (Shape::Done, "14", "/6300"),
            (Shape::Done, "", "/6300"),
            (Shape::Read(4), "00E1103E0000000000000000000000000000", "E1103E00/9000"),
            (Shape::Read(16), "00E110", "/6300"),
            (Shape::Read(16), "01", "/6300"),
            (Shape::Direct, "000004040201001103", "D543000004040201001103/9000"),
            (Shape::Direct, "01", "D54301/9000"),
            (Shape::Apdu, "00AF04010101001805 91AF", "AF04010101001805/91AF"),
            (Shape::Apdu, "01", "none"),
            (Shape::Apdu, "0090", "none"),
        ];
        for (shape, said, expected) in cases {
            let said = hex::decode(said.replace(' ', "")).unwrap();
            assert_eq!(chip(&Asked::Known(answer(shape, &said))), expected, "{shape:?} {said:02X?}");
        }
    }
}
