//! What happens to the ledger's file: it is full, rows of it rot, and the process is killed between
//! intent, card and outcome.

use std::collections::BTreeSet;
use std::io::{BufRead, Write};
use std::path::Path;

use baygate::card::purse::changes::top_up;
use baygate::card::purse::journal::Journal;
use baygate::card::purse::settle::Mark;
use baygate::config::purse::PurseTable;
use baygate::event::Class;
use baygate::event::ledger::{Outcome, Tender, TenderKind};
use baygate::money::{Fen, Holding};
use baygate::store::ledger::{End, Evidence, State};
use baygate::store::{Batch, Store, StoreError, hold};
use uuid::Uuid;

use super::{after, begin, done, plan};
use crate::purse_counter::{DAYS, FakeCard, Shop, request, told, transaction};
use crate::store_setup::{child, event, options};

#[tokio::test]
async fn a_full_file_stops_the_purse_before_it_could_lose_a_row() {
    let dir = tempfile::tempdir().unwrap();
    let mut small = options(dir.path());
    small.max_bytes = 4 << 20;
    let (store, _) = Store::open(&small).unwrap();
    let journal = Journal::new(store.clone());
    while store.commit(Batch::new().event(event(Class::Card, 8000))).await.is_ok() {}
    let (mut dealt, mut stopped) = (0, false);
    let mut card = FakeCard::new(1);
    for _ in 0..2_000 {
        let plan =
            top_up(Fen(1), &[Tender { kind: TenderKind::Cash, amount_fen: Fen(1) }], &PurseTable::default());
        let plan = plan.unwrap();
        let after = after(&plan, &card.holding);
        let begun = match journal.tap(card.seen(), card.last, Evidence::default()).await {
            Ok(_) => journal.begin(transaction(&card, &plan, request(&card), &after, vec![], DAYS[0])).await,
            Err(error) => Err(error),
        };
        match begun {
            Ok(row) => {
                card.write(&after, row.fact.transaction_id);
                // What has begun can always be ended.
                journal.end(row.fact.transaction_id, End::Committed(Evidence::default())).await.unwrap();
                dealt += 1;
            }
            Err(error) => {
                assert!(error.is_full(), "{error}");
                stopped = true;
                break;
            }
        }
    }
    assert!(stopped && dealt > 10, "{dealt} dealings while the file was full");
}

#[tokio::test]
async fn rotten_rows_are_not_believed_and_hold_the_purse() {
    for (what, harm) in [
        ("an amount", "UPDATE card_transaction SET fact = replace(fact, '700', '701') WHERE no = 2"),
        ("an outcome", "UPDATE card_transaction SET state = 'aborted' WHERE no = 2"),
        ("a holding", "UPDATE member_card SET holding = replace(holding, '700', '701')"),
        ("no seal", "UPDATE card_transaction SET seal = NULL WHERE no = 2"),
    ] {
        let shop = Shop::open().await;
        let mut card = FakeCard::new(1);
        for fen in [5, 700, -5] {
            done(&shop, &mut card, fen).await;
        }
        let open = begin(&shop, &card, &plan(1)).await.0;
        let dir = shop.close().await;
        let path = dir.path().join("baygate.db");
        let raw = rusqlite::Connection::open(&path).unwrap();
        assert_eq!(raw.execute(harm, []).unwrap(), 1, "{what}");
        drop(raw);
        let verdict = baygate::store::inspect::verify(dir.path(), &mut |_| {}).unwrap();
        assert!(!verdict.sound, "{what}");
        let (store, _) = Store::open(&options(dir.path())).unwrap();
        let card_no = card.card_no.clone();
        let read = store
            .read(move |r| Ok((r.member_card(&card_no)?, r.transactions_of(&card_no, None, 10)?)))
            .await
            .unwrap_err();
        assert!(read.is_damage(), "{what}: {read}");
        store.note_damage(&read);
        store.close().await;
        drop(store);
        // The next start salvages: the rest is there, and nothing is written to a card until a word.
        let (store, opened) = Store::open(&options(dir.path())).unwrap();
        assert!(!opened.salvaged.unwrap().requests_complete, "{what}");
        let rows = store.read(|r| r.open_transactions()).await.unwrap();
        assert_eq!(rows.iter().map(|row| row.fact.transaction_id).collect::<Vec<_>>(), [open], "{what}");
        let journal = Journal::new(store.clone());
        journal.tap(card.seen(), card.last, Evidence::default()).await.unwrap();
        let later =
            || transaction(&card, &plan(1), request(&card), &after(&plan(1), &card.holding), vec![], DAYS[0]);
        assert!(matches!(journal.begin(later()).await, Err(StoreError::LedgerRefused { .. })), "{what}");
        drop(journal);
        store.close().await;
        drop(store);
        assert!(hold::release(dir.path()).unwrap().is_some(), "{what}");
        let (store, _) = Store::open(&options(dir.path())).unwrap();
        drop(Journal::new(store.clone()).begin(later()).await.unwrap());
    }
}

