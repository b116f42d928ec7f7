//! A new configuration under way: refused, or taken, and only what changed is stopped and started.

use std::collections::BTreeMap;

use super::assets::Assets;
use super::plan::{Plan, difference, frozen_changes, plan};
use super::services::Services;
use super::supervise::Supervised;
use super::{all, commit, history_limits, store_options};
use crate::clock;
use crate::config::pushed::Pushed;
use crate::config::{Config, ConfigError};
use crate::event::device::DeviceKind;
use crate::event::gateway::GatewayConfig;
use crate::ident::DeviceId;
use crate::store::devices::DeviceOp;
use crate::store::{Batch, Op, Store, StoreOptions};
use tokio_util::sync::CancellationToken;

/// A configuration that was not taken: the running one goes on.
#[derive(Debug)]
pub(super) enum NotTaken {
    /// What is wrong with it.
    Invalid(Vec<String>),
    /// Headquarters' part of it could not be kept.
    NotKept(String),
}

impl NotTaken {
    pub(super) fn told(&self) -> String {
        match self {
            Self::Invalid(errors) => errors.join("\n"),
            Self::NotKept(why) => why.clone(),
        }
    }
}

/// What of the gateway a configuration changes.
pub(super) struct Now {
    pub(super) config: Config,
    pub(super) plan: Plan,
    pub(super) running: BTreeMap<String, Supervised>,
}

/// One reload: refuse and go on, or stop and start only what changed. `pushed` is the new part of
/// headquarters in `loaded`, kept before anything of it counts.
pub(super) async fn take_config(
    loaded: Result<Config, Vec<ConfigError>>,
    pushed: Option<&Pushed>,
    now: &mut Now,
    services: &Services,
    stop: &CancellationToken,
) -> Result<(), NotTaken> {
    let accepted = match accepted(loaded, &now.config) {
        Ok(accepted) => keep(pushed, &now.config).await.map(|()| accepted),
        Err(errors) => Err(NotTaken::Invalid(errors)),
    };
    let (outcome, taken) = match accepted {
        Err(why) => {
            let error = why.told();
            for error in error.lines() {
                tracing::error!(%error, "configuration refused; the running one goes on");
            }
            let outcome = GatewayConfig {
                outcome: "refused".into(),
                version: None,
                error: Some(error),
                changed: vec![],
            };
            (outcome, Err(why))
        }
        Ok((config, assets)) => (apply(config, assets, now, services, stop).await, Ok(())),
    };
    if let Err(error) = commit(&services.store, &now.config, &outcome).await {
        tracing::error!(%error, "gateway.config could not be committed");
    }
    taken
}

fn accepted(
    loaded: Result<Config, Vec<ConfigError>>,
    current: &Config,
) -> Result<(Config, Assets), Vec<String>> {
    let config = loaded.map_err(|errors| errors.iter().map(ToString::to_string).collect::<Vec<_>>())?;
    let frozen = frozen_changes(current, &config);
    if !frozen.is_empty() {
        return Err(vec![format!("{} cannot change while the daemon runs; restart it", frozen.join(", "))]);
    }
    Assets::load(&config).map(|assets| (config, assets.serving()))
}

async fn keep(pushed: Option<&Pushed>, current: &Config) -> Result<(), NotTaken> {
    let Some(pushed) = pushed.cloned() else { return Ok(()) };
    let data_dir = current.gateway.data_dir.clone();
    // A disk that hangs holds up this file and nobody else.
    let written = tokio::task::spawn_blocking(move || pushed.write(&data_dir)).await;
    let written = written.unwrap_or_else(|error| Err(std::io::Error::other(error)));
    let path = Pushed::path(&current.gateway.data_dir);
    written.map_err(|error| NotTaken::NotKept(format!("{}: {error}", path.display())))
}

async fn apply(
    config: Config,
    assets: Assets,
    now: &mut Now,
    services: &Services,
    stop: &CancellationToken,
) -> GatewayConfig {
    services.adopt(&config, assets);
    clock::trust(&config.gateway.time_sync_file);
    let buffer_changed = now.config.buffer != config.buffer;
    if buffer_changed {
        let StoreOptions { max_bytes, limits, .. } = store_options(&config);
        let taken = async {
            services.store.set_limits(max_bytes, limits).await?;
            services.store.set_history(history_limits(&config)).await
        };
        if let Err(error) = taken.await {
            tracing::error!(%error, "the new [buffer] was not taken");
        }
    }
    let next = plan(&config);
    let changes = difference(&now.plan, &next);
    // Together: one that hangs costs its own time, not that of each after it.
    let ending = changes.stop.iter().filter_map(|name| now.running.remove(name));
    all(&mut ending.map(Supervised::stop).collect()).await;
    for name in changes.stop.iter().filter(|name| !next.contains_key(*name)) {
        forget(&services.store, name).await;
    }
    for name in &changes.start {
        if let Some(service) = next.get(name) {
            now.running.insert(name.clone(), services.start(name, service, stop, None));
        }
    }
    let mut changed = changes.stop;
    changed.extend(changes.start);
    changed.extend(buffer_changed.then(|| "buffer".to_owned()));
    changed.extend((now.config.purse != config.purse).then(|| "purse".to_owned()));
    changed.sort();
    changed.dedup();
    tracing::info!(?changed, version = %config.version, "configuration applied");
    let version = Some(config.version.clone());
    now.plan = next;
    now.config = config;
    GatewayConfig { outcome: "applied".into(), version, error: None, changed }
}

/// A device that left the configuration leaves the list of devices too.
async fn forget(store: &Store, name: &str) {
    let device = name.split_once('/').and_then(|(kind, id)| {
        let kind = match kind {
            "reader" => DeviceKind::Reader,
            "printer" => DeviceKind::Printer,
            "link" => DeviceKind::Link,
            _ => return None,
        };
        Some((kind, id.parse::<DeviceId>().ok()?))
    });
    if let Some((kind, id)) = device
        && let Err(error) = store.commit(Batch::new().op(Op::Device(DeviceOp::Forget { kind, id }))).await
    {
        tracing::warn!(%error, "a removed device could not be forgotten");
    }
}
