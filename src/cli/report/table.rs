//! A vehicle report on a terminal: in both languages, aligned also where
//! characters are two columns wide, coloured when asked, worst first.

use std::fmt::Write;

use unicode_width::UnicodeWidthStr;

use super::{View, rounded, with_unit, words};
use crate::event::maintenance::{MaintenanceWarning, Severity};
use crate::event::vehicle::{DtcEntry, EcuReport, MonitorTest, Readiness};

/// Columns of the labels.
const LABEL: usize = 20;
/// Columns of the names of values.
const NAME: usize = 44;

/// Terminal colours (ECMA-48 SGR).
#[derive(Clone, Copy)]
struct Paint {
    on: bool,
}

impl Paint {
    fn with(self, code: &str, text: &str) -> String {
        if self.on { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
    fn bad(self, text: &str) -> String {
        self.with("31", text)
    }
    fn good(self, text: &str) -> String {
        self.with("32", text)
    }
    fn careful(self, text: &str) -> String {
        self.with("33", text)
    }
    fn title(self, text: &str) -> String {
        self.with("1", text)
    }
    fn quiet(self, text: &str) -> String {
        self.with("2", text)
    }
}

/// The report as text.
#[must_use]
pub fn render(view: View<'_>, coloured: bool) -> String {
    let mut page = Page { out: String::new(), paint: Paint { on: coloured }, view };
    page.head();
    page.verdict();
    page.warnings();
    page.codes();
    page.readiness();
    page.tests();
    for ecu in &view.report.ecus {
        page.ecu(ecu);
    }
    page.errors();
    page.out
}

struct Page<'a> {
    out: String,
    paint: Paint,
    view: View<'a>,
}

impl<'a> Page<'a> {
    fn pick<'t>(&self, zh: &'t str, en: &'t str) -> &'t str {
        self.view.locale.pick(zh, en)
    }

    fn line(&mut self, text: &str) {
        let _ = writeln!(self.out, "{}", text.trim_end());
    }

    fn section(&mut self, zh: &str, en: &str) {
        let title = self.paint.title(self.pick(zh, en));
        self.line("");
        self.line(&title);
    }

    fn row(&mut self, zh: &str, en: &str, value: &str) {
        let label = padded(self.pick(zh, en), LABEL);
        self.line(&format!("  {label}{value}"));
    }

    fn head(&mut self) {
        let report = self.view.report;
        let (note, well) = words::vin_check(report.vin_check, self.view.locale);
        let note = if well { self.paint.good(note) } else { self.paint.careful(note) };
        let vin = report.vin.as_ref().map_or("—", |vin| vin.as_str());
        self.line(&format!("{}  {note}", self.paint.title(&format!("VIN {vin}"))));
        if let Some(make) = self.view.make() {
            self.row("厂家", "Make", &safe(&make));
        }
        let time = self.view.time(report.started_at);
        let store = self.view.store.map(|store| format!("{store}  ")).unwrap_or_default();
        self.row("检测时间", "Read at", &format!("{time}  {store}"));
        if let Some(order) = &report.order {
            self.row("工单", "Order", &safe(order));
        }
        let odometer = report.odometer_km.map_or("—".into(), |km| format!("{} km", rounded(km)));
        let source = report.odometer_source.as_deref();
        let source =
            source.map(|source| words::odometer_source(source, self.view.locale)).unwrap_or_default();
        self.row("里程", "Odometer", &format!("{odometer}  {}", self.paint.quiet(&source)));
        let engine = match report.engine_running {
            Some(true) => self.pick("运转", "running"),
            Some(false) => self.pick("停止", "off"),
            None => "—",
        };
        let powertrain = words::powertrain(report.powertrain, self.view.locale);
        self.row("动力", "Powertrain", &format!("{powertrain}, {} {engine}", self.pick("发动机", "engine")));
        let warmups = report.warmups_since_clear.map_or("—".into(), |count| count.to_string());
        let distance = report.distance_since_clear_km.map_or("—".into(), |km| format!("{km} km"));
        let minutes = report.time_since_clear_min.map_or(String::new(), |minutes| format!(", {minutes} min"));
        let since = format!("{distance}, {warmups} {}{minutes}", self.pick("次暖机", "warm-ups"));
        self.row("清码后", "Since clearing", &since);
        let volts = report.adapter.voltage_v.map(|volts| format!("  {volts:.1} V")).unwrap_or_default();
        self.row("适配器", "Adapter", &format!("{}{volts}", safe(&report.adapter.identity)));
        self.row("协议", "Protocol", &words::protocol(&report.protocol));
        let seconds = format!("{:.1} s", std::time::Duration::from_millis(report.duration_ms).as_secs_f64());
        self.row("用时", "Took", &seconds);
    }

