//! The report on a car (contract §5) and its parts. What does not live here: how it is made
//! (`vehicle::report`).

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::StoreFacts;
use crate::clock::UtcMillis;
use crate::event::{Class, EventData, Text};
use crate::ident::{DeviceId, Vin};

/// What is known of the VIN's form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum VinCheck {
    /// The check digit (position 9) is right.
    Ok,
    /// The check digit is wrong: many regions do not use it.
    CheckDigitWrong,
    /// The car gave something that is not a VIN.
    Malformed,
    /// The car gave none.
    Missing,
}

impl VinCheck {
    /// Of a VIN that is one.
    #[must_use]
    pub fn of(vin: &Vin) -> Self {
        if vin.check_digit_ok() { Self::Ok } else { Self::CheckDigitWrong }
    }
}

/// Where the VIN of a report comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum VinSource {
    /// The car gave it in this scan.
    Scan,
    /// The car gave it earlier in this visit; in this scan it was missing or spoilt.
    Visit,
    /// Somebody typed it in; the car gave none.
    Typed,
}

/// The adapter between gateway and car.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Adapter {
    /// Its own identity string, e.g. `ELM327 v1.5`.
    pub identity: String,
    /// Firmware, when told apart from the identity (STN).
    pub firmware: Option<String>,
    /// Voltage at the diagnostic socket.
    pub voltage_v: Option<f64>,
}

/// What drives the car.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum Powertrain {
    Ice,
    Hybrid,
    Bev,
    #[default]
    Unknown,
}

/// Which lists a code stands in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum DtcState {
    /// Service 03.
    Confirmed,
    /// Service 07.
    Pending,
    /// Service 0A.
    Permanent,
}

/// One diagnostic trouble code of one ECU.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DtcEntry {
    /// Five characters, e.g. `P0420`.
    pub code: String,
    /// The lists it stands in.
    pub state: Vec<DtcState>,
    /// `obd` or `uds`.
    pub source: String,
    /// The UDS status byte, when from UDS.
    pub status_raw: Option<u8>,
    /// The failure type behind the code (SAE J2012-DA appendix A), two hex digits, when from
    /// UDS and more than 00.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure_type: Option<String>,
    /// Extended data records of the code (19 06), hex, each behind its number: occurrences, ageing
    /// and the like, in the maker's own format. From UDS alone, where it failed in one way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extended_data: Option<String>,
    /// What it means; absent when not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<Text>,
}

/// One decoded PID value.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PidValue {
    /// Service and PID, four hex digits, e.g. `010C`.
    pub pid: String,
    /// Signal name of the table, e.g. `engine_speed`.
    pub name: String,
    /// A number, or the text of an enumerated value.
    pub value: serde_json::Value,
    /// Unit; empty for texts.
    pub unit: String,
}

/// The freeze frame stored with a code.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct FreezeFrame {
    /// The code that froze it.
    pub code: String,
    /// Values at that moment.
    pub values: Vec<PidValue>,
}

/// State of one readiness monitor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum Readiness {
    Complete,
    Incomplete,
    Unsupported,
}

/// One monitor test result (service 06).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct MonitorTest {
    /// Monitor id, hex.
    pub mid: String,
    /// Test id, hex.
    pub tid: String,
    /// What is tested.
    pub name: String,
    /// Result.
    pub value: f64,
    /// Lower limit.
    pub min: f64,
    /// Upper limit.
    pub max: f64,
    /// Unit of the three.
    pub unit: String,
    /// Whether the result lies within the limits.
    pub passed: bool,
}

/// How many codes a unit could store (19 0A), and how far its tests are. A count is absent where
/// the unit does not keep that bit of the status.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SupportedCodes {
    /// All of them.
    pub count: u32,
    /// Those whose test has not run since codes were cleared (status bit 4).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_tested_since_clear: Option<u32>,
    /// Those whose test has not run in this operation cycle (status bit 6).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_tested_this_cycle: Option<u32>,
}

