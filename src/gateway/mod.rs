//! The gateway: builds every service from the configuration, starts, reloads,
//! supervises and stops them. What does not live here: device knowledge.
//!
//! ```text
//!  Config ─► Assets (rules, faces, protocol data) ─► Gateway::build: store opened, API bound
//!         ─► Gateway::run: gateway.started ─► one supervised task a service ─► READY=1
//!            SIGHUP, config.put ─► new plan − old plan ─► stop / start only what changed
//!            SIGTERM ─► gateway.stopping ─► uplink last ─► store closed
//! ```

pub mod assets;
pub mod clock_watch;
mod member_keys;
pub mod notify;
pub mod plan;
mod pushed;
mod reload;
mod restart_due;
mod services;
pub mod supervise;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::clock;
use crate::config::pushed::Pushed;
use crate::config::{Config, ConfigError, HistoryCounts};
use crate::event::gateway::{GatewayStarted, GatewayStopping};
use crate::event::{Class, EventData, NewEvent};
use crate::health::Health;
use crate::ident::Seq;
use crate::store::{Batch, ClassLimit, HistoryLimits, Opened, Store, StoreError, StoreOptions};

use assets::Assets;
use plan::{Service, plan};
use pushed::{Judged, Outcome};
use reload::{Now, take_config};
use restart_due::RestartDue;
use supervise::Supervised;

/// How often hanging reader threads are counted (architecture invariant 7): between two sales at
/// a busy till there is a second.
const LOOK_AFTER_THREADS: Duration = Duration::from_secs(1);
/// How long the uplink may take over the last event of an orderly stop.
const LAST_WORDS: Duration = Duration::from_millis(800);

/// An orderly stop, from its beginning, in all under the contract's 5 s: the last event,
const TELL_WITHIN: Duration = Duration::from_millis(1000);
/// the devices (those that take longer go on beside the uplink),
const DEVICES_WITHIN: Duration = Duration::from_millis(2000);
/// the uplink,
const UPLINK_WITHIN: Duration = Duration::from_millis(3800);
/// and the store.
const STORE_WITHIN: Duration = Duration::from_millis(4300);

/// The gateway could not start.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// Rules, templates or protocol data are invalid.
    #[error("{}", .0.join("\n"))]
    Assets(Vec<String>),
    /// The store could not be opened or written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The local HTTP could not be opened.
    #[error(transparent)]
    Api(#[from] crate::api::ApiError),
    /// Too many threads hang in reader drivers: only a new process is rid of them.
    #[error(
        "reader threads hang in their driver; systemd starts the daemon again, by hand use `baygate run`"
    )]
    RestartWanted,
    /// An event of our own could not be written as JSON: a bug.
    #[error("an event could not be written as JSON: {0}; please report this")]
    Event(#[from] serde_json::Error),
}

/// A built gateway: store open, nothing running yet.
pub struct Gateway {
    config: Config,
    opened: Opened,
    services: services::Services,
    bound: Option<crate::api::BoundApi>,
    api_addr: SocketAddr,
}

impl Gateway {
    /// Loads rules, templates and protocol data, opens the store, binds the local HTTP.
    ///
    /// # Errors
    /// [`GatewayError`] saying what to do.
    pub async fn build(config: Config) -> Result<Self, GatewayError> {
        let assets = Assets::load(&config).map_err(GatewayError::Assets)?.serving();
        let health = Health::default();
        clock::trust(&config.gateway.time_sync_file);
        let options = store_options(&config);
        // Opening may salvage a damaged file, which takes its time: not on an async thread.
        let open = move || Store::open_telling(&options, &mut notify::salvaging);
        let (store, opened) = tokio::task::spawn_blocking(open).await.map_err(|_| StoreError::Closed)??;
        store.set_history(history_limits(&config)).await?;
        let services = services::Services::new(&config, store, health, assets);
        let bound = match services.bind_api(&config.api).await {
            Ok(bound) => bound,
            Err(error) => {
                // Nothing ran: the next start shall not take it for a crash.
                services.store.close().await;
                return Err(error.into());
            }
        };
        let api_addr = bound.local_addr();
        Ok(Self { config, opened, services, bound: Some(bound), api_addr })
    }

