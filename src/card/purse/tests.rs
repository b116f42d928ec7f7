//! Worked examples by hand: sales, top-ups, transfers; what is given back: `refunds`; who may what: `permits`.
//! What must hold for every sale: `laws`.

mod laws;
mod life;
mod permits;
mod refunds;

use std::collections::BTreeSet;

use jiff::tz::TimeZone;
use uuid::Uuid;

use super::changes::{adjust, earn, give_coupon, redeem, top_up, transfer_in, transfer_out};
use super::day::business_day;
use super::quote::{Sale, quote};
use super::refund::{Original, refund, void};
use super::settle::Mark;
use super::*;
use crate::clock::UtcMillis;
use crate::config::purse::{ClassRule, CouponRule, PurseTable, RewardRule};
use crate::event::Text;
use crate::event::ledger::{
    CardTransaction, CardType, Category, Item, Outcome, Tender, TenderKind, TransactionKind,
};
use crate::ident::CardNo;
use crate::money::{CouponId, Fen, Holding};

const CAPS: Caps =
    Caps { max_balance_fen: Fen(500_000), bonus_counts: true, max_points: 9_999_999, coupon_slots: 4 };

fn rules() -> PurseTable {
    let coupon = |id, off_fen: Option<i64>, off_per_mille, category, from| CouponRule {
        id: CouponId(id),
        name: Text::new("券", "Coupon"),
        off_fen: off_fen.map(Fen),
        off_per_mille,
        category,
        from_fen: Fen(from),
    };
    PurseTable {
        class: vec![ClassRule {
            class: 2,
            name: Text::new("金卡", "Gold"),
            labour_off_per_mille: 125,
            parts_off_per_mille: 50,
        }],
        reward: vec![
            RewardRule { from_fen: Fen(100_000), bonus_fen: Fen(5_000) },
            RewardRule { from_fen: Fen(200_000), bonus_fen: Fen(20_000) },
        ],
        coupon: vec![
            coupon(7, Some(3_000), None, None, 10_000),
            coupon(8, None, Some(500), Some(Category::Labour), 0),
        ],
        ..PurseTable::default()
    }
}

fn item(category: Category, quantity: u32, price: i64) -> Item {
    Item { sku: "S".into(), category, quantity, price_fen: Fen(price) }
}

fn mark(n: u32) -> Mark {
    Mark(n.to_be_bytes())
}

fn tender(kind: TenderKind, fen: i64) -> Tender {
    Tender { kind, amount_fen: Fen(fen) }
}

fn holding(principal: i64, bonus: i64, points: i64, coupons: &[u32]) -> Holding {
    let coupons = coupons.iter().map(|id| CouponId(*id)).collect();
    Holding { principal_fen: Fen(principal), bonus_fen: Fen(bonus), points, coupons, counter: 9 }
}

fn card_no() -> CardNo {
    CardNo::new("8800001").unwrap()
}

fn fact(plan: &Plan) -> CardTransaction {
    plan.fact(&context()).unwrap()
}

fn context() -> Context {
    Context {
        transaction_id: Uuid::now_v7(),
        card_no: card_no(),
        uid: "04A1B2C3".parse().unwrap(),
        issuing_store: "SH-0042".parse().unwrap(),
        operator: "li".into(),
        till: "till-1".parse().unwrap(),
        order: None,
        offline: true,
        idempotency_key: "k".into(),
    }
}

fn numbers(plan: &Plan) -> Vec<(&str, i64)> {
    plan.lines.iter().map(|line| (line.code.as_str(), line.amount_fen.0)).collect()
}

