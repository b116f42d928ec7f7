//! What the commands print.

use serde_json::Value;

use crate::cli::Global;
use crate::money::Fen;

fn text<'v>(value: &'v Value, pointer: &str) -> &'v str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or("")
}

fn fen(value: &Value, member: &str) -> Fen {
    Fen(value.get(member).and_then(Value::as_i64).unwrap_or_default())
}

fn number(value: &Value, member: &str) -> i64 {
    value.get(member).and_then(Value::as_i64).unwrap_or_default()
}

/// JSON as it came, or a few lines.
fn told(value: &Value, global: &Global, lines: impl FnOnce() -> Vec<String>) {
    if global.json {
        println!("{value}");
    } else {
        lines().iter().for_each(|line| println!("{line}"));
    }
}

pub(super) fn card(card: &Value, global: &Global) {
    let say = |zh: &'static str, en: &'static str| global.language().pick(zh, en);
    told(card, global, || {
        let mut lines = vec![format!("UID {}  {}", text(card, "/uid"), text(card, "/technology"))];
        if let Some(member) = card.get("member") {
            lines.push(format!(
                "{} {}  {}  {}",
                say("卡号", "card"),
                text(member, "/card_no"),
                text(member, "/type"),
                text(member, "/issuing_store")
            ));
            lines.push(format!(
                "{} {} ({} {}, {} {})  {} {}",
                say("余额", "balance"),
                fen(member, "balance_fen"),
                say("本金", "principal"),
                fen(member, "principal_fen"),
                say("赠送", "bonus"),
                fen(member, "bonus_fen"),
                say("积分", "points"),
                number(member, "points"),
            ));
        }
        if card.get("refused").is_some() {
            let words = text(card, say("/refused/text/zh", "/refused/text/en"));
            lines.push(format!("{}: {words}", text(card, "/refused/reason")));
        }
        lines
    });
}

pub(super) fn issued(issued: &Value, global: &Global) {
    let done = global.language().pick("已发卡", "issued");
    told(issued, global, || {
        let part = |pointer| text(issued, pointer);
        vec![format!(
            "{done} {}  {}  UID {}  {}",
            part("/card_no"),
            part("/type"),
            part("/uid"),
            part("/technology")
        )]
    });
}

/// What came of an issue that is over.
pub(super) fn given_up(request: &Value, global: &Global) {
    let say = |zh: &'static str, en: &'static str| global.language().pick(zh, en);
    told(request, global, || match text(request, "/state") {
        "done" => vec![format!("{} {}", say("已发卡", "issued"), text(request, "/outcome/card_no"))],
        _ => vec![text(request, say("/outcome/text/zh", "/outcome/text/en")).to_owned()],
    });
}

pub(super) fn quote(quote: &Value, global: &Global) {
    let say = |zh: &'static str, en: &'static str| global.language().pick(zh, en);
    told(quote, global, || {
        // What it is paid with stands below what is due.
        let (payment, mut lines) = calculation(quote, "lines", global);
        lines.push(format!("{:>12}  {}", fen(quote, "due_fen").to_string(), say("应付", "due")));
        lines.extend(if payment.is_empty() { tenders(quote) } else { payment });
        lines.push(format!(
            "{} {}  {} {}",
            say("之后余额", "balance afterwards"),
            fen(quote, "balance_after_fen"),
            say("积分", "points"),
            number(quote, "points_after"),
        ));
        lines.push(format!("{} {}", say("报价号", "quote"), text(quote, "/quote_id")));
        lines
    });
}

pub(super) fn transaction(fact: &Value, global: &Global) {
    let say = |zh: &'static str, en: &'static str| global.language().pick(zh, en);
    told(fact, global, || {
        let (payment, mut lines) = calculation(fact, "calculation", global);
        lines.extend(if payment.is_empty() { tenders(fact) } else { payment });
        lines.push(format!(
            "{} {}  {} {}  {} {}",
            say("卡号", "card"),
            text(fact, "/card_no"),
            say("余额", "balance"),
            fen(fact, "balance_after_fen"),
            say("积分", "points"),
            number(fact, "points_after"),
        ));
        lines.push(format!("{} {}", say("交易号", "transaction"), text(fact, "/transaction_id")));
        lines
    });
}

/// A held card as it is known and as it shows itself, to standard error: the answer is a refusal.
pub(super) fn compared(refused: &Value, global: &Global) {
    let say = |zh: &'static str, en: &'static str| global.language().pick(zh, en);
    eprintln!("{}: {}", say("暂停原因", "held"), text(refused, "/held"));
    for (name, words) in
        [("known", say("本店所知", "known here")), ("shows", say("卡上所示", "the card shows"))]
    {
        eprintln!(
            "{words}  {}",
            refused.get(name).map(|content| of_content(content, global)).unwrap_or_default()
        );
    }
}

pub(super) fn released(released: &Value, global: &Global) {
    let say = |zh: &'static str, en: &'static str| global.language().pick(zh, en);
    told(released, global, || {
        let content = released.get("shows").or_else(|| released.get("known"));
        let shows = content.map(|content| of_content(content, global)).unwrap_or_default();
        let done = match released.get("without_card") {
            Some(_) => say("已解除暂停，可补卡", "not held any more, can be replaced"),
            None => say("已解除暂停", "used again"),
        };
        let mut lines = vec![format!(
            "{done} {}  ({})  {shows}",
            text(released, "/card_no"),
            text(released, "/released"),
        )];
        if released.pointer("/ended/state").is_some() {
            lines.push(format!(
                "{} {}  {}",
                say("交易号", "transaction"),
                text(released, "/ended/transaction_id"),
                text(released, "/ended/state")
            ));
        }
        lines
    });
}

fn of_content(content: &Value, global: &Global) -> String {
    let say = |zh: &'static str, en: &'static str| global.language().pick(zh, en);
    format!(
        "UID {}  {} {}  {} {}  {} {}  {} {}",
        text(content, "/uid"),
        say("本金", "principal"),
        fen(content, "principal_fen"),
        say("赠送", "bonus"),
        fen(content, "bonus_fen"),
        say("积分", "points"),
        number(content, "points"),
        say("计数", "counter"),
        number(content, "counter"),
    )
}

/// The lines of the payment, and those of what is to be paid.
fn calculation(value: &Value, member: &str, global: &Global) -> (Vec<String>, Vec<String>) {
    let lines = value.get(member).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let words = global.language().pick("/text/zh", "/text/en");
    let (payment, due): (Vec<_>, Vec<_>) =
        lines.iter().partition(|line| text(line, "/code").starts_with("pay-"));
    let told = |line: &Value| format!("{:>12}  {}", fen(line, "amount_fen").to_string(), text(line, words));
    (payment.into_iter().map(told).collect(), due.into_iter().map(told).collect())
}

fn tenders(value: &Value) -> Vec<String> {
    let tenders = value.get("tenders").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    tenders
        .iter()
        .map(|tender| format!("{:>12}  {}", fen(tender, "amount_fen").to_string(), text(tender, "/kind")))
        .collect()
}
