//! Moving cards to newer keys, lazily: behind a transaction, never at a mere tap, a card whose
//! record is sealed with older keys than the current ones. What lives here: when, and the
//! journal. What does not: the decision (`keys::rekey`), the commands (`medium::moving`).
//!
//! ```text
//!  journal: begun ─► place 0 ─► journal: 1 ─► place 1 ─► … ─► read it ─► record under the new
//!  seal ─► journal: over, `card.status` with who did it
//! ```
//! Cut anywhere, the journal tells at the chip's next tap which place was begun, and it is begun
//! again. The record is sealed anew last of all: as long as it names the old version, the move
//! is not over.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use uuid::Uuid;

use super::asked::By;
use super::desk::{Desk, InField, Looked, Shows};
use super::release;
use crate::card::keys::rekey::{Decision, Move, decide};
use crate::card::keys::{KeyStore, KeyVersion};
use crate::card::medium::{
    self, Finding, MoveOutcome, Moving, MovingCard, Opened, Reading, WriteOutcome, Writing,
};
use crate::card::record::MemberRecord;
use crate::card::stops;
use crate::card::verdict::Refusal;
use crate::card::work::Worked;
use crate::ident::{CardNo, CardUid, StoreId};
use crate::protocols::cards::CardLayout;
use crate::store::ledger::State;
use crate::store::ledger_cards;
use crate::store::requests::{NewRequest, RequestOp, RequestRow, RequestState};
use crate::store::{Batch, Op, StoreError};

/// Kind of the journal's row; its target is the chip.
pub const REKEY: &str = "card.rekey";
/// No card moves to these.
const FIRST: KeyVersion = KeyVersion(1);
/// A card that took none of its keys so often is not asked again.
const MAX_REFUSALS: u8 = 2;

/// A move, as its row has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Journal {
    /// The same in all rows of a move.
    id: Uuid,
    card_no: CardNo,
    store: StoreId,
    from: u8,
    to: u8,
    /// Places that are done.
    done: u8,
    #[serde(default)]
    refusals: u8,
    by: By,
}

impl Journal {
    fn as_move(&self) -> Move {
        Move { from: KeyVersion(self.from), to: KeyVersion(self.to), done: self.done }
    }
}

/// A row of the journal and what it says.
struct Entry {
    row: Uuid,
    journal: Journal,
}

/// Behind a transaction that stands on the card: it is there, and a person waits with it.
pub(super) async fn after(desk: &Desk, request: &RequestRow, card: &mut InField) {
    noted(begin(desk, request, card).await);
}

/// At a tap: takes up what was cut, or closes what nobody heard of. A house that never changed
/// its keys has moved no card. One that shows itself as held is left alone; one that cannot be
/// read before its move is over does not show it.
pub(super) async fn resume(desk: &Desk, card: &mut InField) {
    let held = matches!(card.shows, Shows::Refused(Refusal::Held));
    if held || desk.members.as_ref().is_none_or(|members| members.keys.current() <= FIRST) {
        return;
    }
    let gone_on = match open_entry(desk, &card.uid).await {
        Ok(Some(entry)) => run(desk, card, entry, false).await,
        Ok(None) => Ok(()),
        Err(error) => Err(error),
    };
    noted(gone_on);
}

/// It can wait: what keeps the journal from being written stops no sale.
fn noted(result: Result<(), StoreError>) {
    if let Err(error) = result {
        tracing::warn!(%error, "a move to newer keys waits");
    }
}

async fn begin(desk: &Desk, request: &RequestRow, card: &mut InField) -> Result<(), StoreError> {
    let Shows::Record(record) = &card.shows else { return Ok(()) };
    let (Some((layout, keys)), true) = (desk.medium(card.technology), is_behind(desk, record)) else {
        return Ok(());
    };
    let id = request.id;
    let state = desk.store.read(move |r| r.transaction_state(id)).await?;
    let ours = record.issuing_store == desk.shop().store;
    let Some(places) = medium::places(card.technology, &layout) else { return Ok(()) };
    if !ours || state != Some(State::Committed) {
        return Ok(());
    }
    let Ok(by) = serde_json::from_value::<By>(request.body.get("by").cloned().unwrap_or_default()) else {
        return Ok(());
    };
    let entry = open_entry(desk, &card.uid).await?;
    let known = entry.as_ref().map(|entry| entry.journal.as_move());
    let begun = match (decide(KeyVersion(record.key_version), keys.current(), known, true), entry) {
        (Decision::Begin(begun), None) => begun,
        (Decision::Resume(_), Some(entry)) => return run(desk, card, entry, false).await,
        // The next tap sees to an older row.
        _ => return Ok(()),
    };
    let journal = Journal {
        id: Uuid::now_v7(),
        card_no: record.card_no.clone(),
        store: record.issuing_store.clone(),
        from: begun.from.0,
        to: begun.to.0,
        done: begun.done,
        refusals: 0,
        by,
    };
    if !can_be_moved(card, &layout, &keys, &journal, places) {
        return Ok(());
    }
    tracing::info!(from = journal.from, to = journal.to, "moving a card to newer keys");
    let (row, insert) = inserted(&card.uid, &journal);
    desk.store.commit(Batch::new().op(insert)).await?;
    run(desk, card, Entry { row, journal }, true).await
}

