//! A shop behind the real pcscd: every technology from blank to a sale, what the reader shows,
//! other programs at the card, a pcscd that dies in the middle of a sale, two cards at once. CPU
//! cards, with the SAM in a slot, are in `counter_cpu`; cuts are in `counter_cuts`, `life_cuts`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "support/counter.rs"]
mod counter;
mod cut_shop;
#[path = "support/pcscd.rs"]
mod pcscd;
#[path = "support/port.rs"]
mod port;

use std::time::Instant;

use baygate::card::counter::{Deal, TRANSACTION};
use baygate::config::tables::Feedback;
use baygate::event::ledger::TransactionKind::{Spend, Topup};
use baygate::ident::CardNo;
use baygate::money::Fen;
use baygate::sim::card::{CardFault, CardSim, Chip, Technology as Sim};
use baygate::store::ledger::State;
use baygate::store::requests::{NewRequest, RequestOp, RequestState};
use baygate::store::{Batch, Op};
use counter::{Gateway, PATIENCE, Running, pcsc_table};
use cut_shop::{Shop, blank, deal, members, number};
use pcscd::Pcscd;
use uuid::Uuid;

const FIRST: &str = "Virtual PCD 00 00";
const SECOND: &str = "Virtual PCD 00 01";

fn shop_at(pcscd: &Pcscd, readers: &str, feedback: Feedback) -> (Shop, Running) {
    let shop = Shop { gateway: Gateway::new(), port: pcscd.port };
    let mut table = pcsc_table("counter-1", readers);
    table.feedback = feedback;
    let service = shop.gateway.serve_members(table, Some(members()));
    (shop, service)
}

async fn done(shop: &Shop, what: &str, id: Uuid) {
    let row = shop.answered(id).await;
    assert_eq!(row.state, RequestState::Done, "{what}: {:?}", row.outcome);
}

/// Issues a card, puts 50 yuan on it and takes it away.
async fn charged(shop: &Shop, card_no: &CardNo, blank: &Chip) -> Chip {
    let card = shop.lay(blank).await;
    done(shop, "issue", shop.issue(card_no).await).await;
    done(shop, "top-up", shop.deal(card_no, Topup, 5_000).await).await;
    shop.take_away(card).await
}

/// Balance and counter that a chip shows when it is tapped.
async fn shown(shop: &Shop) -> (String, i64, u64) {
    let told = shop.gateway.told().await;
    let (_, tapped) = told.iter().rfind(|(kind, _)| kind == "card.tapped").unwrap();
    let member = &tapped["member"];
    let technology = tapped["technology"].as_str().unwrap().to_owned();
    (technology, member["balance_fen"].as_i64().unwrap(), member["counter"].as_u64().unwrap())
}

