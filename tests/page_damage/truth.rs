//! What was written before the harm, what a harm excuses, and what was found after it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use baygate::card::purse::changes::adjust;
use baygate::card::purse::journal::Journal;
use baygate::card::purse::{Caps, Context};
use baygate::config::purse::PurseTable;
use baygate::event::Class;
use baygate::event::card::Technology;
use baygate::event::ledger::CardType;
use baygate::money::{Fen, Holding};
use baygate::store::ledger::{End, Evidence, NewTransaction};
use baygate::store::ledger_cards::SeenCard;
use baygate::store::outbox::{ClassCursor, OutboxOp};
use baygate::store::requests::{NewRequest, RequestOp};
use baygate::store::{Batch, Offset, Op, Opened, Store, backup};

use crate::sqlite_pages::{Format, Kind};
use crate::store_setup::{delivered, event, options};

/// Events of each of two classes.
pub const EVENTS: u64 = 500;
pub const LARGE: u64 = 12;
pub const REQUESTS: u64 = 60;
/// Events set aside.
pub const ASIDE: u64 = 40;
/// Transactions on one card, committed.
pub const TRANSACTIONS: u32 = 40;
/// Delivered of class card, in the first epoch.
pub const DELIVERED: u64 = 100;

pub type Identity = (String, uuid::Uuid, String);

/// What was written, by offset: epoch, class and class sequence, id and data.
pub struct Truth {
    pub format: Format,
    pub events: BTreeMap<i64, (Class, u64, Identity)>,
    pub first: Opened,
    /// A backup of it, made before the harm.
    pub backup: Vec<u8>,
}

fn identity(event: &baygate::event::Event) -> Identity {
    (event.epoch.to_string(), event.id, event.data.get().to_owned())
}

pub async fn all(store: &Store) -> BTreeMap<i64, (Class, u64, Identity)> {
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

pub fn request(n: u64) -> Batch {
    Batch::new().op(Op::Request(RequestOp::Insert(NewRequest {
        id: uuid::Uuid::now_v7(),
        kind: "card.spend",
        target: "counter-1".into(),
        scope: "till-1".into(),
        idempotency_key: Some(format!("key-{n}")),
        body: serde_json::json!({ "amount_fen": n, "note": "x".repeat(200) }),
    })))
}

/// The card of all transactions.
pub const CARD: &str = "8800001";

/// It as a reader sees it.
pub fn seen(holding: &Holding) -> SeenCard {
    SeenCard {
        card_no: CARD.parse().unwrap(),
        uid: "04A1B2C3".parse().unwrap(),
        technology: Technology::Desfire,
        card_type: CardType::Named,
        issuing_store: "SH-0042".parse().unwrap(),
        valid_until: None,
        holding: holding.clone(),
    }
}

/// A top-up that is begun: its id, and what the card holds once it is written.
pub async fn begun(journal: &Journal, holding: &Holding, n: u32) -> (uuid::Uuid, Holding) {
    journal.tap(seen(holding), None, Evidence::default()).await.unwrap();
    let plan = adjust(Fen(1), Fen(0), 0).unwrap();
    let context = Context {
        transaction_id: uuid::Uuid::now_v7(),
        card_no: CARD.parse().unwrap(),
        uid: "04A1B2C3".parse().unwrap(),
        issuing_store: "SH-0042".parse().unwrap(),
        operator: "li".into(),
        till: "till-1".parse().unwrap(),
        order: None,
        offline: false,
        idempotency_key: format!("spend-{n}"),
    };
    let caps = Caps::of(&PurseTable::default(), CardType::Named, 4);
    let (before, after) = (holding.clone(), plan.after(holding, &caps).unwrap());
    let new = NewTransaction {
        fact: plan.fact(&context).unwrap(),
        technology: Technology::Desfire,
        business_day: "2026-11-21".into(),
        before,
        after: after.clone(),
        earlier: Vec::new(),
        takes_fen: Fen(0),
        day_cap: None,
    };
    (journal.begin(new).await.unwrap().fact.transaction_id, after)
}

/// The card, holding this, is topped up so often; what it holds then.
pub async fn spend(store: &Store, mut holding: Holding, times: std::ops::Range<u32>) -> Holding {
    let journal = Journal::new(store.clone());
    for n in times {
        let (id, after) = begun(&journal, &holding, n).await;
        journal.end(id, End::Committed(Evidence::default())).await.unwrap();
        holding = after;
    }
    holding
}

/// A database with pages of every kind, closed in order.
pub async fn grown(dir: &Path) -> Truth {
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
    for n in 1..=ASIDE {
        let envelope = serde_json::json!({ "n": n, "note": "x".repeat(300) }).to_string();
        let aside = OutboxOp::SetAside { offset: Offset(n.cast_signed()), reason: "0x99".into(), envelope };
        store.commit(Batch::new().op(Op::Outbox(aside))).await.unwrap();
    }
    spend(&store, Holding::default(), 0..TRANSACTIONS).await;
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
    let good = dir.join("good.db");
    backup::backup(dir, &good, &mut |_, _| {}).unwrap();
    let format = Format::read(&dir.join("baygate.db"));
    Truth { format, events, first, backup: std::fs::read(good).unwrap() }
}

/// What the truth allows to be missing: rows that touch a harmed page.
pub fn excused(truth: &Truth, harmed: &[usize]) -> BTreeSet<i64> {
    harmed
        .iter()
        .filter_map(|no| truth.format.pages.get(no))
        .filter(|page| page.owner == "event" && matches!(page.kind, Kind::TableLeaf | Kind::Overflow))
        .flat_map(|page| page.rows.iter().copied())
        .collect()
}

/// Nothing altered, nothing missing but what was harmed.
pub fn assert_kept(
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

pub fn exported(text: &str) -> BTreeMap<i64, (Class, u64, Identity)> {
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
