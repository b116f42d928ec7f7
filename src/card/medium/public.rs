//! Keys of MIFARE Classic that everybody knows, and what they are good for here.
//! They protect nothing.

use crate::card::apdu::Command;

/// Key A of a member card's sector 0, so that everybody may read its header: the
/// public key of the MIFARE application directory (NXP AN10787 rev. 7.2 §3.1).
pub(super) const PUBLIC_READ_KEY: [u8; 6] = [0xA0, 0xA1, 0xA2, 0xA3, 0xA4, 0xA5];
/// Keys A and B of a card as delivered (MF1S50YYX_V1 data sheet rev. 3.2 §8.6.3).
const TRANSPORT_KEY: [u8; 6] = [0xFF; 6];

/// Logs in to a member card's header: two commands.
pub(super) fn header_login(block: u8) -> [Command; 2] {
    [Command::load_key(&PUBLIC_READ_KEY), Command::authenticate(block)]
}

/// Logs in to a card as delivered: two commands.
pub(super) fn delivered_login(block: u8) -> [Command; 2] {
    [Command::load_key(&TRANSPORT_KEY), Command::authenticate(block)]
}
