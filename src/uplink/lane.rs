//! One class on its way: rows read ahead, rows sent, and how far it is
//! delivered. Pure. PUBACKs may come out of order; the delivered position only
//! moves over an unbroken stretch.

mod suspect;

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use self::suspect::Suspect;
use super::backoff::Backoff;
use super::flow::Token;
use crate::event::Class;
use crate::ident::Seq;
use crate::store::Offset;
use crate::store::outbox::ClassCursor;

/// A row of the log, ready to send. `P` is what the sender needs; the machine does not look inside.
#[derive(Debug, Clone, Hash)]
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
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Stage {
    /// Without PUBACK.
    Flying(Token),
    /// The broker has it.
    Taken,
    /// It will never be taken.
    Rejected(String),
}

#[derive(Debug, Clone, Hash)]
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
#[derive(Debug, Clone, Hash)]
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
    /// Headquarters' words: everything of that epoch up to here. On the epochs before
    /// it, which may wait here unsent, a word says nothing.
    words: BTreeMap<i64, Seq>,
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
            words: BTreeMap::new(),
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
        self.words.clear();
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
        let known = self.words.get(&to.epoch_no).copied().unwrap_or_default();
        if to.class_sequence <= known || to <= self.delivered {
            return false;
        }
        self.words.insert(to.epoch_no, to.class_sequence);
        self.skip();
        true
    }

    fn is_confirmed(&self, cursor: ClassCursor) -> bool {
        self.words.get(&cursor.epoch_no).is_some_and(|to| cursor.class_sequence <= *to)
    }

    /// Rows that headquarters has need not be sent: those that follow at once on what
    /// was sent, in the same epoch.
    fn skip(&mut self) {
        let mut at = self.sent.back().map_or(self.delivered, |slot| slot.cursor);
        let Some(to) = self.words.get(&at.epoch_no) else { return };
        at.class_sequence = at.class_sequence.max(*to);
        while self.ready.front().is_some_and(|row| row.cursor <= at) {
            self.ready.pop_front();
        }
        if self.read_to < at {
            self.read_to = at;
            self.fetching = None;
            self.more = true;
        }
    }

    /// Takes what is finished from the front. `by_broker`: the broker's PUBACK is enough.
    pub(super) fn retire(&mut self, by_broker: bool) -> Vec<Retired> {
        let mut retired = Vec::new();
        while let Some(front) = self.sent.front() {
            let confirmed = !by_broker && self.is_confirmed(front.cursor);
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
        if by_broker {
            return retired;
        }
        self.words = self.words.split_off(&self.delivered.epoch_no);
        self.skip();
        let word = self.words.get(&self.delivered.epoch_no);
        if let Some(to) = word.filter(|to| self.sent.is_empty() && **to > self.delivered.class_sequence) {
            // After a restart headquarters may know more than we had noted.
            self.delivered.class_sequence = *to;
            retired.push(Retired::Delivered(self.delivered));
        }
        retired
    }
}
