//! Batches of cards to give out. What lives here: a batch's rows and how each moves, one
//! commit a step, so that a row is given out at most once whatever is cut off. The batch
//! itself is a request of kind [`KIND`], settled when no row is open. What does not: which
//! card gets which row (`card::counter`).
//!
//! ```text
//!   waiting ──begin (with its card.issue)──► issuing ──► issued | refused
//!      ▲  └──cancel──► cancelled                 │
//!      └──────────── back: this card will not do ┘
//! ```

use rusqlite::{Connection, OptionalExtension, Row, params};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use super::devices::{enum_text, ident, text_enum};
use super::requests::uuid_from;
use super::trim::Step;
use super::{Reader, StoreError};
use crate::clock::UtcMillis;
use crate::ident::CardNo;

/// Kind of the request that a batch is.
pub const KIND: &str = "card.batch";

/// Where a row stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RowState {
    /// For an empty card.
    Waiting,
    /// A card is being written; or it left, and its next tap tells.
    Issuing,
    /// The card was given out.
    Issued,
    /// No card can ever have this row.
    Refused,
    /// The batch was ended before.
    Cancelled,
}

/// A row on its way in.
#[derive(Debug, Clone)]
pub struct NewRow {
    /// Its number.
    pub card_no: CardNo,
    /// What is to stand on the card.
    pub asked: Value,
    /// What is to stand on its face.
    pub face: Option<Value>,
}

/// A row as stored.
#[derive(Debug, Clone)]
pub struct BatchRow {
    /// From 1.
    pub n: u32,
    /// Its number.
    pub card_no: CardNo,
    /// What is to stand on the card.
    pub asked: Value,
    /// What is to stand on its face.
    pub face: Option<Value>,
    /// Where it stands.
    pub state: RowState,
    /// The request that gives it out.
    pub request: Option<Uuid>,
    /// What came of it.
    pub outcome: Option<Value>,
    /// The print job of its face.
    pub job: Option<Uuid>,
    /// When it last moved.
    pub changed_at: UtcMillis,
}

/// How many rows stand where.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RowCounts {
    /// For an empty card.
    pub waiting: u32,
    /// Being written, or not told yet.
    pub issuing: u32,
    /// Given out.
    pub issued: u32,
    /// Impossible.
    pub refused: u32,
    /// Ended before.
    pub cancelled: u32,
}

impl RowCounts {
    /// All rows.
    #[must_use]
    pub fn total(self) -> u32 {
        self.waiting + self.issuing + self.issued + self.refused + self.cancelled
    }
}

/// Changes rows.
#[derive(Debug, Clone)]
pub enum BatchOp {
    /// The rows of a new batch, in the commit of its request.
    Insert {
        /// The batch.
        batch: Uuid,
        /// In order.
        rows: Vec<NewRow>,
    },
    /// A card is there for a waiting row. Fails with [`StoreError::NotFound`] when the row
    /// does not wait any more.
    Begin {
        /// The batch.
        batch: Uuid,
        /// The row.
        n: u32,
        /// The request that gives it out, inserted in the same commit.
        request: Uuid,
    },
    /// What came of a row under way: [`RowState::Waiting`], [`RowState::Issued`] or
    /// [`RowState::Refused`]. Fails when another request has the row.
    Told {
        /// The batch.
        batch: Uuid,
        /// The row.
        n: u32,
        /// The request.
        request: Uuid,
        /// Where it stands now.
        state: RowState,
        /// What came of it.
        outcome: Value,
        /// The print job of its face, queued in the same commit.
        job: Option<Uuid>,
    },
    /// No more cards for the waiting rows.
    Cancel {
        /// The batch.
        batch: Uuid,
    },
}

impl BatchOp {
    pub(super) fn apply(&self, tx: &Connection) -> Result<(), StoreError> {
        let now = UtcMillis::now().0;
        let (changed, n) = match self {
            Self::Insert { batch, rows } => {
                for (n, row) in (1_u32..).zip(rows) {
                    tx.prepare_cached(
                        "INSERT INTO batch_row (batch, n, card_no, asked, face, state, changed_at)
                         VALUES (?1, ?2, ?3, ?4, ?5, 'waiting', ?6)",
                    )?
                    .execute(params![
                        batch.as_bytes().as_slice(),
                        n,
                        row.card_no.as_str(),
                        row.asked.to_string(),
                        row.face.as_ref().map(Value::to_string),
                        now
                    ])?;
                }
                return Ok(());
            }
            Self::Begin { batch, n, request } => (
                tx.prepare_cached(
                    "UPDATE batch_row SET state = 'issuing', request = ?3, changed_at = ?4
                     WHERE batch = ?1 AND n = ?2 AND state = 'waiting'",
                )?
                .execute(params![
                    batch.as_bytes().as_slice(),
                    n,
                    request.as_bytes().as_slice(),
                    now
                ])?,
                *n,
            ),
            Self::Told { batch, n, request, state, outcome, job } => (
                tx.prepare_cached(
                    "UPDATE batch_row SET state = ?4, outcome = ?5, job = ?6, changed_at = ?7,
                            face = CASE ?4 WHEN 'waiting' THEN face END
                     WHERE batch = ?1 AND n = ?2 AND request = ?3 AND state = 'issuing'",
                )?
                .execute(params![
                    batch.as_bytes().as_slice(),
                    n,
                    request.as_bytes().as_slice(),
                    enum_text(state)?,
                    outcome.to_string(),
                    job.as_ref().map(|job| job.as_bytes().as_slice()),
                    now
                ])?,
                *n,
            ),
            Self::Cancel { batch } => {
                tx.prepare_cached(
                    "UPDATE batch_row SET state = 'cancelled', face = NULL, changed_at = ?2
                     WHERE batch = ?1 AND state = 'waiting'",
                )?
                .execute(params![batch.as_bytes().as_slice(), now])?;
                return Ok(());
            }
        };
        match changed {
            0 => Err(StoreError::NotFound { what: format!("row {n} of the batch in that state") }),
            _ => Ok(()),
        }
    }
}

