//! `/v1/operators`: the accounts of people at the tills, for administrators. Logging in is in
//! `operator_sessions`.

use std::sync::Arc;

use axum::Json as Answer;
use axum::extract::{Extension, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::super::extract::{Json, Params, Segment, missing};
use super::super::pins::Pin;
use super::super::principal::Principal;
use super::super::problem::Problem;
use super::super::roles::Role;
use super::super::state::Shared;
use crate::clock::UtcMillis;
use crate::ident::{CardUid, OperatorId};
use crate::store::operators::{Deed, OperatorLogRow, OperatorOp, OperatorRow, PinHash};
use crate::store::{Batch, Op, StoreError};

/// Lines of the record that one answer holds, at most.
const MOST_LINES: u32 = 1_000;

/// A new account.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewOperator {
    /// What is typed to log in and what the ledger names: 1 to 32 of a-z 0-9 . _ -
    #[schema(value_type = String)]
    id: OperatorId,
    /// For people, 1 to 64 characters.
    name: String,
    /// What somebody is.
    role: Role,
    /// 6 to 12 digits, not all the same and no plain run.
    #[schema(value_type = String)]
    pin: Pin,
    /// UID of a card that names the operator instead of typing the id.
    #[schema(value_type = Option<String>)]
    card: Option<CardUid>,
}

/// What is to change; what is left out stays.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct OperatorChange {
    /// For people, 1 to 64 characters.
    name: Option<String>,
    /// What somebody is.
    role: Option<Role>,
    /// A new PIN; wrong ones are forgotten and sessions end.
    #[schema(value_type = Option<String>)]
    pin: Option<Pin>,
    /// UID of the card that names the operator; `null` takes it away.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<String>)]
    card: Option<Option<CardUid>>,
    /// True: may not log in, sessions end. False: may again, wrong PINs are forgotten.
    locked: Option<bool>,
}

/// Tells `null` from left out.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Option<CardUid>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

/// An operator as listed.
#[derive(Serialize, ToSchema)]
pub(super) struct OperatorView {
    /// What is typed to log in.
    #[schema(value_type = String)]
    id: OperatorId,
    /// For people.
    name: String,
    /// `cashier`, `manager`, `technician` or `admin`.
    role: String,
    /// The card that names the operator.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    card: Option<CardUid>,
    /// May not log in.
    locked: bool,
    /// Wrong PINs since the last right one.
    wrong_pins: u32,
    /// When the account was made.
    #[schema(value_type = String, format = "date-time")]
    created_at: UtcMillis,
}

impl From<OperatorRow> for OperatorView {
    fn from(row: OperatorRow) -> Self {
        let OperatorRow { id, name, role, card, locked, wrong_pins, created_at } = row;
        Self { id, name, role, card, locked, wrong_pins, created_at }
    }
}

/// All operators by id, locked ones included.
#[derive(Serialize, ToSchema)]
pub(super) struct OperatorList {
    operators: Vec<OperatorView>,
}

/// One line of the record.
#[derive(Serialize, ToSchema)]
pub(super) struct OperatorLogLine {
    /// When.
    #[schema(value_type = String, format = "date-time")]
    at: UtcMillis,
    /// `login`, `logout`, `wrong-pin`, `refused`, `added`, `changed`, `pin`, `locked`, `unlocked`.
    what: String,
    /// The id as typed.
    operator: String,
    /// The till, `control`, or the id of a script's token.
    place: String,
}

/// The record, latest first.
#[derive(Serialize, ToSchema)]
pub(super) struct OperatorLog {
    lines: Vec<OperatorLogLine>,
}

/// How much of the record.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Lines {
    /// Lines, 1 to 1000; 100 when left out.
    limit: Option<u32>,
}

/// Makes an account.
#[utoipa::path(post, operation_id = "add_operator", path = "/v1/operators", tag = "operators", request_body = NewOperator,
    responses((status = 201, description = "The operator", body = OperatorView)))]
pub(super) async fn add(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Principal>,
    Json(wanted): Json<NewOperator>,
) -> Result<Response, Problem> {
    check_name(&wanted.name)?;
    let most = shared.context.limits.operators;
    if shared.context.store.read(|r| r.operators()).await?.len() >= most {
        return Err(Problem::new(
            StatusCode::CONFLICT,
            "too-many-operators",
            format!("操作员账号已达上限 {most} 个"),
            format!("there are {most} operators already, the most there may be"),
        ));
    }
    let pin = hash(&shared, wanted.pin).await?;
    let NewOperator { id, name, role, card, .. } = wanted;
    let deed = Deed::Add { name, role: role.as_str(), pin, card };
    let op = OperatorOp { operator: id.to_string(), place: caller.place(), deed };
    shared.context.store.commit(Batch::new().op(Op::Operator(op))).await?;
    shared.lockout.lock().await.forget(id.as_str());
    tracing::info!(operator = %id, role = role.as_str(), by = caller.place(), "operator added");
    let view = look(&shared, id.as_str()).await?;
    Ok((StatusCode::CREATED, Answer(view)).into_response())
}

