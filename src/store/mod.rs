//! The local log and the state beside it: one SQLite file, one writer thread.
//! What lives here: schema and migrations, the writer, typed operations (one
//! file a topic), reads, trimming, checks, salvage and backups. What does not:
//! what the facts mean.
//!
//! ```text
//!  domains ── Batch{ops, events} ─► writer thread ── one transaction, one sync ─► file
//!  readers of the log ◄── head (watch) ── after the commit returned
//!      └── read(|r| r.events_after(…)) on reader connections, no transaction kept across an await
//!  keeper thread ── checkpoints, full check in slices, gauges
//! ```
//!
//! Who may use how much of the disk: `space`. What goes when: `trim` (the log), `history` (beside it). When a new
//! epoch begins: `epoch`, `open`. What happens to a damaged file: `salvage`.

mod alarm;
mod apply;
pub mod backup;
pub mod batches;
pub mod card_pins;
pub mod card_reports;
mod carry;
mod check;
pub mod clock_mark;
pub mod commands;
mod commit;
pub mod confirmations;
mod connection;
pub mod counter_words;
pub mod cursors;
pub mod devices;
mod epoch;
mod error;
mod gaps;
pub mod hands;
mod history;
pub mod hold;
pub mod hotlist;
pub mod inspect;
pub mod jobs;
mod keeper;
pub mod ledger;
pub mod ledger_cards;
pub mod ledger_figures;
pub mod ledger_replaced;
mod ledger_rows;
mod lock;
mod mark;
pub mod members;
mod open;
pub mod operators;
pub mod outbox;
mod pool;
mod queue;
pub mod recordings;
pub mod requests;
pub mod rows;
mod salvage;
mod seal;
pub mod shifts;
mod space;
mod stats;
mod tally;
pub mod tokens;
mod trim;
mod upkeep;
pub mod visits;
mod wal;
pub mod warnings;
mod writer;

pub use error::StoreError;
pub use gaps::Missing;
pub use history::HistoryLimits;
pub use open::{ClassLimit, Opened, StoreOptions};
pub use salvage::Salvaged;
pub use stats::{ClassStats, Stats};

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rusqlite::Connection;
use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;

use apply::CheckedBatch;

use crate::event::{Class, Event, NewEvent};
use crate::health::Health;
use crate::ident::{Epoch, Seq};

/// A local position in the log, monotonic across epochs. Never leaves the house.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Offset(pub i64);

/// Where the log stands; changes after every commit, also one without events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// The running epoch.
    pub epoch: Epoch,
    /// The last event.
    pub last: Offset,
    /// Commits since the start: rises even when only state changed, so that
    /// services waiting for a request wake up.
    pub commits: u64,
}

/// One change of state, applied in the transaction of its batch.
#[derive(Debug, Clone)]
pub enum Op {
    /// Device states and cards in the field.
    Device(devices::DeviceOp),
    /// Visits, reports, adapters.
    Visit(visits::VisitOp),
    /// Warnings.
    Warning(warnings::WarningOp),
    /// Print jobs.
    Job(jobs::JobOp),
    /// Requests.
    Request(requests::RequestOp),
    /// Batches of cards to give out.
    Batch(batches::BatchOp),
    /// What a person in the store must say yes to.
    Confirmation(confirmations::ConfirmationOp),
    /// Transactions on cards.
    Ledger(ledger::LedgerOp),
    /// Member cards.
    Card(ledger_cards::CardOp),
    /// Cursors of local readers.
    Cursor(cursors::CursorOp),
    /// Delivery to headquarters.
    Outbox(outbox::OutboxOp),
    /// Commands of headquarters.
    Command(commands::CommandOp),
    /// Cards reported before they were ever seen.
    Report(card_reports::ReportOp),
    /// Members who have no card yet.
    Member(members::MemberOp),
    /// PINs of cards.
    CardPin(card_pins::CardPinOp),
    /// Headquarters' list of stopped cards.
    Hotlist(hotlist::HotlistOp),
    /// What headquarters sends for the counter.
    CounterWords(counter_words::CounterWordsOp),
    /// The wall clock.
    Clock(clock_mark::ClockOp),
    /// Tokens.
    Token(tokens::TokenOp),
    /// People at the tills.
    Operator(operators::OperatorOp),
    /// Shifts of tills.
    Shift(shifts::ShiftOp),
}

/// State and its events: committed together or not at all.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    /// Applied in order, before the events are appended.
    pub ops: Vec<Op>,
    /// Appended in order.
    pub events: Vec<NewEvent>,
    /// May wait up to a second for company, to spare the flash (telemetry only).
    pub patient: bool,
}

