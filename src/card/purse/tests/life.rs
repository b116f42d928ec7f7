//! What must hold when a card is given back or another one takes its place.

use proptest::prelude::*;

use super::*;
use crate::card::purse::life::{extend, give_back, replace_in, replace_out};
use crate::event::ledger::{Outcome, Validity};

prop_compose! {
    fn holdings()(
        principal in 0_i64..=1_000_000_000,
        bonus in 0_i64..=1_000_000,
        points in 0_i64..=9_999_999,
        mut coupons in prop::collection::vec(1_u32..5, 0..8),
    ) -> Holding {
        coupons.sort_unstable();
        holding(principal, bonus, points, &coupons)
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
        prop_assert_eq!(replace_in(&giving, 1), Err(Refusal::TransferNotAllowed));
        prop_assert_eq!(replace_in(&fact(&receiving), 0), Err(Refusal::TransferNotAllowed));
        let open = CardTransaction { outcome: Outcome::Unknown, ..giving };
        prop_assert_eq!(replace_in(&open, 0), Err(Refusal::TransferNotAllowed));
    }

    /// Paid out is the principal, no fen more; the card is empty.
    #[test]
    fn a_card_that_is_given_back_is_paid_out_once(holds in holdings()) {
        let plan = give_back(&holds, TenderKind::Cash).unwrap();
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
    assert_eq!(give_back(&holds, TenderKind::Purse), Err(Refusal::TendersDoNotAddUp));
    assert_eq!(replace_out(&holds, &card_no(), &card_no()), Err(Refusal::TransferNotAllowed));
    let later = extend(Validity { until: Some(UtcMillis(0)) }).unwrap();
    assert_eq!(later.after(&holds, &CAPS).unwrap(), Holding { counter: 10, ..holds });
}
