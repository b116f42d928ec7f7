//! `/v1/pairings`: a till gets its token by a six-digit code. The rules are in
//! `pairing`; here are the random code, the commit and the answers.

use std::sync::Arc;

use axum::Json as Answer;
use axum::extract::{Extension, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use utoipa::ToSchema;
use uuid::Uuid;

use super::super::access::Scope;
use super::super::extract::{Json, Segment, missing};
use super::super::pairing::{Code, Grant, LIFE, Occupied, PairingState, Refusal};
use super::super::principal::{self, Peer};
use super::super::problem::Problem;
use super::super::state::Shared;
use super::tokens;

/// Which till, and what it may do.
#[derive(Deserialize, ToSchema)]
pub(super) struct NewPairing {
    /// A configured till.
    till: String,
    /// What its token may do; never `admin`.
    scopes: Vec<Scope>,
}

/// An open pairing.
#[derive(Serialize, ToSchema)]
pub(super) struct OpenPairing {
    /// Its id.
    #[schema(value_type = String, format = "uuid")]
    id: Uuid,
    /// Six digits, to be typed at the till.
    code: String,
    /// How long it is good.
    expires_in_s: u64,
    /// With `tls = "auto"`: SHA-256 of the gateway's CA, to compare with what the till shows.
    #[serde(skip_serializing_if = "Option::is_none")]
    ca_sha256: Option<String>,
}

/// Where a pairing stands.
#[derive(Serialize, ToSchema)]
pub(super) struct PairingView {
    /// Its id.
    #[schema(value_type = String, format = "uuid")]
    id: Uuid,
    /// Its state.
    state: PairingState,
    /// How long it may still take.
    expires_in_s: u64,
    /// Wrong codes it still bears.
    attempts_left: u32,
}

/// The code as typed.
#[derive(Deserialize, ToSchema)]
pub(super) struct TypedCode {
    /// Six digits.
    code: String,
}

/// What a till gets.
#[derive(Serialize, ToSchema)]
pub(super) struct Redeemed {
    /// Token id.
    #[schema(value_type = String, format = "uuid")]
    id: Uuid,
    /// The token; never shown again.
    token: String,
    /// The till.
    till: String,
    /// What the token may do.
    scopes: Vec<Scope>,
    /// With `tls = "auto"`: the gateway's CA, PEM, to be trusted from now on.
    #[serde(skip_serializing_if = "Option::is_none")]
    ca_pem: Option<String>,
    /// Its SHA-256, upper-case hex.
    #[serde(skip_serializing_if = "Option::is_none")]
    ca_sha256: Option<String>,
}

/// Opens a pairing: one at a time, 120 s, five attempts.
#[utoipa::path(post, operation_id = "open_pairing", path = "/v1/pairings", tag = "tokens", request_body = NewPairing,
    responses((status = 201, description = "Open", body = OpenPairing)))]
pub(super) async fn open(
    State(shared): State<Arc<Shared>>,
    Json(wanted): Json<NewPairing>,
) -> Result<Response, Problem> {
    if wanted.scopes.is_empty() || wanted.scopes.contains(&Scope::Admin) {
        return Err(Problem::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "scopes-invalid",
            "收银台至少需要一个权限，且不能是 admin",
            "a till needs at least one scope, and never admin",
        ));
    }
    if !shared.directory().tills.iter().any(|till| till.as_str() == wanted.till) {
        return Err(missing("till", &wanted.till));
    }
    let code = Code::from_number(draw_number()?);
    let id = Uuid::now_v7();
    let grant = Grant { id, till: wanted.till, scopes: wanted.scopes };
    let mut pairings = shared.pairings.lock().await;
    pairings.open(grant, code.clone(), Instant::now()).map_err(occupied)?;
    drop(pairings);
    tracing::info!(%id, "pairing open");
    let ca_sha256 = shared.authority.as_ref().map(|authority| authority.fingerprint.clone());
    let opened = OpenPairing { id, code: code.reveal(), expires_in_s: LIFE.as_secs(), ca_sha256 };
    Ok((StatusCode::CREATED, Answer(opened)).into_response())
}

/// Even from 0 to 999 999: numbers above the last whole million are drawn again.
fn draw_number() -> Result<u32, Problem> {
    const WHOLE: u32 = u32::MAX - u32::MAX % 1_000_000;
    loop {
        let number = getrandom::u32().map_err(|error| principal::no_randomness(&error))?;
        if number < WHOLE {
            return Ok(number % 1_000_000);
        }
    }
}

