//! A damaged file holds more than its last state: rows on pages that nothing leads to any more, and
//! frames of commits that never ended. A salvage takes neither for what was committed last.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "support/buffer_command.rs"]
mod buffer_command;
mod page_damage;
mod sqlite_pages;
mod store_setup;

use std::path::Path;

use baygate::card::purse::journal::Journal;
use baygate::cli::Exit;
use baygate::event::Class;
use baygate::event::gateway::EpochReason;
use baygate::event::ledger::CardStanding;
use baygate::money::Holding;
use baygate::store::ledger::{End, Evidence, State, TransactionRow};
use baygate::store::ledger_cards::{By, CardRow, SeenCard};
use baygate::store::{Batch, Store};
use buffer_command::command;
use page_damage::truth::{CARD, all, begun, exported, request, seen, spend};
use sqlite_pages::{Format, Kind, PAGE};
use store_setup::{event, options};

const FRAME: usize = 24 + PAGE;

async fn transactions(store: &Store) -> Vec<TransactionRow> {
    store.read(|r| r.transactions_of(&CARD.parse().unwrap(), None, 1000)).await.unwrap()
}

fn requests(dir: &Path) -> i64 {
    let conn = rusqlite::Connection::open(dir.join("baygate.db")).unwrap();
    conn.query_row("SELECT count(*) FROM request", [], |row| row.get(0)).unwrap()
}

/// Seen as soon as the file is opened; copies of a file are not to be taken for what they are.
const ROT: &str = "UPDATE delivered SET class_sequence = class_sequence + 64;
                   DELETE FROM meta WHERE key = 'file_birth';";

async fn card(store: &Store) -> CardRow {
    store.read(|r| r.member_card(&CARD.parse().unwrap())).await.unwrap().unwrap()
}

/// The leaves of a table, one after the other.
fn leaves(path: &Path, owner: &str) -> Vec<u8> {
    let format = Format::read(path);
    let pages = format.of(Kind::TableLeaf, owner);
    pages.iter().flat_map(|page| format.bytes[(page.no - 1) * PAGE..page.no * PAGE].to_vec()).collect()
}

/// A copy of a file in `dir`, in which this has rotted, with loose pages behind it.
fn harmed(dir: &Path, file: &[u8], rot: &str, loose: &[u8]) {
    let path = dir.join("baygate.db");
    std::fs::write(&path, file).unwrap();
    let raw = rusqlite::Connection::open(&path).unwrap();
    raw.execute_batch(&format!("{ROT}{rot}")).unwrap();
    drop(raw);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes.extend_from_slice(loose);
    std::fs::write(&path, bytes).unwrap();
}

/// Rows with their seals, of higher counters, on pages that are not the file's any more: they count
/// where the table is in doubt, and nowhere else.
#[tokio::test(flavor = "multi_thread")]
async fn loose_pages_add_nothing_to_a_sound_table() {
    let base = tempfile::tempdir().unwrap();
    let (store, _) = Store::open(&options(base.path())).unwrap();
    for n in 0..5 {
        store.commit(request(n)).await.unwrap();
    }
    store.commit(Batch::new().event(event(Class::Card, 300))).await.unwrap();
    store.commit(store_setup::delivered(Class::Card, 1, 1)).await.unwrap();
    let holding = spend(&store, Holding::default(), 0..10).await;
    store.close().await;
    drop(store);
    let file = std::fs::read(base.path().join("baygate.db")).unwrap();
    let (store, _) = Store::open(&options(base.path())).unwrap();
    store.commit(request(5)).await.unwrap();
    let later = spend(&store, holding.clone(), 10..20).await;
    store.close().await;
    drop(store);
    assert!(later.counter > holding.counter);
    let of = |owner| leaves(&base.path().join("baygate.db"), owner);
    let loose = [of("member_card"), of("card_transaction"), of("request")].concat();
    // (what has rotted besides, cards and transactions in doubt, requests in doubt)
    for (rot, ledger, asked) in [
        ("", false, false),
        (
            "UPDATE member_card SET counter = counter + 1;
             UPDATE card_transaction SET offline_fen = offline_fen + 1 WHERE no = 3;",
            true,
            false,
        ),
        ("UPDATE request SET body = CAST(x'FF' AS TEXT) WHERE idempotency_key = 'key-2';", false, true),
    ] {
        let dir = tempfile::tempdir().unwrap();
        harmed(dir.path(), &file, rot, &loose);
        let (store, opened) = Store::open(&options(dir.path())).unwrap();
        assert_eq!(opened.new_epoch, Some(EpochReason::Salvaged), "{rot}");
        let report = opened.salvaged.unwrap();
        assert_eq!(report.requests_complete, !ledger && !asked, "{rot}: {report:?}");
        let holds = card(&store).await.seen.holding;
        assert_eq!(holds, if ledger { later.clone() } else { holding.clone() }, "{rot}");
        assert_eq!(transactions(&store).await.len(), if ledger { 20 } else { 10 }, "{rot}");
        assert_eq!(requests(dir.path()), if asked { 6 } else { 5 }, "{rot}");
        store.close().await;
    }
}

