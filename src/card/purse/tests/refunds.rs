//! What is undone and given back, to the fen.

use super::*;

#[test]
fn voids_undo_to_the_fen() {
    let rules = rules();
    let before = holding(50_000, 9_000, 400, &[7]);
    let plans = [
        quote(
            &before,
            &Sale {
                items: vec![item(Category::Labour, 1, 20_001)],
                class: 2,
                coupon: Some(CouponId(7)),
                points: 100,
                tenders: Vec::new(),
            },
            &rules,
        )
        .unwrap(),
        top_up(Fen(100_000), &[tender(TenderKind::Bank, 100_000)], &rules).unwrap(),
        redeem(300, vec![item(Category::Gift, 1, 0)]).unwrap(),
        give_coupon(CouponId(8), &rules).unwrap(),
        adjust(Fen(-3), Fen(4), -5).unwrap(),
    ];
    for plan in plans {
        let after = plan.after(&before, &CAPS).unwrap();
        let original = fact(&plan);
        let no = card_no();
        let of =
            |earlier| Original { fact: &original, earlier, parked: false, card_no: &no, predecessors: &[] };
        let undone = void(&of(&[])).unwrap();
        let back = undone.after(&after, &CAPS).unwrap();
        assert_eq!(Holding { counter: before.counter, ..back }, before, "{:?}", plan.kind);
        assert_eq!((&undone.items, undone.discount_fen.0), (&plan.items, -plan.discount_fen.0));
        let voided = [fact(&undone)];
        assert_eq!(void(&of(&voided)), Err(Refusal::NotRefundable), "twice");
        assert_eq!(refund(&of(&voided), Fen(1), &before), Err(Refusal::NotRefundable));
        let other = CardNo::new("8800009").unwrap();
        let elsewhere = Original { card_no: &other, ..of(&[]) };
        assert_eq!(void(&elsewhere), Err(Refusal::OtherCard));
        assert!(void(&Original { predecessors: &[card_no()], ..elsewhere }).is_ok(), "after a replacement");
    }
}

/// Topped up for its reward, the reward spent, given back: not the whole of it.
#[test]
fn a_reward_that_is_spent_is_not_forgiven() {
    let rules = rules();
    let original = fact(&top_up(Fen(100_000), &[tender(TenderKind::Cash, 100_000)], &rules).unwrap());
    let no = card_no();
    let back = |fen: i64, bonus: i64, earlier: &[CardTransaction]| {
        let of = Original { fact: &original, earlier, parked: false, card_no: &no, predecessors: &[] };
        refund(&of, Fen(fen), &holding(100_000, bonus, 0, &[]))
    };
    // (given back, bonus on the card, refusal)
    for (fen, bonus, expected) in [
        (100_000, 5_000, None),
        (100_000, 4_999, Some(Refusal::NotEnoughBalance)),
        (40_000, 2_000, None),
        (40_000, 1_999, Some(Refusal::NotEnoughBalance)),
        (20, 0, Some(Refusal::NotEnoughBalance)),
    ] {
        assert_eq!(back(fen, bonus, &[]).err(), expected, "{fen} with {bonus}");
    }
    let part = fact(&back(40_000, 5_000, &[]).unwrap());
    assert_eq!(part.bonus_fen, Fen(-2_000));
    let earlier = [part];
    assert_eq!(back(60_000, 2_999, &earlier), Err(Refusal::NotEnoughBalance));
    assert_eq!(back(60_000, 3_000, &earlier).unwrap().effect.bonus_fen, Fen(-3_000));
}

/// Half of it was paid with bonus, which earned nothing and goes back after the principal.
#[test]
fn points_go_back_with_what_earned_them() {
    let card = holding(10_000, 10_000, 0, &[]);
    let tenders = vec![tender(TenderKind::Purse, 20_000), tender(TenderKind::Cash, 5_000)];
    let sale = Sale { items: vec![item(Category::Goods, 1, 25_000)], tenders, ..Sale::default() };
    let plan = quote(&card, &sale, &rules()).unwrap();
    assert_eq!(plan.points_earned, 150);
    let (original, no) = (fact(&plan), card_no());
    let mut card = plan.after(&card, &CAPS).unwrap();
    let mut earlier = Vec::new();
    // (given back, points taken back): principal, half of the bonus, its rest and cash, the rest.
    for (fen, points) in [(10_000, 100), (5_000, 0), (7_500, 25), (2_500, 25)] {
        let of =
            Original { fact: &original, earlier: &earlier, parked: false, card_no: &no, predecessors: &[] };
        let plan = refund(&of, Fen(fen), &card).unwrap();
        assert_eq!(-plan.points_earned, points, "{fen}");
        card = plan.after(&card, &CAPS).unwrap();
        earlier.push(fact(&plan));
    }
}
