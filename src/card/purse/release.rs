//! A held card that a person has compared with what is known of it. One that agrees with it (the
//! alarm was a copy's) goes on, and what was open on it ends as at any tap. Of one that does not,
//! the person has to say which content is to be true from now on, word for word: what was open is
//! parked then, for headquarters.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::journal::{IMITATION, Journal, Known, Signed};
use super::settle::{Became, Mark};
use crate::ident::CardUid;
use crate::money::Holding;
use crate::store::ledger::{End, Evidence};
use crate::store::ledger_cards::{By, SeenCard};
use crate::store::{Batch, StoreError};

/// A chip and what it holds, for the person who compares.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Content {
    /// The chip.
    pub uid: CardUid,
    /// What it holds.
    #[serde(flatten)]
    pub holding: Holding,
}

impl From<&SeenCard> for Content {
    fn from(seen: &SeenCard) -> Self {
        Self { uid: seen.uid.clone(), holding: seen.holding.clone() }
    }
}

/// What a person says of a held card.
#[derive(Debug, Clone)]
pub struct Word {
    /// What it is to be taken for, where it does not agree with what is known of it.
    pub takes: Option<Content>,
    /// For the record.
    pub reason: Option<String>,
    /// Who.
    pub by: By,
}

/// What the comparison came to.
#[derive(Debug)]
pub enum Compared {
    /// Nothing holds it.
    NotHeld,
    /// It does not agree, and nobody has said that it is to be taken as it is.
    Differs(Comparison),
    /// To be committed: it is released then.
    Released {
        /// What stood against what.
        comparison: Comparison,
        /// Release, its event, and the end of what was open.
        batch: Batch,
        /// What was open on it, and what became of it.
        ended: Option<(Uuid, Became)>,
    },
}

/// What is known of a held card, and what it shows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Comparison {
    /// Why it is held.
    pub held: String,
    /// As this store knows it.
    pub known: Content,
    /// As it shows itself.
    pub shows: Content,
}

impl Journal {
    /// Compares a held card, and says how it is released.
    ///
    /// # Errors
    /// [`StoreError::LedgerRefused`] while its open transaction is being written; [`StoreError`].
    pub async fn release(
        &self,
        card: SeenCard,
        last: Option<Mark>,
        signed: Signed,
        word: Word,
    ) -> Result<Compared, StoreError> {
        let Known { row, open } = self.known(&card.card_no).await?;
        let Some(row) = row else { return Ok(Compared::NotHeld) };
        let Some(held) = row.held.clone() else { return Ok(Compared::NotHeld) };
        if let Some(open) = &open {
            self.not_in_hand(open)?;
        }
        let comparison = Comparison { held, known: (&row.seen).into(), shows: (&card).into() };
        let taken = word.takes.as_ref() == Some(&comparison.shows);
        let ended = match self.judged(Some(&row), open.as_ref(), &card, last, signed)? {
            _ if !taken && word.takes.is_some() => return Ok(Compared::Differs(comparison)),
            // Whoever imitates a card shows what is known of it.
            Ok(verdict) if comparison.held != IMITATION => verdict.ended,
            _ if taken => Some((Became::Parked, End::Parked(Evidence::default()))),
            Ok(_) | Err(_) => return Ok(Compared::Differs(comparison)),
        };
        // The end that is told first may have made another of it.
        let becomes = match (&open, &ended) {
            (Some(open), Some((Became::Committed, _))) => open.fact.status_after,
            _ => None,
        };
        let mut batch = row.release(card, becomes, word.reason, word.by)?;
        let ended = match open.zip(ended) {
            Some((open, (became, how))) => {
                // First: nothing may be open on what is released.
                let mut first = self.ending(&open, how).await?;
                first.ops.append(&mut batch.ops);
                first.events.append(&mut batch.events);
                batch = first;
                Some((open.fact.transaction_id, became))
            }
            None => None,
        };
        Ok(Compared::Released { comparison, batch, ended })
    }
}
