//! People at the tills over real HTTP: accounts, logging in and out, wrong PINs, what a session
//! may do. The rules in time are tested beside their state machines.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod served;

use std::time::Duration;

use baygate::api::SessionLife;
use baygate::api::client::Method;
use baygate::clock::UtcMillis;
use baygate::event::card::Technology;
use baygate::store::devices::{CardInField, DeviceOp};
use baygate::store::{Batch, Op};
use serde_json::{Value, json};
use served::Setup;
use served::people::{
    EVERYTHING, PIN, WRONG, add, admin, change, delete, log_in, pair, record, shop, try_login,
};

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
