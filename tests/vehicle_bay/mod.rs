//! A bay for the vehicle tests: a store on disk, the service on a link, and
//! waiting for facts with a deadline instead of sleeping.
#![allow(
    dead_code,
    unused_imports,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

pub mod clearing;
pub mod dongle;
// Some tests load it themselves, too.
#[allow(clippy::duplicate_mod)]
#[path = "../support/store.rs"]
mod store;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use baygate::config::tables::{Poll, VehicleTable};
use baygate::event::device::DeviceKind;
use baygate::event::vehicle::{VehicleReport, VinCheck};
use baygate::health::Health;
use baygate::protocols::Bundle;
use baygate::store::devices::DeviceRow;
use baygate::store::requests::{NewRequest, RequestOp, RequestRow};
use baygate::store::{Batch, Offset, Op, Store};
use baygate::vehicle::adapter::Adapter;
use baygate::vehicle::polling::Pace;
use baygate::vehicle::report::ScanRecord;
use baygate::vehicle::scan::{self, Budget, ScanError};
use baygate::vehicle::visit::Patience;
use baygate::vehicle::{SCAN, Timing, VehicleError, serve_link_timed};
use serde_json::Value;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub use store::open_store;

/// How long a test waits for a fact, on a slow machine with others at work on it.
pub const DEADLINE: Duration = Duration::from_secs(90);

/// What is left out for want of time depends on the machine.
pub const UNHURRIED: Budget = Budget { whole: Duration::from_secs(60), uds: Duration::from_secs(60) };

/// A full scan that leaves nothing out.
pub async fn scanned(adapter: &mut Adapter, bundle: &Bundle) -> Result<ScanRecord, ScanError> {
    let link = "bay-1".parse().unwrap();
    scan::run_within(UNHURRIED, adapter, bundle, uuid::Uuid::nil(), link, &mut |_| {}).await
}

pub fn bundle() -> Arc<Bundle> {
    Arc::new(Bundle::load(Path::new("firmware-protocols")).unwrap())
}

/// Quick, so that a story takes seconds; patience stays longer than the pace.
pub fn quick() -> Timing {
    Timing {
        patience: Patience {
            unplugged: Duration::from_millis(600),
            ignition_off: Duration::from_millis(1500),
            link_lost: Duration::from_millis(2500),
        },
        pace: Pace {
            look: Duration::from_millis(100),
            running: Duration::from_millis(200),
            engine_off: Duration::from_millis(300),
            engine_off_most: Duration::from_millis(600),
            low_for: Duration::from_millis(300),
            silent_first: Duration::from_millis(200),
            silent_most: Duration::from_millis(800),
            vin: Duration::from_millis(1000),
            window: Duration::from_millis(600),
        },
        retry_first: Duration::from_millis(200),
        retry_most: Duration::from_millis(800),
        scan: UNHURRIED,
    }
}

/// A `[[vehicle]]` without files.
pub fn table(id: &str, link: &str, poll: Poll) -> VehicleTable {
    VehicleTable {
        id: id.parse().unwrap(),
        link: link.parse().unwrap(),
        dbc: Vec::new(),
        signals: Vec::new(),
        poll,
    }
}

/// A running service.
pub struct Bay {
    pub store: Store,
    pub health: Health,
    pub id: String,
    stop: CancellationToken,
    task: Option<JoinHandle<Result<(), VehicleError>>>,
}

impl Bay {
    pub fn start(store: &Store, id: &str, link: &str, poll: Poll) -> Self {
        Self::start_timed(store, id, link, poll, quick())
    }

    pub fn start_timed(store: &Store, id: &str, link: &str, poll: Poll, timing: Timing) -> Self {
        Self::start_table(store, table(id, link, poll), timing)
    }

    pub fn start_table(store: &Store, table: VehicleTable, timing: Timing) -> Self {
        let id = table.id.to_string();
        let (health, stop) = (Health::default(), CancellationToken::new());
        let task = serve_link_timed(table, bundle(), store.clone(), health.clone(), stop.clone(), timing);
        Self { store: store.clone(), health, id, stop, task: Some(tokio::spawn(task)) }
    }

    /// Stops it and returns how long that took.
    pub async fn stop(mut self) -> Duration {
        let begun = Instant::now();
        self.stop.cancel();
        self.task.take().unwrap().await.unwrap().unwrap();
        begun.elapsed()
    }

    /// As a crash does: nothing is settled.
    pub fn kill(mut self) {
        self.task.take().unwrap().abort();
    }

