//! What happened on the link, committed: each fact with the state it changes in one batch.

use std::time::Duration;

use serde_json::value::to_raw_value;
use uuid::Uuid;

use super::Service;
use crate::clock::{self, Reading, TimeQuality, UtcMillis};
use crate::event::NewEvent;
use crate::event::vehicle::{
    Adapter as AdapterFacts, DepartureReason, Powertrain, VehicleArrived, VehicleDeparted, VehicleReport,
    VehicleSignals,
};
use crate::ident::Vin;
use crate::store::visits::{VisitOp, VisitRow};
use crate::store::{Batch, Op, StoreError};
use crate::vehicle::adapter::{Adapter, Capabilities};
use crate::vehicle::agenda::Agenda;
use crate::vehicle::battery::{Battery, Chemistry, RESTS};
use crate::vehicle::error::VehicleError;
use crate::vehicle::inspection;
use crate::vehicle::telemetry::{self, Taken};
use crate::vehicle::typed;
use crate::vehicle::visit::{Action, Presence, Seen};

/// A longer stay across a reboot is a wrong clock: 30 days.
const LONGEST_STAY: Duration = Duration::from_secs(30 * 86_400);

/// So often may somebody type something in between the reading of a visit and its commit.
const TYPING_RACES: u32 = 5;
/// So often a visit's scan begins by itself: some adapters and cars never see its end.
const MOST_CUT: u8 = 3;
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
    /// A report of it is there.
    pub(super) reported: bool,
    /// It came of a whole scan.
    whole: bool,
    /// Scans that were cut off.
    cut: u8,
}

