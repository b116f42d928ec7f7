//! Notices that the wall clock was set: compares it with the time since boot and
//! commits `gateway.clock`, which tells headquarters how far the times before were
//! off. Nothing is reordered or dropped for it.
//!
//! What the clock looked like is kept beside the log, so that a restart within the
//! boot goes on where the last run ended: a clock that is set while the daemon is
//! down, or long after it was restarted, still corrects all events of the boot.

use std::time::Duration;

use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::clock::{self, Reading, STEP_MS, UtcMillis};
use crate::event::NewEvent;
use crate::event::gateway::GatewayClock;
use crate::ident::Seq;
use crate::store::clock_mark::{ClockMark, ClockOp};
use crate::store::{Batch, Offset, Op, Store, StoreError};

/// How often the clocks are compared.
const EVERY: Duration = Duration::from_secs(2);
/// What is kept follows the clock when it has moved by this, in milliseconds.
const KEEP_MS: i64 = 500;
/// Events read at a time.
const PAGE: usize = 200;

/// A clock that was set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Set {
    /// By how much, in milliseconds.
    pub offset_ms: i64,
    /// What the old clock would say now.
    pub old_now: UtcMillis,
}

impl Set {
    /// Whether an event's time was read from the old clock. Looked at soon after the
    /// clock was set, its time is near to what one of the clocks says now.
    #[must_use]
    pub fn is_before(&self, time: UtcMillis) -> bool {
        let new_now = self.old_now.0.saturating_add(self.offset_ms);
        time.0.abs_diff(self.old_now.0) < time.0.abs_diff(new_now)
    }
}

/// Compares a reading with what was remembered of the clock.
#[must_use]
pub fn compare(mark: &ClockMark, now: Reading) -> Option<Set> {
    let offset_ms = now.wall_at_boot.0.saturating_sub(mark.wall_at_boot.0);
    let old_now = UtcMillis(now.wall.0.saturating_sub(offset_ms));
    (offset_ms.unsigned_abs() >= STEP_MS.unsigned_abs()).then_some(Set { offset_ms, old_now })
}

/// The watch over the clock.
pub struct ClockWatch {
    store: Store,
    subject: String,
    boot: Uuid,
    mark: ClockMark,
    kept: ClockMark,
    /// Everything up to here had its time from the clock as marked.
    looked: Offset,
}

