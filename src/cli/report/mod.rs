//! A vehicle report for people: on a terminal ([`table`]) and as a page to hand to
//! a customer ([`html`]). What lives here: what both show and in which order, worst
//! first. What does not: what the report says (`vehicle::report`).

pub mod html;
#[cfg(test)]
mod sample;
pub mod table;
mod words;

pub use words::request as request_in_words;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::clock::UtcMillis;
use crate::config::Config;
use crate::config::values::Locale;
use crate::event::Text;
use crate::event::maintenance::{Evidence, MaintenanceWarning, Severity};
use crate::event::vehicle::{DtcEntry, DtcState, EcuReport, MonitorTest, PidValue, Readiness, VehicleReport};
use crate::protocols::Bundle;
use crate::vehicle::vin;

/// What is shown, in which language, and for whom.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    /// The report.
    pub report: &'a VehicleReport,
    /// The warnings joined to it.
    pub warnings: &'a [MaintenanceWarning],
    /// Names of values and monitors.
    pub bundle: &'a Bundle,
    /// The language.
    pub locale: Locale,
    /// Where times are told.
    pub zone: &'a TimeZone,
    /// The store's name, where one is known.
    pub store: Option<&'a str>,
}

/// The store's time zone, or that of this machine.
#[must_use]
pub fn zone(config: Option<&Config>) -> TimeZone {
    config.and_then(|config| TimeZone::get(&config.gateway.timezone).ok()).unwrap_or_else(TimeZone::system)
}

impl<'a> View<'a> {
    fn pick<'t>(&self, zh: &'t str, en: &'t str) -> &'t str {
        self.locale.pick(zh, en)
    }

    /// Local date and time, to the minute.
    fn time(&self, time: UtcMillis) -> String {
        Timestamp::from_millisecond(time.0).map_or_else(
            |_| time.to_string(),
            |stamp| stamp.to_zoned(self.zone.clone()).strftime("%Y-%m-%d %H:%M").to_string(),
        )
    }

