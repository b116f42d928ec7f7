//! Tills that sell from members' cards while the power may go at any moment. What is asked follows
//! from its key, so that it can be asked for again after the cut, when the card is long gone.

use std::time::Duration;

use baygate::api::client::{Answer, Client, Method};
use baygate::sim::card::{CardProfile, CardSim, Chip, Technology};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::dice::Dice;
use super::shop::say;
use super::words::{Job, Word};

/// A reader at a till: its id, and its port.
pub type Reader = (&'static str, u16);

/// Of a key `READER.CARD.DEED.NUMBER`.
fn deed(key: &str) -> (String, Value) {
    let mut parts = key.split('.');
    let (reader, card_no, kind) = (parts.next().unwrap(), parts.next().unwrap(), parts.next().unwrap());
    let body = match kind {
        "issue" => json!({ "reader": reader, "card_no": card_no, "type": "named" }),
        "topup" => json!({ "reader": reader, "kind": kind, "amount_fen": 5_000,
            "tenders": [{ "kind": "wechat", "amount_fen": 5_000 }] }),
        _ => json!({ "reader": reader, "kind": kind, "amount_fen": 1 }),
    };
    let path =
        if kind == "issue" { "/v1/cards".to_owned() } else { format!("/v1/cards/{card_no}/transactions") };
    (path, body)
}

/// Asks under a key; the answer as its digest.
pub async fn ask(client: &Client, key: &str) -> Result<Job, String> {
    let (path, body) = deed(key);
    let answer = client.request_with_key(Method::POST, &path, Some(&body), Some(key)).await;
    let told = answer.and_then(Answer::accepted).map_err(|error| error.to_string())?;
    Ok(Job { key: key.to_owned(), job: hex::encode(Sha256::digest(told.to_string())) })
}

/// A new member's card at each boot: given out, topped up, sold from.
pub async fn run(client: &Client, (reader, port): Reader, mut dice: Dice) {
    let number = dice.between(0, 99_999_999);
    let mut profile = CardProfile::new(Technology::Ntag215);
    profile.direct_transmit = true;
    for (place, byte) in (3..).zip(u32::try_from(number).unwrap().to_be_bytes()) {
        profile.uid[place] = byte;
    }
    let chip = Chip::new(profile);
    let _card = loop {
        // Not before the reader listens.
        match CardSim::present(("127.0.0.1", port), chip.clone()).await {
            Ok(card) => break card,
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    };
    let mut wanted = vec!["topup", "issue"];
    for asked in 0_u32.. {
        let kind = wanted.last().copied().unwrap_or("spend");
        let told = ask(client, &format!("{reader}.88{number:08}.{kind}.{asked}")).await;
        match told {
            Ok(job) => {
                say(&Word::Sale(job));
                wanted.pop();
            }
            // As while the card is still being read; that anything is sold the test asserts.
            Err(refused) => eprintln!("{kind}: {refused}"),
        }
        tokio::time::sleep(Duration::from_millis(dice.between(0, 60))).await;
    }
}