impl ClockWatch {
    /// Goes on from what an earlier run of this boot left. `first` is the first sequence
    /// of this run, `subject` the gateway's.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn begin(store: Store, subject: String, first: Seq) -> Result<Self, StoreError> {
        let now = clock::read();
        let (boot, epoch) = (clock::boot_id(), store.head().borrow().epoch);
        let found = store.read(|reader| reader.clock_mark()).await?;
        let found = found.filter(|mark| mark.boot == boot);
        let fresh = ClockMark { boot, wall_at_boot: now.wall_at_boot, epoch, first };
        let mut mark = found.unwrap_or(fresh);
        if mark.epoch != epoch {
            (mark.epoch, mark.first) = (epoch, first);
        }
        let looked = store.head().borrow().last;
        let mut watch = Self { store, subject, boot, mark, kept: mark, looked };
        match compare(&mark, now) {
            // Set while the daemon was down: this run's events have the new time already.
            Some(set) => watch.tell(set, now, Seq(first.0.saturating_sub(1))).await?,
            None => watch.keep(ClockMark { wall_at_boot: now.wall_at_boot, ..mark }).await?,
        }
        Ok(watch)
    }

    /// Watches until `stop`.
    pub async fn run(mut self, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(EVERY) => {}
            }
            if let Err(error) = self.look().await {
                tracing::warn!(%error, "the clock's correction could not be committed; trying again");
            }
        }
    }

    async fn look(&mut self) -> Result<(), StoreError> {
        let now = clock::read();
        let (epoch, last) = {
            let head = self.store.head();
            let head = head.borrow();
            (head.epoch, head.last)
        };
        if self.mark.epoch != epoch {
            // Sequences restart with an epoch: those of the one before cannot be named in it.
            (self.mark.epoch, self.mark.first) = (epoch, Seq(1));
        }
        match compare(&self.mark, now) {
            None => {
                let followed = ClockMark { wall_at_boot: now.wall_at_boot, ..self.mark };
                self.mark = followed;
                let moved = followed.wall_at_boot.0.abs_diff(self.kept.wall_at_boot.0);
                if moved >= KEEP_MS.unsigned_abs() || followed.epoch != self.kept.epoch {
                    self.keep(followed).await?;
                }
                self.looked = last;
            }
            Some(set) => {
                let to = self.last_before(set).await?;
                self.tell(set, now, to).await?;
                self.looked = last;
            }
        }
        Ok(())
    }

    /// The last event of the epoch whose time is from the old clock.
    async fn last_before(&self, set: Set) -> Result<Seq, StoreError> {
        let mut at = self.looked;
        let epoch = self.mark.epoch;
        let before = self.store.read(move |reader| reader.position_of(at)).await?;
        let mut to = before.filter(|(of, _)| *of == epoch).map_or(Seq(0), |(_, sequence)| sequence);
        loop {
            let page = self.store.read(move |reader| reader.events_after(at, PAGE)).await?;
            let Some(last) = page.last() else { return Ok(to) };
            at = last.offset;
            let old = page
                .iter()
                .rev()
                .find(|logged| logged.event.epoch == epoch && set.is_before(logged.event.time));
            to = old.map_or(to, |logged| logged.event.sequence);
        }
    }

    /// Commits the correction of everything up to `to`, and how the clock stands now.
    async fn tell(&mut self, set: Set, now: Reading, to: Seq) -> Result<(), StoreError> {
        let Set { offset_ms, old_now } = set;
        tracing::warn!(offset_ms, quality = now.quality.as_str(), "the wall clock was set");
        let mark = ClockMark { wall_at_boot: now.wall_at_boot, ..self.mark };
        let moved = ClockOp::Move { offset_ms, from: self.mark.wall_at_boot, to: old_now };
        let mut batch = Batch::new().op(Op::Clock(moved)).op(Op::Clock(ClockOp::Mark(mark)));
        if to >= self.mark.first {
            let (from_sequence, to_sequence) = (self.mark.first, to);
            let data = GatewayClock { boot: self.boot, offset_ms, from_sequence, to_sequence };
            let event = NewEvent::now(self.subject.as_str(), &data)
                .map_err(|error| StoreError::Corrupt(error.to_string()))?;
            batch = batch.event(event);
        }
        self.store.commit(batch).await?;
        (self.mark, self.kept) = (mark, mark);
        Ok(())
    }

    async fn keep(&mut self, mark: ClockMark) -> Result<(), StoreError> {
        self.store.commit(Batch::new().op(Op::Clock(ClockOp::Mark(mark)))).await?;
        (self.mark, self.kept) = (mark, mark);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::TimeQuality;
    use crate::ident::Epoch;

    fn reading(wall: i64, since_boot: i64) -> Reading {
        Reading {
            wall: UtcMillis(wall),
            quality: TimeQuality::Unsynced,
            wall_at_boot: UtcMillis(wall - since_boot),
            steady: Duration::ZERO,
        }
    }

    #[test]
    fn a_step_is_told_from_slewing() {
        let boot = Uuid::nil();
        let mark = ClockMark { boot, wall_at_boot: UtcMillis(1_000), epoch: Epoch::begin(), first: Seq(1) };
        // (wall now, since boot, expected)
        for (wall, since_boot, expected) in [
            (3_000, 2_000, None),
            (3_999, 2_000, None),
            (2_001, 2_000, None),
            (4_000, 2_000, Some(Set { offset_ms: 1_000, old_now: UtcMillis(3_000) })),
            (1_000_003_000, 2_000, Some(Set { offset_ms: 1_000_000_000, old_now: UtcMillis(3_000) })),
            (-7_000, 2_000, Some(Set { offset_ms: -10_000, old_now: UtcMillis(3_000) })),
        ] {
            assert_eq!(compare(&mark, reading(wall, since_boot)), expected, "{wall}");
        }
    }

    #[test]
    fn events_are_sorted_to_the_clock_they_were_timed_by() {
        for offset_ms in [3_600_000, -3_600_000, 56 * 31_536_000_000] {
            let set = Set { offset_ms, old_now: UtcMillis(500_000) };
            for ago in [0, 1_900, 60_000] {
                assert!(set.is_before(UtcMillis(500_000 - ago)), "{offset_ms} {ago}");
                assert!(!set.is_before(UtcMillis(500_000 + offset_ms - ago)), "{offset_ms} {ago}");
            }
        }
    }
}
