//! Which of a card's two slots is its record. Pure. The rule: of two valid slots
//! the one with the higher counter; one valid slot beside a torn one is the
//! record; of the same record under two seals the newer keys'; two different records with one counter, or with counters more than one
//! apart, were never written by us: every write goes over the older slot, one higher.

use super::{MemberRecord, Slot, SlotFault};

/// One of the two slots.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Which {
    /// The first.
    A,
    /// The second.
    B,
}

impl Which {
    /// Where the next record goes while this one holds the current.
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }
}

/// The record of a card.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Current {
    /// The record.
    pub record: MemberRecord,
    /// The slot it is in; a write goes to the other one.
    pub slot: Which,
    /// The record before it, where the other slot still has it: what the last
    /// transaction did is the difference.
    pub before: Option<MemberRecord>,
    /// The other slot holds no record: a write was cut off.
    pub torn: bool,
}

/// What two slots say together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pair {
    /// A member.
    Current(Box<Current>),
    /// Nothing was ever written.
    Empty,
    /// No valid record, though something was written.
    Damaged,
    /// Two different records with one counter, or counters more than one apart: an old
    /// image was written back, or the card was forged with our keys. An alarm.
    Forked {
        /// The higher counter.
        counter: u32,
    },
    /// A slot needs keys or a program that this gateway does not have. The other
    /// slot may be older: it is not used.
    Unknown(SlotFault),
}

/// The record of a card with these slots.
#[must_use]
pub fn choose(a: Slot, b: Slot) -> Pair {
    // Such a slot may be the newer one: nothing is served from the other.
    if let Some(fault) = later_than_us(&a).or_else(|| later_than_us(&b)) {
        return Pair::Unknown(fault);
    }
    match (a, b) {
        (Slot::Valid(a), Slot::Valid(b)) if !are_neighbours(&a, &b) => {
            Pair::Forked { counter: a.counter.max(b.counter) }
        }
        (Slot::Valid(a), Slot::Valid(b)) if (b.counter, b.key_version) > (a.counter, a.key_version) => {
            current(b, Which::B, Some(a), false)
        }
        (Slot::Valid(a), Slot::Valid(b)) => current(a, Which::A, Some(b), false),
        (Slot::Valid(a), other) => current(a, Which::A, None, other != Slot::Empty),
        (other, Slot::Valid(b)) => current(b, Which::B, None, other != Slot::Empty),
        (Slot::Empty, Slot::Empty) => Pair::Empty,
        _ => Pair::Damaged,
    }
}

/// Whether one of them was written over the other's predecessor, or is its repetition.
fn are_neighbours(a: &MemberRecord, b: &MemberRecord) -> bool {
    match a.counter.abs_diff(b.counter) {
        // Under the seal of newer keys it is the same record.
        0 => *a == MemberRecord { key_version: a.key_version, ..b.clone() },
        apart => apart == 1,
    }
}

/// Whether a slot asks for keys or a program that this gateway does not have.
fn later_than_us(slot: &Slot) -> Option<SlotFault> {
    match slot {
        Slot::Invalid(fault @ (SlotFault::KeyVersion(_) | SlotFault::Format(_))) => Some(*fault),
        _ => None,
    }
}

fn current(record: MemberRecord, slot: Which, before: Option<MemberRecord>, torn: bool) -> Pair {
    Pair::Current(Box::new(Current { record, slot, before, torn }))
}
