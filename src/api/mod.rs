//! The local HTTP for tills and scripts, the control socket for the CLI, and
//! the CLI's client. What lives here: addresses, connections, who may do what,
//! and the routes. What does not: SQL, device bytes, and any domain's rules —
//! handlers commit requests and read the log, services do the rest.
//!
//! ```text
//!  TCP (tokens, Host, Origin, TLS) ─┐
//!                                   ├─► one router ─► access table ─► handler ─► store
//!  control socket (peer's user)  ───┘
//! ```

mod access;
mod authority;
mod bind;
pub mod client;
mod error;
mod extract;
mod hosts;
mod language;
mod leases;
mod lockout;
mod openapi;
mod pairing;
mod pins;
mod principal;
mod problem;
mod refusals;
mod roles;
mod routes;
mod serve;
mod sessions;
pub mod sse;
mod stall;
mod state;
mod tickets;
mod tls;

pub use access::Scope;
pub use bind::{BoundApi, bind};
pub use error::ApiError;
pub use openapi::openapi;
pub use roles::Role;
pub use serve::serve;
pub use sessions::SessionLife;
pub use state::{Context, Directory, FaceCheck, Limits, PrinterEntry, ReaderEntry};
