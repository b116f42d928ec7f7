//! CPU cards against the simulated card and purchase SAM, which share no code with the driver:
//! spending, loading through headquarters, and every cut.

mod proof;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use zeroize::Zeroizing;

use super::super::*;
use crate::card::apdu::{Command, Response};
use crate::card::crypto::pboc;
use crate::card::crypto::tdes::TripleDesKey;
use crate::card::keys::psam::{Channel, ChannelError, Psam};
use crate::card::keys::till_purse::{Headquarters, Leaves, Load, TillPurse, Word};
use crate::card::keys::{KeyError, KeyStore};
use crate::card::probe::Answer;
use crate::card::record::MemberRecord;
use crate::card::record::tests::{keys, other_keys, record};
use crate::card::verdict::Refusal;
use crate::event::card::Technology;
use crate::event::ledger::Proof;
use crate::ident::CardUid;
use crate::protocols::cards::CardLayout;
use crate::sim::card::fmcos::Masters;
use crate::sim::card::psam::Psam as SimulatedPsam;
use crate::sim::card::{CardProfile, Chip, Technology as Sim, without_card};

const PURCHASE: [u8; 16] = [0x31; 16];
const LOAD: [u8; 16] = [0x47; 16];
/// Of the tests' key store, version 1.
const MAINTAIN: [u8; 16] = [0x16; 16];

/// A slot with the simulated SAM in it; it can be pulled, now or just before it checks a card.
#[derive(Debug, Clone)]
struct Slot(Arc<Mutex<Option<SimulatedPsam>>>, Arc<AtomicBool>);

impl Slot {
    fn new() -> Self {
        let terminal = [0x00, 0x11, 0x22, 0x33, 0x44, 0x55];
        Self(Arc::new(Mutex::new(Some(SimulatedPsam::new(PURCHASE, 1, terminal)))), Arc::default())
    }

    fn tries_left(&self) -> u8 {
        self.0.lock().unwrap().as_ref().unwrap().tries_left()
    }
}

impl Channel for Slot {
    fn transmit(&mut self, command: &Command) -> Result<Response, ChannelError> {
        let mut slot = self.0.lock().unwrap();
        if command.to_bytes().starts_with(&[0x80, 0x72]) && self.1.load(Ordering::Relaxed) {
            return Err(ChannelError);
        }
        let psam = slot.as_mut().ok_or(ChannelError)?;
        Response::parse(&psam.apdu(&command.to_bytes())).map_err(|_| ChannelError)
    }
}

/// Has the load key; agrees to every load whose MAC1 is right.
#[derive(Debug)]
struct Hq;

impl Headquarters for Hq {
    fn load_mac2(&self, load: &Load) -> Result<[u8; 4], KeyError> {
        let key = TripleDesKey::new(Zeroizing::new(LOAD)).disperse(&load.serial);
        let session = pboc::load_session(&key, load.random, load.online_sequence);
        assert_eq!(pboc::load_mac1(&session, load.balance, &load.terms), load.mac1);
        Ok(pboc::load_mac2(&session, &load.terms))
    }
}

struct Bench {
    slot: Slot,
    keys: Arc<dyn KeyStore>,
    layout: Arc<CardLayout>,
}

fn till(slot: &Slot) -> TillPurse {
    let slot = slot.clone();
    let open = move || -> Result<Box<dyn crate::card::keys::PurseKeys>, KeyError> {
        Ok(Box::new(Psam::open(slot.clone(), [0x10, 0x01])?))
    };
    TillPurse::new(Box::new(open), jiff::tz::TimeZone::UTC)
}

fn bench() -> Bench {
    let slot = Slot::new();
    let purse = till(&slot).with_headquarters(Arc::new(Hq));
    let keys: Arc<dyn KeyStore> = Arc::new(keys().with_purse(Some(Arc::new(purse))));
    Bench { slot, keys, layout: tests::layout(Technology::Cpu) }
}

