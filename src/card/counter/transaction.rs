//! Quotes and transactions: one path for all kinds.

use std::cmp::Ordering;
use std::sync::Arc;

use serde_json::{Value, json};
use uuid::Uuid;

use super::asked::{Deal, Life, QUOTE};
use super::desk::{Desk, InField, Looked, Shows, Went};
use super::holder;
use super::original::{Before, is_parked};
use super::refused::Refused;
use super::replace::{self, Moving};
use super::shop::Shop;
use crate::card::keys::KeyError;
use crate::card::medium::{Finding, Reading, WriteOutcome, Writing};
use crate::card::purse::capability::Limits;
use crate::card::purse::day::business_day;
use crate::card::purse::effect::type_rule;
use crate::card::purse::journal::Signed;
use crate::card::purse::policy::{
    Card, Hotlist, House, OfflineSpent, may_be_valid_until, may_follow, permit,
};
use crate::card::purse::settle::Mark;
use crate::card::purse::{Caps, Context, Plan, Refusal};
use crate::card::record::{COUPON_SLOTS, MemberRecord};
use crate::card::stops::hotlist_for;
use crate::card::verdict::Refusal as CardRefusal;
use crate::card::work::Worked;
use crate::clock::{self, UtcMillis};
use crate::config::purse::MAX_FEN;
use crate::event::card::{MemberStatus, Technology};
use crate::event::ledger::CardStanding;
use crate::ident::CardNo;
use crate::money::{Fen, Holding};
use crate::store::hands::InHand;
use crate::store::ledger::{End, Evidence, NewTransaction, State};
use crate::store::ledger_cards::CardRow;
use crate::store::requests::RequestRow;
use crate::store::{Batch, Reader, StoreError};

/// The longest `card.transaction` data: an event's 64 KiB (contract §3), less its envelope.
const MAX_FACT_BYTES: usize = 60 * 1024;

/// What the ledger knows about a deal before it is made.
struct Known {
    card: Option<CardRow>,
    open: bool,
    writes_held: bool,
    spent: (i64, i64),
    hotlist: Hotlist,
    original: Option<Before>,
    predecessors: Vec<CardNo>,
    /// What came onto it, where principal is to leave it (`Reader::inflows`).
    inflows: Vec<(Fen, Fen)>,
    /// Something of it only headquarters can settle, or what it gave nobody has received.
    unsettled: bool,
    /// A transfer is to go to a card that cannot take it.
    receiver_refused: bool,
    has_pin: bool,
}

/// A deal that may be made.
struct Made {
    plan: Plan,
    before: Holding,
    after: Holding,
    earlier: Vec<Uuid>,
    day: String,
    offline: bool,
    takes_fen: Fen,
    day_cap: Option<Fen>,
    /// It takes value off a card that has a PIN, or whose type has to have one.
    pin_asked: bool,
}

/// Does one request for a quote or a transaction with the card in the field.
pub(super) async fn deal(desk: &Desk, request: &RequestRow, card: &mut InField) -> Result<Went, StoreError> {
    let mut asked: Deal = match serde_json::from_value(request.body.clone()) {
        Ok(asked) => asked,
        Err(error) => return Ok(Refused::body(&error).into()),
    };
    let record = match &card.shows {
        Shows::Record(record) => (**record).clone(),
        Shows::Expired(record) if asked.life.as_ref().is_some_and(Life::takes_expired) => (**record).clone(),
        Shows::Expired(_) => return Ok(Refusal::CardExpired.into()),
        Shows::Refused(refusal) => return Ok((*refusal).into()),
        Shows::Number => return Ok(Refusal::AccountAtHeadquarters.into()),
        Shows::Doubt => return Ok(Refusal::TapAgain.into()),
    };
    if record.card_no != asked.card_no {
        return Ok(Refused::wrong_card().into());
    }
    let moving = match replace::look(desk, &asked, &record).await? {
        Ok(moving) => moving,
        Err(refused) => return Ok(refused.into()),
    };
    asked.original_transaction_id = moving.as_ref().map(Moving::giving_id).or(asked.original_transaction_id);
    let made = match make(desk, &asked, &record, card, moving.as_ref()).await? {
        Ok(made) => made,
        Err(refused) => return Ok(refused.into()),
    };
    if let Some(refused) = beyond_the_till(desk, &made, card) {
        return Ok(refused.into());
    }
    let said = said(&made);
    if request.kind == QUOTE {
        return Ok(Went::Done(said));
    }
    if made.pin_asked && !asked.pin_checked {
        return Ok(Refusal::PinNeeded.into());
    }
    if asked.quoted.as_ref().is_some_and(|quoted| quoted.said != said) {
        return Ok(Refused::quote_changed().into());
    }
    let (kind, tag) = (made.plan.kind, Mark::of(request.id));
    let new = match holder::written(&record, &made.after, kind, tag, UtcMillis::now()) {
        Ok(new) => lived(new, asked.life.as_ref()),
        Err(refusal) => return Ok(refusal.into()),
    };
    let context = Context {
        transaction_id: request.id,
        card_no: record.card_no.clone(),
        uid: card.uid.clone(),
        issuing_store: record.issuing_store.clone(),
        operator: asked.by.operator,
        till: asked.by.till,
        order: asked.order,
        offline: made.offline,
        idempotency_key: asked.idempotency_key,
    };
    let fact = match made.plan.fact(&context) {
        Ok(fact) => fact,
        Err(refusal) => return Ok(refusal.into()),
    };
    let Made { before, after, earlier, day: business_day, takes_fen, day_cap, .. } = made;
    let technology = card.technology;
    // Its outcome must fit an event, or it could never be told.
    if serde_json::to_vec(&fact).map_or(true, |told| told.len() > MAX_FACT_BYTES) {
        return Ok(Refused::too_long().into());
    }
    let new_transaction =
        NewTransaction { fact, technology, business_day, before, after, earlier, takes_fen, day_cap };
    let first = moving.map_or_else(Batch::new, Moving::batch);
    let in_hand = desk.journal.begin_after(first, new_transaction).await?;
    write(desk, request, card, record, new, in_hand).await
}

