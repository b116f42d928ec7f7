//! `baygate card show|transactions|block|unblock|pin|stats`: what needs no card on a reader, through
//! the running daemon.

use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::api::client::{Client, Method};
use crate::cli::{Global, daemon, terminal_secret};
use crate::config::values::Locale;
use crate::event::ledger::{TenderKind, TransactionKind};
use crate::ident::{CardNo, OperatorId};
use crate::money::Fen;

/// What needs no card on a reader.
#[derive(Debug, clap::Subcommand)]
pub enum Figures {
    /// What the store knows of a card: status, last balance, what is not settled / 查询会员卡
    #[command(after_help = "Example:\n  baygate card show 8800000042 --json")]
    Show {
        /// The card's number / 卡号
        card_no: CardNo,
    },
    /// A card's transactions at this store, newest first / 会员卡交易记录
    #[command(after_help = "Example:\n  baygate card transactions 8800000042 --limit 20")]
    Transactions {
        /// The card's number / 卡号
        card_no: CardNo,
        /// Transactions, 1 to 200 / 条数
        #[arg(long, default_value_t = 50)]
        limit: u32,
        /// The page behind this number, as the page before told / 翻页
        #[arg(long, value_name = "NO")]
        before: Option<i64>,
    },
    /// Reports a card lost, or stops it; effective at its next tap / 挂失或停用
    #[command(
        after_help = "Example:\n  baygate card block 8800000042 --operator li.wei --reason 顾客电话挂失\n  baygate card block 8800000042 --stop --reason 疑似复制卡"
    )]
    Block {
        /// The card's number / 卡号
        card_no: CardNo,
        /// The house stops it: no loss report, any type of card / 停用而非挂失
        #[arg(long)]
        stop: bool,
        /// For the record.
        #[command(flatten)]
        why: Why,
    },
    /// Takes a card into use again that was blocked or reported lost / 解除挂失或停用
    #[command(after_help = "Example:\n  baygate card unblock 8800000042 --operator li.wei --reason 卡已找回")]
    Unblock {
        /// The card's number / 卡号
        card_no: CardNo,
        /// For the record.
        #[command(flatten)]
        why: Why,
    },
    /// Sets, changes or removes a card's PIN; typed without echo, or a line of standard input / 设置卡密码
    #[command(
        after_help = "Example:\n  baygate card pin 8800000042 --operator li.wei\n  baygate card pin 8800000042 --remove --reason 顾客要求"
    )]
    Pin {
        /// The card's number / 卡号
        card_no: CardNo,
        /// The card shall have none / 取消密码
        #[arg(long)]
        remove: bool,
        /// For the record.
        #[command(flatten)]
        why: Why,
    },
    /// Figures of a business day / 营业日统计
    #[command(
        after_help = "Example:\n  baygate card stats\n  baygate card stats --day 2026-11-22 --by operator\n  baygate card stats --by tender --json"
    )]
    Stats {
        /// Business day, YYYY-MM-DD; today's when left out / 营业日
        #[arg(long)]
        day: Option<String>,
        /// operator, till or tender; by kind of transaction when left out / 分组
        #[arg(long)]
        by: Option<By>,
    },
}

/// For the record.
#[derive(Debug, clap::Args)]
pub struct Why {
    /// For the record, up to 200 characters / 原因
    #[arg(long)]
    reason: Option<String>,
    /// Who does it / 操作员
    #[arg(long, value_name = "ID")]
    operator: Option<OperatorId>,
    /// The same key again does nothing twice; a new one each time when left out / 幂等键
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,
}

/// How figures are grouped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum By {
    /// Who.
    Operator,
    /// Where.
    Till,
    /// What was paid with.
    Tender,
}

