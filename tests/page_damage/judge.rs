//! What must hold of a harmed file: under the commands, and after the store was opened on it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use baygate::cli::Exit;
use baygate::event::gateway::{EpochReason, GapReason, GatewayGap};
use baygate::event::{Class, EventData};
use baygate::health::Health;
use baygate::ident::CardNo;
use baygate::store::ledger::State;
use baygate::store::{Batch, Offset, Opened, Store, StoreError, inspect};
use tokio_util::sync::CancellationToken;

use super::truth::{
    ASIDE, DELIVERED, EVENTS, LARGE, REQUESTS, TRANSACTIONS, Truth, all, assert_kept, exported,
};
use crate::buffer_command::command;
use crate::store_setup::{event, options};

/// Far more than any of it takes: what is longer hangs.
const DEADLINE: Duration = Duration::from_secs(60);

type Identity = (String, uuid::Uuid, String);

/// The commands on a harmed file: an end in time, no wrong word, nothing changed.
async fn look(case: &str, truth: &Truth, dir: &Path, excused: &BTreeSet<i64>) -> bool {
    let before = std::fs::read(dir.join("baygate.db")).unwrap();
    let place = dir.to_owned();
    let verdict = tokio::task::spawn_blocking(move || inspect::verify(&place, &mut |_| {})).await.unwrap();
    let verdict = verdict.unwrap_or_else(|error| panic!("{case}: {error}"));
    let out = dir.join("out.jsonl");
    let exit = command(dir, &["export", "--output", out.to_str().unwrap()]).await;
    assert!(out.exists(), "{case}: export ended {exit:?} with nothing");
    let found = exported(&std::fs::read_to_string(&out).unwrap());
    assert_kept(case, truth, &found, excused);
    let missing = truth.events.keys().filter(|offset| !found.contains_key(offset)).count();
    assert!(
        missing == 0 || exit == Ok(Exit::Failed),
        "{case}: {missing} events missing, export ended {exit:?}"
    );
    assert!(missing == 0 || !verdict.sound, "{case}: {missing} events missing, verify says {verdict:?}");
    let backup = command(dir, &["backup", dir.join("copy.db").to_str().unwrap()]).await;
    assert_eq!(backup.is_ok(), dir.join("copy.db").exists(), "{case}: {backup:?}");
    assert!(missing == 0 || backup.is_err(), "{case}: a backup of a damaged file was called good");
    assert!(!dir.join("copy.db.part").exists(), "{case}");
    for words in [["quarantine", "list"], ["quarantine", "dump"]] {
        // To its end, or to a word of what cannot be read.
        let aside = command(dir, &words).await;
        let damaged = !verdict.sound && aside.as_ref().is_err_and(|said| !said.is_empty());
        assert!(aside == Ok(Exit::Done) || damaged, "{case}: {words:?}: {aside:?}");
    }
    assert!(std::fs::read(dir.join("baygate.db")).unwrap() == before, "{case}: looking changed the file");
    verdict.sound
}

/// A good backup over a harmed file: it is all there again, and what lay there is kept as it was.
async fn restored(case: &str, truth: &Truth, harmed: &[u8]) {
    let dir = tempfile::tempdir().unwrap();
    let (data, good) = (dir.path().join("data"), dir.path().join("good.db"));
    std::fs::create_dir(&data).unwrap();
    std::fs::write(data.join("baygate.db"), harmed).unwrap();
    std::fs::write(&good, &truth.backup).unwrap();
    assert_eq!(command(&data, &["restore", good.to_str().unwrap()]).await, Ok(Exit::Done), "{case}");
    let names = std::fs::read_dir(&data).unwrap().map(|entry| entry.unwrap().path());
    let aside: Vec<_> = names.filter(|path| path.to_str().unwrap().contains(".before-restore-")).collect();
    assert!(aside.len() == 1 && std::fs::read(&aside[0]).unwrap() == harmed, "{case}: {aside:?}");
    assert!(std::fs::read(&good).unwrap() == truth.backup, "{case}: the backup changed");
    let (store, opened) = Store::open(&options(&data)).unwrap_or_else(|error| panic!("{case}: {error}"));
    assert_eq!(opened.new_epoch, Some(EpochReason::Restored), "{case}");
    let found = all(&store).await;
    assert!(truth.events.iter().all(|(at, event)| found.get(at) == Some(event)), "{case}");
    let aside = store.read(|r| r.quarantined(Offset(0), 1000)).await.unwrap();
    assert_eq!(aside.len() as u64, ASIDE, "{case}");
    store.close().await;
}

