//! The log as its readers see it, and what was delivered of it. A class is
//! delivered contiguously: everything up to its position, nothing beyond.

use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::requests::uuid_from;
use super::rows::in_order;
use super::seal::seal_of;
use super::{Offset, Reader, StoreError};
use crate::clock::UtcMillis;
use crate::event::gateway::EpochReason;
use crate::event::{Class, Event};
use crate::ident::{Epoch, Seq};

/// A position in one class, across epochs. Ordered as the log is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ClassCursor {
    /// The epoch's number in this file, rising.
    pub epoch_no: i64,
    /// Position in the class within the epoch.
    pub class_sequence: Seq,
}

/// An event with both of its local positions.
#[derive(Debug, Clone)]
pub struct LoggedEvent {
    /// Position in the whole log.
    pub offset: Offset,
    /// Position in its class.
    pub cursor: ClassCursor,
    /// The event.
    pub event: Arc<Event>,
}

/// Changes what counts as delivered.
#[derive(Debug, Clone)]
pub enum OutboxOp {
    /// Everything of `class` up to and including `to` has reached its confirmation. Never moves back.
    Delivered {
        /// The class.
        class: Class,
        /// Position.
        to: ClassCursor,
    },
    /// The broker will never take this event: set it aside. The `gateway.gap` goes into the same batch.
    SetAside {
        /// Which.
        offset: Offset,
        /// Why, for `buffer status`.
        reason: String,
        /// Its envelope, so that it can be dumped later.
        envelope: String,
    },
    /// Headquarters knows a position ahead of ours (`ahead`), or the like: a new epoch
    /// begins here. Events of this batch and all later ones belong to it; unsent ones
    /// keep the old epoch and are still sent.
    BeginEpoch {
        /// Why.
        reason: EpochReason,
    },
    /// The same, and the events of this run begin the new epoch: headquarters has seen none of them
    /// (see `carry`).
    BeginEpochWithRun {
        /// Why.
        reason: EpochReason,
    },
}

/// An event set aside, as stored.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Quarantined {
    /// Position in the local log.
    pub offset: i64,
    /// Its class.
    pub class: Class,
    /// Why.
    pub reason: String,
    /// When.
    pub at: UtcMillis,
    /// What would have been sent.
    #[serde(skip)]
    pub envelope: String,
}

/// The seal of a delivered position.
pub(super) fn seal(position: [i64; 3]) -> i64 {
    seal_of(position.map(i64::to_be_bytes).as_flattened())
}

/// SQL index of a class: its place in [`Class::ALL`], fixed for ever.
pub(super) fn class_index(class: Class) -> i64 {
    match class {
        Class::Ledger => 0,
        Class::Gateway => 1,
        Class::Card => 2,
        Class::Vehicle => 3,
        Class::Maintenance => 4,
        Class::Device => 5,
        Class::Telemetry => 6,
    }
}

pub(super) fn class_from_index(index: i64) -> Result<Class, StoreError> {
    Class::ALL
        .into_iter()
        .find(|class| class_index(*class) == index)
        .ok_or_else(|| StoreError::Corrupt(format!("class {index}")))
}

impl OutboxOp {
    pub(super) fn apply(&self, tx: &Connection) -> Result<(), StoreError> {
        match self {
            Self::Delivered { class, to } => {
                tx.prepare_cached(
                    "INSERT INTO delivered (class, epoch_no, class_sequence, seal) VALUES (?1, ?2, ?3, ?4)
                     ON CONFLICT (class) DO UPDATE SET epoch_no = ?2, class_sequence = ?3, seal = ?4
                     WHERE (excluded.epoch_no, excluded.class_sequence) > (delivered.epoch_no, delivered.class_sequence)",
                )?
                .execute(params![
                    class_index(*class),
                    to.epoch_no,
                    seq_sql(to.class_sequence),
                    seal([class_index(*class), to.epoch_no, seq_sql(to.class_sequence)])
                ])?;
            }
            Self::SetAside { offset, reason, envelope } => {
                tx.execute(
                    "INSERT OR REPLACE INTO quarantine (event_offset, class, reason, at, envelope)
                     SELECT event_offset, class, ?2, ?3, ?4 FROM event WHERE event_offset = ?1",
                    params![offset.0, reason, UtcMillis::now().0, envelope],
                )?;
            }
            // Moves the writer's position too: applied where that is (`apply`).
            Self::BeginEpoch { .. } | Self::BeginEpochWithRun { .. } => {}
        }
        Ok(())
    }
}

/// SQLite integers are signed; sequences never get near the limit.
pub(super) fn seq_sql(seq: Seq) -> i64 {
    i64::try_from(seq.0).unwrap_or(i64::MAX)
}

pub(super) fn sql_seq(value: i64) -> Seq {
    Seq(u64::try_from(value).unwrap_or(0))
}

