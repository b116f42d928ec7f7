//! The story: what happens, line by line, as it happens. Reads the same log as
//! everybody else, and listens to headquarters; knows no device.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::path::Path;
use std::time::Instant;

use serde_json::{Value, json};

use crate::config::values::Locale;
use crate::event::{Class, Event};
use crate::health::Trouble;
use crate::ident::{Epoch, Seq};
use crate::money::Fen;

/// Prints the story and keeps count of it.
pub struct Story {
    locale: Locale,
    json: bool,
    colour: bool,
    began: Instant,
    pending: BTreeMap<Seq, Instant>,
    names: BTreeMap<Seq, String>,
    /// The last event of an earlier run.
    earlier: Seq,
    /// What is not well, by part, as last told.
    troubled: BTreeMap<String, Trouble>,
    counts: Counts,
}

/// How many events got how far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// In the local log.
    pub committed: u64,
    /// Seen by headquarters for the first time.
    pub received: u64,
    /// Seen again and dropped by `(source, epoch, sequence)`.
    pub doubles: u64,
    /// Confirmed by headquarters and marked as delivered.
    pub acknowledged: u64,
    /// Left over by an earlier run and sent now.
    pub left_over: u64,
}

impl Story {
    /// Begins now.
    #[must_use]
    pub fn begin(locale: Locale, json: bool) -> Self {
        Self {
            locale,
            json,
            colour: std::io::stdout().is_terminal(),
            began: Instant::now(),
            pending: BTreeMap::new(),
            names: BTreeMap::new(),
            earlier: Seq(0),
            troubled: BTreeMap::new(),
            counts: Counts::default(),
        }
    }

    /// Events up to here were committed by an earlier run.
    pub fn begins_after(&mut self, earlier: Seq, folder: &Path) {
        self.earlier = earlier;
        if earlier > Seq(0) {
            let folder = folder.display();
            self.note(
                &format!("接着上次演示的日志（{earlier} 条）：上次在场的车不再重复报告；要重新开始，请删除 {folder}"),
                &format!("goes on with the log of an earlier demo ({earlier} events): a car that was there is not told again; delete {folder} to start afresh"),
            );
        }
    }

    /// Tells what is no longer, or newly, not well.
    pub fn troubles(&mut self, now: &[Trouble]) {
        let now: BTreeMap<String, Trouble> = now.iter().map(|t| (t.part.clone(), t.clone())).collect();
        for (part, trouble) in &now {
            if self.troubled.get(part).is_none_or(|told| told.code != trouble.code) {
                let Trouble { code, text, .. } = trouble;
                self.note(
                    &format!("{part}：{}（{code}）", text.zh),
                    &format!("{part}: {} ({code})", text.en),
                );
            }
        }
        for part in self.troubled.keys().filter(|part| !now.contains_key(*part)) {
            self.note(&format!("{part}：恢复正常"), &format!("{part}: well again"));
        }
        self.troubled = now;
    }

    /// A line that is no event: what the script does, where to look.
    pub fn note(&self, zh: &str, en: &str) {
        if self.json {
            println!("{}", json!({"t_ms": self.elapsed_ms(), "note": {"zh": zh, "en": en}}));
        } else {
            self.line("·", "2", self.locale.pick(zh, en), "");
        }
    }

    /// An event was committed.
    pub fn committed(&mut self, event: &Event) {
        self.counts.committed += 1;
        self.pending.insert(event.sequence, Instant::now());
        let what = self.describe(event);
        self.names.insert(event.sequence, event.kind.to_string());
        let position = format!(
            "{} #{} ({} {})",
            self.locale.pick("已落盘", "committed"),
            event.sequence,
            event.class,
            event.class_sequence
        );
        self.tell(event, "committed", &what, &position);
    }

    /// Headquarters received an event; `first` is false for a double.
    pub fn received(&mut self, sequence: Seq, first: bool, topic: &str) {
        if sequence <= self.earlier {
            self.counts.left_over += u64::from(first);
            return;
        }
        if first {
            self.counts.received += 1;
        } else {
            self.counts.doubles += 1;
        }
        let Some(name) = self.names.get(&sequence).cloned() else { return };
        if name == "vehicle.signals" && !self.json {
            return;
        }
        let took = self.pending.get(&sequence).map_or(0, |since| since.elapsed().as_millis());
        if self.json {
            println!(
                "{}",
                json!({"t_ms": self.elapsed_ms(), "stage": "published", "sequence": sequence, "topic": topic, "first": first, "after_ms": took})
            );
        } else {
            let zh = format!("#{sequence} {name} 已发布，总部收到（{took} 毫秒）");
            let en = format!("#{sequence} {name} published, headquarters has it ({took} ms)");
            self.line("→", "36", self.locale.pick(&zh, &en), "");
        }
    }

