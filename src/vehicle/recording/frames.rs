//! Frames of a bus as lines of a candump log, the car's number masked. What lives here: the
//! line, and which bytes of which frames may be a VIN. What does not: the ring that keeps the
//! lines (the module above).
//!
//! Masked are the answers to the questions for it (ISO-TP: 09 02, 22 F190, 22 F802; J1939: PGN
//! 65260), over all their frames, whoever asked. A number that a car broadcasts in frames of
//! its own is masked when the file is written, where it is known ([`super::lines`]: the visit's, or one
//! of [`FrameLines::numbers`]), and what looks like one where it may be another.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::Recording;
use super::lines::PIECE;
use crate::clock::UtcMillis;
use crate::ident::Vin;
use crate::link::can::{Frame, Id};
use crate::vehicle::vin;

/// Senders whose answer is followed at a time.
const MOST_OPEN: usize = 64;
/// Numbers remembered of one bus; a car has one, in two units at times.
const MOST_NUMBERS: usize = 4;
/// Characters of an answer that are looked at for one: VINs have 17, on trucks others may follow.
const MOST_CHARACTERS: usize = 40;

/// Writes frames into a ring.
#[derive(Debug)]
pub struct FrameLog {
    recording: Recording,
    lines: FrameLines,
}

impl FrameLog {
    /// Of an interface's frames; `interface` is one word.
    #[must_use]
    pub fn new(recording: Recording, interface: &str) -> Self {
        Self { recording, lines: FrameLines::new(interface) }
    }

    /// Keeps a frame that passed at `time`.
    pub fn frame(&mut self, frame: &Frame, time: UtcMillis) {
        let line = self.lines.line(frame, time.0.saturating_mul(1000), "").as_bytes();
        if is_diagnosis(frame.id()) {
            self.recording.push_answer(line);
        } else {
            self.recording.push(line);
        }
    }
}

/// Whether questions and answers have such an identifier (ISO 15765-4 §10.3, and 700 to 7FF of makers).
fn is_diagnosis(id: Id) -> bool {
    match (id.is_extended(), id.number()) {
        (false, number) => (0x700..=0x7FF).contains(&number),
        (true, number) => matches!(number >> 16, 0x18DA | 0x18DB),
    }
}

/// Frames to lines.
#[derive(Debug)]
pub struct FrameLines {
    interface: String,
    mask: VinFrames,
    line: String,
}

impl FrameLines {
    /// Of an interface's frames; `interface` is one word.
    #[must_use]
    pub fn new(interface: &str) -> Self {
        Self { interface: interface.to_owned(), mask: VinFrames::default(), line: String::new() }
    }

    /// The numbers that were told up to now, in answers that hold one.
    #[must_use]
    pub fn numbers(&self) -> &[String] {
        &self.mask.numbers
    }

    /// The line of a frame that passed at `time_us`, microseconds since 1970; `mark` ends it.
    pub fn line(&mut self, frame: &Frame, time_us: i64, mark: &str) -> &str {
        self.line.clear();
        let mut bytes = [0; 64];
        let Some(data) = bytes.get_mut(..frame.data().len()) else { return "" };
        data.copy_from_slice(frame.data());
        self.mask.mask(frame, data);
        // Writing into a string cannot fail.
        let _ = write!(
            self.line,
            "({}.{:06}) {} {}#",
            time_us.div_euclid(1_000_000),
            time_us.rem_euclid(1_000_000),
            self.interface,
            frame.id()
        );
        if frame.is_fd() {
            self.line.push_str("#0");
        }
        for byte in data {
            let _ = write!(self.line, "{byte:02X}");
        }
        self.line.push_str(mark);
        self.line.push('\n');
        &self.line
    }
}

/// Follows the messages that hold a VIN.
#[derive(Debug, Default)]
struct VinFrames {
    /// By the sender's identifier (ISO-TP) or address (J1939).
    open: BTreeMap<(bool, u32), Open>,
    numbers: Vec<String>,
}

#[derive(Debug)]
struct Open {
    /// Bytes (ISO-TP) or packets (J1939) still to come.
    missing: usize,
    /// What came.
    told: Vec<u8>,
}

impl VinFrames {
    /// Replaces what may be a VIN in `data`, the frame's bytes, by `0` (hex 30).
    fn mask(&mut self, frame: &Frame, data: &mut [u8]) {
        let id = frame.id();
        let [.., group, to, source] = id.number().to_be_bytes();
        match (id.is_extended(), group) {
            (true, 0xEC) => self.announcement(u32::from(source), data),
            (true, 0xEB) => {
                let rest = data.get_mut(1..).unwrap_or_default();
                if self.goes_on((true, u32::from(source)), 1, rest) {
                    hide(rest);
                }
            }
            // PGN 65260 in one frame: a number of less than eight characters.
            (true, 0xFE) if to == 0xEC => {
                self.number(true, data);
                hide(data);
            }
            _ => self.iso_tp((false, id.number()), data),
        }
    }