impl OpenVisit {
    /// The one report a visit is to be made, again where the link dropped in the middle of it.
    pub(super) fn wants_scan(&self) -> bool {
        !self.whole && self.cut < MOST_CUT
    }
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
        // A typed VIN is not the car's own word.
        self.presence = Presence::recovered(row.vin.filter(|_| row.vin_is_read), self.now());
        let reported = row.report.is_some();
        let open =
            OpenVisit { id: row.visit, began: Duration::ZERO, earlier, reported, whole: reported, cut: 0 };
        self.visit = Some(open);
        self.overlook_old_warnings(row.visit).await?;
        self.greet_car().await
    }

    /// The car's VIN in this visit, when known.
    pub(super) fn vin(&self) -> Option<Vin> {
        match &self.presence {
            Presence::Here(here) => here.vin.clone(),
            Presence::Away => None,
        }
    }

    /// A visit begins, or its car became known.
    async fn greet_car(&mut self) -> Result<(), VehicleError> {
        if self.visit.is_none() {
            return Ok(());
        }
        self.sampling.forget();
        self.window_since = self.now();
        let vin = self.vin();
        self.make_agenda(vin.as_ref());
        if let Some(vin) = vin {
            let rests = self.store.read(move |r| r.resting_volts(&vin, RESTS)).await?;
            self.battery.learn(Chemistry::of_rests(&rests));
        }
        Ok(())
    }

    /// A visit is over: nothing of it must be taken for the next car's.
    fn forget_car(&mut self) {
        self.engine_running = false;
        self.moving = false;
        self.powertrain = Powertrain::Unknown;
        self.rest_kept = false;
        self.battery = Battery::default();
        self.module_volts = None;
        self.battery_low = false;
        self.agenda_for = None;
        self.agenda = Agenda::default();
        self.recording.clear();
        self.warnings_seen.clear();
    }

    /// Writes down what the battery rested at, once a visit.
    pub(super) async fn keep_rest(&mut self) -> Result<(), VehicleError> {
        let (Some(visit), Some(volts), false) = (&self.visit, self.battery.rested_volts(), self.rest_kept)
        else {
            return Ok(());
        };
        let rested = VisitOp::Rested { visit: visit.id, volts };
        self.store.commit(Batch::new().op(Op::Visit(rested))).await?;
        self.rest_kept = true;
        Ok(())
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
            self.settle_telemetry().await;
            let departs = actions.iter().any(|action| matches!(action, Action::Depart(_)));
            let last_window = departs.then(|| self.take_window()).flatten();
            self.visit = self.carry_out(&actions, before, last_window, surroundings.as_ref()).await?;
            if departs {
                self.forget_car();
            }
            // Only now: what the log did not take has not happened.
            self.presence = next;
            return self.greet_car().await;
        }
        self.presence = next;
        Ok(())
    }

    /// Commits what the state machine decided; returns the visit then open.
    async fn carry_out(
        &mut self,
        actions: &[Action],
        before: Option<Vin>,
        last_window: Option<Taken>,
        surroundings: Option<&Surroundings>,
    ) -> Result<Option<OpenVisit>, VehicleError> {
        for attempt in 1.. {
            let mut visit = self.visit.clone();
            let mut batch = Batch::new();
            for action in actions {
                batch = match action {
                    Action::Depart(reason) => match visit.take() {
                        Some(over) => {
                            self.depart(batch, &over, before.clone(), last_window.clone(), *reason).await?
                        }
                        None => batch,
                    },
                    Action::Arrive(vin) => {
                        let (added, opened) = self.arrive(batch, vin.clone(), surroundings)?;
                        visit = Some(opened);
                        added
                    }
                    Action::Identify(vin) => match &visit {
                        Some(open) => {
                            let vin = vin.clone();
                            batch.op(Op::Visit(VisitOp::Identify { visit: open.id, vin }))
                        }
                        None => batch,
                    },
                };
            }
            if batch.ops.is_empty() {
                return Ok(visit);
            }
            match self.store.commit(batch).await {
                Ok(_) => return Ok(visit),
                // Somebody typed something in meanwhile: it goes into the event too.
                Err(StoreError::NotFound { .. }) if attempt < TYPING_RACES => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(self.visit.clone())
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
        let (began, earlier) = (self.now(), Duration::ZERO);
        let opened = OpenVisit { id, began, earlier, reported: false, whole: false, cut: 0 };
        Ok((batch, opened))
    }

    async fn depart(
        &self,
        batch: Batch,
        visit: &OpenVisit,
        vin: Option<Vin>,
        last_window: Option<Taken>,
        reason: DepartureReason,
    ) -> Result<Batch, VehicleError> {
        let row = self.visit_row(visit.id).await?;
        let typed = &row.typed;
        let vin_is_typed = vin.is_none() && typed.vin.is_some();
        let lasted = self.now().saturating_sub(visit.began) + visit.earlier;
        let departed = VehicleDeparted {
            visit: visit.id,
            vin: vin.or_else(|| typed.vin.clone()),
            order: typed.order.clone(),
            link: self.table.id.clone(),
            reason,
            duration_s: lasted.as_secs(),
            odometer_km: typed.odometer_km,
            odometer_source: typed.odometer_source,
            store_facts: typed::store_facts(typed, vin_is_typed),
        };
        tracing::info!(link = %self.table.id, visit = %visit.id, ?reason, duration_s = departed.duration_s, "vehicle departed");
        let mut batch = batch.op(Op::Visit(VisitOp::At { visit: visit.id, revision: row.revision }));
        batch.events.extend(self.window_events(visit.id, &row, last_window)?);
        let close = VisitOp::Close { visit: visit.id, reason };
        Ok(batch.op(Op::Visit(close)).event(NewEvent::now(subject(visit.id), &departed)?))
    }

    /// Holds the report's calibrations against those of the car's last visit.
    pub(super) async fn compare_with_last_visit(
        &self,
        report: &mut VehicleReport,
    ) -> Result<(), VehicleError> {
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

    /// An open visit as the store has it, with what was typed in.
    async fn visit_row(&self, visit: Uuid) -> Result<VisitRow, VehicleError> {
        let row = self.store.read(move |r| r.visit(visit)).await?;
        Ok(row.ok_or_else(|| StoreError::NotFound { what: format!("visit {visit}") })?)
    }

    /// Puts what was typed in into a report and commits it; it belongs to the open visit.
    pub(super) async fn keep_report(&mut self, report: &mut VehicleReport) -> Result<(), VehicleError> {
        for attempt in 1.. {
            let row = self.visit_row(report.visit).await?;
            typed::put_into(report, &row.typed);
            let report = &*report;
            let told = VisitOp::Report {
                visit: report.visit,
                vin: report.vin.clone(),
                report: to_raw_value(report)?,
            };
            let batch = Batch::new()
                .op(Op::Visit(VisitOp::At { visit: report.visit, revision: row.revision }))
                .op(Op::Visit(told))
                .event(NewEvent::now(subject(report.visit), report)?);
            match self.store.commit(batch).await {
                Ok(_) => break,
                Err(StoreError::NotFound { .. }) if attempt < TYPING_RACES => {}
                Err(error) => return Err(error.into()),
            }
        }
        metrics::counter!("baygate_vehicle_reports_total", "link" => self.table.id.to_string()).increment(1);
        tracing::info!(
            link = %self.table.id, visit = %report.visit, ecus = report.ecus.len(),
            dtcs = report.ecus.iter().map(|ecu| ecu.dtcs.len()).sum::<usize>(),
            duration_ms = report.duration_ms, errors = report.errors.len(), "vehicle reported"
        );
        if let Some(visit) = &mut self.visit {
            visit.reported = true;
            if report.not_assessable_because.iter().any(|reason| reason == inspection::INCOMPLETE) {
                visit.cut = visit.cut.saturating_add(1);
            } else {
                visit.whole = true;
            }
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
        let Some(taken) = self.take_window() else { return Ok(()) };
        let row = self.visit_row(visit).await?;
        let events = self.window_events(visit, &row, Some(taken))?;
        self.settle_telemetry().await;
        let store = self.store.clone();
        self.committing = Some(tokio::spawn(async move {
            let batch = Batch { patient: true, events, ..Batch::new() };
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

    /// A window as events, each within its limit.
    fn window_events(
        &self,
        visit: Uuid,
        row: &VisitRow,
        taken: Option<Taken>,
    ) -> Result<Vec<NewEvent>, VehicleError> {
        let Some(Taken { from, to, signals }) = taken else { return Ok(Vec::new()) };
        let mut events = Vec::new();
        for signals in telemetry::parts(signals) {
            let data = VehicleSignals {
                visit,
                vin: row.vin.clone(),
                order: row.typed.order.clone(),
                link: self.table.id.clone(),
                from,
                to,
                signals,
            };
            events.push(NewEvent::now(subject(visit), &data)?);
        }
        Ok(events)
    }

    /// What the store remembers of this adapter.
    pub(super) async fn recall_capabilities(&mut self, adapter: &mut Adapter) -> Result<(), VehicleError> {
        let key = adapter.remembered_as(&self.table.link);
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
