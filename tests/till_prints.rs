//! `print_on = ["transaction"]` through the real program: after each transaction at such a till the
//! card's face goes to the till's printer (`baygate simulate printer`), behind the ledger and never
//! before it; nowhere else does anything print by itself.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod counter_shop;
#[path = "support/daemon.rs"]
mod daemon;
#[path = "support/port.rs"]
mod port;

use std::process::Stdio;

use baygate::event::Source;
use baygate::sim::card::Technology as Sim;
use baygate::store::jobs::PrintJob;
use baygate::store::{Offset, Store, StoreOptions};
use counter_shop::{STORE, Shop, blank, blank_with_uid};
use port::free_port;
use serde_json::{Value, json};
use tokio::process::Child;
use uuid::Uuid;

const PIN: &str = "271828182845";
const CARD: &str = "/v1/cards/8800000042/transactions";

/// A printer, and four tills; the address is that of a printer that is not there yet.
fn tills(printer: u16) -> String {
    format!(
        "[[printer]]\nid = \"face-1\"\nkind = \"star-tcp300\"\nlink = \"tcp://127.0.0.1:{printer}\"\n\n\
         [[till]]\nid = \"till-1\"\nreader = \"counter-1\"\nprinter = \"face-1\"\nprint_on = [\"transaction\"]\n\n\
         [[till]]\nid = \"till-2\"\nprinter = \"face-1\"\nprint_on = [\"request\"]\n\n\
         [[till]]\nid = \"till-3\"\nprint_on = [\"transaction\", \"request\"]\n\n\
         [[till]]\nid = \"till-4\"\nprinter = \"face-1\"\n"
    )
}

/// `baygate simulate printer`, attended: a clerk puts cards in.
fn simulate(shop: &Shop, port: u16) -> Child {
    let mut command = daemon::program();
    command.args(["simulate", "printer", "--listen", &format!("127.0.0.1:{port}"), "--print-ms", "20"]);
    command.arg("--faces").arg(shop.desk.path("faces")).stdout(Stdio::null()).kill_on_drop(true);
    command.spawn().unwrap()
}

/// At the HTTP listener, as a till does.
async fn over_http(shop: &Shop, token: &str, path: &str, body: Value, key: &str) -> (u16, Value) {
    let log = shop.daemon.as_ref().unwrap().log();
    let ready = log.lines().rfind(|line| line.contains("local HTTP ready")).unwrap();
    let (_, port) = ready.split_once("127.0.0.1:").unwrap();
    let port: String = port.chars().take_while(char::is_ascii_digit).collect();
    let (url, bearer, key) =
        (format!("http://127.0.0.1:{port}{path}"), format!("Bearer {token}"), key.to_owned());
    let sent = tokio::task::spawn_blocking(move || {
        let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
        let request = agent.post(&url).header("Authorization", &bearer).header("Idempotency-Key", &key);
        let mut answer = request.send_json(body).unwrap();
        (answer.status().as_u16(), answer.body_mut().read_json::<Value>().unwrap())
    });
    sent.await.unwrap()
}

/// Pairs a till and logs a manager in there; the session's token.
async fn at(shop: &Shop, till: &str) -> String {
    let wanted = json!({ "till": till, "scopes": ["read", "spend", "topup", "issue", "print"] });
    let code = shop.done("/v1/pairings", wanted, till).await["code"].clone();
    let (status, paired) = over_http(shop, "", "/v1/pairings/redeem", json!({ "code": code }), till).await;
    assert_eq!(status, 200, "{paired}");
    let login = json!({ "operator": "li.wei", "pin": PIN });
    let token = paired["token"].as_str().unwrap();
    let (status, session) = over_http(shop, token, "/v1/operator-sessions", login, till).await;
    assert_eq!(status, 201, "{session}");
    session["token"].as_str().unwrap().to_owned()
}

