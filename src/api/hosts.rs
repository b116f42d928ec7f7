//! Against web pages that reach for the gateway: the `Host` check stops DNS
//! rebinding, the `Origin` check stops other sites, and only the configured
//! origins get CORS headers (Fetch standard §3.2). The control socket is
//! reached by no browser and is not checked.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::principal::Peer;
use super::problem::Problem;
use super::refusals::Asked;
use super::state::Shared;
use crate::config::tables::ApiTable;

/// The names and origins that are let in.
#[derive(Debug, Clone, Default)]
pub struct Visitors {
    hosts: Vec<String>,
    origins: Vec<String>,
}

impl Visitors {
    /// From `[api]`.
    #[must_use]
    pub fn of(table: &ApiTable) -> Self {
        let plain = |text: &String| text.trim().trim_end_matches('/').to_ascii_lowercase();
        Self {
            hosts: table.allowed_hosts.iter().map(plain).collect(),
            origins: table.allowed_origins.iter().map(plain).collect(),
        }
    }

    /// Whether a `Host` names this gateway: loopback, the address the
    /// connection came in on, or one of `allowed_hosts` (with or without port).
    #[must_use]
    pub fn host_ok(&self, host: &str, local: IpAddr) -> bool {
        let host = host.to_ascii_lowercase();
        let Some(name) = name_of(&host) else { return false };
        if name == "localhost" || self.hosts.iter().any(|allowed| *allowed == host || allowed == name) {
            return true;
        }
        let literal = name.strip_prefix('[').and_then(|n| n.strip_suffix(']')).unwrap_or(name);
        literal
            .parse::<IpAddr>()
            .is_ok_and(|ip| ip.to_canonical().is_loopback() || ip.to_canonical() == local.to_canonical())
    }

    /// Whether pages of that origin may call.
    #[must_use]
    pub fn origin_ok(&self, origin: &str) -> bool {
        origin != "null" && self.origins.contains(&origin.to_ascii_lowercase())
    }
}

/// The name or address in `Host`, without port and final dot; `None` when malformed.
fn name_of(host: &str) -> Option<&str> {
    let (name, port) = match host.strip_prefix('[') {
        Some(rest) => {
            let end = rest.find(']')?;
            (host.get(..end + 2)?, rest.get(end + 1..)?)
        }
        None => host.find(':').map_or((host, ""), |colon| host.split_at(colon)),
    };
    let digits = port.strip_prefix(':').unwrap_or(port);
    let port_ok = port.is_empty() || (!digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()));
    let name = name.strip_suffix('.').unwrap_or(name);
    let name_ok = !name.is_empty()
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b'[' | b']' | b':'));
    (port_ok && name_ok).then_some(name)
}

/// The `Host` of a request; `None` when there is none or more than one.
fn host_of<'r>(uri: &'r Uri, headers: &'r HeaderMap) -> Option<&'r str> {
    let mut values = headers.get_all(header::HOST).iter();
    let (first, second) = (values.next(), values.next());
    if second.is_some() {
        return None;
    }
    let value = first.and_then(|value| value.to_str().ok());
    // An absolute address in the request line wins (RFC 9112 §3.2.2).
    uri.authority().map(|authority| authority.as_str()).or(value)
}

/// The layer in front of all routes.
pub(super) async fn check(State(shared): State<Arc<Shared>>, request: Request, next: Next) -> Response {
    let Some(Peer::Tcp { local, .. }) = request.extensions().get::<Peer>().copied() else {
        return next.run(request).await;
    };
    let host_ok = host_of(request.uri(), request.headers())
        .is_some_and(|host| shared.visitors.host_ok(host, local.ip()));
    if !host_ok {
        metrics::counter!("baygate_api_refused_total", "reason" => "host").increment(1);
        let problem = Problem::new(
            StatusCode::FORBIDDEN,
            "host-not-allowed",
            "此主机名未获准：请用 127.0.0.1 或监听地址访问，或把主机名加入 [api] allowed_hosts",
            "this host name is not allowed: use 127.0.0.1 or the listen address, or add the name to [api] allowed_hosts",
        );
        shared.refusals.note(&Asked::of(&request), None, &problem);
        return problem.into_response();
    }
    let Some(origin) = request.headers().get(header::ORIGIN).cloned() else {
        return next.run(request).await;
    };
    if !origin.to_str().is_ok_and(|origin| shared.visitors.origin_ok(origin)) {
        metrics::counter!("baygate_api_refused_total", "reason" => "origin").increment(1);
        let problem = Problem::new(
            StatusCode::FORBIDDEN,
            "origin-not-allowed",
            "此网页来源未获准：请把它加入 [api] allowed_origins",
            "pages of this origin may not call: add it to [api] allowed_origins",
        );
        shared.refusals.note(&Asked::of(&request), None, &problem);
        return problem.into_response();
    }
    let preflight = request.method() == Method::OPTIONS
        && request.headers().contains_key("access-control-request-method");
    let private = request.headers().contains_key("access-control-request-private-network");
    let mut response = if preflight { preflight_answer(private) } else { next.run(request).await };
    let headers = response.headers_mut();
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    headers.append(header::VARY, HeaderValue::from_static("Origin"));
    headers.insert(
        header::ACCESS_CONTROL_EXPOSE_HEADERS,
        HeaderValue::from_static("Location, Retry-After, Content-Language"),
    );
    response
}

fn preflight_answer(private_network: bool) -> Response {
    let mut response = StatusCode::NO_CONTENT.into_response();
    let headers = response.headers_mut();
    for (name, value) in [
        (header::ACCESS_CONTROL_ALLOW_METHODS, "GET, POST, DELETE"),
        (
            header::ACCESS_CONTROL_ALLOW_HEADERS,
            "Authorization, Content-Type, Idempotency-Key, Last-Event-ID, Accept-Language",
        ),
        (header::ACCESS_CONTROL_MAX_AGE, "600"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    if private_network {
        headers.insert(
            HeaderName::from_static("access-control-allow-private-network"),
            HeaderValue::from_static("true"),
        );
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts() {
        let table = ApiTable {
            allowed_hosts: vec!["Gateway.store.example".into(), "till.example:9000".into()],
            ..ApiTable::default()
        };
        let visitors = Visitors::of(&table);
        // (host, allowed)
        let cases = [
            ("localhost", true),
            ("LOCALHOST:8480", true),
            ("localhost.:8480", true),
            ("127.0.0.1:8480", true),
            ("127.8.8.8", true),
            ("[::1]:8480", true),
            ("192.168.7.5", true), // where the connection came in
            ("192.168.7.6", false),
            ("gateway.store.example:8480", true),
            ("till.example:9000", true),
            ("till.example", false),
            ("evil.example", false),
            ("localhost.evil.example", false),
            ("evil.example:localhost", false),
            ("user@localhost", false),
            ("", false),
            (":8480", false),
            ("[::1", false),
            ("localhost:", false),
        ];
        for (host, expected) in cases {
            assert_eq!(visitors.host_ok(host, "192.168.7.5".parse().unwrap()), expected, "{host}");
        }
    }

    #[test]
    fn origins() {
        let table = ApiTable { allowed_origins: vec!["https://Till.example/".into()], ..ApiTable::default() };
        let visitors = Visitors::of(&table);
        let cases = [
            ("https://till.example", true),
            ("http://till.example", false),
            ("https://till.example:8443", false),
            ("null", false),
            ("https://evil.example", false),
        ];
        for (origin, expected) in cases {
            assert_eq!(visitors.origin_ok(origin), expected, "{origin}");
        }
    }
}
