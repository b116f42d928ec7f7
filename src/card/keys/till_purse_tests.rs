//! The SAM's turns, and its last try.

use std::sync::mpsc;

use super::*;
use crate::card::keys::purse::{Approval, Opening};

/// Like a SAM it knows its last purchase alone.
#[derive(Debug, Default)]
struct Last(u32);

impl PurseKeys for Last {
    fn terminal(&self) -> [u8; 6] {
        [7; 6]
    }

    fn approve(&mut self, _: &Purchase<'_>) -> Result<Approval, KeyError> {
        self.0 += 1;
        Ok(Approval { terminal_sequence: self.0, mac1: [0; 4], session: None })
    }

    fn confirm(&mut self, approval: &Approval, _: &[u8; 4]) -> Result<bool, KeyError> {
        if approval.terminal_sequence == self.0 { Ok(true) } else { Err(KeyError::Superseded) }
    }
}

fn approve(till: &TillPurse, uid: &CardUid, leaves: Leaves) {
    buy(till, uid, leaves).unwrap();
}

fn buy(till: &TillPurse, uid: &CardUid, leaves: Leaves) -> Result<(u32, [u8; 4]), KeyError> {
    let store = "SH-0042".parse().unwrap();
    let opening = Opening::parse(&[0, 0, 0x27, 0x10, 0, 7, 0, 0, 0, 1, 0, 1, 2, 3, 4]);
    let (serial, moment) = ([1; 8], till.moment());
    let purchase = Purchase { store: &store, serial, opening, amount: 5, moment };
    till.approve(uid, leaves, &purchase)
}

/// Counts as a SAM does, and locks itself; `[2; 4]` is the right answer.
#[derive(Debug, Clone)]
struct Locks(Arc<AtomicU8>);

impl PurseKeys for Locks {
    fn terminal(&self) -> [u8; 6] {
        [7; 6]
    }

    fn approve(&mut self, _: &Purchase<'_>) -> Result<Approval, KeyError> {
        Ok(Approval { terminal_sequence: 1, mac1: [0; 4], session: None })
    }

    fn confirm(&mut self, _: &Approval, mac2: &[u8; 4]) -> Result<bool, KeyError> {
        let left = if *mac2 == [2; 4] { 3 } else { self.0.load(Ordering::Relaxed) - 1 };
        self.0.store(left, Ordering::Relaxed);
        Ok(*mac2 == [2; 4])
    }
}

/// Imitations one behind the other, each another chip: the last try is not theirs, not even
/// where somebody starts the program anew in between.
#[test]
fn imitations_do_not_lock_the_sam() {
    use Word::{Believed, Refuted};
    let leaves = Leaves { counter: 1, tag: None };
    let (right, wrong) = ([2; 4], [9; 4]);
    let tries = Arc::new(AtomicU8::new(3));
    let cases = [
        (vec![(wrong, Refuted)], 2),
        (vec![(right, Believed), (wrong, Refuted), (right, Believed), (wrong, Refuted), (wrong, Refuted)], 1),
        // A person looked, and started it anew: a right one gives all back.
        (vec![(right, Believed), (wrong, Refuted), (wrong, Refuted)], 1),
    ];
    for (answers, left) in cases {
        let sam = Locks(Arc::clone(&tries));
        let till = TillPurse::new(Box::new(move || Ok(Box::new(sam.clone()))), TimeZone::UTC);
        for (n, (mac2, expected)) in (1..).zip(answers) {
            let uid = CardUid::from_bytes(&[4, 0, 0, n]).unwrap();
            approve(&till, &uid, leaves);
            assert_eq!(till.signed(&uid, [1; 4], Some(mac2)), expected);
        }
        let refused = buy(&till, &CardUid::from_bytes(&[4, 0, 0, 9]).unwrap(), leaves);
        assert_eq!(refused, Err(KeyError::SamSpared));
        assert_eq!(tries.load(Ordering::Relaxed), left);
    }
}

/// Its answer to a confirmation does not come, though the SAM heard the question; asked again it says
/// that no purchase is open.
#[derive(Debug)]
struct Mute(Locks, Arc<AtomicBool>);

