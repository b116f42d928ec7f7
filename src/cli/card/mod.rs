//! `baygate card`: work on the card that lies on a reader, through the running daemon. What
//! lives here: the commands and their arguments. What does not: the asking (`ask`), the
//! words of the answers (`show`), and what needs no card on a reader (`figures`).

mod amount;
mod ask;
mod batch;
mod csv;
mod figures;
mod import;
mod life;
mod points;
mod read;
mod release;
mod show;

use serde_json::{Map, Value, json};
use uuid::Uuid;

use self::amount::{ItemArg, TenderArg, Yuan};
use self::figures::Figures;
use self::life::Life;
use super::{Exit, Global};
use crate::event::ledger::{CardType, TenderKind};
use crate::ident::{CardNo, DeviceId};

/// Arguments of `baygate card`.
#[derive(Debug, clap::Args)]
#[command(
    about = "Member cards / 会员卡",
    after_help = "Example:\n  baygate card read\n  baygate card issue 8800000042 --type named\n  baygate card top-up --amount 500 --tender cash\n  baygate card spend --amount 88.50 --order A-17"
)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// The card now on the reader / 读卡
    #[command(
        after_help = "Example:\n  baygate card read --reader counter-1 --json\n  baygate card read --reader 'ACS ACR122U*'\n\nWhere no daemon runs the reader is opened by this command; nothing is written to the card."
    )]
    Read(read::Args),
    /// Makes the empty card on the reader a member's / 发卡
    #[command(
        after_help = "Example:\n  baygate card issue 8800000042 --type named --tier 2\n  baygate card issue --give-up 0192f0c1-2d3e-7a4b-8c5d-6e7f8091a2b3"
    )]
    Issue {
        /// The number on its face: 1 to 16 digits / 卡号
        #[arg(required_unless_present = "give_up", conflicts_with = "give_up")]
        card_no: Option<CardNo>,
        /// Gives up an issue whose card left in the middle and was thrown away / 放弃未完成的发卡
        #[arg(long, value_name = "REQUEST")]
        give_up: Option<Uuid>,
        /// named or anonymous; of a member who was imported it is known / 记名或不记名
        #[arg(long = "type", value_name = "TYPE", value_parser = card_type)]
        card_type: Option<CardType>,
        /// Tier, 0 to 255; default: as imported, else 0 / 等级
        #[arg(long)]
        tier: Option<u8>,
        /// Discount class of the rules, 0 to 255; default: as imported, else 0 / 折扣类别
        #[arg(long, value_name = "CLASS")]
        discount_class: Option<u8>,
        /// The last day it is good, e.g. 2030-12-31; default: as imported, else no end / 有效期至
        #[arg(long, value_name = "DAY")]
        valid_until: Option<jiff::civil::Date>,
        #[command(flatten)]
        at: At,
        #[command(flatten)]
        once: Once,
    },
    /// Gives out many cards, one behind the other: begins, follows, ends or lists batches / 批量发卡
    #[command(
        after_help = "Example:\n  baygate card batch --csv members.csv\n  baygate card batch --range 8800000001-8800000100 --type anonymous --no-print\n  baygate card batch"
    )]
    Batch(batch::Args),
    /// Members that the shop had before: each good line of a CSV file is taken, the others are told / 导入会员
    #[command(
        after_help = "Example:\n  baygate card import members.csv --check\n  baygate card import members.csv --operator li.wei\n\nmembers.csv:\n  card_no,type,tier,discount_class,valid_until\n  8800000042,named,2,0,"
    )]
    Import(import::Args),
    /// What a sale would cost with the card, line by line; nothing is written / 报价
    #[command(
        after_help = "Example:\n  baygate card quote --item oil-5w30:parts:4:45.00 --item oil-change:labour:1:120 --points 200"
    )]
    Quote {
        #[command(flatten)]
        sale: Sale,
        #[command(flatten)]
        at: At,
    },
    /// Money onto the card / 充值
    #[command(after_help = "Example:\n  baygate card top-up --amount 500 --tender wechat")]
    TopUp {
        /// In yuan, e.g. 500 or 500.50 / 金额（元）
        #[arg(long, value_name = "YUAN")]
        amount: Yuan,
        /// How the customer paid: cash, wechat, alipay or bank / 付款方式
        #[arg(long, value_name = "TENDER", value_parser = amount::tender_kind)]
        tender: TenderKind,
        /// Your order number / 订单号
        #[arg(long)]
        order: Option<String>,
        #[command(flatten)]
        at: At,
        #[command(flatten)]
        once: Once,
    },
    /// Money off the card / 消费
    #[command(
        after_help = "Example:\n  baygate card spend --amount 88.50 --order A-17\n  baygate card spend --quote 0192f0c1-2d3e-7a4b-8c5d-6e7f8091a2b3"
    )]
    Spend {
        #[command(flatten)]
        sale: Sale,
        /// Do what this quote says / 按报价扣款
        #[arg(
            long,
            value_name = "QUOTE",
            conflicts_with_all = ["amount", "items", "points", "coupon", "tenders", "order"]
        )]
        quote: Option<Uuid>,
        /// Asks for the card's PIN / 输入卡密码
        #[arg(long)]
        pin: bool,
        #[command(flatten)]
        at: At,
        #[command(flatten)]
        once: Once,
    },
    /// Gives back what a transaction took, in part or in whole / 退款
    #[command(
        after_help = "Example:\n  baygate card refund 0192f0c1-2d3e-7a4b-8c5d-6e7f8091a2b3 --amount 20"
    )]
    Refund {
        /// The transaction / 原交易号
        transaction: Uuid,
        /// In yuan, e.g. 20 or 20.50 / 金额（元）
        #[arg(long, value_name = "YUAN")]
        amount: Yuan,
        /// Asks for the card's PIN / 输入卡密码
        #[arg(long)]
        pin: bool,
        #[command(flatten)]
        at: At,
        #[command(flatten)]
        once: Once,
    },
    /// Undoes a transaction of which nothing was refunded / 撤销
    #[command(after_help = "Example:\n  baygate card void 0192f0c1-2d3e-7a4b-8c5d-6e7f8091a2b3")]
    Void {
        /// The transaction / 原交易号
        transaction: Uuid,
        /// Asks for the card's PIN, which undoing a top-up may need / 输入卡密码（撤销充值时可能需要）
        #[arg(long)]
        pin: bool,
        #[command(flatten)]
        at: At,
        #[command(flatten)]
        once: Once,
    },
    /// Points earned, redeemed for gifts, put right / 积分
    #[command(subcommand)]
    Points(points::Points),
    /// Coupons / 优惠券
    #[command(subcommand)]
    Coupon(points::Coupon),
    /// Puts the money on the card right by hand; headquarters has to be reached / 人工调整余额（须联网）
    #[command(after_help = "Example:\n  baygate card adjust --principal -5.00 --order K-4")]
    Adjust(points::Money),
    /// Lets the held card on the reader be used again, once a person has compared it / 核对后解除暂停
    #[command(
        after_help = "Example:\n  baygate card release --card 8800000042 --operator li.wei --reason 复制卡已扣留\n  baygate card release --card 8800000042 --take 12\n  baygate card release --card 8800000042 --without-card lost --reason 客户丢卡"
    )]
    Release(release::Args),
    #[command(flatten)]
    Life(Life),
    #[command(flatten)]
    Figures(Figures),
}

