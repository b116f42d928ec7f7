//! ISO 15765-2:2016 (CAN classic, normal addressing) as an ECU does it: cuts a
//! message into frames and sends the rest when the tester's flow control allows.

use std::collections::VecDeque;
use std::time::Duration;

/// Longest message a first frame can announce without the escape (§9.6.2).
const LONGEST: usize = 0xFFF;

/// Cuts `payload` into CAN data fields of 8 bytes, filled up with `pad`.
/// Longer than 4095 bytes is cut off: no simulated ECU says so much.
#[must_use]
pub fn segment(payload: &[u8], pad: u8) -> Vec<Vec<u8>> {
    let payload = payload.get(..LONGEST).unwrap_or(payload);
    let fill = |mut frame: Vec<u8>| {
        frame.resize(8, pad);
        frame
    };
    let length = payload.len();
    if let (true, Ok(short)) = (length <= 7, u8::try_from(length)) {
        let mut frame = vec![short];
        frame.extend_from_slice(payload);
        return vec![fill(frame)];
    }
    let (head, rest) = payload.split_at(6);
    let [high, low] = u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes();
    let mut first = vec![0x10 | high, low];
    first.extend_from_slice(head);
    let mut frames = vec![first];
    for (chunk, index) in rest.chunks(7).zip((0_u8..16).cycle().skip(1)) {
        let mut frame = vec![0x20 | index];
        frame.extend_from_slice(chunk);
        frames.push(fill(frame));
    }
    frames
}

/// The payload of a single frame, else nothing.
#[must_use]
pub fn single(data: &[u8]) -> Option<&[u8]> {
    let (&pci, rest) = data.split_first()?;
    if pci & 0xF0 != 0 || pci == 0 {
        return None;
    }
    rest.get(..usize::from(pci))
}

/// Consecutive frames that wait for the tester's flow control.
#[derive(Debug, Clone, Default)]
pub struct Waiting {
    frames: VecDeque<Vec<u8>>,
    /// The next message loses its second half.
    halve: bool,
}

impl Waiting {
    /// The next message of several frames ends in its middle, the last frame at least is lost.
    pub fn halve(&mut self) {
        self.halve = true;
    }

    /// Sends the message's first frame and keeps the rest.
    pub fn start(&mut self, payload: &[u8], pad: u8) -> Option<Vec<u8>> {
        let mut frames: VecDeque<_> = segment(payload, pad).into();
        let first = frames.pop_front();
        // A short word in between ("busy") takes nothing back.
        if !frames.is_empty() {
            if std::mem::take(&mut self.halve) {
                frames.truncate(frames.len() / 2);
            }
            self.frames = frames;
        }
        first
    }

    /// Takes a frame from the tester. A flow control `30 BS STmin` releases frames,
    /// each with the gap the tester asked for; overflow (`32`) gives the message up.
    pub fn flow_control(&mut self, data: &[u8]) -> Vec<(Duration, Vec<u8>)> {
        let (block, gap) = match data {
            [0x30, block, gap, ..] => (*block, *gap),
            [0x30, block] => (*block, 0),
            [0x30] => (0, 0),
            [0x32, ..] => {
                self.frames.clear();
                return Vec::new();
            }
            _ => return Vec::new(),
        };
        let count = if block == 0 { self.frames.len() } else { usize::from(block).min(self.frames.len()) };
        self.frames.drain(..count).map(|frame| (separation(gap), frame)).collect()
    }
}

/// STmin (§9.6.5.4): 00–7F milliseconds, F1–F9 hundreds of microseconds, others mean 127 ms.
fn separation(gap: u8) -> Duration {
    match gap {
        0x00..=0x7F => Duration::from_millis(gap.into()),
        0xF1..=0xF9 => Duration::from_micros(u64::from(gap - 0xF0) * 100),
        _ => Duration::from_millis(127),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// ELM327 datasheet, "Multiline Responses": `49 02 01` and the VIN `1D4GP00R55B123456`.
    #[test]
    fn the_datasheets_vin_is_cut_as_printed_there() {
        let mut payload = vec![0x49, 0x02, 0x01];
        payload.extend_from_slice(b"1D4GP00R55B123456");
        let frames: Vec<String> = segment(&payload, 0).iter().map(hex::encode_upper).collect();
        assert_eq!(frames, ["1014490201314434", "2147503030523535", "2242313233343536"]);
    }

    #[test]
    fn frames_wait_for_flow_control_and_keep_its_block_size() {
        let mut waiting = Waiting::default();
        let first = waiting.start(&[0xAA; 30], 0x55).unwrap();
        assert_eq!(first[..2], [0x10, 30]);
        assert_eq!(waiting.flow_control(&[0x31]), []);
        let block = waiting.flow_control(&[0x30, 2, 0xF5]);
        assert_eq!(block.len(), 2);
        assert_eq!(block[0].0, Duration::from_micros(500));
        assert_eq!(block[1].1[0], 0x22);
        let rest = waiting.flow_control(&[0x30, 0, 0]);
        assert_eq!(rest.len(), 2);
        assert_eq!(rest[1].1, [0x24, 0xAA, 0xAA, 0xAA, 0x55, 0x55, 0x55, 0x55]);
    }

    #[test]
    fn half_of_one_message_is_lost() {
        let mut waiting = Waiting::default();
        waiting.halve();
        assert!(waiting.start(&[0xBB; 4], 0).is_some(), "a short one has no half");
        for (length, frames) in [(30, 2), (30, 4), (8, 1)] {
            waiting.start(&vec![0xAA; length], 0);
            assert_eq!(waiting.flow_control(&[0x30, 0, 0]).len(), frames);
        }
        waiting.halve();
        waiting.start(&[0xAA; 8], 0);
        assert_eq!(waiting.flow_control(&[0x30, 0, 0]), [], "its only consecutive frame");
    }

    #[test]
    fn the_frame_number_wraps_after_fifteen() {
        let frames = segment(&[0; 6 + 7 * 17], 0);
        let numbers: Vec<u8> = frames.iter().skip(1).map(|f| f[0]).collect();
        assert_eq!(numbers[14..], [0x2F, 0x20, 0x21]);
    }

    #[test]
    fn only_whole_single_frames_are_requests() {
        assert_eq!(single(&[2, 1, 0, 0, 0]), Some(&[1, 0][..]));
        assert_eq!(single(&[0x10, 8, 1]), None);
        assert_eq!(single(&[7, 1]), None);
        assert_eq!(single(&[]), None);
    }
}
