//! What a reader answers that has not noticed yet that its card was lifted: failure, in
//! the same words as for a card that refuses. Measured on no reader; by the ACR122U API
//! v2.04 §5 (status 6300) and the PN532 user manual §7.1 (error 01, time-out).

/// The answer to an APDU while there is no card.
#[must_use]
pub fn without_card(apdu: &[u8]) -> Vec<u8> {
    match apdu {
        // The key goes into the reader.
        [0xFF, 0x82, ..] => vec![0x90, 0x00],
        [0xFF, 0x00, 0x00, 0x00, _, 0xD4, code, ..] => vec![0xD5, code.wrapping_add(1), 0x01, 0x90, 0x00],
        _ => vec![0x63, 0x00],
    }
}
