//! `/v1/events`: the log as Server-Sent Events, and tickets for browsers. Each
//! stream has its own cursor and holds one small page: a client that reads
//! slowly slows only itself, one that does not read is cut off by the
//! connection's stall guard.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::{Extension, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream;
use serde::{Deserialize, Serialize};
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};
use utoipa::{IntoParams, ToSchema};

use super::super::extract::Params;
use super::super::principal::{self, Principal};
use super::super::problem::Problem;
use super::super::sse;
use super::super::state::Shared;
use super::super::tickets;
use crate::event::Class;
use crate::ident::{Epoch, Seq};
use crate::store::outbox::LoggedEvent;
use crate::store::{Head, Offset, Reader, StoreError};

/// Events held for one stream, at most; an envelope has at most 64 KiB.
const PAGE: usize = 32;

/// What part of the log, and from where.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Wanted {
    /// Resume after this `EPOCH/SEQUENCE`; the header `Last-Event-ID` goes before it. Default: from now.
    after: Option<String>,
    /// Only these classes, e.g. `card,ledger`.
    class: Option<String>,
    /// A ticket of `POST /v1/events/tickets` instead of a bearer token.
    #[allow(dead_code)] // read by the guard
    ticket: Option<String>,
}

/// A ticket for one stream.
#[derive(Serialize, ToSchema)]
pub(super) struct Ticket {
    /// To be sent as `?ticket=`.
    ticket: String,
    /// How long it is good.
    expires_in_s: u64,
}

/// Why a stream does not begin where the client asked.
#[derive(Serialize)]
struct Reset {
    /// `malformed`, `unknown-epoch` or `not-in-log` (trimmed, or ahead of the log).
    reason: &'static str,
    /// The running epoch.
    epoch: Epoch,
}

/// The log as Server-Sent Events: `id: EPOCH/SEQUENCE`, `event:` the type,
/// `data:` the CloudEvent. An unknown or trimmed position gives an event
/// `reset` first, then everything from the oldest event that is still there.
#[utoipa::path(get, path = "/v1/events", tag = "events", params(Wanted, ("Last-Event-ID" = Option<String>, Header, description = "Resume after this position")),
    responses((status = 200, description = "The stream", body = String, content_type = "text/event-stream")))]
