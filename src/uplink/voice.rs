//! What the uplink says: health, logs, metrics. One log line when something
//! changes, not one a retry.

use std::time::{Duration, Instant};

use super::fault::Fault;
use crate::event::Class;
use crate::health::Health;

/// A repeated fault is logged again after this.
const REMIND: Duration = Duration::from_secs(600);
/// A duplicate identity stays visible this long: the two gateways push each other off for seconds only.
const DUPLICATE_STAYS: Duration = Duration::from_secs(300);

/// Speaks for the uplink.
pub(super) struct Voice {
    health: Health,
    said: Option<(&'static str, Instant)>,
    duplicate_until: Option<Instant>,
    refused: Vec<(Class, Fault)>,
    unsubscribed: Option<Fault>,
}

impl Voice {
    pub(super) fn new(health: Health) -> Self {
        metrics::gauge!("baygate_uplink_connected").set(0.0);
        Self { health, said: None, duplicate_until: None, refused: Vec::new(), unsubscribed: None }
    }

    pub(super) fn beat(&self) {
        self.health.beat("uplink");
    }

    /// The connection is gone, or never came.
    pub(super) fn lost(&mut self, fault: &Fault, retry_in: Duration) {
        metrics::gauge!("baygate_uplink_connected").set(0.0);
        metrics::counter!("baygate_uplink_reconnects_total", "reason" => fault.code()).increment(1);
        self.refused.clear();
        self.unsubscribed = None;
        if *fault == Fault::TakenOver {
            self.duplicate_until = Some(Instant::now() + DUPLICATE_STAYS);
        }
        let retry_ms = u64::try_from(retry_in.as_millis()).unwrap_or(u64::MAX);
        if self.is_news(fault.code()) {
            tracing::warn!(code = fault.code(), fault = %fault, retry_ms, "uplink down");
        } else {
            tracing::debug!(code = fault.code(), fault = %fault, retry_ms, "uplink still down");
        }
        self.show(Some(fault));
    }

    /// Events flow.
    pub(super) fn live(&mut self, version: &'static str) {
        metrics::gauge!("baygate_uplink_connected").set(1.0);
        self.said = None;
        tracing::info!(version, "uplink up");
        self.show(None);
    }

    /// Subscriptions were not granted.
    pub(super) fn unsubscribed(&mut self, fault: Fault) {
        tracing::warn!(code = fault.code(), fault = %fault, "uplink restricted");
        self.unsubscribed = Some(fault);
    }

    /// Another gateway speaks in our name.
    pub(super) fn duplicate(&mut self) {
        if self.duplicate_until.is_none() {
            tracing::warn!(code = Fault::TakenOver.code(), fault = %Fault::TakenOver, "uplink contested");
        }
        self.duplicate_until = Some(Instant::now() + DUPLICATE_STAYS);
        self.show(None);
    }

    /// The broker takes nothing of a class.
    pub(super) fn refused(&mut self, class: Class, code: u8) {
        metrics::counter!("baygate_uplink_refused_total", "reason" => format!("0x{code:02X}")).increment(1);
        let fault = Fault::Refused { topic: format!("event/{class}"), code };
        let known = self.refused.iter().any(|(of, said)| *of == class && *said == fault);
        if !known {
            tracing::warn!(code = fault.code(), class = class.as_str(), fault = %fault, "uplink refused");
            self.refused.retain(|(of, _)| *of != class);
            self.refused.push((class, fault));
            self.refused.sort_by_key(|(of, _)| *of);
        }
        self.show(None);
    }

    /// It does again.
    pub(super) fn taken_again(&mut self, class: Class) {
        tracing::info!(class = class.as_str(), "uplink no longer refused");
        self.refused.retain(|(of, _)| *of != class);
        self.show(None);
    }

    /// Puts what is wrong now, the worst of it, on the health board.
    pub(super) fn show(&mut self, line: Option<&Fault>) {
        self.duplicate_until.take_if(|until| *until <= Instant::now());
        let duplicate = self.duplicate_until.is_some().then_some(&Fault::TakenOver);
        let refused = self.refused.first().map(|(_, fault)| fault);
        match duplicate.or(line).or(refused).or(self.unsubscribed.as_ref()) {
            Some(fault) => self.health.trouble(fault.trouble()),
            None => self.health.well("uplink"),
        }
    }

    fn is_news(&mut self, code: &'static str) -> bool {
        let now = Instant::now();
        let news = self.said.is_none_or(|(said, at)| said != code || now.duration_since(at) > REMIND);
        if news {
            self.said = Some((code, now));
        }
        news
    }
}
