//! Scans that a till, the CLI or headquarters asked for: rows of kind
//! `vehicle.scan` with this link as target.

use serde_json::{Value, json};

use super::Service;
use crate::event::Text;
use crate::event::vehicle::VehicleReport;
use crate::store::requests::{RequestOp, RequestRow, RequestState};
use crate::store::{Batch, Op};
use crate::vehicle::adapter::Adapter;
use crate::vehicle::clear::WHAT;
use crate::vehicle::error::{AdapterError, VehicleError};
use crate::vehicle::scan::ScanError;

/// The kind of request this service takes.
pub const SCAN: &str = "vehicle.scan";

impl Service {
    pub(super) async fn open_requests_of(&self, kind: &'static str) -> Result<Vec<RequestRow>, VehicleError> {
        let target = self.table.id.to_string();
        Ok(self.store.read(move |r| r.open_requests(kind, Some(&target))).await?)
    }

    pub(super) async fn has_request(&self) -> Result<bool, VehicleError> {
        Ok(!self.open_requests_of(SCAN).await?.is_empty() || !self.open_requests_of(WHAT).await?.is_empty())
    }

    /// Settles every open request as failed.
    pub(super) async fn refuse_requests(&self, code: &str, text: &Text) -> Result<(), VehicleError> {
        for request in self.open_requests_of(SCAN).await? {
            self.settle_failed(&request, code, text).await?;
        }
        for request in self.open_requests_of(WHAT).await? {
            self.refuse_clearing(&request, code, text).await?;
        }
        Ok(())
    }

    /// Does every open request. A request found `running` was interrupted by a crash: reading
    /// a car twice does no harm, so it is done again. One scan serves all who wait.
    ///
    /// The error, if any, is the adapter's.
    pub(super) async fn serve_requests(
        &mut self,
        adapter: &mut Adapter,
    ) -> Result<Option<AdapterError>, VehicleError> {
        if let Some(error) = self.serve_clearing(adapter).await? {
            return Ok(Some(error));
        }
        let requests = self.open_requests_of(SCAN).await?;
        if requests.is_empty() {
            return Ok(None);
        }
        for request in requests.iter().filter(|request| request.state == RequestState::Pending) {
            let start = RequestOp::Start { id: request.id };
            self.store.commit(Batch::new().op(Op::Request(start))).await?;
        }
        let error = match self.scan(adapter).await? {
            Ok(report) => {
                let running = report.engine_running == Some(true) || self.moving;
                // Of a bus the car's own word, which the scan asked for.
                let volts = report.adapter.voltage_v.or(self.module_volts.map(|(_, volts)| volts));
                let outcome = outcome_of(&report, self.battery.is_below(volts, running))?;
                for request in &requests {
                    self.settle(request, RequestState::Done, outcome.clone()).await?;
                }
                return Ok(None);
            }
            Err(error) => error,
        };
        let (code, text) = explain(&error);
        for request in &requests {
            self.settle_failed(request, code, &text).await?;
        }
        Ok(match error {
            ScanError::Adapter(error) => Some(error),
            ScanError::NoAnswer { .. } => None,
        })
    }

    async fn settle_failed(&self, request: &RequestRow, code: &str, text: &Text) -> Result<(), VehicleError> {
        self.settle(request, RequestState::Failed, json!({"code": code, "text": text})).await
    }

    async fn settle(
        &self,
        request: &RequestRow,
        state: RequestState,
        outcome: Value,
    ) -> Result<(), VehicleError> {
        let settle = RequestOp::Settle { id: request.id, state, outcome };
        self.store.commit(Batch::new().op(Op::Request(settle))).await?;
        Ok(())
    }
}

/// The report; a low battery is said beside it.
fn outcome_of(report: &VehicleReport, battery_low: bool) -> Result<Value, VehicleError> {
    let mut outcome = serde_json::to_value(report)?;
    if battery_low && let Some(fields) = outcome.as_object_mut() {
        let text = Text::new(
            "电瓶电压过低，已停止后台轮询；请勿长时间打开点火开关",
            "the battery is low: background polling has stopped; do not leave the ignition on for long",
        );
        fields.insert("notices".into(), json!([{"code": "battery-low", "text": text}]));
    }
    Ok(outcome)
}

fn explain(error: &ScanError) -> (&'static str, Text) {
    match error {
        ScanError::Adapter(error) => (error.code(), error.text()),
        ScanError::NoAnswer { why } => (
            "no-answer",
            Text::new(
                format!("没有控制单元应答（{why}）；请打开点火开关；电动车或带安全网关的车可能不应答 OBD"),
                error.to_string(),
            ),
        ),
    }
}
