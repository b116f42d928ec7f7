//! A card takes the place of another.

use baygate::card::counter::Deal;
use baygate::clock::UtcMillis;
use baygate::event::card::Technology;
use baygate::event::ledger::{CardStanding, CardType, TransactionKind};
use baygate::ident::CardNo;
use baygate::money::{Fen, Holding};
use baygate::sim::card::{CardFault, Technology as Sim};
use baygate::store::card_pins::{CardPinOp, PinDeed};
use baygate::store::hotlist::HotlistOp;
use baygate::store::ledger::State;
use baygate::store::operators::PinHash;
use baygate::store::requests::RequestState;
use baygate::store::{Batch, Op};
use serde_json::json;

use crate::counter::Running;
use crate::cut_shop::{self, Shop, deal, number, shop};
use crate::cuts::{Cuts, ask, cut, every, issued, refused, replace, stands, state, whole};

/// A balance goes from card to card: each takes the place of the one before.
pub(crate) async fn replacements_are_cut((shop, service): (Shop, Running), cuts: Cuts) {
    let old = issued(&shop, cuts.sim, 1, CardType::Named, 5_000).await;
    let fresh = issued(&shop, cuts.sim, 2, CardType::Named, 0).await;
    let (_, commands, _) = whole(&shop, &fresh, replace(&number(1), &number(2))).await;
    // The old one comes back: refused, nothing written, nobody alarmed.
    let card = shop.lay(&old).await;
    refused(&shop, &card, deal(&number(1), TransactionKind::Earn), "replaced").await;
    shop.take_away(card).await;
    assert_eq!(stands(&shop, &number(1)).await, CardStanding::Replaced);
    assert_eq!(shop.known(&number(1)).await.unwrap().balance(), Some(Fen(0)));
    let mut n = 2;
    let mut aborted = 0;
    for (at, fault) in every(commands, cuts) {
        let what = format!("{fault:?} at {at}");
        let (old, new) = (number(n), number(n + 1));
        n += 1;
        let fresh = issued(&shop, cuts.sim, n, CardType::Named, 0).await;
        let (mut fresh, committed, _) = cut(&shop, &fresh, at, fault, replace(&old, &new)).await;
        // Dead since the intent, and what it held is on its way, or there.
        assert_eq!(stands(&shop, &old).await, CardStanding::Replaced, "{what}");
        let due = shop.gateway.store.read(|r| r.transfers_due()).await.unwrap().len();
        assert_eq!(due, usize::from(!committed), "{what}");
        if !committed {
            aborted += 1;
            assert_eq!(shop.known(&new).await, Some(Holding::default()), "{what}");
            fresh = whole(&shop, &fresh, replace(&old, &new)).await.0;
        }
        let holds = shop.known(&new).await.unwrap();
        assert_eq!((holds.balance(), holds.counter), (Some(Fen(5_000)), 1), "{what}");
        // Once is once.
        let card = shop.lay(&fresh).await;
        let id = ask(&shop, replace(&old, &new)).await;
        assert_eq!(shop.answered(id).await.state, RequestState::Failed, "{what}");
        shop.take_away(card).await;
    }
    assert!(aborted > 0 && aborted < n, "{aborted} of {n}");
    let told = shop.told().await;
    let replaced = told.iter().filter(|(kind, data)| kind == "card.status" && data["status"] == "replaced");
    assert!(replaced.clone().all(|(_, data)| data["operator"] == "li" && data["reason"] == "lost"));
    assert_eq!(replaced.count(), n - 1);
    let held = told.iter().filter(|(_, data)| data.get("held").is_some()).count();
    assert_eq!(held, 0);
    service.stop().await;
}

