//! The questions of a full read-only scan, in order of their worth: what the car
//! and its codes are before what it measures, short answers before long ones.
//! What lives here: which requests follow from which answers, repetition of what
//! was promised, and when to give up. What the answers mean is read in `report`.
//!
//! Other ways of asking plug in at [`Scan::everything`], one line each.

mod asking;
mod budget;
mod contact;
mod freeze_frames;
mod masks;
mod self_tests;

use std::collections::BTreeSet;
use std::time::Instant;

use uuid::Uuid;

use super::adapter::Adapter;
use super::answer::Answer;
use super::batch::Batch;
use super::error::AdapterError;
use super::gate::Request;
use super::gate::group::GroupRequest;
use super::j1939;
use super::protocol::Protocol;
use super::report::{NO_INFO, NO_PID, ScanRecord, is_info_unknown};
use super::uds;
use crate::clock::UtcMillis;
use crate::event::vehicle::{Adapter as AdapterFacts, RequestError};
use crate::ident::DeviceId;
use crate::protocols::Bundle;
use asking::BROKEN_IN_A_ROW;
pub use budget::Budget;
pub use contact::{Contact, contact, read_vin};
use masks::Masks;

/// Questions for what freeze frames hold, at most, over all frames.
const FREEZE_FRAME_QUESTIONS: usize = 24;
/// Freeze frames asked for at most. SAE J1979 §6.2 prescribes frame 0 alone; makers keep a few.
const FREEZE_FRAMES: u8 = 8;
/// The digit behind a request counts so many lines at most.
const MOST_LINES: u8 = 15;
/// Lines of an answer that every adapter survives: those of a VIN.
const SURE_LINES: usize = 3;
/// PIDs asked before it is looked at whether the car still answers.
const PIDS_A_BATCH: usize = 12;

/// How far a scan is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Requests done.
    pub done: usize,
    /// Requests known to be needed now; grows while masks are read.
    pub total: usize,
    /// The request now asked.
    pub request: Request,
}

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum ScanError {
    /// The adapter failed.
    #[error(transparent)]
    Adapter(#[from] AdapterError),
    /// The adapter works and no ECU answers.
    #[error(
        "no control unit answers ({why}); switch the ignition on; a battery car or a car with a secure gateway may not answer OBD requests at all"
    )]
    NoAnswer {
        /// What came instead.
        why: String,
    },
}

/// Why a scan that had begun did not go on.
#[derive(Debug, thiserror::Error)]
enum BrokeOff {
    #[error(transparent)]
    Adapter(#[from] AdapterError),
    /// The adapter works, and no ECU answers any more.
    #[error("the car fell silent")]
    CarSilent,
}

impl BrokeOff {
    fn code(&self) -> &'static str {
        match self {
            Self::Adapter(error) => error.code(),
            Self::CarSilent => "car-silent",
        }
    }
}

/// Runs the whole scan. `progress` is told before each request.
///
/// # Errors
/// [`ScanError`] when there is nothing to report.
pub async fn run(
    adapter: &mut Adapter,
    bundle: &Bundle,
    visit: Uuid,
    link: DeviceId,
    progress: &mut (dyn FnMut(Progress) + Send),
) -> Result<ScanRecord, ScanError> {
    run_within(Budget::default(), adapter, bundle, visit, link, progress).await
}

