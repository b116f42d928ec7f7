//! Cards that are not as they should be: cut while being issued, lifted while being asked,
//! partly unreadable, touched by a stranger.

// The simulator's names come from there, too.
use super::tests::*;
use super::write_tests::{spent, write};
use super::*;
use crate::card::keys::{CardRef, KeyRole, KeyStore, KeyVersion};
use crate::card::probe::Answer;
use crate::card::record::tests::{keys, record};
use crate::card::record::{Header, SLOT_BYTES, Which, encode};
use crate::card::verdict::Refusal;
use crate::event::card::Technology;
use crate::protocols::cards::Places;

pub(super) const IS_WRITE: fn(&Vec<u8>) -> bool = |apdu| apdu[1] == 0xD6;

/// Prepares; nothing when the card left in the middle.
pub(super) fn prepare(line: &mut Line<'_>, technology: Technology, again: bool) -> Option<PrepareOutcome> {
    let uid = uid(line.chip);
    let mut step =
        Preparing::start(uid, technology, &layout(technology), &record(7), &store_keys(), again).unwrap();
    loop {
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

/// Writes that cannot be half done and undone: a trailer torn in its access bits locks its
/// sector, and lock bits are only ever set.
pub(super) fn is_for_ever(technology: Technology, apdu: &[u8]) -> bool {
    match layout(technology).places {
        Places::Files(_) | Places::Contact(_) | Places::Purse(_) => panic!("neither pages nor blocks"),
        Places::Blocks(_) => apdu[1] == 0xD6 && apdu[3] % 4 == 3,
        Places::Pages(_) => apdu[1] == 0xD6 && apdu[3] == 2,
    }
}

/// Writes that, half done, leave half a mark, or close the header by half an AUTH0.
pub(super) fn hides_the_mark(technology: Technology, apdu: &[u8]) -> bool {
    apdu[1] == 0xD6 && apdu[3] == place::header(&layout(technology).places).at || apdu[5..] == [4, 0, 0, 8]
}

/// Cut at every command: the card counts as empty until the last, no password is tried in
/// vain, and it is prepared again, from wherever it stands.
#[test]
fn a_card_cut_while_being_issued_is_empty_and_is_prepared_again() {
    for (sim, technology) in ALL {
        let mut whole = empty(sim);
        let mut all = line(&mut whole);
        assert_eq!(prepare(&mut all, technology, false), Some(PrepareOutcome::Prepared));
        let sent = std::mem::take(&mut all.sent);
        assert_eq!(current(&mut whole, technology), record(7), "{technology:?}");
        for (good, apdu) in sent.iter().enumerate() {
            for end in End::CUTS {
                let is_torn = !matches!(end, End::Unheard | End::Lost);
                if is_torn && is_for_ever(technology, apdu) {
                    continue;
                }
                let name = format!("{technology:?}, cut at {good} of {}, {end:?}", sent.len());
                let mut cut = empty(sim);
                assert_eq!(prepare(&mut Line { good, end, ..line(&mut cut) }, technology, false), None);
                let found = read(&mut cut, technology);
                let is_last = good + 1 == sent.len();
                match found {
                    Finding::Opened(opened) => {
                        assert!(is_last && opened.current.record == record(7), "{name}");
                    }
                    Finding::Refused(Refusal::NotAMemberCard) => {
                        assert!(is_torn && hides_the_mark(technology, &sent[good]), "{name}");
                    }
                    other => assert_eq!(other, Finding::Refused(Refusal::Unformatted), "{name}"),
                }
                assert_eq!(cut.wrong_passwords(), 0, "{name}");
                let again = prepare(&mut line(&mut cut), technology, true);
                assert_eq!(again, Some(PrepareOutcome::Prepared), "{name}");
                assert_eq!(current(&mut cut, technology), record(7), "{name}");
            }
        }
    }
}

/// A tag that was closed and then cut is prepared again without its key being written again: that
/// stands, and torn it would be lost with the tag. Cut anywhere, it is prepared a third time.
#[test]
fn the_key_of_a_closed_card_is_not_written_again() {
    for (sim, technology) in ALL {
        let key = match technology {
            Technology::UltralightC => 0x2C..=0x2F,
            Technology::Ntag213 => 0x2B..=0x2C,
            _ => continue,
        };
        let writes_key = |apdu: &Vec<u8>| IS_WRITE(apdu) && key.contains(&apdu[3]);
        let mut closed = empty(sim);
        let mut first = line(&mut closed);
        assert_eq!(prepare(&mut first, technology, false), Some(PrepareOutcome::Prepared));
        assert!(first.sent.iter().any(writes_key), "{technology:?}");
        let mut again = closed.clone();
        let mut second = line(&mut again);
        assert_eq!(prepare(&mut second, technology, true), Some(PrepareOutcome::Prepared));
        let sent = std::mem::take(&mut second.sent);
        assert!(!sent.iter().any(writes_key), "{technology:?}");
        for (good, apdu) in sent.iter().enumerate() {
            for end in End::CUTS {
                let is_torn = !matches!(end, End::Unheard | End::Lost);
                if is_torn && is_for_ever(technology, apdu) {
                    continue;
                }
                let mut cut = closed.clone();
                assert_eq!(prepare(&mut Line { good, end, ..line(&mut cut) }, technology, true), None);
                let third = prepare(&mut line(&mut cut), technology, true);
                assert_eq!(third, Some(PrepareOutcome::Prepared), "{technology:?} {end:?} at {good}");
                assert_eq!(current(&mut cut, technology), record(7), "{technology:?} {end:?} at {good}");
            }
        }
    }
}

/// Lifted while it is being looked at, a blank card is not called another's.
#[test]
fn a_blank_card_that_is_lifted_is_not_foreign() {
    for (sim, technology) in ALL {
        let mut whole = empty(sim);
        let mut all = line(&mut whole);
        prepare(&mut all, technology, false).unwrap();
        let looks = all.sent.iter().position(IS_WRITE).unwrap();
        for good in 0..looks {
            let mut chip = empty(sim);
            let mut lifted = Line { good, end: End::Lifted, ..line(&mut chip) };
            let outcome = prepare(&mut lifted, technology, false);
            assert_eq!(
                outcome,
                Some(PrepareOutcome::NotWritten),
                "{technology:?}, lifted at {good} of {looks}"
            );
        }
    }
}

/// What the chip holds, past driver and guards, is what the codec makes.
#[test]
fn the_bytes_lie_where_the_layout_says() {
    let stored = |chip: &Chip, places: &[usize]| -> Vec<u8> {
        places.iter().flat_map(|at| chip.stored(*at).unwrap().to_vec()).collect()
    };
    for (sim, technology) in ALL {
        let chip = issue(sim, technology);
        let (header, a, b): (Vec<usize>, Vec<usize>, Vec<usize>) = match sim {
            Sim::Classic1k | Sim::Classic4k => (vec![1], vec![4, 5, 6, 8], vec![9, 10, 12, 13]),
            _ => ((4..8).collect(), (8..22).collect(), (22..36).collect()),
        };
        let uid = uid(&chip);
        let said = Header { layout: 1, key_version: KeyVersion(1), store: record(7).issuing_store };
        assert_eq!(stored(&chip, &header), said.encode(&uid, &keys()).unwrap(), "{technology:?}");
        assert_eq!(stored(&chip, &a)[..SLOT_BYTES], encode(&record(7), &uid, &keys()).unwrap());
        assert_eq!(stored(&chip, &b)[..SLOT_BYTES], [0; SLOT_BYTES]);
    }
}

/// Somebody else's key is on it: nothing is written, and an Ultralight C is not taken for
/// another chip's name.
#[test]
fn an_ultralight_c_with_a_key_is_not_blank() {
    let mut locked = empty(Sim::UltralightC);
    assert_eq!(locked.apdu(&hex::decode("FFD6002C0411223344").unwrap()), [0x90, 0x00]);
    let mut other = empty(Sim::Ntag213);
    for chip in [&mut locked, &mut other] {
        let mut line = line(chip);
        assert_eq!(prepare(&mut line, Technology::UltralightC, false), Some(PrepareOutcome::NotBlank));
        assert!(!line.sent.iter().any(IS_WRITE));
    }
}

#[test]
fn a_small_ultralight_is_not_issued() {
    // Also where what lies on it would be overwritten.
    for again in [false, true] {
        let mut chip = empty(Sim::UltralightEv1);
        let mut line = line(&mut chip);
        assert_eq!(prepare(&mut line, Technology::Ultralight, again), Some(PrepareOutcome::NotBlank));
        assert!(!line.sent.iter().any(IS_WRITE));
    }
}

/// The pages before AUTH0 are open to everybody. Their lock bits are not.
#[test]
fn a_stranger_cannot_lock_a_member_card() {
    for (sim, technology) in ALL {
        if let Places::Blocks(_) = layout(technology).places {
            continue;
        }
        let mut chip = issue(sim, technology);
        let uid = uid(&chip);
        chip.apdu(&hex::decode("FFD60002040000FFFF").unwrap());
        // Once into each slot.
        for _ in 0..2 {
            let old = current(&mut chip, technology);
            let outcome = write(&mut line(&mut chip), technology, &uid, &old, &spent(&old));
            assert_eq!(outcome, Some(WriteOutcome::Written), "{technology:?}");
        }
    }
}

/// A reader that has not noticed says the same as of a card that refuses.
#[test]
fn a_lifted_card_is_accused_of_nothing() {
    for (sim, technology) in ALL {
        let mut chip = issue(sim, technology);
        let uid = uid(&chip);
        let (old, new) = (record(7), spent(&record(7)));
        let (_, sent) = read_with(&mut chip, technology, store_keys());
        for good in 0..sent.len() {
            let mut lifted = Line { good, end: End::Lifted, ..line(&mut chip) };
            let found = read_on(&mut lifted, technology, store_keys());
            assert_eq!(found, Finding::ReaderError, "{technology:?}, lifted at {good}");
        }
        let mut whole = chip.clone();
        let mut all = line(&mut whole);
        write(&mut all, technology, &uid, &old, &new).unwrap();
        let (sent, first) = (all.sent.len(), all.sent.iter().position(IS_WRITE).unwrap());
        for good in 0..sent {
            let mut cut = chip.clone();
            let mut lifted = Line { good, end: End::Lifted, ..line(&mut cut) };
            let outcome = write(&mut lifted, technology, &uid, &old, &new);
            // The first write was sent, though it found no card.
            let right = if good < first { WriteOutcome::NotWritten } else { WriteOutcome::Unknown };
            assert_eq!(outcome, Some(right), "{technology:?}, lifted at {good} of {sent}");
        }
    }
}

#[test]
fn a_slot_that_cannot_be_read_is_a_slot_less() {
    for (sim, technology) in ALL {
        let (a, b) = match layout(technology).places {
            Places::Files(_) | Places::Contact(_) | Places::Purse(_) => panic!("neither pages nor blocks"),
            Places::Blocks(_) => (4, 9),
            Places::Pages(_) => (8, 22),
        };
        let mut chip = issue(sim, technology);
        let uid = uid(&chip);
        let (old, new) = (record(7), spent(&record(7)));
        write(&mut line(&mut chip), technology, &uid, &old, &new).unwrap();
        let mut found = |dead| read_on(&mut Line { dead, ..line(&mut chip) }, technology, store_keys());
        let opened = |finding| match finding {
            Finding::Opened(opened) => {
                let Opened { current, .. } = *opened;
                (current.record, current.slot, current.torn)
            }
            other => panic!("{technology:?}: {other:?}"),
        };
        assert_eq!(opened(found((b, 1))), (new.clone(), Which::B, false), "once is chance");
        assert_eq!(opened(found((b, usize::MAX))), (old.clone(), Which::A, true));
        assert_eq!(opened(found((a, usize::MAX))), (new.clone(), Which::B, true));
        let mut only = issue(sim, technology);
        let both = read_on(&mut Line { dead: (a, usize::MAX), ..line(&mut only) }, technology, store_keys());
        assert_eq!(both, Finding::Refused(Refusal::DamagedRecord), "{technology:?}");
    }
}

/// Key B was changed by somebody: the card is there, and its credit login fails.
#[test]
fn a_credit_login_that_fails_is_told_of_a_card_that_is_there() {
    let technology = Technology::MifareClassic1k;
    let mut chip = issue(Sim::Classic1k, technology);
    let uid = uid(&chip);
    let old = record(7);
    let card = CardRef { uid: &uid, store: &old.issuing_store, version: KeyVersion(1) };
    let login = keys().classic_login(card, KeyRole::Credit, 9).unwrap();
    let key_a = keys().classic_login(card, KeyRole::Debit, 9).unwrap().load.to_bytes()[5..11].to_vec();
    let trailer = [key_a.as_slice(), &[0x78, 0x77, 0x88, 0x00], &[0x33; 6]].concat();
    chip.reset();
    for command in [login.load, login.authenticate, place::update(11, &trailer)] {
        assert_eq!(chip.apdu(&command.to_bytes()), [0x90, 0x00]);
    }
    let outcome = write(&mut line(&mut chip), technology, &uid, &old, &spent(&old));
    assert_eq!(outcome, Some(WriteOutcome::Refused(Refusal::WrongKey)));
}
