//! Clearing codes (services 04 and 14): the only thing this program does to a car. Pure. What
//! lives here: when it may be asked for, what must be true just before, what will be lost, and
//! how the car's answers are read. What does not: the confirmation (`store::confirmations`),
//! the bytes (`gate::clear`), the order of steps (`service`).
//!
//! ```text
//! till          api                     person at a till           vehicle service        car
//!  │ clear-dtcs  │                             │                          │                │
//!  ├────────────►│ report of this visit ≤10 min│                          │                │
//!  │◄── 202 what will be lost ─────────────────┤                          │                │
//!  │             │◄── POST confirmations/{id} ─┤                          │                │
//!  │             ├── yes + request, one commit ─────────────────────────► │ VIN, voltage   │
//!  │             │                             │                          ├── 010C ───────►│
//!  │             │                             │       used up, committed │◄─ 0 rpm ───────┤
//!  │             │                             │                          ├── 04 ─────────►│ once
//!  │             │◄── outcome + vehicle.cleared, one commit ──────────────┤  then a report │
//! ```

use crate::clock::UtcMillis;
use crate::event::Text;
use crate::event::vehicle::{ClearOutcome, Powertrain, Readiness, VehicleReport};
use crate::vehicle::answer::{Assembled, Message};
use crate::vehicle::battery::{Battery, Chemistry};
use crate::vehicle::gate::clear::Way;

/// What a confirmation for it is for, and the kind of the request that carries it out.
pub const WHAT: &str = "vehicle.clear-dtcs";
/// The saved report must say what is lost: older, and codes may have come since.
const MAX_REPORT_AGE_MS: i64 = 600_000;
/// Codes named in the text; more are counted.
const CODES_NAMED: usize = 10;

/// Why codes are not cleared.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Refusal {
    /// No car, or no report in its visit.
    NoReport,
    /// The report is older than ten minutes, or the clock was set since.
    ReportOld,
    /// The engine turns, 1/min.
    EngineRuns(f64),
    /// No unit told the engine's speed.
    EngineUnknown,
    /// The car moves, km/h.
    Moving(f64),
    /// The supply may fail while memories are erased, V.
    BatteryLow(f64),
    /// The visit the confirmation was given for is over.
    OtherVisit,
    /// Another car answers.
    OtherCar,
}

impl Refusal {
    /// Stable code.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::NoReport => "report-missing",
            Self::ReportOld => "report-too-old",
            Self::EngineRuns(_) => "engine-running",
            Self::EngineUnknown => "engine-state-unknown",
            Self::Moving(_) => "vehicle-moving",
            Self::BatteryLow(_) => "battery-low",
            Self::OtherVisit => "visit-over",
            Self::OtherCar => "other-vehicle",
        }
    }

    /// For people.
    #[must_use]
    pub fn text(self) -> Text {
        match self {
            Self::NoReport => Text::new(
                "本次到店尚无检测报告；请先扫描车辆，再清除故障码",
                "there is no report of this visit; scan the car first, then clear codes",
            ),
            Self::ReportOld => Text::new(
                "检测报告已超过 10 分钟；请重新扫描，再清除故障码",
                "the report is older than 10 minutes; scan the car again, then clear codes",
            ),
            Self::EngineRuns(rpm) => Text::new(
                format!("发动机正在运转（{rpm:.0} 转/分）；请熄火并保持点火开关打开"),
                format!("the engine runs ({rpm:.0} rpm); switch it off and leave the ignition on"),
            ),
            Self::EngineUnknown => Text::new(
                "无法确认发动机已熄火（无控制单元告知转速）；未清除",
                "no control unit tells the engine's speed, so nothing proves that it is off; nothing was cleared",
            ),
            Self::Moving(speed) => Text::new(
                format!("车辆正在移动（{speed:.0} 公里/小时）；请停车"),
                format!("the car moves ({speed:.0} km/h); stop it"),
            ),
            Self::BatteryLow(volts) => Text::new(
                format!("电瓶电压过低（{volts:.1} V）；请连接充电器后再清除"),
                format!("the battery is low ({volts:.1} V); connect a charger, then clear codes"),
            ),
            Self::OtherVisit => Text::new(
                "确认所针对的车辆已离开；请重新扫描并申请",
                "the visit this was confirmed for is over; scan the car now present and ask again",
            ),
            Self::OtherCar => Text::new(
                "当前应答的车辆与报告不符；未清除，请重新扫描",
                "another car than in the report answers; nothing was cleared, scan it first",
            ),
        }
    }
}

