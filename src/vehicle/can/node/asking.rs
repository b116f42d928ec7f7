//! One question while its answers come: who may answer, who has, and when it is over. No I/O.

use std::collections::{BTreeMap, BTreeSet};

use tokio::time::Instant;

use super::MOST_MESSAGES;
use crate::link::can::Id;
use crate::vehicle::answer::{Assembled, Broken, Message, PENDING_ROUNDS, PENDING_WITHIN};
use crate::vehicle::can::address::{self, Width};
use crate::vehicle::can::isotp::Event;
use crate::vehicle::gate::{Request, Target};
use crate::vehicle::protocol::EcuAddress;

/// One question while its answers come.
pub(super) struct Asking {
    pub(super) to: Id,
    pub(super) request: Request,
    pub(super) wanted: Option<usize>,
    pub(super) known: BTreeSet<Id>,
    pub(super) assembled: Assembled,
    /// Frames of answers: what an adapter would print as lines.
    pub(super) frames: usize,
    /// Who said something final.
    pub(super) answered: BTreeSet<Id>,
    pub(super) pending: BTreeMap<Id, u8>,
    /// A "wait" that was believed ends here.
    pub(super) patience: Instant,
    pub(super) busy: bool,
}

impl Asking {
    pub(super) fn new(to: Id, request: Request, lines: Option<u8>, known: &BTreeSet<Id>) -> Self {
        Self {
            to,
            request,
            wanted: lines.map(usize::from).filter(|lines| *lines > 0),
            known: known.clone(),
            assembled: Assembled::default(),
            frames: 0,
            answered: BTreeSet::new(),
            pending: BTreeMap::new(),
            patience: Instant::now(),
            busy: false,
        }
    }

    /// Where flow control for `sender` goes; `None`: it does not answer this question.
    pub(super) fn reply_to(&self, sender: Id) -> Option<Id> {
        match self.request.target() {
            Target::Functional => {
                address::unit_of(sender).filter(|unit| unit.is_extended() == self.to.is_extended())
            }
            target @ (Target::Unit(_) | Target::Paired(_) | Target::Extended(_)) => {
                let width = Width::of(self.to.number());
                (address::answer_id(width, target) == Some(sender)).then_some(self.to)
            }
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.assembled.messages.is_empty() && self.assembled.broken.is_empty()
    }

    pub(super) fn is_over(&self) -> bool {
        if self.assembled.messages.len() + self.assembled.broken.len() >= MOST_MESSAGES {
            return true;
        }
        if self.busy || self.pending.keys().any(|unit| !self.answered.contains(unit)) {
            return false;
        }
        match (self.request.target(), self.wanted) {
            (Target::Unit(_) | Target::Paired(_) | Target::Extended(_), _) => !self.answered.is_empty(),
            (Target::Functional, Some(wanted)) => self.frames >= wanted,
            (Target::Functional, None) => !self.known.is_empty() && self.known.is_subset(&self.answered),
        }
    }

    pub(super) fn take(&mut self, from: Id, event: Event) {
        let sender = EcuAddress(from.to_string());
        match event {
            Event::Whole(payload) => {
                if payload.get(..3).is_some_and(|head| head == [0x7F, self.request.service(), 0x78]) {
                    let rounds = self.pending.entry(from).or_insert(0);
                    *rounds = rounds.saturating_add(1);
                    if *rounds <= PENDING_ROUNDS {
                        self.patience = Instant::now() + PENDING_WITHIN;
                    }
                } else if self.request.is_answered_by(&payload)
                    || payload.get(..2) == Some(&[0x7F, self.request.service()])
                {
                    self.answered.insert(from);
                }
                self.assembled.messages.push(Message { sender, payload });
            }
            Event::Broken { beginning, why } => {
                tracing::debug!(%sender, ?why, "message did not come whole");
                self.answered.insert(from);
                self.assembled.broken.push(Broken { sender, beginning });
            }
        }
    }
}
