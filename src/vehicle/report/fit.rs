//! What a report lists last, and how it is kept within an event. What lives here: the entries of
//! `errors` beyond the scan's own, and what goes first where a report is too large. What does not:
//! what a report says (the module above).

use crate::event::vehicle::{EcuReport, Inspection, RequestError, VehicleReport};

/// Largest `data` of an event: the envelope around it takes below 1 KiB of the 64.
const MAX_REPORT_BYTES: usize = 62 * 1024;
/// Entries of each list beside the control units, and
const MOST_ENTRIES: usize = 50;
/// characters of an error, where nothing else makes the report fit.
const ERROR_CHARS: usize = 200;

/// The `request` of the entry that says why a scan broke off; always the last one.
const BROKE_OFF: &str = "scan";

/// The last entry of `errors`: `code` is why the scan broke off.
pub(super) fn why_it_broke_off(code: &str) -> RequestError {
    RequestError { request: BROKE_OFF.into(), error: code.into() }
}

/// More entries, in front of why the scan broke off.
pub(in crate::vehicle) fn add_errors(
    report: &mut VehicleReport,
    more: impl IntoIterator<Item = RequestError>,
) {
    let last = report.errors.pop_if(|error| error.request == BROKE_OFF);
    report.errors.extend(more);
    report.errors.extend(last);
}

fn too_large_for(what: &str) -> RequestError {
    RequestError { request: "report".into(), error: format!("too large: left out {what}") }
}

/// Keeps the report within an event: the least needed goes first, and it is said.
pub(in crate::vehicle) fn fit(report: &mut VehicleReport) {
    let too_large =
        |report: &VehicleReport| serde_json::to_vec(report).is_ok_and(|json| json.len() > MAX_REPORT_BYTES);
    type Cut = (&'static str, fn(&mut EcuReport));
    let cuts: [Cut; 8] = [
        ("extended data of codes", |ecu| ecu.dtcs.iter_mut().for_each(|dtc| dtc.extended_data = None)),
        ("monitor tests that passed", |ecu| ecu.monitor_tests.retain(|test| !test.passed)),
        ("freeze frames", |ecu| ecu.freeze_frames.clear()),
        ("texts of codes", |ecu| ecu.dtcs.iter_mut().for_each(|dtc| dtc.text = None)),
        ("values", |ecu| ecu.values.clear()),
        ("codes beyond 50 of an ECU", |ecu| ecu.dtcs.truncate(50)),
        ("in-use ratios and monitor tests", |ecu| {
            ecu.iupr.clear();
            ecu.monitor_tests.clear();
        }),
        ("calibrations and identification", |ecu| {
            ecu.calibration_ids.clear();
            ecu.cvns.clear();
            ecu.identification.clear();
        }),
    ];
    for (what, cut) in cuts {
        if !too_large(report) {
            return;
        }
        report.ecus.iter_mut().for_each(cut);
        add_errors(report, [too_large_for(what)]);
    }
    if !too_large(report) {
        return;
    }
    // No car is like this. What is left must fit all the same: a report that the log refuses
    // is scanned for again and again.
    let last = report.errors.pop_if(|error| error.request == BROKE_OFF);
    report.errors.truncate(MOST_ENTRIES);
    report.errors.extend(last);
    for error in &mut report.errors {
        error.request = error.request.chars().take(ERROR_CHARS).collect();
        error.error = error.error.chars().take(ERROR_CHARS).collect();
    }
    let Inspection { blocking, notes, .. } = &mut report.inspection;
    for list in [blocking, notes, &mut report.not_assessable_because] {
        list.truncate(MOST_ENTRIES);
    }
    add_errors(report, [too_large_for("errors beyond 50 and the last control units")]);
    while too_large(report) && report.ecus.pop().is_some() {}
}

#[cfg(test)]
mod tests {
    use super::super::build;
    use super::super::tests::{HEALTHY, bundle, record};
    use super::*;
    use crate::event::vehicle::{DtcEntry, DtcState};

    fn last(report: &VehicleReport) -> Option<(&str, &str)> {
        report.errors.last().map(|error| (&*error.request, &*error.error))
    }

    /// Whatever is told later, and however much of it.
    #[test]
    fn why_a_scan_broke_off_stays_the_last_word() {
        let mut record = record(&HEALTHY);
        record.errors = vec![RequestError { request: "010D".into(), error: "no data".into() }];
        record.broke_off = Some("car-silent".into());
        let mut report = build(&record, &bundle());
        assert_eq!(last(&report), Some(("scan", "car-silent")), "no request failed with that word");
        let makers =
            |n: usize| RequestError { request: format!("22F1{n:02X}"), error: "无应答".repeat(90) };
        add_errors(&mut report, (0..200).map(makers));
        assert_eq!((report.errors.len(), last(&report)), (202, Some(("scan", "car-silent"))));
        fit(&mut report);
        assert_eq!(last(&report), Some(("scan", "car-silent")));
        let all: Vec<&str> = report.errors.iter().map(|error| &*error.request).collect();
        assert_eq!(all.len(), MOST_ENTRIES + 2);
        assert_eq!(all[MOST_ENTRIES..], ["report", "scan"]);
    }

    /// Whatever part of it has no end.
    #[test]
    fn an_absurd_report_fits_an_event_too() {
        type Absurd = fn(&mut VehicleReport);
        let absurd: [(&str, Absurd); 5] = [
            ("errors", |report| {
                let error = RequestError { request: "0100".into(), error: "无应答".repeat(100) };
                report.errors = vec![error; 2000];
            }),
            ("identification", |report| {
                let said = (0..5000).map(|n| (format!("F{n:04}"), "0".repeat(20)));
                report.ecus[0].identification = said.collect();
            }),
            ("calibrations", |report| report.ecus[0].calibration_ids = vec!["A".repeat(16); 9000]),
            ("in-use ratios", |report| report.ecus[0].iupr = vec![serde_json::json!({"name": "x"}); 9000]),
            ("control units", |report| {
                let dtc = DtcEntry {
                    code: "P0300".into(),
                    state: vec![DtcState::Confirmed],
                    source: "obd".into(),
                    status_raw: None,
                    failure_type: None,
                    extended_data: None,
                    text: None,
                };
                let unit = EcuReport { dtcs: vec![dtc; 60], ..report.ecus[0].clone() };
                report.ecus = vec![unit; 500];
            }),
        ];
        for (what, absurd) in absurd {
            let mut report = build(&record(&HEALTHY), &bundle());
            absurd(&mut report);
            fit(&mut report);
            assert!(serde_json::to_vec(&report).unwrap().len() <= MAX_REPORT_BYTES, "{what}");
            assert!(report.errors.iter().any(|error| error.error.contains("too large")), "{what}");
            assert!(!report.ecus.is_empty(), "{what}");
        }
    }
}
