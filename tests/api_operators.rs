//! People at the tills over real HTTP: accounts, logging in and out, wrong PINs, what a session
//! may do, leases of readers, shifts. The rules in time are tested beside their state machines.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod served;

use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use baygate::api::SessionLife;
use baygate::api::client::Method;
use baygate::clock::UtcMillis;
use baygate::event::card::Technology;
use baygate::store::devices::{CardInField, DeviceOp};
use baygate::store::{Batch, Op};
use serde_json::{Value, json};
use served::{Reply, Served, Setup, devices};

const PIN: &str = "271828182845";
const WRONG: &str = "271828182846";
const EVERYTHING: &[&str] = &["read", "spend", "topup", "issue", "print", "vehicle"];

/// Serves two tills.
async fn shop(setup: Setup) -> Served {
    let served = setup.serve().await;
    let mut directory = devices();
    directory.tills.push("till-2".parse().unwrap());
    served.directory.send(Arc::new(directory)).unwrap();
    served
}

/// Pairs a till; its token.
async fn pair(served: &Served, till: &str, scopes: &[&str]) -> String {
    let wanted = json!({ "till": till, "scopes": scopes });
    let opened = served.client().await.request(Method::POST, "/v1/pairings", Some(&wanted)).await.unwrap();
    let code = json!({ "code": opened.accepted().unwrap()["code"] }).to_string();
    let reply =
        served.send("POST", "/v1/pairings/redeem", &[("Content-Type", "application/json")], &code).await;
    reply.json()["token"].as_str().unwrap().to_owned()
}

async fn admin(served: &Served, method: Method, path: &str, body: Option<Value>) -> (u16, Value) {
    let answer = served.client().await.request(method, path, body.as_ref()).await.unwrap();
    (answer.status, answer.body)
}

async fn add(served: &Served, id: &str, role: &str) {
    let wanted = json!({ "id": id, "name": "李伟", "role": role, "pin": PIN });
    let (status, body) = admin(served, Method::POST, "/v1/operators", Some(wanted)).await;
    assert_eq!(status, 201, "{body}");
}

async fn change(served: &Served, id: &str, wanted: Value) -> (u16, Value) {
    admin(served, Method::POST, &format!("/v1/operators/{id}"), Some(wanted)).await
}

async fn try_login(served: &Served, till: &str, id: &str, pin: &str) -> Reply {
    served.post(till, "/v1/operator-sessions", &json!({ "operator": id, "pin": pin })).await
}

/// Logs in; the session's token.
async fn log_in(served: &Served, till: &str, id: &str) -> String {
    let reply = try_login(served, till, id, PIN).await;
    assert_eq!(reply.status, 201, "{reply:?}");
    reply.json()["token"].as_str().unwrap().to_owned()
}

async fn delete(served: &Served, token: &str, path: &str) -> Reply {
    served.send("DELETE", path, &[("Authorization", &format!("Bearer {token}"))], "").await
}

async fn record(served: &Served) -> Vec<(String, String, String)> {
    let (_, log) = admin(served, Method::GET, "/v1/operator-log", None).await;
    let text = |line: &Value, member: &str| line[member].as_str().unwrap().to_owned();
    let lines = log["lines"].as_array().unwrap().iter();
    lines.map(|line| (text(line, "what"), text(line, "operator"), text(line, "place"))).collect()
}