fn personalised() -> Chip {
    let masters = Masters { maintain: MAINTAIN, purchase: PURCHASE, load: LOAD, tac: [0x5A; 16] };
    Chip::with_purse(CardProfile::new(Sim::Cpu), &masters)
}

fn uid(chip: &Chip) -> CardUid {
    CardUid::from_bytes(&chip.profile().uid).unwrap()
}

/// The proof of the transaction that left this record, where it was checked.
fn believed(bench: &Bench, chip: &Chip, record: &MemberRecord) -> Option<Proof> {
    match bench.keys.purse().unwrap().word(&uid(chip), Leaves::from(record))? {
        (Word::Believed, proof) => proof,
        _ => None,
    }
}

/// How a command is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cut {
    Never,
    Unheard,
    Lost,
    /// Half of its data is written, the rest is ones; the answer is lost.
    Torn,
    /// The reader answers without noticing that the card left.
    Lifted,
    /// The card does it; its answer is this.
    Says(&'static str),
}

/// Sends; nothing when the card left.
fn transmit(
    chip: &mut Chip,
    sent: &mut Vec<Vec<u8>>,
    at: usize,
    cut: Cut,
    command: &Command,
) -> Option<Answer> {
    let apdu = command.to_bytes().to_vec();
    let now = sent.len();
    sent.push(apdu.clone());
    let answer = match cut {
        _ if now < at => chip.apdu(&apdu),
        Cut::Never => chip.apdu(&apdu),
        Cut::Lifted => without_card(&apdu),
        _ if now > at => chip.apdu(&apdu),
        Cut::Unheard => return None,
        Cut::Lost => {
            chip.apdu(&apdu);
            return None;
        }
        Cut::Torn => {
            let half = 5 + apdu.len().saturating_sub(5) / 2;
            let torn: Vec<u8> =
                apdu.iter().enumerate().map(|(n, byte)| if n >= half { 0xFF } else { *byte }).collect();
            chip.apdu(&torn);
            return None;
        }
        Cut::Says(answer) => {
            chip.apdu(&apdu);
            hex::decode(answer).unwrap()
        }
    };
    Some(Answer::Response(Response::parse(&answer).unwrap()))
}

fn write(
    bench: &Bench,
    chip: &mut Chip,
    old: &MemberRecord,
    new: &MemberRecord,
    at: usize,
    cut: Cut,
) -> (Option<WriteOutcome>, Vec<Vec<u8>>) {
    chip.reset();
    let mut sent = Vec::new();
    let (layout, keys) = (Arc::clone(&bench.layout), Arc::clone(&bench.keys));
    let mut step = Writing::start(uid(chip), layout, keys, old.clone(), new.clone());
    loop {
        step = match step {
            WriteStep::Done(outcome) => return (Some(outcome), sent),
            WriteStep::Reset(writing) => writing.answer(&Answer::Reset),
            WriteStep::Transmit(command, writing) => match transmit(chip, &mut sent, at, cut, &command) {
                Some(answer) => writing.answer(&answer),
                None => return (None, sent),
            },
        };
    }
}

fn read_cut(bench: &Bench, chip: &mut Chip, at: usize, cut: Cut) -> (Option<Finding>, Vec<Vec<u8>>) {
    chip.reset();
    let mut sent = Vec::new();
    let mut step = Reading::start(uid(chip), Arc::clone(&bench.layout), Arc::clone(&bench.keys), false);
    loop {
        step = match step {
            ReadStep::Done(finding) => return (Some(finding), sent),
            ReadStep::Reset(reading) => reading.answer(&Answer::Reset),
            ReadStep::Transmit(command, reading) => match transmit(chip, &mut sent, at, cut, &command) {
                Some(answer) => reading.answer(&answer),
                None => return (None, sent),
            },
        };
    }
}

