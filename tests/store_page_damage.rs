//! Every kind of page of the database file, harmed in every way: what lies on other
//! pages is kept, what is lost is told, nothing altered is ever believed, and
//! nothing hangs. The seed is printed; `BAYGATE_SEED` gives it again, and
//! `BAYGATE_ROUNDS` asks for more rounds.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "support/buffer_command.rs"]
mod buffer_command;
mod page_damage;
mod sqlite_pages;
mod store_setup;

use std::collections::BTreeSet;

use baygate::cli::Exit;
use baygate::event::Class;
use baygate::event::gateway::EpochReason;
use baygate::health::Health;
use baygate::store::outbox::ClassCursor;
use baygate::store::{Store, StoreError, inspect};
use buffer_command::command;
use page_damage::judge::run_all;
use page_damage::truth::{ASIDE, DELIVERED, all, assert_kept, excused, exported, grown};
use rusqlite::types::Value;
use sqlite_pages::{Dice, Format, HARMS, Harm, Kind, PAGE, Page, rounds};
use store_setup::{options, until};
use tokio_util::sync::CancellationToken;

fn page_cases(format: &Format, dice: &Dice) -> Vec<(String, Page)> {
    let mut pages = Vec::new();
    for (kind, owner) in [
        (Kind::TableInterior, "event"),
        (Kind::TableLeaf, "event"),
        (Kind::Overflow, "event"),
        (Kind::IndexInterior, "event_by_class"),
        (Kind::IndexLeaf, "event_by_class"),
        (Kind::TableLeaf, "quarantine"),
        (Kind::TableLeaf, "request"),
        (Kind::IndexLeaf, "request_by_key"),
        (Kind::TableLeaf, "card_transaction"),
        (Kind::IndexLeaf, "card_transaction_by_card"),
        (Kind::TableLeaf, "member_card"),
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

/// All of the log that the seals are over: a row's weight (`class_bytes`) has none, and bytes between
/// cells mean nothing. `None` where it cannot be read to its end.
fn sealed_rows(bytes: &[u8]) -> Option<Vec<Vec<Value>>> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("baygate.db");
    std::fs::write(&path, bytes).unwrap();
    let conn = rusqlite::Connection::open(path).ok()?;
    let columns =
        "event_offset, epoch_no, class, class_sequence, id, kind, subject, time, synced, boot, data, seal";
    let mut query = conn.prepare(&format!("SELECT {columns} FROM event ORDER BY event_offset")).ok()?;
    let width = query.column_count();
    let rows = query.query_map([], |row| (0..width).map(|column| row.get(column)).collect()).ok()?;
    rows.collect::<Result<_, _>>().ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_kind_of_page_harmed_in_every_way() {
    let dice = Dice::throw("every_kind_of_page_harmed_in_every_way");
    let dir = tempfile::tempdir().unwrap();
    let truth = grown(dir.path()).await;
    let sealed = sealed_rows(&truth.format.bytes);
    assert_eq!(sealed.as_ref().map(Vec::len), Some(truth.events.len()));
    let mut cases = Vec::new();
    for round in 0..rounds(1) {
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
                    || page.owner == "epoch" && matches!(harm, Harm::Content | Harm::Bit)
                    || page.kind == Kind::TableLeaf
                        && matches!(harm, Harm::Content | Harm::Bit)
                        && page.owner == "event"
                        && sealed_rows(&bytes) == sealed;
                let laid_anew = matches!(harm, Harm::Zeroed | Harm::Random);
                let must = page.kind != Kind::FreeLeaf && (laid_anew || watched && !unused);
                let excused = excused(&truth, &harmed);
                cases.push((case, bytes, excused, must));
            }
        }
    }
    println!("{} cases", cases.len());
    for harm in HARMS {
        let name = format!(": {harm:?} ");
        let had = cases.iter().filter(|(case, ..)| case.contains(&name)).count();
        // Of the 19 kinds three have no pointers, and of some there is only one page, which none can be
        // swapped with.
        let wanted = match harm {
            Harm::Pointers => 16..=16,
            Harm::Swapped => 8..=19,
            _ => 19..=19,
        };
        assert!(wanted.contains(&(had / rounds(1))) && had % rounds(1) == 0, "{harm:?}: {had} cases");
    }
    run_all(cases, truth).await;
}

