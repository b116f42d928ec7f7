//! slcan links through real pseudo-terminals and TCP, against the simulated adapter,
//! which shares no codec with the driver.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod vehicle_bay;

use std::time::{Duration, Instant};

use baygate::config::tables::{Poll, VehicleTable};
use baygate::config::values::VehicleLink;
use baygate::event::vehicle::VehicleReport;
use baygate::sim::vehicle::{
    Adapter, CarSpec, Engine, Profile, SlcanProfile, SlcanSim, Truck, TruckUnit, VehicleSim,
};
use baygate::store::requests::RequestState;
use baygate::vehicle::adapter::Adapter as Link;
use baygate::vehicle::clear::Delivery;
use baygate::vehicle::gate::{ExtendedAddress, Request, Target};
use baygate::vehicle::protocol::Protocol;
use baygate::vehicle::report;
use baygate::vehicle::scan::{self, Contact};
use serde_json::Value;
use vehicle_bay::clearing::redeemed;
use vehicle_bay::{Bay, bundle, open_store, quick, table};

fn car(protocol: u8) -> CarSpec {
    CarSpec {
        protocol,
        units: 3,
        latency_ms: 5,
        drift: false,
        confirmed: vec!["P0420".parse().unwrap(), "P0301".parse().unwrap()],
        ..CarSpec::default()
    }
}

async fn on_tcp(profile: SlcanProfile, car: &CarSpec) -> SlcanSim {
    SlcanSim::spawn_tcp("127.0.0.1:0".parse().unwrap(), profile, car).await.unwrap()
}

async fn reported(link: &str) -> VehicleReport {
    let bundle = bundle();
    let mut adapter = Link::open(&link.parse().unwrap(), &bundle, None, None).await.unwrap();
    report::build(&vehicle_bay::scanned(&mut adapter, &bundle).await.unwrap(), &bundle)
}

