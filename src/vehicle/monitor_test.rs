//! Results of monitor tests: service 06 on CAN (monitor, test, unit and scaling),
//! service 06 of older buses (test, component, one limit) and service 05
//! (oxygen sensors of older buses). Pure. Which monitor and which unit an id
//! means stands in `firmware-protocols/`. Source: SAE J1979 / ISO 15031-5 service
//! 05 and 06; layouts beside it in freediag (`scantool.c`) and python-OBD.

use super::vectors::VectorFailure;
use crate::event::vehicle::MonitorTest;
use crate::protocols::{Bundle, MonitorTestTable};

/// Bytes of one result on CAN: monitor, test, scaling, value, minimum, maximum.
const RESULT_BYTES: usize = 9;
/// Limit type in service 06 of older buses: 1 in the component's top bit is a minimum.
const IS_MINIMUM: u8 = 0x80;

/// What one 46 answer on CAN told.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct MonitorResults {
    /// Results in the order of the answer.
    pub tests: Vec<MonitorTest>,
    /// Monitor and test of those that have not run since codes were cleared (value and
    /// limits are all zero, ISO 15031-5 service 06): there is no result to show.
    pub not_run: Vec<(u8, u8)>,
}

impl MonitorResults {
    /// Reads a payload that begins with 46; several results may follow each other. A support
    /// mask, another service or a fragment of a result at the end gives none.
    #[must_use]
    pub fn from_can(payload: &[u8], bundle: &Bundle) -> Self {
        let mut results = Self::default();
        let Some((0x46, records)) = payload.split_first() else { return results };
        for record in records.chunks_exact(RESULT_BYTES) {
            let [mid, tid, scaling, value, value_low, min, min_low, max, max_low] = *record else { continue };
            // 00, 20, 40 …: a mask of supported monitors.
            if mid.is_multiple_of(0x20) {
                break;
            }
            let raw = [[value, value_low], [min, min_low], [max, max_low]].map(u16::from_be_bytes);
            if raw == [0, 0, 0] {
                results.not_run.push((mid, tid));
                continue;
            }
            results.tests.push(result(mid, tid, scaling, raw, &bundle.monitor_tests));
        }
        results
    }
}

fn result(mid: u8, tid: u8, scaling: u8, raw: [u16; 3], table: &MonitorTestTable) -> MonitorTest {
    let signed = raw.map(|raw| signed(scaling, raw));
    let [value, min, max] = signed;
    let mut test = MonitorTest {
        mid: format!("{mid:02X}"),
        tid: format!("{tid:02X}"),
        name: name(mid, tid, table),
        value: f64::from(value),
        min: f64::from(min),
        max: f64::from(max),
        unit: String::new(),
        passed: min <= value && value <= max,
    };
    match table.scaling(scaling) {
        Some(row) => {
            [test.value, test.min, test.max] =
                signed.map(|raw| tidy(f64::from(raw) * row.factor + row.offset));
            row.unit.clone_into(&mut test.unit);
        }
        None => test.name = format!("{} (raw, unknown unit {scaling:02X})", test.name),
    }
    test
}

/// SAE J1979 appendix E: ids from 80 on are two's complement.
fn signed(scaling: u8, raw: u16) -> i32 {
    let [high, low] = raw.to_be_bytes();
    if scaling & 0x80 != 0 { i32::from(i16::from_be_bytes([high, low])) } else { i32::from(raw) }
}

/// Nine places are finer than any scaling; they keep 0.3 from printing as 0.30000000000000004.
fn tidy(value: f64) -> f64 {
    (value * 1e9).round() / 1e9
}

/// What is tested, in English; screens look monitor and test up for the other language.
fn name(mid: u8, tid: u8, table: &MonitorTestTable) -> String {
    let monitor = table.monitor(mid).map_or_else(|| format!("Monitor {mid:02X}"), |text| text.en.clone());
    let test = table.test(tid).map_or_else(|| format!("test {tid:02X}"), |row| row.name.en.clone());
    format!("{monitor}: {test}")
}

