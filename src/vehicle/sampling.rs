//! Live values of the car at hand, asked for again and again. What lives here: what is known of
//! who answers which PID, so that an adapter need not wait for answers that nobody gives; PIDs
//! the car does not answer are left out after some tries; a car of UDS alone is asked for the
//! identifiers that stand for them. What does not: which PIDs are
//! worth asking (`powertrain`), when (`polling`), and how several go into one request (`batch`).
//!
//! A promise is doubted when it was broken a few times; then the adapter waits as if
//! nothing were known. So a unit that is switched off costs some repetitions and no values.

use std::collections::{BTreeMap, BTreeSet};

use super::adapter::Adapter;
use super::answer::Message;
use super::batch::{Batch, Outcome, Promises};
use super::error::AdapterError;
use super::gate::{Request, Target};
use super::protocol::EcuAddress;
use super::report::ScanRecord;
use super::uds::{self, find};
use crate::protocols::PidTable;

/// A live PID without an answer so often is left out for the rest of the visit, and a unit's
/// promise broken so often is believed no more.
const MISSES: u8 = 3;
/// The PIDs that the answer to 0100 promises.
const FIRST_MASK: std::ops::RangeInclusive<u8> = 0x01..=0x20;

/// What is known of one car.
#[derive(Debug, Clone, Default)]
pub struct Sampling {
    promises: Promises,
    /// Of a car that is silent to J1979: which unit has which PIDs as identifiers F4xx.
    on_uds: Promises,
    /// Broken promises, how often in a row.
    doubts: BTreeMap<(EcuAddress, u8), u8>,
    /// PIDs without an answer, how often.
    unanswered: BTreeMap<u8, u8>,
}

impl Sampling {
    /// A scan told all promises.
    pub fn scanned(&mut self, record: &ScanRecord) {
        // A car of UDS alone answers no service 01: its promises are those of identifiers.
        let j1979 = record.told.iter().any(|told| told.request.service() == 0x03);
        let nothing = Promises::new();
        (self.promises, self.on_uds) =
            if j1979 { (record.promises(), nothing) } else { (nothing, record.promises()) };
        self.doubts.clear();
    }

    /// These units answered just now, and promise these of the first 32 PIDs. Whoever else was
    /// known is not there any more.
    pub fn met(&mut self, units: &Promises) {
        let before = std::mem::take(&mut self.promises);
        for (unit, first) in units.iter().filter(|(_, first)| !first.is_empty()) {
            let later = before.get(unit).into_iter().flatten().filter(|pid| !FIRST_MASK.contains(pid));
            self.promises.insert(unit.clone(), first.iter().chain(later).copied().collect());
            self.on_uds.clear();
        }
    }

    /// Another car, or perhaps another one.
    pub fn forget(&mut self) {
        *self = Self::default();
    }

    /// A PID gave nothing of use.
    pub fn missed(&mut self, pid: u8) {
        let times = self.unanswered.entry(pid).or_default();
        *times = times.saturating_add(1);
    }

    /// Asks current data of those PIDs that are not left out.
    ///
    /// # Errors
    /// [`AdapterError`]: the adapter failed, or its reply broke off.
    pub async fn ask(
        &mut self,
        adapter: &mut Adapter,
        table: &PidTable,
        pids: &[u8],
    ) -> Result<Vec<Outcome>, AdapterError> {
        let left_out = |pid: &u8| self.unanswered.get(pid).is_some_and(|times| *times >= MISSES);
        let wanted = pids.iter().copied().filter(|pid| !left_out(pid));
        if !self.on_uds.is_empty() {
            return self.ask_on_uds(adapter, wanted.collect()).await;
        }
        let promises = self.believed();
        let (certain, open): (Vec<u8>, Vec<u8>) =
            wanted.partition(|pid| promises.values().any(|promised| promised.contains(pid)));
        let nothing = Promises::new();
        let mut outcomes = Vec::new();
        for (pids, promises) in [(certain, &promises), (open, &nothing)] {
            let batch = Batch { table, promises, broken_in_a_row: 1 };
            outcomes.extend(batch.ask(adapter, &pids, &mut |_| {}).await?);
        }
        self.doubt(&promises, &outcomes);
        Ok(outcomes)
    }

