//! PINs of member cards: set, changed and removed over `POST /v1/cards/{card_no}/pin`, and compared
//! before anything takes value off a card that has one. The PIN never leaves this file but as a
//! slow hash into the store; no request row, event or log has it.
//!
//! ```text
//!  typed ─► five wrong ones? locked ─► counted as wrong (durable) ─► compared ─► right: forgiven
//!                                        │              └ wrong: card.refused, five at most
//!                                        └ killed here: it stays counted
//! ```

use std::sync::Arc;

use axum::Json as Answer;
use axum::extract::{Extension, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;
use uuid::Uuid;

use super::super::access::Scope;
use super::super::extract::{IdempotencyKey, Json, Segment};
use super::super::pins::{Judgement, Pin, never_kept};
use super::super::principal::Principal;
use super::super::problem::Problem;
use super::super::state::Shared;
use super::card_records::{not_known, number};
use super::card_standing::{reason, refused, replayed, who};
use super::{counter, operators};
use crate::card::counter::Deal;
use crate::card::purse::Refusal;
use crate::clock::UtcMillis;
use crate::event::card::{CardRefused, PIN_LOCKED, PIN_WRONG};
use crate::event::ledger::{CardStanding, PinChange};
use crate::event::{NewEvent, Text};
use crate::ident::{CardNo, DeviceId, OperatorId};
use crate::store::card_pins::{CardPinOp, PinDeed};
use crate::store::ledger_cards::By;
use crate::store::requests::{NewRequest, RequestOp, RequestState};
use crate::store::{Batch, Op, StoreError};

/// Kind of the request row that keeps the idempotency key.
const PIN: &str = "card.pin";
/// Wrong ones in a row after which only a new PIN helps. With six digits nobody guesses in five.
const MOST_WRONG: u32 = 5;

/// Sets, changes or removes a card's PIN.
#[derive(Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PinWish {
    /// The new PIN: 6 to 12 digits, no plain run. Never kept in clear.
    #[serde(default, skip_serializing_if = "never_kept")]
    #[schema(value_type = Option<String>)]
    new_pin: Option<Pin>,
    /// The card shall have none any more.
    #[serde(default)]
    remove: bool,
    /// The PIN up to now. Whoever has the scope `issue` needs none (the customer has forgotten it,
    /// and has shown who it is).
    #[serde(default, skip_serializing_if = "never_kept")]
    #[schema(value_type = Option<String>)]
    pin: Option<Pin>,
    /// For the record, 1 to 200 characters. No names, no telephone numbers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// Who does it, at the control socket; elsewhere it is who is logged in, whatever stands here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    operator: Option<OperatorId>,
}

/// What was done.
#[derive(Serialize, ToSchema)]
pub(super) struct PinView {
    /// The card.
    #[schema(value_type = String)]
    card_no: CardNo,
    /// `set`, `changed` or `removed`.
    #[schema(value_type = String)]
    pin: PinChange,
    /// Who did it.
    operator: String,
    /// Where.
    #[schema(value_type = String)]
    till: DeviceId,
    /// When.
    #[schema(value_type = String, format = "date-time")]
    at: UtcMillis,
}

/// Sets, changes or removes a card's PIN, without the card. A new one unlocks.
#[utoipa::path(post, operation_id = "set_card_pin", path = "/v1/cards/{card_no}/pin", tag = "cards", request_body = PinWish,
    params(("card_no" = String, Path, description = "Card number"),
        ("Idempotency-Key" = Option<String>, Header, description = "The same key gives the same answer and no second effect")),
    responses((status = 200, description = "Done", body = PinView),
        (status = 403, description = "`pin-wrong`, `pin-locked`", body = Object),
        (status = 404, description = "`card-not-known`: it was never seen at this store", body = Object),
        (status = 409, description = "`card-replaced`, `card-returned`, `pin-not-set`, `issued-elsewhere`", body = Object)))]
