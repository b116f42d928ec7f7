//! Cards at a reader of kind `pn532`: a simulated chip on a pseudo-terminal and on TCP. Who is
//! told of each technology, what is lost and garbled on the line, plugs pulled; and money through
//! the real program.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "support/counter.rs"]
mod counter;
mod counter_shop;
#[path = "support/daemon.rs"]
mod daemon;
#[path = "support/port.rs"]
mod port;

use baygate::config::tables::{ReaderKind, ReaderRole, ReaderTable};
use baygate::event::card::Technology;
use baygate::event::device::DeviceStatus::{Absent, Failed, Ready};
use baygate::event::ledger::Outcome;
use baygate::sim::card::{CardProfile, Chip, Pn532Fault, Pn532Sim, Technology as Sim};
use baygate::sim::transport::Address;
use counter::{Gateway, vpcd_table};
use counter_shop::{Shop, blank};
use serde_json::json;

const ALL: [(Sim, Technology); 11] = [
    (Sim::Classic1k, Technology::MifareClassic1k),
    (Sim::Classic4k, Technology::MifareClassic4k),
    (Sim::UltralightEv1, Technology::Ultralight),
    (Sim::Ntag213, Technology::Ntag213),
    (Sim::Ntag215, Technology::Ntag215),
    (Sim::Ntag216, Technology::Ntag216),
    (Sim::Desfire, Technology::Desfire),
    (Sim::DesfireEv1, Technology::Desfire),
    (Sim::Ntag424, Technology::Ntag424),
    (Sim::Cpu, Technology::Cpu),
    (Sim::Bank, Technology::Cpu),
];
const LOSSES: [Pn532Fault; 8] = [
    Pn532Fault::Unheard,
    Pn532Fault::NoAck,
    Pn532Fault::NoAnswer,
    Pn532Fault::Garbled,
    Pn532Fault::Noise,
    Pn532Fault::Stale,
    Pn532Fault::Late,
    Pn532Fault::Slow,
];
const CARD: &str = "/v1/cards/8800000042/transactions";

fn table(link: &str) -> ReaderTable {
    ReaderTable {
        kind: ReaderKind::Pn532,
        listen: None,
        link: Some(link.parse().unwrap()),
        role: ReaderRole::Card,
        globs: Default::default(),
        ..vpcd_table("counter-1", 1)
    }
}

fn tcp() -> Address {
    Address::Tcp("127.0.0.1:0".parse().unwrap())
}

async fn at_network() -> (Pn532Sim, ReaderTable) {
    let sim = Pn532Sim::plug_in(tcp()).await.unwrap();
    let table = table(&format!("tcp://{}", sim.name()));
    (sim, table)
}

async fn at_terminal(folder: &tempfile::TempDir) -> (Pn532Sim, ReaderTable) {
    let link = folder.path().join("reader");
    let sim = Pn532Sim::plug_in(Address::Pty { link: Some(link.clone()) }).await.unwrap();
    (sim, table(&format!("serial://{}", link.display())))
}

fn chip(sim: Sim) -> Chip {
    Chip::new(CardProfile::new(sim))
}

