//! The purse: what a sale costs, what it does to a card, who may, and what is written down
//! about it. All of it is calculation and policy on plain values; only `journal` touches the
//! store, and nothing here knows a card's bytes. Rules and codes in words: `docs/purse.md`.
//!
//! ```text
//!  till ─► policy (may it?) ─► quote, topup, refund … ─► Plan{effect, lines, tenders}
//!                                                          │
//!  tap ─► journal ◄─ settle (what became of the last one?)  ▼
//!            └─────► intent ─► card ─► outcome + card.transaction     apply(holding, effect)
//! ```

pub mod capability;
pub mod changes;
pub mod day;
pub mod effect;
pub mod journal;
pub mod life;
pub mod plan;
pub mod policy;
pub mod quote;
pub mod refund;
pub mod refusal;
pub mod release;
pub mod settle;

#[cfg(test)]
mod tests;

pub use effect::{Caps, Effect, apply};
pub use plan::{Context, Plan};
pub use refusal::Refusal;
