//! What every deed in a card's life is cut with: cards, deals, and a cut at a command.

use baygate::card::counter::{Deal, ISSUE, IssueAsked, Life, TRANSACTION, Why};
use baygate::event::ledger::{CardStanding, CardType, TenderKind, TransactionKind};
use baygate::ident::CardNo;
use baygate::sim::card::{CardFault, CardSim, Chip, Technology as Sim};
use baygate::store::ledger::State;
use baygate::store::requests::RequestState;
use jiff::civil::date;
use serde_json::json;
use uuid::Uuid;

use crate::counter::{Gateway, Running, pcsc_table};
use crate::cpu_shop::{Slot, counter_with};
use crate::cut_shop::{self, FAULTS, Shop, blank, by, deal, members, number};
use crate::pcscd::Pcscd;

/// How thoroughly.
#[derive(Clone, Copy)]
pub(crate) struct Cuts {
    pub(crate) sim: Sim,
    pub(crate) faults: &'static [CardFault],
    /// At every command, or at every so many.
    pub(crate) step: usize,
}

pub(crate) const ALL_ON_NTAG: Cuts = Cuts { sim: Sim::Ntag215, faults: &FAULTS, step: 1 };
pub(crate) const CLASSIC: Cuts =
    Cuts { sim: Sim::Classic1k, faults: &[CardFault::PullUnheard, CardFault::Status(0x6300)], step: 1 };
/// A CPU card with a purchase SAM, and headquarters for what goes on it.
pub(crate) const ALL: [Cuts; 7] = [
    ALL_ON_NTAG,
    CLASSIC,
    Cuts { sim: Sim::Desfire, ..ALL_ON_NTAG },
    Cuts { sim: Sim::DesfireEv1, ..ALL_ON_NTAG },
    Cuts { sim: Sim::Ntag424, ..ALL_ON_NTAG },
    Cuts { sim: Sim::Sle4442, ..ALL_ON_NTAG },
    Cuts { sim: Sim::Cpu, ..ALL_ON_NTAG },
];
pub(crate) const PCSCD: Cuts = Cuts { sim: Sim::Classic1k, faults: &[CardFault::Pull], step: 7 };

impl Cuts {
    /// A shop for such cards, at our own virtual reader.
    pub(crate) fn shop(self) -> (Shop, Running) {
        if self.sim == Sim::Cpu { counter_with(&Slot::new()) } else { cut_shop::shop() }
    }
}

/// Shop at the real pcscd; `None` where it must be left out.
pub(crate) fn real() -> Option<(Pcscd, (Shop, Running))> {
    let pcscd = Pcscd::start()?;
    let shop = Shop { gateway: Gateway::new(), port: pcscd.port };
    let service = shop.gateway.serve_members(pcsc_table("counter-1", "Virtual PCD 00 00"), Some(members()));
    Some((pcscd, (shop, service)))
}

/// A card given out, with money on it.
pub(crate) async fn issued(shop: &Shop, sim: Sim, n: usize, card_type: CardType, fen: i64) -> Chip {
    let card = shop.lay(&blank(sim, n)).await;
    let asked = IssueAsked {
        card_no: number(n),
        card_type,
        tier: 0,
        discount_class: 0,
        valid_until: (card_type == CardType::Anonymous).then(|| date(2040, 12, 31)),
        wait_s: Some(30),
        by: by(),
    };
    let issue = shop.ask(ISSUE, json!(asked)).await;
    let row = shop.answered(issue).await;
    assert_eq!(row.state, RequestState::Done, "{:?}", row.outcome);
    if fen > 0 {
        let topup = shop.deal(&number(n), TransactionKind::Topup, fen).await;
        assert_eq!(shop.answered(topup).await.state, RequestState::Done);
    }
    shop.take_away(card).await
}

/// Asks for a deal with the card that lies there.
pub(crate) async fn ask(shop: &Shop, deal: Deal) -> Uuid {
    shop.ask(TRANSACTION, json!(deal)).await
}

pub(crate) async fn state(shop: &Shop, id: Uuid) -> Option<State> {
    shop.gateway.store.read(move |r| r.transaction_state(id)).await.unwrap()
}

/// Done without a cut; how many commands it took.
pub(crate) async fn whole(shop: &Shop, chip: &Chip, deal: Deal) -> (Chip, usize, Uuid) {
    let card = shop.lay(chip).await;
    let begun = card.apdus().len();
    let id = ask(shop, deal).await;
    let row = shop.answered(id).await;
    assert_eq!(row.state, RequestState::Done, "{:?}", row.outcome);
    let commands = card.apdus().len() - begun;
    (shop.take_away(card).await, commands, id)
}

/// Cut at a command, and tapped again. Whether it is committed.
pub(crate) async fn cut(
    shop: &Shop,
    chip: &Chip,
    at: usize,
    fault: CardFault,
    deal: Deal,
) -> (Chip, bool, Uuid) {
    let card = shop.lay(chip).await;
    card.fault_after(at, fault);
    let id = ask(shop, deal).await;
    shop.answered(id).await;
    let chip = shop.take_away(card).await;
    let card = shop.lay(&chip).await;
    let committed = match (state(shop, id).await, shop.request(id).await.state) {
        (Some(State::Committed), RequestState::Done) => true,
        (Some(State::Aborted), RequestState::Failed) => false,
        other => panic!("{fault:?} at {at}: {other:?}"),
    };
    (shop.take_away(card).await, committed, id)
}

pub(crate) async fn stands(shop: &Shop, card_no: &CardNo) -> CardStanding {
    let card_no = card_no.clone();
    shop.gateway.store.read(move |r| r.member_card(&card_no)).await.unwrap().unwrap().status
}

pub(crate) fn every(commands: usize, cuts: Cuts) -> impl Iterator<Item = (usize, CardFault)> {
    assert!(commands >= 8, "{commands}");
    let at = (0..commands).filter(move |at| at % cuts.step == 0 || at + 1 == commands);
    at.flat_map(move |at| cuts.faults.iter().map(move |fault| (at, *fault)))
}

pub(crate) fn life(card_no: &CardNo, kind: TransactionKind, life: Life) -> Deal {
    Deal { life: Some(life), ..deal(card_no, kind) }
}

pub(crate) fn give_back(card_no: &CardNo) -> Deal {
    life(card_no, TransactionKind::Refund, Life::Return { tender: TenderKind::Cash })
}

pub(crate) fn replace(old: &CardNo, new: &CardNo) -> Deal {
    life(new, TransactionKind::Transfer, Life::Replace { old_card_no: old.clone(), why: Why::Lost })
}

/// What a refused card gets: nothing.
pub(crate) async fn refused(shop: &Shop, card: &CardSim, deal: Deal, code: &str) {
    let writes = card.writes();
    let id = ask(shop, deal).await;
    let row = shop.answered(id).await;
    assert_eq!((row.state, &row.outcome.unwrap()["code"]), (RequestState::Failed, &json!(code)));
    assert_eq!(card.writes(), writes, "{code}: nothing is written");
    assert_eq!(state(shop, id).await, None, "{code}: not even an intent");
}
