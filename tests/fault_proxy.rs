//! A bad line between gateway and a real Mosquitto: each fault of
//! `bad_line/fault.rs` by itself, then a seeded mixture, while events are
//! being committed. At the end everything is with headquarters, once after
//! de-duplication and in order within each class, in both versions, whoever's
//! word counts; with `confirm = "broker"` each event got its PUBACK and none is
//! counted twice. The real program does
//! it in `fault_proxy_daemon.rs`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "support/authority.rs"]
mod authority;
mod bad_line;
#[path = "support/dice.rs"]
mod dice;
#[path = "support/fault_proxy.rs"]
mod fault_proxy;
mod mqtt;

use std::collections::BTreeMap;
use std::time::Duration;

use bad_line::fault::Fault;
use bad_line::feeder::Feeder;
use bad_line::hq::Hq;
use bad_line::unreadable::UnreadableLine;
use baygate::config::tables::{Confirm, MqttVersion};
use baygate::event::Class;
use dice::{Dice, rounds};
use fault_proxy::{FaultProxy, Faults};
use futures_util::future::join_all;
use mqtt::{Mosquitto, Shop, table, until};

async fn whatever_the_line_does(version: MqttVersion, confirm: Confirm) {
    let name = format!("{version:?}, confirm by {confirm:?}");
    let mut dice = Dice::throw(&name);
    let broker = Mosquitto::start("").await;
    let proxy = FaultProxy::start(broker.port, dice.fork());
    let hq = Hq::start(broker.port, confirm);
    let mut shop = Shop::open();
    let mut setup = table(proxy.port, version);
    setup.confirm = confirm;
    setup.confirm_timeout = Duration::from_secs(2);
    let feeder = Feeder::start(&shop.store, dice.fork());
    shop.start(setup);

    for fault in Fault::ALL {
        let since = (proxy.accepted(), hq.total());
        let dead = feeder.total();
        fault.begin(&proxy);
        fault.shows(&proxy, &shop, &hq, since).await;
        proxy.heal();
        hq.collect(&format!("{name}: after {fault:?}"), dead.max(feeder.total())).await;
        shop.assert_running();
    }
    for _ in 0..rounds(12) {
        let fault = Fault::ALL[dice.below(Fault::ALL.len())];
        fault.begin(&proxy);
        feeder.goes_on(dice.between(5, 120)).await;
        // Faults overlap now and then.
        if dice.chance(400) {
            match dice.below(3) {
                0 => proxy.cut(),
                1 => proxy.end(),
                _ => proxy.freeze(),
            }
            feeder.goes_on(dice.between(1, 60)).await;
        }
        if dice.chance(700) {
            proxy.heal();
            feeder.goes_on(dice.between(1, 60)).await;
        }
        shop.assert_running();
    }
    proxy.heal();

    let committed = feeder.end().await;
    hq.collect(&name, committed.values().sum()).await;
    for (class, last) in &committed {
        hq.assert_whole(*class, *last);
        shop.await_delivered(*class, *last).await;
        assert_eq!(shop.delivered(*class).await, *last, "{class}: more delivered than committed");
    }
    shop.await_well().await;
    if confirm == Confirm::Broker {
        // No hole ever showed: what was sent again was sent in order.
        assert_eq!(hq.taken.lock().unwrap().early, 0, "{name}: out of order");
        assert_each_has_its_puback(&proxy, &shop, &committed).await;
    }
    let stats = shop.store.read(|reader| reader.stats()).await.unwrap();
    assert_eq!(stats.quarantined, 0);
    assert!(stats.classes.iter().all(|class| class.unsent_rows == 0 && class.gaps == 0), "{stats:?}");
    println!(
        "{name}: {} events over {} connections, {} duplicates, {} PUBACKs swallowed",
        committed.values().sum::<u64>(),
        proxy.accepted(),
        hq.taken.lock().unwrap().duplicates,
        proxy.book(|book| book.swallowed),
    );
    shop.stop().await;
}

