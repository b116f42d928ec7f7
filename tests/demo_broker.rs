//! The demo's own broker and headquarters, with clients that are not ours: both
//! versions, retained, will, wildcards, and the uplink with headquarters' word.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod mqtt;

use std::time::Duration;

use baygate::config::tables::{Confirm, MqttVersion};
use baygate::event::Class;
use baygate::sim::{broker, headquarters};
use mqtt::{BASE, Listener, Money, ROOT, Shop, Tap, free_port, publish, table, until};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

#[tokio::test(flavor = "multi_thread")]
async fn the_embedded_broker_serves_both_versions_and_leaves_its_port() {
    let port = free_port();
    let broker = broker::start(([127, 0, 0, 1], port).into()).await.unwrap();
    for (version, sub) in [(MqttVersion::V5, "311"), (MqttVersion::V311, "5")] {
        let mut hq = Listener::start(port, sub, &format!("{ROOT}/+/+/#")).await;
        let mut shop = Shop::open();
        shop.commit(Tap::event(1, 10)).await;
        shop.start(table(port, version));
        let state = loop {
            let state = hq.on("/state").await;
            if state["online"] == true {
                break state;
            }
        };
        assert_eq!(hq.on("card.tapped").await["data"]["n"], 1);
        shop.await_delivered(Class::Card, 1).await;
        shop.crash().await;
        let will = hq.on("/state").await;
        assert_eq!((&will["online"], &will["connection"]), (&false.into(), &state["connection"]));
        // Retained: somebody who comes later sees it as well.
        let mut late = Listener::start(port, sub, &format!("{BASE}/state")).await;
        assert_eq!(late.on("/state").await["online"], false);
        publish(port, &format!("{BASE}/state"), "", true).await;
    }
    tokio::time::timeout(Duration::from_secs(5), broker.stop()).await.expect("stops");
    // A child that is just being started may have it open for a moment longer.
    until("the port is free again", async || std::net::TcpListener::bind(("127.0.0.1", port)).ok()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn demo_headquarters_confirms_what_it_took() {
    let broker = broker::start(([127, 0, 0, 1], 0).into()).await.unwrap();
    let (out, mut inbox) = mpsc::channel(64);
    let stop = CancellationToken::new();
    let _guard = stop.clone().drop_guard();
    let options = headquarters::Options { broker: broker.address(), root: ROOT.into(), acknowledge: true };
    tokio::spawn(headquarters::serve(options, out, stop));
    let mut shop = Shop::open();
    let mut table = table(broker.address().port(), MqttVersion::V5);
    table.confirm = Confirm::Headquarters;
    table.confirm_timeout = Duration::from_secs(2);
    shop.start(table);
    for n in 1..=50 {
        shop.commit(Money::event(n, 10)).await;
    }
    let mut seen = Vec::new();
    while seen.len() < 50 {
        let received = tokio::time::timeout(Duration::from_secs(20), inbox.recv()).await.unwrap().unwrap();
        if received.verdict == headquarters::Verdict::Fresh {
            seen.push(received.event["data"]["n"].as_u64().unwrap());
        }
    }
    assert_eq!(seen, (1..=50).collect::<Vec<_>>());
    shop.await_delivered(Class::Ledger, 50).await;
    shop.stop().await;
    broker.stop().await;
}
