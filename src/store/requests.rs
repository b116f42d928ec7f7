//! Requests as rows. A till, the CLI or headquarters asks for something that
//! needs a device: the row is committed first, the service that owns the
//! device takes it, and the asker waits for its outcome. Idempotency keys make
//! a repeated request find the first one.

use rusqlite::{Connection, OptionalExtension, Row, params};
use serde_json::Value;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::{Reader, StoreError};
use crate::clock::{self, UtcMillis};

/// Kind of the request that changes a card.
pub const TRANSACTION: &str = "card.transaction";
/// Kind of the request that calculates and changes nothing.
pub const QUOTE: &str = "card.quote";

/// A request on its way in.
#[derive(Debug, Clone)]
pub struct NewRequest {
    /// UUIDv7, fixed by the asker.
    pub id: Uuid,
    /// What is asked, e.g. `vehicle.scan`.
    pub kind: &'static str,
    /// The device asked, e.g. `bay-1`.
    pub target: String,
    /// Whose idempotency keys these are: the token's id, or `control`.
    pub scope: String,
    /// The asker's key.
    pub idempotency_key: Option<String>,
    /// The arguments. Never contains a secret.
    pub body: Value,
}

/// Where a request stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RequestState {
    /// Committed, not yet taken.
    Pending,
    /// Taken by its service.
    Running,
    /// Settled well.
    Done,
    /// Settled badly.
    Failed,
}

impl RequestState {
    fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Running => "running",
            Self::Done => "done",
            Self::Failed => "failed",
        }
    }

    /// Whether the outcome is there.
    #[must_use]
    pub fn is_settled(self) -> bool {
        matches!(self, Self::Done | Self::Failed)
    }
}

/// A request as stored.
#[derive(Debug, Clone)]
pub struct RequestRow {
    /// Its id.
    pub id: Uuid,
    /// What is asked.
    pub kind: String,
    /// The device asked.
    pub target: String,
    /// The arguments.
    pub body: Value,
    /// Where it stands.
    pub state: RequestState,
    /// What came of it, when settled.
    pub outcome: Option<Value>,
    /// When it came in.
    pub created_at: UtcMillis,
}

/// Changes requests.
#[derive(Debug, Clone)]
pub enum RequestOp {
    /// A new one. Fails the batch with [`StoreError::Replayed`] or [`StoreError::KeyConflict`]
    /// when its key was used before.
    Insert(NewRequest),
    /// Its service begins.
    Start {
        /// Which.
        id: Uuid,
    },
    /// Its outcome.
    Settle {
        /// Which.
        id: Uuid,
        /// `Done` or `Failed`.
        state: RequestState,
        /// What came of it.
        outcome: Value,
    },
}

impl RequestOp {
    pub(super) fn apply(&self, tx: &Connection) -> Result<(), StoreError> {
        match self {
            Self::Insert(new) => insert(tx, new),
            Self::Start { id } => change(
                tx,
                *id,
                "UPDATE request SET state = 'running' WHERE id = ?1 AND state = 'pending'",
                &[],
            ),
            Self::Settle { id, state, outcome } => {
                let (state, outcome) = (state.as_str(), outcome.to_string());
                let now = super::history::settled_at(clock::read());
                change(
                    tx,
                    *id,
                    "UPDATE request SET state = ?2, outcome = ?3, settled_at = ?4 WHERE id = ?1 AND settled_at IS NULL",
                    &[&state, &outcome, &now],
                )
            }
        }
    }
}

fn change(tx: &Connection, id: Uuid, sql: &str, more: &[&dyn rusqlite::ToSql]) -> Result<(), StoreError> {
    let id_bytes = id.as_bytes().as_slice();
    let mut all: Vec<&dyn rusqlite::ToSql> = vec![&id_bytes];
    all.extend_from_slice(more);
    match tx.prepare_cached(sql)?.execute(all.as_slice())? {
        0 => Err(StoreError::NotFound { what: format!("request {id}") }),
        _ => Ok(()),
    }
}

/// What makes two requests with one key the same.
fn digest(new: &NewRequest) -> [u8; 32] {
    Sha256::new()
        .chain_update(new.kind)
        .chain_update([0])
        .chain_update(&new.target)
        .chain_update([0])
        .chain_update(new.body.to_string())
        .finalize()
        .into()
}

