//! What a simulated car is made of, as a file or in code ([`CarSpec`]), and the
//! small types in it: codes, monitors, engine state.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::Deserialize;

use super::truck::Truck;

/// A car could not be made from what was given.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    /// Not a trouble code.
    #[error("{0:?} is not a trouble code; write it like P0420 (P, C, B or U, then 0-3 and three hex digits)")]
    Dtc(String),
    /// No such live signal.
    #[error("there is no signal {name:?}; known are: {known}")]
    Signal {
        /// What was asked.
        name: String,
        /// What exists.
        known: String,
    },
    /// No such protocol.
    #[error("protocol {0} is not simulated; choose 1 to 9 as with AT SP (6 is CAN 11 bit 500 kbit/s)")]
    Protocol(u8),
    /// Too many units.
    #[error("a simulated car has 1 to 8 control units, not {0}")]
    Units(usize),
    /// A dongle shows no broadcasts.
    #[error("a truck speaks J1939 (SAE), which needs a bus: use --slcan or --can")]
    Truck,
    /// A step of a script that nothing there can do.
    #[error("the step at {0} cannot be played there: docs/simulators.md says what needs an ELM327")]
    Step(String),
    /// A script does not read, or asks for something that is not there.
    #[error("the script is not right: {0}")]
    Script(String),
    /// The car's file does not read.
    #[error("the car's file is not right: {0}")]
    File(String),
}

/// A trouble code as two bytes (SAE J2012).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub struct Dtc(u16);

impl Dtc {
    /// The two bytes on the wire.
    #[must_use]
    pub fn bytes(self) -> [u8; 2] {
        self.0.to_be_bytes()
    }
}

impl FromStr for Dtc {
    type Err = SpecError;
    fn from_str(text: &str) -> Result<Self, SpecError> {
        let wrong = || SpecError::Dtc(text.to_owned());
        let letter = text.chars().next().ok_or_else(wrong)?;
        let system = "PCBU".find(letter).ok_or_else(wrong)?;
        let digits = text.get(1..).filter(|d| d.len() == 4).ok_or_else(wrong)?;
        let number = u16::from_str_radix(digits, 16).map_err(|_| wrong())?;
        if number > 0x3FFF {
            return Err(wrong());
        }
        Ok(Self(number | u16::try_from(system).unwrap_or(0) << 14))
    }
}

impl TryFrom<String> for Dtc {
    type Error = SpecError;
    fn try_from(text: String) -> Result<Self, SpecError> {
        text.parse()
    }
}

impl fmt::Display for Dtc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let letter = ["P", "C", "B", "U"].get(usize::from(self.0 >> 14)).unwrap_or(&"P");
        write!(f, "{letter}{:04X}", self.0 & 0x3FFF)
    }
}

/// One test result of service 06.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Monitor {
    /// Monitor (SAE J1979-DA, table D).
    pub mid: u8,
    /// Test.
    pub tid: u8,
    /// Unit and scaling (table E).
    pub unit: u8,
    /// Raw value.
    pub value: u16,
    /// Lowest allowed.
    pub min: u16,
    /// Highest allowed.
    pub max: u16,
}

/// What the engine does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Engine {
    /// Idling, warm.
    #[default]
    Running,
    /// Ignition on, engine standing.
    On,
    /// Ignition off: the control units sleep.
    Off,
}

/// What drives the car.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Drive {
    /// A petrol engine.
    #[default]
    Ice,
    /// A diesel engine: other monitors and in-use ratios.
    Diesel,
    /// A petrol engine and a drive battery.
    Hybrid,
    /// A drive battery alone. With `obd = false` it tells its values on UDS (identifiers F4xx).
    Bev,
}

/// A unit on identifiers of its maker's choice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MakersUnit {
    /// The arbitration ID on which it is asked, and takes flow control.
    pub request: u32,
    /// The arbitration ID of its answers.
    pub answer: u32,
}