    /// Where the local HTTP listens (the real port, also when 0 was configured).
    #[must_use]
    pub fn api_addr(&self) -> SocketAddr {
        self.api_addr
    }

    /// What is not well, for those who watch (the demo).
    #[must_use]
    pub fn health(&self) -> Health {
        self.services.health()
    }

    /// The store, for those who watch the log (the demo).
    #[must_use]
    pub fn store(&self) -> Store {
        self.services.store.clone()
    }

    /// Runs until `stop`. `reload` gives the configuration anew whenever `reloads` asks, or
    /// headquarters, with its new rules in it.
    ///
    /// # Errors
    /// [`GatewayError`] when the start or the stop could not be committed.
    pub async fn run<F>(
        self,
        reload: F,
        mut reloads: mpsc::Receiver<()>,
        stop: CancellationToken,
    ) -> Result<(), GatewayError>
    where
        F: Fn(Option<&Pushed>) -> Result<Config, Vec<ConfigError>> + Send + 'static,
    {
        let Self { config, opened, services, mut bound, api_addr } = self;
        let store = services.store.clone();
        let first = announce(&store, &config, &opened).await?;
        // Services end before the background of the gateway and before the store.
        let background = CancellationToken::new();
        let inner = CancellationToken::new();
        services.start_background(first, &background).await;
        let (asked, mut puts) = mpsc::channel(1);
        tokio::spawn(pushed::listen(store.clone(), asked, background.clone()));
        let plan = plan(&config);
        let mut running = BTreeMap::new();
        for (name, service) in &plan {
            running
                .insert(name.clone(), services.start(name, service, &inner, bound_for(service, &mut bound)));
        }
        notify::tell(&[NotifyState::Ready, NotifyState::Status("running")]);
        tracing::info!(store = %config.gateway.source, api = %api_addr, epoch = %opened.epoch, "baygate is running");

        let mut now = Now { config, plan, running };
        let mut look = tokio::time::interval(LOOK_AFTER_THREADS);
        let (mut restart, mut due) = (false, RestartDue::default());
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                _ = look.tick() => if due.now(crate::card::pcsc::restart_wanted(), store.hands().have_any(), Instant::now()) {
                    tracing::error!("too many reader threads hang in their driver; the daemon restarts itself");
                    restart = true;
                    break;
                },
                asked = reloads.recv() => match asked {
                    Some(()) => {
                        notify::tell(&[NotifyState::Reloading]);
                        let taken = take_config(reload(None), None, &mut now, &services, &inner);
                        // A reload that waits for somebody who hangs does not hold up the end.
                        tokio::select! { _ = taken => {}, () = stop.cancelled() => break }
                        notify::tell(&[NotifyState::Ready]);
                    }
                    // Nobody can ask any more: wait for the end only.
                    None => { stop.cancelled().await; break }
                },
                Some(request) = puts.recv() => {
                    let outcome = match pushed::judge(&request.body, &now.config.gateway.data_dir) {
                        Judged::Over(outcome) => outcome,
                        Judged::Take(new) => {
                            let taken = take_config(reload(Some(&new)), Some(&new), &mut now, &services, &inner);
                            tokio::select! {
                                taken = taken => Outcome::of(&new, &taken),
                                () = stop.cancelled() => break,
                            }
                        }
                    };
                    outcome.commit(&request, &store).await;
                }
            }
        }

        notify::tell(&[NotifyState::Stopping]);
        tracing::info!("stopping");
        let reason = if restart { "reader-threads-hang" } else { "signal" };
        wind_up(&store, &now.config, now.running, reason).await;
        background.cancel();
        if restart { Err(GatewayError::RestartWanted) } else { Ok(()) }
    }
}

