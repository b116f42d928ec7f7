//! The 29-bit identifier (SAE J1939-21 §5.2): priority, parameter group, source, and where a
//! group is sent to one address, that address.

/// An identifier taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Id {
    /// 0 is the highest.
    pub priority: u8,
    /// Parameter group number.
    pub pgn: u32,
    /// Who sends.
    pub source: u8,
    /// To whom; `FF` and groups from F000 on: to all.
    pub destination: u8,
}

/// Everybody.
pub const GLOBAL: u8 = 0xFF;

impl Id {
    /// From the 29 bits; whatever stands above them is dropped.
    #[must_use]
    pub fn from_bits(bits: u32) -> Self {
        let [top, format, specific, source] = bits.to_be_bytes();
        // Extended data page and data page belong to the group.
        let page = u32::from(top & 0x03) << 16;
        let (pgn, destination) = if format < 0xF0 {
            (page | u32::from(format) << 8, specific)
        } else {
            (page | u32::from(format) << 8 | u32::from(specific), GLOBAL)
        };
        Self { priority: top >> 2 & 0x07, pgn, source, destination }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers() {
        // Sources: j1939-84 (18FECA00 is DM1 from the engine), python-can-j1939's tests
        // (ECFF01, EBFF01: transport to all from 01; 18EEFF80: address claim of 80).
        for (bits, priority, pgn, source, destination) in [
            (0x18FE_CA00, 6, 65226, 0x00, GLOBAL),
            (0x18FE_CB3D, 6, 65227, 0x3D, GLOBAL),
            (0x00EC_FF01, 0, 60416, 0x01, GLOBAL),
            (0x1CEB_9B90, 7, 60160, 0x90, 0x9B),
            (0x18EE_FF80, 6, 60928, 0x80, GLOBAL),
            (0x0CF0_0400, 3, 61444, 0x00, GLOBAL),
        ] {
            assert_eq!(Id::from_bits(bits), Id { priority, pgn, source, destination }, "{bits:08X}");
        }
    }
}
