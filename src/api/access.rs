//! Who may do what. What lives here: the scopes, the one table of all routes
//! with the scope each needs, and the guard in front of every handler. A route
//! that is not in the table cannot be called.

use std::str::FromStr;
use std::sync::Arc;

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::principal::{self, Peer, Principal};
use super::problem::Problem;
use super::refusals::Asked;
use super::state::Shared;

/// What a token may do (contract §7).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// Look: events, readers, vehicles.
    Read,
    /// Take value off a card.
    Spend,
    /// Put value on a card.
    Topup,
    /// Issue cards.
    Issue,
    /// Print faces.
    Print,
    /// Ask a vehicle.
    Vehicle,
    /// Tokens and pairings.
    Admin,
}

impl Scope {
    /// All scopes, in the contract's order.
    pub const ALL: [Self; 7] =
        [Self::Read, Self::Spend, Self::Topup, Self::Issue, Self::Print, Self::Vehicle, Self::Admin];

    /// The name in tokens and commands.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Spend => "spend",
            Self::Topup => "topup",
            Self::Issue => "issue",
            Self::Print => "print",
            Self::Vehicle => "vehicle",
            Self::Admin => "admin",
        }
    }
}

impl FromStr for Scope {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|scope| scope.as_str() == text).ok_or_else(|| {
            format!("{text:?} is not a scope; use some of read, spend, topup, issue, print, vehicle, admin")
        })
    }
}

/// What a route asks of its caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Nothing.
    Open,
    /// Nothing from this machine; from elsewhere the scope.
    OpenHere(Scope),
    /// One of these scopes.
    OneOf(&'static [Scope]),
    /// The scope, or a ticket in the address: browsers cannot send headers with a stream.
    OrTicket(Scope),
}

/// One line of the table.
#[derive(Debug, Clone)]
pub struct Rule {
    /// Method.
    pub method: Method,
    /// Path as in the OpenAPI document.
    pub path: &'static str,
    /// What it asks.
    pub access: Access,
}

const fn rule(method: Method, path: &'static str, access: Access) -> Rule {
    Rule { method, path, access }
}

/// What a till may have been paired with: it may log people in whatever it is for.
const ANY_TILL: &[Scope] =
    &[Scope::Read, Scope::Spend, Scope::Topup, Scope::Issue, Scope::Print, Scope::Vehicle];
/// Who does something with the card on a reader, besides looking.
const AT_A_READER: &[Scope] = &[Scope::Spend, Scope::Topup, Scope::Issue, Scope::Print];

/// Who changes what a card holds; each kind asks for its own (`routes::purse`).
const MONEY: &[Scope] = &[Scope::Spend, Scope::Topup];

