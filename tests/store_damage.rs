//! A damaged file: salvaged row by row, a new epoch begun, what is lost told.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod store_setup;

use std::collections::BTreeSet;
use std::os::unix::fs::FileExt;
use std::path::Path;

use baygate::event::Class;
use baygate::event::gateway::{EpochReason, GapReason, GatewayGap};
use baygate::health::Health;
use baygate::store::inspect::Inspection;
use baygate::store::{Batch, Opened, Store};
use store_setup::{event, options, positions, token, until};
use tokio_util::sync::CancellationToken;

const EVENTS: u64 = 1500;

/// A closed database with events in two classes and a token.
async fn grown(dir: &Path) -> Opened {
    let (store, opened) = Store::open(&options(dir)).unwrap();
    store.commit(token([7; 32])).await.unwrap();
    for _ in 0..EVENTS / 10 {
        let mut batch = Batch::new();
        for _ in 0..10 {
            batch = batch.event(event(Class::Card, 300)).event(event(Class::Ledger, 100));
        }
        store.commit(batch).await.unwrap();
    }
    // One event longer than a page.
    store.commit(Batch::new().event(event(Class::Vehicle, 30_000))).await.unwrap();
    store.close().await;
    opened
}

/// Opens what was damaged; every event is there or told as lost.
async fn salvaged(dir: &Path, was: &Opened) -> (Store, Opened) {
    let (store, opened) = Store::open(&options(dir)).unwrap();
    check(&store, &opened, was).await;
    assert!(!dir.join("baygate.damaged").exists());
    (store, opened)
}

async fn check(store: &Store, opened: &Opened, was: &Opened) {
    assert_eq!(opened.new_epoch, Some(EpochReason::Salvaged));
    assert_ne!(opened.epoch, was.epoch);
    let report = opened.salvaged.clone().unwrap();
    assert!(report.aside.exists(), "the damaged file is never deleted");
    let gateway =
        store.read(|r| r.class_events_after(Class::Gateway, Default::default(), 10_000)).await.unwrap();
    let mut lost = 0;
    for (class, given) in [(Class::Card, EVENTS), (Class::Ledger, EVENTS), (Class::Vehicle, 1)] {
        let mut known: BTreeSet<u64> =
            positions(store, class).await.iter().filter(|(epoch, _)| *epoch == 1).map(|(_, n)| *n).collect();
        for told in &gateway {
            let gap = told.event.data_as::<GatewayGap>().unwrap();
            assert_eq!((gap.reason, gap.gap_epoch), (GapReason::Damaged, Some(was.epoch)));
            if gap.class == class {
                lost += gap.count;
                for sequence in gap.from.0..=gap.to.0 {
                    assert!(known.insert(sequence), "{class} {sequence} is there and told as lost");
                }
            }
        }
        assert_eq!(known, (1..=given).collect(), "{class}");
    }
    assert_eq!(report.lost, lost);
}

fn flip(path: &Path, at: u64, length: usize) {
    let file = std::fs::File::options().read(true).write(true).open(path).unwrap();
    let mut bytes = vec![0; length];
    file.read_exact_at(&mut bytes, at).unwrap();
    for byte in &mut bytes {
        *byte ^= 0xA5;
    }
    file.write_all_at(&bytes, at).unwrap();
}

#[tokio::test]
async fn flipped_bytes_in_many_pages_are_survived() {
    for (name, step, offset) in
        [("every 40th page", 40, 0), ("every 11th page", 11, 0), ("in the middle of pages", 25, 2000)]
    {
        let dir = tempfile::tempdir().unwrap();
        let was = grown(dir.path()).await;
        let path = dir.path().join("baygate.db");
        let pages = std::fs::metadata(&path).unwrap().len() / 4096;
        for page in (30..pages).step_by(step) {
            flip(&path, page * 4096 + offset, 64);
        }
        // Damage in the middle is not seen by the quick look: the full check finds it and marks the file.
        let verdict = Inspection::open(dir.path()).unwrap().verify(&mut |_| {}).unwrap();
        assert!(!verdict.sound, "{name}");
        let (store, opened) = Store::open(&options(dir.path())).unwrap();
        if opened.new_epoch.is_none() {
            let (health, stop) = (Health::default(), CancellationToken::new());
            store.start_background(health.clone(), stop.clone());
            until("the check finds it", || async {
                health.troubles().iter().any(|t| t.part == "store/file" && t.blocks_ready)
            })
            .await;
            store.close().await;
            drop(store);
            let (store, _) = salvaged(dir.path(), &was).await;
            store.close().await;
        } else {
            check(&store, &opened, &was).await;
            store.close().await;
        }
        let verdict = Inspection::open(dir.path()).unwrap().verify(&mut |_| {}).unwrap();
        assert!(verdict.sound, "{name}: {verdict:?}");
    }
}