    /// TP.CM: kind, size, packets, …, group (SAE J1939-21 §5.10.3).
    fn announcement(&mut self, source: u32, data: &[u8]) {
        if let [0x10 | 0x20, _, _, packets, _, group @ ..] = data {
            self.open.remove(&(true, source));
            if group == [0xEC, 0xFE, 0x00] {
                self.begin((true, source), usize::from(*packets), &[]);
            }
        }
    }

    /// ISO 15765-2, with and without an address before the control bytes.
    fn iso_tp(&mut self, sender: (bool, u32), data: &mut [u8]) {
        for skip in [0, 1] {
            let Some(message) = data.get_mut(skip..) else { return };
            match message {
                [first @ 0x10..=0x1F, low, rest @ ..] => {
                    if let Some(marks) = vin::place_in(rest) {
                        let length = usize::from(*first & 0x0F) << 8 | usize::from(*low);
                        let missing = length.saturating_sub(rest.len());
                        let told = rest.get_mut(marks..).unwrap_or_default();
                        self.begin(sender, missing, told);
                        hide(told);
                        return;
                    }
                    if skip == 0 {
                        self.open.remove(&sender);
                    }
                }
                [0x20..=0x2F, rest @ ..] if self.goes_on(sender, rest.len(), rest) => {
                    hide(rest);
                    return;
                }
                // A single frame; of CAN FD with its length in the second byte.
                [length @ 0x00..=0x0F, rest @ ..] => {
                    for skip in [0, 1] {
                        if let Some(marks) = rest.get(skip..).and_then(vin::place_in) {
                            let length = rest.get(..skip).unwrap_or_default().first().unwrap_or(length);
                            let length = usize::from(*length);
                            let told = rest.get_mut(skip + marks..).unwrap_or_default();
                            // What fills the frame up is no part of it.
                            self.number(false, told.get(..length.saturating_sub(marks)).unwrap_or(told));
                            hide(told);
                            return;
                        }
                    }
                }
                _ => {}
            }
        }
        if begins_another(data) {
            self.open.remove(&sender);
        }
    }

    fn begin(&mut self, sender: (bool, u32), missing: usize, told: &[u8]) {
        if missing == 0 {
            self.number(sender.0, told);
            return;
        }
        // Messages that never ended.
        if self.open.len() >= MOST_OPEN {
            self.open.clear();
        }
        self.open.insert(sender, Open { missing, told: told.to_vec() });
    }

    /// Whether this is a part of a message that holds a VIN; counts and keeps it.
    fn goes_on(&mut self, sender: (bool, u32), amount: usize, part: &[u8]) -> bool {
        let Some(open) = self.open.get_mut(&sender) else { return false };
        // What fills the last frame up is no part of it; packets are counted, not their bytes.
        let part = part.get(..open.missing).filter(|_| !sender.0).unwrap_or(part);
        if open.told.len() < MOST_CHARACTERS {
            open.told.extend_from_slice(part);
        }
        open.missing = open.missing.saturating_sub(amount);
        if open.missing == 0
            && let Some(Open { told, .. }) = self.open.remove(&sender)
        {
            self.number(sender.0, &told);
        }
        true
    }

    /// Keeps a number that came whole: a VIN, or, `truckwise`, whatever is no shorter than a piece. On
    /// trucks a `*` ends it (SAE J1939-71).
    fn number(&mut self, truckwise: bool, told: &[u8]) {
        let told = told.split(|byte| *byte == b'*').next().unwrap_or_default();
        let characters = told.iter().filter(|byte| byte.is_ascii_alphanumeric());
        let number: String = characters.map(|byte| char::from(*byte)).collect();
        let known = self.numbers.contains(&number) || self.numbers.len() >= MOST_NUMBERS;
        let is_one = if truckwise { number.len() >= PIECE } else { number.parse::<Vin>().is_ok() };
        // One character over and over: no number was ever set, or it is masked already (a log played back).
        let set = number.bytes().zip(number.bytes().skip(1)).any(|(one, next)| one != next);
        if is_one && set && !known {
            self.numbers.push(number);
        }
    }
}

/// Whether a frame without a VIN is surely the first of a message, so that an earlier one of this
/// sender is over: with or without an address in front, and neither flow control nor, read either
/// way, a frame in the middle.
fn begins_another(data: &[u8]) -> bool {
    match data {
        [0x20..=0x3F, ..] | [_, 0x20..=0x2F, ..] => false,
        [0x00..=0x1F, ..] | [_, 0x00..=0x1F, ..] => true,
        _ => false,
    }
}

fn hide(bytes: &mut [u8]) {
    for byte in bytes.iter_mut().filter(|byte| byte.is_ascii_alphanumeric()) {
        *byte = b'0';
    }
}

#[cfg(test)]
mod tests;
