//! Values of many PIDs with few questions. What lives here: which PIDs go into one
//! request, and going back to fewer PIDs, or to one, where car or adapter cannot do
//! more. What does not: taking the answer apart (`parts`), what the data means
//! (`pids`), and how a question gets to the car (the drivers).
//!
//! ```text
//!  010C0D05420B0F ──► 7E8 41 0C…0D…05…42…  and  7E9 41 0D…0C…
//!    7F 01 12                   ──► half of them each; so remembered for this car
//!    nobody, twice              ──► one alone: answered, the same; else the car is silent
//!    a promised PID is missing  ──► that one alone
//! ```

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::adapter::Adapter;
use super::answer::{Answer, Message};
use super::error::AdapterError;
use super::gate::{Outgoing, Request};
use super::parts::{self, Of, line_count};
use super::protocol::EcuAddress;
use crate::protocols::PidTable;

/// Most PIDs in one request (SAE J1979 §7.1).
pub const MOST_PIDS: usize = 6;
/// Lines of an answer that every adapter survives: those of a VIN.
const SURE_LINES: usize = 3;
/// The digit behind a request counts so many lines at most (ELM327 data sheet).
const MOST_LINES: usize = 15;
/// Clear codes (SAE J1979). A serial line that swallows characters must not make it of a
/// request: this PID stands neither first nor last among several.
const CLEARS_ELSEWHERE: u8 = 0x04;
/// Batches of which one PID came only when asked alone; after that many, one by one.
const FORGETFUL: u32 = 2;
/// Promised PIDs that do not come when asked alone either: the car says nothing to the others too.
const SILENT_ALONE: u32 = 2;
/// Refusals that mean "too many at once": ISO 14229-1 table A.1, general, sub-function,
/// length, out of range.
const TOO_MANY: [u8; 4] = [0x10, 0x12, 0x13, 0x31];

/// Which unit promises which PIDs. Empty: not known.
pub type Promises = BTreeMap<EcuAddress, BTreeSet<u8>>;

/// What came of one PID, as if it had been asked alone.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Outcome {
    /// The PID.
    pub pid: u8,
    /// `41`, PID and data, by unit.
    pub messages: Vec<Message>,
    /// Why there is no usable answer.
    pub trouble: Option<String>,
    /// Lines that made no sense.
    pub garbage: usize,
}

/// Asks current data of many PIDs, in the order in which they are given.
pub struct Batch<'a> {
    /// Lengths of PIDs.
    pub table: &'a PidTable,
    /// Who answers what; what is promised and missing is asked for again.
    pub promises: &'a Promises,
    /// So many replies in a row that break off end it, with the last one's error.
    pub broken_in_a_row: u32,
}

impl Batch<'_> {
    /// Asks; `before` is told each request.
    ///
    /// # Errors
    /// [`AdapterError`]: the adapter failed, or its replies break off again and again.
    pub async fn ask(
        &self,
        adapter: &mut Adapter,
        pids: &[u8],
        before: &mut (dyn FnMut(Request) + Send),
    ) -> Result<Vec<Outcome>, AdapterError> {
        let mut round = Round { batch: self, before, outcomes: BTreeMap::new(), broken: 0, forgotten: 0 };
        let mut waiting: VecDeque<Vec<u8>> = self.plan(adapter, pids).into();
        while let Some(chunk) = waiting.pop_front() {
            if chunk.len() > adapter.most_pids() {
                front(&mut waiting, self.plan(adapter, &chunk));
            } else if let [pid] = chunk.as_slice() {
                round.one(adapter, *pid).await?;
            } else {
                let again = round.several(adapter, &chunk).await?;
                front(&mut waiting, again);
            }
        }
        Ok(pids.iter().filter_map(|pid| round.outcomes.remove(pid)).collect())
    }

    /// The PIDs of each request, as [`Self::ask`] would ask them now.
    #[must_use]
    pub fn plan(&self, adapter: &Adapter, pids: &[u8]) -> Vec<Vec<u8>> {
        let lines = if adapter.capabilities().long_answers == Some(true) { MOST_LINES } else { SURE_LINES };
        plan(pids, adapter.most_pids(), lines, self.table, self.promises)
    }

    fn is_promised(&self, pid: u8) -> bool {
        self.promises.values().any(|pids| pids.contains(&pid))
    }

    /// A PID that somebody promised, or anybody might give, and that did not come from all of them.
    fn is_missing(&self, pid: u8, messages: &[Message]) -> bool {
        let has = |ecu: Option<&EcuAddress>| {
            messages.iter().any(|m| ecu.is_none_or(|ecu| m.sender == *ecu) && m.payload.get(1) == Some(&pid))
        };
        if self.promises.is_empty() {
            return !has(None);
        }
        self.promises.iter().any(|(ecu, pids)| pids.contains(&pid) && !has(Some(ecu)))
    }
}

