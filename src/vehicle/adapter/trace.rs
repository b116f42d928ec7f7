//! What of a session is written down: of a dongle every byte, of a bus every frame.

use std::io::Write;

use crate::config::values::VehicleLink;
use crate::vehicle::can::FrameTrace;
use crate::vehicle::elm327::Trace;

/// A session as it is written down: what passed between this box and a dongle, or the frames of
/// a bus.
pub enum SessionTrace {
    /// JSON Lines.
    Bytes(Trace),
    /// A candump log.
    Frames(FrameTrace),
}

impl SessionTrace {
    /// Begins one in the form of this link.
    #[must_use]
    pub fn begin(out: Box<dyn Write + Send + Sync>, link: &VehicleLink) -> Self {
        match link {
            VehicleLink::Elm327(_) => Self::Bytes(Trace::begin(out, &link.to_string())),
            VehicleLink::Can { interface, .. } => Self::Frames(FrameTrace::begin(out, interface)),
            VehicleLink::Slcan { .. } => Self::Frames(FrameTrace::begin(out, "slcan")),
        }
    }
}
