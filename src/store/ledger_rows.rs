//! Reading the journal: transactions by card, by day, by what they follow, what waits for a tap or
//! for its receiver, what was spent without headquarters. What does not live here: how a transaction
//! begins and ends (`ledger`).

use rusqlite::{OptionalExtension, Row, params};
use uuid::Uuid;

use super::devices::{enum_text, text_enum};
use super::ledger::{State, TransactionRow, from_json};
use super::requests::uuid_from;
use super::seal::{self, LedgerTable};
use super::{Offset, Reader, StoreError};
use crate::clock::{self, TimeQuality, UtcMillis};
use crate::event::card::Technology;
use crate::event::ledger::CardTransaction;
use crate::ident::CardNo;

fn row_of(row: &Row<'_>) -> Result<TransactionRow, StoreError> {
    seal::check(row, Some(LedgerTable::Transaction), 0)?;
    let text = |column: &str| row.get::<_, String>(column);
    Ok(TransactionRow {
        no: row.get("no")?,
        fact: from_json(&text("fact")?)?,
        state: text_enum(text("state")?)?,
        business_day: text("business_day")?,
        technology: text_enum(text("technology")?)?,
        before: from_json(&text("before")?)?,
        after: from_json(&text("after")?)?,
        begun_at: UtcMillis(row.get("begun_at")?),
        ended_at: row.get::<_, Option<i64>>("ended_at")?.map(UtcMillis),
        told_unknown: row.get("told_unknown")?,
    })
}

/// Off the cards named in ?3, each between bars, and off all of a technology on a day; with ?4 on
/// the latest day as well.
const SPENT: &str =
    "SELECT coalesce(sum(offline_fen) FILTER (WHERE instr(?3, '|' || card_no || '|') > 0), 0),
            coalesce(sum(offline_fen) FILTER (WHERE technology = ?2), 0)
     FROM card_transaction
     WHERE offline_fen > 0 AND state <> 'aborted'
       AND business_day IN (?1, iif(?4, (SELECT max(business_day) FROM card_transaction WHERE offline_fen > 0), ?1))";

/// Giving halves that nothing followed but what was aborted; where ?1 names a card, those of which it
/// is one side (?2: how its number stands in a fact as the other one).
const TRANSFERS_DUE: &str = "SELECT id FROM card_transaction g
     WHERE g.state = 'committed' AND g.original IS NULL AND instr(g.fact, '\"kind\":\"transfer\"') > 0
       AND (?1 IS NULL OR g.card_no = ?1 OR instr(g.fact, ?2) > 0)
       AND NOT EXISTS (SELECT 1 FROM card_transaction r WHERE r.original = g.id AND r.state <> 'aborted')
     ORDER BY g.no";

