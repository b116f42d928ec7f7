//! Tills that print by themselves (`print_on = ["transaction"]`): a reader of the log that
//! queues the face of a card once its transaction is committed. It stands behind the ledger, so
//! it can neither delay nor fail a sale; job, event and the cursor's step are one commit, so a
//! kill neither doubles nor loses a face.
//!
//! ```text
//!  card.transaction committed at a till ─► job (its id: the transaction's) ─► the printer's queue
//!                                          a waiting one of the same card is taken back
//! ```

use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::tz::TimeZone;
use serde_json::{Map, Value, json};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::faces::Faces;
use super::service::PrinterError;
use super::template::Field;
use crate::clock::{self, TimeQuality};
use crate::event::card::CounterWord;
use crate::event::device::{DeviceKind, PrintState, PrinterJob};
use crate::event::ledger::{CardStanding, CardTransaction, Outcome};
use crate::event::{EventData, NewEvent};
use crate::health::Health;
use crate::ident::{CardNo, DeviceId};
use crate::store::cursors::CursorOp;
use crate::store::jobs::{JobOp, PrintJob};
use crate::store::outbox::LoggedEvent;
use crate::store::{Batch, Offset, Op, Reader, Store, StoreError};

/// What a face that is printed by itself can be given.
pub const FILLED: [&str; 6] = ["card_no", "points", "balance_fen", "level", "offer", "qr"];

/// The durable cursor's name, and the health part.
const CURSOR: &str = "till-faces";
/// Events read at once.
const PAGE: usize = 64;
/// What is nothing to print only moves the cursor, and that is written after so many events,
const PASSED_EVENTS: usize = 500;
/// or after this long.
const PASSED_TIME: Duration = Duration::from_secs(60);
/// The heartbeat while nothing happens.
const BEAT: Duration = Duration::from_secs(5);
/// Jobs waiting at a printer, at most: one that is away for days does not fill the disk.
const MOST_WAITING: usize = 100;

/// A till that prints after its transactions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PrintingTill {
    /// The till.
    pub till: DeviceId,
    /// Its printer.
    pub printer: DeviceId,
    /// The printer's face.
    pub template: String,
}

/// Follows the log and queues faces, until `stop`. Transactions from before the first start
/// with such a till are not printed.
///
/// # Errors
/// [`PrinterError`] when the store fails; started again it goes on where it stood.
pub async fn serve_printing_tills(
    tills: Vec<PrintingTill>,
    faces: Arc<Faces>,
    timezone: watch::Receiver<TimeZone>,
    store: Store,
    health: Health,
    stop: CancellationToken,
) -> Result<(), PrinterError> {
    if tills.is_empty() {
        // A cursor that nobody moves would keep delivered events.
        if store.read(|r| r.cursor(CURSOR)).await?.is_some() {
            store.commit(Batch::new().op(Op::Cursor(CursorOp::Retire { name: CURSOR.into() }))).await?;
        }
        stop.cancelled().await;
        return Ok(());
    }
    let follower = Follower { tills, faces, timezone, store, health: health.clone(), stop };
    let ended = follower.run().await;
    health.rest(CURSOR);
    ended
}

struct Follower {
    tills: Vec<PrintingTill>,
    faces: Arc<Faces>,
    timezone: watch::Receiver<TimeZone>,
    store: Store,
    health: Health,
    stop: CancellationToken,
}

/// What is known when a face is queued.
struct Known {
    /// The printer's open jobs.
    open: Vec<PrintJob>,
    /// Those of them that an earlier transaction of the card left, and that have not begun.
    outdated: Vec<PrintJob>,
    queued_before: bool,
    word: CounterWord,
}

impl Follower {
    async fn run(&self) -> Result<(), PrinterError> {
        let mut head = self.store.head();
        let mut read = match self.store.read(|r| r.cursor(CURSOR)).await? {
            Some(stands) => stands,
            None => {
                let now = head.borrow().last;
                self.store.commit(Batch::new().op(advance(now))).await?;
                now
            }
        };
        let (mut passed, mut written_at) = (0, Instant::now());
        while !self.stop.is_cancelled() {
            self.health.beat(CURSOR);
            head.borrow_and_update();
            let page = self.store.read(move |r| r.events_after(read, PAGE)).await?;
            let full = page.len() == PAGE;
            for logged in &page {
                passed = if self.take(logged).await? { 0 } else { passed + 1 };
                read = logged.offset;
            }
            if passed >= PASSED_EVENTS || passed > 0 && written_at.elapsed() >= PASSED_TIME {
                self.store.commit(Batch::new().op(advance(read))).await?;
                (passed, written_at) = (0, Instant::now());
            }
            if !full {
                tokio::select! {
                    () = self.stop.cancelled() => {}
                    changed = head.changed() => changed.map_err(|_| StoreError::Closed)?,
                    () = tokio::time::sleep(BEAT) => {}
                }
            }
        }
        Ok(())
    }

    /// Whether the cursor was moved with a face.
    async fn take(&self, logged: &LoggedEvent) -> Result<bool, PrinterError> {
        if &*logged.event.kind != CardTransaction::TYPE {
            return Ok(false);
        }
        let fact: CardTransaction = match logged.event.data_as() {
            Ok(fact) => fact,
            // Written by another version: there is nothing to print it from.
            Err(error) => {
                tracing::warn!(sequence = logged.event.sequence.0, %error, "no face is printed");
                return Ok(false);
            }
        };
        let Some(till) = self.tills.iter().find(|till| till.till == fact.till && shows_on_a_card(&fact))
        else {
            return Ok(false);
        };
        loop {
            match self.queue(till, &fact, logged.offset).await {
                // A job that was to be taken back has begun meanwhile: look again.
                Err(PrinterError::Store(StoreError::NotFound { .. })) => {}
                done => return done,
            }
        }
    }

