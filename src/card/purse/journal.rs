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
use crate::ident::CardNo;
use crate::money::Holding;
use crate::store::hands::InHand;
use crate::store::ledger::{End, Evidence, NewTransaction, TransactionRow, intend};
use crate::store::ledger_cards::{Alarm, CardRow, SeenCard, seen};
use crate::store::requests::{RequestOp, RequestRow, RequestState};
use crate::store::{Batch, Op, Reader, Store, StoreError};

/// Why a card is held whose proof of a purchase was wrong.
pub(super) const IMITATION: &str = "imitation";
/// And one whose number stands on another chip than it did.
const OTHER_CHIP: &str = "uid-differs";

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

/// What the ledger knows of a card.
pub(super) struct Known {
    pub(super) row: Option<CardRow>,
    /// What its next tap has to settle.
    pub(super) open: Option<TransactionRow>,
}

/// What a card that agrees with what is known of it shows.
pub(super) struct Verdict {
    standing: Standing,
    /// What became of what was open, and how that is to end.
    pub(super) ended: Option<(Became, End)>,
    /// It is replaced or given back: what it held at its end stays.
    is_over: bool,
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
        let Known { row, open } = self.known(&card.card_no).await?;
        if let Some(why) = row.as_ref().and_then(|row| row.held.clone()) {
            return Ok((Tap { standing: Err(why), settled: None }, Batch::new()));
        }
        let Verdict { standing, ended, is_over } =
            match self.judged(row.as_ref(), open.as_ref(), &card, last, signed)? {
                Ok(verdict) => verdict,
                Err(code) => return self.hold(row, card, code).await,
            };
        let settled =
            open.as_ref().zip(ended.as_ref()).map(|(open, (became, _))| (open.fact.transaction_id, *became));
        let mut batch = match open.zip(ended) {
            Some((open, (_, how))) => self.ending(&open, how).await?,
            None => Batch::new(),
        };
        if !is_over {
            batch = batch.op(seen(card));
        }
        Ok((Tap { standing: Ok(standing), settled }, batch))
    }

    pub(super) async fn known(&self, card_no: &CardNo) -> Result<Known, StoreError> {
        let card_no = card_no.clone();
        let read = move |r: &Reader<'_>| {
            Ok(Known { row: r.member_card(&card_no)?, open: r.open_transaction(&card_no)? })
        };
        self.store.read(read).await
    }

    /// What a card shows, against what is known of it, whether it is held or not; the code of the
    /// alarm where it does not agree.
    ///
    /// # Errors
    /// [`StoreError::LedgerRefused`] while its open transaction is being written.
    pub(super) fn judged(
        &self,
        known: Option<&CardRow>,
        open: Option<&TransactionRow>,
        card: &SeenCard,
        last: Option<Mark>,
        signed: Signed,
    ) -> Result<Result<Verdict, &'static str>, StoreError> {
        let stands = |standing, is_over| Ok(Ok(Verdict { standing, ended: None, is_over }));
        if let Some(used) = known.and_then(|known| used_after_its_end(known, &card.holding)) {
            // It shows what it held before that was moved or paid out: no alarm. Of another store's
            // hand it shows more: then somebody has spent it a second time.
            return if used { Ok(Err("used-after-its-end")) } else { stands(Standing::Same, true) };
        }
        if known.is_some_and(|known| known.seen.uid != card.uid) {
            return Ok(Err(OTHER_CHIP));
        }
        let Some(open) = open else {
            let observed = known.map_or(Ok(Standing::Ahead), |row| observe(&row.seen.holding, &card.holding));
            return observed.map_or_else(|wrong| Ok(Err(wrong.code())), |standing| stands(standing, false));
        };
        if open.fact.uid != card.uid {
            return Ok(Err(OTHER_CHIP));
        }
        self.not_in_hand(open)?;
        let waits =
            Open { mark: Mark::of(open.fact.transaction_id), before: &open.before, after: &open.after };
        let shown = Shown { holding: card.holding.clone(), last };
        let became = match settle(&waits, &shown) {
            Ok(became) => became,
            Err(wrong) => return Ok(Err(wrong.code())),
        };
        let left = if became == Became::Committed { &open.after } else { &open.before };
        let standing = if shown.holding == *left { Standing::Same } else { Standing::Ahead };
        let ended = match (became, signed) {
            (Became::Aborted, _) => (became, End::Aborted),
            (Became::Parked, _) => (became, End::Parked(Evidence::default())),
            (Became::Committed, Signed::Wrong) => return Ok(Err(IMITATION)),
            (Became::Committed, Signed::Right(evidence) | Signed::Unchecked(evidence))
                if !has_to_be_proven(open) =>
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
        Ok(Ok(Verdict { standing, ended: Some(ended), is_over: false }))
    }

    /// What lies here may be back at the other reader before its write.
    ///
    /// # Errors
    /// [`StoreError::LedgerRefused`] while it is being written.
    pub(super) fn not_in_hand(&self, open: &TransactionRow) -> Result<(), StoreError> {
        if !self.store.hands().have(open.fact.transaction_id) {
            return Ok(());
        }
        Err(StoreError::LedgerRefused { what: "this card is being written at another reader".into() })
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