fn front(waiting: &mut VecDeque<Vec<u8>>, chunks: Vec<Vec<u8>>) {
    for chunk in chunks.into_iter().rev() {
        waiting.push_front(chunk);
    }
}

struct Round<'a> {
    batch: &'a Batch<'a>,
    before: &'a mut (dyn FnMut(Request) + Send),
    outcomes: BTreeMap<u8, Outcome>,
    broken: u32,
    forgotten: u32,
}

impl Round<'_> {
    /// Asks several at once; what is to be asked again, in smaller pieces, is returned.
    async fn several(&mut self, adapter: &mut Adapter, chunk: &[u8]) -> Result<Vec<Vec<u8>>, AdapterError> {
        let Some(request) = Request::current_many(chunk) else { return Ok(Vec::new()) };
        let lines = lines(chunk, self.batch.table, self.batch.promises);
        (self.before)(request);
        let mut answer = self.tolerantly(adapter, request, lines).await?.unwrap_or_default();
        let short =
            |answer: &Answer, round: &Self| !round.missing(chunk, &round.parts(answer, chunk)).is_empty();
        if answer.refusals.is_empty()
            && short(&answer, self)
            && (lines.is_some() || answer.messages.is_empty())
        {
            // Lost on the way, or the digit counted somebody else's line.
            answer = self.tolerantly(adapter, request, None).await?.unwrap_or_default();
        }
        if answer.refusals.iter().any(|(_, code)| TOO_MANY.contains(code)) {
            adapter.limit_pids(chunk.len().div_ceil(2));
            return Ok(self.batch.plan(adapter, chunk));
        }
        if answer.complaints.iter().any(|complaint| complaint.is_unsent()) {
            // Shorter lines have less to lose.
            return Ok(chunk.iter().map(|pid| vec![*pid]).collect());
        }
        if answer.messages.is_empty() {
            return self.doubt_the_number(adapter, chunk).await;
        }
        let parts = self.parts(&answer, chunk);
        let missing = self.missing(chunk, &parts);
        for &pid in chunk {
            let of_pid = |m: &&Message| m.payload.get(1) == Some(&pid);
            let outcome = self.outcomes.entry(pid).or_default();
            outcome.pid = pid;
            outcome.messages = parts.iter().filter(of_pid).cloned().collect();
            if outcome.messages.is_empty() {
                outcome.trouble = Some("no data".into());
            }
        }
        if let Some(first) = chunk.first().and_then(|pid| self.outcomes.get_mut(pid)) {
            first.garbage += answer.garbage;
        }
        Ok(missing.into_iter().map(|pid| vec![pid]).collect())
    }

    /// Nobody answered several: too many for the car, or the car is silent. One alone tells; only
    /// when it is answered the number was the reason.
    async fn doubt_the_number(
        &mut self,
        adapter: &mut Adapter,
        chunk: &[u8],
    ) -> Result<Vec<Vec<u8>>, AdapterError> {
        let mut broken_promises = 0;
        for (place, &pid) in chunk.iter().enumerate() {
            if broken_promises < SILENT_ALONE {
                self.one(adapter, pid).await?;
                if self.outcomes.get(&pid).is_some_and(|outcome| !outcome.messages.is_empty()) {
                    adapter.limit_pids(chunk.len().div_ceil(2));
                    return Ok(self.batch.plan(adapter, chunk.get(place + 1..).unwrap_or_default()));
                }
                broken_promises += u32::from(self.batch.is_promised(pid));
            } else {
                let silence = Outcome { pid, trouble: Some("no data".into()), ..Outcome::default() };
                self.outcomes.entry(pid).or_insert(silence);
            }
        }
        Ok(Vec::new())
    }

    /// Asks one alone. What is promised is asked for once more.
    async fn one(&mut self, adapter: &mut Adapter, pid: u8) -> Result<(), AdapterError> {
        let request = Request::current(pid);
        let lines = lines(&[pid], self.batch.table, self.batch.promises);
        (self.before)(request);
        let mut answer = self.tolerantly(adapter, request, lines).await?;
        let short = |answer: &Result<Answer, String>| {
            answer.as_ref().is_ok_and(|a| a.refusals.is_empty() && self.batch.is_missing(pid, &a.messages))
        };
        if self.batch.is_promised(pid) && short(&answer) {
            // Without the digit: it may have counted somebody else's line.
            answer = self.tolerantly(adapter, request, None).await?;
        }
        let earlier = self.outcomes.remove(&pid);
        let outcome = match answer {
            Ok(answer) => {
                Outcome { pid, trouble: answer.trouble(), garbage: answer.garbage, messages: answer.messages }
            }
            Err(trouble) => Outcome { pid, trouble: Some(trouble), ..Outcome::default() },
        };
        let outcome = match earlier {
            Some(earlier) if earlier.messages.len() < outcome.messages.len() => {
                // It was left out among several and comes alone.
                self.forgotten += 1;
                if self.forgotten >= FORGETFUL {
                    adapter.limit_pids(1);
                }
                outcome
            }
            Some(earlier) if !earlier.messages.is_empty() => earlier,
            _ => outcome,
        };
        self.outcomes.insert(pid, outcome);
        Ok(())
    }

    /// The answer's messages, one a PID.
    fn parts(&self, answer: &Answer, chunk: &[u8]) -> Vec<Message> {
        let of = |message: &Message| {
            let split = parts::split(Of::Current, &message.payload, chunk, self.batch.table);
            let alone = |(pid, data): (u8, &[u8])| Message {
                sender: message.sender.clone(),
                payload: [&[0x41, pid], data].concat(),
            };
            split.into_iter().map(alone).collect::<Vec<_>>()
        };
        answer.messages.iter().flat_map(of).collect()
    }

    fn missing(&self, chunk: &[u8], parts: &[Message]) -> Vec<u8> {
        chunk.iter().copied().filter(|pid| self.batch.is_missing(*pid, parts)).collect()
    }

    /// A reply that broke off is an answer too, unless it happens again and again.
    async fn tolerantly(
        &mut self,
        adapter: &mut Adapter,
        request: Request,
        lines: Option<u8>,
    ) -> Result<Result<Answer, String>, AdapterError> {
        match adapter.ask(request, lines).await {
            Ok(answer) => {
                self.broken = 0;
                Ok(Ok(answer))
            }
            Err(error @ AdapterError::HalfReply(_)) => {
                self.broken += 1;
                if self.broken >= self.batch.broken_in_a_row {
                    Err(error)
                } else {
                    Ok(Err("half a reply".into()))
                }
            }
            Err(error) => Err(error),
        }
    }
}

