//! Contact memory cards against the simulator's, which shares no code with the driver: every
//! command of a write and of an issue cut, and every code that is not ours. A code costs one try
//! an action at most, and the last try is never spent.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use crate::card::apdu::Response;
use crate::card::keys::KeyStore;
use crate::card::medium::{
    Finding, PrepareOutcome, Preparing, ReadStep, Reading, WriteOutcome, WriteStep, Writing,
};
use crate::card::probe::Answer;
use crate::card::record::MemberRecord;
use crate::card::record::tests::{keys, other_keys, record};
use crate::card::sle4442;
use crate::card::verdict::Refusal;
use crate::card::work::{WorkStep, Worked};
use crate::event::card::Technology;
use crate::ident::CardUid;
use crate::protocols::Bundle;
use crate::protocols::cards::CardLayout;
use crate::sim::card::{CardProfile, Chip, Technology as Sim};

fn layout() -> Arc<CardLayout> {
    static SHIPPED: OnceLock<Arc<CardLayout>> = OnceLock::new();
    let load = || {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("firmware-protocols");
        let layouts = Bundle::load(&folder).unwrap().cards;
        Arc::new(layouts.into_iter().find(|l| l.technologies.contains(&Technology::Sle4442)).unwrap())
    };
    Arc::clone(SHIPPED.get_or_init(load))
}

fn ours() -> Arc<dyn KeyStore> {
    Arc::new(keys())
}

fn delivered() -> Chip {
    Chip::new(CardProfile::new(Sim::Sle4442))
}

fn uid(chip: &Chip) -> CardUid {
    CardUid::from_bytes(&chip.shown()).unwrap()
}

fn tries(chip: &Chip) -> u32 {
    chip.code().unwrap().1
}

