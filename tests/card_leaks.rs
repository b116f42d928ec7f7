//! No key, PIN or code to be found: cards of each way to log in are issued, topped up, charged, paid
//! back and moved to newer keys by the real program, with PINs right and wrong of cards and of people,
//! and a `kill -9` in the middle of it. Then its log at every level, its files, what it answered, streamed
//! and sent to the broker are searched for every secret that took part.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "support/daemon.rs"]
mod daemon;
mod leak_shop;
mod mqtt;
#[path = "support/secrets.rs"]
mod secrets;

use baygate::sim::card::{CardProfile, Chip, Technology as Sim};
use leak_shop::{CARD_PIN, Shop, WRONG_PIN, away, cash};
use mqtt::{free_port, until};
use serde_json::json;

const CARDS: [(&str, Sim); 6] = [
    ("8800000041", Sim::Ntag215),
    ("8800000042", Sim::Classic1k),
    ("8800000043", Sim::Desfire),
    ("8800000044", Sim::UltralightC),
    ("8800000045", Sim::Ntag424),
    ("8800000046", Sim::Sle4442),
];

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_is_said_kept_or_sent() {
    let port = free_port();
    let reader = format!("[[reader]]\nid = \"counter-1\"\nkind = \"vpcd\"\nlisten = \"127.0.0.1:{port}\"\n");
    let mut shop = Shop::open(&reader, port).await;
    shop.start(1).await;

    let mut chips = Vec::new();
    for (n, (card_no, sim)) in (1..).zip(CARDS) {
        let mut profile = CardProfile::new(sim);
        *profile.uid.last_mut().unwrap() = n;
        profile.direct_transmit = true;
        let card = shop.lay(Chip::new(profile)).await;
        shop.done("/v1/cards", json!({ "card_no": card_no, "type": "named" })).await;
        let (of, deals) = (format!("/v1/cards/{card_no}"), format!("/v1/cards/{card_no}/transactions"));
        shop.done(&deals, cash(10_000)).await;
        shop.done(&format!("{of}/pin"), json!({ "new_pin": CARD_PIN })).await;
        let wrong =
            shop.post(&deals, json!({ "kind": "spend", "amount_fen": 1_000, "pin": WRONG_PIN })).await;
        assert_eq!(wrong.body["code"], "pin-wrong", "{wrong:?}");
        let sale = shop.done(&deals, json!({ "kind": "spend", "amount_fen": 1_000, "pin": CARD_PIN })).await;
        let id = &sale["transaction_id"];
        let back =
            json!({ "kind": "refund", "amount_fen": 100, "original_transaction_id": id, "pin": CARD_PIN });
        shop.done(&deals, back).await;
        shop.learn(sim, &card);
        chips.push(away(&card));
        card.remove().await;
    }
    // Killed in the middle of a sale, and on with newer keys: each card is moved to them.
    chips[0] = shop.killed_in_a_sale(CARDS[0].0, chips[0].clone(), 14).await;
    shop.start(2).await;
    let mut moved = 0;
    for ((card_no, sim), chip) in CARDS.into_iter().zip(chips) {
        let card = shop.lay(chip).await;
        shop.done(&format!("/v1/cards/{card_no}/transactions"), cash(100)).await;
        // Its code is not changed a second time.
        moved += usize::from(sim != Sim::Sle4442);
        until("the newer keys", async || {
            let told = String::from_utf8_lossy(&shop.said.lock().unwrap()).matches("keys 1 -> 2").count();
            (told == moved).then_some(())
        })
        .await;
        shop.learn(sim, &card);
        card.remove().await;
    }
    shop.people().await;
    shop.tells_nothing().await;
}
