//! Shifts of tills: opened and closed by a person, one open shift a till, and what its till took
//! meanwhile. What does not live here: the ledger (`ledger`) that is added up for it.

use std::collections::BTreeMap;

use rusqlite::{Connection, Row, params};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::devices::enum_text;
use super::ledger_figures::TenderSum;
use super::requests::uuid_from;
use super::{Offset, Reader, StoreError, epoch};
use crate::clock::UtcMillis;
use crate::event::ledger::TenderKind;

/// A shift.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ShiftRow {
    /// Its id.
    pub id: Uuid,
    /// The till.
    pub till: String,
    /// The operator who opened it.
    pub opened_by: String,
    /// When.
    pub opened_at: UtcMillis,
    /// The ledger's events of the shift lie behind this …
    #[serde(skip)]
    pub after: Offset,
    /// The operator who closed it.
    pub closed_by: Option<String>,
    /// When.
    pub closed_at: Option<UtcMillis>,
    /// … up to and including this.
    #[serde(skip)]
    pub through: Option<Offset>,
    /// Per tender that was used, as told at closing. `None`: the shift is open, was closed before
    /// there was a ledger, or a row of the ledger could not be believed.
    pub totals: Option<Vec<TenderTotal>>,
}

/// What one tender came to in a shift.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TenderTotal {
    /// `purse`, `points`, `coupon`, `cash`, `wechat`, `alipay` or `bank`.
    pub tender: String,
    /// Transactions in which it was used.
    pub count: u64,
    /// Their sum in fen, refunds and voids taken off.
    pub amount_fen: i64,
}

/// Opens and closes shifts.
#[derive(Debug, Clone)]
pub enum ShiftOp {
    /// A shift begins. Fails with [`StoreError::Exists`] while one is open at the till.
    Open {
        /// The shift.
        id: Uuid,
        /// The till.
        till: String,
        /// The operator.
        by: String,
    },
    /// The till's open shift ends. Fails with [`StoreError::NotFound`] when none is open.
    Close {
        /// The till.
        till: String,
        /// The operator.
        by: String,
    },
}

impl ShiftOp {
    pub(super) fn apply(&self, tx: &Connection) -> Result<(), StoreError> {
        let now = UtcMillis::now().0;
        let last = epoch::last_offset(tx)?;
        match self {
            Self::Open { id, till, by } => {
                if open_shift(tx, till)?.is_some() {
                    return Err(StoreError::Exists { what: format!("an open shift of {till}") });
                }
                tx.prepare_cached(
                    "INSERT INTO shift (id, till, opened_by, opened_at, after_offset) VALUES (?1, ?2, ?3, ?4, ?5)",
                )?
                .execute(params![id.as_bytes().as_slice(), till, by, now, last])?;
            }
            Self::Close { till, by } => {
                let open = open_shift(tx, till)?;
                let shift =
                    open.ok_or_else(|| StoreError::NotFound { what: format!("open shift of {till}") })?;
                let totals = totals(tx, &shift, Offset(last))?;
                let totals = totals.map(|totals| serde_json::to_string(&totals)).transpose();
                let totals = totals.map_err(|error| StoreError::Corrupt(error.to_string()))?;
                tx.prepare_cached(
                    "UPDATE shift SET closed_by = ?2, closed_at = ?3, through_offset = ?4, totals = ?5 WHERE id = ?1",
                )?
                .execute(params![shift.id.as_bytes().as_slice(), by, now, last, totals])?;
            }
        }
        Ok(())
    }
}

/// What the ledger adds up to for a shift that ends at `through`, per tender; called in the
/// closing's own transaction. A transaction belongs to the shift in which it was committed,
/// whoever began it. Where a row has rotted there is no sum: the till is closed all the same.
fn totals(
    tx: &Connection,
    shift: &ShiftRow,
    through: Offset,
) -> Result<Option<Vec<TenderTotal>>, StoreError> {
    let mut sums = BTreeMap::new();
    let added = Reader { conn: tx }.each_committed(&shift.till, (shift.after, through), |fact| {
        TenderSum::add_all(&mut sums, fact)
            .ok_or_else(|| StoreError::Corrupt("a shift took more than any money is".into()))
    });
    match added {
        Ok(()) => {}
        Err(error) if error.is_damage() => {
            tracing::error!(%error, till = shift.till, "a shift cannot be added up");
            return Ok(None);
        }
        Err(error) => return Err(error),
    }
    let total = |(tender, sum): (TenderKind, TenderSum)| -> Result<TenderTotal, StoreError> {
        Ok(TenderTotal { tender: enum_text(&tender)?, count: sum.count, amount_fen: sum.amount_fen.0 })
    };
    sums.into_iter().map(total).collect::<Result<_, _>>().map(Some)
}

