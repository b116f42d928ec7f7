//! The store's threads, one call at a time: for every write and every sync that
//! the thread makes in a bounded story, the process is killed before it, or the
//! call fails with ENOSPC or EIO, once or from there on. Nothing that was told
//! is ever lost, nothing is there by halves, and nobody repairs anything.
//!
//! A kill leaves the kernel's page cache as it is: these runs prove the order of
//! writes, answers and transactions, not that the syncs reach the disk. A store
//! that does not sync passes them; it is caught where the power is cut.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod every_call;

use std::path::Path;

use baygate::event::gateway::EpochReason;
use baygate::store::Store;
use every_call::judge::Opening;
use every_call::run::{Stage, Tally, every_call, holds};
use every_call::{counter, player, story};
use rusqlite::Connection;

#[test]
#[ignore = "plays the other process"]
fn plays_the_store() {
    player::play();
}

fn prepared(dir: &Path) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(story::prepared(dir));
}

fn the_same_epoch(_: &Path, found: &Opening<'_>) {
    assert_eq!((found.opened.new_epoch, &found.opened.salvaged), (None, &None));
}

#[test]
fn the_day_has_every_kind_of_write() {
    assert_eq!(counter::missing(&story::day()), [""; 0]);
}

#[test]
fn the_writer_at_every_call() {
    let from = tempfile::tempdir().unwrap();
    prepared(from.path());
    let tally = every_call(&Stage { name: "writer", from: from.path(), also: &the_same_epoch }, 8);
    assert!(tally.calls > 100 && tally.failed > tally.calls, "{tally:?}");
    // The thread syncs the WAL once a commit; whether a sync reaches the disk is shown elsewhere.
    let commits = story::day().iter().filter(|step| matches!(step, story::Step::Commit(_))).count();
    assert!(tally.wal_syncs >= commits - 2, "{tally:?}: two of {commits} are refused");
}

/// A folder as a crash leaves it with a WAL of so many pages: from 1,000 on the keeper
/// copies it in a lull, from 2,000 on the writer does not wait for one.
fn with_a_wal(dir: &Path, pages: u32) {
    let grown = tempfile::tempdir().unwrap();
    prepared(grown.path());
    let conn = Connection::open(grown.path().join("baygate.db")).unwrap();
    conn.execute_batch("PRAGMA synchronous = off; PRAGMA wal_autocheckpoint = 0;").unwrap();
    for turn in 0..pages {
        let unsaid = if turn % 2 == 0 { "no" } else { "off" };
        conn.execute("UPDATE meta SET value = ?1 WHERE key = 'clean_shutdown'", [unsaid]).unwrap();
    }
    player::copy(grown.path(), dir);
}

#[test]
fn the_keeper_at_every_call() {
    let from = tempfile::tempdir().unwrap();
    with_a_wal(from.path(), 1500);
    let tally = every_call(&Stage { name: "keeper", from: from.path(), also: &the_same_epoch }, 16);
    assert!(tally.calls >= 8, "{tally:?}");
}

#[test]
fn the_writer_copying_at_every_call() {
    let from = tempfile::tempdir().unwrap();
    with_a_wal(from.path(), 2100);
    let tally = every_call(&Stage { name: "writer-copies", from: from.path(), also: &the_same_epoch }, 8);
    assert!(tally.calls > 10, "{tally:?}");
}

#[test]
fn the_creation_at_every_call() {
    let from = tempfile::tempdir().unwrap();
    let also = |_: &Path, found: &Opening<'_>| {
        assert!(found.opened.salvaged.is_none() && found.opened.epoch.0.get_version_num() > 0);
        assert!(matches!(found.opened.new_epoch, None | Some(EpochReason::Created)), "{:?}", found.opened);
        assert_eq!(player::number(found.conn, "SELECT count(*) FROM epoch"), 1);
    };
    let tally = every_call(&Stage { name: "creation", from: from.path(), also: &also }, 8);
    assert!(tally.calls > 40, "{tally:?}");
}

