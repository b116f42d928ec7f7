//! Sectors that the disk does not give back, however often it is asked: no start fails at one for ever, it
//! salvages what can be read. strace fails the reads of one file.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod store_setup;

use std::path::Path;
use std::process::{Command, Stdio};

use baygate::event::Class;
use baygate::event::gateway::EpochReason;
use baygate::store::{Store, inspect};
use store_setup::{fact, grown, options, positions};

/// Events in the file, and in the WAL alone.
const IN_THE_FILE: usize = 1500;
const IN_THE_WAL: usize = 40;

#[test]
#[ignore = "plays the other process"]
fn plays_a_start() {
    let dir = std::env::var("STORE_DIR").unwrap();
    let (_store, opened) = Store::open(&options(Path::new(&dir))).unwrap();
    assert_eq!(opened.new_epoch, Some(EpochReason::Salvaged));
    println!("\ncomplete {}", opened.salvaged.unwrap().requests_complete);
}

/// A start whose reads of a file fail, at these counts of a call; whether all that card writes rest on was
/// read, and the reads of the file.
fn start(dir: &Path, file: &str, call: &str, when: &str) -> (bool, String) {
    let log = dir.with_extension("log");
    let played = Command::new("strace")
        .args(["-f", "-qq", "-s", "0", "-e", &format!("trace={call}"), "-o"])
        .arg(&log)
        .args(["-e", &format!("inject={call}:error=EIO{when}"), "-P"])
        .arg(dir.join(file))
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "plays_a_start", "--ignored", "--nocapture"])
        .env("STORE_DIR", dir)
        .stdin(Stdio::null())
        .output()
        .expect("strace must be installed");
    let said = String::from_utf8_lossy(&played.stdout);
    let log = std::fs::read_to_string(log).unwrap();
    assert!(
        played.status.success(),
        "{file} {call}{when}: {said}\n{}",
        String::from_utf8_lossy(&played.stderr)
    );
    assert!(log.contains("INJECTED"), "{file} {call}{when}: nothing failed");
    (said.contains("complete true"), log)
}

/// The file, and commits that are in its WAL alone.
async fn base(dir: &Path) -> [(&'static str, Vec<u8>); 2] {
    grown(dir, IN_THE_FILE as u64).await;
    let (store, _) = Store::open(&options(dir)).unwrap();
    for _ in 0..IN_THE_WAL {
        store.commit(fact(Class::Card)).await.unwrap();
    }
    let files =
        ["", "-wal"].map(|suffix| (suffix, std::fs::read(dir.join(format!("baygate.db{suffix}"))).unwrap()));
    store.close().await;
    files
}

/// The mark of a salvage that has begun, and the name of the damaged file.
const MARK: (&str, &str) = ("baygate.damaged", "baygate.db.damaged-7");

#[tokio::test(flavor = "multi_thread")]
async fn no_lost_sector_fails_every_start() {
    let dir = tempfile::tempdir().unwrap();
    let files = base(&dir.path().join("base")).await;
    let of_wal = format!("{}-wal", MARK.1);
    let mut to_the_copy = 0;
    // (what, the file, the call, when it fails, marked, events kept, what card writes rest on is there)
    for (what, file, call, when, marked, kept, complete) in [
        ("the header", "baygate.db", "read", ":when=1..2", false, IN_THE_FILE + IN_THE_WAL, true),
        (
            "a page that the start reads",
            "baygate.db",
            "pread64",
            ":when=1",
            false,
            IN_THE_FILE + IN_THE_WAL,
            true,
        ),
        ("all of the WAL", &of_wal, "pread64", "", true, IN_THE_FILE, false),
        ("all of the file", MARK.1, "pread64", "", true, 0, false),
        ("the first page", MARK.1, "pread64", "the copy", true, IN_THE_FILE + IN_THE_WAL, false),
    ] {
        let data = dir.path().join(what.replace(' ', "-"));
        std::fs::create_dir(&data).unwrap();
        for (suffix, bytes) in &files {
            std::fs::write(data.join(format!("baygate.db{suffix}")), bytes).unwrap();
        }
        if marked {
            std::fs::write(data.join(MARK.0), format!("{}\ntest\n", MARK.1)).unwrap();
        }
        // SQLite's reads, the copy's first of many pages, and that of the first page alone.
        let first_page = format!(":when=1..{}", to_the_copy + 2);
        let when = if when == "the copy" { &first_page } else { when };
        let (is_complete, log) = start(&data, file, call, when);
        assert_eq!(is_complete, complete, "{what}");
        if what == "all of the file" {
            let bytes = |line: &str| line.split(", ").nth(2).and_then(|bytes| bytes.parse::<u32>().ok());
            to_the_copy =
                log.lines().take_while(|line| bytes(line).is_some_and(|bytes| bytes <= 4096)).count();
            assert!(to_the_copy > 0, "{log}");
        }
        // Without a fault: it is done.
        assert!(inspect::verify(&data, &mut |_| {}).unwrap().sound, "{what}");
        let (store, opened) = Store::open(&options(&data)).unwrap();
        assert_eq!((opened.new_epoch, opened.salvaged), (None, None), "{what}");
        let found = positions(&store, Class::Card).await.len();
        // The latest state of some pages lies in the WAL alone.
        let at_least = if what == "all of the file" { 1 } else { kept };
        assert!(found >= at_least && found <= IN_THE_FILE + IN_THE_WAL, "{what}: {found}");
        store.close().await;
    }
}
