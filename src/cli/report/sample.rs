//! A report with something of everything, for tests of what people see.

use serde_json::json;

use crate::clock::UtcMillis;
use crate::event::Text;
use crate::event::maintenance::{Confidence, Evidence, MaintenanceWarning, Severity};
use crate::event::vehicle::{
    Adapter, DtcEntry, DtcState, EcuReport, FreezeFrame, Inspection, MonitorTest, PidValue, Powertrain,
    Readiness, RequestError, VehicleReport, VinCheck,
};

pub fn value(pid: &str, name: &str, value: serde_json::Value, unit: &str) -> PidValue {
    PidValue { pid: pid.into(), name: name.into(), value, unit: unit.into() }
}

pub fn report() -> VehicleReport {
    let test = |name: &str, value: f64, passed: bool| MonitorTest {
        mid: "F0".into(),
        tid: "FE".into(),
        name: name.into(),
        value,
        min: 0.0,
        max: 0.65,
        unit: "V".into(),
        passed,
    };
    let dtc = |code: &str, state: &[DtcState], text: Option<Text>| DtcEntry {
        code: code.into(),
        state: state.to_vec(),
        source: "obd".into(),
        status_raw: None,
        failure_type: None,
        extended_data: None,
        text,
    };
    let engine = EcuReport {
        address: "7E8".into(),
        name: Some("ECM".into()),
        mil: Some(true),
        dtc_count: Some(1),
        dtcs: vec![
            dtc("P0301", &[DtcState::Pending], None),
            dtc(
                "P0420",
                &[DtcState::Confirmed, DtcState::Permanent],
                Some(Text::new("催化器效率低", "Catalyst efficiency low")),
            ),
        ],
        freeze_frames: vec![FreezeFrame {
            code: "P0420".into(),
            values: vec![value("020C", "engine_speed", json!(2400.0), "rpm")],
        }],
        readiness: [
            ("catalyst".to_owned(), Readiness::Incomplete),
            ("misfire".to_owned(), Readiness::Complete),
            ("evap".to_owned(), Readiness::Unsupported),
        ]
        .into(),
        values: vec![
            value("010C", "engine_speed", json!(812.5), "rpm"),
            value("0105", "coolant_temperature", json!(88.0), "degC"),
            // In Chinese of fewer characters than the others.
            value("010D", "vehicle_speed", json!(57.0), "km/h"),
        ],
        monitor_tests: vec![test("Heated catalyst", 0.42, true), test("Catalyst B1", 0.7, false)],
        iupr: vec![
            json!({"monitor": "general", "ignition_cycles": 3337, "conditions": 1024}),
            json!({"monitor": "catalyst", "bank": 1, "completed": 824, "conditions": 945, "ratio": 0.871958}),
        ],
        calibration_ids: vec!["37805-5AA-C710".into()],
        cvns: vec!["17F2A0B1".into()],
        identification: Default::default(),
        readiness_this_cycle: Default::default(),
        controls: Vec::new(),
        supported_codes: None,
        readiness_groups: Default::default(),
    };
    VehicleReport {
        visit: uuid::Uuid::nil(),
        vin: None,
        vin_check: VinCheck::Missing,
        vin_source: None,
        order: Some("RO-20261121-7".into()),
        link: "bay-1".parse().unwrap(),
        adapter: Adapter { identity: "ELM327 v1.5".into(), firmware: None, voltage_v: Some(12.6) },
        protocol: "iso15765-4-11bit-500k".into(),
        powertrain: Powertrain::Ice,
        engine_running: Some(true),
        started_at: UtcMillis(1_795_000_000_000),
        duration_ms: 2140,
        ecus: vec![engine],
        odometer_km: Some(48_210.3),
        odometer_source: Some("obd".into()),
        distance_since_clear_km: Some(812),
        warmups_since_clear: Some(14),
        time_since_clear_min: None,
        assessable: false,
        not_assessable_because: vec!["monitor-incomplete:catalyst".into()],
        inspection: Inspection {
            ready: false,
            blocking: vec!["mil-on".into(), "dtc-confirmed".into()],
            notes: vec!["monitor-incomplete:catalyst".into()],
        },
        errors: vec![RequestError { request: "010D".into(), error: "no data".into() }],
        store_facts: Default::default(),
    }
}

pub fn warnings() -> Vec<MaintenanceWarning> {
    let warning = |rule: &str, severity: Severity, title: Text| MaintenanceWarning {
        visit: uuid::Uuid::nil(),
        vin: None,
        order: None,
        link: "bay-1".parse().unwrap(),
        warning_id: uuid::Uuid::nil(),
        rule: rule.into(),
        rule_version: 1,
        severity,
        title,
        advice: Text::new("请检查", "Check it"),
        evidence: vec![Evidence {
            name: "voltage".into(),
            value: json!(11.9),
            unit: Some("V".into()),
            limit: Some(json!(12.2)),
            time: UtcMillis(0),
        }],
        confidence: Confidence::Measured,
        parts: None,
        first_seen: UtcMillis(0),
    };
    vec![
        warning("info", Severity::Info, Text::new("保养将到期", "Service is due")),
        warning("battery", Severity::Soon, Text::new("电瓶电压低", "The battery is low")),
    ]
}
