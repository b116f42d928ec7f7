//! Service 01 and 02 data to values, by the rows of `firmware-protocols/`. Pure.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::obd::{self, DecodeError};
use super::vectors::VectorFailure;
use crate::event::vehicle::PidValue;
use crate::protocols::{PidRow, PidTable, SignalKind, SignalRow, Vector, VectorValue};

/// Full scales that a car gave for some signals (PIDs 4F and 50), by the names of those
/// PIDs' signals (`max_lambda`, `max_mass_air_flow` …). One that is not there, or that the
/// car left at zero, keeps the usual scale.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Maxima(BTreeMap<String, f64>);

impl Maxima {
    /// From an ECU's decoded values; those of PIDs 4F and 50 count, all others are passed by.
    #[must_use]
    pub fn of(values: &[PidValue]) -> Self {
        let given = values.iter().filter(|value| matches!(value.pid.get(2..), Some("4F" | "50")));
        Self(given.filter_map(|value| Some((value.name.clone(), value.value.as_f64()?))).collect())
    }

    fn scale(&self, signal: &SignalRow) -> f64 {
        let Some(maximum) = &signal.maximum else { return 1.0 };
        self.0.get(&maximum.name).filter(|given| **given > 0.0).map_or(1.0, |given| given / maximum.usual)
    }
}

/// The values in the data bytes of a PID (after the echoed service and PID), with the
/// usual full scales. A signal that says "no value" is absent, never zero.
///
/// # Errors
/// [`DecodeError`] when there are fewer bytes than the row says.
pub fn decode_pid(row: &PidRow, data: &[u8]) -> Result<Vec<PidValue>, DecodeError> {
    decode_pid_within(row, data, &Maxima::default())
}

/// The same with the full scales that this ECU gave in PIDs 4F and 50.
///
/// # Errors
/// [`DecodeError`] when there are fewer bytes than the row says.
pub fn decode_pid_within(row: &PidRow, data: &[u8], maxima: &Maxima) -> Result<Vec<PidValue>, DecodeError> {
    // Of unknown length: all there is.
    let bytes = row.bytes.unwrap_or(data.len().max(1));
    let longest = row.longest().unwrap_or(bytes);
    let data = data.get(..longest).or_else(|| data.get(..bytes)).ok_or_else(|| DecodeError {
        what: format!("PID {:02X}{:02X}", row.service, row.pid),
        found: data.len(),
        expected: bytes,
    })?;
    let mut seen = BTreeSet::new();
    let value_of = |signal: &SignalRow| {
        let value = signal_value(signal, data, maxima)?;
        // One name with several scalings: the first that is there.
        seen.insert(signal.name.clone()).then(|| PidValue {
            pid: format!("{:02X}{:02X}", row.service, row.pid),
            name: signal.name.clone(),
            value,
            unit: signal.unit.clone(),
        })
    };
    Ok(row.signals.iter().filter_map(value_of).collect())
}

