//! The reader of the log: each `vehicle.report` is evaluated once, and its
//! warnings, their events and the cursor's step are one commit. So a kill at any
//! moment neither doubles nor loses a warning.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::changes::{Change, changes};
use super::evaluate::{Evaluation, RuleFailure, evaluate};
use super::rules::Rules;
use crate::event::vehicle::VehicleReport;
use crate::event::{Event, EventData, NewEvent, Text};
use crate::health::{Health, Trouble};
use crate::store::cursors::CursorOp;
use crate::store::outbox::LoggedEvent;
use crate::store::warnings::WarningOp;
use crate::store::{Batch, Offset, Op, Store, StoreError};

/// The durable cursor's name.
pub const CURSOR: &str = "maintenance";
/// The health part of the service as a whole.
const PART: &str = "maintenance";
/// Events read at once; a telemetry event may have 64 KiB.
const PAGE: usize = 64;
/// Events that are no reports only move the cursor, and it is written after this many,
const PASSED_EVENTS: usize = 500;
/// or after this long: reading them again after a crash costs nothing.
const PASSED_TIME: Duration = Duration::from_secs(60);
/// The heartbeat while nothing happens.
const BEAT: Duration = Duration::from_secs(5);
/// Waits after a store error.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));

/// The service could not go on.
#[derive(Debug, thiserror::Error)]
pub enum MaintenanceError {
    /// The store has ended while the service should run.
    #[error("the store is closed; the gateway must be restarted: {0}")]
    Store(#[from] StoreError),
    /// A warning could not be written as JSON.
    #[error("a warning could not be written as JSON: {0}; look for a rule whose evidence is not finite")]
    Json(#[from] serde_json::Error),
    /// The evaluating thread is gone.
    #[error(
        "the evaluation of a report panicked; this is a bug in the gateway, please report it with the log"
    )]
    Evaluation,
}

impl MaintenanceError {
    /// Whether this report's warnings would fail again whenever they are tried.
    fn is_the_reports_own(&self) -> bool {
        match self {
            Self::Json(_) | Self::Evaluation => true,
            Self::Store(error) => {
                matches!(error, StoreError::EventTooLarge { .. } | StoreError::InvalidEvent { .. })
            }
        }
    }
}

/// Reads the log from the cursor [`CURSOR`] on and commits warnings, until `stop`.
/// New rules take effect with the next report.
///
/// # Errors
/// [`MaintenanceError`] when the store is gone; passing trouble is retried and shown in `health`.
pub async fn serve(
    rules: watch::Receiver<Arc<Rules>>,
    store: Store,
    health: Health,
    stop: CancellationToken,
) -> Result<(), MaintenanceError> {
    let mut wait = BACKOFF.0;
    let result = loop {
        let reader = Reader { rules: &rules, store: &store, health: &health, stop: &stop };
        match reader.run(&mut wait).await {
            Ok(()) => break Ok(()),
            Err(_) if stop.is_cancelled() => break Ok(()),
            Err(error @ MaintenanceError::Store(StoreError::Closed)) => break Err(error),
            Err(error) => {
                tracing::warn!(part = PART, %error, retry_ms = wait.as_millis(), "warnings are delayed");
                health.trouble(delayed(&error));
                let jittered = wait.mul_f64(0.75 + f64::from(uuid::Uuid::new_v4().as_bytes()[0]) / 512.0);
                tokio::select! { () = stop.cancelled() => break Ok(()), () = tokio::time::sleep(jittered) => {} }
                wait = (wait * 2).min(BACKOFF.1);
                health.beat(PART);
            }
        }
    };
    health.rest(PART);
    result
}

/// One run from the durable cursor on; ends at `stop` or at the first error.
struct Reader<'s> {
    rules: &'s watch::Receiver<Arc<Rules>>,
    store: &'s Store,
    health: &'s Health,
    stop: &'s CancellationToken,
}

