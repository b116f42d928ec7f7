//! Transactions on cards: the journal that is written before the card is. An intent is on
//! the disk before the first byte goes to a card, its outcome is committed with the
//! `card.transaction` that tells it.
//!
//! ```text
//!  intend ─► intent ──┬─► committed            the card took it
//!               │     ├─► aborted              the card is as it was
//!               ▼     │
//!            unknown ─┤ (told; the next tap decides, no other write to the card meanwhile)
//!               ▼     │
//!             parked ─┘ (the card went on elsewhere: only headquarters can tell)
//! ```
//! What is not here: reading it (`ledger_rows`); what a transaction costs and who may make it (`card::purse`); idempotency
//! keys, which are those of `requests`: the row with the key and the intent are one batch, and
//! the transaction's id is the request's.

use rusqlite::{Connection, params};
use serde::Serialize;
use serde::de::DeserializeOwned;
use uuid::Uuid;

use super::devices::enum_text;
use super::seal::{self, LedgerTable};
use super::{Batch, Op, Reader, StoreError, card_pins, epoch, ledger_cards};
use crate::clock::{self, UtcMillis};
use crate::event::card::Technology;
use crate::event::ledger::{CardStanding, CardTransaction, Counters, Outcome, Proof};
use crate::event::{MAX_EVENT_BYTES, NewEvent};
use crate::money::{Fen, Holding};

/// What an outcome adds to its event at most, in bytes: evidence, `settles`, envelope.
const OUTCOME_BYTES: usize = 4096;

/// A transaction on its way in.
#[derive(Debug, Clone)]
pub struct NewTransaction {
    /// What will be told when it is committed; balances and counter are filled in.
    pub fact: CardTransaction,
    /// The card's technology.
    pub technology: Technology,
    /// The business day it counts on, `YYYY-MM-DD`.
    pub business_day: String,
    /// What the card holds.
    pub before: Holding,
    /// What it will hold: one transaction later.
    pub after: Holding,
    /// Which transactions [`Reader::following`] gave for `original_transaction_id`, in its order:
    /// if they are others meanwhile, this one is refused.
    pub earlier: Vec<Uuid>,
    /// What it takes off the card, points at their worth (`Effect::takes`): counts towards the
    /// limits where `fact.offline`.
    pub takes_fen: Fen,
    /// What all cards of the technology may be taken on a business day without headquarters, where
    /// that is limited: with several readers only the intent can tell what the others have begun.
    pub day_cap: Option<Fen>,
}

/// Where a transaction stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Durable; the card may or may not have been written.
    Intent,
    /// As before, and told.
    Unknown,
    /// As before; the card has gone on elsewhere.
    Parked,
    /// On the card.
    Committed,
    /// Not on the card.
    Aborted,
}

/// How a transaction goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// The card took it.
    Committed(Evidence),
    /// The card is as it was.
    Aborted,
    /// Nobody knows until the next tap.
    Unknown,
    /// Nobody here will ever know: headquarters settles it, by what the card gave.
    Parked(Evidence),
}

/// What the card gave with a transaction.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Evidence {
    /// Where the card has two counters.
    pub counters: Option<Counters>,
    /// What it signed.
    pub proof: Option<Proof>,
}

/// A transaction as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransactionRow {
    /// In the order of their intents.
    pub no: i64,
    /// As it is, or will be, when committed.
    pub fact: CardTransaction,
    /// Where it stands.
    pub state: State,
    /// The business day it counts on.
    pub business_day: String,
    /// The card's technology.
    pub technology: Technology,
    /// What the card held.
    pub before: Holding,
    /// What it holds when committed.
    pub after: Holding,
    /// When it began.
    pub begun_at: UtcMillis,
    /// When it last changed its state.
    pub ended_at: Option<UtcMillis>,
    /// Whether an event said `unknown`.
    pub told_unknown: bool,
}

/// Changes transactions. Made by [`intend`] and [`TransactionRow::end`] only.
#[derive(Debug, Clone)]
pub struct LedgerOp(Change);

#[derive(Debug, Clone)]
enum Change {
    Intend(Box<NewTransaction>),
    End(Box<Ending>),
}

#[derive(Debug, Clone)]
struct Ending {
    id: Uuid,
    state: State,
    told_unknown: bool,
    committed: Option<(CardTransaction, Holding)>,
}

