//! Moving a card to the current keys, lazily: at a counter where a person can wait
//! with the card, a place (sector, page, key number) at a time. What lives here: the
//! decision what to do at this tap, and with which key a place of a card opens whose
//! move was torn. What does not: the commands, and the journal row, which is durable
//! before the first of them.
//!
//! ```text
//!  place    0     1     2     3          the card's own word on its version changes last
//!  keys    new   new    ?    old         done = 2: place 2 was begun, nobody heard how it ended
//! ```

use super::KeyVersion;

/// One move in the journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Move {
    /// The version the card says it has until the end.
    pub from: KeyVersion,
    /// The version it is moving to.
    pub to: KeyVersion,
    /// How many places are known to have the new keys; the next one may have them.
    pub done: u8,
}

/// What to do with a card's keys at this tap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Nothing.
    Keep,
    /// Write this move into the journal, then begin it.
    Begin(Move),
    /// Take the torn move up again, before anything else.
    Resume(Move),
    /// A torn move that must wait for a staffed counter; the card is read as the move tells.
    Later(Move),
}

/// Decides. A card never goes back to older keys: one that is ahead of `current`
/// was moved by a gateway that knows more, and is left alone.
#[must_use]
pub fn decide(card: KeyVersion, current: KeyVersion, journal: Option<Move>, staffed: bool) -> Decision {
    // A card changes its own word last. One that says anything but `from` is done with that move,
    // even if nobody heard of its last write, or was moved on by another gateway.
    match journal.filter(|torn| card == torn.from) {
        Some(torn) if staffed => Decision::Resume(torn),
        Some(torn) => Decision::Later(torn),
        None if staffed && card.is_ours() && card < current => {
            Decision::Begin(Move { from: card, to: current, done: 0 })
        }
        None => Decision::Keep,
    }
}

/// Which keys open a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opens {
    /// These.
    With(KeyVersion),
    /// The new ones if the torn write succeeded: log in with `new`; if the card
    /// refuses, select it anew and log in with `old`. At most these two, once each, and
    /// never on a card that counts failures: such a one is opened before its password
    /// changes (`medium::moving`), so that there is nothing to guess.
    Either {
        /// Asked first.
        new: KeyVersion,
        /// Asked if the card refused.
        old: KeyVersion,
    },
}

impl Move {
    /// Which keys open this place during the move.
    #[must_use]
    pub fn opens(self, place: u8) -> Opens {
        match place.cmp(&self.done) {
            std::cmp::Ordering::Less => Opens::With(self.to),
            std::cmp::Ordering::Equal => Opens::Either { new: self.to, old: self.from },
            std::cmp::Ordering::Greater => Opens::With(self.from),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const V0: KeyVersion = KeyVersion(0);
    const V1: KeyVersion = KeyVersion(1);
    const V2: KeyVersion = KeyVersion(2);
    const V3: KeyVersion = KeyVersion(3);

    #[test]
    fn decisions() {
        let torn = Move { from: V1, to: V2, done: 2 };
        let begun = Move { from: V1, to: V2, done: 0 };
        // (what, card, current, journal, staffed, decision)
        let cases = [
            ("current", V2, V2, None, true, Decision::Keep),
            ("older, staffed", V1, V2, None, true, Decision::Begin(begun)),
            ("older, alone", V1, V2, None, false, Decision::Keep),
            ("ahead of us", V3, V2, None, true, Decision::Keep),
            ("never issued", V0, V2, None, true, Decision::Keep),
            ("torn, staffed", V1, V2, Some(torn), true, Decision::Resume(torn)),
            ("torn, alone", V1, V2, Some(torn), false, Decision::Later(torn)),
            ("torn after its last write", V2, V2, Some(torn), true, Decision::Keep),
            ("done, nobody heard of it, and a newer version came", V2, V3, Some(torn), true, {
                Decision::Begin(Move { from: V2, to: V3, done: 0 })
            }),
            ("moved on by another gateway", V3, V3, Some(torn), true, Decision::Keep),
            ("moved on by another gateway, alone", V3, V3, Some(torn), false, Decision::Keep),
            ("torn, and a newer version came", V1, V3, Some(torn), true, Decision::Resume(torn)),
        ];
        for (what, card, current, journal, staffed, decision) in cases {
            assert_eq!(decide(card, current, journal, staffed), decision, "{what}");
        }
    }

    /// A card as a list of places, torn after any write: it can always be opened and
    /// finished, with at most one refused login.
    #[test]
    fn a_move_torn_anywhere_is_finished() {
        const PLACES: u8 = 5;
        for written in 0..=PLACES {
            for heard in written.saturating_sub(1)..=written {
                let mut card: Vec<KeyVersion> =
                    (0..PLACES).map(|place| if place < written { V2 } else { V1 }).collect();
                let torn = Move { from: V1, to: V2, done: heard };
                let mut refused = 0;
                for (place, key) in (0..).zip(card.iter_mut()) {
                    let opened = match torn.opens(place) {
                        Opens::With(version) => version,
                        Opens::Either { new, .. } if new == *key => new,
                        Opens::Either { old, .. } => {
                            refused += 1;
                            old
                        }
                    };
                    assert_eq!(opened, *key, "written {written}, heard {heard}, place {place}");
                    *key = V2;
                }
                assert!(refused <= 1);
                assert!(card.iter().all(|key| *key == V2));
            }
        }
    }
}
