//! An open adapter. What lives here: opening, identity, set-up and setting up again,
//! and one exchange with what finds back into step. How the car is asked stands in
//! `ask`, whom in `address`, what the adapter can do is tried in `probe`.

mod clearing;

use std::time::Duration;

use super::ask::Unknown;
use super::contact::contact;
use super::port::{Port, PortError, Reply};
use super::reply::{Line, classify, parse_voltage};
use super::trace::Trace;
use crate::config::values::Transport;
use crate::protocols::{AdapterProfile, Bundle};
use crate::vehicle::adapter::{Capabilities, Identity, Waits};
use crate::vehicle::batch::MOST_PIDS;
use crate::vehicle::error::AdapterError;
use crate::vehicle::gate::{AtCommand, Outgoing, Request, Target};
use crate::vehicle::protocol::Protocol;

/// Local commands answer within a few milliseconds; Bluetooth adds some hundred.
pub(super) const AT_LIMIT: Duration = Duration::from_secs(2);
/// `AT Z` blinks all lamps first.
const RESET_LIMIT: Duration = Duration::from_secs(4);
/// Bytes of two printed CAN frames: an adapter that died behind them died of a long answer.
const LONG_BYTES: usize = 40;
/// PIDs in a request when the adapter dies of long answers: service, and two with two bytes, in one frame.
const PIDS_IN_A_FRAME: usize = 2;

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
    pub(super) needs_set_up: bool,
    /// How it is told to wait now; `None`: not told since it was set up.
    pub(super) waits: Option<Waits>,
    /// Told to wait as long as it can, for a unit that asked for patience: whether it knows how.
    pub(super) waits_longest: Option<bool>,
    /// It waits as long as a maker's file says.
    pub(super) waits_told: bool,
    /// Whom its header addresses now.
    pub(super) addressed: Target,
    /// The header was changed since the protocol was chosen.
    pub(super) header_changed: bool,
    /// It was told to echo since it was set up.
    pub(super) echo_on: bool,
    /// How often the echo was tried since it was set up.
    pub(super) echo_tried: u32,
    /// It echoed a line while it was set up, before anybody asked whether it does.
    pub(super) echoed_unasked: bool,
    /// It echoed a line since it was opened.
    pub(super) echoes_lines: bool,
    /// The digit itself is on trial: it is sent whatever it costs.
    pub(super) tries_digit: bool,
    /// The protocol was assumed, nobody answered on it yet.
    pub(super) assumed: bool,
    /// How many PIDs in a request the car at hand takes.
    car_takes: usize,
    /// What was set for one unit beside header and filter, and is set back before another is asked.
    pub(super) to_take_back: Vec<AtCommand>,
    /// The last request, when the car kept silent on it.
    pub(super) silent_on: Option<Request>,
    pub(super) too_hasty: u32,
    /// What it was taken to understand and does not.
    pub(super) unknown: Unknown,
    /// Data lines of the last reply.
    pub(super) lines_told: usize,
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
        let (port, baud) = contact(transport, remembered_baud, trace).await?;
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
            waits_longest: None,
            waits_told: false,
            addressed: Target::Functional,
            header_changed: false,
            to_take_back: Vec::new(),
            echo_on: false,
            echo_tried: 0,
            echoed_unasked: false,
            echoes_lines: false,
            tries_digit: false,
            assumed: false,
            car_takes: MOST_PIDS,
            silent_on: None,
            too_hasty: 0,
            unknown: Unknown::default(),
            lines_told: 0,
        };
        let reset = match adapter.exchange(Outgoing::At(AtCommand::Reset), RESET_LIMIT).await {
            // Some clones forget the prompt after a reset; the resync behind it brought one.
            Err(AdapterError::HalfReply(_) | AdapterError::Restarting) => Reply::default(),
            other => other?,
        };
        adapter.needs_set_up = false;
        let is_quiet = adapter.identify(bundle, &reset).await?;
        adapter.set_up(is_quiet).await?;
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

    /// Whether the last reply began with the echo of its command.
    pub(super) fn port_echoed(&self) -> bool {
        self.port.echoed()
    }

    pub(super) fn port_mut(&mut self) -> &mut Port {
        &mut self.port
    }

    /// What is known of its kind.
    pub(super) fn profile(&self) -> Option<&AdapterProfile> {
        self.profile.as_ref()
    }

    /// How many PIDs one request may hold, with this adapter and this car.
    #[must_use]
    pub fn most_pids(&self) -> usize {
        // SAE J1979: several PIDs in one request on CAN only.
        let works = self.capabilities.multi_pid == Some(true) && self.protocol.is_some_and(Protocol::is_can)
            // Requests of several PIDs are fragile, most of them.
            && self.capabilities.echo != Some(false);
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

    /// Whether it took the end of its echo.
    async fn identify(&mut self, bundle: &Bundle, reset: &Reply) -> Result<bool, AdapterError> {
        let banner = reset.lines.iter().find_map(|line| match classify(line) {
            Line::Banner(_) => Some(line.clone()),
            _ => None,
        });
        let is_quiet = self.accepts(AtCommand::EchoOff).await?;
        self.notice_echo();
        // The banner is what it would say again.
        let told = match banner {
            Some(banner) => Some(banner),
            None => text_line(&self.at(AtCommand::Identity).await?),
        };
        self.identity.name = told.unwrap_or_else(|| "unknown".into());
        self.profile = bundle.adapter(&self.identity.name).cloned();
        self.identity.firmware = text_line(&self.at(AtCommand::StnIdentity).await?);
        // STN chips call themselves ELM327 too: what they say of themselves as STN counts more.
        if let Some(known) = self.identity.firmware.as_deref().and_then(|firmware| bundle.adapter(firmware)) {
            self.profile = Some(known.clone());
        }
        self.identity.description = text_line(&self.at(AtCommand::Description).await?);
        Ok(is_quiet)
    }

    fn notice_echo(&mut self) {
        self.echoed_unasked |= self.port_echoed();
        self.echoes_lines |= self.port_echoed();
    }

    /// After a reset. `is_quiet`: its echo was turned off since.
    async fn set_up(&mut self, is_quiet: bool) -> Result<(), AdapterError> {
        let linefeeds = self.port.linefeeds();
        let wanted = [
            (AtCommand::EchoOff, !is_quiet),
            // Off after a reset, but for those that were heard to send them.
            (AtCommand::LinefeedsOff, linefeeds),
            (AtCommand::SpacesOff, true),
        ];
        for (command, _) in wanted.into_iter().filter(|(_, wanted)| *wanted) {
            self.at(command).await?;
            self.notice_echo();
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
        self.take_back().await?;
        (self.waits, self.addressed, self.header_changed) = (None, Target::Functional, false);
        (self.waits_longest, self.waits_told) = (None, false);
        (self.echo_on, self.echo_tried) = (false, 0);
        self.forget_car();
        self.at(AtCommand::ProtocolAuto).await?;
        Ok(())
    }

    /// After a restart that nobody asked for.
    pub(super) async fn set_up_again(&mut self, search_blocked: bool) -> Result<(), AdapterError> {
        self.restarts += 1;
        self.needs_set_up = false;
        metrics::counter!("baygate_vehicle_adapter_restarts_total").increment(1);
        if search_blocked {
            self.at(AtCommand::ForgetEvents).await?;
        }
        self.set_up(false).await
    }

    /// One local command; what the adapter's profile says to skip is answered with nothing.
    pub(super) async fn at(&mut self, command: AtCommand) -> Result<Reply, AdapterError> {
        if self.profile.as_ref().is_some_and(|profile| profile.skips(&command.text())) {
            return Ok(Reply::default());
        }
        // An address whose last digits alone would be a request; what cannot be typed safely is not said.
        if Outgoing::At(command).is_fragile() && !Box::pin(self.echoes()).await? {
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

    pub(super) async fn exchange(
        &mut self,
        command: Outgoing,
        limit: Duration,
    ) -> Result<Reply, AdapterError> {
        let exchanged = if command.is_fragile() {
            self.port.exchange_typed(command, limit).await
        } else {
            self.port.exchange(command, limit).await
        };
        match exchanged {
            Ok(reply) if lost_settings(command, &reply) => {
                self.needs_set_up = true;
                self.resync().await?;
                Ok(reply)
            }
            Ok(reply) => Ok(reply),
            Err(error) => self.come_back(command, error).await,
        }
    }

    /// After an exchange that failed: finds back into step, and says what it was.
    pub(super) async fn come_back(
        &mut self,
        command: Outgoing,
        error: PortError,
    ) -> Result<Reply, AdapterError> {
        let bytes = match error {
            PortError::Gone(error) => return Err(AdapterError::Gone(error.to_string())),
            PortError::Restarted => return Err(AdapterError::Restarting),
            PortError::Misheard => {
                // Perhaps it forgot to echo; it is told so again.
                self.echo_on = false;
                return Err(AdapterError::Misheard(command.text()));
            }
            PortError::NoPrompt { bytes, .. } => bytes,
            PortError::Flood => 0,
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
    pub(super) async fn resync(&mut self) -> Result<(), AdapterError> {
        match self.port.resync().await {
            Ok(()) | Err(PortError::Restarted) => {
                // Said twice, it is set up again once.
                self.port.forget_restart();
                Ok(())
            }
            Err(PortError::Gone(error)) => Err(AdapterError::Gone(error.to_string())),
            Err(error @ (PortError::Flood | PortError::Misheard)) => {
                Err(AdapterError::Garbled(error.to_string()))
            }
            Err(error @ PortError::NoPrompt { .. }) => Err(AdapterError::Hung(error.to_string())),
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
