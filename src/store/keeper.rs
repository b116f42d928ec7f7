//! The keeper: a thread beside the writer with connections of its own. It copies
//! the WAL into the file, checks the file slice by slice in the background, and
//! keeps the gauges of `/metrics`.
//!
//! It checkpoints in a lull: a passive checkpoint waits for nobody, and whoever comes
//! meanwhile need not wait for it. Without a lull the writer does it by itself
//! (`writer`): both at once want the same disk, and the WAL is never copied to its end,
//! where alone it is written from its beginning again. The file is not cut back for
//! that, because writing over costs half as much a sync as growing anew. Only past
//! [`WAL_LONG_PAGES`] it is cut, when there is nothing left to copy. A reader that
//! holds its snapshot can make the WAL grow: that counts as used space (`space`),
//! so the file's limit bounds it too.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rusqlite::Connection;
use tokio_util::sync::CancellationToken;

use super::alarm::Alarm;
use super::check::FullCheck;
use super::connection::Checkpoint;
use super::{Reader, StoreError, connection};

/// WAL pages from which its file is cut back.
const WAL_LONG_PAGES: i64 = connection::WAL_KEPT_BYTES / 4096;
/// How often the gauges are set, when anything was committed.
const GAUGES_EVERY: Duration = Duration::from_secs(15);
/// The full check rests at least this long after each slice, and nine times as long as the slice took.
const REST: Duration = Duration::from_millis(50);
/// From the end of one full check to the next.
const CHECK_AGAIN: Duration = Duration::from_secs(24 * 3600);

pub(super) enum Call {
    Checkpoint,
    Watch(CancellationToken),
    End,
}

/// Handle to the thread.
pub(super) struct Keeper {
    calls: SyncSender<Call>,
    thread: JoinHandle<()>,
    wal_pages: Arc<AtomicU64>,
}

/// Lets a [`super::Store`] start the background work.
pub(super) type Calls = SyncSender<Call>;

impl Keeper {
    pub(super) fn start(path: PathBuf, alarm: Arc<Alarm>) -> Result<Self, StoreError> {
        let (calls, inbox) = sync_channel(8);
        let conn = connection::checkpointer(&path)?;
        let wal_pages = Arc::new(AtomicU64::new(0));
        let work = Work { path, alarm, conn, wal_pages: Arc::clone(&wal_pages), watch: None };
        let thread = std::thread::Builder::new()
            .name("store-keeper".into())
            .spawn(move || work.run(&inbox))
            .map_err(|source| StoreError::Thread { name: "store-keeper", source })?;
        Ok(Self { calls, thread, wal_pages })
    }

    pub(super) fn calls(&self) -> Calls {
        self.calls.clone()
    }

    /// Pages in the WAL, as the last commit left them or the last checkpoint cut them back.
    pub(super) fn wal_pages(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.wal_pages)
    }

    /// Asks for a checkpoint. A queue that is full has one asked for already.
    pub(super) fn checkpoint(&self) {
        let _ = self.calls.try_send(Call::Checkpoint);
    }

    /// Ends the thread and waits for it: at most one slice or one checkpoint.
    pub(super) fn end(self) {
        let _ = self.calls.send(Call::End);
        if self.thread.join().is_err() {
            tracing::error!("the store's keeper thread panicked");
        }
    }
}

struct Work {
    path: PathBuf,
    alarm: Arc<Alarm>,
    conn: Connection,
    wal_pages: Arc<AtomicU64>,
    watch: Option<Watch>,
}

/// The background work, once somebody watches.
struct Watch {
    stop: CancellationToken,
    reader: Option<Connection>,
    check: Option<FullCheck>,
    next_slice: Instant,
    next_gauges: Instant,
    measured: Option<i64>,
}

