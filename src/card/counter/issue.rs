//! Giving out a card: an empty one becomes a member's. While it is being written a row of
//! kind `card.prepare` stands, whose target is the chip: after a cut it says that what lies on
//! the card is ours to overwrite, and the next tap tells whether the card came to be.

use serde_json::{Value, json};
use uuid::Uuid;

use super::asked::{By as AskedBy, ISSUE, IssueAsked, PREPARE};
use super::desk::{Desk, InField, Shows, Went};
use super::holder;
use super::refused::Refused;
use crate::card::feedback::Sign;
use crate::card::medium::{Finding, PrepareOutcome, Preparing, Reading};
use crate::card::purse::Refusal;
use crate::card::purse::policy::may_be_valid_until;
use crate::card::record::{COUPON_SLOTS, Coupon, MemberRecord};
use crate::card::sle4442;
use crate::card::verdict::Refusal as CardRefusal;
use crate::card::work::Worked;
use crate::clock::UtcMillis;
use crate::event::card::{MemberStatus, Technology};
use crate::ident::{CardNo, CardUid};
use crate::store::ledger_cards::{self, By};
use crate::store::requests::{NewRequest, RequestOp, RequestRow, RequestState};
use crate::store::{Batch, Op, Reader, StoreError};

/// Does one request for a new card with the card in the field.
pub(super) async fn issue(desk: &Desk, request: &RequestRow, card: &mut InField) -> Result<Went, StoreError> {
    let asked: IssueAsked = match serde_json::from_value(request.body.clone()) {
        Ok(asked) => asked,
        Err(error) => return Ok(Refused::body(&error).into()),
    };
    let earlier = open_rows(desk, &card.uid).await?;
    let again = !earlier.is_empty();
    // What lies there may be whole: only a tap tells, and until then nothing is written over it.
    let undecided = is_undecided(desk, &earlier).await?;
    match &card.shows {
        Shows::Record(_) | Shows::Expired(_) => return Ok(Refused::already_issued().into()),
        Shows::Refused(refusal) if undecided && !refusal.proves_unfinished() => {
            return Ok((*refusal).into());
        }
        Shows::Doubt if undecided => return Ok(Refusal::TapAgain.into()),
        Shows::Refused(CardRefusal::Unformatted) => {}
        // An earlier attempt was cut off: what lies there is ours.
        Shows::Refused(_) | Shows::Doubt if again => {}
        Shows::Refused(CardRefusal::NotAMemberCard) => return Ok(Refused::not_blank().into()),
        Shows::Refused(refusal) => return Ok((*refusal).into()),
        Shows::Number => return Ok(Refusal::AccountAtHeadquarters.into()),
        Shows::Doubt => return Ok(Refusal::TapAgain.into()),
    }
    // A member's card, cut while it was moved to newer keys, looks empty too.
    if super::rekey::is_open(desk, &card.uid).await? {
        return Ok(Refused::not_blank().into());
    }
    if let Err(refused) = may_issue(desk, request.id, &card.uid, &asked).await? {
        return Ok(refused.into());
    }
    let Some((layout, keys)) = desk.medium(card.technology) else {
        return Ok(Refusal::AccountAtHeadquarters.into());
    };
    if card.technology == Technology::Sle4442
        && sle4442::is_nameless(&card.uid)
        && let Err(refused) = name(desk, card).await
    {
        return Ok(refused.into());
    }
    let record = new_record(desk, &asked, keys.current().0);
    let step = match Preparing::start(card.uid.clone(), card.technology, &layout, &record, &keys, again) {
        Ok(step) => step,
        Err(error) => return Ok(Refused::cannot_be_issued(&error).into()),
    };
    let Some(in_hand) = desk.store.hands().take(request.id) else {
        return Ok(Refusal::TapAgain.into());
    };
    let row = match begin(desk, request.id, card, &asked, &earlier).await {
        // It was ended in this moment.
        Err(StoreError::NotFound { .. }) => return Ok(Went::Told),
        begun => begun?,
    };
    card.shows = Shows::Doubt;
    let outcome = match desk.errand(card, step.into()).await {
        Some(Worked::Prepared(outcome)) => outcome,
        _ => PrepareOutcome::Unfinished,
    };
    if let Some((shows, refused)) = untouched(outcome) {
        // Of an earlier attempt the chip may still be half written: its row stays.
        if !again {
            desk.store.commit(Batch::new().op(closed(row))).await?;
        }
        card.shows = shows;
        return Ok(refused.into());
    }
    // Reading it with its own keys is the proof.
    let found = read(desk, &card.slot, &card.uid, card.technology).await;
    drop(in_hand);
    let proven = matches!(found, Finding::Opened(_));
    desk.show(&card.slot, if proven { Sign::Accepted } else { Sign::Refused });
    match found {
        Finding::Opened(opened) => {
            let record = opened.current.record;
            if let Some(batch) = settle(desk, &card.uid, card.technology, Some(&record)).await? {
                match desk.store.commit(batch).await {
                    // It was ended in this moment: the next tap tells what it is now.
                    Err(StoreError::NotFound { .. }) => return Ok(Went::Told),
                    committed => drop(committed?),
                }
            }
            card.shows = Shows::Record(Box::new(record));
            Ok(Went::Told)
        }
        Finding::Refused(refusal) if refusal.proves_unfinished() => {
            card.shows = Shows::Refused(refusal);
            Ok(Refused::issue_interrupted().into())
        }
        // The next tap tells; until then the asker waits.
        Finding::Refused(_) | Finding::ReaderError => {
            desk.store.commit(Batch::new().op(Op::Request(RequestOp::Start { id: row }))).await?;
            Ok(Went::Told)
        }
    }
}

