//! `POST /v1/cards`: the empty card on a reader becomes a member's; `DELETE /v1/requests/{id}`: it
//! was thrown away in the middle.

use std::sync::Arc;

use axum::extract::{Extension, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::super::extract::{IdempotencyKey, Json, Segment, missing};
use super::super::principal::Principal;
use super::super::problem::Problem;
use super::super::state::Shared;
use super::counter::{self, Stand};
use super::requests::{self, RequestView};
use crate::card::counter::{By, GaveUp, ISSUE, IssueAsked, give_up as end_issue};
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
    /// `named` or `anonymous`; may be left out of a member who was imported.
    #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    card_type: Option<CardType>,
    /// Tier, 0 to 255; default: as imported, else 0, none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tier: Option<u8>,
    /// Discount class of the rules, 0 to 255; default: as imported, else 0, none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    discount_class: Option<u8>,
    /// The last day it is good; default: as imported, else no end.
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

/// What the card is to carry: as it is said, and where nothing is said as the member was imported.
async fn issued_as(
    shared: &Shared,
    card_no: CardNo,
    wanted: &NewCard,
    by: By,
) -> Result<IssueAsked, Problem> {
    let of = card_no.clone();
    let listed = shared.context.store.read(move |r| r.listed_member(&of)).await?;
    let card_type = wanted.card_type.or(listed.map(|member| member.card_type)).ok_or_else(|| {
        counter::invalid(
            "type",
            "须为 named 或 anonymous（此卡号不在导入的会员中）",
            "say named or anonymous: this number was not imported",
        )
    })?;
    let tier = wanted.tier.or(listed.map(|member| member.tier)).unwrap_or_default();
    let class = wanted.discount_class.or(listed.map(|member| member.discount_class));
    let discount_class = class.unwrap_or_default();
    let valid_until = wanted.valid_until.or(listed.and_then(|member| member.valid_until));
    Ok(IssueAsked { card_no, card_type, tier, discount_class, valid_until, wait_s: wanted.wait_s, by })
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
            let body = json!(issued_as(&shared, card_no, &wanted, by).await?);
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

/// Gives up the issue of a card that will not come back. Its number stays with that chip and goes
/// to no other; if the chip comes back whole, it is a member card.
#[utoipa::path(delete, operation_id = "give_up_issue", path = "/v1/requests/{id}", tag = "cards",
    params(("id" = String, Path, description = "The `id` that `POST /v1/cards` answered with, or `request` of a batch's row")),
    responses((status = 200, description = "Over: `outcome` says what came of it, `code` `issue-given-up` or `cancelled`, or what it was settled as before", body = RequestView),
        (status = 409, description = "`card-in-hand`: its card is being written in this moment; `not-cancellable`: it is no issue of a card", body = Object)))]
pub(super) async fn give_up(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Principal>,
    request: Segment,
) -> Result<axum::Json<RequestView>, Problem> {
    let (id, by) = (request.uuid("request")?, counter::by(&caller)?);
    let store = &shared.context.store;
    if store.read(move |r| r.request(id)).await?.is_none() {
        return Err(missing("request", &request.0));
    }
    match end_issue(store, id, &by).await? {
        GaveUp::Over => requests::request(State(shared), request).await,
        GaveUp::InHand => Err(Problem::new(
            StatusCode::CONFLICT,
            "card-in-hand",
            "此卡正在写入，请稍候再放弃",
            "its card is being written in this moment; ask again when it is done",
        )),
        GaveUp::NoIssue => Err(Problem::new(
            StatusCode::CONFLICT,
            "not-cancellable",
            "只有发卡可以放弃",
            "only the issue of a card can be given up",
        )),
    }
}
