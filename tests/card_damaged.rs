//! Cards whose record has rotted, of every technology that carries one: what is left of it is told
//! or refused in both languages, nothing is written to such a card and no try is lost on it, the
//! store still knows its money, and a new card gets it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "support/counter.rs"]
mod counter;
mod cpu_shop;
mod cut_shop;
#[path = "support/port.rs"]
mod port;

use std::collections::BTreeSet;

use baygate::card::counter::{Deal, Life, TRANSACTION, Why};
use baygate::event::card::Technology;
use baygate::event::ledger::TransactionKind;
use baygate::money::Fen;
use baygate::protocols::cards::{Places, SLOT_BYTES};
use baygate::sim::card::{Chip, Technology as Sim};
use baygate::store::requests::RequestState;
use counter::Running;
use cpu_shop::{Slot, counter_with};
use cut_shop::{Shop, blank, deal, members, number};
use serde_json::{Value, json};
use tokio::task::JoinSet;

/// Every card with a record, and the layout it has.
const ALL: [(Sim, Technology); 12] = [
    (Sim::Classic1k, Technology::MifareClassic1k),
    (Sim::Classic4k, Technology::MifareClassic4k),
    (Sim::Ntag213, Technology::Ntag213),
    (Sim::Ntag215, Technology::Ntag215),
    (Sim::Ntag216, Technology::Ntag216),
    (Sim::UltralightEv1Large, Technology::Ultralight),
    (Sim::UltralightC, Technology::UltralightC),
    (Sim::Desfire, Technology::Desfire),
    (Sim::DesfireEv1, Technology::Desfire),
    (Sim::Ntag424, Technology::Ntag424),
    (Sim::Cpu, Technology::Cpu),
    (Sim::Sle4442, Technology::Sle4442),
];

const PAID_IN: i64 = 5_000;
const SPENT: i64 = 7;

/// What became of a slot's bytes.
#[derive(Debug, Clone, Copy)]
enum Harm {
    /// One bit of a byte turned.
    Bit(usize),
    /// Its second half is ones, as of a write that was torn.
    Torn,
    Noise,
    Ones,
    Zeros,
}

/// Format, status, card number, counter, principal, points, last tag, both ends of the seal.
const BROKEN: [Harm; 12] = [
    Harm::Bit(0),
    Harm::Bit(1),
    Harm::Bit(15),
    Harm::Bit(19),
    Harm::Bit(23),
    Harm::Bit(31),
    Harm::Bit(47),
    Harm::Bit(48),
    Harm::Bit(55),
    Harm::Torn,
    Harm::Noise,
    Harm::Ones,
];

impl Harm {
    fn to(self, at: usize, byte: u8) -> u8 {
        match self {
            Self::Bit(turned) => byte ^ u8::from(at == turned),
            Self::Torn if at < SLOT_BYTES / 2 => byte,
            Self::Torn | Self::Ones => 0xFF,
            Self::Noise => 0x55,
            Self::Zeros => 0,
        }
    }
}

/// Where the bytes of each slot are; a card that keeps transactions has one.
fn slots(technology: Technology) -> Vec<Vec<(usize, usize)>> {
    let run = |of: &dyn Fn(usize) -> (usize, usize)| (0..SLOT_BYTES).map(of).collect::<Vec<_>>();
    match &members().layout(technology).unwrap().places {
        Places::Pages(pages) => {
            pages.slots.iter().map(|first| run(&|at| (usize::from(*first) + at / 4, at % 4))).collect()
        }
        Places::Blocks(blocks) => {
            blocks.slots.iter().map(|slot| run(&|at| (slot[at / 16].into(), at % 16))).collect()
        }
        Places::Contact(card) => card.slots.iter().map(|first| run(&|at| ((*first).into(), at))).collect(),
        Places::Files(files) => files
            .slots
            .iter()
            .map(|slot| run(&|at| (slot.file.into(), usize::from(slot.offset) + at)))
            .collect(),
        Places::Purse(purse) => purse
            .slots
            .iter()
            .map(|first| run(&|at| (purse.record.into(), usize::from(*first) + at)))
            .collect(),
    }
}

/// The same card with this done to some of its slots.
fn harmed<'a>(chip: &Chip, slots: impl IntoIterator<Item = &'a Vec<(usize, usize)>>, harm: Harm) -> Chip {
    let mut chip = chip.clone();
    for slot in slots {
        for (n, (at, offset)) in slot.iter().enumerate() {
            let cell = chip.cell_mut(*at, *offset).unwrap();
            *cell = harm.to(n, *cell);
        }
    }
    chip
}

