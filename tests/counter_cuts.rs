//! Cut at every command: a card is issued, topped up and charged through the reader's service,
//! and each command in turn is lost, half done, or answered with an error. Then the card is
//! tapped again: it holds the old or the new, the journal says which, and the sum is right to
//! the fen.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "support/counter.rs"]
mod counter;
mod cut_shop;
#[path = "support/pcscd.rs"]
mod pcscd;
#[path = "support/port.rs"]
mod port;

use std::sync::Arc;

use baygate::card::counter::{GaveUp, PREPARE, give_up};
use baygate::card::keys::sealed::SealedKeys;
use baygate::card::keys::{KeyVersion, Purpose};
use baygate::card::member::{MemberPolicy, Members};
use baygate::event::ledger::{CardTransaction, Outcome, TransactionKind};
use baygate::money::{Fen, Holding};
use baygate::sim::card::{CardFault, CardSim, Technology as Sim};
use baygate::store::ledger::State;
use baygate::store::requests::RequestState;
use counter::{Gateway, pcsc_table, vpcd_table};
use cut_shop::{FAULTS, STORE, Shop, blank, by, members, number, shop};
use pcscd::Pcscd;
use tokio::task::JoinSet;
use zeroize::Zeroizing;

/// Every command of a top-up and of a sale, in turn, on one card that goes on living.
async fn money_is_cut(
    (shop, service): (Shop, counter::Running),
    sim: Sim,
    faults: &'static [CardFault],
    step: usize,
) {
    let card_no = number(1);
    let card = shop.lay(&blank(sim, 1)).await;
    let issue = shop.issue(&card_no).await;
    let row = shop.answered(issue).await;
    assert_eq!(row.state, RequestState::Done, "{:?}", row.outcome);
    let begun = card.apdus().len();
    let first = shop.deal(&card_no, TransactionKind::Topup, 5_000).await;
    assert_eq!(shop.answered(first).await.state, RequestState::Done);
    let commands = card.apdus().len() - begun;
    assert!(commands >= 8, "{commands}");
    let mut chip = shop.take_away(card).await;
    let mut ours = vec![first];
    let mut became = [0; 2];
    for at in (0..commands).filter(|at| at % step == 0 || at + 1 == commands) {
        for (n, fault) in faults.iter().copied().enumerate() {
            let kind = if (at + n) % 2 == 0 { TransactionKind::Topup } else { TransactionKind::Spend };
            let what = format!("{sim:?} {kind:?} {fault:?} at command {at}");
            let card = shop.lay(&chip).await;
            let before = shop.known(&card_no).await.unwrap();
            card.fault_after(at, fault);
            let id = shop.deal(&card_no, kind, 7).await;
            shop.answered(id).await;
            chip = shop.take_away(card).await;
            // The next tap.
            let card = shop.lay(&chip).await;
            let (row, request) = (
                shop.gateway.store.read(move |r| r.transaction(id)).await.unwrap().unwrap(),
                shop.request(id).await,
            );
            let after = shop.known(&card_no).await.unwrap();
            match row.state {
                State::Committed => {
                    became[0] += 1;
                    assert_eq!((request.state, &after), (RequestState::Done, &row.after), "{what}");
                }
                State::Aborted => {
                    became[1] += 1;
                    assert_eq!((request.state, &after), (RequestState::Failed, &before), "{what}");
                }
                other => panic!("{what}: {other:?}"),
            }
            ours.push(id);
            chip = shop.take_away(card).await;
        }
    }
    assert!(became[0] > 0 && became[1] > 10 / step, "{became:?}");
    // The card is the sum of what was told of it.
    let told = shop.told().await;
    let facts: Vec<CardTransaction> = told
        .iter()
        .filter(|(kind, _)| kind == "card.transaction")
        .map(|(_, data)| serde_json::from_value(data.clone()).unwrap())
        .collect();
    let (mut fen, mut count) = (0, 0);
    for id in &ours {
        let last = facts.iter().rfind(|fact| fact.transaction_id == *id).unwrap();
        assert_ne!(last.outcome, Outcome::Unknown);
        if last.outcome == Outcome::Committed {
            (fen, count) = (fen + last.amount_fen.0, count + 1);
        }
    }
    let holds = shop.known(&card_no).await.unwrap();
    assert_eq!((holds.balance(), holds.counter), (Some(Fen(fen)), count));
    assert!(shop.gateway.store.read(|r| r.open_transactions()).await.unwrap().is_empty());
    service.stop().await;
}

