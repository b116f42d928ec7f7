//! Monitor tests and in-use ratios of a record, by ECU. The payloads are in the record
//! as the car sent them; what their bytes mean is read in `monitor_test` and `in_use_ratio`.

use super::record::{ScanRecord, Told};
use crate::event::vehicle::MonitorTest;
use crate::protocols::Bundle;
use crate::vehicle::gate::Request;
use crate::vehicle::in_use_ratio;
use crate::vehicle::monitor_test::{MonitorResults, older_bus_result, oxygen_sensor_result};
use crate::vehicle::obd::info_bytes;
use crate::vehicle::protocol::EcuAddress;

/// Results of the on-board monitors of an ECU: service 06, and 05 on older buses. A monitor
/// that has not run has no result.
pub(super) fn tests(record: &ScanRecord, ecu: &EcuAddress, bundle: &Bundle) -> Vec<MonitorTest> {
    let is_can = record.protocol.is_can();
    let results = |told: &Told| match told.request.service() {
        0x06 if is_can => MonitorResults::from_can(&told.payload, bundle).tests,
        0x06 => older_bus_result(&told.payload).into_iter().collect(),
        0x05 => oxygen_sensor_result(&told.payload, bundle).into_iter().collect(),
        _ => Vec::new(),
    };
    record.told.iter().filter(|told| told.ecu == *ecu).flat_map(results).collect()
}

/// In-use performance ratios of an ECU: 09 08 for spark, 09 0B for compression ignition.
pub(super) fn in_use_ratios(
    record: &ScanRecord,
    ecu: &EcuAddress,
    bundle: &Bundle,
) -> Vec<serde_json::Value> {
    let of = |info: u8| {
        let payloads = record.payloads(ecu, Request::vehicle_info(info));
        let items = info_bytes(&payloads, record.protocol.is_can());
        in_use_ratio::in_use_ratios(info, &items, &bundle.in_use_ratios)
    };
    [0x08, 0x0B].into_iter().flat_map(of).collect()
}
