//! Clearing codes as a person confirmed: requests of kind [`WHAT`]. Everything is checked
//! afresh just before, the confirmation is used up on the disk before the one command goes
//! out, and what came of it is committed with its event.

use serde_json::{Value, json};
use uuid::Uuid;

use super::Service;
use super::attend::MODULE_VOLTAGE;
use crate::config::values::VehicleLink;
use crate::event::vehicle::{ClearOutcome, Powertrain, VehicleCleared, VehicleReport};
use crate::event::{NewEvent, Text};
use crate::store::confirmations::ConfirmationOp;
use crate::store::requests::{RequestOp, RequestRow, RequestState};
use crate::store::{Batch, Op, StoreError};
use crate::vehicle::adapter::{Adapter, Capabilities};
use crate::vehicle::battery::CAR_VOLTS;
use crate::vehicle::can::{Node, is_emptied_by};
use crate::vehicle::clear::{self, Before, ClearAnswer, Delivery, Refusal, WHAT};
use crate::vehicle::error::{AdapterError, VehicleError};
use crate::vehicle::gate::Request;
use crate::vehicle::gate::clear::ClearRequest;
use crate::vehicle::obd::VinReading;
use crate::vehicle::scan::{self, ScanError};

/// Why nothing was sent.
enum NotSent {
    Refusal(Refusal),
    Adapter(AdapterError),
    Service(VehicleError),
}
impl From<AdapterError> for NotSent {
    fn from(error: AdapterError) -> Self {
        Self::Adapter(error)
    }
}
impl From<Refusal> for NotSent {
    fn from(refusal: Refusal) -> Self {
        Self::Refusal(refusal)
    }
}
impl From<VehicleError> for NotSent {
    fn from(error: VehicleError) -> Self {
        Self::Service(error)
    }
}

impl Service {
    /// Carries out what was confirmed. A request found `running` was interrupted by a crash:
    /// whether the car cleared is not known, and it is not sent again.
    ///
    /// The error, if any, is the adapter's.
    pub(super) async fn serve_clearing(
        &mut self,
        adapter: &mut Adapter,
    ) -> Result<Option<AdapterError>, VehicleError> {
        for request in self.open_requests_of(WHAT).await? {
            let Some(confirmation) = confirmation_of(&request) else {
                let text = Text::new("该请求没有确认", "the request has no confirmation");
                self.refuse_clearing(&request, "confirmation-missing", &text).await?;
                continue;
            };
            if request.state == RequestState::Running {
                self.clearing_interrupted(&request, confirmation).await?;
                continue;
            }
            if let Some(error) = self.clear(adapter, &request, confirmation).await? {
                return Ok(Some(error));
            }
        }
        Ok(None)
    }

    /// An interface that was found down or away holds no clearing any more.
    pub(super) async fn forget_clearing(&mut self, error: &AdapterError) -> Result<(), VehicleError> {
        let VehicleLink::Can { interface, .. } = &self.table.link else { return Ok(()) };
        if !is_emptied_by(error) {
            return Ok(());
        }
        let key = Node::key(interface);
        let asked = key.clone();
        let stored = self.store.read(move |r| r.adapter(&asked)).await?;
        let Some(known) = stored.and_then(|json| serde_json::from_str::<Capabilities>(&json).ok()) else {
            return Ok(());
        };
        self.remembered = known;
        self.remember_capabilities(key, Capabilities { clearing_stays: None, ..known }).await
    }

