//! What may be wanted of a card, where and by whom.

use baygate::event::ledger::TransactionKind;

use super::plain::Booking;

/// What is wanted.
#[derive(Debug, Clone, Copy)]
pub enum Deed {
    TopUp(i64),
    Spend(i64),
    Extend {
        days: i32,
    },
    GiveBack,
    Replace,
    /// A sale in which the card breaks for good; another one takes its place.
    Break {
        amount: i64,
        at: usize,
    },
    Give {
        /// So many customers on.
        to: usize,
        amount: i64,
    },
    /// The n-th of what is on its way, or was, arrives, or is undone.
    Take(usize),
    Undo(usize),
    Lose,
    Find,
    SetPin,
    RemovePin,
    WrongPin,
    /// The n-th card that is dead somewhere turns up there.
    Old(usize),
}

/// Where it is done, with whose card, and where it is cut.
#[derive(Debug, Clone, Copy)]
pub struct Step {
    pub gateway: usize,
    pub person: usize,
    pub deed: Deed,
    /// A place in [`WHO`].
    pub who: usize,
    /// The right PIN was typed.
    pub typed: bool,
    /// At which command, and how: a place in `FAULTS`.
    pub cut: Option<(usize, usize)>,
}

/// Operators and tills.
pub const WHO: [(&str, &str); 3] = [("li", "till-1"), ("wang", "till-1"), ("wang", "till-2")];

impl Step {
    /// Where it is counted.
    pub fn books(&self, kind: TransactionKind) -> Booking {
        let (operator, till) = WHO[self.who];
        (operator, till, kind)
    }
}
