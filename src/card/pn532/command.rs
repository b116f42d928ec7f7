//! The commands of the PN532 that a reader of ISO/IEC 14443 type A cards needs, and what their
//! answers mean (PN532 user manual UM0701-02 §7). Pure. What does not live here: how a command
//! becomes a frame (`frame`), and what an APDU asks of the chip (`apdu`).

use std::fmt;
use std::time::Duration;

use zeroize::Zeroizing;

use crate::card::atr::MAX_ATR_BYTES;

/// How long the chip may take for what concerns itself.
const OWN_LIMIT: Duration = Duration::from_millis(500);
/// How long for a word with a card: a processor card may ask for more time, again and again.
const CARD_LIMIT: Duration = Duration::from_millis(2500);
/// The one card we ever select.
const TARGET: u8 = 1;
/// Asked once more, and once more: a card that was selected misses the first question.
const ACTIVATION_RETRIES: u8 = 2;

/// A command: code and parameters, wiped when dropped. `Debug` shows the code alone.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Request {
    bytes: Zeroizing<Vec<u8>>,
    /// Whether saying it twice does what saying it once does.
    repeatable: bool,
    limit: Duration,
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Request({:02X}, {} bytes)", self.code(), self.bytes.len())
    }
}

impl Request {
    fn own(bytes: &[u8]) -> Self {
        Self { bytes: Zeroizing::new(bytes.to_vec()), repeatable: true, limit: OWN_LIMIT }
    }

    fn card(head: &[u8], data: &[u8]) -> Self {
        let mut bytes = Zeroizing::new(Vec::with_capacity(head.len() + data.len()));
        bytes.extend_from_slice(head);
        bytes.extend_from_slice(data);
        Self { bytes, repeatable: false, limit: CARD_LIMIT }
    }

    /// Which chip, which firmware (§7.2.2).
    pub(super) fn firmware() -> Self {
        Self::own(&[0x02])
    }

    /// Normal mode: no security module takes part (§7.2.10). The first command after waking.
    pub(super) fn sam_configuration() -> Self {
        Self::own(&[0x14, 0x01, 0x00, 0x01])
    }

    /// How often a card is looked for in one question (§7.3.1, item 05).
    pub(super) fn look_briefly() -> Self {
        Self::own(&[0x32, 0x05, 0xFF, 0x01, ACTIVATION_RETRIES])
    }

    /// The field on or off (§7.3.1, item 01).
    pub(super) fn field(on: bool) -> Self {
        Self::own(&[0x32, 0x01, u8::from(on)])
    }

    /// Selects one type A card at 106 kbit/s, and opens ISO/IEC 14443-4 where it has it (§7.3.5).
    pub(super) fn list_target() -> Self {
        Self::own(&[0x4A, 0x01, 0x00])
    }

    /// Lets the card go (§7.3.11).
    pub(super) fn release() -> Self {
        Self::own(&[0x52, 0x00])
    }

    /// Is the ISO/IEC 14443-4 card still there (§7.2.1, test 06)?
    pub(super) fn presence() -> Self {
        Self::own(&[0x00, 0x06])
    }

    /// Gives a word back (§7.2.1, test 00).
    pub(super) fn echo(word: [u8; 4]) -> Self {
        Self::own(&[&[0x00, 0x00], &word[..]].concat())
    }

    /// What the chip answers to [`Self::echo`], its code in front.
    pub(super) fn echoed(&self) -> Zeroizing<Vec<u8>> {
        let parameters = self.bytes.get(1..).unwrap_or_default();
        Zeroizing::new([&[self.code().wrapping_add(1)], parameters].concat())
    }

    /// A command of a MIFARE chip, or an APDU (§7.3.8).
    pub(super) fn exchange(data: &[u8]) -> Self {
        Self::card(&[0x40, TARGET], data)
    }

    /// The same as it stands, past the chip's knowledge of cards (§7.3.9).
    pub(super) fn through(data: &[u8]) -> Self {
        Self::card(&[0x42], data)
    }

    /// Says that a card does the same whether it hears this once or twice.
    /// Such are the short commands of memory cards, which the chip itself gives up after 51 ms.
    pub(super) fn repeatable(mut self) -> Self {
        self.repeatable = true;
        self.limit = OWN_LIMIT;
        self
    }

    pub(super) fn code(&self) -> u8 {
        self.bytes.first().copied().unwrap_or_default()
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(super) fn is_repeatable(&self) -> bool {
        self.repeatable
    }

    /// How long its answer may take.
    pub(super) fn limit(&self) -> Duration {
        self.limit
    }
}

/// An answer that has not the form its command gives it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Malformed;

/// What stands behind the chip's word that all went well; `Err`: its error (§7.1), of which 01 is
/// a card that did not answer and 14 one that refused a Classic login. The upper bits say that
/// more data or an address follows.
pub(super) fn outcome(answer: &[u8]) -> Result<&[u8], u8> {
    match answer.split_first() {
        Some((status, data)) if status & 0x3F == 0 => Ok(data),
        Some((status, _)) => Err(status & 0x3F),
        None => Err(0x3F),
    }
}

/// A selected card.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) sak: u8,
    pub(super) uid: Vec<u8>,
    /// Answer to select, length byte first; empty where it has none.
    pub(super) ats: Vec<u8>,
}

