//! The sheet the customer gets: who, what, the verdict, what to do, and what it rests on. One
//! page of A4, whatever the car says: of each list the worst entries, how many more there are,
//! and all of them in the appendix.

use super::Html;
use crate::cli::report::{View, rounded, words};
use crate::config::values::Locale;
use crate::event::maintenance::{MaintenanceWarning, Severity};
use crate::event::vehicle::{Inspection, Readiness};

/// Codes on the sheet.
pub(super) const CODES: usize = 6;
/// Warnings, …
pub(super) const WARNINGS: usize = 3;
/// … and what each rests on.
pub(super) const EVIDENCE: usize = 3;
/// What blocks the annual check, or is noted about it.
pub(super) const REASONS: usize = 5;
/// Why the car's condition cannot be judged, in its tile.
pub(super) const WHY: usize = 3;

pub(super) fn write(html: &mut Html, view: View<'_>) {
    head(html, view);
    car(html, view);
    tiles(html, view);
    inspection(html, view, REASONS);
    warnings(html, view, WARNINGS, EVIDENCE);
    codes(html, view, CODES);
    readiness(html, view);
    foot(html, view);
}

/// The lists that the sheet cuts, whole.
pub(super) fn whole(html: &mut Html, view: View<'_>) {
    let Inspection { blocking, notes, .. } = &view.report.inspection;
    if blocking.len() + notes.len() > REASONS {
        inspection(html, view, usize::MAX);
    }
    if view.report.not_assessable_because.len() > WHY {
        title(html, view.pick("不可评估的原因", "Why it cannot be judged"));
        html.markup("<ul>");
        for why in &view.report.not_assessable_because {
            html.markup("<li>").text(&words::reason(why, view.bundle, view.locale)).markup("</li>");
        }
        html.markup("</ul>");
    }
    if view.warnings.len() > WARNINGS || view.warnings.iter().any(|one| one.evidence.len() > EVIDENCE) {
        warnings(html, view, usize::MAX, usize::MAX);
    }
    if view.codes_by_gravity().len() > CODES {
        codes(html, view, usize::MAX);
    }
}

/// Says how many of a list are not here.
fn more(html: &mut Html, view: View<'_>, all: usize, most: usize) {
    if all > most {
        html.markup("<p class=\"quiet\">").text(&more_words(view, all - most)).markup("</p>");
    }
}

fn more_words(view: View<'_>, count: usize) -> String {
    match view.locale {
        Locale::ZhCn => format!("另有 {count} 项，见附录"),
        Locale::En => format!("{count} more in the appendix"),
    }
}

fn head(html: &mut Html, view: View<'_>) {
    html.markup("<header><div><p class=\"store\">").text(view.store.unwrap_or(""));
    html.markup("</p><h1>")
        .text(view.pick("车辆检测报告", "Vehicle report"))
        .markup("</h1></div><div class=\"when\">");
    html.text(&view.time(view.report.started_at));
    if let Some(order) = &view.report.order {
        html.markup("<br>").text(view.pick("工单 ", "Order ")).text(order);
    }
    html.markup("</div></header>");
}

fn car(html: &mut Html, view: View<'_>) {
    let report = view.report;
    let fact = |html: &mut Html, zh: &str, en: &str, value: &str| {
        html.markup("<div><dt>")
            .text(view.pick(zh, en))
            .markup("</dt><dd>")
            .text(value)
            .markup("</dd></div>");
    };
    html.markup("<dl class=\"car\">");
    let (check, well) = words::vin_check(report.vin_check, view.locale);
    let vin = report.vin.as_ref().map_or("—", |vin| vin.as_str());
    let vin = if well { vin.to_owned() } else { format!("{vin} ({check})") };
    fact(html, "车辆识别代号 (VIN)", "VIN", &vin);
    let odometer = report.odometer_km.map_or("—".to_owned(), |km| {
        let source = report.odometer_source.as_deref().unwrap_or("");
        let source = words::odometer_source(source, view.locale);
        if source.is_empty() {
            format!("{} km", rounded(km))
        } else {
            format!("{} km ({source})", rounded(km))
        }
    });
    fact(html, "里程", "Odometer", &odometer);
    let powertrain = words::powertrain(report.powertrain, view.locale).to_owned();
    let car = [view.make(), Some(powertrain)].into_iter().flatten().collect::<Vec<_>>();
    fact(html, "车辆", "Car", &car.join(view.pick("，", ", ")));
    let volts = report.adapter.voltage_v.map_or("—".to_owned(), |volts| format!("{volts:.1} V"));
    let volts = match report.engine_running {
        Some(true) => format!("{volts} ({})", view.pick("发动机运转", "engine running")),
        Some(false) => format!("{volts} ({})", view.pick("发动机停止", "engine off")),
        None => volts,
    };
    fact(html, "电瓶电压", "Battery voltage", &volts);
    html.markup("</dl>");
}

