//! Onto a bus and off it. What lives here: opening a link, listening before the first byte is
//! sent, and the search for the bit rate: a wrong one is known by nothing but errors, and is left
//! at once. What does not: setting an interface up (`link::can`), an slcan adapter's words
//! ([`Slcan`]).

use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::Node;
use crate::config::values::{Transport, VehicleLink};
use crate::link::can::{CanSocket, InterfaceError, interface};
use crate::vehicle::can::address;
use crate::vehicle::can::bus::{Bus, Join, Slcan};
use crate::vehicle::can::trace::FrameTrace;
use crate::vehicle::error::AdapterError;

/// Before the first byte to an unknown bus.
pub(in crate::vehicle::can) const LISTEN: Duration = Duration::from_millis(500);
/// An adapter's answer to `F`.
pub(in crate::vehicle::can) const FLAGS_WITHIN: Duration = Duration::from_millis(100);
/// The bit rates of ISO 15765-4, the more frequent first.
pub(super) const RATES: [u32; 2] = [500_000, 250_000];

/// What listening showed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FirstSound {
    /// Nothing: a sleeping car, or a gateway that only answers.
    Silence,
    Traffic,
    /// Only errors.
    Nonsense,
}

impl Node {
    /// Opens the link and listens before anything is sent. `trace` is shown every frame.
    ///
    /// # Errors
    /// [`AdapterError`] saying what to do.
    pub async fn open(link: &VehicleLink, trace: Option<FrameTrace>) -> Result<Self, AdapterError> {
        match link {
            VehicleLink::Can { interface, bitrate } => Self::open_interface(interface, *bitrate, trace).await,
            VehicleLink::Slcan { transport, bitrate } => Self::open_slcan(transport, *bitrate, trace).await,
            VehicleLink::Elm327(_) => Err(AdapterError::NotSlcan("the link is an ELM327's".into())),
        }
    }

    /// Who an interface says it is, and under which name it is remembered.
    #[must_use]
    pub fn key(interface: &str) -> String {
        format!("SocketCAN {interface}")
    }

    async fn open_interface(
        name: &str,
        bitrate: Option<u32>,
        trace: Option<FrameTrace>,
    ) -> Result<Self, AdapterError> {
        is_of_obd(name, bitrate)?;
        let state = ready_interface(name, bitrate).await?;
        is_of_obd(name, state.bitrate)?;
        let bus = Bus::Kernel(CanSocket::open(name)?);
        let mut node = Self::new(bus, name, Self::key(name), state.bitrate);
        node.trace = trace;
        // What has no rate is virtual: there is nothing to be set up.
        node.helped = bitrate.is_some() && state.bitrate.is_some();
        if node.listen(LISTEN).await? == FirstSound::Nonsense {
            return Err(node.leave_wrong_rate().await);
        }
        if state.listen_only
            && let Some(rate) = bitrate
        {
            node.set_up(rate, false).await?;
        }
        node.bus.pass(&address::answers());
        Ok(node)
    }

    async fn open_slcan(
        transport: &Transport,
        bitrate: Option<u32>,
        trace: Option<FrameTrace>,
    ) -> Result<Self, AdapterError> {
        is_of_obd(&transport.to_string(), bitrate)?;
        let slcan = Slcan::open(transport).await?;
        let identity = slcan.name.clone();
        let mut rates = bitrate.map_or_else(|| RATES.to_vec(), |rate| vec![rate]);
        rates.reverse();
        let first = rates.pop();
        let mut node = Self::new(Bus::Slcan(Box::new(slcan)), &transport.to_string(), identity, first);
        node.trace = trace;
        node.other_rates = rates;
        node.may_try_rates = bitrate.is_none();
        node.settle_rate().await?;
        Ok(node)
    }

    pub(super) async fn listen(&mut self, time: Duration) -> Result<FirstSound, AdapterError> {
        let until = Instant::now() + time;
        self.tally.begin_question();
        self.bus.check().await?;
        while let Ok(heard) = timeout_at(until, self.bus.hear()).await {
            self.count(heard?)?;
            if self.tally.is_nonsense() {
                return Ok(FirstSound::Nonsense);
            }
        }
        let flagged = self.flagged().await?;
        Ok(match (self.tally.frames_in_question(), flagged || self.tally.is_nonsense()) {
            (0, true) => FirstSound::Nonsense,
            (0, false) => FirstSound::Silence,
            _ => FirstSound::Traffic,
        })
    }

    /// An slcan adapter's error flags, which it tells only when asked. False over the kernel,
    /// which tells by itself. One that told them before and no longer does restarted or hangs: it is
    /// not the car that is silent.
    pub(super) async fn flagged(&mut self) -> Result<bool, AdapterError> {
        if matches!(self.bus, Bus::Kernel(_)) {
            return Ok(false);
        }
        self.bus.check().await?;
        let until = Instant::now() + FLAGS_WITHIN;
        while !self.tally.is_flagged()
            && !self.bus.told_flags()
            && let Ok(heard) = timeout_at(until, self.bus.hear()).await
        {
            self.count(heard?)?;
        }
        for heard in self.bus.prove_joined().await? {
            self.count(heard)?;
        }
        Ok(self.tally.is_flagged())
    }

