//! The questions of a full read-only scan, in order. What lives here: which
//! requests follow from which answers, repetition of what was promised, and
//! when to give up. What the answers mean is read in `report`.

use std::collections::BTreeSet;
use std::time::Instant;

use uuid::Uuid;

use super::adapter::Adapter;
use super::answer::Answer;
use super::error::AdapterError;
use super::gate::Request;
use super::obd::{VinReading, info_bytes};
use super::protocol::{EcuAddress, Protocol};
use super::report::{ScanRecord, Told};
use super::uds;
use crate::clock::UtcMillis;
use crate::event::vehicle::{Adapter as AdapterFacts, RequestError};
use crate::ident::DeviceId;
use crate::protocols::Bundle;

/// Freeze-frame PIDs asked for at most.
const FREEZE_FRAME_PIDS: usize = 24;
/// So many replies in a row that break off mean that the adapter is of no use.
const BROKEN_IN_A_ROW: u32 = 3;

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

/// Whether the car answers the first question of OBD.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Contact {
    /// These ECUs do, on this protocol.
    Answers(Protocol, Vec<EcuAddress>),
    /// None does. Not yet a silent car: a battery car or a gateway may be awake behind it.
    Silent(String),
}

/// Asks 0100.
///
/// # Errors
/// [`AdapterError`].
pub async fn contact(adapter: &mut Adapter) -> Result<Contact, AdapterError> {
    let request = Request::current(0x00);
    let answer = adapter.ask(request, None).await?;
    if answer.garbage > 0 && answer.messages.is_empty() && !answer.is_silence() {
        return Err(AdapterError::Spoilt(request.to_string()));
    }
    Ok(match adapter.protocol() {
        Some(protocol) if !answer.messages.is_empty() => {
            Contact::Answers(protocol, answer.messages.into_iter().map(|message| message.sender).collect())
        }
        _ => by_uds(adapter, &answer).await?,
    })
}

/// A battery car, or one of SAE J1979-2, is silent on 0100 and may answer UDS.
async fn by_uds(adapter: &mut Adapter, silence: &Answer) -> Result<Contact, AdapterError> {
    let units = uds::find::units(adapter, uds::find::LOOK_BUDGET).await?;
    Ok(match adapter.protocol() {
        Some(protocol) if !units.is_empty() => {
            Contact::Answers(protocol, units.into_iter().map(|unit| unit.address).collect())
        }
        _ => Contact::Silent(silence.trouble().unwrap_or_else(|| "no data".into())),
    })
}

/// Asks for the VIN, once more when the first answer is spoilt or missing.
///
/// # Errors
/// [`AdapterError`].
pub async fn read_vin(adapter: &mut Adapter) -> Result<VinReading, AdapterError> {
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
    let begun = Instant::now();
    let started_at = UtcMillis::now();
    let voltage_v = adapter.voltage().await?;
    let facts = AdapterFacts {
        identity: adapter.identity().name.clone(),
        firmware: adapter.identity().firmware.clone(),
        voltage_v,
    };
    let first = adapter.ask(Request::current(0x00), None).await?;
    let mut heard = uds::read::Heard::default();
    let answers = adapter.protocol().filter(|_| !first.messages.is_empty());
    let protocol = match answers {
        Some(protocol) => protocol,
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
        errors: heard.errors,
    };
    if answers.is_none() {
        record.duration_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        return Ok(record);
    }
    let mut scan = Scan { adapter, bundle, progress, record, done: 1, planned: 12, broken_in_a_row: 0 };
    scan.keep(Request::current(0x00), &first);
    scan.learn_response_count(&first).await?;
    scan.current_data().await?;
    scan.codes().await?;
    // Some adapters die of an answer of many frames. What the car told before is worth a
    // report all the same; the adapter's next question tells that it is gone.
    if let Err(error) = scan.information().await {
        tracing::warn!(%error, "scan broke off while reading vehicle information");
    }
    scan.record.duration_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
    Ok(scan.record)
}

struct Scan<'a> {
    adapter: &'a mut Adapter,
    bundle: &'a Bundle,
    progress: &'a mut (dyn FnMut(Progress) + Send),
    record: ScanRecord,
    done: usize,
    planned: usize,
    broken_in_a_row: u32,
}

