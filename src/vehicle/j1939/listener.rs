//! Frames in, what each unit says of its codes out.

use std::time::Duration;

use super::dm::{Codes, DM1, DM2};
use super::id::Id;
use super::transport::Assembly;

/// Which of the two messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// DM1: active now.
    Active,
    /// DM2: active before.
    PreviouslyActive,
}

/// What a unit said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heard {
    /// The unit's source address.
    pub source: u8,
    /// Which message.
    pub kind: Kind,
    /// Lamps and codes.
    pub codes: Codes,
}

/// Listens for DM1 and DM2, short and long.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Listener {
    assembly: Assembly,
}

impl Listener {
    /// Takes a frame with a 29-bit identifier, heard at `now` (any clock that does not go back).
    pub fn take(&mut self, id: u32, data: &[u8], now: Duration) -> Option<Heard> {
        let message = self.assembly.take(Id::from_bits(id), data, now)?;
        let kind = match message.pgn {
            DM1 => Kind::Active,
            DM2 => Kind::PreviouslyActive,
            _ => return None,
        };
        Some(Heard { source: message.source, kind, codes: Codes::read(&message.data)? })
    }

    /// Long messages that never became whole.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.assembly.lost()
    }
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
        assert_eq!((short.source, short.kind), (0, Kind::Active));
        assert_eq!((short.codes.codes[0].spn, short.codes.codes[0].fmi), (100, 1));
        assert_eq!(take(0x0CF0_0400, "FFFF7DE02EFFFFFF"), None);
        assert_eq!(take(0x18EC_FF3D, "200E0002FFCBFE00"), None);
        assert_eq!(take(0x18EB_FF3D, "0111CD6102130021"), None);
        let long = take(0x18EB_FF3D, "02061F00EE100400").unwrap();
        assert_eq!((long.source, long.kind), (0x3D, Kind::PreviouslyActive));
        assert_eq!(long.codes.codes.iter().map(|code| code.spn).collect::<Vec<_>>(), [609, 1569, 4334]);
        assert_eq!(listener.lost(), 0);
    }
}
