//! A log of so many events, straight into the file.
#![allow(dead_code)] // each test file uses its part
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::path::Path;

use baygate::store::Store;
use rusqlite::params;
use sha2::{Digest, Sha256};

use crate::store_setup::options;

/// Events set aside (10,000 are kept).
pub const ASIDE: i64 = 9_000;

/// The seal of the schema: SHA-256 over the numbers, the boot with its length, and the SHA-256 over
/// what the event says, each with its length.
fn seal(numbers: [i64; 6], boot: &[u8], says: [&[u8]; 4]) -> i64 {
    let mut content = Sha256::new();
    for part in says {
        content.update((part.len() as u64).to_be_bytes());
        content.update(part);
    }
    let mut hash = Sha256::new();
    numbers.iter().for_each(|number| hash.update(number.to_be_bytes()));
    hash.update((boot.len() as u64).to_be_bytes());
    hash.update(boot);
    hash.update(content.finalize());
    i64::from_be_bytes(hash.finalize()[..8].try_into().unwrap())
}

/// So many events of class card, straight into the file.
pub async fn grown(dir: &Path, events: i64) {
    Store::open(&options(dir)).unwrap().0.close().await;
    let mut conn = rusqlite::Connection::open(dir.join("baygate.db")).unwrap();
    conn.execute_batch(
        "PRAGMA journal_mode = MEMORY; PRAGMA synchronous = OFF; PRAGMA cache_size = -200000;",
    )
    .unwrap();
    let tx = conn.transaction().unwrap();
    let mut insert = tx
        .prepare("INSERT INTO event VALUES (?,1,2,?1,?,'card.tapped','card/04A1B2C3',?,1,?,?,?,?)")
        .unwrap();
    let (boot, mut total) = (uuid::Uuid::now_v7(), 0);
    for n in 1..=events {
        let id = uuid::Uuid::from_u128(0x0192_0000_0000_7000_8000_0000_0000_0000 + n as u128);
        let data = format!(
            r#"{{"reader":"counter-1","uid":"04A1B2C3","technology":"mifare-classic-1k","latency_ms":{n}}}"#
        );
        let time = 1_795_000_000_000 + n;
        total += (data.len() + "card/04A1B2C3".len() + 160) as i64;
        let seal = seal(
            [n, 1, 2, n, time, 1],
            boot.as_bytes(),
            [id.as_bytes(), b"card.tapped", b"card/04A1B2C3", data.as_bytes()],
        );
        insert.execute(params![n, id.as_bytes(), time, boot.as_bytes(), data, total, seal]).unwrap();
    }
    drop(insert);
    tx.execute(
        "UPDATE class_counter SET last_sequence = ?1, last_offset = ?1, total_bytes = ?2, rows = ?1, bytes = ?2 WHERE class = 2",
        [events, total],
    )
    .unwrap();
    // So many were set aside: nearly as many as are kept.
    tx.execute(
        "INSERT INTO quarantine SELECT event_offset, class, '0x99', time, data FROM event WHERE event_offset <= ?1",
        [ASIDE],
    )
    .unwrap();
    tx.commit().unwrap();
    let _: String = conn.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0)).unwrap();
}
