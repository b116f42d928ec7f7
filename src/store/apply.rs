//! A batch within a transaction: its operations, then its events. In a savepoint
//! of its own a batch that fails takes no other with it ([`batch`]); without one
//! it is cheaper and may leave half of itself behind ([`unguarded`]).

use std::sync::Arc;

use rusqlite::{Connection, Transaction, params};
use serde::de::IgnoredAny;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::epoch::{self, Position};
use super::outbox::{OutboxOp, class_index};
use super::requests::RequestOp;
use super::tally::Tally;
use super::{Batch, Op, StoreError, carry, hold, open};
use crate::clock::TimeQuality;
use crate::event::gateway::GatewayStarted;
use crate::event::{Class, Event, EventData, NewEvent};

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
    /// What ends work, frees space or tells headquarters about the gateway.
    Upkeep,
    /// Money.
    Ledger,
}

impl Batch {
    pub(super) fn claim(&self) -> Claim {
        let ends_work = |op: &Op| {
            matches!(
                op,
                Op::Outbox(_)
                    | Op::Clock(_)
                    | Op::Cursor(_)
                    | Op::Request(RequestOp::Settle { .. } | RequestOp::Start { .. })
            )
        };
        if self.events.iter().any(|event| event.class == Class::Ledger) {
            Claim::Ledger
        } else if self.ops.iter().all(ends_work)
            && self.events.iter().all(|event| event.class == Class::Gateway)
        {
            Claim::Upkeep
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

/// One batch in its own savepoint. The position is only moved when it succeeds.
pub(super) fn batch(
    tx: &mut Transaction<'_>,
    position: &mut Position,
    run: &Run,
    batch: &Batch,
) -> Result<Vec<Arc<Event>>, StoreError> {
    let mut moved = *position;
    let mut tally = Tally::default();
    let mut savepoint = tx.savepoint()?;
    let result = unguarded(&savepoint, &mut moved, &mut tally, run, batch)
        .and_then(|events| tally.write(&savepoint, &moved).map(|()| events));
    let ended = match &result {
        Ok(_) => savepoint.commit(),
        Err(_) => savepoint.rollback().and_then(|()| savepoint.commit()),
    };
    if ended.is_err() && !tx.is_autocommit() {
        // Half a batch must not be committed with the others: give up the whole transaction.
        tx.execute_batch("ROLLBACK")?;
    }
    // SQLite takes back the whole transaction by itself when the disk is full, and
    // with it the savepoint: the batch's own error says why.
    match (result, ended) {
        (Ok(events), Ok(())) => {
            *position = moved;
            Ok(events)
        }
        (Ok(_), Err(error)) => Err(error.into()),
        (Err(error), _) => Err(error),
    }
}

/// One batch straight into the transaction. After an error half of it may stand
/// there: the whole transaction has to be given up. What it adds to the counters
/// is in `tally`, which the caller writes.
pub(super) fn unguarded(
    tx: &Connection,
    position: &mut Position,
    tally: &mut Tally,
    run: &Run,
    batch: &Batch,
) -> Result<Vec<Arc<Event>>, StoreError> {
    for op in &batch.ops {
        match op {
            Op::Device(op) => op.apply(tx),
            Op::Visit(op) => op.apply(tx),
            Op::Warning(op) => op.apply(tx),
            Op::Job(op) => op.apply(tx),
            Op::Request(op) => op.apply(tx),
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
            Op::Token(op) => op.apply(tx),
            Op::Clock(op) => op.apply(tx),
        }?;
    }
    batch.events.iter().map(|event| insert(tx, position, tally, run.boot, event)).collect()
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

/// The columns a seal covers.
pub(super) struct Sealed<'a> {
    pub(super) numbers: [i64; 6],
    pub(super) id: &'a [u8],
    pub(super) kind: &'a str,
    pub(super) subject: &'a str,
    pub(super) boot: &'a [u8],
    pub(super) data: &'a str,
}

impl Sealed<'_> {
    /// First 8 bytes of SHA-256 over the columns, each with its length.
    pub(super) fn seal(&self) -> i64 {
        let mut hash = Sha256::new();
        for number in self.numbers {
            hash.update(number.to_be_bytes());
        }
        let parts = [self.id, self.kind.as_bytes(), self.subject.as_bytes(), self.boot, self.data.as_bytes()];
        for part in parts {
            hash.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
            hash.update(part);
        }
        first_eight(&hash.finalize())
    }
}

/// The seal of bytes that are no event.
pub(super) fn seal_of(bytes: &[u8]) -> i64 {
    first_eight(&Sha256::digest(bytes))
}

fn first_eight(digest: &[u8]) -> i64 {
    digest.iter().take(8).fold(0, |seal, byte| (seal << 8) | i64::from(*byte))
}

/// Appends one event, counters included.
pub(super) fn append(
    tx: &Connection,
    position: &mut Position,
    boot: Uuid,
    new: &NewEvent,
) -> Result<Arc<Event>, StoreError> {
    let mut tally = Tally::default();
    let event = insert(tx, position, &mut tally, boot, new)?;
    tally.write(tx, position)?;
    Ok(event)
}

fn insert(
    tx: &Connection,
    position: &mut Position,
    tally: &mut Tally,
    boot: Uuid,
    new: &NewEvent,
) -> Result<Arc<Event>, StoreError> {
    check(new)?;
    let (class, weight) = (class_index(new.class), weight(new.data.get(), &new.subject));
    let next = position.next(new.class, weight);
    let synced = new.time_quality == TimeQuality::Synced;
    let seal = Sealed {
        numbers: [next.offset, position.epoch_no, class, next.class_sequence, new.time.0, i64::from(synced)],
        id: new.id.as_bytes(),
        kind: new.kind,
        subject: &new.subject,
        boot: boot.as_bytes(),
        data: new.data.get(),
    }
    .seal();
    tx.prepare_cached(
        "INSERT INTO event (event_offset, epoch_no, class, class_sequence, id, kind, subject, time, synced,
                            boot, data, class_bytes, seal)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)",
    )?
    .execute(params![
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
        seal,
    ])?;
    tally.add(new.class, next.offset, weight);
    if new.kind == GatewayStarted::TYPE {
        open::told(tx)?;
    }
    Ok(Arc::new(Event {
        id: new.id,
        epoch: position.epoch,
        sequence: position.sequence(next.offset),
        class_sequence: super::outbox::sql_seq(next.class_sequence),
        class: new.class,
        kind: new.kind.into(),
        subject: new.subject.clone(),
        time: new.time,
        time_quality: new.time_quality,
        boot,
        data: new.data.clone(),
    }))
}
