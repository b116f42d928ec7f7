//! Every frame of a session with its time and its way, as a candump log: for `scan --trace`, the
//! simulator's replay and `decode --dbc`. VINs are masked as in a recording (`recording::frames`).
//!
//! ```text
//! (1795437263.104220) can0 7DF#0201000000000000 T
//! (1795437263.110514) can0 7E8#064100BE3FA81300 R
//! ```
//!
//! The letter behind a frame is that of `candump -x`: T was sent, R was heard.

use std::io::Write;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::link::can::Frame;
use crate::vehicle::recording::frames::FrameLines;

/// Writes the log.
pub struct FrameTrace {
    /// `None`: it could not be written any more.
    out: Option<Box<dyn Write + Send + Sync>>,
    lines: FrameLines,
}

impl FrameTrace {
    /// Begins a log of `interface`, one word.
    #[must_use]
    pub fn begin(out: Box<dyn Write + Send + Sync>, interface: &str) -> Self {
        Self { out: Some(out), lines: FrameLines::new(interface) }
    }

    pub(super) fn sent(&mut self, frame: &Frame) {
        self.frame(frame, " T");
    }

    pub(super) fn heard(&mut self, frame: &Frame) {
        self.frame(frame, " R");
    }

    fn frame(&mut self, frame: &Frame, mark: &str) {
        let Some(out) = &mut self.out else { return };
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let line = self.lines.line(frame, i64::try_from(since.as_micros()).unwrap_or(i64::MAX), mark);
        if let Err(error) = out.write_all(line.as_bytes()) {
            self.out = None;
            tracing::warn!(%error, "trace not written; check the disk and the path given to --trace");
        }
    }
}
