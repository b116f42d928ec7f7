//! The real program on a bad line: each fault of `bad_line/fault.rs` by itself, then a seeded
//! mixture, while cards are tapped and headquarters asks; garbled bytes under TLS. At the end
//! everything is with headquarters, once and in order, and each counts once; with
//! `confirm = "broker"` each event got its PUBACK.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "support/authority.rs"]
mod authority;
mod bad_line;
#[path = "support/daemon.rs"]
mod daemon;
#[path = "support/dice.rs"]
mod dice;
#[path = "support/faketime.rs"]
mod faketime;
#[path = "support/fault_proxy.rs"]
mod fault_proxy;
mod mqtt;

use std::collections::BTreeMap;

use bad_line::fault::Fault;
use bad_line::hq::Hq;
use bad_line::unreadable::UnreadableLine;
use baygate::api::client::{Client, Method};
use baygate::config::tables::Confirm;
use baygate::event::Class;
use baygate::sim::card::{CardProfile, CardSim, Technology};
use daemon::{Daemon, Desk};
use dice::{Dice, rounds};
use fault_proxy::{FaultProxy, Faults};
use mqtt::{BASE, LONG, Mosquitto, free_port, publish, until_within};
use nix::sys::signal::Signal;
use serde_json::Value;

/// How much faster the program's clock runs than ours: the field's keep-alive of 30 s notices a
/// silent line after 45 s.
const TIMES: u32 = 3;

/// The program with a card reader, and what it was asked to do.
struct Gateway {
    desk: Desk,
    daemon: Daemon,
    log: rusqlite::Connection,
    broker: u16,
    reader: u16,
    taps: u64,
    dice: Dice,
}

impl Gateway {
    /// `mqtt`: the lines of its table.
    async fn start(broker: u16, mqtt: &str, dice: Dice) -> Self {
        let (desk, reader) = (Desk::new(), free_port());
        desk.write(&format!(
            "[mqtt]\n{mqtt}confirm_timeout = \"10s\"\n\n\
             [[reader]]\nid = \"counter-1\"\nkind = \"vpcd\"\nlisten = \"127.0.0.1:{reader}\"\n",
        ));
        let mut daemon = Daemon::spawn_with(&desk.config(), |command| {
            command.envs(faketime::hurried(TIMES));
        });
        daemon.says("baygate is running").await;
        let log = rusqlite::Connection::open(desk.path("data/baygate.db")).unwrap();
        Self { desk, daemon, log, broker, reader, taps: 0, dice }
    }

