//! The address on an NTAG 424 DNA, made anew at every reading (secure dynamic messaging,
//! NTAG 424 DNA data sheet rev. 3.0 §9.3): what is written at issue, the settings that name its
//! changing places, and finding them again in what was read. Pure. What does not live here:
//! whether the address is genuine (`crypto::sun`, asked through the key store).
//!
//! ```text
//!  length 2 │ D1 01 LEN 55 04 │ host/path?s=STORE&v=KEYS&p=PICCDATA(32)&m=MAC(16) │ 00 … │ header
//! ```

use crate::card::record::Header;
use crate::protocols::cards::{FilePlaces, MAC_PLACE, PICC_PLACE, SunPlace};

/// One short record of a well-known type, "U", with the prefix `https://` (NFC Forum URI RTD 1.0).
const URI_HEAD: [u8; 2] = [0xD1, 0x01];
const URI_TYPE: u8 = 0x55;
const HTTPS: u8 = 0x04;
/// Bytes before the address: length of the message, head, length, type, prefix.
const BEFORE: usize = 7;
/// Hex digits of the enciphered PICC data, and of the MAC.
const PICC_DIGITS: usize = 32;
const MAC_DIGITS: usize = 16;
/// UID and counter mirrored, as ASCII (data sheet table 69).
const UID_AND_COUNTER: u8 = 0xC1;
/// Dynamic messaging on, answers with a MAC to who has a key.
const DYNAMIC_WITH_MAC: u8 = 0x41;

/// An address as it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Address {
    /// From the start of the file.
    pub bytes: Vec<u8>,
    picc_at: usize,
    mac_at: usize,
}

/// The address of a card with this header; `None`: it is too long.
pub(super) fn of(sun: &SunPlace, header: &Header) -> Option<Address> {
    let url = sun.url.strip_prefix("https://")?;
    let text =
        url.replace("{store}", header.store.as_str()).replace("{version}", &header.key_version.to_string());
    let picc_at = text.find(PICC_PLACE)?;
    let text = text.replace(PICC_PLACE, &"0".repeat(PICC_DIGITS));
    let mac_at = text.find(MAC_PLACE)?;
    let text = text.replace(MAC_PLACE, &"0".repeat(MAC_DIGITS));
    let payload = u8::try_from(text.len() + 1).ok()?;
    let message = payload.checked_add(4)?;
    let head = [0x00, message, URI_HEAD[0], URI_HEAD[1], payload, URI_TYPE, HTTPS];
    let bytes = [head.as_slice(), text.as_bytes()].concat();
    Some(Address { bytes, picc_at: BEFORE + picc_at, mac_at: BEFORE + mac_at })
}

impl Address {
    /// What ChangeFileSettings takes behind the file's number (data sheet §10.7.1). The MAC is
    /// over nothing but the session: it begins where it stands.
    pub(super) fn settings(&self, files: &FilePlaces, sun: &SunPlace) -> Vec<u8> {
        let [low, high] = files.access.header.to_le_bytes();
        // Who deciphers and who proves; nobody asks for the counter.
        let keys = [0xFF, sun.meta << 4 | sun.file];
        let mut settings = vec![DYNAMIC_WITH_MAC, low, high, UID_AND_COUNTER];
        settings.extend(keys);
        for at in [self.picc_at, self.mac_at, self.mac_at] {
            settings.extend(at.to_le_bytes().into_iter().take(3));
        }
        settings
    }
}

/// PICC data and MAC of an address that was read; `None`: there is none of this form.
pub(super) fn parse(file: &[u8]) -> Option<([u8; 16], [u8; 8])> {
    let (length, rest) = file.split_first_chunk::<2>()?;
    let message = rest.get(..usize::from(u16::from_be_bytes(*length)))?;
    Some((field(message, *b"p=")?, field(message, *b"m=")?))
}

/// The hex digits behind a name of the query.
fn field<const N: usize>(message: &[u8], name: [u8; 2]) -> Option<[u8; N]> {
    let at = message.windows(3).position(|part| matches!(part, [b'?' | b'&', rest @ ..] if *rest == name))?;
    let digits = message.get(at + 3..at + 3 + 2 * N)?;
    let mut bytes = [0; N];
    hex::decode_to_slice(digits, &mut bytes).ok()?;
    Some(bytes)
}

#[cfg(test)]
#[path = "address_tests.rs"]
mod tests;