fn length(pid: u8, table: &PidTable) -> Option<usize> {
    Of::Current.length(pid, table)
}

/// PIDs to a request each: at most `most`, and answers of at most `most_lines` lines.
/// A PID of unknown length goes alone: it would hide what stands behind it.
fn plan(pids: &[u8], most: usize, most_lines: usize, table: &PidTable, promises: &Promises) -> Vec<Vec<u8>> {
    let mut chunks: Vec<Vec<u8>> = Vec::new();
    let mut alone = Vec::new();
    for pid in by_care(pids) {
        if length(pid, table).is_none() {
            alone.push(vec![pid]);
            continue;
        }
        let fits = |chunk: &Vec<u8>| {
            let whole = [chunk.as_slice(), &[pid]].concat();
            whole.len() <= most.min(MOST_PIDS) && all_lines(&whole, table, promises) <= most_lines
        };
        match chunks.last_mut().filter(|chunk| fits(chunk)) {
            Some(chunk) => chunk.push(pid),
            None => chunks.push(vec![pid]),
        }
    }
    for chunk in &mut chunks {
        if let Some(place) = chunk.iter().position(|pid| *pid == CLEARS_ELSEWHERE) {
            let middle = chunk.len() / 2;
            chunk.swap(place, middle);
        }
    }
    for chunk in &mut chunks {
        // `0142…` with its 1 lost on a serial line is service 04.
        if let Some(place) = chunk.iter().position(|pid| !may_read_as_clearing(*pid)) {
            chunk.rotate_left(place);
        }
        let lines = lines(chunk, table, promises);
        if let Some(easy) = easily_typed(chunk, lines).or_else(|| easily_typed(chunk, None)) {
            *chunk = easy;
        }
    }
    chunks.extend(alone);
    chunks
}

