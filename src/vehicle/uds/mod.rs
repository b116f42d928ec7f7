//! UDS (ISO 14229-1) and OBD on UDS (SAE J1979-2). What lives here: the answers of services
//! 22 and 19 as facts, refusals in words, and the reading of a car by them. What does not:
//! which bytes may be sent (`gate`), frames and lines (the drivers), J1979 itself (`obd`).
//!
//! Everything here is read in the default session a car is in by itself: no session is
//! changed (10), none is kept alive (3E), nothing is unlocked (27), because each of these
//! alters how a control unit behaves. What a car gives only in another session it does not
//! give to us, and the report says so.

pub mod answer;
pub mod dtc;
pub mod find;
pub mod read;
pub mod refusal;
pub mod report;

pub use dtc::{Dtc, DtcFormat, Status};
