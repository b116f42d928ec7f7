//! The purse of a CPU card: who may approve a purchase, and what a store never
//! does. What lives here: what is asked ([`PurseKeys`]) and the answer from a sealed
//! credential ([`SealedTerminal`]). What does not: a PSAM (`psam`), the commands to
//! the card, and the journal.
//!
//! ```text
//!  card  805001020B ─► opening          approve ─► terminal sequence, MAC1
//!  card  805401000F ─► TAC, MAC2        confirm ─► the card gave up the amount
//! ```

use std::fmt;

use super::sealed::SealedKeys;
use super::{KeyError, KeyVersion};
use crate::card::crypto::pboc::{self, Moment, PURCHASE_PURSE, Terms};
use crate::card::crypto::tdes::DesKey;
use crate::ident::StoreId;

/// The right eight bytes of a CPU card's application serial number: what its keys
/// were dispersed with.
pub type Serial = [u8; 8];

/// What a card answers to the opening of a purchase (JR/T 0025, INITIALIZE FOR PURCHASE).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Opening {
    /// Fen on the card.
    pub balance: u32,
    /// Its counter of offline transactions, before this one.
    pub offline_sequence: u16,
    /// Fen it may go below zero.
    pub overdraft: u32,
    /// Version of its purchase key.
    pub key_version: KeyVersion,
    /// Its algorithm; 00 is triple DES.
    pub algorithm: u8,
    /// Its challenge.
    pub random: [u8; 4],
}

impl Opening {
    /// Reads the 15 bytes.
    #[must_use]
    pub fn parse(bytes: &[u8; 15]) -> Self {
        let [b0, b1, b2, b3, s0, s1, o0, o1, o2, version, algorithm, r0, r1, r2, r3] = *bytes;
        Self {
            balance: u32::from_be_bytes([b0, b1, b2, b3]),
            offline_sequence: u16::from_be_bytes([s0, s1]),
            overdraft: u32::from_be_bytes([0, o0, o1, o2]),
            key_version: KeyVersion(version),
            algorithm,
            random: [r0, r1, r2, r3],
        }
    }
}

/// A purchase to approve.
#[derive(Debug, Clone, Copy)]
pub struct Purchase<'a> {
    /// The store whose keys the card has.
    pub store: &'a StoreId,
    /// The card.
    pub serial: Serial,
    /// What it answered.
    pub opening: Opening,
    /// Fen to take off.
    pub amount: u32,
    /// When; the same goes to the card.
    pub moment: Moment,
}

/// A purchase approved: what goes to the card.
#[derive(Clone)]
pub struct Approval {
    /// The terminal's own counter of transactions.
    pub terminal_sequence: u32,
    /// The terminal's word that the card may give up the amount.
    pub mac1: [u8; 4],
    /// To recognise the card's answer with; a SAM keeps it to itself.
    pub(in crate::card) session: Option<(DesKey, u32)>,
}

impl fmt::Debug for Approval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Approval").field("terminal_sequence", &self.terminal_sequence).finish_non_exhaustive()
    }
}

/// Holds purchase keys and acts with them.
pub trait PurseKeys: fmt::Debug + Send {
    /// The terminal number that goes to the card and into its signature.
    fn terminal(&self) -> [u8; 6];

    /// Approves a purchase.
    ///
    /// # Errors
    /// [`KeyError`].
    fn approve(&mut self, purchase: &Purchase<'_>) -> Result<Approval, KeyError>;

    /// Its last purchase was this one, as the caller knows: a terminal that was opened anew may still
    /// wait for the card's answer to it.
    fn resume(&mut self, _approval: &Approval) {}

    /// Whether the card gave up the amount. Takes the same time for every MAC2.
    ///
    /// # Errors
    /// [`KeyError`]; a wrong MAC2 is `Ok(false)`.
    fn confirm(&mut self, approval: &Approval, mac2: &[u8; 4]) -> Result<bool, KeyError>;

    /// Authorises a load. Credit keys of CPU cards are at headquarters alone, so that
    /// no key store of a shop can do this.
    ///
    /// # Errors
    /// Always [`KeyError::NeedsHeadquarters`].
    fn load_mac2(&self) -> Result<[u8; 4], KeyError> {
        Err(KeyError::NeedsHeadquarters)
    }
}

/// A purchase terminal without a SAM, for one purchase: the caller counts, durably
/// and before it asks, because a terminal sequence must never come twice.
#[derive(Debug)]
pub struct SealedTerminal<'a> {
    keys: &'a SealedKeys,
    number: [u8; 6],
    sequence: u32,
}

impl<'a> SealedTerminal<'a> {
    /// Terminal `number` at its transaction `sequence`.
    #[must_use]
    pub fn new(keys: &'a SealedKeys, number: [u8; 6], sequence: u32) -> Self {
        Self { keys, number, sequence }
    }
}

impl PurseKeys for SealedTerminal<'_> {
    fn terminal(&self) -> [u8; 6] {
        self.number
    }

    fn approve(&mut self, purchase: &Purchase<'_>) -> Result<Approval, KeyError> {
        let Purchase { store, serial, opening, amount, moment } = *purchase;
        if opening.algorithm != 0 {
            return Err(KeyError::Algorithm { algorithm: opening.algorithm });
        }
        let key = self.keys.purchase_key(store, opening.key_version, &serial)?;
        let session = pboc::purchase_session(&key, opening.random, opening.offline_sequence, self.sequence);
        let terms = Terms { amount, kind: PURCHASE_PURSE, terminal: self.number, moment };
        let mac1 = pboc::purchase_mac1(&session, &terms);
        Ok(Approval { terminal_sequence: self.sequence, mac1, session: Some((session, amount)) })
    }

    fn confirm(&mut self, approval: &Approval, mac2: &[u8; 4]) -> Result<bool, KeyError> {
        Ok(approval.session.as_ref().is_some_and(|(key, amount)| pboc::purchase_is_done(key, *amount, mac2)))
    }
}

#[cfg(test)]
#[path = "purse_tests.rs"]
pub(super) mod tests;
