//! Reading a car by UDS: identification, codes with their snapshots, and all of J1979-2.
//! What lives here: which questions, in which order, and when to stop asking a unit. What a
//! J1979-2 unit tells is kept as the J1979 answer it stands for (SAE J1979-2: F4xx is PID xx,
//! F6xx monitor xx, F8xx information xx), so that one report reads both; codes stay as they
//! came and are read in [`super::report`].
//!
//! Bounded: a unit that keeps silent twice in a row is asked no more, and the whole ends with
//! its budget. Only the default session, see [`super`].

mod codes;
mod identifiers;
mod silent;
mod together;

use std::collections::BTreeSet;
use std::time::Instant;

use super::find::{self, Unit};
use super::refusal;
use crate::event::vehicle::{Powertrain, RequestError};
use crate::protocols::Bundle;
use crate::vehicle::adapter::Adapter;
use crate::vehicle::answer::Answer;
use crate::vehicle::error::AdapterError;
use crate::vehicle::gate::{Request, Target};
use crate::vehicle::report::{self, ScanRecord, Told};
use crate::vehicle::uds::{Status, answer};
pub use silent::{Silent, silent_car};

/// Identification asked of every unit (ISO 14229-1 annex C.1), with its name in reports.
pub const IDENTIFICATION: [(u16, &str); 4] = [
    (0xF187, "part_number"),
    (0xF189, "software_version"),
    (0xF191, "hardware_number"),
    (0xF195, "supplier_software_version"),
];
/// Name of the unit or its system.
const NAME: u16 = 0xF197;
/// The functional group of emissions units (ISO 27145-3, SAE J1979-2).
pub const EMISSIONS: u8 = 0x33;
/// All severity classes of 19 42 (ISO 14229-1 annex D.3, bits 1–4).
const ALL_CLASSES: u8 = 0x1E;
/// Silences in a row after which a unit is left alone.
const SILENCES: u32 = 2;
/// PID 51: what the car runs on.
const FUEL_TYPE: u8 = 0x51;

/// What a reading brought.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Heard {
    /// Positive answers, for the report.
    pub told: Vec<Told>,
    /// What got no usable answer.
    pub errors: Vec<RequestError>,
}

/// What UDS adds to units that have answered J1979: codes of three bytes with their status and
/// extended data, the snapshots of those without a freeze frame, identification where J1979 gave
/// none, and how many codes a unit could store. In a car with a drive battery the addresses of diagnosis
/// where J1979 met nobody are tried as well: its battery's unit often answers UDS alone. `before` is told each request; no question begins after `until`. Nobody promised UDS: a unit that
/// keeps silent on the first question, or does not know the service, is left, and that is no
/// error. What was heard counts also where the adapter failed.
pub async fn enhance(
    adapter: &mut Adapter,
    bundle: &Bundle,
    record: &ScanRecord,
    until: Instant,
    before: &mut (dyn FnMut(Request) + Send),
) -> (Heard, Result<(), AdapterError>) {
    let mut reading = Reading::new(adapter, bundle, until, before);
    let units = record
        .ecus()
        .into_iter()
        .filter_map(|address| Some(Unit { request_id: find::request_id(&address)?, address, vin: None }));
    let ended = reading.beside_j1979(units.collect(), record).await;
    (reading.heard, ended)
}

struct Reading<'a> {
    adapter: &'a mut Adapter,
    bundle: &'a Bundle,
    begun: Instant,
    until: Instant,
    before: &'a mut (dyn FnMut(Request) + Send),
    heard: Heard,
    /// Of the unit at hand, in a row.
    silences: u32,
    /// What it said that it does not know: a service, or of a service this kind of question.
    unknown: BTreeSet<(u8, Option<u8>)>,
    /// The adapter cannot ask such a thing of any unit.
    adapter_cannot: bool,
    /// The unit at hand is asked several identifiers at once.
    together: bool,
}

