//! What a scanned text is. Pure. What lives here: stripe or code, the number it goes by, and what
//! pays elsewhere, bank cards and payment codes, which is refused with nothing of it told. What
//! does not: how it was typed (`keys`).

use sha2::{Digest, Sha256};

use crate::card::verdict::{CardIdentity, Refusal, Standing, Verdict};
use crate::config::tables::ScanTechnology;
use crate::event::card::Technology;
use crate::ident::CardUid;

/// The bytes of a code's UID: no chip has so many (ISO/IEC 14443-3 knows 4, 7 and 10, ISO/IEC 15693 8).
const UID_BYTES: usize = 16;
/// A bank card's number has so many digits (ISO/IEC 7812-1:2017 §4.1).
const ACCOUNT_DIGITS: std::ops::RangeInclusive<usize> = 12..=19;
/// On track 3 two digits of format code stand before it (ISO/IEC 4909).
const FORMAT_CODE_DIGITS: usize = 2;

/// Who the text names. `expected` is what the scanner reads; a stripe is known by its sentinels.
pub(super) fn verdict(text: &str, expected: ScanTechnology) -> Verdict {
    let technology = match expected {
        _ if is_stripe(text) => Technology::Magstripe,
        ScanTechnology::Barcode => Technology::Barcode,
        ScanTechnology::Qr => Technology::Qr,
        ScanTechnology::Magstripe => Technology::Magstripe,
    };
    if names_a_bank_account(text, technology == Technology::Magstripe) {
        return Verdict::Refused(Refusal::BankCard);
    }
    if pays(text) {
        return Verdict::Refused(Refusal::PaymentCode);
    }
    let Ok(uid) = uid(text, technology) else { return Verdict::Refused(Refusal::Unreadable) };
    Verdict::Card(CardIdentity {
        uid,
        technology,
        atr: None,
        code: Some(text.to_owned()),
        standing: Standing::Identified,
        opened: None,
    })
}

/// The first sixteen bytes of the SHA-256 of technology, a zero byte and text: never a chip's number,
/// and not the number of the same text read by other means.
fn uid(text: &str, technology: Technology) -> Result<CardUid, crate::ident::IdentError> {
    let technology = match technology {
        Technology::Magstripe => "magstripe",
        Technology::Qr => "qr",
        _ => "barcode",
    };
    let hash = Sha256::new().chain_update(technology).chain_update([0]).chain_update(text).finalize();
    CardUid::from_bytes(hash.get(..UID_BYTES).unwrap_or_default())
}

/// Tracks begin with `%`, `;` or `+` and end with `?`, behind which a reader may send the check
/// character (ISO/IEC 7811-2 §8 and §9, ISO/IEC 4909).
fn is_stripe(text: &str) -> bool {
    text.starts_with(['%', ';', '+']) && text.contains('?')
}

/// Whether an account number of a payment card stands in it: so many digits with a right check
/// digit (ISO/IEC 7812-1 annex B), blanks between them or not, behind a format code or not. On a
/// stripe anywhere; in other text before `^` or `=` as tracks have it (ISO/IEC 7813), for a stripe
/// reader need not send what tells tracks apart.
fn names_a_bank_account(text: &str, stripe: bool) -> bool {
    let mut digits = String::new();
    // The end of the text ends a number, too.
    for c in text.chars().chain(['\n']) {
        match c {
            '0'..='9' => digits.push(c),
            ' ' => {}
            _ => {
                if (stripe || matches!(c, '^' | '=')) && holds_an_account(&digits) {
                    return true;
                }
                digits.clear();
            }
        }
    }
    false
}

fn holds_an_account(digits: &str) -> bool {
    [Some(digits), digits.get(FORMAT_CODE_DIGITS..)]
        .into_iter()
        .flatten()
        .any(|number| ACCOUNT_DIGITS.contains(&number.len()) && check_digit_is_right(number))
}

