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
use crate::link::can::Frame;
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
        self.recording.push(self.lines.line(frame, time.0.saturating_mul(1000), "").as_bytes());
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
mod tests {
    use proptest::prelude::*;

    use super::super::lines::{mask_known, mask_likely};
    use super::*;
    use crate::link::can::Id;
    use crate::vehicle::candump;
    use crate::vehicle::recording::Form;

    const VIN: &str = "1M8GDM9AXKP042788";

    fn lines(frames: &[(Id, Vec<u8>, bool)]) -> String {
        let recording = Recording::new(Form::Candump);
        let mut log = FrameLog::new(recording.clone(), "can0");
        for (id, data, fd) in frames {
            log.frame(&Frame::new(*id, data, *fd).unwrap(), UtcMillis(1_436_509_052_249));
        }
        String::from_utf8(recording.written("can://can0", None).unwrap_or_default()).unwrap()
    }

    /// A message of a unit, cut up by ISO 15765-2.
    fn cut(prefix: &[u8], payload: &[u8]) -> Vec<Vec<u8>> {
        let first = 6 - prefix.len();
        let mut frames = vec![[prefix, &[0x10, payload.len() as u8], &payload[..first]].concat()];
        for (part, number) in payload[first..].chunks(7 - prefix.len()).zip(1_u8..) {
            frames.push([prefix, &[0x20 | number & 0x0F], part].concat());
        }
        frames
    }

    #[test]
    fn lines_are_candumps() {
        let text = lines(&[
            (Id::standard(0x44), vec![0x2A, 0x36], false),
            (Id::extended(0x18FE_CA00), vec![0; 12], true),
        ]);
        assert_eq!(
            text,
            "(1436509052.249000) can0 044#2A36\n(1436509052.249000) can0 18FECA00##0000000000000000000000000\n"
        );
        assert!(text.lines().all(|line| candump::parse(line.as_bytes()).is_some()));
    }

    #[test]
    fn the_number_is_masked_over_all_its_frames() {
        let answer = |head: &[u8]| [head, VIN.as_bytes()].concat();
        for (name, prefix, payload) in [
            ("09 02", &[][..], answer(&[0x49, 0x02, 0x01])),
            ("F190", &[], answer(&[0x62, 0xF1, 0x90])),
            ("F802", &[], answer(&[0x62, 0xF8, 0x02])),
            ("extended addressing", &[0xF1], answer(&[0x62, 0xF1, 0x90])),
        ] {
            let mut frames: Vec<_> =
                cut(prefix, &payload).into_iter().map(|data| (Id::standard(0x7E8), data, false)).collect();
            // Of another unit, in between.
            frames.insert(1, (Id::standard(0x7E9), vec![0x21, b'M', b'8', b'G'], false));
            let text = lines(&frames);
            for piece in ["4D3847", "474D39", "41584B", "4B5030", "303432", "373838"] {
                let elsewhere = piece == "4D3847";
                assert_eq!(text.contains(piece), elsewhere, "{name}: {piece} in {text}");
            }
        }
        let fd = [&[0x00, 20], &answer(&[0x62, 0xF1, 0x90])[..], &[0xCC, 0xCC]].concat();
        assert!(!lines(&[(Id::standard(0x7E8), fd, true)]).contains("4D38"));
        let mut truck = vec![(Id::extended(0x18EC_FF00), vec![0x20, 18, 0, 3, 0xFF, 0xEC, 0xFE, 0], false)];
        for (part, number) in answer(&[]).chunks(7).zip(1_u8..) {
            truck.push((Id::extended(0x18EB_FF00), [&[number], part].concat(), false));
        }
        assert!(!lines(&truck).contains("4D38"), "{}", lines(&truck));
    }