/// A fragile line is typed and heard before it is ended, another way there and back over the line:
/// PIDs whose digits make it so come last, and together. A 4 always does (behind the service's 0
/// it is a clearing, should the rest be lost), a 3 often (30 to 3D). 04 itself keeps its place, where
/// there are others to stand around it.
fn by_care(pids: &[u8]) -> Vec<u8> {
    let has = |pid: u8, digit: u8| pid >> 4 == digit || pid & 0x0F == digit;
    let mut pids = pids.to_vec();
    pids.sort_by_key(|pid| match *pid {
        CLEARS_ELSEWHERE => 0,
        pid if has(pid, 4) => 2,
        pid => u8::from(has(pid, 3)),
    });
    pids
}

/// The same PIDs in an order that need not be typed with care, asked for so many lines.
fn easily_typed(chunk: &[u8], lines: Option<u8>) -> Option<Vec<u8>> {
    let turned = (0..chunk.len()).map(|by| {
        let mut turned = chunk.to_vec();
        turned.rotate_left(by);
        turned
    });
    let is_easy = |pids: &Vec<u8>| {
        let plain = Request::current_many(pids).map(Outgoing::Obd);
        let counted = Request::current_many(pids).zip(lines).map(|(r, n)| Outgoing::ObdCounted(r, n));
        ![plain, counted].into_iter().flatten().any(Outgoing::is_fragile)
    };
    turned.into_iter().find(is_easy)
}

/// Whether `01` (or `02`) and this PID, one character lost on the way, begin with 04.
pub(super) fn may_read_as_clearing(pid: u8) -> bool {
    pid == CLEARS_ELSEWHERE || pid & 0xF0 == 0x40
}

/// Lines of the whole answer, of all units that promise something of it.
fn all_lines(chunk: &[u8], table: &PidTable, promises: &Promises) -> usize {
    let of = |promised: &dyn Fn(u8) -> bool| {
        let bytes =
            chunk.iter().filter(|pid| promised(**pid)).map(|pid| 1 + length(*pid, table).unwrap_or(0));
        line_count(bytes.sum())
    };
    if promises.is_empty() {
        return of(&|_| true);
    }
    promises.values().map(|pids| of(&|pid| pids.contains(&pid))).sum()
}

/// How many lines the answer has, when that is certain: who answers is known, and each PID's length.
fn lines(chunk: &[u8], table: &PidTable, promises: &Promises) -> Option<u8> {
    let known = !promises.is_empty() && chunk.iter().all(|pid| length(*pid, table).is_some());
    let count = all_lines(chunk, table, promises);
    (known && (1..=MOST_LINES).contains(&count)).then(|| u8::try_from(count).ok()).flatten()
}

#[cfg(test)]
mod tests;