#[tokio::test]
async fn nothing_is_lost_with_the_first_page() {
    for (name, at, length) in [("the header", 0, 100), ("the whole page", 0, 4096), ("the schema", 100, 400)]
    {
        let dir = tempfile::tempdir().unwrap();
        let was = grown(dir.path()).await;
        flip(&dir.path().join("baygate.db"), at, length);
        let (store, opened) = salvaged(dir.path(), &was).await;
        let report = opened.salvaged.unwrap();
        assert_eq!((report.lost, report.ledger_complete), (0, true), "{name}: {report:?}");
        let token = store.read(|r| r.token_by_hash(&[7; 32])).await.unwrap();
        assert!(token.is_some(), "{name}: tills stay paired");
        let told = store.commit(Batch::new().event(event(Class::Card, 10))).await.unwrap();
        assert_eq!(told[0].class_sequence.0, 1, "{name}");
    }
}

#[tokio::test]
async fn a_file_cut_short_keeps_its_first_part() {
    let dir = tempfile::tempdir().unwrap();
    let was = grown(dir.path()).await;
    let path = dir.path().join("baygate.db");
    let file = std::fs::File::options().write(true).open(&path).unwrap();
    let length = file.metadata().unwrap().len();
    file.set_len(length / 2 / 4096 * 4096).unwrap();
    let (store, opened) = salvaged(dir.path(), &was).await;
    let report = opened.salvaged.unwrap();
    assert!(report.lost > 0 && !report.ledger_complete, "{report:?}");
    assert!(positions(&store, Class::Card).await.len() > 100);
}

#[tokio::test]
async fn damage_in_one_text_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let was = grown(dir.path()).await;
    let path = dir.path().join("baygate.db");
    let raw = rusqlite::Connection::open(&path).unwrap();
    // A byte of the data changed: still valid for SQLite, and still JSON.
    raw.execute(
        "UPDATE event SET data = replace(data, 'x\"', 'y\"') WHERE class = 2 AND class_sequence = 700",
        [],
    )
    .unwrap();
    drop(raw);
    let verdict = Inspection::open(dir.path()).unwrap().verify(&mut |_| {}).unwrap();
    assert!(!verdict.sound && verdict.missing.is_empty());
    let (store, _) = Store::open(&options(dir.path())).unwrap();
    let (health, stop) = (Health::default(), CancellationToken::new());
    store.start_background(health.clone(), stop.clone());
    until("the check finds it", || async { health.troubles().iter().any(|t| t.code == "damaged") }).await;
    store.close().await;
    drop(store);
    let (_store, opened) = salvaged(dir.path(), &was).await;
    assert_eq!(opened.salvaged.unwrap().lost, 1);
}

#[tokio::test]
async fn a_salvage_cut_short_is_done_again() {
    let dir = tempfile::tempdir().unwrap();
    let was = grown(dir.path()).await;
    let path = dir.path().join("baygate.db");
    flip(&path, 0, 100);
    // Marked and moved away; a half-filled new file lies there.
    std::fs::write(dir.path().join("baygate.damaged"), "baygate.db.damaged-1\nfile is not a database\n")
        .unwrap();
    std::fs::rename(&path, dir.path().join("baygate.db.damaged-1")).unwrap();
    std::fs::write(dir.path().join("baygate.db.salvage"), [1; 9000]).unwrap();
    let (store, opened) = salvaged(dir.path(), &was).await;
    assert_eq!(opened.salvaged.unwrap().lost, 0);
    store.close().await;
    drop(store);
    // Everything was done but the last step.
    std::fs::write(dir.path().join("baygate.damaged"), "baygate.db.damaged-1\nx\n").unwrap();
    let again = Store::open(&options(dir.path()));
    assert!(again.is_ok_and(|(_, opened)| opened.new_epoch.is_none()));
}