#[test]
fn the_start_after_a_crash_at_every_call() {
    let (grown, from) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    prepared(grown.path());
    let conn = Connection::open(grown.path().join("baygate.db")).unwrap();
    conn.execute_batch(
        "PRAGMA wal_autocheckpoint = 0; INSERT INTO cursor (name, event_offset) VALUES ('t', 1);",
    )
    .unwrap();
    player::copy(grown.path(), from.path());
    // Behind them what a power cut left of another commit: the WAL is begun anew before the first write.
    let wal = from.path().join("baygate.db-wal");
    let mut bytes = std::fs::read(&wal).unwrap();
    let rest = [&[0; 8], &bytes[16..24], &[0; 8 + 4096]].concat();
    bytes.extend(rest);
    std::fs::write(&wal, bytes).unwrap();
    let tally = every_call(&Stage { name: "start", from: from.path(), also: &the_same_epoch }, 8);
    assert!(tally.calls > 3, "{tally:?}");
}

/// A file of an earlier version of the program: migrated, or as it was.
#[test]
fn the_migration_at_every_call() {
    let (grown, from) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let old = Connection::open(grown.path().join("baygate.db")).unwrap();
    let _: String = old.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0)).unwrap();
    old.execute_batch(include_str!("../src/store/schema/001.sql")).unwrap();
    old.execute_batch(include_str!("../src/store/schema/002.sql")).unwrap();
    old.execute_batch("INSERT INTO meta VALUES ('schema', '2'); INSERT INTO adapter VALUES ('a', '{}'); PRAGMA user_version = 2").unwrap();
    drop(old);
    player::copy(grown.path(), from.path());
    let also = |_: &Path, found: &Opening<'_>| {
        assert!(found.opened.salvaged.is_none(), "{:?}", found.opened);
        for (probe, wanted) in [
            ("SELECT count(*) FROM adapter", 1),
            ("SELECT count(*) FROM epoch", 1),
            (
                "SELECT count(*) FROM sqlite_schema WHERE name IN ('member_card', 'operator', 'listed_member')",
                3,
            ),
        ] {
            assert_eq!(player::number(found.conn, probe), wanted, "{probe}");
        }
    };
    let tally = every_call(&Stage { name: "migration", from: from.path(), also: &also }, 8);
    assert!(tally.calls > 5, "{tally:?}");
}

