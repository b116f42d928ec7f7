//! A full buffer and a full disk: telemetry goes first, then new facts are
//! refused, the ledger goes on, and all is well when there is room again.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

#[path = "support/mount.rs"]
mod mount;
mod store_setup;

use std::path::Path;

use baygate::event::Class;
use baygate::health::Health;
use baygate::store::inspect::Inspection;
use baygate::store::{Batch, Store, StoreError};
use store_setup::{delivered, event, fact, options, positions, until};
use tokio_util::sync::CancellationToken;

async fn fill(store: &Store, class: Class, most: usize) -> u64 {
    let mut taken = 0;
    for _ in 0..most {
        match store.commit(Batch::new().event(event(class, 8000))).await {
            Ok(_) => taken += 1,
            Err(StoreError::Full) => return taken,
            Err(other) => panic!("{other:?}"),
        }
    }
    panic!("{class} never got full");
}

fn verify(dir: &Path) {
    let verdict = Inspection::open(dir).unwrap().verify(&mut |_| {}).unwrap();
    assert!(verdict.sound, "{verdict:?}");
}

#[tokio::test]
async fn the_limit_refuses_facts_and_keeps_the_ledger_going() {
    let dir = tempfile::tempdir().unwrap();
    let mut small = options(dir.path());
    small.max_bytes = 4 << 20;
    let (store, _) = Store::open(&small).unwrap();
    let (health, stop) = (Health::default(), CancellationToken::new());
    store.start_background(health.clone(), stop.clone());
    for _ in 0..100 {
        store.commit(Batch::new().event(event(Class::Telemetry, 8000))).await.unwrap();
    }
    let cards = fill(&store, Class::Card, 2000).await;
    assert!(cards > 200, "{cards}: telemetry made room");
    until("telemetry is gone", || async { positions(&store, Class::Telemetry).await.is_empty() }).await;
    // Nothing but telemetry went, and nothing that was told as kept.
    let cards = cards
        + match store.commit(Batch::new().event(event(Class::Card, 8000))).await {
            Ok(_) => 1,
            Err(_) => 0,
        };
    assert_eq!(positions(&store, Class::Card).await.len() as u64, cards);
    fill(&store, Class::Card, 2000).await;
    assert!(health.troubles().iter().any(|t| t.part == "store/space" && t.code == "buffer-full"));
    for _ in 0..10 {
        store.commit(Batch::new().event(event(Class::Ledger, 8000))).await.unwrap();
    }
    // Delivery is not refused, and makes room.
    let last = positions(&store, Class::Card).await.last().unwrap().1;
    store.commit(delivered(Class::Card, 1, last)).await.unwrap();
    until("new facts are taken again", || async { store.commit(fact(Class::Card)).await.is_ok() }).await;
    until("the trouble is over", || async { health.troubles().is_empty() }).await;
    assert_eq!(positions(&store, Class::Ledger).await.len(), 10);
    // The ledger, too, ends at the limit, with a word and without harm.
    let ledger = fill(&store, Class::Ledger, 2000).await;
    assert!(ledger > 10);
    store.close().await;
    drop(store);
    assert!(std::fs::metadata(dir.path().join("baygate.db")).unwrap().len() <= 4 << 20);
    verify(dir.path());
}

/// A file system of `mib` MiB.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount(mib: u32) -> Self {
        let dir = tempfile::tempdir().unwrap();
        mount::small(1024 * mib, dir.path());
        Self(dir)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        mount::unmount(self.0.path());
    }
}

#[tokio::test]
async fn a_full_disk_is_survived_on_the_reserve() {
    if mount::left_out() {
        return;
    }
    let disk = SmallDisk::mount(24);
    let dir = disk.0.path().join("data");
    let mut options = options(&dir);
    options.max_bytes = 256 << 20; // the disk ends long before
    let (store, _) = Store::open(&options).unwrap();
    let (health, stop) = (Health::default(), CancellationToken::new());
    store.start_background(health.clone(), stop.clone());
    for _ in 0..100 {
        store.commit(Batch::new().event(event(Class::Telemetry, 8000))).await.unwrap();
    }
    // Somebody else fills the disk.
    let filler = disk.0.path().join("filler");
    let mut file = std::fs::File::create(&filler).unwrap();
    while std::io::Write::write_all(&mut file, &[0; 65536]).is_ok() {}
    drop(file);
    let taken = fill(&store, Class::Card, 5000).await;
    assert!(health.troubles().iter().any(|t| t.part == "store/space" && t.code == "disk-full"));
    for _ in 0..20 {
        store.commit(Batch::new().event(event(Class::Ledger, 8000))).await.unwrap();
    }
    assert_eq!(positions(&store, Class::Card).await.len() as u64, taken);
    assert_eq!(positions(&store, Class::Ledger).await.len(), 20);
    until("telemetry is gone", || async { positions(&store, Class::Telemetry).await.is_empty() }).await;
    std::fs::remove_file(&filler).unwrap();
    until("the trouble is over", || async { health.troubles().is_empty() }).await;
    for _ in 0..50 {
        store.commit(Batch::new().event(event(Class::Card, 8000))).await.unwrap();
    }
    assert!(std::fs::metadata(dir.join("baygate.reserve")).unwrap().len() > 0, "the reserve is laid again");
    store.close().await;
    drop(store);
    verify(&dir);
}
