//! What headquarters sends for the counter about members (`member.put`), at the real program over a
//! real Mosquitto: told at the tap and over HTTP, with its age, after a kill and with the line down.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod counter_shop;
#[path = "support/daemon.rs"]
mod daemon;
#[path = "support/house.rs"]
mod house;
mod mqtt;
mod port {
    pub use crate::mqtt::free_port;
}

use baygate::clock::UtcMillis;
use baygate::sim::card::{CardSim, Chip, Technology as Sim};
use counter_shop::{Shop, blank_with_uid};
use house::House;
use serde_json::{Value, json};

const CARD: &str = "/v1/cards/8800000042";

fn word(level: &str) -> Value {
    json!({
        "card_no": "8800000042", "level": level, "next_contact": "2999-12-01",
        "offers": [{ "id": "oil-50", "text": "机油八折", "valid_until": "2999-12-31" }, { "id": "old", "text": "过期", "valid_until": "2020-01-01" }],
        "reminders": [{ "kind": "insurance", "due_on": "2999-12-20", "text": "交强险到期" }, { "kind": "tyres", "text": "later" }],
    })
}

/// All but the age, as a till is told it.
fn told(level: &str) -> Value {
    json!({
        "level": level, "next_contact": "2999-12-01",
        "offers": [{ "id": "oil-50", "text": "机油八折", "valid_until": "2999-12-31" }],
        "reminders": [{ "kind": "insurance", "due_on": "2999-12-20", "text": "交强险到期" }],
    })
}

/// The word that these members hold, and its age in seconds.
fn of(holds: &Value) -> (Value, Option<u64>) {
    let mut word = json!({});
    for name in ["level", "next_contact", "offers", "reminders"] {
        if let Some(value) = holds.get(name) {
            word[name] = value.clone();
        }
    }
    (word, holds["data_age_s"].as_u64())
}

async fn away(card: CardSim) -> Chip {
    let mut chip = card.chip();
    chip.reset();
    card.remove().await;
    chip
}

/// What a tap of the card tells.
async fn tapped(shop: &Shop, chip: &mut Option<Chip>) -> Value {
    let card = shop.lay(chip.take().unwrap()).await;
    let member = shop.member().await;
    *chip = Some(away(card).await);
    member
}

#[tokio::test(flavor = "multi_thread")]
async fn the_till_is_told_what_headquarters_sent() {
    let mut house = House::with("").await;
    let put = |hours_ago: i64, level: &str| {
        let as_of = UtcMillis(UtcMillis::now().0 - hours_ago * 3_600_000);
        json!({ "as_of": as_of, "members": [word(level)] })
    };
    // Nobody has set the clock: what changes something waits.
    let waits = house.command("member.put", &put(9, "银卡")).await;
    assert_eq!(waits["outcome"], "refused", "{waits}");
    house.sets_its_clock().await;

    let card = house.shop.lay(blank_with_uid(Sim::Ntag215, 1)).await;
    house.shop.issue("8800000042", "i-1").await;
    let mut chip = Some(away(card).await);
    let (nothing, age) = of(&tapped(&house.shop, &mut chip).await);
    assert_eq!((nothing, age), (json!({ "offers": [], "reminders": [] }), None), "headquarters sent nothing");

    let done = house.command("member.put", &put(1, "金卡")).await;
    assert_eq!(
        (&done["outcome"], &done["result"]),
        (&json!("done"), &json!({ "members": 1, "reminders_left_out": 1 }))
    );
    // Told late; and one that is not what it must be changes nothing.
    house.command("member.put", &put(2, "银卡")).await;
    let wrong = json!({ "members": [word("钻石卡"), { "card_no": "8800000042", "level": "" }] });
    let refused = house.command("member.put", &wrong).await;
    assert_eq!(refused["outcome"], "refused", "{refused}");
    assert!(refused["error"].as_str().unwrap().contains("8800000042"), "{refused}");

    let member = tapped(&house.shop, &mut chip).await;
    let (said, age) = of(&member);
    assert_eq!(said, told("金卡"));
    assert!((3_600..4_200).contains(&age.unwrap()), "{age:?} is not an hour");
    assert_eq!(member["card_no"], "8800000042", "{member}");

    // The line is down, and the program was killed.
    house.loses_its_line();
    house.shop.kill_and_restart().await;
    let (said, later) = of(&tapped(&house.shop, &mut chip).await);
    assert_eq!(said, told("金卡"));
    assert!(later >= age, "{later:?}");
    let (said, later) = of(&house.shop.get(CARD).await.body);
    assert_eq!(said, told("金卡"));
    assert!(later >= age, "{later:?}");
    let (_, told_all) = house.shop.close().await;
    let words =
        told_all.iter().filter(|(kind, _)| kind == "card.tapped").map(|(_, data)| of(&data["member"]).0);
    assert_eq!(words.filter(|said| *said == told("金卡")).count(), 2, "in the event itself");
}
