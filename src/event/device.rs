//! Class `device`: states of readers, printers and vehicle links, and print jobs.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Class, EventData};
use crate::ident::{CardNo, DeviceId};

/// Where a supervised device stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum DeviceStatus {
    /// Not plugged in or not reachable; retried.
    Absent,
    /// Being set up.
    Starting,
    /// Working.
    Ready,
    /// Working with a limitation (see `reason`).
    Degraded,
    /// Not usable until something changes (see `reason`).
    Failed,
}

/// The kinds of device, which are also the first part of the subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum DeviceKind {
    /// Card reader.
    Reader,
    /// Card printer.
    Printer,
    /// Vehicle link.
    Link,
}

impl DeviceKind {
    /// The word in subjects.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Reader => "reader",
            Self::Printer => "printer",
            Self::Link => "link",
        }
    }

    /// The event subject of the device with that id, e.g. `reader/counter-1`.
    #[must_use]
    pub fn subject(self, id: &DeviceId) -> String {
        format!("{}/{id}", self.as_str())
    }
}

/// `device.state`: a device changed its state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DeviceState {
    /// The new state.
    pub state: DeviceStatus,
    /// Stable code, e.g. `port-missing`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// For people: what is wrong and what to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}
impl EventData for DeviceState {
    const TYPE: &'static str = "device.state";
    const CLASS: Class = Class::Device;
}

/// Where a print job stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum PrintState {
    /// Accepted and durable.
    Queued,
    /// The printer waits for the card to be inserted.
    WaitingCard,
    /// Bytes are going out or the card is moving.
    Printing,
    /// The face is on the card.
    Done,
    /// Given up (see `error`); a reprint is a new job.
    Failed,
    /// Taken back before it began.
    Cancelled,
}

impl PrintState {
    /// The name in events and over HTTP.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::WaitingCard => "waiting-card",
            Self::Printing => "printing",
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// Whether nothing more will happen to the job.
    #[must_use]
    pub fn is_final(self) -> bool {
        matches!(self, Self::Done | Self::Failed | Self::Cancelled)
    }
}

/// `printer.job`: a print job changed its state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PrinterJob {
    /// The job.
    pub job: Uuid,
    /// The printer's configured id.
    pub printer: DeviceId,
    /// The card whose face it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub card_no: Option<CardNo>,
    /// The new state.
    pub state: PrintState,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Where the picture is, for printers that write files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<String>,
}
impl EventData for PrinterJob {
    const TYPE: &'static str = "printer.job";
    const CLASS: Class = Class::Device;
}
