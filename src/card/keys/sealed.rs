//! The floor of key stores: master keys in the sealed credential `card-keys`. They
//! are this store's, and of other stores of the group as far as the credential names them; value on
//! such cards is kept low.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use zeroize::Zeroizing;

use super::derive::{Use, of_card};
use super::purse::Serial;
use super::till_purse::TillPurse;
use super::transport;
use super::{
    CardRef, ClassicLogin, Earlier, KeyError, KeyRole, KeyStore, KeyVersion, Purpose, RecordMac, TagLogin,
};
use crate::card::apdu::{ClassicKeyType, Command};
use crate::card::crypto::aes128::AesKey;
use crate::card::crypto::tdes::TripleDesKey;
use crate::card::crypto::{ev1, ev2, sun, ultralight_c};
use crate::ident::{CardUid, StoreId};
use crate::protocols::cards::access_is_ours;

/// Master keys of one store.
pub type Masters = BTreeMap<(KeyVersion, Purpose), Zeroizing<[u8; 16]>>;

/// Master keys of this store, and of those whose cards it opens as well.
pub struct SealedKeys {
    store: StoreId,
    current: KeyVersion,
    masters: Masters,
    others: BTreeMap<StoreId, Masters>,
    purse: Option<Arc<TillPurse>>,
}

impl fmt::Debug for SealedKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SealedKeys")
            .field("store", &self.store)
            .field("current", &self.current)
            .field("held", &self.masters.keys().collect::<Vec<_>>())
            .field("others", &self.others.keys().collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}

impl SealedKeys {
    /// Takes master keys over.
    #[must_use]
    pub fn new(store: StoreId, current: KeyVersion, masters: Masters) -> Self {
        Self { store, current, masters, others: BTreeMap::new(), purse: None }
    }

    /// With the keys of another store: its cards are opened too, and none is issued or moved to
    /// newer keys here.
    #[must_use]
    pub fn with_store(mut self, store: StoreId, masters: Masters) -> Self {
        if store != self.store {
            self.others.insert(store, masters);
        }
        self
    }

    /// Whether it holds keys of that store.
    #[must_use]
    pub fn opens(&self, store: &str) -> bool {
        self.store.as_str() == store || self.others.keys().any(|other| other.as_str() == store)
    }

    /// With a purchase terminal for CPU cards.
    #[must_use]
    pub fn with_purse(mut self, purse: Option<Arc<TillPurse>>) -> Self {
        self.purse = purse;
        self
    }

    /// How many keys it holds.
    #[must_use]
    pub fn len(&self) -> usize {
        self.masters.len() + self.others.values().map(BTreeMap::len).sum::<usize>()
    }

    /// Whether it holds none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The purchase key of one CPU card.
    pub(super) fn purchase_key(
        &self,
        store: &StoreId,
        version: KeyVersion,
        serial: &Serial,
    ) -> Result<TripleDesKey, KeyError> {
        self.cpu_key(store, version, Purpose::CpuPurchase, serial)
    }

    fn cpu_key(
        &self,
        store: &StoreId,
        version: KeyVersion,
        purpose: Purpose,
        serial: &Serial,
    ) -> Result<TripleDesKey, KeyError> {
        Ok(TripleDesKey::new(self.bytes(store, version, purpose)?.clone()).disperse(serial))
    }

    fn bytes(
        &self,
        store: &StoreId,
        version: KeyVersion,
        purpose: Purpose,
    ) -> Result<&Zeroizing<[u8; 16]>, KeyError> {
        let masters = match self.others.get(store) {
            _ if *store == self.store => &self.masters,
            Some(masters) => masters,
            None => return Err(KeyError::OtherStore { issuer: store.clone(), own: self.store.clone() }),
        };
        masters.get(&(version, purpose)).ok_or(KeyError::Missing { version, purpose })
    }

    fn master(&self, store: &StoreId, version: KeyVersion, purpose: Purpose) -> Result<AesKey, KeyError> {
        Ok(AesKey::new(self.bytes(store, version, purpose)?.clone()))
    }

    fn key(&self, card: CardRef<'_>, purpose: Purpose, used: Use, place: u8) -> Result<AesKey, KeyError> {
        let master = self.master(card.store, card.version, purpose)?;
        Ok(of_card(&master, used, place, card.store, Some(card.uid)))
    }

    /// Keys for addresses do not depend on the number under which a tag has them.
    fn ev2_key_of(&self, card: CardRef<'_>, role: KeyRole, number: u8) -> Result<AesKey, KeyError> {
        match role {
            KeyRole::SunMeta => self.sun_meta_key(card.store, card.version),
            KeyRole::SunFile => self.key(card, Purpose::Sun, Use::SunFile, 0),
            KeyRole::Debit | KeyRole::Credit | KeyRole::Manage => {
                self.key(card, right(role), Use::Ev2, number)
            }
        }
    }

    fn sun_meta_key(&self, store: &StoreId, version: KeyVersion) -> Result<AesKey, KeyError> {
        let master = self.master(store, version, Purpose::Sun)?;
        Ok(of_card(&master, Use::SunMeta, 0, store, None))
    }

