//! Print jobs: a durable queue per printer.

use rusqlite::{Connection, Row, params};
use serde::Serialize;
use serde_json::Value;
use uuid::Uuid;

use super::devices::{enum_text, ident, text_enum};
use super::requests::uuid_from;
use super::{Reader, StoreError};
use crate::clock::UtcMillis;
use crate::event::device::PrintState;
use crate::ident::{CardNo, DeviceId};

/// A job as stored.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PrintJob {
    /// Its id.
    pub job: Uuid,
    /// The printer.
    pub printer: DeviceId,
    /// The card whose face it is.
    pub card_no: Option<CardNo>,
    /// Template file name.
    pub template: String,
    /// What the template asks for.
    pub fields: Value,
    /// Where it stands.
    pub state: PrintState,
    /// Why it failed, or what it waits for.
    pub error: Option<String>,
    /// Where the picture is, for printers that write files.
    pub output: Option<String>,
    /// How often it was tried.
    pub attempts: u32,
    /// When it came in.
    pub created_at: UtcMillis,
    /// When its state last changed.
    pub changed_at: UtcMillis,
}

/// Changes jobs. The `printer.job` event goes into the same batch.
#[derive(Debug, Clone)]
pub enum JobOp {
    /// A new job, `queued`.
    Queue {
        /// Its id.
        job: Uuid,
        /// The printer.
        printer: DeviceId,
        /// The card whose face it is.
        card_no: Option<CardNo>,
        /// Template file name.
        template: String,
        /// What the template asks for.
        fields: Value,
    },
    /// A new state. Refused when the job is already final.
    State {
        /// Which.
        job: Uuid,
        /// The new state.
        state: PrintState,
        /// Why it failed, or what it waits for.
        error: Option<String>,
        /// Where the picture is.
        output: Option<String>,
        /// Counts one more attempt.
        attempt: bool,
    },
    /// Takes a job back. Refused when it is already printing or final.
    Cancel {
        /// Which.
        job: Uuid,
    },
}

impl JobOp {
    pub(super) fn apply(&self, tx: &Connection) -> Result<(), StoreError> {
        let now = UtcMillis::now().0;
        match self {
            Self::Queue { job, printer, card_no, template, fields } => {
                tx.prepare_cached(
                    "INSERT INTO print_job (id, printer, card_no, template, fields, state, created_at, changed_at)
                     VALUES (?1, ?2, ?3, ?4, ?5, 'queued', ?6, ?6)",
                )?
                .execute(params![
                    job.as_bytes().as_slice(),
                    printer.as_str(),
                    card_no.as_ref().map(CardNo::as_str),
                    template,
                    fields.to_string(),
                    now
                ])?;
            }
            Self::State { job, state, error, output, attempt } => {
                let changed = tx
                    .prepare_cached(
                        "UPDATE print_job SET state = ?2, error = ?3, output = coalesce(?4, output),
                                attempts = attempts + ?5, changed_at = ?6
                         WHERE id = ?1 AND state IN ('queued','waiting-card','printing')",
                    )?
                    .execute(params![
                        job.as_bytes().as_slice(),
                        enum_text(state)?,
                        error,
                        output,
                        attempt,
                        now
                    ])?;
                if changed == 0 {
                    return Err(StoreError::NotFound { what: format!("open print job {job}") });
                }
            }
            Self::Cancel { job } => {
                let changed = tx
                    .prepare_cached(
                        "UPDATE print_job SET state = 'cancelled', error = NULL, changed_at = ?2
                         WHERE id = ?1 AND state IN ('queued','waiting-card')",
                    )?
                    .execute(params![job.as_bytes().as_slice(), now])?;
                if changed == 0 {
                    return Err(StoreError::NotFound { what: format!("waiting print job {job}") });
                }
            }
        }
        Ok(())
    }
}

const COLUMNS: &str =
    "id, printer, card_no, template, fields, state, error, output, attempts, created_at, changed_at";

fn job_of(row: &Row<'_>) -> Result<PrintJob, StoreError> {
    Ok(PrintJob {
        job: uuid_from(&row.get::<_, Vec<u8>>(0)?)?,
        printer: ident(&row.get::<_, String>(1)?)?,
        card_no: row.get::<_, Option<String>>(2)?.map(|text| ident(&text)).transpose()?,
        template: row.get(3)?,
        fields: serde_json::from_str(&row.get::<_, String>(4)?)
            .map_err(|e| StoreError::Corrupt(e.to_string()))?,
        state: text_enum(row.get(5)?)?,
        error: row.get(6)?,
        output: row.get(7)?,
        attempts: row.get(8)?,
        created_at: UtcMillis(row.get(9)?),
        changed_at: UtcMillis(row.get(10)?),
    })
}

impl Reader<'_> {
    /// One job.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn print_job(&self, job: Uuid) -> Result<Option<PrintJob>, StoreError> {
        let mut query =
            self.conn.prepare_cached(&format!("SELECT {COLUMNS} FROM print_job WHERE id = ?1"))?;
        let mut rows = query.query([job.as_bytes().as_slice()])?;
        rows.next()?.map(job_of).transpose()
    }

    /// A printer's jobs that are not final, oldest first.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn open_print_jobs(&self, printer: &DeviceId) -> Result<Vec<PrintJob>, StoreError> {
        let mut query = self.conn.prepare_cached(&format!(
            "SELECT {COLUMNS} FROM print_job
             WHERE printer = ?1 AND state IN ('queued','waiting-card','printing') ORDER BY rowid"
        ))?;
        let mut rows = query.query([printer.as_str()])?;
        let mut jobs = Vec::new();
        while let Some(row) = rows.next()? {
            jobs.push(job_of(row)?);
        }
        Ok(jobs)
    }
}
