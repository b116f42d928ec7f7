//! Reports for the maintenance tests.
#![allow(dead_code, clippy::unwrap_used)] // each test file uses its part

use baygate::clock::UtcMillis;
use baygate::event::vehicle::{
    Adapter, DtcEntry, DtcState, EcuReport, Inspection, PidValue, Powertrain, VehicleReport, VinCheck,
};

pub const VIN: &str = "LSVAG2186E2100001";

/// A healthy car with its engine running and one ECU.
pub fn report() -> VehicleReport {
    VehicleReport {
        visit: uuid::Uuid::now_v7(),
        vin: Some(VIN.parse().unwrap()),
        vin_check: VinCheck::Ok,
        vin_source: None,
        order: None,
        link: "bay-1".parse().unwrap(),
        adapter: Adapter { identity: "ELM327 v1.5".into(), firmware: None, voltage_v: Some(14.1) },
        protocol: "iso15765-4-11bit-500k".into(),
        powertrain: Powertrain::Ice,
        engine_running: Some(true),
        started_at: UtcMillis(0),
        duration_ms: 2_000,
        ecus: vec![EcuReport {
            address: "7E8".into(),
            name: None,
            mil: Some(false),
            dtc_count: Some(0),
            dtcs: Vec::new(),
            freeze_frames: Vec::new(),
            readiness: Default::default(),
            values: Vec::new(),
            monitor_tests: Vec::new(),
            iupr: Vec::new(),
            calibration_ids: Vec::new(),
            cvns: Vec::new(),
            identification: Default::default(),
            readiness_this_cycle: Default::default(),
            controls: Vec::new(),
            supported_codes: None,
            readiness_groups: Default::default(),
        }],
        odometer_km: None,
        odometer_source: None,
        distance_since_clear_km: Some(812),
        warmups_since_clear: Some(14),
        time_since_clear_min: Some(5_210),
        assessable: true,
        not_assessable_because: Vec::new(),
        inspection: Inspection { ready: true, blocking: Vec::new(), notes: Vec::new() },
        errors: Vec::new(),
        store_facts: Default::default(),
    }
}

pub fn dtc(code: &str, state: &[DtcState]) -> DtcEntry {
    DtcEntry {
        code: code.into(),
        state: state.to_vec(),
        source: "obd".into(),
        status_raw: None,
        failure_type: None,
        extended_data: None,
        text: None,
    }
}

pub fn value(name: &str, value: impl Into<serde_json::Value>) -> PidValue {
    PidValue { pid: "0100".into(), name: name.into(), value: value.into(), unit: String::new() }
}
