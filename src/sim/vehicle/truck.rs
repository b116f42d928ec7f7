//! A simulated truck's J1939 bus: what its units broadcast, and what they tell when a tool
//! asks everybody. Written from J1939-21 and -73; shares nothing with the driver.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde::Deserialize;

use super::car::Frame;

/// Between two calls of [`Truck::tick`].
pub(super) const TICK: Duration = Duration::from_millis(20);
/// Between the packets of a broadcast message (J1939-21 §5.10.2.1: 50 to 200 ms).
const PACKET_GAP: Duration = Duration::from_millis(50);

/// A suspect parameter and how it fails.
pub type Fault = (u32, u8);

/// A control unit.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TruckUnit {
    /// Its source address.
    pub source: u8,
    /// Codes of DM1.
    pub active: Vec<Fault>,
    /// Codes of DM2.
    pub before: Vec<Fault>,
    /// The malfunction indicator is lit.
    pub lamp: bool,
    /// The packet with this number, of each message of several, is lost on the way.
    pub loses_packet: Option<u8>,
}

/// The bus of a truck.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Truck {
    /// Its units.
    pub units: Vec<TruckUnit>,
    /// What the engine says when asked for the vehicle's number.
    pub vin: Option<String>,
    /// The car's units answer OBD on the same bus.
    pub(super) obd: bool,
    #[serde(skip)]
    ticks: u32,
    /// By source: until when it sends a message of several packets. A unit has one at a time
    /// (J1939-21 §5.10.2); the next one waits.
    #[serde(skip)]
    busy: BTreeMap<u8, Instant>,
}

impl Truck {
    /// A truck of these units.
    #[must_use]
    pub fn new(units: Vec<TruckUnit>, vin: Option<&str>) -> Self {
        Self { units, vin: vin.map(str::to_owned), ..Self::default() }
    }

    /// An engine with low oil pressure now and a coolant that was too hot, and brakes without codes
    /// (J1939-71: SPN 100, 110; J1939-73: FMI 1 and 0, addresses 00 and 0B).
    #[must_use]
    pub fn usual(vin: Option<&str>) -> Self {
        let engine =
            TruckUnit { active: vec![(100, 1)], before: vec![(110, 0)], lamp: true, ..TruckUnit::default() };
        Self::new(vec![engine, TruckUnit { source: 0x0B, ..TruckUnit::default() }], vin)
    }

    /// The same, with units that answer OBD on the same bus.
    #[must_use]
    pub fn with_obd(self) -> Self {
        Self { obd: true, ..self }
    }

    /// What the units broadcast now, each frame after its delay: engine speed (EEC1) every
    /// 100 ms, DM1 every second.
    pub(super) fn tick(&mut self) -> Vec<(Duration, Frame)> {
        self.ticks = self.ticks.wrapping_add(1);
        let mut sent = Vec::new();
        if self.ticks.is_multiple_of(5) {
            let data = vec![0xF0, 0xFF, 0x7D, 0x80, 0x25, 0xFF, 0xFF, 0xFF];
            sent.push((Duration::ZERO, Frame { id: 0x0CF0_0400, extended: true, data }));
        }
        if self.ticks % 50 == 10 {
            for unit in self.units.clone() {
                sent.extend(self.say(0xFECA, unit.source, codes(&unit.active, unit.lamp)));
            }
        }
        sent
    }

    /// A frame of a tool: a request of PGN 59904 to all is answered, all else is ignored.
    pub(super) fn on_frame(&mut self, frame: &Frame) -> Vec<(Duration, Frame)> {
        let asked = match (frame.extended, frame.id >> 8, frame.data.as_slice()) {
            (true, 0x0018_EAFF, [low, high, 0]) => u16::from_le_bytes([*low, *high]),
            _ => return Vec::new(),
        };
        match asked {
            0xFECB => {
                let units = self.units.clone().into_iter();
                units.flat_map(|unit| self.say(0xFECB, unit.source, codes(&unit.before, false))).collect()
            }
            0xFEEC => {
                let number = self.vin.as_ref().map(|vin| format!("{vin}*").into_bytes());
                number.map(|number| self.say(0xFEEC, 0, number)).unwrap_or_default()
            }
            _ => Vec::new(),
        }
    }

