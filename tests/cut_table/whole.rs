//! Whether the table is whole, and right in what it leaves out.

use std::collections::BTreeSet;
use std::path::Path;

use baygate::card::counter::{Life, Why};
use baygate::event::card::Technology;
use baygate::event::ledger::{CardType, TenderKind, TransactionKind as Kind};
use baygate::sim::card::{CardFault, Technology as Sim};
use baygate::store::requests::RequestState;
use clap::ValueEnum;

use super::table::{Cell, Operation, Part, Way, all, cards, cell, is_excused, of_kind, of_life, way};
use super::world::World;
use crate::cut_shop::number;

/// Every technology has its cards, every kind of deed its operations, every fault its way, every
/// operation a program that is there, and what is excused a test that refuses it.
pub fn names_everything() {
    let technologies = [
        Technology::MifareClassic1k,
        Technology::MifareClassic4k,
        Technology::Ntag213,
        Technology::Ntag215,
        Technology::Ntag216,
        Technology::Ntag424,
        Technology::Ultralight,
        Technology::UltralightC,
        Technology::Desfire,
        Technology::Cpu,
        Technology::Sle4442,
        Technology::Iso15693,
    ];
    for sim in Sim::value_variants() {
        assert!(technologies.iter().any(|technology| cards(*technology).contains(sim)), "{sim:?}");
    }
    let kinds = [
        Kind::Topup,
        Kind::Spend,
        Kind::Earn,
        Kind::Redeem,
        Kind::Coupon,
        Kind::Adjust,
        Kind::Transfer,
        Kind::Refund,
        Kind::Void,
    ];
    let lives = [
        Life::Return { tender: TenderKind::Cash },
        Life::Replace { old_card_no: number(1), why: Why::Lost },
        Life::Extend { valid_until: None },
    ];
    let mut named: BTreeSet<Operation> = kinds.iter().flat_map(|kind| of_kind(*kind)).copied().collect();
    named.extend(lives.iter().map(of_life));
    named.insert(Operation::Issue);
    assert_eq!(named, Operation::ALL.iter().copied().collect());
    for a_way in Way::ALL {
        let is_kill = *a_way == Way::Killed;
        assert!((0..3).all(|at| is_kill || way(a_way.fault(at)) == *a_way), "{a_way:?}");
    }
    assert_eq!(way(CardFault::Empty), Way::Garbled);
    // Nobody is excused whom no test refuses: a card that is never issued (`excused`), or whose keys
    // stay (`counter_rekey`).
    for (sim, operation) in all().filter(|(sim, operation)| is_excused(*sim, *operation)) {
        let is_refused = is_excused(sim, Operation::Issue) || operation == Operation::Rekey;
        assert!(is_refused, "{sim:?} {operation:?} is neither run nor refused");
    }
    for part in Part::ALL {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/{}.rs", part.program()));
        let text = std::fs::read_to_string(&file).unwrap();
        assert!(text.contains(&format!("Part::{part:?}")), "{}", file.display());
    }
}

/// Cards that are never issued: refused, without a write.
pub async fn excused() {
    for sim in Sim::value_variants() {
        let Cell::Excused(why) = cell(*sim, Operation::Issue) else { continue };
        let mut world = World::open(*sim);
        world.put(1).await;
        let issue = world.ask_issue(1, CardType::Named).await;
        let row = world.shop.answered(issue).await;
        assert_eq!(row.state, RequestState::Failed, "{sim:?}: {why}");
        assert!(world.talk(0).1.is_empty(), "{sim:?}: {why}");
        world.close().await;
    }
}
