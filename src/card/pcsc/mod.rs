//! Reader kind `pcsc`: every reader behind pcscd whose name matches the table's
//! glob. The blocking world stays on named threads: one that watches (`monitor`),
//! one for each reader that speaks with its cards (`worker`). This file is the
//! async task between them, which keeps a `bank` of readers; what it decides is
//! pure (`field`, `condition`).
//!
//! ```text
//!  monitor ── readers, present, empty ─►  drive  ─► report ─► service
//!  worker (one a reader) ◄── identify ──┘  ▲
//!                        └── verdict ──────┘
//! ```

mod bank;
mod condition;
mod monitor;
mod sam_slot;
mod sam_thread;
mod slot;
mod threads;
mod worker;

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::time::{self, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

pub use slot::open_sam;
pub use threads::{MAX_ABANDONED_THREADS, abandoned_threads, restart_wanted};

use self::bank::Bank;
use self::condition::Service;
use self::monitor::{Monitor, Notice};
use self::threads::Lease;
use super::CardError;
use super::member::Members;
use super::report::Reports;
use super::work::Errand;
use crate::config::tables::{ReaderGlobs, ReaderRole};

/// The monitor speaks twice a second; past this pcscd counts as hung.
const SILENCE_LIMIT: Duration = Duration::from_secs(6);
/// A hung monitor ends when pcscd goes away or comes back; only past this another
/// is tried beside it.
const SECOND_WATCH_AFTER: Duration = Duration::from_secs(60);
/// How often the limits are looked at.
const TICK: Duration = Duration::from_millis(250);
/// How long threads may take to return at the end before they are given up.
const STOP_LIMIT: Duration = Duration::from_secs(2);

/// A reader that is there now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReaderInfo {
    /// Its name, which the glob of a `[[reader]]` is matched against.
    pub name: String,
    /// Whether a card is in its field.
    pub card_present: bool,
}

/// The readers pcscd knows now. Blocks: call it off the async threads.
///
/// # Errors
/// [`CardError::Pcsc`] when pcscd does not answer.
pub fn list_readers() -> Result<Vec<ReaderInfo>, CardError> {
    let context = pcsc::Context::establish(pcsc::Scope::System)?;
    let names = context.list_readers_owned()?;
    let mut states: Vec<_> =
        names.into_iter().map(|name| pcsc::ReaderState::new(name, pcsc::State::UNAWARE)).collect();
    if !states.is_empty() {
        context.get_status_change(Duration::ZERO, &mut states)?;
    }
    let info = states.iter().map(|state| ReaderInfo {
        name: state.name().to_string_lossy().into_owned(),
        card_present: state.event_state().contains(pcsc::State::PRESENT),
    });
    Ok(info.collect())
}

/// Whether a `[[reader]]` with this glob means the reader of that name.
#[must_use]
pub fn is_named(glob: &str, name: &str) -> bool {
    bank::serves(&wildmatch::WildMatch::new(glob), ReaderRole::Card, name)
}

/// Serves the readers matching `glob` until `stop`; `globs` say in which of them a SAM may be.
pub(super) async fn drive(
    glob: String,
    (role, globs): (ReaderRole, &ReaderGlobs),
    members: Option<Arc<Members>>,
    reports: Reports,
    mut errands: mpsc::Receiver<Errand>,
    stop: CancellationToken,
) -> Result<(), CardError> {
    let (outcomes, mut finished) = mpsc::channel(16);
    let mut bank = Bank::new(glob, (role, globs), members, reports, outcomes);
    let mut watch = Watch::start()?;
    let mut ticks = time::interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let heard = tokio::select! {
            () = stop.cancelled() => break,
            // None: the thread has ended; a tick finds it and starts another.
            Some(notice) = watch.notices.recv() => {
                watch.heard = Instant::now();
                bank.notice(notice).await
            }
            Some(outcome) = finished.recv() => bank.outcome(outcome).await,
            Some(errand) = errands.recv() => {
                bank.errand(errand);
                Ok(())
            }
            _ = ticks.tick() => {
                if watch.is_lost() {
                    watch.monitor.abandon();
                    bank.service_down(Service::Hung).await
                } else {
                    bank.overdue().await
                }
            }
        };
        if heard.is_err() {
            break;
        }
        if watch.is_replaceable() && !restart_wanted() {
            watch = Watch::start()?;
        }
    }
    finished.close();
    stop_threads(watch, bank).await;
    Ok(())
}

/// The monitor thread, its voice, and when it was last heard.
struct Watch {
    monitor: Monitor,
    notices: mpsc::Receiver<Notice>,
    heard: Instant,
}

impl Watch {
    fn start() -> Result<Self, CardError> {
        let (sender, notices) = mpsc::channel(32);
        let monitor = Monitor::start(sender).map_err(CardError::Thread)?;
        Ok(Self { monitor, notices, heard: Instant::now() })
    }

    fn is_lost(&self) -> bool {
        self.heard.elapsed() > SILENCE_LIMIT || self.monitor.lease().has_ended()
    }

    fn is_replaceable(&self) -> bool {
        self.heard.elapsed() > SECOND_WATCH_AFTER || self.monitor.lease().has_ended()
    }
}

/// Ends every thread, and gives up those that do not return.
async fn stop_threads(watch: Watch, bank: Bank) {
    let mut leases: Vec<_> = vec![watch.monitor.lease().clone()];
    leases.extend(bank.leases());
    drop((watch, bank));
    let all_ended = async {
        while leases.iter().any(|lease| !lease.has_ended()) {
            time::sleep(Duration::from_millis(10)).await;
        }
    };
    if time::timeout(STOP_LIMIT, all_ended).await.is_err() {
        leases.iter().for_each(Lease::abandon);
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
