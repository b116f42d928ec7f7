//! The demo's MQTT broker: the `mqtt5` crate's, on one plain TCP address, in
//! memory, without users, without files. What does not live here: anything a
//! shop would run; a real installation has a real broker (decision 002).

use std::net::SocketAddr;
use std::time::Duration;

use mqtt5::broker::config::StorageConfig;
use mqtt5::broker::{BrokerConfig, MqttBroker};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// The largest packet it takes, in bytes (as `mqtt.max_packet_bytes` is by default).
const MAX_PACKET: usize = 131_072;
/// Clients at once: the gateway, headquarters, and a few curious `mosquitto_sub`.
const MAX_CLIENTS: usize = 64;
/// How long it remembers a client that went away.
const SESSION_EXPIRY: Duration = Duration::from_secs(3600);

/// The broker could not start.
#[derive(Debug, thiserror::Error)]
#[error("the demo's MQTT broker cannot listen on {listen}: {reason}; choose another address or port 0")]
pub struct BrokerError {
    listen: SocketAddr,
    reason: String,
}

/// A running broker. Dropping it stops it.
#[derive(Debug)]
pub struct EmbeddedBroker {
    address: SocketAddr,
    stop: CancellationToken,
    task: Option<JoinHandle<()>>,
}

impl EmbeddedBroker {
    /// Where it listens, with the real port.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Stops it and waits until its port is free.
    pub async fn stop(mut self) {
        self.stop.cancel();
        if let Some(task) = self.task.take() {
            // A panic inside it ends it as well.
            let _ = task.await;
        }
    }
}

impl Drop for EmbeddedBroker {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Starts a broker on `listen`; port 0 picks a free one.
///
/// # Errors
/// [`BrokerError`] when the address cannot be bound.
pub async fn start(listen: SocketAddr) -> Result<EmbeddedBroker, BrokerError> {
    let failed = |reason: String| BrokerError { listen, reason };
    let mut config = BrokerConfig::default()
        .with_bind_address(listen)
        .with_storage(StorageConfig { enable_persistence: false, ..StorageConfig::default() });
    config.max_packet_size = MAX_PACKET;
    config.max_clients = MAX_CLIENTS;
    config.session_expiry_interval = SESSION_EXPIRY;
    config.sys_topics_enabled = false;
    let mut broker = MqttBroker::with_config(config).await.map_err(|error| failed(error.to_string()))?;
    let address = broker.local_addr().ok_or_else(|| failed("no listener".into()))?;
    let (stop, handle) = (CancellationToken::new(), broker.shutdown_handle());
    let stopped = stop.clone();
    let task = tokio::spawn(async move {
        let mut run = std::pin::pin!(broker.run());
        tokio::select! {
            ended = &mut run => report(ended),
            () = stopped.cancelled() => {
                handle.shutdown();
                // Clients that do not leave are cut when the broker is dropped.
                let _ = tokio::time::timeout(Duration::from_secs(2), run).await;
            }
        }
    });
    Ok(EmbeddedBroker { address, stop, task: Some(task) })
}

fn report(ended: mqtt5::error::Result<()>) {
    if let Err(error) = ended {
        tracing::error!(%error, "the demo's broker ended");
    }
}