async fn open(printer: u16) -> Shop {
    let shop = Shop::open(&tills(printer)).await;
    let account = json!({ "id": "li.wei", "name": "李伟", "role": "manager", "pin": PIN });
    shop.done("/v1/operators", account, "account").await;
    shop
}

fn topup(fen: i64) -> Value {
    let tenders = json!([{ "kind": "cash", "amount_fen": fen }]);
    json!({ "kind": "topup", "amount_fen": fen, "tenders": tenders, "reader": "counter-1" })
}

/// Committed at once; the transaction's id, which is that of its print job.
async fn deal(shop: &Shop, token: &str, body: Value, key: &str) -> String {
    let (status, done) = over_http(shop, token, CARD, body, key).await;
    assert_eq!((status, &done["outcome"]), (200, &json!("committed")), "{done}");
    done["transaction_id"].as_str().unwrap().to_owned()
}

async fn job(shop: &Shop, id: &str) -> Option<Value> {
    let answer = shop.get(&format!("/v1/print-jobs/{id}")).await;
    assert!(matches!(answer.status, 200 | 404), "{answer:?}");
    (answer.status == 200).then_some(answer.body)
}

async fn until(shop: &Shop, id: &str, state: &str) -> Value {
    let deadline = std::time::Instant::now() + daemon::LONG;
    loop {
        let now = job(shop, id).await;
        match now {
            Some(job) if job["state"] == state => return job,
            _ => assert!(std::time::Instant::now() < deadline, "never {state}: {now:?}"),
        }
        tokio::task::yield_now().await;
    }
}

