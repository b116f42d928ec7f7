//! When the car itself may be asked in the background. Pure. Asking a sleeping
//! or locked car can wake it, drain its battery or set off its alarm: so the
//! adapter's voltage, which costs the car nothing, is looked at often, and the
//! bus only when that gives a reason, or rarely. A car that stands with its engine off
//! is asked ever more rarely too: some keep their network awake for as long as they are
//! asked, and never sleep.

use std::time::Duration;

use super::battery::{CAR_VOLTS, Level};

/// A step of voltage that ignition, starter or charging make, and noise does not.
const STEP_VOLTS: f64 = 0.3;
/// Share of a new reading in the level that steps are measured from: a battery that
/// recovers or sags over minutes makes no step.
const FOLLOW: f64 = 0.1;
/// Without a voltage to see the engine start by, a standing car is asked this often at least.
const BLIND_MOST: Duration = Duration::from_secs(30);

/// Times of the background polling.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// Between two looks at the voltage.
    pub look: Duration,
    /// Between two questions to a car with its engine running.
    pub running: Duration,
    /// First pause between two questions to a car with its engine off; doubles …
    pub engine_off: Duration,
    /// … up to this.
    pub engine_off_most: Duration,
    /// A battery below its limit for so long is low: a starter takes a few seconds.
    pub low_for: Duration,
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
            engine_off_most: Duration::from_secs(300),
            low_for: Duration::from_secs(10),
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
    /// The engine ran or the car moved when last asked.
    pub running: bool,
    /// How the battery stands.
    pub battery: Level,
    /// What is heard on the bus without asking, where it can be heard.
    pub traffic: Traffic,
}

/// What listening tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Traffic {
    /// The adapter cannot listen.
    #[default]
    Unheard,
    /// Frames come: the car is awake, asking wakes nobody.
    Alive,
    /// The bus is quiet: the car sleeps, asking would wake it.
    Quiet,
}

/// Remembers what the next decision depends on.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Polling {
    last_volts: Option<f64>,
    /// What the voltage was lately: steps are measured from here.
    level_volts: Option<f64>,
    last_asked: Option<Duration>,
    silent_pause: Option<Duration>,
    off_pause: Option<Duration>,
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

impl Polling {
    /// Decides, and counts the question as asked when the decision is to ask.
    pub fn decide(&mut self, situation: Situation, pace: &Pace) -> Decision {
        let Situation { now, volts, visit, running, battery, traffic } = situation;
        let stepped = self.stepped(volts);
        match battery {
            Level::Low => return Decision::BatteryLow,
            Level::Doubtful => return Decision::Wait,
            Level::Fine => {}
        }
        if stepped || traffic == Traffic::Alive {
            self.silent_pause = None;
        }
        if stepped || running || !visit {
            self.off_pause = None;
        }
        let pause = match (visit, running) {
            (true, true) => pace.running,
            (true, false) => self.off_pause.unwrap_or(pace.engine_off),
            (false, _) => self.silent_pause.unwrap_or(pace.silent_first),
        };
        let due = self.last_asked.is_none_or(|last| now.saturating_sub(last) >= pause);
        if stepped || due && traffic != Traffic::Quiet {
            self.last_asked = Some(now);
            if visit && !running {
                let most =
                    if volts.is_some() { pace.engine_off_most } else { pace.engine_off_most.min(BLIND_MOST) };
                self.off_pause = Some((pause * 2).min(most).max(pace.engine_off));
            }
            Decision::Ask
        } else {
            Decision::Wait
        }
    }

