//! Member cards on the real pcscd: what a tap tells of each technology, and each bad card's own
//! refusal without one write.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "support/counter.rs"]
mod counter;
mod member_cards;
#[path = "support/pcscd.rs"]
mod pcscd;

use std::sync::Arc;

use baygate::card::keys::sealed::SealedKeys;
use baygate::card::keys::{CardRef, KeyStore, KeyVersion, Purpose};
use baygate::card::record::{Header, MemberRecord, encode};
use baygate::clock::UtcMillis;
use baygate::event::card::{MemberStatus, Technology};
use baygate::event::device::DeviceStatus::Ready;
use baygate::ident::CardUid;
use baygate::sim::card::fmcos::Masters;
use baygate::sim::card::{CardFault, CardProfile, Chip, Technology as Sim};
use baygate::store::hotlist::HotlistOp;
use baygate::store::{Batch, Op};
use counter::{Gateway, pcsc_table};
use member_cards::{
    STORE, cpu_card, empty, issue, issue_with, keys, last, members, personalised, prepared, present, record,
    uid,
};
use pcscd::Pcscd;
use serde_json::json;
use zeroize::Zeroizing;

const ALL: [(Sim, Technology, &str); 11] = [
    (Sim::Classic1k, Technology::MifareClassic1k, "mifare-classic-1k"),
    (Sim::Classic4k, Technology::MifareClassic4k, "mifare-classic-4k"),
    (Sim::Ntag213, Technology::Ntag213, "ntag213"),
    (Sim::Ntag215, Technology::Ntag215, "ntag215"),
    (Sim::Ntag216, Technology::Ntag216, "ntag216"),
    (Sim::UltralightEv1Large, Technology::Ultralight, "ultralight"),
    (Sim::UltralightC, Technology::UltralightC, "ultralight-c"),
    (Sim::Desfire, Technology::Desfire, "desfire"),
    (Sim::DesfireEv1, Technology::Desfire, "desfire"),
    (Sim::Ntag424, Technology::Ntag424, "ntag424"),
    (Sim::Sle4442, Technology::Sle4442, "sle4442"),
];

