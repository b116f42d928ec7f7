//! Cars that are silent to J1979 and answer UDS: found, read and visited. And what UDS adds to
//! a car that answers both.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod vehicle_bay;

use std::time::Duration;

use baygate::config::tables::Poll;
use baygate::event::vehicle::{DtcState, Readiness, VehicleReport};
use baygate::sim::vehicle::{Adapter as SimAdapter, CarSpec, Engine, Profile, VehicleSim};
use baygate::vehicle::adapter::Adapter;
use baygate::vehicle::{report, scan, uds};
use uuid::Uuid;
use vehicle_bay::{Bay, bundle, open_store};

const VIN: &str = "1M8GDM9AXKP042788";

async fn sim(car: CarSpec) -> (VehicleSim, String) {
    let profile = Profile { adapter: SimAdapter::default(), car: Some(car) };
    let sim = VehicleSim::spawn_tcp("127.0.0.1:0".parse().unwrap(), profile).await.unwrap();
    let link = format!("elm327+tcp://{}", sim.addr().unwrap());
    (sim, link)
}

async fn scanned(car: CarSpec) -> Result<VehicleReport, scan::ScanError> {
    let (_sim, link) = sim(car).await;
    let bundle = bundle();
    let mut adapter = Adapter::open(&link.parse().unwrap(), &bundle, None, None).await.unwrap();
    let record = scan::run(&mut adapter, &bundle, Uuid::nil(), "bay-1".parse().unwrap(), &mut |_| {}).await?;
    Ok(report::build(&record, &bundle))
}

fn battery_car() -> CarSpec {
    CarSpec {
        obd: false,
        units: 1,
        confirmed: vec!["P0A9B".parse().unwrap()],
        pending: vec!["U0100".parse().unwrap()],
        failure_type: 0x17,
        ..CarSpec::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_battery_car_is_reported() {
    for protocol in [6, 7] {
        let report = scanned(CarSpec { protocol, ..battery_car() }).await.unwrap();
        assert_eq!(report.vin.as_ref().unwrap().as_str(), VIN);
        let unit = &report.ecus[0];
        assert_eq!(unit.name.as_deref(), Some("ECM"));
        assert_eq!(unit.identification["hardware_number"], "HW02");
        assert_eq!(unit.identification["part_number"], "37805-5AA-C710");
        let codes: Vec<_> =
            unit.dtcs.iter().map(|c| (c.code.as_str(), c.failure_type.as_deref(), &c.state[..])).collect();
        use DtcState::{Confirmed, Pending};
        assert_eq!(
            codes,
            [("P0A9B", Some("17"), &[Confirmed, Pending][..]), ("U0100", Some("17"), &[Pending][..]),]
        );
        assert_eq!(report.engine_running, None);
        assert!(report.not_assessable_because.contains(&"readiness-unknown".into()));
        assert!(!report.not_assessable_because.contains(&"codes-unknown".into()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_car_of_j1979_2_gives_the_whole_report() {
    let car = CarSpec {
        obd: false,
        j1979_2: true,
        units: 1,
        incomplete: 0x01,
        confirmed: vec!["P0420".parse().unwrap()],
        permanent: vec!["P0430".parse().unwrap()],
        ..CarSpec::default()
    };
    let report = scanned(car).await.unwrap();
    let unit = &report.ecus[0];
    let code = |wanted: &str| unit.dtcs.iter().find(|code| code.code == wanted).unwrap();
    assert!(code("P0420").state.contains(&DtcState::Confirmed));
    assert_eq!(code("P0430").state, [DtcState::Permanent]);
    assert_eq!((unit.mil, unit.dtc_count), (Some(true), Some(1)));
    assert_eq!(unit.readiness["catalyst"], Readiness::Incomplete);
    assert_eq!(report.engine_running, Some(true));
    assert!(unit.values.iter().any(|value| value.pid == "010C"), "{:?}", unit.values);
    assert_eq!(unit.cvns, ["1791BC82"]);
    assert_eq!(unit.calibration_ids, ["37805-5AA-C710"]);
    assert_eq!(report.vin.unwrap().as_str(), VIN);
    let frame = unit.freeze_frames.iter().find(|frame| frame.code == "P0420").unwrap();
    let rpm = frame.values.iter().find(|value| value.pid == "020C").unwrap();
    assert_eq!(rpm.value.as_f64(), Some(2400.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sleeping_car_is_not_kept_awake() {
    let (sim, link) = sim(CarSpec { engine: Engine::Off, ..battery_car() }).await;
    let bundle = bundle();
    let mut adapter = Adapter::open(&link.parse().unwrap(), &bundle, None, None).await.unwrap();
    assert!(matches!(scan::contact(&mut adapter).await.unwrap(), scan::Contact::Silent(_)));
    assert!(uds::find::units(&mut adapter, Duration::from_secs(60)).await.unwrap().is_empty());
    // The bus took nothing, so nobody heard anything; and it was not tried eighteen times.
    assert_eq!(sim.requests(), Vec::<Vec<u8>>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_battery_car_arrives_and_departs() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_store(dir.path());
    let (sim, link) = sim(battery_car()).await;
    let bay = Bay::start(&store, "bay-1", &link, Poll::Auto);
    assert_eq!(bay.nth("vehicle.arrived", 1).await["vin"], VIN);
    let report = bay.nth("vehicle.report", 1).await;
    assert_eq!(report["ecus"][0]["dtcs"][0]["source"], "uds");
    sim.ignition(false);
    bay.nth("vehicle.departed", 1).await;
    bay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn uds_adds_to_a_car_that_answers_j1979() {
    let car = CarSpec { confirmed: vec!["P0420".parse().unwrap()], failure_type: 0x11, ..CarSpec::default() };
    let (sim, link) = sim(car).await;
    let bundle = bundle();
    let mut adapter = Adapter::open(&link.parse().unwrap(), &bundle, None, None).await.unwrap();
    let mut record =
        scan::run(&mut adapter, &bundle, Uuid::nil(), "bay-1".parse().unwrap(), &mut |_| {}).await.unwrap();
    let known = record.ecus();
    let heard = uds::read::enhance(&mut adapter, &bundle, &known, uds::read::ENHANCE_BUDGET).await.unwrap();
    record.told.extend(heard.told);
    record.errors.extend(heard.errors);
    let report = report::build(&record, &bundle);
    let codes: Vec<_> = report.ecus[0]
        .dtcs
        .iter()
        .map(|c| (c.code.as_str(), c.source.as_str(), c.failure_type.as_deref()))
        .collect();
    assert_eq!(codes, [("P0420", "obd", None), ("P0420", "uds", Some("11"))]);
    // No session, no key, nothing written.
    assert!(
        sim.requests().iter().all(|request| !matches!(request[0], 0x10 | 0x11 | 0x27 | 0x2E | 0x31 | 0x3E))
    );
}