impl PurseKeys for Mute {
    fn terminal(&self) -> [u8; 6] {
        self.0.terminal()
    }

    fn approve(&mut self, purchase: &Purchase<'_>) -> Result<Approval, KeyError> {
        self.1.store(true, Ordering::Relaxed);
        self.0.approve(purchase)
    }

    fn confirm(&mut self, approval: &Approval, mac2: &[u8; 4]) -> Result<bool, KeyError> {
        let what = "its confirmation";
        if !self.1.swap(false, Ordering::Relaxed) {
            return Err(KeyError::Sam { what, status: Some(0x6985) });
        }
        self.0.confirm(approval, mac2)?;
        Err(KeyError::Sam { what, status: None })
    }
}

/// Nobody heard whether the SAM found them wrong, so that they are taken for wrong ones; what it
/// said of something else counts nothing.
#[test]
fn answers_that_were_lost_do_not_lock_the_sam() {
    let leaves = Leaves { counter: 1, tag: None };
    let uid = |n| CardUid::from_bytes(&[4, 0, 0, n]).unwrap();
    let tries = Arc::new(AtomicU8::new(3));
    let sam = Locks(Arc::clone(&tries));
    let open = Arc::new(AtomicBool::new(false));
    let opener = move || -> Result<Box<dyn PurseKeys>, KeyError> {
        Ok(Box::new(Mute(sam.clone(), Arc::clone(&open))))
    };
    let till = TillPurse::new(Box::new(opener), TimeZone::UTC);
    approve(&till, &uid(1), leaves);
    assert_eq!(till.signed(&uid(1), [1; 4], Some([9; 4])), Word::Unproven);
    assert!(till.is_spared());
    assert_eq!(buy(&till, &uid(2), leaves), Err(KeyError::SamSpared));
    assert_eq!(tries.load(Ordering::Relaxed), 2);

    let till = TillPurse::new(Box::new(|| Ok(Box::<Last>::default())), TimeZone::UTC);
    for n in 1..4 {
        approve(&till, &uid(n), leaves);
        let superseded = Foil {
            approval: Some(Approval { terminal_sequence: 99, mac1: [0; 4], session: None }),
            ..foil(&till, &uid(n))
        };
        till.keep(&uid(n), superseded);
        assert_eq!(till.signed(&uid(n), [1; 4], Some([2; 4])), Word::Unproven);
    }
    assert!(!till.is_spared());
}

fn foil(till: &TillPurse, uid: &CardUid) -> Foil {
    lock(&till.foils).remove(uid).unwrap()
}

/// Two cards answer at once, each at a reader of its own: the second purchase begins before the
/// first answer is counted, or not at all.
#[test]
fn no_purchase_begins_between_an_answer_and_its_count() {
    #[derive(Debug)]
    struct Waits(mpsc::Sender<()>, mpsc::Receiver<()>, Locks);
    impl PurseKeys for Waits {
        fn terminal(&self) -> [u8; 6] {
            [7; 6]
        }
        fn approve(&mut self, purchase: &Purchase<'_>) -> Result<Approval, KeyError> {
            self.2.approve(purchase)
        }
        fn confirm(&mut self, approval: &Approval, mac2: &[u8; 4]) -> Result<bool, KeyError> {
            let found = self.2.confirm(approval, mac2);
            self.0.send(()).unwrap();
            self.1.recv().unwrap();
            found
        }
    }
    let leaves = Leaves { counter: 1, tag: None };
    let (first, second): (CardUid, CardUid) = ("04000001".parse().unwrap(), "04000002".parse().unwrap());
    let tries = Arc::new(AtomicU8::new(3));
    let (asked, is_asked) = mpsc::channel();
    let (go, goes) = mpsc::channel();
    let sam = Mutex::new(Some(Waits(asked, goes, Locks(Arc::clone(&tries)))));
    let open = move || {
        let sam = lock(&sam).take().ok_or(KeyError::NoTerminal)?;
        Ok(Box::new(sam) as Box<dyn PurseKeys>)
    };
    let till = TillPurse::new(Box::new(open), TimeZone::UTC);
    approve(&till, &first, leaves);
    std::thread::scope(|scope| {
        let till = &till;
        let signs = scope.spawn(|| till.signed(&first, [1; 4], Some([9; 4])));
        is_asked.recv().unwrap();
        // Its turn is over before the SAM's answer is there: the next card no longer waits for it.
        *lock(&till.turn) = None;
        let buys = scope.spawn(|| buy(till, &second, leaves));
        while lock(&till.turn).is_none() {
            std::thread::yield_now();
        }
        // It has its turn, and time to look at a count that is not there yet.
        std::thread::sleep(Duration::from_millis(20));
        go.send(()).unwrap();
        assert_eq!(signs.join().unwrap(), Word::Refuted);
        assert_eq!(buys.join().unwrap(), Err(KeyError::SamSpared));
    });
    assert_eq!(tries.load(Ordering::Relaxed), 2);
}

