//! The fault test that chose the client library, kept for it: a Mosquitto
//! without persistence is killed under load, and the daemon's side too. Nothing
//! committed may be missing, nothing twice after de-duplication, the order
//! within a class kept.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "support/dice.rs"]
mod dice;
#[path = "support/fault_proxy.rs"]
mod fault_proxy;
mod mqtt;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use baygate::config::tables::{Confirm, MqttVersion};
use baygate::event::Class;
use baygate::sim::headquarters::{self, Received, Verdict};
use baygate::store::Batch;
use dice::Dice;
use fault_proxy::FaultProxy;
use metrics_exporter_prometheus::PrometheusBuilder;
use mqtt::{Money, Mosquitto, ROOT, Shop, Signals, Tap, open_store, table, until};
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, DropGuard};

/// What headquarters took, by class, in the order of arrival.
#[derive(Default)]
struct Taken {
    fresh: BTreeMap<String, Vec<u64>>,
    total: usize,
    duplicates: usize,
    early: usize,
}

/// Headquarters at work. What it took is on its disk before it says `ack`.
struct Hq {
    taken: Arc<Mutex<Taken>>,
    acknowledge: bool,
    journal: PathBuf,
    _stop: DropGuard,
    _folder: tempfile::TempDir,
}

impl Hq {
    fn start(port: u16, acknowledge: bool) -> Self {
        let (out, mut inbox) = mpsc::channel::<Received>(1024);
        let (stop, folder) = (CancellationToken::new(), tempfile::tempdir().unwrap());
        let (journal, stopped) = (folder.path().join("journal"), stop.clone());
        let broker = ([127, 0, 0, 1], port).into();
        let options = headquarters::Options { broker, root: ROOT.into(), acknowledge };
        let disk = journal.clone();
        tokio::spawn(async move { headquarters::serve_journaled(options, &disk, out, stopped).await });
        let taken = Arc::new(Mutex::new(Taken::default()));
        let book = Arc::clone(&taken);
        tokio::spawn(async move {
            while let Some(received) = inbox.recv().await {
                let mut taken = book.lock().unwrap();
                match received.verdict {
                    Verdict::AheadOfOrder if acknowledge => taken.early += 1,
                    Verdict::Fresh | Verdict::AheadOfOrder => {
                        let class = received.event["class"].as_str().unwrap().to_owned();
                        taken.total += 1;
                        let n = received.event["data"]["n"].as_u64().unwrap();
                        taken.fresh.entry(class).or_default().push(n);
                    }
                    Verdict::Duplicate => taken.duplicates += 1,
                    Verdict::Fork => panic!("one key, two ids"),
                }
            }
        });
        Self { taken, acknowledge, journal, _stop: stop.drop_guard(), _folder: folder }
    }

    /// Class sequences by class, in the order in which they stand on headquarters' disk.
    fn on_disk(&self) -> BTreeMap<String, Vec<u64>> {
        let text = std::fs::read_to_string(&self.journal).unwrap();
        let mut on_disk: BTreeMap<String, Vec<u64>> = BTreeMap::new();
        for line in text.split_inclusive('\n').filter(|line| line.ends_with('\n')) {
            let words: Vec<&str> = line.split(' ').collect();
            on_disk.entry(words[2].into()).or_default().push(words[3].parse().unwrap());
        }
        on_disk
    }

    /// What counts as delivered now is on headquarters' disk, once and in order.
    async fn assert_delivered_is_on_disk(&self, shop: &Shop) {
        for class in [Class::Telemetry, Class::Card, Class::Ledger] {
            let delivered = shop.delivered(class).await;
            let on_disk = self.on_disk().remove(class.as_str()).unwrap_or_default();
            let wrong = (1..).zip(&on_disk).find(|(expected, found)| expected != *found);
            assert!(wrong.is_none(), "{class}: (expected, on disk) {wrong:?}");
            assert!(
                on_disk.len() as u64 >= delivered,
                "{class}: {delivered} delivered, {} kept",
                on_disk.len()
            );
        }
    }

    fn total(&self) -> usize {
        self.taken.lock().unwrap().total
    }

    fn leavings(&self) -> String {
        let taken = self.taken.lock().unwrap();
        format!("{} duplicates removed, {} early ones left", taken.duplicates, taken.early)
    }

    /// Until `total` different events are in.
    async fn collect(&self, total: usize) {
        until(&format!("{total} events"), async || (self.total() >= total).then_some(())).await;
    }
}

async fn fill(shop: &Shop, from: u64, count: u64) {
    for n in from..from + count {
        let mut batch = Batch::new().event(Signals::event(n, 400));
        if n % 10 == 0 {
            batch = batch.event(Tap::event(n, 100)).event(Money::event(n, 100));
        }
        shop.store.commit(batch).await.unwrap();
    }
}