impl Batch {
    /// An empty batch.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an operation.
    #[must_use]
    pub fn op(mut self, op: Op) -> Self {
        self.ops.push(op);
        self
    }

    /// Adds an event.
    #[must_use]
    pub fn event(mut self, event: NewEvent) -> Self {
        self.events.push(event);
        self
    }
}

/// Handle to the store; cheap to clone.
#[derive(Clone)]
pub struct Store {
    writer: queue::Handle,
    head: watch::Receiver<Head>,
    readers: Arc<pool::ReaderPool>,
    alarm: Arc<alarm::Alarm>,
    background: keeper::Calls,
    /// Whether headquarters may have seen an event of this run.
    shown: Arc<AtomicBool>,
    /// The data folder, for files beside the database.
    folder: Arc<std::path::Path>,
    hands: hands::Hands,
}

impl Store {
    /// Commits a batch. When this returns `Ok`, the batch is on the disk; the
    /// events come back with their positions, in the batch's order.
    ///
    /// # Errors
    /// [`StoreError`]; nothing of the batch took effect.
    pub async fn commit(&self, batch: Batch) -> Result<Vec<Arc<Event>>, StoreError> {
        let batch = CheckedBatch::new(batch)?;
        let (reply, answer) = oneshot::channel();
        self.writer.send(batch, reply).await?;
        Ok(answer.await.map_err(|_| StoreError::Closed)??.events())
    }

    /// The transactions that somebody in this process is writing.
    #[must_use]
    pub fn hands(&self) -> &hands::Hands {
        &self.hands
    }

    /// Follows the log's head.
    #[must_use]
    pub fn head(&self) -> watch::Receiver<Head> {
        self.head.clone()
    }

    /// Reads on a reader connection, off the async threads.
    ///
    /// # Errors
    /// What `query` returns, or [`StoreError::Closed`].
    pub async fn read<T, F>(&self, query: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Reader<'_>) -> Result<T, StoreError> + Send + 'static,
    {
        Arc::clone(&self.readers).with(query).await
    }

    /// Starts what may wait until the daemon is ready: the full check in slices and
    /// the gauges of `/metrics`, until `stop`. From here on the store's troubles
    /// (`store/file`, `store/disk`, `store/space`) and the writer's heartbeat
    /// (`store-writer`, at least every 5 s) are on `health`. Call it once.
    pub fn start_background(&self, health: Health, stop: CancellationToken) {
        self.alarm.attach(health);
        if self.background.try_send(keeper::Call::Watch(stop)).is_err() {
            tracing::warn!("the store's background work did not start");
        }
    }

    /// From now on headquarters may see events of this run under their numbers.
    pub fn note_shown(&self) {
        self.shown.store(true, Ordering::Release);
    }

    /// Whether headquarters may have seen an event of this run.
    #[must_use]
    pub fn has_shown(&self) -> bool {
        self.shown.load(Ordering::Acquire)
    }

    /// Damage was met by a reader that goes on without what it could not read:
    /// `/readyz` says so and the next start salvages.
    pub fn note_damage(&self, error: &StoreError) {
        if error.is_damage() {
            self.alarm.damage(&error.to_string());
        }
    }

    /// Takes new limits at run time: of the file in bytes, and of the classes.
    ///
    /// # Errors
    /// [`StoreError::Closed`].
    pub async fn set_limits(
        &self,
        max_bytes: u64,
        classes: Vec<(Class, ClassLimit)>,
    ) -> Result<(), StoreError> {
        self.writer.limits(max_bytes, classes).await
    }

    /// Takes another limit of what lies beside the log.
    ///
    /// # Errors
    /// [`StoreError::Closed`].
    pub async fn set_history(&self, limits: HistoryLimits) -> Result<(), StoreError> {
        self.writer.history(limits).await
    }

    /// Ends the writer after all queued batches are committed, and marks the
    /// shutdown as clean. Later commits get [`StoreError::Closed`].
    pub async fn close(&self) {
        self.writer.close().await;
    }
}

/// A reader connection for the length of one query. The read functions stand in the topic files.
pub struct Reader<'c> {
    pub(crate) conn: &'c Connection,
}

/// Where a class stands for the outside: epoch and class sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClassPosition {
    /// The epoch.
    pub epoch: Epoch,
    /// Position in the class within the epoch.
    pub class_sequence: Seq,
}
