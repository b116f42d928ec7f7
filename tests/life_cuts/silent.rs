//! A card that lies there and says nothing any more: the driver's limit ends the wait, and the next
//! tap tells the old or the new. One silence a phase, all technologies at once: each takes seconds.

use baygate::card::counter::Deal;
use baygate::event::ledger::{CardType, TransactionKind};
use baygate::money::{Fen, Holding};
use baygate::sim::card::{CardFault, CardSim, Technology as Sim};
use baygate::store::requests::RequestState;
use tokio::task::JoinSet;

use crate::counter::Running;
use crate::cut_shop::{Shop, blank, deal, number, shop};
use crate::cuts::{ask, cut, issued, real};

/// The writes of a conversation, and how many commands it has.
struct Talk {
    writes: Vec<usize>,
    commands: usize,
}

impl Talk {
    /// Silent before the first write, in the middle of them, behind the last, and at the end.
    fn phases(&self) -> [(usize, CardFault); 4] {
        let (first, last) = (self.writes[0], *self.writes.last().unwrap());
        let middle = self.writes[self.writes.len() / 2];
        [
            (first, CardFault::MuteUnheard),
            (middle, CardFault::MuteUnheard),
            (last, CardFault::Mute),
            (self.commands - 1, CardFault::Mute),
        ]
    }
}

/// What was said to a card since `begun`.
fn talk(card: &CardSim, begun: usize) -> Talk {
    let writes = card.writes_at().into_iter().filter_map(|at| at.checked_sub(begun)).collect();
    Talk { writes, commands: card.apdus().len() - begun }
}

/// A sale.
async fn money_falls_silent(shop: &Shop, sim: Sim, phases: usize) {
    let card_no = number(1);
    let chip = issued(shop, sim, 1, CardType::Named, 5_000).await;
    let card = shop.lay(&chip).await;
    let begun = card.apdus().len();
    let sale = || Deal { amount_fen: Some(Fen(7)), ..deal(&card_no, TransactionKind::Spend) };
    let id = ask(shop, sale()).await;
    assert_eq!(shop.answered(id).await.state, RequestState::Done);
    let talk = talk(&card, begun);
    let mut chip = shop.take_away(card).await;
    let mut became = [0; 2];
    for (at, fault) in talk.phases().into_iter().rev().take(phases) {
        let what = format!("{sim:?} {fault:?} at {at} of {}", talk.commands);
        let before = shop.known(&card_no).await.unwrap();
        let (after, committed, id) = cut(shop, &chip, at, fault, sale()).await;
        chip = after;
        became[usize::from(committed)] += 1;
        let row = shop.gateway.store.read(move |r| r.transaction(id)).await.unwrap().unwrap();
        let expected = if committed { row.after } else { before };
        assert_eq!(shop.known(&card_no).await, Some(expected), "{what}");
    }
    let sum = 5_000 - 7 * (1 + became[1]);
    let holds = shop.known(&card_no).await.unwrap();
    assert_eq!(holds.balance(), Some(Fen(sum)), "{sim:?}");
    assert!(became[1] > 0 && (phases < 4 || became[0] > 0), "{sim:?} {became:?}");
    assert!(shop.gateway.store.read(|r| r.open_transactions()).await.unwrap().is_empty());
}

/// A card that is given out.
async fn an_issue_falls_silent(shop: &Shop, sim: Sim) {
    let card = shop.lay(&blank(sim, 2)).await;
    let begun = card.apdus().len();
    let issue = shop.issue(&number(2)).await;
    assert_eq!(shop.answered(issue).await.state, RequestState::Done, "{sim:?}");
    let talk = talk(&card, begun);
    shop.take_away(card).await;
    for (n, (at, fault)) in (3..).zip(talk.phases()) {
        let (card_no, what) = (number(n), format!("{sim:?} {fault:?} at {at} of {}", talk.commands));
        let card = shop.lay(&blank(sim, n)).await;
        card.fault_after(at, fault);
        let issue = shop.issue(&card_no).await;
        shop.answered(issue).await;
        let chip = shop.take_away(card).await;
        let card = shop.lay(&chip).await;
        let row = shop.request(issue).await;
        assert!(row.state.is_settled(), "{what}: {row:?}");
        if shop.known(&card_no).await.is_none() {
            assert_eq!(row.state, RequestState::Failed, "{what}");
            let again = shop.answered(shop.issue(&card_no).await).await;
            assert_eq!(again.state, RequestState::Done, "{what}: {:?}", again.outcome);
        }
        assert_eq!(shop.known(&card_no).await, Some(Holding::default()), "{what}");
        shop.take_away(card).await;
    }
}

async fn falls_silent((shop, service): (Shop, Running), sim: Sim) {
    money_falls_silent(&shop, sim, 4).await;
    an_issue_falls_silent(&shop, sim).await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_card_that_falls_silent_has_the_old_or_the_new() {
    let mut all = JoinSet::new();
    for sim in [Sim::Ntag215, Sim::UltralightC, Sim::Classic1k, Sim::Desfire, Sim::Ntag424, Sim::Sle4442] {
        all.spawn(falls_silent(shop(), sim));
    }
    all.join_all().await;
}

/// The same behind the real pcscd, where the thread that waits for the card is given up.
#[tokio::test(flavor = "multi_thread")]
async fn a_card_that_falls_silent_behind_the_real_pcscd() {
    let Some((_pcscd, (shop, service))) = real() else { return };
    money_falls_silent(&shop, Sim::Classic1k, 2).await;
    service.stop().await;
}
