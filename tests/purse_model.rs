//! Random dealings with many cards in several stores, torn at random points, against a plain
//! model: what the cards hold, what the stores' journals say and what headquarters was told
//! are the same to the fen; every counter is there once; nothing happened twice.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod purse_counter;
mod purse_judge;
#[path = "support/seed.rs"]
mod seed;
mod store_setup;

use baygate::card::purse::settle::Became;
use baygate::card::purse::{Caps, Plan, changes, quote, refund};
use baygate::config::purse::{ClassRule, CouponRule, PurseTable};
use baygate::event::Text;
use baygate::event::ledger::{
    CardTransaction, CardType, Category, Item, Outcome, Tender, TenderKind, TransactionKind,
};
use baygate::ident::CardNo;
use baygate::money::{CouponId, Fen, Holding};
use baygate::store::StoreError;
use baygate::store::ledger::{End, Evidence, State};
use proptest::prelude::*;
use purse_counter::{DAYS, FakeCard, Shop, transaction};
use purse_judge::{headquarters_settles, judge};
use uuid::Uuid;

/// What a customer wants.
#[derive(Debug, Clone, Copy)]
enum Wish {
    TopUp(i64),
    Spend {
        purse: i64,
        cash: i64,
        /// With work that the class makes cheaper, and two gifts.
        work: bool,
        /// With work: a coupon pays a part of it.
        coupon: bool,
    },
    Coupon,
    Earn(i64),
    Redeem(i64),
    Adjust(i64),
    /// Of the n-th thing this store committed for the card.
    Refund {
        of: usize,
        amount: i64,
    },
    Void {
        of: usize,
    },
    Transfer {
        to: usize,
        amount: i64,
    },
}

/// Where it is torn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tear {
    Nowhere,
    /// The intent is on the disk, the card was not written.
    BeforeCard,
    /// The card was written, the outcome is not on the disk.
    AfterCard,
    /// As the two before, and the till was told that nobody knows.
    UnknownBefore,
    UnknownAfter,
    /// The write failed in a way that proves that nothing happened.
    Refused,
}

#[derive(Debug, Clone, Copy)]
struct Step {
    shop: usize,
    card: usize,
    wish: Wish,
    tear: Tear,
    /// The store is stopped and started afterwards.
    restart: bool,
    day: usize,
}

fn wishes() -> impl Strategy<Value = Wish> {
    prop_oneof![
        3 => (1_i64..200_000).prop_map(Wish::TopUp),
        6 => (0_i64..30_000, 0_i64..5_000, any::<bool>(), any::<bool>())
            .prop_map(|(purse, cash, work, coupon)| Wish::Spend { purse, cash, work, coupon }),
        1 => Just(Wish::Coupon),
        1 => (1_i64..500).prop_map(Wish::Earn),
        1 => (1_i64..300).prop_map(Wish::Redeem),
        1 => (-3_000_i64..3_000).prop_map(Wish::Adjust),
        3 => (0_usize..4, 1_i64..20_000).prop_map(|(of, amount)| Wish::Refund { of, amount }),
        1 => (0_usize..4).prop_map(|of| Wish::Void { of }),
        1 => (0_usize..3, 1_i64..9_000).prop_map(|(to, amount)| Wish::Transfer { to, amount }),
    ]
}

fn tears() -> impl Strategy<Value = Tear> {
    prop_oneof![
        6 => Just(Tear::Nowhere),
        1 => Just(Tear::BeforeCard),
        1 => Just(Tear::AfterCard),
        1 => Just(Tear::UnknownBefore),
        1 => Just(Tear::UnknownAfter),
        1 => Just(Tear::Refused),
    ]
}

prop_compose! {
    fn steps()(
        shop in 0_usize..2, card in 0_usize..3, wish in wishes(), tear in tears(),
        restart in prop::bool::weighted(0.05), day in 0_usize..DAYS.len(),
    ) -> Step {
        Step { shop, card, wish, tear, restart, day }
    }
}

/// Work costs ¥10, for class 1 a tenth less; the coupon pays ¥3 of it.
fn rules() -> PurseTable {
    PurseTable {
        class: vec![ClassRule {
            class: 1,
            name: Text::new("银卡", "Silver"),
            labour_off_per_mille: 100,
            parts_off_per_mille: 0,
        }],
        coupon: vec![CouponRule {
            id: CouponId(7),
            name: Text::new("券", "Coupon"),
            off_fen: Some(Fen(300)),
            off_per_mille: None,
            category: None,
            from_fen: Fen(0),
        }],
        ..PurseTable::default()
    }
}

/// What the till takes for work besides.
fn for_work(work: bool, coupon: bool) -> i64 {
    if work { 900 - if coupon { 300 } else { 0 } } else { 0 }
}

fn item(category: Category, quantity: u32, price: i64) -> Item {
    Item { sku: "oil".into(), category, quantity, price_fen: Fen(price) }
}

