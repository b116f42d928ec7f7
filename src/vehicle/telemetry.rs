//! Samples of live values to windows of minimum, maximum, mean. Pure.

use std::collections::BTreeMap;

use crate::clock::UtcMillis;
use crate::event::vehicle::{PidValue, SignalWindow};

/// Live PIDs of a car of which nothing is known (`powertrain::live_pids` chooses for the others).
pub const LIVE_PIDS: [u8; 4] = [0x05, 0x0C, 0x0D, 0x5B];
/// Signals a window can hold; more are not sampled.
const MAX_SIGNALS: usize = 512;
/// Longest name of a signal that is told, in bytes, and longest unit: what makes signal
/// sets and databases may write has no limit of its own.
const MAX_NAME: usize = 96;
const MAX_UNIT: usize = 32;
/// Bytes of signals in one event: the log takes telemetry events of 17 KiB (decision 001);
/// its own share of the envelope is 1 KiB, ids, times, order and link take below 1 KiB.
const SIGNAL_BYTES: usize = 15 * 1024;
/// The keys of one signal and its five numbers, 24 characters each.
const NUMBERS_BYTES: usize = 64 + 5 * 24;

/// Collects samples until the window is taken.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Window {
    from: Option<UtcMillis>,
    to: Option<UtcMillis>,
    signals: BTreeMap<String, (String, Sums)>,
}

/// A window that has ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Taken {
    /// First sample.
    pub from: UtcMillis,
    /// Last sample.
    pub to: UtcMillis,
    /// By name.
    pub signals: Vec<SignalWindow>,
}

/// Minimum, maximum, mean, last and count of one signal's samples.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sums {
    min: f64,
    max: f64,
    mean: f64,
    last: f64,
    count: u64,
}

impl Sums {
    /// The first sample.
    #[must_use]
    pub fn begin(number: f64) -> Self {
        Self { min: number, max: number, mean: number, last: number, count: 1 }
    }

    /// The next sample.
    #[expect(clippy::cast_precision_loss, reason = "a window holds some million samples")]
    pub fn add(&mut self, number: f64) {
        self.count += 1;
        self.min = self.min.min(number);
        self.max = self.max.max(number);
        self.last = number;
        // Each part stays below the largest sample: no sum that overflows, and no
        // difference either. Rounding may leave the limits by the last digit.
        let share = 1.0 / self.count as f64;
        self.mean = (self.mean * (1.0 - share) + number * share).clamp(self.min, self.max);
    }

    /// As it is told.
    #[must_use]
    pub fn window(&self, name: String, unit: String) -> SignalWindow {
        let Self { min, max, mean, last, count } = *self;
        SignalWindow { name, unit, min, max, mean: rounded(mean, min, max), last, count }
    }
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
        if !number.is_finite() {
            return;
        }
        if let Some((_, sums)) = self.signals.get_mut(name) {
            sums.add(number);
        } else if self.signals.len() < MAX_SIGNALS {
            self.signals.insert(name.to_owned(), (unit.to_owned(), Sums::begin(number)));
        } else {
            return;
        }
        // The wall clock may be set back in between.
        self.from = Some(self.from.map_or(time, |from| from.min(time)));
        self.to = Some(self.to.map_or(time, |to| to.max(time)));
    }

    /// Ends the window. `None` when there was no sample.
    pub fn take(&mut self) -> Option<Taken> {
        let taken = std::mem::take(self);
        let signals = taken.signals.into_iter().map(|(name, (unit, sums))| sums.window(name, unit)).collect();
        Some(Taken { from: taken.from?, to: taken.to?, signals })
    }
}

/// A window's signals in parts that fit an event each, in their order.
#[must_use]
pub fn parts(signals: Vec<SignalWindow>) -> Vec<Vec<SignalWindow>> {
    let (mut parts, mut part, mut bytes) = (Vec::new(), Vec::new(), 0);
    for mut signal in signals {
        shorten(&mut signal.name, MAX_NAME);
        shorten(&mut signal.unit, MAX_UNIT);
        // A character takes at most six bytes as JSON escapes it, for one of its own.
        let escaped = |text: &str| serde_json::to_string(text).map_or(6 * text.len(), |json| json.len());
        let takes = escaped(&signal.name) + escaped(&signal.unit) + NUMBERS_BYTES;
        if bytes + takes > SIGNAL_BYTES {
            parts.push(std::mem::take(&mut part));
            bytes = 0;
        }
        bytes += takes;
        part.push(signal);
    }
    parts.push(part);
    parts.retain(|part| !part.is_empty());
    parts
}

fn shorten(text: &mut String, most: usize) {
    let end = (0..=most.min(text.len())).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    text.truncate(end);
}

