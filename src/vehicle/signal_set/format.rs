//! One signal of a set: its bits in a message, its scaling, its texts. Pure.

use std::collections::BTreeMap;

use serde::Deserialize;

/// The longest number that is decoded, in bits.
const MAX_BITS: usize = 64;

/// How a signal is written in the set (`fmt`).
#[derive(Debug, Clone, Deserialize)]
#[serde(try_from = "Written")]
pub struct Format {
    first_bit: usize,
    length_bits: usize,
    bytes_reversed: bool,
    signed: bool,
    unit: String,
    meaning: Meaning,
}

#[derive(Debug, Clone)]
enum Meaning {
    Number {
        mul: f64,
        div: f64,
        add: f64,
        limits: Option<(f64, f64)>,
        null_min: Option<f64>,
        null_max: Option<f64>,
    },
    Texts(BTreeMap<i128, String>),
}

/// A decoded value.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// In the signal's unit.
    Number(f64),
    /// The text of a map.
    Text(String),
}

/// The keys as they stand in the file. Others are for displays: passed over.
#[derive(Debug, Deserialize)]
struct Written {
    #[serde(default)]
    bix: usize,
    len: usize,
    #[serde(default)]
    blsb: bool,
    #[serde(default)]
    sign: bool,
    mul: Option<f64>,
    div: Option<f64>,
    add: Option<f64>,
    min: Option<f64>,
    max: Option<f64>,
    nullmin: Option<f64>,
    nullmax: Option<f64>,
    unit: Option<String>,
    map: Option<BTreeMap<String, Named>>,
}

/// A map gives a text, or a text with its description.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Named {
    Described { value: String },
    Plain(String),
}

impl TryFrom<Written> for Format {
    type Error = String;

    fn try_from(written: Written) -> Result<Self, String> {
        if !(1..=MAX_BITS).contains(&written.len) {
            return Err(format!("`len` is {}: 1 to {MAX_BITS} bits can be decoded", written.len));
        }
        let unit = written.unit.clone().unwrap_or_default();
        let meaning = match written.map {
            Some(map) => Meaning::Texts(texts(map)?),
            None => number(&written)?,
        };
        Ok(Self {
            first_bit: written.bix,
            length_bits: written.len,
            bytes_reversed: written.blsb,
            signed: written.sign,
            unit,
            meaning,
        })
    }
}

fn texts(map: BTreeMap<String, Named>) -> Result<BTreeMap<i128, String>, String> {
    map.into_iter()
        .map(|(raw, named)| {
            let value = raw
                .parse()
                .map_err(|_| format!("`map` has the key {raw:?}: a whole number belongs there"))?;
            let (Named::Described { value: text } | Named::Plain(text)) = named;
            Ok((value, text))
        })
        .collect()
}

fn number(written: &Written) -> Result<Meaning, String> {
    let div = written.div.unwrap_or(1.0);
    if div == 0.0 {
        return Err("`div` is 0".to_owned());
    }
    // `min` is 0 where it is not written, as in the set's own tools. Without
    // room between the two they limit nothing.
    let limits = written.max.map(|max| (written.min.unwrap_or(0.0), max)).filter(|(min, max)| max > min);
    Ok(Meaning::Number {
        mul: written.mul.unwrap_or(1.0),
        div,
        add: written.add.unwrap_or(0.0),
        limits,
        null_min: written.nullmin,
        null_max: written.nullmax,
    })
}

impl Format {
    /// The unit as the set writes it; empty for texts.
    #[must_use]
    pub fn unit(&self) -> &str {
        &self.unit
    }

    /// The value in a message's data, which begins behind service and identifier.
    /// `None`: the message is too short, the null rule holds, or the map has no text.
    #[must_use]
    pub fn decode(&self, data: &[u8]) -> Option<Value> {
        let raw = self.raw(data)?;
        match &self.meaning {
            Meaning::Texts(texts) => texts.get(&raw).cloned().map(Value::Text),
            Meaning::Number { mul, div, add, limits, null_min, null_max } => {
                #[expect(clippy::cast_precision_loss, reason = "scaled values are doubles")]
                let value = raw as f64 * mul / div + add;
                if null_min.is_some_and(|null| value <= null) || null_max.is_some_and(|null| value >= null) {
                    return None;
                }
                Some(Value::Number(limits.map_or(value, |(min, max)| value.clamp(min, max))))
            }
        }
    }

