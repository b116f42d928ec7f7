//! Every kind of page of the database file, harmed in every way: what lies on other
//! pages is kept, what is lost is told, nothing altered is ever believed, and
//! nothing hangs. The seed is printed; `BAYGATE_SEED` gives it again, and
//! `BAYGATE_ROUNDS` asks for more rounds.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod sqlite_pages;
mod store_setup;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use baygate::cli::{Exit, Global, buffer};
use baygate::event::gateway::{EpochReason, GapReason, GatewayGap};
use baygate::event::{Class, EventData};
use baygate::health::Health;
use baygate::store::outbox::ClassCursor;
use baygate::store::requests::{NewRequest, RequestOp};
use baygate::store::tokens::TokenOp;
use baygate::store::{Batch, Op, Opened, Store, StoreError, inspect};
use clap::Parser;
use sqlite_pages::{Dice, Format, HARMS, Harm, Kind, PAGE, Page};
use store_setup::{delivered, event, options, until};
use tokio_util::sync::CancellationToken;

/// Events of each of two classes.
const EVENTS: u64 = 500;
const LARGE: u64 = 12;
const REQUESTS: u64 = 60;
/// Delivered of class card, in the first epoch.
const DELIVERED: u64 = 100;
/// Far more than any of it takes: what is longer hangs.
const DEADLINE: Duration = Duration::from_secs(120);

type Identity = (String, uuid::Uuid, String);

/// What was written, by offset: epoch, class and class sequence, id and data.
struct Truth {
    format: Format,
    events: BTreeMap<i64, (Class, u64, Identity)>,
    first: Opened,
}

fn identity(event: &baygate::event::Event) -> Identity {
    (event.epoch.to_string(), event.id, event.data.get().to_owned())
}

async fn all(store: &Store) -> BTreeMap<i64, (Class, u64, Identity)> {
    let mut events = BTreeMap::new();
    for class in Class::ALL {
        let mut after = ClassCursor::default();
        loop {
            let page = store.read(move |r| r.class_events_after(class, after, 500)).await.unwrap();
            let Some(last) = page.last() else { break };
            assert!(last.cursor > after);
            after = last.cursor;
            for logged in page {
                let event = &logged.event;
                events.insert(logged.offset.0, (class, event.class_sequence.0, identity(event)));
            }
        }
    }
    events
}

fn request(n: u64) -> Batch {
    Batch::new().op(Op::Request(RequestOp::Insert(NewRequest {
        id: uuid::Uuid::now_v7(),
        kind: "card.spend",
        target: "counter-1".into(),
        scope: "till-1".into(),
        idempotency_key: Some(format!("key-{n}")),
        body: serde_json::json!({ "amount_fen": n, "note": "x".repeat(200) }),
    })))
}

/// A database with pages of every kind, closed in order.
async fn grown(dir: &Path) -> Truth {
    let (store, first) = Store::open(&options(dir)).unwrap();
    for n in 0..EVENTS / 10 {
        let mut batch = Batch::new();
        for _ in 0..10 {
            batch = batch.event(event(Class::Card, 300)).event(event(Class::Ledger, 200));
        }
        store.commit(batch).await.unwrap();
        if n % 5 == 0 {
            store.commit(Batch::new().event(event(Class::Vehicle, 9_000 + 13 * n as usize))).await.unwrap();
        }
    }
    for n in 0..LARGE {
        store.commit(Batch::new().event(event(Class::Vehicle, 20_000 + n as usize))).await.unwrap();
    }
    for n in 0..REQUESTS {
        store.commit(request(n)).await.unwrap();
    }
    store.commit(delivered(Class::Card, 1, DELIVERED)).await.unwrap();
    let events = all(&store).await;
    store.close().await;
    drop(store);
    let raw = rusqlite::Connection::open(dir.join("baygate.db")).unwrap();
    // Leaves free pages behind.
    raw.execute_batch(
        "CREATE TABLE scrap (x); WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 60)
         INSERT INTO scrap SELECT randomblob(3000) FROM n; DROP TABLE scrap;
         -- The cases are copies of this file, and are not to be taken for what they are.
         DELETE FROM meta WHERE key = 'file_birth';",
    )
    .unwrap();
    drop(raw);
    Truth { format: Format::read(&dir.join("baygate.db")), events, first }
}

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(flatten)]
    args: buffer::Args,
}

