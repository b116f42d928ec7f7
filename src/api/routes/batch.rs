//! `/v1/cards/batch`: many cards given out one behind the other. The list is looked at as a
//! whole before anything is taken: form, numbers that are given out, every face. Then batch and
//! rows are one commit, and the reader's desk does the rest (`card::counter::batch`).

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json as Answer;
use axum::extract::{Extension, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::super::extract::{IdempotencyKey, Json, Params, Segment, missing};
use super::super::principal::Principal;
use super::super::problem::Problem;
use super::super::state::{PrinterEntry, Shared};
use super::{counter, prints};
use crate::card::counter::batch::{BatchAsked, Face};
use crate::card::counter::new_cards::{CardDefaults, ListFault, NewCard, from_csv, from_range};
use crate::clock::UtcMillis;
use crate::event::ledger::CardType;
use crate::ident::DeviceId;
use crate::store::batches::{BatchOp, BatchRow, KIND, NewRow, RowCounts, RowState};
use crate::store::requests::{NewRequest, RequestOp, RequestRow};
use crate::store::{Batch, Op, Reader, StoreError};

/// Batches in a list.
const MOST_LISTED: usize = 50;
/// Mistakes in an answer.
const MOST_FAULTS: usize = 20;

/// Cards to give out, one behind the other: `csv` or `range`.
#[derive(Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewBatch {
    /// The reader on which empty cards are laid; default: the till's own, or the only one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reader: Option<String>,
    /// A CSV file: a line of column names (`card_no`, and if wanted `type`, `tier`,
    /// `discount_class`, `valid_until`, `face.NAME`), then at most 1000 cards.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    csv: Option<String>,
    /// Numbers one behind the other, at most 1000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    range: Option<Range>,
    /// Where a line says nothing: `named` or `anonymous`; default `named`.
    #[serde(rename = "type", default = "named")]
    #[schema(value_type = String)]
    card_type: CardType,
    /// Where a line says nothing: tier, 0 to 255; default 0, none.
    #[serde(default)]
    tier: u8,
    /// Where a line says nothing: discount class, 0 to 255; default 0, none.
    #[serde(default)]
    discount_class: u8,
    /// Where a line says nothing: the last day the card is good; default: no end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = "date")]
    valid_until: Option<jiff::civil::Date>,
    /// Whether each card's face is printed; default: where a printer belongs to the reader.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    print: Option<bool>,
    /// Another printer than the reader's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    printer: Option<String>,
    /// Another template than the printer's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    template: Option<String>,
    /// What the template asks for, the same on every face; `card_no` is filled in.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    #[schema(value_type = Object)]
    face: Map<String, Value>,
}

fn named() -> CardType {
    CardType::Named
}

/// Card numbers of the same length, both included.
#[derive(Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Range {
    /// The first.
    from: String,
    /// The last.
    to: String,
}

/// A batch and how far it is.
#[derive(Serialize, ToSchema)]
pub(super) struct BatchView {
    /// Its id.
    #[schema(value_type = String, format = "uuid")]
    batch: Uuid,
    /// On which reader empty cards are laid.
    reader: String,
    /// `open` or `done`.
    state: &'static str,
    /// Where faces are printed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    printer: Option<DeviceId>,
    /// Cards in it.
    total: u32,
    /// Rows that wait for an empty card.
    waiting: u32,
    /// Rows whose card is being written, or left in the middle: that card has to come back.
    issuing: u32,
    /// Cards given out.
    issued: u32,
    /// Rows that no card can ever have.
    refused: u32,
    /// Rows that were given up.
    cancelled: u32,
    /// The row for the next empty card.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<RowView>,
    /// Who asked.
    operator: String,
    /// When.
    #[schema(value_type = String, format = "date-time")]
    created_at: UtcMillis,
    /// All rows, where they were asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    rows: Option<Vec<RowView>>,
}

/// A row.
#[derive(Serialize, ToSchema)]
struct RowView {
    /// From 1.
    n: u32,
    /// Card number.
    card_no: String,
    /// `waiting`, `issuing`, `issued`, `refused` or `cancelled`.
    #[schema(value_type = String)]
    state: RowState,
    /// The chip that has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    uid: Option<String>,
    /// Why it waits again, or will never be.
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<String>,
    /// The same for people: `zh`, `en`.
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<BTreeMap<String, String>>,
    /// The print job of its face.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = "uuid")]
    job: Option<Uuid>,
}

