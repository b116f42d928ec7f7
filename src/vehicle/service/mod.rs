//! One vehicle link as a supervised task: opens it, attends it, opens it again.
//! What lives here: the outer loop with its retries and the link's
//! `device.state`. `attend` looks at the car, `makers` asks it its makers' own signals,
//! `visits` commits what happened, `requests` answers scans that somebody asked for,
//! `overhear` collects what a bus says unasked, `recordings` writes down what was heard when a warning fires.

mod attend;
mod clearing;
mod listen;
mod makers;
mod overhear;
mod recordings;
mod requests;
mod visits;

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::adapter::{Adapter, Capabilities, SessionTrace};
use super::agenda::Agenda;
use super::battery::Battery;
use super::error::{AdapterError, VehicleError};
use super::polling::{Pace, Polling};
use super::recording::{Form, Recording};
use super::sampling::Sampling;
use super::scan::Budget;
use super::sources::Sources;
use super::telemetry::Window;
use super::visit::{Patience, Presence};
use crate::config::tables::{Poll, VehicleTable};
use crate::config::values::VehicleLink;
use crate::event::device::{DeviceKind, DeviceStatus};
use crate::event::vehicle::Powertrain;
use crate::health::{Health, Trouble};
use crate::ident::Vin;
use crate::link;
use crate::protocols::Bundle;
use crate::store::Store;
use crate::store::devices::DeviceLog;
use overhear::Overhearing;
use visits::OpenVisit;

pub use requests::SCAN;

/// While the link is down, so often is looked whether a visit's patience is over.
const DOWN_TICK: Duration = Duration::from_millis(500);
/// A link that held for so long has its retries begin anew.
const HELD_WELL: Duration = Duration::from_secs(10);

/// All times of a link. The defaults are for a workshop; a demonstration may be quicker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// What ends a visit.
    pub patience: Patience,
    /// What is asked how often.
    pub pace: Pace,
    /// First pause before a link is opened again; doubles …
    pub retry_first: Duration,
    /// … up to this.
    pub retry_most: Duration,
    /// How long a scan may take.
    pub scan: Budget,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            patience: Patience::default(),
            pace: Pace::default(),
            retry_first: Duration::from_secs(1),
            retry_most: Duration::from_secs(30),
            scan: Budget::default(),
        }
    }
}

/// Serves one `[[vehicle]]` until `stop`. Adapter and car may come and go; only a
/// log that takes nothing more ends it earlier.
///
/// # Errors
/// [`VehicleError`]: the supervisor starts it again.
pub async fn serve_link(
    table: VehicleTable,
    bundle: Arc<Bundle>,
    store: Store,
    health: Health,
    stop: CancellationToken,
) -> Result<(), VehicleError> {
    serve_link_timed(table, bundle, store, health, stop, Timing::default()).await
}

/// [`serve_link`] with other times.
///
/// # Errors
/// [`VehicleError`]: the supervisor starts it again.
pub async fn serve_link_timed(
    table: VehicleTable,
    bundle: Arc<Bundle>,
    store: Store,
    health: Health,
    stop: CancellationToken,
    timing: Timing,
) -> Result<(), VehicleError> {
    let part = DeviceKind::Link.subject(&table.id);
    let mut service = Service::new(table, bundle, store, health.clone(), timing);
    let ended = tokio::select! {
        biased;
        () = stop.cancelled() => Ok(()),
        ended = service.run() => ended,
    };
    health.well(&part);
    health.well(&service.sources_part());
    ended
}

/// The task's state.
struct Service {
    table: VehicleTable,
    bundle: Arc<Bundle>,
    store: Store,
    health: Health,
    timing: Timing,
    device: DeviceLog,
    begun: Instant,
    presence: Presence,
    visit: Option<OpenVisit>,
    polling: Polling,
    window: Window,
    window_since: Duration,
    /// The ear beside the link.
    overhearing: Option<Overhearing>,
    /// When the VIN was last read.
    vin_read_at: Duration,
    /// The last question to the bus got no answer.
    bus_silent: bool,
    /// It was found asleep without a question.
    found_asleep: bool,
    engine_running: bool,
    /// The car moved when last asked: a hybrid may drive with its engine off.
    moving: bool,
    /// By the last report.
    powertrain: Powertrain,
    battery: Battery,
    /// A scan was answered where the adapter measured less than a car's voltage.
    scanned_unpowered: bool,
    /// What the car itself last told of its voltage, and when: for links that measure none.
    module_volts: Option<(Duration, f64)>,
    /// The battery is too low for background polling, and that was told.
    battery_low: bool,
    /// What the battery rested at was written down for this visit.
    rest_kept: bool,
    /// Files of the configuration.
    sources: Sources,
    /// Makers' commands for the car at hand, and for which VIN they were chosen.
    agenda: Agenda,
    agenda_for: Option<Option<Vin>>,
    /// What was heard lately.
    recording: Recording,
    /// Warnings of the open visit that were seen.
    warnings_seen: Vec<uuid::Uuid>,
    /// What is known of the live PIDs of the car at hand.
    sampling: Sampling,
    /// Rate found by probing, tried first next time.
    baud: Option<u32>,
    /// What the store remembers of the adapter at hand.
    remembered: Capabilities,
    /// Good looks since the last spoilt reply; `None`: no spoilt reply stands.
    good_since_trouble: Option<u32>,
    /// Telemetry on its way to the disk.
    committing: Option<tokio::task::JoinHandle<()>>,
}

