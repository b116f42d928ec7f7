//! The real program and brokers that misbehave: for an hour of its own clock, at its
//! own pace, and through every way there is. The tries are few and never in step,
//! memory and log do not grow, `/readyz` says by name what is wrong, and nothing is lost.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod bad_broker;
#[path = "support/daemon.rs"]
mod daemon;
#[path = "support/dice.rs"]
mod dice;
#[path = "support/faketime.rs"]
mod faketime;
mod mqtt;
#[path = "support/scripted_broker.rs"]
mod scripted_broker;

use std::ops::RangeInclusive;
use std::time::Duration;

use bad_broker::{V3, V5, assert_whole_to, classes, fill_with, oddities};
use baygate::api::client::{Client, Method};
use baygate::config::tables::{Confirm, MqttVersion};
use baygate::event::Class;
use baygate::sim::card::{CardProfile, CardSim, Technology};
use baygate::uplink::backoff::Backoff;
use daemon::{Daemon, Desk, LONG};
use dice::Dice;
use futures_util::future::{join_all, join4};
use mqtt::{free_port, open_store, until, until_within};
use nix::sys::signal::Signal;
use scripted_broker::{Deed, Greet, Mood, ScriptedBroker};
use serde_json::Value;

/// Events of each of three classes that wait.
const BACKLOG: u64 = 700;

