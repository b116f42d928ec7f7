//! Warnings from rules. What lives here: rules as data (`config/rules/*.toml`),
//! their bounded evaluation over a report, and the service that reads the log and
//! commits `maintenance.warning` and `maintenance.cleared`. What does not: how a
//! report is made (the vehicle room) and how warnings are kept (the store).
//!
//! ```text
//!  log ── vehicle.report ─► Car (facts by name) ─► rules ─► raise | clear | unknown
//!                                                    └─► changes against what stands ─► one commit
//! ```
//! A value the car did not give neither raises nor clears: the rule is *unknown*.

mod car;
mod changes;
mod evaluate;
mod expression;
mod rules;
mod service;
mod vectors;

pub use car::Car;
pub use changes::warnings_of;
pub use evaluate::{Evaluation, FailureKind, Raised, RuleFailure, Unknown, evaluate};
pub use expression::Limits;
pub use rules::{Rule, Rules};
pub use service::{CURSOR, MaintenanceError, serve};
pub use vectors::{Expected, RuleVector, verify_vectors};