/// Every route there is.
pub const TABLE: &[Rule] = &[
    rule(Method::GET, "/healthz", Access::Open),
    rule(Method::GET, "/readyz", Access::Open),
    rule(Method::GET, "/metrics", Access::OpenHere(Scope::Read)),
    rule(Method::GET, "/openapi.json", Access::Open),
    rule(Method::GET, "/v1/events", Access::OrTicket(Scope::Read)),
    rule(Method::POST, "/v1/events/tickets", Access::OneOf(&[Scope::Read])),
    rule(Method::GET, "/v1/readers", Access::OneOf(&[Scope::Read])),
    rule(Method::GET, "/v1/readers/{id}/card", Access::OneOf(&[Scope::Read])),
    rule(Method::POST, "/v1/readers/{id}/lease", Access::OneOf(AT_A_READER)),
    rule(Method::DELETE, "/v1/readers/{id}/lease", Access::OneOf(AT_A_READER)),
    rule(Method::POST, "/v1/cards", Access::OneOf(&[Scope::Issue])),
    rule(Method::POST, "/v1/cards/batch", Access::OneOf(&[Scope::Issue])),
    rule(Method::POST, "/v1/cards/import", Access::OneOf(&[Scope::Issue])),
    rule(Method::GET, "/v1/cards/batch", Access::OneOf(&[Scope::Read, Scope::Issue])),
    rule(Method::GET, "/v1/cards/batch/{id}", Access::OneOf(&[Scope::Read, Scope::Issue])),
    rule(Method::POST, "/v1/cards/batch/{id}", Access::OneOf(&[Scope::Issue])),
    rule(Method::POST, "/v1/cards/{card_no}/quotes", Access::OneOf(MONEY)),
    rule(Method::POST, "/v1/cards/{card_no}/transactions", Access::OneOf(MONEY)),
    rule(Method::GET, "/v1/transactions/{id}", Access::OneOf(&[Scope::Read, Scope::Spend, Scope::Topup])),
    rule(Method::GET, "/v1/transactions", Access::OneOf(&[Scope::Read, Scope::Spend, Scope::Topup])),
    rule(Method::GET, "/v1/cards/{card_no}", Access::OneOf(&[Scope::Read])),
    rule(Method::GET, "/v1/cards/{card_no}/transactions", Access::OneOf(&[Scope::Read])),
    rule(Method::POST, "/v1/cards/{card_no}/block", Access::OneOf(&[Scope::Issue])),
    rule(Method::POST, "/v1/cards/{card_no}/unblock", Access::OneOf(&[Scope::Issue])),
    rule(Method::POST, "/v1/cards/{card_no}/release", Access::OneOf(&[Scope::Issue])),
    // Pays out of the drawer: needs `spend` as well (`routes::card_life`).
    rule(Method::POST, "/v1/cards/{card_no}/return", Access::OneOf(&[Scope::Issue])),
    rule(Method::POST, "/v1/cards/{card_no}/replace", Access::OneOf(&[Scope::Issue])),
    rule(Method::POST, "/v1/cards/{card_no}/extend", Access::OneOf(&[Scope::Issue])),
    rule(Method::POST, "/v1/cards/{card_no}/pin", Access::OneOf(&[Scope::Issue, Scope::Spend])),
    rule(Method::GET, "/v1/stats", Access::OneOf(&[Scope::Read])),
    rule(Method::GET, "/v1/vehicles", Access::OneOf(&[Scope::Read])),
    rule(Method::GET, "/v1/vehicles/{vin}", Access::OneOf(&[Scope::Read])),
    rule(Method::POST, "/v1/vehicles/{link}/scan", Access::OneOf(&[Scope::Vehicle])),
    rule(Method::POST, "/v1/visits/{visit}", Access::OneOf(&[Scope::Vehicle])),
    rule(Method::POST, "/v1/vehicles/{link}/clear-dtcs", Access::OneOf(&[Scope::Vehicle])),
    rule(Method::GET, "/v1/confirmations", Access::OneOf(&[Scope::Read, Scope::Vehicle])),
    rule(Method::POST, "/v1/confirmations/{id}", Access::OneOf(&[Scope::Vehicle])),
    rule(Method::GET, "/v1/requests/{id}", Access::OneOf(&[Scope::Read, Scope::Vehicle])),
    rule(Method::DELETE, "/v1/requests/{id}", Access::OneOf(&[Scope::Issue])),
    rule(Method::POST, "/v1/print-jobs", Access::OneOf(&[Scope::Print])),
    rule(Method::GET, "/v1/print-jobs/{id}", Access::OneOf(&[Scope::Print, Scope::Read])),
    rule(Method::DELETE, "/v1/print-jobs/{id}", Access::OneOf(&[Scope::Print])),
    rule(Method::POST, "/v1/tokens", Access::OneOf(&[Scope::Admin])),
    rule(Method::GET, "/v1/tokens", Access::OneOf(&[Scope::Admin])),
    rule(Method::DELETE, "/v1/tokens/{id}", Access::OneOf(&[Scope::Admin])),
    rule(Method::POST, "/v1/operators", Access::OneOf(&[Scope::Admin])),
    rule(Method::GET, "/v1/operators", Access::OneOf(&[Scope::Admin])),
    rule(Method::POST, "/v1/operators/{id}", Access::OneOf(&[Scope::Admin])),
    rule(Method::GET, "/v1/operator-log", Access::OneOf(&[Scope::Admin])),
    rule(Method::POST, "/v1/operator-sessions", Access::OneOf(ANY_TILL)),
    rule(Method::DELETE, "/v1/operator-sessions", Access::OneOf(ANY_TILL)),
    rule(Method::POST, "/v1/shifts/open", Access::OneOf(&[Scope::Spend, Scope::Topup])),
    rule(Method::POST, "/v1/shifts/close", Access::OneOf(&[Scope::Spend, Scope::Topup])),
    rule(Method::GET, "/v1/shifts", Access::OneOf(&[Scope::Read])),
    rule(Method::POST, "/v1/pairings", Access::OneOf(&[Scope::Admin])),
    rule(Method::GET, "/v1/pairings/{id}", Access::OneOf(&[Scope::Admin])),
    rule(Method::DELETE, "/v1/pairings/{id}", Access::OneOf(&[Scope::Admin])),
    rule(Method::POST, "/v1/pairings/redeem", Access::Open),
];