impl Work {
    fn run(mut self, inbox: &Receiver<Call>) {
        loop {
            let call = match self.watch.as_ref().map(Watch::next) {
                None => inbox.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(next) => inbox.recv_timeout(next.saturating_duration_since(Instant::now())),
            };
            match call {
                Ok(Call::Checkpoint) => self.checkpoint(),
                Ok(Call::Watch(stop)) => self.watch = Some(Watch::new(stop)),
                Ok(Call::End) | Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) => {}
            }
            if let Some(watch) = &mut self.watch {
                if watch.stop.is_cancelled() {
                    self.watch = None;
                } else {
                    watch.turn(&self.path, &self.alarm);
                }
            }
        }
    }

    fn checkpoint(&self) {
        let done = connection::checkpoint(&self.conn, "PASSIVE").and_then(|done| {
            if done.copied_pages == done.wal_pages && done.wal_pages > WAL_LONG_PAGES {
                connection::checkpoint(&self.conn, "TRUNCATE")
            } else {
                Ok(done)
            }
        });
        match watched(&self.alarm, done) {
            // Cut back: a writer that refuses facts because of it does not commit, and would never see it.
            Some(done) if done.wal_pages == 0 && !done.busy => self.wal_pages.store(0, Ordering::Relaxed),
            _ => {}
        }
    }
}

/// Tells of a checkpoint that failed.
pub(super) fn watched(alarm: &Alarm, done: Result<Checkpoint, StoreError>) -> Option<Checkpoint> {
    alarm
        .watch(done)
        .inspect_err(|error| {
            tracing::warn!(%error, "checkpoint failed; the WAL grows until the next");
            metrics::counter!("baygate_store_checkpoint_errors_total").increment(1);
        })
        .ok()
}

impl Watch {
    fn new(stop: CancellationToken) -> Self {
        let now = Instant::now();
        let check = Some(FullCheck::default());
        Self { stop, reader: None, check, next_slice: now, next_gauges: now, measured: None }
    }

    fn next(&self) -> Instant {
        self.next_slice.min(self.next_gauges)
    }

    fn turn(&mut self, path: &Path, alarm: &Alarm) {
        if self.reader.is_none() {
            self.reader = connection::reader(path).ok();
        }
        let now = Instant::now();
        let Some(reader) = self.reader.take() else {
            self.next_slice = now + GAUGES_EVERY;
            self.next_gauges = now + GAUGES_EVERY;
            return;
        };
        let mut well = true;
        if now >= self.next_gauges {
            self.next_gauges = now + GAUGES_EVERY;
            well &= alarm.watch(self.gauges(&reader)).is_ok();
        }
        if now >= self.next_slice {
            well &= self.slice(&reader, alarm);
        }
        self.reader = well.then_some(reader);
    }

    fn slice(&mut self, reader: &Connection, alarm: &Alarm) -> bool {
        let started = Instant::now();
        let check = self.check.get_or_insert_default();
        let result = check.slice(reader);
        let took = started.elapsed();
        match alarm.watch(result) {
            Ok(true) => {
                tracing::info!(rows = check.rows(), "database checked in full: sound");
                metrics::counter!("baygate_store_full_checks_total", "result" => "sound").increment(1);
                self.check = None;
                self.next_slice = Instant::now() + CHECK_AGAIN;
                true
            }
            Ok(false) => {
                self.next_slice = Instant::now() + REST.max(took * 9);
                true
            }
            Err(error) => {
                if error.is_damage() {
                    metrics::counter!("baygate_store_full_checks_total", "result" => "damaged").increment(1);
                }
                tracing::warn!(%error, "the full check of the database stopped");
                self.check = None;
                self.next_slice = Instant::now() + CHECK_AGAIN;
                false
            }
        }
    }

    /// Sets the gauges, when anything changed since the last time.
    fn gauges(&mut self, reader: &Connection) -> Result<(), StoreError> {
        let version: i64 = reader.query_row("PRAGMA data_version", [], |row| row.get(0))?;
        if self.measured == Some(version) {
            return Ok(());
        }
        self.measured = Some(version);
        Reader { conn: reader }.stats()?.publish();
        Ok(())
    }
}
