//! ISO 15765-2:2016, the transport layer of diagnostics on CAN, as functions and
//! state machines on bytes and time. What lives here: the first bytes of a frame
//! ([`pci`]), a message going out ([`Sender`]), a message coming in ([`Receiver`]), and
//! many of them at once within bounds ([`Conversations`]). What does not: sockets,
//! adapters, and who asks what ([`super::node`]).
//!
//! ```text
//!  sender                          receiver
//!    │ first frame 1L LL ─────────────► │
//!    │ ◄───────────── flow control 30 BS STmin
//!    │ consecutive 21, 22 … ──────────► │   STmin apart, BS of them
//!    │ ◄───────────── flow control      │   and so on
//! ```

mod conversations;
mod pci;
mod receiver;
mod sender;

use std::time::Duration;

pub use conversations::{Conversations, Output};
pub use pci::{Flow, FlowStatus, Malformed, Pci, parse};
pub use receiver::{Break, Event, Receiver, Step};
pub use sender::{Next, SendError, Sender};

/// N_Bs: how long a sender waits for flow control (ISO 15765-2:2016 table 16).
pub const N_BS: Duration = Duration::from_millis(1000);
/// N_Cr: how long a receiver waits for the next consecutive frame (table 16).
pub const N_CR: Duration = Duration::from_millis(1000);
/// What a 12-bit length can say; beyond it the escape is used (§9.6.3.1).
pub const LONGEST_WITHOUT_ESCAPE: usize = 0xFFF;

/// How the two ends of a conversation write their frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Form {
    /// First byte of every frame sent: the target's address (extended addressing) or the
    /// address extension (mixed). `None`: normal addressing.
    pub prefix_out: Option<u8>,
    /// The same of every frame received; others are not for us.
    pub prefix_in: Option<u8>,
    /// Most data bytes of a frame sent: 8, or on CAN FD 12, 16, 20, 24, 32, 48, 64.
    pub frame_bytes: usize,
    /// Fills frames up to 8 bytes; `None`: they are as short as they can be. Frames of
    /// CAN FD lengths are filled in any case, with 0xCC where nothing is said (§10.4.2).
    pub padding: Option<u8>,
}

impl Default for Form {
    /// Normal addressing on classic CAN, frames filled with 00 as ELM327 adapters do, so
    /// that cars see what they have always seen.
    fn default() -> Self {
        Self { prefix_out: None, prefix_in: None, frame_bytes: 8, padding: Some(0x00) }
    }
}

impl Form {
    /// Extended addressing (§10.3.4): we send to `theirs` and are `ours`.
    #[must_use]
    pub fn extended(theirs: u8, ours: u8) -> Self {
        Self { prefix_out: Some(theirs), prefix_in: Some(ours), ..Self::default() }
    }

    /// Mixed addressing (§10.3.5): the same extension both ways.
    #[must_use]
    pub fn mixed(extension: u8) -> Self {
        Self { prefix_out: Some(extension), prefix_in: Some(extension), ..Self::default() }
    }

    /// CAN FD with frames of up to `bytes`; a length that no frame has becomes the next
    /// shorter one.
    #[must_use]
    pub fn fd(self, bytes: usize) -> Self {
        let frame_bytes = FD_LENGTHS.iter().copied().rfind(|length| *length <= bytes).unwrap_or(8);
        Self { frame_bytes, ..self }
    }

    /// The bytes behind the prefix; `None`: not for us.
    fn without_prefix<'d>(&self, data: &'d [u8]) -> Option<&'d [u8]> {
        match self.prefix_in {
            None => Some(data),
            Some(prefix) => data.split_first().filter(|(first, _)| **first == prefix).map(|(_, rest)| rest),
        }
    }

    /// A frame: prefix, `control`, then of `data` what fits, filled up. Also how many bytes fitted.
    fn frame(&self, control: &[u8], data: &[u8]) -> (Vec<u8>, usize) {
        let mut frame: Vec<u8> = self.prefix_out.into_iter().collect();
        frame.extend_from_slice(control);
        let room = self.frame_bytes.saturating_sub(frame.len());
        let fits = data.get(..room).unwrap_or(data);
        frame.extend_from_slice(fits);
        let length = match self.padding {
            Some(_) if frame.len() <= 8 => 8,
            None if frame.len() <= 8 => frame.len(),
            _ => FD_LENGTHS.iter().copied().find(|length| *length >= frame.len()).unwrap_or(frame.len()),
        };
        frame.resize(length, self.padding.unwrap_or(0xCC));
        (frame, fits.len())
    }

    fn prefix_bytes(&self) -> usize {
        usize::from(self.prefix_out.is_some())
    }
}

/// Lengths of CAN FD frames beyond which nothing is sent (ISO 11898-1).
const FD_LENGTHS: [usize; 8] = [8, 12, 16, 20, 24, 32, 48, 64];

/// STmin (§9.6.5.4): 00–7F milliseconds, F1–F9 hundreds of microseconds, reserved ones mean 127 ms.
#[must_use]
pub fn separation(st_min: u8) -> Duration {
    match st_min {
        0x00..=0x7F => Duration::from_millis(st_min.into()),
        0xF1..=0xF9 => Duration::from_micros(u64::from(st_min & 0x0F) * 100),
        _ => Duration::from_millis(127),
    }
}

#[cfg(test)]
mod tests;
