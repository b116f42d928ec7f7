//! Any payload as the answer of every service, by the shipped tables.
#![no_main]

use std::path::Path;
use std::sync::LazyLock;

use baygate::protocols::Bundle;
use baygate::vehicle::{decode_pid, obd};
use libfuzzer_sys::fuzz_target;

static BUNDLE: LazyLock<Bundle> = LazyLock::new(|| {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../firmware-protocols");
    Bundle::load(&folder).expect("the shipped tables are right")
});

fuzz_target!(|data: &[u8]| {
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
