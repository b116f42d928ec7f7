//! The report's stable codes in words, Chinese and English. A code that is not
//! known here is shown as it stands: newer reports are read too.

use crate::config::values::Locale;
use crate::event::maintenance::{Confidence, Severity};
use crate::event::vehicle::{DtcState, Powertrain, Readiness, VinCheck};
use crate::protocols::{Bundle, PidRow};

/// A stable code of `inspection` or `not_assessable_because`.
pub fn reason(code: &str, bundle: &Bundle, locale: Locale) -> String {
    let (name, detail) = code.split_once(':').unwrap_or((code, ""));
    let (zh, en) = match name {
        "mil-on" => ("故障指示灯点亮", "the malfunction lamp is on"),
        "dtc-confirmed" => ("存在已确认故障码", "confirmed trouble codes are stored"),
        "dtc-permanent" => (
            "存在永久故障码（维修后须由车辆自行清除）",
            "permanent trouble codes are stored (only the car itself clears them)",
        ),
        "dtc-pending" => ("存在待定故障码", "pending trouble codes are stored"),
        "communication-failed" => ("与车辆通讯中断", "the car stopped communicating"),
        "readiness-unknown" => ("未读到就绪状态", "readiness could not be read"),
        "codes-unknown" => ("未读到故障码", "trouble codes could not be read"),
        "calibration-unknown" => ("车辆未提供标定号 (CAL ID)", "the car gives no calibration id (CAL ID)"),
        "cvn-unknown" => {
            ("车辆未提供标定校验码 (CVN)", "the car gives no calibration verification number (CVN)")
        }
        "codes-cleared-recently" => (
            "故障码近期被清除，监测尚未充分运行",
            "codes were cleared recently, monitors have not run enough",
        ),
        "scan-incomplete" => ("读取中断，仅有部分数据", "the scan broke off, this is a part of the data"),
        "no-emission-check" => ("纯电动车，不做排放 OBD 检查", "an electric car: no emission check"),
        "monitor-incomplete" => {
            let name = monitor(detail, bundle, locale);
            return match locale {
                Locale::ZhCn => format!("{name}未完成"),
                Locale::En => format!("{name}: not complete"),
            };
        }
        "cvn-changed" => {
            ("标定号相同而校验码 (CVN) 与上次不同", "same calibration id, another CVN than last time")
        }
        "calibration-changed" => {
            ("标定与上次不同（软件更新？）", "calibration differs from last time (an update?)")
        }
        _ => return code.to_owned(),
    };
    let words = locale.pick(zh, en);
    if detail.is_empty() { words.to_owned() } else { format!("{words} ({detail})") }
}

/// A readiness monitor by its key.
pub fn monitor(key: &str, bundle: &Bundle, locale: Locale) -> String {
    let table = &bundle.readiness;
    let mut rows = table.continuous.iter().chain(&table.spark).chain(&table.compression);
    rows.find(|row| row.name == key)
        .map_or_else(|| key.to_owned(), |row| locale.pick(&row.text.zh, &row.text.en).to_owned())
}

pub fn readiness(state: Readiness, locale: Locale) -> &'static str {
    match state {
        Readiness::Complete => locale.pick("已完成", "complete"),
        Readiness::Incomplete => locale.pick("未完成", "incomplete"),
        Readiness::Unsupported => locale.pick("不支持", "unsupported"),
    }
}

pub fn dtc_state(state: DtcState, locale: Locale) -> &'static str {
    match state {
        DtcState::Confirmed => locale.pick("已确认", "confirmed"),
        DtcState::Pending => locale.pick("待定", "pending"),
        DtcState::Permanent => locale.pick("永久", "permanent"),
    }
}

/// The states of a code, the gravest first.
pub fn dtc_states(states: &[DtcState], locale: Locale) -> String {
    let mut states = states.to_vec();
    states.sort_by_key(|state| super::gravity(*state));
    let words: Vec<&str> = states.into_iter().map(|state| dtc_state(state, locale)).collect();
    words.join("+")
}