    /// A card comes and goes, and headquarters asks: past the proxy, so that what is asked while
    /// the line is down waits at the broker.
    async fn tap(&mut self) {
        self.taps += 1;
        let ping = format!(r#"{{"id":"{}"}}"#, self.dice.uuid());
        publish(self.broker, &format!("{BASE}/command/ping"), &ping, false).await;
        let uid = [&[4_u8, 0xB0][..], &self.taps.to_be_bytes()[3..]].concat();
        let profile = CardProfile::new(Technology::Ntag213).with_uid(&uid);
        until_within(2 * LONG, "the tap is committed", async || {
            let mut card = CardSim::tap(("127.0.0.1", self.reader), profile.clone()).await.ok()?;
            let committed = until_within(2 * LONG, "the tap is committed", async || {
                (self.cards("card.tapped") == self.taps).then_some(())
            });
            tokio::select! {
                () = committed => {}
                // The reader's patience of 3 s runs as fast as its clock: where the machine is
                // too slow for it the card is laid there again.
                () = card.gone() => return None,
            }
            card.remove().await;
            Some(())
        })
        .await;
    }

    fn logged(&self, condition: &str) -> u64 {
        self.count(&format!("SELECT count(*) FROM event WHERE {condition}"))
    }

    /// Different cards of which there is such an event.
    fn cards(&self, kind: &str) -> u64 {
        self.count(&format!("SELECT count(DISTINCT data ->> 'uid') FROM event WHERE kind = '{kind}'"))
    }

    fn count(&self, sql: &str) -> u64 {
        self.log.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap().unsigned_abs()
    }

    /// Every card came and went, and every question was answered.
    fn is_done(&self) -> bool {
        let done =
            [self.cards("card.tapped"), self.cards("card.removed"), self.logged("kind = 'command.result'")];
        done == [self.taps; 3]
    }

    /// Until the three events of each tap, and whatever else was committed, are with headquarters.
    async fn all_arrives(&self, what: &str, hq: &Hq) {
        until_within(2 * LONG, &format!("{what}: all is with headquarters"), async || {
            (self.is_done() && hq.total() == self.logged("true")).then_some(())
        })
        .await;
    }

    /// An answer of the control socket. A connection for each: the program's patience with one
    /// runs as fast as its clock.
    async fn says(&self, path: &str) -> Option<Value> {
        let client = Client::connect(self.desk.path("control.sock")).await.ok()?;
        Some(client.request(Method::GET, path, None).await.ok()?.body)
    }

    async fn await_no_answer(&self, fault: Fault) {
        until_within(2 * LONG, &format!("{fault:?}: no answer, says /readyz"), async || {
            let ready = self.says("/readyz").await?;
            let troubles = ready["troubles"].as_array()?;
            troubles.iter().any(|t| t["part"] == "uplink" && t["code"] == "no-answer").then_some(())
        })
        .await;
    }

    /// Nothing counts that is not with headquarters, nor twice: what is in the log, by class.
    async fn everything_counts_once(&self, name: &str, hq: &Hq) -> BTreeMap<Class, u64> {
        let (metrics, committed) =
            until_within(2 * LONG, &format!("{name}: everything counts once"), async || {
                let last = |place| self.logged(&format!("class = {place}"));
                let committed: BTreeMap<Class, u64> =
                    (0..).zip(Class::ALL).map(|(place, class)| (class, last(place))).collect();
                let total = committed.values().sum::<u64>();
                let metrics = self.says("/metrics").await?.as_str()?.to_owned();
                let counted = figures(&metrics, "baygate_uplink_acked_total");
                // Nothing came meanwhile that only one of both counts has.
                let is_still = self.logged("true") == total;
                let all = is_still && hq.total() == total && counted.values().sum::<u64>() >= total;
                (self.is_done() && all).then_some((metrics, committed))
            })
            .await;
        let counted = figures(&metrics, "baygate_uplink_acked_total");
        for (class, last) in &committed {
            hq.assert_whole(*class, *last);
            assert_eq!(counted.get(class.as_str()).copied().unwrap_or(0), *last, "{name}: {class} counted");
        }
        committed
    }

    async fn stop(mut self) {
        self.daemon.signal(Signal::SIGTERM);
        assert!(self.daemon.ended().await.success(), "{}", self.daemon.log());
    }
}

/// A metric's figures by class.
fn figures(metrics: &str, name: &str) -> BTreeMap<String, u64> {
    let lines = metrics
        .lines()
        .filter_map(|line| line.strip_prefix(name)?.strip_prefix("{class=\"")?.split_once("\"} "));
    lines.map(|(class, figure)| (class.to_owned(), figure.parse().unwrap())).collect()
}

fn word(confirm: Confirm) -> &'static str {
    if confirm == Confirm::Broker { "broker" } else { "headquarters" }
}

