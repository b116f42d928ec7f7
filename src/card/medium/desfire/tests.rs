//! Member cards of files against the simulator's chips, which share no code with the
//! driver: reading and every bad card; what goes wrong in the middle is in `trouble`, and newer
//! keys are in `moving`.

mod moving;
mod sun;
mod trouble;
mod value;

use std::path::Path;
use std::sync::{Arc, OnceLock};

use crate::card::apdu::{Command, Response};
use crate::card::keys::KeyStore;
use crate::card::medium::{
    Finding, PrepareOutcome, PrepareStep, Preparing, ReadStep, Reading, WriteOutcome, WriteStep, Writing,
};
use crate::card::probe::Answer;
use crate::card::record::MemberRecord;
use crate::card::record::tests::{keys, other_keys, record};
use crate::card::verdict::Refusal;
use crate::event::card::Technology;
use crate::ident::CardUid;
use crate::protocols::Bundle;
use crate::protocols::cards::CardLayout;
use crate::sim::card::{CardProfile, Chip, Technology as Sim};

const EV2: (Sim, Technology) = (Sim::Desfire, Technology::Desfire);
const EV1: (Sim, Technology) = (Sim::DesfireEv1, Technology::Desfire);
const NTAG_424: (Sim, Technology) = (Sim::Ntag424, Technology::Ntag424);
const ALL: [(Sim, Technology); 3] = [EV2, EV1, NTAG_424];

fn layout(technology: Technology) -> Arc<CardLayout> {
    static SHIPPED: OnceLock<Vec<CardLayout>> = OnceLock::new();
    let load =
        || Bundle::load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("firmware-protocols")).unwrap().cards;
    let layouts = SHIPPED.get_or_init(load);
    Arc::new(layouts.iter().find(|layout| layout.technologies.contains(&technology)).unwrap().clone())
}

fn empty(sim: Sim) -> Chip {
    Chip::new(CardProfile::new(sim))
}

fn uid(chip: &Chip) -> CardUid {
    CardUid::from_bytes(&chip.profile().uid).unwrap()
}

/// What goes wrong with one command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wrong {
    /// The card leaves before it hears it.
    Unheard,
    /// The card leaves after it did it.
    Lost,
    /// The card leaves, and the second half of the command was noise.
    Torn,
    /// An error status instead; the card never heard it.
    Refused(&'static str),
    /// The card did it, and this is what arrives.
    Instead(&'static str),
}

const WRONGS: [Wrong; 9] = [
    Wrong::Unheard,
    Wrong::Lost,
    Wrong::Torn,
    Wrong::Refused("91AE"),
    Wrong::Refused("6300"),
    Wrong::Instead("911E"),
    Wrong::Instead("9100"),
    Wrong::Instead("91AF"),
    Wrong::Instead("A5A5A5A5A5A5A5A5A5A59100"),
];

/// Who answers commands, and what goes wrong after how many.
struct Line<'c> {
    chip: &'c mut Chip,
    sent: Vec<Vec<u8>>,
    wrong: Option<(usize, Wrong)>,
}

fn line(chip: &mut Chip, wrong: Option<(usize, Wrong)>) -> Line<'_> {
    chip.reset();
    Line { chip, sent: Vec::new(), wrong }
}

impl Line<'_> {
    /// Nothing: the card left.
    fn transmit(&mut self, command: &Command) -> Option<Answer> {
        let mut apdu = command.to_bytes().to_vec();
        self.sent.push(apdu.clone());
        let wrong = self.wrong.filter(|(good, _)| self.sent.len() == good + 1).map(|(_, wrong)| wrong);
        let bytes = match wrong {
            None => self.chip.apdu(&apdu),
            Some(Wrong::Unheard) => return None,
            Some(Wrong::Lost) => {
                self.chip.apdu(&apdu);
                return None;
            }
            Some(Wrong::Torn) => {
                let half = 5 + apdu.len().saturating_sub(5) / 2;
                apdu.iter_mut().skip(half).for_each(|byte| *byte = 0xFF);
                self.chip.apdu(&apdu);
                return None;
            }
            Some(Wrong::Refused(answer)) => hex::decode(answer).unwrap(),
            Some(Wrong::Instead(answer)) => {
                self.chip.apdu(&apdu);
                hex::decode(answer).unwrap()
            }
        };
        Some(Answer::Response(Response::parse(&bytes).unwrap()))
    }
}

fn format(
    line: &mut Line<'_>,
    technology: Technology,
    record: &MemberRecord,
    keys: Arc<dyn KeyStore>,
) -> Option<PrepareOutcome> {
    prepare(line, technology, record, keys, false)
}

/// `again`: an earlier attempt was cut.
fn prepare(
    line: &mut Line<'_>,
    technology: Technology,
    record: &MemberRecord,
    keys: Arc<dyn KeyStore>,
    again: bool,
) -> Option<PrepareOutcome> {
    prepare_as(line, technology, &layout(technology), record, keys, again)
}

