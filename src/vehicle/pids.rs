//! Service 01 and 02 data to values, by the rows of `firmware-protocols/`. Pure.

use serde_json::Value;

use super::obd::DecodeError;
use crate::event::vehicle::PidValue;
use crate::protocols::{Bundle, PidRow, SignalKind, SignalRow, Vector, VectorValue};

/// The values in the data bytes of a PID (after the echoed service and PID).
/// A signal that says "no value" is absent, never zero.
///
/// # Errors
/// [`DecodeError`] when there are fewer bytes than the row says.
pub fn decode_pid(row: &PidRow, data: &[u8]) -> Result<Vec<PidValue>, DecodeError> {
    let data = data.get(..row.bytes).ok_or_else(|| DecodeError {
        what: format!("PID {:02X}{:02X}", row.service, row.pid),
        found: data.len(),
        expected: row.bytes,
    })?;
    let value_of = |signal: &SignalRow| {
        signal_value(signal, data).map(|value| PidValue {
            pid: format!("{:02X}{:02X}", row.service, row.pid),
            name: signal.name.clone(),
            value,
            unit: signal.unit.clone(),
        })
    };
    Ok(row.signals.iter().filter_map(value_of).collect())
}

fn signal_value(signal: &SignalRow, data: &[u8]) -> Option<Value> {
    if signal.when_bit.is_some_and(|place| bits(data, place, 1) != Some(1)) {
        return None;
    }
    let raw = bits(data, signal.bit_offset, signal.bit_length)?;
    if signal.no_value == Some(raw) {
        return None;
    }
    match &signal.kind {
        SignalKind::Number { factor, offset } => {
            let value = number(raw, signal) * factor + offset;
            // A millionth is finer than any signal; it keeps 0.1 from printing as 0.30000000000000004.
            serde_json::Number::from_f64((value * 1e6).round() / 1e6).map(Value::Number)
        }
        SignalKind::Map(texts) => texts.get(&raw).cloned().map(Value::String),
        SignalKind::Bits(names) => {
            let is_set = |bit: usize| bits(data, signal.bit_offset + bit, 1) == Some(1);
            let set: Vec<&str> =
                names.iter().rev().filter(|(bit, _)| is_set(**bit)).map(|(_, name)| name.as_str()).collect();
            Some(Value::String(set.join(" ")))
        }
    }
}

#[allow(clippy::cast_precision_loss)] // at most 32 bits: exact in a double
fn number(raw: u64, signal: &SignalRow) -> f64 {
    let sign = 1_u64.checked_shl(u32::try_from(signal.bit_length).unwrap_or(64).wrapping_sub(1)).unwrap_or(0);
    if signal.signed && raw & sign != 0 { raw as f64 - 2.0 * sign as f64 } else { raw as f64 }
}

/// A big-endian bit field, first bit = most significant of the first byte.
fn bits(data: &[u8], offset: usize, length: usize) -> Option<u64> {
    (offset..offset.checked_add(length)?).try_fold(0_u64, |value, place| {
        let byte = data.get(place / 8)?;
        Some(value << 1 | u64::from(byte >> (7 - place % 8) & 1))
    })
}

/// A vector of the protocol files that the code does not confirm.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error(
    "obd/pids.toml: PID {pid:02X}, data {data}: {signal} is {found} and should be {expected}; correct the row or the vector"
)]
pub struct VectorFailure {
    /// The PID.
    pub pid: u8,
    /// The vector's data, hex.
    pub data: String,
    /// The signal.
    pub signal: String,
    /// By the vector.
    pub expected: String,
    /// By the code.
    pub found: String,
}

/// Decodes every vector of the bundle's PID table; what differs is returned.
#[must_use]
pub fn verify_vectors(bundle: &Bundle) -> Vec<VectorFailure> {
    bundle.pids.iter().flat_map(|row| row.vectors.iter().flat_map(|vector| failures(row, vector))).collect()
}

fn failures(row: &PidRow, vector: &Vector) -> Vec<VectorFailure> {
    let values = decode_pid(row, &vector.data).unwrap_or_default();
    let mut names: Vec<&str> = values.iter().map(|value| value.name.as_str()).collect();
    names.extend(vector.values.keys().map(String::as_str));
    names.sort_unstable();
    names.dedup();
    names
        .into_iter()
        .filter_map(|name| {
            let found = values.iter().find(|value| value.name == name).map(|value| &value.value);
            let expected = vector.values.get(name);
            (!agrees(found, expected)).then(|| VectorFailure {
                pid: row.pid,
                data: hex::encode_upper(&vector.data),
                signal: name.to_owned(),
                expected: expected.map_or("absent".into(), |value| format!("{value:?}")),
                found: found.map_or("absent".into(), ToString::to_string),
            })
        })
        .collect()
}

fn agrees(found: Option<&Value>, expected: Option<&VectorValue>) -> bool {
    match (found, expected) {
        (None, None) => true,
        (Some(Value::String(found)), Some(VectorValue::Text(expected))) => found == expected,
        (Some(found), Some(VectorValue::Number(expected))) => {
            found.as_f64().is_some_and(|found| (found - expected).abs() <= 1e-6)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_shipped_table_confirms_its_vectors() {
        let bundle = Bundle::load(std::path::Path::new("firmware-protocols")).unwrap();
        assert_eq!(verify_vectors(&bundle), []);
        assert!(bundle.pids.len() > 20);
    }

    #[test]
    fn published_examples_and_short_data() {
        let bundle = Bundle::load(std::path::Path::new("firmware-protocols")).unwrap();
        let value = |pid: u8, data: &[u8]| {
            decode_pid(bundle.pids.get(1, pid).unwrap(), data).map(|values| values[0].value.as_f64().unwrap())
        };
        // Source: Wikipedia "OBD-II PIDs" formulas.
        assert_eq!(value(0x0C, &[0x1A, 0xF8]), Ok(1726.0));
        assert_eq!(value(0x05, &[0x7B]), Ok(83.0));
        assert_eq!(value(0x0D, &[0x32]), Ok(50.0));
        assert!(value(0x0C, &[0x1A]).is_err());
    }

    proptest! {
        #![proptest_config(crate::seed::cases(256))]

        #[test]
        fn never_panics(data in proptest::collection::vec(any::<u8>(), 0..48)) {
            let bundle = Bundle::load(std::path::Path::new("firmware-protocols")).unwrap();
            for row in bundle.pids.iter() {
                let _ = decode_pid(row, &data);
            }
        }

        #[test]
        fn bit_fields_agree_with_whole_numbers(data in any::<[u8; 4]>(), offset in 0_usize..32, length in 1_usize..32) {
            let whole = u64::from(u32::from_be_bytes(data));
            let expected = (offset + length <= 32).then(|| whole >> (32 - offset - length) & ((1 << length) - 1));
            prop_assert_eq!(bits(&data, offset, length), expected);
        }
    }
}
