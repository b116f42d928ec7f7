//! A bus that speaks J1939 and no OBD: what its units broadcast is heard, and two groups that
//! they tell only when asked are asked for, once a scan. What lives here: how such a bus is
//! noticed, for how long it is listened to, and that nothing is sent while another tool is on
//! it. What does not: what the messages say (`vehicle::j1939`).

use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::Node;
use crate::link::can::{Frame, Heard, Id};
use crate::vehicle::can::address;
use crate::vehicle::error::AdapterError;
use crate::vehicle::gate::group::{GroupRequest, TOOL};
use crate::vehicle::j1939::{Broken, Listener, Told, listener};
use crate::vehicle::obd::VinReading;

/// Of the groups that show J1939, each comes at least so often (SAE J1939-71, J1939-73: 1 s).
const SHOWN_WITHIN: Duration = Duration::from_millis(1200);
/// Every unit with an active code has told it twice by then (J1939-73 §5.7.1: once a second).
const BROADCASTS_WITHIN: Duration = Duration::from_millis(2200);
/// A request is answered within 200 ms (J1939-21 §5.12.3, Tr), behind what the unit has to send before.
const ANSWERS_WITHIN: Duration = Duration::from_millis(800);
/// A long message that has begun may end so much later: packets are 50 to 200 ms apart.
const LONG_MESSAGES: Duration = Duration::from_secs(4);

/// What a J1939 bus told in a scan.
pub struct Groups {
    /// By its units.
    pub told: Told,
    /// Requests that were not sent.
    pub unsent: Vec<GroupRequest>,
    /// Messages of several packets of which some were lost.
    pub broken: Vec<Broken>,
}

/// What shows that the bus speaks J1939.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Signs {
    /// The address of a unit that broadcast lately, since this was last looked at.
    pub(super) heard: Option<u8>,
    /// It was found to be so; the car is asked nothing else until it is gone, or doubted.
    pub(super) settled: bool,
    /// It was found to be so once, and is worth waiting for.
    found: bool,
    /// Another tool with our address was heard.
    other_tool: bool,
}

impl Signs {
    pub(super) fn frame(&mut self, frame: &Frame) {
        // The source address is the low byte (J1939-21 §5.2).
        let [.., source] = frame.id().number().to_be_bytes();
        if frame.id().is_extended() && listener::is_broadcast(frame.id().number()) {
            self.heard = Some(source);
        }
        self.other_tool |= frame.id().is_extended() && source == TOOL;
    }
}

impl Node {
    /// Whether a unit broadcasts what only J1939 has: its address. Sends nothing. To be asked
    /// when nobody answers OBD, for many trucks do, and then tell more.
    ///
    /// # Errors
    /// [`AdapterError`] when the bus is no longer usable.
    pub async fn hears_j1939(&mut self) -> Result<Option<u8>, AdapterError> {
        if self.width.is_some() {
            // It answered OBD before: one silence makes no other bus of it.
            self.signs.heard = None;
            return Ok(None);
        }
        if self.signs.found && self.signs.heard.is_none() {
            self.bus.pass(&address::groups());
            let until = Instant::now() + SHOWN_WITHIN;
            while self.signs.heard.is_none()
                && let Ok(heard) = timeout_at(until, self.bus.hear()).await
            {
                self.count(heard?)?;
            }
        }
        let heard = self.signs.heard.take();
        self.signs.settled = heard.is_some();
        self.signs.found = heard.is_some();
        Ok(heard)
    }

    /// A scan asks OBD once more: units that were silent may have woken since.
    pub fn doubt_j1939(&mut self) {
        self.signs.settled = false;
    }

    /// The vehicle's number, asked for.
    ///
    /// # Errors
    /// [`AdapterError`] when the bus is no longer usable.
    pub async fn vin_by_j1939(&mut self) -> Result<VinReading, AdapterError> {
        let (mut told, mut listener) = (Told::default(), Listener::default());
        self.bus.pass(&address::groups());
        self.ask_group(GroupRequest::VehicleIdentification, &mut told, &mut listener).await?;
        Ok(told.vin())
    }

    /// All that the units tell: what they broadcast, then what they are asked for. Which
    /// requests were not sent and what broke off, for `errors`.
    ///
    /// # Errors
    /// [`AdapterError`] when the bus is no longer usable.
    pub async fn read_j1939(&mut self) -> Result<Groups, AdapterError> {
        let (mut told, mut listener) = (Told::default(), Listener::default());
        self.bus.pass(&address::groups());
        self.drain().await?;
        self.hear_groups(BROADCASTS_WITHIN, &mut told, &mut listener, |_| false).await?;
        let mut unsent = Vec::new();
        for request in GroupRequest::ALL {
            if !self.ask_group(request, &mut told, &mut listener).await? {
                unsent.push(request);
            }
        }
        Ok(Groups { told, unsent, broken: listener.end() })
    }

    /// Asks everybody for a group and hears what comes. False: not sent.
    async fn ask_group(
        &mut self,
        request: GroupRequest,
        told: &mut Told,
        listener: &mut Listener,
    ) -> Result<bool, AdapterError> {
        self.rise().await?;
        self.tally.begin_question();
        // Two tools with one address would spoil each other's talks.
        let alone = !self.signs.other_tool;
        let frame = Frame::new(Id::extended(request.id()), &request.data(), false).filter(|_| alone);
        let sent = match frame {
            Some(frame) => self.send(&frame).await?,
            None => false,
        };
        if sent {
            let enough = |told: &Told| {
                request == GroupRequest::VehicleIdentification && told.vin() != VinReading::Missing
            };
            self.hear_groups(ANSWERS_WITHIN, told, listener, enough).await?;
        }
        Ok(sent)
    }

    /// Listens for `time`, longer while a message is on its way, and no longer than `enough`.
    async fn hear_groups(
        &mut self,
        time: Duration,
        told: &mut Told,
        listener: &mut Listener,
        enough: impl Fn(&Told) -> bool,
    ) -> Result<(), AdapterError> {
        let usual = Instant::now() + time;
        loop {
            let until = if listener.is_waiting() { usual + LONG_MESSAGES } else { usual };
            // A bus that talks always has a frame ready.
            if Instant::now() >= until || enough(told) {
                return Ok(());
            }
            let Ok(heard) = timeout_at(until, self.bus.hear()).await else { return Ok(()) };
            let heard = heard?;
            self.count(heard)?;
            let Heard::Frame(frame) = heard else { continue };
            if !frame.id().is_extended() {
                continue;
            }
            let [.., source] = frame.id().number().to_be_bytes();
            if listener::is_broadcast(frame.id().number()) {
                told.is_there(source);
            }
            if let Some(heard) = listener.take(frame.id().number(), frame.data(), self.begun.elapsed()) {
                told.take(heard);
            }
        }
    }
}
