//! The command desk: commits commands and their results. A command's row stands
//! before it acts and before its packet is acknowledged; a command that asks a
//! service leaves a `command.NAME` row that outlives a restart, so that its
//! result is told once, even when the daemon was killed in between.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::sync::watch;
use uuid::Uuid;

use super::Setup;
use super::command::{Begin, Decision, HANDLERS, Malformed, Order, Refusal};
use crate::card::counter::Shop;
use crate::card::counter::reissue::{HqRecord, Reissue, reissue};
use crate::clock::{TimeQuality, UtcMillis};
use crate::event::gateway::{CommandOutcome, CommandResult};
use crate::event::{NewEvent, Source};
use crate::store::commands::CommandOp;
use crate::store::requests::{NewRequest, RequestOp, RequestRow, RequestState};
use crate::store::{Batch, Op, Store, StoreError};

/// A command whose service never answers is given up after this.
const PATIENCE: Duration = Duration::from_secs(300);
/// Whose requests these are.
const SCOPE: &str = "hq";

/// Takes commands in and tells their results.
pub(super) struct Desk {
    store: Store,
    source: Source,
    quality: fn() -> TimeQuality,
    /// The counter's house, where there is one.
    shop: Option<watch::Receiver<Arc<Shop>>>,
    /// Since when the commands that wait for a service do so, as this run saw it.
    waiting_since: HashMap<Uuid, Instant>,
    /// Commands that wait for a service, as far as known: spares queries when there are none.
    open: bool,
}

/// What became of a payload.
#[derive(Debug)]
pub(super) enum Intake {
    /// Dealt with: the packet may be acknowledged.
    Settled(&'static str),
    /// Not a command.
    Malformed(Malformed),
}

impl Desk {
    pub(super) fn new(store: Store, setup: &Setup) -> Self {
        let (source, quality, shop) = (setup.source.clone(), setup.quality, setup.shop.clone());
        Self { store, source, quality, shop, waiting_since: HashMap::new(), open: true }
    }

    /// Takes a command in. After this returned, its packet may be acknowledged.
    pub(super) async fn take(&mut self, name: &str, payload: &[u8]) -> Result<Intake, StoreError> {
        let order = match Order::parse(name, payload) {
            Ok(order) => order,
            Err(malformed) => return Ok(Intake::Malformed(malformed)),
        };
        let (batch, outcome) = self.batch(&order).await?;
        match self.store.commit(batch).await {
            Ok(_) => {
                self.open |= outcome == "asked";
                Ok(Intake::Settled(outcome))
            }
            // Seen before: it acts at most once and says nothing twice.
            Err(StoreError::Replayed { .. }) => Ok(Intake::Settled("repeated")),
            Err(StoreError::KeyConflict) => {
                let refusal = Refusal::SameIdOtherArgs.to_string();
                let event = self.result(&order, CommandOutcome::Refused, Some(refusal), None)?;
                self.store.commit(Batch::new().event(event)).await?;
                Ok(Intake::Settled("refused"))
            }
            // The card moved on between looking and commit: nothing was done.
            Err(StoreError::LedgerRefused { what } | StoreError::HotlistRefused { what }) => {
                let event = self.result(&order, CommandOutcome::Refused, Some(what), None)?;
                self.store.commit(Batch::new().op(received(&order)).event(event)).await?;
                Ok(Intake::Settled("refused"))
            }
            Err(error) => Err(error),
        }
    }

    async fn batch(&self, order: &Order) -> Result<(Batch, &'static str), StoreError> {
        let batch = Batch::new().op(received(order));
        let refuse = |error: String| self.result(order, CommandOutcome::Refused, Some(error), None);
        match order.decide(UtcMillis::now(), (self.quality)()) {
            Decision::Refuse(refusal) => Ok((batch.event(refuse(refusal.to_string())?), "refused")),
            Decision::Expire => {
                Ok((batch.event(self.result(order, CommandOutcome::Expired, None, None)?), "expired"))
            }
            Decision::Run(handler) => match (handler.begin)(order) {
                Err(error) => Ok((batch.event(refuse(error)?), "refused")),
                Ok(Begin::Done(result)) => {
                    Ok((batch.event(self.result(order, CommandOutcome::Done, None, Some(result))?), "done"))
                }
                Ok(Begin::Hotlist(op, result)) => {
                    let done = self.result(order, CommandOutcome::Done, None, Some(result))?;
                    Ok((batch.op(Op::Hotlist(op)).event(done), "done"))
                }
                Ok(Begin::Words(op, result)) => {
                    let done = self.result(order, CommandOutcome::Done, None, Some(result))?;
                    Ok((batch.op(Op::CounterWords(op)).event(done), "done"))
                }
                Ok(Begin::Reissue(record)) => self.reissue(order, batch, &record).await,
                Ok(Begin::Ask { row, kind, target, body }) => {
                    let asked = Uuid::now_v7();
                    let remember = json!({ "request": asked, "name": order.name });
                    let batch = batch
                        .op(insert(order.id, row, &target, remember))
                        .op(Op::Request(RequestOp::Start { id: order.id }))
                        .op(insert(asked, kind, &target, body));
                    Ok((batch, "asked"))
                }
            },
        }
    }

