//! The first moments of a connection, and the retained `state` for as long as
//! it lasts. Pure.
//!
//! ```text
//!  Dialling ──CONNACK──► Subscribing ──SUBACK──► Checking ──own state came back──► Live
//! ```
//! In `Checking` the broker has shown us the retained `state` of our last
//! connection before our own came back: if that names positions ahead of ours, a
//! new epoch begins before the first event goes out.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use uuid::Uuid;

use super::session::Limits;

/// Until SUBACK.
const SUBSCRIBE_WITHIN: Duration = Duration::from_secs(15);
/// Until our own `state` comes back. A broker that hides it from us must not hold events up.
const CHECK_WITHIN: Duration = Duration::from_secs(2);
/// Connections of ours whose late echoes are no stranger's.
const REMEMBERED: usize = 8;

/// Where a connection stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Until CONNACK.
    Dialling {
        /// Given up then.
        until: Instant,
    },
    /// Until SUBACK.
    Subscribing {
        /// Given up then.
        until: Instant,
        /// What the broker allows.
        limits: Limits,
    },
    /// Until our own `state` comes back.
    Checking {
        /// Not waited for any longer then.
        until: Instant,
        /// What the broker allows.
        limits: Limits,
    },
    /// Events flow.
    Live,
}

impl Phase {
    pub(super) fn dialling(now: Instant, limit: Duration) -> Self {
        Self::Dialling { until: now + limit }
    }

    pub(super) fn subscribing(now: Instant, limits: Limits) -> Self {
        Self::Subscribing { until: now + SUBSCRIBE_WITHIN, limits }
    }

    /// After SUBACK; `echoed`: the broker will show us our own `state`.
    pub(super) fn checking(now: Instant, limits: Limits, echoed: bool) -> Self {
        Self::Checking { until: if echoed { now + CHECK_WITHIN } else { now }, limits }
    }

    pub(super) fn deadline(self) -> Option<Instant> {
        match self {
            Self::Dialling { until } | Self::Subscribing { until, .. } | Self::Checking { until, .. } => {
                Some(until)
            }
            Self::Live => None,
        }
    }
}

/// Whose `state` came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Whose {
    /// This connection's.
    Own,
    /// An earlier one of ours.
    Former,
    /// Somebody else's.
    Stranger,
}

/// The connections we had.
#[derive(Debug, Default)]
pub(super) struct Connections {
    ours: VecDeque<Uuid>,
    told_before: bool,
    told_now: bool,
}

impl Connections {
    /// Whether a `state` of this process stood on the broker before this connection:
    /// a stranger's found now was written by somebody who lives.
    pub(super) fn told_before(&self) -> bool {
        self.told_before
    }

    /// The current connection's `state` stands on the broker.
    pub(super) fn told(&mut self) {
        self.told_now = true;
    }

    /// A new one.
    pub(super) fn begin(&mut self) -> Uuid {
        let connection = Uuid::new_v4();
        self.told_before |= std::mem::take(&mut self.told_now);
        self.ours.push_front(connection);
        self.ours.truncate(REMEMBERED);
        connection
    }

    pub(super) fn whose(&self, connection: Uuid) -> Whose {
        match self.ours.iter().position(|ours| *ours == connection) {
            Some(0) => Whose::Own,
            Some(_) => Whose::Former,
            None => Whose::Stranger,
        }
    }
}