/// A code on a telephone that lets whoever knows it take money for a minute: WeChat Pay, 18 digits
/// from 10 to 15; Alipay, 16 to 24 from 25 to 30; UnionPay, 19 from 62 (each provider's
/// documentation of its code payment).
fn pays(text: &str) -> bool {
    let digits = text.trim();
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return false;
    }
    let first: Option<u8> = digits.get(..2).and_then(|first| first.parse().ok());
    matches!((digits.len(), first), (18, Some(10..=15)) | (16..=24, Some(25..=30)) | (19, Some(62)))
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
        let number = |technology: &str, text: &str| {
            hex::encode_upper(&Sha256::digest(format!("{technology}\0{text}"))[..16])
        };
        let (bank, pays) = (Err(Refusal::BankCard), Err(Refusal::PaymentCode));
        let card = |technology, name, text| Ok((technology, number(name, text)));
        let long = "https://member.example.com/c/8800000042";
        let cases = [
            ("8800000042", Barcode, card(bar, "barcode", "8800000042")),
            ("8800000042", Qr, card(qr, "qr", "8800000042")),
            ("8800000042", Magstripe, card(stripe, "magstripe", "8800000042")),
            (long, Qr, card(qr, "qr", long)),
            (";8800000042?", Barcode, card(stripe, "magstripe", ";8800000042?")),
            // A member's number with the form of an account, its check digit wrong.
            (";622200000000001=?", Barcode, card(stripe, "magstripe", ";622200000000001=?")),
            // The well-known test number of a card scheme.
            (";4111111111111111=49121010000000000000?", Barcode, bank.clone()),
            ("%B4111111111111111^DOE/JANE^4912101?", Magstripe, bank.clone()),
            ("%B4111 1111 1111 1111^DOE/JANE^4912101?;1?", Qr, bank.clone()),
            ("%X?;4111111111111111=4912?", Qr, bank.clone()),
            // The check character behind it, no sentinels, track 3, tracks that could not be read.
            (";4111111111111111=4912?7", Barcode, bank.clone()),
            ("4111111111111111=4912", Magstripe, bank.clone()),
            ("4111111111111111=4912", Qr, bank.clone()),
            ("B4111111111111111^DOE/JANE^4912", Barcode, bank.clone()),
            ("4111111111111111", Magstripe, bank.clone()),
            ("+994111111111111111=156?", Barcode, bank.clone()),
            (";E?+994111111111111111=156?", Barcode, bank.clone()),
            ("994111111111111111=156", Barcode, bank.clone()),
            ("%E?;E?", Barcode, card(stripe, "magstripe", "%E?;E?")),
            // A bar code may have as many digits.
            ("4111111111111111", Barcode, card(bar, "barcode", "4111111111111111")),
            ("134567890123456789", Qr, pays.clone()),
            ("134567890123456789", Barcode, pays.clone()),
            ("2812345678901234", Qr, pays.clone()),
            ("281234567890123456789012", Qr, pays.clone()),
            ("6212345678901234567", Qr, pays.clone()),
            ("164567890123456789", Qr, card(qr, "qr", "164567890123456789")),
            ("281234567890123", Qr, card(qr, "qr", "281234567890123")),
        ];
        for (text, expected, verdict) in cases {
            assert_eq!(told(text, expected), verdict, "{text}");
        }
    }

    proptest::proptest! {
        #![proptest_config(crate::seed::cases(256))]

        /// An account's number is told nobody, whatever stands around it.
        #[test]
        fn no_account_number_leaves(
            body in "[1-9][0-9]{10,17}", before in "(|%B|;|%X\\?;|;E\\?\\+99|[a-z]{0,5})", behind in "[=^][ -~]{0,40}",
        ) {
            let check = (0..10).map(|digit| format!("{body}{digit}")).find(|number| check_digit_is_right(number));
            let text = format!("{before}{}{behind}", check.unwrap());
            for expected in [ScanTechnology::Barcode, ScanTechnology::Qr, ScanTechnology::Magstripe] {
                assert_eq!(told(&text, expected), Err(Refusal::BankCard), "{text}");
            }
        }

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
