//! `POST /v1/visits/{visit}`: what people type in about a visit. The row, the report
//! with the new facts in it, its event and the idempotency key are one commit.
//! What is acceptable is `vehicle::typed`'s.

use std::sync::Arc;

use axum::Json as Answer;
use axum::extract::{Extension, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::value::to_raw_value;
use serde_json::{Value, json};
use utoipa::ToSchema;
use uuid::Uuid;

use super::super::extract::{IdempotencyKey, Json, Segment, missing};
use super::super::principal::Principal;
use super::super::problem::Problem;
use super::super::state::Shared;
use super::vehicles::VisitView;
use crate::clock::UtcMillis;
use crate::event::vehicle::{OdometerSource, Purpose, VehicleReport};
use crate::event::{NewEvent, Text};
use crate::ident::Vin;
use crate::store::requests::{NewRequest, RequestOp, RequestState};
use crate::store::visits::{VisitOp, VisitRow};
use crate::store::{Batch, Op, StoreError};
use crate::vehicle::typed::{self, Entry, Notice, Reading, TypedError};

/// Kind of the request row that keeps the idempotency key.
const TYPE_IN: &str = "visit.type-in";
/// Earlier visits that are looked through for an odometer reading.
const EARLIER: usize = 10;
/// So often may the visit change between its reading and the commit.
const ATTEMPTS: u32 = 8;

/// What is known of the visit. What is absent stays as it was.
#[derive(Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct VisitEntry {
    /// VIN, where the car gives none. One that the car gave cannot be typed over (409).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    vin: Option<String>,
    /// Odometer, kilometres. The car's own reading stays in the report where it gives one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    odometer_km: Option<f64>,
    /// `dashboard` (default) or `order`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    odometer_source: Option<OdometerSource>,
    /// Workshop order, 1 to 64 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    order: Option<String>,
    /// The member's card; only with `consent`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    card_no: Option<String>,
    /// True: the member agrees to be joined to the car. False: no longer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    consent: Option<bool>,
    /// `intake`, `post-repair`, `delivery`, `appraisal`, `test-drive`, `courtesy`, `stock` or `pre-inspection`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    purpose: Option<Purpose>,
}

/// Something odd that was taken nevertheless.
#[derive(Serialize, ToSchema)]
pub(super) struct NoticeView {
    /// `vin-check-digit`, `odometer-went-back`, `odometer-jumped` or `odometer-differs`.
    code: &'static str,
    /// What it may mean.
    #[schema(value_type = Object)]
    text: Text,
}

/// The visit as it stands.
#[derive(Serialize, ToSchema)]
pub(super) struct VisitAnswer {
    /// The visit.
    visit: VisitView,
    /// The member's card that it is joined to.
    #[serde(skip_serializing_if = "Option::is_none")]
    card_no: Option<String>,
    /// What is odd.
    notices: Vec<NoticeView>,
}

/// Adds what people know of a visit: VIN, odometer, order, purpose, member. Where the visit
/// has a report, it goes into the log anew with these facts in it (same `visit`, same
/// `started_at`); else they are in its first report, and in `vehicle.departed`.
#[utoipa::path(post, operation_id = "type_in", path = "/v1/visits/{visit}", tag = "vehicles", request_body = VisitEntry,
    params(("visit" = String, Path, description = "Visit, as in `vehicle.arrived` and `GET /v1/vehicles`"),
        ("Idempotency-Key" = Option<String>, Header, description = "The same key gives the same answer and no second effect")),
    responses((status = 200, description = "The visit as it stands", body = VisitAnswer),
        (status = 409, description = "`vin-conflict`: the car gave another VIN; `visit-over`: it ended without a report")))]
