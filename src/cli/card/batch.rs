//! `baygate card batch`: many cards, one behind the other. The daemon has the batch and goes on
//! with it whether or not anybody watches; this begins one, follows it, lists or ends them.

use std::path::{Path, PathBuf};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Map, Value, json};
use tokio::time::sleep;
use uuid::Uuid;

use super::Once;
use crate::api::client::{Client, ClientError, Method};
use crate::cli::{Global, daemon};
use crate::config::values::Locale;
use crate::event::ledger::CardType;
use crate::ident::DeviceId;

/// How often a batch is looked at.
const FOLLOW_EVERY: Duration = Duration::from_millis(300);
/// The longest CSV file: the daemon takes bodies of 256 KiB.
const MAX_CSV_BYTES: u64 = 200 * 1024;

/// Arguments of `baygate card batch`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// CSV file of cards: a line of column names (card_no, type, tier, discount_class, valid_until,
    /// face.NAME), then one card a line / 会员卡 CSV 文件
    #[arg(long, value_name = "FILE", group = "what")]
    csv: Option<PathBuf>,
    /// Card numbers from one to another, both included / 卡号段
    #[arg(long, value_name = "FROM-TO", group = "what", value_parser = range)]
    range: Option<(String, String)>,
    /// Goes on watching a batch, e.g. after a restart / 继续跟踪某批次
    #[arg(long, value_name = "BATCH", group = "what")]
    follow: Option<Uuid>,
    /// Gives up the rows of a batch that still wait / 取消某批次
    #[arg(long, value_name = "BATCH", group = "what")]
    cancel: Option<Uuid>,
    /// Where a line says nothing: named or anonymous / 记名或不记名
    #[arg(long = "type", value_name = "TYPE", default_value = "named", value_parser = super::card_type)]
    card_type: CardType,
    /// Where a line says nothing: tier, 0 to 255 / 等级
    #[arg(long, default_value_t = 0)]
    tier: u8,
    /// Where a line says nothing: discount class, 0 to 255 / 折扣类别
    #[arg(long, value_name = "CLASS", default_value_t = 0)]
    discount_class: u8,
    /// Where a line says nothing: the last day the card is good / 有效期至
    #[arg(long, value_name = "DAY")]
    valid_until: Option<jiff::civil::Date>,
    /// The reader; not needed where there is one / 读卡器
    #[arg(long, value_name = "ID")]
    reader: Option<DeviceId>,
    /// Another printer than the reader's / 打印机
    #[arg(long, value_name = "ID", conflicts_with = "no_print")]
    printer: Option<DeviceId>,
    /// Another template than the printer's / 卡面模板
    #[arg(long, value_name = "FILE", conflicts_with = "no_print")]
    template: Option<String>,
    /// A field of every face, several times; the card number is filled in / 卡面字段
    #[arg(long = "face", value_name = "NAME=VALUE", value_parser = field)]
    face: Vec<(String, Value)>,
    /// Prints no faces / 不打印卡面
    #[arg(long)]
    no_print: bool,
    /// Begins the batch and does not wait for its end / 不等待完成
    #[arg(long)]
    detach: bool,
    #[command(flatten)]
    once: Once,
}

fn range(text: &str) -> Result<(String, String), String> {
    let (from, to) = text.split_once('-').ok_or("write it like 8800000001-8800000100")?;
    Ok((from.trim().to_owned(), to.trim().to_owned()))
}

fn field(text: &str) -> Result<(String, Value), String> {
    let (name, value) = text.split_once('=').ok_or("write it like level=Gold")?;
    let number = value.parse::<i64>().ok().filter(|number| number.to_string() == value);
    Ok((name.to_owned(), number.map_or_else(|| json!(value), |number| json!(number))))
}

