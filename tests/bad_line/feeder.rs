//! The load on a store while its line is bad.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use baygate::event::Class;
use baygate::store::{Batch, Store};
use tokio_util::task::AbortOnDropHandle;

use crate::dice::Dice;
use crate::mqtt::{Money, Signals, Tap, until};

const CLASSES: [Class; 3] = [Class::Ledger, Class::Card, Class::Telemetry];

/// Commits events for as long as it lives, and counts what the log took.
pub struct Feeder {
    counts: Arc<[AtomicU64; 3]>,
    stop: Arc<AtomicBool>,
    task: AbortOnDropHandle<()>,
}

impl Feeder {
    pub fn start(store: &Store, mut dice: Dice) -> Self {
        let counts = Arc::new([const { AtomicU64::new(0) }; 3]);
        let stop = Arc::new(AtomicBool::new(false));
        let (store, told, stopped) = (store.clone(), Arc::clone(&counts), Arc::clone(&stop));
        let task = tokio::spawn(async move {
            while !stopped.load(Ordering::Relaxed) {
                let mut batch = Batch::new();
                let mut of = [0; 3];
                for _ in 0..dice.between(1, 4) {
                    let (class, bytes) = (dice.below(3), dice.between(20, 900) as usize);
                    let n = dice.number() >> 12;
                    batch = batch.event(match class {
                        0 => Money::event(n, bytes),
                        1 => Tap::event(n, bytes),
                        _ => Signals::event(n, bytes),
                    });
                    of[class] += 1;
                }
                store.commit(batch).await.unwrap();
                for (count, new) in told.iter().zip(of) {
                    count.fetch_add(new, Ordering::Relaxed);
                }
                // The pace of the load; nobody waits for it.
                tokio::time::sleep(Duration::from_millis(dice.between(5, 20))).await;
            }
        });
        Self { counts, stop, task: AbortOnDropHandle::new(task) }
    }

    pub fn total(&self) -> u64 {
        self.counts.iter().map(|count| count.load(Ordering::Relaxed)).sum()
    }

    /// Until that many more are committed.
    pub async fn goes_on(&self, more: u64) {
        let aim = self.total() + more;
        until("events are committed", async || (self.total() >= aim).then_some(())).await;
    }

    pub async fn end(self) -> BTreeMap<Class, u64> {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.unwrap();
        CLASSES.into_iter().zip(self.counts.iter().map(|count| count.load(Ordering::Relaxed))).collect()
    }
}