/// What a wish does to principal, bonus and points by plain arithmetic; `None` where the
/// original of a refund decides.
fn plainly(wish: Wish, card: &Holding) -> Option<[i64; 3]> {
    match wish {
        Wish::TopUp(amount) => Some([amount, 0, 0]),
        Wish::Spend { purse, cash, work, coupon } => {
            let (principal, told) = (purse.min(card.principal_fen.0), cash + for_work(work, coupon));
            Some([-principal, principal - purse, (principal + told) / 100])
        }
        Wish::Coupon => Some([0, 0, 0]),
        Wish::Earn(points) => Some([0, 0, points]),
        Wish::Redeem(points) => Some([0, 0, -points]),
        Wish::Adjust(amount) => Some([0, amount, 0]),
        Wish::Transfer { amount, .. } => Some([-amount, 0, 0]),
        Wish::Refund { .. } | Wish::Void { .. } => None,
    }
}

fn tender(kind: TenderKind, amount: i64) -> Option<Tender> {
    (amount > 0).then_some(Tender { kind, amount_fen: Fen(amount) })
}

/// The original and what followed it.
async fn original(
    shop: &Shop,
    card: &FakeCard,
    of: usize,
) -> Option<(CardTransaction, Vec<CardTransaction>)> {
    let card_no = card.card_no.clone();
    let rows = shop.store().read(move |r| r.transactions_of(&card_no, None, 100)).await.unwrap();
    let done: Vec<_> = rows.into_iter().filter(|row| row.state == State::Committed).collect();
    let id = done.get(of)?.fact.transaction_id;
    let following = shop.store().read(move |r| r.following(id)).await.unwrap();
    Some((done[of].current(), following.iter().map(|row| row.fact.clone()).collect()))
}

async fn plan(shop: &Shop, card: &FakeCard, other: &CardNo, wish: Wish) -> Option<(Plan, Vec<Uuid>)> {
    let rules = rules();
    let plan = match wish {
        Wish::TopUp(amount) => {
            let tenders = [Tender { kind: TenderKind::Cash, amount_fen: Fen(amount) }];
            changes::top_up(Fen(amount), &tenders, &rules)
        }
        Wish::Spend { purse, cash, work, coupon } => {
            let told = cash + for_work(work, coupon);
            let mut items = vec![item(Category::Goods, 1, purse + cash)];
            if work {
                items.extend([item(Category::Labour, 1, 1_000), item(Category::Gift, 2, 0)]);
            }
            let sale = quote::Sale {
                items,
                class: 1,
                coupon: (work && coupon).then_some(CouponId(7)),
                tenders: [tender(TenderKind::Purse, purse), tender(TenderKind::Wechat, told)]
                    .into_iter()
                    .flatten()
                    .collect(),
                ..quote::Sale::default()
            };
            quote::quote(&card.holding, &sale, &rules)
        }
        Wish::Earn(points) => changes::earn(points),
        Wish::Redeem(points) => changes::redeem(points, vec![item(Category::Gift, 3, 0)]),
        Wish::Coupon => changes::give_coupon(CouponId(7), &rules),
        Wish::Adjust(amount) => changes::adjust(Fen(0), Fen(amount), 0),
        Wish::Transfer { amount, .. } => {
            changes::transfer_out(Fen(amount), &card.holding, &[], &card.card_no, other)
        }
        Wish::Refund { of, .. } | Wish::Void { of } => {
            let (fact, earlier) = original(shop, card, of).await?;
            let of = refund::Original {
                fact: &fact,
                earlier: &earlier,
                parked: false,
                card_no: &card.card_no,
                predecessors: &[],
            };
            let plan = match wish {
                Wish::Refund { amount, .. } => refund::refund(&of, Fen(amount), &card.holding),
                _ => refund::void(&of),
            };
            return Some((plan.ok()?, earlier.iter().map(|fact| fact.transaction_id).collect()));
        }
    };
    Some((plan.ok()?, Vec::new()))
}

