//! Messages of more than eight bytes put together from what is heard (SAE J1939-21 §5.10):
//! announced to all (BAM), or requested and granted between two (RTS/CTS), of which the
//! sender's side is enough. Nothing is granted or acknowledged here: a listener sends nothing.
//!
//! ```text
//!   ECFFxx 20 size count FF pgn      announce            EC dd xx 10 …      ask
//!   EBFFxx 01 …7 bytes               data, numbered      EC xx dd 11 …      grant (not needed)
//!   EBFFxx 02 …                                          EB dd xx 01 …      data
//! ```

use std::collections::BTreeMap;
use std::time::Duration;

use super::id::Id;

/// Group of the announcements and grants (TP.CM).
pub(super) const CONTROL: u32 = 60416;
/// Group of the data (TP.DT).
pub(super) const DATA: u32 = 60160;
/// Bytes of a data packet behind its number.
const PACKET: usize = 7;
/// Largest message: 255 packets.
const LARGEST: usize = 255 * PACKET;
/// Longest pause between two packets: T1 for an announced one (J1939-21 §5.10.3.5) …
const PAUSE_TO_ALL: Duration = Duration::from_millis(750);
/// … and T3 between two, whose receiver may hold the sender back.
const PAUSE_BETWEEN_TWO: Duration = Duration::from_millis(1250);
/// Messages put together at a time; one more, and the one that began first is given up.
const MOST_OPEN: usize = 32;

/// A message as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Its parameter group.
    pub pgn: u32,
    /// Who sent it.
    pub source: u8,
    /// To whom; `FF`: to all.
    pub destination: u8,
    /// Its data.
    pub data: Vec<u8>,
}

/// Puts messages together, of many senders at once.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Assembly {
    /// By sender and receiver: one at a time (J1939-21 §5.10.2).
    open: BTreeMap<(u8, u8), Open>,
    /// Messages that never became whole.
    lost: u64,
    /// Sender and group of those that were lost since somebody asked, at most as many as may be open.
    broken: Vec<(u8, u32)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Open {
    pgn: u32,
    size: usize,
    packets: Vec<Option<[u8; PACKET]>>,
    to_all: bool,
    began: Duration,
    last: Duration,
}

impl Assembly {
    /// Takes a frame heard at `now`; gives the message that it completes, or is by itself.
    pub fn take(&mut self, id: Id, data: &[u8], now: Duration) -> Option<Message> {
        self.give_up(now);
        match id.pgn {
            CONTROL => {
                self.control(id, data, now);
                None
            }
            DATA => self.packet(id, data, now),
            _ => Some(Message {
                pgn: id.pgn,
                source: id.source,
                destination: id.destination,
                data: data.to_vec(),
            }),
        }
    }

