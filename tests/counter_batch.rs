//! A batch of cards through the real program: each empty card gets the next row, a card that
//! will not do gets none, a row whose card left or whose program was killed is given out once
//! in the end, faces are printed, a bad list is refused with its line.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod counter_shop;
#[path = "support/daemon.rs"]
mod daemon;
#[path = "support/port.rs"]
mod port;

use std::collections::BTreeMap;

use baygate::api::client::Method;
use baygate::sim::card::{CardFault, CardSim, Chip, Technology as Sim};
use counter_shop::{Shop, blank_with_uid};
use serde_json::{Value, json};

const PATH: &str = "/v1/cards/batch";

async fn batch(shop: &Shop, id: &str) -> Value {
    let answer = shop.get(&format!("{PATH}/{id}")).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.body
}

/// Waits until the batch is so.
async fn until(shop: &Shop, id: &str, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
    let deadline = std::time::Instant::now() + daemon::LONG;
    loop {
        let now = batch(shop, id).await;
        if holds(&now) {
            return now;
        }
        assert!(std::time::Instant::now() < deadline, "never {what}: {now}");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

/// Lays a card that gets a row, and takes it away again.
async fn issued(shop: &Shop, id: &str, n: u8) -> (CardSim, Value) {
    let before = batch(shop, id).await["issued"].as_u64().unwrap();
    let card = shop.lay(blank_with_uid(Sim::Ntag215, n)).await;
    let now = until(shop, id, "one more", |now| now["issued"].as_u64() == Some(before + 1)).await;
    (card, now)
}

/// Waits until the card on the reader is this member's.
async fn member(shop: &Shop, card_no: &str) -> Value {
    let deadline = std::time::Instant::now() + daemon::LONG;
    loop {
        let answer = shop.get("/v1/readers/counter-1/card").await;
        if answer.body["member"]["card_no"] == card_no {
            return answer.body["member"].clone();
        }
        assert!(std::time::Instant::now() < deadline, "never {card_no}: {answer:?}");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

fn row(batch: &Value, n: usize) -> &Value {
    &batch["rows"][n - 1]
}

#[tokio::test(flavor = "multi_thread")]
async fn each_empty_card_gets_the_next_row_once() {
    let faces = tempfile::tempdir().unwrap();
    let printer = format!(
        "[[printer]]\nid = \"face-1\"\nkind = \"png\"\nlink = \"file://{}\"\nreader = \"counter-1\"\n",
        faces.path().display()
    );
    let mut shop = Shop::open(&printer).await;
    let csv = "卡号,type,tier,face.level\n8800000001,named,2,金卡\n8800000002,anonymous,,银卡\n\
               8800000003,,,银卡\n8800000004,,,银卡\n8800000005,,,银卡\n";
    let face = json!({ "points": 0, "balance_fen": 0, "offer": "保养", "offer_en": "Service", "qr": "https://m.example.com" });
    let wanted = json!({ "csv": csv, "face": face });
    let begun = shop.done(PATH, wanted.clone(), "b").await;
    let id = begun["batch"].as_str().unwrap().to_owned();
    assert_eq!(
        (&begun["total"], &begun["waiting"], &begun["printer"]),
        (&json!(5), &json!(5), &json!("face-1"))
    );
    assert_eq!(shop.done(PATH, wanted, "b").await["batch"], begun["batch"], "the same key, the same batch");
    assert_eq!(
        shop.refused(PATH, json!({ "range": { "from": "1", "to": "2" } }), "c").await,
        (409, "batch-open".into())
    );

    // The first card; as long as it lies there it gets no second row.
    let (card, now) = issued(&shop, &id, 1).await;
    assert_eq!(
        (&row(&now, 1)["state"], &row(&now, 1)["uid"]),
        (&json!("issued"), &json!(hex::encode_upper(&card.chip().profile().uid)))
    );
    assert_eq!(now["next"]["card_no"], "8800000002");
    let chip = card.chip();
    card.remove().await;
    // It comes again: it is somebody's already, and the row waits.
    let card = shop.lay(chip).await;
    let now = until(&shop, &id, "refused", |now| row(now, 2)["code"] == "already-issued").await;
    assert_eq!((&row(&now, 2)["state"], card.writes()), (&json!("waiting"), 0));
    assert_ne!(row(&now, 2)["text"]["zh"], "");
    card.remove().await;
    // Somebody else's card: likewise.
    let mut foreign = blank_with_uid(Sim::Ntag215, 77);
    // UPDATE BINARY of page 4.
    assert_eq!(foreign.apdu(&[0xFF, 0xD6, 0, 4, 4, 0x53, 0x48, 0x4F, 0x50]), [0x90, 0x00]);
    foreign.reset();
    let card = shop.lay(foreign).await;
    let now = until(&shop, &id, "refused", |now| row(now, 2)["code"] == "not-blank").await;
    assert_eq!((&row(&now, 2)["state"], card.writes()), (&json!("waiting"), 0));
    card.remove().await;

    // Cut in the middle: this row waits for this card, the next card gets the next row.
    let card = shop.lay(blank_with_uid(Sim::Ntag215, 2)).await;
    // Not at a counted command: how many have passed before the count begins, nobody knows.
    card.slow(std::time::Duration::from_millis(50));
    let begun = std::time::Instant::now();
    while card.writes() < 3 {
        assert!(begun.elapsed() < daemon::LONG);
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
    card.fault_after(0, CardFault::Pull);
    until(&shop, &id, "under way", |now| row(now, 2)["state"] == "issuing").await;
    let mut torn = card.chip();
    torn.reset();
    card.remove().await;
    let (card, now) = issued(&shop, &id, 3).await;
    assert_eq!((&row(&now, 2)["state"], &row(&now, 3)["state"]), (&json!("issuing"), &json!("issued")));
    card.remove().await;

    // Killed while the fourth is written.
    let begun = std::time::Instant::now();
    let card = shop.lay(blank_with_uid(Sim::Ntag215, 4)).await;
    card.slow(std::time::Duration::from_millis(20));
    while card.writes() == 0 {
        assert!(begun.elapsed() < daemon::LONG);
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
    shop.kill_and_restart().await;
    let mut killed = card.chip();
    killed.reset();
    assert_eq!(row(&batch(&shop, &id).await, 4)["state"], "issuing");
    drop(card);
    // Both come back, and are what their rows say: whole, or issued anew.
    for (chip, n) in [(torn, 2), (killed, 4)] {
        let card = shop.lay(chip).await;
        let now = until(&shop, &id, "settled", |now| row(now, n)["state"] != "issuing").await;
        if row(&now, n)["state"] == "waiting" {
            until(&shop, &id, "issued", |now| row(now, n)["state"] == "issued").await;
        }
        member(&shop, &format!("880000000{n}")).await;
        card.remove().await;
    }
    let (card, now) = issued(&shop, &id, 5).await;
    card.remove().await;
    assert_eq!((&now["state"], &now["issued"]), (&json!("done"), &json!(5)));
    let stats = shop.get("/v1/stats").await.body;
    let mine = &stats["by_operator"][0];
    assert_eq!(
        (&stats["issued"], &mine["operator"], &mine["issued"]),
        (&json!(5), &json!("control"), &json!(5))
    );
    // Each face is printed.
    for n in 1..=5 {
        let job = row(&now, n)["job"].as_str().unwrap().to_owned();
        let deadline = std::time::Instant::now() + daemon::LONG;
        while shop.get(&format!("/v1/print-jobs/{job}")).await.body["state"] != "done" {
            assert!(std::time::Instant::now() < deadline);
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    }
    assert_eq!(std::fs::read_dir(faces.path()).unwrap().count(), 5);
    // The numbers are gone for good.
    let again = json!({ "csv": "card_no\n8800000003\n", "print": false });
    let refused = shop.post(PATH, again, "d").await;
    assert_eq!((refused.status, &refused.body["faults"][0]["line"]), (422, &json!(2)));
    let (_, told) = shop.close().await;
    let mut given: BTreeMap<String, usize> = BTreeMap::new();
    for (_, data) in told.iter().filter(|(kind, _)| kind == "card.issued") {
        *given.entry(data["card_no"].as_str().unwrap().to_owned()).or_default() += 1;
    }
    let once = (1..=5).map(|n| (format!("880000000{n}"), 1)).collect();
    assert_eq!(given, once, "each row is given out once");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_list_is_refused_with_its_line_and_nothing_is_taken() {
    let shop = Shop::open("").await;
    // (body, line, part of the reason)
    let cases = [
        (json!({ "csv": "card_no,type\n1,named\n2,gold\n" }), json!(3), "named or anonymous"),
        (json!({ "csv": "card_no\n1\n1\n" }), json!(3), "line 2 already"),
        (json!({ "csv": "number\n1\n" }), json!(1), "no column"),
        (
            json!({ "csv": format!("card_no\n{}", (0..1001).map(|n| format!("{n}\n")).collect::<String>()) }),
            Value::Null,
            "at most 1000",
        ),
        (json!({ "range": { "from": "10", "to": "9" } }), Value::Null, "as many digits"),
        (json!({ "range": { "from": "0001", "to": "2000" } }), Value::Null, "at most 1000"),
        (json!({}), Value::Null, "`csv` or `range`"),
    ];
    for (n, (body, line, part)) in cases.into_iter().enumerate() {
        let answer = shop.post(PATH, body.clone(), &format!("k-{n}")).await;
        assert_eq!((answer.status, &answer.body["code"]), (422, &json!("list-invalid")), "{answer:?}");
        let fault = &answer.body["faults"][0];
        assert_eq!(fault["line"], line, "{body}");
        assert!(fault["text"]["en"].as_str().unwrap().contains(part), "{fault}");
        assert!(!fault["text"]["zh"].as_str().unwrap().is_ascii(), "{fault}");
    }
    assert_eq!(shop.get(PATH).await.body, json!({ "batches": [] }));
    assert_eq!(
        shop.refused(PATH, json!({ "range": { "from": "1", "to": "2" }, "print": true }), "p").await.0,
        422
    );

    // One that is given up leaves its numbers free, and the reader too.
    let range = json!({ "range": { "from": "0001", "to": "0003" }, "type": "anonymous" });
    let begun = shop.done(PATH, range.clone(), "r-1").await;
    let one = format!("{PATH}/{}", begun["batch"].as_str().unwrap());
    let ended =
        shop.client.request(Method::POST, &one, Some(&json!({ "state": "cancelled" }))).await.unwrap();
    assert_eq!(
        (ended.status, &ended.body["cancelled"], &ended.body["state"]),
        (200, &json!(3), &json!("done"))
    );
    let id = begun["batch"].as_str().unwrap();
    until(&shop, id, "settled", |now| now["state"] == "done").await;
    let deadline = std::time::Instant::now() + daemon::LONG;
    let mut n = 0;
    let again = loop {
        n += 1;
        let answer = shop.post(PATH, range.clone(), &format!("r-{}", n + 1)).await;
        if answer.status == 201 {
            break answer.body;
        }
        assert_eq!(answer.body["code"], "batch-open", "{answer:?}");
        assert!(std::time::Instant::now() < deadline);
    };
    assert_eq!(shop.get(PATH).await.body["batches"][0]["batch"], again["batch"]);
    shop.close().await;
}

/// Lifts a card while it is written.
async fn torn(card: CardSim) -> Chip {
    card.slow(std::time::Duration::from_millis(5));
    let begun = std::time::Instant::now();
    while card.writes() < 3 {
        assert!(begun.elapsed() < daemon::LONG);
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
    let mut chip = card.chip();
    card.remove().await;
    chip.reset();
    chip
}

async fn end(shop: &Shop, id: &str) {
    let change = json!({ "state": "cancelled" });
    let ended = shop.client.request(Method::POST, &format!("{PATH}/{id}"), Some(&change)).await.unwrap();
    assert_eq!((ended.status, &ended.body["issuing"]), (200, &json!(0)), "{ended:?}");
}

/// Begins one, once the reader's desk has closed the one before.
async fn begin(shop: &Shop, from: &str, to: &str) -> String {
    let deadline = std::time::Instant::now() + daemon::LONG;
    loop {
        let range = json!({ "range": { "from": from, "to": to } });
        // A key that was used gives the batch that it began, however long that is over.
        let answer = shop.post(PATH, range, &uuid::Uuid::new_v4().to_string()).await;
        if answer.status == 201 {
            return answer.body["batch"].as_str().unwrap().to_owned();
        }
        assert_eq!(answer.body["code"], "batch-open", "{answer:?}");
        assert!(std::time::Instant::now() < deadline, "{answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_torn_card_that_was_thrown_away_holds_up_no_later_batch() {
    let shop = Shop::open("").await;
    let first = begin(&shop, "8800000001", "8800000002").await;
    let card = shop.lay(blank_with_uid(Sim::Ntag215, 1)).await;
    let torn = torn(card).await;
    let deadline = std::time::Instant::now() + daemon::LONG;
    while shop.get("/v1/readers/counter-1/card").await.status != 204 {
        assert!(std::time::Instant::now() < deadline);
    }
    end(&shop, &first).await;
    let now = batch(&shop, &first).await;
    assert_eq!((&now["state"], &now["cancelled"]), (&json!("done"), &json!(2)), "{now}");
    assert_eq!(row(&now, 1)["code"], "issue-given-up");

    // Its number may stand on it: no other card gets it, and the next row goes on.
    let second = begin(&shop, "8800000001", "8800000002").await;
    let card = shop.lay(blank_with_uid(Sim::Ntag215, 2)).await;
    let now = until(&shop, &second, "refused", |now| row(now, 1)["state"] == "refused").await;
    assert_eq!((&row(&now, 1)["code"], card.writes()), (&json!("card-no-in-use"), 0));
    card.remove().await;
    let (card, now) = issued(&shop, &second, 2).await;
    assert_eq!((&now["state"], &row(&now, 2)["state"]), (&json!("done"), &json!("issued")));
    card.remove().await;

    // It is found again: whole, or issued anew.
    begin(&shop, "8800000001", "8800000001").await;
    let card = shop.lay(torn).await;
    member(&shop, "8800000001").await;
    card.remove().await;
    let (_, told) = shop.close().await;
    let mut given: Vec<&Value> =
        told.iter().filter(|(kind, _)| kind == "card.issued").map(|(_, data)| &data["card_no"]).collect();
    given.sort_by_key(|no| no.to_string());
    assert_eq!(given, [&json!("8800000001"), &json!("8800000002")]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_number_under_way_elsewhere_is_waited_for() {
    let shop = Shop::open("").await;
    // A till's issue whose card left in the middle.
    let card = shop.lay(blank_with_uid(Sim::Ntag215, 1)).await;
    let asked = json!({ "card_no": "8800000001", "type": "named" });
    let (cut, torn) = tokio::join!(shop.post("/v1/cards", asked, "t"), torn(card));
    assert_eq!((cut.status, &cut.body["code"]), (202, &json!("tap-again")), "{cut:?}");
    let id = begin(&shop, "8800000001", "8800000001").await;
    let card = shop.lay(blank_with_uid(Sim::Ntag215, 2)).await;
    let now = until(&shop, &id, "told", |now| row(now, 1)["code"] == "card-no-busy").await;
    assert_eq!((&row(&now, 1)["state"], card.writes()), (&json!("waiting"), 0));
    card.remove().await;
    // It comes back, and the number has its card.
    let card = shop.lay(torn).await;
    member(&shop, "8800000001").await;
    card.remove().await;

    // A number that was reported lost is told before anything is taken.
    shop.done("/v1/cards/8800000009/block", json!({ "as": "blocked" }), "block").await;
    let refused = shop.post(PATH, json!({ "csv": "card_no\n8800000009\n" }), "r").await;
    assert_eq!((refused.status, &refused.body["code"]), (422, &json!("list-invalid")), "{refused:?}");
    assert_eq!(refused.body["faults"][0]["line"], 2);
    shop.close().await;
}

/// A till's issue whose card was thrown away: it ends when somebody says so, and its number does not
/// come up on a second card.
#[tokio::test(flavor = "multi_thread")]
async fn an_issue_whose_card_was_thrown_away_is_given_up() {
    let shop = Shop::open("").await;
    let delete = async |id: &str| {
        shop.client.request(Method::DELETE, &format!("/v1/requests/{id}"), None).await.unwrap()
    };
    let asked = |no: &str| json!({ "card_no": no, "type": "named" });
    let card = shop.lay(blank_with_uid(Sim::Ntag215, 1)).await;
    let (cut, chip) = tokio::join!(shop.post("/v1/cards", asked("8800000001"), "t"), torn(card));
    assert_eq!((cut.status, &cut.body["code"]), (202, &json!("tap-again")), "{cut:?}");
    let id = cut.body["id"].as_str().unwrap();

    // Another card with that number: the answer names what has it, and how that ends.
    let card = shop.lay(blank_with_uid(Sim::Ntag215, 2)).await;
    let busy = shop.post("/v1/cards", asked("8800000001"), "u").await;
    assert_eq!((busy.status, &busy.body["code"]), (409, &json!("card-no-busy")), "{busy:?}");
    for language in ["zh", "en"] {
        assert!(busy.body["text"][language].as_str().unwrap().contains(id), "{busy:?}");
    }
    let over = delete(id).await;
    assert_eq!((over.status, &over.body["state"]), (200, &json!("failed")), "{over:?}");
    assert_eq!(over.body["outcome"]["code"], "issue-given-up");
    assert_eq!(over.body["outcome"]["by"]["operator"], "control");
    assert_eq!(delete(id).await.body, over.body, "it is over once");
    let repeated = shop.post("/v1/cards", asked("8800000001"), "t").await;
    assert_eq!((repeated.status, &repeated.body["code"]), (409, &json!("issue-given-up")), "{repeated:?}");
    let other = shop.refused("/v1/cards", asked("8800000001"), "v").await;
    assert_eq!((other, card.writes()), ((409, "card-no-in-use".into()), 0), "it may stand on the first");
    shop.issue("8800000002", "w").await;
    card.remove().await;

    // It turns up: nothing holds it, and it is issued after all.
    let card = shop.lay(chip).await;
    shop.issue("8800000001", "x").await;
    card.remove().await;

    // A row of a batch is given up by itself; the others go on.
    let batch_id = begin(&shop, "8800000003", "8800000004").await;
    torn(shop.lay(blank_with_uid(Sim::Ntag215, 3)).await).await;
    let now = until(&shop, &batch_id, "under way", |now| row(now, 1)["request"].is_string()).await;
    // Its desk has to see first that the card is gone.
    let deadline = std::time::Instant::now() + daemon::LONG;
    while delete(row(&now, 1)["request"].as_str().unwrap()).await.status == 409 {
        assert!(std::time::Instant::now() < deadline);
    }
    let now = until(&shop, &batch_id, "refused", |now| row(now, 1)["state"] == "refused").await;
    assert_eq!((&row(&now, 1)["code"], row(&now, 1).get("request")), (&json!("issue-given-up"), None));
    let (card, now) = issued(&shop, &batch_id, 4).await;
    assert_eq!((&now["state"], &row(&now, 2)["state"]), (&json!("done"), &json!("issued")));
    card.remove().await;

    // No batch, nothing that is not there; and from a terminal.
    let refused = delete(&batch_id).await;
    assert_eq!((refused.status, &refused.body["code"]), (409, &json!("not-cancellable")), "{refused:?}");
    assert_eq!(delete("0192f0c1-2d3e-7a4b-8c5d-6e7f8091a2b3").await.status, 404);
    let card = shop.lay(blank_with_uid(Sim::Ntag215, 5)).await;
    let (cut, _) = tokio::join!(shop.post("/v1/cards", asked("8800000005"), "y"), torn(card));
    let mut command = daemon::program();
    command.args(["card", "issue", "--locale", "zh-CN", "--give-up", cut.body["id"].as_str().unwrap()]);
    let said = command.arg("--config").arg(shop.desk.config()).output().await.unwrap();
    assert!(said.status.success(), "{said:?}");
    assert!(String::from_utf8_lossy(&said.stdout).contains("发卡已放弃"), "{said:?}");
    shop.close().await;
}

/// The command: a list, its end, and what it says of a bad one.
#[tokio::test(flavor = "multi_thread")]
async fn the_command_follows_a_batch_to_its_end() {
    let shop = Shop::open("").await;
    let list = shop.desk.path("members.csv");
    let run = |args: Vec<String>| {
        let mut command = daemon::program();
        command
            .args(["card", "batch", "--locale", "zh-CN"])
            .args(args)
            .arg("--config")
            .arg(shop.desk.config());
        command.stdin(std::process::Stdio::null()).kill_on_drop(true);
        command
    };
    let file = || vec!["--csv".to_owned(), list.display().to_string()];
    std::fs::write(&list, "card_no,type\n8800000001,gold\n").unwrap();
    let refused = run(file()).output().await.unwrap();
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(2), "{told}");
    assert!(told.contains("第 2 行") && told.contains("记名"), "{told}");

    std::fs::write(&list, "card_no\n8800000001\n8800000002\n").unwrap();
    let mut args = file();
    args.extend(["--json".to_owned(), "--tier".to_owned(), "3".to_owned()]);
    let running = tokio::spawn(run(args).output());
    for n in 1..=2_u8 {
        let card = shop.lay(blank_with_uid(Sim::Classic1k, n)).await;
        assert_eq!(member(&shop, &format!("880000000{n}")).await["tier"], 3);
        card.remove().await;
    }
    let done = tokio::time::timeout(daemon::LONG, running).await.unwrap().unwrap().unwrap();
    assert!(done.status.success(), "{done:?}");
    let document: Value = serde_json::from_slice(&done.stdout).unwrap();
    assert_eq!((&document["issued"], &document["state"]), (&json!(2), &json!("done")));
    assert_eq!(document["rows"].as_array().unwrap().len(), 2);
    let listed = run(vec![]).output().await.unwrap();
    assert!(String::from_utf8_lossy(&listed.stdout).contains("共 2 张：已发 2"));
    shop.close().await;
}