/// Whether all keys are there that it takes. Else the card goes on with those it has.
fn can_be_moved(
    card: &InField,
    layout: &CardLayout,
    keys: &Arc<dyn KeyStore>,
    journal: &Journal,
    places: u8,
) -> bool {
    let chip = MovingCard { uid: &card.uid, technology: card.technology, store: &journal.store };
    let steps = (journal.done..places)
        .map(|done| Moving::start(&chip, layout, keys, Move { done, ..journal.as_move() }, true));
    match steps.filter_map(Result::err).next() {
        None => true,
        Some(error) => {
            tracing::error!(%error, from = journal.from, to = journal.to, "a card keeps its older keys");
            false
        }
    }
}

fn is_behind(desk: &Desk, record: &MemberRecord) -> bool {
    desk.members.as_ref().is_some_and(|members| KeyVersion(record.key_version) < members.keys.current())
}

/// Whether a move of this chip was begun and not ended.
pub(super) async fn is_open(desk: &Desk, uid: &CardUid) -> Result<bool, StoreError> {
    let target = uid.to_string();
    Ok(!desk.store.read(move |r| r.open_requests(REKEY, Some(&target))).await?.is_empty())
}

async fn open_entry(desk: &Desk, uid: &CardUid) -> Result<Option<Entry>, StoreError> {
    let target = uid.to_string();
    let row = desk.store.read(move |r| r.open_requests(REKEY, Some(&target))).await?.pop();
    let Some(row) = row else { return Ok(None) };
    match serde_json::from_value(row.body) {
        Ok(journal) => Ok(Some(Entry { row: row.id, journal })),
        Err(error) => {
            tracing::error!(%error, "a move to newer keys cannot be read; perhaps another version wrote it");
            Ok(None)
        }
    }
}

fn inserted(uid: &CardUid, journal: &Journal) -> (Uuid, Op) {
    let row = NewRequest {
        id: Uuid::now_v7(),
        kind: REKEY,
        target: uid.to_string(),
        scope: "card".into(),
        idempotency_key: None,
        body: json!(journal),
    };
    (row.id, Op::Request(RequestOp::Insert(row)))
}

fn settled(id: Uuid, state: RequestState, outcome: Value) -> Batch {
    Batch::new().op(Op::Request(RequestOp::Settle { id, state, outcome }))
}

/// From the place that was begun to the end. `fresh`: nothing of it was begun.
async fn run(desk: &Desk, card: &mut InField, mut entry: Entry, fresh: bool) -> Result<(), StoreError> {
    let Some((layout, keys)) = desk.medium(card.technology) else { return Ok(()) };
    let Some(places) = medium::places(card.technology, &layout) else { return Ok(()) };
    // Another reader may have a card with the same number in hand.
    let Some(_in_hand) = desk.store.hands().take(entry.journal.id) else { return Ok(()) };
    // Until it has been read again.
    card.shows = Shows::Doubt;
    let mut fresh = fresh;
    if !fresh {
        // The card's own word comes first: the move may be over, but for the seal.
        match read(desk, card).await {
            Some(Finding::Opened(opened)) if opened.header.key_version == KeyVersion(entry.journal.to) => {
                return seal(desk, card, &entry, *opened).await;
            }
            Some(Finding::Opened(opened)) if opened.header.key_version != KeyVersion(entry.journal.from) => {
                tracing::warn!("a card was moved to other keys elsewhere");
                desk.store.commit(settled(entry.row, RequestState::Done, Value::Null)).await?;
                return show(desk, card, *opened).await;
            }
            // Keys were taken out of the store meanwhile; it still has all its old ones.
            Some(Finding::Opened(opened)) if !can_be_moved(card, &layout, &keys, &entry.journal, places) => {
                return show(desk, card, *opened).await;
            }
            Some(Finding::ReaderError) | None => return Ok(()),
            Some(Finding::Opened(_) | Finding::Refused(_)) => {}
        }
    }
    while entry.journal.done < places {
        let chip = MovingCard { uid: &card.uid, technology: card.technology, store: &entry.journal.store };
        let step = match Moving::start(&chip, &layout, &keys, entry.journal.as_move(), fresh) {
            Ok(step) => step,
            Err(error) => {
                tracing::error!(%error, "a card cannot be moved to newer keys");
                card.shows = Shows::Refused(Refusal::KeyMissing);
                return Ok(());
            }
        };
        let outcome = match desk.errand(card, step.into()).await {
            Some(Worked::Moved(outcome)) => outcome,
            _ => MoveOutcome::Cut,
        };
        match outcome {
            MoveOutcome::Moved => entry = next(desk, &card.uid, entry, |journal| journal.done += 1).await?,
            MoveOutcome::Cut => {
                tracing::warn!(
                    done = entry.journal.done,
                    "a move to newer keys was cut: the next tap goes on"
                );
                return Ok(());
            }
            MoveOutcome::Refused if entry.journal.refusals + 1 < MAX_REFUSALS => {
                next(desk, &card.uid, entry, |journal| journal.refusals += 1).await?;
                return Ok(());
            }
            MoveOutcome::Refused => {
                tracing::error!("a card takes neither its old nor its new keys: replace it");
                let outcome = json!({ "code": "wrong-key" });
                desk.store.commit(settled(entry.row, RequestState::Failed, outcome)).await?;
                return Ok(());
            }
        }
        fresh = true;
    }
    match read(desk, card).await {
        Some(Finding::Opened(opened)) => seal(desk, card, &entry, *opened).await,
        _ => Ok(()),
    }
}

