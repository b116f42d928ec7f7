//! What every request to the card on a reader has in common: who asks, at which reader, with
//! which key, and the waiting for what comes of it.

use axum::Json;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use tokio::time::{Instant, timeout_at};
use uuid::Uuid;

use super::super::access::Scope;
use super::super::extract::missing;
use super::super::principal::Principal;
use super::super::problem::Problem;
use super::super::state::Shared;
use super::{leases, operator_sessions, requests};
use crate::card::counter::{By, PREPARE};
use crate::card::purse::Refusal;
use crate::config::tables::ReaderRole;
use crate::ident::DeviceId;
use crate::store::ledger::State;
use crate::store::requests::{NewRequest, RequestRow, RequestState};
use crate::store::{Reader, StoreError};

/// Who the ledger will name. At a till somebody has to be logged in; a script's token and the
/// control socket speak for themselves.
pub(super) fn by(caller: &Principal) -> Result<By, Problem> {
    let place = caller.place();
    let operator = match (caller.operator(), caller.till()) {
        (Some(operator), _) => operator.id.to_string(),
        (None, Some(_)) => return Err(operator_sessions::needed()),
        (None, None) => place.clone(),
    };
    // Tills are device ids, and so are `control` and a token's id.
    let till = DeviceId::new(place).map_err(|_| operator_sessions::needed())?;
    Ok(By { operator, till })
}

/// All of these scopes.
pub(super) fn needs(caller: &Principal, scopes: &[Scope]) -> Result<(), Problem> {
    let lacking: Vec<&str> =
        scopes.iter().filter(|scope| !caller.may_one_of(&[**scope])).map(|scope| scope.as_str()).collect();
    if lacking.is_empty() {
        return Ok(());
    }
    Err(Problem::new(
        StatusCode::FORBIDDEN,
        "scope-missing",
        format!("此操作还需要权限 {}；请由有权限的人员办理", lacking.join("、")),
        format!("this also needs the scope {}; have somebody do it who may", lacking.join(" and ")),
    )
    .with("scopes", lacking))
}

/// The reader that is meant: the one named, the till's own, or the only one. No other till has it, and
/// it is not the slot of a SAM, where nobody lays a card.
pub(super) fn reader_of(
    shared: &Shared,
    caller: &Principal,
    named: Option<&str>,
) -> Result<DeviceId, Problem> {
    let directory = shared.directory();
    let readers: Vec<_> = directory.readers.iter().filter(|entry| entry.role == ReaderRole::Card).collect();
    let at_home = || {
        let till = caller.till()?;
        readers.iter().copied().find(|entry| entry.till.as_ref().is_some_and(|home| home.as_str() == till))
    };
    let only = || readers.first().copied().filter(|_| readers.len() == 1);
    let found = match named {
        Some(named) => Some(
            readers
                .iter()
                .copied()
                .find(|entry| entry.id.as_str() == named)
                .ok_or_else(|| missing("reader", named))?,
        ),
        None => at_home().or_else(only),
    };
    let reader = found.map(|entry| entry.id.clone()).ok_or_else(|| {
        Problem::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "reader-needed",
            "请用 reader 指明读卡器（GET /v1/readers）",
            "name the `reader` (GET /v1/readers)",
        )
    })?;
    leases::check(shared, &reader, caller)?;
    Ok(reader)
}

/// What writes to a card needs a key: a repeat after a lost answer must not act twice.
pub(super) fn key_of(key: Option<String>) -> Result<String, Problem> {
    key.ok_or_else(|| {
        Problem::new(
            StatusCode::BAD_REQUEST,
            "idempotency-key-missing",
            "请带上 Idempotency-Key（每次操作一个新的，重试时用同一个）",
            "send an Idempotency-Key: a new one for every deed, the same one when you repeat it",
        )
    })
}

/// The earlier request of this key. What was asked must be the same; who is logged in and at
/// which reader need not.
pub(super) async fn repeated(
    shared: &Shared,
    caller: &Principal,
    key: &str,
    kind: &str,
    asked: &Value,
) -> Result<Option<Uuid>, Problem> {
    let (scope, key) = (caller.key_scope(), key.to_owned());
    let earlier = shared.context.store.read(move |r| r.request_by_key(&scope, &key)).await?;
    match earlier {
        Some(row) if row.kind == kind && row.body.get("asked") == Some(asked) => Ok(Some(row.id)),
        Some(_) => Err(StoreError::KeyConflict.into()),
        None => Ok(None),
    }
}

