//! Integer money. Amounts are fen (1/100 yuan) and never floating point; the
//! purse arithmetic itself lives in the card room.

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
