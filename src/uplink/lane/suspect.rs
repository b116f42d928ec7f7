//! An event at which the other side hangs up, again and again. MQTT 3.1.1 has no
//! words for "too large" or "not allowed": the broker closes the connection, and
//! an event that it never takes would hold everything up for ever. Pure.
//!
//! What flew first in its class when the connection was closed is suspected.
//! Closed at it again, it flies alone. Closed at it alone, its class waits,
//! longer each time, and the others go on. Then a smaller event of the same topic
//! goes in its place: if that one is taken, and the broker hangs up at the suspect
//! once more, the suspect is set aside; if not, the topic as a whole is not taken,
//! and nothing is set aside. Why, and what it costs:
//! `docs/decisions/004-brokers-that-misbehave.md`.

use std::time::{Duration, Instant};

use super::{Lane, Stage};
use crate::store::outbox::ClassCursor;
use crate::uplink::flow::Token;
use crate::uplink::session::Outcome;

/// Hang-ups after which an event flies alone.
const TOGETHER: u32 = 2;
/// Hang-ups at the event alone after which its class waits.
const WAITS: u32 = 2;
/// Hang-ups at the event alone after which a witness is heard.
const LONE: u32 = 4;

/// The event.
#[derive(Debug, Clone, Hash)]
pub(super) struct Suspect {
    cursor: ClassCursor,
    bytes: u64,
    /// Hang-ups while it flew first of its class.
    closes: u32,
    /// Of these, with nothing else under way, since a witness was last heard.
    lone: u32,
    /// A smaller one of its topic that flies in its place.
    witness: Option<Token>,
    /// One was taken since the last hang-up at it.
    witnessed: bool,
    /// And the broker hung up at it all the same.
    convicted: bool,
    /// What the others have of a connection before it is tried again.
    rests: Duration,
}

impl<P: Clone> Lane<P> {
    /// The broker hung up. `alone`: nothing else was under way.
    pub(in crate::uplink) fn blame(&mut self, alone: bool) {
        let flying = self.sent.iter().find(|slot| matches!(slot.stage, Stage::Flying(_)));
        let flying = flying.map(|slot| (slot.cursor, slot.bytes));
        if let Some(suspect) = &mut self.suspect
            && suspect.witness.take().is_some()
        {
            // Not this event: the topic.
            suspect.lone = WAITS;
            suspect.rests = self.refusals.wait();
            return;
        }
        let Some((cursor, bytes)) = flying else { return };
        if self.suspect.as_ref().is_none_or(|suspect| suspect.cursor != cursor) {
            self.suspect = Some(Suspect {
                cursor,
                bytes,
                closes: 0,
                lone: 0,
                witness: None,
                witnessed: false,
                convicted: false,
                rests: Duration::ZERO,
            });
        }
        if let Some(suspect) = &mut self.suspect {
            suspect.closes = suspect.closes.saturating_add(1);
            if alone {
                suspect.lone = suspect.lone.saturating_add(1);
                suspect.convicted |= suspect.witnessed;
            }
            if suspect.lone >= WAITS {
                suspect.rests = self.refusals.wait();
            }
        }
    }

    /// A new connection: the others go first, however long it took to come.
    pub(in crate::uplink) fn rest(&mut self, now: Instant) {
        let due = |suspect: &&Suspect| !suspect.convicted && !suspect.rests.is_zero();
        if let Some(suspect) = self.suspect.as_ref().filter(due) {
            self.blocked_until = Some(now + suspect.rests);
        }
    }

    /// The size of the event at which the broker hangs up, when that is sure enough to be said.
    pub(in crate::uplink) fn hangs_up_at(&self) -> Option<u64> {
        self.suspect.as_ref().filter(|suspect| suspect.lone >= WAITS).map(|suspect| suspect.bytes)
    }

    /// The next row must have the line for itself.
    pub(in crate::uplink) fn next_flies_alone(&self) -> bool {
        let next = self.ready.front().map(|row| row.cursor);
        self.suspect
            .as_ref()
            .is_some_and(|suspect| suspect.closes >= TOGETHER && Some(suspect.cursor) == next)
    }

    /// A suspect or its witness has the line for itself.
    pub(in crate::uplink) fn holds_line(&self) -> bool {
        self.suspect.as_ref().is_some_and(|suspect| {
            let flies =
                |slot: &super::Slot| slot.cursor == suspect.cursor && matches!(slot.stage, Stage::Flying(_));
            suspect.witness.is_some() || suspect.closes >= TOGETHER && self.sent.iter().any(flies)
        })
    }

    /// Whom to hear in the suspect's place, when it is time: its load and size.
    pub(in crate::uplink) fn witness(&self, alike: fn(&P, &P) -> bool) -> Option<(P, u64)> {
        let suspect = self.suspect.as_ref().filter(|suspect| suspect.lone >= LONE && !suspect.witnessed)?;
        let (front, later) = (self.ready.front()?, self.ready.iter().skip(1));
        let mut fit = later.filter(|row| row.bytes < suspect.bytes && alike(&row.load, &front.load));
        fit.next().map(|row| (row.load.clone(), row.bytes))
    }

    /// It flies.
    pub(in crate::uplink) fn call_witness(&mut self, token: Token) {
        if let Some(suspect) = &mut self.suspect {
            suspect.witness = Some(token);
        }
    }

    /// Whether that publish was the witness; then it is heard.
    pub(in crate::uplink) fn hear_witness(&mut self, token: Token, outcome: Outcome, now: Instant) -> bool {
        let Some(suspect) = self.suspect.as_mut().filter(|suspect| suspect.witness == Some(token)) else {
            return false;
        };
        suspect.witness = None;
        if outcome == Outcome::Accepted {
            // The suspect next, at once: the broker may have turned good meanwhile.
            suspect.witnessed = true;
        } else {
            suspect.lone = WAITS;
            self.blocked_until = Some(now + self.refusals.wait());
        }
        true
    }

    /// Why the next row will never be taken, if that is so. A case that is closed so is forgotten.
    pub(in crate::uplink) fn never(&mut self, limit: u64) -> Option<String> {
        let (next, bytes) = self.ready.front().map(|row| (row.cursor, row.bytes))?;
        if bytes > limit {
            return Some(format!("{bytes} bytes, the packet limit is {limit}"));
        }
        let closed = |suspect: &mut Suspect| suspect.convicted && suspect.cursor == next;
        let closes = self.suspect.take_if(closed)?.closes;
        self.refusals.reset();
        Some(format!(
            "the broker hung up {closes} times at this event of {bytes} bytes and took a smaller one of its topic"
        ))
    }

    /// The broker answered it.
    pub(super) fn acquit(&mut self, cursor: ClassCursor) {
        self.suspect.take_if(|suspect| suspect.cursor == cursor);
    }

    /// What is delivered is no suspect.
    pub(super) fn acquit_to(&mut self, delivered: ClassCursor) {
        self.suspect.take_if(|suspect| suspect.cursor <= delivered);
        if let Some(suspect) = &mut self.suspect {
            suspect.witness = None;
        }
    }
}
