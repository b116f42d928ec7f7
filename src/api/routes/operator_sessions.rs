//! `/v1/operator-sessions`: somebody logs in at a till, and out. The PIN is always needed; a
//! card only names who it is, because its UID can be copied.
//!
//! ```text
//!  turn (one at a time) ─► must wait? 429 ─► slow hash ─► wrong: count, commit ─► 403
//!                                                     └─► right: forget wrong ones, commit ─► token
//! ```
//! Nobody is told before the commit: a guess whose answer was seen is counted, also when the
//! power is cut. All of it runs on a task of its own: a caller who hangs up gets no free guess.

use std::sync::Arc;
use std::time::Duration;

use axum::Json as Answer;
use axum::extract::{Extension, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use utoipa::ToSchema;

use super::super::access::Scope;
use super::super::extract::{Json, missing};
use super::super::lockout::Wait;
use super::super::pins::{Judgement, Pin};
use super::super::principal::{self, Principal, SESSION_PREFIX};
use super::super::problem::Problem;
use super::super::roles::Role;
use super::super::state::Shared;
use super::leases;
use crate::ident::OperatorId;
use crate::store::operators::{Deed, NO_ID, OperatorOp, OperatorRow};
use crate::store::{Batch, Op};

/// Who somebody is, and the PIN.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Login {
    /// The operator's id …
    operator: Option<String>,
    /// … or the reader on which the operator's card lies.
    reader: Option<String>,
    /// The PIN; also with a card.
    #[schema(value_type = String)]
    pin: Pin,
}

/// Who is logged in.
#[derive(Serialize, ToSchema)]
pub(super) struct OperatorName {
    /// What the ledger names.
    #[schema(value_type = String)]
    id: OperatorId,
    /// For people.
    name: String,
    /// What somebody is.
    role: Role,
}

/// A session that just began.
#[derive(Serialize, ToSchema)]
pub(super) struct LoggedIn {
    /// The session's token, to be sent in place of the till's; never shown again.
    token: String,
    /// Who is logged in.
    operator: OperatorName,
    /// The till.
    till: String,
    /// What both the till's token and the operator's role allow.
    scopes: Vec<Scope>,
    /// The session ends after so long without a request …
    idle_s: u64,
    /// … and after so long in any case.
    expires_in_s: u64,
}

/// Logs somebody in at the till whose token is sent.
#[utoipa::path(post, operation_id = "log_in", path = "/v1/operator-sessions", tag = "operators", request_body = Login,
    responses((status = 201, description = "The session", body = LoggedIn)))]
pub(super) async fn log_in(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Principal>,
    Json(login): Json<Login>,
) -> Result<Response, Problem> {
    let Principal::Token { sha256, till: Some(till), .. } = &caller else { return Err(no_till()) };
    let id = name(&shared, &caller, &login).await?;
    let Ok(waiting) = Arc::clone(&shared.logins).try_acquire_owned() else {
        return Err(Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "login-busy",
            "同时登录的人过多，请稍后重试",
            "too many log in at once; try again in a moment",
        )
        .retry_after(1));
    };
    let (sha256, till) = (*sha256, till.clone());
    let task = tokio::spawn(async move {
        let outcome = admit(&shared, id, login.pin, sha256, till).await;
        drop(waiting);
        outcome
    });
    let logged_in = task.await.map_err(|_| Problem::stopping())??;
    Ok((StatusCode::CREATED, Answer(logged_in)).into_response())
}

