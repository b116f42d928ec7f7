//! Cars on diagnostic links. What lives here: the read-only gate, the adapter
//! driver, the reading of what cars say, visits, reports, telemetry, and the
//! service that commits them. What does not: transports (`link`), rules and
//! warnings (`maintenance`), SQL (`store`).
//!
//! The way of the data: link bytes → [`adapter`] ([`elm327`]: request → messages by ECU) →
//! [`obd`], [`pids`] (messages → facts) → [`report`] → [`visit`] (arrived,
//! report, departed) → the log. Every byte out passes [`gate`].

pub mod adapter;
pub mod answer;
pub mod candump;
pub mod clear;
pub mod dbc;
pub mod elm327;
mod error;
pub mod gate;
pub mod j1939;
pub mod obd;
pub mod pids;
pub mod polling;
pub mod protocol;
pub mod report;
pub mod scan;
mod service;
pub mod signal_set;
pub mod telemetry;
pub mod uds;
pub mod visit;

pub use error::{AdapterError, VehicleError};
pub use pids::{VectorFailure, decode_pid, verify_vectors};
pub use service::{SCAN, Timing, serve_link, serve_link_timed};
