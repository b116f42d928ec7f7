//! A simulated CPU card with a purse, as its maker personalises it: one application with the
//! public file, header, record and purse, keys dispersed for its serial number, key and file
//! rights, both counters, and the proof of the last transaction of each type. It does its sums
//! without the driver's codec. Sources: JR/T 0025 (ED/EP card), FMCOS user manual.

use std::fmt;

use super::psam::{mac, triple};

/// Name of the application.
const NAME: &[u8] = &[0xF0, 0x42, 0x41, 0x59, 0x47, 0x41, 0x54, 0x45];
const PUBLIC: u8 = 0x15;
const HEADER: u8 = 0x11;
const RECORD: u8 = 0x12;
const LOAD: u8 = 0x02;
const PURCHASE: u8 = 0x06;
/// Wrong authentications until the key locks itself.
const TRIES: u8 = 3;

const OK: u16 = 0x9000;
const WRONG_LENGTH: u16 = 0x6700;
const NOT_ALLOWED: u16 = 0x6982;
const KEY_LOCKED: u16 = 0x6983;
const OUT_OF_ORDER: u16 = 0x6985;
const WRONG_DATA: u16 = 0x6A80;
const NO_FILE: u16 = 0x6A82;
const WRONG_PLACE: u16 = 0x6B00;
const WRONG_MAC: u16 = 0x9302;
const NOT_ENOUGH: u16 = 0x9401;
const NO_KEY: u16 = 0x9403;
const NO_PROOF: u16 = 0x9406;

/// Keys of the issuer, from which a card's are dispersed.
#[derive(Clone, Copy)]
pub struct Masters {
    /// External authentication.
    pub maintain: [u8; 16],
    /// Purchases (also in the purchase SAM).
    pub purchase: [u8; 16],
    /// Loads (at headquarters alone).
    pub load: [u8; 16],
    /// Signatures (at headquarters alone).
    pub tac: [u8; 16],
}

impl Masters {
    /// Of somebody who has none.
    const NONE: Self = Self { maintain: [0; 16], purchase: [0; 16], load: [0; 16], tac: [0; 16] };
}

impl fmt::Debug for Masters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Masters(…)")
    }
}

#[derive(Debug, Clone)]
struct Opening {
    kind: u8,
    amount: [u8; 4],
    terminal: [u8; 6],
    random: [u8; 4],
}

#[derive(Debug, Clone)]
struct Proof {
    kind: u8,
    sequence: u16,
    answer: [u8; 8],
}

/// The card.
#[derive(Clone)]
pub(super) struct Fmcos {
    keys: Masters,
    serial: [u8; 8],
    header: [u8; 16],
    record: [u8; 112],
    balance: u32,
    online: u16,
    offline: u16,
    tries: u8,
    failed: u32,
    proofs: Vec<Proof>,
    selected: bool,
    authenticated: bool,
    challenge: Option<[u8; 8]>,
    opening: Option<Opening>,
    challenges: u64,
    /// Whether a proof is asked for by the counter before its transaction, as some cards have it.
    by_counter_before: bool,
    /// It has none of the keys: it takes every purchase, and answers what it likes.
    imitates: bool,
    keeps_no_proof: bool,
}

impl fmt::Debug for Fmcos {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fmcos")
            .field("balance", &self.balance)
            .field("online", &self.online)
            .field("offline", &self.offline)
            .field("tries", &self.tries)
            .finish_non_exhaustive()
    }
}

type Answer = Result<Vec<u8>, u16>;

impl Fmcos {
    /// Personalised, with an empty purse and empty files.
    pub(super) fn personalised(uid: &[u8], masters: &Masters) -> Self {
        let mut serial = [0x20, 0x26, 0x11, 0x00, 0, 0, 0, 0];
        serial.iter_mut().rev().zip(uid.iter().rev()).take(4).for_each(|(to, from)| *to = *from);
        let disperse = |master: &[u8; 16]| -> [u8; 16] {
            let complement = serial.map(|byte| !byte);
            [triple(master, &serial), triple(master, &complement)].concat().try_into().unwrap_or_default()
        };
        let keys = Masters {
            maintain: disperse(&masters.maintain),
            purchase: disperse(&masters.purchase),
            load: disperse(&masters.load),
            tac: disperse(&masters.tac),
        };
        Self {
            keys,
            serial,
            header: [0; 16],
            record: [0; 112],
            balance: 0,
            online: 0,
            offline: 0,
            tries: TRIES,
            failed: 0,
            proofs: Vec::new(),
            selected: false,
            authenticated: false,
            challenge: None,
            opening: None,
            challenges: 0,
            by_counter_before: false,
            imitates: false,
            keeps_no_proof: false,
        }
    }

    pub(super) fn reset(&mut self) {
        (self.selected, self.authenticated) = (false, false);
        (self.challenge, self.opening) = (None, None);
    }

