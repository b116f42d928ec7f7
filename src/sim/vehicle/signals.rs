//! Live values of a simulated car and how SAE J1979-DA scales them into service 01
//! bytes. Values drift around their base, always the same way for the same seed and time.

use std::collections::BTreeMap;

use super::spec::Drive;

/// One parameter: raw = (value − offset) / scale, big-endian in `bytes` bytes (SAE J1979-DA, table B).
struct Row {
    pid: u8,
    name: &'static str,
    bytes: usize,
    scale: f64,
    offset: f64,
    /// Base value with the engine warm at idle.
    running: f64,
    /// Base value with the ignition on and the engine off.
    standing: f64,
    /// How far it wanders either way while the engine runs.
    wander: f64,
}

macro_rules! rows {
    ($($pid:literal $name:literal $bytes:literal $scale:expr, $offset:expr, $running:expr, $standing:expr, $wander:expr;)*) => {
        &[$(Row { pid: $pid, name: $name, bytes: $bytes, scale: $scale, offset: $offset,
                  running: $running, standing: $standing, wander: $wander }),*]
    };
}

const PERCENT: f64 = 100.0 / 255.0;
const TRIM: f64 = 100.0 / 128.0;

//       pid  name              bytes scale offset running standing wander
const ROWS: &[Row] = rows! {
    0x04 "load"               1 PERCENT, 0.0, 18.0, 0.0, 2.0;
    0x05 "coolant"            1 1.0, -40.0, 90.0, 84.0, 1.5;
    0x06 "stft1"              1 TRIM, -100.0, 0.8, 0.0, 2.0;
    0x07 "ltft1"              1 TRIM, -100.0, 3.1, 3.1, 0.0;
    0x0B "map"                1 1.0, 0.0, 33.0, 101.0, 1.5;
    0x0C "rpm"                2 0.25, 0.0, 780.0, 0.0, 15.0;
    0x0D "speed"              1 1.0, 0.0, 0.0, 0.0, 0.0;
    0x0E "timing"             1 0.5, -64.0, 9.0, 0.0, 1.5;
    0x0F "intake"             1 1.0, -40.0, 31.0, 31.0, 0.5;
    0x10 "maf"                2 0.01, 0.0, 3.4, 0.0, 0.2;
    0x11 "throttle"           1 PERCENT, 0.0, 14.5, 16.0, 0.4;
    0x1F "run_time"           2 1.0, 0.0, 600.0, 0.0, 0.0;
    0x21 "distance_mil"       2 1.0, 0.0, 0.0, 0.0, 0.0;
    0x2E "purge"              1 PERCENT, 0.0, 6.0, 0.0, 2.0;
    0x2F "fuel"               1 PERCENT, 0.0, 62.0, 62.0, 0.0;
    0x30 "warm_ups"           1 1.0, 0.0, 120.0, 120.0, 0.0;
    0x31 "distance_clear"     2 1.0, 0.0, 8421.0, 8421.0, 0.0;
    0x33 "barometer"          1 1.0, 0.0, 101.0, 101.0, 0.0;
    0x3C "catalyst"           2 0.1, -40.0, 520.0, 180.0, 6.0;
    0x42 "module_voltage"     2 0.001, 0.0, 14.1, 12.4, 0.04;
    0x43 "absolute_load"      2 PERCENT, 0.0, 17.0, 0.0, 1.0;
    0x44 "lambda"             2 (2.0 / 65536.0), 0.0, 1.0, 1.0, 0.01;
    0x45 "relative_throttle"  1 PERCENT, 0.0, 2.0, 2.0, 0.4;
    0x46 "ambient"            1 1.0, -40.0, 24.0, 24.0, 0.0;
    0x49 "pedal_d"            1 PERCENT, 0.0, 14.9, 14.9, 0.0;
    0x4A "pedal_e"            1 PERCENT, 0.0, 7.5, 7.5, 0.0;
    0x4C "throttle_command"   1 PERCENT, 0.0, 3.0, 3.0, 0.4;
    0x4D "minutes_mil"        2 1.0, 0.0, 0.0, 0.0, 0.0;
    0x4E "minutes_clear"      2 1.0, 0.0, 7310.0, 7310.0, 0.0;
    0x5B "drive_battery"      1 PERCENT, 0.0, 62.0, 62.0, 0.0;
    0x5C "oil"                1 1.0, -40.0, 93.0, 80.0, 1.0;
    0x5E "fuel_rate"          2 0.05, 0.0, 0.8, 0.0, 0.1;
    0xA6 "odometer"           4 0.1, 0.0, 45231.0, 45231.0, 0.0;
};

