//! Brokers that stall, babble, lie, refuse and hang up, written by hand on real
//! sockets. For each: the reason stands in health by its own name, memory and log
//! stay bounded, and when the broker turns good everything arrives, once after
//! de-duplication and in order within each class.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "support/daemon.rs"]
mod daemon;
#[path = "support/dice.rs"]
mod dice;
mod mqtt;
#[path = "support/scripted_broker.rs"]
mod scripted_broker;

use std::io::BufRead as _;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use baygate::api::client::{Client, Method};
use baygate::config::tables::{Confirm, MqttVersion};
use baygate::event::Class;
use baygate::sim::card::{CardProfile, CardSim, Technology};
use baygate::store::Offset;
use baygate::uplink::backoff::Backoff;
use daemon::{Daemon, Desk};
use dice::{Dice, rounds, seed};
use futures_util::FutureExt as _;
use futures_util::future::join_all;
use mqtt::{Money, Removed, Shop, Signals, Tap, free_port, table, until};
use nix::sys::signal::Signal;
use scripted_broker::{Deed, Greet, Heard, Mood, ScriptedBroker, frame, message, taken_in_order};

const V5: MqttVersion = MqttVersion::V5;
const V3: MqttVersion = MqttVersion::V311;
const EACH: u64 = 12;

/// Twelve events in each of three classes.
async fn fill(shop: &Shop) {
    for n in 1..=EACH {
        shop.commit(Money::event(n, 50)).await;
        shop.commit(Tap::event(n, 200)).await;
        shop.commit(Signals::event(n, 300)).await;
    }
}

fn classes() -> [Class; 3] {
    [Class::Ledger, Class::Card, Class::Telemetry]
}

/// Each class arrived whole, its first arrivals in order.
fn assert_whole(name: &str, broker: &ScriptedBroker) {
    for class in classes() {
        let arrived = broker.first_arrivals(class.as_str());
        assert_eq!(arrived, (1..=EACH).collect::<Vec<_>>(), "{name}: {class}");
    }
}

/// One way to misbehave.
struct Case {
    name: String,
    version: MqttVersion,
    mood: Mood,
    /// The code in health, and what its text must say.
    code: &'static str,
    says: &'static str,
    /// Connections to wait for.
    connections: usize,
    /// It takes nothing at all: never may it look well.
    steady: bool,
}

fn case(name: &str, version: MqttVersion, mood: Mood, code: &'static str, says: &'static str) -> Case {
    let name = format!("{version:?}: {name}");
    Case { name, version, mood, code, says, connections: 3, steady: true }
}

