//! Plays back a bus that was recorded with `baygate scan --trace`, or by the daemon: what was sent
//! then is answered as it was then, with the pauses of then. Written from candump's log format
//! (can-utils); shares nothing with the driver.
//!
//! ```text
//! (12.000000) can0 7DF#0201000000000000 T     asked: looked up from where the last one was found
//! (12.006294) can0 7E8#064100BE3FA81300 R     answered 6.294 ms later
//! ```
//!
//! Where the letter is missing, the identifier tells who spoke. What was heard before anything was
//! asked is said over and over: a truck's units broadcast.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use super::car::Frame;
use super::spec::SpecError;

/// Lines of a log at most.
const LONGEST: usize = 4_000_000;
/// Between the end of what is said unasked and its beginning.
const BREATH: Duration = Duration::from_millis(100);
/// Different requests counted that the recording does not have.
const MOST_MISSED: usize = 256;

/// A frame that was sent, and what was heard until the next one was.
#[derive(Debug, Clone, PartialEq)]
struct Exchange {
    asked: Frame,
    heard: Vec<(Duration, Frame)>,
}

/// A recorded bus.
#[derive(Debug, Clone, PartialEq)]
pub struct Tape {
    exchanges: Vec<Exchange>,
    /// Heard before anything was asked, each after the first one.
    unasked: Vec<(Duration, Frame)>,
    /// When that is said again.
    again: Option<Instant>,
    /// Behind the place where the last frame was found.
    position: usize,
    missed: BTreeMap<String, u64>,
}

impl Tape {
    /// Reads a log.
    ///
    /// # Errors
    /// [`SpecError::File`] naming the line.
    pub fn read(text: &str) -> Result<Self, SpecError> {
        let (mut exchanges, mut unasked): (Vec<Exchange>, Vec<_>) = (Vec::new(), Vec::new());
        let mut since = None;
        for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            let wrong = |what: &str| SpecError::File(format!("line {}: {what}", number + 1));
            if number >= LONGEST {
                return Err(wrong("the log is longer than four million lines"));
            }
            let mut words = line.split_ascii_whitespace();
            let time = words.next().and_then(time).ok_or_else(|| wrong("no time like (12.345678)"))?;
            let text = words.nth(1).ok_or_else(|| wrong("no interface and frame"))?;
            if text.contains("##") {
                return Err(wrong("a CAN FD frame; only classic ones are played"));
            }
            // Remote frames and errors hold nothing to play.
            let Some(frame) = frame(text).ok_or_else(|| wrong("no frame like 7DF#020100"))? else { continue };
            let sent = words.next().map_or_else(|| is_testers(&frame), |mark| mark == "T");
            let after = time.saturating_sub(*since.get_or_insert(time));
            match (sent, exchanges.last_mut()) {
                (true, _) => {
                    since = Some(time);
                    exchanges.push(Exchange { asked: frame, heard: Vec::new() });
                }
                (false, Some(exchange)) => exchange.heard.push((after, frame)),
                (false, None) => unasked.push((after, frame)),
            }
        }
        if exchanges.is_empty() {
            return Err(SpecError::File(
                "nothing was sent in it; record one with `baygate scan LINK --trace FILE`".into(),
            ));
        }
        Ok(Self { exchanges, unasked, again: None, position: 0, missed: BTreeMap::new() })
    }

    /// Whether anything is said unasked.
    pub(super) fn broadcasts(&self) -> bool {
        !self.unasked.is_empty()
    }

    /// What is said unasked, each after its time; nothing while it is being said.
    pub(super) fn tick(&mut self) -> Vec<(Duration, Frame)> {
        let now = Instant::now();
        if self.again.is_some_and(|at| now < at) {
            return Vec::new();
        }
        self.again = self.unasked.last().map(|(after, _)| now + *after + BREATH);
        self.unasked.clone()
    }

    /// What was heard behind this frame then.
    pub(super) fn on_frame(&mut self, frame: &Frame) -> Vec<(Duration, Frame)> {
        let mut order = (self.position..self.exchanges.len()).chain(0..self.position);
        let found = order.find_map(|at| Some((at, self.exchanges.get(at).filter(|e| e.asked == *frame)?)));
        match found {
            Some((at, exchange)) => {
                self.position = at + 1;
                exchange.heard.clone()
            }
            None => {
                self.miss(frame);
                Vec::new()
            }
        }
    }

    /// Frames that the recording does not have, and how often each was sent.
    pub(super) fn missed(&self) -> BTreeMap<String, u64> {
        self.missed.clone()
    }

    fn miss(&mut self, frame: &Frame) {
        // Flow control asks for nothing of its own.
        if matches!(frame.data.first(), Some(0x30..=0x3F)) {
            return;
        }
        let digits = if frame.extended { 8 } else { 3 };
        let name = format!("{:0digits$X}#{}", frame.id, hex::encode_upper(&frame.data));
        if self.missed.len() < MOST_MISSED || self.missed.contains_key(&name) {
            *self.missed.entry(name).or_default() += 1;
        }
    }
}

