//! The real program is killed while a card is given back, extended, gives principal or receives it:
//! at the first byte, in the middle, at the last. Started again, the card's next tap says what became
//! of it; the same key follows it; what was not done is asked again, and happens once.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod counter_shop;
#[path = "support/daemon.rs"]
mod daemon;
#[path = "support/port.rs"]
mod port;

use std::time::{Duration, Instant};

use baygate::api::client::{Answer, Method};
use baygate::sim::card::{CardSim, Chip, Technology as Sim};
use counter_shop::{Shop, blank_with_uid};
use serde_json::{Value, json};

/// Until the last day of 2090: an anonymous card.
const FIRST_DAY: &str = "2090-12-31";

fn of(card_no: &str) -> String {
    format!("/v1/cards/{card_no}")
}

fn path(card_no: &str, what: &str) -> String {
    format!("/v1/cards/{card_no}/{what}")
}

async fn away(card: CardSim) -> Chip {
    let mut chip = card.chip();
    chip.reset();
    card.remove().await;
    chip
}

/// A card with money, and how many writes it took to put it there.
async fn card_with(shop: &Shop, card_no: &str, uid: u8, fen: i64) -> (Chip, usize) {
    let card = shop.lay(blank_with_uid(Sim::Ntag215, uid)).await;
    let wish = json!({ "card_no": card_no, "type": "anonymous", "valid_until": FIRST_DAY });
    shop.done("/v1/cards", wish, &format!("i-{card_no}")).await;
    let begun = card.writes();
    let topup =
        json!({ "kind": "topup", "amount_fen": fen, "tenders": [{ "kind": "cash", "amount_fen": fen }] });
    shop.done(&path(card_no, "transactions"), topup, &format!("t-{card_no}")).await;
    let writes = card.writes() - begun;
    (away(card).await, writes)
}

/// What lies on the reader was told.
async fn told(shop: &Shop) -> Value {
    let answer = shop.get("/v1/readers/counter-1/card?wait=20").await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.body
}

