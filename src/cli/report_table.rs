//! A vehicle report for people: tables in both languages, coloured on a terminal.

use std::fmt::Write;

use crate::config::values::Locale;
use crate::event::vehicle::{DtcState, EcuReport, PidValue, Readiness, VehicleReport, VinCheck};
use crate::protocols::Bundle;

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
}

/// The report as text.
#[must_use]
pub fn render(report: &VehicleReport, bundle: &Bundle, locale: Locale, coloured: bool) -> String {
    let mut page = Page { out: String::new(), paint: Paint { on: coloured }, locale, bundle };
    page.head(report);
    for ecu in &report.ecus {
        page.ecu(ecu);
    }
    page.verdict(report);
    page.out
}

struct Page<'b> {
    out: String,
    paint: Paint,
    locale: Locale,
    bundle: &'b Bundle,
}

impl Page<'_> {
    fn line(&mut self, text: &str) {
        let _ = writeln!(self.out, "{}", text.trim_end());
    }

    fn row(&mut self, zh: &str, en: &str, value: &str) {
        let label = padded(self.locale.pick(zh, en), 22);
        self.line(&format!("  {label}{value}"));
    }

    fn head(&mut self, report: &VehicleReport) {
        let (zh, en, well) = match report.vin_check {
            VinCheck::Ok => ("校验正确", "check digit right", true),
            VinCheck::CheckDigitWrong => {
                ("校验位不符（部分地区不使用）", "check digit differs (not used everywhere)", false)
            }
            VinCheck::Malformed => ("不是有效的 VIN", "not a valid VIN", false),
            VinCheck::Missing => ("车辆未提供", "not given by the car", false),
        };
        let note = self.locale.pick(zh, en);
        let note = if well { self.paint.good(note) } else { self.paint.careful(note) };
        let vin = report.vin.as_ref().map_or("—", |vin| vin.as_str());
        self.line(&format!("{}  {note}", self.paint.title(&format!("VIN {vin}"))));
        let volts = report.adapter.voltage_v.map(|volts| format!("  {volts:.1} V")).unwrap_or_default();
        self.row("适配器", "Adapter", &format!("{}{volts}", report.adapter.identity));
        self.row("协议", "Protocol", &report.protocol);
        let engine = match report.engine_running {
            Some(true) => self.locale.pick("运转", "running"),
            Some(false) => self.locale.pick("停止", "off"),
            None => "—",
        };
        self.row("发动机", "Engine", engine);
        let distance = |km: Option<f64>| km.map_or("—".into(), |km| format!("{km:.1} km"));
        self.row("里程", "Odometer", &distance(report.odometer_km));
        let warmups = report.warmups_since_clear.map_or("—".into(), |count| count.to_string());
        let since = format!(
            "{}, {warmups} {}",
            distance(report.distance_since_clear_km.map(f64::from)),
            self.locale.pick("次暖机", "warm-ups")
        );
        self.row("清码后", "Since codes cleared", &since);
    }

    fn ecu(&mut self, ecu: &EcuReport) {
        let name = ecu.name.as_deref().unwrap_or("");
        self.line("");
        self.line(&self.paint.title(&format!("{} {name}", ecu.address)));
        let lamp = match ecu.mil {
            Some(true) => self.paint.bad(self.locale.pick("亮", "on")),
            Some(false) => self.paint.good(self.locale.pick("灭", "off")),
            None => "—".into(),
        };
        self.row("故障灯", "Malfunction lamp", &lamp);
        if ecu.dtcs.is_empty() {
            let none = self.paint.good(self.locale.pick("无故障码", "no codes"));
            self.row("故障码", "Trouble codes", &none);
        }
        for dtc in &ecu.dtcs {
            let states: Vec<&str> = dtc.state.iter().map(|state| self.state(*state)).collect();
            let text = dtc.text.as_ref().map_or("", |text| self.locale.pick(&text.zh, &text.en));
            let line = format!("  {}  {}  {text}", self.paint.bad(&dtc.code), padded(&states.join("+"), 22));
            self.line(&line);
        }
        for frame in &ecu.freeze_frames {
            let title = format!("{} {}", self.locale.pick("冻结帧", "Freeze frame"), frame.code);
            self.line(&format!("  {title}"));
            self.values(&frame.values, "    ");
        }
        self.readiness(ecu);
        self.values(&ecu.values, "  ");
        for (zh, en, list) in
            [("标定号", "Calibration", &ecu.calibration_ids), ("标定校验", "CVN", &ecu.cvns)]
        {
            if !list.is_empty() {
                self.row(zh, en, &list.join(", "));
            }
        }
    }

    fn state(&self, state: DtcState) -> &'static str {
        match state {
            DtcState::Confirmed => self.locale.pick("已确认", "confirmed"),
            DtcState::Pending => self.locale.pick("待定", "pending"),
            DtcState::Permanent => self.locale.pick("永久", "permanent"),
        }
    }

    fn readiness(&mut self, ecu: &EcuReport) {
        let of = |wanted: Readiness| -> Vec<&str> {
            let listed = ecu.readiness.iter().filter(|(_, state)| **state == wanted);
            listed.map(|(name, _)| name.as_str()).collect()
        };
        let (complete, incomplete) = (of(Readiness::Complete), of(Readiness::Incomplete));
        if !complete.is_empty() {
            let names = self.paint.good(&complete.join(", "));
            self.row("监测完成", "Monitors complete", &names);
        }
        if !incomplete.is_empty() {
            let names = self.paint.careful(&incomplete.join(", "));
            self.row("监测未完成", "Monitors incomplete", &names);
        }
    }

    fn values(&mut self, values: &[PidValue], indent: &str) {
        for value in values {
            let pid = u8::from_str_radix(value.pid.get(2..).unwrap_or_default(), 16).unwrap_or(0);
            // A PID of one signal has a name for people; of several, the signal's own is clearer.
            let row = self.bundle.pids.get(0x01, pid).filter(|row| row.signals.len() == 1);
            let name = row.map_or(value.name.as_str(), |row| self.locale.pick(&row.name.zh, &row.name.en));
            let shown = match &value.value {
                serde_json::Value::String(text) => text.clone(),
                number => format!("{} {}", figure(number), value.unit),
            };
            let line = format!("{indent}{}  {} {shown}", value.pid, padded(name, 40));
            self.line(&line);
        }
    }

    fn verdict(&mut self, report: &VehicleReport) {
        self.line("");
        let verdict = if report.assessable {
            self.paint.good(self.locale.pick("可评估", "assessable"))
        } else {
            let why = report.not_assessable_because.join(", ");
            self.paint.careful(&format!("{}：{why}", self.locale.pick("不可评估", "not assessable")))
        };
        self.row("评估", "Assessment", &verdict);
        let inspection = if report.inspection.ready {
            self.paint.good(self.locale.pick("无已知阻碍", "nothing known blocks it"))
        } else {
            self.paint.careful(&report.inspection.blocking.join(", "))
        };
        self.row("年检", "Inspection", &inspection);
        for error in &report.errors {
            let text = format!("{}  {}", error.request, error.error);
            self.row("无应答", "No answer", &text);
        }
        let seconds = format!("{:.1} s", std::time::Duration::from_millis(report.duration_ms).as_secs_f64());
        self.row("用时", "Took", &seconds);
    }
}

