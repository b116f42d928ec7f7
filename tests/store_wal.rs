//! The WAL stays bounded, also while a reader holds an old moment.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod store_setup;

use baygate::event::Class;
use baygate::store::{Batch, Store, StoreError};
use store_setup::{event, options, until};

fn wal_bytes(dir: &std::path::Path) -> u64 {
    std::fs::metadata(dir.join("baygate.db-wal")).map_or(0, |file| file.len())
}

#[tokio::test]
async fn the_wal_starts_over_under_steady_writing() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = Store::open(&options(dir.path())).unwrap();
    let mut largest = 0;
    for _ in 0..3000 {
        store.commit(Batch::new().event(event(Class::Card, 20_000))).await.unwrap();
        largest = largest.max(wal_bytes(dir.path()));
    }
    // 3000 times 20 KiB went through it.
    assert!(largest < 32 << 20, "{largest}");
    store.close().await;
    assert_eq!(wal_bytes(dir.path()), 0);
}

/// Copying at every commit would cost a second sync each, and write each page twice.
#[tokio::test]
async fn the_file_is_left_alone_until_the_wal_is_long() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = Store::open(&options(dir.path())).unwrap();
    store.commit(Batch::new().event(event(Class::Card, 100))).await.unwrap();
    let written = || std::fs::metadata(dir.path().join("baygate.db")).unwrap().modified().unwrap();
    let before = written();
    // A few pages of the WAL each; it is copied from a thousand pages on.
    for _ in 0..100 {
        store.commit(Batch::new().event(event(Class::Card, 100))).await.unwrap();
    }
    assert_eq!(written(), before, "the WAL was copied into the file");
    for _ in 0..300 {
        store.commit(Batch::new().event(event(Class::Card, 20_000))).await.unwrap();
    }
    until("it is copied", || async { written() > before }).await;
    store.close().await;
}

#[tokio::test]
async fn a_reader_that_never_ends_cannot_fill_the_disk_through_the_wal() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = options(dir.path());
    options.max_bytes = 24 << 20;
    let (store, _) = Store::open(&options).unwrap();
    store.commit(Batch::new().event(event(Class::Card, 100))).await.unwrap();
    let reader = rusqlite::Connection::open(dir.path().join("baygate.db")).unwrap();
    let held = reader.unchecked_transaction().unwrap();
    held.query_row("SELECT count(*) FROM event", [], |_| Ok(())).unwrap();
    let mut refused = false;
    for _ in 0..4000 {
        match store.commit(Batch::new().event(event(Class::Telemetry, 16_000))).await {
            Ok(_) => {}
            Err(StoreError::Full) => refused = true,
            Err(other) => panic!("{other:?}"),
        }
    }
    assert!(refused);
    assert!(wal_bytes(dir.path()) < 96 << 20, "{}", wal_bytes(dir.path()));
    drop(held);
    drop(reader);
    until("facts are taken again", || async {
        store.commit(Batch::new().event(event(Class::Card, 100))).await.is_ok()
    })
    .await;
    store.close().await;
}
