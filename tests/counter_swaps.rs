//! Another card lies on the reader in the middle of a deed: an empty one, another member's, the one
//! that the first took the place of. Between every two commands of a sale, a top-up, a return and an
//! issue, with a reader that tells and with one that does not notice. Nothing is written to a card
//! that is not meant, nothing is told of the first that it has not shown, and its next tap settles.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "support/counter.rs"]
mod counter;
mod cpu_shop;
mod cut_shop;
#[path = "support/pcscd.rs"]
mod pcscd;
#[path = "support/port.rs"]
mod port;

use std::collections::BTreeMap;

use baygate::card::counter::{Deal, Life, PREPARE, TRANSACTION, Why};
use baygate::event::ledger::{CardTransaction, Outcome, TenderKind, TransactionKind};
use baygate::ident::CardNo;
use baygate::money::{Fen, Holding};
use baygate::sim::card::{CardFault, CardSim, Chip, Technology as Sim};
use baygate::store::ledger::State;
use baygate::store::requests::RequestState;
use baygate::store::{Offset, Reader};
use counter::{Gateway, Running, pcsc_table};
use cpu_shop::{Slot, counter_with};
use cut_shop::{Shop, blank, deal, members, number, shop};
use pcscd::Pcscd;
use serde_json::json;
use tokio::task::JoinSet;
use uuid::Uuid;

const ALL: [Sim; 7] =
    [Sim::Ntag215, Sim::Classic1k, Sim::Desfire, Sim::Ntag424, Sim::UltralightC, Sim::Sle4442, Sim::Cpu];
/// What the first card pays, or gets.
const FEN: i64 = 7;

/// How the reader sees it.
#[derive(Debug, Clone, Copy)]
enum Seen {
    /// The first leaves at this command, and the other one is told.
    Told(CardFault),
    /// The other one answers the next command.
    Unnoticed,
}

