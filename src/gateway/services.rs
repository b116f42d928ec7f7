//! How each service of the plan is made: what it is handed, and its `serve`.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use jiff::tz::TimeZone;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::assets::Assets;
use super::clock_watch::ClockWatch;
use super::member_keys::{MemberKeys, Terminal, zone};
use super::notify;
use super::plan::Service;
use super::supervise::{ServiceFuture, Supervised};
use crate::api::{self, ApiError, BoundApi, Context, Directory, FaceCheck, Limits};
use crate::card::counter::Shop;
use crate::config::Config;
use crate::config::credentials::Credentials;
use crate::config::tables::{ApiTable, MqttTable};
use crate::config::values::Locale;
use crate::health::Health;
use crate::ident::Seq;
use crate::maintenance::Rules;
use crate::store::Store;
use crate::{card, maintenance, printer, uplink, vehicle};

/// How often samples of histograms are summed up.
const METRICS_EVERY: Duration = Duration::from_secs(30);

/// What services are made from, and what they share.
pub struct Services {
    pub(super) store: Store,
    health: Health,
    credentials: Credentials,
    source: crate::event::Source,
    data_dir: PathBuf,
    config_version: watch::Sender<String>,
    protocols_version: watch::Sender<String>,
    assets: watch::Sender<Assets>,
    timezone: watch::Sender<TimeZone>,
    shop: watch::Sender<Arc<Shop>>,
    accepted_stores: watch::Sender<Vec<String>>,
    purse: watch::Sender<Terminal>,
    rules: watch::Sender<Arc<Rules>>,
    directory: watch::Sender<Arc<Directory>>,
}

impl Services {
    /// For a configuration and an open store.
    #[must_use]
    pub fn new(config: &Config, store: Store, health: Health, assets: Assets) -> Self {
        Self {
            store,
            health,
            credentials: Credentials::new(config.gateway.credentials_dir.clone()),
            source: config.gateway.source.clone(),
            data_dir: config.gateway.data_dir.clone(),
            config_version: watch::Sender::new(config.version.clone()),
            protocols_version: watch::Sender::new(assets.bundle.version().to_owned()),
            rules: watch::Sender::new(Arc::clone(&assets.rules)),
            purse: watch::Sender::new(Terminal::of(config, &assets.bundle)),
            assets: watch::Sender::new(assets),
            timezone: watch::Sender::new(zone(config)),
            shop: watch::Sender::new(Arc::new(Shop::of(config))),
            accepted_stores: watch::Sender::new(config.purse.accept_stores.clone()),
            directory: watch::Sender::new(Arc::new(Directory::of(config))),
        }
    }

    /// The board that every room writes.
    #[must_use]
    pub fn health(&self) -> Health {
        self.health.clone()
    }

    /// Takes a new configuration's data; services started from now on use it, the rules at once.
    pub fn adopt(&self, config: &Config, assets: Assets) {
        self.config_version.send_replace(config.version.clone());
        self.protocols_version.send_replace(assets.bundle.version().to_owned());
        self.rules.send_replace(Arc::clone(&assets.rules));
        self.purse.send_modify(|terminal| terminal.adopt(config, &assets.bundle));
        self.assets.send_replace(assets);
        self.timezone.send_replace(zone(config));
        self.shop.send_replace(Arc::new(Shop::of(config)));
        self.accepted_stores.send_replace(config.purse.accept_stores.clone());
        self.directory.send_replace(Arc::new(Directory::of(config)));
    }

    /// What runs as long as the gateway does, whatever the plan.
    pub async fn start_background(&self, first: Seq, stop: &CancellationToken) {
        let subject = format!("gateway/{}", self.source.gateway);
        match ClockWatch::begin(self.store.clone(), subject, first).await {
            Ok(watch) => drop(tokio::spawn(watch.run(stop.clone()))),
            Err(error) => tracing::error!(%error, "nobody watches the clock until the next start"),
        }
        tokio::spawn(keep_metrics_small(stop.clone()));
        tokio::spawn(notify::feed_watchdog(self.health.clone(), stop.clone()));
        self.store.start_background(self.health.clone(), stop.clone());
    }

    fn member_keys(&self) -> MemberKeys {
        let (credentials, store) = (self.credentials.clone(), self.source.store.clone());
        let (accepted_stores, purse) = (self.accepted_stores.subscribe(), self.purse.borrow().lent());
        MemberKeys { credentials, store, accepted_stores, timezone: self.timezone.subscribe(), purse }
    }

