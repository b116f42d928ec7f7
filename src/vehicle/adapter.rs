//! An adapter of any kind as a thing that can be asked. What lives here: the one
//! face that scans, visits and the command line see, and which driver stands
//! behind it. What does not: bytes (the drivers), and what to ask (above).

mod trace;

use super::answer::Answer;
use super::can::{Groups, Node, Witness};
use super::clear::ClearAnswer;
use super::elm327;
use super::error::AdapterError;
use super::gate::Request;
use super::gate::clear::ClearRequest;
use super::gate::group::GroupRequest;
use super::j1939;
use super::obd::VinReading;
use super::polling::Traffic;
use super::protocol::Protocol;
use crate::config::values::VehicleLink;
use crate::protocols::{Bundle, PidTable};
pub use trace::SessionTrace;

/// Who the adapter says it is. Not to be believed for what it can do.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Identity {
    /// `AT I`, or the reset banner.
    pub name: String,
    /// `STDI`, on STN-class chips.
    pub firmware: Option<String>,
    /// `AT @1`.
    pub description: Option<String>,
}

impl Identity {
    /// All of it in one line.
    #[must_use]
    pub fn key(&self) -> String {
        [Some(&self.name), self.firmware.as_ref(), self.description.as_ref()]
            .into_iter()
            .flatten()
            .map(String::as_str)
            .collect::<Vec<_>>()
            .join(" | ")
    }
}

/// What an adapter proved to be able to do; tried once, remembered by [`Adapter::remembered_as`].
/// `None`: not tried yet, or what came proved nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct Capabilities {
    /// Understands the digit that ends the wait early.
    pub response_count: Option<bool>,
    /// Sends several PIDs of one request on, and their answer back.
    pub multi_pid: Option<bool>,
    /// Survives several identifiers in one request of service 22.
    pub several_identifiers: Option<bool>,
    /// Reads more than two bytes of a request.
    pub long_requests: Option<bool>,
    /// Survives answers of more than three lines.
    pub long_answers: Option<bool>,
    /// How it is told to wait for answers.
    pub waits: Option<Waits>,
    /// Knows the commands of STN-class chips.
    pub stn: Option<bool>,
    /// Gives each character back as it was read, before the line is ended.
    pub echo: Option<bool>,
    /// Gives whole lines back once they are ended, whatever [`Self::echo`] says.
    pub line_echo: Option<bool>,
    /// In this boot of the box (`boot_id`) a clearing that nobody acknowledged stayed in the
    /// controller, and may still be sent.
    pub clearing_stays: Option<uuid::Uuid>,
}

/// How an adapter waits for answers, from quick to slow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Waits {
    /// Adapts itself, and gives up early.
    Aggressive,
    /// Adapts itself.
    Adaptive,
    /// Does not adapt; told to wait 100 ms.
    Short,
    /// Does not adapt; waits 200 ms.
    Usual,
}

/// An open, set-up adapter.
pub enum Adapter {
    /// An ELM327, one of its clones, or an STN chip.
    Elm327(Box<elm327::Adapter>),
    /// No adapter in between, or one that passes frames on: SocketCAN, slcan.
    Can(Box<Node>),
}

impl Adapter {
    /// Opens the link and sets the adapter up. `remembered_baud` is tried first when the rate is to be found.
    ///
    /// # Errors
    /// [`AdapterError`] saying what to do.
    pub async fn open(
        link: &VehicleLink,
        bundle: &Bundle,
        remembered_baud: Option<u32>,
        trace: Option<SessionTrace>,
    ) -> Result<Self, AdapterError> {
        let (bytes, frames) = match trace {
            Some(SessionTrace::Bytes(trace)) => (Some(trace), None),
            Some(SessionTrace::Frames(trace)) => (None, Some(trace)),
            None => (None, None),
        };
        match link {
            VehicleLink::Elm327(transport) => {
                let adapter = elm327::Adapter::open(transport, bundle, remembered_baud, bytes).await?;
                Ok(Self::Elm327(Box::new(adapter)))
            }
            VehicleLink::Can { .. } | VehicleLink::Slcan { .. } => {
                Ok(Self::Can(Box::new(Node::open(link, frames).await?)))
            }
        }
    }

