//! `/v1/shifts`: a till's shift, opened and closed by whoever is logged in there.

use std::sync::Arc;

use axum::Json as Answer;
use axum::extract::{Extension, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::super::principal::Principal;
use super::super::problem::Problem;
use super::super::state::Shared;
use super::operator_sessions;
use crate::clock::UtcMillis;
use crate::store::shifts::{ShiftOp, ShiftRow, TenderTotal};
use crate::store::{Batch, Op, StoreError};

/// Shifts that are listed, at most.
const LISTED: u32 = 200;

/// What one tender came to.
#[derive(Serialize, ToSchema)]
pub(super) struct TenderView {
    /// `purse`, `points`, `coupon`, `cash`, `wechat`, `alipay` or `bank`.
    tender: String,
    /// Transactions in which it was used.
    count: u64,
    /// Their sum in fen, refunds and voids taken off.
    amount_fen: i64,
}

/// A shift.
#[derive(Serialize, ToSchema)]
pub(super) struct ShiftView {
    /// Its id.
    #[schema(value_type = String, format = "uuid")]
    id: Uuid,
    /// The till.
    till: String,
    /// The operator who opened it.
    opened_by: String,
    /// When.
    #[schema(value_type = String, format = "date-time")]
    opened_at: UtcMillis,
    /// The operator who closed it.
    #[serde(skip_serializing_if = "Option::is_none")]
    closed_by: Option<String>,
    /// When.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = "date-time")]
    closed_at: Option<UtcMillis>,
    /// Per tender, of a closed shift; absent where the gateway keeps no ledger to add up.
    #[serde(skip_serializing_if = "Option::is_none")]
    totals: Option<Vec<TenderView>>,
}

impl From<ShiftRow> for ShiftView {
    fn from(row: ShiftRow) -> Self {
        let ShiftRow { id, till, opened_by, opened_at, closed_by, closed_at, totals, .. } = row;
        let view = |total: TenderTotal| {
            let TenderTotal { tender, count, amount_fen } = total;
            TenderView { tender, count, amount_fen }
        };
        let totals = totals.map(|totals| totals.into_iter().map(view).collect());
        Self { id, till, opened_by, opened_at, closed_by, closed_at, totals }
    }
}

/// Shifts, latest first.
#[derive(Serialize, ToSchema)]
pub(super) struct ShiftList {
    shifts: Vec<ShiftView>,
}

/// The till, and who is logged in there.
fn at_till(caller: &Principal) -> Result<(String, String), Problem> {
    let operator = caller.operator().ok_or_else(operator_sessions::needed)?;
    let till = caller.till().ok_or_else(operator_sessions::needed)?;
    Ok((till.to_owned(), operator.id.to_string()))
}

/// Opens the till's shift.
#[utoipa::path(post, operation_id = "open_shift", path = "/v1/shifts/open", tag = "operators",
    responses((status = 201, description = "The shift", body = ShiftView)))]
pub(super) async fn open(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Principal>,
) -> Result<Response, Problem> {
    let (till, by) = at_till(&caller)?;
    let id = Uuid::now_v7();
    let op = ShiftOp::Open { id, till: till.clone(), by: by.clone() };
    match shared.context.store.commit(Batch::new().op(Op::Shift(op))).await {
        Ok(_) => {}
        Err(StoreError::Exists { .. }) => {
            let open = shared.context.store.read(move |r| r.open_shift(&till)).await?;
            return Err(already_open(open));
        }
        Err(error) => return Err(error.into()),
    }
    tracing::info!(till, operator = by, "shift opened");
    Ok((StatusCode::CREATED, Answer(look(&shared, id).await?)).into_response())
}

/// Closes the till's shift; whoever is logged in there may, not only who opened it.
#[utoipa::path(post, operation_id = "close_shift", path = "/v1/shifts/close", tag = "operators",
    responses((status = 200, description = "The shift with its totals", body = ShiftView)))]
pub(super) async fn close(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Principal>,
) -> Result<Answer<ShiftView>, Problem> {
    let (till, by) = at_till(&caller)?;
    let wanted = till.clone();
    let open = shared.context.store.read(move |r| r.open_shift(&wanted)).await?;
    let id = open.ok_or_else(none_open)?.id;
    let op = ShiftOp::Close { till: till.clone(), by: by.clone() };
    match shared.context.store.commit(Batch::new().op(Op::Shift(op))).await {
        Ok(_) => {}
        Err(StoreError::NotFound { .. }) => return Err(none_open()),
        Err(error) => return Err(error.into()),
    }
    tracing::info!(till, operator = by, "shift closed");
    look(&shared, id).await.map(Answer)
}

/// The shifts of all tills, latest first, at most 200.
#[utoipa::path(get, operation_id = "shifts", path = "/v1/shifts", tag = "operators",
    responses((status = 200, description = "The shifts", body = ShiftList)))]
pub(super) async fn list(State(shared): State<Arc<Shared>>) -> Result<Answer<ShiftList>, Problem> {
    let rows = shared.context.store.read(|r| r.shifts(LISTED)).await?;
    Ok(Answer(ShiftList { shifts: rows.into_iter().map(ShiftView::from).collect() }))
}

async fn look(shared: &Shared, id: Uuid) -> Result<ShiftView, Problem> {
    let row = shared.context.store.read(move |r| r.shift(id)).await?;
    row.map(ShiftView::from).ok_or_else(none_open)
}

fn already_open(open: Option<ShiftRow>) -> Problem {
    let by = open.as_ref().map_or("", |shift| shift.opened_by.as_str());
    Problem::new(
        StatusCode::CONFLICT,
        "shift-open",
        format!("本收银台已有未结班次（由 {by} 开班）；请先结班"),
        format!("this till has an open shift (opened by {by}); close it first"),
    )
    .with("shift", open.as_ref().map(|shift| shift.id.to_string()))
    .with("opened_by", by)
}

fn none_open() -> Problem {
    Problem::new(
        StatusCode::CONFLICT,
        "no-open-shift",
        "本收银台没有未结班次；请先开班（POST /v1/shifts/open）",
        "this till has no open shift; open one first (POST /v1/shifts/open)",
    )
}
