//! The last minute of a link, kept in memory and written down when a warning fires.
//! What lives here: the bounded ring and the form of what is kept. What does not: the
//! file (`store::recordings`) and the masking of VINs (the trace and [`frames`], which
//! write into the ring).
//!
//! A link of an adapter is kept as a trace (`baygate simulate vehicle --replay` plays it
//! back), a bus as a candump log (`baygate decode --dbc` reads it).

pub mod frames;
pub mod lines;

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::clock::UtcMillis;
use crate::ident::Vin;

/// Lines older than this are forgotten: a scan takes ten seconds, its rules a moment.
const KEPT_FOR: Duration = Duration::from_secs(60);
/// And the oldest, beyond so many bytes: a scan has about 60 KiB.
const KEPT_BYTES: usize = 1 << 20;
/// Of questions and answers on a bus beside: a full bus has 1 MiB of its own talk in two seconds,
/// and a warning rests on what was asked in the ten before.
const KEPT_ANSWERS: usize = 256 << 10;
/// A line costs so much beside its text.
const LINE_BYTES: usize = 48;

/// How the lines of a ring are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// JSON Lines of an adapter's session.
    Trace,
    /// candump's log.
    Candump,
}

impl Form {
    /// How a file of it ends, compressed.
    #[must_use]
    pub fn extension(self) -> &'static str {
        match self {
            Self::Trace => "trace.jsonl.zst",
            Self::Candump => "candump.log.zst",
        }
    }
}

/// Handle to a ring; cheap to clone.
#[derive(Debug, Clone)]
pub struct Recording {
    ring: Arc<Mutex<Ring>>,
    form: Form,
}

#[derive(Debug, Default)]
struct Ring {
    /// Everything, but …
    lines: Lines,
    /// … questions and answers on a bus.
    answers: Lines,
    /// The beginning of a line.
    partial: Vec<u8>,
}

/// Lines and when they came, oldest first.
#[derive(Debug, Default)]
struct Lines {
    lines: VecDeque<(Instant, Box<[u8]>)>,
    bytes: usize,
}

impl Recording {
    /// An empty one.
    #[must_use]
    pub fn new(form: Form) -> Self {
        Self { ring: Arc::default(), form }
    }

    /// Its form.
    #[must_use]
    pub fn form(&self) -> Form {
        self.form
    }

    /// Keeps whole lines.
    pub fn push(&self, text: &[u8]) {
        self.push_at(text, Instant::now());
    }

    fn push_at(&self, text: &[u8], now: Instant) {
        let mut ring = self.lock();
        for &byte in text {
            ring.partial.push(byte);
            if byte == b'\n' || ring.partial.len() > KEPT_BYTES {
                let line = std::mem::take(&mut ring.partial).into_boxed_slice();
                ring.lines.push(line, now);
            }
        }
        ring.forget(now);
    }

    /// Keeps a whole line of a question or an answer: a bus's own talk does not push it out.
    pub fn push_answer(&self, line: &[u8]) {
        self.push_answer_at(line, Instant::now());
    }

    fn push_answer_at(&self, line: &[u8], now: Instant) {
        let mut ring = self.lock();
        ring.answers.push(line.into(), now);
        ring.forget(now);
    }

    /// Forgets everything: the next car's visit begins.
    pub fn clear(&self) {
        let mut ring = self.lock();
        (ring.lines, ring.answers) = (Lines::default(), Lines::default());
    }

    /// What is kept, as a file. `None`: nothing that would tell anything.
    ///
    /// `vin`: of the visit, masked wherever it stands in frames, and what may be another one with it;
    /// a trace has it masked already.
    #[must_use]
    pub fn written(&self, link: &str, vin: Option<&Vin>) -> Option<Vec<u8>> {
        let mut written = self.written_at(link, Instant::now())?;
        if self.form == Form::Candump {
            let known = vin.inspect(|vin| lines::mask_known(&mut written, vin.as_str())).is_some();
            let which = if known { lines::Likely::WithDigit } else { lines::Likely::Any };
            lines::mask_likely(&mut written, which);
        }
        Some(written)
    }

    fn written_at(&self, link: &str, now: Instant) -> Option<Vec<u8>> {
        let mut ring = self.lock();
        ring.forget(now);
        let mut all: Vec<_> = ring.answers.lines.iter().chain(&ring.lines.lines).collect();
        all.sort_by_key(|(came, _)| *came);
        let mut lines = all.into_iter().map(|(_, line)| &**line).peekable();
        let mut out = Vec::with_capacity(ring.answers.bytes + ring.lines.bytes);
        if self.form == Form::Trace {
            // An answer without its question plays back as nothing; headers of sessions
            // in between are for none of the bytes behind them.
            let is_question = |line: &[u8]| contains(line, b"\"dir\":\"tx\"");
            while lines.next_if(|line| !is_question(line)).is_some() {}
            let header =
                json!({"baygate_trace": 1, "link": link, "started_at": UtcMillis::now(), "vin_masked": true});
            out.extend_from_slice(format!("{header}\n").as_bytes());
        }
        lines.peek()?;
        for line in lines.filter(|line| self.form == Form::Candump || !contains(line, b"\"baygate_trace\"")) {
            out.extend_from_slice(line);
        }
        Some(out)
    }