#[test]
fn a_sale_worked_by_hand() {
    // Labour 3 × ¥33.35 = 10005, 12.5 % off is 1250.625 → 1251; parts 20000, 5 % off is 1000.
    let sale = Sale {
        items: vec![item(Category::Labour, 3, 3_335), item(Category::Parts, 1, 20_000)],
        class: 2,
        coupon: Some(CouponId(7)),
        points: 1_000,
        tenders: vec![tender(TenderKind::Wechat, 10_000), tender(TenderKind::Purse, 13_754)],
    };
    let plan = quote(&holding(12_000, 5_000, 2_000, &[7]), &sale, &rules()).unwrap();
    assert_eq!(
        numbers(&plan),
        [
            ("item", 10_005),
            ("item", 20_000),
            ("discount-labour", -1_251),
            ("discount-parts", -1_000),
            ("pay-coupon", -3_000),
            ("pay-points", -1_000),
            ("pay-wechat", -10_000),
            ("pay-principal", -12_000),
            ("pay-bonus", -1_754),
        ]
    );
    assert_eq!((plan.due_fen, plan.discount_fen), (Fen(27_754), Fen(2_251)));
    let tenders: Vec<_> = plan.tenders.iter().map(|tender| (tender.kind, tender.amount_fen.0)).collect();
    let expected = [
        (TenderKind::Coupon, 3_000),
        (TenderKind::Points, 1_000),
        (TenderKind::Wechat, 10_000),
        (TenderKind::Purse, 13_754),
    ];
    assert_eq!(tenders, expected);
    // Principal first: 12000 and 1754 of the bonus. Points for 22000 fen of real money.
    assert_eq!((plan.effect.principal_fen, plan.effect.bonus_fen), (Fen(-12_000), Fen(-1_754)));
    assert_eq!((plan.points_earned, plan.points_used, plan.effect.points), (220, 1_000, -780));
    assert_eq!(plan.lines[2].text.zh, "金卡工时优惠 −12.5%");
    // What it calls its tenders is taken back as it is, and told as it was shown.
    let again = Sale { tenders: plan.tenders.clone(), ..sale.clone() };
    assert_eq!(quote(&holding(12_000, 5_000, 2_000, &[7]), &again, &rules()), Ok(plan.clone()));
    assert_eq!(fact(&plan).calculation, plan.lines);
    let told = crate::event::schema::event_types().into_iter().find(|it| it.kind == "card.transaction");
    let schema = serde_json::to_string(&told.unwrap().schema).unwrap();
    for code in ["coupon", "points", "cash", "wechat", "alipay", "bank", "principal", "bonus"] {
        assert!(schema.contains(&format!("`pay-{code}`")), "baygate schema events does not tell pay-{code}");
    }
    // Coupon and points with what they are worth, once, and never instead of the rest.
    for (wrong, by) in [(0, 2_999), (1, 1_001)] {
        let mut tenders = plan.tenders.clone();
        tenders[wrong].amount_fen = Fen(by);
        let sale = Sale { tenders, ..sale.clone() };
        let refused = quote(&holding(12_000, 5_000, 2_000, &[7]), &sale, &rules());
        assert_eq!(refused, Err(Refusal::TendersDoNotAddUp), "{by}");
    }
    for tenders in [[&plan.tenders[..], &plan.tenders[..1]].concat(), plan.tenders[..2].to_vec()] {
        let sale = Sale { tenders, ..sale.clone() };
        let refused = quote(&holding(12_000, 5_000, 2_000, &[7]), &sale, &rules());
        assert_eq!(refused, Err(Refusal::TendersDoNotAddUp), "{:?}", sale.tenders);
    }
}

