//! Cards of one store at another one of the group, both the real program with keys of their own: read,
//! topped up and spent as configured, within the offline limits, never moved to the other's keys; and
//! refused where the other store is not configured or its keys are not there.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod counter_shop;
#[path = "support/daemon.rs"]
mod daemon;
#[path = "support/port.rs"]
mod port;

use baygate::sim::card::{CardSim, Chip, Technology as Sim};
use counter_shop::{Shop, blank};
use serde_json::{Value, json};

const HOME: &str = "BJ-0001";
const AWAY: &str = "SH-0042";

const PURPOSES: [&str; 5] = ["record", "debit", "credit", "manage", "sun"];

/// Lines of a key version, for its own store or another; no two stores and versions have a key in common.
fn lines(version: u8, seed: u8, own: bool) -> String {
    let line = |(place, purpose): (u8, &str)| {
        let start = place.wrapping_mul(41).wrapping_add(seed);
        let key: [u8; 16] = std::array::from_fn(|i| (i as u8).wrapping_mul(73).wrapping_add(start) ^ 0x5A);
        format!("{version} {purpose} {}\n", hex::encode(key))
    };
    let all = (1..).zip(PURPOSES);
    all.filter(|(_, purpose)| own || *purpose != "manage").map(line).collect()
}

/// The other store has newer keys of its own, and with `knows` those of the first.
fn away_keys(knows: bool) -> String {
    let others = if knows { format!("store {HOME}\n{}", lines(1, 100, false)) } else { String::new() };
    format!("store {AWAY}\ncurrent 2\n{}{}{others}", lines(1, 3, true), lines(2, 7, true))
}

/// Takes the cards of these stores, and little of one card with the line down.
fn rules(accepted: &str) -> String {
    format!(
        "[purse]\naccept_stores = [{accepted}]\n[[purse.limit]]\n\
         technologies = [\"ntag215\", \"mifare-classic-1k\", \"desfire\", \"ntag424\"]\n\
         per_transaction_fen = 2000\nper_card_fen = 3000\nper_day_fen = 1000000\n"
    )
}

fn topup(fen: i64) -> Value {
    json!({ "kind": "topup", "amount_fen": fen, "tenders": [{ "kind": "cash", "amount_fen": fen }] })
}

fn spend(fen: i64) -> Value {
    json!({ "kind": "spend", "amount_fen": fen })
}

async fn away_from(card: CardSim) -> Chip {
    let mut chip = card.chip();
    chip.reset();
    card.remove().await;
    chip
}

#[tokio::test(flavor = "multi_thread")]
async fn a_card_goes_from_store_to_store() {
    let home_keys = format!("store {HOME}\ncurrent 1\n{}", lines(1, 100, true));
    let home = Shop::open_of(HOME, &home_keys, "").await;
    let away = Shop::open_of(AWAY, &away_keys(true), &rules("\"own\", \"BJ-0001\"")).await;
    for (n, sim) in [Sim::Ntag215, Sim::Classic1k, Sim::Desfire, Sim::Ntag424].into_iter().enumerate() {
        let card_no = format!("88000000{n:02}");
        let path = format!("/v1/cards/{card_no}/transactions");
        let key = |of: &str| format!("{of}-{n}");
        let card = home.lay(blank(sim)).await;
        home.issue(&card_no, &key("issue")).await;
        home.done(&path, topup(20_000), &key("t")).await;
        let chip = away_from(card).await;

        let card = away.lay(chip).await;
        let member = away.member().await;
        let of = |member: &Value| {
            json!([member["issuing_store"], member["balance_fen"], member["counter"], member["key_version"]])
        };
        assert_eq!(of(&member), json!([HOME, 20_000, 1, 1]), "{sim:?} {member}");
        let topped = away.done(&path, topup(5_000), &key("t")).await;
        assert_eq!(
            json!([topped["issuing_store"], topped["balance_after_fen"], topped["offline"]]),
            json!([HOME, 25_000, true]),
            "{sim:?} {topped}"
        );
        let writes = card.writes();
        assert_eq!(away.refused(&path, spend(2_001), &key("s-0")).await.1, "offline-transaction-limit");
        assert_eq!(card.writes(), writes);
        away.done(&path, spend(2_000), &key("s-1")).await;
        away.done(&path, spend(1_000), &key("s-2")).await;
        assert_eq!(away.refused(&path, spend(1), &key("s-3")).await.1, "offline-card-limit");
        let chip = away_from(card).await;
        assert_eq!((chip.failed_logins(), chip.wrong_passwords()), (0, 0), "{sim:?}: no key in vain");
        // It was moved to no keys of this store, though these are newer.
        let card = away.lay(chip).await;
        assert_eq!(of(&away.member().await), json!([HOME, 22_000, 4, 1]), "{sim:?}");
        let chip = away_from(card).await;

        // At home a counter that is ahead is normal.
        let card = home.lay(chip).await;
        assert_eq!(of(&home.member().await), json!([HOME, 22_000, 4, 1]), "{sim:?}");
        let spent = home.done(&path, spend(500), &key("s")).await;
        assert_eq!((&spent["balance_after_fen"], &spent["counter"]), (&json!(21_500), &json!(5)), "{sim:?}");
        away_from(card).await;
    }
    home.close().await;
    away.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_configured_is_refused() {
    let home_keys = format!("store {HOME}\ncurrent 1\n{}", lines(1, 100, true));
    let home = Shop::open_of(HOME, &home_keys, "").await;
    let card = home.lay(blank(Sim::Ntag215)).await;
    home.issue("8800000042", "issue").await;
    let mut chip = away_from(card).await;
    home.close().await;
    // (keys of the other store, whose cards are taken)
    for (knows, accepted) in [
        (true, "\"own\""),
        (true, "\"own\", \"BJ-0002\""),
        (false, "\"own\", \"BJ-0001\""),
        (false, "\"all\""),
    ] {
        let mut away = Shop::open_of(AWAY, &away_keys(knows), &rules(accepted)).await;
        let card = away.lay(chip).await;
        let told = away.get("/v1/readers/counter-1/card?wait=20").await.body;
        assert_eq!(told["refused"]["reason"], "store-not-accepted", "{knows} {accepted}: {told}");
        assert_eq!(told["member"], Value::Null);
        let answer = away.refused("/v1/cards/8800000042/transactions", topup(500), "t").await;
        assert_eq!(answer.1, "store-not-accepted", "{knows} {accepted}");
        assert_eq!(card.writes(), 0, "{knows} {accepted}");
        chip = away_from(card).await;
        assert_eq!((chip.failed_logins(), chip.wrong_passwords()), (0, 0), "{knows} {accepted}");
        // Whoever runs the store is told which lines are missing.
        let log = away.daemon.take().unwrap();
        let warned = log.log().contains("accept_stores names a store of which credential");
        assert_eq!(
            warned,
            accepted.contains("BJ-0001") || accepted.contains("BJ-0002"),
            "{knows} {accepted}"
        );
        log.kill().await;
    }
}
