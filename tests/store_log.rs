//! The log keeps what was committed, in order and without gaps, across a restart.

#![allow(clippy::unwrap_used)]

use baygate::event::device::{DeviceState, DeviceStatus};
use baygate::event::{Class, NewEvent, Source};
use baygate::store::{Batch, Offset, Store, StoreOptions};

fn options(dir: &std::path::Path) -> StoreOptions {
    StoreOptions {
        data_dir: dir.to_owned(),
        source: Source { store: "SH-0042".parse().unwrap(), gateway: "gw-1".parse().unwrap() },
        machine_id: None,
        max_bytes: 1 << 30,
        limits: Vec::new(),
    }
}

fn fact() -> NewEvent {
    NewEvent::now("reader/r", &DeviceState { state: DeviceStatus::Ready, reason: None, detail: None })
        .unwrap()
}

#[tokio::test]
async fn sequences_have_no_gaps_across_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let (store, opened) = Store::open(&options(dir.path())).unwrap();
    for _ in 0..10 {
        store.commit(Batch::new().event(fact())).await.unwrap();
    }
    store.close().await;
    drop(store);
    let (store, again) = Store::open(&options(dir.path())).unwrap();
    assert_eq!(again.epoch, opened.epoch);
    assert!(again.clean_shutdown && again.new_epoch.is_none());
    let next = store.commit(Batch::new().event(fact())).await.unwrap();
    assert_eq!(next[0].sequence.0, 11);
    let events = store.read(|r| r.events_after(Offset(0), 100)).await.unwrap();
    let sequences: Vec<u64> = events.iter().map(|e| e.event.sequence.0).collect();
    assert_eq!(sequences, (1..=11).collect::<Vec<_>>());
    let by_class =
        store.read(|r| r.class_events_after(Class::Device, Default::default(), 100)).await.unwrap();
    assert_eq!(by_class.len(), 11);
}