    pub(super) fn failed_logins(&self) -> u32 {
        self.failed
    }

    /// Fen in the purse, and its counters of loads and purchases.
    pub(super) fn purse(&self) -> (u32, u16, u16) {
        (self.balance, self.online, self.offline)
    }

    /// As its maker may have set it, or another terminal of the chain left it.
    pub(super) fn set_balance(&mut self, fen: u32) {
        self.balance = fen;
    }

    /// Its own ones of each purpose.
    pub(super) fn keys(&self) -> Vec<[u8; 16]> {
        let Masters { maintain, purchase, load, tac } = self.keys;
        vec![maintain, purchase, load, tac]
    }

    /// Of the record's file.
    pub(super) fn cell_mut(&mut self, offset: usize) -> Option<&mut u8> {
        self.record.get_mut(offset)
    }

    pub(super) fn prove_by_counter_before(&mut self) {
        self.by_counter_before = true;
    }

    pub(super) fn imitate(&mut self) {
        self.imitates = true;
        self.keys = Masters { maintain: self.keys.maintain, ..Masters::NONE };
    }

    pub(super) fn keep_no_proof(&mut self) {
        self.keeps_no_proof = true;
    }

    pub(super) fn apdu(&mut self, apdu: &[u8]) -> Vec<u8> {
        match self.command(apdu) {
            Ok(data) => [data.as_slice(), &OK.to_be_bytes()].concat(),
            Err(status) => status.to_be_bytes().to_vec(),
        }
    }

    fn command(&mut self, apdu: &[u8]) -> Answer {
        // Both hold for the next command alone.
        let (challenge, opening) = (self.challenge.take(), self.opening.take());
        if let [0x00, 0xA4, 0x04, 0x00, length, rest @ ..] = apdu {
            let name = rest.get(..usize::from(*length)).ok_or(WRONG_LENGTH)?;
            self.reset();
            self.selected = name == NAME;
            return if self.selected { Ok([&[0x6F, 0x0A, 0x84, 0x08], NAME].concat()) } else { Err(NO_FILE) };
        }
        if !self.selected {
            return Err(match apdu {
                [0x00, 0xB0 | 0xD6, ..] => NO_FILE,
                [0x00 | 0x80, ..] => OUT_OF_ORDER,
                _ => 0x6E00,
            });
        }
        match apdu {
            [0x00, 0xB0, file, offset, length] => self.read(*file, *offset, *length),
            [0x00, 0xD6, file, offset, length, data @ ..] if data.len() == usize::from(*length) => {
                self.update(*file, *offset, data)
            }
            [0x00, 0x84, 0x00, 0x00, length @ (4 | 8)] => {
                let random = self.random();
                let mut challenge = random;
                if *length == 4 {
                    challenge.iter_mut().skip(4).for_each(|byte| *byte = 0);
                }
                self.challenge = Some(challenge);
                Ok(random.get(..usize::from(*length)).unwrap_or_default().to_vec())
            }
            [0x00, 0x82, 0x00, 0x01, 0x08, proof @ ..] if proof.len() == 8 => {
                self.authenticate(challenge, proof)
            }
            [0x00, 0x82, 0x00, _, ..] => Err(NO_KEY),
            [0x80, 0x5C, 0x00, 0x02, 0x04] => Ok(self.balance.to_be_bytes().to_vec()),
            [0x80, 0x50, p1 @ (0x00 | 0x01), 0x02, 0x0B, key, data @ .., _] if data.len() == 10 => {
                if *key == 1 { self.open(*p1 == 1, data) } else { Err(NO_KEY) }
            }
            [0x80, 0x54, 0x01, 0x00, 0x0F, data @ .., _] if data.len() == 15 => self.debit(opening, data),
            [0x80, 0x52, 0x00, 0x00, 0x0B, data @ .., _] if data.len() == 11 => self.credit(opening, data),
            [0x80, 0x5A, 0x00, kind, 0x02, high, low, 0x08] => {
                let mut sequence = u16::from_be_bytes([*high, *low]);
                if self.by_counter_before {
                    sequence = sequence.wrapping_add(1);
                }
                let proof =
                    self.proofs.iter().find(|proof| proof.kind == *kind && proof.sequence == sequence);
                proof.map(|proof| proof.answer.to_vec()).ok_or(NO_PROOF)
            }
            [0x00, 0xB0 | 0xD6 | 0x84 | 0x82, ..] | [0x80, 0x50 | 0x52 | 0x54 | 0x5A | 0x5C, ..] => {
                Err(WRONG_LENGTH)
            }
            _ => Err(0x6D00),
        }
    }

    fn random(&mut self) -> [u8; 8] {
        self.challenges += 1;
        self.challenges.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_be_bytes()
    }

