//! The writer: groups, batches that fail, idempotency, patience, epochs at run time.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

#[path = "support/seed.rs"]
mod seed;
mod store_setup;

use baygate::event::gateway::EpochReason;
use baygate::event::{Class, NewEvent};
use baygate::store::jobs::JobOp;
use baygate::store::outbox::OutboxOp;
use baygate::store::requests::{NewRequest, RequestOp, RequestState};
use baygate::store::{Batch, Offset, Op, Store, StoreError};
use proptest::prelude::*;
use store_setup::{event, fact, options, until};
use uuid::Uuid;

fn request(key: &str, body: serde_json::Value) -> NewRequest {
    NewRequest {
        id: Uuid::now_v7(),
        kind: "vehicle.scan",
        target: "bay-1".into(),
        scope: "till-1".into(),
        idempotency_key: Some(key.into()),
        body,
    }
}

fn insert(new: NewRequest) -> Batch {
    Batch::new().op(Op::Request(RequestOp::Insert(new))).event(event(Class::Device, 10))
}

#[tokio::test]
async fn a_batch_that_fails_takes_no_other_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = Store::open(&options(dir.path())).unwrap();
    let first = request("k", serde_json::json!({"a": 1}));
    store.commit(insert(first.clone())).await.unwrap();
    let absent = JobOp::State {
        job: Uuid::now_v7(),
        state: baygate::event::device::PrintState::Done,
        error: None,
        output: None,
        attempt: false,
    };
    let broken = NewEvent {
        data: serde_json::value::RawValue::from_string("[1]".into()).unwrap(),
        ..event(Class::Card, 1)
    };
    let bad = [
        insert(request("k", serde_json::json!({"a": 1}))),
        insert(request("k", serde_json::json!({"a": 2}))),
        Batch::new().event(event(Class::Device, 10)).op(Op::Job(absent)),
        Batch::new().event(event(Class::Card, 1)).event(event(Class::Card, 70_000)),
        Batch::new().event(event(Class::Card, 1)).event(broken),
    ];
    // Queued at once: they share transactions.
    let mut all = tokio::task::JoinSet::new();
    for (place, batch) in bad.into_iter().enumerate() {
        for (turn, batch) in [fact(Class::Device), batch, fact(Class::Device)].into_iter().enumerate() {
            let store = store.clone();
            all.spawn(async move { (place, turn, store.commit(batch).await) });
        }
    }
    while let Some(done) = all.join_next().await {
        let (place, turn, result) = done.unwrap();
        match (place, turn, result) {
            (_, 0 | 2, Ok(_)) => {}
            (0, 1, Err(StoreError::Replayed { request })) => assert_eq!(request, first.id),
            (1, 1, Err(StoreError::KeyConflict))
            | (2, 1, Err(StoreError::NotFound { .. }))
            | (3, 1, Err(StoreError::EventTooLarge { .. }))
            | (4, 1, Err(StoreError::InvalidEvent { .. })) => {}
            other => panic!("{other:?}"),
        }
    }
    let events = store.read(|r| r.events_after(Offset(0), 100)).await.unwrap();
    let sequences: Vec<u64> = events.iter().map(|e| e.event.sequence.0).collect();
    assert_eq!(sequences, (1..=11).collect::<Vec<_>>(), "failed batches used no sequence");
    let rows = store.read(|r| r.open_requests("vehicle.scan", Some("bay-1"))).await.unwrap();
    assert_eq!(rows.len(), 1);
    let settle =
        RequestOp::Settle { id: first.id, state: RequestState::Done, outcome: serde_json::json!({}) };
    store.commit(Batch::new().op(Op::Request(settle.clone()))).await.unwrap();
    let again = store.commit(Batch::new().op(Op::Request(settle))).await;
    assert!(matches!(again, Err(StoreError::NotFound { .. })), "settled once");
    let replayed = store.commit(insert(request("k", serde_json::json!({"a": 1})))).await;
    assert!(matches!(replayed, Err(StoreError::Replayed { .. })), "the key answers after the outcome too");
}

/// Both in one transaction for certain: a patient batch waits for the next one, and goes ahead of it.
#[tokio::test]
async fn what_shares_a_transaction_with_a_batch_that_fails_is_kept_once() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = Store::open(&options(dir.path())).unwrap();
    let taken = request("k", serde_json::json!({"a": 1}));
    store.commit(insert(taken)).await.unwrap();
    let mut sequence = 1;
    for n in 2..6 {
        let company = store.clone();
        let mut batch = fact(Class::Card).event(event(Class::Ledger, 10));
        batch.patient = true;
        let company = tokio::spawn(async move { company.commit(batch).await });
        tokio::task::yield_now().await;
        let bad =
            fact(Class::Card).op(Op::Request(RequestOp::Insert(request("k", serde_json::json!({"a": n})))));
        assert!(matches!(store.commit(bad).await, Err(StoreError::KeyConflict)));
        let kept: Vec<u64> = company.await.unwrap().unwrap().iter().map(|e| e.sequence.0).collect();
        assert_eq!(kept, [sequence + 1, sequence + 2]);
        sequence += 2;
    }
    let next = store.commit(fact(Class::Card)).await.unwrap();
    assert_eq!((next[0].sequence.0, next[0].class_sequence.0), (10, 5));
    let events = store.read(|r| r.events_after(Offset(0), 100)).await.unwrap();
    let sequences: Vec<u64> = events.iter().map(|e| e.event.sequence.0).collect();
    assert_eq!(sequences, (1..=10).collect::<Vec<_>>());
    let stats = store.read(|r| r.stats()).await.unwrap();
    assert_eq!(stats.classes.iter().map(|class| class.rows).sum::<u64>(), 10);
    store.close().await;
    assert!(baygate::store::inspect::verify(dir.path(), &mut |_| {}).unwrap().sound);
}

