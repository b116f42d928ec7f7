//! CPU cards at the counter: money comes off only against the card's proof, checked by the SAM,
//! and goes on only with headquarters. Through the reader's service, cut at every command, and
//! through the real pcscd with a SAM in its second slot.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "support/counter.rs"]
mod counter;
mod cpu_shop;
mod cut_shop;
#[path = "support/pcscd.rs"]
mod pcscd;
#[path = "support/port.rs"]
mod port;

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use baygate::card::apdu::{Command, Response};
use baygate::card::keys::psam::{Channel, ChannelError, Psam};
use baygate::card::keys::till_purse::Opener;
use baygate::card::keys::{KeyError, PurseKeys};
use baygate::card::pcsc::open_sam;
use baygate::config::tables::{ReaderGlobs, ReaderTable};
use baygate::event::ledger::{CardTransaction, Outcome, TransactionKind};
use baygate::ident::CardNo;
use baygate::money::{Fen, Holding};
use baygate::sim::card::psam::Psam as SimulatedPsam;
use baygate::sim::card::{CardFault, CardSim, Chip, Technology as Sim};
use baygate::store::ledger::State;
use baygate::store::requests::RequestState;
use counter::{Gateway, pcsc_table, vpcd_table};
use cpu_shop::{Hq, Slot, TERMINAL, at_rest, counter_with, held, issued, till, transaction, with_purse};
use cut_shop::{FAULTS, PURCHASE, Shop, blank, number};
use pcscd::Pcscd;
use port::free_port;
use uuid::Uuid;

/// A SAM that takes its time over an approval: it says so, and waits for a word.
#[derive(Debug)]
struct Slow(Slot, mpsc::Sender<()>, mpsc::Receiver<()>);

impl Channel for Slow {
    fn transmit(&mut self, command: &Command) -> Result<Response, ChannelError> {
        if command.to_bytes().starts_with(&[0x80, 0x70]) {
            self.1.send(()).map_err(|_| ChannelError)?;
            self.2.recv_timeout(Duration::from_secs(20)).map_err(|_| ChannelError)?;
        }
        self.0.transmit(command)
    }
}

/// Every one of `commands` cut by each of `faults`, then a tap: the old or the new, and a purchase
/// on the card is signed for and was checked.
async fn cut(
    shop: &Shop,
    card_no: &CardNo,
    mut chip: Chip,
    commands: usize,
    faults: &[CardFault],
    kinds: &[TransactionKind],
) -> (Chip, Vec<Uuid>) {
    let (mut ours, mut became) = (Vec::new(), [0; 2]);
    for at in 0..commands {
        for (n, fault) in faults.iter().copied().enumerate() {
            let kind = kinds[(at + n) % kinds.len()];
            let what = format!("{kind:?} {fault:?} at command {at} of {commands}");
            let card = shop.lay(&chip).await;
            let before = shop.known(card_no).await.unwrap();
            card.fault_after(at, fault);
            let id = shop.deal(card_no, kind, 7).await;
            shop.answered(id).await;
            chip = shop.take_away(card).await;
            // The next tap.
            let card = shop.lay(&chip).await;
            let (row, request) = (transaction(shop, id).await, shop.request(id).await);
            let after = shop.known(card_no).await.unwrap();
            match row.state {
                State::Committed => {
                    became[0] += 1;
                    assert_eq!((request.state, &after), (RequestState::Done, &row.after), "{what}");
                    let proof = row.fact.proof.as_ref().expect(&what);
                    assert_eq!(proof.terminal_id, hex::encode_upper(TERMINAL), "{what}");
                }
                State::Aborted => {
                    became[1] += 1;
                    assert_eq!((request.state, &after), (RequestState::Failed, &before), "{what}");
                }
                other => panic!("{what}: {other:?}"),
            }
            chip = shop.take_away(card).await;
            let fen = chip.purse().map(|(fen, ..)| i64::from(fen));
            assert_eq!(after.balance(), fen.map(Fen), "{what}: record and purse are one");
            ours.push(id);
        }
    }
    assert!(became[0] > 0 && became[1] > 0, "{became:?}");
    (chip, ours)
}

/// The card is the sum of what was told of it.
async fn adds_up(shop: &Shop, card_no: &CardNo, ours: &[Uuid]) {
    let told = shop.told().await;
    let facts: Vec<CardTransaction> = told
        .iter()
        .filter(|(kind, _)| kind == "card.transaction")
        .map(|(_, data)| serde_json::from_value(data.clone()).unwrap())
        .collect();
    let (mut fen, mut count) = (0, 0);
    for id in ours {
        let last = facts.iter().rfind(|fact| fact.transaction_id == *id).unwrap();
        assert_ne!(last.outcome, Outcome::Unknown);
        if last.outcome == Outcome::Committed {
            (fen, count) = (fen + last.amount_fen.0, count + 1);
        }
    }
    let holds: Holding = shop.known(card_no).await.unwrap();
    assert_eq!((holds.balance(), holds.counter), (Some(Fen(fen)), count));
}