    /// Bits count from the top of the first byte. `blsb`: the bytes that hold the
    /// signal stand in the other order.
    fn raw(&self, data: &[u8]) -> Option<i128> {
        let end_bit = self.first_bit.checked_add(self.length_bits)?;
        let first_byte = self.first_bit / 8;
        let mut window: Vec<u8> = data.get(first_byte..end_bit.div_ceil(8))?.to_vec();
        if self.bytes_reversed && self.length_bits > 8 {
            let held = self.length_bits.div_ceil(8).min(window.len());
            window.get_mut(..held)?.reverse();
        }
        let wide = window.iter().fold(0_u128, |bits, &byte| bits << 8 | u128::from(byte));
        let behind = (first_byte + window.len()) * 8 - end_bit;
        let raw = i128::try_from(wide >> behind & ((1_u128 << self.length_bits) - 1)).ok()?;
        let negative = self.signed && raw >> (self.length_bits - 1) & 1 == 1;
        Some(if negative { raw - (1_i128 << self.length_bits) } else { raw })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(format: &str, data: &[u8]) -> Option<Value> {
        serde_json::from_str::<Format>(format).unwrap().decode(data)
    }

    fn number(value: f64) -> Option<Value> {
        Some(Value::Number(value))
    }

    /// Worked out by hand from the keys' descriptions in the set's public schema.
    #[test]
    fn formats() {
        for (format, data, expected) in [
            (r#"{"len":16,"max":16384,"div":4,"unit":"rpm"}"#, &[0x0C, 0xB2][..], number(812.5)),
            (r#"{"bix":8,"len":8,"max":215,"min":-40,"add":-40,"unit":"celsius"}"#, &[0, 0x57], number(47.0)),
            (r#"{"bix":4,"len":4,"max":15,"unit":"scalar"}"#, &[0xA7], number(7.0)),
            (r#"{"len":16,"blsb":true,"max":65535,"unit":"scalar"}"#, &[0x34, 0x12], number(4660.0)),
            (
                r#"{"len":16,"sign":true,"min":-100,"max":100,"mul":0.01,"unit":"amps"}"#,
                &[0xFF, 0x9C],
                number(-1.0),
            ),
            // Limits hold what lies outside; without `min` it is 0.
            (r#"{"len":8,"max":100,"unit":"percent"}"#, &[200], number(100.0)),
            (r#"{"len":8,"sign":true,"max":100,"unit":"percent"}"#, &[0xFF], number(0.0)),
            // Null rules, of the scaled value, the bound itself included.
            (r#"{"len":8,"max":255,"nullmax":250,"unit":"scalar"}"#, &[251], None),
            (r#"{"len":8,"min":-40,"max":215,"add":-40,"nullmin":-40,"unit":"celsius"}"#, &[0], None),
            (r#"{"len":8,"max":255,"nullmax":255,"unit":"scalar"}"#, &[254], number(254.0)),
            // Too short.
            (r#"{"bix":8,"len":16,"max":1,"unit":"scalar"}"#, &[1, 2], None),
            (r#"{"len":8,"max":255,"unit":"scalar"}"#, &[], None),
        ] {
            assert_eq!(decode(format, data), expected, "{format} {data:02X?}");
        }
    }

    #[test]
    fn maps() {
        let map = r#"{"bix":6,"len":2,"map":{"0":{"description":"Off","value":"OFF"},"2":"AUTO"}}"#;
        assert_eq!(decode(map, &[0b1111_1100]), Some(Value::Text("OFF".into())));
        assert_eq!(decode(map, &[0b10]), Some(Value::Text("AUTO".into())));
        assert_eq!(decode(map, &[0b11]), None);
    }

    #[test]
    fn what_cannot_be_decoded_is_refused() {
        for format in
            [r#"{"len":0}"#, r#"{"len":65}"#, r#"{"len":8,"div":0}"#, r#"{"len":8,"map":{"x":"y"}}"#, "{}"]
        {
            assert!(serde_json::from_str::<Format>(format).is_err(), "{format}");
        }
    }
}