/// A number as people read it: two decimals, and none that are zero. JSON has them all.
fn figure(number: &serde_json::Value) -> String {
    number.as_f64().map_or_else(|| number.to_string(), |value| ((value * 100.0).round() / 100.0).to_string())
}

/// Fills up to `columns` terminal columns; a Chinese character takes two.
fn padded(text: &str, columns: usize) -> String {
    let width: usize = text.chars().map(|c| if u32::from(c) >= 0x2E80 { 2 } else { 1 }).sum();
    format!("{text}{}", " ".repeat(columns.saturating_sub(width).max(1)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::vehicle::{Adapter, DtcEntry, Inspection, Powertrain};

    fn report() -> VehicleReport {
        let ecu = EcuReport {
            address: "7E8".into(),
            name: Some("ECM".into()),
            mil: Some(true),
            dtc_count: Some(1),
            dtcs: vec![DtcEntry {
                code: "P0420".into(),
                state: vec![DtcState::Confirmed, DtcState::Permanent],
                source: "obd".into(),
                status_raw: None,
                failure_type: None,
                text: Some(crate::event::Text::new("催化器效率低", "Catalyst efficiency low")),
            }],
            freeze_frames: Vec::new(),
            readiness: [("catalyst".to_owned(), Readiness::Incomplete)].into(),
            values: vec![PidValue {
                pid: "010C".into(),
                name: "engine_speed".into(),
                value: serde_json::json!(812.5),
                unit: "rpm".into(),
            }],
            monitor_tests: Vec::new(),
            iupr: Vec::new(),
            calibration_ids: vec!["37805".into()],
            cvns: Vec::new(),
            identification: Default::default(),
        };
        VehicleReport {
            visit: uuid::Uuid::nil(),
            vin: None,
            vin_check: VinCheck::Missing,
            order: None,
            link: "bay-1".parse().unwrap(),
            adapter: Adapter { identity: "ELM327 v1.5".into(), firmware: None, voltage_v: Some(12.6) },
            protocol: "iso15765-4-11bit-500k".into(),
            powertrain: Powertrain::Ice,
            engine_running: Some(true),
            started_at: crate::clock::UtcMillis(0),
            duration_ms: 2140,
            ecus: vec![ecu],
            odometer_km: None,
            odometer_source: None,
            distance_since_clear_km: Some(812),
            warmups_since_clear: Some(14),
            time_since_clear_min: None,
            assessable: false,
            not_assessable_because: vec!["monitor-incomplete:catalyst".into()],
            inspection: Inspection { ready: false, blocking: vec!["mil-on".into()] },
            errors: Vec::new(),
        }
    }

    #[test]
    fn both_languages_and_colour_only_when_asked() {
        let bundle = Bundle::load(std::path::Path::new("firmware-protocols")).unwrap();
        for (locale, words) in [
            (Locale::ZhCn, ["故障灯", "催化器效率低", "不可评估", "已确认+永久", "812.5 rpm"]),
            (
                Locale::En,
                [
                    "Malfunction lamp",
                    "Catalyst efficiency low",
                    "not assessable",
                    "confirmed+permanent",
                    "812.5 rpm",
                ],
            ),
        ] {
            let plain = render(&report(), &bundle, locale, false);
            for word in words {
                assert!(plain.contains(word), "{word} in\n{plain}");
            }
            assert!(!plain.contains('\x1b'));
            assert!(render(&report(), &bundle, locale, true).contains("\x1b[31mP0420"));
        }
    }
}
