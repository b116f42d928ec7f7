//! Codes of three bytes, their status byte and their text. Pure.

use std::fmt;

use crate::event::vehicle::DtcState;
use crate::vehicle::obd::dtc_text;

/// How the three bytes of a code are to be read (ISO 14229-1 §12.3, `DTCFormatIdentifier`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DtcFormat {
    /// 02: SAE J1939-73, suspect parameter and failure mode.
    J1939,
    /// 00, 01, 04 and all others: two bytes of SAE J2012-DA and a failure type byte.
    J2012,
}

impl DtcFormat {
    /// From the byte in the answer.
    #[must_use]
    pub fn from_byte(byte: u8) -> Self {
        if byte == 0x02 { Self::J1939 } else { Self::J2012 }
    }
}

/// A code of three bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Dtc(pub [u8; 3]);

impl Dtc {
    /// The five characters of SAE J2012 (`P0420`), under which texts are looked up.
    #[must_use]
    pub fn code(self) -> String {
        let [high, low, _] = self.0;
        dtc_text([high, low])
    }

    /// The failure type (SAE J2012-DA appendix A); `None`: 00, no more is said.
    #[must_use]
    pub fn failure_type(self) -> Option<u8> {
        let [_, _, kind] = self.0;
        (kind != 0).then_some(kind)
    }

    /// Suspect parameter number (19 bits) and failure mode (5 bits) of SAE J1939-73 §5.7.1.
    #[must_use]
    pub fn suspect_parameter(self) -> (u32, u8) {
        let [low, middle, high] = self.0;
        (u32::from_be_bytes([0, high >> 5, middle, low]), high & 0x1F)
    }

    /// The code as the report shows it in `code`.
    #[must_use]
    pub fn code_in(self, format: DtcFormat) -> String {
        match format {
            DtcFormat::J2012 => self.code(),
            DtcFormat::J1939 => {
                let (spn, fmi) = self.suspect_parameter();
                format!("SPN{spn}-{fmi}")
            }
        }
    }

    /// An empty place in a unit's memory is no code. (The padding of frames is gone before:
    /// ISO-TP tells its length.)
    #[must_use]
    pub fn is_padding(self) -> bool {
        matches!(self.0, [0, 0, 0] | [0xFF, 0xFF, 0xFF])
    }
}

/// With the failure type, as workshop testers print it: `P0420-00`.
impl fmt::Display for Dtc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [.., kind] = self.0;
        write!(f, "{}-{kind:02X}", self.code())
    }
}

/// The status byte of a code (ISO 14229-1 annex D.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Status(pub u8);

impl Status {
    /// What is asked of 19 02: a test that fails now (bit 0), pending (2), confirmed (3).
    /// The other bits tell what the monitors have run, not what is wrong: asked for, they
    /// fill the answer with every code a unit knows.
    pub const WHAT_IS_WRONG: u8 = 0x0D;

    /// Bit 0: the last test failed.
    #[must_use]
    pub fn test_failed(self) -> bool {
        self.0 & 0x01 != 0
    }

    /// Bit 2.
    #[must_use]
    pub fn pending(self) -> bool {
        self.0 & 0x04 != 0
    }

    /// Bit 3.
    #[must_use]
    pub fn confirmed(self) -> bool {
        self.0 & 0x08 != 0
    }

    /// Bit 4: the monitor has not run since codes were cleared.
    #[must_use]
    pub fn not_tested_since_clear(self) -> bool {
        self.0 & 0x10 != 0
    }

    /// Bit 6: the monitor has not run in this operation cycle.
    #[must_use]
    pub fn not_tested_this_cycle(self) -> bool {
        self.0 & 0x40 != 0
    }

    /// Bit 7: the unit asks for its lamp.
    #[must_use]
    pub fn warning_lamp(self) -> bool {
        self.0 & 0x80 != 0
    }

    /// Something is wrong, or was in the last two cycles.
    #[must_use]
    pub fn says_something_is_wrong(self) -> bool {
        self.0 & Self::WHAT_IS_WRONG != 0
    }

    /// The lists of the report this code stands in. `Permanent` is not in the byte: only
    /// 19 55 tells. A test that fails now without being pending or confirmed stands in none.
    #[must_use]
    pub fn states(self) -> Vec<DtcState> {
        let confirmed = self.confirmed().then_some(DtcState::Confirmed);
        let pending = self.pending().then_some(DtcState::Pending);
        confirmed.into_iter().chain(pending).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_in_words() {
        // (source, bytes, format byte, code, with failure type)
        for (source, bytes, format, code, whole) in [
            ("J2012: catalyst", [0x04, 0x20, 0x00], 0x04, "P0420", "P0420-00"),
            ("bench capture, wwh-obd unit test", [0x24, 0x63, 0x1F], 0x04, "P2463", "P2463-1F"),
            ("ISO 14229-1 example of 19 02", [0x0A, 0x9B, 0x17], 0x01, "P0A9B", "P0A9B-17"),
            ("body", [0x92, 0x34, 0x11], 0x00, "B1234", "B1234-11"),
            ("network", [0xC1, 0x00, 0x87], 0x00, "U0100", "U0100-87"),
        ] {
            let dtc = Dtc(bytes);
            assert_eq!(dtc.code_in(DtcFormat::from_byte(format)), code, "{source}");
            assert_eq!(dtc.to_string(), whole, "{source}");
        }
        // Source: a public WWH-OBD unit test (SPN 3226 FMI 4 is 9A 0C 04); Equipment and Tool
        // Institute, j1939-84, DiagnosticTroubleCodeTest (EE 10 04, FF FF E0).
        for (bytes, code) in [
            ([0x9A, 0x0C, 0x04], "SPN3226-4"),
            ([0xEE, 0x10, 0x04], "SPN4334-4"),
            ([0xFF, 0xFF, 0xE0], "SPN524287-0"),
            ([0xFF, 0xFF, 0xFF], "SPN524287-31"),
            ([0x6E, 0x00, 0x00], "SPN110-0"),
        ] {
            assert_eq!(Dtc(bytes).code_in(DtcFormat::from_byte(0x02)), code);
        }
    }

    #[test]
    fn status_bits() {
        use DtcState::{Confirmed, Pending};
        // ISO 14229-1 annex D.2; 24 and 2F are the examples of its §12.3.
        for (status, states, wrong) in [
            (0x24, vec![Pending], true),
            (0x2F, vec![Confirmed, Pending], true),
            (0x08, vec![Confirmed], true),
            (0x01, vec![], true),
            (0x50, vec![], false),
            (0xAF, vec![Confirmed, Pending], true),
            (0x00, vec![], false),
        ] {
            assert_eq!(Status(status).states(), states, "{status:02X}");
            assert_eq!(Status(status).says_something_is_wrong(), wrong, "{status:02X}");
        }
        assert!(Status(0x80).warning_lamp() && Status(0x10).not_tested_since_clear());
    }
}
