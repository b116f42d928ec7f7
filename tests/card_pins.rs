//! PINs of member cards over real HTTP and at the real program: set, changed, asked for, locked
//! after five wrong ones also across a restart and a kill, and in no file, event or log.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod counter_shop;
#[path = "support/daemon.rs"]
mod daemon;
mod ledger_rows;
#[path = "support/pcscd.rs"]
mod pcscd;
#[path = "support/port.rs"]
mod port;
mod served;

use std::process::Stdio;

use baygate::event::Class;
use baygate::event::ledger::{CardStatus, CardType, PinChange};
use baygate::sim::card::Technology as Sim;
use baygate::store::Store;
use baygate::store::outbox::ClassCursor;
use counter_shop::{Shop, blank};
use ledger_rows::{card, tap};
use pcscd::Pcscd;
use serde_json::{Value, json};
use served::people::{EVERYTHING, pair, person, post_with_key, shop};
use served::{Served, Setup};
use tokio::io::AsyncWriteExt as _;

const RIGHT: &str = "31415926";
const OTHER: &str = "27182818";
const WRONG: &str = "16180339";

async fn pins_told(store: &Store) -> Vec<PinChange> {
    let read =
        |r: &baygate::store::Reader<'_>| r.class_events_after(Class::Ledger, ClassCursor::default(), 500);
    let events = store.read(read).await.unwrap();
    let of = events.iter().filter(|logged| logged.event.kind == "card.status");
    of.filter_map(|logged| logged.event.data_as::<CardStatus>().unwrap().pin).collect()
}

/// Whether a file of the gateway holds the text.
fn is_written(folder: &std::path::Path, text: &str) -> bool {
    std::fs::read_dir(folder).unwrap().any(|entry| {
        let bytes = std::fs::read(entry.unwrap().path()).unwrap_or_default();
        bytes.windows(text.len()).any(|window| window == text.as_bytes())
    })
}

async fn spend(served: &Served, token: &str, path: &str, pin: Option<&str>, key: &str) -> (u16, String) {
    let body = json!({ "kind": "spend", "amount_fen": 100, "wait_s": 1, "reader": "counter-1", "pin": pin });
    post_with_key(served, token, path, &body, key).await.problem()
}