fn occupied(open: Occupied) -> Problem {
    let left = open.left.as_secs() + 1;
    Problem::new(
        StatusCode::CONFLICT,
        "pairing-open",
        format!("已有一个配对正在进行，请在 {left} 秒内完成，或用 DELETE /v1/pairings/{} 取消", open.id),
        format!(
            "another pairing is open for {left} s; finish it, or take it back with DELETE /v1/pairings/{}",
            open.id
        ),
    )
    .retry_after(left)
    .with("pairing", open.id.to_string())
}

/// Gives the till its token.
#[utoipa::path(post, operation_id = "redeem_pairing", path = "/v1/pairings/redeem", tag = "tokens", request_body = TypedCode,
    responses((status = 200, description = "The till's token", body = Redeemed)))]
pub(super) async fn redeem(
    State(shared): State<Arc<Shared>>,
    Extension(peer): Extension<Peer>,
    Json(typed): Json<TypedCode>,
) -> Result<Answer<Redeemed>, Problem> {
    // Held over the commit: a second till with the same code must not get in between.
    let mut pairings = shared.pairings.lock().await;
    let grant = pairings.redeem(typed.code.trim(), peer.source(), Instant::now()).map_err(refused)?;
    let till = grant.till.clone();
    let made = tokens::make(&shared, Uuid::now_v7(), till.clone(), grant.scopes, Some(till.clone())).await;
    let made = made.inspect_err(|_| pairings.reopen(grant.id))?;
    drop(pairings);
    let authority = shared.authority.as_ref();
    Ok(Answer(Redeemed {
        id: made.id,
        token: made.token,
        till,
        scopes: made.scopes,
        ca_pem: authority.map(|authority| authority.pem.clone()),
        ca_sha256: authority.map(|authority| authority.fingerprint.clone()),
    }))
}

fn refused(refusal: Refusal) -> Problem {
    metrics::counter!("baygate_api_pairing_failures_total").increment(1);
    match refusal {
        Refusal::NoneOpen => Problem::new(
            StatusCode::FORBIDDEN,
            "no-open-pairing",
            "没有进行中的配对（可能已过期）：请在网关上重新运行 baygate pair",
            "no pairing is open (it may have expired): run `baygate pair` on the gateway again",
        ),
        Refusal::Wrong { left } => Problem::new(
            StatusCode::FORBIDDEN,
            "code-wrong",
            format!("配对码错误，还可尝试 {left} 次"),
            format!("the code is wrong; {left} attempts left"),
        )
        .with("attempts_left", left),
        Refusal::TooMany { wait } => Problem::new(
            StatusCode::TOO_MANY_REQUESTS,
            "too-many-attempts",
            format!("此地址的错误次数过多，请 {} 秒后再试", wait.as_secs() + 1),
            format!("too many wrong codes from this address; try again in {} s", wait.as_secs() + 1),
        )
        .retry_after(wait.as_secs() + 1),
    }
}

/// Where a pairing stands.
#[utoipa::path(get, operation_id = "get_pairing", path = "/v1/pairings/{id}", tag = "tokens", params(("id" = String, Path, description = "Pairing")),
    responses((status = 200, description = "Its state", body = PairingView)))]
pub(super) async fn look(
    State(shared): State<Arc<Shared>>,
    pairing: Segment,
) -> Result<Answer<PairingView>, Problem> {
    let id = pairing.uuid("pairing")?;
    let found = shared.pairings.lock().await.look(id, Instant::now());
    let (state, left, attempts_left) = found.ok_or_else(|| missing("pairing", &pairing.0))?;
    let expires_in_s = left.as_secs_f64().ceil() as u64;
    Ok(Answer(PairingView { id, state, expires_in_s, attempts_left }))
}

/// Takes an open pairing back.
#[utoipa::path(delete, operation_id = "cancel_pairing", path = "/v1/pairings/{id}", tag = "tokens", params(("id" = String, Path, description = "Pairing")),
    responses((status = 204, description = "Taken back")))]
pub(super) async fn cancel(
    State(shared): State<Arc<Shared>>,
    pairing: Segment,
) -> Result<StatusCode, Problem> {
    let id = pairing.uuid("pairing")?;
    if shared.pairings.lock().await.cancel(id, Instant::now()) {
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(missing("open pairing", &pairing.0))
    }
}