pub fn severity(severity: Severity, locale: Locale) -> &'static str {
    match severity {
        Severity::Stop => locale.pick("立即停驶", "stop"),
        Severity::Soon => locale.pick("尽快处理", "soon"),
        Severity::Advise => locale.pick("建议", "advice"),
        Severity::Info => locale.pick("提示", "info"),
    }
}

pub fn confidence(confidence: Confidence, locale: Locale) -> &'static str {
    match confidence {
        Confidence::Measured => locale.pick("实测", "measured"),
        Confidence::Indicated => locale.pick("车辆自诊断", "the car says so"),
        Confidence::Trend => locale.pick("趋势", "trend"),
    }
}

pub fn powertrain(powertrain: Powertrain, locale: Locale) -> &'static str {
    match powertrain {
        Powertrain::Ice => locale.pick("燃油", "combustion"),
        Powertrain::Hybrid => locale.pick("混合动力", "hybrid"),
        Powertrain::Bev => locale.pick("纯电动", "battery electric"),
        Powertrain::Unknown => locale.pick("未知", "unknown"),
    }
}

/// What is known of the VIN's form, and whether that is well.
pub fn vin_check(check: VinCheck, locale: Locale) -> (&'static str, bool) {
    match check {
        VinCheck::Ok => (locale.pick("校验正确", "check digit right"), true),
        VinCheck::CheckDigitWrong => {
            (locale.pick("校验位不符（部分地区不使用）", "check digit differs (not used everywhere)"), false)
        }
        VinCheck::Malformed => (locale.pick("不是有效的 VIN", "not a valid VIN"), false),
        VinCheck::Missing => (locale.pick("车辆未提供", "not given by the car"), false),
    }
}

pub fn odometer_source(source: &str, locale: Locale) -> String {
    match source {
        "obd" => locale.pick("车辆提供", "told by the car").to_owned(),
        "dashboard" => locale.pick("仪表读数", "read off the dashboard").to_owned(),
        "order" => locale.pick("工单录入", "from the order").to_owned(),
        other => other.to_owned(),
    }
}

/// What a warning's evidence is called: as the car's value of that name, or by the rules' own words.
pub fn evidence(name: &str, bundle: &Bundle, locale: Locale) -> String {
    let (zh, en) = match name {
        "codes" => ("故障码", "codes"),
        "count" => ("数量", "count"),
        "mil_on" => ("故障灯", "malfunction lamp"),
        "monitors" => ("监测", "monitors"),
        "voltage" | "system_voltage" => ("电压", "voltage"),
        "long_trim" => ("长期燃油修正", "long-term fuel trim"),
        "short_trim" => ("短期燃油修正", "short-term fuel trim"),
        "long_trim_bank_1" => ("长期燃油修正 1 列", "long-term fuel trim bank 1"),
        "long_trim_bank_2" => ("长期燃油修正 2 列", "long-term fuel trim bank 2"),
        "trim" | "total" => ("燃油修正合计", "fuel trim in total"),
        "trim_bank_1" => ("1 列燃油修正合计", "fuel trim bank 1 in total"),
        "run_time" => ("起动后时间", "time since start"),
        "distance_since_clear" => ("清码后里程", "distance since clearing"),
        "time_since_clear" => ("清码后时间", "time since clearing"),
        "warmups_since_clear" => ("清码后暖机次数", "warm-ups since clearing"),
        _ => {
            let of_one_signal = |row: &&PidRow| matches!(row.signals.as_slice(), [only] if only.name == name);
            let row = bundle.pids.iter().find(of_one_signal);
            return row
                .map_or_else(|| name.to_owned(), |row| locale.pick(&row.name.zh, &row.name.en).to_owned());
        }
    };
    locale.pick(zh, en).to_owned()
}

