use proptest::prelude::*;

use super::*;
use crate::cli::report::sample;
use crate::config::values::Locale;
use crate::event::maintenance::MaintenanceWarning;
use crate::event::vehicle::VehicleReport;
use crate::protocols::Bundle;

fn page(report: &VehicleReport, warnings: &[MaintenanceWarning], locale: Locale, store: &str) -> String {
    let bundle = Bundle::load(std::path::Path::new("firmware-protocols")).unwrap();
    let zone = jiff::tz::TimeZone::UTC;
    render(View { report, warnings, bundle: &bundle, locale, zone: &zone, store: Some(store) })
}

/// The markup alone: everything between `<` and `>`.
fn skeleton(page: &str) -> Vec<&str> {
    page.split('<').skip(1).map(|piece| piece.split_once('>').map_or(piece, |(tag, _)| tag)).collect()
}

/// Every string that a car, an adapter, a rule file or an option can set.
fn spoken(report: &mut VehicleReport, warnings: &mut [MaintenanceWarning], words: &str) {
    let given = || words.to_owned();
    report.adapter.identity = given();
    report.adapter.firmware = Some(given());
    report.order = Some(given());
    report.protocol = given();
    report.odometer_source = Some(given());
    report.not_assessable_because = vec![given()];
    report.inspection.blocking = vec![given(), format!("monitor-incomplete:{words}")];
    report.inspection.notes = vec![format!("mil-on:{words}")];
    for error in &mut report.errors {
        (error.request, error.error) = (given(), given());
    }
    for ecu in &mut report.ecus {
        (ecu.address, ecu.name) = (given(), Some(given()));
        (ecu.calibration_ids, ecu.cvns) = (vec![given()], vec![given()]);
        ecu.iupr = vec![
            serde_json::json!({"monitor": words, "bank": words, "completed": words, "conditions": words, "ratio": words}),
        ];
        ecu.readiness = [(given(), crate::event::vehicle::Readiness::Incomplete)].into();
        for dtc in &mut ecu.dtcs {
            (dtc.code, dtc.text) = (given(), Some(crate::event::Text::new(words, words)));
        }
        for test in &mut ecu.monitor_tests {
            (test.mid, test.tid, test.name, test.unit) = (given(), given(), given(), given());
        }
        let frames = ecu.freeze_frames.iter_mut().flat_map(|frame| {
            frame.code = words.to_owned();
            &mut frame.values
        });
        for value in ecu.values.iter_mut().chain(frames) {
            (value.pid, value.name, value.unit) = (given(), given(), given());
            value.value = serde_json::json!(words);
        }
    }
    for warning in warnings {
        warning.title = crate::event::Text::new(words, words);
        warning.advice = crate::event::Text::new(words, words);
        for evidence in &mut warning.evidence {
            (evidence.name, evidence.unit) = (given(), Some(given()));
            (evidence.value, evidence.limit) = (serde_json::json!(words), Some(serde_json::json!(words)));
        }
    }
}

#[test]
fn the_page_stands_alone_and_says_what_matters() {
    let (report, warnings) = (sample::report(), sample::warnings());
    for (locale, words) in [
        (Locale::ZhCn, ["星河汽车", "催化器效率低", "预计不通过", "尽快处理", "催化器监测", "实测"]),
        (
            Locale::En,
            ["星河汽车", "Catalyst efficiency low", "would not pass", "soon", "Catalyst", "measured"],
        ),
    ] {
        let page = page(&report, &warnings, locale, "星河汽车");
        for word in words {
            assert!(page.contains(word), "{word}");
        }
        // Nothing is fetched and nothing runs.
        for reach in ["<script", "http:", "https:", "src=", "<link", "@import", "url(", "<iframe", "onload"] {
            assert!(!page.contains(reach), "{reach}");
        }
        assert_eq!(page.matches("<main>").count(), 1);
        // The raw data stands behind the fold alone.
        let (sheet, appendix) = page.split_once("<details").unwrap();
        assert!(!sheet.contains("812.5 rpm") && appendix.contains("812.5 rpm"));
        assert!(!sheet.contains("17F2A0B1") && appendix.contains("17F2A0B1"));
    }
}

#[test]
fn tags_are_balanced() {
    let page = page(&sample::report(), &sample::warnings(), Locale::En, "A & B <C>");
    let mut open: Vec<&str> = Vec::new();
    for tag in skeleton(&page) {
        let name = tag.split(' ').next().unwrap();
        match name.strip_prefix('/') {
            Some(closed) => assert_eq!(open.pop(), Some(closed)),
            None if matches!(name, "!DOCTYPE" | "meta" | "br") => {}
            None => open.push(name),
        }
    }
    assert_eq!(open, [] as [&str; 0]);
}

proptest! {
    #![proptest_config(crate::seed::cases(64))]

    #[test]
    fn no_string_breaks_out(words in "(<|>|\"|'|&|/|--|script|style|\\PC|\\n|\u{202E}|\u{7}|[ -~]){0,24}") {
        let (mut report, mut warnings) = (sample::report(), sample::warnings());
        spoken(&mut report, &mut warnings, "plain");
        let plain = page(&report, &warnings, Locale::En, "plain");
        spoken(&mut report, &mut warnings, &words);
        let hostile = page(&report, &warnings, Locale::En, &words);
        // A unit that is empty, or a name that is empty, changes words but never the markup.
        prop_assert_eq!(skeleton(&plain), skeleton(&hostile));
        prop_assert!(!hostile.chars().any(|c| is_bidi(c) || c.is_control() && c != '\n'));
    }
}
