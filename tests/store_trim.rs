//! What goes when: classes over their limit, delivered rows by age, settled requests.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod store_setup;

use baygate::event::Class;
use baygate::event::gateway::{GapReason, GatewayGap};
use baygate::store::cursors::CursorOp;
use baygate::store::{Batch, Offset, Op, Store, StoreOptions};
use store_setup::{delivered, event, fact, limit, options, positions, until};

async fn gaps(store: &Store) -> Vec<GatewayGap> {
    let events =
        store.read(|r| r.class_events_after(Class::Gateway, Default::default(), 10_000)).await.unwrap();
    events
        .iter()
        .filter(|e| &*e.event.kind == "gateway.gap")
        .map(|e| e.event.data_as::<GatewayGap>().unwrap())
        .collect()
}

fn limited(dir: &std::path::Path) -> StoreOptions {
    let mut options = options(dir);
    // A limit on the ledger is not a limit.
    options.limits = vec![
        (Class::Telemetry, limit(Some(100_000), i64::MAX)),
        (Class::Ledger, limit(Some(1000), i64::MAX)),
    ];
    options
}

#[tokio::test]
async fn a_class_over_its_limit_loses_its_oldest_and_says_so_once() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = Store::open(&limited(dir.path())).unwrap();
    // A reader that has seen nothing does not keep an overfull class from being trimmed.
    let cursor = CursorOp::Advance { name: "maintenance", to: Offset(0) };
    store.commit(Batch::new().op(Op::Cursor(cursor))).await.unwrap();
    for _ in 0..500 {
        store.commit(Batch::new().event(event(Class::Telemetry, 1000))).await.unwrap();
    }
    for _ in 0..20 {
        store.commit(fact(Class::Ledger)).await.unwrap();
    }
    let store_ = store.clone();
    until("telemetry is below its limit and the gap is told", move || {
        let store = store_.clone();
        async move {
            let stats = store.read(|r| r.stats()).await.unwrap();
            let telemetry = stats.classes[6].unsent_bytes;
            let told: u64 = gaps(&store).await.iter().map(|gap| gap.count).sum();
            telemetry <= 100_000 && told + stats.classes[6].unsent_rows == 500
        }
    })
    .await;
    let left = positions(&store, Class::Telemetry).await;
    let gaps = gaps(&store).await;
    assert!(left.len() >= 70 && left.len() <= 90, "{} left", left.len());
    assert_eq!(left.last(), Some(&(1, 500)));
    // The gaps lie next to each other, from the first to just before what is left.
    let mut expected = 1;
    for gap in &gaps {
        assert_eq!((gap.class, gap.reason, gap.gap_epoch), (Class::Telemetry, GapReason::Full, None));
        assert_eq!((gap.from.0, gap.count), (expected, gap.to.0 - gap.from.0 + 1));
        expected = gap.to.0 + 1;
    }
    assert_eq!(left[0].1, expected);
    // A run takes a sixteenth: not a gap an event.
    assert!(gaps.len() <= 120, "{} gaps", gaps.len());
    assert_eq!(positions(&store, Class::Ledger).await.len(), 20);
    store.close().await;
    drop(store);
    let inspection = baygate::store::inspect::Inspection::open(dir.path()).unwrap();
    let verdict = inspection.verify(&mut |_| {}).unwrap();
    assert!(verdict.sound, "{verdict:?}");
}

#[tokio::test]
async fn delivered_rows_go_by_age_behind_every_reader() {
    let dir = tempfile::tempdir().unwrap();
    let mut aged = options(dir.path());
    aged.limits =
        vec![(Class::Card, limit(Some(1 << 30), 0)), (Class::Device, limit(Some(1 << 30), 3_600_000))];
    let reopen = || Store::open(&aged).unwrap().0;
    let store = reopen();
    for _ in 0..10 {
        store.commit(fact(Class::Card)).await.unwrap();
    }
    store.commit(fact(Class::Device)).await.unwrap();
    store.commit(delivered(Class::Card, 1, 8)).await.unwrap();
    store.commit(delivered(Class::Device, 1, 1)).await.unwrap();
    let advance = |to| Op::Cursor(CursorOp::Advance { name: "maintenance", to: Offset(to) });
    store.commit(Batch::new().op(advance(5))).await.unwrap();
    // A start sweeps at once.
    for (name, op, left) in [
        ("behind the cursor", None, 5),
        ("the cursor moved", Some(advance(7)), 3),
        ("the cursor moved beyond what is delivered", Some(advance(10)), 2),
    ] {
        let store = {
            if let Some(op) = op {
                let store = reopen();
                store.commit(Batch::new().op(op)).await.unwrap();
                store.close().await;
            } else {
                store.close().await;
            }
            reopen()
        };
        until(name, || async { positions(&store, Class::Card).await.len() == left }).await;
        assert_eq!(positions(&store, Class::Card).await.last(), Some(&(1, 10)), "{name}");
        assert_eq!(positions(&store, Class::Device).await.len(), 1, "{name}: not old enough");
        store.close().await;
    }
    // A reader that is no more holds nothing; counters go on where they were.
    let store = reopen();
    let retire = CursorOp::Retire { name: "maintenance".into() };
    store.commit(Batch::new().op(Op::Cursor(retire))).await.unwrap();
    store.commit(delivered(Class::Card, 1, 10)).await.unwrap();
    store.close().await;
    let store = reopen();
    until("all is gone", || async { positions(&store, Class::Card).await.is_empty() }).await;
    let stats = store.read(|r| r.stats()).await.unwrap();
    assert_eq!((stats.classes[2].rows, stats.classes[2].bytes, stats.classes[2].last.0), (0, 0, 10));
    store.close().await;
    drop(store);
    let raw = rusqlite::Connection::open(dir.path().join("baygate.db")).unwrap();
    raw.execute("DELETE FROM event", []).unwrap();
    drop(raw);
    let store = reopen();
    let next = store.commit(fact(Class::Card)).await.unwrap();
    assert_eq!((next[0].sequence.0, next[0].class_sequence.0), (12, 11), "never numbered again");
}

