//! What the store's stories share: options, facts, waiting for a condition.

#![allow(dead_code, unused_imports, clippy::unwrap_used, clippy::panic)]

// Some tests load it themselves, too.
#[allow(clippy::duplicate_mod)]
#[path = "../support/store.rs"]
mod store;

use std::path::Path;
use std::time::{Duration, Instant};

use baygate::event::{Class, NewEvent};
use baygate::store::outbox::{ClassCursor, OutboxOp};
use baygate::store::tokens::TokenOp;
use baygate::store::{Batch, ClassLimit, Op, Store};

pub use store::options;

pub fn limit(keep_bytes: Option<u64>, keep_delivered_ms: i64) -> ClassLimit {
    ClassLimit { keep_bytes, keep_delivered_ms }
}

/// An event of any class with about `bytes` bytes of data.
pub fn event(class: Class, bytes: usize) -> NewEvent {
    let data = format!(r#"{{"note":"{}"}}"#, "x".repeat(bytes));
    NewEvent {
        id: uuid::Uuid::now_v7(),
        kind: "device.state",
        class,
        subject: "reader/r".into(),
        time: baygate::clock::UtcMillis::now(),
        time_quality: baygate::clock::TimeQuality::Unsynced,
        data: serde_json::value::RawValue::from_string(data).unwrap(),
    }
}

pub fn fact(class: Class) -> Batch {
    Batch::new().event(event(class, 100))
}

pub fn delivered(class: Class, epoch_no: i64, sequence: u64) -> Batch {
    let to = ClassCursor { epoch_no, class_sequence: baygate::ident::Seq(sequence) };
    Batch::new().op(Op::Outbox(OutboxOp::Delivered { class, to }))
}

/// A till's token, for reading.
pub fn token(sha256: [u8; 32]) -> Batch {
    let (id, name, scopes) = (uuid::Uuid::now_v7(), "till".into(), vec!["read".into()]);
    Batch::new().op(Op::Token(TokenOp::Create { id, name, sha256, scopes, till: None }))
}

/// A closed database with so many card events.
pub async fn grown(dir: &Path, events: u64) {
    let (store, _) = Store::open(&options(dir)).unwrap();
    for _ in 0..events / 10 {
        let batch = (0..10).fold(Batch::new(), |batch, _| batch.event(event(Class::Card, 300)));
        store.commit(batch).await.unwrap();
    }
    store.close().await;
}

/// Every event of a class in the log: (epoch number, class sequence).
pub async fn positions(store: &Store, class: Class) -> Vec<(i64, u64)> {
    let mut found: Vec<(i64, u64)> = Vec::new();
    loop {
        let after = found.last().map_or(ClassCursor::default(), |(epoch_no, sequence)| ClassCursor {
            epoch_no: *epoch_no,
            class_sequence: baygate::ident::Seq(*sequence),
        });
        let page = store.read(move |r| r.class_events_after(class, after, 500)).await.unwrap();
        if page.is_empty() {
            return found;
        }
        found.extend(page.iter().map(|e| (e.cursor.epoch_no, e.cursor.class_sequence.0)));
    }
}

/// Waits until the condition holds, at most 30 s.
pub async fn until<F, R>(what: &str, mut condition: F)
where
    F: FnMut() -> R,
    R: Future<Output = bool>,
{
    let deadline = Instant::now() + Duration::from_secs(30);
    while !condition().await {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// This test binary again, running only the (ignored) test `name`, which plays another process.
pub fn child(name: &str, dir: &Path) -> std::process::Child {
    std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--ignored", "--nocapture", "--test-threads=1"])
        .env("STORE_DIR", dir)
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap()
}
