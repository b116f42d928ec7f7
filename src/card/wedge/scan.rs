//! What a scanned text is. Pure. What lives here: stripe or code, the number it goes by, and bank
//! cards, which are refused with nothing of them told. What does not: how it was typed (`keys`).

use sha2::{Digest, Sha256};

use crate::card::verdict::{CardIdentity, Refusal, Standing, Verdict};
use crate::config::tables::ScanTechnology;
use crate::event::card::Technology;
use crate::ident::CardUid;

/// The most bytes a UID has here.
const UID_BYTES: usize = 16;
/// A bank card's number has so many digits (ISO/IEC 7812-1:2017 §4.1).
const ACCOUNT_DIGITS: std::ops::RangeInclusive<usize> = 12..=19;

/// Who the text names. `expected` is what the scanner reads; a stripe is known by its sentinels.
pub(super) fn verdict(text: &str, expected: ScanTechnology) -> Verdict {
    let technology = if is_stripe(text) {
        if names_a_bank_account(text) {
            return Verdict::Refused(Refusal::BankCard);
        }
        Technology::Magstripe
    } else {
        match expected {
            ScanTechnology::Barcode => Technology::Barcode,
            ScanTechnology::Qr => Technology::Qr,
            ScanTechnology::Magstripe => Technology::Magstripe,
        }
    };
    let Ok(uid) = uid(text) else { return Verdict::Refused(Refusal::Unreadable) };
    Verdict::Card(CardIdentity {
        uid,
        technology,
        atr: None,
        code: Some(text.to_owned()),
        standing: Standing::Identified,
        opened: None,
    })
}

/// The text's bytes; of a longer one the first sixteen of its SHA-256.
fn uid(text: &str) -> Result<CardUid, crate::ident::IdentError> {
    if text.len() <= UID_BYTES {
        return CardUid::from_bytes(text.as_bytes());
    }
    let hash = Sha256::digest(text.as_bytes());
    CardUid::from_bytes(hash.get(..UID_BYTES).unwrap_or_default())
}

/// Tracks begin with `%` or `;` and end with `?` (ISO/IEC 7811-2 §8 and §9).
fn is_stripe(text: &str) -> bool {
    text.starts_with(['%', ';']) && text.ends_with('?')
}

/// A track of a payment card: `%B` digits `^`, or `;` digits `=` (ISO/IEC 7813), the digits with a
/// right check digit (ISO/IEC 7812-1 annex B).
fn names_a_bank_account(stripe: &str) -> bool {
    stripe.split('?').any(|track| {
        let digits = match track.split_once(['^', '=']) {
            Some((head, _)) => head.trim_start_matches(['%', ';', 'B', 'b']),
            None => return false,
        };
        let digits: String = digits.chars().filter(|c| *c != ' ').collect();
        ACCOUNT_DIGITS.contains(&digits.len()) && check_digit_is_right(&digits)
    })
}

fn check_digit_is_right(digits: &str) -> bool {
    let mut sum = 0;
    for (at, digit) in digits.chars().rev().enumerate() {
        let Some(digit) = digit.to_digit(10) else { return false };
        let twice = digit * 2;
        sum += match at % 2 {
            0 => digit,
            _ if twice > 9 => twice - 9,
            _ => twice,
        };
    }
    sum % 10 == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(text: &str, expected: ScanTechnology) -> Result<(Technology, String), Refusal> {
        match verdict(text, expected) {
            Verdict::Card(card) => {
                assert_eq!(card.code.as_deref(), Some(text));
                Ok((card.technology, card.uid.to_string()))
            }
            Verdict::Refused(refusal) => Err(refusal),
            Verdict::Left => unreachable!(),
        }
    }

    #[test]
    fn what_a_text_is() {
        use ScanTechnology::{Barcode, Magstripe, Qr};
        let (bar, qr, stripe) = (Technology::Barcode, Technology::Qr, Technology::Magstripe);
        let long = "https://member.example.com/c/8800000042";
        let hashed = hex::encode_upper(&Sha256::digest(long.as_bytes())[..16]);
        let cases = [
            ("8800000042", Barcode, Ok((bar, hex::encode_upper("8800000042")))),
            ("8800000042", Qr, Ok((qr, hex::encode_upper("8800000042")))),
            ("8800000042", Magstripe, Ok((stripe, hex::encode_upper("8800000042")))),
            (long, Qr, Ok((qr, hashed))),
            (";8800000042?", Barcode, Ok((stripe, hex::encode_upper(";8800000042?")))),
            // A member's number with the form of an account, its check digit wrong.
            (";622200000000001=?", Barcode, Ok((stripe, uid(";622200000000001=?").unwrap().to_string()))),
            // The well-known test number of a card scheme.
            (";4111111111111111=49121010000000000000?", Barcode, Err(Refusal::BankCard)),
            ("%B4111111111111111^DOE/JANE^4912101?", Magstripe, Err(Refusal::BankCard)),
            ("%B4111 1111 1111 1111^DOE/JANE^4912101?;1?", Qr, Err(Refusal::BankCard)),
            ("%X?;4111111111111111=4912?", Qr, Err(Refusal::BankCard)),
        ];
        for (text, expected, verdict) in cases {
            assert_eq!(told(text, expected), verdict, "{text}");
        }
    }

    proptest::proptest! {
        #![proptest_config(crate::seed::cases(256))]

        /// Every text names somebody or is refused, two texts never the same one.
        #[test]
        fn texts_keep_apart(a in "[ -~]{1,60}", b in "[ -~]{1,60}") {
            let (x, y) = (told(&a, ScanTechnology::Qr), told(&b, ScanTechnology::Qr));
            if let (Ok(x), Ok(y)) = (x, y) {
                assert_eq!(a == b, x.1 == y.1);
            }
        }
    }
}
