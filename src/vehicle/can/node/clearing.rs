//! Clearing codes on a bus: one frame, sent once. Nothing here repeats, whatever comes
//! back or not. What came of it is read afterwards.
//!
//! A frame that nobody acknowledges stays in the controller, which sends it again and again
//! until somebody does: minutes later that may be the next car. So it is watched for, and
//! withdrawn when it does not leave in time:
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
use crate::link::can::{CanSocket, Frame, Heard, Pass, interface};
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
}

impl Node {
    /// Clears codes. Asks everybody: the request before must have gone to everybody too.
    ///
    /// # Errors
    /// [`AdapterError`]; whether the car cleared is then not known.
    pub async fn clear(&mut self, request: ClearRequest) -> Result<ClearAnswer, AdapterError> {
        let way = request.way();
        self.drain().await?;
        // An adapter's flags of what was before are read, and gone.
        self.flagged().await?;
        self.tally.begin_question();
        self.conversations.clear();
        let unsent = |delivery, why| {
            let answer = ClearAnswer::sort(&Assembled::default(), way, Some(why));
            Ok(ClearAnswer { delivery, ..answer })
        };
        let Some(width) = self.width else {
            return unsent(Delivery::NotSent, "not sent: no unit has answered yet");
        };
        let to = address::request_id(width, Target::Functional);
        let own = Pass { id: to, mask: 0x1FFF_FFFF };
        self.bus.pass(&[address::passes(to, Target::Functional), vec![own]].concat());
        self.bus.hear_own(true);
        let mut sender = Sender::new(Form::default(), request.into_payload().to_vec()).ok();
        let first = sender.as_mut().map(|sender| sender.next(self.begun.elapsed()));
        let Some(frame) = first.and_then(|next| match next {
            Next::Send(data) => Frame::new(to, &data, self.asks_in_fd()),
            _ => None,
        }) else {
            return unsent(Delivery::NotSent, "not sent: it fits no frame");
        };
        let queued = self.send(&frame).await?;
        let mut clearing = Clearing::default();
        if queued {
            self.hear_clearing(&frame, way, &mut clearing).await?;
        }
        self.bus.hear_own(false);
        if clearing.left || !clearing.assembled.messages.is_empty() {
            return Ok(ClearAnswer::sort(&clearing.assembled, way, None));
        }
        if !queued && matches!(self.bus, Bus::Kernel(_)) {
            // The kernel took nothing: its queue was full of what nobody acknowledges.
            return unsent(Delivery::NotSent, "not sent: nobody acknowledges");
        }
        match self.withdraw(&frame).await {
            Ok(true) => {
                Ok(ClearAnswer::sort(&clearing.assembled, way, Some("it left while it was withdrawn")))
            }
            Ok(false) => unsent(Delivery::NotSent, "nobody acknowledged it; it was withdrawn"),
            Err(error) => {
                tracing::error!(bus = self.name, %error, "a clearing that nobody acknowledged could not be withdrawn");
                self.pending_clear = true;
                unsent(Delivery::Pending, "nobody acknowledged it; it may still wait in the controller")
            }
        }
    }

    /// Until every unit known has said its last word, or the time is over, or the frame has
    /// not left in time.
    async fn hear_clearing(
        &mut self,
        sent: &Frame,
        way: Way,
        clearing: &mut Clearing,
    ) -> Result<(), AdapterError> {
        let (mut done, mut waiting) = (BTreeSet::new(), BTreeSet::new());
        let begun = Instant::now();
        let mut until = begun + LEAVES_WITHIN;
        loop {
            let heard = match timeout_at(until, self.bus.hear()).await {
                Ok(heard) => heard?,
                Err(_) => {
                    // An slcan adapter echoes nothing: no error flag is all it has to say.
                    let silent = clearing.left || matches!(self.bus, Bus::Kernel(_));
                    if silent || self.flagged().await? {
                        return Ok(());
                    }
                    clearing.left = true;
                    until = begun + CLEAR_LIMIT;
                    continue;
                }
            };
            self.count(heard)?;
            let Heard::Frame(frame) = heard else { continue };
            if frame == *sent && !clearing.left {
                clearing.left = true;
                until = begun + CLEAR_LIMIT;
            }
            let unit =
                address::unit_of(frame.id()).filter(|unit| unit.is_extended() == sent.id().is_extended());
            let Some(reply_to) = unit else { continue };
            if !self.conversations.listen(frame.id(), reply_to, Form::default(), 0, 0) {
                continue;
            }
            for output in self.conversations.on_frame(&frame, self.begun.elapsed()) {
                let Output::Event(from, Event::Whole(payload)) = output else { continue };
                let last = is_last_word(&payload, way);
                if last {
                    waiting.remove(&from);
                    done.insert(from);
                } else if payload.get(..3) == Some(&[0x7F, way.service(), 0x78]) {
                    waiting.insert(from);
                }
                if !clearing.left && (last || waiting.contains(&from)) {
                    // Whoever answers has received it.
                    clearing.left = true;
                    until = begun + CLEAR_LIMIT;
                }
                clearing.assembled.messages.push(Message { sender: EcuAddress(from.to_string()), payload });
            }
            if !done.is_empty() && waiting.is_empty() && self.known.is_subset(&done) {
                // Whoever was never heard before may answer as well.
                until = until.min(Instant::now() + ANSWER_WITHIN);
            }
        }
    }

    /// Takes back a frame that waits in the controller. True: it left meanwhile.
    async fn withdraw(&mut self, sent: &Frame) -> Result<bool, AdapterError> {
        let rate = self.bitrate;
        match &mut self.bus {
            Bus::Slcan(slcan) => {
                slcan.leave().await?;
                slcan.join(rate.unwrap_or(RATES[0]), Join::Ask).await?;
                Ok(false)
            }
            Bus::Kernel(socket) => {
                let name = socket.interface().to_owned();
                let Some(rate) = interface::state(&name)?.bitrate else {
                    return Err(AdapterError::Gone(format!(
                        "{name} tells no bit rate to set it up with again"
                    )));
                };
                interface::set_up(&name, rate, false).await?;
                let mut left = false;
                // What the old socket still holds, up to the interface's going down.
                while let Ok(Some(heard)) = socket.heard() {
                    left |= heard == Heard::Frame(*sent);
                }
                self.bus = Bus::Kernel(CanSocket::open(&name)?);
                Ok(left)
            }
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
