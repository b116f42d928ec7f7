//! Whether a car's 12 V (or 24 V) battery is too weak to be polled in the background.
//! Pure. The voltage alone proves little: what it rested at in earlier visits tells the
//! chemistry, and without that the common one counts.
//!
//! Rested for hours (facts of battery makers): flooded lead-acid 12.6 V full, 12.2 V half,
//! 12.0 V a quarter; AGM 0.2 V more; lithium iron phosphate (LFP) stays near 13.3 V from 90
//! to 40 % and is at 12.9 V with a fifth left. With the ignition's load on it a battery
//! shows about 0.2 V less.

use std::time::Duration;

/// Below this no car is plugged in (its battery would be dead).
pub const CAR_VOLTS: f64 = 6.0;
/// Above this a system is 24 V: lithium 12 V batteries of electric cars reach 16 V, and
/// a 24 V system below 20 V is dead.
const IS_24_VOLTS: f64 = 18.0;
/// Above this something charges, per 12 V.
const CHARGING_VOLTS: f64 = 13.6;
/// How far above the limit the battery counts as strong again: what it recovers when the
/// load is taken off must not start the polling that loaded it.
const RECOVERED_VOLTS: f64 = 0.4;
/// Standing for so long, the battery has lost most of the surface charge of driving.
const REST: Duration = Duration::from_secs(20 * 60);
/// A change by so much between two looks is a load switched, not rest.
const LOAD_STEP_VOLTS: f64 = 0.3;
/// Rests of one car that are looked at.
pub const RESTS: usize = 5;

/// What the battery is made of, as far as its rests tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Chemistry {
    /// Flooded lead-acid, or not known.
    #[default]
    LeadAcid,
    /// Absorbed glass mat.
    Agm,
    /// Lithium iron phosphate.
    Lfp,
}

impl Chemistry {
    /// From what it rested at, newest first. One rest may have been measured behind a charger:
    /// the second highest of the last few counts.
    #[must_use]
    pub fn of_rests(rests: &[f64]) -> Self {
        let mut rests: Vec<f64> = rests.iter().take(RESTS).map(|volts| per_12(*volts)).collect();
        rests.sort_by(|a, b| b.total_cmp(a));
        match rests.get(1) {
            Some(volts) if *volts >= 13.05 => Self::Lfp,
            Some(volts) if *volts >= 12.75 => Self::Agm,
            _ => Self::LeadAcid,
        }
    }

    /// Below this, engine off, background polling stops; per 12 V, with the ignition's load.
    /// About a quarter of charge.
    #[must_use]
    pub fn limit_volts(self) -> f64 {
        match self {
            Self::LeadAcid => 11.8,
            Self::Agm => 12.0,
            Self::Lfp => 12.8,
        }
    }
}

/// How a battery stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// Strong enough, charged, or not measured.
    Fine,
    /// Below the limit for a moment: the starter, perhaps. Nothing is asked, nothing is said.
    Doubtful,
    /// Below the limit.
    Low,
}

/// One car's battery while it is plugged in.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Battery {
    chemistry: Chemistry,
    below_since: Option<Duration>,
    low: bool,
    last_volts: Option<f64>,
    resting_since: Option<Duration>,
    rested_volts: Option<f64>,
}

impl Battery {
    /// What is known of the car from earlier visits.
    pub fn learn(&mut self, chemistry: Chemistry) {
        self.chemistry = chemistry;
    }

    /// What it is taken for.
    #[must_use]
    pub fn chemistry(&self) -> Chemistry {
        self.chemistry
    }

    /// What it rested at since it was plugged in, in volts.
    #[must_use]
    pub fn rested_volts(&self) -> Option<f64> {
        self.rested_volts
    }

    /// Whether a reading is below the limit, without looking at what was before.
    #[must_use]
    pub fn is_below(&self, volts: Option<f64>, running: bool) -> bool {
        let limit = self.chemistry.limit_volts();
        !running && volts.is_some_and(|volts| volts >= CAR_VOLTS && per_12(volts) < limit)
    }

    /// Takes a look in. `running`: the engine or a converter charges; `low_for`: so long below
    /// the limit is low.
    pub fn look(&mut self, now: Duration, volts: Option<f64>, running: bool, low_for: Duration) -> Level {
        match volts {
            None => return Level::Fine,
            // Unplugged: the next car has another battery.
            Some(volts) if volts < CAR_VOLTS => {
                *self = Self::default();
                return Level::Fine;
            }
            Some(volts) => self.watch_rest(now, volts, running),
        }
        let recovered = |volts: f64| per_12(volts) >= self.chemistry.limit_volts() + RECOVERED_VOLTS;
        if running || self.low && volts.is_some_and(recovered) {
            self.low = false;
            self.below_since = None;
        }
        if self.low {
            return Level::Low;
        }
        if !self.is_below(volts, running) {
            self.below_since = None;
            return Level::Fine;
        }
        let since = *self.below_since.get_or_insert(now);
        self.low = now.saturating_sub(since) >= low_for;
        if self.low { Level::Low } else { Level::Doubtful }
    }

