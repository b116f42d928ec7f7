//! The one writer: a named thread that owns the writing connection. It commits
//! what is queued (up to 100 batches or 10 ms of work a transaction) and never
//! waits to fill a group; only patient batches are held, up to a second. Between
//! groups it does one step of upkeep.
//! What happens when a commit fails: `commit`.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot, watch};

use super::alarm::Alarm;
use super::apply::Run;
use super::epoch::{self, Position};
use super::keeper::{Keeper, watched};
use super::lock::FolderLock;
use super::queue::{Entry, Handle, Message, QUEUE};
use super::space::{Space, Used};
use super::upkeep::Upkeep;
use super::{ClassLimit, Head, Offset, StoreError, apply, connection, hold};
use crate::clock;
use crate::event::Class;

/// Batches in one transaction, at most (architecture: "up to 100 rows").
const GROUP: usize = 100;
/// How long a patient batch may wait.
const PATIENCE: Duration = Duration::from_secs(1);
/// How often an idle writer shows that it lives and looks at the disk.
const TICK: Duration = Duration::from_secs(5);
/// The same while the disk is full: whoever made room does not wait long to see it used.
const TICK_WHILE_FULL: Duration = Duration::from_secs(1);
/// WAL pages after which the next lull is for a checkpoint, and again after each as many more. After
/// twice as many the writer does not wait for a lull.
const CHECKPOINT_PAGES: u64 = 1000;
/// Nobody came for so long.
const LULL: Duration = Duration::from_millis(20);

/// What the writer is made of.
pub(super) struct Parts {
    pub(super) path: PathBuf,
    pub(super) conn: Connection,
    pub(super) position: Position,
    pub(super) space: Space,
    pub(super) upkeep: Upkeep,
    pub(super) alarm: Arc<Alarm>,
    pub(super) keeper: Keeper,
    pub(super) lock: FolderLock,
}

/// Starts the writer thread on an opened, migrated database.
pub(super) fn start(parts: Parts) -> Result<(Handle, watch::Receiver<Head>), StoreError> {
    let failed = |source| StoreError::Thread { name: "store-writer", source };
    let (queue, inbox) = mpsc::channel(QUEUE);
    let head = Head { epoch: parts.position.epoch, last: Offset(parts.position.last_offset), commits: 0 };
    let (publish, watch) = watch::channel(head);
    let clockwork = tokio::runtime::Builder::new_current_thread().enable_time().build().map_err(failed)?;
    let wal_pages = parts.keeper.wal_pages();
    let parts_start = parts.position;
    let mut writer = Writer {
        parts,
        publish,
        run: Run { boot: clock::boot_id(), start: parts_start },
        wal_pages,
        checkpoint_at: CHECKPOINT_PAGES,
        used: Used::default(),
        broken: false,
        more: true,
        next_tick: Instant::now(),
    };
    writer.prepare()?;
    std::thread::Builder::new()
        .name("store-writer".into())
        .spawn(move || clockwork.block_on(writer.run(inbox)))
        .map_err(failed)?;
    Ok((Handle { queue }, watch))
}

pub(super) struct Writer {
    pub(super) parts: Parts,
    publish: watch::Sender<Head>,
    pub(super) run: Run,
    /// Set by SQLite after every commit.
    pub(super) wal_pages: Arc<AtomicU64>,
    checkpoint_at: u64,
    pub(super) used: Used,
    /// The connection failed and has to be opened again before the next use.
    pub(super) broken: bool,
    /// Upkeep has more to do at once.
    pub(super) more: bool,
    next_tick: Instant,
}

