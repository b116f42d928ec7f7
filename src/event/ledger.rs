//! Class `ledger`: what happened to money, points and coupons on a card, and to the card
//! itself. Field names are the contract's (§3); what it leaves open is said here.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::card::Technology;
use super::{Class, EventData, Text};
use crate::clock::UtcMillis;
use crate::ident::{CardNo, CardUid, DeviceId, StoreId};
use crate::money::{CouponId, Fen};

/// What a transaction does.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema, ToSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum TransactionKind {
    /// Money onto the card.
    Topup,
    /// Goods and work paid for.
    Spend,
    /// Points onto the card.
    Earn,
    /// Points for a gift.
    Redeem,
    /// A coupon onto the card.
    Coupon,
    /// Put right by hand.
    Adjust,
    /// Principal to another card.
    Transfer,
    /// Of an earlier transaction, in part or in whole.
    Refund,
    /// An earlier transaction undone.
    Void,
}

impl TransactionKind {
    /// All kinds, in the contract's order.
    pub const ALL: [Self; 9] = [
        Self::Topup,
        Self::Spend,
        Self::Earn,
        Self::Redeem,
        Self::Coupon,
        Self::Adjust,
        Self::Transfer,
        Self::Refund,
        Self::Void,
    ];
}

/// What is sold.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema, ToSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Category {
    /// Work.
    Labour,
    /// Parts.
    Parts,
    /// Other goods.
    Goods,
    /// Given for points.
    Gift,
}

/// What is paid with.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema, ToSchema,
)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum TenderKind {
    Purse,
    Points,
    Coupon,
    Cash,
    Wechat,
    Alipay,
    Bank,
}

impl TenderKind {
    /// Whether the till took it: the card knows nothing of it.
    #[must_use]
    pub fn is_told(self) -> bool {
        matches!(self, Self::Cash | Self::Wechat | Self::Alipay | Self::Bank)
    }
}

/// What came of a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// It stands on the card.
    Committed,
    /// The card is as it was.
    Aborted,
    /// The next tap will tell.
    Unknown,
}

/// One thing sold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Item {
    /// The till's name of it.
    pub sku: String,
    /// What it is.
    pub category: Category,
    /// How many.
    pub quantity: u32,
    /// Of one, before discounts.
    #[schema(value_type = i64, minimum = 0)]
    pub price_fen: Fen,
}

/// One way of paying, of several. Amounts are never negative; of a refund and a void it is
/// what went back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Tender {
    /// What with.
    pub kind: TenderKind,
    /// How much.
    #[schema(value_type = i64, minimum = 0)]
    pub amount_fen: Fen,
}

/// One line of a calculation. The lines of a calculation add up to what was to be paid; of a sale
/// those behind them say what it was paid with: `pay-coupon`, `pay-points`, `pay-cash`, `pay-wechat`,
/// `pay-alipay`, `pay-bank`, `pay-principal`, `pay-bonus`, each with a minus, so that all lines of a
/// sale together are nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Line {
    /// Stable code, e.g. `discount-labour`.
    pub code: String,
    /// For people.
    pub text: Text,
    /// What it adds, or takes off.
    pub amount_fen: Fen,
}

/// Counters of a card that has one for loads and one for purchases.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Counters {
    /// Loads.
    pub online: u32,
    /// Purchases.
    pub offline: u32,
}

/// How long a card is good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Validity {
    /// Its last millisecond; absent: without end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<UtcMillis>,
}

/// What the card itself signed, for clearing. Upper-case hex.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Proof {
    /// Transaction authentication code.
    pub tac: String,
    /// The terminal (PSAM).
    pub terminal_id: String,
    /// The terminal's own counter.
    pub terminal_sequence: u64,
    /// Version of the purchase key.
    pub key_version: u8,
    /// The card's word for the algorithm.
    pub algorithm: u8,
}

