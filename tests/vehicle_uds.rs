//! Cars that are silent to J1979 and answer UDS: found, read and visited. And what UDS adds to
//! a car that answers both.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod vehicle_bay;

use std::sync::Arc;
use std::time::{Duration, Instant};

use baygate::config::tables::Poll;
use baygate::event::vehicle::{DtcEntry, DtcState, Readiness, VehicleReport};
use baygate::sim::vehicle::{Adapter as SimAdapter, CarSpec, Drive, Engine, MakersUnit, Profile, VehicleSim};
use baygate::vehicle::adapter::Adapter;
use baygate::vehicle::{report, scan, uds};
use serde_json::json;
use vehicle_bay::dongle::{Dongle, Script, good};
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
    scan_of(&link).await
}

async fn scan_of(link: &str) -> Result<VehicleReport, scan::ScanError> {
    let bundle = bundle();
    let mut adapter = Adapter::open(&link.parse().unwrap(), &bundle, None, None).await.unwrap();
    let record = vehicle_bay::scanned(&mut adapter, &bundle).await?;
    Ok(report::build(&record, &bundle))
}

fn battery_car() -> CarSpec {
    CarSpec {
        obd: false,
        units: 1,
        confirmed: vec!["P0A9B".parse().unwrap()],
        pending: vec!["P0A9B".parse().unwrap(), "U0100".parse().unwrap()],
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
    // 19 56: the catalyst's group, and misfire; it has no others.
    let groups: Vec<_> =
        unit.readiness_groups.iter().map(|(group, state)| (group.as_str(), *state)).collect();
    assert_eq!(groups, [("01", Readiness::Incomplete), ("02", Readiness::Complete)]);
    // F6xx: every result of every monitor, as service 06 would have given them.
    let results: Vec<_> = unit
        .monitor_tests
        .iter()
        .map(|test| (test.mid.as_str(), test.tid.as_str(), test.value, test.max, test.unit.as_str()))
        .collect();
    assert_eq!(
        results,
        [
            ("01", "01", 0.45018, 3.997574, "V"),
            ("01", "05", 72.0, 250.0, "ms"),
            ("21", "80", 0.19921875, 0.75, ""),
            ("3C", "80", 0.00366, 0.02745, ""),
            ("A1", "0B", 0.0, 65535.0, ""),
            ("A1", "0C", 0.0, 65535.0, ""),
            ("A2", "0C", 2.0, 150.0, ""),
            ("A3", "0C", 1.0, 150.0, ""),
            ("A4", "0C", 0.0, 150.0, ""),
            ("A5", "0C", 3.0, 150.0, ""),
        ]
    );
    assert!(unit.monitor_tests.iter().all(|test| test.passed));
    // F808: 16 counters, from 100 on by threes.
    let ratios: Vec<_> = unit.iupr.iter().map(|ratio| ratio["monitor"].as_str().unwrap()).collect();
    assert_eq!(
        ratios,
        [
            "general",
            "catalyst",
            "catalyst",
            "oxygen_sensor",
            "oxygen_sensor",
            "egr_vvt",
            "secondary_air",
            "evap"
        ]
    );
    assert_eq!(
        unit.iupr[1],
        json!({ "monitor": "catalyst", "bank": 1, "completed": 106, "conditions": 109, "ratio": 0.972477 })
    );
    let frame = unit.freeze_frames.iter().find(|frame| frame.code == "P0420").unwrap();
    let rpm = frame.values.iter().find(|value| value.pid == "020C").unwrap();
    assert_eq!(rpm.value.as_f64(), Some(2400.0));
}

/// Compression ignition counts other monitors (F80B), in a report of J1979-2 and in one of J1979.
#[tokio::test(flavor = "multi_thread")]
async fn a_diesel_gives_the_ratios_of_its_own_monitors() {
    for (obd, j1979_2) in [(false, true), (true, false)] {
        let car = CarSpec { obd, j1979_2, units: 1, drive: Drive::Diesel, ..CarSpec::default() };
        let report = scanned(car).await.unwrap();
        let unit = &report.ecus[0];
        let ratios: Vec<_> = unit.iupr.iter().map(|ratio| ratio["monitor"].as_str().unwrap()).collect();
        assert_eq!(
            ratios,
            [
                "general",
                "nmhc_catalyst",
                "nox_aftertreatment",
                "nox_adsorber",
                "particulate_filter",
                "exhaust_gas_sensor",
                "egr_vvt",
                "boost_pressure",
                "fuel_system"
            ]
        );
        assert_eq!(unit.iupr[8]["conditions"], 151);
        assert_eq!(unit.readiness["particulate_filter"], Readiness::Complete);
        assert_eq!(unit.readiness.get("catalyst"), None, "obd {obd}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sleeping_car_is_not_kept_awake() {
    let (sim, link) = sim(CarSpec { engine: Engine::Off, ..battery_car() }).await;
    let bundle = bundle();
    let mut adapter = Adapter::open(&link.parse().unwrap(), &bundle, None, None).await.unwrap();
    assert!(matches!(scan::contact(&mut adapter).await.unwrap(), scan::Contact::Silent(_)));
    assert!(uds::find::units(&mut adapter, Duration::from_secs(60)).await.unwrap().is_empty());
    // The bus took nothing, so nobody heard anything.
    assert_eq!(sim.requests(), Vec::<Vec<u8>>::new());
    // And it was not tried at eighteen addresses.
    let asleep: Script = Arc::new(|command| match command.as_bytes() {
        [b'0' | b'2', ..] => b"CAN ERROR\r\r>".to_vec(),
        _ => good(command).into_bytes(),
    });
    let dongle = Dongle::echoing_on_tcp(asleep).await;
    let mut adapter = Adapter::open(&dongle.link.parse().unwrap(), &bundle, None, None).await.unwrap();
    assert!(uds::find::units(&mut adapter, Duration::from_secs(60)).await.unwrap().is_empty());
    let heard = dongle.heard_text();
    assert_eq!(heard.split('\r').filter(|line| line.starts_with("22F190")).count(), 1, "{heard:?}");
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

/// Code, source, failure type, states and status of a unit's codes.
type Code<'a> = (&'a str, &'a str, Option<&'a str>, &'a [DtcState], Option<u8>);

fn codes(report: &VehicleReport) -> Vec<Code<'_>> {
    let code = |c| -> Code<'_> {
        let c: &DtcEntry = c;
        (&c.code, &c.source, c.failure_type.as_deref(), &c.state, c.status_raw)
    };
    report.ecus[0].dtcs.iter().map(code).collect()
}

fn both_ways() -> CarSpec {
    CarSpec {
        confirmed: vec!["P0420".parse().unwrap()],
        pending: vec!["P0171".parse().unwrap()],
        permanent: vec!["P0420".parse().unwrap()],
        enhanced: vec!["B1234".parse().unwrap(), "U0121".parse().unwrap()],
        failure_type: 0x11,
        ..CarSpec::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scan_adds_the_codes_that_only_uds_tells() {
    use DtcState::{Confirmed, Pending, Permanent};
    // A unit that says "wait" before each answer gives the same.
    for uds_waits in [0, 2] {
        for protocol in [6, 7] {
            let (sim, link) = sim(CarSpec { uds_waits, protocol, ..both_ways() }).await;
            let report = scan_of(&link).await.unwrap();
            assert_eq!(
                codes(&report),
                [
                    ("P0171", "obd", Some("11"), &[Pending][..], Some(0x27)),
                    ("P0420", "obd", Some("11"), &[Confirmed, Permanent][..], Some(0xA8)),
                    ("B1234", "uds", Some("11"), &[Confirmed][..], Some(0xA8)),
                    ("U0121", "uds", Some("11"), &[Confirmed][..], Some(0xA8)),
                ]
            );
            assert_eq!(report.errors, [], "{uds_waits}");
            // 19 06 of every code; 19 0A: its four, and two more that it tests.
            let extended = report.ecus[0].dtcs.iter().map(|code| code.extended_data.as_deref());
            assert!(extended.eq([Some("01030211"); 4]));
            let known = report.ecus[0].supported_codes.unwrap();
            assert_eq!(
                (known.count, known.not_tested_since_clear, known.not_tested_this_cycle),
                (6, Some(0), Some(0))
            );
            // Its freeze frame was read by J1979; the others' snapshots by UDS.
            assert_eq!(report.ecus[0].freeze_frames.iter().filter(|f| f.code == "P0420").count(), 1);
            let snapshots: Vec<_> =
                sim.requests().into_iter().filter(|r| r.starts_with(&[0x19, 4])).collect();
            assert_eq!(snapshots.len(), 3, "P0171, B1234, U0121: {snapshots:02X?}");
            assert!(!snapshots.contains(&vec![0x19, 0x04, 0x04, 0x20, 0x11, 0xFF]));
            // No session, no key, nothing written.
            let changes = |request: &Vec<u8>| matches!(request[0], 0x10 | 0x11 | 0x27 | 0x2E | 0x31 | 0x3E);
            assert!(!sim.requests().iter().any(changes));
        }
    }
}

/// The annual check looks at the codes of emissions alone.
#[tokio::test(flavor = "multi_thread")]
async fn what_only_uds_tells_blocks_no_emission_check() {
    let car = CarSpec { confirmed: Vec::new(), pending: Vec::new(), permanent: Vec::new(), ..both_ways() };
    let report = scanned(car).await.unwrap();
    assert_eq!(report.ecus[0].dtcs.len(), 2);
    assert!(report.inspection.ready, "{:?}", report.inspection);
}

/// The unit of a drive battery that J1979 does not know is met at its address, on both kinds of bus.
#[tokio::test(flavor = "multi_thread")]
async fn the_battery_of_a_hybrid_tells_its_codes_by_uds_alone() {
    let looked = |sim: &VehicleSim| {
        sim.requests().iter().filter(|request| request.starts_with(&[0x22, 0xF1, 0x90])).count()
    };
    for (protocol, request, answer, elsewhere) in [(6, 0x7E4, 0x7EC, 6), (7, 0x18DA_58F1, 0x18DA_F158, 8)] {
        let hybrid = CarSpec {
            protocol,
            drive: Drive::Hybrid,
            makers_unit: Some(MakersUnit { request, answer }),
            makers_codes: vec!["P0AA6".parse().unwrap()],
            ..CarSpec::default()
        };
        let (sim_with, link) = sim(hybrid.clone()).await;
        let report = scan_of(&link).await.unwrap();
        assert_eq!(report.errors, []);
        assert_eq!(report.ecus.len(), 3, "{:?}", report.ecus);
        let battery = report.ecus.iter().find(|ecu| ecu.address == format!("{answer:03X}")).unwrap();
        assert_eq!((battery.dtcs[0].code.as_str(), battery.dtcs[0].source.as_str()), ("P0AA6", "uds"));
        assert_eq!(battery.name.as_deref(), Some("GWY"));
        assert_eq!(looked(&sim_with), elsewhere, "who answered J1979 is not asked again");
        // Nobody looks for it in a car with an engine alone: each address where nobody is costs a wait.
        let (sim, link) = sim(CarSpec { drive: Drive::Ice, ..hybrid }).await;
        assert_eq!(scan_of(&link).await.unwrap().ecus.len(), 2);
        assert_eq!(looked(&sim), 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn units_without_uds_are_asked_once_and_left() {
    let (sim, link) = sim(CarSpec { uds: false, ..both_ways() }).await;
    let report = scan_of(&link).await.unwrap();
    assert_eq!(
        codes(&report),
        [
            ("P0171", "obd", None, &[DtcState::Pending][..], None),
            ("P0420", "obd", None, &[DtcState::Confirmed, DtcState::Permanent][..], None),
        ]
    );
    assert_eq!(report.errors, [], "nobody promised UDS");
    let asked: Vec<_> = sim.requests().into_iter().filter(|request| request[0] > 0x0A).collect();
    assert_eq!(asked, [[0x19, 0x02, 0x0D], [0x19, 0x02, 0x0D]], "once each unit");

    let (sim, link) = self::sim(CarSpec { protocol: 5, ..both_ways() }).await;
    assert_eq!(scan_of(&link).await.unwrap().ecus[0].dtcs.len(), 2);
    assert!(sim.requests().iter().all(|request| request[0] <= 0x0A), "on CAN only");
}

#[tokio::test(flavor = "multi_thread")]
async fn uds_has_what_is_left_of_a_scans_time() {
    let (sim, link) = sim(both_ways()).await;
    let bundle = bundle();
    let mut adapter = Adapter::open(&link.parse().unwrap(), &bundle, None, None).await.unwrap();
    let record = vehicle_bay::scanned(&mut adapter, &bundle).await.unwrap();
    let before = sim.requests().len();
    let over = Instant::now();
    let (heard, ended) = uds::read::enhance(&mut adapter, &bundle, &record, over, &mut |_| {}).await;
    ended.unwrap();
    assert_eq!(heard.told, []);
    let told: Vec<_> = heard.errors.iter().map(|e| (e.request.as_str(), e.error.as_str())).collect();
    let why = ["7E8", "7E9"].map(|unit| format!("{unit}: left out: the scan would have taken too long"));
    assert_eq!(told, [("19020D", why[0].as_str()), ("19020D", why[1].as_str())], "once each unit");
    assert_eq!(sim.requests().len(), before);
}

/// The longest question comes last, and only through an adapter that takes long answers.
#[tokio::test(flavor = "multi_thread")]
async fn all_codes_a_unit_could_store_are_counted_last() {
    let car = CarSpec { incomplete: 0x01, confirmed: Vec::new(), ..both_ways() };
    let (sim, link) = sim(car.clone()).await;
    let unit = &scan_of(&link).await.unwrap().ecus[0];
    let known = unit.supported_codes.unwrap();
    // P0171, B1234, U0121 stored; P0420 not tested yet, P0300 and P0442 in order.
    assert_eq!(
        (known.count, known.not_tested_since_clear, known.not_tested_this_cycle),
        (6, Some(1), Some(1))
    );
    let asked = sim.requests();
    assert_eq!(asked[asked.len() - 2..], [[0x19, 0x0A], [0x19, 0x0A]]);

    let adapter = SimAdapter::named("clone-freezes-long").unwrap();
    let sim = VehicleSim::spawn_tcp("127.0.0.1:0".parse().unwrap(), Profile { adapter, car: Some(car) });
    let sim = sim.await.unwrap();
    let report = scan_of(&format!("elm327+tcp://{}", sim.addr().unwrap())).await.unwrap();
    assert!(!sim.requests().contains(&vec![0x19, 0x0A]));
    assert_eq!(report.ecus[0].supported_codes, None);
}

/// A unit that does not know extended data (12) is not asked it of its next code.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_unit_does_not_know_is_asked_once() {
    let (sim, link) = sim(CarSpec { extended_data: false, ..both_ways() }).await;
    let report = scan_of(&link).await.unwrap();
    assert_eq!(report.errors, [], "that it has none is an answer");
    assert!(report.ecus[0].dtcs.iter().all(|code| code.extended_data.is_none()));
    let asked = sim.requests().iter().filter(|request| request.starts_with(&[0x19, 0x06])).count();
    assert_eq!(asked, 1);
}
