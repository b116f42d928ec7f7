//! Cars on a CAN bus without a dongle in between: over the kernel's SocketCAN, or over
//! an slcan adapter.
//!
//! The way of the data: frames ([`crate::link::can`], [`slcan`]) → [`isotp`] (messages) →
//! [`Node`] (requests and answers). Bytes to a car come from the gate's requests;
//! the only others are the flow control frames that ISO-TP makes.

mod address;
mod bus;
pub mod isotp;
mod listen;
mod node;
pub mod slcan;
mod tally;
mod trace;

pub use listen::Ear;
pub(super) use node::stays::is_emptied_by;
pub use node::{Groups, Node, Witness};
pub use trace::FrameTrace;