impl Writer {
    async fn run(mut self, mut inbox: mpsc::Receiver<Message>) {
        let mut held: Vec<Entry> = Vec::new();
        let mut held_since: Option<Instant> = None;
        loop {
            self.parts.alarm.beat();
            let wait = self.wait(held_since);
            let (mut ended, mut lull) = (false, false);
            let mut next = match tokio::time::timeout(wait, inbox.recv()).await {
                Ok(Some(message)) => Some(message),
                Ok(None) => {
                    ended = true;
                    None
                }
                Err(_) => {
                    lull = wait >= LULL;
                    None
                }
            };
            let mut group = Vec::new();
            let mut close = None;
            while let Some(message) = next {
                match message {
                    Message::Commit(entry) if entry.placed.batch.patient => held.push(entry),
                    Message::Commit(entry) => group.push(entry),
                    Message::Limits(max_bytes, classes) => self.take_limits(max_bytes, &classes),
                    Message::History(limits) => {
                        self.parts.upkeep.set_history(limits);
                        self.more = true;
                    }
                    Message::Close(done) => {
                        close = Some(done);
                        break;
                    }
                }
                next = if group.len() + held.len() < GROUP { inbox.try_recv().ok() } else { None };
            }
            // Patient batches ride along with the next impatient one.
            let due = held_since.is_some_and(|since| since.elapsed() >= PATIENCE) || held.len() >= GROUP;
            if !group.is_empty() || due || ended || close.is_some() {
                group.splice(0..0, held.drain(..));
            }
            held_since = if held.is_empty() { None } else { held_since.or_else(|| Some(Instant::now())) };
            self.commit_group(group);
            if ended || close.is_some() {
                self.end(close);
                return;
            }
            self.look_to_wal(lull);
            self.tick();
            self.upkeep();
        }
    }

    fn wait(&self, held_since: Option<Instant>) -> Duration {
        if self.more {
            return Duration::ZERO;
        }
        // While the connection is broken no upkeep is done, and none may wake anybody.
        let upkeep = if self.broken { self.next_tick } else { self.parts.upkeep.next() };
        let mut until = self.next_tick.min(upkeep);
        if let Some(since) = held_since {
            until = until.min(since + PATIENCE);
        }
        let wait = until.saturating_duration_since(Instant::now());
        if self.wal_pages.load(Ordering::Relaxed) < self.checkpoint_at { wait } else { wait.min(LULL) }
    }

    /// New limits count from the next step of upkeep on.
    fn take_limits(&mut self, max_bytes: u64, classes: &[(Class, ClassLimit)]) {
        self.parts.space.set_limit(max_bytes);
        self.parts.upkeep.set_classes(classes);
        self.more = true;
        if let Err(error) = self.bound() {
            // Upkeep holds the limit all the same; the connection is opened anew before its next use.
            tracing::warn!(%error, "the new buffer.max_bytes did not reach the database");
            self.broken = true;
        }
    }

    /// SQLite's own bound of the file; a file larger than that stays as it is.
    fn bound(&self) -> Result<(), StoreError> {
        let pages = i64::try_from(self.parts.space.max_pages()).unwrap_or(i64::MAX);
        Ok(self.parts.conn.pragma_update(None, "max_page_count", pages.min(i64::from(u32::MAX - 1)))?)
    }

    /// Hooks the connection up and bounds its file.
    pub(super) fn prepare(&mut self) -> Result<(), StoreError> {
        self.bound()?;
        let wal_pages = Arc::clone(&self.wal_pages);
        self.parts.conn.wal_hook(Some(move |_: &mut rusqlite::hooks::Wal, pages: std::ffi::c_int| {
            wal_pages.store(u64::try_from(pages).unwrap_or(0), Ordering::Relaxed);
            Ok(())
        }))?;
        Ok(())
    }

    pub(super) fn publish(&mut self, committed: bool) {
        if !committed {
            return;
        }
        if !self.broken {
            self.parts.alarm.clear("store/disk");
        }
        if self.publish.borrow().epoch != self.parts.position.epoch
            && let Err(error) = hold::tell(&self.parts.conn, &self.parts.alarm)
        {
            tracing::warn!(%error, "could not look whether card writes are held");
        }
        self.publish.send_modify(|head| {
            head.epoch = self.parts.position.epoch;
            head.last = Offset(self.parts.position.last_offset);
            head.commits += 1;
        });
    }

