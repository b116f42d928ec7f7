//! `baygate buffer` beside a running store, and where it has to be stopped.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

#[path = "support/buffer_command.rs"]
mod buffer_command;
mod store_setup;

use std::path::Path;

use baygate::cli::Exit;
use baygate::event::Class;
use baygate::store::outbox::OutboxOp;
use baygate::store::{Batch, Op, Store};
use buffer_command::command;
use store_setup::{delivered, fact, options};

#[tokio::test]
async fn the_command_works_beside_a_running_store() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let (store, _) = Store::open(&options(&data)).unwrap();
    for _ in 0..5 {
        store.commit(fact(Class::Card)).await.unwrap();
        store.commit(fact(Class::Device)).await.unwrap();
    }
    store.commit(delivered(Class::Card, 1, 3)).await.unwrap();
    let first = store.read(|r| r.event_at(baygate::store::Offset(1))).await.unwrap().unwrap();
    let aside = OutboxOp::SetAside { offset: first.offset, reason: "0x99".into(), envelope: "{}".into() };
    store.commit(Batch::new().op(Op::Outbox(aside))).await.unwrap();

    let out = dir.path().join("out.jsonl");
    for (words, sequences) in [
        (vec!["export"], (1..=10).collect::<Vec<u64>>()),
        (vec!["export", "--class", "card"], vec![1, 3, 5, 7, 9]),
        (vec!["export", "--class", "card", "--unsent"], vec![7, 9]),
    ] {
        let output = ["--output", out.to_str().unwrap()];
        let words: Vec<&str> = words.into_iter().chain(output).collect();
        assert_eq!(command(&data, &words).await, Ok(Exit::Done), "{words:?}");
        let text = std::fs::read_to_string(&out).unwrap();
        let exported: Vec<u64> = text
            .lines()
            .map(|line| {
                let event: serde_json::Value = serde_json::from_str(line).unwrap();
                assert_eq!(event["source"], "/stores/SH-0042/gateways/gw-1");
                event["sequence"].as_str().unwrap().parse().unwrap()
            })
            .collect();
        assert_eq!(exported, sequences, "{words:?}");
    }
    let copy = dir.path().join("copy.db");
    let copy = copy.to_str().unwrap();
    for (words, expected) in [
        (vec!["status"], Ok(Exit::Done)),
        (vec!["status", "--json"], Ok(Exit::Done)),
        (vec!["verify", "--json"], Ok(Exit::Done)),
        (vec!["quarantine", "list"], Ok(Exit::Done)),
        (vec!["quarantine", "dump"], Ok(Exit::Done)),
        (vec!["backup", copy], Ok(Exit::Done)),
        (vec!["verify", copy], Ok(Exit::Done)),
    ] {
        assert_eq!(command(&data, &words).await, expected, "{words:?}");
    }
    let refused = command(&data, &["backup", copy]).await.unwrap_err();
    assert!(refused.contains(copy), "{refused}");
    let refused = command(&data, &["export", "--class", "cards"]).await.unwrap_err();
    assert!(refused.contains("ledger, gateway, card"), "{refused}");
    let refused = command(&dir.path().join("nothing"), &["status"]).await.unwrap_err();
    assert!(refused.contains("nothing"), "{refused}");
    store.close().await;
    drop(store);
    assert_eq!(command(&data, &["restore", copy]).await, Ok(Exit::Done));
    // A file that is not sound is a failure, not a success with bad news.
    let raw = rusqlite::Connection::open(data.join("baygate.db")).unwrap();
    raw.execute("DELETE FROM event WHERE class = 2 AND class_sequence = 4", []).unwrap();
    drop(raw);
    assert_eq!(command(&data, &["verify"]).await, Ok(Exit::Failed));
}

#[test]
#[ignore = "plays the other process"]
fn plays_the_holder() {
    let dir = std::env::var("STORE_DIR").unwrap();
    let _store = Store::open(&options(Path::new(&dir))).unwrap();
    println!("\nholding");
    let _ = std::io::BufRead::lines(std::io::stdin().lock()).next();
}

#[tokio::test]
async fn a_restore_under_a_running_daemon_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut holder = store_setup::child("plays_the_holder", dir.path());
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(holder.stdout.take().unwrap()));
    assert!(lines.any(|line| line.unwrap() == "holding"));
    let copy = dir.path().join("copy.db");
    let copy = copy.to_str().unwrap();
    assert_eq!(command(dir.path(), &["backup", copy]).await, Ok(Exit::Done));
    assert_eq!(command(dir.path(), &["restore", copy]).await, Ok(Exit::Refused));
    holder.kill().unwrap();
    holder.wait().unwrap();
}
