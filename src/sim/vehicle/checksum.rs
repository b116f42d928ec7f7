//! Checksums of messages on buses older than CAN.

/// Sum of all bytes (ISO 14230-2 §4.4, ISO 9141-2).
pub(super) fn sum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |sum, byte| sum.wrapping_add(*byte))
}

/// SAE J1850 CRC: polynomial 1D, begins with FF, inverted.
pub(super) fn crc8(bytes: &[u8]) -> u8 {
    !bytes.iter().fold(0xFF_u8, |crc, byte| {
        (0..8).fold(crc ^ byte, |crc, _| if crc & 0x80 == 0 { crc << 1 } else { (crc << 1) ^ 0x1D })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_match_public_vectors() {
        // ISO 14230 example in the facts file: `86 F1 10 41 00 BE 3E F8 11 CD`.
        assert_eq!(sum(&[0x86, 0xF1, 0x10, 0x41, 0x00, 0xBE, 0x3E, 0xF8, 0x11]), 0xCD);
        // CRC-8/SAE-J1850 check value over "123456789" (Williams' catalogue of CRCs).
        assert_eq!(crc8(b"123456789"), 0x4B);
    }
}
