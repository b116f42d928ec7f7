//! A simulated slcan adapter on a car's bus (Lawicel CAN232 manual): over a
//! pseudo-terminal or TCP. At a wrong bit rate it hears only errors. Shares nothing
//! with the driver.

mod faults;
mod lines;
mod profile;

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::bus::Schedule;
use super::car::Car;
use super::spec::{CarSpec, Engine, SpecError};
use super::tape::Tape;
use super::task::lock_any;
use super::truck::{TICK, Truck};
use super::units::Units;
use crate::sim::presence::{Device, Presence};
use crate::sim::transport::{Address, Endpoint, Input};
use faults::Faults;
pub use faults::SlcanFault;
use lines::{RATES, chatter, parse, print};
pub use profile::SlcanProfile;

/// Frames that a bus with traffic carries, one every so often.
const CHATTER: Duration = TICK;

/// What the handle and the task share.
#[derive(Debug)]
struct World {
    profile: SlcanProfile,
    units: Units,
    /// Of the car that stands there, or stood there last: bits a second. `None`: a recording, which
    /// does not tell.
    bitrate: Option<u32>,
    /// `C`, `L`, `O`.
    mode: Mode,
    rate: Option<u32>,
    line: String,
    bus_error: bool,
    faults: Faults,
    waiting: Schedule,
    /// Every command and how often a frame was sent at a wrong rate, for tests.
    heard: Vec<String>,
    sent_at_wrong_rate: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Closed,
    Listening,
    Open,
}

/// Control of the adapter. Dropping it takes the device away.
#[derive(Debug)]
pub struct SlcanSim {
    world: Arc<Mutex<World>>,
    presence: Presence,
}

impl SlcanSim {
    /// Starts on a pseudo-terminal; `link` points at it while it is there.
    ///
    /// # Errors
    /// No terminal to be had, or the car is not right.
    pub async fn spawn_pty(profile: SlcanProfile, car: &CarSpec, link: Option<PathBuf>) -> io::Result<Self> {
        let units = Units::new(car).map_err(io::Error::other)?;
        Self::spawn(profile, units, Some(car.bitrate()), Address::Pty { link }).await
    }

    /// Starts on a TCP listener.
    ///
    /// # Errors
    /// The address is taken, or the car is not right.
    pub async fn spawn_tcp(address: SocketAddr, profile: SlcanProfile, car: &CarSpec) -> io::Result<Self> {
        let units = Units::new(car).map_err(io::Error::other)?;
        Self::spawn(profile, units, Some(car.bitrate()), Address::Tcp(address)).await
    }

    /// Plays a recorded bus, on a TCP listener or on a pseudo-terminal that `link` points at.
    ///
    /// # Errors
    /// The address is taken, or no terminal to be had.
    pub async fn replay(tape: Tape, address: Option<SocketAddr>, link: Option<PathBuf>) -> io::Result<Self> {
        let address = address.map_or(Address::Pty { link }, Address::Tcp);
        Self::spawn(SlcanProfile::default(), Units::of(tape), None, address).await
    }

    async fn spawn(
        profile: SlcanProfile,
        units: Units,
        bitrate: Option<u32>,
        address: Address,
    ) -> io::Result<Self> {
        let world = Arc::new(Mutex::new(World {
            profile,
            units,
            bitrate,
            mode: Mode::Closed,
            rate: None,
            line: String::new(),
            bus_error: false,
            faults: Faults::default(),
            waiting: Schedule::default(),
            heard: Vec::new(),
            sent_at_wrong_rate: 0,
        }));
        let presence = Presence::begin(Player(Arc::clone(&world)), address).await?;
        Ok(Self { world, presence })
    }

    /// Path or `host:port`.
    #[must_use]
    pub fn name(&self) -> String {
        self.presence.name()
    }

    /// The bus falls silent.
    pub fn hush(&self) {
        let mut world = lock_any(&self.world);
        world.profile.chatter = false;
        world.units.truck = None;
    }

    /// Units of the car talk.
    pub fn talk(&self) {
        lock_any(&self.world).profile.chatter = true;
    }

    /// A truck's units take the place of the car's, or talk beside them ([`Truck::with_obd`]).
    pub fn truck(&self, truck: Truck) {
        lock_any(&self.world).units.truck = Some(truck);
    }