/// Reads a card that was being issued. That it is no member card counts only where it said so
/// twice, powered anew in between: one failed reading would make a whole card an unfinished one,
/// and its number would go to another.
async fn read(desk: &Desk, slot: &str, uid: &CardUid, technology: Technology) -> Finding {
    let found = read_once(desk, slot, uid, technology).await;
    match found {
        Finding::Refused(refusal) if refusal.proves_unfinished() => {
            read_once(desk, slot, uid, technology).await
        }
        found => found,
    }
}

async fn read_once(desk: &Desk, slot: &str, uid: &CardUid, technology: Technology) -> Finding {
    let Some((layout, keys)) = desk.medium(technology) else { return Finding::ReaderError };
    let reading = Reading::afresh(uid.clone(), layout, keys);
    match desk.errand_at(slot, reading.into()).await {
        Some(Worked::Read(found)) => found,
        _ => Finding::ReaderError,
    }
}

/// What a card says that has just shown that it is no member card, asked once more; `None` where
/// nothing was begun on it that waits for what it says.
pub(super) async fn doubted(
    desk: &Desk,
    slot: &str,
    uid: &CardUid,
    technology: Technology,
) -> Result<Option<Finding>, StoreError> {
    let earlier = open_rows(desk, uid).await?;
    if !is_undecided(desk, &earlier).await? {
        return Ok(None);
    }
    Ok(Some(read_once(desk, slot, uid, technology).await))
}

/// What it means that nothing was written to a card.
fn untouched(outcome: PrepareOutcome) -> Option<(Shows, Refused)> {
    let (shows, refused) = match outcome {
        PrepareOutcome::NotBlank => (CardRefusal::NotAMemberCard, Refused::not_blank()),
        PrepareOutcome::NotWritten => (CardRefusal::Unformatted, Refused::issue_not_begun()),
        PrepareOutcome::TooFewTries => (CardRefusal::Unformatted, CardRefusal::TooFewTries.into()),
        PrepareOutcome::Prepared | PrepareOutcome::Unfinished => return None,
    };
    Some((Shows::Refused(shows), refused))
}

