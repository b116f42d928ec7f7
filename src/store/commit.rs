//! One group into one transaction, and what happens when that fails. Nobody is
//! told that something is kept which is not:
//! - a batch fails by itself: the group begins again, each batch in a savepoint, and
//!   only that one gets its error (savepoints for all would cost half the rate);
//! - full: ordinary batches get [`StoreError::Full`], the rest is tried once more on the reserve;
//! - the disk failed: the connection is opened again and the file is asked. Batches
//!   whose events are there, and on the disk, are answered so; the others
//!   get [`StoreError::Uncertain`];
//! - anything else: everybody of the group gets the error.
//!
//! A sync that failed is never just repeated: the kernel may count those pages as
//! written. The lost transaction lies behind the WAL's end as its index has it,
//! so the next commit writes its own frames in that place and syncs them. A crash
//! in between may bring the transaction back, whole: hence "uncertain". A
//! checkpoint that failed does not count; SQLite copies the same pages again.

use std::time::{Duration, Instant};

use rusqlite::{Connection, TransactionBehavior};

use super::epoch::Position;
use super::queue::{Answer, Entry, answer, fail, refuse_ordinary};
use super::tally::Tally;
use super::writer::{Writer, used};
use super::{StoreError, apply, connection};
use crate::event::{Event, Text};

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
    /// What the batches would have been answered, when only the COMMIT failed.
    answers: Option<Vec<Answer>>,
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self { error, answers: None }
    }
}

impl Writer {
    pub(super) fn commit_group(&mut self, mut entries: Vec<Entry>) {
        let mut on_reserve = false;
        while !entries.is_empty() {
            if self.broken
                && let Err(error) = self.reopen()
            {
                return fail(entries, &error);
            }
            let before = self.parts.position;
            match self.attempt(&entries) {
                Ok(answers) => {
                    let rest = entries.split_off(answers.len());
                    self.publish(answers.iter().any(Result::is_ok));
                    answer(entries, answers);
                    entries = rest;
                }
                Err(failure) => {
                    self.parts.position = before;
                    self.parts.upkeep.doubt();
                    metrics::counter!("baygate_store_commit_errors_total").increment(1);
                    tracing::error!(error = %failure.error, "commit failed");
                    if failure.error.is_full() && !on_reserve {
                        on_reserve = true;
                        self.meet_full();
                        entries = refuse_ordinary(entries);
                    } else if failure.error.is_full() {
                        return fail(entries, &StoreError::Full);
                    } else if failure.error.is_disk_failure() {
                        return self.settle(entries, before, failure);
                    } else {
                        let _ = self.parts.alarm.watch::<()>(Err(failure.error.for_another()));
                        return fail(entries, &failure.error);
                    }
                }
            }
        }
    }

    /// Tries a group; answers as many of its batches, from the first, as went into the transaction.
    fn attempt(&mut self, entries: &[Entry]) -> Result<Vec<Answer>, Failure> {
        let before = self.parts.position;
        match self.attempt_with(Guard::None, entries)? {
            Some(answers) => Ok(answers),
            None => {
                self.parts.position = before;
                Ok(self.attempt_with(Guard::Savepoint, entries)?.unwrap_or_default())
            }
        }
    }

    /// `None`: a batch failed by itself, and nothing was committed.
    fn attempt_with(&mut self, guard: Guard, entries: &[Entry]) -> Result<Option<Vec<Answer>>, Failure> {
        let parts = &mut self.parts;
        let mut tx =
            parts.conn.transaction_with_behavior(TransactionBehavior::Immediate).map_err(StoreError::from)?;
        self.used = used(&tx, &self.wal_pages)?;
        let mut answers: Vec<Answer> = Vec::with_capacity(entries.len());
        let mut tally = Tally::default();
        let started = Instant::now();
        let mut refused = false;
        for entry in entries {
            if !answers.is_empty() && started.elapsed() > GROUP_WORK {
                break;
            }
            if !parts.space.admits(entry.batch.claim(), self.used) {
                refused = true;
                answers.push(Err(StoreError::Full));
                continue;
            }
            let applied = match guard {
                Guard::None => {
                    apply::unguarded(&tx, &mut parts.position, &mut tally, &self.run, &entry.batch)
                }
                Guard::Savepoint => apply::batch(&mut tx, &mut parts.position, &self.run, &entry.batch),
            };
            match applied {
                // The transaction as a whole is lost, or will be: not this batch's own fault.
                Err(error) if error.is_full() || error.is_disk_failure() || tx.is_autocommit() => {
                    return Err(error.into());
                }
                Err(_) if guard == Guard::None => {
                    tx.rollback().map_err(StoreError::from)?;
                    return Ok(None);
                }
                answer => answers.push(parts.alarm.watch(answer)),
            }
        }
        tally.write(&tx, &parts.position)?;
        match tx.commit() {
            Ok(()) => {
                if refused {
                    self.more = true;
                    self.tell_full();
                }
                Ok(Some(answers))
            }
            Err(error) => Err(Failure { error: error.into(), answers: Some(answers) }),
        }
    }

    /// Asks the file what became of a commit during which the disk failed.
    fn settle(&mut self, entries: Vec<Entry>, before: Position, failure: Failure) {
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
        let uncertain = || StoreError::Uncertain { what: what.clone() };
        let Some(answers) = failure.answers else { return fail(entries, &failure.error) };
        if self.reopen().is_err() {
            return fail(entries, &uncertain());
        }
        let last = answers.iter().filter_map(|answer| answer.as_ref().ok()).flatten().last();
        let kept = self.parts.position != before
            && last.is_some_and(|last| self.holds(last))
            && synced(&self.parts.conn);
        if kept {
            self.publish(true);
            answer(entries, answers);
        } else {
            for (entry, own) in entries.into_iter().zip(answers) {
                let told = own.and(Err(uncertain()));
                let _ = entry.reply.send(told);
            }
        }
    }

    fn holds(&self, event: &Event) -> bool {
        self.parts
            .conn
            .query_row(
                "SELECT 1 FROM event WHERE event_offset = ?1 AND id = ?2",
                rusqlite::params![self.parts.position.last_offset, event.id.as_bytes().as_slice()],
                |_| Ok(()),
            )
            .is_ok()
    }

    fn reopen(&mut self) -> Result<(), StoreError> {
        self.parts.conn = connection::writer(&self.parts.path)?;
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

/// Whether everything committed is on the disk: a full checkpoint syncs the WAL first.
fn synced(conn: &Connection) -> bool {
    connection::checkpoint(conn, "FULL").is_ok_and(|done| !done.busy)
}
