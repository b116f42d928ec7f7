//! The desk of one reader: takes the requests for it, waits for their card, gives errands to
//! the driver, and notes in the ledger what every tap tells.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::watch;
use tokio::time::Instant;
use uuid::Uuid;

use super::asked::{ISSUE, QUOTE, TRANSACTION, wait_of};
use super::refused::Refused;
use super::release::RELEASE;
use super::shop::Shop;
use super::signs::Signs;
use super::{holder, issue, rekey, release, transaction};
use crate::card::CardError;
use crate::card::feedback::Sign;
use crate::card::keys::KeyStore;
use crate::card::keys::till_purse::{Leaves, Word};
use crate::card::medium::Finding;
use crate::card::member::Members;
use crate::card::purse::journal::{Journal, Signed};
use crate::card::record::MemberRecord;
use crate::card::verdict::{Refusal, Standing};
use crate::card::work::{WorkStep, Worked};
use crate::clock::UtcMillis;
use crate::event::card::{MemberStatus, Technology};
use crate::health::Health;
use crate::ident::{CardUid, DeviceId};
use crate::protocols::cards::CardLayout;
use crate::store::ledger::Evidence;
use crate::store::requests::{RequestOp, RequestRow, RequestState};
use crate::store::{Batch, Op, Store, StoreError, batches};

/// What the card in a field shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Shows {
    /// A record of ours, and nothing against it.
    Record(Box<MemberRecord>),
    /// A record of ours whose last day is over: it can be extended or given back.
    Expired(Box<MemberRecord>),
    /// It will not do.
    Refused(Refusal),
    /// A number, no more.
    Number,
    /// Nobody knows since a write was cut off: it has to be tapped again.
    Doubt,
}

impl Shows {
    /// What a card shows, by the verdict on it and its record.
    pub(in crate::card) fn of(standing: &Standing, record: Option<&MemberRecord>) -> Self {
        let record = record.cloned().map(Box::new);
        match (standing, record) {
            (Standing::Refused(Refusal::Expired), Some(record)) => Self::Expired(record),
            (Standing::Refused(refusal), _) => Self::Refused(*refusal),
            (Standing::Member(_), Some(record)) => Self::Record(record),
            _ => Self::Number,
        }
    }

    /// What a card with this record shows after it was written or read again.
    pub(super) fn record(record: MemberRecord) -> Self {
        match record.status {
            MemberStatus::Active => Self::Record(Box::new(record)),
            MemberStatus::Blocked => Self::Refused(Refusal::Blocked),
            MemberStatus::Returned => Self::Refused(Refusal::Returned),
            MemberStatus::Replaced => Self::Refused(Refusal::Replaced),
        }
    }
}

/// A card in a field.
#[derive(Debug, Clone)]
pub(crate) struct InField {
    /// In which of the table's readers.
    pub(crate) slot: String,
    /// Its chip.
    pub(crate) uid: CardUid,
    /// Technology as probed.
    pub(crate) technology: Technology,
    /// What it shows.
    pub(crate) shows: Shows,
    /// When this tap was seen: tells it from the next one of the same card.
    pub(crate) seen: std::time::Instant,
}

/// What a tap came to in the ledger.
#[derive(Debug, Default)]
pub(crate) struct Looked {
    /// To be committed with the tap.
    pub(crate) batch: Batch,
    /// Nothing is done with the card until a person has compared it.
    pub(crate) held: bool,
}

impl From<Batch> for Looked {
    fn from(batch: Batch) -> Self {
        Self { batch, held: false }
    }
}

/// How a request went.
pub(super) enum Went {
    /// Its row is settled, or waits for the next tap.
    Told,
    /// It is to be settled so.
    Done(Value),
    /// It is to be settled so.
    Refused(Refused),
}

impl<R: Into<Refused>> From<R> for Went {
    fn from(refused: R) -> Self {
        Self::Refused(refused.into())
    }
}

/// The desk of one reader.
pub(crate) struct Desk {
    reader: DeviceId,
    pub(super) store: Store,
    pub(super) journal: Journal,
    pub(in crate::card) members: Option<Arc<Members>>,
    shop: watch::Receiver<Arc<Shop>>,
    health: Health,
    signs: Signs,
    /// When each request gives up its card.
    waiting: HashMap<Uuid, Instant>,
    /// The tap that a batch has had its try with.
    pub(super) fed: Option<std::time::Instant>,
    /// The tap at which a move to newer keys that was cut has been looked for.
    resumed: Option<std::time::Instant>,
}