/// `card.transaction`. While `outcome` is `aborted` the amounts are those that were tried,
/// balances and counter those that stayed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CardTransaction {
    /// Also the id of the request that asked for it.
    pub transaction_id: Uuid,
    /// The card.
    pub card_no: CardNo,
    /// Its chip.
    pub uid: CardUid,
    /// Who gave the card out.
    pub issuing_store: StoreId,
    /// What it does.
    pub kind: TransactionKind,
    /// Effect on the balance: principal and bonus together, signed.
    pub amount_fen: Fen,
    /// Effect on the principal, signed.
    pub principal_fen: Fen,
    /// Effect on the bonus, signed.
    pub bonus_fen: Fen,
    /// Effect on the points, signed.
    pub points: i64,
    /// Of `points`, what a sale earned; negative where a refund takes it back.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub points_earned: i64,
    /// Points that were paid with; negative where a refund gives them back.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub points_used: i64,
    /// The coupon that was used, given or given back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub coupon: Option<CouponId>,
    /// Coupons that left, or came, all together: of a card that is given back or replaced.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub coupons: Vec<CouponId>,
    /// How the card stands from then on, where that changes: `returned`, `replaced`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status_after: Option<CardStanding>,
    /// Another validity that was written to the card.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validity: Option<Validity>,
    /// The workshop's or till's order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order: Option<String>,
    /// What was sold; of a void, and of the refund that gives the last fen back, what was undone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub items: Vec<Item>,
    /// What it was paid with.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tenders: Vec<Tender>,
    /// What the card's class took off; with a minus where that is undone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub discount_fen: Option<Fen>,
    /// Line by line, as the quote showed it: the same input gives the same lines.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub calculation: Vec<Line>,
    /// Of a refund and a void: of what. Of the receiving half of a transfer: the giving half.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub original_transaction_id: Option<Uuid>,
    /// Of a transfer: the other card.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counterparty_card_no: Option<CardNo>,
    /// Principal and bonus afterwards.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub balance_after_fen: Option<Fen>,
    /// Points afterwards.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub points_after: Option<i64>,
    /// The card's counter afterwards.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counter: Option<u32>,
    /// Where the card has two.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counters: Option<Counters>,
    /// What the card signed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proof: Option<Proof>,
    /// Who did it.
    pub operator: String,
    /// Where.
    pub till: DeviceId,
    /// Without headquarters.
    pub offline: bool,
    /// What came of it.
    pub outcome: Outcome,
    /// It supersedes an earlier event of this transaction.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settles: Option<bool>,
    /// The asker's key.
    pub idempotency_key: String,
}
impl EventData for CardTransaction {
    const TYPE: &'static str = "card.transaction";
    const CLASS: Class = Class::Ledger;
}

fn is_zero(number: &i64) -> bool {
    *number == 0
}

/// Whether a card has a name to it (MOFCOM order 2012 No. 9 treats the two apart).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum CardType {
    /// The buyer is on record; it can be reported lost.
    Named,
    /// Good for whoever holds it.
    Anonymous,
}

/// Where a card stands in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum CardStanding {
    /// In use.
    Active,
    /// Stopped by the house.
    Blocked,
    /// Reported lost.
    Lost,
    /// Another card took its place.
    Replaced,
    /// Given back.
    Returned,
}

/// What was done with a card's PIN. The PIN itself, or its hash, is in no event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum PinChange {
    /// The card has one now.
    Set,
    /// It has another one.
    Changed,
    /// It has none any more.
    Removed,
    /// Too many wrong ones: only a new one helps.
    Locked,
}

/// `card.issued`: a card was given out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CardIssued {
    /// The card.
    pub card_no: CardNo,
    /// Its chip.
    pub uid: CardUid,
    /// Technology as probed.
    pub technology: Technology,
    /// Named or anonymous.
    #[serde(rename = "type")]
    pub card_type: CardType,
    /// Who gave it out.
    pub issuing_store: StoreId,
    /// Its tier.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tier: Option<String>,
    /// Good until; absent: for ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub valid_until: Option<UtcMillis>,
    /// Who did it.
    pub operator: String,
    /// Where.
    pub till: DeviceId,
}
impl EventData for CardIssued {
    const TYPE: &'static str = "card.issued";
    const CLASS: Class = Class::Ledger;
}

/// `card.status`: a card's standing or PIN changed, or writes to it were stopped or allowed again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CardStatus {
    /// The card.
    pub card_no: CardNo,
    /// Its chip; absent: this store never saw the card.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<CardUid>,
    /// Who gave it out; absent as `uid` is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issuing_store: Option<StoreId>,
    /// Where it stands.
    pub status: CardStanding,
    /// Why nothing is written to it: `counter-behind`, `counter-forked`, `uid-differs`, `torn-record`,
    /// `used-after-its-end`, `imitation`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held: Option<String>,
    /// With `held`, and at the release: the counter that was expected at least.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counter_expected: Option<u32>,
    /// With `held`, and at the release: the counter that the card showed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counter_seen: Option<u32>,
    /// At the release: the balance that the card showed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub balance_seen_fen: Option<Fen>,
    /// With `held` = `uid-differs`, and at the release of such a card: the chip that showed this card's number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid_seen: Option<CardUid>,
    /// What was done with its PIN.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pin: Option<PinChange>,
    /// Of a member who has no card here yet: what the card is to carry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listed: Option<ListedMember>,
    /// Why, for the record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Who did it; absent: the gateway itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operator: Option<String>,
    /// Where.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub till: Option<DeviceId>,
}
/// A member that the shop had before, as listed: what a card given out to it is to carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ListedMember {
    /// Named or anonymous.
    #[serde(rename = "type")]
    pub card_type: CardType,
    /// Its tier, 0 none.
    pub tier: u8,
    /// Its discount class, 0 none.
    pub discount_class: u8,
    /// The last day the card is good; absent: no end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub valid_until: Option<jiff::civil::Date>,
}

impl EventData for CardStatus {
    const TYPE: &'static str = "card.status";
    const CLASS: Class = Class::Ledger;
}