/// Devices first, the uplink last, so that their last words may still leave; then the
/// store. Whoever hangs, the disk included, the others end, and all is over in time.
async fn wind_up(store: &Store, config: &Config, mut running: BTreeMap<String, Supervised>, reason: &str) {
    let begun = Instant::now();
    let told = timeout(TELL_WITHIN, commit(store, config, &GatewayStopping { reason: reason.into() })).await;
    let last = match told {
        Ok(Ok(last)) => Some(last),
        Ok(Err(error)) => {
            tracing::error!(%error, "gateway.stopping could not be committed");
            None
        }
        Err(_) => {
            tracing::error!("gateway.stopping could not be committed: the database does not answer");
            None
        }
    };
    let uplink = running.remove("uplink");
    let mut endings: JoinSet<()> = running.into_values().map(Supervised::stop).collect();
    let _ = timeout_at(begun + DEVICES_WITHIN, all(&mut endings)).await;
    if let Some(uplink) = uplink {
        let leave = async {
            if let Some(last) = last {
                hear_out(store, last).await;
            }
            uplink.stop().await;
        };
        let _ = timeout_at(begun + UPLINK_WITHIN, leave).await;
    }
    // Those that were slower than the uplink had its time as well.
    let _ = timeout_at(begun + UPLINK_WITHIN, all(&mut endings)).await;
    if timeout_at(begun + STORE_WITHIN, store.close()).await.is_err() {
        tracing::error!("the database did not close in time; the next start goes on from what was committed");
    }
}

async fn all(endings: &mut JoinSet<()>) {
    while endings.join_next().await.is_some() {}
}

/// The already bound API goes to its first start only.
fn bound_for(service: &Service, bound: &mut Option<crate::api::BoundApi>) -> Option<crate::api::BoundApi> {
    matches!(service, Service::Api(..)).then(|| bound.take()).flatten()
}

fn store_options(config: &Config) -> StoreOptions {
    let millis = |period: Duration| i64::try_from(period.as_millis()).unwrap_or(i64::MAX);
    StoreOptions {
        data_dir: config.gateway.data_dir.clone(),
        source: config.gateway.source.clone(),
        machine_id: std::fs::read_to_string("/etc/machine-id").ok().map(|id| id.trim().to_owned()),
        max_bytes: config.buffer.max_bytes,
        limits: config
            .buffer
            .classes
            .iter()
            .map(|(class, limit)| {
                let keep_delivered_ms = millis(limit.keep_delivered);
                (*class, ClassLimit { keep_bytes: limit.keep_bytes, keep_delivered_ms })
            })
            .collect(),
    }
}

fn history_limits(config: &Config) -> HistoryLimits {
    let HistoryCounts { visits, warnings, print_jobs, requests, commands } = config.buffer.history;
    HistoryLimits { visits, warnings, print_jobs, requests, commands }
}

/// Commits `gateway.started`; gives its sequence, the first of this run.
async fn announce(store: &Store, config: &Config, opened: &Opened) -> Result<Seq, GatewayError> {
    let started = GatewayStarted {
        version: env!("CARGO_PKG_VERSION").into(),
        // Also one that an earlier start began and was killed before it could say so.
        new_epoch: opened.untold.map(|(reason, _)| reason),
        previous_epoch: opened.untold.and_then(|(_, previous)| previous),
        clean_shutdown: opened.clean_shutdown,
    };
    let event = NewEvent::now(format!("gateway/{}", config.gateway.source.gateway), &started)?;
    let committed = store.commit(Batch::new().event(event)).await?;
    Ok(committed.first().map_or(Seq(1), |event| event.sequence))
}

/// Commits an event of the gateway about itself; gives its class sequence.
async fn commit<D: EventData>(store: &Store, config: &Config, data: &D) -> Result<Seq, GatewayError> {
    let event = NewEvent::now(format!("gateway/{}", config.gateway.source.gateway), data)?;
    let committed = store.commit(Batch::new().event(event)).await?;
    Ok(committed.first().map_or(Seq(0), |event| event.class_sequence))
}

/// Gives the uplink a moment to deliver `gateway.stopping`. What does not leave now leaves at the next start.
async fn hear_out(store: &Store, last: Seq) {
    let mut head = store.head();
    let epoch = head.borrow().epoch;
    let delivered = async {
        loop {
            let reached = store
                .read(move |reader| {
                    let cursor = reader.delivered(Class::Gateway)?;
                    Ok(reader.epoch_no(epoch)? == Some(cursor.epoch_no) && cursor.class_sequence >= last)
                })
                .await;
            if reached.unwrap_or(true) || head.changed().await.is_err() {
                return;
            }
        }
    };
    // In vain when the line is down, which is no reason to wait any longer.
    let _ = timeout(LAST_WORDS, delivered).await;
}