/// One result of service 06 on an older bus: `46`, test, component, value, limit. The maker
/// scales it as he likes, so the three are raw and without unit. The top bit of the component
/// says which limit it is; the other is the end of the 16-bit range. `mid` is the component.
#[must_use]
pub fn older_bus_result(payload: &[u8]) -> Option<MonitorTest> {
    let [0x46, tid, component, value, value_low, limit, limit_low, ..] = *payload else { return None };
    // 00, 20, 40 …: a mask (`46`, test, `FF`, four bytes).
    if tid.is_multiple_of(0x20) {
        return None;
    }
    let value = u16::from_be_bytes([value, value_low]);
    let limit = u16::from_be_bytes([limit, limit_low]);
    let (min, max) = if component & IS_MINIMUM == 0 { (0, limit) } else { (limit, u16::MAX) };
    let component = component & !IS_MINIMUM;
    Some(MonitorTest {
        mid: format!("{component:02X}"),
        tid: format!("{tid:02X}"),
        name: format!("Test {tid:02X}, component {component:02X} (raw)"),
        value: f64::from(value),
        min: f64::from(min),
        max: f64::from(max),
        unit: String::new(),
        passed: min <= value && value <= max,
    })
}

/// One result of service 05 (older buses): `45`, test, sensor, value, and for what is
/// measured the limits; constants have none, so that all three are the value, as on CAN.
/// The sensor is one bit, as in PID 13 (or 1D on cars that have it); `mid` is that byte.
#[must_use]
pub fn oxygen_sensor_result(payload: &[u8], bundle: &Bundle) -> Option<MonitorTest> {
    let (tid, sensor, raw) = match *payload {
        [0x45, tid, sensor, value] => (tid, sensor, [value; 3]),
        [0x45, tid, sensor, value, min, max] => (tid, sensor, [value, min, max]),
        _ => return None,
    };
    if tid.is_multiple_of(0x20) {
        return None;
    }
    let [value, min, max] = raw;
    let row = bundle.monitor_tests.test(tid);
    let scaling = row.and_then(|row| row.oxygen.as_ref());
    let test = row.map_or_else(|| format!("test {tid:02X}"), |row| row.name.en.clone());
    let said = if scaling.is_some() { "" } else { " (raw)" };
    let scaled = raw.map(|raw| tidy(f64::from(raw) * scaling.map_or(1.0, |scaling| scaling.factor)));
    Some(MonitorTest {
        mid: format!("{sensor:02X}"),
        tid: format!("{tid:02X}"),
        name: format!("Oxygen sensor {sensor:02X}: {test}{said}"),
        value: scaled[0],
        min: scaled[1],
        max: scaled[2],
        unit: scaling.map(|scaling| scaling.unit.clone()).unwrap_or_default(),
        passed: min <= value && value <= max,
    })
}

