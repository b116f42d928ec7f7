//! What a scan heard to the report of contract §5. Pure. A value that the car
//! did not give is absent, never zero; a car with codes cleared recently or
//! monitors incomplete is never called assessable.

use std::collections::{BTreeMap, BTreeSet};

use uuid::Uuid;

use super::gate::Request;
use super::obd::{self, MonitorStatus, VinReading};
use super::pids::decode_pid;
use super::protocol::{EcuAddress, Protocol};
use super::uds;
use crate::clock::UtcMillis;
use crate::event::vehicle::{
    Adapter, DtcEntry, DtcState, EcuReport, FreezeFrame, Inspection, PidValue, Powertrain, Readiness,
    RequestError, VehicleReport,
};
use crate::ident::DeviceId;
use crate::protocols::Bundle;

/// Below these since the last clearing the monitors have had no fair chance. Warm-ups:
/// a confirmed code needs two drive cycles to come back; distance and time: the
/// shortest published drive cycles (makers' manuals) take about this much.
const FEW_WARMUPS: f64 = 3.0;
const FEW_KILOMETRES: f64 = 50.0;
const FEW_MINUTES: f64 = 60.0;
/// No engine idles slower; a starter turns it at 150 to 300 rpm.
const RUNNING_RPM: f64 = 400.0;
/// Largest `data` of an event: the envelope around it takes below 1 KiB of the 64.
const MAX_REPORT_BYTES: usize = 62 * 1024;

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
    /// Requests without a usable answer.
    pub errors: Vec<RequestError>,
}

