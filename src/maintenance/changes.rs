//! What a new evaluation changes in the warnings that stand: pure.

use uuid::Uuid;

use super::evaluate::{Evaluation, Raised, evaluate};
use super::rules::Rules;
use crate::clock::UtcMillis;
use crate::event::maintenance::{Evidence, MaintenanceCleared, MaintenanceWarning};
use crate::event::vehicle::VehicleReport;
use crate::store::warnings::StandingWarning;

/// A number in evidence must move by this share before a standing warning is told again.
const MATERIAL_SHARE: f64 = 0.10;

/// One change.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Change {
    /// New, or standing with materially other evidence.
    Raise(Box<MaintenanceWarning>),
    /// Over.
    Clear(MaintenanceCleared),
}

/// What the rules say of a report that nothing was known of before: for a scan
/// beside the daemon, which keeps no warnings.
#[must_use]
pub fn warnings_of(rules: &Rules, report: &VehicleReport, now: UtcMillis) -> Vec<MaintenanceWarning> {
    let evaluation = evaluate(rules, report, now);
    evaluation.raised.iter().map(|raised| warning(report, now, None, raised)).collect()
}

/// Changes for the car of `report`: against what stands under its own key, and
/// what its visit raised under another, before its VIN was known or put right (`misplaced`).
pub(super) fn changes(
    report: &VehicleReport,
    time: UtcMillis,
    standing: &[StandingWarning],
    misplaced: &[StandingWarning],
    evaluation: &Evaluation,
    rule_exists: impl Fn(&str) -> bool,
) -> Vec<Change> {
    let mut changes = Vec::new();
    for old in standing {
        if !rule_exists(&old.rule) {
            changes.push(clear(report, old, "rule-removed"));
        } else if evaluation.cleared.contains(&old.rule) {
            changes.push(clear(report, old, "condition-gone"));
        }
    }
    changes.extend(misplaced.iter().map(|old| clear(report, old, "car-identified")));
    for raised in &evaluation.raised {
        let old = standing.iter().find(|old| old.rule == raised.rule);
        if old.is_none_or(|old| is_material(&old.warning, raised)) {
            changes.push(Change::Raise(Box::new(warning(report, time, old, raised))));
        }
    }
    changes
}

/// Whether a standing warning is worth telling again: another rule version or
/// severity, a new piece of evidence, another text (codes!), a number moved by a tenth.
fn is_material(old: &MaintenanceWarning, new: &Raised) -> bool {
    old.rule_version != new.version
        || old.severity != new.severity
        || new.evidence.iter().any(|now| {
            old.evidence.iter().find(|before| before.name == now.name).is_none_or(|before| moved(before, now))
        })
}

fn moved(before: &Evidence, now: &Evidence) -> bool {
    match (before.value.as_f64(), now.value.as_f64()) {
        (Some(before), Some(now)) => (now - before).abs() > before.abs().max(1.0) * MATERIAL_SHARE,
        _ => before.value != now.value,
    }
}

fn warning(
    report: &VehicleReport,
    time: UtcMillis,
    old: Option<&StandingWarning>,
    raised: &Raised,
) -> MaintenanceWarning {
    let raised = raised.clone();
    MaintenanceWarning {
        visit: report.visit,
        vin: report.vin.clone(),
        order: report.order.clone(),
        link: report.link.clone(),
        warning_id: old.map_or_else(Uuid::now_v7, |old| old.id),
        rule: raised.rule,
        rule_version: raised.version,
        severity: raised.severity,
        title: raised.title,
        advice: raised.advice,
        evidence: raised.evidence,
        confidence: raised.confidence,
        parts: raised.parts,
        first_seen: old.map_or(time, |old| old.warning.first_seen),
    }
}

fn clear(report: &VehicleReport, old: &StandingWarning, why: &str) -> Change {
    Change::Clear(MaintenanceCleared {
        visit: report.visit,
        vin: report.vin.clone(),
        order: report.order.clone(),
        link: report.link.clone(),
        warning_id: old.id,
        rule: old.rule.clone(),
        why: why.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn evidence(value: Value) -> Evidence {
        Evidence { name: "x".into(), value, unit: None, limit: None, time: UtcMillis(0) }
    }

    #[test]
    fn only_a_tenth_or_another_text_is_told_again() {
        for (before, now, expected) in [
            (json!(100.0), json!(109.0), false),
            (json!(100.0), json!(111.0), true),
            (json!(100.0), json!(89.0), true),
            (json!(0.0), json!(0.05), false),
            (json!(0), json!(1), true),
            (json!(-20.0), json!(-21.0), false),
            (json!("P0300"), json!("P0300"), false),
            (json!("P0300"), json!("P0300 P0301"), true),
            (json!(true), json!(false), true),
        ] {
            assert_eq!(
                moved(&evidence(before.clone()), &evidence(now.clone())),
                expected,
                "{before} -> {now}"
            );
        }
    }
}
