//! Cars on diagnostic links. What lives here: the read-only gate, the adapter
//! driver, the reading of what cars say, visits, reports, telemetry, and the
//! service that commits them. What does not: transports (`link`), rules and
//! warnings (`maintenance`), SQL (`store`).
//!
//! The way of the data: link bytes → [`adapter`] ([`elm327`]: request → messages by ECU) →
//! [`obd`], [`pids`] (messages → facts) → [`report`] → [`visit`] (arrived,
//! report, departed) → the log. Every byte out passes [`gate`].

pub mod adapter;
pub mod agenda;
pub mod answer;
pub mod batch;
pub mod battery;
pub mod can;
pub mod candump;
pub mod clear;
pub mod dbc;
pub mod dtc_words;
pub mod elm327;
mod error;
pub mod gate;
pub mod in_use_ratio;
pub mod inspection;
pub mod j1939;
pub mod monitor_test;
pub mod obd;
pub mod overheard;
pub mod parts;
pub mod passive;
pub mod pids;
pub mod polling;
pub mod powertrain;
pub mod protocol;
pub mod recording;
pub mod report;
pub mod sampling;
pub mod scan;
mod service;
pub mod signal_set;
pub mod sources;
pub mod telemetry;
pub mod typed;
pub mod uds;
mod vectors;
pub mod vin;
pub mod visit;

pub use error::{AdapterError, VehicleError};
pub use pids::{Maxima, decode_pid, decode_pid_within};
pub use service::{SCAN, Timing, serve_link, serve_link_timed};
pub use vectors::{VectorFailure, verify_vectors};
