//! What a reader with lights and a buzzer is told, through the real program: once a tap, before
//! and behind a write, never between the commands of a conversation.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod counter_shop;
#[path = "support/daemon.rs"]
mod daemon;
#[path = "support/port.rs"]
mod port;

use baygate::sim::card::{CardFault, CardSim, Technology as Sim};
use counter_shop::{Shop, blank, blank_with_uid};
use serde_json::json;

const STILL: &str = "FF00400F0400000000";
const QUIET: &str = "FF00520000";
const GREEN: &str = "FF00400E0401000101";
const RED: &str = "FF00400D0401010201";
const CARD: &str = "/v1/cards/8800000042/transactions";

async fn shop(feedback: &str) -> Shop {
    let port = port::free_port();
    let reader = format!("kind = \"vpcd\"\nlisten = \"127.0.0.1:{port}\"\nfeedback = \"{feedback}\"");
    Shop::open_at(&reader, port, "[purse]\n").await
}

/// Signs and runs of other commands, in their order, once there are so many signs.
async fn story(card: &CardSim, signs: usize) -> Vec<String> {
    let is_sign = |apdu: &str| [STILL, QUIET, GREEN, RED].contains(&apdu);
    let begun = std::time::Instant::now();
    loop {
        let apdus: Vec<String> = card.apdus().iter().map(hex::encode_upper).collect();
        let mut story: Vec<String> = Vec::new();
        for apdu in apdus {
            let part = if is_sign(&apdu) { apdu } else { "…".to_owned() };
            if part != "…" || story.last() != Some(&part) {
                story.push(part);
            }
        }
        if story.iter().filter(|part| is_sign(part)).count() >= signs {
            return story;
        }
        assert!(begun.elapsed() < daemon::LONG, "{story:?}");
        tokio::task::yield_now().await;
    }
}

fn topup() -> serde_json::Value {
    json!({ "kind": "topup", "amount_fen": 5_000, "tenders": [{ "kind": "cash", "amount_fen": 5_000 }] })
}

#[tokio::test(flavor = "multi_thread")]
async fn lights_say_accepted_refused_and_hold_still() {
    let shop = shop("acr122").await;
    let card = shop.lay(blank(Sim::Ntag215)).await;
    assert_eq!(story(&card, 2).await, ["…", QUIET, RED], "an empty card is refused");
    shop.issue("8800000042", "i").await;
    let issued = story(&card, 5).await;
    assert_eq!(issued[..7], ["…", QUIET, RED, STILL, "…", QUIET, GREEN], "{issued:?}");
    let chip = card.chip();
    card.remove().await;

    let card = shop.lay(chip).await;
    assert_eq!(story(&card, 2).await, ["…", QUIET, GREEN], "a member is accepted");
    shop.done(CARD, topup(), "t").await;
    assert_eq!(
        story(&card, 5).await,
        ["…", QUIET, GREEN, STILL, "…", QUIET, GREEN],
        "held still before the first command of the write, accepted behind its last"
    );
    // Nothing is written where nothing is bought: no sign.
    shop.refused(CARD, json!({ "kind": "spend", "amount_fen": 900_000 }), "s").await;
    let before = card.apdus().len();
    card.fault(CardFault::PullUnheard);
    shop.post(CARD, topup(), "t-2").await;
    assert_eq!(card.apdus().len(), before + 1, "what is pulled at the sign is sent nothing more");
    drop(card);
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_is_not_known_is_told_nothing() {
    for feedback in ["auto", "off"] {
        let shop = shop(feedback).await;
        let card = shop.lay(blank_with_uid(Sim::Ntag215, 0x81)).await;
        shop.issue("8800000042", "i").await;
        // Whatever sign belongs to the issue comes before the first command of what is bought.
        let before = card.apdus().len();
        shop.done(CARD, topup(), "t").await;
        assert!(card.apdus().len() > before, "nothing was asked of the card");
        assert_eq!(story(&card, 0).await, ["…"], "{feedback}");
        drop(card);
        shop.close().await;
    }
}