fn signal_value(signal: &SignalRow, data: &[u8], maxima: &Maxima) -> Option<Value> {
    let bit_is = |place: Option<usize>, wanted| place.is_none_or(|n| bits(data, n, 1) == Some(wanted));
    if !bit_is(signal.when_bit, 1) || !bit_is(signal.unless_bit, 0) {
        return None;
    }
    let raw = bits(data, signal.bit_offset, signal.bit_length)?;
    if signal.no_value == Some(raw) {
        return None;
    }
    match &signal.kind {
        SignalKind::Number { factor, offset } => {
            let value = (number(raw, signal) * factor + offset) * maxima.scale(signal);
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
        SignalKind::Pids(first) => {
            let mask = u32::try_from(raw).ok()?.to_be_bytes();
            let numbers = obd::supported(first.checked_sub(1)?, mask);
            let numbers: Vec<String> = numbers.iter().map(|pid| format!("{pid:02X}")).collect();
            Some(Value::String(numbers.join(" ")))
        }
        SignalKind::Code => {
            let code = u16::try_from(raw).ok().filter(|code| *code != 0)?;
            Some(Value::String(obd::dtc_text(code.to_be_bytes())))
        }
        SignalKind::Raw => Some(Value::String(hex::encode_upper(data))),
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

/// Vectors of the PID table that the code does not confirm.
pub(super) fn vector_failures(table: &PidTable) -> Vec<VectorFailure> {
    table.iter().flat_map(|row| row.vectors.iter().flat_map(|vector| failures(row, vector))).collect()
}

fn failures(row: &PidRow, vector: &Vector) -> Vec<VectorFailure> {
    let maxima = Maxima(vector.maxima.clone());
    let values = decode_pid_within(row, &vector.data, &maxima).unwrap_or_default();
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
                file: row.file(),
                what: format!("PID {:02X}, data {}: {name}", row.pid, hex::encode_upper(&vector.data)),
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
    use std::sync::LazyLock;

    use proptest::prelude::*;

    use super::*;
    use crate::protocols::Bundle;

    fn bundle() -> &'static Bundle {
        static BUNDLE: LazyLock<Bundle> =
            LazyLock::new(|| Bundle::load(std::path::Path::new("firmware-protocols")).unwrap());
        &BUNDLE
    }

    #[test]
    fn the_shipped_table_confirms_its_vectors() {
        let bundle = bundle();
        assert_eq!(vector_failures(&bundle.pids), []);
        assert!(bundle.pids.len() > 20);
    }

    #[test]
    fn published_examples_and_short_data() {
        let bundle = bundle();
        let value = |pid: u8, data: &[u8]| {
            decode_pid(bundle.pids.get(1, pid).unwrap(), data).map(|values| values[0].value.as_f64().unwrap())
        };
        // Source: Wikipedia "OBD-II PIDs" formulas.
        assert_eq!(value(0x0C, &[0x1A, 0xF8]), Ok(1726.0));
        assert_eq!(value(0x05, &[0x7B]), Ok(83.0));
        assert_eq!(value(0x0D, &[0x32]), Ok(50.0));
        assert!(value(0x0C, &[0x1A]).is_err());
    }

    fn decoded(pid: u8, data: &[u8]) -> BTreeMap<String, Value> {
        let bundle = bundle();
        let values = decode_pid(bundle.pids.get(1, pid).unwrap(), data).unwrap();
        values.into_iter().map(|value| (value.name, value.value)).collect()
    }

    #[test]
    fn support_bits_lengths_and_scalings_of_one_name() {
        // 8B, only the trigger is supported: everything else is absent, not "no".
        let trigger = decoded(0x8B, &[0x10, 0xFF, 0x33, 0xFF, 0xFF, 0xFF, 0xFF]);
        assert_eq!(trigger.keys().collect::<Vec<_>>(), ["dpf_regeneration_trigger"]);
        assert!(decoded(0x83, &[0; 9]).is_empty());
        // A sensor that exists and has nothing to say now: no value, whatever its bytes hold.
        for (pid, names) in [
            (0x83, ["nox_11", "nox_12", "nox_21", "nox_22"]),
            (0xA1, ["nox_corrected_11", "nox_corrected_12", "nox_corrected_21", "nox_corrected_22"]),
            (0xA7, ["nox_13", "nox_14", "nox_23", "nox_24"]),
            (0xA8, ["nox_corrected_13", "nox_corrected_14", "nox_corrected_23", "nox_corrected_24"]),
        ] {
            for (sensor, name) in names.into_iter().enumerate() {
                let found = decoded(pid, &[0x0F | 0x10 << sensor, 0, 1, 0, 2, 0, 3, 0, 4]);
                assert!(found.len() == 3 && !found.contains_key(name), "{pid:02X}: {found:?}");
            }
        }
        // 6B: the same sensor at 1 and at 4 degrees a bit.
        assert_eq!(decoded(0x6B, &[0x01, 0x64, 0, 0, 0])["egr_temperature_11"], 60.0);
        assert_eq!(decoded(0x6B, &[0x10, 0x64, 0, 0, 0])["egr_temperature_11"], 360.0);
        assert_eq!(decoded(0x6B, &[0x11, 0x64, 0, 0, 0])["egr_temperature_11"], 60.0);
        // 06 of an engine with three banks, and with two (a stray byte is no bank).
        assert_eq!(decoded(0x06, &[0x80, 0x90]).len(), 2);
        assert_eq!(decoded(0x06, &[0x80]).len(), 1);
        // 68 has room for two sensors or for six; padding in between is not a third sensor.
        assert_eq!(decoded(0x68, &[0x3F, 0x50, 0x51, 0, 0]).len(), 2);
        assert_eq!(decoded(0x68, &[0x3F, 0x50, 0x51, 0x52, 0x53, 0x54, 0x55]).len(), 6);
    }

    #[test]
    fn a_car_may_give_other_full_scales() {
        let bundle = bundle();
        let values = |pid: u8, data: &[u8], maxima: &Maxima| {
            decode_pid_within(bundle.pids.get(1, pid).unwrap(), data, maxima).unwrap()
        };
        // Source: ISO 15031-5:2006 table B.60: data A of PID 4F is 4, raw 7D00 is lambda 1.953.
        let mut told = values(0x4F, &[0x04, 0, 0, 0], &Maxima::default());
        told.extend(values(0x50, &[0x0A, 0, 0, 0], &Maxima::default()));
        assert_eq!(told.len(), 2, "zero keeps the usual scale and is no value");
        let maxima = Maxima::of(&told);
        let first = |pid: u8, data: &[u8]| values(pid, data, &maxima)[0].value.as_f64().unwrap();
        assert!((first(0x44, &[0x7D, 0x00]) - 1.953).abs() < 0.001);
        assert!((first(0x34, &[0x7D, 0x00, 0x80, 0x00]) - 1.953).abs() < 0.001);
        assert_eq!(first(0x10, &[0xFF, 0xFF]), 100.0);
        assert_eq!(first(0x0B, &[0x65]), 101.0);
        assert_eq!(values(0x44, &[0x80, 0x00], &Maxima::default())[0].value, 1.0);
    }

    proptest! {
        #![proptest_config(crate::seed::cases(256))]

        /// An encoder that knows the row but not the decoder: raw numbers placed bit by bit come
        /// back as numbers; what has no support bit stays away.
        #[test]
        fn what_a_car_packs_is_unpacked(seed in any::<u64>(), pid in 0x65_u8..0x9F) {
            let bundle = bundle();
            let Some(row) = bundle.pids.get(1, pid) else { return Ok(()) };
            let mut data = vec![0_u8; row.longest().unwrap()];
            let mut set = |from: usize, length: usize, raw: u64| {
                for n in 0..length {
                    let place = from + n;
                    let mask = 0x80 >> (place % 8);
                    if raw >> (length - 1 - n) & 1 == 1 { data[place / 8] |= mask } else { data[place / 8] &= !mask }
                }
            };
            let mut expected = BTreeMap::new();
            for (place, signal) in row.signals.iter().enumerate() {
                let SignalKind::Number { factor, offset } = signal.kind else { continue };
                let Some(bit) = signal.when_bit else { continue };
                if expected.contains_key(&signal.name) || seed >> (place % 64) & 1 == 0 { continue }
                let raw = seed.wrapping_mul(place as u64 + 3) % (1 << (signal.bit_length - 1));
                if signal.no_value == Some(raw) { continue }
                set(bit, 1, 1);
                set(signal.bit_offset, signal.bit_length, raw);
                expected.insert(signal.name.clone(), raw as f64 * factor + offset);
            }
            let found: BTreeMap<_, _> =
                decode_pid(row, &data).unwrap().into_iter().map(|value| (value.name, value.value)).collect();
            for (name, value) in &expected {
                let found = found.get(name).and_then(Value::as_f64);
                prop_assert!(found.is_some_and(|found| (found - value).abs() < 1e-5), "{name}: {found:?}, {value}");
            }
        }

        #[test]
        fn never_panics(data in proptest::collection::vec(any::<u8>(), 0..48)) {
            let bundle = bundle();
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
