//! A batch within a transaction: its operations, then its events. In a savepoint
//! of its own a batch that fails takes no other with it ([`batch`]); without one
//! it is cheaper and may leave half of itself behind ([`unguarded`]).

use std::sync::Arc;

use rusqlite::{CachedStatement, Connection, params};
use serde::de::IgnoredAny;
use uuid::Uuid;

use super::devices::DeviceOp;
use super::epoch::{self, Position};
use super::outbox::{OutboxOp, class_index};
use super::requests::{self, RequestOp};
use super::seal::Content;
use super::tally::Tally;
use super::{Batch, Op, StoreError, carry, hold, open};
use crate::clock::TimeQuality;
use crate::event::gateway::GatewayStarted;
use crate::event::{Class, Event, EventData, NewEvent};
use crate::ident::{Epoch, Seq};

/// What an envelope needs beside `data` and `subject`, in bytes, generously.
const ENVELOPE_OVERHEAD: usize = 1024;
/// What a row needs beside `data` and `subject`, in bytes: columns, index, cell.
const ROW_OVERHEAD: usize = 160;
/// The longest subject: `vehicle/` or `card/` and a name of 64.
const MAX_SUBJECT_BYTES: usize = 256;

/// How much of the space a batch may use (see `space`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Claim {
    /// New facts and new work.
    Ordinary,
    /// What leads to a sale.
    Sale,
    /// What ends work, frees space or tells headquarters about the gateway.
    Upkeep,
    /// Money.
    Ledger,
}

/// A fact that the log can take, and the digest of what it says.
pub(super) struct Fact {
    pub(super) new: NewEvent,
    content: Content,
}

impl Fact {
    fn check(new: NewEvent) -> Result<Self, StoreError> {
        check(&new)?;
        let content = Content::of(new.id.as_bytes(), new.kind, &new.subject, new.data.get());
        Ok(Self { new, content })
    }
}

/// A batch whose events the log can take. Made on the caller's thread: what can be done
/// there, the one writer need not do.
pub(super) struct CheckedBatch {
    pub(super) ops: Vec<Op>,
    pub(super) facts: Vec<Fact>,
    pub(super) patient: bool,
}

impl CheckedBatch {
    /// # Errors
    /// [`StoreError::EventTooLarge`], [`StoreError::InvalidEvent`].
    pub(super) fn new(batch: Batch) -> Result<Self, StoreError> {
        let facts = batch.events.into_iter().map(Fact::check).collect::<Result<_, _>>()?;
        Ok(Self { ops: batch.ops, facts, patient: batch.patient })
    }

    pub(super) fn claim(&self) -> Claim {
        let ends_work = |op: &Op| {
            matches!(
                op,
                Op::Outbox(_)
                    | Op::Clock(_)
                    | Op::Cursor(_)
                    // A few bytes; without them nobody could log in to sell while the disk is full.
                    | Op::Operator(_)
                    | Op::CardPin(_)
                    | Op::Shift(_)
                    | Op::Request(RequestOp::Settle { .. } | RequestOp::Start { .. })
            )
        };
        // A sale begins with these: the card comes and goes, and somebody asks for it.
        let leads_to_sale = |op: &Op| match op {
            Op::Device(DeviceOp::CardPresent(_) | DeviceOp::CardGone { .. }) | Op::Card(_) => true,
            Op::Request(RequestOp::Insert(new)) => {
                [requests::TRANSACTION, requests::QUOTE].contains(&new.kind)
            }
            op => ends_work(op),
        };
        if self.facts.iter().any(|fact| fact.new.class == Class::Ledger) {
            Claim::Ledger
        } else if self.ops.iter().all(ends_work)
            && self.facts.iter().all(|fact| fact.new.class == Class::Gateway)
            // An intent goes on while telemetry fills the file, and stops before its outcome could not be kept.
            || self.ops.iter().any(|op| matches!(op, Op::Ledger(_)))
            || self.facts.is_empty() && !self.ops.is_empty() && self.ops.iter().all(|op| matches!(op, Op::Card(_)))
        {
            Claim::Upkeep
        } else if !self.ops.is_empty()
            && self.ops.iter().all(leads_to_sale)
            && self.facts.iter().all(|fact| fact.new.class == Class::Card)
        {
            Claim::Sale
        } else {
            Claim::Ordinary
        }
    }
}

