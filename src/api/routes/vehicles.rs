//! `/v1/vehicles`: cars now present, what is known of one, and a scan.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Extension, State};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::{Value, json};
use utoipa::ToSchema;
use uuid::Uuid;

use super::super::extract::{IdempotencyKey, Segment, missing};
use super::super::principal::Principal;
use super::super::problem::Problem;
use super::super::state::Shared;
use super::requests;
use super::rules_wait::rules_caught_up;
use crate::clock::UtcMillis;
use crate::event::device::{DeviceKind, DeviceStatus};
use crate::event::vehicle::{DepartureReason, OdometerSource, Purpose};
use crate::ident::{DeviceId, Vin};
use crate::store::recordings::RecordingFile;
use crate::store::requests::{NewRequest, RequestState};
use crate::store::visits::VisitRow;
use crate::store::{Reader, StoreError};

/// Kind of the request that a vehicle's service takes.
pub(super) const SCAN: &str = "vehicle.scan";
/// Visits told of one car.
const HISTORY: usize = 50;

/// What the last report of a visit says, in short.
#[derive(Serialize, ToSchema)]
pub(super) struct Summary {
    /// Trouble codes over all ECUs.
    dtc_count: usize,
    /// Whether an ECU lights the lamp.
    mil: bool,
    /// False: codes were cleared recently or monitors are incomplete.
    #[serde(skip_serializing_if = "Option::is_none")]
    assessable: Option<bool>,
    /// Odometer, kilometres.
    #[serde(skip_serializing_if = "Option::is_none")]
    odometer_km: Option<f64>,
    /// When the scan began.
    #[serde(skip_serializing_if = "Option::is_none")]
    started_at: Option<String>,
}

/// A visit, going on or over.
#[derive(Serialize, ToSchema)]
pub(super) struct VisitView {
    /// Its id.
    #[schema(value_type = String, format = "uuid")]
    visit: Uuid,
    /// The vehicle link.
    #[schema(value_type = String)]
    link: DeviceId,
    /// The car, when known.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    vin: Option<Vin>,
    /// The VIN was typed in: the car gave none.
    #[serde(skip_serializing_if = "is_false")]
    vin_typed: bool,
    /// A VIN was typed in before the car gave another one, which counts.
    #[serde(skip_serializing_if = "is_false")]
    vin_conflict: bool,
    /// The workshop order, when typed in.
    #[serde(skip_serializing_if = "Option::is_none")]
    order: Option<String>,
    /// Odometer as typed in, kilometres.
    #[serde(skip_serializing_if = "Option::is_none")]
    odometer_km: Option<f64>,
    /// `dashboard` or `order`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    odometer_source: Option<OdometerSource>,
    /// Why the car is here.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    purpose: Option<Purpose>,
    /// A member agreed to be joined to the car.
    #[serde(skip_serializing_if = "is_false")]
    consent: bool,
    /// Protocol, e.g. `iso15765-4-11bit-500k`.
    protocol: String,
    /// When it began.
    #[schema(value_type = String, format = "date-time")]
    started_at: UtcMillis,
    /// When it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = "date-time")]
    ended_at: Option<UtcMillis>,
    /// Why it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    reason: Option<DepartureReason>,
    /// The last report in short; absent while there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    report: Option<Summary>,
}

/// One vehicle link.
#[derive(Serialize, ToSchema)]
pub(super) struct LinkView {
    /// Its id.
    #[schema(value_type = String)]
    link: DeviceId,
    /// `absent`, `starting`, `ready`, `degraded` or `failed`.
    #[schema(value_type = String)]
    state: DeviceStatus,
    /// Stable code of what is wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// What is wrong and what to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
    /// The visit going on.
    #[serde(skip_serializing_if = "Option::is_none")]
    visit: Option<VisitView>,
    /// Warnings that stand for its car (`maintenance.warning` data).
    #[schema(value_type = Vec<Object>)]
    warnings: Vec<Value>,
}

/// All vehicle links.
#[derive(Serialize, ToSchema)]
pub(super) struct LinkList {
    vehicles: Vec<LinkView>,
}

