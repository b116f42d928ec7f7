//! The service of one printer: takes its jobs in order and brings each to an
//! end, across pulled cables, open covers and restarts.
//!
//! ```text
//!  queued ─► waiting-card ─► printing ─► done
//!    ▲  face into the printer   │  └──► failed (bad template or data; tried five times)
//!    └──────── trouble ─────────┘  the job stays open, `error` names what it waits for
//! ```
//!
//! A job found `printing` at the start was cut off: the card may carry its face
//! or not. It is done again, which is harmless, because every job begins by
//! clearing the printer's memory and erases the card.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use super::backoff::Backoff;
use super::bitmap::{Bitmap, Canvas};
use super::desk::{Change, Desk};
use super::faces::Faces;
use super::machine::{IDLE_LOOK, Machine};
use super::star_tcp300::status::Card;
use super::trouble::{Trouble, line};
use crate::config::tables::PrinterTable;
use crate::event::Text;
use crate::event::device::PrintState;
use crate::health::Health;
use crate::store::jobs::PrintJob;
use crate::store::{Head, Store, StoreError};

/// Attempts before a job is given up.
const MAX_ATTEMPTS: u32 = 5;
/// How often the inlet is looked at while a card is awaited.
const CARD_LOOK: Duration = Duration::from_millis(300);
/// How long a running print may go on after the stop (contract: stop within 5 s).
const STOP_GRACE: Duration = Duration::from_secs(3);
/// Commits of others come in swarms; the queue is looked at once for each.
const SWARM: Duration = Duration::from_millis(50);

/// The service cannot go on; the supervisor starts it again.
#[derive(Debug, thiserror::Error)]
pub enum PrinterError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// An event could not be written as JSON.
    #[error("an event could not be written: {0}; please report it")]
    Event(#[from] serde_json::Error),
}

/// What came of a step.
enum After {
    Next,
    Trouble(Trouble),
    Stopped,
}

/// Serves one printer until `stop`.
///
/// # Errors
/// [`PrinterError`] when the store fails; everything else is retried inside.
pub async fn serve_printer(
    table: PrinterTable,
    faces: Arc<Faces>,
    store: Store,
    health: Health,
    stop: CancellationToken,
) -> Result<(), PrinterError> {
    let head = store.head();
    let desk = Desk::new(table.id.clone(), store, health);
    let backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(5));
    Service { table, faces, desk, head, backoff, stop }.run().await
}

struct Service {
    table: PrinterTable,
    faces: Arc<Faces>,
    desk: Desk,
    /// Wakes the service when something was committed: a job may be among it.
    head: watch::Receiver<Head>,
    backoff: Backoff,
    stop: CancellationToken,
}

impl Service {
    async fn run(mut self) -> Result<(), PrinterError> {
        while !self.stop.is_cancelled() {
            let stop = self.stop.clone();
            let opened = tokio::select! {
                () = stop.cancelled() => break,
                opened = Machine::open(&self.table) => opened,
            };
            let after = match opened {
                Ok(mut machine) => self.work(&mut machine).await?,
                Err(trouble) => After::Trouble(trouble),
            };
            match after {
                After::Trouble(trouble) => self.endure(&trouble).await?,
                After::Next | After::Stopped => {}
            }
        }
        Ok(())
    }

    /// Works with an open printer until it is lost or the stop comes.
    async fn work(&mut self, machine: &mut Machine) -> Result<After, PrinterError> {
        loop {
            let after = match self.look(machine).await {
                Ok(None) => return Ok(After::Stopped),
                Ok(Some(_)) => {
                    self.desk.ready().await?;
                    match self.next_job().await? {
                        Some(job) => self.print(machine, job).await?,
                        None => After::Next,
                    }
                }
                Err(trouble) => After::Trouble(trouble),
            };
            match after {
                After::Next => self.backoff.reset(),
                After::Stopped => return Ok(After::Stopped),
                After::Trouble(trouble) if trouble.lost => return Ok(After::Trouble(trouble)),
                After::Trouble(trouble) => self.endure(&trouble).await?,
            }
        }
    }

    /// Looks at the printer; `None`: the stop came.
    async fn look(&self, machine: &mut Machine) -> Result<Option<Card>, Trouble> {
        tokio::select! {
            () = self.stop.cancelled() => Ok(None),
            card = machine.look() => card.map(Some),
        }
    }

    /// Tells the trouble, writes it into the waiting job, and pauses.
    async fn endure(&mut self, trouble: &Trouble) -> Result<(), PrinterError> {
        self.desk.unwell(trouble).await?;
        if let Some(mut job) = self.desk.front().await? {
            self.desk.note(&mut job, PrintState::Queued, Some(trouble.line()), false).await?;
        }
        let pause = self.backoff.pause();
        tokio::select! {
            () = self.stop.cancelled() => {}
            () = sleep(pause) => {}
        }
        Ok(())
    }

    /// The next job, or `None` when it is time to look at the printer again.
    async fn next_job(&mut self) -> Result<Option<PrintJob>, PrinterError> {
        let until = Instant::now() + IDLE_LOOK;
        loop {
            self.head.mark_unchanged();
            if let Some(job) = self.desk.front().await? {
                return Ok(Some(job));
            }
            tokio::select! {
                () = self.stop.cancelled() => return Ok(None),
                () = sleep_until(until) => return Ok(None),
                changed = self.head.changed() => changed.map_err(|_| StoreError::Closed)?,
            }
            sleep(SWARM).await;
        }
    }

