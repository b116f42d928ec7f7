//! The way to headquarters: drains the log over MQTT 5 or 3.1.1, plain or TLS,
//! and takes headquarters' commands in. What lives here: the session, its
//! priorities and windows, topics, command intake. What does not: SQL (the
//! store), what an event means (the domains), device bytes.
//!
//! ```text
//!   store ──pages──► session (pure: order, windows, what is delivered) ──► pipe ──► broker ──► HQ
//!     ▲                 ▲                                                   │
//!     └── delivered ────┴──────────── PUBACK, HQ's ack ◄────────────────────┤
//!     └── commands (committed, then acknowledged) ◄── desk ◄────────────────┘
//! ```
//! The log is the only truth: on any error everything in flight is forgotten and
//! read again from the delivered position. Which client library and why:
//! `docs/decisions/001-mqtt-client.md`.

pub mod backoff;
mod chatter;
pub mod command;
mod desired;
mod desk;
mod drain;
mod driver;
pub mod fault;
pub mod flow;
mod greeting;
mod lane;
pub mod notes;
mod pipe;
pub mod session;
mod tls;
pub mod topics;
mod voice;
pub mod word;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use self::fault::Fault;
use crate::card::counter::Shop;
use crate::clock::{self, TimeQuality};
use crate::config::credentials::Credentials;
use crate::config::tables::MqttTable;
use crate::event::Source;
use crate::health::Health;
use crate::store::{Store, StoreError};

/// What the retained `state` says of this program.
#[derive(Debug, Clone, Default)]
pub struct About {
    /// Program version.
    pub version: String,
    /// SHA-256 of the merged configuration, hex. A reload changes it without a restart of the uplink.
    pub config_version: Option<watch::Receiver<String>>,
    /// Version of the protocol bundle, likewise.
    pub protocols_version: Option<watch::Receiver<String>>,
}

impl About {
    /// Whether it changed since it was last told.
    fn changed(&self) -> bool {
        let versions = [&self.config_version, &self.protocols_version];
        versions.into_iter().flatten().any(|version| version.has_changed().unwrap_or(false))
    }
}

/// Times the uplink lives by. The defaults are for the field; tests are more impatient.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// MQTT keep-alive, whole seconds. A dead line is noticed after one and a half.
    pub keep_alive: Duration,
    /// Until CONNACK.
    pub connect_timeout: Duration,
    /// First wait before a reconnect; doubles.
    pub backoff_first: Duration,
    /// Longest wait before a reconnect.
    pub backoff_most: Duration,
    /// A connection that proved itself and lived this long was healthy: the next wait is short again.
    pub healthy_after: Duration,
    /// Delivered positions are committed this often, at most.
    pub commit_every: Duration,
    /// The retained `state` follows `last` this often, at most.
    pub state_every: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            keep_alive: Duration::from_secs(30),
            connect_timeout: Duration::from_secs(15),
            backoff_first: Duration::from_secs(1),
            backoff_most: Duration::from_secs(60),
            healthy_after: Duration::from_secs(10),
            commit_every: Duration::from_millis(50),
            state_every: Duration::from_secs(30),
        }
    }
}

/// What the uplink needs to know.
#[derive(Debug, Clone)]
pub struct Setup {
    /// `[mqtt]`.
    pub table: MqttTable,
    /// Who speaks.
    pub source: Source,
    /// Where `mqtt-password` and `mqtt-client-key` are.
    pub credentials: Credentials,
    /// For the retained `state`.
    pub about: About,
    /// Times.
    pub pace: Pace,
    /// How far the wall clock is trusted when a command's expiry is judged.
    pub quality: fn() -> TimeQuality,
    /// The counter's house, for headquarters' orders about cards; `None`: there are none here.
    pub shop: Option<watch::Receiver<Arc<Shop>>>,
}

impl Setup {
    /// With the field's times and the kernel's word on the clock.
    #[must_use]
    pub fn new(table: MqttTable, source: Source, credentials: Credentials) -> Self {
        let about = About { version: env!("CARGO_PKG_VERSION").into(), ..About::default() };
        Self { table, source, credentials, about, pace: Pace::default(), quality: clock::quality, shop: None }
    }

    /// Everything for one connection. Files and credentials are read anew each
    /// time, so that what an operator corrects is taken without a restart.
    fn dial(&self, topics: &topics::Topics, connection: Uuid) -> Result<pipe::Dial, Fault> {
        let table = &self.table;
        let password = match table.username {
            Some(_) if self.credentials.has("mqtt-password") => {
                Some(Bytes::copy_from_slice(self.credentials.require("mqtt-password")?.expose()))
            }
            _ => None,
        };
        Ok(pipe::Dial {
            version: table.version,
            url: table.url.clone(),
            client_id: table.client_id.clone(),
            username: table.username.clone(),
            password,
            tls: if table.url.tls { Some(tls::client(table, &self.credentials)?) } else { None },
            keep_alive: self.pace.keep_alive,
            connect_timeout: self.pace.connect_timeout,
            max_in_flight: table.max_in_flight.max(1),
            max_packet_bytes: table.max_packet_bytes,
            will_topic: topics.state(),
            will: word::offline(connection),
        })
    }
}

/// What ends the uplink. A broker never does.
#[derive(Debug, thiserror::Error)]
pub enum UplinkError {
    /// The log cannot be read.
    #[error("the uplink cannot read the log: {0}")]
    Store(#[from] StoreError),
}

/// Runs the uplink until `stop`. Broker and headquarters may be away for any
/// time; what is wrong stands in `health` as part `uplink`.
///
/// # Errors
/// [`UplinkError::Store`] when the log has been closed.
pub async fn serve(
    setup: Setup,
    store: Store,
    health: Health,
    stop: CancellationToken,
) -> Result<(), UplinkError> {
    driver::Driver::new(setup, store, health.clone(), stop).run().await?;
    health.rest("uplink");
    Ok(())
}
