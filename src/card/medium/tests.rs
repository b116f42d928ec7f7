//! Reading and writing member cards against the simulator's chips, which share no
//! code with the driver: every technology, every bad card, every cut.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use super::*;
use crate::card::apdu::{Command, Response};
use crate::card::keys::KeyStore;
use crate::card::probe::Answer;
use crate::card::record::tests::{keys, other_keys, record};
use crate::card::record::{Header, MemberRecord, Which};
use crate::card::verdict::Refusal;
use crate::event::card::Technology;
use crate::ident::CardUid;
use crate::protocols::Bundle;
use crate::protocols::cards::{CardLayout, Places};
pub(super) use crate::sim::card::{CardProfile, Chip, Technology as Sim, without_card};

pub(super) const ALL: [(Sim, Technology); 7] = [
    (Sim::Classic1k, Technology::MifareClassic1k),
    (Sim::Classic4k, Technology::MifareClassic4k),
    (Sim::Ntag213, Technology::Ntag213),
    (Sim::Ntag215, Technology::Ntag215),
    (Sim::Ntag216, Technology::Ntag216),
    (Sim::UltralightEv1Large, Technology::Ultralight),
    (Sim::UltralightC, Technology::UltralightC),
];

/// The shipped ones, read once.
fn layouts() -> Vec<CardLayout> {
    static SHIPPED: OnceLock<Vec<CardLayout>> = OnceLock::new();
    let load =
        || Bundle::load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("firmware-protocols")).unwrap().cards;
    SHIPPED.get_or_init(load).clone()
}

pub(super) fn layout(technology: Technology) -> Arc<CardLayout> {
    Arc::new(layouts().into_iter().find(|layout| layout.technologies.contains(&technology)).unwrap())
}

pub(super) fn store_keys() -> Arc<dyn KeyStore> {
    Arc::new(keys())
}

pub(super) fn empty(sim: Sim) -> Chip {
    let mut profile = CardProfile::new(sim);
    profile.direct_transmit = true;
    Chip::new(profile)
}

pub(super) fn uid(chip: &Chip) -> CardUid {
    CardUid::from_bytes(&chip.profile().uid).unwrap()
}

fn issue_with(sim: Sim, technology: Technology, record: &MemberRecord, keys: &dyn KeyStore) -> Chip {
    let mut chip = empty(sim);
    let uid = uid(&chip);
    for command in format_commands(technology, &layout(technology), &uid, record, keys).unwrap() {
        assert_eq!(chip.apdu(&command.to_bytes()), [0x90, 0x00], "{technology:?} {command:?}");
    }
    chip.reset();
    chip
}

pub(super) fn issue(sim: Sim, technology: Technology) -> Chip {
    issue_with(sim, technology, &record(7), &keys())
}

/// Who answers commands, and perhaps stops.
pub(super) struct Line<'c> {
    pub chip: &'c mut Chip,
    pub sent: Vec<Vec<u8>>,
    /// How many commands are answered; the next finds no card.
    pub good: usize,
    /// What becomes of the command that finds none.
    pub end: End,
    /// A page or block that cannot be read, so many times.
    pub dead: (u8, usize),
}

#[derive(Debug, Clone, Copy)]
pub(super) enum End {
    /// It never reaches the card.
    Unheard,
    /// The card does it, and the answer is lost.
    Lost,
    /// Half of its data is written; the other half reads as ones, as zeros, or lacks bits.
    TornToOnes,
    TornToZeros,
    TornBits,
    /// Nor does any later one, and the reader answers without noticing.
    Lifted,
}

impl End {
    pub const CUTS: [Self; 5] =
        [Self::Unheard, Self::Lost, Self::TornToOnes, Self::TornToZeros, Self::TornBits];

    fn torn(self, byte: u8) -> u8 {
        match self {
            Self::TornToOnes => 0xFF,
            Self::TornToZeros => 0x00,
            Self::TornBits => byte & 0x55,
            Self::Unheard | Self::Lost | Self::Lifted => byte,
        }
    }
}

impl Line<'_> {
    pub fn transmit(&mut self, command: &Command) -> Option<Answer> {
        let mut apdu = command.to_bytes().to_vec();
        let is_cut = self.sent.len() >= self.good;
        if is_cut && !matches!(self.end, End::Lifted) {
            let half = 5 + apdu.len().saturating_sub(5) / 2;
            apdu.iter_mut().skip(half).for_each(|byte| *byte = self.end.torn(*byte));
            if !matches!(self.end, End::Unheard) {
                self.chip.apdu(&apdu);
            }
            return None;
        }
        let (at, times) = &mut self.dead;
        let answer = if is_cut {
            without_card(&apdu)
        } else if apdu.starts_with(&[0xFF, 0xB0, 0x00, *at]) && *times > 0 {
            *times -= 1;
            vec![0x63, 0x00]
        } else {
            self.chip.apdu(&apdu)
        };
        self.sent.push(apdu);
        Some(Answer::Response(Response::parse(&answer).unwrap()))
    }
}

