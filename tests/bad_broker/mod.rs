//! What the stories of brokers that misbehave share: a store with events of three
//! classes, one way to misbehave as a case (shown in health while it lasts, all
//! delivered after it), and the bytes that no broker should send.
#![allow(dead_code)] // each test file uses its part
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::panic::AssertUnwindSafe;

use baygate::config::tables::MqttVersion;
use baygate::event::Class;
use baygate::store::{Batch, Store};
use futures_util::FutureExt as _;
use futures_util::future::join_all;

use crate::mqtt::{Money, Shop, Signals, Tap, table, until};
use crate::scripted_broker::{Mood, ScriptedBroker, frame, message};

pub const V5: MqttVersion = MqttVersion::V5;
pub const V3: MqttVersion = MqttVersion::V311;
pub const EACH: u64 = 12;

/// Twelve events in each of three classes.
pub async fn fill(shop: &Shop) {
    for n in 1..=EACH {
        shop.commit(Money::event(n, 50)).await;
        shop.commit(Tap::event(n, 200)).await;
        shop.commit(Signals::event(n, 300)).await;
    }
}

/// So many in each of the three, many in a transaction: a backlog of days.
pub async fn fill_with(store: &Store, each: u64) {
    for numbers in (1..=each).collect::<Vec<_>>().chunks(50) {
        let batch = numbers.iter().fold(Batch::new(), |batch, n| {
            batch.event(Money::event(*n, 50)).event(Tap::event(*n, 200)).event(Signals::event(*n, 300))
        });
        store.commit(batch).await.unwrap();
    }
}

pub fn classes() -> [Class; 3] {
    [Class::Ledger, Class::Card, Class::Telemetry]
}

/// Each class arrived whole, its first arrivals in order.
pub fn assert_whole(name: &str, broker: &ScriptedBroker) {
    assert_whole_to(EACH, name, broker);
}

pub fn assert_whole_to(each: u64, name: &str, broker: &ScriptedBroker) {
    for class in classes() {
        let arrived = broker.first_arrivals(class.as_str());
        assert!(arrived.iter().copied().eq(1..=each), "{name}: {class}: {arrived:?}");
    }
}

/// One way to misbehave.
pub struct Case {
    pub name: String,
    pub version: MqttVersion,
    pub mood: Mood,
    /// The code in health, and what its text must say.
    pub code: &'static str,
    pub says: &'static str,
    /// Connections to wait for.
    pub connections: usize,
    /// It takes nothing at all: never may it look well.
    pub steady: bool,
}

pub fn case(name: &str, version: MqttVersion, mood: Mood, code: &'static str, says: &'static str) -> Case {
    let name = format!("{version:?}: {name}");
    Case { name, version, mood, code, says, connections: 3, steady: true }
}

pub async fn misbehaves(case: Case) {
    let Case { name, version, mood, code, says, connections, steady } = case;
    let broker = ScriptedBroker::start(mood).await;
    let mut shop = Shop::open();
    fill(&shop).await;
    shop.start(table(broker.port, version));
    // It stands in health while the broker misbehaves, also between two tries.
    let shows = async || {
        let troubles = shop.health.troubles();
        troubles.into_iter().find(|trouble| trouble.code == code && trouble.text.en.contains(says))
    };
    let trouble =
        until(&format!("{name}: {code} {says:?} shown, not {:?}", shop.health.troubles()), shows).await;
    assert!(trouble.text.zh.chars().any(|c| c > '\u{4e00}'), "{name}: {trouble:?}");
    assert!(!trouble.blocks_ready, "{name}: the store goes on without headquarters");
    until(&format!("{name}: tried again"), async || {
        assert!(!steady || !shop.health.troubles().is_empty(), "{name}: looks well between two tries");
        (broker.connections() >= connections).then_some(())
    })
    .await;
    shop.assert_running();
    broker.turns(Mood::good());
    for class in classes() {
        until(&format!("{name}: {class} delivered"), async || {
            (shop.delivered(class).await >= EACH).then_some(())
        })
        .await;
    }
    assert_whole(&name, &broker);
    until(&format!("{name}: well again"), async || shop.health.troubles().is_empty().then_some(())).await;
    let stats = shop.store.read(|reader| reader.stats()).await.unwrap();
    assert_eq!(stats.quarantined, 0, "{name}");
    shop.stop().await;
}

