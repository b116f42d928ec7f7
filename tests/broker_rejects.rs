//! Brokers that take some events and refuse others, by word, by limit or by
//! hanging up: what may come again comes again in its order, what never will is
//! set aside one at a time and told as a gap, and the log is never emptied.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod bad_broker;
mod mqtt;
#[path = "support/scripted_broker.rs"]
mod scripted_broker;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bad_broker::{EACH, V3, V5};
use baygate::config::tables::Confirm;
use baygate::event::Class;
use baygate::store::Offset;
use mqtt::{Money, Removed, Shop, Signals, Tap, table, until};
use scripted_broker::{Deed, Greet, Heard, Mood, ScriptedBroker, taken_in_order};

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