async fn command(dir: &Path, words: &[&str]) -> Result<Exit, String> {
    let words = ["buffer", "--data-dir", dir.to_str().unwrap()].into_iter().chain(words.iter().copied());
    let cli = Cli::try_parse_from(words).map_err(|error| error.to_string())?;
    buffer::run(cli.args, &cli.global).await.map_err(|error| format!("{error:#}"))
}

/// What the truth allows to be missing: rows that touch a harmed page.
fn excused(truth: &Truth, harmed: &[usize]) -> BTreeSet<i64> {
    harmed
        .iter()
        .filter_map(|no| truth.format.pages.get(no))
        .filter(|page| page.owner == "event" && matches!(page.kind, Kind::TableLeaf | Kind::Overflow))
        .flat_map(|page| page.rows.iter().copied())
        .collect()
}

/// Nothing altered, nothing missing but what was harmed.
fn assert_kept(
    case: &str,
    truth: &Truth,
    found: &BTreeMap<i64, (Class, u64, Identity)>,
    excused: &BTreeSet<i64>,
) {
    for (offset, written) in &truth.events {
        match found.get(offset) {
            Some(kept) => assert_eq!(kept, written, "{case}: event {offset} is not what was written"),
            None => assert!(excused.contains(offset), "{case}: event {offset} was on no harmed page"),
        }
    }
}

