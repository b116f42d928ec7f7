//! All readers of one table: which are there, what is in their fields, who speaks
//! with it. Fed by the driver task; what happens is decided in `field`.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use wildmatch::WildMatch;

use super::condition::{Service, SlotState, condition};
use super::monitor::Notice;
use super::restart_wanted;
use super::sam_slot::{self, Tables};
use super::threads::Lease;
use super::worker::{Outcome, Worker};
use crate::card::backoff::Backoff;
use crate::card::field::{Field, Input, Output, Stay};
use crate::card::member::Members;
use crate::card::report::{Report, Reports, Unheard};
use crate::card::verdict::{Refusal, Verdict};
use crate::card::work::Errand;
use crate::config::tables::{ReaderGlobs, ReaderRole};

/// An identification takes tens of milliseconds, a few hundred on a bad day. Past
/// this the reader counts as hung and its thread is given up.
const IDENTIFY_LIMIT: Duration = Duration::from_secs(4);
/// So many threads may hang on one reader before its cards are refused unasked.
const MAX_HUNG_A_READER: usize = 2;

/// Whether a reader of this name serves the table. SAM slots show as readers with
/// a card always in; whatever the glob, they never give a member card.
pub(super) fn serves(glob: &WildMatch, role: ReaderRole, name: &str) -> bool {
    glob.matches(name) && (role == ReaderRole::Sam || !sam_slot::is_named_sam(name))
}

/// What lies in a reader.
struct Laid {
    id: u64,
    atr: Vec<u8>,
    seen: Instant,
}

/// One matching reader.
#[derive(Default)]
struct Slot {
    field: Field,
    /// What its field was told of, and has not been told to be gone.
    shown: Option<u64>,
    atr: Vec<u8>,
    seen: Option<Instant>,
    worker: Option<Worker>,
    /// Threads given up on this reader that have not returned.
    hung: Vec<Lease>,
    since: Option<Instant>,
    fault: Option<Refusal>,
    /// When to ask a card again that the reader kept us from asking.
    retry: Option<(Backoff, Instant)>,
}

/// All readers of one table.
pub(super) struct Bank {
    glob: String,
    pattern: WildMatch,
    role: ReaderRole,
    /// In which readers a SAM may be.
    tables: Tables,
    /// Every reader that pcscd knows.
    names: Vec<String>,
    /// What lies in any of them: whose it is may depend on which others are there.
    laid: BTreeMap<String, Laid>,
    members: Option<Arc<Members>>,
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
    pub(super) fn new(
        glob: String,
        (role, globs): (ReaderRole, &ReaderGlobs),
        members: Option<Arc<Members>>,
        reports: Reports,
        outcomes: mpsc::Sender<Outcome>,
    ) -> Self {
        Self {
            pattern: WildMatch::new(&glob),
            glob,
            role,
            tables: Tables::new(globs),
            names: Vec::new(),
            laid: BTreeMap::new(),
            members,
            reports,
            outcomes,
            service: Service::Unknown,
            slots: BTreeMap::new(),
            last_id: 0,
            looked: false,
            any_occupied: None,
        }
    }

    /// What was seen is acted on once the whole look is known.
    pub(super) async fn notice(&mut self, notice: Notice) -> Result<(), Unheard> {
        match notice {
            Notice::Down(error) => return self.service_down(Service::Down(error)).await,
            Notice::Readers(names) => {
                self.service = Service::Up;
                self.laid.retain(|name, _| names.contains(name));
                self.names = names;
            }
            Notice::Present { reader, atr, seen } => {
                let laid = Laid { id: self.fresh_id(), atr, seen };
                self.laid.insert(reader, laid);
            }
            Notice::Empty { reader } => drop(self.laid.remove(&reader)),
            Notice::Looked => {
                self.looked = true;
                self.readers().await?;
                for name in self.slots.keys().cloned().collect::<Vec<_>>() {
                    self.field_of(&name).await?;
                }
                return self.tell_state().await;
            }
        }
        Ok(())
    }

    /// Tells one reader's field what lies there now, where that is the table's.
    async fn field_of(&mut self, name: &str) -> Result<(), Unheard> {
        let laid = self.laid.get(name).map(|laid| laid.id);
        let Some(shown) = self.slots.get(name).map(|slot| slot.shown) else { return Ok(()) };
        // A member's card that was told stays one, also when the reader beside it is unplugged.
        if shown == laid && (laid.is_none() || self.role == ReaderRole::Card) {
            return Ok(());
        }
        let ours = laid.filter(|_| self.is_ours(name));
        if shown == ours {
            return Ok(());
        }
        let stay = ours.map(|_| Stay(self.fresh_id()));
        let Some(slot) = self.slots.get_mut(name) else { return Ok(()) };
        slot.shown = ours;
        match (stay, self.laid.get(name)) {
            (Some(stay), Some(laid)) => {
                slot.atr.clone_from(&laid.atr);
                slot.seen = Some(laid.seen);
                slot.retry = None;
                self.feed(name, Input::Present(stay)).await
            }
            _ => self.feed(name, Input::Empty).await,
        }
    }

