//! The money in its value file: what the debit key can do and what it cannot, the limits, and
//! cards from before there was one.

use super::*;
use crate::card::apdu::Command;
use crate::card::crypto::ev2::Protection;
use crate::card::keys::{CardRef, KeyRole, KeyVersion, Purpose};
use crate::card::medium::desfire::channel::Messaging;
use crate::card::medium::desfire::span;
use crate::card::medium::desfire::talk::{Fault, Heard, Talk};
use crate::card::medium::{FormatError, MoveOutcome, Opened};
use crate::card::record::tests::{keys_without, store};
use crate::card::record::{SLOT_BYTES, encode};
use crate::protocols::cards::FilePlace;

const DESFIRE: [((Sim, Technology), Messaging); 2] = [(EV2, Messaging::Ev2), (EV1, Messaging::Ev1)];

fn opened(chip: &mut Chip, technology: Technology) -> Opened {
    match read(chip, technology) {
        Finding::Opened(opened) => *opened,
        other => panic!("{technology:?}: {other:?}"),
    }
}

/// A store without credit keys: what it may write, and that the rest is refused before a write.
#[test]
fn the_debit_key_takes_and_does_not_give() {
    for ((sim, technology), _) in DESFIRE {
        let debit_only: Arc<dyn KeyStore> = Arc::new(keys_without(Purpose::Credit));
        let mut chip = issue(sim, technology);
        let (uid, old) = (uid(&chip), record(7));
        let next = MemberRecord { counter: 8, ..old.clone() };
        for (name, new) in [
            ("a top-up", MemberRecord { principal_fen: old.principal_fen + 1, ..next.clone() }),
            ("a bonus", MemberRecord { bonus_fen: old.bonus_fen + 1, ..next.clone() }),
        ] {
            let mut line = line(&mut chip, None);
            let outcome = write_with(Arc::clone(&debit_only), &mut line, technology, &uid, &old, &new);
            assert_eq!(outcome, Some(WriteOutcome::Refused(Refusal::KeyMissing)), "{sim:?} {name}");
            assert_eq!(writes(&line.sent), 0, "{sim:?} {name}");
        }
        let sale = spent(&old);
        let points = MemberRecord { counter: sale.counter + 1, points: 999, ..sale.clone() };
        let all =
            MemberRecord { counter: points.counter + 1, principal_fen: 0, bonus_fen: 0, ..points.clone() };
        for (name, old, new) in
            [("a sale", &old, &sale), ("points", &sale, &points), ("all of it", &points, &all)]
        {
            let mut line = line(&mut chip, None);
            let outcome = write_with(Arc::clone(&debit_only), &mut line, technology, &uid, old, new);
            assert_eq!(outcome, Some(WriteOutcome::Written), "{sim:?} {name}");
            assert_eq!(current(&mut chip, technology), *new, "{sim:?} {name}");
        }
    }
}

/// Sends a command and what follows it.
fn tell(line: &mut Line<'_>, talk: &mut Talk, first: Command) -> Result<(), Fault> {
    let mut command = first;
    loop {
        match talk.answer(&line.transmit(&command).unwrap()) {
            Heard::More(next) => command = next,
            Heard::Done(_) => return Ok(()),
            Heard::Failed(fault) => return Err(fault),
        }
    }
}

/// A command to be sent under a session: protection, instruction, header, data.
type Said = (Protection, u8, Vec<u8>, Vec<u8>);

/// What somebody with all keys but the one for credit tells a card, past this program.
fn as_a_thief(chip: &mut Chip, messaging: Messaging, said: &[Said]) -> Result<(), Fault> {
    let (uid, store) = (uid(chip), store());
    let keys = keys_without(Purpose::Credit);
    let card = CardRef { uid: &uid, store: &store, version: KeyVersion(1) };
    let mut line = line(chip, None);
    let mut talk = Talk::new();
    let select = talk.select(&[0x01, 0x47, 0x42]);
    tell(&mut line, &mut talk, select)?;
    assert!(messaging.login(&keys, card, KeyRole::Credit, 2).is_err(), "no credit key");
    let login = messaging.login(&keys, card, KeyRole::Debit, 1).unwrap();
    let begin = talk.log_in(login);
    tell(&mut line, &mut talk, begin)?;
    for (protection, ins, header, data) in said {
        let command = talk.command(*protection, *ins, header, data);
        tell(&mut line, &mut talk, command)?;
    }
    Ok(())
}

