//! Warnings that stand, one a car and rule.

use rusqlite::{Connection, Rows, params};
use uuid::Uuid;

use super::requests::uuid_from;
use super::{Reader, StoreError};
use crate::clock::UtcMillis;
use crate::event::maintenance::MaintenanceWarning;

/// Changes warnings. The `maintenance.*` event goes into the same batch.
#[derive(Debug, Clone)]
pub enum WarningOp {
    /// A warning is raised, or stands with new evidence.
    Raise {
        /// The VIN, or `visit/UUID` where there is none.
        car: String,
        /// The event's data.
        warning: Box<MaintenanceWarning>,
    },
    /// A warning no longer holds.
    Clear {
        /// Which.
        id: Uuid,
    },
}

/// A warning that stands.
#[derive(Debug, Clone)]
pub struct StandingWarning {
    /// Its id.
    pub id: Uuid,
    /// Its rule.
    pub rule: String,
    /// The event that last raised it.
    pub warning: MaintenanceWarning,
}

impl WarningOp {
    pub(super) fn apply(&self, tx: &Connection) -> Result<(), StoreError> {
        match self {
            Self::Raise { car, warning } => {
                let event = serde_json::to_string(warning).map_err(|e| StoreError::Corrupt(e.to_string()))?;
                tx.prepare_cached(
                    "INSERT INTO warning (id, car, rule, event, first_seen) VALUES (?1, ?2, ?3, ?4, ?5)
                     ON CONFLICT (car, rule) WHERE cleared_at IS NULL DO UPDATE SET event = excluded.event",
                )?
                .execute(params![
                    warning.warning_id.as_bytes().as_slice(),
                    car,
                    warning.rule,
                    event,
                    warning.first_seen.0
                ])?;
            }
            Self::Clear { id } => {
                tx.prepare_cached("UPDATE warning SET cleared_at = ?2 WHERE id = ?1 AND cleared_at IS NULL")?
                    .execute(params![id.as_bytes().as_slice(), UtcMillis::now().0])?;
            }
        }
        Ok(())
    }
}

impl Reader<'_> {
    /// The warnings that stand for a car (the VIN, or `visit/UUID`), oldest first.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn standing_warnings(&self, car: &str) -> Result<Vec<StandingWarning>, StoreError> {
        let mut query = self.conn.prepare_cached(
            "SELECT id, rule, event FROM warning WHERE car = ?1 AND cleared_at IS NULL ORDER BY rowid",
        )?;
        all(query.query([car])?)
    }

    /// The warnings that `visit` last raised and that stand for another car than `car`: from
    /// before the visit's car was known, or was known to be another.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn misplaced_warnings(&self, visit: Uuid, car: &str) -> Result<Vec<StandingWarning>, StoreError> {
        let mut query = self.conn.prepare_cached(
            "SELECT id, rule, event FROM warning WHERE car <> ?1 AND cleared_at IS NULL
             AND json_extract(event, '$.visit') = ?2 ORDER BY rowid",
        )?;
        all(query.query([car, visit.to_string().as_str()])?)
    }
}

fn all(mut rows: Rows<'_>) -> Result<Vec<StandingWarning>, StoreError> {
    let mut warnings = Vec::new();
    while let Some(row) = rows.next()? {
        warnings.push(StandingWarning {
            id: uuid_from(&row.get::<_, Vec<u8>>(0)?)?,
            rule: row.get(1)?,
            warning: serde_json::from_str(&row.get::<_, String>(2)?)
                .map_err(|e| StoreError::Corrupt(e.to_string()))?,
        });
    }
    Ok(warnings)
}
