//! Four CAN buses at full load (1 Mbit/s each: 36,000 frames/s), frame by frame
//! through reassembly and by a database into windows, on one thread. The frames come
//! through socket pairs as a CAN socket gives them, 16 bytes a read; a socket holds
//! about as many as a CAN socket's usual buffer, and what finds it full is dropped and
//! counted by the sender, which never waits.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod setup;

use std::io::{ErrorKind, Write};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use baygate::clock::UtcMillis;
use baygate::link::can::{Frame, Id};
use baygate::vehicle::can::isotp::{Conversations, Event, Form, Output};
use baygate::vehicle::dbc::Database;
use baygate::vehicle::passive::Passive;
use nix::time::{ClockId, clock_gettime};
use setup::figures::{Figure, Found};
use setup::number;
use tokio::io::AsyncReadExt;
use tokio::task::JoinSet;

const BUSES: usize = 4;
/// 11-bit identifiers, 8 bytes, 1 Mbit/s, without stuffing: 9009 (the figure of CAN's frame format).
const FRAMES_A_MS: usize = 9;
/// struct can_frame (linux/can.h).
const FRAME: usize = 16;
/// One frame in so many belongs to a diagnostic message of [`MESSAGE`] bytes.
const DIAGNOSTIC_EVERY: usize = 20;
/// First frame with 6 bytes and eight more with 7.
const MESSAGE: u8 = 62;

fn main() {
    let seconds = number("BAYGATE_BENCH_SECONDS", 10);
    let (mut senders, mut receivers) = (Vec::new(), Vec::new());
    for _ in 0..BUSES {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        theirs.set_nonblocking(true).unwrap();
        senders.push(theirs);
        receivers.push(ours);
    }
    // Nothing is sent before somebody hears.
    let ready = Arc::new(Barrier::new(2));
    let start = Arc::clone(&ready);
    let sender = std::thread::spawn(move || {
        start.wait();
        send(senders, seconds * 1000)
    });
    let (heard, share) = hear(receivers, &ready);
    let (sent, dropped) = sender.join().unwrap();

    let frames: usize = heard.iter().map(|bus| bus.frames).sum();
    let messages: usize = heard.iter().map(|bus| bus.messages).sum();
    let decoded: u64 = heard.iter().map(|bus| bus.decoded).sum();
    assert_eq!(frames + dropped, sent, "every frame is heard or counted");
    let broken = heard.iter().map(|bus| bus.broken).sum::<usize>();
    assert!(broken == 0 || dropped > 0, "no message breaks of itself");
    let signals: usize = heard.iter().map(|bus| bus.signals).sum();

    let mut found = Found::default();
    found.figures.push(Figure::limit("four buses at full load, of one core", "%", share * 100.0, 20.0));
    let mut drops = Figure::told("frames dropped", dropped.to_string(), "0".into());
    (drops.wanted, drops.holds) = ("0".into(), Some(dropped == 0));
    found.figures.push(drops);
    found.notes.push(format!(
        "buses: {sent} frames in {seconds} s, {decoded} decoded into {signals} signals a window, {messages} messages of {MESSAGE} bytes put together"
    ));
    found.keep("buses");
}

/// Sends at the buses' own rate and never waits for the receiver. Frames sent, and of them dropped.
fn send(mut buses: Vec<UnixStream>, milliseconds: usize) -> (usize, usize) {
    let begun = Instant::now();
    let (mut sent, mut dropped) = (0, 0);
    for ms in 0..milliseconds {
        let due = Duration::from_millis(ms as u64);
        std::thread::sleep(due.saturating_sub(begun.elapsed()));
        for bus in &mut buses {
            for n in 0..FRAMES_A_MS {
                let frame = frame(ms * FRAMES_A_MS + n);
                sent += 1;
                match bus.write(&frame) {
                    Ok(FRAME) => {}
                    Err(error) if error.kind() == ErrorKind::WouldBlock => dropped += 1,
                    other => panic!("{other:?}"),
                }
            }
        }
    }
    (sent, dropped)
}