/// The chip itself says no, and a record without its money is none.
#[test]
fn whoever_has_the_debit_key_puts_no_money_on() {
    for ((sim, technology), messaging) in DESFIRE {
        let issued = issue(sim, technology);
        let value = |ins: u8, fen: i32| (Protection::Full, ins, vec![3], fen.to_le_bytes().to_vec());
        let commit = || (Protection::Mac, 0xC7, vec![], vec![]);
        let no_right = Err(Fault::Status(0xAE));
        for (name, said, answer) in [
            ("Credit", vec![value(0x0C, 1), commit()], no_right),
            ("LimitedCredit", vec![value(0xDC, 5), commit(), value(0x1C, 5), commit()], no_right),
            ("below nothing", vec![value(0xDC, 52_501), commit()], Err(Fault::Status(0xBE))),
            ("rights", vec![(Protection::Full, 0x5F, vec![3], vec![0x03, 0x11, 0x11])], no_right),
            ("the header", vec![(Protection::Mac, 0x3D, vec![1, 0, 0, 0, 1, 0, 0], vec![0])], no_right),
            ("nothing committed", vec![value(0xDC, 5)], Ok(())),
        ] {
            let mut chip = issued.clone();
            assert_eq!(as_a_thief(&mut chip, messaging, &said), answer, "{sim:?} {name}");
            let found = read(&mut chip, technology);
            // What was taken without the record does not count as a sale either.
            let is_same = matches!(&found, Finding::Opened(opened) if opened.current.record == record(7));
            let taken = name == "LimitedCredit" && found == Finding::Refused(Refusal::RecordConflict);
            assert!(is_same || taken, "{sim:?} {name}: {found:?}");
        }
        let richer = MemberRecord { counter: 8, principal_fen: 90_000, ..record(7) };
        let bytes = encode(&richer, &uid(&issued), &keys()).unwrap();
        let place = span(&FilePlace { file: 2, offset: 0 }, SLOT_BYTES);
        let mut chip = issued.clone();
        let written = [(Protection::Full, 0x3D, place.to_vec(), bytes.to_vec()), commit()];
        assert_eq!(as_a_thief(&mut chip, messaging, &written), Ok(()), "{sim:?}");
        assert_eq!(read(&mut chip, technology), Finding::Refused(Refusal::RecordConflict), "{sim:?}");
    }
}

/// A value file holds 32 bits with a sign; a record's two numbers can be more together.
#[test]
fn more_than_a_value_file_holds_is_refused_before_a_write() {
    let ((sim, technology), _) = DESFIRE[0];
    let most = u32::try_from(i32::MAX).unwrap();
    let full = MemberRecord { principal_fen: most, bonus_fen: 0, ..record(7) };
    let over = MemberRecord { counter: 8, bonus_fen: 1, ..full.clone() };
    let mut chip = issue_with(sim, technology, &full, Arc::new(keys()));
    assert_eq!(current(&mut chip, technology), full);
    let uid = uid(&chip);
    let mut line = line(&mut chip, None);
    let outcome = write(&mut line, technology, &uid, &full, &over);
    assert_eq!((outcome, writes(&line.sent)), (Some(WriteOutcome::NotWritten), 0));
    let keys: Arc<dyn KeyStore> = Arc::new(keys());
    let begun = Preparing::start(uid, technology, &layout(technology), &over, &keys, false);
    assert!(matches!(begun, Err(FormatError::Value(fen)) if fen == u64::from(most) + 1));
}

/// The layout before value files.
fn before(technology: Technology) -> CardLayout {
    layout(technology).version(1).unwrap().clone()
}

fn issued_before(sim: Sim, technology: Technology) -> Chip {
    let mut chip = empty(sim);
    let mut line = line(&mut chip, None);
    let outcome = prepare_as(&mut line, technology, &before(technology), &record(7), Arc::new(keys()), false);
    assert_eq!(outcome, Some(PrepareOutcome::Prepared), "{sim:?}");
    chip
}

/// Credit, Debit and GetValue.
fn names_a_value(sent: &[Vec<u8>]) -> bool {
    sent.iter().any(|apdu| apdu[0] == 0x90 && [0x6C, 0x0C, 0xDC].contains(&apdu[1]))
}

