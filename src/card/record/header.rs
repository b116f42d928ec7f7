//! The header: what everybody may read of a member card, and what has to be known
//! before any key is used: whose card it is and which version its keys have. Its
//! check is made with the card's own key, so that no password is ever tried on a
//! card that would not take it.
//!
//! ```text
//!  0 "BG" · 2 layout · 3 key version · 4 issuing store (ASCII, 00) · 12 check ── 16
//! ```

use subtle::ConstantTimeEq;

use super::{MAX_STORE_BYTES, slot};
use crate::card::keys::{CardRef, KeyError, KeyStore, KeyVersion};
use crate::ident::{CardUid, StoreId};
use crate::protocols::cards::HEADER_BYTES;

const MARK: [u8; 2] = *b"BG";
const CHECKED_BYTES: usize = 12;

/// A header of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// Which layout the card was written by.
    pub layout: u8,
    /// Version of the keys that open it.
    pub key_version: KeyVersion,
    /// Who issued it.
    pub store: StoreId,
}

/// A store's name does not fit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// Too long.
    #[error(
        "store {0} does not fit a chip: gateways that issue chip cards need a store id of at most 8 characters"
    )]
    Store(StoreId),
    /// The key store does not act.
    #[error(transparent)]
    Keys(#[from] KeyError),
}

/// What the bytes of a header say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HeaderReading {
    /// A card of ours.
    Ours(Header),
    /// Nothing, or what the chip's maker wrote.
    Blank,
    /// Somebody else's.
    Foreign,
}

impl Header {
    /// The header's bytes on the card `uid`.
    ///
    /// # Errors
    /// [`HeaderError`].
    pub fn encode(&self, uid: &CardUid, keys: &dyn KeyStore) -> Result<[u8; HEADER_BYTES], HeaderError> {
        let name = self.store.as_str().as_bytes();
        if name.len() > MAX_STORE_BYTES {
            return Err(HeaderError::Store(self.store.clone()));
        }
        let mut bytes = [0; HEADER_BYTES];
        let said = MARK.into_iter().chain([self.layout, self.key_version.0]).chain(name.iter().copied());
        bytes.iter_mut().zip(said).for_each(|(to, from)| *to = from);
        let check = self.check(&bytes, uid, keys)?;
        bytes.iter_mut().skip(CHECKED_BYTES).zip(check).for_each(|(to, from)| *to = from);
        Ok(bytes)
    }

    /// Whether the card was issued with our keys. Takes the same time for every check.
    ///
    /// # Errors
    /// [`KeyError`]: the key store has none for it.
    pub fn is_ours(
        &self,
        bytes: &[u8; HEADER_BYTES],
        uid: &CardUid,
        keys: &dyn KeyStore,
    ) -> Result<bool, KeyError> {
        let check = self.check(bytes, uid, keys)?;
        Ok(bytes.get(CHECKED_BYTES..).unwrap_or_default().ct_eq(&check).into())
    }

    fn check(
        &self,
        bytes: &[u8; HEADER_BYTES],
        uid: &CardUid,
        keys: &dyn KeyStore,
    ) -> Result<[u8; HEADER_BYTES - CHECKED_BYTES], KeyError> {
        let card = CardRef { uid, store: &self.store, version: self.key_version };
        let [a, b, c, d, ..] = keys.record_mac(card, bytes.get(..CHECKED_BYTES).unwrap_or_default())?;
        Ok([a, b, c, d])
    }
}

/// Reads a header; its check is for [`Header::is_ours`].
#[must_use]
pub fn read_header(bytes: &[u8; HEADER_BYTES]) -> HeaderReading {
    let [b, g, layout, key_version, rest @ ..] = bytes;
    if [*b, *g] == MARK {
        let name = rest.get(..MAX_STORE_BYTES).unwrap_or_default();
        let end = name.iter().position(|byte| *byte == 0).unwrap_or(name.len());
        let store = name.get(..end).and_then(|name| std::str::from_utf8(name).ok());
        return match store.and_then(|name| StoreId::new(name).ok()) {
            Some(store) if slot::may_be_a_version(*key_version) => {
                HeaderReading::Ours(Header { layout: *layout, key_version: KeyVersion(*key_version), store })
            }
            _ => HeaderReading::Foreign,
        };
    }
    // As delivered: nothing, or an empty NDEF message (NTAG213/215/216 data sheet rev. 3.2 §8.5.7).
    let empty_ndef = bytes.windows(3).any(|part| part == [0x03, 0x00, 0xFE]);
    // A card being prepared has no first page yet (`medium::format`).
    if bytes.starts_with(&[0; 4]) || empty_ndef { HeaderReading::Blank } else { HeaderReading::Foreign }
}