    fn read(&self, file: u8, offset: u8, length: u8) -> Answer {
        let public: Vec<u8> = [&[0x11; 8], &[0x02, 0x01, 0, 0][..], &self.serial, &[0x20; 10]].concat();
        let bytes: &[u8] = match file & 0x1F {
            _ if file & 0x80 == 0 => return Err(NO_FILE),
            PUBLIC => &public,
            HEADER => &self.header,
            RECORD if self.authenticated => &self.record,
            RECORD => return Err(NOT_ALLOWED),
            _ => return Err(NO_FILE),
        };
        let (from, length) = (usize::from(offset), usize::from(length));
        let end = if length == 0 { bytes.len() } else { from + length };
        bytes.get(from..end).map(<[u8]>::to_vec).ok_or(WRONG_PLACE)
    }

    fn update(&mut self, file: u8, offset: u8, data: &[u8]) -> Answer {
        let bytes: &mut [u8] = match file & 0x1F {
            _ if file & 0x80 == 0 => return Err(NO_FILE),
            HEADER | RECORD | PUBLIC if !self.authenticated => return Err(NOT_ALLOWED),
            HEADER => &mut self.header,
            RECORD => &mut self.record,
            PUBLIC => return Err(NOT_ALLOWED),
            _ => return Err(NO_FILE),
        };
        let place = bytes.get_mut(usize::from(offset)..usize::from(offset) + data.len());
        place.ok_or(WRONG_PLACE)?.copy_from_slice(data);
        Ok(Vec::new())
    }

    fn authenticate(&mut self, challenge: Option<[u8; 8]>, proof: &[u8]) -> Answer {
        let challenge = challenge.ok_or(OUT_OF_ORDER)?;
        if self.tries == 0 {
            return Err(KEY_LOCKED);
        }
        if triple(&self.keys.maintain, &challenge) != proof {
            self.failed += 1;
            self.tries -= 1;
            self.authenticated = false;
            return Err(0x63C0 | u16::from(self.tries));
        }
        self.tries = TRIES;
        self.authenticated = true;
        Ok(Vec::new())
    }

    /// INITIALIZE FOR PURCHASE, or for load.
    fn open(&mut self, is_purchase: bool, data: &[u8]) -> Answer {
        let (Some(amount), Some(terminal)) = (data.first_chunk::<4>(), data.last_chunk::<6>()) else {
            return Err(WRONG_LENGTH);
        };
        if is_purchase && u32::from_be_bytes(*amount) > self.balance {
            return Err(NOT_ENOUGH);
        }
        let [a, b, c, d, ..] = self.random();
        let kind = if is_purchase { PURCHASE } else { LOAD };
        let opening = Opening { kind, amount: *amount, terminal: *terminal, random: [a, b, c, d] };
        let balance = self.balance.to_be_bytes();
        let answer = if is_purchase {
            [&balance[..], &self.offline.to_be_bytes(), &[0, 0, 0, 1, 0], &opening.random].concat()
        } else {
            let session = self.load_session(&opening);
            let mac1 = mac(&session, &[&balance[..], amount, &[kind], terminal].concat());
            [&balance[..], &self.online.to_be_bytes(), &[1, 0], &opening.random, &mac1].concat()
        };
        self.opening = Some(opening);
        Ok(answer)
    }

    fn load_session(&self, opening: &Opening) -> Vec<u8> {
        let input = [&opening.random[..], &self.online.to_be_bytes(), &[0x80, 0x00]].concat();
        triple(&self.keys.load, &input)
    }

    /// The signature's key: both halves together.
    fn sign(&self, message: &[u8]) -> [u8; 4] {
        let (left, right) = self.keys.tac.split_at(8);
        let folded: Vec<u8> = left.iter().zip(right).map(|(left, right)| left ^ right).collect();
        mac(&folded, message)
    }

    /// Terminal sequence 4, date 4, time 3, MAC1 4.
    fn debit(&mut self, opening: Option<Opening>, data: &[u8]) -> Answer {
        let opening = opening.filter(|opening| opening.kind == PURCHASE).ok_or(OUT_OF_ORDER)?;
        let (Some(count), Some(when), Some(mac1)) = (data.get(..4), data.get(4..11), data.get(11..)) else {
            return Err(WRONG_LENGTH);
        };
        let low = count.get(2..).unwrap_or_default();
        let input = [&opening.random[..], &self.offline.to_be_bytes(), low].concat();
        let session = triple(&self.keys.purchase, &input);
        let terms = [&opening.amount[..], &[PURCHASE], &opening.terminal].concat();
        if mac(&session, &[terms.as_slice(), when].concat()) != mac1 && !self.imitates {
            return Err(WRONG_MAC);
        }
        self.balance = self.balance.checked_sub(u32::from_be_bytes(opening.amount)).ok_or(NOT_ENOUGH)?;
        self.offline = self.offline.wrapping_add(1);
        let tac = self.sign(&[terms.as_slice(), count, when].concat());
        let mac2 = mac(&session, &opening.amount);
        self.remember(PURCHASE, self.offline, mac2, tac);
        Ok([tac, mac2].concat())
    }

