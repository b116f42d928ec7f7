//! An ear on the bus for `poll = "listen-only"`: nothing is sent, and that is proven at
//! the controller before the bus is opened. Over the kernel the mode is read back from
//! the driver; an slcan adapter must confirm `L`. What is heard is shown to a witness, and tells
//! which kind of bus it is.

use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::address::Width;
use super::bus::{Bus, Join, Slcan};
use super::node::{FLAGS_WITHIN, LISTEN, Witness};
use super::tally::Tally;
use crate::config::values::VehicleLink;
use crate::link::can::{BusTrouble, CanSocket, Frame, Heard, InterfaceError, interface};
use crate::vehicle::error::AdapterError;
use crate::vehicle::j1939::listener::is_broadcast;
use crate::vehicle::protocol::Protocol;

/// Frames heard at a time before the listener looks at other things.
const A_BREATH: usize = 1000;

/// A way onto a bus that cannot send.
pub struct Ear {
    bus: Bus,
    name: String,
    identity: String,
    bitrate: Option<u32>,
    /// Of the frames heard last.
    width: Option<Width>,
    speaks_j1939: bool,
    witness: Option<Witness>,
    tally: Tally,
    begun: Instant,
}

impl Ear {
    /// Opens the link, once it is proven that nothing will be sent.
    ///
    /// # Errors
    /// [`AdapterError::NotListenOnly`] when it cannot be proven, and what opening says.
    pub async fn open(link: &VehicleLink) -> Result<Self, AdapterError> {
        let (bus, name, identity, bitrate) = match link {
            VehicleLink::Can { interface, bitrate } => {
                let rate = prove(interface, *bitrate).await?;
                let bus = Bus::Kernel(CanSocket::open(interface)?);
                (bus, interface.clone(), format!("SocketCAN {interface}"), rate)
            }
            VehicleLink::Slcan { transport, bitrate } => {
                let mut slcan = Slcan::open(transport).await?;
                let rate = bitrate
                    .ok_or_else(|| AdapterError::NotSlcan("listening needs bitrate= in the link".into()))?;
                slcan.join(rate, Join::ProvenSilent).await?;
                let identity = slcan.name.clone();
                (Bus::Slcan(Box::new(slcan)), transport.to_string(), identity, Some(rate))
            }
            VehicleLink::Elm327(_) => {
                return Err(AdapterError::NotListenOnly("an ELM327 is listened to elsewhere".into()));
            }
        };
        let mut ear = Self {
            bus,
            identity,
            bitrate,
            width: None,
            speaks_j1939: false,
            witness: None,
            tally: Tally::new(&name),
            begun: Instant::now(),
            name,
        };
        ear.first_sound().await?;
        Ok(ear)
    }

    /// Whether there are only errors at first: then the rate is wrong.
    async fn first_sound(&mut self) -> Result<(), AdapterError> {
        // What the adapter remembers of before it joined is told now, and gone.
        self.bus.check().await?;
        self.hear_for(FLAGS_WITHIN, Bus::told_flags).await?;
        self.tally.begin_question();
        self.hear_for(LISTEN, |_| false).await?;
        self.bus.check().await?;
        self.hear_for(FLAGS_WITHIN, Bus::told_flags).await?;
        // It tells by one flag what the kernel tells by a frame each.
        if matches!(self.bus, Bus::Slcan(_)) && self.tally.is_flagged() {
            return Err(self.leave_wrong_rate().await);
        }
        Ok(())
    }

    async fn hear_for(&mut self, time: Duration, is_over: impl Fn(&Bus) -> bool) -> Result<(), AdapterError> {
        let until = Instant::now() + time;
        while Instant::now() < until
            && !is_over(&self.bus)
            && let Ok(heard) = timeout_at(until, self.bus.hear()).await
        {
            self.take(heard?).await?;
        }
        Ok(())
    }

    /// Only errors: nothing is to be heard here. An interface stays in its mode, in which it disturbs nothing.
    async fn leave_wrong_rate(&mut self) -> AdapterError {
        if let Bus::Slcan(slcan) = &mut self.bus
            && let Err(error) = slcan.leave().await
        {
            tracing::debug!(%error, "slcan adapter not told to leave the bus");
        }
        let tried = self.bitrate.map_or_else(|| "?".to_owned(), |rate| rate.to_string());
        AdapterError::WrongBitRate { bus: self.name.clone(), tried }
    }

    /// Shows every frame from now on to `witness`.
    pub fn set_witness(&mut self, witness: Witness) {
        self.witness = Some(witness);
    }

