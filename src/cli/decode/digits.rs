//! Digits of a double that came of a number with few decimals, as most signals' do: the
//! product's shortest digits are then the decimal number itself, which is quicker to write
//! than to find from the double. What is written is the same, byte by byte.

use crate::vehicle::dbc::Decimal;

/// Decimal numbers of 15 digits are told apart by doubles (IEEE 754-2019 §5.12.2, decimal
/// precision of binary64), so no other number as short is the same double.
const UNITS_BELOW: u64 = 1_000_000_000_000_000;
/// Exact: 10^22 is the last power of ten that a double holds.
const POWERS: [f64; Decimal::MOST_PLACES as usize + 1] =
    [1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15];
/// What is smaller is written with an exponent (from 1e-5 down).
const SMALLEST: f64 = 1e-4;

/// Writes the number as JSON; whether it could. `decimal`: the same number by its digits.
pub fn write(json: &mut Vec<u8>, number: f64, decimal: Decimal) -> bool {
    let Decimal { units, places } = decimal;
    let Some(power) = POWERS.get(usize::from(places)) else { return false };
    #[expect(clippy::cast_precision_loss, reason = "below 2^53")]
    let quotient = units as f64 / power;
    let same = units.unsigned_abs() < UNITS_BELOW && quotient.to_bits() == number.to_bits();
    let plain = units == 0 || number.abs() >= SMALLEST;
    if places == 0 || !same || !plain {
        return false;
    }
    let (mut rest, mut places) = (units.unsigned_abs(), places);
    while places > 1 && rest.is_multiple_of(10) {
        (rest, places) = (rest / 10, places - 1);
    }
    // From the right: the digits behind the point (15 at most), the point, those before it (15), the sign.
    let mut text = [0; 32];
    let mut begin = text.len();
    let mut put = |character| {
        begin -= 1;
        if let Some(place) = text.get_mut(begin) {
            *place = character;
        }
    };
    let mut digit = || {
        let digit = b"0123456789".get((rest % 10) as usize).copied().unwrap_or_default();
        rest /= 10;
        (digit, rest == 0)
    };
    for _ in 0..places {
        put(digit().0);
    }
    put(b'.');
    loop {
        let (digit, last) = digit();
        put(digit);
        if last {
            break;
        }
    }
    if number.is_sign_negative() {
        put(b'-');
    }
    json.extend_from_slice(text.get(begin..).unwrap_or_default());
    true
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn written(number: f64, units: i64, places: u8) -> Option<String> {
        let mut json = Vec::new();
        write(&mut json, number, Decimal { units, places }).then(|| String::from_utf8(json).unwrap())
    }

    #[test]
    fn where_the_double_is_another_number_it_is_left_alone() {
        assert_eq!(written(0.3, 3, 1).as_deref(), Some("0.3"));
        assert_eq!(written(3.0 * 0.1, 3, 1), None, "0.30000000000000004");
        assert_eq!(written(-0.0, 0, 2), None);
        assert_eq!(written(0.0, 0, 2).as_deref(), Some("0.0"));
        assert_eq!(written(-40.0, -4000, 2).as_deref(), Some("-40.0"));
        assert_eq!(written(0.000_01, 1, 5), None, "1e-5");
    }

    proptest! {
        #![proptest_config(crate::seed::cases(20_000))]

        #[test]
        fn the_digits_are_those_of_the_double(
            units in prop_oneof![-10_000_i64..10_000, -2_000_000_000_000_000_i64..2_000_000_000_000_000],
            places in 1_u8..=15,
        ) {
            let number = units as f64 / POWERS[usize::from(places)];
            if let Some(written) = written(number, units, places) {
                prop_assert_eq!(written, serde_json::to_string(&number).unwrap());
            }
        }
    }
}
