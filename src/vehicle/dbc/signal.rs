//! One compiled signal: where its bits are, what they mean. Pure.

use super::DbcError;
use super::parse::SignalText;

/// Bits of the largest CAN FD frame (ISO 11898-1:2015: 64 bytes).
const FRAME_BITS: u64 = 64 * 8;
/// Bytes of the largest classic frame (ISO 11898-1).
const LOADED_BYTES: usize = 8;

/// A signal's value in its unit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value {
    /// Exact: raw value, factor and offset are integers.
    Integer(i128),
    /// Everything else. May be no number, where an IEEE signal holds none.
    Real(f64),
}

/// A value to the last digit: `units` / 10^`places`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decimal {
    /// The value without its point.
    pub units: i64,
    /// Digits behind the point, at most [`Decimal::MOST_PLACES`].
    pub places: u8,
}

/// Where a signal is and how it is read.
#[derive(Debug, Clone)]
pub struct Signal {
    name: String,
    unit: String,
    /// A frame that ends before this byte does not hold the signal.
    end_byte: usize,
    place: Place,
    /// Bits below the signal's lowest.
    shift: u32,
    /// 1 to 64.
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

/// Which bits `shift` counts in.
#[derive(Debug, Clone, Copy)]
enum Place {
    /// The first eight bytes, the first one lowest.
    Intel,
    /// The first eight bytes, the first one highest.
    Motorola,
    /// The bytes from here to the signal's end, at most nine: 64 bits may begin inside a byte.
    Beyond { first_byte: usize, motorola: bool },
}

/// A frame ready to decode: its first eight bytes are loaded once, in both orders, for all
/// signals that lie in them (on classic CAN all do).
#[derive(Debug, Clone, Copy)]
pub(super) struct Frame<'d> {
    data: &'d [u8],
    intel: u64,
    motorola: u64,
}

impl<'d> Frame<'d> {
    pub fn new(data: &'d [u8]) -> Self {
        let first = data.first_chunk().copied().unwrap_or_else(|| {
            let mut first = [0; LOADED_BYTES];
            for (loaded, &byte) in first.iter_mut().zip(data) {
                *loaded = byte;
            }
            first
        });
        Self { data, intel: u64::from_le_bytes(first), motorola: u64::from_be_bytes(first) }
    }
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
    Integer {
        factor: i128,
        offset: i128,
    },
    /// `written`: factor and offset as a person writes them, where they are that short.
    Real {
        factor: f64,
        offset: f64,
        written: Option<Written>,
    },
}

