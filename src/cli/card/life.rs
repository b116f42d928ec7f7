//! `baygate card return|replace|extend|transfer`: what changes with a card's life, and what moves
//! from one card to another, with the card on a reader.

use serde_json::{Value, json};
use uuid::Uuid;

use super::amount::{self, Yuan};
use super::{At, Once, ask, card_type, show};
use crate::cli::{Global, terminal_secret};
use crate::event::ledger::{CardType, TenderKind};
use crate::ident::CardNo;

/// What changes with a card's life.
#[derive(Debug, clap::Subcommand)]
pub(super) enum Life {
    /// Takes the card on the reader back: pays the principal out, forfeits the rest / 退卡
    #[command(after_help = "Example:\n  baygate card return --tender cash")]
    Return {
        /// How the principal is paid out: cash, wechat, alipay or bank / 退款方式
        #[arg(long, value_name = "TENDER", value_parser = amount::tender_kind)]
        tender: TenderKind,
        /// Asks for the card's PIN / 输入卡密码
        #[arg(long)]
        pin: bool,
        #[command(flatten)]
        at: At,
        #[command(flatten)]
        once: Once,
    },
    /// The card on the reader takes the place of one that is lost or defect / 补卡、换卡
    #[command(
        after_help = "Example:\n  baygate card replace 8800000042\n  baygate card replace 8800000042 --defect --issue 8800000043 --type named"
    )]
    Replace {
        /// The card that goes; it need not be here / 旧卡号
        old: CardNo,
        /// It does not work any more, it was not lost / 损坏而非丢失
        #[arg(long)]
        defect: bool,
        /// Issues the empty card on the reader with this number first / 先用此卡号发新卡
        #[arg(long, value_name = "CARD_NO", requires = "card_type")]
        issue: Option<CardNo>,
        /// With --issue: named or anonymous, as the old card / 记名或不记名
        #[arg(long = "type", value_name = "TYPE", value_parser = card_type, requires = "issue")]
        card_type: Option<CardType>,
        /// With --issue: tier, 0 to 255 / 等级
        #[arg(long, default_value_t = 0, requires = "issue")]
        tier: u8,
        /// With --issue: discount class, 0 to 255 / 折扣类别
        #[arg(long, value_name = "CLASS", default_value_t = 0, requires = "issue")]
        discount_class: u8,
        /// With --issue: the last day it is good / 有效期至
        #[arg(long, value_name = "DAY", requires = "issue")]
        valid_until: Option<jiff::civil::Date>,
        #[command(flatten)]
        at: At,
        #[command(flatten)]
        once: Once,
    },
    /// Changes how long the card on the reader is good / 延期
    #[command(
        after_help = "Example:\n  baygate card extend --valid-until 2031-12-31\n  baygate card extend --card 8800000042 --no-end"
    )]
    Extend {
        /// The last day it is good / 有效期至
        #[arg(long, value_name = "DAY", required_unless_present = "no_end", conflicts_with = "no_end")]
        valid_until: Option<jiff::civil::Date>,
        /// It no longer expires / 长期有效
        #[arg(long)]
        no_end: bool,
        #[command(flatten)]
        at: At,
        #[command(flatten)]
        once: Once,
    },
    /// Principal from one card to another, in two taps: first the giving card, then the other / 转账
    #[command(
        after_help = "Example:\n  baygate card transfer --amount 100 --to 8800000043\n  baygate card transfer --receive 0192f0c1-2d3e-7a4b-8c5d-6e7f8091a2b3"
    )]
    Transfer {
        /// In yuan, e.g. 100 or 100.50 / 金额（元）
        #[arg(long, value_name = "YUAN", requires = "to")]
        amount: Option<Yuan>,
        /// The card that receives it / 转入卡号
        #[arg(long, value_name = "CARD_NO", requires = "amount")]
        to: Option<CardNo>,
        /// The second tap: what this giving half gave, onto the card on the reader / 转入
        #[arg(long, value_name = "TRANSACTION", conflicts_with = "to", required_unless_present = "to")]
        receive: Option<Uuid>,
        /// Asks for the card's PIN / 输入卡密码
        #[arg(long)]
        pin: bool,
        #[command(flatten)]
        at: At,
        #[command(flatten)]
        once: Once,
    },
}

/// Runs one of the commands of this file.
///
/// # Errors
/// The daemon cannot be asked, or refuses.
pub(super) async fn act(command: Life, global: &Global) -> anyhow::Result<()> {
    let done = match command {
        Life::Return { tender, pin, at, once } => {
            let desk = ask::Desk::open(at, global).await?;
            let path = format!("/v1/cards/{}/return", desk.card_no().await?);
            let body = with_pin(json!({ "tender": tender }), pin, global).await?;
            desk.post(&path, body, Some(&once.key())).await?
        }
        Life::Replace { old, defect, issue, card_type, tier, discount_class, valid_until, at, once } => {
            let desk = ask::Desk::open(at, global).await?;
            let key = once.key();
            if let Some(card_no) = &issue {
                let body = json!({
                    "card_no": card_no, "type": card_type, "tier": tier, "discount_class": discount_class,
                    "valid_until": valid_until,
                });
                desk.post("/v1/cards", body, Some(&format!("{key}-issue"))).await?;
            }
            let new = match issue {
                Some(card_no) => card_no.to_string(),
                None => desk.card_no().await?,
            };
            let body = json!({ "new_card_no": new, "why": if defect { "defect" } else { "lost" } });
            desk.post(&format!("/v1/cards/{old}/replace"), body, Some(&key)).await?
        }
        Life::Extend { valid_until, at, once, .. } => {
            let desk = ask::Desk::open(at, global).await?;
            let path = format!("/v1/cards/{}/extend", desk.card_no().await?);
            desk.post(&path, json!({ "valid_until": valid_until }), Some(&once.key())).await?
        }
        Life::Transfer { amount, to, receive, pin, at, once } => {
            let desk = ask::Desk::open(at, global).await?;
            let body = json!({
                "kind": "transfer", "amount_fen": amount.map(|amount| amount.0), "to_card_no": to,
                "original_transaction_id": receive,
            });
            let body = with_pin(body, pin, global).await?;
            desk.transact(None, body, &once.key()).await?
        }
    };
    show::transaction(&done, global);
    Ok(())
}

/// With the card's PIN, typed without echo or read as a line of standard input.
pub(super) async fn with_pin(mut body: Value, wanted: bool, global: &Global) -> anyhow::Result<Value> {
    if wanted && let Some(members) = body.as_object_mut() {
        let asked = global.language().pick("卡密码（不显示）：", "The card's PIN (not shown): ");
        members.insert("pin".into(), json!(terminal_secret::read(asked).await?.reveal()));
    }
    Ok(body)
}