#[tokio::test(flavor = "multi_thread")]
async fn a_tap_tells_the_member_on_every_technology() {
    let Some(pcscd) = Pcscd::start() else { return };
    let gateway = Gateway::new();
    let service = gateway.serve_members(pcsc_table("counter-1", "Virtual PCD 00 00"), Some(members()));
    gateway.expect_state("counter-1", Ready, None).await;
    let mut expected = Vec::new();
    // One number on two chips would be a copy.
    let numbered = |n: usize| {
        let card_no = format!("88000001{n:02}").parse().unwrap();
        MemberRecord { card_no, ..record() }
    };
    let cards = ALL
        .into_iter()
        .enumerate()
        .map(|(n, (sim, technology, name))| (issue(sim, technology, &numbered(n)), name, numbered(n)));
    // A reader that calls every Type 2 chip by one name.
    let chip = issue(Sim::UltralightC, Technology::UltralightC, &numbered(ALL.len()));
    let mut profile = CardProfile::new(Sim::UltralightC).misnamed();
    profile.direct_transmit = true;
    let misnamed = (chip.in_another_reader(profile), "ultralight-c", numbered(ALL.len()));
    for (chip, name, holds) in cards.chain([misnamed]) {
        let card = present(pcscd.port, chip).await;
        let uid = uid(&card.chip());
        expected.push(format!("tapped {uid}"));
        gateway.expect_cards("counter-1", &expected.iter().map(String::as_str).collect::<Vec<_>>()).await;
        let told = last(&gateway, "card.tapped").await;
        assert_eq!(told["technology"], name);
        assert_eq!(
            told["member"],
            json!({
                "card_no": holds.card_no, "type": "named", "status": "active", "tier": 3,
                "issuing_store": STORE, "principal_fen": 50_000, "bonus_fen": 2_500, "balance_fen": 52_500,
                "points": 300, "coupons": [{ "kind": 7, "left": 5 }], "counter": 12, "key_version": 1,
                "authentic": true, "offers": [], "reminders": [],
            }),
            "{name}"
        );
        println!("{name}: {} ms, {} APDUs", told["latency_ms"], card.apdus().len());
        assert_eq!(card.writes(), 0, "{name}");
        card.remove().await;
        expected.push(format!("removed {uid}"));
        gateway.expect_cards("counter-1", &expected.iter().map(String::as_str).collect::<Vec<_>>()).await;
    }
    // Its money is in its purse.
    let card = present(pcscd.port, cpu_card()).await;
    expected.push(format!("tapped {}", uid(&card.chip())));
    gateway.expect_cards("counter-1", &expected.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let told = last(&gateway, "card.tapped").await;
    let member = &told["member"];
    assert_eq!(
        (&told["technology"], &member["balance_fen"], &member["points"], &member["counter"]),
        (&json!("cpu"), &json!(0), &json!(300), &json!(12)),
        "{told}"
    );
    assert_eq!(card.writes(), 0);
    drop(card);
    service.stop().await;
}

/// A member's NTAG213 with these bytes from this page on, written by somebody who has the keys.
fn overwritten(page: u8, bytes: &[u8]) -> Chip {
    let mut chip = issue(Sim::Ntag213, Technology::Ntag213, &record());
    let (uid, store) = (uid(&chip).parse().unwrap(), STORE.parse().unwrap());
    let card = CardRef { uid: &uid, store: &store, version: KeyVersion(1) };
    chip.apdu(&keys(1).tag_login(card).unwrap().through_pn53x().to_bytes());
    for (page, bytes) in (page..).zip(bytes.chunks(4)) {
        let write = [&[0xFF, 0xD6, 0x00, page, 0x04], bytes].concat();
        assert_eq!(chip.apdu(&write), [0x90, 0x00]);
    }
    chip.reset();
    chip
}

/// First pages on an NTAG213 (docs/cards.md).
const HEADER: u8 = 4;
const SLOT_A: u8 = 8;
const SLOT_B: u8 = 22;

/// Cards of ours that somebody or something spoilt.
fn spoilt_cards() -> Vec<(&'static str, Chip)> {
    let uid: CardUid = uid(&empty(Sim::Ntag213)).parse().unwrap();
    let sealed = |record: MemberRecord| encode(&record, &uid, &*keys(1)).unwrap();
    let mut later = sealed(MemberRecord { counter: 13, ..record() });
    later[2] = 9;
    let header = Header { layout: 2, key_version: KeyVersion(1), store: STORE.parse().unwrap() };
    let masters = [((KeyVersion(1), Purpose::Record), 1), ((KeyVersion(1), Purpose::Debit), 2)];
    let masters = masters.map(|(id, byte)| (id, Zeroizing::new([byte; 16])));
    let elsewhere = SealedKeys::new("SH-0001".parse().unwrap(), KeyVersion(1), masters.into());
    let of_another_store = MemberRecord { issuing_store: "SH-0001".parse().unwrap(), ..record() };
    vec![
        ("damaged-record", overwritten(SLOT_A, &[0x55; 56])),
        ("record-conflict", overwritten(SLOT_B, &sealed(MemberRecord { points: 1, ..record() }))),
        ("record-conflict", overwritten(SLOT_B, &sealed(MemberRecord { counter: 10, ..record() }))),
        ("key-missing", overwritten(SLOT_B, &later)),
        ("unknown-format", overwritten(HEADER, &header.encode(&uid, &*keys(1)).unwrap())),
        (
            "store-not-accepted",
            issue_with(Sim::Ntag213, Technology::Ntag213, &of_another_store, Arc::new(elsewhere)),
        ),
    ]
}

/// With an application that is not ours.
fn desfire_of_another() -> Chip {
    let mut chip = empty(Sim::Desfire);
    assert_eq!(chip.apdu(&hex::decode("90CA000005F400120F8100").unwrap()), [0x91, 0x00]);
    chip
}

/// A CPU card of another company that uses the same software.
fn prepared_by_another() -> Chip {
    let masters = Masters { maintain: [0x86; 16], purchase: [6; 16], load: [0x47; 16], tac: [0x5A; 16] };
    let record = MemberRecord { principal_fen: 0, bonus_fen: 0, ..record() };
    let chip = Chip::with_purse(CardProfile::new(Sim::Cpu), &masters);
    prepared(chip, Technology::Cpu, &record, keys(0x80))
}

/// Cards that will not do, and why.
fn bad_cards() -> Vec<(&'static str, Chip)> {
    let (sim, technology) = (Sim::Classic1k, Technology::MifareClassic1k);
    let with = |change: fn(&mut MemberRecord)| {
        let mut record = record();
        change(&mut record);
        issue(Sim::Ntag213, Technology::Ntag213, &record)
    };
    let stopped = MemberRecord { card_no: "8800000666".parse().unwrap(), ..record() };
    let stopped = issue(Sim::Desfire, Technology::Desfire, &stopped);
    let mut locked = CardProfile::new(sim);
    locked.key = [0x12; 6];
    let mut phone = CardProfile::new(Sim::Cpu).with_uid(&[0x08, 0x1F, 0x2E, 0x3D]);
    phone.atr = Some(hex::decode("3B80800101").unwrap());
    let mut moved = cpu_card();
    moved.set_purse(1);
    let mut deaf = issue(Sim::Ntag213, Technology::Ntag213, &record());
    let mut profile = deaf.profile().clone();
    profile.direct_transmit = false;
    deaf = deaf.in_another_reader(profile);
    vec![
        ("unformatted", empty(sim)),
        ("unformatted", empty(Sim::Ntag216)),
        ("not-a-member-card", Chip::new(locked)),
        ("unformatted", empty(Sim::UltralightC)),
        ("wrong-key", issue_with(Sim::UltralightC, Technology::UltralightC, &record(), keys(0x80))),
        ("unformatted", empty(Sim::Desfire)),
        ("not-a-member-card", desfire_of_another()),
        ("wrong-key", issue_with(Sim::Desfire, Technology::Desfire, &record(), keys(0x80))),
        ("unformatted", empty(Sim::Ntag424)),
        ("wrong-key", issue_with(Sim::Ntag424, Technology::Ntag424, &record(), keys(0x80))),
        ("unformatted", empty(Sim::Sle4442)),
        ("unformatted", Chip::new(CardProfile::new(Sim::Sle4442))),
        ("wrong-key", issue_with(Sim::Sle4442, Technology::Sle4442, &record(), keys(0x80))),
        ("unformatted", personalised()),
        ("record-conflict", moved),
        ("wrong-key", prepared_by_another()),
        ("hotlisted", stopped),
        ("phone", Chip::new(phone)),
        ("bank-card", empty(Sim::Bank)),
        ("wrong-key", issue_with(sim, technology, &record(), keys(0x80))),
        ("wrong-key", issue_with(Sim::Ntag213, Technology::Ntag213, &record(), keys(0x80))),
        ("reader-cannot-log-in", deaf),
        ("blocked", with(|record| record.status = MemberStatus::Blocked)),
        ("returned", with(|record| record.status = MemberStatus::Returned)),
        ("replaced", with(|record| record.status = MemberStatus::Replaced)),
        ("expired", with(|record| record.valid_until = Some(jiff::civil::date(2020, 1, 1)))),
        ("hotlisted", with(|record| record.card_no = "8800000666".parse().unwrap())),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_cards_are_refused_without_a_write() {
    let Some(pcscd) = Pcscd::start() else { return };
    let gateway = Gateway::new();
    // Nothing expires by a clock that nobody has set.
    let clock = tempfile::tempdir().unwrap();
    let synced = clock.path().join("synchronized");
    std::fs::write(&synced, "").unwrap();
    baygate::clock::trust(&synced);
    let listed = vec!["8800000666".parse().unwrap()];
    let hotlist = HotlistOp::Put { version: 1, as_of: UtcMillis::now(), cards: listed };
    gateway.store.commit(Batch::new().op(Op::Hotlist(hotlist))).await.unwrap();
    let service = gateway.serve_members(pcsc_table("counter-1", "Virtual PCD 00 00"), Some(members()));
    gateway.expect_state("counter-1", Ready, None).await;
    let mut expected = Vec::new();
    for (reason, chip) in bad_cards().into_iter().chain(spoilt_cards()) {
        let card = present(pcscd.port, chip).await;
        let uid = uid(&card.chip());
        expected.push(format!("refused {uid}"));
        gateway.expect_cards("counter-1", &expected.iter().map(String::as_str).collect::<Vec<_>>()).await;
        let told = last(&gateway, "card.refused").await;
        assert_eq!(told["reason"], reason, "{told}");
        let (zh, en) = (told["text"]["zh"].as_str().unwrap(), told["text"]["en"].as_str().unwrap());
        assert!(zh.ends_with('。') && en.is_ascii(), "{zh} {en}");
        assert_eq!(
            gateway.in_field().await[0].uid.as_str(),
            uid,
            "a refused card is in the field all the same"
        );
        assert_eq!(card.writes(), 0, "{reason}");
        assert_eq!(card.chip().wrong_passwords(), 0, "{reason}: no password tried in vain");
        assert_eq!(card.chip().failed_logins(), 0, "{reason}: no key tried in vain");
        assert!(card.chip().code().is_none_or(|(_, tries)| tries == 3), "{reason}: no code tried in vain");
        card.remove().await;
        expected.push(format!("removed {uid}"));
        gateway.expect_cards("counter-1", &expected.iter().map(String::as_str).collect::<Vec<_>>()).await;
    }
    // What has no layout here identifies, and no more.
    let card = present(pcscd.port, empty(Sim::Icode)).await;
    expected.push(format!("tapped {}", uid(&card.chip())));
    gateway.expect_cards("counter-1", &expected.iter().map(String::as_str).collect::<Vec<_>>()).await;
    assert_eq!(last(&gateway, "card.tapped").await.get("member"), None);
    drop(card);
    service.stop().await;
}

/// The answer to a password is lost, once: whatever the card made of it, it is asked for no
/// second one before it is presented again.
#[tokio::test(flavor = "multi_thread")]
async fn a_password_is_sent_once_a_tap() {
    let Some(pcscd) = Pcscd::start() else { return };
    let gateway = Gateway::new();
    let service = gateway.serve_members(pcsc_table("counter-1", "Virtual PCD 00 00"), Some(members()));
    gateway.expect_state("counter-1", Ready, None).await;
    let is_password = |apdu: &Vec<u8>| apdu.starts_with(&[0xFF, 0x00, 0x00, 0x00, 0x07, 0xD4, 0x42, 0x1B]);
    let card = present(pcscd.port, issue(Sim::Ntag213, Technology::Ntag213, &record())).await;
    let uid = uid(&card.chip());
    gateway.expect_cards("counter-1", &[&format!("tapped {uid}")]).await;
    let before = card.apdus().iter().position(is_password).unwrap();
    let mut chip = card.chip();
    card.remove().await;
    let [tapped, removed, refused] = ["tapped", "removed", "refused"].map(|word| format!("{word} {uid}"));
    gateway.expect_cards("counter-1", &[&tapped, &removed]).await;
    chip.reset();
    let card = present(pcscd.port, chip).await;
    card.fault_after(before, CardFault::Half);
    gateway.expect_cards("counter-1", &[&tapped, &removed, &refused]).await;
    assert_eq!(last(&gateway, "card.refused").await["reason"], "reader-error");
    assert_eq!(card.apdus().iter().filter(|apdu| is_password(apdu)).count(), 1);
    drop(card);
    service.stop().await;
}
