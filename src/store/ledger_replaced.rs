//! Cards that took the place of others, as the journal knows them: the giving half, whose card is
//! not here, what became of it, and whose place a card took. What does not live here: the receiving
//! half, which is a transaction like any other (`ledger`).

use super::ledger::{End, Evidence, NewTransaction, State, TransactionRow, intend};
use super::{Batch, Reader, StoreError};
use crate::clock::UtcMillis;
use crate::event::ledger::CardStanding;
use crate::ident::CardNo;

/// So far back a card's earlier cards are looked for.
const MOST_PREDECESSORS: usize = 16;

/// The giving half of a replacement, begun and committed at once: no card is written, the one that
/// held it is not here. `reason` is for its `card.status`.
///
/// # Errors
/// As [`intend`], and as [`TransactionRow::end`].
pub fn move_out(new: NewTransaction, reason: String) -> Result<Batch, StoreError> {
    let NewTransaction { business_day, technology, before, after, fact, .. } = new.clone();
    let intent = intend(new)?;
    let row = TransactionRow {
        no: 0,
        fact,
        state: State::Intent,
        business_day,
        technology,
        before,
        after,
        begun_at: UtcMillis::now(),
        ended_at: None,
        told_unknown: false,
    };
    let mut batch = row.end_because(End::Committed(Evidence::default()), Some(reason))?;
    batch.ops.insert(0, intent);
    Ok(batch)
}

impl Reader<'_> {
    /// The giving half that moved what a replaced card held, where it was replaced here.
    ///
    /// # Errors
    /// As [`Reader::transaction`].
    pub fn replacement_of(&self, card_no: &CardNo) -> Result<Option<TransactionRow>, StoreError> {
        let rows = self.transactions(
            "card_no = ?1 AND state = 'committed' AND instr(fact, '\"status_after\":\"replaced\"') > 0
             ORDER BY no DESC LIMIT 1",
            [card_no.as_str()],
        )?;
        Ok(rows.into_iter().find(|row| row.fact.status_after == Some(CardStanding::Replaced)))
    }

    /// Cards whose place a card took, the nearest first: at most so many as one person can lose.
    ///
    /// # Errors
    /// As [`Reader::transaction`].
    pub fn predecessors(&self, card_no: &CardNo) -> Result<Vec<CardNo>, StoreError> {
        let mut found: Vec<CardNo> = Vec::new();
        let mut of = card_no.clone();
        while found.len() < MOST_PREDECESSORS {
            let received = self.transactions(
                "card_no = ?1 AND state = 'committed' AND original IS NOT NULL
                   AND instr(fact, '\"kind\":\"transfer\"') > 0 ORDER BY no LIMIT 1",
                [of.as_str()],
            )?;
            let giving = received.first().and_then(|row| row.fact.original_transaction_id);
            let giving = giving.map(|id| self.transaction(id)).transpose()?.flatten();
            let Some(old) = giving
                .filter(|row| row.fact.status_after == Some(CardStanding::Replaced))
                .map(|row| row.fact.card_no)
                .filter(|old| old != card_no && !found.contains(old))
            else {
                break;
            };
            of = old.clone();
            found.push(old);
        }
        Ok(found)
    }
}