/// Opens a harmed file, as the daemon would, until it is salvaged where it has to be. True when
/// the first look saw it, before anything was written.
async fn salvage(case: &str, dir: &Path, sound: bool) -> (Store, Opened, bool) {
    let (store, opened) = Store::open(&options(dir)).unwrap_or_else(|error| panic!("{case}: {error}"));
    if sound || opened.salvaged.is_some() {
        let at_once = opened.salvaged.is_some();
        return (store, opened, at_once);
    }
    // What the quick look does not see, the full check would (tests/store_damage.rs); here it is told at once.
    store.note_damage(&StoreError::Damaged { what: case.to_owned() });
    store.close().await;
    drop(store);
    let (store, opened) = Store::open(&options(dir)).unwrap_or_else(|error| panic!("{case}: {error}"));
    (store, opened, false)
}

async fn judge(case: &str, truth: &Truth, dir: &Path, harmed: &[u8], excused: &BTreeSet<i64>, sound: bool) {
    let (store, opened, at_once) = salvage(case, dir, sound).await;
    let found = all(&store).await;
    assert_kept(case, truth, &found, excused);
    let Some(report) = opened.salvaged.clone() else {
        assert!(sound, "{case}: {opened:?}");
        // A word of `meta` that rotted may look like a clone's: one epoch more harms nobody.
        assert!(opened.new_epoch.is_none() || case.contains("meta"), "{case}: {opened:?}");
        assert!(truth.events.keys().all(|at| found.contains_key(at)), "{case}");
        store.close().await;
        return;
    };
    assert_eq!(opened.new_epoch, Some(EpochReason::Salvaged), "{case}");
    assert_ne!(opened.epoch, truth.first.epoch, "{case}");
    let aside = std::fs::read(&report.aside).unwrap();
    assert!(!at_once || aside == harmed, "{case}: the damaged original is not what it was");
    assert!(aside.len() >= harmed.len(), "{case}: the damaged original is not whole");
    // Every number of the old epoch is there, delivered, or told as lost; none is both there and lost.
    let mut told = 0;
    let mut known: BTreeMap<Class, BTreeSet<u64>> = BTreeMap::new();
    for (class, sequence, (epoch, ..)) in found.values() {
        if *epoch == truth.first.epoch.to_string() {
            known.entry(*class).or_default().insert(*sequence);
        }
    }
    let gateway =
        store.read(|r| r.class_events_after(Class::Gateway, Default::default(), 10_000)).await.unwrap();
    for logged in gateway {
        assert_eq!(&*logged.event.kind, GatewayGap::TYPE, "{case}");
        assert_eq!(logged.event.epoch, opened.epoch, "{case}");
        let gap = logged.event.data_as::<GatewayGap>().unwrap();
        assert_eq!((gap.reason, gap.gap_epoch), (GapReason::Damaged, Some(truth.first.epoch)), "{case}");
        told += gap.count;
        for sequence in gap.from.0..=gap.to.0 {
            assert!(
                known.entry(gap.class).or_default().insert(sequence),
                "{case}: {gap:?} is there and lost"
            );
        }
    }
    assert_eq!(report.lost, told, "{case}");
    for (class, last) in [
        (Class::Card, EVENTS),
        (Class::Ledger, EVENTS + u64::from(TRANSACTIONS)),
        (Class::Vehicle, EVENTS / 50 + LARGE),
    ] {
        let known = known.remove(&class).unwrap_or_default();
        // Nobody can know what was given out where the counters are cut off with all the rest.
        if case.starts_with("cut to") && !report.ledger_complete && known.is_empty() {
            continue;
        }
        let from = if class == Class::Card { DELIVERED + 1 } else { 1 };
        assert!((from..=last).all(|n| known.contains(&n)), "{case}: {class} {known:?}");
    }
    // The hold stands where it has to, and is told.
    let ledger_lost =
        truth.events.iter().any(|(at, (class, ..))| *class == Class::Ledger && !found.contains_key(at));
    assert!(!ledger_lost || !report.ledger_complete, "{case}: {report:?}");
    let kept: i64 = {
        let conn = rusqlite::Connection::open(dir.join("baygate.db")).unwrap();
        conn.query_row("SELECT count(*) FROM request WHERE idempotency_key LIKE 'key-%'", [], |row| {
            row.get(0)
        })
        .unwrap()
    };
    assert!(kept == REQUESTS as i64 || !report.requests_complete, "{case}: {kept} requests, {report:?}");
    // Neither is an altered amount ever believed, nor one that is missing overlooked.
    let card_no = CardNo::new("8800001").unwrap();
    let (card, rows) = store
        .read(move |r| Ok((r.member_card(&card_no)?, r.transactions_of(&card_no, None, 1000)?)))
        .await
        .unwrap_or_else(|error| panic!("{case}: {error}"));
    let whole = rows.len() == TRANSACTIONS as usize && card.is_some();
    assert!(whole || !report.requests_complete, "{case}: {} transactions, {report:?}", rows.len());
    let odd = rows.iter().find(|row| row.fact.amount_fen.0 != 1 || row.state != State::Committed);
    assert!(odd.is_none(), "{case}: {odd:?}, {report:?}");
    let held = store.read(|r| r.card_writes_held()).await.unwrap();
    assert_eq!(held.is_some(), !report.ledger_complete || !report.requests_complete, "{case}: {report:?}");
    let (health, stop) = (Health::default(), CancellationToken::new());
    store.start_background(health.clone(), stop.clone());
    let raised = health.troubles().iter().any(|trouble| trouble.code == "card-writes-held");
    assert_eq!(raised, held.is_some(), "{case}");
    // Life goes on, from one.
    let next = store.commit(Batch::new().event(event(Class::Card, 10))).await.unwrap();
    assert_eq!((next[0].class_sequence.0, next[0].epoch), (1, opened.epoch), "{case}");
    store.close().await;
    drop(store);
    let verdict = inspect::verify(dir, &mut |_| {}).unwrap();
    assert!(verdict.sound, "{case}: {verdict:?}");
}

