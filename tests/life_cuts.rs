//! Cut at every command: cards are given back, replaced, extended, and send principal to each other,
//! and each command in turn is lost, half done, or answered with an error. Then the card is tapped
//! again: the old or the new, as the journal says, and no fen more or less in the whole shop.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "support/counter.rs"]
mod counter;
mod cut_shop;
#[path = "support/pcscd.rs"]
mod pcscd;
#[path = "support/port.rs"]
mod port;

use baygate::card::apdu::Response;
use baygate::card::counter::{Deal, ISSUE, IssueAsked, Life, TRANSACTION, Why};
use baygate::card::medium::{PrepareOutcome, PrepareStep, Preparing};
use baygate::card::probe::Answer;
use baygate::card::record::{Coupon, MemberRecord};
use baygate::event::card::{MemberStatus, Technology};
use baygate::event::ledger::{CardStanding, CardType, TenderKind, TransactionKind};
use baygate::ident::CardNo;
use baygate::money::{Fen, Holding};
use baygate::sim::card::{CardFault, CardSim, Chip, Technology as Sim};
use baygate::store::card_pins::{CardPinOp, PinDeed};
use baygate::store::ledger::State;
use baygate::store::operators::PinHash;
use baygate::store::requests::RequestState;
use baygate::store::{Batch, Op, card_reports, ledger_cards};
use counter::{Gateway, Running, pcsc_table};
use cut_shop::{FAULTS, Shop, blank, by, deal, members, number, shop};
use jiff::civil::{Date, date};
use pcscd::Pcscd;
use serde_json::json;
use uuid::Uuid;

/// How thoroughly.
#[derive(Clone, Copy)]
struct Cuts {
    sim: Sim,
    faults: &'static [CardFault],
    /// At every command, or at every so many.
    step: usize,
}

const ALL_ON_NTAG: Cuts = Cuts { sim: Sim::Ntag215, faults: &FAULTS, step: 1 };
const CLASSIC: Cuts =
    Cuts { sim: Sim::Classic1k, faults: &[CardFault::PullUnheard, CardFault::Status(0x6300)], step: 1 };
const PCSCD: Cuts = Cuts { sim: Sim::Classic1k, faults: &[CardFault::Pull], step: 7 };

/// Shop at the real pcscd; `None` where it must be left out.
fn real() -> Option<(Pcscd, (Shop, Running))> {
    let pcscd = Pcscd::start()?;
    let shop = Shop { gateway: Gateway::new(), port: pcscd.port };
    let service = shop.gateway.serve_members(pcsc_table("counter-1", "Virtual PCD 00 00"), Some(members()));
    Some((pcscd, (shop, service)))
}

