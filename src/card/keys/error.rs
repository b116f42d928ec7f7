//! Why a key store does not act. No text here holds a key.

use super::{KeyVersion, Purpose};
use crate::card::crypto::NoRandom;
use crate::ident::StoreId;

fn said(status: Option<u16>) -> String {
    status.map_or_else(|| "no answer".to_owned(), |status| format!("status {status:04X}"))
}

/// A key store did not act.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The card's version is not held. Another one is not tried.
    #[error(
        "key version {version} of purpose `{purpose}` is not among the keys of the card's store in credential \
         `card-keys`; add its line (docs/card-keys.md), or re-key the card where it is known"
    )]
    Missing {
        /// As the card said.
        version: KeyVersion,
        /// What it was needed for.
        purpose: Purpose,
    },
    /// No keys of the card's store are held.
    #[error(
        "the card was issued by store {issuer}, and credential `card-keys` of {own} has no keys of that store; \
         let headquarters add them, or serve it, or use a SAM"
    )]
    OtherStore {
        /// Who issued the card.
        issuer: StoreId,
        /// Whose keys are held.
        own: StoreId,
    },
    /// Credit keys of CPU cards are at headquarters alone.
    #[error("a load of a CPU card is authorised by headquarters; try again when the line is up")]
    NeedsHeadquarters,
    /// No purchase SAM.
    #[error(
        "a purchase from a CPU card needs a purchase SAM, and there is none; \
         put one into a slot and add a [[reader]] with role = \"sam\""
    )]
    NoTerminal,
    /// The technology has no key for this.
    #[error("this kind of card has no key for that; see the table of technologies in docs/cards.md")]
    NoSuchKey,
    /// Access bits that would lock a sector, or leave it open.
    #[error(
        "the access bits of the sector trailer would lock the sector for ever or leave it open; \
         a member card has 787788: correct the card layout"
    )]
    AccessBits,
    /// A wrong code now would lock the card.
    #[error("the card has {left} tries left; present its code nowhere any more and replace the card")]
    TooFewTries {
        /// As the card said.
        left: u8,
    },
    /// Not an algorithm of ours.
    #[error(
        "the card asks for algorithm {algorithm:02X}, and only 00 (triple DES) is known; use a PSAM that has it"
    )]
    Algorithm {
        /// As the card said.
        algorithm: u8,
    },
    /// One more wrong answer of a card could lock the SAM.
    #[error(
        "answers of cards were wrong, and the SAM may have one try left before it locks itself for ever: \
         purchases from CPU cards are refused; find the imitation (its card is held), then restart Baygate"
    )]
    SamSpared,
    /// A SAM refused, or did not answer.
    #[error(
        "the SAM did not give {what} ({}); check that it is the right one and sits firmly in its slot, \
         then restart the reader", said(*status)
    )]
    Sam {
        /// What was asked of it.
        what: &'static str,
        /// Its status word; none when it was silent.
        status: Option<u16>,
    },
    /// It has approved another purchase since, and only knows its last one.
    #[error(
        "the SAM cannot check a card's answer any more, for it has gone on to another purchase; \
         headquarters checks the card's signature"
    )]
    Superseded,
    /// No random numbers.
    #[error(transparent)]
    NoRandom(#[from] NoRandom),
}