/// Whether clearing may be asked for, by the visit's last report.
///
/// # Errors
/// [`Refusal`].
pub fn may_ask(report: &VehicleReport, now: UtcMillis) -> Result<(), Refusal> {
    let age_ms = now.0 - report.started_at.0;
    if !(0..=MAX_REPORT_AGE_MS).contains(&age_ms) {
        return Err(Refusal::ReportOld);
    }
    let rpm = report.ecus.iter().flat_map(|ecu| &ecu.values).find(|value| value.name == "engine_speed");
    match rpm.and_then(|value| value.value.as_f64()) {
        Some(rpm) if rpm > 0.0 => Err(Refusal::EngineRuns(rpm)),
        _ => Ok(()),
    }
}

/// What was read just before, afresh.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Before {
    /// At the plug, or by the car's own word; `None`: neither tells.
    pub volts: Option<f64>,
    /// What the car's battery is taken for.
    pub chemistry: Chemistry,
    /// Engine speed of every unit that told one, 1/min.
    pub rpm: Vec<f64>,
    /// Road speed, asked of cars that may drive with a standing engine, km/h.
    pub speed_km_h: Option<f64>,
    /// By the last report.
    pub powertrain: Powertrain,
}

/// Whether codes may be cleared now.
///
/// # Errors
/// [`Refusal`].
pub fn may_clear(before: &Before) -> Result<(), Refusal> {
    let mut battery = Battery::default();
    battery.learn(before.chemistry);
    if let Some(volts) = before.volts.filter(|_| battery.is_below(before.volts, false)) {
        return Err(Refusal::BatteryLow(volts));
    }
    if let Some(rpm) = before.rpm.iter().copied().find(|rpm| *rpm > 0.0) {
        return Err(Refusal::EngineRuns(rpm));
    }
    if let Some(speed) = before.speed_km_h.filter(|speed| *speed > 0.0) {
        return Err(Refusal::Moving(speed));
    }
    // A battery car has no engine to be off: it must be seen to stand.
    let seen = match before.powertrain {
        Powertrain::Bev => before.speed_km_h.is_some(),
        Powertrain::Ice | Powertrain::Hybrid | Powertrain::Unknown => !before.rpm.is_empty(),
    };
    if !seen {
        return Err(Refusal::EngineUnknown);
    }
    Ok(())
}

/// The codes a report has, each once, in its order.
#[must_use]
pub fn codes(report: &VehicleReport) -> Vec<String> {
    let mut codes = Vec::new();
    for dtc in report.ecus.iter().flat_map(|ecu| &ecu.dtcs) {
        if !codes.contains(&dtc.code) {
            codes.push(dtc.code.clone());
        }
    }
    codes
}

/// Service 04, unless only UDS told codes or nothing else answers.
#[must_use]
pub fn way(report: &VehicleReport) -> Way {
    let mut dtcs = report.ecus.iter().flat_map(|ecu| &ecu.dtcs).peekable();
    let told_obd = report.ecus.iter().any(|ecu| ecu.values.iter().any(|value| value.pid.starts_with("01")));
    if dtcs.peek().is_some() && dtcs.all(|dtc| dtc.source == "uds") || !told_obd {
        Way::Uds
    } else {
        Way::Obd
    }
}