impl Desk {
    pub(crate) fn new(
        reader: DeviceId,
        store: Store,
        members: Option<Arc<Members>>,
        shop: watch::Receiver<Arc<Shop>>,
        health: Health,
        signs: Signs,
    ) -> Self {
        let journal = Journal::new(store.clone());
        Self {
            reader,
            store,
            journal,
            members,
            shop,
            health,
            signs,
            waiting: HashMap::new(),
            fed: None,
            resumed: None,
        }
    }

    pub(crate) fn shop(&self) -> Arc<Shop> {
        Arc::clone(&self.shop.borrow())
    }

    /// Whether headquarters is not reached now.
    pub(super) fn is_offline(&self) -> bool {
        !self.shop.borrow().has_uplink
            || self.health.troubles().iter().any(|trouble| trouble.part == "uplink")
    }

    /// What a tap tells the ledger, to be committed with the tap: what was open on the card is
    /// settled before anything else is done with it. Without a record: the card showed that it
    /// is no member card ([`Refusal::proves_unfinished`]).
    pub(crate) async fn look(
        &self,
        uid: &CardUid,
        technology: Technology,
        record: Option<&MemberRecord>,
    ) -> Result<Looked, StoreError> {
        if let Some(batch) = issue::settle(self, uid, technology, record).await? {
            return Ok(batch.into());
        }
        let Some(record) = record else { return Ok(Looked::default()) };
        let seen = holder::seen(uid, technology, record, &self.shop().timezone);
        let card_no = seen.card_no.clone();
        let (tap, batch) = match self.journal.look(seen, holder::mark(record), self.signed(uid, record)).await
        {
            Err(StoreError::LedgerRefused { what }) => {
                tracing::warn!(reader = %self.reader, %card_no, what, "this tap settles nothing");
                return Ok(Looked::default());
            }
            looked => looked?,
        };
        if let Some((id, became)) = tap.settled {
            tracing::info!(reader = %self.reader, transaction = %id, ?became, "a tap settled a transaction");
        }
        if let Err(why) = &tap.standing {
            tracing::warn!(reader = %self.reader, %card_no, why, "card held");
        }
        Ok(Looked { batch, held: tap.standing.is_err() })
    }

    /// What a card says that showed that it is no member card, where its issue waits for that:
    /// it is asked once more before it is believed. `None`: nothing waits.
    pub(crate) async fn doubted(
        &self,
        slot: &str,
        uid: &CardUid,
        technology: Technology,
    ) -> Result<Option<Finding>, StoreError> {
        issue::doubted(self, slot, uid, technology).await
    }

    /// When the next request gives up.
    pub(crate) fn next_end(&self) -> Option<Instant> {
        self.waiting.values().min().copied()
    }

    /// Takes what is asked of this reader, as far as its card lies there or its time is over.
    pub(crate) async fn serve(&mut self, field: &mut [InField]) -> Result<(), CardError> {
        if let Some(card) = field.last_mut()
            && self.resumed.replace(card.seen) != Some(card.seen)
        {
            rekey::resume(self, card).await;
        }
        let target = self.reader.to_string();
        let open = self.store.read(move |r| r.open_requests_of(&target)).await?;
        self.waiting.retain(|id, _| open.iter().any(|request| request.id == *id));
        let batch = open.iter().find(|request| request.kind == batches::KIND).cloned();
        for request in open {
            let ours = matches!(request.kind.as_str(), TRANSACTION | QUOTE | ISSUE | RELEASE);
            if !ours || request.state != RequestState::Pending {
                continue;
            }
            let end = self.end_of(&request);
            let card = field.last_mut();
            let went = match card {
                _ if Instant::now() >= end => Went::Refused(Refused::no_card()),
                Some(card) => self.act(&request, card).await?,
                None => continue,
            };
            self.waiting.remove(&request.id);
            let (state, outcome) = match went {
                Went::Told => continue,
                Went::Done(outcome) => (RequestState::Done, outcome),
                Went::Refused(refused) => {
                    let (kind, code) = (&request.kind, &refused.code);
                    tracing::info!(reader = %self.reader, kind, code, "card request refused");
                    (RequestState::Failed, refused.outcome())
                }
            };
            let settle = RequestOp::Settle { id: request.id, state, outcome };
            match self.store.commit(Batch::new().op(Op::Request(settle))).await {
                // It was ended meanwhile.
                Err(StoreError::NotFound { .. }) => {}
                committed => drop(committed?),
            }
        }
        if let Some(batch) = batch {
            super::batch::feed(self, &batch, field).await?;
        }
        Ok(())
    }

    /// Its time began when it came in, by the wall clock, and is never longer than was asked.
    fn end_of(&mut self, request: &RequestRow) -> Instant {
        let wait = wait_of(&request.body);
        let age = u64::try_from(UtcMillis::now().0.saturating_sub(request.created_at.0)).unwrap_or(0);
        let left = wait.saturating_sub(Duration::from_millis(age));
        *self.waiting.entry(request.id).or_insert_with(|| Instant::now() + left)
    }

