//! The car on the bus: its control units, addresses and framing, ignition and
//! battery. What does not live here: what a unit answers ([`super::ecu`]).

use std::time::{Duration, Instant};

use super::checksum::{crc8, sum};
use super::ecu::{Ecu, Moment, Readiness};
use super::isotp::{Waiting, single};
use super::signals::{self, Signals};
use super::spec::{CarSpec, Drive, Engine, MakersUnit, SpecError, healthy_monitors};

/// What the engine's unit measures itself.
const MODULE_VOLTAGE: &str = "module_voltage";
/// Requests kept for a test to look at.
const SEEN: usize = 10_000;

/// A CAN frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Identifier, 11 or 29 bits.
    pub id: u32,
    /// 29 bits.
    pub extended: bool,
    /// Up to 8 bytes.
    pub data: Vec<u8>,
}

/// A simulated car.
#[derive(Debug, Clone)]
pub struct Car {
    ecus: Vec<Ecu>,
    /// The address of the last of them, where it is the maker's own.
    makers_unit: Option<MakersUnit>,
    makers_late: Duration,
    signals: Signals,
    protocol: u8,
    engine: Engine,
    voltage: Option<f64>,
    padding: u8,
    latency: Duration,
    pending_gap: Duration,
    since: Instant,
    /// Frames from now on that no unit hears.
    missed: u32,
    /// The next answers come so much later.
    late: Duration,
    /// Request payloads that reached the bus, for tests of what must not be sent.
    seen: Vec<Vec<u8>>,
}

impl Car {
    /// Builds the car.
    ///
    /// # Errors
    /// [`SpecError`] naming what is wrong.
    pub fn new(spec: &CarSpec) -> Result<Self, SpecError> {
        if !(1..=9).contains(&spec.protocol) {
            return Err(SpecError::Protocol(spec.protocol));
        }
        if !(1..=8).contains(&spec.units) {
            return Err(SpecError::Units(spec.units.into()));
        }
        let makers = spec.makers_unit.map(|_| makers_own(spec));
        let mut car = Self {
            ecus: (0..spec.units).map(|index| unit(spec, index)).chain(makers).collect(),
            makers_unit: spec.makers_unit,
            makers_late: Duration::from_millis(spec.makers_late_ms),
            signals: Signals::new(spec.seed, spec.drift),
            protocol: spec.protocol,
            engine: spec.engine,
            voltage: spec.voltage,
            padding: spec.padding,
            latency: spec.latency(),
            pending_gap: Duration::from_millis(spec.pending_gap_ms),
            since: Instant::now(),
            missed: 0,
            late: Duration::ZERO,
            seen: Vec::new(),
        };
        car.battery(spec.voltage);
        for (name, value) in &spec.signals {
            car.set(name, *value)?;
        }
        car.freeze();
        Ok(car)
    }

    /// Stores a freeze frame for the first confirmed code, as values of a moment under load.
    fn freeze(&mut self) {
        let mut then = Signals::new(0, false);
        for (name, value) in [("rpm", 2400.0), ("speed", 64.0), ("load", 42.0), ("coolant", 88.0)] {
            then.set(name, value);
        }
        if let Some(engine) = self.ecus.first_mut() {
            engine.freeze = engine.confirmed.first().map(|dtc| {
                let parameters = [0x03, 0x04, 0x05, 0x06, 0x07, 0x0B, 0x0C, 0x0D, 0x11];
                let held = parameters.iter().filter(|parameter| engine.parameters.contains(parameter));
                let frame = held.filter_map(|&p| Some((p, then.encode(p, true, 0.0)?)));
                (*dtc, frame.collect())
            });
        }
    }

    /// Holds a live signal at a value.
    ///
    /// # Errors
    /// [`SpecError::Signal`] listing the names that exist.
    pub fn set(&mut self, name: &str, value: f64) -> Result<(), SpecError> {
        if self.signals.set(name, value) {
            return Ok(());
        }
        no_such(name)
    }

    /// Lets a live signal go slowly to a value, as a sensor that ages.
    ///
    /// # Errors
    /// [`SpecError::Signal`] listing the names that exist.
    pub fn drift(&mut self, name: &str, to: f64, over: Duration) -> Result<(), SpecError> {
        let (now, running) = (self.since.elapsed().as_secs_f64(), self.engine == Engine::Running);
        if self.signals.drift(name, to, now, over.as_secs_f64(), running) { Ok(()) } else { no_such(name) }
    }

    /// Turns the key.
    pub fn turn(&mut self, engine: Engine) {
        self.engine = engine;
    }

    /// Sets the battery's voltage; nothing: by the engine's state.
    pub fn battery(&mut self, volts: Option<f64>) {
        self.voltage = volts;
        match volts {
            Some(volts) => {
                self.signals.set(MODULE_VOLTAGE, volts);
            }
            None => self.signals.release(MODULE_VOLTAGE),
        }
    }

