//! Integer money. Amounts are fen (1/100 yuan) and never floating point. Also what a
//! card holds, as plain data; the purse arithmetic itself lives in the card room.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A signed amount in fen.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize, JsonSchema,
)]
#[serde(transparent)]
pub struct Fen(pub i64);

impl Fen {
    /// The sum, or `None` on overflow.
    #[must_use]
    pub fn checked_add(self, other: Self) -> Option<Self> {
        self.0.checked_add(other.0).map(Self)
    }

    /// The difference, or `None` on overflow.
    #[must_use]
    pub fn checked_sub(self, other: Self) -> Option<Self> {
        self.0.checked_sub(other.0).map(Self)
    }
}

/// The kind of a coupon: what it is worth stands in the configuration (`[[purse.coupon]]`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct CouponId(pub u32);

/// What a member card holds: the part of its record that a transaction changes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize, JsonSchema)]
pub struct Holding {
    /// What the customer paid in.
    pub principal_fen: Fen,
    /// What the house gave on top.
    pub bonus_fen: Fen,
    /// Points.
    pub points: i64,
    /// Coupons, by kind; of a kind that is there twice, two.
    pub coupons: Vec<CouponId>,
    /// Transactions committed on this card, wherever they were made.
    pub counter: u32,
}

impl Holding {
    /// Principal and bonus together, or `None` on overflow.
    #[must_use]
    pub fn balance(&self) -> Option<Fen> {
        self.principal_fen.checked_add(self.bonus_fen)
    }
}

/// As people read it: `¥12.34`, with the sign in front.
impl fmt::Display for Fen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.0 < 0 { "-" } else { "" };
        let fen = self.0.unsigned_abs();
        write!(f, "{sign}¥{}.{:02}", fen / 100, fen % 100)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_as_people_read_it() {
        for (fen, text) in
            [(0, "¥0.00"), (5, "¥0.05"), (-1234, "-¥12.34"), (i64::MIN, "-¥92233720368547758.08")]
        {
            assert_eq!(Fen(fen).to_string(), text);
        }
        assert_eq!(Fen(i64::MAX).checked_add(Fen(1)), None);
    }
}
