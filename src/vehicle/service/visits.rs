//! What happened on the link, committed: each fact with the state it changes in one batch.

use std::time::Duration;

use serde_json::value::to_raw_value;
use uuid::Uuid;

use super::Service;
use crate::clock::{self, Reading, TimeQuality, UtcMillis};
use crate::event::NewEvent;
use crate::event::vehicle::{
    Adapter as AdapterFacts, DepartureReason, VehicleArrived, VehicleDeparted, VehicleReport, VehicleSignals,
};
use crate::ident::Vin;
use crate::store::visits::VisitOp;
use crate::store::{Batch, Op};
use crate::vehicle::adapter::{Adapter, Capabilities};
use crate::vehicle::error::VehicleError;
use crate::vehicle::inspection;
use crate::vehicle::visit::{Action, Presence, Seen};

/// A longer stay across a reboot is a wrong clock: 30 days.
const LONGEST_STAY: Duration = Duration::from_secs(30 * 86_400);

/// Visits of a car looked through for one with a report.
const VISITS_TO_COMPARE: usize = 5;

/// The visit now open.
#[derive(Debug, Clone)]
pub(super) struct OpenVisit {
    pub(super) id: Uuid,
    /// By the task's clock; before its start when the visit was found open.
    began: Duration,
    /// Duration before this task's start.
    earlier: Duration,
    /// The one report a visit is there.
    pub(super) reported: bool,
}

/// What an arrival says of the link.
#[derive(Debug, Clone)]
pub(super) struct Surroundings {
    pub(super) protocol: String,
    pub(super) adapter: AdapterFacts,
}

impl Service {
    /// A visit left open by a crash waits to be confirmed.
    pub(super) async fn recover_visit(&mut self) -> Result<(), VehicleError> {
        let link = self.table.id.clone();
        let open = self.store.read(|r| r.open_visits()).await?;
        let Some(row) = open.into_iter().find(|row| row.link == link) else { return Ok(()) };
        tracing::info!(link = %link, visit = %row.visit, "visit found open");
        let earlier = lasted_since(row.started_at, clock::read());
        self.presence = Presence::recovered(row.vin, self.now());
        self.visit =
            Some(OpenVisit { id: row.visit, began: Duration::ZERO, earlier, reported: row.report.is_some() });
        Ok(())
    }

    /// The car's VIN in this visit, when known.
    pub(super) fn vin(&self) -> Option<Vin> {
        match &self.presence {
            Presence::Here(here) => here.vin.clone(),
            Presence::Away => None,
        }
    }

    pub(super) async fn link_is_down(&mut self) -> Result<(), VehicleError> {
        self.saw(Seen::LinkDown, None).await
    }

    /// Feeds the state machine and commits what it decides.
    pub(super) async fn saw(
        &mut self,
        seen: Seen,
        surroundings: Option<Surroundings>,
    ) -> Result<(), VehicleError> {
        let before = self.vin();
        let (next, actions) = self.presence.clone().next(seen, self.now(), &self.timing.patience);
        if !actions.is_empty() {
            let mut visit = self.visit.clone();
            let mut batch = Batch::new();
            for action in actions {
                batch = match action {
                    Action::Depart(reason) => {
                        self.depart(batch, visit.take(), before.clone(), reason).await?
                    }
                    Action::Arrive(vin) => {
                        let (added, opened) = self.arrive(batch, vin, surroundings.as_ref())?;
                        visit = Some(opened);
                        added
                    }
                    Action::Identify(_) => batch,
                };
            }
            if !batch.ops.is_empty() {
                self.settle_telemetry().await;
                self.store.commit(batch).await?;
            }
            self.visit = visit;
            self.unanswered.clear();
        }
        // Only now: what the log did not take has not happened.
        self.presence = next;
        Ok(())
    }

