//! Four CAN buses at full load (1 Mbit/s each: 36,000 frames/s) on one thread, by the daemon's own
//! path: its socket, `overheard` behind it (recording, database, windows taken each second), and
//! on a second socket, as a node has it behind the kernel's filter, the answers to questions put
//! together. Socket pairs stand for CAN sockets, a frame a message, with room for about as many as a
//! CAN socket's usual buffer; what finds one full is dropped and counted by the sender, which
//! never waits.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod setup;

use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Mutex, OnceLock};
use std::time::{Duration, Instant};

use baygate::link::can::{CanSocket, Heard, Id};
use baygate::vehicle::can::isotp::{Conversations, Event, Form, Output};
use baygate::vehicle::dbc::Database;
use baygate::vehicle::overheard::{Collected, lock, overhear};
use baygate::vehicle::recording::frames::FrameLog;
use baygate::vehicle::recording::{self, Recording};
use nix::time::{ClockId, clock_gettime};
use setup::figures::{Figure, Found};
use setup::number;

const BUSES: usize = 4;
/// 11-bit identifiers, 8 bytes, 1 Mbit/s, without stuffing: 9009 (the figure of CAN's frame format).
const FRAMES_A_MS: usize = 9;
/// struct can_frame (linux/can.h).
const FRAME: usize = 16;
/// One frame in so many belongs to a diagnostic message of [`MESSAGE`] bytes.
const DIAGNOSTIC_EVERY: usize = 20;
/// First frame with 6 bytes and eight more with 7.
const MESSAGE: u8 = 62;
const FRAMES_A_MESSAGE: usize = 9;
/// Messages of the database, each with so many signals.
const MESSAGES: usize = 40;
const SIGNALS: usize = 4;
/// Later than this by so much is not the clock's coarseness.
const STALL: Duration = Duration::from_millis(2);
/// As the service takes a window.
const WINDOW: Duration = Duration::from_secs(1);

fn main() {
    let frames = number("BAYGATE_BENCH_SECONDS", 10) * 1000 * FRAMES_A_MS;
    let (senders, receivers): (Vec<_>, Vec<_>) = (0..BUSES).map(|_| bus()).unzip();
    // Nothing is sent before somebody hears.
    let ready = Arc::new(Barrier::new(2));
    let sent = Arc::new(OnceLock::new());
    let (start, told) = (Arc::clone(&ready), Arc::clone(&sent));
    let sender = std::thread::spawn(move || {
        start.wait();
        let dropped = send(&senders, frames);
        told.set(dropped).unwrap();
    });
    let (heard, share) = hear(receivers, &ready, frames, &sent);
    sender.join().unwrap();
    let dropped = *sent.get().unwrap();
    judge(&heard, frames, dropped);

    let mut found = Found::default();
    found.figures.push(Figure::limit("four buses at full load, of one core", "%", share * 100.0, 20.0));
    let all = dropped.broadcast + dropped.answers;
    let mut drops = Figure::told("frames dropped", all.to_string(), "0".into());
    (drops.wanted, drops.holds) = ("0".into(), Some(all == 0));
    found.figures.push(drops);
    let sum = |of: fn(&Bus) -> usize| heard.iter().map(of).sum::<usize>();
    found.notes.push(format!(
        "buses: {} frames in {} s, each a line of a recording, {} decoded into {} signals a window, {} messages of {MESSAGE} bytes put together; the sender itself was kept from sending for {} ms",
        BUSES * frames,
        frames / FRAMES_A_MS / 1000,
        sum(|bus| bus.decoded),
        sum(|bus| bus.signals),
        sum(|bus| bus.messages),
        dropped.stalled.as_millis(),
    ));
    found.keep("buses");
}

/// Every frame is heard or counted as dropped; where none was, each did what it should.
fn judge(heard: &[Bus], frames: usize, dropped: Dropped) {
    let sum = |of: fn(&Bus) -> usize| heard.iter().map(of).sum::<usize>();
    assert_eq!(sum(|bus| bus.decoded + bus.unknown) + dropped.broadcast, BUSES * frames, "heard or counted");
    if dropped.broadcast > 0 || dropped.answers > 0 {
        return;
    }
    let diagnostic = frames.div_ceil(DIAGNOSTIC_EVERY);
    for bus in heard {
        assert_eq!((bus.decoded, bus.unknown), (frames - diagnostic, diagnostic));
        assert_eq!((bus.messages, bus.broken), (diagnostic / FRAMES_A_MESSAGE, 0));
        // A diagnostic frame stands in the place of every twentieth of them.
        assert_eq!(bus.signals, (MESSAGES - MESSAGES / DIAGNOSTIC_EVERY) * SIGNALS);
        let last = frame(frames - 1);
        let id = u32::from_ne_bytes(last[..4].try_into().unwrap());
        let line = format!(" can0 {id:03X}#{}", hex::encode_upper(&last[8..]));
        assert!(bus.last_line.ends_with(&line), "the ring ends with {:?}, not {line:?}", bus.last_line);
    }
}

