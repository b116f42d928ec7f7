//! Samples of live values to windows of minimum, maximum, mean. Pure.

use std::collections::BTreeMap;

use crate::clock::UtcMillis;
use crate::event::vehicle::{PidValue, SignalWindow};

/// Live PIDs sampled in the background: coolant, engine speed, road speed, control module
/// voltage. A handful: each question costs the adapter about 50 to 200 ms. Not engine load
/// (04): asked for every second, a serial line that swallowed two characters of `0104` would
/// one day clear the car's codes.
pub const LIVE_PIDS: [u8; 4] = [0x05, 0x0C, 0x0D, 0x42];
/// Signals a window can hold; more are not sampled by anybody.
const MAX_SIGNALS: usize = 64;

/// Collects samples until the window is taken.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Window {
    from: Option<UtcMillis>,
    to: Option<UtcMillis>,
    signals: BTreeMap<String, Sums>,
}

#[derive(Debug, Clone, PartialEq)]
struct Sums {
    unit: String,
    min: f64,
    max: f64,
    sum: f64,
    last: f64,
    count: u64,
}

impl Window {
    /// Takes a sample; texts are not sampled.
    pub fn add(&mut self, value: &PidValue, time: UtcMillis) {
        if let Some(number) = value.value.as_f64() {
            self.add_number(&value.name, &value.unit, number, time);
        }
    }

    /// Takes a number.
    pub fn add_number(&mut self, name: &str, unit: &str, number: f64, time: UtcMillis) {
        if !number.is_finite() || self.signals.len() >= MAX_SIGNALS && !self.signals.contains_key(name) {
            return;
        }
        self.from.get_or_insert(time);
        self.to = Some(time);
        let sums = self.signals.entry(name.to_owned()).or_insert_with(|| Sums {
            unit: unit.to_owned(),
            min: number,
            max: number,
            sum: 0.0,
            last: number,
            count: 0,
        });
        sums.min = sums.min.min(number);
        sums.max = sums.max.max(number);
        sums.sum += number;
        sums.last = number;
        sums.count += 1;
    }

    /// Ends the window: first and last sample's time and the signals. `None` when there was no sample.
    #[allow(clippy::cast_precision_loss)] // a window holds some thousand samples
    pub fn take(&mut self) -> Option<(UtcMillis, UtcMillis, Vec<SignalWindow>)> {
        let taken = std::mem::take(self);
        let signals = taken
            .signals
            .into_iter()
            .map(|(name, sums)| SignalWindow {
                name,
                unit: sums.unit,
                min: sums.min,
                max: sums.max,
                mean: (sums.sum / sums.count as f64 * 1e3).round() / 1e3,
                last: sums.last,
                count: sums.count,
            })
            .collect();
        Some((taken.from?, taken.to?, signals))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_sums_up_and_begins_anew() {
        let mut window = Window::default();
        assert_eq!(window.take(), None);
        for (time, rpm) in [(1, 800.0), (2, 1000.0), (3, 900.0)] {
            window.add_number("engine_speed", "rpm", rpm, UtcMillis(time));
        }
        window.add_number("engine_speed", "rpm", f64::NAN, UtcMillis(4));
        let (from, to, signals) = window.take().unwrap();
        assert_eq!((from, to), (UtcMillis(1), UtcMillis(3)));
        let expected = SignalWindow {
            name: "engine_speed".into(),
            unit: "rpm".into(),
            min: 800.0,
            max: 1000.0,
            mean: 900.0,
            last: 900.0,
            count: 3,
        };
        assert_eq!(signals, [expected]);
        assert_eq!(window.take(), None);
    }
}