impl From<BatchRow> for RowView {
    fn from(row: BatchRow) -> Self {
        let told = |pointer: &str| row.outcome.as_ref()?.pointer(pointer)?.as_str().map(str::to_owned);
        let text = ["zh", "en"]
            .into_iter()
            .filter_map(|language| Some((language.to_owned(), told(&format!("/text/{language}"))?)));
        let text: BTreeMap<_, _> = text.collect();
        Self {
            n: row.n,
            card_no: row.card_no.to_string(),
            state: row.state,
            uid: told("/uid"),
            code: told("/code"),
            text: (!text.is_empty()).then_some(text),
            job: row.job,
        }
    }
}

/// The batches of this gateway.
#[derive(Serialize, ToSchema)]
pub(super) struct Batches {
    /// The newest first.
    batches: Vec<BatchView>,
}

/// What to show of a batch.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub(super) struct Shown {
    /// Whether all rows are told; default true.
    rows: Option<bool>,
}

/// What is to become of a batch.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Change {
    /// `cancelled`: its waiting rows are given up.
    state: String,
}

/// Begins a batch: from now on each empty card laid on the reader gets the next row, until all are
/// given out, across restarts. Refused as a whole when anything in the list is wrong.
#[utoipa::path(post, operation_id = "issue_batch", path = "/v1/cards/batch", tag = "cards", request_body = NewBatch,
    params(("Idempotency-Key" = String, Header, description = "A new one for every batch; the same one when asked again")),
    responses((status = 201, description = "Begun; follow `Location`", body = BatchView)))]
pub(super) async fn begin(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Principal>,
    IdempotencyKey(key): IdempotencyKey,
    Json(wanted): Json<NewBatch>,
) -> Result<Response, Problem> {
    let (key, by) = (counter::key_of(key)?, counter::by(&caller)?);
    // The list itself need not stand in the log twice.
    let asked = json!(hex::encode(Sha256::digest(json!(wanted).to_string())));
    let id = match counter::repeated(&shared, &caller, &key, KIND, &asked).await? {
        Some(id) => id,
        None => {
            let reader = counter::reader_of(&shared, &caller, wanted.reader.as_deref())?;
            let face = face_of(&shared, &reader, &wanted)?;
            let cards = listed(wanted).map_err(|faults| refused(&faults))?;
            refuse_if_open(&shared, &reader).await?;
            let cards = still_free(&shared, cards).await?;
            if let Some(face) = &face {
                check_faces(&shared, face.template.clone(), &cards).await?;
            }
            let rows = cards.into_iter().map(|card| row_of(card, face.is_some())).collect();
            let mut body = json!(BatchAsked { face, by });
            if let Value::Object(members) = &mut body {
                members.insert("asked".into(), asked);
            }
            let id = Uuid::now_v7();
            let new = NewRequest {
                id,
                kind: KIND,
                target: reader.to_string(),
                scope: caller.key_scope(),
                idempotency_key: Some(key),
                body,
            };
            let batch = Batch::new()
                .op(Op::Request(RequestOp::Insert(new)))
                .op(Op::Batch(BatchOp::Insert { batch: id, rows }));
            match shared.context.store.commit(batch).await {
                Ok(_) => id,
                Err(StoreError::Replayed { request }) => request,
                Err(error) => return Err(error.into()),
            }
        }
    };
    let view = view(&shared, id, false).await?;
    let location = [(header::LOCATION, format!("/v1/cards/batch/{id}"))];
    Ok((StatusCode::CREATED, location, Answer(view)).into_response())
}

/// The batches, open ones and those that are over.
#[utoipa::path(get, operation_id = "list_batches", path = "/v1/cards/batch", tag = "cards",
    responses((status = 200, description = "The newest first, at most 50", body = Batches)))]
pub(super) async fn list(State(shared): State<Arc<Shared>>) -> Result<Answer<Batches>, Problem> {
    let batches = shared
        .context
        .store
        .read(|r| {
            let ids = r.batches(MOST_LISTED)?.into_iter();
            ids.filter_map(|id| look(r, id, false).transpose()).collect::<Result<_, _>>()
        })
        .await?;
    Ok(Answer(Batches { batches }))
}

/// How far a batch is, row by row.
#[utoipa::path(get, operation_id = "get_batch", path = "/v1/cards/batch/{id}", tag = "cards",
    params(("id" = String, Path, description = "Batch"), Shown),
    responses((status = 200, description = "The batch", body = BatchView)))]