    pub(super) async fn join(&mut self, how: Join) -> Result<(), AdapterError> {
        match &mut self.bus {
            Bus::Slcan(slcan) => slcan.join(self.bitrate.unwrap_or(RATES[0]), how).await,
            Bus::Kernel(_) => Ok(()),
        }
    }

    /// Sends nothing more, not even an acknowledgement or an error flag.
    pub(super) async fn leave(&mut self) {
        match &mut self.bus {
            Bus::Slcan(slcan) => {
                if let Err(error) = slcan.leave().await {
                    tracing::debug!(%error, "slcan adapter not told to leave the bus");
                }
            }
            // Down it would stay unnoticed when the right bus is there again.
            Bus::Kernel(socket) if self.helped => {
                let name = socket.interface().to_owned();
                let silent = interface::state(&name).is_ok_and(|state| state.listen_only);
                if let Some(rate) = self.bitrate.filter(|_| !silent)
                    && let Err(error) = interface::set_up(&name, rate, true).await
                {
                    tracing::warn!(interface = name, %error, "the interface stays on a bus of another bit rate");
                }
            }
            Bus::Kernel(_) => {}
        }
    }

    /// Only errors came: leaves the bus at once.
    pub(super) async fn leave_wrong_rate(&mut self) -> AdapterError {
        self.leave().await;
        self.wrong_rate()
    }

    /// Listens at this rate, and where only errors come at the others. From then on nothing is sent
    /// before the next question ([`Self::rise`]).
    pub(super) async fn settle_rate(&mut self) -> Result<(), AdapterError> {
        loop {
            self.join(Join::Hear).await?;
            if self.listen(LISTEN).await? != FirstSound::Nonsense {
                // It has listened for as long as is needed before a question.
                let now = Instant::now();
                self.rests_since = Some(now.checked_sub(LISTEN).unwrap_or(now));
                return Ok(());
            }
            self.leave().await;
            self.other_rate()?;
        }
    }

    /// Has the helper set the interface up, at another rate or in another mode.
    pub(super) async fn set_up(&mut self, rate: u32, listen_only: bool) -> Result<(), AdapterError> {
        if let Bus::Kernel(socket) = &self.bus {
            let name = socket.interface().to_owned();
            interface::set_up(&name, rate, listen_only).await?;
            // The old one was told that the interface went down.
            self.bus = Bus::Kernel(CanSocket::open(&name)?);
        }
        Ok(())
    }

    pub(super) fn other_rate(&mut self) -> Result<(), AdapterError> {
        let wrong = self.wrong_rate();
        self.bitrate = Some(self.other_rates.pop().ok_or(wrong)?);
        self.tally.begin_question();
        Ok(())
    }

    fn wrong_rate(&self) -> AdapterError {
        let tried = self.bitrate.map_or_else(|| "?".to_owned(), |rate| rate.to_string());
        AdapterError::WrongBitRate { bus: self.name.clone(), tried }
    }
}

/// Only at the two rates of ISO 15765-4 is anything sent; a bus without a rate is virtual.
fn is_of_obd(bus: &str, bitrate: Option<u32>) -> Result<(), AdapterError> {
    match bitrate {
        Some(bitrate) if !RATES.contains(&bitrate) => {
            Err(AdapterError::NotObdRate { bus: bus.to_owned(), bitrate })
        }
        _ => Ok(()),
    }
}

/// An interface that is up at the rate that was asked for, by the helper's hand if need be. What
/// the helper sets up only listens until the rate is proven.
async fn ready_interface(name: &str, bitrate: Option<u32>) -> Result<interface::State, AdapterError> {
    let state = interface::state(name)?;
    let stuck = state.bus_off && !state.restarts;
    let Some(wanted) = bitrate else {
        let what = "it is in listen-only mode and cannot ask; write bitrate= into the link";
        return match state {
            interface::State { up: false, .. } => Err(InterfaceError::Down { name: name.to_owned() }.into()),
            interface::State { listen_only: true, .. } => {
                Err(InterfaceError::Other { name: name.to_owned(), what: what.into() }.into())
            }
            _ if stuck => Err(AdapterError::BusOff(name.to_owned())),
            state => Ok(state),
        };
    };
    // What is up without a rate is virtual, and has none.
    let right = state.up && state.bitrate.is_none_or(|rate| rate == wanted);
    if right && !stuck {
        return Ok(state);
    }
    match interface::set_up(name, wanted, true).await {
        // Some drivers do not know the mode. Most of what listening shows is heard so, too.
        Err(error) if error.cannot_listen() => interface::set_up(name, wanted, false).await?,
        other => other?,
    }
    Ok(interface::state(name)?)
}
