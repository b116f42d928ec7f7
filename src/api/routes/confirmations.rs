//! What may not simply be done: it is asked for, a person in the store says yes or no, and
//! only then the device's service does it, once. So far this is clearing a car's codes.
//!
//! Who is a person: whoever speaks through a till's token (somebody stands there) or through
//! the control socket. A script's token may ask and never confirm. Where people have accounts,
//! a till's own token does not confirm either: whoever decides logs in, and the role counts.
//! The till that asked may also confirm: the second step, which shows what will be lost, is
//! what the rule is for.

use std::sync::Arc;

use axum::Json as Answer;
use axum::extract::{Extension, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;
use uuid::Uuid;

use super::super::extract::{IdempotencyKey, Json, Segment, missing};
use super::super::principal::Principal;
use super::super::problem::Problem;
use super::super::state::Shared;
use super::{operator_sessions, requests};
use crate::clock::UtcMillis;
use crate::event::Text;
use crate::event::vehicle::VehicleReport;
use crate::store::confirmations::{ConfirmationOp, KIND, LIFE_MS, in_time};
use crate::store::requests::{NewRequest, RequestOp, RequestRow, RequestState};
use crate::store::{Batch, Op, Reader, StoreError};
use crate::vehicle::clear::{self, Refusal, WHAT};

/// Longest name of a person, in characters.
const NAME_CHARS: usize = 64;

/// What a person decides about.
#[derive(Serialize, ToSchema)]
pub(super) struct ConfirmationView {
    /// Its id.
    #[schema(value_type = String, format = "uuid")]
    id: Uuid,
    /// What is asked, e.g. `vehicle.clear-dtcs`.
    what: String,
    /// The vehicle link.
    link: String,
    /// The visit it is for.
    visit: Value,
    /// `obd` (service 04) or `uds` (service 14).
    method: Value,
    /// `waiting`; `granted` and about to be carried out; `used`; `over`.
    state: &'static str,
    /// How long it is still good.
    expires_in_s: u64,
    /// What will be lost, in Chinese and English.
    #[schema(value_type = Object)]
    will_be_lost: Value,
    /// The codes that will go.
    #[schema(value_type = Vec<String>)]
    codes: Value,
    /// Who asks: a token's id, or `control`.
    asked_by: Value,
    /// When it was asked.
    #[schema(value_type = String, format = "date-time")]
    created_at: UtcMillis,
}

/// What waits for a person.
#[derive(Serialize, ToSchema)]
pub(super) struct ConfirmationList {
    confirmations: Vec<ConfirmationView>,
}

/// A person's word.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Decision {
    /// True: do it. False: do not.
    confirm: bool,
    /// The person's name, for the record; needed for a yes at the control socket, and where there
    /// are no operators. Whoever is logged in is named, whatever was typed.
    #[serde(default)]
    operator: String,
}

impl ConfirmationView {
    fn of(row: RequestRow) -> Self {
        let left_ms = LIFE_MS - (UtcMillis::now().0 - row.created_at.0);
        let member = |name: &str| row.body.get(name).cloned().unwrap_or_default();
        Self {
            id: row.id,
            what: member("what").as_str().unwrap_or_default().to_owned(),
            visit: member("visit"),
            method: member("method"),
            state: match row.state {
                RequestState::Pending => "waiting",
                RequestState::Running => "granted",
                RequestState::Done => "used",
                RequestState::Failed => "over",
            },
            expires_in_s: u64::try_from(left_ms).unwrap_or(0).div_ceil(1000),
            will_be_lost: member("will_be_lost"),
            codes: member("codes"),
            asked_by: member("asked_by"),
            created_at: row.created_at,
            link: row.target,
        }
    }
}

/// Asks that the codes of the car on a link be cleared. Nothing is sent to the car: the answer
/// says what will be lost, and a person in the store confirms it within 120 s.
#[utoipa::path(post, operation_id = "clear_dtcs", path = "/v1/vehicles/{link}/clear-dtcs", tag = "vehicles",
    params(("link" = String, Path, description = "Vehicle link"), ("Idempotency-Key" = Option<String>, Header, description = "The same key gives the same confirmation")),
    responses((status = 202, description = "Waits for a person; follow `Location`", body = ConfirmationView)))]
