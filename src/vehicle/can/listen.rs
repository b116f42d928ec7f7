//! An ear on the bus for `poll = "listen-only"`: nothing is sent, and that is proven at
//! the controller before the bus is opened. Over the kernel the mode is read back from
//! the driver; an slcan adapter must confirm `L`.

use super::bus::{Bus, Join, Slcan};
use super::tally::Tally;
use crate::config::values::VehicleLink;
use crate::link::can::{BusTrouble, CanSocket, Heard, InterfaceError, interface};
use crate::vehicle::error::AdapterError;

/// Frames heard at a time before the listener looks at other things.
const A_BREATH: usize = 1000;

/// A way onto a bus that cannot send.
pub struct Ear {
    bus: Bus,
    tally: Tally,
    begun: tokio::time::Instant,
}

impl Ear {
    /// Opens the link, once it is proven that nothing will be sent.
    ///
    /// # Errors
    /// [`AdapterError::NotListenOnly`] when it cannot be proven, and what opening says.
    pub async fn open(link: &VehicleLink) -> Result<Self, AdapterError> {
        let (bus, name) = match link {
            VehicleLink::Can { interface, bitrate } => {
                prove(interface, *bitrate).await?;
                (Bus::Kernel(CanSocket::open(interface)?), interface.clone())
            }
            VehicleLink::Slcan { transport, bitrate } => {
                let mut slcan = Slcan::open(transport).await?;
                let rate = bitrate
                    .ok_or_else(|| AdapterError::NotSlcan("listening needs bitrate= in the link".into()))?;
                slcan.join(rate, Join::ProvenSilent).await?;
                (Bus::Slcan(Box::new(slcan)), transport.to_string())
            }
            VehicleLink::Elm327(_) => {
                return Err(AdapterError::NotListenOnly("an ELM327 is listened to elsewhere".into()));
            }
        };
        Ok(Self { bus, tally: Tally::new(&name), begun: tokio::time::Instant::now() })
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
                Heard::Frame(_) | Heard::Other => {
                    frames += 1;
                    self.tally.frame(now);
                }
            }
            self.tally.dropped(self.bus.dropped(), now);
            heard = self.bus.heard().await?;
        }
        Ok(frames)
    }

    /// What the bus or this box suffered lately.
    #[must_use]
    pub fn limitation(&self) -> Option<(&'static str, String)> {
        self.tally.limitation(self.begun.elapsed())
    }
}

/// The driver says that the controller only listens, else it is set up so and asked again.
async fn prove(name: &str, bitrate: Option<u32>) -> Result<(), AdapterError> {
    let state = interface::state(name)?;
    let right = |state: interface::State| {
        state.up && state.listen_only && bitrate.is_none_or(|wanted| state.bitrate == Some(wanted))
    };
    if right(state) {
        return Ok(());
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
        Ok(())
    } else {
        Err(AdapterError::NotListenOnly(format!("the driver of {name} does not report the mode")))
    }
}
