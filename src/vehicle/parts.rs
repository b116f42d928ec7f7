//! Answers to several PIDs at once, of services 01 and 02. Pure. What lives here: how many lines
//! such an answer has, and taking it apart by each PID's length. What does not: which PIDs go into
//! one request ([`super::batch`], [`super::scan`]), and what their data mean ([`super::pids`]).

use crate::protocols::{PidRow, PidTable};

/// Which of the two services: in the answers of 02 the frame's number stands behind each PID.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Of {
    /// Service 01.
    Current,
    /// Service 02, of the frame with this number.
    FreezeFrame(u8),
}

impl Of {
    fn service(self) -> u8 {
        match self {
            Self::Current => 0x01,
            Self::FreezeFrame(_) => 0x02,
        }
    }

    /// Bytes before a PID's data.
    pub(super) fn head(self) -> usize {
        match self {
            Self::Current => 1,
            Self::FreezeFrame(_) => 2,
        }
    }

    /// The data bytes of a PID, the fewer where it has two lengths; masks have four (SAE J1979).
    /// `None`: not known.
    pub(super) fn length(self, pid: u8, table: &PidTable) -> Option<usize> {
        if pid.is_multiple_of(0x20) { Some(4) } else { self.row(pid, table)?.bytes }
    }

    fn row(self, pid: u8, table: &PidTable) -> Option<&PidRow> {
        table.get(self.service(), pid)
    }
}

/// Lines of one unit's answer: the service byte and so many behind it in ISO 15765-2 frames of 8.
pub(super) fn line_count(bytes: usize) -> usize {
    match bytes {
        0 => 0,
        1..=6 => 1,
        // Six bytes in the first frame, the service's among them; seven in each that follows.
        more => 1 + (more + 1 - 6).div_ceil(7),
    }
}

/// PID and data of each PID in an answer to several. They may be fewer than were asked for
/// and in another order; what follows something unknown, or is cut off, is left out.
#[must_use]
pub fn split<'a>(of: Of, payload: &'a [u8], asked: &[u8], table: &PidTable) -> Vec<(u8, &'a [u8])> {
    let usual = walk(of, payload, asked, &|pid| of.length(pid, table));
    let covered =
        |parts: &[(u8, &[u8])]| 1 + parts.iter().map(|(_, data)| of.head() + data.len()).sum::<usize>();
    if covered(&usual) == payload.len() {
        return usual;
    }
    // Some PIDs have two lengths: with the longer one, if then everything fits.
    let long = |pid| Some(of.length(pid, table)? + of.row(pid, table).map_or(0, |row| row.more_bytes));
    let longer = walk(of, payload, asked, &long);
    if covered(&longer) == payload.len() { longer } else { usual }
}

