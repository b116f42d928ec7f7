//! Facts and their envelope. What lives here: the event classes, the typed
//! `data` of every event of the contract (one file a class), and the CloudEvents
//! envelope. What does not: when a fact is true (the domains) and how it is kept
//! (the store).

pub mod card;
pub mod device;
pub mod gateway;
pub mod ledger;
pub mod maintenance;
pub mod schema;
pub mod vehicle;

use std::borrow::Cow;
use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::clock::{self, TimeQuality, UtcMillis};
use crate::ident::{Epoch, GatewayId, Seq, StoreId};

/// The largest envelope, in bytes (contract §3: 64 KiB).
pub const MAX_EVENT_BYTES: usize = 64 * 1024;
/// The largest telemetry envelope, in bytes: on a line of 256 kbit/s it takes half a second, so
/// that a ledger event behind one that is under way arrives within a second (decision 001).
pub const MAX_TELEMETRY_BYTES: usize = 17 * 1024;
/// What an envelope usually needs beside `data` and `subject`, in bytes.
const ENVELOPE_BYTES: usize = 640;
/// What an envelope is. By it a receiver knows CloudEvents' structured mode
/// (CloudEvents MQTT binding 1.0.2 §3.2.1); MQTT 3.1.1 has no place for it.
pub const CONTENT_TYPE: &str = "application/cloudevents+json";

/// Event classes in the contract's order of priority: the uplink serves them
/// in this order, and each has its own gapless `classsequence`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Class {
    /// Money and card status. Never trimmed.
    Ledger,
    /// The gateway about itself.
    Gateway,
    /// Cards seen at readers.
    Card,
    /// Visits and reports.
    Vehicle,
    /// Warnings.
    Maintenance,
    /// Device states and print jobs.
    Device,
    /// Signal windows; the first to be trimmed.
    Telemetry,
}

impl Class {
    /// All classes, highest priority first.
    pub const ALL: [Self; 7] = [
        Self::Ledger,
        Self::Gateway,
        Self::Card,
        Self::Vehicle,
        Self::Maintenance,
        Self::Device,
        Self::Telemetry,
    ];

    /// The name in topics and envelopes.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ledger => "ledger",
            Self::Gateway => "gateway",
            Self::Card => "card",
            Self::Vehicle => "vehicle",
            Self::Maintenance => "maintenance",
            Self::Device => "device",
            Self::Telemetry => "telemetry",
        }
    }

    /// The largest envelope of the class, in bytes.
    #[must_use]
    pub fn max_event_bytes(self) -> usize {
        if self == Self::Telemetry { MAX_TELEMETRY_BYTES } else { MAX_EVENT_BYTES }
    }

    /// The class of that name.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|class| class.as_str() == text)
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The `data` of one event type. Implemented once for each type of contract §3.
pub trait EventData: Serialize + JsonSchema {
    /// The type without the `baygate.` in front, e.g. `card.tapped`.
    const TYPE: &'static str;
    /// The class it travels in.
    const CLASS: Class;
}

/// A text in both languages of the house.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Text {
    /// Chinese (zh-CN).
    pub zh: String,
    /// English.
    pub en: String,
}

impl Text {
    /// Both texts at once.
    pub fn new(zh: impl Into<String>, en: impl Into<String>) -> Self {
        Self { zh: zh.into(), en: en.into() }
    }
}

/// A fact on its way into the log. The store adds epoch, sequences and boot.
#[derive(Debug, Clone)]
pub struct NewEvent {
    /// UUIDv7, fixed before the commit so that a reply may name it.
    pub id: Uuid,
    /// Type without `baygate.`.
    pub kind: &'static str,
    /// The class it travels in.
    pub class: Class,
    /// Contract §3 `subject`, e.g. `card/04A1B2C3`.
    pub subject: String,
    /// When it happened, by the wall clock.
    pub time: UtcMillis,
    /// How far `time` can be trusted.
    pub time_quality: TimeQuality,
    /// The `data` member, already JSON.
    pub data: Box<RawValue>,
}

