//! The configuration: TOML files in, one typed value out. What lives here: the
//! schema (one struct a table), merging of files, checks with file, line and
//! column. What does not: anything that opens a file other than TOML, binds a
//! port or touches a device.

mod complete;
pub mod credentials;
mod error;
mod load;
pub mod purse;
pub mod pushed;
mod suggest;
pub mod tables;
pub mod values;

pub use error::ConfigError;
pub use load::{load, load_with, locale, parse, read_toml};

use std::path::PathBuf;
use std::time::Duration;

use crate::event::{Class, Source};
use crate::ident::DeviceId;
use tables::{ApiTable, MqttTable, PrinterTable, ReaderTable, TillTable, VehicleTable};
use values::{Locale, TimeOfDay};

/// The merged, checked configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// `[gateway]`.
    pub gateway: Gateway,
    /// `[mqtt]`; absent: no uplink, the log only grows.
    pub mqtt: Option<MqttTable>,
    /// `[buffer]`.
    pub buffer: Buffer,
    /// `[api]`.
    pub api: ApiTable,
    /// `[purse]`.
    pub purse: purse::PurseTable,
    /// `[[reader]]`.
    pub readers: Vec<ReaderTable>,
    /// `[[printer]]`.
    pub printers: Vec<PrinterTable>,
    /// `[[till]]`.
    pub tills: Vec<TillTable>,
    /// `[[vehicle]]`.
    pub vehicles: Vec<VehicleTable>,
    /// SHA-256 of the files' texts in merge order, hex.
    pub version: String,
}

/// `[gateway]`, complete.
#[derive(Debug, Clone, PartialEq)]
pub struct Gateway {
    /// `store` and `id`.
    pub source: Source,
    /// Where the database lies.
    pub data_dir: PathBuf,
    /// Language of messages.
    pub locale: Locale,
    /// Days, limits and figures of the day are counted here.
    pub timezone: String,
    /// When a business day begins.
    pub business_day_start: TimeOfDay,
    /// Folder of protocol data.
    pub firmware_protocols: PathBuf,
    /// Folder of rules (`rules/`), templates (`templates/`) and fonts (`fonts/`).
    pub share_dir: PathBuf,
    /// Where credentials are, for desk tests; else `$CREDENTIALS_DIRECTORY`.
    pub credentials_dir: Option<PathBuf>,
    /// What the time service touches each time it has set the clock.
    pub time_sync_file: PathBuf,
}

/// `[buffer]`, complete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Buffer {
    /// The database's limit, in bytes.
    pub max_bytes: u64,
    /// Limits by class.
    pub classes: Vec<(Class, ClassBuffer)>,
    /// What is kept beside the log.
    pub history: HistoryCounts,
}

/// `[buffer.history]`, complete: how many of the newest of each are kept beside the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HistoryCounts {
    /// Ended visits with their reports.
    pub visits: u32,
    /// Warnings: cleared ones, and standing ones of cars that no kept visit knows.
    pub warnings: u32,
    /// Print jobs that came to an end.
    pub print_jobs: u32,
    /// Settled requests without an idempotency key.
    pub requests: u32,
    /// Commands of headquarters whose ids are remembered.
    pub commands: u32,
}

/// One class's limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClassBuffer {
    /// Unsent rows beyond this are trimmed; `None`: never (ledger).
    pub keep_bytes: Option<u64>,
    /// Delivered rows are kept this long.
    pub keep_delivered: Duration,
}

impl Config {
    /// The till whose home reader is `reader`.
    #[must_use]
    pub fn till_of_reader(&self, reader: &DeviceId) -> Option<&TillTable> {
        self.tills.iter().find(|till| till.reader.as_ref() == Some(reader))
    }
}