/// [`run`] with other times.
///
/// # Errors
/// [`ScanError`] when there is nothing to report.
pub async fn run_within(
    budget: Budget,
    adapter: &mut Adapter,
    bundle: &Bundle,
    visit: Uuid,
    link: DeviceId,
    progress: &mut (dyn FnMut(Progress) + Send),
) -> Result<ScanRecord, ScanError> {
    let begun = Instant::now();
    let started_at = UtcMillis::now();
    adapter.doubt();
    let voltage_v = adapter.voltage().await?;
    let facts = AdapterFacts {
        identity: adapter.identity().name.clone(),
        firmware: adapter.identity().firmware.clone(),
        voltage_v,
    };
    let mut first = adapter.ask(Request::current(0x00), None).await?;
    if first.messages.is_empty() && adapter.may_know_another_car() {
        adapter.close_protocol().await?;
        first = adapter.ask(Request::current(0x00), None).await?;
    }
    let mut heard = uds::read::Heard::default();
    let mut groups = j1939::Told::default();
    let mut broke_off = None;
    let answers = adapter.protocol().filter(|_| !first.messages.is_empty());
    let protocol = match answers {
        Some(protocol) => protocol,
        None if adapter.hears_j1939().await?.is_some() => {
            let read = adapter.read_j1939().await?;
            groups = read.told;
            heard.errors = read.unsent.into_iter().map(not_asked).collect();
            heard.errors.extend(read.broken.into_iter().map(not_whole));
            Protocol::J1939
        }
        None => match uds::read::silent_car(adapter, bundle).await? {
            Some(silent) => {
                heard = silent.heard;
                if let Some((request, error)) = silent.failed {
                    if heard.told.is_empty() {
                        return Err(error.into());
                    }
                    tracing::warn!(%error, "scan broke off");
                    let code = error.code().to_owned();
                    heard.errors.push(RequestError { request: request.to_string(), error: code.clone() });
                    broke_off = Some(code);
                }
                silent.protocol
            }
            None => {
                adapter.close_protocol().await?;
                return Err(ScanError::NoAnswer { why: first.trouble().unwrap_or_else(|| "no data".into()) });
            }
        },
    };
    let mut record = ScanRecord {
        visit,
        link,
        adapter: facts,
        protocol,
        started_at,
        duration_ms: 0,
        told: heard.told,
        groups,
        errors: heard.errors,
        broke_off,
    };
    if answers.is_none() {
        record.duration_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        return Ok(record);
    }
    let mut scan = Scan {
        adapter,
        bundle,
        progress,
        record,
        done: 1,
        planned: 20,
        begun,
        budget,
        frame_pids: 1,
        broken_in_a_row: 0,
        silent_in_a_row: 0,
    };
    scan.keep(Request::current(0x00), &first);
    // What the car told before it or the adapter went is worth a report all the same, marked as
    // such; the adapter's next question tells that it is gone.
    match scan.everything(&first).await {
        Err(BrokeOff::Adapter(error)) if !scan.record.has_content() => return Err(error.into()),
        Err(why) => {
            tracing::warn!(error = %why, "scan broke off");
            scan.record.broke_off = Some(why.code().into());
        }
        Ok(()) => {}
    }
    scan.record.duration_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
    Ok(scan.record)
}

fn not_asked(request: GroupRequest) -> RequestError {
    let error = "not sent: another tool is on the bus, or nobody acknowledges".into();
    RequestError { request: request.to_string(), error }
}

fn not_whole(broken: j1939::Broken) -> RequestError {
    let error = format!("unit {:02X}: packets of the message were lost, it never came whole", broken.source);
    RequestError { request: format!("PGN {}", broken.pgn), error }
}

struct Scan<'a> {
    adapter: &'a mut Adapter,
    bundle: &'a Bundle,
    progress: &'a mut (dyn FnMut(Progress) + Send),
    record: ScanRecord,
    done: usize,
    planned: usize,
    begun: Instant,
    budget: Budget,
    /// How many PIDs of a freeze frame one request asks, with this adapter and this car.
    frame_pids: usize,
    broken_in_a_row: u32,
    silent_in_a_row: u32,
}