    /// Lets unit 0 send `7F xx 78` so many times before its next answer.
    pub fn postpone(&mut self, times: u8) {
        if let Some(engine) = self.ecus.first_mut() {
            engine.pending_replies = times;
        }
    }

    /// Of the engine's next long answer the second half is lost on the way.
    pub fn halve(&mut self) {
        if let Some(engine) = self.ecus.first_mut() {
            engine.waiting.halve();
        }
    }

    /// Its units miss the next requests, so many.
    pub fn miss(&mut self, requests: u32) {
        self.missed = requests;
    }

    /// The answers to the next request come so much later.
    pub fn delay(&mut self, late: Duration) {
        self.late = late;
    }

    /// The number of `AT SP` this car speaks.
    #[must_use]
    pub fn protocol(&self) -> u8 {
        self.protocol
    }

    /// The control units listen.
    #[must_use]
    pub fn awake(&self) -> bool {
        self.engine != Engine::Off
    }

    /// From request to first answer.
    #[must_use]
    pub fn latency(&self) -> Duration {
        self.latency
    }

    /// Volts at the socket.
    #[must_use]
    pub fn voltage(&self) -> f64 {
        self.voltage.unwrap_or(match self.engine {
            Engine::Running => 14.1,
            Engine::On => 12.4,
            Engine::Off => 12.6,
        })
    }

    /// Request payloads that reached the bus.
    #[must_use]
    pub fn seen(&self) -> &[Vec<u8>] {
        &self.seen
    }

    /// A frame on the CAN bus: what the units send back, each after its delay.
    pub fn on_frame(&mut self, frame: &Frame) -> Vec<(Duration, Frame)> {
        let mut sent = Vec::new();
        if !self.awake() {
            return sent;
        }
        if self.missed > 0 {
            self.missed -= 1;
            return sent;
        }
        if let Some(payload) = single(&frame.data) {
            self.remember(payload);
        }
        let late = std::mem::take(&mut self.late);
        for index in 0..self.ecus.len() {
            let own = self.makers_unit.filter(|_| index + 1 == self.ecus.len());
            let address = Address::of(index);
            let functional = own.is_none() && frame.id == if frame.extended { 0x18DB_33F1 } else { 0x7DF };
            let physical = frame.id == own.map_or(address.request(frame.extended), |own| own.request);
            if frame.extended != self.wide() || !(functional || physical) {
                continue;
            }
            let id = own.map_or(address.answer(frame.extended), |own| own.answer);
            let answer = |data| Frame { id, extended: frame.extended, data };
            if let Some(payload) = single(&frame.data) {
                let messages = self.ask(index, payload, functional, true);
                let Some(ecu) = self.ecus.get_mut(index) else { continue };
                for (message, turn) in messages.iter().zip(0_u32..) {
                    let first = ecu.waiting.start(message, self.padding);
                    let stagger = Duration::from_millis(2 * index as u64);
                    // On CAN what is not the first stands behind a "wait".
                    let late = late + own.map_or(Duration::ZERO, |_| self.makers_late);
                    let at = late + self.latency * (turn + 1) + self.pending_gap * turn + stagger;
                    if turn > 0 && !self.pending_gap.is_zero() {
                        ecu.busy_until = Some(Instant::now() + at);
                    }
                    sent.extend(first.map(|data| (at, answer(data))));
                }
            } else if physical && let Some(ecu) = self.ecus.get_mut(index) {
                let mut at = Duration::from_millis(1);
                for (gap, data) in ecu.waiting.flow_control(&frame.data) {
                    at += gap;
                    sent.push((at, answer(data)));
                }
            }
        }
        sent.sort_by_key(|(at, _)| *at);
        sent
    }

    /// A request on a K-line or J1850 bus: whole messages with header and checksum.
    pub fn on_line(&mut self, payload: &[u8]) -> Vec<(Duration, Vec<u8>)> {
        let mut sent = Vec::new();
        if !self.awake() {
            return sent;
        }
        self.remember(payload);
        // A maker's own unit has an arbitration ID, and none on these buses.
        for index in 0..self.ecus.len() - usize::from(self.makers_unit.is_some()) {
            let source = Address::of(index).node;
            let stagger = Duration::from_millis(2 * index as u64);
            for (message, turn) in self.ask(index, payload, true, false).into_iter().zip(1_u32..) {
                let length = u8::try_from(message.len()).unwrap_or(0x3F) & 0x3F;
                // ISO 14230-2 §4.1: format byte 10LLLLLL; ISO 9141-2 and J1850: 48/41 6B.
                let header = match self.protocol {
                    4 | 5 => [0x80 | length, 0xF1, source],
                    1 => [0x41, 0x6B, source],
                    _ => [0x48, 0x6B, source],
                };
                let mut whole = [&header[..], &message].concat();
                whole.push(if self.protocol <= 2 { crc8(&whole) } else { sum(&whole) });
                sent.push((self.latency * turn + stagger, whole));
            }
        }
        sent.sort_by_key(|(at, _)| *at);
        sent
    }

