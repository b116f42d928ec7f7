//! Visits of cars with their last report, and what is remembered of adapters.

use rusqlite::{Connection, OptionalExtension, Row, params};
use serde::Serialize;
use serde_json::value::RawValue;
use uuid::Uuid;

use super::devices::{enum_text, ident, text_enum};
use super::requests::uuid_from;
use super::{Reader, StoreError};
use crate::clock::UtcMillis;
use crate::event::vehicle::{DepartureReason, OdometerSource, Purpose};
use crate::ident::{CardNo, DeviceId, Vin};

/// What people in the store said of a visit.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct TypedIn {
    /// The VIN.
    pub vin: Option<Vin>,
    /// The workshop order.
    pub order: Option<String>,
    /// The odometer, kilometres.
    pub odometer_km: Option<f64>,
    /// Where the odometer was read.
    pub odometer_source: Option<OdometerSource>,
    /// Why the car is here.
    pub purpose: Option<Purpose>,
    /// The member's card, and when the member agreed.
    pub member: Option<(CardNo, UtcMillis)>,
}

/// A visit as stored.
#[derive(Debug, Clone, Serialize)]
pub struct VisitRow {
    /// Its id.
    pub visit: Uuid,
    /// The vehicle link.
    pub link: DeviceId,
    /// The car, when known: read, else typed in.
    pub vin: Option<Vin>,
    /// The car itself gave its VIN.
    pub vin_is_read: bool,
    /// What was typed in.
    pub typed: TypedIn,
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
    /// Rises with every change.
    pub revision: i64,
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
    /// Nothing; fails the batch with [`StoreError::NotFound`] when the visit has changed since.
    At {
        /// Which.
        visit: Uuid,
        /// [`VisitRow::revision`] as it was read.
        revision: i64,
    },
    /// The car told its VIN after the visit had begun.
    Identify {
        /// Which.
        visit: Uuid,
        /// The car.
        vin: Vin,
    },
    /// What people said of it, whole. Put [`VisitOp::At`] before it.
    TypeIn {
        /// Which.
        visit: Uuid,
        /// Everything typed in so far.
        typed: Box<TypedIn>,
        /// Its report with that in it, where there is one.
        report: Option<Box<RawValue>>,
    },
    /// What the battery rested at.
    Rested {
        /// Which.
        visit: Uuid,
        /// Volts.
        volts: f64,
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
                    "INSERT INTO visit (id, link, vin, vin_is_read, protocol, started_at)
                     VALUES (?1, ?2, ?3, ?3 IS NOT NULL, ?4, ?5)",
                )?
                .execute(params![
                    visit.as_bytes().as_slice(),
                    link.as_str(),
                    vin.as_ref().map(Vin::as_str),
                    protocol,
                    now
                ])?,
            Self::Report { visit, vin, report } => tx
                .prepare_cached(
                    "UPDATE visit SET report = ?2, vin = coalesce(?3, vin), revision = revision + 1,
                     vin_is_read = vin_is_read OR (?3 IS NOT NULL AND ?3 IS NOT typed_vin) WHERE id = ?1",
                )?
                .execute(params![visit.as_bytes().as_slice(), report.get(), vin.as_ref().map(Vin::as_str)])?,
            Self::At { visit, revision } => tx
                .prepare_cached("UPDATE visit SET revision = revision WHERE id = ?1 AND revision = ?2")?
                .execute(params![visit.as_bytes().as_slice(), revision])?,
            Self::Identify { visit, vin } => tx
                .prepare_cached(
                    "UPDATE visit SET vin = ?2, vin_is_read = 1, revision = revision + 1 WHERE id = ?1",
                )?
                .execute(params![visit.as_bytes().as_slice(), vin.as_str()])?,
            Self::TypeIn { visit, typed, report } => type_in(tx, *visit, typed, report.as_deref())?,
            Self::Rested { visit, volts } => tx
                .prepare_cached("UPDATE visit SET resting_v = ?2 WHERE id = ?1")?
                .execute(params![visit.as_bytes().as_slice(), volts])?,
            Self::Close { visit, reason } => tx
                .prepare_cached(
                    "UPDATE visit SET ended_at = ?2, reason = ?3, revision = revision + 1 WHERE id = ?1 AND ended_at IS NULL",
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

fn type_in(
    tx: &Connection,
    visit: Uuid,
    typed: &TypedIn,
    report: Option<&RawValue>,
) -> Result<usize, StoreError> {
    let (card_no, consent_at) = typed.member.as_ref().map(|(card_no, at)| (card_no.as_str(), at.0)).unzip();
    Ok(tx
        .prepare_cached(
            "UPDATE visit SET typed_vin = ?2, vin = CASE WHEN vin_is_read THEN vin ELSE ?2 END, work_order = ?3,
             odometer_km = ?4, odometer_source = ?5, purpose = ?6, card_no = ?7, consent_at = ?8,
             report = coalesce(?9, report), revision = revision + 1 WHERE id = ?1",
        )?
        .execute(params![
            visit.as_bytes().as_slice(),
            typed.vin.as_ref().map(Vin::as_str),
            typed.order,
            typed.odometer_km,
            typed.odometer_source.as_ref().map(enum_text).transpose()?,
            typed.purpose.as_ref().map(enum_text).transpose()?,
            card_no,
            consent_at,
            report.map(RawValue::get),
        ])?)
}

const COLUMNS: &str = "id, link, vin, work_order, protocol, started_at, ended_at, reason, report,
     vin_is_read, typed_vin, odometer_km, odometer_source, purpose, card_no, consent_at, revision";

fn visit_of(row: &Row<'_>) -> Result<VisitRow, StoreError> {
    Ok(VisitRow {
        visit: uuid_from(&row.get::<_, Vec<u8>>(0)?)?,
        link: ident(&row.get::<_, String>(1)?)?,
        vin: row.get::<_, Option<String>>(2)?.map(|text| ident(&text)).transpose()?,
        vin_is_read: row.get(9)?,
        typed: typed_of(row)?,
        protocol: row.get(4)?,
        started_at: UtcMillis(row.get(5)?),
        ended_at: row.get::<_, Option<i64>>(6)?.map(UtcMillis),
        reason: row.get::<_, Option<String>>(7)?.map(text_enum).transpose()?,
        report: row
            .get::<_, Option<String>>(8)?
            .map(|text| RawValue::from_string(text).map_err(|e| StoreError::Corrupt(e.to_string())))
            .transpose()?,
        revision: row.get(16)?,
    })
}

fn typed_of(row: &Row<'_>) -> Result<TypedIn, StoreError> {
    let card_no = row.get::<_, Option<String>>(14)?.map(|text| ident(&text)).transpose()?;
    let consent_at = row.get::<_, Option<i64>>(15)?.map(UtcMillis);
    Ok(TypedIn {
        vin: row.get::<_, Option<String>>(10)?.map(|text| ident(&text)).transpose()?,
        order: row.get(3)?,
        odometer_km: row.get(11)?,
        odometer_source: row.get::<_, Option<String>>(12)?.map(text_enum).transpose()?,
        purpose: row.get::<_, Option<String>>(13)?.map(text_enum).transpose()?,
        member: card_no.zip(consent_at),
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

    /// One visit.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn visit(&self, id: Uuid) -> Result<Option<VisitRow>, StoreError> {
        let mut query = self.conn.prepare_cached(&format!("SELECT {COLUMNS} FROM visit WHERE id = ?1"))?;
        let mut rows = query.query([id.as_bytes().as_slice()])?;
        rows.next()?.map(visit_of).transpose()
    }

    /// What a car's battery rested at in its last visits that saw it rest, newest first, in volts.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn resting_volts(&self, vin: &Vin, limit: usize) -> Result<Vec<f64>, StoreError> {
        let mut query = self.conn.prepare_cached(
            "SELECT resting_v FROM visit WHERE vin = ?1 AND resting_v IS NOT NULL ORDER BY rowid DESC LIMIT ?2",
        )?;
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let rows = query.query_map(params![vin.as_str(), limit], |row| row.get(0))?;
        Ok(rows.collect::<Result<_, _>>()?)
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

    /// Whether a later visit of a car than `visit` had begun by `time` and has a report.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn is_outdated(&self, visit: Uuid, vin: &Vin, time: UtcMillis) -> Result<bool, StoreError> {
        let later = "SELECT 1 FROM visit WHERE vin = ?1 AND report IS NOT NULL AND started_at <= ?3
             AND rowid > (SELECT rowid FROM visit WHERE id = ?2)";
        let mut query = self.conn.prepare_cached(later)?;
        Ok(query.exists(params![vin.as_str(), visit.as_bytes().as_slice(), time.0])?)
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