fn uid(sim: Sim) -> String {
    hex::encode_upper(CardProfile::new(sim).uid)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_technology_is_told_on_a_terminal_and_on_tcp() {
    let folder = tempfile::tempdir().unwrap();
    for (sim, table) in [at_terminal(&folder).await, at_network().await] {
        sim.slowly();
        let gateway = Gateway::new();
        let service = gateway.serve(table);
        gateway.expect_state("counter-1", Ready, None).await;
        let mut all = Vec::new();
        for (kind, technology) in ALL {
            sim.lay(chip(kind));
            all.push(format!("tapped {}", uid(kind)));
            gateway.expect_cards("counter-1", &all.iter().map(String::as_str).collect::<Vec<_>>()).await;
            assert_eq!(gateway.in_field().await.first().unwrap().technology, technology);
            sim.lift();
            all.push(format!("removed {}", uid(kind)));
            gateway.expect_cards("counter-1", &all.iter().map(String::as_str).collect::<Vec<_>>()).await;
        }
        service.stop().await;
        sim.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_card_that_takes_anothers_place_is_told_and_one_that_lies_still_only_once() {
    let (sim, table) = at_network().await;
    let gateway = Gateway::new();
    let service = gateway.serve(table);
    sim.lay(chip(Sim::Classic1k));
    let (first, second) = (uid(Sim::Classic1k), uid(Sim::Desfire));
    let all = [
        format!("tapped {first}"),
        format!("removed {first}"),
        format!("tapped {second}"),
        format!("removed {second}"),
    ];
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    gateway.expect_cards("counter-1", &all[..1]).await;
    looked_again(&sim, 6).await;
    sim.lay(chip(Sim::Desfire));
    gateway.expect_cards("counter-1", &all[..3]).await;
    looked_again(&sim, 6).await;
    sim.lift();
    gateway.expect_cards("counter-1", &all).await;
    service.stop().await;
    sim.stop().await;
}

/// Waits until the reader was given so many commands more.
async fn looked_again(sim: &Pn532Sim, times: usize) {
    let (begun, from) = (std::time::Instant::now(), sim.commands().len());
    while sim.commands().len() < from + times {
        assert!(begun.elapsed() < counter::PATIENCE, "nothing is asked of the reader");
        tokio::task::yield_now().await;
    }
}

/// Each loss at each command of a tap: the card is told, once, and no reader is given up.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_lost_on_the_line_loses_no_card() {
    let (sim, table) = at_network().await;
    let gateway = Gateway::new();
    let service = gateway.serve(table);
    gateway.expect_state("counter-1", Ready, None).await;
    let mut all: Vec<String> = Vec::new();
    for fault in LOSSES {
        for (after, kind) in [(0, Sim::Ntag215), (1, Sim::Ntag215), (2, Sim::Desfire), (3, Sim::Desfire)] {
            sim.lay(chip(kind));
            sim.fault_after(after, fault);
            all.extend([format!("tapped {}", uid(kind)), format!("removed {}", uid(kind))]);
            let told: Vec<&str> = all.iter().map(String::as_str).collect();
            gateway.expect_cards("counter-1", &told[..told.len() - 1]).await;
            while sim.faults_left() > 0 {
                tokio::task::yield_now().await;
            }
            sim.lift();
            gateway.expect_cards("counter-1", &told).await;
        }
    }
    service.stop().await;
    sim.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_is_pulled_or_silent_ends_the_card_and_comes_back_by_itself() {
    let folder = tempfile::tempdir().unwrap();
    let (mut sim, table) = at_terminal(&folder).await;
    let gateway = Gateway::new();
    let service = gateway.serve(table);
    sim.lay(chip(Sim::Ntag215));
    let (tapped, removed) =
        (format!("tapped {}", uid(Sim::Ntag215)), format!("removed {}", uid(Sim::Ntag215)));
    let all = [&*tapped, &*removed, &*tapped, &*removed, &*tapped];
    gateway.expect_cards("counter-1", &all[..1]).await;
    sim.vanish().await;
    gateway.expect_cards("counter-1", &all[..2]).await;
    gateway.expect_state("counter-1", Absent, Some("port-missing")).await;
    sim.come_back().await;
    gateway.expect_cards("counter-1", &all[..3]).await;
    sim.mute(true);
    gateway.expect_cards("counter-1", &all[..4]).await;
    gateway.expect_state("counter-1", Failed, Some("no-answer")).await;
    sim.mute(false);
    gateway.expect_cards("counter-1", &all).await;
    gateway.expect_state("counter-1", Ready, None).await;
    service.stop().await;
    sim.stop().await;
}

/// A card that is none of ISO/IEC 14443-3: refused once, and the next card is served.
#[tokio::test(flavor = "multi_thread")]
async fn a_card_that_cannot_be_read_is_refused_and_the_reader_goes_on() {
    let (sim, table) = at_network().await;
    let gateway = Gateway::new();
    let service = gateway.serve(table);
    gateway.expect_state("counter-1", Ready, None).await;
    sim.lay(Chip::new(CardProfile { uid: vec![1, 2, 3, 4, 5], ..CardProfile::new(Sim::Ntag215) }));
    gateway.expect_cards("counter-1", &["refused unreadable"]).await;
    looked_again(&sim, 12).await;
    sim.lift();
    sim.lay(chip(Sim::Ntag215));
    let tapped = format!("tapped {}", uid(Sim::Ntag215));
    gateway.expect_cards("counter-1", &["refused unreadable", &tapped]).await;
    service.stop().await;
    sim.stop().await;
}

fn topup(fen: i64) -> serde_json::Value {
    json!({ "kind": "topup", "amount_fen": fen, "tenders": [{ "kind": "cash", "amount_fen": fen }] })
}

/// A card is issued, read again, topped up and charged through the chip.
#[tokio::test(flavor = "multi_thread")]
async fn member_cards_are_issued_topped_up_and_charged() {
    for kind in [Sim::Ntag215, Sim::Classic1k, Sim::Desfire] {
        let folder = tempfile::tempdir().unwrap();
        let link = folder.path().join("reader");
        let sim = Pn532Sim::plug_in(Address::Pty { link: Some(link.clone()) }).await.unwrap();
        let reader = format!("kind = \"pn532\"\nlink = \"serial://{}\"", link.display());
        let shop = Shop::open_at(&reader, 0, "[purse]\n").await;
        sim.lay(blank(kind));
        shop.issue("8800000042", "i").await;
        let topped = shop.done(CARD, topup(5_000), "t").await;
        assert_eq!(topped["balance_after_fen"], 5_000, "{kind:?}");
        let card = sim.lift().unwrap();
        while shop.get("/v1/readers/counter-1/card").await.status != 204 {}
        sim.lay(card);
        let member = shop.member().await;
        assert_eq!((&member["principal_fen"], &member["counter"]), (&json!(5_000), &json!(1)), "{member}");
        let spent = shop.done(CARD, json!({ "kind": "spend", "amount_fen": 1_200 }), "s").await;
        assert_eq!(spent["balance_after_fen"], 3_800);
        sim.lift();
        let (facts, _) = shop.close().await;
        assert!(facts.iter().all(|fact| fact.outcome == Outcome::Committed) && facts.len() == 2);
    }
}

/// An answer that the network held up, at each command of a member's tap: it is never taken for the
/// next command's. Page would be read for page, and the older slot be the record.
#[tokio::test(flavor = "multi_thread")]
async fn a_late_answer_shows_no_member_another_balance() {
    let sim = Pn532Sim::plug_in(tcp()).await.unwrap();
    let reader = format!("kind = \"pn532\"\nlink = \"tcp://{}\"", sim.name());
    let shop = Shop::open_at(&reader, 0, "[purse]\n").await;
    sim.lay(blank(Sim::Ntag215));
    shop.issue("8800000042", "i").await;
    // Both slots have a record.
    shop.done(CARD, topup(10_000), "t-1").await;
    shop.done(CARD, topup(5_000), "t-2").await;
    let card = sim.lift().unwrap();
    let mut right = 0;
    for at in 0..24 {
        while shop.get("/v1/readers/counter-1/card").await.status != 204 {}
        sim.lay(card.clone());
        sim.fault_after(at, Pn532Fault::Late);
        let answer = shop.get("/v1/readers/counter-1/card?wait=20").await;
        let told = &answer.body;
        if told["member"].is_null() {
            // What may have been counted as a wrong password is not said twice.
            assert_eq!(told["refused"]["reason"], "reader-error", "at {at}: {answer:?}");
        } else {
            assert_eq!(told["member"]["balance_fen"], 15_000, "at {at}: {answer:?}");
            assert_ne!(told["member"]["torn"], true, "at {at}: {answer:?}");
            right += 1;
        }
        sim.forget_faults();
        sim.lift();
    }
    assert!(right > 16, "{right}");
    shop.close().await;
}

/// A top-up that is cut off, by what is lost on the line or by the card leaving, leaves the old
/// or the new; the next tap settles which.
#[tokio::test(flavor = "multi_thread")]
async fn a_cut_top_up_is_settled_by_the_next_tap() {
    let sim = Pn532Sim::plug_in(tcp()).await.unwrap();
    let reader = format!("kind = \"pn532\"\nlink = \"tcp://{}\"", sim.name());
    let shop = Shop::open_at(&reader, 0, "[purse]\n").await;
    sim.lay(blank(Sim::Ntag215));
    shop.issue("8800000042", "i").await;
    shop.done(CARD, topup(10_000), "t").await;
    let mut balance = 10_000;
    for (n, at) in [0, 3, 8, 14, 20, 26].into_iter().enumerate() {
        for fault in [Pn532Fault::NoAnswer, Pn532Fault::Late, Pn532Fault::Lift, Pn532Fault::LiftAfter] {
            let fen = 100 + i64::try_from(n).unwrap();
            let before = sim.lift().unwrap();
            while shop.get("/v1/readers/counter-1/card").await.status != 204 {}
            sim.lay(before);
            assert_eq!(shop.member().await["balance_fen"], balance, "{fault:?} at {at}");
            sim.fault_after(at, fault);
            let key = format!("t-{at}-{fault:?}");
            let mut body = topup(fen);
            body["wait_s"] = json!(2);
            let answer = shop.post(CARD, body.clone(), &key).await;
            let chip = sim.lift().unwrap();
            while shop.get("/v1/readers/counter-1/card").await.status != 204 {}
            sim.lay(chip);
            let now = shop.member().await["balance_fen"].as_i64().unwrap();
            assert!(now == balance || now == balance + fen, "{fault:?} at {at}: {balance} became {now}");
            if answer.status == 200 {
                assert_eq!(now, balance + fen, "{fault:?} at {at}: {answer:?}");
            }
            let settled = shop.post(CARD, body, &key).await;
            assert_eq!(settled.status == 200, now > balance, "{fault:?} at {at}: {answer:?}, {settled:?}");
            balance = now;
            sim.forget_faults();
        }
    }
    sim.lift();
    let (facts, _) = shop.close().await;
    let sum: i64 = facts
        .iter()
        .filter(|fact| fact.outcome == Outcome::Committed)
        .map(|fact| fact.principal_fen.0 + fact.bonus_fen.0)
        .sum();
    assert_eq!(sum, balance, "the journal is what the card holds");
}