    fn verdict(&mut self) {
        let report = self.view.report;
        self.section("结论", "Verdict");
        let words_of = |code: &String| words::reason(code, self.view.bundle, self.view.locale);
        let blocking: Vec<String> = report.inspection.blocking.iter().map(words_of).collect();
        let notes: Vec<String> = report.inspection.notes.iter().map(words_of).collect();
        let reasons: Vec<String> = report.not_assessable_because.iter().map(words_of).collect();
        let verdict = if report.inspection.ready {
            self.paint.good(self.pick("无已知阻碍", "nothing known blocks it"))
        } else {
            self.paint.bad(self.pick("预计不通过", "would not pass"))
        };
        self.row("年检 OBD", "Annual check", &verdict);
        self.points(&blocking, |paint, text| paint.bad(text), "✗");
        self.points(&notes, |paint, text| paint.careful(text), "·");
        let verdict = if report.assessable {
            self.paint.good(self.pick("可评估", "assessable"))
        } else {
            self.paint.careful(self.pick("不可评估", "not assessable"))
        };
        self.row("车况评估", "Assessment", &verdict);
        self.points(&reasons, |paint, text| paint.careful(text), "·");
    }

    fn points(&mut self, points: &[String], paint: fn(Paint, &str) -> String, mark: &str) {
        for point in points {
            let line = format!("  {}{mark} {}", " ".repeat(LABEL), paint(self.paint, &safe(point)));
            self.line(&line);
        }
    }

    fn warnings(&mut self) {
        let warnings = self.view.warnings_by_urgency();
        if warnings.is_empty() {
            return;
        }
        self.section("提醒", "Warnings");
        for warning in warnings {
            self.warning(warning);
        }
    }

    fn warning(&mut self, warning: &MaintenanceWarning) {
        let locale = self.view.locale;
        let urgency = padded(words::severity(warning.severity, locale), LABEL);
        let urgency = match warning.severity {
            Severity::Stop | Severity::Soon => self.paint.bad(&urgency),
            Severity::Advise => self.paint.careful(&urgency),
            Severity::Info => urgency,
        };
        self.line(&format!("  {urgency}{}", safe(locale.pick(&warning.title.zh, &warning.title.en))));
        let advice = safe(locale.pick(&warning.advice.zh, &warning.advice.en));
        self.line(&format!("  {}{advice}", " ".repeat(LABEL)));
        for evidence in &warning.evidence {
            let text = self.view.evidence_text(evidence);
            let line = format!("  {}{}", " ".repeat(LABEL), self.paint.quiet(&safe(&text)));
            self.line(&line);
        }
    }

