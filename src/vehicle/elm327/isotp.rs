//! Frames of one reply to whole messages, sender by sender. Pure. On CAN by
//! ISO 15765-2 (the adapter sends the flow control itself); on older buses every
//! frame is a message. Several senders interleave, one sender may send several.

use std::collections::BTreeMap;

use super::frame::Frame;
use crate::vehicle::answer::{Assembled, Broken, Message};
use crate::vehicle::protocol::EcuAddress;

/// The longest message of classic ISO-TP (12-bit length).
const MAX_MESSAGE: usize = 0xFFF;

struct Partial {
    payload: Vec<u8>,
    length: usize,
    next: u8,
}

/// Puts messages together from CAN frames.
#[must_use]
pub fn assemble(frames: &[Frame]) -> Assembled {
    let mut done = Assembled::default();
    let mut open: BTreeMap<&EcuAddress, Partial> = BTreeMap::new();
    for Frame { sender, data } in frames {
        match data.as_slice() {
            // Single frame: 0L.
            [control @ 0x01..=0x07, rest @ ..] => match rest.get(..usize::from(*control)) {
                Some(payload) => {
                    done.messages.push(Message { sender: sender.clone(), payload: payload.to_vec() });
                }
                None => done.broken.push(Broken { sender: sender.clone(), beginning: rest.to_vec() }),
            },
            // First frame: 1L LL.
            [control @ 0x10..=0x1F, low, rest @ ..] => {
                let length = usize::from(control & 0x0F) << 8 | usize::from(*low);
                let partial = Partial { payload: rest.to_vec(), length: length.min(MAX_MESSAGE), next: 1 };
                if let Some(earlier) = open.insert(sender, partial) {
                    done.broken.push(Broken { sender: sender.clone(), beginning: earlier.payload });
                }
            }
            // Consecutive frame: 2N, N wraps from F to 0.
            [control @ 0x20..=0x2F, rest @ ..] => {
                continue_message(sender, control & 0x0F, rest, &mut open, &mut done);
            }
            // Flow control (3x) or no ISO-TP at all: not part of an answer.
            _ => {}
        }
    }
    done.broken.extend(
        open.into_iter()
            .map(|(sender, partial)| Broken { sender: sender.clone(), beginning: partial.payload }),
    );
    done
}

fn continue_message<'f>(
    sender: &'f EcuAddress,
    number: u8,
    data: &[u8],
    open: &mut BTreeMap<&'f EcuAddress, Partial>,
    done: &mut Assembled,
) {
    // Without a beginning it is the rest of an earlier, late answer: nobody asked for it.
    let Some(mut partial) = open.remove(sender) else { return };
    if number != partial.next {
        done.broken.push(Broken { sender: sender.clone(), beginning: partial.payload });
        return;
    }
    partial.next = (partial.next + 1) & 0x0F;
    partial.payload.extend_from_slice(data);
    if partial.payload.len() >= partial.length {
        // Padding of the last frame.
        partial.payload.truncate(partial.length);
        done.messages.push(Message { sender: sender.clone(), payload: partial.payload });
    } else {
        open.insert(sender, partial);
    }
}

/// Older buses: every frame is a message.
#[must_use]
pub fn single_frames(frames: Vec<Frame>) -> Assembled {
    let messages =
        frames.into_iter().map(|frame| Message { sender: frame.sender, payload: frame.data }).collect();
    Assembled { messages, broken: Vec::new() }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::vehicle::elm327::frame::parse;
    use crate::vehicle::protocol::Protocol;

    fn frames(lines: &[&str]) -> Vec<Frame> {
        lines.iter().map(|line| parse(line, Protocol::Can11At500).unwrap()).collect()
    }

    fn whole(assembled: &Assembled) -> Vec<(String, String)> {
        assembled.messages.iter().map(|m| (m.sender.0.clone(), hex::encode_upper(&m.payload))).collect()
    }

    #[test]
    fn published_answers() {
        let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        for (name, lines, expected, broken) in [
            // Source: ELM327 data sheet, VIN of the example car.
            (
                "VIN",
                &["7E81014490201314434", "7E82147503030523535", "7E82242313233343536"][..],
                vec![pair("7E8", "4902013144344750303052353542313233343536")],
                0,
            ),
            // Source: facts: two ECUs, one multi-frame answer to a request of six PIDs.
            (
                "interleaved",
                &["7E8101241010007E500", "7E906410098000001", "7E82103010004000680", "7E822077D0C00000000"],
                vec![pair("7E9", "410098000001"), pair("7E8", "41010007E50003010004000680077D0C0000")],
                0,
            ),
            ("a consecutive frame is missing", &["7E81014490201314434", "7E82242313233343536"], vec![], 1),
            ("half a reply", &["7E81014490201314434"], vec![], 1),
            (
                "rest of a late answer",
                &["7E82147503030523535", "7E803410D00"],
                vec![pair("7E8", "410D00")],
                0,
            ),
            (
                "pending, then the answer",
                &["7E8037F0178", "7E803410D00"],
                vec![pair("7E8", "7F0178"), pair("7E8", "410D00")],
                0,
            ),
            ("padding", &["7E803410D00AAAAAAAA"], vec![pair("7E8", "410D00")], 0),
            ("single frame cut", &["7E806410D"], vec![], 1),
        ] {
            let lines: Vec<String> = lines.iter().map(|line| line.replace(' ', "")).collect();
            let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
            let assembled = assemble(&frames(&lines));
            let expected: Vec<_> = expected.into_iter().map(|(a, b)| (a, b.replace(' ', ""))).collect();
            assert_eq!(whole(&assembled), expected, "{name}");
            assert_eq!(assembled.broken.len(), broken, "{name}");
        }
    }

    /// The sender's side of ISO 15765-2, written for the test only.
    fn cut(sender: &str, payload: &[u8]) -> Vec<Frame> {
        let frame = |data: Vec<u8>| Frame { sender: EcuAddress(sender.into()), data };
        if payload.len() <= 7 {
            return vec![frame([&[payload.len() as u8], payload].concat())];
        }
        let mut all =
            vec![frame([&[0x10 | (payload.len() >> 8) as u8, payload.len() as u8], &payload[..6]].concat())];
        for (n, chunk) in payload[6..].chunks(7).enumerate() {
            all.push(frame([&[0x20 | ((n + 1) & 0x0F) as u8], chunk].concat()));
        }
        all
    }

    proptest! {
        #![proptest_config(crate::seed::cases(256))]

        #[test]
        fn any_interleaving_of_two_senders(
            a in proptest::collection::vec(any::<u8>(), 1..400),
            b in proptest::collection::vec(any::<u8>(), 1..400),
            order in proptest::collection::vec(any::<bool>(), 0..200),
        ) {
            let (mut left, mut right) = (cut("7E8", &a).into_iter().peekable(), cut("7E9", &b).into_iter().peekable());
            let mut mixed = Vec::new();
            for pick_left in order {
                mixed.extend(if pick_left { left.next() } else { right.next() });
            }
            mixed.extend(left);
            mixed.extend(right);
            let assembled = assemble(&mixed);
            prop_assert!(assembled.broken.is_empty());
            let of = |id: &str| assembled.messages.iter().find(|m| m.sender.0 == id).map(|m| m.payload.clone());
            prop_assert_eq!(of("7E8"), Some(a));
            prop_assert_eq!(of("7E9"), Some(b));
        }

        #[test]
        fn never_panics(data in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..9), 0..40)) {
            let frames: Vec<Frame> =
                data.into_iter().map(|data| Frame { sender: EcuAddress("7E8".into()), data }).collect();
            let _ = assemble(&frames);
        }
    }
}
