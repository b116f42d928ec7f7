//! A broker written by hand, byte by byte after MQTT 5 §3 and MQTT 3.1.1 §3, on a
//! real socket. It does what its mood says, which can change while it runs, and
//! it keeps what it took as headquarters would.
#![allow(dead_code)] // each test file uses its part
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::OwnedReadHalf;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio_util::task::AbortOnDropHandle;

/// How it greets.
#[derive(Clone)]
pub enum Greet {
    /// Reads and never answers.
    Silence,
    /// Closes at once.
    HangUp,
    /// RST at once.
    Reset,
    /// CONNACK with this code, then it closes.
    Refuse(u8),
    /// These bytes instead of CONNACK, then nothing.
    Says(Vec<u8>),
    /// CONNACK, with these MQTT 5 properties.
    Welcome(Vec<u8>),
    /// CONNACK, then nothing.
    WelcomeAndSilence,
    /// CONNACK, these bytes, then nothing.
    WelcomeAndThen(Vec<u8>),
}

/// An event it heard.
pub struct Heard<'a> {
    pub topic: &'a str,
    /// Size of the packet's body.
    pub bytes: usize,
    /// Which event of its class it is.
    pub sequence: u64,
    /// Events heard so far, over all connections.
    pub nth: usize,
}

/// What it does with it.
pub enum Deed {
    Take,
    Refuse(u8),
    /// Refuses it, but only when so many more packets have come.
    RefuseLate(u8, usize),
    Ignore,
    HangUp,
    /// Answers with these bytes; `ID` stands for the packet id.
    Answer(Vec<u8>),
    /// Takes it, then sends these bytes, likewise.
    TakeThen(Vec<u8>),
}

/// How it behaves.
#[derive(Clone)]
pub struct Mood {
    pub greet: Greet,
    /// For each filter.
    pub suback: u8,
    pub event: Arc<dyn Fn(&Heard<'_>) -> Deed + Send + Sync>,
    /// Speaks as headquarters, too: `ack` for what it took in order.
    pub acks: bool,
}

impl Mood {
    pub fn good() -> Self {
        Self { greet: Greet::Welcome(Vec::new()), suback: 1, event: Arc::new(|_| Deed::Take), acks: false }
    }

    pub fn greets(greet: Greet) -> Self {
        Self { greet, ..Self::good() }
    }

    pub fn on_event(event: impl Fn(&Heard<'_>) -> Deed + Send + Sync + 'static) -> Self {
        Self { event: Arc::new(event), ..Self::good() }
    }
}

/// An event it took: epoch, class, class sequence, id.
pub type Taken = (String, String, u64, String);

#[derive(Default)]
struct Book {
    taken: Vec<Taken>,
    gaps: Vec<serde_json::Value>,
    /// By class: in order up to here.
    up_to: BTreeMap<String, u64>,
    dialled: Vec<Instant>,
    /// Publishes beyond what it had allowed.
    pushy: usize,
}

pub struct ScriptedBroker {
    pub port: u16,
    mood: watch::Sender<Mood>,
    shared: Arc<Shared>,
    _task: AbortOnDropHandle<()>,
}

#[derive(Default)]
struct Shared {
    connections: AtomicUsize,
    heard: AtomicUsize,
    signs_of_life: AtomicUsize,
    book: Mutex<Book>,
}

impl ScriptedBroker {
    pub async fn start(mood: Mood) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (mood, moods) = watch::channel(mood);
        let shared = Arc::<Shared>::default();
        let at_work = Arc::clone(&shared);
        let task = tokio::spawn(async move {
            loop {
                let Ok((stream, _)) = listener.accept().await else { continue };
                at_work.connections.fetch_add(1, Ordering::Relaxed);
                at_work.book.lock().unwrap().dialled.push(Instant::now());
                let mut changed = moods.clone();
                let mood = changed.borrow_and_update().clone();
                let shared = Arc::clone(&at_work);
                tokio::spawn(async move {
                    tokio::select! {
                        // Another mood: whoever is connected must come again.
                        _ = changed.changed() => {}
                        _ = converse(stream, mood, shared) => {}
                    }
                });
            }
        });
        Self { port, mood, shared, _task: AbortOnDropHandle::new(task) }
    }