pub(super) async fn set(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Principal>,
    card_no: Segment,
    IdempotencyKey(key): IdempotencyKey,
    Json(mut wish): Json<PinWish>,
) -> Result<Response, Problem> {
    let (card_no, by) = (number(&card_no)?, who(&caller, wish.operator.as_ref())?);
    let (new_pin, pin, because) = (wish.new_pin.take(), wish.pin.take(), reason(wish.reason.clone())?);
    if new_pin.is_some() == wish.remove {
        return Err(counter::invalid(
            "new_pin",
            "请给出 new_pin 或 remove: true",
            "give a `new_pin`, or `remove: true`",
        ));
    }
    let store = &shared.context.store;
    let request = key.map(|key| NewRequest {
        id: Uuid::now_v7(),
        kind: PIN,
        target: card_no.to_string(),
        scope: caller.key_scope(),
        idempotency_key: Some(key),
        body: json!(wish),
    });
    if let Some(new) = request.clone()
        && let Some(earlier) = store.read(move |r| r.repeated(&new)).await?
    {
        return again(&shared, earlier, &card_no, new_pin, typist(&shared, &caller, by)).await;
    }
    let wanted = card_no.clone();
    let (row, has_one) =
        store.read(move |r| Ok((r.member_card(&wanted)?, r.card_pin(&wanted)?.is_some()))).await?;
    let row = row.ok_or_else(|| not_known(card_no.as_str()))?;
    match row.status {
        CardStanding::Replaced => return Err(refused(Refusal::CardReplaced)),
        CardStanding::Returned => return Err(refused(Refusal::CardReturned)),
        CardStanding::Active | CardStanding::Blocked | CardStanding::Lost => {}
    }
    // Set here it would be another one than the holder's, known to nobody else.
    if !has_one && row.seen.issuing_store != shared.shop().store {
        return Err(issued_elsewhere());
    }
    if wish.remove && !has_one {
        return Err(not_set());
    }
    if !caller.may_one_of(&[Scope::Issue]) {
        // Whoever may only sell changes a PIN for the customer who knows it.
        match pin.filter(|_| has_one) {
            Some(pin) => {
                // It may have been removed this moment.
                if !in_turn(&shared, &card_no, pin, typist(&shared, &caller, by.clone())).await? {
                    return Err(not_set());
                }
            }
            None => counter::needs(&caller, &[Scope::Issue])?,
        }
    }
    let typed = new_pin.clone();
    let (deed, change) = match new_pin {
        Some(new_pin) => {
            let change = if has_one { PinChange::Changed } else { PinChange::Set };
            (PinDeed::Set(operators::hash(&shared, new_pin).await?), change)
        }
        None => (PinDeed::Remove, PinChange::Removed),
    };
    let answer = json!(PinView {
        card_no: card_no.clone(),
        pin: change,
        operator: by.operator.clone(),
        till: by.till.clone(),
        at: UtcMillis::now(),
    });
    let event = row.pin_changed(change, because, by.clone())?;
    let op = CardPinOp { card_no: card_no.clone(), deed };
    let mut batch = Batch::new().op(Op::CardPin(op)).event(event);
    if let Some(new) = request {
        let settle = RequestOp::Settle { id: new.id, state: RequestState::Done, outcome: answer.clone() };
        batch.ops.insert(0, Op::Request(RequestOp::Insert(new)));
        batch = batch.op(Op::Request(settle));
    }
    match store.commit(batch).await {
        Ok(_) => {}
        Err(StoreError::Replayed { request }) => {
            return again(&shared, request, &card_no, typed, typist(&shared, &caller, by)).await;
        }
        Err(error) => return Err(error.into()),
    }
    tracing::info!(operator = by.operator, till = %by.till, ?change, "a card's PIN");
    Ok(Answer(answer).into_response())
}

/// The answer that the key got the first time, where it is the same PIN that is typed: the row of
/// the request has none to compare. Guesses are counted here as everywhere.
async fn again(
    shared: &Arc<Shared>,
    earlier: Uuid,
    card_no: &CardNo,
    new_pin: Option<Pin>,
    by: Typist,
) -> Result<Response, Problem> {
    let same = match new_pin {
        None => true,
        Some(pin) => match attempt(shared, card_no, pin, by).await? {
            Attempt::Right => true,
            Attempt::None | Attempt::Wrong(_) => false,
        },
    };
    if same { replayed(shared, earlier).await } else { Err(StoreError::KeyConflict.into()) }
}

/// Whether the PIN of a deal was typed and right. `false`: the card has none, or the deal takes
/// nothing; the counter says no where one is needed all the same.
pub(super) async fn checked(
    shared: &Arc<Shared>,
    deal: &Deal,
    pin: Option<Pin>,
    reader: &DeviceId,
) -> Result<bool, Problem> {
    if !deal.may_take_value() {
        return Ok(false);
    }
    if let Some(pin) = pin {
        let by = By { operator: deal.by.operator.clone(), till: deal.by.till.clone() };
        let typist = Typist { by, reader: Some(reader.clone()) };
        return in_turn(shared, &deal.card_no, pin, typist).await;
    }
    if !deal.takes_value() {
        return Ok(false);
    }
    let card_no = deal.card_no.clone();
    let has_one = shared.context.store.read(move |r| r.card_pin(&card_no)).await?.is_some();
    if has_one { Err(refused(Refusal::PinNeeded).with_status(StatusCode::FORBIDDEN)) } else { Ok(false) }
}

/// Who has a PIN typed, and at which reader.
struct Typist {
    by: By,
    /// `None` where a PIN is changed at a till without one.
    reader: Option<DeviceId>,
}

/// At the till's own reader, or the only one.
fn typist(shared: &Shared, caller: &Principal, by: By) -> Typist {
    Typist { by, reader: counter::reader_of(shared, caller, None).ok() }
}

/// What came of comparing a typed PIN.
enum Attempt {
    /// It is the card's.
    Right,
    /// The card has none.
    None,
    /// It is not; so many tries are left.
    Wrong(u32),
}

