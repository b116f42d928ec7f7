//! Every adapter of the simulator's table, good, cloned and broken, and every
//! protocol: the same car gives the same report.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod vehicle_bay;

use baygate::event::vehicle::{DtcState, VehicleReport};
use baygate::sim::vehicle::{Adapter as SimAdapter, CarSpec, Profile, VehicleSim};
use baygate::vehicle::adapter::Adapter;
use baygate::vehicle::{AdapterError, report, scan};
use uuid::Uuid;
use vehicle_bay::bundle;

fn spec(protocol: u8) -> CarSpec {
    CarSpec {
        protocol,
        drift: false,
        confirmed: vec!["P0420".parse().unwrap(), "P0301".parse().unwrap(), "U0100".parse().unwrap()],
        pending: vec!["P0171".parse().unwrap()],
        ..CarSpec::default()
    }
}

async fn scan_once(link: &str) -> Result<VehicleReport, AdapterError> {
    let bundle = bundle();
    let mut adapter = Adapter::open(&link.parse().unwrap(), &bundle, None, None).await?;
    let scanned = scan::run(&mut adapter, &bundle, Uuid::nil(), "bay-1".parse().unwrap(), &mut |_| {}).await;
    match scanned {
        Ok(record) => Ok(report::build(&record, &bundle)),
        Err(scan::ScanError::Adapter(error)) => Err(error),
        Err(error) => panic!("{error}"),
    }
}

fn codes(report: &VehicleReport) -> Vec<(String, Vec<DtcState>)> {
    report.ecus[0].dtcs.iter().map(|dtc| (dtc.code.clone(), dtc.state.clone())).collect()
}

fn expected_codes() -> Vec<(String, Vec<DtcState>)> {
    [
        ("P0171", DtcState::Pending),
        ("P0301", DtcState::Confirmed),
        ("P0420", DtcState::Confirmed),
        ("U0100", DtcState::Confirmed),
    ]
    .map(|(code, state)| (code.to_owned(), vec![state]))
    .into()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_adapter_of_the_table() {
    let mut scans = Vec::new();
    for (name, adapter) in SimAdapter::all().unwrap() {
        scans.push(tokio::spawn(async move {
            let profile = Profile { adapter, car: Some(spec(6)) };
            let sim = VehicleSim::spawn_pty(profile, None).await.unwrap();
            // No baud: it is probed, and two of the adapters understand one rate only.
            let link = format!("elm327+serial://{}", sim.path().display());
            let begun = std::time::Instant::now();
            let report = scan_once(&link).await;
            (name, report, begun.elapsed())
        }));
    }
    for scan in scans {
        let (name, report, took) = scan.await.unwrap();
        let report = report.unwrap_or_else(|error| panic!("{name}: {error}"));
        println!("{name}: {took:.1?}, errors {:?}", report.errors);
        assert_eq!(codes(&report), expected_codes(), "{name}");
        assert_eq!(report.ecus.len(), 2, "{name}");
        assert!(report.ecus[0].values.len() > 10, "{name}: {}", report.ecus[0].values.len());
        assert_eq!(report.vin.as_ref().map(|vin| vin.as_str()), Some("1M8GDM9AXKP042788"), "{name}");
        // One dies for good on answers of many frames: what it lost is listed.
        let lost: Vec<&str> = report.errors.iter().map(|error| error.error.as_str()).collect();
        let expected: &[&str] = if name == "clone-freezes-long" { &["adapter-hung"] } else { &[] };
        assert_eq!(lost, expected, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_protocol() {
    let mut scans = Vec::new();
    for protocol in 1..=9 {
        scans.push(tokio::spawn(async move {
            let profile = Profile { adapter: SimAdapter::default(), car: Some(spec(protocol)) };
            let sim = VehicleSim::spawn_tcp("127.0.0.1:0".parse().unwrap(), profile).await.unwrap();
            (protocol, scan_once(&format!("elm327+tcp://{}", sim.addr().unwrap())).await.unwrap())
        }));
    }
    for scan in scans {
        let (protocol, report) = scan.await.unwrap();
        let name = [
            "j1850-pwm",
            "j1850-vpw",
            "iso9141-2",
            "iso14230-4-slow",
            "iso14230-4-fast",
            "iso15765-4-11bit-500k",
            "iso15765-4-29bit-500k",
            "iso15765-4-11bit-250k",
            "iso15765-4-29bit-250k",
        ][protocol as usize - 1];
        assert_eq!(report.protocol, name);
        assert_eq!(codes(&report), expected_codes(), "{name}");
        assert_eq!(report.vin.as_ref().map(|vin| vin.as_str()), Some("1M8GDM9AXKP042788"), "{name}");
        assert_eq!(report.ecus[0].freeze_frames.len(), 1, "{name}");
        let addresses: Vec<&str> = report.ecus.iter().map(|ecu| ecu.address.as_str()).collect();
        let expected = match protocol {
            6 | 8 => ["7E8", "7E9"],
            7 | 9 => ["18DAF110", "18DAF118"],
            _ => ["10", "18"],
        };
        assert_eq!(addresses, expected, "{name}");
        assert_eq!(report.ecus[0].calibration_ids, ["37805-5AA-C710"], "{name}");
        assert_eq!(report.ecus[0].name.as_deref(), Some("ECM"), "{name}");
    }
}
