//! What a control unit answers to UDS (ISO 14229-1) and, where it is built so, to OBD on
//! UDS (SAE J1979-2): services 14, 19 and 22 in the default session. What does not live here:
//! which unit is asked and how it is framed ([`super::car`]), and J1979 ([`super::ecu`]).

use super::ecu::{Answer, Ecu, Moment, counters, mask, text};
use super::spec::Dtc;

/// Confirmed, with lamp, failed since clearing; in this cycle it has not failed.
const CONFIRMED: u8 = 0xA8;
/// Pending: failed now, in this cycle and since clearing. As service 07 says.
const PENDING: u8 = 0x27;
/// Known and in order: tested since clearing, nothing found.
const IN_ORDER: u8 = 0x00;
/// Known, and its test has not run, neither since clearing nor in this cycle.
const NOT_TESTED: u8 = 0x50;
/// What an engine's unit tests beside the codes it has stored; the first needs the catalyst's monitor.
const TESTED: [[u8; 2]; 4] = [[0x04, 0x20], [0x01, 0x71], [0x03, 0x00], [0x04, 0x42]];
/// All emissions units (SAE J1979-2, functional group 33).
const EMISSIONS: u8 = 0x33;
/// How SAE J1979-2 marks codes of two bytes and a failure type.
const J2012_04: u8 = 0x04;
/// Severity class A (ISO 14229-1 annex D.3).
const CLASS_A: u8 = 0x02;

impl Ecu {
    /// ISO 14229-1 §12.2: all groups, or (J1979-2) the emissions group.
    pub(super) fn uds_clear(&mut self, wanted: &[u8], now: &mut Moment<'_>) -> Answer {
        match wanted {
            [0xFF, 0xFF, 0xFF | EMISSIONS] => {
                if now.running {
                    return Err(0x22);
                }
                if *wanted == [0xFF, 0xFF, 0xFF] {
                    self.enhanced.clear();
                }
                self.clear(now);
                Ok(vec![vec![0x54]])
            }
            [_, _, _] => Err(0x31),
            _ => Err(0x13),
        }
    }

    fn stored(&self) -> Vec<([u8; 3], u8)> {
        let three = |dtc: &Dtc| {
            let [high, low] = dtc.bytes();
            [high, low, self.failure_type]
        };
        let status = |dtc: &Dtc, first| first | if self.pending.contains(dtc) { PENDING } else { 0 };
        let confirmed = self.confirmed.iter().map(|dtc| (three(dtc), status(dtc, CONFIRMED)));
        let pending = self.pending.iter().filter(|dtc| !self.confirmed.contains(dtc));
        let enhanced = self.enhanced.iter().map(|dtc| (three(dtc), CONFIRMED));
        confirmed.chain(pending.map(|dtc| (three(dtc), PENDING))).chain(enhanced).collect()
    }

    /// ISO 14229-1 §12.3: 01 count, 02 by status, 04 snapshot, 06 extended data, 0A all it
    /// knows; 42, 55 and 56 only where it is a J1979-2 unit.
    pub(super) fn uds_codes(&self, wanted: &[u8]) -> Answer {
        let stored = self.stored();
        let flat = |codes: &[([u8; 3], u8)]| -> Vec<u8> {
            codes.iter().flat_map(|(dtc, status)| [&dtc[..], &[*status]].concat()).collect()
        };
        match wanted {
            [] => Err(0x13),
            [0x01, wanted] => {
                let count = stored.iter().filter(|(_, status)| status & wanted != 0).count();
                let [high, low] = u16::try_from(count).unwrap_or(u16::MAX).to_be_bytes();
                Ok(vec![vec![0x59, 0x01, 0xFF, 0x01, high, low]])
            }
            [0x02, wanted] => {
                let chosen: Vec<_> = stored.into_iter().filter(|(_, status)| status & wanted != 0).collect();
                Ok(vec![[&[0x59, 0x02, 0xFF], flat(&chosen).as_slice()].concat()])
            }
            [0x0A] => {
                let known = |code: &&[u8; 2]| stored.iter().any(|(dtc, _)| dtc.starts_with(&code[..]));
                let others = TESTED.iter().filter(|code| !known(code)).map(|code| {
                    let status = if *code == TESTED[0] { self.catalyst() } else { IN_ORDER };
                    ([code[0], code[1], self.failure_type], status)
                });
                let all: Vec<_> = stored.iter().copied().chain(others).collect();
                Ok(vec![[&[0x59, 0x0A, 0xFF], flat(&all).as_slice()].concat()])
            }
            [0x06, ..] if !self.extended_data => Err(0x12),
            [kind @ (0x04 | 0x06), a, b, c, record] => {
                let (dtc, status) = *stored.iter().find(|(dtc, _)| dtc == &[*a, *b, *c]).ok_or(0x31)?;
                let head = [&[0x59, *kind], &dtc[..], &[status]].concat();
                let records =
                    if *kind == 0x04 { self.snapshot([*a, *b], *record) } else { extended(*record) };
                Ok(vec![[head, records].concat()])
            }
            [0x42, EMISSIONS, status, severity] if self.j1979_2 => {
                let mut message = vec![0x59, 0x42, EMISSIONS, 0xFF, 0xFF, J2012_04];
                for (dtc, of) in stored.iter().filter(|(_, of)| of & status != 0 && CLASS_A & severity != 0) {
                    message.push(CLASS_A);
                    message.extend(dtc);
                    message.push(*of);
                }
                Ok(vec![message])
            }
            [0x55, EMISSIONS] if self.j1979_2 => {
                let mut message = vec![0x59, 0x55, EMISSIONS, 0xFF, J2012_04];
                for dtc in &self.permanent {
                    let now = if self.confirmed.contains(dtc) { CONFIRMED } else { IN_ORDER };
                    message.extend(dtc.bytes());
                    message.extend([self.failure_type, now]);
                }
                Ok(vec![message])
            }
            [0x56, EMISSIONS, group @ (0x01 | 0x02)] if self.j1979_2 => {
                let mut message = vec![0x59, 0x56, EMISSIONS, 0xFF, J2012_04, *group];
                match group {
                    0x01 => message.extend([0x04, 0x20, 0x00, self.catalyst()]),
                    _ => message.extend([0x03, 0x00, 0x00, IN_ORDER]),
                }
                Ok(vec![message])
            }
            [0x42 | 0x55 | 0x56, ..] if self.j1979_2 => Err(0x31),
            [0x01 | 0x02 | 0x04 | 0x06 | 0x0A, ..] => Err(0x13),
            _ => Err(0x12),
        }
    }