    /// Date 4, time 3, MAC2 4.
    fn credit(&mut self, opening: Option<Opening>, data: &[u8]) -> Answer {
        let opening = opening.filter(|opening| opening.kind == LOAD).ok_or(OUT_OF_ORDER)?;
        let (Some(when), Some(mac2)) = (data.get(..7), data.get(7..)) else { return Err(WRONG_LENGTH) };
        let terms = [&opening.amount[..], &[LOAD], &opening.terminal].concat();
        let right = mac(&self.load_session(&opening), &[terms.as_slice(), when].concat());
        if right != mac2 {
            return Err(WRONG_MAC);
        }
        let counter = self.online;
        self.balance = self.balance.checked_add(u32::from_be_bytes(opening.amount)).ok_or(WRONG_DATA)?;
        self.online = self.online.wrapping_add(1);
        let message =
            [&self.balance.to_be_bytes()[..], &counter.to_be_bytes(), terms.as_slice(), when].concat();
        let tac = self.sign(&message);
        self.remember(LOAD, self.online, right, tac);
        Ok(tac.to_vec())
    }

    /// Of each type the last.
    fn remember(&mut self, kind: u8, sequence: u16, mac: [u8; 4], tac: [u8; 4]) {
        let [[a, b, c, d], [e, f, g, h]] = [mac, tac];
        self.proofs.retain(|proof| proof.kind != kind);
        if self.keeps_no_proof {
            return;
        }
        self.proofs.push(Proof { kind, sequence, answer: [a, b, c, d, e, f, g, h] });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEST_KEY: &str = "11223344556677888877665544332211";

    fn card() -> Fmcos {
        let key: [u8; 16] = hex::decode(TEST_KEY).unwrap().try_into().unwrap();
        let masters = Masters { maintain: key, purchase: key, load: key, tac: key };
        let mut card = Fmcos::personalised(&[0x6B, 0x20, 0x17, 0xD9], &masters);
        // The published examples are of the key itself.
        card.keys = masters;
        card
    }

    fn ask(card: &mut Fmcos, apdu: &str) -> String {
        hex::encode_upper(card.apdu(&hex::decode(apdu.replace(' ', "")).unwrap()))
    }

    #[test]
    fn the_published_purchase_and_load() {
        // Two public implementations of FMCOS purses: random 11223344, sequences 0000 and 0001.
        let mut card = card();
        let random = [0x11, 0x22, 0x33, 0x44];
        let (amount, terminal) = ([0, 0, 0x10, 0], [0, 0x11, 0x22, 0x33, 0x44, 0x55]);
        let opening = Opening { kind: PURCHASE, amount, terminal, random };
        (card.selected, card.balance, card.opening) = (true, 0x1000, Some(opening.clone()));
        let answer = ask(&mut card, "805401000F 00000001 20120229 135100 F15CAB75 08");
        assert_eq!(&answer[8..], "56988A139000");
        assert_eq!(card.purse(), (0, 0, 1));
        card.opening = Some(Opening { kind: LOAD, ..opening });
        let session = card.load_session(card.opening.as_ref().unwrap());
        assert_eq!(hex::encode_upper(session), "9B1D924E05595603");
    }

    #[test]
    fn what_it_guards() {
        let mut card = card();
        for (apdu, answer) in [
            ("00B0910010", "6A82"),
            ("00A4040003 A00000", "6A82"),
            ("00A4040008 F042415947415445", "6F0A8408F0424159474154459000"),
            ("00B0910002", "00009000"),
            ("00B0920038", "6982"),
            ("00D6910001 00", "6982"),
            ("0082000108 0000000000000000", "6985"),
            ("805C000204", "000000009000"),
            ("805001020B 01 00000001 001122334455 0F", "9401"),
            ("805401000F 000000000000000000000000000000 08", "6985"),
            ("805A0006020001 08", "9406"),
        ] {
            assert_eq!(ask(&mut card, apdu), answer, "{apdu}");
        }
        for left in ["63C2", "63C1", "63C0", "6983"] {
            assert_eq!(ask(&mut card, "0084000008").len(), 20);
            assert_eq!(ask(&mut card, "0082000108 0000000000000000"), left);
        }
        let opened = ask(&mut card, "805000020B 01 00000001 001122334455 10");
        assert_eq!(opened.len(), 36);
        assert_eq!(ask(&mut card, "805200000B 20120229 135100 00000000 04"), "9302");
        assert_eq!(
            ask(&mut card, "805200000B 20120229 135100 00000000 04"),
            "6985",
            "an opening is used once"
        );
    }
}
