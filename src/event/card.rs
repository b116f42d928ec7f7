//! Class `card`: what happened at a reader. What happened to money stands in `ledger`.

use jiff::civil::Date;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::ledger::CardType;
use super::{Class, EventData, Text};
use crate::ident::{CardNo, CardUid, DeviceId, StoreId};
use crate::money::Fen;

/// What kind of card or code was presented (contract §3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs)]
pub enum Technology {
    #[serde(rename = "mifare-classic-1k")]
    MifareClassic1k,
    #[serde(rename = "mifare-classic-4k")]
    MifareClassic4k,
    Ntag213,
    Ntag215,
    Ntag216,
    Ntag424,
    Ultralight,
    UltralightC,
    Desfire,
    Cpu,
    Sle4442,
    Iso15693,
    Em4100,
    Magstripe,
    Barcode,
    Qr,
    Unknown,
}

/// `card.tapped`: a card came into the field and was identified.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CardTapped {
    /// The reader's configured id.
    pub reader: DeviceId,
    /// The till whose home reader it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub till: Option<DeviceId>,
    /// UID, upper-case hex.
    pub uid: CardUid,
    /// Technology as probed.
    pub technology: Technology,
    /// Answer to reset, upper-case hex.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub atr: Option<String>,
    /// What a code or stripe says, as the scanner typed it; absent for chips. The UID is the first
    /// 16 bytes of the SHA-256 of technology, a zero byte and this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// Who the card says its member is, proven by the keys of the card; absent on a card
    /// that only identifies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub member: Option<Member>,
    /// From the reader's presence signal to the hand-over to the log, in milliseconds.
    pub latency_ms: u64,
}
impl EventData for CardTapped {
    const TYPE: &'static str = "card.tapped";
    const CLASS: Class = Class::Card;
}

/// The member on a card.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Member {
    /// Number on the card's face.
    pub card_no: CardNo,
    /// Whether a buyer's name belongs to it.
    #[serde(rename = "type")]
    pub member_type: CardType,
    /// Whether it may be used.
    pub status: MemberStatus,
    /// Tier by number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tier: Option<u8>,
    /// Discount class of the rules, by number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub discount_class: Option<u8>,
    /// Which store issued it.
    pub issuing_store: StoreId,
    /// Paid in, in fen.
    pub principal_fen: Fen,
    /// Given on top, in fen.
    pub bonus_fen: Fen,
    /// Both together, in fen.
    pub balance_fen: Fen,
    /// Points.
    pub points: u32,
    /// Coupons on the card.
    #[serde(default)]
    pub coupons: Vec<MemberCoupon>,
    /// The card's transaction counter.
    pub counter: u32,
    /// Which keys its record is sealed with.
    pub key_version: u8,
    /// The last day it is good, at the store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub valid_until: Option<Date>,
    /// Whether the record's seal was right for this card.
    pub authentic: bool,
    /// The last write on the card was cut off; this is the record before it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub torn: bool,
    /// What headquarters sent for the counter.
    #[serde(flatten)]
    pub word: CounterWord,
}

/// What headquarters sent for the counter about one member: what the cashier is to know and say.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CounterWord {
    /// What the house calls the member's level.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub level: Option<String>,
    /// The day on which the house means to speak to the member next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub next_contact: Option<Date>,
    /// Offers for this member, in headquarters' order.
    #[serde(default)]
    pub offers: Vec<Offer>,
    /// What is due for this member, in headquarters' order.
    #[serde(default)]
    pub reminders: Vec<Reminder>,
    /// How long ago headquarters knew all this, in seconds. Absent where it sent nothing, and while
    /// the clock is in doubt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_age_s: Option<u64>,
}

/// Something that the house offers one member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Offer {
    /// Headquarters' name of it.
    pub id: String,
    /// For the cashier.
    pub text: String,
    /// The last day it holds, at the store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub valid_until: Option<Date>,
}

/// Something that is due for one member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Reminder {
    /// What it is about.
    pub kind: ReminderKind,
    /// The day on which it is due; it may be over.
    #[schemars(with = "String")]
    pub due_on: Date,
    /// For the cashier.
    pub text: String,
}

/// What a reminder is about (contract §3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum ReminderKind {
    Maintenance,
    Insurance,
    Inspection,
    Birthday,
    Recall,
}

/// Coupons of one kind on a card.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct MemberCoupon {
    /// Kind by number, as the rules name it.
    pub kind: u8,
    /// How many are left.
    pub left: u8,
}

/// Whether a card may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum MemberStatus {
    /// It may.
    Active,
    /// Reported lost, or stopped by an operator.
    Blocked,
    /// Given back and paid out.
    Returned,
    /// Another card took its place.
    Replaced,
}

/// `card.removed`: the card left the field.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CardRemoved {
    /// The reader's configured id.
    pub reader: DeviceId,
    /// The UID that had been tapped.
    pub uid: CardUid,
}
impl EventData for CardRemoved {
    const TYPE: &'static str = "card.removed";
    const CLASS: Class = Class::Card;
}

/// Reason of a [`CardRefused`]: the PIN that was typed is not the card's.
pub const PIN_WRONG: &str = "pin-wrong";
/// Reason of a [`CardRefused`]: one wrong PIN too many.
pub const PIN_LOCKED: &str = "pin-locked";

/// `card.refused`: a card was presented that this gateway will not serve.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CardRefused {
    /// The reader's configured id.
    pub reader: DeviceId,
    /// The UID, when it could be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<CardUid>,
    /// Stable code, e.g. `unreadable`.
    pub reason: String,
    /// For the cashier.
    pub text: Text,
}
impl CardRefused {
    /// Whether a PIN was refused, and not the card that lies there.
    #[must_use]
    pub fn is_of_a_pin(&self) -> bool {
        matches!(self.reason.as_str(), PIN_WRONG | PIN_LOCKED)
    }
}
impl EventData for CardRefused {
    const TYPE: &'static str = "card.refused";
    const CLASS: Class = Class::Card;
}
