//! A full buffer and a full disk: telemetry goes first, then new facts are
//! refused, the ledger goes on, and all is well when there is room again.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

#[path = "support/mount.rs"]
mod mount;
mod store_setup;

use std::path::{Path, PathBuf};

use baygate::event::Class;
use baygate::health::Health;
use baygate::store::devices::DeviceOp;
use baygate::store::inspect::Inspection;
use baygate::store::requests::{NewRequest, RequestOp, RequestState, TRANSACTION};
use baygate::store::{Batch, Op, Store, StoreError};
use store_setup::{delivered, event, fact, options, positions, until};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

async fn until_full(store: &Store, most: usize, batch: impl Fn() -> Batch) -> u64 {
    let mut taken = 0;
    for _ in 0..most {
        match store.commit(batch()).await {
            Ok(_) => taken += 1,
            Err(StoreError::Full) => return taken,
            Err(other) => panic!("{other:?}"),
        }
    }
    panic!("never got full");
}

async fn fill(store: &Store, class: Class, most: usize) -> u64 {
    until_full(store, most, || Batch::new().event(event(class, 8000))).await
}

/// A card leaves a reader, with so many events of 8,000 bytes.
fn taps(count: usize) -> Batch {
    let gone = DeviceOp::CardGone { reader: "counter-1".parse().unwrap() };
    facts(count).op(Op::Device(gone))
}

fn facts(count: usize) -> Batch {
    (0..count).fold(Batch::new(), |batch, _| batch.event(event(Class::Card, 8000)))
}

fn money() -> Batch {
    Batch::new().event(event(Class::Ledger, 8000))
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

    fn data(&self) -> PathBuf {
        self.0.path().join("data")
    }

    /// A store with some telemetry; the disk ends long before its limit.
    async fn store(&self) -> (Store, Health) {
        let mut options = options(&self.data());
        options.max_bytes = 256 << 20;
        let (store, _) = Store::open(&options).unwrap();
        let health = Health::default();
        store.start_background(health.clone(), CancellationToken::new());
        for _ in 0..100 {
            store.commit(Batch::new().event(event(Class::Telemetry, 8000))).await.unwrap();
        }
        (store, health)
    }

    /// Somebody else fills it.
    fn fill(&self) {
        let mut file = std::fs::File::create(self.0.path().join("filler")).unwrap();
        while std::io::Write::write_all(&mut file, &[0; 65536]).is_ok() {}
    }

    fn empty(&self) {
        std::fs::remove_file(self.0.path().join("filler")).unwrap();
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
    let dir = disk.data();
    let (store, health) = disk.store().await;
    disk.fill();
    let taken = fill(&store, Class::Card, 5000).await;
    assert!(health.troubles().iter().any(|t| t.part == "store/space" && t.code == "disk-full"));
    for _ in 0..20 {
        store.commit(Batch::new().event(event(Class::Ledger, 8000))).await.unwrap();
    }
    assert_eq!(positions(&store, Class::Card).await.len() as u64, taken);
    assert_eq!(positions(&store, Class::Ledger).await.len(), 20);
    until("telemetry is gone", || async { positions(&store, Class::Telemetry).await.is_empty() }).await;
    disk.empty();
    until("the trouble is over", || async { health.troubles().is_empty() }).await;
    for _ in 0..50 {
        store.commit(Batch::new().event(event(Class::Card, 8000))).await.unwrap();
    }
    assert!(std::fs::metadata(dir.join("baygate.reserve")).unwrap().len() > 0, "the reserve is laid again");
    store.close().await;
    drop(store);
    verify(&dir);
}

fn request(op: RequestOp) -> Batch {
    Batch::new().op(Op::Request(op))
}

/// A till asks for a payment; its id.
async fn asked(store: &Store) -> Uuid {
    let id = Uuid::now_v7();
    let new = NewRequest {
        id,
        kind: TRANSACTION,
        target: "counter-1".into(),
        scope: "till".into(),
        idempotency_key: None,
        body: serde_json::json!({}),
    };
    store.commit(request(RequestOp::Insert(new))).await.unwrap();
    id
}

/// Taps live on what was given up as well, but not on the half that what was begun needs.
#[tokio::test]
async fn taps_and_telemetry_leave_what_a_payment_needs_on_a_full_disk() {
    const PAYMENTS: usize = 20;
    if mount::left_out() {
        return;
    }
    let disk = SmallDisk::mount(24);
    let (store, health) = disk.store().await;
    disk.fill();
    fill(&store, Class::Card, 5000).await;
    assert!(health.troubles().iter().any(|t| t.part == "store/space" && t.code == "disk-full"));
    let mut payments = Vec::new();
    for _ in 0..PAYMENTS {
        payments.push(asked(&store).await);
    }
    let taken = until_full(&store, 5000, || taps(1)).await;
    assert!(taken > 20, "{taken} taps: cards are known while new facts are refused");
    for _ in 0..100 {
        // What is trimmed may make room for it.
        let _ = store.commit(Batch::new().event(event(Class::Telemetry, 8000))).await;
    }
    until_full(&store, 5000, || taps(1)).await;
    for id in payments {
        store.commit(request(RequestOp::Start { id })).await.unwrap();
        store.commit(money()).await.unwrap();
        let (state, outcome) = (RequestState::Done, serde_json::json!({}));
        store.commit(request(RequestOp::Settle { id, state, outcome })).await.unwrap();
    }
    assert_eq!(positions(&store, Class::Ledger).await.len(), PAYMENTS);
    store.close().await;
    drop(store);
    verify(&disk.data());
}

/// It goes with the next one, ahead of it.
fn patient(batch: Batch) -> Batch {
    Batch { patient: true, ..batch }
}

/// In one transaction with what does not fit: new facts give way first, then taps, money last.
#[tokio::test]
async fn what_does_not_fit_takes_only_those_of_its_kind_with_it() {
    let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let open = |dir: &Path| {
        let mut small = options(dir);
        small.max_bytes = 4 << 20;
        Store::open(&small).unwrap().0
    };
    let store = open(first.path());
    let (facts, tap, paid) =
        tokio::join!(store.commit(patient(facts(600))), store.commit(taps(1)), store.commit(money()));
    assert!(matches!(facts, Err(StoreError::Full)), "{facts:?}");
    assert!(tap.is_ok() && paid.is_ok(), "{tap:?} {paid:?}");
    store.close().await;

    let store = open(second.path());
    fill(&store, Class::Card, 2000).await;
    let (tap, paid) = tokio::join!(store.commit(patient(taps(80))), store.commit(money()));
    assert!(matches!(tap, Err(StoreError::Full)), "{tap:?}");
    assert!(paid.is_ok(), "{paid:?}");
    store.close().await;
}
