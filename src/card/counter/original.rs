//! What a deal refers to, as the ledger has it: a sale to refund, a giving half to receive or void.

use crate::card::purse::refund::Original;
use crate::event::ledger::CardTransaction;
use crate::ident::CardNo;
use crate::store::ledger::{State, TransactionRow};
use crate::store::{Reader, StoreError};

/// A transaction with what followed it.
pub(super) struct Before {
    pub(super) fact: CardTransaction,
    pub(super) earlier: Vec<CardTransaction>,
    parked: bool,
}

impl Before {
    /// A giving half that is about to be committed.
    pub(super) fn to_come(fact: CardTransaction) -> Self {
        Self { fact, earlier: Vec::new(), parked: false }
    }

    pub(super) fn of(r: &Reader<'_>, row: &TransactionRow) -> Result<Self, StoreError> {
        let following = r.following(row.fact.transaction_id)?;
        let earlier = following.iter().map(TransactionRow::current).collect();
        Ok(Self { fact: row.current(), earlier, parked: following.iter().any(is_parked) })
    }

    /// As the purse judges it for the card in hand.
    pub(super) fn seen_from<'a>(&'a self, card_no: &'a CardNo, predecessors: &'a [CardNo]) -> Original<'a> {
        let Self { fact, earlier, parked } = self;
        Original { fact, earlier, parked: *parked, card_no, predecessors }
    }
}

/// Whether only headquarters can tell what became of it.
pub(super) fn is_parked(row: &TransactionRow) -> bool {
    row.state == State::Parked
}