async fn misbehaves(case: Case) {
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
    let start = Instant::now();
    let trouble = loop {
        if let Some(trouble) = shows().await {
            break trouble;
        }
        let troubles = shop.health.troubles();
        assert!(start.elapsed() < mqtt::LONG, "{name}: {code} {says:?} never shown, but {troubles:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
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
async fn all(cases: Vec<Case>) {
    let ended =
        join_all(cases.into_iter().map(|case| AssertUnwindSafe(misbehaves(case)).catch_unwind())).await;
    // Each has said what was wrong.
    let failed = ended.iter().filter(|ended| ended.is_err()).count();
    assert_eq!(failed, 0, "{failed} of {} failed", ended.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn brokers_that_do_not_let_us_in_or_stall() {
    let greet = Mood::greets;
    let mut cases = Vec::new();
    for version in [V5, V3] {
        cases.extend([
            case(
                "accepts and says nothing",
                version,
                greet(Greet::Silence),
                "no-answer",
                "no CONNACK in time",
            ),
            case(
                "welcomes, then nothing",
                version,
                greet(Greet::WelcomeAndSilence),
                "no-answer",
                "nothing heard for one and a half keep-alives",
            ),
            case(
                "takes every event and answers none",
                version,
                Mood::on_event(|_| Deed::Ignore),
                "no-answer",
                "a publish was never acknowledged",
            ),
            case("hangs up at once", version, greet(Greet::HangUp), "connection-lost", "connection lost: "),
            case("resets at once", version, greet(Greet::Reset), "connection-lost", "connection lost: "),
        ]);
    }
    for (code, name, says) in [
        (0x88, "not-serving", "ServerUnavailable"),
        (0x89, "not-serving", "ServerBusy"),
        (0x97, "not-serving", "QuotaExceeded"),
        (0x9F, "not-serving", "ConnectionRateExceeded"),
        (0x87, "not-authorised", "does not let this client in"),
    ] {
        cases.push(case(&format!("CONNACK 0x{code:02X}"), V5, greet(Greet::Refuse(code)), name, says));
    }
    cases.push(case("CONNACK 3", V3, greet(Greet::Refuse(3)), "not-serving", "ServiceUnavailable"));
    all(cases).await;
}

/// Bytes a broker may send after the first event, with the code and words they must lead to.
fn oddities(version: MqttVersion) -> Vec<(&'static str, Vec<u8>, &'static str, &'static str)> {
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

#[tokio::test(flavor = "multi_thread")]
async fn frames_that_look_right_and_are_not() {
    let mut cases = Vec::new();
    for version in [V5, V3] {
        for (name, bytes, code, says) in oddities(version) {
            cases.push(case(name, version, Mood::on_event(move |_| Deed::Answer(bytes.clone())), code, says));
        }
        // Once more what was acknowledged already.
        let again = if version == V5 { b"\x40\x04ID\x00\x00".to_vec() } else { b"\x40\x02ID".to_vec() };
        let twice = case(
            "every PUBACK twice",
            version,
            Mood::on_event(move |_| Deed::TakeThen(again.clone())),
            "not-mqtt",
            "unsolicited",
        );
        cases.push(Case { steady: false, ..twice });
        cases.push(case(
            "PUBREC at QoS 1, and PUBCOMP",
            version,
            Mood::on_event(|_| Deed::Answer(b"\x50\x02ID\x70\x02ID".to_vec())),
            "not-mqtt",
            "PUBREC",
        ));
    }
    all(cases).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn noise_after_the_welcome() {
    let mut dice = Dice::new(seed("noise after the welcome"));
    let mut running = Vec::new();
    for round in 0..rounds(24) {
        let length = [1, 3, 40, 2000][round % 4];
        let (noise, early) = (dice.bytes(length), dice.chance(500));
        let version = if round % 2 == 0 { V5 } else { V3 };
        running.push(async move {
            let mood = if early {
                Mood::greets(Greet::WelcomeAndThen(noise.clone()))
            } else {
                let noise = noise.clone();
                Mood::on_event(move |_| Deed::TakeThen(noise.clone()))
            };
            let broker = ScriptedBroker::start(mood).await;
            let mut shop = Shop::open();
            fill(&shop).await;
            shop.start(table(broker.port, version));
            // Some noise is a beginning: it is waited for. Some is even a packet that may be passed over.
            until(&format!("{version:?}: tried again after {noise:02X?}"), async || {
                let over = shop.delivered(Class::Telemetry).await >= EACH;
                (over || broker.connections() > 1).then_some(())
            })
            .await;
            shop.assert_running();
            broker.turns(Mood::good());
            for class in classes() {
                shop.await_delivered(class, EACH).await;
            }
            assert_whole(&format!("{version:?} after {noise:02X?}"), &broker);
            shop.stop().await;
        });
    }
    join_all(running).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_that_no_broker_may_set_are_named() {
    let welcome = |properties: &[u8]| Mood::greets(Greet::Welcome(properties.to_vec()));
    all(vec![
        case("receive maximum 0", V5, welcome(&[0x21, 0, 0]), "not-mqtt", "proper MQTT"),
        case("maximum packet 0", V5, welcome(&[0x27, 0, 0, 0, 0]), "not-mqtt", "proper MQTT"),
        case(
            "maximum packet 60",
            V5,
            welcome(&[0x27, 0, 0, 0, 60]),
            "packet-limit",
            "no packet over 60 bytes",
        ),
        case("another client id", V5, welcome(b"\x12\x00\x03new"), "not-mqtt", "proper MQTT"),
    ])
    .await;
}

/// SUBACK refused: events flow, and it is said.
#[tokio::test(flavor = "multi_thread")]
async fn without_subscriptions_events_flow_and_it_is_said() {
    for (version, code) in [(V5, 0x87), (V3, 0x80)] {
        let broker = ScriptedBroker::start(Mood { suback: code, ..Mood::good() }).await;
        let mut shop = Shop::open();
        fill(&shop).await;
        shop.start(table(broker.port, version));
        let trouble = shop.await_trouble("subscription-refused").await;
        assert!(trouble.text.en.contains("baygate/v1/SH-0042/gw-1/ack"), "{trouble:?}");
        shop.await_delivered(Class::Telemetry, EACH).await;
        broker.turns(Mood::good());
        shop.await_well().await;
        assert_whole("SUBACK refused", &broker);
        shop.stop().await;
    }
}

/// One at a time, when asked so; and signs of life as often as the broker wants them, or we.
#[tokio::test(flavor = "multi_thread")]
async fn wishes_of_the_broker_are_kept() {
    join_all(
        [
            ("receive maximum 1", vec![0x21, 0, 1]),
            ("server keep-alive 1", vec![0x13, 0, 1]),
            ("server keep-alive 0", vec![0x13, 0, 0]),
            ("server keep-alive 1000", vec![0x13, 0x03, 0xE8]),
        ]
        .map(|(name, properties)| wish(name, properties)),
    )
    .await;
}

async fn wish(name: &str, properties: Vec<u8>) {
    let broker = ScriptedBroker::start(Mood::greets(Greet::Welcome(properties))).await;
    let mut shop = Shop::open();
    fill(&shop).await;
    // A dead line is borne for six seconds.
    shop.start_with(table(broker.port, V5), |setup| setup.pace.keep_alive = Duration::from_secs(4));
    for class in classes() {
        shop.await_delivered(class, EACH).await;
    }
    assert_whole(name, &broker);
    assert_eq!(broker.pushed(), 0, "{name}: more in flight than allowed");
    shop.await_well().await;
    // Twice as long as that.
    let before = broker.signs_of_life();
    until(&format!("{name}: signs of life"), async || (broker.signs_of_life() >= before + 3).then_some(()))
        .await;
    assert_eq!(broker.connections(), 1, "{name}: a quiet line is no dead line");
    shop.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_publish_refused_with_a_reason() {
    let refuses = |code| Mood::on_event(move |_: &Heard<'_>| Deed::Refuse(code));
    let mut cases = Vec::new();
    for (code, name, says) in [
        (0x87, "topic-not-authorised", "event/ledger with reason code 0x87; ask headquarters to allow"),
        (0x10, "no-subscribers", "nobody at headquarters subscribes"),
        (0x97, "refused", "over the broker's quota"),
        (0x80, "refused", "event/ledger with reason code 0x80"),
        (0x83, "refused", "event/ledger with reason code 0x83"),
    ] {
        let mut case = case(&format!("PUBACK 0x{code:02X}"), V5, refuses(code), name, says);
        case.connections = 1;
        cases.push(case);
    }
    all(cases).await;
}

/// A broker that takes a class, but not the fifth event at first, when others behind it are under way already.
fn refuses_the_fifth_once(code: u8, acks: bool) -> Mood {
    let done = AtomicUsize::new(0);
    let event = move |heard: &Heard<'_>| {
        let fifth = heard.topic.contains("/event/card/") && heard.sequence == 5;
        if fifth && done.fetch_add(1, Ordering::Relaxed) == 0 {
            Deed::RefuseLate(code, 3)
        } else {
            Deed::Take
        }
    };
    Mood { event: Arc::new(event), acks, ..Mood::good() }
}

/// What cannot be called back is sent again: docs/decisions/004-brokers-that-misbehave.md.
#[tokio::test(flavor = "multi_thread")]
async fn after_a_refusal_everything_from_there_on_comes_again_in_order() {
    for confirm in [Confirm::Broker, Confirm::Headquarters] {
        let acks = confirm == Confirm::Headquarters;
        let broker = ScriptedBroker::start(refuses_the_fifth_once(0x97, acks)).await;
        let mut shop = Shop::open();
        for n in 1..=EACH {
            shop.commit(Tap::event(n, 50)).await;
        }
        let mut setup = table(broker.port, V5);
        setup.confirm = confirm;
        shop.start(setup);
        shop.await_delivered(Class::Card, EACH).await;
        let arrivals = broker.taken("card");
        let first_of = |n| arrivals.iter().position(|m| *m == n).unwrap();
        assert!(first_of(6) < first_of(5), "{confirm:?}: nothing was under way behind it: {arrivals:?}");
        // Whoever takes a class only in its order, and leaves the rest, misses nothing.
        assert_eq!(taken_in_order(&arrivals), EACH, "{confirm:?}: {arrivals:?}");
        shop.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_rejection_the_gap_is_told_and_nothing_else_is_missing() {
    for confirm in [Confirm::Broker, Confirm::Headquarters] {
        let acks = confirm == Confirm::Headquarters;
        let always_rejects = move |heard: &Heard<'_>| {
            let fifth = heard.topic.contains("/event/card/") && heard.sequence == 5;
            if fifth { Deed::RefuseLate(0x99, if heard.nth < 9 { 3 } else { 0 }) } else { Deed::Take }
        };
        let broker =
            ScriptedBroker::start(Mood { event: Arc::new(always_rejects), acks, ..Mood::good() }).await;
        let mut shop = Shop::open();
        for n in 1..=EACH {
            shop.commit(Tap::event(n, 50)).await;
        }
        let mut setup = table(broker.port, V5);
        setup.confirm = confirm;
        setup.confirm_timeout = Duration::from_secs(1);
        shop.start(setup);
        until("the gap is told", async || (!broker.gaps().is_empty()).then_some(())).await;
        let gap = broker.gaps().remove(0);
        assert_eq!((&gap["class"], &gap["from"], &gap["to"]), (&"card".into(), &5.into(), &5.into()));
        assert_eq!((&gap["reason"], &gap["count"]), (&"rejected".into(), &1.into()));
        until("the others", async || (broker.first_arrivals("card").len() as u64 == EACH - 1).then_some(()))
            .await;
        let mut arrived = broker.first_arrivals("card");
        arrived.sort_unstable();
        assert_eq!(arrived, (1..=EACH).filter(|n| *n != 5).collect::<Vec<_>>());
        let aside = shop.store.read(|reader| reader.quarantined(Offset(0), 10)).await.unwrap();
        assert_eq!(aside.len(), 1);
        assert!(aside[0].reason.contains("0x99"), "{}", aside[0].reason);
        shop.stop().await;
    }
}

/// A broker that rejects everything, by its packet limit or by word, must not empty the log.
#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_rejects_everything_does_not_empty_the_log() {
    let by_word = Mood::on_event(|_| Deed::Refuse(0x99));
    // Room for `state`, not for a telemetry event.
    let by_limit = Mood::greets(Greet::Welcome(vec![0x27, 0, 0, 0x04, 0xB0]));
    for (name, mood, says) in [
        ("0x99", by_word, "reason code 0x99"),
        ("maximum packet 1200", by_limit, "over the broker's packet limit"),
    ] {
        let broker = ScriptedBroker::start(mood).await;
        let mut shop = Shop::open();
        for n in 1..=200 {
            shop.commit(Signals::event(n, 1500)).await;
        }
        shop.start(table(broker.port, V5));
        until(&format!("{name}: {:?}", shop.health.troubles()), async || {
            shop.health.troubles().into_iter().find(|trouble| trouble.text.en.contains(says))
        })
        .await;
        // The third takes more than a second, the fourth more than two.
        until("three are aside", async || {
            let aside = shop.store.read(|reader| reader.quarantined(Offset(0), 1000)).await.unwrap();
            let of_class = aside.iter().filter(|event| event.class == Class::Telemetry);
            (of_class.count() >= 3).then_some(())
        })
        .await;
        broker.turns(Mood::good());
        shop.await_delivered(Class::Telemetry, 200).await;
        let aside = shop.store.read(|reader| reader.quarantined(Offset(0), 1000)).await.unwrap();
        let aside = aside.iter().filter(|event| event.class == Class::Telemetry).count() as u64;
        assert!((3..20).contains(&aside), "{name}: {aside} of 200 were set aside");
        assert_eq!(broker.first_arrivals("telemetry").len() as u64, 200 - aside, "{name}");
        shop.await_well().await;
        shop.stop().await;
    }
}

/// 3.1.1 has no word for it: the broker closes the connection at a packet over its limit.
#[tokio::test(flavor = "multi_thread")]
async fn an_event_at_which_the_broker_hangs_up_is_set_aside_when_others_of_its_topic_pass() {
    tokio::join!(hangs_up_over_3000_bytes(Confirm::Broker), hangs_up_over_3000_bytes(Confirm::Headquarters));
}

async fn hangs_up_over_3000_bytes(confirm: Confirm) {
    let hangs_up = |heard: &Heard<'_>| if heard.bytes > 3000 { Deed::HangUp } else { Deed::Take };
    let acks = confirm == Confirm::Headquarters;
    let broker = ScriptedBroker::start(Mood { event: Arc::new(hangs_up), acks, ..Mood::good() }).await;
    let mut shop = Shop::open();
    for n in 1..=EACH {
        shop.commit(Money::event(n, 50)).await;
        shop.commit(Tap::event(n, if n == 4 { 6000 } else { 50 })).await;
        shop.commit(Signals::event(n, 300)).await;
    }
    let mut setup = table(broker.port, V3);
    setup.confirm = confirm;
    setup.confirm_timeout = Duration::from_secs(2);
    shop.start(setup);
    let trouble = shop.await_trouble("hangs-up-at-event").await;
    assert!(trouble.text.en.contains("on event/card") && trouble.text.en.contains("max_packet_bytes"));
    // The other classes do not wait for it.
    shop.await_delivered(Class::Ledger, EACH).await;
    shop.await_delivered(Class::Telemetry, EACH).await;
    until("the gap is told", async || (!broker.gaps().is_empty()).then_some(())).await;
    let gap = broker.gaps().remove(0);
    assert_eq!((&gap["class"], &gap["from"], &gap["to"]), (&"card".into(), &4.into(), &4.into()));
    until("the others", async || (broker.first_arrivals("card").len() as u64 == EACH - 1).then_some(()))
        .await;
    let aside = shop.store.read(|reader| reader.quarantined(Offset(0), 10)).await.unwrap();
    assert_eq!(aside.len(), 1, "{aside:?}");
    assert!(aside[0].reason.contains("hung up"), "{}", aside[0].reason);
    // Behind the hole the order holds, the witness apart, which came early and comes again.
    let arrivals: Vec<u64> = broker.taken("card").into_iter().filter(|n| *n != 4).collect();
    let numbered: Vec<u64> = arrivals.iter().map(|n| if *n > 4 { n - 1 } else { *n }).collect();
    assert_eq!(taken_in_order(&numbered), EACH - 1, "{confirm:?}: {arrivals:?}");
    if confirm == Confirm::Broker {
        shop.await_delivered(Class::Card, EACH).await;
        shop.await_well().await;
    }
    shop.stop().await;
}

/// The same hang-ups for want of a right to publish: nothing may be set aside, nothing is lost.
#[tokio::test(flavor = "multi_thread")]
async fn a_topic_at_which_the_broker_hangs_up_waits_and_the_others_go_on() {
    let hung_up = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&hung_up);
    let broker = ScriptedBroker::start(Mood::on_event(move |heard| {
        if heard.topic.ends_with("/event/card/card.tapped") {
            count.fetch_add(1, Ordering::Relaxed);
            return Deed::HangUp;
        }
        Deed::Take
    }))
    .await;
    let mut shop = Shop::open();
    // The first is the largest, so that there are smaller ones to be heard in its place;
    // what the broker takes of another topic says nothing of this one.
    for n in 1..=EACH {
        shop.commit(Money::event(n, 50)).await;
        let card =
            if n % 2 == 1 { Tap::event(n, if n == 1 { 400 } else { 200 }) } else { Removed::event(n, 50) };
        shop.commit(card).await;
        shop.commit(Signals::event(n, 300)).await;
    }
    shop.start(table(broker.port, V3));
    let trouble = shop.await_trouble("hangs-up-at-event").await;
    assert!(trouble.text.en.contains("on event/card"), "{trouble:?}");
    shop.await_delivered(Class::Ledger, EACH).await;
    shop.await_delivered(Class::Telemetry, EACH).await;
    until("hung up often", async || (hung_up.load(Ordering::Relaxed) >= 7).then_some(())).await;
    assert_eq!(shop.delivered(Class::Card).await, 0);
    shop.commit(Money::event(EACH + 1, 50)).await;
    shop.await_delivered(Class::Ledger, EACH + 1).await;
    broker.turns(Mood::good());
    shop.await_delivered(Class::Card, EACH).await;
    let stats = shop.store.read(|reader| reader.stats()).await.unwrap();
    assert_eq!(stats.quarantined, 0, "set aside though no other of its topic passed");
    assert_eq!(broker.first_arrivals("card"), (1..=EACH).collect::<Vec<_>>());
    shop.await_well().await;
    shop.stop().await;
}

/// Nobody refuses for an hour in a test: the waits add up.
#[test]
fn an_hour_of_refusals_is_few_tries_and_never_in_step() {
    let mut dice = Dice::new(seed("an hour of refusals"));
    let mut starts = Vec::new();
    for _ in 0..50 {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60), dice.number());
        let (mut time, mut tries) = (Duration::ZERO, 0);
        while time < Duration::from_secs(3600) {
            let wait = backoff.wait();
            assert!(wait <= Duration::from_secs(60));
            time += wait;
            tries += 1;
        }
        // The sum of the doubling, then a wait of 30 to 60 s for the rest.
        assert!((60..=130).contains(&tries), "{tries} tries in an hour");
        starts.push(time);
    }
    starts.sort();
    starts.dedup();
    assert_eq!(starts.len(), 50, "two gateways in step");
}

/// The other process: an uplink with hardly any waits between its tries, that lives through everything.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "plays the other process"]
async fn plays_the_gateway() {
    let port = std::env::var("BROKER_PORT").unwrap().parse().unwrap();
    let mut shop = Shop::open();
    fill(&shop).await;
    shop.start_with(table(port, V5), |setup| {
        setup.pace.backoff_first = Duration::from_millis(2);
        setup.pace.backoff_most = Duration::from_millis(8);
    });
    for class in classes() {
        // The other process has the deadline.
        while shop.delivered(class).await < EACH {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    println!("all delivered");
    shop.stop().await;
}

fn resident_bytes(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

#[tokio::test(flavor = "multi_thread")]
async fn thousands_of_tries_cost_neither_memory_nor_log() {
    let mut moods = vec![
        Mood::greets(Greet::HangUp),
        Mood::greets(Greet::Reset),
        Mood::greets(Greet::Refuse(0x88)),
        Mood::greets(Greet::Refuse(0x87)),
    ];
    // After DISCONNECT, as after a hang-up, a class waits: no thousands of tries.
    let quick = |name: &str| !name.starts_with("DISCONNECT") && !name.starts_with("PUBREL");
    let others = oddities(V5).into_iter().filter(|(name, ..)| quick(name));
    moods.extend(others.map(|(_, bytes, ..)| {
        // Nothing counts as taken, so that there is something to send to the end.
        Mood::on_event(move |_| Deed::Answer(bytes.clone()))
    }));
    let broker = ScriptedBroker::start(moods[0].clone()).await;
    let mut child = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "plays_the_gateway", "--ignored", "--nocapture"])
        .env("BROKER_PORT", broker.port.to_string())
        .env("RUST_LOG", "info,rumqttc=off")
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let out = std::io::BufReader::new(child.stdout.take().unwrap());
    let log = std::thread::spawn(move || out.lines().map_while(Result::ok).collect::<Vec<_>>());
    let mut first = 0;
    let passes = rounds(4);
    let mut tries = 0;
    for pass in 0..=passes {
        for (number, mood) in moods.iter().enumerate() {
            broker.turns(mood.clone());
            let before = broker.connections();
            until(&format!("tries of {number}"), async || {
                (broker.connections() >= before + 30).then_some(())
            })
            .await;
        }
        if pass == 0 {
            // Every path was taken once: from here on nothing may pile up.
            (first, tries) = (resident_bytes(child.id()), broker.connections());
        }
    }
    let last = resident_bytes(child.id());
    tries = broker.connections() - tries;
    broker.turns(Mood::good());
    for class in classes() {
        until(&format!("{class} arrives"), async || {
            (broker.first_arrivals(class.as_str()).len() as u64 >= EACH).then_some(())
        })
        .await;
    }
    assert_whole("after thousands of tries", &broker);
    assert!(child.wait().unwrap().success());
    let log = log.join().unwrap();
    let lines: Vec<&String> =
        log.iter().filter(|line| line.contains("uplink") || line.contains("WARN")).collect();
    println!("{tries} tries: {first} bytes resident before, {last} after, {} lines in the log", lines.len());
    assert!(log.iter().any(|line| line.contains("all delivered")));
    assert!(last < first + 8 * 1024 * 1024, "{first} bytes before {tries} tries, {last} after");
    // A few of each kind, and one in ten minutes: a dozen kinds show here.
    assert!(!lines.is_empty() && lines.len() <= 100, "{} lines for {tries} tries: {:#?}", lines.len(), lines);
    assert!(tries >= 500 * passes, "{tries}");
}

/// The real program at its own pace.
#[tokio::test(flavor = "multi_thread")]
async fn the_real_program_says_why_waits_longer_each_time_and_loses_nothing() {
    let broker = ScriptedBroker::start(Mood::greets(Greet::Refuse(0x88))).await;
    let reader = free_port();
    let desk = Desk::new();
    desk.write(&format!(
        "[mqtt]\nurl = \"mqtt://127.0.0.1:{}\"\n\n[[reader]]\nid = \"counter-1\"\nkind = \"vpcd\"\nlisten = \"127.0.0.1:{reader}\"\n",
        broker.port
    ));
    let mut daemon = Daemon::start(&desk.config()).await;
    let client = Client::connect(desk.path("control.sock")).await.unwrap();
    let why = async |code: &str| {
        until(&format!("/readyz says {code}"), async || {
            let answer = client.request(Method::GET, "/readyz", None).await.ok()?;
            assert_eq!(answer.body["ready"], true, "headquarters being away is no reason to be unready");
            let troubles = answer.body["troubles"].as_array()?.clone();
            let uplink = troubles.into_iter().find(|trouble| trouble["part"] == "uplink")?;
            (uplink["code"] == code).then(|| uplink["text"]["en"].as_str().unwrap().to_owned())
        })
        .await
    };
    let log = rusqlite::Connection::open(desk.path("data/baygate.db")).unwrap();
    let committed = |class: Class| {
        let place = Class::ALL.iter().position(|of| *of == class).unwrap();
        let sql = format!("SELECT max(class_sequence) FROM event WHERE class = {place}");
        log.query_row(&sql, [], |row| row.get::<_, Option<i64>>(0)).unwrap().unwrap_or(0).unsigned_abs()
    };
    for number in 1..=3_u8 {
        let profile = CardProfile::new(Technology::Ntag213).with_uid(&[4, 1, 1, 1, 1, 1, number]);
        let card = until("the reader listens", async || {
            CardSim::tap(("127.0.0.1", reader), profile.clone()).await.ok()
        })
        .await;
        until("the tap is committed", async || {
            (committed(Class::Card) >= 2 * u64::from(number) - 1).then_some(())
        })
        .await;
        card.remove().await;
    }
    assert!(why("not-serving").await.contains("ServerUnavailable"));
    until("some tries", async || (broker.connections() >= 5).then_some(())).await;
    let dialled = broker.dialled();
    for (wait, pair) in [500_u64, 1000, 2000, 4000].into_iter().zip(dialled.windows(2)) {
        assert!(pair[1] - pair[0] >= Duration::from_millis(wait), "no wait of {wait} ms: {dialled:?}");
    }
    let downs = daemon.log().matches("uplink down").count();
    assert_eq!(downs, 1, "one line for {} tries:\n{}", broker.connections(), daemon.log());

    broker.turns(Mood::on_event(|_| Deed::Refuse(0x87)));
    assert!(why("topic-not-authorised").await.contains("allow publishing there"));
    broker.turns(Mood::on_event(|_| Deed::Refuse(0x10)));
    assert!(why("no-subscribers").await.contains("subscribes"));
    broker.turns(Mood::good());
    for class in Class::ALL {
        let last = until(&format!("{class} arrives"), async || {
            let last = committed(class);
            (broker.first_arrivals(class.as_str()).len() as u64 == last).then_some(last)
        })
        .await;
        assert_eq!(broker.first_arrivals(class.as_str()), (1..=last).collect::<Vec<_>>(), "{class}");
    }
    assert!(committed(Class::Card) >= 3);
    until("/readyz is well", async || {
        let answer = client.request(Method::GET, "/readyz", None).await.ok()?;
        let troubles = answer.body["troubles"].as_array()?.clone();
        troubles.iter().all(|trouble| trouble["part"] != "uplink").then_some(())
    })
    .await;
    daemon.signal(Signal::SIGTERM);
    assert!(daemon.ended().await.success(), "{}", daemon.log());
}
