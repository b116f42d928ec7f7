//! Notices that the wall clock was set: compares it with the monotonic clock
//! and commits `gateway.clock`, which tells headquarters how far the times
//! before were off. Nothing is reordered or dropped for it.

use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use crate::clock::{self, UtcMillis};
use crate::event::NewEvent;
use crate::event::gateway::GatewayClock;
use crate::ident::{Epoch, Seq};
use crate::store::{Batch, Store};

/// How often the clocks are compared.
const EVERY: Duration = Duration::from_secs(2);
/// Smaller steps are the ordinary work of NTP.
const STEP_MS: i64 = 1_000;

/// The pure part: the anchor that relates both clocks, and the events since.
#[derive(Debug)]
pub struct ClockWatch {
    wall_at_anchor: UtcMillis,
    epoch: Epoch,
    first_affected: Seq,
}

impl ClockWatch {
    /// From now on; `next` is the first sequence that will be committed, in `epoch`.
    #[must_use]
    pub fn begin(wall: UtcMillis, epoch: Epoch, next: Seq) -> Self {
        Self { wall_at_anchor: wall, epoch, first_affected: next }
    }

    /// Sequences restart with an epoch: those of the one before cannot be named in it.
    pub fn in_epoch(&mut self, epoch: Epoch) {
        if self.epoch != epoch {
            self.epoch = epoch;
            self.first_affected = Seq(1);
        }
    }

    /// `elapsed` since the anchor by the monotonic clock, `wall` by the wall
    /// clock, `last` the last committed sequence. A step gives the correction
    /// of the events since the last one, as `(offset_ms, from, to)`.
    pub fn compare(&mut self, elapsed: Duration, wall: UtcMillis, last: Seq) -> Option<(i64, Seq, Seq)> {
        let expected =
            self.wall_at_anchor.0.saturating_add(i64::try_from(elapsed.as_millis()).unwrap_or(i64::MAX));
        let offset_ms = wall.0.saturating_sub(expected);
        if offset_ms.abs() < STEP_MS {
            return None;
        }
        self.wall_at_anchor = UtcMillis(self.wall_at_anchor.0.saturating_add(offset_ms));
        let from = self.first_affected;
        self.first_affected = Seq(last.0 + 1);
        (last >= from).then_some((offset_ms, from, last))
    }
}

/// Watches until `stop`; `first` is the first sequence of this run, `subject` the gateway's.
pub async fn watch(store: Store, subject: String, first: Seq, stop: CancellationToken) {
    let anchor = Instant::now();
    let head = store.head();
    let mut watch = ClockWatch::begin(UtcMillis::now(), head.borrow().epoch, first);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(EVERY) => {}
        }
        let last = match store.read(|reader| reader.last_sequence()).await {
            Ok(last) => last,
            Err(error) => {
                tracing::warn!(%error, "clock watch cannot read the log");
                continue;
            }
        };
        watch.in_epoch(head.borrow().epoch);
        let Some((offset_ms, from_sequence, to_sequence)) =
            watch.compare(anchor.elapsed(), UtcMillis::now(), last)
        else {
            continue;
        };
        tracing::warn!(offset_ms, "the wall clock was set");
        let data = GatewayClock { boot: clock::boot_id(), offset_ms, from_sequence, to_sequence };
        let event = NewEvent::now(subject.as_str(), &data).map(|event| Batch::new().event(event));
        let committed = match event {
            Ok(batch) => store.commit(batch).await.map(|_| ()).map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        if let Err(error) = committed {
            tracing::error!(%error, "the clock correction could not be committed");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_corrects_the_events_before_it_once() {
        let mut watch = ClockWatch::begin(UtcMillis(1_000), Epoch::begin(), Seq(1));
        let at = Duration::from_secs;
        // (elapsed, wall ms, last sequence, expected)
        let steps = [
            (at(2), 3_000, 5, None),
            (at(4), 5_400, 6, None),
            (at(6), 1_000_007_000, 8, Some((1_000_000_000, Seq(1), Seq(8)))),
            (at(8), 1_000_009_000, 9, None),
            (at(10), 11_000, 9, Some((-1_000_000_000, Seq(9), Seq(9)))),
            (at(12), 500_013_000, 9, None),
        ];
        for (elapsed, wall, last, expected) in steps {
            assert_eq!(watch.compare(elapsed, UtcMillis(wall), Seq(last)), expected, "at {elapsed:?}");
        }
    }

    #[test]
    fn a_new_epoch_counts_from_one() {
        let old = Epoch::begin();
        let mut watch = ClockWatch::begin(UtcMillis(0), old, Seq(500));
        watch.in_epoch(old);
        watch.in_epoch(Epoch::begin());
        let corrected = watch.compare(Duration::ZERO, UtcMillis(5_000), Seq(3));
        assert_eq!(corrected, Some((5_000, Seq(1), Seq(3))));
    }
}