    /// Starts one service under supervision.
    pub fn start(
        &self,
        name: &str,
        service: &Service,
        stop: &CancellationToken,
        bound: Option<BoundApi>,
    ) -> Supervised {
        let (store, health, assets) = (self.store.clone(), self.health.clone(), self.assets.subscribe());
        let members = self.member_keys();
        let shop = self.shop.subscribe();
        let make: Box<dyn Fn(CancellationToken) -> ServiceFuture + Send> = match service.clone() {
            Service::Reader(table, till) => Box::new(move |stop| {
                let members = members.load(&health, &assets.borrow());
                let (store, health, shop) = (store.clone(), health.clone(), shop.clone());
                let serve =
                    card::serve_reader(table.clone(), till.clone(), members, shop, store, health, stop);
                Box::pin(async move { Ok(serve.await?) })
            }),
            Service::Printer(table) => Box::new(move |stop| {
                let faces = Arc::clone(&assets.borrow().faces);
                let serve = printer::serve_printer(table.clone(), faces, store.clone(), health.clone(), stop);
                Box::pin(async move { Ok(serve.await?) })
            }),
            Service::Link(table) => Box::new(move |stop| {
                let bundle = Arc::clone(&assets.borrow().bundle);
                let serve = vehicle::serve_link(table.clone(), bundle, store.clone(), health.clone(), stop);
                Box::pin(async move { Ok(serve.await?) })
            }),
            Service::Uplink(table) => {
                let setup = self.uplink_setup(table);
                Box::new(move |stop| {
                    let serve = uplink::serve(setup.clone(), store.clone(), health.clone(), stop);
                    Box::pin(async move { Ok(serve.await?) })
                })
            }
            Service::Maintenance => {
                let rules = self.rules.subscribe();
                Box::new(move |stop| {
                    let serve = maintenance::serve(rules.clone(), store.clone(), health.clone(), stop);
                    Box::pin(async move { Ok(serve.await?) })
                })
            }
            Service::TillFaces(tills) => {
                let timezone = self.timezone.subscribe();
                Box::new(move |stop| {
                    let (faces, timezone) = (Arc::clone(&assets.borrow().faces), timezone.clone());
                    let (store, health) = (store.clone(), health.clone());
                    let serve =
                        printer::serve_printing_tills(tills.clone(), faces, timezone, store, health, stop);
                    Box::pin(async move { Ok(serve.await?) })
                })
            }
            Service::Api(table, locale) => self.make_api(table, locale, bound),
        };
        Supervised::spawn(name.to_owned(), stop, self.health.clone(), make)
    }

    fn uplink_setup(&self, table: MqttTable) -> uplink::Setup {
        let mut setup = uplink::Setup::new(table, self.source.clone(), self.credentials.clone());
        setup.about.config_version = Some(self.config_version.subscribe());
        setup.about.protocols_version = Some(self.protocols_version.subscribe());
        setup.shop = Some(self.shop.subscribe());
        setup
    }

    /// Opens the local HTTP's sockets, so that a port in use is an error at the start.
    ///
    /// # Errors
    /// [`ApiError`].
    pub async fn bind_api(&self, table: &ApiTable) -> Result<BoundApi, ApiError> {
        api::bind(table, &self.data_dir, &self.credentials).await
    }

    /// The first run takes the sockets that were opened at the start, a later one opens its own.
    fn make_api(
        &self,
        table: ApiTable,
        locale: Locale,
        bound: Option<BoundApi>,
    ) -> Box<dyn Fn(CancellationToken) -> ServiceFuture + Send> {
        let bound = Mutex::new(bound);
        let context = self.api_context(locale);
        let (data_dir, credentials) = (self.data_dir.clone(), self.credentials.clone());
        Box::new(move |stop| {
            let first = bound.lock().unwrap_or_else(PoisonError::into_inner).take();
            let (table, context) = (table.clone(), context.clone());
            let (data_dir, credentials) = (data_dir.clone(), credentials.clone());
            Box::pin(async move {
                let bound = match first {
                    Some(bound) => bound,
                    None => api::bind(&table, &data_dir, &credentials).await?,
                };
                Ok(api::serve(bound, context, stop).await?)
            })
        })
    }

    fn api_context(&self, locale: Locale) -> Context {
        let assets = self.assets.subscribe();
        let face_check: FaceCheck = Arc::new(move |template, fields| {
            let faces = Arc::clone(&assets.borrow().faces);
            faces.check(template, fields).map_err(|error| error.text())
        });
        Context {
            store: self.store.clone(),
            source: self.source.clone(),
            locale,
            health: self.health.clone(),
            directory: self.directory.subscribe(),
            shop: self.shop.subscribe(),
            metrics: metrics_handle(),
            face_check,
            limits: Limits::default(),
        }
    }
}

/// Histograms keep every sample until somebody looks; where nobody scrapes, that is for ever.
async fn keep_metrics_small(stop: CancellationToken) {
    let mut every = tokio::time::interval(METRICS_EVERY);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = every.tick() => metrics_handle().run_upkeep(),
        }
    }
}

/// The process has one recorder, whatever the number of gateways in it.
fn metrics_handle() -> PrometheusHandle {
    static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();
    HANDLE
        .get_or_init(|| {
            let recorder = PrometheusBuilder::new().build_recorder();
            let handle = recorder.handle();
            if metrics::set_global_recorder(recorder).is_err() {
                tracing::warn!("metrics are recorded elsewhere; /metrics stays empty");
            }
            handle
        })
        .clone()
}