/// A damaged file and, where there is one, its WAL, as bytes by suffix.
struct Damaged {
    files: Vec<(&'static str, Vec<u8>)>,
    /// Events of cards.
    cards: i64,
}

const CARDS: &str = "SELECT count(*) FROM event WHERE epoch_no = 1 AND class = 2";

impl Damaged {
    /// A prepared folder in which more was committed: while that lies in the WAL, and after the store was
    /// closed.
    fn soon() -> [Self; 2] {
        let grown = tempfile::tempdir().unwrap();
        let (dir, file) = (grown.path(), grown.path().join("baygate.db"));
        prepared(dir);
        // Each page of theirs comes again in a later frame: one that rots takes nothing along.
        let other = Connection::open(&file).unwrap();
        other.execute_batch("PRAGMA wal_autocheckpoint = 0").unwrap();
        for unsaid in ["off", "no"] {
            other.execute("UPDATE meta SET value = ?1 WHERE key = 'clean_shutdown'", [unsaid]).unwrap();
        }
        let read =
            |suffix: &'static str| (suffix, std::fs::read(dir.join(format!("baygate.db{suffix}"))).unwrap());
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let (store, _) = Store::open(&story::options(dir)).unwrap();
            for part in story::salvageable() {
                store.commit(part.batch).await.unwrap();
            }
            let cards = player::number(&other, CARDS);
            let in_the_wal = Self { files: vec![read(""), read("-wal")], cards };
            drop(other);
            store.close().await;
            [in_the_wal, Self { files: vec![read("")], cards }]
        })
    }

    /// Salvages it at every call. What was committed before is there, what lay there is as it was.
    fn salvaged_at_every_call(&self, name: &'static str, probes: &[String]) -> Tally {
        let from = tempfile::tempdir().unwrap();
        for (suffix, bytes) in &self.files {
            std::fs::write(from.path().join(format!("baygate.db{suffix}")), bytes).unwrap();
        }
        let also = |dir: &Path, found: &Opening<'_>| {
            let new_epoch = found.opened.new_epoch;
            assert!(matches!(new_epoch, None | Some(EpochReason::Salvaged)), "{:?}", found.opened);
            assert_eq!(player::number(found.conn, "SELECT count(*) FROM epoch"), 2);
            assert_eq!(player::number(found.conn, CARDS), self.cards);
            for probe in probes {
                assert_eq!(player::number(found.conn, probe), 1, "committed, and gone: {probe}");
            }
            let names = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
            let main = |path: &std::path::PathBuf| {
                path.to_str()
                    .unwrap()
                    .rsplit_once(".damaged-")
                    .is_some_and(|(_, at)| at.parse::<i64>().is_ok())
            };
            let aside: Vec<_> = names.filter(main).collect();
            assert_eq!(aside.len(), 1, "{aside:?}");
            for (suffix, bytes) in &self.files {
                let aside = format!("{}{suffix}", aside[0].display());
                assert!(std::fs::read(&aside).unwrap() == *bytes, "{aside} is not what lay there");
            }
            assert!(!dir.join("baygate.damaged").exists(), "still marked");
            // What was said once stands until a person ends it.
            let held = player::number(found.conn, "SELECT count(*) FROM meta WHERE key = 'card_writes_held'");
            assert_eq!(held == 1, holds(name), "{:?}", found.told);
        };
        every_call(&Stage { name, from: from.path(), also: &also }, 8)
    }
}

fn probes() -> Vec<String> {
    story::salvageable().into_iter().flat_map(|part| part.probes).collect()
}

/// A file whose index lies about its events: the start moves it aside and copies what is there. Cut
/// short at any call, it is done again; what lay there stays as it was, byte for byte.
#[test]
fn the_salvage_at_every_call() {
    let grown = tempfile::tempdir().unwrap();
    prepared(grown.path());
    let file = grown.path().join("baygate.db");
    let conn = Connection::open(&file).unwrap();
    let root = player::number(&conn, "SELECT rootpage FROM sqlite_schema WHERE name = 'event_by_class'");
    drop(conn);
    let mut bytes = std::fs::read(&file).unwrap();
    let page = usize::try_from(root).unwrap() * 4096;
    bytes[page - 4096..page].fill(0);
    let damaged = Damaged { files: vec![("", bytes)], cards: 7 };
    let tally = damaged.salvaged_at_every_call("salvage", &[]);
    assert!(tally.calls > 20, "{tally:?}");
}

/// A frame in the WAL's middle rots: what was committed behind it is laid over the file by hand. SQLite
/// would throw it away, and of a token or a card's report no leaf tells.
#[test]
fn the_salvage_with_a_damaged_wal_at_every_call() {
    let [mut damaged, _] = Damaged::soon();
    // The WAL's header, a frame with its header, the second frame's header; its page.
    damaged.files[1].1[32 + (24 + 4096) + 24 + 2000] ^= 0x40;
    let tally = damaged.salvaged_at_every_call("salvage-wal", &probes());
    assert!(tally.of_the_copy > 20, "{tally:?}: the file itself, its pages in the WAL, the length");
}

/// Nothing says where the tables begin: they are read with the first page of a fresh file.
#[test]
fn the_salvage_without_a_first_page_at_every_call() {
    let [_, mut damaged] = Damaged::soon();
    damaged.files[0].1[..4096].fill(0);
    let tally = damaged.salvaged_at_every_call("salvage-first-page", &probes());
    assert!(tally.of_the_copy > 10, "{tally:?}: the file itself, the pages lent, its shared memory");
}
