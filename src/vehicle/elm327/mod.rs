//! Driver for ELM327-compatible adapters: request in, messages of each ECU out.
//! The way of the data is the order of the files: bytes → `lines` → `reply` →
//! `frame` → `isotp`; `port` keeps step with the adapter, `contact` finds it, `adapter` sets it up,
//! `ask` asks, `address` says whom, `probe` finds out what it can do, `echo` whether
//! it can be trusted with lines that must not lose a character. What the
//! messages mean is read in `obd`.
//!
//! Source of the command set and replies: ELM327 data sheets v1.4b and v2.3.
//! No version string is believed: what an adapter can do is tried.

pub mod adapter;
mod address;
pub mod answer;
mod ask;
pub mod baud;
mod contact;
mod echo;
pub mod frame;
pub mod isotp;
pub mod lines;
pub mod port;
mod probe;
pub mod reply;
mod silent;
pub mod trace;

pub use adapter::Adapter;
pub use silent::SilentDongle;
pub use trace::Trace;
