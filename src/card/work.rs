//! Work with the card in a field that somebody asked for: reading it again, writing its
//! record, preparing an empty one, moving one to newer keys. What lives here: the one form in which
//! every such conversation reaches a driver ([`Errand`]). What does not: the conversations
//! themselves (`medium`), and what they are for (`counter`).

use tokio::sync::oneshot;
use tokio::task;

use super::apdu::Command;
use super::feedback::Signing;
use super::medium::{
    Finding, MoveOutcome, MoveStep, Moving, PrepareOutcome, PrepareStep, Preparing, ReadStep, Reading,
    WriteOutcome, WriteStep, Writing,
};
use super::probe::Answer;

/// Does what may wait for a SAM on a thread where that holds nobody up. For drivers that are
/// tasks; the threads of `pcsc` wait themselves.
pub(super) async fn aside<T: Send + 'static>(next: impl FnOnce() -> T + Send + 'static) -> T {
    match task::spawn_blocking(next).await {
        Ok(next) => next,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime ends.
            Err(_) => std::future::pending().await,
        },
    }
}

/// A conversation under way.
#[derive(Debug)]
pub(super) enum Work {
    Reading(Box<Reading>),
    Writing(Box<Writing>),
    Preparing(Box<Preparing>),
    Signing(Signing),
    Moving(Box<Moving>),
}

/// What to do next.
#[derive(Debug)]
pub(super) enum WorkStep {
    /// Send this and feed the answer.
    Transmit(Command, Work),
    /// Power the card anew, then feed [`Answer::Reset`].
    Reset(Work),
    /// The end.
    Done(Worked),
}

/// What came of it.
#[derive(Debug)]
pub(super) enum Worked {
    Read(Finding),
    Written(WriteOutcome),
    Prepared(PrepareOutcome),
    /// The reader showed what it could.
    Signed,
    Moved(MoveOutcome),
}

impl Work {
    pub(super) fn answer(self, answer: &Answer) -> WorkStep {
        match self {
            Self::Reading(reading) => reading.answer(answer).into(),
            Self::Writing(writing) => writing.answer(answer).into(),
            Self::Preparing(preparing) => preparing.answer(answer).into(),
            Self::Signing(mut signing) => {
                let next = signing.answer(answer);
                Self::signing(signing, next)
            }
            Self::Moving(moving) => moving.answer(answer).into(),
        }
    }

    /// As `answer`, for drivers that are tasks.
    pub(super) async fn answer_aside(self, answer: Answer) -> WorkStep {
        let may_wait = match &self {
            Self::Reading(reading) => reading.may_wait(),
            Self::Writing(writing) => writing.may_wait(),
            Self::Preparing(_) | Self::Signing(_) | Self::Moving(_) => false,
        };
        if may_wait { aside(move || self.answer(&answer)).await } else { self.answer(&answer) }
    }

    /// A sign, from its first command.
    pub(super) fn sign(mut signing: Signing) -> WorkStep {
        let first = signing.next();
        Self::signing(signing, first)
    }

    fn signing(signing: Signing, next: Option<Command>) -> WorkStep {
        match next {
            Some(command) => WorkStep::Transmit(command, Self::Signing(signing)),
            None => WorkStep::Done(Worked::Signed),
        }
    }

    /// Whether the card is changed by it.
    pub(super) fn writes(&self) -> bool {
        matches!(self, Self::Writing(_) | Self::Preparing(_) | Self::Moving(_))
    }
}

impl From<ReadStep> for WorkStep {
    fn from(step: ReadStep) -> Self {
        match step {
            ReadStep::Transmit(command, reading) => Self::Transmit(command, Work::Reading(reading)),
            ReadStep::Reset(reading) => Self::Reset(Work::Reading(reading)),
            ReadStep::Done(finding) => Self::Done(Worked::Read(finding)),
        }
    }
}

impl From<WriteStep> for WorkStep {
    fn from(step: WriteStep) -> Self {
        match step {
            WriteStep::Transmit(command, writing) => Self::Transmit(command, Work::Writing(writing)),
            WriteStep::Reset(writing) => Self::Reset(Work::Writing(writing)),
            WriteStep::Done(outcome) => Self::Done(Worked::Written(outcome)),
        }
    }
}

impl From<PrepareStep> for WorkStep {
    fn from(step: PrepareStep) -> Self {
        match step {
            PrepareStep::Transmit(command, preparing) => Self::Transmit(command, Work::Preparing(preparing)),
            PrepareStep::Reset(preparing) => Self::Reset(Work::Preparing(preparing)),
            PrepareStep::Done(outcome) => Self::Done(Worked::Prepared(outcome)),
        }
    }
}

impl From<MoveStep> for WorkStep {
    fn from(step: MoveStep) -> Self {
        match step {
            MoveStep::Transmit(command, moving) => Self::Transmit(command, Work::Moving(moving)),
            MoveStep::Reset(moving) => Self::Reset(Work::Moving(moving)),
            MoveStep::Done(outcome) => Self::Done(Worked::Moved(outcome)),
        }
    }
}

impl WorkStep {
    /// Whether it belongs to a conversation that changes the card.
    pub(super) fn writes(&self) -> bool {
        matches!(self, Self::Transmit(_, work) | Self::Reset(work) if work.writes())
    }

    /// The card left, or cannot be reached: what the conversation makes of that.
    pub(super) fn cut(mut self) -> Worked {
        loop {
            self = match self {
                Self::Done(worked) => return worked,
                Self::Transmit(_, work) | Self::Reset(work) => work.answer(&Answer::NotTransmitted),
            }
        }
    }
}

/// A conversation on its way to a driver.
#[derive(Debug)]
pub(super) struct Errand {
    /// Which of the table's readers.
    pub(super) slot: String,
    /// Where it stands.
    pub(super) step: WorkStep,
    /// Who waits for its end. When nobody does any more, nothing more is sent to the card.
    pub(super) done: oneshot::Sender<Worked>,
}

impl Errand {
    /// Whether it is only for the reader's lights.
    pub(super) fn is_sign(&self) -> bool {
        matches!(self.step, WorkStep::Transmit(_, Work::Signing(_)))
    }

    /// It cannot be done.
    pub(super) fn cut(self) {
        let _ = self.done.send(self.step.cut());
    }
}
