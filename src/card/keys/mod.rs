//! The key store: asked to *act* (log in, authenticate a record, answer a card's
//! challenge), never to *give a key*. What lives here: what can be asked
//! ([`KeyStore`], and [`PurseKeys`] for CPU cards), the stores that answer (a sealed
//! credential: [`credential`], [`sealed`]; a SAM: [`psam`], kept by [`till_purse`]), keys that everybody
//! knows ([`transport`]), and moving cards to newer keys ([`rekey`]). What does not:
//! the algorithms (`crypto`), how commands reach a card, and where on a card things
//! lie (`firmware-protocols/cards/`).
//!
//! ```text
//!  master key (version, purpose) ── AN10922 over use ‖ place ‖ store ‖ UID ──► key of one card
//!                                                    └──► Classic sector key, tag password, AES key, PSC …
//! ```
//! The card says which version it has; no other is ever tried.

pub mod credential;
mod derive;
mod error;
mod foil;
mod load;
mod login;
mod notebook;
pub mod psam;
pub mod purse;
pub mod rekey;
pub mod sealed;
pub mod till_purse;
pub mod transport;

use std::fmt;

pub use error::KeyError;
pub use login::{ClassicLogin, TagLogin};
pub use purse::PurseKeys;

use super::apdu::Command;
use super::crypto::{ev1, ev2, sun, ultralight_c};
use crate::ident::{CardUid, StoreId};

/// A generation of master keys, as cards tell it; 0 and 255 (empty memory) are cards that have none of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyVersion(pub u8);

impl KeyVersion {
    /// Whether a card with this version was issued by us.
    #[must_use]
    pub fn is_ours(self) -> bool {
        (1..=254).contains(&self.0)
    }
}

impl fmt::Display for KeyVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What a master key is for. Where a chip can tell them apart, one that takes money off a card
/// cannot put any on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Purpose {
    /// MAC over the member record.
    Record,
    /// Read a card, and take value off it where the chip tells that from putting value on.
    Debit,
    /// Put value on a card; issue it. On a Classic every write, a payment too.
    Credit,
    /// Change a card's keys and settings.
    Manage,
    /// Check the addresses an NTAG 424 makes.
    Sun,
    /// Purchases from the purse of a CPU card (DPK, triple DES).
    CpuPurchase,
    /// External authentication of a CPU card's application (triple DES).
    CpuMaintain,
}

impl Purpose {
    /// All, in the order of the documentation.
    pub const ALL: [Self; 7] = [
        Self::Record,
        Self::Debit,
        Self::Credit,
        Self::Manage,
        Self::Sun,
        Self::CpuPurchase,
        Self::CpuMaintain,
    ];

    /// Its name in the credential.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Record => "record",
            Self::Debit => "debit",
            Self::Credit => "credit",
            Self::Manage => "manage",
            Self::Sun => "sun",
            Self::CpuPurchase => "cpu-purchase",
            Self::CpuMaintain => "cpu-maintain",
        }
    }
}

impl fmt::Display for Purpose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Which right a login is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KeyRole {
    /// Read, and take value off; Classic key A, which reads alone.
    Debit,
    /// Put value on; Classic key B, which alone writes.
    Credit,
    /// Change keys and settings.
    Manage,
    /// NTAG 424: decipher who made an address (SDMMetaRead). The same key for all tags of a store.
    SunMeta,
    /// NTAG 424: prove that it did (SDMFileRead).
    SunFile,
}

/// The card whose key is meant: what it says of itself before any key is used.
#[derive(Debug, Clone, Copy)]
pub struct CardRef<'a> {
    /// Its UID.
    pub uid: &'a CardUid,
    /// The store whose keys it was issued with.
    pub store: &'a StoreId,
    /// The version of its keys.
    pub version: KeyVersion,
}

/// The key that stands on a card before it is changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Earlier {
    /// As delivered ([`transport`]).
    Factory,
    /// One of ours.
    Ours(KeyVersion),
}

/// The MAC over a member record: the first eight bytes of the CMAC.
pub type RecordMac = [u8; 8];

/// Holds master keys and acts with them. A call may wait for a SAM in a card slot
/// (up to its answer time), so it belongs on a thread that may wait.
pub trait KeyStore: fmt::Debug + Send + Sync {
    /// The version new cards are issued with, and older ones move to.
    fn current(&self) -> KeyVersion;