/// What is known of one car.
#[derive(Serialize, ToSchema)]
pub(super) struct CarView {
    /// The car.
    #[schema(value_type = String)]
    vin: Vin,
    /// Its last report in full (contract §5), warnings joined in.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    report: Option<Value>,
    /// Warnings that stand.
    #[schema(value_type = Vec<Object>)]
    warnings: Vec<Value>,
    /// Its visits, newest first, at most 50.
    visits: Vec<VisitView>,
    /// What was heard on the link in the minute before a warning, newest first: files in
    /// `recordings/` of `gateway.data_dir`, for `simulate vehicle --replay`. ELM327 links only.
    recordings: Vec<RecordingView>,
}

/// A file of what was heard.
#[derive(Serialize, ToSchema)]
pub(super) struct RecordingView {
    /// Its name.
    file: String,
    /// In which visit.
    #[schema(value_type = String, format = "uuid")]
    visit: Uuid,
    /// Its size.
    bytes: u64,
    /// When it was written.
    #[schema(value_type = String, format = "date-time")]
    saved_at: UtcMillis,
}

impl From<RecordingFile> for RecordingView {
    fn from(file: RecordingFile) -> Self {
        Self { file: file.file, visit: file.visit, bytes: file.bytes, saved_at: file.saved_at }
    }
}

impl From<VisitRow> for VisitView {
    fn from(row: VisitRow) -> Self {
        let report = row.report.as_ref().and_then(|report| serde_json::from_str(report.get()).ok());
        Self {
            visit: row.visit,
            link: row.link,
            vin_typed: row.vin.is_some() && !row.vin_is_read,
            vin_conflict: row.vin_is_read && row.typed.vin.is_some() && row.typed.vin != row.vin,
            vin: row.vin,
            order: row.typed.order,
            odometer_km: row.typed.odometer_km,
            odometer_source: row.typed.odometer_source,
            purpose: row.typed.purpose,
            consent: row.typed.member.is_some(),
            protocol: row.protocol,
            started_at: row.started_at,
            ended_at: row.ended_at,
            reason: row.reason,
            report: report.as_ref().map(summary),
        }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's form")]
fn is_false(flag: &bool) -> bool {
    !flag
}

fn summary(report: &Value) -> Summary {
    let ecus = report.get("ecus").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let codes = |ecu: &Value| ecu.get("dtcs").and_then(Value::as_array).map_or(0, Vec::len);
    Summary {
        dtc_count: ecus.iter().map(codes).sum(),
        mil: ecus.iter().any(|ecu| ecu.get("mil") == Some(&Value::Bool(true))),
        assessable: report.get("assessable").and_then(Value::as_bool),
        odometer_km: report.get("odometer_km").and_then(Value::as_f64),
        started_at: report.get("started_at").and_then(Value::as_str).map(str::to_owned),
    }
}

/// The VIN, or the visit where there is none: what warnings are kept under.
fn car_of(vin: Option<&str>, visit: &str) -> String {
    vin.map_or_else(|| format!("visit/{visit}"), str::to_owned)
}

fn warnings_of(reader: &Reader<'_>, car: &str) -> Result<Vec<Value>, StoreError> {
    let standing = reader.standing_warnings(car)?;
    standing
        .into_iter()
        .map(|w| serde_json::to_value(w.warning).map_err(|e| StoreError::Corrupt(e.to_string())))
        .collect()
}

/// The vehicle links with the car on each, its last report in short and its warnings.
#[utoipa::path(get, path = "/v1/vehicles", tag = "vehicles", responses((status = 200, description = "The links", body = LinkList)))]
pub(super) async fn vehicles(State(shared): State<Arc<Shared>>) -> Result<Json<LinkList>, Problem> {
    let directory = shared.directory();
    let list = shared.context.store.read(move |r| {
        let (devices, mut visits) = (r.devices(DeviceKind::Link)?, r.open_visits()?);
        let mut vehicles = Vec::new();
        for link in &directory.links {
            let device = devices.iter().find(|device| device.id == *link);
            let visit = visits.iter().position(|visit| visit.link == *link).map(|at| visits.swap_remove(at));
            let car = visit
                .as_ref()
                .map(|visit| car_of(visit.vin.as_ref().map(Vin::as_str), &visit.visit.to_string()));
            vehicles.push(LinkView {
                link: link.clone(),
                state: device.map_or(DeviceStatus::Starting, |device| device.state.state),
                reason: device.and_then(|device| device.state.reason.clone()),
                detail: device.and_then(|device| device.state.detail.clone()),
                visit: visit.map(VisitView::from),
                warnings: car.map_or(Ok(Vec::new()), |car| warnings_of(r, &car))?,
            });
        }
        Ok(LinkList { vehicles })
    });
    Ok(Json(list.await?))
}

/// The last report of a car, its visits and its warnings.
#[utoipa::path(get, path = "/v1/vehicles/{vin}", tag = "vehicles", params(("vin" = String, Path, description = "VIN")),
    responses((status = 200, description = "The car", body = CarView)))]
