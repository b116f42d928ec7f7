//! The real program is killed (`kill -9`) at every command of a sale and of a top-up: the card did
//! what the command says, and nobody hears its answer. Started again, the card's next tap tells the
//! old or the new, the same key follows it, and journal, card and outbox are one.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod counter_shop;
#[path = "support/daemon.rs"]
mod daemon;
#[path = "support/port.rs"]
mod port;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use baygate::api::client::Method;
use baygate::event::ledger::Outcome;
use baygate::sim::card::{CardFault, CardSim, Chip, Technology as Sim};
use counter_shop::{Shop, blank};
use serde_json::{Value, json};
use tokio::task::JoinSet;

/// The number whose journal [`Shop::close`] reads.
const CARD_NO: &str = "8800000042";
const DEALS: &str = "/v1/cards/8800000042/transactions";

#[derive(Debug, Clone, Copy)]
enum Deed {
    Sale,
    TopUp,
}

impl Deed {
    fn wish(self, fen: i64) -> Value {
        match self {
            Self::Sale => json!({ "kind": "spend", "amount_fen": fen }),
            Self::TopUp => {
                let cash = [json!({ "kind": "cash", "amount_fen": fen })];
                json!({ "kind": "topup", "amount_fen": fen, "tenders": cash })
            }
        }
    }

    fn brings(self, fen: i64) -> i64 {
        match self {
            Self::Sale => -fen,
            Self::TopUp => fen,
        }
    }
}

async fn away(card: CardSim) -> Chip {
    let mut chip = card.chip();
    chip.reset();
    card.remove().await;
    chip
}

/// Balance and counter as the card that lies there shows them.
fn shown(member: &Value) -> (i64, u64) {
    (member["balance_fen"].as_i64().unwrap(), member["counter"].as_u64().unwrap())
}

/// Asked, and killed when the card has done command `at`; the card as it was left.
async fn killed(shop: &mut Shop, card: CardSim, at: usize, wish: &Value, key: &str) -> Chip {
    let begun = card.apdus().len();
    card.fault_after(at, CardFault::Mute);
    let (client, body, same) = (shop.client.clone(), wish.clone(), key.to_owned());
    let asked =
        tokio::spawn(
            async move { client.request_with_key(Method::POST, DEALS, Some(&body), Some(&same)).await },
        );
    let deadline = Instant::now() + daemon::LONG;
    while card.apdus().len() <= begun + at {
        assert!(Instant::now() < deadline && !asked.is_finished(), "command {at} never came");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    shop.kill_and_restart().await;
    assert!(asked.await.unwrap().is_err(), "nobody answered");
    assert_eq!(card.apdus().len(), begun + at + 1, "it was the last it heard");
    away(card).await
}

async fn every_command(sim: Sim, deed: Deed) {
    let mut shop = Shop::open("").await;
    let card = shop.lay(blank(sim)).await;
    shop.issue(CARD_NO, "i-1").await;
    shop.done(DEALS, Deed::TopUp.wish(40_000), "t-1").await;
    let begun = card.apdus().len();
    shop.done(DEALS, deed.wish(7), "t-2").await;
    let commands = card.apdus().len() - begun;
    assert!(commands >= 8, "{commands}");
    let mut chip = away(card).await;
    let (mut holds, mut became) = ((40_000 + deed.brings(7), 2), [0; 2]);
    for at in 0..commands {
        let (wish, key, what) = (deed.wish(7), format!("k-{at}"), format!("{sim:?} {deed:?} at {at}"));
        let card = shop.lay(chip).await;
        assert_eq!(shown(&shop.member().await), holds, "{what}");
        chip = killed(&mut shop, card, at, &wish, &key).await;
        let card = shop.lay(chip).await;
        let shows = shown(&shop.member().await);
        // The same key, once more: it acts no second time.
        let answer = shop.post(DEALS, wish, &key).await;
        let done = answer.status == 200;
        assert!(done || answer.status == 409, "{what}: {answer:?}");
        became[usize::from(done)] += 1;
        if done {
            holds = (holds.0 + deed.brings(7), holds.1 + 1);
        }
        assert_eq!(shows, holds, "{what}: {answer:?}");
        chip = away(card).await;
        assert_eq!((chip.wrong_passwords(), chip.failed_logins()), (0, 0), "{what}: tries");
    }
    assert!(became.iter().all(|times| *times > 0), "{sim:?} {deed:?}: {became:?}");
    let (journal, told) = shop.close().await;
    let committed: Vec<_> = journal.iter().filter(|fact| fact.outcome == Outcome::Committed).collect();
    let sum = committed.iter().map(|fact| fact.amount_fen.0).sum::<i64>();
    assert_eq!((sum, committed.len() as u64), holds, "{sim:?} {deed:?}: the card is its journal");
    let mut last: BTreeMap<String, Value> = BTreeMap::new();
    for (_, fact) in told.into_iter().filter(|(kind, _)| kind == "card.transaction") {
        last.insert(fact["transaction_id"].to_string(), fact["outcome"].clone());
    }
    let ours = journal.iter().map(|fact| (json!(fact.transaction_id).to_string(), json!(fact.outcome)));
    assert_eq!(last, ours.collect(), "{sim:?} {deed:?}: headquarters is told what the journal holds");
    assert_eq!(last.len(), commands + 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_every_command() {
    let mut all = JoinSet::new();
    for sim in [Sim::Ntag215, Sim::Desfire] {
        for deed in [Deed::Sale, Deed::TopUp] {
            all.spawn(every_command(sim, deed));
        }
    }
    all.join_all().await;
}
