//! Refused attempts in the log: what was asked, by whom, from where, and why not. A login tells its
//! own (`routes::operator_sessions`). What does not live here: deciding (`access`).

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use axum::extract::{MatchedPath, Request};
use axum::http::Method;
use tokio::time::Instant;

use super::principal::{Peer, Principal};
use super::problem::Problem;

/// Lines a minute, at most: whoever has no token must not fill the log. What goes beyond is counted,
/// and told by the next line.
const MOST_LINES: u32 = 60;
const MINUTE: Duration = Duration::from_secs(60);

/// What was asked, without what names a person or a card.
pub(super) struct Asked {
    method: Method,
    route: Option<MatchedPath>,
    peer: Option<Peer>,
}

impl Asked {
    /// Of a request.
    pub(super) fn of(request: &Request) -> Self {
        let extensions = request.extensions();
        let (route, peer) = (extensions.get::<MatchedPath>().cloned(), extensions.get::<Peer>().copied());
        Self { method: request.method().clone(), route, peer }
    }
}

/// How much of the log is used up.
pub(super) struct Refusals(Mutex<Window>);

struct Window {
    began: Instant,
    lines: u32,
    unlogged: u64,
}

impl Refusals {
    pub(super) fn new(now: Instant) -> Self {
        Self(Mutex::new(Window { began: now, lines: 0, unlogged: 0 }))
    }

    /// Somebody was refused.
    pub(super) fn note(&self, asked: &Asked, caller: Option<&Principal>, problem: &Problem) {
        let taken = self.0.lock().unwrap_or_else(PoisonError::into_inner).line(Instant::now());
        let Some(unlogged) = taken else { return };
        let Asked { method, route, peer } = asked;
        let (code, route) = (problem.code(), route.as_ref().map_or("none", MatchedPath::as_str));
        let from = peer.map(|peer| Whence(peer).to_string());
        let place = caller.map(Principal::place);
        let operator = caller.and_then(Principal::operator).map(|operator| operator.id.to_string());
        let unlogged = (unlogged > 0).then_some(unlogged);
        let method = known(method);
        tracing::warn!(code, %method, route, from, place, operator, unlogged, "request refused");
    }
}

/// A method's name, of those that HTTP knows (RFC 9110 §9.3, RFC 5789): any other word is the caller's.
fn known(method: &Method) -> &str {
    const KNOWN: [Method; 9] = [
        Method::GET,
        Method::HEAD,
        Method::POST,
        Method::PUT,
        Method::DELETE,
        Method::CONNECT,
        Method::OPTIONS,
        Method::TRACE,
        Method::PATCH,
    ];
    if KNOWN.contains(method) { method.as_str() } else { "other" }
}

impl Window {
    /// Takes a line; with it, how many attempts went without one before. `None`: no line is left.
    fn line(&mut self, now: Instant) -> Option<u64> {
        if now.saturating_duration_since(self.began) >= MINUTE {
            (self.began, self.lines) = (now, 0);
        }
        if self.lines >= MOST_LINES {
            self.unlogged = self.unlogged.saturating_add(1);
            return None;
        }
        self.lines += 1;
        Some(std::mem::take(&mut self.unlogged))
    }
}

/// Where somebody speaks from.
struct Whence(Peer);

impl fmt::Display for Whence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Peer::Tcp { remote, .. } => remote.ip().to_canonical().fmt(f),
            Peer::Control { uid, .. } => write!(f, "user {uid}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_words_of_the_callers_are_in_the_log() {
        for (name, expected) in
            [("GET", "GET"), ("PATCH", "PATCH"), ("get", "other"), ("13800138000", "other")]
        {
            assert_eq!(known(&Method::from_bytes(name.as_bytes()).unwrap()), expected);
        }
    }

    #[test]
    fn what_goes_beyond_is_counted() {
        let start = Instant::now();
        let mut window = Window { began: start, lines: 0, unlogged: 0 };
        let lines =
            (0..100).filter_map(|n| window.line(start + Duration::from_millis(n))).collect::<Vec<_>>();
        assert_eq!(lines, vec![0; 60]);
        assert_eq!(window.line(start + MINUTE), Some(40));
        assert_eq!(window.line(start + MINUTE), Some(0));
    }
}