/// A new request to the card on a reader; its body has beside what is to be done what was asked.
pub(super) async fn commit(
    shared: &Shared,
    caller: &Principal,
    kind: &'static str,
    reader: &DeviceId,
    idempotency_key: Option<String>,
    asked: Value,
    mut body: Value,
) -> Result<Uuid, Problem> {
    if let Value::Object(members) = &mut body {
        members.insert("asked".into(), asked);
    }
    let new = NewRequest {
        id: Uuid::now_v7(),
        kind,
        target: reader.to_string(),
        scope: caller.key_scope(),
        idempotency_key,
        body,
    };
    requests::commit(shared, new).await
}

/// Where a request stands for whoever asked.
pub(super) enum Stand {
    /// Settled.
    Settled(Box<RequestRow>),
    /// Nobody knows until the card is tapped again, or a person has looked at it.
    TapAgain(Refusal),
    /// Still going on.
    Pending,
}

/// Waits until there is something to say, up to the contract's 10 s.
pub(super) async fn stand(shared: &Shared, id: Uuid) -> Result<Stand, Problem> {
    let until = Instant::now() + shared.context.limits.outcome_wait;
    let mut head = shared.context.store.head();
    loop {
        head.borrow_and_update();
        match shared.context.store.read(move |r| look(r, id)).await? {
            Stand::Pending => {}
            stand => return Ok(stand),
        }
        tokio::select! {
            changed = timeout_at(until, head.changed()) => match changed {
                Err(_) => return Ok(Stand::Pending),
                Ok(Err(_)) => return Err(Problem::stopping()),
                Ok(Ok(())) => {}
            },
            () = shared.stop.cancelled() => return Ok(Stand::Pending),
        }
    }
}

/// Where it stands now.
pub(super) fn look(r: &Reader<'_>, id: Uuid) -> Result<Stand, StoreError> {
    let Some(row) = r.request(id)? else {
        return Err(StoreError::NotFound { what: format!("request {id}") });
    };
    if row.state.is_settled() {
        return Ok(Stand::Settled(Box::new(row)));
    }
    match r.transaction_state(id)? {
        Some(State::Unknown) => {
            let card = r.transaction(id)?.map(|row| r.member_card(&row.fact.card_no)).transpose()?.flatten();
            let held = card.is_some_and(|card| card.held.is_some());
            return Ok(Stand::TapAgain(if held { Refusal::CardHeld } else { Refusal::TapAgain }));
        }
        // By an earlier version, which left the request open.
        Some(State::Parked) => return Ok(Stand::Settled(Box::new(row))),
        _ => {}
    }
    // A card that was being issued and left.
    let left = |prepare: &RequestRow| {
        prepare.state == RequestState::Running && prepare.body.get("issue") == Some(&json!(id))
    };
    let waits = row.state == RequestState::Running && r.open_requests(PREPARE, None)?.iter().any(left);
    Ok(if waits { Stand::TapAgain(Refusal::TapAgain) } else { Stand::Pending })
}

/// 202: the card has to come back first, or is held.
pub(super) fn tap_again(id: Uuid, refusal: Refusal, location: &str) -> Response {
    let body = json!({ "id": id, "state": "unknown", "code": refusal.code(), "text": refusal.text() });
    (StatusCode::ACCEPTED, [(header::LOCATION, location.to_owned())], Json(body)).into_response()
}

/// 202: ask again.
pub(super) fn pending(id: Uuid, location: &str) -> Response {
    let body = json!({ "id": id, "state": "pending" });
    (StatusCode::ACCEPTED, [(header::LOCATION, location.to_owned())], Json(body)).into_response()
}

/// Why it was not done, with the status that belongs to it.
pub(super) fn failure(row: &RequestRow) -> Problem {
    let status = row.outcome.as_ref().and_then(|outcome| outcome.get("status")).and_then(Value::as_u64);
    let status = status.and_then(|status| u16::try_from(status).ok());
    let status = status.and_then(|status| StatusCode::from_u16(status).ok());
    requests::failure(row).with_status(status.unwrap_or(StatusCode::CONFLICT))
}

/// A member that cannot be what it should.
pub(super) fn invalid(what: &str, zh: &str, en: &str) -> Problem {
    Problem::new(
        StatusCode::UNPROCESSABLE_ENTITY,
        "request-invalid",
        format!("{what}：{zh}"),
        format!("{what}: {en}"),
    )
}