pub(super) async fn vehicle(
    State(shared): State<Arc<Shared>>,
    vin: Segment,
) -> Result<Json<CarView>, Problem> {
    let unknown = || missing("vehicle", &vin.0);
    let id = Vin::new(vin.0.to_ascii_uppercase()).map_err(|_| unknown())?;
    let wanted = id.clone();
    let (visits, warnings) = shared
        .context
        .store
        .read(move |r| Ok((r.visits_of(&wanted, HISTORY)?, warnings_of(r, wanted.as_str())?)))
        .await?;
    if visits.is_empty() {
        return Err(unknown());
    }
    let recordings = shared.context.store.recordings().await?;
    let ours = |file: &RecordingFile| visits.iter().any(|visit| visit.visit == file.visit);
    let recordings = recordings.into_iter().filter(ours).map(RecordingView::from).collect();
    let last = visits.iter().find_map(|visit| visit.report.as_ref());
    let mut report: Option<Value> = last.and_then(|report| serde_json::from_str(report.get()).ok());
    if let Some(Value::Object(members)) = &mut report {
        members.insert("warnings".into(), json!(warnings));
    }
    let visits = visits.into_iter().map(VisitView::from).collect();
    Ok(Json(CarView { vin: id, report, warnings, visits, recordings }))
}

/// One full read-only report of the car on a link. Waits up to 10 s for it,
/// else 202 with the `Location` to look at later.
#[utoipa::path(post, path = "/v1/vehicles/{link}/scan", tag = "vehicles",
    params(("link" = String, Path, description = "Vehicle link"), ("Idempotency-Key" = Option<String>, Header, description = "The same key gives the same scan")),
    responses((status = 200, description = "The report (contract §5) with `warnings`", body = Object), (status = 202, description = "Not finished; follow `Location`")))]
pub(super) async fn scan(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Principal>,
    link: Segment,
    IdempotencyKey(idempotency_key): IdempotencyKey,
) -> Result<Response, Problem> {
    if !shared.directory().links.iter().any(|known| known.as_str() == link.0) {
        return Err(missing("vehicle link", &link.0));
    }
    let new = NewRequest {
        id: Uuid::now_v7(),
        kind: SCAN,
        target: link.0,
        scope: caller.key_scope(),
        idempotency_key,
        body: json!({}),
    };
    let id = requests::commit(&shared, new).await?;
    match requests::settled(&shared, id).await? {
        None => Ok(requests::accepted(id)),
        Some(row) if row.state == RequestState::Failed => Err(requests::failure(&row)),
        Some(row) => {
            let report = row.outcome.unwrap_or_default();
            rules_caught_up(&shared.context.store).await;
            Ok(Json(with_warnings(&shared, report).await?).into_response())
        }
    }
}

/// Joins the standing warnings into a report.
pub(super) async fn with_warnings(shared: &Shared, mut outcome: Value) -> Result<Value, Problem> {
    // Services settle with the report itself, or with it as a member beside other things.
    let report = match outcome.get("report") {
        Some(Value::Object(_)) => outcome.get_mut("report"),
        _ => Some(&mut outcome),
    };
    if let Some(Value::Object(report)) = report {
        let text = |name: &str| report.get(name).and_then(Value::as_str);
        let car = car_of(text("vin"), text("visit").unwrap_or(""));
        let warnings = shared.context.store.read(move |r| warnings_of(r, &car)).await?;
        report.insert("warnings".into(), json!(warnings));
    }
    Ok(outcome)
}
