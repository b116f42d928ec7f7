//! Clearing codes on a bus: one frame, sent once. Nothing here repeats, whatever comes
//! back or not. What came of it is read afterwards.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::{ANSWER_WITHIN, Node};
use crate::link::can::{Frame, Heard, Id};
use crate::vehicle::answer::{Assembled, Message};
use crate::vehicle::can::address;
use crate::vehicle::can::isotp::{Event, Form, Next, Output, Sender};
use crate::vehicle::clear::ClearAnswer;
use crate::vehicle::error::AdapterError;
use crate::vehicle::gate::Target;
use crate::vehicle::gate::clear::{ClearRequest, Way};
use crate::vehicle::protocol::EcuAddress;

/// Units erase a memory that wears: some take seconds (P2* is 5 s, ISO 14229-2).
const CLEAR_LIMIT: Duration = Duration::from_secs(10);

impl Node {
    /// Clears codes. Asks everybody: the request before must have gone to everybody too.
    ///
    /// # Errors
    /// [`AdapterError`]; whether the car cleared is then not known.
    pub async fn clear(&mut self, request: ClearRequest) -> Result<ClearAnswer, AdapterError> {
        let way = request.way();
        self.drain().await?;
        self.tally.begin_question();
        self.conversations.clear();
        let not_sent = |why| Ok(ClearAnswer::sort(&Assembled::default(), way, Some(why)));
        let Some(width) = self.width else { return not_sent("not sent: no unit has answered yet") };
        let to = address::request_id(width, Target::Functional);
        self.bus.pass(&address::passes(to, Target::Functional));
        let mut sender = Sender::new(Form::default(), request.into_payload().to_vec()).ok();
        let mut sent = false;
        if let Some(Next::Send(data)) = sender.as_mut().map(|sender| sender.next(self.begun.elapsed()))
            && let Some(frame) = Frame::new(to, &data, false)
        {
            sent = self.bus.send(&frame).await?;
        }
        if !sent {
            return not_sent("not sent: nobody acknowledges");
        }
        Ok(ClearAnswer::sort(&self.hear_clearing(to, way).await?, way, None))
    }

    /// Until every unit known has said its last word, or the time is over.
    async fn hear_clearing(&mut self, to: Id, way: Way) -> Result<Assembled, AdapterError> {
        let mut assembled = Assembled::default();
        let (mut done, mut waiting) = (BTreeSet::new(), BTreeSet::new());
        let mut until = Instant::now() + CLEAR_LIMIT;
        while let Ok(heard) = timeout_at(until, self.bus.hear()).await {
            let heard = heard?;
            self.count(heard)?;
            let Heard::Frame(frame) = heard else { continue };
            let unit = address::unit_of(frame.id()).filter(|unit| unit.is_extended() == to.is_extended());
            let Some(reply_to) = unit else { continue };
            if !self.conversations.listen(frame.id(), reply_to, Form::default(), 0, 0) {
                continue;
            }
            for output in self.conversations.on_frame(&frame, self.begun.elapsed()) {
                let Output::Event(from, Event::Whole(payload)) = output else { continue };
                if is_last_word(&payload, way) {
                    waiting.remove(&from);
                    done.insert(from);
                } else if payload.get(..3) == Some(&[0x7F, way.service(), 0x78]) {
                    waiting.insert(from);
                }
                assembled.messages.push(Message { sender: EcuAddress(from.to_string()), payload });
            }
            if !done.is_empty() && waiting.is_empty() && self.known.is_subset(&done) {
                // Whoever was never heard before may answer as well.
                until = until.min(Instant::now() + ANSWER_WITHIN);
            }
        }
        Ok(assembled)
    }
}

fn is_last_word(payload: &[u8], way: Way) -> bool {
    match payload {
        [0x7F, service, code, ..] => *service == way.service() && *code != 0x78,
        [answered, ..] => *answered == way.service() | 0x40,
        [] => false,
    }
}
