//! Cards that are not here, over real HTTP and by the command line: what the store knows of one,
//! its transactions, reported lost and taken into use again, and what a till took in a shift.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod ledger_rows;
mod served;

use std::process::{Command, Stdio};

use baygate::event::Class;
use baygate::event::ledger::{CardStanding, CardStatus, CardType, TenderKind, TransactionKind};
use baygate::store::Store;
use baygate::store::hotlist::HotlistOp;
use baygate::store::ledger::{End, Evidence};
use baygate::store::ledger_cards::{By, SeenCard};
use baygate::store::outbox::ClassCursor;
use baygate::store::{Batch, Op};
use ledger_rows::{Deed, card, done, spend, tap, top_up};
use serde_json::json;
use served::people::{EVERYTHING, pair, person, post_with_key, shop};
use served::{Served, Setup};

/// Every `card.status` in the log.
async fn statuses(store: &Store) -> Vec<CardStatus> {
    let read =
        |r: &baygate::store::Reader<'_>| r.class_events_after(Class::Ledger, ClassCursor::default(), 500);
    let events = store.read(read).await.unwrap();
    let of = events.iter().filter(|logged| logged.event.kind == "card.status");
    of.map(|logged| logged.event.data_as().unwrap()).collect()
}

async fn seen(served: &Served, n: u32, card_type: CardType) -> SeenCard {
    let card = card(n, card_type);
    tap(&served.store, &card).await;
    card
}

#[tokio::test]
async fn what_the_store_knows_of_a_card() {
    let served = Setup::new().serve().await;
    let token = served.token(&["read"]).await;
    let mut card = seen(&served, 1, CardType::Named).await;
    let path = format!("/v1/cards/{}", card.card_no);
    for fen in 1..=6 {
        done(&served.store, &mut card, &Deed { points: 2, bonus: 10, ..top_up(fen * 100) }).await;
    }
    let known = served.get(&token, &path).await.json();
    let expected = json!({
        "card_no": card.card_no, "uid": card.uid, "technology": "ntag215", "type": "named",
        "issuing_store": "SH-0042", "status": "active", "hotlisted": false, "principal_fen": 2_100,
        "bonus_fen": 60, "balance_fen": 2_160, "points": 12, "coupons": [], "counter": 6,
        "known_at": known["known_at"], "unsettled": [], "offers": [], "reminders": [],
    });
    assert_eq!(known, expected);

    // One waits for its tap; what it would do is not yet so.
    let open = ledger_rows::begin(&served.store, &card, &spend(500)).await;
    let known = served.get(&token, &path).await.json();
    assert_eq!((&known["balance_fen"], &known["counter"]), (&json!(2_160), &json!(6)));
    let unsettled = &known["unsettled"][0];
    assert_eq!((&unsettled["state"], &unsettled["amount_fen"]), (&json!("intent"), &json!(-500)));
    assert_eq!(unsettled["transaction_id"], json!(open.fact.transaction_id));
    ledger_rows::end(&served.store, &mut card, open.fact.transaction_id, End::Unknown).await;

    // Pages, newest first, none twice, none left out.
    let (mut ids, mut before, mut pages) = (Vec::new(), String::new(), 0);
    loop {
        let page = served.get(&token, &format!("{path}/transactions?limit=3{before}")).await.json();
        let rows = page["transactions"].as_array().unwrap();
        assert!((1..=3).contains(&rows.len()));
        ids.extend(rows.iter().map(|row| row["transaction_id"].as_str().unwrap().to_owned()));
        pages += 1;
        match page["next"].as_i64() {
            Some(next) => before = format!("&before={next}"),
            None => break,
        }
    }
    assert_eq!((ids.len(), pages), (7, 3));
    assert!(ids.windows(2).all(|pair| pair[0] > pair[1]), "newest first: {ids:?}");
    let page = served.get(&token, &format!("{path}/transactions?limit=2")).await.json();
    let (newest, before) = (&page["transactions"][0], &page["transactions"][1]);
    assert_eq!((&newest["state"], &newest["outcome"]), (&json!("unknown"), &json!("unknown")));
    assert!(newest.get("balance_after_fen").is_none(), "{newest}");
    assert_eq!((&before["state"], &before["balance_after_fen"]), (&json!("committed"), &json!(2_160)));
    assert_eq!((&before["business_day"], &before["kind"]), (&json!("2026-11-22"), &json!("topup")));

    // Stopped by headquarters.
    let cards = vec![card.card_no.clone()];
    let hotlist = HotlistOp::Put { version: 1, as_of: baygate::clock::UtcMillis::now(), cards };
    served.store.commit(Batch::new().op(Op::Hotlist(hotlist))).await.unwrap();
    assert_eq!(served.get(&token, &path).await.json()["hotlisted"], true);

    for unknown in ["/v1/cards/4711", "/v1/cards/4711/transactions", "/v1/cards/%20", "/v1/cards/x_y"] {
        assert_eq!(served.get(&token, unknown).await.problem(), (404, "card-not-known".into()), "{unknown}");
    }
    let bad = served.get(&token, &format!("{path}/transactions?before=x")).await;
    assert_eq!(bad.problem(), (400, "query-invalid".into()));
    served.stop().await;
}

