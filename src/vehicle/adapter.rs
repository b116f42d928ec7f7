//! An adapter of any kind as a thing that can be asked. What lives here: the one
//! face that scans, visits and the command line see, and which driver stands
//! behind it. What does not: bytes (the drivers), and what to ask (above).

use super::answer::Answer;
use super::can::Node;
use super::elm327::{self, Trace};
use super::error::AdapterError;
use super::gate::Request;
use super::protocol::Protocol;
use crate::config::values::VehicleLink;
use crate::protocols::Bundle;

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
    /// Under which what was learned of the adapter is remembered.
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

/// What an adapter proved to be able to do; tried once, remembered by [`Identity::key`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct Capabilities {
    /// Understands the digit that ends the wait early.
    pub response_count: Option<bool>,
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
        trace: Option<Trace>,
    ) -> Result<Self, AdapterError> {
        match link {
            VehicleLink::Elm327(transport) => {
                let adapter = elm327::Adapter::open(transport, bundle, remembered_baud, trace).await?;
                Ok(Self::Elm327(Box::new(adapter)))
            }
            VehicleLink::Can { .. } | VehicleLink::Slcan { .. } => {
                if trace.is_some() {
                    tracing::error!(
                        "no trace is written: only ELM327 links have one; record a bus with candump -l"
                    );
                }
                Ok(Self::Can(Box::new(Node::open(link).await?)))
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
            // Nothing to be found out: the count of answers is ours to keep.
            Self::Can(_) => Capabilities { response_count: Some(true) },
        }
    }

    /// What is remembered of it.
    pub fn remember(&mut self, capabilities: Capabilities) {
        match self {
            Self::Elm327(adapter) => adapter.remember(capabilities),
            Self::Can(_) => {}
        }
    }

    /// Whether what is known of its kind allows the response-count digit at all.
    #[must_use]
    pub fn may_try_response_count(&self) -> bool {
        match self {
            Self::Elm327(adapter) => adapter.may_try_response_count(),
            Self::Can(_) => true,
        }
    }

    /// Remembers whether the response-count digit works.
    pub fn set_response_count(&mut self, works: bool) {
        match self {
            Self::Elm327(adapter) => adapter.set_response_count(works),
            Self::Can(_) => {}
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

    /// The bus began to talk after silence, since the last call: a sign of a car that costs it nothing.
    pub fn stirred(&mut self) -> bool {
        match self {
            Self::Elm327(_) => false,
            Self::Can(node) => node.stirred(),
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

    /// After the bus fell silent: closes the protocol, so that the next request searches anew.
    ///
    /// # Errors
    /// [`AdapterError`].
    pub async fn close_protocol(&mut self) -> Result<(), AdapterError> {
        match self {
            Self::Elm327(adapter) => adapter.close_protocol().await,
            Self::Can(node) => {
                node.forget();
                Ok(())
            }
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
