//! What a tap tells about what was done to the card before: here, and elsewhere. The counter
//! rises by one with every committed transaction, wherever it was made.
//!
//! | the card shows | nothing of ours is open | ours is open: `before` → `after` |
//! |---|---|---|
//! | the counter we know | same content: as we left it; other content: **forked** | `before`: ours is aborted; other content: **forked** |
//! | one more | used elsewhere | ours is its last: committed; another's is: ours is aborted, used elsewhere; it names none: our content: committed, else parked |
//! | more than one more | used elsewhere | nobody here can tell: parked, headquarters compares the counters |
//! | less | **behind** | **behind** |
//!
//! Behind and forked mean that an old image came back or that there are two cards: the card
//! is held.

use uuid::Uuid;

use crate::money::Holding;

/// Which transaction a card names as its last: the last four bytes of its id, which are random.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Mark(pub [u8; 4]);

impl Mark {
    /// Of a transaction.
    #[must_use]
    pub fn of(transaction: Uuid) -> Self {
        let [.., a, b, c, d] = transaction.into_bytes();
        Self([a, b, c, d])
    }
}

/// What a card shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// What it holds.
    pub holding: Holding,
    /// Its last transaction, where its layout says so.
    pub last: Option<Mark>,
}

/// A transaction that waits for a tap.
#[derive(Debug, Clone, Copy)]
pub struct Open<'a> {
    /// Its mark.
    pub mark: Mark,
    /// What the card held.
    pub before: &'a Holding,
    /// What it holds if it was written.
    pub after: &'a Holding,
}

/// Something is wrong with the card.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Wrong {
    /// Its counter is lower than it was.
    Behind,
    /// It has the counter that it had, and another content.
    Forked,
    /// Its last transaction is ours, and its content is not what ours leaves.
    Torn,
}

impl Wrong {
    /// The stable code in `card.status`.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::Behind => "counter-behind",
            Self::Forked => "counter-forked",
            Self::Torn => "torn-record",
        }
    }
}

/// Where a card stands with us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// As we left it.
    Same,
    /// Used elsewhere, which is normal.
    Ahead,
}

/// What became of an open transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Became {
    /// It is on the card.
    Committed,
    /// It is not.
    Aborted,
    /// The card went on elsewhere.
    Parked,
}

/// Compares a card with what was last seen of it, when nothing of ours is open.
///
/// # Errors
/// [`Wrong`]: the card has to be held.
pub fn observe(known: &Holding, shown: &Holding) -> Result<Standing, Wrong> {
    match shown.counter.cmp(&known.counter) {
        std::cmp::Ordering::Less => Err(Wrong::Behind),
        std::cmp::Ordering::Equal if shown == known => Ok(Standing::Same),
        std::cmp::Ordering::Equal => Err(Wrong::Forked),
        std::cmp::Ordering::Greater => Ok(Standing::Ahead),
    }
}

/// Decides an open transaction.
///
/// # Errors
/// [`Wrong`]: the card has to be held, and the transaction stays open.
pub fn settle(open: &Open<'_>, shown: &Shown) -> Result<Became, Wrong> {
    let (was, would, is) = (open.before, open.after, &shown.holding);
    if is.counter < was.counter {
        return Err(Wrong::Behind);
    }
    if is.counter == was.counter {
        return if is == was { Ok(Became::Aborted) } else { Err(Wrong::Forked) };
    }
    if is.counter > would.counter {
        return Ok(Became::Parked);
    }
    match shown.last {
        Some(last) if last != open.mark => Ok(Became::Aborted),
        Some(_) if is != would => Err(Wrong::Torn),
        // Without a mark the content has to do. One that is not ours was left by another store, or
        // by a write of ours that was torn between the purse and what stands beside it.
        None if is != would => Ok(Became::Parked),
        Some(_) | None => Ok(Became::Committed),
    }
}