impl Reader<'_> {
    pub(super) fn transactions(
        &self,
        which: &str,
        params: impl rusqlite::Params,
    ) -> Result<Vec<TransactionRow>, StoreError> {
        let mut query = self.conn.prepare_cached(&format!("SELECT * FROM card_transaction WHERE {which}"))?;
        let mut rows = query.query(params)?;
        let mut found = Vec::new();
        while let Some(row) = rows.next()? {
            found.push(row_of(row)?);
        }
        Ok(found)
    }

    /// One transaction.
    ///
    /// # Errors
    /// [`StoreError`]; [`StoreError::Damaged`] when the row has rotted.
    pub fn transaction(&self, id: Uuid) -> Result<Option<TransactionRow>, StoreError> {
        Ok(self.transactions("id = ?1", [id.as_bytes().as_slice()])?.pop())
    }

    /// The transaction of a card that its next tap has to settle.
    ///
    /// # Errors
    /// As [`Reader::transaction`].
    pub fn open_transaction(&self, card_no: &CardNo) -> Result<Option<TransactionRow>, StoreError> {
        Ok(self.transactions("card_no = ?1 AND state IN ('intent','unknown')", [card_no.as_str()])?.pop())
    }

    /// All of a card's transactions that are not settled, oldest first: at most one waits for its
    /// tap, the others only for headquarters.
    ///
    /// # Errors
    /// As [`Reader::transaction`].
    pub fn unsettled_of(&self, card_no: &CardNo) -> Result<Vec<TransactionRow>, StoreError> {
        self.transactions(
            "card_no = ?1 AND state IN ('intent','unknown','parked') ORDER BY no",
            [card_no.as_str()],
        )
    }

    /// All transactions that wait for a tap, oldest first: after a kill, those it interrupted.
    ///
    /// # Errors
    /// As [`Reader::transaction`].
    pub fn open_transactions(&self) -> Result<Vec<TransactionRow>, StoreError> {
        self.transactions("state IN ('intent','unknown') ORDER BY no", [])
    }

    /// Transactions of a card, newest first, older than `before` (a row's `no`).
    ///
    /// # Errors
    /// As [`Reader::transaction`].
    pub fn transactions_of(
        &self,
        card_no: &CardNo,
        before: Option<i64>,
        limit: u32,
    ) -> Result<Vec<TransactionRow>, StoreError> {
        self.transactions(
            "card_no = ?1 AND no < ?2 ORDER BY no DESC LIMIT ?3",
            params![card_no.as_str(), before.unwrap_or(i64::MAX), limit],
        )
    }

    /// Refunds, the void or the receiving half of `original`, but aborted ones; oldest first.
    ///
    /// # Errors
    /// As [`Reader::transaction`].
    pub fn following(&self, original: Uuid) -> Result<Vec<TransactionRow>, StoreError> {
        self.transactions(
            "original = ?1 AND state <> 'aborted' ORDER BY no",
            [original.as_bytes().as_slice()],
        )
    }

    /// Transactions of a business day behind `after` (a row's `no`), in the order of their
    /// intents, a page at most.
    pub(super) fn transactions_on(&self, day: &str, after: i64) -> Result<Vec<TransactionRow>, StoreError> {
        self.transactions("business_day = ?1 AND no > ?2 ORDER BY no LIMIT 500", params![day, after])
    }

    /// Goes through what was committed at a till while the log grew from `after` to `through`,
    /// one by one: a shift may be long.
    pub(super) fn each_committed(
        &self,
        till: &str,
        (after, through): (Offset, Offset),
        mut each: impl FnMut(&CardTransaction) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let mut query = self.conn.prepare_cached(
            "SELECT * FROM card_transaction WHERE committed_after >= ?1 AND committed_after < ?2
               AND json_extract(fact, '$.till') = ?3",
        )?;
        let mut rows = query.query(params![after.0, through.0, till])?;
        while let Some(row) = rows.next()? {
            each(&row_of(row)?.fact)?;
        }
        Ok(())
    }

    /// What was spent without headquarters on a business day, in fen: by this card and those whose
    /// place it took, and by all cards of its technology. What is not settled counts. While the clock is in doubt, the
    /// latest day on which anything was spent so counts as well: a box that wakes up in the past
    /// has no new limits.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn offline_spent(
        &self,
        day: &str,
        technology: Technology,
        card_no: &CardNo,
    ) -> Result<(i64, i64), StoreError> {
        let mut cards = self.predecessors(card_no)?;
        cards.push(card_no.clone());
        self.spent_by_clock(day, technology, &cards, clock::quality())
    }

    pub(super) fn spent_by_clock(
        &self,
        day: &str,
        technology: Technology,
        cards: &[CardNo],
        quality: TimeQuality,
    ) -> Result<(i64, i64), StoreError> {
        let cards = cards.iter().fold("|".to_owned(), |named, card_no| format!("{named}{card_no}|"));
        Ok(self.conn.prepare_cached(SPENT)?.query_row(
            params![day, enum_text(&technology)?, cards, quality == TimeQuality::Unsynced],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )?)
    }

    /// Giving halves of transfers whose receiving half has not begun and that were not undone,
    /// oldest first.
    ///
    /// # Errors
    /// As [`Reader::transaction`].
    pub fn transfers_due(&self) -> Result<Vec<Uuid>, StoreError> {
        self.due(None)
    }

    /// As [`Reader::transfers_due`], those of which a card is one side.
    ///
    /// # Errors
    /// As [`Reader::transaction`].
    pub fn transfers_due_of(&self, card_no: &CardNo) -> Result<Vec<Uuid>, StoreError> {
        self.due(Some(card_no))
    }

    fn due(&self, card_no: Option<&CardNo>) -> Result<Vec<Uuid>, StoreError> {
        let as_other = card_no.map(|card_no| format!("\"counterparty_card_no\":\"{card_no}\""));
        let mut query = self.conn.prepare_cached(TRANSFERS_DUE)?;
        let mut rows = query.query(params![card_no.map(CardNo::as_str), as_other])?;
        let mut due = Vec::new();
        while let Some(row) = rows.next()? {
            due.push(uuid_from(&row.get::<_, Vec<u8>>(0)?)?);
        }
        Ok(due)
    }

    /// Where a transaction stands, without reading its row.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn transaction_state(&self, id: Uuid) -> Result<Option<State>, StoreError> {
        self.conn
            .prepare_cached("SELECT state FROM card_transaction WHERE id = ?1")?
            .query_row([id.as_bytes().as_slice()], |row| row.get::<_, String>(0))
            .optional()?
            .map(text_enum)
            .transpose()
    }
}

#[cfg(test)]
#[path = "ledger_rows_tests.rs"]
mod tests;