    async fn clear(
        &mut self,
        adapter: &mut Adapter,
        request: &RequestRow,
        confirmation: Uuid,
    ) -> Result<Option<AdapterError>, VehicleError> {
        let report = match self.checked(adapter, request).await {
            Ok(report) => report,
            Err(NotSent::Refusal(refusal)) => {
                self.refuse_clearing(request, refusal.code(), &refusal.text()).await?;
                return Ok(None);
            }
            Err(NotSent::Adapter(error)) => {
                self.refuse_clearing(request, error.code(), &error.text()).await?;
                return Ok(Some(error));
            }
            Err(NotSent::Service(error)) => return Err(error),
        };
        let redeemed = match self.store.redeem(confirmation, self.table.id.as_str(), request.id).await {
            Ok(redeemed) => redeemed,
            Err(StoreError::NotFound { .. }) => {
                let text = Text::new(
                    "确认已过期或已使用；未清除，请重新申请",
                    "the confirmation has expired or was used; nothing was cleared, ask again",
                );
                self.refuse_clearing(request, "confirmation-expired", &text).await?;
                return Ok(None);
            }
            Err(error) => return Err(error.into()),
        };
        let (body, granted) = (redeemed.body().clone(), redeemed.granted().clone());
        let Some(clearing) = ClearRequest::new(redeemed) else {
            let text = Text::new("确认的内容不是清码", "the confirmation was given for something else");
            self.refuse_clearing(request, "confirmation-mismatch", &text).await?;
            return Ok(None);
        };
        tracing::warn!(link = %self.table.id, %confirmation, "codes are cleared, as confirmed");
        metrics::counter!("baygate_vehicle_clearings_total", "link" => self.table.id.to_string())
            .increment(1);
        // Whatever becomes of this process: that it may wait in the controller is on the disk first.
        self.remember_capabilities(
            adapter.remembered_as(&self.table.link),
            adapter.capabilities_while_clearing(),
        )
        .await?;
        let told = adapter.clear(clearing).await;
        let (answer, error) = match told {
            Ok(answer) => (answer, None),
            Err(error) => (ClearAnswer::default(), Some(error)),
        };
        // It left or was taken back, or it may still wait there.
        self.remember_capabilities(adapter.remembered_as(&self.table.link), adapter.capabilities()).await?;
        let codes = clear::codes(&report);
        self.settle_clearing(request, confirmation, &body, &granted, codes, &answer).await?;
        if error.is_some() {
            return Ok(error);
        }
        // What the car says now is the proof.
        match self.scan(adapter).await? {
            Ok(_) => Ok(None),
            Err(ScanError::Adapter(error)) => Ok(Some(error)),
            Err(ScanError::NoAnswer { why }) => {
                tracing::warn!(link = %self.table.id, why, "no report after clearing codes");
                Ok(None)
            }
        }
    }

    /// Everything that must be true, read afresh; the engine's speed last.
    async fn checked(
        &mut self,
        adapter: &mut Adapter,
        request: &RequestRow,
    ) -> Result<VehicleReport, NotSent> {
        let confirmed_for = request.body.get("visit").and_then(Value::as_str).and_then(|id| id.parse().ok());
        let visit = self.visit.as_ref().map(|visit| visit.id).filter(|id| Some(*id) == confirmed_for);
        let Some(visit) = visit else { return Err(Refusal::OtherVisit.into()) };
        let rows = self.store.read(|r| r.open_visits()).await.map_err(VehicleError::from)?;
        let stored = rows.into_iter().find(|row| row.visit == visit).and_then(|row| row.report);
        let Some(stored) = stored else { return Err(Refusal::NoReport.into()) };
        let report: VehicleReport = serde_json::from_str(stored.get()).map_err(VehicleError::from)?;

        self.is_the_report_shown(request, &report).await?;
        // The car that told the report: the same VIN, or none then and none now.
        let told = report.vin.clone().filter(|_| report.store_facts.vin_typed != Some(true));
        let same = match (told, scan::read_vin(adapter).await?) {
            (Some(known), VinReading::Read(read)) if known == read => true,
            (None, VinReading::Missing | VinReading::Malformed) => true,
            (_, VinReading::Read(_)) => return Err(Refusal::OtherCar.into()),
            _ => false,
        };
        let mut before = Before { powertrain: report.powertrain, ..Before::default() };
        before.volts = self.battery_volts(adapter).await?;
        before.chemistry = self.battery.chemistry();
        if before.powertrain != Powertrain::Ice {
            before.speed_km_h = self.live(adapter, 0x0D).await?.into_iter().max().map(f64::from);
        }
        // Quarters of a revolution a minute (SAE J1979, PID 0C).
        before.rpm = self.live(adapter, 0x0C).await?.iter().map(|raw| f64::from(*raw) / 4.0).collect();
        clear::may_clear(&before)?;
        // Last, for a car that says nothing at all is told so.
        if same { Ok(report) } else { Err(Refusal::OtherCar.into()) }
    }

