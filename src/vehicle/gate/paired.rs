//! Units that answer elsewhere than ISO 15765-4 says (8 above, or turned round): makers pair
//! 710 with 77A, 745 with 765. What lives here: which pairs may be named. Who is asked stays what
//! [`UnitAddress`] allows; only where the answer is listened for is the data's word.

use super::UnitAddress;
use crate::vehicle::protocol::Protocol;

/// A unit by both its arbitration IDs, of 11 bits or of 29.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PairedAddress {
    request: u32,
    answer: u32,
}

/// The highest identifiers of 11 and 29 bits (ISO 11898-1).
const HIGHEST: [u32; 2] = [0x7FF, 0x1FFF_FFFF];

impl PairedAddress {
    /// The unit that is asked on `request` and answers on `answer`. `None`: nobody of diagnosis is
    /// asked there, or the answer could not come from another node of that bus.
    #[must_use]
    pub fn new(request: u32, answer: u32) -> Option<Self> {
        let [highest_11, highest_29] = HIGHEST;
        let (protocol, possible) = if request <= highest_11 {
            (Protocol::Can11At500, 0..=highest_11)
        } else {
            (Protocol::Can29At500, highest_11 + 1..=highest_29)
        };
        let exists = UnitAddress::on(protocol, request).is_some();
        (exists && possible.contains(&answer) && answer != request).then_some(Self { request, answer })
    }

    /// The arbitration ID of requests, and of flow control.
    #[must_use]
    pub const fn request_id(self) -> u32 {
        self.request
    }

    /// The arbitration ID of answers.
    #[must_use]
    pub const fn answer_id(self) -> u32 {
        self.answer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_asked_is_still_a_unit_of_diagnosis() {
        for (request, answer, exists) in [
            (0x710, 0x77A, true),
            (0x745, 0x765, true),
            (0x7E0, 0x5A0, true),
            (0x18DA_10F1, 0x18DA_F155, true),
            (0x14DA_10F1, 0x1EC6_0E80, true),
            (0x710, 0x710, false),
            (0x710, 0x800, false),
            (0x710, 0x18DA_F110, false),
            (0x18DA_10F1, 0x77A, false),
            (0x18DA_10F1, 0x2000_0000, false),
            (0x7DF, 0x77A, false),
            (0x7E8, 0x77A, false),
            (0x6FF, 0x77A, false),
            (0x123, 0x77A, false),
            (0x10, 0x77A, false),
            (0x18DB_33F1, 0x18DA_F110, false),
        ] {
            assert_eq!(PairedAddress::new(request, answer).is_some(), exists, "{request:X} {answer:X}");
        }
    }
}