/// Parameters that follow no scale: fuel system closed loop, oxygen sensors, OBD kind.
const FIXED: &[(u8, &[u8])] =
    &[(0x03, &[0x02, 0x00]), (0x13, &[0x03]), (0x15, &[0x8A, 0xFF]), (0x1C, &[0x06])];

/// What the drive battery has left; fuel type.
const DRIVE_BATTERY: u8 = 0x5B;
const FUEL: u8 = 0x51;
/// Of a battery car's unit: speed, OBD kind, voltage, ambient, fuel type, battery, odometer.
const OF_A_BATTERY_CAR: [u8; 7] = [0x0D, 0x1C, 0x42, 0x46, FUEL, DRIVE_BATTERY, 0xA6];

/// Every parameter the main unit of such a car answers, besides masks and readiness.
pub fn of(drive: Drive) -> Vec<u8> {
    let known = ROWS.iter().map(|row| row.pid).chain(FIXED.iter().map(|(pid, _)| *pid)).chain([FUEL]);
    let has = |pid: &u8| match drive {
        Drive::Ice | Drive::Diesel => *pid != DRIVE_BATTERY,
        Drive::Hybrid => true,
        Drive::Bev => OF_A_BATTERY_CAR.contains(pid),
    };
    known.filter(has).collect()
}

/// Fuel type (SAE J1979-DA, PID 51): petrol, diesel, petrol hybrid, electric.
pub fn fuel(drive: Drive) -> u8 {
    match drive {
        Drive::Ice => 0x01,
        Drive::Diesel => 0x04,
        Drive::Hybrid => 0x11,
        Drive::Bev => 0x08,
    }
}

/// Names `set` accepts.
pub fn names() -> impl Iterator<Item = &'static str> {
    ROWS.iter().map(|row| row.name)
}

/// A value that goes from one place to another and stays there.
#[derive(Debug, Clone, Copy)]
struct Held {
    from: f64,
    to: f64,
    /// Seconds after the car was made.
    since: f64,
    /// Seconds.
    over: f64,
}

impl Held {
    fn at(self, seconds: f64) -> f64 {
        let share = if self.over > 0.0 { ((seconds - self.since) / self.over).clamp(0.0, 1.0) } else { 1.0 };
        self.from + (self.to - self.from) * share
    }
}

/// The live values of one car.
#[derive(Debug, Clone)]
pub struct Signals {
    /// Values set by hand, by parameter; these do not wander.
    set: BTreeMap<u8, Held>,
    seed: u64,
    drift: bool,
}

impl Signals {
    /// Base values; `drift` lets them wander.
    #[must_use]
    pub fn new(seed: u64, drift: bool) -> Self {
        Self { set: BTreeMap::new(), seed, drift }
    }

    /// Holds a signal at a value. False: no such name.
    pub fn set(&mut self, name: &str, value: f64) -> bool {
        let row = ROWS.iter().find(|row| row.name == name);
        row.is_some_and(|row| {
            self.set.insert(row.pid, Held { from: value, to: value, since: 0.0, over: 0.0 });
            true
        })
    }

    /// Lets a signal be what it is by itself.
    pub fn release(&mut self, name: &str) {
        self.set.retain(|pid, _| !ROWS.iter().any(|row| row.pid == *pid && row.name == name));
    }

    /// Lets a signal go from where it is `now` (seconds after the car was made) to a value. False: no such name.
    pub fn drift(&mut self, name: &str, to: f64, now: f64, over: f64, running: bool) -> bool {
        let row = ROWS.iter().find(|row| row.name == name);
        row.is_some_and(|row| {
            let from = self.value(row, running, now);
            self.set.insert(row.pid, Held { from, to, since: now, over });
            true
        })
    }

