//! Numbers as they stand in protocol files: fractions that no decimal writes
//! exactly, and ids of one byte in hex.

use std::fmt;

use serde::Deserialize;
use serde::de::{self, Deserializer, Visitor};

/// A number, or a fraction like `"100/255"`.
pub(super) struct Factor(pub(super) f64);

impl<'de> Deserialize<'de> for Factor {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct FactorVisitor;
        impl Visitor<'_> for FactorVisitor {
            type Value = Factor;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number or a fraction like \"100/255\"")
            }
            fn visit_f64<E: de::Error>(self, value: f64) -> Result<Factor, E> {
                Ok(Factor(value))
            }
            #[allow(clippy::cast_precision_loss)] // factors are small integers
            fn visit_i64<E: de::Error>(self, value: i64) -> Result<Factor, E> {
                Ok(Factor(value as f64))
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Factor, E> {
                let parsed = text.split_once('/').and_then(|(above, below)| {
                    Some(above.trim().parse::<f64>().ok()? / below.trim().parse::<f64>().ok()?)
                });
                parsed
                    .filter(|value| value.is_finite())
                    .map(Factor)
                    .ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &self))
            }
        }
        deserializer.deserialize_any(FactorVisitor)
    }
}

/// An id of exactly two hex digits.
pub(super) fn byte_id(text: &str) -> Option<u8> {
    let digits = text.len() == 2 && text.bytes().all(|b| b.is_ascii_hexdigit());
    digits.then(|| u8::from_str_radix(text, 16).ok()).flatten()
}
