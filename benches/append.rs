//! Durable append of 512-byte events: the store's `commit` with 256 at once
//! against a bare rusqlite loop. Equal: rows, schema, index, page size, WAL,
//! `synchronous=FULL`, rows in a transaction (the bare loop takes as many as our
//! groups had on average). Not ours alone: seal, checks and counters are in our time.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]

mod setup;

use std::io::Write;
use std::path::Path;
use std::time::Instant;

use baygate::event::{Class, NewEvent};
use baygate::store::{Batch, Store};
use futures_util::{StreamExt, stream};
use rusqlite::{Connection, params};
use setup::figures::{Figure, Found, digits, median, quantile};
use setup::{RUNS, fill, folder, number, process};

/// Commits under way at the same time. A group takes up to 100; the others fill the next one meanwhile.
const CALLERS: usize = 256;
/// Of these, in one task, at most.
const IN_A_TASK: usize = 64;

#[derive(Clone, Copy)]
struct Run {
    rate: f64,
    group: f64,
    written: f64,
}

fn main() {
    let mut found = Found::default();
    let events = number("BAYGATE_BENCH_EVENTS", 200_000);
    let (ours, bare) = compare(events, CALLERS);
    let group = of(&ours, |run| run.group);
    found.figures.push(Figure::ratio(
        "durable append, 512-byte events, 256 at once",
        "/s",
        of(&ours, |run| run.rate),
        of(&bare, |run| run.rate),
        Some(0.7),
    ));
    found.figures.push(written("bytes to the disk per event, 256 at once", &ours, &bare));
    found.notes.push(format!(
        "append: {CALLERS} commits under way at once, {events} events a run, {} events in a transaction on both sides",
        digits(group.round())
    ));
    let (ours, bare) = compare(events / 200, 1);
    found.figures.push(Figure::ratio(
        "durable append, one at a time",
        "/s",
        of(&ours, |run| run.rate),
        of(&bare, |run| run.rate),
        None,
    ));
    found.figures.push(written("bytes to the disk per event, one at a time", &ours, &bare));
    found.notes.push(sync_of_the_disk());
    found.keep("append");
}

fn compare(events: usize, callers: usize) -> (Vec<Run>, Vec<Run>) {
    let (mut ours, mut bare) = (Vec::new(), Vec::new());
    for _ in setup::rounds("append", 0..RUNS) {
        let run = through_the_store(events, callers);
        ours.push(run);
        bare.push(bare_loop(events, run.group.round() as usize));
    }
    (ours, bare)
}

fn of(runs: &[Run], what: impl Fn(&Run) -> f64) -> f64 {
    median(runs.iter().map(what).collect())
}

fn written(figure: &str, ours: &[Run], bare: &[Run]) -> Figure {
    let bytes = |runs| format!("{} B", digits(of(runs, |run| run.written)));
    Figure::told(figure, bytes(ours), format!("{} (payload {} B)", bytes(bare), fill::BODY_BYTES))
}

fn rows(events: usize) -> Vec<NewEvent> {
    (0..events).map(|n| fill::event(Class::Card, n)).collect()
}

fn through_the_store(events: usize, callers: usize) -> Run {
    let folder = folder();
    // One thread: the writer has the other of two cores, as the bare loop has one to itself.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    runtime.block_on(async {
        let (store, _) = Store::open(&fill::options(folder.path())).unwrap();
        let tasks = callers.div_ceil(IN_A_TASK);
        let mut shares: Vec<Vec<NewEvent>> = vec![Vec::new(); tasks];
        for (n, event) in rows(events).into_iter().enumerate() {
            shares[n % tasks].push(event);
        }
        let (commits, before) = (store.head().borrow().commits, process::written(std::process::id()));
        let began = Instant::now();
        let callers: Vec<_> = shares
            .into_iter()
            .map(|share| {
                let store = store.clone();
                tokio::spawn(async move {
                    let commits = share.into_iter().map(|event| store.commit(Batch::new().event(event)));
                    let mut commits = stream::iter(commits).buffer_unordered(callers.min(IN_A_TASK));
                    while let Some(committed) = commits.next().await {
                        committed.unwrap();
                    }
                })
            })
            .collect();
        for caller in callers {
            caller.await.unwrap();
        }
        let took = began.elapsed().as_secs_f64();
        let groups = store.head().borrow().commits - commits;
        store.close().await;
        let written = process::written(std::process::id()) - before;
        Run {
            rate: events as f64 / took,
            group: events as f64 / groups as f64,
            written: written / events as f64,
        }
    })
}

fn open_bare(path: &Path) -> Connection {
    let conn = Connection::open(path).unwrap();
    conn.execute_batch(
        "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA foreign_keys=ON;
         PRAGMA journal_size_limit=16777216; PRAGMA cell_size_check=ON; PRAGMA wal_autocheckpoint=2000;",
    )
    .unwrap();
    conn.execute_batch(include_str!("../src/store/schema/001.sql")).unwrap();
    conn
}

fn bare_loop(events: usize, group: usize) -> Run {
    let folder = folder();
    let mut conn = open_bare(&folder.path().join("bare.db"));
    let (rows, boot) = (rows(events), uuid::Uuid::now_v7());
    let before = process::written(std::process::id());
    let began = Instant::now();
    let (mut n, mut total) = (0_i64, 0_i64);
    for group in rows.chunks(group.max(1)) {
        let tx = conn.transaction().unwrap();
        let mut insert = tx
            .prepare_cached(
                "INSERT INTO event (event_offset, epoch_no, class, class_sequence, id, kind, subject, time,
                                    synced, boot, data, class_bytes, seal)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)",
            )
            .unwrap();
        for row in group {
            n += 1;
            total += i64::try_from(row.data.get().len()).unwrap();
            let (id, boot, seal) = (row.id.as_bytes().as_slice(), boot.as_bytes().as_slice(), i64::MAX / n);
            let time = row.time.0;
            insert
                .execute(params![
                    n,
                    1,
                    2,
                    n,
                    id,
                    row.kind,
                    row.subject,
                    time,
                    true,
                    boot,
                    row.data.get(),
                    total,
                    seal
                ])
                .unwrap();
        }
        drop(insert);
        tx.commit().unwrap();
    }
    let took = began.elapsed().as_secs_f64();
    drop(conn);
    let written = process::written(std::process::id()) - before;
    Run { rate: events as f64 / took, group: group as f64, written: written / events as f64 }
}

/// What one small durable write costs here at best.
fn sync_of_the_disk() -> String {
    let folder = folder();
    let mut file = std::fs::File::create(folder.path().join("sync")).unwrap();
    let page = [7; 4096];
    let times: Vec<f64> = (0..300)
        .map(|_| {
            let began = Instant::now();
            file.write_all(&page).unwrap();
            file.sync_data().unwrap();
            began.elapsed().as_secs_f64() * 1e3
        })
        .collect();
    format!(
        "disk: appending 4096 bytes and fdatasync takes {} ms (p50), {} ms (p99)",
        digits(quantile(&times, 0.5)),
        digits(quantile(&times, 0.99))
    )
}
