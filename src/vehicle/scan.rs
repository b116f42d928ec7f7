//! The questions of a full read-only scan, in order of their worth: what the car
//! and its codes are before what it measures, short answers before long ones.
//! What lives here: which requests follow from which answers, repetition of what
//! was promised, and when to give up. What the answers mean is read in `report`.
//!
//! Other ways of asking plug in at [`Scan::everything`], one line each.

mod asking;
mod budget;
mod freeze_frames;

use std::collections::BTreeSet;
use std::time::Instant;

use uuid::Uuid;

use super::adapter::Adapter;
use super::answer::{Answer, Message};
use super::batch::{Batch, Promises};
use super::error::AdapterError;
use super::gate::Request;
use super::gate::group::GroupRequest;
use super::j1939;
use super::obd::{self, VinReading, info_bytes};
use super::protocol::{EcuAddress, Protocol};
use super::report::{ScanRecord, Told};
use super::uds;
use crate::clock::UtcMillis;
use crate::event::vehicle::{Adapter as AdapterFacts, RequestError};
use crate::ident::DeviceId;
use crate::protocols::Bundle;
use asking::BROKEN_IN_A_ROW;
pub use budget::Budget;

/// Freeze-frame PIDs asked for at most, over all frames.
const FREEZE_FRAME_PIDS: usize = 24;
/// Freeze frames asked for at most. SAE J1979 §6.2 prescribes frame 0 alone; makers keep a few.
const FREEZE_FRAMES: u8 = 8;
/// Tests of oxygen sensors asked for at most: each takes a fifth of a second on an older bus.
const OXYGEN_SENSOR_TESTS: usize = 24;
/// The digit behind a request counts so many lines at most.
const MOST_LINES: u8 = 15;
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

/// Whether the car answers the first question of OBD.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Contact {
    /// These ECUs do, on this protocol, and promise these of the first 32 PIDs (none: by UDS).
    Answers(Protocol, Promises),
    /// None does. Not yet a silent car: a battery car or a gateway may be awake behind it.
    Silent(String),
}

/// Asks 0100.
///
/// # Errors
/// [`AdapterError`].
pub async fn contact(adapter: &mut Adapter) -> Result<Contact, AdapterError> {
    if adapter.protocol() == Some(Protocol::J1939) {
        // It is asked nothing: what it broadcasts tells that it is still there.
        return Ok(by_j1939(adapter).await?.unwrap_or_else(|| Contact::Silent("no broadcast".into())));
    }
    let request = Request::current(0x00);
    let answer = adapter.ask(request, None).await?;
    if answer.garbage > 0 && answer.messages.is_empty() && !answer.is_silence() {
        return Err(AdapterError::Spoilt(request.to_string()));
    }
    Ok(match adapter.protocol() {
        Some(protocol) if !answer.messages.is_empty() => {
            let promised = |message: &Message| {
                let mask = obd::four_bytes(&message.payload, 2);
                mask.map(|mask| obd::supported(0x00, mask)).unwrap_or_default().into_iter().collect()
            };
            let units = answer.messages.iter().map(|message| (message.sender.clone(), promised(message)));
            Contact::Answers(protocol, units.collect())
        }
        _ => match by_j1939(adapter).await? {
            Some(truck) => truck,
            None => by_uds(adapter, &answer).await?,
        },
    })
}

/// A truck or a machine is silent on OBD and broadcasts all the time.
async fn by_j1939(adapter: &mut Adapter) -> Result<Option<Contact>, AdapterError> {
    let unit = adapter.hears_j1939().await?;
    let met = |source| (EcuAddress(format!("{source:02X}")), BTreeSet::new());
    Ok(unit.map(|source| Contact::Answers(Protocol::J1939, [met(source)].into_iter().collect())))
}

/// A battery car, or one of SAE J1979-2, is silent on 0100 and may answer UDS.
async fn by_uds(adapter: &mut Adapter, silence: &Answer) -> Result<Contact, AdapterError> {
    let units = uds::find::units(adapter, uds::find::LOOK_BUDGET).await?;
    Ok(match adapter.protocol() {
        Some(protocol) if !units.is_empty() => {
            let units = units.into_iter().map(|unit| (unit.address, BTreeSet::new()));
            Contact::Answers(protocol, units.collect())
        }
        _ => Contact::Silent(silence.trouble().unwrap_or_else(|| "no data".into())),
    })
}

