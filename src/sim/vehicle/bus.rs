//! A simulated car straight on a CAN bus: on an interface of the kernel, or behind a
//! simulated slcan adapter. Written from linux/can.h and the Lawicel manual; shares
//! nothing with the driver.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use socketcan::{CanFrame, CanSocket, EmbeddedFrame as _, ExtendedId, Id, Socket as _, StandardId};
use tokio::time::Instant;

use super::car::{Car, Frame};
use super::spec::{CarSpec, Engine, SpecError};
use super::tape::Tape;
use super::task::lock_any;
use super::truck::TICK;
use super::units::Units;

/// How long the thread that reads the bus may be deaf to the end.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// As a controller's driver tells of a frame that was destroyed (linux/can/error.h: `CAN_ERR_FLAG`,
/// `CAN_ERR_BUSERROR`, `CAN_ERR_PROT` with bit stuffing in byte 2), as it lies in memory.
const DESTROYED: (u32, [u8; 8]) = (0x2000_0088, [0, 0, 0x04, 0, 0, 0, 0, 0]);

/// Frames that wait for their time, earliest first.
#[derive(Debug, Default)]
pub(super) struct Schedule {
    frames: BTreeMap<(Instant, u64), Frame>,
    count: u64,
}

impl Schedule {
    pub(super) fn add(&mut self, answers: Vec<(Duration, Frame)>) {
        let now = Instant::now();
        for (after, frame) in answers {
            self.count += 1;
            self.frames.insert((now + after, self.count), frame);
        }
    }

    pub(super) fn next_at(&self) -> Option<Instant> {
        self.frames.keys().next().map(|(at, _)| *at)
    }

    pub(super) fn due(&mut self) -> Option<Frame> {
        let first = self.frames.first_entry()?;
        (first.key().0 <= Instant::now()).then(|| first.remove())
    }

    pub(super) fn clear(&mut self) {
        self.frames.clear();
    }
}

