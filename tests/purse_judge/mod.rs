//! At the end of random dealings: headquarters settles what only it can, and cards, journals, figures
//! of the days and what headquarters was told are the same.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::{BTreeMap, BTreeSet};

use baygate::event::ledger::{CardTransaction, Category, Outcome, TenderKind, TransactionKind};
use baygate::ident::CardNo;
use baygate::money::Holding;
use baygate::store::ledger::{End, Evidence, State};
use baygate::store::ledger_figures::{Counter, Sum};
use uuid::Uuid;

use crate::purse_counter::{DAYS, FakeCard, Shop, told};

/// What only headquarters can tell: whether the counter of a parked transaction is another's.
pub async fn headquarters_settles(shops: &[Shop; 2]) {
    let mut taken = BTreeSet::new();
    for shop in shops {
        for row in shop.rows().await.iter().filter(|row| row.state == State::Committed) {
            assert!(taken.insert((row.fact.card_no.clone(), row.after.counter)), "a counter twice");
        }
    }
    for shop in shops {
        for row in shop.rows().await.iter().filter(|row| row.state == State::Parked) {
            let another = taken.contains(&(row.fact.card_no.clone(), row.after.counter));
            let how = if another { End::Aborted } else { End::Committed(Evidence::default()) };
            let told = shop.journal().end(row.fact.transaction_id, how).await.unwrap();
            assert_eq!(told.settles, Some(true));
        }
    }
}

type ByCounter = BTreeMap<(String, Counter), BTreeMap<TransactionKind, Sum>>;

/// Cards = journals = what headquarters was told = figures of the days.
pub async fn judge(shops: &[Shop; 2], cards: &[FakeCard]) {
    let mut sums: BTreeMap<CardNo, ([i64; 3], BTreeSet<u32>)> = BTreeMap::new();
    let mut balances = 0;
    for shop in shops {
        let rows = shop.rows().await;
        let committed: Vec<_> = rows.iter().filter(|row| row.state == State::Committed).collect();
        for row in &committed {
            let (sum, counters) = sums.entry(row.fact.card_no.clone()).or_default();
            let fact = &row.fact;
            for (sum, by) in sum.iter_mut().zip([fact.principal_fen.0, fact.bonus_fen.0, fact.points]) {
                *sum += by;
            }
            assert!(counters.insert(row.after.counter), "counter {} twice", row.after.counter);
        }
        // Headquarters keeps the last event of each transaction.
        let events = told(shop.store()).await;
        let heard: BTreeMap<_, _> = events.iter().map(|fact| (fact.transaction_id, fact.clone())).collect();
        for (n, fact) in events.iter().enumerate() {
            let before = events[..n].iter().any(|earlier| earlier.transaction_id == fact.transaction_id);
            assert_eq!(fact.settles, before.then_some(true), "{fact:?}");
        }
        let committed_there: BTreeSet<_> = heard
            .values()
            .filter(|fact| fact.outcome == Outcome::Committed)
            .map(|f| f.transaction_id)
            .collect();
        assert_eq!(committed_there, committed.iter().map(|row| row.fact.transaction_id).collect());
        assert!(heard.values().all(|fact| fact.outcome != Outcome::Unknown));
        balances += told_in_and_out(&heard);
        for id in shop.store().read(|r| r.transfers_due()).await.unwrap() {
            balances += heard[&id].amount_fen.0;
        }
        figures_are_the_ledger(shop, &heard).await;
    }
    // What was paid in, less what was taken out, is on the cards or on its way between two.
    assert_eq!(balances, cards.iter().map(|card| card.holding.balance().unwrap().0).sum::<i64>());
    for card in cards {
        let (sum, counters) = sums.remove(&card.card_no).unwrap_or_default();
        let Holding { principal_fen, bonus_fen, points, counter, .. } = &card.holding;
        assert_eq!(sum, [principal_fen.0, bonus_fen.0, *points], "{}", card.card_no);
        assert_eq!(counters, (1..=*counter).collect(), "{}: each counter once", card.card_no);
    }
    assert!(sums.is_empty());
}