/// The last tap, as the tills were told.
async fn greeting(shop: &Shop) -> (String, Value) {
    let told = shop.gateway.told().await;
    told.into_iter().rfind(|(kind, _)| matches!(kind.as_str(), "card.tapped" | "card.refused")).unwrap()
}

async fn done(shop: &Shop, kind: TransactionKind, fen: i64, what: &str) {
    let row = shop.answered(shop.deal(&number(1), kind, fen).await).await;
    assert_eq!(row.state, RequestState::Done, "{what} {:?}", row.outcome);
}

/// What the store knows of the card, whatever lies there.
async fn known(shop: &Shop) -> Value {
    let row = shop.gateway.store.read(|r| r.member_card(&number(1))).await.unwrap().unwrap();
    let rows = shop.gateway.store.read(|r| r.transactions_of(&number(1), None, 100)).await.unwrap();
    json!({ "holds": format!("{:?}", row.seen.holding), "stands": row.status, "begun": rows.len() })
}

/// The card is refused for this, in words for the cashier in both languages, also when it is to
/// take or to give; it keeps every byte and every try, and the store what it knows of it.
async fn is_refused(shop: &Shop, technology: Technology, chip: &Chip, reason: &str, what: &str) {
    let before = known(shop).await;
    let card = shop.lay(chip).await;
    let (kind, tap) = greeting(shop).await;
    assert_eq!((kind.as_str(), &tap["reason"]), ("card.refused", &json!(reason)), "{what}");
    let (zh, en) = (tap["text"]["zh"].as_str().unwrap(), tap["text"]["en"].as_str().unwrap());
    assert!(zh.ends_with('。') && en.ends_with('.') && en.is_ascii(), "{what}: {tap}");
    if reason == "damaged-record" {
        assert!(zh.contains("补卡") && en.contains("Replace the card"), "{what}: {tap}");
    }
    for kind in [TransactionKind::Spend, TransactionKind::Topup] {
        let row = shop.answered(shop.deal(&number(1), kind, 1).await).await;
        let code = row.outcome.as_ref().unwrap()["code"].as_str().unwrap();
        let is_right = code == reason || code == format!("card-{reason}");
        assert!(row.state == RequestState::Failed && is_right, "{what}: {:?}", row.outcome);
    }
    assert_eq!(card.writes(), 0, "{what}");
    let mut after = shop.take_away(card).await;
    assert_eq!((after.tries_lost(), after.purse()), (chip.tries_lost(), chip.purse()), "{what}");
    let mut chip = chip.clone();
    for (at, offset) in slots(technology).concat() {
        assert_eq!(after.cell_mut(at, offset), chip.cell_mut(at, offset), "{what}: {at}, {offset}");
    }
    assert_eq!(known(shop).await, before, "{what}");
}

/// It is a member's, with so much money; then it pays a little, and is whole again.
async fn counts(shop: &Shop, chip: &Chip, fen: i64, what: &str) -> Chip {
    let card = shop.lay(chip).await;
    let (kind, tap) = greeting(shop).await;
    assert_eq!((kind.as_str(), &tap["member"]["balance_fen"]), ("card.tapped", &json!(fen)), "{what}");
    done(shop, TransactionKind::Spend, SPENT, what).await;
    shop.take_away(card).await
}

/// A shop, and a member's card of it with both slots written.
async fn given_out(sim: Sim) -> (Shop, Running, Chip) {
    let (shop, service) = counter_with(&Slot::new());
    let card = shop.lay(&blank(sim, 1)).await;
    let issue = shop.issue(&number(1)).await;
    assert_eq!(shop.answered(issue).await.state, RequestState::Done, "{sim:?}");
    done(&shop, TransactionKind::Topup, PAID_IN, &format!("{sim:?}")).await;
    done(&shop, TransactionKind::Spend, SPENT, &format!("{sim:?}")).await;
    let chip = shop.take_away(card).await;
    (shop, service, chip)
}

