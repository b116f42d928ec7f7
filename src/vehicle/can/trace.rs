//! Every frame of a session with its time and its way, as a candump log: for `scan --trace`, the
//! simulator's replay and `decode --dbc`. VINs are masked as in a recording (`recording::frames`):
//! frames are held back until the number is known, so that one that is broadcast never stands in the
//! file, however the session ends.
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
use crate::vehicle::recording::lines::{mask_known, mask_likely};

/// Held back at most: some seven seconds of a bus at its limit; a car tells its number sooner.
const MOST_HELD: usize = 4 << 20;

/// Writes the log.
pub struct FrameTrace {
    /// `None`: it could not be written any more.
    out: Option<Box<dyn Write + Send + Sync>>,
    lines: FrameLines,
    /// Lines that wait for the number.
    held: Vec<u8>,
}

impl FrameTrace {
    /// Begins a log of `interface`, one word.
    #[must_use]
    pub fn begin(out: Box<dyn Write + Send + Sync>, interface: &str) -> Self {
        Self { out: Some(out), lines: FrameLines::new(interface), held: Vec::new() }
    }

    pub(super) fn sent(&mut self, frame: &Frame) {
        self.frame(frame, " T");
    }

    pub(super) fn heard(&mut self, frame: &Frame) {
        self.frame(frame, " R");
    }

    fn frame(&mut self, frame: &Frame, mark: &str) {
        if self.out.is_none() {
            return;
        }
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let line = self.lines.line(frame, i64::try_from(since.as_micros()).unwrap_or(i64::MAX), mark);
        self.held.extend_from_slice(line.as_bytes());
        if !self.lines.numbers().is_empty() || self.held.len() >= MOST_HELD {
            self.write_held();
        }
    }

    fn write_held(&mut self) {
        let mut held = std::mem::take(&mut self.held);
        for number in self.lines.numbers() {
            mask_known(&mut held, number);
        }
        if self.lines.numbers().is_empty() {
            mask_likely(&mut held);
        }
        let Some(out) = &mut self.out else { return };
        if let Err(error) = out.write_all(&held) {
            self.out = None;
            tracing::warn!(%error, "trace not written; check the disk and the path given to --trace");
        }
    }
}

impl Drop for FrameTrace {
    fn drop(&mut self) {
        if !self.held.is_empty() {
            self.write_held();
        }
    }
}
