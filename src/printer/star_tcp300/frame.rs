//! Frames of the Star TCP300, pure functions on bytes. Layout and sources:
//! `docs/devices/star-tcp300.md`.
//!
//! ```text
//! host     02 CMD DATA… 03 BCC         BCC = CMD xor … xor 03, DATA ≤ 1024 bytes of text
//! printer  06 | 15 | 10                ACK, NAK (send again), DLE (withdrawn)
//! printer  02 CMD STATUS DATA… 03 BCC  host answers 06 or 15
//! ```

use std::fmt::Write as _;

use super::super::bitmap::Bitmap;
use super::status::Status;

const STX: u8 = 0x02;
const ETX: u8 = 0x03;
/// "Received well."
pub const ACK: u8 = 0x06;
/// "Send it again."
pub const NAK: u8 = 0x15;
/// "Not taken."
pub const DLE: u8 = 0x10;
/// Data of a frame, at most (TCP300II manual p. 6).
pub const MAX_DATA: usize = 1024;
/// Columns of a block: with whole columns of 40 bytes as text it just stays under [`MAX_DATA`].
const BLOCK_COLUMNS: u32 = 12;
/// White bytes that are cheaper to skip than to send, in one column and in a block: a
/// frame of its own costs about 20 bytes with its answers, a byte of the image two.
const COLUMN_GAP: usize = 10;
const BLOCK_GAP: usize = 2;

/// What the driver tells the printer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// 40: clear the print expansion buffer.
    ClearPrintBuffer,
    /// 49: clear the rasterized image register buffer, where [`Command::Column`] writes.
    ClearImageBuffer,
    /// 43: dots downwards in one column.
    Column {
        /// Column, 0 to 479.
        x: u16,
        /// First byte of eight dots, 0 to 39.
        y: u8,
        /// Bytes downwards; bit 0 is the upper dot.
        dots: Vec<u8>,
    },
    /// 4D: dots downwards in several columns.
    Block {
        /// First column, 0 to 479.
        x: u16,
        /// First byte of eight dots, 0 to 39.
        y: u8,
        /// Bytes in each column.
        length: u8,
        /// Column after column.
        dots: Vec<u8>,
    },
    /// 46 with discharge `1`: erase, print, and leave the card in the exit to be pulled out.
    EraseAndPrint,
    /// 54: stop waiting for a card.
    CancelWaiting,
    /// 59: sensors.
    Status,
}

impl Command {
    /// The command byte.
    #[must_use]
    pub fn code(&self) -> u8 {
        match self {
            Self::ClearPrintBuffer => 0x40,
            Self::ClearImageBuffer => 0x49,
            Self::Column { .. } => 0x43,
            Self::Block { .. } => 0x4D,
            Self::EraseAndPrint => 0x46,
            Self::CancelWaiting => 0x54,
            Self::Status => 0x59,
        }
    }

    /// The frame on the wire.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let data = match self {
            Self::Column { x, y, dots } => with_dots(format!("{x},{y},"), dots),
            Self::Block { x, y, length, dots } => with_dots(format!("{x},{y},{length},"), dots),
            Self::EraseAndPrint => "1".to_owned(),
            _ => String::new(),
        };
        let mut frame = vec![STX, self.code()];
        frame.extend_from_slice(data.as_bytes());
        frame.push(ETX);
        frame.push(check(frame.get(1..).unwrap_or(&[])));
        frame
    }
}

/// BCC: every byte from the command to ETX, exclusive-ored.
#[must_use]
pub fn check(command_to_etx: &[u8]) -> u8 {
    command_to_etx.iter().fold(0, |bcc, byte| bcc ^ byte)
}

/// Two characters a byte.
fn with_dots(parameters: String, dots: &[u8]) -> String {
    dots.iter().fold(parameters, |mut text, byte| {
        // Writing into a String cannot fail.
        let _ = write!(text, "{byte:02X}");
        text
    })
}

/// The image as 4D commands. White parts are left out: the buffer was cleared.
#[must_use]
pub fn blocks(face: &Bitmap) -> Vec<Command> {
    let columns = columns(face);
    let mut commands = Vec::new();
    for (first, window) in (0..).step_by(BLOCK_COLUMNS as usize).zip(columns.chunks(BLOCK_COLUMNS as usize)) {
        let height = window.first().map_or(0, Vec::len);
        let any: Vec<u8> =
            (0..height).map(|y| window.iter().fold(0, |b, column| b | column.get(y).unwrap_or(&0))).collect();
        for run in runs(&any, BLOCK_GAP) {
            let dots: Vec<u8> =
                window.iter().flat_map(|column| column.get(run.clone()).unwrap_or(&[])).copied().collect();
            if let (Ok(x), Ok(y), Ok(length)) =
                (u16::try_from(first), u8::try_from(run.start), u8::try_from(run.len()))
            {
                commands.push(Command::Block { x, y, length, dots });
            }
        }
    }
    commands
}