#[tokio::test]
async fn lost_and_found_again() {
    let served = shop(Setup::new()).await;
    let till = pair(&served, "till-1", EVERYTHING).await;
    let manager = person(&served, &till, "wang.fang", "manager").await;
    let cashier = person(&served, &till, "li.wei", "cashier").await;
    let named = seen(&served, 1, CardType::Named).await;
    let anonymous = seen(&served, 2, CardType::Anonymous).await;
    let path = |card: &SeenCard, what: &str| format!("/v1/cards/{}/{what}", card.card_no);
    let (block, unblock) = (path(&named, "block"), path(&named, "unblock"));
    let script = served.token(&["issue"]).await;

    // (token, path, body, status, code)
    let lost = json!({ "reason": "电话挂失" });
    let nothing = json!({});
    let cases = [
        (&cashier, &block, &lost, 403, "scope-missing"),
        (&till, &block, &lost, 403, "operator-needed"),
        (&script, &unblock, &nothing, 409, "card-not-blocked"),
        (&manager, &unblock, &nothing, 409, "card-not-blocked"),
        (&manager, &block, &json!({ "reason": "" }), 422, "reason-invalid"),
        (&manager, &block, &json!({ "reason": "a\nb" }), 422, "reason-invalid"),
        (&manager, &block, &json!({ "reason": "长".repeat(201) }), 422, "reason-invalid"),
        (&manager, &block, &json!({ "as": "returned" }), 400, "body-invalid"),
        (&manager, &path(&anonymous, "block"), &lost, 409, "loss-report-not-allowed"),
        (&manager, &"/v1/cards/4711/unblock".to_owned(), &nothing, 404, "card-not-known"),
        (&manager, &"/v1/cards/x_y/block".to_owned(), &lost, 404, "card-not-known"),
    ];
    for (token, path, body, status, code) in cases {
        let refused = served.post(token, path, body).await.problem();
        assert_eq!(refused, (status, code.to_owned()), "{path} {body}");
    }
    assert_eq!(statuses(&served.store).await, [], "nothing of it was told");

    let first = served.post(&manager, &block, &lost).await;
    assert_eq!(first.status, 200, "{first:?}");
    let told = first.json();
    assert_eq!((&told["status"], &told["was"]), (&json!("lost"), &json!("active")));
    assert_eq!((&told["operator"], &told["till"]), (&json!("wang.fang"), &json!("till-1")));
    assert_eq!(served.post(&manager, &block, &lost).await.problem(), (409, "card-lost".into()));
    let shown = served.get(&manager, &format!("/v1/cards/{}", named.card_no)).await.json();
    assert_eq!(shown["status"], "lost");
    assert_eq!(served.post(&manager, &unblock, &json!({ "reason": "找回" })).await.json()["was"], "lost");
    // The house may stop any card.
    let stop = json!({ "as": "blocked" });
    let stopped = served.post(&manager, &path(&anonymous, "block"), &stop).await.json();
    assert_eq!(stopped["status"], "blocked");

    let told = statuses(&served.store).await;
    let facts: Vec<_> =
        told.iter().map(|status| (status.card_no.clone(), status.status, status.reason.as_deref())).collect();
    assert_eq!(
        facts,
        [
            (named.card_no.clone(), CardStanding::Lost, Some("电话挂失")),
            (named.card_no.clone(), CardStanding::Active, Some("找回")),
            (anonymous.card_no.clone(), CardStanding::Blocked, None),
        ]
    );
    for status in &told {
        assert_eq!(status.operator.as_deref(), Some("wang.fang"));
        assert_eq!(status.till.as_ref().unwrap().as_str(), "till-1");
    }

    // What never comes back.
    let by = || By { operator: "li".into(), till: "till-1".parse().unwrap() };
    let card_no = named.card_no.clone();
    let row = served.store.read(move |r| r.member_card(&card_no)).await.unwrap().unwrap();
    served.store.commit(row.stands(CardStanding::Replaced, None, by()).unwrap()).await.unwrap();
    for path in [&block, &unblock] {
        assert_eq!(served.post(&manager, path, &nothing).await.problem(), (409, "card-replaced".into()));
    }
    served.stop().await;
}