fn prepare_as(
    line: &mut Line<'_>,
    technology: Technology,
    layout: &CardLayout,
    record: &MemberRecord,
    keys: Arc<dyn KeyStore>,
    again: bool,
) -> Option<PrepareOutcome> {
    let uid = uid(line.chip);
    let mut step = Preparing::start(uid, technology, layout, record, &keys, again).unwrap();
    loop {
        assert!(line.sent.len() < 60, "endless");
        step = match step {
            PrepareStep::Done(outcome) => return Some(outcome),
            PrepareStep::Reset(preparing) => {
                line.chip.reset();
                preparing.answer(&Answer::Reset)
            }
            PrepareStep::Transmit(command, preparing) => preparing.answer(&line.transmit(&command)?),
        };
    }
}

fn issue_with(sim: Sim, technology: Technology, record: &MemberRecord, keys: Arc<dyn KeyStore>) -> Chip {
    let mut chip = empty(sim);
    let outcome = format(&mut line(&mut chip, None), technology, record, keys);
    assert_eq!(outcome, Some(PrepareOutcome::Prepared), "{sim:?}");
    chip.reset();
    chip
}

fn issue(sim: Sim, technology: Technology) -> Chip {
    issue_with(sim, technology, &record(7), Arc::new(keys()))
}

/// Commands that change a card.
fn writes(sent: &[Vec<u8>]) -> usize {
    let changes = |apdu: &&Vec<u8>| {
        apdu[0] == 0x90
            && [0x3D, 0x8D, 0x0C, 0x1C, 0xDC, 0xC4, 0xC7, 0xCA, 0xCB, 0xCD, 0x5F].contains(&apdu[1])
    };
    sent.iter().filter(changes).count()
}

fn read_on(line: &mut Line<'_>, technology: Technology) -> Option<Finding> {
    read_through(line, technology, |_, _| ())
}

/// `between` has each answer in its hands before the driver, and which one it is.
fn read_through(
    line: &mut Line<'_>,
    technology: Technology,
    mut between: impl FnMut(usize, &mut Response),
) -> Option<Finding> {
    let mut step = Reading::start(uid(line.chip), layout(technology), Arc::new(keys()), false);
    loop {
        assert!(line.sent.len() < 30, "endless");
        step = match step {
            ReadStep::Done(finding) => return Some(finding),
            ReadStep::Reset(_) => panic!("such a card needs no reset"),
            ReadStep::Transmit(command, reading) => {
                let mut answer = line.transmit(&command)?;
                if let Answer::Response(response) = &mut answer {
                    between(line.sent.len() - 1, response);
                }
                reading.answer(&answer)
            }
        };
    }
}

fn read(chip: &mut Chip, technology: Technology) -> Finding {
    let mut line = line(chip, None);
    let finding = read_on(&mut line, technology).unwrap();
    assert_eq!(writes(&line.sent), 0, "reading writes nothing");
    finding
}

fn current(chip: &mut Chip, technology: Technology) -> MemberRecord {
    match read(chip, technology) {
        Finding::Opened(opened) => opened.current.record,
        other => panic!("{technology:?}: {other:?}"),
    }
}

fn write(
    line: &mut Line<'_>,
    technology: Technology,
    uid: &CardUid,
    old: &MemberRecord,
    new: &MemberRecord,
) -> Option<WriteOutcome> {
    write_with(Arc::new(keys()), line, technology, uid, old, new)
}

fn write_with(
    keys: Arc<dyn KeyStore>,
    line: &mut Line<'_>,
    technology: Technology,
    uid: &CardUid,
    old: &MemberRecord,
    new: &MemberRecord,
) -> Option<WriteOutcome> {
    let mut step = Writing::start(uid.clone(), layout(technology), keys, old.clone(), new.clone());
    loop {
        assert!(line.sent.len() < 30, "endless");
        step = match step {
            WriteStep::Done(outcome) => return Some(outcome),
            WriteStep::Reset(_) => panic!("such a card needs no reset"),
            WriteStep::Transmit(command, writing) => writing.answer(&line.transmit(&command)?),
        };
    }
}

fn spent(old: &MemberRecord) -> MemberRecord {
    MemberRecord { counter: old.counter + 1, principal_fen: old.principal_fen - 1_234, ..old.clone() }
}

/// Each chip is logged in to as it can, by what it says of itself: none is asked in vain.
#[test]
fn a_chip_is_spoken_to_as_it_understands() {
    for ((sim, technology), login) in [(EV2, 0x71), (EV1, 0xAA), (NTAG_424, 0x71)] {
        let mut chip = empty(sim);
        let mut issued = line(&mut chip, None);
        format(&mut issued, technology, &record(7), Arc::new(keys())).unwrap();
        let sent = std::mem::take(&mut issued.sent);
        let logins = |sent: &[Vec<u8>]| -> Vec<u8> {
            let known = |ins: &u8| [0x0A, 0x1A, 0xAA, 0x71, 0x77].contains(ins);
            sent.iter().filter(|apdu| apdu[0] == 0x90).map(|apdu| apdu[1]).filter(known).collect()
        };
        assert_eq!(logins(&sent), [login; 2], "{sim:?}");
        let mut read = line(&mut chip, None);
        read_on(&mut read, technology).unwrap();
        assert_eq!(logins(&read.sent), [login], "{sim:?}");
    }
}