impl Reader<'_> {
    /// How far a class is delivered.
    ///
    /// # Errors
    /// [`StoreError::Sqlite`].
    pub fn delivered(&self, class: Class) -> Result<ClassCursor, StoreError> {
        Ok(self
            .conn
            .prepare_cached("SELECT epoch_no, class_sequence FROM delivered WHERE class = ?1")?
            .query_row([class_index(class)], |row| {
                Ok(ClassCursor { epoch_no: row.get(0)?, class_sequence: sql_seq(row.get(1)?) })
            })
            .optional()?
            .unwrap_or_default())
    }

    /// The number an epoch has in this file.
    ///
    /// # Errors
    /// [`StoreError::Sqlite`].
    pub fn epoch_no(&self, epoch: Epoch) -> Result<Option<i64>, StoreError> {
        Ok(self
            .conn
            .prepare_cached("SELECT no FROM epoch WHERE id = ?1")?
            .query_row([epoch.0.as_bytes().as_slice()], |row| row.get(0))
            .optional()?)
    }

    /// The last class sequences of an epoch that is over, by class; empty for the running one.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn epoch_ends(&self, epoch_no: i64) -> Result<Vec<(Class, Seq)>, StoreError> {
        let mut query =
            self.conn.prepare_cached("SELECT class, last_sequence FROM epoch_end WHERE epoch_no = ?1")?;
        let mut rows = query.query([epoch_no])?;
        let mut ends = Vec::new();
        while let Some(row) = rows.next()? {
            ends.push((class_from_index(row.get(0)?)?, sql_seq(row.get(1)?)));
        }
        Ok(ends)
    }

    /// The last class sequence committed in the running epoch, by class.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn last_sequences(&self) -> Result<Vec<(Class, Seq)>, StoreError> {
        let mut query =
            self.conn.prepare_cached("SELECT class, last_sequence FROM class_counter ORDER BY class")?;
        let mut rows = query.query([])?;
        let mut last = Vec::new();
        while let Some(row) = rows.next()? {
            last.push((class_from_index(row.get(0)?)?, sql_seq(row.get(1)?)));
        }
        Ok(last)
    }

    /// The last sequence committed in the running epoch.
    ///
    /// # Errors
    /// [`StoreError::Sqlite`].
    pub fn last_sequence(&self) -> Result<Seq, StoreError> {
        Ok(sql_seq(
            self.conn
                .prepare_cached("SELECT coalesce(sum(last_sequence), 0) FROM class_counter")?
                .query_row([], |row| row.get(0))?,
        ))
    }

    /// Where `(epoch, sequence)` lies in the local log, for readers that resume;
    /// `None` when the epoch is unknown or the event after it was trimmed.
    ///
    /// # Errors
    /// [`StoreError::Sqlite`].
    pub fn offset_of(&self, epoch: Epoch, sequence: Seq) -> Result<Option<Offset>, StoreError> {
        let Some((no, base)) = self
            .conn
            .prepare_cached("SELECT no, base_offset FROM epoch WHERE id = ?1")?
            .query_row([epoch.0.as_bytes().as_slice()], |row| {
                Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?))
            })
            .optional()?
        else {
            return Ok(None);
        };
        let offset = base.saturating_add(seq_sql(sequence));
        // The epoch ends where the next one begins.
        let end: Option<i64> = self
            .conn
            .prepare_cached("SELECT base_offset FROM epoch WHERE no > ?1 ORDER BY no LIMIT 1")?
            .query_row([no], |row| row.get(0))
            .optional()?;
        // The running epoch ends at what was committed, not at the rows that are left.
        let (first, committed): (Option<i64>, i64) = self
            .conn
            .prepare_cached(
                "SELECT (SELECT min(event_offset) FROM event), (SELECT coalesce(sum(last_sequence), 0) FROM class_counter)",
            )?
            .query_row([], |row| Ok((row.get(0)?, row.get(1)?)))?;
        let ceiling = end.unwrap_or(base.saturating_add(committed));
        let trimmed = first.map_or(offset < ceiling, |first| offset.saturating_add(1) < first);
        Ok((offset <= ceiling && !trimmed).then_some(Offset(offset)))
    }

    /// What the outside calls a local position: the epoch it lies in and the
    /// sequence there, zero at an epoch's beginning. `None` before the first epoch.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn position_of(&self, offset: Offset) -> Result<Option<(Epoch, Seq)>, StoreError> {
        let found: Option<(Vec<u8>, i64)> = self
            .conn
            .prepare_cached(
                "SELECT id, base_offset FROM epoch WHERE base_offset <= ?1 ORDER BY no DESC LIMIT 1",
            )?
            .query_row([offset.0], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?;
        found.map(|(id, base)| Ok((Epoch(uuid_from(&id)?), sql_seq(offset.0 - base)))).transpose()
    }

    /// Events set aside after a position, oldest first.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn quarantined(&self, after: Offset, limit: usize) -> Result<Vec<Quarantined>, StoreError> {
        let mut query = self.conn.prepare_cached(
            "SELECT event_offset, class, reason, at, envelope FROM quarantine
             WHERE event_offset > ?1 ORDER BY event_offset LIMIT ?2",
        )?;
        let mut rows = query.query(params![after.0, i64::try_from(limit).unwrap_or(i64::MAX)])?;
        let (mut aside, mut last) = (Vec::new(), after);
        // One rotten text must not hide all the others.
        let text = |row: &Row<'_>, column| -> rusqlite::Result<String> {
            Ok(String::from_utf8_lossy(row.get_ref(column)?.as_bytes()?).into_owned())
        };
        while let Some(row) = rows.next()? {
            let offset = Offset(row.get(0)?);
            in_order(&mut last, offset, ())?;
            aside.push(Quarantined {
                offset: row.get(0)?,
                class: class_from_index(row.get(1)?)?,
                reason: text(row, 2)?,
                at: UtcMillis(row.get(3)?),
                envelope: text(row, 4)?,
            });
        }
        Ok(aside)
    }
}