#[tokio::test]
async fn a_session_does_what_both_till_and_role_allow_and_no_more() {
    let served = shop(Setup::new()).await;
    // (role, the till's scopes, what the session may do)
    let cases: [(&str, &[&str], &[&str]); 5] = [
        ("cashier", EVERYTHING, &["read", "spend", "topup", "print"]),
        ("manager", EVERYTHING, EVERYTHING),
        ("technician", EVERYTHING, &["read", "vehicle"]),
        ("admin", EVERYTHING, EVERYTHING),
        ("cashier", &["read", "vehicle"], &["read"]),
    ];
    for (number, (role, till, expected)) in cases.into_iter().enumerate() {
        let (id, till) = (format!("op-{number}"), pair(&served, "till-1", till).await);
        add(&served, &id, role).await;
        let reply = try_login(&served, &till, &id, PIN).await;
        let got = reply.json();
        assert_eq!(got["scopes"], json!(expected), "{role}");
        assert_eq!((&got["operator"]["id"], &got["till"]), (&json!(id), &json!("till-1")));
        assert_eq!((&got["idle_s"], &got["expires_in_s"]), (&json!(900), &json!(43_200)));
        let session = got["token"].as_str().unwrap();
        assert!(session.starts_with("bgs_"));
        assert_eq!(served.get(session, "/v1/readers").await.status, 200);
        assert_eq!(served.get(session, "/v1/operators").await.problem(), (403, "scope-missing".into()));
        // A technician may ask a car, a cashier may not; the link is unknown, so nothing is asked.
        let scan = served.post(session, "/v1/vehicles/bay-9/scan", &json!({})).await.status;
        assert_eq!(scan == 403, !expected.contains(&"vehicle"), "{role}: {scan}");
    }
    served.stop().await;
}

/// A session that may do nothing could not even be ended.
#[tokio::test]
async fn who_may_do_nothing_at_a_till_is_not_logged_in() {
    let served = shop(Setup::new()).await;
    let till = pair(&served, "till-1", &["spend"]).await;
    add(&served, "tech", "technician").await;
    add(&served, "li.wei", "cashier").await;
    let refused = try_login(&served, &till, "tech", PIN).await;
    assert_eq!(refused.problem(), (403, "role-not-at-this-till".into()));
    let line = ("refused".to_owned(), "tech".to_owned(), "till-1".to_owned());
    assert_eq!(record(&served).await[0], line);
    // The wrong PIN tells nothing of the role; another role meanwhile ends the session.
    assert_eq!(try_login(&served, &till, "tech", WRONG).await.problem().1, "login-refused");
    let session = log_in(&served, &till, "li.wei").await;
    change(&served, "li.wei", json!({ "role": "technician" })).await;
    assert_eq!(
        delete(&served, &session, "/v1/operator-sessions").await.problem(),
        (401, "session-over".into())
    );
    served.stop().await;
}

#[tokio::test]
async fn sessions_end_by_logging_out_by_locking_and_with_the_tills_token() {
    let served = shop(Setup::new()).await;
    let till = pair(&served, "till-1", EVERYTHING).await;
    add(&served, "li.wei", "cashier").await;
    let over = |token: String| {
        let served = &served;
        async move {
            let reply = served.get(&token, "/v1/readers").await;
            reply.status == 401 && reply.problem().1 == "session-over"
        }
    };

    let session = log_in(&served, &till, "li.wei").await;
    assert_eq!(delete(&served, &session, "/v1/operator-sessions").await.status, 204);
    assert!(over(session).await);
    assert_eq!(delete(&served, &till, "/v1/operator-sessions").await.problem().1, "operator-needed");

    let session = log_in(&served, &till, "li.wei").await;
    let again = log_in(&served, &till, "li.wei").await;
    assert!(over(session).await, "one session a person and till");
    assert_eq!(change(&served, "li.wei", json!({ "locked": true })).await.0, 200);
    assert!(over(again).await);
    assert_eq!(try_login(&served, &till, "li.wei", PIN).await.problem(), (403, "operator-locked".into()));
    assert_eq!(try_login(&served, &till, "li.wei", WRONG).await.problem(), (403, "login-refused".into()));
    change(&served, "li.wei", json!({ "locked": false })).await;

    let session = log_in(&served, &till, "li.wei").await;
    assert_eq!(change(&served, "li.wei", json!({ "pin": "141421356237" })).await.0, 200);
    assert!(over(session).await, "a new PIN ends sessions");
    change(&served, "li.wei", json!({ "pin": PIN })).await;

    let session = log_in(&served, &till, "li.wei").await;
    change(&served, "li.wei", json!({ "role": "technician" })).await;
    assert_eq!(served.post(&session, "/v1/shifts/open", &json!({})).await.problem().1, "scope-missing");
    let (_, tokens) = admin(&served, Method::GET, "/v1/tokens", None).await;
    let id = tokens["tokens"][0]["id"].as_str().unwrap();
    admin(&served, Method::DELETE, &format!("/v1/tokens/{id}"), None).await;
    assert!(over(session).await, "the till was taken back");
    served.stop().await;
}

