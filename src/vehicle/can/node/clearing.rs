//! Clearing codes on a bus: one frame, sent once. Nothing here repeats, whatever comes
//! back or not. What came of it is read afterwards.
//!
//! A frame that nobody acknowledges stays in the controller, which sends it again and again
//! until somebody does: minutes later that may be the next car. So it is watched for, and
//! withdrawn when it does not leave in time. Before it is sent it is marked as waiting there
//! ([`super::stays`]), which the service has written to the disk by then:
//!
//! | | known to have left by | withdrawn by |
//! |---|---|---|
//! | the kernel | its own echo (`CAN_RAW_RECV_OWN_MSGS`; a driver without echo of what truly left says it at once), or an answer | the helper unit, which takes the interface down and up; without it: told, nothing else can be done |
//! | slcan | an answer, or no error flag of the adapter | leaving the bus and joining it again |

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::join::RATES;
use super::{ANSWER_WITHIN, Node};
use crate::link::can::{CanSocket, Frame, Heard, Id, Pass, interface};
use crate::vehicle::answer::{Assembled, Message};
use crate::vehicle::can::address;
use crate::vehicle::can::bus::{Bus, Join};
use crate::vehicle::can::isotp::{Event, Form, Next, Output, Sender};
use crate::vehicle::clear::{ClearAnswer, Delivery};
use crate::vehicle::error::AdapterError;
use crate::vehicle::gate::Target;
use crate::vehicle::gate::clear::{ClearRequest, Way};
use crate::vehicle::protocol::EcuAddress;

/// Units erase a memory that wears: some take seconds (P2* is 5 s, ISO 14229-2).
const CLEAR_LIMIT: Duration = Duration::from_secs(10);
/// On a bus with a car the frame has left by then, however full it is.
const LEAVES_WITHIN: Duration = Duration::from_millis(500);

/// What was heard of a clearing.
#[derive(Default)]
struct Clearing {
    assembled: Assembled,
    /// It left for certain.
    left: bool,
    /// Units that have said their last word, and those that asked for patience.
    done: BTreeSet<Id>,
    waiting: BTreeSet<Id>,
}

impl Node {
    /// Clears codes. Asks everybody: the request before must have gone to everybody too.
    ///
    /// # Errors
    /// [`AdapterError`]; whether the car cleared is then not known.
    pub async fn clear(&mut self, request: ClearRequest) -> Result<ClearAnswer, AdapterError> {
        let way = request.way();
        self.look_for_clearing();
        if self.is_clearing_there() {
            return Ok(ClearAnswer::without_answer(
                Delivery::NotSent,
                "not sent: the one before it may still wait in the controller; pull the adapter or set the interface down",
            ));
        }
        let Some(width) = self.width else {
            return Ok(ClearAnswer::without_answer(Delivery::NotSent, "not sent: no unit has answered yet"));
        };
        if let Err(error) = self.is_ready_to_clear().await {
            tracing::warn!(bus = self.name, %error, "codes not cleared");
            return Ok(ClearAnswer::without_answer(Delivery::NotSent, "not sent: the bus is not usable"));
        }
        let to = address::request_id(width, Target::Functional);
        let mut sender = Sender::new(Form::default(), request.into_payload().to_vec()).ok();
        let first = sender.as_mut().map(|sender| sender.next(self.begun.elapsed()));
        let Some(frame) = first.and_then(|next| match next {
            Next::Send(data) => Frame::new(to, &data, self.asks_in_fd()),
            _ => None,
        }) else {
            return Ok(ClearAnswer::without_answer(Delivery::NotSent, "not sent: it fits no frame"));
        };
        let own = Pass { id: to, mask: 0x1FFF_FFFF };
        self.bus.pass(&[address::passes(width, Target::Functional), vec![own]].concat());
        self.bus.hear_own(true);
        let answer = self.clear_by(&frame, way).await;
        self.bus.hear_own(false);
        answer
    }