/// What a batch needs to know of the run.
#[derive(Debug, Clone, Copy)]
pub(super) struct Run {
    pub(super) boot: Uuid,
    /// Where the log stood when it was opened.
    pub(super) start: Position,
}

/// What the log adds to an event. The caller makes the event of it, with the strings of the
/// new one moved.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    epoch: Epoch,
    sequence: Seq,
    class_sequence: Seq,
    boot: Uuid,
}

impl Place {
    pub(super) fn event(self, new: NewEvent) -> Event {
        Event {
            id: new.id,
            epoch: self.epoch,
            sequence: self.sequence,
            class_sequence: self.class_sequence,
            class: new.class,
            kind: new.kind.into(),
            subject: new.subject,
            time: new.time,
            time_quality: new.time_quality,
            boot: self.boot,
            data: new.data.into(),
        }
    }
}

/// A batch with room for its places: all its memory is the caller's. What one thread asks
/// for and another gives back is what callers and writer wait for each other most (docs/benchmarks.md).
pub(super) struct Placed {
    pub(super) batch: CheckedBatch,
    places: Vec<Place>,
}

impl Placed {
    pub(super) fn new(batch: CheckedBatch) -> Self {
        let places = Vec::with_capacity(batch.facts.len());
        Self { batch, places }
    }

    /// The events of a batch that was committed.
    pub(super) fn events(self) -> Vec<Arc<Event>> {
        let facts = self.batch.facts.into_iter();
        facts.zip(self.places).map(|(fact, place)| Arc::new(place.event(fact.new))).collect()
    }
}

/// One batch in its own savepoint. The position is only moved when it succeeds.
pub(super) fn batch(
    log: &mut Appender<'_>,
    position: &mut Position,
    run: &Run,
    placed: &mut Placed,
) -> Result<(), StoreError> {
    let mut moved = *position;
    let mut tally = Tally::default();
    let tx = log.tx;
    tx.execute_batch("SAVEPOINT batch")?;
    let result = unguarded(log, &mut moved, &mut tally, run, placed).and_then(|()| tally.write(tx, &moved));
    let ended = tx.execute_batch(match &result {
        Ok(()) => "RELEASE batch",
        Err(_) => "ROLLBACK TO batch; RELEASE batch",
    });
    if ended.is_err() && !tx.is_autocommit() {
        // Half a batch must not be committed with the others: give up the whole transaction.
        tx.execute_batch("ROLLBACK")?;
    }
    // SQLite takes back the whole transaction by itself when the disk is full, and
    // with it the savepoint: the batch's own error says why.
    match (result, ended) {
        (Ok(()), Ok(())) => {
            *position = moved;
            Ok(())
        }
        (Ok(()), Err(error)) => Err(error.into()),
        (Err(error), _) => Err(error),
    }
}

/// One batch straight into the transaction. After an error half of it may stand
/// there: the whole transaction has to be given up. What it adds to the counters
/// is in `tally`, which the caller writes.
pub(super) fn unguarded(
    log: &mut Appender<'_>,
    position: &mut Position,
    tally: &mut Tally,
    run: &Run,
    Placed { batch, places }: &mut Placed,
) -> Result<(), StoreError> {
    let tx = log.tx;
    // An attempt before this one may have left some.
    places.clear();
    for op in &batch.ops {
        match op {
            Op::Device(op) => op.apply(tx),
            Op::Visit(op) => op.apply(tx),
            Op::Warning(op) => op.apply(tx),
            Op::Job(op) => op.apply(tx),
            Op::Request(op) => op.apply(tx),
            Op::Batch(op) => op.apply(tx),
            Op::Confirmation(op) => op.apply(tx),
            Op::Ledger(op) => op.apply(tx),
            Op::Card(op) => op.apply(tx),
            Op::Cursor(op) => op.apply(tx),
            Op::Outbox(OutboxOp::BeginEpoch { reason }) => {
                // The old epoch's counters first: the new one begins behind them.
                tally.write(tx, position)?;
                *position = epoch::begin(tx, Some(position), *reason)?;
                hold::hold(tx, *reason)
            }
            Op::Outbox(OutboxOp::BeginEpochWithRun { reason }) => {
                tally.write(tx, position)?;
                *position = carry::begin(tx, &run.start, position, *reason)?;
                hold::hold(tx, *reason)
            }
            Op::Outbox(op) => op.apply(tx),
            Op::Command(op) => op.apply(tx),
            Op::Report(op) => op.apply(tx),
            Op::Member(op) => op.apply(tx),
            Op::CardPin(op) => op.apply(tx),
            Op::Hotlist(op) => op.apply(tx),
            Op::CounterWords(op) => op.apply(tx),
            Op::Token(op) => op.apply(tx),
            Op::Operator(op) => op.apply(tx),
            Op::Shift(op) => op.apply(tx),
            Op::Clock(op) => op.apply(tx),
        }?;
    }
    for fact in &batch.facts {
        places.push(log.insert(position, tally, run.boot, fact)?);
    }
    Ok(())
}

