//! Commands of headquarters: each id acts at most once, across restarts. The
//! id is committed before the command acts and before its packet is acknowledged.

use rusqlite::{Connection, OptionalExtension, params};
use uuid::Uuid;

use super::{Reader, StoreError};
use crate::clock::UtcMillis;

/// Remembers commands.
#[derive(Debug, Clone)]
pub enum CommandOp {
    /// A command arrived. Fails the batch with [`StoreError::Replayed`] (same body)
    /// or [`StoreError::KeyConflict`] (other body) when its id was seen before.
    Receive {
        /// Its id.
        id: Uuid,
        /// Its name.
        name: String,
        /// SHA-256 of name and arguments.
        body_sha256: [u8; 32],
    },
}

impl CommandOp {
    pub(super) fn apply(&self, tx: &Connection) -> Result<(), StoreError> {
        let Self::Receive { id, name, body_sha256 } = self;
        let earlier: Option<Vec<u8>> = tx
            .prepare_cached("SELECT body_sha256 FROM command WHERE id = ?1")?
            .query_row([id.as_bytes().as_slice()], |row| row.get(0))
            .optional()?;
        match earlier {
            Some(sha) if sha == body_sha256 => Err(StoreError::Replayed { request: *id }),
            Some(_) => Err(StoreError::KeyConflict),
            None => {
                tx.execute(
                    "INSERT INTO command (id, name, body_sha256, received_at) VALUES (?1, ?2, ?3, ?4)",
                    params![id.as_bytes().as_slice(), name, body_sha256.as_slice(), UtcMillis::now().0],
                )?;
                Ok(())
            }
        }
    }
}

impl Reader<'_> {
    /// Whether a command id was seen before.
    ///
    /// # Errors
    /// [`StoreError::Sqlite`].
    pub fn command_seen(&self, id: Uuid) -> Result<bool, StoreError> {
        Ok(self
            .conn
            .prepare_cached("SELECT 1 FROM command WHERE id = ?1")?
            .exists([id.as_bytes().as_slice()])?)
    }
}
