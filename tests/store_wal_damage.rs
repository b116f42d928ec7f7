//! Commits that lie in the write-ahead log alone, and what rots there: no commit that
//! was told is given up beyond what the harmed frame held, and a torn end is none.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "support/buffer_command.rs"]
mod buffer_command;
mod page_damage;
mod sqlite_pages;
mod store_setup;

use std::path::Path;

use baygate::event::Class;
use baygate::event::gateway::EpochReason;
use baygate::store::{Batch, Store, inspect};
use page_damage::truth::{REQUESTS, Truth, all, assert_kept, grown, request};
use sqlite_pages::{Dice, PAGE};
use store_setup::{event, options, token};

/// Commits that are only in the WAL, as a killed process leaves them.
async fn in_the_wal(dir: &Path) -> (Truth, Vec<u8>, Vec<u8>) {
    let truth = grown(&dir.join("base")).await;
    let (store, _) = Store::open(&options(&dir.join("base"))).unwrap();
    for n in 0..40 {
        store.commit(fact(n)).await.unwrap();
        store.commit(request(1000 + n)).await.unwrap();
    }
    store.commit(token([7; 32])).await.unwrap();
    for n in 40..44 {
        store.commit(fact(n)).await.unwrap();
    }
    let events = all(&store).await;
    let read = |suffix: &str| std::fs::read(dir.join(format!("base/baygate.db{suffix}"))).unwrap();
    let (file, wal) = (read(""), read("-wal"));
    store.close().await;
    (Truth { events, ..truth }, file, wal)
}

fn fact(n: u64) -> Batch {
    Batch::new().event(event(if n.is_multiple_of(2) { Class::Card } else { Class::Ledger }, 300))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_wal_that_rotted_gives_up_no_commit() {
    const FRAME: usize = 24 + PAGE;
    let dice = Dice::throw("a_wal_that_rotted_gives_up_no_commit");
    let base = tempfile::tempdir().unwrap();
    let (truth, file, wal) = in_the_wal(base.path()).await;
    let frames = (wal.len() - 32) / FRAME;
    assert!(frames > 80, "{frames}");
    // (what, where, how many bytes may be hit, what the frame alone held may be lost)
    let middle = dice.for_case("frame").below(frames / 2) + 2;
    let of = |frame: usize| 32 + frame * FRAME;
    for (what, at, length, may_lose) in [
        ("the WAL's magic", 0, 3, false),
        ("the WAL's page size", 8, 4, false),
        ("the WAL's salts", 16, 8, false),
        ("the WAL's checksum", 24, 8, false),
        ("a frame's page number", of(middle), 4, true),
        ("a frame's salts", of(middle) + 8, 8, true),
        ("a frame's checksum", of(middle) + 16, 8, true),
        ("a frame's page", of(middle) + 24, PAGE, true),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let (mut dice, mut wal) = (dice.for_case(what), wal.clone());
        let at = at + dice.below(length);
        wal[at] ^= 1 + dice.below(255) as u8;
        let case = format!("{what}: byte {at}");
        std::fs::write(dir.path().join("baygate.db"), &file).unwrap();
        std::fs::write(dir.path().join("baygate.db-wal"), &wal).unwrap();
        std::fs::write(dir.path().join("baygate.db-shm"), [0x5A; 32768]).unwrap();
        let verdict = inspect::verify(dir.path(), &mut |_| {}).unwrap();
        assert!(!verdict.sound, "{case}");
        let (store, opened) = Store::open(&options(dir.path())).unwrap();
        assert_eq!(opened.new_epoch, Some(EpochReason::Salvaged), "{case}");
        let report = opened.salvaged.unwrap();
        let found = all(&store).await;
        let missing = truth.events.keys().filter(|at| !found.contains_key(at)).count() as u64;
        assert_kept(&case, &truth, &found, &truth.events.keys().copied().collect());
        assert_eq!(missing, report.lost, "{case}");
        assert!(missing == 0 || may_lose && missing <= 20, "{case}: {missing} lost");
        // A page's latest state may have been in that frame: nobody can say, and card writes wait.
        let complete = report.ledger_complete && report.requests_complete;
        assert_eq!(complete, !may_lose, "{case}: {report:?}");
        for suffix in ["", "-wal"] {
            let aside = format!("{}{suffix}", report.aside.display());
            let was = if suffix.is_empty() { &file } else { &wal };
            assert!(&std::fs::read(aside).unwrap() == was, "{case}: the original is not what it was");
        }
        let keys: i64 = {
            let conn = rusqlite::Connection::open(dir.path().join("baygate.db")).unwrap();
            conn.query_row("SELECT count(*) FROM request", [], |row| row.get(0)).unwrap()
        };
        assert!(keys == REQUESTS as i64 + 40 || !report.requests_complete, "{case}: {keys}");
        let token = store.read(|r| r.token_by_hash(&[7; 32])).await.unwrap();
        assert!(may_lose || token.is_some(), "{case}: a table beside the log is back at yesterday");
        store.close().await;
    }
    // A torn end is what a power cut leaves: no damage, nothing before it lost.
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("baygate.db"), &file).unwrap();
    std::fs::write(dir.path().join("baygate.db-wal"), &wal[..wal.len() - FRAME - 1000]).unwrap();
    std::fs::write(dir.path().join("baygate.db-shm"), [0x5A; 32768]).unwrap();
    let (store, opened) = Store::open(&options(dir.path())).unwrap();
    assert_eq!(opened.new_epoch, None);
    assert!(all(&store).await.len() + 2 >= truth.events.len());
    store.close().await;
}
