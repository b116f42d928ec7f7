//! From a master key to the key of one card. What lives here: what goes into the
//! diversification, byte by byte (docs/card-keys.md repeats it for headquarters). What
//! does not: who may ask (`sealed`).

use sha2::{Digest, Sha256};

use crate::card::crypto::aes128::AesKey;
use crate::ident::{CardUid, StoreId};

/// What a derived key is used as; one master never gives the same key for two uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Use {
    /// AES-CMAC key of a member record.
    Record = 0x01,
    /// Classic sector key; the place is the sector.
    Classic = 0x02,
    /// Password and PACK of an NTAG21x or Ultralight EV1.
    Password = 0x03,
    /// Ultralight C.
    UltralightC = 0x04,
    /// DESFire or NTAG 424 application key; the place is its number.
    Ev2 = 0x05,
    /// NTAG 424: deciphers who made an address. The same for all cards of a store.
    SunMeta = 0x06,
    /// NTAG 424: proves that it did.
    SunFile = 0x07,
    /// SLE4442.
    Psc = 0x08,
}

/// Use (1) ‖ place (1) ‖ first 8 bytes of SHA-256 of the store's name ‖ length of the
/// UID (1) ‖ UID, zeros to 16.
pub(super) fn of_card(
    master: &AesKey,
    used: Use,
    place: u8,
    store: &StoreId,
    uid: Option<&CardUid>,
) -> AesKey {
    let name = Sha256::digest(store.as_str());
    let uid = uid.map(|uid| hex::decode(uid.as_str()).unwrap_or_default()).unwrap_or_default();
    let len = u8::try_from(uid.len()).unwrap_or(u8::MAX);
    let bytes = [used as u8, place].into_iter().chain(name.into_iter().take(8)).chain([len]).chain(uid);
    let mut input = [0; 27];
    for (byte, from) in input.iter_mut().zip(bytes) {
        *byte = from;
    }
    master.diversify(&input)
}