    /// Adapter or interface.
    #[must_use]
    pub fn identity(&self) -> &str {
        &self.identity
    }

    /// The bus by what was heard: the contract's name (§5) at the rates that it knows. Another
    /// rate has none there: `can-11bit-125k`, in the same manner.
    #[must_use]
    pub fn protocol(&self) -> String {
        if self.speaks_j1939 {
            return Protocol::J1939.name().into();
        }
        let width = self.width.unwrap_or(Width::Eleven);
        match (self.bitrate, width) {
            (None | Some(500_000), width) => width.protocol().name().into(),
            (Some(250_000), Width::Eleven) => Protocol::Can11At250.name().into(),
            (Some(250_000), Width::TwentyNine) => Protocol::Can29At250.name().into(),
            (Some(rate), width) => {
                let bits = if width == Width::Eleven { 11 } else { 29 };
                format!("can-{bits}bit-{}k", rate / 1000)
            }
        }
    }

    /// A look in which the bus talked is over: errors are counted from its last frame on.
    pub fn proven(&mut self) {
        self.tally.begin_question();
    }

    /// The bus fell silent: the next car may speak something else.
    pub fn forget(&mut self) {
        (self.width, self.speaks_j1939) = (None, false);
    }

    fn frame(&mut self, frame: &Frame) {
        let id = frame.id();
        self.width = Some(if id.is_extended() { Width::TwentyNine } else { Width::Eleven });
        self.speaks_j1939 |= id.is_extended() && is_broadcast(id.number());
        if let Some(witness) = &self.witness {
            witness(frame);
        }
    }

    /// Waits for frames; how many came. Safe to cancel.
    ///
    /// # Errors
    /// [`AdapterError`] when the bus is no longer usable.
    pub async fn hear(&mut self) -> Result<usize, AdapterError> {
        let mut heard = Some(self.bus.hear().await?);
        let mut frames = 0;
        while let Some(what) = heard.filter(|_| frames < A_BREATH) {
            frames += usize::from(!matches!(what, Heard::Trouble(_)));
            self.take(what).await?;
            heard = self.bus.heard().await?;
        }
        Ok(frames)
    }

    async fn take(&mut self, heard: Heard) -> Result<(), AdapterError> {
        let now = self.begun.elapsed();
        match heard {
            Heard::Trouble(trouble) => {
                self.tally.trouble(trouble, now);
                if let BusTrouble { bus_off: true, restarted: false, .. } = trouble {
                    return Err(AdapterError::BusOff(self.name.clone()));
                }
                if self.tally.is_nonsense() {
                    return Err(self.leave_wrong_rate().await);
                }
            }
            Heard::Frame(frame) => {
                self.tally.frame(now);
                self.frame(&frame);
            }
            Heard::Other => self.tally.frame(now),
        }
        self.tally.dropped(self.bus.dropped(), now);
        self.tally.garbled(self.bus.garbled());
        Ok(())
    }

    /// After a silence: whether an slcan adapter still listens, which only it can tell. Its flags are
    /// asked for, and nothing is sent to the bus.
    ///
    /// # Errors
    /// [`AdapterError::Unjoined`] when it does not.
    pub async fn check(&mut self) -> Result<(), AdapterError> {
        self.bus.still_joined()?;
        self.bus.check().await
    }

    /// What the bus or this box suffered lately.
    #[must_use]
    pub fn limitation(&self) -> Option<(&'static str, String)> {
        self.tally.limitation(self.begun.elapsed())
    }
}

/// The driver says that the controller only listens, else it is set up so and asked again; at
/// which rate it listens.
async fn prove(name: &str, bitrate: Option<u32>) -> Result<Option<u32>, AdapterError> {
    let state = interface::state(name)?;
    let right = |state: interface::State| {
        state.up && state.listen_only && bitrate.is_none_or(|wanted| state.bitrate == Some(wanted))
    };
    if right(state) {
        return Ok(state.bitrate);
    }
    let Some(bitrate) = bitrate else {
        return Err(AdapterError::NotListenOnly(format!(
            "{name} is not in listen-only mode; write bitrate= into the link, or set it up by hand: ip link set {name} up type can bitrate 500000 listen-only on"
        )));
    };
    if state.up && state.bitrate.is_none() {
        return Err(AdapterError::NotListenOnly(format!("{name} is virtual and has no such mode")));
    }
    interface::set_up(name, bitrate, true).await?;
    if right(interface::state(name).map_err(|error: InterfaceError| AdapterError::from(error))?) {
        Ok(Some(bitrate))
    } else {
        Err(AdapterError::NotListenOnly(format!("the driver of {name} does not report the mode")))
    }
}