/// A member calls; the card was never here. Whoever comes with it is refused at the first tap.
#[tokio::test]
async fn a_card_that_was_never_seen_is_reported_lost() {
    let served = shop(Setup::new()).await;
    let till = pair(&served, "till-1", EVERYTHING).await;
    let manager = person(&served, &till, "wang.fang", "manager").await;
    let unseen = card(7, CardType::Named);
    let path = |what: &str| format!("/v1/cards/{}/{what}", unseen.card_no);
    let lost = json!({ "reason": "电话挂失" });
    let first = post_with_key(&served, &manager, &path("block"), &lost, "k-1").await;
    assert_eq!((first.status, &first.json()["seen"]), (200, &json!(false)), "{first:?}");
    assert_eq!(post_with_key(&served, &manager, &path("block"), &lost, "k-1").await.json(), first.json());
    assert_eq!(served.post(&manager, &path("block"), &lost).await.problem(), (409, "card-lost".into()));
    let undone = served.post(&manager, &path("unblock"), &json!({})).await.json();
    assert_eq!((&undone["was"], &undone["status"]), (&json!("lost"), &json!("active")));
    let nothing = served.post(&manager, &path("unblock"), &json!({})).await;
    assert_eq!(nothing.problem(), (404, "card-not-known".into()));
    assert_eq!(served.post(&manager, &path("block"), &json!({ "as": "blocked" })).await.status, 200);

    // The report outlives a restart; the first tap takes it over.
    let served = shop(Setup::in_dir(served.stop().await)).await;
    let manager = person(&served, &till, "zhao.min", "manager").await;
    tap(&served.store, &unseen).await;
    let shown = served.get(&manager, &format!("/v1/cards/{}", unseen.card_no)).await.json();
    assert_eq!(shown["status"], "blocked");
    let told = served.post(&manager, &path("unblock"), &json!({})).await.json();
    assert_eq!((&told["was"], &told["seen"]), (&json!("blocked"), &json!(true)));
    let told = statuses(&served.store).await;
    let facts: Vec<_> = told.iter().map(|status| (status.status, status.uid.is_some())).collect();
    let stood =
        [CardStanding::Lost, CardStanding::Active, CardStanding::Blocked].map(|status| (status, false));
    assert_eq!(facts, [&stood[..], &[(CardStanding::Active, true)]].concat());
    assert!(told.iter().all(|status| status.operator.is_some() && status.till.is_some()));
    served.stop().await;
}

/// How many reports of cards that were never here are kept is bounded.
#[tokio::test]
async fn reports_of_unseen_cards_are_bounded() {
    let served = shop(Setup::new()).await;
    let token = served.token(&["issue"]).await;
    let most = usize::try_from(baygate::store::card_reports::MOST_REPORTS).unwrap();
    let by = || By { operator: "li".into(), till: "till-1".parse().unwrap() };
    for chunk in (0..most).collect::<Vec<_>>().chunks(500) {
        let mut batch = Batch::new();
        for n in chunk {
            let card_no = format!("99{n:06}").parse().unwrap();
            let active = CardStanding::Active;
            let one = baygate::store::card_reports::stands(&card_no, active, CardStanding::Lost, None, by());
            batch.ops.extend(one.unwrap().ops);
        }
        served.store.commit(batch).await.unwrap();
    }
    let full = served.post(&token, "/v1/cards/4711/block", &json!({})).await;
    assert_eq!(full.problem(), (409, "too-many-reports".into()));
    served.stop().await;
}