    /// The rest of a number that never came is not looked for in the next message.
    #[test]
    fn a_message_that_never_ended_is_forgotten() {
        let begun = [0x10, 0x14, 0x49, 0x02, 0x01, b'1', b'M', b'8'];
        let frame = |unit: u32, data: &[u8]| (Id::standard(unit), data.to_vec(), false);
        let rest = [0x21, b'S', b'P', b'E', b'E', b'D', b'4', b'2'];
        for (name, next) in [
            ("single frame", &[0x03, 0x41, 0x0D, 0x32, 0, 0, 0, 0][..]),
            ("first frame", &[0x10, 0x14, 0x49, 0x04, 0x01, b'X', b'Y', b'Z']),
            ("with an address", &[0xF1, 0x03, 0x41, 0x0D, 0x32, 0, 0, 0]),
        ] {
            let text = lines(&[frame(0x7E8, &begun), frame(0x7E8, next), frame(0x7E8, &rest)]);
            assert!(text.contains("2153504545443432"), "{name}: {text}");
        }
        // Flow control of the same unit ends nothing.
        let text = lines(&[frame(0x7E8, &begun), frame(0x7E8, &[0x30, 0, 0]), frame(0x7E8, &rest)]);
        assert!(text.contains("2130303030303030"), "{text}");
        // More of them than are followed: the last one is.
        let mut frames: Vec<_> = (0..=64).map(|unit| frame(0x700 + unit, &begun)).collect();
        frames.push(frame(0x740, &rest));
        assert!(lines(&frames).ends_with("740#2130303030303030\n"));
    }

    /// As it was told whole, by the units that tell it.
    #[test]
    fn a_number_is_known_when_it_came_whole() {
        let mut frames = FrameLines::new("can0");
        let mut pass = |id: Id, data: &[u8]| {
            frames.line(&Frame::new(id, data, false).unwrap(), 0, "");
            frames.numbers().to_vec()
        };
        let answer = [&[0x49, 0x02, 0x01], VIN.as_bytes()].concat();
        let parts = cut(&[], &answer);
        assert!(parts[..2].iter().all(|part| pass(Id::standard(0x7E8), part).is_empty()));
        assert_eq!(pass(Id::standard(0x7E8), &parts[2]), [VIN]);
        assert_eq!(pass(Id::extended(0x18FE_EC00), b"TRUCK*77"), [VIN, "TRUCK"]);
        assert_eq!(pass(Id::extended(0x18FE_EC01), b"0000000*"), [VIN, "TRUCK"]);
    }

    /// What fills frames up is none, nor is what stands where none was ever set.
    #[test]
    fn only_a_number_is_one() {
        let told = |frames: &[Vec<u8>]| {
            let mut lines = FrameLines::new("can0");
            for data in frames {
                lines.line(&Frame::new(Id::standard(0x7E9), data, data.len() > 8).unwrap(), 0, "");
            }
            lines.numbers().to_vec()
        };
        let answer = |number: &str| [&[0x62, 0xF1, 0x90], number.as_bytes()].concat();
        let single = |digits: &str| vec![hex::decode(digits).unwrap()];
        // With an address in front the last frame has room for three bytes more.
        let mut filled = cut(&[0xF1], &answer(VIN));
        filled.last_mut().unwrap().resize(8, 0x55);
        let of_fd = |number: &str| vec![[&[0x00, 20], &answer(number)[..], &[0x55; 2]].concat()];
        for (name, frames, expected) in [
            ("none, filled up", single("0362F19055555555"), &[][..]),
            ("none in a message of 09 02", single("0349020055555555"), &[]),
            ("part of one", single("0762F19031324D38"), &[]),
            ("never set", cut(&[], &answer("XXXXXXXXXXXXXXXXX")), &[]),
            ("no VIN", cut(&[], &answer("NOT PROGRAMMED YET")), &[]),
            ("filled up behind it", filled, &[VIN]),
            ("CAN FD", of_fd(VIN), &[VIN]),
            ("never set, CAN FD", of_fd("XXXXXXXXXXXXXXXXX"), &[]),
        ] {
            assert_eq!(told(&frames), expected, "{name}");
        }
    }

    proptest! {
        #![proptest_config(crate::seed::cases(256))]

        /// Whatever passes: each frame is one line that reads back, and nothing grows.
        #[test]
        fn any_frame_is_a_line(frames in prop::collection::vec((any::<u32>(), any::<bool>(), prop::collection::vec(any::<u8>(), 0..9)), 1..60)) {
            let recording = Recording::new(Form::Candump);
            let mut log = FrameLog::new(recording.clone(), "can0");
            for (id, extended, data) in &frames {
                let id = if *extended { Id::extended(*id) } else { Id::standard(*id) };
                log.frame(&Frame::new(id, data, false).unwrap(), UtcMillis(0));
                prop_assert!(log.lines.mask.open.len() <= MOST_OPEN);
            }
            let mut written = recording.written("can://can0", None).unwrap();
            mask_known(&mut written, VIN);
            mask_likely(&mut written);
            let text = String::from_utf8(written).unwrap();
            prop_assert_eq!(text.lines().filter(|line| candump::parse(line.as_bytes()).is_some()).count(), frames.len());
        }
    }
}
