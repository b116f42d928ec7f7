//! Rules of the purse pushed by headquarters (`config.put`), at the real program over a real Mosquitto:
//! in force at the next quote, kept over a kill, before the shop's own; what is wrong, older or not
//! headquarters' to say is refused, and the rules that are here stay.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod counter_shop;
#[path = "support/daemon.rs"]
mod daemon;
#[path = "support/house.rs"]
mod house;
mod mqtt;
mod port {
    pub use crate::mqtt::free_port;
}

use baygate::api::client::Method;
use baygate::sim::card::Technology as Sim;
use counter_shop::blank;
use house::House;
use serde_json::{Value, json};

/// The shop's own: one point for a yuan.
const OWN: &str = "[purse]\n[[purse.reward]]\nfrom_fen = 10000\nbonus_fen = 1000\n";
/// Headquarters': three.
const PUSHED: &str = "[purse]\n[purse.points]\nearn_per_fen = 100\nearn_points = 3\nworth_fen = 1\n\
    max_share_per_mille = 500\nmax_on_card = 9999999\n[[purse.reward]]\nfrom_fen = 10000\nbonus_fen = 2500\n";
const CARD: &str = "/v1/cards/8800000042/transactions";

impl House {
    async fn open() -> Self {
        let mut house = Self::with(OWN).await;
        house.sets_its_clock().await;
        house
    }

    /// What became of the command.
    async fn put(&mut self, args: Value) -> Value {
        self.command("config.put", &args).await
    }

    async fn done(&mut self, args: Value, before: bool) {
        let result = self.put(args).await;
        let said = (&result["outcome"], &result["result"]["here_before"]);
        assert_eq!(said, (&json!("done"), &json!(before)), "{result}");
    }

    async fn refused(&mut self, args: Value, why: &[&str]) {
        let result = self.put(args).await;
        assert_eq!(result["outcome"], "refused", "{result}");
        let error = result["error"].as_str().unwrap();
        assert!(why.iter().all(|why| error.contains(why)), "{why:?}: {error}");
    }

    /// A quote for ten yuan: its id, and the points it would earn.
    async fn quote(&self) -> (Value, i64) {
        let wanted = json!({ "kind": "spend", "amount_fen": 1_000 });
        let quote = self.shop.client.request(Method::POST, "/v1/cards/8800000042/quotes", Some(&wanted));
        let quote = quote.await.unwrap().accepted().unwrap();
        (quote["quote_id"].clone(), quote["points_earned"].as_i64().unwrap())
    }

    async fn check(&self) -> Value {
        let mut command = daemon::program();
        command.args(["check", "--json", "--config"]).arg(self.shop.desk.config());
        serde_json::from_slice(&command.output().await.unwrap().stdout).unwrap()
    }
}

fn topup(fen: i64) -> Value {
    json!({ "kind": "topup", "amount_fen": fen, "tenders": [{ "kind": "cash", "amount_fen": fen }] })
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_are_pushed_kept_and_taken_back() {
    let mut house = House::open().await;
    let card = house.shop.lay(blank(Sim::Ntag215)).await;
    house.shop.issue("8800000042", "i-1").await;
    assert_eq!(house.shop.done(CARD, topup(10_000), "t-1").await["bonus_fen"], 1_000);
    let (before, points) = house.quote().await;
    assert_eq!(points, 10);
    assert_eq!(house.check().await["headquarters_version"], Value::Null);

    house.done(json!({ "version": 7, "toml": PUSHED }), false).await;
    // Shown to the customer under the old rules.
    let sale = json!({ "quote_id": before });
    assert_eq!(house.shop.refused(CARD, sale, "s-1").await, (409, "quote-changed".into()));
    assert_eq!(house.quote().await.1, 30, "at the next quote");
    assert_eq!(house.shop.done(CARD, topup(10_000), "t-2").await["bonus_fen"], 2_500);
    assert_eq!(house.check().await["headquarters_version"], 7);

    // (version, text, what is said of it)
    let twice = format!("{PUSHED}[[purse.reward]]\nfrom_fen = 10000\nbonus_fen = 1\n");
    for (version, text, why) in [
        (8, "[purse]\nspend_order = \"sideways\"\n", &["headquarters.toml:2:", "sideways"][..]),
        (8, "[purse]\n[[purse.rewards]]\nfrom_fen = 1\n", &["headquarters.toml:2:", "reward"]),
        (8, "[purse]\nspend_order = \n", &["toml:2:"]),
        (8, twice.as_str(), &["headquarters.toml:1:"]),
        (8, "[mqtt]\nurl = \"mqtt://elsewhere\"\n", &["toml:1:2", "only [purse]"]),
        (6, PUSHED, &["version 6 is older than 7"]),
        (7, OWN, &["version 7 is here with another content"]),
    ] {
        house.refused(json!({ "version": version, "toml": text }), why).await;
        assert_eq!(house.quote().await.1, 30, "the rules that are here stay: {text}");
    }
    house.refused(json!({ "toml": PUSHED }), &["version"]).await;
    house.done(json!({ "version": 7, "toml": PUSHED }), true).await;

    let mut chip = card.chip();
    chip.reset();
    drop(card);
    house.kill_and_restart().await;
    let card = house.shop.lay(chip).await;
    house.shop.member().await;
    assert_eq!(house.quote().await.1, 30, "kept, and before the shop's own");
    house.done(json!({ "version": 7, "toml": PUSHED }), true).await;
    house.done(json!({ "version": 9 }), false).await;
    assert_eq!(house.quote().await.1, 10, "taken back: the shop's own count again");
    house.refused(json!({ "version": 8, "toml": PUSHED }), &["older than 9"]).await;
    card.remove().await;
    let (_, told) = house.shop.close().await;
    let configs = told.iter().filter(|(kind, _)| kind == "gateway.config").map(|(_, data)| data);
    let applied: Vec<_> = configs.filter(|data| data["outcome"] == "applied").collect();
    assert!(
        applied.len() == 2 && applied.iter().all(|data| data["changed"] == json!(["purse"])),
        "{applied:?}"
    );
}

/// A disk that does not keep the rules: they do not count, and the command is not called done.
#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_kept_does_not_count() {
    let mut house = House::open().await;
    let card = house.shop.lay(blank(Sim::Ntag215)).await;
    house.shop.issue("8800000042", "i-1").await;
    house.shop.done(CARD, topup(2_000), "t-1").await;
    // Where the new file would be written stands a folder.
    std::fs::create_dir_all(house.shop.desk.path("data").join("config.d/headquarters.new")).unwrap();
    let result = house.put(json!({ "version": 7, "toml": PUSHED })).await;
    assert_eq!(result["outcome"], "failed", "{result}");
    assert!(result["error"].as_str().unwrap().contains("headquarters.toml"), "{result}");
    assert_eq!(house.quote().await.1, 10);
    card.remove().await;
    house.shop.close().await;
}