    pub fn turns(&self, mood: Mood) {
        self.mood.send_replace(mood);
    }

    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::Relaxed)
    }

    /// Events heard, taken or not.
    pub fn heard(&self) -> usize {
        self.shared.heard.load(Ordering::Relaxed)
    }

    /// PINGREQ and `state`.
    pub fn signs_of_life(&self) -> usize {
        self.shared.signs_of_life.load(Ordering::Relaxed)
    }

    /// When it was dialled.
    pub fn dialled(&self) -> Vec<Instant> {
        self.shared.book.lock().unwrap().dialled.clone()
    }

    /// Publishes that came although its limits were used up.
    pub fn pushed(&self) -> usize {
        self.shared.book.lock().unwrap().pushy
    }

    /// Class sequences it took of a class, as they came, repetitions included.
    pub fn taken(&self, class: &str) -> Vec<u64> {
        let book = self.shared.book.lock().unwrap();
        book.taken.iter().filter(|(_, of, ..)| of == class).map(|(_, _, n, _)| *n).collect()
    }

    /// The `data` of the gaps it was told.
    pub fn gaps(&self) -> Vec<serde_json::Value> {
        self.shared.book.lock().unwrap().gaps.clone()
    }

    /// First arrivals of a class, without repetitions. One key under two ids fails.
    pub fn first_arrivals(&self, class: &str) -> Vec<u64> {
        let book = self.shared.book.lock().unwrap();
        let (mut ids, mut order) = (BTreeMap::new(), Vec::new());
        for (epoch, of, n, id) in book.taken.iter().filter(|(_, of, ..)| of == class) {
            match ids.insert((epoch, *n), id) {
                None => order.push(*n),
                Some(known) => assert_eq!(known, id, "{of} {n}: one key, two ids"),
            }
        }
        order
    }
}

/// What a consumer has that takes a class only in its order and leaves what comes beyond a hole.
pub fn taken_in_order(arrivals: &[u64]) -> u64 {
    arrivals.iter().fold(0, |up_to, n| if *n == up_to + 1 { *n } else { up_to })
}

struct Packet {
    first: u8,
    body: Vec<u8>,
}

