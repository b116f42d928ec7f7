//! `POST /v1/cards/{card_no}/block` and `/unblock`: a card is reported lost or stopped by the
//! house, and taken into use again, without the card. The ledger's event, the store's row and the
//! idempotency key are one commit; the next tap of the card meets it (`card::stops`).

use std::sync::Arc;

use axum::Json as Answer;
use axum::extract::{Extension, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;
use uuid::Uuid;

use super::super::extract::{IdempotencyKey, Json, Segment};
use super::super::principal::Principal;
use super::super::problem::Problem;
use super::super::state::Shared;
use super::card_records::{not_known, number};
use super::operator_sessions;
use crate::card::purse::Refusal;
use crate::card::purse::policy::may_report_lost;
use crate::clock::UtcMillis;
use crate::config::purse::PurseTable;
use crate::event::ledger::{CardStanding, CardType};
use crate::ident::{CardNo, DeviceId, OperatorId};
use crate::store::card_reports;
use crate::store::ledger_cards::{By, CardRow};
use crate::store::requests::{NewRequest, RequestOp, RequestState};
use crate::store::{Batch, Op, StoreError};

/// Kinds of the request rows that keep the idempotency keys.
const BLOCK: &str = "card.block";
const UNBLOCK: &str = "card.unblock";
/// So often may the card's standing change between its reading and the commit.
const ATTEMPTS: u32 = 8;
/// Of a reason.
const REASON_CHARS: usize = 200;

/// As what a card is blocked.
#[derive(Debug, Clone, Copy, Default, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum BlockAs {
    /// Its holder reported it lost; only cards whose type allows a loss report.
    #[default]
    Lost,
    /// The house stops it, whatever its type.
    Blocked,
}

impl BlockAs {
    fn standing(self) -> CardStanding {
        match self {
            Self::Lost => CardStanding::Lost,
            Self::Blocked => CardStanding::Blocked,
        }
    }
}

/// Blocks a card.
#[derive(Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct BlockWish {
    /// `lost` (default) or `blocked`.
    #[serde(default, rename = "as")]
    block_as: BlockAs,
    /// For the record, 1 to 200 characters. No names, no telephone numbers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// Who does it, at the control socket; elsewhere it is who is logged in, whatever stands here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    operator: Option<OperatorId>,
}

/// Takes a blocked card into use again.
#[derive(Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct UnblockWish {
    /// For the record, 1 to 200 characters. No names, no telephone numbers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// Who does it, at the control socket; elsewhere it is who is logged in, whatever stands here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    operator: Option<OperatorId>,
}

/// How the card stands now.
#[derive(Serialize, ToSchema)]
pub(super) struct StandingView {
    /// The card.
    #[schema(value_type = String)]
    card_no: CardNo,
    /// `active`, `blocked` or `lost`.
    #[schema(value_type = String)]
    status: CardStanding,
    /// As it stood before.
    #[schema(value_type = String)]
    was: CardStanding,
    /// Whether this store ever saw the card. If not, check the number: nothing else can.
    seen: bool,
    /// As given.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// Who did it.
    operator: String,
    /// Where.
    #[schema(value_type = String)]
    till: DeviceId,
    /// When.
    #[schema(value_type = String, format = "date-time")]
    at: UtcMillis,
}

/// Blocks a card: it is refused at its next tap, although what is written on it stays as it is.
#[utoipa::path(post, operation_id = "block_card", path = "/v1/cards/{card_no}/block", tag = "cards", request_body = BlockWish,
    params(("card_no" = String, Path, description = "Card number"),
        ("Idempotency-Key" = Option<String>, Header, description = "The same key gives the same answer and no second effect")),
    responses((status = 200, description = "How it stands", body = StandingView),
        (status = 409, description = "`too-many-reports`, `loss-report-not-allowed`, or the card stands so already: `card-lost`, `card-blocked`, `card-replaced`, `card-returned`", body = Object)))]
