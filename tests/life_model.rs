//! Random lives of cards at two gateways of each of two stores with keys of their own, whose cards are
//! taken or refused elsewhere as configured, cut at random commands, against a plain
//! model: lost, found, replaced, given back, extended, with and without PIN, principal sent to each
//! other. What may be done is done, what may not writes nothing, and no fen appears or vanishes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "support/counter.rs"]
mod counter;
mod cut_shop;
mod life_world;
#[path = "support/port.rs"]
mod port;
#[path = "support/seed.rs"]
mod seed;

use life_world::World;
use life_world::plain::GATEWAYS;
use life_world::step::{Deed, Step, WHO};
use proptest::prelude::*;

fn deeds() -> impl Strategy<Value = Deed> {
    prop_oneof![
        5 => (1_i64..1_000).prop_map(Deed::TopUp),
        3 => (1_i64..600).prop_map(Deed::Spend),
        3 => (0_i32..900).prop_map(|days| Deed::Extend { days }),
        2 => Just(Deed::GiveBack),
        4 => Just(Deed::Replace),
        1 => (1_i64..300, 0_usize..30).prop_map(|(amount, at)| Deed::Break { amount, at }),
        4 => (0_usize..3, 1_i64..400).prop_map(|(to, amount)| Deed::Give { to, amount }),
        4 => (0_usize..3).prop_map(Deed::Take),
        2 => (0_usize..3).prop_map(Deed::Undo),
        1 => Just(Deed::Lose),
        1 => Just(Deed::Find),
        2 => Just(Deed::SetPin),
        1 => Just(Deed::RemovePin),
        1 => Just(Deed::WrongPin),
        1 => (0_usize..3).prop_map(Deed::Old),
    ]
}

prop_compose! {
    fn steps()(
        gateway in 0_usize..GATEWAYS, person in 0_usize..3, deed in deeds(),
        who in 0_usize..WHO.len(), typed in any::<bool>(),
        cut in prop::option::weighted(0.4, (0_usize..30, 0_usize..cut_shop::FAULTS.len())),
    ) -> Step {
        Step { gateway, person, deed, who, typed, cut }
    }
}

proptest! {
    #![proptest_config(seed::cases(8))]

    #[test]
    fn no_fen_appears_or_vanishes_in_a_life(steps in prop::collection::vec(steps(), 1..30)) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(Box::pin(async {
            let mut world = World::open().await;
            for step in &steps {
                Box::pin(world.step(step)).await;
            }
            world.judge().await;
        }));
    }
}