/// Fifty of them: the waits add up.
#[test]
fn fifty_gateways_refused_for_an_hour_are_never_in_step() {
    let mut dice = Dice::throw("an hour of refusals");
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

/// The real program with a backlog, under a clock that runs `times` as fast as ours.
struct Gateway {
    desk: Desk,
    daemon: Daemon,
    confirm: Confirm,
}

impl Gateway {
    async fn start(broker: &ScriptedBroker, version: MqttVersion, confirm: Confirm, times: u32) -> Self {
        let desk = Desk::new();
        let version = if version == V5 { "5" } else { "3.1.1" };
        let word = if confirm == Confirm::Broker { "broker" } else { "headquarters" };
        desk.write(&format!(
            "[mqtt]\nurl = \"mqtt://127.0.0.1:{}\"\nversion = \"{version}\"\nconfirm = \"{word}\"\n",
            broker.port
        ));
        std::fs::create_dir(desk.path("data")).unwrap();
        let store = open_store(&desk.path("data"));
        fill_with(&store, BACKLOG).await;
        store.close().await;
        let mut daemon = Daemon::spawn_with(&desk.config(), |command| {
            command.envs(faketime::hurried(times)).env("BAYGATE_LOG", "info,rumqttc=off");
        });
        daemon.says("baygate is running").await;
        Self { desk, daemon, confirm }
    }

    /// An answer of the control socket. A connection for each: the program's patience with one
    /// runs as fast as its clock.
    async fn says(&self, path: &str) -> Option<Value> {
        let client = Client::connect(self.desk.path("control.sock")).await.ok()?;
        Some(client.request(Method::GET, path, None).await.ok()?.body)
    }

    /// What `/readyz` says of the uplink.
    async fn trouble(&self) -> Option<Value> {
        let body = self.says("/readyz").await?;
        let troubles = body["troubles"].as_array()?;
        let uplink = troubles.iter().find(|trouble| trouble["part"] == "uplink").cloned().unwrap_or_default();
        // Whether all is ready says nothing here: a loaded machine is slow for so fast a clock.
        assert_ne!(uplink["blocks_ready"], true, "headquarters being away is no reason to be unready");
        Some(uplink)
    }

    /// Once the broker is good again, and headquarters gives its word where that counts: each class
    /// whole and in its order, each event counted once, and no trouble.
    async fn recovers(mut self, name: &str, broker: &ScriptedBroker) {
        broker.turns(Mood { acks: self.confirm == Confirm::Headquarters, ..Mood::good() });
        for class in classes() {
            until_within(2 * LONG, &format!("{name}: {class} arrives"), async || {
                (broker.first_arrivals(class.as_str()).len() as u64 >= BACKLOG).then_some(())
            })
            .await;
        }
        assert_whole_to(BACKLOG, name, broker);
        for class in classes() {
            let counted = format!("baygate_uplink_acked_total{{class=\"{class}\"}} {BACKLOG}");
            until(&format!("{name}: {counted}"), async || {
                let metrics = self.says("/metrics").await?;
                metrics.as_str()?.lines().any(|line| line == counted).then_some(())
            })
            .await;
        }
        until(&format!("{name}: well again"), async || (self.trouble().await? == Value::Null).then_some(()))
            .await;
        self.daemon.signal(Signal::SIGKILL);
        self.daemon.ended().await;
    }

    /// Bytes of its own in memory.
    fn held(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.daemon.pid())).unwrap();
        let line = status.lines().find(|line| line.starts_with("RssAnon:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
    }
}

/// A third of an hour, and how often it goes into our time.
const THIRD_S: u64 = 1200;
const TIMES: u32 = 100;

/// A mood for an hour: what `/readyz` says all along, and how many connections and publishes it takes.
async fn an_hour(
    confirm: Confirm,
    name: &str,
    mood: Mood,
    code: &str,
    connections: RangeInclusive<usize>,
    publishes: RangeInclusive<usize>,
) {
    let name = &format!("{name}, confirm by {confirm:?}");
    let broker = ScriptedBroker::start(mood).await;
    let shop = Gateway::start(&broker, V5, confirm, TIMES).await;
    until(&format!("{name}: {code}"), async || (shop.trouble().await?["code"] == code).then_some(())).await;
    let (dialled, heard) = (broker.connections(), broker.heard());
    let mut held = Vec::new();
    for _ in 0..3 {
        // What is proven is that nothing happens in this time.
        tokio::time::sleep(Duration::from_secs(THIRD_S) / TIMES).await;
        held.push(shop.held());
        let trouble = until("an answer", async || shop.trouble().await).await;
        assert_eq!(trouble["code"], code, "{name}: {trouble}");
    }
    let tries = (broker.connections() - dialled, broker.heard() - heard);
    let log = shop.daemon.log();
    println!("{name}: {tries:?} tries in an hour, held {held:?}, log:\n{log}");
    assert!(connections.contains(&tries.0) && publishes.contains(&tries.1), "{name}: {tries:?}");
    // The first third may still fill what the daemon keeps by design, as the cache of SQLite.
    let grown = held[2].saturating_sub(held[0]);
    assert!(grown <= 512 * 1024, "{name}: {grown} bytes more in memory: {held:?}");
    // One line when it began, one in ten minutes, and what a start says.
    let lines = log.lines().filter(|line| line.contains("uplink")).count();
    assert!((1..=9).contains(&lines) && log.lines().count() <= 20, "{name}: {lines} lines:\n{log}");
    shop.recovers(name, &broker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_hour_of_it_is_few_tries_and_few_lines() {
    let refuses = |code| Mood::on_event(move |_| Deed::Refuse(code));
    // The sum of the doubling, then a wait of 30 to 60 s for the rest; a slow machine has fewer.
    let (few, none) = (30..=130, 0..=0);
    // Each class waits for itself.
    let each = 60..=5 * 130;
    let hours = |confirm| {
        let away = Mood::greets(Greet::Refuse(0x88));
        // 15 s until it is given up, and the same waits.
        let silent = Mood::greets(Greet::Silence);
        join4(
            an_hour(confirm, "CONNACK 0x88", away, "not-serving", few.clone(), none.clone()),
            an_hour(confirm, "silence", silent, "no-answer", 20..=100, none.clone()),
            an_hour(confirm, "PUBACK 0x87", refuses(0x87), "topic-not-authorised", 0..=30, each.clone()),
            an_hour(confirm, "PUBACK 0x10", refuses(0x10), "no-subscribers", 0..=30, each.clone()),
        )
    };
    tokio::join!(hours(Confirm::Broker), hours(Confirm::Headquarters));
}

/// One mood after the other, each until `/readyz` says what is wrong.
async fn through_every_mood(version: MqttVersion) {
    let mut moods: Vec<(String, Mood, &str, &str)> = Vec::new();
    let mut add =
        |name: &str, mood, code, says| moods.push((format!("{version:?}: {name}"), mood, code, says));
    if version == V5 {
        for (reason, code, says) in [
            (0x87, "topic-not-authorised", "allow publishing there"),
            (0x10, "no-subscribers", "nobody at headquarters subscribes"),
            (0x97, "refused", "over the broker's quota"),
        ] {
            add("PUBACK", Mood::on_event(move |_| Deed::Refuse(reason)), code, says);
        }
        add(
            "CONNACK 0x87",
            Mood::greets(Greet::Refuse(0x87)),
            "not-authorised",
            "does not let this client in",
        );
    }
    let busy = if version == V5 { 0x88 } else { 3 };
    add("CONNACK", Mood::greets(Greet::Refuse(busy)), "not-serving", "not serving us now");
    add("accepts and says nothing", Mood::greets(Greet::Silence), "no-answer", "no CONNACK in time");
    add("welcomes, then nothing", Mood::greets(Greet::WelcomeAndSilence), "no-answer", "no SUBACK in time");
    add("answers no event", Mood::on_event(|_| Deed::Ignore), "no-answer", "never acknowledged");
    add("hangs up", Mood::greets(Greet::HangUp), "connection-lost", "connection lost");
    for (name, bytes, code, says) in oddities(version) {
        add(name, Mood::on_event(move |_| Deed::Answer(bytes.clone())), code, says);
    }
    let broker = ScriptedBroker::start(Mood::greets(Greet::Reset)).await;
    let shop = Gateway::start(&broker, version, Confirm::Broker, 50).await;
    let mut before = ("", "");
    for (name, mood, code, says) in moods {
        let dialled = broker.connections();
        broker.turns(mood);
        let mut last = Value::Null;
        let shown = tokio::time::timeout(LONG, async {
            loop {
                // Not what was left there by the mood before.
                let news = before != (code, says) || broker.connections() >= dialled + 2;
                last = shop.trouble().await.unwrap_or_default();
                let text = &last["text"];
                if news && last["code"] == code && text["en"].as_str().is_some_and(|text| text.contains(says))
                {
                    assert!(text["zh"].as_str().unwrap().chars().any(|c| c > '\u{4e00}'), "{last}");
                    return;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        assert!(shown.await.is_ok(), "{name}: {code} {says:?} never shown, but {last}");
        before = (code, says);
    }
    shop.recovers(&format!("{version:?}"), &broker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn readyz_names_every_mood() {
    join_all([V5, V3].map(through_every_mood)).await;
}

/// The real program at its own pace.
#[tokio::test(flavor = "multi_thread")]
async fn the_real_program_at_its_own_pace_waits_longer_each_time() {
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
