//! An ear on the bus for `poll = "listen-only"`: nothing is sent, and that is proven at
//! the controller before the bus is opened. Over the kernel the mode is read back from
//! the driver; an slcan adapter must confirm `L`. What is heard is shown to a witness, and tells
//! which kind of bus it is.

use super::address::Width;
use super::bus::{Bus, Join, Slcan};
use super::node::Witness;
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
    identity: String,
    bitrate: Option<u32>,
    /// Of the frames heard last.
    width: Option<Width>,
    speaks_j1939: bool,
    witness: Option<Witness>,
    tally: Tally,
    begun: tokio::time::Instant,
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
                // Whether it is one that tells them.
                slcan.ask_flags().await?;
                let identity = slcan.name.clone();
                (Bus::Slcan(Box::new(slcan)), transport.to_string(), identity, Some(rate))
            }
            VehicleLink::Elm327(_) => {
                return Err(AdapterError::NotListenOnly("an ELM327 is listened to elsewhere".into()));
            }
        };
        Ok(Self {
            bus,
            identity,
            bitrate,
            width: None,
            speaks_j1939: false,
            witness: None,
            tally: Tally::new(&name),
            begun: tokio::time::Instant::now(),
        })
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
            let now = self.begun.elapsed();
            match what {
                Heard::Trouble(trouble) => {
                    self.tally.trouble(trouble, now);
                    if let BusTrouble { bus_off: true, restarted: false, .. } = trouble {
                        return Err(AdapterError::BusOff("the bus".into()));
                    }
                }
                Heard::Frame(frame) => {
                    frames += 1;
                    self.tally.frame(now);
                    self.frame(&frame);
                }
                Heard::Other => {
                    frames += 1;
                    self.tally.frame(now);
                }
            }
            self.tally.dropped(self.bus.dropped(), now);
            self.tally.garbled(self.bus.garbled());
            heard = self.bus.heard().await?;
        }
        Ok(frames)
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