/// Every class must hold the numbers that were committed, in the order of the commits.
fn assert_complete(hq: &Hq, count: u64) {
    assert!(hq.acknowledge);
    let taken = hq.taken.lock().unwrap();
    for (class, step) in [("telemetry", 1), ("card", 10), ("ledger", 10)] {
        let expected: Vec<u64> = (1..=count).filter(|n| n % step == 0).collect();
        // Not assert_eq: two thousand numbers help nobody.
        assert!(
            taken.fresh[class] == expected,
            "{class}: {} of {}",
            taken.fresh[class].len(),
            expected.len()
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_killed_under_load_loses_nothing_that_headquarters_must_confirm() {
    for version in [MqttVersion::V5, MqttVersion::V311] {
        let mut broker = Mosquitto::start("").await;
        let hq = Hq::start(broker.port, true);
        let mut shop = Shop::open();
        let mut table = table(broker.port, version);
        table.confirm = Confirm::Headquarters;
        table.confirm_timeout = Duration::from_secs(1);
        shop.start(table);
        const COUNT: u64 = 2_000;
        let store = shop.store.clone();
        let feeding = tokio::spawn(async move {
            for n in 1..=COUNT {
                let mut batch = Batch::new().event(Signals::event(n, 400));
                if n % 10 == 0 {
                    batch = batch.event(Tap::event(n, 100)).event(Money::event(n, 100));
                }
                store.commit(batch).await.unwrap();
            }
        });
        for part in 1..=4 {
            hq.collect(COUNT as usize * part / 5).await;
            broker.kill();
            hq.assert_delivered_is_on_disk(&shop).await;
            broker.up().await;
        }
        hq.collect(COUNT as usize * 12 / 10).await;
        feeding.await.unwrap();
        assert_complete(&hq, COUNT);
        for (class, last) in
            [(Class::Telemetry, COUNT), (Class::Card, COUNT / 10), (Class::Ledger, COUNT / 10)]
        {
            shop.await_delivered(class, last).await;
        }
        hq.assert_delivered_is_on_disk(&shop).await;
        println!("{version:?}: 4 kills, {}", hq.leavings());
        shop.stop().await;
    }
}

/// On one thread: the figures of its uplink are nobody else's.
#[tokio::test]
async fn a_broker_killed_under_load_acknowledges_every_event() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let metrics = recorder.handle();
    let _recorder = metrics::set_default_local_recorder(&recorder);
    let mut broker = Mosquitto::start("").await;
    let proxy = FaultProxy::start(broker.port, Dice::throw("a broker killed"));
    let hq = Hq::start(broker.port, false);
    let mut shop = Shop::open();
    const COUNT: u64 = 20_000;
    for start in (1..=COUNT).step_by(500) {
        let mut batch = Batch::new();
        for n in start..start + 500 {
            batch = batch.event(Signals::event(n, 490));
        }
        shop.store.commit(batch).await.unwrap();
    }
    let epoch = shop.store.head().borrow().epoch.to_string();
    // A PUBACK that reached the gateway, on the wire, for everything up to here.
    let assert_acknowledged = |up_to: u64| {
        let without: Vec<u64> = proxy.book(|book| {
            let has = |n| book.acknowledged.contains_key(&(epoch.clone(), "telemetry".into(), n));
            (1..=up_to).filter(|n| !has(*n)).collect()
        });
        assert!(without.is_empty(), "delivered without a PUBACK, of {up_to}: {without:?}");
    };
    let began = Instant::now();
    shop.start(table(proxy.port, MqttVersion::V5));
    for part in 1..=3 {
        until("part of the backlog", async || {
            (shop.delivered(Class::Telemetry).await >= COUNT * part / 5).then_some(())
        })
        .await;
        broker.kill();
        assert_acknowledged(shop.delivered(Class::Telemetry).await);
        broker.up().await;
    }
    // PUBACK is "the broker has it": each event got one, whatever the broker lost since.
    shop.await_delivered(Class::Telemetry, COUNT).await;
    let taken = began.elapsed();
    assert_acknowledged(COUNT);
    assert_eq!(shop.delivered(Class::Telemetry).await, COUNT, "more delivered than committed");
    let (kinds, sent, acknowledged) = proxy.book(|book| {
        let sum = |of: &BTreeMap<_, u64>| of.values().sum::<u64>();
        (book.sent.len() as u64, sum(&book.sent), sum(&book.acknowledged))
    });
    assert_eq!(kinds, COUNT, "published, and not in the log");
    assert!(sent > COUNT, "nothing was ever sent again");
    let figure = |name: &str| {
        let (text, start) = (metrics.render(), format!("{name}{{class=\"telemetry\"}} "));
        let line = text.lines().find_map(|line| line.strip_prefix(&start)).map(str::to_owned);
        line.unwrap_or_else(|| panic!("no {name}: {text}")).parse::<u64>().unwrap()
    };
    assert_eq!(figure("baygate_uplink_acked_total"), COUNT, "counted as acknowledged");
    println!(
        "{COUNT} acknowledged over 3 kills in {taken:?}: {sent} sent, {acknowledged} PUBACKs; \
         headquarters saw {} of them through this broker",
        hq.total(),
    );
    shop.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_killed_under_load_goes_on_where_it_stood() {
    let broker = Mosquitto::start("").await;
    let hq = Hq::start(broker.port, true);
    let mut shop = Shop::open();
    let mut table = table(broker.port, MqttVersion::V5);
    table.confirm = Confirm::Headquarters;
    const COUNT: u64 = 1_000;
    fill(&shop, 1, COUNT).await;
    for part in 1..=4 {
        shop.start(table.clone());
        hq.collect(COUNT as usize * part / 5).await;
        shop.crash().await;
    }
    // And once with the database opened anew.
    shop.store.close().await;
    shop.store = open_store(&shop.folder());
    shop.start(table);
    hq.collect(COUNT as usize * 12 / 10).await;
    assert_complete(&hq, COUNT);
    shop.await_delivered(Class::Telemetry, COUNT).await;
    shop.stop().await;
}