    /// Who it says it is.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        match self {
            Self::Elm327(adapter) => adapter.identity(),
            Self::Can(node) => node.identity(),
        }
    }

    /// Under which what was learned of it on this link is remembered. Many clones have one name and
    /// differ in what they can do, so of a dongle the link counts, too.
    #[must_use]
    pub fn remembered_as(&self, link: &VehicleLink) -> String {
        let key = self.identity().key();
        match self {
            Self::Elm327(_) => format!("{key} @ {link}"),
            Self::Can(_) => key,
        }
    }

    /// The bus's protocol, once it answered.
    #[must_use]
    pub fn protocol(&self) -> Option<Protocol> {
        match self {
            Self::Elm327(adapter) => adapter.protocol(),
            Self::Can(node) => node.protocol(),
        }
    }

    /// The rate that was found, to be tried first next time.
    #[must_use]
    pub fn found_baud(&self) -> Option<u32> {
        match self {
            Self::Elm327(adapter) => adapter.found_baud(),
            Self::Can(_) => None,
        }
    }

    /// How often it restarted by itself: afterwards the car may be another one.
    #[must_use]
    pub fn restarts(&self) -> u32 {
        match self {
            Self::Elm327(adapter) => adapter.restarts(),
            Self::Can(_) => 0,
        }
    }

    /// What it proved to be able to do.
    #[must_use]
    pub fn capabilities(&self) -> Capabilities {
        match self {
            Self::Elm327(adapter) => adapter.capabilities(),
            // Nothing to be found out: a bus takes what the standard allows.
            Self::Can(node) => Capabilities {
                clearing_stays: node.clearing_stays(),
                response_count: Some(true),
                multi_pid: Some(true),
                long_requests: Some(true),
                long_answers: Some(true),
                ..Capabilities::default()
            },
        }
    }

    /// What it is able to do as it is to be remembered before a clearing is sent: one that this
    /// process does not see the end of may stay in the controller.
    #[must_use]
    pub fn capabilities_while_clearing(&self) -> Capabilities {
        let stays = match self {
            Self::Elm327(_) => None,
            Self::Can(node) => node.clearing_would_stay(),
        };
        let known = self.capabilities();
        Capabilities { clearing_stays: stays.or(known.clearing_stays), ..known }
    }

    /// What is remembered of it.
    pub fn remember(&mut self, capabilities: Capabilities) {
        match self {
            Self::Elm327(adapter) => adapter.remember(capabilities),
            Self::Can(node) => node.remember(capabilities.clearing_stays),
        }
    }

    /// Tries, each once, what is not known yet of the adapter. `first` is the answer to 0100.
    ///
    /// # Errors
    /// [`AdapterError`]: it died of a trial, which is remembered as a verdict.
    pub async fn learn(&mut self, first: &Answer, table: &PidTable) -> Result<(), AdapterError> {
        match self {
            Self::Elm327(adapter) => adapter.learn(first, table).await,
            // Nothing to be tried: a bus takes what the standard allows.
            Self::Can(_) => Ok(()),
        }
    }

    /// The same of what makes it wait less. `first` is the answer of one unit to `request`, a line.
    ///
    /// # Errors
    /// As [`Adapter::learn`].
    pub async fn learn_timing(&mut self, request: Request, first: &Answer) -> Result<(), AdapterError> {
        match self {
            Self::Elm327(adapter) => adapter.learn_timing(request, first).await,
            Self::Can(_) => Ok(()),
        }
    }

    /// The link ends with this error; what it proves of the adapter is kept.
    pub fn ended_by(&mut self, error: &AdapterError) {
        if let Self::Can(node) = self {
            node.ended_by(error);
        }
    }

    /// How many PIDs one request may hold, with this adapter and this car.
    #[must_use]
    pub fn most_pids(&self) -> usize {
        match self {
            Self::Elm327(adapter) => adapter.most_pids(),
            Self::Can(node) => node.most_pids(),
        }
    }

    /// Whether several identifiers in one request may be tried.
    #[must_use]
    pub fn may_ask_together(&self) -> bool {
        match self {
            Self::Elm327(adapter) => adapter.may_ask_together(),
            Self::Can(_) => true,
        }
    }

    /// The car at hand takes only so many PIDs in one request.
    pub fn limit_pids(&mut self, most: usize) {
        match self {
            Self::Elm327(adapter) => adapter.limit_pids(most),
            Self::Can(node) => node.limit_pids(most),
        }
    }

    /// What limits it though it works, as code and words for `device.state`.
    #[must_use]
    pub fn limitation(&self) -> Option<(&'static str, String)> {
        match self {
            Self::Elm327(_) => None,
            Self::Can(node) => node.limitation(),
        }
    }

    /// Shows every frame of a bus from now on to `witness`; a dongle has none to show.
    pub fn set_witness(&mut self, witness: Witness) {
        if let Self::Can(node) = self {
            node.set_witness(witness);
        }
    }

    /// Hears what comes while nothing is asked, where it would else be lost. Never ends but by
    /// an error. Safe to cancel.
    pub async fn idle(&mut self) -> AdapterError {
        match self {
            Self::Elm327(_) => std::future::pending().await,
            Self::Can(node) => node.idle().await,
        }
    }

    /// The bus began to talk after silence, since the last call: a sign of a car that costs it nothing.
    pub fn stirred(&mut self) -> bool {
        match self {
            Self::Elm327(_) => false,
            Self::Can(node) => node.stirred(),
        }
    }

    /// What is heard on the bus without asking, as of the last look.
    #[must_use]
    pub fn traffic(&self) -> Traffic {
        match self {
            Self::Elm327(_) => Traffic::Unheard,
            Self::Can(node) => node.traffic(),
        }
    }

    /// Whether the bus speaks J1939: the address of a unit that broadcasts. Sends nothing; to be
    /// asked when nobody answers OBD. Dongles are not listened with.
    ///
    /// # Errors
    /// [`AdapterError`].
    pub async fn hears_j1939(&mut self) -> Result<Option<u8>, AdapterError> {
        match self {
            Self::Elm327(_) => Ok(None),
            Self::Can(node) => node.hears_j1939().await,
        }
    }

    /// The car may be another one than before: to be called before a scan. A bus that was found to
    /// speak J1939 is asked OBD again.
    pub fn doubt(&mut self) {
        if let Self::Can(node) = self {
            node.doubt();
        }
    }

    /// Whether silence may only mean that the car is of another kind than the one before. A dongle
    /// finds that out by itself.
    #[must_use]
    pub fn may_know_another_car(&self) -> bool {
        matches!(self, Self::Can(_)) && self.protocol().is_some()
    }

    /// Only listens until the next question, where the bus would else hear of it. Dongles send
    /// nothing but questions.
    ///
    /// # Errors
    /// [`AdapterError`].
    pub async fn rest(&mut self) -> Result<(), AdapterError> {
        match self {
            Self::Elm327(_) => Ok(()),
            Self::Can(node) => node.rest().await,
        }
    }

    /// The number of the vehicle on a J1939 bus.
    ///
    /// # Errors
    /// [`AdapterError`].
    pub async fn vin_by_j1939(&mut self) -> Result<VinReading, AdapterError> {
        match self {
            Self::Elm327(_) => Ok(VinReading::Missing),
            Self::Can(node) => node.vin_by_j1939().await,
        }
    }

    /// All that the units of a J1939 bus tell, and what of it is missing.
    ///
    /// # Errors
    /// [`AdapterError`].
    pub async fn read_j1939(&mut self) -> Result<Groups, AdapterError> {
        match self {
            Self::Elm327(_) => Ok(Groups {
                told: j1939::Told::default(),
                unsent: GroupRequest::ALL.to_vec(),
                broken: Vec::new(),
            }),
            Self::Can(node) => node.read_j1939().await,
        }
    }

    /// Voltage at the socket, in volts. `None`: the adapter cannot tell.
    ///
    /// # Errors
    /// [`AdapterError`].
    pub async fn voltage(&mut self) -> Result<Option<f64>, AdapterError> {
        match self {
            Self::Elm327(adapter) => adapter.voltage().await,
            // No bus carries it; but what happened on this one since is looked at.
            Self::Can(node) => node.check().await.map(|()| None),
        }
    }

    /// After the bus fell silent: closes the protocol, so that the next request searches anew, and
    /// only listens until then.
    ///
    /// # Errors
    /// [`AdapterError`].
    pub async fn close_protocol(&mut self) -> Result<(), AdapterError> {
        match self {
            Self::Elm327(adapter) => adapter.close_protocol().await,
            Self::Can(node) => {
                node.forget();
                node.rest().await
            }
        }
    }

    /// Clears codes, once: whatever comes back, nothing is sent again.
    ///
    /// # Errors
    /// [`AdapterError`]; whether the car cleared is then not known.
    pub async fn clear(&mut self, request: ClearRequest) -> Result<ClearAnswer, AdapterError> {
        match self {
            Self::Elm327(adapter) => adapter.clear(request).await,
            Self::Can(node) => node.clear(request).await,
        }
    }

    /// Asks the car. Silence and refusals are answers; errors are the adapter's.
    /// `lines`: how many lines the answer has, when that is certain.
    ///
    /// # Errors
    /// [`AdapterError`]. After [`AdapterError::HalfReply`] the adapter can be asked on.
    pub async fn ask(&mut self, request: Request, lines: Option<u8>) -> Result<Answer, AdapterError> {
        match self {
            Self::Elm327(adapter) => adapter.ask(request, lines).await,
            Self::Can(node) => node.ask(request, lines).await,
        }
    }
}
