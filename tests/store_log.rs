//! The log keeps what was committed, in order and without gaps, across a restart.

#![allow(clippy::unwrap_used)]

#[path = "support/store.rs"]
mod store;

use baygate::clock::UtcMillis;
use baygate::event::device::{DeviceState, DeviceStatus};
use baygate::event::{Class, NewEvent};
use baygate::ident::Seq;
use baygate::store::outbox::{ClassCursor, OutboxOp};
use baygate::store::{Batch, Offset, Op, Store};
use store::options;

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

#[tokio::test]
async fn what_is_delivered_never_moves_back() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = Store::open(&options(dir.path())).unwrap();
    for _ in 0..3 {
        store.commit(Batch::new().event(fact())).await.unwrap();
    }
    let class = Class::Device;
    for (noted, stands) in [(2, 2), (1, 2), (3, 3), (2, 3)] {
        let to = ClassCursor { epoch_no: 1, class_sequence: Seq(noted) };
        store.commit(Batch::new().op(Op::Outbox(OutboxOp::Delivered { class, to }))).await.unwrap();
        let at = store.read(move |reader| reader.delivered(class)).await.unwrap();
        assert_eq!(at, ClassCursor { epoch_no: 1, class_sequence: Seq(stands) }, "{noted} was noted");
    }
}

#[tokio::test]
async fn a_clock_that_jumps_reorders_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = Store::open(&options(dir.path())).unwrap();
    let times = [1_700_000_000_000, 0, 4_000_000_000_000, 5].map(UtcMillis);
    for time in times {
        store.commit(Batch::new().event(NewEvent { time, ..fact() })).await.unwrap();
    }
    let all = store.read(|reader| reader.events_after(Offset(0), 10)).await.unwrap();
    let class =
        store.read(|reader| reader.class_events_after(Class::Device, Default::default(), 10)).await.unwrap();
    for events in [all, class] {
        let read: Vec<UtcMillis> = events.iter().map(|logged| logged.event.time).collect();
        assert_eq!(read, times, "in the order of the commits, whatever the clock said");
    }
}
