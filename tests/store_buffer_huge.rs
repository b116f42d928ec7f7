//! `baygate buffer` on a huge database: every command ends, in flat memory. A million
//! events; `BAYGATE_EVENTS` asks for more or fewer.
//!
//! The damaged one has a fifth of that: `BAYGATE_EVENTS=5000000` for a million.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "support/buffer_command.rs"]
mod buffer_command;
mod store_setup;

use std::io::{BufRead, BufReader};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use baygate::store::Store;
use buffer_command::measured;
use rusqlite::params;
use sha2::{Digest, Sha256};
use store_setup::options;

/// Resident memory of a command, at most, in kB.
const MOST_KB: u64 = 64 * 1024;
/// Far more than any of it takes: what is longer hangs.
const DEADLINE: Duration = Duration::from_secs(300);

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
async fn grown(dir: &Path, events: i64) {
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
    tx.commit().unwrap();
    let _: String = conn.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0)).unwrap();
}

/// Runs a command; its exit status, its last line, and the memory it took at most, in kB.
fn run(dir: &Path, words: &[&str]) -> (i32, String, u64) {
    let run = measured(dir, words, DEADLINE);
    println!("{:<12} {:>8.1?} {:>7} kB", words[0], run.took, run.most_kb);
    let said = String::from_utf8(run.output.stdout).unwrap();
    let last = said.lines().last().unwrap_or_default().to_owned();
    (run.output.status.code().unwrap_or(-1), last, run.most_kb)
}

fn lines(path: &Path) -> u64 {
    BufReader::new(std::fs::File::open(path).unwrap()).split(b'\n').count() as u64
}

#[tokio::test]
async fn every_command_ends_in_flat_memory() {
    let events: i64 =
        std::env::var("BAYGATE_EVENTS").ok().map_or(1_000_000, |events| events.parse().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let since = Instant::now();
    grown(&data, events).await;
    let bytes = std::fs::metadata(data.join("baygate.db")).unwrap().len();
    println!("{events} events, {} MB, made in {:.1?}", bytes >> 20, since.elapsed());
    let (out, copy) = (dir.path().join("out.jsonl"), dir.path().join("copy.db"));
    let (out_text, copy_text) = (out.to_str().unwrap(), copy.to_str().unwrap());
    for words in [
        vec!["status", "--json"],
        vec!["quarantine", "list"],
        vec!["export", "--output", out_text],
        // Copies, and reads the copy in full, as `verify` does.
        vec!["backup", copy_text],
        vec!["restore", copy_text],
    ] {
        let (code, last, most) = run(&data, &words);
        assert_eq!(code, 0, "{words:?}: {last}");
        assert!(most < MOST_KB, "{words:?} took {most} kB");
    }
    assert_eq!(lines(&out), events as u64);
    // A damaged one is copied row by row before it is exported: a fifth of the size will do.
    let events = events / 5;
    let data = dir.path().join("damaged");
    grown(&data, events).await;
    let path = data.join("baygate.db");
    let bytes = std::fs::metadata(&path).unwrap().len();
    let file = std::fs::File::options().read(true).write(true).open(&path).unwrap();
    let (mut page, mut at) = ([0; 4096], bytes / 8192 * 4096);
    loop {
        file.read_exact_at(&mut page, at).unwrap();
        if page[0] == 13 {
            break;
        }
        at += 4096;
    }
    let rows = u64::from(u16::from_be_bytes([page[3], page[4]]));
    file.write_all_at(&[0; 4096], at).unwrap();
    drop(file);
    let (code, last, most) = run(&data, &["verify", "--json"]);
    assert_eq!(code, 1, "{last}");
    assert!(last.contains("\"sound\":false") && most < MOST_KB, "{last}: {most} kB");
    let (code, last, most) = run(&data, &["export", "--output", out_text]);
    assert_eq!(code, 1, "{last}");
    assert_eq!(lines(&out), events as u64 - rows);
    assert!(most < MOST_KB, "export of a damaged file took {most} kB");
    let left: Vec<_> =
        std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left.len(), 4, "{left:?}");
}