    /// Looks to the WAL between two groups: the keeper copies it in a lull, or the writer when there is none.
    fn look_to_wal(&mut self, lull: bool) {
        let pages = self.wal_pages.load(Ordering::Relaxed);
        if pages < CHECKPOINT_PAGES {
            self.checkpoint_at = CHECKPOINT_PAGES;
        } else if lull && pages >= self.checkpoint_at {
            self.checkpoint_at = pages + CHECKPOINT_PAGES;
            self.parts.keeper.checkpoint();
        } else if !self.broken && pages >= self.checkpoint_at + CHECKPOINT_PAGES {
            self.checkpoint_at = pages;
            watched(&self.parts.alarm, connection::checkpoint(&self.parts.conn, "PASSIVE"));
        }
    }

    /// Every few seconds, also when idle.
    fn tick(&mut self) {
        if Instant::now() < self.next_tick {
            return;
        }
        // A checkpoint that a reader kept from its end is tried again.
        if self.wal_pages.load(Ordering::Relaxed) >= CHECKPOINT_PAGES {
            self.parts.keeper.checkpoint();
        }
        if self.parts.space.lay_ballast() {
            tracing::info!("the disk has room again");
        }
        if let Ok(used) = used(&self.parts.conn, &self.wal_pages) {
            self.used = used;
        }
        if self.parts.space.admits(apply::Claim::Ordinary, self.used) && !self.parts.space.disk_is_full() {
            self.parts.alarm.clear("store/space");
        }
        let again = if self.parts.space.disk_is_full() { TICK_WHILE_FULL } else { TICK };
        self.next_tick = Instant::now() + again;
    }

    /// The disk is full: looked at again soon.
    pub(super) fn look_soon(&mut self) {
        self.next_tick = self.next_tick.min(Instant::now() + TICK_WHILE_FULL);
    }

    /// One step, in its own transaction.
    fn upkeep(&mut self) {
        if self.broken {
            self.more = false;
            return;
        }
        let before = self.parts.position;
        let tight = self.parts.space.is_tight(self.used);
        match self.upkeep_step(tight) {
            Ok(step) => {
                self.more = step.more;
                self.publish(step.changed);
            }
            Err(error) => {
                self.more = false;
                self.parts.position = before;
                self.parts.upkeep.doubt();
                self.parts.upkeep.rest();
                tracing::error!(%error, "upkeep failed");
                if error.is_full() {
                    self.meet_full();
                    self.more = false;
                } else if error.is_disk_failure() {
                    self.broken = true;
                } else {
                    let _ = self.parts.alarm.watch::<()>(Err(error));
                }
            }
        }
    }

    fn upkeep_step(&mut self, tight: bool) -> Result<super::trim::Step, StoreError> {
        let parts = &mut self.parts;
        // Deferred: a step that finds nothing to do never takes the write lock.
        let tx = parts.conn.transaction()?;
        let step = parts.upkeep.step(&tx, &mut parts.position, self.run.boot, tight)?;
        if step.changed {
            self.used = used(&tx, &self.wal_pages)?;
        }
        tx.commit()?;
        Ok(step)
    }

    fn end(self, close: Option<oneshot::Sender<()>>) {
        let Parts { conn, alarm, keeper, lock, .. } = self.parts;
        keeper.end();
        if close.is_some() {
            let marked = epoch::set_meta(&conn, "clean_shutdown", "yes");
            if let Err(error) = marked {
                tracing::warn!(%error, "could not mark the shutdown as clean");
            }
        }
        if let Err(error) = connection::checkpoint(&conn, "TRUNCATE") {
            tracing::warn!(%error, "last checkpoint failed; the next start goes on from the WAL");
        }
        drop(conn);
        alarm.rest();
        drop(lock);
        if let Some(done) = close {
            let _ = done.send(());
        }
    }
}

/// What the file holds now.
pub(super) fn used(conn: &Connection, wal_pages: &AtomicU64) -> Result<Used, StoreError> {
    let number = |sql: &str| conn.prepare_cached(sql)?.query_row([], |row| row.get(0).map(i64::unsigned_abs));
    Ok(Used {
        pages: number("PRAGMA page_count")?,
        free_pages: number("PRAGMA freelist_count")?,
        wal_pages: wal_pages.load(Ordering::Relaxed),
    })
}
