//! What a report is worth: whether the car can be judged at all, and whether the
//! on-board-diagnosis part of China's annual check would pass. Pure. What each code
//! means in words stands with the command line; what is standard and what is our
//! reading of it stands in `docs/inspection.md`.

use std::collections::BTreeSet;

use super::report::ScanRecord;
use crate::event::vehicle::{
    DtcEntry, DtcState, EcuReport, Inspection, Powertrain, Readiness, VehicleReport,
};

/// Below these since the last clearing the monitors have had no fair chance. Warm-ups:
/// a confirmed code needs two drive cycles to come back; distance and time: the
/// shortest published drive cycles (makers' manuals) take about this much.
const FEW_WARMUPS: f64 = 3.0;
const FEW_KILOMETRES: f64 = 50.0;
const FEW_MINUTES: f64 = 60.0;
/// The scan broke off: what is missing was not asked.
pub const INCOMPLETE: &str = "scan-incomplete";
/// Monitors that may be incomplete at the check; with more the car is sent to drive and come
/// back (practice under GB 18285-2018 and GB 3847-2018; our reading, `docs/inspection.md`).
pub const INCOMPLETE_ALLOWED: usize = 2;

/// What the engine's ECU counts since codes were last cleared.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct SinceClear {
    /// PID 31.
    pub distance_km: Option<f64>,
    /// PID 30.
    pub warmups: Option<f64>,
    /// PID 4E.
    pub time_min: Option<f64>,
}

impl SinceClear {
    fn is_short(self) -> bool {
        let few = |value: Option<f64>, limit: f64| value.is_some_and(|value| value < limit);
        few(self.warmups, FEW_WARMUPS)
            || few(self.distance_km, FEW_KILOMETRES)
            || few(self.time_min, FEW_MINUTES)
    }
}

/// Stable codes of why a car is not assessable: such a car is never called healthy.
#[must_use]
pub fn reasons_against(record: &ScanRecord, ecus: &[EcuReport], since: SinceClear) -> Vec<String> {
    let mut reasons = Vec::new();
    if since.is_short() {
        reasons.push("codes-cleared-recently".into());
    }
    reasons.extend(incomplete(ecus).into_iter().map(|name| format!("monitor-incomplete:{name}")));
    if readiness_unknown(ecus) {
        reasons.push("readiness-unknown".into());
    }
    if codes_unknown(record) {
        reasons.push("codes-unknown".into());
    }
    if record.broke_off.is_some() {
        reasons.push(INCOMPLETE.into());
    }
    reasons
}

/// What the annual check would say, as far as one scan tells.
#[must_use]
pub fn foresee(
    record: &ScanRecord,
    ecus: &[EcuReport],
    powertrain: Powertrain,
    since: SinceClear,
) -> Inspection {
    let (mut blocking, mut notes) = (Vec::new(), Vec::new());
    // The check reads the codes of emissions. Where J1979 told them, what UDS knows beside (body,
    // chassis, the maker's own) is not looked at; a car of UDS alone has no other list.
    let by_obd = record.told.iter().any(|told| told.request.service() == 0x03);
    let looked_at = |dtc: &&DtcEntry| !by_obd || dtc.source == "obd";
    let stands =
        |state| ecus.iter().flat_map(|ecu| &ecu.dtcs).filter(looked_at).any(|dtc| dtc.state.contains(&state));
    match record.broke_off.as_deref() {
        Some("car-silent") => blocking.push("communication-failed".to_owned()),
        // Nobody knows what the last list would have told.
        Some(why) if !asked_for_permanent_codes(record, why) => blocking.push(INCOMPLETE.into()),
        Some(_) => notes.push(INCOMPLETE.into()),
        None => {}
    }
    if ecus.iter().any(|ecu| ecu.mil == Some(true)) {
        blocking.push("mil-on".into());
    }
    if stands(DtcState::Confirmed) {
        blocking.push("dtc-confirmed".into());
    }
    if stands(DtcState::Permanent) {
        blocking.push("dtc-permanent".into());
    }
    if stands(DtcState::Pending) {
        notes.push("dtc-pending".into());
    }
    let incomplete = incomplete(ecus);
    let too_many = incomplete.len() > INCOMPLETE_ALLOWED;
    let monitors = if too_many { &mut blocking } else { &mut notes };
    monitors.extend(incomplete.into_iter().map(|name| format!("monitor-incomplete:{name}")));
    if powertrain == Powertrain::Bev {
        // No engine, no emissions: the check is not asked for.
        notes.push("no-emission-check".into());
    } else {
        if readiness_unknown(ecus) {
            blocking.push("readiness-unknown".into());
        }
        if codes_unknown(record) {
            blocking.push("codes-unknown".into());
        }
        if ecus.iter().all(|ecu| ecu.calibration_ids.is_empty()) {
            notes.push("calibration-unknown".into());
        }
        if ecus.iter().all(|ecu| ecu.cvns.is_empty()) {
            notes.push("cvn-unknown".into());
        }
    }
    if since.is_short() {
        notes.push("codes-cleared-recently".into());
    }
    if powertrain == Powertrain::Bev {
        // Both standards are about exhaust: what would keep another car out is only worth knowing.
        notes.append(&mut blocking);
    }
    Inspection { ready: blocking.is_empty(), blocking, notes }
}

/// Holds the calibrations against those of an earlier report of the same car. The same
/// calibration id with another verification number is software that is not what it says;
/// both changed is an update, which is told and blocks nothing.
pub fn compare_calibrations(earlier: &[EcuReport], report: &mut VehicleReport) {
    for ecu in &report.ecus {
        let before = earlier.iter().find(|before| before.address == ecu.address);
        let Some(before) = before.filter(|before| !before.cvns.is_empty() && !ecu.cvns.is_empty()) else {
            continue;
        };
        let same_id = !ecu.calibration_ids.is_empty() && before.calibration_ids == ecu.calibration_ids;
        match (same_id, before.cvns == ecu.cvns) {
            (true, true) => {}
            (true, false) => {
                let is_checked = report.powertrain != Powertrain::Bev;
                let Inspection { blocking, notes, .. } = &mut report.inspection;
                let list = if is_checked { blocking } else { notes };
                list.push(format!("cvn-changed:{}", ecu.address));
            }
            (false, _) => report.inspection.notes.push(format!("calibration-changed:{}", ecu.address)),
        }
    }
    report.inspection.ready = report.inspection.blocking.is_empty();
}

fn incomplete(ecus: &[EcuReport]) -> BTreeSet<&str> {
    ecus.iter()
        .flat_map(|ecu| &ecu.readiness)
        .filter(|(_, state)| **state == Readiness::Incomplete)
        .map(|(name, _)| name.as_str())
        .collect()
}

/// Whether the car had its say about 0A, the last of the lists that count, before the scan broke off.
fn asked_for_permanent_codes(record: &ScanRecord, broke_off: &str) -> bool {
    let told = record.told.iter().any(|told| told.request.service() == 0x0A);
    told || record.errors.iter().any(|error| error.request == "0A" && error.error != broke_off)
}

fn readiness_unknown(ecus: &[EcuReport]) -> bool {
    ecus.iter().all(|ecu| ecu.readiness.is_empty())
}

fn codes_unknown(record: &ScanRecord) -> bool {
    let told = record.told.iter().any(|told| matches!(told.request.service(), 0x03 | 0x19));
    !told && !record.groups.has_codes()
}
