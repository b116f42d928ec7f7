//! The purse's dealings with the store: what a tap settles, the intent before the first byte,
//! the outcome before the till's reply. Whoever writes to the card calls, in this order,
//! [`Journal::tap`], [`Journal::begin`], writes, [`Journal::end`]; killed anywhere in between,
//! the next tap goes on from the row. While what `begin` gave is held, no tap at another reader
//! decides it.

use serde_json::json;
use uuid::Uuid;

use super::settle::{Became, Mark, Open, Shown, Standing, observe, settle};
use crate::event::card::Technology;
use crate::event::ledger::{CardStanding, CardTransaction};
use crate::money::Holding;
use crate::store::hands::InHand;
use crate::store::ledger::{End, Evidence, NewTransaction, TransactionRow, intend};
use crate::store::ledger_cards::{Alarm, CardRow, SeenCard, seen};
use crate::store::requests::{RequestOp, RequestRow, RequestState};
use crate::store::{Batch, Op, Store, StoreError};

/// Why a card is held whose proof of a purchase was wrong.
const IMITATION: &str = "imitation";

/// The ledger as the purse uses it.
#[derive(Clone)]
pub struct Journal {
    store: Store,
}

/// Whether a card that will never be used again shows that it was, after its end; `None` of a card
/// that is no such.
fn used_after_its_end(known: &CardRow, shows: &Holding) -> Option<bool> {
    let ended = &known.seen.holding;
    match known.status {
        // Its last counter is that of the giving half, which is on no card: whoever shows it was
        // written elsewhere, down to nothing perhaps. Nothing was ever written on one at 0.
        CardStanding::Replaced => Some(shows.counter >= ended.counter.max(1)),
        CardStanding::Returned => Some(shows.counter >= ended.counter && shows != ended),
        CardStanding::Active | CardStanding::Blocked | CardStanding::Lost => None,
    }
}

/// What is known of a card's own word for its last transaction here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Signed {
    /// It is right, or its technology signs nothing.
    Right(Evidence),
    /// Nobody could check it yet.
    Unchecked(Evidence),
    /// It is wrong: this is an imitation.
    Wrong,
}

impl Default for Signed {
    fn default() -> Self {
        Self::Right(Evidence::default())
    }
}

/// Whether only the card's own signature, checked, says that this was paid: its purse is what
/// proves it, and whoever imitates a card can show any record.
fn has_to_be_proven(open: &TransactionRow) -> bool {
    open.technology == Technology::Cpu && open.fact.amount_fen.0 < 0
}

/// What a tap came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tap {
    /// How the card stands, or the code of why it is held.
    pub standing: Result<Standing, String>,
    /// What it settled.
    pub settled: Option<(Uuid, Became)>,
}

impl Journal {
    /// On a store.
    #[must_use]
    pub fn new(store: Store) -> Self {
        Self { store }
    }

    /// A card shows itself: settles what was open on it, and notes what it holds. Where it
    /// does not agree with what was seen of it, it is held, and the ledger says so. `evidence`
    /// is what the card still gives of its last transaction.
    ///
    /// # Errors
    /// [`StoreError::LedgerRefused`] while the card's open transaction is being written, here or
    /// at another reader; [`StoreError`]. Nothing was noted then.
    pub async fn tap(
        &self,
        card: SeenCard,
        last: Option<Mark>,
        evidence: Evidence,
    ) -> Result<Tap, StoreError> {
        let (tap, batch) = self.look(card, last, Signed::Right(evidence)).await?;
        if !batch.ops.is_empty() {
            self.store.commit(batch).await?;
        }
        Ok(tap)
    }

