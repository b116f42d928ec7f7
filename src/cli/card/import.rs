//! `baygate card import`: the members that a shop had before, from a CSV file. The file goes to the
//! daemon part by part, so that a long one shows how far it is; cut off, it is sent again whole, as
//! what is known already changes nothing.

use std::collections::BTreeSet;
use std::path::PathBuf;

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Map, Value, json};

use super::csv;
use crate::api::client::{ClientError, Method};
use crate::card::counter::import::{Members, members};
use crate::card::counter::new_cards::{CardDefaults, ListFault};
use crate::cli::{Exit, Global, daemon};
use crate::event::Text;
use crate::event::ledger::CardType;
use crate::ident::OperatorId;

/// The longest file: some 200,000 members.
const MOST_BYTES: u64 = 16 << 20;
/// Lines of a part: the daemon takes 1000 and 256 KiB.
const PART: usize = 500;
/// Arguments of `baygate card import`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// CSV file, UTF-8: a line of column names (card_no, type, tier, discount_class, valid_until; or
    /// 卡号, 类型, 等级, 折扣类别, 有效期至), then one member a line / 会员 CSV 文件
    file: PathBuf,
    /// Only looks: nothing is taken / 只检查，不导入
    #[arg(long)]
    check: bool,
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
    /// Who does it / 操作员
    #[arg(long, value_name = "ID")]
    operator: Option<OperatorId>,
}

/// Runs `baygate card import`; failed where a line was left out.
///
/// # Errors
/// The file cannot be read, the daemon cannot be asked, or refuses.
pub(super) async fn act(args: Args, global: &Global) -> anyhow::Result<Exit> {
    let locale = global.language();
    let text = csv::read(&args.file, MOST_BYTES, locale)?;
    let Args { card_type, tier, discount_class, valid_until, .. } = args;
    let defaults = CardDefaults { card_type, tier, discount_class, valid_until, face: Map::new() };
    // The file as a whole: a number that stands twice may stand in two parts.
    let Members { members, faults } = members(&text, 2, &defaults).map_err(|fault| {
        let told = fault.told();
        let detail = format!("{}: {}", args.file.display(), locale.pick(&told.zh, &told.en));
        ClientError::Refused { status: 422, code: "list-invalid".into(), detail }
    })?;
    let wrong: BTreeSet<u32> = faults.iter().filter_map(|fault| fault.line).collect();
    let client = daemon::connect(global).await?;
    let mut total = Total { faults, ..Total::default() };
    let mut lines = text.strip_prefix('\u{FEFF}').unwrap_or(&text).lines();
    let head = lines.next().unwrap_or_default();
    // What is wrong is told already, and its line is sent empty.
    let lines: Vec<&str> =
        (2..).zip(lines).map(|(n, line)| if wrong.contains(&n) { "" } else { line }).collect();
    let bar = bar(members.len());
    for (first_line, part) in (2..).step_by(PART).zip(lines.chunks(PART)) {
        let mut body = json!({
            "csv": format!("{head}\n{}", part.join("\n")), "first_line": first_line, "check": args.check,
            "type": args.card_type, "tier": args.tier, "discount_class": args.discount_class,
            "valid_until": args.valid_until, "operator": args.operator,
        });
        if let Some(members) = body.as_object_mut() {
            members.retain(|_, value| !value.is_null());
        }
        let answer = client.request(Method::POST, "/v1/cards/import", Some(&body)).await?.accepted()?;
        total.add(&answer);
        bar.set_position(total.counts.iter().sum());
    }
    bar.finish_and_clear();
    total.told(&args, global);
    Ok(if total.faults.is_empty() { Exit::Done } else { Exit::Failed })
}

/// How many members came to what.
const COUNTS: [&str; 4] = ["imported", "changed", "unchanged", "given_out"];

/// What came of the file.
#[derive(Default)]
struct Total {
    counts: [u64; 4],
    faults: Vec<ListFault>,
}

impl Total {
    fn add(&mut self, part: &Value) {
        for (count, name) in self.counts.iter_mut().zip(COUNTS) {
            *count += part.get(name).and_then(Value::as_u64).unwrap_or_default();
        }
        for fault in part.get("faults").and_then(Value::as_array).into_iter().flatten() {
            let text = |language: &str| fault.pointer(language).and_then(Value::as_str).unwrap_or_default();
            let line = fault.get("line").and_then(Value::as_u64).and_then(|line| u32::try_from(line).ok());
            self.faults.push(ListFault { line, text: Text::new(text("/text/zh"), text("/text/en")) });
        }
    }

    fn told(&mut self, args: &Args, global: &Global) {
        self.faults.sort_by_key(|fault| fault.line);
        let [imported, changed, unchanged, given_out] = self.counts;
        let refused = self.faults.len();
        if global.json {
            let faults: Vec<Value> =
                self.faults.iter().map(|fault| json!({ "line": fault.line, "text": fault.text })).collect();
            let told = json!({
                "check": args.check, "imported": imported, "changed": changed, "unchanged": unchanged,
                "given_out": given_out, "faults": faults,
            });
            println!("{told}");
            return;
        }
        let locale = global.language();
        for fault in &self.faults {
            let told = fault.told();
            println!("{}", locale.pick(&told.zh, &told.en));
        }
        let (zh, en) = (
            format!(
                "新会员 {imported}，修改 {changed}，未变 {unchanged}，已发卡 {given_out}，有误 {refused} 行"
            ),
            format!(
                "{imported} new, {changed} changed, {unchanged} unchanged, {given_out} have their card, {refused} lines wrong"
            ),
        );
        let what = match args.check {
            true => locale.pick("检查（未导入）：", "checked, nothing taken: "),
            false => locale.pick("导入：", "imported: "),
        };
        println!("{what}{}", locale.pick(&zh, &en));
    }
}

/// Drawn on standard error, and only on a terminal.
fn bar(members: usize) -> ProgressBar {
    let bar = ProgressBar::new(u64::try_from(members).unwrap_or_default());
    if let Ok(style) = ProgressStyle::with_template("[{bar:30}] {pos}/{len}") {
        bar.set_style(style);
    }
    bar
}
