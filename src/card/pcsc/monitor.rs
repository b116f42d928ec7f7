//! The thread that watches: which readers are there, what is in their fields.
//! One context of its own, used for nothing else, so that no card operation can
//! hold it up. What does not live here: any word to a card (`worker`).

use std::collections::BTreeMap;
use std::ffi::{CStr, CString};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use pcsc::{Context, Error, PNP_NOTIFICATION, ReaderState, Scope, State};
use tokio::sync::mpsc;

use super::threads::{self, Lease};
use crate::card::backoff::Backoff;

/// The longest sleep in one look. Bounds how late a lost cancellation or a reader
/// that appeared between two looks is noticed.
const LOOK: Duration = Duration::from_millis(500);

/// What the monitor saw.
#[derive(Debug)]
pub(super) enum Notice {
    /// pcscd cannot be used.
    Down(Error),
    /// pcscd answers; these readers are there now, by name.
    Readers(Vec<String>),
    /// A card came into a field, or replaced another between two looks.
    Present { reader: String, atr: Vec<u8>, seen: Instant },
    /// A field is empty.
    Empty { reader: String },
    /// All that could be seen in this look has been told.
    Looked,
}

/// Handle to the thread.
pub(super) struct Monitor {
    shared: Arc<Shared>,
    lease: Lease,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    /// The context the thread now waits in, to cancel the wait.
    context: Mutex<Option<Context>>,
}

impl Monitor {
    /// Starts watching. Notices come until the handle is dropped; every look ends
    /// with one of `Down` or `Looked`, at least twice a second.
    pub(super) fn start(notices: mpsc::Sender<Notice>) -> std::io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let on_thread = Arc::clone(&shared);
        let lease = threads::start("pcsc-monitor", move || run(&on_thread, &notices))?;
        Ok(Self { shared, lease })
    }

    pub(super) fn lease(&self) -> &Lease {
        &self.lease
    }

    /// Gives the thread up; should it come back, it ends.
    pub(super) fn abandon(&self) {
        self.shared.stop.store(true, Ordering::Release);
        self.lease.abandon();
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        let context = self.shared.context.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(context) = context {
            // Cancelling asks pcscd, which may hang: never on the caller's thread.
            // Should it fail, the look ends by itself.
            let _ = threads::start("pcsc-cancel", move || {
                let _ = context.cancel();
            });
        }
    }
}

/// The other side has gone, or asked to stop.
struct Over;

fn run(shared: &Shared, notices: &mpsc::Sender<Notice>) {
    let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(2));
    while !shared.stop.load(Ordering::Acquire) {
        // Once pcscd was restarted the old context stays "valid" and fails for
        // ever: every fault ends in a new one.
        let fault = match Context::establish(Scope::System) {
            Ok(context) => match watch(shared, &context, notices, &mut backoff) {
                Ok(fault) => fault,
                Err(Over) => return,
            },
            Err(fault) => fault,
        };
        if notices.blocking_send(Notice::Down(fault)).is_err() {
            return;
        }
        std::thread::sleep(backoff.wait());
    }
}

/// Watches through one context until it fails.
fn watch(
    shared: &Shared,
    context: &Context,
    notices: &mpsc::Sender<Notice>,
    backoff: &mut Backoff,
) -> Result<Error, Over> {
    *shared.context.lock().unwrap_or_else(PoisonError::into_inner) = Some(context.clone());
    let mut looks = Looks::default();
    loop {
        if shared.stop.load(Ordering::Acquire) {
            return Err(Over);
        }
        match looks.once(context) {
            Ok(seen) => {
                backoff.reset();
                for notice in seen {
                    notices.blocking_send(notice).map_err(|_| Over)?;
                }
            }
            Err(Error::Cancelled) => {}
            Err(fault) => return Ok(fault),
        }
    }
}

/// What earlier looks saw.
#[derive(Default)]
struct Looks {
    /// As pcscd answered last, to be asked what changed since. The first is the
    /// pseudo-reader that tells of readers coming and going.
    states: Vec<ReaderState>,
    /// The card told last: reader and its event count.
    cards: BTreeMap<CString, Option<u32>>,
}

impl Looks {
    /// Lists the readers, then waits until something changes, or [`LOOK`] has passed.
    fn once(&mut self, context: &Context) -> Result<Vec<Notice>, Error> {
        let names = context.list_readers_owned()?;
        let mut notices = vec![Notice::Readers(names.iter().map(|name| text(name)).collect())];
        let fresh = self.follow(names);
        match context.get_status_change(if fresh { Duration::ZERO } else { LOOK }, &mut self.states) {
            Ok(()) => {}
            // A reader left between listing and asking: list again.
            Err(Error::Timeout | Error::UnknownReader | Error::ReaderUnavailable) => {
                return Ok(told(notices));
            }
            Err(fault) => return Err(fault),
        }
        let seen = Instant::now();
        for state in &mut self.states {
            if state.name() != PNP_NOTIFICATION() {
                notices.extend(changed(&mut self.cards, state, seen));
            }
            state.sync_current_state();
        }
        Ok(told(notices))
    }

    /// Asks about exactly these readers from now on. True when one is new.
    fn follow(&mut self, names: Vec<CString>) -> bool {
        self.cards.retain(|name, _| names.contains(name));
        self.states.retain(|state| {
            state.name() == PNP_NOTIFICATION() || names.iter().any(|name| name.as_c_str() == state.name())
        });
        if self.states.is_empty() {
            self.states.push(ReaderState::new(PNP_NOTIFICATION(), State::UNAWARE));
        }
        let mut fresh = false;
        for name in names {
            if self.states.iter().all(|state| state.name() != name.as_c_str()) {
                self.states.push(ReaderState::new(name, State::UNAWARE));
                fresh = true;
            }
        }
        fresh
    }
}

fn told(mut notices: Vec<Notice>) -> Vec<Notice> {
    notices.push(Notice::Looked);
    notices
}

/// What a reader's answer means, against what was told of it before. The event
/// count changes with every card, so that a swap between two looks is seen.
fn changed(cards: &mut BTreeMap<CString, Option<u32>>, state: &ReaderState, seen: Instant) -> Option<Notice> {
    let card = state.event_state().contains(State::PRESENT).then(|| state.event_count());
    let before = cards.insert(state.name().to_owned(), card);
    if before == Some(card) {
        return None;
    }
    let reader = text(state.name());
    Some(match card {
        Some(_) => Notice::Present { reader, atr: state.atr().to_vec(), seen },
        None => Notice::Empty { reader },
    })
}

fn text(name: &CStr) -> String {
    name.to_string_lossy().into_owned()
}
