//! `/healthz`, `/readyz`, `/metrics`, `/openapi.json`.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::super::openapi::openapi;
use super::super::state::Shared;
use crate::clock::{self, TimeQuality};
use crate::event::Text;
use crate::store::hotlist::HotlistState;

/// The database must answer within this time to count as ready.
const DATABASE_WAIT: Duration = Duration::from_secs(2);

/// One thing that is not well.
#[derive(Serialize, ToSchema)]
pub(super) struct TroubleView {
    /// Which part, e.g. `uplink` or `reader/counter-1`.
    part: String,
    /// Stable code.
    code: String,
    /// What is wrong and what to do, `{zh, en}`.
    #[schema(value_type = Object)]
    text: Text,
    /// Whether it keeps the gateway from being ready.
    blocks_ready: bool,
}

/// Whether the gateway can do its work, and what is not well.
#[derive(Serialize, ToSchema)]
pub(super) struct Readiness {
    /// Whether it can.
    ready: bool,
    /// What is not well; a blocking one makes `ready` false.
    troubles: Vec<TroubleView>,
}

/// The process lives and answers.
#[utoipa::path(get, path = "/healthz", tag = "health", responses((status = 200, description = "Alive", body = String)))]
pub(super) async fn healthz() -> &'static str {
    "ok\n"
}

/// Ready to work, with what is not well.
#[utoipa::path(get, path = "/readyz", tag = "health",
    responses((status = 200, description = "Ready", body = Readiness), (status = 503, description = "Not ready, with reasons", body = Readiness)))]
pub(super) async fn readyz(State(shared): State<Arc<Shared>>) -> Response {
    let mut troubles: Vec<TroubleView> = shared
        .context
        .health
        .troubles()
        .into_iter()
        .map(|t| TroubleView { part: t.part, code: t.code, text: t.text, blocks_ready: t.blocks_ready })
        .collect();
    let database = tokio::time::timeout(DATABASE_WAIT, shared.context.store.read(|r| r.last_sequences()));
    if !matches!(database.await, Ok(Ok(_))) && !troubles.iter().any(|trouble| trouble.part == "store") {
        troubles.push(TroubleView {
            part: "store".into(),
            code: "database-silent".into(),
            text: Text::new(
                "本地数据库没有响应，请检查磁盘和网关日志",
                "the local database does not answer; check the disk and the gateway's log",
            ),
            blocks_ready: true,
        });
    }
    troubles.extend(hotlist_too_old(&shared).await);
    let ready = troubles.iter().all(|trouble| !trouble.blocks_ready);
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, [(header::CACHE_CONTROL, "no-store")], Json(Readiness { ready, troubles })).into_response()
}

/// Figures in the Prometheus text format. No VIN, UID or card number.
#[utoipa::path(get, path = "/metrics", tag = "health", responses((status = 200, description = "Prometheus text format 0.0.4", body = String)))]
pub(super) async fn metrics(State(shared): State<Arc<Shared>>) -> Response {
    gauge_hotlist(&shared).await;
    let handle = shared.context.metrics.clone();
    let rendered = tokio::task::spawn_blocking(move || {
        handle.run_upkeep();
        handle.render()
    });
    let text = rendered.await.unwrap_or_default();
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}

/// The list of stopped cards, and how old it is in seconds; no age while the clock is in doubt.
async fn hotlist(shared: &Shared) -> Option<(HotlistState, Option<i64>)> {
    let read = tokio::time::timeout(DATABASE_WAIT, shared.context.store.read(|r| r.hotlist()));
    let Ok(Ok(Some(here))) = read.await else { return None };
    let now = clock::read();
    let age_s = now.wall.0.saturating_sub(here.as_of.0).max(0) / 1000;
    Some((here, (now.quality == TimeQuality::Synced).then_some(age_s)))
}

/// What `[purse] max_hotlist_age` has against the list that is here.
async fn hotlist_too_old(shared: &Shared) -> Option<TroubleView> {
    let most = shared.shop().rules.max_hotlist_age?;
    let here = hotlist(shared).await;
    let (zh, en) = match here {
        None => ("尚未收到黑名单".to_owned(), "no hotlist has come yet".to_owned()),
        Some((_, None)) => return None,
        Some((here, Some(age_s))) => {
            if u64::try_from(age_s).unwrap_or(0) <= most.0.as_secs() {
                return None;
            }
            let HotlistState { version, as_of, .. } = here;
            (
                format!("黑名单（版本 {version}，{as_of}）已超过 {most}"),
                format!("the hotlist (version {version} of {as_of}) is older than {most}"),
            )
        }
    };
    Some(TroubleView {
        part: "hotlist".into(),
        code: "hotlist-too-old".into(),
        text: Text::new(
            format!("{zh}，暂不能从卡上扣款。请检查与总部的网络，并由总部下发 hotlist.put。"),
            format!(
                "{en}: nothing is taken off cards. Check the line to headquarters and have it send `hotlist.put`."
            ),
        ),
        blocks_ready: false,
    })
}

#[allow(clippy::cast_precision_loss)] // a gauge is a float
async fn gauge_hotlist(shared: &Shared) {
    let Some((here, age_s)) = hotlist(shared).await else { return };
    metrics::gauge!("baygate_hotlist_version").set(here.version as f64);
    metrics::gauge!("baygate_hotlist_cards").set(here.cards as f64);
    if let Some(age_s) = age_s {
        metrics::gauge!("baygate_hotlist_age_seconds").set(age_s as f64);
    }
}

/// This document.
#[utoipa::path(get, path = "/openapi.json", tag = "health", responses((status = 200, description = "OpenAPI 3.1", body = Object)))]
pub(super) async fn openapi_json() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], openapi()).into_response()
}
