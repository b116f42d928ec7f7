//! Frames of the PN532 on a serial line (PN532 user manual UM0701-02 §6.2.1), pure. What lives
//! here: putting a frame together, finding frames in a stream of bytes. What does not: what they
//! say (`command`) and when they are sent (`line`).
//!
//! ```text
//!  00 00 FF  LEN LCS  D4 …  DCS 00        LEN + LCS = 0, D4 + … + DCS = 0, both modulo 256
//!  00 00 FF  FF FF  LENM LENL LCS  D4 …   beyond 255 bytes
//!  00 00 FF  00 FF  00                    acknowledged
//!  00 00 FF  FF 00  00                    not acknowledged: say that again
//! ```

use zeroize::Zeroizing;

/// From us to the chip.
const TO_CHIP: u8 = 0xD4;
/// From the chip to us.
const FROM_CHIP: u8 = 0xD5;
/// The chip did not understand a frame (§6.2.1.5).
const NOT_UNDERSTOOD: u8 = 0x7F;
/// The most an extended frame carries, direction byte included (§6.2.1.2).
pub(super) const MAX_LEN: usize = 265;
/// The longest frame: that, eight bytes before it and the checksum behind it.
const MAX_FRAME: usize = MAX_LEN + 9;

/// We heard; also stops the command that runs (§6.2.1.3).
pub(super) const ACK: [u8; 6] = [0x00, 0x00, 0xFF, 0x00, 0xFF, 0x00];
/// Say the last answer again (§6.2.1.4).
pub(super) const NACK: [u8; 6] = [0x00, 0x00, 0xFF, 0xFF, 0x00, 0x00];

/// What the chip sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Frame {
    /// It has the command.
    Ack,
    /// It wants our last frame again.
    Nack,
    /// It did not understand our last frame.
    NotUnderstood,
    /// An answer: its code and what follows.
    Answer(Zeroizing<Vec<u8>>),
}

/// A frame whose checksum is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Damaged;

/// The frame for a command: its code and parameters. Nothing in this house comes near
/// [`MAX_LEN`]; what is beyond is cut off.
pub(super) fn encode(command: &[u8]) -> Zeroizing<Vec<u8>> {
    let command = command.get(..MAX_LEN - 1).unwrap_or(command);
    let len = command.len() + 1;
    let mut frame = Zeroizing::new(Vec::with_capacity(len + 10));
    frame.extend_from_slice(&[0x00, 0x00, 0xFF]);
    match u8::try_from(len) {
        Ok(len) => frame.extend_from_slice(&[len, len.wrapping_neg()]),
        Err(_) => {
            let [high, low] = u16::try_from(len).unwrap_or(u16::MAX).to_be_bytes();
            frame.extend_from_slice(&[0xFF, 0xFF, high, low, high.wrapping_add(low).wrapping_neg()]);
        }
    }
    frame.push(TO_CHIP);
    frame.extend_from_slice(command);
    frame.push(sum(command).wrapping_add(TO_CHIP).wrapping_neg());
    frame.push(0x00);
    frame
}

fn sum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |sum: u8, byte| sum.wrapping_add(*byte))
}

/// Finds frames in a stream of bytes, whatever stands between them. Bounded by the longest frame.
#[derive(Debug, Default)]
pub(super) struct Decoder {
    bytes: Zeroizing<Vec<u8>>,
}

/// What the bytes begin with, and how many of them that is.
enum Found {
    Nothing(usize),
    Frame(Frame, usize),
    Damaged(usize),
    Incomplete,
}

impl Decoder {
    /// Takes bytes; [`next`](Self::next) is asked until it has nothing before more are given.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// The next frame among the bytes so far.
    pub(super) fn next(&mut self) -> Option<Result<Frame, Damaged>> {
        loop {
            let (told, used) = match find(&self.bytes) {
                Found::Nothing(0) | Found::Incomplete => return None,
                Found::Nothing(used) => (None, used),
                Found::Frame(frame, used) => (Some(Ok(frame)), used),
                Found::Damaged(used) => (Some(Err(Damaged)), used),
            };
            let used = used.min(self.bytes.len());
            self.bytes.drain(..used);
            if told.is_some() {
                return told;
            }
        }
    }

    /// Whether the bytes so far begin a frame whose end has not come.
    pub(super) fn is_begun(&self) -> bool {
        // Shorter ones may be what stands behind the frame before.
        self.bytes.len() >= 4
    }

    /// Forgets a frame that was begun.
    pub(super) fn clear(&mut self) {
        self.bytes.clear();
    }
}

