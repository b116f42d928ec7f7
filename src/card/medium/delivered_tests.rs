//! Empty Classics, whichever key everybody knows they are delivered with: told as empty, issued,
//! cut at every command; and those that only look empty, which stay as they are.

use super::tests::*;
use super::trouble_tests::{IS_WRITE, hides_the_mark, is_for_ever, prepare};
use super::*;
use crate::card::keys::transport::CLASSIC;
use crate::card::record::tests::record;
use crate::card::verdict::Refusal;
use crate::event::card::Technology;

const BOTH: [(Sim, Technology); 2] =
    [(Sim::Classic1k, Technology::MifareClassic1k), (Sim::Classic4k, Technology::MifareClassic4k)];
const PUBLIC_READ_KEY: [u8; 6] = [0xA0, 0xA1, 0xA2, 0xA3, 0xA4, 0xA5];

fn delivered(sim: Sim, key: [u8; 6]) -> Chip {
    let mut profile = CardProfile::new(sim);
    profile.key = key;
    Chip::new(profile)
}

/// Logs in to a block with key A, past the driver.
fn opens(chip: &mut Chip, key: [u8; 6], block: u8) -> bool {
    chip.reset();
    chip.apdu(&[&[0xFF, 0x82, 0x00, 0x00, 0x06], &key[..]].concat());
    chip.apdu(&[0xFF, 0x86, 0x00, 0x00, 0x05, 0x01, 0x00, block, 0x60, 0x00]) == [0x90, 0x00]
}

fn written(chip: &mut Chip, key: [u8; 6], block: u8, data: [u8; 16]) {
    assert!(opens(chip, key, block));
    assert_eq!(chip.apdu(&[&[0xFF, 0xD6, 0x00, block, 0x10], &data[..]].concat()), [0x90, 0x00]);
    chip.reset();
}

#[test]
fn every_key_a_card_is_delivered_with_is_found_and_none_is_left() {
    for (sim, technology) in BOTH {
        for public in CLASSIC {
            let mut chip = delivered(sim, public.key);
            assert_eq!(read(&mut chip, technology), Finding::Refused(Refusal::Unformatted), "{public:?}");
            let mut line = line(&mut chip);
            assert_eq!(prepare(&mut line, technology, false), Some(PrepareOutcome::Prepared), "{public:?}");
            let resets = line.sent.iter().filter(|apdu| apdu[1] == 0xCA).count();
            // Once found it is asked first in the next sector.
            let tries = CLASSIC.iter().position(|key| key == public).unwrap();
            assert!(resets <= tries + 2, "{public:?}: powered anew {resets} times");
            assert_eq!(current(&mut chip, technology), record(7), "{public:?}");
            for key in CLASSIC {
                for block in [1, 4, 8, 12] {
                    let is_header = block == 1 && key.key == PUBLIC_READ_KEY;
                    assert_eq!(opens(&mut chip, key.key, block), is_header, "{public:?} {key:?} {block}");
                }
            }
            assert!(opens(&mut chip, PUBLIC_READ_KEY, 1));
            let spoil = [&[0xFF, 0xD6, 0x00, 0x01, 0x10][..], &[0; 16]].concat();
            assert_eq!(chip.apdu(&spoil), [0x63, 0x00], "{public:?}: everybody may read, and only read");
        }
    }
}

/// With the key under which headers are read, too: no header shows before its sector is closed.
#[test]
fn cut_while_being_issued_it_is_empty_and_is_prepared_again() {
    let (sim, technology) = BOTH[0];
    for key in [PUBLIC_READ_KEY, [0x00; 6]] {
        let mut whole = delivered(sim, key);
        let mut all = line(&mut whole);
        assert_eq!(prepare(&mut all, technology, false), Some(PrepareOutcome::Prepared));
        let sent = std::mem::take(&mut all.sent);
        for (good, apdu) in sent.iter().enumerate() {
            for end in End::CUTS {
                let is_torn = !matches!(end, End::Unheard | End::Lost);
                if is_torn && is_for_ever(technology, apdu) {
                    continue;
                }
                let name = format!("{key:?}, cut at {good} of {}, {end:?}", sent.len());
                let mut cut = delivered(sim, key);
                assert_eq!(prepare(&mut Line { good, end, ..line(&mut cut) }, technology, false), None);
                match read(&mut cut, technology) {
                    Finding::Opened(_) => assert!(good + 1 == sent.len(), "{name}"),
                    Finding::Refused(Refusal::NotAMemberCard) => {
                        assert!(is_torn && hides_the_mark(technology, apdu), "{name}");
                    }
                    other => assert_eq!(other, Finding::Refused(Refusal::Unformatted), "{name}"),
                }
                let again = prepare(&mut line(&mut cut), technology, true);
                assert_eq!(again, Some(PrepareOutcome::Prepared), "{name}");
                assert_eq!(current(&mut cut, technology), record(7), "{name}");
            }
        }
    }
}

/// They open with a key everybody knows and are somebody's all the same, or with none.
#[test]
fn what_is_not_empty_is_not_written_whatever_opens_it() {
    let (sim, technology) = BOTH[0];
    for public in CLASSIC {
        let key = public.key;
        let mut data = delivered(sim, key);
        written(&mut data, key, 9, [0x01; 16]);
        // Key A may only read, as on a card that was personalised and not filled.
        let mut closed = delivered(sim, key);
        let trailer = [&key[..], &[0x78, 0x77, 0x88, 0x69], &[0x33; 6]].concat();
        written(&mut closed, key, 7, trailer.try_into().unwrap());
        let mut mixed = delivered(sim, key);
        let trailer = [&[0x12; 6][..], &[0xFF, 0x07, 0x80, 0x69], &[0x12; 6]].concat();
        written(&mut mixed, key, 15, trailer.try_into().unwrap());
        for (name, mut chip) in [("data", data), ("access bits", closed), ("another key", mixed)] {
            let mut line = line(&mut chip);
            let outcome = prepare(&mut line, technology, false);
            assert_eq!(outcome, Some(PrepareOutcome::NotBlank), "{public:?} {name}");
            assert!(!line.sent.iter().any(IS_WRITE), "{public:?} {name}");
        }
    }
    let mut foreign = delivered(sim, [0x12; 6]);
    assert_eq!(read(&mut foreign, technology), Finding::Refused(Refusal::NotAMemberCard));
    let mut line = line(&mut foreign);
    assert_eq!(prepare(&mut line, technology, false), Some(PrepareOutcome::NotBlank));
    assert!(!line.sent.iter().any(IS_WRITE));
}

/// Lifted while one key is tried behind the other, it is not called another's.
#[test]
fn lifted_between_two_keys_it_is_not_foreign() {
    let (sim, technology) = BOTH[0];
    let mut whole = delivered(sim, [0x00; 6]);
    let mut all = line(&mut whole);
    prepare(&mut all, technology, false).unwrap();
    let looks = all.sent.iter().position(IS_WRITE).unwrap();
    for good in 0..looks {
        let mut chip = delivered(sim, [0x00; 6]);
        let mut lifted = Line { good, end: End::Lifted, ..line(&mut chip) };
        let outcome = prepare(&mut lifted, technology, false);
        assert_eq!(outcome, Some(PrepareOutcome::NotWritten), "lifted at {good} of {looks}");
        let mut lifted = Line { good, end: End::Lifted, ..line(&mut chip) };
        let found = read_on(&mut lifted, technology, store_keys());
        assert!(
            matches!(found, Finding::ReaderError | Finding::Refused(Refusal::Unformatted)),
            "lifted at {good} of {looks}: {found:?}"
        );
    }
}
