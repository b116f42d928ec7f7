//! What headquarters wants this gateway to have, as it stands retained on the broker: so far the
//! list of stopped cards (`desired/hotlist`). What lives here: the task that brings it about. What
//! does not: what a message means and what of it is taken (`list`, pure), the bytes at an address
//! (`fetch`), and keeping the list (the store).
//!
//! ```text
//!  retained message ─► older, here already, renewed … or its file: fetched ─► size, digest, form
//!      ─► what differs from the list here: one commit     └ refused: said in `state`, the old list stays
//! ```
//! The message may be acknowledged before: the broker shows it again at every connection.

mod fetch;
mod list;

use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

use self::list::{Refused, Step, Wanted};
use super::Setup;
use super::chatter::Chatter;
use crate::clock::{TimeQuality, UtcMillis};
use crate::store::hotlist::HotlistOp;
use crate::store::{Batch, Op, Store, StoreError};

/// Waits before trying again what may go better later; doubled up to the longest.
const RETRY_FIRST: Duration = Duration::from_secs(5);
/// Headquarters' file server is not asked more seldom than this.
const RETRY_MOST: Duration = Duration::from_secs(3600);
/// While nobody has set the clock it is looked at again this often.
const CLOCK_AGAIN: Duration = Duration::from_secs(2);

/// Why the list that headquarters wants is not here.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    /// Headquarters has to publish another message.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// Its age would be told by a clock that nobody has set.
    #[error("clock not synchronised: the list is taken once the clock is set")]
    ClockUnsynced,
    /// The file is not to be had now.
    #[error("{0}")]
    Fetch(String),
    /// The database did not take it now.
    #[error("the list cannot be kept: {0}")]
    Store(StoreError),
}

impl From<StoreError> for Trouble {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::HotlistRefused { what } => Self::Refused(Refused::Store(what)),
            error => Self::Store(error),
        }
    }
}

/// What became of a message, as the metrics name it.
enum Done {
    Taken,
    Renewed,
    Here,
}

/// The task, as the uplink holds it. Dropped, it ends.
pub(super) struct Desired {
    wanted: watch::Sender<Option<Bytes>>,
    refused: watch::Receiver<Option<String>>,
    _stop: DropGuard,
}

impl Desired {
    pub(super) fn start(setup: Setup, store: Store) -> Self {
        let (wanted, heard) = watch::channel(None);
        let (told, refused) = watch::channel(None);
        let stop = CancellationToken::new();
        let keeper = Keeper { setup, store, told, chatter: Chatter::default() };
        tokio::spawn(keeper.run(heard, stop.clone()));
        Self { wanted, refused, _stop: stop.drop_guard() }
    }

    /// The newest message counts; one that is being carried out is not cut off.
    pub(super) fn heard(&self, payload: &Bytes) {
        self.wanted.send_replace(Some(payload.clone()));
    }

    /// Whether something was taken or refused since [`Desired::refused`] was asked.
    pub(super) fn changed(&self) -> bool {
        self.refused.has_changed().unwrap_or(false)
    }

    /// Why the list that headquarters wants is not here.
    pub(super) fn refused(&mut self) -> Option<String> {
        self.refused.borrow_and_update().clone()
    }
}

struct Keeper {
    setup: Setup,
    store: Store,
    told: watch::Sender<Option<String>>,
    chatter: Chatter,
}

impl Keeper {
    async fn run(mut self, mut heard: watch::Receiver<Option<Bytes>>, stop: CancellationToken) {
        let mut again = None;
        let mut patience = RETRY_FIRST;
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                changed = heard.changed() => match changed {
                    Ok(()) => patience = RETRY_FIRST,
                    Err(_) => return,
                },
                () = tokio::time::sleep(again.unwrap_or_default()), if again.is_some() => {}
            }
            // A retained message that was taken off the broker: nothing is wanted.
            let payload = heard.borrow_and_update().clone().filter(|payload| !payload.is_empty());
            let Some(payload) = payload else {
                again = None;
                self.told.send_replace(None);
                continue;
            };
            let took = tokio::select! {
                () = stop.cancelled() => return,
                took = self.take(&payload) => took,
            };
            again = match &took {
                Err(Trouble::ClockUnsynced) => Some(CLOCK_AGAIN),
                // A command may have come between.
                Err(Trouble::Fetch(_) | Trouble::Store(_) | Trouble::Refused(Refused::Store(_))) => {
                    let wait = patience;
                    patience = (patience * 2).min(RETRY_MOST);
                    Some(wait)
                }
                Ok(_) | Err(Trouble::Refused(_)) => None,
            };
            self.tell(took);
        }
    }

    /// Brings about what a message wants. What is here already is not written again.
    async fn take(&self, payload: &[u8]) -> Result<Done, Trouble> {
        let wanted = Wanted::parse(payload)?;
        let here = self.store.read(|r| r.hotlist()).await?;
        if wanted.is_here(here) {
            return Ok(Done::Here);
        }
        // What changes something waits for the time, as commands do.
        if (self.setup.quality)() == TimeQuality::Unsynced {
            return Err(Trouble::ClockUnsynced);
        }
        let op = match wanted.step(here, UtcMillis::now())? {
            Step::Renew(op) => {
                self.store.commit(Batch::new().op(Op::Hotlist(op))).await?;
                return Ok(Done::Renewed);
            }
            Step::Fetch => {
                let file = fetch::get(&wanted.url, wanted.size, &self.setup).await?;
                wanted.read(&file, UtcMillis::now())?
            }
        };
        let op = match (op, here) {
            // A new list is mostly the old one: only what differs is written, and taps wait the less.
            (HotlistOp::Put { version, as_of, cards }, Some(here)) => {
                let had = self.store.read(|r| r.hotlist_cards()).await?;
                list::difference(here.version, version, as_of, &had, cards)
            }
            (op, _) => op,
        };
        self.store.commit(Batch::new().op(Op::Hotlist(op))).await?;
        Ok(Done::Taken)
    }

    fn tell(&mut self, took: Result<Done, Trouble>) {
        let (outcome, refused) = match took {
            Ok(Done::Taken) => {
                tracing::info!("list of stopped cards taken from desired/hotlist");
                ("taken", None)
            }
            Ok(Done::Renewed) => ("renewed", None),
            Ok(Done::Here) => ("here", None),
            Err(trouble) => {
                let outcome = if matches!(trouble, Trouble::Refused(_)) { "refused" } else { "failed" };
                if let Some(left_out) = self.chatter.may("desired-hotlist", Instant::now()) {
                    tracing::warn!(error = %trouble, left_out, "desired/hotlist not taken; the list that is here stays");
                }
                (outcome, Some(trouble.to_string()))
            }
        };
        metrics::counter!("baygate_uplink_desired_total", "name" => "hotlist", "outcome" => outcome)
            .increment(1);
        self.told.send_if_modified(|told| {
            let news = outcome != "here" || *told != refused;
            *told = refused;
            news
        });
    }
}
