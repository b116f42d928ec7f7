//! What all units of a bus told together, and its form in the report. Pure.

use std::collections::BTreeMap;

use super::dm::{Codes, Light};
use super::listener::{Heard, Kind, Said};
use crate::event::vehicle::EcuReport;
use crate::protocols::Bundle;
use crate::vehicle::obd::VinReading;

/// What one unit told; the last word counts.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Unit {
    active: Option<Codes>,
    before: Option<Codes>,
}

/// What the units told, by their source addresses.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Told {
    units: BTreeMap<u8, Unit>,
    vin: Option<Vec<u8>>,
}

impl Told {
    /// A unit was heard, whatever it said.
    pub fn is_there(&mut self, source: u8) {
        self.units.entry(source).or_default();
    }

    /// Takes what a unit said.
    pub fn take(&mut self, heard: Heard) {
        let unit = self.units.entry(heard.source).or_default();
        match heard.said {
            Said::Codes(Kind::Active, codes) => unit.active = Some(codes),
            Said::Codes(Kind::PreviouslyActive, codes) => unit.before = Some(codes),
            Said::Vin(number) => {
                // A trailer may have a number, too: the first word stands.
                self.vin.get_or_insert(number);
            }
        }
    }

    /// Whether anybody was heard.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.units.is_empty()
    }

    /// Whether anybody told codes, or that there are none.
    #[must_use]
    pub fn has_codes(&self) -> bool {
        self.units.values().any(|unit| unit.active.is_some())
    }

    /// The vehicle's number.
    #[must_use]
    pub fn vin(&self) -> VinReading {
        self.vin.as_deref().map_or(VinReading::Missing, VinReading::from_info)
    }

    /// For the report, by address.
    #[must_use]
    pub fn ecus(&self, bundle: &Bundle) -> Vec<EcuReport> {
        // Tools on the bus (J1939-81 table B2) are no units of the vehicle.
        let units = self.units.iter().filter(|(source, _)| !matches!(source, 0xF9 | 0xFA));
        units.map(|(source, unit)| ecu(*source, unit, bundle)).collect()
    }
}

fn ecu(source: u8, unit: &Unit, bundle: &Bundle) -> EcuReport {
    let mut dtcs = unit.active.as_ref().map(|codes| codes.entries(true, bundle)).unwrap_or_default();
    let dtc_count = unit.active.as_ref().and_then(|codes| u8::try_from(codes.codes.len()).ok());
    for before in unit.before.iter().flat_map(|codes| codes.entries(false, bundle)) {
        // What is active again need not be told as past.
        if dtcs.iter().all(|dtc| dtc.code != before.code) {
            dtcs.push(before);
        }
    }
    let lamp = unit.active.as_ref().map(|codes| codes.lamps.malfunction);
    EcuReport {
        address: format!("{source:02X}"),
        name: name(source).map(str::to_owned),
        mil: lamp.filter(|lamp| *lamp != Light::NotTold).map(Light::is_lit),
        dtc_count,
        dtcs,
        ..EcuReport::default()
    }
}

/// Addresses that are the same on every vehicle (SAE J1939-81 table B2).
fn name(source: u8) -> Option<&'static str> {
    Some(match source {
        0x00 => "ECM",
        0x03 => "TCM",
        0x0B => "ABS",
        0x17 => "Instruments",
        0x21 => "BCM",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::vehicle::DtcState;

    fn codes(source: u8, kind: Kind, data: &str) -> Heard {
        let codes = Codes::read(&hex::decode(data).unwrap()).unwrap();
        Heard { source, said: Said::Codes(kind, codes) }
    }

    #[test]
    fn the_last_word_counts_and_the_past_is_told_once() {
        let bundle = Bundle::load(std::path::Path::new("firmware-protocols")).unwrap();
        let mut told = Told::default();
        assert!(told.is_empty());
        told.is_there(0x21);
        assert!(!told.has_codes());
        // SPN 100 FMI 1, malfunction lamp off; then lit.
        told.take(codes(0x00, Kind::Active, "00FF6400010AFFFF"));
        told.take(codes(0x00, Kind::Active, "40FF6400010AFFFF"));
        // The same code, and SPN 110 FMI 3 (6E 00 03).
        told.take(codes(0x00, Kind::PreviouslyActive, "00FF6400010A6E000301"));
        let ecus = told.ecus(&bundle);
        assert_eq!(ecus.iter().map(|ecu| ecu.address.as_str()).collect::<Vec<_>>(), ["00", "21"]);
        assert_eq!(
            (ecus[0].name.as_deref(), ecus[0].mil, ecus[0].dtc_count),
            (Some("ECM"), Some(true), Some(1))
        );
        let listed: Vec<_> = ecus[0].dtcs.iter().map(|dtc| (dtc.code.as_str(), dtc.state.clone())).collect();
        assert_eq!(listed, [("SPN100-1", vec![DtcState::Confirmed]), ("SPN110-3", vec![])]);
        assert!(ecus[0].dtcs.iter().all(|dtc| dtc.source == "j1939" && dtc.text.is_some()));
        assert_eq!((ecus[1].mil, ecus[1].dtc_count), (None, None));
    }
}
