//! A card that is gone, issued anew from headquarters' record (`card.reissue`), at the real program
//! over a real Mosquitto: the balance is on the new card once, whatever is asked again and wherever
//! the program is killed; the old card is dead; and a record that does not fit is refused.
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

use std::path::Path;
use std::time::Duration;

use baygate::api::client::Method;
use baygate::card::keys::credential;
use baygate::card::medium::format_commands;
use baygate::card::record::{Coupon, MemberRecord};
use baygate::event::card::{MemberStatus, Technology};
use baygate::event::ledger::CardType;
use baygate::protocols::Bundle;
use baygate::sim::card::{CardProfile, CardSim, Chip, Technology as Sim};
use counter_shop::{STORE, blank_with_uid};
use house::House;
use serde_json::{Value, json};
use uuid::Uuid;

const RULES: &str =
    "[purse]\n[[purse.coupon]]\nid = 7\nname = { zh = \"保养券\", en = \"Service\" }\noff_fen = 500\n";
const OLD: &str = "/v1/cards/8800000042";
const NEW: &str = "/v1/cards/8800000043";
const REPLACE: &str = "/v1/cards/8800000042/replace";

impl House {
    async fn open() -> Self {
        let mut house = Self::with(RULES).await;
        // Nobody has set the clock: what changes something waits.
        let waits = house.order(&record()).await;
        assert_eq!(waits["outcome"], "refused", "{waits}");
        house.sets_its_clock().await;
        house
    }

    async fn order(&mut self, record: &Value) -> Value {
        self.command("card.reissue", record).await
    }

    async fn refused(&mut self, record: &Value, why: &str) {
        let result = self.order(record).await;
        assert_eq!(result["outcome"], "refused", "{result}");
        assert!(result["error"].as_str().unwrap().contains(why), "{why}: {result}");
    }
}

/// What headquarters knows of a card that this store never saw.
fn record() -> Value {
    json!({
        "record_id": "0192f1d0-0000-7000-8000-00000000abcd", "card_no": "8800000042", "uid": "04A1B2C3D4E580",
        "technology": "ntag215", "type": "named", "principal_fen": 15_000, "bonus_fen": 1_000, "points": 50,
        "coupons": [7], "counter": 12, "new_card_no": "8800000043", "tier": 2, "reason": "defect", "later": 1,
    })
}

fn with(change: impl FnOnce(&mut Value)) -> Value {
    let mut record = record();
    change(&mut record);
    record
}

/// The old card, should it turn up.
fn old_chip() -> Chip {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("firmware-protocols");
    let layouts = Bundle::load(&folder).unwrap().cards;
    let layout = layouts.iter().find(|layout| layout.technologies.contains(&Technology::Ntag215)).unwrap();
    let mut profile = CardProfile::new(Sim::Ntag215);
    profile.direct_transmit = true;
    profile.uid = hex::decode("04A1B2C3D4E580").unwrap();
    let uid = hex::encode_upper(&profile.uid).parse().unwrap();
    let keys = credential::parse(counter_shop::credential().as_bytes(), &STORE.parse().unwrap()).unwrap();
    let mut coupons = [Coupon::default(); 4];
    coupons[0] = Coupon { kind: 7, left: 1 };
    let record = MemberRecord {
        card_no: "8800000042".parse().unwrap(),
        member_type: CardType::Named,
        status: MemberStatus::Active,
        issuing_store: STORE.parse().unwrap(),
        tier: 0,
        discount_class: 0,
        valid_until: None,
        principal_fen: 15_000,
        bonus_fen: 1_000,
        points: 50,
        coupons,
        counter: 12,
        last: None,
        key_version: 1,
    };
    let mut chip = Chip::new(profile);
    for command in format_commands(Technology::Ntag215, layout, &uid, &record, &keys).unwrap() {
        assert_eq!(chip.apdu(&command.to_bytes()), [0x90, 0x00]);
    }
    chip.reset();
    chip
}

async fn away(card: CardSim) -> Chip {
    let mut chip = card.chip();
    chip.reset();
    card.remove().await;
    chip
}

