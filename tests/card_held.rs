//! A card that is not what it was: an old image of a real chip comes back. It is greeted by nobody,
//! written by nobody, from the tap that tells on it; the card in its owner's hand is held with it
//! until a person has compared it; nothing is released for what it is not.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "support/counter.rs"]
mod counter;
mod cut_shop;
#[path = "support/port.rs"]
mod port;

use baygate::card::counter::{Deal, Life, RELEASE, ReleaseAsked, TRANSACTION};
use baygate::event::ledger::{TenderKind, TransactionKind};
use baygate::ident::CardNo;
use baygate::money::Fen;
use baygate::sim::card::{CardFault, CardSim, Chip, Technology as Sim};
use baygate::store::ledger::State;
use baygate::store::requests::{RequestRow, RequestState};
use cut_shop::{Shop, blank, by, number, shop};
use serde_json::{Value, json};

/// A member's card with ¥50, and its image before ¥7 of them were spent.
async fn spent(shop: &Shop, sim: Sim) -> (Chip, Chip) {
    let card_no = number(1);
    let card = shop.lay(&blank(sim, 1)).await;
    for id in [shop.issue(&card_no).await, shop.deal(&card_no, TransactionKind::Topup, 5_000).await] {
        let row = shop.answered(id).await;
        assert_eq!(row.state, RequestState::Done, "{sim:?} {:?}", row.outcome);
    }
    let old = shop.take_away(card).await;
    let card = shop.lay(&old).await;
    spends(shop, 700).await;
    (shop.take_away(card).await, old)
}

async fn spends(shop: &Shop, fen: i64) {
    let row = shop.answered(shop.deal(&number(1), TransactionKind::Spend, fen).await).await;
    assert_eq!(row.state, RequestState::Done, "{:?}", row.outcome);
}

/// The last tap, as the tills were told: its type, and of a refusal the reason.
async fn greeting(shop: &Shop) -> (String, Value) {
    let told = shop.gateway.told().await;
    let is_tap = |kind: &str| matches!(kind, "card.tapped" | "card.refused");
    let (kind, data) = told.into_iter().rfind(|(kind, _)| is_tap(kind)).unwrap();
    let what = if kind == "card.refused" { data["reason"].clone() } else { data["member"].clone() };
    (kind, what)
}

/// It is refused as held, also when something is to be taken off it, and nothing was written to it.
async fn is_refused(shop: &Shop, chip: &Chip, what: &str) -> Chip {
    let card = shop.lay(chip).await;
    assert_eq!(greeting(shop).await, ("card.refused".into(), json!("held")), "{what}");
    let sale = shop.answered(shop.deal(&number(1), TransactionKind::Spend, 1).await).await;
    assert_eq!((sale.state, code(&sale)), (RequestState::Failed, "card-held".into()), "{what}");
    assert_eq!(card.writes(), 0, "{what}");
    shop.take_away(card).await
}

fn code(row: &RequestRow) -> String {
    row.outcome.as_ref().unwrap()["code"].as_str().unwrap_or_default().to_owned()
}

async fn held(shop: &Shop, card_no: &CardNo) -> Option<String> {
    let card_no = card_no.clone();
    shop.gateway.store.read(move |r| r.member_card(&card_no)).await.unwrap().unwrap().held
}

/// Asks for the release of the card on the reader, to be taken for this.
async fn release(shop: &Shop, card: &CardSim, takes: Option<&Value>) -> RequestRow {
    let asked = ReleaseAsked {
        card_no: number(1),
        takes: takes.map(|takes| serde_json::from_value(takes.clone()).unwrap()),
        reason: Some("compared".into()),
        wait_s: Some(30),
        by: by(),
    };
    let row = shop.answered(shop.ask(RELEASE, json!(asked)).await).await;
    assert_eq!(card.writes(), 0, "a release writes nothing");
    row
}

/// The `card.status` that were told: held since, and let go again.
async fn statuses(shop: &Shop) -> Vec<Value> {
    let told = shop.told().await;
    told.into_iter().filter(|(kind, _)| kind == "card.status").map(|(_, data)| data).collect()
}