    /// A DESFire application's or NTAG 424's key, and the one that stands there.
    fn key_change(
        &self,
        card: CardRef<'_>,
        role: KeyRole,
        number: u8,
        earlier: Earlier,
    ) -> Result<[AesKey; 2], KeyError> {
        let new = self.ev2_key_of(card, role, number)?;
        let earlier = match earlier {
            Earlier::Factory => AesKey::new(Zeroizing::new(transport::EV2)),
            Earlier::Ours(version) => self.ev2_key_of(CardRef { version, ..card }, role, number)?,
        };
        Ok([new, earlier])
    }

    fn psc_bytes(&self, card: CardRef<'_>) -> Result<Zeroizing<[u8; 3]>, KeyError> {
        Ok(first(&self.key(card, Purpose::Debit, Use::Psc, 0)?))
    }

    fn classic_key(
        &self,
        card: CardRef<'_>,
        role: KeyRole,
        sector: u8,
    ) -> Result<Zeroizing<[u8; 6]>, KeyError> {
        Ok(first(&self.key(card, right(role), Use::Classic, sector)?))
    }
}

/// First of the four pages with the key (MF0ICU2 data sheet §7.5.7).
const ULTRALIGHT_C_KEY_PAGE: u8 = 0x2C;

/// The purpose whose master key gives the right.
fn right(role: KeyRole) -> Purpose {
    match role {
        KeyRole::Debit => Purpose::Debit,
        KeyRole::Credit => Purpose::Credit,
        KeyRole::Manage => Purpose::Manage,
        KeyRole::SunMeta | KeyRole::SunFile => Purpose::Sun,
    }
}

/// The first bytes of a derived key, for technologies with shorter ones.
fn first<const N: usize>(key: &AesKey) -> Zeroizing<[u8; N]> {
    const { assert!(N <= 16) };
    let mut bytes = Zeroizing::new([0; N]);
    for (byte, from) in bytes.iter_mut().zip(key.expose()) {
        *byte = *from;
    }
    bytes
}

/// Sectors from 32 on have 16 blocks (MIFARE Classic EV1 4K data sheet §8.6).
fn sector_of(block: u8) -> u8 {
    if block < 128 { block / 4 } else { 32 + (block - 128) / 16 }
}

/// The last block of a sector; sectors beyond 39 do not exist.
fn trailer_of(sector: u8) -> Option<u8> {
    match sector {
        0..=31 => Some(4 * sector + 3),
        32..=39 => Some(128 + 16 * (sector - 32) + 15),
        _ => None,
    }
}

impl KeyStore for SealedKeys {
    fn current(&self) -> KeyVersion {
        self.current
    }

    fn record_mac(&self, card: CardRef<'_>, record: &[u8]) -> Result<RecordMac, KeyError> {
        let mac = self.key(card, Purpose::Record, Use::Record, 0)?.cmac(record);
        Ok(std::array::from_fn(|i| mac.get(i).copied().unwrap_or_default()))
    }

    fn classic_login(&self, card: CardRef<'_>, role: KeyRole, block: u8) -> Result<ClassicLogin, KeyError> {
        let slot = match role {
            KeyRole::Debit => ClassicKeyType::A,
            KeyRole::Credit => ClassicKeyType::B,
            KeyRole::Manage | KeyRole::SunMeta | KeyRole::SunFile => return Err(KeyError::NoSuchKey),
        };
        let key = self.classic_key(card, role, sector_of(block))?;
        Ok(ClassicLogin {
            load: Command::load_key(&key),
            authenticate: Command::authenticate_with(block, slot),
        })
    }

    fn classic_trailer(&self, card: CardRef<'_>, sector: u8, access: [u8; 4]) -> Result<Command, KeyError> {
        let [six, seven, eight, _] = access;
        if !access_is_ours([six, seven, eight]) {
            return Err(KeyError::AccessBits);
        }
        let block = trailer_of(sector).ok_or(KeyError::NoSuchKey)?;
        let a = self.classic_key(card, KeyRole::Debit, sector)?;
        let b = self.classic_key(card, KeyRole::Credit, sector)?;
        let trailer = Zeroizing::new([&a[..], &access[..], &b[..]].concat());
        Ok(Command::new([0xFF, 0xD6, 0x00, block]).with_data(&trailer).secret())
    }

    fn tag_login(&self, card: CardRef<'_>) -> Result<TagLogin, KeyError> {
        let bytes = first::<6>(&self.key(card, Purpose::Debit, Use::Password, 0)?);
        let [a, b, c, d, e, f] = *bytes;
        Ok(TagLogin { password: Zeroizing::new([a, b, c, d]), pack: Zeroizing::new([e, f]) })
    }

    fn tag_password(&self, card: CardRef<'_>, password_page: u8) -> Result<[Command; 2], KeyError> {
        let TagLogin { password, pack } = self.tag_login(card)?;
        let [e, f] = *pack;
        let write = |page, bytes: &[u8]| Command::new([0xFF, 0xD6, 0x00, page]).with_data(bytes).secret();
        let pack = Zeroizing::new([e, f, 0, 0]);
        Ok([write(password_page, &password[..]), write(password_page.saturating_add(1), &pack[..])])
    }