impl<'a> Reading<'a> {
    fn new(
        adapter: &'a mut Adapter,
        bundle: &'a Bundle,
        until: Instant,
        before: &'a mut (dyn FnMut(Request) + Send),
    ) -> Self {
        Self {
            adapter,
            bundle,
            begun: Instant::now(),
            until,
            before,
            heard: Heard::default(),
            silences: 0,
            unknown: BTreeSet::new(),
            adapter_cannot: false,
            together: false,
        }
    }

    /// Codes first: they are what a car is brought for.
    async fn unit(&mut self, unit: &Unit) -> Result<(), AdapterError> {
        self.silences = 0;
        self.unknown.clear();
        let request = Request::dtcs_by_status(Status::WHAT_IS_WRONG);
        if let Some(payload) = self.ask(unit, request).await? {
            self.keep(request, unit, &payload);
            self.details(unit, &payload, &BTreeSet::new()).await?;
        }
        self.obd_on_uds(unit).await?;
        // As beside J1979: where no calibration id and no name was told.
        let told = |heard: &Heard, info: u8| {
            let request = Request::vehicle_info(info);
            heard.told.iter().any(|told| told.ecu == unit.address && told.request == request)
        };
        if !told(&self.heard, 0x04) {
            self.identification(unit).await?;
        }
        if !told(&self.heard, 0x0A) {
            self.name(unit).await?;
        }
        Ok(())
    }

    async fn beside_j1979(&mut self, mut units: Vec<Unit>, record: &ScanRecord) -> Result<(), AdapterError> {
        for unit in &units {
            self.add_to(unit, record).await?;
            if self.adapter_cannot {
                return Ok(());
            }
        }
        if matches!(report::powertrain(record), Powertrain::Hybrid | Powertrain::Bev) {
            let met = self.of_the_battery(&units, record).await?;
            units.extend(met);
        }
        self.codes_it_could_store(&units).await
    }

    /// Units that J1979 does not know, with what they tell.
    async fn of_the_battery(
        &mut self,
        known: &[Unit],
        record: &ScanRecord,
    ) -> Result<Vec<Unit>, AdapterError> {
        let mut met = Vec::new();
        let searched = find::others(self.adapter, known, self.until, &mut met, &mut *self.before).await;
        for unit in &met {
            self.add_to(unit, record).await?;
        }
        if !searched? {
            let request = Request::data_by_identifier(find::VIN).to_string();
            let error = "left out: the scan would have taken too long to look for more units".into();
            self.heard.errors.push(RequestError { request, error });
        }
        Ok(met)
    }

    /// What J1979 did not tell of a unit.
    async fn add_to(&mut self, unit: &Unit, record: &ScanRecord) -> Result<(), AdapterError> {
        self.silences = 0;
        self.unknown.clear();
        let request = Request::dtcs_by_status(Status::WHAT_IS_WRONG);
        let Some(payload) = self.try_out(unit, request).await? else { return Ok(()) };
        self.keep(request, unit, &payload);
        let frozen = record.freeze_frames(&unit.address).into_iter().map(|(_, code)| code).collect();
        self.details(unit, &payload, &frozen).await?;
        let told = |info: u8| !record.payloads(&unit.address, Request::vehicle_info(info)).is_empty();
        if !told(0x04) {
            self.identification(unit).await?;
        }
        if !told(0x0A) {
            self.name(unit).await?;
        }
        Ok(())
    }

    async fn identification(&mut self, unit: &Unit) -> Result<(), AdapterError> {
        for did in IDENTIFICATION.map(|(did, _)| did) {
            let request = Request::data_by_identifier(did);
            if let Some(payload) = self.ask(unit, request).await? {
                self.keep(request, unit, &payload);
            }
        }
        Ok(())
    }

    async fn name(&mut self, unit: &Unit) -> Result<(), AdapterError> {
        if let Some(payload) = self.ask(unit, Request::data_by_identifier(NAME)).await?
            && let Ok(name) = answer::data(&payload, NAME)
        {
            self.keep(Request::vehicle_info(0x0A), unit, &[&[0x49, 0x0A, 0x01], name].concat());
        }
        Ok(())
    }