/// How far the log was read, and how far that is written down.
struct Progress {
    read: Offset,
    passed: usize,
    written_at: Instant,
}

impl Progress {
    fn written(&mut self) {
        self.passed = 0;
        self.written_at = Instant::now();
    }

    fn is_due(&self) -> bool {
        self.passed >= PASSED_EVENTS || (self.passed > 0 && self.written_at.elapsed() >= PASSED_TIME)
    }
}

impl Reader<'_> {
    async fn run(&self, wait: &mut Duration) -> Result<(), MaintenanceError> {
        let mut head = self.store.head();
        let start = self.store.read(|r| r.cursor(CURSOR)).await?.unwrap_or_default();
        let mut progress = Progress { read: start, passed: 0, written_at: Instant::now() };
        while !self.stop.is_cancelled() {
            self.health.beat(PART);
            head.borrow_and_update();
            let after = progress.read;
            let page = self.store.read(move |r| r.events_after(after, PAGE)).await?;
            let full = page.len() == PAGE;
            for logged in page {
                self.take(&logged, &mut progress).await?;
            }
            if progress.is_due() {
                self.write(&mut progress).await?;
            }
            *wait = BACKOFF.0;
            self.health.well(PART);
            if !full {
                tokio::select! {
                    () = self.stop.cancelled() => {}
                    changed = head.changed() => changed.map_err(|_| StoreError::Closed)?,
                    () = tokio::time::sleep(BEAT) => {}
                }
            }
        }
        if progress.passed > 0 {
            self.write(&mut progress).await?;
        }
        Ok(())
    }

    async fn write(&self, progress: &mut Progress) -> Result<(), MaintenanceError> {
        self.store.commit(Batch::new().op(advance(progress.read))).await?;
        progress.written();
        Ok(())
    }

    async fn take(&self, logged: &LoggedEvent, progress: &mut Progress) -> Result<(), MaintenanceError> {
        let event = &logged.event;
        if &*event.kind != VehicleReport::TYPE {
            progress.read = logged.offset;
            progress.passed += 1;
            return Ok(());
        }
        match event.data_as::<VehicleReport>() {
            Ok(report) => match self.commit_warnings(report, logged).await {
                Ok(()) => {
                    progress.read = logged.offset;
                    progress.written();
                    return Ok(());
                }
                // It would fail in the same way for ever, and hold up every report after it.
                Err(error) if error.is_the_reports_own() => {
                    metrics::counter!("baygate_maintenance_unreadable_reports_total").increment(1);
                    tracing::error!(part = PART, sequence = event.sequence.0, %error, "report skipped");
                }
                Err(error) => return Err(error),
            },
            // Written by another version: nothing to be done about it here.
            Err(error) => {
                metrics::counter!("baygate_maintenance_unreadable_reports_total").increment(1);
                tracing::warn!(part = PART, sequence = event.sequence.0, %error, "report skipped");
            }
        }
        // At once: an answer waits until the rules are past the youngest report.
        progress.read = logged.offset;
        self.write(progress).await
    }

    async fn commit_warnings(
        &self,
        report: VehicleReport,
        logged: &LoggedEvent,
    ) -> Result<(), MaintenanceError> {
        let batch = self.judge(report, &logged.event).await?.op(advance(logged.offset));
        self.store.commit(batch).await?;
        Ok(())
    }

    /// The changes that one report makes.
    async fn judge(&self, report: VehicleReport, event: &Event) -> Result<Batch, MaintenanceError> {
        let rules = Arc::clone(&self.rules.borrow());
        let (time, visit, report) = (event.time, report.visit, Arc::new(report));
        let visit_key = format!("visit/{visit}");
        let (car, subject) = match &report.vin {
            Some(vin) => (vin.as_str().to_owned(), format!("vehicle/{vin}")),
            None => (visit_key.clone(), visit_key),
        };
        let (key, vin) = (car.clone(), report.vin.clone());
        let (mut standing, misplaced, outdated) = self
            .store
            .read(move |r| {
                let Some(vin) = vin else { return Ok((r.standing_warnings(&key)?, Vec::new(), false)) };
                let misplaced = r.misplaced_warnings(visit, &key)?;
                Ok((r.standing_warnings(&key)?, misplaced, r.is_outdated(visit, &vin, time)?))
            })
            .await?;
        let evaluation = if outdated {
            // Somebody typed into an old visit: what the car was like then is not news.
            standing.clear();
            Evaluation::default()
        } else {
            let (rules, report) = (Arc::clone(&rules), Arc::clone(&report));
            // Up to the time limit for each rule: not on the runtime's threads.
            let task = tokio::task::spawn_blocking(move || evaluate(&rules, &report, time));
            let evaluation = task.await.map_err(|_| MaintenanceError::Evaluation)?;
            self.tell_failures(&evaluation);
            evaluation
        };
        let exists = |id: &str| rules.iter().any(|rule| rule.id == id);
        let mut batch = Batch::new();
        for change in changes(&report, time, &standing, &misplaced, &evaluation, exists) {
            batch = match change {
                Change::Raise(warning) => {
                    metrics::counter!("baygate_maintenance_warnings_total", "rule" => warning.rule.clone())
                        .increment(1);
                    tracing::info!(part = PART, rule = warning.rule, severity = ?warning.severity, visit = %warning.visit, "warning");
                    let event = NewEvent::now(subject.as_str(), &*warning)?;
                    batch.op(Op::Warning(WarningOp::Raise { car: car.clone(), warning })).event(event)
                }
                Change::Clear(cleared) => {
                    tracing::info!(part = PART, rule = cleared.rule, why = cleared.why, visit = %cleared.visit, "warning cleared");
                    let event = NewEvent::now(subject.as_str(), &cleared)?;
                    batch.op(Op::Warning(WarningOp::Clear { id: cleared.warning_id })).event(event)
                }
            };
        }
        Ok(batch)
    }

    /// A rule that failed is shown until it is evaluated without failing, or is gone.
    fn tell_failures(&self, evaluation: &Evaluation) {
        for failure in &evaluation.failures {
            let reason = failure.kind.as_str();
            metrics::counter!("baygate_rule_failures_total", "rule" => failure.rule.clone(), "reason" => reason)
                .increment(1);
            tracing::warn!(part = PART, rule = failure.rule, reason, detail = failure.detail, "rule stopped");
            self.health.trouble(rule_trouble(failure));
        }
        for trouble in self.health.troubles() {
            if let Some(rule) = trouble.part.strip_prefix("rule/")
                && !evaluation.failures.iter().any(|failure| failure.rule == rule)
            {
                self.health.well(&trouble.part);
            }
        }
    }
}

fn advance(to: Offset) -> Op {
    Op::Cursor(CursorOp::Advance { name: CURSOR, to })
}

fn delayed(error: &MaintenanceError) -> Trouble {
    Trouble {
        part: PART.into(),
        code: "store".into(),
        text: Text::new(
            format!("保养提醒暂时无法写入，将自动重试：{error}"),
            format!("warnings cannot be written for now, retrying: {error}"),
        ),
        blocks_ready: false,
    }
}

fn rule_trouble(failure: &RuleFailure) -> Trouble {
    let RuleFailure { rule, kind, detail } = failure;
    Trouble {
        part: format!("rule/{rule}"),
        code: kind.as_str().into(),
        text: Text::new(
            format!(
                "规则 {rule} 被停止（{detail}）；请修改 config/rules 中的该规则并运行 baygate check，其余规则不受影响"
            ),
            format!(
                "rule {rule} was stopped ({detail}); correct it in config/rules and run `baygate check`; the other rules go on"
            ),
        ),
        blocks_ready: false,
    }
}
