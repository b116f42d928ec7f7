//! Where the decoders of monitor tests and in-use ratios plug into the report. The
//! payloads are in the record as the car sent them (`46 MID …`, `49 08 …`, `49 0B …`,
//! on older buses `45 TID …` and `46 TID …`); without a decoder the report has none.

use super::record::{ScanRecord, Told};
use crate::event::vehicle::MonitorTest;
use crate::vehicle::protocol::EcuAddress;

/// Results of the on-board monitors of an ECU (services 06, and 05 on older buses).
pub(super) fn tests(record: &ScanRecord, ecu: &EcuAddress) -> Vec<MonitorTest> {
    let is_result = |told: &&Told| {
        told.ecu == *ecu
            && matches!(told.request.service(), 0x05 | 0x06)
            && told.request.id().is_some_and(|id| id % 0x20 != 0)
    };
    record.told.iter().filter(is_result).flat_map(|told| test_results(&told.payload)).collect()
}

/// In-use performance ratios of an ECU (09 08 for spark, 09 0B for compression ignition).
pub(super) fn in_use_ratios(record: &ScanRecord, ecu: &EcuAddress) -> Vec<serde_json::Value> {
    let is_ratio = |told: &&Told| {
        told.ecu == *ecu && told.request.service() == 0x09 && matches!(told.request.id(), Some(0x08 | 0x0B))
    };
    record.told.iter().filter(is_ratio).flat_map(|told| ratios(&told.payload)).collect()
}

/// The decoder of service 06 payloads goes here.
fn test_results(_payload: &[u8]) -> Vec<MonitorTest> {
    Vec::new()
}

/// The decoder of in-use ratios goes here.
fn ratios(_payload: &[u8]) -> Vec<serde_json::Value> {
    Vec::new()
}
