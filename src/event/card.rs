//! Class `card`: what happened at a reader. What happened to money stands in `ledger`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Class, EventData, Text};
use crate::ident::{CardUid, DeviceId};

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
    /// From the reader's presence signal to the hand-over to the log, in milliseconds.
    pub latency_ms: u64,
}
impl EventData for CardTapped {
    const TYPE: &'static str = "card.tapped";
    const CLASS: Class = Class::Card;
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
impl EventData for CardRefused {
    const TYPE: &'static str = "card.refused";
    const CLASS: Class = Class::Card;
}