/// The image as 43 commands, for firmware that does not know 4D: slower by the
/// answers to hundreds of commands.
#[must_use]
pub fn lines(face: &Bitmap) -> Vec<Command> {
    let mut commands = Vec::new();
    for (x, column) in (0_u16..).zip(columns(face)) {
        for run in runs(&column, COLUMN_GAP) {
            if let (Ok(y), Some(dots)) = (u8::try_from(run.start), column.get(run.clone())) {
                commands.push(Command::Column { x, y, dots: dots.to_vec() });
            }
        }
    }
    commands
}

fn columns(face: &Bitmap) -> Vec<Vec<u8>> {
    let canvas = face.canvas();
    let column = |x| (0..canvas.height.div_ceil(8)).map(|y| eight_dots(face, x, y * 8)).collect();
    (0..canvas.width).map(column).collect()
}

/// Bit 0 is the upper dot.
fn eight_dots(face: &Bitmap, x: u32, top: u32) -> u8 {
    (0..8).fold(0, |byte, bit| if face.dot(x, top + bit) { byte | (1 << bit) } else { byte })
}

/// Stretches to send: from printed to printed byte, across white gaps shorter than `gap`.
fn runs(column: &[u8], gap: usize) -> Vec<std::ops::Range<usize>> {
    let mut runs: Vec<std::ops::Range<usize>> = Vec::new();
    for (position, _) in column.iter().enumerate().filter(|(_, byte)| **byte != 0) {
        match runs.last_mut() {
            Some(run) if position - run.end < gap => run.end = position + 1,
            _ => runs.push(position..position + 1),
        }
    }
    runs
}

/// What the printer says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// 06.
    Ack,
    /// 15.
    Nak,
    /// 10.
    Dle,
    /// A response whose BCC is right.
    Response {
        /// The command it belongs to.
        command: u8,
        /// What came of it.
        status: Status,
        /// Data behind the status.
        data: Vec<u8>,
    },
    /// A response that did not come through: wrong BCC, too long or empty.
    Damaged,
}

/// Cuts the printer's bytes into replies. Anything outside of a frame that is no
/// reply is noise and dropped.
#[derive(Debug, Default)]
pub struct Decoder {
    frame: Option<Vec<u8>>,
    ended: bool,
}

impl Decoder {
    /// Takes one byte; a reply comes out with its last one.
    pub fn push(&mut self, byte: u8) -> Option<Reply> {
        let Some(frame) = self.frame.as_mut() else {
            match byte {
                STX => self.frame = Some(Vec::new()),
                ACK => return Some(Reply::Ack),
                NAK => return Some(Reply::Nak),
                DLE => return Some(Reply::Dle),
                _ => {}
            }
            return None;
        };
        if !self.ended {
            frame.push(byte);
            self.ended = byte == ETX;
            if frame.len() <= MAX_DATA + 3 {
                return None;
            }
        }
        let frame = std::mem::take(frame);
        let whole = std::mem::take(&mut self.ended);
        self.frame = None;
        match frame.as_slice() {
            [command, status, data @ .., ETX] if whole && byte == check(&frame) => {
                Some(Reply::Response { command: *command, status: Status(*status), data: data.to_vec() })
            }
            _ => Some(Reply::Damaged),
        }
    }

