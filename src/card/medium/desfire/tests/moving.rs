//! A card moved to newer keys, each command of it cut or falsified in each way: until it is
//! finished the card is refused without a login, and no login is ever in vain.

use super::*;
use crate::card::keys::KeyVersion;
use crate::card::keys::rekey::Move;
use crate::card::medium::{MoveOutcome, MoveStep, Moving, MovingCard};
use crate::card::record::tests::store;

const OLD: KeyVersion = KeyVersion(1);
const NEW: KeyVersion = KeyVersion(2);

pub(super) fn go(line: &mut Line<'_>, technology: Technology, fresh: bool) -> Option<MoveOutcome> {
    let (uid, store) = (uid(line.chip), store());
    let card = MovingCard { uid: &uid, technology, store: &store };
    let keys: Arc<dyn KeyStore> = Arc::new(keys());
    let torn = Move { from: OLD, to: NEW, done: 0 };
    let mut step = Moving::start(&card, &layout(technology), &keys, torn, fresh).unwrap();
    loop {
        assert!(line.sent.len() < 60, "endless");
        step = match step {
            MoveStep::Done(outcome) => return Some(outcome),
            MoveStep::Reset(moving) => {
                line.chip.reset();
                moving.answer(&Answer::Reset)
            }
            MoveStep::Transmit(command, moving) => moving.answer(&line.transmit(&command)?),
        };
    }
}

/// The version that the header names, or why the card is refused.
fn shown(chip: &mut Chip, technology: Technology) -> Result<KeyVersion, Refusal> {
    match read(chip, technology) {
        Finding::Opened(opened) => {
            assert_eq!(opened.current.record, record(7));
            Ok(opened.header.key_version)
        }
        Finding::Refused(refusal) => Err(refusal),
        Finding::ReaderError => panic!("{technology:?}: nothing is wrong with the reader"),
    }
}

/// What a card given out now would hold.
fn new_card() -> MemberRecord {
    MemberRecord { key_version: NEW.0, ..record(0) }
}

fn is_proof_of_login(sent: &[Vec<u8>], at: usize) -> bool {
    at > 0 && sent[at].starts_with(&[0x90, 0xAF]) && [0x71, 0xAA].contains(&sent[at - 1][1])
}

#[test]
fn a_move_cut_anywhere_is_finished_later() {
    for (sim, technology) in ALL {
        let issued = issue(sim, technology);
        let mut whole = issued.clone();
        let mut all = line(&mut whole, None);
        assert_eq!(go(&mut all, technology, true), Some(MoveOutcome::Moved));
        let sent = all.sent;
        assert_eq!(shown(&mut whole, technology), Ok(NEW));
        let mut seen = std::collections::BTreeMap::<String, u32>::new();
        for cut in 0..sent.len() {
            for wrong in WRONGS {
                // Half a frame reaches no card; the simulated one would take it for a wrong key.
                if wrong == Wrong::Torn && is_proof_of_login(&sent, cut) {
                    continue;
                }
                let name = format!("{technology:?}, {wrong:?} at {cut} of {}", sent.len());
                let mut chip = issued.clone();
                let first = go(&mut line(&mut chip, Some((cut, wrong))), technology, true);
                let found = shown(&mut chip, technology);
                let is_whole = [Ok(OLD), Ok(NEW), Err(Refusal::Unformatted)].contains(&found);
                assert!(is_whole, "{name}: {found:?}");
                assert!(first != Some(MoveOutcome::Moved) || found == Ok(NEW), "{name}: {found:?}");
                *seen.entry(format!("{found:?}")).or_default() += 1;
                // A gateway that knows nothing of the move gives out no member's card.
                let given = format(&mut line(&mut chip, None), technology, &new_card(), Arc::new(keys()));
                assert_eq!(given, Some(PrepareOutcome::NotBlank), "{name}");
                assert_eq!(shown(&mut chip, technology), found, "{name}");
                let last = go(&mut line(&mut chip, None), technology, false);
                assert_eq!(last, Some(MoveOutcome::Moved), "{name}");
                assert_eq!(shown(&mut chip, technology), Ok(NEW), "{name}");
                let pairs = issued.application_keys().into_iter().zip(chip.application_keys());
                assert!(pairs.into_iter().all(|(old, new)| old != new), "{name}: a key was left");
                assert_eq!(chip.failed_logins(), 0, "{name}: a login in vain");
            }
        }
        assert_eq!(seen.len(), 3, "{technology:?}: {seen:?}");
        println!("{technology:?}: {} commands, {seen:?}", sent.len());
    }
}

/// A card that has keys of neither version, or does not have the one it names, is told from one
/// that left.
#[test]
fn keys_of_somebody_else_are_refused() {
    for (sim, technology) in ALL {
        let mut foreign = issue_with(sim, technology, &record(7), Arc::new(other_keys("SH-0042")));
        let mut line_to = line(&mut foreign, None);
        assert_eq!(go(&mut line_to, technology, true), Some(MoveOutcome::Refused), "{technology:?}");
        assert_eq!(writes(&line_to.sent), 0, "{technology:?}");
        let mut empty = empty(sim);
        let mut line_to = line(&mut empty, None);
        assert_eq!(go(&mut line_to, technology, true), Some(MoveOutcome::Refused), "{technology:?}");
        assert_eq!(writes(&line_to.sent), 0, "{technology:?}");
    }
}
