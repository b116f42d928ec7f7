//! The one writer: a named thread that owns the writing connection. It commits
//! what is queued (up to 100 batches a transaction) and never waits to fill a
//! group, except that patient batches are held up to a second. Each batch runs
//! in its own savepoint, so that one that fails takes no other with it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rusqlite::{Connection, Transaction, params};
use tokio::sync::{mpsc, oneshot, watch};
use uuid::Uuid;

use super::outbox::{class_index, seq_sql};
use super::{Batch, Head, Offset, Op, StoreError};
use crate::clock::{self, TimeQuality};
use crate::event::{Class, Event, MAX_EVENT_BYTES, NewEvent};
use crate::ident::{Epoch, Seq};

/// Batches in one transaction, at most (architecture: "up to 100 rows").
const GROUP: usize = 100;
/// Batches waiting for the writer, at most; beyond that callers wait.
const QUEUE: usize = 1024;
/// How long a patient batch may wait.
const PATIENCE: Duration = Duration::from_secs(1);
/// What an envelope needs beside its `data`, in bytes, generously.
const ENVELOPE_OVERHEAD: usize = 1024;

type Reply = oneshot::Sender<Result<Vec<Arc<Event>>, StoreError>>;

enum Message {
    Commit(Batch, Reply),
    Close(oneshot::Sender<()>),
}

/// Sends batches to the writer.
#[derive(Clone)]
pub(super) struct Handle {
    queue: mpsc::Sender<Message>,
}

impl Handle {
    pub(super) async fn send(&self, batch: Batch, reply: Reply) -> Result<(), StoreError> {
        self.queue.send(Message::Commit(batch, reply)).await.map_err(|_| StoreError::Closed)
    }

    pub(super) async fn close(&self) {
        let (done, closed) = oneshot::channel();
        if self.queue.send(Message::Close(done)).await.is_ok() {
            // An error means the thread is gone already, which is what was asked.
            let _ = closed.await;
        }
    }
}

/// Where the writer stands, kept in memory beside the tables it mirrors.
pub(super) struct Position {
    pub(super) epoch: Epoch,
    pub(super) epoch_no: i64,
    pub(super) base_offset: i64,
    pub(super) last_offset: i64,
    pub(super) last_class: [i64; 7],
}

/// Starts the writer thread on an opened, migrated connection.
pub(super) fn start(
    conn: Connection,
    position: Position,
) -> Result<(Handle, watch::Receiver<Head>), StoreError> {
    let (queue, inbox) = mpsc::channel(QUEUE);
    let head = Head { epoch: position.epoch, last: Offset(position.last_offset), commits: 0 };
    let (publish, watch) = watch::channel(head);
    let writer = Writer { conn, position, publish, boot: clock::boot_id() };
    std::thread::Builder::new()
        .name("store-writer".into())
        .spawn(move || writer.run(inbox))
        .map_err(|source| StoreError::Folder { path: "thread store-writer".into(), source })?;
    Ok((Handle { queue }, watch))
}

struct Writer {
    conn: Connection,
    position: Position,
    publish: watch::Sender<Head>,
    boot: Uuid,
}

impl Writer {
    fn run(mut self, mut inbox: mpsc::Receiver<Message>) {
        let mut held: Vec<(Batch, Reply)> = Vec::new();
        let mut held_since: Option<Instant> = None;
        loop {
            let mut group = Vec::new();
            let mut close = None;
            let first = match held_since {
                None => inbox.blocking_recv(),
                Some(since) => match receive_until(&mut inbox, since + PATIENCE) {
                    Received::Message(message) => Some(message),
                    Received::TimeUp => {
                        group.append(&mut held);
                        None
                    }
                    Received::Ended => None,
                },
            };
            let ended = first.is_none() && group.is_empty();
            let mut next = first;
            while let Some(message) = next {
                match message {
                    Message::Commit(batch, reply) if batch.patient => held.push((batch, reply)),
                    Message::Commit(batch, reply) => group.push((batch, reply)),
                    Message::Close(done) => {
                        close = Some(done);
                        break;
                    }
                }
                next = if group.len() + held.len() < GROUP { inbox.try_recv().ok() } else { None };
            }
            // Patient batches ride along with the next impatient one.
            if !group.is_empty() || close.is_some() || ended || held.len() >= GROUP {
                group.splice(0..0, held.drain(..));
            }
            held_since = if held.is_empty() { None } else { held_since.or_else(|| Some(Instant::now())) };
            if !group.is_empty() {
                self.commit_group(group);
            }
            if let Some(done) = close {
                self.mark_clean();
                let _ = done.send(());
                return;
            }
            if ended {
                return;
            }
        }
    }

    fn commit_group(&mut self, group: Vec<(Batch, Reply)>) {
        let mut answers: Vec<(Reply, Result<Vec<Arc<Event>>, StoreError>)> = Vec::with_capacity(group.len());
        let before = self.position.snapshot();
        let outcome = self.transact(group, &mut answers);
        match outcome {
            Ok(()) => {
                self.publish.send_modify(|head| {
                    head.epoch = self.position.epoch;
                    head.last = Offset(self.position.last_offset);
                    head.commits += 1;
                });
                for (reply, answer) in answers {
                    // The caller may have gone; the fact stands all the same.
                    let _ = reply.send(answer);
                }
            }
            Err(error) => {
                self.position.restore(before);
                let text = error.to_string();
                let full = matches!(error, StoreError::Full);
                tracing::error!(error = %text, "commit failed");
                metrics::counter!("baygate_store_commit_errors_total").increment(1);
                for (reply, answer) in answers {
                    let answer = match answer {
                        Err(own) => Err(own),
                        Ok(_) if full => Err(StoreError::Full),
                        Ok(_) => Err(StoreError::Corrupt(text.clone())),
                    };
                    let _ = reply.send(answer);
                }
            }
        }
    }