fn walk<'a>(
    of: Of,
    payload: &'a [u8],
    asked: &[u8],
    length: &dyn Fn(u8) -> Option<usize>,
) -> Vec<(u8, &'a [u8])> {
    let mut parts: Vec<(u8, &[u8])> = Vec::new();
    let mut rest = payload.strip_prefix(&[of.service() | 0x40]).unwrap_or_default();
    while let Some((&pid, behind)) = rest.split_first() {
        let behind = match of {
            Of::Current => Some(behind),
            Of::FreezeFrame(frame) => behind.strip_prefix(&[frame]),
        };
        let new = asked.contains(&pid) && parts.iter().all(|(earlier, _)| *earlier != pid);
        let length = length(pid).filter(|_| new);
        let Some((data, next)) =
            behind.zip(length).and_then(|(behind, length)| behind.split_at_checked(length))
        else {
            break;
        };
        parts.push((pid, data));
        rest = next;
    }
    parts
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::protocols::Bundle;

    fn table() -> PidTable {
        Bundle::load(std::path::Path::new("firmware-protocols")).unwrap().pids
    }

    #[test]
    fn answers_are_taken_apart() {
        let table = table();
        // 06 has one byte, or two where there is a third oxygen sensor bank.
        let asked = [0x00, 0x0C, 0x0D, 0x05, 0x06];
        let frame = Of::FreezeFrame(0);
        for (name, of, answer, expected) in [
            (
                "in order",
                frame,
                "42 0C00 2580 0D00 40 0500 80",
                vec![(0x0C, "2580"), (0x0D, "40"), (0x05, "80")],
            ),
            ("another order, fewer", frame, "42 0500 80 0C00 2580", vec![(0x05, "80"), (0x0C, "2580")]),
            ("data that looks like a PID", frame, "42 0C00 0D00 0D00 0C", vec![(0x0C, "0D00"), (0x0D, "0C")]),
            ("two lengths, the shorter", frame, "42 0600 80 0D00 40", vec![(0x06, "80"), (0x0D, "40")]),
            ("two lengths, the longer", frame, "42 0600 8081 0D00 40", vec![(0x06, "8081"), (0x0D, "40")]),
            ("another frame", frame, "42 0C00 2580 0D01 40", vec![(0x0C, "2580")]),
            ("cut off", frame, "42 0D00 40 0C00 25", vec![(0x0D, "40")]),
            ("not asked for", frame, "42 0D00 40 0B00 21", vec![(0x0D, "40")]),
            ("the same twice", frame, "42 0D00 40 0D00 41", vec![(0x0D, "40")]),
            ("padding", frame, "42 0D00 40 0000 00", vec![(0x0D, "40")]),
            ("another service", frame, "41 0C 2580", vec![]),
            ("nothing", frame, "42", vec![]),
            ("current", Of::Current, "41 0C 2580 0D 40", vec![(0x0C, "2580"), (0x0D, "40")]),
            ("current, the longer", Of::Current, "41 06 8081 0D 40", vec![(0x06, "8081"), (0x0D, "40")]),
            ("a mask", Of::Current, "41 00 BE3FA813 0D 40", vec![(0x00, "BE3FA813"), (0x0D, "40")]),
            ("of the other service", Of::Current, "42 0C00 2580", vec![]),
        ] {
            let answer = hex::decode(answer.replace(' ', "")).unwrap();
            let found: Vec<(u8, String)> = split(of, &answer, &asked, &table)
                .into_iter()
                .map(|(pid, data)| (pid, hex::encode_upper(data)))
                .collect();
            let expected: Vec<(u8, String)> =
                expected.into_iter().map(|(pid, data)| (pid, data.to_owned())).collect();
            assert_eq!(found, expected, "{name}");
        }
    }

    #[test]
    fn lines_are_those_of_isotp() {
        // Service and six bytes fill a single frame; six bytes stand in a first, seven in each that follows.
        for (bytes, lines) in [(0, 0), (3, 1), (6, 1), (7, 2), (12, 2), (13, 3), (19, 3), (20, 4)] {
            assert_eq!(line_count(bytes), lines, "{bytes}");
        }
    }

    proptest! {
        #![proptest_config(crate::seed::cases(256))]

        /// Whatever PIDs, in whatever order: putting together and taking apart are inverse.
        #[test]
        fn any_order_is_taken_apart(order in proptest::sample::subsequence(vec![0x03_u8, 0x04, 0x05, 0x0C, 0x0D, 0x11], 1..4).prop_shuffle(), frame in prop::option::of(any::<u8>()), fill in any::<u8>()) {
            let table = table();
            let of = frame.map_or(Of::Current, Of::FreezeFrame);
            let mut payload = vec![of.service() | 0x40];
            for pid in &order {
                payload.push(*pid);
                payload.extend(frame);
                payload.extend(vec![fill; of.length(*pid, &table).unwrap()]);
            }
            let found: Vec<u8> = split(of, &payload, &order, &table).iter().map(|(pid, _)| *pid).collect();
            prop_assert_eq!(found, order);
        }

        #[test]
        fn never_panics(payload in proptest::collection::vec(any::<u8>(), 0..64), asked in proptest::collection::vec(any::<u8>(), 0..4), frame in prop::option::of(any::<u8>())) {
            let _ = split(frame.map_or(Of::Current, Of::FreezeFrame), &payload, &asked, &table());
        }
    }
}