impl Target {
    /// Of the answer to [`Request::list_target`] behind its code; none: the field is empty.
    pub(super) fn parse(answer: &[u8]) -> Result<Option<Self>, Malformed> {
        match answer {
            [0, ..] => Ok(None),
            [_, _number, _atqa_high, _atqa_low, sak, length, rest @ ..] => {
                let (uid, ats) = rest.split_at_checked(usize::from(*length)).ok_or(Malformed)?;
                if !matches!(uid.len(), 4 | 7 | 10) {
                    return Err(Malformed);
                }
                let ats = match ats.first() {
                    Some(length) => ats.get(..usize::from(*length)).ok_or(Malformed)?,
                    None => &[],
                };
                Ok(Some(Self { sak: *sak, uid: uid.to_vec(), ats: ats.to_vec() }))
            }
            _ => Err(Malformed),
        }
    }

    /// Whether it takes APDUs (ISO/IEC 14443-3:2018 §6.5.6.1.2, SAK bit 6).
    pub(super) fn is_processor(&self) -> bool {
        self.sak & 0x20 != 0
    }

    /// Whether it is a MIFARE Classic (NXP AN10833 rev. 3.9 table 6).
    pub(super) fn is_classic(&self) -> bool {
        !self.is_processor() && self.sak & 0x08 != 0
    }

    /// The answer to reset that a PC/SC reader would make of it (PC/SC 2.01 part 3 §3.1.3.2.3).
    pub(super) fn answer_to_reset(&self) -> Vec<u8> {
        let mut atr = if self.is_processor() {
            let historical = self.historical();
            let most = historical.len().min(15);
            let count = u8::try_from(most).unwrap_or(15);
            [&[0x3B, 0x80 | count, 0x80, 0x01], historical.get(..most).unwrap_or_default()].concat()
        } else {
            // Standard 03 is ISO/IEC 14443-3 type A, then the card's name.
            let name = match self.sak {
                0x00 => 0x03,
                0x08 | 0x88 => 0x01,
                0x09 => 0x26,
                0x10 => 0x38,
                0x11 => 0x39,
                0x18 => 0x02,
                _ => 0x00,
            };
            let application = [0x80, 0x4F, 0x0C, 0xA0, 0x00, 0x00, 0x03, 0x06];
            [&[0x3B, 0x8F, 0x80, 0x01], &application[..], &[0x03, 0x00, name, 0, 0, 0, 0]].concat()
        };
        atr.push(atr.iter().skip(1).fold(0, |check, byte| check ^ byte));
        atr.truncate(MAX_ATR_BYTES);
        atr
    }

    /// Behind length, format byte and the interface bytes it announces (ISO/IEC 14443-4:2018 §5.2).
    fn historical(&self) -> &[u8] {
        let Some(format) = self.ats.get(1) else { return &[] };
        let interface = usize::try_from((format & 0x70).count_ones()).unwrap_or_default();
        self.ats.get(2 + interface..).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Targets as the user manual's examples and public traces of such readers show them, and the
    /// answers to reset of the public list of pcsc-tools.
    #[test]
    fn targets_and_their_answers_to_reset() {
        let cases = [
            ("Classic 1K", "0101000408 043A91C45E", "3B8F8001804F0CA000000306030001000000006A"),
            ("Classic 4K", "0101000218043A91C45E", "3B8F8001804F0CA0000003060300020000000069"),
            ("NTAG", "010100440007 04A1B2C3D45E80", "3B8F8001804F0CA0000003060300030000000068"),
            ("DESFire", "0101034420 0704A1B2C3D45E80 067577810280", "3B8180018080"),
            ("no ATS", "0101034420 0704A1B2C3D45E80", "3B80800101"),
        ];
        for (name, answer, atr) in cases {
            let answer = hex::decode(answer.replace(' ', "")).unwrap();
            let target = Target::parse(&answer).unwrap().unwrap();
            assert_eq!(hex::encode_upper(target.answer_to_reset()), atr, "{name}");
        }
        assert_eq!(Target::parse(&[0]), Ok(None));
        for damaged in
            ["", "01", "0101000408", "010100040804AABB", "010100040803AABBCC", "01010344200400000000 05"]
        {
            assert_eq!(
                Target::parse(&hex::decode(damaged.replace(' ', "")).unwrap()),
                Err(Malformed),
                "{damaged}"
            );
        }
    }

    #[test]
    fn a_request_shows_nothing_of_what_it_says() {
        let request = Request::exchange(&[0x60, 4, 0xA1, 0xB2, 0xC3, 0xD4, 0xE5, 0xF6]);
        assert_eq!(format!("{request:?}"), "Request(40, 10 bytes)");
        assert!(!request.is_repeatable() && Request::firmware().is_repeatable());
    }

    proptest::proptest! {
        #![proptest_config(crate::seed::cases(256))]

        #[test]
        fn no_answer_makes_trouble(answer in proptest::collection::vec(0_u8.., 0..80)) {
            let _ = outcome(&answer);
            if let Ok(Some(target)) = Target::parse(&answer) {
                let atr = target.answer_to_reset();
                assert!(atr.len() <= MAX_ATR_BYTES);
                crate::card::atr::AnswerToReset::parse(&atr).unwrap();
            }
        }
    }
}
