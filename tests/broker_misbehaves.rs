//! Brokers that stall, babble, lie and refuse, written by hand on real sockets. For
//! each: the reason stands in health by its own name, nothing hangs, and when the
//! broker turns good everything arrives, once after de-duplication and in order
//! within each class.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod bad_broker;
#[path = "support/dice.rs"]
mod dice;
mod mqtt;
#[path = "support/scripted_broker.rs"]
mod scripted_broker;

use std::time::Duration;

use bad_broker::{Case, EACH, V3, V5, all, assert_whole, case, classes, fill, oddities};
use baygate::event::Class;
use dice::{Dice, rounds};
use futures_util::future::join_all;
use mqtt::{Shop, table, until};
use scripted_broker::{Deed, Greet, Heard, Mood, ScriptedBroker};

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
    let mut dice = Dice::throw("noise after the welcome");
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