/// Side by side: mostly they wait.
async fn both(story: impl AsyncFn(&'static str, Confirm)) {
    tokio::join!(story("5", Confirm::Broker), story("3.1.1", Confirm::Headquarters));
}

async fn the_daemon_on_a_bad_line(version: &'static str, confirm: Confirm) {
    let word = word(confirm);
    let name = format!("daemon, MQTT {version}, confirm by {word}");
    let mut dice = Dice::throw(&name);
    let broker = Mosquitto::start("").await;
    let proxy = FaultProxy::start(broker.port, dice.fork());
    let hq = Hq::start(broker.port, confirm);
    let mqtt =
        format!("url = \"mqtt://127.0.0.1:{}\"\nversion = \"{version}\"\nconfirm = \"{word}\"\n", proxy.port);
    let mut gateway = Gateway::start(broker.port, &mqtt, dice.fork()).await;
    hq.collect(&name, 1).await;
    for fault in Fault::ALL {
        // On a line that is well.
        gateway.tap().await;
        gateway.all_arrives(&format!("{name}: before {fault:?}"), &hq).await;
        let connections = proxy.accepted();
        fault.begin(&proxy);
        gateway.tap().await;
        if fault.is_silence() {
            gateway.await_no_answer(fault).await;
        }
        if fault.is_slowness() {
            gateway.all_arrives(&format!("{name}: {fault:?}"), &hq).await;
        } else {
            until_within(2 * LONG, &format!("{name}: {fault:?}: dialled anew"), async || {
                (proxy.accepted() > connections).then_some(())
            })
            .await;
        }
        proxy.heal();
    }
    for _ in 0..rounds(6) {
        Fault::ALL[dice.below(Fault::ALL.len())].begin(&proxy);
        for _ in 0..dice.between(1, 4) {
            gateway.tap().await;
        }
        if dice.chance(700) {
            proxy.heal();
        }
    }
    proxy.heal();
    let committed = gateway.everything_counts_once(&name, &hq).await;
    assert!(proxy.book(|book| book.swallowed) > 0, "{name}: no PUBACK was swallowed");
    if confirm == Confirm::Broker {
        for (class, last) in &committed {
            let without = proxy.book(|book| {
                let has = |n| book.acknowledged.keys().any(|(_, of, m)| of == class.as_str() && *m == n);
                (1..=*last).filter(|n| !has(*n)).count()
            });
            assert_eq!(without, 0, "{name}: {class} without a PUBACK");
        }
    }
    gateway.stop().await;
    println!("{name}: {} events, {} connections", hq.total(), proxy.accepted());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_real_program_on_a_bad_line() {
    both(the_daemon_on_a_bad_line).await;
}

/// Garbled bytes: what arrives is whole or does not arrive.
async fn the_daemon_on_a_garbled_line(version: &'static str, confirm: Confirm) {
    let word = word(confirm);
    let name = format!("daemon, garbled, MQTT {version}, confirm by {word}");
    let mut dice = Dice::throw(&name);
    let line = UnreadableLine::start(&mut dice, confirm).await;
    let UnreadableLine { proxy, hq, .. } = &line;
    let mqtt = format!(
        "url = \"{}\"\nversion = \"{version}\"\nconfirm = \"{word}\"\nca_file = \"{}\"\n",
        line.url(),
        line.ca_file().display()
    );
    let mut gateway = Gateway::start(line.broker.port, &mqtt, dice.fork()).await;
    hq.collect(&name, 1).await;
    for (garble_up, garble_down) in [(300, 0), (0, 300), (150, 150)] {
        let before = proxy.accepted();
        proxy.set(Faults { garble_up, garble_down, ..Faults::default() });
        for _ in 0..3 {
            gateway.tap().await;
        }
        until_within(2 * LONG, &format!("{name}: the line breaks"), async || {
            (proxy.accepted() >= before + 2).then_some(())
        })
        .await;
        proxy.heal();
    }
    gateway.everything_counts_once(&name, hq).await;
    let garbled = proxy.book(|book| book.garbled);
    assert!(garbled >= 3, "{name}: {garbled} pieces garbled");
    gateway.stop().await;
    println!("{name}: {} events, {} connections, {garbled} garbled", hq.total(), proxy.accepted());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_real_program_under_tls_with_garbled_bytes() {
    both(the_daemon_on_a_garbled_line).await;
}