    /// Messages that never became whole, since the beginning.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.lost
    }

    /// Sender and group of the messages that were lost since the last call.
    pub fn take_broken(&mut self) -> Vec<(u8, u32)> {
        std::mem::take(&mut self.broken)
    }

    /// No more is listened to: what is on its way is lost.
    pub fn end(&mut self) {
        for pair in self.open.keys().copied().collect::<Vec<_>>() {
            self.lose(pair);
        }
    }

    fn lose(&mut self, pair: (u8, u8)) {
        let Some(open) = self.open.remove(&pair) else { return };
        self.lost += 1;
        if self.broken.len() < MOST_OPEN {
            self.broken.push((pair.0, open.pgn));
        }
    }

    /// Whether a message of a wanted group has begun and can still become whole, as of the last frame.
    #[must_use]
    pub fn is_coming(&self, wanted: impl Fn(u32) -> bool) -> bool {
        self.open.values().any(|open| wanted(open.pgn))
    }

    fn control(&mut self, id: Id, data: &[u8], now: Duration) {
        let &[kind, low, high, count, _, group_low, group_middle, group_high] = data else { return };
        let pair = (id.source, id.destination);
        match kind {
            // Ask (10) and announce (20).
            0x10 | 0x20 => {
                self.lose(pair);
                let size = usize::from(u16::from_le_bytes([low, high]));
                if size <= 8 || size > LARGEST || size.div_ceil(PACKET) != usize::from(count) {
                    return;
                }
                if self.open.len() >= MOST_OPEN {
                    let first = self.open.iter().min_by_key(|(_, open)| open.began).map(|(pair, _)| *pair);
                    first.into_iter().for_each(|pair| self.lose(pair));
                }
                let open = Open {
                    pgn: u32::from_le_bytes([group_low, group_middle, group_high, 0]),
                    size,
                    packets: vec![None; usize::from(count)],
                    to_all: kind == 0x20,
                    began: now,
                    last: now,
                };
                self.open.insert(pair, open);
            }
            // A grant (11): the receiver holds the sender back or lets it go on.
            0x11 => {
                if let Some(open) = self.open.get_mut(&(id.destination, id.source)) {
                    open.last = now;
                }
            }
            // Given up (FF), by either side.
            0xFF => {
                for pair in [pair, (id.destination, id.source)] {
                    self.lose(pair);
                }
            }
            _ => {}
        }
    }

    fn packet(&mut self, id: Id, data: &[u8], now: Duration) -> Option<Message> {
        let pair = (id.source, id.destination);
        let (number, bytes) = data.split_first()?;
        let open = self.open.get_mut(&pair)?;
        let place = usize::from(*number).checked_sub(1).and_then(|place| open.packets.get_mut(place))?;
        *place = Some(bytes.try_into().ok()?);
        open.last = now;
        if open.packets.iter().any(Option::is_none) {
            return None;
        }
        let open = self.open.remove(&pair)?;
        let mut data: Vec<u8> = open.packets.into_iter().flatten().flatten().collect();
        data.truncate(open.size);
        Some(Message { pgn: open.pgn, source: id.source, destination: id.destination, data })
    }

    fn give_up(&mut self, now: Duration) {
        let is_over = |open: &Open| {
            let longest = if open.to_all { PAUSE_TO_ALL } else { PAUSE_BETWEEN_TWO };
            now.saturating_sub(open.last) > longest
        };
        // Of every frame of a full bus this is asked, and seldom is one over.
        while let Some(pair) = self.open.iter().find(|(_, open)| is_over(open)).map(|(pair, _)| *pair) {
            self.lose(pair);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn feed(assembly: &mut Assembly, frames: &[(u32, &str, u64)]) -> Vec<Message> {
        let frames = frames.iter().map(|(id, data, at_ms)| {
            (Id::from_bits(*id), hex::decode(data).unwrap(), Duration::from_millis(*at_ms))
        });
        frames.filter_map(|(id, data, now)| assembly.take(id, &data, now)).collect()
    }

    const TWENTY: &str = "0102030405060701020304050607010203040506";

    /// Source: python-can-j1939, test_ecu (BAM from 01, RTS from 01 to 02, from 90 to 9B).
    #[test]
    fn announced_and_between_two() {
        let mut assembly = Assembly::default();
        for (name, frames) in [
            (
                "announced",
                &[
                    (0x00EC_FF01, "20140003FFB0FE00", 0),
                    (0x00EB_FF01, "0101020304050607", 50),
                    (0x00EB_FF01, "0201020304050607", 100),
                    (0x00EB_FF01, "03010203040506FF", 150),
                ][..],
            ),
            (
                "between two",
                &[
                    (0x00EC_0201, "1014000301B0FE00", 0),
                    (0x1CEC_0102, "110101FFFFB0FE00", 10),
                    (0x00EB_0201, "0101020304050607", 20),
                    (0x1CEC_0102, "110102FFFFB0FE00", 1200),
                    (0x00EB_0201, "0201020304050607", 1210),
                    (0x1CEC_0102, "110103FFFFB0FE00", 1220),
                    (0x00EB_0201, "03010203040506FF", 1230),
                    (0x1CEC_0102, "13140003FFB0FE00", 1240),
                ],
            ),
        ] {
            let messages = feed(&mut assembly, frames);
            assert_eq!(messages.len(), 1, "{name}");
            assert_eq!((messages[0].pgn, messages[0].source), (65200, 0x01), "{name}");
            assert_eq!(hex::encode(&messages[0].data), TWENTY, "{name}");
        }
        assert_eq!(assembly.lost(), 0);
    }

    #[test]
    fn what_goes_wrong_on_the_way() {
        let begin = (0x00EC_FF01, "20140003FFB0FE00", 0);
        let (one, two, three) = (
            (0x00EB_FF01, "0101020304050607", 50),
            (0x00EB_FF01, "0201020304050607", 100),
            (0x00EB_FF01, "03010203040506FF", 150),
        );
        for (name, frames, messages, lost) in [
            ("a packet twice", vec![begin, one, two, two, three], 1, 0),
            ("out of order", vec![begin, two, one, three], 1, 0),
            ("one is missing", vec![begin, one, three, (0x18FE_F100, "00", 2000)], 1, 1),
            ("a new one begins", vec![begin, one, begin, one, two, three], 1, 1),
            ("too late", vec![begin, one, (two.0, two.1, 900), (three.0, three.1, 950)], 0, 1),
            ("given up", vec![begin, one, (0x00EC_FF01, "FF01FFFFFFB0FE00", 60), two, three], 0, 1),
            ("count and size do not agree", vec![(begin.0, "20140004FFB0FE00", 0), one, two, three], 0, 0),
            ("larger than can be", vec![(begin.0, "20FFFFFFFFB0FE00", 0)], 0, 0),
            ("no announcement", vec![one, two, three], 0, 0),
            (
                "packet 0 and packet 200",
                vec![begin, (one.0, "0001020304050607", 1), (one.0, "C801020304050607", 1)],
                0,
                0,
            ),
        ] {
            let mut assembly = Assembly::default();
            assert_eq!(feed(&mut assembly, &frames).len(), messages, "{name}");
            assert_eq!(assembly.lost(), lost, "{name}");
            assert_eq!(assembly.take_broken(), vec![(0x01, 65200); lost as usize], "{name}");
            assert_eq!(assembly.take_broken(), [], "{name}");
        }
    }

    #[test]
    fn many_senders_at_once_are_bounded() {
        let mut assembly = Assembly::default();
        for source in 0..=u8::MAX {
            let id = Id::from_bits(0x00EC_FF00 | u32::from(source));
            assembly.take(
                id,
                &hex::decode("20140003FFB0FE00").unwrap(),
                Duration::from_millis(source.into()),
            );
        }
        assert_eq!(assembly.open.len(), MOST_OPEN);
        assert_eq!(assembly.lost(), 256 - MOST_OPEN as u64);
    }

    proptest! {
        #![proptest_config(crate::seed::cases(256))]

        /// Whatever is heard: no panic, and never more kept than the bound.
        #[test]
        fn noise_is_survived(frames in prop::collection::vec((0_usize..4, any::<u32>(), prop::collection::vec(any::<u8>(), 0..9), 0_u64..300), 0..200)) {
            let mut assembly = Assembly::default();
            let mut now = 0;
            for (kind, bits, data, later) in frames {
                let bits = match kind {
                    0 => 0x00EC_0000 | bits & 0xFFFF,
                    1 => 0x00EB_0000 | bits & 0x0103,
                    _ => bits,
                };
                now += later;
                if let Some(message) = assembly.take(Id::from_bits(bits), &data, Duration::from_millis(now)) {
                    prop_assert!(message.data.len() <= LARGEST);
                }
                prop_assert!(assembly.open.len() <= MOST_OPEN && assembly.broken.len() <= MOST_OPEN);
            }
            assembly.end();
            prop_assert!(assembly.open.is_empty());
        }

        /// What is cut up comes back, whatever else is on the bus.
        #[test]
        fn messages_come_back(data in prop::collection::vec(any::<u8>(), 9..LARGEST), source in any::<u8>(), other in any::<u8>()) {
            prop_assume!(source != other);
            let mut assembly = Assembly::default();
            let size = u16::try_from(data.len()).unwrap().to_le_bytes();
            let count = u8::try_from(data.len().div_ceil(PACKET)).unwrap();
            let announce = [0x20, size[0], size[1], count, 0xFF, 0xCA, 0xFE, 0x00];
            let id = |group: u32, source: u8| Id::from_bits(group | u32::from(source));
            assembly.take(id(0x18EC_FF00, source), &announce, Duration::ZERO);
            let mut whole = None;
            for (packet, number) in data.chunks(PACKET).zip(1_u8..=255) {
                let mut bytes = vec![number];
                bytes.extend(packet);
                bytes.resize(8, 0xFF);
                assembly.take(id(0x18EB_FF00, other), &bytes, Duration::from_millis(1));
                whole = assembly.take(id(0x18EB_FF00, source), &bytes, Duration::from_millis(1));
            }
            prop_assert_eq!(whole, Some(Message { pgn: 65226, source, destination: 0xFF, data }));
        }
    }
}