    async fn reissue(
        &self,
        order: &Order,
        batch: Batch,
        record: &HqRecord,
    ) -> Result<(Batch, &'static str), StoreError> {
        let shop = self.shop.as_ref().map(|shop| Arc::clone(&shop.borrow()));
        let made = match shop {
            Some(shop) => reissue(&self.store, &shop, record).await?,
            None => Err("this gateway has no counter".into()),
        };
        let result = |before: bool| json!({ "record_id": record.record_id, "made_before": before });
        let done = |result| self.result(order, CommandOutcome::Done, None, Some(result));
        Ok(match made {
            Ok(Reissue::Made(half)) => {
                let mut batch = batch;
                batch.ops.extend(half.ops);
                batch.events.extend(half.events);
                (batch.event(done(result(false))?), "done")
            }
            Ok(Reissue::MadeBefore) => (batch.event(done(result(true))?), "done"),
            Err(why) => {
                (batch.event(self.result(order, CommandOutcome::Refused, Some(why), None)?), "refused")
            }
        })
    }

    /// Tells the results that have come in since. Cheap when no command waits.
    pub(super) async fn settle(&mut self) -> Result<(), StoreError> {
        if !self.open {
            return Ok(());
        }
        let waiting = self.store.read(open_commands).await?;
        self.open = !waiting.is_empty();
        self.waiting_since.retain(|id, _| waiting.iter().any(|(command, _)| command.id == *id));
        for (command, asked) in waiting {
            let waited = self.waiting_since.entry(command.id).or_insert_with(Instant::now).elapsed();
            if let Some((outcome, error, result)) = verdict(asked.as_ref(), waited) {
                self.tell(&command, asked.as_ref(), outcome, error, result).await?;
            }
        }
        Ok(())
    }

    async fn tell(
        &self,
        command: &RequestRow,
        asked: Option<&RequestRow>,
        outcome: CommandOutcome,
        error: Option<String>,
        result: Option<Value>,
    ) -> Result<(), StoreError> {
        let name = command.body.get("name").and_then(Value::as_str).unwrap_or_default();
        let order = Order { id: command.id, name: name.to_owned(), expires_at: None, args: Value::Null };
        let state = if outcome == CommandOutcome::Done { RequestState::Done } else { RequestState::Failed };
        let settle = |id, outcome: Value| Op::Request(RequestOp::Settle { id, state, outcome });
        let mut batch = Batch::new().op(settle(command.id, json!({ "outcome": outcome })));
        if let Some(asked) = asked.filter(|asked| !asked.state.is_settled()) {
            batch = batch.op(settle(asked.id, json!({ "error": "withdrawn" })));
        }
        match self.store.commit(batch.event(self.result(&order, outcome, error, result)?)).await {
            // The service settled it in this very moment: the next round tells its outcome.
            Err(StoreError::NotFound { .. }) => Ok(()),
            other => other.map(|_| ()),
        }
    }

    fn result(
        &self,
        order: &Order,
        outcome: CommandOutcome,
        error: Option<String>,
        result: Option<Value>,
    ) -> Result<NewEvent, StoreError> {
        let data = CommandResult { command_id: order.id, name: order.name.clone(), outcome, error, result };
        NewEvent::now(format!("gateway/{}", self.source.gateway), &data)
            .map_err(|error| StoreError::Corrupt(error.to_string()))
    }
}

fn received(order: &Order) -> Op {
    Op::Command(CommandOp::Receive { id: order.id, name: order.name.clone(), body_sha256: order.digest() })
}

fn insert(id: Uuid, kind: &'static str, target: &str, body: Value) -> Op {
    Op::Request(RequestOp::Insert(NewRequest {
        id,
        kind,
        target: target.to_owned(),
        scope: SCOPE.into(),
        idempotency_key: None,
        body,
    }))
}

type Open = Vec<(RequestRow, Option<RequestRow>)>;

fn open_commands(reader: &crate::store::Reader<'_>) -> Result<Open, StoreError> {
    let mut open = Vec::new();
    for handler in HANDLERS {
        for command in reader.open_requests(&format!("command.{}", handler.name), None)? {
            let asked = command.body.get("request").and_then(Value::as_str).and_then(|id| id.parse().ok());
            let asked = asked.map(|id| reader.request(id)).transpose()?.flatten();
            open.push((command, asked));
        }
    }
    Ok(open)
}

type Verdict = (CommandOutcome, Option<String>, Option<Value>);

/// What a command's request says of it; `None` while it runs.
fn verdict(asked: Option<&RequestRow>, waited: Duration) -> Option<Verdict> {
    let Some(asked) = asked else {
        return Some((CommandOutcome::Interrupted, Some("its request is gone".into()), None));
    };
    match (asked.state, &asked.outcome) {
        (RequestState::Done, outcome) => Some((CommandOutcome::Done, None, outcome.clone())),
        (RequestState::Failed, outcome) => {
            let code = |key| outcome.as_ref().and_then(|outcome| outcome.get(key)).and_then(Value::as_str);
            let error = code("error").or_else(|| code("code")).unwrap_or("failed");
            let refused = outcome.as_ref().and_then(|outcome| outcome.get("refused"));
            let kind = if refused == Some(&Value::Bool(true)) {
                CommandOutcome::Refused
            } else if error.contains("interrupted") || code("code") == Some("interrupted") {
                CommandOutcome::Interrupted
            } else {
                CommandOutcome::Failed
            };
            Some((kind, Some(error.to_owned()), None))
        }
        (RequestState::Pending | RequestState::Running, _) => (waited > PATIENCE).then(|| {
            let error = "no answer from the device's service in five minutes; is the link configured?";
            (CommandOutcome::Failed, Some(error.to_owned()), None)
        }),
    }
}