fn check(new: &NewEvent) -> Result<(), StoreError> {
    let invalid = |what| Err(StoreError::InvalidEvent { kind: new.kind.to_owned(), what });
    let bytes = new.data.get().len() + new.subject.len() + ENVELOPE_OVERHEAD;
    let limit = new.class.max_event_bytes();
    if bytes > limit {
        return Err(StoreError::EventTooLarge { kind: new.kind.to_owned(), bytes, limit });
    }
    if new.subject.len() > MAX_SUBJECT_BYTES || new.subject.chars().any(char::is_control) {
        return invalid("its subject is too long or has control characters");
    }
    // A RawValue can be built unchecked; what is stored is sent as it is.
    if !new.data.get().trim_start().starts_with('{')
        || serde_json::from_str::<IgnoredAny>(new.data.get()).is_err()
    {
        return invalid("its data is not a JSON object");
    }
    Ok(())
}

/// What an event counts against its class's limit, in bytes.
pub(super) fn weight(data: &str, subject: &str) -> i64 {
    i64::try_from(data.len() + subject.len() + ROW_OVERHEAD).unwrap_or(i64::MAX)
}

/// Appends one event, counters included.
pub(super) fn append(
    tx: &Connection,
    position: &mut Position,
    boot: Uuid,
    new: NewEvent,
) -> Result<(), StoreError> {
    let mut tally = Tally::default();
    Appender::on(tx)?.insert(position, &mut tally, boot, &Fact::check(new)?)?;
    tally.write(tx, position)
}

/// The log within a transaction, as events are appended to it.
pub(super) struct Appender<'c> {
    tx: &'c Connection,
    row: CachedStatement<'c>,
}

impl<'c> Appender<'c> {
    pub(super) fn on(tx: &'c Connection) -> Result<Self, StoreError> {
        let row = tx.prepare_cached(
            "INSERT INTO event (event_offset, epoch_no, class, class_sequence, id, kind, subject, time, synced,
                                boot, data, class_bytes, seal)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)",
        )?;
        Ok(Self { tx, row })
    }

    fn insert(
        &mut self,
        position: &mut Position,
        tally: &mut Tally,
        boot: Uuid,
        fact: &Fact,
    ) -> Result<Place, StoreError> {
        let new = &fact.new;
        let (class, weight) = (class_index(new.class), weight(new.data.get(), &new.subject));
        let next = position.next(new.class, weight);
        let synced = new.time_quality == TimeQuality::Synced;
        let numbers =
            [next.offset, position.epoch_no, class, next.class_sequence, new.time.0, i64::from(synced)];
        self.row.execute(params![
            next.offset,
            position.epoch_no,
            class,
            next.class_sequence,
            new.id.as_bytes().as_slice(),
            new.kind,
            new.subject,
            new.time.0,
            synced,
            boot.as_bytes().as_slice(),
            new.data.get(),
            next.total_bytes,
            fact.content.seal(numbers, boot.as_bytes()),
        ])?;
        tally.add(new.class, next.offset, weight);
        if new.kind == GatewayStarted::TYPE {
            open::told(self.tx)?;
        }
        Ok(Place {
            epoch: position.epoch,
            sequence: position.sequence(next.offset),
            class_sequence: super::outbox::sql_seq(next.class_sequence),
            boot,
        })
    }
}
