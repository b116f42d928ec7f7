//! Cut at every command: cards are given back, replaced, extended, and send principal to each other,
//! and each command in turn is lost, half done, or answered with an error. Then the card is tapped
//! again: the old or the new, as the journal says, and no fen more or less in the whole shop.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "../support/counter.rs"]
mod counter;
#[path = "../cpu_shop/mod.rs"]
mod cpu_shop;
#[path = "../cut_shop/mod.rs"]
mod cut_shop;
mod cuts;
mod elsewhere;
mod extended;
#[path = "../support/pcscd.rs"]
mod pcscd;
#[path = "../support/port.rs"]
mod port;
mod replaced;
mod returned;
mod silent;
mod transferred;

use baygate::event::ledger::{CardStanding, CardType};
use baygate::sim::card::Technology as Sim;
use baygate::store::{card_reports, ledger_cards};
use cut_shop::{number, shop};
use cuts::{ALL, PCSCD, give_back, issued, real, refused, stands};
use extended::extensions_are_cut;
use replaced::replacements_are_cut;
use returned::returns_are_cut;
use tokio::task::JoinSet;
use transferred::transfers_are_cut;

/// Somebody called before the card was ever here.
#[tokio::test(flavor = "multi_thread")]
async fn a_card_that_was_reported_before_it_was_seen_is_refused_at_its_first_tap() {
    let (shop, service) = shop();
    let (elsewhere, other) = cut_shop::shop();
    let chip = issued(&elsewhere, Sim::Ntag215, 1, CardType::Named, 500).await;
    let (card_no, store) = (number(1), &shop.gateway.store);
    let who = ledger_cards::By { operator: "li".into(), till: "till-1".parse().unwrap() };
    let (was, lost) = (CardStanding::Active, CardStanding::Lost);
    store.commit(card_reports::stands(&card_no, was, lost, None, who).unwrap()).await.unwrap();
    let card = shop.lay(&chip).await;
    refused(&shop, &card, give_back(&card_no), "blocked").await;
    assert_eq!((stands(&shop, &card_no).await, card.writes()), (lost, 0));
    let wanted = card_no.clone();
    assert_eq!(store.read(move |r| r.card_report(&wanted)).await.unwrap(), None, "its row says so now");
    shop.take_away(card).await;
    service.stop().await;
    other.stop().await;
}

/// Given back and replaced, all technologies at once: what takes its time is the disk, which syncs for
/// all of them.
#[tokio::test(flavor = "multi_thread")]
async fn a_card_that_ends_is_cut_at_every_command() {
    let mut all = JoinSet::new();
    for cuts in ALL {
        all.spawn(returns_are_cut(cuts.shop(), cuts));
        all.spawn(replacements_are_cut(cuts.shop(), cuts));
    }
    all.join_all().await;
}

/// Extended, and sending principal to each other.
#[tokio::test(flavor = "multi_thread")]
async fn a_card_that_goes_on_is_cut_at_every_command() {
    let mut all = JoinSet::new();
    for cuts in ALL {
        all.spawn(extensions_are_cut(cuts.shop(), cuts));
        all.spawn(transfers_are_cut(cuts.shop(), cuts));
    }
    all.join_all().await;
}

/// All of it through the real pcscd, cut here and there: there a card that leaves takes its time.
#[tokio::test(flavor = "multi_thread")]
async fn a_life_through_the_real_pcscd() {
    let Some((pcscd, shop)) = real() else { return };
    returns_are_cut(shop, PCSCD).await;
    drop(pcscd);
    let Some((pcscd, shop)) = real() else { return };
    replacements_are_cut(shop, PCSCD).await;
    drop(pcscd);
    let Some((pcscd, shop)) = real() else { return };
    extensions_are_cut(shop, PCSCD).await;
    drop(pcscd);
    let Some((_pcscd, shop)) = real() else { return };
    transfers_are_cut(shop, PCSCD).await;
}