/// Gives an SLE4442 its serial, behind which everything else is made. Nothing else is on it yet:
/// a cut leaves it without one, or with one and empty.
async fn name(desk: &Desk, card: &mut InField) -> Result<(), Refused> {
    let serial = sle4442::new_serial().map_err(|error| Refused::cannot_be_issued(&error))?;
    let step = Preparing::name(card.uid.clone(), serial);
    match desk.errand(card, step.into()).await {
        Some(Worked::Prepared(PrepareOutcome::Prepared)) => {
            let (bytes, _) = serial.split_at(serial.len() / 2);
            card.uid = CardUid::from_bytes(bytes).map_err(|error| Refused::cannot_be_issued(&error))?;
            Ok(())
        }
        Some(Worked::Prepared(outcome)) => {
            Err(untouched(outcome).map_or_else(Refused::issue_interrupted, |(_, refused)| refused))
        }
        _ => Err(Refused::issue_interrupted()),
    }
}

async fn may_issue(
    desk: &Desk,
    id: Uuid,
    uid: &CardUid,
    asked: &IssueAsked,
) -> Result<Result<(), Refused>, StoreError> {
    let (shop, card_no, uid) = (desk.shop(), asked.card_no.clone(), uid.to_string());
    let (held, given, busy) = desk
        .store
        .read(move |r| {
            // Somebody may be giving the same number out at another reader in this moment.
            let same = |other: &RequestRow| {
                other.id != id
                    && other.state == RequestState::Running
                    && other.body.get("card_no") == Some(&json!(card_no))
            };
            let given = r.member_card(&card_no)?.is_some()
                || r.card_report(&card_no)?.is_some()
                || was_given_up(r, &card_no, &uid)?;
            let busy = r.open_requests(ISSUE, None)?.into_iter().find(same).map(|other| other.id);
            Ok((r.card_writes_held()?.is_some(), given, busy))
        })
        .await?;
    if held {
        return Ok(Err(Refusal::WritesHeld.into()));
    }
    if given {
        return Ok(Err(Refused::card_no_in_use()));
    }
    if let Some(issue) = busy {
        return Ok(Err(Refused::card_no_busy(issue)));
    }
    let until = asked.valid_until.and_then(|day| holder::end_of(day, &shop.timezone));
    let may = may_be_valid_until(asked.card_type, until, UtcMillis::now(), &shop.rules);
    Ok(may.map_err(Refused::from))
}

