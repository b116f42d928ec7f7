//! A card is moved to newer keys behind a till operation, cut at every command, and finished by
//! its next tap: balance and counter stay what they are, no key is ever tried in vain, and
//! in the end the new keys alone open it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "support/counter.rs"]
mod counter;
mod cpu_shop;
mod cut_shop;
#[path = "support/port.rs"]
mod port;
mod rekey_shop;
#[allow(dead_code)] // the other programs' columns
#[path = "cut_table/table.rs"]
mod table;

use std::sync::Arc;

use baygate::card::counter::REKEY;
use baygate::card::keys::Purpose;
use baygate::money::Fen;
use baygate::sim::card::fmcos::Masters;
use baygate::sim::card::{Chip, Technology as Sim};
use baygate::store::Offset;
use counter::PATIENCE;
use cpu_shop::{Hq, Slot, till};
use cut_shop::{LOAD, PURCHASE};
use rekey_shop::{Held, Shop, blank, master, tried_in_vain};
use serde_json::json;
use table::{Operation, Part, Way, all, columns, is_excused};
use tokio::task::JoinSet;

/// Silences that one card waits for, three seconds each.
const SILENCES: usize = 8;
/// Other cuts of one card.
const AT_A_CARD: usize = 60;

/// A card that was moved once, and what was said to it then.
struct Moved {
    shop: Shop,
    chip: Chip,
    /// Commands of the deal before the move.
    deal: usize,
    /// Commands of the move, and which of them change the card.
    commands: Vec<Vec<u8>>,
    writes: Vec<usize>,
}

async fn moved(sim: Sim) -> Moved {
    let mut shop = Shop::new();
    shop.with_keys(1..=1).await;
    let card = shop.lay(&blank(sim)).await;
    shop.issue().await;
    let begun = card.apdus().len();
    shop.top_up(1).await;
    let deal = card.apdus().len() - begun;
    let mut chip = shop.take_away(card).await;

    // Newer keys are there: a mere tap moves nothing, a deal does.
    shop.with_keys(1..=2).await;
    let card = shop.lay(&chip).await;
    assert_eq!((card.writes(), &shop.member().await["key_version"]), (0, &json!(1)));
    let begun = card.apdus().len();
    shop.top_up(1).await;
    shop.until("told", |r| {
        let events = r.events_after(Offset(0), 1000).unwrap();
        events.iter().any(|logged| logged.event.kind == "card.status").then_some(())
    })
    .await;
    shop.moved("at first").await;
    let commands = card.apdus()[begun + deal..].to_vec();
    let writes = card.writes_at().into_iter().filter_map(|at| at.checked_sub(begun + deal)).collect();
    let old_keys = chip.application_keys();
    chip = shop.take_away(card).await;
    assert!(old_keys.iter().zip(chip.application_keys()).all(|(old, new)| *old != new), "a key was left");
    let told = shop.gateway.told().await;
    let (_, status) = told.iter().rfind(|(kind, _)| kind == "card.status").unwrap();
    assert_eq!(
        (&status["status"], &status["operator"], &status["reason"]),
        (&json!("active"), &json!("li"), &json!("keys 1 -> 2"))
    );
    Moved { shop, chip, deal, commands, writes }
}

impl Moved {
    /// Where each of these ways is gone.
    fn cuts(&self, ways: &[Way]) -> Vec<(usize, Way)> {
        let at = 0..self.commands.len();
        let all = at.flat_map(|at| ways.iter().map(move |way| (at, *way)));
        all.filter(|(at, way)| !way.at_writes_only() || self.writes.contains(at))
            .filter(|(at, way)| *way != Way::Torn || !self.is_thrown_away(*at))
            .collect()
    }

    /// A trailer whose half is ones locks its sector for ever: such a card is replaced. Half a
    /// password reaches no card; the simulated one would count it.
    fn is_thrown_away(&self, at: usize) -> bool {
        let command = &self.commands[at];
        let is_trailer = command[1] == 0xD6 && command.len() == 21 && command[3] % 4 == 3;
        is_trailer || command[1] == 0x00
    }

