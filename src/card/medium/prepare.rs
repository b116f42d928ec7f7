//! Making an empty card a member card, whatever its technology: a state machine without
//! I/O, as reading is. What lives here: the same card throughout, and lists of commands
//! one by one. What does not: the lists (`format`), the conversation with a card of files
//! (`desfire`), and the journal of an issue.

use std::collections::VecDeque;
use std::sync::Arc;

use super::desfire::{FileFormatting, FileStep};
use super::format::{FormatError, format_commands};
use crate::card::apdu::Command;
use crate::card::keys::KeyStore;
use crate::card::probe::Answer;
use crate::card::record::MemberRecord;
use crate::event::card::Technology;
use crate::ident::CardUid;
use crate::protocols::cards::{CardLayout, Places};

/// What to do next.
#[derive(Debug)]
pub enum FormatStep {
    /// Send this and feed the answer.
    Transmit(Command, Box<Formatting>),
    /// The end.
    Done(FormatOutcome),
}

/// What came of preparing a card.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FormatOutcome {
    /// It is a member card: the record, the header and its keys.
    Formatted,
    /// Nothing was done: another card, or one that is a member card already, or not empty.
    NotEmpty,
    /// The card does not do what such a card does; use another.
    Refused,
    /// The reader failed or the card left: present it again. It counts as empty, or it is
    /// a member card and only nobody heard so.
    Unfinished,
}

/// A card being prepared.
#[derive(Debug)]
pub struct Formatting {
    uid: CardUid,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    /// The same card? Then this first.
    Uid(Box<Work>),
    Work(Box<Work>),
}

#[derive(Debug)]
enum Work {
    List(VecDeque<Command>),
    Files(FileFormatting, Option<Command>),
}

impl Formatting {
    /// Begins to make the empty card `uid` the member card of `record`.
    ///
    /// # Errors
    /// [`FormatError`]; nothing was sent to the card.
    pub fn start(
        uid: CardUid,
        technology: Technology,
        layout: &CardLayout,
        record: &MemberRecord,
        keys: Arc<dyn KeyStore>,
    ) -> Result<FormatStep, FormatError> {
        let work = match &layout.places {
            Places::Files(files) => {
                let (work, first) = FileFormatting::start(uid.clone(), layout, files.clone(), record, keys)?;
                Work::Files(work, Some(first))
            }
            Places::Pages(_) | Places::Blocks(_) => {
                Work::List(format_commands(technology, layout, &uid, record, &*keys)?.into())
            }
        };
        let formatting = Self { uid, stage: Stage::Uid(Box::new(work)) };
        Ok(FormatStep::Transmit(Command::get_uid(), Box::new(formatting)))
    }

    /// Goes on with what came of the last step.
    #[must_use]
    pub fn answer(self, answer: &Answer) -> FormatStep {
        let Self { uid, stage } = self;
        let response = match answer {
            Answer::Response(response) => response,
            Answer::NotTransmitted | Answer::Reset => return FormatStep::Done(FormatOutcome::Unfinished),
        };
        let (mut work, is_first) = match stage {
            Stage::Uid(work) => match response.ok().and_then(|bytes| CardUid::from_bytes(bytes).ok()) {
                Some(shown) if shown == uid => (work, true),
                Some(_) => return FormatStep::Done(FormatOutcome::NotEmpty),
                None => return FormatStep::Done(FormatOutcome::Unfinished),
            },
            Stage::Work(work) => (work, false),
        };
        let next = match &mut *work {
            // A card with keys refuses the delivered ones at the first login.
            Work::List(_) if !is_first && response.ok().is_none() => Err(FormatOutcome::Refused),
            Work::List(commands) => commands.pop_front().ok_or(FormatOutcome::Formatted),
            Work::Files(work, first) => match first.take() {
                Some(first) => Ok(first),
                None => match work.answer(answer) {
                    FileStep::Transmit(command) => Ok(command),
                    FileStep::Done(outcome) => Err(outcome),
                },
            },
        };
        match next {
            Ok(command) => FormatStep::Transmit(command, Box::new(Self { uid, stage: Stage::Work(work) })),
            Err(outcome) => FormatStep::Done(outcome),
        }
    }
}