    /// Does something to the car, where there is one.
    pub(super) fn with_car<T>(&self, act: impl FnOnce(&mut Car) -> T) -> Option<T> {
        lock_any(&self.world).units.car.as_mut().map(act)
    }

    /// Lets something go wrong at the adapter.
    pub fn fault(&self, fault: SlcanFault) {
        let mut world = lock_any(&self.world);
        if world.faults.add(fault) {
            world.power_cycle();
        }
    }

    /// The car's units miss the next requests, so many.
    pub fn miss(&self, requests: u32) {
        self.with_car(|car| car.miss(requests));
    }

    /// Turns the key to a position.
    pub fn engine(&self, engine: Engine) {
        self.with_car(|car| car.turn(engine));
    }

    /// Lets the engine's unit send `7F xx 78` so many times before its next answer.
    pub fn postpone(&self, times: u8) {
        self.with_car(|car| car.postpone(times));
    }

    /// Another car, or truck, on the same bus.
    ///
    /// # Errors
    /// [`SpecError`] naming what is wrong with the car.
    pub fn swap(&self, spec: &CarSpec) -> Result<(), SpecError> {
        let units = Units::new(spec)?;
        let mut world = lock_any(&self.world);
        (world.units, world.bitrate) = (units, Some(spec.bitrate()));
        Ok(())
    }

    /// Pulls the adapter out of the car.
    pub fn unplug(&self) {
        let mut world = lock_any(&self.world);
        world.units = Units::nobody();
        world.waiting.clear();
    }

    /// Frames that a recording does not have, and how often each was sent.
    #[must_use]
    pub fn missed(&self) -> BTreeMap<String, u64> {
        lock_any(&self.world).units.missed()
    }

    /// Request payloads that reached the car, oldest first.
    #[must_use]
    pub fn requests(&self) -> Vec<Vec<u8>> {
        self.with_car(|car| car.seen().to_vec()).unwrap_or_default()
    }

    /// Lines that came, oldest first.
    #[must_use]
    pub fn heard(&self) -> Vec<String> {
        lock_any(&self.world).heard.clone()
    }

    /// Frames that were sent while the bit rate was wrong: each disturbed the car.
    #[must_use]
    pub fn sent_at_wrong_rate(&self) -> u32 {
        lock_any(&self.world).sent_at_wrong_rate
    }

    /// Pulls the cable. Returns when it is gone.
    pub async fn vanish(&mut self) {
        self.presence.vanish().await;
    }

    /// Puts the device back. Returns when it is there.
    pub async fn come_back(&mut self) {
        self.presence.come_back().await;
    }

    /// Takes the device away for good.
    pub async fn stop(self) {
        self.presence.end().await;
    }
}

struct Player(Arc<Mutex<World>>);

impl Device for Player {
    fn power_cycle(&mut self) {
        lock_any(&self.0).power_cycle();
    }

    async fn serve(&mut self, mut endpoint: Endpoint) {
        let mut chatter = Instant::now();
        loop {
            let next = lock_any(&self.0).waiting.next_at();
            tokio::select! {
                () = sleep_until(next.unwrap_or(chatter)), if next.is_some() => {
                    let line = lock_any(&self.0).due();
                    self.write(&mut endpoint, &line).await;
                }
                () = sleep_until(chatter) => {
                    chatter = Instant::now() + CHATTER;
                    let line = lock_any(&self.0).chat();
                    self.write(&mut endpoint, &line).await;
                }
                input = endpoint.read() => match input {
                    Ok(Input::Bytes(bytes)) => {
                        let answer: Vec<u8> =
                            bytes.iter().flat_map(|byte| lock_any(&self.0).take(*byte)).collect();
                        self.write(&mut endpoint, &answer).await;
                    }
                    Ok(Input::Left) => {}
                    Err(_) => return,
                },
            }
        }
    }
}

impl Player {
    async fn write(&self, endpoint: &mut Endpoint, bytes: &[u8]) {
        let (split, frozen) = {
            let world = lock_any(&self.0);
            (world.profile.split_bytes, world.faults.frozen)
        };
        let split = if split == 0 { bytes.len().max(1) } else { split };
        let bytes: &[u8] = if frozen { &[] } else { bytes };
        for piece in bytes.chunks(split) {
            endpoint.write(piece).await;
            if split < bytes.len() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
    }
}

impl World {
    fn power_cycle(&mut self) {
        (self.mode, self.rate, self.bus_error, self.faults.frozen) = (Mode::Closed, None, false, false);
        self.line.clear();
        self.waiting.clear();
    }

