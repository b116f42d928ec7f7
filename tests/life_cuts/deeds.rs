//! Everything else a counter does with a card: points, coupons, sales paid with them, refunds,
//! what is undone, and what is put right by hand.

use std::collections::BTreeMap;

use baygate::card::counter::{Adjustment, Deal};
use baygate::event::ledger::{CardTransaction, CardType, Outcome, TransactionKind as Kind};
use baygate::money::{CouponId, Fen, Holding};
use baygate::sim::card::Chip;
use serde_json::json;
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::counter::{self, Gateway, Running, vpcd_table};
use crate::cut_shop::{FAULTS, Shop, deal, members, number};
use crate::cuts::{ALL_ON_NTAG, CLASSIC, Cuts, cut, issued, whole};
use crate::port::free_port;

/// What is undone or given back, each time one fen or the whole of it.
const SALE: Fen = Fen(1_000);

/// A shop that has coupons, and headquarters behind it.
fn open() -> (Shop, Running) {
    let shop = Shop { gateway: Gateway::new(), port: free_port() };
    let mut house = counter::shop();
    house.has_uplink = true;
    house.rules.coupon = vec![
        serde_json::from_value(
            json!({ "id": 7, "name": { "zh": "保养券", "en": "Service" }, "off_fen": 500 }),
        )
        .unwrap(),
    ];
    let service = shop.gateway.serve_shop(vpcd_table("counter-1", shop.port), Some(members()), house);
    (shop, service)
}

/// Each deed cut at each command, by another fault each time.
async fn deeds_are_cut((shop, service): (Shop, Running), cuts: Cuts) {
    let card_no = number(1);
    let plain = |kind| deal(&card_no, kind);
    let points = |kind, points| Deal { points: Some(points), ..plain(kind) };
    let coupon = |kind| Deal { coupon: Some(CouponId(7)), ..plain(kind) };
    let sale = || Deal { amount_fen: Some(SALE), ..plain(Kind::Spend) };
    let paid_with_all = || Deal { points: Some(3), amount_fen: Some(SALE), ..coupon(Kind::Spend) };
    let adjustment = Adjustment { principal_fen: Fen(-3), bonus_fen: Fen(4), points: -1 };
    let adjust = || Deal { adjustment: Some(adjustment), ..plain(Kind::Adjust) };
    let of = |kind, original| Deal { original_transaction_id: Some(original), ..plain(kind) };
    let refund = |original| Deal { amount_fen: Some(Fen(1)), ..of(Kind::Refund, original) };

    let mut chip = issued(&shop, cuts.sim, 1, CardType::Named, 300_000).await;
    let mut commands = 0;
    for deal in [points(Kind::Earn, 1_000), coupon(Kind::Coupon), coupon(Kind::Coupon)] {
        (chip, commands, _) = whole(&shop, &chip, deal).await;
    }
    let mut became: BTreeMap<&str, [u32; 2]> = BTreeMap::new();
    for (turn, name) in
        ["earn", "redeem", "coupon", "sale with coupon and points", "adjust", "refund", "void"]
            .into_iter()
            .enumerate()
    {
        let mut original: Option<Uuid> = None;
        for at in 0..commands {
            // What can be undone once is made anew when it was.
            if matches!(name, "refund" | "void") && original.is_none() {
                let (after, _, id) = whole(&shop, &chip, sale()).await;
                (chip, original) = (after, Some(id));
            }
            let deal = match (name, original) {
                ("earn", _) => points(Kind::Earn, 2),
                ("redeem", _) => points(Kind::Redeem, 1),
                ("coupon", _) => coupon(Kind::Coupon),
                ("adjust", _) => adjust(),
                ("refund", Some(original)) => refund(original),
                ("void", Some(original)) => of(Kind::Void, original),
                _ => paid_with_all(),
            };
            let fault = FAULTS[(turn + at) % FAULTS.len()];
            let what = format!("{name}, {fault:?} at {at} of {commands}");
            let before = shop.known(&card_no).await.unwrap();
            let (after, committed, id) = cut(&shop, &chip, at, fault, deal).await;
            chip = after;
            became.entry(name).or_default()[usize::from(committed)] += 1;
            let row = shop.gateway.store.read(move |r| r.transaction(id)).await.unwrap().unwrap();
            let expected = if committed { &row.after } else { &before };
            assert_ne!(row.after, before, "{what}");
            assert_eq!(shop.known(&card_no).await.as_ref(), Some(expected), "{what}");
            if committed && name == "void" {
                original = None;
            }
        }
    }
    assert_eq!(became.len(), 7);
    assert!(became.values().flatten().all(|times| *times > 0), "{became:?}");
    adds_up(&shop, &chip).await;
    service.stop().await;
}

/// The card holds what headquarters was told of it.
async fn adds_up(shop: &Shop, chip: &Chip) {
    let told = shop.told().await.into_iter().filter(|(kind, _)| kind == "card.transaction");
    let facts = told.map(|(_, data)| serde_json::from_value::<CardTransaction>(data).unwrap());
    let last: BTreeMap<Uuid, CardTransaction> = facts.map(|fact| (fact.transaction_id, fact)).collect();
    assert!(last.values().all(|fact| fact.outcome != Outcome::Unknown));
    let mut sum = Holding::default();
    for fact in last.values().filter(|fact| fact.outcome == Outcome::Committed) {
        sum.principal_fen.0 += fact.principal_fen.0;
        sum.bonus_fen.0 += fact.bonus_fen.0;
        sum.points += fact.points;
        sum.counter += 1;
        match (fact.kind, fact.coupon) {
            (Kind::Coupon, Some(id)) => sum.coupons.push(id),
            (Kind::Spend, Some(_)) => drop(sum.coupons.pop().unwrap()),
            _ => {}
        }
    }
    // Tapped once more: the chip itself.
    let card = shop.lay(chip).await;
    assert_eq!(shop.known(&number(1)).await, Some(sum));
    shop.take_away(card).await;
    assert!(shop.gateway.store.read(|r| r.open_transactions()).await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn every_deed_is_cut_at_every_command() {
    let mut all = JoinSet::new();
    for cuts in [ALL_ON_NTAG, CLASSIC] {
        all.spawn(deeds_are_cut(open(), cuts));
    }
    all.join_all().await;
}
