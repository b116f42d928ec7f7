//! What a scan heard to the report of contract §5. Pure. A value that the car
//! did not give is absent, never zero. What a scan heard is kept in [`record`];
//! what the report means for the annual check is said in `inspection`.

use std::collections::{BTreeMap, BTreeSet};

mod fit;
mod monitors;
mod record;

pub(super) use fit::{add_errors, fit};
pub use record::{INFO_ASKED, NO_INFO, NO_PID, ScanRecord, Told, is_info_unknown, left_out};

use super::dtc_words::dtc_words;
use super::gate::Request;
use super::inspection::{self, SinceClear};
use super::obd::{self, MonitorStatus};
use super::pids::{Maxima, decode_pid, decode_pid_within};
use super::powertrain::{self, Evidence};
use super::protocol::EcuAddress;
use super::uds;
use crate::event::vehicle::{
    DtcEntry, DtcState, EcuReport, FreezeFrame, PidValue, Powertrain, Readiness, RequestError, StoreFacts,
    VehicleReport, VinSource,
};
use crate::protocols::Bundle;

/// Makes the report.
#[must_use]
pub fn build(record: &ScanRecord, bundle: &Bundle) -> VehicleReport {
    let mut ecus: Vec<EcuReport> = record.ecus().iter().map(|ecu| ecu_report(record, ecu, bundle)).collect();
    ecus.extend(record.groups.ecus(bundle));
    let vin = record.vin();
    let number = |pid: &str| first_number(&ecus, pid);
    let (distance, warmups, time) = (number("0131"), number("0130"), number("014E"));
    let since = SinceClear { distance_km: distance, warmups, time_min: time };
    let not_assessable_because = inspection::reasons_against(record, &ecus, since);
    let powertrain = powertrain(record);
    let odometer_km = number("01A6");
    let mut report = VehicleReport {
        visit: record.visit,
        vin: vin.vin().cloned(),
        vin_check: vin.check(),
        vin_source: vin.vin().map(|_| VinSource::Scan),
        order: None,
        link: record.link.clone(),
        adapter: record.adapter.clone(),
        protocol: record.protocol.name().into(),
        powertrain,
        engine_running: powertrain::engine_running(powertrain, number("010C")),
        started_at: record.started_at,
        duration_ms: record.duration_ms,
        odometer_km,
        odometer_source: odometer_km.map(|_| "obd".into()),
        distance_since_clear_km: distance.map(whole),
        warmups_since_clear: warmups.map(whole),
        time_since_clear_min: time.map(whole),
        assessable: not_assessable_because.is_empty(),
        not_assessable_because,
        inspection: inspection::foresee(record, &ecus, powertrain, since),
        ecus,
        errors: [too_short(record, bundle), record.errors.clone()].concat(),
        store_facts: StoreFacts::default(),
    };
    report.errors.extend(record.broke_off.as_deref().map(fit::why_it_broke_off));
    fit(&mut report);
    report
}

fn ecu_report(record: &ScanRecord, ecu: &EcuAddress, bundle: &Bundle) -> EcuReport {
    let is_can = record.protocol.is_can();
    let vin = record.vin();
    let brand = vin.vin().and_then(|vin| bundle.vin.maker(vin)).map(|maker| maker.brand.as_str());
    let info = |id: u8| obd::info_bytes(&record.payloads(ecu, Request::vehicle_info(id)), is_can);
    let monitors = record
        .payloads(ecu, Request::current(0x01))
        .first()
        .and_then(|payload| obd::four_bytes(payload, 2))
        .map(|data| MonitorStatus::read(data, &bundle.readiness));
    let frames = freeze_frames(record, ecu, bundle);
    let maxima = maxima(record, ecu, bundle);
    let mut snapshots = uds::report::snapshots(&record.told, ecu, &maxima, bundle);
    snapshots.retain(|snapshot| frames.iter().all(|frame| frame.code != snapshot.code));
    EcuReport {
        address: ecu.to_string(),
        name: obd::ecu_name(&info(0x0A)).or_else(|| name_by_address(&ecu.0)),
        mil: monitors.as_ref().map(|status| status.mil),
        dtc_count: monitors.as_ref().map(|status| status.dtc_count),
        dtcs: uds::report::join(
            codes(record, ecu, brand, bundle),
            uds::report::codes(&record.told, ecu, brand, bundle),
        ),
        freeze_frames: [frames, snapshots].concat(),
        readiness: monitors.map(|status| status.readiness).unwrap_or_default(),
        readiness_this_cycle: this_cycle(record, ecu, bundle),
        values: values(record, ecu, 0x01, 2, &|_| true, bundle),
        monitor_tests: monitors::tests(record, ecu, bundle),
        iupr: monitors::in_use_ratios(record, ecu, bundle),
        calibration_ids: obd::calibration_ids(&info(0x04)),
        cvns: obd::cvns(&info(0x06)),
        identification: uds::report::identification(&record.told, ecu),
        controls: record
            .supported_controls(ecu)
            .into_iter()
            .filter(|id| !id.is_multiple_of(0x20))
            .map(|id| format!("{id:02X}"))
            .collect(),
        supported_codes: uds::report::supported(&record.told, ecu),
        readiness_groups: uds::report::readiness_groups(&record.told, ecu),
    }
}