/// Whoever has begun to log in with the old PIN is not logged in behind its end.
#[tokio::test]
async fn no_session_of_an_old_pin_outlives_its_change() {
    let served = shop(Setup::new()).await;
    let till = pair(&served, "till-1", EVERYTHING).await;
    add(&served, "li.wei", "cashier").await;
    let pins = [PIN, "141421356237"];
    for round in 0..4 {
        let (old, new) = (pins[round % 2], pins[(round + 1) % 2]);
        // Hashing the new PIN lets the login wait in line; it reads the old hash right behind.
        let (changed, login) = tokio::join!(
            change(&served, "li.wei", json!({ "pin": new })),
            try_login(&served, &till, "li.wei", old)
        );
        assert_eq!(changed.0, 200);
        if login.status == 201 {
            let token = login.json()["token"].as_str().unwrap().to_owned();
            assert_eq!(served.get(&token, "/v1/readers").await.problem().1, "session-over", "round {round}");
        }
    }
    served.stop().await;
}

#[tokio::test]
async fn an_idle_session_is_over() {
    let mut setup = Setup::new();
    setup.limits.session = SessionLife { idle: Duration::ZERO, longest: Duration::from_secs(60) };
    let served = shop(setup).await;
    let till = pair(&served, "till-1", EVERYTHING).await;
    add(&served, "li.wei", "cashier").await;
    let session = log_in(&served, &till, "li.wei").await;
    assert_eq!(served.get(&session, "/v1/readers").await.problem(), (401, "session-over".into()));
    served.stop().await;
}

#[tokio::test]
async fn wrong_pins_lock_out_also_over_a_restart_until_unlocked() {
    let served = shop(Setup::new()).await;
    let till = pair(&served, "till-1", EVERYTHING).await;
    add(&served, "li.wei", "cashier").await;
    // An id that nobody has is treated alike.
    for id in ["li.wei", "nobody"] {
        for _ in 0..5 {
            assert_eq!(try_login(&served, &till, id, WRONG).await.problem(), (403, "login-refused".into()));
        }
        let reply = try_login(&served, &till, id, PIN).await;
        assert_eq!(reply.problem(), (429, "too-many-attempts".into()), "{id}: the right PIN comes too late");
        let wait: u64 = reply.header("retry-after").unwrap().parse().unwrap();
        assert!((1..=60).contains(&wait), "{wait}");
    }
    let served = shop(Setup::in_dir(served.stop().await)).await;
    for id in ["li.wei", "nobody"] {
        assert_eq!(try_login(&served, &till, id, PIN).await.problem().1, "too-many-attempts", "{id}");
    }
    let (_, listed) = admin(&served, Method::GET, "/v1/operators", None).await;
    assert_eq!(listed["operators"][0]["wrong_pins"], 5);
    let (_, now) = change(&served, "li.wei", json!({ "locked": false })).await;
    assert_eq!(now["wrong_pins"], 0);
    log_in(&served, &till, "li.wei").await;

    let told = record(&served).await;
    let line = |what: &str, who: &str, place: &str| (what.to_owned(), who.to_owned(), place.to_owned());
    assert_eq!(told[0], line("login", "li.wei", "till-1"));
    assert_eq!(told[1], line("unlocked", "li.wei", "control"));
    assert_eq!(told.iter().filter(|told| **told == line("wrong-pin", "nobody", "till-1")).count(), 5);
    assert_eq!(told.last().unwrap(), &line("added", "li.wei", "control"));
    served.stop().await;
}

