//! Events out of their rows. A row is believed with its seal, in its order, or not at all:
//! whoever reads the log (the uplink, tills, the maintenance rules) never gets what has
//! rotted on the disk.

use std::sync::Arc;

use rusqlite::{Row, params};

use super::outbox::{ClassCursor, LoggedEvent, class_from_index, class_index, seq_sql, sql_seq};
use super::requests::uuid_from;
use super::seal::Sealed;
use super::{Offset, Reader, StoreError};
use crate::clock::{TimeQuality, UtcMillis};
use crate::event::{Body, Class, Event};
use crate::ident::Epoch;

const COLUMNS: &str =
    "e.event_offset, e.epoch_no, e.class, e.class_sequence, e.id, e.kind, e.subject, e.time,
     e.synced, e.boot, e.data, p.id, p.base_offset, e.seal
     FROM event e JOIN epoch p ON p.no = e.epoch_no";

/// An event, if it is as it was written: what has rotted on the disk is never told as a fact.
fn event_of(row: &Row<'_>) -> Result<LoggedEvent, StoreError> {
    let offset: i64 = row.get(0)?;
    let read = || -> rusqlite::Result<Option<LoggedEvent>> {
        let numbers = [row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(7)?, row.get(8)?];
        // Ids without a copy on the heap: there are three in each row of a backlog.
        let (id, kind, subject): ([u8; 16], String, String) = (row.get(4)?, row.get(5)?, row.get(6)?);
        let (boot, data): ([u8; 16], String) = (row.get(9)?, row.get(10)?);
        let sealed = Sealed { numbers, id: &id, kind: &kind, subject: &subject, boot: &boot, data: &data };
        if sealed.seal() != row.get::<_, i64>(13)? {
            return Ok(None);
        }
        let [_, epoch_no, class, class_sequence, time, synced] = numbers;
        let epoch: [u8; 16] = row.get(11)?;
        let base_offset: i64 = row.get(12)?;
        let cursor = ClassCursor { epoch_no, class_sequence: sql_seq(class_sequence) };
        let event = || {
            Some(Event {
                id: uuid_from(&id).ok()?,
                epoch: Epoch(uuid_from(&epoch).ok()?),
                sequence: sql_seq(offset - base_offset),
                class_sequence: cursor.class_sequence,
                class: class_from_index(class).ok()?,
                kind: kind.into(),
                subject,
                time: UtcMillis(time),
                time_quality: if synced == 0 { TimeQuality::Unsynced } else { TimeQuality::Synced },
                boot: uuid_from(&boot).ok()?,
                data: Body::sealed(data),
            })
        };
        Ok(event().map(|event| LoggedEvent { offset: Offset(offset), cursor, event: Arc::new(event) }))
    };
    match read() {
        Ok(Some(event)) => Ok(event),
        // A column of another type, or text that is no text, is damage too.
        Ok(None)
        | Err(
            rusqlite::Error::InvalidColumnType(..)
            | rusqlite::Error::FromSqlConversionFailure(..)
            | rusqlite::Error::Utf8Error(..),
        ) => Err(StoreError::Damaged { what: format!("event {offset} is not as it was written") }),
        Err(error) => Err(error.into()),
    }
}

/// Rows out of their order come from pages out of their place: following them could go in a circle.
pub(super) fn in_order<P: PartialOrd, T>(last: &mut P, next: P, row: T) -> Result<T, StoreError> {
    if next <= *last {
        return Err(StoreError::Damaged { what: "events are out of their order".into() });
    }
    *last = next;
    Ok(row)
}

/// A page of the log that goes around what cannot be read.
#[derive(Debug, Default)]
pub struct ReadablePage {
    /// The events.
    pub events: Vec<LoggedEvent>,
    /// Rows that are not as they were written.
    pub unreadable: u64,
    /// The last row, whether readable or not; `None` at the end of the log.
    pub last: Option<Offset>,
}