impl Service {
    fn new(table: VehicleTable, bundle: Arc<Bundle>, store: Store, health: Health, timing: Timing) -> Self {
        let device = DeviceLog::new(store.clone(), DeviceKind::Link, table.id.clone());
        let form = match table.link {
            VehicleLink::Elm327(_) => Form::Trace,
            VehicleLink::Can { .. } | VehicleLink::Slcan { .. } => Form::Candump,
        };
        Self {
            table,
            bundle,
            store,
            health,
            timing,
            device,
            begun: Instant::now(),
            presence: Presence::Away,
            visit: None,
            polling: Polling::default(),
            window: Window::default(),
            window_since: Duration::ZERO,
            overhearing: None,
            vin_read_at: Duration::ZERO,
            bus_silent: false,
            found_asleep: false,
            engine_running: false,
            moving: false,
            powertrain: Powertrain::Unknown,
            battery: Battery::default(),
            scanned_unpowered: false,
            module_volts: None,
            battery_low: false,
            rest_kept: false,
            sources: Sources::default(),
            agenda: Agenda::default(),
            agenda_for: None,
            recording: Recording::new(form),
            warnings_seen: Vec::new(),
            sampling: Sampling::default(),
            baud: None,
            remembered: Capabilities::default(),
            good_since_trouble: None,
            committing: None,
        }
    }

    /// Time since the task began.
    fn now(&self) -> Duration {
        self.begun.elapsed()
    }

    async fn run(&mut self) -> Result<(), VehicleError> {
        self.load_sources().await;
        self.recover_visit().await?;
        self.device.set(DeviceStatus::Starting, None, None).await?;
        let mut pause = self.timing.retry_first;
        loop {
            let opened = Instant::now();
            let error = match self.table.poll {
                Poll::ListenOnly => self.listen().await?,
                Poll::Auto | Poll::OnRequest => self.open_and_attend().await?,
            };
            if opened.elapsed() >= HELD_WELL {
                pause = self.timing.retry_first;
            }
            self.link_failed(&error).await?;
            self.wait_for_retry(jittered(pause)).await?;
            pause = (pause * 2).min(self.timing.retry_most);
        }
    }

    async fn open_and_attend(&mut self) -> Result<AdapterError, VehicleError> {
        let trace = matches!(self.table.link, VehicleLink::Elm327(_))
            .then(|| SessionTrace::begin(self.recording.writer(), &self.table.link));
        let opened = Adapter::open(&self.table.link, &self.bundle, self.baud, trace).await;
        let mut adapter = match opened {
            Ok(adapter) => adapter,
            Err(error) => {
                self.forget_clearing(&error).await?;
                return Ok(error);
            }
        };
        self.baud = adapter.found_baud().or(self.baud);
        tracing::info!(link = %self.table.id, adapter = adapter.identity().key(), baud = adapter.found_baud(), "adapter ready");
        self.recall_capabilities(&mut adapter).await?;
        self.well().await?;
        self.begin_overhearing(&mut adapter);
        let error = self.attend(&mut adapter).await?;
        adapter.ended_by(&error);
        // It may have died of a trial: not to be tried again.
        self.remember_capabilities(adapter.remembered_as(&self.table.link), adapter.capabilities()).await?;
        Ok(error)
    }

    /// The link works.
    async fn well(&mut self) -> Result<(), VehicleError> {
        self.good_since_trouble = None;
        self.health.well(&DeviceKind::Link.subject(&self.table.id));
        Ok(self.device.set(DeviceStatus::Ready, None, None).await?)
    }

    /// The link works with a limitation, or not: said in the log and in `/readyz`.
    async fn told(&mut self, error: &AdapterError) -> Result<(), VehicleError> {
        metrics::counter!("baygate_vehicle_link_errors_total", "link" => self.table.id.to_string(), "code" => error.code())
            .increment(1);
        self.health.trouble(Trouble {
            part: DeviceKind::Link.subject(&self.table.id),
            code: error.code().into(),
            text: error.text(),
            blocks_ready: false,
        });
        Ok(self.device.set(error.status(), Some(error.code()), Some(error.to_string())).await?)
    }

    async fn link_failed(&mut self, error: &AdapterError) -> Result<(), VehicleError> {
        self.told(error).await?;
        self.bus_silent = false;
        self.polling = Polling::default();
        self.link_is_down().await?;
        self.refuse_requests(error.code(), &error.text()).await
    }

    /// Waits, while visits may run out of patience. Ends early when the port
    /// comes back or somebody asks for a scan.
    async fn wait_for_retry(&mut self, pause: Duration) -> Result<(), VehicleError> {
        let link = self.table.link.clone();
        let mut head = self.store.head();
        // Somebody may have asked since the requests were last looked at.
        head.mark_changed();
        let retry = async {
            match &link {
                VehicleLink::Elm327(transport) | VehicleLink::Slcan { transport, .. } => {
                    link::wait_for_return(transport, pause).await;
                }
                VehicleLink::Can { interface, .. } => link::can::wait_for_return(interface, pause).await,
            }
        };
        tokio::pin!(retry);
        loop {
            tokio::select! {
                () = &mut retry => return Ok(()),
                () = tokio::time::sleep(DOWN_TICK) => self.link_is_down().await?,
                changed = head.changed() => {
                    if changed.is_err() || self.has_request().await? {
                        return Ok(());
                    }
                }
            }
        }
    }
}

/// Half to one and a half of the pause, so that links that failed together do not retry together.
fn jittered(pause: Duration) -> Duration {
    let share = getrandom::u32().map_or(0.5, |random| f64::from(random) / f64::from(u32::MAX));
    pause.mul_f64(0.5 + share)
}
