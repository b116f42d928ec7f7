//! The checkout counter: readers, and which card is in whose field. What lives
//! here: drivers (`pcsc`, `vpcd`), the identification of a card (`apdu`, `atr`,
//! `probe`), the service that commits what was seen, the key store (`keys`) and the
//! cryptography under it (`crypto`). What does not yet: purse and the life cycle of
//! a card; they will stand beside `probe` and use the same channel to a card.
//!
//! ```text
//!  bytes ── pcsc/ or vpcd ─ probe (who is it?) ─ field (told whole or not) ─► service ─► store
//! ```

pub mod apdu;
pub mod atr;
mod backoff;
pub mod crypto;
mod error;
pub mod field;
pub mod keys;
pub mod medium;
pub mod member;
pub mod pcsc;
pub mod probe;
pub mod record;
mod report;
mod service;
mod tap;
pub mod verdict;
pub mod vpcd;

pub use error::CardError;
pub use service::serve_reader;
