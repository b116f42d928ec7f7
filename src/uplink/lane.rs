//! One class on its way: rows read ahead, rows sent, and how far it is
//! delivered. Pure. PUBACKs may come out of order; the delivered position only
//! moves over an unbroken stretch.

mod suspect;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use self::suspect::Suspect;
use super::backoff::Backoff;
use super::flow::Token;
use crate::event::Class;
use crate::store::Offset;
use crate::store::outbox::ClassCursor;

/// A row of the log, ready to send. `P` is what the sender needs; the machine does not look inside.
#[derive(Debug, Clone)]
pub struct Row<P> {
    /// Its class.
    pub class: Class,
    /// Its place in the class.
    pub cursor: ClassCursor,
    /// Its place in the log.
    pub offset: Offset,
    /// The size of its PUBLISH packet.
    pub bytes: u64,
    /// Topic and payload.
    pub load: P,
}

/// Where a sent row stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Stage {
    /// Without PUBACK.
    Flying(Token),
    /// The broker has it.
    Taken,
    /// It will never be taken.
    Rejected(String),
}

#[derive(Debug)]
struct Slot {
    cursor: ClassCursor,
    offset: Offset,
    bytes: u64,
    stage: Stage,
}

/// What leaves the front of a lane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Retired {
    /// Delivered up to here.
    Delivered(ClassCursor),
    /// Set aside.
    Rejected { offset: Offset, cursor: ClassCursor, reason: String },
}

/// One class.
#[derive(Debug)]
pub(super) struct Lane<P> {
    pub(super) class: Class,
    /// Everything up to here is delivered.
    pub(super) delivered: ClassCursor,
    /// Everything up to here was read.
    pub(super) read_to: ClassCursor,
    pub(super) ready: VecDeque<Row<P>>,
    sent: VecDeque<Slot>,
    /// The log may hold rows after `read_to`.
    pub(super) more: bool,
    /// A read is under way, from here.
    pub(super) fetching: Option<ClassCursor>,
    /// One row at a time until the broker took one: an order kept even where all are refused.
    pub(super) probing: bool,
    pub(super) blocked_until: Option<Instant>,
    pub(super) refusals: Backoff,
    /// The reason code of the last refusal, until one is taken.
    pub(super) refused: Option<u8>,
    /// The event at which the broker hangs up.
    suspect: Option<Suspect>,
    /// Send slots that went to others while this lane waited.
    pub(super) skipped: u32,
    /// Headquarters' word: everything up to here.
    confirmed: ClassCursor,
    /// Sent rows without headquarters' word, at most.
    pub(super) ahead: usize,
    pub(super) resend_in: Duration,
    pub(super) resend_at: Option<Instant>,
}

impl<P: Clone> Lane<P> {
    pub(super) fn new(class: Class, delivered: ClassCursor, refusals: Backoff, resend_in: Duration) -> Self {
        Self {
            class,
            delivered,
            read_to: delivered,
            ready: VecDeque::new(),
            sent: VecDeque::new(),
            more: true,
            fetching: None,
            probing: true,
            blocked_until: None,
            refusals,
            refused: None,
            suspect: None,
            skipped: 0,
            confirmed: delivered,
            ahead: 1,
            resend_in,
            resend_at: None,
        }
    }

    /// Forgets everything under way: the log is read again from the delivered position.
    pub(super) fn rewind(&mut self) {
        self.ready.clear();
        self.sent.clear();
        self.read_to = self.delivered;
        self.more = true;
        self.fetching = None;
        self.resend_at = None;
        self.skipped = 0;
        self.acquit_to(self.delivered);
    }

    /// Begins again at what the log says is delivered.
    pub(super) fn take_up(&mut self, delivered: ClassCursor) {
        self.delivered = delivered;
        self.confirmed = delivered;
        self.rewind();
    }

    /// Rows sent and not yet delivered.
    pub(super) fn outstanding(&self) -> usize {
        self.sent.len()
    }

    pub(super) fn has_flying(&self) -> bool {
        self.sent.iter().any(|slot| matches!(slot.stage, Stage::Flying(_)))
    }

    /// The oldest undelivered row is with the broker: only headquarters' word is missing.
    pub(super) fn waits_for_word(&self) -> bool {
        self.sent.front().is_some_and(|slot| slot.stage == Stage::Taken)
    }

    /// Everything up to here is with the broker.
    pub(super) fn taken_to(&self) -> ClassCursor {
        let taken = self.sent.iter().take_while(|slot| slot.stage == Stage::Taken);
        taken.last().map_or(self.delivered, |slot| slot.cursor)
    }

    pub(super) fn push(&mut self, row: &Row<P>, stage: Stage) {
        self.sent.push_back(Slot { cursor: row.cursor, offset: row.offset, bytes: row.bytes, stage });
    }

    /// The PUBACK of `token`: the row moves to `stage`. False when the lane was rewound meanwhile.
    pub(super) fn settle(&mut self, token: Token, stage: Stage) -> bool {
        let Some(slot) = self.sent.iter_mut().find(|slot| slot.stage == Stage::Flying(token)) else {
            return false;
        };
        slot.stage = stage;
        let cursor = slot.cursor;
        self.acquit(cursor);
        true
    }

    /// Headquarters has everything up to `to`. True when that is news.
    pub(super) fn confirm(&mut self, to: ClassCursor) -> bool {
        if to.class_sequence.0 == 0 || to <= self.confirmed || to <= self.delivered {
            return false;
        }
        self.confirmed = to;
        while self.ready.front().is_some_and(|row| row.cursor <= to) {
            self.ready.pop_front();
        }
        if self.read_to < to {
            self.read_to = to;
            self.fetching = None;
            self.more = true;
        }
        true
    }

    /// Takes what is finished from the front. `by_broker`: the broker's PUBACK is enough.
    pub(super) fn retire(&mut self, by_broker: bool) -> Vec<Retired> {
        let mut retired = Vec::new();
        while let Some(front) = self.sent.front() {
            let confirmed = !by_broker && front.cursor <= self.confirmed;
            let done = match front.stage {
                Stage::Rejected(_) => true,
                Stage::Taken => by_broker || confirmed,
                Stage::Flying(_) => confirmed,
            };
            if !done {
                break;
            }
            let Some(slot) = self.sent.pop_front() else { break };
            self.delivered = slot.cursor;
            retired.push(match slot.stage {
                Stage::Rejected(reason) if !confirmed => {
                    Retired::Rejected { offset: slot.offset, cursor: slot.cursor, reason }
                }
                _ => Retired::Delivered(slot.cursor),
            });
        }
        if !by_broker && self.sent.is_empty() && self.confirmed > self.delivered {
            // After a restart headquarters may know more than we had noted.
            self.delivered = self.confirmed;
            retired.push(Retired::Delivered(self.confirmed));
        }
        retired
    }
}
