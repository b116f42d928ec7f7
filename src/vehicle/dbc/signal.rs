//! One compiled signal: where its bits are, what they mean. Pure.

use super::DbcError;
use super::parse::SignalText;

/// Bits of the largest CAN FD frame (ISO 11898-1:2015: 64 bytes).
const FRAME_BITS: u64 = 64 * 8;

/// A signal's value in its unit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value {
    /// Exact: raw value, factor and offset are integers.
    Integer(i128),
    /// Everything else. May be no number, where an IEEE signal holds none.
    Real(f64),
}

/// Where a signal is and how it is read.
#[derive(Debug, Clone)]
pub struct Signal {
    name: String,
    json_key: String,
    unit: String,
    first_byte: usize,
    /// 1 to 9: 64 bits may begin inside a byte.
    byte_count: usize,
    motorola: bool,
    shift: u32,
    length_bits: u32,
    form: Form,
    scale: Scale,
    /// Sorted by raw value.
    texts: Vec<(i128, String)>,
    pub(super) selected_by: Option<Selection>,
}

/// The multiplexer that must say so before a signal is there.
#[derive(Debug, Clone)]
pub(super) struct Selection {
    pub multiplexer: usize,
    pub ranges: Vec<(u64, u64)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Unsigned,
    Signed,
    /// IEEE 754 binary16, binary32, binary64.
    Half,
    Single,
    Double,
}

#[derive(Debug, Clone, Copy)]
enum Scale {
    Integer { factor: i128, offset: i128 },
    Real { factor: f64, offset: f64 },
}

impl Signal {
    /// Compiles a signal; what selects it is added by its message.
    pub(super) fn new(text: &SignalText) -> Result<Self, DbcError> {
        let refuse = |reason: String| Err(DbcError::at(text.line, text.column, reason));
        let name = &text.name;
        if !(1..=64).contains(&text.length_bits) {
            return refuse(format!("signal {name} has {} bits: 1 to 64 can be decoded", text.length_bits));
        }
        if text.start_bit >= FRAME_BITS {
            return refuse(format!("signal {name} begins at bit {}: a frame has 512", text.start_bit));
        }
        let form = match (text.value_type, text.length_bits) {
            (0, _) if text.signed => Form::Signed,
            (0, _) => Form::Unsigned,
            (1, 16) => Form::Half,
            (1, 32) => Form::Single,
            (2, 64) => Form::Double,
            (_, bits) => {
                return refuse(format!("signal {name} is IEEE float with {bits} bits: 16, 32 or 64 are"));
            }
        };
        // Motorola's start bit is the most significant one, counted from the
        // top of each byte; Intel's is the least significant one.
        let first =
            if text.motorola { text.start_bit / 8 * 8 + 7 - text.start_bit % 8 } else { text.start_bit };
        let end = first + text.length_bits;
        if end > FRAME_BITS {
            return refuse(format!("signal {name} reaches beyond the 64 bytes of the largest frame"));
        }
        let (first_byte, last_byte) = (first / 8, (end - 1) / 8);
        let shift = if text.motorola { (last_byte + 1) * 8 - end } else { first % 8 };
        let mut texts = text.texts.clone();
        texts.sort_by_key(|(value, _)| *value);
        let name = text.long_name.clone().unwrap_or_else(|| name.clone());
        Ok(Self {
            json_key: format!("{}:", serde_json::Value::from(name.as_str())),
            name,
            unit: text.unit.clone(),
            first_byte: small(first_byte),
            byte_count: small(last_byte - first_byte + 1),
            motorola: text.motorola,
            shift: small(shift),
            length_bits: small(text.length_bits),
            form,
            scale: scale(text.factor, text.offset),
            texts,
            selected_by: None,
        })
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its name as a JSON key with its colon: escaping it for every frame is a
    /// third of the time that a log takes.
    #[must_use]
    pub fn json_key(&self) -> &str {
        &self.json_key
    }

    /// Its unit, as the database writes it; empty when it has none.
    #[must_use]
    pub fn unit(&self) -> &str {
        &self.unit
    }

    /// Its raw bits; `None` when the frame ends before them.
    #[must_use]
    pub fn raw(&self, data: &[u8]) -> Option<u64> {
        let window = data.get(self.first_byte..self.first_byte + self.byte_count)?;
        let wide = if self.motorola {
            window.iter().fold(0_u128, |bits, &byte| bits << 8 | u128::from(byte))
        } else {
            window.iter().rev().fold(0_u128, |bits, &byte| bits << 8 | u128::from(byte))
        };
        let mask = u64::MAX >> (64 - self.length_bits);
        #[expect(clippy::cast_possible_truncation, reason = "masked to at most 64 bits")]
        Some((wide >> self.shift) as u64 & mask)
    }

    /// The value of raw bits: raw · factor + offset.
    #[must_use]
    pub fn value(&self, raw: u64) -> Value {
        match (self.form, self.scale) {
            (Form::Unsigned | Form::Signed, Scale::Integer { factor, offset }) => {
                Value::Integer(self.integer(raw) * factor + offset)
            }
            (_, scale) => {
                let (factor, offset) = scale.real();
                Value::Real(self.real(raw) * factor + offset)
            }
        }
    }

    /// The text of raw bits, where the database names one.
    #[must_use]
    pub fn text(&self, raw: u64) -> Option<&str> {
        if self.texts.is_empty() || !matches!(self.form, Form::Unsigned | Form::Signed) {
            return None;
        }
        let integer = self.integer(raw);
        let at = self.texts.binary_search_by_key(&integer, |(value, _)| *value).ok()?;
        self.texts.get(at).map(|(_, text)| text.as_str())
    }

    fn integer(&self, raw: u64) -> i128 {
        let raw_value = i128::from(raw);
        let negative = self.form == Form::Signed && raw >> (self.length_bits - 1) & 1 == 1;
        if negative { raw_value - (1_i128 << self.length_bits) } else { raw_value }
    }

    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_precision_loss,
        reason = "widths were checked; real values are doubles"
    )]
    fn real(&self, raw: u64) -> f64 {
        match self.form {
            Form::Unsigned | Form::Signed => self.integer(raw) as f64,
            Form::Half => half(raw as u16),
            Form::Single => f64::from(f32::from_bits(raw as u32)),
            Form::Double => f64::from_bits(raw),
        }
    }
}

