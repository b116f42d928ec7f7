//! A tap on the wire between daemon and broker: passes every byte on, reads the
//! MQTT packets as they go by (MQTT 5 §3.3, §3.4), and knows which event got its
//! PUBACK, and whether each class began its events in their order. It can cut the wire,
//! or swallow what the broker says.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::Value;
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use uuid::Uuid;

use super::port::free_port;

#[derive(Debug, Default)]
struct Shared {
    /// Event → how often it was published, and how often it got a PUBACK.
    seen: Mutex<BTreeMap<Uuid, (u32, u32)>>,
    /// Event → the SHA-256 of its body; one that was not the same each time.
    bodies: Mutex<BTreeMap<Uuid, String>>,
    altered: Mutex<Vec<Uuid>>,
    /// Epoch and class → the furthest class sequence that went by.
    furthest: Mutex<BTreeMap<(String, String), u64>>,
    /// What went by before one that stands in front of it had ever gone by.
    ahead: Mutex<Vec<String>>,
    swallow: AtomicBool,
    cut: Mutex<CancellationToken>,
}

pub struct Tap {
    pub port: u16,
    shared: Arc<Shared>,
    _task: AbortOnDropHandle<()>,
}

/// Packet ids under way in one connection, and its protocol level.
#[derive(Default)]
struct Connection {
    flying: HashMap<u16, Uuid>,
    level: u8,
}

impl Tap {
    pub async fn on(broker: u16) -> Self {
        let port = free_port();
        let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
        let shared = Arc::new(Shared::default());
        let tapped = Arc::clone(&shared);
        let task = tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                // A broker that is away hangs up.
                let Ok(far) = TcpStream::connect(("127.0.0.1", broker)).await else { continue };
                let cut = tapped.cut.lock().unwrap().clone();
                let shared = Arc::clone(&tapped);
                tokio::spawn(async move { cut.run_until_cancelled(carry(near, far, shared)).await });
            }
        });
        Self { port, shared, _task: AbortOnDropHandle::new(task) }
    }

    /// Every connection breaks now.
    pub fn cut(&self) {
        let fresh = CancellationToken::new();
        std::mem::replace(&mut *self.shared.cut.lock().unwrap(), fresh).cancel();
        self.shared.swallow.store(false, Ordering::SeqCst);
    }

    /// Until the next cut nothing the broker says arrives.
    pub fn swallow(&self) {
        self.shared.swallow.store(true, Ordering::SeqCst);
    }

    /// The SHA-256 of each event's body, which was the same in every copy.
    pub fn bodies(&self) -> BTreeMap<Uuid, String> {
        assert_eq!(*self.shared.altered.lock().unwrap(), Vec::<Uuid>::new(), "sent again, and altered");
        self.shared.bodies.lock().unwrap().clone()
    }

    /// Events went by for the first time in the order of their class, without a hole: what goes
    /// by again may begin anywhere behind.
    pub fn assert_in_order(&self) {
        assert_eq!(*self.shared.ahead.lock().unwrap(), Vec::<String>::new(), "published out of order");
        assert!(!self.shared.furthest.lock().unwrap().is_empty(), "nothing went by");
    }

    /// How often each event was published and acknowledged.
    pub fn seen(&self) -> BTreeMap<Uuid, (u32, u32)> {
        self.shared.seen.lock().unwrap().clone()
    }
}

impl Shared {
    fn look_at_the_order(&self, event: &Value) {
        let text = |name: &str| event[name].as_str().unwrap().to_owned();
        let sequence: u64 = text("classsequence").parse().unwrap();
        let mut furthest = self.furthest.lock().unwrap();
        let furthest = furthest.entry((text("epoch"), text("class"))).or_default();
        if sequence > *furthest + 1 {
            self.ahead.lock().unwrap().push(format!("{furthest} was the furthest before {event}"));
        }
        *furthest = sequence.max(*furthest);
    }
}