/// The `n`-th frame of a bus.
fn frame(n: usize) -> [u8; FRAME] {
    let byte = |n: usize| u8::try_from(n & 0xFF).unwrap();
    let (id, data) = if n.is_multiple_of(DIAGNOSTIC_EVERY) {
        match n / DIAGNOSTIC_EVERY % 9 {
            0 => (0x7E8, [0x10, MESSAGE, 0x49, 0x06, byte(n), 1, 2, 3]),
            turn => (0x7E8, [0x20 | byte(turn), 1, 2, 3, 4, 5, 6, 7]),
        }
    } else {
        let (low, high) = (byte(n), byte(n >> 8));
        (0x100 + u32::try_from(n % 40).unwrap(), [low, high, low ^ high, 3, 4, low, 6, 7])
    };
    let mut frame = [0; FRAME];
    frame[..4].copy_from_slice(&id.to_ne_bytes());
    frame[4] = 8;
    frame[8..].copy_from_slice(&data);
    frame
}

/// What came of one bus.
#[derive(Default)]
struct Heard {
    frames: usize,
    messages: usize,
    broken: usize,
    decoded: u64,
    signals: usize,
}

/// Hears all buses on this thread until they end; how much of it that took.
fn hear(buses: Vec<UnixStream>, ready: &Barrier) -> (Vec<Heard>, f64) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let database = Arc::new(Database::from_bytes(database().as_bytes()).unwrap());
    let used = || Duration::from(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).unwrap());
    ready.wait();
    let (begun, before) = (Instant::now(), used());
    let heard = runtime.block_on(async {
        let mut tasks = JoinSet::new();
        for bus in buses {
            tasks.spawn(one(tokio::net::UnixStream::from_std(bus).unwrap(), Arc::clone(&database)));
        }
        tasks.join_all().await
    });
    (heard, (used() - before).as_secs_f64() / begun.elapsed().as_secs_f64())
}

async fn one(mut bus: tokio::net::UnixStream, database: Arc<Database>) -> Heard {
    let mut heard = Heard::default();
    let mut passive = Passive::new(database);
    let mut conversations = Conversations::new(64 * 1024);
    assert!(conversations.listen(Id::standard(0x7E8), Id::standard(0x7E0), Form::default(), 0, 0));
    let (begun, mut window) = (Instant::now(), Instant::now());
    let mut raw = [0; FRAME];
    while bus.read_exact(&mut raw).await.is_ok() {
        heard.frames += 1;
        let id = u32::from_ne_bytes(raw[..4].try_into().unwrap());
        let frame = Frame::new(Id::standard(id), &raw[8..], false).unwrap();
        for output in conversations.on_frame(&frame, begun.elapsed()) {
            match output {
                Output::Send(_) => {}
                Output::Event(_, Event::Whole(message)) => {
                    assert_eq!(message.len(), usize::from(MESSAGE));
                    heard.messages += 1;
                }
                Output::Event(..) => heard.broken += 1,
            }
        }
        passive.decode_frame(id, false, frame.data(), UtcMillis::now());
        if window.elapsed() >= Duration::from_secs(1) {
            window = Instant::now();
            heard.signals = passive.take().map_or(0, |taken| taken.signals.len());
        }
    }
    heard.decoded = passive.counts().0;
    heard
}

/// Forty messages of four signals.
fn database() -> String {
    let message = |n: usize| {
        format!(
            "BO_ {} M{n}: 8 ECU\n SG_ A : 0|16@1+ (0.25,0) [0|0] \"1/min\" X\n SG_ B : 23|8@0- (1,-40) [0|0] \"degC\" X\n SG_ C : 24|13@1+ (0.03125,0) [0|0] \"km/h\" X\n SG_ D : 47|12@0+ (0.1,0) [0|0] \"bar\" X\n\n",
            0x100 + n
        )
    };
    format!("VERSION \"\"\n\nBU_: ECU\n\n{}", (0..40).map(message).collect::<String>())
}
