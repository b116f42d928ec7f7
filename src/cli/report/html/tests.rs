use proptest::prelude::*;

use super::*;
use crate::cli::report::sample;
use crate::config::values::Locale;
use crate::event::maintenance::MaintenanceWarning;
use crate::event::vehicle::{RequestError, VehicleReport};
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
            (dtc.source, dtc.failure_type, dtc.extended_data) = (given(), Some(given()), Some(given()));
        }
        ecu.identification = [(given(), given())].into();
        ecu.controls = vec![given()];
        ecu.readiness_groups = [(given(), crate::event::vehicle::Readiness::Incomplete)].into();
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

/// The car that has everything: far more of each than a sheet holds.
fn everything() -> (VehicleReport, Vec<MaintenanceWarning>) {
    let (mut report, warnings) = (sample::report(), sample::warnings());
    let bundle = Bundle::load(std::path::Path::new("firmware-protocols")).unwrap();
    let engine = report.ecus[0].clone();
    let dtcs = (0..60).map(|n| {
        let code = format!("P0{:03}", 300 + n);
        let text = crate::vehicle::dtc_words::dtc_words(&bundle, None, &code);
        crate::event::vehicle::DtcEntry { code, text, ..engine.dtcs[n % 2].clone() }
    });
    report.ecus[0].dtcs = dtcs.collect();
    report.ecus = vec![report.ecus[0].clone(); 4];
    let monitors: Vec<String> = bundle
        .readiness
        .continuous
        .iter()
        .chain(&bundle.readiness.spark)
        .map(|row| row.name.clone())
        .collect();
    report.ecus[0].readiness =
        monitors.iter().map(|name| (name.clone(), crate::event::vehicle::Readiness::Incomplete)).collect();
    report.ecus[0].readiness_this_cycle = report.ecus[0].readiness.clone();
    let incomplete = || monitors.iter().map(|name| format!("monitor-incomplete:{name}"));
    report.inspection.blocking.extend(incomplete());
    report.inspection.notes.extend(incomplete());
    report.not_assessable_because = incomplete().collect();
    let warnings: Vec<_> = std::iter::repeat_n(warnings, 15)
        .flatten()
        .map(|mut warning| {
            warning.advice = crate::event::Text::new(
                "请检查蓄电池、充电系统和搭铁线，必要时更换。".repeat(2),
                "Check the battery, how it is charged and its earth; replace it where needed. ".repeat(2),
            );
            warning.evidence = vec![warning.evidence[0].clone(); 12];
            warning
        })
        .collect();
    (report, warnings)
}

#[test]
fn a_sheet_holds_the_worst_and_the_appendix_holds_all() {
    let (report, warnings) = everything();
    for (locale, more) in [(Locale::ZhCn, "另有 234 项，见附录"), (Locale::En, "234 more in the appendix")]
    {
        let page = page(&report, &warnings, locale, "星河汽车");
        let (sheet, appendix) = page.split_once("<details").unwrap();
        assert!(sheet.contains(more), "of 240 codes");
        assert_eq!(sheet.matches("<td class=\"code\">").count(), sheet::CODES);
        assert_eq!(appendix.matches("<td class=\"code\">").count(), 240);
        assert_eq!(sheet.matches("class=\"evidence\"").count(), sheet::WARNINGS);
        assert_eq!(appendix.matches("class=\"evidence\"").count(), 30);
        let reasons = |part: &str| part.matches("<li").count();
        assert_eq!(reasons(sheet), sheet::REASONS + report.ecus[0].readiness.len());
        let said = report.inspection.blocking.len() + report.inspection.notes.len();
        assert_eq!(reasons(appendix), said + report.not_assessable_because.len());
        // The worst come first.
        assert!(sheet.find("P0301").unwrap() < sheet.find("P0303").unwrap() && !sheet.contains("P0300<"));
    }
    // What fits is not said twice.
    let page = page(&sample::report(), &sample::warnings(), Locale::En, "A");
    let (_, appendix) = page.split_once("<details").unwrap();
    assert!(!appendix.contains("class=\"code\"") && !page.contains("more in the appendix"));
}

/// Printed, the page is one sheet of A4, with a car that has little and with one that has everything:
/// only a browser knows how high its text is, and only by a font that has the characters, which is
/// here the shipped one. (`baygate` needs no browser; whoever opens the page has one.)
#[test]
fn printed_by_a_browser_it_is_one_sheet() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let fonts = std::path::absolute("config/fonts").unwrap();
    let fontconfig = format!(
        "<?xml version=\"1.0\"?><fontconfig><dir>{}</dir><cachedir>{}</cachedir></fontconfig>",
        fonts.display(),
        path("fonts").display()
    );
    std::fs::write(path("fonts.conf"), fontconfig).unwrap();
    let little = (sample::report(), sample::warnings());
    for (name, (report, warnings)) in [("little", little), ("everything", everything())] {
        for locale in [Locale::ZhCn, Locale::En] {
            std::fs::write(path("page.html"), page(&report, &warnings, locale, "星河汽车 虹桥店")).unwrap();
            let mut browser = std::process::Command::new("chromium");
            browser
                .args(["--headless", "--disable-gpu", "--disable-dev-shm-usage", "--no-pdf-header-footer"])
                .arg(format!("--user-data-dir={}", path("profile").display()))
                .arg(format!("--print-to-pdf={}", path("page.pdf").display()))
                .env("FONTCONFIG_FILE", path("fonts.conf"));
            if nix::unistd::geteuid().is_root() {
                // Chromium refuses to start as root with its sandbox, as in a container.
                browser.arg("--no-sandbox");
            }
            let printed = browser.arg(path("page.html")).output().unwrap_or_else(|error| {
                panic!("`chromium`: {error}; install it (apt-get install chromium), as `make test` does")
            });
            let said = String::from_utf8_lossy(&printed.stderr);
            let pdf = std::fs::read(path("page.pdf")).unwrap_or_else(|error| panic!("{error}: {said}"));
            // Each page is an object of its own.
            let sheets = String::from_utf8_lossy(&pdf).matches("/Type /Page\n").count();
            assert_eq!(sheets, 1, "{name}, {locale:?}: {said}");
            std::fs::remove_file(path("page.pdf")).unwrap();
        }
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

/// On the page and on a terminal alike.
#[test]
fn why_the_reading_broke_off_is_the_last_line_of_what_failed() {
    let mut report = sample::report();
    let broke_off = RequestError { request: "scan".into(), error: "car-silent".into() };
    report.errors.push(broke_off);
    let bundle = Bundle::load(std::path::Path::new("firmware-protocols")).unwrap();
    let zone = jiff::tz::TimeZone::UTC;
    for (locale, failed, why) in [
        (Locale::ZhCn, "无应答", ["读取至此中断", "车辆不再应答"]),
        (Locale::En, "no data", ["the reading broke off here", "car-silent"]),
    ] {
        let view = View { report: &report, warnings: &[], bundle: &bundle, locale, zone: &zone, store: None };
        for shown in [render(view), crate::cli::report::table::render(view, false)] {
            let (before, behind) = shown.rsplit_once(failed).unwrap();
            assert!(why.iter().all(|word| behind.contains(word) && !before.contains(word)), "{shown}");
        }
    }
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
