//! What drives a car, from what its control units say. Pure.

use std::collections::BTreeSet;

use crate::event::vehicle::Powertrain;

/// Below this no engine idles; a starter turns it at 150 to 300 rpm.
const RUNNING_RPM: f64 = 400.0;

/// What is known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Evidence {
    /// Fuel type: PID 51, or identifier F451 of a J1979-2 car.
    pub fuel: Option<u8>,
    /// Service 01 PIDs that any unit promises.
    pub pids: BTreeSet<u8>,
}

/// Battery charge of a hybrid or electric car (SAE J1979-DA, PID 5B), and its system data (9A).
const BATTERY_PIDS: [u8; 2] = [0x5B, 0x9A];
/// Engine speed.
const ENGINE_SPEED: u8 = 0x0C;
/// What only a combustion engine has: fuel trims, manifold pressure, air flow, oxygen
/// sensors, fuel rate. Some electric cars promise 0C for their motor.
const ENGINE_PIDS: [u8; 9] = [0x03, 0x06, 0x07, 0x0B, 0x10, 0x13, 0x14, 0x23, 0x5E];

/// The fuel type says it where it is given. Without it: a drive battery with an engine is
/// a hybrid, a battery alone an electric car, an engine alone a combustion car. A car that
/// tells nothing of all this stays unknown: silence proves nothing.
#[must_use]
pub fn detect(evidence: &Evidence) -> Powertrain {
    match evidence.fuel {
        Some(0x08) => return Powertrain::Bev,
        // 0F runs on electricity beside another fuel, 10 on both, 11 to 16 are hybrids by name.
        Some(0x0F..=0x16) => return Powertrain::Hybrid,
        // An electric car with an engine's battery PIDs beside is a hybrid that names its fuel.
        Some(0x01..=0x07 | 0x09..=0x0E | 0x17..=0x1D) => {
            return if has(evidence, &BATTERY_PIDS) { Powertrain::Hybrid } else { Powertrain::Ice };
        }
        _ => {}
    }
    let engine = evidence.pids.contains(&ENGINE_SPEED) || has(evidence, &ENGINE_PIDS);
    match (has(evidence, &BATTERY_PIDS), engine) {
        (true, true) => Powertrain::Hybrid,
        (true, false) => Powertrain::Bev,
        (false, true) => Powertrain::Ice,
        (false, false) => Powertrain::Unknown,
    }
}

fn has(evidence: &Evidence, pids: &[u8]) -> bool {
    pids.iter().any(|pid| evidence.pids.contains(pid))
}

/// Whether the engine runs. An electric car has none: unknown, not "off".
#[must_use]
pub fn engine_running(powertrain: Powertrain, rpm: Option<f64>) -> Option<bool> {
    rpm.filter(|_| powertrain != Powertrain::Bev).map(|rpm| rpm >= RUNNING_RPM)
}

/// Live PIDs sampled in the background, by what drives the car. Each question costs the
/// adapter about 50 to 200 ms. None that a lost character or two turn into a clearing of
/// codes: of `0104` two may leave `04`, of `0142` one leaves `042`, which an adapter takes
/// for service 04 with a response count. Asked for every second, it would happen one day.
#[must_use]
pub fn live_pids(powertrain: Powertrain) -> &'static [u8] {
    // Coolant, engine speed, road speed, drive battery's charge.
    match powertrain {
        Powertrain::Ice => &[0x05, 0x0C, 0x0D],
        Powertrain::Bev => &[0x0D, 0x5B],
        Powertrain::Hybrid | Powertrain::Unknown => &[0x05, 0x0C, 0x0D, 0x5B],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_drives_a_car() {
        use Powertrain::{Bev, Hybrid, Ice, Unknown};
        for (case, fuel, pids, expected) in [
            ("petrol", Some(0x01), &[0x0C, 0x06][..], Ice),
            ("diesel", Some(0x04), &[0x0C, 0x23], Ice),
            ("petrol and gas", Some(0x0C), &[0x0C], Ice),
            ("petrol hybrid that says petrol", Some(0x01), &[0x0C, 0x5B], Hybrid),
            ("hybrid by name", Some(0x11), &[0x0C], Hybrid),
            ("range extender running on electricity", Some(0x0F), &[0x0C], Hybrid),
            ("both at once", Some(0x10), &[0x0C], Hybrid),
            ("electric", Some(0x08), &[0x0D], Bev),
            ("electric with 0C for its motor", Some(0x08), &[0x0C, 0x5B], Bev),
            ("no fuel type, engine", None, &[0x0C, 0x0D], Ice),
            ("no fuel type, no engine speed, but trims", None, &[0x06, 0x0D], Ice),
            ("no fuel type, engine and battery", None, &[0x0C, 0x9A], Hybrid),
            ("no fuel type, battery only", None, &[0x5B, 0x0D], Bev),
            ("no fuel type, system data only", None, &[0x9A], Bev),
            ("fuel type not available", Some(0x00), &[0x0C], Ice),
            ("reserved fuel type", Some(0xFF), &[0x5B], Bev),
            ("J1979-2 car, F451 only", Some(0x08), &[], Bev),
            ("UDS only, nothing told", None, &[], Unknown),
            ("speed only", None, &[0x0D, 0x42], Unknown),
        ] {
            let evidence = Evidence { fuel, pids: pids.iter().copied().collect() };
            assert_eq!(detect(&evidence), expected, "{case}");
        }
    }

    #[test]
    fn an_electric_car_has_no_engine_to_be_off() {
        for (powertrain, rpm, running) in [
            (Powertrain::Ice, Some(812.5), Some(true)),
            (Powertrain::Ice, Some(250.0), Some(false)),
            (Powertrain::Ice, None, None),
            (Powertrain::Hybrid, Some(0.0), Some(false)),
            (Powertrain::Bev, Some(0.0), None),
            (Powertrain::Bev, Some(4000.0), None),
            (Powertrain::Unknown, Some(700.0), Some(true)),
        ] {
            assert_eq!(engine_running(powertrain, rpm), running, "{powertrain:?} {rpm:?}");
        }
    }

    #[test]
    fn nothing_that_lost_characters_turn_into_a_clearing() {
        let without = |text: &str, places: &[usize]| -> String {
            text.chars().enumerate().filter(|(at, _)| !places.contains(at)).map(|(_, c)| c).collect()
        };
        // A last single digit is the response count.
        let clears = |left: &str| left.len() <= 3 && (left.starts_with("04") || left.starts_with("14"));
        assert!(clears(&without("0142", &[1])) && clears(&without("0104", &[0, 1])));
        for powertrain in [Powertrain::Ice, Powertrain::Hybrid, Powertrain::Bev, Powertrain::Unknown] {
            for pid in live_pids(powertrain) {
                let text = format!("01{pid:02X}");
                for a in 0..4 {
                    assert!(!clears(&without(&text, &[a])), "{text}");
                    for b in a + 1..4 {
                        assert!(!clears(&without(&text, &[a, b])), "{text}");
                    }
                }
            }
        }
    }
}