fn read(bench: &Bench, chip: &mut Chip) -> Finding {
    let (finding, sent) = read_cut(bench, chip, 0, Cut::Never);
    let writes = |apdu: &&Vec<u8>| matches!(apdu[..], [0x00, 0xD6, ..] | [0x80, 0x50 | 0x52 | 0x54, ..]);
    assert_eq!(sent.iter().find(writes), None, "reading writes nothing");
    finding.unwrap()
}

fn current(bench: &Bench, chip: &mut Chip) -> MemberRecord {
    match read(bench, chip) {
        Finding::Opened(opened) => opened.current.record,
        other => panic!("{other:?}"),
    }
}

fn fresh() -> MemberRecord {
    MemberRecord { principal_fen: 0, bonus_fen: 0, ..record(7) }
}

fn prepare(
    bench: &Bench,
    chip: &mut Chip,
    again: bool,
    at: usize,
    cut: Cut,
) -> (Option<PrepareOutcome>, usize) {
    let mut sent = Vec::new();
    let (layout, keys) = (&bench.layout, &bench.keys);
    let mut step = Preparing::start(uid(chip), Technology::Cpu, layout, &fresh(), keys, again).unwrap();
    loop {
        step = match step {
            PrepareStep::Done(outcome) => return (Some(outcome), sent.len()),
            PrepareStep::Reset(preparing) => {
                chip.reset();
                preparing.answer(&Answer::Reset)
            }
            PrepareStep::Transmit(command, preparing) => match transmit(chip, &mut sent, at, cut, &command) {
                Some(answer) => preparing.answer(&answer),
                None => return (None, sent.len()),
            },
        };
    }
}

fn loaded(old: &MemberRecord) -> MemberRecord {
    MemberRecord { counter: old.counter + 1, principal_fen: 50_000, bonus_fen: 2_500, ..old.clone() }
}

fn spent(old: &MemberRecord) -> MemberRecord {
    MemberRecord {
        counter: old.counter + 1,
        principal_fen: old.principal_fen - 1_234,
        points: 9,
        ..old.clone()
    }
}

fn earned(old: &MemberRecord) -> MemberRecord {
    MemberRecord { counter: old.counter + 1, points: old.points + 5, ..old.clone() }
}

/// Given out and loaded.
fn issued(bench: &Bench) -> Chip {
    let mut chip = personalised();
    assert_eq!(prepare(bench, &mut chip, false, 0, Cut::Never).0, Some(PrepareOutcome::Prepared));
    let (outcome, _) = write(bench, &mut chip, &fresh(), &loaded(&fresh()), 0, Cut::Never);
    assert_eq!(outcome, Some(WriteOutcome::Written));
    assert!(believed(bench, &chip, &loaded(&fresh())).is_some());
    chip
}

#[test]
fn money_goes_in_and_out_with_the_cards_signature() {
    let bench = bench();
    let mut chip = issued(&bench);
    let mut old = current(&bench, &mut chip);
    assert_eq!((old.balance_fen(), chip.purse()), (52_500, Some((52_500, 1, 0))));
    for round in 1..=3 {
        let new = spent(&old);
        assert_eq!(write(&bench, &mut chip, &old, &new, 0, Cut::Never).0, Some(WriteOutcome::Written));
        let proof = believed(&bench, &chip, &new).unwrap();
        assert_eq!((proof.terminal_id.as_str(), proof.terminal_sequence), ("001122334455", round));
        assert_eq!((proof.tac.len(), proof.key_version, proof.algorithm), (8, 1, 0));
        assert_eq!(current(&bench, &mut chip), new);
        old = new;
        // Points alone: the purse is not asked.
        let new = earned(&old);
        let (outcome, sent) = write(&bench, &mut chip, &old, &new, 0, Cut::Never);
        assert_eq!(outcome, Some(WriteOutcome::Written));
        assert!(!sent.iter().any(|apdu| apdu.starts_with(&[0x80, 0x50])));
        assert_eq!(current(&bench, &mut chip), new);
        old = new;
    }
    assert_eq!(chip.purse(), Some((52_500 - 3 * 1_234, 1, 3)));
    assert_eq!(bench.slot.tries_left(), 3);
}