/// Logging in tells its own refusals, each once.
const LOGIN: &str = "/v1/operator-sessions";

/// The guard: no handler runs before it said yes.
pub(super) async fn guard(State(shared): State<Arc<Shared>>, mut request: Request, next: Next) -> Response {
    let Some(path) = request.extensions().get::<MatchedPath>().cloned() else {
        return next.run(request).await; // no route: the 404 tells nothing
    };
    let access = match look_up(path.as_str(), request.method()) {
        Ok(access) => access,
        Err(refused) => return refused.into_response(),
    };
    let asked = Asked::of(&request);
    let admitted = admit(&shared, &mut request, access).await;
    let caller = request.extensions().get::<Principal>().cloned();
    if let Err(problem) = admitted {
        metrics::counter!("baygate_api_refused_total", "reason" => "access").increment(1);
        shared.refusals.note(&asked, caller.as_ref(), &problem);
        return problem.into_response();
    }
    let response = next.run(request).await;
    // Rights that only the handler knows of: a kind of sale, a card's PIN.
    if response.status() == StatusCode::FORBIDDEN
        && path.as_str() != LOGIN
        && let Some(problem) = response.extensions().get::<Arc<Problem>>()
    {
        shared.refusals.note(&asked, caller.as_ref(), problem);
    }
    response
}

/// Why a route is not called at all.
enum Closed {
    NotListed,
    Method(String),
}

fn look_up(path: &str, method: &Method) -> Result<Access, Closed> {
    let method = if method == Method::HEAD { &Method::GET } else { method };
    let rules: Vec<&Rule> = TABLE.iter().filter(|rule| rule.path == path).collect();
    if rules.is_empty() {
        return Err(Closed::NotListed);
    }
    match rules.iter().find(|rule| rule.method == method) {
        Some(rule) => Ok(rule.access),
        None => Err(Closed::Method(rules.iter().map(|r| r.method.as_str()).collect::<Vec<_>>().join(", "))),
    }
}

impl IntoResponse for Closed {
    fn into_response(self) -> Response {
        let Self::Method(allowed) = self else {
            let (zh, en) = ("该接口未开放", "this route is not open");
            return Problem::new(StatusCode::FORBIDDEN, "route-closed", zh, en).into_response();
        };
        let zh = format!("此地址只支持 {allowed}");
        let en = format!("this address knows only {allowed}");
        let problem = Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", zh, en);
        let mut response = problem.into_response();
        if let Ok(value) = HeaderValue::from_str(&allowed) {
            response.headers_mut().insert(header::ALLOW, value);
        }
        response
    }
}

async fn admit(shared: &Shared, request: &mut Request, access: Access) -> Result<(), Problem> {
    let peer = request.extensions().get::<Peer>().copied();
    let scopes: &[Scope] = match &access {
        Access::Open => return Ok(()),
        Access::OpenHere(_) if peer.is_some_and(Peer::is_here) => return Ok(()),
        Access::OpenHere(scope) => std::slice::from_ref(scope),
        Access::OneOf(scopes) => scopes,
        Access::OrTicket(scope) => {
            if let Some(holder) = principal::by_ticket(shared, request.uri())? {
                request.extensions_mut().insert(holder);
                return Ok(());
            }
            std::slice::from_ref(scope)
        }
    };
    let caller = principal::of(shared, peer, request.headers()).await?;
    let may = caller.may_one_of(scopes);
    // Also where it may not: the log says who it was.
    request.extensions_mut().insert(caller);
    if !may {
        let needed: Vec<&str> = scopes.iter().map(|scope| scope.as_str()).collect();
        return Err(Problem::new(
            StatusCode::FORBIDDEN,
            "scope-missing",
            format!("此令牌没有所需权限 {}；请用 baygate token create 建立新令牌", needed.join("/")),
            format!(
                "this token lacks the scope {}; make one with `baygate token create`",
                needed.join(" or ")
            ),
        )
        .with("scopes", needed));
    }
    Ok(())
}