/// Which card, on which reader.
#[derive(Debug, clap::Args)]
struct At {
    /// The reader; not needed where there is one / 读卡器
    #[arg(long, value_name = "ID")]
    reader: Option<DeviceId>,
    /// The card that is meant; default: the one that lies there / 卡号
    #[arg(long, value_name = "CARD_NO")]
    card: Option<CardNo>,
    /// Seconds to wait for the card, 1 to 60 / 等待放卡的秒数
    #[arg(long, value_name = "SECONDS", default_value_t = 8, value_parser = clap::value_parser!(u64).range(1..=60))]
    wait: u64,
}

/// Acts once.
#[derive(Debug, clap::Args)]
struct Once {
    /// Asking again with the same key acts once / 幂等键
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,
}

impl Once {
    fn key(self) -> String {
        self.idempotency_key.unwrap_or_else(|| Uuid::new_v4().to_string())
    }
}

/// What is sold, and what it is paid with.
#[derive(Debug, clap::Args)]
struct Sale {
    /// In yuan, where there are no items / 金额（元）
    #[arg(long, value_name = "YUAN", conflicts_with = "items")]
    amount: Option<Yuan>,
    /// One thing sold: SKU:labour|parts|goods|gift:QUANTITY:YUAN, several times / 商品
    #[arg(long = "item", value_name = "ITEM")]
    items: Vec<ItemArg>,
    /// Points to pay with / 使用积分
    #[arg(long)]
    points: Option<i64>,
    /// A coupon of the card to use, by number / 使用优惠券
    #[arg(long)]
    coupon: Option<u32>,
    /// What the till took beside the card, and what the card pays: purse|cash|wechat|alipay|bank=YUAN,
    /// several times; default: the card pays all / 付款方式
    #[arg(long = "tender", value_name = "TENDER=YUAN")]
    tenders: Vec<TenderArg>,
    /// Your order number / 订单号
    #[arg(long)]
    order: Option<String>,
}