    /// As [`Journal::tap`], but what is to be noted is left to the caller, who commits it with
    /// what else a tap tells.
    ///
    /// # Errors
    /// As [`Journal::tap`].
    pub async fn look(
        &self,
        card: SeenCard,
        last: Option<Mark>,
        signed: Signed,
    ) -> Result<(Tap, Batch), StoreError> {
        let card_no = card.card_no.clone();
        let (known, open) =
            self.store.read(move |r| Ok((r.member_card(&card_no)?, r.open_transaction(&card_no)?))).await?;
        let held = |why: &str| Tap { standing: Err(why.to_owned()), settled: None };
        if let Some(why) = known.as_ref().and_then(|known| known.held.as_ref()) {
            return Ok((held(why), Batch::new()));
        }
        if let Some(used) = known.as_ref().and_then(|known| used_after_its_end(known, &card.holding)) {
            // It shows what it held before that was moved or paid out: no alarm. Of another store's
            // hand it shows more: then somebody has spent it a second time.
            return if used {
                self.hold(known, card, "used-after-its-end").await
            } else {
                Ok((Tap { standing: Ok(Standing::Same), settled: None }, Batch::new()))
            };
        }
        if known.as_ref().is_some_and(|known| known.seen.uid != card.uid) {
            return self.hold(known, card, "uid-differs").await;
        }
        let Some(open) = open else {
            let first = Ok(Standing::Ahead);
            let standing = known.as_ref().map_or(first, |known| observe(&known.seen.holding, &card.holding));
            return match standing {
                Ok(standing) => {
                    Ok((Tap { standing: Ok(standing), settled: None }, Batch::new().op(seen(card))))
                }
                Err(wrong) => self.hold(known, card, wrong.code()).await,
            };
        };
        if open.fact.uid != card.uid {
            return self.hold(known, card, "uid-differs").await;
        }
        let id = open.fact.transaction_id;
        if self.store.hands().have(id) {
            // What lies here may be back at the other reader before its write.
            return Err(StoreError::LedgerRefused {
                what: "this card is being written at another reader".into(),
            });
        }
        let waits = Open { mark: Mark::of(id), before: &open.before, after: &open.after };
        let shown = Shown { holding: card.holding.clone(), last };
        let became = match settle(&waits, &shown) {
            Ok(became) => became,
            Err(wrong) => return self.hold(known, card, wrong.code()).await,
        };
        let left = if became == Became::Committed { &open.after } else { &open.before };
        let standing = if shown.holding == *left { Standing::Same } else { Standing::Ahead };
        let (became, how) = match (became, signed) {
            (Became::Aborted, _) => (became, End::Aborted),
            (Became::Parked, _) => (became, End::Parked(Evidence::default())),
            (Became::Committed, Signed::Wrong) => return self.hold(known, card, IMITATION).await,
            (Became::Committed, Signed::Right(evidence) | Signed::Unchecked(evidence))
                if !has_to_be_proven(&open) =>
            {
                (became, End::Committed(evidence))
            }
            (Became::Committed, Signed::Right(evidence)) if evidence.proof.is_some() => {
                (became, End::Committed(evidence))
            }
            // The record says that it is paid, and the purse's word for it could not be checked.
            (Became::Committed, Signed::Right(evidence) | Signed::Unchecked(evidence)) => {
                (Became::Parked, End::Parked(evidence))
            }
        };
        let batch = self.ending(&open, how).await?.op(seen(card));
        Ok((Tap { standing: Ok(standing), settled: Some((id, became)) }, batch))
    }

    async fn hold(
        &self,
        known: Option<CardRow>,
        card: SeenCard,
        code: &'static str,
    ) -> Result<(Tap, Batch), StoreError> {
        let alarm = Alarm { code, counter_seen: card.holding.counter, uid_seen: card.uid.clone() };
        let (card_no, known) = match known {
            Some(known) => (card.card_no, Some(known)),
            // Its row was lost with a damaged file, its open transaction was not.
            None => {
                let card_no = card.card_no.clone();
                self.store.commit(Batch::new().op(seen(card))).await?;
                (card_no.clone(), self.store.read(move |r| r.member_card(&card_no)).await?)
            }
        };
        let known = known.ok_or_else(|| StoreError::NotFound { what: format!("card {card_no}") })?;
        Ok((Tap { standing: Err(code.to_owned()), settled: None }, known.hold(&alarm)?))
    }