#[tokio::test(flavor = "multi_thread")]
async fn money_on_a_cpu_card_is_cut_at_every_command() {
    let slot = Slot::new();
    let (shop, service) = counter_with(&slot);
    let card_no = number(1);
    let (chip, first, commands) = issued(&shop, &card_no, &blank(Sim::Cpu, 1)).await;
    assert!(commands >= 12, "{commands}");
    let kinds = [TransactionKind::Topup, TransactionKind::Spend];
    let (_, mut ours) = cut(&shop, &card_no, chip, commands, &FAULTS, &kinds).await;
    ours.push(first);
    adds_up(&shop, &card_no, &ours).await;
    assert!(shop.gateway.store.read(|r| r.open_transactions()).await.unwrap().is_empty());
    assert_eq!(slot.tries_left(), 3, "the SAM was shown nothing wrong");
    service.stop().await;
}

/// It has a copied record and no purse keys: it takes the purchase and shows the new balance. It
/// is held at once, or at its next tap where its answer was lost; nothing says that it paid.
#[tokio::test(flavor = "multi_thread")]
async fn an_imitation_does_not_pay_and_is_held() {
    for lost in [false, true] {
        let slot = Slot::new();
        let (shop, service) = counter_with(&slot);
        let card_no = number(1);
        let (mut chip, _, commands) = issued(&shop, &card_no, &blank(Sim::Cpu, 1)).await;
        chip.imitate();
        let card = shop.lay(&chip).await;
        if lost {
            card.fault_after(commands - 1, CardFault::Pull);
        }
        let id = shop.deal(&card_no, TransactionKind::Spend, 700).await;
        assert_eq!(at_rest(&shop, id).await, State::Unknown, "lost {lost}");
        if !lost {
            assert_eq!(held(&shop, &card_no).await.as_deref(), Some("imitation"));
        }
        let chip = shop.take_away(card).await;
        for _ in 0..2 {
            let card = shop.lay(&chip).await;
            assert_eq!(held(&shop, &card_no).await.as_deref(), Some("imitation"), "lost {lost}");
            assert_eq!(transaction(&shop, id).await.state, State::Unknown, "lost {lost}");
            let next = shop.deal(&card_no, TransactionKind::Spend, 1).await;
            let row = shop.answered(next).await;
            assert_eq!(row.outcome.unwrap()["code"], "card-held", "lost {lost}");
            shop.take_away(card).await;
        }
        let told = shop.told().await;
        let alarms = told.iter().filter(|(_, data)| data["held"] == "imitation").count();
        assert_eq!(alarms, 1, "lost {lost}: {told:?}");
        let mut sales = told.iter().filter(|(_, data)| data["amount_fen"] == -700);
        assert!(sales.all(|(_, data)| data["outcome"] == "unknown"), "lost {lost}: {told:?}");
        service.stop().await;
    }
}

/// Its answer to a confirmation was lost, so that one more wrong one could lock it: the next card is
/// refused before anything stands in the journal, and is not even asked.
#[tokio::test(flavor = "multi_thread")]
async fn a_sam_that_is_spared_is_not_asked() {
    let slot = Slot::new();
    let (shop, service) = counter_with(&slot);
    let card_no = number(1);
    let (chip, ..) = issued(&shop, &card_no, &blank(Sim::Cpu, 1)).await;
    let card = shop.lay(&chip).await;
    slot.1.store(true, Ordering::Relaxed);
    let lost = shop.deal(&card_no, TransactionKind::Spend, 700).await;
    assert_eq!(at_rest(&shop, lost).await, State::Parked);
    slot.1.store(false, Ordering::Relaxed);
    let asked = card.apdus().len();
    let next = shop.deal(&card_no, TransactionKind::Spend, 300).await;
    let row = shop.answered(next).await;
    assert_eq!((row.state, &row.outcome.unwrap()["code"]), (RequestState::Failed, &"key-missing".into()));
    assert_eq!(shop.gateway.store.read(move |r| r.transaction_state(next)).await.unwrap(), None);
    let since = card.apdus().split_off(asked);
    assert!(!since.iter().any(|apdu| apdu.starts_with(&[0x80, 0x50])), "{since:02X?}");
    shop.take_away(card).await;
    service.stop().await;
}

/// The reader's service and everything else run on one thread here: it is not the one that waits.
#[tokio::test]
async fn a_slow_sam_holds_no_other_task_up() {
    let (asked, is_asked) = mpsc::channel();
    let (word, waits) = mpsc::channel();
    let slow = Mutex::new(Some(Slow(Slot::new(), asked, waits)));
    let open = move || -> Result<Box<dyn PurseKeys>, KeyError> {
        let slow = slow.lock().unwrap().take().ok_or(KeyError::NoTerminal)?;
        Ok(Box::new(Psam::open(slow, [0x10, 0x01])?))
    };
    let shop = Shop { gateway: Gateway::new(), port: free_port() };
    let purse = till(Box::new(open)).with_headquarters(Arc::new(Hq));
    let service = shop.gateway.serve_members(vpcd_table("counter-1", shop.port), with_purse(Some(purse)));
    let card_no = number(1);
    let (chip, ..) = issued(&shop, &card_no, &blank(Sim::Cpu, 1)).await;
    let card = shop.lay(&chip).await;
    let sale = shop.deal(&card_no, TransactionKind::Spend, 100).await;
    while is_asked.try_recv().is_err() {
        tokio::task::yield_now().await;
    }
    assert_eq!(shop.request(sale).await.state, RequestState::Running);
    word.send(()).unwrap();
    let row = shop.answered(sale).await;
    assert_eq!(row.state, RequestState::Done, "{:?}", row.outcome);
    shop.take_away(card).await;
    service.stop().await;
}

