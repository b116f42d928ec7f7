//! What is asked of codes that a unit listed: what was measured when they were stored (19 04),
//! the maker's counters beside them (19 06), which codes the unit could store at all (19 0A) and,
//! on J1979-2, which monitors have run (19 56). What does not live here: the lists themselves,
//! identification, and when a unit is left ([`super`]).

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::{EMISSIONS, Reading};
use crate::vehicle::error::AdapterError;
use crate::vehicle::gate::Request;
use crate::vehicle::uds::answer;
use crate::vehicle::uds::find::Unit;

/// Codes of a unit whose records are read: each is an answer of several frames. Those of the
/// others are named as left out.
const CODES_IN_DETAIL: usize = 8;
/// All records of a code (ISO 14229-1 §12.3).
const ALL_RECORDS: u8 = 0xFF;
/// Readiness groups asked for: their numbers stand in SAE J1979-DA alone, and a unit refuses
/// (31) those that it does not have.
const READINESS_GROUPS: std::ops::RangeInclusive<u8> = 0x01..=0x10;
/// No readiness group is asked for later in a reading: a report shall come within 10 s.
const READINESS_WITHIN: Duration = Duration::from_secs(8);
/// What a list of all codes may take: some hundred of them, on a slow line.
const LONG_LIST: Duration = Duration::from_secs(1);

impl Reading<'_> {
    /// Of the codes that a 59 02 lists: snapshots, but for those of `known` frames, and extended data.
    pub(super) async fn details(
        &mut self,
        unit: &Unit,
        list: &[u8],
        known: &BTreeSet<String>,
    ) -> Result<(), AdapterError> {
        let listed = answer::dtcs(list).map(|list| list.codes).unwrap_or_default();
        let wrong: Vec<_> =
            listed.into_iter().filter(|listed| listed.status.says_something_is_wrong()).collect();
        let record = |extended, dtc| Request::dtc_record(extended, dtc, ALL_RECORDS);
        let without_frame = wrong.iter().filter(|listed| !known.contains(&listed.dtc.code()));
        let snapshots: Vec<Request> = without_frame.map(|listed| record(false, listed.dtc.0)).collect();
        let extended: Vec<Request> = wrong.iter().map(|listed| record(true, listed.dtc.0)).collect();
        for requests in [&snapshots, &extended] {
            for request in requests.iter().take(CODES_IN_DETAIL) {
                self.record(unit, *request).await?;
            }
        }
        for request in [snapshots, extended].iter().flat_map(|requests| requests.iter().skip(CODES_IN_DETAIL))
        {
            if self.may_ask(*request) {
                self.leave_out(unit, *request, "more codes than are read one by one");
            }
        }
        Ok(())
    }

    /// 19 0A of every unit that told codes. The longest answer there is, so the last: only through
    /// an adapter that was seen to take long ones, and while there is time: what is not asked for
    /// these reasons is no failure. An adapter that dies of it spoils no report: its next question
    /// tells that it is gone.
    pub(super) async fn codes_it_could_store(&mut self, units: &[Unit]) -> Result<(), AdapterError> {
        // From the last one back: that is whom the adapter addresses already.
        for unit in units.iter().rev() {
            let in_time = Instant::now() + LONG_LIST < self.until;
            if !in_time || self.adapter.capabilities().long_answers != Some(true) {
                return Ok(());
            }
            let told = |told: &super::Told| told.ecu == unit.address && told.request.service() == 0x19;
            if !self.heard.told.iter().any(told) {
                continue;
            }
            self.silences = 0;
            self.unknown.clear();
            let request = Request::supported_dtcs();
            match self.record(unit, request).await {
                Ok(()) => {}
                Err(error) => {
                    self.note(unit, request, error.code().into());
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// 19 56 of each readiness group, of units that told their monitors (F401); a unit that does not
    /// know the question (12) is asked once. Numbers without a name, most of them refused: the last
    /// but one, while there is time, and what is not asked for that is no failure.
    pub(super) async fn readiness_groups(&mut self, units: &[Unit]) -> Result<(), AdapterError> {
        let until = self.begun + READINESS_WITHIN;
        for unit in units {
            let readiness = Request::current(0x01);
            let told = |told: &super::Told| told.ecu == unit.address && told.request == readiness;
            if !self.heard.told.iter().any(told) {
                continue;
            }
            self.silences = 0;
            self.unknown.clear();
            for group in READINESS_GROUPS {
                if Instant::now() < until {
                    self.record(unit, Request::dtcs_by_readiness(EMISSIONS, group)).await?;
                }
            }
        }
        Ok(())
    }

    /// Asks, and keeps the answer as it came.
    async fn record(&mut self, unit: &Unit, request: Request) -> Result<(), AdapterError> {
        if let Some(payload) = self.ask(unit, request).await? {
            self.keep(request, unit, &payload);
        }
        Ok(())
    }
}
