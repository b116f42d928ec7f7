//! The purse of Chinese CPU cards (JR/T 0025 "ED/EP", FMCOS): session keys, MAC1,
//! MAC2 and TAC of a purchase and of a load. What does not live here: who may
//! compute which; a store never computes a load's MAC2 (`keys`).
//!
//! All amounts are fen, all numbers most significant byte first.

use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::tdes::{DesKey, TripleDesKey};

/// Transaction type of a load into the purse (JR/T 0025, transaction types).
pub const LOAD_PURSE: u8 = 0x02;
/// Transaction type of a purchase from the purse.
pub const PURCHASE_PURSE: u8 = 0x06;

/// Four digits year, month, day; hour, minute, second; packed BCD, the store's own time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// `YYYYMMDD`.
    pub date: [u8; 4],
    /// `hhmmss`.
    pub time: [u8; 3],
}

impl Moment {
    /// In digits of four bits, as a card is told it.
    #[must_use]
    pub fn of(time: &jiff::Zoned) -> Self {
        let bcd = |number: i16| u8::try_from(((number / 10 % 10) << 4) | (number % 10)).unwrap_or_default();
        let (year, second) = (time.year(), time.second());
        let date = [bcd(year / 100), bcd(year % 100), bcd(time.month().into()), bcd(time.day().into())];
        Self { date, time: [bcd(time.hour().into()), bcd(time.minute().into()), bcd(second.into())] }
    }
}

/// What both sides agree on in a purchase.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// Fen.
    pub amount: u32,
    /// [`PURCHASE_PURSE`], [`LOAD_PURSE`] or their deposit counterparts.
    pub kind: u8,
    /// Terminal number.
    pub terminal: [u8; 6],
    /// When.
    pub moment: Moment,
}

impl Terms {
    /// Amount ‖ type ‖ terminal.
    fn what(&self) -> impl Iterator<Item = u8> {
        self.amount.to_be_bytes().into_iter().chain([self.kind]).chain(self.terminal)
    }

    /// Date ‖ time.
    fn when(&self) -> impl Iterator<Item = u8> {
        self.moment.date.into_iter().chain(self.moment.time)
    }
}

/// The key of one purchase: random ‖ offline sequence ‖ low half of the terminal's sequence.
#[must_use]
pub fn purchase_session(
    key: &TripleDesKey,
    random: [u8; 4],
    offline_sequence: u16,
    terminal_sequence: u32,
) -> DesKey {
    let [_, _, t2, t3] = terminal_sequence.to_be_bytes();
    session(key, random, offline_sequence, [t2, t3])
}

/// The key of one load: random ‖ online sequence ‖ 8000.
#[must_use]
pub fn load_session(key: &TripleDesKey, random: [u8; 4], online_sequence: u16) -> DesKey {
    session(key, random, online_sequence, [0x80, 0x00])
}

fn session(key: &TripleDesKey, random: [u8; 4], sequence: u16, end: [u8; 2]) -> DesKey {
    let [r0, r1, r2, r3] = random;
    let [s0, s1] = sequence.to_be_bytes();
    let [e0, e1] = end;
    DesKey::new(Zeroizing::new(key.encrypt(&[r0, r1, r2, r3, s0, s1, e0, e1])))
}

/// The terminal's word to the card: it may give up the amount.
#[must_use]
pub fn purchase_mac1(session: &DesKey, terms: &Terms) -> [u8; 4] {
    session.mac(&terms.what().chain(terms.when()).collect::<Vec<_>>())
}

/// The card's word to the terminal: it gave up the amount.
#[must_use]
pub fn purchase_mac2(session: &DesKey, amount: u32) -> [u8; 4] {
    session.mac(&amount.to_be_bytes())
}

/// Whether the card gave up the amount.
#[must_use]
pub fn purchase_is_done(session: &DesKey, amount: u32, mac2: &[u8; 4]) -> bool {
    purchase_mac2(session, amount).ct_eq(mac2).into()
}

/// The card's word before a load: its balance is this.
#[must_use]
pub fn load_mac1(session: &DesKey, balance: u32, terms: &Terms) -> [u8; 4] {
    session.mac(&balance.to_be_bytes().into_iter().chain(terms.what()).collect::<Vec<_>>())
}

/// Headquarters' word to the card: it may take the amount in. Of the simulated
/// headquarters and the tests alone; no key store of a shop has the key.
#[must_use]
pub fn load_mac2(session: &DesKey, terms: &Terms) -> [u8; 4] {
    session.mac(&terms.what().chain(terms.when()).collect::<Vec<_>>())
}

