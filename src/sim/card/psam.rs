//! A simulated purchase SAM, as it answers in a card slot: terminal number, purchase
//! application, approval of a purchase and the check of the card's answer. It has a
//! triple DES key of its own, counts its transactions and does its sums without the
//! driver's codec. A MAC2 that is wrong three times in a row locks it for ever. Sources: JR/T 0025 (ED/EP terminals), FMCOS PSAM manual.

use std::fmt;

use des::cipher::{BlockEncrypt, KeyInit};
use des::{Des, TdesEde2};

/// Type of a transaction: a purchase from the purse.
const PURCHASE: u8 = 0x06;
/// Identifier of its purchase application.
const APPLICATION: [u8; 2] = [0x10, 0x01];

/// Wrong answers of cards in a row until it locks itself.
const TRIES: u8 = 3;

/// A purchase SAM.
#[derive(Clone)]
pub struct Psam {
    master: [u8; 16],
    key_version: u8,
    terminal: [u8; 6],
    /// Transactions approved so far.
    pub sequence: u32,
    selected: bool,
    /// MAC2 a card will answer with, while a purchase is open.
    expected: Option<[u8; 4]>,
    /// Wrong answers that it still takes.
    tries: u8,
}

impl fmt::Debug for Psam {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Psam").field("sequence", &self.sequence).finish_non_exhaustive()
    }
}

impl Psam {
    /// With this purchase key, of this version, in this terminal.
    #[must_use]
    pub fn new(master: [u8; 16], key_version: u8, terminal: [u8; 6]) -> Self {
        Self { master, key_version, terminal, sequence: 0, selected: false, expected: None, tries: TRIES }
    }

    /// Wrong answers that it still takes.
    #[must_use]
    pub fn tries_left(&self) -> u8 {
        self.tries
    }

    /// Power is gone: what was open is forgotten.
    pub fn reset(&mut self) {
        (self.selected, self.expected) = (false, None);
    }

    /// The answer to a command: data and status word.
    pub fn apdu(&mut self, command: &[u8]) -> Vec<u8> {
        match command {
            [0x00, 0xB0, 0x96, 0x00, 0x06] => [self.terminal.as_slice(), &[0x90, 0x00]].concat(),
            [0x00, 0xA4, 0x00, 0x00, 0x02, name @ ..] if *name == APPLICATION => {
                self.selected = true;
                status(0x9000)
            }
            [0x00, 0xA4, ..] => status(0x6A82),
            [0x80, ..] if self.tries == 0 => status(0x9303),
            [0x80, 0x70, ..] | [0x80, 0x72, ..] if !self.selected => status(0x6985),
            [0x80, 0x70, 0x00, 0x00, 0x1C, data @ .., 0x08] if data.len() == 0x1C => self.approve(data),
            [0x80, 0x72, 0x00, 0x00, 0x04, mac2 @ ..] if mac2.len() == 4 => match self.expected.take() {
                None => status(0x6985),
                Some(expected) if mac2 == expected => {
                    self.tries = TRIES;
                    status(0x9000)
                }
                Some(_) => {
                    self.tries -= 1;
                    status(0x9302)
                }
            },
            [0x80, 0x70 | 0x72, ..] => status(0x6700),
            _ => status(0x6D00),
        }
    }

    /// Random 4, offline sequence 2, amount 4, type, date and time 7, key version,
    /// algorithm, serial 8.
    fn approve(&mut self, data: &[u8]) -> Vec<u8> {
        let (Some(challenge), Some(amount), Some(terms), Some([version, algorithm]), Some(serial)) =
            (data.get(..6), data.get(6..10), data.get(6..11), data.get(18..20), data.get(20..28))
        else {
            return status(0x6700);
        };
        // A purchase from the purse: nothing else is approved by this SAM.
        if terms.last() != Some(&PURCHASE) {
            return status(0x6A80);
        }
        let when = data.get(11..18).unwrap_or_default();
        if *version != self.key_version || *algorithm != 0 {
            return status(0x9403);
        }
        self.sequence += 1;
        let complement: Vec<u8> = serial.iter().map(|byte| !byte).collect();
        let of_card = [triple(&self.master, serial), triple(&self.master, &complement)].concat();
        let count = self.sequence.to_be_bytes();
        let session = triple(&of_card, &[challenge, count.get(2..).unwrap_or_default()].concat());
        let mac1 = mac(&session, &[terms, &self.terminal, when].concat());
        self.expected = Some(mac(&session, amount));
        [count.as_slice(), &mac1, &[0x90, 0x00]].concat()
    }
}

fn status(word: u16) -> Vec<u8> {
    word.to_be_bytes().to_vec()
}

pub(super) fn triple(key: &[u8], block: &[u8]) -> Vec<u8> {
    let Ok(cipher) = TdesEde2::new_from_slice(key) else { return Vec::new() };
    let mut block: [u8; 8] = block.try_into().unwrap_or_default();
    cipher.encrypt_block((&mut block).into());
    block.to_vec()
}

/// Left half of a CBC-MAC with single DES; 80 and zeros always follow the message.
pub(super) fn mac(session: &[u8], message: &[u8]) -> [u8; 4] {
    let Ok(cipher) = Des::new_from_slice(session) else { return [0; 4] };
    let mut message = [message, &[0x80]].concat();
    message.resize(message.len().next_multiple_of(8), 0);
    let mut state = [0; 8];
    for block in message.chunks(8) {
        for (byte, with) in state.iter_mut().zip(block) {
            *byte ^= with;
        }
        cipher.encrypt_block((&mut state).into());
    }
    let [a, b, c, d, ..] = state;
    [a, b, c, d]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_purchase() {
        // Random 11223344, sequences 0000 and 0001, amount 0x1000, terminal 001122334455,
        // 2012-02-29 13:51:00: session 003238ABC57659DD, MAC1 F15CAB75, MAC2 56988A13.
        let key = hex::decode("11223344556677888877665544332211").unwrap();
        let session = triple(&key, &hex::decode("1122334400000001").unwrap());
        assert_eq!(hex::encode_upper(&session), "003238ABC57659DD");
        let message = hex::decode("000010000600112233445520120229135100").unwrap();
        assert_eq!(hex::encode_upper(mac(&session, &message)), "F15CAB75");
        assert_eq!(hex::encode_upper(mac(&session, &message[..4])), "56988A13");
    }

    #[test]
    fn what_it_does_not_know() {
        let mut psam = Psam::new([7; 16], 1, [1; 6]);
        for (command, answer) in [
            ("8070 0000 1C", "6985"),
            ("00A4 0000 02 3F01", "6A82"),
            ("00A4 0000 02 1001 FF", "6A82"),
            ("00A4 0000 02 1001", "9000"),
            ("8070 0000 1C 00", "6700"),
            ("8070 0000 1C 11223344 0007 000004D2 05 20261122101530 01 00 1122334455667788 08", "6A80"),
            ("8070 0000 1C 11223344 0007 000004D2 06 20261122101530 01 00 1122334455667788 0008", "6700"),
            ("8072 0000 04 00000000", "6985"),
            ("8072 0000 04 0000000000", "6700"),
            ("0084 0000 08", "6D00"),
        ] {
            let command = hex::decode(command.replace(' ', "")).unwrap();
            assert_eq!(hex::encode_upper(psam.apdu(&command)), answer, "{command:02X?}");
        }
    }
}