    fn codes(&mut self) {
        self.section("故障码", "Trouble codes");
        let lamp = match self.view.lamp() {
            Some(true) => self.paint.bad(self.pick("亮", "on")),
            Some(false) => self.paint.good(self.pick("灭", "off")),
            None => "—".into(),
        };
        self.row("故障灯", "Malfunction lamp", &lamp);
        let codes = self.view.codes_by_gravity();
        if codes.is_empty() {
            let none = self.paint.good(self.pick("无故障码", "no codes"));
            self.row("故障码", "Trouble codes", &none);
        }
        for (ecu, dtc) in codes {
            self.code(ecu, dtc);
        }
        for ecu in &self.view.report.ecus {
            for frame in &ecu.freeze_frames {
                let title = format!(
                    "{} {}  {}",
                    self.pick("冻结帧", "Freeze frame"),
                    frame.code,
                    View::ecu_name(ecu)
                );
                self.line(&format!("  {}", safe(&title)));
                for value in &frame.values {
                    let name = padded(&self.view.value_name(value), NAME);
                    self.line(&format!("    {}  {name}{}", value.pid, safe(&View::value_text(value))));
                }
            }
        }
    }

    fn code(&mut self, ecu: &EcuReport, dtc: &DtcEntry) {
        let locale = self.view.locale;
        let states = padded(&words::dtc_states(&dtc.state, locale), 22);
        let unknown = locale.pick("（含义未收录）", "(meaning not known here)");
        let text = dtc.text.as_ref().map_or(unknown, |text| locale.pick(&text.zh, &text.en));
        // From UDS the state is the status byte's business.
        let status = dtc.status_raw.map(|status| format!("  [{status:02X}]")).unwrap_or_default();
        let code = padded(&safe(&dtc.code), 8);
        let line = format!(
            "  {}  {states}{text}  {}",
            self.paint.bad(&code),
            self.paint.quiet(&safe(&format!("{}{status}", View::ecu_name(ecu))))
        );
        self.line(&line);
    }

    fn readiness(&mut self) {
        let monitors = self.view.monitors();
        if monitors.is_empty() {
            return;
        }
        self.section("就绪状态", "Readiness");
        for (name, state) in monitors {
            let note = self.view.not_yet_this_cycle(&name, state);
            let note = note.map(|note| format!("  {}", self.paint.quiet(note))).unwrap_or_default();
            let name = words::monitor(&name, self.view.bundle, self.view.locale);
            let state = match (state, words::readiness(state, self.view.locale)) {
                (Readiness::Incomplete, word) => self.paint.careful(word),
                (_, word) => self.paint.good(word),
            };
            self.line(&format!("  {}{state}{note}", padded(&safe(&name), NAME)));
        }
    }

    fn tests(&mut self) {
        let tests = self.view.tests();
        if tests.is_empty() {
            return;
        }
        self.section("监测结果", "Monitor results");
        for (ecu, test) in tests {
            self.test(ecu, test);
        }
    }

    fn test(&mut self, ecu: &EcuReport, test: &MonitorTest) {
        let result = if test.passed {
            self.paint.good(self.pick("通过", "passed"))
        } else {
            self.paint.bad(self.pick("未通过", "failed"))
        };
        let value = with_unit(&rounded(test.value), &test.unit);
        let limits = format!("{} … {}", rounded(test.min), rounded(test.max));
        let name = padded(&safe(&self.view.test_name(test)), NAME);
        let place = self.paint.quiet(&format!("{} {}.{}", ecu.address, test.mid, test.tid));
        let line = format!("  {name}{}{}{result}  {place}", padded(&value, 16), padded(&limits, 24));
        self.line(&line);
    }

    fn ecu(&mut self, ecu: &EcuReport) {
        self.line("");
        self.line(&self.paint.title(&safe(&View::ecu_name(ecu))));
        for value in &ecu.values {
            let name = padded(&safe(&self.view.value_name(value)), NAME);
            self.line(&format!("  {}  {name}{}", value.pid, safe(&View::value_text(value))));
        }
        for (zh, en, list) in
            [("标定号", "Calibration", &ecu.calibration_ids), ("标定校验码", "CVN", &ecu.cvns)]
        {
            if !list.is_empty() {
                self.row(zh, en, &safe(&list.join(", ")));
            }
        }
        for (monitor, counts) in self.view.ratios(ecu) {
            let label = format!("{} {monitor}", self.pick("监测频率", "In-use ratio"));
            self.line(&format!("  {}{}", padded(&safe(&label), NAME + 6), safe(&counts)));
        }
    }