/// The two sockets of a bus: all that passes, and the answers that a node's filter lets through.
struct Wires {
    broadcast: UnixDatagram,
    answers: UnixDatagram,
}

fn bus() -> (Wires, Wires) {
    let pair = || UnixDatagram::pair().unwrap();
    let ((broadcast, ear), (answers, node)) = (pair(), pair());
    broadcast.set_nonblocking(true).unwrap();
    answers.set_nonblocking(true).unwrap();
    (Wires { broadcast, answers }, Wires { broadcast: ear, answers: node })
}

/// Frames that found a socket full.
#[derive(Debug, Clone, Copy, Default)]
struct Dropped {
    broadcast: usize,
    answers: usize,
    /// How long the machine kept the sender from sending.
    stalled: Duration,
}

/// Sends at the buses' own rate and never waits for the receiver. What it comes too late to send it
/// sends later: no bus makes up for lost time by a burst.
fn send(buses: &[Wires], frames: usize) -> Dropped {
    let mut begun = Instant::now();
    let mut dropped = Dropped::default();
    for n in 0..frames {
        if n.is_multiple_of(FRAMES_A_MS) {
            let due = Duration::from_millis((n / FRAMES_A_MS) as u64);
            std::thread::sleep(due.saturating_sub(begun.elapsed()));
            let late = begun.elapsed().saturating_sub(due);
            if late > STALL {
                begun += late;
                dropped.stalled += late;
            }
        }
        let frame = frame(n);
        for bus in buses {
            dropped.broadcast += usize::from(!is_taken(&bus.broadcast, &frame));
            if n.is_multiple_of(DIAGNOSTIC_EVERY) {
                dropped.answers += usize::from(!is_taken(&bus.answers, &frame));
            }
        }
    }
    dropped
}

fn is_taken(bus: &UnixDatagram, frame: &[u8; FRAME]) -> bool {
    match bus.send(frame) {
        Ok(FRAME) => true,
        Err(error) if error.kind() == ErrorKind::WouldBlock => false,
        other => panic!("{other:?}"),
    }
}

/// The `n`-th frame of a bus.
fn frame(n: usize) -> [u8; FRAME] {
    let byte = |n: usize| u8::try_from(n & 0xFF).unwrap();
    let (id, data) = if n.is_multiple_of(DIAGNOSTIC_EVERY) {
        match n / DIAGNOSTIC_EVERY % FRAMES_A_MESSAGE {
            0 => (0x7E8, [0x10, MESSAGE, 0x49, 0x06, byte(n), 1, 2, 3]),
            turn => (0x7E8, [0x20 | byte(turn), 1, 2, 3, 4, 5, 6, 7]),
        }
    } else {
        let (low, high) = (byte(n), byte(n >> 8));
        (0x100 + u32::try_from(n % MESSAGES).unwrap(), [low, high, low ^ high, 3, 4, low, 6, 7])
    };
    let mut frame = [0; FRAME];
    frame[..4].copy_from_slice(&id.to_ne_bytes());
    frame[4] = 8;
    frame[8..].copy_from_slice(&data);
    frame
}

/// What came of one bus.
#[derive(Default)]
struct Bus {
    decoded: usize,
    unknown: usize,
    messages: usize,
    broken: usize,
    /// Of the fullest window.
    signals: usize,
    /// Of the recording.
    last_line: String,
}

/// The daemon's side of one bus.
struct Ears {
    collected: Arc<Mutex<Collected>>,
    recording: Recording,
    reassembled: Arc<Reassembled>,
    signals: usize,
}

