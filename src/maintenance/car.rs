//! What a rule sees: the facts of one report by name, and the questions an
//! expression may ask of them. Asking for what the car did not tell ends the
//! expression as *unknown*; only `has` may be asked of anything.

use std::collections::BTreeMap;
use std::sync::Arc;

use rhai::{Dynamic, Engine, EvalAltResult, Position};
use wildmatch::WildMatch;

use crate::event::vehicle::{DtcState, Powertrain, Readiness, VehicleReport};

/// A supply above this is a 24 V system: a charged 12 V one stays below 16 V.
const VOLTS_24V_SYSTEM: f64 = 18.0;
/// Codes written out in evidence; a car with more has one fault, not forty.
const MAX_CODES_IN_TEXT: usize = 40;

/// One fact.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Fact {
    Number(f64),
    Text(String),
    Truth(bool),
}

/// The codes of one list, and whether every ECU was heard.
#[derive(Debug, Clone, Default)]
pub(super) struct CodeList {
    pub(super) codes: Vec<String>,
    pub(super) complete: bool,
}

/// The facts of one report.
#[derive(Debug, Clone, Default)]
pub struct Car {
    pub(super) values: BTreeMap<String, Vec<Fact>>,
    pub(super) codes: BTreeMap<DtcState, CodeList>,
    pub(super) readiness: BTreeMap<String, Readiness>,
}

/// Ends an expression: the car did not tell this.
#[derive(Debug, Clone)]
pub(super) struct Missing(pub(super) String);

type Answer<T> = Result<T, Box<EvalAltResult>>;

impl Car {
    /// The facts of a report. Values that several ECUs gave keep the report's order.
    #[must_use]
    pub fn of(report: &VehicleReport) -> Self {
        let mut car = Self::default();
        car.report_values(report);
        for ecu in &report.ecus {
            for value in &ecu.values {
                let fact = match &value.value {
                    serde_json::Value::Number(number) => number.as_f64().map(Fact::Number),
                    serde_json::Value::String(text) => Some(Fact::Text(text.clone())),
                    serde_json::Value::Bool(truth) => Some(Fact::Truth(*truth)),
                    _ => None,
                };
                if let Some(fact) = fact {
                    car.values.entry(value.name.clone()).or_default().push(fact);
                }
            }
            for (monitor, state) in &ecu.readiness {
                car.readiness
                    .entry(monitor.clone())
                    .and_modify(|worst| *worst = worse(*worst, *state))
                    .or_insert(*state);
            }
        }
        car.report_codes(report);
        car.derive();
        car
    }

    pub(super) fn set(&mut self, name: &str, fact: Option<Fact>) {
        if let Some(fact) = fact {
            self.values.insert(name.to_owned(), vec![fact]);
        }
    }

    fn report_values(&mut self, report: &VehicleReport) {
        self.set("adapter_voltage", report.adapter.voltage_v.map(Fact::Number));
        self.set("engine_running", report.engine_running.map(Fact::Truth));
        self.set("assessable", Some(Fact::Truth(report.assessable)));
        self.set("odometer", report.odometer_km.map(Fact::Number));
        self.set("distance_since_clear", report.distance_since_clear_km.map(f64::from).map(Fact::Number));
        self.set("warmups_since_clear", report.warmups_since_clear.map(|count| Fact::Number(count.into())));
        self.set("time_since_clear", report.time_since_clear_min.map(|minutes| Fact::Number(minutes.into())));
        let powertrain = match report.powertrain {
            Powertrain::Ice => "ice",
            Powertrain::Hybrid => "hybrid",
            Powertrain::Bev => "bev",
            Powertrain::Unknown => "unknown",
        };
        self.set("powertrain", Some(Fact::Text(powertrain.into())));
        // On when any ECU says on; off only when at least one was asked and none says on.
        let mil = report.ecus.iter().filter_map(|ecu| ecu.mil).reduce(|a, b| a || b);
        self.set("mil_on", mil.map(Fact::Truth));
    }

    fn report_codes(&mut self, report: &VehicleReport) {
        for (state, service) in
            [(DtcState::Confirmed, "03"), (DtcState::Pending, "07"), (DtcState::Permanent, "0A")]
        {
            let refused =
                report.errors.iter().any(|error| error.request.trim().eq_ignore_ascii_case(service));
            let mut codes: Vec<String> = report
                .ecus
                .iter()
                .flat_map(|ecu| &ecu.dtcs)
                .filter(|dtc| dtc.state.contains(&state))
                .map(|dtc| dtc.code.clone())
                .collect();
            codes.sort();
            codes.dedup();
            let complete = !report.ecus.is_empty() && !refused;
            self.codes.insert(state, CodeList { codes, complete });
        }
    }

    /// Facts that follow from others. The ECU measures its supply better than a
    /// dongle, whose reading may be off by a volt.
    pub(super) fn derive(&mut self) {
        let volts = self.number("control_module_voltage").or_else(|| self.number("adapter_voltage"));
        self.set("system_voltage", volts.map(Fact::Number));
        let halved = volts.map(|volts| if volts > VOLTS_24V_SYSTEM { volts / 2.0 } else { volts });
        self.set("voltage_12v", halved.map(Fact::Number));
    }

    fn first(&self, name: &str) -> Option<&Fact> {
        self.values.get(name)?.first()
    }

    fn number(&self, name: &str) -> Option<f64> {
        match self.first(name)? {
            Fact::Number(number) => Some(*number),
            _ => None,
        }
    }