    /// The facts of this link, oldest first: kind and data.
    pub async fn facts(&self) -> Vec<(String, Value)> {
        facts(&self.store, &self.id).await
    }

    /// Waits until `wanted` is true of the facts.
    pub async fn until(
        &self,
        what: &str,
        wanted: impl Fn(&[(String, Value)]) -> bool,
    ) -> Vec<(String, Value)> {
        let mut head = self.store.head();
        let deadline = tokio::time::Instant::now() + DEADLINE;
        loop {
            let facts = self.facts().await;
            if wanted(&facts) {
                return facts;
            }
            if tokio::time::timeout_at(deadline, head.changed()).await.is_err() {
                panic!("waited in vain for {what}; facts: {facts:#?}, state: {:?}", self.state().await);
            }
        }
    }

    /// Waits for the n-th fact (from 1) of a kind and returns its data.
    pub async fn nth(&self, kind: &str, n: usize) -> Value {
        let of_kind = |facts: &[(String, Value)]| {
            facts.iter().filter(|(k, _)| k == kind).map(|(_, data)| data.clone()).nth(n - 1)
        };
        let facts = self.until(&format!("{kind} number {n}"), |facts| of_kind(facts).is_some()).await;
        of_kind(&facts).unwrap()
    }

    pub async fn count(&self, kind: &str) -> usize {
        self.facts().await.iter().filter(|(k, _)| k == kind).count()
    }

    pub async fn state(&self) -> Option<DeviceRow> {
        let id = self.id.clone();
        let rows = self.store.read(|r| r.devices(DeviceKind::Link)).await.unwrap();
        rows.into_iter().find(|row| row.id.as_str() == id)
    }

    /// Waits until the link's state has this reason (`None`: ready without one).
    pub async fn until_reason(&self, reason: Option<&str>) -> DeviceRow {
        self.until_state(&format!("reason {reason:?}"), |row| {
            let ready = row.state.state == baygate::event::device::DeviceStatus::Ready;
            row.state.reason.as_deref() == reason && (reason.is_some() || ready)
        })
        .await
    }

    /// Waits until the link's state is as wanted.
    pub async fn until_state(&self, what: &str, wanted: impl Fn(&DeviceRow) -> bool) -> DeviceRow {
        let mut head = self.store.head();
        let deadline = tokio::time::Instant::now() + DEADLINE;
        loop {
            let state = self.state().await;
            if let Some(row) = state.as_ref().filter(|row| wanted(row)) {
                return row.clone();
            }
            if tokio::time::timeout_at(deadline, head.changed()).await.is_err() {
                panic!("waited in vain for {what}; state: {state:?}");
            }
        }
    }

    /// Asks for a scan and waits for its outcome.
    pub async fn scan(&self) -> RequestRow {
        let id = uuid::Uuid::now_v7();
        let request = NewRequest {
            id,
            kind: SCAN,
            target: self.id.clone(),
            scope: "control".into(),
            idempotency_key: None,
            body: serde_json::json!({}),
        };
        self.store.commit(Batch::new().op(Op::Request(RequestOp::Insert(request)))).await.unwrap();
        let mut head = self.store.head();
        let deadline = tokio::time::Instant::now() + DEADLINE;
        loop {
            let row = self.store.read(move |r| r.request(id)).await.unwrap().unwrap();
            if row.state.is_settled() {
                return row;
            }
            tokio::time::timeout_at(deadline, head.changed()).await.expect("scan not settled").unwrap();
        }
    }
}

/// What differs between a scan and its replay: times, and the VIN that a trace does not hold.
pub fn without_times_and_vin(mut report: VehicleReport) -> Value {
    report.vin = None;
    (report.vin_check, report.vin_source) = (VinCheck::Missing, None);
    let mut report = serde_json::to_value(report).unwrap();
    for name in ["visit", "started_at", "duration_ms"] {
        report.as_object_mut().unwrap().remove(name);
    }
    report
}

/// The facts about one link: kind and data.
pub async fn facts(store: &Store, link: &str) -> Vec<(String, Value)> {
    let events = store.read(|r| r.events_after(Offset(0), 10_000)).await.unwrap();
    let subject = format!("link/{link}");
    events
        .iter()
        .filter_map(|logged| {
            let event = &logged.event;
            let data: Value = serde_json::from_str(event.data.get()).unwrap();
            let ours = event.subject == subject || data.get("link").and_then(Value::as_str) == Some(link);
            ours.then(|| (event.kind.to_string(), data))
        })
        .collect()
}