async fn packet(stream: &mut OwnedReadHalf) -> std::io::Result<Packet> {
    let first = stream.read_u8().await?;
    let (mut length, mut shift) = (0_usize, 0);
    loop {
        let byte = stream.read_u8().await?;
        length |= usize::from(byte & 0x7F) << shift;
        shift += 7;
        if byte & 0x80 == 0 {
            break;
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await?;
    Ok(Packet { first, body })
}

/// A packet with its length.
pub fn frame(first: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    let mut rest = body.len();
    loop {
        let part = u8::try_from(rest % 128).unwrap();
        rest /= 128;
        bytes.push(if rest > 0 { part | 0x80 } else { part });
        if rest == 0 {
            break;
        }
    }
    bytes.extend(body);
    bytes
}

/// PUBLISH at QoS 0.
pub fn message(level: u8, topic: &str, payload: &[u8]) -> Vec<u8> {
    let mut body = u16::try_from(topic.len()).unwrap().to_be_bytes().to_vec();
    body.extend(topic.as_bytes());
    if level == 5 {
        body.push(0);
    }
    body.extend(payload);
    frame(0x30, &body)
}

fn puback(level: u8, id: &[u8], reason: u8) -> Vec<u8> {
    if level == 5 { frame(0x40, &[id[0], id[1], reason, 0]) } else { frame(0x40, id) }
}

fn connack(level: u8, code: u8, properties: &[u8]) -> Vec<u8> {
    if level == 5 {
        let length = u8::try_from(properties.len()).unwrap();
        frame(0x20, &[&[0, code, length][..], properties].concat())
    } else {
        frame(0x20, &[0, code])
    }
}

/// Until the line ends.
async fn for_ever(mut packets: mpsc::Receiver<Packet>) {
    while packets.recv().await.is_some() {}
}

async fn converse(stream: TcpStream, mood: Mood, shared: Arc<Shared>) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    match mood.greet {
        Greet::HangUp => return Ok(()),
        Greet::Reset => {
            SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
            return Ok(());
        }
        _ => {}
    }
    let (mut inward, mut out) = stream.into_split();
    let (pass, mut packets) = mpsc::channel(1000);
    let _reader = AbortOnDropHandle::new(tokio::spawn(async move {
        while let Ok(packet) = packet(&mut inward).await {
            if pass.send(packet).await.is_err() {
                return;
            }
        }
    }));
    let Some(connect) = packets.recv().await else { return Ok(()) };
    let level = connect.body[6];
    let mut allowed = usize::MAX;
    match mood.greet {
        Greet::Refuse(code) => return out.write_all(&connack(level, code, &[])).await,
        Greet::Says(bytes) => {
            out.write_all(&bytes).await?;
            for_ever(packets).await;
            return Ok(());
        }
        Greet::WelcomeAndSilence => {
            out.write_all(&connack(level, 0, &[])).await?;
            for_ever(packets).await;
            return Ok(());
        }
        Greet::WelcomeAndThen(bytes) => {
            out.write_all(&connack(level, 0, &[])).await?;
            out.write_all(&bytes).await?;
            for_ever(packets).await;
            return Ok(());
        }
        Greet::Welcome(properties) => {
            if let [0x21, high, low, ..] = properties[..] {
                allowed = usize::from(u16::from_be_bytes([high, low]));
            }
            out.write_all(&connack(level, 0, &properties)).await?;
        }
        _ => {
            for_ever(packets).await;
            return Ok(());
        }
    }
    let mut echoes = false;
    while let Some(Packet { first, body }) = packets.recv().await {
        match first >> 4 {
            8 => {
                let filters = filters(&body, level);
                echoes = mood.suback < 0x80 && filters.iter().any(|filter| filter.ends_with("/state"));
                let mut answer = body[..2].to_vec();
                if level == 5 {
                    answer.push(0);
                }
                answer.extend(vec![mood.suback; filters.len()]);
                out.write_all(&frame(0x90, &answer)).await?;
            }
            12 => {
                shared.signs_of_life.fetch_add(1, Ordering::Relaxed);
                out.write_all(&[0xD0, 0]).await?;
            }
            3 => {
                let topic_len = usize::from(u16::from_be_bytes([body[0], body[1]]));
                let topic = String::from_utf8_lossy(&body[2..2 + topic_len]).into_owned();
                let id = &body[2 + topic_len..4 + topic_len];
                let skip = if level == 5 { 1 + usize::from(body[4 + topic_len]) } else { 0 };
                let payload = &body[4 + topic_len + skip..];
                if allowed < usize::MAX {
                    // What else is on its way shows within a moment.
                    tokio::time::sleep(Duration::from_millis(5)).await;
                    shared.book.lock().unwrap().pushy += usize::from(packets.len() >= allowed);
                }
                let Some((base, _)) = topic.split_once("/event/") else {
                    shared.signs_of_life.fetch_add(1, Ordering::Relaxed);
                    out.write_all(&puback(level, id, 0)).await?;
                    if echoes {
                        out.write_all(&message(level, &topic, payload)).await?;
                    }
                    continue;
                };
                let event: serde_json::Value = serde_json::from_slice(payload).unwrap();
                let sequence = event["classsequence"].as_str().unwrap().parse().unwrap();
                let nth = shared.heard.fetch_add(1, Ordering::Relaxed) + 1;
                let heard = Heard { topic: &topic, bytes: body.len(), sequence, nth };
                match (mood.event)(&heard) {
                    Deed::Take => {
                        shared.take(&event);
                        out.write_all(&puback(level, id, 0)).await?;
                    }
                    Deed::TakeThen(bytes) => {
                        shared.take(&event);
                        out.write_all(&puback(level, id, 0)).await?;
                        out.write_all(&with_id(bytes, id)).await?;
                    }
                    Deed::Refuse(code) => out.write_all(&puback(level, id, code)).await?,
                    Deed::RefuseLate(code, more) => {
                        let limit = Instant::now() + Duration::from_secs(20);
                        while packets.len() < more && Instant::now() < limit {
                            tokio::time::sleep(Duration::from_millis(2)).await;
                        }
                        out.write_all(&puback(level, id, code)).await?;
                    }
                    Deed::Ignore => {}
                    Deed::HangUp => return Ok(()),
                    Deed::Answer(bytes) => out.write_all(&with_id(bytes, id)).await?,
                }
                if mood.acks {
                    let epoch = event["epoch"].clone();
                    let classes = shared.book.lock().unwrap().up_to.clone();
                    let word = serde_json::json!({ "epoch": epoch, "classes": classes }).to_string();
                    out.write_all(&message(level, &format!("{base}/ack"), word.as_bytes())).await?;
                }
            }
            _ => {}
        }
    }
    Ok(())
}

/// Puts the packet id where the bytes say `ID`.
fn with_id(mut bytes: Vec<u8>, id: &[u8]) -> Vec<u8> {
    while let Some(place) = bytes.windows(2).position(|pair| pair == b"ID") {
        bytes[place..place + 2].copy_from_slice(id);
    }
    bytes
}

fn filters(body: &[u8], level: u8) -> Vec<String> {
    let mut rest = &body[2..];
    if level == 5 {
        rest = &rest[1 + usize::from(rest[0])..];
    }
    let mut filters = Vec::new();
    while rest.len() > 2 {
        let length = usize::from(u16::from_be_bytes([rest[0], rest[1]]));
        filters.push(String::from_utf8_lossy(&rest[2..2 + length]).into_owned());
        rest = &rest[3 + length..];
    }
    filters
}

impl Shared {
    fn take(&self, event: &serde_json::Value) {
        let text = |name: &str| event[name].as_str().unwrap().to_owned();
        let (class, sequence) = (text("class"), text("classsequence").parse().unwrap());
        let mut book = self.book.lock().unwrap();
        if event["type"] == "baygate.gateway.gap" {
            book.gaps.push(event["data"].clone());
        }
        let up_to = book.up_to.entry(class.clone()).or_default();
        if sequence == *up_to + 1 {
            *up_to = sequence;
        }
        book.taken.push((text("epoch"), class, sequence, text("id")));
    }
}