/// The id that was typed, or that the card on the reader names.
async fn name(shared: &Shared, caller: &Principal, login: &Login) -> Result<String, Problem> {
    match (&login.operator, &login.reader) {
        (Some(operator), None) if (1..=32).contains(&operator.len()) => Ok(operator.clone()),
        (None, Some(reader)) => {
            let directory = shared.directory();
            let known = directory.readers.iter().find(|entry| entry.id.as_str() == reader);
            let id = known.ok_or_else(|| missing("reader", reader))?.id.clone();
            leases::check(shared, &id, caller)?;
            let named = shared
                .context
                .store
                .read(move |r| {
                    let card = r.cards_in_field()?.into_iter().find(|card| card.reader == id);
                    card.map(|card| r.operator_of_card(&card.uid)).transpose()
                })
                .await?;
            match named {
                None => Err(Problem::new(
                    StatusCode::CONFLICT,
                    "no-card",
                    "读卡器上没有卡，请放上操作员卡",
                    "no card lies on the reader; put the operator's card there",
                )),
                Some(None) => Err(Problem::new(
                    StatusCode::FORBIDDEN,
                    "not-an-operator-card",
                    "这不是操作员卡；请换卡，或输入操作员编号",
                    "this is no operator's card; use another one, or type the operator's id",
                )),
                Some(Some(id)) => Ok(id),
            }
        }
        _ => Err(Problem::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "login-invalid",
            "请提供 operator（1 到 32 个字符）或 reader 其中之一",
            "give either `operator` (1 to 32 characters) or `reader`",
        )),
    }
}

async fn admit(
    shared: &Shared,
    id: String,
    pin: Pin,
    token: [u8; 32],
    till: String,
) -> Result<LoggedIn, Problem> {
    let mut lockout = shared.lockout.lock().await;
    let (found, id, wrong, granted) = shared
        .context
        .store
        .read(move |r| {
            let found = r.operator(&id)?;
            let id = if found.is_some() { id } else { stranger(id) };
            let wrong = r.wrong_pins(&id)?;
            Ok((found, id, wrong, r.token_by_hash(&token)?))
        })
        .await?;
    let note = |deed| Op::Operator(OperatorOp { operator: id.clone(), place: till.clone(), deed });
    if let Err(wait) = lockout.check(&id, wrong, Instant::now()) {
        // Counted, not written: whoever has to wait could fill the record.
        count("must-wait");
        tracing::warn!(till, operator = id, "login refused: too many wrong PINs");
        return Err(must_wait(wait));
    }
    let stored = found.as_ref().map(|(_, hash)| hash.clone());
    let judgement = tokio::task::spawn_blocking(move || pin.judge(stored.as_ref())).await;
    let judgement = judgement.map_err(|_| Problem::stopping())?;
    let row: OperatorRow = match (judgement, found) {
        (Judgement::Right, Some((row, _))) if row.locked => {
            shared.context.store.commit(Batch::new().op(note(Deed::Refused))).await?;
            count("locked");
            tracing::warn!(till, operator = id, "login refused: operator is locked");
            return Err(locked());
        }
        (Judgement::Right, Some((row, _))) => row,
        (judgement, found) => {
            if judgement == Judgement::Unreadable {
                tracing::error!(operator = id, "the PIN's hash cannot be read; set a new PIN");
            }
            shared.context.store.commit(Batch::new().op(note(Deed::WrongPin))).await?;
            lockout.note(&id, found.is_some(), Instant::now());
            count("wrong-pin");
            tracing::warn!(till, operator = id, wrong = wrong + 1, "login refused: wrong PIN");
            return Err(wrong_pin());
        }
    };
    let role: Role = row.role.parse().map_err(|_| wrong_pin())?;
    let granted = granted.ok_or_else(no_till)?;
    let granted: Vec<Scope> = granted.scopes.iter().filter_map(|scope| scope.parse().ok()).collect();
    let scopes = role.within(&granted);
    if scopes.is_empty() {
        shared.context.store.commit(Batch::new().op(note(Deed::Refused))).await?;
        count("not-here");
        tracing::warn!(till, operator = id, "login refused: the role may do nothing at this till");
        return Err(not_here());
    }
    let (secret, sha256) = principal::mint(SESSION_PREFIX)?;
    shared.context.store.commit(Batch::new().op(note(Deed::Login))).await?;
    lockout.forget(&id);
    shared.sessions.begin(sha256, row.id.clone(), token, Instant::now());
    drop(lockout);
    count("done");
    tracing::info!(till, operator = id, "operator logged in");
    let life = shared.context.limits.session;
    Ok(LoggedIn {
        token: secret,
        operator: OperatorName { id: row.id, name: row.name, role },
        till,
        scopes,
        idle_s: life.idle.as_secs(),
        expires_in_s: life.longest.as_secs(),
    })
}