    async fn act(&self, request: &RequestRow, card: &mut InField) -> Result<Went, CardError> {
        if self.members.is_none() {
            return Ok(Refused::no_keys().into());
        }
        let went = match request.kind.as_str() {
            ISSUE => issue::issue(self, request, card).await,
            RELEASE => release::release(self, request, card).await,
            _ => transaction::deal(self, request, card).await,
        };
        if matches!(went, Ok(Went::Told)) && request.kind == TRANSACTION {
            rekey::after(self, request, card).await;
        }
        let error = match went {
            Ok(went) => return Ok(went),
            Err(error) => error,
        };
        // Behind an intent only the card tells what became of it: nothing is refused any more.
        let id = request.id;
        if self.store.read(move |r| r.transaction_state(id)).await?.is_some() {
            return Err(error.into());
        }
        if error.is_damage() {
            self.store.note_damage(&error);
            tracing::error!(reader = %self.reader, %error, "a card's row cannot be read");
            return Ok(crate::card::purse::Refusal::CardHeld.into());
        }
        Ok(of_this_request(error, &request.kind)?.into())
    }

    /// Where a technology keeps its record, and the keys that open it.
    pub(super) fn medium(&self, technology: Technology) -> Option<(Arc<CardLayout>, Arc<dyn KeyStore>)> {
        let members = self.members.as_ref()?;
        Some((members.layout(technology)?, Arc::clone(&members.keys)))
    }

    /// What is known of the card's own word for the transaction that left this record, where its
    /// technology signs. It stays known until [`Desk::is_told`].
    pub(super) fn signed(&self, uid: &CardUid, record: &MemberRecord) -> Signed {
        let purse = self.members.as_ref().and_then(|members| members.keys.purse());
        let Some((word, proof)) = purse.and_then(|purse| purse.word(uid, Leaves::from(record))) else {
            return Signed::default();
        };
        let evidence = Evidence { counters: None, proof };
        match word {
            Word::Believed => Signed::Right(evidence),
            Word::Open | Word::Unproven => Signed::Unchecked(evidence),
            Word::Refuted => Signed::Wrong,
        }
    }

    /// The ledger has what the card signed.
    pub(super) fn is_told(&self, uid: &CardUid, record: &MemberRecord) {
        let purse = self.members.as_ref().and_then(|members| members.keys.purse());
        purse.inspect(|purse| purse.forget(uid, Leaves::from(record)));
    }

    /// A conversation with the card, by the driver.
    pub(super) async fn errand(&self, card: &InField, step: WorkStep) -> Option<Worked> {
        self.errand_at(&card.slot, step).await
    }

    /// As [`Self::errand`], with the card at this place.
    pub(super) async fn errand_at(&self, slot: &str, step: WorkStep) -> Option<Worked> {
        self.signs.errand(slot, step).await
    }

    /// Shows the person at the reader how it went.
    pub(crate) fn show(&self, slot: &str, sign: Sign) {
        self.signs.show(slot, sign);
    }
}

/// What ends one request, and not the reader's service.
fn of_this_request(error: StoreError, kind: &str) -> Result<Refused, StoreError> {
    match error {
        StoreError::LedgerRefused { what } => Ok(Refused::moved_on(&what)),
        // What it goes on from was settled by another reader meanwhile. A chip that is being
        // issued may be written by now.
        StoreError::NotFound { what } if kind != ISSUE => {
            Ok(Refused::moved_on(&format!("{what} has moved on")))
        }
        StoreError::Full if kind != ISSUE => Ok(Refused::storage_full()),
        error => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_moved_on_ends_a_deal_and_no_issue() {
        let moved = || StoreError::NotFound { what: "open transaction 7".into() };
        for kind in [TRANSACTION, QUOTE] {
            let refused = of_this_request(moved(), kind).unwrap();
            assert_eq!((refused.code.as_str(), refused.status), ("tap-again", 409));
            assert!(refused.text.en.contains("open transaction 7"), "{refused:?}");
            assert!(refused.text.zh.contains("请重新刷卡"), "{refused:?}");
        }
        assert!(matches!(of_this_request(moved(), ISSUE), Err(StoreError::NotFound { .. })));
        let ledger = || StoreError::LedgerRefused { what: "the card is held".into() };
        assert_eq!(of_this_request(ledger(), ISSUE).unwrap().code, "tap-again");
        assert!(matches!(of_this_request(StoreError::Closed, TRANSACTION), Err(StoreError::Closed)));
        assert_eq!(of_this_request(StoreError::Full, TRANSACTION).unwrap().status, 507);
        assert!(matches!(of_this_request(StoreError::Full, ISSUE), Err(StoreError::Full)));
    }
}
