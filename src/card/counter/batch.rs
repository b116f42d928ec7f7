//! Giving out cards in a batch: each empty card that is laid on the reader gets the next row.
//! This only feeds: it asks for the issue of one card at a time, as a till would (`issue`), and
//! notes what came of it. So whatever is cut off is settled as every issue is, and a row whose
//! card left in the middle waits for that very card while others go on.
//!
//! ```text
//!  card on the reader ─► row: issuing + card.issue asked (one commit) ─► issue ─► its outcome
//!      ─► row: issued, its face queued (one commit) · or back: this card will not do
//! ```

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use uuid::Uuid;

use super::asked::{By, ISSUE};
use super::desk::{Desk, InField};
use super::refused::Refused;
use crate::event::NewEvent;
use crate::event::device::{PrintState, PrinterJob};
use crate::ident::DeviceId;
use crate::store::batches::{BatchOp, BatchRow, RowState};
use crate::store::jobs::JobOp;
use crate::store::requests::{NewRequest, RequestOp, RequestRow, RequestState};
use crate::store::{Batch, Op, StoreError};

/// Faces that wait at a printer before a batch waits for it.
const MAX_FACES_WAITING: usize = 20;

/// Refusals that are about the row, whatever card lies there.
const NEVER: [&str; 3] = ["card-no-in-use", "validity-not-allowed", "request-invalid"];

/// A batch as it stands in its request's row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BatchAsked {
    /// Where faces are printed; `None`: nowhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub face: Option<Face>,
    /// Who asks.
    pub by: By,
}

/// Where faces are printed, and which.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Face {
    /// The printer.
    pub printer: DeviceId,
    /// File name of the template.
    pub template: String,
}

/// A row under way, and what is known of it.
struct UnderWay {
    row: BatchRow,
    /// Its `card.issue`.
    issue: Option<RequestRow>,
    /// Whether its number was given out.
    given: bool,
}

/// Takes a batch one step on.
pub(super) async fn feed(desk: &mut Desk, batch: &RequestRow, field: &[InField]) -> Result<(), StoreError> {
    let asked: BatchAsked = match serde_json::from_value(batch.body.clone()) {
        Ok(asked) => asked,
        Err(error) => {
            let outcome = Refused::body(&error).outcome();
            return commit(desk, settled(batch.id, RequestState::Failed, outcome)).await;
        }
    };
    let id = batch.id;
    let (under_way, next) = desk
        .store
        .read(move |r| {
            let mut under_way = Vec::new();
            for row in r.batch_rows_issuing(id)? {
                let issue = row.request.map(|issue| r.request(issue)).transpose()?.flatten();
                let given = r.member_card(&row.card_no)?.is_some();
                under_way.push(UnderWay { row, issue, given });
            }
            Ok((under_way, r.batch_next(id)?))
        })
        .await?;
    let mut told = Batch::new();
    for row in &under_way {
        told = tell(told, id, row, &asked)?;
    }
    if !told.ops.is_empty() {
        // The commit brings us here again.
        return commit(desk, told).await;
    }
    let Some(row) = next else {
        if !under_way.is_empty() {
            return Ok(());
        }
        let counts = desk.store.read(move |r| r.batch_counts(id)).await?;
        tracing::info!(batch = %id, issued = counts.issued, refused = counts.refused, "batch of cards is over");
        let outcome =
            json!({ "issued": counts.issued, "refused": counts.refused, "cancelled": counts.cancelled });
        return commit(desk, settled(id, RequestState::Done, outcome)).await;
    };
    let asks = |row: &UnderWay| row.issue.as_ref().is_some_and(|i| i.state == RequestState::Pending);
    let Some(card) = field.last().filter(|card| desk.fed != Some(card.seen)) else { return Ok(()) };
    if under_way.iter().any(asks) || printer_is_behind(desk, &asked).await? {
        return Ok(());
    }
    desk.fed = Some(card.seen);
    let (n, mut body) = (row.n, row.asked);
    if let Value::Object(members) = &mut body {
        members.insert("card_no".into(), json!(row.card_no));
        members.insert("by".into(), json!(asked.by));
    }
    let new = NewRequest {
        id: Uuid::now_v7(),
        kind: ISSUE,
        target: batch.target.clone(),
        scope: "batch".into(),
        idempotency_key: None,
        body,
    };
    let begin = BatchOp::Begin { batch: id, n, request: new.id };
    let asking = Batch::new().op(Op::Request(RequestOp::Insert(new))).op(Op::Batch(begin));
    commit(desk, asking).await
}

/// What came of a row, as far as its issue is settled.
fn tell(batch: Batch, id: Uuid, under_way: &UnderWay, asked: &BatchAsked) -> Result<Batch, StoreError> {
    let UnderWay { row, issue, given } = under_way;
    let Some(request) = row.request else { return Ok(batch) };
    let (state, outcome) = match issue {
        Some(issue) if !issue.state.is_settled() => return Ok(batch),
        Some(issue) => {
            let outcome = issue.outcome.clone().unwrap_or_default();
            let code = outcome.get("code").and_then(Value::as_str).unwrap_or_default();
            let state = match issue.state {
                RequestState::Done => RowState::Issued,
                _ if NEVER.contains(&code) => RowState::Refused,
                _ => RowState::Waiting,
            };
            (state, outcome)
        }
        // Lost with a damaged part of the file: the ledger tells.
        None if *given => (RowState::Issued, json!({ "card_no": row.card_no })),
        None => (RowState::Waiting, Value::Null),
    };
    let face = (state == RowState::Issued).then_some(()).and(asked.face.as_ref()).zip(row.face.clone());
    let job = face.is_some().then(Uuid::now_v7);
    let told = BatchOp::Told { batch: id, n: row.n, request, state, outcome, job };
    let mut batch = batch.op(Op::Batch(told));
    if let (Some((Face { printer, template }, fields)), Some(job)) = (face, job) {
        let card_no = Some(row.card_no.clone());
        let queued = PrinterJob {
            job,
            printer: printer.clone(),
            card_no: card_no.clone(),
            state: PrintState::Queued,
            error: None,
            output: None,
        };
        let event = NewEvent::now(format!("printer/{printer}"), &queued)
            .map_err(|error| StoreError::Corrupt(error.to_string()))?;
        let (printer, template) = (printer.clone(), template.clone());
        batch = batch.op(Op::Job(JobOp::Queue { job, printer, card_no, template, fields })).event(event);
    }
    Ok(batch)
}

async fn printer_is_behind(desk: &Desk, asked: &BatchAsked) -> Result<bool, StoreError> {
    let Some(Face { printer, .. }) = asked.face.clone() else { return Ok(false) };
    Ok(desk.store.read(move |r| r.open_print_jobs(&printer)).await?.len() >= MAX_FACES_WAITING)
}

fn settled(id: Uuid, state: RequestState, outcome: Value) -> Batch {
    Batch::new().op(Op::Request(RequestOp::Settle { id, state, outcome }))
}

/// What somebody else did meanwhile, or a full disk, keeps no reader from serving.
async fn commit(desk: &Desk, batch: Batch) -> Result<(), StoreError> {
    match desk.store.commit(batch).await {
        Err(StoreError::NotFound { .. }) => Ok(()),
        Err(error) if error.is_full() => {
            tracing::warn!(%error, "a batch of cards waits");
            Ok(())
        }
        committed => committed.map(drop),
    }
}
