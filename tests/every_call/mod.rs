//! What the runs of `store_every_call` share.
//!
//! ```text
//!  story ── what is done to the store, step by step, and how each step is seen in the file
//!  counter ─ the part of it that is about cards, purses and people
//!  player ─ the process that does it, and tells what it was answered
//!  trace ── strace, attached to exactly one thread of the player
//!  run ──── count the calls of that thread, then one player for each call and each fault
//!  judge ── what must hold of the folder a player left behind
//! ```
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

pub mod counter;
pub mod judge;
pub mod player;
pub mod run;
pub mod story;
pub mod trace;