impl Reader<'_> {
    /// An event that follows on the one before it, or on a gap that was told. The index could
    /// have lost the entry of a row that is still there: passed over, it would never be sent.
    fn joined(
        &self,
        class: Class,
        before: ClassCursor,
        event: LoggedEvent,
    ) -> Result<LoggedEvent, StoreError> {
        let (epoch_no, to) = (event.cursor.epoch_no, seq_sql(event.cursor.class_sequence) - 1);
        let same = before.epoch_no == epoch_no;
        if same && seq_sql(before.class_sequence) == to {
            return Ok(event);
        }
        let delivered = self.delivered(class)?;
        let passed = if delivered.epoch_no == epoch_no { seq_sql(delivered.class_sequence) } else { 0 };
        let from = if same { seq_sql(before.class_sequence) + 1 } else { 1 }.max(passed + 1);
        if from > to || delivered.epoch_no > epoch_no {
            return Ok(event);
        }
        let told: i64 = self
            .conn
            .prepare_cached(
                "SELECT coalesce(sum(min(to_sequence, ?4) - max(from_sequence, ?3) + 1), 0) FROM gap
                 WHERE class = ?1 AND epoch_no = ?2 AND to_sequence >= ?3 AND from_sequence <= ?4",
            )?
            .query_row(params![class_index(class), epoch_no, from, to], |row| row.get(0))?;
        if told == to - from + 1 {
            return Ok(event);
        }
        Err(StoreError::Damaged { what: format!("{class} events {from} to {to} are missing from the index") })
    }

    /// Events of all classes after a position, in order.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn events_after(&self, after: Offset, limit: usize) -> Result<Vec<LoggedEvent>, StoreError> {
        let mut query = self.conn.prepare_cached(&format!(
            "SELECT {COLUMNS} WHERE e.event_offset > ?1 ORDER BY e.event_offset LIMIT ?2"
        ))?;
        let mut rows = query.query(params![after.0, i64::try_from(limit).unwrap_or(i64::MAX)])?;
        let (mut events, mut last) = (Vec::new(), after);
        while let Some(row) = rows.next()? {
            match event_of(row) {
                // Out of order, those before it may have come from a page out of its place too.
                Ok(event) => events.push(in_order(&mut last, event.offset, event)?),
                // What comes before a rotten one is read first.
                Err(error) if events.is_empty() || !error.is_damage() => return Err(error),
                Err(_) => break,
            }
        }
        Ok(events)
    }

    /// The latest events of a class, the last first.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn latest_of(&self, class: Class, limit: usize) -> Result<Vec<LoggedEvent>, StoreError> {
        let mut query = self.conn.prepare_cached(&format!(
            "SELECT {COLUMNS} WHERE e.class = ?1 ORDER BY e.epoch_no DESC, e.class_sequence DESC LIMIT ?2"
        ))?;
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let mut rows = query.query(params![class_index(class), limit])?;
        let mut events = Vec::new();
        while let Some(row) = rows.next()? {
            events.push(event_of(row)?);
        }
        Ok(events)
    }

    /// Like [`Reader::events_after`], around rows that are not as they were written.
    ///
    /// # Errors
    /// [`StoreError`] when the table itself cannot be followed.
    pub fn readable_after(&self, after: Offset, limit: usize) -> Result<ReadablePage, StoreError> {
        let mut query = self.conn.prepare_cached(&format!(
            "SELECT {COLUMNS} WHERE e.event_offset > ?1 ORDER BY e.event_offset LIMIT ?2"
        ))?;
        let mut rows = query.query(params![after.0, i64::try_from(limit).unwrap_or(i64::MAX)])?;
        let (mut page, mut last) = (ReadablePage::default(), after);
        while let Some(row) = rows.next()? {
            let offset = Offset(row.get(0)?);
            in_order(&mut last, offset, ())?;
            match event_of(row) {
                Ok(event) => page.events.push(event),
                Err(StoreError::Damaged { .. }) => page.unreadable += 1,
                Err(error) => return Err(error),
            }
            page.last = Some(offset);
        }
        Ok(page)
    }

    /// Events of one class after a position, in order.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn class_events_after(
        &self,
        class: Class,
        after: ClassCursor,
        limit: usize,
    ) -> Result<Vec<LoggedEvent>, StoreError> {
        let mut query = self.conn.prepare_cached(&format!(
            "SELECT {COLUMNS} WHERE e.class = ?1 AND (e.epoch_no, e.class_sequence) > (?2, ?3)
             ORDER BY e.epoch_no, e.class_sequence LIMIT ?4"
        ))?;
        let mut rows = query.query(params![
            class_index(class),
            after.epoch_no,
            seq_sql(after.class_sequence),
            i64::try_from(limit).unwrap_or(i64::MAX)
        ])?;
        let (mut events, mut last) = (Vec::new(), after);
        while let Some(row) = rows.next()? {
            let before = last;
            let read = event_of(row)
                .and_then(|event| in_order(&mut last, event.cursor, event))
                .and_then(|event| self.joined(class, before, event));
            match read {
                Ok(event) => events.push(event),
                Err(error) if events.is_empty() || !error.is_damage() => return Err(error),
                Err(_) => break,
            }
        }
        Ok(events)
    }

    /// One event by its id.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn event_at(&self, offset: Offset) -> Result<Option<LoggedEvent>, StoreError> {
        let mut query = self.conn.prepare_cached(&format!("SELECT {COLUMNS} WHERE e.event_offset = ?1"))?;
        let mut rows = query.query([offset.0])?;
        rows.next()?.map(event_of).transpose()
    }
}
