//! A load of a CPU card: only headquarters has its keys. What lives here: what it is asked. What does
//! not: when (`till_purse`), and the way there.

use std::fmt;

use super::purse::Serial;
use super::{KeyError, KeyVersion};
use crate::card::crypto::pboc::Terms;
use crate::ident::StoreId;

/// A load that headquarters is asked for (JR/T 0025, INITIALIZE FOR LOAD).
#[derive(Debug, Clone)]
pub struct Load {
    /// The store whose keys the card has.
    pub store: StoreId,
    /// The card.
    pub serial: Serial,
    /// Fen on it.
    pub balance: u32,
    /// Its counter of loads, before this one.
    pub online_sequence: u16,
    /// Version of its load key.
    pub key_version: KeyVersion,
    /// Its challenge.
    pub random: [u8; 4],
    /// The card's word for balance, amount and terminal.
    pub mac1: [u8; 4],
    /// What is to be loaded, and when.
    pub terms: Terms,
}

/// Headquarters, which alone has the load keys.
pub trait Headquarters: fmt::Debug + Send + Sync {
    /// MAC2 of a load whose MAC1 is right.
    ///
    /// # Errors
    /// [`KeyError::NeedsHeadquarters`] while it is not reached, or does not agree.
    fn load_mac2(&self, load: &Load) -> Result<[u8; 4], KeyError>;
}