fn wish(new: &str) -> Value {
    json!({ "new_card_no": new })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_card_that_nobody_here_knows_is_issued_anew_once() {
    let mut house = House::open().await;
    // As headquarters' word has it another store gave it out.
    let record = with(|record| record["issuing_store"] = json!("SH-0001"));
    let done = house.order(&record).await;
    assert_eq!((&done["outcome"], &done["result"]["made_before"]), (&json!("done"), &json!(false)), "{done}");
    // Told again, by another command and after a kill: nothing happens.
    for _ in 0..2 {
        let again = house.order(&record).await;
        assert_eq!((&again["outcome"], &again["result"]["made_before"]), (&json!("done"), &json!(true)));
        house.kill_and_restart().await;
    }
    house.refused(&with(|record| record["principal_fen"] = json!(99_000)), "was used before").await;
    house
        .refused(&with(|record| record["record_id"] = json!(Uuid::new_v4())), "replaced or given back")
        .await;
    // Lost cards are on headquarters' list: that does not hold the balance back.
    let list = house.command("hotlist.put", &json!({ "version": 1, "cards": ["8800000042"] })).await;
    assert_eq!(list["outcome"], "done", "{list}");
    let shop = &house.shop;
    let old = shop.get(OLD).await.body;
    assert_eq!((&old["status"], &old["balance_fen"]), (&json!("replaced"), &json!(0)), "{old}");
    let due = &old["transfers_due"][0];
    assert_eq!(
        json!([due["sort"], due["amount_fen"], due["transaction_id"], due["to_card_no"]]),
        json!(["replacement", 16_000, record["record_id"], "8800000043"])
    );

    // The new card needs to be told nothing but its number.
    let card = shop.lay(blank_with_uid(Sim::Classic1k, 9)).await;
    shop.done("/v1/cards", json!({ "card_no": "8800000043" }), "i-1").await;
    let moved = shop.done(REPLACE, wish("8800000043"), "r-1").await;
    assert_eq!(
        (&moved["balance_after_fen"], &moved["points_after"]),
        (&json!(16_000), &json!(50)),
        "{moved}"
    );
    assert_eq!((&moved["coupons"], &moved["original_transaction_id"]), (&json!([7]), &record["record_id"]));
    assert_eq!(shop.refused(REPLACE, wish("8800000043"), "r-2").await.1, "not-fresh");
    let chip = away(card).await;
    let card = shop.lay(chip).await;
    let member = shop.member().await;
    assert_eq!((&member["balance_fen"], &member["tier"]), (&json!(16_000), &json!(2)), "{member}");
    let spend = json!({ "kind": "spend", "amount_fen": 600, "coupon": 7 });
    assert_eq!(shop.done("/v1/cards/8800000043/transactions", spend, "s-1").await["amount_fen"], -100);
    away(card).await;
    let card = shop.lay(blank_with_uid(Sim::Classic1k, 10)).await;
    shop.done("/v1/cards", json!({ "card_no": "8800000044", "type": "named" }), "i-2").await;
    assert_eq!(shop.refused(REPLACE, wish("8800000044"), "r-3").await, (409, "card-replaced".into()));
    away(card).await;
    let (ledger, told) = house.shop.close().await;
    assert_eq!(ledger.len(), 1);
    assert_eq!(
        json!([ledger[0].transaction_id, ledger[0].operator, ledger[0].amount_fen]),
        json!([record["record_id"], "headquarters", -16_000])
    );
    let of = |kind: &str, holds: &dyn Fn(&Value) -> bool| {
        told.iter()
            .filter(|(name, data)| name == kind && holds(data))
            .map(|(_, data)| data.clone())
            .collect::<Vec<_>>()
    };
    let dead = of("card.status", &|data| data["status"] == "replaced");
    assert_eq!(
        (dead.len(), &dead[0]["reason"], &dead[0]["operator"]),
        (1, &json!("defect"), &json!("headquarters"))
    );
    assert_eq!(of("card.transaction", &|data| data["kind"] == "transfer").len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_while_the_new_card_is_written() {
    let mut house = House::open().await;
    assert_eq!(house.order(&record()).await["outcome"], "done");
    // The old one turns up: dead, nothing is written, nobody is alarmed.
    let card = house.shop.lay(old_chip()).await;
    let answer = house.shop.get("/v1/readers/counter-1/card?wait=20").await;
    assert_eq!(answer.body["refused"]["reason"], "replaced", "{answer:?}");
    assert_eq!((card.writes(), &house.shop.get(OLD).await.body["held"]), (0, &Value::Null));
    away(card).await;

    let card = house.shop.lay(blank_with_uid(Sim::Ntag215, 9)).await;
    house.shop.done("/v1/cards", json!({ "card_no": "8800000043" }), "i-1").await;
    let mut chip = away(card).await;
    let mut there = false;
    // At the first write, in the middle, and near the end; until it is there.
    for (n, after) in [1, 6, 11, 14].into_iter().enumerate() {
        let card = house.shop.lay(chip).await;
        there = house.shop.member().await["balance_fen"] == 16_000;
        if there {
            chip = away(card).await;
            break;
        }
        let begun = card.writes();
        card.slow(Duration::from_millis(30));
        let (client, key) = (house.shop.client.clone(), format!("r-{n}"));
        let asked = tokio::spawn(async move {
            client.request_with_key(Method::POST, REPLACE, Some(&wish("8800000043")), Some(&key)).await
        });
        let deadline = std::time::Instant::now() + daemon::LONG;
        while card.writes() < begun + after && !asked.is_finished() {
            assert!(std::time::Instant::now() < deadline);
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        house.kill_and_restart().await;
        drop(asked.await);
        chip = card.chip();
        chip.reset();
        drop(card);
    }
    let card = house.shop.lay(chip).await;
    let shop = &house.shop;
    there |= shop.member().await["balance_fen"] == 16_000;
    if !there {
        shop.done(REPLACE, wish("8800000043"), "r-last").await;
    }
    let new = shop.get(NEW).await.body;
    assert_eq!(
        (&new["balance_fen"], &new["points"], &new["counter"]),
        (&json!(16_000), &json!(50), &json!(1)),
        "{new}"
    );
    assert_eq!(shop.refused(REPLACE, wish("8800000043"), "r-once-more").await.1, "not-fresh");
    away(card).await;
    let again = house.order(&record()).await;
    assert_eq!(again["result"]["made_before"], true);
    let (_, told) = house.shop.close().await;
    let received = |data: &&(String, Value)| {
        data.0 == "card.transaction" && data.1["card_no"] == "8800000043" && data.1["outcome"] == "committed"
    };
    assert_eq!(told.iter().filter(received).count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_does_not_fit_is_refused() {
    let mut house = House::open().await;
    for (wrong, why) in [
        (with(|record| record["principal_fen"] = json!(-1)), "principal_fen"),
        (with(|record| record["principal_fen"] = json!(i64::MAX)), "principal_fen"),
        (with(|record| record["points"] = json!(-1)), "points"),
        (with(|record| record["coupons"] = json!([1, 2, 3, 4, 5])), "coupons"),
        (with(|record| record["counter"] = json!(u32::MAX)), "counter"),
        (with(|record| record["new_card_no"] = json!("8800000042")), "new_card_no"),
        (with(|record| drop(record.as_object_mut().unwrap().remove("uid"))), "uid"),
    ] {
        house.refused(&wrong, why).await;
    }
    assert_eq!(house.shop.get(OLD).await.status, 404, "nothing is left of them");
    // A card that this store knows better.
    let card = house.shop.lay(blank_with_uid(Sim::Ntag215, 1)).await;
    let issued = house.shop.issue("8800000042", "i-1").await;
    let topup =
        json!({ "kind": "topup", "amount_fen": 500, "tenders": [{ "kind": "cash", "amount_fen": 500 }] });
    for key in ["t-1", "t-2"] {
        house.shop.done("/v1/cards/8800000042/transactions", topup.clone(), key).await;
    }
    away(card).await;
    house.refused(&record(), "another chip").await;
    let ours = |counter: u32, fen: i64| {
        with(|record| {
            for (name, value) in
                [("uid", issued["uid"].clone()), ("counter", json!(counter)), ("principal_fen", json!(fen))]
            {
                record[name] = value;
            }
            (record["bonus_fen"], record["points"], record["coupons"]) = (json!(0), json!(0), json!([]));
        })
    };
    house.refused(&ours(1, 500), "at counter 2").await;
    house.refused(&ours(2, 999), "another content").await;
    assert_eq!(house.shop.get(OLD).await.body["status"], "active");
    // Used elsewhere since: headquarters knows more.
    let done = house.order(&ours(5, 700)).await;
    assert_eq!(done["outcome"], "done", "{done}");
    let old = house.shop.get(OLD).await.body;
    assert_eq!((&old["status"], &old["transfers_due"][0]["amount_fen"]), (&json!("replaced"), &json!(700)));
    assert_eq!(house.shop.refused("/v1/cards/8800000042/unblock", json!({}), "u-1").await.1, "card-replaced");
    house.shop.close().await;
}

/// A held card that is gone for good: headquarters' record clears it, and only what fits its counter.
#[tokio::test(flavor = "multi_thread")]
async fn a_held_card_is_issued_anew() {
    let mut house = House::open().await;
    let card = house.shop.lay(blank_with_uid(Sim::Ntag215, 1)).await;
    let issued = house.shop.issue("8800000042", "i-1").await;
    let mut copy = card.chip();
    copy.reset();
    let topup =
        json!({ "kind": "topup", "amount_fen": 500, "tenders": [{ "kind": "cash", "amount_fen": 500 }] });
    house.shop.done("/v1/cards/8800000042/transactions", topup, "t-1").await;
    away(card).await;
    let card = house.shop.lay(copy).await;
    let told = house.shop.get("/v1/readers/counter-1/card?wait=20").await.body;
    assert_eq!(told["refused"]["reason"], "held", "{told}");
    away(card).await;
    let ours = |counter: u32, fen: i64| {
        with(|record| {
            (record["uid"], record["counter"]) = (issued["uid"].clone(), json!(counter));
            (record["principal_fen"], record["bonus_fen"]) = (json!(fen), json!(0));
            (record["points"], record["coupons"]) = (json!(0), json!([]));
        })
    };
    // What the copy shows is not what it held.
    house.refused(&ours(0, 0), "at counter 1").await;
    house.refused(&ours(1, 999), "another content").await;
    assert_eq!(house.shop.get(OLD).await.body["held"], "counter-behind");
    let done = house.order(&ours(1, 500)).await;
    assert_eq!(done["outcome"], "done", "{done}");
    let old = house.shop.get(OLD).await.body;
    assert_eq!((&old["status"], &old["held"]), (&json!("replaced"), &Value::Null), "{old}");
    let card = house.shop.lay(blank_with_uid(Sim::Ntag215, 9)).await;
    house.shop.done("/v1/cards", json!({ "card_no": "8800000043" }), "i-2").await;
    let moved = house.shop.done(REPLACE, wish("8800000043"), "p-1").await;
    assert_eq!(moved["balance_after_fen"], 500, "{moved}");
    away(card).await;
    house.shop.close().await;
}