/// All at once: what takes its time is the disk, which syncs for all of them.
#[tokio::test(flavor = "multi_thread")]
async fn money_is_cut_at_every_command() {
    let mut all = JoinSet::new();
    for sim in [
        Sim::Ntag215,
        Sim::Ntag216,
        Sim::Classic1k,
        Sim::Classic4k,
        Sim::Desfire,
        Sim::DesfireEv1,
        Sim::Ntag424,
        Sim::Sle4442,
        Sim::UltralightEv1Large,
        Sim::UltralightC,
    ] {
        all.spawn(money_is_cut(shop(), sim, &FAULTS, 1));
    }
    all.join_all().await;
}

/// The same through the real pcscd, at every fifth command: there a card that leaves takes its time.
#[tokio::test(flavor = "multi_thread")]
async fn money_through_the_real_pcscd_is_cut() {
    let Some(pcscd) = Pcscd::start() else { return };
    let shop = Shop { gateway: Gateway::new(), port: pcscd.port };
    let table = pcsc_table("counter-1", "Virtual PCD 00 00");
    let service = shop.gateway.serve_members(table, Some(members()));
    money_is_cut((shop, service), Sim::Classic1k, &[CardFault::Pull, CardFault::Status(0x6300)], 5).await;
}

/// Every command of an issue, in turn, each on a card of its own; what was cut is issued again.
async fn issue_is_cut(sim: Sim) {
    let (shop, service) = shop();
    let card = shop.lay(&blank(sim, 0)).await;
    let begun = card.apdus().len();
    let issue = shop.issue(&number(0)).await;
    assert_eq!(shop.answered(issue).await.state, RequestState::Done);
    let commands = card.apdus()[begun..].to_vec();
    shop.take_away(card).await;
    // The SLE4442's change of code: from the note before it to its end two codes are possible.
    let change = commands.iter().position(|command| sim == Sim::Sle4442 && command[1] == 0xD2);
    let mut n = 0;
    let mut again = 0;
    for (at, command) in commands.iter().enumerate() {
        for fault in FAULTS {
            // A trailer whose half is ones locks its sector for ever, lock bytes of ones the whole
            // chip: such a card is thrown away.
            let is_trailer = command[1] == 0xD6 && command.len() == 21 && command[3] % 4 == 3;
            let is_lock = command[1] == 0xD6 && command.len() == 9 && command[3] == 2;
            // Half a code is nobody's.
            let is_code = change == Some(at);
            let in_doubt = change.is_some_and(|change| (change - 2..=change).contains(&at));
            if fault == CardFault::PullTorn && (is_trailer || is_lock || is_code) {
                continue;
            }
            n += 1;
            let (card_no, what) = (number(n), format!("{sim:?} {fault:?} at command {at}"));
            let card = shop.lay(&blank(sim, n)).await;
            card.fault_after(at, fault);
            let id = shop.issue(&card_no).await;
            shop.answered(id).await;
            let chip = shop.take_away(card).await;
            let card = shop.lay(&chip).await;
            let request = shop.request(id).await;
            assert!(request.state.is_settled(), "{what}: {request:?}");
            if request.state == RequestState::Failed && shop.known(&card_no).await.is_none() {
                again += 1;
                let mut row = shop.answered(shop.issue(&card_no).await).await;
                // Of two codes that it can have one is tried an action.
                if in_doubt && row.state == RequestState::Failed {
                    row = shop.answered(shop.issue(&card_no).await).await;
                }
                assert_eq!(
                    row.state,
                    RequestState::Done,
                    "{what}: {:?} after {:?}",
                    row.outcome,
                    request.outcome
                );
            }
            assert_eq!(shop.known(&card_no).await, Some(Holding::default()), "{what}");
            let chip = shop.take_away(card).await;
            // It is a card like any other.
            let card = shop.lay(&chip).await;
            let topup = shop.deal(&card_no, TransactionKind::Topup, 100).await;
            let row = shop.answered(topup).await;
            assert_eq!(row.state, RequestState::Done, "{what}: {:?}", row.outcome);
            shop.take_away(card).await;
        }
    }
    assert!(again > 30, "{again}");
    let told = shop.told().await;
    let mut issued: Vec<&str> = told
        .iter()
        .filter(|(kind, _)| kind == "card.issued")
        .map(|(_, data)| data["card_no"].as_str().unwrap())
        .collect();
    assert_eq!(issued.len(), n + 1);
    issued.sort_unstable();
    issued.dedup();
    assert_eq!(issued.len(), n + 1, "each card is given out once");
    assert!(shop.gateway.store.read(|r| r.open_requests(PREPARE, None)).await.unwrap().is_empty());
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_issue_is_cut_at_every_command() {
    let mut all = JoinSet::new();
    for sim in [
        Sim::Ntag215,
        Sim::Classic1k,
        Sim::Desfire,
        Sim::DesfireEv1,
        Sim::Ntag424,
        Sim::Sle4442,
        Sim::UltralightEv1Large,
        Sim::UltralightC,
    ] {
        all.spawn(issue_is_cut(sim));
    }
    all.join_all().await;
}

/// A card that was written whole and left before it was proven: what cannot read it says nothing
/// against it, and the number is not given to another card.
#[tokio::test(flavor = "multi_thread")]
async fn an_issue_waits_for_a_tap_that_can_tell() {
    let (shop, service) = shop();
    let card = shop.lay(&blank(Sim::Ntag215, 0)).await;
    let begun = card.apdus().len();
    let issue = shop.issue(&number(0)).await;
    assert_eq!(shop.answered(issue).await.state, RequestState::Done);
    let commands = card.apdus().len() - begun;
    shop.take_away(card).await;
    let card = shop.lay(&blank(Sim::Ntag215, 1)).await;
    card.fault_after(commands - 1, CardFault::Pull);
    let card_no = number(1);
    let issue = shop.issue(&card_no).await;
    assert_eq!(shop.answered(issue).await.state, RequestState::Running);
    let mut chip = shop.take_away(card).await;
    service.stop().await;

    // Without any keys, and without those of its version.
    let masters = Purpose::ALL.map(|purpose| ((KeyVersion(2), purpose), Zeroizing::new([7; 16])));
    let keys = SealedKeys::new(STORE.parse().unwrap(), KeyVersion(2), masters.into_iter().collect());
    let policy = MemberPolicy::of(STORE.parse().unwrap(), &["own"], jiff::tz::TimeZone::UTC);
    let newer = Members { keys: Arc::new(keys), layouts: members().layouts.clone(), policy };
    for (members, reason) in [(None, None), (Some(Arc::new(newer)), Some("key-missing"))] {
        let may_issue = members.is_some();
        let service = shop.gateway.serve_members(vpcd_table("counter-1", shop.port), members);
        let card = shop.lay(&chip).await;
        let told = shop.gateway.told().await;
        assert_eq!(told.last().unwrap().1["reason"].as_str(), reason);
        assert_eq!(shop.request(issue).await.state, RequestState::Running, "{reason:?}");
        if may_issue {
            let over = shop.issue(&number(2)).await;
            assert_eq!(shop.answered(over).await.state, RequestState::Failed);
            assert_eq!(card.writes(), 0, "nothing is written over it");
        }
        chip = shop.take_away(card).await;
        service.stop().await;
    }
    let service = shop.gateway.serve_members(vpcd_table("counter-1", shop.port), Some(members()));
    let card = shop.lay(&chip).await;
    assert_eq!(shop.request(issue).await.state, RequestState::Done);
    assert_eq!(shop.known(&card_no).await, Some(Holding::default()));
    shop.take_away(card).await;
    service.stop().await;
}

/// Where the last write of a log of commands is.
fn last_write(apdus: &[Vec<u8>]) -> usize {
    apdus.iter().rposition(|apdu| apdu[..2] == [0xFF, 0xD6]).unwrap()
}

/// Where the header of an NTAG is read first.
fn header_read(apdus: &[Vec<u8>]) -> usize {
    apdus.iter().position(|apdu| *apdu == [0xFF, 0xB0, 0, 4, 16]).unwrap()
}

/// A card that was written whole: one reading of its header that fails, behind the write or at its
/// next tap, does not make it an unfinished one.
#[tokio::test]
async fn a_whole_card_is_not_judged_by_one_reading() {
    let (shop, service) = shop();
    let card = shop.lay(&blank(Sim::Ntag215, 0)).await;
    let begun = card.apdus().len();
    let issue = shop.issue(&number(0)).await;
    assert_eq!(shop.answered(issue).await.state, RequestState::Done);
    let issued = card.apdus()[begun..].to_vec();
    shop.take_away(card).await;
    let proof = last_write(&issued) + 1;
    let mut n = 0;
    for fault in [CardFault::Status(0x6300), CardFault::Garbage] {
        n += 1;
        let card = shop.lay(&blank(Sim::Ntag215, n)).await;
        card.fault_after(proof + header_read(&issued[proof..]), fault);
        let issue = shop.issue(&number(n)).await;
        let row = shop.answered(issue).await;
        assert_eq!(row.state, RequestState::Done, "{fault:?}: {:?}", row.outcome);
        shop.take_away(card).await;

        n += 1;
        let card = shop.lay(&blank(Sim::Ntag215, n)).await;
        let at_tap = header_read(&card.apdus());
        card.fault_after(proof - 1, CardFault::Pull);
        let issue = shop.issue(&number(n)).await;
        assert_eq!(shop.answered(issue).await.state, RequestState::Running);
        let mut chip = shop.take_away(card).await;
        chip.reset();
        let card = CardSim::present(("127.0.0.1", shop.port), chip).await.unwrap();
        // Nothing else ran since: one thread.
        card.fault_after(at_tap, fault);
        let tapped = shop
            .until("the tap", move |r| {
                let there = !r.cards_in_field().unwrap().is_empty();
                there.then(|| r.request(issue).unwrap().unwrap())
            })
            .await;
        assert_eq!(tapped.state, RequestState::Done, "{fault:?}: {:?}", tapped.outcome);
        assert_eq!(shop.known(&number(n)).await, Some(Holding::default()), "{fault:?}");
        assert_eq!(shop.gateway.told().await.last().unwrap().0, "card.tapped", "{fault:?}");
        shop.take_away(card).await;
    }
    service.stop().await;
}

/// Given up while nobody knew: a number that may stand on that chip goes to no other, and the chip
/// that comes back whole is what it was to be.
#[tokio::test(flavor = "multi_thread")]
async fn a_card_that_was_given_up_comes_back_whole() {
    let (shop, service) = shop();
    let card = shop.lay(&blank(Sim::Ntag215, 0)).await;
    let begun = card.apdus().len();
    let issue = shop.issue(&number(0)).await;
    assert_eq!(shop.answered(issue).await.state, RequestState::Done);
    let writes = last_write(&card.apdus()[begun..]);
    shop.take_away(card).await;

    let card = shop.lay(&blank(Sim::Ntag215, 1)).await;
    card.slow(std::time::Duration::from_millis(5));
    card.fault_after(writes, CardFault::Pull);
    let issue = shop.issue(&number(1)).await;
    while card.writes() == 0 {
        tokio::task::yield_now().await;
    }
    let store = &shop.gateway.store;
    assert_eq!(give_up(store, issue, &by()).await.unwrap(), GaveUp::InHand, "somebody writes it");
    assert_eq!(shop.answered(issue).await.state, RequestState::Running);
    let chip = shop.take_away(card).await;
    assert_eq!(give_up(store, issue, &by()).await.unwrap(), GaveUp::Over);
    let row = shop.request(issue).await;
    assert_eq!((row.state, &row.outcome.unwrap()["code"]), (RequestState::Failed, &"issue-given-up".into()));

    let card = shop.lay(&blank(Sim::Ntag215, 2)).await;
    let other = shop.issue(&number(1)).await;
    assert_eq!(shop.answered(other).await.outcome.unwrap()["code"], "card-no-in-use");
    assert_eq!(card.writes(), 0);
    // One that nobody has begun ends without a trace.
    shop.take_away(card).await;
    let waits = shop.issue(&number(3)).await;
    assert_eq!(give_up(store, waits, &by()).await.unwrap(), GaveUp::Over);
    assert_eq!(shop.request(waits).await.outcome.unwrap()["code"], "cancelled");

    let card = shop.lay(&chip).await;
    assert_eq!(shop.known(&number(1)).await, Some(Holding::default()));
    assert_eq!(card.writes(), 0);
    shop.take_away(card).await;
    let issued = shop.told().await.into_iter().filter(|(kind, _)| kind == "card.issued").count();
    assert_eq!(issued, 2);
    assert!(shop.gateway.store.read(|r| r.open_requests(PREPARE, None)).await.unwrap().is_empty());
    service.stop().await;
}
