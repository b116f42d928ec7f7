//! Visits of cars with their last report, and what is remembered of adapters.

use rusqlite::{Connection, OptionalExtension, Row, params};
use serde::Serialize;
use serde_json::value::RawValue;
use uuid::Uuid;

use super::devices::{enum_text, ident, text_enum};
use super::requests::uuid_from;
use super::{Reader, StoreError};
use crate::clock::UtcMillis;
use crate::event::vehicle::DepartureReason;
use crate::ident::{DeviceId, Vin};

/// A visit as stored.
#[derive(Debug, Clone, Serialize)]
pub struct VisitRow {
    /// Its id.
    pub visit: Uuid,
    /// The vehicle link.
    pub link: DeviceId,
    /// The car, when known.
    pub vin: Option<Vin>,
    /// The workshop order, when typed in.
    pub order: Option<String>,
    /// Contract §5 protocol name.
    pub protocol: String,
    /// When it began.
    pub started_at: UtcMillis,
    /// When it ended.
    pub ended_at: Option<UtcMillis>,
    /// Why it ended.
    pub reason: Option<DepartureReason>,
    /// The last report of the visit (contract §5 JSON).
    pub report: Option<Box<RawValue>>,
}

/// Changes visits. The `vehicle.*` event goes into the same batch.
#[derive(Debug, Clone)]
pub enum VisitOp {
    /// A visit begins. Fails the batch when the link has an open one.
    Open {
        /// Its id.
        visit: Uuid,
        /// The vehicle link.
        link: DeviceId,
        /// The car, when known.
        vin: Option<Vin>,
        /// Contract §5 protocol name.
        protocol: String,
    },
    /// A report (contract §5 JSON), with the VIN it found.
    Report {
        /// Which.
        visit: Uuid,
        /// The car, when known.
        vin: Option<Vin>,
        /// The report.
        report: Box<RawValue>,
    },
    /// The visit ends.
    Close {
        /// Which.
        visit: Uuid,
        /// Why.
        reason: DepartureReason,
    },
    /// What was learned of an adapter (JSON).
    Adapter {
        /// Its identity string.
        identity: String,
        /// What it can do.
        capabilities: String,
    },
}

impl VisitOp {
    pub(super) fn apply(&self, tx: &Connection) -> Result<(), StoreError> {
        let now = UtcMillis::now().0;
        let changed = match self {
            Self::Open { visit, link, vin, protocol } => tx
                .prepare_cached(
                    "INSERT INTO visit (id, link, vin, protocol, started_at) VALUES (?1, ?2, ?3, ?4, ?5)",
                )?
                .execute(params![
                    visit.as_bytes().as_slice(),
                    link.as_str(),
                    vin.as_ref().map(Vin::as_str),
                    protocol,
                    now
                ])?,
            Self::Report { visit, vin, report } => tx
                .prepare_cached("UPDATE visit SET report = ?2, vin = coalesce(?3, vin) WHERE id = ?1")?
                .execute(params![visit.as_bytes().as_slice(), report.get(), vin.as_ref().map(Vin::as_str)])?,
            Self::Close { visit, reason } => tx
                .prepare_cached(
                    "UPDATE visit SET ended_at = ?2, reason = ?3 WHERE id = ?1 AND ended_at IS NULL",
                )?
                .execute(params![visit.as_bytes().as_slice(), now, enum_text(reason)?])?,
            Self::Adapter { identity, capabilities } => {
                super::history::room_for_adapter(tx, identity)?;
                tx.prepare_cached("INSERT OR REPLACE INTO adapter (identity, capabilities) VALUES (?1, ?2)")?
                    .execute(params![identity, capabilities])?
            }
        };
        if changed == 0 {
            return Err(StoreError::NotFound { what: "open visit".into() });
        }
        Ok(())
    }
}

const COLUMNS: &str = "id, link, vin, work_order, protocol, started_at, ended_at, reason, report";

fn visit_of(row: &Row<'_>) -> Result<VisitRow, StoreError> {
    Ok(VisitRow {
        visit: uuid_from(&row.get::<_, Vec<u8>>(0)?)?,
        link: ident(&row.get::<_, String>(1)?)?,
        vin: row.get::<_, Option<String>>(2)?.map(|text| ident(&text)).transpose()?,
        order: row.get(3)?,
        protocol: row.get(4)?,
        started_at: UtcMillis(row.get(5)?),
        ended_at: row.get::<_, Option<i64>>(6)?.map(UtcMillis),
        reason: row.get::<_, Option<String>>(7)?.map(text_enum).transpose()?,
        report: row
            .get::<_, Option<String>>(8)?
            .map(|text| RawValue::from_string(text).map_err(|e| StoreError::Corrupt(e.to_string())))
            .transpose()?,
    })
}

impl Reader<'_> {
    /// The visits now going on, by link.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn open_visits(&self) -> Result<Vec<VisitRow>, StoreError> {
        let mut query = self
            .conn
            .prepare_cached(&format!("SELECT {COLUMNS} FROM visit WHERE ended_at IS NULL ORDER BY link"))?;
        let mut rows = query.query([])?;
        let mut visits = Vec::new();
        while let Some(row) = rows.next()? {
            visits.push(visit_of(row)?);
        }
        Ok(visits)
    }

    /// The visits of a car, newest first.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn visits_of(&self, vin: &Vin, limit: usize) -> Result<Vec<VisitRow>, StoreError> {
        let mut query = self.conn.prepare_cached(&format!(
            "SELECT {COLUMNS} FROM visit WHERE vin = ?1 ORDER BY rowid DESC LIMIT ?2"
        ))?;
        let mut rows = query.query(params![vin.as_str(), i64::try_from(limit).unwrap_or(i64::MAX)])?;
        let mut visits = Vec::new();
        while let Some(row) = rows.next()? {
            visits.push(visit_of(row)?);
        }
        Ok(visits)
    }

    /// What is remembered of an adapter (JSON).
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn adapter(&self, identity: &str) -> Result<Option<String>, StoreError> {
        Ok(self
            .conn
            .prepare_cached("SELECT capabilities FROM adapter WHERE identity = ?1")?
            .query_row([identity], |row| row.get(0))
            .optional()?)
    }
}