/// Whatever is no id stands in the record as `?`: it locks nobody who mistypes another one.
#[tokio::test]
async fn what_is_no_id_is_not_locked() {
    let served = shop(Setup::new()).await;
    let till = pair(&served, "till-1", EVERYTHING).await;
    for n in 0..7 {
        let refused = try_login(&served, &till, &format!("Li Wei {n}"), WRONG).await;
        assert_eq!(refused.problem(), (403, "login-refused".into()), "{n}");
    }
    let line = ("wrong-pin".to_owned(), "?".to_owned(), "till-1".to_owned());
    assert_eq!(record(&served).await.iter().filter(|told| **told == line).count(), 7);
    served.stop().await;
}

#[tokio::test]
async fn guesses_at_once_are_guesses_all_the_same() {
    let served = shop(Setup::new()).await;
    let till = pair(&served, "till-1", EVERYTHING).await;
    add(&served, "li.wei", "cashier").await;
    let guesses = (0..12).map(|_| try_login(&served, &till, "li.wei", WRONG));
    let mut told: Vec<u16> =
        futures_util::future::join_all(guesses).await.iter().map(|reply| reply.problem().0).collect();
    told.sort_unstable();
    assert_eq!(told, [[403; 5].as_slice(), [429; 7].as_slice()].concat());
    served.stop().await;
}

#[tokio::test]
async fn no_pin_is_written_anywhere() {
    let served = shop(Setup::new()).await;
    let till = pair(&served, "till-1", EVERYTHING).await;
    add(&served, "li.wei", "cashier").await;
    log_in(&served, &till, "li.wei").await;
    try_login(&served, &till, "li.wei", WRONG).await;
    // Typed into the wrong field.
    try_login(&served, &till, PIN, PIN).await;
    assert_eq!(record(&served).await[0].1, "?");
    let written: Vec<u8> = ["baygate.db", "baygate.db-wal"]
        .iter()
        .flat_map(|file| std::fs::read(served.dir.path().join(file)).unwrap())
        .collect();
    let holds = |text: &str| written.windows(text.len()).any(|window| window == text.as_bytes());
    assert!(holds("li.wei"), "what is looked through is what was written");
    assert!(!holds(PIN) && !holds(WRONG), "a PIN stands in the database");
    served.stop().await;
}

#[tokio::test]
async fn a_card_names_its_operator_and_the_pin_is_needed_all_the_same() {
    let served = shop(Setup::new()).await;
    let till = pair(&served, "till-1", EVERYTHING).await;
    add(&served, "li.wei", "cashier").await;
    let by_card = |pin: &'static str| {
        let (served, till) = (&served, till.clone());
        async move {
            served.post(&till, "/v1/operator-sessions", &json!({ "reader": "counter-1", "pin": pin })).await
        }
    };
    let lay = |uid: &str| {
        let card = CardInField {
            reader: "counter-1".parse().unwrap(),
            uid: uid.parse().unwrap(),
            technology: Technology::MifareClassic1k,
            atr: None,
            since: UtcMillis::now(),
        };
        served.store.commit(Batch::new().op(Op::Device(DeviceOp::CardPresent(card))))
    };
    assert_eq!(by_card(PIN).await.problem(), (409, "no-card".into()));
    lay("04A1B2C3").await.unwrap();
    assert_eq!(by_card(PIN).await.problem(), (403, "not-an-operator-card".into()));
    assert_eq!(change(&served, "li.wei", json!({ "card": "04A1B2C3" })).await.0, 200);
    assert_eq!(by_card(WRONG).await.problem(), (403, "login-refused".into()));
    let reply = by_card(PIN).await;
    assert_eq!((reply.status, &reply.json()["operator"]["id"]), (201, &json!("li.wei")));
    add(&served, "wang.fang", "cashier").await;
    let taken = change(&served, "wang.fang", json!({ "card": "04A1B2C3" })).await;
    assert_eq!((taken.0, &taken.1["code"]), (409, &json!("exists-already")));
    assert_eq!(change(&served, "li.wei", json!({ "card": null })).await.0, 200);
    assert_eq!(by_card(PIN).await.problem().1, "not-an-operator-card");
    served.stop().await;
}

