//! The appendix: every value, freeze frame, test and failed request, for the mechanic.

use super::Html;
use super::sheet::{title, whole};
use crate::cli::report::{View, rounded, with_unit, words};
use crate::config::values::Locale;
use crate::event::vehicle::{EcuReport, PidValue};

pub(super) fn write(html: &mut Html, view: View<'_>) {
    let report = view.report;
    html.markup("<details class=\"appendix\"><summary>");
    html.text(view.pick("附录：全部数据（展开后才会打印）", "Appendix: all data (printed only when opened)"));
    html.markup("</summary><p class=\"quiet\">");
    let seconds = format!("{:.1} s", std::time::Duration::from_millis(report.duration_ms).as_secs_f64());
    let facts = [&report.adapter.identity, &words::protocol(&report.protocol), &seconds];
    html.text(&facts.map(String::as_str).join(" · ")).markup("</p>");
    whole(html, view);
    tests(html, view);
    for ecu in &report.ecus {
        one_ecu(html, view, ecu);
    }
    errors(html, view);
    html.markup("</details>");
}

fn one_ecu(html: &mut Html, view: View<'_>, ecu: &EcuReport) {
    title(html, &View::ecu_name(ecu));
    let lists = [
        ("标定号 (CAL ID)", "Calibration ids", &ecu.calibration_ids),
        ("标定校验码 (CVN)", "CVN", &ecu.cvns),
    ];
    for (zh, en, list) in lists.into_iter().filter(|(_, _, list)| !list.is_empty()) {
        html.markup("<p>").text(view.pick(zh, en)).markup(": ").text(&list.join(", ")).markup("</p>");
    }
    if let Some(known) = ecu.supported_codes {
        let words = match (known.not_tested_since_clear, view.locale) {
            (Some(open), Locale::ZhCn) => format!("可存故障码 {} 个，清码后未检测 {open} 个", known.count),
            (Some(open), Locale::En) => {
                format!("{} codes it could store, {open} of them not tested since clearing", known.count)
            }
            (None, Locale::ZhCn) => format!("可存故障码 {} 个", known.count),
            (None, Locale::En) => format!("{} codes it could store", known.count),
        };
        html.markup("<p class=\"quiet\">").text(&words).markup("</p>");
    }
    for dtc in &ecu.dtcs {
        let Some(data) = &dtc.extended_data else { continue };
        html.markup("<p class=\"quiet\">").text(view.pick("扩展数据", "Extended data")).markup(" ");
        html.text(&dtc.code).markup(": ").text(data).markup("</p>");
    }
    for (monitor, counts) in view.ratios(ecu) {
        html.markup("<p class=\"quiet\">").text(view.pick("在用监测频率", "In-use ratio")).markup(" ");
        html.text(&monitor).markup(": ").text(&counts).markup("</p>");
    }
    for frame in &ecu.freeze_frames {
        html.markup("<h3>")
            .text(view.pick("冻结帧", "Freeze frame"))
            .markup(" ")
            .text(&frame.code)
            .markup("</h3>");
        values(html, view, &frame.values);
    }
    values(html, view, &ecu.values);
}

fn values(html: &mut Html, view: View<'_>, values: &[PidValue]) {
    if values.is_empty() {
        return;
    }
    html.markup("<table class=\"values\">");
    for value in values {
        html.markup("<tr><td class=\"quiet\">").text(&value.pid).markup("</td><td>");
        html.text(&view.value_name(value))
            .markup("</td><td>")
            .text(&View::value_text(value))
            .markup("</td></tr>");
    }
    html.markup("</table>");
}

fn tests(html: &mut Html, view: View<'_>) {
    let tests = view.tests();
    if tests.is_empty() {
        return;
    }
    title(html, view.pick("监测结果（服务 06）", "Monitor results (service 06)"));
    html.markup("<table class=\"values\">");
    for (ecu, test) in tests {
        html.markup(if test.passed { "<tr><td class=\"good\">" } else { "<tr><td class=\"bad\">" });
        html.text(if test.passed { view.pick("通过", "passed") } else { view.pick("未通过", "failed") });
        html.markup("</td><td>").text(&view.test_name(test)).markup("</td><td>");
        html.text(&with_unit(&rounded(test.value), &test.unit)).markup("</td><td class=\"quiet\">");
        html.text(&format!("{} … {}", rounded(test.min), rounded(test.max)))
            .markup("</td><td class=\"quiet\">");
        html.text(&format!("{} {}.{}", ecu.address, test.mid, test.tid)).markup("</td></tr>");
    }
    html.markup("</table>");
}

fn errors(html: &mut Html, view: View<'_>) {
    if view.report.errors.is_empty() {
        return;
    }
    title(html, view.pick("未得到应答的请求", "Requests without an answer"));
    html.markup("<table class=\"values\">");
    for error in &view.report.errors {
        html.markup("<tr><td class=\"quiet\">").text(&error.request).markup("</td><td>");
        html.text(&words::request(&error.request, view.bundle, view.locale)).markup("</td><td>");
        html.text(&words::failure(&error.error, view.locale)).markup("</td></tr>");
    }
    html.markup("</table>");
}