    /// J1979-2: what 22 F400, F600 and F800 promise, and the codes of the emissions group.
    async fn obd_on_uds(&mut self, unit: &Unit) -> Result<(), AdapterError> {
        self.learn_by(unit).await?;
        self.together = self.adapter.may_ask_together();
        let pids = self.promised(unit, 0xF400).await?;
        if pids.is_empty() {
            // Battery cars without masks may still say what they run on.
            self.stands_for(unit, 0xF400, FUEL_TYPE).await?;
            return Ok(());
        }
        let (pids, unknown): (Vec<u8>, Vec<u8>) =
            pids.into_iter().partition(|pid| self.bundle.pids.get(0x01, *pid).is_some());
        self.leave_out_all(unit, 0xF400, &unknown, report::NO_PID);
        let shown = |pid: &u8| self.bundle.pids.shown(0x01, *pid).is_some();
        let pids: Vec<u8> = pids.into_iter().filter(shown).collect();
        self.all_of(unit, 0xF400, &pids).await?;
        for request in [
            Request::wwh_dtcs(EMISSIONS, Status::WHAT_IS_WRONG, ALL_CLASSES),
            Request::wwh_permanent_dtcs(EMISSIONS),
        ] {
            if let Some(payload) = self.ask(unit, request).await? {
                self.keep(request, unit, &payload);
            }
        }
        for mid in self.promised(unit, 0xF600).await? {
            self.stands_for(unit, 0xF600, mid).await?;
        }
        let infos = self.promised(unit, 0xF800).await?;
        let unknown: Vec<u8> = infos.iter().copied().filter(|info| report::is_info_unknown(*info)).collect();
        self.leave_out_all(unit, 0xF800, &unknown, report::NO_INFO);
        for info in infos.into_iter().filter(|info| report::INFO_ASKED.contains(info)) {
            self.stands_for(unit, 0xF800, info).await?;
        }
        Ok(())
    }

    /// Has the adapter tried on a short answer, as 0100 is elsewhere: a car of J1979-2 is asked a
    /// hundred times, and each wait for an answer that is not to come adds up.
    async fn learn_by(&mut self, unit: &Unit) -> Result<(), AdapterError> {
        if self.adapter.capabilities().response_count.is_some() {
            return Ok(());
        }
        let request = Request::data_by_identifier(0xF400);
        let Some(answer) = self.put_quietly(unit, request, None).await? else { return Ok(()) };
        match (request.to(Target::Unit(unit.request_id)), answer.messages.as_slice()) {
            (Some(request), [_]) => match self.adapter.learn_timing(request, &answer).await {
                Err(error) if error.is_fatal() => Err(error),
                _ => Ok(()),
            },
            _ => Ok(()),
        }
    }

    /// The unit's positive answer. What went wrong is noted; that it does not have an
    /// identifier is an answer and no error.
    async fn ask(&mut self, unit: &Unit, request: Request) -> Result<Option<Vec<u8>>, AdapterError> {
        self.ask_for(unit, request, None).await
    }

    /// Whether the unit at hand has neither fallen silent nor said that it does not know such a thing.
    fn may_ask(&self, request: Request) -> bool {
        let unknown = |id| self.unknown.contains(&(request.service(), id));
        self.silences < SILENCES && !unknown(None) && !unknown(request.id())
    }

    async fn ask_for(
        &mut self,
        unit: &Unit,
        request: Request,
        lines: Option<u8>,
    ) -> Result<Option<Vec<u8>>, AdapterError> {
        if !self.may_ask(request) {
            return Ok(None);
        }
        let Some(answer) = self.put(unit, request, lines).await? else { return Ok(None) };
        if let Some(payload) = unit.positive(&answer) {
            self.silences = 0;
            return Ok(Some(payload));
        }
        if let Some(code) = unit.refusal(&answer) {
            self.silences = 0;
            match code {
                0x11 => self.unknown.insert((request.service(), None)),
                // Of service 22 the first byte is half of an identifier.
                0x12 if request.service() == 0x19 => self.unknown.insert((0x19, request.id())),
                _ => false,
            };
            if !matches!(code, 0x12 | 0x31) {
                self.note(unit, request, refusal::for_errors(code));
            }
            return Ok(None);
        }
        self.silences += 1;
        let why = answer.trouble().unwrap_or_else(|| "no data".into());
        let more = if self.silences >= SILENCES { "; this unit is asked no more" } else { "" };
        self.note(unit, request, format!("{why}{more}"));
        Ok(None)
    }