    /// Whether the voltage took a step: ignition, starter, charging, or plugged in.
    fn stepped(&mut self, volts: Option<f64>) -> bool {
        let Some(volts) = volts else { return false };
        let before = self.last_volts.replace(volts);
        let Some(level) = self.level_volts else {
            self.level_volts = Some(volts);
            return false;
        };
        let plugged_in = before.is_some_and(|before| before < CAR_VOLTS) && volts >= CAR_VOLTS;
        let stepped = plugged_in || (volts - level).abs() >= STEP_VOLTS;
        self.level_volts = Some(if stepped { volts } else { level + (volts - level) * FOLLOW });
        stepped
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
        Situation {
            now: Duration::from_secs(second),
            volts: Some(volts),
            visit: false,
            running: false,
            battery: Level::Fine,
            traffic: Traffic::Unheard,
        }
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
        let mut polling = Polling::default();
        for (second, battery, decision) in [
            (0, Level::Doubtful, Decision::Wait),
            (9, Level::Low, Decision::BatteryLow),
            (99, Level::Fine, Decision::Ask),
        ] {
            let situation = Situation { battery, ..at(second, 11.5) };
            assert_eq!(polling.decide(situation, &Pace::default()), decision, "{second}");
        }
    }

    /// Seconds at which a car is asked; the situation may change from second to second.
    fn asked(seconds: u64, mut situation: impl FnMut(u64) -> Situation) -> Vec<u64> {
        let mut polling = Polling::default();
        let pace = Pace::default();
        (0..seconds).filter(|second| polling.decide(situation(*second), &pace) == Decision::Ask).collect()
    }

    #[test]
    fn a_car_standing_in_the_bay_may_fall_asleep() {
        let standing = |second| Situation { visit: true, ..at(second, 12.3) };
        assert_eq!(asked(1000, standing), [0, 10, 30, 70, 150, 310, 610, 910]);
        // The engine starts at 400 s: the step of voltage is seen at once, then every second.
        let started = asked(405, |second| match second {
            400.. => Situation { running: true, ..Situation { visit: true, ..at(second, 14.1) } },
            _ => standing(second),
        });
        assert_eq!(started, [0, 10, 30, 70, 150, 310, 400, 401, 402, 403, 404]);
        // Nobody measures the voltage: the start must not go unnoticed for minutes.
        let blind = asked(120, |second| Situation { volts: None, ..standing(second) });
        assert_eq!(blind, [0, 10, 30, 60, 90]);
    }

    #[test]
    fn a_battery_that_recovers_makes_no_step() {
        let mut polling = Polling::default();
        let pace = Pace::default();
        polling.decide(at(0, 13.2), &pace);
        for _ in 0..8 {
            polling.was_silent(&pace);
        }
        let asked = (1..280_u32)
            .filter(|second| {
                let volts = 13.2 - 0.7 * f64::from(*second) / 280.0;
                polling.decide(at(u64::from(*second), volts), &pace) == Decision::Ask
            })
            .count();
        assert_eq!(asked, 0, "from 13.2 to 12.5 V in five minutes");
    }

    #[test]
    fn a_bus_that_can_be_heard_is_not_woken() {
        let heard = |traffic| {
            let mut polling = Polling::default();
            let pace = Pace::default();
            (0..100)
                .filter(|second| {
                    let decision = polling.decide(Situation { traffic, ..at(*second, 12.5) }, &pace);
                    if decision == Decision::Ask {
                        polling.was_silent(&pace);
                    }
                    decision == Decision::Ask
                })
                .count()
        };
        assert_eq!(heard(Traffic::Quiet), 0, "asleep");
        assert_eq!(heard(Traffic::Alive), 20, "awake: every five seconds");
        assert_eq!(heard(Traffic::Unheard), 4);
        let mut polling = Polling::default();
        let quiet = |second, volts| Situation { traffic: Traffic::Quiet, ..at(second, volts) };
        assert_eq!(polling.decide(quiet(0, 12.5), &Pace::default()), Decision::Wait);
        let visited = Situation { visit: true, running: true, ..quiet(0, 12.5) };
        assert_eq!(polling.decide(visited, &Pace::default()), Decision::Wait, "in a visit, too");
        assert_eq!(polling.decide(quiet(1, 12.0), &Pace::default()), Decision::Ask, "the ignition");
    }
}