/// Runs one of the commands of this file.
///
/// # Errors
/// The daemon cannot be asked, or refuses.
pub(super) async fn act(command: Figures, global: &Global) -> anyhow::Result<()> {
    let client = daemon::connect(global).await?;
    let locale = global.language();
    let (answer, text): (Value, fn(&Value, Locale) -> String) = match command {
        Figures::Show { card_no } => (get(&client, &format!("/v1/cards/{card_no}")).await?, card_text),
        Figures::Transactions { card_no, limit, before } => {
            let before = before.map(|before| format!("&before={before}")).unwrap_or_default();
            let path = format!("/v1/cards/{card_no}/transactions?limit={limit}{before}");
            (get(&client, &path).await?, page_text)
        }
        Figures::Block { card_no, stop, why } => {
            let standing = if stop { "blocked" } else { "lost" };
            let wish = why.wish([("as", json!(standing))]);
            (post(&client, &format!("/v1/cards/{card_no}/block"), &wish, &why).await?, standing_text)
        }
        Figures::Unblock { card_no, why } => {
            let wish = why.wish([]);
            (post(&client, &format!("/v1/cards/{card_no}/unblock"), &wish, &why).await?, standing_text)
        }
        Figures::Pin { card_no, remove, why } => {
            let wish = if remove {
                why.wish([("remove", json!(true))])
            } else {
                let asked = locale
                    .pick("新密码（6 至 12 位数字，不显示）：", "New PIN (6 to 12 digits, not shown): ");
                let first = terminal_secret::read(asked).await?;
                if terminal_secret::is_typed() {
                    let again = terminal_secret::read(locale.pick("再输入一次：", "Once more: ")).await?;
                    let differ = ("两次输入不一致，未做任何更改", "the two differ; nothing was changed");
                    anyhow::ensure!(first == again, "{}", locale.pick(differ.0, differ.1));
                }
                why.wish([("new_pin", json!(first.reveal()))])
            };
            (post(&client, &format!("/v1/cards/{card_no}/pin"), &wish, &why).await?, pin_text)
        }
        Figures::Stats { day, by } => {
            let query = day.map(|day| {
                let day: String = url::form_urlencoded::byte_serialize(day.as_bytes()).collect();
                format!("?day={day}")
            });
            let answer = get(&client, &format!("/v1/stats{}", query.unwrap_or_default())).await?;
            let text = match by {
                None => kinds_text,
                Some(By::Operator) => operators_text,
                Some(By::Till) => tills_text,
                Some(By::Tender) => tenders_text,
            };
            (answer, text)
        }
    };
    if global.json {
        println!("{answer}");
    } else {
        println!("{}", text(&answer, locale));
    }
    Ok(())
}

async fn get(client: &Client, path: &str) -> anyhow::Result<Value> {
    Ok(client.request(Method::GET, path, None).await?.accepted()?)
}

async fn post(client: &Client, path: &str, wish: &Value, why: &Why) -> anyhow::Result<Value> {
    let key = why.idempotency_key.clone().unwrap_or_else(|| Uuid::new_v4().to_string());
    Ok(client.request_with_key(Method::POST, path, Some(wish), Some(&key)).await?.accepted()?)
}

impl Why {
    fn wish<const N: usize>(&self, more: [(&str, Value); N]) -> Value {
        let mut wish: Map<String, Value> =
            more.into_iter().map(|(member, value)| (member.to_owned(), value)).collect();
        wish.extend(self.reason.as_ref().map(|reason| ("reason".to_owned(), json!(reason))));
        wish.extend(self.operator.as_ref().map(|operator| ("operator".to_owned(), json!(operator))));
        Value::Object(wish)
    }
}

/// A member as text; what is absent is a dash.
fn cell(row: &Value, member: &str) -> String {
    match row.get(member) {
        None | Some(Value::Null) => "-".to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(Value::Number(fen)) if member.ends_with("_fen") => {
            Fen(fen.as_i64().unwrap_or_default()).to_string()
        }
        Some(other) => other.to_string(),
    }
}

fn list<'v>(answer: &'v Value, member: &str) -> &'v [Value] {
    answer.get(member).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