    fn ultralight_c_key(&self, card: CardRef<'_>) -> Result<[Command; 4], KeyError> {
        let key = self.key(card, Purpose::Debit, Use::UltralightC, 0)?;
        // Each half stands backwards on the card (MF0ICU2 data sheet §7.5.7).
        let mut turned = Zeroizing::new(*key.expose());
        let (halves, _) = turned.as_chunks_mut::<8>();
        halves.iter_mut().for_each(|half| half.reverse());
        let (pages, _) = turned.as_chunks::<4>();
        Ok(std::array::from_fn(|i| {
            let page = ULTRALIGHT_C_KEY_PAGE + u8::try_from(i).unwrap_or(u8::MAX);
            let bytes = pages.get(i).map_or(&[][..], |page| &page[..]);
            Command::new([0xFF, 0xD6, 0x00, page]).with_data(bytes).secret()
        }))
    }

    fn ultralight_c_login(&self, card: CardRef<'_>) -> Result<ultralight_c::Login, KeyError> {
        let key = first::<16>(&self.key(card, Purpose::Debit, Use::UltralightC, 0)?);
        Ok(ultralight_c::Login::new(TripleDesKey::new(key))?)
    }

    fn ev1_login(&self, card: CardRef<'_>, role: KeyRole, number: u8) -> Result<ev1::Login, KeyError> {
        Ok(ev1::Login::new(self.ev2_key_of(card, role, number)?, number)?)
    }

    fn ev1_key(
        &self,
        session: &mut ev1::Session,
        card: CardRef<'_>,
        role: KeyRole,
        number: u8,
        earlier: Earlier,
        own: bool,
    ) -> Result<Vec<u8>, KeyError> {
        let [new, earlier] = self.key_change(card, role, number, earlier)?;
        Ok(session.change_key(number, &new, card.version.0, (!own).then_some(&earlier)))
    }

    fn ev2_login(&self, card: CardRef<'_>, role: KeyRole, number: u8) -> Result<ev2::Login, KeyError> {
        Ok(ev2::Login::first(self.ev2_key_of(card, role, number)?, number)?)
    }

    fn ev2_login_within(
        &self,
        session: ev2::Session,
        card: CardRef<'_>,
        role: KeyRole,
        number: u8,
    ) -> Result<ev2::Login, KeyError> {
        Ok(ev2::Login::within(session, self.ev2_key_of(card, role, number)?, number)?)
    }

    fn ev2_key(
        &self,
        session: &ev2::Session,
        card: CardRef<'_>,
        role: KeyRole,
        number: u8,
        earlier: Earlier,
        own: bool,
    ) -> Result<Vec<u8>, KeyError> {
        let [new, earlier] = self.key_change(card, role, number, earlier)?;
        Ok(session.change_key(number, &new, card.version.0, (!own).then_some(&earlier)))
    }

    fn sun_reading(
        &self,
        store: &StoreId,
        version: KeyVersion,
        picc_data: &[u8; 16],
        covered: &[u8],
        mac: &[u8; 8],
    ) -> Result<Option<sun::Reading>, KeyError> {
        let Some(reading) = sun::decipher(&self.sun_meta_key(store, version)?, picc_data) else {
            return Ok(None);
        };
        let Ok(uid) = CardUid::from_bytes(&reading.uid) else { return Ok(None) };
        let file = self.ev2_key_of(CardRef { uid: &uid, store, version }, KeyRole::SunFile, 0)?;
        Ok(sun::is_genuine(&file, &reading, covered, mac).then_some(reading))
    }

    fn psc(&self, card: CardRef<'_>, tries_left: u8) -> Result<Command, KeyError> {
        if tries_left < 2 {
            return Err(KeyError::TooFewTries { left: tries_left });
        }
        let psc = self.psc_bytes(card)?;
        Ok(Command::new([0xFF, 0x20, 0x00, 0x00]).with_data(&psc[..]).secret().counted_by_the_card())
    }

    fn psc_change(&self, card: CardRef<'_>) -> Result<Command, KeyError> {
        let psc = self.psc_bytes(card)?;
        Ok(Command::new([0xFF, 0xD2, 0x00, 0x01]).with_data(&psc[..]).secret())
    }

    fn purse(&self) -> Option<&TillPurse> {
        self.purse.as_deref()
    }

    fn external_authentication(
        &self,
        store: &StoreId,
        serial: &Serial,
        version: KeyVersion,
        key_id: u8,
        challenge: &[u8; 8],
    ) -> Result<Command, KeyError> {
        let key = self.cpu_key(store, version, Purpose::CpuMaintain, serial)?;
        Ok(Command::new([0x00, 0x82, 0x00, key_id]).with_data(&key.encrypt(challenge)))
    }
}

#[cfg(test)]
#[path = "sealed_tests.rs"]
mod tests;