/// Whether the number may stand on another chip, whose issue was ended before the card told.
fn was_given_up(r: &Reader<'_>, card_no: &CardNo, uid: &str) -> Result<bool, StoreError> {
    for row in r.open_requests(PREPARE, None)? {
        let same = row.target != uid && row.body.get("card_no") == Some(&json!(card_no));
        if same && issue_of(r, &row)?.is_none_or(|issue| is_given_up(&issue)) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn new_record(desk: &Desk, asked: &IssueAsked, key_version: u8) -> MemberRecord {
    MemberRecord {
        card_no: asked.card_no.clone(),
        member_type: asked.card_type,
        status: MemberStatus::Active,
        issuing_store: desk.shop().store.clone(),
        tier: asked.tier,
        discount_class: asked.discount_class,
        valid_until: asked.valid_until,
        principal_fen: 0,
        bonus_fen: 0,
        points: 0,
        coupons: [Coupon::default(); COUPON_SLOTS],
        counter: 0,
        last: None,
        key_version,
    }
}

/// Durable before the first byte: this chip is being written, and for whom.
async fn begin(
    desk: &Desk,
    id: Uuid,
    card: &InField,
    asked: &IssueAsked,
    earlier: &[RequestRow],
) -> Result<Uuid, StoreError> {
    let row = NewRequest {
        id: Uuid::now_v7(),
        kind: PREPARE,
        target: card.uid.to_string(),
        scope: "card".into(),
        idempotency_key: None,
        body: json!({ "issue": id, "card_no": asked.card_no, "by": asked.by }),
    };
    let row_id = row.id;
    let mut batch = Batch::new().op(Op::Request(RequestOp::Start { id }));
    for earlier in earlier {
        batch = batch.op(closed(earlier.id));
    }
    desk.store.commit(batch.op(Op::Request(RequestOp::Insert(row)))).await?;
    Ok(row_id)
}

fn closed(row: Uuid) -> Op {
    Op::Request(RequestOp::Settle { id: row, state: RequestState::Done, outcome: Value::Null })
}

fn is_given_up(issue: &RequestRow) -> bool {
    issue.outcome.as_ref().is_some_and(Refused::is_given_up)
}

/// Whether an earlier issue on this chip waits for what the card says, or did when it was ended.
async fn is_undecided(desk: &Desk, earlier: &[RequestRow]) -> Result<bool, StoreError> {
    let earlier = earlier.to_vec();
    desk.store
        .read(move |r| {
            for row in &earlier {
                let open = |issue: RequestRow| !issue.state.is_settled() || is_given_up(&issue);
                if issue_of(r, row)?.is_none_or(open) {
                    return Ok(true);
                }
            }
            Ok(false)
        })
        .await
}

/// The `card.issue` that a row of kind [`PREPARE`] stands for; `None` once it is forgotten.
fn issue_of(r: &Reader<'_>, row: &RequestRow) -> Result<Option<RequestRow>, StoreError> {
    Ok(issue_id(row).map(|issue| r.request(issue)).transpose()?.flatten())
}

fn issue_id(row: &RequestRow) -> Option<Uuid> {
    row.body.get("issue").and_then(Value::as_str).and_then(|id| id.parse().ok())
}

async fn open_rows(desk: &Desk, uid: &CardUid) -> Result<Vec<RequestRow>, StoreError> {
    let target = uid.to_string();
    desk.store.read(move |r| r.open_requests(PREPARE, Some(&target))).await
}

/// A card that was being issued shows itself. With its record it is issued; without, the card
/// has shown that it is none, the issue failed, and its row stays until the card is prepared
/// again. `None`: no such card.
pub(super) async fn settle(
    desk: &Desk,
    uid: &CardUid,
    technology: Technology,
    record: Option<&MemberRecord>,
) -> Result<Option<Batch>, StoreError> {
    let Some(row) = open_rows(desk, uid).await?.pop() else { return Ok(None) };
    let request = match issue_id(&row) {
        // It is being written, here or at another reader.
        Some(id) if desk.store.hands().have(id) => return Ok(Some(Batch::new())),
        Some(id) => desk.store.read(move |r| r.request(id)).await?,
        None => None,
    };
    let open = request.as_ref().filter(|request| !request.state.is_settled());
    let Some(record) = record else {
        let settle = open.map(|request| RequestOp::Settle {
            id: request.id,
            state: RequestState::Failed,
            outcome: Refused::issue_interrupted().outcome(),
        });
        return Ok(settle.map(|settle| Batch::new().op(Op::Request(settle))));
    };
    let shop = desk.shop();
    let seen = holder::seen(uid, technology, record, &shop.timezone);
    let card_no = record.card_no.clone();
    let known = desk.store.read(move |r| r.member_card(&card_no)).await?.is_some();
    // The issue itself may be forgotten by now.
    let by = row.body.get("by").or_else(|| request.as_ref().and_then(|request| request.body.get("by")));
    let by = by.filter(|_| row.body.get("card_no") == Some(&json!(record.card_no)));
    let by = by.and_then(|by| serde_json::from_value::<AskedBy>(by.clone()).ok());
    let (Some(by), false) = (by, known) else {
        // It was whole before, or is another's: nothing of ours is left to do here.
        desk.store.commit(Batch::new().op(closed(row.id))).await?;
        return Ok(None);
    };
    let begun = row.created_at;
    let day = shop.day_of(begun).to_string();
    let tier = (record.tier > 0).then(|| record.tier.to_string());
    let by = By { operator: by.operator, till: by.till };
    let mut batch = ledger_cards::issued(seen, tier, day, by)?.op(closed(row.id));
    if let Some(request) = open {
        let outcome = json!({
            "card_no": record.card_no, "uid": uid, "technology": technology, "type": record.member_type,
            "issuing_store": record.issuing_store, "valid_until": record.valid_until,
        });
        batch =
            batch.op(Op::Request(RequestOp::Settle { id: request.id, state: RequestState::Done, outcome }));
    }
    Ok(Some(batch))
}