    /// The status of a code that is not stored and belongs to the catalyst's monitor.
    fn catalyst(&self) -> u8 {
        if self.readiness.incomplete & 0x01 == 0 { IN_ORDER } else { NOT_TESTED }
    }

    /// Record 1: what the freeze frame of that code holds of speed, coolant and engine speed.
    fn snapshot(&self, code: [u8; 2], record: u8) -> Vec<u8> {
        let of_code = self.freeze.as_ref().filter(|(dtc, _)| dtc.bytes() == code);
        let Some((_, frame)) = of_code.filter(|_| matches!(record, 0x01 | 0xFF)) else {
            return Vec::new();
        };
        let held: Vec<_> =
            [0x0C, 0x05, 0x0D].iter().filter_map(|pid| Some((*pid, frame.get(pid)?))).collect();
        let mut bytes = vec![0x01, u8::try_from(held.len()).unwrap_or(0)];
        for (pid, value) in held {
            bytes.extend([0xF4, pid]);
            bytes.extend(value);
        }
        bytes
    }

    /// ISO 14229-1 §11.2 and its annex C.1 (identification F18x, F19x); SAE J1979-2: F4xx
    /// parameters, F6xx monitor results, F8xx vehicle information.
    pub(super) fn uds_data(&self, wanted: &[u8], now: &Moment<'_>) -> Answer {
        if wanted.len() > 2 * self.most_parameters {
            return Err(0x13);
        }
        let mut message = vec![0x62];
        for id in wanted.chunks(2) {
            let &[high, low] = id else { return Err(0x13) };
            if let Some(value) = self.record(high, low, now) {
                message.extend(id);
                message.extend(value);
            }
        }
        if message.len() == 1 { Err(0x31) } else { Ok(vec![message]) }
    }

    fn record(&self, high: u8, low: u8, now: &Moment<'_>) -> Option<Vec<u8>> {
        let calibration = || self.calibrations.first().cloned().unwrap_or_default().into_bytes();
        match (high, low) {
            (0xF1, 0x87) => Some(calibration()),
            (0xF1, 0x89) => Some(b"SW0412".to_vec()),
            (0xF1, 0x8C) => Some(b"SN00081523".to_vec()),
            (0xF1, 0x90) => self.vin.clone().map(String::into_bytes),
            (0xF1, 0x91) => Some(b"HW02".to_vec()),
            (0xF1, 0x95) => Some(b"0412".to_vec()),
            (0xF1, 0x97) => Some(self.name.clone().into_bytes()),
            (0xF4, pid) if self.parameters_on_uds => self.parameter(pid, now),
            (0xF6, mid) if self.j1979_2 && mid.is_multiple_of(0x20) => {
                mask(mid, |id| self.monitors.iter().any(|m| m.mid == id)).map(|mask| mask.to_vec())
            }
            (0xF6, mid) if self.j1979_2 => {
                let results: Vec<u8> = self
                    .monitors
                    .iter()
                    .filter(|m| m.mid == mid)
                    .flat_map(|m| {
                        let words = [m.value, m.min, m.max].map(u16::to_be_bytes).concat();
                        [vec![m.tid, m.unit], words].concat()
                    })
                    .collect();
                (!results.is_empty()).then_some(results)
            }
            (0xF8, 0x00) if self.j1979_2 => mask(0, |id| self.knows(id)).map(|mask| mask.to_vec()),
            (0xF8, 0x02) if self.j1979_2 => self.vin.clone().map(String::into_bytes),
            (0xF8, 0x04) if self.j1979_2 => {
                Some(self.calibrations.iter().flat_map(|c| text(c, 16)).collect())
            }
            (0xF8, 0x06) if self.j1979_2 => {
                Some(self.cvns.iter().flat_map(|cvn| cvn.to_be_bytes()).collect())
            }
            (0xF8, kind @ (0x08 | 0x0B)) if self.j1979_2 && self.knows(kind) => Some(counters(kind).concat()),
            (0xF8, 0x0A) if self.j1979_2 => Some(text(&self.name, 20)),
            _ => None,
        }
    }
}