/// The three answers a customer asks for.
fn tiles(html: &mut Html, view: View<'_>) {
    let report = view.report;
    html.markup("<section class=\"tiles\">");
    let codes = view.codes_by_gravity().len();
    let told = !report.not_assessable_because.iter().any(|why| why == "codes-unknown");
    let lamp = view.lamp() == Some(true);
    let (colour, count) = match (codes, told) {
        (0, true) if !lamp => ("good", view.pick("无", "none").to_owned()),
        (0, _) if !lamp => ("careful", view.pick("未读到", "not read").to_owned()),
        (count, _) => ("bad", count.to_string()),
    };
    let below = match view.lamp() {
        Some(true) => view.pick("故障灯点亮", "malfunction lamp on"),
        Some(false) => view.pick("故障灯熄灭", "malfunction lamp off"),
        None => view.pick("故障灯未知", "malfunction lamp not known"),
    };
    tile(html, colour, view.pick("故障码", "Trouble codes"), &count, below);
    let (colour, word, below) = if report.inspection.ready {
        (
            "good",
            view.pick("无已知阻碍", "nothing in its way"),
            view.pick("预判，以检测站为准", "a forecast, the station decides"),
        )
    } else {
        ("bad", view.pick("预计不通过", "would not pass"), view.pick("原因见下", "reasons below"))
    };
    tile(html, colour, view.pick("年检 OBD 检查", "Annual OBD check"), word, below);
    let (colour, word) = if report.assessable {
        ("good", view.pick("可评估", "can be judged"))
    } else {
        ("careful", view.pick("不可评估", "cannot be judged"))
    };
    let why = report.not_assessable_because.iter().map(|code| words::reason(code, view.bundle, view.locale));
    let left = report.not_assessable_because.len().saturating_sub(WHY);
    let why = why.take(WHY).chain((left > 0).then(|| more_words(view, left)));
    let why = why.collect::<Vec<_>>().join(view.pick("；", "; "));
    tile(html, colour, view.pick("车况评估", "Condition"), word, &why);
    html.markup("</section>");
}

fn tile(html: &mut Html, colour: &'static str, title: &str, word: &str, below: &str) {
    html.markup("<div class=\"tile ")
        .markup(colour)
        .markup("\"><h3>")
        .text(title)
        .markup("</h3><p class=\"word\">");
    html.text(word).markup("</p><p>").text(below).markup("</p></div>");
}

fn inspection(html: &mut Html, view: View<'_>, most: usize) {
    let inspection = &view.report.inspection;
    if inspection.blocking.is_empty() && inspection.notes.is_empty() {
        return;
    }
    title(html, view.pick("年检 OBD 检查", "Annual OBD check"));
    html.markup("<ul>");
    for code in inspection.blocking.iter().take(most) {
        html.markup("<li class=\"bad\">")
            .text(&words::reason(code, view.bundle, view.locale))
            .markup("</li>");
    }
    for code in inspection.notes.iter().take(most.saturating_sub(inspection.blocking.len())) {
        html.markup("<li>").text(&words::reason(code, view.bundle, view.locale)).markup("</li>");
    }
    html.markup("</ul>");
    more(html, view, inspection.blocking.len() + inspection.notes.len(), most);
}

