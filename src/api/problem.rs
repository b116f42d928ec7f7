//! Every refusal as `application/problem+json` (RFC 9457) with a stable code
//! and a text in both languages that says what to do. Which language is shown
//! is decided once, on the way out.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};

use super::language;
use super::state::Shared;
use crate::config::values::Locale;
use crate::event::Text;
use crate::store::StoreError;

/// A refusal. Boxed, so that the good way out stays small.
#[derive(Debug, Clone)]
pub struct Problem(Box<Document>);

#[derive(Debug, Clone)]
struct Document {
    status: StatusCode,
    code: String,
    text: Text,
    more: Map<String, Value>,
    retry_after_s: Option<u64>,
}

impl Problem {
    /// A refusal with its stable code and what to do, in Chinese and English.
    pub fn new(
        status: StatusCode,
        code: impl Into<String>,
        zh: impl Into<String>,
        en: impl Into<String>,
    ) -> Self {
        let (code, text) = (code.into(), Text::new(zh, en));
        Self(Box::new(Document { status, code, text, more: Map::new(), retry_after_s: None }))
    }

    /// Adds a member to the document.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.0.more.insert(name.to_owned(), value.into());
        self
    }

    /// With another status.
    #[must_use]
    pub fn with_status(mut self, status: StatusCode) -> Self {
        self.0.status = status;
        self
    }

    /// When to try again, in seconds.
    #[must_use]
    pub fn retry_after(mut self, seconds: u64) -> Self {
        self.0.retry_after_s = Some(seconds);
        self
    }

    /// Its stable code.
    pub(super) fn code(&self) -> &str {
        &self.0.code
    }

    /// Something named in the address is not there.
    #[must_use]
    pub fn not_found(code: &'static str, zh: String, en: String) -> Self {
        Self::new(StatusCode::NOT_FOUND, code, zh, en)
    }

    /// The gateway is about to stop.
    #[must_use]
    pub fn stopping() -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "stopping",
            "网关正在停止，请稍后重试",
            "the gateway is stopping; try again in a moment",
        )
        .retry_after(5)
    }

    fn body(&self, locale: Locale) -> Body {
        let Document { status, code, text, more, .. } = &*self.0;
        let mut document = Map::new();
        document.insert("type".into(), json!(format!("urn:baygate:problem:{}", code)));
        document.insert("title".into(), json!(title(*status, locale)));
        document.insert("status".into(), json!(status.as_u16()));
        document.insert("code".into(), json!(code));
        document.insert("detail".into(), json!(locale.pick(&text.zh, &text.en)));
        document.insert("text".into(), json!(text));
        document.extend(more.clone());
        Body::from(Value::Object(document).to_string())
    }
}

fn title(status: StatusCode, locale: Locale) -> &'static str {
    let english = status.canonical_reason().unwrap_or("Refused");
    let chinese = match status.as_u16() {
        400 => "请求有误",
        401 => "未认证",
        403 => "禁止访问",
        404 => "未找到",
        405 => "方法不允许",
        408 => "请求超时",
        409 => "冲突",
        413 => "请求过大",
        415 => "不支持的内容类型",
        422 => "无法处理",
        429 => "请求过多",
        502 => "设备失败",
        503 => "暂不可用",
        507 => "存储已满",
        _ => "失败",
    };
    locale.pick(chinese, english)
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = self.0.status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if self.0.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"baygate\""));
        }
        if let Some(seconds) = self.0.retry_after_s {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response.extensions_mut().insert(Arc::new(self));
        response
    }
}

/// An answer that a handler wrote out itself, such as `/readyz` with its reasons.
fn is_json(headers: &HeaderMap) -> bool {
    headers.get(header::CONTENT_TYPE).is_some_and(|value| value.as_bytes().starts_with(b"application/json"))
}

/// Outermost layer: writes the problem's text in the asker's language, and
/// turns any other error answer into a problem.
pub(super) async fn speak(State(shared): State<Arc<Shared>>, request: Request, next: Next) -> Response {
    let wanted = request.headers().get(header::ACCEPT_LANGUAGE).and_then(|value| value.to_str().ok());
    let locale = language::negotiate(wanted, shared.context.locale);
    let response = next.run(request).await;
    let status = response.status();
    let (mut parts, body) = response.into_parts();
    let problem = match parts.extensions.remove::<Arc<Problem>>() {
        Some(problem) => problem,
        None if (status.is_client_error() || status.is_server_error()) && !is_json(&parts.headers) => {
            parts.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
            let (zh, en) = (
                "请求被拒绝，请对照 /openapi.json 检查",
                "the request was refused; compare it with /openapi.json",
            );
            Arc::new(Problem::new(status, "refused", zh, en))
        }
        None => return Response::from_parts(parts, body),
    };
    parts.headers.remove(header::CONTENT_LENGTH);
    parts.headers.insert(header::CONTENT_LANGUAGE, HeaderValue::from_static(locale.pick("zh-CN", "en")));
    Response::from_parts(parts, problem.body(locale))
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Full => Self::new(
                StatusCode::INSUFFICIENT_STORAGE,
                "storage-full",
                "本地存储已满，本次操作未执行；请清理磁盘或调大 buffer.max_bytes",
                "the local storage is full and nothing was done; free disk space or raise buffer.max_bytes",
            ),
            StoreError::Closed => Self::stopping(),
            StoreError::KeyConflict => Self::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "idempotency-key-reused",
                "该 Idempotency-Key 已用于另一请求；新的请求请使用新的键",
                "this Idempotency-Key was used with another body; use a new key for a new request",
            ),
            StoreError::NotFound { what } => Self::new(
                StatusCode::CONFLICT,
                "moved-on",
                "目标不存在或状态已改变，请重新查询",
                format!("{what} does not exist or has already moved on; ask for its state again"),
            ),
            StoreError::Exists { what } => Self::new(
                StatusCode::CONFLICT,
                "exists-already",
                "已存在同样的对象，请先查询",
                format!("{what} exists already; look at it first"),
            ),
            other => {
                tracing::error!(error = %other, "store failed under a request");
                Self::new(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    "store-failed",
                    "本地数据库出错，请查看网关日志后重试",
                    "the local database failed; look at the gateway's log, then try again",
                )
            }
        }
    }
}