const COLUMNS: &str =
    "id, till, opened_by, opened_at, after_offset, closed_by, closed_at, through_offset, totals";

fn shift_of(row: &Row<'_>) -> Result<ShiftRow, StoreError> {
    let totals: Option<String> = row.get(8)?;
    let totals = totals.map(|text| serde_json::from_str(&text)).transpose();
    Ok(ShiftRow {
        id: uuid_from(&row.get::<_, Vec<u8>>(0)?)?,
        till: row.get(1)?,
        opened_by: row.get(2)?,
        opened_at: UtcMillis(row.get(3)?),
        after: Offset(row.get(4)?),
        closed_by: row.get(5)?,
        closed_at: row.get::<_, Option<i64>>(6)?.map(UtcMillis),
        through: row.get::<_, Option<i64>>(7)?.map(Offset),
        totals: totals.map_err(|error| StoreError::Corrupt(error.to_string()))?,
    })
}

fn open_shift(conn: &Connection, till: &str) -> Result<Option<ShiftRow>, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM shift WHERE till = ?1 AND closed_at IS NULL");
    let mut query = conn.prepare_cached(&sql)?;
    let mut rows = query.query([till])?;
    rows.next()?.map(shift_of).transpose()
}

impl Reader<'_> {
    /// The open shift of a till.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn open_shift(&self, till: &str) -> Result<Option<ShiftRow>, StoreError> {
        open_shift(self.conn, till)
    }

    /// One shift.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn shift(&self, id: Uuid) -> Result<Option<ShiftRow>, StoreError> {
        let mut query = self.conn.prepare_cached(&format!("SELECT {COLUMNS} FROM shift WHERE id = ?1"))?;
        let mut rows = query.query([id.as_bytes().as_slice()])?;
        rows.next()?.map(shift_of).transpose()
    }

    /// Shifts, latest first, at most `limit`.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn shifts(&self, limit: u32) -> Result<Vec<ShiftRow>, StoreError> {
        let sql = format!("SELECT {COLUMNS} FROM shift ORDER BY rowid DESC LIMIT ?1");
        let mut query = self.conn.prepare_cached(&sql)?;
        let mut rows = query.query([limit])?;
        let mut shifts = Vec::new();
        while let Some(row) = rows.next()? {
            shifts.push(shift_of(row)?);
        }
        Ok(shifts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::connection;

    #[test]
    fn one_shift_is_open_at_a_till() {
        let mut conn = Connection::open_in_memory().unwrap();
        connection::migrate(&mut conn).unwrap();
        let open = |till: &str| {
            let id = Uuid::now_v7();
            ShiftOp::Open { id, till: till.into(), by: "li".into() }.apply(&conn).map(|()| id)
        };
        let close = |till: &str| ShiftOp::Close { till: till.into(), by: "wang".into() }.apply(&conn);
        assert!(matches!(close("till-1"), Err(StoreError::NotFound { .. })));
        let first = open("till-1").unwrap();
        assert!(matches!(open("till-1"), Err(StoreError::Exists { .. })));
        open("till-2").unwrap();
        close("till-1").unwrap();
        assert!(matches!(close("till-1"), Err(StoreError::NotFound { .. })));
        let shift = Reader { conn: &conn }.shift(first).unwrap().unwrap();
        assert_eq!((shift.opened_by.as_str(), shift.closed_by.as_deref()), ("li", Some("wang")));
        assert_eq!(shift.totals, Some(Vec::new()), "nothing was taken");
        assert_ne!(open("till-1").unwrap(), first);
        assert_eq!(Reader { conn: &conn }.shifts(10).unwrap().len(), 3);
    }
}