fn find(bytes: &[u8]) -> Found {
    let Some(start) = bytes.windows(2).position(|pair| pair == [0x00, 0xFF]) else {
        let keep = usize::from(bytes.last() == Some(&0x00));
        return Found::Nothing(bytes.len() - keep);
    };
    if start > 0 {
        return Found::Nothing(start);
    }
    // A header that is none hides no frame: the search goes on behind its first byte.
    let noise = Found::Nothing(1);
    let (len, head) = match bytes.get(2..).unwrap_or_default() {
        [0x00, 0xFF, ..] => return Found::Frame(Frame::Ack, 4),
        [0xFF, 0x00, ..] => return Found::Frame(Frame::Nack, 4),
        [0xFF, 0xFF, high, low, check, ..] => {
            if sum(&[*high, *low, *check]) != 0 {
                return noise;
            }
            (usize::from(u16::from_be_bytes([*high, *low])), 7)
        }
        [0xFF, 0xFF, ..] | [] | [_] => return Found::Incomplete,
        [len, check, ..] => {
            if len.wrapping_add(*check) != 0 {
                return noise;
            }
            (usize::from(*len), 4)
        }
    };
    if !(1..=MAX_LEN).contains(&len) {
        return noise;
    }
    let Some(body) = bytes.get(head..head + len + 1) else {
        return if bytes.len() < MAX_FRAME { Found::Incomplete } else { noise };
    };
    if sum(body) != 0 {
        // Its length may be what was damaged: the bytes behind the header are looked at again.
        return Found::Damaged(head);
    }
    match body {
        [FROM_CHIP, answer @ .., _] => {
            Found::Frame(Frame::Answer(Zeroizing::new(answer.to_vec())), head + len + 1)
        }
        [NOT_UNDERSTOOD, ..] => Found::Frame(Frame::NotUnderstood, head + len + 1),
        // Our own frame, from a line that echoes.
        _ => Found::Nothing(head + len + 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the chip would send.
    fn from_chip(answer: &[u8]) -> Vec<u8> {
        let mut frame = encode(answer).to_vec();
        let direction = if answer.len() + 1 > 255 { 8 } else { 5 };
        frame[direction] = FROM_CHIP;
        let checksum = frame.len() - 2;
        frame[checksum] = frame[checksum].wrapping_sub(1);
        frame
    }

    fn heard(chunks: &[&[u8]]) -> Vec<Result<Frame, Damaged>> {
        let mut decoder = Decoder::default();
        let mut all = Vec::new();
        for chunk in chunks {
            decoder.push(chunk);
            all.extend(std::iter::from_fn(|| decoder.next()));
            assert!(decoder.bytes.len() < MAX_FRAME);
        }
        all
    }

    fn answer(bytes: &[u8]) -> Result<Frame, Damaged> {
        Ok(Frame::Answer(Zeroizing::new(bytes.to_vec())))
    }

    #[test]
    fn frames_as_published() {
        // GetFirmwareVersion and SAMConfiguration as in NXP AN10609_3 and the user manual §6.2.
        assert_eq!(hex::encode_upper(encode(&[0x02])), "0000FF02FED4022A00");
        assert_eq!(hex::encode_upper(encode(&[0x14, 0x01])), "0000FF03FDD414011700");
        let version = hex::decode("0000FF06FAD50332010607E800").unwrap();
        type Case = (&'static str, Vec<u8>, Vec<Result<Frame, Damaged>>);
        let cases: [Case; 9] = [
            ("ack", ACK.to_vec(), vec![Ok(Frame::Ack)]),
            ("nack", NACK.to_vec(), vec![Ok(Frame::Nack)]),
            ("version", version.clone(), vec![answer(&[0x03, 0x32, 0x01, 0x06, 0x07])]),
            (
                "ack and answer behind noise",
                [&[0x55, 0xFF, 0x00], &ACK[..], &[0x00], &version].concat(),
                vec![Ok(Frame::Ack), answer(&[0x03, 0x32, 0x01, 0x06, 0x07])],
            ),
            ("not understood", hex::decode("0000FF01FF7F8100").unwrap(), vec![Ok(Frame::NotUnderstood)]),
            ("wrong checksum", hex::decode("0000FF06FAD50332010607E900").unwrap(), vec![Err(Damaged)]),
            ("wrong length check", hex::decode("0000FF06FBD50332010607E800").unwrap(), vec![]),
            ("our own echo", encode(&[0x02]).to_vec(), vec![]),
            ("no length", hex::decode("0000FFFFFF0000000000").unwrap(), vec![]),
        ];
        for (name, bytes, expected) in cases {
            assert_eq!(heard(&[&bytes]), expected, "{name}");
        }
    }

    proptest::proptest! {
        #![proptest_config(crate::seed::cases(256))]

        /// Every answer comes through, extended ones too, however it is cut.
        #[test]
        fn every_split_gives_the_same_frames(
            said in proptest::collection::vec(0_u8.., 1..=MAX_LEN - 1), cut in 0_usize..600,
        ) {
            let bytes = [&ACK[..], &from_chip(&said)].concat();
            let (a, b) = bytes.split_at(cut.min(bytes.len()));
            let expected = vec![Ok(Frame::Ack), answer(&said)];
            assert_eq!(heard(&[a, b]), expected);
            let single: Vec<&[u8]> = bytes.chunks(1).collect();
            assert_eq!(heard(&single), expected);
        }

        /// Noise makes no answer but one whose checksums are right, and keeps nothing for long.
        #[test]
        fn noise_does_no_harm(bytes in proptest::collection::vec(0_u8.., 0..900)) {
            let _ = heard(&bytes.chunks(7).collect::<Vec<_>>());
        }

        /// Behind noise that begins no frame, the frame is found.
        #[test]
        fn a_frame_is_found_behind_noise(
            noise in proptest::collection::vec(1_u8..=0xFE, 0..80), said in proptest::collection::vec(0_u8.., 1..40),
        ) {
            assert_eq!(heard(&[&noise, &from_chip(&said)]), vec![answer(&said)]);
        }

        /// One wrong bit never gives another answer.
        #[test]
        fn a_wrong_bit_is_seen(said in proptest::collection::vec(0_u8.., 1..60), at in 0_usize..600, bit in 0_u32..8) {
            let mut bytes = from_chip(&said);
            let at = at % bytes.len();
            bytes[at] ^= 1 << bit;
            for frame in heard(&[&bytes]).into_iter().flatten() {
                assert!(Ok(frame.clone()) == answer(&said) || !matches!(frame, Frame::Answer(_)), "{frame:?}");
            }
        }
    }
}