/// The card that takes a lost one's place breaks while it is written, with or without the balance
/// on it: replaced in its turn it is dead, and the next one has all of it, once, with the PIN.
#[tokio::test(flavor = "multi_thread")]
async fn a_new_card_that_breaks_is_replaced_in_turn() {
    let (shop, service) = shop();
    issued(&shop, Sim::Ntag215, 1, CardType::Named, 5_000).await;
    let fresh = issued(&shop, Sim::Ntag215, 2, CardType::Named, 0).await;
    let (_, commands, _) = whole(&shop, &fresh, replace(&number(1), &number(2))).await;
    let store = &shop.gateway.store;
    let pin = async |card_no: &CardNo| {
        let card_no = card_no.clone();
        store.read(move |r| r.card_pin(&card_no)).await.unwrap().map(|pin| pin.wrong)
    };
    let mut ends = [0; 2];
    for (n, at) in [1, commands / 2, commands - 1].into_iter().enumerate() {
        let [old, broken, next, third] = [10, 11, 12, 13].map(|card| number(10 * n + card));
        issued(&shop, Sim::Ntag215, 10 * n + 10, CardType::Named, 5_000).await;
        for deed in [PinDeed::Set(PinHash("h".into())), PinDeed::Try] {
            let op = CardPinOp { card_no: old.clone(), deed };
            store.commit(Batch::new().op(Op::CardPin(op))).await.unwrap();
        }
        let chip = issued(&shop, Sim::Ntag215, 10 * n + 11, CardType::Named, 0).await;
        let card = shop.lay(&chip).await;
        card.fault_after(at, CardFault::Pull);
        let cut = ask(&shop, replace(&old, &broken)).await;
        shop.answered(cut).await;
        let chip = shop.take_away(card).await;
        let open = state(&shop, cut).await == Some(State::Unknown);
        ends[usize::from(open)] += 1;
        let day = {
            let of = old.clone();
            store
                .read(move |r| Ok(r.transactions_of(&of, None, 1)?.pop().unwrap().business_day))
                .await
                .unwrap()
        };
        let of = old.clone();
        let spent = store.read(move |r| r.offline_spent(&day, Technology::Ntag215, &of)).await.unwrap();
        assert_eq!(spent, (0, 0), "what moves is not spent");
        assert_eq!(pin(&old).await, Some(1), "until it has arrived");

        let fresh = issued(&shop, Sim::Ntag215, 10 * n + 12, CardType::Named, 0).await;
        whole(&shop, &fresh, replace(&broken, &next)).await;
        assert_eq!(
            (state(&shop, cut).await, shop.request(cut).await.state),
            (Some(State::Aborted), RequestState::Failed)
        );
        assert_eq!(shop.known(&next).await.unwrap().balance(), Some(Fen(5_000)), "cut at {at}");
        assert_eq!(stands(&shop, &broken).await, CardStanding::Replaced);
        assert!(store.read(|r| r.transfers_due()).await.unwrap().is_empty());
        assert_eq!((pin(&old).await, pin(&broken).await, pin(&next).await), (None, None, Some(1)));
        let fresh = issued(&shop, Sim::Ntag215, 10 * n + 13, CardType::Named, 0).await;
        let card = shop.lay(&fresh).await;
        refused(&shop, &card, replace(&old, &third), "card-replaced").await;
        refused(&shop, &card, replace(&broken, &third), "card-replaced").await;
        shop.take_away(card).await;
        let card = shop.lay(&chip).await;
        refused(&shop, &card, deal(&broken, TransactionKind::Earn), "replaced").await;
        shop.take_away(card).await;
    }
    assert!(ends.iter().all(|count| *count > 0), "{ends:?}");
    service.stop().await;
}

/// Headquarters lists a card as soon as it hears of its replacement, which was cut: what left the old
/// card still arrives on the new one. Of a card that has given nothing yet nothing is taken.
#[tokio::test(flavor = "multi_thread")]
async fn a_replacement_that_was_cut_is_finished_though_the_old_card_is_listed() {
    let (shop, service) = shop();
    for n in [1, 3] {
        issued(&shop, Sim::Ntag215, n, CardType::Named, 5_000).await;
    }
    let fresh = issued(&shop, Sim::Ntag215, 2, CardType::Named, 0).await;
    let (fresh, committed, _) = cut(&shop, &fresh, 1, CardFault::Pull, replace(&number(1), &number(2))).await;
    assert!(!committed && stands(&shop, &number(1)).await == CardStanding::Replaced);
    let cards = [1, 3].map(number).to_vec();
    let list = HotlistOp::Put { version: 1, as_of: UtcMillis::now(), cards };
    shop.gateway.store.commit(Batch::new().op(Op::Hotlist(list))).await.unwrap();
    let card = shop.lay(&fresh).await;
    refused(&shop, &card, replace(&number(3), &number(2)), "card-hotlisted").await;
    let fresh = shop.take_away(card).await;
    whole(&shop, &fresh, replace(&number(1), &number(2))).await;
    assert_eq!(shop.known(&number(2)).await.unwrap().balance(), Some(Fen(5_000)));
    service.stop().await;
}

/// A card that was replaced here was spent elsewhere afterwards: refused, held, and told.
#[tokio::test(flavor = "multi_thread")]
async fn a_replaced_card_that_was_used_elsewhere_is_an_alarm() {
    let (shop, service) = shop();
    let (elsewhere, other) = cut_shop::shop();
    let old = issued(&shop, Sim::Ntag215, 1, CardType::Named, 5_000).await;
    let fresh = issued(&shop, Sim::Ntag215, 2, CardType::Named, 0).await;
    whole(&shop, &fresh, replace(&number(1), &number(2))).await;
    // Down to nothing, as the giving half left it here.
    let spend = Deal { amount_fen: Some(Fen(5_000)), ..deal(&number(1), TransactionKind::Spend) };
    let (old, ..) = whole(&elsewhere, &old, spend).await;
    let card = shop.lay(&old).await;
    refused(&shop, &card, deal(&number(1), TransactionKind::Earn), "replaced").await;
    shop.take_away(card).await;
    let row = shop.gateway.store.read(|r| r.member_card(&number(1))).await.unwrap().unwrap();
    assert_eq!((row.status, row.held.as_deref()), (CardStanding::Replaced, Some("used-after-its-end")));
    let told = shop.told().await;
    let alarms: Vec<_> = told.iter().filter(|(_, data)| data["held"] == "used-after-its-end").collect();
    assert_eq!((alarms.len(), &alarms[0].1["counter_seen"]), (1, &json!(2)));
    service.stop().await;
    other.stop().await;
}