#[tokio::test(flavor = "multi_thread")]
async fn five_wrong_ones_lock_it_also_across_a_restart() {
    let served = shop(Setup::new()).await;
    let till = pair(&served, "till-1", EVERYTHING).await;
    let manager = person(&served, &till, "wang.fang", "manager").await;
    let cashier = person(&served, &till, "li.wei", "cashier").await;
    let card = card(1, CardType::Named);
    tap(&served.store, &card).await;
    let (pin, sale) =
        (format!("/v1/cards/{}/pin", card.card_no), format!("/v1/cards/{}/transactions", card.card_no));
    // Another store's card: its PIN is that store's, and none is set beside it.
    let mut elsewhere = ledger_rows::card(2, CardType::Named);
    elsewhere.issuing_store = "SH-0001".parse().unwrap();
    tap(&served.store, &elsewhere).await;
    let theirs = format!("/v1/cards/{}/pin", elsewhere.card_no);
    for body in [json!({ "new_pin": RIGHT }), json!({ "remove": true })] {
        assert_eq!(served.post(&manager, &theirs, &body).await.problem(), (409, "issued-elsewhere".into()));
    }
    // (token, body, status, code)
    let cases = [
        (&cashier, json!({ "new_pin": RIGHT }), 403, "scope-missing"),
        (&cashier, json!({ "new_pin": RIGHT, "pin": OTHER }), 403, "scope-missing"),
        (&manager, json!({}), 422, "request-invalid"),
        (&manager, json!({ "new_pin": RIGHT, "remove": true }), 422, "request-invalid"),
        (&manager, json!({ "new_pin": "123456" }), 422, "pin-too-weak"),
        (&manager, json!({ "new_pin": 31415926 }), 400, "body-invalid"),
        (&manager, json!({ "remove": true }), 409, "pin-not-set"),
    ];
    for (token, body, status, code) in cases {
        let reply = served.post(token, &pin, &body).await;
        assert!(!reply.body.contains(RIGHT), "{reply:?}");
        assert_eq!(reply.problem(), (status, code.to_owned()), "{body}");
    }
    let unknown = served.post(&manager, "/v1/cards/4711/pin", &json!({ "new_pin": RIGHT })).await;
    assert_eq!(unknown.problem(), (404, "card-not-known".into()));

    let set = post_with_key(&served, &manager, &pin, &json!({ "new_pin": RIGHT }), "k-1").await;
    assert_eq!((set.status, &set.json()["pin"]), (200, &json!("set")), "{set:?}");
    assert_eq!(
        post_with_key(&served, &manager, &pin, &json!({ "new_pin": RIGHT }), "k-1").await.json(),
        set.json()
    );
    // The key was for this PIN and for no other, and whoever guesses so is counted.
    for _ in 0..2 {
        let reused = post_with_key(&served, &manager, &pin, &json!({ "new_pin": OTHER }), "k-1").await;
        assert_eq!(reused.problem(), (422, "idempotency-key-reused".into()));
    }
    let wrong = card.card_no.clone();
    let row = served.store.read(move |r| r.card_pin(&wrong)).await.unwrap().unwrap();
    assert_eq!(row.wrong, 2);
    // The customer changes it at any till that sells, who knows the old one.
    let change = |pin: &str| json!({ "new_pin": OTHER, "pin": pin });
    assert_eq!(served.post(&cashier, &pin, &change(WRONG)).await.problem(), (403, "pin-wrong".into()));
    assert_eq!(served.post(&cashier, &pin, &change(RIGHT)).await.json()["pin"], "changed");

    // Without one nothing is asked of a card; a right one forgives wrong ones.
    assert_eq!(spend(&served, &cashier, &sale, None, "s-0").await, (403, "pin-needed".into()));
    for n in 0..4 {
        assert_eq!(
            spend(&served, &cashier, &sale, Some(RIGHT), &format!("a-{n}")).await,
            (403, "pin-wrong".into())
        );
    }
    let no_card = post_with_key(
        &served,
        &cashier,
        &sale,
        &json!({ "kind": "spend", "amount_fen": 100, "wait_s": 1, "pin": OTHER, "reader": "counter-1" }),
        "b-0",
    )
    .await;
    assert_ne!(no_card.status, 403, "{no_card:?}");
    for n in 0..3 {
        assert_eq!(
            spend(&served, &cashier, &sale, Some(WRONG), &format!("c-{n}")).await,
            (403, "pin-wrong".into())
        );
    }
    let served = shop(Setup::in_dir(served.stop().await)).await;
    let cashier = person(&served, &till, "he.ping", "cashier").await;
    assert_eq!(spend(&served, &cashier, &sale, Some(WRONG), "d-0").await, (403, "pin-wrong".into()));
    assert_eq!(spend(&served, &cashier, &sale, Some(WRONG), "d-1").await, (403, "pin-locked".into()));
    assert_eq!(
        spend(&served, &cashier, &sale, Some(OTHER), "d-2").await,
        (403, "pin-locked".into()),
        "the right one as well"
    );
    assert_eq!(
        served.post(&cashier, &pin, &json!({ "new_pin": RIGHT, "pin": OTHER })).await.problem().1,
        "pin-locked"
    );
    let manager = person(&served, &till, "zhao.min", "manager").await;
    assert_eq!(served.post(&manager, &pin, &json!({ "new_pin": RIGHT })).await.status, 200);
    let open = post_with_key(
        &served,
        &cashier,
        &sale,
        &json!({ "kind": "spend", "amount_fen": 100, "wait_s": 1, "pin": RIGHT, "reader": "counter-1" }),
        "e-0",
    )
    .await;
    assert_ne!(open.status, 403, "{open:?}");
    assert_eq!(served.post(&manager, &pin, &json!({ "remove": true })).await.json()["pin"], "removed");
    use PinChange::{Changed, Locked, Removed, Set};
    assert_eq!(pins_told(&served.store).await, [Set, Changed, Locked, Changed, Removed]);
    let folder = served.stop().await;
    for pin in [RIGHT, OTHER, WRONG] {
        assert!(!is_written(folder.path(), pin), "{pin} is on the disk");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sale_with_a_pin_through_the_real_program() {
    let rules = "[purse.named]\nmax_balance_fen = 500000\nloss_report = true\npin_required = true\n";
    let mut shop = Shop::open(rules).await;
    let card = shop.lay(blank(Sim::Ntag215)).await;
    shop.issue("8800000042", "i-1").await;
    let path = "/v1/cards/8800000042/transactions";
    let topup =
        json!({ "kind": "topup", "amount_fen": 5_000, "tenders": [{ "kind": "cash", "amount_fen": 5_000 }] });
    let topup = shop.done(path, topup, "t-1").await;
    let writes = card.writes();
    let spend = |pin: Option<&str>| json!({ "kind": "spend", "amount_fen": 100, "pin": pin });
    // The rules ask for one, and it has none yet.
    assert_eq!(shop.refused(path, spend(None), "s-1").await.1, "pin-needed");
    assert_eq!(shop.refused(path, spend(Some(RIGHT)), "s-2").await.1, "pin-needed");
    let give_back = json!({ "tender": "cash" });
    assert_eq!(shop.refused("/v1/cards/8800000042/return", give_back, "g-1").await.1, "pin-needed");
    assert_eq!(card.writes(), writes, "nothing was written");

    let config = shop.desk.config();
    let run = async |args: &[&str], typed: &str| {
        let mut command = daemon::program();
        command.arg("card").args(args).arg("--json").arg("--config").arg(&config).env_remove("BAYGATE_LOG");
        let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = piped.spawn().unwrap();
        child.stdin.take().unwrap().write_all(format!("{typed}\n").as_bytes()).await.unwrap();
        let done = child.wait_with_output().await.unwrap();
        let said = String::from_utf8(done.stdout).unwrap();
        let told = String::from_utf8(done.stderr).unwrap();
        (done.status.code().unwrap(), serde_json::from_str::<Value>(&said).unwrap_or_default(), told)
    };
    let (exit, set, told) = run(&["pin", "8800000042", "--operator", "li.wei"], RIGHT).await;
    assert_eq!((exit, &set["pin"], &set["operator"]), (0, &json!("set"), &json!("li.wei")), "{told}");
    let (exit, _, told) = run(&["spend", "--amount", "1", "--pin"], WRONG).await;
    assert_eq!(exit, 4, "{told}");
    assert_eq!(card.writes(), writes, "nothing was written");
    assert_eq!(shop.member().await["card_no"], "8800000042", "the PIN was refused, not the card");
    let (exit, spent, told) = run(&["spend", "--amount", "1", "--pin"], RIGHT).await;
    assert_eq!((exit, &spent["amount_fen"]), (0, &json!(-100)), "{told}");
    // A repeat needs none: it acts no more. A kill forgets no wrong one.
    let once = shop.done(path, spend(Some(RIGHT)), "s-3").await;
    assert_eq!(shop.done(path, spend(None), "s-3").await, once);
    // Money that goes back into the customer's hand leaves the card as well.
    let refund = |pin: Option<&str>| {
        let of = &topup["transaction_id"];
        json!({ "kind": "refund", "amount_fen": 100, "original_transaction_id": of, "pin": pin })
    };
    assert_eq!(shop.refused(path, refund(None), "f-1").await.1, "pin-needed");
    assert_eq!(shop.done(path, refund(Some(RIGHT)), "f-2").await["amount_fen"], -100);
    let original = topup["transaction_id"].as_str().unwrap();
    let (exit, back, told) = run(&["refund", original, "--amount", "1", "--pin"], RIGHT).await;
    assert_eq!((exit, &back["amount_fen"]), (0, &json!(-100)), "{told}");
    let (exit, _, told) = run(&["refund", original, "--amount", "1"], "").await;
    assert_eq!(exit, 4, "{told}");
    // So does a top-up that is undone.
    let topup =
        json!({ "kind": "topup", "amount_fen": 300, "tenders": [{ "kind": "cash", "amount_fen": 300 }] });
    let topup = shop.done(path, topup, "t-2").await;
    let original = topup["transaction_id"].as_str().unwrap();
    let writes = card.writes();
    for (args, typed) in [(&["void", original][..], ""), (&["void", original, "--pin"], WRONG)] {
        let (exit, _, told) = run(args, typed).await;
        assert_eq!(exit, 4, "{told}");
    }
    assert_eq!(card.writes(), writes, "nothing was written");
    let (exit, undone, told) = run(&["void", original, "--pin"], RIGHT).await;
    assert_eq!((exit, &undone["amount_fen"]), (0, &json!(-300)), "{told}");
    for n in 0..4 {
        let body = spend(Some(WRONG));
        let answer = shop.post(path, body, &format!("w-{n}")).await;
        assert_eq!((answer.status, &answer.body["code"]), (403, &json!("pin-wrong")));
    }
    shop.kill_and_restart().await;
    assert_eq!(shop.post(path, spend(Some(WRONG)), "w-5").await.body["code"], "pin-locked");
    assert_eq!(shop.post(path, spend(Some(RIGHT)), "w-6").await.body["code"], "pin-locked");
    card.remove().await;
    let log = shop.daemon.as_ref().unwrap().log();
    let (_, told) = shop.close().await;
    let refused = told.iter().filter(|(kind, _)| kind == "card.refused").map(|(_, data)| data);
    let of_pins: Vec<&Value> =
        refused.filter(|data| data["reason"].as_str().unwrap().starts_with("pin-")).collect();
    let reasons: Vec<&str> = of_pins.iter().map(|data| data["reason"].as_str().unwrap()).collect();
    // Two at the terminal, five behind them; the try at a locked card is no news.
    assert_eq!(reasons, [["pin-wrong"; 6].as_slice(), &["pin-locked"]].concat());
    assert!(of_pins.iter().all(|data| data["reader"] == "counter-1" && data["uid"] == "04A1B2C3D45E80"));
    assert_eq!(of_pins[5]["text"]["en"], "the card's PIN is wrong, and nothing was done; 1 more tries");
    assert!(of_pins[6]["text"]["zh"].as_str().unwrap().contains("已锁定"));
    let told = json!(told).to_string();
    for pin in [RIGHT, WRONG] {
        assert!(!log.contains(pin) && !told.contains(pin));
    }
    assert!(!told.contains("argon2"), "a hash is in an event");
}

/// At the real pcscd: for a wrong PIN, or none, no byte goes to the card.
#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_pin_at_the_real_pcscd_writes_nothing() {
    let Some(pcscd) = Pcscd::start() else { return };
    let reader = "kind = \"pcsc\"\nname = \"Virtual PCD 00 00\"";
    let shop = Shop::open_at(reader, pcscd.port, "").await;
    let card = shop.lay(blank(Sim::Ntag215)).await;
    shop.issue("8800000042", "i-1").await;
    let deals = "/v1/cards/8800000042/transactions";
    let topup =
        json!({ "kind": "topup", "amount_fen": 5_000, "tenders": [{ "kind": "cash", "amount_fen": 5_000 }] });
    shop.done(deals, topup, "t-1").await;
    shop.done("/v1/cards/8800000042/pin", json!({ "new_pin": RIGHT }), "p-1").await;
    let writes = card.writes();
    let deeds = [
        (deals, json!({ "kind": "spend", "amount_fen": 100 })),
        (deals, json!({ "kind": "transfer", "amount_fen": 100, "to_card_no": "8800000043" })),
        ("/v1/cards/8800000042/return", json!({ "tender": "cash" })),
    ];
    for (n, (path, mut body)) in deeds.into_iter().enumerate() {
        body["pin"] = json!(WRONG);
        let refused = shop.refused(path, body, &format!("w-{n}")).await;
        assert_eq!(refused, (403, "pin-wrong".into()), "{path}");
    }
    let spend = json!({ "kind": "spend", "amount_fen": 100 });
    assert_eq!(shop.refused(deals, spend, "s-1").await.1, "pin-needed");
    assert_eq!(card.writes(), writes, "nothing was written");
    assert_eq!(shop.get("/v1/cards/8800000042").await.body["balance_fen"], 5_000);
    card.remove().await;
    shop.close().await;
}
