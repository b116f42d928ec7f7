//! What a till asks of a card, as it stands in the request's row. One form for every kind of
//! transaction: which fields count is the kind's business ([`Deal::plan`]).

use std::time::Duration;

use jiff::civil::Date;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;
use uuid::Uuid;

use super::holder;
use crate::card::purse::changes::{adjust, earn, give_coupon, redeem, top_up, transfer_in, transfer_out};
use crate::card::purse::life::{extend, give_back, replace_in};
use crate::card::purse::quote::{Sale, quote};
use crate::card::purse::refund::{Original, refund, void};
use crate::card::purse::{Plan, Refusal};
use crate::card::record::MemberRecord;
use crate::config::purse::PurseTable;
use crate::event::ledger::{CardType, Category, Item, Tender, TenderKind, TransactionKind, Validity};
use crate::ident::{CardNo, DeviceId};
use crate::money::{CouponId, Fen, Holding};
pub use crate::store::requests::{QUOTE, TRANSACTION};

/// Kind of the request that makes an empty card a member's.
pub const ISSUE: &str = "card.issue";
/// Kind of the row that stands while an empty card is being written: its target is the chip.
pub const PREPARE: &str = "card.prepare";

/// How long a card is waited for when nobody says.
const USUAL_WAIT_S: u64 = 8;
/// And at most.
const LONGEST_WAIT_S: u64 = 60;

/// Who asks, and where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct By {
    /// Who.
    pub operator: String,
    /// Where.
    pub till: DeviceId,
}

/// Puts a card right by hand: signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Adjustment {
    /// On the principal.
    #[schema(value_type = i64)]
    pub principal_fen: Fen,
    /// On the bonus.
    #[schema(value_type = i64)]
    pub bonus_fen: Fen,
    /// On the points.
    pub points: i64,
}

/// The calculation that a customer has agreed to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quoted {
    /// The quote's request.
    pub quote_id: Uuid,
    /// What it said.
    pub said: Value,
}

/// What changes with a card's life, beside what it does to what the card holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "kebab-case")]
pub enum Life {
    /// The card is given back and paid out.
    Return {
        /// How the principal is paid out.
        tender: TenderKind,
    },
    /// The card takes the place of another one.
    Replace {
        /// The other one.
        old_card_no: CardNo,
        /// `lost` or `defect`.
        why: Why,
    },
    /// The card is good for longer.
    Extend {
        /// The last day; absent: without end.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        valid_until: Option<Date>,
    },
}

/// Why a card is replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Why {
    /// It was lost: only types with a loss report.
    #[default]
    Lost,
    /// It does not work any more; its holder brought it.
    Defect,
}

impl Why {
    /// As it stands in the ledger.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Lost => "lost",
            Self::Defect => "defect",
        }
    }
}

impl Life {
    /// Whether a card whose validity is over will do: its balance is not lost.
    #[must_use]
    pub fn takes_expired(&self) -> bool {
        matches!(self, Self::Return { .. } | Self::Extend { .. })
    }
}

/// What is to be done with a card.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deal {
    /// The card.
    pub card_no: CardNo,
    /// What.
    pub kind: TransactionKind,
    /// Of a top-up and a refund; of a sale without items.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub amount_fen: Option<Fen>,
    /// To pay with, to earn, to redeem.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub points: Option<i64>,
    /// To use, or to give.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub coupon: Option<CouponId>,
    /// What is sold.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub items: Vec<Item>,
    /// What it is paid with.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tenders: Vec<Tender>,
    /// The till's order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order: Option<String>,
    /// Of a refund and a void.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub original_transaction_id: Option<Uuid>,
    /// Of the giving half of a transfer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to_card_no: Option<CardNo>,
    /// Of `adjust`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adjustment: Option<Adjustment>,
    /// The card's PIN was typed, and was right. The PIN itself is never part of a request.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub pin_checked: bool,
    /// Of what is no sale.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub life: Option<Life>,
    /// How long the card is waited for, seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait_s: Option<u64>,
    /// Of a transaction for a quote.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quoted: Option<Quoted>,
    /// Who asks.
    pub by: By,
    /// The asker's key.
    pub idempotency_key: String,
}