/// Logs out the person whose session's token is sent.
#[utoipa::path(delete, operation_id = "log_out", path = "/v1/operator-sessions", tag = "operators",
    responses((status = 204, description = "Logged out")))]
pub(super) async fn log_out(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Principal>,
) -> Result<StatusCode, Problem> {
    let Principal::Token { session: Some((operator, session)), .. } = &caller else {
        return Err(needed());
    };
    shared.sessions.end(session);
    let op = OperatorOp { operator: operator.id.to_string(), place: caller.place(), deed: Deed::Logout };
    shared.context.store.commit(Batch::new().op(Op::Operator(op))).await?;
    tracing::info!(operator = %operator.id, till = caller.place(), "operator logged out");
    Ok(StatusCode::NO_CONTENT)
}

/// Nobody is logged in where somebody must be.
pub(super) fn needed() -> Problem {
    Problem::new(
        StatusCode::FORBIDDEN,
        "operator-needed",
        "请先在收银台登录操作员（POST /v1/operator-sessions），并使用登录所得的令牌",
        "an operator must be logged in at the till (POST /v1/operator-sessions); send the session's token",
    )
}

fn count(outcome: &'static str) {
    metrics::counter!("baygate_operator_logins_total", "outcome" => outcome).increment(1);
}

/// Under which name an id that nobody has is counted and recorded: what was typed in the wrong
/// field may be a PIN, and a PIN is never written down.
fn stranger(id: String) -> String {
    let may_be_a_pin = id.len() >= 6 && id.bytes().all(|byte| byte.is_ascii_digit());
    if OperatorId::new(id.as_str()).is_ok() && !may_be_a_pin { id } else { NO_ID.to_owned() }
}

fn wrong_pin() -> Problem {
    Problem::new(
        StatusCode::FORBIDDEN,
        "login-refused",
        "操作员编号或密码错误；多次输错后须等待",
        "operator or PIN is wrong; after several wrong ones there is a wait",
    )
}

fn must_wait(wait: Wait) -> Problem {
    let problem =
        |zh: String, en: String| Problem::new(StatusCode::TOO_MANY_REQUESTS, "too-many-attempts", zh, en);
    match wait {
        Wait::For(left) => {
            let seconds = (left + Duration::from_millis(999)).as_secs();
            problem(
                format!("密码错误次数过多，请 {seconds} 秒后再试，或由管理员执行 baygate operator unlock"),
                format!("too many wrong PINs; try again in {seconds} s, or have it unlocked: `baygate operator unlock`"),
            )
            .retry_after(seconds)
        }
        Wait::Unlocking => problem(
            "密码错误次数过多，账号已停用，请由管理员执行 baygate operator unlock".into(),
            "too many wrong PINs; only unlocking helps: `baygate operator unlock`".into(),
        ),
    }
}

fn not_here() -> Problem {
    Problem::new(
        StatusCode::FORBIDDEN,
        "role-not-at-this-till",
        "该岗位在此收银台没有任何权限；请换一台收银台，或由管理员更改岗位或重新配对收银台",
        "this role may do nothing at this till; use another till, or have the role or the till's pairing changed",
    )
}

fn locked() -> Problem {
    Problem::new(
        StatusCode::FORBIDDEN,
        "operator-locked",
        "该操作员账号已被锁定，请联系管理员（baygate operator unlock）",
        "this operator is locked; ask an administrator (`baygate operator unlock`)",
    )
}

fn no_till() -> Problem {
    Problem::new(
        StatusCode::FORBIDDEN,
        "till-needed",
        "只能在已配对的收银台上登录；脚本令牌和控制接口不能登录操作员",
        "people log in at a paired till; a script's token or the control socket will not do",
    )
}