impl ScanRecord {
    /// The payloads one ECU gave to a request.
    fn payloads(&self, ecu: &EcuAddress, request: Request) -> Vec<&[u8]> {
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

    /// Freeze-frame PIDs an ECU promises.
    #[must_use]
    pub fn supported_in_freeze_frame(&self, ecu: &EcuAddress) -> BTreeSet<u8> {
        self.masks(ecu, 3, |base| Request::freeze_frame(base, 0))
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

    /// The code an ECU's freeze frame was stored for.
    #[must_use]
    pub fn freeze_frame_code(&self, ecu: &EcuAddress) -> Option<String> {
        let payloads = self.payloads(ecu, Request::freeze_frame(0x02, 0));
        let pair = payloads.first()?.get(3..5)?;
        let pair: [u8; 2] = pair.try_into().ok()?;
        (pair != [0, 0]).then(|| obd::dtc_text(pair))
    }

    /// The VIN: of the first ECU, by address, that gives a good one.
    #[must_use]
    pub fn vin(&self) -> VinReading {
        let readings = self.ecus().into_iter().filter_map(|ecu| {
            let payloads = self.payloads(&ecu, Request::vehicle_info(0x02));
            (!payloads.is_empty())
                .then(|| VinReading::from_info(&obd::info_bytes(&payloads, self.protocol.is_can())))
        });
        readings.fold(VinReading::Missing, |best, reading| match (&best, &reading) {
            (VinReading::Read(_), _) | (_, VinReading::Missing) => best,
            _ => reading,
        })
    }
}

/// Makes the report.
#[must_use]
pub fn build(record: &ScanRecord, bundle: &Bundle) -> VehicleReport {
    let ecus: Vec<EcuReport> = record.ecus().iter().map(|ecu| ecu_report(record, ecu, bundle)).collect();
    let vin = record.vin();
    let number = |pid: &str| first_number(&ecus, pid);
    let (distance, warmups, time) = (number("0131"), number("0130"), number("014E"));
    let not_assessable_because = reasons_against(record, &ecus, distance, warmups, time);
    let odometer_km = number("01A6");
    let mut report = VehicleReport {
        visit: record.visit,
        vin: vin.vin().cloned(),
        vin_check: vin.check(),
        order: None,
        link: record.link.clone(),
        adapter: record.adapter.clone(),
        protocol: record.protocol.name().into(),
        powertrain: powertrain(record),
        engine_running: number("010C").map(|rpm| rpm >= RUNNING_RPM),
        started_at: record.started_at,
        duration_ms: record.duration_ms,
        odometer_km,
        odometer_source: odometer_km.map(|_| "obd".into()),
        distance_since_clear_km: distance.map(whole),
        warmups_since_clear: warmups.map(whole),
        time_since_clear_min: time.map(whole),
        assessable: not_assessable_because.is_empty(),
        not_assessable_because,
        inspection: inspection(&ecus),
        ecus,
        errors: record.errors.clone(),
    };
    fit(&mut report);
    report
}

fn ecu_report(record: &ScanRecord, ecu: &EcuAddress, bundle: &Bundle) -> EcuReport {
    let is_can = record.protocol.is_can();
    let info = |id: u8| obd::info_bytes(&record.payloads(ecu, Request::vehicle_info(id)), is_can);
    let monitors = record
        .payloads(ecu, Request::current(0x01))
        .first()
        .and_then(|payload| obd::four_bytes(payload, 2))
        .map(|data| MonitorStatus::read(data, &bundle.readiness));
    EcuReport {
        address: ecu.to_string(),
        name: obd::ecu_name(&info(0x0A)).or_else(|| name_by_address(&ecu.0)),
        mil: monitors.as_ref().map(|status| status.mil),
        dtc_count: monitors.as_ref().map(|status| status.dtc_count),
        dtcs: [codes(record, ecu, bundle), uds::report::codes(&record.told, ecu, bundle)].concat(),
        freeze_frames: [
            freeze_frames(record, ecu, bundle),
            uds::report::snapshots(&record.told, ecu, bundle),
        ]
        .concat(),
        readiness: monitors.map(|status| status.readiness).unwrap_or_default(),
        values: values(record, ecu, 0x01, 2, bundle),
        monitor_tests: Vec::new(),
        iupr: Vec::new(),
        calibration_ids: obd::calibration_ids(&info(0x04)),
        cvns: obd::cvns(&info(0x06)),
        identification: uds::report::identification(&record.told, ecu),
    }
}

/// ISO 15765-4 assigns the first two addresses; older buses use SAE J2178-1's engine address.
fn name_by_address(address: &str) -> Option<String> {
    let name = match address {
        "7E8" | "18DAF110" | "10" => "ECM",
        "7E9" | "18DAF118" | "18" => "TCM",
        _ => return None,
    };
    Some(name.into())
}

fn codes(record: &ScanRecord, ecu: &EcuAddress, bundle: &Bundle) -> Vec<DtcEntry> {
    let lists = [
        (DtcState::Confirmed, Request::confirmed_codes()),
        (DtcState::Pending, Request::pending_codes()),
        (DtcState::Permanent, Request::permanent_codes()),
    ];
    let mut states: BTreeMap<String, BTreeSet<DtcState>> = BTreeMap::new();
    for (state, request) in lists {
        for payload in record.payloads(ecu, request) {
            for code in obd::dtcs(payload, record.protocol.is_can()) {
                states.entry(code).or_default().insert(state);
            }
        }
    }
    states
        .into_iter()
        .map(|(code, state)| DtcEntry {
            text: bundle.dtc_text(&code).cloned(),
            code,
            state: state.into_iter().collect(),
            source: "obd".into(),
            status_raw: None,
            failure_type: None,
        })
        .collect()
}

fn freeze_frames(record: &ScanRecord, ecu: &EcuAddress, bundle: &Bundle) -> Vec<FreezeFrame> {
    let Some(code) = record.freeze_frame_code(ecu) else { return Vec::new() };
    // Behind the PID stands the frame's number.
    vec![FreezeFrame { code, values: values(record, ecu, 0x02, 3, bundle) }]
}

fn values(record: &ScanRecord, ecu: &EcuAddress, service: u8, skip: usize, bundle: &Bundle) -> Vec<PidValue> {
    let mut seen = BTreeSet::new();
    let told = record.told.iter().filter(|told| told.ecu == *ecu && told.request.service() == service);
    told.filter_map(|told| {
        let row = bundle.pids.get(service, told.request.id()?)?;
        // One value a PID: a second answer of the same ECU repeats the first.
        seen.insert(row.pid).then_some(())?;
        decode_pid(row, told.payload.get(skip..)?).ok()
    })
    .flatten()
    .map(|value| PidValue {
        pid: format!("{service:02X}{}", value.pid.get(2..).unwrap_or_default()),
        ..value
    })
    .collect()
}

fn first_number(ecus: &[EcuReport], pid: &str) -> Option<f64> {
    ecus.iter().flat_map(|ecu| &ecu.values).filter(|value| value.pid == pid).find_map(|v| v.value.as_f64())
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // counts of at most 16 bits
fn whole(value: f64) -> u32 {
    value.clamp(0.0, f64::from(u32::MAX)) as u32
}

/// By PID 51 (fuel type; SAE J1979-DA table of PID 51), else by what the engine's ECU measures.
fn powertrain(record: &ScanRecord) -> Powertrain {
    let fuel = record
        .told
        .iter()
        .find(|told| told.request == Request::current(0x51))
        .and_then(|told| told.payload.get(2).copied());
    let promised: BTreeSet<u8> = record.ecus().iter().flat_map(|ecu| record.supported(ecu)).collect();
    match fuel {
        Some(0x08) => Powertrain::Bev,
        Some(0x10..=0x16) => Powertrain::Hybrid,
        Some(0x01..=0x07 | 0x09..=0x0F | 0x17..=0x1D) => Powertrain::Ice,
        // 5B: hybrid or electric car's battery charge (SAE J1979-DA); 0C: engine speed.
        _ => match (promised.contains(&0x5B), promised.contains(&0x0C)) {
            (true, true) => Powertrain::Hybrid,
            (true, false) => Powertrain::Bev,
            (false, true) => Powertrain::Ice,
            (false, false) => Powertrain::Unknown,
        },
    }
}

fn incomplete(ecus: &[EcuReport]) -> BTreeSet<&str> {
    ecus.iter()
        .flat_map(|ecu| &ecu.readiness)
        .filter(|(_, state)| **state == Readiness::Incomplete)
        .map(|(name, _)| name.as_str())
        .collect()
}

fn reasons_against(
    record: &ScanRecord,
    ecus: &[EcuReport],
    distance: Option<f64>,
    warmups: Option<f64>,
    time: Option<f64>,
) -> Vec<String> {
    let mut reasons = Vec::new();
    let few = |value: Option<f64>, limit: f64| value.is_some_and(|value| value < limit);
    if few(warmups, FEW_WARMUPS) || few(distance, FEW_KILOMETRES) || few(time, FEW_MINUTES) {
        reasons.push("codes-cleared-recently".into());
    }
    reasons.extend(incomplete(ecus).into_iter().map(|name| format!("monitor-incomplete:{name}")));
    if ecus.iter().all(|ecu| ecu.readiness.is_empty()) {
        reasons.push("readiness-unknown".into());
    }
    if !record.told.iter().any(|told| matches!(told.request.service(), 0x03 | 0x19)) {
        reasons.push("codes-unknown".into());
    }
    reasons
}

fn inspection(ecus: &[EcuReport]) -> Inspection {
    let mut blocking = Vec::new();
    if ecus.iter().any(|ecu| ecu.mil == Some(true)) {
        blocking.push("mil-on".to_owned());
    }
    let stands = |state| ecus.iter().flat_map(|ecu| &ecu.dtcs).any(|dtc| dtc.state.contains(&state));
    if stands(DtcState::Confirmed) {
        blocking.push("dtc-confirmed".into());
    }
    if stands(DtcState::Permanent) {
        blocking.push("dtc-permanent".into());
    }
    blocking.extend(incomplete(ecus).into_iter().map(|name| format!("monitor-incomplete:{name}")));
    if ecus.iter().all(|ecu| ecu.readiness.is_empty()) {
        blocking.push("readiness-unknown".into());
    }
    Inspection { ready: blocking.is_empty(), blocking }
}

/// Keeps the report within an event: the least needed goes first, and it is said.
fn fit(report: &mut VehicleReport) {
    let too_large =
        |report: &VehicleReport| serde_json::to_vec(report).is_ok_and(|json| json.len() > MAX_REPORT_BYTES);
    type Cut = (&'static str, fn(&mut EcuReport));
    let cuts: [Cut; 4] = [
        ("freeze frames", |ecu| ecu.freeze_frames.clear()),
        ("texts of codes", |ecu| ecu.dtcs.iter_mut().for_each(|dtc| dtc.text = None)),
        ("values", |ecu| ecu.values.clear()),
        ("codes beyond 50 of an ECU", |ecu| ecu.dtcs.truncate(50)),
    ];
    for (what, cut) in cuts {
        if !too_large(report) {
            return;
        }
        report.ecus.iter_mut().for_each(cut);
        report
            .errors
            .push(RequestError { request: "report".into(), error: format!("too large: left out {what}") });
    }
}

#[cfg(test)]
mod tests;
