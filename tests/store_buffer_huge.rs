//! `baygate buffer` on a huge database: every command ends, in flat memory. A million
//! events; `BAYGATE_EVENTS` asks for more or fewer.
//!
//! The damaged one has a fifth of that: `BAYGATE_EVENTS=5000000` for a million.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "support/buffer_command.rs"]
mod buffer_command;
#[path = "support/huge_log.rs"]
mod huge_log;
mod store_setup;

use std::io::{BufRead, BufReader};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use buffer_command::{measured, most_kb};
use huge_log::{ASIDE, grown};
use sha2::{Digest, Sha256};

/// Resident memory of a command, at most, in kB: 27,000 to 40,000 were seen, also of those that salvage.
const MOST_KB: u64 = 48 * 1024;
/// Far more than any of it takes: what is longer hangs.
const DEADLINE: Duration = Duration::from_secs(300);
/// What a command said on standard output, and how it ended.
struct Said {
    code: i32,
    lines: usize,
    last: String,
    errors: String,
}

/// Runs a command, in flat memory.
fn run(dir: &Path, words: &[&str]) -> Said {
    let run = measured(dir, words, DEADLINE);
    println!("{:<12} {:>8.1?} {:>7} kB", words[0], run.took, run.most_kb);
    assert!(run.most_kb < MOST_KB, "{words:?} took {} kB", run.most_kb);
    let said = String::from_utf8(run.output.stdout).unwrap();
    Said {
        code: run.output.status.code().unwrap_or(-1),
        lines: said.lines().count(),
        last: said.lines().last().unwrap_or_default().to_owned(),
        errors: String::from_utf8_lossy(&run.output.stderr).into_owned(),
    }
}

fn lines(path: &Path) -> u64 {
    BufReader::new(std::fs::File::open(path).unwrap()).split(b'\n').count() as u64
}

/// A child that is not the program yet has the memory of who made it, and this test needs far more
/// than a command may.
#[test]
fn what_is_not_the_program_yet_is_not_measured() {
    assert_eq!(most_kb(std::process::id()), None);
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
        vec!["verify", "--json"],
        vec!["quarantine", "list"],
        vec!["quarantine", "dump"],
        vec!["export", "--output", out_text],
        // Copies, and reads the copy in full, as `verify` does.
        vec!["backup", copy_text],
        vec!["restore", copy_text],
    ] {
        let said = run(&data, &words);
        assert_eq!(said.code, 0, "{words:?}: {} {}", said.last, said.errors);
        match words[0] {
            "verify" => {
                let rows = format!("\"rows\":{}", events + ASIDE.min(events));
                assert!(said.last.contains("\"sound\":true") && said.last.contains(&rows), "{}", said.last);
            }
            "quarantine" => assert_eq!(said.lines as i64, ASIDE.min(events), "{words:?}"),
            _ => {}
        }
    }
    assert_eq!(lines(&out), events as u64);
    // A damaged one is copied row by row before it is exported: a fifth of the size will do.
    let events = events / 5;
    let data = dir.path().join("damaged");
    grown(&data, events).await;
    let (good, refused) = (dir.path().join("good.db"), dir.path().join("refused.db"));
    assert_eq!(run(&data, &["backup", good.to_str().unwrap()]).code, 0);
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
    let said = run(&data, &["verify", "--json"]);
    assert!(said.code == 1 && said.last.contains("\"sound\":false"), "{}", said.last);
    let said = run(&data, &["export", "--output", out_text]);
    assert_eq!(said.code, 1, "{}", said.errors);
    assert_eq!(lines(&out), events as u64 - rows);
    for words in [["quarantine", "list"], ["quarantine", "dump"]] {
        let said = run(&data, &words);
        assert_eq!((said.code, said.lines as i64), (0, ASIDE.min(events)), "{words:?}: {}", said.errors);
    }
    // What is damaged is not copied as if it were good, and leaves no half copy.
    let said = run(&data, &["backup", refused.to_str().unwrap()]);
    assert!(said.code == 1 && said.errors.contains("damaged"), "{}", said.errors);
    let mut left: Vec<_> =
        std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["copy.db", "damaged", "data", "good.db", "out.jsonl"]);
    // A good one comes back over it; the damaged one is kept, whole.
    let damaged = Sha256::digest(std::fs::read(&path).unwrap());
    let said = run(&data, &["restore", good.to_str().unwrap()]);
    assert_eq!(said.code, 0, "{}", said.errors);
    let names = std::fs::read_dir(&data).unwrap().map(|entry| entry.unwrap().path());
    let aside = |path: &std::path::PathBuf| {
        let name = path.to_str().unwrap();
        name.contains(".before-restore-") && !name.ends_with("-wal") && !name.ends_with("-shm")
    };
    let aside: Vec<_> = names.filter(aside).collect();
    assert!(aside.len() == 1 && Sha256::digest(std::fs::read(&aside[0]).unwrap()) == damaged, "{aside:?}");
    let said = run(&data, &["verify", "--json"]);
    assert!(said.code == 0 && said.last.contains("\"sound\":true"), "{}", said.last);
}