#[test]
fn sales_that_are_refused() {
    use Refusal as R;
    let goods = |fen| vec![item(Category::Goods, 1, fen)];
    let with = |sale: Sale| quote(&holding(10_000, 0, 50, &[7]), &sale, &rules());
    let cases = [
        (Sale::default(), R::AmountNotAllowed),
        (Sale { items: vec![item(Category::Goods, 0, 5)], ..Sale::default() }, R::AmountNotAllowed),
        (Sale { items: goods(-5), ..Sale::default() }, R::AmountNotAllowed),
        (Sale { items: goods(1_000_000_001), ..Sale::default() }, R::AmountNotAllowed),
        (Sale { items: goods(10_001), ..Sale::default() }, R::NotEnoughBalance),
        (Sale { items: goods(9_999), coupon: Some(CouponId(7)), ..Sale::default() }, R::CouponNotApplicable),
        (Sale { items: goods(9_999), coupon: Some(CouponId(8)), ..Sale::default() }, R::CouponNotApplicable),
        (Sale { items: goods(9_999), coupon: Some(CouponId(9)), ..Sale::default() }, R::CouponUnknown),
        (Sale { items: goods(9_999), points: 51, ..Sale::default() }, R::NotEnoughPoints),
        (Sale { items: goods(90), points: 46, ..Sale::default() }, R::PointsOverShare),
        (
            Sale { items: goods(90), tenders: vec![tender(TenderKind::Cash, 91)], ..Sale::default() },
            R::TendersDoNotAddUp,
        ),
        (
            Sale { items: goods(90), tenders: vec![tender(TenderKind::Purse, 89)], ..Sale::default() },
            R::TendersDoNotAddUp,
        ),
        (
            Sale { items: goods(90), tenders: vec![tender(TenderKind::Coupon, 90)], ..Sale::default() },
            R::TendersDoNotAddUp,
        ),
    ];
    for (sale, refusal) in cases {
        assert_eq!(with(sale.clone()), Err(refusal), "{sale:?}");
    }
    // What is sold and given has a name that can be told.
    let named = |sku: &str| vec![Item { sku: sku.into(), ..item(Category::Gift, 1, 5) }];
    let most = vec![item(Category::Gift, 1, 5); 101];
    for (items, refusal) in [
        (named(&"x".repeat(65)), R::NameNotAllowed),
        (named("a\u{1b}[2J"), R::NameNotAllowed),
        (vec![item(Category::Gift, 10_001, 5)], R::AmountNotAllowed),
        (vec![item(Category::Gift, 1, -5)], R::AmountNotAllowed),
        (most, R::AmountNotAllowed),
    ] {
        assert_eq!(redeem(5, items.clone()), Err(refusal), "{items:?}");
        assert_eq!(with(Sale { items: items.clone(), ..Sale::default() }), Err(refusal), "{items:?}");
    }
    let order = |order: String| earn(1).unwrap().fact(&Context { order: Some(order), ..context() });
    assert!(order("W".repeat(64)).is_ok());
    assert_eq!(order("W".repeat(65)), Err(R::NameNotAllowed));
    // A coupon that the card does not have is found when the card is to change.
    let sale = Sale { items: goods(20_000), coupon: Some(CouponId(7)), ..Sale::default() };
    let plan = quote(&holding(30_000, 0, 0, &[]), &sale, &rules()).unwrap();
    assert_eq!(plan.after(&holding(30_000, 0, 0, &[]), &CAPS), Err(R::CouponNotOnCard));
}

#[test]
fn top_ups_earn_the_highest_reward_they_reach() {
    let cash = |fen| [tender(TenderKind::Cash, fen)];
    for (fen, bonus) in [(99_999, 0), (100_000, 5_000), (199_999, 5_000), (450_000, 20_000)] {
        let plan = top_up(Fen(fen), &cash(fen), &rules()).unwrap();
        assert_eq!((plan.effect.principal_fen, plan.effect.bonus_fen), (Fen(fen), Fen(bonus)));
    }
    use Refusal as R;
    assert_eq!(top_up(Fen(5), &cash(4), &rules()), Err(R::TendersDoNotAddUp));
    assert_eq!(top_up(Fen(5), &[tender(TenderKind::Purse, 5)], &rules()), Err(R::TendersDoNotAddUp));
    assert_eq!(top_up(Fen(0), &[], &rules()), Err(R::AmountNotAllowed));
    // What the card would hold: 480000 and its reward are above ¥5000.
    let plan = top_up(Fen(490_000), &cash(490_000), &rules()).unwrap();
    assert_eq!(plan.after(&holding(0, 0, 0, &[]), &CAPS), Err(R::BalanceOverLimit));
    let principal_only = Caps { bonus_counts: false, ..CAPS };
    assert!(plan.after(&holding(0, 0, 0, &[]), &principal_only).is_ok());
}

#[test]
fn what_a_card_may_not_become() {
    use Refusal as R;
    let base = holding(500_000, 100, 10, &[1, 2, 3, 4]);
    let effect = |principal, bonus, points| Effect {
        principal_fen: Fen(principal),
        bonus_fen: Fen(bonus),
        points,
        ..Effect::default()
    };
    // (what, effect, refusal); the card is above a cap that was lowered.
    let cases = [
        (effect(1, 0, 0), Err(R::BalanceOverLimit)),
        (effect(-1, 0, 0), Ok(())),
        (effect(-500_001, 0, 0), Err(R::NotEnoughBalance)),
        (effect(-50, -101, 0), Err(R::NotEnoughBalance)),
        (effect(0, 0, -11), Err(R::NotEnoughPoints)),
        (effect(0, 0, 9_999_990), Err(R::PointsOverLimit)),
        (effect(0, 0, i64::MAX), Err(R::PointsOverLimit)),
        (effect(i64::MAX, 0, 0), Err(R::AmountNotAllowed)),
        (Effect { give: Some(CouponId(5)), ..Effect::default() }, Err(R::CouponSlotsFull)),
        (Effect { take: Some(CouponId(5)), ..Effect::default() }, Err(R::CouponNotOnCard)),
        (Effect { take: Some(CouponId(2)), give: Some(CouponId(5)), ..Effect::default() }, Ok(())),
        (Effect { give: Some(CouponId(2)), ..Effect::default() }, Ok(())),
    ];
    for (effect, expected) in cases {
        let after = apply(&base, &effect, &CAPS);
        assert_eq!(after.as_ref().map(|_| ()).map_err(|refusal| *refusal), expected, "{effect:?}");
        assert!(after.is_err() || after.unwrap().counter == 10);
    }
    let last = Holding { counter: u32::MAX, ..base };
    assert_eq!(apply(&last, &Effect::default(), &CAPS), Err(R::CounterExhausted));
}

