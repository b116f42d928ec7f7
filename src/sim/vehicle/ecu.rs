//! One control unit: what it answers to a J1979 or UDS request payload. What does
//! not live here: framing (that is [`super::isotp`] and [`super::car`]).

use std::collections::BTreeMap;
use std::time::Instant;

use super::isotp::Waiting;
use super::older;
use super::signals::Signals;
use super::spec::{Dtc, Monitor};

/// Bytes B, C and D of parameter 01 (SAE J1979-DA, PID 01).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Readiness {
    /// Byte B: continuous monitors, low nibble supported, bits 4–6 not complete, bit 3 compression ignition.
    pub continuous: u8,
    /// Byte C: once-a-trip monitors supported.
    pub supported: u8,
    /// Byte D: of these, not complete.
    pub incomplete: u8,
}

/// What the car is doing when a request arrives.
pub struct Moment<'a> {
    /// Live values.
    pub signals: &'a mut Signals,
    /// Engine turning.
    pub running: bool,
    /// Seconds since the car was made.
    pub seconds: f64,
    /// Sent to everybody: negative replies 11, 12 and 31 are then not sent (ISO 15765-4 §10).
    pub functional: bool,
    /// On CAN: count bytes before codes, several parameters a request, long messages.
    pub can: bool,
}

/// A control unit.
#[derive(Debug, Clone)]
pub struct Ecu {
    /// Name of service 09 type 0A, up to 20 characters.
    pub name: String,
    /// Identification number, where this unit knows it.
    pub vin: Option<String>,
    /// Live parameters it answers.
    pub parameters: Vec<u8>,
    /// Stored codes (service 03).
    pub confirmed: Vec<Dtc>,
    /// Codes of the current or last cycle (07).
    pub pending: Vec<Dtc>,
    /// Permanent codes (0A), which only the unit itself clears.
    pub permanent: Vec<Dtc>,
    /// Freeze frame 0: parameters stored with the first confirmed code.
    pub freeze: Option<(Dtc, BTreeMap<u8, Vec<u8>>)>,
    /// On-board monitor results (06).
    pub monitors: Vec<Monitor>,
    /// Readiness.
    pub readiness: Readiness,
    /// Calibration identifications, up to 16 characters each (09 04).
    pub calibrations: Vec<String>,
    /// Calibration verification numbers (09 06).
    pub cvns: Vec<u32>,
    /// More parameters than this in one request: `7F 01 12`.
    pub most_parameters: usize,
    /// Fuel type of parameter 51.
    pub fuel: u8,
    /// Controls of service 08, told by its masks.
    pub controls: Vec<u8>,
    /// Answers J1979 services at all (a battery car's unit may not).
    pub obd: bool,
    /// Answers UDS services 14, 19, 22, 3E.
    pub uds: bool,
    /// `7F xx 78` sent before each answer on UDS.
    pub uds_waits: u8,
    /// Confirmed codes that only UDS tells.
    pub enhanced: Vec<Dtc>,
    /// Answers identifiers F4xx on UDS.
    pub parameters_on_uds: bool,
    /// OBD on UDS: also the groups and identifiers of SAE J1979-2.
    pub j1979_2: bool,
    /// Third byte of its codes (SAE J2012-DA appendix A).
    pub failure_type: u8,
    /// Whether it knows extended data records of codes.
    pub extended_data: bool,
    /// `7F xx 78` sent before the next answer.
    pub pending_replies: u8,
    /// `7F xx 21` instead of so many answers.
    pub busy_replies: u8,
    /// At work on a question until then: busy for another.
    pub busy_until: Option<Instant>,
    /// Consecutive frames on hold.
    pub waiting: Waiting,
}

impl Ecu {
    /// Answers one request: the messages to send, in order. Empty is silence.
    pub fn answer(&mut self, request: &[u8], now: &mut Moment<'_>) -> Vec<Vec<u8>> {
        let Some((&service, rest)) = request.split_first() else { return Vec::new() };
        if self.busy_until.is_some_and(|until| Instant::now() < until) {
            return vec![vec![0x7F, service, 0x21]];
        }
        if self.busy_replies > 0 {
            self.busy_replies -= 1;
            return vec![vec![0x7F, service, 0x21]];
        }
        let answered = match service {
            0x01..=0x0A if !self.obd => Err(0x11),
            0x01 => self.live(rest, now),
            0x02 => self.frozen(rest),
            0x03 | 0x07 | 0x0A => Ok(self.codes(service, now.can)),
            0x04 => Ok(self.clear(now)),
            0x06 if now.can => self.results(rest),
            0x05 if !now.can && self.supports(0x13) => older::sensor(rest),
            0x06 if self.supports(0x13) => older::components(rest),
            0x08 => self.controls(rest),
            0x09 => self.identity(rest, now.can),
            0x14 if self.uds => self.uds_clear(rest, now),
            0x19 if self.uds => self.uds_codes(rest),
            0x22 if self.uds => self.uds_data(rest, now),
            0x3E if self.uds && rest.first() == Some(&0x80) => Ok(Vec::new()),
            0x3E if self.uds => Ok(vec![vec![0x7E, 0x00]]),
            _ => Err(0x11),
        };
        match answered {
            Ok(messages) if messages.is_empty() => messages,
            Ok(messages) => {
                let waits = self.pending_replies.max(if service >= 0x10 { self.uds_waits } else { 0 });
                let wait = std::iter::repeat_n(vec![0x7F, service, 0x78], waits.into());
                self.pending_replies = 0;
                wait.chain(messages).collect()
            }
            Err(0x11 | 0x12 | 0x31) if now.functional => Vec::new(),
            Err(code) => vec![vec![0x7F, service, code]],
        }
    }

