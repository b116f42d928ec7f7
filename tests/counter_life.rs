//! A card's life through the real program: lost and replaced while it is absent, given back,
//! extended, its principal sent to another card; from HTTP and from a terminal; killed in the
//! middle; and what is refused is refused without a byte to the card.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod counter_shop;
#[path = "support/daemon.rs"]
mod daemon;
#[path = "support/port.rs"]
mod port;
#[path = "counter_life/transfers.rs"]
mod transfers;

use std::time::Duration;

use baygate::api::client::Method;
use baygate::sim::card::{CardFault, CardSim, Chip, Technology as Sim};
use counter_shop::{Shop, blank, blank_with_uid};
use serde_json::{Value, json};

const RULES: &str = "[purse]\n[[purse.reward]]\nfrom_fen = 10000\nbonus_fen = 1000\n\
    [[purse.coupon]]\nid = 7\nname = { zh = \"保养券\", en = \"Service\" }\noff_fen = 500\n";
const OLD: &str = "/v1/cards/8800000042";
const NEW: &str = "/v1/cards/8800000043";

fn path(card: &str, what: &str) -> String {
    format!("{card}/{what}")
}

fn topup(fen: i64) -> Value {
    json!({ "kind": "topup", "amount_fen": fen, "tenders": [{ "kind": "cash", "amount_fen": fen }] })
}

fn replace() -> Value {
    json!({ "new_card_no": "8800000043" })
}

/// A member's card with ¥200 and ¥10 bonus, off which ¥50 were spent; the sale's id.
async fn old_card(shop: &Shop) -> (Chip, String) {
    let card = shop.lay(blank(Sim::Ntag215)).await;
    shop.issue("8800000042", "i-1").await;
    shop.done(&path(OLD, "transactions"), topup(20_000), "t-1").await;
    shop.done(&path(OLD, "transactions"), json!({ "kind": "coupon", "coupon": 7 }), "c-1").await;
    let sale = json!({ "kind": "spend", "amount_fen": 5_000 });
    let sale = shop.done(&path(OLD, "transactions"), sale, "s-1").await;
    (away(card).await, sale["transaction_id"].as_str().unwrap().to_owned())
}

async fn away(card: CardSim) -> Chip {
    let mut chip = card.chip();
    chip.reset();
    card.remove().await;
    chip
}

