//! Durable positions of the local readers of the log. A cursor moves in the
//! transaction of its reader's effect, so that an effect happens once.

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
}

impl CursorOp {
    pub(super) fn apply(&self, tx: &Connection) -> Result<(), StoreError> {
        let Self::Advance { name, to } = self;
        tx.prepare_cached(
            "INSERT INTO cursor (name, event_offset) VALUES (?1, ?2)
             ON CONFLICT (name) DO UPDATE SET event_offset = max(event_offset, excluded.event_offset)",
        )?
        .execute(params![name, to.0])?;
        Ok(())
    }
}

impl Reader<'_> {
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
}