/// The card's signature under a purchase, for clearing at headquarters.
#[must_use]
pub fn purchase_tac(key: &TripleDesKey, terms: &Terms, terminal_sequence: u32) -> [u8; 4] {
    let message: Vec<u8> = terms.what().chain(terminal_sequence.to_be_bytes()).chain(terms.when()).collect();
    key.folded().mac(&message)
}

/// The card's signature under a load: the new balance and the online sequence before it come first.
#[must_use]
pub fn load_tac(key: &TripleDesKey, balance: u32, online_sequence: u16, terms: &Terms) -> [u8; 4] {
    let message: Vec<u8> = balance
        .to_be_bytes()
        .into_iter()
        .chain(online_sequence.to_be_bytes())
        .chain(terms.what())
        .chain(terms.when())
        .collect();
    key.folded().mac(&message)
}

#[cfg(test)]
mod tests {
    use super::super::unhex;
    use super::*;

    fn key() -> TripleDesKey {
        TripleDesKey::new(Zeroizing::new(unhex("11223344556677888877665544332211")))
    }

    fn terms(kind: u8, date: &str, time: &str) -> Terms {
        let moment = Moment { date: unhex(date), time: unhex(time) };
        Terms { amount: 0x1000, kind, terminal: unhex("001122334455"), moment }
    }

    // Vectors: two public implementations of FMCOS purses that agree; the key is a test key.
    // Random 11223344, card sequence 0000, balance 0, amount 0x1000, terminal 001122334455.

    #[test]
    fn a_load_as_published() {
        let session = load_session(&key(), unhex("11223344"), 0);
        assert_eq!(session.mac(b""), DesKey::new(Zeroizing::new(unhex("9B1D924E05595603"))).mac(b""));
        for (kind, mac1) in [(0x01, "2988AE5A"), (LOAD_PURSE, "A5638AA0")] {
            let terms = terms(kind, "20111221", "214822");
            assert_eq!(hex::encode_upper(load_mac1(&session, 0, &terms)), mac1, "type {kind}");
        }
        let mac2 = load_mac2(&session, &terms(0x01, "20111221", "214822"));
        assert_eq!(hex::encode_upper(mac2), "3A845BF0");
    }

    #[test]
    fn a_purchase_as_published() {
        let session = purchase_session(&key(), unhex("11223344"), 0, 0x0001_0001);
        assert_eq!(session.mac(b""), DesKey::new(Zeroizing::new(unhex("003238ABC57659DD"))).mac(b""));
        let terms = terms(PURCHASE_PURSE, "20120229", "135100");
        assert_eq!(hex::encode_upper(purchase_mac1(&session, &terms)), "F15CAB75");
        assert_eq!(hex::encode_upper(purchase_mac2(&session, terms.amount)), "56988A13");
        assert!(purchase_is_done(&session, terms.amount, &unhex("56988A13")));
        assert!(!purchase_is_done(&session, terms.amount + 1, &unhex("56988A13")));
    }

    #[test]
    fn a_signature_covers_everything() {
        let terms = terms(PURCHASE_PURSE, "20120229", "135100");
        let tac = purchase_tac(&key(), &terms, 1);
        let others = [
            purchase_tac(&key(), &terms, 2),
            purchase_tac(&key(), &Terms { amount: 0x1001, ..terms }, 1),
            purchase_tac(&key(), &Terms { kind: 0x05, ..terms }, 1),
            purchase_tac(&key(), &Terms { terminal: unhex("001122334456"), ..terms }, 1),
            purchase_tac(
                &key(),
                &Terms { moment: Moment { time: unhex("135101"), ..terms.moment }, ..terms },
                1,
            ),
            load_tac(&key(), 0, 1, &terms),
        ];
        assert!(others.iter().all(|other| *other != tac));
        // The folded key, and the message in its published order.
        let folded = DesKey::new(Zeroizing::new(unhex("9955551111555599")));
        let message: [u8; 22] = unhex("00001000060011223344550000000120120229135100");
        assert_eq!(tac, folded.mac(&message));
    }

    proptest::proptest! {
        #![proptest_config(crate::seed::cases(64))]

        #[test]
        fn one_wrong_bit_is_refused(at in 0usize..32) {
            let session = purchase_session(&key(), unhex("11223344"), 0, 1);
            let mut mac2: [u8; 4] = unhex("56988A13");
            mac2[at / 8] ^= 1 << (at % 8);
            assert!(!purchase_is_done(&session, 0x1000, &mac2));
        }
    }
}