    /// What was before is over: an adapter's flags are read, and gone.
    async fn is_ready_to_clear(&mut self) -> Result<(), AdapterError> {
        self.rise().await?;
        self.drain().await?;
        self.flagged().await?;
        self.tally.begin_question();
        self.conversations.clear();
        Ok(())
    }

    /// The clearing counts as waiting in the controller from before it is sent until it is known to
    /// have left, or was taken back: whatever ends this in between, a bus that went off too.
    async fn clear_by(&mut self, frame: &Frame, way: Way) -> Result<ClearAnswer, AdapterError> {
        let kernel = matches!(self.bus, Bus::Kernel(_));
        self.clearing_begins();
        let queued = match self.send(frame).await {
            // The kernel takes a frame whole, or not at all; of a line to an adapter a part may have gone.
            Err(error) if kernel => {
                self.clearing_is_over();
                tracing::warn!(bus = self.name, %error, "codes not cleared");
                return Ok(ClearAnswer::without_answer(Delivery::NotSent, "not sent: the bus is not usable"));
            }
            queued => queued?,
        };
        let mut clearing = Clearing::default();
        let heard = match queued {
            true => self.hear_clearing(frame, way, &mut clearing).await,
            false => Ok(()),
        };
        if clearing.left {
            self.clearing_is_over();
        }
        heard?;
        if clearing.left {
            return Ok(ClearAnswer::sort(&clearing.assembled, way, None));
        }
        if !queued && kernel {
            // Its queue was full of what nobody acknowledges.
            self.clearing_is_over();
            return Ok(ClearAnswer::without_answer(Delivery::NotSent, "not sent: nobody acknowledges"));
        }
        let withdrawn = self.withdraw(frame, way, &mut clearing).await;
        if clearing.left || withdrawn.is_ok() {
            self.clearing_is_over();
        }
        if clearing.left {
            return Ok(ClearAnswer::sort(&clearing.assembled, way, Some("it left while it was withdrawn")));
        }
        Ok(match withdrawn {
            Ok(()) => {
                ClearAnswer::without_answer(Delivery::NotSent, "nobody acknowledged it; it was withdrawn")
            }
            Err(error) => {
                tracing::error!(bus = self.name, %error, "a clearing that nobody acknowledged could not be withdrawn");
                ClearAnswer::without_answer(
                    Delivery::Pending,
                    "nobody acknowledged it; it may still wait in the controller",
                )
            }
        })
    }

    /// Until every unit known has said its last word, or the time is over, or the frame has
    /// not left in time.
    async fn hear_clearing(
        &mut self,
        sent: &Frame,
        way: Way,
        clearing: &mut Clearing,
    ) -> Result<(), AdapterError> {
        let begun = Instant::now();
        let mut until = begun + LEAVES_WITHIN;
        loop {
            let had_left = clearing.left;
            match timeout_at(until, self.bus.hear()).await {
                Ok(heard) => {
                    let heard = heard?;
                    self.count(heard)?;
                    if let Heard::Frame(frame) = heard {
                        self.take_clearing(&frame, sent, way, clearing);
                    }
                }
                Err(_) => {
                    // An slcan adapter echoes nothing: no error flag is all it has to say.
                    let silent = clearing.left || matches!(self.bus, Bus::Kernel(_));
                    if silent || self.flagged().await? {
                        return Ok(());
                    }
                    clearing.left = true;
                }
            }
            if clearing.left && !had_left {
                until = begun + CLEAR_LIMIT;
            }
            let Clearing { done, waiting, .. } = &*clearing;
            if !done.is_empty() && waiting.is_empty() && self.known.is_subset(done) {
                // Whoever was never heard before may answer as well.
                until = until.min(Instant::now() + ANSWER_WITHIN);
            }
        }
    }

