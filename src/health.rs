//! What is not well right now, and which loops still turn. Rooms write, the
//! local HTTP (`/readyz`) and the watchdog read. Nothing here is durable: facts
//! belong into the log.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::event::Text;

/// Why the gateway, or a part of it, is not ready.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Trouble {
    /// Which part, e.g. `uplink` or `reader/counter-1`.
    pub part: String,
    /// Stable code, e.g. `not-authorised`.
    pub code: String,
    /// For people: what is wrong and what to do.
    pub text: Text,
    /// Whether `/readyz` answers 503 while this stands. Headquarters being away does not.
    pub blocks_ready: bool,
}

/// Shared by all rooms; cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Health {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug, Default)]
struct Inner {
    troubles: BTreeMap<String, Trouble>,
    beats: BTreeMap<&'static str, Instant>,
}

impl Health {
    /// A part is in trouble; replaces what it said before.
    pub fn trouble(&self, trouble: Trouble) {
        self.with(|inner| inner.troubles.insert(trouble.part.clone(), trouble));
    }

    /// A part is well again.
    pub fn well(&self, part: &str) {
        self.with(|inner| inner.troubles.remove(part));
    }

    /// Everything that is not well, by part.
    #[must_use]
    pub fn troubles(&self) -> Vec<Trouble> {
        self.with(|inner| inner.troubles.values().cloned().collect())
    }

    /// The loop `name` has turned once more.
    pub fn beat(&self, name: &'static str) {
        self.with(|inner| inner.beats.insert(name, Instant::now()));
    }

    /// The loop `name` has ended orderly and will not beat again.
    pub fn rest(&self, name: &str) {
        self.with(|inner| inner.beats.remove(name));
    }

    /// Loops that have not turned for longer than `limit`.
    #[must_use]
    pub fn stuck(&self, limit: Duration) -> Vec<&'static str> {
        self.with(|inner| {
            inner.beats.iter().filter(|(_, last)| last.elapsed() > limit).map(|(name, _)| *name).collect()
        })
    }

    fn with<T>(&self, change: impl FnOnce(&mut Inner) -> T) -> T {
        change(&mut self.inner.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
