//! Class `maintenance`: warnings and their end.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Class, EventData, Text};
use crate::clock::UtcMillis;
use crate::ident::{DeviceId, Vin};

/// How urgent a warning is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Good to know.
    Info,
    /// Mention it to the customer.
    Advise,
    /// Should be seen to soon.
    Soon,
    /// Do not drive on.
    Stop,
}

/// What a warning rests on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Confidence {
    /// A measured value crossed a limit.
    Measured,
    /// The car's own diagnosis says so.
    Indicated,
    /// A trend over visits.
    Trend,
}

/// One observed value behind a warning.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Evidence {
    /// What was observed, e.g. `coolant_temperature`.
    pub name: String,
    /// The value: a number, text or truth value.
    pub value: serde_json::Value,
    /// Unit of `value`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
    /// The limit it was held against.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<serde_json::Value>,
    /// When it was observed.
    pub time: UtcMillis,
}

/// `maintenance.warning`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct MaintenanceWarning {
    /// The visit whose report raised it.
    pub visit: Uuid,
    /// The car, when known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vin: Option<Vin>,
    /// The workshop order, when typed in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order: Option<String>,
    /// The vehicle link's configured id.
    pub link: DeviceId,
    /// Stable while the warning stands.
    pub warning_id: Uuid,
    /// The rule's id.
    pub rule: String,
    /// The rule's version.
    pub rule_version: u32,
    /// How urgent.
    pub severity: Severity,
    /// One line.
    pub title: Text,
    /// What to do.
    pub advice: Text,
    /// What it rests on.
    pub evidence: Vec<Evidence>,
    /// How well founded.
    pub confidence: Confidence,
    /// Parts that may be needed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parts: Option<Vec<String>>,
    /// When this warning was first raised for this car.
    pub first_seen: UtcMillis,
}
impl EventData for MaintenanceWarning {
    const TYPE: &'static str = "maintenance.warning";
    const CLASS: Class = Class::Maintenance;
}

/// `maintenance.cleared`: the condition was looked at again and no longer holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct MaintenanceCleared {
    /// The visit whose report cleared it.
    pub visit: Uuid,
    /// The car, when known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vin: Option<Vin>,
    /// The workshop order, when typed in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order: Option<String>,
    /// The vehicle link's configured id.
    pub link: DeviceId,
    /// The warning that ended.
    pub warning_id: Uuid,
    /// Its rule.
    pub rule: String,
    /// Stable code of why, e.g. `condition-gone`.
    pub why: String,
}
impl EventData for MaintenanceCleared {
    const TYPE: &'static str = "maintenance.cleared";
    const CLASS: Class = Class::Maintenance;
}
