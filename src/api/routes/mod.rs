//! The handlers, one file a topic, and the router that puts the layers around
//! them: language (outermost), count, host and origin, access (innermost).

#![allow(unused_qualifications)] // utoipa's macros write them

mod batch;
mod card_life;
mod card_pin;
mod card_records;
mod card_release;
mod card_standing;
mod cards;
mod confirmations;
mod counter;
mod events;
mod health;
mod issue;
mod leases;
mod members;
mod operator_sessions;
mod operators;
mod pairings;
mod prints;
mod purse;
mod requests;
mod rules_wait;
mod shifts;
mod stats;
mod tokens;
mod transaction_body;
mod vehicles;
mod visits;

use std::sync::Arc;

use axum::Router;
use axum::extract::{MatchedPath, Request};
use axum::http::{Method, StatusCode};
use axum::middleware::{self, Next};
use axum::response::Response;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::problem::{self, Problem};
use super::state::Shared;
use super::{access, hosts, openapi};

/// Every handler with its description.
pub(super) fn described() -> OpenApiRouter<Arc<Shared>> {
    OpenApiRouter::with_openapi(openapi::head())
        .routes(routes!(health::healthz))
        .routes(routes!(health::readyz))
        .routes(routes!(health::metrics))
        .routes(routes!(health::openapi_json))
        .routes(routes!(events::events))
        .routes(routes!(events::ticket))
        .routes(routes!(cards::readers))
        .routes(routes!(cards::card))
        .routes(routes!(issue::issue))
        .routes(routes!(batch::begin, batch::list))
        .routes(routes!(batch::show, batch::change))
        .routes(routes!(members::import))
        .routes(routes!(purse::quote))
        .routes(routes!(purse::transact))
        .routes(routes!(purse::transaction))
        .routes(routes!(purse::by_key))
        .routes(routes!(leases::take, leases::give_back))
        .routes(routes!(card_records::card))
        .routes(routes!(card_records::transactions))
        .routes(routes!(card_standing::block))
        .routes(routes!(card_standing::unblock))
        .routes(routes!(card_release::release))
        .routes(routes!(card_life::give_back))
        .routes(routes!(card_life::replace))
        .routes(routes!(card_life::extend))
        .routes(routes!(card_pin::set))
        .routes(routes!(stats::stats))
        .routes(routes!(vehicles::vehicles))
        .routes(routes!(vehicles::vehicle))
        .routes(routes!(vehicles::scan))
        .routes(routes!(visits::type_in))
        .routes(routes!(confirmations::ask))
        .routes(routes!(confirmations::list))
        .routes(routes!(confirmations::decide))
        .routes(routes!(requests::request, issue::give_up))
        .routes(routes!(prints::print))
        .routes(routes!(prints::job, prints::cancel))
        .routes(routes!(tokens::create, tokens::list))
        .routes(routes!(tokens::revoke))
        .routes(routes!(operators::add, operators::list))
        .routes(routes!(operators::change))
        .routes(routes!(operators::record))
        .routes(routes!(operator_sessions::log_in, operator_sessions::log_out))
        .routes(routes!(shifts::open))
        .routes(routes!(shifts::close))
        .routes(routes!(shifts::list))
        .routes(routes!(pairings::open))
        .routes(routes!(pairings::redeem))
        .routes(routes!(pairings::look, pairings::cancel))
}

/// The router for both listeners.
pub(super) fn router(shared: &Arc<Shared>) -> Router {
    let (router, _) = described().split_for_parts();
    router
        .fallback(nowhere)
        .layer(middleware::from_fn_with_state(Arc::clone(shared), access::guard))
        .layer(middleware::from_fn_with_state(Arc::clone(shared), hosts::check))
        .layer(middleware::from_fn(count))
        .layer(middleware::from_fn_with_state(Arc::clone(shared), problem::speak))
        .with_state(Arc::clone(shared))
}

async fn nowhere() -> Problem {
    Problem::new(
        StatusCode::NOT_FOUND,
        "no-such-route",
        "没有此接口，请查看 /openapi.json",
        "there is no such address; see /openapi.json",
    )
}

async fn count(request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().cloned();
    let method = match *request.method() {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        Method::HEAD => "HEAD",
        _ => "other",
    };
    let response = next.run(request).await;
    let route = route.map_or_else(|| "none".to_owned(), |route| route.as_str().to_owned());
    let status = response.status().as_str().to_owned();
    metrics::counter!("baygate_api_requests_total", "route" => route, "method" => method, "status" => status)
        .increment(1);
    response
}
