//! An adapter as a thing that can be asked. What lives here: opening, set-up,
//! identity, and asking with the repetitions that adapters and cars make
//! necessary. What it can do is tried in `probe`, whom it addresses stands in
//! `address`. Which questions are asked, and when, is decided above.

use std::time::Duration;

use super::answer::{data_lines, interpret};
use super::baud::{ProbeError, open_probing};
use super::frame;
use super::port::{Port, PortError, Reply};
use super::reply::{Line, classify, parse_voltage};
use super::trace::Trace;
use crate::config::values::Transport;
use crate::link;
use crate::protocols::{AdapterProfile, Bundle, LongAnswers};
use crate::vehicle::adapter::{Capabilities, Identity, Waits};
use crate::vehicle::answer::{Answer, Complaint};
use crate::vehicle::batch::MOST_PIDS;
use crate::vehicle::error::AdapterError;
use crate::vehicle::gate::{AtCommand, Outgoing, Request, Target, UnitAddress};
use crate::vehicle::protocol::Protocol;

/// Local commands answer within a few milliseconds; Bluetooth adds some hundred.
const AT_LIMIT: Duration = Duration::from_secs(2);
/// `AT Z` blinks all lamps first.
const RESET_LIMIT: Duration = Duration::from_secs(4);
/// A request on a connected bus: P2* is 5 s after each "wait".
const ASK_LIMIT: Duration = Duration::from_secs(7);
/// A search tries all protocols, the 5-baud starts among them.
const SEARCH_LIMIT: Duration = Duration::from_secs(25);
/// How often a car may say "wait" before it counts as not answering.
const PENDING_ROUNDS: u32 = 5;
/// Attempts at the first prompt while a Bluetooth serial port connects.
const BLUETOOTH_ATTEMPTS: u32 = 4;
/// Pause before asking again a car that said "wait".
const PENDING_PAUSE: Duration = Duration::from_millis(250);
/// Lines of an answer beyond those of a VIN: long.
const LONG_LINES: usize = 4;
/// Bytes of two printed CAN frames: an adapter that died behind them died of a long answer.
const LONG_BYTES: usize = 40;
/// PIDs in a request when the adapter dies of long answers: service, and two with two bytes, in one frame.
const PIDS_IN_A_FRAME: usize = 2;
/// Silences that an immediate repetition disproved; after so many it no longer gives up early.
const TOO_HASTY: u32 = 2;

/// An open, set-up adapter.
pub struct Adapter {
    port: Port,
    identity: Identity,
    profile: Option<AdapterProfile>,
    pub(super) protocol: Option<Protocol>,
    pub(super) capabilities: Capabilities,
    baud: Option<u32>,
    restarts: u32,
    /// It restarted outside a question to the car.
    needs_set_up: bool,
    /// How it is told to wait now; `None`: not told since it was set up.
    pub(super) waits: Option<Waits>,
    /// Whom its header addresses now.
    pub(super) addressed: Target,
    /// The header was changed since the protocol was chosen.
    pub(super) header_changed: bool,
    /// The protocol was assumed, nobody answered on it yet.
    pub(super) assumed: bool,
    /// How many PIDs in a request the car at hand takes.
    car_takes: usize,
    /// The last request, when the car kept silent on it.
    silent_on: Option<Request>,
    too_hasty: u32,
    /// Data lines of the last reply.
    lines_told: usize,
}

/// How often a request may yet be repeated, for each reason.
struct Repeats {
    waits: u32,
    spoilt: u32,
    restarts: u32,
    reconnects: u32,
}

impl Adapter {
    /// Opens the link and sets the adapter up. `remembered_baud` is tried first when the rate is to be found.
    ///
    /// # Errors
    /// [`AdapterError`] saying what to do.
    pub async fn open(
        transport: &Transport,
        bundle: &Bundle,
        remembered_baud: Option<u32>,
        trace: Option<Trace>,
    ) -> Result<Self, AdapterError> {
        let (port, baud) = match transport {
            // A Bluetooth serial port has no rate, and each opening dials the adapter anew.
            Transport::Serial { baud: None, .. } if !is_bluetooth(transport) => {
                let (port, rate) = open_probing(transport, remembered_baud, trace).await.map_err(unprobed)?;
                (port, Some(rate))
            }
            _ => {
                let mut port = Port::new(link::open(transport, None).await?, trace);
                first_contact(&mut port, is_bluetooth(transport)).await?;
                (port, None)
            }
        };
        let mut adapter = Self {
            port,
            identity: Identity::default(),
            profile: None,
            protocol: None,
            capabilities: Capabilities::default(),
            baud,
            restarts: 0,
            needs_set_up: false,
            waits: None,
            addressed: Target::Functional,
            header_changed: false,
            assumed: false,
            car_takes: MOST_PIDS,
            silent_on: None,
            too_hasty: 0,
            lines_told: 0,
        };
        let reset = match adapter.exchange(Outgoing::At(AtCommand::Reset), RESET_LIMIT).await {
            // Some clones forget the prompt after a reset; the resync behind it brought one.
            Err(AdapterError::HalfReply(_) | AdapterError::Restarting) => Reply::default(),
            other => other?,
        };
        adapter.needs_set_up = false;
        adapter.identify(bundle, &reset).await?;
        adapter.set_up().await?;
        Ok(adapter)
    }