/// With neither line nor SAM: refused before anything is written.
#[tokio::test(flavor = "multi_thread")]
async fn without_headquarters_or_a_sam_nothing_is_written() {
    let slot = Slot::new();
    let (shop, service) = counter_with(&slot);
    let card_no = number(1);
    let (chip, ..) = issued(&shop, &card_no, &blank(Sim::Cpu, 1)).await;
    service.stop().await;
    for (purse, kind, code) in [
        (Some(till(slot.opener())), TransactionKind::Topup, "needs-headquarters"),
        (None, TransactionKind::Topup, "needs-headquarters"),
        (None, TransactionKind::Spend, "key-missing"),
    ] {
        let service = shop.gateway.serve_members(vpcd_table("counter-1", shop.port), with_purse(purse));
        let card = shop.lay(&chip).await;
        let id = shop.deal(&card_no, kind, 100).await;
        let row = shop.answered(id).await;
        assert_eq!((row.state, &row.outcome.unwrap()["code"]), (RequestState::Failed, &code.into()));
        assert_eq!(shop.gateway.store.read(move |r| r.transaction_state(id)).await.unwrap(), None);
        assert_eq!(card.writes(), 0, "{kind:?} {code}");
        shop.take_away(card).await;
        service.stop().await;
    }
}

/// The real pcscd: the card on its first slot, the SAM in its second, which its table means by name
/// and the reader's own fits as well. A top-up with a line to headquarters; without it refused; a sale, and
/// one cut at each of its commands.
#[tokio::test(flavor = "multi_thread")]
async fn a_sale_through_the_real_pcscd_with_a_sam_in_a_slot() {
    let Some(pcscd) = Pcscd::start() else { return };
    let sam = Chip::sam(SimulatedPsam::new(PURCHASE, 1, TERMINAL));
    let sam = CardSim::present(("127.0.0.1", pcscd.port + 1), sam).await.unwrap();
    let shop = Shop { gateway: Gateway::new(), port: pcscd.port };
    let (any, slot) = ("Virtual PCD*", "Virtual PCD 00 01");
    let globs = ReaderGlobs { sams: vec![slot.into()], cards: vec![any.into()] };
    let table = || ReaderTable { globs: globs.clone(), ..pcsc_table("counter-1", any) };
    let opener = || -> Box<Opener> {
        let globs = globs.clone();
        Box::new(move || open_sam(slot, &globs, [0x10, 0x01]))
    };
    let purse = till(opener()).with_headquarters(Arc::new(Hq));
    let service = shop.gateway.serve_members(table(), with_purse(Some(purse)));
    let card_no = number(1);
    let (chip, first, _) = issued(&shop, &card_no, &blank(Sim::Cpu, 1)).await;
    service.stop().await;

    let service = shop.gateway.serve_members(table(), with_purse(Some(till(opener()))));
    let card = shop.lay(&chip).await;
    let topup = shop.deal(&card_no, TransactionKind::Topup, 100).await;
    assert_eq!(shop.answered(topup).await.outcome.unwrap()["code"], "needs-headquarters");
    let begun = card.apdus().len();
    let sale = shop.deal(&card_no, TransactionKind::Spend, 1_234).await;
    let row = shop.answered(sale).await;
    assert_eq!(row.state, RequestState::Done, "{:?}", row.outcome);
    let commands = card.apdus().len() - begun;
    let asked_as_sam = card.apdus().into_iter().any(|apdu| apdu.starts_with(&[0x00, 0xB0, 0x96]));
    assert!(!asked_as_sam, "the member's card was not taken for the SAM");
    let told = shop.gateway.told().await;
    let refused =
        told.iter().filter(|(kind, data)| kind == "card.refused" && data["reason"] != "unformatted");
    assert_eq!(refused.count(), 0, "the SAM is no card: {told:?}");
    let fact = transaction(&shop, sale).await.fact;
    let proof = fact.proof.unwrap();
    assert_eq!((fact.outcome, proof.terminal_sequence, proof.tac.len()), (Outcome::Committed, 1, 8));
    let chip = shop.take_away(card).await;
    assert_eq!(chip.purse(), Some((3_766, 1, 1)));
    let kinds = [TransactionKind::Spend];
    let (_, mut ours) = cut(&shop, &card_no, chip, commands, &[CardFault::Pull], &kinds).await;
    ours.extend([first, sale]);
    adds_up(&shop, &card_no, &ours).await;
    assert_eq!(sam.chip().sam_state().unwrap().1, 3, "the SAM was shown nothing wrong");
    service.stop().await;
}