/// A card given out, with money on it.
async fn issued(shop: &Shop, sim: Sim, n: usize, card_type: CardType, fen: i64) -> Chip {
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
async fn ask(shop: &Shop, deal: Deal) -> Uuid {
    shop.ask(TRANSACTION, json!(deal)).await
}

async fn state(shop: &Shop, id: Uuid) -> Option<State> {
    shop.gateway.store.read(move |r| r.transaction_state(id)).await.unwrap()
}

/// Done without a cut; how many commands it took.
async fn whole(shop: &Shop, chip: &Chip, deal: Deal) -> (Chip, usize, Uuid) {
    let card = shop.lay(chip).await;
    let begun = card.apdus().len();
    let id = ask(shop, deal).await;
    let row = shop.answered(id).await;
    assert_eq!(row.state, RequestState::Done, "{:?}", row.outcome);
    let commands = card.apdus().len() - begun;
    (shop.take_away(card).await, commands, id)
}

/// Cut at a command, and tapped again. Whether it is committed.
async fn cut(shop: &Shop, chip: &Chip, at: usize, fault: CardFault, deal: Deal) -> (Chip, bool, Uuid) {
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

async fn stands(shop: &Shop, card_no: &CardNo) -> CardStanding {
    let card_no = card_no.clone();
    shop.gateway.store.read(move |r| r.member_card(&card_no)).await.unwrap().unwrap().status
}

fn every(commands: usize, cuts: Cuts) -> impl Iterator<Item = (usize, CardFault)> {
    assert!(commands > 10, "{commands}");
    let at = (0..commands).filter(move |at| at % cuts.step == 0 || at + 1 == commands);
    at.flat_map(move |at| cuts.faults.iter().map(move |fault| (at, *fault)))
}

fn life(card_no: &CardNo, kind: TransactionKind, life: Life) -> Deal {
    Deal { life: Some(life), ..deal(card_no, kind) }
}

fn give_back(card_no: &CardNo) -> Deal {
    life(card_no, TransactionKind::Refund, Life::Return { tender: TenderKind::Cash })
}

fn replace(old: &CardNo, new: &CardNo) -> Deal {
    life(new, TransactionKind::Transfer, Life::Replace { old_card_no: old.clone(), why: Why::Lost })
}

/// What a refused card gets: nothing.
async fn refused(shop: &Shop, card: &CardSim, deal: Deal, code: &str) {
    let writes = card.writes();
    let id = ask(shop, deal).await;
    let row = shop.answered(id).await;
    assert_eq!((row.state, &row.outcome.unwrap()["code"]), (RequestState::Failed, &json!(code)));
    assert_eq!(card.writes(), writes, "{code}: nothing is written");
    assert_eq!(state(shop, id).await, None, "{code}: not even an intent");
}

async fn returns_are_cut((shop, service): (Shop, Running), cuts: Cuts) {
    let mut n = 1;
    let chip = issued(&shop, cuts.sim, n, CardType::Named, 5_000).await;
    let (chip, commands, _) = whole(&shop, &chip, give_back(&number(n))).await;
    // It is dead: refused at its tap, and for everything.
    let card = shop.lay(&chip).await;
    refused(&shop, &card, give_back(&number(n)), "returned").await;
    refused(&shop, &card, deal(&number(n), TransactionKind::Earn), "returned").await;
    shop.take_away(card).await;
    let (mut paid, mut aborted) = (5_000, 0);
    let mut chip = None;
    for (at, fault) in every(commands, cuts) {
        let living = match chip.take() {
            Some(chip) => chip,
            None => {
                n += 1;
                issued(&shop, cuts.sim, n, CardType::Named, 100).await
            }
        };
        let (after, committed, _) = cut(&shop, &living, at, fault, give_back(&number(n))).await;
        let (what, card_no) = (format!("{fault:?} at {at}"), number(n));
        let holds = shop.known(&card_no).await.unwrap();
        if committed {
            paid += 100;
            assert_eq!(stands(&shop, &card_no).await, CardStanding::Returned, "{what}");
            assert_eq!(holds, Holding { counter: holds.counter, ..Holding::default() }, "{what}");
        } else {
            aborted += 1;
            assert_eq!(stands(&shop, &card_no).await, CardStanding::Active, "{what}");
            assert_eq!(holds.principal_fen, Fen(100), "{what}");
            chip = Some(after);
        }
    }
    assert!(aborted > 0 && n > 2, "{aborted} aborted, {n} cards");
    let told = shop.told().await;
    let committed = told.iter().filter(|(kind, fact)| {
        kind == "card.transaction" && fact["kind"] == "refund" && fact["outcome"] == "committed"
    });
    let sum: i64 = committed.map(|(_, fact)| fact["tenders"][0]["amount_fen"].as_i64().unwrap()).sum();
    assert_eq!(sum, paid, "out of the drawer");
    let dead =
        told.iter().filter(|(kind, data)| kind == "card.status" && data["status"] == "returned").count();
    assert_eq!(i64::try_from(dead).unwrap(), 1 + (paid - 5_000) / 100, "each is told once");
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_return_of_a_ntag_is_cut_at_every_command() {
    returns_are_cut(shop(), ALL_ON_NTAG).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_return_of_a_classic_is_cut_at_every_command() {
    returns_are_cut(shop(), CLASSIC).await;
}

/// A balance goes from card to card: each takes the place of the one before.
async fn replacements_are_cut((shop, service): (Shop, Running), cuts: Cuts) {
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

#[tokio::test(flavor = "multi_thread")]
async fn the_replacement_of_a_ntag_is_cut_at_every_command() {
    replacements_are_cut(shop(), ALL_ON_NTAG).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_replacement_of_a_classic_is_cut_at_every_command() {
    replacements_are_cut(shop(), CLASSIC).await;
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

/// One card that goes on living, with another last day each time.
async fn extensions_are_cut((shop, service): (Shop, Running), cuts: Cuts) {
    let card_no = number(1);
    let until = |day: Date| life(&card_no, TransactionKind::Adjust, Life::Extend { valid_until: Some(day) });
    let end = |day: Date| Some(format!("{day}T23:59:59.999Z"));
    let chip = issued(&shop, cuts.sim, 1, CardType::Anonymous, 300).await;
    let mut was = date(2041, 12, 31);
    let (mut chip, commands, _) = whole(&shop, &chip, until(was)).await;
    let card = shop.lay(&chip).await;
    refused(&shop, &card, until(date(2041, 12, 30)), "validity-not-allowed").await;
    chip = shop.take_away(card).await;
    let mut became = [0; 2];
    for (at, fault) in every(commands, cuts) {
        let next = was.tomorrow().unwrap();
        let (after, committed, _) = cut(&shop, &chip, at, fault, until(next)).await;
        chip = after;
        became[usize::from(committed)] += 1;
        was = if committed { next } else { was };
        let wanted = card_no.clone();
        let row = shop.gateway.store.read(move |r| r.member_card(&wanted)).await.unwrap().unwrap();
        assert_eq!(row.seen.valid_until.map(|until| until.to_string()), end(was), "{fault:?} at {at}");
        assert_eq!(row.seen.holding.balance(), Some(Fen(300)));
    }
    assert!(became.iter().all(|count| *count > 0), "{became:?}");
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_extension_of_a_ntag_is_cut_at_every_command() {
    extensions_are_cut(shop(), ALL_ON_NTAG).await;
}

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

/// A card whose last day was in 2020, with ¥3 on it.
fn expired(n: usize) -> Chip {
    let record = MemberRecord {
        card_no: number(n),
        member_type: CardType::Anonymous,
        status: MemberStatus::Active,
        issuing_store: cut_shop::STORE.parse().unwrap(),
        tier: 0,
        discount_class: 0,
        valid_until: Some(date(2020, 1, 1)),
        principal_fen: 300,
        bonus_fen: 0,
        points: 0,
        coupons: [Coupon::default(); 4],
        counter: 5,
        last: None,
        key_version: 1,
    };
    let mut chip = blank(Sim::Ntag215, n);
    let (members, uid) = (members(), hex::encode_upper(&chip.profile().uid).parse().unwrap());
    let layout = members.layout(Technology::Ntag215).unwrap();
    let mut step =
        Preparing::start(uid, Technology::Ntag215, &layout, &record, &members.keys, false).unwrap();
    loop {
        step = match step {
            PrepareStep::Done(outcome) => {
                assert_eq!(outcome, PrepareOutcome::Prepared);
                return chip;
            }
            PrepareStep::Reset(preparing) => {
                chip.reset();
                preparing.answer(&Answer::Reset)
            }
            PrepareStep::Transmit(command, preparing) => {
                let answer = Response::parse(&chip.apdu(&command.to_bytes())).unwrap();
                preparing.answer(&Answer::Response(answer))
            }
        };
    }
}

/// What a card holds does not end with its validity: it is extended, or paid out.
#[tokio::test(flavor = "multi_thread")]
async fn an_expired_card_is_extended_or_given_back() {
    let clock = tempfile::tempdir().unwrap();
    let synced = clock.path().join("synchronized");
    std::fs::write(&synced, "").unwrap();
    baygate::clock::trust(&synced);
    let (shop, service) = shop();
    let spend = |n: usize| Deal { amount_fen: Some(Fen(100)), ..deal(&number(n), TransactionKind::Spend) };
    let longer = Life::Extend { valid_until: Some(date(2041, 12, 31)) };
    let card = shop.lay(&expired(1)).await;
    refused(&shop, &card, spend(1), "card-expired").await;
    let soon = Life::Extend { valid_until: Some(date(2027, 12, 31)) };
    refused(&shop, &card, life(&number(1), TransactionKind::Adjust, soon), "validity-not-allowed").await;
    for deal in [life(&number(1), TransactionKind::Adjust, longer), spend(1)] {
        let id = ask(&shop, deal).await;
        let row = shop.answered(id).await;
        assert_eq!(row.state, RequestState::Done, "{:?}", row.outcome);
    }
    let chip = shop.take_away(card).await;
    let (_, _, id) = whole(&shop, &chip, spend(1)).await;
    assert_eq!(state(&shop, id).await, Some(State::Committed));
    assert_eq!(shop.known(&number(1)).await.unwrap().balance(), Some(Fen(100)));
    let (_, _, id) = whole(&shop, &expired(2), give_back(&number(2))).await;
    assert_eq!(state(&shop, id).await, Some(State::Committed));
    assert_eq!(stands(&shop, &number(2)).await, CardStanding::Returned);
    service.stop().await;
}

/// Two cards send principal to each other; what is neither here nor there is listed.
async fn transfers_are_cut((shop, service): (Shop, Running), cuts: Cuts) {
    let (a, b) = (number(1), number(2));
    let give = || Deal {
        amount_fen: Some(Fen(7)),
        to_card_no: Some(b.clone()),
        ..deal(&a, TransactionKind::Transfer)
    };
    let with = |card_no: &CardNo, kind, giving| Deal {
        original_transaction_id: Some(giving),
        ..deal(card_no, kind)
    };
    let take = |giving| with(&b, TransactionKind::Transfer, giving);
    let undo = |giving| with(&a, TransactionKind::Void, giving);
    let first = issued(&shop, cuts.sim, 1, CardType::Named, 9_000).await;
    let second = issued(&shop, cuts.sim, 2, CardType::Named, 500).await;
    let (mut first, given, id) = whole(&shop, &first, give()).await;
    let (mut second, taken, _) = whole(&shop, &second, take(id)).await;
    let due = async || shop.gateway.store.read(|r| r.transfers_due()).await.unwrap();
    let sum = async || {
        let waits = 7 * i64::try_from(due().await.len()).unwrap();
        let fen = |holding: Option<Holding>| holding.unwrap().balance().unwrap().0;
        fen(shop.known(&a).await) + fen(shop.known(&b).await) + waits
    };
    let mut halves = [0; 4];
    for (n, (at, fault)) in every(given, cuts).enumerate() {
        let (after, committed, id) = cut(&shop, &first, at, fault, give()).await;
        first = after;
        halves[usize::from(committed)] += 1;
        assert_eq!((due().await.len(), sum().await), (usize::from(committed), 9_500), "{fault:?} at {at}");
        if committed && n % 2 == 0 {
            second = whole(&shop, &second, take(id)).await.0;
        } else if committed {
            first = whole(&shop, &first, undo(id)).await.0;
        }
        assert_eq!((due().await.len(), sum().await), (0, 9_500), "{fault:?} at {at}");
    }
    for (n, (at, fault)) in every(taken, cuts).enumerate() {
        let (after, _, id) = whole(&shop, &first, give()).await;
        first = after;
        let (after, committed, _) = cut(&shop, &second, at, fault, take(id)).await;
        second = after;
        halves[2 + usize::from(committed)] += 1;
        assert_eq!((due().await.len(), sum().await), (usize::from(!committed), 9_500), "{fault:?} at {at}");
        // The resume rule: the other card again, or back.
        if !committed && n % 2 == 0 {
            second = whole(&shop, &second, take(id)).await.0;
        } else if !committed {
            first = whole(&shop, &first, undo(id)).await.0;
        }
        assert_eq!((due().await.len(), sum().await), (0, 9_500), "{fault:?} at {at}");
        let card = shop.lay(&second).await;
        refused(&shop, &card, take(id), "transfer-not-allowed").await;
        second = shop.take_away(card).await;
    }
    assert!(halves.iter().all(|count| *count > 0), "{halves:?}");
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transfer_between_ntags_is_cut_at_every_command() {
    transfers_are_cut(shop(), ALL_ON_NTAG).await;
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