    /// Forgets a frame that was begun: its end did not come in time.
    pub fn reset(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::printer::bitmap::Canvas;
    use proptest::prelude::*;

    /// Frames printed in the maker's manual (TCP300II: p. 24, 46, 52 of the TCP300's).
    #[test]
    fn frames_of_the_manual() {
        for (name, command, expected) in [
            ("clear print buffer", Command::ClearPrintBuffer, vec![0x02, 0x40, 0x03, 0x43]),
            ("clear image buffer", Command::ClearImageBuffer, vec![0x02, 0x49, 0x03, 0x4A]),
            ("cancel waiting", Command::CancelWaiting, vec![0x02, 0x54, 0x03, 0x57]),
            ("status", Command::Status, vec![0x02, 0x59, 0x03, 0x5A]),
            ("print", Command::EraseAndPrint, vec![0x02, 0x46, b'1', 0x03, 0x46 ^ b'1' ^ 0x03]),
        ] {
            assert_eq!(command.encode(), expected, "{name}");
        }
        let column = Command::Column { x: 479, y: 3, dots: vec![0xA3, 0x00] }.encode();
        assert_eq!(column[..column.len() - 1], *b"\x02C479,3,A300\x03");
    }

    /// TCP300II manual p. 31: dots 0, 1, 5 and 7 are `A3`.
    #[test]
    fn the_lower_bit_is_the_upper_dot() {
        let mut face = Bitmap::new(Canvas { width: 2, height: 16 });
        for y in [8, 9, 13, 15] {
            face.set(1, y, true);
        }
        assert_eq!(lines(&face), [Command::Column { x: 1, y: 1, dots: vec![0xA3] }]);
        assert_eq!(blocks(&face), [Command::Block { x: 0, y: 1, length: 1, dots: vec![0, 0xA3] }]);
    }

    #[test]
    fn white_gaps_are_skipped_when_that_is_shorter() {
        let mut column = vec![0; 40];
        assert!(runs(&column, 10).is_empty());
        for printed in [2, 5, 30, 39] {
            column[printed] = 1;
        }
        assert_eq!(runs(&column, 10), [2..6, 30..40]);
        assert_eq!(runs(&column, 2), [2..3, 5..6, 30..31, 39..40]);
    }

    fn replies(bytes: &[u8]) -> Vec<Reply> {
        let mut decoder = Decoder::default();
        bytes.iter().filter_map(|byte| decoder.push(*byte)).collect()
    }

    fn response(command: u8, status: u8, data: &[u8]) -> Vec<u8> {
        let mut frame = vec![command, status];
        frame.extend_from_slice(data);
        frame.push(ETX);
        frame.push(check(&frame));
        frame.insert(0, STX);
        frame
    }

    proptest! {
        #![proptest_config(crate::seed::cases(256))]

        #[test]
        fn responses_come_through_noise(
            noise in prop::collection::vec(0x20_u8.., 0..40),
            command in 0x20_u8..=0x96, status in 0x20_u8..0x60, data in "[0-9A-F,]{0,64}",
        ) {
            let mut bytes = noise;
            bytes.extend(response(command, status, data.as_bytes()));
            bytes.push(ACK);
            let expected = Reply::Response { command, status: Status(status), data: data.into_bytes() };
            prop_assert_eq!(replies(&bytes), [expected, Reply::Ack]);
        }

        #[test]
        fn a_flipped_bit_never_passes(
            status in 0x20_u8..0x60, data in "[0-9]{7}", position in 1_usize..11, bit in 0_u8..8,
        ) {
            let good = response(0x59, status, data.as_bytes());
            let mut bytes = good.clone();
            bytes[position] ^= 1 << bit;
            let right = Reply::Response { command: 0x59, status: Status(status), data: data.into_bytes() };
            prop_assert!(!replies(&bytes).contains(&right));
            let passed = replies(&bytes).iter().any(|reply| matches!(reply, Reply::Response { .. }));
            prop_assert!(!passed);
        }

        #[test]
        fn any_bytes_are_survived_and_forgotten(bytes in prop::collection::vec(any::<u8>(), 0..4000)) {
            let mut decoder = Decoder::default();
            for byte in &bytes {
                decoder.push(*byte);
                prop_assert!(decoder.frame.as_ref().is_none_or(|frame| frame.len() <= MAX_DATA + 3));
            }
            decoder.reset();
            let after: Vec<Reply> = response(0x40, 0x20, b"").iter().filter_map(|b| decoder.push(*b)).collect();
            prop_assert_eq!(after.len(), 1);
        }

        #[test]
        fn the_image_is_the_face(dots in prop::collection::vec((0_u32..480, 0_u32..320), 0..200)) {
            let mut face = Bitmap::new(Canvas::TCP300);
            for (x, y) in dots {
                face.set(x, y, true);
            }
            for commands in [lines(&face), blocks(&face)] {
                let mut painted = Bitmap::new(Canvas::TCP300);
                for command in commands {
                    prop_assert!(command.encode().len() <= MAX_DATA + 4);
                    let (x, y, length, dots) = match command {
                        Command::Column { x, y, dots } => (x, y, dots.len(), dots),
                        Command::Block { x, y, length, dots } => (x, y, usize::from(length), dots),
                        other => panic!("{other:?}"),
                    };
                    for (x, column) in (u32::from(x)..).zip(dots.chunks(length)) {
                        for (y, byte) in (u32::from(y)..).zip(column) {
                            for bit in (0..8).filter(|bit| byte >> bit & 1 == 1) {
                                painted.set(x, y * 8 + bit, true);
                            }
                        }
                    }
                }
                prop_assert_eq!(&painted, &face);
            }
        }
    }
}
