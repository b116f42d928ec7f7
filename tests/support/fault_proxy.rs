//! A TCP proxy of our own between gateway and broker, with faults that can be
//! switched while it runs, each way by itself: cut, orderly end, half-open, one
//! way only, slow, swallowed PUBACKs, garbled bytes, single bytes. It lives on a
//! thread and runtime of its own, so that a busy test does not slow the line down.
//!
//! It reads the MQTT that passes (3.1.1 and 5) and keeps book: which events were
//! sent, and which got a PUBACK that really went on to the gateway.
#![allow(dead_code)] // each test file uses its part
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{oneshot, watch};

use crate::dice::Dice;

/// What is wrong with the line now. Default: nothing.
#[derive(Debug, Clone, Default)]
pub struct Faults {
    /// Bytes to the broker vanish. A line that lost bytes never carries any again: only a new one is well.
    pub drop_up: bool,
    /// Bytes to the gateway vanish, likewise.
    pub drop_down: bool,
    /// Each piece is held this long.
    pub delay: Duration,
    /// What the line carries, each way.
    pub bytes_per_s: Option<u64>,
    /// PUBACK packets vanish, and nothing else.
    pub swallow_pubacks: bool,
    /// Pieces to the broker that are garbled, of a thousand.
    pub garble_up: u64,
    /// Pieces to the gateway that are garbled, of a thousand.
    pub garble_down: u64,
    /// Every byte in a segment of its own.
    pub byte_by_byte: bool,
}

/// An event's key at headquarters, within one gateway: epoch, class, class sequence.
pub type Key = (String, String, u64);

/// What passed.
#[derive(Debug, Default)]
pub struct Book {
    /// PUBLISH packets with events, as the gateway sent them.
    pub sent: BTreeMap<Key, u64>,
    /// PUBACKs that said "taken" and went on to the gateway.
    pub acknowledged: BTreeMap<Key, u64>,
    /// PUBACKs that did not.
    pub swallowed: u64,
    /// Pieces that were garbled.
    pub garbled: u64,
    /// Publishes by line and packet id.
    waiting: HashMap<(u64, u16), Key>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Alive,
    /// Nothing passes any more, both sockets stay open.
    Frozen,
    /// RST.
    Reset,
    /// FIN.
    Ended,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Up,
    Down,
}

struct Shared {
    broker: u16,
    /// Nothing can be read in it: TLS.
    opaque: bool,
    faults: Mutex<Faults>,
    lines: Mutex<BTreeMap<u64, watch::Sender<Fate>>>,
    accepted: AtomicU64,
    dice: Mutex<Dice>,
    book: Mutex<Book>,
}

/// The proxy; ends when dropped.
pub struct FaultProxy {
    pub port: u16,
    shared: Arc<Shared>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl FaultProxy {
    /// In front of the broker on this port. `dice` decides what is garbled.
    pub fn start(broker: u16, dice: Dice) -> Self {
        Self::open(broker, dice, false)
    }

    /// As [`FaultProxy::start`], for lines that it cannot read.
    pub fn start_opaque(broker: u16, dice: Dice) -> Self {
        Self::open(broker, dice, true)
    }

    fn open(broker: u16, dice: Dice, opaque: bool) -> Self {
        let shared = Arc::new(Shared {
            broker,
            opaque,
            faults: Mutex::default(),
            lines: Mutex::default(),
            accepted: AtomicU64::new(0),
            dice: Mutex::new(dice),
            book: Mutex::default(),
        });
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        listener.set_nonblocking(true).unwrap();
        let (stop, stopped) = oneshot::channel();
        let at_work = Arc::clone(&shared);
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = TcpListener::from_std(listener).unwrap();
                tokio::select! {
                    () = serve(listener, at_work) => {}
                    _ = stopped => {}
                }
            });
        });
        Self { port, shared, stop: Some(stop), thread: Some(thread) }
    }

    /// Switches faults while it runs.
    pub fn set(&self, faults: Faults) {
        *self.shared.faults.lock().unwrap() = faults;
    }

    /// No fault any more; lines that lost bytes stay dead.
    pub fn heal(&self) {
        self.set(Faults::default());
    }

    /// RST on every open line, both sides.
    pub fn cut(&self) {
        self.decide(Fate::Reset);
    }

    /// FIN on every open line, both sides.
    pub fn end(&self) {
        self.decide(Fate::Ended);
    }

    /// The open lines carry nothing any more and stay open, as a NAT that forgot them; new ones are well.
    pub fn freeze(&self) {
        self.decide(Fate::Frozen);
    }

    fn decide(&self, fate: Fate) {
        for line in self.shared.lines.lock().unwrap().values() {
            line.send_replace(fate);
        }
    }

    /// Connections so far.
    pub fn accepted(&self) -> u64 {
        self.shared.accepted.load(Ordering::Relaxed)
    }

    /// Looks into the book.
    pub fn book<T>(&self, look: impl FnOnce(&Book) -> T) -> T {
        look(&self.shared.book.lock().unwrap())
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    loop {
        let Ok((near, _)) = listener.accept().await else { continue };
        let line = shared.accepted.fetch_add(1, Ordering::Relaxed);
        // Where nobody listens behind us, the gateway sees its line closed.
        let Ok(far) = TcpStream::connect(("127.0.0.1", shared.broker)).await else { continue };
        near.set_nodelay(true).unwrap();
        far.set_nodelay(true).unwrap();
        let (fate, _) = watch::channel(Fate::Alive);
        let level = Arc::new(AtomicU8::new(0));
        let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
        let carry = |way| Carry {
            shared: Arc::clone(&shared),
            line,
            way,
            fate: fate.subscribe(),
            decide: fate.clone(),
            level: Arc::clone(&level),
            frames: Frames::default(),
            poisoned: false,
        };
        let (up, down) = (carry(Way::Up), carry(Way::Down));
        shared.lines.lock().unwrap().insert(line, fate);
        let done = Arc::clone(&shared);
        tokio::spawn(async move {
            tokio::join!(up.run(near_in, far_out), down.run(far_in, near_out));
            done.lines.lock().unwrap().remove(&line);
        });
    }
}