/// A blank card; a Classic under the key it is delivered with.
fn delivered(sim: Sim, key: [u8; 6], n: usize) -> Chip {
    let mut profile = blank(sim, n).profile().clone();
    profile.key = key;
    Chip::new(profile)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_technology_is_issued_topped_up_and_sold_from() {
    const USUAL: [u8; 6] = [0xFF; 6];
    let Some(pcscd) = Pcscd::start() else { return };
    let (shop, service) = shop_at(&pcscd, FIRST, Feedback::Auto);
    for (n, (sim, key, name)) in [
        (Sim::Classic1k, USUAL, "mifare-classic-1k"),
        (Sim::Classic1k, [0xA0, 0xA1, 0xA2, 0xA3, 0xA4, 0xA5], "mifare-classic-1k"),
        (Sim::Classic4k, [0x00; 6], "mifare-classic-4k"),
        (Sim::Ntag213, USUAL, "ntag213"),
        (Sim::Ntag215, USUAL, "ntag215"),
        (Sim::Ntag216, USUAL, "ntag216"),
        (Sim::UltralightEv1Large, USUAL, "ultralight"),
        (Sim::UltralightC, USUAL, "ultralight-c"),
        (Sim::Desfire, USUAL, "desfire"),
        (Sim::DesfireEv1, USUAL, "desfire"),
        (Sim::Ntag424, USUAL, "ntag424"),
        (Sim::Sle4442, USUAL, "sle4442"),
    ]
    .into_iter()
    .enumerate()
    {
        let (card_no, begun) = (number(n), Instant::now());
        let card = shop.lay(&delivered(sim, key, n)).await;
        done(&shop, name, shop.issue(&card_no).await).await;
        done(&shop, name, shop.deal(&card_no, Topup, 5_000).await).await;
        done(&shop, name, shop.deal(&card_no, Spend, 1_234).await).await;
        let commands = card.apdus().len();
        let chip = shop.take_away(card).await;
        // The chip says so itself.
        let card = shop.lay(&chip).await;
        assert_eq!(shown(&shop).await, (name.to_owned(), 3_766, 2), "{name} {key:02X?}");
        let tried = (card.chip().wrong_passwords(), card.chip().failed_logins());
        assert_eq!(tried, (0, 0), "{name}: nothing was tried in vain");
        assert!(card.chip().code().is_none_or(|(_, tries)| tries == 3), "{name}");
        shop.take_away(card).await;
        println!("{name} {key:02X?}: {commands} APDUs, {} ms with two taps", begun.elapsed().as_millis());
    }
    service.stop().await;
}

const STILL: &str = "FF00400F0400000000";
const QUIET: &str = "FF00520000";
const GREEN: &str = "FF00400E0401000101";
const RED: &str = "FF00400D0401010201";

/// Waits until a reader has been told so much of its lights.
async fn told(what: &str, expected: &[&str], signs: impl Fn() -> Vec<String>) {
    let begun = Instant::now();
    while signs() != expected {
        assert!(begun.elapsed() < PATIENCE, "{what}: {:?}, expected {expected:?}", signs());
        tokio::task::yield_now().await;
    }
}

/// Those that came as commands, while the card lies there.
fn at_the_card(card: &CardSim) -> impl Fn() -> Vec<String> {
    move || {
        let apdus = card.apdus().into_iter().map(hex::encode_upper);
        apdus.filter(|apdu| [STILL, QUIET, GREEN, RED].contains(&apdu.as_str())).collect()
    }
}

/// What the person holding the card sees, byte by byte at the reader: a card that is refused,
/// one that is to be held still, one that is accepted, and one that was pulled in the middle of a
/// write, of which only the reader is left to be told.
#[tokio::test(flavor = "multi_thread")]
async fn lights_reach_the_reader_with_a_card_and_without() {
    let folder = tempfile::tempdir().unwrap();
    let Some(pcscd) = Pcscd::start_with_lights(folder.path()) else { return };
    let (shop, service) = shop_at(&pcscd, FIRST, Feedback::Acr122);
    let card_no = number(1);
    let card = shop.lay(&blank(Sim::Ntag215, 1)).await;
    told("empty", &[QUIET, RED], at_the_card(&card)).await;
    done(&shop, "issue", shop.issue(&card_no).await).await;
    told("issued", &[QUIET, RED, STILL, QUIET, GREEN], at_the_card(&card)).await;
    let signs = card.apdus();
    let still = signs.iter().position(|apdu| hex::encode_upper(apdu) == STILL).unwrap();
    assert!(still < card.writes_at()[0], "held still before the first write");
    let escapes = || {
        let text = std::fs::read_to_string(folder.path().join("escapes")).unwrap_or_default();
        text.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(escapes(), [""; 0], "while a card lies there nothing goes past it");
    let chip = shop.take_away(card).await;
    let card = shop.lay(&chip).await;
    told("a member", &[QUIET, GREEN], at_the_card(&card)).await;
    done(&shop, "top-up", shop.deal(&card_no, Topup, 5_000).await).await;
    told("topped up", &[QUIET, GREEN, STILL, QUIET, GREEN], at_the_card(&card)).await;
    // A card that left before its last answer was heard was told past it once more.
    let before = escapes();
    assert!(before.len() <= 1 && before.iter().all(|sign| sign == GREEN), "{before:?}");
    let since = || escapes().split_off(before.len());
    // Pulled behind the sign and two commands of the write.
    card.fault_after(3, CardFault::PullUnheard);
    let pulled = shop.deal(&card_no, Topup, 5_000).await;
    told("pulled", &[QUIET, RED], since).await;
    shop.answered(pulled).await;
    assert_eq!(at_the_card(&card)().last().map(String::as_str), Some(STILL));
    let chip = shop.take_away(card).await;
    let card = shop.lay(&chip).await;
    told("back again", &[QUIET, GREEN], at_the_card(&card)).await;
    done(&shop, "top-up", shop.deal(&card_no, Topup, 1_000).await).await;
    assert_eq!(shop.known(&card_no).await.unwrap().balance(), Some(Fen(6_000)));
    drop(card);
    service.stop().await;
}

/// Connects to the card as another program would.
fn other_program() -> pcsc::Card {
    let context = pcsc::Context::establish(pcsc::Scope::User).unwrap();
    let deadline = Instant::now() + PATIENCE;
    loop {
        match context.connect(c"Virtual PCD 00 00", pcsc::ShareMode::Shared, pcsc::Protocols::ANY) {
            Ok(card) => return card,
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
        std::thread::yield_now();
    }
}

/// It holds the card when a sale is asked for, and resets it: the sale waits, and is done once.
#[tokio::test(flavor = "multi_thread")]
async fn a_card_held_and_reset_by_another_program_is_sold_from_all_the_same() {
    let Some(pcscd) = Pcscd::start() else { return };
    let (shop, service) = shop_at(&pcscd, FIRST, Feedback::Auto);
    for (n, sim) in [Sim::Classic1k, Sim::Ntag215, Sim::Desfire].into_iter().enumerate() {
        let card_no = number(n);
        let chip = charged(&shop, &card_no, &blank(sim, n)).await;
        let card = shop.lay(&chip).await;
        for round in 0..3 {
            let mut other = other_program();
            let held = other.transaction().unwrap();
            let before = card.apdus().len();
            let sale = shop.deal(&card_no, Spend, 100).await;
            begun(&shop, sale).await;
            assert_eq!(card.apdus().len(), before, "{sim:?}: not a word while another speaks");
            held.end(pcsc::Disposition::ResetCard).map_err(|(_, error)| error).unwrap();
            done(&shop, &format!("{sim:?} {round}"), sale).await;
            // And once between two sales.
            other.disconnect(pcsc::Disposition::ResetCard).map_err(|(_, error)| error).unwrap();
            done(&shop, &format!("{sim:?} {round}"), shop.deal(&card_no, Spend, 100).await).await;
        }
        let chip = shop.take_away(card).await;
        let card = shop.lay(&chip).await;
        let (_, balance, counter) = shown(&shop).await;
        assert_eq!((balance, counter), (4_400, 7), "{sim:?}: each sale once");
        shop.take_away(card).await;
    }
    service.stop().await;
}

/// pcscd is killed while the card owes an answer in the middle of a sale, and comes back: the
/// next tap tells old or new, and the shop goes on.
#[tokio::test(flavor = "multi_thread")]
async fn a_pcscd_that_dies_in_the_middle_of_a_sale_leaves_the_old_or_the_new() {
    let Some(mut pcscd) = Pcscd::start() else { return };
    let (shop, service) = shop_at(&pcscd, FIRST, Feedback::Auto);
    let card_no = number(1);
    let mut chip = charged(&shop, &card_no, &blank(Sim::Ntag215, 1)).await;
    let card = shop.lay(&chip).await;
    let begun = card.apdus().len();
    done(&shop, "sale", shop.deal(&card_no, Spend, 7).await).await;
    let writes: Vec<usize> = card.writes_at().into_iter().map(|at| at - begun).collect();
    chip = shop.take_away(card).await;
    let (first, last) = (writes[0], *writes.last().unwrap());
    let mut became = [0; 2];
    for (at, fault) in [
        (0, CardFault::MuteUnheard),
        (first, CardFault::Mute),
        (last, CardFault::MuteUnheard),
        (last, CardFault::Mute),
    ] {
        let what = format!("{fault:?} at command {at}");
        let card = shop.lay(&chip).await;
        let (before, heard) = (shop.known(&card_no).await.unwrap(), card.apdus().len());
        card.fault_after(at, fault);
        let sale = shop.deal(&card_no, Spend, 7).await;
        let deadline = Instant::now() + PATIENCE;
        while card.apdus().len() <= heard + at {
            assert!(Instant::now() < deadline, "{what}");
            tokio::task::yield_now().await;
        }
        pcscd.kill();
        shop.answered(sale).await;
        chip = shop.take_away(card).await;
        pcscd.start_again();
        let card = shop.lay(&chip).await;
        let row = shop.gateway.store.read(move |r| r.transaction(sale)).await.unwrap().unwrap();
        let after = shop.known(&card_no).await.unwrap();
        match row.state {
            State::Committed => assert_eq!(after, row.after, "{what}"),
            State::Aborted => assert_eq!(after, before, "{what}"),
            other => panic!("{what}: {other:?}"),
        }
        became[usize::from(row.state == State::Committed)] += 1;
        let (_, balance, counter) = shown(&shop).await;
        assert_eq!((Some(Fen(balance)), counter), (after.balance(), u64::from(after.counter)), "{what}");
        chip = shop.take_away(card).await;
    }
    assert!(became[0] > 0 && became[1] > 0, "{became:?}");
    let card = shop.lay(&chip).await;
    done(&shop, "the shop goes on", shop.deal(&card_no, Spend, 7).await).await;
    drop(card);
    service.stop().await;
}

/// A sale at that reader, asked for.
async fn sale(shop: &Shop, reader: &str, card_no: &CardNo, fen: i64) -> Uuid {
    let sale = NewRequest {
        id: Uuid::now_v7(),
        kind: TRANSACTION,
        target: reader.into(),
        scope: "till-1".into(),
        idempotency_key: Some(Uuid::new_v4().to_string()),
        body: serde_json::json!(Deal { amount_fen: Some(Fen(fen)), ..deal(card_no, Spend) }),
    };
    let id = sale.id;
    shop.gateway.store.commit(Batch::new().op(Op::Request(RequestOp::Insert(sale)))).await.unwrap();
    id
}

async fn three_sales(shop: &Shop, reader: &str, card_no: &CardNo, fen: i64) {
    for _ in 0..3 {
        done(shop, reader, sale(shop, reader, card_no, fen).await).await;
    }
}

async fn begun(shop: &Shop, sale: Uuid) {
    let running = move |r: &baygate::store::Reader<'_>| {
        (r.request(sale).unwrap().unwrap().state == RequestState::Running).then_some(())
    };
    shop.until("the sale is begun", running).await;
}

/// Two readers with a card on each: every sale goes to its own, also while one of the readers is
/// held in the middle of its sale, and when the cards have changed places.
#[tokio::test(flavor = "multi_thread")]
async fn two_cards_at_two_readers_are_sold_from_at_once() {
    let Some(pcscd) = Pcscd::start() else { return };
    let (mut shop, service) = shop_at(&pcscd, FIRST, Feedback::Auto);
    let second = shop.gateway.serve_members(pcsc_table("counter-2", SECOND), Some(members()));
    let numbers = [number(1), number(2)];
    let mut chips = [
        charged(&shop, &numbers[0], &blank(Sim::Classic1k, 1)).await,
        charged(&shop, &numbers[1], &blank(Sim::Ntag215, 2)).await,
    ];
    for at_first in [0, 1] {
        let at_second = 1 - at_first;
        shop.port = pcscd.port;
        let one = shop.lay(&chips[at_first]).await;
        shop.port = pcscd.port + 1;
        let two = shop.lay(&chips[at_second]).await;
        tokio::join!(
            three_sales(&shop, "counter-1", &numbers[at_first], 100),
            three_sales(&shop, "counter-2", &numbers[at_second], 10)
        );
        // The first cannot go on; the second does not wait for it.
        let mut other = other_program();
        let held = other.transaction().unwrap();
        let waits = sale(&shop, "counter-1", &numbers[at_first], 100).await;
        begun(&shop, waits).await;
        three_sales(&shop, "counter-2", &numbers[at_second], 10).await;
        assert_eq!(shop.request(waits).await.state, RequestState::Running);
        held.end(pcsc::Disposition::LeaveCard).map_err(|(_, error)| error).unwrap();
        done(&shop, "the one that waited", waits).await;
        drop(other);
        chips[at_first] = one.chip();
        one.remove().await;
        chips[at_second] = shop.take_away(two).await;
    }
    // Each chip says so itself: four sales of 1 yuan and six of 10 fen, at either reader.
    for chip in &chips {
        let card = shop.lay(chip).await;
        let (_, balance, counter) = shown(&shop).await;
        assert_eq!((balance, counter), (5_000 - 400 - 60, 11));
        shop.take_away(card).await;
    }
    service.stop().await;
    second.stop().await;
}
