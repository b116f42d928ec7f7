//! Baygate: the in-store edge gateway of a car dealership. One daemon that
//! reads member cards and cars, commits every fact to a local log before
//! anyone is told, and forwards the log to headquarters over MQTT.
//!
//! The rooms and who may call whom: `docs/architecture.md`.

/// By the name that `tests/support` knows.
#[cfg(test)]
extern crate self as baygate;

pub mod api;
pub mod card;
pub mod cli;
pub mod clock;
pub mod config;
pub mod demo;
pub mod event;
pub mod gateway;
pub mod health;
pub mod ident;
pub mod link;
pub mod maintenance;
pub mod money;
pub mod printer;
pub mod protocols;
#[cfg(test)]
#[path = "../tests/support/seed.rs"]
mod seed;
pub mod sim;
pub mod store;
#[cfg(test)]
#[path = "../tests/support/store.rs"]
mod test_store;
pub mod uplink;
pub mod vehicle;