    async fn queue(
        &self,
        till: &PrintingTill,
        fact: &CardTransaction,
        at: Offset,
    ) -> Result<bool, PrinterError> {
        let (job, printer) = (fact.transaction_id, &till.printer);
        let known = self.known(till, fact).await?;
        if known.queued_before {
            return Ok(false);
        }
        if known.open.len() - known.outdated.len() >= MOST_WAITING {
            metrics::counter!("baygate_print_jobs_left_out_total", "printer" => printer.to_string())
                .increment(1);
            tracing::warn!(%printer, "the printer's queue is full, a face is left out");
            return Ok(false);
        }
        let fields = self.fields(till, fact, &known.word).await;
        let mut batch = Batch::new();
        for old in known.outdated {
            batch = batch.op(Op::Job(JobOp::Cancel { job: old.job })).event(told(
                printer,
                old.job,
                &fact.card_no,
                PrintState::Cancelled,
            )?);
        }
        let new = JobOp::Queue {
            job,
            printer: printer.clone(),
            card_no: Some(fact.card_no.clone()),
            template: till.template.clone(),
            fields,
        };
        let event = told(printer, job, &fact.card_no, PrintState::Queued)?;
        self.store.commit(batch.op(Op::Job(new)).op(advance(at)).event(event)).await?;
        tracing::info!(till = %till.till, %printer, %job, "face queued after a transaction");
        Ok(true)
    }

    async fn known(&self, till: &PrintingTill, fact: &CardTransaction) -> Result<Known, StoreError> {
        let (printer, card_no, job) = (till.printer.clone(), fact.card_no.clone(), fact.transaction_id);
        let timezone = self.timezone.borrow().clone();
        self.store
            .read(move |r| {
                let open = r.open_print_jobs(&printer)?;
                let outdated = open.iter().filter(|old| {
                    old.card_no.as_ref() == Some(&card_no)
                        && matches!(old.state, PrintState::Queued | PrintState::WaitingCard)
                        // A face that somebody asked for has an id of its own, and stays.
                        && matches!(r.transaction(old.job), Ok(Some(_)))
                });
                Ok(Known {
                    outdated: outdated.cloned().collect(),
                    queued_before: r.print_job(job)?.is_some(),
                    word: word(r, &card_no, &timezone)?,
                    open,
                })
            })
            .await
    }

    /// What the template asks for and is known; all that is known where it cannot be read, so
    /// that the job fails with what is wrong with it.
    async fn fields(&self, till: &PrintingTill, fact: &CardTransaction, word: &CounterWord) -> Value {
        let (faces, template) = (Arc::clone(&self.faces), till.template.clone());
        let declared = tokio::task::spawn_blocking(move || faces.fields(&template)).await;
        filled(declared.ok().and_then(Result::ok).as_deref(), fact, word)
    }
}

/// Whether there is a card in somebody's hand that it stands on. What was given back, or has
/// another card in its place, is not printed any more.
fn shows_on_a_card(fact: &CardTransaction) -> bool {
    let is_over = matches!(fact.status_after, Some(CardStanding::Returned | CardStanding::Replaced));
    fact.outcome == Outcome::Committed && !is_over
}

/// What headquarters sent for the counter, without offers that are over. While the clock is in
/// doubt nothing is.
fn word(r: &Reader<'_>, card_no: &CardNo, timezone: &TimeZone) -> Result<CounterWord, StoreError> {
    let Some(stored) = r.counter_word(card_no)? else { return Ok(CounterWord::default()) };
    let (mut word, now) = (stored.word, clock::read());
    let time = jiff::Timestamp::from_millisecond(now.wall.0).ok();
    if let (TimeQuality::Synced, Some(time)) = (now.quality, time) {
        let today = time.to_zoned(timezone.clone()).date();
        word.offers.retain(|offer| offer.valid_until.is_none_or(|last| last >= today));
    }
    Ok(word)
}

/// The fields of a face, [`FILLED`]: of the card as this transaction left it.
fn filled(declared: Option<&[Field]>, fact: &CardTransaction, word: &CounterWord) -> Value {
    let known = [
        ("card_no", Some(json!(fact.card_no))),
        ("points", fact.points_after.map(|points| json!(points))),
        ("balance_fen", fact.balance_after_fen.map(|fen| json!(fen))),
        ("level", word.level.as_ref().map(|level| json!(level))),
        ("offer", word.offers.first().map(|offer| json!(offer.text))),
        ("qr", Some(json!(fact.card_no))),
    ];
    let mut fields = Map::new();
    for (name, value) in known {
        let asked = declared.map(|declared| declared.iter().find(|field| field.name == name));
        let value = match asked {
            Some(None) => None,
            // A member without level or offer has a face all the same.
            Some(Some(field)) if field.required => Some(value.unwrap_or_else(|| json!(""))),
            Some(Some(_)) | None => value,
        };
        fields.extend(value.map(|value| (name.to_owned(), value)));
    }
    Value::Object(fields)
}

fn told(
    printer: &DeviceId,
    job: Uuid,
    card_no: &CardNo,
    state: PrintState,
) -> Result<NewEvent, serde_json::Error> {
    let card_no = Some(card_no.clone());
    let data = PrinterJob { job, printer: printer.clone(), card_no, state, error: None, output: None };
    NewEvent::now(DeviceKind::Printer.subject(printer), &data)
}

fn advance(to: Offset) -> Op {
    Op::Cursor(CursorOp::Advance { name: CURSOR, to })
}
