//! What a card's word for a purchase is worth: an imitation's, one that nobody could check, and
//! one of another terminal.

use super::*;
use crate::card::record::LastTransaction;
use crate::event::ledger::TransactionKind;

/// DEBIT is the last command of a write.
fn debit_of(bench: &Bench, chip: &Chip, old: &MemberRecord, new: &MemberRecord) -> usize {
    let (outcome, sent) = write(bench, &mut chip.clone(), old, new, 0, Cut::Never);
    assert_eq!(outcome, Some(WriteOutcome::Written));
    sent.len() - 1
}

fn word(bench: &Bench, chip: &Chip, new: &MemberRecord) -> Option<(Word, bool)> {
    let word = bench.keys.purse().unwrap().word(&uid(chip), Leaves::from(new));
    word.map(|(word, proof)| (word, proof.is_some()))
}

/// It shows a copied record, takes the purchase and shows the new one; its proof is wrong.
#[test]
fn an_imitation_pays_nothing() {
    for cut in [Cut::Never, Cut::Lost] {
        let bench = bench();
        let mut chip = issued(&bench);
        let old = current(&bench, &mut chip);
        let new = spent(&old);
        let at = debit_of(&bench, &chip, &old, &new);
        chip.imitate();
        let (outcome, _) = write(&bench, &mut chip, &old, &new, at, cut);
        assert_eq!(outcome, (cut == Cut::Never).then_some(WriteOutcome::Forged));
        // It shows it all the same; with the answer lost, only now the SAM sees its proof.
        assert_eq!(current(&bench, &mut chip), new, "{cut:?}");
        assert_eq!(word(&bench, &chip, &new), Some((Word::Refuted, true)), "{cut:?}");
        assert_eq!(bench.slot.tries_left(), 2, "{cut:?}: the SAM was asked once");
    }
}

/// The SAM leaves between its approval and the card's answer, or has gone on to another purchase,
/// or the card keeps no proof: the record is there, and nobody says that it is paid.
#[test]
fn what_could_not_be_checked_is_not_believed() {
    for (name, has_tac) in [("pulled", true), ("another purchase", true), ("no proof", false)] {
        let bench = bench();
        let mut chip = issued(&bench);
        let old = current(&bench, &mut chip);
        let new = spent(&old);
        let at = debit_of(&bench, &chip, &old, &new);
        bench.slot.1.store(name == "pulled", Ordering::Relaxed);
        if name == "no proof" {
            chip.keep_no_proof();
        }
        let cut = if name == "pulled" { Cut::Never } else { Cut::Lost };
        let (outcome, _) = write(&bench, &mut chip, &old, &new, at, cut);
        assert_eq!(outcome, (cut == Cut::Never).then_some(WriteOutcome::Unknown), "{name}");
        if name == "another purchase" {
            let masters = Masters { maintain: MAINTAIN, purchase: PURCHASE, load: LOAD, tac: [0x5A; 16] };
            let mut other = CardProfile::new(Sim::Cpu);
            other.uid = vec![0x11, 0x22, 0x33, 0x44];
            let mut other = Chip::with_purse(other, &masters);
            prepare(&bench, &mut other, false, 0, Cut::Never);
            let full = loaded(&fresh());
            for (from, to) in [(fresh(), full.clone()), (full.clone(), spent(&full))] {
                let (outcome, _) = write(&bench, &mut other, &from, &to, 0, Cut::Never);
                assert_eq!(outcome, Some(WriteOutcome::Written));
            }
        }
        for _ in 0..2 {
            assert_eq!(current(&bench, &mut chip), new, "{name}");
            assert_eq!(word(&bench, &chip, &new), Some((Word::Unproven, has_tac)), "{name}");
        }
        assert_eq!(bench.slot.tries_left(), 3, "{name}");
    }
}

/// The purchase never reached the card, and another terminal has taken the same amount since:
/// its proof is not held against the card.
#[test]
fn a_proof_of_another_terminal_accuses_nobody() {
    let (here, there) = (bench(), bench());
    let mut chip = issued(&here);
    let old = current(&here, &mut chip);
    let new = spent(&old);
    let at = debit_of(&here, &chip, &old, &new);
    assert_eq!(write(&here, &mut chip, &old, &new, at, Cut::Unheard).0, None);
    let last = LastTransaction { at_s: 1_790_000_000, kind: TransactionKind::Spend, tag: [9; 4] };
    let theirs = MemberRecord { last: Some(last), ..new.clone() };
    let (outcome, _) = write(&there, &mut chip, &old, &theirs, 0, Cut::Never);
    assert_eq!(outcome, Some(WriteOutcome::Written));
    let found = current(&here, &mut chip);
    assert_eq!((found.balance_fen(), found.last), (new.balance_fen(), theirs.last));
    assert_eq!(word(&here, &chip, &new), None);
    assert_eq!(here.slot.tries_left(), 3);
}

/// The ledger takes the proof first and lets it go after its commit; of no other transaction.
#[test]
fn a_proof_is_kept_until_the_ledger_has_it() {
    let bench = bench();
    let mut chip = issued(&bench);
    let old = current(&bench, &mut chip);
    let new = spent(&old);
    assert_eq!(write(&bench, &mut chip, &old, &new, 0, Cut::Never).0, Some(WriteOutcome::Written));
    let purse = bench.keys.purse().unwrap();
    for _ in 0..2 {
        assert_eq!(word(&bench, &chip, &new), Some((Word::Believed, true)));
    }
    for other in [&old, &earned(&new)] {
        assert_eq!(word(&bench, &chip, other), None);
        purse.forget(&uid(&chip), Leaves::from(other));
    }
    assert!(word(&bench, &chip, &new).is_some());
    purse.forget(&uid(&chip), Leaves::from(&new));
    assert_eq!(word(&bench, &chip, &new), None);
}