/// Runs `baygate card batch`.
///
/// # Errors
/// The daemon cannot be asked, or refuses; the file cannot be read.
pub(super) async fn act(args: Args, global: &Global) -> anyhow::Result<()> {
    let locale = global.language();
    let wanted = match &args.csv {
        Some(path) => Some(("csv", json!(read_csv(path, locale)?))),
        None => args.range.as_ref().map(|(from, to)| ("range", json!({ "from": from, "to": to }))),
    };
    let client = daemon::connect(global).await?;
    let batch = match (wanted, args.follow, args.cancel) {
        (Some((what, list)), ..) => {
            let key = args.once.idempotency_key.clone().unwrap_or_else(|| Uuid::new_v4().to_string());
            let mut body = body(&args);
            body.insert(what.into(), list);
            let path = "/v1/cards/batch";
            let begun = client
                .request_with_key(Method::POST, path, Some(&body.into()), Some(&key))
                .await?
                .accepted()?;
            if args.detach {
                told(&begun, global);
                return Ok(());
            }
            begun
        }
        (None, Some(id), _) => shown(&client, id, false).await?,
        (None, None, Some(id)) => {
            let body = json!({ "state": "cancelled" });
            let path = format!("/v1/cards/batch/{id}");
            let answer = client.request(Method::POST, &path, Some(&body)).await?.accepted()?;
            told(&answer, global);
            return Ok(());
        }
        (None, None, None) => {
            let answer = client.request(Method::GET, "/v1/cards/batch", None).await?.accepted()?;
            listed(&answer, global);
            return Ok(());
        }
    };
    follow(&client, batch, global).await
}

fn body(args: &Args) -> Map<String, Value> {
    let face: Map<String, Value> = args.face.iter().cloned().collect();
    let body = json!({
        "type": args.card_type, "tier": args.tier, "discount_class": args.discount_class,
        "valid_until": args.valid_until, "reader": args.reader, "printer": args.printer,
        "template": args.template, "print": args.no_print.then_some(false), "face": face,
    });
    let Value::Object(mut body) = body else { return Map::new() };
    body.retain(|_, value| !value.is_null());
    body
}

fn read_csv(path: &Path, locale: Locale) -> anyhow::Result<String> {
    let refused = |code: &str, zh: String, en: String| {
        let detail = format!("{}: {}", path.display(), say(locale, zh, en));
        ClientError::Refused { status: 422, code: code.into(), detail }
    };
    let bytes = std::fs::metadata(path)
        .and_then(|about| if about.len() > MAX_CSV_BYTES { Ok(None) } else { std::fs::read(path).map(Some) });
    let bytes = bytes.map_err(|error| {
        refused("file-unreadable", format!("无法读取：{error}"), format!("cannot be read: {error}"))
    })?;
    let Some(bytes) = bytes else {
        let kib = MAX_CSV_BYTES / 1024;
        let (zh, en) =
            (format!("超过 {kib} KiB，请分批"), format!("is over {kib} KiB; make several batches"));
        return Err(refused("list-invalid", zh, en).into());
    };
    String::from_utf8(bytes).map_err(|error| {
        let good = error.as_bytes().get(..error.utf8_error().valid_up_to()).unwrap_or_default();
        let line = good.iter().filter(|byte| **byte == b'\n').count() + 1;
        refused(
            "list-invalid",
            format!("第 {line} 行不是 UTF-8；请在表格软件中另存为“CSV UTF-8”"),
            format!("line {line} is not UTF-8; save the file as CSV UTF-8"),
        )
        .into()
    })
}

async fn shown(client: &Client, id: Uuid, rows: bool) -> Result<Value, ClientError> {
    client.request(Method::GET, &format!("/v1/cards/batch/{id}?rows={rows}"), None).await?.accepted()
}

/// Until every row is given out or given up.
async fn follow(client: &Client, mut batch: Value, global: &Global) -> anyhow::Result<()> {
    let locale = global.language();
    let id: Uuid = text(&batch, "/batch").parse()?;
    eprintln!(
        "{}",
        say(
            locale,
            format!("批次 {id}；中断后用 baygate card batch --follow {id} 继续"),
            format!("batch {id}; after an interruption go on with `baygate card batch --follow {id}`"),
        )
    );
    let bar = bar();
    while text(&batch, "/state") == "open" {
        bar.set_length(number(&batch, "total"));
        bar.set_position(number(&batch, "issued") + number(&batch, "refused") + number(&batch, "cancelled"));
        bar.set_message(message(&batch, locale));
        sleep(FOLLOW_EVERY).await;
        batch = shown(client, id, false).await?;
    }
    bar.finish_and_clear();
    let batch = shown(client, id, true).await?;
    told(&batch, global);
    Ok(())
}

