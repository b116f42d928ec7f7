//! Freeze frames of a scan: every frame that has a code, each with its number, by what the ECUs
//! promise for it. On CAN three PIDs go into one question where adapter and car take that.
//! What lives here: which questions, taking answers apart, going back to one PID a question.
//!
//! ```text
//!  020C000D000500 ──► 42 0C 00 … 0D 00 … 05 00 …
//!    nobody, or a refusal            ──► each of them alone, and so for the rest of the scan
//!    one is missing and comes alone  ──► the same
//! ```

use super::{BrokeOff, FREEZE_FRAME_PIDS, FREEZE_FRAMES, MOST_LINES, Scan};
use crate::protocols::PidTable;
use crate::vehicle::answer::{Answer, Message};
use crate::vehicle::batch::may_read_as_clearing;
use crate::vehicle::gate::Request;
use crate::vehicle::protocol::EcuAddress;
use crate::vehicle::report::Told;

/// PIDs with their frame's number in one request: service and three pairs fill a single frame
/// (ISO 15031-5 §8.2).
pub(super) const MOST_FRAME_PIDS: usize = 3;
/// Lines of an answer that every adapter survives: those of a VIN.
const SURE_LINES: usize = 3;

impl Scan<'_> {
    /// Every frame that has a code.
    pub(super) async fn freeze_frames(&mut self) -> Result<(), BrokeOff> {
        // What takes several PIDs of service 01 is given several of 02; nothing is proven by that.
        self.frame_pids = self.adapter.most_pids().min(MOST_FRAME_PIDS);
        let mut room = FREEZE_FRAME_PIDS;
        for frame in 0..FREEZE_FRAMES {
            if frame == 0 {
                self.ask(Request::freeze_frame(0x02, frame), None).await?;
            } else {
                // Nobody promised another frame: silence is no failure.
                self.probe(Request::freeze_frame(0x02, frame)).await?;
            }
            let ecus = self.record.ecus();
            if !ecus.iter().any(|ecu| self.record.freeze_frame_code(ecu, frame).is_some()) {
                return Ok(());
            }
            let promised = |scan: &Self, pid: u8| {
                ecus.iter().any(|ecu| scan.record.supported_in_freeze_frame(ecu, frame).contains(&pid))
            };
            for base in (0x00..=0xE0_u8).step_by(0x20) {
                if base != 0 && !promised(self, base) {
                    break;
                }
                let lines = (base != 0).then(|| self.single_lines(base, frame, &ecus)).flatten();
                self.ask(Request::freeze_frame(base, frame), lines).await?;
            }
            let mut wanted: Vec<u8> = (0x01..=0xFF)
                .filter(|pid| *pid != 0x02 && self.bundle.pids.get(0x02, *pid).is_some())
                .filter(|pid| promised(self, *pid))
                .take(room)
                .collect();
            room -= wanted.len();
            self.planned += wanted.len().div_ceil(self.frame_pids.max(1));
            while !wanted.is_empty() {
                let later = wanted.split_off(self.at_once(&wanted, frame, &ecus));
                let pids = std::mem::replace(&mut wanted, later);
                if let [pid] = pids.as_slice() {
                    let lines = self.single_lines(*pid, frame, &ecus);
                    self.ask(Request::freeze_frame(*pid, frame), lines).await?;
                } else {
                    self.several(pids, frame, &ecus).await?;
                }
            }
        }
        Ok(())
    }

    /// How many of `pids`, from the first, one question asks.
    fn at_once(&self, pids: &[u8], frame: u8, ecus: &[EcuAddress]) -> usize {
        let long = self.adapter.capabilities().long_answers == Some(true);
        let most_lines = if long { usize::from(MOST_LINES) } else { SURE_LINES };
        let fits = |count: &usize| {
            let lines = pids.get(..*count).and_then(|pids| self.lines(pids, frame, ecus));
            lines.is_some_and(|lines| lines <= most_lines)
        };
        (2..=self.frame_pids.min(pids.len())).rev().find(fits).unwrap_or(1).min(pids.len())
    }

    /// Asks several PIDs at once; what is missing then is asked alone.
    async fn several(&mut self, mut pids: Vec<u8>, frame: u8, ecus: &[EcuAddress]) -> Result<(), BrokeOff> {
        // `0242…` with its 2 lost on a serial line is service 04.
        if let Some(place) = pids.iter().position(|pid| !may_read_as_clearing(*pid)) {
            pids.rotate_left(place);
        }
        let Some(request) = Request::freeze_frame_many(&pids, frame) else { return Ok(()) };
        let lines = self.lines(&pids, frame, ecus).and_then(|lines| u8::try_from(lines).ok());
        self.step(request);
        let answer = self.ask_tolerantly(request, lines).await?.unwrap_or_default();
        let refused = !answer.refusals.is_empty();
        let mut told = self.parts(&answer, &pids, frame);
        if !refused && !self.missing(&told, &pids, frame, ecus).is_empty() {
            // Lost on the way, or the digit counted somebody else's line.
            let again = self.ask_tolerantly(request, None).await?.unwrap_or_default();
            told.extend(self.parts(&again, &pids, frame));
        }
        let missing = self.missing(&told, &pids, frame, ecus);
        if told.is_empty() {
            self.frame_pids = 1;
        }
        self.record.told.extend(told);
        for pid in missing {
            let lines = self.single_lines(pid, frame, ecus);
            if self.ask(Request::freeze_frame(pid, frame), lines).await? {
                // It was left out among several and comes alone.
                self.frame_pids = 1;
            }
        }
        Ok(())
    }

    /// The answer's messages, one a PID, as if each had been asked alone.
    fn parts(&self, answer: &Answer, pids: &[u8], frame: u8) -> Vec<Told> {
        let of = |message: &Message| -> Vec<Told> {
            let parts = split(&message.payload, pids, frame, &self.bundle.pids);
            let alone = |(pid, data): (u8, &[u8])| Told {
                request: Request::freeze_frame(pid, frame),
                ecu: message.sender.clone(),
                payload: [&[0x42, pid, frame], data].concat(),
            };
            parts.into_iter().map(alone).collect()
        };
        answer.messages.iter().flat_map(of).collect()
    }

    /// PIDs that did not come from every ECU that promises them.
    fn missing(&self, told: &[Told], pids: &[u8], frame: u8, ecus: &[EcuAddress]) -> Vec<u8> {
        let gave = |ecu: &EcuAddress, pid: u8| {
            told.iter().any(|told| told.ecu == *ecu && told.request.id() == Some(pid))
        };
        let lacks = |pid: &u8| {
            let promise = |ecu: &&EcuAddress| self.record.supported_in_freeze_frame(ecu, frame).contains(pid);
            ecus.iter().filter(promise).any(|ecu| !gave(ecu, *pid))
        };
        pids.iter().copied().filter(lacks).collect()
    }

    /// How many lines the answer to one PID has, when that is certain and each is a message.
    fn single_lines(&self, pid: u8, frame: u8, ecus: &[EcuAddress]) -> Option<u8> {
        let mask = pid.is_multiple_of(0x20).then_some(4);
        let bytes = mask.or_else(|| self.bundle.pids.get(0x02, pid).map(|row| row.bytes))?;
        let promised = ecus
            .iter()
            .filter(|ecu| self.record.supported_in_freeze_frame(ecu, frame).contains(&pid))
            .count();
        // Service, PID and frame number stand in front; a single frame holds seven bytes.
        let single = bytes + 3 <= 7;
        u8::try_from(promised).ok().filter(|n| single && (1..=MOST_LINES).contains(n))
    }

    /// How many lines the whole answer to several PIDs has; a PID of two lengths may make it more.
    fn lines(&self, pids: &[u8], frame: u8, ecus: &[EcuAddress]) -> Option<usize> {
        let length = |pid: u8| self.bundle.pids.get(0x02, pid).map(|row| row.bytes);
        let mut lines = 0;
        for ecu in ecus {
            let promised = self.record.supported_in_freeze_frame(ecu, frame);
            let mut bytes = 0;
            for pid in pids {
                // PID and frame number stand before the data.
                bytes += length(*pid).filter(|_| promised.contains(pid)).map_or(0, |data| 2 + data);
                length(*pid)?;
            }
            lines += line_count(bytes);
        }
        (1..=usize::from(MOST_LINES)).contains(&lines).then_some(lines)
    }
}