/// Asked with the card on the reader, killed at the n-th write; started again, and the card tapped.
/// The card, which still lies there, and what the same key is told.
async fn killed(
    shop: &mut Shop,
    chip: Chip,
    writes: usize,
    (to, wish, key): (&str, &Value, &str),
) -> (CardSim, Answer) {
    let card = shop.lay(chip).await;
    told(shop).await;
    let begun = card.writes();
    card.slow(Duration::from_millis(30));
    let (client, path, body, same) = (shop.client.clone(), to.to_owned(), wish.clone(), key.to_owned());
    let asked =
        tokio::spawn(
            async move { client.request_with_key(Method::POST, &path, Some(&body), Some(&same)).await },
        );
    let deadline = Instant::now() + daemon::LONG;
    while card.writes() < begun + writes {
        assert!(Instant::now() < deadline && !asked.is_finished(), "{to}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    shop.kill_and_restart().await;
    assert!(asked.await.unwrap().is_err(), "nobody answered");
    let mut chip = card.chip();
    chip.reset();
    drop(card);
    let card = shop.lay(chip).await;
    told(shop).await;
    let answer = shop.post(to, wish.clone(), key).await;
    assert!([200, 409].contains(&answer.status), "{answer:?}");
    (card, answer)
}

/// The first write, one in the middle, the last.
fn places(writes: usize) -> [usize; 3] {
    assert!(writes > 4, "{writes}");
    [1, writes / 2, writes]
}

/// Both ends were seen: not done, and done.
fn both(ends: &[bool]) {
    assert!(ends.contains(&true) && ends.contains(&false), "{ends:?}");
}

/// What was told, of one kind, committed, by card number.
fn committed<'t>(told: &'t [(String, Value)], kind: &str) -> Vec<&'t Value> {
    let of = told.iter().filter(|(sort, data)| {
        sort == "card.transaction" && data["kind"] == kind && data["outcome"] == "committed"
    });
    of.map(|(_, data)| data).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_while_a_card_is_given_back() {
    let mut shop = Shop::open("").await;
    let wish = json!({ "tender": "cash" });
    let mut ends = Vec::new();
    let writes = card_with(&shop, "8800000049", 9, 100).await.1;
    for (n, at) in (1_u8..).zip(places(writes)) {
        let card_no = format!("880000004{n}");
        let chip = card_with(&shop, &card_no, n, 5_000).await.0;
        let to = path(&card_no, "return");
        let (card, answer) = killed(&mut shop, chip, at, (&to, &wish, &format!("g-{n}"))).await;
        ends.push(answer.status == 200);
        if answer.status == 409 {
            assert_eq!(shop.get(&of(&card_no)).await.body["principal_fen"], 5_000);
            shop.done(&to, wish.clone(), &format!("h-{n}")).await;
        }
        let known = shop.get(&of(&card_no)).await.body;
        assert_eq!((&known["status"], &known["balance_fen"]), (&json!("returned"), &json!(0)), "{known}");
        let again = shop.refused(&to, wish.clone(), &format!("j-{n}")).await;
        assert_eq!(again, (409, "returned".into()));
        away(card).await;
    }
    both(&ends);
    let stats = shop.get("/v1/stats").await.body;
    let refunds = &stats["total"]["refund"];
    assert_eq!((&refunds["count"], &refunds["tenders"]["cash"]), (&json!(3), &json!(-15_000)), "{stats}");
    let (_, told) = shop.close().await;
    let dead = told.iter().filter(|(kind, data)| kind == "card.status" && data["status"] == "returned");
    assert_eq!((committed(&told, "refund").len(), dead.count()), (3, 3));
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_while_a_card_is_extended() {
    let mut shop = Shop::open("").await;
    let (mut chip, writes) = card_with(&shop, "8800000042", 1, 5_000).await;
    let (to, mut ends) = (path("8800000042", "extend"), Vec::new());
    for (n, at) in (1_u8..).zip(places(writes)) {
        let day = format!("209{n}-12-31");
        let wish = json!({ "valid_until": day });
        let (card, answer) = killed(&mut shop, chip, at, (&to, &wish, &format!("e-{n}"))).await;
        ends.push(answer.status == 200);
        let shows = told(&shop).await["member"].clone();
        assert_eq!(shows["valid_until"] == json!(day), answer.status == 200, "{shows}");
        if answer.status == 409 {
            shop.done(&to, wish, &format!("f-{n}")).await;
        }
        chip = away(card).await;
        let card = shop.lay(chip).await;
        let shows = told(&shop).await["member"].clone();
        assert_eq!((&shows["valid_until"], &shows["balance_fen"]), (&json!(day), &json!(5_000)), "{shows}");
        assert_eq!(shows["counter"], 1 + u64::from(n), "once each");
        chip = away(card).await;
    }
    both(&ends);
    let (facts, told) = shop.close().await;
    assert_eq!(committed(&told, "adjust").len(), 3);
    assert_eq!(facts.iter().map(|fact| fact.amount_fen.0).sum::<i64>(), 5_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_while_principal_goes_from_card_to_card() {
    const GIVES: &str = "8800000042";
    const TAKES: &str = "8800000043";
    let mut shop = Shop::open("").await;
    let (mut gives, writes) = card_with(&shop, GIVES, 1, 5_000).await;
    let mut takes = card_with(&shop, TAKES, 2, 100).await.0;
    let (from, to) = (path(GIVES, "transactions"), path(TAKES, "transactions"));
    let (mut given, mut taken) = (Vec::new(), Vec::new());
    for (n, at) in (1_i64..).zip(places(writes)) {
        let wish = json!({ "kind": "transfer", "amount_fen": 700, "to_card_no": TAKES });
        let (card, mut answer) = killed(&mut shop, gives, at, (&from, &wish, &format!("g-{n}"))).await;
        given.push(answer.status == 200);
        let due = shop.get(&of(TAKES)).await.body["transfers_due"].clone();
        assert_eq!(due.as_array().map_or(0, Vec::len), usize::from(answer.status == 200), "{due}");
        if answer.status == 409 {
            answer.body = shop.done(&from, wish, &format!("h-{n}")).await;
        }
        gives = away(card).await;
        let wish = json!({ "kind": "transfer", "original_transaction_id": answer.body["transaction_id"] });
        let (card, answer) = killed(&mut shop, takes, at, (&to, &wish, &format!("t-{n}"))).await;
        taken.push(answer.status == 200);
        if answer.status == 409 {
            let due = shop.get(&of(TAKES)).await.body["transfers_due"].clone();
            assert_eq!(due[0]["amount_fen"], 700, "it waits: {due}");
            shop.done(&to, wish.clone(), &format!("u-{n}")).await;
        }
        let twice = shop.refused(&to, wish, &format!("v-{n}")).await;
        assert_eq!(twice, (422, "transfer-not-allowed".into()));
        takes = away(card).await;
        for (card_no, fen) in [(GIVES, 5_000 - 700 * n), (TAKES, 100 + 700 * n)] {
            let known = shop.get(&of(card_no)).await.body;
            assert_eq!((&known["balance_fen"], known.get("transfers_due")), (&json!(fen), None), "{known}");
        }
    }
    both(&given);
    both(&taken);
    let (_, told) = shop.close().await;
    let moved = committed(&told, "transfer");
    assert_eq!(moved.len(), 6);
    assert_eq!(moved.iter().map(|fact| fact["amount_fen"].as_i64().unwrap()).sum::<i64>(), 0);
}