    /// The same of a unit that never said it knows UDS: silence, and refusals that mean "unknown to
    /// me" (11, 12, 31), are no errors.
    async fn try_out(&mut self, unit: &Unit, request: Request) -> Result<Option<Vec<u8>>, AdapterError> {
        let Some(answer) = self.put(unit, request, None).await? else { return Ok(None) };
        if let Some(payload) = unit.positive(&answer) {
            return Ok(Some(payload));
        }
        let silent = answer.complaints.iter().all(|complaint| complaint.is_silence())
            && answer.pending.is_empty()
            && answer.incomplete.is_empty()
            && answer.garbage == 0;
        match unit.refusal(&answer) {
            Some(0x11 | 0x12 | 0x31) => {}
            Some(code) => self.note(unit, request, refusal::for_errors(code)),
            None if silent => {}
            None => {
                self.adapter_cannot = answer.complaints.iter().any(|complaint| complaint.is_inability());
                let error = answer.trouble().unwrap_or_else(|| "no data".into());
                if self.adapter_cannot {
                    self.heard.errors.push(RequestError { request: request.to_string(), error });
                } else {
                    self.note(unit, request, error);
                }
            }
        }
        Ok(None)
    }

    /// Puts a question to the unit, while there is time. `None`: there is no answer to look at,
    /// and why is noted.
    async fn put(
        &mut self,
        unit: &Unit,
        request: Request,
        lines: Option<u8>,
    ) -> Result<Option<Answer>, AdapterError> {
        if Instant::now() >= self.until {
            self.leave_out(unit, request, "the scan would have taken too long");
            return Ok(None);
        }
        match self.put_unnoted(unit, request, lines).await {
            Err(error) if !error.is_fatal() => {
                self.note(unit, request, error.code().into());
                Ok(None)
            }
            answer => answer,
        }
    }

    /// The same of what is asked again in another way; that it failed is told and not noted.
    async fn put_unnoted(
        &mut self,
        unit: &Unit,
        request: Request,
        lines: Option<u8>,
    ) -> Result<Option<Answer>, AdapterError> {
        let in_time = Instant::now() < self.until;
        let to_unit = request.to(Target::Unit(unit.request_id)).filter(|_| in_time);
        let Some(to_unit) = to_unit else { return Ok(None) };
        (self.before)(request);
        self.adapter.ask(to_unit, lines).await.map(Some)
    }

    fn keep(&mut self, request: Request, unit: &Unit, payload: &[u8]) {
        self.heard.told.push(Told { request, ecu: unit.address.clone(), payload: payload.to_vec() });
    }

    /// Not asked: one entry a unit and reason names all such requests.
    fn leave_out(&mut self, unit: &Unit, request: Request, why: &str) {
        let error = format!("{}: left out: {why}", unit.address);
        match self.heard.errors.iter_mut().find(|entry| entry.error == error) {
            Some(entry) => {
                entry.request.push(' ');
                entry.request.push_str(&request.to_string());
            }
            None => self.heard.errors.push(RequestError { request: request.to_string(), error }),
        }
    }

    fn leave_out_all(&mut self, unit: &Unit, family: u16, ids: &[u8], why: &str) {
        for id in ids {
            self.leave_out(unit, Request::data_by_identifier(family | u16::from(*id)), why);
        }
    }

    fn note(&mut self, unit: &Unit, request: Request, error: String) {
        let error = format!("{}: {error}", unit.address);
        self.heard.errors.push(RequestError { request: request.to_string(), error });
    }
}

impl Unit {
    fn positive(&self, answer: &Answer) -> Option<Vec<u8>> {
        let message = answer.messages.iter().find(|message| message.sender == self.address)?;
        Some(message.payload.clone())
    }

    fn refusal(&self, answer: &Answer) -> Option<u8> {
        let refusal = answer.refusals.iter().find(|(sender, _)| *sender == self.address)?;
        Some(refusal.1)
    }
}