    fn live(&self, wanted: &[u8], now: &Moment<'_>) -> Answer {
        let most = if now.can { 6 } else { 1 };
        if wanted.is_empty() || wanted.len() > most || wanted.len() > self.most_parameters {
            return Err(0x12);
        }
        let mut message = vec![0x41];
        for &pid in wanted {
            if let Some(bytes) = self.parameter(pid, now) {
                message.push(pid);
                message.extend(bytes);
            }
        }
        if message.len() == 1 { Err(0x12) } else { Ok(vec![message]) }
    }

    pub(super) fn parameter(&self, pid: u8, now: &Moment<'_>) -> Option<Vec<u8>> {
        let Readiness { continuous, supported, incomplete } = self.readiness;
        match pid {
            _ if pid.is_multiple_of(0x20) => mask(pid, |id| self.supports(id)).map(|mask| mask.to_vec()),
            0x01 => {
                let lamp = if self.confirmed.is_empty() { 0 } else { 0x80 };
                let count = u8::try_from(self.confirmed.len().min(127)).unwrap_or(127);
                Some(vec![lamp | count, continuous, supported, incomplete])
            }
            0x51 if self.supports(pid) => Some(vec![self.fuel]),
            0x41 if self.supports(pid) => Some(vec![0, continuous, supported, incomplete]),
            _ if self.supports(pid) => now.signals.encode(pid, now.running, now.seconds),
            _ => None,
        }
    }

    fn supports(&self, pid: u8) -> bool {
        pid == 0x01 || self.parameters.contains(&pid)
    }

    fn frozen(&self, wanted: &[u8]) -> Answer {
        if wanted.len() > 2 * self.most_parameters.min(3) {
            return Err(0x12);
        }
        let mut message = vec![0x42];
        for pair in wanted.chunks(2) {
            let (Some(&pid), 0) = (pair.first(), pair.get(1).copied().unwrap_or(0)) else { continue };
            let value = match &self.freeze {
                // No frame stored: parameter 02 says 0000 (J1979 §6.2).
                None if pid == 0x02 => Some(vec![0, 0]),
                None => None,
                Some((dtc, _)) if pid == 0x02 => Some(dtc.bytes().to_vec()),
                Some((_, frame)) if pid.is_multiple_of(0x20) => {
                    mask(pid, |id| id == 0x02 || frame.contains_key(&id)).map(|mask| mask.to_vec())
                }
                Some((_, frame)) => frame.get(&pid).cloned(),
            };
            if let Some(value) = value {
                message.extend([pid, 0]);
                message.extend(value);
            }
        }
        if message.len() == 1 { Err(0x12) } else { Ok(vec![message]) }
    }

    fn codes(&self, service: u8, can: bool) -> Vec<Vec<u8>> {
        let list = match service {
            0x03 => &self.confirmed,
            0x07 => &self.pending,
            _ => &self.permanent,
        };
        let bytes: Vec<u8> = list.iter().flat_map(|dtc| dtc.bytes()).collect();
        if can {
            let count = u8::try_from(list.len()).unwrap_or(u8::MAX);
            return vec![[&[service | 0x40, count], bytes.as_slice()].concat()];
        }
        // Elsewhere three codes a message, filled up with zeros, no count (J1979 §6.3).
        let filled = |chunk: &[u8]| {
            let mut message = [&[service | 0x40], chunk].concat();
            message.resize(7, 0);
            message
        };
        if bytes.is_empty() { vec![filled(&[])] } else { bytes.chunks(6).map(filled).collect() }
    }

    pub(super) fn clear(&mut self, now: &mut Moment<'_>) -> Vec<Vec<u8>> {
        self.confirmed.clear();
        self.pending.clear();
        self.freeze = None;
        self.readiness.incomplete = self.readiness.supported;
        for counter in ["distance_mil", "warm_ups", "distance_clear", "minutes_mil", "minutes_clear"] {
            now.signals.set(counter, 0.0);
        }
        vec![vec![0x44]]
    }