/// As seen on the wire: a PUBACK that reached the gateway for every event that counts as delivered.
async fn assert_each_has_its_puback(proxy: &FaultProxy, shop: &Shop, committed: &BTreeMap<Class, u64>) {
    let epoch = shop.store.head().borrow().epoch.to_string();
    for (class, last) in committed {
        let without: Vec<u64> = proxy.book(|book| {
            let acknowledged = |n| book.acknowledged.contains_key(&(epoch.clone(), class.to_string(), n));
            (1..=*last).filter(|n| !acknowledged(*n)).collect()
        });
        assert!(without.is_empty(), "{class}: without a PUBACK: {without:?}");
    }
}

/// All four side by side: mostly they wait.
#[tokio::test(flavor = "multi_thread")]
async fn whatever_the_line_does_everything_arrives_once_and_in_order() {
    let mut running = Vec::new();
    for version in [MqttVersion::V5, MqttVersion::V311] {
        for confirm in [Confirm::Broker, Confirm::Headquarters] {
            running.push(whatever_the_line_does(version, confirm));
        }
    }
    join_all(running).await;
}

/// Garbled bytes under TLS: what arrives is whole or does not arrive.
#[tokio::test(flavor = "multi_thread")]
async fn garbled_bytes_under_tls_cost_only_connections() {
    for (version, confirm) in [(MqttVersion::V5, Confirm::Broker), (MqttVersion::V311, Confirm::Headquarters)]
    {
        let name = format!("garbled, {version:?}");
        let mut dice = Dice::throw(&name);
        let line = UnreadableLine::start(&mut dice, confirm).await;
        let UnreadableLine { proxy, hq, .. } = &line;
        let mut shop = Shop::open();
        let mut setup = table(proxy.port, version);
        setup.url = line.url().parse().unwrap();
        setup.ca_file = Some(line.ca_file());
        setup.confirm = confirm;
        setup.confirm_timeout = Duration::from_secs(2);
        let feeder = Feeder::start(&shop.store, dice.fork());
        shop.start(setup);
        hq.collect(&name, 20).await;
        for (garble_up, garble_down) in [(30, 0), (0, 30), (15, 15)] {
            proxy.set(Faults { garble_up, garble_down, ..Faults::default() });
            let before = proxy.accepted();
            until(&format!("{name}: the line breaks"), async || {
                (proxy.accepted() >= before + 5).then_some(())
            })
            .await;
            proxy.heal();
            hq.collect(&name, feeder.total()).await;
        }
        let committed = feeder.end().await;
        hq.collect(&name, committed.values().sum()).await;
        for (class, last) in &committed {
            hq.assert_whole(*class, *last);
            shop.await_delivered(*class, *last).await;
        }
        shop.await_well().await;
        shop.stop().await;
    }
}

/// Without TLS nobody can tell a garbled event from a good one; the gateway must only live through it.
#[tokio::test(flavor = "multi_thread")]
async fn garbled_bytes_in_plain_text_are_survived() {
    for version in [MqttVersion::V5, MqttVersion::V311] {
        let name = format!("garbled plain text, {version:?}");
        let mut dice = Dice::throw(&name);
        let broker = Mosquitto::start("").await;
        let proxy = FaultProxy::start_opaque(broker.port, dice.fork());
        let hq = Hq::start(broker.port, Confirm::Broker);
        let mut shop = Shop::open();
        let feeder = Feeder::start(&shop.store, dice.fork());
        shop.start(table(proxy.port, version));
        for (garble_up, garble_down) in [(0, 100), (100, 0), (50, 50)] {
            proxy.set(Faults { garble_up, garble_down, ..Faults::default() });
            let before = proxy.accepted();
            until(&format!("{name}: dialled anew"), async || {
                (proxy.accepted() >= before + rounds(8)).then_some(())
            })
            .await;
            shop.assert_running();
        }
        // What was garbled may have ended up in any state of the line: it is cut once.
        proxy.heal();
        proxy.cut();
        let before = hq.total();
        feeder.goes_on(50).await;
        hq.collect(&name, before + 50).await;
        let committed = feeder.end().await;
        let garbled = proxy.book(|book| book.garbled);
        for (class, last) in committed {
            shop.await_delivered(class, last).await;
        }
        println!("{name}: {garbled} pieces garbled over {} connections", proxy.accepted());
        shop.stop().await;
    }
}
