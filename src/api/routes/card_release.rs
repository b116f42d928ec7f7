//! `POST /v1/cards/{card_no}/release`: a card that is held lies on the reader, a person has compared
//! it, and it is used again. Nothing is written to it (`card::counter`). One that is lost or broken is
//! released by a person's word alone, so that it can be replaced; what is known of it stays.

use std::sync::Arc;

use axum::Json as Answer;
use axum::extract::{Extension, State};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;

use axum::http::StatusCode;
use uuid::Uuid;

use super::super::extract::{IdempotencyKey, Json, Segment};
use super::super::principal::Principal;
use super::super::problem::Problem;
use super::super::state::Shared;
use super::card_records::not_known;
use super::card_standing;
use super::counter::{self, Stand};
use super::purse::card_of;
use crate::card::counter::{By, RELEASE, ReleaseAsked, Why};
use crate::card::purse::Refusal;
use crate::card::purse::release::Content;
use crate::event::ledger::CardStanding;
use crate::ident::{CardNo, OperatorId};
use crate::store::ledger_cards;
use crate::store::requests::{NewRequest, RequestOp, RequestRow, RequestState};
use crate::store::{Batch, Op, Reader, StoreError};

/// A held card is used again.
#[derive(Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ReleaseWish {
    /// What the card is to be taken for, where it does not agree with what is known of it: `shows`
    /// of the refusal `card-differs`, as it stands there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    takes: Option<Content>,
    /// The card cannot be brought: `lost` (it has to be reported so before), or `defect`. Then `reason`
    /// is needed, and no reader is asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    without_card: Option<Why>,
    /// For the record, 1 to 200 characters. No names, no telephone numbers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// Who does it, at the control socket; elsewhere it is who is logged in, whatever stands here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    operator: Option<OperatorId>,
    /// The reader with the card; default: the till's own, or the only one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reader: Option<String>,
    /// Seconds to wait for the card, 1 to 60; default 8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    wait_s: Option<u64>,
}

/// Releases the held card on the reader, or by `without_card` one that cannot be brought. Where it agrees with what is known of it, at once; where it
/// does not, only with what it is to be taken for, and what was open on it is parked.
#[utoipa::path(post, operation_id = "release_card", path = "/v1/cards/{card_no}/release", tag = "cards", request_body = ReleaseWish,
    params(("card_no" = String, Path, description = "Card number"),
        ("Idempotency-Key" = String, Header, description = "A new one for every deed; the same one when asked again")),
    responses((status = 200, description = "Used again: why it was held (`released`), what was `known`, what it `shows`, what `ended` of it", body = Object),
        (status = 202, description = "The card is waited for; ask again with the same key"),
        (status = 409, description = "`card-differs`, with `held`, `known` and `shows`; `card-not-held`, `card-not-lost`, `no-card`, `wrong-card`", body = Object)))]
pub(super) async fn release(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Principal>,
    card: Segment,
    IdempotencyKey(key): IdempotencyKey,
    Json(wish): Json<ReleaseWish>,
) -> Result<Response, Problem> {
    let asked = json!({ "card_no": card.0, "what": "release", "body": wish });
    let by = card_standing::who(&caller, wish.operator.as_ref())?;
    let key = counter::key_of(key)?;
    let id = match (counter::repeated(&shared, &caller, &key, RELEASE, &asked).await?, wish.without_card) {
        (Some(id), _) => id,
        (None, Some(why)) => {
            let new = NewRequest {
                id: Uuid::now_v7(),
                kind: RELEASE,
                target: card.0.clone(),
                scope: caller.key_scope(),
                idempotency_key: Some(key),
                body: json!({ "asked": asked }),
            };
            unseen(&shared, card_of(&card)?, why, wish, by, new).await?
        }
        (None, None) => {
            let ledger_cards::By { operator, till } = by;
            let reader = counter::reader_of(&shared, &caller, wish.reader.as_deref())?;
            let body = ReleaseAsked {
                card_no: card_of(&card)?,
                takes: wish.takes,
                reason: card_standing::reason(wish.reason)?,
                wait_s: wish.wait_s,
                by: By { operator, till },
            };
            counter::commit(&shared, &caller, RELEASE, &reader, Some(key), asked, json!(body)).await?
        }
    };
    let location = format!("/v1/requests/{id}");
    Ok(match counter::stand(&shared, id).await? {
        Stand::TapAgain(refusal) => counter::tap_again(id, refusal, &location),
        Stand::Pending => counter::pending(id, &location),
        Stand::Settled(row) if row.state == RequestState::Failed => return Err(refused(&row)),
        Stand::Settled(row) => Answer(row.outcome.unwrap_or_default()).into_response(),
    })
}

