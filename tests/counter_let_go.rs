//! A held card that cannot be brought, through the real program: released by a person's word, for no
//! other end than to be replaced. What is known of it stays: its copy raises the alarm again, and no fen
//! appears.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod counter_shop;
#[path = "support/daemon.rs"]
mod daemon;
#[path = "support/port.rs"]
mod port;

use baygate::sim::card::{CardSim, Chip, Technology as Sim};
use counter_shop::{Shop, blank, blank_with_uid};
use serde_json::{Value, json};

const CARD: &str = "/v1/cards/8800000042";
const RELEASE: &str = "/v1/cards/8800000042/release";

async fn away(card: CardSim) -> Chip {
    let mut chip = card.chip();
    chip.reset();
    card.remove().await;
    chip
}

/// The old image is laid on the reader: refused for this reason, nothing written, and held.
async fn shown(shop: &Shop, copy: &Chip, reason: &str) {
    let card = shop.lay(copy.clone()).await;
    let told = shop.get("/v1/readers/counter-1/card?wait=20").await.body;
    assert_eq!(told["refused"]["reason"], reason, "{told}");
    assert_eq!(shop.get(CARD).await.body["held"], "counter-behind");
    assert_eq!(card.writes(), 0);
    away(card).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_held_card_that_is_lost_is_released_and_replaced_once() {
    let shop = Shop::open("").await;
    // ¥200, of which ¥50 were spent; the image is from before.
    let card = shop.lay(blank(Sim::Ntag215)).await;
    shop.issue("8800000042", "i-1").await;
    let deals = format!("{CARD}/transactions");
    let tenders = json!([{ "kind": "cash", "amount_fen": 20_000 }]);
    let topup = json!({ "kind": "topup", "amount_fen": 20_000, "tenders": tenders });
    shop.done(&deals, topup, "t-1").await;
    let mut copy = card.chip();
    copy.reset();
    shop.done(&deals, json!({ "kind": "spend", "amount_fen": 5_000 }), "s-1").await;
    away(card).await;
    let lost = json!({ "without_card": "lost", "operator": "li.wei", "reason": "客户丢卡" });
    assert_eq!(shop.refused(RELEASE, lost.clone(), "r-0").await, (409, "card-not-held".into()));
    shown(&shop, &copy, "held").await;

    // (body, status, code)
    let known = json!({ "uid": "04A1B2C3D45E80", "principal_fen": 20_000, "bonus_fen": 0, "points": 0,
        "coupons": [], "counter": 1 });
    for (n, (body, status, code)) in [
        (json!({ "without_card": "lost" }), 422, "request-invalid"),
        (json!({ "without_card": "lost", "reason": "a", "takes": known }), 422, "request-invalid"),
        (json!({ "without_card": "stolen", "reason": "a" }), 422, "body-invalid"),
        (lost.clone(), 409, "card-not-lost"),
    ]
    .into_iter()
    .enumerate()
    {
        let answer = shop.post(RELEASE, body.clone(), &format!("w-{n}")).await;
        let stands = (answer.status, answer.body["code"].as_str().unwrap());
        assert!(stands == (status, code) || stands == (400, code), "{body}: {answer:?}");
    }
    let nobody = "/v1/cards/8800000099/release";
    assert_eq!(shop.refused(nobody, lost.clone(), "w-9").await, (404, "card-not-known".into()));
    assert_eq!(shop.get(CARD).await.body["held"], "counter-behind");

    // Broken, its holder says: what is known of it stays, so that the copy is found out again.
    let defect = json!({ "without_card": "defect", "operator": "li.wei", "reason": "芯片损坏" });
    let released = shop.done(RELEASE, defect, "r-1").await;
    assert_eq!(
        json!([released["released"], released["known"]["principal_fen"], released["known"]["counter"]]),
        json!(["counter-behind", 15_000, 2])
    );
    assert_eq!(shop.get(CARD).await.body["held"], Value::Null);
    shown(&shop, &copy, "held").await;

    // Lost after all: reported, released, and still good for nothing but a replacement.
    shop.done(&format!("{CARD}/block"), json!({ "reason": "电话挂失" }), "b-1").await;
    let released = shop.done(RELEASE, lost.clone(), "r-2").await;
    assert_eq!(shop.done(RELEASE, lost.clone(), "r-2").await, released, "a key acts once");
    let other = json!({ "without_card": "lost", "reason": "another" });
    assert_eq!(shop.refused(RELEASE, other, "r-2").await.0, 422);
    shown(&shop, &copy, "blocked").await;
    let words = ["release", "--without-card", "lost", "--card", "8800000042"];
    assert_eq!(shop.terminal(&words).await.0, 2, "a reason is needed");
    let (exit, said, told) = shop.terminal(&[&words[..], &["--reason", "客户丢卡"]].concat()).await;
    assert_eq!((exit, &said["without_card"]), (0, &json!("lost")), "{told}");

    let card = shop.lay(blank_with_uid(Sim::Ntag215, 9)).await;
    shop.done("/v1/cards", json!({ "card_no": "8800000043", "type": "named" }), "i-2").await;
    let replace = json!({ "new_card_no": "8800000043" });
    let moved = shop.done(&format!("{CARD}/replace"), replace.clone(), "p-1").await;
    assert_eq!((&moved["amount_fen"], &moved["points_after"]), (&json!(15_000), &json!(50)), "{moved}");
    assert_eq!(shop.refused(&format!("{CARD}/replace"), replace, "p-2").await.0, 409);
    away(card).await;
    // The journal's word, not the copy's: ¥150 went over, and the old card holds nothing.
    let (facts, told) = shop.close().await;
    assert_eq!(facts.iter().map(|fact| fact.principal_fen.0).sum::<i64>(), 0);
    let statuses: Vec<&Value> =
        told.iter().filter(|(kind, _)| kind == "card.status").map(|(_, data)| data).collect();
    let story: Vec<Value> =
        statuses.iter().map(|data| json!([data["held"], data["reason"], data["operator"]])).collect();
    let held = json!(["counter-behind", null, null]);
    assert_eq!(
        story,
        [
            held.clone(),
            json!([null, "芯片损坏", "li.wei"]),
            held.clone(),
            json!(["counter-behind", "电话挂失", "control"]),
            json!([null, "客户丢卡", "li.wei"]),
            held,
            json!([null, "客户丢卡", "control"]),
            json!([null, "lost", "control"]),
        ]
    );
}
