//! Every refused attempt in the log: logins, rights, tokens, hosts; with who, where and why, and
//! without a PIN, a token or a card's number.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "support/log.rs"]
mod log;
mod served;

use log::Log;
use serde_json::json;
use served::Setup;
use served::people::{EVERYTHING, PIN, WRONG, add, change, log_in, pair, shop, try_login};

/// Refusals warned of since the last look.
fn warnings(log: &Log) -> Vec<String> {
    let text = String::from_utf8(log.take()).unwrap();
    text.lines().filter(|line| line.contains("WARN") && line.contains("refused")).map(str::to_owned).collect()
}

/// The one warning since the last look has all of these words.
fn one(log: &Log, words: &[&str]) {
    let warnings = warnings(log);
    let [line] = warnings.as_slice() else { panic!("{words:?}: {warnings:#?}") };
    for word in words {
        assert!(line.contains(word), "{word} is not in {line}");
    }
    for secret in [PIN, WRONG, "bg_", "bgs_", "8800000042"] {
        assert!(!line.contains(secret), "{secret} is in {line}");
    }
}

/// One test: the log is the whole program's.
#[tokio::test]
async fn every_refused_attempt_is_logged() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
    tracing::subscriber::set_global_default(subscriber).unwrap();
    let served = shop(Setup::new()).await;
    let till = pair(&served, "till-1", EVERYTHING).await;
    let printer = pair(&served, "till-2", &["print", "vehicle"]).await;
    add(&served, "li.wei", "cashier").await;
    add(&served, "tech", "technician").await;
    warnings(&log);

    // Logins.
    for (id, known) in [("li.wei", "li.wei"), ("nobody", "nobody"), (PIN, "?")] {
        assert_eq!(try_login(&served, &till, id, WRONG).await.status, 403);
        one(&log, &["wrong PIN", "till-1", &format!("operator=\"{known}\"")]);
    }
    change(&served, "li.wei", json!({ "locked": true })).await;
    assert_eq!(try_login(&served, &till, "li.wei", PIN).await.problem().1, "operator-locked");
    one(&log, &["operator is locked", "till-1", "li.wei"]);
    change(&served, "li.wei", json!({ "locked": false })).await;
    assert_eq!(try_login(&served, &printer, "li.wei", PIN).await.status, 201, "it may print");
    let tech = log_in(&served, &till, "tech").await;
    for _ in 0..5 {
        assert_eq!(try_login(&served, &till, "someone", WRONG).await.status, 403);
    }
    warnings(&log);
    assert_eq!(try_login(&served, &till, "someone", WRONG).await.status, 429);
    one(&log, &["too many wrong PINs", "till-1", "someone"]);

    // Rights.
    let path = "/v1/cards/8800000042/block";
    assert_eq!(served.post(&tech, path, &json!({})).await.problem().1, "scope-missing");
    let route = "route=\"/v1/cards/{card_no}/block\"";
    one(
        &log,
        &[
            "code=\"scope-missing\"",
            "method=POST",
            route,
            "place=\"till-1\"",
            "operator=\"tech\"",
            "from=\"127.0.0.1\"",
        ],
    );
    let script = served.token(&["issue"]).await;
    warnings(&log);
    // A right that only the handler knows of.
    let back = served.post(&script, "/v1/cards/8800000042/return", &json!({ "tender": "cash" })).await;
    assert_eq!(back.problem(), (403, "scope-missing".into()));
    one(&log, &["code=\"scope-missing\"", "route=\"/v1/cards/{card_no}/return\""]);
    assert_eq!(served.get("bg_nonsense", "/v1/readers").await.status, 401);
    one(&log, &["code=\"token-missing\"", "method=GET", "route=\"/v1/readers\"", "from=\"127.0.0.1\""]);
    let evil = served.send("X8800000042", "/v1/readers", &[("Host", "evil.example")], "").await;
    assert_eq!(evil.problem().1, "host-not-allowed");
    one(&log, &["code=\"host-not-allowed\"", "method=other", "from=\"127.0.0.1\""]);
    let page = served.send("GET", "/v1/readers", &[("Origin", "https://evil.example")], "").await;
    assert_eq!(page.problem().1, "origin-not-allowed");
    one(&log, &["code=\"origin-not-allowed\""]);
    // What is let in, and what is only wrong, is no attempt.
    assert_eq!(served.get(&script, "/healthz").await.status, 200);
    assert_eq!(served.post(&script, "/v1/cards", &json!({})).await.status / 100, 4);
    assert_eq!(warnings(&log), [""; 0]);
    // A flood leaves the log as it is.
    for _ in 0..200 {
        assert_eq!(served.get("bg_nonsense", "/v1/readers").await.status, 401);
    }
    let lines = warnings(&log).len();
    // A new minute may have begun in the middle.
    assert!((1..=120).contains(&lines), "{lines}");
    served.stop().await;
}
