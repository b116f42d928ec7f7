//! The checkout counter: readers, and which card is in whose field. What lives
//! here: drivers (`pcsc`, `vpcd`, `pn532`, `em4100`, `wedge`), the identification of a card (`apdu`, `atr`,
//! `probe`), the member record on it (`record`, `medium`, `member`), the service that commits
//! what was seen, the key store (`keys`) with the cryptography under it (`crypto`), and what
//! money on a card is and may do (`purse`, without a card's bytes), and what is asked of the
//! card in a field, done (`counter`, by errands to the driver, `work`).
//!
//! ```text
//!  bytes ── pcsc/ or vpcd ─ probe (who is it?) ─ field (told whole or not) ─► service ─► store
//!               ▲                                                                │ ▲
//!               └──────── work (an errand: read, write, prepare) ◄── counter ◄───┘ └─ requests
//! ```

pub mod alone;
pub mod apdu;
pub mod atr;
mod backoff;
mod cable;
pub mod counter;
pub mod counter_word;
pub mod crypto;
pub mod em4100;
mod error;
mod feedback;
pub mod field;
pub mod keys;
pub mod medium;
pub mod member;
pub mod pcsc;
pub mod pn532;
pub mod probe;
pub mod purse;
pub mod record;
mod report;
mod service;
mod sle4442;
pub mod stops;
mod tap;
pub mod verdict;
pub mod vpcd;
pub mod wedge;
mod work;

pub use error::CardError;
pub use service::serve_reader;
