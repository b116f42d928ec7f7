//! Trucks: codes that are heard, two groups that are asked for, and buses that have both.

use std::time::{Duration, Instant};

use baygate::config::tables::Poll;
use baygate::config::values::VehicleLink;
use baygate::sim::vehicle::{Engine, SlcanProfile, Truck, TruckUnit};
use baygate::store::requests::RequestState;
use baygate::vehicle::adapter::Adapter as Link;
use baygate::vehicle::protocol::Protocol;
use baygate::vehicle::scan::{self, Contact};
use serde_json::Value;

use crate::vehicle_bay::{self, Bay, bundle, open_store};
use crate::{car, on_tcp, reported};

/// Three units: the engine with more codes than a frame holds, brakes without, a dashboard.
fn truck() -> Truck {
    let unit = |source| TruckUnit { source, ..TruckUnit::default() };
    Truck::new(
        vec![
            TruckUnit {
                active: vec![(100, 1), (110, 0), (4334, 18)],
                before: vec![(100, 1), (609, 19)],
                lamp: true,
                ..unit(0x00)
            },
            TruckUnit { before: vec![(1569, 31)], ..unit(0x0B) },
            TruckUnit { active: vec![(96, 4)], ..unit(0x17) },
        ],
        Some("1XKDDB9X8YJ123456"),
    )
}