/// Lines of one unit's answer: the service and so many bytes in ISO 15765-2 frames of 8.
fn line_count(bytes: usize) -> usize {
    match bytes {
        0 => 0,
        1..=6 => 1,
        // Six bytes in the first frame, seven in each that follows.
        more => 1 + (more + 1 - 6).div_ceil(7),
    }
}

/// PID and data of each PID in an answer to several of one frame: fewer than were asked for, and
/// in another order, perhaps; what follows something unknown, or is cut off, is left out.
fn split<'a>(payload: &'a [u8], asked: &[u8], frame: u8, table: &PidTable) -> Vec<(u8, &'a [u8])> {
    let row = |pid| table.get(0x02, pid);
    let usual = walk(payload, asked, frame, &|pid| Some(row(pid)?.bytes));
    let covered = |parts: &[(u8, &[u8])]| 1 + parts.iter().map(|(_, data)| 2 + data.len()).sum::<usize>();
    if covered(&usual) == payload.len() {
        return usual;
    }
    // Some PIDs have two lengths: with the longer one, if then everything fits.
    let longer = walk(payload, asked, frame, &|pid| row(pid).map(|row| row.bytes + row.more_bytes));
    if covered(&longer) == payload.len() { longer } else { usual }
}

fn walk<'a>(
    payload: &'a [u8],
    asked: &[u8],
    frame: u8,
    length: &dyn Fn(u8) -> Option<usize>,
) -> Vec<(u8, &'a [u8])> {
    let mut parts: Vec<(u8, &[u8])> = Vec::new();
    let mut rest = payload.strip_prefix(&[0x42]).unwrap_or_default();
    while let [pid, number, behind @ ..] = rest {
        let new = asked.contains(pid) && *number == frame && parts.iter().all(|(earlier, _)| earlier != pid);
        let length = length(*pid).filter(|_| new);
        let Some((data, next)) = length.and_then(|length| behind.split_at_checked(length)) else { break };
        parts.push((*pid, data));
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
        let asked = [0x0C, 0x0D, 0x05, 0x06];
        for (name, answer, expected) in [
            ("in order", "42 0C00 2580 0D00 40 0500 80", vec![(0x0C, "2580"), (0x0D, "40"), (0x05, "80")]),
            ("another order, fewer", "42 0500 80 0C00 2580", vec![(0x05, "80"), (0x0C, "2580")]),
            ("data that looks like a PID", "42 0C00 0D00 0D00 0C", vec![(0x0C, "0D00"), (0x0D, "0C")]),
            ("two lengths, the shorter", "42 0600 80 0D00 40", vec![(0x06, "80"), (0x0D, "40")]),
            ("two lengths, the longer", "42 0600 8081 0D00 40", vec![(0x06, "8081"), (0x0D, "40")]),
            ("another frame", "42 0C00 2580 0D01 40", vec![(0x0C, "2580")]),
            ("cut off", "42 0D00 40 0C00 25", vec![(0x0D, "40")]),
            ("not asked for", "42 0D00 40 0B00 21", vec![(0x0D, "40")]),
            ("the same twice", "42 0D00 40 0D00 41", vec![(0x0D, "40")]),
            ("padding", "42 0D00 40 0000 00", vec![(0x0D, "40")]),
            ("another service", "41 0C 2580", vec![]),
            ("nothing", "42", vec![]),
        ] {
            let answer = hex::decode(answer.replace(' ', "")).unwrap();
            let found: Vec<(u8, String)> = split(&answer, &asked, 0, &table)
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
        fn any_order_is_taken_apart(order in proptest::sample::subsequence(vec![0x03_u8, 0x04, 0x05, 0x0C, 0x0D, 0x11], 1..4).prop_shuffle(), frame in any::<u8>(), fill in any::<u8>()) {
            let table = table();
            let mut payload = vec![0x42];
            for pid in &order {
                payload.extend([*pid, frame]);
                payload.extend(vec![fill; table.get(0x02, *pid).unwrap().bytes]);
            }
            let found: Vec<u8> = split(&payload, &order, frame, &table).iter().map(|(pid, _)| *pid).collect();
            prop_assert_eq!(found, order);
        }

        #[test]
        fn never_panics(payload in proptest::collection::vec(any::<u8>(), 0..64), asked in proptest::collection::vec(any::<u8>(), 0..4), frame in any::<u8>()) {
            let _ = split(&payload, &asked, frame, &table());
        }
    }
}