    /// Moved to the next keys at each of these cuts, and finished by the next tap.
    async fn cut(self, sim: Sim, cuts: Vec<(usize, Way)>) {
        let Self { mut shop, mut chip, deal, commands, .. } = self;
        let (mut version, mut sum) = (2_u8, 2_u32);
        for (at, way) in cuts {
            let what = format!("{sim:?} {way:?} at command {at} of {}", commands.len());
            shop.with_keys(version..=version + 1).await;
            let card = shop.lay(&chip).await;
            let begun = card.apdus().len();
            card.fault_after(deal + at, way.fault(at));
            shop.top_up(1).await;
            sum += 1;
            let deadline = std::time::Instant::now() + PATIENCE;
            while card.apdus().len() <= begun + deal + at {
                assert!(std::time::Instant::now() < deadline, "{what}: only {}", card.apdus().len());
                tokio::time::sleep(std::time::Duration::from_millis(1)).await;
            }
            if way == Way::Killed {
                shop.killed(version..=version + 1).await;
            }
            shop.at_rest(&what).await;
            chip = shop.take_away(card).await;
            assert_eq!(tried_in_vain(&chip), 0, "{what}: a key was guessed");
            // The next tap finishes it.
            let card = shop.lay(&chip).await;
            shop.moved(&what).await;
            assert_eq!(shop.holds().await, (Some(Fen(sum.into())), sum), "{what}");
            chip = shop.take_away(card).await;
            assert_eq!(tried_in_vain(&chip), 0, "{what}: a key was guessed");
            version += 1;
            let card = shop.lay(&chip).await;
            assert_eq!(shop.member().await["key_version"], version, "{what}");
            chip = shop.take_away(card).await;
        }
        // The new keys alone open it.
        shop.with_keys(version..=version).await;
        let card = shop.lay(&chip).await;
        assert_eq!(shop.member().await["key_version"], version);
        shop.top_up(1).await;
        assert_eq!(shop.holds().await, (Some(Fen((sum + 1).into())), sum + 1));
        shop.take_away(card).await;
        // And the old ones do not.
        shop.with_keys(version - 1..=version - 1).await;
        let card = shop.lay(&chip).await;
        assert_eq!(shop.refusal().await, "key-missing");
        shop.take_away(card).await;
        shop.service.take().unwrap().stop().await;
    }
}

/// Every cut of a technology, side by side on cards of their own: a version is used up at each.
async fn is_cut_everywhere(sim: Sim) {
    let first = moved(sim).await;
    let (silent, loud): (Vec<Way>, Vec<Way>) =
        Way::ALL.iter().partition(|way| matches!(way, Way::Silent | Way::SilentUnheard));
    let (silent, loud) = (first.cuts(&silent), first.cuts(&loud));
    for way in Way::ALL {
        let is_gone = silent.iter().chain(&loud).any(|(_, gone)| gone == way);
        assert!(is_gone, "{sim:?} {way:?}");
    }
    let mut all = JoinSet::new();
    for some in silent.chunks(SILENCES).chain(loud.chunks(AT_A_CARD)) {
        let some = some.to_vec();
        all.spawn(async move { moved(sim).await.cut(sim, some).await });
    }
    first.shop.service.unwrap().stop().await;
    all.join_all().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_card_moves_to_newer_keys_cut_at_every_command() {
    let mut all = JoinSet::new();
    for (sim, _) in columns(Part::Keys) {
        all.spawn(is_cut_everywhere(sim));
    }
    all.join_all().await;
}

/// Sells with the card under the keys of versions 1 and 2, twice in one tap, and finds it as it was.
async fn keeps_its_keys(sim: Sim, held: Held) {
    let mut shop = Shop::new();
    let mut chip = blank(sim);
    if sim == Sim::Cpu {
        // As its maker personalises it; the SAM and headquarters have the keys of `cpu_shop`.
        let place = Purpose::ALL.iter().position(|purpose| *purpose == Purpose::CpuMaintain).unwrap();
        let masters = Masters { maintain: master(1, place), purchase: PURCHASE, load: LOAD, tac: [0x5A; 16] };
        chip = Chip::with_purse(chip.profile().clone(), &masters);
        let purse = till(Slot::new().opener()).with_headquarters(Arc::new(Hq));
        shop.purse = Some(Arc::new(purse));
    }
    shop.with_keys(1..=1).await;
    let card = shop.lay(&chip).await;
    shop.issue().await;
    let chip = shop.take_away(card).await;
    shop.with_keys_held(1..=2, held).await;
    let card = shop.lay(&chip).await;
    shop.top_up(5).await;
    shop.top_up(5).await;
    let chip = shop.take_away(card).await;
    let card = shop.lay(&chip).await;
    assert_eq!(shop.member().await["key_version"], 1, "{sim:?}");
    assert_eq!(shop.holds().await, (Some(Fen(10)), 2), "{sim:?}");
    assert!(shop.gateway.store.read(|r| r.open_requests(REKEY, None)).await.unwrap().is_empty(), "{sim:?}");
    shop.take_away(card).await;
    shop.service.take().unwrap().stop().await;
}

/// Cards whose keys are not moved, as the table excuses them, go on with the ones they have.
#[tokio::test(flavor = "multi_thread")]
async fn cards_of_other_kinds_keep_their_keys() {
    let issued = all().filter(|(sim, operation)| {
        *operation == Operation::Rekey && is_excused(*sim, *operation) && !is_excused(*sim, Operation::Issue)
    });
    let issued: Vec<Sim> = issued.map(|(sim, _)| sim).collect();
    assert!(!issued.is_empty());
    for sim in issued {
        keeps_its_keys(sim, |_, _| true).await;
    }
}

/// A card that could not be moved to the end is not touched, and is no worse for it.
#[tokio::test(flavor = "multi_thread")]
async fn without_all_newer_keys_a_card_keeps_its_old_ones() {
    let cases: [(Sim, Held); 3] = [
        (Sim::Desfire, |version, purpose| version == 1 || purpose != Purpose::Manage),
        (Sim::Ntag424, |version, purpose| version == 1 || purpose != Purpose::Sun),
        (Sim::Ntag215, |version, purpose| version == 1 || purpose != Purpose::Debit),
    ];
    for (sim, held) in cases {
        keeps_its_keys(sim, held).await;
    }
}