#[test]
fn an_issued_card_shows_its_member_and_goes_on() {
    for (sim, technology) in ALL {
        let mut chip = issue(sim, technology);
        let mut old = current(&mut chip, technology);
        assert_eq!(old, record(7));
        for _ in 0..4 {
            let (uid, new) = (uid(&chip), spent(&old));
            let outcome = write(&mut line(&mut chip, None), technology, &uid, &old, &new);
            assert_eq!(outcome, Some(WriteOutcome::Written), "{sim:?}");
            assert_eq!(current(&mut chip, technology), new);
            old = new;
        }
        assert_eq!(chip.failed_logins(), 0);
    }
}

/// The simulator guards what the layout says is guarded: else the tests here prove nothing.
#[test]
fn a_stranger_reads_the_header_and_no_more() {
    for (sim, technology) in [EV2, EV1] {
        is_guarded(issue(sim, technology));
    }
}

fn is_guarded(mut chip: Chip) {
    let ask = |chip: &mut Chip, apdu: &str| hex::encode_upper(chip.apdu(&hex::decode(apdu).unwrap()));
    assert_eq!(ask(&mut chip, "905A00000301474200"), "9100");
    assert!(ask(&mut chip, "90BD0000070100000010000000").starts_with("4247"));
    for (name, apdu) in [
        ("the record", "90BD0000070200000038000000"),
        ("write the record", "903D0000080200000001000055 00"),
        ("the money", "906C000001 03 00"),
        ("take money", "90DC000005 03 01000000 00"),
        ("put money on", "900C000005 03 01000000 00"),
        ("write the header", "903D0000080100000001000055 00"),
        ("create a file", "90CD000007 03 00 EEEE 100000 00"),
        ("delete the application", "90DA000003 014742 00"),
        ("change a key", "90C4000001 01 00"),
    ] {
        assert_eq!(ask(&mut chip, &apdu.replace(' ', "")), "91AE", "{name}");
    }
    // Keys as delivered open nothing; each key shows the version of ours.
    for number in ["00", "01", "02"] {
        assert_eq!(ask(&mut chip, &format!("9064000001{number}00")), "019100");
    }
    assert_eq!(current(&mut chip, Technology::Desfire), record(7));
}

#[test]
fn bad_cards_are_refused_each_for_its_reason() {
    for (sim, technology) in [EV2, EV1] {
        bad_cards_are_refused(sim, technology);
    }
}

fn bad_cards_are_refused(sim: Sim, technology: Technology) {
    let ask = |chip: &mut Chip, apdu: &str| {
        assert_eq!(chip.apdu(&hex::decode(apdu.replace(' ', "")).unwrap()), [0x91, 0x00], "{apdu}");
    };
    let mut foreign = empty(sim);
    ask(&mut foreign, "90CA000005 F40012 0F 81 00");
    let mut begun = empty(sim);
    ask(&mut begun, "90CA000005 014742 0B 83 00");
    // Somebody's application with our number, and another's text in it.
    let mut same_number = empty(sim);
    ask(&mut same_number, "90CA000005 014742 0F 81 00");
    ask(&mut same_number, "905A000003 014742 00");
    ask(&mut same_number, "90CD000007 01 00 EEEE 100000 00");
    ask(&mut same_number, "903D000017 01 000000 100000 44454D4F44454D4F44454D4F44454D4F 00");
    let shanghai = MemberRecord { issuing_store: "SH-0001".parse().unwrap(), ..record(7) };
    let cases = [
        ("empty", empty(sim), Refusal::Unformatted),
        ("begun", begun, Refusal::Unformatted),
        ("another application", foreign, Refusal::NotAMemberCard),
        ("our number, another's file", same_number, Refusal::NotAMemberCard),
        (
            "another company's keys",
            issue_with(sim, technology, &record(7), Arc::new(other_keys("SH-0042"))),
            Refusal::WrongKey,
        ),
        (
            "another store's keys",
            issue_with(sim, technology, &shanghai, Arc::new(other_keys("SH-0001"))),
            Refusal::StoreNotAccepted,
        ),
    ];
    for (name, mut chip, refusal) in cases {
        assert_eq!(read(&mut chip, technology), Finding::Refused(refusal), "{name}");
        assert_eq!(chip.failed_logins(), 0, "{name}: no key was tried in vain");
    }
    // A card copied byte for byte onto another UID: the header's check does not hold.
    let issued = issue(sim, technology);
    let mut profile = issued.profile().clone();
    profile.uid = vec![0x04, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF];
    let mut copied = issued.in_another_reader(profile);
    assert_eq!(read(&mut copied, technology), Finding::Refused(Refusal::WrongKey));
}
