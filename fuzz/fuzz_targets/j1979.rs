//! Any payload as the answer of every service, by the shipped tables.
#![no_main]

use std::path::Path;
use std::sync::LazyLock;

use baygate::protocols::Bundle;
use baygate::vehicle::in_use_ratio::in_use_ratios;
use baygate::vehicle::monitor_test::{MonitorResults, older_bus_result, oxygen_sensor_result};
use baygate::vehicle::parts::{self, Of};
use baygate::vehicle::{decode_pid, obd};
use libfuzzer_sys::fuzz_target;

static BUNDLE: LazyLock<Bundle> = LazyLock::new(|| {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../firmware-protocols");
    Bundle::load(&folder).expect("the shipped tables are right")
});

/// The bytes behind the answer's own service, and as they are: few inputs would begin with it.
fn of_service(service: u8, data: &[u8]) -> [Vec<u8>; 2] {
    [data.to_vec(), [&[service | 0x40], data].concat()]
}

fuzz_target!(|data: &[u8]| {
    for payload in of_service(0x05, data) {
        let _ = oxygen_sensor_result(&payload, &BUNDLE);
    }
    for payload in of_service(0x06, data) {
        let results = MonitorResults::from_can(&payload, &BUNDLE);
        // Monitor, test, scaling and three values of two bytes.
        assert!(results.tests.len() + results.not_run.len() <= payload.len() / 9);
        let _ = older_bus_result(&payload);
    }
    for info in [0x08, 0x0B] {
        let counters = in_use_ratios(info, data, &BUNDLE.in_use_ratios);
        assert!(counters.len() <= data.len() / 4);
    }
    // What was asked for comes from the input as well, six PIDs at most.
    let (asked, answer) = data.split_at(data.len().min(6));
    for of in [Of::Current, Of::FreezeFrame(0)] {
        let service = if of == Of::Current { 0x01 } else { 0x02 };
        for payload in of_service(service, answer) {
            let parts = parts::split(of, &payload, asked, &BUNDLE.pids);
            assert!(parts.iter().all(|(pid, _)| asked.contains(pid)));
            assert!(parts.iter().map(|(_, data)| 1 + data.len()).sum::<usize>() < payload.len().max(1));
        }
    }
    for is_can in [true, false] {
        let _ = obd::dtcs(data, is_can);
        let info = obd::info_bytes(&[data, data], is_can);
        let _ = (obd::VinReading::from_info(&info), obd::calibration_ids(&info), obd::cvns(&info));
        let _ = obd::ecu_name(&info);
    }
    if let Some(mask) = obd::four_bytes(data, 0) {
        let _ = obd::supported(mask[0], mask);
        let _ = obd::MonitorStatus::read(mask, &BUNDLE.readiness);
    }
    for row in BUNDLE.pids.iter() {
        let _ = decode_pid(row, data);
    }
});
