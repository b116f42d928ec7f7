//! SAE J1939, heard: trucks and machines broadcast their active codes by themselves once a
//! second, so nothing has to be asked. What lives here: identifiers, reassembly of long
//! messages, diagnostic messages 1 and 2. Pure, on (identifier, data) frames; whoever has the
//! bus feeds them in. What does not: requests (none are sent), sockets (`link`), what a
//! suspect parameter is called (SAE J1939-DA may not be shipped).

pub mod dm;
pub mod id;
pub mod listener;
pub mod transport;

pub use dm::{Codes, Lamps, Light, TroubleCode};
pub use id::Id;
pub use listener::{Heard, Kind, Listener};
