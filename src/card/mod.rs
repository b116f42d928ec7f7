//! The checkout counter: readers, and which card is in whose field. What lives
//! here: drivers (`pcsc`, `vpcd`, `em4100`), the identification of a card (`apdu`, `atr`,
//! `probe`), the service that commits what was seen, and what money on a card is and may do
//! (`purse`, without a card's bytes). What does not yet: keys and the life cycle of a card;
//! they will stand beside `probe` and use the same channel to a card.
//!
//! ```text
//!  bytes ── pcsc/ or vpcd ─ probe (who is it?) ─ field (told whole or not) ─► service ─► store
//! ```

pub mod apdu;
pub mod atr;
mod backoff;
pub mod em4100;
mod error;
pub mod field;
pub mod pcsc;
pub mod probe;
pub mod purse;
mod report;
mod service;
pub mod verdict;
pub mod vpcd;

pub use error::CardError;
pub use service::serve_reader;
