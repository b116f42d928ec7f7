//! Brokers that refuse, stall, lie or babble. Each has a message that says what
//! to do; nothing else stops, nothing spins, nothing hangs.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod mqtt;
#[path = "support/scripted_broker.rs"]
mod scripted_broker;

use std::time::{Duration, Instant};

use baygate::config::tables::MqttVersion;
use baygate::event::Class;
use mqtt::{BASE, Listener, Money, Mosquitto, Shop, Signals, Tap, publish, table, until};
use scripted_broker::{Deed, Greet, Heard, Mood, ScriptedBroker};

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_is_named_and_a_right_one_is_taken_without_a_restart() {
    for version in [MqttVersion::V5, MqttVersion::V311] {
        let dir = tempfile::tempdir().unwrap();
        let users = dir.path().join("users");
        let made = std::process::Command::new("mosquitto_passwd")
            .args(["-b", "-c", users.to_str().unwrap(), "gw-1", "right"])
            .status()
            .unwrap();
        assert!(made.success());
        let broker =
            Mosquitto::start(&format!("allow_anonymous false\npassword_file {}", users.display())).await;
        let mut shop = Shop::open();
        let mut table = table(broker.port, version);
        table.username = Some("gw-1".into());
        shop.credential("mqtt-password", "wrong\n");
        shop.start(table);
        let trouble = match version {
            // Mosquitto answers 0x87 "not authorized" to a wrong password in MQTT 5.
            MqttVersion::V5 => shop.await_trouble("not-authorised").await,
            MqttVersion::V311 => shop.await_trouble("bad-credentials").await,
        };
        assert!(trouble.text.en.contains("user") && trouble.text.zh.contains('用'), "{trouble:?}");
        shop.assert_running();
        shop.credential("mqtt-password", "right\n");
        shop.await_well().await;
        shop.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_without_right_waits_and_the_others_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let acl = dir.path().join("acl");
    std::fs::write(
        &acl,
        "topic readwrite baygate/v1/SH-0042/gw-1/state\ntopic readwrite baygate/v1/SH-0042/gw-1/event/card/#\n\
         topic read baygate/v1/#\ntopic readwrite ready\n",
    )
    .unwrap();
    let broker = Mosquitto::start(&format!("acl_file {}", acl.display())).await;
    let mut hq = Listener::start(broker.port, "5", &format!("{BASE}/event/#")).await;
    let mut shop = Shop::open();
    shop.commit(Money::event(1, 10)).await;
    shop.commit(Tap::event(2, 10)).await;
    shop.start(table(broker.port, MqttVersion::V5));
    let trouble = shop.await_trouble("topic-not-authorised").await;
    assert!(trouble.text.en.contains("event/ledger"), "{}", trouble.text.en);
    assert_eq!(hq.on("card.tapped").await["data"]["n"], 2);
    shop.await_delivered(Class::Card, 1).await;
    assert_eq!(shop.delivered(Class::Ledger).await, 0);
    shop.assert_running();
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_subscriber_nothing_is_delivered_and_readyz_says_so() {
    let broker = Mosquitto::start("").await;
    let mut shop = Shop::open();
    for n in 1..=20 {
        shop.commit(Tap::event(n, 10)).await;
    }
    shop.start(table(broker.port, MqttVersion::V5));
    shop.await_trouble("no-subscribers").await;
    assert_eq!(shop.delivered(Class::Card).await, 0);
    let mut hq = Listener::start(broker.port, "5", &format!("{BASE}/event/#")).await;
    for n in 1..=20 {
        assert_eq!(hq.on("card.tapped").await["data"]["n"], n, "in order, none lost");
    }
    shop.await_delivered(Class::Card, 20).await;
    shop.await_well().await;
    shop.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn brokers_that_refuse_or_babble_are_named_and_tried_again() {
    // (name, version, what comes after CONNECT, expected code)
    for (name, version, connack, code) in [
        (
            "5: unsupported version",
            MqttVersion::V5,
            &[0x20, 0x03, 0x00, 0x84, 0x00][..],
            "wrong-protocol-version",
        ),
        ("5: client id", MqttVersion::V5, &[0x20, 0x03, 0x00, 0x85, 0x00], "client-id-refused"),
        ("5: password", MqttVersion::V5, &[0x20, 0x03, 0x00, 0x86, 0x00], "bad-credentials"),
        ("5: busy", MqttVersion::V5, &[0x20, 0x03, 0x00, 0x89, 0x00], "not-serving"),
        ("5: a 3.1.1 broker's word", MqttVersion::V5, &[0x20, 0x02, 0x00, 0x01], "wrong-protocol-version"),
        (
            "3.1.1: unacceptable version",
            MqttVersion::V311,
            &[0x20, 0x02, 0x00, 0x01],
            "wrong-protocol-version",
        ),
        ("3.1.1: client id", MqttVersion::V311, &[0x20, 0x02, 0x00, 0x02], "client-id-refused"),
        ("3.1.1: not authorised", MqttVersion::V311, &[0x20, 0x02, 0x00, 0x05], "bad-credentials"),
        ("5: a web server", MqttVersion::V5, b"HTTP/1.1 400 Bad Request\r\n\r\n", "not-mqtt"),
        ("3.1.1: a web server", MqttVersion::V311, b"HTTP/1.1 400 Bad Request\r\n\r\n", "not-mqtt"),
        ("5: noise", MqttVersion::V5, &[0xFF; 64], "not-mqtt"),
        ("5: endless packet", MqttVersion::V5, &[0x20, 0xFF, 0xFF, 0xFF, 0x7F, 0x00], "not-mqtt"),
        ("5: silence", MqttVersion::V5, &[], "no-answer"),
        ("3.1.1: silence", MqttVersion::V311, &[], "no-answer"),
    ] {
        let broker = ScriptedBroker::start(Mood::greets(Greet::Says(connack.to_vec()))).await;
        let mut shop = Shop::open();
        shop.start(table(broker.port, version));
        let found = until(name, async || shop.health.troubles().into_iter().next()).await;
        assert_eq!(found.code, code, "{name}: {}", found.text.en);
        until("a second try", async || (broker.connections() > 1).then_some(())).await;
        shop.assert_running();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_swallows_pubacks_is_left_for_another_try() {
    let broker = ScriptedBroker::start(Mood::on_event(|_| Deed::Ignore)).await;
    let mut shop = Shop::open();
    for n in 1..=300 {
        shop.commit(Signals::event(n, 1000)).await;
    }
    shop.start(table(broker.port, MqttVersion::V5));
    shop.await_trouble("no-answer").await;
    until("a second try", async || (broker.connections() > 1).then_some(())).await;
    assert_eq!(shop.delivered(Class::Telemetry).await, 0);
    shop.assert_running();
    shop.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_in_the_middle_of_a_session_is_survived() {
    let garbage = vec![0x30, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF];
    let broker = ScriptedBroker::start(Mood::on_event(move |_| Deed::TakeThen(garbage.clone()))).await;
    let mut shop = Shop::open();
    shop.commit(Tap::event(1, 10)).await;
    shop.start(table(broker.port, MqttVersion::V5));
    shop.await_trouble("not-mqtt").await;
    until("a second try", async || (broker.connections() > 1).then_some(())).await;
    shop.assert_running();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payload_the_broker_calls_invalid_is_set_aside_once() {
    let rejects_cards = |heard: &Heard<'_>| {
        if heard.topic.contains("/event/card/") { Deed::Refuse(0x99) } else { Deed::Take }
    };
    let broker = ScriptedBroker::start(Mood::on_event(rejects_cards)).await;
    let mut shop = Shop::open();
    shop.commit(Tap::event(1, 10)).await;
    shop.start(table(broker.port, MqttVersion::V5));
    shop.await_delivered(Class::Card, 1).await;
    shop.await_delivered(Class::Gateway, 1).await;
    let gaps =
        shop.store.read(|r| r.class_events_after(Class::Gateway, Default::default(), 10)).await.unwrap();
    assert_eq!(gaps.len(), 1);
    assert_eq!(&*gaps[0].event.kind, "gateway.gap");
    shop.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_taken_over_session_is_reported_as_a_duplicate_identity() {
    let broker = Mosquitto::start("").await;
    let (mut one, mut two) = (Shop::open(), Shop::open());
    one.start(table(broker.port, MqttVersion::V5));
    one.await_well().await;
    two.start(table(broker.port, MqttVersion::V5));
    let trouble = one.await_trouble("duplicate-identity").await;
    assert!(trouble.text.en.contains("client_id") && trouble.text.zh.contains("client_id"));
    two.crash().await;
    one.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_there_then_somebody() {
    let mut broker = Mosquitto::start("").await;
    broker.kill();
    let mut shop = Shop::open();
    shop.commit(Tap::event(1, 10)).await;
    shop.start(table(broker.port, MqttVersion::V5));
    shop.await_trouble("unreachable").await;
    broker.up().await;
    let mut hq = Listener::start(broker.port, "311", &format!("{BASE}/event/#")).await;
    assert_eq!(hq.on("card.tapped").await["data"]["n"], 1);
    shop.await_well().await;
    let began = Instant::now();
    shop.stop().await;
    assert!(began.elapsed() < Duration::from_secs(5));
}

const COMMAND: &str = "0192f1d0-0000-7000-8000-00000000000";

#[tokio::test(flavor = "multi_thread")]
async fn commands_act_at_most_once() {
    let broker = Mosquitto::start("").await;
    let mut hq = Listener::start(broker.port, "5", &format!("{BASE}/#")).await;
    let mut shop = Shop::open();
    shop.start(table(broker.port, MqttVersion::V5));
    // Subscriptions stand before `state` is told.
    hq.on("/state").await;
    let late = r#","expires_at":"2020-01-01T00:00:00Z""#;
    // (id, topic, rest, expected outcome; none: silent)
    for (id, name, rest, expected) in [
        (1, "ping", r#","args":{}"#, Some("done")),
        (1, "ping", r#","args":{}"#, None),
        (1, "ping", r#","args":{"other":1}"#, Some("refused")),
        (2, "ping", late, Some("expired")),
        (3, "no.such.thing", "", Some("refused")),
        (4, "vehicle.scan", r#","args":{}"#, Some("refused")),
    ] {
        let topic = format!("{BASE}/command/{name}");
        publish(broker.port, &topic, &format!(r#"{{"id":"{COMMAND}{id}"{rest}}}"#), false).await;
        if let Some(outcome) = expected {
            let result = hq.on("command.result").await;
            assert_eq!(result["data"]["outcome"], outcome, "{id} {name} {rest}");
            assert_eq!(result["data"]["command_id"], format!("{COMMAND}{id}"));
        }
    }
    publish(broker.port, &format!("{BASE}/command/ping"), "{garbage", false).await;
    publish(broker.port, "baygate/v1/SH-0042/all/command/ping", &format!(r#"{{"id":"{COMMAND}5"}}"#), false)
        .await;
    assert_eq!(hq.on("command.result").await["data"]["command_id"], format!("{COMMAND}5"));
    // Sent while we are away: it waits at the broker. Twice, and over a restart: acts once.
    shop.stop().await;
    for id in [6, 1, 6] {
        publish(
            broker.port,
            &format!("{BASE}/command/ping"),
            &format!(r#"{{"id":"{COMMAND}{id}","args":{{}}}}"#),
            false,
        )
        .await;
    }
    shop.start(table(broker.port, MqttVersion::V5));
    assert_eq!(hq.on("command.result").await["data"]["command_id"], format!("{COMMAND}6"));
    shop.await_delivered(Class::Gateway, 7).await;
    let results = shop.store.read(|r| r.last_sequences()).await.unwrap();
    assert!(results.iter().any(|(class, last)| *class == Class::Gateway && last.0 == 7), "{results:?}");
    shop.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scan_command_reports_its_requests_outcome_also_after_a_restart() {
    use baygate::store::requests::{RequestOp, RequestState};
    use baygate::store::{Batch, Op};

    let broker = Mosquitto::start("").await;
    let mut hq = Listener::start(broker.port, "5", &format!("{BASE}/#")).await;
    let mut shop = Shop::open();
    shop.start(table(broker.port, MqttVersion::V5));
    // Subscriptions stand before `state` is told.
    hq.on("/state").await;
    for (id, state, outcome, expected) in [
        (7, RequestState::Done, serde_json::json!({"vin": null}), "done"),
        (8, RequestState::Failed, serde_json::json!({"error": "no car"}), "failed"),
        (9, RequestState::Failed, serde_json::json!({"error": "interrupted"}), "interrupted"),
    ] {
        let payload = format!(r#"{{"id":"{COMMAND}{id}","args":{{"link":"bay-1"}}}}"#);
        publish(broker.port, &format!("{BASE}/command/vehicle.scan"), &payload, false).await;
        let request = until("the request", async || {
            shop.store.read(|r| r.open_requests("vehicle.scan", Some("bay-1"))).await.unwrap().pop()
        })
        .await;
        shop.stop().await;
        let settle = RequestOp::Settle { id: request.id, state, outcome };
        shop.store.commit(Batch::new().op(Op::Request(settle))).await.unwrap();
        shop.start(table(broker.port, MqttVersion::V5));
        let result = hq.on("command.result").await;
        assert_eq!(result["data"]["outcome"], expected);
        assert_eq!(result["data"]["name"], "vehicle.scan");
    }
    shop.stop().await;
}