    /// A message of a unit, behind the one it is sending.
    fn say(&mut self, group: u16, source: u8, data: Vec<u8>) -> Vec<(Duration, Frame)> {
        let mut frames = told(group, source, data);
        let Some(lasts) = frames.last().map(|(after, _)| *after).filter(|lasts| !lasts.is_zero()) else {
            return frames;
        };
        let now = Instant::now();
        let begin = self.busy.get(&source).map_or(now, |until| now.max(*until));
        self.busy.insert(source, begin + lasts + PACKET_GAP);
        frames.iter_mut().for_each(|(after, _)| *after += begin - now);
        let lost = self.units.iter().find(|unit| unit.source == source).and_then(|unit| unit.loses_packet);
        // Behind the announcement.
        if let Some(lost) = lost.map(usize::from).filter(|lost| (1..frames.len()).contains(lost)) {
            frames.remove(lost);
        }
        frames
    }
}

/// Lamps and codes; none: all zero (J1939-73 §5.7.1).
fn codes(faults: &[Fault], lamp: bool) -> Vec<u8> {
    let mut data = vec![if lamp { 0x40 } else { 0 }, 0xFF];
    if faults.is_empty() {
        data.extend([0; 4]);
    }
    for (spn, fmi) in faults {
        let [low, middle, high, _] = spn.to_le_bytes();
        data.extend([low, middle, high << 5 | fmi & 0x1F, 1]);
    }
    data
}

/// A message to all: one frame, or announced and cut into packets of seven bytes.
fn told(group: u16, source: u8, mut data: Vec<u8>) -> Vec<(Duration, Frame)> {
    let frame = |id: u32, data: Vec<u8>| Frame { id: id | u32::from(source), extended: true, data };
    if data.len() <= 8 {
        data.resize(8, 0xFF);
        return vec![(Duration::ZERO, frame(0x1800_0000 | u32::from(group) << 8, data))];
    }
    let [low, high] = u16::try_from(data.len()).unwrap_or(u16::MAX).to_le_bytes();
    let count = u8::try_from(data.len().div_ceil(7)).unwrap_or(u8::MAX);
    let [group_low, group_high] = group.to_le_bytes();
    let announced = vec![0x20, low, high, count, 0xFF, group_low, group_high, 0];
    let mut frames = vec![(Duration::ZERO, frame(0x18EC_FF00, announced))];
    for (packet, number) in data.chunks(7).zip(1_u8..=255) {
        let mut bytes = vec![number];
        bytes.extend_from_slice(packet);
        bytes.resize(8, 0xFF);
        frames.push((PACKET_GAP * u32::from(number), frame(0x18EB_FF00, bytes)));
    }
    frames
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Source: j1939-84's DM1 of SPN 609 FMI 19, 1569 FMI 31, 4334 FMI 4.
    #[test]
    fn messages_are_cut_as_the_standard_does() {
        let mut truck = Truck::new(
            vec![TruckUnit {
                source: 0x3D,
                before: vec![(609, 19), (1569, 31), (4334, 4)],
                ..TruckUnit::default()
            }],
            None,
        );
        let request = Frame { id: 0x18EA_FFF9, extended: true, data: vec![0xCB, 0xFE, 0] };
        let frames = truck.on_frame(&request);
        let lines: Vec<_> =
            frames.iter().map(|(_, f)| format!("{:08X} {}", f.id, hex::encode_upper(&f.data))).collect();
        assert_eq!(
            lines,
            ["18ECFF3D 200E0002FFCBFE00", "18EBFF3D 0100FF6102130121", "18EBFF3D 02061F01EE100401"]
        );
        let clear = Frame { data: vec![0xD3, 0xFE, 0], ..request };
        assert!(truck.on_frame(&clear).is_empty());
    }
}