pub(super) async fn type_in(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Principal>,
    visit: Segment,
    IdempotencyKey(idempotency_key): IdempotencyKey,
    Json(entry): Json<VisitEntry>,
) -> Result<Response, Problem> {
    let id = visit.uuid("visit")?;
    let unknown = || missing("visit", &visit.0);
    let request = idempotency_key.map(|key| NewRequest {
        id: Uuid::now_v7(),
        kind: TYPE_IN,
        target: id.to_string(),
        scope: caller.key_scope(),
        idempotency_key: Some(key),
        body: json!(entry),
    });
    // A retry is answered as the first was, before anything is judged anew.
    if let Some(new) = request.clone()
        && let Some(earlier) = shared.context.store.read(move |r| r.repeated(&new)).await?
    {
        return replayed(&shared, earlier).await;
    }
    let entry = Entry::from(entry);
    for _ in 0..ATTEMPTS {
        let row = shared.context.store.read(move |r| r.visit(id)).await?.ok_or_else(unknown)?;
        let (batch, answer) = prepare(&shared, &entry, row, request.clone()).await?;
        if batch.ops.is_empty() {
            return Ok(Answer(answer).into_response());
        }
        match shared.context.store.commit(batch).await {
            Ok(_) => return Ok(Answer(answer).into_response()),
            Err(StoreError::Replayed { request }) => return replayed(&shared, request).await,
            // The car was reported, or somebody else typed something in, in between.
            Err(StoreError::NotFound { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(StoreError::NotFound { what: format!("visit {id}") }.into())
}

/// What is to be committed, and the answer once it is.
async fn prepare(
    shared: &Shared,
    entry: &Entry,
    row: VisitRow,
    request: Option<NewRequest>,
) -> Result<(Batch, Value), Problem> {
    let report = report_of(&row)?;
    let by_car = report
        .as_ref()
        .filter(|report| report.odometer_source.as_deref() == Some(OdometerSource::Obd.as_str()))
        .and_then(|report| report.odometer_km);
    let last = last_reading(shared, entry, &row).await?;
    let (typed, notices) = typed::take(entry, &row, last, by_car, UtcMillis::now()).map_err(refused)?;
    let changed = typed != row.typed;
    let mut batch = Batch::new();
    if let Some(request) = &request {
        batch = batch.op(Op::Request(RequestOp::Insert(request.clone())));
    }
    let mut after = VisitRow { typed, ..row };
    if changed {
        if after.ended_at.is_some() && report.is_none() {
            return Err(over());
        }
        let at = VisitOp::At { visit: after.visit, revision: after.revision };
        batch = batch.op(Op::Visit(at));
        let mut told_anew = None;
        if let Some(mut report) = report {
            typed::put_into(&mut report, &after.typed);
            told_anew = Some(to_raw_value(&report).map_err(unwritable)?);
            let subject = format!("visit/{}", after.visit);
            batch = batch.event(NewEvent::now(subject, &report).map_err(unwritable)?);
        }
        let typed = Box::new(after.typed.clone());
        let type_in = VisitOp::TypeIn { visit: after.visit, typed, report: told_anew.clone() };
        batch = batch.op(Op::Visit(type_in));
        after.report = told_anew.or(after.report);
        if !after.vin_is_read {
            after.vin.clone_from(&after.typed.vin);
        }
    }
    let answer = json!(answer_of(after, &notices));
    if let Some(request) = request {
        let settle = RequestOp::Settle { id: request.id, state: RequestState::Done, outcome: answer.clone() };
        batch = batch.op(Op::Request(settle));
    }
    Ok((batch, answer))
}

fn answer_of(row: VisitRow, notices: &[Notice]) -> VisitAnswer {
    let card_no = row.typed.member.as_ref().map(|(card_no, _)| card_no.to_string());
    let notices = notices.iter().map(|notice| NoticeView { code: notice.code(), text: notice.text() });
    VisitAnswer { card_no, notices: notices.collect(), visit: row.into() }
}

fn report_of(row: &VisitRow) -> Result<Option<VehicleReport>, Problem> {
    let read = |text: &serde_json::value::RawValue| {
        serde_json::from_str(text.get()).map_err(|error| StoreError::Corrupt(error.to_string()).into())
    };
    row.report.as_deref().map(read).transpose()
}

/// The car's latest odometer reading before this visit.
async fn last_reading(shared: &Shared, entry: &Entry, row: &VisitRow) -> Result<Option<Reading>, Problem> {
    let typed = entry.vin.as_deref().and_then(|vin| typed::vin_of(vin).ok());
    let known: Option<Vin> =
        row.vin.clone().filter(|_| row.vin_is_read).or(typed).or_else(|| row.vin.clone());
    let (Some(vin), Some(_)) = (known, entry.odometer_km) else { return Ok(None) };
    let this = row.visit;
    let visits = shared.context.store.read(move |r| r.visits_of(&vin, EARLIER)).await?;
    Ok(visits.iter().filter(|visit| visit.visit != this).find_map(Reading::of))
}

/// The answer that the key got the first time.
async fn replayed(shared: &Shared, request: Uuid) -> Result<Response, Problem> {
    let row = shared.context.store.read(move |r| r.request(request)).await?;
    let outcome = row.and_then(|row| row.outcome);
    let settled = outcome.ok_or_else(|| StoreError::NotFound { what: format!("request {request}") })?;
    Ok(Answer(settled).into_response())
}

fn refused(error: TypedError) -> Problem {
    let status = match error {
        TypedError::VinConflict { .. } => StatusCode::CONFLICT,
        _ => StatusCode::UNPROCESSABLE_ENTITY,
    };
    let text = error.text();
    Problem::new(status, error.code(), text.zh, text.en)
}

fn over() -> Problem {
    Problem::new(
        StatusCode::CONFLICT,
        "visit-over",
        "该车已离开且没有检测报告，无法再补录",
        "the car has left without a report: nothing can be added to this visit",
    )
}

fn unwritable(error: serde_json::Error) -> Problem {
    StoreError::Corrupt(error.to_string()).into()
}

impl From<VisitEntry> for Entry {
    fn from(entry: VisitEntry) -> Self {
        let VisitEntry { vin, odometer_km, odometer_source, order, card_no, consent, purpose } = entry;
        Self { vin, odometer_km, odometer_source, order, card_no, consent, purpose }
    }
}