/// The oldest batch goes once its request is forgotten; ids rise with time.
pub(super) fn sweep_step(tx: &Connection, rows: i64) -> Result<Step, StoreError> {
    let gone = tx
        .prepare_cached(
            "DELETE FROM batch_row WHERE batch = (SELECT min(batch) FROM batch_row) AND n IN
             (SELECT n FROM batch_row b WHERE b.batch = (SELECT min(batch) FROM batch_row)
              AND NOT EXISTS (SELECT 1 FROM request r WHERE r.id = b.batch) LIMIT ?1)",
        )?
        .execute([rows])?;
    Ok(Step { changed: gone > 0, more: i64::try_from(gone).unwrap_or(0) >= rows })
}

const COLUMNS: &str = "n, card_no, asked, face, state, request, outcome, job, changed_at";

fn row_of(row: &Row<'_>) -> Result<BatchRow, StoreError> {
    let json = |text: String| serde_json::from_str(&text).map_err(|e| StoreError::Corrupt(e.to_string()));
    let id = |bytes: Option<Vec<u8>>| bytes.map(|bytes| uuid_from(&bytes)).transpose();
    Ok(BatchRow {
        n: row.get(0)?,
        card_no: ident(&row.get::<_, String>(1)?)?,
        asked: json(row.get(2)?)?,
        face: row.get::<_, Option<String>>(3)?.map(json).transpose()?,
        state: text_enum(row.get(4)?)?,
        request: id(row.get(5)?)?,
        outcome: row.get::<_, Option<String>>(6)?.map(json).transpose()?,
        job: id(row.get(7)?)?,
        changed_at: UtcMillis(row.get(8)?),
    })
}

impl Reader<'_> {
    /// All rows of a batch, in order.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn batch_rows(&self, batch: Uuid) -> Result<Vec<BatchRow>, StoreError> {
        self.some_batch_rows(batch, "1 ORDER BY n")
    }

    /// The rows whose card is being written, or was and left.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn batch_rows_issuing(&self, batch: Uuid) -> Result<Vec<BatchRow>, StoreError> {
        self.some_batch_rows(batch, "state = 'issuing' ORDER BY n")
    }

    /// The row for the next empty card.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn batch_next(&self, batch: Uuid) -> Result<Option<BatchRow>, StoreError> {
        Ok(self.some_batch_rows(batch, "state = 'waiting' ORDER BY n LIMIT 1")?.pop())
    }

    fn some_batch_rows(&self, batch: Uuid, which: &str) -> Result<Vec<BatchRow>, StoreError> {
        let sql = format!("SELECT {COLUMNS} FROM batch_row WHERE batch = ?1 AND {which}");
        let mut query = self.conn.prepare_cached(&sql)?;
        let mut rows = query.query([batch.as_bytes().as_slice()])?;
        let mut found = Vec::new();
        while let Some(row) = rows.next()? {
            found.push(row_of(row)?);
        }
        Ok(found)
    }

    /// How far a batch is.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn batch_counts(&self, batch: Uuid) -> Result<RowCounts, StoreError> {
        let mut query = self
            .conn
            .prepare_cached("SELECT state, count(*) FROM batch_row WHERE batch = ?1 GROUP BY state")?;
        let mut rows = query.query([batch.as_bytes().as_slice()])?;
        let mut counts = RowCounts::default();
        while let Some(row) = rows.next()? {
            let count: u32 = row.get(1)?;
            match text_enum(row.get(0)?)? {
                RowState::Waiting => counts.waiting = count,
                RowState::Issuing => counts.issuing = count,
                RowState::Issued => counts.issued = count,
                RowState::Refused => counts.refused = count,
                RowState::Cancelled => counts.cancelled = count,
            }
        }
        Ok(counts)
    }

    /// The newest batches, at most `most`, newest first.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn batches(&self, most: usize) -> Result<Vec<Uuid>, StoreError> {
        let mut query = self.conn.prepare_cached("SELECT max(batch) FROM batch_row WHERE batch < ?1")?;
        let (mut found, mut before) = (Vec::new(), Uuid::max());
        while found.len() < most {
            let next =
                query.query_row([before.as_bytes().as_slice()], |row| row.get::<_, Option<Vec<u8>>>(0))?;
            let Some(next) = next else { break };
            before = uuid_from(&next)?;
            found.push(before);
        }
        Ok(found)
    }

    /// The batch in which a number waits for its card.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn batch_of_number(&self, card_no: &CardNo) -> Result<Option<Uuid>, StoreError> {
        let found: Option<Vec<u8>> = self
            .conn
            .prepare_cached(
                "SELECT batch FROM batch_row WHERE card_no = ?1 AND state IN ('waiting','issuing')",
            )?
            .query_row([card_no.as_str()], |row| row.get(0))
            .optional()?;
        found.map(|bytes| uuid_from(&bytes)).transpose()
    }
}
