//! Rules over one report: pure, bounded, and never in the way of each other.

use std::sync::Arc;

use rhai::Dynamic;
use serde_json::Value;

use super::car::Car;
use super::expression::{Evaluator, Halt};
use super::rules::{Rule, Rules};
use crate::clock::UtcMillis;
use crate::event::Text;
use crate::event::maintenance::{Confidence, Evidence, Severity};
use crate::event::vehicle::VehicleReport;

/// What the rules say of one report.
#[derive(Debug, Clone, Default)]
pub struct Evaluation {
    /// Rules that apply and are true.
    pub raised: Vec<Raised>,
    /// Rules that apply and are false: a standing warning of theirs is over.
    pub cleared: Vec<String>,
    /// Rules that cannot say.
    pub unknown: Vec<Unknown>,
    /// Rules that were stopped or are wrong.
    pub failures: Vec<RuleFailure>,
}

/// A rule that is true, with everything a warning needs.
#[derive(Debug, Clone)]
pub struct Raised {
    /// The rule's id.
    pub rule: String,
    /// The rule's version.
    pub version: u32,
    /// How urgent.
    pub severity: Severity,
    /// How well founded.
    pub confidence: Confidence,
    /// One line, placeholders filled in.
    pub title: Text,
    /// What to do, placeholders filled in.
    pub advice: Text,
    /// What it rests on; values the car did not give are left out.
    pub evidence: Vec<Evidence>,
    /// Parts that may be needed.
    pub parts: Option<Vec<String>>,
}

/// A rule that can neither raise nor clear.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unknown {
    /// The rule's id.
    pub rule: String,
    /// Why, for `debug` logs: the value the car did not give, or that the rule does not apply.
    pub why: String,
}

/// How a rule failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureKind {
    /// Stopped at the step limit.
    Steps,
    /// Stopped at the time limit.
    Time,
    /// The expression is wrong.
    Wrong,
}

impl FailureKind {
    /// Stable code for metrics and health.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Steps => "step-limit",
            Self::Time => "time-limit",
            Self::Wrong => "expression-wrong",
        }
    }
}

/// A rule that was stopped or is wrong. It neither raises nor clears; the others go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleFailure {
    /// The rule's id.
    pub rule: String,
    /// How.
    pub kind: FailureKind,
    /// What the expression engine said.
    pub detail: String,
}

/// What one rule says.
pub(super) enum Verdict {
    Raise(Raised),
    Clear,
    Unknown(String),
    Failure(FailureKind, String),
}

/// Evaluates every rule over a report. `now` is when its values were observed.
#[must_use]
pub fn evaluate(rules: &Rules, report: &VehicleReport, now: UtcMillis) -> Evaluation {
    let car = Arc::new(Car::of(report));
    let evaluator = Evaluator::new(rules.limits());
    let mut evaluation = Evaluation::default();
    for rule in rules.iter() {
        match verdict(&evaluator, rule, &car, now) {
            Verdict::Raise(raised) => evaluation.raised.push(raised),
            Verdict::Clear => evaluation.cleared.push(rule.id.clone()),
            Verdict::Unknown(why) => evaluation.unknown.push(Unknown { rule: rule.id.clone(), why }),
            Verdict::Failure(kind, detail) => {
                evaluation.failures.push(RuleFailure { rule: rule.id.clone(), kind, detail });
            }
        }
    }
    evaluation
}

/// One rule over one car.
pub(super) fn verdict(evaluator: &Evaluator, rule: &Rule, car: &Arc<Car>, now: UtcMillis) -> Verdict {
    evaluator.restart_clock();
    match decide(evaluator, rule, car, now) {
        Ok(verdict) => verdict,
        Err(Halt::Missing(what)) => Verdict::Unknown(format!("the car did not tell {what}")),
        Err(Halt::Steps) => Verdict::Failure(FailureKind::Steps, "more steps than a rule may take".into()),
        Err(Halt::Time) => Verdict::Failure(FailureKind::Time, "more time than a rule may take".into()),
        Err(Halt::Wrong(what)) => Verdict::Failure(FailureKind::Wrong, what),
    }
}

fn decide(evaluator: &Evaluator, rule: &Rule, car: &Arc<Car>, now: UtcMillis) -> Result<Verdict, Halt> {
    if let Some(applies) = &rule.applies
        && !evaluator.truth(applies, car)?
    {
        return Ok(Verdict::Unknown("the rule does not apply".into()));
    }
    if evaluator.truth(&rule.when, car)? {
        return raise(evaluator, rule, car, now).map(Verdict::Raise);
    }
    match &rule.cleared_when {
        Some(cleared) if !evaluator.truth(cleared, car)? => Ok(Verdict::Unknown("not yet well again".into())),
        _ => Ok(Verdict::Clear),
    }
}

fn raise(evaluator: &Evaluator, rule: &Rule, car: &Arc<Car>, now: UtcMillis) -> Result<Raised, Halt> {
    let mut evidence = Vec::with_capacity(rule.evidence.len());
    for row in &rule.evidence {
        let value = match evaluator.value(&row.value, car) {
            Ok(value) => json(&value)?,
            Err(Halt::Missing(_)) => continue,
            Err(halt) => return Err(halt),
        };
        evidence.push(Evidence {
            name: row.name.clone(),
            value,
            unit: row.unit.clone(),
            limit: row.limit.clone(),
            time: now,
        });
    }
    Ok(Raised {
        rule: rule.id.clone(),
        version: rule.version,
        severity: rule.severity,
        confidence: rule.confidence,
        title: filled(&rule.title, &evidence),
        advice: filled(&rule.advice, &evidence),
        evidence,
        parts: rule.parts.clone(),
    })
}

fn json(value: &Dynamic) -> Result<Value, Halt> {
    if let Ok(number) = value.as_float() {
        // A float's last digits are noise of the scaling, not measurement.
        return Ok(Value::from((number * 1000.0).round() / 1000.0));
    }
    if let Ok(number) = value.as_int() {
        return Ok(Value::from(number));
    }
    if let Ok(truth) = value.as_bool() {
        return Ok(Value::from(truth));
    }
    value
        .clone()
        .into_string()
        .map(Value::from)
        .map_err(|kind| Halt::Wrong(format!("evidence gives a {kind}")))
}

/// Puts evidence in the place of `{name}`; a dash where the car did not give it.
fn filled(text: &Text, evidence: &[Evidence]) -> Text {
    Text { zh: fill(&text.zh, evidence), en: fill(&text.en, evidence) }
}

fn fill(text: &str, evidence: &[Evidence]) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('{') {
        out.push_str(before);
        let Some((name, behind)) = after.split_once('}') else {
            out.push('{');
            rest = after;
            continue;
        };
        match evidence.iter().find(|row| row.name == name).map(|row| &row.value) {
            Some(Value::String(text)) => out.push_str(text),
            Some(Value::Number(number)) => out.push_str(&short(number)),
            Some(other) => out.push_str(&other.to_string()),
            None => out.push('—'),
        }
        rest = behind;
    }
    out.push_str(rest);
    out
}

/// At most two decimals.
fn short(number: &serde_json::Number) -> String {
    number.as_f64().map_or_else(|| number.to_string(), |value| ((value * 100.0).round() / 100.0).to_string())
}

/// The names in braces of a text.
pub(super) fn placeholders(text: &str) -> impl Iterator<Item = &str> {
    text.split('{').skip(1).filter_map(|part| part.split_once('}').map(|(name, _)| name))
}