/// One dealing, torn where the step says. Gives the giving half of a transfer that is done.
async fn deal(
    shop: &Shop,
    card: &mut FakeCard,
    (plan, earlier): (Plan, Vec<Uuid>),
    step: &Step,
) -> Option<CardTransaction> {
    let caps = Caps::of(&rules(), CardType::Named, 4);
    let after = plan.after(&card.holding, &caps).ok()?;
    if let Some([principal, bonus, points]) = plainly(step.wish, &card.holding)
        && plan.kind != TransactionKind::Transfer
    {
        assert_eq!(after.principal_fen.0, card.holding.principal_fen.0 + principal);
        assert_eq!(after.bonus_fen.0, card.holding.bonus_fen.0 + bonus);
        assert_eq!(after.points, card.holding.points + points);
    }
    let asked = shop.ask(card).await;
    let new = transaction(card, &plan, asked.clone(), &after, earlier, DAYS[step.day]);
    let row = shop.journal().begin(new.clone()).await.unwrap();
    let id = row.fact.transaction_id;
    // The same key once more finds the same transaction, whatever came of it.
    assert!(matches!(shop.insert(&asked).await, Err(StoreError::Replayed { request }) if request == id));
    // Nothing else begins on this card meanwhile.
    let mut another = new;
    another.fact.transaction_id = Uuid::now_v7();
    assert!(matches!(shop.journal().begin(another).await, Err(StoreError::LedgerRefused { .. })));
    let write = |card: &mut FakeCard| card.write(&after, id);
    match step.tear {
        Tear::Nowhere => {
            write(card);
            let told = shop.journal().end(id, End::Committed(Evidence::default())).await.unwrap();
            assert_eq!((told.outcome, told.counter), (Outcome::Committed, Some(after.counter)));
            assert!(shop.journal().end(id, End::Aborted).await.is_err(), "what is settled stays");
            return (told.kind == TransactionKind::Transfer).then_some(told);
        }
        Tear::BeforeCard => {}
        Tear::AfterCard => write(card),
        Tear::UnknownBefore | Tear::UnknownAfter => {
            if step.tear == Tear::UnknownAfter {
                write(card);
            }
            let told = shop.journal().end(id, End::Unknown).await.unwrap();
            assert_eq!((told.outcome, told.counter), (Outcome::Unknown, None));
        }
        Tear::Refused => {
            let told = shop.journal().end(id, End::Aborted).await.unwrap();
            assert_eq!((told.outcome, told.counter), (Outcome::Aborted, Some(card.holding.counter)));
        }
    }
    None
}

async fn play(steps: Vec<Step>) {
    let mut shops = [Shop::open().await, Shop::open().await];
    let mut cards: Vec<FakeCard> = (1..=3).map(FakeCard::new).collect();
    for step in &steps {
        let other = match step.wish {
            Wish::Transfer { to, .. } => cards[to].card_no.clone(),
            _ => cards[step.card].card_no.clone(),
        };
        let (shop, card) = (&shops[step.shop], &mut cards[step.card]);
        let tap = shop.tap(card).await;
        assert!(tap.standing.is_ok(), "{:?}: no card is ever held without a fault", tap.standing);
        let open = shop.open_of(card).await;
        assert!(open.is_none(), "a tap settles: {open:?}");
        if let Some(plan) = plan(shop, card, &other, step.wish).await
            && let Some(giving) = Box::pin(deal(shop, card, plan, step)).await
            && let Wish::Transfer { to, .. } = step.wish
        {
            receive(shop, &mut cards[to], &giving, step).await;
        }
        if step.restart {
            shops[step.shop].restart().await;
        }
    }
    // Every card comes to every store once more.
    for shop in &shops {
        for card in &cards {
            assert!(shop.tap(card).await.standing.is_ok());
        }
        assert_eq!(shop.store().read(|r| r.open_transactions()).await.unwrap().len(), 0);
    }
    headquarters_settles(&shops).await;
    judge(&shops, &cards).await;
}

async fn receive(shop: &Shop, card: &mut FakeCard, giving: &CardTransaction, step: &Step) {
    assert!(shop.tap(card).await.standing.is_ok());
    let id = giving.transaction_id;
    assert!(shop.store().read(move |r| r.transfers_due()).await.unwrap().contains(&id));
    let plan = changes::transfer_in(giving, 0, &card.card_no).unwrap();
    Box::pin(deal(shop, card, (plan.clone(), Vec::new()), step)).await;
    // Torn before the card: the next tap says so, and it is tried again, sometimes.
    assert!(shop.tap(card).await.standing.is_ok());
    let is_due = shop.store().read(move |r| r.transfers_due()).await.unwrap().contains(&id);
    if is_due && step.day == 0 {
        let again = Step { tear: Tear::Nowhere, ..*step };
        Box::pin(deal(shop, card, (plan, Vec::new()), &again)).await;
    }
}

proptest! {
    #![proptest_config(seed::cases(24))]

    #[test]
    fn no_fen_appears_or_vanishes(steps in prop::collection::vec(steps(), 1..40)) {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(Box::pin(play(steps)));
    }
}

/// Parked for certain: torn here, used twice elsewhere, then back.
#[tokio::test]
async fn a_card_that_went_on_elsewhere_waits_for_headquarters() {
    for tear in [Tear::BeforeCard, Tear::AfterCard] {
        let step = |shop, tear| Step { shop, card: 0, wish: Wish::TopUp(100), tear, restart: false, day: 0 };
        let shops = [Shop::open().await, Shop::open().await];
        let mut card = FakeCard::new(1);
        for step in [step(0, tear), step(1, Tear::Nowhere), step(1, Tear::Nowhere)] {
            let shop = &shops[step.shop];
            assert!(shop.tap(&card).await.standing.is_ok());
            let other = card.card_no.clone();
            let plan = plan(shop, &card, &other, step.wish).await.unwrap();
            Box::pin(deal(shop, &mut card, plan, &step)).await;
        }
        let became = shops[0].tap(&card).await.settled.unwrap().1;
        // Written or not: by its counter alone nobody here can tell.
        assert_eq!(became, Became::Parked, "{tear:?}");
        headquarters_settles(&shops).await;
        judge(&shops, &[card]).await;
    }
}