    async fn print(&mut self, machine: &mut Machine, mut job: PrintJob) -> Result<After, PrinterError> {
        if job.attempts >= MAX_ATTEMPTS {
            return self.give_up(&mut job).await;
        }
        let face = match self.draw(machine.canvas(), &job).await {
            Ok(face) => face,
            Err(text) => {
                let change = Change { error: Some(line(&text)), ..Change::default() };
                self.desk.commit(&mut job, PrintState::Failed, change).await?;
                return Ok(After::Next);
            }
        };
        if machine.takes_cards() {
            match self.load_and_await_card(machine, &mut job, &face).await? {
                After::Next if self.desk.is_over(&job).await? => {
                    // Cancelled: the face of a customer does not stay in the printer.
                    return Ok(machine.forget().await.map_or_else(After::Trouble, |()| After::Next));
                }
                After::Next => {}
                other => return Ok(other),
            }
        }
        let begun = Change { attempt: true, ..Change::default() };
        if !self.desk.commit(&mut job, PrintState::Printing, begun).await? {
            return Ok(machine.forget().await.map_or_else(After::Trouble, |()| After::Next));
        }
        self.finish(machine, job, &face).await
    }

    /// Brings the face into the printer and waits until a card is there.
    /// `Next`: a card is there, or the job is over.
    async fn load_and_await_card(
        &mut self,
        machine: &mut Machine,
        job: &mut PrintJob,
        face: &Bitmap,
    ) -> Result<After, PrinterError> {
        // Told first: the card may be put in while the face is on its way.
        if !self.desk.commit(job, PrintState::WaitingCard, Change::default()).await? {
            return Ok(After::Next);
        }
        let loaded = tokio::select! {
            () = self.stop.cancelled() => return Ok(After::Stopped),
            loaded = machine.load(face) => loaded,
        };
        if let Err(trouble) = loaded {
            return self.trouble_with(job, trouble).await;
        }
        loop {
            let error = match self.look(machine).await {
                Ok(None) => return Ok(After::Stopped),
                Ok(Some(Card::Present)) => return Ok(After::Next),
                Ok(Some(Card::Leaving)) => Some(Trouble::card_in_exit().line()),
                Ok(Some(Card::None)) => None,
                Err(trouble) => return Ok(After::Trouble(trouble)),
            };
            self.desk.note(job, PrintState::WaitingCard, error, false).await?;
            if self.head.has_changed().map_err(|_| StoreError::Closed)? {
                self.head.mark_unchanged();
                if self.desk.is_over(job).await? {
                    return Ok(After::Next);
                }
            }
            tokio::select! {
                () = self.stop.cancelled() => return Ok(After::Stopped),
                () = sleep(CARD_LOOK) => {}
            }
        }
    }

    /// The printing itself, which the state `printing` stands for.
    async fn finish(
        &mut self,
        machine: &mut Machine,
        mut job: PrintJob,
        face: &Bitmap,
    ) -> Result<After, PrinterError> {
        let stop = self.stop.clone();
        let stopped = async {
            stop.cancelled().await;
            sleep(STOP_GRACE).await;
        };
        let printed = tokio::select! {
            // The job stays `printing`: the next start does it again.
            () = stopped => return Ok(After::Stopped),
            printed = machine.print(job.job, face) => printed,
        };
        match printed {
            Ok(output) => {
                let change = Change { output, ..Change::default() };
                self.desk.commit(&mut job, PrintState::Done, change).await?;
                Ok(After::Next)
            }
            Err(trouble) if job.attempts >= MAX_ATTEMPTS => {
                self.desk.note(&mut job, PrintState::Queued, Some(trouble.line()), false).await?;
                self.give_up(&mut job).await?;
                Ok(After::Trouble(trouble))
            }
            Err(trouble) => Ok(After::Trouble(trouble)),
        }
    }

    /// Trouble before the card moved. A printer that refuses the data counts as an
    /// attempt; one that is open or gone does not.
    async fn trouble_with(&mut self, job: &mut PrintJob, trouble: Trouble) -> Result<After, PrinterError> {
        let counts = !trouble.lost && trouble.reason != "cover-open";
        self.desk.note(job, PrintState::Queued, Some(trouble.line()), counts).await?;
        Ok(After::Trouble(trouble))
    }

    async fn give_up(&mut self, job: &mut PrintJob) -> Result<After, PrinterError> {
        let last = job.error.clone().unwrap_or_else(|| "打印中断 / the printing was interrupted".into());
        let text = format!(
            "已尝试 {MAX_ATTEMPTS} 次，请排除故障后重新打印 / tried {MAX_ATTEMPTS} times, put this right and print again: {last}"
        );
        let change = Change { error: Some(text), ..Change::default() };
        self.desk.commit(job, PrintState::Failed, change).await?;
        Ok(After::Next)
    }

    /// Draws off the async threads.
    async fn draw(&self, canvas: Canvas, job: &PrintJob) -> Result<Bitmap, Text> {
        let faces = Arc::clone(&self.faces);
        let (template, fields) = (job.template.clone(), job.fields.clone());
        let drawn = tokio::task::spawn_blocking(move || faces.render(&template, &fields, canvas));
        match drawn.await {
            Ok(Ok(face)) => Ok(face),
            Ok(Err(error)) => Err(error.text()),
            Err(error) => {
                let en = format!("the face could not be drawn: {error}; please report it");
                Err(Text::new(format!("无法绘制卡面：{error}"), en))
            }
        }
    }
}