/// The next purchase is approved by the terminal that is meant now, and what was counted stays.
#[test]
fn another_opener_takes_over_at_the_next_purchase() {
    let leaves = Leaves { counter: 1, tag: None };
    let uid: CardUid = "04000001".parse().unwrap();
    let till = TillPurse::new(Box::new(|| Ok(Box::new(Last(40)))), TimeZone::UTC);
    assert_eq!(buy(&till, &uid, leaves).unwrap().0, 41);
    till.opens_with(Box::new(|| Ok(Box::new(Last(70)))));
    assert_eq!(buy(&till, &uid, leaves).unwrap().0, 71);
    assert_eq!(buy(&till, &uid, leaves).unwrap().0, 72, "opened once");
    till.wrong.store(MAX_WRONG, Ordering::Relaxed);
    till.opens_with(Box::new(|| Ok(Box::new(Last(0)))));
    assert_eq!(buy(&till, &uid, leaves), Err(KeyError::SamSpared));
}

/// Two tills buy in the same instant: the second waits until the first card has answered. One
/// that never answers holds nobody up for long, and is not believed afterwards.
#[test]
fn one_purchase_at_a_time_is_open_on_the_sam() {
    let leaves = Leaves { counter: 1, tag: None };
    let (first, second): (CardUid, CardUid) = ("04000001".parse().unwrap(), "04000002".parse().unwrap());
    for answers in [true, false] {
        let till = TillPurse::new(Box::new(|| Ok(Box::<Last>::default())), TimeZone::UTC);
        approve(&till, &first, leaves);
        let (approved, waits) = mpsc::channel();
        let word = std::thread::scope(|scope| {
            let (till, second) = (&till, &second);
            scope.spawn(move || {
                approve(till, second, leaves);
                approved.send(()).unwrap();
            });
            if answers {
                assert!(waits.recv_timeout(TURN / 3).is_err(), "it waits for its turn");
            } else {
                waits.recv_timeout(TURN * 20).unwrap();
            }
            till.signed(&first, [1; 4], Some([2; 4]))
        });
        assert_eq!(word, if answers { Word::Believed } else { Word::Unproven });
        assert_eq!(till.signed(&second, [1; 4], Some([2; 4])), Word::Believed, "answers {answers}");
    }
}

/// A SAM as it is: it answers for the last purchase that it approved, once, and does so to whoever
/// opens it next; the first question of some purchases does not reach it.
#[derive(Debug, Clone, Default)]
struct Session(Arc<Mutex<(u32, bool, bool)>>);

impl PurseKeys for Session {
    fn terminal(&self) -> [u8; 6] {
        [7; 6]
    }

    fn approve(&mut self, _: &Purchase<'_>) -> Result<Approval, KeyError> {
        let mut sam = lock(&self.0);
        (sam.0, sam.1) = (sam.0 + 1, true);
        Ok(Approval { terminal_sequence: sam.0, mac1: [0; 4], session: None })
    }