#[tokio::test]
async fn bad_requests_are_refused_with_what_to_do() {
    let served = shop(Setup::new()).await;
    let till = pair(&served, "till-1", EVERYTHING).await;
    let script = served.token(&["read", "spend"]).await;
    let root = served.token(&["admin"]).await;
    let good = json!({ "id": "li.wei", "name": "李伟", "role": "cashier", "pin": PIN });
    let with = |member: &str, value: Value| {
        let mut body = good.clone();
        body[member] = value;
        body
    };
    let number: i64 = PIN.parse().unwrap();
    let decimal: f64 = format!("{PIN}.5").parse().unwrap();
    // (token, path, body, status, code)
    let cases = [
        (&root, "/v1/operators", with("pin", json!("123456")), 422, "pin-too-weak"),
        (&root, "/v1/operators", with("pin", json!("31415")), 422, "pin-too-weak"),
        (&root, "/v1/operators", with("pin", json!("31415a")), 422, "pin-too-weak"),
        (&root, "/v1/operators", with("name", json!("")), 422, "operator-invalid"),
        (&root, "/v1/operators", with("id", json!("Li Wei")), 400, "body-invalid"),
        (&root, "/v1/operators", with("role", json!("boss")), 400, "body-invalid"),
        (&root, "/v1/operators", with("card", json!("04a1")), 400, "body-invalid"),
        (&root, "/v1/operators", with("boss", json!(true)), 400, "body-invalid"),
        (&root, "/v1/operators", good.clone(), 201, ""),
        (&root, "/v1/operators", good.clone(), 409, "exists-already"),
        (&root, "/v1/operators/nobody", json!({ "locked": true }), 404, "not-found"),
        (&till, "/v1/operator-sessions", json!({ "pin": PIN }), 422, "login-invalid"),
        (&till, "/v1/operator-sessions", json!({ "operator": "", "pin": PIN }), 422, "login-invalid"),
        (
            &till,
            "/v1/operator-sessions",
            json!({ "operator": "a", "reader": "b", "pin": PIN }),
            422,
            "login-invalid",
        ),
        (&till, "/v1/operator-sessions", json!({ "reader": "counter-9", "pin": PIN }), 404, "not-found"),
        (&till, "/v1/operator-sessions", json!({ "operator": "li.wei" }), 400, "body-invalid"),
        (&till, "/v1/operator-sessions", json!({ "operator": "li.wei", "pin": number }), 400, "body-invalid"),
        (
            &till,
            "/v1/operator-sessions",
            json!({ "operator": "li.wei", "pin": -number }),
            400,
            "body-invalid",
        ),
        (
            &till,
            "/v1/operator-sessions",
            json!({ "operator": "li.wei", "pin": decimal }),
            400,
            "body-invalid",
        ),
        (&root, "/v1/operators/li.wei", json!({ "pin": number }), 400, "body-invalid"),
        (&script, "/v1/operator-sessions", json!({ "operator": "li.wei", "pin": PIN }), 403, "till-needed"),
        (&till, "/v1/shifts/open", json!({}), 403, "operator-needed"),
        (&script, "/v1/shifts/close", json!({}), 403, "operator-needed"),
        (&till, "/v1/readers/counter-9/lease", json!({}), 404, "not-found"),
        (&till, "/v1/readers/counter-1/lease", json!({ "seconds": 0 }), 422, "lease-invalid"),
        (&till, "/v1/readers/counter-1/lease", json!({ "seconds": 301 }), 422, "lease-invalid"),
    ];
    for (token, path, body, status, code) in cases {
        let reply = served.post(token, path, &body).await;
        let told = if code.is_empty() { (reply.status, String::new()) } else { reply.problem() };
        assert_eq!(told, (status, code.to_owned()), "{path} {body}");
        assert!(!reply.body.contains(PIN), "{reply:?}");
    }
    served.stop().await;
}

