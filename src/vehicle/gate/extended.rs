//! Units behind an address byte (ISO 15765-2 §10.3.4). What lives here: which of them exist.

use super::{UnitAddress, unit};
use crate::vehicle::protocol::Protocol;

/// A unit that is asked with extended addressing. Only identifiers of diagnosis exist: 6F1,
/// the tester of BMW's buses, which units answer on 600 and their address, and the makers' own
/// that [`UnitAddress`] has on 11 bits.
///
/// Who listens there without address bytes takes the address for the kind of frame: 0x is a
/// single frame, and what stands behind it, the length of ours, its service. Of four bytes that
/// would be 04. So on makers' identifiers no unit has such an address (1x begins a message that
/// nobody goes on with, by a service that only reads; the others begin none), and 7E0 to 7E7,
/// where ISO 15765-4 has no address bytes, have none at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ExtendedAddress {
    request: u16,
    answer: u16,
    unit: u8,
    tester: u8,
}

/// The identifier of BMW's tester (OBDb's sets for BMW and Mini: `hdr` 6F1, `rax` 6xx).
const BMW_TESTER: u16 = 0x6F1;
/// Below, an address reads as a single frame (ISO 15765-2 §9.6.1, table 9).
const NO_SINGLE_FRAME: u8 = 0x10;
/// Requests of ISO 15765-4 §10.3.2: normal addressing.
const NORMAL: std::ops::RangeInclusive<u32> = 0x7E0..=0x7E7;

impl ExtendedAddress {
    /// The unit `unit`, asked on the arbitration ID `request`, that answers to `tester`: on BMW's
    /// buses on 600 and its address, elsewhere 8 above. `None`: no address of diagnosis.
    #[must_use]
    pub fn new(request: u32, unit: u8, tester: u8) -> Option<Self> {
        let bmw = request == u32::from(BMW_TESTER) && unit < 0xF1;
        let maker = unit >= NO_SINGLE_FRAME
            && !NORMAL.contains(&request)
            && UnitAddress::on(Protocol::Can11At500, request).is_some();
        let known = bmw || maker;
        let request = u16::try_from(request).ok().filter(|_| known)?;
        let answer =
            if bmw { 0x600 | u16::from(unit) } else { u16::try_from(unit::usual_answer(request)).ok()? };
        Some(Self { request, answer, unit, tester })
    }

    /// The same unit, but its answers carry the arbitration ID `answer`. `None`: no other node's ID.
    #[must_use]
    pub fn answering_on(self, answer: u32) -> Option<Self> {
        let answer = u16::try_from(answer).ok().filter(|id| *id <= 0x7FF && *id != self.request)?;
        Some(Self { answer, ..self })
    }

    /// The arbitration ID of requests.
    #[must_use]
    pub fn request_id(self) -> u32 {
        self.request.into()
    }

    /// The arbitration ID of answers.
    #[must_use]
    pub fn answer_id(self) -> u32 {
        self.answer.into()
    }

    /// The first byte of the frames it is sent, …
    #[must_use]
    pub fn unit(self) -> u8 {
        self.unit
    }

    /// … and of those it sends.
    #[must_use]
    pub fn tester(self) -> u8 {
        self.tester
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extended_addresses_are_of_diagnosis_too() {
        for (request, unit, answers) in
            [(0x6F1, 0x07, Some(0x607)), (0x750, 0x2A, Some(0x758)), (0x6F1, 0xF1, None), (0x6F0, 0x07, None)]
        {
            let address = ExtendedAddress::new(request, unit, 0xF1);
            assert_eq!(address.map(ExtendedAddress::answer_id), answers, "{request:X}");
            let told = address.and_then(|address| address.answering_on(0x77A));
            assert_eq!(told.map(ExtendedAddress::answer_id), answers.map(|_| 0x77A), "{request:X}");
            assert_eq!(address.and_then(|address| address.answering_on(request)), None);
            assert_eq!(address.and_then(|address| address.answering_on(0x800)), None);
        }
        for nobody in [0x7DF, 0x7E8, 0x123, 0x18DA_10F1] {
            assert_eq!(ExtendedAddress::new(nobody, 0x10, 0xF1), None, "{nobody:X}");
        }
    }

    /// What a unit without address bytes reads of the frames that go to one with.
    #[test]
    fn no_address_byte_makes_another_request_of_a_read() {
        for request in (0..=0x7FF).chain([0x18DB_33F1, 0x18DA_10F1]) {
            for unit in 0..=0xFF {
                let Some(address) = ExtendedAddress::new(request, unit, 0xF1) else { continue };
                assert!(address.request_id() <= 0x7FF, "{request:X}");
                if request == u32::from(BMW_TESTER) {
                    continue;
                }
                assert!(!(0x7DF..=0x7EF).contains(&request), "{request:X}");
                // Kind 0: a single frame.
                assert_ne!(address.unit() >> 4, 0, "{request:X} {unit:02X}");
            }
        }
    }
}