pub(super) fn line(chip: &mut Chip) -> Line<'_> {
    chip.reset();
    Line { chip, sent: Vec::new(), good: usize::MAX, end: End::Unheard, dead: (0, 0) }
}

/// Reads the card; also the commands that were sent.
pub(super) fn read_with(
    chip: &mut Chip,
    technology: Technology,
    keys: Arc<dyn KeyStore>,
) -> (Finding, Vec<Vec<u8>>) {
    let mut line = line(chip);
    (read_on(&mut line, technology, keys), line.sent)
}

/// Reads whatever the line gives.
pub(super) fn read_on(line: &mut Line<'_>, technology: Technology, keys: Arc<dyn KeyStore>) -> Finding {
    let mut step = Reading::start(uid(line.chip), layout(technology), keys, false);
    loop {
        step = match step {
            ReadStep::Done(finding) => return finding,
            ReadStep::Reset(reading) => {
                line.chip.reset();
                reading.answer(&Answer::Reset)
            }
            ReadStep::Transmit(command, reading) => reading.answer(&line.transmit(&command).unwrap()),
        };
    }
}

pub(super) fn read(chip: &mut Chip, technology: Technology) -> Finding {
    let (finding, sent) = read_with(chip, technology, store_keys());
    assert!(sent.iter().all(|apdu| apdu[1] != 0xD6), "reading writes nothing");
    finding
}

pub(super) fn current(chip: &mut Chip, technology: Technology) -> MemberRecord {
    match read(chip, technology) {
        Finding::Opened(opened) => opened.current.record,
        other => panic!("{technology:?}: {other:?}"),
    }
}

#[test]
fn layout_files_give_what_their_vectors_say() {
    let mut layouts = layouts();
    assert_eq!(verify_vectors(&layouts), []);
    layouts[0].vectors[0].offset += 1;
    let failures = verify_vectors(&layouts);
    assert_eq!(failures.len(), 1);
    assert!(failures[0].to_string().contains("byte 0 of slot 0"), "{}", failures[0]);
}

#[test]
fn an_issued_card_shows_its_member() {
    for (sim, technology) in ALL {
        let mut chip = issue(sim, technology);
        let Finding::Opened(opened) = read(&mut chip, technology) else { panic!("{technology:?}") };
        assert_eq!(opened.current.record, record(7), "{technology:?}");
        assert_eq!((opened.current.slot, opened.current.torn), (Which::A, false), "{technology:?}");
    }
}

/// The simulator guards what the layout says is guarded: else the tests here prove nothing.
#[test]
fn a_stranger_reads_the_header_and_no_more() {
    for (sim, technology) in ALL {
        let mut chip = issue(sim, technology);
        let ask = |chip: &mut Chip, apdu: &str| hex::encode_upper(chip.apdu(&hex::decode(apdu).unwrap()));
        if matches!(sim, Sim::Classic1k | Sim::Classic4k) {
            for key in ["FF82000006FFFFFFFFFFFF", "FF82000006A0A1A2A3A4A5"] {
                chip.reset();
                ask(&mut chip, key);
                assert_eq!(ask(&mut chip, "FF860000050100046000"), "6300", "{technology:?} {key}");
            }
            chip.reset();
            assert_eq!(ask(&mut chip, "FF860000050100016000"), "9000");
            assert!(ask(&mut chip, "FFB0000110").starts_with("4247"));
            assert_eq!(ask(&mut chip, &format!("FFD6000110{}", "00".repeat(16))), "6300");
        } else {
            assert!(ask(&mut chip, "FFB0000410").starts_with("4247"));
            assert_eq!(ask(&mut chip, "FFB0000810"), "6300", "{technology:?}");
            chip.reset();
            assert_eq!(ask(&mut chip, "FFD600080400000000"), "6300", "{technology:?}");
            chip.reset();
            assert_eq!(ask(&mut chip, "FF00000007D4421BFFFFFFFF"), "D543019000", "{technology:?}");
        }
        assert_eq!(current(&mut chip, technology), record(7));
    }
}

/// Opens a tag's closed pages.
fn log_in(chip: &mut Chip, technology: Technology, card: crate::card::keys::CardRef<'_>) {
    use super::page_login::{LoggedIn, PageLogin};
    let Places::Pages(pages) = &layout(technology).places else { panic!("{technology:?} has no pages") };
    let mut login = PageLogin::of(pages, card, &keys()).unwrap();
    loop {
        match login.answer(&Response::parse(&chip.apdu(&login.command().to_bytes())).unwrap()) {
            LoggedIn::Yes => return,
            LoggedIn::More(next) => login = next,
            LoggedIn::No(refusal) => panic!("{refusal:?}"),
        }
    }
}

