//! `baygate card points|coupon|adjust`: what changes a card without a sale, with the card on a
//! reader. What does not live here: what is allowed (the daemon's purse).

use serde_json::{Value, json};

use super::amount::{ItemArg, SignedYuan};
use super::{At, Once, ask, life, show};
use crate::cli::Global;

/// `baygate card points`.
#[derive(Debug, clap::Subcommand)]
pub(super) enum Points {
    /// Points onto the card, for something that no sale of this house tells / 加积分
    #[command(after_help = "Example:\n  baygate card points earn 120 --order A-17")]
    Earn {
        /// How many / 积分数
        points: u32,
        /// Your order number / 订单号
        #[arg(long)]
        order: Option<String>,
        #[command(flatten)]
        at: At,
        #[command(flatten)]
        once: Once,
    },
    /// Points off the card, for gifts / 积分兑换礼品
    #[command(after_help = "Example:\n  baygate card points redeem 200 --item cup:gift:1:0")]
    Redeem {
        /// How many / 积分数
        points: u32,
        /// A gift, for the record: SKU:gift:QUANTITY:YUAN, several times / 礼品
        #[arg(long = "item", value_name = "ITEM")]
        items: Vec<ItemArg>,
        /// Your order number / 订单号
        #[arg(long)]
        order: Option<String>,
        /// Asks for the card's PIN / 输入卡密码
        #[arg(long)]
        pin: bool,
        #[command(flatten)]
        at: At,
        #[command(flatten)]
        once: Once,
    },
    /// Puts the points right by hand; headquarters has to be reached / 人工调整积分（须联网）
    #[command(
        after_help = "Example:\n  baygate card points adjust 30 --order K-4\n  baygate card points adjust -30"
    )]
    Adjust {
        /// How many more; with a minus: fewer / 增减的积分
        #[arg(allow_negative_numbers = true)]
        points: i64,
        #[command(flatten)]
        by: ByHand,
    },
}

/// `baygate card coupon`.
#[derive(Debug, clap::Subcommand)]
pub(super) enum Coupon {
    /// A coupon onto the card; `card spend --coupon` uses it, `card void` takes back one given by
    /// mistake / 发券
    #[command(after_help = "Example:\n  baygate card coupon give 7")]
    Give {
        /// Its number, as `[[purse.coupon]]` has it / 券号
        coupon: u32,
        /// Your order number / 订单号
        #[arg(long)]
        order: Option<String>,
        #[command(flatten)]
        at: At,
        #[command(flatten)]
        once: Once,
    },
}

/// Arguments of `baygate card adjust`.
#[derive(Debug, clap::Args)]
pub(super) struct Money {
    /// In yuan, with a minus: less, e.g. -5.00 / 本金增减（元）
    #[arg(long, value_name = "YUAN", allow_negative_numbers = true, required_unless_present = "bonus")]
    principal: Option<SignedYuan>,
    /// In yuan, with a minus: less / 赠送增减（元）
    #[arg(long, value_name = "YUAN", allow_negative_numbers = true)]
    bonus: Option<SignedYuan>,
    #[command(flatten)]
    by: ByHand,
}

/// What every putting right has.
#[derive(Debug, clap::Args)]
pub(super) struct ByHand {
    /// Your reference, for the record / 单号
    #[arg(long)]
    order: Option<String>,
    /// Asks for the card's PIN / 输入卡密码
    #[arg(long)]
    pin: bool,
    #[command(flatten)]
    at: At,
    #[command(flatten)]
    once: Once,
}

/// Runs `baygate card points`.
///
/// # Errors
/// The daemon cannot be asked, or refuses.
pub(super) async fn points(deed: Points, global: &Global) -> anyhow::Result<()> {
    match deed {
        Points::Earn { points, order, at, once } => {
            let body = json!({ "kind": "earn", "points": points, "order": order });
            act(body, false, at, once, global).await
        }
        Points::Redeem { points, items, order, pin, at, once } => {
            let items: Vec<_> = items.into_iter().map(|item| item.0).collect();
            let body = json!({ "kind": "redeem", "points": points, "items": items, "order": order });
            act(body, pin, at, once, global).await
        }
        Points::Adjust { points, by } => by_hand(json!({ "points": points }), by, global).await,
    }
}

/// Runs `baygate card coupon`.
///
/// # Errors
/// The daemon cannot be asked, or refuses.
pub(super) async fn coupon(deed: Coupon, global: &Global) -> anyhow::Result<()> {
    let Coupon::Give { coupon, order, at, once } = deed;
    act(json!({ "kind": "coupon", "coupon": coupon, "order": order }), false, at, once, global).await
}

/// Runs `baygate card adjust`.
///
/// # Errors
/// The daemon cannot be asked, or refuses.
pub(super) async fn money(Money { principal, bonus, by }: Money, global: &Global) -> anyhow::Result<()> {
    let fen = |amount: Option<SignedYuan>| amount.map_or(0, |SignedYuan(fen)| fen.0);
    by_hand(json!({ "principal_fen": fen(principal), "bonus_fen": fen(bonus) }), by, global).await
}

async fn by_hand(adjustment: Value, by: ByHand, global: &Global) -> anyhow::Result<()> {
    let body = json!({ "kind": "adjust", "adjustment": adjustment, "order": by.order });
    act(body, by.pin, by.at, by.once, global).await
}

async fn act(body: Value, pin: bool, at: At, once: Once, global: &Global) -> anyhow::Result<()> {
    let body = life::with_pin(body, pin, global).await?;
    let desk = ask::Desk::open(at, global).await?;
    show::transaction(&desk.transact(None, body, &once.key()).await?, global);
    Ok(())
}
