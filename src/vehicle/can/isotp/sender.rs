//! A message going out. Pure: flow control and time go in, frames come out.

use std::time::Duration;

use super::pci::{FlowStatus, Pci, parse};
use super::{Form, LONGEST_WITHOUT_ESCAPE, N_BS, separation};

/// Waits that a receiver may ask for in a row (N_WFTmax; its value is ours to choose).
const MOST_WAITS: u8 = 10;

/// A message was not delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// Nothing, or more than 32 bits can count.
    #[error("a message of {0} byte(s) cannot be sent")]
    Length(usize),
    /// No flow control within N_Bs.
    #[error("no flow control within {N_BS:?}")]
    NoFlowControl,
    /// "Wait" too often.
    #[error("the receiver asked to wait more than {MOST_WAITS} times in a row")]
    WaitsForever,
    /// It has no room.
    #[error("the receiver has no room for the message")]
    Overflow,
    /// A flow control that does not exist.
    #[error("the receiver answered with the reserved flow control {0:X}")]
    Reserved(u8),
}

/// What is to be done now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// Send this frame, then ask again.
    Send(Vec<u8>),
    /// Nothing before this time, or before a frame of the other side.
    Wait(Duration),
    /// All is sent.
    Done,
    /// It will not be.
    Failed(SendError),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Nothing was sent.
    Fresh,
    /// For flow control.
    Waiting {
        until: Duration,
        waits: u8,
        first: bool,
    },
    Sending {
        left_in_block: Option<u8>,
        gap: Duration,
        not_before: Duration,
    },
    Done,
    Failed(SendError),
}

/// Sends one message.
#[derive(Debug, Clone)]
pub struct Sender {
    form: Form,
    payload: Vec<u8>,
    sent: usize,
    number: u8,
    state: State,
}

impl Sender {
    /// A message of at least one byte.
    ///
    /// # Errors
    /// [`SendError::Length`].
    pub fn new(form: Form, payload: Vec<u8>) -> Result<Self, SendError> {
        if payload.is_empty() || u32::try_from(payload.len()).is_err() {
            return Err(SendError::Length(payload.len()));
        }
        Ok(Self { form, payload, sent: 0, number: 0, state: State::Fresh })
    }

    /// What is to be done at `now`.
    pub fn next(&mut self, now: Duration) -> Next {
        match self.state {
            State::Fresh => Next::Send(self.begin(now)),
            State::Waiting { until, .. } if now >= until => self.fail(SendError::NoFlowControl),
            State::Waiting { until, .. } => Next::Wait(until),
            State::Sending { not_before, .. } if now < not_before => Next::Wait(not_before),
            State::Sending { left_in_block, gap, .. } => Next::Send(self.go_on(left_in_block, gap, now)),
            State::Done => Next::Done,
            State::Failed(error) => Next::Failed(error),
        }
    }

    /// Takes a frame of the other side; anything but a flow control that is waited for is ignored.
    pub fn on_frame(&mut self, data: &[u8], now: Duration) {
        let Some(rest) = self.form.without_prefix(data) else { return };
        let Ok(Pci::Flow(flow)) = parse(rest, data.len()) else { return };
        let State::Waiting { waits, first, until } = self.state else { return };
        if now >= until {
            return;
        }
        match flow.status {
            FlowStatus::Continue => {
                let left_in_block = (flow.block_size > 0).then_some(flow.block_size);
                self.state = State::Sending { left_in_block, gap: separation(flow.st_min), not_before: now };
            }
            FlowStatus::Wait if waits >= MOST_WAITS => {
                self.fail(SendError::WaitsForever);
            }
            FlowStatus::Wait => {
                self.state = State::Waiting { until: now + N_BS, waits: waits + 1, first };
            }
            // Only the first frame tells the length: later it makes no sense (§9.6.5.2).
            FlowStatus::Overflow if first => {
                self.fail(SendError::Overflow);
            }
            FlowStatus::Overflow => {}
            FlowStatus::Reserved(code) => {
                self.fail(SendError::Reserved(code));
            }
        }
    }

    fn fail(&mut self, error: SendError) -> Next {
        self.state = State::Failed(error);
        Next::Failed(error)
    }

    fn begin(&mut self, now: Duration) -> Vec<u8> {
        let length = self.payload.len();
        let prefix = self.form.prefix_bytes();
        let classic = length + 1 + prefix <= 8;
        if classic || length + 2 + prefix <= self.form.frame_bytes {
            self.state = State::Done;
            self.sent = length;
            // Both fit a byte: a frame has at most 64.
            let short = u8::try_from(length).unwrap_or(u8::MAX);
            let control: &[u8] = if classic { &[short] } else { &[0, short] };
            return self.form.frame(control, &self.payload).0;
        }
        self.state = State::Waiting { until: now + N_BS, waits: 0, first: true };
        self.number = 1;
        let control = match u16::try_from(length).ok().filter(|_| length <= LONGEST_WITHOUT_ESCAPE) {
            Some(short) => {
                let [high, low] = short.to_be_bytes();
                vec![0x10 | high, low]
            }
            None => {
                let long = u32::try_from(length).unwrap_or(u32::MAX);
                [&[0x10, 0x00][..], &long.to_be_bytes()].concat()
            }
        };
        let (frame, sent) = self.form.frame(&control, &self.payload);
        self.sent = sent;
        frame
    }

    fn go_on(&mut self, left_in_block: Option<u8>, gap: Duration, now: Duration) -> Vec<u8> {
        let rest = self.payload.get(self.sent..).unwrap_or_default();
        let (frame, sent) = self.form.frame(&[0x20 | self.number], rest);
        self.sent += sent;
        self.number = (self.number + 1) & 0x0F;
        self.state = match left_in_block.map(|left| left.saturating_sub(1)) {
            _ if self.sent >= self.payload.len() => State::Done,
            Some(0) => State::Waiting { until: now + N_BS, waits: 0, first: false },
            left_in_block => State::Sending { left_in_block, gap, not_before: now + gap },
        };
        frame
    }
}
