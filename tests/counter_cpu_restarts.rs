//! A CPU card's sale whose answer was lost, and the program with it: the card's proof and the SAM's
//! word decide at the next tap, or headquarters by the signature.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "support/counter.rs"]
mod counter;
mod cpu_shop;
mod cut_shop;
#[path = "support/port.rs"]
mod port;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use baygate::event::ledger::TransactionKind;
use baygate::money::Fen;
use baygate::sim::card::{CardFault, Technology as Sim};
use baygate::store::ledger::State;
use baygate::store::requests::RequestState;
use counter::{Gateway, Running, vpcd_table};
use cpu_shop::{Hq, Slot, at_rest, held, issued, till, transaction, with_purse};
use cut_shop::{Shop, blank, number};
use port::free_port;

/// A counter whose program is started again with the card's answer still to come.
struct Restarts {
    slot: Slot,
    shop: Shop,
    service: Running,
}

impl Restarts {
    fn open() -> Self {
        let (slot, shop) = (Slot::new(), Shop { gateway: Gateway::new(), port: free_port() });
        let service = Self::serve(&slot, &shop);
        Self { slot, shop, service }
    }

    fn serve(slot: &Slot, shop: &Shop) -> Running {
        let purse = till(slot.opener()).with_notebook(&shop.gateway.path("purchase-sam.json"));
        let members = with_purse(Some(purse.with_headquarters(Arc::new(Hq))));
        shop.gateway.serve_members(vpcd_table("counter-1", shop.port), members)
    }

    /// Killed, and the store opened anew.
    async fn killed(mut self) -> Self {
        self.service.kill().await;
        self.shop.gateway.open_again().await;
        let service = Self::serve(&self.slot, &self.shop);
        Self { service, ..self }
    }
}

/// Nobody could check the card's word: the SAM left in that moment, or lost its power with the
/// program. It is for headquarters then, by the card's signature; the card goes on.
#[tokio::test(flavor = "multi_thread")]
async fn a_purchase_that_nobody_checked_is_for_headquarters() {
    for without_power in [false, true] {
        let what = format!("without power {without_power}");
        let mut it = Restarts::open();
        let card_no = number(1);
        let (mut chip, _, commands) = issued(&it.shop, &card_no, &blank(Sim::Cpu, 1)).await;
        // A right answer: one that is lost afterwards may cost the SAM a try, and leaves it one to spare.
        let card = it.shop.lay(&chip).await;
        let first = it.shop.deal(&card_no, TransactionKind::Spend, 100).await;
        assert_eq!(it.shop.answered(first).await.state, RequestState::Done);
        chip = it.shop.take_away(card).await;
        let mut card = it.shop.lay(&chip).await;
        if without_power {
            card.fault_after(commands - 1, CardFault::Pull);
        } else {
            it.slot.1.store(true, Ordering::Relaxed);
        }
        let id = it.shop.deal(&card_no, TransactionKind::Spend, 700).await;
        let state = at_rest(&it.shop, id).await;
        if without_power {
            assert_eq!(state, State::Unknown);
            chip = it.shop.take_away(card).await;
            it = it.killed().await;
            it.slot.power_off();
            card = it.shop.lay(&chip).await;
        }
        it.slot.1.store(false, Ordering::Relaxed);
        assert_eq!(transaction(&it.shop, id).await.state, State::Parked, "{what}");
        assert_eq!(it.shop.request(id).await.state, RequestState::Failed, "no tap tells any more");
        let told = it.shop.told().await;
        let last = told.iter().rfind(|(kind, _)| kind == "card.transaction").unwrap();
        let proof = &last.1["proof"];
        assert_eq!(
            (&last.1["outcome"], &proof["terminal_sequence"]),
            (&"unknown".into(), &2.into()),
            "{what}"
        );
        assert_eq!(proof["tac"].as_str().unwrap().len(), 8, "{what}");
        assert_eq!(it.shop.known(&card_no).await.unwrap().balance(), Some(Fen(4_200)));
        let next = it.shop.deal(&card_no, TransactionKind::Spend, 300).await;
        assert_eq!(it.shop.answered(next).await.state, RequestState::Done, "{what}");
        let (fen, ..) = it.shop.take_away(card).await.purse().unwrap();
        assert_eq!((fen, it.slot.tries_left()), (3_900, 3), "{what}");
        it.service.stop().await;
    }
}

/// Killed with the card's answer still to come, and the SAM kept its power: the next tap tells, by the
/// card's proof and the SAM's word. Of an imitation it tells the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_purchase_outlives_the_program() {
    for is_genuine in [true, false] {
        let it = Restarts::open();
        let card_no = number(1);
        let (mut chip, _, commands) = issued(&it.shop, &card_no, &blank(Sim::Cpu, 1)).await;
        if !is_genuine {
            chip.imitate();
        }
        let card = it.shop.lay(&chip).await;
        card.fault_after(commands - 1, CardFault::Pull);
        let id = it.shop.deal(&card_no, TransactionKind::Spend, 700).await;
        assert_eq!(at_rest(&it.shop, id).await, State::Unknown);
        let chip = it.shop.take_away(card).await;
        let it = it.killed().await;
        let card = it.shop.lay(&chip).await;
        let row = transaction(&it.shop, id).await;
        if is_genuine {
            let proof = row.fact.proof.as_ref().unwrap();
            assert_eq!((row.state, proof.terminal_sequence, proof.tac.len()), (State::Committed, 1, 8));
            assert_eq!(it.shop.request(id).await.state, RequestState::Done);
            assert_eq!(it.shop.known(&card_no).await.unwrap().balance(), Some(Fen(4_300)));
            assert_eq!(it.slot.tries_left(), 3);
        } else {
            assert_eq!(row.state, State::Unknown);
            assert_eq!(held(&it.shop, &card_no).await.as_deref(), Some("imitation"));
            assert_eq!(it.slot.tries_left(), 2);
        }
        it.shop.take_away(card).await;
        it.service.stop().await;
    }
}
