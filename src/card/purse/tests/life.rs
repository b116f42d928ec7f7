//! What must hold when a card is given back or another one takes its place.

use proptest::prelude::*;

use super::*;
use crate::card::purse::life::{extend, give_back, replace_in, replace_out, reward_due};
use crate::config::purse::MAX_FEN;
use crate::event::ledger::{CardStanding, Outcome, Validity};

prop_compose! {
    fn holdings()(
        principal in 0_i64..=MAX_FEN,
        bonus in 0_i64..=1_000_000,
        points in 0_i64..=9_999_999,
        mut coupons in prop::collection::vec(1_u32..5, 0..8),
    ) -> Holding {
        coupons.sort_unstable();
        // Principal and bonus together are at most MAX_FEN on every card (`apply`).
        holding(principal, bonus.min(MAX_FEN - principal), points, &coupons)
    }
}

proptest! {
    #![proptest_config(crate::seed::cases(256))]

    /// All of it moves: nothing stays, nothing is added, and it moves once.
    #[test]
    fn what_leaves_one_card_comes_to_the_other(holds in holdings()) {
        let new = CardNo::new("8800002").unwrap();
        let giving = replace_out(&holds, &card_no(), &new).unwrap();
        let left = giving.after(&holds, &CAPS).unwrap();
        prop_assert_eq!(&left, &Holding { counter: holds.counter + 1, ..Holding::default() });
        let giving = fact(&giving);
        let receiving = replace_in(&giving, 0).unwrap();
        let wide = Caps { max_balance_fen: Fen(i64::MAX), max_points: i64::MAX, ..CAPS };
        let there = receiving.after(&Holding::default(), &wide).unwrap();
        prop_assert_eq!(there, Holding { counter: 1, ..holds });
        // Not by half: as a transfer only its principal would arrive.
        prop_assert_eq!(transfer_in(&giving, 0, &new), Err(Refusal::TransferNotAllowed));
        // Nor undone, whatever is known of the receiving half.
        let torn = CardTransaction { outcome: Outcome::Unknown, ..fact(&receiving) };
        for earlier in [&[][..], &[fact(&receiving)], &[torn]] {
            prop_assert_eq!(undone(&giving, earlier), Err(Refusal::NotRefundable));
        }
        prop_assert_eq!(replace_in(&giving, 1), Err(Refusal::TransferNotAllowed));
        prop_assert_eq!(replace_in(&fact(&receiving), 0), Err(Refusal::TransferNotAllowed));
        let open = CardTransaction { outcome: Outcome::Unknown, ..giving };
        prop_assert_eq!(replace_in(&open, 0), Err(Refusal::TransferNotAllowed));
    }

    /// Paid out is the principal, no fen more; the card is empty.
    #[test]
    fn a_card_that_is_given_back_is_paid_out_once(holds in holdings()) {
        let plan = give_back(&holds, TenderKind::Cash, &[]).unwrap();
        let paid: i64 = plan.tenders.iter().map(|tender| tender.amount_fen.0).sum();
        prop_assert_eq!((Fen(paid), plan.due_fen), (holds.principal_fen, holds.principal_fen));
        let left = plan.after(&holds, &CAPS).unwrap();
        prop_assert_eq!(&left, &Holding { counter: holds.counter + 1, ..Holding::default() });
        prop_assert_eq!(fact(&plan).status_after, Some(CardStanding::Returned));
    }
}

#[test]
fn what_cannot_be() {
    let holds = holding(500, 0, 0, &[]);
    assert_eq!(give_back(&holds, TenderKind::Purse, &[]), Err(Refusal::TendersDoNotAddUp));
    assert_eq!(replace_out(&holds, &card_no(), &card_no()), Err(Refusal::TransferNotAllowed));
    let later = extend(Validity { until: Some(UtcMillis(0)) }).unwrap();
    assert_eq!(undone(&fact(&later), &[]), Err(Refusal::NotRefundable), "a validity is not undone");
    assert_eq!(later.after(&holds, &CAPS).unwrap(), Holding { counter: 10, ..holds });
}

fn undone(fact: &CardTransaction, earlier: &[CardTransaction]) -> Result<Plan, Refusal> {
    void(&Original { fact, earlier, parked: false, card_no: &card_no(), predecessors: &[] })
}

/// Reward goes with the principal it was given for: ¥1000 bring ¥100, here and at another card.
#[test]
fn no_fen_appears_by_giving_back() {
    let came = |principal, bonus| (Fen(principal), Fen(bonus));
    // (newest first, principal, reward that has to be there)
    type Case<'a> = (&'a [(Fen, Fen)], i64, i64);
    let cases: [Case<'_>; 7] = [
        (&[], 500, 0),
        (&[came(100_000, 10_000)], 100_000, 10_000),
        (&[came(100_000, 10_000)], 33_333, 3_333),
        (&[came(100_000, 10_000)], 0, 0),
        (&[came(5_000, 0), came(100_000, 10_000)], 5_000, 0),
        (&[came(5_000, 0), came(100_000, 10_000)], 55_000, 5_000),
        (&[came(0, 9), came(100, 10)], 900, 10),
    ];
    for (inflows, principal, due) in cases {
        assert_eq!(reward_due(inflows, Fen(principal)), Ok(Fen(due)), "{inflows:?} {principal}");
    }
    let to = CardNo::new("8800002").unwrap();
    let inflows = [came(100_000, 10_000)];
    let full = holding(100_000, 10_000, 0, &[]);
    let all = transfer_out(Fen(100_000), &full, &inflows, &card_no(), &to).unwrap();
    assert_eq!(all.after(&full, &CAPS).unwrap(), Holding { counter: 10, ..Holding::default() });
    let received = transfer_in(&fact(&all), 0, &to).unwrap().effect;
    assert_eq!((received.principal_fen, received.bonus_fen), (Fen(100_000), Fen(10_000)));
    assert_eq!((all.due_fen, total(&all.tenders)), (Fen(110_000), 110_000));
    // Spent before its principal, it is missing.
    let spent = holding(100_000, 0, 0, &[]);
    let sent = transfer_out(Fen(1_000), &spent, &inflows, &card_no(), &to).unwrap();
    assert_eq!(sent.after(&spent, &CAPS), Err(Refusal::NotEnoughBalance));
    let paid = |holds: &Holding| {
        let plan = give_back(holds, TenderKind::Cash, &inflows).unwrap();
        assert_eq!(plan.due_fen.0, total(&plan.tenders));
        plan.due_fen.0
    };
    assert_eq!((paid(&full), paid(&spent), paid(&holding(50_000, 4_000, 0, &[]))), (100_000, 90_000, 49_000));
    assert_eq!(paid(&holding(0, 0, 0, &[])), 0);
}

fn total(tenders: &[Tender]) -> i64 {
    tenders.iter().map(|tender| tender.amount_fen.0).sum()
}

#[test]
fn an_extension_takes_nothing_away() {
    use crate::card::purse::policy::may_follow;
    let at = |ms| Some(UtcMillis(ms));
    for (end, until, may) in [
        (at(5), at(5), true),
        (at(5), at(6), true),
        (at(5), at(4), false),
        (at(5), None, true),
        (None, None, true),
        (None, at(9), false),
    ] {
        assert_eq!(may_follow(end, until).is_ok(), may, "{end:?} {until:?}");
    }
}