    /// Everything of the running epoch up to here is acknowledged, by class.
    pub fn acknowledged(&mut self, class: Class, sequences: &[Seq]) {
        for sequence in sequences {
            let Some(since) = self.pending.remove(sequence) else { continue };
            self.counts.acknowledged += 1;
            let name = self.names.remove(sequence).unwrap_or_default();
            let took = since.elapsed().as_millis();
            if self.json {
                println!(
                    "{}",
                    json!({"t_ms": self.elapsed_ms(), "stage": "acknowledged", "sequence": sequence, "class": class, "after_ms": took})
                );
            } else if class != Class::Telemetry {
                let zh = format!("#{sequence} {name} 总部已确认（{took} 毫秒）");
                let en = format!("#{sequence} {name} acknowledged ({took} ms)");
                self.line("✓", "32", self.locale.pick(&zh, &en), "");
            }
        }
    }

    /// What is committed and not yet acknowledged.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// The end: how many got how far.
    pub fn end(&self, epoch: Epoch) {
        let Counts { committed, received, doubles, acknowledged, left_over } = self.counts;
        if self.json {
            println!(
                "{}",
                json!({"t_ms": self.elapsed_ms(), "end": {"epoch": epoch, "committed": committed, "received": received, "doubles": doubles, "acknowledged": acknowledged, "left_over": left_over}})
            );
            return;
        }
        let zh = format!(
            "结束：落盘 {committed} 条，总部收到 {received} 条（重复 {doubles} 条已去除），已确认 {acknowledged} 条"
        );
        let en = format!(
            "the end: {committed} committed, {received} at headquarters ({doubles} doubles dropped), {acknowledged} acknowledged"
        );
        self.line("■", "1", self.locale.pick(&zh, &en), "");
        if left_over > 0 {
            let zh = format!("上次运行遗留的 {left_over} 条也已补发");
            let en = format!("{left_over} left over by the last run were sent too");
            self.line("■", "1", self.locale.pick(&zh, &en), "");
        }
    }

