//! `/v1/print-jobs`: card faces. The job, its request row (with the idempotency
//! key) and its event are one commit; the printer's service takes it from there.

use std::sync::Arc;

use axum::Json as Answer;
use axum::extract::{Extension, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;
use uuid::Uuid;

use super::super::extract::{IdempotencyKey, Json, Segment, missing};
use super::super::principal::Principal;
use super::super::problem::Problem;
use super::super::state::{Directory, PrinterEntry, Shared};
use crate::clock::UtcMillis;
use crate::event::device::{PrintState, PrinterJob};
use crate::event::{NewEvent, Text};
use crate::ident::{CardNo, DeviceId};
use crate::store::jobs::{JobOp, PrintJob};
use crate::store::requests::{NewRequest, RequestOp, RequestState};
use crate::store::{Batch, Op, StoreError};

/// Kind of the request row that keeps the idempotency key.
const PRINT: &str = "print.job";

/// What is to be printed.
#[derive(Deserialize, Serialize, ToSchema)]
pub(super) struct NewPrintJob {
    /// A configured printer; default: that of the till whose token asks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    printer: Option<String>,
    /// A template of `share_dir/templates`; default: the printer's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    template: Option<String>,
    /// The card whose face it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    card_no: Option<String>,
    /// What the template asks for.
    #[schema(value_type = Object)]
    fields: Value,
}

/// A job as it stands.
#[derive(Serialize, ToSchema)]
pub(super) struct PrintJobView {
    /// Its id.
    #[schema(value_type = String, format = "uuid")]
    job: Uuid,
    /// The printer.
    #[schema(value_type = String)]
    printer: DeviceId,
    /// The card whose face it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    card_no: Option<CardNo>,
    /// The template.
    template: String,
    /// `queued`, `waiting-card`, `printing`, `done`, `failed` or `cancelled`.
    #[schema(value_type = String)]
    state: PrintState,
    /// Why it failed, or what it waits for.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    /// Where the picture is, for printers that write files.
    #[serde(skip_serializing_if = "Option::is_none")]
    output: Option<String>,
    /// How often it was tried.
    attempts: u32,
    /// When it came in.
    #[schema(value_type = String, format = "date-time")]
    created_at: UtcMillis,
    /// When its state last changed.
    #[schema(value_type = String, format = "date-time")]
    changed_at: UtcMillis,
}

impl From<PrintJob> for PrintJobView {
    fn from(job: PrintJob) -> Self {
        Self {
            job: job.job,
            printer: job.printer,
            card_no: job.card_no,
            template: job.template,
            state: job.state,
            error: job.error,
            output: job.output,
            attempts: job.attempts,
            created_at: job.created_at,
            changed_at: job.changed_at,
        }
    }
}

/// Queues a card face. The same `Idempotency-Key` gives the same job.
#[utoipa::path(post, operation_id = "create_print_job", path = "/v1/print-jobs", tag = "printing", request_body = NewPrintJob,
    params(("Idempotency-Key" = Option<String>, Header, description = "The same key gives the same job")),
    responses((status = 202, description = "Queued; follow `Location`", body = PrintJobView),
        (status = 422, description = "`printer-needed`: none is named, and the caller is no till, or one without a printer; `face-invalid`")))]
pub(super) async fn print(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Principal>,
    IdempotencyKey(idempotency_key): IdempotencyKey,
    Json(wanted): Json<NewPrintJob>,
) -> Result<Response, Problem> {
    let directory = shared.directory();
    let printer = printer_of(&directory, &caller, wanted.printer.as_deref())?;
    let id = Uuid::now_v7();
    let request = NewRequest {
        id,
        kind: PRINT,
        target: printer.id.to_string(),
        scope: caller.key_scope(),
        idempotency_key,
        body: json!(wanted),
    };
    let card_no = wanted.card_no.map(CardNo::new).transpose().map_err(|error| {
        face_invalid(Text::new(
            format!("卡号无效：{}", error.value.chars().take(40).collect::<String>()),
            error.to_string(),
        ))
    })?;
    let template = wanted.template.unwrap_or_else(|| printer.template.clone());
    check_face(&shared, template.clone(), wanted.fields.clone()).await?;
    refuse_if_full(&shared, printer).await?;
    let queue = JobOp::Queue {
        job: id,
        printer: printer.id.clone(),
        card_no: card_no.clone(),
        template,
        fields: wanted.fields,
    };
    let settle = RequestOp::Settle { id, state: RequestState::Done, outcome: json!({ "job": id }) };
    let batch = Batch::new()
        .op(Op::Request(RequestOp::Insert(request)))
        .op(Op::Job(queue))
        .op(Op::Request(settle))
        .event(job_event(id, &printer.id, card_no, PrintState::Queued)?);
    let job = match shared.context.store.commit(batch).await {
        Ok(_) => id,
        Err(StoreError::Replayed { request }) => request,
        Err(error) => return Err(error.into()),
    };
    let view = find(&shared, job).await?.ok_or_else(|| missing("print job", &job.to_string()))?;
    let location = [(header::LOCATION, format!("/v1/print-jobs/{job}"))];
    Ok((StatusCode::ACCEPTED, location, Answer(PrintJobView::from(view))).into_response())
}

