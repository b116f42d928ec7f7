//! The maintenance service on a real log: reports told to it, warnings found in it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use baygate::event::NewEvent;
use baygate::event::maintenance::{MaintenanceCleared, MaintenanceWarning};
use baygate::event::vehicle::{DtcState, VehicleReport};
use baygate::health::Health;
use baygate::maintenance::{CURSOR, MaintenanceError, Rules, serve};
use baygate::store::outbox::LoggedEvent;
use baygate::store::{Batch, Offset, Store};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::reports::{dtc, report};

pub fn shipped() -> Arc<Rules> {
    Arc::new(Rules::load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("config/rules")).unwrap())
}

/// A running service.
pub struct Service {
    pub rules: watch::Sender<Arc<Rules>>,
    pub health: Health,
    pub stop: CancellationToken,
    task: JoinHandle<Result<(), MaintenanceError>>,
}

impl Service {
    pub fn start(store: &Store, rules: Arc<Rules>) -> Self {
        let (rules, receiver) = watch::channel(rules);
        let (health, stop) = (Health::default(), CancellationToken::new());
        let task = tokio::spawn(serve(receiver, store.clone(), health.clone(), stop.clone()));
        Self { rules, health, stop, task }
    }

    pub async fn stop(self) {
        self.stop.cancel();
        tokio::time::timeout(Duration::from_secs(5), self.task).await.unwrap().unwrap().unwrap();
    }
}

/// Commits a report; where it lies in the log.
pub async fn tell(store: &Store, report: &VehicleReport) -> Offset {
    tell_event(store, NewEvent::now(format!("visit/{}", report.visit), report).unwrap()).await
}

/// Likewise any event.
pub async fn tell_event(store: &Store, event: NewEvent) -> Offset {
    let told = store.commit(Batch::new().event(event)).await.unwrap();
    let (epoch, sequence) = (told[0].epoch, told[0].sequence);
    store.read(move |r| r.offset_of(epoch, sequence)).await.unwrap().unwrap()
}

/// Waits until the service has dealt with the report at `offset`: it moves the cursor at once, while what
/// it passes may lie for a minute.
pub async fn dealt_with(store: &Store, offset: Offset) {
    let mut head = store.head();
    let all = async {
        while store.read(|r| r.cursor(CURSOR)).await.unwrap().is_none_or(|at| at < offset) {
            head.changed().await.unwrap();
        }
    };
    tokio::time::timeout(Duration::from_secs(40), all).await.expect("the service does not get on");
}

pub async fn log(store: &Store, kind: &str) -> Vec<LoggedEvent> {
    let mut events = store.read(|r| r.events_after(Offset(0), 10_000)).await.unwrap();
    events.retain(|logged| &*logged.event.kind == kind);
    events
}

pub async fn warnings(store: &Store, rule: &str) -> Vec<MaintenanceWarning> {
    let events = log(store, "maintenance.warning").await;
    events
        .iter()
        .map(|e| e.event.data_as().unwrap())
        .filter(|w: &MaintenanceWarning| w.rule == rule)
        .collect()
}

pub async fn cleared(store: &Store, rule: &str) -> Vec<MaintenanceCleared> {
    let events = log(store, "maintenance.cleared").await;
    events
        .iter()
        .map(|e| e.event.data_as().unwrap())
        .filter(|w: &MaintenanceCleared| w.rule == rule)
        .collect()
}

pub async fn standing(store: &Store, car: &'static str) -> Vec<String> {
    store.read(|r| r.standing_warnings(car)).await.unwrap().into_iter().map(|w| w.rule).collect()
}

pub fn with_code(code: &str) -> VehicleReport {
    let mut car = report();
    car.ecus[0].dtcs = vec![dtc(code, &[DtcState::Confirmed])];
    car
}