#[tokio::test]
async fn two_tills_never_mix_at_one_reader() {
    let served = shop(Setup::new()).await;
    let first = pair(&served, "till-1", EVERYTHING).await;
    let second = pair(&served, "till-2", EVERYTHING).await;
    let looker = served.token(&["read"]).await;
    add(&served, "li.wei", "cashier").await;
    let path = "/v1/readers/counter-1/lease";
    let taken = served.post(&first, path, &json!({ "seconds": 120 })).await;
    assert_eq!((taken.status, taken.json()), (200, json!({ "till": "till-1", "expires_in_s": 120 })));
    let refused = served.post(&second, path, &json!({})).await;
    assert_eq!(refused.problem(), (409, "reader-leased".into()));
    assert_eq!(refused.json()["till"], "till-1");
    assert!(refused.header("retry-after").unwrap().parse::<u64>().unwrap() > 100);
    // Not its card, nor a login by the card that lies there; whoever only looks, may.
    let card = "/v1/readers/counter-1/card";
    assert_eq!(served.get(&second, card).await.problem().1, "reader-leased");
    let login = json!({ "reader": "counter-1", "pin": PIN });
    assert_eq!(served.post(&second, "/v1/operator-sessions", &login).await.problem().1, "reader-leased");
    assert_eq!((served.get(&first, card).await.status, served.get(&looker, card).await.status), (204, 204));
    assert_eq!(delete(&served, &second, path).await.problem().1, "reader-leased");
    let shown = served.get(&looker, "/v1/readers").await.json();
    assert_eq!(shown["readers"][0]["lease"]["till"], "till-1");

    // Nor in the list of readers.
    let there = CardInField {
        reader: "counter-1".parse().unwrap(),
        uid: "04A1B2C3".parse().unwrap(),
        technology: Technology::MifareClassic1k,
        atr: None,
        since: UtcMillis::now(),
    };
    served.store.commit(Batch::new().op(Op::Device(DeviceOp::CardPresent(there)))).await.unwrap();
    for (token, sees) in [(&first, true), (&second, false), (&looker, true)] {
        let listed = served.get(token, "/v1/readers").await;
        assert_eq!(listed.body.contains("04A1B2C3"), sees, "{listed:?}");
    }

    // The lease is the till's, whoever is logged in there.
    let session = log_in(&served, &first, "li.wei").await;
    assert_eq!(served.post(&session, path, &json!({})).await.status, 200);
    assert_eq!(delete(&served, &session, path).await.status, 204);
    assert_eq!(delete(&served, &first, path).await.problem(), (404, "not-found".into()));
    assert_eq!(served.post(&second, path, &json!({})).await.status, 200);
    assert!(
        served.get(&looker, "/v1/readers").await.json()["readers"][0]["lease"]["expires_in_s"].is_number()
    );

    // A till that was taken back lets go at once, a gateway that starts anew knows of none.
    let (_, tokens) = admin(&served, Method::GET, "/v1/tokens", None).await;
    let of_second = tokens["tokens"].as_array().unwrap().iter().find(|t| t["till"] == "till-2").unwrap();
    let token = format!("/v1/tokens/{}", of_second["id"].as_str().unwrap());
    assert_eq!(admin(&served, Method::DELETE, &token, None).await.0, 204);
    assert_eq!(served.post(&first, path, &json!({})).await.status, 200);
    let served = shop(Setup::in_dir(served.stop().await)).await;
    let third = pair(&served, "till-2", EVERYTHING).await;
    assert_eq!(served.post(&third, path, &json!({})).await.status, 200);
    served.stop().await;
}