    fn confirm(&mut self, approval: &Approval, mac2: &[u8; 4]) -> Result<bool, KeyError> {
        let (mut sam, what) = (lock(&self.0), "its confirmation");
        if std::mem::take(&mut sam.2) {
            return Err(KeyError::Sam { what, status: None });
        }
        assert_eq!(approval.terminal_sequence, sam.0, "held against another purchase");
        if !std::mem::take(&mut sam.1) {
            return Err(KeyError::Sam { what, status: Some(0x6985) });
        }
        Ok(*mac2 == [2; 4])
    }
}

impl Session {
    fn till(&self, notebook: &Path) -> TillPurse {
        let sam = self.clone();
        TillPurse::new(Box::new(move || Ok(Box::new(sam.clone()))), TimeZone::UTC).with_notebook(notebook)
    }
}

/// The question did not reach it: it is asked again, which costs nothing, and no restart is needed.
#[test]
fn a_question_that_the_sam_did_not_hear_is_asked_again() {
    let folder = tempfile::tempdir().unwrap();
    let (sam, leaves) = (Session::default(), Leaves { counter: 1, tag: None });
    let till = sam.till(&folder.path().join("sam.json"));
    for (n, (mac2, word)) in (1..).zip([([2; 4], Word::Believed), ([9; 4], Word::Refuted)]) {
        let uid = CardUid::from_bytes(&[4, 0, 0, n]).unwrap();
        approve(&till, &uid, leaves);
        lock(&sam.0).2 = true;
        assert_eq!(till.signed(&uid, [1; 4], Some(mac2)), word);
        assert!(!till.is_spared(), "counted once");
    }
}

/// What is said of the SAM's last purchase after a start: what was known, or that it is open still.
#[test]
fn the_last_purchase_outlives_the_program() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sam.json");
    let (sam, leaves) = (Session::default(), Leaves { counter: 7, tag: Some([1, 2, 3, 4]) });
    let (first, second): (CardUid, CardUid) = ("04000001".parse().unwrap(), "04000002".parse().unwrap());
    let till = sam.till(&path);
    approve(&till, &first, leaves);
    approve(&till, &second, leaves);
    // Killed while both are waited for; the SAM answers for the second.
    let till = sam.till(&path);
    assert_eq!((till.open(&first), till.open(&second).is_some()), (None, true));
    assert_eq!(till.signed(&second, [0xAB; 4], Some([2; 4])), Word::Believed);
    // Killed before the ledger had it.
    let till = sam.till(&path);
    let (word, proof) = till.word(&second, leaves).unwrap();
    let proof = proof.unwrap();
    assert_eq!((word, proof.tac.as_str(), proof.terminal_sequence), (Word::Believed, "ABABABAB", 2));
    till.forget(&second, leaves);
    assert_eq!(sam.till(&path).word(&second, leaves), None);

    // Asked for the next one it answers for it alone, whether that one is known or not.
    let till = sam.till(&path);
    approve(&till, &first, leaves);
    till.notebook.as_ref().unwrap().supersede();
    let till = sam.till(&path);
    assert_eq!(till.signed(&first, [1; 4], Some([2; 4])), Word::Unproven);
    assert!(lock(&sam.0).1, "not asked");
}

/// One lost answer after a clean run leaves a try to spare; two wrong ones and a start leave one.
#[test]
fn what_the_sam_was_shown_is_not_forgotten() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sam.json");
    let (sam, leaves) = (Session::default(), Leaves { counter: 1, tag: None });
    let uid: CardUid = "04000001".parse().unwrap();
    // (answer, wrong ones counted after it, after the next start)
    for (mac2, counted, started) in [([9; 4], 2, 1), ([2; 4], 0, 0), ([9; 4], 1, 1), ([2; 4], 0, 0)] {
        let till = sam.till(&path);
        approve(&till, &uid, leaves);
        till.signed(&uid, [1; 4], Some(mac2));
        assert_eq!(till.wrong.load(Ordering::Relaxed), counted, "{mac2:?}");
        assert_eq!(sam.till(&path).wrong.load(Ordering::Relaxed), started, "{mac2:?}");
    }
    approve(&sam.till(&path), &uid, leaves);
    assert_eq!(sam.till(&path).wrong.load(Ordering::Relaxed), 1, "it may have been asked and not counted");
}