    fn transact(
        &mut self,
        group: Vec<(Batch, Reply)>,
        answers: &mut Vec<(Reply, Result<Vec<Arc<Event>>, StoreError>)>,
    ) -> Result<(), StoreError> {
        let mut group = group.into_iter();
        let started = self.conn.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate);
        let mut tx = match started {
            Ok(tx) => tx,
            Err(error) => {
                answers.extend(group.map(|(_, reply)| (reply, Ok(Vec::new()))));
                return Err(full_or(error));
            }
        };
        for (batch, reply) in group.by_ref() {
            let before = self.position.snapshot();
            let answer = apply(&mut tx, &mut self.position, self.boot, &batch);
            if answer.is_err() {
                self.position.restore(before);
            }
            answers.push((reply, answer));
        }
        tx.commit().map_err(full_or)
    }

    fn mark_clean(&mut self) {
        let marked = self
            .conn
            .execute("INSERT OR REPLACE INTO meta (key, value) VALUES ('clean_shutdown', 'yes')", [])
            .and_then(|_| self.conn.pragma_update(None, "wal_checkpoint", "TRUNCATE"));
        if let Err(error) = marked {
            tracing::warn!(%error, "could not mark the shutdown as clean");
        }
    }
}

enum Received {
    Message(Message),
    TimeUp,
    Ended,
}

/// `blocking_recv` with a deadline.
fn receive_until(inbox: &mut mpsc::Receiver<Message>, deadline: Instant) -> Received {
    loop {
        match inbox.try_recv() {
            Ok(message) => return Received::Message(message),
            Err(mpsc::error::TryRecvError::Disconnected) => return Received::Ended,
            Err(mpsc::error::TryRecvError::Empty) => {}
        }
        if Instant::now() >= deadline {
            return Received::TimeUp;
        }
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

fn full_or(error: rusqlite::Error) -> StoreError {
    match &error {
        rusqlite::Error::SqliteFailure(code, _) if code.code == rusqlite::ErrorCode::DiskFull => {
            StoreError::Full
        }
        _ => StoreError::Sqlite(error),
    }
}

/// One batch in its own savepoint.
fn apply(
    tx: &mut Transaction<'_>,
    position: &mut Position,
    boot: Uuid,
    batch: &Batch,
) -> Result<Vec<Arc<Event>>, StoreError> {
    let mut savepoint = tx.savepoint()?;
    let result = apply_inside(&savepoint, position, boot, batch);
    if result.is_ok() {
        savepoint.commit()?;
    } else {
        savepoint.rollback()?;
    }
    result
}

fn apply_inside(
    tx: &Connection,
    position: &mut Position,
    boot: Uuid,
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
            Op::Outbox(op) => op.apply(tx),
            Op::Command(op) => op.apply(tx),
            Op::Token(op) => op.apply(tx),
        }?;
    }
    batch.events.iter().map(|event| append(tx, position, boot, event)).collect()
}

fn append(
    tx: &Connection,
    position: &mut Position,
    boot: Uuid,
    new: &NewEvent,
) -> Result<Arc<Event>, StoreError> {
    let bytes = new.data.get().len() + ENVELOPE_OVERHEAD;
    if bytes > MAX_EVENT_BYTES {
        return Err(StoreError::EventTooLarge { kind: new.kind.to_owned(), bytes });
    }
    let (offset, class_sequence) = position.next(new.class);
    tx.prepare_cached(
        "INSERT INTO event (event_offset, epoch_no, class, class_sequence, id, kind, subject, time, synced, boot, data)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
    )?
    .execute(params![
        offset,
        position.epoch_no,
        class_index(new.class),
        class_sequence,
        new.id.as_bytes().as_slice(),
        new.kind,
        new.subject,
        new.time.0,
        new.time_quality == TimeQuality::Synced,
        boot.as_bytes().as_slice(),
        new.data.get(),
    ])?;
    tx.prepare_cached(
        "UPDATE class_counter SET last_sequence = ?2, rows = rows + 1, bytes = bytes + ?3 WHERE class = ?1",
    )?
    .execute(params![
        class_index(new.class),
        seq_sql(Seq(u64::try_from(class_sequence).unwrap_or(0))),
        i64::try_from(new.data.get().len()).unwrap_or(0)
    ])?;
    Ok(Arc::new(Event {
        id: new.id,
        epoch: position.epoch,
        sequence: Seq(u64::try_from(offset - position.base_offset).unwrap_or(0)),
        class_sequence: Seq(u64::try_from(class_sequence).unwrap_or(0)),
        class: new.class,
        kind: new.kind.into(),
        subject: new.subject.clone(),
        time: new.time,
        time_quality: new.time_quality,
        boot,
        data: new.data.clone(),
    }))
}

impl Position {
    fn next(&mut self, class: Class) -> (i64, i64) {
        self.last_offset += 1;
        let slot = usize::try_from(class_index(class)).unwrap_or(0);
        let sequence = self.last_class.get_mut(slot).map_or(0, |last| {
            *last += 1;
            *last
        });
        (self.last_offset, sequence)
    }

    fn snapshot(&self) -> (i64, [i64; 7]) {
        (self.last_offset, self.last_class)
    }

    fn restore(&mut self, (last_offset, last_class): (i64, [i64; 7])) {
        self.last_offset = last_offset;
        self.last_class = last_class;
    }
}
