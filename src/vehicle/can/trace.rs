//! Every frame of a session with its time and its way, as a candump log: for `scan --trace`, the
//! simulator's replay and `decode --dbc`. VINs are masked as in a recording (`recording::frames`):
//! frames are held back until a number is known, so that one that is broadcast never stands in the
//! file, however the session ends. The first one that is told may be another's (a unit from another
//! car), and the car's own never be told: what was held is masked as if none were known, too, and
//! what comes later wherever it may be the end of a number ([`Likely`]).
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
use crate::vehicle::recording::lines::{Likely, mask_known, mask_likely};

/// Held back at most: some seven seconds of a bus at its limit; a car tells its number sooner.
const MOST_HELD: usize = 4 << 20;

/// Writes the log.
pub struct FrameTrace {
    /// `None`: it could not be written any more.
    out: Option<Box<dyn Write + Send + Sync>>,
    lines: FrameLines,
    /// Lines that wait for the number.
    held: Vec<u8>,
    /// The last lines written had one already.
    released: bool,
}

impl FrameTrace {
    /// Begins a log of `interface`, one word.
    #[must_use]
    pub fn begin(out: Box<dyn Write + Send + Sync>, interface: &str) -> Self {
        Self { out: Some(out), lines: FrameLines::new(interface), held: Vec::new(), released: false }
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
        mask_likely(&mut held, if self.released { Likely::WithDigit } else { Likely::Any });
        self.released = !self.lines.numbers().is_empty();
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

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::link::can::Id;

    const VIN: &str = "1M8GDM9AXKP042788";

    #[derive(Clone, Default)]
    struct File(Arc<Mutex<Vec<u8>>>);

    impl Write for File {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    /// The lines of frames that were heard, without their times.
    fn written(frames: &[(u32, Vec<u8>)]) -> Vec<String> {
        let file = File::default();
        let mut trace = FrameTrace::begin(Box::new(file.clone()), "can0");
        for (id, data) in frames {
            trace.heard(&Frame::new(Id::standard(*id), data, false).unwrap());
        }
        drop(trace);
        let text = String::from_utf8(file.0.lock().unwrap().clone()).unwrap();
        text.lines().map(|line| line.split(' ').nth(2).unwrap().to_owned()).collect()
    }

    fn frame(id: u32, digits: &str) -> (u32, Vec<u8>) {
        (id, hex::decode(digits).unwrap())
    }

    /// 22 F190 answered by a unit.
    fn told_by(unit: u32, number: &str) -> Vec<(u32, Vec<u8>)> {
        let (first, rest) = number.as_bytes().split_at(3);
        let mut frames = vec![(unit, [&[0x10, 20, 0x62, 0xF1, 0x90], first].concat())];
        for (part, place) in rest.chunks(7).zip(0x21_u8..) {
            frames.push((unit, [&[place], part].concat()));
        }
        frames
    }

    /// Another unit answers first: it has none, was never given one, or has another car's.
    #[test]
    fn a_broadcast_number_is_hidden_whoever_answers_first() {
        let broadcast = frame(0x3E9, "00314D3847444D39");
        let others = told_by(0x7E9, "LSVAG2186E2100001");
        for (name, first, then) in [
            ("none, filled up", vec![frame(0x7E9, "0362F19055555555")], told_by(0x7E8, VIN)),
            ("none in 09 02, filled up", vec![frame(0x7E9, "0349020055555555")], told_by(0x7E8, VIN)),
            ("never set", told_by(0x7E9, "XXXXXXXXXXXXXXXXX"), told_by(0x7E8, VIN)),
            ("another car's", others.clone(), told_by(0x7E8, VIN)),
            ("another car's alone", others, vec![frame(0x7E8, "037F2231")]),
        ] {
            let mut frames = vec![broadcast.clone()];
            frames.extend(first);
            frames.push(broadcast.clone());
            frames.extend(then);
            // The middle of it, and its end.
            frames.extend([broadcast.clone(), frame(0x3E9, "02504B3034323738")]);
            let lines = written(&frames);
            assert_eq!(lines.len(), frames.len(), "{name}");
            let hidden = lines.iter().filter(|line| *line == "3E9#0030303030303030").count();
            assert_eq!((hidden, lines[lines.len() - 1].as_str()), (3, "3E9#0230303030303030"), "{name}");
            for piece in VIN.as_bytes().windows(4) {
                let digits = hex::encode_upper(piece);
                assert!(lines.iter().all(|line| !line.contains(&digits)), "{name}: {lines:?}");
            }
        }
    }

    /// Where a number is known letters are written as they were, and answers always.
    #[test]
    fn what_only_looks_like_a_number_stays_where_one_is_known() {
        let (answer, other) = (frame(0x7E8, "0441423650"), frame(0x3E9, "0041424344454647"));
        let mut frames = vec![answer.clone(), other.clone()];
        frames.extend(told_by(0x7E8, VIN));
        frames.extend([answer, other]);
        let lines = written(&frames);
        assert_eq!(lines[..2], ["7E8#0441423650", "3E9#0030303030303030"]);
        assert_eq!(lines[lines.len() - 2..], ["7E8#0441423650", "3E9#0041424344454647"]);
    }
}
