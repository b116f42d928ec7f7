//! `/v1/tokens`: made, listed and taken back. A token is shown once, when it is made.

use std::sync::Arc;

use axum::Json as Answer;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::super::access::Scope;
use super::super::extract::{Json, Segment, missing};
use super::super::principal;
use super::super::problem::Problem;
use super::super::state::Shared;
use crate::clock::UtcMillis;
use crate::store::tokens::{TokenOp, TokenRow};
use crate::store::{Batch, Op, StoreError};

/// What is wanted.
#[derive(Deserialize, ToSchema)]
pub(super) struct NewToken {
    /// For people, 1 to 64 characters.
    name: String,
    /// What it may do.
    scopes: Vec<Scope>,
}

/// A token that was just made. It is never shown again.
#[derive(Serialize, ToSchema)]
pub(super) struct MadeToken {
    /// Its id, to take it back.
    #[schema(value_type = String, format = "uuid")]
    pub(super) id: Uuid,
    /// The token itself.
    pub(super) token: String,
    /// For people.
    pub(super) name: String,
    /// What it may do.
    pub(super) scopes: Vec<Scope>,
}

/// A token as listed.
#[derive(Serialize, ToSchema)]
pub(super) struct TokenView {
    /// Its id.
    #[schema(value_type = String, format = "uuid")]
    id: Uuid,
    /// For people.
    name: String,
    /// What it may do.
    scopes: Vec<String>,
    /// The till it is paired to.
    #[serde(skip_serializing_if = "Option::is_none")]
    till: Option<String>,
    /// When it was made.
    #[schema(value_type = String, format = "date-time")]
    created_at: UtcMillis,
    /// When it was taken back.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = "date-time")]
    revoked_at: Option<UtcMillis>,
}

impl From<TokenRow> for TokenView {
    fn from(row: TokenRow) -> Self {
        let TokenRow { id, name, scopes, till, created_at, revoked_at } = row;
        Self { id, name, scopes, till, created_at, revoked_at }
    }
}

/// All tokens, newest first, revoked ones included.
#[derive(Serialize, ToSchema)]
pub(super) struct TokenList {
    tokens: Vec<TokenView>,
}

/// Makes a token.
#[utoipa::path(post, operation_id = "create_token", path = "/v1/tokens", tag = "tokens", request_body = NewToken,
    responses((status = 201, description = "The token, shown once", body = MadeToken)))]
pub(super) async fn create(
    State(shared): State<Arc<Shared>>,
    Json(wanted): Json<NewToken>,
) -> Result<Response, Problem> {
    let made = make(&shared, Uuid::now_v7(), wanted.name, wanted.scopes, None).await?;
    Ok((StatusCode::CREATED, Answer(made)).into_response())
}

/// Commits a fresh token; shared with pairing.
pub(super) async fn make(
    shared: &Shared,
    id: Uuid,
    name: String,
    mut scopes: Vec<Scope>,
    till: Option<String>,
) -> Result<MadeToken, Problem> {
    scopes.sort_unstable();
    scopes.dedup();
    let plain = (1..=64).contains(&name.chars().count()) && !name.chars().any(char::is_control);
    if !plain || scopes.is_empty() {
        return Err(Problem::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "token-invalid",
            "令牌需要 1 到 64 个字符的名称和至少一个权限",
            "a token needs a name of 1 to 64 characters and at least one scope",
        ));
    }
    let live = shared.context.store.read(|r| r.tokens()).await?;
    if live.iter().filter(|token| token.revoked_at.is_none()).count() >= shared.context.limits.tokens {
        return Err(Problem::new(
            StatusCode::CONFLICT,
            "too-many-tokens",
            "有效令牌过多，请先用 baygate token revoke 收回不用的令牌",
            "there are too many live tokens; take back unused ones with `baygate token revoke`",
        ));
    }
    let (token, sha256) = principal::mint(principal::TOKEN_PREFIX)?;
    let names = scopes.iter().map(|scope| scope.as_str().to_owned()).collect();
    let op = TokenOp::Create { id, name: name.clone(), sha256, scopes: names, till };
    shared.context.store.commit(Batch::new().op(Op::Token(op))).await?;
    tracing::info!(%id, name, "token made");
    Ok(MadeToken { id, token, name, scopes })
}

/// All tokens; never the tokens themselves.
#[utoipa::path(get, operation_id = "list_tokens", path = "/v1/tokens", tag = "tokens", responses((status = 200, description = "The tokens", body = TokenList)))]
pub(super) async fn list(State(shared): State<Arc<Shared>>) -> Result<Answer<TokenList>, Problem> {
    let rows = shared.context.store.read(|r| r.tokens()).await?;
    Ok(Answer(TokenList { tokens: rows.into_iter().map(TokenView::from).collect() }))
}

/// Takes a token back; open streams of it end within seconds.
#[utoipa::path(delete, operation_id = "revoke_token", path = "/v1/tokens/{id}", tag = "tokens", params(("id" = String, Path, description = "Token id")),
    responses((status = 204, description = "Taken back")))]
pub(super) async fn revoke(State(shared): State<Arc<Shared>>, token: Segment) -> Result<StatusCode, Problem> {
    let id = token.uuid("token")?;
    match shared.context.store.commit(Batch::new().op(Op::Token(TokenOp::Revoke { id }))).await {
        Ok(_) => {
            shared.leases.give_back_all(&id.to_string(), tokio::time::Instant::now());
            tracing::info!(%id, "token revoked");
            Ok(StatusCode::NO_CONTENT)
        }
        Err(StoreError::NotFound { .. }) => Err(missing("live token", &token.0)),
        Err(error) => Err(error.into()),
    }
}
