//! How far a salvage is, told while it goes on: to whoever opened the store, and to the log.

use std::time::{Duration, Instant};

/// To whoever opened the store: often enough for a person who watches.
const SAID_EVERY: Duration = Duration::from_secs(1);
/// To the log, where each word is kept.
const LOGGED_EVERY: Duration = Duration::from_secs(10);

/// Rows read so far, and who wants to know.
pub(super) struct Told<'p> {
    say: &'p mut dyn FnMut(u64),
    rows: u64,
    said_at: Instant,
    logged_at: Instant,
}

impl<'p> Told<'p> {
    pub(super) fn new(say: &'p mut dyn FnMut(u64)) -> Self {
        let now = Instant::now();
        Self { say, rows: 0, said_at: now, logged_at: now }
    }

    /// Another row was read.
    pub(super) fn row(&mut self) {
        self.rows += 1;
        self.look();
    }

    /// It goes on, with rows or without.
    pub(super) fn look(&mut self) {
        if self.said_at.elapsed() >= SAID_EVERY {
            self.step();
        }
    }

    /// The next step begins.
    pub(super) fn step(&mut self) {
        (self.say)(self.rows);
        self.said_at = Instant::now();
        if self.logged_at.elapsed() >= LOGGED_EVERY {
            self.logged_at = self.said_at;
            tracing::info!(rows = self.rows, "the salvage goes on");
        }
    }
}
