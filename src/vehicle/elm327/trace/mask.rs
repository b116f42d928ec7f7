//! Which digits of an adapter's reply may be a VIN. Pure. In the exchange that asks
//! for it every line is masked, garbled ones too. In any other what by its form answers
//! the question for a VIN, what continues such a message, and what continues a message
//! whose beginning nobody saw and could be the middle of a VIN: anything else would be
//! another answer spoilt.

use std::collections::BTreeMap;

use crate::vehicle::vin;

/// Senders of long messages remembered at most.
const MOST_OPEN: usize = 64;

/// Remembers messages whose end has not come.
#[derive(Debug, Default)]
pub(super) struct VinMask {
    /// Messages of several lines (CAN) that have begun, by the header of their lines.
    open: BTreeMap<String, Open>,
}

#[derive(Debug)]
struct Open {
    /// Bytes that are yet to come.
    missing: usize,
    holds_vin: bool,
}

impl VinMask {
    /// Replaces VIN characters by `0` (hex `30`), line by line, and repairs the sum of older
    /// buses' lines so that the masked reply is still a valid one.
    pub(super) fn reply(&mut self, reply: &mut [u8], asked: bool) {
        for line in reply.split_mut(|b| matches!(b, b'\r' | b'\n' | b'>')) {
            let places: Vec<usize> =
                line.iter().enumerate().filter(|(_, b)| b.is_ascii_hexdigit()).map(|(at, _)| at).collect();
            let digits: Vec<u8> = places.iter().filter_map(|at| line.get(*at).copied()).collect();
            let Some(masked) = self.masked(&digits, asked) else { continue };
            for (at, digit) in places.into_iter().zip(masked) {
                if let Some(byte) = line.get_mut(at) {
                    *byte = digit;
                }
            }
        }
    }

    fn masked(&mut self, digits: &[u8], asked: bool) -> Option<Vec<u8>> {
        let text = std::str::from_utf8(digits).ok()?;
        // `UNABLE TO CONNECT` and `NO DATA` hold hex letters too, but no line of theirs is this long.
        if digits.len() < 8 {
            return None;
        }
        let older_bus = digits.len().is_multiple_of(2) && !text.starts_with("18DA");
        let header = match older_bus {
            true => 6,
            false if !digits.len().is_multiple_of(2) => 3,
            false => 8,
        };
        let (head, tail) = text.split_at_checked(header)?;
        let mut bytes = hex::decode(tail).ok()?;
        let continues = self.follow(head, &bytes, older_bus);
        if !asked && !continues {
            return None;
        }
        let end = if older_bus { bytes.len().saturating_sub(1) } else { bytes.len() };
        let before = sum(&bytes, end);
        let answered_service = bytes.windows(2).position(|pair| matches!(pair, [0x62, 0xF1 | 0xF8]));
        for (at, byte) in bytes.iter_mut().enumerate().take(end) {
            if is_vin_character(*byte) && answered_service != Some(at) {
                *byte = b'0';
            }
        }
        let after = sum(&bytes, end);
        if let Some(checksum) = bytes.last_mut().filter(|_| older_bus) {
            *checksum = checksum.wrapping_sub(before).wrapping_add(after);
        }
        Some(format!("{head}{}", hex::encode_upper(bytes)).into_bytes())
    }

    /// Keeps count of messages that hold a VIN; whether this line is part of one.
    fn follow(&mut self, head: &str, bytes: &[u8], older_bus: bool) -> bool {
        if older_bus {
            // Each line of an older bus names what it answers.
            return vin::place_in(bytes).is_some();
        }
        match bytes {
            // ISO 15765-2: first frame with twelve bits of length, six bytes of data.
            [first @ 0x10..=0x1F, low, data @ ..] => {
                let length = usize::from(first & 0x0F) << 8 | usize::from(*low);
                let holds_vin = vin::place_in(data).is_some();
                if self.open.len() >= MOST_OPEN {
                    self.open.clear();
                }
                self.open.insert(head.to_owned(), Open { missing: length.saturating_sub(6), holds_vin });
                holds_vin
            }
            // Consecutive frame: up to seven bytes.
            [0x20..=0x2F, data @ ..] => {
                let Some(message) = self.open.get_mut(head).filter(|message| message.missing > 0) else {
                    return data.len() == 7 && data.iter().all(|byte| is_vin_character(*byte));
                };
                message.missing = message.missing.saturating_sub(data.len().min(7));
                message.holds_vin
            }
            [_, data @ ..] => vin::place_in(data).is_some(),
            [] => false,
        }
    }
}

fn sum(bytes: &[u8], end: usize) -> u8 {
    bytes.iter().take(end).fold(0, |sum, byte| sum.wrapping_add(*byte))
}

/// The characters of ISO 3779, as some cars write them in small letters too. The echoed
/// service 49 is `I`, which is none of them.
fn is_vin_character(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() && !matches!(byte.to_ascii_uppercase(), b'I' | b'O' | b'Q')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn masked(reply: &str) -> String {
        let mut bytes = reply.as_bytes().to_vec();
        VinMask::default().reply(&mut bytes, true);
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn vin_bytes_become_zeros_in_place() {
        for (name, reply, expected) in [
            (
                "11-bit, no spaces",
                "7E81014490201314434\r7E82147503030523535\r7E82242313233343536\r\r>",
                "7E81014490201303030\r7E82130303030303030\r7E82230303030303030\r\r>",
            ),
            ("11-bit, spaces", "7E8 10 14 49 02 01 31 44 34\r", "7E8 10 14 49 02 01 30 30 30\r"),
            (
                "29-bit",
                "18DAF1101014490201314434\r18DAF1102147503030523535\r",
                "18DAF1101014490201303030\r18DAF1102130303030303030\r",
            ),
            (
                "by UDS, small letters",
                "7E8101462F190316434\r7E82147626264523535\r",
                "7E8101462F190303030\r7E82130303030303030\r",
            ),
            ("nothing to mask", "NO DATA\r>", "NO DATA\r>"),
            ("refusal", "7E8037F0911\r>", "7E8037F0911\r>"),
        ] {
            assert_eq!(masked(reply), expected, "{name}");
        }
        // Older bus: header 48 6B 10, checksum last; the sum must hold again.
        let line = masked("486B10490201443447507A\r");
        let bytes = hex::decode(line.trim()).unwrap();
        assert_eq!(bytes[3..10], [0x49, 0x02, 0x01, 0x30, 0x30, 0x30, 0x30]);
        let original = hex::decode("486B10490201443447507A").unwrap();
        assert_eq!(bytes[10].wrapping_sub(sum(&bytes, 10)), original[10].wrapping_sub(sum(&original, 10)));
    }

    proptest! {
        #![proptest_config(crate::seed::cases(256))]

        /// Whatever comes, its length stays and nothing panics; without a VIN before it, later lines stand.
        #[test]
        fn lengths_stay(reply in "(7E8|18DAF110|[0-9A-F]{2}| |\\r|>|NO DATA){0,40}") {
            let mut bytes = reply.as_bytes().to_vec();
            let mut mask = VinMask::default();
            mask.reply(&mut bytes, true);
            prop_assert_eq!(bytes.len(), reply.len());
            let mut later = b"7E804410541\r\r>".to_vec();
            VinMask::default().reply(&mut later, false);
            prop_assert_eq!(later, b"7E804410541\r\r>");
        }
    }
}
