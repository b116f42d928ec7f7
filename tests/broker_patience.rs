//! Brokers that misbehave for hours: the tries are few and never in step, thousands
//! of them cost neither memory nor log, and the real program says why it waits,
//! waits longer each time, and loses nothing.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod bad_broker;
#[path = "support/daemon.rs"]
mod daemon;
#[path = "support/dice.rs"]
mod dice;
mod mqtt;
#[path = "support/scripted_broker.rs"]
mod scripted_broker;

use std::io::BufRead as _;
use std::time::Duration;

use bad_broker::{EACH, V5, assert_whole, classes, fill, oddities};
use baygate::api::client::{Client, Method};
use baygate::event::Class;
use baygate::sim::card::{CardProfile, CardSim, Technology};
use baygate::uplink::backoff::Backoff;
use daemon::{Daemon, Desk};
use dice::{Dice, rounds};
use mqtt::{LONG, Shop, free_port, table, until, until_within};
use nix::sys::signal::Signal;
use scripted_broker::{Deed, Greet, Mood, ScriptedBroker};

/// Nobody refuses for an hour in a test: the waits add up.
#[test]
fn an_hour_of_refusals_is_few_tries_and_never_in_step() {
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
        // The other process ends it much earlier.
        until_within(LONG * 20, "delivered", async || (shop.delivered(class).await >= EACH).then_some(()))
            .await;
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
