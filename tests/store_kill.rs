//! kill -9 at any moment: nothing that was acknowledged is missing, nothing is
//! numbered twice, and the next start needs no repair.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod store_setup;

use std::io::{BufRead, Write};
use std::path::Path;

use baygate::event::Class;
use baygate::store::inspect::Inspection;
use baygate::store::{Batch, Store};
use store_setup::{child, event, limit, options, positions};

#[test]
#[ignore = "plays the other process"]
fn plays_the_daemon() {
    let dir = std::env::var("STORE_DIR").unwrap();
    let mut options = options(Path::new(&dir));
    options.limits = vec![(Class::Telemetry, limit(Some(50_000), 0))];
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let (store, _) = Store::open(&options).unwrap();
        let mut tasks = tokio::task::JoinSet::new();
        for worker in 0..4 {
            let store = store.clone();
            tasks.spawn(async move {
                loop {
                    let class = if worker == 0 { Class::Telemetry } else { Class::Card };
                    let told = store.commit(Batch::new().event(event(class, 300))).await.unwrap();
                    let mut out = std::io::stdout().lock();
                    writeln!(out, "kept {} {}", told[0].class, told[0].class_sequence).unwrap();
                }
            });
        }
        tasks.join_next().await;
    });
}

#[tokio::test]
async fn nothing_acknowledged_is_missing_after_kill_9() {
    let dir = tempfile::tempdir().unwrap();
    let mut acknowledged = 0;
    for round in 0..8_u64 {
        let mut daemon = child("plays_the_daemon", dir.path());
        let out = daemon.stdout.take().unwrap();
        let wanted = acknowledged + 50 + round * 37;
        for line in std::io::BufReader::new(out).lines() {
            let Ok(line) = line else { break };
            if let Some(sequence) = line.strip_prefix("kept card ") {
                acknowledged = acknowledged.max(sequence.parse().unwrap());
            }
            if acknowledged >= wanted && daemon.try_wait().unwrap().is_none() {
                // Then read on to the end: what is in the pipe was told before the kill.
                daemon.kill().unwrap();
            }
        }
        daemon.wait().unwrap();
        let (store, opened) = Store::open(&options(dir.path())).unwrap();
        assert!(!opened.clean_shutdown && opened.new_epoch.is_none() && opened.salvaged.is_none());
        let kept: Vec<u64> = positions(&store, Class::Card).await.iter().map(|(_, n)| *n).collect();
        assert_eq!(kept, (1..=kept.len() as u64).collect::<Vec<_>>(), "round {round}");
        assert!(kept.len() as u64 >= acknowledged, "round {round}: {acknowledged} told, {} kept", kept.len());
        acknowledged = kept.len() as u64;
        store.close().await;
        drop(store);
        let verdict = Inspection::open(dir.path()).unwrap().verify(&mut |_| {}).unwrap();
        assert!(verdict.sound, "round {round}: {verdict:?}");
    }
}
