//! Cards that took the place of others, as the journal knows them: the giving half, whose card is
//! not here, what became of it, whose place a card took, and what came onto it and those before it.
//! What does not live here: the receiving half, which is a transaction like any other (`ledger`).

use rusqlite::params;

use super::ledger::{End, Evidence, NewTransaction, State, TransactionRow, intend};
use super::{Batch, Reader, StoreError};
use crate::clock::UtcMillis;
use crate::event::ledger::{CardStanding, TransactionKind};
use crate::ident::CardNo;
use crate::money::Fen;

/// So far back a card's earlier cards are looked for.
const MOST_PREDECESSORS: usize = 16;
/// Rows of a card that are looked at at once.
const PAGE: usize = 32;

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

    /// What came onto a card and those whose place it took, by top-ups and transfers: principal, and
    /// the bonus that came with it, less what was refunded of it; newest first, as far back as makes
    /// up `principal`.
    ///
    /// # Errors
    /// As [`Reader::transaction`].
    pub fn inflows(&self, card_no: &CardNo, principal: Fen) -> Result<Vec<(Fen, Fen)>, StoreError> {
        let mut found = Vec::new();
        let mut rest = principal.0;
        let mut cards = vec![card_no.clone()];
        cards.extend(self.predecessors(card_no)?);
        for card_no in cards {
            let mut before = i64::MAX;
            while rest > 0 {
                let rows = self.transactions(
                    "card_no = ?1 AND no < ?2 AND state = 'committed'
                       AND (instr(fact, '\"kind\":\"topup\"') > 0
                            OR original IS NOT NULL AND instr(fact, '\"kind\":\"transfer\"') > 0)
                     ORDER BY no DESC LIMIT 32",
                    params![card_no.as_str(), before],
                )?;
                for row in &rows {
                    let (principal, bonus) = self.left_of(row)?;
                    if principal > 0 && rest > 0 {
                        rest = rest.saturating_sub(principal);
                        found.push((Fen(principal), Fen(bonus)));
                    }
                }
                match rows.last() {
                    Some(row) if rows.len() == PAGE => before = row.no,
                    _ => break,
                }
            }
        }
        Ok(found)
    }

    /// What came in with a transaction, less what followed it; nothing of what came from a card that
    /// this one replaces, whose own are looked at.
    fn left_of(&self, row: &TransactionRow) -> Result<(i64, i64), StoreError> {
        let fact = &row.fact;
        let came = match (fact.kind, fact.original_transaction_id) {
            (TransactionKind::Topup, _) => true,
            (TransactionKind::Transfer, Some(giving)) => {
                let giving = self.transaction(giving)?;
                giving.is_none_or(|row| row.fact.status_after != Some(CardStanding::Replaced))
            }
            _ => false,
        };
        if !came {
            return Ok((0, 0));
        }
        let following = self.following(fact.transaction_id)?;
        let less = |own: i64, of: fn(&TransactionRow) -> i64| {
            following.iter().map(of).fold(own, i64::saturating_add).max(0)
        };
        Ok((
            less(fact.principal_fen.0, |row| row.fact.principal_fen.0),
            less(fact.bonus_fen.0, |row| row.fact.bonus_fen.0),
        ))
    }
}