/// The journal goes on.
async fn next(
    desk: &Desk,
    uid: &CardUid,
    mut entry: Entry,
    change: impl FnOnce(&mut Journal),
) -> Result<Entry, StoreError> {
    change(&mut entry.journal);
    let (row, insert) = inserted(uid, &entry.journal);
    desk.store.commit(settled(entry.row, RequestState::Done, Value::Null).op(insert)).await?;
    Ok(Entry { row, ..entry })
}

async fn read(desk: &Desk, card: &InField) -> Option<Finding> {
    let (layout, keys) = desk.medium(card.technology)?;
    let step = Reading::start(card.uid.clone(), layout, keys, true);
    match desk.errand(card, step.into()).await {
        Some(Worked::Read(found)) => Some(found),
        _ => None,
    }
}

/// The record under its new seal, with the same counter: it is the same record.
async fn seal(desk: &Desk, card: &mut InField, entry: &Entry, mut opened: Opened) -> Result<(), StoreError> {
    let Some((layout, keys)) = desk.medium(card.technology) else { return Ok(()) };
    let old = opened.current.record.clone();
    if old.key_version < entry.journal.to {
        let new = MemberRecord { key_version: entry.journal.to, ..old.clone() };
        let step = Writing::start(card.uid.clone(), layout, keys, old, new.clone());
        match desk.errand(card, step.into()).await {
            Some(Worked::Written(WriteOutcome::Written)) => opened.current.record = new,
            _ => return Ok(()),
        }
    }
    let Journal { from, to, ref by, ref card_no, .. } = entry.journal;
    let done = settled(entry.row, RequestState::Done, json!({ "from": from, "to": to }));
    let number = card_no.clone();
    if let Some(row) = desk.store.read(move |r| r.member_card(&number)).await? {
        let by = ledger_cards::By { operator: by.operator.clone(), till: by.till.clone() };
        let told = row.stands(row.status, Some(format!("keys {from} -> {to}")), by)?;
        let both = Batch { ops: [done.ops.clone(), told.ops].concat(), ..told };
        match desk.store.commit(both).await {
            // Its standing changed in this moment: that was told, and the next tap tells this.
            Err(StoreError::NotFound { .. }) => return Ok(()),
            committed => drop(committed?),
        }
    } else {
        desk.store.commit(done).await?;
    }
    tracing::info!(from, to, "a card has newer keys");
    show(desk, card, opened).await
}

/// What the card shows now is judged as at a tap.
async fn show(desk: &Desk, card: &mut InField, opened: Opened) -> Result<(), StoreError> {
    let standing = release::standing(desk, &opened).await?;
    let record = &opened.current.record;
    let Looked { batch, held } = desk.look(&card.uid, card.technology, Some(record)).await?;
    if !batch.ops.is_empty() {
        match desk.store.commit(batch).await {
            Err(StoreError::LedgerRefused { .. } | StoreError::NotFound { .. }) => return Ok(()),
            committed => drop(committed?),
        }
    }
    card.shows = Shows::of(&stops::or_held(standing, held), Some(record));
    Ok(())
}