/// One way of one line.
struct Carry {
    shared: Arc<Shared>,
    line: u64,
    way: Way,
    fate: watch::Receiver<Fate>,
    decide: watch::Sender<Fate>,
    /// MQTT protocol level of the CONNECT.
    level: Arc<AtomicU8>,
    frames: Frames,
    poisoned: bool,
}

impl Carry {
    async fn run(mut self, mut from: OwnedReadHalf, mut to: OwnedWriteHalf) {
        let mut buffer = vec![0; 4096];
        loop {
            let mut fate = self.fate.clone();
            let ended = async move {
                fate.wait_for(|fate| matches!(fate, Fate::Reset | Fate::Ended)).await.map(|fate| *fate)
            };
            let step = async {
                let got = from.read(&mut buffer).await.unwrap_or(0);
                if got == 0 {
                    return false;
                }
                self.pass(&buffer[..got], &mut to).await
            };
            tokio::select! {
                biased;
                fate = ended => {
                    if matches!(fate, Ok(Fate::Reset)) {
                        for socket in [from.as_ref(), to.as_ref()] {
                            let _ = SockRef::from(socket).set_linger(Some(Duration::ZERO));
                        }
                        // Dropped in the usual way it would say FIN first.
                        to.forget();
                    }
                    return;
                }
                alive = step => if !alive {
                    if self.is_dead() {
                        // The other side learns nothing of this end.
                        to.forget();
                    } else {
                        self.decide.send_replace(Fate::Ended);
                    }
                    return;
                },
            }
        }
    }

    fn is_dead(&self) -> bool {
        self.poisoned || *self.fate.borrow() == Fate::Frozen
    }

    /// Passes a piece on, as the faults of now allow. False when the other side is gone.
    async fn pass(&mut self, piece: &[u8], to: &mut OwnedWriteHalf) -> bool {
        let faults = self.shared.faults.lock().unwrap().clone();
        self.poisoned |= match self.way {
            Way::Up => faults.drop_up,
            Way::Down => faults.drop_down,
        };
        let piece = if self.shared.opaque { Some(piece.to_vec()) } else { self.read(piece, &faults) };
        if self.is_dead() {
            return true;
        }
        let Some(mut piece) = piece else { return true };
        self.garble(&mut piece, &faults);
        for part in piece.chunks(if faults.byte_by_byte { 1 } else { 1000 }) {
            if let Some(rate) = faults.bytes_per_s {
                tokio::time::sleep(Duration::from_micros(part.len() as u64 * 1_000_000 / rate)).await;
            }
            if !faults.delay.is_zero() {
                tokio::time::sleep(faults.delay).await;
            }
            if self.is_dead() {
                return true;
            }
            if to.write_all(part).await.is_err() {
                return false;
            }
        }
        true
    }

