//! A scan's answer waits for its warnings: the rules run after the report is committed.

use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use crate::event::EventData;
use crate::event::vehicle::VehicleReport;
use crate::maintenance::CURSOR;
use crate::store::Store;

/// How long a scan waits for its warnings.
const WARNINGS_WAIT: Duration = Duration::from_secs(2);
/// A report that has so many events behind it is no news to wait for. More than the rules pass before they
/// write their position down (500).
const NEWS: u32 = 2_000;

/// Waits until the rules have seen the reports in the log as it stands now, or a moment; whether there was
/// one to wait for. Of other events they write down only now and then that they have passed them.
pub(super) async fn rules_caught_up(store: &Store) -> bool {
    caught_up_within(WARNINGS_WAIT, store).await
}

async fn caught_up_within(wait: Duration, store: &Store) -> bool {
    let until = Instant::now() + wait;
    let mut head = store.head();
    head.borrow_and_update();
    let unread = store.read(|r| r.unread(CURSOR, VehicleReport::TYPE, NEWS)).await;
    let Ok(Some(report)) = unread else { return false };
    while matches!(timeout_at(until, head.changed()).await, Ok(Ok(()))) {
        match store.read(|r| r.cursor(CURSOR)).await {
            Ok(Some(seen)) if seen < report => {}
            _ => break,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{TimeQuality, UtcMillis};
    use crate::event::{Class, NewEvent};
    use crate::store::cursors::CursorOp;
    use crate::store::{Batch, Op};
    use crate::test_store::open_store;

    /// No test ends in it, however slow the machine.
    const FOR_EVER: Duration = Duration::from_secs(3600);
    const LONG: Duration = Duration::from_secs(60);

    fn event(kind: &'static str, class: Class) -> Batch {
        Batch::new().event(NewEvent {
            id: uuid::Uuid::now_v7(),
            kind,
            class,
            subject: "vehicle/x".into(),
            time: UtcMillis::now(),
            time_quality: TimeQuality::Unsynced,
            data: serde_json::value::RawValue::from_string("{}".into()).unwrap(),
        })
    }

    /// The rules have seen all up to here.
    fn seen(store: &Store) -> Batch {
        let to = store.head().borrow().last;
        Batch::new().op(Op::Cursor(CursorOp::Advance { name: CURSOR, to }))
    }

    #[tokio::test]
    async fn nothing_waits_where_no_report_is_new_and_a_new_one_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let store = open_store(dir.path());
        store.commit(event(VehicleReport::TYPE, Class::Vehicle)).await.unwrap();
        // The first report of all: the rules have not yet written down where they stand.
        let first = tokio::time::timeout(Duration::from_millis(50), rules_caught_up(&store)).await;
        assert!(first.is_err(), "the rules have not seen the first report");
        store.commit(seen(&store)).await.unwrap();
        // What follows a report is passed, and written down minutes later, in a quiet log.
        for _ in 0..3 {
            store.commit(event("maintenance.warning", Class::Maintenance)).await.unwrap();
        }
        assert!(!rules_caught_up(&store).await, "it waits for rules that have nothing to do");
        store.commit(event(VehicleReport::TYPE, Class::Vehicle)).await.unwrap();
        let mut wait = std::pin::pin!(caught_up_within(FOR_EVER, &store));
        let early = tokio::time::timeout(Duration::from_millis(50), &mut wait).await;
        assert!(early.is_err(), "the rules have not seen the report");
        // Another commit is not yet their word.
        store.commit(event("maintenance.warning", Class::Maintenance)).await.unwrap();
        let early = tokio::time::timeout(Duration::from_millis(50), &mut wait).await;
        assert!(early.is_err(), "the rules have not seen the report");
        store.commit(seen(&store)).await.unwrap();
        assert!(tokio::time::timeout(LONG, wait).await.is_ok(), "the rules have seen it");
        assert!(!rules_caught_up(&store).await, "seen");
        // Rules that hang do not keep the answer for ever.
        store.commit(event(VehicleReport::TYPE, Class::Vehicle)).await.unwrap();
        let ended = tokio::time::timeout(LONG, caught_up_within(Duration::from_millis(50), &store)).await;
        assert_eq!(ended, Ok(true), "it waits for ever");
        store.close().await;
    }
}