/// Rows under their headings. The first column is filled to the right, numbers to the left.
fn table(headings: &[&str], rows: &[Vec<String>]) -> String {
    let wide = |text: &str| text.chars().map(|c| if c.is_ascii() || c == '¥' { 1 } else { 2 }).sum::<usize>();
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| wide(cell));
        cells.chain(headings.get(column).map(|heading| wide(heading))).max().unwrap_or(0)
    };
    let line = |cells: Vec<&str>| {
        let padded = cells.iter().enumerate().map(|(column, cell)| {
            let space = " ".repeat(width(column).saturating_sub(wide(cell)));
            if column == 0 { format!("{cell}{space}") } else { format!("{space}{cell}") }
        });
        padded.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    let head = line(headings.to_vec());
    let lines = rows.iter().map(|row| line(row.iter().map(String::as_str).collect()));
    std::iter::once(head).chain(lines).collect::<Vec<_>>().join("\n")
}

/// Name and value, one a line.
fn lines(rows: &[(&str, String)]) -> String {
    rows.iter().map(|(name, value)| format!("{name}: {value}")).collect::<Vec<_>>().join("\n")
}

fn card_text(card: &Value, locale: Locale) -> String {
    let yes = |member: &str| match card.get(member).and_then(Value::as_bool) {
        Some(true) => locale.pick("是", "yes").to_owned(),
        _ => locale.pick("否", "no").to_owned(),
    };
    let mut rows = vec![
        (locale.pick("卡号", "card"), cell(card, "card_no")),
        (locale.pick("芯片", "chip"), format!("{} ({})", cell(card, "uid"), cell(card, "technology"))),
        (locale.pick("类型", "type"), cell(card, "type")),
        (locale.pick("发卡门店", "issued by"), cell(card, "issuing_store")),
        (locale.pick("状态", "status"), cell(card, "status")),
        (locale.pick("总部黑名单", "on the hotlist"), yes("hotlisted")),
        (locale.pick("暂停写卡原因", "held"), cell(card, "held")),
        (locale.pick("有效期至", "valid until"), cell(card, "valid_until")),
        (locale.pick("本金", "principal"), cell(card, "principal_fen")),
        (locale.pick("赠金", "bonus"), cell(card, "bonus_fen")),
        (locale.pick("余额", "balance"), cell(card, "balance_fen")),
        (locale.pick("积分", "points"), cell(card, "points")),
        (locale.pick("交易计数", "counter"), cell(card, "counter")),
        (locale.pick("截至", "as of"), cell(card, "known_at")),
    ];
    for open in list(card, "unsettled") {
        let text = format!(
            "{} {} {} {}",
            cell(open, "transaction_id"),
            cell(open, "kind"),
            cell(open, "amount_fen"),
            cell(open, "state")
        );
        rows.push((locale.pick("未结交易", "not settled"), text));
    }
    lines(&rows)
}

fn page_text(page: &Value, locale: Locale) -> String {
    let headings = [
        locale.pick("开始时间", "BEGUN"),
        locale.pick("种类", "KIND"),
        locale.pick("状态", "STATE"),
        locale.pick("金额", "AMOUNT"),
        locale.pick("积分", "POINTS"),
        locale.pick("余额", "BALANCE"),
        locale.pick("操作员", "OPERATOR"),
        locale.pick("收银台", "TILL"),
        locale.pick("交易号", "ID"),
    ];
    let members = [
        "begun_at",
        "kind",
        "state",
        "amount_fen",
        "points",
        "balance_after_fen",
        "operator",
        "till",
        "transaction_id",
    ];
    let rows: Vec<_> = list(page, "transactions")
        .iter()
        .map(|row| members.iter().map(|member| cell(row, member)).collect())
        .collect();
    let text = table(&headings, &rows);
    match page.get("next").and_then(Value::as_i64) {
        Some(next) => format!("{text}\n{} --before {next}", locale.pick("更多：", "more:")),
        None => text,
    }
}

fn standing_text(standing: &Value, locale: Locale) -> String {
    let (card_no, status) = (cell(standing, "card_no"), cell(standing, "status"));
    let said = match status.as_str() {
        "lost" => locale.pick("已挂失", "reported lost"),
        "blocked" => locale.pick("已停用", "blocked"),
        _ => locale.pick("已恢复使用", "in use again"),
    };
    let seen = match standing.get("seen").and_then(Value::as_bool) {
        Some(false) => {
            locale.pick("；本店从未见过此卡，请再核对卡号", "; this store never saw it, so check the number")
        }
        _ => "",
    };
    format!("{card_no}: {said} ({}, {}){seen}", cell(standing, "operator"), cell(standing, "at"))
}