pub(super) async fn block(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Principal>,
    card_no: Segment,
    IdempotencyKey(key): IdempotencyKey,
    Json(wish): Json<BlockWish>,
) -> Result<Response, Problem> {
    let change = Change {
        kind: BLOCK,
        card_no: number(&card_no)?,
        to: wish.block_as.standing(),
        by: who(&caller, wish.operator.as_ref())?,
        body: json!(wish),
        reason: reason(wish.reason)?,
    };
    change.make(&shared, &caller, key).await
}

/// Takes a card into use again that was blocked or reported lost here.
#[utoipa::path(post, operation_id = "unblock_card", path = "/v1/cards/{card_no}/unblock", tag = "cards", request_body = UnblockWish,
    params(("card_no" = String, Path, description = "Card number"),
        ("Idempotency-Key" = Option<String>, Header, description = "The same key gives the same answer and no second effect")),
    responses((status = 200, description = "How it stands", body = StandingView),
        (status = 404, description = "`card-not-known`: it was never seen at this store", body = Object),
        (status = 409, description = "`card-not-blocked`, or it never comes back: `card-replaced`, `card-returned`", body = Object)))]
pub(super) async fn unblock(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Principal>,
    card_no: Segment,
    IdempotencyKey(key): IdempotencyKey,
    Json(wish): Json<UnblockWish>,
) -> Result<Response, Problem> {
    let change = Change {
        kind: UNBLOCK,
        card_no: number(&card_no)?,
        to: CardStanding::Active,
        by: who(&caller, wish.operator.as_ref())?,
        body: json!(wish),
        reason: reason(wish.reason)?,
    };
    change.make(&shared, &caller, key).await
}

/// What is to be changed.
struct Change {
    kind: &'static str,
    card_no: CardNo,
    to: CardStanding,
    by: By,
    body: Value,
    reason: Option<String>,
}

impl Change {
    async fn make(
        self,
        shared: &Shared,
        caller: &Principal,
        key: Option<String>,
    ) -> Result<Response, Problem> {
        let store = &shared.context.store;
        let request = key.map(|key| NewRequest {
            id: Uuid::now_v7(),
            kind: self.kind,
            target: self.card_no.to_string(),
            scope: caller.key_scope(),
            idempotency_key: Some(key),
            body: self.body.clone(),
        });
        // A retry is answered as the first was, before anything is judged anew.
        if let Some(new) = request.clone()
            && let Some(earlier) = store.read(move |r| r.repeated(&new)).await?
        {
            return replayed(shared, earlier).await;
        }
        let shop = shared.shop();
        for _ in 0..ATTEMPTS {
            let card_no = self.card_no.clone();
            let (row, report) =
                store.read(move |r| Ok((r.member_card(&card_no)?, r.card_report(&card_no)?))).await?;
            let was = row.as_ref().map(|row| row.status).or(report);
            // One that was never seen is blocked all the same; it may be presented any minute.
            if was.is_none() && self.to == CardStanding::Active {
                return Err(not_known(self.card_no.as_str()));
            }
            let was = was.unwrap_or(CardStanding::Active);
            self.may(was, row.as_ref().map(|row| row.seen.card_type), &shop.rules)?;
            let (batch, answer) = self.batch(row.as_ref(), was, request.as_ref())?;
            match store.commit(batch).await {
                Ok(_) => {
                    // The reason may say more than a log may hold.
                    tracing::info!(
                        what = self.kind, operator = self.by.operator, till = %self.by.till, "card's standing changed"
                    );
                    return Ok(Answer(answer).into_response());
                }
                Err(StoreError::Replayed { request }) => return replayed(shared, request).await,
                // It was changed by somebody else in between.
                Err(StoreError::NotFound { .. }) => {}
                Err(StoreError::LedgerRefused { .. }) => return Err(too_many_reports()),
                Err(error) => return Err(error.into()),
            }
        }
        Err(StoreError::NotFound { what: format!("card {}", self.card_no) }.into())
    }

