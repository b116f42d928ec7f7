//! Self-tests that stand beside each rule: a few facts of a car, and whether the
//! rule raises, clears or cannot know. Run by `Rules::load`, `baygate check` and the tests.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;

use super::car::{Car, CodeList, Fact};
use super::evaluate::{Verdict, verdict};
use super::expression::{Evaluator, Limits};
use super::rules::{Place, Rules};
use crate::clock::UtcMillis;
use crate::config::ConfigError;
use crate::event::vehicle::{DtcState, Readiness};

/// A vector is judged by its steps, which are the same everywhere. By the clock a
/// slow box would refuse to start.
const VECTOR_TIME: Duration = Duration::from_secs(10);

/// What a rule should say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Expected {
    /// The warning is raised.
    Raise,
    /// A standing warning ends.
    Clear,
    /// Neither.
    Unknown,
}

impl Expected {
    /// The word in the file.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Raise => "raise",
            Self::Clear => "clear",
            Self::Unknown => "unknown",
        }
    }
}

/// One self-test.
#[derive(Debug, Clone)]
pub struct RuleVector {
    /// The facts.
    pub car: Car,
    /// What the rule should say.
    pub expected: Expected,
    file: PathBuf,
    at: Option<(usize, usize)>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct VectorFile {
    expect: Expected,
    car: CarFile,
}

/// `car = { coolant_temperature = 121, confirmed = ["P0420"], readiness = { evap = "incomplete" } }`
#[derive(Deserialize)]
struct CarFile {
    confirmed: Option<Vec<String>>,
    pending: Option<Vec<String>>,
    permanent: Option<Vec<String>>,
    #[serde(default)]
    readiness: BTreeMap<String, Readiness>,
    #[serde(flatten)]
    values: BTreeMap<String, toml::Value>,
}

impl RuleVector {
    pub(super) fn build(place: &Place<'_>, offset: usize, file: VectorFile) -> Result<Self, ConfigError> {
        let mut car = Car { readiness: file.car.readiness, ..Car::default() };
        for (state, codes) in [
            (DtcState::Confirmed, file.car.confirmed),
            (DtcState::Pending, file.car.pending),
            (DtcState::Permanent, file.car.permanent),
        ] {
            if let Some(codes) = codes {
                car.codes.insert(state, CodeList { codes, complete: true });
            }
        }
        for (name, value) in file.car.values {
            #[allow(clippy::cast_precision_loss)] // measured values stay far below 2^53
            let fact = match value {
                toml::Value::Integer(number) => Fact::Number(number as f64),
                toml::Value::Float(number) => Fact::Number(number),
                toml::Value::Boolean(truth) => Fact::Truth(truth),
                toml::Value::String(text) => Fact::Text(text),
                _ => {
                    let what = format!("{name:?} of a vector is neither number, text nor truth value");
                    return Err(place.error(offset, what, "write e.g. `coolant_temperature = 121`"));
                }
            };
            car.set(&name, Some(fact));
        }
        car.derive();
        let at = place.error(offset, "", "").at;
        Ok(Self { car, expected: file.expect, file: place.path.to_owned(), at })
    }
}

/// Runs every rule's vectors; how many there are.
///
/// # Errors
/// One for each vector the rule answers otherwise, at the vector's place.
pub fn verify_vectors(rules: &Rules) -> Result<usize, Vec<ConfigError>> {
    let evaluator = Evaluator::new(Limits { time: VECTOR_TIME, ..rules.limits() });
    let mut errors = Vec::new();
    let mut count = 0;
    for rule in rules.iter() {
        for vector in &rule.vectors {
            count += 1;
            let (said, why) = match verdict(&evaluator, rule, &Arc::new(vector.car.clone()), UtcMillis(0)) {
                Verdict::Raise(_) => (Some(Expected::Raise), String::new()),
                Verdict::Clear => (Some(Expected::Clear), String::new()),
                Verdict::Unknown(why) => (Some(Expected::Unknown), why),
                Verdict::Failure(kind, why) => (None, format!("{}: {why}", kind.as_str())),
            };
            if said != Some(vector.expected) {
                let said = said.map_or("fails", Expected::as_str);
                let why = if why.is_empty() { why } else { format!(" ({why})") };
                errors.push(ConfigError {
                    file: vector.file.clone(),
                    at: vector.at,
                    what: format!("rule {:?} gives {said}{why} where its vector expects {}", rule.id, vector.expected.as_str()),
                    hint: Some("correct the rule's expressions (names of signals: firmware-protocols/obd/pids.toml) or the vector".into()),
                });
            }
        }
    }
    if errors.is_empty() { Ok(count) } else { Err(errors) }
}
