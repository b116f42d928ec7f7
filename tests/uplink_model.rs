//! The uplink's real state machine (session, lanes, flow, notes, the judgement of
//! headquarters' words) against a model of disk, line, broker and headquarters:
//! all short histories in all orders, many long ones. After every deed: nothing
//! counts as delivered that its receiver does not have; order, window, one slot in
//! sixteen; and from every state, once all behave, everything is delivered.
//!
//! `BAYGATE_DEPTH=…` explores deeper than CI, `BAYGATE_ROUNDS=…` rolls more long
//! histories, `BAYGATE_SEED=…` repeats them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod model {
    pub mod deed;
    #[path = "../support/dice.rs"]
    pub mod dice;
    pub mod explore;
    pub mod parts;
    pub mod peers;
    pub mod watch;
    pub mod world;
}

use std::time::Instant;

use baygate::config::tables::{Confirm, MqttVersion};
use baygate::event::Class;
use model::deed::{self, Deed, LAST, Setting};
use model::dice::{Dice, rounds, seed};
use model::explore::{Explorer, long, told, turns_good};
use model::world::World;

/// Deeper by `BAYGATE_DEPTH` than usual.
fn depth(usual: u8) -> u8 {
    std::env::var("BAYGATE_DEPTH")
        .map_or(usual, |text| text.trim().parse().expect("BAYGATE_DEPTH is a number"))
}

/// Where a history begins: with nothing; in the middle of work; with headquarters' word under way.
fn beginnings(setting: &Setting) -> Vec<Vec<Deed>> {
    let connect = Deed::Connect { present: false, narrow: false };
    let (money, card) = (Deed::Commit(Class::Ledger, 100), Deed::Commit(Class::Card, 100));
    let busy = vec![money, money, card, connect, Deed::Take(0), Deed::Take(0)];
    let mut all = vec![vec![], busy.clone()];
    if setting.by_headquarters() {
        all.push([busy.as_slice(), &[Deed::HeadquartersTakes]].concat());
        let stranger = [Deed::Stranger(Class::Card), money, card];
        all.push([busy.as_slice(), &stranger].concat());
    } else {
        all.push([busy.as_slice(), &[money, card, Deed::Take(LAST)]].concat());
    }
    all
}

fn explore(confirm: Confirm, version: MqttVersion, all: u8, core: u8) {
    let setting = Setting::small(confirm, version);
    for (deeds, depth, first) in
        [(deed::all(&setting), depth(all), 1), (deed::core(&setting), depth(core), 2)]
    {
        let kinds = deeds.len();
        let mut explorer = Explorer::new(setting, deeds);
        for before in beginnings(&setting) {
            // From nothing, the first deeds leave little choice.
            let depth = if before.is_empty() { depth + first } else { depth };
            if let Err(failure) = explorer.run(&before, depth) {
                panic!("{}", told(setting, failure));
            }
            println!(
                "{confirm:?} {version:?}: {kinds} deeds, {depth} deep after {}: {} states, {} steps",
                before.len(),
                explorer.states(),
                explorer.steps,
            );
        }
    }
}

#[test]
fn short_histories_broker_v5() {
    explore(Confirm::Broker, MqttVersion::V5, 4, 5);
}

#[test]
fn short_histories_broker_v311() {
    explore(Confirm::Broker, MqttVersion::V311, 4, 5);
}

#[test]
fn short_histories_headquarters_v5() {
    explore(Confirm::Headquarters, MqttVersion::V5, 3, 5);
}

#[test]
fn short_histories_headquarters_v311() {
    explore(Confirm::Headquarters, MqttVersion::V311, 3, 5);
}

/// Its gap lies behind more of its own class than one window.
#[test]
fn after_a_gateway_event_set_aside() {
    let setting = Setting { window: 2, ..Setting::small(Confirm::Headquarters, MqttVersion::V5) };
    let mut world = World::new(setting, Instant::now());
    for bytes in [setting.packet + 1, 100, 100, 100] {
        world.apply(Deed::Commit(Class::Gateway, bytes)).unwrap();
    }
    turns_good(world).unwrap();
}

#[test]
fn long_histories() {
    let seed = seed();
    for round in 0..rounds(200) {
        let mut dice = Dice::new(seed ^ round << 32);
        let setting = deed::any_setting(&mut dice);
        if let Err(failure) = long(setting, &mut dice, 400) {
            panic!("BAYGATE_SEED={seed}, round {round}: {}", told(setting, failure));
        }
    }
}