/// What clearing takes from the car, for the one who decides.
#[must_use]
pub fn what_is_lost(report: &VehicleReport) -> Text {
    let codes = codes(report);
    let named = codes.iter().take(CODES_NAMED).cloned().collect::<Vec<_>>();
    let more = codes.len().saturating_sub(CODES_NAMED);
    let frames = report.ecus.iter().map(|ecu| ecu.freeze_frames.len()).sum::<usize>();
    let complete = report
        .ecus
        .iter()
        .flat_map(|ecu| ecu.readiness.values())
        .filter(|state| **state == Readiness::Complete)
        .count();
    let list =
        |comma: &str| if named.is_empty() { String::new() } else { format!("({})", named.join(comma)) };
    let (more_zh, more_en) = match more {
        0 => (String::new(), String::new()),
        more => (format!("，另有 {more} 个"), format!(" and {more} more")),
    };
    let km = report.distance_since_clear_km;
    let since_zh = km.map_or(String::new(), |km| format!("（现为 {km} 公里）"));
    let since_en = km.map_or(String::new(), |km| format!(" (now {km} km)"));
    Text::new(
        format!(
            "将丢失：故障码 {} 个{}{more_zh}；冻结帧 {frames} 个；已完成的就绪监测 {complete} 项（需重新行驶，年检在此之前不合格）；清码后里程、暖机次数和时间归零{since_zh}；车载监测结果。永久故障码不会被清除。如故障仍在，故障码会再次出现。",
            codes.len(),
            list("、"),
        ),
        format!(
            "This will be lost: {} code(s) {}{more_en}; {frames} freeze frame(s); {complete} completed readiness monitor(s), which need driving to complete again (the annual check fails until then); distance{since_en}, warm-ups and time since codes were cleared; monitor test results. Permanent codes stay. If the fault is still there, its code comes back.",
            codes.len(),
            list(", "),
        ),
    )
}

/// What became of the one command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Delivery {
    /// It left.
    #[default]
    Sent,
    /// It did not, and will not.
    NotSent,
    /// It did not, and may still: it waits in a controller until somebody acknowledges it.
    Pending,
}

/// What the car said to it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ClearAnswer {
    /// Whether it was sent at all.
    pub delivery: Delivery,
    /// Units that cleared, by response address.
    pub cleared: Vec<String>,
    /// Units that refused, with the negative response code.
    pub refused: Vec<(String, u8)>,
    /// Units that asked for patience and said no more.
    pub waiting: Vec<String>,
    /// What the adapter complained about.
    pub complaint: Option<&'static str>,
}

impl ClearAnswer {
    /// Nobody answered, and why.
    #[must_use]
    pub fn without_answer(delivery: Delivery, why: &'static str) -> Self {
        Self { delivery, complaint: Some(why), ..Self::default() }
    }

    /// Sorts what came in answer.
    #[must_use]
    pub fn sort(assembled: &Assembled, way: Way, complaint: Option<&'static str>) -> Self {
        let mut answer = Self { complaint, ..Self::default() };
        for Message { sender, payload } in &assembled.messages {
            let unit = sender.to_string();
            match payload.as_slice() {
                [told, ..] if *told == way.service() | 0x40 => answer.cleared.push(unit),
                [0x7F, service, 0x78, ..] if *service == way.service() => answer.waiting.push(unit),
                [0x7F, service, code, ..] if *service == way.service() => answer.refused.push((unit, *code)),
                _ => {}
            }
        }
        let settled = |unit: &String| {
            answer.cleared.contains(unit) || answer.refused.iter().any(|(other, _)| other == unit)
        };
        let waiting = std::mem::take(&mut answer.waiting);
        answer.waiting = waiting.into_iter().filter(|unit| !settled(unit)).collect();
        answer
    }

    /// In one word; what was not sent for certain is unknown all the same: nobody looked.
    #[must_use]
    pub fn outcome(&self) -> ClearOutcome {
        match (self.cleared.is_empty(), self.refused.is_empty(), self.waiting.is_empty()) {
            (false, true, true) => ClearOutcome::Cleared,
            (false, _, _) => ClearOutcome::Partly,
            (true, false, true) => ClearOutcome::Refused,
            (true, _, _) => ClearOutcome::Unknown,
        }
    }
}

#[cfg(test)]
mod tests;
