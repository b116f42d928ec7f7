//! Transactions that somebody in this process is writing to a card right now. While one is in
//! hand nobody else may decide what became of it: the card that another reader sees may be its
//! copy, or may go back. Not in the database on purpose: after a restart nobody writes.

use std::collections::HashSet;
use std::ops::Deref;
use std::sync::{Arc, Mutex, PoisonError};

use uuid::Uuid;

use super::ledger::TransactionRow;

/// All that are in hand, of one store.
#[derive(Debug, Clone, Default)]
pub struct Hands(Arc<Mutex<HashSet<Uuid>>>);

impl Hands {
    fn with<T>(&self, change: impl FnOnce(&mut HashSet<Uuid>) -> T) -> T {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes one into the hand, until the mark is dropped; `None` where it is in another.
    #[must_use]
    pub(crate) fn take(&self, id: Uuid) -> Option<Mark> {
        self.with(|ids| ids.insert(id)).then(|| Mark { id, hands: self.clone() })
    }

    /// Whether somebody is writing it.
    #[must_use]
    pub fn have(&self, id: Uuid) -> bool {
        self.with(|ids| ids.contains(&id))
    }

    /// Whether any card is being written.
    #[must_use]
    pub fn have_any(&self) -> bool {
        self.with(|ids| !ids.is_empty())
    }
}

/// One in the hand.
#[derive(Debug)]
pub(crate) struct Mark {
    id: Uuid,
    hands: Hands,
}

impl Drop for Mark {
    fn drop(&mut self) {
        self.hands.with(|ids| ids.remove(&self.id));
    }
}

/// An intent that is being written: its row, and the mark that nobody else decides it. Keep it
/// until the outcome is committed, or the card is given up; no tap settles it before.
#[derive(Debug)]
#[must_use = "without it another reader's tap may settle what is being written"]
pub struct InHand {
    row: TransactionRow,
    _mark: Mark,
}

impl InHand {
    pub(crate) fn new(row: TransactionRow, mark: Mark) -> Self {
        Self { row, _mark: mark }
    }
}

impl Deref for InHand {
    type Target = TransactionRow;

    fn deref(&self) -> &TransactionRow {
        &self.row
    }
}