    fn errors(&mut self) {
        let report = self.view.report;
        if report.errors.is_empty() {
            return;
        }
        self.section("未得到应答的请求", "Requests without an answer");
        for error in &report.errors {
            let what = words::request(&error.request, self.view.bundle, self.view.locale);
            let why = words::failure(&error.error, self.view.locale);
            let line = format!("  {}{}{why}", padded(&safe(&error.request), 10), padded(&what, NAME - 2));
            self.line(&line);
        }
    }
}

/// Without what would move the cursor or change colours: strings of a car or adapter are not ours.
fn safe(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).collect()
}

/// Fills up to `columns` terminal columns; a Chinese character takes two.
pub(in crate::cli) fn padded(text: &str, columns: usize) -> String {
    format!("{text}{}", " ".repeat(columns.saturating_sub(text.width()).max(1)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::report::sample;
    use crate::config::values::Locale;
    use crate::protocols::Bundle;

    fn rendered(locale: Locale, coloured: bool) -> String {
        let bundle = Bundle::load(std::path::Path::new("firmware-protocols")).unwrap();
        let (report, warnings) = (sample::report(), sample::warnings());
        let zone = jiff::tz::TimeZone::UTC;
        let view =
            View { report: &report, warnings: &warnings, bundle: &bundle, locale, zone: &zone, store: None };
        render(view, coloured)
    }

    #[test]
    fn both_languages_and_colour_only_when_asked() {
        for (locale, words) in [
            (
                Locale::ZhCn,
                ["故障灯", "催化器效率低", "不可评估", "已确认+永久", "812.5 rpm", "无应答", "预计不通过"],
            ),
            (
                Locale::En,
                [
                    "Malfunction lamp",
                    "Catalyst efficiency low",
                    "not assessable",
                    "confirmed+permanent",
                    "812.5 rpm",
                    "no data",
                    "would not pass",
                ],
            ),
        ] {
            let plain = rendered(locale, false);
            for word in words {
                assert!(plain.contains(word), "{word} in\n{plain}");
            }
            assert!(!plain.contains('\x1b'));
            assert!(rendered(locale, true).contains("\x1b[31mP0420"));
        }
    }

    #[test]
    fn the_worst_stands_first() {
        let plain = rendered(Locale::En, false);
        let place = |word: &str| plain.find(word).unwrap_or_else(|| panic!("{word} in\n{plain}"));
        let order = [
            "the malfunction lamp is on",
            "The battery is low",
            "Service is due",
            "P0420",
            "P0301",
            "Catalyst B1",
            "Heated catalyst",
            "88 °C",
            "Requests without an answer",
        ]
        .map(place);
        assert!(order.is_sorted(), "{order:?}\n{plain}");
    }

    #[test]
    fn columns_stand_under_each_other_in_both_languages() {
        for locale in [Locale::ZhCn, Locale::En] {
            let plain = rendered(locale, false);
            let column = |word: &str| {
                let line = plain.lines().find(|line| line.contains(word)).unwrap();
                line.split_once(word).unwrap().0.width()
            };
            let at = column("812.5 rpm");
            assert_eq!((column("88 °C"), column("57 km/h")), (at, at), "{plain}");
        }
    }

    #[test]
    fn strings_of_the_car_do_not_reach_the_terminal_as_commands() {
        let bundle = Bundle::load(std::path::Path::new("firmware-protocols")).unwrap();
        let mut report = sample::report();
        report.adapter.identity = "\x1b]0;owned\x07".into();
        report.ecus[0].name = Some("\x1b[2J\r".into());
        let zone = jiff::tz::TimeZone::UTC;
        let locale = Locale::En;
        let plain = render(
            View { report: &report, warnings: &[], bundle: &bundle, locale, zone: &zone, store: None },
            false,
        );
        assert!(!plain.contains(['\x1b', '\r', '\x07']), "{plain:?}");
    }
}