/// Record 1: occurrences; record 2: cycles since the last failure; FF: both.
fn extended(record: u8) -> Vec<u8> {
    match record {
        0x01 => vec![0x01, 0x03],
        0x02 => vec![0x02, 0x11],
        0xFF => vec![0x01, 0x03, 0x02, 0x11],
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use crate::sim::vehicle::{Car, CarSpec, Engine, Frame};

    fn ask(car: &mut Car, id: u32, request: &[u8]) -> Vec<Vec<u8>> {
        let mut data = vec![u8::try_from(request.len()).unwrap()];
        data.extend(request);
        data.resize(8, 0);
        car.on_frame(&Frame { id, extended: false, data }).into_iter().map(|(_, frame)| frame.data).collect()
    }

    fn battery_car() -> CarSpec {
        CarSpec {
            obd: false,
            confirmed: vec!["P0A9B".parse().unwrap()],
            failure_type: 0x17,
            ..CarSpec::default()
        }
    }

    /// Against ISO 14229-1's own examples: the code 0A9B17 and the form of 59 02.
    #[test]
    fn a_battery_car_is_silent_to_j1979_and_tells_its_codes() {
        let mut car = Car::new(&battery_car()).unwrap();
        assert_eq!(ask(&mut car, 0x7DF, &[0x01, 0x00]), Vec::<Vec<u8>>::new());
        assert_eq!(
            ask(&mut car, 0x7E0, &[0x19, 0x02, 0x08]),
            [[0x07, 0x59, 0x02, 0xFF, 0x0A, 0x9B, 0x17, 0xA8]]
        );
        assert_eq!(
            ask(&mut car, 0x7E0, &[0x19, 0x42, 0x33, 0x08, 0x1E]),
            [[0x03, 0x7F, 0x19, 0x12, 0, 0, 0, 0]]
        );
        assert_eq!(ask(&mut car, 0x7E0, &[0x22, 0xF4, 0x0C])[0][..4], [0x03, 0x7F, 0x22, 0x31]);
    }

    /// Against a bench capture of a WWH-OBD unit (format 04, status, severity before the code).
    #[test]
    fn a_j1979_2_unit_tells_groups() {
        let spec = CarSpec {
            j1979_2: true,
            engine: Engine::On,
            confirmed: vec!["P0420".parse().unwrap()],
            permanent: vec!["P0420".parse().unwrap()],
            ..CarSpec { units: 1, ..CarSpec::default() }
        };
        let mut car = Car::new(&spec).unwrap();
        let first = ask(&mut car, 0x7DF, &[0x19, 0x42, 0x33, 0x08, 0x1E]);
        assert_eq!(first[0], [0x10, 0x0B, 0x59, 0x42, 0x33, 0xFF, 0xFF, 0x04]);
        assert_eq!(
            ask(&mut car, 0x7DF, &[0x19, 0x55, 0x33])[0][..7],
            [0x10, 0x09, 0x59, 0x55, 0x33, 0xFF, 0x04]
        );
        assert_eq!(ask(&mut car, 0x7DF, &[0x14, 0xFF, 0xFF, 0x33]), [[0x01, 0x54, 0, 0, 0, 0, 0, 0]]);
        assert_eq!(
            ask(&mut car, 0x7DF, &[0x19, 0x42, 0x33, 0x08, 0x1E])[0][..7],
            [0x06, 0x59, 0x42, 0x33, 0xFF, 0xFF, 0x04]
        );
    }

    #[test]
    fn nothing_is_cleared_while_the_engine_runs() {
        let mut car = Car::new(&CarSpec::default()).unwrap();
        assert_eq!(ask(&mut car, 0x7E0, &[0x14, 0xFF, 0xFF, 0xFF])[0][..4], [0x03, 0x7F, 0x14, 0x22]);
    }
}