    fn arrive(
        &mut self,
        batch: Batch,
        vin: Option<Vin>,
        surroundings: Option<&Surroundings>,
    ) -> Result<(Batch, OpenVisit), VehicleError> {
        let id = Uuid::now_v7();
        let protocol = surroundings.map_or_else(String::new, |s| s.protocol.clone());
        let arrived = VehicleArrived {
            visit: id,
            vin: vin.clone(),
            order: None,
            link: self.table.id.clone(),
            protocol: protocol.clone(),
            voltage_v: surroundings.and_then(|s| s.adapter.voltage_v),
            adapter: surroundings.map_or_else(String::new, |s| s.adapter.identity.clone()),
        };
        tracing::info!(link = %self.table.id, visit = %id, protocol, "vehicle arrived");
        metrics::counter!("baygate_vehicle_visits_total", "link" => self.table.id.to_string()).increment(1);
        let open = VisitOp::Open { visit: id, link: self.table.id.clone(), vin, protocol };
        let batch = batch.op(Op::Visit(open)).event(NewEvent::now(subject(id), &arrived)?);
        self.window_since = self.now();
        let opened = OpenVisit { id, began: self.now(), earlier: Duration::ZERO, reported: false };
        Ok((batch, opened))
    }

    async fn depart(
        &mut self,
        batch: Batch,
        visit: Option<OpenVisit>,
        vin: Option<Vin>,
        reason: DepartureReason,
    ) -> Result<Batch, VehicleError> {
        let Some(visit) = visit else { return Ok(batch) };
        let last_window = self.window_event(visit.id, vin.clone())?;
        let rows = self.store.read(|r| r.open_visits()).await?;
        let order = rows.into_iter().find(|row| row.visit == visit.id).and_then(|row| row.order);
        let lasted = self.now().saturating_sub(visit.began) + visit.earlier;
        let departed = VehicleDeparted {
            visit: visit.id,
            vin,
            order,
            link: self.table.id.clone(),
            reason,
            duration_s: lasted.as_secs(),
        };
        tracing::info!(link = %self.table.id, visit = %visit.id, ?reason, duration_s = departed.duration_s, "vehicle departed");
        self.engine_running = false;
        let mut batch = batch.op(Op::Visit(VisitOp::Close { visit: visit.id, reason }));
        batch.events.extend(last_window);
        Ok(batch.event(NewEvent::now(subject(visit.id), &departed)?))
    }

    /// Holds the report's calibrations against those of the car's last visit.
    pub(super) async fn compare_with_last_visit(&self, report: &mut VehicleReport) -> Result<(), VehicleError> {
        let Some(vin) = report.vin.clone() else { return Ok(()) };
        let visits = self.store.read(move |r| r.visits_of(&vin, VISITS_TO_COMPARE)).await?;
        let earlier = visits.iter().filter(|visit| visit.visit != report.visit);
        let last = earlier.into_iter().find_map(|visit| visit.report.as_ref());
        // A report of an older version that cannot be read is nothing to compare with.
        if let Some(last) = last.and_then(|json| serde_json::from_str::<VehicleReport>(json.get()).ok()) {
            inspection::compare_calibrations(&last.ecus, report);
        }
        Ok(())
    }

    /// Commits a report; it belongs to the open visit.
    pub(super) async fn keep_report(&mut self, report: &VehicleReport) -> Result<(), VehicleError> {
        let op =
            VisitOp::Report { visit: report.visit, vin: report.vin.clone(), report: to_raw_value(report)? };
        let batch = Batch::new().op(Op::Visit(op)).event(NewEvent::now(subject(report.visit), report)?);
        self.store.commit(batch).await?;
        metrics::counter!("baygate_vehicle_reports_total", "link" => self.table.id.to_string()).increment(1);
        tracing::info!(
            link = %self.table.id, visit = %report.visit, ecus = report.ecus.len(),
            dtcs = report.ecus.iter().map(|ecu| ecu.dtcs.len()).sum::<usize>(),
            duration_ms = report.duration_ms, errors = report.errors.len(), "vehicle reported"
        );
        if let Some(visit) = &mut self.visit {
            visit.reported = true;
        }
        Ok(())
    }