/// No unit answers OBD: codes are heard, two groups are asked for, and nothing else.
#[tokio::test(flavor = "multi_thread")]
async fn a_truck_tells_its_codes_unasked() {
    let sim = on_tcp(SlcanProfile::default(), &car(9)).await;
    sim.truck(truck());
    let report = reported(&format!("slcan+tcp://{}", sim.name())).await;
    assert_eq!(report.protocol, "j1939");
    assert_eq!(report.vin.as_ref().map(ToString::to_string).as_deref(), Some("1XKDDB9X8YJ123456"));
    assert_eq!((report.errors.as_slice(), report.assessable), (&[][..], false));
    let told: Vec<_> = report
        .ecus
        .iter()
        .map(|ecu| {
            let codes: Vec<_> = ecu.dtcs.iter().map(|dtc| (dtc.code.as_str(), dtc.state.len())).collect();
            (ecu.address.as_str(), ecu.mil, codes)
        })
        .collect();
    assert_eq!(
        told,
        [
            ("00", Some(true), vec![("SPN100-1", 1), ("SPN110-0", 1), ("SPN4334-18", 1), ("SPN609-19", 0)]),
            ("0B", Some(false), vec![("SPN1569-31", 0)]),
            ("17", Some(false), vec![("SPN96-4", 1)]),
        ]
    );
    assert!(report.ecus.iter().flat_map(|ecu| &ecu.dtcs).all(|dtc| dtc.source == "j1939"));
    // The bus talks: its rate is found before anything is sent, and little is.
    assert_eq!(sim.sent_at_wrong_rate(), 0);
    let mut frames = sim.heard();
    frames.retain(|line| line.starts_with(['t', 'T']));
    let (narrow, wide) = ("t7DF80201000000000000", "T18DB33F180201000000000000");
    assert_eq!(frames, [narrow, wide, "T18EAFFF93CBFE00", "T18EAFFF93ECFE00"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_truck_comes_is_reported_and_goes() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_store(dir.path());
    let sim = on_tcp(SlcanProfile::default(), &car(9)).await;
    sim.truck(truck());
    let bay = Bay::start(&store, "bay-1", &format!("slcan+tcp://{}?bitrate=250000", sim.name()), Poll::Auto);
    let arrived = bay.nth("vehicle.arrived", 1).await;
    assert_eq!(
        (&arrived["protocol"], &arrived["vin"]),
        (&Value::from("j1939"), &Value::from("1XKDDB9X8YJ123456"))
    );
    let report = bay.nth("vehicle.report", 1).await;
    assert_eq!(report["ecus"][2]["dtcs"][0]["code"], "SPN96-4");
    assert_eq!(bay.scan().await.state, RequestState::Done);
    // In the background nothing is asked, the number neither. Each look reads the error flags.
    let count = |wanted: &str| sim.heard().iter().filter(|line| *line == wanted).count();
    let (asked, looks) = (count("T18EAFFF93ECFE00"), count("F"));
    let deadline = Instant::now() + vehicle_bay::DEADLINE;
    while count("F") < looks + 30 {
        assert!(Instant::now() < deadline, "no looks");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(count("T18EAFFF93ECFE00"), asked);
    sim.engine(Engine::Off);
    bay.nth("vehicle.departed", 1).await;
    sim.engine(Engine::Running);
    bay.nth("vehicle.arrived", 2).await;
    bay.stop().await;
    for line in sim.heard().iter().filter(|line| line.starts_with("T18EA")) {
        assert!(["T18EAFFF93CBFE00", "T18EAFFF93ECFE00"].contains(&line.as_str()), "{line}");
    }
}

/// A truck that answers OBD stays one when it misses a question; and one that was silent at
/// first is asked OBD again by a scan.
#[tokio::test(flavor = "multi_thread")]
async fn a_truck_that_answers_obd_is_read_by_obd() {
    let sim = on_tcp(SlcanProfile::default(), &car(9)).await;
    sim.truck(truck().with_obd());
    let link: VehicleLink = format!("slcan+tcp://{}?bitrate=250000", sim.name()).parse().unwrap();
    let bundle = bundle();
    let mut link = Link::open(&link, &bundle, None, None).await.unwrap();
    let by_obd = |contact| matches!(contact, Contact::Answers(Protocol::Can29At250, _));
    assert!(by_obd(scan::contact(&mut link).await.unwrap()));
    sim.miss(1);
    scan::contact(&mut link).await.unwrap();
    assert_ne!(link.protocol(), Some(Protocol::J1939), "one silence");
    assert!(by_obd(scan::contact(&mut link).await.unwrap()));

    link.close_protocol().await.unwrap();
    sim.truck(truck());
    assert!(matches!(scan::contact(&mut link).await.unwrap(), Contact::Answers(Protocol::J1939, _)));
    assert_eq!(vehicle_bay::scanned(&mut link, &bundle).await.unwrap().protocol, Protocol::J1939);
    assert_eq!(link.protocol(), Some(Protocol::J1939));
    sim.truck(truck().with_obd());
    let record = vehicle_bay::scanned(&mut link, &bundle).await.unwrap();
    assert_eq!((record.protocol, link.protocol()), (Protocol::Can29At250, Some(Protocol::Can29At250)));
}

/// A car behind a truck is no truck.
#[tokio::test(flavor = "multi_thread")]
async fn a_link_that_only_listens_hears_what_comes_next() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_store(dir.path());
    let sim = on_tcp(SlcanProfile::default(), &car(8)).await;
    sim.truck(truck());
    let link = format!("slcan+tcp://{}?bitrate=250000", sim.name());
    let bay = Bay::start(&store, "bay-1", &link, Poll::ListenOnly);
    assert_eq!(bay.nth("vehicle.arrived", 1).await["protocol"], "j1939");
    sim.hush();
    bay.nth("vehicle.departed", 1).await;
    sim.talk();
    assert_eq!(bay.nth("vehicle.arrived", 2).await["protocol"], "iso15765-4-11bit-250k");
    bay.stop().await;
}

/// A long DM1 of which a packet never comes is told as missing, and no code of it is made up.
#[tokio::test(flavor = "multi_thread")]
async fn a_long_message_that_never_comes_whole_is_told() {
    let sim = on_tcp(SlcanProfile::default(), &car(9)).await;
    let mut lossy = truck();
    lossy.units[0].loses_packet = Some(2);
    sim.truck(lossy);
    let report = reported(&format!("slcan+tcp://{}?bitrate=250000", sim.name())).await;
    assert_eq!(report.protocol, "j1939");
    let engine = report.ecus.iter().find(|ecu| ecu.address == "00").unwrap();
    assert!(engine.dtcs.is_empty() && engine.mil.is_none(), "{engine:?}");
    let others = report.ecus.iter().filter(|ecu| ecu.address != "00");
    assert_eq!(others.map(|ecu| ecu.dtcs.len()).collect::<Vec<_>>(), [1, 1]);
    let mut missing: Vec<_> =
        report.errors.iter().map(|error| (error.request.as_str(), error.error.as_str())).collect();
    missing.sort_unstable();
    let words = "unit 00: packets of the message were lost, it never came whole";
    // Active codes, codes from before, the vehicle's number: each longer than a frame.
    assert_eq!(missing, [("PGN 65226", words), ("PGN 65227", words), ("PGN 65260", words)]);
    assert!(!report.assessable && report.vin.is_none());
}
