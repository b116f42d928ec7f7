//! Keys of MIFARE Classic that everybody knows, and what they are good for here.
//! They protect nothing. The list is in `keys::transport`.

use crate::card::apdu::Command;
use crate::card::keys::transport::{ClassicKey, DELIVERED};
use crate::protocols::cards::BLOCK_BYTES;

/// Key A of a member card's sector 0, so that everybody may read its header: the
/// public key of the MIFARE application directory (NXP AN10787 rev. 7.2 §3.1).
pub(super) const PUBLIC_READ_KEY: [u8; 6] = [0xA0, 0xA1, 0xA2, 0xA3, 0xA4, 0xA5];
/// Access bits as delivered: key A does everything (MF1S50YYX_V1 data sheet rev. 3.2 §8.6.3).
const DELIVERED_ACCESS: [u8; 3] = [0xFF, 0x07, 0x80];
/// The byte behind them, as delivered (ibid.).
const GENERAL_PURPOSE: u8 = 0x69;
const KEY_BYTES: usize = 6;

/// Logs in to a member card's header: two commands.
pub(super) fn header_login(block: u8) -> [Command; 2] {
    [Command::load_key(&PUBLIC_READ_KEY), Command::authenticate(block)]
}

/// Logs in to a card as most are delivered: two commands.
pub(super) fn delivered_login(block: u8) -> [Command; 2] {
    login(&DELIVERED, block)
}

/// Logs in with a public key: two commands.
pub(super) fn login(key: &ClassicKey, block: u8) -> [Command; 2] {
    let login = key.login(block);
    [login.load, login.authenticate]
}

/// Whether a member card's header can be read with this key.
pub(super) fn reads_headers(key: &ClassicKey) -> bool {
    key.key == PUBLIC_READ_KEY
}

/// Makes a sector as most are delivered; `block` is its trailer.
pub(super) fn delivered_trailer(block: u8) -> Command {
    let [six, seven, eight] = DELIVERED_ACCESS;
    let mut trailer = [0xFF; BLOCK_BYTES];
    let access = [six, seven, eight, GENERAL_PURPOSE];
    trailer.iter_mut().skip(KEY_BYTES).zip(access).for_each(|(to, from)| *to = from);
    super::place::update(block, &trailer)
}

/// Whether a trailer, as read with key A, has the access bits of a sector as delivered.
pub(super) fn is_delivered_trailer(trailer: &[u8]) -> bool {
    trailer.get(KEY_BYTES..KEY_BYTES + DELIVERED_ACCESS.len()) == Some(&DELIVERED_ACCESS[..])
}
