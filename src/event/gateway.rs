//! Class `gateway`: the gateway about itself.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Class, EventData};
use crate::ident::{Epoch, Seq};

/// Why the running epoch began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum EpochReason {
    /// A database made anew.
    Created,
    /// Store, gateway id or machine differ from those written at its creation.
    Cloned,
    /// Brought back from a backup.
    Restored,
    /// The file was damaged and its rows were salvaged.
    Salvaged,
    /// Headquarters knows a position ahead of ours.
    Ahead,
}

/// `gateway.started`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct GatewayStarted {
    /// Program version.
    pub version: String,
    /// Present when a new epoch began since the last `gateway.started`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub new_epoch: Option<EpochReason>,
    /// The epoch before, when known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous_epoch: Option<Epoch>,
    /// Whether the last run ended orderly.
    pub clean_shutdown: bool,
}
impl EventData for GatewayStarted {
    const TYPE: &'static str = "gateway.started";
    const CLASS: Class = Class::Gateway;
}

/// `gateway.stopping`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct GatewayStopping {
    /// `signal`, `demo-over`, …
    pub reason: String,
}
impl EventData for GatewayStopping {
    const TYPE: &'static str = "gateway.stopping";
    const CLASS: Class = Class::Gateway;
}

/// Why events are missing from a stretch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum GapReason {
    /// Trimmed: the class was over its limit.
    Full,
    /// The broker will never take them (too large, invalid topic or payload).
    Rejected,
    /// Lost in a damaged file.
    Damaged,
}

/// `gateway.gap`: events that will never be sent, once per stretch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct GatewayGap {
    /// The class.
    pub class: Class,
    /// First missing class sequence.
    pub from: Seq,
    /// Last missing class sequence.
    pub to: Seq,
    /// How many are missing.
    pub count: u64,
    /// Why.
    pub reason: GapReason,
    /// The epoch of `from` and `to`, when it is not the envelope's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gap_epoch: Option<Epoch>,
}
impl EventData for GatewayGap {
    const TYPE: &'static str = "gateway.gap";
    const CLASS: Class = Class::Gateway;
}

/// `gateway.clock`: the wall clock was set. Covers all events of this boot and epoch so far.
///
/// The time of an `unsynced` event is put right by adding the `offset_ms` of every
/// `gateway.clock` of its boot and epoch that covers it; a `synced` one needs nothing. The
/// envelope's own `timequality` says whether the clock is to be believed from here on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct GatewayClock {
    /// The boot in which the affected events were committed.
    pub boot: Uuid,
    /// By how much the clock was set, in milliseconds: add it to the times covered.
    pub offset_ms: i64,
    /// First affected sequence.
    pub from_sequence: Seq,
    /// Last affected sequence.
    pub to_sequence: Seq,
}
impl EventData for GatewayClock {
    const TYPE: &'static str = "gateway.clock";
    const CLASS: Class = Class::Gateway;
}

/// `gateway.config`: a configuration was taken or refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct GatewayConfig {
    /// `applied` or `refused`.
    pub outcome: String,
    /// SHA-256 of the merged configuration, hex.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Why it was refused: file:line:column and the fix.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Tables that changed, e.g. `reader/counter-1`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub changed: Vec<String>,
}
impl EventData for GatewayConfig {
    const TYPE: &'static str = "gateway.config";
    const CLASS: Class = Class::Gateway;
}

/// How a command from headquarters ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum CommandOutcome {
    /// Carried out.
    Done,
    /// Tried and failed.
    Failed,
    /// Not allowed, or unknown.
    Refused,
    /// Came too late.
    Expired,
    /// The daemon stopped in the middle; whether it took effect is unknown.
    Interrupted,
}

/// `command.result`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CommandResult {
    /// The command's id.
    pub command_id: Uuid,
    /// Its name.
    pub name: String,
    /// How it ended.
    pub outcome: CommandOutcome,
    /// Why it failed or was refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// What it gave.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<serde_json::Value>,
}
impl EventData for CommandResult {
    const TYPE: &'static str = "command.result";
    const CLASS: Class = Class::Gateway;
}
