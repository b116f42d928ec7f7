//! Operators, their wrong PINs and shifts live through what happens to a file: an older schema,
//! a backup, damage.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod purse_counter;
mod store_setup;

use std::os::unix::fs::FileExt;
use std::path::Path;

use baygate::card::purse::Caps;
use baygate::card::purse::changes::adjust;
use baygate::card::purse::journal::Journal;
use baygate::config::purse::PurseTable;
use baygate::event::Class;
use baygate::event::gateway::EpochReason;
use baygate::event::ledger::CardType;
use baygate::money::Fen;
use baygate::store::ledger::Evidence;
use baygate::store::operators::{Deed, OperatorOp, PinHash};
use baygate::store::requests::{RequestOp, RequestState};
use baygate::store::shifts::ShiftOp;
use baygate::store::{Batch, Op, Store, backup};
use purse_counter::{DAYS, FakeCard, request, transaction};
use store_setup::{event, options};
use uuid::Uuid;

fn operator(deed: Deed) -> Op {
    Op::Operator(OperatorOp { operator: "li.wei".into(), place: "till-1".into(), deed })
}

/// An operator with two wrong PINs and an open shift.
async fn people(store: &Store) {
    let card = Some("04A1B2C3".parse().unwrap());
    let pin = PinHash("$argon2id$v=19$…".into());
    let added = Deed::Add { name: "李伟".into(), role: "cashier", pin, card };
    let opened = ShiftOp::Open { id: Uuid::now_v7(), till: "till-1".into(), by: "li.wei".into() };
    let batch = Batch::new()
        .op(operator(added))
        .op(operator(Deed::WrongPin))
        .op(operator(Deed::WrongPin))
        .op(Op::Shift(opened));
    store.commit(batch).await.unwrap();
}

async fn assert_there(store: &Store, case: &str) {
    let (found, wrong, log, shift, named) = store
        .read(|r| {
            Ok((
                r.operator("li.wei")?,
                r.wrong_pins("li.wei")?,
                r.operator_log(10)?,
                r.open_shift("till-1")?,
                r.operator_of_card(&"04A1B2C3".parse().unwrap())?,
            ))
        })
        .await
        .unwrap();
    let (row, pin) = found.unwrap_or_else(|| panic!("{case}: the operator is gone"));
    assert_eq!((row.name.as_str(), row.role.as_str(), row.locked), ("李伟", "cashier", false), "{case}");
    assert_eq!((pin.0.as_str(), row.wrong_pins, wrong), ("$argon2id$v=19$…", 2, 2), "{case}");
    assert_eq!(
        log.iter().map(|line| line.what.as_str()).collect::<Vec<_>>(),
        ["wrong-pin", "wrong-pin", "added"]
    );
    assert_eq!(shift.unwrap().opened_by, "li.wei", "{case}");
    assert_eq!(named.as_deref(), Some("li.wei"), "{case}");
}

/// A closed database with people and enough events for a tree.
async fn grown(dir: &Path) {
    let (store, _) = Store::open(&options(dir)).unwrap();
    people(&store).await;
    for _ in 0..300 {
        store.commit(Batch::new().event(event(Class::Card, 400))).await.unwrap();
    }
    store.close().await;
}

/// A file as the program made it before people and cards had tables.
fn of_schema_2(path: &Path) -> rusqlite::Connection {
    let old = rusqlite::Connection::open(path).unwrap();
    let _: String = old.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0)).unwrap();
    old.execute_batch(include_str!("../src/store/schema/001.sql")).unwrap();
    old.execute_batch(include_str!("../src/store/schema/002.sql")).unwrap();
    old.execute_batch("INSERT INTO meta VALUES ('schema', '2'); PRAGMA user_version = 2").unwrap();
    old
}

#[tokio::test]
async fn a_file_of_the_schema_before_gets_their_tables() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("baygate.db");
    let old = of_schema_2(&path);
    drop(old);
    let (store, _) = Store::open(&options(dir.path())).unwrap();
    people(&store).await;
    store.close().await;
    drop(store);
    let (store, opened) = Store::open(&options(dir.path())).unwrap();
    assert_eq!(opened.new_epoch, None);
    assert_there(&store, "migrated").await;
    store.close().await;
}