impl Scan<'_> {
    /// Every part of the report, in order of worth.
    async fn everything(&mut self, first: &Answer) -> Result<(), BrokeOff> {
        self.adapter.learn(first, &self.bundle.pids).await?;
        self.ask(Request::current(0x01), self.lines_of(0x01)).await?;
        self.code_lists().await?;
        self.vin().await?;
        if self.any_code() {
            self.freeze_frames().await?;
        }
        self.current_data().await?;
        if !self.record.protocol.is_can() {
            self.oxygen_sensor_tests().await?;
        }
        self.monitor_tests().await?;
        self.control_support().await?;
        self.information().await?;
        if self.record.protocol.is_can() {
            self.enhanced().await?;
        }
        Ok(())
    }

    /// What only UDS tells, in the time that is left: codes beyond those of emissions, how each failed.
    async fn enhanced(&mut self) -> Result<(), BrokeOff> {
        let until = (self.begun + self.budget.whole).min(Instant::now() + self.budget.uds);
        let (done, planned, progress) = (&mut self.done, &mut self.planned, &mut *self.progress);
        let mut last = Request::current(0x00);
        let mut before = |request| {
            last = request;
            *planned = (*planned).max(*done + 1);
            progress(Progress { done: *done, total: *planned, request });
            *done += 1;
        };
        let (heard, ended) =
            uds::read::enhance(self.adapter, self.bundle, &self.record, until, &mut before).await;
        self.record.told.extend(heard.told);
        self.record.errors.extend(heard.errors);
        ended.map_err(|error| {
            self.note(last, error.code().into());
            error.into()
        })
    }

    /// Masks, then every promised PID that the table can decode and that was not asked before.
    async fn current_data(&mut self) -> Result<(), BrokeOff> {
        self.masks(Masks::Current).await?;
        let promised: BTreeSet<u8> =
            self.record.ecus().iter().flat_map(|ecu| self.record.supported(ecu)).collect();
        let table = &self.bundle.pids;
        let is_unknown = |pid: &u8| !pid.is_multiple_of(0x20) && table.get(0x01, *pid).is_none();
        let unknown: Vec<u8> = promised.iter().copied().filter(is_unknown).collect();
        self.leave_out(unknown.into_iter().map(Request::current), NO_PID);
        let is_asked = |pid: &u8| *pid != 0x01 && table.shown(0x01, *pid).is_some();
        let wanted: Vec<u8> = promised.into_iter().filter(is_asked).collect();
        let promises = self.record.promises();
        let batch = Batch { table: &self.bundle.pids, promises: &promises, broken_in_a_row: BROKEN_IN_A_ROW };
        self.planned += wanted.len().div_ceil(self.adapter.most_pids());
        let mut batches: Vec<Vec<u8>> = Vec::new();
        for request in batch.plan(self.adapter, &wanted) {
            match batches.last_mut().filter(|pids| pids.len() + request.len() <= PIDS_A_BATCH) {
                Some(pids) => pids.extend(request),
                None => batches.push(request),
            }
        }
        for pids in &batches {
            let (done, planned, progress) = (&mut self.done, &mut self.planned, &mut *self.progress);
            let mut last = Request::current(0x00);
            let mut before = |request| {
                last = request;
                *planned = (*planned).max(*done + 1);
                progress(Progress { done: *done, total: *planned, request });
                *done += 1;
            };
            let outcomes = match batch.ask(self.adapter, pids, &mut before).await {
                Ok(outcomes) => outcomes,
                Err(error) => {
                    self.note(last, error.code().into());
                    return Err(match error {
                        AdapterError::HalfReply(what) => AdapterError::Hung(what).into(),
                        error => error.into(),
                    });
                }
            };
            let silent = outcomes.iter().all(|outcome| outcome.messages.is_empty());
            for outcome in outcomes {
                let request = Request::current(outcome.pid);
                self.keep(request, &Answer { messages: outcome.messages, ..Answer::default() });
                if let Some(trouble) = outcome.trouble {
                    self.note(request, trouble);
                }
            }
            if silent {
                self.is_the_car_there().await?;
            }
        }
        Ok(())
    }

    /// 03, 07, 0A.
    async fn code_lists(&mut self) -> Result<(), BrokeOff> {
        for request in [Request::confirmed_codes(), Request::pending_codes(), Request::permanent_codes()] {
            self.ask(request, None).await?;
        }
        Ok(())
    }

    /// Whether 43, 47 or 4A held more than a count of zero or padding.
    fn any_code(&self) -> bool {
        let lists =
            self.record.told.iter().filter(|told| matches!(told.request.service(), 0x03 | 0x07 | 0x0A));
        lists.into_iter().any(|told| told.payload.iter().skip(1).any(|byte| *byte != 0))
    }

    /// The VIN, by the mask; a car whose mask could not be read is asked nevertheless.
    async fn vin(&mut self) -> Result<(), BrokeOff> {
        self.ask(Request::vehicle_info(0x00), None).await?;
        let promised = self.promised_info();
        if promised.is_empty() || promised.contains(&0x02) {
            self.ask(Request::vehicle_info(0x02), None).await?;
        }
        Ok(())
    }

    /// 09: verification numbers, in-use ratios (08 spark, 0B compression ignition), names,
    /// calibration ids: the longest answers last, some adapters die of them.
    async fn information(&mut self) -> Result<(), BrokeOff> {
        let promised = self.promised_info();
        let unknown = promised.iter().copied().filter(|id| is_info_unknown(*id));
        self.leave_out(unknown.map(Request::vehicle_info), NO_INFO);
        for id in [0x06, 0x08, 0x0B, 0x0A, 0x04] {
            if promised.contains(&id) {
                self.ask(Request::vehicle_info(id), None).await?;
            }
        }
        Ok(())
    }

    fn promised_info(&self) -> BTreeSet<u8> {
        self.record.ecus().iter().flat_map(|ecu| self.record.supported_info(ecu)).collect()
    }

    /// How many ECUs promise a PID.
    fn promised(&self, pid: u8) -> usize {
        self.record.ecus().iter().filter(|ecu| self.record.supported(ecu).contains(&pid)).count()
    }

    /// Lines of an answer that the adapter is asked for.
    fn most_lines(&self) -> usize {
        let long = self.adapter.capabilities().long_answers == Some(true);
        if long { usize::from(MOST_LINES) } else { SURE_LINES }
    }

    /// How many lines the answer to a PID has, when that is certain.
    fn lines_of(&self, pid: u8) -> Option<u8> {
        let bytes = self.bundle.pids.get(0x01, pid)?.bytes?;
        // Service and PID stand in front; a single frame holds seven bytes.
        let single = bytes + 2 <= 7;
        single.then(|| u8::try_from(self.promised(pid)).ok()).flatten().filter(|n| (1..=15).contains(n))
    }
}