    fn results(&self, wanted: &[u8]) -> Answer {
        let mut message = vec![0x46];
        for &mid in wanted {
            if mid.is_multiple_of(0x20) {
                if let Some(mask) = mask(mid, |id| self.monitors.iter().any(|m| m.mid == id)) {
                    message.push(mid);
                    message.extend(mask);
                }
                continue;
            }
            for monitor in self.monitors.iter().filter(|m| m.mid == mid) {
                message.extend([mid, monitor.tid, monitor.unit]);
                for word in [monitor.value, monitor.min, monitor.max] {
                    message.extend(word.to_be_bytes());
                }
            }
        }
        if message.len() == 1 { Err(0x12) } else { Ok(vec![message]) }
    }

    /// Masks only (SAE J1979 appendix F): whoever asks for more would control something.
    fn controls(&self, wanted: &[u8]) -> Answer {
        let (&base, rest) = wanted.split_first().ok_or(0x12)?;
        if !base.is_multiple_of(0x20) || rest.iter().any(|byte| *byte != 0) || self.controls.is_empty() {
            return Err(0x12);
        }
        let mask = mask(base, |id| self.controls.contains(&id)).ok_or(0x12)?;
        Ok(vec![[&[0x48, base], &mask[..]].concat()])
    }

    fn identity(&self, wanted: &[u8], can: bool) -> Answer {
        let kind = *wanted.first().ok_or(0x12)?;
        let counted = |items: Vec<Vec<u8>>| {
            let count = u8::try_from(items.len()).unwrap_or(u8::MAX);
            (count > 0).then(|| (count, items.concat()))
        };
        let (count, data) = match kind {
            0x00 => {
                let mask = mask(0, |id| self.knows(id)).unwrap_or_default();
                // No item count before the mask on CAN (J1979 §6.9).
                return Ok(vec![if can {
                    [&[0x49, 0], &mask[..]].concat()
                } else {
                    [&[0x49, 0, 1], &mask[..]].concat()
                }]);
            }
            0x02 => self.vin.as_ref().map(|vin| (1, vin.clone().into_bytes())),
            0x04 => counted(self.calibrations.iter().map(|c| text(c, 16)).collect()),
            0x06 => counted(self.cvns.iter().map(|cvn| cvn.to_be_bytes().to_vec()).collect()),
            0x08 | 0x0B if self.knows(kind) => counted(counters(kind)),
            0x0A => Some((1, text(&self.name, 20))),
            _ => None,
        }
        .ok_or(0x12)?;
        if can {
            return Ok(vec![[&[0x49, kind, count], data.as_slice()].concat()]);
        }
        // Elsewhere four bytes a message, numbered from 1, filled up in front (J1979 §6.9).
        let fill = (4 - data.len() % 4) % 4;
        let data = [vec![0; fill], data].concat();
        Ok(data.chunks(4).zip(1_u8..).map(|(four, n)| [&[0x49, kind, n], four].concat()).collect())
    }

    /// The info types it has, on service 09 and on UDS alike.
    pub(super) fn knows(&self, kind: u8) -> bool {
        match kind {
            0x02 => self.vin.is_some(),
            0x04 => !self.calibrations.is_empty(),
            0x06 => !self.cvns.is_empty(),
            0x08 => !self.burns_diesel() && self.vin.is_some(),
            0x0B => self.burns_diesel() && self.vin.is_some(),
            0x0A => true,
            _ => false,
        }
    }

    /// Bit 3 of byte B: compression ignition.
    fn burns_diesel(&self) -> bool {
        self.readiness.continuous & 0x08 != 0
    }
}

/// In-use counters: 16 of spark ignition (J1979 info type 08), 18 of compression ignition (0B).
pub(super) fn counters(kind: u8) -> Vec<Vec<u8>> {
    let count = if kind == 0x0B { 18 } else { 16_u16 };
    (0..count).map(|n| (100 + 3 * n).to_be_bytes().to_vec()).collect()
}

/// Messages, or the code of the negative reply.
pub(super) type Answer = Result<Vec<Vec<u8>>, u8>;

/// Which of the 32 numbers after `base` exist; the last bit says that a later mask has any.
/// Nothing when neither does, except for mask 00.
pub(super) fn mask(base: u8, exists: impl Fn(u8) -> bool) -> Option<[u8; 4]> {
    let mut bits = 0_u32;
    for step in 1..=31_u8 {
        if base.checked_add(step).is_some_and(&exists) {
            bits |= 1 << (32 - u32::from(step));
        }
    }
    let later =
        base.checked_add(0x21).is_some_and(|from| (from..=0xFF).any(|id| id % 0x20 != 0 && exists(id)));
    bits |= u32::from(later);
    (bits != 0 || base == 0).then(|| bits.to_be_bytes())
}

/// Text filled up with zeros to `length`.
pub(super) fn text(text: &str, length: usize) -> Vec<u8> {
    let mut bytes = text.as_bytes().to_vec();
    bytes.resize(length, 0);
    bytes
}
