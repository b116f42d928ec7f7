//! Points, coupons and what is put right by hand, from a terminal at the real program: what it says,
//! what the card holds afterwards, and one exit status for every refusal of the purse.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod counter_shop;
#[path = "support/daemon.rs"]
mod daemon;
mod mqtt;
mod port {
    pub use crate::mqtt::free_port;
}

use baygate::sim::card::Technology as Sim;
use counter_shop::{Shop, blank};
use mqtt::{BASE, Listener, Mosquitto};
use serde_json::{Value, json};

const RULES: &str =
    "[purse]\n[[purse.coupon]]\nid = 7\nname = { zh = \"保养券\", en = \"Service\" }\noff_fen = 500\n";

/// A member's card on the reader: told as such a moment after its issue was answered.
async fn issued(shop: &Shop) {
    shop.issue("8800000042", "i-1").await;
    let deadline = std::time::Instant::now() + daemon::LONG;
    while shop.member().await["card_no"] != "8800000042" {
        assert!(std::time::Instant::now() < deadline, "never told");
    }
}

/// A deed that is done: the transaction.
async fn done(shop: &Shop, args: &[&str]) -> Value {
    let (exit, said, told) = shop.terminal(args).await;
    assert_eq!(exit, 0, "{args:?}: {told}");
    said
}

/// A deed that the purse refuses: exit status 4 and its code; nothing is written.
async fn refused(shop: &Shop, args: &[&str], code: &str) {
    let (exit, _, told) = shop.terminal(args).await;
    assert!(told.contains(code), "{args:?}: {told}");
    assert_eq!(exit, 4, "{args:?}: {told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn points_coupons_and_adjustments_from_a_terminal() {
    let broker = Mosquitto::start("").await;
    // Every class has somebody who takes it, or the broker refuses it and the uplink is not well.
    let mut started = Listener::start(broker.port, "5", &format!("{BASE}/event/#")).await;
    let mqtt = format!("{RULES}\n[mqtt]\nurl = \"mqtt://127.0.0.1:{}\"\n", broker.port);
    let shop = Shop::open(&mqtt).await;
    // Before that headquarters is not reached, and nothing is put right by hand.
    started.on("/gateway.started").await;
    let card = shop.lay(blank(Sim::Ntag215)).await;
    issued(&shop).await;

    let earned = done(&shop, &["points", "earn", "120", "--order", "A-17"]).await;
    assert_eq!((&earned["kind"], &earned["points_after"]), (&json!("earn"), &json!(120)), "{earned}");
    assert_eq!(earned["order"], "A-17");
    let redeem = ["points", "redeem", "50", "--item", "cup:gift:2:0", "--idempotency-key", "k-1"];
    let redeemed = done(&shop, &redeem).await;
    assert_eq!((&redeemed["points"], &redeemed["points_after"]), (&json!(-50), &json!(70)), "{redeemed}");
    assert_eq!(redeemed["items"][0]["sku"], "cup");
    assert_eq!(done(&shop, &redeem).await, redeemed, "a key acts once");
    assert_eq!(done(&shop, &["points", "adjust", "-30"]).await["points_after"], 40);
    assert_eq!(done(&shop, &["points", "adjust", "5"]).await["points_after"], 45);
    let mistake = done(&shop, &["coupon", "give", "7"]).await;
    done(&shop, &["void", mistake["transaction_id"].as_str().unwrap()]).await;
    assert_eq!(done(&shop, &["coupon", "give", "7"]).await["coupon"], 7);
    let right = done(&shop, &["adjust", "--principal", "12.50", "--bonus", "3"]).await;
    assert_eq!((&right["principal_fen"], &right["bonus_fen"]), (&json!(1_250), &json!(300)), "{right}");
    let less = done(&shop, &["adjust", "--principal", "-2.50"]).await;
    assert_eq!((&less["principal_fen"], &less["balance_after_fen"]), (&json!(-250), &json!(1_300)));
    let (exit, said, _) = terminal_words(&shop, &["points", "earn", "1"]).await;
    assert!(exit == 0 && said.contains("points 46"), "{said}");

    let writes = card.writes();
    // Codes that a till gets as 409 and as 422 alike.
    refused(&shop, &["points", "redeem", "500"], "not-enough-points").await;
    refused(&shop, &["points", "adjust", "-500"], "not-enough-points").await;
    refused(&shop, &["points", "earn", "0"], "amount-not-allowed").await;
    refused(&shop, &["coupon", "give", "9"], "coupon-unknown").await;
    refused(&shop, &["adjust", "--principal", "-100"], "not-enough-balance").await;
    for wrong in
        [&["adjust"][..], &["adjust", "--principal", "1.234"], &["points", "earn", "-5"], &["coupon"]]
    {
        assert_eq!(shop.terminal(wrong).await.0, 2, "{wrong:?}");
    }
    assert_eq!(card.writes(), writes, "what is refused writes nothing");
    let mut chip = card.chip();
    chip.reset();
    card.remove().await;
    let card = shop.lay(chip).await;
    let member = shop.member().await;
    assert_eq!(
        json!([member["points"], member["principal_fen"], member["bonus_fen"], member["coupons"]]),
        json!([46, 1_000, 300, [{ "kind": 7, "left": 1 }]]),
        "{member}"
    );
    card.remove().await;
    let (facts, _) = shop.close().await;
    assert_eq!(facts.iter().map(|fact| fact.points).sum::<i64>(), 46, "the card is the sum of its journal");
}

/// As people read it.
async fn terminal_words(shop: &Shop, args: &[&str]) -> (i32, String, String) {
    let mut command = daemon::program();
    command.arg("card").args(args).args(["--locale", "en", "--config"]).arg(shop.desk.config());
    let done = command.env_remove("BAYGATE_LOG").output().await.unwrap();
    let [said, told] = [done.stdout, done.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
    (done.status.code().unwrap(), said, told)
}

/// Without headquarters nothing is put right by hand; points and coupons go on.
#[tokio::test(flavor = "multi_thread")]
async fn by_hand_needs_headquarters() {
    let shop = Shop::open(RULES).await;
    let card = shop.lay(blank(Sim::Ntag215)).await;
    issued(&shop).await;
    let writes = card.writes();
    refused(&shop, &["points", "adjust", "30"], "needs-headquarters").await;
    refused(&shop, &["adjust", "--bonus", "1"], "needs-headquarters").await;
    assert_eq!(card.writes(), writes);
    assert_eq!(done(&shop, &["points", "earn", "30"]).await["points_after"], 30);
    done(&shop, &["coupon", "give", "7"]).await;
    card.remove().await;
    shop.close().await;
}