impl Scale {
    #[expect(clippy::cast_precision_loss, reason = "came from doubles")]
    fn real(self) -> (f64, f64) {
        match self {
            Self::Integer { factor, offset } => (factor as f64, offset as f64),
            Self::Real { factor, offset } => (factor, offset),
        }
    }
}

/// Integers stay exact where both are whole and so small that doubles hold them.
fn scale(factor: f64, offset: f64) -> Scale {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    let whole = |number: f64| number.fract() == 0.0 && number.abs() <= EXACT;
    #[expect(clippy::cast_possible_truncation, reason = "whole and below 2^53")]
    if whole(factor) && whole(offset) {
        Scale::Integer { factor: factor as i128, offset: offset as i128 }
    } else {
        Scale::Real { factor, offset }
    }
}

/// IEEE 754-2008 binary16: 1 sign, 5 exponent (bias 15), 10 fraction bits.
fn half(bits: u16) -> f64 {
    let sign = if bits >> 15 == 1 { -1.0 } else { 1.0 };
    let exponent = i32::from(bits >> 10 & 0x1F);
    let fraction = f64::from(bits & 0x3FF);
    sign * match exponent {
        0 => fraction * 2_f64.powi(-24),
        31 if fraction == 0.0 => f64::INFINITY,
        31 => f64::NAN,
        _ => (1.0 + fraction / 1024.0) * 2_f64.powi(exponent - 15),
    }
}

/// Everything here is below 512.
fn small<T: TryFrom<u64> + Default>(number: u64) -> T {
    T::try_from(number).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signal(start_bit: u64, length_bits: u64, motorola: bool, signed: bool) -> SignalText {
        SignalText {
            name: "s".into(),
            start_bit,
            length_bits,
            motorola,
            signed,
            factor: 1.0,
            ..SignalText::default()
        }
    }

    /// Positions worked out by hand from the numbering of the bits.
    #[test]
    fn bits_are_found_in_both_orders() {
        let data = [0x12, 0x34, 0x56, 0x78, 0x9A, 0xBC, 0xDE, 0xF0];
        for (start, length, motorola, raw) in [
            (0, 8, false, 0x12),
            (4, 8, false, 0x41),
            (0, 64, false, 0xF0DE_BC9A_7856_3412),
            (7, 8, true, 0x12),
            (3, 8, true, 0x23),
            (7, 64, true, 0x1234_5678_9ABC_DEF0),
            (0, 2, true, 0b00),
            (1, 3, true, 0b100),
        ] {
            let compiled = Signal::new(&signal(start, length, motorola, false)).unwrap();
            assert_eq!(compiled.raw(&data), Some(raw), "{start}|{length}@{motorola}");
        }
    }

    #[test]
    fn a_short_frame_has_no_value() {
        let compiled = Signal::new(&signal(8, 16, false, false)).unwrap();
        assert_eq!(compiled.raw(&[1, 2]), None);
        assert_eq!(compiled.raw(&[1, 2, 3]), Some(0x0302));
    }

    #[test]
    fn sixty_four_bits_stay_exact() {
        let unsigned = Signal::new(&signal(0, 64, false, false)).unwrap();
        assert_eq!(unsigned.value(u64::MAX), Value::Integer(18_446_744_073_709_551_615));
        let signed = Signal::new(&signal(0, 64, false, true)).unwrap();
        assert_eq!(signed.value(u64::MAX), Value::Integer(-1));
        let nine_bytes = Signal::new(&signal(3, 64, false, false)).unwrap();
        assert_eq!(nine_bytes.raw(&[0xFF; 9]), Some(u64::MAX));
    }

    #[test]
    fn halves_are_read() {
        for (bits, value) in [(0x3C00, 1.0), (0xC000, -2.0), (0x7BFF, 65504.0), (0x0001, 2_f64.powi(-24))] {
            assert_eq!(half(bits), value, "{bits:04X}");
        }
        assert!(half(0x7C00).is_infinite() && half(0x7E00).is_nan());
    }

    #[test]
    fn what_no_frame_holds_is_refused() {
        for (start, length) in [(0, 0), (0, 65), (512, 1), (500, 32)] {
            assert!(Signal::new(&signal(start, length, false, false)).is_err(), "{start}|{length}");
        }
    }
}
