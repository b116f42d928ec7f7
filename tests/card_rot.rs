//! Rows that have rotted under what a till asks about cards, over real HTTP: it is told what is left.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod ledger_rows;
mod served;

use baygate::clock::UtcMillis;
use baygate::event::card::CounterWord;
use baygate::event::ledger::CardType;
use baygate::store::counter_words::CounterWordsOp;
use baygate::store::{Batch, Op};
use ledger_rows::{card, done, tap, top_up};
use serde_json::{Value, json};
use served::Setup;
use served::people::{EVERYTHING, pair, person, shop};

/// Without a row that can be believed there is no sum, and the shift ends all the same.
#[tokio::test]
async fn a_rotten_row_keeps_no_shift_open() {
    let served = shop(Setup::new()).await;
    let till = pair(&served, "till-1", EVERYTHING).await;
    let li = person(&served, &till, "li.wei", "cashier").await;
    assert_eq!(served.post(&li, "/v1/shifts/open", &json!({})).await.status, 201);
    let mut card = card(1, CardType::Named);
    tap(&served.store, &card).await;
    done(&served.store, &mut card, &top_up(100)).await;
    let raw = rusqlite::Connection::open(served.dir.path().join("baygate.db")).unwrap();
    raw.execute(
        "UPDATE card_transaction SET fact = replace(fact, '\"amount_fen\":100', '\"amount_fen\":999')",
        [],
    )
    .unwrap();
    let closed = served.post(&li, "/v1/shifts/close", &json!({})).await;
    assert_eq!(closed.status, 200, "{closed:?}");
    assert_eq!(closed.json().get("totals"), None::<&Value>);
    served.stop().await;
}

/// What headquarters wants said is a greeting: without it the card is told all the same.
#[tokio::test]
async fn a_rotten_word_hides_no_card() {
    let served = Setup::new().serve().await;
    let token = served.token(&["read"]).await;
    let card = card(1, CardType::Named);
    tap(&served.store, &card).await;
    let word = CounterWord { level: Some("金卡".into()), ..CounterWord::default() };
    let words = CounterWordsOp { as_of: UtcMillis::now(), words: vec![(card.card_no.clone(), word)] };
    served.store.commit(Batch::new().op(Op::CounterWords(words))).await.unwrap();
    let path = format!("/v1/cards/{}", card.card_no);
    assert_eq!(served.get(&token, &path).await.json()["level"], "金卡");

    let raw = rusqlite::Connection::open(served.dir.path().join("baygate.db")).unwrap();
    assert_eq!(raw.execute("UPDATE counter_word SET word = CAST(x'7BFF' AS TEXT)", []).unwrap(), 1);
    let told = served.get(&token, &path).await;
    assert_eq!(told.status, 200, "{told:?}");
    let told = told.json();
    assert_eq!((&told["card_no"], told.get("level")), (&json!(card.card_no), None));
    assert!(served.dir.path().join("baygate.damaged").exists(), "the next start salvages");
    served.stop().await;
}
