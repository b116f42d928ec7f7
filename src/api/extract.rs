//! What handlers take from a request: JSON bodies, parts of the path, query
//! parameters and idempotency keys. Every refusal is a [`Problem`].

use std::sync::Arc;

use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use http_body_util::{BodyExt as _, Limited};
use serde::de::DeserializeOwned;

use super::problem::Problem;
use super::state::Shared;

/// A JSON body, bounded in size and time.
pub(super) struct Json<T>(pub(super) T);

impl<T: DeserializeOwned> FromRequest<Arc<Shared>> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, shared: &Arc<Shared>) -> Result<Self, Problem> {
        let limits = shared.context.limits;
        if !is_json(request.headers()) {
            return Err(Problem::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "body-not-json",
                "请求体必须是 JSON，并带 Content-Type: application/json",
                "the body must be JSON with Content-Type: application/json",
            ));
        }
        let announced = request
            .headers()
            .get(header::CONTENT_LENGTH)
            .and_then(|value| value.to_str().ok())
            .and_then(|text| text.parse::<u64>().ok());
        if announced.is_some_and(|bytes| bytes > limits.body_bytes as u64) {
            return Err(too_large(limits.body_bytes));
        }
        let body = Limited::new(request.into_body(), limits.body_bytes).collect();
        let bytes = match tokio::time::timeout(limits.body_timeout, body).await {
            Ok(Ok(body)) => body.to_bytes(),
            Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => {
                return Err(too_large(limits.body_bytes));
            }
            Ok(Err(_)) => return Err(broken_off()),
            Err(_) => return Err(too_slow()),
        };
        serde_json::from_slice(&bytes).map(Self).map_err(|error| {
            Problem::new(
                StatusCode::BAD_REQUEST,
                "body-invalid",
                format!("请求体不符合接口说明（/openapi.json）：{error}"),
                format!("the body is not as /openapi.json says: {error}"),
            )
        })
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
    let kind = kind.split(';').next().unwrap_or("").trim().to_ascii_lowercase();
    kind == "application/json" || (kind.starts_with("application/") && kind.ends_with("+json"))
}

fn too_large(limit: usize) -> Problem {
    metrics::counter!("baygate_api_refused_total", "reason" => "body-too-large").increment(1);
    Problem::new(
        StatusCode::PAYLOAD_TOO_LARGE,
        "body-too-large",
        format!("请求体超过 {limit} 字节，请缩小后重发"),
        format!("the body is over {limit} bytes; send less"),
    )
    .with("limit_bytes", limit)
}

fn too_slow() -> Problem {
    metrics::counter!("baygate_api_refused_total", "reason" => "body-too-slow").increment(1);
    Problem::new(
        StatusCode::REQUEST_TIMEOUT,
        "body-too-slow",
        "请求体未在规定时间内到达，请检查网络后重发",
        "the body did not arrive in time; check the network and send it again",
    )
}

fn broken_off() -> Problem {
    Problem::new(
        StatusCode::BAD_REQUEST,
        "body-broken-off",
        "请求体传输中断，请重发",
        "the body broke off; send it again",
    )
}

/// The one parameter of a path, as text.
pub(super) struct Segment(pub(super) String);

impl FromRequestParts<Arc<Shared>> for Segment {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, shared: &Arc<Shared>) -> Result<Self, Problem> {
        match Path::<String>::from_request_parts(parts, shared).await {
            Ok(Path(text)) => Ok(Self(text)),
            Err(_) => Err(Problem::new(
                StatusCode::BAD_REQUEST,
                "path-invalid",
                "地址中的参数不是有效的 UTF-8 文本",
                "the parameter in the address is not UTF-8 text",
            )),
        }
    }
}

impl Segment {
    /// The parameter as an id of `what`; anything else cannot be there: 404.
    pub(super) fn uuid(&self, what: &str) -> Result<uuid::Uuid, Problem> {
        self.0.parse().map_err(|_| missing(what, &self.0))
    }
}

/// Nothing of that name.
pub(super) fn missing(what: &str, name: &str) -> Problem {
    let shown: String = name.chars().take(64).collect();
    Problem::not_found(
        "not-found",
        format!("没有名为 {shown:?} 的 {what}，请核对后重试"),
        format!("there is no {what} {shown:?}; check the name"),
    )
}

/// The query's parameters.
pub(super) struct Params<T>(pub(super) T);

impl<T: DeserializeOwned> FromRequestParts<Arc<Shared>> for Params<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, shared: &Arc<Shared>) -> Result<Self, Problem> {
        match Query::<T>::from_request_parts(parts, shared).await {
            Ok(Query(params)) => Ok(Self(params)),
            Err(error) => Err(Problem::new(
                StatusCode::BAD_REQUEST,
                "query-invalid",
                format!("查询参数有误：{}", error.body_text()),
                format!("the query is not as /openapi.json says: {}", error.body_text()),
            )),
        }
    }
}

/// The `Idempotency-Key` header.
pub(super) struct IdempotencyKey(pub(super) Option<String>);

impl FromRequestParts<Arc<Shared>> for IdempotencyKey {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &Arc<Shared>) -> Result<Self, Problem> {
        let Some(value) = parts.headers.get("idempotency-key") else { return Ok(Self(None)) };
        let key = value.to_str().ok().filter(|key| (1..=128).contains(&key.len()));
        match key {
            Some(key) => Ok(Self(Some(key.to_owned()))),
            None => Err(Problem::new(
                StatusCode::BAD_REQUEST,
                "idempotency-key-invalid",
                "Idempotency-Key 须为 1 到 128 个可见 ASCII 字符",
                "Idempotency-Key must be 1 to 128 visible ASCII characters",
            )),
        }
    }
}
