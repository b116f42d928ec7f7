//! One command and its answer, as a state machine without I/O. The printer
//! never limits how often things are sent again, so the host must (TCP300II
//! manual p. 2 and 4).
//!
//! ```text
//!            NAK, DLE: send again (bounded)
//!            ┌──────┐
//!   begin ─► Sent ──┴─ACK─► Working ──response─► done (host sends ACK)
//!              │                └─damaged: host sends NAK (bounded)
//!              └─ no ACK in time: failed
//! ```

use super::frame::Reply;
use super::status::Status;

/// How often a command is sent when the printer answers NAK.
const MAX_SENDS: u32 = 4;
/// How often a command is sent when the printer answers DLE.
const MAX_BUSY: u32 = 20;
/// How often a damaged response is asked for again.
const MAX_DAMAGED: u32 = 4;

/// Where the exchange stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exchange {
    /// Sent so often, refused so often; no ACK yet.
    Sent {
        /// NAKs seen.
        naks: u32,
        /// DLEs seen.
        busy: u32,
    },
    /// Taken; the printer works. So many damaged responses.
    Working {
        /// Damaged responses seen.
        damaged: u32,
    },
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// The printer said something.
    Said(Reply),
    /// It said nothing for too long.
    Silence,
}

/// What to do now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Wait for more.
    Wait,
    /// Send the command again.
    SendAgain,
    /// Pause, then send the command again.
    SendLater,
    /// Send ACK to a response of an earlier command, and wait on.
    AckStale,
    /// Send ACK to a response of an earlier command, then our command again: the
    /// printer discarded it while it waited for that ACK (manual p. 5).
    AckStaleAndSendAgain,
    /// Send NAK: the response was damaged.
    AskAgain,
    /// Send ACK; this is the answer.
    Done(Status, Vec<u8>),
    /// Give up.
    Fail(Failure),
}

/// Why an exchange failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// NAK every time.
    Refused,
    /// DLE every time.
    Busy,
    /// Nothing came.
    Silent,
    /// Only damaged responses came.
    Garbled,
}

impl Exchange {
    /// The command was sent.
    #[must_use]
    pub fn begin() -> Self {
        Self::Sent { naks: 0, busy: 0 }
    }

    /// Whether the printer has taken the command.
    #[must_use]
    pub fn is_working(self) -> bool {
        matches!(self, Self::Working { .. })
    }

    /// The next state and what to do, for the exchange of `command`.
    #[must_use]
    pub fn next(self, command: u8, input: Input) -> (Self, Step) {
        match (self, input) {
            (_, Input::Silence) => (self, Step::Fail(Failure::Silent)),
            // The answer itself may come when our ear missed the ACK.
            (_, Input::Said(Reply::Response { command: of, status, data })) if of == command => {
                (self, Step::Done(status, data))
            }
            (Self::Working { .. }, Input::Said(Reply::Response { .. })) => (self, Step::AckStale),
            (Self::Sent { naks, busy }, Input::Said(Reply::Response { .. })) => {
                let enough = naks + 1 >= MAX_SENDS;
                let step = if enough { Step::Fail(Failure::Garbled) } else { Step::AckStaleAndSendAgain };
                (Self::Sent { naks: naks + 1, busy }, step)
            }
            (Self::Sent { .. }, Input::Said(Reply::Ack)) => (Self::Working { damaged: 0 }, Step::Wait),
            (Self::Sent { naks, busy }, Input::Said(Reply::Nak)) => {
                let step = if naks + 1 < MAX_SENDS { Step::SendAgain } else { Step::Fail(Failure::Refused) };
                (Self::Sent { naks: naks + 1, busy }, step)
            }
            (Self::Sent { naks, busy }, Input::Said(Reply::Dle)) => {
                let step = if busy + 1 < MAX_BUSY { Step::SendLater } else { Step::Fail(Failure::Busy) };
                (Self::Sent { naks, busy: busy + 1 }, step)
            }
            (Self::Sent { .. }, Input::Said(Reply::Damaged)) => (self, Step::Wait),
            (Self::Working { damaged }, Input::Said(Reply::Damaged)) => {
                let enough = damaged + 1 >= MAX_DAMAGED;
                let step = if enough { Step::Fail(Failure::Garbled) } else { Step::AskAgain };
                (Self::Working { damaged: damaged + 1 }, step)
            }
            (Self::Working { .. }, Input::Said(Reply::Ack | Reply::Nak | Reply::Dle)) => (self, Step::Wait),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(replies: Vec<Reply>) -> Vec<Step> {
        let mut exchange = Exchange::begin();
        let mut steps = Vec::new();
        for reply in replies {
            let (next, step) = exchange.next(0x40, Input::Said(reply));
            exchange = next;
            steps.push(step);
        }
        steps
    }

    fn answer(command: u8) -> Reply {
        Reply::Response { command, status: Status::NORMAL, data: vec![] }
    }

    #[test]
    fn every_course_ends() {
        let done = || Step::Done(Status::NORMAL, vec![]);
        let fail = Step::Fail;
        for (name, replies, last) in [
            ("well", vec![Reply::Ack, answer(0x40)], done()),
            ("ACK lost", vec![answer(0x40)], done()),
            ("one NAK", vec![Reply::Nak, Reply::Ack, answer(0x40)], done()),
            ("busy, then well", vec![Reply::Dle, Reply::Dle, Reply::Ack, answer(0x40)], done()),
            ("stale response", vec![answer(0x46), Reply::Ack, answer(0x40)], done()),
            ("damaged once", vec![Reply::Ack, Reply::Damaged, answer(0x40)], done()),
            ("NAK for ever", vec![Reply::Nak; 4], fail(Failure::Refused)),
            ("busy for ever", vec![Reply::Dle; 20], fail(Failure::Busy)),
            ("garbage", [vec![Reply::Ack], vec![Reply::Damaged; 4]].concat(), fail(Failure::Garbled)),
        ] {
            assert_eq!(run(replies).pop(), Some(last), "{name}");
        }
        for state in [Exchange::begin(), Exchange::Working { damaged: 0 }] {
            assert_eq!(state.next(0x40, Input::Silence).1, fail(Failure::Silent));
        }
    }

    #[test]
    fn a_stale_response_is_acknowledged_and_not_taken_for_ours() {
        assert_eq!(run(vec![Reply::Ack, answer(0x46)]), [Step::Wait, Step::AckStale]);
        assert_eq!(run(vec![answer(0x46)]), [Step::AckStaleAndSendAgain]);
        assert_eq!(run(vec![answer(0x46); 4]).pop(), Some(Step::Fail(Failure::Garbled)));
    }
}