impl Ears {
    fn open(bus: Wires, database: &Arc<Database>) -> Self {
        let recording = Recording::new(recording::Form::Candump);
        let log = FrameLog::new(recording.clone(), "can0");
        let collected = Arc::new(Mutex::new(Collected::new(&[Arc::clone(database)], log)));
        lock(&collected).want(true);
        let socket = |end: UnixDatagram| CanSocket::over(OwnedFd::from(end), "can0").unwrap();
        let reassembled = Arc::new(Reassembled::default());
        tokio::spawn(overhear("bay-1".into(), socket(bus.broadcast), Arc::clone(&collected)));
        tokio::spawn(reassemble(socket(bus.answers), Arc::clone(&reassembled)));
        Self { collected, recording, reassembled, signals: 0 }
    }

    fn heard(&self) -> (usize, usize) {
        let (decoded, unknown) = lock(&self.collected).counts();
        (usize::try_from(decoded).unwrap(), usize::try_from(unknown).unwrap())
    }

    fn take_window(&mut self) {
        let signals = lock(&self.collected).take().map_or(0, |taken| taken.signals.len());
        self.signals = self.signals.max(signals);
    }

    fn told(mut self) -> Bus {
        self.take_window();
        let (decoded, unknown) = self.heard();
        let kept = String::from_utf8(self.recording.written("can://can0", None).unwrap()).unwrap();
        let counted = |count: &AtomicUsize| count.load(Ordering::Relaxed);
        Bus {
            decoded,
            unknown,
            messages: counted(&self.reassembled.messages),
            broken: counted(&self.reassembled.broken),
            signals: self.signals,
            last_line: kept.lines().last().unwrap_or_default().to_owned(),
        }
    }
}

/// Hears all buses on this thread until everything that was sent is heard; how much of it that took.
fn hear(buses: Vec<Wires>, ready: &Barrier, frames: usize, sent: &OnceLock<Dropped>) -> (Vec<Bus>, f64) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let database = Arc::new(Database::from_bytes(database().as_bytes()).unwrap());
    let used = || Duration::from(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).unwrap());
    runtime.block_on(async {
        let mut ears: Vec<Ears> = buses.into_iter().map(|bus| Ears::open(bus, &database)).collect();
        ready.wait();
        let (begun, before) = (Instant::now(), used());
        let (mut window, mut over) = (Instant::now(), None);
        loop {
            tokio::time::sleep(WINDOW / 10).await;
            if window.elapsed() >= WINDOW {
                window = Instant::now();
                ears.iter_mut().for_each(Ears::take_window);
            }
            let heard: usize = ears.iter().map(|ears| ears.heard()).map(|(known, other)| known + other).sum();
            let missing = sent.get().map(|dropped| BUSES * frames - dropped.broadcast - heard);
            over = over.or(missing.map(|_| Instant::now()));
            // What is still missing after a while will not come, which is judged later.
            if missing == Some(0) || over.is_some_and(|over: Instant| over.elapsed() > 5 * WINDOW) {
                break;
            }
        }
        let share = (used() - before).as_secs_f64() / begun.elapsed().as_secs_f64();
        (ears.into_iter().map(Ears::told).collect(), share)
    })
}

#[derive(Default)]
struct Reassembled {
    messages: AtomicUsize,
    broken: AtomicUsize,
}

/// Answers to a question, as a node hears them.
async fn reassemble(mut socket: CanSocket, told: Arc<Reassembled>) {
    let mut conversations = Conversations::new(64 * 1024);
    assert!(conversations.listen(Id::standard(0x7E8), Id::standard(0x7E0), Form::default(), 0, 0));
    let begun = Instant::now();
    while let Ok(heard) = socket.hear().await {
        let Heard::Frame(frame) = heard else { continue };
        for output in conversations.on_frame(&frame, begun.elapsed()) {
            match output {
                Output::Send(_) => {}
                Output::Event(_, Event::Whole(message)) => {
                    assert_eq!(message.len(), usize::from(MESSAGE));
                    told.messages.fetch_add(1, Ordering::Relaxed);
                }
                Output::Event(..) => {
                    told.broken.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    }
}

/// Messages of four signals.
fn database() -> String {
    let message = |n: usize| {
        format!(
            "BO_ {} M{n}: 8 ECU\n SG_ A : 0|16@1+ (0.25,0) [0|0] \"1/min\" X\n SG_ B : 23|8@0- (1,-40) [0|0] \"degC\" X\n SG_ C : 24|13@1+ (0.03125,0) [0|0] \"km/h\" X\n SG_ D : 47|12@0+ (0.1,0) [0|0] \"bar\" X\n\n",
            0x100 + n
        )
    };
    format!("VERSION \"\"\n\nBU_: ECU\n\n{}", (0..MESSAGES).map(message).collect::<String>())
}