/// The operators; never a PIN.
#[utoipa::path(get, operation_id = "list_operators", path = "/v1/operators", tag = "operators",
    responses((status = 200, description = "The operators", body = OperatorList)))]
pub(super) async fn list(State(shared): State<Arc<Shared>>) -> Result<Answer<OperatorList>, Problem> {
    let rows = shared.context.store.read(|r| r.operators()).await?;
    Ok(Answer(OperatorList { operators: rows.into_iter().map(OperatorView::from).collect() }))
}

/// Changes an account: name, role, card, PIN, locked or not. Nobody is ever deleted: the ledger
/// names them.
#[utoipa::path(post, operation_id = "change_operator", path = "/v1/operators/{id}", tag = "operators",
    params(("id" = String, Path, description = "Operator")), request_body = OperatorChange,
    responses((status = 200, description = "The operator now", body = OperatorView)))]
pub(super) async fn change(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Principal>,
    operator: Segment,
    Json(wanted): Json<OperatorChange>,
) -> Result<Answer<OperatorView>, Problem> {
    let id = operator.0;
    if let Some(name) = &wanted.name {
        check_name(name)?;
    }
    let OperatorChange { name, role, pin, card, locked } = wanted;
    let mut deeds = Vec::new();
    if name.is_some() || role.is_some() || card.is_some() {
        deeds.push(Deed::Change { name, role: role.map(Role::as_str), card });
    }
    let new_pin = pin.is_some();
    if let Some(pin) = pin {
        deeds.push(Deed::Pin(hash(&shared, pin).await?));
    }
    deeds.extend(locked.map(|locked| if locked { Deed::Lock } else { Deed::Unlock }));
    let op = |deed| Op::Operator(OperatorOp { operator: id.clone(), place: caller.place(), deed });
    let batch = Batch { ops: deeds.into_iter().map(op).collect(), ..Batch::new() };
    let (sessions_end, is_forgiven) = (new_pin || locked == Some(true), new_pin || locked == Some(false));
    // On a task of its own: who hangs up after the commit leaves no session of the old PIN.
    let (all, whose) = (Arc::clone(&shared), id.clone());
    let task = tokio::spawn(async move {
        // Nobody who has read the old hash may begin a session behind the end of all others.
        let mut lockout = all.lockout.lock().await;
        all.context.store.commit(batch).await?;
        if sessions_end {
            all.sessions.end_of(&whose);
        }
        if is_forgiven {
            lockout.forget(&whose);
        }
        Ok::<_, StoreError>(())
    });
    match task.await.map_err(|_| Problem::stopping())? {
        Ok(()) => {}
        Err(StoreError::NotFound { .. }) => return Err(missing("operator", &id)),
        Err(error) => return Err(error.into()),
    }
    tracing::info!(operator = id, by = caller.place(), "operator changed");
    look(&shared, &id).await.map(Answer)
}

/// Who logged in or was refused, and what was changed about operators, latest first.
#[utoipa::path(get, operation_id = "operator_log", path = "/v1/operator-log", tag = "operators", params(Lines),
    responses((status = 200, description = "The record", body = OperatorLog)))]
pub(super) async fn record(
    State(shared): State<Arc<Shared>>,
    Params(lines): Params<Lines>,
) -> Result<Answer<OperatorLog>, Problem> {
    let limit = lines.limit.unwrap_or(100).clamp(1, MOST_LINES);
    let rows = shared.context.store.read(move |r| r.operator_log(limit)).await?;
    let line = |row: OperatorLogRow| {
        let OperatorLogRow { at, what, operator, place } = row;
        OperatorLogLine { at, what, operator, place }
    };
    Ok(Answer(OperatorLog { lines: rows.into_iter().map(line).collect() }))
}

async fn look(shared: &Shared, id: &str) -> Result<OperatorView, Problem> {
    let wanted = id.to_owned();
    let found = shared.context.store.read(move |r| r.operator(&wanted)).await?;
    found.map(|(row, _)| row.into()).ok_or_else(|| missing("operator", id))
}

fn check_name(name: &str) -> Result<(), Problem> {
    if (1..=64).contains(&name.chars().count()) && !name.chars().any(char::is_control) {
        return Ok(());
    }
    Err(Problem::new(
        StatusCode::UNPROCESSABLE_ENTITY,
        "operator-invalid",
        "姓名须为 1 到 64 个字符",
        "a name has 1 to 64 characters",
    ))
}

/// A PIN's hash, in its turn among those who log in.
pub(super) async fn hash(shared: &Shared, pin: Pin) -> Result<PinHash, Problem> {
    if !pin.may_be_chosen() {
        return Err(Problem::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "pin-too-weak",
            "密码须为 6 到 12 位数字，不能全部相同，也不能是 123456 这样的连续数字",
            "a PIN has 6 to 12 digits, not all the same and no plain run such as 123456",
        ));
    }
    let turn = shared.lockout.lock().await;
    let hashed = tokio::task::spawn_blocking(move || pin.hashed()).await;
    drop(turn);
    match hashed {
        Ok(Ok(hashed)) => Ok(hashed),
        Ok(Err(error)) => Err(super::super::principal::no_randomness(&error)),
        Err(_) => Err(Problem::stopping()),
    }
}
