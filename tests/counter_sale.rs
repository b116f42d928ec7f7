//! Money on a card, through the real program: a card is issued, topped up, quoted, charged,
//! refunded and a transaction undone; card, journal and outbox agree; a key acts once, also
//! when the program was killed; a card that was pulled tells at its next tap.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod counter_shop;
#[path = "support/daemon.rs"]
mod daemon;
#[path = "support/port.rs"]
mod port;

use baygate::event::ledger::{CardTransaction, Outcome};
use baygate::sim::card::{CardFault, CardSim, Technology as Sim};
use counter_shop::{Shop, blank, blank_with_uid};
use serde_json::{Value, json};

const RULES: &str = "[purse]\n[[purse.reward]]\nfrom_fen = 10000\nbonus_fen = 1000\n\
    [[purse.class]]\nclass = 2\nname = { zh = \"金卡\", en = \"Gold\" }\nlabour_off_per_mille = 100\n\
    [[purse.coupon]]\nid = 7\nname = { zh = \"保养券\", en = \"Service\" }\noff_fen = 500\n";
const CARD: &str = "/v1/cards/8800000042/transactions";

fn topup(fen: i64) -> Value {
    json!({ "kind": "topup", "amount_fen": fen, "tenders": [{ "kind": "cash", "amount_fen": fen }] })
}

/// What all committed transactions together leave on a card that began empty.
fn sum(facts: &[CardTransaction]) -> (i64, i64, i64, u64) {
    let committed = || facts.iter().filter(|fact| fact.outcome == Outcome::Committed);
    (
        committed().map(|fact| fact.principal_fen.0).sum(),
        committed().map(|fact| fact.bonus_fen.0).sum(),
        committed().map(|fact| fact.points).sum(),
        committed().count() as u64,
    )
}

fn shown(member: &Value) -> (i64, i64, i64, u64) {
    let number = |name: &str| member[name].as_i64().unwrap();
    (number("principal_fen"), number("bonus_fen"), number("points"), member["counter"].as_u64().unwrap())
}

/// Journal, outbox and card say the same.
fn agree(facts: &[CardTransaction], told: &[(String, Value)], member: &Value) {
    assert_eq!(sum(facts), shown(member), "the card is the sum of its journal");
    let mut last: Vec<(Value, Value)> = Vec::new();
    for (kind, data) in told.iter().filter(|(kind, _)| kind == "card.transaction") {
        assert_eq!(kind, "card.transaction");
        last.retain(|(id, _)| *id != data["transaction_id"]);
        last.push((data["transaction_id"].clone(), data.clone()));
    }
    let mut journal: Vec<(Value, Value)> =
        facts.iter().map(|fact| (json!(fact.transaction_id), json!(fact))).collect();
    for (_, fact) in journal.iter_mut().chain(&mut last) {
        fact.as_object_mut().unwrap().remove("settles");
    }
    let by_id = |a: &(Value, Value), b: &(Value, Value)| a.0.as_str().cmp(&b.0.as_str());
    journal.sort_by(by_id);
    last.sort_by(by_id);
    assert_eq!(journal, last, "headquarters is told what the journal holds");
}