#[test]
fn a_load_needs_headquarters_and_a_purchase_a_sam() {
    let with = bench();
    let chip = issued(&with);
    let old = current(&with, &mut chip.clone());
    let more = MemberRecord { counter: old.counter + 1, principal_fen: 60_000, ..old.clone() };
    let alone = Bench { keys: Arc::new(keys()), ..bench() };
    let no_line = Bench { keys: Arc::new(keys().with_purse(Some(Arc::new(till(&Slot::new()))))), ..bench() };
    let pulled = bench();
    *pulled.slot.0.lock().unwrap() = None;
    for (name, bench, new, refusal) in [
        ("no terminal", &alone, spent(&old), Refusal::KeyMissing),
        ("SAM pulled", &pulled, spent(&old), Refusal::KeyMissing),
        ("no line", &no_line, more, Refusal::NeedsHeadquarters),
    ] {
        let mut chip = chip.clone();
        let (outcome, sent) = write(bench, &mut chip, &old, &new, 0, Cut::Never);
        assert_eq!(outcome, Some(WriteOutcome::Refused(refusal)), "{name}");
        assert!(!sent.iter().any(|apdu| apdu.starts_with(&[0x00, 0xD6])), "{name}: nothing was written");
        assert_eq!(current(bench, &mut chip), old, "{name}");
    }
    let credit = MemberRecord { principal_fen: 1, ..fresh() };
    let start = Preparing::start(uid(&chip), Technology::Cpu, &with.layout, &credit, &with.keys, false);
    assert_eq!(start.unwrap_err(), FormatError::Keys(KeyError::NeedsHeadquarters));
}

/// Each command of each operation lost in every way, or answered with an error or garbage; then
/// the card is tapped: the record is the old or the new and agrees with the purse, no
/// authentication and no MAC2 was wrong, a purchase that happened is signed for, and the card
/// goes on from there.
#[test]
fn a_cut_leaves_the_old_or_the_new() {
    let whole = bench();
    let base = issued(&whole);
    let old = current(&whole, &mut base.clone());
    let more = MemberRecord { counter: old.counter + 1, principal_fen: 60_000, ..old.clone() };
    for (name, new) in [("spend", spent(&old)), ("earn", earned(&old)), ("load", more)] {
        let (outcome, sent) = write(&whole, &mut base.clone(), &old, &new, 0, Cut::Never);
        assert_eq!(outcome, Some(WriteOutcome::Written));
        let (mut olds, mut news) = (0, 0);
        let answers = ["6300", "6F00", "6985", "9302", "9000", "A5A59000"].map(Cut::Says);
        for by_before in [false, true] {
            for at in 0..sent.len() {
                for cut in [Cut::Unheard, Cut::Lost, Cut::Torn, Cut::Lifted].into_iter().chain(answers) {
                    let what = format!("{name}, {cut:?} at {at} of {}", sent.len());
                    let bench = bench();
                    let mut chip = base.clone();
                    if by_before {
                        chip.prove_by_counter_before();
                    }
                    let (outcome, _) = write(&bench, &mut chip, &old, &new, at, cut);
                    let found = current(&bench, &mut chip);
                    assert!(found == old || found == new, "{what}: {found:?}");
                    assert_eq!(Some(found.balance_fen()), chip.purse().map(|(fen, ..)| fen.into()), "{what}");
                    let is_new = found == new;
                    match outcome {
                        Some(WriteOutcome::Written) => assert!(is_new, "{what}"),
                        Some(WriteOutcome::Unknown) | None => {}
                        Some(other) => assert!(!is_new, "{what}: {other:?}"),
                    }
                    let proof = believed(&bench, &chip, &found);
                    let moved = found.balance_fen() != old.balance_fen();
                    assert_eq!(proof.is_some(), moved, "{what}: {proof:?}");
                    // Garbage in the place of an answer may be held against the challenge, once.
                    let guessed = u32::from(matches!(cut, Cut::Says(_)) || cut == Cut::Torn);
                    assert!(chip.failed_logins() <= guessed, "{what}");
                    assert!(u32::from(3 - bench.slot.tries_left()) <= guessed, "{what}");
                    if is_new {
                        news += 1
                    } else {
                        olds += 1
                    }
                    let next = earned(&found);
                    let (outcome, _) = write(&bench, &mut chip, &found, &next, 0, Cut::Never);
                    assert_eq!(outcome, Some(WriteOutcome::Written), "{what}");
                    assert_eq!(current(&bench, &mut chip), next, "{what}");
                }
            }
        }
        assert!(olds > 0 && news > 0, "{name}");
    }
}

