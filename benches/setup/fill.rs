//! Logs filled beforehand, through the store's own door.

use std::path::Path;
use std::time::Instant;

use baygate::clock::{TimeQuality, UtcMillis};
use baygate::event::{Class, NewEvent, Source};
use baygate::store::cursors::CursorOp;
use baygate::store::{Batch, Op, Store, StoreOptions};
use rusqlite::Connection;
use serde_json::value::RawValue;

use super::daemon::Site;

/// The body of every benchmark's event, in bytes.
pub const BODY_BYTES: usize = 512;
/// Who speaks.
pub fn source() -> Source {
    Source { store: "SH-0042".parse().unwrap(), gateway: "gw-1".parse().unwrap() }
}

pub fn options(folder: &Path) -> StoreOptions {
    StoreOptions {
        data_dir: folder.to_owned(),
        source: source(),
        machine_id: None,
        max_bytes: 4 << 30,
        limits: Vec::new(),
    }
}

/// A body of exactly [`BODY_BYTES`], a little different each time.
pub fn body(n: usize) -> String {
    let head = format!("{{\"n\":{n},\"filling\":\"");
    let filling = "k3J9xQ".chars().cycle().take(BODY_BYTES - head.len() - 2);
    head.chars().chain(filling).chain("\"}".chars()).collect()
}

pub fn event(class: Class, n: usize) -> NewEvent {
    let (kind, subject) = match class {
        Class::Card => ("card.tapped", format!("card/04{n:012X}")),
        Class::Device => ("device.state", "reader/counter-1".to_owned()),
        _ => ("vehicle.signals", "vehicle/LSVAG2180E2100001".to_owned()),
    };
    NewEvent {
        id: uuid::Uuid::now_v7(),
        kind,
        class,
        subject,
        time: UtcMillis::now(),
        time_quality: TimeQuality::Synced,
        data: RawValue::from_string(body(n)).unwrap(),
    }
}

/// Fills a log with `rows` undelivered events: half card, the rest device and telemetry.
/// The local readers have passed them, as they would have while the broker was away.
pub async fn fill(folder: &Path, rows: usize) {
    let (store, _) = Store::open(&options(folder)).unwrap();
    let mut n = 0;
    let mut last = None;
    while n < rows {
        let mut batch = Batch::new();
        for _ in 0..500.min(rows - n) {
            let class = match n % 4 {
                0 | 1 => Class::Card,
                2 => Class::Device,
                _ => Class::Telemetry,
            };
            batch = batch.event(event(class, n));
            n += 1;
        }
        store.commit(batch).await.unwrap();
        last = Some(store.head().borrow().last);
    }
    if let Some(to) = last {
        let passed = Op::Cursor(CursorOp::Advance { name: "maintenance", to });
        store.commit(Batch::new().op(passed)).await.unwrap();
    }
    store.close().await;
}

/// One row, durable, without us, in a database of its own beside the daemon's.
pub struct OneRow {
    conn: Connection,
}

impl OneRow {
    pub fn new(site: &Site) -> Self {
        let conn = Connection::open(site.folder.path().join("one-row.db")).unwrap();
        conn.execute_batch("PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; CREATE TABLE row (body TEXT)")
            .unwrap();
        Self { conn }
    }

    pub fn commit(&mut self, n: usize) -> f64 {
        let body = body(n);
        let began = Instant::now();
        self.conn.execute("INSERT INTO row VALUES (?1)", [body]).unwrap();
        began.elapsed().as_secs_f64() * 1e3
    }
}