/// Six significant digits are more than any sensor has, as long as they stay within the samples.
fn rounded(mean: f64, min: f64, max: f64) -> f64 {
    const DIGITS: f64 = 6.0;
    if mean == 0.0 {
        return mean;
    }
    let scale = 10_f64.powf(DIGITS - 1.0 - mean.abs().log10().floor());
    let rounded = (mean * scale).round() / scale;
    if rounded.is_finite() { rounded.clamp(min, max) } else { mean }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_window_sums_up_and_begins_anew() {
        let mut window = Window::default();
        assert_eq!(window.take(), None);
        for (time, rpm) in [(2, 800.0), (1, 1000.0), (3, 900.0)] {
            window.add_number("engine_speed", "rpm", rpm, UtcMillis(time));
        }
        window.add_number("engine_speed", "rpm", f64::NAN, UtcMillis(4));
        let taken = window.take().unwrap();
        assert_eq!((taken.from, taken.to), (UtcMillis(1), UtcMillis(3)));
        let expected = SignalWindow {
            name: "engine_speed".into(),
            unit: "rpm".into(),
            min: 800.0,
            max: 1000.0,
            mean: 900.0,
            last: 900.0,
            count: 3,
        };
        assert_eq!(taken.signals, [expected]);
        assert_eq!(window.take(), None);
    }

    #[test]
    fn small_and_large_values_keep_their_digits() {
        for (samples, mean) in [
            (&[0.0001, 0.0003][..], 0.0002),
            (&[1234567.0, 1234569.0], 1234570.0),
            (&[1e308, 1e308], 1e308),
            (&[f64::MAX, f64::MAX, f64::MAX], f64::MAX),
            (&[-1.0, 1.0], 0.0),
            (&[f64::MIN, f64::MAX], 0.0),
        ] {
            let mut sums = Sums::begin(samples[0]);
            samples[1..].iter().for_each(|sample| sums.add(*sample));
            let told = sums.window(String::new(), String::new()).mean;
            let wanted = mean.clamp(told.min(mean), mean);
            assert!((told - wanted).abs() <= wanted.abs() * 1e-5, "{samples:?}: {told}");
        }
    }

    #[test]
    fn a_full_window_goes_on_with_what_it_has() {
        let mut window = Window::default();
        for n in 0..=MAX_SIGNALS {
            window.add_number(&format!("s{n}"), "", 1.0, UtcMillis(0));
        }
        window.add_number("s0", "", 3.0, UtcMillis(0));
        let taken = window.take().unwrap();
        assert_eq!(taken.signals.len(), MAX_SIGNALS);
        assert_eq!(taken.signals[0].count, 2);
    }

    #[test]
    fn a_full_window_fits_events_that_the_log_takes() {
        let mut window = Window::default();
        for n in 0..MAX_SIGNALS {
            let name = format!("{n:0>300}\u{1}\"");
            window.add_number(&name, &"\u{2}".repeat(200), -1.234_567_890_123e-300, UtcMillis(0));
        }
        let parts = parts(window.take().unwrap().signals);
        let most = crate::event::Class::Telemetry.max_event_bytes() - 2 * 1024;
        for part in &parts {
            let json = serde_json::to_string(part).unwrap();
            assert!(json.len() <= most, "{}", json.len());
        }
        assert_eq!(parts.iter().map(Vec::len).sum::<usize>(), MAX_SIGNALS);
        assert_eq!(parts.len(), parts.iter().filter(|part| part.len() > 10).count());
    }

    proptest! {
        #![proptest_config(crate::seed::cases(64))]

        /// Against a plain model that keeps every sample.
        #[test]
        fn windows_agree_with_all_their_samples(
            samples in proptest::collection::vec((0..5_u8, -1e6_f64..1e6, 0..1000_i64), 0..300),
        ) {
            let mut window = Window::default();
            let mut model: BTreeMap<String, Vec<f64>> = BTreeMap::new();
            for (signal, number, time) in &samples {
                window.add_number(&signal.to_string(), "u", *number, UtcMillis(*time));
                model.entry(signal.to_string()).or_default().push(*number);
            }
            let Some(taken) = window.take() else {
                prop_assert!(samples.is_empty());
                return Ok(());
            };
            prop_assert_eq!(taken.from.0, samples.iter().map(|sample| sample.2).min().unwrap());
            prop_assert_eq!(taken.to.0, samples.iter().map(|sample| sample.2).max().unwrap());
            prop_assert_eq!(taken.signals.len(), model.len());
            for (told, (name, all)) in taken.signals.iter().zip(&model) {
                prop_assert_eq!(&told.name, name);
                prop_assert_eq!(told.count as usize, all.len());
                prop_assert_eq!(told.min, all.iter().copied().fold(f64::INFINITY, f64::min));
                prop_assert_eq!(told.max, all.iter().copied().fold(f64::NEG_INFINITY, f64::max));
                prop_assert_eq!(Some(told.last), all.last().copied());
                prop_assert!((told.min..=told.max).contains(&told.mean));
                let mean = all.iter().sum::<f64>() / all.len() as f64;
                prop_assert!((told.mean - mean).abs() <= mean.abs() * 1e-5 + 1e-6, "{} {}", told.mean, mean);
            }
        }
    }
}
