//! `/v1/readers/{id}/lease`: a till takes a reader for a while, so that two tills never mix.

use std::sync::Arc;
use std::time::Duration;

use axum::Json as Answer;
use axum::extract::{Extension, State};
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use utoipa::ToSchema;

use super::super::extract::{Json, Segment, missing};
use super::super::leases::Lease;
use super::super::principal::Principal;
use super::super::problem::Problem;
use super::super::state::Shared;
use crate::ident::DeviceId;

/// Length of a lease when none is wanted, in seconds.
const USUAL_S: u64 = 60;
/// The longest, in seconds: a till that broke frees its reader after this.
const LONGEST_S: u64 = 300;

/// How long.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct WantedLease {
    /// 1 to 300; 60 when left out. Asked again before its end, the lease goes on.
    seconds: Option<u64>,
}

/// A reader that is taken.
#[derive(Serialize, ToSchema)]
pub(super) struct LeaseView {
    /// The till that has it; absent for a script or the CLI.
    #[serde(skip_serializing_if = "Option::is_none")]
    till: Option<String>,
    /// It ends after this, unless it is renewed.
    expires_in_s: u64,
}

impl LeaseView {
    pub(super) fn of(lease: &Lease, now: Instant) -> Self {
        Self { till: lease.till.clone(), expires_in_s: whole_seconds(lease.left(now)) }
    }
}

fn whole_seconds(left: Duration) -> u64 {
    (left + Duration::from_millis(999)).as_secs()
}

/// Takes a reader, or keeps it for longer. While a till has it, another till gets neither its
/// card nor work done on it; the reader's events go to everybody as ever.
#[utoipa::path(post, operation_id = "take_lease", path = "/v1/readers/{id}/lease", tag = "cards",
    params(("id" = String, Path, description = "Reader")), request_body = WantedLease,
    responses((status = 200, description = "It is the caller's", body = LeaseView)))]
pub(super) async fn take(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Principal>,
    reader: Segment,
    Json(wanted): Json<WantedLease>,
) -> Result<Answer<LeaseView>, Problem> {
    let id = configured(&shared, &reader)?;
    let seconds = wanted.seconds.unwrap_or(USUAL_S);
    if !(1..=LONGEST_S).contains(&seconds) {
        return Err(Problem::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "lease-invalid",
            format!("seconds 须为 1 到 {LONGEST_S}"),
            format!("`seconds` is 1 to {LONGEST_S}"),
        ));
    }
    let (now, length) = (Instant::now(), Duration::from_secs(seconds));
    let taken = shared.leases.take(&id, &caller.key_scope(), caller.till(), length, now);
    taken.map_err(|other| held(&id, &other, now))?;
    Ok(Answer(LeaseView { till: caller.till().map(str::to_owned), expires_in_s: seconds }))
}

/// Gives a reader back.
#[utoipa::path(delete, operation_id = "give_lease_back", path = "/v1/readers/{id}/lease", tag = "cards",
    params(("id" = String, Path, description = "Reader")),
    responses((status = 204, description = "Nobody has it any more")))]
pub(super) async fn give_back(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Principal>,
    reader: Segment,
) -> Result<StatusCode, Problem> {
    let (id, now) = (configured(&shared, &reader)?, Instant::now());
    match shared.leases.give_back(&id, &caller.key_scope(), now) {
        Ok(true) => Ok(StatusCode::NO_CONTENT),
        Ok(false) => Err(missing("lease of reader", id.as_str())),
        Err(other) => Err(held(&id, &other, now)),
    }
}

/// Whether a caller may work with a reader now. Every handler that does asks.
pub(super) fn check(shared: &Shared, reader: &DeviceId, caller: &Principal) -> Result<(), Problem> {
    let now = Instant::now();
    match shared.leases.of(reader, now) {
        Some(lease) if lease.holder != caller.key_scope() => Err(held(reader, &lease, now)),
        _ => Ok(()),
    }
}

fn configured(shared: &Shared, reader: &Segment) -> Result<DeviceId, Problem> {
    let directory = shared.directory();
    let found = directory.readers.iter().find(|entry| entry.id.as_str() == reader.0);
    found.map(|entry| entry.id.clone()).ok_or_else(|| missing("reader", &reader.0))
}

fn held(reader: &DeviceId, lease: &Lease, now: Instant) -> Problem {
    let seconds = whole_seconds(lease.left(now));
    let (zh, en) = match &lease.till {
        Some(till) => (format!("收银台 {till} "), format!("till {till}")),
        None => ("另一程序".to_owned(), "another program".to_owned()),
    };
    Problem::new(
        StatusCode::CONFLICT,
        "reader-leased",
        format!("读卡器 {reader} 正由{zh}使用，最多还需 {seconds} 秒；请等待或使用其他读卡器"),
        format!("reader {reader} is in use by {en} for up to {seconds} s more; wait, or use another reader"),
    )
    .retry_after(seconds)
    .with("till", lease.till.clone())
    .with("expires_in_s", seconds)
}