    /// Who it says it is.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The bus's protocol, once it answered.
    #[must_use]
    pub fn protocol(&self) -> Option<Protocol> {
        self.protocol
    }

    /// The rate that was found, to be tried first next time.
    #[must_use]
    pub fn found_baud(&self) -> Option<u32> {
        self.baud
    }

    /// How often it restarted by itself: afterwards the car may be another one.
    #[must_use]
    pub fn restarts(&self) -> u32 {
        self.restarts
    }

    /// What it proved to be able to do.
    #[must_use]
    pub fn capabilities(&self) -> Capabilities {
        self.capabilities
    }

    /// What is remembered of it.
    pub fn remember(&mut self, capabilities: Capabilities) {
        self.capabilities = capabilities;
    }

    /// What is known of its kind.
    pub(super) fn profile(&self) -> Option<&AdapterProfile> {
        self.profile.as_ref()
    }

    /// How many PIDs one request may hold, with this adapter and this car.
    #[must_use]
    pub fn most_pids(&self) -> usize {
        // SAE J1979: several PIDs in one request on CAN only.
        let works =
            self.capabilities.multi_pid == Some(true) && self.protocol.is_some_and(Protocol::is_can);
        let most = if self.capabilities.long_answers == Some(false) { PIDS_IN_A_FRAME } else { MOST_PIDS };
        if works { self.car_takes.min(most) } else { 1 }
    }

    /// The car at hand takes only so many PIDs in one request.
    pub fn limit_pids(&mut self, most: usize) {
        self.car_takes = most.clamp(1, self.car_takes);
    }

    /// Voltage at the socket, in volts. `None`: the adapter cannot tell.
    ///
    /// # Errors
    /// [`AdapterError`].
    pub async fn voltage(&mut self) -> Result<Option<f64>, AdapterError> {
        let reply = self.at(AtCommand::Voltage).await?;
        Ok(reply.lines.iter().find_map(|line| parse_voltage(line)))
    }

    /// After the bus fell silent: closes the protocol, so that the next request searches anew.
    ///
    /// # Errors
    /// [`AdapterError`].
    pub async fn close_protocol(&mut self) -> Result<(), AdapterError> {
        self.address_all().await?;
        self.forget_car();
        self.at(AtCommand::ProtocolClose).await?;
        if std::mem::take(&mut self.header_changed) {
            // A header that was set outlives the protocol; choosing one anew sets it back.
            self.at(AtCommand::ProtocolAuto).await?;
        }
        Ok(())
    }

    /// The next car may speak another protocol and take more PIDs at once.
    fn forget_car(&mut self) {
        self.protocol = None;
        self.assumed = false;
        self.car_takes = MOST_PIDS;
        self.silent_on = None;
    }

    /// Asks the car. Silence and refusals are answers; errors are the adapter's.
    /// `lines`: how many lines the answer has, when that is certain.
    ///
    /// # Errors
    /// [`AdapterError`]. After [`AdapterError::HalfReply`] the adapter can be asked on.
    pub async fn ask(&mut self, request: Request, lines: Option<u8>) -> Result<Answer, AdapterError> {
        if let Some(complaint) = self.beyond_its_power(request) {
            return Ok(Answer { complaints: vec![complaint], ..Answer::default() });
        }
        let answer = self.ask_until_answered(request, lines).await;
        match &answer {
            Ok(answer) => self.notice_haste(request, answer),
            // It died of several PIDs: a verdict too.
            Err(AdapterError::Hung(_)) if request.service() == 0x01 && request.parameters().len() > 1 => {
                self.capabilities.multi_pid = Some(false);
            }
            Err(_) => {}
        }
        answer
    }

