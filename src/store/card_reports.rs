//! Cards that were reported before this store ever saw them: a member calls, and the card may be
//! presented any minute. What does not live here: how a card that was seen stands (`ledger_cards`,
//! which takes a report over at the first tap).

use rusqlite::{Connection, OptionalExtension, params};

use super::devices::{enum_text, text_enum};
use super::ledger_cards::{self, By};
use super::{Batch, Op, Reader, StoreError};
use crate::clock::UtcMillis;
use crate::event::ledger::{CardStanding, CardStatus};
use crate::ident::CardNo;

/// Reports that are kept, at most: whoever needs more has headquarters' hotlist.
pub const MOST_REPORTS: i64 = 10_000;

/// Changes reports. Made by [`stands`] only.
#[derive(Debug, Clone)]
pub struct ReportOp {
    card_no: CardNo,
    was: CardStanding,
    status: CardStanding,
}

/// A card that was never seen stands otherwise from now on, with its event. Committing fails with
/// [`StoreError::NotFound`] when that has changed, or the card was seen, since it was read, and with
/// [`StoreError::LedgerRefused`] when there are too many.
///
/// # Errors
/// [`StoreError::Corrupt`] when the event cannot be written.
pub fn stands(
    card_no: &CardNo,
    was: CardStanding,
    status: CardStanding,
    reason: Option<String>,
    by: By,
) -> Result<Batch, StoreError> {
    let event = CardStatus {
        card_no: card_no.clone(),
        uid: None,
        issuing_store: None,
        status,
        held: None,
        counter_expected: None,
        counter_seen: None,
        balance_seen_fen: None,
        uid_seen: None,
        pin: None,
        listed: None,
        reason,
        operator: Some(by.operator),
        till: Some(by.till),
    };
    let op = ReportOp { card_no: card_no.clone(), was, status };
    Ok(Batch::new().op(Op::Report(op)).event(ledger_cards::about(card_no, &event)?))
}

impl ReportOp {
    pub(super) fn apply(&self, tx: &Connection) -> Result<(), StoreError> {
        let (reader, card_no) = (Reader { conn: tx }, self.card_no.as_str());
        let stood = reader.card_report(&self.card_no)?.unwrap_or(CardStanding::Active);
        if reader.member_card(&self.card_no)?.is_some() || stood != self.was {
            return Err(StoreError::NotFound { what: format!("card {card_no} in that standing") });
        }
        if self.status == CardStanding::Active {
            return forget(tx, &self.card_no);
        }
        tx.prepare_cached("REPLACE INTO card_report (card_no, status, at) VALUES (?1, ?2, ?3)")?
            .execute(params![card_no, enum_text(&self.status)?, UtcMillis::now().0])?;
        let count: i64 = tx.query_row("SELECT count(*) FROM card_report", [], |row| row.get(0))?;
        if count > MOST_REPORTS {
            return Err(StoreError::LedgerRefused {
                what: "too many cards are reported that were never seen here; tell headquarters".into(),
            });
        }
        Ok(())
    }
}

/// The card was seen: its row says how it stands from now on.
pub(super) fn forget(tx: &Connection, card_no: &CardNo) -> Result<(), StoreError> {
    tx.prepare_cached("DELETE FROM card_report WHERE card_no = ?1")?.execute([card_no.as_str()])?;
    Ok(())
}

impl Reader<'_> {
    /// As what a card was reported that this store never saw.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn card_report(&self, card_no: &CardNo) -> Result<Option<CardStanding>, StoreError> {
        let mut query = self.conn.prepare_cached("SELECT status FROM card_report WHERE card_no = ?1")?;
        let status: Option<String> = query.query_row([card_no.as_str()], |row| row.get(0)).optional()?;
        status.map(text_enum).transpose()
    }
}