/// Asks for the VIN, once more when the first answer is spoilt or missing.
///
/// # Errors
/// [`AdapterError`].
pub async fn read_vin(adapter: &mut Adapter) -> Result<VinReading, AdapterError> {
    if adapter.protocol() == Some(Protocol::J1939) {
        return adapter.vin_by_j1939().await;
    }
    let request = Request::vehicle_info(0x02);
    let mut reading = VinReading::Missing;
    for _ in 0..2 {
        let answer = adapter.ask(request, None).await?;
        let is_can = adapter.protocol().is_some_and(Protocol::is_can);
        for ecu in answer.messages.iter().map(|message| &message.sender).collect::<BTreeSet<_>>() {
            let payloads: Vec<&[u8]> = answer
                .messages
                .iter()
                .filter(|message| message.sender == *ecu)
                .map(|message| message.payload.as_slice())
                .collect();
            match VinReading::from_info(&info_bytes(&payloads, is_can)) {
                read @ VinReading::Read(_) => return Ok(read),
                VinReading::Malformed => reading = VinReading::Malformed,
                VinReading::Missing => {}
            }
        }
        // Refused: asking again changes nothing.
        if !answer.refusals.is_empty() {
            break;
        }
        if answer.is_silence()
            && reading == VinReading::Missing
            && adapter.protocol().is_some_and(Protocol::is_can)
        {
            return uds::find::vin(adapter, uds::find::LOOK_BUDGET).await;
        }
    }
    Ok(reading)
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
    adapter.doubt_j1939();
    let voltage_v = adapter.voltage().await?;
    let facts = AdapterFacts {
        identity: adapter.identity().name.clone(),
        firmware: adapter.identity().firmware.clone(),
        voltage_v,
    };
    let first = adapter.ask(Request::current(0x00), None).await?;
    let mut heard = uds::read::Heard::default();
    let mut groups = j1939::Told::default();
    let answers = adapter.protocol().filter(|_| !first.messages.is_empty());
    let protocol = match answers {
        Some(protocol) => protocol,
        None if adapter.hears_j1939().await?.is_some() => {
            let (told, unsent) = adapter.read_j1939().await?;
            groups = told;
            heard.errors = unsent.into_iter().map(not_asked).collect();
            Protocol::J1939
        }
        None => match uds::read::silent_car(adapter, bundle).await? {
            Some((protocol, told)) => {
                heard = told;
                protocol
            }
            None => {
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
        broke_off: None,
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
        for base in (0x20..=0xE0_u8).step_by(0x20) {
            let Some(lines) = self.responders(base) else { break };
            self.ask(Request::current(base), lines).await?;
        }
        let wanted: Vec<u8> = self
            .record
            .ecus()
            .iter()
            .flat_map(|ecu| self.record.supported(ecu))
            .collect::<BTreeSet<_>>()
            .into_iter()
            .filter(|pid| *pid != 0x01 && self.bundle.pids.get(0x01, *pid).is_some())
            .collect();
        let promises = self.record.promises();
        let batch = Batch { table: &self.bundle.pids, promises: &promises, broken_in_a_row: BROKEN_IN_A_ROW };
        self.planned += wanted.len().div_ceil(self.adapter.most_pids());
        for pids in wanted.chunks(PIDS_A_BATCH) {
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

    /// 08: which controls the units have, by their masks and nothing else. Few have any, and
    /// nobody promised the service: silence is no failure.
    async fn control_support(&mut self) -> Result<(), BrokeOff> {
        let form: fn(u8) -> Option<Request> = match self.record.protocol.is_can() {
            true => Request::control_support,
            false => Request::control_support_older_bus,
        };
        for base in (0x00..=0xE0_u8).step_by(0x20) {
            let promised = |ecu: &EcuAddress| self.record.supported_controls(ecu).contains(&base);
            if base != 0 && !self.record.ecus().iter().any(promised) {
                break;
            }
            let Some(request) = form(base) else { break };
            self.probe(request).await?;
        }
        Ok(())
    }

    /// 06: masks, then every promised monitor. Older buses number tests instead of monitors
    /// (SAE J1979 §6.6); they are asked the same way.
    async fn monitor_tests(&mut self) -> Result<(), BrokeOff> {
        let promised = |scan: &Self| -> BTreeSet<u8> {
            let ecus = scan.record.ecus();
            ecus.iter().flat_map(|ecu| scan.record.supported_monitors(ecu)).collect()
        };
        for base in (0x00..=0xE0_u8).step_by(0x20) {
            if base != 0 && !promised(self).contains(&base) {
                break;
            }
            self.ask(Request::monitor(base), None).await?;
        }
        let wanted: Vec<u8> = promised(self).into_iter().filter(|mid| !mid.is_multiple_of(0x20)).collect();
        self.planned += wanted.len();
        for mid in wanted {
            self.ask(Request::monitor(mid), None).await?;
        }
        Ok(())
    }

    /// 05, on older buses alone: each oxygen sensor by its bit of PID 13 or 1D (SAE J1979 §6.5).
    async fn oxygen_sensor_tests(&mut self) -> Result<(), BrokeOff> {
        let present = |told: &Told| match told.request.id() {
            Some(0x13 | 0x1D) if told.request.service() == 0x01 => told.payload.get(2).copied(),
            _ => None,
        };
        let present = self.record.told.iter().filter_map(present).fold(0, |all, sensors| all | sensors);
        let mut room = OXYGEN_SENSOR_TESTS;
        for sensor in (0..8).map(|bit| 1_u8 << bit).filter(|bit| present & bit != 0) {
            let mask = Request::oxygen_sensor_test(0x00, sensor);
            if !self.ask(mask, None).await? {
                // Not every car with sensors has the service; one silence says it for all of them.
                return Ok(());
            }
            let wanted: Vec<u8> = self.record.supported_sensor_tests(sensor).into_iter().take(room).collect();
            room -= wanted.len();
            self.planned += wanted.len();
            for test in wanted {
                self.ask(Request::oxygen_sensor_test(test, sensor), None).await?;
            }
        }
        Ok(())
    }

    /// How many ECUs promise a PID.
    fn promised(&self, pid: u8) -> usize {
        self.record.ecus().iter().filter(|ecu| self.record.supported(ecu).contains(&pid)).count()
    }

    /// Of a mask that somebody promises: how many single lines answer it.
    fn responders(&self, base: u8) -> Option<Option<u8>> {
        match self.promised(base) {
            0 => None,
            count => Some(u8::try_from(count).ok().filter(|n| (1..=15).contains(n))),
        }
    }

    /// How many lines the answer to a PID has, when that is certain.
    fn lines_of(&self, pid: u8) -> Option<u8> {
        let bytes = self.bundle.pids.get(0x01, pid)?.bytes;
        // Service and PID stand in front; a single frame holds seven bytes.
        let single = bytes + 2 <= 7;
        single.then(|| u8::try_from(self.promised(pid)).ok()).flatten().filter(|n| (1..=15).contains(n))
    }
}
