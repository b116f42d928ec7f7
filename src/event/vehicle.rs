//! Classes `vehicle` and `telemetry`: visits, reports, clearings and signal windows.

mod report;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Class, EventData};
use crate::clock::UtcMillis;
use crate::ident::{CardNo, DeviceId, Vin};
pub use report::{
    Adapter, DtcEntry, DtcState, EcuReport, FreezeFrame, Inspection, MonitorTest, PidValue, Powertrain,
    Readiness, RequestError, SupportedCodes, VehicleReport, VinCheck, VinSource,
};

/// `vehicle.arrived`: a car answers on a link.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct VehicleArrived {
    /// The visit that begins.
    pub visit: Uuid,
    /// The car, when it told its VIN already.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vin: Option<Vin>,
    /// The workshop order, when typed in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order: Option<String>,
    /// The vehicle link's configured id.
    pub link: DeviceId,
    /// Contract §5 name, e.g. `iso15765-4-11bit-500k`.
    pub protocol: String,
    /// Voltage at the diagnostic socket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub voltage_v: Option<f64>,
    /// The adapter's own identity string.
    pub adapter: String,
}
impl EventData for VehicleArrived {
    const TYPE: &'static str = "vehicle.arrived";
    const CLASS: Class = Class::Vehicle;
}

/// Why a visit ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum DepartureReason {
    /// The adapter lost the car's supply.
    Unplugged,
    /// The car stopped answering but still powers the adapter.
    IgnitionOff,
    /// Another VIN answers.
    Swapped,
    /// The adapter itself went away.
    LinkLost,
}

/// Why a car is here (contract §7).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs)]
pub enum Purpose {
    Intake,
    PostRepair,
    Delivery,
    Appraisal,
    TestDrive,
    Courtesy,
    Stock,
    PreInspection,
}

/// Where an odometer reading comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OdometerSource {
    /// The car told it (PID A6).
    Obd,
    /// Somebody read it off the dashboard.
    Dashboard,
    /// It stands in the workshop order.
    Order,
}

impl OdometerSource {
    /// Its name in reports.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Obd => "obd",
            Self::Dashboard => "dashboard",
            Self::Order => "order",
        }
    }
}

/// What people in the store said of a visit, as far as it has no place of its own in
/// an event. Every member is absent until somebody said it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct StoreFacts {
    /// True: `vin` was typed in, the car gave none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vin_typed: Option<bool>,
    /// Why the car is here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub purpose: Option<Purpose>,
    /// The member's card. Only with a recorded consent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub card_no: Option<CardNo>,
    /// When the member agreed to be joined to the car.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub consent_at: Option<UtcMillis>,
}

/// `vehicle.departed`: the visit is over.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct VehicleDeparted {
    /// The visit that ends.
    pub visit: Uuid,
    /// The car, when known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vin: Option<Vin>,
    /// The workshop order, when typed in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order: Option<String>,
    /// The vehicle link's configured id.
    pub link: DeviceId,
    /// Why.
    pub reason: DepartureReason,
    /// How long the visit lasted, in seconds.
    pub duration_s: u64,
    /// Odometer as typed in, kilometres.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub odometer_km: Option<f64>,
    /// `dashboard` or `order`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub odometer_source: Option<OdometerSource>,
    /// What people said of the visit.
    #[serde(flatten)]
    pub store_facts: StoreFacts,
}
impl EventData for VehicleDeparted {
    const TYPE: &'static str = "vehicle.departed";
    const CLASS: Class = Class::Vehicle;
}

/// One signal over a window.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SignalWindow {
    /// Signal name, e.g. `engine_speed`.
    pub name: String,
    /// Unit of the values.
    pub unit: String,
    /// Smallest sample.
    pub min: f64,
    /// Largest sample.
    pub max: f64,
    /// Mean of the samples.
    pub mean: f64,
    /// Last sample.
    pub last: f64,
    /// How many samples.
    pub count: u64,
}

/// `vehicle.signals`: telemetry of one window of a visit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct VehicleSignals {
    /// The visit.
    pub visit: Uuid,
    /// The car, when known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vin: Option<Vin>,
    /// The workshop order, when typed in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order: Option<String>,
    /// The vehicle link's configured id.
    pub link: DeviceId,
    /// First sample.
    pub from: UtcMillis,
    /// Last sample.
    pub to: UtcMillis,
    /// What was seen.
    pub signals: Vec<SignalWindow>,
}
impl EventData for VehicleSignals {
    const TYPE: &'static str = "vehicle.signals";
    const CLASS: Class = Class::Telemetry;
}

/// What came of clearing codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ClearOutcome {
    /// Every unit that answered cleared its codes.
    Cleared,
    /// Some did, some refused.
    Partly,
    /// All that answered refused.
    Refused,
    /// Sent; nobody said what came of it (no answer, the adapter restarted, a power cut).
    Unknown,
}

/// `vehicle.cleared`: codes were cleared, or may have been, on a person's confirmation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct VehicleCleared {
    /// The visit.
    pub visit: Uuid,
    /// The car, when known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vin: Option<Vin>,
    /// The workshop order, when typed in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order: Option<String>,
    /// The vehicle link's configured id.
    pub link: DeviceId,
    /// The confirmation that was used up for it.
    pub confirmation: Uuid,
    /// Who asked: the token's id, or `control`.
    pub asked_by: String,
    /// Where the person said yes: the till, or `control`.
    pub confirmed_by: String,
    /// The person's name as typed in.
    pub operator: String,
    /// `obd` (service 04) or `uds` (service 14).
    pub method: String,
    /// The codes the last report before it had.
    pub codes: Vec<String>,
    /// What came of it.
    pub outcome: ClearOutcome,
    /// Units that cleared, by response address.
    pub units: Vec<String>,
    /// Units that refused, with the negative response code, hex.
    pub refused: Vec<String>,
}
impl EventData for VehicleCleared {
    const TYPE: &'static str = "vehicle.cleared";
    const CLASS: Class = Class::Vehicle;
}
