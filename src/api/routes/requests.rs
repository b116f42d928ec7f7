//! Requests that need a device: committed first, then their outcome is waited
//! for. `GET /v1/requests/{id}` follows one that took longer than its caller
//! could wait.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::Value;
use tokio::time::{Instant, timeout_at};
use utoipa::ToSchema;
use uuid::Uuid;

use super::super::extract::{Segment, missing};
use super::super::problem::Problem;
use super::super::state::Shared;
use super::rules_wait::rules_caught_up;
use super::vehicles;
use crate::clock::UtcMillis;
use crate::store::confirmations::KIND;
use crate::store::requests::{NewRequest, RequestOp, RequestRow, RequestState};
use crate::store::{Batch, Op, StoreError};

/// A request that is followed.
#[derive(Serialize, ToSchema)]
pub(super) struct RequestView {
    /// Its id.
    #[schema(value_type = String, format = "uuid")]
    id: Uuid,
    /// What is asked, e.g. `vehicle.scan`.
    kind: String,
    /// The device asked.
    target: String,
    /// `pending`, `running`, `done` or `failed`.
    #[schema(value_type = String)]
    state: RequestState,
    /// What came of it, once settled; a vehicle's report has its `warnings` joined in.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    outcome: Option<Value>,
    /// When it came in.
    #[schema(value_type = String, format = "date-time")]
    created_at: UtcMillis,
}

/// Commits a request; one with a key used before gives the earlier id.
pub(super) async fn commit(shared: &Shared, new: NewRequest) -> Result<Uuid, Problem> {
    let id = new.id;
    match shared.context.store.commit(Batch::new().op(Op::Request(RequestOp::Insert(new)))).await {
        Ok(_) => Ok(id),
        Err(StoreError::Replayed { request }) => Ok(request),
        Err(error) => Err(error.into()),
    }
}

/// Waits for the outcome up to the contract's 10 s; `None` when it is not there yet.
pub(super) async fn settled(shared: &Shared, id: Uuid) -> Result<Option<RequestRow>, Problem> {
    let until = Instant::now() + shared.context.limits.outcome_wait;
    let mut head = shared.context.store.head();
    loop {
        head.borrow_and_update();
        let row = shared.context.store.read(move |r| r.request(id)).await?;
        if let Some(row) = row.filter(|row| row.state.is_settled()) {
            return Ok(Some(row));
        }
        tokio::select! {
            changed = timeout_at(until, head.changed()) => match changed {
                Err(_) => return Ok(None),
                Ok(Err(_)) => return Err(Problem::stopping()),
                Ok(Ok(())) => {}
            },
            // The row stands; the caller follows it after the restart.
            () = shared.stop.cancelled() => return Ok(None),
        }
    }
}

/// 202 with where to look later.
pub(super) fn accepted(id: Uuid) -> Response {
    let location = format!("/v1/requests/{id}");
    let body = serde_json::json!({ "id": id, "state": "pending" });
    (StatusCode::ACCEPTED, [(header::LOCATION, location)], Json(body)).into_response()
}

/// A settled failure as a problem: the service's own code and texts when it gave them.
pub(super) fn failure(row: &RequestRow) -> Problem {
    let outcome = row.outcome.clone().unwrap_or_default();
    let text = |pointer: &str| outcome.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
    let code = text("/code").or_else(|| text("/error")).filter(|code| is_code(code));
    let plain = text("/detail").or_else(|| text("/text")).or_else(|| text("/error"));
    let zh = text("/text/zh").or_else(|| plain.clone());
    let en = text("/text/en").or(plain);
    Problem::new(
        StatusCode::BAD_GATEWAY,
        code.unwrap_or_else(|| "device-failed".into()),
        zh.unwrap_or_else(|| "设备未能完成请求，请检查设备后重试".into()),
        en.unwrap_or_else(|| "the device could not do it; check the device and try again".into()),
    )
    .with("request", row.id.to_string())
}

fn is_code(text: &str) -> bool {
    (1..=40).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

/// A confirmation that was used up stands where its deed stands: that a person said yes is not
/// that it was done.
async fn deed_of(shared: &Shared, confirmation: RequestRow) -> Result<RequestRow, Problem> {
    let deed =
        confirmation.outcome.as_ref().and_then(|outcome| outcome.get("request")?.as_str()?.parse().ok());
    let Some(deed) = deed.filter(|_| confirmation.kind == KIND && confirmation.state == RequestState::Done)
    else {
        return Ok(confirmation);
    };
    Ok(match shared.context.store.read(move |r| r.request(deed)).await? {
        Some(RequestRow { state, outcome, .. }) if state.is_settled() => {
            RequestRow { state, outcome, ..confirmation }
        }
        Some(_) => RequestRow { state: RequestState::Running, ..confirmation },
        None => confirmation,
    })
}

/// Where a request stands. One that waited for a person's word ends with what was then done.
#[utoipa::path(get, path = "/v1/requests/{id}", tag = "requests", params(("id" = String, Path, description = "Request")),
    responses((status = 200, description = "Where it stands", body = RequestView)))]
pub(super) async fn request(
    State(shared): State<Arc<Shared>>,
    request: Segment,
) -> Result<Json<RequestView>, Problem> {
    let id = request.uuid("request")?;
    let row = shared.context.store.read(move |r| r.request(id)).await?;
    let row = deed_of(&shared, row.ok_or_else(|| missing("request", &request.0))?).await?;
    let outcome = match row.outcome {
        Some(report) if row.kind == vehicles::SCAN && row.state == RequestState::Done => {
            rules_caught_up(&shared.context.store).await;
            Some(vehicles::with_warnings(&shared, report).await?)
        }
        other => other,
    };
    let RequestRow { id, kind, target, state, created_at, .. } = row;
    Ok(Json(RequestView { id, kind, target, state, outcome, created_at }))
}