/// The intent. It goes into the batch of the request that asks for it, without an event:
/// nothing has happened yet.
///
/// # Errors
/// [`StoreError::LedgerRefused`] when before, after and amounts do not belong together, or the
/// event that will tell it would be larger than the log takes.
pub fn intend(mut new: NewTransaction) -> Result<Op, StoreError> {
    let (fact, before, after) = (&mut new.fact, &new.before, &new.after);
    let balance = after.balance();
    let adds_up = before.principal_fen.checked_add(fact.principal_fen) == Some(after.principal_fen)
        && before.bonus_fen.checked_add(fact.bonus_fen) == Some(after.bonus_fen)
        && fact.principal_fen.checked_add(fact.bonus_fen) == Some(fact.amount_fen)
        && before.points.checked_add(fact.points) == Some(after.points)
        && before.counter.checked_add(1) == Some(after.counter)
        && new.takes_fen.0 >= fact.amount_fen.0.saturating_neg()
        && balance.is_some();
    if !adds_up {
        return refused("what the card holds before and after does not fit the amounts");
    }
    fact.outcome = Outcome::Committed;
    (fact.balance_after_fen, fact.points_after, fact.counter) =
        (balance, Some(after.points), Some(after.counter));
    // Found out at the outcome it would be too late: the card is written then.
    if json(fact)?.len() + OUTCOME_BYTES > MAX_EVENT_BYTES {
        return refused("it is too long to be told; sell it in several parts, or shorten names");
    }
    Ok(Op::Ledger(LedgerOp(Change::Intend(Box::new(new)))))
}

fn refused<T>(what: impl Into<String>) -> Result<T, StoreError> {
    Err(StoreError::LedgerRefused { what: what.into() })
}

impl TransactionRow {
    /// The next state, with the event that tells it, as one batch. Committing it fails with
    /// [`StoreError::NotFound`] when the transaction has moved on meanwhile.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] when the event cannot be written.
    pub fn end(&self, how: End) -> Result<Batch, StoreError> {
        self.end_because(how, None)
    }

    pub(super) fn end_because(&self, how: End, reason: Option<String>) -> Result<Batch, StoreError> {
        let (state, outcome, evidence) = match how {
            End::Committed(evidence) => (State::Committed, Outcome::Committed, evidence),
            End::Aborted => (State::Aborted, Outcome::Aborted, Evidence::default()),
            End::Unknown => (State::Unknown, Outcome::Unknown, Evidence::default()),
            End::Parked(evidence) => (State::Parked, Outcome::Unknown, evidence),
        };
        let fact = self.told(outcome, evidence);
        let ending = Ending {
            id: self.fact.transaction_id,
            state,
            told_unknown: self.told_unknown || outcome == Outcome::Unknown,
            committed: (state == State::Committed).then(|| (fact.clone(), self.after.clone())),
        };
        let batch = Batch::new().op(Op::Ledger(LedgerOp(Change::End(Box::new(ending)))));
        // Told once, but for what headquarters can settle it by.
        if outcome == Outcome::Unknown && self.told_unknown && fact.proof.is_none() {
            return Ok(batch);
        }
        let event = NewEvent::now(format!("card/{}", fact.card_no), &fact)
            .map_err(|error| StoreError::Corrupt(error.to_string()))?;
        let stands = fact.status_after.filter(|_| state == State::Committed);
        let stands = stands.map(|status| ledger_cards::told(&fact, status, reason)).transpose()?;
        Ok(stands.into_iter().fold(batch.event(event), Batch::event))
    }

    /// What an outcome says of it.
    fn told(&self, outcome: Outcome, evidence: Evidence) -> CardTransaction {
        let mut fact = self.fact.clone();
        let holds = match outcome {
            Outcome::Committed => Some(&self.after),
            Outcome::Aborted => Some(&self.before),
            Outcome::Unknown => None,
        };
        fact.outcome = outcome;
        fact.balance_after_fen = holds.and_then(Holding::balance);
        fact.points_after = holds.map(|holding| holding.points);
        fact.counter = holds.map(|holding| holding.counter);
        fact.counters = evidence.counters;
        fact.proof = evidence.proof;
        fact.settles = (self.told_unknown && outcome != Outcome::Unknown).then_some(true);
        fact
    }

    /// What is known of it now, as an event would tell it.
    #[must_use]
    pub fn current(&self) -> CardTransaction {
        match self.state {
            State::Committed => self.fact.clone(),
            State::Aborted => self.told(Outcome::Aborted, Evidence::default()),
            State::Intent | State::Unknown | State::Parked => {
                self.told(Outcome::Unknown, Evidence::default())
            }
        }
    }
}

