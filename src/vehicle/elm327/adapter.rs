//! An adapter as a thing that can be asked. What lives here: opening, set-up,
//! identity, and asking with the repetitions that adapters and cars make
//! necessary. Which questions are asked, and when, is decided above.

mod clearing;

use std::time::Duration;

use super::answer::{data_lines, interpret};
use super::baud::{ProbeError, open_probing};
use super::port::{Port, PortError, Reply};
use super::reply::{Line, classify, parse_voltage};
use super::trace::Trace;
use crate::config::values::Transport;
use crate::link;
use crate::protocols::{AdapterProfile, Bundle, Use};
use crate::vehicle::adapter::{Capabilities, Identity};
use crate::vehicle::answer::Answer;
use crate::vehicle::error::AdapterError;
use crate::vehicle::gate::{AtCommand, Outgoing, Request};
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

/// An open, set-up adapter.
pub struct Adapter {
    port: Port,
    identity: Identity,
    profile: Option<AdapterProfile>,
    protocol: Option<Protocol>,
    capabilities: Capabilities,
    baud: Option<u32>,
    restarts: u32,
    /// It restarted outside a question to the car.
    needs_set_up: bool,
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

    /// Whether what is known of its kind allows the response-count digit at all.
    #[must_use]
    pub fn may_try_response_count(&self) -> bool {
        self.profile.as_ref().is_none_or(|profile| profile.response_count == Use::Probe)
    }

    /// Remembers whether the response-count digit works.
    pub fn set_response_count(&mut self, works: bool) {
        self.capabilities.response_count = Some(works);
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
        self.protocol = None;
        self.at(AtCommand::ProtocolClose).await.map(|_| ())
    }

    /// Asks the car. Silence and refusals are answers; errors are the adapter's.
    /// `lines`: how many lines the answer has, when that is certain.
    ///
    /// # Errors
    /// [`AdapterError`]. After [`AdapterError::HalfReply`] the adapter can be asked on.
    pub async fn ask(&mut self, request: Request, lines: Option<u8>) -> Result<Answer, AdapterError> {
        let counted = lines.filter(|_| self.capabilities.response_count == Some(true));
        let command = counted.map_or(Outgoing::Obd(request), |n| Outgoing::ObdCounted(request, n));
        let mut waits = 0;
        let mut spoilt = false;
        let mut restarted = false;
        loop {
            let answer = self.ask_once(command, request).await?;
            if answer.restarted || answer.settings_lost {
                if restarted {
                    return Err(AdapterError::Restarting);
                }
                restarted = true;
                self.set_up_again(answer.settings_lost).await?;
            } else if answer.is_spoilt() && !spoilt {
                spoilt = true;
            } else if !answer.pending.is_empty() && waits < PENDING_ROUNDS {
                waits += 1;
                tokio::time::sleep(PENDING_PAUSE).await;
            } else {
                return Ok(answer);
            }
        }
    }

    async fn ask_once(&mut self, command: Outgoing, request: Request) -> Result<Answer, AdapterError> {
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
        if self.protocol.is_none()
            && let Some(first) = data.first()
        {
            self.protocol = self.protocol_of(first).await?;
        }
        // Without data the header form does not matter.
        let protocol = self.protocol.unwrap_or(Protocol::Can11At500);
        Ok(interpret(&reply, request, protocol))
    }

    async fn protocol_of(&mut self, data_line: &str) -> Result<Option<Protocol>, AdapterError> {
        let reply = self.at(AtCommand::ProtocolNumber).await?;
        let told = reply.lines.iter().find_map(|line| Protocol::from_number(line));
        Ok(told.or_else(|| Protocol::guess(data_line)))
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
        self.at(AtCommand::AdaptiveTiming).await?;
        self.protocol = None;
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
    async fn at(&mut self, command: AtCommand) -> Result<Reply, AdapterError> {
        if self.profile.as_ref().is_some_and(|profile| profile.skips(command.text())) {
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
        match self.port.exchange(command, limit).await {
            Ok(reply) => {
                self.needs_set_up |= lost_settings(command, &reply);
                Ok(reply)
            }
            Err(PortError::Gone(error)) => Err(AdapterError::Gone(error.to_string())),
            Err(PortError::Restarted) => Err(AdapterError::Restarting),
            Err(error @ (PortError::NoPrompt { .. } | PortError::Flood)) => {
                let what = command.text();
                tracing::debug!(command = what, %error, "exchange failed");
                match self.port.resync().await {
                    Ok(()) => Err(AdapterError::HalfReply(what)),
                    Err(PortError::Gone(error)) => Err(AdapterError::Gone(error.to_string())),
                    Err(PortError::Flood) => Err(AdapterError::Garbled(error.to_string())),
                    Err(_) => Err(AdapterError::Hung(what)),
                }
            }
        }
    }
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