/// Releases a card that cannot be brought; gives the request that says so.
async fn unseen(
    shared: &Shared,
    card_no: CardNo,
    why: Why,
    wish: ReleaseWish,
    by: ledger_cards::By,
    new: NewRequest,
) -> Result<Uuid, Problem> {
    let Some(reason) = card_standing::reason(wish.reason)?.filter(|_| wish.takes.is_none()) else {
        return Err(counter::invalid(
            "without_card",
            "须写明原因（reason），且不能带 takes",
            "it needs a `reason`, and goes without `takes`",
        ));
    };
    let store = &shared.context.store;
    let wanted = card_no.clone();
    let known = move |r: &Reader<'_>| Ok((r.member_card(&wanted)?, r.open_transaction(&wanted)?));
    let (row, open) = store.read(known).await?;
    let row = row.ok_or_else(|| not_known(card_no.as_str()))?;
    let Some(held) = row.held.clone() else { return Err(not_held()) };
    if open.is_some_and(|open| store.hands().have(open.fact.transaction_id)) {
        return Err(card_standing::refused(Refusal::TapAgain));
    }
    if why == Why::Lost && matches!(row.status, CardStanding::Active | CardStanding::Blocked) {
        return Err(not_lost());
    }
    let ledger_cards::By { operator, till } = by.clone();
    let outcome = json!({
        "card_no": card_no, "released": held, "without_card": why, "known": Content::from(&row.seen),
        "reason": reason, "operator": operator, "till": till,
    });
    let id = new.id;
    let settle = RequestOp::Settle { id, state: RequestState::Done, outcome };
    let batch = Batch::new()
        .op(Op::Request(RequestOp::Insert(new)))
        .op(row.let_go())
        .op(Op::Request(settle))
        .event(row.was_let_go(reason, by)?);
    match store.commit(batch).await {
        Ok(_) => {
            tracing::info!(why = held, operator, %till, "held card released without the card");
            Ok(id)
        }
        Err(StoreError::Replayed { request }) => Ok(request),
        Err(error) => Err(error.into()),
    }
}

fn not_held() -> Problem {
    Problem::new(
        StatusCode::CONFLICT,
        "card-not-held",
        "此卡没有被暂停使用，无需解除",
        "this card is not held: there is nothing to release",
    )
}

fn not_lost() -> Problem {
    Problem::new(
        StatusCode::CONFLICT,
        "card-not-lost",
        "此卡没有挂失。请先挂失（block），再解除暂停并补卡；卡坏了的，without_card 用 defect",
        "this card is not reported lost: report it first (block), then release and replace it; of a broken one say `defect`",
    )
}

/// Why not, with what has to be compared.
fn refused(row: &RequestRow) -> Problem {
    let member = |name: &str| row.outcome.as_ref().and_then(|outcome| outcome.get(name)).cloned();
    ["held", "known", "shows"]
        .into_iter()
        .filter_map(|name| Some((name, member(name)?)))
        .fold(counter::failure(row), |problem, (name, value): (&str, Value)| problem.with(name, value))
}
