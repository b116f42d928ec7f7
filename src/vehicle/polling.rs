//! When the car itself may be asked in the background. Pure. Asking a sleeping
//! or locked car can wake it, drain its battery or set off its alarm: so the
//! adapter's voltage, which costs the car nothing, is looked at often, and the
//! bus only when that gives a reason, or rarely.

use std::time::Duration;

/// Below this no car is plugged in (its battery would be dead).
pub const CAR_VOLTS: f64 = 6.0;
/// Above this a system is 24 V (a charging 12 V system stays below 15.5 V).
const IS_24_VOLTS: f64 = 16.0;
/// Below these, engine off, background polling stops. About a quarter of charge
/// of a resting lead-acid battery with the ignition's load on it; chemistry
/// cannot be told from voltage alone, so the common one counts.
const LOW_12_VOLTS: f64 = 11.8;
const LOW_24_VOLTS: f64 = 23.6;
/// A step of voltage that ignition, starter or charging make, and noise does not.
const STEP_VOLTS: f64 = 0.3;

/// Times of the background polling.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// Between two looks at the voltage.
    pub look: Duration,
    /// Between two questions to a car with its engine running.
    pub running: Duration,
    /// Between two questions to a car with its engine off.
    pub engine_off: Duration,
    /// First pause after a plugged-in car that does not answer; doubles …
    pub silent_first: Duration,
    /// … up to this.
    pub silent_most: Duration,
    /// Between two readings of the VIN within a visit.
    pub vin: Duration,
    /// Length of a telemetry window.
    pub window: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            look: Duration::from_secs(1),
            running: Duration::from_secs(1),
            engine_off: Duration::from_secs(5),
            silent_first: Duration::from_secs(5),
            silent_most: Duration::from_secs(300),
            vin: Duration::from_secs(30),
            window: Duration::from_secs(10),
        }
    }
}

/// What is known when the decision is made.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Situation {
    /// Time since start.
    pub now: Duration,
    /// At the plug; `None`: the adapter cannot tell.
    pub volts: Option<f64>,
    /// A visit is open.
    pub visit: bool,
    /// The engine ran when last asked.
    pub running: bool,
}

/// Remembers what the next decision depends on.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Polling {
    last_volts: Option<f64>,
    last_asked: Option<Duration>,
    silent_pause: Option<Duration>,
}

/// Whether the bus may be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Ask.
    Ask,
    /// Not yet.
    Wait,
    /// The battery is low: only requested scans.
    BatteryLow,
}

/// Whether the battery is too low for background polling.
#[must_use]
pub fn battery_low(volts: Option<f64>, running: bool) -> bool {
    !running
        && volts.is_some_and(|volts| {
            let limit = if volts > IS_24_VOLTS { LOW_24_VOLTS } else { LOW_12_VOLTS };
            volts >= CAR_VOLTS && volts < limit
        })
}

impl Polling {
    /// Decides, and counts the question as asked when the decision is to ask.
    pub fn decide(&mut self, situation: Situation, pace: &Pace) -> Decision {
        let Situation { now, volts, visit, running } = situation;
        let stepped = match (self.last_volts, volts) {
            (Some(before), Some(volts)) => {
                (volts - before).abs() >= STEP_VOLTS || before < CAR_VOLTS && volts >= CAR_VOLTS
            }
            _ => false,
        };
        if stepped || self.last_volts.is_none() {
            self.last_volts = volts;
        }
        if battery_low(volts, running) {
            return Decision::BatteryLow;
        }
        if stepped {
            self.silent_pause = None;
        }
        let pause = match (visit, running) {
            (true, true) => pace.running,
            (true, false) => pace.engine_off,
            (false, _) => self.silent_pause.unwrap_or(pace.silent_first),
        };
        let due = self.last_asked.is_none_or(|last| now.saturating_sub(last) >= pause);
        if stepped || due {
            self.last_asked = Some(now);
            Decision::Ask
        } else {
            Decision::Wait
        }
    }

    /// No ECU answered, and no visit is open: the next question comes later.
    pub fn was_silent(&mut self, pace: &Pace) {
        let pause = self.silent_pause.unwrap_or(pace.silent_first);
        self.silent_pause = Some((pause * 2).min(pace.silent_most));
    }

    /// An ECU answered.
    pub fn was_answered(&mut self) {
        self.silent_pause = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: u64, volts: f64) -> Situation {
        Situation { now: Duration::from_secs(second), volts: Some(volts), visit: false, running: false }
    }

    #[test]
    fn a_sleeping_car_is_asked_ever_more_rarely() {
        let pace = Pace::default();
        let mut polling = Polling::default();
        let asked: Vec<u64> = (0..1200)
            .filter(|second| {
                let ask = polling.decide(at(*second, 12.5), &pace) == Decision::Ask;
                if ask {
                    polling.was_silent(&pace);
                }
                ask
            })
            .collect();
        assert_eq!(asked, [0, 10, 30, 70, 150, 310, 610, 910]);
    }

    #[test]
    fn a_step_of_voltage_is_a_reason() {
        let pace = Pace::default();
        let mut polling = Polling::default();
        assert_eq!(polling.decide(at(0, 0.1), &pace), Decision::Ask);
        polling.was_silent(&pace);
        assert_eq!(polling.decide(at(1, 0.1), &pace), Decision::Wait);
        assert_eq!(polling.decide(at(2, 12.5), &pace), Decision::Ask, "plugged in");
        polling.was_silent(&pace);
        assert_eq!(polling.decide(at(3, 12.4), &pace), Decision::Wait);
        assert_eq!(polling.decide(at(4, 12.1), &pace), Decision::Ask, "ignition on");
        polling.was_silent(&pace);
        assert_eq!(polling.decide(at(5, 14.1), &pace), Decision::Ask, "charging");
    }

    #[test]
    fn low_batteries_are_left_alone() {
        for (volts, running, low) in [
            (11.7, false, true),
            (11.7, true, false),
            (11.9, false, false),
            (23.5, false, true),
            (24.4, false, false),
            (3.0, false, false),
        ] {
            assert_eq!(battery_low(Some(volts), running), low, "{volts} {running}");
        }
        assert!(!battery_low(None, false));
        let mut polling = Polling::default();
        assert_eq!(polling.decide(at(0, 11.5), &Pace::default()), Decision::BatteryLow);
    }
}