pub(super) async fn show(
    State(shared): State<Arc<Shared>>,
    batch: Segment,
    Params(shown): Params<Shown>,
) -> Result<Answer<BatchView>, Problem> {
    Ok(Answer(view(&shared, batch.uuid("batch")?, shown.rows.unwrap_or(true)).await?))
}

/// Ends a batch early. A card that left in the middle is still settled by its next tap.
#[utoipa::path(post, operation_id = "change_batch", path = "/v1/cards/batch/{id}", tag = "cards", request_body = Change,
    params(("id" = String, Path, description = "Batch")),
    responses((status = 200, description = "The batch as it stands now", body = BatchView)))]
pub(super) async fn change(
    State(shared): State<Arc<Shared>>,
    batch: Segment,
    Json(change): Json<Change>,
) -> Result<Answer<BatchView>, Problem> {
    if change.state != "cancelled" {
        return Err(counter::invalid("state", "只能为 cancelled", "can only be `cancelled`"));
    }
    let id = batch.uuid("batch")?;
    view(&shared, id, false).await?;
    shared.context.store.commit(Batch::new().op(Op::Batch(BatchOp::Cancel { batch: id }))).await?;
    Ok(Answer(view(&shared, id, false).await?))
}

async fn view(shared: &Shared, id: Uuid, rows: bool) -> Result<BatchView, Problem> {
    let found = shared.context.store.read(move |r| look(r, id, rows)).await?;
    found.ok_or_else(|| missing("batch", &id.to_string()))
}

fn look(r: &Reader<'_>, id: Uuid, rows: bool) -> Result<Option<BatchView>, StoreError> {
    let Some(row) = r.request(id)?.filter(|row| row.kind == KIND) else { return Ok(None) };
    let RequestRow { target: reader, body, state, created_at, .. } = row;
    let asked: BatchAsked =
        serde_json::from_value(body).map_err(|error| StoreError::Corrupt(error.to_string()))?;
    let RowCounts { waiting, issuing, issued, refused, cancelled } = r.batch_counts(id)?;
    let rows = rows.then(|| r.batch_rows(id)).transpose()?;
    // The reader's desk closes it a moment after its last row.
    let over = state.is_settled() || waiting + issuing == 0;
    Ok(Some(BatchView {
        batch: id,
        reader,
        state: if over { "done" } else { "open" },
        printer: asked.face.map(|face| face.printer),
        total: waiting + issuing + issued + refused + cancelled,
        waiting,
        issuing,
        issued,
        refused,
        cancelled,
        next: r.batch_next(id)?.map(RowView::from),
        operator: asked.by.operator,
        created_at,
        rows: rows.map(|rows| rows.into_iter().map(RowView::from).collect()),
    }))
}

fn listed(wanted: NewBatch) -> Result<Vec<NewCard>, Vec<ListFault>> {
    let NewBatch { card_type, tier, discount_class, valid_until, face, csv, range, .. } = wanted;
    let defaults = CardDefaults { card_type, tier, discount_class, valid_until, face };
    match (csv, range) {
        (Some(csv), None) => from_csv(&csv, &defaults),
        (None, Some(Range { from, to })) => from_range(&from, &to, &defaults),
        _ => Err(vec![ListFault {
            line: None,
            text: crate::event::Text::new("csv 与 range 须且只须给出一个", "give either `csv` or `range`"),
        }]),
    }
}

fn row_of(card: NewCard, has_face: bool) -> NewRow {
    let NewCard { card_no, card_type, tier, discount_class, valid_until, face, .. } = card;
    let asked = json!({
        "type": card_type, "tier": tier, "discount_class": discount_class, "valid_until": valid_until,
    });
    NewRow { card_no, asked, face: has_face.then(|| face.into()) }
}

/// Every mistake with its line; the first are told.
fn refused(faults: &[ListFault]) -> Problem {
    let faults = faults.get(..MOST_FAULTS).unwrap_or(faults);
    let told: Vec<_> = faults.iter().map(ListFault::told).collect();
    let zh: Vec<&str> = told.iter().map(|text| text.zh.as_str()).collect();
    let en: Vec<&str> = told.iter().map(|text| text.en.as_str()).collect();
    let lines: Vec<Value> =
        faults.iter().map(|fault| json!({ "line": fault.line, "text": fault.text })).collect();
    Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "list-invalid", zh.join("\n"), en.join("\n"))
        .with("faults", lines)
}