fn exported(text: &str) -> BTreeMap<i64, (Class, u64, Identity)> {
    text.lines()
        .map(|line| {
            let event: serde_json::Value = serde_json::from_str(line).unwrap();
            let data =
                serde_json::from_str::<BTreeMap<String, Box<serde_json::value::RawValue>>>(line).unwrap();
            let word = |key: &str| event[key].as_str().unwrap().to_owned();
            let identity = (word("epoch"), word("id").parse().unwrap(), data["data"].get().to_owned());
            let class = Class::parse(&word("class")).unwrap();
            (word("sequence").parse().unwrap(), (class, word("classsequence").parse().unwrap(), identity))
        })
        .collect()
}

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
    assert!(std::fs::read(dir.join("baygate.db")).unwrap() == before, "{case}: looking changed the file");
    verdict.sound
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
    for (class, last) in
        [(Class::Card, EVENTS), (Class::Ledger, EVENTS), (Class::Vehicle, EVENTS / 50 + LARGE)]
    {
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

fn page_cases(format: &Format, dice: &Dice) -> Vec<(String, Page)> {
    let mut pages = Vec::new();
    for (kind, owner) in [
        (Kind::TableInterior, "event"),
        (Kind::TableLeaf, "event"),
        (Kind::Overflow, "event"),
        (Kind::IndexInterior, "event_by_class"),
        (Kind::IndexLeaf, "event_by_class"),
        (Kind::TableLeaf, "request"),
        (Kind::IndexLeaf, "request_by_key"),
        (Kind::TableLeaf, "epoch"),
        (Kind::TableLeaf, "class_counter"),
        (Kind::TableLeaf, "delivered"),
        (Kind::IndexLeaf, "meta"),
        (Kind::TableInterior, "sqlite_schema"),
        (Kind::TableLeaf, "sqlite_schema"),
        (Kind::FreeTrunk, ""),
        (Kind::FreeLeaf, ""),
    ] {
        let of = format.of(kind, owner);
        assert!(!of.is_empty(), "no page is a {kind:?} of {owner:?}");
        let page = dice.for_case(&format!("{kind:?}{owner}")).pick(&of);
        pages.push((format!("{kind:?} of {owner:?}"), page));
    }
    pages
}

/// Runs cases side by side; each has its deadline.
async fn run_all(cases: Vec<(String, Vec<u8>, BTreeSet<i64>, bool)>, truth: Truth) {
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

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_kind_of_page_harmed_in_every_way() {
    let dice = Dice::new("every_kind_of_page_harmed_in_every_way");
    let rounds: u64 = std::env::var("BAYGATE_ROUNDS").ok().map_or(1, |rounds| rounds.parse().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let truth = grown(dir.path()).await;
    let mut cases = Vec::new();
    for round in 0..rounds {
        let dice = dice.for_case(&format!("round {round}"));
        for (what, page) in page_cases(&truth.format, &dice) {
            for harm in HARMS {
                let case = format!("round {round}: {harm:?} {what} (page {})", page.no);
                let Some((bytes, harmed)) = truth.format.harm(&page, harm, &mut dice.for_case(&case)) else {
                    continue;
                };
                // Events, their index and the way to them are watched by seals and cross-checks. What
                // has no seal may change its text unseen; in a page laid out anew nothing hides.
                let watched = matches!(page.owner.as_str(), "event" | "event_by_class" | "epoch");
                let unused = page.kind == Kind::Overflow && matches!(harm, Harm::Content | Harm::Bit)
                    || page.owner == "epoch" && matches!(harm, Harm::Content | Harm::Bit);
                let laid_anew = matches!(harm, Harm::Zeroed | Harm::Random);
                let must = page.kind != Kind::FreeLeaf && (laid_anew || watched && !unused);
                let excused = excused(&truth, &harmed);
                cases.push((case, bytes, excused, must));
            }
        }
    }
    println!("{} cases", cases.len());
    run_all(cases, truth).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_first_page_a_short_file_and_a_long_one() {
    let dice = Dice::new("the_first_page_a_short_file_and_a_long_one");
    let dir = tempfile::tempdir().unwrap();
    let truth = grown(dir.path()).await;
    let mut cases = Vec::new();
    // The header's fields (section 1.3): magic, page size, versions, fractions, sizes, free list, cookies, encoding.
    for (at, length) in
        [(0, 16), (16, 2), (18, 2), (20, 4), (28, 4), (32, 8), (40, 4), (44, 4), (56, 4), (60, 8)]
    {
        let case = format!("the header's bytes {at} to {}", at + length);
        let (mut bytes, mut dice) = (truth.format.bytes.clone(), dice.for_case(&case));
        let at = at + dice.below(length);
        bytes[at] ^= 1 + dice.below(255) as u8;
        cases.push((format!("{case}: {at}"), bytes, BTreeSet::new(), at < 16));
    }
    for cut in [
        1,
        99,
        100,
        PAGE - 1,
        PAGE,
        5 * PAGE + 77,
        truth.format.bytes.len() / 2,
        truth.format.bytes.len() - 1,
    ] {
        let gone: Vec<usize> = (cut / PAGE + 1..=truth.format.bytes.len() / PAGE).collect();
        let excused = excused(&truth, &gone);
        // The last page is a free one. (An empty file is a new one, of an epoch of its own.)
        let must = cut + 1 < truth.format.bytes.len();
        cases.push((format!("cut to {cut} bytes"), truth.format.bytes[..cut].to_vec(), excused, must));
    }
    for more in [1, PAGE, 3 * PAGE + 7] {
        let mut bytes = truth.format.bytes.clone();
        let mut dice = dice.for_case(&format!("{more} more"));
        bytes.extend((0..more).map(|_| dice.next() as u8));
        cases.push((format!("{more} bytes of garbage behind it"), bytes, BTreeSet::new(), false));
    }
    run_all(cases, truth).await;
}

/// A rotten event is never told, whoever asks; those before it are.
#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_rotted_unseen_is_never_told() {
    let dir = tempfile::tempdir().unwrap();
    let truth = grown(dir.path()).await;
    let at = truth.events.iter().find(|(_, (class, n, _))| *class == Class::Card && *n == 250).unwrap().0;
    let raw = rusqlite::Connection::open(dir.path().join("baygate.db")).unwrap();
    // Valid for SQLite, and still JSON.
    raw.execute("UPDATE event SET data = replace(data, 'x\"', 'y\"') WHERE event_offset = ?1", [at]).unwrap();
    drop(raw);
    let (store, opened) = Store::open(&options(dir.path())).unwrap();
    assert_eq!(opened.new_epoch, None, "the quick look does not see it");
    let from = |n| ClassCursor { epoch_no: 1, class_sequence: baygate::ident::Seq(n) };
    let page = store.read(move |r| r.class_events_after(Class::Card, from(200), 500)).await.unwrap();
    assert_eq!(page.last().unwrap().cursor, from(249), "what comes before it");
    let refused = store.read(move |r| r.class_events_after(Class::Card, from(249), 500)).await;
    assert!(matches!(refused, Err(StoreError::Damaged { .. })));
    let offset = baygate::store::Offset(at - 1);
    let refused = store.read(move |r| r.events_after(offset, 10)).await;
    assert!(matches!(refused, Err(StoreError::Damaged { .. })));
    let health = Health::default();
    store.start_background(health.clone(), CancellationToken::new());
    until("it is told", || async { health.troubles().iter().any(|t| t.code == "damaged") }).await;
    store.close().await;
    drop(store);
    let out = dir.path().join("out.jsonl");
    let exit = command(dir.path(), &["export", "--output", out.to_str().unwrap()]).await;
    assert_eq!(exit, Ok(Exit::Failed));
    let found = exported(&std::fs::read_to_string(&out).unwrap());
    assert_eq!(found.len() + 1, truth.events.len());
    assert_kept("one rotten event", &truth, &found, &BTreeSet::from([*at]));
}

/// A copy of a harmed file, opened, where the first look does not see the harm.
async fn opened_unseen(bytes: &[u8]) -> Option<(tempfile::TempDir, Store)> {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("baygate.db"), bytes).unwrap();
    let (store, opened) = Store::open(&options(dir.path())).unwrap();
    opened.new_epoch.is_none().then_some((dir, store))
}

/// Rows that the tree or the index leads to wrongly: told in their order, or not at all.
#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_led_past_an_event_or_in_a_circle() {
    let dir = tempfile::tempdir().unwrap();
    let truth = grown(dir.path()).await;
    // The last entry of a leaf of the index is gone; its row is still there.
    let leaves = truth.format.of(Kind::IndexLeaf, "event_by_class");
    let mut unseen = 0;
    for leaf in &leaves {
        let mut bytes = truth.format.bytes.clone();
        bytes[(leaf.no - 1) * PAGE + 4] -= 1;
        let Some((_dir, store)) = opened_unseen(&bytes).await else { continue };
        let mut damaged = 0;
        for class in [Class::Card, Class::Ledger, Class::Vehicle] {
            let mut after = ClassCursor { epoch_no: 1, class_sequence: baygate::ident::Seq(0) };
            loop {
                let page = match store.read(move |r| r.class_events_after(class, after, 100)).await {
                    Ok(page) => page,
                    Err(StoreError::Damaged { .. }) => {
                        damaged += 1;
                        break;
                    }
                    Err(other) => panic!("{other}"),
                };
                let Some(last) = page.last() else { break };
                let first = page[0].cursor.class_sequence.0;
                let passed = class == Class::Card && first <= DELIVERED + 1;
                assert!(first == after.class_sequence.0 + 1 || passed, "{class}: from {after:?} to {first}");
                for pair in page.windows(2) {
                    let [one, two] = [0, 1].map(|at: usize| pair[at].cursor.class_sequence.0);
                    assert!(
                        two == one + 1 || class == Class::Card && two <= DELIVERED + 1,
                        "{class}: {one}, {two}"
                    );
                }
                after = last.cursor;
            }
        }
        assert!(damaged <= 1);
        unseen += 1;
        store.close().await;
    }
    assert!(unseen > 0, "the first look saw every case");
    // Two leaves of the log in each other's place.
    let leaves = truth.format.of(Kind::TableLeaf, "event");
    let middle = |from: i64, to: i64| {
        leaves.iter().find(|leaf| leaf.rows.first() > Some(&from) && leaf.rows.last() < Some(&to)).unwrap().no
    };
    let (one, two) = ((middle(100, 400) - 1) * PAGE, (middle(600, 900) - 1) * PAGE);
    let mut bytes = truth.format.bytes.clone();
    (0..PAGE).for_each(|at| bytes.swap(one + at, two + at));
    let (_dir, store) = opened_unseen(&bytes).await.expect("not seen at the ends of the log");
    let (mut after, mut pages) = (baygate::store::Offset(0), 0);
    let ended = loop {
        pages += 1;
        assert!(pages < 1000, "in a circle");
        match store.read(move |r| r.events_after(after, 50)).await {
            Ok(page) if page.is_empty() => break None,
            Ok(page) => {
                assert!(
                    page.windows(2).all(|pair| pair[0].offset < pair[1].offset) && page[0].offset > after
                );
                after = page.last().unwrap().offset;
            }
            Err(error) => break Some(error),
        }
    };
    assert!(matches!(ended, Some(StoreError::Damaged { .. })), "{ended:?}");
    store.close().await;
}

/// The few words on which numbering and delivery rest.
#[tokio::test(flavor = "multi_thread")]
async fn a_rotten_position_is_not_believed() {
    let dir = tempfile::tempdir().unwrap();
    let truth = grown(dir.path()).await;
    for (what, rot) in [
        ("the epoch's id", "UPDATE epoch SET id = randomblob(16)"),
        ("where the epoch begins", "UPDATE epoch SET base_offset = base_offset + 256"),
        ("a delivered position", "UPDATE delivered SET class_sequence = class_sequence + 64"),
        (
            "a counter, backwards",
            "UPDATE class_counter SET last_sequence = last_sequence - 4 WHERE class = 0",
        ),
        ("the last offset", "UPDATE class_counter SET last_offset = last_offset - 1024"),
        ("the schema's version", "PRAGMA user_version = 3"),
        ("no schema version", "PRAGMA user_version = 0"),
        ("who speaks", "UPDATE meta SET value = CAST(x'2F73FF' AS TEXT) WHERE key = 'source'"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("baygate.db");
        std::fs::write(&path, &truth.format.bytes).unwrap();
        rusqlite::Connection::open(&path).unwrap().execute_batch(rot).unwrap();
        assert!(!inspect::verify(dir.path(), &mut |_| {}).unwrap().sound, "{what}");
        let (store, opened) =
            Store::open(&options(dir.path())).unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_eq!(opened.new_epoch, Some(EpochReason::Salvaged), "{what}");
        assert_kept(what, &truth, &all(&store).await, &BTreeSet::new());
        let delivered = store.read(|r| r.delivered(Class::Card)).await.unwrap();
        assert!(delivered.class_sequence.0 <= DELIVERED, "{what}: {delivered:?}");
        store.close().await;
    }
}

/// Commits that are only in the WAL, as a killed process leaves them.
async fn in_the_wal(dir: &Path) -> (Truth, Vec<u8>, Vec<u8>) {
    let truth = grown(&dir.join("base")).await;
    let (store, _) = Store::open(&options(&dir.join("base"))).unwrap();
    for n in 0..40 {
        store.commit(fact(n)).await.unwrap();
        store.commit(request(1000 + n)).await.unwrap();
    }
    let token = TokenOp::Create {
        id: uuid::Uuid::now_v7(),
        name: "till".into(),
        sha256: [7; 32],
        scopes: vec!["read".into()],
        till: None,
    };
    store.commit(Batch::new().op(Op::Token(token))).await.unwrap();
    for n in 40..44 {
        store.commit(fact(n)).await.unwrap();
    }
    let events = all(&store).await;
    let read = |suffix: &str| std::fs::read(dir.join(format!("base/baygate.db{suffix}"))).unwrap();
    let (file, wal) = (read(""), read("-wal"));
    store.close().await;
    (Truth { events, ..truth }, file, wal)
}

fn fact(n: u64) -> Batch {
    Batch::new().event(event(if n.is_multiple_of(2) { Class::Card } else { Class::Ledger }, 300))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_wal_that_rotted_gives_up_no_commit() {
    const FRAME: usize = 24 + PAGE;
    let dice = Dice::new("a_wal_that_rotted_gives_up_no_commit");
    let base = tempfile::tempdir().unwrap();
    let (truth, file, wal) = in_the_wal(base.path()).await;
    let frames = (wal.len() - 32) / FRAME;
    assert!(frames > 80, "{frames}");
    // (what, where, how many bytes may be hit, what the frame alone held may be lost)
    let middle = dice.for_case("frame").below(frames / 2) + 2;
    let of = |frame: usize| 32 + frame * FRAME;
    for (what, at, length, may_lose) in [
        ("the WAL's magic", 0, 3, false),
        ("the WAL's page size", 8, 4, false),
        ("the WAL's salts", 16, 8, false),
        ("the WAL's checksum", 24, 8, false),
        ("a frame's page number", of(middle), 4, true),
        ("a frame's salts", of(middle) + 8, 8, true),
        ("a frame's checksum", of(middle) + 16, 8, true),
        ("a frame's page", of(middle) + 24, PAGE, true),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let (mut dice, mut wal) = (dice.for_case(what), wal.clone());
        let at = at + dice.below(length);
        wal[at] ^= 1 + dice.below(255) as u8;
        let case = format!("{what}: byte {at}");
        std::fs::write(dir.path().join("baygate.db"), &file).unwrap();
        std::fs::write(dir.path().join("baygate.db-wal"), &wal).unwrap();
        std::fs::write(dir.path().join("baygate.db-shm"), [0x5A; 32768]).unwrap();
        let verdict = inspect::verify(dir.path(), &mut |_| {}).unwrap();
        assert!(!verdict.sound, "{case}");
        let (store, opened) = Store::open(&options(dir.path())).unwrap();
        assert_eq!(opened.new_epoch, Some(EpochReason::Salvaged), "{case}");
        let report = opened.salvaged.unwrap();
        let found = all(&store).await;
        let missing = truth.events.keys().filter(|at| !found.contains_key(at)).count() as u64;
        assert_kept(&case, &truth, &found, &truth.events.keys().copied().collect());
        assert_eq!(missing, report.lost, "{case}");
        assert!(missing == 0 || may_lose && missing <= 20, "{case}: {missing} lost");
        assert!(may_lose || report.ledger_complete && report.requests_complete, "{case}: {report:?}");
        for suffix in ["", "-wal"] {
            let aside = format!("{}{suffix}", report.aside.display());
            let was = if suffix.is_empty() { &file } else { &wal };
            assert!(&std::fs::read(aside).unwrap() == was, "{case}: the original is not what it was");
        }
        let keys: i64 = {
            let conn = rusqlite::Connection::open(dir.path().join("baygate.db")).unwrap();
            conn.query_row("SELECT count(*) FROM request", [], |row| row.get(0)).unwrap()
        };
        assert!(keys == REQUESTS as i64 + 40 || !report.requests_complete, "{case}: {keys}");
        let token = store.read(|r| r.token_by_hash(&[7; 32])).await.unwrap();
        assert!(may_lose || token.is_some(), "{case}: a table beside the log is back at yesterday");
        store.close().await;
    }
    // A torn end is what a power cut leaves: no damage, nothing before it lost.
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("baygate.db"), &file).unwrap();
    std::fs::write(dir.path().join("baygate.db-wal"), &wal[..wal.len() - FRAME - 1000]).unwrap();
    std::fs::write(dir.path().join("baygate.db-shm"), [0x5A; 32768]).unwrap();
    let (store, opened) = Store::open(&options(dir.path())).unwrap();
    assert_eq!(opened.new_epoch, None);
    assert!(all(&store).await.len() + 2 >= truth.events.len());
    store.close().await;
}