#[tokio::test]
async fn settled_requests_are_kept_for_thirty_days() {
    use baygate::store::requests::{NewRequest, RequestOp, RequestState};
    const DAY: i64 = 86_400_000;
    let dir = tempfile::tempdir().unwrap();
    // A time service has set this box's clock.
    let said = dir.path().join("synchronized");
    std::fs::write(&said, "").unwrap();
    baygate::clock::trust(&said);
    let (store, _) = Store::open(&options(dir.path())).unwrap();
    let mut ids = Vec::new();
    for _ in 0..4 {
        let id = uuid::Uuid::now_v7();
        let new = NewRequest {
            id,
            kind: "k",
            target: "t".into(),
            scope: "s".into(),
            idempotency_key: None,
            body: serde_json::Value::Null,
        };
        store.commit(Batch::new().op(Op::Request(RequestOp::Insert(new)))).await.unwrap();
        ids.push(id);
    }
    for id in &ids[..3] {
        let settle =
            RequestOp::Settle { id: *id, state: RequestState::Done, outcome: serde_json::Value::Null };
        store.commit(Batch::new().op(Op::Request(settle))).await.unwrap();
    }
    store.close().await;
    drop(store);
    let now = baygate::clock::UtcMillis::now().0;
    let raw = rusqlite::Connection::open(dir.path().join("baygate.db")).unwrap();
    // The first is too old, the second not yet, the third was settled before the clock was set.
    for (id, at) in ids.iter().zip([now - 31 * DAY, now - 29 * DAY, 5 * DAY]) {
        raw.execute(
            "UPDATE request SET settled_at = ?1 WHERE id = ?2",
            rusqlite::params![at, id.as_bytes().as_slice()],
        )
        .unwrap();
    }
    drop(raw);
    let (store, _) = Store::open(&options(dir.path())).unwrap();
    let first = ids[0];
    until("the old one is gone", || async { store.read(move |r| r.request(first)).await.unwrap().is_none() })
        .await;
    for id in ids.into_iter().skip(1) {
        assert!(store.read(move |r| r.request(id)).await.unwrap().is_some());
    }
    store.close().await;
}

/// What a reload of `[buffer]` does.
#[tokio::test]
async fn new_limits_count_without_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = Store::open(&options(dir.path())).unwrap();
    for _ in 0..300 {
        store.commit(Batch::new().event(event(Class::Telemetry, 1000))).await.unwrap();
    }
    assert_eq!(positions(&store, Class::Telemetry).await.len(), 300, "no limit yet");
    store.set_limits(1 << 30, limited(dir.path()).limits).await.unwrap();
    let watched = store.clone();
    until("telemetry is below its new limit and the gap is told", move || {
        let store = watched.clone();
        async move {
            let telemetry = store.read(|r| r.stats()).await.unwrap().classes[6].unsent_bytes;
            telemetry <= 100_000 && !gaps(&store).await.is_empty()
        }
    })
    .await;
    // Less than the empty tables take, so that no trimming makes room: only the ledger goes on.
    store.set_limits(64 << 10, Vec::new()).await.unwrap();
    let refused = store.commit(Batch::new().event(event(Class::Vehicle, 1000))).await;
    assert!(matches!(refused, Err(baygate::store::StoreError::Full)), "{refused:?}");
    store.set_limits(1 << 30, Vec::new()).await.unwrap();
    store.commit(Batch::new().event(event(Class::Vehicle, 1000))).await.unwrap();
    store.close().await;
}