/// A file that grew before their tables came: these lie elsewhere than in a fresh one, so that a
/// first page that is lent to it does not lead to them.
#[tokio::test]
async fn a_salvage_finds_people_and_cards_where_no_schema_leads() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("baygate.db");
    let old = of_schema_2(&path);
    for n in 0..200 {
        old.execute("INSERT INTO adapter VALUES (?1, ?2)", (n.to_string(), "x".repeat(2_000))).unwrap();
    }
    drop(old);
    let (store, _) = Store::open(&options(dir.path())).unwrap();
    people(&store).await;
    let card = FakeCard::new(1);
    let journal = Journal::new(store.clone());
    journal.tap(card.seen(), card.last, Evidence::default()).await.unwrap();
    let plan = adjust(Fen(500), Fen(0), 0).unwrap();
    let after = plan.after(&card.holding, &Caps::of(&PurseTable::default(), CardType::Named, 4)).unwrap();
    let asked = request(&card);
    store.commit(Batch::new().op(Op::Request(RequestOp::Insert(asked.clone())))).await.unwrap();
    let id = asked.id;
    drop(journal.begin(transaction(&card, &plan, asked, &after, vec![], DAYS[0])).await.unwrap());
    store.close().await;
    drop((journal, store));
    let file = std::fs::File::options().write(true).open(&path).unwrap();
    file.write_all_at(&[0xA5; 4096], 0).unwrap();
    drop(file);
    std::fs::write(dir.path().join("baygate.damaged"), "baygate.db.damaged-1\na test\n").unwrap();
    let (store, opened) = Store::open(&options(dir.path())).unwrap();
    assert!(!opened.salvaged.unwrap().requests_complete, "card writes wait for a word all the same");
    let card_no = card.card_no.clone();
    let (operator, known, open, asked) = store
        .read(move |r| {
            let open = r.open_transactions()?;
            Ok((r.operator("li.wei")?, r.member_card(&card_no)?, open, r.request(id)?))
        })
        .await
        .unwrap();
    let (row, pin) = operator.expect("the operator is gone");
    assert_eq!(
        (row.role.as_str(), row.card.is_some(), pin.0.as_str()),
        ("cashier", true, "$argon2id$v=19$…")
    );
    assert_eq!(known.expect("the card is gone").seen, card.seen());
    assert_eq!(open.iter().map(|row| row.fact.transaction_id).collect::<Vec<_>>(), [id]);
    assert_eq!(asked.unwrap().state, RequestState::Running);
    // The tap settles both.
    Journal::new(store.clone()).tap(card.seen(), card.last, Evidence::default()).await.unwrap();
    let (open, asked) = store.read(move |r| Ok((r.open_transactions()?, r.request(id)?))).await.unwrap();
    assert_eq!((open.len(), asked.unwrap().state), (0, RequestState::Failed));
    store.close().await;
}

#[tokio::test]
async fn a_backup_brings_them_back() {
    let (dir, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    grown(dir.path()).await;
    let copy = elsewhere.path().join("copy.db");
    backup::backup(dir.path(), &copy, &mut |_, _| {}).unwrap();
    let fresh = tempfile::tempdir().unwrap();
    backup::restore(fresh.path(), &copy, &mut |_, _| {}).unwrap();
    let (store, opened) = Store::open(&options(fresh.path())).unwrap();
    assert_eq!(opened.new_epoch, Some(EpochReason::Restored));
    assert_there(&store, "restored").await;
    store.close().await;
}

#[tokio::test]
async fn a_salvage_keeps_them() {
    for (case, page) in [("the first page", 0), ("a page of the log", 60)] {
        let dir = tempfile::tempdir().unwrap();
        grown(dir.path()).await;
        let path = dir.path().join("baygate.db");
        let file = std::fs::File::options().write(true).open(&path).unwrap();
        file.write_all_at(&[0xA5; 4096], page * 4096).unwrap();
        drop(file);
        std::fs::write(dir.path().join("baygate.damaged"), "baygate.db.damaged-1\na test\n").unwrap();
        let (store, opened) = Store::open(&options(dir.path())).unwrap();
        assert_eq!(opened.new_epoch, Some(EpochReason::Salvaged), "{case}");
        assert_there(&store, case).await;
        store.close().await;
    }
}