/// What the purse of a CPU card does not do here: a load is headquarters' alone, and a purchase
/// needs a SAM that has tries left.
fn beyond_the_till(desk: &Desk, made: &Made, card: &InField) -> Option<Refused> {
    let keys =
        desk.members.as_ref().filter(|_| card.technology == Technology::Cpu).map(|members| &members.keys)?;
    match (made.after.balance().cmp(&made.before.balance()), keys.purse()) {
        (Ordering::Greater, None) => Some(Refusal::NeedsHeadquarters.into()),
        (Ordering::Greater, Some(purse)) if !purse.can_load() => Some(Refusal::NeedsHeadquarters.into()),
        (Ordering::Less, None) => Some(CardRefusal::KeyMissing.into()),
        (Ordering::Less, Some(purse)) if purse.is_spared() => {
            tracing::error!(error = %KeyError::SamSpared, "a purchase from a CPU card is refused");
            Some(CardRefusal::KeyMissing.into())
        }
        _ => None,
    }
}

/// The record as its card's new life has it.
fn lived(mut new: MemberRecord, life: Option<&Life>) -> MemberRecord {
    match life {
        Some(Life::Return { .. }) => new.status = MemberStatus::Returned,
        Some(Life::Extend { valid_until }) => new.valid_until = *valid_until,
        Some(Life::Replace { .. }) | None => {}
    }
    new
}

