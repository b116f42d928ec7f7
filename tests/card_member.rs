//! Member cards on the real pcscd: what a tap tells of each technology, each bad card's
//! own refusal without one write, and a write that is cut off.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "support/counter.rs"]
mod counter;
#[path = "support/pcscd.rs"]
mod pcscd;

use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use baygate::card::apdu::{Command, Response};
use baygate::card::keys::sealed::SealedKeys;
use baygate::card::keys::{CardRef, KeyStore, KeyVersion, Purpose};
use baygate::card::medium::{PrepareOutcome, PrepareStep, Preparing, WriteOutcome, WriteStep, Writing};
use baygate::card::member::{MemberPolicy, Members};
use baygate::card::probe::Answer;
use baygate::card::record::{Coupon, Header, MemberRecord, encode};
use baygate::clock::UtcMillis;
use baygate::event::card::{MemberStatus, Technology};
use baygate::event::device::DeviceStatus::Ready;
use baygate::event::ledger::CardType;
use baygate::ident::CardUid;
use baygate::protocols::Bundle;
use baygate::sim::card::fmcos::Masters;
use baygate::sim::card::{CardFault, CardProfile, CardSim, Chip, Technology as Sim};
use baygate::store::hotlist::HotlistOp;
use baygate::store::{Batch, Op};
use counter::{Gateway, PATIENCE, pcsc_table};
use pcscd::Pcscd;
use serde_json::{Value, json};
use zeroize::Zeroizing;

const STORE: &str = "SH-0042";
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

fn keys(from: u8) -> Arc<SealedKeys> {
    let masters = Purpose::ALL.into_iter().enumerate().map(|(place, purpose)| {
        ((KeyVersion(1), purpose), Zeroizing::new([from + u8::try_from(place).unwrap(); 16]))
    });
    Arc::new(SealedKeys::new(STORE.parse().unwrap(), KeyVersion(1), masters.collect()))
}

/// The shipped layouts are read once.
fn members() -> Arc<Members> {
    static MEMBERS: OnceLock<Arc<Members>> = OnceLock::new();
    Arc::clone(MEMBERS.get_or_init(load_members))
}

fn load_members() -> Arc<Members> {
    let bundle = Bundle::load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("firmware-protocols")).unwrap();
    let policy = MemberPolicy::of(STORE.parse().unwrap(), &["own"], jiff::tz::TimeZone::UTC);
    Arc::new(Members { keys: keys(1), layouts: bundle.cards.into_iter().map(Arc::new).collect(), policy })
}

fn record() -> MemberRecord {
    MemberRecord {
        card_no: "8800000042".parse().unwrap(),
        member_type: CardType::Named,
        status: MemberStatus::Active,
        issuing_store: STORE.parse().unwrap(),
        tier: 3,
        discount_class: 0,
        valid_until: None,
        principal_fen: 50_000,
        bonus_fen: 2_500,
        points: 300,
        coupons: [Coupon { kind: 7, left: 5 }, Coupon::default(), Coupon::default(), Coupon::default()],
        counter: 12,
        last: None,
        key_version: 1,
    }
}

fn empty(sim: Sim) -> Chip {
    let mut profile = CardProfile::new(sim);
    profile.direct_transmit = true;
    Chip::new(profile).named()
}

fn uid(chip: &Chip) -> String {
    hex::encode_upper(chip.shown())
}

fn issue_with(sim: Sim, technology: Technology, record: &MemberRecord, keys: Arc<SealedKeys>) -> Chip {
    prepared(empty(sim), technology, record, keys)
}

/// A CPU card as its maker personalises it for the tests' keys, given out.
fn cpu_card() -> Chip {
    let record = MemberRecord { principal_fen: 0, bonus_fen: 0, ..record() };
    prepared(personalised(), Technology::Cpu, &record, keys(1))
}

fn personalised() -> Chip {
    let masters = Masters { maintain: [7; 16], purchase: [6; 16], load: [0x47; 16], tac: [0x5A; 16] };
    Chip::with_purse(CardProfile::new(Sim::Cpu), &masters)
}

fn prepared(mut chip: Chip, technology: Technology, record: &MemberRecord, keys: Arc<SealedKeys>) -> Chip {
    let layout = members().layout(technology).unwrap();
    let uid: CardUid = uid(&chip).parse().unwrap();
    let keys: Arc<dyn KeyStore> = keys;
    let mut step = Preparing::start(uid, technology, &layout, record, &keys, false).unwrap();
    loop {
        step = match step {
            PrepareStep::Done(outcome) => {
                assert_eq!(outcome, PrepareOutcome::Prepared, "{technology:?}");
                break;
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
    chip.reset();
    chip
}

fn issue(sim: Sim, technology: Technology, record: &MemberRecord) -> Chip {
    issue_with(sim, technology, record, keys(1))
}

async fn present(port: u16, chip: Chip) -> CardSim {
    CardSim::present(("127.0.0.1", port), chip).await.unwrap()
}

/// The last event of that type.
async fn last(gateway: &Gateway, kind: &str) -> Value {
    gateway.told().await.into_iter().rfind(|(told, _)| told == kind).unwrap().1
}

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
                "authentic": true,
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