fn pin_text(answer: &Value, locale: Locale) -> String {
    let said = match cell(answer, "pin").as_str() {
        "set" => locale.pick("已设置密码", "PIN set"),
        "changed" => locale.pick("已更改密码", "PIN changed"),
        _ => locale.pick("已取消密码", "PIN removed"),
    };
    format!("{}: {said} ({}, {})", cell(answer, "card_no"), cell(answer, "operator"), cell(answer, "at"))
}

/// The day, what was given out, and what may still come.
fn day_line(stats: &Value, locale: Locale) -> String {
    let (day, issued, unsettled) = (cell(stats, "day"), cell(stats, "issued"), cell(stats, "unsettled"));
    match locale {
        Locale::ZhCn => format!("营业日 {day}，发卡 {issued} 张，未结交易 {unsettled} 笔"),
        Locale::En => format!("business day {day}, {issued} cards issued, {unsettled} not settled"),
    }
}

fn kind_name(kind: TransactionKind, locale: Locale) -> &'static str {
    let (zh, en) = match kind {
        TransactionKind::Topup => ("充值", "top-up"),
        TransactionKind::Spend => ("消费", "spend"),
        TransactionKind::Earn => ("积分增加", "earn"),
        TransactionKind::Redeem => ("积分兑换", "redeem"),
        TransactionKind::Coupon => ("发券", "coupon"),
        TransactionKind::Adjust => ("调整", "adjust"),
        TransactionKind::Transfer => ("转账", "transfer"),
        TransactionKind::Refund => ("退款", "refund"),
        TransactionKind::Void => ("撤销", "void"),
    };
    locale.pick(zh, en)
}

fn tender_name(tender: &str, locale: Locale) -> String {
    let Ok(kind) = serde_json::from_value(json!(tender)) else { return tender.to_owned() };
    let (zh, en) = match kind {
        TenderKind::Purse => ("卡内余额", "purse"),
        TenderKind::Points => ("积分", "points"),
        TenderKind::Coupon => ("优惠券", "coupon"),
        TenderKind::Cash => ("现金", "cash"),
        TenderKind::Wechat => ("微信", "wechat"),
        TenderKind::Alipay => ("支付宝", "alipay"),
        TenderKind::Bank => ("银行卡", "bank"),
    };
    locale.pick(zh, en).to_owned()
}

/// What is told of each kind.
const SUMS: [&str; 7] = ["count", "amount_fen", "principal_fen", "bonus_fen", "points", "coupons", "gifts"];

fn sum_headings(locale: Locale) -> [&'static str; 7] {
    [
        locale.pick("笔数", "COUNT"),
        locale.pick("余额变动", "BALANCE"),
        locale.pick("本金", "PRINCIPAL"),
        locale.pick("赠金", "BONUS"),
        locale.pick("积分", "POINTS"),
        locale.pick("券", "COUPONS"),
        locale.pick("礼品", "GIFTS"),
    ]
}

/// The sums of `kinds`, in the contract's order, with their names.
fn sums(kinds: Option<&Value>) -> impl Iterator<Item = (TransactionKind, &Value)> {
    TransactionKind::ALL.into_iter().filter_map(move |kind| {
        let name = json!(kind);
        kinds?.get(name.as_str()?).map(|sum| (kind, sum))
    })
}

fn kinds_text(stats: &Value, locale: Locale) -> String {
    let headings = [&[locale.pick("种类", "KIND")][..], &sum_headings(locale)].concat();
    let row = |(kind, sum): (TransactionKind, &Value)| {
        let cells = SUMS.iter().map(|member| cell(sum, member));
        std::iter::once(kind_name(kind, locale).to_owned()).chain(cells).collect::<Vec<_>>()
    };
    let rows: Vec<_> = sums(stats.get("total")).map(row).collect();
    format!("{}\n{}", day_line(stats, locale), table(&headings, &rows))
}