/// The earlier request that `new` repeats: same scope, key and content.
fn repeated(conn: &Connection, new: &NewRequest) -> Result<Option<Uuid>, StoreError> {
    let Some(key) = &new.idempotency_key else { return Ok(None) };
    let earlier: Option<(Vec<u8>, Vec<u8>)> = conn
        .prepare_cached("SELECT id, body_sha256 FROM request WHERE scope = ?1 AND idempotency_key = ?2")?
        .query_row(params![new.scope, key], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    match earlier {
        Some((_, body_sha256)) if body_sha256 != digest(new).as_slice() => Err(StoreError::KeyConflict),
        Some((id, _)) => uuid_from(&id).map(Some),
        None => Ok(None),
    }
}

/// The row that a key was used for.
pub(super) fn by_key(conn: &Connection, scope: &str, key: &str) -> Result<Option<RequestRow>, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM request WHERE scope = ?1 AND idempotency_key = ?2");
    let mut query = conn.prepare_cached(&sql)?;
    let mut rows = query.query(params![scope, key])?;
    rows.next()?.map(row_of).transpose()
}

pub(super) fn insert(tx: &Connection, new: &NewRequest) -> Result<(), StoreError> {
    if let Some(request) = repeated(tx, new)? {
        return Err(StoreError::Replayed { request });
    }
    tx.prepare_cached(
        "INSERT INTO request (id, kind, target, scope, idempotency_key, body_sha256, body, state, created_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, 'pending', ?8)",
    )?
    .execute(params![
        new.id.as_bytes().as_slice(),
        new.kind,
        new.target,
        new.scope,
        new.idempotency_key,
        digest(new).as_slice(),
        new.body.to_string(),
        UtcMillis::now().0
    ])?;
    Ok(())
}

pub(super) fn uuid_from(bytes: &[u8]) -> Result<Uuid, StoreError> {
    Uuid::from_slice(bytes).map_err(|e| StoreError::Corrupt(e.to_string()))
}

const COLUMNS: &str = "id, kind, target, body, state, outcome, created_at";

fn row_of(row: &Row<'_>) -> Result<RequestRow, StoreError> {
    let json = |text: String| serde_json::from_str(&text).map_err(|e| StoreError::Corrupt(e.to_string()));
    Ok(RequestRow {
        id: uuid_from(&row.get::<_, Vec<u8>>(0)?)?,
        kind: row.get(1)?,
        target: row.get(2)?,
        body: json(row.get(3)?)?,
        state: super::devices::text_enum(row.get(4)?)?,
        outcome: row.get::<_, Option<String>>(5)?.map(json).transpose()?,
        created_at: UtcMillis(row.get(6)?),
    })
}

impl Reader<'_> {
    /// One request.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn request(&self, id: Uuid) -> Result<Option<RequestRow>, StoreError> {
        let mut query = self.conn.prepare_cached(&format!("SELECT {COLUMNS} FROM request WHERE id = ?1"))?;
        let mut rows = query.query([id.as_bytes().as_slice()])?;
        rows.next()?.map(row_of).transpose()
    }

    /// The earlier request that `new` repeats: for what is judged before it is committed.
    ///
    /// # Errors
    /// [`StoreError::KeyConflict`] when its key was used for something else.
    pub fn repeated(&self, new: &NewRequest) -> Result<Option<Uuid>, StoreError> {
        repeated(self.conn, new)
    }

    /// The request that a key was used for.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn request_by_key(&self, scope: &str, key: &str) -> Result<Option<RequestRow>, StoreError> {
        by_key(self.conn, scope, key)
    }

    /// Requests of one device that are not settled, of whatever kind, oldest first.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn open_requests_of(&self, target: &str) -> Result<Vec<RequestRow>, StoreError> {
        let mut query = self.conn.prepare_cached(&format!(
            "SELECT {COLUMNS} FROM request WHERE target = ?1 AND state IN ('pending','running') ORDER BY rowid"
        ))?;
        let mut rows = query.query([target])?;
        let mut open = Vec::new();
        while let Some(row) = rows.next()? {
            open.push(row_of(row)?);
        }
        Ok(open)
    }

    /// Requests of a kind that are not settled, oldest first. `target` narrows to one device.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn open_requests(&self, kind: &str, target: Option<&str>) -> Result<Vec<RequestRow>, StoreError> {
        let mut query = self.conn.prepare_cached(&format!(
            "SELECT {COLUMNS} FROM request
             WHERE kind = ?1 AND state IN ('pending','running') AND (?2 IS NULL OR target = ?2)
             ORDER BY rowid"
        ))?;
        let mut rows = query.query(params![kind, target])?;
        let mut open = Vec::new();
        while let Some(row) = rows.next()? {
            open.push(row_of(row)?);
        }
        Ok(open)
    }
}
