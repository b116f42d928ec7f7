//! The login of an Ultralight C against the simulated chip, and somebody who imitates one.

use super::*;
use crate::sim::card::{CardProfile, Chip, Technology};

/// Whoever imitates an Ultralight C sends a challenge, takes any answer, and cannot answer ours.
#[test]
fn an_imitation_is_not_believed() {
    for bit in [None, Some(0), Some(63)] {
        let mut profile = CardProfile::new(Technology::UltralightC);
        profile.direct_transmit = true;
        let mut chip = Chip::new(profile);
        let begin = PageLogin::delivered().unwrap();
        let answer = Response::parse(&chip.apdu(&begin.command().to_bytes())).unwrap();
        let LoggedIn::More(prove) = begin.answer(&answer) else { panic!("{answer:?}") };
        let mut bytes = chip.apdu(&prove.command().to_bytes());
        if let Some(bit) = bit {
            // Behind D5 43, the relay's status and the card's.
            bytes[4 + bit / 8] ^= 0x80 >> (bit % 8);
        }
        let end = prove.answer(&Response::parse(&bytes).unwrap());
        match bit {
            None => assert!(matches!(end, LoggedIn::Yes), "{end:?}"),
            Some(_) => assert!(matches!(end, LoggedIn::No(Refusal::WrongKey)), "{end:?}"),
        }
    }
}