/// Whether it is the card's PIN; `false`: it has none.
async fn in_turn(shared: &Arc<Shared>, card_no: &CardNo, pin: Pin, by: Typist) -> Result<bool, Problem> {
    match attempt(shared, card_no, pin, by).await? {
        Attempt::Right => Ok(true),
        Attempt::None => Ok(false),
        Attempt::Wrong(left) => Err(wrong(left)),
    }
}

/// One hash at a time, to its end: whoever hangs up in the middle has tried.
async fn attempt(shared: &Arc<Shared>, card_no: &CardNo, pin: Pin, by: Typist) -> Result<Attempt, Problem> {
    let Ok(waiting) = Arc::clone(&shared.logins).try_acquire_owned() else {
        return Err(Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "login-busy",
            "同时输入密码的人过多，请稍后重试",
            "too many type a PIN at once; try again in a moment",
        )
        .retry_after(1));
    };
    let (shared, card_no) = (Arc::clone(shared), card_no.clone());
    let task = tokio::spawn(async move {
        let judged = judge(&shared, card_no, pin, by).await;
        drop(waiting);
        judged
    });
    task.await.map_err(|_| Problem::stopping())?
}

async fn judge(
    shared: &Shared,
    card_no: CardNo,
    pin: Pin,
    Typist { by, reader }: Typist,
) -> Result<Attempt, Problem> {
    let _turn = shared.lockout.lock().await;
    let (store, wanted) = (&shared.context.store, card_no.clone());
    let (row, stored) = store.read(move |r| Ok((r.member_card(&wanted)?, r.card_pin(&wanted)?))).await?;
    let Some(stored) = stored else { return Ok(Attempt::None) };
    if stored.wrong >= MOST_WRONG {
        return Err(locked());
    }
    let op = |deed| Batch::new().op(Op::CardPin(CardPinOp { card_no: card_no.clone(), deed }));
    store.commit(op(PinDeed::Try)).await?;
    let judgement = tokio::task::spawn_blocking(move || pin.judge(Some(&stored.hash))).await;
    match judgement.map_err(|_| Problem::stopping())? {
        Judgement::Right => {
            store.commit(op(PinDeed::Right)).await?;
            Ok(Attempt::Right)
        }
        judgement => {
            if judgement == Judgement::Unreadable {
                tracing::error!("a card's PIN hash cannot be read; set a new PIN");
            }
            let left = MOST_WRONG.saturating_sub(stored.wrong + 1);
            metrics::counter!("baygate_card_wrong_pins_total").increment(1);
            tracing::warn!(operator = by.operator, till = %by.till, left, "wrong PIN of a card");
            let (reason, text) =
                if left > 0 { (PIN_WRONG, wrong_text(left)) } else { (PIN_LOCKED, locked_text()) };
            let mut batch = Batch::new();
            if let Some((row, reader)) = row.as_ref().zip(reader) {
                let uid = row.seen.uid.clone();
                let subject = format!("card/{uid}");
                let refused = CardRefused { reader, uid: Some(uid), reason: reason.into(), text };
                let event = NewEvent::now(subject, &refused);
                batch = batch.event(event.map_err(|error| StoreError::Corrupt(error.to_string()))?);
            }
            if let Some(row) = row.filter(|_| left == 0) {
                batch = batch.event(row.pin_changed(PinChange::Locked, None, by)?);
            }
            if !batch.events.is_empty() {
                store.commit(batch).await?;
            }
            if left > 0 { Ok(Attempt::Wrong(left)) } else { Err(locked()) }
        }
    }
}

fn wrong_text(left: u32) -> Text {
    Text::new(
        format!("卡密码错误，什么也没有做。还可以再试 {left} 次"),
        format!("the card's PIN is wrong, and nothing was done; {left} more tries"),
    )
}

fn locked_text() -> Text {
    Text::new(
        "卡密码错误次数过多，已锁定。请核实顾客身份后由有发卡权限的人员重设密码",
        "too many wrong PINs of this card; check who the customer is, then have somebody who may issue cards set a new one",
    )
}

fn wrong(left: u32) -> Problem {
    let Text { zh, en } = wrong_text(left);
    Problem::new(StatusCode::FORBIDDEN, PIN_WRONG, zh, en).with("tries_left", left)
}

fn locked() -> Problem {
    let Text { zh, en } = locked_text();
    Problem::new(StatusCode::FORBIDDEN, PIN_LOCKED, zh, en)
}

fn issued_elsewhere() -> Problem {
    Problem::new(
        StatusCode::CONFLICT,
        "issued-elsewhere",
        "此卡由其他门店发行，密码须在发卡门店设置",
        "another store gave this card out: its PIN is set there",
    )
}

fn not_set() -> Problem {
    Problem::new(StatusCode::CONFLICT, "pin-not-set", "此卡没有设置密码", "this card has no PIN")
}
