//! The member record: what a card says of its member. What lives here: the
//! record as a value, its bytes in a slot (`slot`) and which of a card's two
//! slots is the record (`pair`). What does not: where slots lie on a chip
//! (`medium`), keys (`keys` is asked), and what is done with the money.
//!
//! ```text
//!  a write goes to the slot that is NOT the record now, with counter + 1:
//!    slot A  [counter 7 · sealed]            slot A  [counter 7 · sealed]
//!    slot B  [counter 6 · sealed]  ── cut ─► slot B  [half 6, half 8 ✗ ]   → A, the old one
//!                                  ── done ► slot B  [counter 8 · sealed]   → B, the new one
//! ```

mod header;
mod pair;
mod slot;

pub use crate::protocols::cards::{HEADER_BYTES, SLOT_BYTES};
pub use header::{Header, HeaderError, HeaderReading, read_header};
pub use pair::{Current, Pair, Which, choose};
pub use slot::{EncodeError, Slot, SlotFault, decode, encode};

use jiff::civil::Date;

use crate::event::card::MemberStatus;
use crate::event::ledger::{CardType, TransactionKind};
use crate::ident::{CardNo, StoreId};

/// Coupon places in a record.
pub const COUPON_SLOTS: usize = 4;
/// Bytes of the seal at a slot's end.
pub const SEAL_BYTES: usize = 8;
/// The longest card number that fits a record, in digits.
pub const MAX_CARD_NO_DIGITS: usize = 16;
/// The longest name of an issuing store that fits a record, in bytes.
pub const MAX_STORE_BYTES: usize = 8;

/// What a card says of its member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberRecord {
    /// Number on the face: on a chip decimal digits only, at most [`MAX_CARD_NO_DIGITS`].
    pub card_no: CardNo,
    /// Whether a buyer's name belongs to it.
    pub member_type: CardType,
    /// As last written; the store's own list may know better.
    pub status: MemberStatus,
    /// Who issued it: on a chip at most [`MAX_STORE_BYTES`].
    pub issuing_store: StoreId,
    /// Tier by number, 0 is none.
    pub tier: u8,
    /// Discount class of the rules, 0 is none.
    pub discount_class: u8,
    /// The last day it is good, at the store. `None`: no end (named cards have none).
    pub valid_until: Option<Date>,
    /// Paid in, in fen.
    pub principal_fen: u32,
    /// Given on top, in fen.
    pub bonus_fen: u32,
    /// Points.
    pub points: u32,
    /// Coupons; a place with none left is free.
    pub coupons: [Coupon; COUPON_SLOTS],
    /// Rises by one with every committed transaction.
    pub counter: u32,
    /// The transaction that wrote this record; `None` on a card just issued.
    pub last: Option<LastTransaction>,
    /// Which keys the record is sealed with.
    pub key_version: u8,
}

/// One coupon place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Coupon {
    /// Kind by number, as the rules name it.
    pub kind: u8,
    /// How many are left.
    pub left: u8,
}

/// The transaction that wrote a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LastTransaction {
    /// When, in seconds since 1970-01-01 UTC, by the clock of the gateway that wrote.
    pub at_s: u32,
    /// What.
    pub kind: TransactionKind,
    /// The last four bytes of its `transaction_id`: tells our own write from another
    /// store's with the same counter.
    pub tag: [u8; 4],
}

impl MemberRecord {
    /// Principal and bonus together, in fen.
    #[must_use]
    pub fn balance_fen(&self) -> u64 {
        u64::from(self.principal_fen) + u64::from(self.bonus_fen)
    }
}

#[cfg(test)]
#[path = "tests.rs"]
pub(super) mod tests;