#[tokio::test]
async fn a_key_finds_the_first_answer_also_after_a_restart() {
    let served = shop(Setup::new()).await;
    let till = pair(&served, "till-1", EVERYTHING).await;
    let manager = person(&served, &till, "wang.fang", "manager").await;
    let card = seen(&served, 1, CardType::Named).await;
    let (block, unblock) =
        (format!("/v1/cards/{}/block", card.card_no), format!("/v1/cards/{}/unblock", card.card_no));
    let wish = json!({ "reason": "电话挂失" });
    let first = post_with_key(&served, &manager, &block, &wish, "k-1").await;
    assert_eq!(first.status, 200, "{first:?}");
    assert_eq!(post_with_key(&served, &manager, &block, &wish, "k-1").await.json(), first.json());
    assert_eq!(post_with_key(&served, &manager, &unblock, &json!({}), "k-2").await.status, 200);

    let served = shop(Setup::in_dir(served.stop().await)).await;
    let manager = person(&served, &till, "zhao.min", "manager").await;
    // The card is in use again: the old key tells what it did, and does nothing.
    let again = post_with_key(&served, &manager, &block, &wish, "k-1").await;
    assert_eq!((again.status, again.json()), (200, first.json()));
    let other = post_with_key(&served, &manager, &block, &json!({}), "k-1").await;
    assert_eq!(other.problem(), (422, "idempotency-key-reused".into()));
    let shown = served.get(&manager, &format!("/v1/cards/{}", card.card_no)).await.json();
    assert_eq!(shown["status"], "active");
    assert_eq!(statuses(&served.store).await.len(), 2);
    served.stop().await;
}

#[tokio::test]
async fn many_at_once_change_it_once() {
    let served = shop(Setup::new()).await;
    let till = pair(&served, "till-1", EVERYTHING).await;
    let manager = person(&served, &till, "wang.fang", "manager").await;
    let card = seen(&served, 1, CardType::Named).await;
    let (block, nothing) = (format!("/v1/cards/{}/block", card.card_no), json!({}));
    let at_once = (0..8).map(|_| served.post(&manager, &block, &nothing));
    let mut told: Vec<u16> =
        futures_util::future::join_all(at_once).await.iter().map(|reply| reply.status).collect();
    told.sort_unstable();
    assert_eq!(told, [200, 409, 409, 409, 409, 409, 409, 409]);
    assert_eq!(statuses(&served.store).await.len(), 1);
    served.stop().await;
}

#[tokio::test]
async fn a_shift_is_what_its_till_took() {
    let served = shop(Setup::new()).await;
    let till = pair(&served, "till-1", EVERYTHING).await;
    let li = person(&served, &till, "li.wei", "cashier").await;
    let mut card = seen(&served, 1, CardType::Named).await;
    let mut other = seen(&served, 2, CardType::Named).await;
    let store = &served.store;
    let (open, close, nothing) = ("/v1/shifts/open", "/v1/shifts/close", json!({}));
    done(store, &mut card, &top_up(10_000)).await;
    // Begun before the shift, committed in it: the money is in this till's drawer.
    tap(store, &other).await;
    let late = ledger_rows::begin(store, &other, &top_up(700)).await.fact.transaction_id;
    assert_eq!(served.post(&li, open, &nothing).await.status, 201);
    let empty = served.post(&li, close, &nothing).await.json();
    assert_eq!(empty["totals"], json!([]), "nothing was taken");

    assert_eq!(served.post(&li, open, &nothing).await.status, 201);
    ledger_rows::end(store, &mut other, late, End::Committed(Evidence::default())).await;
    let tenders = vec![(TenderKind::Purse, 1_000), (TenderKind::Wechat, 250), (TenderKind::Points, 50)];
    done(store, &mut card, &Deed { tenders, ..spend(1_000) }).await;
    done(store, &mut card, &Deed { till: "till-2", ..spend(77) }).await;
    done(store, &mut card, &Deed { operator: "wang.fang", ..spend(200) }).await;
    let back = vec![(TenderKind::Purse, 300), (TenderKind::Wechat, 100)];
    let refund = Deed { kind: TransactionKind::Refund, principal: 300, tenders: back, ..Deed::default() };
    done(store, &mut card, &refund).await;
    tap(store, &card).await;
    let aborted = ledger_rows::begin(store, &card, &spend(5)).await.fact.transaction_id;
    ledger_rows::end(store, &mut card, aborted, End::Aborted).await;
    let unknown = ledger_rows::begin(store, &card, &spend(6)).await.fact.transaction_id;
    ledger_rows::end(store, &mut card, unknown, End::Unknown).await;
    // Also where the log of the shift was delivered and trimmed: totals come from the ledger.
    let closed = served.post(&li, close, &nothing).await.json();
    let total =
        |tender: &str, count: u64, fen: i64| json!({ "tender": tender, "count": count, "amount_fen": fen });
    let expected = json!([
        total("purse", 3, 900),
        total("points", 1, 50),
        total("cash", 1, 700),
        total("wechat", 2, 150),
    ]);
    assert_eq!(closed["totals"], expected);

    // What was settled after the end is the next shift's.
    assert_eq!(served.post(&li, open, &nothing).await.status, 201);
    ledger_rows::end(store, &mut card, unknown, End::Committed(Evidence::default())).await;
    let next = served.post(&li, close, &nothing).await.json();
    assert_eq!(next["totals"], json!([total("purse", 1, 6)]));
    let listed = served.get(&li, "/v1/shifts").await.json();
    assert_eq!(listed["shifts"][1]["totals"], expected, "as told at closing");
    served.stop().await;
}