/// A card that was stopped is not in use again because another state of its row has a later time: the
/// clock may have been ahead then.
#[tokio::test(flavor = "multi_thread")]
async fn of_two_states_with_one_counter_the_one_that_stops_counts() {
    let base = tempfile::tempdir().unwrap();
    let path = base.path().join("baygate.db");
    let (store, _) = Store::open(&options(base.path())).unwrap();
    let journal = Journal::new(store.clone());
    let other = SeenCard { card_no: "8800002".parse().unwrap(), ..seen(&Holding::default()) };
    journal.tap(other, None, Evidence::default()).await.unwrap();
    store.commit(Batch::new().event(event(Class::Card, 300))).await.unwrap();
    store.commit(store_setup::delivered(Class::Card, 1, 1)).await.unwrap();
    let holding = spend(&store, Holding::default(), 0..3).await;
    let first = card(&store).await;
    let by = By { operator: "li".into(), till: "till-1".parse().unwrap() };
    store.commit(first.stands(CardStanding::Lost, None, by.clone()).unwrap()).await.unwrap();
    store.close().await;
    drop((store, journal));
    let stopped = (std::fs::read(&path).unwrap(), leaves(&path, "member_card"));
    let (store, _) = Store::open(&options(base.path())).unwrap();
    store.commit(card(&store).await.stands(CardStanding::Active, None, by).unwrap()).await.unwrap();
    Journal::new(store.clone()).tap(seen(&holding), None, Evidence::default()).await.unwrap();
    assert!(card(&store).await.seen_at > first.seen_at);
    store.close().await;
    drop(store);
    let in_use = (std::fs::read(&path).unwrap(), leaves(&path, "member_card"));
    for (what, file, loose) in
        [("stopped in the table", &stopped.0, &in_use.1), ("stopped on a loose page", &in_use.0, &stopped.1)]
    {
        let dir = tempfile::tempdir().unwrap();
        let rot = "UPDATE member_card SET counter = counter + 1 WHERE card_no = '8800002';";
        harmed(dir.path(), file, rot, loose);
        let (store, opened) = Store::open(&options(dir.path())).unwrap();
        assert!(!opened.salvaged.unwrap().requests_complete, "{what}");
        assert_eq!(card(&store).await.status, CardStanding::Lost, "{what}");
        store.close().await;
    }
}

