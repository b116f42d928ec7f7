//! Bearer tokens. Only the SHA-256 of a token is ever stored: a token has 256
//! random bits, so a slow hash would add nothing.

use rusqlite::{Connection, OptionalExtension, Row, params};
use serde::Serialize;
use uuid::Uuid;

use super::requests::uuid_from;
use super::{Reader, StoreError};
use crate::clock::UtcMillis;

/// A token as stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TokenRow {
    /// Its id (not the token).
    pub id: Uuid,
    /// For people.
    pub name: String,
    /// What it may do, e.g. `read`, `print`.
    pub scopes: Vec<String>,
    /// The till it was paired to.
    pub till: Option<String>,
    /// When it was made.
    pub created_at: UtcMillis,
    /// When it was taken back.
    pub revoked_at: Option<UtcMillis>,
}

/// Changes tokens.
#[derive(Debug, Clone)]
pub enum TokenOp {
    /// A new one.
    Create {
        /// Its id.
        id: Uuid,
        /// For people.
        name: String,
        /// SHA-256 of the token.
        sha256: [u8; 32],
        /// What it may do.
        scopes: Vec<String>,
        /// The till it is paired to.
        till: Option<String>,
    },
    /// Takes one back.
    Revoke {
        /// Which.
        id: Uuid,
    },
}

impl TokenOp {
    pub(super) fn apply(&self, tx: &Connection) -> Result<(), StoreError> {
        let now = UtcMillis::now().0;
        match self {
            Self::Create { id, name, sha256, scopes, till } => {
                tx.execute(
                    "INSERT INTO token (id, name, sha256, scopes, till, created_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                    params![id.as_bytes().as_slice(), name, sha256.as_slice(), scopes.join(" "), till, now],
                )?;
            }
            Self::Revoke { id } => {
                let changed = tx.execute(
                    "UPDATE token SET revoked_at = ?2 WHERE id = ?1 AND revoked_at IS NULL",
                    params![id.as_bytes().as_slice(), now],
                )?;
                if changed == 0 {
                    return Err(StoreError::NotFound { what: format!("token {id}") });
                }
            }
        }
        Ok(())
    }
}

fn token_of(row: &Row<'_>) -> Result<TokenRow, StoreError> {
    Ok(TokenRow {
        id: uuid_from(&row.get::<_, Vec<u8>>(0)?)?,
        name: row.get(1)?,
        scopes: row.get::<_, String>(2)?.split_whitespace().map(str::to_owned).collect(),
        till: row.get(3)?,
        created_at: UtcMillis(row.get(4)?),
        revoked_at: row.get::<_, Option<i64>>(5)?.map(UtcMillis),
    })
}

impl Reader<'_> {
    /// All tokens, newest first, revoked ones included.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn tokens(&self) -> Result<Vec<TokenRow>, StoreError> {
        let mut query = self.conn.prepare_cached(
            "SELECT id, name, scopes, till, created_at, revoked_at FROM token ORDER BY rowid DESC",
        )?;
        let mut rows = query.query([])?;
        let mut tokens = Vec::new();
        while let Some(row) = rows.next()? {
            tokens.push(token_of(row)?);
        }
        Ok(tokens)
    }

    /// The live token with that hash.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn token_by_hash(&self, sha256: &[u8; 32]) -> Result<Option<TokenRow>, StoreError> {
        let id: Option<Vec<u8>> = self
            .conn
            .prepare_cached("SELECT id FROM token WHERE sha256 = ?1 AND revoked_at IS NULL")?
            .query_row([sha256.as_slice()], |row| row.get(0))
            .optional()?;
        let Some(id) = id else { return Ok(None) };
        let mut query = self.conn.prepare_cached(
            "SELECT id, name, scopes, till, created_at, revoked_at FROM token WHERE id = ?1",
        )?;
        let mut rows = query.query([id])?;
        rows.next()?.map(token_of).transpose()
    }
}