/// Behind the cells of a page lies what it does not use any more: noughts, which read as row 0 again
/// and again, and earlier states of rows, seal and all.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_leaf_that_claims_more_cells_than_it_has() {
    let dir = tempfile::tempdir().unwrap();
    let truth = grown(dir.path()).await;
    let mut cases = Vec::new();
    for (owner, each) in [("event", 8), ("card_transaction", 1), ("member_card", 1), ("epoch", 1)] {
        for page in truth.format.of(Kind::TableLeaf, owner).iter().step_by(each) {
            for more in [1, 0x50] {
                let mut bytes = truth.format.bytes.clone();
                bytes[(page.no - 1) * PAGE + 4] += more;
                cases.push((
                    format!("{owner}: {more} more on page {}", page.no),
                    bytes,
                    BTreeSet::new(),
                    more > 1,
                ));
            }
        }
    }
    assert!(cases.len() > 40, "{} cases", cases.len());
    run_all(cases, truth).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_first_page_a_short_file_and_a_long_one() {
    let dice = Dice::throw("the_first_page_a_short_file_and_a_long_one");
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
        bytes.extend((0..more).map(|_| dice.number() as u8));
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

/// One text of an event set aside is no text any more: told, and the others are still listed.
#[tokio::test(flavor = "multi_thread")]
async fn one_rotten_text_hides_none_of_those_set_aside() {
    let dir = tempfile::tempdir().unwrap();
    grown(dir.path()).await;
    let raw = rusqlite::Connection::open(dir.path().join("baygate.db")).unwrap();
    let rot = "UPDATE quarantine SET reason = CAST(x'72FF' AS TEXT)
               WHERE event_offset = (SELECT min(event_offset) FROM quarantine)";
    assert_eq!(raw.execute(rot, []).unwrap(), 1);
    drop(raw);
    let inspection = inspect::Inspection::open(dir.path()).unwrap();
    let aside = inspection.reader().quarantined(baygate::store::Offset(0), 1000).unwrap();
    assert_eq!(aside.len() as u64, ASIDE);
    assert_eq!(aside[0].reason, "r\u{FFFD}");
    for words in [["quarantine", "list"], ["quarantine", "dump"]] {
        assert_eq!(command(dir.path(), &words).await, Ok(Exit::Done), "{words:?}");
    }
    let verdict = inspect::verify(dir.path(), &mut |_| {}).unwrap();
    assert!(!verdict.sound && verdict.problems[0].contains("table quarantine"), "{verdict:?}");
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
        ("the epoch's number", "UPDATE epoch SET no = no + 64"),
        ("where the epoch begins", "UPDATE epoch SET base_offset = base_offset + 256"),
        ("a delivered position", "UPDATE delivered SET class_sequence = class_sequence + 64"),
        (
            "a counter, backwards",
            "UPDATE class_counter SET last_sequence = last_sequence - 4 WHERE class = 0",
        ),
        ("the last offset", "UPDATE class_counter SET last_offset = last_offset - 1024"),
        ("the schema's version", "PRAGMA user_version = 99"),
        ("no schema version", "PRAGMA user_version = 0"),
        (
            "that card writes wait",
            "INSERT OR REPLACE INTO meta (key, value) VALUES ('card_writes_held', CAST(x'7BFF' AS TEXT))",
        ),
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
        if rot.contains(" meta ") {
            let held = store.read(|r| r.card_writes_held()).await.unwrap();
            assert!(held.is_some(), "{what}: nobody knows whether they waited, and they go on");
        }
        store.close().await;
    }
}