#[test]
fn a_card_from_before_value_files_goes_on_as_it_was() {
    for ((sim, technology), _) in DESFIRE {
        let mut chip = issued_before(sim, technology);
        assert_eq!(opened(&mut chip, technology).header.layout, 1, "{sim:?}");
        let (uid, old, new) = (uid(&chip), record(7), spent(&record(7)));
        let without = Arc::new(keys_without(Purpose::Credit));
        let mut refused = line(&mut chip, None);
        let outcome = write_with(without, &mut refused, technology, &uid, &old, &new);
        assert_eq!(outcome, Some(WriteOutcome::Refused(Refusal::KeyMissing)), "{sim:?}");
        assert_eq!(writes(&refused.sent), 0, "{sim:?}");
        let mut own = chip.clone();
        let mut sale = line(&mut own, None);
        assert_eq!(write(&mut sale, technology, &uid, &old, &new), Some(WriteOutcome::Written), "{sim:?}");
        assert!(!names_a_value(&sale.sent), "{sim:?}");
        assert_eq!(current(&mut own, technology), new, "{sim:?}");
        // Moved to newer keys it says its own layout still.
        let moved = moving::go(&mut line(&mut chip, None), technology, true);
        assert_eq!(moved, Some(MoveOutcome::Moved), "{sim:?}");
        let header = opened(&mut chip, technology).header;
        assert_eq!((header.layout, header.key_version), (1, KeyVersion(2)), "{sim:?}");
        let mut sale = line(&mut chip, None);
        assert_eq!(write(&mut sale, technology, &uid, &old, &new), Some(WriteOutcome::Written), "{sim:?}");
        assert!(!names_a_value(&sale.sent), "{sim:?}");
    }
}

/// Begun by a program that knew no value file, and cut: it gets one, however often it is cut again.
#[test]
fn an_issue_from_before_value_files_ends_with_one() {
    for ((sim, technology), _) in DESFIRE {
        let mut whole = empty(sim);
        let mut all = line(&mut whole, None);
        prepare_as(&mut all, technology, &before(technology), &record(7), Arc::new(keys()), false);
        let commands = all.sent.len();
        let mut upgraded = 0;
        for cut in 0..commands {
            let mut begun = empty(sim);
            let mut first = line(&mut begun, Some((cut, Wrong::Unheard)));
            prepare_as(&mut first, technology, &before(technology), &record(7), Arc::new(keys()), false);
            for again in 0.. {
                let name = format!("{sim:?}, cut at {cut}, then at {again}");
                let mut chip = begun.clone();
                let mut second = line(&mut chip, Some((again, Wrong::Lost)));
                let outcome = prepare(&mut second, technology, &record(7), Arc::new(keys()), true);
                if outcome.is_none() {
                    let mut third = line(&mut chip, None);
                    let outcome = prepare(&mut third, technology, &record(7), Arc::new(keys()), true);
                    // The answer to the last command alone was lost.
                    let right = [PrepareOutcome::Prepared, PrepareOutcome::NotBlank];
                    assert!(outcome.is_some_and(|outcome| right.contains(&outcome)), "{name}: {outcome:?}");
                }
                let found = opened(&mut chip, technology);
                assert_eq!((found.header.layout, &found.current.record), (2, &record(7)), "{name}");
                let (uid, old, new) = (uid(&chip), record(7), spent(&record(7)));
                let debit_only = Arc::new(keys_without(Purpose::Credit));
                let sale = write_with(debit_only, &mut line(&mut chip, None), technology, &uid, &old, &new);
                assert_eq!(sale, Some(WriteOutcome::Written), "{name}");
                upgraded += 1;
                if outcome.is_some() {
                    break;
                }
            }
        }
        assert!(upgraded > commands, "{sim:?}");
    }
}

/// A card that has its first record, and no header yet, may get another one with more money or less.
#[test]
fn a_first_record_is_written_over_with_its_money() {
    for ((sim, technology), _) in DESFIRE {
        let mut whole = empty(sim);
        let mut all = line(&mut whole, None);
        format(&mut all, technology, &record(7), Arc::new(keys())).unwrap();
        let header = all.sent.len() - 1;
        for principal_fen in [0, 49_999, 50_000, 123_456] {
            let mut chip = empty(sim);
            format(
                &mut line(&mut chip, Some((header, Wrong::Unheard))),
                technology,
                &record(7),
                Arc::new(keys()),
            );
            let other = MemberRecord { principal_fen, ..record(7) };
            let outcome = prepare(&mut line(&mut chip, None), technology, &other, Arc::new(keys()), true);
            assert_eq!(outcome, Some(PrepareOutcome::Prepared), "{sim:?} {principal_fen}");
            assert_eq!(current(&mut chip, technology), other, "{sim:?} {principal_fen}");
        }
    }
}