pub(super) async fn events(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Principal>,
    headers: HeaderMap,
    Params(wanted): Params<Wanted>,
) -> Result<Response, Problem> {
    let classes = wanted.class.as_deref().map(classes_of).transpose()?;
    let Ok(slot) = Arc::clone(&shared.streams).try_acquire_owned() else {
        metrics::counter!("baygate_api_refused_total", "reason" => "streams").increment(1);
        return Err(Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "too-many-streams",
            "事件流已达上限，请关闭不用的客户端后重试",
            "there are too many event streams; close clients that are not needed and try again",
        )
        .retry_after(10));
    };
    let resume = headers.get("last-event-id").map(|id| id.to_str().unwrap_or("").to_owned());
    let tail = Tail::begin(shared, caller, classes, resume.or(wanted.after), slot).await?;
    let body = Body::from_stream(stream::unfold(tail, Tail::next));
    Ok((
        [
            (header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream; charset=utf-8")),
            (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        ],
        body,
    )
        .into_response())
}

fn classes_of(text: &str) -> Result<Vec<Class>, Problem> {
    let parse = |name: &str| {
        Class::parse(name.trim()).ok_or_else(|| {
            let all = Class::ALL.map(Class::as_str).join(", ");
            let shown: String = name.chars().take(32).collect();
            Problem::new(
                StatusCode::BAD_REQUEST,
                "class-unknown",
                format!("没有事件类别 {shown:?}，可用：{all}"),
                format!("there is no class {shown:?}; use some of {all}"),
            )
        })
    };
    text.split(',').filter(|name| !name.trim().is_empty()).map(parse).collect()
}

/// Where a stream begins.
enum Start {
    At(Offset),
    Reset(&'static str),
}

fn start_at(reader: &Reader<'_>, position: &str) -> Result<Start, StoreError> {
    let parsed = position
        .split_once('/')
        .and_then(|(epoch, seq)| Some((Epoch(epoch.parse().ok()?), Seq(seq.parse().ok()?))));
    let Some((epoch, seq)) = parsed else { return Ok(Start::Reset("malformed")) };
    Ok(match reader.offset_of(epoch, seq)? {
        Some(offset) => Start::At(offset),
        None if reader.epoch_no(epoch)?.is_none() => Start::Reset("unknown-epoch"),
        None => Start::Reset("not-in-log"),
    })
}

/// One client's cursor on the log.
struct Tail {
    shared: Arc<Shared>,
    caller: Principal,
    classes: Option<Vec<Class>>,
    head: watch::Receiver<Head>,
    /// Everything up to here was written or filtered out.
    at: Offset,
    /// What goes out before the first event.
    opening: Option<Bytes>,
    page: VecDeque<LoggedEvent>,
    keep_alive: Interval,
    _slot: OwnedSemaphorePermit,
}

impl Tail {
    async fn begin(
        shared: Arc<Shared>,
        caller: Principal,
        classes: Option<Vec<Class>>,
        position: Option<String>,
        slot: OwnedSemaphorePermit,
    ) -> Result<Self, Problem> {
        let mut head = shared.context.store.head();
        let Head { epoch, last, .. } = *head.borrow_and_update();
        let start = match position {
            None => Start::At(last),
            Some(position) => shared.context.store.read(move |r| start_at(r, &position)).await?,
        };
        let (at, opening) = match start {
            // Told at once, so that a client cut off before its first event resumes here.
            Start::At(at) => (at, position_text(&shared, at).await.map(|id| sse::position_block(&id))),
            Start::Reset(reason) => {
                let data = serde_json::json!(Reset { reason, epoch }).to_string();
                (Offset::default(), Some(sse::block(None, "reset", &data)))
            }
        };
        let period = shared.context.limits.keep_alive;
        let mut keep_alive = interval_at(Instant::now() + period, period);
        keep_alive.set_missed_tick_behavior(MissedTickBehavior::Delay);
        metrics::gauge!("baygate_api_streams").increment(1.0);
        Ok(Self {
            shared,
            caller,
            classes,
            head,
            at,
            opening: Some(opening.unwrap_or_else(|| ": hello\n\n".into()).into()),
            page: VecDeque::new(),
            keep_alive,
            _slot: slot,
        })
    }

    /// The next piece; `None` ends the stream.
    async fn next(mut self) -> Option<(Result<Bytes, Infallible>, Self)> {
        if let Some(opening) = self.opening.take() {
            return Some((Ok(opening), self));
        }
        loop {
            if self.shared.stop.is_cancelled() {
                return None;
            }
            if let Some(logged) = self.page.pop_front() {
                self.at = logged.offset;
                if !self.wants(logged.event.class) {
                    continue;
                }
                let block = self.block_of(&logged)?;
                metrics::counter!("baygate_api_stream_events_total").increment(1);
                return Some((Ok(block), self));
            }
            self.head.borrow_and_update();
            let after = self.at;
            match self.shared.context.store.read(move |r| r.events_after(after, PAGE)).await {
                Ok(events) if !events.is_empty() => {
                    self.page = events.into();
                    continue;
                }
                Ok(_) => {}
                Err(error) => {
                    tracing::warn!(%error, "event stream ended; the client will resume");
                    return None;
                }
            }
            tokio::select! {
                () = self.shared.stop.cancelled() => return None,
                changed = self.head.changed() => changed.ok()?,
                _ = self.keep_alive.tick() => {
                    if !self.caller.still_lives(&self.shared).await {
                        return None;
                    }
                    let id = position_text(&self.shared, self.at).await?;
                    return Some((Ok(sse::position_block(&id).into()), self));
                }
            }
        }
    }

    fn wants(&self, class: Class) -> bool {
        self.classes.as_ref().is_none_or(|classes| classes.contains(&class))
    }

    fn block_of(&self, logged: &LoggedEvent) -> Option<Bytes> {
        let event = &logged.event;
        let data = match event.to_cloudevent(&self.shared.context.source) {
            Ok(bytes) => String::from_utf8(bytes).ok()?,
            Err(error) => {
                tracing::error!(%error, "an event cannot be written");
                return None;
            }
        };
        let id = format!("{}/{}", event.epoch, event.sequence);
        Some(sse::block(Some(&id), &format!("baygate.{}", event.kind), &data).into())
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        metrics::gauge!("baygate_api_streams").decrement(1.0);
    }
}

async fn position_text(shared: &Shared, at: Offset) -> Option<String> {
    let found = shared.context.store.read(move |r| r.position_of(at)).await.ok()??;
    Some(format!("{}/{}", found.0, found.1))
}

/// A ticket for one stream, for browsers whose `EventSource` sends no headers.
#[utoipa::path(post, path = "/v1/events/tickets", tag = "events", responses((status = 201, description = "The ticket: one use, 30 s", body = Ticket)))]
pub(super) async fn ticket(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Principal>,
) -> Result<Response, Problem> {
    let (ticket, sha256) = principal::mint(principal::TOKEN_PREFIX)?;
    if !shared.tickets.keep(sha256, caller, Instant::now()) {
        metrics::counter!("baygate_api_refused_total", "reason" => "tickets").increment(1);
        return Err(Problem::new(
            StatusCode::TOO_MANY_REQUESTS,
            "too-many-tickets",
            "未使用的票据过多，请 30 秒后再试",
            "there are too many unused tickets; try again in 30 s",
        )
        .retry_after(tickets::LIFE.as_secs()));
    }
    let made = Ticket { ticket, expires_in_s: tickets::LIFE.as_secs() };
    Ok((StatusCode::CREATED, [(header::CACHE_CONTROL, "no-store")], Json(made)).into_response())
}
