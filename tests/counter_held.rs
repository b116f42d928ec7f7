//! A held card through the real program: an old image is refused at the till, the owner's card is
//! compared and released over HTTP and from a terminal; asked before a `kill -9` it is done behind
//! it, and a key acts once.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod counter_shop;
#[path = "support/daemon.rs"]
mod daemon;
#[path = "support/port.rs"]
mod port;

use baygate::api::client::Answer;
use baygate::sim::card::{CardSim, Chip, Technology as Sim};
use counter_shop::{Shop, blank};
use serde_json::{Value, json};

const CARD: &str = "/v1/cards/8800000042";

async fn spend(shop: &Shop, fen: i64, key: &str) -> Answer {
    shop.post(&format!("{CARD}/transactions"), json!({ "kind": "spend", "amount_fen": fen }), key).await
}

async fn release(shop: &Shop, body: Value, key: &str) -> Answer {
    shop.post(&format!("{CARD}/release"), body, key).await
}

async fn away(shop: &Shop, card: CardSim) -> Chip {
    let mut chip = card.chip();
    chip.reset();
    card.remove().await;
    let deadline = std::time::Instant::now() + daemon::LONG;
    while shop.get("/v1/readers/counter-1/card").await.status != 204 {
        assert!(std::time::Instant::now() < deadline, "it lies there still");
    }
    chip
}

/// The owner's card, from which ¥50 of ¥200 were spent, and its image from before.
async fn spent(shop: &Shop) -> (Chip, Chip) {
    let card = shop.lay(blank(Sim::Ntag215)).await;
    shop.issue("8800000042", "i-1").await;
    let tenders = json!([{ "kind": "cash", "amount_fen": 20_000 }]);
    let topup = json!({ "kind": "topup", "amount_fen": 20_000, "tenders": tenders });
    shop.done(&format!("{CARD}/transactions"), topup, "t-1").await;
    let old = card.chip();
    assert_eq!(spend(shop, 5_000, "s-1").await.status, 200);
    (away(shop, card).await, old)
}

/// Laid on the reader, and refused as held.
async fn is_refused(shop: &Shop, chip: Chip, key: &str) -> CardSim {
    let card = shop.lay(chip).await;
    let told = shop.get("/v1/readers/counter-1/card?wait=20").await.body;
    assert_eq!((&told["member"], &told["refused"]["reason"]), (&Value::Null, &json!("held")), "{told}");
    let sale = spend(shop, 1, key).await;
    assert_eq!((sale.status, &sale.body["code"]), (409, &json!("card-held")), "{sale:?}");
    assert_eq!(card.writes(), 0);
    card
}

#[tokio::test(flavor = "multi_thread")]
async fn a_held_card_is_compared_and_released() {
    let mut shop = Shop::open("").await;
    let (real, old) = spent(&shop).await;
    let copy = is_refused(&shop, old.clone(), "s-2").await;
    let by = json!({ "operator": "li.wei", "reason": "复制卡已扣留" });
    let differs = release(&shop, by.clone(), "r-1").await;
    assert_eq!((differs.status, &differs.body["code"]), (409, &json!("card-differs")), "{differs:?}");
    assert_eq!(differs.body["held"], "counter-behind");
    let counters = json!([differs.body["known"]["counter"], differs.body["shows"]["counter"]]);
    assert_eq!(counters, json!([2, 1]), "{differs:?}");
    away(&shop, copy).await;
    // Asked, and the program killed before the card came.
    let waiting = json!({ "operator": "li.wei", "reason": "复制卡已扣留", "wait_s": 60 });
    assert_eq!(release(&shop, waiting.clone(), "r-2").await.status, 202);
    shop.kill_and_restart().await;
    let card = shop.lay(real).await;
    let deadline = std::time::Instant::now() + daemon::LONG;
    let done = loop {
        let answer = release(&shop, waiting.clone(), "r-2").await;
        if answer.status != 202 {
            break answer;
        }
        assert!(std::time::Instant::now() < deadline, "{answer:?}");
    };
    assert_eq!((done.status, &done.body["released"]), (200, &json!("counter-behind")), "{done:?}");
    assert_eq!((&done.body["operator"], card.writes()), (&json!("li.wei"), 0));
    assert_eq!(release(&shop, waiting.clone(), "r-2").await.body, done.body, "a key acts once");
    assert_eq!(release(&shop, by.clone(), "r-2").await.status, 422);
    assert_eq!(release(&shop, by, "r-3").await.body["code"], "card-not-held");
    assert_eq!(spend(&shop, 1_000, "s-3").await.status, 200);
    away(&shop, card).await;

    // From a terminal: the copy comes once more, and then is taken for the card.
    let copy = is_refused(&shop, old, "s-4").await;
    let config = shop.desk.config();
    let run = async |args: &[&str]| {
        let mut command = daemon::program();
        command.args(["card", "release"]).args(args).arg("--config").arg(&config).env_remove("BAYGATE_LOG");
        let done = command.output().await.unwrap();
        let told = [done.stdout, done.stderr].map(|said| String::from_utf8(said).unwrap());
        (done.status.code().unwrap(), told[0].clone(), told[1].clone())
    };
    for take in [None, Some("3")] {
        let mut args = vec!["--card", "8800000042", "--locale", "en"];
        args.extend(take.iter().flat_map(|take| ["--take", take]));
        let (exit, said, told) = run(&args).await;
        assert_ne!(exit, 0, "{said}");
        assert!(told.contains("card-differs") && told.contains("¥140.00"), "{told}");
        assert!(told.contains("the card shows"), "{told}");
    }
    let (exit, said, told) = run(&["--card", "8800000042", "--take", "1", "--locale", "en"]).await;
    assert_eq!(exit, 0, "{told}");
    assert!(said.contains("used again") && said.contains("¥200.00"), "{said}");
    assert_eq!(spend(&shop, 100, "s-5").await.status, 200);
    away(&shop, copy).await;
    let (_, told) = shop.close().await;
    let statuses: Vec<&Value> =
        told.iter().filter(|(kind, _)| kind == "card.status").map(|(_, data)| data).collect();
    let held: Vec<&str> = statuses.iter().map(|data| data["held"].as_str().unwrap_or("-")).collect();
    assert_eq!(held, ["counter-behind", "-", "counter-behind", "-"]);
    assert_eq!(statuses[1]["operator"], "li.wei");
    assert_eq!(statuses[3]["balance_seen_fen"], 20_000);
}