fn warnings(html: &mut Html, view: View<'_>, most: usize, evidence: usize) {
    let warnings = view.warnings_by_urgency();
    if warnings.is_empty() {
        return;
    }
    title(html, view.pick("提醒与依据", "Warnings and what they rest on"));
    html.markup("<table class=\"warnings\">");
    let all = warnings.len();
    for warning in warnings.into_iter().take(most) {
        one_warning(html, view, warning, evidence);
    }
    html.markup("</table>");
    more(html, view, all, most);
}

fn one_warning(html: &mut Html, view: View<'_>, warning: &MaintenanceWarning, most: usize) {
    let colour = match warning.severity {
        Severity::Stop | Severity::Soon => "bad",
        Severity::Advise => "careful",
        Severity::Info => "quiet",
    };
    html.markup("<tr><td class=\"")
        .markup(colour)
        .markup("\">")
        .text(words::severity(warning.severity, view.locale));
    html.markup("</td><td><b>").text(view.pick(&warning.title.zh, &warning.title.en)).markup("</b><br>");
    html.text(view.pick(&warning.advice.zh, &warning.advice.en));
    html.markup("<p class=\"evidence\">").text(words::confidence(warning.confidence, view.locale));
    for evidence in warning.evidence.iter().take(most) {
        html.markup(" · ").text(&view.evidence_text(evidence));
    }
    html.markup("</p></td></tr>");
}

fn codes(html: &mut Html, view: View<'_>, most: usize) {
    let codes = view.codes_by_gravity();
    if codes.is_empty() {
        return;
    }
    title(html, view.pick("故障码", "Trouble codes"));
    html.markup("<table class=\"codes\">");
    let all = codes.len();
    for (ecu, dtc) in codes.into_iter().take(most) {
        let unknown =
            view.pick("含义未收录，请按车型资料查询", "meaning not known here: look it up for this car");
        html.markup("<tr><td class=\"code\">").text(&dtc.code).markup("</td><td>");
        html.text(dtc.text.as_ref().map_or(unknown, |text| view.pick(&text.zh, &text.en)))
            .markup("</td><td>");
        html.text(&words::dtc_states(&dtc.state, view.locale)).markup("</td><td class=\"quiet\">");
        html.text(ecu.name.as_deref().unwrap_or(&ecu.address)).markup("</td></tr>");
    }
    html.markup("</table>");
    more(html, view, all, most);
}

fn readiness(html: &mut Html, view: View<'_>) {
    let monitors = view.monitors();
    if monitors.is_empty() {
        return;
    }
    title(html, view.pick("就绪状态（自检是否完成）", "Readiness (has the car tested itself)"));
    html.markup("<ul class=\"monitors\">");
    for (name, state) in monitors {
        let incomplete = state == Readiness::Incomplete;
        html.markup(if incomplete { "<li class=\"careful\">" } else { "<li class=\"good\">" });
        html.text(&words::monitor(&name, view.bundle, view.locale)).markup(" <b>");
        html.text(words::readiness(state, view.locale)).markup("</b>");
        if let Some(note) = view.not_yet_this_cycle(&name, state) {
            html.markup(" ").text(note);
        }
        html.markup("</li>");
    }
    html.markup("</ul>");
}

fn foot(html: &mut Html, view: View<'_>) {
    html.markup("<footer><p>").text(view.pick(
        "本报告以只读方式读取车辆自诊断数据，未对车辆作任何改动。内容为检测时刻的状态，用于提示检查，不构成对车况或年检结果的保证。",
        "Read from the car's own diagnosis without changing anything. It tells the state at that moment and what to check; it is no guarantee of the car's condition or of the annual check.",
    ));
    html.markup("</p><p class=\"sign\"><span>").text(view.pick("检测人", "Read by")).markup("</span><span>");
    html.text(view.pick("客户", "Customer")).markup("</span></p></footer>");
}

pub(super) fn title(html: &mut Html, title: &str) {
    html.markup("<h2>").text(title).markup("</h2>");
}
