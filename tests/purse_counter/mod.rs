//! A shop with a real store on disk, and cards that are plain data.

#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use baygate::card::purse::journal::{Journal, Tap};
use baygate::card::purse::settle::Mark;
use baygate::card::purse::{Context, Plan};
use baygate::event::Class;
use baygate::event::card::Technology;
use baygate::event::ledger::{CardTransaction, CardType};
use baygate::ident::{CardNo, CardUid};
use baygate::money::{Fen, Holding};
use baygate::store::ledger::{Evidence, NewTransaction, TransactionRow};
use baygate::store::ledger_cards::SeenCard;
use baygate::store::outbox::ClassCursor;
use baygate::store::requests::{NewRequest, RequestOp};
use baygate::store::{Batch, Op, Store, StoreError};
use tempfile::TempDir;
use uuid::Uuid;

use crate::store_setup::options;

/// Business days of the stories.
pub const DAYS: [&str; 2] = ["2026-11-21", "2026-11-22"];

/// A card as plain data: what it holds, and which transaction was its last.
#[derive(Debug, Clone)]
pub struct FakeCard {
    pub card_no: CardNo,
    pub uid: CardUid,
    pub holding: Holding,
    pub last: Option<Mark>,
    /// Whether its layout has room for the name of its last transaction.
    pub names_last: bool,
}

impl FakeCard {
    pub fn new(n: u32) -> Self {
        let card_no = CardNo::new(format!("88000{n:02}")).unwrap();
        let uid = CardUid::new(format!("04A1B2{n:02}")).unwrap();
        Self { card_no, uid, holding: Holding::default(), last: None, names_last: true }
    }

    pub fn write(&mut self, after: &Holding, id: Uuid) {
        assert_eq!(after.counter, self.holding.counter + 1, "the counter rises by one");
        self.holding = after.clone();
        self.last = self.names_last.then(|| Mark::of(id));
    }

    pub fn seen(&self) -> SeenCard {
        SeenCard {
            card_no: self.card_no.clone(),
            uid: self.uid.clone(),
            technology: Technology::Desfire,
            card_type: CardType::Named,
            issuing_store: "SH-0001".parse().unwrap(),
            valid_until: None,
            holding: self.holding.clone(),
        }
    }
}

pub struct Shop {
    pub dir: TempDir,
    store: Option<Store>,
}

impl Shop {
    pub async fn open() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (store, _) = Store::open(&options(dir.path())).unwrap();
        Self { dir, store: Some(store) }
    }

    pub fn store(&self) -> &Store {
        self.store.as_ref().unwrap()
    }

    pub fn journal(&self) -> Journal {
        Journal::new(self.store().clone())
    }

    /// Stops; gives the folder.
    pub async fn close(mut self) -> TempDir {
        self.store.take().unwrap().close().await;
        self.dir
    }

    pub async fn restart(&mut self) {
        self.store.take().unwrap().close().await;
        let (store, opened) = Store::open(&options(self.dir.path())).unwrap();
        assert_eq!(opened.new_epoch, None);
        self.store = Some(store);
    }

    pub async fn tap(&self, card: &FakeCard) -> Tap {
        self.journal().tap(card.seen(), card.last, Evidence::default()).await.unwrap()
    }

    pub async fn open_of(&self, card: &FakeCard) -> Option<TransactionRow> {
        let card_no = card.card_no.clone();
        self.store().read(move |r| r.open_transaction(&card_no)).await.unwrap()
    }

    pub async fn insert(&self, request: &NewRequest) -> Result<(), StoreError> {
        let again = NewRequest { id: Uuid::now_v7(), ..request.clone() };
        self.store().commit(Batch::new().op(Op::Request(RequestOp::Insert(again)))).await.map(drop)
    }

    /// The till's request, committed.
    pub async fn ask(&self, card: &FakeCard) -> NewRequest {
        let request = request(card);
        self.store().commit(Batch::new().op(Op::Request(RequestOp::Insert(request.clone())))).await.unwrap();
        request
    }

    /// All transactions of the days.
    pub async fn rows(&self) -> Vec<TransactionRow> {
        let mut rows = Vec::new();
        for n in 1..=3 {
            let card_no = FakeCard::new(n).card_no;
            rows.extend(self.store().read(move |r| r.transactions_of(&card_no, None, 10_000)).await.unwrap());
        }
        rows.sort_by_key(|row| row.no);
        rows
    }

    pub async fn day_of(&self, id: Uuid) -> String {
        self.store().read(move |r| r.transaction(id)).await.unwrap().unwrap().business_day
    }
}

/// What a till asks.
pub fn request(card: &FakeCard) -> NewRequest {
    NewRequest {
        id: Uuid::now_v7(),
        kind: "card.transaction",
        target: "counter-1".into(),
        scope: "till-1".into(),
        idempotency_key: Some(Uuid::new_v4().to_string()),
        body: serde_json::json!({ "card_no": card.card_no }),
    }
}

/// The intent for what was asked.
pub fn transaction(
    card: &FakeCard,
    plan: &Plan,
    asked: NewRequest,
    after: &Holding,
    earlier: Vec<Uuid>,
    day: &str,
) -> NewTransaction {
    let context = Context {
        transaction_id: asked.id,
        card_no: card.card_no.clone(),
        uid: card.uid.clone(),
        issuing_store: "SH-0001".parse().unwrap(),
        operator: if card.holding.counter.is_multiple_of(2) { "li".into() } else { "wang".into() },
        till: "till-1".parse().unwrap(),
        order: None,
        offline: true,
        idempotency_key: asked.idempotency_key.unwrap_or_default(),
    };
    NewTransaction {
        fact: plan.fact(&context).unwrap(),
        technology: Technology::Desfire,
        business_day: day.to_owned(),
        before: card.holding.clone(),
        after: after.clone(),
        earlier,
        takes_fen: plan.effect.takes(Fen(1)).unwrap(),
        day_cap: None,
    }
}

/// Every `card.transaction` in the log, in its order.
pub async fn told(store: &Store) -> Vec<CardTransaction> {
    let mut facts = Vec::new();
    let mut after = ClassCursor::default();
    loop {
        let page = store.read(move |r| r.class_events_after(Class::Ledger, after, 500)).await.unwrap();
        let Some(last) = page.last() else { return facts };
        after = last.cursor;
        facts.extend(
            page.iter()
                .filter(|logged| logged.event.kind == "card.transaction")
                .map(|logged| logged.event.data_as().unwrap()),
        );
    }
}