/// The card as a file beside the store: what is renamed into place was written.
fn card_file(dir: &Path) -> std::path::PathBuf {
    dir.join("card.json")
}

fn read_card(dir: &Path) -> FakeCard {
    let mut card = FakeCard::new(1);
    if let Ok(text) = std::fs::read_to_string(card_file(dir)) {
        let (holding, last): (Holding, [u8; 4]) = serde_json::from_str(&text).unwrap();
        (card.holding, card.last) = (holding, Some(Mark(last)));
    }
    card
}

fn write_card(dir: &Path, card: &FakeCard) {
    let text = serde_json::to_string(&(&card.holding, card.last.map_or([0; 4], |mark| mark.0))).unwrap();
    std::fs::write(dir.join("card.part"), text).unwrap();
    std::fs::rename(dir.join("card.part"), card_file(dir)).unwrap();
}

#[test]
#[ignore = "plays the other process"]
fn plays_the_purse() {
    let dir = std::path::PathBuf::from(std::env::var("STORE_DIR").unwrap());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (store, _) = Store::open(&options(&dir)).unwrap();
        let journal = Journal::new(store.clone());
        let mut card = read_card(&dir);
        let mut fen = 1;
        loop {
            assert!(journal.tap(card.seen(), card.last, Evidence::default()).await.unwrap().standing.is_ok());
            fen = if card.holding.principal_fen.0 > 1_000 { -600 } else { fen % 97 + 1 };
            let after = after(&plan(fen), &card.holding);
            let new = transaction(&card, &plan(fen), request(&card), &after, vec![], DAYS[0]);
            let id = journal.begin(new).await.unwrap().fact.transaction_id;
            writeln!(std::io::stdout().lock(), "begun {id}").unwrap();
            card.write(&after, id);
            write_card(&dir, &card);
            journal.end(id, End::Committed(Evidence::default())).await.unwrap();
            writeln!(std::io::stdout().lock(), "told {id}").unwrap();
        }
    });
}

#[tokio::test]
async fn kill_9_at_any_moment_loses_and_doubles_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut acknowledged = BTreeSet::new();
    let mut interrupted = 0;
    for round in 0..12_usize {
        let mut purse = child("harm::plays_the_purse", dir.path());
        let out = purse.stdout.take().unwrap();
        let (mut begun, wanted) = (0, 3 + round * 5);
        for line in std::io::BufReader::new(out).lines() {
            let Ok(line) = line else { break };
            if let Some(id) = line.strip_prefix("told ") {
                acknowledged.insert(id.parse::<Uuid>().unwrap());
            }
            begun += usize::from(line.starts_with("begun "));
            // In every other round as soon as an intent is there, else as soon as one was told.
            let now = round.is_multiple_of(2) == line.starts_with("begun ");
            if begun >= wanted && now && purse.try_wait().unwrap().is_none() {
                purse.kill().unwrap();
            }
        }
        purse.wait().unwrap();
        let (store, opened) = Store::open(&options(dir.path())).unwrap();
        assert!(opened.new_epoch.is_none() && !opened.clean_shutdown, "round {round}");
        interrupted += store.read(|r| r.open_transactions()).await.unwrap().len();
        let card = read_card(dir.path());
        let tap = Journal::new(store.clone()).tap(card.seen(), card.last, Evidence::default()).await.unwrap();
        assert!(tap.standing.is_ok(), "round {round}: {tap:?}");
        assert!(store.read(|r| r.open_transactions()).await.unwrap().is_empty(), "round {round}");
        let card_no = card.card_no.clone();
        let rows = store.read(move |r| r.transactions_of(&card_no, None, 100_000)).await.unwrap();
        let committed: Vec<_> = rows.iter().filter(|row| row.state == State::Committed).collect();
        let sum: i64 = committed.iter().map(|row| row.fact.amount_fen.0).sum();
        assert_eq!(sum, card.holding.principal_fen.0, "round {round}");
        let counters: Vec<u32> = committed.iter().rev().map(|row| row.after.counter).collect();
        assert_eq!(counters, (1..=card.holding.counter).collect::<Vec<_>>(), "round {round}");
        let ids: BTreeSet<Uuid> = committed.iter().map(|row| row.fact.transaction_id).collect();
        assert!(acknowledged.is_subset(&ids), "round {round}: what was told is missing");
        let events: BTreeSet<Uuid> = told(&store)
            .await
            .iter()
            .filter(|fact| fact.outcome == Outcome::Committed)
            .map(|fact| fact.transaction_id)
            .collect();
        assert_eq!(events, ids, "round {round}");
        acknowledged = ids;
        store.close().await;
    }
    assert!(interrupted > 0, "no kill met an open intent: the test proves nothing");
}