    /// Whether the card may stand so.
    fn may(&self, was: CardStanding, card_type: Option<CardType>, rules: &PurseTable) -> Result<(), Problem> {
        match (was, self.to) {
            (CardStanding::Replaced, _) => return Err(refused(Refusal::CardReplaced)),
            (CardStanding::Returned, _) => return Err(refused(Refusal::CardReturned)),
            (CardStanding::Active, CardStanding::Active) => return Err(not_blocked()),
            (CardStanding::Lost, CardStanding::Lost) => return Err(refused(Refusal::CardLost)),
            (CardStanding::Blocked, CardStanding::Blocked) => return Err(refused(Refusal::CardBlocked)),
            _ => {}
        }
        match (self.to, card_type) {
            // Of a card that was never seen nobody here knows the type.
            (CardStanding::Lost, Some(card_type)) => may_report_lost(card_type, rules).map_err(refused),
            _ => Ok(()),
        }
    }

    fn batch(
        &self,
        row: Option<&CardRow>,
        was: CardStanding,
        request: Option<&NewRequest>,
    ) -> Result<(Batch, Value), StoreError> {
        let By { operator, till } = self.by.clone();
        let answer = json!(StandingView {
            card_no: self.card_no.clone(),
            status: self.to,
            was,
            seen: row.is_some(),
            reason: self.reason.clone(),
            operator,
            till,
            at: UtcMillis::now(),
        });
        let (reason, by) = (self.reason.clone(), self.by.clone());
        let mut batch = match row {
            Some(row) => row.stands(self.to, reason, by),
            None => card_reports::stands(&self.card_no, was, self.to, reason, by),
        }?;
        if let Some(new) = request {
            let settle = RequestOp::Settle { id: new.id, state: RequestState::Done, outcome: answer.clone() };
            batch.ops.insert(0, Op::Request(RequestOp::Insert(new.clone())));
            batch = batch.op(Op::Request(settle));
        }
        Ok((batch, answer))
    }
}

/// Who does it and where. At a till somebody has to be logged in; a script's token and the control
/// socket speak for themselves, the latter also for the operator it names.
pub(super) fn who(caller: &Principal, typed: Option<&OperatorId>) -> Result<By, Problem> {
    let place = caller.place();
    let operator = match (caller.operator(), caller.till(), typed) {
        (Some(operator), ..) => operator.id.to_string(),
        (None, Some(_), _) => return Err(operator_sessions::needed()),
        (None, None, Some(typed)) if *caller == Principal::Control => typed.to_string(),
        (None, None, _) => place.clone(),
    };
    // Tills are device ids, and so are `control` and a token's id.
    let till = DeviceId::new(place).map_err(|_| operator_sessions::needed())?;
    Ok(By { operator, till })
}

pub(super) fn reason(typed: Option<String>) -> Result<Option<String>, Problem> {
    let Some(reason) = typed else { return Ok(None) };
    if (1..=REASON_CHARS).contains(&reason.chars().count()) && !reason.chars().any(char::is_control) {
        return Ok(Some(reason));
    }
    Err(Problem::new(
        StatusCode::UNPROCESSABLE_ENTITY,
        "reason-invalid",
        format!("原因须为 1 到 {REASON_CHARS} 个字符，不含控制字符"),
        format!("a reason has 1 to {REASON_CHARS} characters and no control characters"),
    ))
}

pub(super) fn refused(refusal: Refusal) -> Problem {
    let text = refusal.text();
    Problem::new(StatusCode::CONFLICT, refusal.code(), text.zh, text.en)
}

fn too_many_reports() -> Problem {
    Problem::new(
        StatusCode::CONFLICT,
        "too-many-reports",
        "本店未见过而被挂失的卡过多。请由总部用黑名单停用",
        "too many cards are reported that this store never saw; have headquarters put it on the hotlist",
    )
}

fn not_blocked() -> Problem {
    Problem::new(
        StatusCode::CONFLICT,
        "card-not-blocked",
        "此卡没有挂失或停用，无需解除",
        "this card is neither blocked nor reported lost: there is nothing to undo",
    )
}

/// The answer that the key got the first time.
pub(super) async fn replayed(shared: &Shared, request: Uuid) -> Result<Response, Problem> {
    let row = shared.context.store.read(move |r| r.request(request)).await?;
    let outcome = row.and_then(|row| row.outcome);
    let settled = outcome.ok_or_else(|| StoreError::NotFound { what: format!("request {request}") })?;
    Ok(Answer(settled).into_response())
}