    fn garble(&self, piece: &mut Vec<u8>, faults: &Faults) {
        let chance = if self.way == Way::Up { faults.garble_up } else { faults.garble_down };
        let mut dice = self.shared.dice.lock().unwrap();
        if chance == 0 || piece.is_empty() || !dice.chance(chance) {
            return;
        }
        self.shared.book.lock().unwrap().garbled += 1;
        let place = dice.below(piece.len());
        match dice.below(4) {
            0 => piece[place] ^= dice.byte() | 1,
            1 => {
                let count = dice.below(4) + 1;
                piece.splice(place..place, dice.bytes(count));
            }
            2 => piece.truncate(place),
            _ => *piece = dice.bytes(piece.len()),
        }
    }

    /// Keeps book of the packets in a piece; gives what goes on. `None`: nothing whole yet.
    fn read(&mut self, piece: &[u8], faults: &Faults) -> Option<Vec<u8>> {
        let mut on = Vec::new();
        let whole = self.frames.push(piece);
        let mut book = self.shared.book.lock().unwrap();
        for frame in whole {
            match (self.way, frame.kind()) {
                (Way::Up, 1) => self.level.store(frame.body()[6], Ordering::Relaxed),
                (Way::Up, 3) => {
                    if let Some((id, key)) = event_of(&frame, self.level.load(Ordering::Relaxed)) {
                        *book.sent.entry(key.clone()).or_default() += 1;
                        book.waiting.insert((self.line, id), key);
                    }
                }
                (Way::Down, 4) => {
                    let body = frame.body();
                    let id = u16::from_be_bytes([body[0], body[1]]);
                    let reason = body.get(2).copied().unwrap_or(0);
                    let key = book.waiting.remove(&(self.line, id));
                    if faults.swallow_pubacks {
                        book.swallowed += 1;
                        continue;
                    }
                    if let Some(key) = key
                        && reason == 0
                        && !self.is_dead()
                    {
                        *book.acknowledged.entry(key).or_default() += 1;
                    }
                }
                _ => {}
            }
            on.extend(frame.0);
        }
        // To the broker everything goes at once: only the book waits for whole packets.
        if self.way == Way::Up { Some(piece.to_vec()) } else { Some(on).filter(|on| !on.is_empty()) }
    }
}

/// A whole packet, fixed header included.
struct Frame(Vec<u8>);

impl Frame {
    fn kind(&self) -> u8 {
        self.0[0] >> 4
    }

    fn body(&self) -> &[u8] {
        let header = 1 + self.0[1..].iter().take_while(|byte| **byte & 0x80 != 0).count() + 1;
        &self.0[header..]
    }
}

/// Puts packets together.
#[derive(Default)]
struct Frames(Vec<u8>);

impl Frames {
    fn push(&mut self, piece: &[u8]) -> Vec<Frame> {
        self.0.extend(piece);
        let mut whole = Vec::new();
        while let Some(length) = self.length().filter(|length| *length <= self.0.len()) {
            let rest = self.0.split_off(length);
            whole.push(Frame(std::mem::replace(&mut self.0, rest)));
        }
        whole
    }

    /// Of the packet at the front (MQTT 5 §2.1.4).
    fn length(&self) -> Option<usize> {
        let mut length = 0;
        for (place, byte) in self.0.iter().skip(1).take(4).enumerate() {
            length |= usize::from(byte & 0x7F) << (7 * place);
            if byte & 0x80 == 0 {
                return Some(2 + place + length);
            }
        }
        None
    }
}

/// The packet id and key of an event (MQTT 5 §3.3).
fn event_of(frame: &Frame, level: u8) -> Option<(u16, Key)> {
    let body = frame.body();
    let topic_len = usize::from(u16::from_be_bytes([body[0], body[1]]));
    let topic = std::str::from_utf8(body.get(2..2 + topic_len)?).ok()?;
    let id = body.get(2 + topic_len..4 + topic_len)?;
    let mut payload = body.get(4 + topic_len..)?;
    if level == 5 {
        let properties = usize::from(*payload.first()?);
        assert!(properties < 0x80, "the gateway's properties are short");
        payload = payload.get(1 + properties..)?;
    }
    if !topic.contains("/event/") {
        return None;
    }
    let event: serde_json::Value = serde_json::from_slice(payload).ok()?;
    let text = |name: &str| event[name].as_str().unwrap().to_owned();
    let key = (text("epoch"), text("class"), text("classsequence").parse().unwrap());
    Some((u16::from_be_bytes([id[0], id[1]]), key))
}
