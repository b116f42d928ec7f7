//! One group into one transaction, and what happens when that fails. Nobody is
//! told that something is kept which is not:
//! - a batch fails by itself: the group begins again, each batch in a savepoint, and
//!   only that one gets its error (savepoints for all would cost half the rate);
//! - full: ordinary batches get [`StoreError::Full`], the rest is tried once more on the reserve;
//! - the disk failed at the COMMIT: all get [`StoreError::Uncertain`], and the connection
//!   is opened again;
//! - anything else: everybody of the group gets the error.
//!
//! A sync that failed is never just repeated: the kernel may count those pages as
//! written. The lost transaction lies behind the WAL's end as its index has it: the WAL
//! is begun anew (`connection::begin_wal_anew`), or where that fails too, the next commit writes
//! its own frames in that place and syncs them. A crash in between may bring the transaction
//! back, whole: hence "uncertain". A checkpoint that failed does not count; SQLite copies the
//! same pages again.

use std::time::{Duration, Instant};

use rusqlite::TransactionBehavior;

use super::apply::{self, Appender, Claim};
use super::epoch::Position;
use super::queue::{Applied, Entry, answer, fail, refuse};
use super::tally::Tally;
use super::writer::{Writer, used};
use super::{StoreError, connection};
use crate::event::Text;

/// Work in one transaction, at most, besides the sync; the first batch always goes in.
const GROUP_WORK: Duration = Duration::from_millis(10);

/// How the batches of a group stand in its transaction.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Guard {
    /// One fails, all begin again.
    None,
    /// Each in its savepoint.
    Savepoint,
}

/// A transaction that did not commit.
struct Failure {
    error: StoreError,
    /// What became of the batches, when only the COMMIT failed.
    applied: Option<Vec<Applied>>,
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self { error, applied: None }
    }
}

impl Writer {
    pub(super) fn commit_group(&mut self, mut entries: Vec<Entry>) {
        // Who gives way when the disk is full, one after the other: what was begun comes last.
        let mut yielding = [Claim::Ordinary, Claim::Sale].into_iter();
        while !entries.is_empty() {
            if self.broken
                && let Err(error) = self.reopen()
            {
                return fail(entries, &error);
            }
            let before = self.parts.position;
            match self.attempt(&mut entries) {
                Ok(applied) => {
                    let rest = entries.split_off(applied.len());
                    self.publish(applied.iter().any(Result::is_ok));
                    answer(entries, applied);
                    entries = rest;
                }
                Err(failure) => {
                    self.parts.position = before;
                    self.parts.upkeep.doubt();
                    metrics::counter!("baygate_store_commit_errors_total").increment(1);
                    tracing::error!(error = %failure.error, "commit failed");
                    if failure.error.is_full() {
                        let Some(claim) = yielding.next() else {
                            return fail(entries, &StoreError::Full);
                        };
                        if claim == Claim::Ordinary {
                            self.meet_full();
                        }
                        entries = refuse(entries, claim);
                    } else if failure.error.is_disk_failure() {
                        return self.disk_failed(entries, failure);
                    } else {
                        let _ = self.parts.alarm.watch::<()>(Err(failure.error.for_another()));
                        return fail(entries, &failure.error);
                    }
                }
            }
        }
    }

    /// Tries a group; says what became of as many of its batches, from the first, as went into the transaction.
    fn attempt(&mut self, entries: &mut [Entry]) -> Result<Vec<Applied>, Failure> {
        let before = self.parts.position;
        match self.attempt_with(Guard::None, entries)? {
            Some(applied) => Ok(applied),
            None => {
                self.parts.position = before;
                Ok(self.attempt_with(Guard::Savepoint, entries)?.unwrap_or_default())
            }
        }
    }