/// Stops; the log, and these jobs as they are stored.
async fn close(mut shop: Shop, jobs: &[&String]) -> (Vec<(String, Value)>, Vec<PrintJob>) {
    let mut daemon = shop.daemon.take().unwrap();
    daemon.signal(nix::sys::signal::Signal::SIGTERM);
    assert!(daemon.ended().await.success(), "{}", daemon.log());
    let (store, _) = Store::open(&StoreOptions {
        data_dir: shop.desk.path("data"),
        source: Source { store: STORE.parse().unwrap(), gateway: "gw-1".parse().unwrap() },
        machine_id: std::fs::read_to_string("/etc/machine-id").ok().map(|id| id.trim().to_owned()),
        max_bytes: 1 << 30,
        limits: Vec::new(),
    })
    .unwrap();
    let told = store.read(|r| r.events_after(Offset(0), 2000)).await.unwrap();
    let told = told.iter().map(|logged| {
        (logged.event.kind.to_string(), serde_json::from_str(logged.event.data.get()).unwrap())
    });
    let told = told.collect();
    let ids: Vec<Uuid> = jobs.iter().map(|id| id.parse().unwrap()).collect();
    let stored = store.read(move |r| ids.into_iter().map(|id| Ok(r.print_job(id)?.unwrap())).collect()).await;
    store.close().await;
    (told, stored.unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn each_transaction_at_the_till_prints_the_face_it_leaves() {
    let printer = free_port();
    let mut shop = open(printer).await;
    let (first, second) = (at(&shop, "till-1").await, at(&shop, "till-2").await);
    let (third, fourth) = (at(&shop, "till-3").await, at(&shop, "till-4").await);
    let card = shop.lay(blank(Sim::Ntag215)).await;
    let new = json!({ "card_no": "8800000042", "type": "named" });
    let (status, issued) = over_http(&shop, &first, "/v1/cards", new, "i").await;
    assert_eq!(status, 201, "{issued}");

    // Nobody prints by itself who was not told to, or has nothing to print with.
    let request_only = deal(&shop, &second, topup(1_000), "t-2").await;
    let no_printer = deal(&shop, &third, topup(1_000), "t-3").await;
    let nothing_said = deal(&shop, &fourth, topup(1_000), "t-4").await;
    let no_till = shop.done(CARD, topup(1_000), "t-0").await["transaction_id"].as_str().unwrap().to_owned();
    // The printer is away: the sale is done at once, its face waits.
    let away = deal(&shop, &first, topup(20_000), "t-1").await;
    let waits = until(&shop, &away, "queued").await;
    assert_eq!((&waits["printer"], &waits["card_no"]), (&json!("face-1"), &json!("8800000042")), "{waits}");
    for (id, why) in [
        (request_only, "request only"),
        (no_printer, "no printer"),
        (nothing_said, "nothing said"),
        (no_till, "no till"),
    ] {
        assert_eq!(job(&shop, &id).await, None, "{why}: its event is behind the reader of the log");
    }

    // A face that the card has outlived is not printed any more; killed in between, once.
    let spend = json!({ "kind": "spend", "amount_fen": 8_850, "reader": "counter-1" });
    let sold = deal(&shop, &first, spend.clone(), "s-1").await;
    shop.kill_and_restart().await;
    drop(card);
    until(&shop, &away, "cancelled").await;
    until(&shop, &sold, "queued").await;

    let _printer = simulate(&shop, printer);
    let done = until(&shop, &sold, "done").await;
    assert_eq!(done["attempts"], 1, "{done}");
    let faces = std::fs::read_dir(shop.desk.path("faces")).unwrap().count();
    assert_eq!(faces, 1, "the one that stands on the card");

    // A card that was given back is not printed; its till goes on with the next.
    let session = at(&shop, "till-1").await;
    let again = shop.lay(blank_with_uid(Sim::Ntag216, 9)).await;
    let new = json!({ "card_no": "8800000043", "type": "anonymous" });
    assert_eq!(over_http(&shop, &session, "/v1/cards", new, "i-2").await.0, 201);
    let other = "/v1/cards/8800000043";
    let (_, paid) = over_http(&shop, &session, &format!("{other}/transactions"), topup(500), "t-5").await;
    let paid = paid["transaction_id"].as_str().unwrap().to_owned();
    until(&shop, &paid, "done").await;
    let (status, back) =
        over_http(&shop, &session, &format!("{other}/return"), json!({ "tender": "cash" }), "b").await;
    assert_eq!(status, 200, "{back}");
    let back = back["transaction_id"].as_str().unwrap().to_owned();
    drop(again);
    let next = shop.lay(blank_with_uid(Sim::Ntag216, 10)).await;
    let new = json!({ "card_no": "8800000044", "type": "anonymous" });
    assert_eq!(over_http(&shop, &session, "/v1/cards", new, "i-3").await.0, 201);
    let (_, last) = over_http(&shop, &session, "/v1/cards/8800000044/transactions", topup(700), "t-6").await;
    let last = last["transaction_id"].as_str().unwrap().to_owned();
    until(&shop, &last, "done").await;
    assert_eq!(job(&shop, &back).await, None, "given back");
    drop(next);

    let (told, stored) = close(shop, &[&away, &sold]).await;
    let fields = json!({ "card_no": "8800000042", "qr": "8800000042", "points": 88, "balance_fen": 15_150 });
    assert_eq!(stored[1].fields, fields, "as the sale left the card");
    assert_eq!(
        (stored[0].fields["balance_fen"].as_i64(), &*stored[0].template),
        (Some(24_000), "member-face.svg")
    );
    // Each behind its ledger row, and each once.
    for id in [&away, &sold, &paid, &last] {
        let place = |kind: &str, member: &str, more: &dyn Fn(&Value) -> bool| -> Vec<usize> {
            let of = told.iter().enumerate();
            of.filter(|(_, (told, data))| told == kind && data[member] == id.as_str() && more(data))
                .map(|(place, _)| place)
                .collect()
        };
        let booked = place("card.transaction", "transaction_id", &|data| data["outcome"] == "committed");
        let queued =
            place("printer.job", "job", &|data| data["state"] == "queued" && data.get("error").is_none());
        assert_eq!((booked.len(), queued.len()), (1, 1), "{id}");
        assert!(booked[0] < queued[0], "{id}: the face was queued before the ledger told it");
    }
}