/// What the vectors of the monitor tables expect and the code does not give.
pub(super) fn vector_failures(bundle: &Bundle) -> Vec<VectorFailure> {
    let table = &bundle.monitor_tests;
    let mut failures = Vec::new();
    for row in table.scalings() {
        for (raw, expected) in &row.vectors {
            let found = tidy(f64::from(signed(row.id, *raw)) * row.factor + row.offset);
            if (found - expected).abs() > 1e-9 {
                failures.push(VectorFailure {
                    file: "obd/units-and-scaling.toml",
                    what: format!("scaling {:02X}, raw {raw:04X}", row.id),
                    expected: expected.to_string(),
                    found: found.to_string(),
                });
            }
        }
    }
    for vector in &table.vectors {
        let payload = [&[vector.service | 0x40], vector.data.as_slice()].concat();
        let found = match vector.service {
            0x05 => oxygen_sensor_result(&payload, bundle).into_iter().collect(),
            _ => MonitorResults::from_can(&payload, bundle).tests,
        };
        let same = found.len() == vector.tests.len()
            && found.iter().zip(&vector.tests).all(|(found, expected)| {
                let near = |a: f64, b: f64| (a - b).abs() <= 1e-9;
                found.mid == expected.mid
                    && found.tid == expected.tid
                    && found.name == expected.name
                    && found.unit == expected.unit
                    && found.passed == expected.passed
                    && near(found.value, expected.value)
                    && near(found.min, expected.min)
                    && near(found.max, expected.max)
            });
        if !same {
            failures.push(VectorFailure {
                file: "obd/monitor-tests.toml",
                what: format!("data {}", hex::encode_upper(&vector.data)),
                expected: format!("{:?}", vector.tests),
                found: format!("{found:?}"),
            });
        }
    }
    failures
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use proptest::prelude::*;

    use super::*;

    fn bundle() -> &'static Bundle {
        static BUNDLE: LazyLock<Bundle> =
            LazyLock::new(|| Bundle::load(std::path::Path::new("firmware-protocols")).unwrap());
        &BUNDLE
    }

    fn bytes(text: &str) -> Vec<u8> {
        hex::decode(text.replace(' ', "")).unwrap()
    }

    #[test]
    fn the_shipped_tables_confirm_their_vectors() {
        let bundle = bundle();
        assert_eq!(vector_failures(bundle), []);
        assert!(bundle.monitor_tests.scalings().count() >= 90);
        // Python-OBD 0.7, test of the decoder of monitors.
        let [test] = MonitorResults::from_can(&bytes("46 01 01 0A 0B B0 0B B0 0B B0"), bundle)
            .tests
            .try_into()
            .unwrap();
        assert_eq!(test.name, "Oxygen sensor, bank 1 sensor 1: Rich to lean threshold voltage");
    }

    #[test]
    fn a_wrong_row_is_found() {
        let mut bundle = bundle().clone();
        let vector = bundle.monitor_tests.vectors.first_mut().unwrap();
        vector.tests.first_mut().unwrap().passed = false;
        assert_eq!(vector_failures(&bundle).len(), 1);
    }

    #[test]
    fn masks_fragments_and_tests_that_have_not_run_give_no_result() {
        let bundle = bundle();
        for (payload, results, not_run) in [
            ("46 00 C0 00 00 01", 0, 0),
            ("46 20 80 00 00 01 00 00 00 00", 0, 0),
            ("46 01 01 0A 0B B0", 0, 0),
            ("46 21 87 2E 00 00 00 00 00 00", 0, 1),
            ("46 01 01 0A 0B B0 0B B0 0B B0 01 05 10", 1, 0),
            ("41 01 01 0A 0B B0 0B B0 0B B0", 0, 0),
            ("46", 0, 0),
            ("", 0, 0),
        ] {
            let found = MonitorResults::from_can(&bytes(payload), bundle);
            assert_eq!((found.tests.len(), found.not_run.len()), (results, not_run), "{payload}");
        }
    }

    #[test]
    fn an_unknown_unit_is_raw_and_said() {
        let found = MonitorResults::from_can(&bytes("46 E5 90 7E 12 34 00 00 99 99"), bundle());
        let test = &found.tests[0];
        assert_eq!((test.value, test.unit.as_str(), test.passed), (4660.0, "", true));
        assert_eq!(test.name, "Monitor E5: test 90 (raw, unknown unit 7E)");
        let signed = MonitorResults::from_can(&bytes("46 E5 90 F0 FF FF 80 00 00 00"), bundle());
        assert_eq!((signed.tests[0].value, signed.tests[0].min), (-1.0, -32768.0));
    }

    #[test]
    fn older_buses() {
        // Layout: freediag scantool.c, "non continuously monitored system result".
        let maximum = older_bus_result(&bytes("46 02 01 00 64 01 00")).unwrap();
        assert_eq!((maximum.mid.as_str(), maximum.tid.as_str()), ("01", "02"));
        assert_eq!((maximum.value, maximum.min, maximum.max, maximum.passed), (100.0, 0.0, 256.0, true));
        let minimum = older_bus_result(&bytes("46 02 81 00 64 01 00")).unwrap();
        assert_eq!((minimum.min, minimum.max, minimum.passed), (256.0, 65535.0, false));
        assert_eq!(older_bus_result(&bytes("46 00 FF C0 00 00 00")), None);
        assert_eq!(older_bus_result(&bytes("46 02 01 00 64 01")), None);
    }

    #[test]
    fn oxygen_sensors_of_older_buses() {
        let bundle = bundle();
        // Porsche 996 workshop manual, mode 5: 0.440 V threshold; 0.40 s within 0.20 and 1.20 s.
        let constant = oxygen_sensor_result(&bytes("45 01 01 58"), bundle).unwrap();
        assert_eq!((constant.value, constant.max, constant.unit.as_str()), (0.44, 0.44, "V"));
        let time = oxygen_sensor_result(&bytes("45 09 01 0A 05 1E"), bundle).unwrap();
        assert_eq!((time.value, time.min, time.max, time.passed), (0.4, 0.2, 1.2, true));
        let maker = oxygen_sensor_result(&bytes("45 81 02 FF 00 10"), bundle).unwrap();
        assert_eq!((maker.value, maker.unit.as_str(), maker.passed), (255.0, "", false));
        assert!(maker.name.ends_with("(raw)"));
        assert_eq!(oxygen_sensor_result(&bytes("45 00 01 FF E0 00 00"), bundle), None);
    }

    proptest! {
        #![proptest_config(crate::seed::cases(128))]

        #[test]
        fn never_panics(mut payload in proptest::collection::vec(any::<u8>(), 0..64)) {
            let bundle = bundle();
            for service in [0x45, 0x46] {
                if let Some(first) = payload.first_mut() { *first = service; }
                let found = MonitorResults::from_can(&payload, bundle);
                prop_assert!(found.tests.len() + found.not_run.len() <= payload.len() / RESULT_BYTES);
                let _ = (older_bus_result(&payload), oxygen_sensor_result(&payload, bundle));
            }
        }

        /// An encoder that knows nothing of the decoder: whole numbers of 0.01 V, ms and signed Pa/4.
        #[test]
        fn what_an_ecu_writes_is_read(
            records in proptest::collection::vec((1_u8..0x20, any::<u8>(), 0_usize..3, any::<[i16; 3]>()), 1..5),
        ) {
            let bundle = bundle();
            let mut payload = vec![0x46];
            for (mid, tid, unit, raw) in &records {
                payload.extend([*mid, *tid, [0x0C, 0x10, 0xFE][*unit]]);
                payload.extend(raw.iter().flat_map(|raw| raw.to_be_bytes()));
            }
            let found = MonitorResults::from_can(&payload, bundle);
            let ran: Vec<_> = records.iter().filter(|(.., raw)| *raw != [0, 0, 0]).collect();
            prop_assert_eq!(found.tests.len(), ran.len());
            for (test, (mid, tid, unit, raw)) in found.tests.iter().zip(ran) {
                prop_assert_eq!(&test.mid, &format!("{mid:02X}"));
                prop_assert_eq!(&test.tid, &format!("{tid:02X}"));
                let physical = |raw: i16| match unit {
                    0 => f64::from(raw as u16) / 100.0,
                    1 => f64::from(raw as u16),
                    _ => f64::from(raw) / 4.0,
                };
                let [value, min, max] = raw.map(physical);
                prop_assert!((test.value - value).abs() < 1e-6);
                prop_assert!((test.min - min).abs() < 1e-6 && (test.max - max).abs() < 1e-6);
                prop_assert_eq!(test.passed, min <= value && value <= max);
            }
        }
    }
}
