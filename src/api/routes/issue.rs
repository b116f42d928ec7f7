//! `POST /v1/cards`: the empty card on a reader becomes a member's.

use std::sync::Arc;

use axum::extract::{Extension, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::super::extract::{IdempotencyKey, Json};
use super::super::principal::Principal;
use super::super::problem::Problem;
use super::super::state::Shared;
use super::counter::{self, Stand};
use crate::card::counter::{ISSUE, IssueAsked};
use crate::card::record::MAX_CARD_NO_DIGITS;
use crate::event::ledger::CardType;
use crate::ident::CardNo;
use crate::store::requests::RequestState;

/// A card to give out.
#[derive(Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewCard {
    /// The reader with the empty card; default: the till's own, or the only one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reader: Option<String>,
    /// The number on its face: 1 to 16 digits.
    card_no: String,
    /// `named` or `anonymous`.
    #[serde(rename = "type")]
    #[schema(value_type = String)]
    card_type: CardType,
    /// Tier, 0 to 255; default 0, none.
    #[serde(default)]
    tier: u8,
    /// Discount class of the rules, 0 to 255; default 0, none.
    #[serde(default)]
    discount_class: u8,
    /// The last day it is good; default: no end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = "date")]
    valid_until: Option<jiff::civil::Date>,
    /// Seconds to wait for the card, 1 to 60; default 8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    wait_s: Option<u64>,
}

/// A card that was given out.
#[derive(Serialize, ToSchema)]
struct IssuedCard {
    /// Its number.
    card_no: String,
    /// UID, upper-case hex.
    uid: String,
    /// Technology as probed.
    technology: String,
    /// `named` or `anonymous`.
    #[serde(rename = "type")]
    card_type: String,
    /// Who gave it out.
    issuing_store: String,
    /// The last day it is good.
    valid_until: Option<String>,
}

/// Makes the empty card on a reader a member's. A card with foreign keys or data is not touched.
#[utoipa::path(post, operation_id = "issue_card", path = "/v1/cards", tag = "cards", request_body = NewCard,
    params(("Idempotency-Key" = String, Header, description = "A new one for every card; the same one when asked again")),
    responses((status = 201, description = "Given out", body = IssuedCard),
        (status = 202, description = "Not settled: `code` is `tap-again` when the card left; the same key follows it")))]
pub(super) async fn issue(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Principal>,
    IdempotencyKey(key): IdempotencyKey,
    Json(wanted): Json<NewCard>,
) -> Result<Response, Problem> {
    let (key, by, asked) = (counter::key_of(key)?, counter::by(&caller)?, json!(wanted));
    let id = match counter::repeated(&shared, &caller, &key, ISSUE, &asked).await? {
        Some(id) => id,
        None => {
            let reader = counter::reader_of(&shared, &caller, wanted.reader.as_deref())?;
            let digits = wanted.card_no.bytes().all(|byte| byte.is_ascii_digit());
            let card_no = CardNo::new(wanted.card_no.clone()).ok();
            let card_no = card_no.filter(|no| digits && no.as_str().len() <= MAX_CARD_NO_DIGITS);
            let card_no = card_no.ok_or_else(|| {
                counter::invalid(
                    "card_no",
                    "芯片卡的卡号须为 1 到 16 位数字",
                    "a chip card's number is 1 to 16 digits",
                )
            })?;
            let NewCard { card_type, tier, discount_class, valid_until, wait_s, .. } = wanted;
            let body =
                json!(IssueAsked { card_no, card_type, tier, discount_class, valid_until, wait_s, by });
            counter::commit(&shared, &caller, ISSUE, &reader, Some(key), asked, body).await?
        }
    };
    let location = format!("/v1/requests/{id}");
    Ok(match counter::stand(&shared, id).await? {
        Stand::TapAgain(refusal) => counter::tap_again(id, refusal, &location),
        Stand::Pending => counter::pending(id, &location),
        Stand::Settled(row) if row.state == RequestState::Failed => return Err(counter::failure(&row)),
        Stand::Settled(row) => {
            let outcome: Value = row.outcome.clone().unwrap_or_default();
            let card_no = outcome.get("card_no").and_then(Value::as_str).unwrap_or_default();
            let location = [(header::LOCATION, format!("/v1/cards/{card_no}"))];
            (StatusCode::CREATED, location, axum::Json(outcome)).into_response()
        }
    })
}
