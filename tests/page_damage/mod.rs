//! The parts of the runs on harmed files: the truth, and the judge.
#![allow(dead_code)] // each test file uses its part
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

pub mod judge;
pub mod truth;