/// Both without the point, which stands before the last `places` digits.
#[derive(Debug, Clone, Copy)]
struct Written {
    factor: i64,
    offset: i64,
    places: u8,
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
        let (first_byte, end_byte) = (first / 8, end.div_ceil(8));
        let (place, shift) = if end_byte > LOADED_BYTES as u64 {
            let shift = if text.motorola { end_byte * 8 - end } else { first % 8 };
            (Place::Beyond { first_byte: small(first_byte), motorola: text.motorola }, shift)
        } else if text.motorola {
            (Place::Motorola, LOADED_BYTES as u64 * 8 - end)
        } else {
            (Place::Intel, first)
        };
        let mut texts = text.texts.clone();
        texts.sort_by_key(|(value, _)| *value);
        let name = text.long_name.clone().unwrap_or_else(|| name.clone());
        Ok(Self {
            name,
            unit: text.unit.clone(),
            end_byte: small(end_byte),
            place,
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

    /// Its unit, as the database writes it; empty when it has none.
    #[must_use]
    pub fn unit(&self) -> &str {
        &self.unit
    }

    /// Its raw bits; `None` when the frame ends before them.
    pub(super) fn raw(&self, frame: &Frame<'_>) -> Option<u64> {
        if frame.data.len() < self.end_byte {
            return None;
        }
        let bits = match self.place {
            Place::Intel => frame.intel >> self.shift,
            Place::Motorola => frame.motorola >> self.shift,
            Place::Beyond { first_byte, motorola } => {
                let window = frame.data.get(first_byte..self.end_byte)?;
                let join = |bits: u128, &byte: &u8| bits << 8 | u128::from(byte);
                let wide =
                    if motorola { window.iter().fold(0, join) } else { window.iter().rev().fold(0, join) };
                #[expect(clippy::cast_possible_truncation, reason = "a signal has at most 64 bits")]
                let bits = (wide >> self.shift) as u64;
                bits
            }
        };
        Some(bits & u64::MAX >> (64 - self.length_bits))
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

    /// The same by its digits, where factor and offset have few.
    #[must_use]
    pub fn decimal(&self, raw: u64) -> Option<Decimal> {
        let Scale::Real { written: Some(written), .. } = self.scale else { return None };
        let integer = match self.form {
            Form::Unsigned => i64::try_from(raw).ok()?,
            Form::Signed => self.signed(raw),
            _ => return None,
        };
        let units = integer.checked_mul(written.factor)?.checked_add(written.offset)?;
        Some(Decimal { units, places: written.places })
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
        match self.form {
            Form::Signed => i128::from(self.signed(raw)),
            _ => i128::from(raw),
        }
    }

    /// Two's complement of `length_bits`.
    fn signed(&self, raw: u64) -> i64 {
        let above = 64 - self.length_bits;
        (raw << above).cast_signed() >> above
    }

    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_precision_loss,
        reason = "widths were checked; real values are doubles"
    )]
    fn real(&self, raw: u64) -> f64 {
        match self.form {
            Form::Unsigned => raw as f64,
            Form::Signed => self.signed(raw) as f64,
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
            Self::Real { factor, offset, .. } => (factor, offset),
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
        Scale::Real { factor, offset, written: Written::of(factor, offset) }
    }
}

impl Decimal {
    /// Powers of ten up to here are exact doubles (10^22 is the last).
    pub const MOST_PLACES: u8 = 15;
}

impl Written {
    fn of(factor: f64, offset: f64) -> Option<Self> {
        let (factor, offset) = (factor.to_string(), offset.to_string());
        let places = |text: &str| text.split_once('.').map_or(0, |(_, behind)| behind.len());
        let most = places(&factor).max(places(&offset));
        let digits = |text: &str| {
            let zeros = "0".repeat(most - places(text));
            (text.replace('.', "") + zeros.as_str()).parse().ok()
        };
        let places = u8::try_from(most).ok().filter(|&places| places <= Decimal::MOST_PLACES)?;
        Some(Self { factor: digits(&factor)?, offset: digits(&offset)?, places })
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
            assert_eq!(compiled.raw(&Frame::new(&data)), Some(raw), "{start}|{length}@{motorola}");
        }
    }

    #[test]
    fn a_short_frame_has_no_value() {
        let compiled = Signal::new(&signal(8, 16, false, false)).unwrap();
        assert_eq!(compiled.raw(&Frame::new(&[1, 2])), None);
        assert_eq!(compiled.raw(&Frame::new(&[1, 2, 3])), Some(0x0302));
    }

    #[test]
    fn sixty_four_bits_stay_exact() {
        let unsigned = Signal::new(&signal(0, 64, false, false)).unwrap();
        assert_eq!(unsigned.value(u64::MAX), Value::Integer(18_446_744_073_709_551_615));
        let signed = Signal::new(&signal(0, 64, false, true)).unwrap();
        assert_eq!(signed.value(u64::MAX), Value::Integer(-1));
        let nine_bytes = Signal::new(&signal(3, 64, false, false)).unwrap();
        assert_eq!(nine_bytes.raw(&Frame::new(&[0xFF; 9])), Some(u64::MAX));
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

    /// One bit after the other, as the format numbers them: Intel upwards from the lowest,
    /// Motorola downwards in each byte from the highest, then on to the next byte.
    fn bit_by_bit(data: &[u8], start: u64, length: u64, motorola: bool) -> Option<u64> {
        let bit = |at: u64| Some(u64::from(data.get(usize::try_from(at / 8).ok()?)? >> (at % 8) & 1));
        let (mut at, mut raw) = (start, 0);
        for n in 0..length {
            if motorola {
                raw = raw << 1 | bit(at)?;
                at = if at % 8 == 0 { at + 15 } else { at - 1 };
            } else {
                raw |= bit(start + n)? << n;
            }
        }
        Some(raw)
    }

    proptest::proptest! {
        #![proptest_config(crate::seed::cases(2000))]

        #[test]
        fn any_signal_of_any_frame(
            start in 0_u64..512, short in 0_u64..72, beyond in proptest::bool::ANY,
            length in 1_u64..=64, motorola in proptest::bool::ANY, signed in proptest::bool::ANY,
            data in proptest::collection::vec(proptest::num::u8::ANY, 0..=64),
        ) {
            let start = if beyond { start } else { short };
            if let Ok(compiled) = Signal::new(&signal(start, length, motorola, signed)) {
                let raw = compiled.raw(&Frame::new(&data));
                proptest::prop_assert_eq!(raw, bit_by_bit(&data, start, length, motorola));
                if let Some(raw) = raw {
                    let negative = signed && raw >> (length - 1) == 1;
                    let value = i128::from(raw) - if negative { 1_i128 << length } else { 0 };
                    proptest::prop_assert_eq!(compiled.value(raw), Value::Integer(value));
                }
            }
        }
    }
}
