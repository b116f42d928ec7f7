//! A simulated ELM327 adapter with a car behind it, over a pseudo-terminal or TCP.
//! Written from the public datasheet and standards; shares nothing with the driver. The
//! same car straight on a CAN bus: [`BusSim`], [`SlcanSim`].
//!
//! Bytes → [`elm`] (AT commands, printing) → [`request`] (protocol search, flow control,
//! faults) → [`car`] (addresses, framing) → [`ecu`] (services).

mod adapter;
mod bus;
mod car;
mod checksum;
mod ecu;
mod elm;
mod fault;
mod format;
mod isotp;
mod older;
mod replay;
mod request;
mod script;
mod settings;
mod signals;
mod slcan;
mod spec;
mod stage;
mod tape;
mod task;
mod truck;
mod uds;
mod units;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::Notify;

pub use adapter::{Adapter, Multi};
pub use bus::BusSim;
pub use car::{Car, Frame};
pub use fault::Fault;
pub use replay::{Recording, ReplaySim};
pub use script::Script;
pub use slcan::{SlcanFault, SlcanProfile, SlcanSim};
pub use spec::{CarSpec, Drive, Dtc, Engine, MakersUnit, Monitor, SpecError, healthy_monitors};
pub use stage::{Place, Stage};
pub use tape::Tape;
pub use truck::{Truck, TruckUnit};

use crate::sim::presence::Presence;
use crate::sim::transport::Address;
use task::{Player, World, lock};

/// An adapter and what it is plugged into.
#[derive(Debug, Clone, Default)]
pub struct Profile {
    /// The adapter's behaviour.
    pub adapter: Adapter,
    /// The car; none: the adapter lies on the desk.
    pub car: Option<CarSpec>,
}

/// Control of a running simulated vehicle. Dropping it stops the simulator.
#[derive(Debug)]
pub struct VehicleSim {
    world: Arc<Mutex<World>>,
    wake: Arc<Notify>,
    presence: Presence,
}

impl VehicleSim {
    /// Starts on a pseudo-terminal; `link` points at it while it is there.
    ///
    /// # Errors
    /// No terminal to be had, the link's place is taken, or the car is not right.
    pub async fn spawn_pty(profile: Profile, link: Option<PathBuf>) -> io::Result<Self> {
        Self::spawn(profile, Address::Pty { link }).await
    }

    /// Starts on a TCP listener; port 0 lets the system choose.
    ///
    /// # Errors
    /// The address is taken, or the car is not right.
    pub async fn spawn_tcp(address: SocketAddr, profile: Profile) -> io::Result<Self> {
        Self::spawn(profile, Address::Tcp(address)).await
    }

    async fn spawn(profile: Profile, address: Address) -> io::Result<Self> {
        let car = profile.car.as_ref().map(behind_a_dongle).transpose().map_err(io::Error::other)?;
        let elm = elm::Elm::new(profile.adapter);
        let world = Arc::new(Mutex::new(World { elm, car, unasked: Vec::new() }));
        let wake = Arc::new(Notify::new());
        let player = Player { world: Arc::clone(&world), wake: Arc::clone(&wake) };
        Ok(Self { world, wake, presence: Presence::begin(player, address).await? })
    }

    /// The path a client opens: the link where there is one.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        PathBuf::from(self.name())
    }

    /// The address a client connects to, on TCP.
    #[must_use]
    pub fn addr(&self) -> Option<SocketAddr> {
        self.name().parse().ok()
    }

    /// Path or `host:port`.
    #[must_use]
    pub fn name(&self) -> String {
        self.presence.name()
    }

    /// Plugs the adapter into a car.
    ///
    /// # Errors
    /// [`SpecError`] naming what is wrong with the car.
    pub fn plug(&self, car: &CarSpec) -> Result<(), SpecError> {
        let car = behind_a_dongle(car)?;
        let mut world = lock(&self.world);
        world.car = Some(car);
        Ok(())
    }

    /// Pulls the adapter out of the car.
    pub fn unplug(&self) {
        lock(&self.world).car = None;
    }

    /// Another car, without anybody seeing the adapter unplugged. The same as [`Self::plug`].
    ///
    /// # Errors
    /// [`SpecError`] naming what is wrong with the car.
    pub fn swap(&self, car: &CarSpec) -> Result<(), SpecError> {
        self.plug(car)
    }

    /// Turns the key: on is a running engine.
    pub fn ignition(&self, on: bool) {
        self.engine(if on { Engine::Running } else { Engine::Off });
    }

    /// Turns the key to a position.
    pub fn engine(&self, engine: Engine) {
        if let Some(car) = &mut lock(&self.world).car {
            car.turn(engine);
        }
    }

    /// Sets the battery's voltage; nothing: by the engine's state.
    pub fn battery(&self, volts: Option<f64>) {
        if let Some(car) = &mut lock(&self.world).car {
            car.battery(volts);
        }
    }

    /// Holds a live signal at a value (`rpm`, `coolant`, …).
    ///
    /// # Errors
    /// [`SpecError::Signal`] listing the names that exist.
    pub fn set(&self, signal: &str, value: f64) -> Result<(), SpecError> {
        match &mut lock(&self.world).car {
            Some(car) => car.set(signal, value),
            None => Ok(()),
        }
    }

    /// Lets a live signal go slowly to a value, as a sensor that ages.
    ///
    /// # Errors
    /// [`SpecError::Signal`] listing the names that exist.
    pub fn drift(&self, signal: &str, to: f64, over: Duration) -> Result<(), SpecError> {
        match &mut lock(&self.world).car {
            Some(car) => car.drift(signal, to, over),
            None => Ok(()),
        }
    }

    /// Another adapter stands at the same place, freshly powered; the line there is as it was.
    pub fn replace_adapter(&self, adapter: Adapter) {
        let elm = &mut lock(&self.world).elm;
        let line_ms = elm.adapter.line_ms.max(adapter.line_ms);
        *elm = elm::Elm::new(Adapter { line_ms, ..adapter });
    }

    /// Lets something go wrong.
    pub fn fault(&self, fault: Fault) {
        let mut world = lock(&self.world);
        if fault == Fault::BrownOut {
            world.unasked = world.elm.brown_out();
            self.wake.notify_one();
        } else {
            world.elm.add(fault);
        }
    }

    /// Request payloads that reached the car, oldest first: for tests of what must never be sent.
    #[must_use]
    pub fn requests(&self) -> Vec<Vec<u8>> {
        lock(&self.world).car.as_ref().map(|car| car.seen().to_vec()).unwrap_or_default()
    }

    /// Takes the transport away: the cable is pulled. Returns when it is gone.
    pub async fn vanish(&mut self) {
        self.presence.vanish().await;
    }

    /// Brings the transport back. Returns when it is there.
    pub async fn return_(&mut self) {
        self.presence.come_back().await;
    }

    /// Stops and takes the transport away.
    pub async fn stop(self) {
        self.presence.end().await;
    }
}

fn behind_a_dongle(spec: &CarSpec) -> Result<Car, SpecError> {
    if spec.truck.is_some() { Err(SpecError::Truck) } else { Car::new(spec) }
}