    /// Each PID of the first unit that has it, as the J1979 answer it stands for.
    async fn ask_on_uds(&self, adapter: &mut Adapter, pids: Vec<u8>) -> Result<Vec<Outcome>, AdapterError> {
        let mut outcomes = Vec::new();
        for pid in pids {
            let mut units = self.on_uds.iter().filter(|(_, promised)| promised.contains(&pid));
            let Some(unit) = units.find_map(|(unit, _)| find::request_id(unit)) else { continue };
            let did = 0xF400 | u16::from(pid);
            let Some(request) = Request::data_by_identifier(did).to(Target::Unit(unit)) else { continue };
            let answer = adapter.ask(request, None).await?;
            let as_j1979 = |message: &Message| {
                let data = uds::answer::data(&message.payload, did).ok()?;
                Some(Message { sender: message.sender.clone(), payload: [&[0x41, pid], data].concat() })
            };
            outcomes.push(Outcome {
                pid,
                messages: answer.messages.iter().filter_map(as_j1979).collect(),
                trouble: answer.trouble(),
                garbage: answer.garbage,
            });
        }
        Ok(outcomes)
    }

    /// Promises that were not broken too often.
    fn believed(&self) -> Promises {
        let doubted = |unit: &EcuAddress, pid: u8| {
            self.doubts.get(&(unit.clone(), pid)).is_some_and(|times| *times >= MISSES)
        };
        let of = |(unit, pids): (&EcuAddress, &BTreeSet<u8>)| {
            (unit.clone(), pids.iter().copied().filter(|pid| !doubted(unit, *pid)).collect())
        };
        self.promises.iter().map(of).collect()
    }

    fn doubt(&mut self, promises: &Promises, outcomes: &[Outcome]) {
        for outcome in outcomes {
            let of_pid = promises.iter().filter(|(_, pids)| pids.contains(&outcome.pid));
            for (unit, _) in of_pid {
                let kept = outcome.messages.iter().any(|message| message.sender == *unit);
                let times = self.doubts.entry((unit.clone(), outcome.pid)).or_default();
                *times = if kept { 0 } else { times.saturating_add(1) };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn promises(of: &[(&str, &[u8])]) -> Promises {
        of.iter().map(|(unit, pids)| (EcuAddress((*unit).into()), pids.iter().copied().collect())).collect()
    }

    fn outcome(pid: u8, units: &[&str]) -> Outcome {
        let message =
            |unit: &&str| Message { sender: EcuAddress((*unit).into()), payload: vec![0x41, pid, 0] };
        Outcome { pid, messages: units.iter().map(message).collect(), ..Outcome::default() }
    }

    #[test]
    fn contact_renews_the_first_mask_and_keeps_the_later_ones() {
        let mut sampling = Sampling {
            promises: promises(&[("7E8", &[0x05, 0x0C, 0x20, 0x5B]), ("7E9", &[0x0C])]),
            ..Sampling::default()
        };
        sampling.met(&promises(&[("7E8", &[0x0C, 0x20]), ("7EA", &[0x0D]), ("7EB", &[])]));
        assert_eq!(sampling.promises, promises(&[("7E8", &[0x0C, 0x20, 0x5B]), ("7EA", &[0x0D])]));
        sampling.met(&Promises::new());
        assert_eq!(sampling.promises, Promises::new());
    }

    #[test]
    fn a_promise_broken_again_and_again_is_believed_no_more() {
        let both = promises(&[("7E8", &[0x0C, 0x0D]), ("7E9", &[0x0D])]);
        let mut sampling = Sampling { promises: both.clone(), ..Sampling::default() };
        for units in [&["7E8"][..], &["7E8"], &["7E8", "7E9"], &["7E8"], &["7E8"]] {
            assert_eq!(sampling.believed(), both, "kept once in between");
            sampling.doubt(&both, &[outcome(0x0D, units)]);
        }
        sampling.doubt(&both, &[outcome(0x0D, &["7E8"])]);
        assert_eq!(sampling.believed(), promises(&[("7E8", &[0x0C, 0x0D]), ("7E9", &[])]));
        // It is met again and promises the same: still doubted, until the next scan or car.
        sampling.met(&both);
        assert_eq!(sampling.believed(), promises(&[("7E8", &[0x0C, 0x0D]), ("7E9", &[])]));
    }
}