    /// A byte from the host; what is said to it.
    fn take(&mut self, byte: u8) -> Vec<u8> {
        if self.faults.frozen {
            return Vec::new();
        }
        if byte != b'\r' {
            if self.line.len() < 200 {
                self.line.push(char::from(byte));
            }
            return Vec::new();
        }
        let line = std::mem::take(&mut self.line);
        if line.is_empty() {
            return b"\r".to_vec();
        }
        if self.heard.len() < 10_000 {
            self.heard.push(line.clone());
        }
        self.obey(&line)
    }

    fn obey(&mut self, line: &str) -> Vec<u8> {
        let (letter, rest) = line.split_at_checked(1).unwrap_or((line, ""));
        let done = match letter {
            "S" if self.mode == Mode::Closed => {
                let digit: Option<usize> = rest.parse().ok();
                self.rate = digit.and_then(|digit| RATES.get(digit).copied());
                self.rate.is_some()
            }
            "O" if self.mode == Mode::Closed && self.rate.is_some() => self.enter(Mode::Open),
            "L" if self.profile.listens && self.mode == Mode::Closed && self.rate.is_some() => {
                self.enter(Mode::Listening)
            }
            "C" if self.mode != Mode::Closed => self.enter(Mode::Closed),
            "V" => return b"V1013\r".to_vec(),
            "N" => return b"NSIM1\r".to_vec(),
            "F" if self.mode != Mode::Closed => {
                let flags = if std::mem::take(&mut self.bus_error) { 0xA4 } else { 0 };
                return format!("F{flags:02X}\r").into_bytes();
            }
            "t" | "T" if self.mode == Mode::Open => return self.transmit(letter == "T", rest),
            _ => false,
        };
        match (self.profile.confirms, done) {
            (false, _) => Vec::new(),
            (true, true) => b"\r".to_vec(),
            (true, false) => b"\x07".to_vec(),
        }
    }

    fn enter(&mut self, mode: Mode) -> bool {
        self.mode = mode;
        self.bus_error = false;
        self.waiting.clear();
        true
    }

    /// Somebody speaks without being asked.
    fn talks(&self) -> bool {
        let by_itself = self.profile.chatter && self.units.car.is_some();
        by_itself || self.units.broadcast()
    }

    fn rate_is_right(&self) -> bool {
        self.rate.is_some() && self.bitrate.is_none_or(|bitrate| self.rate == Some(bitrate))
    }

    fn transmit(&mut self, wide: bool, text: &str) -> Vec<u8> {
        let Some(frame) = parse(wide, text) else { return b"\x07".to_vec() };
        if !self.rate_is_right() {
            self.bus_error = true;
            self.sent_at_wrong_rate += 1;
        } else if !self.units.awake() {
            // Nobody acknowledges.
            self.bus_error = true;
        } else {
            let answers = self.units.on_frame(&frame);
            self.waiting.add(answers);
        }
        match (self.profile.acknowledges, wide) {
            (false, _) => b"\r".to_vec(),
            (true, false) => b"z\r".to_vec(),
            (true, true) => b"Z\r".to_vec(),
        }
    }

    /// Frames whose time has come, as lines.
    fn due(&mut self) -> Vec<u8> {
        let mut lines = Vec::new();
        while let Some(frame) = self.waiting.due() {
            lines.extend(self.faults.strike(print(&frame, &self.profile)));
        }
        lines
    }

    /// A frame of the car's own talk, if it talks, or at a wrong rate an error.
    fn chat(&mut self) -> Vec<u8> {
        match self.mode {
            mode if mode == Mode::Closed || !self.talks() => Vec::new(),
            _ if !self.rate_is_right() => {
                self.bus_error = true;
                if self.profile.tells_errors { b"e1s\r".to_vec() } else { Vec::new() }
            }
            _ if self.units.truck.is_some() || self.units.tape.is_some() => {
                let frames = self.units.tick();
                self.waiting.add(frames);
                self.due()
            }
            _ => print(&chatter(), &self.profile),
        }
    }
}
