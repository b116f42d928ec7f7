//! One question to the car, until it is answered or is known not to be. What lives here:
//! the repetitions that adapters and cars make necessary, each bounded, and what is learned
//! on the way about an adapter that fails. What does not: set-up (`adapter`), trials (`probe`).

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::Instant;

use super::adapter::Adapter;
use super::answer::{data_lines, interpret};
use super::frame;
use crate::protocols::{AdapterProfile, LongAnswers, Use};
use crate::vehicle::adapter::Waits;
use crate::vehicle::answer::{Answer, BUSY_PAUSE, BUSY_REPEATS, Complaint, PENDING_ROUNDS, PENDING_WITHIN};
use crate::vehicle::error::AdapterError;
use crate::vehicle::gate::{AtCommand, Outgoing, Request, UnitAddress};
use crate::vehicle::protocol::{EcuAddress, Protocol};

/// A request on a connected bus: some chips listen on by themselves after a "wait".
const ASK_LIMIT: Duration = Duration::from_secs(7);
/// A search tries all protocols, the 5-baud starts among them.
const SEARCH_LIMIT: Duration = Duration::from_secs(25);
/// Lines of an answer beyond those of a VIN: long.
const LONG_LINES: usize = 4;
/// Of service 22 (ISO 14229-1 §11.2): more are several.
const IDENTIFIER_BYTES: usize = 2;
/// Silences that an immediate repetition disproved; after so many it no longer gives up early.
const TOO_HASTY: u32 = 2;

/// So many times `?` in a row to what another adapter of this name understood, and never when it is
/// put otherwise: a single one may be a spoilt line.
const NOT_KNOWN: u32 = 2;

/// Times in a row that the adapter said `?` to what it is remembered to understand.
#[derive(Debug, Default)]
pub(super) struct Unknown {
    /// The digit that ends the wait.
    pub(super) digit: u32,
    /// Several PIDs in one request.
    several: u32,
}

/// How often a request may yet be repeated, for each reason.
struct Repeats {
    /// "Wait" that is yet believed.
    waits: u8,
    busy: u8,
    spoilt: u32,
    restarts: u32,
    reconnects: u32,
    /// Who said "wait" and no more, and until when that is believed.
    awaited: BTreeSet<EcuAddress>,
    patience: Instant,
}

impl Repeats {
    /// Whether to ask again for a unit's sake. The chip ends its listening long before P2* is
    /// over; asked again it listens on, and what the unit says then to the first question is as
    /// good (to the second it says "busy", ISO 14229-1 table A.1).
    fn more_patience(&mut self, answer: &Answer) -> bool {
        if !answer.pending.is_empty() {
            let Some(left) = self.waits.checked_sub(1) else { return false };
            self.waits = left;
            self.patience = Instant::now() + PENDING_WITHIN;
        }
        self.awaited.extend(answer.pending.iter().cloned());
        self.awaited.retain(|unit| !answer.is_final_of(unit));
        if !self.awaited.is_empty() {
            return Instant::now() < self.patience;
        }
        let again = answer.is_busy() && self.busy > 0;
        self.busy -= u8::from(again);
        again
    }
}

impl Adapter {
    /// Asks the car. Silence and refusals are answers; errors are the adapter's.
    /// `lines`: how many lines the answer has, when that is certain.
    ///
    /// # Errors
    /// [`AdapterError`]. After [`AdapterError::HalfReply`] the adapter can be asked on.
    pub async fn ask(&mut self, request: Request, lines: Option<u8>) -> Result<Answer, AdapterError> {
        if let Some(complaint) = self.beyond_its_power(request) {
            return Ok(Answer { complaints: vec![complaint], ..Answer::default() });
        }
        // Left over from a question that failed or was given up.
        self.end_waits().await?;
        let several = request.service() == 0x22 && request.parameters().len() > IDENTIFIER_BYTES;
        let on_trial = several && self.capabilities.several_identifiers.is_none();
        if on_trial {
            // Until it is known: an adapter that dies of it is not tried again.
            self.capabilities.several_identifiers = Some(false);
        }
        let answer = self.ask_until_answered(request, lines).await;
        match &answer {
            Ok(answer) if on_trial => {
                self.capabilities.several_identifiers = match answer {
                    _ if !answer.messages.is_empty() => Some(true),
                    _ if is_unknown(answer) => Some(false),
                    // Silence, or a refusal: nothing is proven about the adapter.
                    _ => None,
                };
            }
            Err(AdapterError::Misheard(_)) if on_trial => self.capabilities.several_identifiers = None,
            Err(AdapterError::Hung(_)) if several => self.capabilities.several_identifiers = Some(false),
            _ => {}
        }
        if answer.is_ok() {
            self.end_waits().await?;
        }
        match &answer {
            Ok(answer) => {
                self.notice_haste(request, answer);
                self.notice_several(request, answer);
            }
            // Nothing was sent: the line loses characters.
            Err(AdapterError::Misheard(_)) => {
                return Ok(Answer { complaints: vec![Complaint::Misheard], ..Answer::default() });
            }
            // It died of several PIDs: a verdict too.
            Err(AdapterError::Hung(_))
                if matches!((request.service(), request.parameters().len()), (0x01, 2..)) =>
            {
                self.capabilities.multi_pid = Some(false);
            }
            Err(_) => {}
        }
        answer
    }