/// Sends a slot's bytes past the driver, as whoever has the keys could.
fn overwrite(chip: &mut Chip, technology: Technology, which: Which, bytes: [u8; 56]) {
    let uid = uid(chip);
    let header = Header { layout: 1, key_version: keys().current(), store: record(1).issuing_store };
    let card = crate::card::keys::CardRef { uid: &uid, store: &header.store, version: header.key_version };
    chip.reset();
    for (piece, data) in place::slot_writes(&layout(technology).places, which, &bytes) {
        if matches!(technology, Technology::MifareClassic1k | Technology::MifareClassic4k) {
            let login = keys().classic_login(card, crate::card::keys::KeyRole::Credit, piece.at).unwrap();
            for command in [login.load, login.authenticate] {
                assert_eq!(chip.apdu(&command.to_bytes()), [0x90, 0x00]);
            }
        } else {
            log_in(chip, technology, card);
        }
        assert_eq!(chip.apdu(&piece.update(&data).to_bytes()), [0x90, 0x00]);
    }
}

#[test]
fn bad_cards_are_refused_each_for_its_reason() {
    for (sim, technology) in ALL {
        let sealed =
            |record: &MemberRecord| crate::card::record::encode(record, &uid(&empty(sim)), &keys()).unwrap();
        let mut copied = issue(sim, technology);
        let elsewhere = "04FFFFFFFFFFFF".parse().unwrap();
        let foreign = crate::card::record::encode(&record(9), &elsewhere, &keys()).unwrap();
        overwrite(&mut copied, technology, Which::B, foreign);
        assert_eq!(
            current(&mut copied, technology),
            record(7),
            "{technology:?}: another card's record counts for nothing"
        );

        let mut damaged = issue(sim, technology);
        overwrite(&mut damaged, technology, Which::A, [0x55; 56]);
        let mut forked = issue(sim, technology);
        overwrite(&mut forked, technology, Which::B, sealed(&MemberRecord { points: 1, ..record(7) }));
        let mut later = issue(sim, technology);
        let mut bytes = sealed(&record(8));
        bytes[2] = 9;
        overwrite(&mut later, technology, Which::B, bytes);
        let mut bare = issue(sim, technology);
        overwrite(&mut bare, technology, Which::A, [0; 56]);
        let shanghai = MemberRecord { issuing_store: "SH-0001".parse().unwrap(), ..record(7) };
        let cases = [
            ("empty", empty(sim), Refusal::Unformatted),
            ("prepared, not issued", bare, Refusal::Unformatted),
            ("both slots gone", damaged, Refusal::DamagedRecord),
            ("one counter, two records", forked, Refusal::RecordConflict),
            ("later keys", later, Refusal::KeyMissing),
            (
                "another company's keys",
                issue_with(sim, technology, &record(7), &other_keys("SH-0042")),
                Refusal::WrongKey,
            ),
            (
                "another store's keys",
                issue_with(sim, technology, &shanghai, &other_keys("SH-0001")),
                Refusal::StoreNotAccepted,
            ),
        ];
        for (name, mut chip, refusal) in cases {
            assert_eq!(read(&mut chip, technology), Finding::Refused(refusal), "{technology:?} {name}");
            let tried = (chip.wrong_passwords(), chip.failed_logins());
            assert_eq!(tried, (0, 0), "{technology:?} {name}: nothing was tried in vain");
        }
    }
}

/// A card whose header is ours and whose keys are not: somebody changed them. It costs
/// one wrong password a tap, and no more.
#[test]
fn changed_keys_cost_one_try() {
    let mut chip = issue(Sim::Ntag213, Technology::Ntag213);
    let uid = uid(&chip);
    let card = record(1);
    let card =
        crate::card::keys::CardRef { uid: &uid, store: &card.issuing_store, version: keys().current() };
    chip.apdu(&keys().tag_login(card).unwrap().through_pn53x().to_bytes());
    assert_eq!(chip.apdu(&hex::decode("FFD6002B0411223344").unwrap()), [0x90, 0x00]);
    assert_eq!(read(&mut chip, Technology::Ntag213), Finding::Refused(Refusal::WrongKey));
    assert_eq!(chip.wrong_passwords(), 1);
}

#[test]
fn foreign_cards_are_not_member_cards() {
    // An NDEF message on a tag; a Classic with somebody's keys.
    let mut tag = empty(Sim::Ntag215);
    assert_eq!(tag.apdu(&hex::decode("FFD60004040312D101").unwrap()), [0x90, 0x00]);
    let mut profile = CardProfile::new(Sim::Classic1k);
    profile.key = [0x12; 6];
    for (chip, technology) in
        [(&mut tag, Technology::Ntag215), (&mut Chip::new(profile), Technology::MifareClassic1k)]
    {
        assert_eq!(read(chip, technology), Finding::Refused(Refusal::NotAMemberCard));
    }
    // The same card at a reader that relays nothing.
    let issued = issue(Sim::Ntag213, Technology::Ntag213);
    let mut profile = issued.profile().clone();
    profile.direct_transmit = false;
    let mut chip = issued.in_another_reader(profile);
    assert_eq!(read(&mut chip, Technology::Ntag213), Finding::Refused(Refusal::ReaderCannotLogIn));
}
