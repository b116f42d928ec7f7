//! Durable positions of the local readers of the log. A cursor moves in the
//! transaction of its reader's effect, so that an effect happens once.
//!
//! A cursor exists from its first `Advance` (a reader that starts now says so by
//! advancing to the head). While it exists, delivered events beyond it are kept;
//! so a reader that is no more has to be dropped with `Retire`, or it holds them
//! until their class is over its limit.

use rusqlite::{Connection, OptionalExtension, params};

use super::{Offset, Reader, StoreError};

/// Moves a cursor.
#[derive(Debug, Clone)]
pub enum CursorOp {
    /// The reader `name` has dealt with everything up to and including `to`.
    Advance {
        /// Reader, e.g. `maintenance`.
        name: &'static str,
        /// Last event dealt with.
        to: Offset,
    },
    /// The reader `name` is no more: nothing is kept for it any longer.
    Retire {
        /// Reader.
        name: String,
    },
}

impl CursorOp {
    pub(super) fn apply(&self, tx: &Connection) -> Result<(), StoreError> {
        match self {
            Self::Advance { name, to } => tx
                .prepare_cached(
                    "INSERT INTO cursor (name, event_offset) VALUES (?1, ?2)
                     ON CONFLICT (name) DO UPDATE SET event_offset = max(event_offset, excluded.event_offset)",
                )?
                .execute(params![name, to.0])?,
            Self::Retire { name } => tx.execute("DELETE FROM cursor WHERE name = ?1", [name])?,
        };
        Ok(())
    }
}

impl Reader<'_> {
    /// All cursors, by name: who reads, and how far.
    ///
    /// # Errors
    /// [`StoreError::Sqlite`].
    pub fn cursors(&self) -> Result<Vec<(String, Offset)>, StoreError> {
        let mut query = self.conn.prepare_cached("SELECT name, event_offset FROM cursor ORDER BY name")?;
        let rows = query.query_map([], |row| Ok((row.get(0)?, Offset(row.get(1)?))))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Where the reader `name` stands; `None` when it never moved.
    ///
    /// # Errors
    /// [`StoreError::Sqlite`].
    pub fn cursor(&self, name: &str) -> Result<Option<Offset>, StoreError> {
        Ok(self
            .conn
            .prepare_cached("SELECT event_offset FROM cursor WHERE name = ?1")?
            .query_row([name], |row| row.get(0).map(Offset))
            .optional()?)
    }

    /// The newest event of a kind that the reader `name` has yet to deal with, among the newest
    /// `most` of the log.
    ///
    /// # Errors
    /// [`StoreError::Sqlite`].
    pub fn unread(&self, name: &str, kind: &str, most: u32) -> Result<Option<Offset>, StoreError> {
        let newest: Option<i64> = self
            .conn
            .prepare_cached(
                "SELECT max(event_offset) FROM
                 (SELECT event_offset, kind FROM event
                  WHERE event_offset > coalesce((SELECT event_offset FROM cursor WHERE name = ?1), 0)
                  ORDER BY event_offset DESC LIMIT ?3)
                 WHERE kind = ?2",
            )?
            .query_row(params![name, kind, most], |row| row.get(0))?;
        Ok(newest.map(Offset))
    }
}