    /// What a frame says of the clearing: it is the echo of what left, or an answer, and whoever
    /// answers has received it.
    fn take_clearing(&mut self, frame: &Frame, sent: &Frame, way: Way, clearing: &mut Clearing) {
        clearing.left |= frame == sent;
        let unit = address::unit_of(frame.id()).filter(|unit| unit.is_extended() == sent.id().is_extended());
        let Some(reply_to) = unit else { return };
        if !self.conversations.listen(frame.id(), reply_to, Form::default(), 0, 0) {
            return;
        }
        for output in self.conversations.on_frame(frame, self.begun.elapsed()) {
            let Output::Event(from, Event::Whole(payload)) = output else { continue };
            if is_last_word(&payload, way) {
                clearing.left = true;
                clearing.waiting.remove(&from);
                clearing.done.insert(from);
            } else if payload.get(..3) == Some(&[0x7F, way.service(), 0x78]) {
                clearing.left = true;
                clearing.waiting.insert(from);
            }
            clearing.assembled.messages.push(Message { sender: EcuAddress(from.to_string()), payload });
        }
    }

    /// Takes back a frame that waits in the controller. What was heard up to then goes into
    /// `clearing`: it may have left meanwhile.
    async fn withdraw(
        &mut self,
        sent: &Frame,
        way: Way,
        clearing: &mut Clearing,
    ) -> Result<(), AdapterError> {
        let rate = self.bitrate;
        let frames = match &mut self.bus {
            Bus::Slcan(slcan) => {
                slcan.leave().await?;
                slcan.take_waiting()
            }
            Bus::Kernel(socket) => {
                let name = socket.interface().to_owned();
                let Some(rate) = interface::state(&name)?.bitrate else {
                    return Err(AdapterError::Gone(format!(
                        "{name} tells no bit rate to set it up with again"
                    )));
                };
                interface::set_up(&name, rate, false).await?;
                // What the old socket still holds, up to the interface's going down.
                let frames = frames_left(|| socket.heard());
                self.bus = Bus::Kernel(CanSocket::open(&name)?);
                frames
            }
        };
        for frame in frames {
            self.take_clearing(&frame, sent, way, clearing);
        }
        if let Bus::Slcan(slcan) = &mut self.bus {
            slcan.join(rate.unwrap_or(RATES[0]), Join::Ask).await?;
        }
        Ok(())
    }
}

/// The frames that a socket still holds. That its interface went down is told before them, once.
fn frames_left<E>(mut heard: impl FnMut() -> Result<Option<Heard>, E>) -> Vec<Frame> {
    let (mut frames, mut errors) = (Vec::new(), 0);
    loop {
        match heard() {
            Ok(Some(Heard::Frame(frame))) => frames.push(frame),
            Ok(Some(_)) => {}
            Err(_) if errors == 0 => errors += 1,
            Ok(None) | Err(_) => return frames,
        }
    }
}

fn is_last_word(payload: &[u8], way: Way) -> bool {
    match payload {
        [0x7F, service, code, ..] => *service == way.service() && *code != 0x78,
        [answered, ..] => *answered == way.service() | 0x40,
        [] => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An interface that was taken down: ENETDOWN first, then what came before.
    #[test]
    fn what_came_before_the_interface_went_down_is_heard() {
        let frame = Frame::new(Id::standard(0x7DF), &[1, 4, 0, 0, 0, 0, 0, 0], false).unwrap();
        for (name, told, left) in [
            ("down", vec![Err(()), Ok(Some(Heard::Other)), Ok(Some(Heard::Frame(frame))), Ok(None)], 1),
            ("up", vec![Ok(Some(Heard::Frame(frame))), Ok(None)], 1),
            ("nothing", vec![Err(()), Ok(None)], 0),
            ("gone", vec![Err(()), Err(())], 0),
        ] {
            let mut told = told.into_iter();
            assert_eq!(frames_left(|| told.next().unwrap()).len(), left, "{name}");
        }
    }
}
