//! Frames in, what each unit says of its codes and of the vehicle out.

use std::collections::BTreeSet;
use std::time::Duration;

use super::dm::{Codes, DM1, DM2};
use super::id::Id;
use super::transport::{Assembly, CONTROL, DATA};

/// VI, vehicle identification (SAE J1939-71): the number, ended by `*`.
pub const VI: u32 = 65260;
/// What is listened for.
const GROUPS: [u32; 3] = [DM1, DM2, VI];
/// Groups that trucks and machines broadcast all the time and no other bus has, with the
/// periods of SAE J1939-71: EEC2 61443 (50 ms), EEC1 61444 (10 to 100 ms), engine temperature
/// 65262 (1 s), cruise control and vehicle speed 65265 (100 ms), electrical power 65271 (1 s);
/// and DM1 (1 s).
pub const BROADCASTS: [u32; 6] = [61443, 61444, DM1, 65262, 65265, 65271];
/// Asks for a group (SAE J1939-21 §5.4.2).
pub const REQUEST: u32 = 59904;

/// Which of the two messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// DM1: active now.
    Active,
    /// DM2: active before.
    PreviouslyActive,
}

/// What was said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    /// Lamps and codes.
    Codes(Kind, Codes),
    /// The vehicle's number, without its end mark.
    Vin(Vec<u8>),
}

/// What a unit said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heard {
    /// The unit's source address.
    pub source: u8,
    /// What it said.
    pub said: Said,
}

/// Listens for DM1, DM2 and the vehicle's number, short and long.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Listener {
    assembly: Assembly,
    /// Messages of several packets that broke off, and those of any length that came whole: at
    /// most three a unit.
    broken: BTreeSet<Broken>,
    whole: BTreeSet<Broken>,
}

/// A long message that never became whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Broken {
    /// The unit's source address.
    pub source: u8,
    /// Its group, one of those that are listened for.
    pub pgn: u32,
}

impl Listener {
    /// Takes a frame with a 29-bit identifier, heard at `now` (any clock that does not go back).
    pub fn take(&mut self, id: u32, data: &[u8], now: Duration) -> Option<Heard> {
        let message = self.assembly.take(Id::from_bits(id), data, now);
        self.note_broken();
        let message = message?;
        if GROUPS.contains(&message.pgn) {
            self.whole.insert(Broken { source: message.source, pgn: message.pgn });
        }
        let said = match message.pgn {
            DM1 => Said::Codes(Kind::Active, Codes::read(&message.data)?),
            DM2 => Said::Codes(Kind::PreviouslyActive, Codes::read(&message.data)?),
            VI => {
                // Several numbers may follow one another (truck, trailer): the first is the vehicle's.
                let end = message.data.iter().position(|byte| *byte == b'*');
                let number = end.and_then(|end| message.data.get(..end)).unwrap_or(&message.data);
                Said::Vin(number.to_vec())
            }
            _ => return None,
        };
        Some(Heard { source: message.source, said })
    }

    /// No more is listened to. What broke off and never came whole, before or after.
    #[must_use]
    pub fn end(mut self) -> Vec<Broken> {
        self.assembly.end();
        self.note_broken();
        self.broken.difference(&self.whole).copied().collect()
    }

    fn note_broken(&mut self) {
        let broken = self.assembly.take_broken().into_iter().filter(|(_, pgn)| GROUPS.contains(pgn));
        self.broken.extend(broken.map(|(source, pgn)| Broken { source, pgn }));
    }

    /// Whether a message that this listener tells is on its way, as of the last frame.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        self.assembly.is_coming(|group| GROUPS.contains(&group))
    }

    /// Long messages that never became whole.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.assembly.lost()
    }
}

/// Whether a frame with this 29-bit identifier shows that its bus speaks J1939.
#[must_use]
pub fn is_broadcast(id: u32) -> bool {
    BROADCASTS.contains(&Id::from_bits(id).pgn)
}