/// Where faces go: the printer that is named, the reader's own, or nowhere.
fn face_of(shared: &Shared, reader: &DeviceId, wanted: &NewBatch) -> Result<Option<Face>, Problem> {
    if wanted.print == Some(false) {
        return Ok(None);
    }
    let directory = shared.directory();
    let find = |id: &str| directory.printers.iter().find(|entry| entry.id.as_str() == id);
    let printer: Option<&PrinterEntry> = match &wanted.printer {
        Some(named) => Some(find(named).ok_or_else(|| missing("printer", named))?),
        None => directory.printers.iter().find(|entry| entry.reader.as_ref() == Some(reader)),
    };
    match printer {
        Some(printer) => Ok(Some(Face {
            printer: printer.id.clone(),
            template: wanted.template.clone().unwrap_or_else(|| printer.template.clone()),
        })),
        None if wanted.print == Some(true) || wanted.template.is_some() => Err(counter::invalid(
            "printer",
            "此读卡器没有对应的打印机，请指明 printer",
            "no printer belongs to this reader; name one",
        )),
        None => Ok(None),
    }
}

/// One batch at a reader: whoever lays cards there knows which row comes next.
async fn refuse_if_open(shared: &Shared, reader: &DeviceId) -> Result<(), Problem> {
    let target = reader.to_string();
    let open = shared.context.store.read(move |r| r.open_requests(KIND, Some(&target))).await?;
    let Some(open) = open.first() else { return Ok(()) };
    Err(Problem::new(
        StatusCode::CONFLICT,
        "batch-open",
        format!("读卡器 {reader} 上的批次 {} 尚未完成；请先完成或取消", open.id),
        format!("batch {} on reader {reader} is not over; finish or cancel it first", open.id),
    )
    .with("batch", open.id.to_string()))
}

/// Numbers that were given out, or wait in another batch, are told with their lines.
async fn still_free(shared: &Shared, cards: Vec<NewCard>) -> Result<Vec<NewCard>, Problem> {
    let (cards, faults) = shared
        .context
        .store
        .read(move |r| {
            let mut faults = Vec::new();
            for card in &cards {
                let given = r.member_card(&card.card_no)?.is_some();
                if given || r.batch_of_number(&card.card_no)?.is_some() {
                    let no = &card.card_no;
                    let (zh, en) = if given {
                        (format!("卡号 {no} 已发出"), format!("card number {no} has been given out before"))
                    } else {
                        (format!("卡号 {no} 已在另一批次中"), format!("card number {no} is in another batch"))
                    };
                    faults.push(ListFault::at(card.line, zh, en));
                    if faults.len() >= MOST_FAULTS {
                        break;
                    }
                }
            }
            Ok((cards, faults))
        })
        .await?;
    if faults.is_empty() { Ok(cards) } else { Err(refused(&faults)) }
}

async fn check_faces(shared: &Shared, template: String, cards: &[NewCard]) -> Result<(), Problem> {
    prints::refuse_no_file_name(&template)?;
    let faces: Vec<(u32, Value)> = cards.iter().map(|card| (card.line, card.face.clone().into())).collect();
    let check = Arc::clone(&shared.context.face_check);
    let checked = tokio::task::spawn_blocking(move || {
        faces.iter().find_map(|(line, fields)| {
            let text = check(&template, fields).err()?;
            Some(ListFault { line: Some(*line), text })
        })
    });
    match checked.await {
        Ok(None) => Ok(()),
        Ok(Some(fault)) => Err(refused(&[fault])),
        Err(error) => {
            tracing::error!(%error, "the face check panicked");
            Err(Problem::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "face-invalid",
                "模板检查失败，请用 baygate check 检查模板",
                "the template cannot be checked; look at it with `baygate check`",
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_tells_what_came_of_it() {
        let row = |outcome: Value| BatchRow {
            n: 1,
            card_no: "8800000001".parse().unwrap(),
            asked: Value::Null,
            face: None,
            state: RowState::Waiting,
            request: None,
            outcome: Some(outcome),
            job: None,
            changed_at: UtcMillis(0),
        };
        let told =
            json!(RowView::from(row(json!({ "code": "not-blank", "text": { "zh": "甲", "en": "a" } }))));
        assert_eq!((&told["code"], &told["text"]["zh"]), (&json!("not-blank"), &json!("甲")));
        let told = json!(RowView::from(row(json!({ "uid": "04A1", "card_no": "8800000001" }))));
        assert_eq!((&told["uid"], told.get("code")), (&json!("04A1"), None));
    }
}
