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

/// Its answer to a confirmation does not come, though the SAM heard the question.
#[derive(Debug)]
struct Mute(Locks);

impl PurseKeys for Mute {
    fn terminal(&self) -> [u8; 6] {
        self.0.terminal()
    }

    fn approve(&mut self, purchase: &Purchase<'_>) -> Result<Approval, KeyError> {
        self.0.approve(purchase)
    }

    fn confirm(&mut self, approval: &Approval, mac2: &[u8; 4]) -> Result<bool, KeyError> {
        self.0.confirm(approval, mac2)?;
        Err(KeyError::Sam { what: "its confirmation", status: None })
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
    let till = TillPurse::new(Box::new(move || Ok(Box::new(Mute(sam.clone())))), TimeZone::UTC);
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