    /// Back to the usual wait. An answer is none the worse where that fails: the adapter is set up anew
    /// before the next question.
    async fn end_waits(&mut self) -> Result<(), AdapterError> {
        let Err(error) = self.wait_as_usual().await else { return Ok(()) };
        self.needs_set_up = true;
        if error.is_fatal() { Err(error) } else { Ok(()) }
    }

    async fn ask_until_answered(
        &mut self,
        request: Request,
        lines: Option<u8>,
    ) -> Result<Answer, AdapterError> {
        let mut counted = lines.filter(|_| self.capabilities.response_count == Some(true));
        let mut left = Repeats {
            waits: PENDING_ROUNDS,
            busy: BUSY_REPEATS,
            spoilt: 1,
            restarts: 1,
            reconnects: 1,
            awaited: BTreeSet::new(),
            patience: Instant::now(),
        };
        loop {
            if let Some(complaint) = self.address(request.target()).await? {
                return Ok(Answer { complaints: vec![complaint], ..Answer::default() });
            }
            let connected = self.protocol.is_some();
            let command = match self.safe_form(request, counted).await? {
                Ok(command) => command,
                Err(complaint) => return Ok(Answer { complaints: vec![complaint], ..Answer::default() }),
            };
            let asked = Instant::now();
            let mut answer = self.ask_once(command, request).await?;
            if answer.restarted || answer.settings_lost {
                let long = self.lines_told + 1 >= LONG_LINES;
                self.set_up_again(answer.settings_lost).await?;
                if left.restarts == 0 && long {
                    // Its supply does not last for answers of that length.
                    self.capabilities.long_answers = Some(false);
                    return Ok(Answer { complaints: vec![Complaint::LongAnswer], ..Answer::default() });
                }
                if left.restarts == 0 {
                    return Err(AdapterError::Restarting);
                }
                left.restarts -= 1;
            } else if left.reconnects > 0 && (connected && lost_bus(&answer) || is_stubborn(&answer)) {
                left.reconnects -= 1;
                if !self.reconnect().await? {
                    return Ok(answer);
                }
            } else if counted.is_some() && is_unknown(&answer) {
                counted = None;
                self.unknown.digit += 1;
                if self.unknown.digit >= NOT_KNOWN {
                    self.capabilities.response_count = Some(false);
                }
            } else if answer.is_spoilt() && left.spoilt > 0 {
                left.spoilt -= 1;
                // The message may have grown, and the digit have cut it.
                counted = counted.filter(|_| answer.incomplete.is_empty());
            } else if left.more_patience(&answer) {
                // A "wait" is a line too: counted, it would end the listening.
                counted = None;
                let listened = !left.awaited.is_empty() && self.wait_longest().await?;
                // A chip may only say that it listens longer: the car is not asked at its pace.
                let since = if listened { asked } else { Instant::now() };
                tokio::time::sleep_until(since + BUSY_PAUSE).await;
            } else {
                // Who said "wait" is not silent, though the last listening heard nothing.
                left.awaited.retain(|unit| !answer.pending.contains(unit));
                answer.pending.extend(std::mem::take(&mut left.awaited));
                if counted.is_some() && !answer.messages.is_empty() {
                    self.unknown.digit = 0;
                }
                self.doubt_assumption(&answer).await?;
                if self.lines_told >= LONG_LINES && !answer.messages.is_empty() && self.may_grow() {
                    self.capabilities.long_answers.get_or_insert(true);
                }
                return Ok(answer);
            }
        }
    }

    /// After the bus was lost: `ATPC`, then 0100 (not `ATZ`). Whether anybody answers.
    async fn reconnect(&mut self) -> Result<bool, AdapterError> {
        self.close_protocol().await?;
        let request = Request::current(0x00);
        let answer = self.ask_once(Outgoing::Obd(request), request).await?;
        Ok(answer.restarted || !answer.messages.is_empty())
    }

    /// What this adapter was seen to fail at is not asked of it again.
    fn beyond_its_power(&self, request: Request) -> Option<Complaint> {
        let known = self.capabilities;
        if known.long_requests == Some(false) && request.parameters().len() > 1 {
            return Some(Complaint::CutsRequests);
        }
        // Calibration ids, names, ratios: several lines from every unit.
        let long = request.service() == 0x09 && matches!(request.id(), Some(0x04 | 0x08 | 0x0A | 0x0B))
            || request.service() == 0x19;
        (known.long_answers == Some(false) && long).then_some(Complaint::LongAnswer)
    }