    /// As a place to write a trace to.
    #[must_use]
    pub fn writer(&self) -> Box<dyn Write + Send + Sync> {
        Box::new(Writer(self.clone()))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ring {
    fn forget(&mut self, now: Instant) {
        self.lines.forget(now, KEPT_BYTES);
        self.answers.forget(now, KEPT_ANSWERS);
    }
}

impl Lines {
    fn push(&mut self, line: Box<[u8]>, now: Instant) {
        self.bytes += line.len() + LINE_BYTES;
        self.lines.push_back((now, line));
    }

    fn forget(&mut self, now: Instant, most_bytes: usize) {
        while let Some((time, line)) = self.lines.front() {
            if self.bytes <= most_bytes && now.saturating_duration_since(*time) <= KEPT_FOR {
                return;
            }
            self.bytes -= line.len() + LINE_BYTES;
            self.lines.pop_front();
        }
    }
}

fn contains(line: &[u8], part: &[u8]) -> bool {
    line.windows(part.len()).any(|window| window == part)
}

struct Writer(Recording);

impl Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.push(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(recording: &Recording, now: Instant) -> Option<Vec<String>> {
        let written = String::from_utf8(recording.written_at("elm327+tcp://x:1", now)?).unwrap();
        Some(written.lines().map(str::to_owned).collect())
    }

    #[test]
    fn a_trace_begins_with_a_header_and_a_question() {
        let recording = Recording::new(Form::Trace);
        let now = Instant::now();
        assert_eq!(text(&recording, now), None);
        recording.push_at(b"{\"baygate_trace\":1}\n{\"t_ms\":1,\"dir\":\"rx\"}\n", now);
        assert_eq!(text(&recording, now), None, "an answer alone");
        let question = "{\"t_ms\":2,\"dir\":\"tx\",\"hex\":\"30\"}";
        // In pieces, as a formatter writes.
        for piece in question.as_bytes().chunks(3) {
            recording.push_at(piece, now);
        }
        recording.push_at(b"\n{\"baygate_trace\":1}\n{\"t_ms\":3,\"dir\":\"rx\"}\n{\"t_ms\":4", now);
        let lines = text(&recording, now).unwrap();
        assert!(lines[0].contains("\"baygate_trace\":1") && lines[0].contains("\"vin_masked\":true"));
        assert_eq!(lines[1..], [question.to_owned(), "{\"t_ms\":3,\"dir\":\"rx\"}".to_owned()]);
        recording.clear();
        assert_eq!(text(&recording, now), None);
    }

    /// The visit's, or, where it gave none or a swapped unit's, the one that the car broadcasts.
    #[test]
    fn a_number_that_is_broadcast_is_in_no_log() {
        let recording = Recording::new(Form::Candump);
        recording.push(b"(1.0) can0 3E9#00314D3847444D39\n(1.0) can0 280#004B4C4D4E50\n");
        for (vin, values) in [
            (None, "30303030"),
            (Some("1M8GDM9AXKP042788"), "4B4C4D4E"),
            (Some("LSVAG2186E2100001"), "4B4C4D4E"),
        ] {
            let vin: Option<Vin> = vin.map(|vin| vin.parse().unwrap());
            let text = String::from_utf8(recording.written("can://can0", vin.as_ref()).unwrap()).unwrap();
            assert!(text.contains("3E9#0030303030303030") && text.contains(values), "{vin:?}: {text}");
        }
    }

    #[test]
    fn it_is_bounded_in_time_and_size() {
        let recording = Recording::new(Form::Candump);
        let begun = Instant::now();
        for second in 0..120_u32 {
            recording.push_at(
                format!("({second}.0) can0 044#00\n").as_bytes(),
                begun + Duration::from_secs(second.into()),
            );
        }
        let lines = text(&recording, begun + Duration::from_secs(119)).unwrap();
        assert_eq!((lines.len(), lines[0].as_str()), (61, "(59.0) can0 044#00"));
        assert_eq!(text(&recording, begun + Duration::from_secs(200)), None);

        let line = [b'x'; 1000];
        for _ in 0..3000 {
            recording.push_at(&line, begun);
            recording.push_at(b"\n", begun);
        }
        recording.push_at(&[b'y'; 3 << 20], begun);
        for _ in 0..3000 {
            recording.push_answer_at(&line, begun);
        }
        let ring = recording.lock();
        assert!(ring.lines.bytes <= KEPT_BYTES + LINE_BYTES && ring.partial.len() <= KEPT_BYTES + 1);
        assert!((KEPT_ANSWERS / 2..=KEPT_ANSWERS).contains(&ring.answers.bytes));
        for lines in [&ring.lines, &ring.answers] {
            let bytes = lines.lines.iter().map(|(_, line)| line.len() + LINE_BYTES);
            assert_eq!(lines.bytes, bytes.sum::<usize>());
        }
    }

    #[test]
    fn a_full_bus_pushes_no_answer_out() {
        let recording = Recording::new(Form::Candump);
        let begun = Instant::now();
        let at = |ms| begun + Duration::from_millis(ms);
        recording.push_answer_at(b"(0.0) can0 7DF#0103\n", at(0));
        recording.push_at(b"(0.1) can0 044#00\n", at(100));
        recording.push_answer_at(b"(0.2) can0 7E8#024300\n", at(200));
        let lines = text(&recording, at(200)).unwrap();
        assert_eq!(lines, ["(0.0) can0 7DF#0103", "(0.1) can0 044#00", "(0.2) can0 7E8#024300"]);
        // Nine frames a millisecond, for ten seconds.
        for ms in 0..10_000 {
            for _ in 0..9 {
                recording.push_at(b"(1.0) can0 044#0000000000000000\n", at(200 + ms));
            }
        }
        let lines = text(&recording, at(10_200)).unwrap();
        assert_eq!(lines[..2], ["(0.0) can0 7DF#0103", "(0.2) can0 7E8#024300"]);
        assert!(lines[2].contains("044#0000") && lines.len() > 10_000, "{}", lines.len());
        recording.clear();
        assert_eq!(text(&recording, at(10_200)), None);
    }
}
