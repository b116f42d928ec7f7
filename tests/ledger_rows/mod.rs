//! Rows of the ledger as the purse would write them, by the store's own operations: cards that
//! are plain data, transactions of any kind with any outcome.
#![allow(dead_code, clippy::unwrap_used)]

use baygate::event::card::Technology;
use baygate::event::ledger::{
    CardTransaction, CardType, Category, Item, Outcome, Tender, TenderKind, TransactionKind,
};
use baygate::ident::CardNo;
use baygate::money::{CouponId, Fen, Holding};
use baygate::store::ledger::{End, NewTransaction, TransactionRow, intend};
use baygate::store::ledger_cards::{By, SeenCard, issued, seen};
use baygate::store::{Batch, Store};
use uuid::Uuid;

/// Business days of the stories.
pub const DAYS: [&str; 2] = ["2026-11-21", "2026-11-22"];

/// An empty card.
pub fn card(n: u32, card_type: CardType) -> SeenCard {
    SeenCard {
        card_no: format!("88000{n:05}").parse().unwrap(),
        uid: format!("04A1B2{n:02X}").parse().unwrap(),
        technology: Technology::Ntag215,
        card_type,
        issuing_store: "SH-0042".parse().unwrap(),
        valid_until: None,
        holding: Holding::default(),
    }
}

/// The card lies on a reader.
pub async fn tap(store: &Store, card: &SeenCard) {
    store.commit(Batch::new().op(seen(card.clone()))).await.unwrap();
}

/// The card is given out.
pub async fn give_out(store: &Store, card: &SeenCard, day: &str, operator: &str, till: &str) {
    let by = By { operator: operator.into(), till: till.parse().unwrap() };
    store.commit(issued(card.clone(), None, day.into(), by).unwrap()).await.unwrap();
}

/// What somebody does with a card.
#[derive(Debug, Clone)]
pub struct Deed {
    pub kind: TransactionKind,
    pub principal: i64,
    pub bonus: i64,
    pub points: i64,
    pub earned: i64,
    pub used: i64,
    pub discount: i64,
    pub coupon: Option<u32>,
    pub gifts: u32,
    pub tenders: Vec<(TenderKind, i64)>,
    pub operator: &'static str,
    pub till: &'static str,
    pub day: &'static str,
}

impl Default for Deed {
    fn default() -> Self {
        Self {
            kind: TransactionKind::Topup,
            principal: 0,
            bonus: 0,
            points: 0,
            earned: 0,
            used: 0,
            discount: 0,
            coupon: None,
            gifts: 0,
            tenders: Vec::new(),
            operator: "li.wei",
            till: "till-1",
            day: DAYS[1],
        }
    }
}

/// A top-up with cash.
pub fn top_up(fen: i64) -> Deed {
    Deed { principal: fen, tenders: vec![(TenderKind::Cash, fen)], ..Deed::default() }
}

/// A sale, all of it paid by the purse.
pub fn spend(fen: i64) -> Deed {
    let tenders = vec![(TenderKind::Purse, fen)];
    Deed { kind: TransactionKind::Spend, principal: -fen, tenders, ..Deed::default() }
}

fn fact(card: &SeenCard, deed: &Deed) -> CardTransaction {
    let gift = Item { sku: "mug".into(), category: Category::Gift, quantity: deed.gifts, price_fen: Fen(0) };
    let labour = Item { sku: "oil".into(), category: Category::Labour, quantity: 3, price_fen: Fen(100) };
    CardTransaction {
        transaction_id: Uuid::now_v7(),
        card_no: card.card_no.clone(),
        uid: card.uid.clone(),
        issuing_store: card.issuing_store.clone(),
        kind: deed.kind,
        amount_fen: Fen(deed.principal + deed.bonus),
        principal_fen: Fen(deed.principal),
        bonus_fen: Fen(deed.bonus),
        points: deed.points,
        points_earned: deed.earned,
        points_used: deed.used,
        coupon: deed.coupon.map(CouponId),
        coupons: Vec::new(),
        status_after: None,
        validity: None,
        order: None,
        items: if deed.gifts > 0 { vec![gift, labour] } else { vec![labour] },
        tenders: deed
            .tenders
            .iter()
            .map(|(kind, fen)| Tender { kind: *kind, amount_fen: Fen(*fen) })
            .collect(),
        discount_fen: (deed.discount > 0).then_some(Fen(deed.discount)),
        calculation: Vec::new(),
        original_transaction_id: None,
        counterparty_card_no: None,
        balance_after_fen: None,
        points_after: None,
        counter: None,
        counters: None,
        proof: None,
        operator: deed.operator.into(),
        till: deed.till.parse().unwrap(),
        offline: true,
        outcome: Outcome::Unknown,
        settles: None,
        idempotency_key: Uuid::new_v4().to_string(),
    }
}

/// The intent of a deed, durable; the card has to have been tapped.
pub async fn begin(store: &Store, card: &SeenCard, deed: &Deed) -> TransactionRow {
    let fact = fact(card, deed);
    let id = fact.transaction_id;
    let before = card.holding.clone();
    let after = Holding {
        principal_fen: Fen(before.principal_fen.0 + deed.principal),
        bonus_fen: Fen(before.bonus_fen.0 + deed.bonus),
        points: before.points + deed.points,
        coupons: before.coupons.clone(),
        counter: before.counter + 1,
    };
    let new = NewTransaction {
        fact,
        technology: card.technology,
        business_day: deed.day.into(),
        before,
        after,
        earlier: vec![],
        takes_fen: Fen((-deed.principal - deed.bonus).max(0)),
        day_cap: None,
    };
    store.commit(Batch::new().op(intend(new).unwrap())).await.unwrap();
    row(store, id).await
}

/// It ends so; a committed one is on the card.
pub async fn end(store: &Store, card: &mut SeenCard, id: Uuid, how: End) {
    let row = row(store, id).await;
    if matches!(how, End::Committed(_)) {
        card.holding = row.after.clone();
    }
    store.commit(row.end(how).unwrap()).await.unwrap();
}

/// From the tap to the end.
pub async fn done(store: &Store, card: &mut SeenCard, deed: &Deed) -> Uuid {
    tap(store, card).await;
    let id = begin(store, card, deed).await.fact.transaction_id;
    end(store, card, id, End::Committed(baygate::store::ledger::Evidence::default())).await;
    id
}

pub async fn row(store: &Store, id: Uuid) -> TransactionRow {
    store.read(move |r| r.transaction(id)).await.unwrap().unwrap()
}

pub fn number(card: &SeenCard) -> CardNo {
    card.card_no.clone()
}
