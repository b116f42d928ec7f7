//! What a control unit's self-tests say on buses older than CAN: oxygen sensors (service 05) and
//! components (service 06), one result a message. Written from SAE J1979 §6.5 and §6.6 and the
//! layouts in freediag (`scantool.c`); shares nothing with the driver. What does not live here:
//! the results on CAN ([`super::ecu`]).

use super::ecu::{Answer, mask};

/// Tests of an oxygen sensor: sensor, test, value, and limits of what is measured. Constants
/// have none.
const SENSORS: [(u8, u8, u8, Option<[u8; 2]>); 5] = [
    // 0.45 V from rich to lean; 72 ms, at most a second; 0.1 to 0.9 V.
    (0x01, 0x01, 90, None),
    (0x01, 0x05, 18, Some([0, 250])),
    (0x01, 0x07, 20, Some([0, 60])),
    (0x01, 0x08, 180, Some([120, 255])),
    (0x02, 0x08, 150, Some([100, 255])),
];
/// Tests of components: test, component (top bit: the limit is a minimum), value, limit.
const COMPONENTS: [(u8, u8, u16, u16); 3] =
    [(0x01, 0x01, 51, 192), (0x01, 0x82, 640, 500), (0x05, 0x21, 7, 40)];

/// 05: a test of one sensor, named by its bit of PID 13; test 00 is the mask.
pub(super) fn sensor(wanted: &[u8]) -> Answer {
    let &[test, sensor] = wanted else { return Err(0x12) };
    let of_sensor = SENSORS.iter().filter(|(which, ..)| *which == sensor);
    if test == 0 {
        let mask = mask(0, |id| of_sensor.clone().any(|(_, test, ..)| *test == id)).ok_or(0x12)?;
        return Ok(vec![[&[0x45, 0, sensor], &mask[..]].concat()]);
    }
    let (_, _, value, limits) = of_sensor.clone().find(|(_, id, ..)| *id == test).ok_or(0x12)?;
    Ok(vec![[&[0x45, test, sensor, *value][..], limits.as_ref().map_or(&[][..], |limits| limits)].concat()])
}

/// 06: every component of a test, each in a message of its own; before a mask stands FF.
pub(super) fn components(wanted: &[u8]) -> Answer {
    let &[test] = wanted else { return Err(0x12) };
    if test.is_multiple_of(0x20) {
        let mask = mask(test, |id| COMPONENTS.iter().any(|(test, ..)| *test == id)).ok_or(0x12)?;
        return Ok(vec![[&[0x46, test, 0xFF], &mask[..]].concat()]);
    }
    let results = COMPONENTS.iter().filter(|(id, ..)| *id == test).map(|(_, component, value, limit)| {
        [&[0x46, test, *component][..], &value.to_be_bytes(), &limit.to_be_bytes()].concat()
    });
    let results: Vec<_> = results.collect();
    if results.is_empty() { Err(0x12) } else { Ok(results) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Layouts: SAE J1979 §6.5, §6.6; freediag `scantool.c` reads the same bytes in the same places.
    #[test]
    fn results_fit_a_message_of_these_buses() {
        for (name, answer, expected) in [
            ("sensors of one test", sensor(&[0x05, 0x01]), &["4505011200FA"][..]),
            ("a constant", sensor(&[0x01, 0x01]), &["4501015A"]),
            ("the mask of a sensor", sensor(&[0x00, 0x02]), &["45000201000000"]),
            ("two components", components(&[0x01]), &["460101003300C0", "460182028001F4"]),
            ("the mask of tests", components(&[0x00]), &["4600FF88000000"]),
        ] {
            let told: Vec<_> = answer.unwrap().iter().map(hex::encode_upper).collect();
            assert_eq!(told, expected, "{name}");
            assert!(told.iter().all(|message| message.len() <= 14), "{name}");
        }
        for nothing in [sensor(&[0x05, 0x02]), sensor(&[0x05]), components(&[0x02]), components(&[0x20])] {
            assert_eq!(nothing, Err(0x12));
        }
    }
}