    async fn ask_until_answered(
        &mut self,
        request: Request,
        lines: Option<u8>,
    ) -> Result<Answer, AdapterError> {
        let counted = lines.filter(|_| self.capabilities.response_count == Some(true));
        let command = counted.map_or(Outgoing::Obd(request), |n| Outgoing::ObdCounted(request, n));
        let mut left = Repeats { waits: PENDING_ROUNDS, spoilt: 1, restarts: 1, reconnects: 1 };
        loop {
            if let Some(complaint) = self.address(request.target()).await? {
                return Ok(Answer { complaints: vec![complaint], ..Answer::default() });
            }
            let connected = self.protocol.is_some();
            let answer = self.ask_once(command, request).await?;
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
            } else if answer.is_spoilt() && left.spoilt > 0 {
                left.spoilt -= 1;
            } else if !answer.pending.is_empty() && left.waits > 0 {
                left.waits -= 1;
                tokio::time::sleep(PENDING_PAUSE).await;
            } else {
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

    /// Whether a long answer that came well proves anything: of some kinds the next one may not.
    fn may_grow(&self) -> bool {
        self.profile.as_ref().is_none_or(|profile| profile.long_answers == LongAnswers::Fine)
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

    pub(super) async fn ask_once(
        &mut self,
        command: Outgoing,
        request: Request,
    ) -> Result<Answer, AdapterError> {
        self.lines_told = 0;
        if !self.needs_set_up {
            self.wait_as_learned().await?;
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
        if let Target::Unit(address) = request.target()
            && let Some(unit) = UnitAddress::on(protocol, address)
        {
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

    async fn identify(&mut self, bundle: &Bundle, reset: &Reply) -> Result<(), AdapterError> {
        let banner = reset.lines.iter().find_map(|line| match classify(line) {
            Line::Banner(_) => Some(line.clone()),
            _ => None,
        });
        self.at(AtCommand::EchoOff).await?;
        let told = text_line(&self.at(AtCommand::Identity).await?);
        self.identity.name = told.or(banner).unwrap_or_else(|| "unknown".into());
        self.profile = bundle.adapter(&self.identity.name).cloned();
        self.identity.firmware = text_line(&self.at(AtCommand::StnIdentity).await?);
        // STN chips call themselves ELM327 too: what they say of themselves as STN counts more.
        if let Some(known) = self.identity.firmware.as_deref().and_then(|firmware| bundle.adapter(firmware)) {
            self.profile = Some(known.clone());
        }
        self.identity.description = text_line(&self.at(AtCommand::Description).await?);
        Ok(())
    }

    async fn set_up(&mut self) -> Result<(), AdapterError> {
        for command in [AtCommand::EchoOff, AtCommand::LinefeedsOff, AtCommand::SpacesOff] {
            self.at(command).await?;
        }
        let headers = self.at(AtCommand::HeadersOn).await?;
        // Without headers nothing can be attributed to an ECU.
        if !headers.lines.iter().any(|line| classify(line) == Line::Ok) {
            let said = headers.lines.first().map_or("nothing", String::as_str);
            return Err(AdapterError::NotElm(format!("it answered {said:?} to ATH1")));
        }
        if self.header_changed {
            self.at(AtCommand::ReceiveUsual).await?;
        }
        (self.waits, self.addressed, self.header_changed) = (None, Target::Functional, false);
        self.forget_car();
        self.at(AtCommand::ProtocolAuto).await?;
        Ok(())
    }

    /// After a restart that nobody asked for.
    async fn set_up_again(&mut self, search_blocked: bool) -> Result<(), AdapterError> {
        self.restarts += 1;
        self.needs_set_up = false;
        metrics::counter!("baygate_vehicle_adapter_restarts_total").increment(1);
        if search_blocked {
            self.at(AtCommand::ForgetEvents).await?;
        }
        self.set_up().await
    }

    /// One local command; what the adapter's profile says to skip is answered with nothing.
    pub(super) async fn at(&mut self, command: AtCommand) -> Result<Reply, AdapterError> {
        if self.profile.as_ref().is_some_and(|profile| profile.skips(&command.text())) {
            return Ok(Reply::default());
        }
        // A banner lay before the command: local commands work nevertheless, set-up follows from `ask`.
        match self.exchange(Outgoing::At(command), AT_LIMIT).await {
            Err(AdapterError::Restarting) => {
                self.needs_set_up = true;
                self.exchange(Outgoing::At(command), AT_LIMIT).await
            }
            other => other,
        }
    }

    async fn exchange(&mut self, command: Outgoing, limit: Duration) -> Result<Reply, AdapterError> {
        let (error, bytes) = match self.port.exchange(command, limit).await {
            Ok(reply) if lost_settings(command, &reply) => {
                self.needs_set_up = true;
                self.resync().await?;
                return Ok(reply);
            }
            Ok(reply) => return Ok(reply),
            Err(PortError::Gone(error)) => return Err(AdapterError::Gone(error.to_string())),
            Err(PortError::Restarted) => return Err(AdapterError::Restarting),
            Err(error @ PortError::NoPrompt { bytes, .. }) => (error, bytes),
            Err(error @ PortError::Flood) => (error, 0),
        };
        let what = command.text();
        tracing::debug!(command = what, %error, "exchange failed");
        match self.port.resync().await {
            Ok(()) => Err(AdapterError::HalfReply(what)),
            Err(PortError::Gone(error)) => Err(AdapterError::Gone(error.to_string())),
            Err(PortError::Flood) => Err(AdapterError::Garbled(error.to_string())),
            Err(_) => {
                if command.request().is_some() && bytes >= LONG_BYTES {
                    self.capabilities.long_answers = Some(false);
                }
                Err(AdapterError::Hung(what))
            }
        }
    }

    /// Waits until it is idle, whatever it was about to say.
    async fn resync(&mut self) -> Result<(), AdapterError> {
        match self.port.resync().await {
            Ok(()) | Err(PortError::Restarted) => {
                // Said twice, it is set up again once.
                self.port.forget_restart();
                Ok(())
            }
            Err(PortError::Gone(error)) => Err(AdapterError::Gone(error.to_string())),
            Err(error @ PortError::Flood) => Err(AdapterError::Garbled(error.to_string())),
            Err(error @ PortError::NoPrompt { .. }) => Err(AdapterError::Hung(error.to_string())),
        }
    }
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

/// The first line of free text; `?` and `OK` are none.
fn text_line(reply: &Reply) -> Option<String> {
    reply.lines.iter().find_map(|line| match classify(line) {
        Line::Text(_) | Line::Banner(_) => Some(line.clone()),
        _ => None,
    })
}

/// Whether a reply shows that the adapter restarted, where it was not told to.
fn lost_settings(command: Outgoing, reply: &Reply) -> bool {
    let Outgoing::At(command) = command else { return false };
    let may_say_its_name = matches!(
        command,
        AtCommand::Reset | AtCommand::Identity | AtCommand::StnIdentity | AtCommand::Description
    );
    !may_say_its_name
        && reply.lines.iter().any(|line| matches!(classify(line), Line::Banner(_) | Line::SettingsLost))
}

fn unprobed(error: ProbeError) -> AdapterError {
    match error {
        ProbeError::Link(link) => AdapterError::Link(link),
        ProbeError::NoRate { bytes_seen: 0 } => AdapterError::Silent,
        ProbeError::NoRate { bytes_seen } => {
            AdapterError::Garbled(format!("{bytes_seen} byte(s) at six rates, none with a prompt"))
        }
    }
}

/// `/dev/rfcomm*` (BlueZ): opens at once and connects within some seconds.
fn is_bluetooth(transport: &Transport) -> bool {
    let Transport::Serial { path, .. } = transport else { return false };
    path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("rfcomm"))
}

/// Waits for the first prompt. Each attempt takes about two seconds.
async fn first_contact(port: &mut Port, dials_first: bool) -> Result<(), AdapterError> {
    let attempts = if dials_first { BLUETOOTH_ATTEMPTS } else { 1 };
    for _ in 1..attempts {
        match port.resync().await {
            Ok(()) => return Ok(()),
            Err(PortError::NoPrompt { bytes: 0, .. }) => {}
            Err(error) => return Err(no_first_contact(&error)),
        }
    }
    port.resync().await.map_err(|error| no_first_contact(&error))
}

fn no_first_contact(error: &PortError) -> AdapterError {
    match error {
        PortError::Gone(error) => AdapterError::Gone(error.to_string()),
        PortError::NoPrompt { bytes: 0, .. } => AdapterError::Silent,
        PortError::NoPrompt { .. } | PortError::Flood | PortError::Restarted => {
            AdapterError::Garbled(error.to_string())
        }
    }
}
