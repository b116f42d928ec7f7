//! How a record lies on each technology, and how it is reached. What lives here:
//! a layout's places as commands (`place`), reading a card (`read`), writing its
//! older slot (`write`), preparing an empty card (`format`, `preparing`), moving one to newer
//! keys (`moving`) and what closes a tag (`guard`), all pure state machines or lists of commands;
//! `desfire` has the same three for cards with files and transactions, `contact` for contact memory
//! cards, `purse_card` for cards with a purse beside the record. What does not: the bytes of a record (`record`), keys (`keys`), and
//! whether a member may be served (`member`).
//!
//! ```text
//!  header ─ ours? ─ its check right? ─ log in with the version it names ─ slots ─► Pair
//!     │        │            └ no: wrong-key, and no login is tried
//!     │        └ no: unformatted, not-a-member-card
//!     └ Classic: public key A; a card that refuses it is asked with the keys it may be delivered with
//! ```

mod contact;
mod desfire;
mod format;
mod guard;
mod memory_reading;
mod moving;
mod page_login;
mod place;
mod preparing;
mod public;
mod purse_card;
mod read;
mod sector_login;
mod write;

pub use format::{FormatError, format_commands};
pub use moving::{Card as MovingCard, MoveOutcome, MoveStep, Moving, places};
pub use place::verify_vectors;
pub use preparing::{PrepareOutcome, PrepareStep, Preparing};
pub use read::{Finding, Opened, ReadStep, Reading};
pub use write::{WriteOutcome, WriteStep, Writing};

#[cfg(test)]
mod delivered_tests;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod trouble_tests;
#[cfg(test)]
mod write_tests;