/// Side by side: mostly they wait.
pub async fn all(cases: Vec<Case>) {
    let ended =
        join_all(cases.into_iter().map(|case| AssertUnwindSafe(misbehaves(case)).catch_unwind())).await;
    // Each has said what was wrong.
    let failed = ended.iter().filter(|ended| ended.is_err()).count();
    assert_eq!(failed, 0, "{failed} of {} failed", ended.len());
}

/// Bytes a broker may send after the first event, with the code and words they must lead to.
pub fn oddities(version: MqttVersion) -> Vec<(&'static str, Vec<u8>, &'static str, &'static str)> {
    let level = if version == V5 { 5 } else { 4 };
    let unknown = if level == 5 { frame(0x40, &[0x10, 0x92, 0, 0]) } else { frame(0x40, &[0x10, 0x92]) };
    let suback = if level == 5 { frame(0x90, &[0x10, 0x92, 0, 1]) } else { frame(0x90, &[0x10, 0x92, 1]) };
    let connack = if level == 5 { frame(0x20, &[0, 0, 0]) } else { frame(0x20, &[0, 0]) };
    let mut oddities = vec![
        ("a remaining length of 256 MiB", vec![0x30, 0xFF, 0xFF, 0xFF, 0x7F], "packet-oversize", "268435"),
        (
            "a remaining length without end",
            vec![0x30, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF],
            "not-mqtt",
            "proper MQTT",
        ),
        (
            "a message over our limit",
            message(level, "baygate/v1/SH-0042/gw-1/command/ping", &[b'x'; 140_000]),
            "packet-oversize",
            "140",
        ),
        ("packet type 0", vec![0x00, 0x00], "not-mqtt", "proper MQTT"),
        ("PUBACK for an id we never used", unknown, "not-mqtt", "4242"),
        ("SUBACK for an id we never used", suback, "not-mqtt", "4242"),
        // Answered with PUBCOMP, as it should be; the event still waits for its PUBACK.
        ("PUBREL for an id we never had", frame(0x62, &[0x10, 0x92]), "no-answer", "never acknowledged"),
        ("PUBCOMP for an id we never used", frame(0x70, &[0x10, 0x92]), "not-mqtt", "4242"),
        ("PUBREC for an id we never used", frame(0x50, &[0x10, 0x92]), "not-mqtt", "4242"),
        ("a second CONNACK", connack, "not-mqtt", "proper MQTT"),
        ("PINGREQ", vec![0xC0, 0x00], "not-mqtt", "proper MQTT"),
        ("CONNECT", frame(0x10, b"\x00\x04MQTT\x04\x02\x00\x00\x00\x00"), "not-mqtt", "proper MQTT"),
        ("PUBLISH with QoS 3", frame(0x36, b"\x00\x01a\x00\x01x"), "not-mqtt", "proper MQTT"),
        ("PUBLISH cut short", frame(0x32, b"\x00\x09a"), "not-mqtt", "proper MQTT"),
    ];
    if version == V5 {
        oddities.extend([
            ("DISCONNECT: shutting down", frame(0xE0, &[0x8B, 0]), "not-serving", "0x8B"),
            ("DISCONNECT: too many packets", frame(0xE0, &[0x96, 0]), "not-serving", "0x96"),
        ]);
    } else {
        oddities.push(("packet type 15", vec![0xF0, 0x00], "not-mqtt", "proper MQTT"));
    }
    oddities
}
