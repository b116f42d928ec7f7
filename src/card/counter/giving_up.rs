//! Ending the issue of a card that does not come back: it was thrown away, or got lost. What lives
//! here: what the end says, and who may not be interrupted. What does not: what the chip's row goes
//! on telling, should the card come back after all (`issue`).
//!
//! No deadline does this. A card that left in the middle may be whole, and says so at its next
//! tap, be it next week: only a person knows that it will not come.

use serde_json::{Value, json};
use uuid::Uuid;

use super::asked::{By, ISSUE};
use super::refused::Refused;
use crate::store::requests::{RequestOp, RequestRow, RequestState};
use crate::store::{Batch, Op, Store, StoreError};

/// What giving an issue up came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GaveUp {
    /// It is over, now or since before.
    Over,
    /// The card is being written in this moment: nothing was done.
    InHand,
    /// It is no issue, or there is none.
    NoIssue,
}

/// How an issue that is still open ends; `None` of one that is over.
pub(super) fn outcome_of(issue: &RequestRow) -> Option<Refused> {
    match issue.state {
        RequestState::Pending => Some(Refused::cancelled()),
        RequestState::Running => Some(Refused::given_up()),
        RequestState::Done | RequestState::Failed => None,
    }
}

/// Gives the issue of one card up, by whom its outcome says.
///
/// # Errors
/// [`StoreError`].
pub async fn give_up(store: &Store, issue: Uuid, by: &By) -> Result<GaveUp, StoreError> {
    let Some(_in_hand) = store.hands().take(issue) else { return Ok(GaveUp::InHand) };
    let row = store.read(move |r| r.request(issue)).await?;
    let Some(row) = row.filter(|row| row.kind == ISSUE) else { return Ok(GaveUp::NoIssue) };
    let Some(refused) = outcome_of(&row) else { return Ok(GaveUp::Over) };
    let mut outcome = refused.outcome();
    if let Value::Object(members) = &mut outcome {
        members.insert("by".into(), json!(by));
    }
    tracing::info!(%issue, code = refused.code, operator = by.operator, "issue of a card given up");
    let settle = RequestOp::Settle { id: issue, state: RequestState::Failed, outcome };
    match store.commit(Batch::new().op(Op::Request(settle))).await {
        // The card told in this moment.
        Err(StoreError::NotFound { .. }) => Ok(GaveUp::Over),
        committed => committed.map(|_| GaveUp::Over),
    }
}