    /// Warnings, the most urgent first.
    fn warnings_by_urgency(&self) -> Vec<&'a MaintenanceWarning> {
        let mut sorted: Vec<&MaintenanceWarning> = self.warnings.iter().collect();
        sorted.sort_by_key(|warning| match warning.severity {
            Severity::Stop => 0,
            Severity::Soon => 1,
            Severity::Advise => 2,
            Severity::Info => 3,
        });
        sorted
    }

    /// Codes of all ECUs, confirmed before permanent before pending.
    fn codes_by_gravity(&self) -> Vec<(&'a EcuReport, &'a DtcEntry)> {
        let of_ecu = |ecu: &'a EcuReport| ecu.dtcs.iter().map(move |dtc| (ecu, dtc));
        let mut sorted: Vec<_> = self.report.ecus.iter().flat_map(of_ecu).collect();
        sorted.sort_by_key(|(_, dtc)| dtc.state.iter().min().copied().map_or(3, gravity));
        sorted
    }

    /// Monitors of all ECUs that the car has: the incomplete ones first.
    fn monitors(&self) -> Vec<(String, Readiness)> {
        let mut monitors: Vec<(String, Readiness)> = Vec::new();
        for (name, state) in self.report.ecus.iter().flat_map(|ecu| &ecu.readiness) {
            match monitors.iter_mut().find(|(known, _)| known == name) {
                Some((_, known)) if weight(*state) < weight(*known) => *known = *state,
                Some(_) => {}
                None => monitors.push((name.clone(), *state)),
            }
        }
        monitors.retain(|(_, state)| *state != Readiness::Unsupported);
        monitors.sort_by_key(|(_, state)| weight(*state));
        monitors
    }

    /// A note for a monitor that is complete and has yet to run in this drive cycle.
    fn not_yet_this_cycle(&self, name: &str, state: Readiness) -> Option<&'static str> {
        let cycles = self.report.ecus.iter().filter_map(|ecu| ecu.readiness_this_cycle.get(name));
        let open = state == Readiness::Complete && cycles.into_iter().any(|s| *s == Readiness::Incomplete);
        open.then(|| self.pick("本次行程尚未完成", "not yet in this drive cycle"))
    }

    /// Results of on-board tests, those that failed first.
    fn tests(&self) -> Vec<(&'a EcuReport, &'a MonitorTest)> {
        let of_ecu = |ecu: &'a EcuReport| ecu.monitor_tests.iter().map(move |test| (ecu, test));
        let mut sorted: Vec<_> = self.report.ecus.iter().flat_map(of_ecu).collect();
        sorted.sort_by_key(|(_, test)| test.passed);
        sorted
    }

    /// Whether the lamp is on, of all ECUs; `None`: nobody said.
    fn lamp(&self) -> Option<bool> {
        let told: Vec<bool> = self.report.ecus.iter().filter_map(|ecu| ecu.mil).collect();
        (!told.is_empty()).then(|| told.contains(&true))
    }

    /// Who built the car, and its model year, by the VIN.
    fn make(&self) -> Option<String> {
        let vin = self.report.vin.as_ref()?;
        let year =
            Timestamp::from_millisecond(self.report.started_at.0).ok()?.to_zoned(self.zone.clone()).year();
        let facts = vin::read(vin, &self.bundle.vin, u16::try_from(year).ok()?);
        let maker = facts.maker.map(|maker| self.pick(&maker.name.zh, &maker.name.en).to_owned());
        let year = facts.model_year.map(|year| match self.locale {
            Locale::ZhCn => format!("{year} 年款"),
            Locale::En => format!("model year {year}"),
        });
        let told: Vec<String> = [maker, year].into_iter().flatten().collect();
        (!told.is_empty()).then(|| told.join(self.pick("，", ", ")))
    }

    /// What a test looked at. The report has it in English; the tables have both languages.
    fn test_name(&self, test: &MonitorTest) -> String {
        let tables = &self.bundle.monitor_tests;
        let id = |hex: &str| u8::from_str_radix(hex, 16).ok();
        let words = |text: &Text| self.pick(&text.zh, &text.en).to_owned();
        let monitor = id(&test.mid).and_then(|mid| tables.monitor(mid)).map(words);
        let what = id(&test.tid).and_then(|tid| tables.test(tid)).map(|row| words(&row.name));
        match monitor {
            // On older buses the first id is no monitor, and the name says so.
            Some(monitor) if self.report.protocol.starts_with("iso15765") => {
                // Most tests are the maker's own and have a number alone.
                let what = what.unwrap_or_else(|| format!("{} {}", self.pick("测试", "test"), test.tid));
                format!("{monitor}{}{what}", self.pick("：", ": "))
            }
            _ => test.name.clone(),
        }
    }

    /// In-use ratios: monitor and how often it completed against how often it could have.
    fn ratios(&self, ecu: &EcuReport) -> Vec<(String, String)> {
        let number = |ratio: &serde_json::Value, name: &str| ratio.get(name).map(figure);
        let one = |ratio: &serde_json::Value| {
            let key = ratio.get("monitor")?.as_str()?;
            let name = match key {
                "general" => {
                    self.pick("点火循环 / 一般条件", "ignition cycles / general conditions").to_owned()
                }
                key => words::monitor(key, self.bundle, self.locale),
            };
            let bank = number(ratio, "bank").map(|bank| match self.locale {
                Locale::ZhCn => format!(" {bank} 列"),
                Locale::En => format!(" bank {bank}"),
            });
            let counts = match (number(ratio, "completed"), number(ratio, "conditions")) {
                (Some(completed), Some(conditions)) => format!("{completed} / {conditions}"),
                (None, conditions) => {
                    format!("{} / {}", number(ratio, "ignition_cycles")?, conditions?)
                }
                (Some(completed), None) => completed,
            };
            let ratio = number(ratio, "ratio").map(|ratio| format!(" = {ratio}")).unwrap_or_default();
            Some((format!("{name}{}", bank.unwrap_or_default()), format!("{counts}{ratio}")))
        };
        ecu.iupr.iter().filter_map(one).collect()
    }

    fn ecu_name(ecu: &EcuReport) -> String {
        match &ecu.name {
            Some(name) => format!("{name} ({})", ecu.address),
            None => ecu.address.clone(),
        }
    }

    /// One piece of a warning's evidence: name, value, limit.
    fn evidence_text(&self, evidence: &Evidence) -> String {
        let name = words::evidence(&evidence.name, self.bundle, self.locale);
        let unit = evidence.unit.as_deref().unwrap_or("");
        let value = match &evidence.value {
            serde_json::Value::Bool(true) => self.pick("是", "yes").to_owned(),
            serde_json::Value::Bool(false) => self.pick("否", "no").to_owned(),
            value => with_unit(&figure(value), unit),
        };
        match &evidence.limit {
            Some(limit) => {
                format!("{name} {value} ({} {})", self.pick("限值", "limit"), with_unit(&figure(limit), unit))
            }
            None => format!("{name} {value}"),
        }
    }

    /// A PID of one signal has a name for people; of several, the signal's own goes with it.
    fn value_name(&self, value: &PidValue) -> String {
        let pid = value.pid.get(2..).and_then(|pid| u8::from_str_radix(pid, 16).ok());
        match pid.and_then(|pid| self.bundle.pids.get(0x01, pid)) {
            Some(row) if row.signals.len() == 1 => self.pick(&row.name.zh, &row.name.en).to_owned(),
            Some(row) => format!("{} · {}", self.pick(&row.name.zh, &row.name.en), value.name),
            None => value.name.clone(),
        }
    }

    fn value_text(value: &PidValue) -> String {
        match &value.value {
            serde_json::Value::String(text) => text.clone(),
            number => with_unit(&figure(number), &value.unit),
        }
    }
}

fn gravity(state: DtcState) -> u8 {
    match state {
        DtcState::Confirmed => 0,
        DtcState::Permanent => 1,
        DtcState::Pending => 2,
    }
}

fn weight(state: Readiness) -> u8 {
    match state {
        Readiness::Incomplete => 0,
        Readiness::Complete => 1,
        Readiness::Unsupported => 2,
    }
}

/// A number as people read it: two decimals, and none that are zero. JSON has them all.
pub(super) fn figure(number: &serde_json::Value) -> String {
    match number {
        serde_json::Value::String(text) => text.clone(),
        number => number.as_f64().map_or_else(|| number.to_string(), rounded),
    }
}

pub(super) fn rounded(value: f64) -> String {
    ((value * 100.0).round() / 100.0).to_string()
}

/// `degC` is `°C` for people.
pub(super) fn unit_for_people(unit: &str) -> &str {
    if unit == "degC" { "°C" } else { unit }
}

/// A figure with its unit.
pub(super) fn with_unit(figure: &str, unit: &str) -> String {
    match unit_for_people(unit) {
        "" => figure.to_owned(),
        "%" => format!("{figure}%"),
        unit => format!("{figure} {unit}"),
    }
}
