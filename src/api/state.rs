//! What the handlers share: what the gateway hands in, the limits, and the
//! short-lived state that is not worth a row (pairings, tickets, stream slots).

use std::sync::Arc;
use std::time::Duration;

use metrics_exporter_prometheus::PrometheusHandle;
use serde_json::Value;
use tokio::sync::{Mutex, Semaphore, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::hosts::Visitors;
use super::leases::Leases;
use super::lockout::Lockout;
use super::pairing::Pairings;
use super::refusals::Refusals;
use super::sessions::{SessionLife, Sessions};
use super::tickets::Tickets;
use super::tls::Authority;
use crate::card::counter::Shop;
use crate::config::Config;
use crate::config::tables::{PrinterKind, ReaderKind, ReaderRole};
use crate::config::values::Locale;
use crate::event::{Source, Text};
use crate::health::Health;
use crate::ident::DeviceId;
use crate::store::Store;

/// Checks the fields of a card face against its template: file name and fields
/// in, what is wrong out. Handed in by the gateway; called off the async threads.
pub type FaceCheck = Arc<dyn Fn(&str, &Value) -> Result<(), Text> + Send + Sync>;

/// A configured reader.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReaderEntry {
    /// Its id.
    pub id: DeviceId,
    /// How it is reached.
    pub kind: ReaderKind,
    /// Whether members' cards are laid there.
    pub role: ReaderRole,
    /// The till whose home reader it is.
    pub till: Option<DeviceId>,
}

/// A configured printer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PrinterEntry {
    /// Its id.
    pub id: DeviceId,
    /// Which driver.
    pub kind: PrinterKind,
    /// The face it prints when none is named.
    pub template: String,
    /// The reader it belongs to: its own, or that of the till whose home printer it is.
    pub reader: Option<DeviceId>,
    /// The tills whose home printer it is.
    pub tills: Vec<DeviceId>,
}

/// The configured devices; replaced as a whole at a reload.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Directory {
    /// Readers.
    pub readers: Vec<ReaderEntry>,
    /// Vehicle links.
    pub links: Vec<DeviceId>,
    /// Printers.
    pub printers: Vec<PrinterEntry>,
    /// Tills.
    pub tills: Vec<DeviceId>,
}

impl Directory {
    /// The devices of a configuration.
    #[must_use]
    pub fn of(config: &Config) -> Self {
        let reader = |table: &crate::config::tables::ReaderTable| ReaderEntry {
            id: table.id.clone(),
            kind: table.kind,
            role: table.role,
            till: config.till_of_reader(&table.id).map(|till| till.id.clone()),
        };
        let printer = |table: &crate::config::tables::PrinterTable| PrinterEntry {
            id: table.id.clone(),
            kind: table.kind,
            template: table.template.clone(),
            reader: table.reader.clone().or_else(|| {
                let home = config.tills.iter().find(|till| till.printer.as_ref() == Some(&table.id))?;
                home.reader.clone()
            }),
            tills: {
                let here = config.tills.iter().filter(|till| till.printer.as_ref() == Some(&table.id));
                here.map(|till| till.id.clone()).collect()
            },
        };
        Self {
            readers: config.readers.iter().map(reader).collect(),
            links: config.vehicles.iter().map(|table| table.id.clone()).collect(),
            printers: config.printers.iter().map(printer).collect(),
            tills: config.tills.iter().map(|table| table.id.clone()).collect(),
        }
    }
}

/// Bounds of everything a caller can pile up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// TCP connections at a time.
    pub connections: usize,
    /// Control connections at a time.
    pub control_connections: usize,
    /// TLS handshakes at a time.
    pub handshakes: usize,
    /// Event streams at a time.
    pub streams: usize,
    /// Request body, in bytes.
    pub body_bytes: usize,
    /// Print jobs waiting at one printer.
    pub print_queue: usize,
    /// Live tokens.
    pub tokens: usize,
    /// Operators, locked ones included.
    pub operators: usize,
    /// People who wait for their PIN to be compared: one comparison runs at a time.
    pub logins: usize,
    /// How long somebody stays logged in.
    pub session: SessionLife,
    /// From the first byte to the end of a request's head, and for a handshake.
    pub head_timeout: Duration,
    /// For a request's body.
    pub body_timeout: Duration,
    /// A write that makes no progress for so long ends the connection.
    pub write_stall: Duration,
    /// How long a caller waits for a device's outcome before 202 (contract §7).
    pub outcome_wait: Duration,
    /// How long open answers may take once the gateway stops.
    pub drain: Duration,
    /// Silence on a stream before a keep-alive.
    pub keep_alive: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 256,
            control_connections: 32,
            handshakes: 32,
            streams: 32,
            body_bytes: 256 * 1024,
            print_queue: 100,
            tokens: 500,
            operators: 500,
            logins: 16,
            session: SessionLife { idle: Duration::from_secs(900), longest: Duration::from_secs(43_200) },
            head_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(10),
            write_stall: Duration::from_secs(30),
            outcome_wait: Duration::from_secs(10),
            drain: Duration::from_secs(3),
            keep_alive: Duration::from_secs(15),
        }
    }
}

/// What the gateway hands in.
#[derive(Clone)]
pub struct Context {
    /// The log and the state beside it.
    pub store: Store,
    /// Who speaks in the envelopes.
    pub source: Source,
    /// Language where the asker names none.
    pub locale: Locale,
    /// What is not well.
    pub health: Health,
    /// The configured devices.
    pub directory: watch::Receiver<Arc<Directory>>,
    /// What the house has decided.
    pub shop: watch::Receiver<Arc<Shop>>,
    /// Renders `/metrics`; the gateway installs the recorder.
    pub metrics: PrometheusHandle,
    /// Checks the fields of a card face.
    pub face_check: FaceCheck,
    /// Bounds.
    pub limits: Limits,
}

/// Behind every handler.
pub struct Shared {
    pub(super) context: Context,
    pub(super) visitors: Visitors,
    pub(super) authority: Option<Authority>,
    pub(super) pairings: Mutex<Pairings>,
    pub(super) tickets: Tickets,
    pub(super) sessions: Sessions,
    pub(super) leases: Leases,
    /// Held while a PIN is compared, so that two guesses at once are still two guesses.
    pub(super) lockout: Mutex<Lockout>,
    pub(super) logins: Arc<Semaphore>,
    pub(super) streams: Arc<Semaphore>,
    pub(super) refusals: Refusals,
    pub(super) stop: CancellationToken,
}

impl Shared {
    pub(super) fn new(
        context: Context,
        visitors: Visitors,
        authority: Option<Authority>,
        stop: CancellationToken,
    ) -> Self {
        let streams = Arc::new(Semaphore::new(context.limits.streams));
        let logins = Arc::new(Semaphore::new(context.limits.logins));
        Self {
            context,
            visitors,
            authority,
            pairings: Mutex::default(),
            tickets: Tickets::default(),
            sessions: Sessions::default(),
            leases: Leases::default(),
            lockout: Mutex::new(Lockout::new(Instant::now())),
            logins,
            streams,
            refusals: Refusals::new(Instant::now()),
            stop,
        }
    }

    pub(super) fn shop(&self) -> Arc<Shop> {
        Arc::clone(&self.context.shop.borrow())
    }

    pub(super) fn directory(&self) -> Arc<Directory> {
        Arc::clone(&self.context.directory.borrow())
    }
}