/// Groups without which a listener hears nothing, for filters.
#[must_use]
pub fn groups() -> Vec<u32> {
    [&BROADCASTS[..], &[DM2, VI, CONTROL, DATA, REQUEST]].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_and_long_messages() {
        let mut listener = Listener::default();
        let mut take = |id: u32, data: &str| listener.take(id, &hex::decode(data).unwrap(), Duration::ZERO);
        // Source: a public replay test (SPN 100, FMI 1); j1939-84's DM1 of three codes, cut up by J1939-21.
        let short = take(0x18FE_CA00, "4000640001050000").unwrap();
        let Said::Codes(Kind::Active, codes) = &short.said else { panic!("{short:?}") };
        assert_eq!((short.source, codes.codes[0].spn, codes.codes[0].fmi), (0, 100, 1));
        assert_eq!(take(0x0CF0_0400, "FFFF7DE02EFFFFFF"), None);
        assert_eq!(take(0x18EC_FF3D, "200E0002FFCBFE00"), None);
        assert_eq!(take(0x18EB_FF3D, "0111CD6102130021"), None);
        let long = take(0x18EB_FF3D, "02061F00EE100400").unwrap();
        let Said::Codes(Kind::PreviouslyActive, codes) = &long.said else { panic!("{long:?}") };
        assert_eq!(codes.codes.iter().map(|code| code.spn).collect::<Vec<_>>(), [609, 1569, 4334]);
        assert_eq!((long.source, listener.lost()), (0x3D, 0));
    }

    #[test]
    fn what_broke_off_is_told_unless_it_came_whole() {
        let begin = (0x18EC_FF3D, "200E0002FFCAFE00");
        let (one, two) = ((0x18EB_FF3D, "0111CD6102130021"), (0x18EB_FF3D, "02061F00EE100400"));
        // A group that nobody here listens for.
        let other = (0x18EC_FF21, "200E0002FFE5FE00");
        for (name, frames, broken) in [
            ("whole", &[begin, one, two][..], false),
            ("a packet is missing, and no more comes", &[begin, two], true),
            ("a packet is missing, then a new one begins", &[begin, two, begin, two], true),
            ("repeated whole", &[begin, two, begin, one, two], false),
            ("whole, then half", &[begin, one, two, begin, one], false),
            ("another group", &[other], false),
        ] {
            let mut listener = Listener::default();
            for (id, data) in frames {
                listener.take(*id, &hex::decode(data).unwrap(), Duration::ZERO);
            }
            let expected = broken.then_some(Broken { source: 0x3D, pgn: DM1 });
            assert_eq!(listener.end(), Vec::from_iter(expected), "{name}");
        }
    }

    #[test]
    fn the_vehicles_number_ends_at_its_mark() {
        // PGN 65260 by J1939-71: characters, `*`, and by J1939-21 FF to the end of the last packet.
        let mut listener = Listener::default();
        let mut take = |id: u32, data: &[u8]| listener.take(id, data, Duration::ZERO);
        assert_eq!(take(0x18EC_FF00, &[0x20, 18, 0, 3, 0xFF, 0xEC, 0xFE, 0]), None);
        assert_eq!(take(0x18EB_FF00, b"\x011XKDDB9"), None);
        assert_eq!(take(0x18EB_FF00, b"\x02X8YJ123"), None);
        let heard = take(0x18EB_FF00, b"\x03456*\xFF\xFF\xFF").unwrap();
        assert_eq!(heard.said, Said::Vin(b"1XKDDB9X8YJ123456".to_vec()));
    }

    #[test]
    fn what_shows_that_a_bus_speaks_j1939() {
        for (id, speaks) in [
            (0x0CF0_0400, true),
            (0x18FE_CA3D, true),
            (0x18FE_F100, true),
            (0x18DA_F110, false),
            (0x18DB_33F1, false),
            (0x18EE_FF80, false),
            (0x0000_0280, false),
        ] {
            assert_eq!(is_broadcast(id), speaks, "{id:08X}");
        }
    }
}