/// What whoever lays the cards has to know now.
fn message(batch: &Value, locale: Locale) -> String {
    let next = text(batch, "/next/card_no");
    let mut message = match (next.is_empty(), number(batch, "issuing")) {
        (false, _) => say(locale, format!("请放空白卡：{next}"), format!("lay an empty card: {next}")),
        (true, left) => say(
            locale,
            format!("有 {left} 张卡中途离开，请重新放上"),
            format!("{left} card(s) left in the middle; lay them again"),
        ),
    };
    let why = text(batch, locale.pick("/next/text/zh", "/next/text/en"));
    if !why.is_empty() {
        message = format!("{message}  ({why})");
    }
    message
}

/// Drawn on standard error, and only on a terminal.
fn bar() -> ProgressBar {
    let bar = ProgressBar::new(0);
    if let Ok(style) = ProgressStyle::with_template("{spinner} [{bar:30}] {pos}/{len} {msg}") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(120));
    bar
}

fn say(locale: Locale, zh: String, en: String) -> String {
    if locale == Locale::ZhCn { zh } else { en }
}

fn text<'v>(value: &'v Value, pointer: &str) -> &'v str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or("")
}

fn number(value: &Value, member: &str) -> u64 {
    value.get(member).and_then(Value::as_u64).unwrap_or_default()
}

fn told(batch: &Value, global: &Global) {
    if global.json {
        println!("{batch}");
        return;
    }
    let locale = global.language();
    println!("{}", summary(batch, locale));
    let rows = batch.get("rows").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    for row in rows.iter().filter(|row| text(row, "/state") != "issued") {
        let why = text(row, locale.pick("/text/zh", "/text/en"));
        println!("  {:>4} {}  {}  {why}", number(row, "n"), text(row, "/card_no"), text(row, "/state"));
    }
}

fn summary(batch: &Value, locale: Locale) -> String {
    let [total, issued, waiting, issuing, refused, cancelled] =
        ["total", "issued", "waiting", "issuing", "refused", "cancelled"].map(|name| number(batch, name));
    let (id, reader) = (text(batch, "/batch"), text(batch, "/reader"));
    say(
        locale,
        format!(
            "{id}  {reader}  共 {total} 张：已发 {issued}，待发 {waiting}，未定 {issuing}，拒绝 {refused}，取消 {cancelled}"
        ),
        format!(
            "{id}  {reader}  {total} cards: {issued} issued, {waiting} waiting, {issuing} unsettled, {refused} refused, {cancelled} cancelled"
        ),
    )
}

fn listed(answer: &Value, global: &Global) {
    if global.json {
        println!("{answer}");
        return;
    }
    let batches = answer.get("batches").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    if batches.is_empty() {
        println!("{}", global.language().pick("没有批次", "there is no batch"));
    }
    batches.iter().for_each(|batch| println!("{}", summary(batch, global.language())));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_and_fields_as_they_are_typed() {
        assert_eq!(range("0001-0100"), Ok(("0001".into(), "0100".into())));
        range("0001").unwrap_err();
        assert_eq!(field("points=0"), Ok(("points".into(), json!(0))));
        assert_eq!(field("level=金卡=A"), Ok(("level".into(), json!("金卡=A"))));
        assert_eq!(field("code=007"), Ok(("code".into(), json!("007"))));
        field("level").unwrap_err();
    }

    #[test]
    fn a_file_that_is_no_utf_8_is_refused_with_its_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("members.csv");
        // GBK, as an older spreadsheet saves it.
        std::fs::write(&path, b"card_no,face.level\n1,Gold\n2,\xBD\xF0\xBF\xA8\n").unwrap();
        let told = read_csv(&path, Locale::ZhCn).unwrap_err().to_string();
        assert!(told.contains("第 3 行"), "{told}");
        std::fs::write(&path, vec![b'1'; 300 * 1024]).unwrap();
        assert!(read_csv(&path, Locale::En).unwrap_err().to_string().contains("200 KiB"));
        assert!(read_csv(&folder.path().join("none.csv"), Locale::En).is_err());
    }

    #[test]
    fn whoever_lays_cards_is_told_which() {
        let batch = json!({ "next": { "card_no": "17", "text": { "zh": "不是空白卡", "en": "not empty" } } });
        assert_eq!(message(&batch, Locale::En), "lay an empty card: 17  (not empty)");
        assert!(message(&json!({ "issuing": 1 }), Locale::ZhCn).contains("1 张卡"));
    }
}
