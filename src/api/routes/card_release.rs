//! `POST /v1/cards/{card_no}/release`: a card that is held lies on the reader, a person has compared
//! it, and it is used again. Nothing is written to it (`card::counter`).

use std::sync::Arc;

use axum::Json as Answer;
use axum::extract::{Extension, State};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::super::extract::{IdempotencyKey, Json, Segment};
use super::super::principal::Principal;
use super::super::problem::Problem;
use super::super::state::Shared;
use super::card_standing;
use super::counter::{self, Stand};
use super::purse::card_of;
use crate::card::counter::{By, RELEASE, ReleaseAsked};
use crate::card::purse::release::Content;
use crate::ident::OperatorId;
use crate::store::ledger_cards;
use crate::store::requests::{RequestRow, RequestState};

/// A held card is used again.
#[derive(Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ReleaseWish {
    /// What the card is to be taken for, where it does not agree with what is known of it: `shows`
    /// of the refusal `card-differs`, as it stands there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    takes: Option<Content>,
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

/// Releases the held card on the reader. Where it agrees with what is known of it, at once; where it
/// does not, only with what it is to be taken for, and what was open on it is parked.
#[utoipa::path(post, operation_id = "release_card", path = "/v1/cards/{card_no}/release", tag = "cards", request_body = ReleaseWish,
    params(("card_no" = String, Path, description = "Card number"),
        ("Idempotency-Key" = String, Header, description = "A new one for every deed; the same one when asked again")),
    responses((status = 200, description = "Used again: why it was held (`released`), what was `known`, what it `shows`, what `ended` of it", body = Object),
        (status = 202, description = "The card is waited for; ask again with the same key"),
        (status = 409, description = "`card-differs`, with `held`, `known` and `shows`; `card-not-held`, `no-card`, `wrong-card`", body = Object)))]
pub(super) async fn release(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Principal>,
    card: Segment,
    IdempotencyKey(key): IdempotencyKey,
    Json(wish): Json<ReleaseWish>,
) -> Result<Response, Problem> {
    let asked = json!({ "card_no": card.0, "what": "release", "body": wish });
    let ledger_cards::By { operator, till } = card_standing::who(&caller, wish.operator.as_ref())?;
    let key = counter::key_of(key)?;
    let id = match counter::repeated(&shared, &caller, &key, RELEASE, &asked).await? {
        Some(id) => id,
        None => {
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

/// Why not, with what has to be compared.
fn refused(row: &RequestRow) -> Problem {
    let member = |name: &str| row.outcome.as_ref().and_then(|outcome| outcome.get(name)).cloned();
    ["held", "known", "shows"]
        .into_iter()
        .filter_map(|name| Some((name, member(name)?)))
        .fold(counter::failure(row), |problem, (name, value): (&str, Value)| problem.with(name, value))
}