    /// Ends the telemetry window when it is time. The log may hold it back up to a
    /// second; the car is not kept waiting for that.
    pub(super) async fn end_window(&mut self) -> Result<(), VehicleError> {
        let now = self.now();
        if now.saturating_sub(self.window_since) < self.timing.pace.window {
            return Ok(());
        }
        self.window_since = now;
        let Some(visit) = self.visit.as_ref().map(|visit| visit.id) else { return Ok(()) };
        let Some(event) = self.window_event(visit, self.vin())? else { return Ok(()) };
        self.settle_telemetry().await;
        let store = self.store.clone();
        self.committing = Some(tokio::spawn(async move {
            let batch = Batch { patient: true, ..Batch::new().event(event) };
            if let Err(error) = store.commit(batch).await {
                tracing::warn!(%error, "telemetry window not kept");
            }
        }));
        Ok(())
    }

    /// At most one window is on its way; its order before what follows is kept.
    async fn settle_telemetry(&mut self) {
        if let Some(committing) = self.committing.take()
            && committing.await.is_err()
        {
            tracing::warn!("telemetry window not kept");
        }
    }

    fn window_event(&mut self, visit: Uuid, vin: Option<Vin>) -> Result<Option<NewEvent>, VehicleError> {
        let Some((from, to, signals)) = self.window.take() else { return Ok(None) };
        let data = VehicleSignals { visit, vin, order: None, link: self.table.id.clone(), from, to, signals };
        Ok(Some(NewEvent::now(subject(visit), &data)?))
    }

    /// What the store remembers of this adapter.
    pub(super) async fn recall_capabilities(&mut self, adapter: &mut Adapter) -> Result<(), VehicleError> {
        let key = adapter.identity().key();
        let stored = self.store.read(move |r| r.adapter(&key)).await?;
        self.remembered = stored.and_then(|json| serde_json::from_str(&json).ok()).unwrap_or_default();
        adapter.remember(self.remembered);
        Ok(())
    }

    pub(super) async fn remember_capabilities(
        &mut self,
        identity: String,
        learned: Capabilities,
    ) -> Result<(), VehicleError> {
        if learned == self.remembered {
            return Ok(());
        }
        let op = VisitOp::Adapter { identity, capabilities: serde_json::to_string(&learned)? };
        self.store.commit(Batch::new().op(Op::Visit(op))).await?;
        self.remembered = learned;
        Ok(())
    }
}

fn subject(visit: Uuid) -> String {
    format!("visit/{visit}")
}

/// How long a visit found open has lasted, as far as the clocks can be believed. One that
/// began in this boot has its time from the present clock. One from an earlier boot may
/// have any: it counts from the present clock where that is right and the answer is
/// possible, else from now on.
fn lasted_since(started: UtcMillis, now: Reading) -> Duration {
    let lasted =
        u64::try_from(now.wall.0.saturating_sub(started.0)).map_or(Duration::ZERO, Duration::from_millis);
    let this_boot = started >= now.wall_at_boot;
    let possible = now.quality == TimeQuality::Synced && lasted <= LONGEST_STAY;
    if this_boot || possible { lasted } else { Duration::ZERO }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_visit_found_open_has_lasted_neither_ten_years_nor_less_than_nothing() {
        const HOUR: i64 = 3_600_000;
        let right = 1_795_000_000_000;
        let decade = 10 * 365 * 24 * HOUR;
        use TimeQuality::{Synced, Unsynced};
        // (case, started, now, quality, hours since boot, hours it lasted)
        for (case, started, wall, quality, up, hours) in [
            ("in this boot", right, right + 2 * HOUR, Synced, 5, 2),
            ("in this boot, 1970", 3 * HOUR, 5 * HOUR, Unsynced, 5, 2),
            ("before a reboot", right - 8 * HOUR, right, Synced, 1, 8),
            ("before a reboot, the clock not set", right - 8 * HOUR, right, Unsynced, 1, 0),
            ("before a reboot, in 1970", HOUR, right, Synced, 1, 0),
            ("before a reboot that began in 1970", right, HOUR, Unsynced, 1, 0),
            ("in ten years", right + decade, right, Synced, 1, 0),
            ("ten years ago", right, right + decade, Unsynced, 1, 0),
        ] {
            let now = Reading {
                wall: UtcMillis(wall),
                quality,
                wall_at_boot: UtcMillis(wall - up * HOUR),
                steady: Duration::ZERO,
            };
            let lasted = lasted_since(UtcMillis(started), now);
            assert_eq!(lasted, Duration::from_secs(hours * 3600), "{case}");
        }
    }
}