async fn column(sim: Sim, technology: Technology) {
    let (shop, service, mut chip) = given_out(sim).await;
    let mut fen = PAID_IN - SPENT;
    let slots = slots(technology);

    for harm in BROKEN {
        let what = format!("{sim:?} {harm:?}");
        let damaged = harmed(&chip, &slots, harm);
        is_refused(&shop, technology, &damaged, "damaged-record", &what).await;
    }
    // What is gone to the last byte looks as if it had never been there.
    let wiped = harmed(&chip, &slots, Harm::Zeros);
    is_refused(&shop, technology, &wiped, "unformatted", &format!("{sim:?} wiped")).await;
    if let [a, b] = slots.as_slice() {
        let half_wiped = harmed(&harmed(&chip, [a], Harm::Zeros), [b], Harm::Noise);
        is_refused(&shop, technology, &half_wiped, "damaged-record", &format!("{sim:?} half wiped")).await;
        for harm in BROKEN {
            (chip, fen) = one_is_left(&shop, (sim, technology), chip, fen, harm).await;
        }
    }
    // None of it is held against the card.
    chip = counts(&shop, &chip, fen, &format!("{sim:?} in the end")).await;
    fen -= SPENT;
    moves(&shop, sim, &harmed(&chip, &slots, Harm::Noise), fen).await;
    service.stop().await;
}

/// One slot is damaged: the other counts, the older one where nobody knows of the newer; the newer
/// one goes on paying, and the write over the damaged one makes both whole.
async fn one_is_left(
    shop: &Shop,
    (sim, technology): (Sim, Technology),
    chip: Chip,
    fen: i64,
    harm: Harm,
) -> (Chip, i64) {
    let mut newer = None;
    for (n, slot) in slots(technology).iter().enumerate() {
        let what = format!("{sim:?} {harm:?} slot {n}");
        let (elsewhere, service) = counter_with(&Slot::new());
        let damaged = harmed(&chip, [slot], harm);
        let card = elsewhere.lay(&damaged).await;
        let (kind, tap) = greeting(&elsewhere).await;
        assert_eq!(card.writes(), 0, "{what}");
        elsewhere.take_away(card).await;
        service.stop().await;
        let shows = tap["member"]["balance_fen"].as_i64();
        match (kind.as_str(), shows) {
            ("card.tapped", Some(shows)) if shows == fen => newer = Some(damaged),
            ("card.tapped", Some(shows)) => assert_eq!(shows, fen + SPENT, "{what}: {tap}"),
            // Its purse says that the older record is not its last.
            _ => assert_eq!((sim, &tap["reason"]), (Sim::Cpu, &json!("record-conflict")), "{what}: {tap}"),
        }
    }
    let whole = counts(shop, &newer.unwrap(), fen, &format!("{sim:?} {harm:?}")).await;
    (whole, fen - SPENT)
}

/// A new card takes its place, with what it held.
async fn moves(shop: &Shop, sim: Sim, damaged: &Chip, fen: i64) {
    shop.take_away(shop.lay(damaged).await).await;
    assert_eq!(greeting(shop).await.1["reason"], "damaged-record", "{sim:?}");
    let card = shop.lay(&blank(sim, 2)).await;
    let issue = shop.issue(&number(2)).await;
    assert_eq!(shop.answered(issue).await.state, RequestState::Done, "{sim:?}");
    let life = Life::Replace { old_card_no: number(1), why: Why::Defect };
    let wish = Deal { life: Some(life), ..deal(&number(2), TransactionKind::Transfer) };
    let row = shop.answered(shop.ask(TRANSACTION, json!(wish)).await).await;
    assert_eq!(row.state, RequestState::Done, "{sim:?} {:?}", row.outcome);
    shop.take_away(card).await;
    assert_eq!(shop.known(&number(2)).await.unwrap().balance(), Some(Fen(fen)), "{sim:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotten_record_is_refused_and_no_fen_is_lost() {
    let mut columns = JoinSet::new();
    for (sim, technology) in ALL {
        columns.spawn(column(sim, technology));
    }
    while let Some(column) = columns.join_next().await {
        column.unwrap();
    }
}

/// The last record has rotted: with what the card held before it paid it pays nothing where it did.
#[tokio::test(flavor = "multi_thread")]
async fn the_record_before_is_no_money_where_the_last_is_known() {
    for (sim, technology) in ALL {
        let slots = slots(technology);
        if slots.len() == 1 {
            continue;
        }
        let (shop, service, chip) = given_out(sim).await;
        let reason = if sim == Sim::Cpu { "record-conflict" } else { "held" };
        // The issue wrote the first slot, the top-up the second, the sale the first.
        let damaged = harmed(&chip, [&slots[0]], Harm::Noise);
        is_refused(&shop, technology, &damaged, reason, &format!("{sim:?}, its last record")).await;
        service.stop().await;
    }
}

#[test]
fn no_technology_with_a_record_is_left_out() {
    let named: BTreeSet<String> = ALL.iter().map(|(_, technology)| format!("{technology:?}")).collect();
    let layouts = members().layouts.clone();
    let known = layouts.iter().flat_map(|layout| &layout.technologies);
    assert_eq!(named, known.map(|technology| format!("{technology:?}")).collect());
}