impl NewEvent {
    /// A fact that happened now.
    ///
    /// # Errors
    /// When the data cannot be written as JSON (a non-finite number, for example).
    pub fn now<D: EventData>(subject: impl Into<String>, data: &D) -> Result<Self, serde_json::Error> {
        let now = clock::read();
        Ok(Self {
            id: Uuid::now_v7(),
            kind: D::TYPE,
            class: D::CLASS,
            subject: subject.into(),
            time: now.wall,
            time_quality: now.quality,
            data: serde_json::value::to_raw_value(data)?,
        })
    }
}

/// Who speaks: the two names in every envelope's `source`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// The store.
    pub store: StoreId,
    /// The gateway in it.
    pub gateway: GatewayId,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "/stores/{}/gateways/{}", self.store, self.gateway)
    }
}

/// A committed fact, as every reader of the log sees it.
#[derive(Debug, Clone)]
pub struct Event {
    /// UUIDv7.
    pub id: Uuid,
    /// The life of the log in which it was committed.
    pub epoch: Epoch,
    /// Position in the log.
    pub sequence: Seq,
    /// Position in its class.
    pub class_sequence: Seq,
    /// Class.
    pub class: Class,
    /// Type without `baygate.`.
    pub kind: Cow<'static, str>,
    /// Contract §3 `subject`.
    pub subject: String,
    /// When it happened.
    pub time: UtcMillis,
    /// How far `time` can be trusted.
    pub time_quality: TimeQuality,
    /// The boot during which it was committed.
    pub boot: Uuid,
    /// The `data` member.
    pub data: Body,
}

/// A `data` member as it was committed: JSON text.
#[derive(Debug, Clone)]
pub struct Body(Box<str>);

impl Body {
    /// Out of a row whose seal says that it is what was checked when it was committed: to
    /// check that it is JSON once more would be the longest step of reading it.
    pub(crate) fn sealed(text: String) -> Self {
        Self(text.into())
    }

    /// The text.
    #[must_use]
    pub fn get(&self) -> &str {
        &self.0
    }
}

impl From<Box<RawValue>> for Body {
    fn from(data: Box<RawValue>) -> Self {
        Self(data.into())
    }
}

/// The envelope on the wire, members in the contract's order; `data` follows as the last.
#[derive(Serialize)]
struct CloudEvent<'a> {
    specversion: &'static str,
    id: Uuid,
    source: fmt::Arguments<'a>,
    #[serde(rename = "type")]
    kind: fmt::Arguments<'a>,
    time: UtcMillis,
    subject: &'a str,
    datacontenttype: &'static str,
    dataschema: fmt::Arguments<'a>,
    epoch: Epoch,
    sequence: fmt::Arguments<'a>,
    classsequence: fmt::Arguments<'a>,
    class: Class,
    boot: Uuid,
    timequality: TimeQuality,
}

impl Event {
    /// The CloudEvents 1.0 structured-mode JSON of contract §3.
    ///
    /// # Errors
    /// None that is known: all members can be written.
    pub fn to_cloudevent(&self, source: &Source) -> Result<Vec<u8>, serde_json::Error> {
        // One piece of memory instead of one that grows: this is done for every event sent.
        let mut envelope = Vec::with_capacity(self.data.get().len() + self.subject.len() + ENVELOPE_BYTES);
        // Written straight into it: no text is made beforehand.
        serde_json::to_writer(
            &mut envelope,
            &CloudEvent {
                specversion: "1.0",
                id: self.id,
                source: format_args!("{source}"),
                kind: format_args!("baygate.{}", self.kind),
                time: self.time,
                subject: &self.subject,
                datacontenttype: "application/json",
                dataschema: format_args!("baygate:{}:1", self.kind),
                epoch: self.epoch,
                // So many digits that the order of the text is the order of the numbers.
                sequence: format_args!("{:020}", self.sequence.0),
                classsequence: format_args!("{:020}", self.class_sequence.0),
                class: self.class,
                boot: self.boot,
                timequality: self.time_quality,
            },
        )?;
        envelope.pop();
        for part in [",\"data\":", self.data.get(), "}"] {
            envelope.extend_from_slice(part.as_bytes());
        }
        Ok(envelope)
    }

    /// The `data` member as its type.
    ///
    /// # Errors
    /// When it is of another type.
    pub fn data_as<'a, D: Deserialize<'a>>(&'a self) -> Result<D, serde_json::Error> {
        serde_json::from_str(self.data.get())
    }
}