impl LedgerOp {
    pub(super) fn apply(&self, tx: &Connection) -> Result<(), StoreError> {
        let id = match &self.0 {
            Change::Intend(new) => {
                begin(tx, new)?;
                new.fact.transaction_id
            }
            Change::End(ending) => {
                end(tx, ending)?;
                ending.id
            }
        };
        seal::put(tx, LedgerTable::Transaction, "id", &id.as_bytes().as_slice())
    }
}

/// Everything that was judged in an earlier read is looked at again: only here nothing comes between.
fn begin(tx: &Connection, new: &NewTransaction) -> Result<(), StoreError> {
    let reader = Reader { conn: tx };
    let fact = &new.fact;
    if reader.card_writes_held()?.is_some() {
        return refused("card writes are held; see `/readyz`");
    }
    let Some(card) = reader.member_card(&fact.card_no)? else {
        return refused("the card has not been seen here");
    };
    // A card that another one replaces need not be in use; it must not have been replaced before.
    let leaves = fact.status_after == Some(CardStanding::Replaced);
    let dead = matches!(card.status, CardStanding::Replaced | CardStanding::Returned);
    if dead || card.status != CardStanding::Active && !leaves {
        return refused("the card is not in use any more: blocked, lost, replaced or given back");
    }
    if card.held.is_some() || card.seen.uid != fact.uid || card.seen.holding != new.before {
        return refused("the card is held, or is not as it was last seen; tap it again");
    }
    if reader.open_transaction(&fact.card_no)?.is_some() {
        return refused("an earlier transaction of this card is not settled; tap it again");
    }
    if let Some(original) = fact.original_transaction_id {
        if reader.transaction_state(original)? != Some(State::Committed) {
            return refused("the original is not committed here");
        }
        let following = reader.following(original)?;
        if !following.iter().map(|row| row.fact.transaction_id).eq(new.earlier.iter().copied()) {
            return refused("another refund came first; ask for a new quote");
        }
    }
    if reader.request(fact.transaction_id)?.is_some_and(|request| request.state.is_settled()) {
        return refused("the request is settled; ask anew, with another key");
    }
    // What moves to the card in its place is not spent.
    let spent = if fact.offline && !leaves { new.takes_fen.0.max(0) } else { 0 };
    if let Some(cap) = new.day_cap.filter(|_| spent > 0) {
        let (_, all) = reader.spent_by_clock(&new.business_day, new.technology, &[], clock::quality())?;
        if all.saturating_add(spent) > cap.0 {
            return refused("without headquarters the day's limit of all such cards is used up");
        }
    }
    tx.prepare_cached(
        "INSERT INTO card_transaction (id, card_no, state, business_day, original, technology, offline_fen,
                                       before, after, fact, begun_at)
         VALUES (?1, ?2, 'intent', ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
    )?
    .execute(params![
        fact.transaction_id.as_bytes().as_slice(),
        fact.card_no.as_str(),
        new.business_day,
        fact.original_transaction_id.as_ref().map(|id| id.as_bytes().as_slice()),
        enum_text(&new.technology)?,
        spent,
        json(&new.before)?,
        json(&new.after)?,
        json(fact)?,
        UtcMillis::now().0,
    ])?;
    Ok(())
}

fn end(tx: &Connection, ending: &Ending) -> Result<(), StoreError> {
    let fact = ending.committed.as_ref().map(|(fact, _)| json(fact)).transpose()?;
    // Its event comes right behind.
    let place = ending.committed.as_ref().map(|_| epoch::last_offset(tx)).transpose()?;
    let changed = tx
        .prepare_cached(
            "UPDATE card_transaction SET state = ?2, ended_at = ?3, told_unknown = ?4, fact = coalesce(?5, fact),
                                         committed_after = ?6
             WHERE id = ?1 AND state <> ?2 AND state IN ('intent','unknown','parked')",
        )?
        .execute(params![
            ending.id.as_bytes().as_slice(),
            enum_text(&ending.state)?,
            UtcMillis::now().0,
            ending.told_unknown,
            fact,
            place,
        ])?;
    if changed == 0 {
        return Err(StoreError::NotFound { what: format!("open transaction {}", ending.id) });
    }
    let Some((fact, after)) = &ending.committed else { return Ok(()) };
    if let Some(original) = fact.original_transaction_id {
        card_pins::follow(tx, original, &fact.card_no)?;
    }
    ledger_cards::written(tx, fact, after)
}

pub(super) fn json<T: Serialize>(value: &T) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|error| StoreError::Corrupt(error.to_string()))
}

pub(super) fn from_json<T: DeserializeOwned>(text: &str) -> Result<T, StoreError> {
    serde_json::from_str(text).map_err(|error| StoreError::Corrupt(error.to_string()))
}
