//! What the uplink judged but the log did not take: nothing may be passed over for it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod mqtt;

use baygate::config::tables::{Confirm, MqttVersion};
use baygate::event::Class;
use baygate::event::gateway::EpochReason;
use baygate::store::outbox::OutboxOp;
use baygate::store::{Batch, Offset, Op};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use mqtt::{BASE, Listener, Money, Mosquitto, Shop, Tap, publish, table, until};

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_could_not_be_set_aside_is_not_passed_over() {
    let broker = Mosquitto::start("").await;
    let mut hq = Listener::start(broker.port, "5", "baygate/v1/#").await;
    let mut shop = Shop::open();
    for (n, bytes) in [(1, 100), (2, 20_000), (3, 100)] {
        shop.commit(Money::event(n, bytes)).await;
    }
    // The place for what is set aside cannot be written.
    let side_door = rusqlite::Connection::open(shop.folder().join("baygate.db")).unwrap();
    side_door.execute_batch("ALTER TABLE quarantine RENAME TO away").unwrap();
    let mut thin = table(broker.port, MqttVersion::V5);
    thin.max_packet_bytes = 4096;
    shop.start(thin);
    shop.await_trouble("store").await;
    side_door.execute_batch("ALTER TABLE away RENAME TO quarantine").unwrap();

    shop.await_delivered(Class::Ledger, 3).await;
    let aside = shop.store.read(|reader| reader.quarantined(Offset(0), 10)).await.unwrap();
    assert_eq!(aside.len(), 1, "the second event was neither delivered nor set aside: it is lost");
    let gap = hq.on("event/gateway/gateway.gap").await;
    assert_eq!(
        (&gap["data"]["class"], &gap["data"]["from"], &gap["data"]["reason"]),
        (&"ledger".into(), &2.into(), &"rejected".into())
    );
    until("well again", async || shop.health.troubles().is_empty().then_some(())).await;
    shop.stop().await;
}

/// `/metrics` of this process: the figure of a class.
fn figure(metrics: &PrometheusHandle, name: &str, class: Class) -> u64 {
    let start = format!("{name}{{class=\"{class}\"}} ");
    let text = metrics.render();
    let line = text.lines().find_map(|line| line.strip_prefix(&start)).unwrap_or("0");
    line.parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_set_aside_does_not_count_as_acknowledged() {
    let metrics = PrometheusBuilder::new().install_recorder().unwrap();
    let broker = Mosquitto::start("").await;
    let _hq = Listener::start(broker.port, "5", "baygate/v1/#").await;
    let mut shop = Shop::open();
    // No other test of this file has this class.
    for (n, bytes) in [(1, 100), (2, 20_000), (3, 100), (4, 20_000), (5, 20_000), (6, 100)] {
        shop.commit(Tap::event(n, bytes)).await;
    }
    let mut thin = table(broker.port, MqttVersion::V5);
    thin.max_packet_bytes = 4096;
    shop.start(thin);
    shop.await_delivered(Class::Card, 6).await;
    let aside = figure(&metrics, "baygate_uplink_set_aside_total", Class::Card);
    let acked = figure(&metrics, "baygate_uplink_acked_total", Class::Card);
    assert_eq!((aside, acked), (3, 3), "(set aside, acknowledged)");
    shop.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ack_beyond_the_end_of_an_old_epoch_confirms_nothing_that_was_not_sent() {
    let broker = Mosquitto::start("").await;
    let mut shop = Shop::open();
    for n in 1..=3 {
        shop.commit(Money::event(n, 10)).await;
    }
    let old = shop.store.head().borrow().epoch;
    // Headquarters has 99 under this name, from the disk that this one was copied from.
    let ahead = Op::Outbox(OutboxOp::BeginEpoch { reason: EpochReason::Ahead });
    shop.store.commit(Batch::new().op(ahead)).await.unwrap();
    shop.commit(Money::event(4, 10)).await;
    let (topic, ack) = (format!("{BASE}/ack"), format!(r#"{{"epoch":"{old}","classes":{{"ledger":99}}}}"#));
    publish(broker.port, &topic, &ack, true).await;

    let mut hq = Listener::start(broker.port, "5", &format!("{BASE}/event/#")).await;
    let mut trusting = table(broker.port, MqttVersion::V5);
    trusting.confirm = Confirm::Headquarters;
    shop.start(trusting);
    for n in 1..=4 {
        assert_eq!(hq.on("card.transaction").await["data"]["n"], n, "passed over, though never sent");
    }
    // Now that they are sent, the same word does confirm them: the class does not hang on it.
    until("the old epoch is confirmed", async || {
        publish(broker.port, &topic, &ack, true).await;
        (shop.delivered(Class::Ledger).await == 3).then_some(())
    })
    .await;
    shop.stop().await;
}