/// `(12.345678)`.
fn time(word: &str) -> Option<Duration> {
    let (seconds, fraction) = word.strip_prefix('(')?.strip_suffix(')')?.split_once('.')?;
    let micros: u64 = Some(fraction).filter(|digits| digits.len() == 6)?.parse().ok()?;
    Some(Duration::from_secs(seconds.parse().ok()?) + Duration::from_micros(micros))
}

/// `7DF#020100`. `None`: no frame; `Some(None)`: one without data to play.
fn frame(text: &str) -> Option<Option<Frame>> {
    let (id, data) = text.split_once('#')?;
    let extended = id.len() == 8;
    let number = u32::from_str_radix(id, 16).ok().filter(|_| extended || id.len() == 3)?;
    // CAN_ERR_FLAG of linux/can.h.
    if data.starts_with('R') || number & 0x2000_0000 != 0 {
        return Some(None);
    }
    let data = hex::decode(data).ok().filter(|data| data.len() <= 8)?;
    Some(Some(Frame { id: number, extended, data }))
}

/// Identifiers of testers: ISO 15765-4, BMW's 6F1, address F9 of SAE J1939.
fn is_testers(frame: &Frame) -> bool {
    let [_, format, _, source] = frame.id.to_be_bytes();
    match frame.extended {
        false => matches!(frame.id, 0x6F1 | 0x7DF..=0x7E7),
        true => matches!(format, 0xDA | 0xDB) && source == 0xF1 || source == 0xF9,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "(1.000000) can0 18FECA00#04FF640001010000 R
(2.000000) can0 7DF#0201000000000000 T
(2.010000) can0 7E8#064100BE3FA81300 R
(2.011500) can0 7E9#0641008000000100 R
(3.000000) can0 7DF#02010C0000000000 T
(3.002000) can0 7E8#04410C0CB2000000 R
(4.000000) can0 7DF#02010C0000000000
(4.001000) can0 7E8#04410C0CB4000000
";

    fn asked(data: &str) -> Frame {
        Frame { id: 0x7DF, extended: false, data: hex::decode(data).unwrap() }
    }

    #[test]
    fn a_frame_gets_its_next_answers_then_the_first_again() {
        let mut tape = Tape::read(LOG).unwrap();
        let mut told = |data: &str| -> Vec<(u64, String)> {
            let heard = tape.on_frame(&asked(data)).into_iter();
            heard.map(|(after, frame)| (after.as_micros() as u64, hex::encode_upper(frame.data))).collect()
        };
        let mask = [(10_000, "064100BE3FA81300".to_owned()), (11_500, "0641008000000100".to_owned())];
        assert_eq!(told("0201000000000000"), mask);
        assert_eq!(told("02010C0000000000"), [(2_000, "04410C0CB2000000".to_owned())]);
        assert_eq!(told("02010C0000000000"), [(1_000, "04410C0CB4000000".to_owned())]);
        assert_eq!(told("02010C0000000000"), [(2_000, "04410C0CB2000000".to_owned())]);
        assert!(told("02010D0000000000").is_empty() && told("3000000000000000").is_empty());
        assert_eq!(tape.missed().into_iter().collect::<Vec<_>>(), [("7DF#02010D0000000000".to_owned(), 1)]);
        assert!(tape.broadcasts());
        assert_eq!((tape.tick().len(), tape.tick().len()), (1, 0), "said, and being said");
    }

    #[test]
    fn a_bad_log_is_refused_with_its_line() {
        for (text, word) in [
            ("", "nothing was sent"),
            ("(1.000000) can0 7E8#0102 R", "nothing was sent"),
            ("hello", "line 1: no time"),
            ("(1.0) can0 7DF#00 T", "line 1: no time"),
            ("(1.000000) can0", "line 1: no interface"),
            ("(1.000000) can0 7DF#00 T\n(2.000000) can0 7E#00", "line 2: no frame"),
            ("(1.000000) can0 7DF##000 T", "line 1: a CAN FD"),
        ] {
            let error = Tape::read(text).unwrap_err().to_string();
            assert!(error.contains(word), "{text}: {error}");
        }
    }
}
