//! Identities as types. What lives here: newtypes for everything that names
//! something (store, gateway, card, car, device, position in the log), each with
//! its form checked once, at construction. What does not: what they are used for.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// An identity did not have the form its kind requires.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kind} {value:?} is not valid: {expected}")]
pub struct IdentError {
    /// What was being read, e.g. `store`.
    pub kind: &'static str,
    /// The offending text.
    pub value: String,
    /// What would have been accepted.
    pub expected: &'static str,
}

macro_rules! text_ident {
    ($(#[$doc:meta])* $name:ident, $kind:literal, $expected:literal, $check:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
        #[serde(try_from = "String", into = "String")]
        #[schemars(with = "String")]
        pub struct $name(String);

        impl $name {
            /// Checks the form and takes the text.
            ///
            /// # Errors
            /// [`IdentError`] naming what would have been accepted.
            pub fn new(text: impl Into<String>) -> Result<Self, IdentError> {
                let text = text.into();
                let check: fn(&str) -> bool = $check;
                if check(&text) {
                    Ok(Self(text))
                } else {
                    Err(IdentError { kind: $kind, value: text, expected: $expected })
                }
            }

            /// The text itself.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = IdentError;
            fn try_from(text: String) -> Result<Self, IdentError> {
                Self::new(text)
            }
        }

        impl std::str::FromStr for $name {
            type Err = IdentError;
            fn from_str(text: &str) -> Result<Self, IdentError> {
                Self::new(text)
            }
        }

        impl From<$name> for String {
            fn from(ident: $name) -> String {
                ident.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }
    };
}

fn is_plain_name(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

text_ident!(
    /// A store ("4S" shop), as headquarters names it. `all` is reserved for broadcasts.
    StoreId, "store", "1 to 64 of A-Z a-z 0-9 . _ - (and not \"all\", which is reserved)",
    |t| is_plain_name(t) && t != "all"
);
text_ident!(
    /// A gateway within its store.
    GatewayId, "gateway id", "1 to 64 of A-Z a-z 0-9 . _ -",
    is_plain_name
);
text_ident!(
    /// A device table's `id` in the configuration: reader, printer, vehicle link or till.
    DeviceId, "device id", "1 to 64 of A-Z a-z 0-9 . _ -",
    is_plain_name
);
text_ident!(
    /// What an operator types to log in and the ledger names, e.g. a staff number.
    OperatorId, "operator id", "1 to 32 of a-z 0-9 . _ -",
    |t| (1..=32).contains(&t.len())
        && t.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'_' | b'-'))
);
text_ident!(
    /// The UID of a card: 4, 7 or 10 bytes (ISO/IEC 14443-3 §6.5.4) or what the
    /// technology uses instead, upper-case hex. Personal data.
    CardUid, "card UID", "2 to 32 upper-case hex digits, an even number",
    |t| (2..=32).contains(&t.len()) && t.len() % 2 == 0
        && t.bytes().all(|b| b.is_ascii_digit() || (b'A'..=b'F').contains(&b))
);
text_ident!(
    /// A member card's number as printed on its face.
    CardNo, "card number", "1 to 32 of A-Z a-z 0-9 -",
    |t| (1..=32).contains(&t.len())
        && t.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
);
text_ident!(
    /// A vehicle identification number: 17 characters of the ISO 3779:2009 set
    /// (no I, O, Q), upper case. Personal data. The check digit is a separate question.
    Vin, "VIN", "17 upper-case letters and digits without I, O and Q (ISO 3779)",
    |t| t.len() == 17
        && t.bytes().all(|b| b.is_ascii_digit()
            || (b.is_ascii_uppercase() && !matches!(b, b'I' | b'O' | b'Q')))
);

impl CardUid {
    /// From the raw bytes a reader reported.
    ///
    /// # Errors
    /// [`IdentError`] when empty or longer than 16 bytes.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, IdentError> {
        Self::new(hex::encode_upper(bytes))
    }
}

impl Vin {
    /// Whether the check digit (position 9) is right, by the weights of
    /// 49 CFR 565.15 / GB 16735. Many regions do not use it: wrong is a hint, not an error.
    #[must_use]
    pub fn check_digit_ok(&self) -> bool {
        const WEIGHTS: [u32; 17] = [8, 7, 6, 5, 4, 3, 2, 10, 0, 9, 8, 7, 6, 5, 4, 3, 2];
        let sum: u32 = self.0.bytes().zip(WEIGHTS).map(|(b, weight)| Self::transliterate(b) * weight).sum();
        let expected = match sum % 11 {
            10 => b'X',
            digit => b'0' + u8::try_from(digit).unwrap_or(0),
        };
        self.0.as_bytes().get(8) == Some(&expected)
    }

    /// Letter values of 49 CFR 565.15 table III.
    fn transliterate(b: u8) -> u32 {
        match b {
            b'0'..=b'9' => u32::from(b - b'0'),
            b'A'..=b'H' => u32::from(b - b'A') + 1,
            b'J'..=b'N' => u32::from(b - b'J') + 1,
            b'P' => 7,
            b'R' => 9,
            b'S'..=b'Z' => u32::from(b - b'S') + 2,
            _ => 0,
        }
    }
}

/// A position in the log: rises by one per event within an epoch, from 1.
/// Zero is "before the first".
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize, JsonSchema,
)]
#[serde(transparent)]
pub struct Seq(pub u64);

impl fmt::Display for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// One uninterrupted life of the local log. Epochs have no order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Epoch(pub uuid::Uuid);

impl Epoch {
    /// A fresh epoch.
    #[must_use]
    pub fn begin() -> Self {
        Self(uuid::Uuid::now_v7())
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_keep_their_form() {
        assert!(StoreId::new("SH-0042").is_ok());
        assert!(StoreId::new("all").is_err());
        assert!(StoreId::new("a/b").is_err());
        assert!(StoreId::new("x".repeat(65)).is_err());
        assert_eq!(CardUid::from_bytes(&[4, 0xA1, 0xB2, 0xC3]).unwrap().as_str(), "04A1B2C3");
        assert!(CardUid::new("04a1").is_err());
    }

    #[test]
    fn vin_check_digit() {
        // (VIN, expected) — first: the worked example of 49 CFR 565.15; second: one digit changed.
        for (vin, ok) in
            [("1M8GDM9AXKP042788", true), ("1M8GDM9A1KP042788", false), ("11111111111111111", true)]
        {
            assert_eq!(Vin::new(vin).unwrap().check_digit_ok(), ok, "{vin}");
        }
        assert!(Vin::new("1M8GDM9AXKP04278O").is_err());
    }
}
