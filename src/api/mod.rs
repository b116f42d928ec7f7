//! The local HTTP for tills and scripts, the control socket for the CLI, and
//! the CLI's client.

pub mod client;
pub mod sse;