/// What does not depend on the way to the car.
fn told(report: &VehicleReport) -> Value {
    let mut report = serde_json::to_value(report).unwrap();
    for key in ["visit", "link", "adapter", "started_at", "duration_ms", "signals", "link_voltage_v"] {
        report.as_object_mut().unwrap().remove(key);
    }
    // The engine runs on while it is asked.
    for ecu in report["ecus"].as_array_mut().unwrap() {
        for value in ecu["values"].as_array_mut().unwrap() {
            value.as_object_mut().unwrap().remove("value");
        }
    }
    report
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_report_as_through_a_dongle() {
    for (protocol, bitrate) in [(6, 500_000), (7, 500_000), (8, 250_000), (9, 250_000)] {
        let car = car(protocol);
        let dongle = Profile { adapter: Adapter::default(), car: Some(car.clone()) };
        let dongle = VehicleSim::spawn_tcp("127.0.0.1:0".parse().unwrap(), dongle).await.unwrap();
        let expected = told(&reported(&format!("elm327+tcp://{}", dongle.name())).await);

        let sim = SlcanSim::spawn_pty(SlcanProfile::default(), &car, None).await.unwrap();
        let report = reported(&format!("slcan+serial://{}?bitrate={bitrate}", sim.name())).await;
        assert_eq!(report.adapter.identity, "slcan V1013 NSIM1");
        assert_eq!(report.adapter.voltage_v, None);
        assert_eq!(report.errors, [], "{protocol}");
        assert_eq!(told(&report), expected, "{protocol}");
        assert_eq!(report.ecus.len(), 3);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn adapters_of_every_kind() {
    let expected = {
        let sim = on_tcp(SlcanProfile::default(), &car(6)).await;
        told(&reported(&format!("slcan+tcp://{}?bitrate=500000", sim.name())).await)
    };
    let usual = SlcanProfile::default();
    for (name, profile) in [
        ("no acknowledgements", SlcanProfile { acknowledges: false, ..usual }),
        (
            "says nothing but frames and its version",
            SlcanProfile { confirms: false, acknowledges: false, ..usual },
        ),
        ("time stamps", SlcanProfile { stamps: true, ..usual }),
        ("byte by byte", SlcanProfile { split_bytes: 1, ..usual }),
        ("garbage between the lines", SlcanProfile { garbage: true, split_bytes: 3, ..usual }),
        ("a bus that talks", SlcanProfile { chatter: true, ..usual }),
        ("all of it", SlcanProfile { stamps: true, garbage: true, chatter: true, split_bytes: 7, ..usual }),
    ] {
        let sim = on_tcp(profile, &car(6)).await;
        let report = reported(&format!("slcan+tcp://{}?bitrate=500000", sim.name())).await;
        assert_eq!(told(&report), expected, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bus_that_talks_tells_its_rate_before_a_byte_is_sent() {
    let talks = SlcanProfile { chatter: true, ..SlcanProfile::default() };
    let sim = on_tcp(talks, &car(8)).await;
    let report = reported(&format!("slcan+tcp://{}", sim.name())).await;
    assert_eq!(report.protocol, "iso15765-4-11bit-250k");
    assert_eq!(sim.sent_at_wrong_rate(), 0);
    let heard = sim.heard();
    let place = |line: &str| {
        heard.iter().position(|heard| heard == line).unwrap_or_else(|| panic!("{line}: {heard:?}"))
    };
    assert!(place("S6") < place("L") && place("L") < place("S5") && place("S5") < place("O"), "{heard:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_rate_is_left_at_once() {
    let talks = SlcanProfile { chatter: true, ..SlcanProfile::default() };
    let sim = on_tcp(talks, &car(8)).await;
    let link: VehicleLink = format!("slcan+tcp://{}?bitrate=500000", sim.name()).parse().unwrap();
    let error = Link::open(&link, &bundle(), None, None).await.err().expect("the rate is wrong");
    assert_eq!(error.code(), "wrong-bitrate");
    assert!(error.to_string().contains("500000"), "{error}");
    let heard = sim.heard();
    assert_eq!((heard.last().map(String::as_str), sim.sent_at_wrong_rate()), (Some("C"), 0), "{heard:?}");
}

/// A gateway says nothing before it is asked: then one frame is the price.
#[tokio::test(flavor = "multi_thread")]
async fn a_silent_bus_costs_one_frame_at_the_wrong_rate() {
    let sim = on_tcp(SlcanProfile::default(), &car(9)).await;
    let report = reported(&format!("slcan+tcp://{}", sim.name())).await;
    assert_eq!((report.protocol.as_str(), sim.sent_at_wrong_rate()), ("iso15765-4-29bit-250k", 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_unit_can_be_asked_and_may_take_its_time() {
    let sim = on_tcp(SlcanProfile::default(), &car(6)).await;
    let link: VehicleLink = format!("slcan+tcp://{}?bitrate=500000", sim.name()).parse().unwrap();
    let mut link = Link::open(&link, &bundle(), None, None).await.unwrap();
    sim.postpone(2);
    let answer = link.ask(Request::vehicle_info(2).to(Target::Unit(0x7E0)), None).await.unwrap();
    assert_eq!(answer.messages.len(), 1, "{answer:?}");
    assert_eq!(answer.messages[0].payload.len(), 20);
    assert_eq!(link.voltage().await.unwrap(), None);
    sim.engine(Engine::Off);
    let answer = link.ask(Request::current(0), None).await.unwrap();
    assert!(answer.is_silence(), "{answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn visits_begin_and_end_and_a_pulled_adapter_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_store(dir.path());
    let place = dir.path().join("slcan");
    let mut sim = SlcanSim::spawn_pty(SlcanProfile::default(), &car(6), Some(place.clone())).await.unwrap();
    let link = format!("slcan+serial://{}?bitrate=500000", place.display());
    let bay = Bay::start(&store, "bay-1", &link, Poll::Auto);
    let arrived = bay.nth("vehicle.arrived", 1).await;
    assert_eq!(arrived["protocol"], "iso15765-4-11bit-500k");
    assert!(arrived["vin"].is_string());
    bay.nth("vehicle.report", 1).await;
    bay.nth("vehicle.signals", 1).await;
    // Pulled and back within the patience: the same visit.
    sim.vanish().await;
    bay.until_state("the adapter is away", |row| row.state.reason.is_some()).await;
    sim.come_back().await;
    bay.until_reason(None).await;
    assert_eq!(bay.scan().await.state, RequestState::Done);
    assert_eq!(bay.count("vehicle.arrived").await, 1);
    sim.engine(Engine::Off);
    bay.nth("vehicle.departed", 1).await;
    // Another car; nothing measures a voltage here.
    sim.swap(&CarSpec { vin: Some("LSVAA4187E2123456".into()), ..car(6) }).unwrap();
    assert_eq!(bay.nth("vehicle.arrived", 2).await["vin"], "LSVAA4187E2123456");
    bay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn listen_only_is_confirmed_or_refused() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_store(dir.path());
    let talks = SlcanProfile { chatter: true, ..SlcanProfile::default() };
    let sim = on_tcp(talks, &car(6)).await;
    let bay =
        Bay::start(&store, "bay-1", &format!("slcan+tcp://{}?bitrate=500000", sim.name()), Poll::ListenOnly);
    bay.until_reason(Some("listen-only")).await;
    bay.scan().await;
    bay.stop().await;
    let heard = sim.heard();
    assert!(heard.contains(&"L".into()), "{heard:?}");
    assert!(heard.iter().all(|line| ["C", "V", "N", "F", "L", "S6"].contains(&line.as_str())), "{heard:?}");

    for profile in [SlcanProfile { listens: false, ..talks }, SlcanProfile { confirms: false, ..talks }] {
        let sim = on_tcp(profile, &car(6)).await;
        let link = format!("slcan+tcp://{}?bitrate=500000", sim.name());
        let bay = Bay::start(&store, "bay-2", &link, Poll::ListenOnly);
        bay.until_reason(Some("not-listen-only")).await;
        bay.stop().await;
        assert!(!sim.heard().contains(&"O".into()), "never opened to send: {:?}", sim.heard());
    }
}

/// Invariant 6 for slcan: a day at the bay, every line against a list written down here.
#[tokio::test(flavor = "multi_thread")]
async fn every_line_of_a_day_belongs_to_the_list() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_store(dir.path());
    let sim = on_tcp(SlcanProfile::default(), &car(6)).await;
    let bay = Bay::start(&store, "bay-1", &format!("slcan+tcp://{}", sim.name()), Poll::Auto);
    bay.nth("vehicle.report", 1).await;
    sim.postpone(3);
    bay.scan().await;
    sim.engine(Engine::Off);
    bay.nth("vehicle.departed", 1).await;
    sim.engine(Engine::Running);
    bay.nth("vehicle.arrived", 2).await;
    bay.stop().await;
    let heard = sim.heard();
    assert!(heard.len() > 100, "a whole day: {}", heard.len());
    for line in &heard {
        let frame = |ids: &[&str], digits: usize| {
            let rest = line.get(1..)?;
            let (id, rest) = rest.split_at_checked(digits)?;
            let data = hex::decode(rest.strip_prefix('8')?).ok()?;
            ids.iter().any(|known| id.starts_with(known)).then_some(data)
        };
        let data = match line.as_bytes()[0] {
            // 7E0 to 7E7: flow control, and what UDS asks.
            b't' => frame(&["7DF", "7E0", "7E1", "7E2", "7E3", "7E4", "7E5", "7E6", "7E7"], 3),
            b'T' => frame(&["18DB33F1", "18DA"], 8),
            _ => {
                assert!(["C", "V", "N", "F", "L", "O", "S5", "S6"].contains(&line.as_str()), "{line}");
                continue;
            }
        };
        let data = data.unwrap_or_else(|| panic!("{line}"));
        match data.as_slice() {
            [0x30, 0, 0, 0, 0, 0, 0, 0] => {
                assert!(!line.starts_with("t7DF") && !line.starts_with("T18DB"), "{line}")
            }
            // Of 08 the masks alone.
            [2, 0x08, base, 0, 0, 0, 0, 0] => assert!(base.is_multiple_of(0x20), "{line}"),
            // Codes by status, one code's record.
            [3, 0x19, 0x02, _, 0, ..] | [6, 0x19, 0x04 | 0x06, ..] => {
                assert!(!line.starts_with("t7DF") && !line.starts_with("T18DB"), "{line}")
            }
            [length @ 1..=7, service, ..] => {
                let fits = match service {
                    0x01 => (2..=7).contains(length),
                    0x06 | 0x09 => *length == 2,
                    0x22 => *length == 3,
                    // A PID and its frame's number, up to three times.
                    0x02 => matches!(length, 3 | 5 | 7),
                    0x03 | 0x07 | 0x0A => *length == 1,
                    _ => false,
                };
                assert!(fits, "{line}");
            }
            _ => panic!("{line}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_slcan_adapter_is_said_so() {
    let profile = Profile { adapter: Adapter::default(), car: Some(car(6)) };
    let dongle = VehicleSim::spawn_tcp("127.0.0.1:0".parse().unwrap(), profile).await.unwrap();
    let link: VehicleLink = format!("slcan+tcp://{}?bitrate=500000", dongle.name()).parse().unwrap();
    let opened =
        tokio::time::timeout(Duration::from_secs(20), Link::open(&link, &bundle(), None, None)).await;
    let error = opened.expect("in time").err().expect("an ELM327 is no slcan adapter");
    assert_eq!(error.code(), "not-slcan", "{error}");
}

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

/// The chatter of the simulated bus: 280 with 490E in front.
const DATABASE: &str = "VERSION \"\"\nBO_ 640 Engine: 8 ECM\n SG_ Speed : 0|16@1+ (0.25,0) [0|0] \"rpm\" X\n";

fn overheard(facts: &[(String, Value)]) -> bool {
    facts.iter().filter(|(kind, _)| kind == "vehicle.signals").any(|(_, data)| {
        let signals = data["signals"].as_array().unwrap();
        // 0E49 is 3657 quarters.
        signals.iter().any(|signal| signal["name"] == "Engine.Speed" && signal["last"] == 914.25)
    })
}

/// On one stream with the answers, and on a link that asks nothing at all.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_bus_says_unasked_joins_the_visits_telemetry() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_store(dir.path());
    let file = dir.path().join("car.dbc");
    std::fs::write(&file, DATABASE).unwrap();
    let talks = SlcanProfile { chatter: true, ..SlcanProfile::default() };
    for (id, poll) in [("bay-1", Poll::Auto), ("bay-2", Poll::ListenOnly)] {
        let sim = on_tcp(talks, &car(6)).await;
        let link = format!("slcan+tcp://{}?bitrate=500000", sim.name());
        let with_file = VehicleTable { dbc: vec![file.clone()], ..table(id, &link, poll) };
        let bay = Bay::start_table(&store, with_file, quick());
        let facts = bay.until("a signal of the database", overheard).await;
        let arrived = facts.iter().find(|(kind, _)| kind == "vehicle.arrived").unwrap();
        assert_eq!(arrived.1["protocol"], "iso15765-4-11bit-500k");
        if poll == Poll::ListenOnly {
            assert!(arrived.1.get("vin").is_none_or(Value::is_null), "{arrived:?}");
            sim.hush();
            bay.nth("vehicle.departed", 1).await;
            assert_eq!(bay.count("vehicle.report").await, 0);
            assert!(sim.heard().iter().all(|line| !line.starts_with(['t', 'T', 'O'])), "{:?}", sim.heard());
        } else {
            bay.nth("vehicle.report", 1).await;
        }
        bay.stop().await;
    }
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

#[tokio::test(flavor = "multi_thread")]
async fn obd_is_asked_at_its_two_rates_alone() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_store(dir.path());
    let sim = on_tcp(SlcanProfile::default(), &car(6)).await;
    let link = format!("slcan+tcp://{}?bitrate=125000", sim.name());
    let bay = Bay::start(&store, "bay-1", &link, Poll::Auto);
    bay.until_reason(Some("not-obd-bitrate")).await;
    bay.stop().await;
    assert!(sim.heard().is_empty(), "{:?}", sim.heard());
    // Listened to it may be.
    let bay = Bay::start(&store, "bay-2", &link, Poll::ListenOnly);
    bay.until_reason(Some("listen-only")).await;
    bay.stop().await;
    assert!(sim.heard().contains(&"S4".into()), "{:?}", sim.heard());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_unit_is_asked_by_its_extended_address() {
    let sim = on_tcp(SlcanProfile::default(), &car(6)).await;
    let link: VehicleLink = format!("slcan+tcp://{}?bitrate=500000", sim.name()).parse().unwrap();
    let mut link = Link::open(&link, &bundle(), None, None).await.unwrap();
    let to = |unit| Target::Extended(ExtendedAddress::new(0x6F1, unit, 0xF1).unwrap());
    let answer = link.ask(Request::current(0x0C).to(to(0x12)), None).await.unwrap();
    let told: Vec<_> = answer.messages.iter().map(|m| (m.sender.0.as_str(), &m.payload[..2])).collect();
    assert_eq!(told, [("612", &[0x41, 0x0C][..])], "{answer:?}");
    let nobody = link.ask(Request::current(0x0C).to(to(0x40)), None).await.unwrap();
    assert!(nobody.is_silence(), "{nobody:?}");
    assert!(sim.heard().contains(&"t6F181202010C00000000".to_owned()), "{:?}", sim.heard());
}

/// Nobody acknowledges: it must not wait in the adapter for the next car.
#[tokio::test(flavor = "multi_thread")]
async fn a_clearing_that_nobody_acknowledges_is_withdrawn() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_store(dir.path());
    for (asleep, delivery) in [(false, Delivery::Sent), (true, Delivery::NotSent)] {
        let sim = on_tcp(SlcanProfile::default(), &car(6)).await;
        let link: VehicleLink = format!("slcan+tcp://{}?bitrate=500000", sim.name()).parse().unwrap();
        let mut link = Link::open(&link, &bundle(), None, None).await.unwrap();
        assert!(!link.ask(Request::current(0), None).await.unwrap().is_silence());
        if asleep {
            sim.engine(Engine::Off);
        } else {
            sim.engine(Engine::On);
        }
        let answer = link.clear(redeemed(&store).await).await.unwrap();
        assert_eq!((answer.delivery, answer.cleared.is_empty()), (delivery, asleep), "{answer:?}");
        let heard = sim.heard();
        let frame = heard.iter().position(|line| line == "t7DF80104000000000000").unwrap();
        assert_eq!(heard.iter().filter(|line| line.starts_with("t7DF80104")).count(), 1, "{heard:?}");
        let after: Vec<_> = heard[frame + 1..].iter().map(String::as_str).collect();
        let left = after.iter().position(|line| *line == "C").is_some_and(|at| after[at..].contains(&"O"));
        assert_eq!(left, asleep, "off the bus, and on it again: {after:?}");
    }
}

/// The adapter says that nobody acknowledges, and the car's answer comes while it leaves the bus.
#[tokio::test(flavor = "multi_thread")]
async fn a_clearing_that_left_while_it_was_withdrawn_was_sent() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let dir = tempfile::tempdir().unwrap();
    let store = open_store(dir.path());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let link = format!("slcan+tcp://{}?bitrate=500000", listener.local_addr().unwrap());
    let serving = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let (mut line, mut buffer, mut waits) = (String::new(), [0; 256], false);
        while let Ok(count @ 1..) = stream.read(&mut buffer).await {
            for byte in &buffer[..count] {
                if *byte != b'\r' {
                    line.push(char::from(*byte));
                    continue;
                }
                let said = match std::mem::take(&mut line).as_str() {
                    "V" => "V1013\r",
                    "N" => "NSIM1\r",
                    "F" if waits => "F80\r",
                    "F" => "F00\r",
                    "C" if std::mem::take(&mut waits) => "t7E880144000000000000\r\r",
                    "t7DF80201000000000000" => "z\rt7E880641009818000100\r",
                    "t7DF80104000000000000" => {
                        waits = true;
                        "z\r"
                    }
                    frame if frame.starts_with('t') => "z\r",
                    _ => "\r",
                };
                stream.write_all(said.as_bytes()).await.unwrap();
            }
        }
    });
    let mut link = Link::open(&link.parse().unwrap(), &bundle(), None, None).await.unwrap();
    assert!(!link.ask(Request::current(0), None).await.unwrap().is_silence());
    let answer = link.clear(redeemed(&store).await).await.unwrap();
    assert_eq!((answer.delivery, answer.cleared.as_slice()), (Delivery::Sent, &["7E8".to_owned()][..]));
    // It is on the bus again.
    assert!(!link.ask(Request::current(0), None).await.unwrap().is_silence());
    serving.abort();
}
