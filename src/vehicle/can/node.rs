//! A tester on the bus: first it listens ([`join`]), then it asks ([`exchange`]). What lives
//! here: what is known of the bus and its car, and what the bus suffered meanwhile. What does
//! not: frames of messages ([`super::isotp`]), and which questions are asked (above).
//!
//! The only bytes sent are those of a gated request in one frame, of a confirmed clearing
//! ([`clearing`]), of a J1939 group that may be asked for ([`groups`]), and flow control.

mod asking;
mod clearing;
mod exchange;
mod groups;
mod join;
mod rest;
pub(in crate::vehicle) mod stays;

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::Instant;

use super::address::{self, Width};
use super::bus::Bus;
use super::isotp::Conversations;
use super::tally::Tally;
use super::trace::FrameTrace;
use crate::link::can::{BusTrouble, Frame, Heard, Id, interface};
use crate::vehicle::adapter::Identity;
use crate::vehicle::batch::MOST_PIDS;
use crate::vehicle::error::AdapterError;
use crate::vehicle::polling::Traffic;
use crate::vehicle::protocol::Protocol;
pub use groups::Groups;
use join::RATES;
pub(super) use join::{FLAGS_WITHIN, LISTEN};

/// P2 on CAN is 50 ms (ISO 15765-4); gateways, slow adapters and a busy box take their share.
const ANSWER_WITHIN: Duration = Duration::from_millis(250);
/// All messages now coming, together: eight units with 4095 bytes each.
const MOST_BYTES: usize = 32 * 1024;
/// Messages of one answer.
const MOST_MESSAGES: usize = 256;
/// Frames that were there before the question are dropped, at most so many: a full bus never ends.
const MOST_STALE: usize = 20_000;

/// Sees every frame of a link as it passes.
pub type Witness = std::sync::Arc<dyn Fn(&Frame) + Send + Sync>;

/// An open way onto a bus.
pub struct Node {
    bus: Bus,
    name: String,
    identity: Identity,
    bitrate: Option<u32>,
    /// The helper may set the interface up: `bitrate=` stands in the link.
    helped: bool,
    /// slcan without `bitrate=`.
    may_try_rates: bool,
    /// Rates that were not tried since the last answer.
    other_rates: Vec<u32>,
    width: Option<Width>,
    /// Who answered so far.
    known: BTreeSet<Id>,
    conversations: Conversations,
    /// Whether this is a truck's bus.
    signs: groups::Signs,
    /// PIDs the car takes in one request.
    car_takes: usize,
    tally: Tally,
    /// Frames the interface had received when it was last looked at.
    received: Option<u64>,
    /// Frames that came while nothing was asked, since the last look (slcan).
    idle_frames: u64,
    /// Whoever else wants to see every frame, ours too.
    witness: Option<Witness>,
    trace: Option<FrameTrace>,
    /// Whether a clearing that nobody acknowledged may still be sent by the controller.
    stays: stays::Stays,
    /// Since when the controller only listens; `None`: it may send.
    rests_since: Option<Instant>,
    begun: Instant,
}

impl Node {
    fn new(bus: Bus, name: &str, identity: String, bitrate: Option<u32>) -> Self {
        Self {
            bus,
            name: name.to_owned(),
            identity: Identity { name: identity, ..Identity::default() },
            bitrate,
            helped: false,
            may_try_rates: false,
            other_rates: Vec::new(),
            width: None,
            known: BTreeSet::new(),
            conversations: Conversations::new(MOST_BYTES),
            signs: groups::Signs::default(),
            car_takes: MOST_PIDS,
            tally: Tally::new(name),
            received: None,
            idle_frames: 0,
            witness: None,
            trace: None,
            stays: stays::Stays::default(),
            rests_since: None,
            begun: Instant::now(),
        }
    }

    /// Adapter and interface.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// ID length and bit rate, once a unit answered. ISO 15765-4 knows two rates, and no other
    /// is asked at; a bus without one (vcan) counts as the faster.
    #[must_use]
    pub fn protocol(&self) -> Option<Protocol> {
        if self.signs.settled {
            return Some(Protocol::J1939);
        }
        let slow = self.bitrate == Some(250_000);
        Some(match (self.width?, slow) {
            (Width::Eleven, false) => Protocol::Can11At500,
            (Width::TwentyNine, false) => Protocol::Can29At500,
            (Width::Eleven, true) => Protocol::Can11At250,
            (Width::TwentyNine, true) => Protocol::Can29At250,
        })
    }

    /// How many PIDs one request may hold, with this car.
    #[must_use]
    pub fn most_pids(&self) -> usize {
        self.car_takes
    }

    /// The car at hand takes only so many PIDs in one request.
    pub fn limit_pids(&mut self, most: usize) {
        self.car_takes = most.clamp(1, self.car_takes);
    }

    /// What the bus or this box suffered lately, as code and words for `device.state`.
    #[must_use]
    pub fn limitation(&self) -> Option<(&'static str, String)> {
        self.clearing_words().or_else(|| self.tally.limitation(self.begun.elapsed()))
    }

    /// Shows every frame from now on, ours too, to `witness`.
    pub fn set_witness(&mut self, witness: Witness) {
        self.witness = Some(witness);
    }

