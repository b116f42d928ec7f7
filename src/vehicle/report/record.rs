//! Everything a scan heard, and what follows from it for the next question: who
//! answered, what the masks promise, which frames there are. Pure. What the
//! answers mean to people is made in the module above.

use std::collections::BTreeSet;

use uuid::Uuid;

use crate::clock::UtcMillis;
use crate::event::vehicle::{Adapter, RequestError};
use crate::ident::DeviceId;
use crate::vehicle::batch::Promises;
use crate::vehicle::gate::Request;
use crate::vehicle::j1939;
use crate::vehicle::obd::{self, VinReading};
use crate::vehicle::protocol::{EcuAddress, Protocol};

/// One positive answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// The question.
    pub request: Request,
    /// Who answered.
    pub ecu: EcuAddress,
    /// Answered service, echoed id, data.
    pub payload: Vec<u8>,
}

/// Everything a scan heard.
#[derive(Debug, Clone, PartialEq)]
pub struct ScanRecord {
    /// The visit.
    pub visit: Uuid,
    /// The vehicle link.
    pub link: DeviceId,
    /// The adapter.
    pub adapter: Adapter,
    /// The bus.
    pub protocol: Protocol,
    /// When the scan began.
    pub started_at: UtcMillis,
    /// How long it took, in milliseconds.
    pub duration_ms: u64,
    /// Positive answers in order.
    pub told: Vec<Told>,
    /// What units of a J1939 bus told, nearly all of it unasked.
    pub groups: j1939::Told,
    /// Requests without a usable answer.
    pub errors: Vec<RequestError>,
    /// Why the scan ended early, a stable code; what was told before stands.
    pub broke_off: Option<String>,
}

/// Why a PID that a unit has is not asked.
pub const NO_PID: &str = "not in the table of PIDs";
/// Why information of service 09 that a unit has is not asked.
pub const NO_INFO: &str = "no table says what it holds";
/// Information of service 09 that is asked: VIN, calibration ids, their verification numbers, in-use
/// ratios of spark ignition, names, ratios of compression ignition.
pub const INFO_ASKED: [u8; 6] = [0x02, 0x04, 0x06, 0x08, 0x0A, 0x0B];

/// Whether no table says what the information holds: neither asked, nor how many messages the next one
/// has (SAE J1979 appendix G: 01 to 09, the odd ones), nor another mask.
#[must_use]
pub fn is_info_unknown(info: u8) -> bool {
    !INFO_ASKED.contains(&info)
        && !matches!(info, 0x01 | 0x03 | 0x05 | 0x07 | 0x09)
        && !info.is_multiple_of(0x20)
}

/// One entry for requests that one reason keeps from being asked; none without requests.
#[must_use]
pub fn left_out(requests: impl IntoIterator<Item = Request>, why: &str) -> Option<RequestError> {
    let names: Vec<String> = requests.into_iter().map(|request| request.to_string()).collect();
    (!names.is_empty()).then(|| RequestError { request: names.join(" "), error: format!("left out: {why}") })
}

impl ScanRecord {
    /// The payloads one ECU gave to a request.
    #[must_use]
    pub fn payloads(&self, ecu: &EcuAddress, request: Request) -> Vec<&[u8]> {
        self.told
            .iter()
            .filter(|told| told.request == request && told.ecu == *ecu)
            .map(|told| told.payload.as_slice())
            .collect()
    }