async fn a_copy_comes(sim: Sim) {
    let (shop, service) = shop();
    let (real, old) = spent(&shop, sim).await;
    // The tap that tells on it, the next one, and the owner's: which is the true one?
    for (chip, what) in [(&old, "the alarm"), (&old, "again"), (&real, "the owner's card")] {
        is_refused(&shop, chip, &format!("{sim:?}: {what}")).await;
        assert_eq!(held(&shop, &number(1)).await.as_deref(), Some("counter-behind"));
    }
    // The copy lies there: it is not what is known, and stays held.
    let card = shop.lay(&old).await;
    let row = release(&shop, &card, None).await;
    let told = row.outcome.clone().unwrap();
    assert_eq!((row.state, code(&row)), (RequestState::Failed, "card-differs".into()));
    assert_eq!(
        (&told["known"]["principal_fen"], &told["shows"]["principal_fen"]),
        (&json!(4_300), &json!(5_000))
    );
    assert_eq!((&told["known"]["counter"], &told["shows"]["counter"]), (&json!(2), &json!(1)));
    shop.take_away(card).await;
    // The owner's card does: it is a member's from that moment, and pays.
    let card = shop.lay(&real).await;
    let row = release(&shop, &card, None).await;
    assert_eq!(row.state, RequestState::Done, "{:?}", row.outcome);
    assert_eq!(row.outcome.unwrap()["released"], "counter-behind");
    shop.until("its greeting", |r| {
        let told = r.latest_of(baygate::event::Class::Card, 1).unwrap();
        told.iter().any(|logged| logged.event.kind == "card.tapped").then_some(())
    })
    .await;
    let (kind, member) = greeting(&shop).await;
    assert_eq!((kind.as_str(), &member["balance_fen"]), ("card.tapped", &json!(4_300)), "{sim:?}");
    spends(&shop, 300).await;
    let real = shop.take_away(card).await;
    // Who held it and who let it go stands in the ledger.
    let told = statuses(&shop).await;
    assert_eq!(told.len(), 2, "{told:?}");
    assert_eq!((&told[0]["held"], &told[0]["operator"]), (&json!("counter-behind"), &Value::Null));
    assert_eq!((&told[1]["held"], &told[1]["operator"]), (&Value::Null, &json!("li")));
    let seen = json!([told[1]["counter_expected"], told[1]["counter_seen"], told[1]["balance_seen_fen"]]);
    assert_eq!((seen, &told[1]["reason"]), (json!([2, 2, 4_300]), &json!("compared")));
    // Used at another store it is ahead, which is normal.
    let (elsewhere, other) = cut_shop::shop();
    let card = elsewhere.lay(&real).await;
    spends(&elsewhere, 1_000).await;
    let real = elsewhere.take_away(card).await;
    let card = shop.lay(&real).await;
    let (kind, member) = greeting(&shop).await;
    assert_eq!((kind.as_str(), &member["balance_fen"]), ("card.tapped", &json!(3_000)), "{sim:?}");
    spends(&shop, 500).await;
    shop.take_away(card).await;
    assert_eq!(shop.known(&number(1)).await.unwrap().balance(), Some(Fen(2_500)));
    service.stop().await;
    other.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_of_a_ntag_is_nobodys_member() {
    a_copy_comes(Sim::Ntag215).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_of_a_desfire_is_nobodys_member() {
    a_copy_comes(Sim::Desfire).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_of_a_classic_is_nobodys_member() {
    a_copy_comes(Sim::Classic1k).await;
}

/// The card in hand is behind what was seen, and is to be taken all the same: only as the person
/// named it, to the point.
#[tokio::test(flavor = "multi_thread")]
async fn a_card_that_differs_is_taken_only_as_it_was_named() {
    let (shop, service) = shop();
    let (_, old) = spent(&shop, Sim::Ntag215).await;
    let card = shop.lay(&old).await;
    let told = release(&shop, &card, None).await.outcome.unwrap();
    let mut other = told["shows"].clone();
    other["points"] = json!(1);
    for takes in [&told["known"], &other] {
        let row = release(&shop, &card, Some(takes)).await;
        assert_eq!((row.state, code(&row)), (RequestState::Failed, "card-differs".into()), "{takes}");
    }
    assert_eq!(held(&shop, &number(1)).await.as_deref(), Some("counter-behind"));
    let row = release(&shop, &card, Some(&told["shows"])).await;
    assert_eq!(row.state, RequestState::Done, "{:?}", row.outcome);
    spends(&shop, 100).await;
    shop.take_away(card).await;
    assert_eq!(shop.known(&number(1)).await.unwrap().balance(), Some(Fen(4_900)));
    service.stop().await;
}

/// A sale was cut, and before its card came back a copy did. What was open ends with the release: as
/// the true card says, or parked where another one is taken for it.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_open_ends_with_the_release() {
    for (takes_copy, fault) in
        [(false, CardFault::Pull), (false, CardFault::PullUnheard), (true, CardFault::Pull)]
    {
        let (shop, service) = shop();
        let (real, old) = spent(&shop, Sim::Ntag215).await;
        let card = shop.lay(&real).await;
        let begun = card.apdus().len();
        spends(&shop, 10).await;
        // The write of the sale that is last: behind it the card has it, before it not.
        let last = card.apdus()[begun..].iter().rposition(|apdu| apdu[..2] == [0xFF, 0xD6]).unwrap();
        let real = shop.take_away(card).await;
        let card = shop.lay(&real).await;
        card.fault_after(last, fault);
        let sale = shop.deal(&number(1), TransactionKind::Spend, 10).await;
        let state = shop.until("it is unknown", move |r| {
            r.transaction_state(sale).unwrap().filter(|state| *state != State::Intent)
        });
        assert_eq!(state.await, State::Unknown, "{fault:?}");
        let real = shop.take_away(card).await;
        is_refused(&shop, &old, "a copy").await;
        let card = shop.lay(if takes_copy { &old } else { &real }).await;
        let takes = match takes_copy {
            true => Some(release(&shop, &card, None).await.outcome.unwrap()["shows"].clone()),
            false => None,
        };
        let row = release(&shop, &card, takes.as_ref()).await;
        assert_eq!(row.state, RequestState::Done, "{:?}", row.outcome);
        let ended = row.outcome.unwrap()["ended"].clone();
        let (state, request) = (
            shop.until("its end", move |r| r.transaction_state(sale).unwrap()).await,
            shop.request(sale).await,
        );
        let expected = match (takes_copy, fault) {
            (true, _) => (State::Parked, RequestState::Failed),
            (false, CardFault::Pull) => (State::Committed, RequestState::Done),
            (false, _) => (State::Aborted, RequestState::Failed),
        };
        assert_eq!((state, request.state), expected, "{takes_copy} {fault:?}");
        assert_eq!(ended, json!({ "transaction_id": sale, "state": state }), "{takes_copy} {fault:?}");
        spends(&shop, 1).await;
        shop.take_away(card).await;
        service.stop().await;
    }
}

/// A card was paid out and left in its last moment. Released, it is told as given back, and the
/// word after that is no other.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_given_back_is_released_as_given_back() {
    let (shop, service) = shop();
    let (real, old) = spent(&shop, Sim::Ntag215).await;
    let deal = Deal {
        life: Some(Life::Return { tender: TenderKind::Cash }),
        ..cut_shop::deal(&number(1), TransactionKind::Refund)
    };
    // How many commands it takes, from another shop's card.
    let (elsewhere, other) = cut_shop::shop();
    let card = elsewhere.lay(&real).await;
    let begun = card.apdus().len();
    let row = elsewhere.answered(elsewhere.ask(TRANSACTION, json!(deal)).await).await;
    assert_eq!(row.state, RequestState::Done, "{:?}", row.outcome);
    let last = card.apdus()[begun..].iter().rposition(|apdu| apdu[..2] == [0xFF, 0xD6]).unwrap();
    elsewhere.take_away(card).await;
    other.stop().await;

    let card = shop.lay(&real).await;
    card.fault_after(last, CardFault::Pull);
    let back = shop.ask(TRANSACTION, json!(deal)).await;
    let state = shop.until("it is unknown", move |r| {
        r.transaction_state(back).unwrap().filter(|state| *state != State::Intent)
    });
    assert_eq!(state.await, State::Unknown);
    let real = shop.take_away(card).await;
    is_refused(&shop, &old, "a copy").await;
    let card = shop.lay(&real).await;
    let row = release(&shop, &card, None).await;
    assert_eq!(row.state, RequestState::Done, "{:?}", row.outcome);
    let state = shop.until("its end", move |r| r.transaction_state(back).unwrap()).await;
    assert_eq!(state, State::Committed);
    let told: Vec<_> = statuses(&shop).await.iter().map(|told| told["status"].clone()).collect();
    assert_eq!(told.last(), Some(&json!("returned")), "{told:?}");
    assert_eq!(told.iter().filter(|status| **status == json!("returned")).count(), 2, "{told:?}");
    shop.take_away(card).await;
    service.stop().await;
}
