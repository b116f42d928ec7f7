//! The money at the end: of every card what it holds, what the till was told, the journal and
//! what headquarters has must be the same, fen by fen.

use std::collections::{BTreeMap, BTreeSet};

use baygate::api::client::Method;
use serde_json::Value;

use super::callers::ask;
use super::judge::Logged;
use super::till::{Deed, Member};
use super::{Shop, Showroom};

/// Principal, bonus, points, and how many deeds: the card's counter.
type Sum = (i64, i64, i64, u64);

fn sum<'f>(facts: impl IntoIterator<Item = &'f Value>) -> Sum {
    let number = |fact: &Value, name: &str| fact[name].as_i64().unwrap();
    facts.into_iter().fold((0, 0, 0, 0), |(principal, bonus, points, count), fact| {
        (
            principal + number(fact, "principal_fen"),
            bonus + number(fact, "bonus_fen"),
            points + number(fact, "points"),
            count + 1,
        )
    })
}

/// `told`: the log, when it is proven that headquarters has it byte for byte.
pub async fn assert_the_money_adds_up(room: &Showroom, told: &[Logged]) {
    let deeds = room.shop.answers.till.done();
    let ledger = ledger(told);
    let of_the_ledger: BTreeSet<&str> = ledger.iter().map(|fact| text(fact, "idempotency_key")).collect();
    let done: BTreeSet<&str> =
        deeds.iter().filter(|deed| deed.status == 200).map(|deed| deed.key.as_str()).collect();
    assert_eq!(of_the_ledger.len(), ledger.len(), "a key acted twice: {ledger:?}");
    assert_eq!(of_the_ledger, done, "what headquarters counts, and what the till was told");
    let members = room.shop.answers.till.members.lock().unwrap().clone();
    for Member { card_no, shows } in &members {
        let card = sum([shows]);
        let card = (card.0, card.1, card.2, shows["counter"].as_u64().unwrap());
        let mine = |fact: &&Value| fact["card_no"] == card_no.as_str();
        let counters: Vec<u64> =
            ledger.iter().filter(mine).map(|fact| fact["counter"].as_u64().unwrap()).collect();
        assert_eq!(counters, (1..=card.3).collect::<Vec<_>>(), "card {card_no}: each counter once, in order");
        assert_eq!(sum(ledger.iter().filter(mine)), card, "card {card_no}: headquarters, and the card");
        let answers = deeds.iter().filter(|deed| deed.status == 200).map(|deed| &deed.answer);
        assert_eq!(sum(answers.filter(mine)), card, "card {card_no}: the till, and the card");
        let journal = journal(&room.shop, card_no).await;
        assert_eq!(sum(&journal), card, "card {card_no}: the journal, and the card");
        let record =
            ask(&room.shop.socket, Method::GET, &format!("/v1/cards/{card_no}"), None, None).await.body;
        assert_eq!(record["unsettled"], Value::Array(Vec::new()), "{record}");
        assert_eq!(record["balance_fen"], card.0 + card.1, "{record}");
    }
    let given_out = |event: &&Logged| event.kind == "card.issued";
    let mut issued: Vec<&str> =
        told.iter().filter(given_out).map(|event| text(&event.data, "card_no")).collect();
    let mut known: Vec<&str> = members.iter().map(|member| member.card_no.as_str()).collect();
    issued.sort_unstable();
    known.sort_unstable();
    assert_eq!(issued, known, "each card was given out once");
}

fn text<'d>(data: &'d Value, name: &str) -> &'d str {
    data[name].as_str().unwrap()
}

/// What was committed, in order. Each transaction ends once: at once, or after it was `unknown`.
fn ledger(told: &[Logged]) -> Vec<Value> {
    let mut stories: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let facts: Vec<&Value> =
        told.iter().filter(|event| event.kind == "card.transaction").map(|event| &event.data).collect();
    for fact in &facts {
        stories.entry(text(fact, "transaction_id")).or_default().push(text(fact, "outcome"));
    }
    for (id, story) in stories {
        let end = match story[..] {
            ["unknown", end] | [end] => end,
            _ => panic!("transaction {id}: {story:?}"),
        };
        assert!(matches!(end, "committed" | "aborted"), "transaction {id}: {story:?}");
    }
    facts.into_iter().filter(|fact| fact["outcome"] == "committed").cloned().collect()
}

/// A card's committed transactions, as the gateway's own journal has them.
async fn journal(shop: &Shop, card_no: &str) -> Vec<Value> {
    let mut rows = Vec::new();
    let mut page = String::new();
    loop {
        let path = format!("/v1/cards/{card_no}/transactions?limit=200{page}");
        let answer = ask(&shop.socket, Method::GET, &path, None, None).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        rows.extend(answer.body["transactions"].as_array().unwrap().iter().cloned());
        let Some(next) = answer.body["next"].as_i64() else { break };
        page = format!("&before={next}");
    }
    for row in &rows {
        assert!(matches!(text(row, "state"), "committed" | "aborted"), "{row}");
    }
    rows.retain(|row| row["state"] == "committed");
    rows
}

/// The same key gives the same answer, also when no card lies there any more.
pub async fn assert_same_deed(shop: &Shop, earlier: &Deed) {
    let Deed { key, path, body, status, answer } = earlier;
    let again = ask(&shop.socket, Method::POST, path, Some(body), Some(key)).await;
    if (again.status, &again.body) != (*status, answer) {
        shop.answers.odd(format!("deed {earlier:?}, and then {again:?}"));
    }
}