    fn value(&self, name: &str) -> Answer<Dynamic> {
        match self.first(name) {
            Some(Fact::Number(number)) => Ok((*number).into()),
            Some(Fact::Text(text)) => Ok(text.clone().into()),
            Some(Fact::Truth(truth)) => Ok((*truth).into()),
            None => Err(missing(name)),
        }
    }

    fn extreme(&self, name: &str, pick: fn(f64, f64) -> f64) -> Answer<f64> {
        let numbers = self.values.get(name).into_iter().flatten().filter_map(|fact| match fact {
            Fact::Number(number) => Some(*number),
            _ => None,
        });
        numbers.reduce(pick).ok_or_else(|| missing(name))
    }

    /// Codes of a list that match; whether the list is complete.
    fn matching(&self, list: &str, patterns: &str) -> Answer<(Vec<&str>, bool)> {
        let states: &[DtcState] = match list {
            "confirmed" => &[DtcState::Confirmed],
            "pending" => &[DtcState::Pending],
            "permanent" => &[DtcState::Permanent],
            "any" => &[DtcState::Confirmed, DtcState::Pending],
            _ => {
                return Err(wrong(format!(
                    "{list:?} is no list of codes; use confirmed, pending, permanent or any"
                )));
            }
        };
        let patterns: Vec<WildMatch> = patterns.split_whitespace().map(WildMatch::new).collect();
        let mut found: Vec<&str> = Vec::new();
        let mut complete = true;
        for state in states {
            let known = self.codes.get(state);
            complete &= known.is_some_and(|known| known.complete);
            found.extend(known.iter().flat_map(|known| &known.codes).map(String::as_str));
        }
        found.retain(|code| patterns.iter().any(|pattern| pattern.matches(code)));
        found.sort_unstable();
        found.dedup();
        Ok((found, complete))
    }

    fn count(&self, list: &str, patterns: &str) -> Answer<i64> {
        match self.matching(list, patterns)? {
            (found, complete) if complete || !found.is_empty() => {
                Ok(i64::try_from(found.len()).unwrap_or(i64::MAX))
            }
            _ => Err(missing(&format!("{list} codes"))),
        }
    }

    fn codes_text(&self, list: &str, patterns: &str) -> Answer<String> {
        let (found, complete) = self.matching(list, patterns)?;
        if found.is_empty() && !complete {
            return Err(missing(&format!("{list} codes")));
        }
        let mut text = found.iter().take(MAX_CODES_IN_TEXT).copied().collect::<Vec<_>>().join(" ");
        if found.len() > MAX_CODES_IN_TEXT {
            text.push_str(&format!(" +{}", found.len() - MAX_CODES_IN_TEXT));
        }
        Ok(text)
    }

    fn monitor(&self, name: &str) -> Answer<String> {
        match self.readiness.get(name) {
            Some(Readiness::Complete) => Ok("complete".into()),
            Some(Readiness::Incomplete) => Ok("incomplete".into()),
            Some(Readiness::Unsupported) => Ok("unsupported".into()),
            None => Err(missing(&format!("readiness of {name}"))),
        }
    }

    fn incomplete(&self) -> Answer<Vec<&str>> {
        if self.readiness.is_empty() {
            return Err(missing("readiness"));
        }
        let open = self.readiness.iter().filter(|(_, state)| **state == Readiness::Incomplete);
        Ok(open.map(|(name, _)| name.as_str()).collect())
    }
}

/// An incomplete monitor of any ECU counts; an unsupported one only where no other has it.
fn worse(a: Readiness, b: Readiness) -> Readiness {
    match (a, b) {
        (Readiness::Incomplete, _) | (_, Readiness::Incomplete) => Readiness::Incomplete,
        (Readiness::Complete, _) | (_, Readiness::Complete) => Readiness::Complete,
        _ => Readiness::Unsupported,
    }
}

fn missing(what: &str) -> Box<EvalAltResult> {
    EvalAltResult::ErrorRuntime(Dynamic::from(Missing(what.to_owned())), Position::NONE).into()
}

fn wrong(what: String) -> Box<EvalAltResult> {
    EvalAltResult::ErrorRuntime(what.into(), Position::NONE).into()
}

/// Gives an engine the type `car` and what may be asked of it. Each answer costs
/// one step whatever the report holds, and reports are bounded.
pub(super) fn register(engine: &mut Engine) {
    engine.register_type_with_name::<Arc<Car>>("car");
    engine.register_indexer_get(|car: &mut Arc<Car>, name: &str| car.value(name));
    engine.register_fn("has", |car: &mut Arc<Car>, name: &str| car.values.contains_key(name));
    engine.register_fn("highest", |car: &mut Arc<Car>, name: &str| car.extreme(name, f64::max));
    engine.register_fn("lowest", |car: &mut Arc<Car>, name: &str| car.extreme(name, f64::min));
    engine.register_fn("count", |car: &mut Arc<Car>, list: &str| car.count(list, "*"));
    engine.register_fn("count", |car: &mut Arc<Car>, list: &str, patterns: &str| car.count(list, patterns));
    engine.register_fn("codes", |car: &mut Arc<Car>, list: &str| car.codes_text(list, "*"));
    engine.register_fn("codes", |car: &mut Arc<Car>, list: &str, patterns: &str| {
        car.codes_text(list, patterns)
    });
    engine.register_fn("monitor", |car: &mut Arc<Car>, name: &str| car.monitor(name));
    engine.register_fn("incomplete", |car: &mut Arc<Car>| {
        car.incomplete().map(|open| i64::try_from(open.len()).unwrap_or(i64::MAX))
    });
    engine
        .register_fn("incomplete_monitors", |car: &mut Arc<Car>| car.incomplete().map(|open| open.join(" ")));
    engine.register_fn("abs", f64::abs);
}