/// A car to simulate. Every field has a default: `CarSpec::default()` is a warm, healthy petrol car.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CarSpec {
    /// Identification number; none: the car does not say.
    pub vin: Option<String>,
    /// As `AT SP`: 1 PWM, 2 VPW, 3 ISO 9141-2, 4 5 KWP, 6 8 CAN 11 bit, 7 9 CAN 29 bit.
    pub protocol: u8,
    /// What the engine does.
    pub engine: Engine,
    /// At the socket, in volts; else by the engine's state.
    pub voltage: Option<f64>,
    /// Stored codes.
    pub confirmed: Vec<Dtc>,
    /// Pending codes.
    pub pending: Vec<Dtc>,
    /// Permanent codes.
    pub permanent: Vec<Dtc>,
    /// Byte D of parameter 01: monitors not complete.
    pub incomplete: u8,
    /// Live signals held at a value.
    pub signals: BTreeMap<String, f64>,
    /// Instead of the healthy service 06 results.
    pub monitors: Option<Vec<Monitor>>,
    /// Number of control units, 1 to 8.
    pub units: u8,
    /// A maker's own unit beside them, which answers UDS alone.
    pub makers_unit: Option<MakersUnit>,
    /// Its confirmed codes.
    pub makers_codes: Vec<Dtc>,
    /// How much later than the others that one answers.
    pub makers_late_ms: u64,
    /// What drives it.
    pub drive: Drive,
    /// Answers J1979. False: only UDS, as some battery cars.
    pub obd: bool,
    /// Answers UDS. False: refuses it as a service it does not know.
    pub uds: bool,
    /// "Wait" (`7F xx 78`) so many times before each answer on UDS.
    pub uds_waits: u8,
    /// Confirmed codes that only UDS tells.
    pub enhanced: Vec<Dtc>,
    /// Answers OBD on UDS (SAE J1979-2).
    pub j1979_2: bool,
    /// Failure type of its codes on UDS: their third byte.
    pub failure_type: u8,
    /// Knows extended data records of its codes (19 06).
    pub extended_data: bool,
    /// Most parameters in one request of service 01, 02 or 22.
    pub most_parameters: usize,
    /// Fills up CAN frames.
    pub padding: u8,
    /// Where the drift of live values begins.
    pub seed: u64,
    /// Live values wander.
    pub drift: bool,
    /// From request to first answer.
    pub latency_ms: u64,
    /// From each "wait" (`7F xx 78`) to what follows, on CAN; asked meanwhile the unit is busy (21).
    pub pending_gap_ms: u64,
    /// Busy (`7F xx 21`) for so many requests to the engine's unit.
    pub busy_replies: u8,
    /// Units that speak J1939, instead of the car's or beside them.
    pub truck: Option<Truck>,
}

impl Default for CarSpec {
    fn default() -> Self {
        Self {
            // The worked example of 49 CFR 565.15: its check digit is right and no such car was sold.
            vin: Some("1M8GDM9AXKP042788".into()),
            protocol: 6,
            engine: Engine::Running,
            voltage: None,
            confirmed: Vec::new(),
            pending: Vec::new(),
            permanent: Vec::new(),
            incomplete: 0,
            signals: BTreeMap::new(),
            monitors: None,
            units: 2,
            makers_unit: None,
            makers_codes: Vec::new(),
            makers_late_ms: 0,
            drive: Drive::Ice,
            obd: true,
            uds: true,
            uds_waits: 0,
            enhanced: Vec::new(),
            j1979_2: false,
            failure_type: 0,
            extended_data: true,
            most_parameters: 6,
            padding: 0,
            seed: 1,
            drift: true,
            latency_ms: 5,
            pending_gap_ms: 0,
            busy_replies: 0,
            truck: None,
        }
    }
}

impl CarSpec {
    /// Reads a car from TOML.
    ///
    /// # Errors
    /// [`SpecError::File`] with line and column.
    pub fn from_toml(text: &str) -> Result<Self, SpecError> {
        toml::from_str(text).map_err(|error| SpecError::File(error.to_string()))
    }

    /// The car's bus, in bits a second: protocols 8 and 9 are at 250 kbit/s (`AT SP` of the ELM327
    /// data sheet).
    #[must_use]
    pub fn bitrate(&self) -> u32 {
        if self.protocol >= 8 { 250_000 } else { 500_000 }
    }

    /// From request to first answer.
    #[must_use]
    pub fn latency(&self) -> Duration {
        Duration::from_millis(self.latency_ms)
    }
}

/// Healthy results: oxygen sensor, catalyst, EVAP leak, misfire in general and by cylinder.
#[must_use]
pub fn healthy_monitors() -> Vec<Monitor> {
    let result = |mid, tid, unit, value, min, max| Monitor { mid, tid, unit, value, min, max };
    vec![
        result(0x01, 0x01, 0x0A, 3690, 0, 0x7FFF),
        result(0x01, 0x05, 0x10, 72, 0, 250),
        result(0x21, 0x80, 0x20, 51, 0, 192),
        result(0x3C, 0x80, 0x05, 120, 0, 900),
        result(0xA1, 0x0B, 0x24, 0, 0, 0xFFFF),
        result(0xA1, 0x0C, 0x24, 0, 0, 0xFFFF),
        result(0xA2, 0x0C, 0x24, 2, 0, 150),
        result(0xA3, 0x0C, 0x24, 1, 0, 150),
        result(0xA4, 0x0C, 0x24, 0, 0, 150),
        result(0xA5, 0x0C, 0x24, 3, 0, 150),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// ELM327 datasheet, "Interpreting Trouble Codes": `01 33` is P0133, and the letter table beside it.
    #[test]
    fn codes_are_two_bytes() {
        for (text, bytes) in [
            ("P0133", [0x01, 0x33]),
            ("C1234", [0x52, 0x34]),
            ("B2A00", [0xAA, 0x00]),
            ("U0100", [0xC1, 0x00]),
        ] {
            let dtc: Dtc = text.parse().unwrap();
            assert_eq!(dtc.bytes(), bytes, "{text}");
            assert_eq!(dtc.to_string(), text);
        }
        for wrong in ["", "P04", "X0420", "P4420", "P042G", "P04200", "车0420"] {
            assert!(wrong.parse::<Dtc>().is_err(), "{wrong}");
        }
    }
}