    /// Whether what lies there is what the table is for: a card, or the SAM.
    fn is_ours(&self, reader: &str) -> bool {
        let Some(laid) = self.laid.get(reader) else { return false };
        match self.role {
            ReaderRole::Card => !self.tables.is_sam(self.names(), reader, &laid.atr),
            ReaderRole::Sam => sam_slot::can_be_sam(reader, &laid.atr),
        }
    }

    fn names(&self) -> impl Iterator<Item = &str> + Clone {
        self.names.iter().map(String::as_str)
    }

    /// Readers come and go; what goes takes its card along.
    async fn readers(&mut self) -> Result<(), Unheard> {
        let serving = self.serving();
        let gone: Vec<String> = self.slots.keys().filter(|name| !serving.contains(name)).cloned().collect();
        for name in gone {
            tracing::info!(reader = %name, "reader gone");
            self.feed(&name, Input::Empty).await?;
            self.retire(&name);
        }
        for name in serving {
            if let Entry::Vacant(free) = self.slots.entry(name) {
                tracing::info!(reader = %free.key(), "reader found");
                free.insert(Slot::default());
            }
        }
        Ok(())
    }

    /// The readers that serve the table.
    fn serving(&self) -> Vec<String> {
        match self.role {
            ReaderRole::Card => {
                let serves = |name: &&String| serves(&self.pattern, self.role, name);
                self.names.iter().filter(serves).cloned().collect()
            }
            ReaderRole::Sam => {
                self.tables.meant(&self.glob, self.names()).into_iter().map(str::to_owned).collect()
            }
        }
    }

    pub(super) async fn service_down(&mut self, service: Service) -> Result<(), Unheard> {
        self.service = service;
        self.looked = true;
        self.laid.clear();
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

    pub(super) async fn outcome(&mut self, outcome: Outcome) -> Result<(), Unheard> {
        let Outcome { worker, reader, stay, verdict } = outcome;
        let Some(slot) = self.slots.get_mut(&reader) else { return Ok(()) };
        let own = slot.worker.as_ref().is_some_and(|own| own.id == worker);
        // Even a late word shows that the reader is alive.
        slot.fault = match verdict {
            Verdict::Refused(refusal) if refusal.is_the_readers() && own => Some(refusal),
            _ => None,
        };
        if own {
            slot.since = None;
            self.feed(&reader, Input::Verdict(stay, verdict)).await?;
        } else {
            self.feed(&reader, Input::Again).await?;
        }
        self.tell_state().await
    }

    pub(super) async fn overdue(&mut self) -> Result<(), Unheard> {
        let late = self.slots.iter().filter_map(|(name, slot)| {
            let stay = slot.field.identifying()?;
            (slot.since?.elapsed() > IDENTIFY_LIMIT).then(|| (name.clone(), stay))
        });
        for (name, stay) in late.collect::<Vec<_>>() {
            tracing::warn!(reader = %name, "reader does not return from a card operation");
            self.feed(&name, Input::Overdue(stay)).await?;
        }
        for name in self.slots.keys().cloned().collect::<Vec<_>>() {
            self.ask_again(&name).await?;
        }
        self.tell_state().await
    }

    /// A card that the reader kept us from asking is asked again while it lies there.
    async fn ask_again(&mut self, name: &str) -> Result<(), Unheard> {
        let Some(slot) = self.slots.get_mut(name) else { return Ok(()) };
        slot.hung.retain(|lease| !lease.has_ended());
        if !slot.field.may_be_asked_again() || !slot.hung.is_empty() {
            return Ok(());
        }
        let now = Instant::now();
        let (backoff, at) = slot.retry.get_or_insert_with(|| {
            let mut backoff = Backoff::new(Duration::from_secs(2), Duration::from_secs(30));
            let first = backoff.wait();
            (backoff, now + first)
        });
        if now < *at {
            return Ok(());
        }
        *at = now + backoff.wait();
        self.feed(name, Input::Again).await
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
            slot.worker = Worker::start(id, name, self.members.clone(), self.outcomes.clone())
                .inspect_err(|error| tracing::error!(%error, "no thread for the reader"))
                .ok();
        }
        slot.since = Some(Instant::now());
        if slot.worker.as_ref().is_some_and(|worker| worker.identify(stay, slot.atr.clone())) {
            return Ok(());
        }
        slot.worker = None;
        slot.fault = Some(Refusal::ReaderError);
        let refused = Input::Verdict(stay, Verdict::Refused(Refusal::ReaderError));
        Box::pin(self.feed(name, refused)).await
    }

    /// Work with the card on one reader, by the thread that knows it.
    pub(super) fn errand(&self, errand: Errand) {
        match self.slots.get(&errand.slot).and_then(|slot| slot.worker.as_ref()) {
            Some(worker) => worker.work(errand),
            None => errand.cut(),
        }
    }

    /// The threads that now speak for these readers.
    pub(super) fn leases(&self) -> impl Iterator<Item = Lease> {
        self.slots.values().filter_map(|slot| Some(slot.worker.as_ref()?.lease().clone()))
    }

    /// Whether a card of the table's lies in that reader.
    #[cfg(test)]
    pub(super) fn is_occupied(&self, name: &str) -> bool {
        self.slots.get(name).is_some_and(|slot| slot.field.is_occupied())
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