impl Deal {
    /// What it does to a card that holds `holding`.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn plan(
        &self,
        record: &MemberRecord,
        holding: &Holding,
        original: Option<Original<'_>>,
        inflows: &[(Fen, Fen)],
        house: (&PurseTable, &TimeZone),
    ) -> Result<Plan, Refusal> {
        let (rules, timezone) = house;
        let (amount, points) = (self.amount_fen.unwrap_or_default(), self.points.unwrap_or_default());
        let original = || original.ok_or(Refusal::NotRefundable);
        match &self.life {
            None => {}
            Some(Life::Return { tender }) => return give_back(holding, *tender, inflows),
            Some(Life::Replace { .. }) => {
                let Original { fact, earlier, .. } = original()?;
                return replace_in(fact, earlier.len());
            }
            Some(Life::Extend { valid_until }) => {
                let until = valid_until
                    .map(|day| holder::end_of(day, timezone).ok_or(Refusal::ValidityNotAllowed))
                    .transpose()?;
                return extend(Validity { until });
            }
        }
        match self.kind {
            TransactionKind::Topup => top_up(amount, &self.tenders, rules),
            TransactionKind::Spend => quote(holding, &self.sale(record.discount_class), rules),
            TransactionKind::Earn => earn(points),
            TransactionKind::Redeem => redeem(points, self.items.clone()),
            TransactionKind::Coupon => give_coupon(self.coupon.ok_or(Refusal::CouponUnknown)?, rules),
            TransactionKind::Adjust => {
                let Adjustment { principal_fen, bonus_fen, points } = self.adjustment.unwrap_or_default();
                adjust(principal_fen, bonus_fen, points)
            }
            TransactionKind::Refund => refund(&original()?, amount, holding),
            TransactionKind::Void => void(&original()?),
            TransactionKind::Transfer => match &self.to_card_no {
                Some(to) => transfer_out(amount, holding, inflows, &record.card_no, to),
                None => {
                    let Original { fact, earlier, .. } = original()?;
                    transfer_in(fact, earlier.len(), &record.card_no)
                }
            },
        }
    }

    /// Whether it takes value off the card for its holder, whatever the card and the original say:
    /// what a PIN protects.
    #[must_use]
    pub fn takes_value(&self) -> bool {
        match (&self.life, self.kind) {
            (Some(life), _) => matches!(life, Life::Return { .. }),
            (None, TransactionKind::Transfer) => self.gives(),
            (None, kind) => matches!(kind, TransactionKind::Spend | TransactionKind::Redeem),
        }
    }

    /// Whether it may: a refund of a top-up does, one of a sale does not. Only its plan knows.
    #[must_use]
    pub fn may_take_value(&self) -> bool {
        let by_plan =
            matches!(self.kind, TransactionKind::Refund | TransactionKind::Void | TransactionKind::Adjust);
        self.takes_value() || self.life.is_none() && by_plan
    }

    /// Whether it is the giving half of a transfer.
    pub(super) fn gives(&self) -> bool {
        self.life.is_none() && self.kind == TransactionKind::Transfer && self.to_card_no.is_some()
    }

    /// An amount without items is one thing sold for it.
    fn sale(&self, class: u8) -> Sale {
        let one =
            |price_fen| Item { sku: "amount".into(), category: Category::Goods, quantity: 1, price_fen };
        let items = if self.items.is_empty() {
            self.amount_fen.map(one).into_iter().collect()
        } else {
            self.items.clone()
        };
        Sale {
            items,
            class,
            coupon: self.coupon,
            points: self.points.unwrap_or_default(),
            tenders: self.tenders.clone(),
        }
    }
}

/// A card to give out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IssueAsked {
    /// Its number.
    pub card_no: CardNo,
    /// Named or anonymous.
    #[serde(rename = "type")]
    pub card_type: CardType,
    /// Its tier, 0 none.
    #[serde(default)]
    pub tier: u8,
    /// Its discount class, 0 none.
    #[serde(default)]
    pub discount_class: u8,
    /// The last day it is good.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub valid_until: Option<Date>,
    /// How long the card is waited for, seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait_s: Option<u64>,
    /// Who asks.
    pub by: By,
}

/// How long the card of a request is waited for.
pub(super) fn wait_of(body: &Value) -> Duration {
    let asked = body.get("wait_s").and_then(Value::as_u64).unwrap_or(USUAL_WAIT_S);
    Duration::from_secs(asked.clamp(1, LONGEST_WAIT_S))
}