/// What one ECU told.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct EcuReport {
    /// Response address, hex, e.g. `7E8`.
    pub address: String,
    /// ECU name (09 0A) or a name by address.
    pub name: Option<String>,
    /// Malfunction indicator lamp.
    pub mil: Option<bool>,
    /// Number of confirmed codes it claims (PID 01).
    pub dtc_count: Option<u8>,
    /// Codes.
    pub dtcs: Vec<DtcEntry>,
    /// Freeze frames.
    pub freeze_frames: Vec<FreezeFrame>,
    /// Readiness monitors.
    pub readiness: BTreeMap<String, Readiness>,
    /// The same monitors in this drive cycle (PID 41), where the car tells. `unsupported` also
    /// means switched off until the next cycle.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub readiness_this_cycle: BTreeMap<String, Readiness>,
    /// Current values.
    pub values: Vec<PidValue>,
    /// Monitor tests.
    pub monitor_tests: Vec<MonitorTest>,
    /// In-use performance ratios.
    pub iupr: Vec<serde_json::Value>,
    /// Calibration ids.
    pub calibration_ids: Vec<String>,
    /// Calibration verification numbers, hex.
    pub cvns: Vec<String>,
    /// Part and version numbers told by UDS: `part_number`, `software_version`,
    /// `hardware_number`, `supplier_software_version`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub identification: BTreeMap<String, String>,
    /// Controls of service 08 the unit has, two hex digits each: told by its masks, never used.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub controls: Vec<String>,
    /// The codes it could store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub supported_codes: Option<SupportedCodes>,
    /// Readiness groups of a J1979-2 unit (19 56), two hex digits: whether all tests of the group's
    /// codes have run since codes were cleared. Which monitor a number is stands in SAE J1979-DA.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub readiness_groups: BTreeMap<String, Readiness>,
}

/// Whether the annual check would pass.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Inspection {
    /// Nothing known blocks it.
    pub ready: bool,
    /// Stable codes of what blocks it, e.g. `mil-on`, `dtc-confirmed`, `monitor-incomplete:catalyst`.
    pub blocking: Vec<String>,
    /// Stable codes of what the check may look at and does not by itself fail, e.g. `dtc-pending`,
    /// `cvn-unknown`, or `monitor-incomplete:catalyst` while few enough are incomplete.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// One request that got no usable answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RequestError {
    /// The request, hex.
    pub request: String,
    /// What came instead.
    pub error: String,
}

/// `vehicle.report`: the full read-only report of contract §5.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct VehicleReport {
    /// The visit.
    pub visit: Uuid,
    /// The car.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vin: Option<Vin>,
    /// What is known of the form of `vin`; of what the car gave instead, where that is absent.
    pub vin_check: VinCheck,
    /// Where `vin` comes from; absent without one, and in reports of older versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vin_source: Option<VinSource>,
    /// The workshop order, when typed in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order: Option<String>,
    /// The vehicle link's configured id.
    pub link: DeviceId,
    /// The adapter.
    pub adapter: Adapter,
    /// Contract §5 name of the protocol.
    pub protocol: String,
    /// What drives the car.
    pub powertrain: Powertrain,
    /// Whether the engine runs; absent when unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine_running: Option<bool>,
    /// When the scan began.
    pub started_at: UtcMillis,
    /// How long it took, in milliseconds.
    pub duration_ms: u64,
    /// What each ECU told.
    pub ecus: Vec<EcuReport>,
    /// Odometer, kilometres.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub odometer_km: Option<f64>,
    /// `obd`, `dashboard` or `order`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub odometer_source: Option<String>,
    /// PID 31, kilometres.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub distance_since_clear_km: Option<u32>,
    /// PID 30.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warmups_since_clear: Option<u32>,
    /// PID 4E, minutes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_since_clear_min: Option<u32>,
    /// False when codes were cleared recently or monitors are incomplete.
    pub assessable: bool,
    /// Stable codes of why not.
    pub not_assessable_because: Vec<String>,
    /// Whether the annual check would pass.
    pub inspection: Inspection,
    /// Requests that got no usable answer.
    pub errors: Vec<RequestError>,
    /// What people said of the visit.
    #[serde(flatten)]
    pub store_facts: StoreFacts,
}
impl EventData for VehicleReport {
    const TYPE: &'static str = "vehicle.report";
    const CLASS: Class = Class::Vehicle;
}