#[tokio::test]
async fn patient_batches_are_held_and_ride_along() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = Store::open(&options(dir.path())).unwrap();
    let patient = |store: &Store| {
        let (store, mut batch) = (store.clone(), fact(Class::Telemetry));
        batch.patient = true;
        tokio::spawn(async move { store.commit(batch).await })
    };
    // Alone it is committed by time.
    patient(&store).await.unwrap().unwrap();
    // With company, in the company's transaction, ahead of it.
    let commits = store.head().borrow().commits;
    let waiting = patient(&store);
    tokio::task::yield_now().await;
    until("the patient batch is queued", || async { !waiting.is_finished() }).await;
    store.commit(fact(Class::Device)).await.unwrap();
    waiting.await.unwrap().unwrap();
    assert!(store.head().borrow().commits <= commits + 2);
    store.close().await;
    assert!(matches!(store.commit(fact(Class::Device)).await, Err(StoreError::Closed)));
}

#[tokio::test]
async fn a_new_epoch_begins_at_run_time() {
    let dir = tempfile::tempdir().unwrap();
    let (store, opened) = Store::open(&options(dir.path())).unwrap();
    for _ in 0..3 {
        store.commit(fact(Class::Card)).await.unwrap();
    }
    let begin = Batch::new().op(Op::Outbox(OutboxOp::BeginEpoch { reason: EpochReason::Ahead }));
    let told = store.commit(begin.event(event(Class::Gateway, 10))).await.unwrap();
    assert_ne!(told[0].epoch, opened.epoch);
    assert_eq!((told[0].sequence.0, told[0].class_sequence.0), (1, 1));
    assert_eq!(store.head().borrow().epoch, told[0].epoch);
    let next = store.commit(fact(Class::Card)).await.unwrap();
    assert_eq!((next[0].epoch, next[0].sequence.0, next[0].class_sequence.0), (told[0].epoch, 2, 1));
    // The old ones keep their epoch and stand before the new ones.
    let cards = store.read(|r| r.class_events_after(Class::Card, Default::default(), 10)).await.unwrap();
    let seen: Vec<_> =
        cards.iter().map(|e| (e.event.epoch == opened.epoch, e.event.class_sequence.0)).collect();
    assert_eq!(seen, [(true, 1), (true, 2), (true, 3), (false, 1)]);
    store.close().await;
    drop(store);
    let (store, again) = Store::open(&options(dir.path())).unwrap();
    assert_eq!((again.epoch, again.new_epoch), (told[0].epoch, None));
    assert_eq!(store.commit(fact(Class::Card)).await.unwrap()[0].class_sequence.0, 2);
}

/// One step of the model.
#[derive(Debug, Clone)]
enum Act {
    Commit(Vec<usize>),
    Fail(Vec<usize>),
    Epoch,
    Restart { clean: bool },
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        6 => prop::collection::vec(0_usize..7, 0..4).prop_map(Act::Commit),
        3 => prop::collection::vec(0_usize..7, 0..4).prop_map(Act::Fail),
        1 => Just(Act::Epoch),
        1 => any::<bool>().prop_map(|clean| Act::Restart { clean }),
    ]
}

proptest! {
    #![proptest_config(seed::cases(24))]

    /// Whatever happens in between, sequences and class sequences have no gap and no repetition.
    #[test]
    fn sequences_are_gapless_under_any_history(acts in prop::collection::vec(act(), 1..30)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let dir = tempfile::tempdir().unwrap();
            let mut store = Store::open(&options(dir.path())).unwrap().0;
            let (mut sequence, mut classes) = (0, [0_u64; 7]);
            for act in acts {
                match act {
                    Act::Commit(list) => {
                        let mut batch = Batch::new();
                        for class in &list {
                            batch = batch.event(event(Class::ALL[*class], 20));
                        }
                        let events = store.commit(batch).await.unwrap();
                        for (class, event) in list.into_iter().zip(events) {
                            sequence += 1;
                            classes[class] += 1;
                            assert_eq!((event.sequence.0, event.class_sequence.0), (sequence, classes[class]));
                        }
                    }
                    Act::Fail(list) => {
                        let mut batch = Batch::new();
                        for class in list {
                            batch = batch.event(event(Class::ALL[class], 20));
                        }
                        store.commit(batch.event(event(Class::Card, 70_000))).await.unwrap_err();
                    }
                    Act::Epoch => {
                        let reason = EpochReason::Ahead;
                        store.commit(Batch::new().op(Op::Outbox(OutboxOp::BeginEpoch { reason }))).await.unwrap();
                        (sequence, classes) = (0, [0; 7]);
                    }
                    Act::Restart { clean } => {
                        if clean {
                            store.close().await;
                        }
                        drop(store);
                        let (again, opened) = Store::open(&options(dir.path())).unwrap();
                        assert!(opened.new_epoch.is_none() && opened.clean_shutdown == clean);
                        store = again;
                    }
                }
            }
            store.close().await;
        });
    }
}