    fn ask(&mut self, index: usize, payload: &[u8], functional: bool, can: bool) -> Vec<Vec<u8>> {
        let running = self.engine == Engine::Running;
        let seconds = self.since.elapsed().as_secs_f64();
        let mut moment = Moment { signals: &mut self.signals, running, seconds, functional, can };
        self.ecus.get_mut(index).map(|ecu| ecu.answer(payload, &mut moment)).unwrap_or_default()
    }

    /// 29-bit identifiers.
    fn wide(&self) -> bool {
        matches!(self.protocol, 7 | 9)
    }

    fn remember(&mut self, payload: &[u8]) {
        if self.seen.len() < SEEN {
            self.seen.push(payload.to_vec());
        }
    }
}

fn no_such(name: &str) -> Result<(), SpecError> {
    let known = signals::names().collect::<Vec<_>>().join(", ");
    Err(SpecError::Signal { name: name.to_owned(), known })
}

/// A unit's place (ISO 15765-4 §10.3): 11 bit 7E0 + n and 7E8 + n, 29 bit 18DA node F1.
struct Address {
    index: u32,
    node: u8,
}

impl Address {
    fn of(index: usize) -> Self {
        let index = u32::try_from(index).unwrap_or(0);
        // 10 engine, 18 transmission, then onwards (SAE J2178-1 names these).
        Self { index, node: 0x10 + 8 * u8::try_from(index).unwrap_or(0) }
    }
    fn request(&self, wide: bool) -> u32 {
        if wide { 0x18DA_00F1 | u32::from(self.node) << 8 } else { 0x7E0 + self.index }
    }
    fn answer(&self, wide: bool) -> u32 {
        if wide { 0x18DA_F100 | u32::from(self.node) } else { 0x7E8 + self.index }
    }
}

fn unit(spec: &CarSpec, index: u8) -> Ecu {
    let engine = index == 0;
    let name = match index {
        0 => "ECM\0-EngineControl".to_owned(),
        1 => "TCM\0-TransmisCtrl".to_owned(),
        n => format!("ECU{n}\0"),
    };
    let bev = spec.drive == Drive::Bev;
    let parameters = match (engine, bev) {
        (true, true) => signals::of(spec.drive),
        (true, false) => [signals::of(spec.drive), vec![0x41]].concat(),
        (false, true) => vec![0x0D, 0x1C],
        (false, false) => vec![0x0C, 0x0D, 0x1C],
    };
    let list = |codes: &Vec<_>| if engine { codes.clone() } else { Vec::new() };
    Ecu {
        name,
        vin: spec.vin.clone().filter(|_| engine),
        parameters,
        confirmed: list(&spec.confirmed),
        pending: list(&spec.pending),
        permanent: list(&spec.permanent),
        freeze: None,
        monitors: if engine && !bev {
            spec.monitors.clone().unwrap_or_else(healthy_monitors)
        } else {
            Vec::new()
        },
        readiness: match spec.drive {
            _ if !engine || bev => Readiness { continuous: 0x04, supported: 0, incomplete: 0 },
            Drive::Diesel => {
                Readiness { continuous: 0x0F, supported: 0xEB, incomplete: spec.incomplete & 0xEB }
            }
            _ => Readiness { continuous: 0x07, supported: 0x65, incomplete: spec.incomplete & 0x65 },
        },
        calibrations: vec![if engine { "37805-5AA-C710".into() } else { format!("28101-5LJ-{index}020") }],
        cvns: vec![0x1791_BC82 ^ u32::from(index)],
        most_parameters: spec.most_parameters,
        fuel: signals::fuel(spec.drive),
        controls: if engine && !bev { vec![0x01] } else { Vec::new() },
        obd: spec.obd,
        uds: spec.uds,
        uds_waits: spec.uds_waits,
        enhanced: list(&spec.enhanced),
        // OBD on UDS for battery cars (SAE J1979-3).
        parameters_on_uds: spec.obd || spec.j1979_2 || bev,
        j1979_2: spec.j1979_2,
        failure_type: spec.failure_type,
        extended_data: spec.extended_data,
        pending_replies: 0,
        busy_replies: if engine { spec.busy_replies } else { 0 },
        busy_until: None,
        waiting: Waiting::default(),
    }
}

/// Nothing of J1979: a unit of comfort or a drive battery, which tells what it is.
fn makers_own(spec: &CarSpec) -> Ecu {
    Ecu {
        name: "GWY\0".into(),
        obd: false,
        parameters_on_uds: false,
        enhanced: spec.makers_codes.clone(),
        ..unit(spec, spec.units)
    }
}