/// What tenders say that came onto cards and went off them; of what has none, the amount.
fn told_in_and_out(heard: &BTreeMap<Uuid, CardTransaction>) -> i64 {
    let by = |fact: &CardTransaction, fits: fn(TenderKind) -> bool| -> i64 {
        fact.tenders.iter().filter(|tender| fits(tender.kind)).map(|tender| tender.amount_fen.0).sum()
    };
    let purse = |kind: TenderKind| kind == TenderKind::Purse;
    let of = |fact: &CardTransaction| match fact.kind {
        TransactionKind::Topup => by(fact, TenderKind::is_told),
        TransactionKind::Spend => -by(fact, purse),
        TransactionKind::Adjust => fact.amount_fen.0,
        _ => 0,
    };
    let committed = heard.values().filter(|fact| fact.outcome == Outcome::Committed);
    committed
        .map(|fact| match (fact.kind, fact.original_transaction_id) {
            (TransactionKind::Refund | TransactionKind::Void, Some(original)) => {
                let original = &heard[&original];
                match original.kind {
                    TransactionKind::Topup => -by(fact, TenderKind::is_told),
                    TransactionKind::Spend => by(fact, purse),
                    _ => -of(original),
                }
            }
            _ => of(fact),
        })
        .sum()
}

/// The figures of every day against a sum of their own over what headquarters was told.
async fn figures_are_the_ledger(shop: &Shop, heard: &BTreeMap<Uuid, CardTransaction>) {
    let mut expected = ByCounter::new();
    for fact in heard.values().filter(|fact| fact.outcome == Outcome::Committed) {
        let counter = Counter { operator: fact.operator.clone(), till: fact.till.clone() };
        let day = shop.day_of(fact.transaction_id).await;
        let sum = expected.entry((day, counter)).or_default().entry(fact.kind).or_default();
        sum.count += 1;
        sum.amount_fen.0 += fact.principal_fen.0 + fact.bonus_fen.0;
        sum.principal_fen.0 += fact.principal_fen.0;
        sum.bonus_fen.0 += fact.bonus_fen.0;
        sum.points += fact.points;
        sum.points_earned += fact.points_earned;
        sum.points_used += fact.points_used;
        let receives = fact.kind == TransactionKind::Transfer && fact.original_transaction_id.is_some();
        let back = receives || matches!(fact.kind, TransactionKind::Refund | TransactionKind::Void);
        let sign = if back { -1 } else { 1 };
        sum.discount_fen.0 += fact.discount_fen.map_or(0, |fen| fen.0);
        sum.coupons += sign * i64::from(fact.coupon.is_some());
        let gifts = fact.items.iter().filter(|item| item.category == Category::Gift);
        sum.gifts += sign * gifts.map(|item| i64::from(item.quantity)).sum::<i64>();
        for tender in &fact.tenders {
            sum.tenders.entry(tender.kind).or_default().0 += sign * tender.amount_fen.0;
        }
    }
    let mut found = ByCounter::new();
    for day in DAYS {
        let figures = shop.store().read(move |r| r.figures(day)).await.unwrap();
        assert_eq!(figures.unsettled, 0);
        let amount: i64 = figures.total.values().map(|sum| sum.amount_fen.0).sum();
        let by_counter = figures.by_counter.values().flat_map(BTreeMap::values);
        assert_eq!(amount, by_counter.map(|sum| sum.amount_fen.0).sum::<i64>());
        // What sales, refunds and voids took off cards is what the tender `purse` says.
        for (kind, sum) in &figures.total {
            if *kind == TransactionKind::Spend {
                let purse = sum.tenders.get(&TenderKind::Purse).copied().unwrap_or_default();
                assert_eq!(purse.0, -sum.amount_fen.0);
            }
        }
        for (counter, kinds) in figures.by_counter {
            found.insert((day.to_owned(), counter), kinds);
        }
    }
    assert_eq!(found, expected);
    what_was_undone_leaves_no_figure(shop, heard).await;
}

/// A sale and all that undid it to the last fen: no gift, no discount, no coupon is left.
async fn what_was_undone_leaves_no_figure(shop: &Shop, heard: &BTreeMap<Uuid, CardTransaction>) {
    let committed = |fact: &&CardTransaction| fact.outcome == Outcome::Committed;
    for fact in heard.values().filter(committed).filter(|fact| fact.kind == TransactionKind::Spend) {
        let id = fact.transaction_id;
        let following = shop.store().read(move |r| r.following(id)).await.unwrap();
        let back: Vec<_> = following.iter().map(|row| &row.fact).collect();
        let total = |facts: &[&CardTransaction]| -> i64 {
            facts.iter().flat_map(|fact| &fact.tenders).map(|tender| tender.amount_fen.0).sum()
        };
        if total(&back) != total(&[fact]) || total(&[fact]) == 0 {
            continue;
        }
        let discounts: i64 = back.iter().filter_map(|back| back.discount_fen).map(|fen| fen.0).sum();
        let items: usize = back.iter().map(|back| back.items.len()).sum();
        let coupons = back.iter().filter(|back| back.coupon.is_some()).count();
        assert_eq!(discounts, -fact.discount_fen.map_or(0, |fen| fen.0));
        assert_eq!((items, coupons), (fact.items.len(), usize::from(fact.coupon.is_some())));
    }
}