    fn watch_rest(&mut self, now: Duration, volts: f64, running: bool) {
        let stepped =
            self.last_volts.is_some_and(|last| (per_12(volts) - per_12(last)).abs() >= LOAD_STEP_VOLTS);
        self.last_volts = Some(volts);
        if running || stepped || per_12(volts) >= CHARGING_VOLTS {
            self.resting_since = None;
            return;
        }
        let since = *self.resting_since.get_or_insert(now);
        if now.saturating_sub(since) >= REST {
            self.rested_volts = Some(volts);
        }
    }
}

/// A reading as a 12 V battery would give it.
fn per_12(volts: f64) -> f64 {
    if volts > IS_24_VOLTS { volts / 2.0 } else { volts }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOW_FOR: Duration = Duration::from_secs(5);

    #[test]
    fn what_batteries_are_made_of() {
        use Chemistry::{Agm, LeadAcid, Lfp};
        for (case, rests, expected) in [
            ("nothing known", &[][..], LeadAcid),
            ("one rest proves nothing", &[13.3], LeadAcid),
            ("lead-acid", &[12.5, 12.6, 12.4], LeadAcid),
            ("lead-acid, once behind a charger", &[12.5, 13.4, 12.6], LeadAcid),
            ("AGM", &[12.8, 12.9], Agm),
            ("LFP", &[13.3, 13.2, 13.3], Lfp),
            ("LFP that was empty once", &[13.3, 12.6, 13.2], Lfp),
            ("24 V lead-acid", &[25.2, 25.0], LeadAcid),
            ("24 V LFP", &[26.6, 26.4], Lfp),
            ("only the newest count", &[12.5, 12.5, 12.5, 12.5, 12.5, 13.3, 13.3], LeadAcid),
        ] {
            assert_eq!(Chemistry::of_rests(rests), expected, "{case}");
        }
    }

    #[test]
    fn low_by_system_and_chemistry() {
        use Chemistry::{Agm, LeadAcid, Lfp};
        for (chemistry, volts, running, low) in [
            (LeadAcid, 11.7, false, true),
            (LeadAcid, 11.7, true, false),
            (LeadAcid, 11.9, false, false),
            (LeadAcid, 23.5, false, true),
            (LeadAcid, 24.4, false, false),
            (LeadAcid, 16.4, false, false), // a lithium 12 V battery, charging
            (LeadAcid, 3.0, false, false),
            (Agm, 11.9, false, true),
            (Agm, 12.1, false, false),
            (Lfp, 12.6, false, true),
            (Lfp, 13.1, false, false),
            (Lfp, 25.4, false, true),
        ] {
            let battery = Battery { chemistry, ..Battery::default() };
            assert_eq!(battery.is_below(Some(volts), running), low, "{chemistry:?} {volts} {running}");
        }
        assert!(!Battery::default().is_below(None, false));
    }

    #[test]
    fn a_starter_is_no_empty_battery_and_low_does_not_flap() {
        use Level::{Doubtful, Fine, Low};
        let mut battery = Battery::default();
        // (second, volts, running, level)
        for (second, volts, running, level) in [
            (0, 12.4, false, Fine),
            (1, 9.8, false, Doubtful), // cranking
            (2, 10.5, false, Doubtful),
            (3, 14.1, true, Fine),
            (100, 12.3, false, Fine),
            (200, 11.7, false, Doubtful),
            (203, 11.9, false, Fine), // begins anew
            (204, 11.7, false, Doubtful),
            (208, 11.7, false, Doubtful),
            (209, 11.7, false, Low),
            (210, 11.9, false, Low), // recovers without the load
            (300, 12.1, false, Low),
            (400, 12.3, false, Fine), // a charger
            (500, 11.7, false, Doubtful),
            (505, 11.7, false, Low),
            (506, 14.0, true, Fine), // started
            (600, 11.7, false, Doubtful),
            (605, 11.7, false, Low),
            (606, 0.2, false, Fine),  // unplugged
            (607, 11.9, false, Fine), // the next car
        ] {
            let got = battery.look(Duration::from_secs(second), Some(volts), running, LOW_FOR);
            assert_eq!(got, level, "at {second} s, {volts} V");
        }
    }

    #[test]
    fn rests_are_learned_long_after_charging_only() {
        let mut battery = Battery::default();
        let mut look = |minutes: u64, volts: f64, running: bool| {
            battery.look(Duration::from_secs(minutes * 60), Some(volts), running, LOW_FOR);
            battery.rested_volts()
        };
        assert_eq!(look(0, 14.2, true), None);
        assert_eq!(look(1, 12.9, false), None, "surface charge");
        assert_eq!(look(15, 12.7, false), None);
        assert_eq!(look(36, 12.6, false), Some(12.6));
        assert_eq!(look(37, 12.1, false), Some(12.6), "the ignition's load");
        assert_eq!(look(40, 12.1, false), Some(12.6));
        assert_eq!(look(60, 12.1, false), Some(12.1));
        assert_eq!(look(61, 0.1, false), None, "unplugged");
    }
}