/// Runs cases side by side; each has its deadline. `BAYGATE_CASE`: only those that hold this text.
pub async fn run_all(mut cases: Vec<(String, Vec<u8>, BTreeSet<i64>, bool)>, truth: Truth) {
    if let Ok(wanted) = std::env::var("BAYGATE_CASE") {
        cases.retain(|(case, ..)| case.contains(&wanted));
        assert!(!cases.is_empty(), "no case holds {wanted:?}");
    }
    let (truth, mut running) = (Arc::new(truth), tokio::task::JoinSet::new());
    let slots = Arc::new(tokio::sync::Semaphore::new(4));
    for (case, bytes, excused, must_be_seen) in cases {
        let (truth, slots) = (Arc::clone(&truth), Arc::clone(&slots));
        running.spawn(async move {
            let _slot = slots.acquire_owned().await.unwrap();
            let work = async {
                let dir = tempfile::tempdir().unwrap();
                std::fs::write(dir.path().join("baygate.db"), &bytes).unwrap();
                let sound = look(&case, &truth, dir.path(), &excused).await;
                assert!(!sound || !must_be_seen, "{case}: verify saw nothing");
                restored(&case, &truth, &bytes).await;
                judge(&case, &truth, dir.path(), &bytes, &excused, sound).await;
            };
            tokio::time::timeout(DEADLINE, work).await.unwrap_or_else(|_| panic!("{case} hangs"));
        });
    }
    let mut failed = Vec::new();
    while let Some(ended) = running.join_next().await {
        if let Err(error) = ended {
            failed.push(error.to_string());
        }
    }
    assert!(failed.is_empty(), "{} cases failed; see above:\n{}", failed.len(), failed.join("\n"));
}