    /// Whether several identifiers in one request may be tried: nothing that is known speaks against it.
    #[must_use]
    pub fn may_ask_together(&self) -> bool {
        let known = &self.capabilities;
        let needed = [known.multi_pid, known.several_identifiers, known.long_requests, known.echo];
        let never = needed.contains(&Some(false));
        let probed =
            |profile: &AdapterProfile| profile.multi_pid == Use::Probe && profile.long_requests == Use::Probe;
        !never && self.profile().is_none_or(probed)
    }

    /// Whether a long answer that came well proves anything: of some kinds the next one may not.
    fn may_grow(&self) -> bool {
        self.profile().is_none_or(|profile| profile.long_answers == LongAnswers::Fine)
    }

    /// A silence that the same question disproves at once: it gave up too early.
    fn notice_haste(&mut self, request: Request, answer: &Answer) {
        let silent = answer.messages.is_empty() && answer.complaints.contains(&Complaint::NoData);
        if self.waits == Some(Waits::Aggressive)
            && self.silent_on == Some(request)
            && !answer.messages.is_empty()
        {
            self.too_hasty += 1;
            if self.too_hasty >= TOO_HASTY {
                self.capabilities.waits = Some(Waits::Adaptive);
            }
        }
        self.silent_on = silent.then_some(request);
    }

    /// An adapter that refuses several PIDs, though one of its name took them.
    fn notice_several(&mut self, request: Request, answer: &Answer) {
        if request.service() != 0x01 || request.parameters().len() < 2 {
            return;
        }
        self.unknown.several = if is_unknown(answer) { self.unknown.several + 1 } else { 0 };
        if self.unknown.several >= NOT_KNOWN {
            self.capabilities.multi_pid = Some(false);
        }
    }

    pub(super) async fn ask_once(
        &mut self,
        command: Outgoing,
        request: Request,
    ) -> Result<Answer, AdapterError> {
        self.lines_told = 0;
        if !self.needs_set_up {
            self.wait_as_learned().await?;
            self.wait_as_told(request).await?;
        }
        if std::mem::take(&mut self.needs_set_up) {
            return Ok(Answer { restarted: true, ..Answer::default() });
        }
        let limit = if self.protocol.is_some() { ASK_LIMIT } else { SEARCH_LIMIT };
        let reply = match self.exchange(command, limit).await {
            Ok(reply) => reply,
            Err(AdapterError::Restarting) => return Ok(Answer { restarted: true, ..Answer::default() }),
            Err(error) => return Err(error),
        };
        let data = data_lines(&reply);
        self.lines_told = data.len();
        if self.protocol.is_none()
            && let Some(first) = data.first()
        {
            self.protocol = self.protocol_of(first).await?;
        }
        // Without data the header form does not matter.
        let protocol = self.protocol.unwrap_or(Protocol::Can11At500);
        let mut answer = interpret(&reply, request, protocol);
        if let Some(unit) = UnitAddress::of(protocol, request.target()) {
            // Adapters without a filter print what others say meanwhile.
            let asked = unit.answers_as();
            answer.messages.retain(|message| message.sender == asked);
            answer.refusals.retain(|(sender, _)| *sender == asked);
        }
        if answer.restarted {
            // A second banner, or the reply to a command it forgot, may still be on its way.
            self.resync().await?;
        }
        Ok(answer)
    }

    async fn protocol_of(&mut self, data_line: &str) -> Result<Option<Protocol>, AdapterError> {
        let reply = self.at(AtCommand::ProtocolNumber).await?;
        let told = reply.lines.iter().find_map(|line| Protocol::from_number(line));
        // Some clones always tell the same number: the line's form decides whether it can be.
        let possible = told.filter(|protocol| frame::parse(data_line, *protocol).is_ok());
        Ok(possible.or_else(|| Protocol::guess(data_line)).or(told))
    }
}

/// The adapter, not the car, does not understand the request.
fn is_unknown(answer: &Answer) -> bool {
    answer.messages.is_empty()
        && answer.refusals.is_empty()
        && answer.complaints.contains(&Complaint::Unknown)
}

/// A clone that says so needs another try, on a bus it never was on too.
fn is_stubborn(answer: &Answer) -> bool {
    answer.messages.is_empty() && answer.complaints.contains(&Complaint::NotConnected)
}

/// The adapter found nobody on a bus that it knew.
fn lost_bus(answer: &Answer) -> bool {
    let is_lost = |complaint: &Complaint| {
        matches!(
            complaint,
            Complaint::CanError | Complaint::BusError | Complaint::BusInit | Complaint::UnableToConnect
        )
    };
    answer.is_silence() && answer.complaints.iter().any(is_lost)
}