#[tokio::test]
async fn a_lease_that_is_not_renewed_ends() {
    let served = shop(Setup::new()).await;
    let first = pair(&served, "till-1", EVERYTHING).await;
    let second = pair(&served, "till-2", EVERYTHING).await;
    let path = "/v1/readers/counter-1/lease";
    served.post(&first, path, &json!({ "seconds": 1 })).await;
    served::until("the lease ends", || async {
        served.post(&second, path, &json!({ "seconds": 60 })).await.status == 200
    })
    .await;
    assert_eq!(served.post(&first, path, &json!({})).await.problem().1, "reader-leased");
    served.stop().await;
}

#[tokio::test]
async fn a_shift_is_opened_once_and_lasts_over_a_restart() {
    let served = shop(Setup::new()).await;
    let till = pair(&served, "till-1", EVERYTHING).await;
    let other = pair(&served, "till-2", EVERYTHING).await;
    add(&served, "li.wei", "cashier").await;
    add(&served, "wang.fang", "manager").await;
    let li = log_in(&served, &till, "li.wei").await;
    let nothing = json!({});
    assert_eq!(served.post(&li, "/v1/shifts/close", &nothing).await.problem(), (409, "no-open-shift".into()));
    let opened = served.post(&li, "/v1/shifts/open", &nothing).await;
    assert_eq!(opened.status, 201, "{opened:?}");
    let again = served.post(&li, "/v1/shifts/open", &nothing).await;
    assert_eq!(again.problem(), (409, "shift-open".into()));
    assert_eq!(again.json()["shift"], opened.json()["id"]);
    let elsewhere = log_in(&served, &other, "wang.fang").await;
    assert_eq!(served.post(&elsewhere, "/v1/shifts/open", &nothing).await.status, 201);

    let served = shop(Setup::in_dir(served.stop().await)).await;
    assert_eq!(served.get(&li, "/v1/shifts").await.problem().1, "session-over", "people log in again");
    let wang = log_in(&served, &till, "wang.fang").await;
    assert_eq!(served.post(&wang, "/v1/shifts/open", &nothing).await.problem().1, "shift-open");
    let closed = served.post(&wang, "/v1/shifts/close", &nothing).await;
    assert_eq!(closed.status, 200, "{closed:?}");
    let shift = closed.json();
    assert_eq!((&shift["id"], &shift["till"]), (&opened.json()["id"], &json!("till-1")));
    assert_eq!((&shift["opened_by"], &shift["closed_by"]), (&json!("li.wei"), &json!("wang.fang")));
    assert_eq!(shift["totals"], json!([]), "nothing was taken");
    let listed = served.get(&wang, "/v1/shifts").await.json();
    let open = |shift: &Value| shift["closed_at"].is_null();
    assert_eq!(listed["shifts"].as_array().unwrap().iter().filter(|shift| open(shift)).count(), 1);
    served.stop().await;
}

/// A configuration that names the socket.
fn config(served: &Served) -> String {
    let file = served.dir.path().join("baygate.toml");
    let text = format!(
        "[gateway]\nstore = \"SH-0042\"\nid = \"gw-1\"\n\n[api]\ncontrol_socket = {:?}\n",
        served.socket.display().to_string()
    );
    std::fs::write(&file, text).unwrap();
    file.display().to_string()
}