/// The printer that is meant: the one named, or the till's own.
fn printer_of<'d>(
    directory: &'d Directory,
    caller: &Principal,
    named: Option<&str>,
) -> Result<&'d PrinterEntry, Problem> {
    if let Some(named) = named {
        let found = directory.printers.iter().find(|entry| entry.id.as_str() == named);
        return found.ok_or_else(|| missing("printer", named));
    }
    let stands_at = |till: &str| {
        directory.printers.iter().find(|entry| entry.tills.iter().any(|home| home.as_str() == till))
    };
    caller.till().and_then(stands_at).ok_or_else(|| {
        let (zh, en) = match caller.till() {
            Some(till) => (
                format!("收银台 {till} 没有配置打印机：请用 printer 指明，或在其 [[till]] 中写 printer"),
                format!("till {till} has no printer: name the `printer`, or give it one in its [[till]]"),
            ),
            None => (
                "请用 printer 指明打印机；只有收银台的令牌有自己的打印机".to_owned(),
                "name the `printer`; only a till's token has one of its own".to_owned(),
            ),
        };
        Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "printer-needed", zh, en)
    })
}

async fn check_face(shared: &Shared, template: String, fields: Value) -> Result<(), Problem> {
    refuse_no_file_name(&template)?;
    if !fields.is_object() {
        return Err(face_invalid(Text::new("fields 须为 JSON 对象", "fields must be a JSON object")));
    }
    let check = Arc::clone(&shared.context.face_check);
    let checked = tokio::task::spawn_blocking(move || check(&template, &fields)).await;
    match checked {
        Ok(checked) => checked.map_err(face_invalid),
        Err(error) => {
            tracing::error!(%error, "the face check panicked");
            Err(face_invalid(Text::new(
                "模板检查失败，请用 baygate check 检查模板",
                "the template cannot be checked; look at it with `baygate check`",
            )))
        }
    }
}

/// A template is a file of its folder, never a path.
pub(super) fn refuse_no_file_name(template: &str) -> Result<(), Problem> {
    let file_name = !template.is_empty()
        && template.len() <= 128
        && !template.starts_with('.')
        && !template.contains(['/', '\\', '\0']);
    let wrong = || Text::new("template 须为模板文件名", "template must be the name of a template file");
    if file_name { Ok(()) } else { Err(face_invalid(wrong())) }
}

fn face_invalid(text: Text) -> Problem {
    Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "face-invalid", text.zh, text.en)
}

async fn refuse_if_full(shared: &Shared, printer: &PrinterEntry) -> Result<(), Problem> {
    let (id, most) = (printer.id.clone(), shared.context.limits.print_queue);
    if shared.context.store.read(move |r| r.open_print_jobs(&id)).await?.len() < most {
        return Ok(());
    }
    metrics::counter!("baygate_api_refused_total", "reason" => "print-queue").increment(1);
    Err(Problem::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "print-queue-full",
        format!("打印机 {} 的队列已满（{most}），请先处理打印机", printer.id),
        format!("printer {} has {most} jobs waiting; see to the printer first", printer.id),
    )
    .retry_after(60))
}

fn job_event(
    job: Uuid,
    printer: &DeviceId,
    card_no: Option<CardNo>,
    state: PrintState,
) -> Result<NewEvent, Problem> {
    let data = PrinterJob { job, printer: printer.clone(), card_no, state, error: None, output: None };
    NewEvent::now(format!("printer/{printer}"), &data)
        .map_err(|error| StoreError::Corrupt(error.to_string()).into())
}

async fn find(shared: &Shared, job: Uuid) -> Result<Option<PrintJob>, Problem> {
    Ok(shared.context.store.read(move |r| r.print_job(job)).await?)
}

/// Where a job stands.
#[utoipa::path(get, operation_id = "get_print_job", path = "/v1/print-jobs/{id}", tag = "printing", params(("id" = String, Path, description = "Job")),
    responses((status = 200, description = "The job", body = PrintJobView)))]
pub(super) async fn job(
    State(shared): State<Arc<Shared>>,
    job: Segment,
) -> Result<Answer<PrintJobView>, Problem> {
    let found = find(&shared, job.uuid("print job")?).await?;
    found.map(|job| Answer(PrintJobView::from(job))).ok_or_else(|| missing("print job", &job.0))
}

/// Takes a job back that has not begun.
#[utoipa::path(delete, operation_id = "cancel_print_job", path = "/v1/print-jobs/{id}", tag = "printing", params(("id" = String, Path, description = "Job")),
    responses((status = 200, description = "Cancelled", body = PrintJobView), (status = 409, description = "It has begun or is over")))]
pub(super) async fn cancel(
    State(shared): State<Arc<Shared>>,
    job: Segment,
) -> Result<Answer<PrintJobView>, Problem> {
    let id = job.uuid("print job")?;
    let unknown = || missing("print job", &job.0);
    let found = find(&shared, id).await?.ok_or_else(unknown)?;
    let event = job_event(id, &found.printer, found.card_no, PrintState::Cancelled)?;
    match shared.context.store.commit(Batch::new().op(Op::Job(JobOp::Cancel { job: id })).event(event)).await
    {
        Ok(_) => find(&shared, id).await?.map(|job| Answer(job.into())).ok_or_else(unknown),
        Err(StoreError::NotFound { .. }) => Err(Problem::new(
            StatusCode::CONFLICT,
            "job-begun",
            "该任务已开始打印或已结束，无法取消",
            "the job is printing or over and can no longer be taken back",
        )),
        Err(error) => Err(error.into()),
    }
}
