//! SAE J1939, heard: trucks and machines broadcast their active codes by themselves once a
//! second, so little has to be asked. What lives here: identifiers, reassembly of long
//! messages, diagnostic messages 1 and 2, what all units told together. Pure, on (identifier,
//! data) frames; whoever has the bus feeds them in (`vehicle::can`). What does not: requests
//! (`gate::group`), sockets (`link`), what a suspect parameter is called (SAE J1939-DA may not
//! be shipped).

pub mod dm;
pub mod id;
pub mod listener;
pub mod told;
pub mod transport;

pub use dm::{Codes, Lamps, Light, TroubleCode};
pub use id::Id;
pub use listener::{Broken, Heard, Kind, Listener, Said};
pub use told::Told;
