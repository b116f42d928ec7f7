//! The way to the writer: a bounded queue of batches, each with the place its answer goes to.

use tokio::sync::{mpsc, oneshot};

use super::apply::{CheckedBatch, Claim, Placed};
use super::{ClassLimit, HistoryLimits, StoreError};
use crate::event::Class;

/// Batches waiting for the writer, at most; beyond that callers wait.
pub(super) const QUEUE: usize = 256;

/// What a caller gets back.
pub(super) type Answer = Result<Placed, StoreError>;

pub(super) enum Message {
    Commit(Entry),
    /// `[buffer]` as it is now: the limit of the file and of the classes.
    Limits(u64, Vec<(Class, ClassLimit)>),
    History(HistoryLimits),
    Close(oneshot::Sender<()>),
}

/// A batch and its caller.
pub(super) struct Entry {
    pub(super) placed: Placed,
    pub(super) reply: oneshot::Sender<Answer>,
}

/// Sends batches to the writer.
#[derive(Clone)]
pub(super) struct Handle {
    pub(super) queue: mpsc::Sender<Message>,
}

impl Handle {
    pub(super) async fn send(
        &self,
        batch: CheckedBatch,
        reply: oneshot::Sender<Answer>,
    ) -> Result<(), StoreError> {
        let entry = Entry { placed: Placed::new(batch), reply };
        self.queue.send(Message::Commit(entry)).await.map_err(|_| StoreError::Closed)
    }

    pub(super) async fn limits(
        &self,
        max_bytes: u64,
        classes: Vec<(Class, ClassLimit)>,
    ) -> Result<(), StoreError> {
        self.queue.send(Message::Limits(max_bytes, classes)).await.map_err(|_| StoreError::Closed)
    }

    pub(super) async fn history(&self, limits: HistoryLimits) -> Result<(), StoreError> {
        self.queue.send(Message::History(limits)).await.map_err(|_| StoreError::Closed)
    }

    pub(super) async fn close(&self) {
        let (done, closed) = oneshot::channel();
        if self.queue.send(Message::Close(done)).await.is_ok() {
            // An error means the thread is gone already, which is what was asked.
            let _ = closed.await;
        }
    }
}

/// What became of a batch in its transaction.
pub(super) type Applied = Result<(), StoreError>;

/// Answers each of a group.
pub(super) fn answer(entries: Vec<Entry>, applied: Vec<Applied>) {
    for (Entry { placed, reply }, applied) in entries.into_iter().zip(applied) {
        // The caller may have gone; the fact stands all the same.
        let _ = reply.send(applied.map(|()| placed));
    }
}

/// Answers all of a group with the same error.
pub(super) fn fail(entries: Vec<Entry>, error: &StoreError) {
    for entry in entries {
        let _ = entry.reply.send(Err(error.for_another()));
    }
}

/// Answers the batches of a group that make this claim with `Full` and gives back the others.
pub(super) fn refuse(entries: Vec<Entry>, claim: Claim) -> Vec<Entry> {
    let (refused, rest) = entries.into_iter().partition(|entry| entry.placed.batch.claim() == claim);
    fail(refused, &StoreError::Full);
    rest
}