    fn elapsed_ms(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn tell(&self, event: &Event, stage: &str, what: &str, position: &str) {
        if self.json {
            println!(
                "{}",
                json!({"t_ms": self.elapsed_ms(), "stage": stage, "sequence": event.sequence, "type": event.kind.as_ref(), "subject": event.subject, "what": what})
            );
        } else {
            self.line("●", "33", what, position);
        }
    }

    fn line(&self, sign: &str, colour: &str, text: &str, tail: &str) {
        let t_s = self.began.elapsed().as_secs_f64();
        let tail = if tail.is_empty() { String::new() } else { format!("   {tail}") };
        if self.colour {
            println!("\x1b[2m{t_s:7.3}\x1b[0m \x1b[{colour}m{sign}\x1b[0m {text}\x1b[2m{tail}\x1b[0m");
        } else {
            println!("{t_s:7.3} {sign} {text}{tail}");
        }
    }

    /// One sentence for an event. The demo's cars and cards are made up, so VIN and UID may be shown.
    fn describe(&self, event: &Event) -> String {
        let data: Value = serde_json::from_str(event.data.get()).unwrap_or_default();
        let text = |key: &str| data.get(key).and_then(Value::as_str).unwrap_or("?").to_owned();
        let pick = |zh: String, en: String| match self.locale {
            Locale::ZhCn => zh,
            Locale::En => en,
        };
        match event.kind.as_ref() {
            "card.tapped" => {
                let (zh, en) = member_words(&data);
                pick(
                    format!("刷卡 {}：卡 {}（{}）{zh}", text("reader"), text("uid"), text("technology")),
                    format!(
                        "card tapped at {}: {} ({}){en}",
                        text("reader"),
                        text("uid"),
                        text("technology")
                    ),
                )
            }
            "card.removed" => {
                pick(format!("卡片离开 {}", text("reader")), format!("card removed from {}", text("reader")))
            }
            "vehicle.arrived" => pick(
                format!("车辆到达 {}：{}，{}", text("link"), text("vin"), text("protocol")),
                format!("car arrived at {}: {}, {}", text("link"), text("vin"), text("protocol")),
            ),
            "vehicle.report" => report_line(&data, self.locale),
            "vehicle.departed" => {
                pick(format!("车辆离开：{}", word(&text("reason"))), format!("car left: {}", text("reason")))
            }
            "vehicle.signals" => pick("遥测窗口".into(), "telemetry window".into()),
            "maintenance.warning" => {
                let title = data.pointer(self.locale.pick("/title/zh", "/title/en")).and_then(Value::as_str);
                pick(
                    format!("提醒（{}）：{}", word(&text("severity")), title.unwrap_or("?")),
                    format!("warning ({}): {}", text("severity"), title.unwrap_or("?")),
                )
            }
            "printer.job" => {
                let output = data
                    .get("output")
                    .and_then(Value::as_str)
                    .map(|path| format!(" → {path}"))
                    .unwrap_or_default();
                let error = data
                    .get("error")
                    .and_then(Value::as_str)
                    .map(|error| format!(" ({error})"))
                    .unwrap_or_default();
                pick(
                    format!("卡面打印：{}{error}{output}", word(&text("state"))),
                    format!("card face: {}{error}{output}", text("state")),
                )
            }
            "device.state" => {
                let reason = data
                    .get("reason")
                    .and_then(Value::as_str)
                    .map(|reason| format!(" ({reason})"))
                    .unwrap_or_default();
                pick(
                    format!("{}：{}{reason}", event.subject, word(&text("state"))),
                    format!("{}: {}{reason}", event.subject, text("state")),
                )
            }
            "gateway.started" => pick("网关已启动".into(), "gateway.started".into()),
            other => other.to_owned(),
        }
    }
}

/// The contract's word in Chinese; one that is not known here stays as it is.
fn word(text: &str) -> &str {
    match text {
        "absent" => "不在",
        "starting" => "启动中",
        "ready" => "就绪",
        "degraded" => "降级",
        "failed" => "失败",
        "queued" => "排队中",
        "waiting-card" => "等待插卡",
        "printing" => "打印中",
        "done" => "已完成",
        "cancelled" => "已取消",
        "info" => "信息",
        "advise" => "建议",
        "soon" => "尽快处理",
        "stop" => "立即停车",
        "unplugged" => "已拔下",
        "ignition-off" => "已熄火",
        "swapped" => "已换车",
        "link-lost" => "连接断开",
        other => other,
    }
}

/// Who the card belongs to, where it says so.
fn member_words(tapped: &Value) -> (String, String) {
    let Some(member) = tapped.get("member") else { return Default::default() };
    let number = |key: &str| member.get(key).and_then(Value::as_i64).unwrap_or_default();
    let card_no = member.get("card_no").and_then(Value::as_str).unwrap_or("?");
    let (balance, points) = (Fen(number("balance_fen")), number("points"));
    (
        format!("，会员 {card_no}，余额 {balance}，积分 {points}"),
        format!(", member {card_no}, balance {balance}, {points} points"),
    )
}

fn report_line(data: &Value, locale: Locale) -> String {
    let ecus = data.get("ecus").and_then(Value::as_array).cloned().unwrap_or_default();
    let codes: Vec<String> = ecus
        .iter()
        .filter_map(|ecu| ecu.get("dtcs").and_then(Value::as_array))
        .flatten()
        .filter_map(|dtc| dtc.get("code").and_then(Value::as_str).map(str::to_owned))
        .collect();
    let values: usize =
        ecus.iter().filter_map(|ecu| ecu.get("values").and_then(Value::as_array)).map(Vec::len).sum();
    let duration_ms = data.get("duration_ms").and_then(Value::as_u64).unwrap_or(0);
    let list = if codes.is_empty() { locale.pick("无", "none").to_owned() } else { codes.join(" ") };
    match locale {
        Locale::ZhCn => format!(
            "检测报告：{} 个控制单元，{values} 个数值，故障码 {list}，用时 {duration_ms} 毫秒",
            ecus.len()
        ),
        Locale::En => format!("report: {} ECUs, {values} values, codes {list}, {duration_ms} ms", ecus.len()),
    }
}