    /// `None`: a batch failed by itself, and nothing was committed.
    fn attempt_with(&mut self, guard: Guard, entries: &mut [Entry]) -> Result<Option<Vec<Applied>>, Failure> {
        let parts = &mut self.parts;
        let tx =
            parts.conn.transaction_with_behavior(TransactionBehavior::Immediate).map_err(StoreError::from)?;
        self.used = used(&tx, &self.wal_pages)?;
        let mut all: Vec<Applied> = Vec::with_capacity(entries.len());
        let mut tally = Tally::default();
        let mut log = Appender::on(&tx)?;
        let started = Instant::now();
        let mut refused = false;
        for entry in entries {
            if !all.is_empty() && started.elapsed() > GROUP_WORK {
                break;
            }
            if !parts.space.admits(entry.placed.batch.claim(), self.used) {
                refused = true;
                all.push(Err(StoreError::Full));
                continue;
            }
            let (position, placed) = (&mut parts.position, &mut entry.placed);
            let applied = match guard {
                Guard::None => apply::unguarded(&mut log, position, &mut tally, &self.run, placed),
                Guard::Savepoint => apply::batch(&mut log, position, &self.run, placed),
            };
            match applied {
                // The transaction as a whole is lost, or will be: not this batch's own fault.
                Err(error) if error.is_full() || error.is_disk_failure() || tx.is_autocommit() => {
                    return Err(error.into());
                }
                Err(_) if guard == Guard::None => {
                    drop(log);
                    tx.rollback().map_err(StoreError::from)?;
                    return Ok(None);
                }
                applied => all.push(parts.alarm.watch(applied)),
            }
        }
        drop(log);
        tally.write(&tx, &parts.position)?;
        match tx.commit() {
            Ok(()) => {
                if refused {
                    self.more = true;
                    self.tell_full();
                }
                Ok(Some(all))
            }
            Err(error) => Err(Failure { error: error.into(), applied: Some(all) }),
        }
    }

    /// Nobody can say what became of the commit: the index of the WAL, which all connections
    /// share, has it not; the file may.
    fn disk_failed(&mut self, entries: Vec<Entry>, failure: Failure) {
        let what = failure.error.to_string();
        self.parts.alarm.raise(
            "store/disk",
            "disk-error",
            Text::new(
                format!("写盘失败:{what};请检查存储设备"),
                format!("writing to the disk failed: {what}; check the storage device"),
            ),
            true,
        );
        self.broken = true;
        let Some(applied) = failure.applied else { return fail(entries, &failure.error) };
        for (entry, own) in entries.into_iter().zip(applied) {
            let told = own.and_then(|()| Err(StoreError::Uncertain { what: what.clone() }));
            let _ = entry.reply.send(told);
        }
        if let Err(error) = self.reopen() {
            tracing::warn!(%error, "the database could not be opened again; the next commit tries");
        }
    }

    fn reopen(&mut self) -> Result<(), StoreError> {
        self.parts.conn = connection::writer(&self.parts.path)?;
        connection::begin_wal_anew(&self.parts.conn);
        self.prepare()?;
        self.parts.position = Position::load(&self.parts.conn)?
            .ok_or_else(|| StoreError::Damaged { what: "no epoch is left".into() })?;
        self.parts.upkeep.doubt();
        self.broken = false;
        Ok(())
    }

    /// A statement met the end of the disk or of the limit.
    pub(super) fn meet_full(&mut self) {
        // Near the limit it is the limit; else it is the disk, and the ballast makes room.
        if self.used.pages + 64 < self.parts.space.max_pages() {
            self.parts.space.give_up_ballast();
            self.look_soon();
        }
        self.more = true;
        self.parts.keeper.checkpoint();
        self.tell_full();
    }

    fn tell_full(&self) {
        let (code, text) = if self.parts.space.disk_is_full() {
            (
                "disk-full",
                Text::new(
                    "磁盘已满:新数据被拒绝,账务仍用预留空间;请清理 gateway.data_dir 所在的磁盘,腾出空间后自动恢复",
                    "the disk is full: new facts are refused, the ledger goes on in its reserve; free space on the disk of `gateway.data_dir`, all goes on by itself then",
                ),
            )
        } else {
            (
                "buffer-full",
                Text::new(
                    "缓存已达到 buffer.max_bytes:新数据被拒绝,账务仍用预留空间;请调大 buffer.max_bytes 或恢复上行",
                    "the buffer has reached `buffer.max_bytes`: new facts are refused, the ledger goes on in its reserve; raise `buffer.max_bytes` or bring the uplink back",
                ),
            )
        };
        self.parts.alarm.raise("store/space", code, text, true);
    }
}