fn operators_text(stats: &Value, locale: Locale) -> String {
    shares_text(stats, "by_operator", "operator", locale.pick("操作员", "OPERATOR"), locale)
}

fn tills_text(stats: &Value, locale: Locale) -> String {
    shares_text(stats, "by_till", "till", locale.pick("收银台", "TILL"), locale)
}

fn shares_text(stats: &Value, member: &str, name: &str, heading: &str, locale: Locale) -> String {
    let kind_heading = [heading, locale.pick("种类", "KIND")];
    let headings = [&kind_heading[..], &sum_headings(locale)].concat();
    let mut rows = Vec::new();
    for share in list(stats, member) {
        let who = cell(share, name);
        let issued = vec![who.clone(), locale.pick("发卡", "issued").to_owned(), cell(share, "issued")];
        if share.get("issued").and_then(Value::as_u64).is_some_and(|cards| cards > 0) {
            rows.push(issued);
        }
        for (kind, sum) in sums(share.get("kinds")) {
            let cells = SUMS.iter().map(|member| cell(sum, member));
            rows.push([who.clone(), kind_name(kind, locale).to_owned()].into_iter().chain(cells).collect());
        }
    }
    format!("{}\n{}", day_line(stats, locale), table(&headings, &rows))
}

fn tenders_text(stats: &Value, locale: Locale) -> String {
    let headings =
        [locale.pick("付款方式", "TENDER"), locale.pick("笔数", "COUNT"), locale.pick("金额", "AMOUNT")];
    let row = |tender: &Value| {
        let name = tender_name(&cell(tender, "tender"), locale);
        vec![name, cell(tender, "count"), cell(tender, "amount_fen")]
    };
    let rows: Vec<_> = list(stats, "by_tender").iter().map(row).collect();
    format!("{}\n{}", day_line(stats, locale), table(&headings, &rows))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_as_people_read_them() {
        let spend = json!({ "count": 2, "amount_fen": -1250, "principal_fen": -1250, "bonus_fen": 0, "points": 12, "coupons": 0, "gifts": 0 });
        let stats = json!({
            "day": "2026-11-22", "issued": 1, "unsettled": 0, "total": { "spend": spend },
            "by_operator": [{ "operator": "li.wei", "issued": 1, "kinds": { "spend": spend } }],
            "by_till": [], "by_tender": [{ "tender": "wechat", "count": 1, "amount_fen": 990 }],
        });
        let text = kinds_text(&stats, Locale::En);
        assert_eq!(text.lines().count(), 3, "{text}");
        assert!(text.lines().nth(2).unwrap().starts_with("spend") && text.contains("-¥12.50"), "{text}");
        let text = operators_text(&stats, Locale::ZhCn);
        assert!(text.contains("发卡") && text.contains("消费") && text.contains("li.wei"), "{text}");
        let text = tenders_text(&stats, Locale::ZhCn);
        assert!(text.contains("微信") && text.contains("¥9.90"), "{text}");
        assert_eq!(tills_text(&stats, Locale::En).lines().count(), 2);
    }

    #[test]
    fn every_tender_and_kind_has_its_word() {
        for kind in TransactionKind::ALL {
            assert_ne!(kind_name(kind, Locale::ZhCn), kind_name(kind, Locale::En));
        }
        assert_eq!(tender_name("barter", Locale::En), "barter");
    }

    #[test]
    fn a_card_is_told_in_lines() {
        let card = json!({
            "card_no": "8800000042", "status": "lost", "balance_fen": 52_500, "hotlisted": true,
            "unsettled": [{ "transaction_id": "0199", "kind": "spend", "amount_fen": -100, "state": "unknown" }],
        });
        let text = card_text(&card, Locale::En);
        assert!(text.contains("balance: ¥525.00") && text.contains("on the hotlist: yes"), "{text}");
        assert!(text.ends_with("not settled: 0199 spend -¥1.00 unknown"), "{text}");
    }
}