/// PID 41.
fn this_cycle(record: &ScanRecord, ecu: &EcuAddress, bundle: &Bundle) -> BTreeMap<String, Readiness> {
    let payloads = record.payloads(ecu, Request::current(0x41));
    let data = payloads.first().and_then(|payload| obd::four_bytes(payload, 2));
    data.map(|data| obd::drive_cycle_readiness(data, &bundle.readiness)).unwrap_or_default()
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

fn codes(record: &ScanRecord, ecu: &EcuAddress, brand: Option<&str>, bundle: &Bundle) -> Vec<DtcEntry> {
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
            text: dtc_words(bundle, brand, &code),
            code,
            state: state.into_iter().collect(),
            source: "obd".into(),
            status_raw: None,
            failure_type: None,
            extended_data: None,
        })
        .collect()
}

fn freeze_frames(record: &ScanRecord, ecu: &EcuAddress, bundle: &Bundle) -> Vec<FreezeFrame> {
    let frames = record.freeze_frames(ecu).into_iter();
    let one = |(frame, code)| {
        // Behind the PID stands the frame's number.
        let of_it = |told: &Told| told.request.parameters().get(1) == Some(&frame);
        FreezeFrame { code, values: values(record, ecu, 0x02, 3, &of_it, bundle) }
    };
    frames.map(one).collect()
}

fn values(
    record: &ScanRecord,
    ecu: &EcuAddress,
    service: u8,
    skip: usize,
    wanted: &dyn Fn(&Told) -> bool,
    bundle: &Bundle,
) -> Vec<PidValue> {
    let maxima = maxima(record, ecu, bundle);
    let mut seen = BTreeSet::new();
    let of_ecu = record.told.iter().filter(|told| told.ecu == *ecu && told.request.service() == service);
    // By number: they were asked as it suits the line.
    let mut told: Vec<&Told> = of_ecu.filter(|told| wanted(told)).collect();
    told.sort_by_key(|told| told.request.id());
    told.into_iter()
        .filter_map(|told| {
            let row = bundle.pids.shown(service, told.request.id()?)?;
            // One value a PID: a second answer of the same ECU repeats the first.
            seen.insert(row.pid).then_some(())?;
            decode_pid_within(row, told.payload.get(skip..)?, &maxima).ok()
        })
        .flatten()
        .map(|value| PidValue {
            pid: format!("{service:02X}{}", value.pid.get(2..).unwrap_or_default()),
            ..value
        })
        .collect()
}

/// Why an answer with fewer bytes than its row has gives no value.
pub(super) fn too_few(came: usize, bytes: usize) -> String {
    format!("answer too short ({came} of {bytes} bytes)")
}

/// PIDs answered with fewer bytes than their row has: they give no value, and are no silence either.
fn too_short(record: &ScanRecord, bundle: &Bundle) -> Vec<RequestError> {
    let mut errors: Vec<RequestError> = Vec::new();
    for told in &record.told {
        let service = told.request.service();
        let skip = match service {
            0x01 => 2,
            0x02 => 3,
            _ => continue,
        };
        let row = told.request.id().and_then(|pid| bundle.pids.get(service, pid));
        let Some(bytes) = row.and_then(|row| row.bytes) else { continue };
        let came = |payload: &[u8]| payload.len().saturating_sub(skip);
        if came(&told.payload) >= bytes {
            continue;
        }
        // Asked again it may have come whole.
        let whole =
            record.payloads(&told.ecu, told.request).into_iter().any(|payload| came(payload) >= bytes);
        let error = format!("{}: {}", told.ecu, too_few(came(&told.payload), bytes));
        let request = told.request.to_string();
        if !whole && !errors.iter().any(|known| known.request == request && known.error == error) {
            errors.push(RequestError { request, error });
        }
    }
    errors
}

/// The full scales this ECU gave in PIDs 4F and 50, for its other values.
fn maxima(record: &ScanRecord, ecu: &EcuAddress, bundle: &Bundle) -> Maxima {
    let of = |pid: u8| {
        let row = bundle.pids.get(0x01, pid)?;
        let payloads = record.payloads(ecu, Request::current(pid));
        decode_pid(row, payloads.first()?.get(2..)?).ok()
    };
    Maxima::of(&[0x4F, 0x50].into_iter().filter_map(of).flatten().collect::<Vec<_>>())
}

/// The first value of a PID (service and PID, four hex digits) that is a number.
pub(super) fn first_number(ecus: &[EcuReport], pid: &str) -> Option<f64> {
    ecus.iter().flat_map(|ecu| &ecu.values).filter(|value| value.pid == pid).find_map(|v| v.value.as_f64())
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // counts of at most 16 bits
fn whole(value: f64) -> u32 {
    value.clamp(0.0, f64::from(u32::MAX)) as u32
}

/// What drives the car, by PID 51 or identifier F451 and the PIDs promised.
#[must_use]
pub fn powertrain(record: &ScanRecord) -> Powertrain {
    let byte = |request: Request, at: usize| {
        record.told.iter().find(|told| told.request == request).and_then(|told| told.payload.get(at).copied())
    };
    let fuel = byte(Request::current(0x51), 2).or_else(|| byte(Request::data_by_identifier(0xF451), 3));
    let pids = record.ecus().iter().flat_map(|ecu| record.supported(ecu)).collect();
    powertrain::detect(&Evidence { fuel, pids })
}

#[cfg(test)]
mod tests;