    /// The intent, durable when this returns. Takes the request of the same id, where there is one.
    /// Hold what it gives until the outcome is committed or the card is given up.
    ///
    /// # Errors
    /// [`StoreError::LedgerRefused`] when the card must not be written; [`StoreError`].
    pub async fn begin(&self, new: NewTransaction) -> Result<InHand, StoreError> {
        self.begin_after(Batch::new(), new).await
    }

    /// As [`Journal::begin`], with what has to be durable together with the intent: the giving half
    /// of a replacement.
    ///
    /// # Errors
    /// As [`Journal::begin`]; neither stands then.
    pub async fn begin_after(&self, first: Batch, new: NewTransaction) -> Result<InHand, StoreError> {
        let id = new.fact.transaction_id;
        // Before the commit: a tap that sees the intent sees this as well.
        let mark = self.store.hands().take(id).ok_or_else(|| StoreError::LedgerRefused {
            what: "this transaction is being written already".into(),
        })?;
        let request = self.request(id).await?;
        let mut batch = first.op(intend(new)?);
        if request.is_some_and(|request| request.state == RequestState::Pending) {
            batch = batch.op(Op::Request(RequestOp::Start { id }));
        }
        self.store.commit(batch).await?;
        Ok(InHand::new(self.row(id).await?, mark))
    }

    /// The outcome, with its event, durable when this returns: only then may the till be told.
    /// Gives what it is told.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] when the transaction has moved on; [`StoreError`].
    pub async fn end(&self, id: Uuid, how: End) -> Result<CardTransaction, StoreError> {
        let row = self.row(id).await?;
        self.store.commit(self.ending(&row, how).await?).await?;
        Ok(self.row(id).await?.current())
    }

    /// A card's proof of the transaction being written is wrong: it is not paid as far as anybody
    /// here can tell, and the card is held, in one commit.
    ///
    /// # Errors
    /// As [`Journal::end`].
    pub(in crate::card) async fn imitation(&self, id: Uuid, shows: SeenCard) -> Result<(), StoreError> {
        let row = self.row(id).await?;
        let card_no = shows.card_no.clone();
        let known = self.store.read(move |r| r.member_card(&card_no)).await?;
        let (_, alarm) = self.hold(known, shows, IMITATION).await?;
        let mut batch = self.ending(&row, End::Unknown).await?;
        batch.ops.extend(alarm.ops);
        batch.events.extend(alarm.events);
        self.store.commit(batch).await?;
        Ok(())
    }

    /// The end of a transaction, and of the request that asked for it, to be committed with what
    /// else belongs to it.
    ///
    /// # Errors
    /// As [`Journal::end`].
    pub(in crate::card) async fn ending(&self, row: &TransactionRow, how: End) -> Result<Batch, StoreError> {
        let id = row.fact.transaction_id;
        let state = match how {
            End::Committed(_) => Some(RequestState::Done),
            // No tap will tell any more: whoever asked is not sent for one.
            End::Aborted | End::Parked(_) => Some(RequestState::Failed),
            // Whoever asked goes on waiting: the key follows the transaction to its end.
            End::Unknown => None,
        };
        let batch = row.end(how)?;
        let Some(state) = state else { return Ok(batch) };
        match self.request(id).await? {
            Some(request) if !request.state.is_settled() => {
                let outcome = json!({ "transaction_id": id });
                Ok(batch.op(Op::Request(RequestOp::Settle { id, state, outcome })))
            }
            _ => Ok(batch),
        }
    }

    async fn request(&self, id: Uuid) -> Result<Option<RequestRow>, StoreError> {
        self.store.read(move |r| r.request(id)).await
    }

    async fn row(&self, id: Uuid) -> Result<TransactionRow, StoreError> {
        let row = self.store.read(move |r| r.transaction(id)).await?;
        row.ok_or_else(|| StoreError::NotFound { what: format!("transaction {id}") })
    }
}