pub(super) async fn ask(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Principal>,
    link: Segment,
    IdempotencyKey(idempotency_key): IdempotencyKey,
) -> Result<Response, Problem> {
    if !shared.directory().links.iter().any(|known| known.as_str() == link.0) {
        return Err(missing("vehicle link", &link.0));
    }
    let (scope, key, target) = (caller.key_scope(), idempotency_key.clone(), link.0.clone());
    let before = move |r: &Reader<'_>| r.asked_before(&scope, key.as_deref(), &target, WHAT);
    if let Some(row) = shared.context.store.read(before).await? {
        return Ok(waits(row));
    }
    let visits = shared.context.store.read(|r| r.open_visits()).await?;
    let visit = visits.into_iter().find(|visit| visit.link.as_str() == link.0);
    let report = visit.and_then(|visit| visit.report).ok_or(Refusal::NoReport).map_err(refused)?;
    let report: VehicleReport = serde_json::from_str(report.get()).map_err(|_| refused(Refusal::NoReport))?;
    clear::may_ask(&report, UtcMillis::now()).map_err(refused)?;
    let new = NewRequest {
        id: Uuid::now_v7(),
        kind: KIND,
        target: link.0.clone(),
        scope: caller.key_scope(),
        idempotency_key,
        body: json!({
            "what": WHAT,
            "visit": report.visit,
            "report_at": report.started_at,
            "method": clear::way(&report),
            "codes": clear::codes(&report),
            "will_be_lost": clear::what_is_lost(&report),
            "asked_by": caller.key_scope(),
        }),
    };
    let fresh = new.id;
    let id = match shared
        .context
        .store
        .commit(Batch::new().op(Op::Confirmation(ConfirmationOp::Ask(new))))
        .await
    {
        Ok(_) => fresh,
        Err(StoreError::Replayed { request }) => request,
        Err(StoreError::NotFound { .. }) => return Err(already_open()),
        Err(error) => return Err(error.into()),
    };
    let row = shared.context.store.read(move |r| r.request(id)).await?;
    let row = row.ok_or_else(|| missing("confirmation", &id.to_string()))?;
    tracing::info!(%id, link = link.0, "clearing codes waits for a person");
    Ok(waits(row))
}

/// 202 with where it is followed.
fn waits(row: RequestRow) -> Response {
    let location = format!("/v1/requests/{}", row.id);
    (StatusCode::ACCEPTED, [(header::LOCATION, location)], Answer(ConfirmationView::of(row))).into_response()
}

/// What waits for a person's word. What was decided is under `/v1/requests/{id}`.
#[utoipa::path(get, operation_id = "confirmations", path = "/v1/confirmations", tag = "vehicles",
    responses((status = 200, description = "What waits", body = ConfirmationList)))]
pub(super) async fn list(State(shared): State<Arc<Shared>>) -> Result<Answer<ConfirmationList>, Problem> {
    let rows = shared.context.store.read(|r| r.open_requests(KIND, None)).await?;
    if rows.iter().any(|row| !in_time(row)) {
        shared.context.store.commit(Batch::new().op(Op::Confirmation(ConfirmationOp::Sweep))).await?;
    }
    let confirmations = rows.into_iter().filter(in_time).map(ConfirmationView::of).collect();
    Ok(Answer(ConfirmationList { confirmations }))
}

/// A person's yes or no. A yes is carried out once, at once: everything is checked afresh
/// (the same car, engine off, battery) and refused when it does not hold.
#[utoipa::path(post, operation_id = "decide_confirmation", path = "/v1/confirmations/{id}", tag = "vehicles",
    params(("id" = String, Path, description = "Confirmation")), request_body = Decision,
    responses((status = 200, description = "What came of it", body = Object), (status = 202, description = "Not finished; follow `Location`")))]
