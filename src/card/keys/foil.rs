//! The counterfoil of an approval: what is kept of a purchase or load until the ledger has committed
//! what the card signed. What does not live here: when it becomes what (`till_purse`).

use serde::{Deserialize, Serialize};

use super::purse::Approval;
use crate::card::record::MemberRecord;
use crate::event::ledger::Proof;

/// What is kept of an approval.
pub(super) struct Foil {
    /// Of a purchase: to recognise the card's answer with.
    pub(super) approval: Option<Approval>,
    pub(super) open: OpenPurse,
    pub(super) leaves: Leaves,
    pub(super) proof: Proof,
    pub(super) word: Word,
}

/// What is known of a counterfoil.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Word {
    /// The card's answer did not come.
    Open,
    /// The SAM knows the card's answer to be right: it gave up the amount. Of a load: the card took it.
    Believed,
    /// The card answered, or keeps no proof, and nobody could check it: headquarters can.
    Unproven,
    /// The SAM knows the answer to be wrong: this is no card of the chain's.
    Refuted,
}

/// Which record a purse's transaction leaves on its card: tells it from every other of that card.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leaves {
    pub(super) counter: u32,
    pub(super) tag: Option<[u8; 4]>,
}

impl From<&MemberRecord> for Leaves {
    fn from(record: &MemberRecord) -> Self {
        Self { counter: record.counter, tag: record.last.map(|last| last.tag) }
    }
}

/// A purse transaction whose answer did not come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenPurse {
    /// Purchase or load, as the card names it.
    pub kind: u8,
    /// The card's counter before it.
    pub sequence: u16,
    /// Fen on the card if it happened.
    pub balance_after: u32,
}
