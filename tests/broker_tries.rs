//! Hundreds of tries with each way a broker can misbehave, a backlog of thousands
//! behind them: what the uplink keeps in memory and writes into the log does not
//! grow with the tries, and nothing is lost.
//!
//! The uplink is a process of its own, so that its memory is only its own. One
//! that must wait for a limit (a stall, the wait after a refusal) lives under a
//! clock that runs many times as fast.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod bad_broker;
#[path = "support/faketime.rs"]
mod faketime;
mod mqtt;
#[path = "support/scripted_broker.rs"]
mod scripted_broker;

use std::collections::BTreeMap;
use std::io::BufRead as _;
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bad_broker::{V3, V5, assert_whole_to, classes, fill_with, oddities};
use baygate::config::tables::MqttVersion;
use baygate::uplink::Pace;
use futures_util::future::join_all;
use mqtt::{LONG, Shop, table, until_ok, until_within};
use scripted_broker::{Deed, Greet, Mood, ScriptedBroker};

/// Events of each of three classes that wait.
const BACKLOG: u64 = 1000;
/// Bytes a try may leave behind. The allocator takes pages of 4 KiB now and then; what
/// piles up takes them between every two looks.
const ABOUT_NIL: u64 = 256;
/// Looks after the first, at most: what piles up is seen at each of them, an allocator that settles is not.
const LOOKS: usize = 30;
/// The tries between two looks take far less.
const TRIES_WITHIN: Duration = LONG.saturating_mul(4);

/// The other process: an uplink that lives through everything until all is delivered.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "plays the other process"]
async fn plays_the_gateway() {
    let told = |name: &str| std::env::var(name).unwrap();
    let version = if told("BROKER_VERSION") == "5" { V5 } else { V3 };
    let mut shop = Shop::open();
    fill_with(&shop.store, BACKLOG).await;
    shop.start_with(table(told("BROKER_PORT").parse().unwrap(), version), |setup| {
        if told("UPLINK_PACE") == "field" {
            setup.pace = Pace::default();
        } else {
            setup.pace.backoff_first = Duration::from_millis(2);
            setup.pace.backoff_most = Duration::from_millis(8);
        }
    });
    let patience = Duration::from_secs(told("UPLINK_PATIENCE_S").parse().unwrap());
    let all = async {
        for class in classes() {
            until_ok(patience, Duration::from_millis(200), async || {
                shop.assert_running();
                let delivered = shop.delivered(class).await;
                if delivered < BACKLOG { Err(format!("{class} is delivered to {delivered}")) } else { Ok(()) }
            })
            .await;
        }
    };
    tokio::time::timeout(patience, all).await.expect("all is delivered in the end");
    println!("all delivered");
    shop.stop().await;
}

/// What counts as a try.
#[derive(Clone, Copy)]
enum Counts {
    Connections,
    Publishes,
}

/// One way to misbehave.
struct Way {
    name: String,
    mood: Mood,
    counts: Counts,
}

fn way(name: &str, mood: Mood) -> Way {
    Way { name: name.into(), mood, counts: Counts::Connections }
}

/// An uplink and the broker it is given.
struct Gateway {
    name: &'static str,
    version: MqttVersion,
    pace: &'static str,
    /// How many times as fast its clock runs.
    times: u32,
    ways: Vec<Way>,
    /// Tries between two looks at the memory.
    tries: usize,
}

impl Gateway {
    /// As long as all its tries and what follows may take, by its own clock: should nobody be there
    /// any more to end it, it ends.
    fn patience(&self) -> Duration {
        let looks = u32::try_from(self.ways.len() * (LOOKS + 1)).unwrap();
        (TRIES_WITHIN * looks + 8 * LONG) * self.times
    }
}

struct Process {
    child: Child,
    log: Option<JoinHandle<Vec<String>>>,
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Process {
    fn start(gateway: &Gateway, port: u16) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["--exact", "plays_the_gateway", "--ignored", "--nocapture"])
            .env("BROKER_PORT", port.to_string())
            .env("BROKER_VERSION", if gateway.version == V5 { "5" } else { "3.1.1" })
            .env("UPLINK_PACE", gateway.pace)
            .env("UPLINK_PATIENCE_S", gateway.patience().as_secs().to_string())
            // As the program has it: what the MQTT library complains about is told by the uplink.
            .env("RUST_LOG", "info,rumqttc=off")
            .env("NO_COLOR", "1")
            // One heap, so that its size says something.
            .env("MALLOC_ARENA_MAX", "1")
            .stdout(Stdio::piped());
        if gateway.times > 1 {
            command.envs(faketime::hurried(gateway.times));
        }
        let mut child = command.spawn().unwrap();
        let out = std::io::BufReader::new(child.stdout.take().unwrap());
        let log = std::thread::spawn(move || out.lines().map_while(Result::ok).collect());
        Self { child, log: Some(log) }
    }

    /// Bytes of its own in memory.
    fn held(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("RssAnon:")).expect("it still runs");
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
    }
}

/// Lines of each kind in the log: what is said, without when, how often and in which words.
fn kinds(log: &[String]) -> BTreeMap<String, u64> {
    let mut kinds = BTreeMap::new();
    for line in log.iter().filter(|line| line.contains(" INFO ") || line.contains(" WARN ")) {
        let said = line.split_once(' ').map_or("", |(_, said)| said);
        let end = [" fault=", " left_out=", " retry_ms=", " version="].iter().filter_map(|at| said.find(at));
        *kinds.entry(said[..end.min().unwrap_or(said.len())].to_owned()).or_default() += 1;
    }
    kinds
}