/// What a request asked for.
pub fn request(request: &str, bundle: &Bundle, locale: Locale) -> String {
    if request == "scan" {
        return locale.pick("读取至此中断", "the reading broke off here").to_owned();
    }
    // Requests that were left out stand side by side, all of a kind.
    let first = request.split(' ').next().unwrap_or_default();
    let bytes = hex::decode(first).unwrap_or_default();
    let (zh, en) = match bytes.as_slice() {
        [0x01, id] if id.is_multiple_of(0x20) => ("支持的数据项", "which values there are"),
        [0x01, id, ..] => {
            let row = bundle.pids.get(0x01, *id);
            return row.map_or_else(String::new, |row| locale.pick(&row.name.zh, &row.name.en).to_owned());
        }
        [0x02, ..] => ("冻结帧", "freeze frame"),
        [0x03] => ("已确认故障码", "confirmed codes"),
        [0x05, ..] => ("氧传感器测试", "oxygen sensor tests"),
        [0x06, ..] => ("监测结果", "monitor results"),
        [0x07] => ("待定故障码", "pending codes"),
        [0x09, 0x00] => ("支持的车辆信息", "which vehicle information there is"),
        [0x09, 0x02] => ("车辆识别代号", "VIN"),
        [0x09, 0x04] => ("标定号", "calibration ids"),
        [0x09, 0x06] => ("标定校验码", "calibration verification numbers"),
        [0x09, 0x08 | 0x0B] => ("在用监测频率", "in-use ratios"),
        [0x09, 0x0A] => ("控制单元名称", "names of control units"),
        [0x0A] => ("永久故障码", "permanent codes"),
        _ => ("", ""),
    };
    locale.pick(zh, en).to_owned()
}

/// Why a request failed. The report has it in English, sometimes behind the ECU's address.
pub fn failure(error: &str, locale: Locale) -> String {
    if locale == Locale::En {
        return error.to_owned();
    }
    if let Some((ecu, why)) = error.split_once("left out: ") {
        let ecu = ecu.strip_suffix(": ").map_or(String::new(), |ecu| format!("{ecu}："));
        return format!("{ecu}未读取：{}", why_left_out(why));
    }
    let (ecu, what) = error.split_once(": ").map_or(("", error), |(ecu, what)| (ecu, what));
    let (what, code) = what.split_once(" (").map_or((what, ""), |(what, code)| (what, code));
    let zh = match what {
        "no data" => "无应答",
        "unable to connect" => "无法连接",
        "half a reply" | "half-reply" => "应答不完整",
        "answer too short" => "应答过短",
        "garbage" => "乱码",
        "bus initialisation failed" => "总线初始化失败",
        "bus busy" => "总线忙",
        "bus error" => "总线错误",
        "CAN error" => "CAN 错误",
        "data error" => "数据错误",
        "receive error" => "接收错误",
        "adapter buffer full" => "适配器缓冲区满",
        "stopped" => "被打断",
        "adapter-gone" => "适配器已断开",
        "adapter-hung" => "适配器无响应",
        "adapter-restarting" => "适配器反复重启",
        "adapter-garbled" => "适配器应答为乱码",
        "reply-spoilt" => "应答有误",
        "line-loses-characters" => "连接丢失字符",
        "car-silent" => "车辆不再应答",
        "bus-off" => "总线关闭",
        "wrong-bitrate" => "总线速率不符",
        "general reject" => "拒绝",
        "service not supported" => "不支持该服务",
        "sub-function not supported" => "不支持该子功能",
        "wrong length or format" => "长度或格式错误",
        "busy, repeat the request" => "忙，请重试",
        "conditions not correct" => "条件不满足",
        "request out of range" => "超出范围",
        "security access denied" => "安全访问被拒（安全网关）",
        "still busy" => "一直忙",
        "refused" => "被拒绝",
        _ => return error.to_owned(),
    };
    let ecu = if ecu.is_empty() { String::new() } else { format!("{ecu}：") };
    let code = if code.is_empty() { String::new() } else { format!(" ({code}") };
    format!("{ecu}{zh}{code}")
}