    /// What was said to be lost stood in one report; a later one may say more.
    async fn is_the_report_shown(&self, request: &RequestRow, report: &VehicleReport) -> Result<(), NotSent> {
        let Some(confirmation) = confirmation_of(request) else { return Err(Refusal::NoReport.into()) };
        let row = self.store.read(move |r| r.request(confirmation)).await.map_err(VehicleError::from)?;
        let shown = row.and_then(|row| row.body.get("report_at").cloned());
        let now = serde_json::to_value(report.started_at).map_err(VehicleError::from)?;
        if shown.is_some_and(|shown| shown != now) { Err(Refusal::ReportOld.into()) } else { Ok(()) }
    }

    /// At the plug or, on a bus and through an adapter without a voltage pin, by the car's own word:
    /// of several units the lowest. A low word is asked for once more, as in the background: it may
    /// have been a load switched on. `None`: the car does not tell either.
    async fn battery_volts(&self, adapter: &mut Adapter) -> Result<Option<f64>, AdapterError> {
        let measured = adapter.voltage().await?.filter(|volts| *volts >= CAR_VOLTS);
        if measured.is_some() {
            return Ok(measured);
        }
        let told = self.told_volts(adapter).await?;
        if self.battery.is_below(told, false) { self.told_volts(adapter).await } else { Ok(told) }
    }

    async fn told_volts(&self, adapter: &mut Adapter) -> Result<Option<f64>, AdapterError> {
        // Millivolts (SAE J1979, PID 42).
        let told = self.live(adapter, MODULE_VOLTAGE).await?;
        let volts = told.iter().map(|raw| f64::from(*raw) / 1000.0).filter(|volts| *volts >= CAR_VOLTS);
        Ok(volts.min_by(f64::total_cmp))
    }

    /// The raw value of a PID of every unit that tells it, by J1979 or, from a car without it,
    /// by J1979-2.
    async fn live(&self, adapter: &mut Adapter, pid: u8) -> Result<Vec<u16>, AdapterError> {
        let mut told = adapter.ask(Request::current(pid), None).await?;
        let mut head = 2;
        if told.messages.is_empty() {
            told = adapter.ask(Request::data_by_identifier(0xF400 | u16::from(pid)), None).await?;
            head = 3;
        }
        let two = matches!(pid, 0x0C | MODULE_VOLTAGE);
        let values = told.messages.iter().filter_map(|message| match message.payload.get(head..)? {
            [high, low, ..] if two => Some(u16::from_be_bytes([*high, *low])),
            [only, ..] if !two => Some(u16::from(*only)),
            _ => None,
        });
        Ok(values.collect())
    }

    /// Settles a request that was not carried out, and its confirmation: the next try is asked anew.
    pub(super) async fn refuse_clearing(
        &self,
        request: &RequestRow,
        code: &str,
        text: &Text,
    ) -> Result<(), VehicleError> {
        if let (RequestState::Running, Some(confirmation)) = (request.state, confirmation_of(request)) {
            return self.clearing_interrupted(request, confirmation).await;
        }
        let outcome = json!({"code": code, "text": text});
        let mut batch = Batch::new();
        if let Some(id) = confirmation_of(request) {
            batch = batch.op(Op::Confirmation(ConfirmationOp::Refuse { id, outcome: outcome.clone() }));
        }
        let settle = RequestOp::Settle { id: request.id, state: RequestState::Failed, outcome };
        self.store.commit(batch.op(Op::Request(settle))).await?;
        tracing::info!(link = %self.table.id, code, "codes not cleared");
        Ok(())
    }