async fn misbehaves(gateway: Gateway) {
    let start = Instant::now();
    let broker = ScriptedBroker::start(gateway.ways[0].mood.clone()).await;
    let mut process = Process::start(&gateway, broker.port);
    let mut tries = 0;
    for Way { name, mood, counts } in &gateway.ways {
        let name = format!("{}: {name}", gateway.name);
        let count = || match counts {
            Counts::Connections => broker.connections(),
            Counts::Publishes => broker.heard(),
        };
        broker.turns(mood.clone());
        let (mut held, mut growth) = (None, Vec::new());
        // Until the first look every path is taken once.
        for _ in 0..=LOOKS {
            let before = count();
            until_within(TRIES_WITHIN, &format!("{name}: tries"), async || {
                (count() >= before + gateway.tries).then_some(())
            })
            .await;
            tries += gateway.tries;
            let now = process.held();
            growth.extend(held.replace(now).map(|then| now.saturating_sub(then) / gateway.tries as u64));
            if growth.last().is_some_and(|bytes| *bytes <= ABOUT_NIL) {
                break;
            }
        }
        println!("{name}: bytes more a try: {growth:?}");
        assert!(
            growth.last().is_some_and(|bytes| *bytes <= ABOUT_NIL),
            "{name}: each {} tries leave more behind, by bytes a try: {growth:?}",
            gateway.tries
        );
    }
    broker.turns(Mood::good());
    for class in classes() {
        until_within(2 * LONG, &format!("{}: {class} arrives", gateway.name), async || {
            (broker.first_arrivals(class.as_str()).len() as u64 >= BACKLOG).then_some(())
        })
        .await;
    }
    assert_whole_to(BACKLOG, gateway.name, &broker);
    until_within(LONG, "it ends", async || process.child.try_wait().unwrap())
        .await
        .success()
        .then_some(())
        .expect(gateway.name);
    let log = process.log.take().unwrap().join().unwrap();
    assert!(log.iter().any(|line| line.contains("all delivered")));
    let kinds = kinds(&log);
    println!("{}: {tries} tries in {:?}: {kinds:#?}", gateway.name, start.elapsed());
    // Five of a kind at once, then one in ten minutes of its clock.
    let most = 6 + start.elapsed().as_secs() * u64::from(gateway.times) / 600;
    assert!(!kinds.is_empty() && kinds.values().all(|lines| *lines <= most), "{}: {kinds:#?}", gateway.name);
    assert!(kinds.len() <= 12, "{}: {kinds:#?}", gateway.name);
}

/// Those that hang up, refuse at the door or speak nonsense: as many tries as there is time for.
fn at_once(version: MqttVersion) -> Vec<Way> {
    let greets = |name: &str, greet| way(name, Mood::greets(greet));
    let mut ways = vec![
        greets("hangs up", Greet::HangUp),
        greets("resets", Greet::Reset),
        greets("says something else", Greet::Says(b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec())),
    ];
    if version == V5 {
        ways.push(greets("CONNACK 0x88", Greet::Refuse(0x88)));
        ways.push(greets("CONNACK 0x87", Greet::Refuse(0x87)));
    } else {
        ways.push(greets("CONNACK 3", Greet::Refuse(3)));
    }
    // After DISCONNECT, as after a hang-up, a class waits; PUBREL is a stall.
    let quick = |name: &str| !name.starts_with("DISCONNECT") && !name.starts_with("PUBREL");
    let odd = oddities(version).into_iter().filter(|(name, ..)| quick(name));
    // Nothing counts as taken, so that there is something to send to the end.
    ways.extend(odd.map(|(name, bytes, ..)| way(name, Mood::on_event(move |_| Deed::Answer(bytes.clone())))));
    ways
}

#[tokio::test(flavor = "multi_thread")]
async fn nonsense_piles_up_nowhere() {
    let of = |name, version| Gateway {
        name,
        version,
        pace: "hasty",
        times: 1,
        ways: at_once(version),
        tries: 100,
    };
    join_all([of("v5", V5), of("v3.1.1", V3)].map(misbehaves)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stalls_and_refusals_pile_up_nowhere() {
    let stalls = |name, version, mood| {
        let ways = vec![way("stalls", mood)];
        Gateway { name, version, pace: "hasty", times: 20, ways, tries: 50 }
    };
    let refuses = |name, code| {
        let mood = Mood::on_event(move |_| Deed::Refuse(code));
        let ways = vec![Way { name: "refuses".into(), mood, counts: Counts::Publishes }];
        Gateway { name, version: V5, pace: "field", times: 100, ways, tries: 50 }
    };
    // Answered with PUBCOMP; the event still waits for its PUBACK.
    let strange = || Mood::on_event(|_| Deed::Answer(scripted_broker::frame(0x62, &[0x10, 0x92])));
    let gateways = [
        stalls("accepts and says nothing", V5, Mood::greets(Greet::Silence)),
        stalls("v3.1.1: accepts and says nothing", V3, Mood::greets(Greet::Silence)),
        stalls("welcomes, then nothing", V5, Mood::greets(Greet::WelcomeAndSilence)),
        stalls("takes every event and answers none", V5, Mood::on_event(|_| Deed::Ignore)),
        stalls("v3.1.1: takes every event and answers none", V3, Mood::on_event(|_| Deed::Ignore)),
        stalls("releases what was never sent", V5, strange()),
        refuses("PUBACK 0x87", 0x87),
        refuses("PUBACK 0x10", 0x10),
    ];
    join_all(gateways.map(misbehaves)).await;
}
