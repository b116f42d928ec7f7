//! The parts of the runs on a bad line: who commits, who takes, what goes wrong.
#![allow(dead_code)] // each test file uses its part
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

pub mod fault;
pub mod feeder;
pub mod hq;
pub mod unreadable;