async fn carry(near: TcpStream, far: TcpStream, shared: Arc<Shared>) {
    let connection = Mutex::new(Connection::default());
    let (mut near_in, mut near_out) = near.into_split();
    let (mut far_in, mut far_out) = far.into_split();
    let up = async {
        let (mut packets, mut bytes) = (Packets::default(), vec![0; 64 * 1024]);
        while let Ok(count @ 1..) = near_in.read(&mut bytes).await {
            for packet in packets.push(&bytes[..count]) {
                connection.lock().unwrap().published(&packet, &shared);
            }
            if far_out.write_all(&bytes[..count]).await.is_err() {
                return;
            }
        }
    };
    let down = async {
        let (mut packets, mut bytes) = (Packets::default(), vec![0; 64 * 1024]);
        while let Ok(count @ 1..) = far_in.read(&mut bytes).await {
            if shared.swallow.load(Ordering::SeqCst) {
                // Nothing more of this connection may come through: half a packet would be garbage.
                std::future::pending::<()>().await;
            }
            for packet in packets.push(&bytes[..count]) {
                connection.lock().unwrap().acknowledged(&packet, &shared);
            }
            if near_out.write_all(&bytes[..count]).await.is_err() {
                return;
            }
        }
    };
    // Either end gone is the end of both.
    tokio::select! {
        () = up => {}
        () = down => {}
    }
}

impl Connection {
    fn published(&mut self, packet: &[u8], shared: &Shared) {
        let (kind, body) = (packet[0], body(packet));
        if kind == 0x10 {
            self.level = body[6];
        }
        if kind & 0xF6 != 0x32 {
            return;
        }
        let topic_len = usize::from(u16::from_be_bytes([body[0], body[1]]));
        let topic = String::from_utf8_lossy(&body[2..2 + topic_len]).into_owned();
        let after = &body[2 + topic_len..];
        let id = u16::from_be_bytes([after[0], after[1]]);
        let mut payload = &after[2..];
        if self.level == 5 {
            let (properties, width) = variable(payload);
            payload = &payload[width + properties..];
        }
        if topic.contains("/event/") {
            let event: Value = serde_json::from_slice(payload).unwrap();
            shared.look_at_the_order(&event);
            let event: Uuid = event["id"].as_str().unwrap().parse().unwrap();
            self.flying.insert(id, event);
            let body = hex::encode(Sha256::digest(payload));
            let first = shared.bodies.lock().unwrap().entry(event).or_insert_with(|| body.clone()).clone();
            if first != body {
                shared.altered.lock().unwrap().push(event);
            }
            shared.seen.lock().unwrap().entry(event).or_default().0 += 1;
        }
    }

    fn acknowledged(&mut self, packet: &[u8], shared: &Shared) {
        let body = body(packet);
        if packet[0] != 0x40 {
            return;
        }
        let event = self.flying.remove(&u16::from_be_bytes([body[0], body[1]]));
        // 0x10, no subscriber, and what is 0x80 or above are no delivery.
        if let (Some(event), 0) = (event, body.get(2).copied().unwrap_or(0)) {
            shared.seen.lock().unwrap().entry(event).or_default().1 += 1;
        }
    }
}

/// A variable byte integer and its width (MQTT 5 §1.5.5).
fn variable(bytes: &[u8]) -> (usize, usize) {
    let width = bytes.iter().take(4).position(|byte| byte & 0x80 == 0).map_or(4, |end| end + 1);
    let value = bytes[..width].iter().rev().fold(0, |value, byte| value << 7 | usize::from(byte & 0x7F));
    (value, width)
}

fn body(packet: &[u8]) -> &[u8] {
    &packet[1 + variable(&packet[1..]).1..]
}

/// Cuts a byte stream into packets.
#[derive(Default)]
struct Packets(Vec<u8>);

impl Packets {
    fn push(&mut self, bytes: &[u8]) -> Vec<Vec<u8>> {
        self.0.extend_from_slice(bytes);
        let mut whole = Vec::new();
        loop {
            let header = self.0.iter().skip(1).take(4).position(|byte| byte & 0x80 == 0);
            let Some(last) = header else { return whole };
            let (length, width) = variable(&self.0[1..=last + 1]);
            let end = 1 + width + length;
            if self.0.len() < end {
                return whole;
            }
            let rest = self.0.split_off(end);
            whole.push(std::mem::replace(&mut self.0, rest));
        }
    }
}