#[test]
fn a_lifted_card_is_accused_of_nothing() {
    let bench = bench();
    let chip = issued(&bench);
    let (_, sent) = read_cut(&bench, &mut chip.clone(), 0, Cut::Never);
    for at in 0..sent.len() {
        let (found, _) = read_cut(&bench, &mut chip.clone(), at, Cut::Lifted);
        assert_eq!(found, Some(Finding::ReaderError), "lifted at {at}");
    }
}

#[test]
fn a_card_cut_while_being_given_out_is_empty() {
    let bench = bench();
    let (_, commands) = prepare(&bench, &mut personalised(), false, 0, Cut::Never);
    for at in 0..commands {
        for cut in [Cut::Unheard, Cut::Lost, Cut::Torn] {
            let mut chip = personalised();
            assert_eq!(prepare(&bench, &mut chip, false, at, cut).0, None);
            let found = read(&bench, &mut chip);
            let is_last = at + 1 == commands;
            let right = match &found {
                Finding::Opened(opened) => is_last && opened.current.record == fresh(),
                // Half a header.
                Finding::Refused(Refusal::NotAMemberCard) => is_last && cut == Cut::Torn,
                other => *other == Finding::Refused(Refusal::Unformatted),
            };
            assert!(right, "{cut:?} at {at}: {found:?}");
            // A torn proof is one.
            assert!(chip.failed_logins() <= u32::from(cut == Cut::Torn), "{cut:?} at {at}");
            if !matches!(found, Finding::Opened(_)) {
                let (outcome, _) = prepare(&bench, &mut chip, true, 0, Cut::Never);
                assert_eq!(outcome, Some(PrepareOutcome::Prepared), "{cut:?} at {at}");
                assert_eq!(current(&bench, &mut chip), fresh());
            }
        }
    }
}

#[test]
fn bad_cards_are_refused_each_for_its_reason() {
    let bench = bench();
    let foreign = Bench { keys: Arc::new(other_keys("SH-0042")), ..super::tests::bench() };
    let mut moved = issued(&bench);
    moved.set_purse(1);
    let mut forged = personalised();
    let masters = Masters { maintain: [0x77; 16], purchase: PURCHASE, load: LOAD, tac: LOAD };
    let mut changed = Chip::with_purse(CardProfile::new(Sim::Cpu), &masters);
    assert_eq!(prepare(&bench, &mut changed, false, 0, Cut::Never).0, Some(PrepareOutcome::NotBlank));
    assert_eq!(changed.failed_logins(), 1);
    for (name, bench, chip, refusal) in [
        ("empty", &bench, &mut forged, Refusal::Unformatted),
        ("another's keys", &foreign, &mut issued(&bench), Refusal::WrongKey),
        ("another terminal was at the purse", &bench, &mut moved, Refusal::RecordConflict),
        (
            "no application of ours",
            &bench,
            &mut Chip::new(CardProfile::new(Sim::Bank)),
            Refusal::NotAMemberCard,
        ),
    ] {
        assert_eq!(read(bench, chip), Finding::Refused(refusal), "{name}");
        assert_eq!(chip.failed_logins(), 0, "{name}: nothing was tried in vain");
    }
}