async fn whole_story(sim: Sim) {
    let shop = Shop::open(RULES).await;
    let card = shop.lay(blank(sim)).await;
    let body = json!({ "card_no": "8800000042", "type": "named", "discount_class": 2, "tier": 3 });
    let issued = shop.done("/v1/cards", body.clone(), "issue-1").await;
    assert_eq!((&issued["card_no"], &issued["type"]), (&json!("8800000042"), &json!("named")), "{issued}");
    // Asked again: the same answer, and the card is written no more.
    let writes = card.writes();
    assert_eq!(shop.done("/v1/cards", body, "issue-1").await, issued);
    let other = json!({ "card_no": "8800000043", "type": "named" });
    assert_eq!(
        shop.refused("/v1/cards", other.clone(), "issue-1").await,
        (422, "idempotency-key-reused".into())
    );
    assert_eq!(shop.refused("/v1/cards", other, "issue-2").await, (409, "already-issued".into()));
    assert_eq!(card.writes(), writes);

    let topped = shop.done(CARD, topup(20_000), "t-1").await;
    assert_eq!((&topped["outcome"], &topped["balance_after_fen"]), (&json!("committed"), &json!(21_000)));
    assert_eq!((&topped["counter"], &topped["idempotency_key"]), (&json!(1), &json!("t-1")));
    assert_eq!(shop.done(CARD, topup(20_000), "t-1").await, topped, "a key acts once");
    assert_eq!(shop.refused(CARD, topup(20_001), "t-1").await, (422, "idempotency-key-reused".into()));

    // Ten per cent off labour; points on what is paid.
    let items = json!([
        { "sku": "oil-change", "category": "labour", "quantity": 1, "price_fen": 5_000 },
        { "sku": "filter", "category": "parts", "quantity": 2, "price_fen": 1_000 },
    ]);
    let wanted = json!({ "items": items, "order": "A-17" });
    let writes = card.writes();
    let quote =
        shop.client.request(baygate::api::client::Method::POST, "/v1/cards/8800000042/quotes", Some(&wanted));
    let quote = quote.await.unwrap().accepted().unwrap();
    assert_eq!((&quote["due_fen"], &quote["discount_fen"]), (&json!(6_500), &json!(500)), "{quote}");
    let amounts = |lines: &Value| -> Vec<i64> {
        lines.as_array().unwrap().iter().map(|line| line["amount_fen"].as_i64().unwrap()).collect()
    };
    assert_eq!(amounts(&quote["lines"]), [5_000, 2_000, -500, -6_500], "to pay, and paid: {quote}");
    assert_eq!(quote["lines"][3]["code"], "pay-principal");
    assert_eq!(card.writes(), writes, "a quote writes nothing");
    let others = json!([{ "kind": "cash", "amount_fen": 6_500 }]);
    let otherwise = json!({ "quote_id": quote["quote_id"], "tenders": others });
    assert_eq!(shop.refused(CARD, otherwise, "s-0").await, (422, "request-invalid".into()));
    // Its own may be sent back.
    let agreed = json!({ "quote_id": quote["quote_id"], "tenders": quote["tenders"] });
    let spent = shop.done(CARD, agreed, "s-1").await;
    assert_eq!(spent["calculation"], quote["lines"], "headquarters sees what the customer saw");
    assert_eq!(
        (&spent["amount_fen"], &spent["points"], &spent["order"]),
        (&json!(-6_500), &json!(65), &json!("A-17")),
        "{spent}"
    );
    // A quote is good for one sale: the card has moved on.
    let again = json!({ "quote_id": quote["quote_id"] });
    assert_eq!(shop.refused(CARD, again, "s-2").await, (409, "quote-changed".into()));

    let refund = |fen: i64| json!({ "kind": "refund", "amount_fen": fen, "original_transaction_id": spent["transaction_id"] });
    shop.done(CARD, refund(1_500), "r-1").await;
    assert_eq!(shop.refused(CARD, refund(5_001), "r-2").await, (422, "refund-over-original".into()));
    shop.done(CARD, refund(5_000), "r-3").await;
    let earned = shop.done(CARD, json!({ "kind": "earn", "points": 40 }), "e-1").await;
    let void = json!({ "kind": "void", "original_transaction_id": earned["transaction_id"] });
    shop.done(CARD, void.clone(), "v-1").await;
    assert_eq!(shop.refused(CARD, void, "v-2").await, (409, "not-refundable".into()));
    shop.done(CARD, json!({ "kind": "coupon", "coupon": 7 }), "c-1").await;
    let mut with_coupon = json!({ "kind": "spend", "amount_fen": 800, "coupon": 7 });
    let quotes = "/v1/cards/8800000042/quotes";
    let quote = shop.done(quotes, with_coupon.clone(), "q-3").await;
    let tenders = json!([{ "kind": "coupon", "amount_fen": 500 }, { "kind": "purse", "amount_fen": 300 }]);
    assert_eq!(quote["tenders"], tenders);
    // As they are, also without the quote's id.
    with_coupon["tenders"] = tenders;
    let spent = shop.done(CARD, with_coupon, "s-3").await;
    assert_eq!(amounts(&spent["calculation"]), [800, -500, -300], "{spent}");
    assert_eq!(spent["amount_fen"], -300, "{spent}");
    shop.done(CARD, json!({ "kind": "earn", "points": 50 }), "e-2").await;
    shop.done(CARD, json!({ "kind": "redeem", "points": 20 }), "x-1").await;
    let too_much = json!({ "kind": "spend", "amount_fen": 30_000 });
    assert_eq!(shop.refused(CARD, too_much, "s-4").await, (409, "not-enough-balance".into()));
    let elsewhere = "/v1/cards/8800000077/transactions";
    assert_eq!(shop.refused(elsewhere, topup(100), "w-1").await, (409, "wrong-card".into()));

    // Looked up by its id and by its key.
    let id = topped["transaction_id"].as_str().unwrap();
    assert_eq!(shop.get(&format!("/v1/transactions/{id}")).await.body, topped);
    assert_eq!(shop.get("/v1/transactions?idempotency_key=t-1").await.body, topped);
    assert_eq!(shop.get("/v1/transactions?idempotency_key=nobody").await.status, 404);

    let chip = card.chip();
    card.remove().await;
    let without = json!({ "kind": "earn", "points": 1, "wait_s": 1 });
    assert_eq!(shop.refused(CARD, without, "n-1").await, (409, "no-card".into()));
    let card = shop.lay(chip).await;
    let member = shop.member().await;
    assert_eq!(shown(&member), (19_700, 1_000, 33, 10), "{member}");
    card.remove().await;
    let (facts, told) = shop.close().await;
    agree(&facts, &told, &member);
    let issued: Vec<&Value> =
        told.iter().filter(|(kind, _)| kind == "card.issued").map(|(_, data)| data).collect();
    assert_eq!(issued.len(), 1);
    assert_eq!((&issued[0]["operator"], &issued[0]["tier"]), (&json!("control"), &json!("3")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ntag_is_issued_charged_and_refunded() {
    whole_story(Sim::Ntag215).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_classic_is_issued_charged_and_refunded() {
    whole_story(Sim::Classic1k).await;
}

/// A card that leaves in the middle of a write: nobody knows, and the next tap tells.
#[tokio::test(flavor = "multi_thread")]
async fn a_pulled_card_tells_at_its_next_tap() {
    let mut shop = Shop::open(RULES).await;
    let card = shop.lay(blank(Sim::Ntag215)).await;
    shop.issue("8800000042", "i").await;
    let before = card.apdus().len();
    shop.done(CARD, topup(5_000), "t-0").await;
    let (whole, commands) = (card.apdus(), card.apdus().len() - before);
    let first_write = whole[before..].iter().position(|apdu| apdu[1] == 0xD6).unwrap();
    let mut chip = card.chip();
    card.remove().await;
    // Cut in the first page, and after the last, with the program killed before the next tap.
    for (n, (at, killed)) in
        [(first_write, false), (commands - 1, false), (first_write + 3, true)].into_iter().enumerate()
    {
        let (key, fen) = (format!("t-{}", n + 1), 100 + i64::try_from(n).unwrap());
        let card = shop.lay(chip).await;
        let balance = shop.member().await["balance_fen"].as_i64().unwrap();
        card.fault_after(at, CardFault::Pull);
        let answer = shop.post(CARD, topup(fen), &key).await;
        assert_eq!((answer.status, &answer.body["code"]), (202, &json!("tap-again")), "{answer:?}");
        assert_eq!(answer.body["text"]["zh"], "请勿重复扣款，请重新刷卡。");
        let asked = shop.get(&answer.location.unwrap()).await;
        assert_eq!((asked.status, &asked.body["code"]), (202, &json!("tap-again")));
        chip = card.chip();
        chip.reset();
        drop(card);
        if killed {
            shop.kill_and_restart().await;
            assert_eq!(shop.post(CARD, topup(fen), &key).await.status, 202, "the key goes on after a kill");
        }
        let card = shop.lay(chip).await;
        let after = shop.member().await["balance_fen"].as_i64().unwrap();
        let settled = shop.post(CARD, topup(fen), &key).await;
        let on_card = at == commands - 1;
        assert_eq!(after - balance, if on_card { fen } else { 0 }, "cut at {at}");
        assert_eq!(settled.status, if on_card { 200 } else { 409 }, "{settled:?}");
        assert_eq!(settled.body["code"] == "not-written", !on_card, "{settled:?}");
        chip = card.chip();
        card.remove().await;
    }
    let card = shop.lay(chip).await;
    let member = shop.member().await;
    card.remove().await;
    let (facts, told) = shop.close().await;
    agree(&facts, &told, &member);
    let unknown = told.iter().filter(|(_, data)| data["outcome"] == "unknown").count();
    let settles = told.iter().filter(|(_, data)| data["settles"] == true).count();
    assert_eq!((unknown, settles), (3, 3));
}

/// Killed between the intent and the outcome, while the card is being written.
#[tokio::test(flavor = "multi_thread")]
async fn killed_in_the_middle_of_a_write() {
    let mut shop = Shop::open(RULES).await;
    let card = shop.lay(blank(Sim::Classic1k)).await;
    shop.issue("8800000042", "i").await;
    shop.done(CARD, topup(5_000), "t-0").await;
    let begun = card.writes();
    card.slow(std::time::Duration::from_millis(30));
    let client = shop.client.clone();
    let asked = tokio::spawn(async move {
        let body = json!({ "kind": "spend", "amount_fen": 700 });
        client.request_with_key(baygate::api::client::Method::POST, CARD, Some(&body), Some("s-1")).await
    });
    let deadline = std::time::Instant::now() + daemon::LONG;
    while card.writes() == begun {
        assert!(std::time::Instant::now() < deadline);
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
    shop.kill_and_restart().await;
    assert!(asked.await.unwrap().is_err(), "nobody answered");
    let mut chip = card.chip();
    chip.reset();
    let card = shop.lay(chip).await;
    let member = shop.member().await;
    let body = json!({ "kind": "spend", "amount_fen": 700 });
    let settled = shop.post(CARD, body.clone(), "s-1").await;
    let (spent, status) = if member["balance_fen"] == 5_000 { (0, 409) } else { (700, 200) };
    assert_eq!(
        (member["balance_fen"].as_i64().unwrap(), settled.status),
        (5_000 - spent, status),
        "{settled:?}"
    );
    // Asked anew it acts, once.
    shop.done(CARD, body.clone(), "s-2").await;
    let writes = card.writes();
    shop.done(CARD, body, "s-2").await;
    assert_eq!(card.writes(), writes);
    card.remove().await;
    let (facts, told) = shop.close().await;
    assert_eq!(sum(&facts).0, 5_000 - spent - 700);
    assert!(told.iter().any(|(kind, _)| kind == "card.transaction"));
}

/// While card writes of the gateway are held, no card is written, whatever is asked.
#[tokio::test(flavor = "multi_thread")]
async fn held_writes_are_refused() {
    let mut shop = Shop::open(RULES).await;
    let card = shop.lay(blank(Sim::Ntag215)).await;
    shop.issue("8800000042", "i").await;
    shop.done(CARD, topup(5_000), "t").await;
    let mut chip = card.chip();
    chip.reset();
    drop(card);
    shop.daemon.take().unwrap().kill().await;
    let file = shop.desk.path("data").join("baygate.db");
    let database = rusqlite::Connection::open(file).unwrap();
    database.execute("INSERT INTO meta (key, value) VALUES ('card_writes_held', '0 restored')", []).unwrap();
    drop(database);
    shop.start_again().await;
    let card = shop.lay(chip).await;
    shop.member().await;
    for (n, kind) in ["topup", "spend", "earn"].into_iter().enumerate() {
        let body = json!({
            "kind": kind, "amount_fen": 100, "points": if kind == "earn" { 1 } else { 0 },
            "tenders": if kind == "topup" { json!([{ "kind": "cash", "amount_fen": 100 }]) } else { json!([]) },
        });
        let refused = shop.refused(CARD, body, &format!("h-{n}")).await;
        assert_eq!(refused, (409, "card-writes-held".into()), "{kind}");
    }
    assert_eq!(card.writes(), 0);
    card.remove().await;
    let card = shop.lay(blank_with_uid(Sim::Ntag215, 9)).await;
    let new = json!({ "card_no": "8800000043", "type": "named" });
    assert_eq!(shop.refused("/v1/cards", new, "h-9").await, (409, "card-writes-held".into()));
    assert_eq!(card.writes(), 0);
}

/// Without headquarters a sale above a limit is refused: of one transaction, of one card and of all
/// such cards on a business day. Nothing is written, to card or ledger.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_above_an_offline_limit_is_refused_before_anything_is_written() {
    let limits = "[[purse.limit]]\ntechnologies = [\"ntag215\"]\n\
        per_transaction_fen = 300\nper_card_fen = 500\nper_day_fen = 700\n";
    let shop = Shop::open(&format!("{RULES}{limits}")).await;
    let spend = |fen: i64| json!({ "kind": "spend", "amount_fen": fen });
    // (card, its technology, fen, why not)
    let cases = [
        (42, Sim::Ntag215, 301, Some("offline-transaction-limit")),
        (42, Sim::Ntag215, 300, None),
        (42, Sim::Ntag215, 201, Some("offline-card-limit")),
        (42, Sim::Ntag215, 200, None),
        (42, Sim::Ntag215, 1, Some("offline-card-limit")),
        (43, Sim::Ntag215, 201, Some("offline-day-limit")),
        (43, Sim::Ntag215, 200, None),
        (43, Sim::Ntag215, 1, Some("offline-day-limit")),
        // The built-in limits are for each other technology.
        (44, Sim::Classic1k, 50_001, Some("offline-transaction-limit")),
        (44, Sim::Classic1k, 50_000, None),
        (44, Sim::Classic1k, 50_000, None),
        (44, Sim::Classic1k, 1, Some("offline-card-limit")),
    ];
    let mut lies: Option<(u8, CardSim)> = None;
    for (n, (last, sim, fen, why)) in cases.into_iter().enumerate() {
        let path = format!("/v1/cards/88000000{last}/transactions");
        if lies.as_ref().is_none_or(|(there, _)| *there != last) {
            if let Some((_, card)) = lies.take() {
                card.remove().await;
            }
            lies = Some((last, shop.lay(blank_with_uid(sim, last)).await));
            shop.issue(&format!("88000000{last}"), &format!("i-{last}")).await;
            shop.done(&path, topup(200_000), &format!("t-{last}")).await;
        }
        let (_, card) = lies.as_ref().unwrap();
        let (writes, key) = (card.writes(), format!("s-{n}"));
        match why {
            None => drop(shop.done(&path, spend(fen), &key).await),
            Some(why) => {
                assert_eq!(shop.refused(&path, spend(fen), &key).await, (409, why.into()), "case {n}");
                assert_eq!(card.writes(), writes, "case {n}: nothing is written");
            }
        }
    }
    if let Some((_, card)) = lies.take() {
        card.remove().await;
    }
    let (facts, told) = shop.close().await;
    let sales = |data: &&(String, Value)| data.1["kind"] == "spend";
    assert_eq!(told.iter().filter(sales).count(), 5, "what was refused is in no ledger");
    assert!(told.iter().filter(sales).all(|(_, data)| data["offline"] == true));
    assert_eq!(facts.len(), 3, "a top-up and two sales");
}

/// The commands of `baygate card`, with their exit statuses.
#[tokio::test(flavor = "multi_thread")]
async fn the_same_from_a_terminal() {
    let shop = Shop::open(RULES).await;
    let run = async |args: &[&str]| shop.terminal(args).await;
    let (exit, _, told) = run(&["read", "--wait", "1"]).await;
    assert_eq!(exit, 3, "{told}");
    let card = shop.lay(blank(Sim::Classic1k)).await;
    let (exit, issued, told) = run(&["issue", "8800000042", "--type", "named"]).await;
    assert_eq!((exit, &issued["card_no"]), (0, &json!("8800000042")), "{told}");
    let (exit, topped, told) = run(&["top-up", "--amount", "200.50", "--tender", "cash"]).await;
    assert_eq!((exit, &topped["principal_fen"]), (0, &json!(20_050)), "{told}");
    let (exit, read, _) = run(&["read"]).await;
    assert_eq!(
        (exit, &read["member"]["principal_fen"], &read["member"]["counter"]),
        (0, &json!(20_050), &json!(1))
    );
    let sale = ["--item", "oil:parts:2:45.00", "--tender", "cash=40", "--tender", "purse=50"];
    let (exit, quote, told) = run(&[&["quote"], &sale[..]].concat()).await;
    assert_eq!((exit, &quote["due_fen"]), (0, &json!(9_000)), "{told}");
    let id = quote["quote_id"].as_str().unwrap();
    let (exit, spent, told) = run(&["spend", "--quote", id, "--idempotency-key", "k"]).await;
    assert_eq!((exit, &spent["amount_fen"]), (0, &json!(-5_000)), "{told}");
    let (_, again, _) = run(&["spend", "--quote", id, "--idempotency-key", "k"]).await;
    assert_eq!(again, spent);
    let id = spent["transaction_id"].as_str().unwrap();
    let (exit, back, told) = run(&["refund", id, "--amount", "10"]).await;
    assert_eq!((exit, &back["amount_fen"]), (0, &json!(1_000)), "{told}");
    let (exit, _, told) = run(&["void", id]).await;
    assert_eq!(exit, 4, "{told}");
    assert!(told.contains("refunded-already"), "{told}");
    let (exit, _, told) = run(&["spend", "--amount", "1000"]).await;
    assert_eq!(exit, 4, "{told}");
    assert_eq!(run(&["spend", "--amount", "1,5"]).await.0, 2);
    card.remove().await;
    shop.close().await;
}