impl Scan<'_> {
    /// Tries once, on an answer already known, whether the digit that ends the wait works.
    async fn learn_response_count(&mut self, first: &Answer) -> Result<(), AdapterError> {
        if self.adapter.capabilities().response_count.is_some() {
            return Ok(());
        }
        let lines = u8::try_from(first.messages.len()).ok().filter(|n| (1..=15).contains(n));
        let (Some(lines), true) = (lines, self.adapter.may_try_response_count()) else {
            self.adapter.set_response_count(false);
            return Ok(());
        };
        self.adapter.set_response_count(true);
        let works = match self.adapter.ask(Request::current(0x00), Some(lines)).await {
            Ok(second) => second.messages == first.messages,
            Err(AdapterError::HalfReply(_)) => false,
            Err(error) => return Err(error),
        };
        self.adapter.set_response_count(works);
        Ok(())
    }

    /// Masks, then every promised PID that the table can decode.
    async fn current_data(&mut self) -> Result<(), AdapterError> {
        for base in (0x20..=0xE0_u8).step_by(0x20) {
            if self.promised(base) == 0 {
                break;
            }
            self.ask(Request::current(base), None).await?;
        }
        let wanted: Vec<u8> = self
            .record
            .ecus()
            .iter()
            .flat_map(|ecu| self.record.supported(ecu))
            .collect::<BTreeSet<_>>()
            .into_iter()
            .filter(|pid| self.bundle.pids.get(0x01, *pid).is_some())
            .collect();
        self.planned += wanted.len();
        for pid in wanted {
            let lines = self.lines_of(pid);
            self.ask(Request::current(pid), lines).await?;
        }
        Ok(())
    }

    /// 03, 07, 0A, and where there is a code its freeze frame.
    async fn codes(&mut self) -> Result<(), AdapterError> {
        for request in [Request::confirmed_codes(), Request::pending_codes(), Request::permanent_codes()] {
            self.ask(request, None).await?;
        }
        // 43, 47 and 4A with more than a count of zero or padding.
        let any = self
            .record
            .told
            .iter()
            .filter(|told| matches!(told.request.service(), 0x03 | 0x07 | 0x0A))
            .any(|told| told.payload.iter().skip(1).any(|byte| *byte != 0));
        if any { self.freeze_frame().await } else { Ok(()) }
    }

    async fn freeze_frame(&mut self) -> Result<(), AdapterError> {
        self.ask(Request::freeze_frame(0x02, 0), None).await?;
        let ecus = self.record.ecus();
        if !ecus.iter().any(|ecu| self.record.freeze_frame_code(ecu).is_some()) {
            return Ok(());
        }
        for base in (0x00..=0xE0_u8).step_by(0x20) {
            let promised = ecus.iter().any(|ecu| self.record.supported_in_freeze_frame(ecu).contains(&base));
            if base != 0 && !promised {
                break;
            }
            self.ask(Request::freeze_frame(base, 0), None).await?;
        }
        let wanted: BTreeSet<u8> =
            ecus.iter().flat_map(|ecu| self.record.supported_in_freeze_frame(ecu)).collect();
        let wanted: Vec<u8> = wanted
            .into_iter()
            .filter(|pid| *pid != 0x02 && self.bundle.pids.get(0x02, *pid).is_some())
            .take(FREEZE_FRAME_PIDS)
            .collect();
        self.planned += wanted.len();
        for pid in wanted {
            self.ask(Request::freeze_frame(pid, 0), None).await?;
        }
        Ok(())
    }

    /// VIN, verification numbers, ECU names, calibration ids: the longest answers last.
    async fn information(&mut self) -> Result<(), AdapterError> {
        self.ask(Request::vehicle_info(0x00), None).await?;
        let promised: BTreeSet<u8> =
            self.record.ecus().iter().flat_map(|ecu| self.record.supported_info(ecu)).collect();
        for id in [0x02, 0x06, 0x0A, 0x04] {
            // A car whose mask could not be read is asked for its VIN nevertheless.
            if promised.contains(&id) || id == 0x02 && promised.is_empty() {
                self.ask(Request::vehicle_info(id), None).await?;
            }
        }
        Ok(())
    }

    /// How many ECUs promise a PID.
    fn promised(&self, pid: u8) -> usize {
        self.record.ecus().iter().filter(|ecu| self.record.supported(ecu).contains(&pid)).count()
    }

    /// How many lines the answer to a PID has, when that is certain.
    fn lines_of(&self, pid: u8) -> Option<u8> {
        let bytes = self.bundle.pids.get(0x01, pid)?.bytes;
        // Service and PID stand in front; a single frame holds seven bytes.
        let single = bytes + 2 <= 7;
        single.then(|| u8::try_from(self.promised(pid)).ok()).flatten().filter(|n| (1..=15).contains(n))
    }

    /// Asks; an answer that the masks promised is asked for once more. Keeps answers and errors.
    async fn ask(&mut self, request: Request, lines: Option<u8>) -> Result<(), AdapterError> {
        self.planned = self.planned.max(self.done + 1);
        (self.progress)(Progress { done: self.done, total: self.planned, request });
        self.done += 1;
        let mut answer = match self.ask_tolerantly(request, lines).await {
            Ok(answer) => answer,
            Err(error) => {
                self.note(request, error.code().into());
                return Err(error);
            }
        };
        let short = lines.is_some_and(|n| answer.as_ref().is_ok_and(|a| a.messages.len() < usize::from(n)));
        let missing = answer.as_ref().is_ok_and(Answer::is_silence);
        if short || missing && request.service() == 0x01 {
            // Without the digit: it may have counted somebody else's line.
            answer = self.ask_tolerantly(request, None).await?;
        }
        match answer {
            Ok(answer) => {
                self.keep(request, &answer);
                if let Some(trouble) = answer.trouble() {
                    self.note(request, trouble);
                }
            }
            Err(trouble) => self.note(request, trouble),
        }
        Ok(())
    }

    /// A reply that broke off is an entry in `errors`, unless it happens again and again.
    async fn ask_tolerantly(
        &mut self,
        request: Request,
        lines: Option<u8>,
    ) -> Result<Result<Answer, String>, AdapterError> {
        match self.adapter.ask(request, lines).await {
            Ok(answer) => {
                self.broken_in_a_row = 0;
                Ok(Ok(answer))
            }
            Err(AdapterError::HalfReply(what)) => {
                self.broken_in_a_row += 1;
                if self.broken_in_a_row >= BROKEN_IN_A_ROW {
                    return Err(AdapterError::Hung(what));
                }
                Ok(Err("half a reply".into()))
            }
            Err(error) => Err(error),
        }
    }

    fn keep(&mut self, request: Request, answer: &Answer) {
        self.record.told.extend(answer.messages.iter().map(|message| Told {
            request,
            ecu: message.sender.clone(),
            payload: message.payload.clone(),
        }));
    }

    fn note(&mut self, request: Request, error: String) {
        self.record.errors.push(RequestError { request: request.to_string(), error });
    }
}
