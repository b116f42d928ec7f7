//! PINs of member cards, as slow hashes, and how often a wrong one was typed. What does not live
//! here: what a PIN looks like, how it is compared, and when a card is asked for one (`api`).

use rusqlite::{Connection, OptionalExtension, params};
use uuid::Uuid;

use super::operators::PinHash;
use super::{Reader, StoreError};
use crate::clock::UtcMillis;
use crate::ident::CardNo;

/// What is kept of a card's PIN.
#[derive(Debug, Clone)]
pub struct CardPin {
    /// The hash; prints nothing.
    pub hash: PinHash,
    /// Wrong ones since the last right one.
    pub wrong: u32,
}

/// Changes PINs.
#[derive(Debug, Clone)]
pub struct CardPinOp {
    /// Whose.
    pub card_no: CardNo,
    /// What.
    pub deed: PinDeed,
}

/// What is done with a PIN.
#[derive(Debug, Clone)]
pub enum PinDeed {
    /// A new one; no wrong ones are counted against it.
    Set(PinHash),
    /// None any more.
    Remove,
    /// One is about to be compared: counted as wrong until it proves right, so that nobody gains a
    /// guess by pulling the plug.
    Try,
    /// It was the right one.
    Right,
}

impl CardPinOp {
    pub(super) fn apply(&self, tx: &Connection) -> Result<(), StoreError> {
        let card_no = self.card_no.as_str();
        let changed = match &self.deed {
            PinDeed::Set(hash) => tx
                .prepare_cached(
                    "REPLACE INTO card_pin (card_no, hash, wrong, set_at) VALUES (?1, ?2, 0, ?3)",
                )?
                .execute(params![card_no, hash.0, UtcMillis::now().0])?,
            PinDeed::Remove => {
                tx.prepare_cached("DELETE FROM card_pin WHERE card_no = ?1")?.execute([card_no])?
            }
            PinDeed::Try => tx
                .prepare_cached("UPDATE card_pin SET wrong = wrong + 1 WHERE card_no = ?1")?
                .execute([card_no])?,
            PinDeed::Right => {
                tx.prepare_cached("UPDATE card_pin SET wrong = 0 WHERE card_no = ?1")?.execute([card_no])?
            }
        };
        match changed {
            0 => Err(StoreError::NotFound { what: format!("a PIN of card {card_no}") }),
            _ => Ok(()),
        }
    }
}

/// A card took another one's place, with the balance: the PIN that protects it and the wrong ones
/// counted against it come along. One that was set for the new card already stays.
pub(super) fn follow(tx: &Connection, giving: Uuid, to: &CardNo) -> Result<(), StoreError> {
    let from: Option<String> = tx
        .prepare_cached(
            "SELECT card_no FROM card_transaction
             WHERE id = ?1 AND instr(fact, '\"status_after\":\"replaced\"') > 0",
        )?
        .query_row([giving.as_bytes().as_slice()], |row| row.get(0))
        .optional()?;
    let Some(from) = from.filter(|from| from != to.as_str()) else { return Ok(()) };
    tx.prepare_cached("UPDATE OR IGNORE card_pin SET card_no = ?2 WHERE card_no = ?1")?
        .execute([from.as_str(), to.as_str()])?;
    tx.prepare_cached("DELETE FROM card_pin WHERE card_no = ?1")?.execute([from.as_str()])?;
    Ok(())
}

impl Reader<'_> {
    /// A card's PIN, where it has one here.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn card_pin(&self, card_no: &CardNo) -> Result<Option<CardPin>, StoreError> {
        let mut query = self.conn.prepare_cached("SELECT hash, wrong FROM card_pin WHERE card_no = ?1")?;
        let row = |row: &rusqlite::Row<'_>| Ok(CardPin { hash: PinHash(row.get(0)?), wrong: row.get(1)? });
        Ok(query.query_row([card_no.as_str()], row).optional()?)
    }
}
