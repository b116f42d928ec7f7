//! Writing a member card's record: slots take turns, every cut and every wrong answer leaves the
//! old record or the new.

use super::tests::*;
use super::*;
use crate::card::apdu::Response;
use crate::card::probe::Answer;
use crate::card::record::tests::record;
use crate::card::record::{MemberRecord, Which};
use crate::event::card::Technology;
use crate::ident::CardUid;

/// Writes; nothing when the card left in the middle.
pub(super) fn write(
    line: &mut Line<'_>,
    technology: Technology,
    uid: &CardUid,
    expected: &MemberRecord,
    new: &MemberRecord,
) -> Option<WriteOutcome> {
    let layout = layout(technology);
    let mut step = Writing::start(uid.clone(), layout, store_keys(), expected.clone(), new.clone());
    loop {
        step = match step {
            WriteStep::Done(outcome) => return Some(outcome),
            WriteStep::Reset(writing) => {
                line.chip.reset();
                writing.answer(&Answer::Reset)
            }
            WriteStep::Transmit(command, writing) => writing.answer(&line.transmit(&command)?),
        };
    }
}

pub(super) fn spent(old: &MemberRecord) -> MemberRecord {
    MemberRecord { counter: old.counter + 1, principal_fen: old.principal_fen - 1_234, ..old.clone() }
}

#[test]
fn writes_alternate_between_the_slots() {
    for (sim, technology) in ALL {
        let mut chip = issue(sim, technology);
        let uid = uid(&chip);
        for round in 0..4 {
            let old = current(&mut chip, technology);
            let new = spent(&old);
            let outcome = write(&mut line(&mut chip), technology, &uid, &old, &new);
            assert_eq!(outcome, Some(WriteOutcome::Written), "{technology:?}");
            let Finding::Opened(opened) = read(&mut chip, technology) else { panic!() };
            assert_eq!(opened.current.record, new);
            assert_eq!(opened.current.before, Some(old), "the record before it stays");
            assert_eq!(opened.current.slot, if round % 2 == 0 { Which::B } else { Which::A });
        }
    }
}

/// The card leaves at every command of a write, in every way.
#[test]
fn a_cut_leaves_the_old_record_or_the_new() {
    for (sim, technology) in ALL {
        let issued = issue(sim, technology);
        let uid = uid(&issued);
        // The second write goes over a slot that holds an older record.
        for earlier in [0, 1] {
            let mut chip = issued.clone();
            for _ in 0..earlier {
                let old = current(&mut chip, technology);
                write(&mut line(&mut chip), technology, &uid, &old, &spent(&old)).unwrap();
            }
            let old = current(&mut chip, technology);
            let new = spent(&old);
            let mut whole = chip.clone();
            let mut all = line(&mut whole);
            write(&mut all, technology, &uid, &old, &new).unwrap();
            let commands = all.sent.len();
            let first_write = all.sent.iter().position(|apdu| apdu[1] == 0xD6).unwrap();
            let (mut olds, mut news) = (0, 0);
            for good in 0..commands {
                for end in End::CUTS {
                    let mut cut = chip.clone();
                    let mut stops = Line { good, end, ..line(&mut cut) };
                    assert_eq!(write(&mut stops, technology, &uid, &old, &new), None);
                    let found = current(&mut cut, technology);
                    let name = format!("{technology:?}, cut at {good} of {commands}, {end:?}");
                    assert!(found == old || found == new, "{name}: {found:?}");
                    assert!(found == old || good >= first_write, "{name}");
                    if found == old {
                        olds += 1
                    } else {
                        news += 1
                    }
                    // And the card goes on from there.
                    let outcome = write(&mut line(&mut cut), technology, &uid, &found, &spent(&found));
                    assert_eq!(outcome, Some(WriteOutcome::Written), "{name}");
                }
            }
            assert!(olds > 0 && news > 0, "{technology:?}");
        }
    }
}

#[test]
fn a_write_is_for_one_card_and_one_record() {
    for (sim, technology) in ALL {
        let mut chip = issue(sim, technology);
        let own = uid(&chip);
        let old = current(&mut chip, technology);
        let other: CardUid = "0411223344".parse().unwrap();
        let stale = MemberRecord { points: 1, ..old.clone() };
        let jump = MemberRecord { counter: old.counter + 2, ..old.clone() };
        for (name, uid, expected, new) in [
            ("another card", &other, &old, spent(&old)),
            ("a record seen before another wrote", &own, &stale, spent(&stale)),
            ("a counter that jumps", &own, &old, jump),
            ("a counter that stays", &own, &old, old.clone()),
        ] {
            let mut line = line(&mut chip);
            let outcome = write(&mut line, technology, uid, expected, &new);
            assert_eq!(outcome, Some(WriteOutcome::Changed), "{technology:?} {name}");
            assert!(line.sent.iter().all(|apdu| apdu[1] != 0xD6), "{technology:?} {name}");
        }
        assert_eq!(current(&mut chip, technology), old);
    }
}

/// Every answer of the card wrong at every place: a verdict or an outcome, never a panic,
/// and "written" only where it was.
#[test]
fn wrong_answers_at_every_place() {
    for (sim, technology) in [
        (Sim::Classic1k, Technology::MifareClassic1k),
        (Sim::Ntag213, Technology::Ntag213),
        (Sim::UltralightC, Technology::UltralightC),
    ] {
        let issued = issue(sim, technology);
        let uid = uid(&issued);
        let (old, new) = (record(7), spent(&record(7)));
        let mut whole = issued.clone();
        let mut all = line(&mut whole);
        write(&mut all, technology, &uid, &old, &new).unwrap();
        let commands = all.sent.len();
        for bad in 0..commands {
            for answer in ["6300", "9000", "A5A59000", "6982"] {
                let mut chip = issued.clone();
                let mut line = line(&mut chip);
                let mut step =
                    Writing::start(uid.clone(), layout(technology), store_keys(), old.clone(), new.clone());
                let mut asked = 0;
                let outcome = loop {
                    step = match step {
                        WriteStep::Done(outcome) => break outcome,
                        WriteStep::Reset(writing) => {
                            line.chip.reset();
                            writing.answer(&Answer::Reset)
                        }
                        WriteStep::Transmit(command, writing) => {
                            let mut got = line.transmit(&command).unwrap();
                            if asked == bad {
                                got =
                                    Answer::Response(Response::parse(&hex::decode(answer).unwrap()).unwrap());
                            }
                            asked += 1;
                            writing.answer(&got)
                        }
                    };
                };
                let found = current(&mut chip, technology);
                assert!(found == old || found == new);
                match outcome {
                    WriteOutcome::Written => assert_eq!(found, new),
                    WriteOutcome::Unknown => {}
                    _ => assert_eq!(found, old, "{outcome:?}"),
                }
            }
        }
    }
}