impl Sale {
    fn body(self) -> Map<String, Value> {
        let mut body = Map::new();
        body.insert("kind".into(), json!("spend"));
        body.extend(self.amount.map(|amount| ("amount_fen".into(), json!(amount.0))));
        body.extend(self.points.map(|points| ("points".into(), json!(points))));
        body.extend(self.coupon.map(|coupon| ("coupon".into(), json!(coupon))));
        body.extend(self.order.map(|order| ("order".into(), json!(order))));
        let items: Vec<_> = self.items.into_iter().map(|item| item.0).collect();
        let tenders: Vec<_> = self.tenders.into_iter().map(|tender| tender.0).collect();
        body.insert("items".into(), json!(items));
        body.insert("tenders".into(), json!(tenders));
        body
    }
}

fn card_type(text: &str) -> Result<CardType, String> {
    match text {
        "named" => Ok(CardType::Named),
        "anonymous" => Ok(CardType::Anonymous),
        _ => Err("named or anonymous".into()),
    }
}

/// Runs `baygate card`.
///
/// # Errors
/// None: what goes wrong is printed and is the exit status.
pub async fn run(args: Args, global: &Global) -> anyhow::Result<Exit> {
    Ok(act(args.command, global).await.unwrap_or_else(|error| ask::report(&error)))
}

async fn act(command: Command, global: &Global) -> anyhow::Result<Exit> {
    match command {
        Command::Read(args) => read::act(args, global).await?,
        Command::Issue { give_up: Some(issue), at, .. } => {
            let over = ask::Desk::open(at, global).await?.give_up(issue).await?;
            show::given_up(&over, global);
        }
        Command::Issue { card_no, card_type, tier, discount_class, valid_until, at, once, .. } => {
            let desk = ask::Desk::open(at, global).await?;
            let body = json!({
                "card_no": card_no, "type": card_type, "tier": tier, "discount_class": discount_class,
                "valid_until": valid_until,
            });
            let issued = desk.post("/v1/cards", body, Some(&once.key())).await?;
            show::issued(&issued, global);
        }
        Command::Batch(args) => batch::act(args, global).await?,
        Command::Release(args) => release::act(args, global).await?,
        Command::Import(args) => return import::act(args, global).await,
        Command::Quote { sale, at } => {
            let desk = ask::Desk::open(at, global).await?;
            let path = format!("/v1/cards/{}/quotes", desk.card_no().await?);
            let quote = desk.post(&path, sale.body().into(), None).await?;
            show::quote(&quote, global);
        }
        Command::TopUp { amount, tender, order, at, once } => {
            let tenders = json!([{ "kind": tender, "amount_fen": amount.0 }]);
            let body = json!({ "kind": "topup", "amount_fen": amount.0, "tenders": tenders, "order": order });
            let desk = ask::Desk::open(at, global).await?;
            show::transaction(&desk.transact(None, body, &once.key()).await?, global);
        }
        Command::Spend { sale, quote, pin, at, once } => {
            let body = quote.map_or_else(|| sale.body().into(), |quote| json!({ "quote_id": quote }));
            let body = life::with_pin(body, pin, global).await?;
            let desk = ask::Desk::open(at, global).await?;
            show::transaction(&desk.transact(None, body, &once.key()).await?, global);
        }
        Command::Refund { transaction, amount, pin, at, once } => {
            let body =
                json!({ "kind": "refund", "amount_fen": amount.0, "original_transaction_id": transaction });
            let body = life::with_pin(body, pin, global).await?;
            let desk = ask::Desk::open(at, global).await?;
            show::transaction(&desk.transact(Some(transaction), body, &once.key()).await?, global);
        }
        Command::Void { transaction, pin, at, once } => {
            let body = json!({ "kind": "void", "original_transaction_id": transaction });
            let body = life::with_pin(body, pin, global).await?;
            let desk = ask::Desk::open(at, global).await?;
            show::transaction(&desk.transact(Some(transaction), body, &once.key()).await?, global);
        }
        Command::Points(deed) => points::points(deed, global).await?,
        Command::Coupon(deed) => points::coupon(deed, global).await?,
        Command::Adjust(args) => points::money(args, global).await?,
        Command::Life(command) => life::act(command, global).await?,
        Command::Figures(command) => figures::act(command, global).await?,
    }
    Ok(Exit::Done)
}
