//! Reader kind `pcsc`: every reader behind pcscd whose name matches the table's
//! glob. The blocking world stays on named threads: one that watches (`monitor`),
//! one for each reader that speaks with its cards (`worker`). This file is the
//! async task between them; what it decides is pure (`field`, `condition`).
//!
//! ```text
//!  monitor ── readers, present, empty ─►  drive  ─► report ─► service
//!  worker (one a reader) ◄── identify ──┘  ▲
//!                        └── verdict ──────┘
//! ```

mod condition;
mod monitor;
mod threads;
mod worker;

use std::collections::BTreeMap;
use std::future;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::time::{self, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use wildmatch::WildMatch;

pub use threads::{MAX_ABANDONED_THREADS, abandoned_threads, restart_wanted};

use self::condition::{Service, SlotState, condition};
use self::monitor::{Monitor, Notice};
use self::threads::Lease;
use self::worker::{Job, Outcome, Worker};
use super::CardError;
use super::field::{Field, Input, Output, Stay};
use super::report::{Report, Reports, Unheard};
use super::verdict::{Refusal, Verdict};
use crate::config::tables::ReaderRole;

/// An identification takes tens of milliseconds, a few hundred on a bad day. Past
/// this the reader counts as hung and its thread is given up.
const IDENTIFY_LIMIT: Duration = Duration::from_secs(4);
/// The monitor speaks twice a second; past this pcscd counts as hung.
const SILENCE_LIMIT: Duration = Duration::from_secs(6);
/// A hung monitor ends when pcscd goes away or comes back; only past this another
/// is tried beside it.
const SECOND_WATCH_AFTER: Duration = Duration::from_secs(60);
/// So many threads may hang on one reader before its cards are refused unasked.
const MAX_HUNG_A_READER: usize = 2;
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

/// Whether a reader of this name serves the table. SAM slots show as readers with
/// a card always in; whatever the glob, they never give a member card.
fn serves(glob: &WildMatch, role: ReaderRole, name: &str) -> bool {
    let is_sam = name.split(|c: char| !c.is_ascii_alphanumeric()).any(|word| word == "SAM");
    glob.matches(name) && (role == ReaderRole::Sam || !is_sam)
}

/// Serves the readers matching `glob` until `stop`.
pub(super) async fn drive(
    glob: String,
    role: ReaderRole,
    reports: Reports,
    stop: CancellationToken,
) -> Result<(), CardError> {
    let (outcomes, mut finished) = mpsc::channel(16);
    let mut bank = Bank::new(glob, role, reports, outcomes);
    let mut watch = Watch::start()?;
    let mut ticks = time::interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let heard = tokio::select! {
            () = stop.cancelled() => break,
            notice = watch.notices.recv() => match notice {
                Some(notice) => {
                    watch.heard = Instant::now();
                    bank.notice(notice).await
                }
                // The thread died; a tick finds it and starts another.
                None => future::pending().await,
            },
            Some(outcome) = finished.recv() => bank.outcome(outcome).await,
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
    leases.extend(bank.slots.values().filter_map(|slot| Some(slot.worker.as_ref()?.lease().clone())));
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

/// One matching reader.
#[derive(Default)]
struct Slot {
    field: Field,
    atr: Vec<u8>,
    seen: Option<Instant>,
    worker: Option<Worker>,
    /// Threads given up on this reader that have not returned.
    hung: Vec<Lease>,
    since: Option<Instant>,
    fault: Option<Refusal>,
}

/// All readers of one table.
struct Bank {
    glob: String,
    pattern: WildMatch,
    role: ReaderRole,
    reports: Reports,
    outcomes: mpsc::Sender<Outcome>,
    service: Service,
    slots: BTreeMap<String, Slot>,
    /// Stays and workers are numbered through, so that late words are known as such.
    last_id: u64,
    /// Whether every field has been looked at once.
    looked: bool,
    /// Whether any was occupied when last said.
    any_occupied: Option<bool>,
}

impl Bank {
    fn new(glob: String, role: ReaderRole, reports: Reports, outcomes: mpsc::Sender<Outcome>) -> Self {
        Self {
            pattern: WildMatch::new(&glob),
            glob,
            role,
            reports,
            outcomes,
            service: Service::Unknown,
            slots: BTreeMap::new(),
            last_id: 0,
            looked: false,
            any_occupied: None,
        }
    }

    async fn notice(&mut self, notice: Notice) -> Result<(), Unheard> {
        match notice {
            Notice::Down(error) => return self.service_down(Service::Down(error)).await,
            Notice::Readers(names) => self.readers(&names).await?,
            Notice::Present { reader, atr, seen } => {
                let stay = Stay(self.fresh_id());
                if let Some(slot) = self.slots.get_mut(&reader) {
                    slot.atr = atr;
                    slot.seen = Some(seen);
                    self.feed(&reader, Input::Present(stay)).await?;
                }
            }
            Notice::Empty { reader } => self.feed(&reader, Input::Empty).await?,
            Notice::Looked => {
                self.looked = true;
                return self.tell_state().await;
            }
        }
        Ok(())
    }

    /// Readers come and go; what goes takes its card along.
    async fn readers(&mut self, names: &[String]) -> Result<(), Unheard> {
        self.service = Service::Up;
        let gone: Vec<String> = self.slots.keys().filter(|name| !names.contains(name)).cloned().collect();
        for name in gone {
            tracing::info!(reader = %name, "reader gone");
            self.feed(&name, Input::Empty).await?;
            self.retire(&name);
        }
        for name in names.iter().filter(|name| serves(&self.pattern, self.role, name)) {
            if !self.slots.contains_key(name) {
                tracing::info!(reader = %name, "reader found");
                self.slots.insert(name.clone(), Slot::default());
            }
        }
        Ok(())
    }

    async fn service_down(&mut self, service: Service) -> Result<(), Unheard> {
        self.service = service;
        self.looked = true;
        for name in self.slots.keys().cloned().collect::<Vec<_>>() {
            self.feed(&name, Input::Empty).await?;
            self.retire(&name);
        }
        self.tell_state().await
    }

    /// Forgets a reader. A thread still inside a call is given up.
    fn retire(&mut self, name: &str) {
        if let Some(slot) = self.slots.remove(name)
            && slot.field.identifying().is_some()
            && let Some(worker) = slot.worker
        {
            worker.abandon();
        }
    }

    async fn outcome(&mut self, outcome: Outcome) -> Result<(), Unheard> {
        let Outcome { worker, reader, stay, verdict } = outcome;
        let Some(slot) = self.slots.get_mut(&reader) else { return Ok(()) };
        let own = slot.worker.as_ref().is_some_and(|own| own.id == worker);
        // Even a late word shows that the reader is alive.
        slot.fault = match verdict {
            Verdict::Refused(refusal) if refusal != Refusal::Unreadable && own => Some(refusal),
            _ => None,
        };
        if own {
            slot.since = None;
            self.feed(&reader, Input::Verdict(stay, verdict)).await?;
        }
        self.tell_state().await
    }

    async fn overdue(&mut self) -> Result<(), Unheard> {
        let late = self.slots.iter().filter_map(|(name, slot)| {
            let stay = slot.field.identifying()?;
            (slot.since?.elapsed() > IDENTIFY_LIMIT).then(|| (name.clone(), stay))
        });
        for (name, stay) in late.collect::<Vec<_>>() {
            tracing::warn!(reader = %name, "reader does not return from a card operation");
            self.feed(&name, Input::Overdue(stay)).await?;
        }
        self.tell_state().await
    }

    /// Feeds one reader's field and does what it says.
    async fn feed(&mut self, name: &str, input: Input) -> Result<(), Unheard> {
        let Some(slot) = self.slots.get_mut(name) else { return Ok(()) };
        let (field, outputs) = std::mem::take(&mut slot.field).next(input);
        slot.field = field;
        for output in outputs {
            match output {
                // A SAM is never a member card.
                Output::Identify(_) if self.role == ReaderRole::Sam => {}
                Output::Identify(stay) => self.identify(name, stay).await?,
                Output::Abandon => {
                    if let Some(slot) = self.slots.get_mut(name) {
                        slot.fault = Some(Refusal::NoAnswer);
                        slot.since = None;
                        slot.hung.extend(slot.worker.take().map(Worker::abandon));
                    }
                }
                Output::Tapped(_, card) => {
                    let seen = self.slots.get(name).and_then(|slot| slot.seen).unwrap_or_else(Instant::now);
                    let slot = name.to_owned();
                    self.reports.tell(Report::Tapped { slot, card, seen }).await?;
                }
                Output::Removed => self.reports.tell(Report::Removed { slot: name.to_owned() }).await?,
                Output::Refused(refusal) => self.reports.tell(Report::Refused(refusal)).await?,
            }
        }
        Ok(())
    }

    /// Hands the card to the reader's thread. Where there is none to be had, that
    /// is the verdict.
    async fn identify(&mut self, name: &str, stay: Stay) -> Result<(), Unheard> {
        let id = self.fresh_id();
        let Some(slot) = self.slots.get_mut(name) else { return Ok(()) };
        slot.hung.retain(|lease| !lease.has_ended());
        if slot.hung.len() >= MAX_HUNG_A_READER {
            let refused = Input::Verdict(stay, Verdict::Refused(Refusal::NoAnswer));
            return Box::pin(self.feed(name, refused)).await;
        }
        if slot.worker.is_none() && !restart_wanted() {
            slot.worker = Worker::start(id, name, self.outcomes.clone())
                .inspect_err(|error| tracing::error!(%error, "no thread for the reader"))
                .ok();
        }
        let job = Job { stay, atr: slot.atr.clone() };
        slot.since = Some(Instant::now());
        if slot.worker.as_ref().is_some_and(|worker| worker.identify(job)) {
            return Ok(());
        }
        slot.worker = None;
        slot.fault = Some(Refusal::ReaderError);
        let refused = Input::Verdict(stay, Verdict::Refused(Refusal::ReaderError));
        Box::pin(self.feed(name, refused)).await
    }

    fn fresh_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    /// Says how the readers are, and when the last card has left.
    async fn tell_state(&mut self) -> Result<(), Unheard> {
        let slots: Vec<SlotState> = self
            .slots
            .values()
            .map(|slot| SlotState { occupied: slot.field.is_occupied(), fault: slot.fault })
            .collect();
        let occupied = slots.iter().any(|slot| slot.occupied);
        if self.looked && self.any_occupied.replace(occupied) != Some(occupied) && !occupied {
            self.reports.tell(Report::AllEmpty).await?;
        }
        self.reports.tell(Report::State(condition(self.service, self.role, &self.glob, &slots))).await
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
