//! The real program is killed (`kill -9`) at every command of a sale and of a top-up on two technologies,
//! and before, in and behind the writes of a sale on every one: the card did what the command says, and
//! nobody hears its answer. Started again, the card's next tap tells the
//! old or the new, the same key follows it, and journal, card and outbox are one.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod counter_shop;
#[path = "support/daemon.rs"]
mod daemon;
#[path = "support/port.rs"]
mod port;
#[allow(dead_code)] // its other parts
#[path = "cut_table/table.rs"]
mod table;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use baygate::api::client::Method;
use baygate::event::ledger::{CardTransaction, Outcome};
use baygate::sim::card::{CardFault, CardSim, Chip, Technology as Sim};
use counter_shop::{Shop, blank};
use serde_json::{Value, json};
use table::{Operation, Part, columns};
use tokio::task::JoinSet;

/// The number whose journal [`Shop::close`] reads.
const CARD_NO: &str = "8800000042";
const DEALS: &str = "/v1/cards/8800000042/transactions";

#[derive(Debug, Clone, Copy)]
enum Deed {
    Sale,
    TopUp,
    /// Of a CPU card, whose money needs a SAM and headquarters.
    Points,
}

/// Which commands the program is killed at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Places {
    All,
    AtWrites,
}

impl Places {
    fn of(self, commands: usize, writes: &[usize]) -> Vec<usize> {
        let (first, last) = (writes[0], writes[writes.len() - 1]);
        let mut places = match self {
            Self::All => (0..commands).collect(),
            Self::AtWrites => vec![first - 1, first, writes[writes.len() / 2], last, commands - 1],
        };
        places.dedup();
        places
    }
}

impl Deed {
    /// What the card begins with.
    fn first(self) -> Self {
        if matches!(self, Self::Points) { Self::Points } else { Self::TopUp }
    }

    fn wish(self, fen: i64) -> Value {
        match self {
            Self::Points => json!({ "kind": "earn", "points": fen }),
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
            Self::TopUp | Self::Points => fen,
        }
    }

    /// What it is about, and the counter, as the card that lies there shows them.
    fn shown(self, member: &Value) -> (i64, u64) {
        let what = if matches!(self, Self::Points) { "points" } else { "balance_fen" };
        (member[what].as_i64().unwrap(), member["counter"].as_u64().unwrap())
    }
}

async fn away(card: CardSim) -> Chip {
    let mut chip = card.chip();
    chip.reset();
    card.remove().await;
    chip
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

async fn is_killed(sim: Sim, deed: Deed, places: Places) {
    let mut shop = Shop::open("").await;
    let card = shop.lay(blank(sim)).await;
    shop.issue(CARD_NO, "i-1").await;
    shop.done(DEALS, deed.first().wish(40_000), "t-1").await;
    let begun = card.apdus().len();
    shop.done(DEALS, deed.wish(7), "t-2").await;
    let commands = card.apdus().len() - begun;
    assert!(commands >= 8, "{commands}");
    let writes: Vec<usize> = card.writes_at().into_iter().filter_map(|at| at.checked_sub(begun)).collect();
    let places = places.of(commands, &writes);
    let mut chip = away(card).await;
    let (mut holds, mut became) = ((40_000 + deed.brings(7), 2), [0; 2]);
    for at in places.iter().copied() {
        let (wish, key, what) = (deed.wish(7), format!("k-{at}"), format!("{sim:?} {deed:?} at {at}"));
        let card = shop.lay(chip).await;
        assert_eq!(deed.shown(&shop.member().await), holds, "{what}");
        chip = killed(&mut shop, card, at, &wish, &key).await;
        let card = shop.lay(chip).await;
        let shows = deed.shown(&shop.member().await);
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
    let brought = |fact: &CardTransaction| match deed {
        Deed::Points => fact.points,
        Deed::Sale | Deed::TopUp => fact.amount_fen.0,
    };
    let sum = committed.iter().map(|fact| brought(fact)).sum::<i64>();
    assert_eq!((sum, committed.len() as u64), holds, "{sim:?} {deed:?}: the card is its journal");
    let mut last: BTreeMap<String, Value> = BTreeMap::new();
    for (_, fact) in told.into_iter().filter(|(kind, _)| kind == "card.transaction") {
        last.insert(fact["transaction_id"].to_string(), fact["outcome"].clone());
    }
    let ours = journal.iter().map(|fact| (json!(fact.transaction_id).to_string(), json!(fact.outcome)));
    assert_eq!(last, ours.collect(), "{sim:?} {deed:?}: headquarters is told what the journal holds");
    assert_eq!(last.len(), places.len() + 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_every_command() {
    let mut all = JoinSet::new();
    for sim in [Sim::Ntag215, Sim::Desfire] {
        for deed in [Deed::Sale, Deed::TopUp] {
            all.spawn(is_killed(sim, deed, Places::All));
        }
    }
    all.join_all().await;
}

/// Every technology that holds a purse.
#[tokio::test(flavor = "multi_thread")]
async fn killed_at_the_writes_of_every_technology() {
    let mut all = JoinSet::new();
    for (sim, operation) in columns(Part::Money) {
        if operation == Operation::Spend {
            let deed = if sim == Sim::Cpu { Deed::Points } else { Deed::Sale };
            all.spawn(is_killed(sim, deed, Places::AtWrites));
        }
    }
    all.join_all().await;
}