/// Plan and policy: nothing is written.
async fn make(
    desk: &Desk,
    asked: &Deal,
    record: &MemberRecord,
    card: &InField,
    moving: Option<&Moving>,
) -> Result<Result<Made, Refused>, StoreError> {
    let shop = desk.shop();
    let now = UtcMillis::now();
    let day = business_day(now, &shop.timezone, shop.business_day_start).to_string();
    let mut known = known(desk, asked, record, card, &day).await?;
    if let Some(giving) = moving.and_then(Moving::to_come) {
        known.original = Some(Before::to_come(giving.clone()));
    }
    let own_only = matches!(asked.life, Some(Life::Return { .. } | Life::Extend { .. }));
    if own_only && record.issuing_store != shop.store {
        return Ok(Err(Refused::issued_elsewhere()));
    }
    if matches!(asked.life, Some(Life::Return { .. })) && known.unsettled {
        return Ok(Err(Refused::not_settled()));
    }
    if asked.original_transaction_id.is_some() && known.original.is_none() {
        return Ok(Err(Refused::original_unknown()));
    }
    let before = holder::holding(record);
    let offline = desk.is_offline();
    let life = asked.life.as_ref();
    let judged = || {
        let rules = (&shop.rules, &shop.timezone);
        let original = known.original.as_ref().map(|it| it.seen_from(&record.card_no, &known.predecessors));
        let plan = asked.plan(record, &before, original, &known.inflows, rules)?;
        if let Some(validity) = plan.validity {
            may_follow(known.card.as_ref().and_then(|row| row.seen.valid_until), validity.until)?;
            may_be_valid_until(record.member_type, validity.until, now, &shop.rules)?;
        }
        if known.receiver_refused {
            return Err(Refusal::TransferNotAllowed);
        }
        let mut caps = Caps::of(&shop.rules, record.member_type, COUPON_SLOTS);
        if moving.is_some() {
            // What one card was allowed to hold, the one in its place may.
            (caps.max_balance_fen, caps.max_points) = (Fen(MAX_FEN), i64::from(u32::MAX));
        }
        let after = plan.after(&before, &caps)?;
        let row = known.card.as_ref().ok_or(Refusal::TapAgain)?;
        let on_hand = Card {
            card_no: &record.card_no,
            technology: card.technology,
            card_type: record.member_type,
            issuing_store: &record.issuing_store,
            standing: row.status,
            valid_until: row.seen.valid_until.filter(|_| !life.is_some_and(Life::takes_expired)),
            held: row.held.is_some(),
            open: known.open,
        };
        let spent = OfflineSpent { by_card: Fen(known.spent.0), by_all: Fen(known.spent.1) };
        let house = house(&shop, now, &known, offline.then_some(spent));
        permit(&on_hand, plan.kind, &plan.effect, &house)?;
        let takes = plan.effect.takes(shop.rules.points.worth_fen).ok_or(Refusal::AmountNotAllowed)?;
        let limits = Limits::of(card.technology, &shop.rules);
        Ok((plan, after, takes, limits.map(|limits| limits.per_day)))
    };
    Ok(judged().map_err(|refusal: Refusal| Refused::from(refusal)).map(
        |(plan, after, takes_fen, day_cap)| {
            let earlier = known.original.iter().flat_map(|before| &before.earlier);
            let earlier = earlier.map(|fact| fact.transaction_id).collect();
            let takes_off = plan.effect.takes_off(shop.rules.points.worth_fen) != Some(false);
            let has_to = known.has_pin || type_rule(&shop.rules, record.member_type).pin_required;
            Made {
                pin_asked: has_to && (takes_off || asked.takes_value()),
                plan,
                before: before.clone(),
                after,
                earlier,
                day: day.clone(),
                offline,
                takes_fen,
                day_cap,
            }
        },
    ))
}

fn house<'a>(shop: &'a Shop, now: UtcMillis, known: &'a Known, offline: Option<OfflineSpent>) -> House<'a> {
    House {
        now,
        quality: clock::quality(),
        store: &shop.store,
        rules: &shop.rules,
        hotlist: &known.hotlist,
        writes_held: known.writes_held,
        offline,
    }
}

async fn known(
    desk: &Desk,
    asked: &Deal,
    record: &MemberRecord,
    card: &InField,
    day: &str,
) -> Result<Known, StoreError> {
    let to = asked.to_card_no.clone();
    let store = record.issuing_store.clone();
    let (card_no, technology, day) = (record.card_no.clone(), card.technology, day.to_owned());
    let original = asked.original_transaction_id;
    let returns = matches!(asked.life, Some(Life::Return { .. }));
    let leaves = returns || asked.gives();
    let principal = Fen(record.principal_fen.into());
    desk.store
        .read(move |r| {
            let found = original.map(|id| r.transaction(id)).transpose()?.flatten();
            let original = found.map(|row| Before::of(r, &row)).transpose()?;
            let receiver = to.map(|to| r.member_card(&to)).transpose()?;
            let takes = |row: &CardRow| {
                row.status == CardStanding::Active && row.held.is_none() && row.seen.issuing_store == store
            };
            let predecessors = r.predecessors(&card_no)?;
            let mut given = predecessors.clone();
            given.push(card_no.clone());
            let mut unsettled = r.unsettled_of(&card_no)?.iter().any(is_parked);
            for giver in given.iter().filter(|_| returns) {
                unsettled |= gave(r, giver)?;
            }
            Ok(Known {
                inflows: if leaves { r.inflows(&card_no, principal)? } else { Vec::new() },
                has_pin: r.card_pin(&card_no)?.is_some(),
                receiver_refused: receiver.is_some_and(|row| !row.as_ref().is_some_and(takes)),
                predecessors,
                unsettled,
                card: r.member_card(&card_no)?,
                open: r.open_transaction(&card_no)?.is_some(),
                writes_held: r.card_writes_held()?.is_some(),
                hotlist: hotlist_for(r, &card_no)?,
                spent: r.offline_spent(&day, technology, &card_no)?,
                original,
            })
        })
        .await
}