/// A shop, the card that is meant, and those that come in its place.
struct Counter {
    shop: Shop,
    sim: Sim,
    /// Cards given out so far.
    given: usize,
    card_no: CardNo,
    chip: Chip,
    others: [(&'static str, Chip); 3],
    /// pcscd asks the virtual reader every so often: it has to have seen the card leave.
    polled: bool,
    ours: Vec<CardNo>,
    became: [u32; 2],
}

async fn done(shop: &Shop, id: Uuid) {
    let row = shop.answered(id).await;
    assert_eq!(row.state, RequestState::Done, "{:?}", row.outcome);
}

async fn member(shop: &Shop, sim: Sim, n: usize, fen: i64) -> Chip {
    let card = shop.lay(&blank(sim, n)).await;
    done(shop, shop.issue(&number(n)).await).await;
    if fen > 0 {
        done(shop, shop.deal(&number(n), TransactionKind::Topup, fen).await).await;
    }
    shop.take_away(card).await
}

async fn ask(shop: &Shop, deal: Deal) -> Uuid {
    shop.ask(TRANSACTION, json!(deal)).await
}

fn living(card_no: &CardNo, kind: TransactionKind, life: Life) -> Deal {
    Deal { life: Some(life), ..deal(card_no, kind) }
}

impl Counter {
    /// Card 2 took the place of card 1 and is meant; card 3 is another member's; number 4 is empty.
    async fn open(shop: Shop, sim: Sim) -> Self {
        let old = member(&shop, sim, 1, 9_000).await;
        let fresh = member(&shop, sim, 2, 0).await;
        let card = shop.lay(&fresh).await;
        let replace = Life::Replace { old_card_no: number(1), why: Why::Defect };
        done(&shop, ask(&shop, living(&number(2), TransactionKind::Transfer, replace)).await).await;
        let chip = shop.take_away(card).await;
        let other = member(&shop, sim, 3, 500).await;
        let others =
            [("an empty card", blank(sim, 4)), ("another member's", other), ("the replaced one", old)];
        let (card_no, ours) = (number(2), vec![number(1), number(2), number(3)]);
        Self { shop, sim, given: 4, card_no, chip, others, polled: false, ours, became: [0; 2] }
    }

    async fn ask(&self, kind: TransactionKind) -> Uuid {
        if kind == TransactionKind::Refund {
            let back = Life::Return { tender: TenderKind::Cash };
            return ask(&self.shop, living(&self.card_no, kind, back)).await;
        }
        self.shop.deal(&self.card_no, kind, FEN).await
    }

    /// How many commands a deed takes.
    async fn commands(&mut self, kind: TransactionKind) -> usize {
        let card = self.shop.lay(&self.chip).await;
        let begun = card.apdus().len();
        done(&self.shop, self.ask(kind).await).await;
        let commands = card.apdus().len() - begun;
        assert!(commands >= 8, "{commands}");
        self.chip = self.shop.take_away(card).await;
        commands
    }

    /// Whether a command that changes an empty card is done by one that nobody has logged in to.
    fn is_open(&self, other: &str) -> bool {
        other == "an empty card" && matches!(self.sim, Sim::Ntag215 | Sim::UltralightC)
    }

    /// Another card lies there from this command on: what is asked then is not done either. The first
    /// one as it left.
    async fn swap(&self, card: CardSim, id: Uuid, seen: Seen, other: (&str, &Chip), what: &str) -> Chip {
        let shop = &self.shop;
        let (first, lies) = match seen {
            Seen::Unnoticed => {
                shop.answered(id).await;
                (card.swapped().expect(what).first, card)
            }
            Seen::Told(_) => {
                let mut card = card;
                card.gone().await;
                if self.polled {
                    let empty = |r: &Reader<'_>| r.cards_in_field().unwrap().is_empty().then_some(());
                    shop.until("an empty reader", empty).await;
                }
                let lies = shop.lay(other.1).await;
                shop.answered(id).await;
                (card.chip(), lies)
            }
        };
        let after = shop.deal(&self.card_no, TransactionKind::Spend, 1).await;
        assert_eq!(shop.answered(after).await.state, RequestState::Failed, "{what}");
        let taken = lies.swapped().map_or_else(|| lies.writes(), |swapped| swapped.taken);
        assert!(taken == 0 || self.is_open(other.0), "{what}: {taken} commands changed the other card");
        let lost = [shop.take_away(lies).await, first.clone()].map(|chip| {
            let code = chip.code().map_or(0, |(_, left)| 3 - left);
            u32::from(chip.wrong_passwords()).max(chip.failed_logins()).max(code)
        });
        let before = [other.1, &self.chip].map(Chip::failed_logins);
        assert!(lost[0] <= before[0] + 1 && lost[1] <= before[1] + 1, "{what}: {lost:?} tries");
        first
    }

    /// One deed, and another card at one of its commands.
    async fn deed(&mut self, kind: TransactionKind, at: usize, seen: Seen, other: usize) {
        let (name, newcomer) = self.others[other].clone();
        let what = format!("{:?} {kind:?}: {name} at command {at}, {seen:?}", self.sim);
        let card = self.shop.lay(&self.chip).await;
        let before = self.shop.known(&self.card_no).await.unwrap();
        match seen {
            Seen::Told(fault) => card.fault_after(at, fault),
            Seen::Unnoticed => card.swap_after(at, newcomer.clone()),
        }
        let id = self.ask(kind).await;
        self.chip = self.swap(card, id, seen, (name, &newcomer), &what).await;
        let state = async || self.shop.gateway.store.read(move |r| r.transaction_state(id)).await.unwrap();
        if let (Seen::Unnoticed, State::Committed) = (seen, state().await.expect(&what)) {
            panic!("{what}: nobody has read it back from the card that was meant");
        }
        // The next tap of the first.
        let card = self.shop.lay(&self.chip).await;
        let after = self.shop.known(&self.card_no).await.unwrap();
        let row = self.shop.gateway.store.read(move |r| r.transaction(id)).await.unwrap().unwrap();
        let asked = self.shop.request(id).await.state;
        match row.state {
            State::Committed => assert_eq!((asked, &after), (RequestState::Done, &row.after), "{what}"),
            State::Aborted => assert_eq!((asked, &after), (RequestState::Failed, &before), "{what}"),
            other => panic!("{what}: {other:?}"),
        }
        self.became[usize::from(row.state == State::Committed)] += 1;
        self.chip = self.shop.take_away(card).await;
        if kind == TransactionKind::Refund && row.state == State::Committed {
            self.next_card().await;
        }
    }

    /// Where the one that was meant was given back.
    async fn next_card(&mut self) {
        self.given += 1;
        self.chip = member(&self.shop, self.sim, self.given, 900).await;
        self.card_no = number(self.given);
        self.ours.push(self.card_no.clone());
    }

    async fn money(&mut self, step: usize) {
        let commands = self.commands(TransactionKind::Spend).await;
        let topup = self.commands(TransactionKind::Topup).await;
        let back = self.commands(TransactionKind::Refund).await;
        assert_eq!((topup, back), (commands, commands), "each deed is one write of the record");
        self.next_card().await;
        for at in (0..commands).filter(|at| at % step == 0 || at + 1 == commands) {
            let kinds = [TransactionKind::Spend, TransactionKind::Topup, TransactionKind::Refund];
            for (other, kind) in [at % 2, 1 - at % 2, 2].into_iter().zip(kinds) {
                self.deed(kind, at, Seen::Unnoticed, other).await;
            }
            let is_done = at % 2 == 0 || at + 1 == commands;
            let fault = if is_done { CardFault::Pull } else { CardFault::PullUnheard };
            self.deed(kinds[at % 3], at, Seen::Told(fault), (at + 1) % 3).await;
        }
        assert!(self.became.iter().all(|times| *times > 0), "{:?}: {:?}", self.sim, self.became);
    }

    /// Whoever came in between is as before, and the cards are the sum of what was told of them.
    async fn adds_up(&self) {
        let card = self.shop.lay(&self.others[1].1).await;
        done(&self.shop, self.shop.deal(&number(3), TransactionKind::Spend, 1).await).await;
        self.shop.take_away(card).await;
        let mut last: BTreeMap<Uuid, CardTransaction> = BTreeMap::new();
        for (_, data) in self.shop.told().await.into_iter().filter(|(kind, _)| kind == "card.transaction") {
            let fact: CardTransaction = serde_json::from_value(data).unwrap();
            last.insert(fact.transaction_id, fact);
        }
        assert!(last.values().all(|fact| fact.outcome != Outcome::Unknown));
        for card_no in &self.ours {
            let of = last.values().filter(|fact| fact.card_no == *card_no);
            let fen: i64 = of.filter(|fact| fact.outcome == Outcome::Committed).map(moved).sum();
            assert_eq!(self.shop.known(card_no).await.unwrap().balance(), Some(Fen(fen)), "{card_no}");
        }
        assert!(self.shop.gateway.store.read(|r| r.open_transactions()).await.unwrap().is_empty());
    }

    /// Every command of an issue, each on a card of its own.
    async fn issues(&mut self) {
        self.given += 1;
        let card = self.shop.lay(&blank(self.sim, self.given)).await;
        let begun = card.apdus().len();
        done(&self.shop, self.shop.issue(&number(self.given)).await).await;
        let commands = card.apdus().len() - begun;
        self.shop.take_away(card).await;
        for at in 0..commands {
            let fault = if at % 2 == 0 { CardFault::Pull } else { CardFault::PullUnheard };
            let seen = if at % 4 == 3 { Seen::Told(fault) } else { Seen::Unnoticed };
            // The lock bits and the header of a Type 2 chip are any telephone's to write: where nobody
            // notices, they reach any card.
            let type_2 = matches!(self.sim, Sim::Ntag215 | Sim::UltralightC);
            let any = type_2 && matches!(seen, Seen::Unnoticed);
            let (name, newcomer) = self.others[if any { 0 } else { at % 2 }].clone();
            self.given += 1;
            let (card_no, fresh) = (number(self.given), blank(self.sim, self.given));
            let what = format!("{:?} issue: {name} at command {at} of {commands}, {seen:?}", self.sim);
            let card = self.shop.lay(&fresh).await;
            match seen {
                Seen::Told(fault) => card.fault_after(at, fault),
                Seen::Unnoticed => card.swap_after(at, newcomer.clone()),
            }
            let id = self.shop.issue(&card_no).await;
            let (first, lies) = match seen {
                Seen::Unnoticed => {
                    self.shop.answered(id).await;
                    (card.swapped().expect(&what).first, card)
                }
                Seen::Told(_) => {
                    let mut card = card;
                    card.gone().await;
                    let lies = self.shop.lay(&newcomer).await;
                    self.shop.answered(id).await;
                    (card.chip(), lies)
                }
            };
            let taken = lies.swapped().map_or_else(|| lies.writes(), |swapped| swapped.taken);
            // An empty one is anybody's to write while nobody notices.
            let is_empty = name == "an empty card" && matches!(seen, Seen::Unnoticed);
            assert!(taken == 0 || is_empty, "{what}: {taken} commands changed the other card");
            let second = self.shop.take_away(lies).await;
            // Two that have no serial are one and the same, until one gets it.
            if self.sim == Sim::Sle4442 && is_empty && first.shown() == fresh.shown() {
                continue;
            }
            // At the end only what is empty on both was left to be read.
            let is_done = self.shop.request(id).await.state == RequestState::Done;
            assert!(!is_done || taken == 0, "{what}: not the one");
            let lies = self.shop.lay(&second).await;
            assert!(is_done || self.shop.known(&card_no).await.is_none(), "{what}");
            self.shop.take_away(lies).await;
            let card = self.shop.lay(&first).await;
            let store = &self.shop.gateway.store;
            let before = Offset(store.head().borrow().last.0 - 1);
            let tap = store.read(move |r| r.events_after(before, 1)).await.unwrap().pop().unwrap();
            assert!(!is_done || tap.event.data.get().contains(card_no.as_str()), "{what}: {tap:?}");
            assert!(self.shop.request(id).await.state.is_settled(), "{what}");
            if self.shop.known(&card_no).await.is_none() {
                assert_eq!(self.shop.request(id).await.state, RequestState::Failed, "{what}");
                let mut row = self.shop.answered(self.shop.issue(&card_no).await).await;
                // Of two codes that an SLE4442 can have one is tried an action.
                if self.sim == Sim::Sle4442 && row.state == RequestState::Failed {
                    row = self.shop.answered(self.shop.issue(&card_no).await).await;
                }
                assert_eq!(row.state, RequestState::Done, "{what}: {:?}", row.outcome);
            }
            assert_eq!(self.shop.known(&card_no).await, Some(Holding::default()), "{what}");
            self.shop.take_away(card).await;
        }
        assert!(self.shop.gateway.store.read(|r| r.open_requests(PREPARE, None)).await.unwrap().is_empty());
    }
}

fn moved(fact: &CardTransaction) -> i64 {
    fact.principal_fen.0 + fact.bonus_fen.0
}

fn open(sim: Sim) -> (Shop, Running) {
    if sim == Sim::Cpu { counter_with(&Slot::new()) } else { shop() }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_deed_is_done_with_a_card_that_came_in_between() {
    let mut all = JoinSet::new();
    for sim in ALL {
        all.spawn(async move {
            let (shop, service) = open(sim);
            let mut counter = Counter::open(shop, sim).await;
            counter.money(1).await;
            counter.adds_up().await;
            service.stop().await;
        });
    }
    all.join_all().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_issue_is_done_with_a_card_that_came_in_between() {
    let mut all = JoinSet::new();
    for sim in ALL {
        all.spawn(async move {
            let (shop, service) = open(sim);
            Counter::open(shop, sim).await.issues().await;
            service.stop().await;
        });
    }
    all.join_all().await;
}

/// The real pcscd notices a card that leaves, and not one that answers in its place.
#[tokio::test(flavor = "multi_thread")]
async fn no_deed_is_done_with_a_card_that_came_in_between_at_the_real_pcscd() {
    let Some(pcscd) = Pcscd::start() else { return };
    let shop = Shop { gateway: Gateway::new(), port: pcscd.port };
    let service = shop.gateway.serve_members(pcsc_table("counter-1", "Virtual PCD 00 00"), Some(members()));
    let mut counter = Counter::open(shop, Sim::Classic1k).await;
    counter.polled = true;
    counter.money(6).await;
    counter.adds_up().await;
    service.stop().await;
}