/// A store whose last commit settled a transaction: file, WAL, where that commit begins in the WAL,
/// the transaction and what the card holds after it.
async fn settled_last(dir: &Path) -> (Vec<u8>, Vec<u8>, usize, uuid::Uuid, Holding) {
    let (store, _) = Store::open(&options(dir)).unwrap();
    let holding = spend(&store, Holding::default(), 0..10).await;
    store.close().await;
    drop(store);
    let (store, _) = Store::open(&options(dir)).unwrap();
    for _ in 0..10 {
        store.commit(Batch::new().event(event(Class::Card, 300))).await.unwrap();
    }
    let journal = Journal::new(store.clone());
    let (id, after) = begun(&journal, &holding, 10).await;
    let wal = || std::fs::read(dir.join("baygate.db-wal")).unwrap();
    let begins = wal().len();
    journal.end(id, End::Committed(Evidence::default())).await.unwrap();
    let (file, wal) = (std::fs::read(dir.join("baygate.db")).unwrap(), wal());
    store.close().await;
    assert!(wal.len() >= begins + 3 * FRAME && (wal.len() - 32).is_multiple_of(FRAME), "{}", wal.len());
    (file, wal, begins, id, after)
}

/// Nobody was told of a commit that has no end: its facts would be told a second time, by the tap that
/// settles what the journal still has open.
#[tokio::test(flavor = "multi_thread")]
async fn a_commit_without_its_end_is_neither_state_nor_fact() {
    let base = tempfile::tempdir().unwrap();
    let (file, wal, begins, id, after) = settled_last(base.path()).await;
    let last = wal.len() - FRAME;
    // What a power cut left of the last commit, and whether its end is as it was written: then nobody
    // can say whether it was told, and card writes wait.
    let torn = [
        ("it is whole", wal.len(), 0..0, true),
        ("its end is missing", last, 0..0, false),
        ("its end is not marked", wal.len(), last + 4..last + 8, false),
        ("its first frame is missing", wal.len(), begins..begins + FRAME, true),
        ("the frame before its end is missing", wal.len(), last - FRAME..last, false),
    ];
    // Where the WAL has rotted as well, and whether a frame is lost with it.
    for ((what, ends, gone, has_end), (rotten, lost)) in
        torn.iter().flat_map(|torn| [(torn, (32 + 3 * FRAME + 2000, true)), (torn, (1, false))])
    {
        let what = &format!("{what}, and byte {rotten} has rotted");
        let dir = tempfile::tempdir().unwrap();
        let mut wal = wal[..*ends].to_vec();
        wal[rotten] ^= 0x40;
        wal[gone.clone()].fill(0);
        std::fs::write(dir.path().join("baygate.db"), &file).unwrap();
        std::fs::write(dir.path().join("baygate.db-wal"), &wal).unwrap();
        let whole = what.starts_with("it is whole");
        let of_it = |events: &std::collections::BTreeMap<_, (Class, u64, (String, uuid::Uuid, String))>| {
            events.values().filter(|(.., (_, _, data))| data.contains(&id.to_string())).count()
        };
        let out = dir.path().join("out.jsonl");
        let exit = command(dir.path(), &["export", "--output", out.to_str().unwrap()]).await;
        assert_eq!(exit, Ok(Exit::Failed), "{what}");
        let found = exported(&std::fs::read_to_string(&out).unwrap());
        assert_eq!(of_it(&found), usize::from(whole), "{what}: exported");
        let (store, opened) = Store::open(&options(dir.path())).unwrap();
        assert_eq!(opened.new_epoch, Some(EpochReason::Salvaged), "{what}");
        let report = opened.salvaged.unwrap();
        let complete = !lost && (whole || !has_end);
        assert_eq!((report.requests_complete, report.ledger_complete), (complete, complete), "{what}");
        let row = transactions(&store).await.into_iter().find(|row| row.fact.transaction_id == id).unwrap();
        assert_eq!(row.state, if whole { State::Committed } else { State::Intent }, "{what}");
        assert_eq!(of_it(&all(&store).await), usize::from(whole), "{what}");
        // The card has it: its next tap settles, and the fact is told once.
        Journal::new(store.clone()).tap(seen(&after), None, Evidence::default()).await.unwrap();
        assert_eq!(of_it(&all(&store).await), 1, "{what}: after the tap");
        store.close().await;
    }
}