/// Whether a card gave something by a transfer that nobody has received: only there it can be undone.
fn gave(r: &Reader<'_>, card_no: &CardNo) -> Result<bool, StoreError> {
    for id in r.transfers_due_of(card_no)? {
        if r.transaction(id)?.is_some_and(|row| row.fact.card_no == *card_no) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The calculation as a till is told it, and as it is compared when the sale is made.
fn said(made: &Made) -> Value {
    let Made { plan, before, after, .. } = made;
    json!({
        "kind": plan.kind,
        "lines": plan.lines,
        "due_fen": plan.due_fen,
        "tenders": plan.tenders,
        "discount_fen": plan.discount_fen,
        "points_used": plan.points_used,
        "points_earned": plan.points_earned,
        "coupon": plan.coupon,
        "principal_fen": plan.effect.principal_fen,
        "bonus_fen": plan.effect.bonus_fen,
        "points": plan.effect.points,
        "balance_before_fen": before.balance(),
        "balance_after_fen": after.balance(),
        "points_after": after.points,
        "counter": before.counter,
    })
}

/// From the intent to the outcome.
async fn write(
    desk: &Desk,
    request: &RequestRow,
    card: &mut InField,
    old: MemberRecord,
    new: MemberRecord,
    in_hand: InHand,
) -> Result<Went, StoreError> {
    let id = request.id;
    let Some((layout, keys)) = desk.medium(card.technology) else {
        desk.journal.end(id, End::Aborted).await?;
        return Ok(Went::Told);
    };
    let before = std::mem::replace(&mut card.shows, Shows::Doubt);
    let step = Writing::start(card.uid.clone(), layout, keys, old, new.clone());
    let outcome = match desk.errand(card, step.into()).await {
        Some(Worked::Written(outcome)) => outcome,
        _ => WriteOutcome::Unknown,
    };
    match outcome {
        WriteOutcome::Written => {
            let evidence = match desk.signed(&card.uid, &new) {
                Signed::Right(evidence) | Signed::Unchecked(evidence) => evidence,
                Signed::Wrong => Evidence::default(),
            };
            desk.journal.end(id, End::Committed(evidence)).await?;
            desk.is_told(&card.uid, &new);
            card.shows = Shows::record(new);
        }
        WriteOutcome::Forged => {
            tracing::error!(transaction = %id, "the card is an imitation: it is held");
            let shows = holder::seen(&card.uid, card.technology, &new, &desk.shop().timezone);
            desk.journal.imitation(id, shows).await?;
            card.shows = Shows::Refused(CardRefusal::Held);
        }
        WriteOutcome::NotWritten | WriteOutcome::Refused(_) | WriteOutcome::Changed => {
            tracing::warn!(transaction = %id, ?outcome, "card not written");
            desk.journal.end(id, End::Aborted).await?;
            if outcome == WriteOutcome::NotWritten {
                card.shows = before;
            }
        }
        WriteOutcome::Unknown => {
            // The card may lie there still: then it tells at once.
            drop(in_hand);
            if !ask_again(desk, card).await? || is_open(desk, id).await? {
                tracing::warn!(transaction = %id, "card write cut off: the next tap tells");
                desk.journal.end(id, End::Unknown).await?;
            }
        }
    }
    Ok(Went::Told)
}

/// Reads the card once more; whether it showed a record, which is then settled by it.
async fn ask_again(desk: &Desk, card: &mut InField) -> Result<bool, StoreError> {
    let Some((layout, keys)) = desk.medium(card.technology) else { return Ok(false) };
    let step = Reading::start(card.uid.clone(), layout, Arc::clone(&keys), true);
    let Some(Worked::Read(Finding::Opened(opened))) = desk.errand(card, step.into()).await else {
        return Ok(false);
    };
    let record = opened.current.record;
    let Looked { batch, held } = desk.look(&card.uid, card.technology, Some(&record)).await?;
    if !batch.ops.is_empty() {
        match desk.store.commit(batch).await {
            // Another reader was faster, or the card is to be held: its next tap tells.
            Err(StoreError::LedgerRefused { .. } | StoreError::NotFound { .. }) => return Ok(false),
            committed => drop(committed?),
        }
    }
    card.shows = if held { Shows::Refused(CardRefusal::Held) } else { Shows::record(record) };
    Ok(true)
}

async fn is_open(desk: &Desk, id: Uuid) -> Result<bool, StoreError> {
    let state = desk.store.read(move |r| r.transaction_state(id)).await?;
    Ok(matches!(state, Some(State::Intent)))
}
