//! What happens to a simulated car and its adapter, and when: a file of steps.
//! What lives here: the file's form, and its times. Where a step is played is [`super::stage`]'s
//! business, what a fault does the adapter's ([`super::elm`]), what a value does the car's.

use std::time::Duration;

use serde::{Deserialize, Deserializer};
use tokio::time::{Instant, sleep_until};

use super::adapter::Adapter;
use super::car::Car;
use super::spec::{CarSpec, Engine, SpecError};
use super::stage::{Place, Stage};

/// Steps in the order of their times.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Script {
    /// From the beginning again, so long after the beginning.
    #[serde(default)]
    repeat_after: Option<Span>,
    #[serde(rename = "step")]
    steps: Vec<Step>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Step {
    /// Since the beginning.
    at: Span,
    #[serde(rename = "do")]
    action: Action,
}

/// Something that happens.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) enum Action {
    /// The next answer is lost.
    Drop,
    /// The next answer has a wrong character.
    Garble,
    /// From now on every n-th answer has a wrong character; 0 ends it.
    GarbleEvery(u32),
    /// The next answer comes so much later.
    Delay(Span),
    /// Half of the next answer, then silence.
    Half,
    /// The next answer has 00 bytes in it.
    Nulls,
    /// The adapter says this instead of the next answer.
    Say(String),
    /// From now on the line to the adapter swallows a character of each line, another one each time,
    /// of so many; 0 ends it.
    LoseInTurn(usize),
    /// From now on the line swallows every n-th end of a line; 0 ends it.
    LoseEnds(usize),
    /// The unit asks for patience so many times before its next answer.
    Pending(u8),
    /// The supply dips: banner, settings lost.
    BrownOut,
    /// The adapter never answers again, until it returns.
    Freeze,
    /// The cable is pulled out of the box.
    Vanish,
    /// The cable is back, the adapter freshly powered.
    Return,
    /// Another adapter, by its profile.
    Adapter(String),
    /// Out of the car's socket.
    Unplug,
    /// Into a car; what is not said of it is as usual.
    Plug(Box<CarSpec>),
    /// Another car, and nobody saw the plug move.
    Swap(Box<CarSpec>),
    /// The key is turned.
    Engine(Engine),
    /// The battery has so many volts.
    BatteryV(f64),
    /// A live value stays where it is put.
    Set(Held),
    /// A live value goes slowly from where it is, as a sensor that ages.
    Drift(Drift),
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Held {
    pub signal: String,
    pub value: f64,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Drift {
    pub signal: String,
    pub to: f64,
    pub over: Span,
}

/// A time as people write it: `800ms`, `5m 30s`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span(pub Duration);

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        humantime::parse_duration(&text).map(Self).map_err(serde::de::Error::custom)
    }
}

impl Script {
    /// Reads a script from TOML and looks whether every step can be done.
    ///
    /// # Errors
    /// [`SpecError`] naming the first thing that is wrong.
    pub fn from_toml(text: &str) -> Result<Self, SpecError> {
        let mut script: Self = toml::from_str(text).map_err(|error| SpecError::Script(error.to_string()))?;
        script.steps.sort_by_key(|step| step.at.0);
        let last = script.steps.last().map_or(Duration::ZERO, |step| step.at.0);
        if script.repeat_after.is_some_and(|after| after.0 <= last) {
            let what = format!("repeat_after must be later than the last step ({last:?})");
            return Err(SpecError::Script(what));
        }
        let mut car = Car::new(&CarSpec::default())?;
        for step in &script.steps {
            match &step.action {
                Action::Plug(spec) | Action::Swap(spec) => drop(Car::new(spec)?),
                Action::Set(held) => car.set(&held.signal, held.value)?,
                Action::Drift(drift) => car.set(&drift.signal, drift.to)?,
                Action::Adapter(name) => {
                    drop(Adapter::named(name).map_err(|error| SpecError::Script(error.to_string()))?)
                }
                _ => {}
            }
        }
        Ok(script)
    }

    /// Looks whether every step can be done there, without doing one.
    ///
    /// # Errors
    /// [`SpecError::Step`] with the time of the first that cannot.
    pub fn suits(&self, place: Place) -> Result<(), SpecError> {
        match self.steps.iter().find(|step| !place.can(&step.action)) {
            Some(step) => Err(SpecError::Step(humantime::format_duration(step.at.0).to_string())),
            None => Ok(()),
        }
    }

    /// Does the steps, each at its time; comes back after the last, or never when it repeats.
    ///
    /// # Errors
    /// [`SpecError`] of a step that cannot be done; none is done when [`Self::suits`] says so.
    pub async fn play(&self, stage: impl Into<Stage<'_>>) -> Result<(), SpecError> {
        let mut stage = stage.into();
        self.suits(stage.place())?;
        let mut begun = Instant::now();
        loop {
            for step in &self.steps {
                sleep_until(begun + step.at.0).await;
                tracing::debug!(action = ?step.action, "step");
                stage.happen(&step.action).await?;
            }
            let Some(after) = self.repeat_after else { return Ok(()) };
            begun += after.0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_step_reads_and_wrong_ones_say_what_is_wrong() {
        let script = r#"
            repeat_after = "2m"
            step = [
              { at = "30s", do = { drift = { signal = "coolant", to = 112, over = "5m" } } },
              { at = "1s", do = "drop" },
              { at = "2s", do = "garble" }, { at = "2s", do = { garble-every = 7 } },
              { at = "3s", do = { delay = "800ms" } }, { at = "3s", do = "half" }, { at = "3s", do = "nulls" },
              { at = "4s", do = { say = "BUFFER FULL" } }, { at = "4s", do = { pending = 2 } },
              { at = "4s", do = { lose-in-turn = 8 } }, { at = "4s", do = { lose-ends = 9 } },
              { at = "5s", do = "brown-out" }, { at = "5s", do = "freeze" }, { at = "6s", do = "vanish" },
              { at = "7s", do = "return" }, { at = "8s", do = "unplug" },
              { at = "9s", do = { plug = { vin = "LSVAG2180E2100001" } } },
              { at = "9s", do = { swap = {} } }, { at = "9s", do = { engine = "off" } },
              { at = "9s", do = { battery-v = 11.4 } }, { at = "9s", do = { set = { signal = "rpm", value = 900 } } },
            ]"#;
        let read = Script::from_toml(script).unwrap();
        assert_eq!(read.steps.len(), 21);
        assert!(read.steps.is_sorted_by_key(|step| step.at.0));
        for (wrong, word) in [
            ("step = [{ at = \"1s\", do = \"explode\" }]", "explode"),
            ("step = [{ at = \"soon\", do = \"drop\" }]", "number"),
            ("step = [{ at = \"1s\", do = { set = { signal = \"warp\", value = 9 } } }]", "coolant"),
            ("step = [{ at = \"1s\", do = { plug = { protocol = 12 } } }]", "12"),
            ("step = [{ at = \"1s\", do = { adapter = \"gold\" } }]", "gold"),
            ("repeat_after = \"1s\"\nstep = [{ at = \"1s\", do = \"drop\" }]", "repeat_after"),
            ("step = [{ at = \"1s\", do = \"drop\", why = 1 }]", "why"),
        ] {
            let error = Script::from_toml(wrong).unwrap_err().to_string();
            assert!(error.contains(word), "{wrong}: {error}");
        }
    }
}