    /// Hears an slcan adapter while nothing is asked: its frames wait in no socket of the kernel.
    /// Never ends but by an error. Safe to cancel.
    pub async fn idle(&mut self) -> AdapterError {
        if matches!(self.bus, Bus::Kernel(_)) {
            return std::future::pending().await;
        }
        loop {
            let heard = match self.bus.hear().await {
                Ok(heard) => heard,
                Err(error) => return error,
            };
            self.idle_frames += u64::from(!matches!(heard, Heard::Trouble(_)));
            if let Err(error) = self.count(heard) {
                return error;
            }
        }
    }

    /// Sends a frame. False: it did not leave.
    async fn send(&mut self, frame: &Frame) -> Result<bool, AdapterError> {
        let sent = self.bus.send(frame).await?;
        if let Some(trace) = self.trace.as_mut().filter(|_| sent) {
            trace.sent(frame);
        }
        if let Some(witness) = self.witness.as_ref().filter(|_| sent) {
            witness(frame);
        }
        Ok(sent)
    }

    /// Requests go out as CAN FD frames only where the bus has nothing else: what answers in
    /// FD is understood in any case.
    fn asks_in_fd(&self) -> bool {
        self.tally.talks_fd_only()
    }

    /// The bus began to talk since the last call, after it had been silent: a car woke or came.
    pub fn stirred(&mut self) -> bool {
        let before = self.received;
        let more = self.look_at_counter().zip(before).map_or(0, |(now, before)| now.saturating_sub(before));
        if more > 0 {
            self.tally.stir(self.begun.elapsed());
        }
        self.tally.unasked(more, self.begun.elapsed());
        self.tally.stirred()
    }

    /// What the bus says without being asked, as of the last [`Self::stirred`] or [`Self::check`].
    #[must_use]
    pub fn traffic(&self) -> Traffic {
        self.tally.traffic(self.begun.elapsed())
    }

    fn look_at_counter(&mut self) -> Option<u64> {
        if let Bus::Kernel(socket) = &self.bus {
            self.received = interface::received(socket.interface());
        }
        self.received
    }

    /// Hears what the bus had to say since the last question.
    ///
    /// # Errors
    /// [`AdapterError`] when the bus is no longer usable.
    pub async fn check(&mut self) -> Result<(), AdapterError> {
        self.look_for_clearing();
        self.bus.check().await?;
        let drained = self.drain().await? + std::mem::take(&mut self.idle_frames);
        self.bus.still_joined()?;
        match &self.bus {
            // Over the kernel the filters let only answers come so far; its counter tells.
            Bus::Kernel(_) if self.tally.is_nonsense() => Err(self.leave_wrong_rate().await),
            Bus::Kernel(_) => Ok(()),
            // It keeps its error flag from the last question that nobody acknowledged: no sign of a wrong rate.
            Bus::Slcan(_) => {
                self.tally.unasked(drained, self.begun.elapsed());
                self.follow_rate().await
            }
        }
    }

    /// Before a scan: the car may be another one than before. Where nobody answers in the form that is
    /// known, the scan forgets that, too ([`Self::forget`]).
    pub fn doubt(&mut self) {
        self.doubt_j1939();
        // One of the units known before may be all that a question was waited for.
        self.known.clear();
        self.car_takes = MOST_PIDS;
    }

    /// After the bus fell silent: the next question searches anew.
    pub fn forget(&mut self) {
        self.tally.fell_silent();
        self.width = None;
        self.signs = groups::Signs::default();
        self.car_takes = MOST_PIDS;
        self.tally.forget_form();
        self.known.clear();
        self.conversations.clear();
        self.bus.pass(&address::answers());
        if self.may_try_rates {
            self.other_rates = RATES.into_iter().filter(|rate| Some(*rate) != self.bitrate).collect();
        }
    }

    /// Counts what was heard; some things end the link.
    fn count(&mut self, heard: Heard) -> Result<(), AdapterError> {
        let now = self.begun.elapsed();
        match heard {
            Heard::Frame(frame) => {
                self.signs.frame(&frame);
                self.tally.frame(now);
                self.tally.form(frame.is_fd());
                if let Some(trace) = &mut self.trace {
                    trace.heard(&frame);
                }
                if let Some(witness) = &self.witness {
                    witness(&frame);
                }
            }
            Heard::Other => self.tally.frame(now),
            Heard::Trouble(trouble) => {
                self.tally.trouble(trouble, now);
                if let BusTrouble { bus_off: true, restarted: false, .. } = trouble {
                    return Err(AdapterError::BusOff(self.name.clone()));
                }
            }
        }
        self.tally.dropped(self.bus.dropped(), now);
        self.tally.garbled(self.bus.garbled());
        Ok(())
    }

    /// What lies there belongs to no question; how many frames it were.
    async fn drain(&mut self) -> Result<u64, AdapterError> {
        let mut frames = 0;
        for _ in 0..MOST_STALE {
            let Some(heard) = self.bus.heard().await? else { break };
            frames += u64::from(!matches!(heard, Heard::Trouble(_)));
            self.count(heard)?;
        }
        Ok(frames)
    }
}