fn baygate(config: &str, words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_baygate"));
    command.args(["operator"]).args(words).args(["--config", config, "--locale", "en"]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Runs a command with a line of standard input, off the threads that serve it.
async fn run(config: &str, words: &[&str], input: &'static str) -> (i32, String) {
    let mut command = baygate(config, words);
    let done = tokio::task::spawn_blocking(move || {
        let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
        use std::io::Write as _;
        // A command that reads nothing may be gone already.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        child.wait_with_output().unwrap()
    });
    let done = done.await.unwrap();
    let told = String::from_utf8([done.stdout, done.stderr].concat()).unwrap();
    (done.status.code().unwrap(), told)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_does_all_of_it() {
    let served = shop(Setup::new()).await;
    let config = config(&served);
    let till = pair(&served, "till-1", EVERYTHING).await;
    let words = ["add", "li.wei", "--name", "李伟", "--role", "cashier", "--card", "04A1B2C3"];
    // (arguments, standard input, exit, said)
    let cases: [(&[&str], &'static str, i32, &str); 9] = [
        (&words, "", 1, "nothing was typed"),
        (&words, "123456\n", 2, "pin-too-weak"),
        (&words, "271828182845\n", 0, "li.wei"),
        (&words, "271828182845\n", 4, "exists-already"),
        (&["list"], "", 0, "04A1B2C3"),
        (&["set", "li.wei", "--role", "manager", "--no-card"], "", 0, "manager"),
        (&["set", "nobody", "--role", "manager"], "", 2, "not-found"),
        (&["lock", "li.wei"], "", 0, "yes"),
        (&["log"], "", 0, "locked"),
    ];
    for (words, input, exit, said) in cases {
        let (code, told) = run(&config, words, input).await;
        assert_eq!(code, exit, "{words:?}: {told}");
        assert!(told.contains(said) && !told.contains(PIN), "{words:?}: {told}");
    }
    assert_eq!(try_login(&served, &till, "li.wei", PIN).await.problem().1, "operator-locked");
    assert_eq!(run(&config, &["unlock", "li.wei"], "").await.0, 0);
    assert_eq!(run(&config, &["pin", "li.wei"], "314159265358\r\n").await.0, 0);
    assert_eq!(try_login(&served, &till, "li.wei", PIN).await.problem().1, "login-refused");
    assert_eq!(try_login(&served, &till, "li.wei", "314159265358").await.status, 201);
    let (_, listed) = run(&config, &["list", "--json"], "").await;
    assert_eq!(serde_json::from_str::<Value>(&listed).unwrap()["operators"][0]["role"], "manager");
    served.stop().await;
}

/// At a terminal the PIN is asked for twice and never shown.
#[tokio::test(flavor = "multi_thread")]
async fn a_typed_pin_is_not_shown() {
    let served = shop(Setup::new()).await;
    let config = config(&served);
    let till = pair(&served, "till-1", EVERYTHING).await;
    for (second, exit) in [("271828182846\n", 2), ("271828182845\n", 0)] {
        let mut command = baygate(&config, &["add", "li.wei", "--name", "李伟", "--role", "cashier"]);
        let (code, shown) = tokio::task::spawn_blocking(move || {
            use std::io::{Read as _, Write as _};
            let pty = nix::pty::openpty(None, None).unwrap();
            let mut child = command
                .stdin(Stdio::from(pty.slave.try_clone().unwrap()))
                .stderr(Stdio::from(pty.slave))
                .spawn()
                .unwrap();
            drop(command); // with its ends of the terminal
            let mut master = std::fs::File::from(pty.master);
            let mut shown = String::new();
            let mut answers = [("not shown", "271828182845\n"), ("Once more", second)].into_iter().peekable();
            let mut bytes = [0; 512];
            // Until the other end is closed.
            while let Ok(count @ 1..) = master.read(&mut bytes) {
                shown.push_str(&String::from_utf8_lossy(&bytes[..count]));
                if let Some((_, answer)) = answers.next_if(|(asked, _)| shown.contains(asked)) {
                    master.write_all(answer.as_bytes()).unwrap();
                }
            }
            (child.wait().unwrap().code().unwrap(), shown)
        })
        .await
        .unwrap();
        assert_eq!(code, exit, "{shown}");
        assert!(!shown.contains("2718"), "{shown}");
    }
    log_in(&served, &till, "li.wei").await;
    served.stop().await;
}