pub(super) async fn decide(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Principal>,
    confirmation: Segment,
    Json(decision): Json<Decision>,
) -> Result<Response, Problem> {
    let id = confirmation.uuid("confirmation")?;
    let person = caller.person().ok_or_else(no_person)?.to_owned();
    let (row, operators) = shared.context.store.read(move |r| Ok((r.request(id)?, r.operators()?))).await?;
    if caller.till().is_some() && caller.operator().is_none() && !operators.is_empty() {
        return Err(operator_sessions::needed());
    }
    let row = row.filter(|row| row.kind == KIND).ok_or_else(|| missing("confirmation", &confirmation.0))?;
    if row.state != RequestState::Pending || !in_time(&row) {
        return Err(decided_already());
    }
    let operator = named(&caller, &decision)?;
    if !decision.confirm {
        let text = Text::new("操作员已拒绝", "a person in the store said no");
        let outcome = json!({"code": "confirmation-refused", "text": text, "confirmed_by": person, "operator": operator});
        let decline = ConfirmationOp::Decline { id, outcome };
        return match shared.context.store.commit(Batch::new().op(Op::Confirmation(decline))).await {
            Ok(_) => Ok(Answer(json!({"id": id, "state": "refused"})).into_response()),
            // Another's yes was used meanwhile.
            Err(StoreError::NotFound { .. }) => Err(decided_already()),
            Err(error) => Err(error.into()),
        };
    }
    let request = NewRequest {
        id: Uuid::now_v7(),
        kind: WHAT,
        target: row.target.clone(),
        scope: caller.key_scope(),
        idempotency_key: None,
        body: json!({"confirmation": id, "visit": row.body.get("visit")}),
    };
    let request_id = request.id;
    let by =
        json!({"confirmed_by": person, "operator": operator, "at": UtcMillis::now(), "request": request_id});
    let batch = Batch::new()
        .op(Op::Confirmation(ConfirmationOp::Grant { id, by }))
        .op(Op::Request(RequestOp::Insert(request)));
    match shared.context.store.commit(batch).await {
        Ok(_) => {}
        Err(StoreError::NotFound { .. }) => return Err(decided_already()),
        Err(error) => return Err(error.into()),
    }
    tracing::info!(%id, by = person, "confirmed");
    match requests::settled(&shared, request_id).await? {
        None => Ok(requests::accepted(request_id)),
        Some(row) if row.state == RequestState::Failed => Err(not_done(&row)),
        Some(row) => Ok(Answer(row.outcome.unwrap_or_default()).into_response()),
    }
}

/// Who decides, for the record. A no without a name is a no.
fn named(caller: &Principal, decision: &Decision) -> Result<String, Problem> {
    if let Some(operator) = caller.operator() {
        return Ok(format!("{} ({})", operator.name, operator.id));
    }
    let typed = decision.operator.trim();
    let least = usize::from(decision.confirm);
    if (least..=NAME_CHARS).contains(&typed.chars().count()) && !typed.chars().any(char::is_control) {
        return Ok(typed.to_owned());
    }
    Err(Problem::new(
        StatusCode::UNPROCESSABLE_ENTITY,
        "operator-missing",
        "请填写确认人姓名（operator，1 至 64 个字符）",
        "give the name of the person who confirms (`operator`, 1 to 64 characters)",
    ))
}

fn refused(refusal: Refusal) -> Problem {
    let text = refusal.text();
    Problem::new(StatusCode::CONFLICT, refusal.code(), text.zh, text.en)
}

/// What the service would not do is a conflict, as at the question; what it could not do, the device's.
fn not_done(row: &RequestRow) -> Problem {
    let refusals = [
        Refusal::NoReport,
        Refusal::ReportOld,
        Refusal::EngineRuns(0.0),
        Refusal::EngineUnknown,
        Refusal::Moving(0.0),
        Refusal::BatteryLow(0.0),
        Refusal::OtherVisit,
        Refusal::OtherCar,
    ];
    let code = row.outcome.as_ref().and_then(|outcome| outcome.get("code")?.as_str());
    let problem = requests::failure(row);
    if refusals.iter().any(|refusal| Some(refusal.code()) == code) {
        return problem.with_status(StatusCode::CONFLICT);
    }
    problem
}

fn already_open() -> Problem {
    Problem::new(
        StatusCode::CONFLICT,
        "confirmation-open",
        "该车位已有待确认的操作；请先处理（GET /v1/confirmations）或等待其 120 秒后失效",
        "something waits for a confirmation on this link already; decide it (GET /v1/confirmations), or wait until it expires after 120 s",
    )
}

fn decided_already() -> Problem {
    Problem::new(
        StatusCode::CONFLICT,
        "confirmation-over",
        "该确认已处理或已过期；请重新申请",
        "this confirmation was decided already or has expired; ask again",
    )
}

fn no_person() -> Problem {
    Problem::new(
        StatusCode::FORBIDDEN,
        "person-needed",
        "必须由门店人员在收银台或网关本机确认；脚本令牌不能确认",
        "a person in the store must confirm, at a paired till or on the gateway itself; a script's token cannot",
    )
}