/// A configuration that names the socket.
fn config(served: &Served) -> String {
    let file = served.dir.path().join("baygate.toml");
    let socket = served.socket.display().to_string();
    let text =
        format!("[gateway]\nstore = \"SH-0042\"\nid = \"gw-1\"\n\n[api]\ncontrol_socket = {socket:?}\n");
    std::fs::write(&file, text).unwrap();
    file.display().to_string()
}

async fn run(config: &str, words: &[&str]) -> (i32, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_baygate"));
    command.args(["card"]).args(words).args(["--config", config, "--locale", "en"]);
    command.stdin(Stdio::null());
    let done = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    (done.status.code().unwrap(), String::from_utf8([done.stdout, done.stderr].concat()).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_does_all_of_it() {
    let served = shop(Setup::new()).await;
    let config = config(&served);
    let mut named = seen(&served, 1, CardType::Named).await;
    let anonymous = seen(&served, 2, CardType::Anonymous).await;
    done(&served.store, &mut named, &top_up(12_345)).await;
    let (named, anonymous) = (named.card_no.as_str(), anonymous.card_no.as_str());
    // (arguments, exit, said)
    let cases: [(&[&str], i32, &str); 15] = [
        (&["show", named], 0, "balance: ¥123.45"),
        (&["show", "4711"], 2, "card-not-known"),
        (&["show", "no card"], 2, "card number"),
        (&["transactions", named], 0, "committed"),
        (&["transactions", named, "--limit", "1", "--json"], 0, "\"balance_after_fen\":12345"),
        (&["block", named, "--reason", "电话挂失", "--operator", "li.wei"], 0, "reported lost (li.wei"),
        (&["block", named], 4, "card-lost"),
        (&["show", named], 0, "status: lost"),
        (&["unblock", named, "--json"], 0, "\"operator\":\"control\""),
        (&["block", anonymous], 4, "loss-report-not-allowed"),
        (&["block", anonymous, "--stop"], 0, "blocked"),
        (&["stats", "--day", "2026-11-22"], 0, "top-up"),
        (&["stats", "--day", "2026-11-22", "--by", "tender"], 0, "¥123.45"),
        (&["stats", "--day", "2026-11-22", "--by", "operator", "--json"], 0, "\"operator\":\"li.wei\""),
        (&["stats", "--day", "yesterday"], 2, "day-invalid"),
    ];
    for (words, exit, said) in cases {
        let (code, told) = run(&config, words).await;
        assert_eq!(code, exit, "{words:?}: {told}");
        assert!(told.contains(said), "{words:?}: {told}");
    }
    let told = statuses(&served.store).await;
    assert_eq!(told[0].operator.as_deref(), Some("li.wei"));
    assert_eq!(told[0].till.as_ref().unwrap().as_str(), "control");
    let (_, help) = run(&config, &["--help"]).await;
    assert!(help.contains("Example"), "{help}");
    let key = ["block", named, "--idempotency-key", "k-1", "--json"];
    let first = run(&config, &key).await;
    assert_eq!((first.0, &first.1), (0, &run(&config, &key).await.1), "{first:?}");
    let folder = served.stop().await;
    assert_eq!(run(&config, &["stats"]).await.0, 3, "nobody is there");
    drop(folder);
}
