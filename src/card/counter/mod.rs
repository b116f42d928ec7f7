//! The purse at the counter: what is asked of the card in a reader's field, done. What lives
//! here: which requests a reader's service takes, the waiting for a card, and the order of
//! what is durable and what is written ([`desk`]). What does not: what a sale costs and who
//! may (`purse`), how a record is read and written (`medium`), and how bytes reach a card
//! (`work` and the drivers).
//!
//! ```text
//!  request (with its key) ─► the card lies there? its number asked for? ─► plan, policy
//!      ─► intent ─► record on the card ─► outcome, event, request settled: one commit
//! ```

mod asked;
pub mod batch;
mod desk;
mod giving_up;
mod holder;
pub mod import;
mod issue;
pub mod new_cards;
mod original;
mod refused;
pub mod reissue;
mod rekey;
mod release;
mod replace;
mod shop;
mod signs;
mod transaction;

pub use asked::{Adjustment, By, Deal, ISSUE, IssueAsked, Life, PREPARE, QUOTE, Quoted, TRANSACTION, Why};
pub(super) use desk::{Desk, InField, Looked, Shows};
pub use giving_up::{GaveUp, give_up};
pub use holder::end_of;
pub use refused::Refused;
pub use rekey::REKEY;
pub use release::{RELEASE, ReleaseAsked};
pub use shop::Shop;
pub(super) use signs::Signs;
