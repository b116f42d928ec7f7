//! Freeze frames of a scan: every frame that has a code, each with its number, by what the ECUs
//! promise for it. On CAN three PIDs go into one question where adapter and car take that.
//! What lives here: which questions, and going back to one PID a question. What does not: taking
//! answers apart (`vehicle::parts`).
//!
//! ```text
//!  020C000D000500 ──► 42 0C 00 … 0D 00 … 05 00 …
//!    nobody, or a refusal            ──► each of them alone, and so for the rest of the scan
//!    one is missing and comes alone  ──► the same
//! ```

use super::{BrokeOff, FREEZE_FRAME_QUESTIONS, FREEZE_FRAMES, MOST_LINES, Scan};
use crate::vehicle::answer::{Answer, Message};
use crate::vehicle::batch::may_read_as_clearing;
use crate::vehicle::gate::Request;
use crate::vehicle::parts::{Of, line_count, split};
use crate::vehicle::protocol::EcuAddress;
use crate::vehicle::report::Told;

/// PIDs with their frame's number in one request: service and three pairs fill a single frame
/// (ISO 15031-5 §8.2).
pub(super) const MOST_FRAME_PIDS: usize = 3;

/// A frame that has a code.
struct Frame {
    number: u8,
    /// Promised and not asked yet.
    waiting: Vec<u8>,
}

impl Scan<'_> {
    /// Every frame that has a code. Round by round each of them has its next question, so that none
    /// goes short for the sake of one that holds more.
    pub(super) async fn freeze_frames(&mut self) -> Result<(), BrokeOff> {
        // What takes several PIDs of service 01 is given several of 02; nothing is proven by that.
        self.frame_pids = self.adapter.most_pids().min(MOST_FRAME_PIDS);
        let mut frames = self.frames_with_a_code().await?;
        let ecus = self.record.ecus();
        let waiting: usize = frames.iter().map(|frame| frame.waiting.len()).sum();
        self.planned += waiting.div_ceil(self.frame_pids.max(1)).min(FREEZE_FRAME_QUESTIONS);
        let mut asked = 0;
        while frames.iter().any(|frame| !frame.waiting.is_empty()) && asked < self.frame_room() {
            for Frame { number, waiting } in &mut frames {
                let count =
                    self.at_once(waiting, *number, &ecus).min(self.frame_room().saturating_sub(asked));
                let later = waiting.split_off(count);
                let pids = std::mem::replace(waiting, later);
                asked += pids.len();
                match pids.as_slice() {
                    [] => {}
                    [pid] => {
                        let lines = self.single_lines(*pid, *number, &ecus);
                        self.ask(Request::freeze_frame(*pid, *number), lines).await?;
                    }
                    _ => self.several(pids, *number, &ecus).await?,
                }
            }
        }
        for Frame { number, waiting } in frames {
            let rest = waiting.into_iter().map(|pid| Request::freeze_frame(pid, number));
            self.leave_out(rest, "more values of freeze frames than a scan reads");
        }
        Ok(())
    }

    /// So many PIDs are asked for, over all frames.
    fn frame_room(&self) -> usize {
        FREEZE_FRAME_QUESTIONS * self.frame_pids.max(1)
    }

    /// Each with what any unit promises of it.
    async fn frames_with_a_code(&mut self) -> Result<Vec<Frame>, BrokeOff> {
        let mut frames = Vec::new();
        for number in 0..FREEZE_FRAMES {
            if number == 0 {
                self.ask(Request::freeze_frame(0x02, number), None).await?;
            } else {
                // Nobody promised another frame: silence is no failure.
                self.probe(Request::freeze_frame(0x02, number)).await?;
            }
            let ecus = self.record.ecus();
            if !ecus.iter().any(|ecu| self.record.freeze_frame_code(ecu, number).is_some()) {
                return Ok(frames);
            }
            let promised = |scan: &Self, pid: u8| {
                ecus.iter().any(|ecu| scan.record.supported_in_freeze_frame(ecu, number).contains(&pid))
            };
            for base in (0x00..=0xE0_u8).step_by(0x20) {
                if base != 0 && !promised(self, base) {
                    break;
                }
                let lines = (base != 0).then(|| self.single_lines(base, number, &ecus)).flatten();
                self.ask(Request::freeze_frame(base, number), lines).await?;
            }
            let table = &self.bundle.pids;
            let is_unknown = |pid: &u8| !pid.is_multiple_of(0x20) && table.get(0x02, *pid).is_none();
            let (unknown, known): (Vec<u8>, Vec<u8>) =
                (0x01..=0xFF).filter(|pid| promised(self, *pid)).partition(is_unknown);
            let waiting = known.into_iter().filter(|pid| table.shown(0x02, *pid).is_some()).collect();
            frames.push(Frame { number, waiting });
            let unknown = unknown.into_iter().map(|pid| Request::freeze_frame(pid, number));
            self.leave_out(unknown, "not in the table of PIDs");
        }
        let next = Request::freeze_frame(0x02, FREEZE_FRAMES);
        self.leave_out([next], "more freeze frames than a scan reads, if there are any");
        Ok(frames)
    }

    /// How many of `pids`, from the first, one question asks.
    fn at_once(&self, pids: &[u8], frame: u8, ecus: &[EcuAddress]) -> usize {
        let most_lines = self.most_lines();
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
            let parts = split(Of::FreezeFrame(frame), &message.payload, pids, &self.bundle.pids);
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
        let of = Of::FreezeFrame(frame);
        let bytes = of.length(pid, &self.bundle.pids)?;
        let promised = ecus
            .iter()
            .filter(|ecu| self.record.supported_in_freeze_frame(ecu, frame).contains(&pid))
            .count();
        let single = line_count(of.head() + bytes) == 1;
        u8::try_from(promised).ok().filter(|n| single && (1..=MOST_LINES).contains(n))
    }

    /// How many lines the whole answer to several PIDs has; a PID of two lengths may make it more.
    fn lines(&self, pids: &[u8], frame: u8, ecus: &[EcuAddress]) -> Option<usize> {
        let of = Of::FreezeFrame(frame);
        let mut lines = 0;
        for ecu in ecus {
            let promised = self.record.supported_in_freeze_frame(ecu, frame);
            let mut bytes = 0;
            for pid in pids {
                let length = of.length(*pid, &self.bundle.pids)?;
                bytes += if promised.contains(pid) { of.head() + length } else { 0 };
            }
            lines += line_count(bytes);
        }
        (1..=usize::from(MOST_LINES)).contains(&lines).then_some(lines)
    }
}
