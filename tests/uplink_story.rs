//! A day of the uplink with a real Mosquitto: both versions, plain and TLS,
//! state and will, commands, headquarters' word.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "support/authority.rs"]
mod authority;
mod mqtt;

use std::time::Duration;

use authority::Authority;
use baygate::config::tables::{Confirm, MqttTable, MqttVersion};
use baygate::event::Class;
use mqtt::{BASE, Listener, Money, Mosquitto, Shop, Signals, Tap, publish, table, until};

async fn broker(pki: &Authority, name: &str, extra: &str) -> Mosquitto {
    let dir = tempfile::tempdir().unwrap().keep();
    Mosquitto::start(&(pki.mosquitto(&dir, name) + extra)).await
}

fn tls_table(shop: &Shop, pki: &Authority, port: u16, version: MqttVersion) -> MqttTable {
    let mut table = table(port, version);
    table.url = format!("mqtts://127.0.0.1:{port}").parse().unwrap();
    table.ca_file = Some(pki.write(&shop.folder()));
    table
}

#[tokio::test(flavor = "multi_thread")]
async fn events_arrive_as_the_contract_says_in_both_versions() {
    for (version, sub) in [(MqttVersion::V5, "5"), (MqttVersion::V311, "311")] {
        let broker = Mosquitto::start("").await;
        let mut hq = Listener::start(broker.port, sub, &format!("{BASE}/#")).await;
        let mut shop = Shop::open();
        shop.commit(Tap::event(1, 10)).await;
        shop.start(table(broker.port, version));
        let state = hq.on("/state").await;
        assert_eq!(state["online"], true);
        assert_eq!(state["last"]["card"], 1);
        let event = hq.on("/event/card/card.tapped").await;
        assert_eq!(event["type"], "baygate.card.tapped");
        assert_eq!(event["classsequence"], "00000000000000000001");
        assert_eq!(event["data"]["n"], 1);
        shop.commit(Money::event(2, 10)).await;
        assert_eq!(hq.on("/event/ledger/card.transaction").await["data"]["n"], 2);
        shop.await_delivered(Class::Ledger, 1).await;
        assert_eq!(hq.on("/state").await["last"]["ledger"], 1, "state follows");
        shop.stop().await;
        let last = hq.on("/state").await;
        assert_eq!((&last["online"], &last["connection"]), (&serde_json::json!(false), &state["connection"]));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_will_speaks_when_we_cannot() {
    let broker = Mosquitto::start("").await;
    let mut hq = Listener::start(broker.port, "5", &format!("{BASE}/state")).await;
    let mut shop = Shop::open();
    shop.start(table(broker.port, MqttVersion::V5));
    let state = hq.on("/state").await;
    shop.crash().await;
    let will = hq.on("/state").await;
    assert_eq!(will["online"], false);
    assert_eq!(will["connection"], state["connection"]);
    // Back again; and a stranger's will over our state is written over.
    shop.start(table(broker.port, MqttVersion::V5));
    assert_eq!(hq.on("/state").await["online"], true);
    shop.await_well().await;
    let stranger = r#"{"online":false,"connection":"00000000-0000-4000-8000-000000000000"}"#;
    publish(broker.port, &format!("{BASE}/state"), stranger, true).await;
    assert_eq!(hq.on("/state").await["online"], false);
    assert_eq!(hq.on("/state").await["online"], true);
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_in_both_versions_with_a_client_certificate() {
    let pki = Authority::new();
    for version in [MqttVersion::V5, MqttVersion::V311] {
        let broker = broker(&pki, "127.0.0.1", "require_certificate true").await;
        let mut shop = Shop::open();
        let mut table = tls_table(&shop, &pki, broker.port, version);
        let (certificate, key) = pki.issue("gw-1");
        let path = shop.folder().join("client.pem");
        std::fs::write(&path, certificate).unwrap();
        table.client_cert_file = Some(path);
        shop.credential("mqtt-client-key", &key);
        shop.commit(Tap::event(1, 10)).await;
        shop.start(table);
        match version {
            // Nobody subscribes: 3.1.1 cannot tell, 5 says so.
            MqttVersion::V311 => shop.await_delivered(Class::Card, 1).await,
            MqttVersion::V5 => {
                shop.await_trouble("no-subscribers").await;
            }
        }
        shop.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_certificates_are_named() {
    let (pki, other) = (Authority::new(), Authority::new());
    // (name, certificate is for, CA we trust, expected code)
    for (name, host, trusted, code) in [
        ("wrong CA", "127.0.0.1", &other, "certificate-unknown-issuer"),
        ("wrong host", "mqtt.example.com", &pki, "certificate-wrong-name"),
    ] {
        for version in [MqttVersion::V5, MqttVersion::V311] {
            let broker = broker(&pki, host, "").await;
            let mut shop = Shop::open();
            shop.start(tls_table(&shop, trusted, broker.port, version));
            let trouble = shop.await_trouble(code).await;
            assert!(!trouble.blocks_ready && !trouble.text.zh.is_empty(), "{name}");
            shop.assert_running();
        }
    }
    // A client certificate is asked for and we have none.
    let broker = broker(&pki, "127.0.0.1", "require_certificate true").await;
    let mut shop = Shop::open();
    shop.start(tls_table(&shop, &pki, broker.port, MqttVersion::V5));
    shop.await_trouble("client-certificate-refused").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn headquarters_word_settles_and_silence_sends_again() {
    let broker = Mosquitto::start("").await;
    let mut hq = Listener::start(broker.port, "5", &format!("{BASE}/#")).await;
    let mut shop = Shop::open();
    for n in 1..=3 {
        shop.commit(Money::event(n, 10)).await;
    }
    let mut table = table(broker.port, MqttVersion::V5);
    table.confirm = Confirm::Headquarters;
    table.confirm_timeout = Duration::from_secs(1);
    shop.start(table.clone());
    let mut seen = Vec::new();
    while seen.len() < 6 {
        seen.push(hq.on("card.transaction").await["data"]["n"].as_u64().unwrap());
    }
    assert_eq!(seen, [1, 2, 3, 1, 2, 3], "sent again without a word");
    assert_eq!(shop.delivered(Class::Ledger).await, 0, "PUBACK is not headquarters' word");
    let epoch = shop.store.head().borrow().epoch;
    let ack = |n| format!(r#"{{"epoch":"{epoch}","classes":{{"ledger":{n}}}}}"#);
    publish(broker.port, &format!("{BASE}/ack"), &ack(2), false).await;
    shop.await_delivered(Class::Ledger, 2).await;
    publish(broker.port, &format!("{BASE}/ack"), &ack(1), false).await;
    publish(broker.port, &format!("{BASE}/ack"), "{garbage", false).await;
    publish(broker.port, &format!("{BASE}/ack"), &ack(3), false).await;
    shop.await_delivered(Class::Ledger, 3).await;
    assert_eq!(shop.store.head().borrow().epoch, epoch);
    shop.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_word_ahead_of_ours_begins_a_new_epoch() {
    let broker = Mosquitto::start("").await;
    let mut hq = Listener::start(broker.port, "5", &format!("{BASE}/#")).await;
    let mut shop = Shop::open();
    shop.commit(Money::event(1, 10)).await;
    let first = shop.store.head().borrow().epoch;
    // Our own retained state of a life we do not remember.
    let state = format!(
        r#"{{"online":true,"connection":"00000000-0000-4000-8000-000000000000","epoch":"{first}","last":{{"ledger":9}}}}"#
    );
    publish(broker.port, &format!("{BASE}/state"), &state, true).await;
    shop.start(table(broker.port, MqttVersion::V5));
    let second = until("a new epoch by state", async || {
        let epoch = shop.store.head().borrow().epoch;
        (epoch != first).then_some(epoch)
    })
    .await;
    // What this run committed and nobody was shown yet moves along: its number may be taken there.
    assert_eq!(hq.on("card.transaction").await["epoch"], second.to_string());
    let ack = format!(r#"{{"epoch":"{second}","classes":{{"card":1}}}}"#);
    publish(broker.port, &format!("{BASE}/ack"), &ack, false).await;
    until("a new epoch by ack", async || {
        let epoch = shop.store.head().borrow().epoch;
        (epoch != second).then_some(())
    })
    .await;
    shop.commit(Money::event(2, 10)).await;
    let event = hq.on("card.transaction").await;
    assert_eq!(event["classsequence"], "00000000000000000001");
    assert_eq!(event["epoch"], shop.store.head().borrow().epoch.to_string());
    shop.stop().await;
}

/// The CloudEvents MQTT binding: a receiver knows structured mode by the content type.
#[tokio::test(flavor = "multi_thread")]
async fn an_event_says_its_content_type() {
    let broker = Mosquitto::start("").await;
    let mut shop = Shop::open();
    shop.commit(Tap::event(1, 10)).await;
    let child = tokio::process::Command::new("mosquitto_sub")
        .args(["-h", "127.0.0.1", "-p", &broker.port.to_string(), "-V", "5", "-q", "1", "-C", "1"])
        .args(["-W", "30", "-t", &format!("{BASE}/event/#"), "-F", "%C %q %r"])
        .stdout(std::process::Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("mosquitto-clients must be installed");
    // Without a subscriber nothing counts as delivered, so the event comes when it listens.
    shop.start(table(broker.port, MqttVersion::V5));
    let heard = child.wait_with_output().await.unwrap();
    assert_eq!(String::from_utf8_lossy(&heard.stdout).trim(), "application/cloudevents+json 1 0");
    shop.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_packet_the_broker_never_takes_is_set_aside() {
    let broker = Mosquitto::start("max_packet_size 4000").await;
    let mut hq = Listener::start(broker.port, "5", &format!("{BASE}/#")).await;
    let mut shop = Shop::open();
    shop.commit(Signals::event(1, 100)).await;
    shop.commit(Signals::event(2, 12_000)).await;
    shop.commit(Signals::event(3, 100)).await;
    shop.start(table(broker.port, MqttVersion::V5));
    let (mut gap, mut seen) = (None, Vec::new());
    while gap.is_none() || seen.len() < 2 {
        let (topic, payload) = hq.next().await;
        let event: serde_json::Value = serde_json::from_str(&payload).unwrap();
        if topic.ends_with("gateway.gap") {
            gap = Some(event["data"].clone());
        } else if topic.ends_with("vehicle.signals") {
            seen.push(event["data"]["n"].as_u64().unwrap());
        }
    }
    assert_eq!(seen, [1, 3]);
    let gap = gap.unwrap();
    assert_eq!((&gap["from"], &gap["to"], &gap["count"]), (&2.into(), &2.into(), &1.into()));
    assert_eq!(gap["reason"], "rejected");
    shop.await_delivered(Class::Telemetry, 3).await;
    shop.stop().await;
}
