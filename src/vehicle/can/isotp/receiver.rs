//! A message coming in. Pure: frames and time go in, flow control and messages
//! come out.

use std::time::Duration;

use super::pci::{Flow, FlowStatus, Pci, parse};
use super::{Form, N_CR};

/// Why a message did not come whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Break {
    /// A consecutive frame had another number than the next (N_WRONG_SN).
    WrongNumber {
        /// The next.
        expected: u8,
        /// What came.
        found: u8,
    },
    /// Another message began before this one's end (N_UNEXP_PDU).
    Interrupted,
    /// The next frame did not come within N_Cr (N_TIMEOUT_Cr).
    TimedOut,
    /// Longer than there is room for: refused with flow control 32 (N_BUFFER_OVFLW).
    TooLong {
        /// As announced.
        length: usize,
    },
}

/// Something is complete, or will not be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A whole message.
    Whole(Vec<u8>),
    /// A message of which only the beginning came.
    Broken {
        /// What came.
        beginning: Vec<u8>,
        /// What went wrong.
        why: Break,
    },
}

/// What a frame brought about.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Step {
    /// To be sent to the other side.
    pub reply: Option<Vec<u8>>,
    /// A frame may end one message and be another.
    pub events: Vec<Event>,
}

#[derive(Debug, Clone)]
struct Open {
    payload: Vec<u8>,
    length: usize,
    next: u8,
    /// Data bytes of a full consecutive frame of this sender, by its first frame.
    full: usize,
    left_in_block: Option<u8>,
    deadline: Duration,
}

/// Receives the messages of one sender, one after the other.
#[derive(Debug, Clone)]
pub struct Receiver {
    form: Form,
    block_size: u8,
    st_min: u8,
    open: Option<Open>,
}

impl Receiver {
    /// Asks for blocks of `block_size` (0: all at once) with `st_min` between the frames.
    #[must_use]
    pub fn new(form: Form, block_size: u8, st_min: u8) -> Self {
        Self { form, block_size, st_min, open: None }
    }

    /// Bytes that the message now coming will take.
    #[must_use]
    pub fn reserved(&self) -> usize {
        self.open.as_ref().map_or(0, |open| open.length)
    }

    /// Until when the next frame must come.
    #[must_use]
    pub fn deadline(&self) -> Option<Duration> {
        self.open.as_ref().map(|open| open.deadline)
    }

    /// Takes a frame's data. `room`: bytes a message may have.
    pub fn on_frame(&mut self, data: &[u8], room: usize, now: Duration) -> Step {
        let mut step = Step { events: self.on_time(now).into_iter().collect(), reply: None };
        let Some(rest) = self.form.without_prefix(data) else { return step };
        match parse(rest, data.len()) {
            Ok(Pci::Single(payload)) => {
                step.events.extend(self.interrupt(Break::Interrupted));
                step.events.push(Event::Whole(payload.to_vec()));
            }
            Ok(Pci::First { length, data: beginning }) => {
                // A first frame fills its frame, and a frame has 8 bytes or a length of CAN FD.
                if data.len() < 8 {
                    return step;
                }
                step.events.extend(self.interrupt(Break::Interrupted));
                step.reply = Some(self.begin(length, beginning, data.len(), room, now, &mut step.events));
            }
            Ok(Pci::Consecutive { number, data: part }) => self.go_on(number, part, now, &mut step),
            // Flow control is the sender's business; what is malformed is ignored (§9.6).
            Ok(Pci::Flow(_)) | Err(_) => {}
        }
        step
    }

    /// Gives up a message whose next frame is overdue.
    pub fn on_time(&mut self, now: Duration) -> Option<Event> {
        let overdue = self.open.as_ref().is_some_and(|open| now >= open.deadline);
        if overdue { self.interrupt(Break::TimedOut) } else { None }
    }

    fn begin(
        &mut self,
        length: usize,
        beginning: &[u8],
        frame_bytes: usize,
        room: usize,
        now: Duration,
        events: &mut Vec<Event>,
    ) -> Vec<u8> {
        if length > room {
            events.push(Event::Broken { beginning: beginning.to_vec(), why: Break::TooLong { length } });
            return self.flow(Flow { status: FlowStatus::Overflow, block_size: 0, st_min: 0 });
        }
        self.open = Some(Open {
            payload: beginning.to_vec(),
            length,
            next: 1,
            full: frame_bytes.saturating_sub(1 + usize::from(self.form.prefix_in.is_some())),
            left_in_block: self.block(),
            deadline: now + N_CR,
        });
        self.flow(Flow::go_on(self.block_size, self.st_min))
    }

    fn go_on(&mut self, number: u8, part: &[u8], now: Duration, step: &mut Step) {
        // Without a beginning it is the rest of a message that nobody waits for.
        let Some(mut open) = self.open.take() else { return };
        if number != open.next {
            let why = Break::WrongNumber { expected: open.next, found: number };
            step.events.push(Event::Broken { beginning: open.payload, why });
            return;
        }
        let missing = open.length.saturating_sub(open.payload.len());
        // Only the last one may be shorter, none may be longer (§9.6.4.2): ignored.
        if part.len() < missing.min(open.full) || part.len() > open.full {
            self.open = Some(open);
            return;
        }
        open.payload.extend(part.iter().take(missing));
        if open.payload.len() == open.length {
            step.events.push(Event::Whole(open.payload));
            return;
        }
        open.next = (open.next + 1) & 0x0F;
        open.deadline = now + N_CR;
        if let Some(left) = &mut open.left_in_block {
            *left = left.saturating_sub(1);
            if *left == 0 {
                open.left_in_block = self.block();
                step.reply = Some(self.flow(Flow::go_on(self.block_size, self.st_min)));
            }
        }
        self.open = Some(open);
    }

    fn interrupt(&mut self, why: Break) -> Option<Event> {
        self.open.take().map(|open| Event::Broken { beginning: open.payload, why })
    }

    fn block(&self) -> Option<u8> {
        (self.block_size > 0).then_some(self.block_size)
    }

    fn flow(&self, flow: Flow) -> Vec<u8> {
        self.form.frame(&flow.bytes(), &[]).0
    }
}