/// What goes wrong with one command.
#[derive(Debug, Clone, Copy)]
enum Wrong {
    /// The card leaves before it hears it.
    Unheard,
    /// It leaves after it did it.
    Lost,
    /// It leaves in the middle; the second half is ones, or zeros.
    Torn(u8),
    /// The reader says this instead, the card never heard it.
    Instead(&'static str),
}

const WRONGS: [Wrong; 7] = [
    Wrong::Unheard,
    Wrong::Lost,
    Wrong::Torn(0xFF),
    Wrong::Torn(0x00),
    Wrong::Instead("6300"),
    Wrong::Instead("A5A5A5"),
    // A reader of ACS says so whether the card did it or not.
    Wrong::Instead("9000"),
];

/// A conversation to its end, with something wrong behind so many commands; what was sent.
/// The last try was never spent, and no more than one.
fn talk(chip: &mut Chip, step: impl Into<WorkStep>, wrong: Option<(usize, Wrong)>) -> (Worked, Vec<Vec<u8>>) {
    let (mut step, mut sent) = (step.into(), Vec::new());
    chip.reset();
    let before = tries(chip);
    let worked = loop {
        let WorkStep::Transmit(command, work) = step else { panic!("such a card is not powered anew") };
        let apdu = command.to_bytes().to_vec();
        if apdu[1] == 0x20 {
            assert!(tries(chip) > 1, "a code with one try left");
        }
        let wrong = wrong.filter(|(at, _)| *at == sent.len()).map(|(_, wrong)| wrong);
        sent.push(apdu.clone());
        let answer = match wrong {
            None => chip.apdu(&apdu),
            Some(Wrong::Instead(said)) => hex::decode(said).unwrap(),
            Some(Wrong::Unheard) => Vec::new(),
            Some(Wrong::Lost) => {
                chip.apdu(&apdu);
                Vec::new()
            }
            Some(Wrong::Torn(byte)) => {
                let half = 5 + apdu.len().saturating_sub(5) / 2;
                chip.apdu(
                    &[&apdu[..half.min(apdu.len())], &vec![byte; apdu.len().saturating_sub(half)]].concat(),
                );
                Vec::new()
            }
        };
        step = match Response::parse(&answer) {
            Ok(answer) => work.answer(&Answer::Response(answer)),
            Err(_) => break WorkStep::Transmit(command, work).cut(),
        };
        if let WorkStep::Done(worked) = step {
            break worked;
        }
    };
    assert!(tries(chip) + 1 >= before, "more than one try was spent");
    (worked, sent)
}

fn name(chip: &mut Chip, wrong: Option<(usize, Wrong)>) -> (PrepareOutcome, usize) {
    let step = Preparing::name(uid(chip), sle4442::new_serial().unwrap());
    match talk(chip, step, wrong) {
        (Worked::Prepared(outcome), sent) => (outcome, sent.len()),
        other => panic!("{other:?}"),
    }
}

fn prepare(chip: &mut Chip, again: bool, wrong: Option<(usize, Wrong)>) -> (PrepareOutcome, Vec<Vec<u8>>) {
    let (technology, record) = (Technology::Sle4442, record(0));
    let step = Preparing::start(uid(chip), technology, &layout(), &record, &ours(), again).unwrap();
    match talk(chip, step, wrong) {
        (Worked::Prepared(outcome), sent) => (outcome, sent),
        other => panic!("{other:?}"),
    }
}

fn read_with(chip: &mut Chip, keys: Arc<dyn KeyStore>) -> Finding {
    let before = tries(chip);
    let step: ReadStep = Reading::start(uid(chip), layout(), keys, false);
    let (found, sent) = talk(chip, step, None);
    assert!(sent.iter().all(|apdu| matches!(apdu[1], 0xA4 | 0xB0)), "a tap shows no code and writes nothing");
    assert_eq!(tries(chip), before);
    match found {
        Worked::Read(found) => found,
        other => panic!("{other:?}"),
    }
}

fn shown(chip: &mut Chip) -> MemberRecord {
    match read_with(chip, ours()) {
        Finding::Opened(opened) => opened.current.record,
        other => panic!("{other:?}"),
    }
}

fn write(chip: &mut Chip, counter: u32, wrong: Option<(usize, Wrong)>) -> (WriteOutcome, Vec<Vec<u8>>) {
    let (old, new) = (record(counter), record(counter + 1));
    let step: WriteStep = Writing::start(uid(chip), layout(), ours(), old, new);
    match talk(chip, step, wrong) {
        (Worked::Written(outcome), sent) => (outcome, sent),
        other => panic!("{other:?}"),
    }
}

fn issued() -> Chip {
    let mut chip = delivered();
    assert_eq!(name(&mut chip, None).0, PrepareOutcome::Prepared);
    assert_eq!(prepare(&mut chip, false, None).0, PrepareOutcome::Prepared);
    chip
}

/// The serial is there for ever, for who knows the code, too.
fn keeps_its_serial(chip: &mut Chip) -> bool {
    let (code, _) = chip.code().unwrap();
    let was = uid(chip);
    for apdu in [
        vec![0xFF, 0xA4, 0, 0, 1, 6],
        [&[0xFF, 0x20, 0, 0, 3], &code[..]].concat(),
        vec![0xFF, 0xD0, 0, 8, 1, 0x00],
    ] {
        chip.apdu(&apdu);
    }
    uid(chip) == was
}

#[test]
fn a_card_is_named_issued_and_written() {
    let mut chip = delivered();
    assert_eq!(read_with(&mut chip, ours()), Finding::Refused(Refusal::Unformatted));
    assert_eq!(uid(&chip).as_str(), "A2131091FFFF8115");
    let mut chip = issued();
    assert_eq!(uid(&chip).as_str().len(), 12);
    assert_ne!(chip.code().unwrap().0, [0xFF; 3], "the delivered code opens it no more");
    assert_eq!(shown(&mut chip), record(0));
    for counter in 0..3 {
        assert_eq!(write(&mut chip, counter, None).0, WriteOutcome::Written);
        assert_eq!(shown(&mut chip), record(counter + 1));
    }
    assert!(keeps_its_serial(&mut chip));
    // A card that is given out is not empty.
    assert_eq!(prepare(&mut chip, false, None).0, PrepareOutcome::NotBlank);
    assert_eq!(write(&mut chip, 7, None).0, WriteOutcome::Changed);
    assert_eq!(read_with(&mut chip, Arc::new(other_keys("SH-0042"))), Finding::Refused(Refusal::WrongKey));
    assert_eq!(tries(&chip), 3);
}

#[test]
fn a_write_cut_anywhere_leaves_the_old_record_or_the_new() {
    let issued = issued();
    let (outcome, sent) = write(&mut issued.clone(), 0, None);
    assert_eq!(outcome, WriteOutcome::Written);
    let mut became = [0; 2];
    for at in 0..sent.len() {
        for wrong in WRONGS {
            let what = format!("{wrong:?} at {at}");
            let mut chip = issued.clone();
            let (outcome, _) = write(&mut chip, 0, Some((at, wrong)));
            let now = shown(&mut chip);
            assert!(now == record(0) || now == record(1), "{what}");
            became[usize::from(now == record(1))] += 1;
            match outcome {
                WriteOutcome::Written => assert_eq!(now, record(1), "{what}"),
                WriteOutcome::NotWritten => assert_eq!(now, record(0), "{what}"),
                WriteOutcome::Unknown => {}
                // The reader says of a code that it is wrong, and the card never heard it.
                WriteOutcome::Refused(Refusal::WrongKey) => assert_eq!(now, record(0), "{what}"),
                other => panic!("{what}: {other:?}"),
            }
            assert_eq!(write(&mut chip, now.counter, None).0, WriteOutcome::Written, "{what}");
            assert_eq!(tries(&chip), 3, "{what}: the right code gives all tries back");
        }
    }
    assert!(became.iter().all(|count| *count > 5), "{became:?}");
}

#[test]
fn an_issue_cut_anywhere_is_taken_up_again() {
    let (_, naming) = name(&mut delivered(), None);
    for at in 0..naming {
        for wrong in WRONGS {
            let what = format!("naming: {wrong:?} at {at}");
            let mut chip = delivered();
            let (outcome, _) = name(&mut chip, Some((at, wrong)));
            if sle4442::is_nameless(&uid(&chip)) {
                assert_ne!(outcome, PrepareOutcome::Prepared, "{what}");
                // Half a code is a wrong one: a card that nobody tried has three.
                let may =
                    if tries(&chip) == 3 { PrepareOutcome::Prepared } else { PrepareOutcome::TooFewTries };
                assert_eq!(name(&mut chip, None).0, may, "{what}");
            }
            if tries(&chip) == 3 {
                assert_eq!(prepare(&mut chip, false, None).0, PrepareOutcome::Prepared, "{what}");
                assert_eq!(shown(&mut chip), record(0), "{what}");
                assert!(keeps_its_serial(&mut chip), "{what}");
            }
        }
    }
    let mut named = delivered();
    name(&mut named, None);
    let (outcome, sent) = prepare(&mut named.clone(), false, None);
    assert_eq!(outcome, PrepareOutcome::Prepared);
    let change = sent.iter().position(|apdu| apdu[1] == 0xD2).unwrap();
    for (at, apdu) in sent.iter().enumerate() {
        for wrong in WRONGS {
            let what = format!("{wrong:?} at {at}, {:02X}", apdu[1]);
            let mut chip = named.clone();
            let (mut outcome, _) = prepare(&mut chip, false, Some((at, wrong)));
            let opens = matches!(read_with(&mut chip, ours()), Finding::Opened(_));
            assert!(
                !opens || chip.code() != delivered().code(),
                "{what}: a member's, and anybody may write it"
            );
            // Torn, or told as done and never heard.
            let lost_code = at == change && matches!(wrong, Wrong::Torn(_) | Wrong::Instead("9000"));
            let mut actions = 0;
            while outcome != PrepareOutcome::Prepared && actions < 3 {
                actions += 1;
                outcome = prepare(&mut chip, true, None).0;
            }
            if lost_code {
                // Not the code that we must take it for: such a card is thrown away, but never locked by us.
                assert_eq!((outcome, tries(&chip)), (PrepareOutcome::TooFewTries, 1), "{what}");
                continue;
            }
            // From the note on the card (written, read back) to the change two codes are possible.
            let in_doubt = (change - 2..=change).contains(&at);
            assert!(actions <= if in_doubt { 2 } else { 1 }, "{what}: {actions} actions");
            assert_eq!((shown(&mut chip), tries(&chip)), (record(0), 3), "{what}");
            assert_eq!(write(&mut chip, 0, None).0, WriteOutcome::Written, "{what}");
        }
    }
}

/// The code is not ours: each action costs a try, and the last is kept.
#[test]
fn a_wrong_code_is_presented_once_an_action_and_never_last() {
    let mut chip = issued();
    chip.set_code([0x12, 0x34, 0x56]);
    // Another card lies there when it is looked at again: nothing is said of the one that was meant.
    let (_, sent) = write(&mut chip.clone(), 0, None);
    let head = "A2131091FFFF8115FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF9000";
    let last = Some((sent.len() - 1, Wrong::Instead(head)));
    assert_eq!(write(&mut chip.clone(), 0, last).0, WriteOutcome::NotWritten);
    assert_eq!(write(&mut chip, 0, None).0, WriteOutcome::Refused(Refusal::WrongKey));
    assert_eq!(tries(&chip), 2);
    assert_eq!(write(&mut chip, 0, None).0, WriteOutcome::Refused(Refusal::WrongKey));
    let (outcome, sent) = write(&mut chip, 0, None);
    assert_eq!(outcome, WriteOutcome::Refused(Refusal::TooFewTries));
    assert!(sent.iter().all(|apdu| apdu[1] != 0x20));
    assert_eq!((shown(&mut chip), tries(&chip)), (record(0), 1), "it is still read");

    let mut chip = delivered();
    chip.set_code([0x12, 0x34, 0x56]);
    assert_eq!(name(&mut chip, None).0, PrepareOutcome::NotBlank);
    assert_eq!(name(&mut chip, None).0, PrepareOutcome::TooFewTries);
    assert_eq!(tries(&chip), 2, "of a stranger's card one try is spent, ever");

    let mut chip = delivered().named();
    chip.set_code([0x12, 0x34, 0x56]);
    assert_eq!(prepare(&mut chip, false, None).0, PrepareOutcome::NotBlank);
    assert_eq!(prepare(&mut chip, false, None).0, PrepareOutcome::TooFewTries);
    assert_eq!(tries(&chip), 2);
}

/// Another card slipped in between the tap and the write.
#[test]
fn another_card_gets_nothing() {
    let (mut other, card) = (issued(), issued());
    let step: WriteStep = Writing::start(uid(&card), layout(), ours(), record(0), record(1));
    let (worked, sent) = talk(&mut other, step, None);
    assert!(
        matches!(worked, Worked::Written(WriteOutcome::NotWritten | WriteOutcome::Changed)),
        "{worked:?}"
    );
    assert!(sent.iter().all(|apdu| matches!(apdu[1], 0xA4 | 0xB0)));
}

/// What a log would show of a conversation, at every command of it.
fn told_of(chip: &mut Chip, step: impl Into<WorkStep>) -> String {
    let (mut step, mut told) = (step.into(), String::new());
    chip.reset();
    loop {
        told += &format!("{step:?}\n");
        step = match step {
            WorkStep::Transmit(command, work) => {
                let answer = Response::parse(&chip.apdu(&command.to_bytes())).unwrap();
                told += &format!("{answer:?}\n");
                work.answer(&Answer::Response(answer))
            }
            WorkStep::Done(_) => return told,
            WorkStep::Reset(_) => panic!("such a card is not powered anew"),
        };
    }
}

#[test]
fn no_code_is_shown_by_any_step() {
    let mut chip = delivered().named();
    let (technology, record_0) = (Technology::Sle4442, record(0));
    let step = Preparing::start(uid(&chip), technology, &layout(), &record_0, &ours(), false).unwrap();
    let mut told = told_of(&mut chip, step);
    let step: WriteStep = Writing::start(uid(&chip), layout(), ours(), record(0), record(1));
    told += &told_of(&mut chip, step);
    assert!(told.contains("FF200000") && told.contains("FFD20001"), "both commands went by");
    let (code, _) = chip.code().unwrap();
    let [a, b, c] = code;
    for form in [hex::encode(code), hex::encode_upper(code), format!("{a}, {b}, {c}")] {
        assert!(!told.contains(&form), "{form}");
    }
}
