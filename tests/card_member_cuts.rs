//! A member card's record written through the real pcscd and cut at each of its commands: the next
//! tap tells the old record or the new.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "support/counter.rs"]
mod counter;
mod member_cards;
#[path = "support/pcscd.rs"]
mod pcscd;

use std::sync::Arc;
use std::time::Instant;

use baygate::card::apdu::{Command, Response};
use baygate::card::medium::{WriteOutcome, WriteStep, Writing};
use baygate::card::probe::Answer;
use baygate::card::record::MemberRecord;
use baygate::event::card::Technology;
use baygate::event::device::DeviceStatus::Ready;
use baygate::sim::card::{CardFault, Chip, Technology as Sim};
use counter::{Gateway, PATIENCE, pcsc_table};
use member_cards::{issue, last, members, present, record, uid};
use pcscd::Pcscd;

/// Writes through pcscd as the purse will; nothing when the card left.
fn write(
    reader: &std::ffi::CStr,
    technology: Technology,
    uid: &str,
    new: &MemberRecord,
) -> Option<WriteOutcome> {
    let context = pcsc::Context::establish(pcsc::Scope::User).unwrap();
    let deadline = Instant::now() + PATIENCE;
    let mut card = loop {
        match context.connect(reader, pcsc::ShareMode::Shared, pcsc::Protocols::ANY) {
            Ok(card) => break card,
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
        std::thread::yield_now();
    };
    let transaction = card.transaction().unwrap();
    let transmit = |command: &Command| {
        let mut buffer = [0; 258];
        let bytes = transaction.transmit(&command.to_bytes(), &mut buffer).ok()?;
        Some(Answer::Response(Response::parse(bytes).ok()?))
    };
    let members = members();
    let layout = members.layout(technology).unwrap();
    let mut step =
        Writing::start(uid.parse().unwrap(), layout, Arc::clone(&members.keys), record(), new.clone());
    loop {
        step = match step {
            WriteStep::Done(outcome) => return Some(outcome),
            WriteStep::Reset(_) => panic!("a right card needs no reset"),
            WriteStep::Transmit(command, writing) => writing.answer(&transmit(&command)?),
        };
    }
}

/// Every command of a write is cut once, through pcscd; then the card is tapped.
#[tokio::test(flavor = "multi_thread")]
async fn a_write_cut_anywhere_leaves_the_old_record_or_the_new() {
    let Some(pcscd) = Pcscd::start() else { return };
    let gateway = Gateway::new();
    let service = gateway.serve_members(pcsc_table("counter-1", "Virtual PCD 00 00"), Some(members()));
    gateway.expect_state("counter-1", Ready, None).await;
    let issued = issue(Sim::Classic1k, Technology::MifareClassic1k, &record());
    let uid = uid(&issued);
    let new = MemberRecord { counter: 13, principal_fen: 40_000, ..record() };
    let on_second_reader = |chip: Chip, cut: Option<usize>, new: MemberRecord, uid: String| async move {
        let sim = present(pcscd.port + 1, chip).await;
        if let Some(good) = cut {
            sim.fault_after(good, CardFault::PullTorn);
        }
        let write = move || write(c"Virtual PCD 00 01", Technology::MifareClassic1k, &uid, &new);
        let outcome = tokio::task::spawn_blocking(write).await.unwrap();
        let (chip, commands) = (sim.chip(), sim.apdus());
        sim.remove().await;
        (outcome, chip, commands)
    };
    let whole = on_second_reader(issued.clone(), None, new.clone(), uid.clone()).await;
    assert_eq!(whole.0, Some(WriteOutcome::Written));
    let first = whole.2.iter().position(|apdu| apdu[1] == 0xD6).unwrap();
    let last_write = whole.2.iter().rposition(|apdu| apdu[1] == 0xD6).unwrap();
    let mut expected = Vec::new();
    for cut in first - 1..=last_write + 1 {
        let (outcome, mut chip, _) =
            on_second_reader(issued.clone(), Some(cut), new.clone(), uid.clone()).await;
        assert_eq!(outcome, None, "cut at {cut}");
        chip.reset();
        let card = present(pcscd.port, chip).await;
        expected.push(format!("tapped {uid}"));
        gateway.expect_cards("counter-1", &expected.iter().map(String::as_str).collect::<Vec<_>>()).await;
        let member = last(&gateway, "card.tapped").await["member"].clone();
        let shown = (member["counter"].as_u64(), member["principal_fen"].as_u64());
        // The last block is filling from its middle on: half of it is all of the record.
        let is_new = cut >= last_write;
        let right = if is_new { (Some(13), Some(40_000)) } else { (Some(12), Some(50_000)) };
        assert_eq!(shown, right, "cut at {cut}");
        // Half a write is seen, and is no reason to refuse.
        assert_eq!(member["torn"] == true, cut >= first && !is_new, "cut at {cut}: {member}");
        card.remove().await;
        expected.push(format!("removed {uid}"));
        gateway.expect_cards("counter-1", &expected.iter().map(String::as_str).collect::<Vec<_>>()).await;
    }
    service.stop().await;
}

/// The same on a card that keeps transactions: pulled before or after each command, it has
/// the old record until CommitTransaction was heard, and nothing is ever torn.
#[tokio::test(flavor = "multi_thread")]
async fn a_desfire_pulled_at_any_command_has_committed_or_not() {
    committed_or_not(Sim::Desfire).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_desfire_ev1_pulled_at_any_command_has_committed_or_not() {
    committed_or_not(Sim::DesfireEv1).await;
}

async fn committed_or_not(sim: Sim) {
    let Some(pcscd) = Pcscd::start() else { return };
    let gateway = Gateway::new();
    let service = gateway.serve_members(pcsc_table("counter-1", "Virtual PCD 00 00"), Some(members()));
    gateway.expect_state("counter-1", Ready, None).await;
    let issued = issue(sim, Technology::Desfire, &record());
    let uid = uid(&issued);
    let new = MemberRecord { counter: 13, principal_fen: 40_000, ..record() };
    let on_second_reader = |chip: Chip, fault: Option<(usize, CardFault)>, new: MemberRecord, uid: String| async move {
        let sim = present(pcscd.port + 1, chip).await;
        if let Some((good, fault)) = fault {
            sim.fault_after(good, fault);
        }
        let write = move || write(c"Virtual PCD 00 01", Technology::Desfire, &uid, &new);
        let outcome = tokio::task::spawn_blocking(write).await.unwrap();
        let (chip, commands) = (sim.chip(), sim.apdus());
        sim.remove().await;
        (outcome, chip, commands)
    };
    let whole = on_second_reader(issued.clone(), None, new.clone(), uid.clone()).await;
    assert_eq!(whole.0, Some(WriteOutcome::Written));
    let commit = whole.2.iter().position(|apdu| apdu[1] == 0xC7).unwrap();
    assert_eq!(commit, whole.2.len() - 1, "CommitTransaction is the last command");
    let mut expected = Vec::new();
    for (cut, fault) in
        (0..=commit).flat_map(|cut| [CardFault::PullUnheard, CardFault::Pull].map(|fault| (cut, fault)))
    {
        let (outcome, mut chip, _) =
            on_second_reader(issued.clone(), Some((cut, fault)), new.clone(), uid.clone()).await;
        assert_eq!(outcome, None, "{fault:?} at {cut}");
        chip.reset();
        let card = present(pcscd.port, chip).await;
        expected.push(format!("tapped {uid}"));
        gateway.expect_cards("counter-1", &expected.iter().map(String::as_str).collect::<Vec<_>>()).await;
        let member = last(&gateway, "card.tapped").await["member"].clone();
        let shown = (member["counter"].as_u64(), member["principal_fen"].as_u64());
        let committed = cut == commit && fault == CardFault::Pull;
        let right = if committed { (Some(13), Some(40_000)) } else { (Some(12), Some(50_000)) };
        assert_eq!(shown, right, "{fault:?} at {cut}");
        assert_ne!(member["torn"], true, "{fault:?} at {cut}");
        card.remove().await;
        expected.push(format!("removed {uid}"));
        gateway.expect_cards("counter-1", &expected.iter().map(String::as_str).collect::<Vec<_>>()).await;
    }
    service.stop().await;
}
