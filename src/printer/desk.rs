//! One printer's desk: its queue and its voice in the log. Every change of a job
//! is committed together with its `printer.job`; nothing is printed before.

use crate::event::NewEvent;
use crate::event::device::{DeviceKind, DeviceStatus, PrintState, PrinterJob};
use crate::health::{Health, Trouble as Unwell};
use crate::ident::DeviceId;
use crate::store::devices::DeviceLog;
use crate::store::jobs::{JobOp, PrintJob};
use crate::store::{Batch, Op, Store, StoreError};

use super::service::PrinterError;
use super::trouble::Trouble;

/// A change of a job.
#[derive(Debug, Clone, Default)]
pub(super) struct Change {
    pub(super) error: Option<String>,
    pub(super) output: Option<String>,
    pub(super) attempt: bool,
}

pub(super) struct Desk {
    printer: DeviceId,
    store: Store,
    health: Health,
    log: DeviceLog,
    part: String,
}

impl Desk {
    pub(super) fn new(printer: DeviceId, store: Store, health: Health) -> Self {
        let log = DeviceLog::new(store.clone(), DeviceKind::Printer, printer.clone());
        let part = DeviceKind::Printer.subject(&printer);
        Self { printer, store, health, log, part }
    }

    /// The oldest open job.
    pub(super) async fn front(&self) -> Result<Option<PrintJob>, StoreError> {
        let printer = self.printer.clone();
        let open = self.store.read(move |reader| reader.open_print_jobs(&printer)).await?;
        Ok(open.into_iter().next())
    }

    /// Whether a job was ended by somebody else.
    pub(super) async fn is_over(&self, job: &PrintJob) -> Result<bool, StoreError> {
        let id = job.job;
        let now = self.store.read(move |reader| reader.print_job(id)).await?;
        Ok(now.is_none_or(|job| job.state.is_final()))
    }

    /// Commits a job's new state with its event. `false`: the job is over already
    /// (cancelled), and nothing was changed.
    pub(super) async fn commit(
        &self,
        job: &mut PrintJob,
        state: PrintState,
        change: Change,
    ) -> Result<bool, PrinterError> {
        let told = PrinterJob {
            job: job.job,
            printer: self.printer.clone(),
            card_no: job.card_no.clone(),
            state,
            error: change.error.clone(),
            output: change.output.clone(),
        };
        let event = NewEvent::now(self.part.clone(), &told)?;
        let op = JobOp::State {
            job: job.job,
            state,
            error: change.error.clone(),
            output: change.output,
            attempt: change.attempt,
        };
        match self.store.commit(Batch::new().op(Op::Job(op)).event(event)).await {
            Ok(_) => {}
            Err(StoreError::NotFound { .. }) => return Ok(false),
            Err(error) => return Err(error.into()),
        }
        tracing::info!(printer = %self.printer, job = %job.job, state = state.as_str(), error = change.error.as_deref(), "print job");
        metrics::counter!("baygate_print_job_states_total", "printer" => self.printer.to_string(), "state" => state.as_str())
            .increment(1);
        job.state = state;
        job.attempts += u32::from(change.attempt);
        job.error = change.error;
        Ok(true)
    }

    /// Writes into a job what it waits for, once.
    pub(super) async fn note(
        &self,
        job: &mut PrintJob,
        state: PrintState,
        error: Option<String>,
        attempt: bool,
    ) -> Result<(), PrinterError> {
        if attempt || job.state != state || job.error != error {
            self.commit(job, state, Change { error, attempt, ..Change::default() }).await?;
        }
        Ok(())
    }

    /// The printer could print.
    pub(super) async fn ready(&mut self) -> Result<(), StoreError> {
        self.health.well(&self.part);
        self.log.set(DeviceStatus::Ready, None, None).await
    }

    /// The printer cannot print.
    pub(super) async fn unwell(&mut self, trouble: &Trouble) -> Result<(), StoreError> {
        self.health.trouble(Unwell {
            part: self.part.clone(),
            code: trouble.reason.to_owned(),
            text: trouble.text.clone(),
            blocks_ready: false,
        });
        self.log.set(trouble.status, Some(trouble.reason), Some(trouble.line())).await
    }
}