    /// ECUs that answered anything, by address.
    #[must_use]
    pub fn ecus(&self) -> Vec<EcuAddress> {
        self.told.iter().map(|told| told.ecu.clone()).collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// Service 01 PIDs an ECU promises.
    #[must_use]
    pub fn supported(&self, ecu: &EcuAddress) -> BTreeSet<u8> {
        self.masks(ecu, 2, Request::current)
    }

    /// Which ECU promises which PIDs of service 01.
    #[must_use]
    pub fn promises(&self) -> Promises {
        self.ecus().into_iter().map(|ecu| (ecu.clone(), self.supported(&ecu))).collect()
    }

    /// Service 08 controls an ECU has, masks that follow among them.
    #[must_use]
    pub fn supported_controls(&self, ecu: &EcuAddress) -> BTreeSet<u8> {
        let told = self.told.iter().filter(|told| told.ecu == *ecu && told.request.service() == 0x08);
        told.filter_map(|told| obd::support_mask(&told.payload, self.protocol.is_can())).flatten().collect()
    }

    /// PIDs an ECU promises for a freeze frame.
    #[must_use]
    pub fn supported_in_freeze_frame(&self, ecu: &EcuAddress, frame: u8) -> BTreeSet<u8> {
        self.masks(ecu, 3, |base| Request::freeze_frame(base, frame))
    }

    /// Service 06 monitors (on older buses tests) an ECU promises.
    #[must_use]
    pub fn supported_monitors(&self, ecu: &EcuAddress) -> BTreeSet<u8> {
        // A filler byte stands before the mask on older buses (SAE J1979 §6.6).
        let skip = if self.protocol.is_can() { 2 } else { 3 };
        self.masks(ecu, skip, Request::monitor)
    }

    /// Service 05 tests that any ECU promises for an oxygen sensor.
    #[must_use]
    pub fn supported_sensor_tests(&self, sensor: u8) -> BTreeSet<u8> {
        let mask = Request::oxygen_sensor_test(0x00, sensor);
        let told = self.told.iter().filter(|told| told.request == mask);
        told.filter_map(|told| obd::four_bytes(&told.payload, 3))
            .flat_map(|mask| obd::supported(0, mask))
            .collect()
    }

    /// Whether anything was told beyond the first mask.
    #[must_use]
    pub fn has_content(&self) -> bool {
        self.told.iter().any(|told| told.request != Request::current(0x00))
    }

    /// Service 09 information an ECU promises.
    #[must_use]
    pub fn supported_info(&self, ecu: &EcuAddress) -> BTreeSet<u8> {
        // Behind service and id stands a count of items on older buses only.
        let skip = if self.protocol.is_can() { 2 } else { 3 };
        self.masks(ecu, skip, Request::vehicle_info)
    }

    fn masks(&self, ecu: &EcuAddress, skip: usize, request: impl Fn(u8) -> Request) -> BTreeSet<u8> {
        (0..=0xE0_u8)
            .step_by(0x20)
            .flat_map(|base| {
                let masks = self.payloads(ecu, request(base));
                masks
                    .into_iter()
                    .filter_map(|payload| obd::four_bytes(payload, skip))
                    .flat_map(|mask| obd::supported(base, mask))
                    .collect::<Vec<u8>>()
            })
            .collect()
    }

    /// The code a freeze frame of an ECU was stored for; none: there is no such frame.
    #[must_use]
    pub fn freeze_frame_code(&self, ecu: &EcuAddress, frame: u8) -> Option<String> {
        let payloads = self.payloads(ecu, Request::freeze_frame(0x02, frame));
        // An answer to another frame's question may have come late.
        let payload = payloads.into_iter().find(|payload| payload.get(2) == Some(&frame))?;
        let pair: [u8; 2] = payload.get(3..5)?.try_into().ok()?;
        (pair != [0, 0]).then(|| obd::dtc_text(pair))
    }

    /// The freeze frames of an ECU: number and code.
    #[must_use]
    pub fn freeze_frames(&self, ecu: &EcuAddress) -> Vec<(u8, String)> {
        let asked = self.told.iter().filter(|told| told.ecu == *ecu);
        let numbers = asked.filter_map(|told| match (told.request.service(), told.request.parameters()) {
            (0x02, [0x02, frame]) => Some(*frame),
            _ => None,
        });
        let numbers: BTreeSet<u8> = numbers.collect();
        numbers.into_iter().filter_map(|frame| Some((frame, self.freeze_frame_code(ecu, frame)?))).collect()
    }

    /// The VIN: as a J1939 bus tells it, or of the first ECU, by address, that gives a good one.
    #[must_use]
    pub fn vin(&self) -> VinReading {
        let readings = self.ecus().into_iter().filter_map(|ecu| {
            let payloads = self.payloads(&ecu, Request::vehicle_info(0x02));
            (!payloads.is_empty())
                .then(|| VinReading::from_info(&obd::info_bytes(&payloads, self.protocol.is_can())))
        });
        readings.fold(self.groups.vin(), |best, reading| match (&best, &reading) {
            (VinReading::Read(_), _) | (_, VinReading::Missing) => best,
            _ => reading,
        })
    }
}
