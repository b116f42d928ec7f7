//! What the uplink says: health, logs, metrics. One log line when something
//! changes, not one a retry, and never more than `chatter` allows.
//!
//! A lost connection stays on the health board until a new one has proven
//! itself (an event was answered, or nothing waits): a broker that lets us in and
//! takes nothing must not look well between two tries.

use std::time::{Duration, Instant};

use super::chatter::Chatter;
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
    chatter: Chatter,
    said: Option<(&'static str, Instant)>,
    /// What ended the last connection, until the present one has proven itself.
    line: Option<Fault>,
    duplicate_until: Option<Instant>,
    /// Events at which the broker hangs up, the first of each class.
    hangs_up: Vec<(Class, u64)>,
    refused: Vec<(Class, Fault)>,
    unsubscribed: Option<Fault>,
}

impl Voice {
    pub(super) fn new(health: Health) -> Self {
        metrics::gauge!("baygate_uplink_connected").set(0.0);
        Self {
            health,
            chatter: Chatter::default(),
            said: None,
            line: None,
            duplicate_until: None,
            hangs_up: Vec::new(),
            refused: Vec::new(),
            unsubscribed: None,
        }
    }

    pub(super) fn beat(&self) {
        self.health.beat("uplink");
    }

    /// Whether a line of this kind may go into the log; with how many were left out before it.
    pub(super) fn may_say(&mut self, kind: &'static str) -> Option<u64> {
        self.chatter.may(kind, Instant::now())
    }

    /// The connection is gone, or never came.
    pub(super) fn lost(&mut self, fault: Fault, retry_in: Duration) {
        metrics::gauge!("baygate_uplink_connected").set(0.0);
        metrics::counter!("baygate_uplink_reconnects_total", "reason" => fault.code()).increment(1);
        self.refused.clear();
        self.unsubscribed = None;
        if fault == Fault::TakenOver {
            self.duplicate_until = Some(Instant::now() + DUPLICATE_STAYS);
        }
        let retry_ms = u64::try_from(retry_in.as_millis()).unwrap_or(u64::MAX);
        if self.is_news(fault.code())
            && let Some(left_out) = self.may_say(fault.code())
        {
            tracing::warn!(code = fault.code(), fault = %fault, retry_ms, left_out, "uplink down");
        } else {
            tracing::debug!(code = fault.code(), fault = %fault, retry_ms, "uplink still down");
        }
        self.line = Some(fault);
        self.show();
    }

    /// Events may flow.
    pub(super) fn live(&mut self, version: &'static str) {
        metrics::gauge!("baygate_uplink_connected").set(1.0);
        self.said = None;
        if let Some(left_out) = self.may_say("up") {
            tracing::info!(version, left_out, "uplink up");
        }
        self.show();
    }

    /// The connection does what it is for.
    pub(super) fn proven(&mut self) {
        if self.line.take().is_some() {
            self.show();
        }
    }

    /// Whether the connection did, or no other went before it.
    pub(super) fn has_proven(&self) -> bool {
        self.line.is_none()
    }

    /// Subscriptions were not granted.
    pub(super) fn unsubscribed(&mut self, fault: Fault) {
        if let Some(left_out) = self.may_say(fault.code()) {
            tracing::warn!(code = fault.code(), fault = %fault, left_out, "uplink restricted");
        }
        self.unsubscribed = Some(fault);
    }

    /// Another gateway speaks in our name.
    pub(super) fn duplicate(&mut self) {
        if self.duplicate_until.is_none()
            && let Some(left_out) = self.may_say("contested")
        {
            let fault = Fault::TakenOver;
            tracing::warn!(code = fault.code(), fault = %fault, left_out, "uplink contested");
        }
        self.duplicate_until = Some(Instant::now() + DUPLICATE_STAYS);
        self.show();
    }

    /// The broker takes nothing of a class.
    pub(super) fn refused(&mut self, class: Class, code: u8) {
        metrics::counter!("baygate_uplink_refused_total", "reason" => format!("0x{code:02X}")).increment(1);
        let fault = Fault::Refused { topic: format!("event/{class}"), code };
        let known = self.refused.iter().any(|(of, said)| *of == class && *said == fault);
        if !known {
            if let Some(left_out) = self.may_say(fault.code()) {
                tracing::warn!(code = fault.code(), class = class.as_str(), fault = %fault, left_out, "uplink refused");
            }
            self.refused.retain(|(of, _)| *of != class);
            self.refused.push((class, fault));
            self.refused.sort_by_key(|(of, _)| *of);
        }
        self.show();
    }

    /// It does again.
    pub(super) fn taken_again(&mut self, class: Class) {
        if let Some(left_out) = self.may_say("taken-again") {
            tracing::info!(class = class.as_str(), left_out, "uplink no longer refused");
        }
        self.refused.retain(|(of, _)| *of != class);
        self.show();
    }

    /// The events, by class and size, at which the broker hangs up now.
    pub(super) fn hangs_up(&mut self, at: Vec<(Class, u64)>) {
        if self.hangs_up == at {
            return;
        }
        for (class, bytes) in &at {
            let fault = Fault::HangsUp { topic: format!("event/{class}"), bytes: *bytes };
            if !self.hangs_up.iter().any(|(of, _)| of == class)
                && let Some(left_out) = self.may_say(fault.code())
            {
                tracing::warn!(code = fault.code(), class = class.as_str(), fault = %fault, left_out, "uplink refused");
            }
        }
        self.hangs_up = at;
        self.show();
    }

    /// Events went aside; `sequence` is the first's.
    pub(super) fn set_aside(&mut self, class: Class, events: usize, sequence: Option<u64>, reason: &str) {
        if let Some(left_out) = self.may_say("set-aside") {
            tracing::error!(class = class.as_str(), events, sequence, reason, left_out, "event set aside");
        }
    }

    /// Puts what is wrong now, the worst of it, on the health board.
    pub(super) fn show(&mut self) {
        self.duplicate_until.take_if(|until| *until <= Instant::now());
        let duplicate = self.duplicate_until.is_some().then_some(Fault::TakenOver);
        let hangs_up = self
            .hangs_up
            .first()
            .map(|(class, bytes)| Fault::HangsUp { topic: format!("event/{class}"), bytes: *bytes })
            // It says more than "connection lost", and less than any other fault of the line.
            .filter(|_| self.line.as_ref().is_none_or(Fault::is_hang_up));
        let refused = self.refused.first().map(|(_, fault)| fault.clone());
        let worst = duplicate
            .or(hangs_up)
            .or_else(|| self.line.clone())
            .or(refused)
            .or_else(|| self.unsubscribed.clone());
        match worst {
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