    async fn clearing_interrupted(
        &self,
        request: &RequestRow,
        confirmation: Uuid,
    ) -> Result<(), VehicleError> {
        let row = self.store.read(move |r| r.request(confirmation)).await?;
        let (body, granted) = row.map(|row| (row.body, row.outcome.unwrap_or_default())).unwrap_or_default();
        let codes = body.get("codes").cloned().and_then(|codes| serde_json::from_value(codes).ok());
        let codes = codes.unwrap_or_default();
        let answer = ClearAnswer { complaint: Some("interrupted by a restart"), ..ClearAnswer::default() };
        self.settle_clearing(request, confirmation, &body, &granted, codes, &answer).await
    }

    async fn settle_clearing(
        &self,
        request: &RequestRow,
        confirmation: Uuid,
        body: &Value,
        granted: &Value,
        codes: Vec<String>,
        answer: &ClearAnswer,
    ) -> Result<(), VehicleError> {
        let text =
            |value: &Value, name: &str| value.get(name).and_then(Value::as_str).unwrap_or("").to_owned();
        let visit = text(body, "visit").parse().unwrap_or_default();
        let row = self.store.read(move |r| r.visit(visit)).await?;
        let (vin, order) = row.map(|row| (row.vin, row.typed.order)).unwrap_or_default();
        let outcome = answer.outcome();
        let event = VehicleCleared {
            visit,
            vin,
            order,
            link: self.table.id.clone(),
            confirmation,
            asked_by: text(body, "asked_by"),
            confirmed_by: text(granted, "confirmed_by"),
            operator: text(granted, "operator"),
            method: text(body, "method"),
            codes,
            outcome,
            units: answer.cleared.clone(),
            refused: answer.refused.iter().map(|(unit, code)| format!("{unit} {code:02X}")).collect(),
        };
        let done = matches!(outcome, ClearOutcome::Cleared | ClearOutcome::Partly);
        let mut told = serde_json::to_value(&event)?;
        if let (false, Some(members)) = (done, told.as_object_mut()) {
            members.insert("code".into(), json!(failure(answer).0));
            members.insert("text".into(), json!(failure(answer).1));
        }
        let state = if done { RequestState::Done } else { RequestState::Failed };
        let settle = RequestOp::Settle { id: request.id, state, outcome: told };
        let event = NewEvent::now(format!("visit/{visit}"), &event)?;
        self.store.commit(Batch::new().op(Op::Request(settle)).event(event)).await?;
        tracing::warn!(link = %self.table.id, %confirmation, ?outcome, complaint = answer.complaint, "codes cleared or not");
        Ok(())
    }
}

fn failure(answer: &ClearAnswer) -> (&'static str, Text) {
    match (answer.delivery, answer.outcome()) {
        (Delivery::NotSent, _) => (
            "clear-not-sent",
            Text::new(
                "清码未发出（总线上无人应答，已撤回）；请检查插头和点火开关，然后重新申请",
                "it was not sent, or withdrawn because nobody on the bus acknowledged it; check the plug and the ignition, then ask again",
            ),
        ),
        (Delivery::Pending, _) => (
            "clear-pending",
            Text::new(
                "清码未被确认，可能仍在适配器中等待发送：请勿接入其他车辆，先拔下 CAN 适配器再插上",
                "nobody acknowledged it and it may still wait in the adapter: connect no other car before the CAN adapter was unplugged and plugged in again",
            ),
        ),
        (Delivery::Sent, ClearOutcome::Refused) => (
            "clear-refused",
            Text::new(
                "控制单元拒绝清码；请确认已熄火且点火开关打开，然后重新申请",
                "the control units refused; make sure that the engine is off and the ignition on, then ask again",
            ),
        ),
        _ => (
            "clear-unknown",
            Text::new(
                "已发送清码，但结果未知；请重新扫描车辆查看",
                "it was sent and what came of it is not known; scan the car to see",
            ),
        ),
    }
}

fn confirmation_of(request: &RequestRow) -> Option<Uuid> {
    request.body.get("confirmation")?.as_str()?.parse().ok()
}