fn why_left_out(why: &str) -> &str {
    match why {
        "the scan would have taken too long" | "the report would have taken too long" => "时间不足",
        "not in the table of PIDs" => "数据项表中没有",
        "no table says what it holds" => "没有关于其内容的表",
        "the adapter failed before" => "适配器此前已失效",
        "more values of freeze frames than a scan reads" => "冻结帧数据过多",
        "more freeze frames than a scan reads, if there are any" => "冻结帧过多（如有）",
        "more tests of oxygen sensors than a scan reads" => "氧传感器测试过多",
        "more codes than are read one by one" => "故障码过多",
        why => why,
    }
}

/// A protocol's contract name as a mechanic says it.
pub fn protocol(name: &str) -> String {
    let Some(rest) = name.strip_prefix("iso15765-4-") else { return name.to_ascii_uppercase() };
    match rest.split_once('-') {
        Some((bits, rate)) => {
            format!("CAN {} {}", bits.replace("bit", " bit"), rate.replace('k', " kbit/s"))
        }
        None => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bundle() -> Bundle {
        Bundle::load(std::path::Path::new("firmware-protocols")).unwrap()
    }

    #[test]
    fn every_code_of_the_inspection_has_words_in_both_languages() {
        for code in [
            "mil-on",
            "dtc-confirmed",
            "dtc-permanent",
            "dtc-pending",
            "communication-failed",
            "readiness-unknown",
            "codes-unknown",
            "calibration-unknown",
            "cvn-unknown",
            "codes-cleared-recently",
            "scan-incomplete",
            "no-emission-check",
            "monitor-incomplete:catalyst",
            "cvn-changed:7E8",
            "calibration-changed:7E8",
        ] {
            let (zh, en) = (reason(code, &bundle(), Locale::ZhCn), reason(code, &bundle(), Locale::En));
            assert!(zh != code && en != code && zh != en, "{code}: {zh}, {en}");
            assert!(zh.chars().any(|c| c > '\u{2E80}') && en.is_ascii(), "{code}: {zh}, {en}");
        }
        assert_eq!(reason("from-the-future:x", &bundle(), Locale::ZhCn), "from-the-future:x");
    }

    #[test]
    fn evidence_of_the_shipped_rules() {
        for (name, zh) in [("coolant_temperature", "冷却液温度"), ("codes", "故障码"), ("x", "x")] {
            assert_eq!(evidence(name, &bundle(), Locale::ZhCn), zh);
        }
    }

    #[test]
    fn requests_and_failures() {
        assert_eq!(request("0906", &bundle(), Locale::ZhCn), "标定校验码");
        assert_eq!(request("010C", &bundle(), Locale::En), "Engine speed");
        assert_eq!(request("report", &bundle(), Locale::En), "");
        assert_eq!(request("scan", &bundle(), Locale::ZhCn), "读取至此中断");
        assert_eq!(request("021800 021900", &bundle(), Locale::En), "freeze frame");
        for (error, zh) in [
            ("no data", "无应答"),
            ("car-silent", "车辆不再应答"),
            ("7E8: conditions not correct (22)", "7E8：条件不满足 (22)"),
            ("too large: left out values", "too large: left out values"),
            ("left out: not in the table of PIDs", "未读取：数据项表中没有"),
            ("7E8: left out: no table says what it holds", "7E8：未读取：没有关于其内容的表"),
            ("7E8: answer too short (1 of 2 bytes)", "7E8：应答过短 (1 of 2 bytes)"),
            ("7E8: left out: more codes than are read one by one", "7E8：未读取：故障码过多"),
        ] {
            assert_eq!(failure(error, Locale::ZhCn), zh);
            assert_eq!(failure(error, Locale::En), error);
        }
        assert_eq!(protocol("iso15765-4-11bit-500k"), "CAN 11 bit 500 kbit/s");
        assert_eq!(protocol("j1850-vpw"), "J1850-VPW");
    }
}