/// A car on an interface of the kernel. Dropping it takes the car away.
#[derive(Debug)]
pub struct BusSim {
    units: Arc<Mutex<Units>>,
    /// Frames from now on that are destroyed once.
    garbled: Arc<AtomicU32>,
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl BusSim {
    /// Puts the car on the bus.
    ///
    /// # Errors
    /// There is no such interface, or the car is not right.
    pub fn spawn(interface: &str, spec: &CarSpec) -> io::Result<Self> {
        Self::begin(interface, Units::new(spec).map_err(io::Error::other)?)
    }

    /// Plays a recorded bus.
    ///
    /// # Errors
    /// There is no such interface.
    pub fn replay(interface: &str, tape: Tape) -> io::Result<Self> {
        Self::begin(interface, Units::of(tape))
    }

    fn begin(interface: &str, units: Units) -> io::Result<Self> {
        let units = Arc::new(Mutex::new(units));
        let socket = CanSocket::open(interface)?;
        socket.set_read_timeout(LOOK_EVERY)?;
        let (stop, garbled) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
        let (theirs, stopped, destroyed) = (Arc::clone(&units), Arc::clone(&stop), Arc::clone(&garbled));
        let thread = std::thread::Builder::new().name("simulated-car".into()).spawn(move || {
            let mut clock = Instant::now();
            while !stopped.load(Ordering::Relaxed) {
                if let Err(error) = turn(&socket, &theirs, &destroyed, &mut clock)
                    && !matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
                {
                    // Down: the car is still there when the bus comes back.
                    std::thread::sleep(LOOK_EVERY);
                }
            }
        })?;
        Ok(Self { units, garbled, stop, thread: Some(thread) })
    }

    /// The next frame is destroyed on the bus: an error in its place, then the frame, as
    /// controllers do (ISO 11898-1).
    pub fn garble(&self) {
        self.garbled.fetch_add(1, Ordering::Relaxed);
    }

    /// Does something to the car, where there is one.
    pub(super) fn with_car<T>(&self, act: impl FnOnce(&mut Car) -> T) -> Option<T> {
        lock_any(&self.units).car.as_mut().map(act)
    }

    /// Turns the key to a position.
    pub fn engine(&self, engine: Engine) {
        self.with_car(|car| car.turn(engine));
    }

    /// Another car, or truck, on the same bus.
    ///
    /// # Errors
    /// [`SpecError`] naming what is wrong with the car.
    pub fn swap(&self, spec: &CarSpec) -> Result<(), SpecError> {
        *lock_any(&self.units) = Units::new(spec)?;
        Ok(())
    }

    /// Takes the car off the bus.
    pub fn unplug(&self) {
        *lock_any(&self.units) = Units::nobody();
    }

    /// Frames that a recording does not have, and how often each was sent.
    #[must_use]
    pub fn missed(&self) -> BTreeMap<String, u64> {
        lock_any(&self.units).missed()
    }

    /// Lets the engine's unit send `7F xx 78` so many times before its next answer.
    pub fn postpone(&self, times: u8) {
        self.with_car(|car| car.postpone(times));
    }

    /// Request payloads that reached the car, oldest first.
    #[must_use]
    pub fn requests(&self) -> Vec<Vec<u8>> {
        self.with_car(|car| car.seen().to_vec()).unwrap_or_default()
    }
}

impl Drop for BusSim {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// One frame in or none, and the answers and broadcasts out at their times. `clock`: when the
/// units are next asked what they broadcast.
fn turn(
    socket: &CanSocket,
    units: &Mutex<Units>,
    garbled: &AtomicU32,
    clock: &mut Instant,
) -> io::Result<()> {
    let mut waiting = Schedule::default();
    match read(socket) {
        Ok(Some(frame)) => waiting.add(lock_any(units).on_frame(&frame)),
        Ok(None) => {}
        Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {}
        Err(error) => return Err(error),
    }
    broadcast(units, clock, &mut waiting);
    while let Some(at) = waiting.next_at() {
        // A long silence before an answer is no reason to be deaf, or dumb.
        std::thread::sleep(at.saturating_duration_since(Instant::now()).min(LOOK_EVERY));
        while let Some(frame) = waiting.due() {
            let strikes = |left: u32| left.checked_sub(1);
            if garbled.fetch_update(Ordering::Relaxed, Ordering::Relaxed, strikes).is_ok() {
                destroy(socket)?;
            }
            write(socket, &frame)?;
        }
        // Flow control comes between, and what another unit is asked.
        socket.set_nonblocking(true)?;
        while let Ok(Some(frame)) = read(socket) {
            waiting.add(lock_any(units).on_frame(&frame));
        }
        socket.set_nonblocking(false)?;
        broadcast(units, clock, &mut waiting);
    }
    Ok(())
}

fn broadcast(units: &Mutex<Units>, clock: &mut Instant, waiting: &mut Schedule) {
    let now = Instant::now();
    if *clock <= now {
        *clock = now + TICK;
        waiting.add(lock_any(units).tick());
    }
}

fn read(socket: &CanSocket) -> io::Result<Option<Frame>> {
    let CanFrame::Data(frame) = socket.read_frame()? else { return Ok(None) };
    let (id, extended) = match frame.id() {
        Id::Standard(id) => (u32::from(id.as_raw()), false),
        Id::Extended(id) => (id.as_raw(), true),
    };
    Ok(Some(Frame { id, extended, data: frame.data().to_vec() }))
}

fn write(socket: &CanSocket, frame: &Frame) -> io::Result<()> {
    let id = if frame.extended {
        ExtendedId::new(frame.id).map(Id::Extended)
    } else {
        u16::try_from(frame.id).ok().and_then(StandardId::new).map(Id::Standard)
    };
    match id.and_then(|id| CanFrame::new(id, &frame.data)) {
        Some(frame) => socket.write_frame(&frame),
        None => Ok(()),
    }
}

fn destroy(socket: &CanSocket) -> io::Result<()> {
    let (class, data) = DESTROYED;
    let mut frame = class.to_ne_bytes().to_vec();
    frame.extend([8, 0, 0, 0]);
    frame.extend(data);
    nix::unistd::write(socket, &frame)?;
    Ok(())
}