#[test]
fn transfers_have_two_halves() {
    let to = CardNo::new("8800002").unwrap();
    let holds = holding(1_000, 0, 0, &[]);
    let giving = fact(&transfer_out(Fen(700), &holds, &[], &card_no(), &to).unwrap());
    let receiving = transfer_in(&giving, 0, &to).unwrap();
    assert_eq!(receiving.effect.principal_fen, Fen(700));
    let sent = (Fen(700), vec![Tender { kind: TenderKind::Purse, amount_fen: Fen(700) }]);
    assert_eq!((receiving.due_fen, receiving.tenders.clone()), sent, "out of the figures again");
    assert_eq!(receiving.original, Some(giving.transaction_id));
    use Refusal::TransferNotAllowed;
    assert_eq!(transfer_in(&giving, 1, &to), Err(TransferNotAllowed), "received already");
    assert_eq!(transfer_in(&giving, 0, &card_no()), Err(TransferNotAllowed), "for another card");
    assert_eq!(transfer_in(&fact(&receiving), 0, &card_no()), Err(TransferNotAllowed), "not a giving half");
    assert_eq!(transfer_out(Fen(700), &holds, &[], &to, &to), Err(TransferNotAllowed));
    // Where the other card cannot take it, it goes back; never both.
    let no = card_no();
    let undo = |fact: &CardTransaction, earlier: &[CardTransaction]| {
        void(&Original { fact, earlier, parked: false, card_no: &no, predecessors: &[] })
    };
    let torn = |parked| {
        let half = CardTransaction { outcome: Outcome::Unknown, ..fact(&receiving) };
        void(&Original { fact: &giving, earlier: &[half], parked, card_no: &no, predecessors: &[] })
    };
    assert_eq!(torn(false), Err(Refusal::TransferUnsettled), "its tap tells");
    assert_eq!(torn(true), Err(Refusal::TransferParked), "nothing here tells");
    let back = undo(&giving, &[]).unwrap();
    assert_eq!((back.effect.principal_fen, back.original), (Fen(700), Some(giving.transaction_id)));
    assert_eq!(undo(&giving, &[fact(&receiving)]), Err(Refusal::NotRefundable), "received");
    let received = CardTransaction { card_no: card_no(), ..fact(&receiving) };
    assert_eq!(undo(&received, &[]), Err(Refusal::NotRefundable), "what was received stays");
}

#[test]
fn business_days_begin_where_the_store_is() {
    let (zone, four) = (TimeZone::get("Asia/Shanghai").unwrap(), "04:00".parse().unwrap());
    for (time, day) in [
        ("2026-11-21T19:59:59.999Z", "2026-11-21"),
        ("2026-11-21T20:00:00.000Z", "2026-11-22"),
        ("2026-11-21T16:30:00.000Z", "2026-11-21"),
    ] {
        assert_eq!(business_day(UtcMillis::parse(time).unwrap(), &zone, four).to_string(), day, "{time}");
    }
}

#[test]
fn every_refusal_has_its_code_and_stands_in_the_documentation() {
    let page = include_str!("../../../docs/purse.md");
    let codes: BTreeSet<_> = Refusal::ALL.iter().map(|refusal| refusal.code()).collect();
    assert_eq!(codes.len(), Refusal::ALL.len());
    for refusal in Refusal::ALL {
        assert!(
            page.contains(&format!("`{}`", refusal.code())),
            "{} is not in docs/purse.md",
            refusal.code()
        );
        let Text { zh, en } = refusal.text();
        assert!(zh.ends_with('。') && en.ends_with('.'), "{refusal:?}");
    }
}