    /// MAC over a member record, with a key of this card alone.
    ///
    /// # Errors
    /// [`KeyError`] when the version or the purpose is not held, or the card is another store's.
    fn record_mac(&self, card: CardRef<'_>, record: &[u8]) -> Result<RecordMac, KeyError>;

    /// Whether a record is as its issuer wrote it. Takes the same time for every MAC.
    ///
    /// # Errors
    /// As [`record_mac`](Self::record_mac); a wrong MAC is `Ok(false)`.
    fn record_is_genuine(&self, card: CardRef<'_>, record: &[u8], mac: &RecordMac) -> Result<bool, KeyError> {
        use subtle::ConstantTimeEq;
        Ok(self.record_mac(card, record)?.ct_eq(mac).into())
    }

    /// Commands that log in to the Classic sector of `block`.
    ///
    /// # Errors
    /// [`KeyError`]; a role without a Classic key is [`KeyError::NoSuchKey`].
    fn classic_login(&self, card: CardRef<'_>, role: KeyRole, block: u8) -> Result<ClassicLogin, KeyError>;

    /// The command that writes a Classic sector's trailer: key A (debit), `access`
    /// (trailer bytes 6 to 9), key B (credit).
    ///
    /// # Errors
    /// [`KeyError`]; access bits other than a member card's are [`KeyError::AccessBits`]:
    /// they would lock the sector for ever or leave it open.
    fn classic_trailer(&self, card: CardRef<'_>, sector: u8, access: [u8; 4]) -> Result<Command, KeyError>;

    /// Password login of an NTAG21x or Ultralight EV1. The password covers all
    /// writes: debit and credit cannot be kept apart on these chips.
    ///
    /// # Errors
    /// [`KeyError`].
    fn tag_login(&self, card: CardRef<'_>) -> Result<TagLogin, KeyError>;

    /// Commands that write password and PACK of an NTAG21x or Ultralight EV1 into
    /// `password_page` and the page behind it.
    ///
    /// # Errors
    /// [`KeyError`].
    fn tag_password(&self, card: CardRef<'_>, password_page: u8) -> Result<[Command; 2], KeyError>;

    /// Commands that write the key of an Ultralight C (pages 2C to 2F).
    ///
    /// # Errors
    /// [`KeyError`].
    fn ultralight_c_key(&self, card: CardRef<'_>) -> Result<[Command; 4], KeyError>;

    /// Mutual login of an Ultralight C.
    ///
    /// # Errors
    /// [`KeyError`].
    fn ultralight_c_login(&self, card: CardRef<'_>) -> Result<ultralight_c::Login, KeyError>;

    /// The frame that changes key `number` of a DESFire application or NTAG 424 to
    /// that of `card.version`. `earlier` is what stands there; `own` says whether the
    /// session was opened with that same key.
    ///
    /// # Errors
    /// [`KeyError`].
    fn ev2_key(
        &self,
        session: &ev2::Session,
        card: CardRef<'_>,
        role: KeyRole,
        number: u8,
        earlier: Earlier,
        own: bool,
    ) -> Result<Vec<u8>, KeyError>;

    /// As [`ev2_key`](Self::ev2_key), on a DESFire EV1. The frame must then be sent: the session
    /// goes on from it.
    ///
    /// # Errors
    /// [`KeyError`]; the session is then as it was.
    fn ev1_key(
        &self,
        session: &mut ev1::Session,
        card: CardRef<'_>,
        role: KeyRole,
        number: u8,
        earlier: Earlier,
        own: bool,
    ) -> Result<Vec<u8>, KeyError>;

    /// AES login of a DESFire EV1, with the card's key `number`: the same key that a later chip
    /// has.
    ///
    /// # Errors
    /// [`KeyError`].
    fn ev1_login(&self, card: CardRef<'_>, role: KeyRole, number: u8) -> Result<ev1::Login, KeyError>;

    /// First AES login of a DESFire or NTAG 424, with the card's key `number`.
    ///
    /// # Errors
    /// [`KeyError`].
    fn ev2_login(&self, card: CardRef<'_>, role: KeyRole, number: u8) -> Result<ev2::Login, KeyError>;

    /// AES login with another key within a session.
    ///
    /// # Errors
    /// [`KeyError`].
    fn ev2_login_within(
        &self,
        session: ev2::Session,
        card: CardRef<'_>,
        role: KeyRole,
        number: u8,
    ) -> Result<ev2::Login, KeyError>;

    /// Which NTAG 424 of ours made this address; `None` when none did. `version` is
    /// the one written into the address at issue.
    ///
    /// # Errors
    /// [`KeyError`].
    fn sun_reading(
        &self,
        store: &StoreId,
        version: KeyVersion,
        picc_data: &[u8; 16],
        covered: &[u8],
        mac: &[u8; 8],
    ) -> Result<Option<sun::Reading>, KeyError>;

    /// The command that presents an SLE4442's PSC, through an ACS reader. Never with
    /// one try left: a wrong PSC would then lock the card for ever.
    ///
    /// # Errors
    /// [`KeyError`]; [`KeyError::TooFewTries`].
    fn psc(&self, card: CardRef<'_>, tries_left: u8) -> Result<Command, KeyError>;

    /// The command that changes an SLE4442's PSC, once the one before was presented.
    ///
    /// # Errors
    /// [`KeyError`].
    fn psc_change(&self, card: CardRef<'_>) -> Result<Command, KeyError>;

    /// The till's side of CPU cards' purses, where there is one.
    fn purse(&self) -> Option<&till_purse::TillPurse> {
        None
    }

    /// External authentication of a CPU card with its key `key_id`: the answer to
    /// its challenge (a challenge of four bytes with four zeros behind).
    ///
    /// # Errors
    /// [`KeyError`].
    fn external_authentication(
        &self,
        store: &StoreId,
        serial: &purse::Serial,
        version: KeyVersion,
        key_id: u8,
        challenge: &[u8; 8],
    ) -> Result<Command, KeyError>;
}