    /// The bytes of a parameter, `seconds` after the car was made.
    #[must_use]
    pub fn encode(&self, pid: u8, running: bool, seconds: f64) -> Option<Vec<u8>> {
        if let Some((_, bytes)) = FIXED.iter().find(|(fixed, _)| *fixed == pid) {
            // Open loop while the engine stands.
            return Some(if pid == 0x03 && !running { vec![0x01, 0x00] } else { bytes.to_vec() });
        }
        let row = ROWS.iter().find(|row| row.pid == pid)?;
        Some(scale(row, self.value(row, running, seconds)))
    }

    fn value(&self, row: &Row, running: bool, seconds: f64) -> f64 {
        if let Some(value) = self.set.get(&row.pid) {
            return value.at(seconds);
        }
        match (running, row.name) {
            (true, "run_time") => row.running + seconds.floor(),
            (true, _) if self.drift => row.running + row.wander * self.sway(row.pid, seconds),
            (true, _) => row.running,
            (false, _) => row.standing,
        }
    }

    /// Between −1 and 1: two slow waves whose phases come from the seed.
    fn sway(&self, pid: u8, seconds: f64) -> f64 {
        let mut state = self.seed ^ (u64::from(pid) << 32);
        let mut phase = || {
            // splitmix64 (Steele et al. 2014).
            state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
            let mut z = state;
            z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            #[allow(clippy::cast_precision_loss)]
            let turn = ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64;
            turn * std::f64::consts::TAU
        };
        let (a, b) = (phase(), phase());
        0.6 * (seconds * 0.9 + a).sin() + 0.4 * (seconds * 3.7 + b).sin()
    }
}

fn scale(row: &Row, value: f64) -> Vec<u8> {
    let highest = if row.bytes >= 4 { u32::MAX } else { (1_u32 << (8 * row.bytes)) - 1 };
    let raw = ((value - row.offset) / row.scale).round().clamp(0.0, f64::from(highest));
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let raw = raw as u32;
    raw.to_be_bytes().into_iter().skip(4 - row.bytes).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Worked by hand from the formulas of SAE J1979 (also on the public OBD-II PIDs page).
    #[test]
    fn values_are_scaled_as_j1979_says() {
        for (name, value, pid, expected) in [
            ("rpm", 1726.0, 0x0C, "1AF8"), // ELM327 datasheet: "1A F8" is 1726 rpm
            ("coolant", 83.0, 0x05, "7B"), // ELM327 datasheet: "7B" is 83 °C
            ("stft1", 0.0, 0x06, "80"),
            ("ltft1", -100.0, 0x07, "00"),
            ("maf", 655.35, 0x10, "FFFF"),
            ("module_voltage", 12.6, 0x42, "3138"),
            ("odometer", 45231.0, 0xA6, "0006E6D6"),
            ("speed", 300.0, 0x0D, "FF"),
        ] {
            let mut signals = Signals::new(1, true);
            assert!(signals.set(name, value));
            assert_eq!(hex::encode_upper(signals.encode(pid, true, 0.0).unwrap()), expected, "{name}");
        }
    }

    #[test]
    fn an_ageing_sensor_goes_there_slowly_and_stays() {
        let mut signals = Signals::new(1, true);
        assert!(signals.set("coolant", 90.0) && signals.drift("coolant", 110.0, 100.0, 10.0, true));
        for (seconds, celsius) in [(100.0, 90), (105.0, 100), (110.0, 110), (500.0, 110)] {
            assert_eq!(signals.encode(0x05, true, seconds), Some(vec![celsius + 40]), "{seconds}");
        }
        assert!(!signals.drift("warp", 9.0, 0.0, 1.0, true));
    }

    #[test]
    fn the_same_seed_drifts_the_same_way() {
        let (a, b) = (Signals::new(7, true), Signals::new(7, true));
        let at = |s: &Signals, t| s.encode(0x0C, true, t);
        assert_eq!(at(&a, 12.5), at(&b, 12.5));
        assert_ne!(at(&a, 12.5), at(&a, 13.5));
        assert_ne!(at(&a, 12.5), at(&Signals::new(8, true), 12.5));
    }
}