async fn status(shop: &Shop, card: &str) -> String {
    shop.get(card).await.body["status"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_card_is_replaced_while_it_is_away() {
    let shop = Shop::open(RULES).await;
    let (old, sale) = old_card(&shop).await;
    shop.done(&path(OLD, "block"), json!({ "reason": "电话挂失" }), "b-1").await;
    let card = shop.lay(blank_with_uid(Sim::Classic1k, 9)).await;
    let anonymous = json!({ "card_no": "8800000043", "type": "anonymous" });
    shop.done("/v1/cards", anonymous, "i-2").await;
    let writes = card.writes();
    let refused = shop.refused(&path(OLD, "replace"), replace(), "r-0").await;
    assert_eq!(refused, (409, "other-type".into()));
    let unknown = shop.refused("/v1/cards/4711/replace", replace(), "r-1").await;
    assert_eq!(unknown, (404, "card-not-known".into()));
    let other = shop.refused(&path(OLD, "replace"), json!({ "new_card_no": "8800000099" }), "r-2").await;
    assert_eq!(other, (409, "wrong-card".into()));
    assert_eq!((card.writes(), status(&shop, OLD).await), (writes, "lost".into()));
    away(card).await;

    let card = shop.lay(blank_with_uid(Sim::Classic1k, 10)).await;
    shop.done("/v1/cards", json!({ "card_no": "8800000044", "type": "named" }), "i-3").await;
    shop.done("/v1/cards/8800000044/transactions", topup(100), "t-2").await;
    let used = shop.refused(&path(OLD, "replace"), json!({ "new_card_no": "8800000044" }), "r-3").await;
    assert_eq!(used, (409, "not-fresh".into()));
    away(card).await;

    let card = shop.lay(blank_with_uid(Sim::Classic1k, 11)).await;
    shop.done("/v1/cards", json!({ "card_no": "8800000045", "type": "named" }), "i-4").await;
    let wish = json!({ "new_card_no": "8800000045" });
    let moved = shop.done(&path(OLD, "replace"), wish.clone(), "r-4").await;
    assert_eq!((&moved["kind"], &moved["counterparty_card_no"]), (&json!("transfer"), &json!("8800000042")));
    assert_eq!(
        (&moved["balance_after_fen"], &moved["points_after"]),
        (&json!(16_000), &json!(50)),
        "{moved}"
    );
    assert_eq!((&moved["coupons"], &moved["operator"]), (&json!([7]), &json!("control")));
    let writes = card.writes();
    assert_eq!(shop.done(&path(OLD, "replace"), wish.clone(), "r-4").await, moved, "a key acts once");
    assert_eq!(shop.refused(&path(OLD, "replace"), wish, "r-5").await, (409, "not-fresh".into()));
    assert_eq!((card.writes(), status(&shop, OLD).await), (writes, "replaced".into()));
    assert_eq!(shop.refused(&path(OLD, "unblock"), json!({}), "u-1").await.1, "card-replaced");

    // What the old card paid comes back to the new one.
    let new = "/v1/cards/8800000045/transactions";
    let refund = json!({ "kind": "refund", "amount_fen": 2_000, "original_transaction_id": sale });
    assert_eq!(shop.done(new, refund, "f-1").await["balance_after_fen"], 18_000);
    let coupon = json!({ "kind": "spend", "amount_fen": 600, "coupon": 7 });
    assert_eq!(shop.done(new, coupon, "s-2").await["amount_fen"], -100);
    away(card).await;

    // The old one turns up: refused at the tap, nothing is written, nobody is alarmed.
    let card = shop.lay(old).await;
    let answer = shop.get("/v1/readers/counter-1/card?wait=20").await;
    assert_eq!(answer.body["refused"]["reason"], "replaced", "{answer:?}");
    let spend = json!({ "kind": "spend", "amount_fen": 100 });
    assert_eq!(shop.refused(&path(OLD, "transactions"), spend, "s-3").await, (409, "replaced".into()));
    assert_eq!(shop.get(OLD).await.body["held"], Value::Null);
    assert_eq!(card.writes(), 0);
    away(card).await;

    // No third card gets it again.
    let card = shop.lay(blank_with_uid(Sim::Classic1k, 12)).await;
    shop.done("/v1/cards", json!({ "card_no": "8800000046", "type": "named" }), "i-5").await;
    let writes = card.writes();
    let third = shop.refused(&path(OLD, "replace"), json!({ "new_card_no": "8800000046" }), "r-6").await;
    assert_eq!((third, card.writes()), ((409, "card-replaced".into()), writes));
    away(card).await;
    let (_, told) = shop.close().await;
    let dead: Vec<&Value> = told
        .iter()
        .filter(|(kind, data)| kind == "card.status" && data["status"] == "replaced")
        .map(|(_, d)| d)
        .collect();
    assert_eq!(dead.len(), 1);
    assert_eq!((&dead[0]["reason"], &dead[0]["operator"]), (&json!("lost"), &json!("control")));
}

/// A sale that no tap ever settled: the card was destroyed in it. What the journal last saw
/// committed moves, and headquarters settles the rest.
#[tokio::test(flavor = "multi_thread")]
async fn a_card_that_broke_in_a_sale_is_replaced() {
    let shop = Shop::open(RULES).await;
    let (old, _) = old_card(&shop).await;
    let card = shop.lay(old).await;
    shop.member().await;
    card.fault_after(12, CardFault::Pull);
    let sale = json!({ "kind": "spend", "amount_fen": 300 });
    let cut = shop.post(&path(OLD, "transactions"), sale.clone(), "s-2").await;
    assert_eq!((cut.status, &cut.body["code"]), (202, &json!("tap-again")), "{cut:?}");
    drop(card);
    let card = shop.lay(blank_with_uid(Sim::Ntag215, 9)).await;
    shop.issue("8800000043", "i-2").await;
    let wish = json!({ "new_card_no": "8800000043", "why": "defect" });
    let moved = shop.done(&path(OLD, "replace"), wish, "r-1").await;
    assert_eq!(moved["balance_after_fen"], 16_000);
    let known = shop.get(OLD).await.body;
    assert_eq!((&known["status"], &known["balance_fen"]), (&json!("replaced"), &json!(0)));
    assert_eq!(
        (&known["unsettled"][0]["state"], &known["unsettled"][0]["amount_fen"]),
        (&json!("parked"), &json!(-300))
    );
    // The till that asks again comes to an end: nobody here will ever know, and it is not to charge.
    for _ in 0..2 {
        let over = shop.post(&path(OLD, "transactions"), sale.clone(), "s-2").await;
        assert_eq!((over.status, &over.body["code"]), (409, &json!("parked")), "{over:?}");
        assert_eq!(
            (&over.body["transaction"]["outcome"], &over.body["transaction"]["amount_fen"]),
            (&json!("unknown"), &json!(-300))
        );
        assert!(over.body["text"]["zh"].as_str().unwrap().contains("请勿重复扣款"), "{over:?}");
    }
    let found = shop.get("/v1/transactions?idempotency_key=s-2").await;
    assert_eq!((found.status, &found.body["outcome"]), (200, &json!("unknown")), "{found:?}");
    away(card).await;
    shop.close().await;
}

/// The new card does not take it: the answer says where the balance is and what to do, and that helps.
/// An old card that the house stopped is not replaced before that is undone.
#[tokio::test(flavor = "multi_thread")]
async fn a_replacement_that_was_not_written_says_where_the_balance_is() {
    let shop = Shop::open(RULES).await;
    old_card(&shop).await;
    let card = shop.lay(blank_with_uid(Sim::Ntag215, 9)).await;
    shop.issue("8800000043", "i-2").await;
    shop.done(&path(OLD, "block"), json!({ "as": "blocked" }), "b-1").await;
    let writes = card.writes();
    assert_eq!(shop.refused(&path(OLD, "replace"), replace(), "r-0").await, (409, "card-blocked".into()));
    assert_eq!((card.writes(), status(&shop, OLD).await), (writes, "blocked".into()));
    shop.done(&path(OLD, "unblock"), json!({}), "u-1").await;

    card.fault(CardFault::Status(0x6300));
    let cut = shop.post(&path(OLD, "replace"), replace(), "r-1").await;
    assert_eq!((cut.status, &cut.body["code"]), (409, &json!("not-written")), "{cut:?}");
    let due = &cut.body["transfer_due"];
    assert_eq!(
        (&due["sort"], &due["from_card_no"], &due["amount_fen"]),
        (&json!("replacement"), &json!("8800000042"), &json!(16_000))
    );
    let text = |language: &str| cut.body["text"][language].as_str().unwrap().to_owned();
    assert!(text("en").contains("its balance waits") && text("en").contains("replace it in turn"), "{cut:?}");
    assert!(text("zh").contains("余额在等待") && text("zh").contains("再办一次换卡"), "{cut:?}");
    let moved = shop.done(&path(OLD, "replace"), replace(), "r-2").await;
    assert_eq!(moved["balance_after_fen"], 16_000);
    away(card).await;
    shop.close().await;
}

/// Killed while the new card is written: the balance is on its way, or there, and never twice.
#[tokio::test(flavor = "multi_thread")]
async fn killed_in_the_middle_of_a_replacement() {
    let mut shop = Shop::open(RULES).await;
    old_card(&shop).await;
    let card = shop.lay(blank_with_uid(Sim::Ntag215, 9)).await;
    shop.issue("8800000043", "i-2").await;
    let begun = card.writes();
    card.slow(Duration::from_millis(30));
    let client = shop.client.clone();
    let asked = tokio::spawn(async move {
        client.request_with_key(Method::POST, &path(OLD, "replace"), Some(&replace()), Some("r-1")).await
    });
    let deadline = std::time::Instant::now() + daemon::LONG;
    while card.writes() == begun {
        assert!(std::time::Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    shop.kill_and_restart().await;
    assert!(asked.await.unwrap().is_err(), "nobody answered");
    assert_eq!(status(&shop, OLD).await, "replaced");
    let mut chip = card.chip();
    chip.reset();
    drop(card);
    let card = shop.lay(chip).await;
    let there = shop.member().await["balance_fen"] == 16_000;
    let settled = shop.post(&path(OLD, "replace"), replace(), "r-1").await;
    assert_eq!(settled.status, if there { 200 } else { 409 }, "{settled:?}");
    if !there {
        shop.done(&path(OLD, "replace"), replace(), "r-2").await;
    }
    assert_eq!(shop.get(NEW).await.body["balance_fen"], 16_000);
    let again = shop.refused(&path(OLD, "replace"), replace(), "r-3").await;
    assert_eq!(again, (409, "not-fresh".into()));
    away(card).await;
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_card_is_given_back() {
    let shop = Shop::open(RULES).await;
    let (old, _) = old_card(&shop).await;
    let card = shop.lay(old).await;
    shop.member().await;
    let give_back = path(OLD, "return");
    let writes = card.writes();
    assert_eq!(shop.refused(&give_back, json!({ "tender": "purse" }), "g-0").await.0, 422);
    assert_eq!(card.writes(), writes);
    let paid = shop.done(&give_back, json!({ "tender": "cash" }), "g-1").await;
    assert_eq!(paid["tenders"], json!([{ "kind": "cash", "amount_fen": 15_000 }]), "{paid}");
    assert_eq!((&paid["principal_fen"], &paid["bonus_fen"]), (&json!(-15_000), &json!(-1_000)));
    assert_eq!((&paid["balance_after_fen"], &paid["status_after"]), (&json!(0), &json!("returned")));
    let writes = card.writes();
    assert_eq!(shop.done(&give_back, json!({ "tender": "cash" }), "g-1").await, paid, "a key acts once");
    assert_eq!(shop.refused(&give_back, json!({ "tender": "cash" }), "g-2").await, (409, "returned".into()));
    assert_eq!(shop.refused(&path(OLD, "transactions"), topup(100), "g-3").await, (409, "returned".into()));
    assert_eq!((card.writes(), status(&shop, OLD).await), (writes, "returned".into()));
    let chip = away(card).await;
    let card = shop.lay(chip).await;
    let answer = shop.get("/v1/readers/counter-1/card?wait=20").await;
    assert_eq!(answer.body["refused"]["reason"], "returned", "{answer:?}");
    // It does not come back by another one's taking its place.
    away(card).await;
    let card = shop.lay(blank_with_uid(Sim::Ntag215, 9)).await;
    shop.issue("8800000043", "i-2").await;
    assert_eq!(shop.refused(&path(OLD, "replace"), replace(), "r-1").await, (409, "card-returned".into()));
    away(card).await;
    let day = shop.get("/v1/stats").await;
    let cash =
        day.body["by_tender"].as_array().unwrap().iter().find(|tender| tender["tender"] == "cash").unwrap();
    assert_eq!(cash["amount_fen"], 5_000, "what came in less what went out: {cash}");
    let (facts, told) = shop.close().await;
    assert_eq!(facts.last().unwrap().amount_fen.0, -16_000);
    let dead = told.iter().filter(|(kind, data)| kind == "card.status" && data["status"] == "returned");
    assert_eq!(dead.count(), 1);
}

/// Where bonus goes first: what a top-up brought on top and was spent is not paid out in cash, not
/// by sending the principal on either, nor by another card.
#[tokio::test(flavor = "multi_thread")]
async fn reward_that_was_spent_comes_off_what_is_paid() {
    let shop = Shop::open(&RULES.replacen("[purse]\n", "[purse]\nspend_order = \"bonus-first\"\n", 1)).await;
    let card = shop.lay(blank(Sim::Ntag215)).await;
    shop.issue("8800000042", "i-1").await;
    let deals = path(OLD, "transactions");
    shop.done(&deals, topup(20_000), "t-1").await;
    shop.done(&deals, topup(5_000), "t-2").await;
    shop.done(&deals, json!({ "kind": "spend", "amount_fen": 1_000 }), "s-1").await;
    let old = away(card).await;
    let card = shop.lay(blank_with_uid(Sim::Ntag215, 9)).await;
    shop.issue("8800000043", "i-2").await;
    let new = away(card).await;
    let card = shop.lay(old).await;
    shop.member().await;
    let give = json!({ "kind": "transfer", "amount_fen": 100, "to_card_no": "8800000043" });
    assert_eq!(shop.refused(&deals, give, "g-1").await, (409, "not-enough-balance".into()));
    away(card).await;
    let card = shop.lay(new).await;
    shop.member().await;
    let wish = json!({ "new_card_no": "8800000043", "why": "defect" });
    assert_eq!(shop.done(&path(OLD, "replace"), wish, "r-1").await["principal_fen"], 25_000);
    let paid = shop.done(&path(NEW, "return"), json!({ "tender": "cash" }), "g-2").await;
    assert_eq!(paid["tenders"], json!([{ "kind": "cash", "amount_fen": 24_000 }]), "{paid}");
    assert_eq!(
        (&paid["principal_fen"], &paid["calculation"][1]["code"]),
        (&json!(-25_000), &json!("reward-taken-back"))
    );
    away(card).await;
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_validity_follows_the_rules_of_its_type() {
    let shop = Shop::open(RULES).await;
    let card = shop.lay(blank(Sim::Ntag215)).await;
    let body = json!({ "card_no": "8800000042", "type": "anonymous", "valid_until": "2090-12-31" });
    shop.done("/v1/cards", body, "i-1").await;
    let extend = path(OLD, "extend");
    let writes = card.writes();
    let soon = shop.refused(&extend, json!({ "valid_until": "2027-01-01" }), "e-0").await;
    assert_eq!(soon, (422, "validity-not-allowed".into()));
    assert_eq!(card.writes(), writes);
    let done = shop.done(&extend, json!({ "valid_until": "2099-12-31" }), "e-1").await;
    assert_eq!((&done["amount_fen"], &done["kind"]), (&json!(0), &json!("adjust")), "{done}");
    assert_eq!(done["validity"]["until"], "2099-12-31T15:59:59.999Z");
    assert_eq!(shop.get(OLD).await.body["valid_until"], "2099-12-31T15:59:59.999Z");
    let chip = away(card).await;
    let card = shop.lay(chip).await;
    assert_eq!(shop.member().await["valid_until"], "2099-12-31");
    shop.done(&extend, json!({}), "e-2").await;
    assert_eq!(shop.get(OLD).await.body["valid_until"], Value::Null);
    let chip = away(card).await;
    let card = shop.lay(chip).await;
    assert_eq!(shop.member().await["valid_until"], Value::Null);
    away(card).await;
    // A named card has no end, and is given none.
    let card = shop.lay(blank_with_uid(Sim::Ntag215, 9)).await;
    shop.issue("8800000043", "i-2").await;
    let named = shop.refused(&path(NEW, "extend"), json!({ "valid_until": "2099-12-31" }), "e-3").await;
    assert_eq!(named, (422, "validity-not-allowed".into()));
    away(card).await;
    shop.close().await;
}

/// Two taps; in between the money is neither here nor there, and goes on or back.
#[tokio::test(flavor = "multi_thread")]
async fn the_same_from_a_terminal() {
    let shop = Shop::open(RULES).await;
    let config = shop.desk.config();
    let run = async |args: &[&str]| {
        let mut command = daemon::program();
        command.arg("card").args(args).arg("--json").arg("--config").arg(&config).env_remove("BAYGATE_LOG");
        let done = command.output().await.unwrap();
        let said = String::from_utf8(done.stdout).unwrap();
        let told = String::from_utf8(done.stderr).unwrap();
        (done.status.code().unwrap(), serde_json::from_str::<Value>(&said).unwrap_or_default(), told)
    };
    let (old, _) = old_card(&shop).await;
    let card = shop.lay(old).await;
    shop.member().await;
    let (exit, _, told) = run(&["extend", "--valid-until", "2099-12-31"]).await;
    assert_eq!(exit, 4, "{told}");
    assert!(told.contains("validity-not-allowed"), "{told}");
    away(card).await;
    let card = shop.lay(blank_with_uid(Sim::Ntag215, 9)).await;
    let wish = ["replace", "8800000042", "--defect", "--issue", "8800000043", "--type", "named"];
    let (exit, moved, told) = run(&wish).await;
    assert_eq!((exit, &moved["balance_after_fen"]), (0, &json!(16_000)), "{told}");
    let (exit, _, told) = run(&["transfer", "--amount", "10", "--to", "4711"]).await;
    assert_eq!(exit, 4, "{told}");
    assert_eq!(run(&["transfer", "--amount", "10"]).await.0, 2);
    let (exit, paid, told) = run(&["return", "--tender", "wechat"]).await;
    assert_eq!((exit, &paid["tenders"][0]["amount_fen"]), (0, &json!(15_000)), "{told}");
    away(card).await;
    shop.close().await;
}
