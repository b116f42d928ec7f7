//! Live values: an adapter is told how many lines answer, as far as scan and contact taught it,
//! and a promise that is broken costs repetitions, no values.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod vehicle_bay;

use std::io::Write;
use std::sync::{Arc, Mutex};

use baygate::config::tables::Poll;
use baygate::sim::vehicle::{Adapter as SimAdapter, CarSpec, Drive, Multi, Profile, VehicleSim};
use baygate::vehicle::adapter::{Adapter, SessionTrace};
use baygate::vehicle::batch::Outcome;
use baygate::vehicle::gate::Request;
use baygate::vehicle::report;
use baygate::vehicle::sampling::Sampling;
use baygate::vehicle::scan::{self, Contact};
use serde_json::Value;
use uuid::Uuid;
use vehicle_bay::dongle::{Dongle, good};
use vehicle_bay::{Bay, bundle, open_store};

const LIVE: [u8; 3] = [0x05, 0x0C, 0x0D];

/// What was sent to the adapter, as a trace tells it.
#[derive(Clone, Default)]
struct Ear(Arc<Mutex<Vec<u8>>>);

impl Write for Ear {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Ear {
    /// Commands since the last look, also those that were ended only when they had been echoed.
    fn commands(&self) -> Vec<String> {
        let text = String::from_utf8(std::mem::take(&mut *self.0.lock().unwrap())).unwrap();
        let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let sent = lines.filter(|line| line["dir"] == "tx").map(|line| {
            let bytes = hex::decode(line["hex"].as_str().unwrap()).unwrap();
            String::from_utf8(bytes).unwrap().trim().to_owned()
        });
        let mut commands: Vec<String> = Vec::new();
        let mut given_up = false;
        for command in sent.filter(|command| !command.is_empty()) {
            // Its echo came late on a busy machine: the line was made useless and typed again.
            let gives_up = command == "XXXXXXXX";
            if !gives_up {
                commands.push(command);
            } else if !given_up {
                commands.pop();
            }
            given_up = gives_up;
        }
        commands
    }
}

async fn met(adapter: &mut Adapter, sampling: &mut Sampling) {
    match scan::contact(adapter).await.unwrap() {
        Contact::Answers(_, units) => sampling.met(&units),
        Contact::Silent(why) => panic!("{why}"),
    }
}

/// How many units gave each PID.
fn units(outcomes: &[Outcome]) -> Vec<(u8, usize)> {
    let mut units: Vec<_> = outcomes.iter().map(|outcome| (outcome.pid, outcome.messages.len())).collect();
    units.sort_unstable();
    units
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_promised_is_counted_and_a_broken_promise_falls_back() {
    let profile = Profile { adapter: SimAdapter::default(), car: Some(CarSpec::default()) };
    let sim = VehicleSim::spawn_tcp("127.0.0.1:0".parse().unwrap(), profile).await.unwrap();
    let link = format!("elm327+tcp://{}", sim.addr().unwrap());
    let (bundle, ear) = (bundle(), Ear::default());
    let trace = SessionTrace::begin(Box::new(ear.clone()), &link.parse().unwrap());
    let mut adapter = Adapter::open(&link.parse().unwrap(), &bundle, None, Some(trace)).await.unwrap();
    let record =
        scan::run(&mut adapter, &bundle, Uuid::nil(), "bay-1".parse().unwrap(), &mut |_| {}).await.unwrap();

    // Nothing known: the adapter waits for more.
    let mut sampling = Sampling::default();
    met(&mut adapter, &mut Sampling::default()).await;
    ear.commands();
    let table = &bundle.pids;
    let both = [(0x05, 1), (0x0C, 2), (0x0D, 2)];
    assert_eq!(units(&sampling.ask(&mut adapter, table, &LIVE).await.unwrap()), both);
    assert_eq!(ear.commands(), ["01050C0D"]);

    // Known from contact alone, then from a scan: two lines of the engine's unit, one of the other.
    met(&mut adapter, &mut sampling).await;
    ear.commands();
    assert_eq!(units(&sampling.ask(&mut adapter, table, &LIVE).await.unwrap()), both);
    assert_eq!(ear.commands(), ["01050C0D3"]);
    sampling.scanned(&record);
    let with_odometer = [LIVE.as_slice(), &[0xA6]].concat();
    sampling.ask(&mut adapter, table, &with_odometer).await.unwrap();
    assert_eq!(ear.commands(), ["01050C0DA63"]);

    // The second unit is gone: nothing of the first is lost, before and after it is known.
    sim.swap(&CarSpec { units: 1, ..CarSpec::default() }).unwrap();
    let alone = [(0x05, 1), (0x0C, 1), (0x0D, 1)];
    assert_eq!(units(&sampling.ask(&mut adapter, table, &LIVE).await.unwrap()), alone);
    assert_eq!(ear.commands()[..2], ["01050C0D3", "01050C0D"]);
    met(&mut adapter, &mut sampling).await;
    ear.commands();
    assert_eq!(units(&sampling.ask(&mut adapter, table, &LIVE).await.unwrap()), alone);
    assert_eq!(ear.commands(), ["01050C0D2"]);
}

/// A unit that answers 0100 and breaks its promises is believed no more.
#[tokio::test(flavor = "multi_thread")]
async fn a_liar_is_believed_no_more() {
    let profile = Profile { adapter: SimAdapter::default(), car: Some(CarSpec::default()) };
    let sim = VehicleSim::spawn_tcp("127.0.0.1:0".parse().unwrap(), profile).await.unwrap();
    let link = format!("elm327+tcp://{}", sim.addr().unwrap());
    let (bundle, ear) = (bundle(), Ear::default());
    let trace = SessionTrace::begin(Box::new(ear.clone()), &link.parse().unwrap());
    let mut adapter = Adapter::open(&link.parse().unwrap(), &bundle, None, Some(trace)).await.unwrap();
    let mut record =
        scan::run(&mut adapter, &bundle, Uuid::nil(), "bay-1".parse().unwrap(), &mut |_| {}).await.unwrap();
    // As if the second unit had promised the coolant too.
    let mask = record.told.iter_mut().find(|t| t.ecu.0 == "7E9" && t.payload.starts_with(&[0x41, 0x00]));
    mask.unwrap().payload[2] |= 0x08;
    let mut sampling = Sampling::default();
    sampling.scanned(&record);
    for round in 0..4 {
        ear.commands();
        let outcomes = sampling.ask(&mut adapter, &bundle.pids, &[0x05, 0x0D]).await.unwrap();
        assert_eq!(units(&outcomes), [(0x05, 1), (0x0D, 2)]);
        let asked = ear.commands();
        assert_eq!(asked.len() > 1, round < 3, "{round}: {asked:?}");
    }
}

/// One scan of a car: what the adapter was sent, what reached the car, and what came of it.
async fn scanned(adapter: SimAdapter, car: CarSpec) -> (Vec<String>, Vec<Vec<u8>>, Value) {
    let sim = VehicleSim::spawn_tcp("127.0.0.1:0".parse().unwrap(), Profile { adapter, car: Some(car) })
        .await
        .unwrap();
    let link = format!("elm327+tcp://{}", sim.addr().unwrap());
    let (bundle, ear) = (bundle(), Ear::default());
    let trace = SessionTrace::begin(Box::new(ear.clone()), &link.parse().unwrap());
    let mut adapter = Adapter::open(&link.parse().unwrap(), &bundle, None, Some(trace)).await.unwrap();
    let record =
        scan::run(&mut adapter, &bundle, Uuid::nil(), "bay-1".parse().unwrap(), &mut |_| {}).await.unwrap();
    assert_eq!(adapter.capabilities().response_count, Some(true));
    let report = serde_json::to_value(report::build(&record, &bundle)).unwrap();
    assert_eq!(report["errors"], serde_json::json!([]));
    (ear.commands(), sim.requests(), report)
}

/// Masks go together where adapter and car take that, and the report is the same where they do not.
#[tokio::test(flavor = "multi_thread")]
async fn masks_go_together_or_alone() {
    let cases = [
        ("good", Multi::Whole, 6, true),
        ("an adapter that takes one", Multi::Error, 6, false),
        // It takes two, as is tried out, and no three.
        ("a car that takes two", Multi::Whole, 2, false),
    ];
    let mut reports = Vec::new();
    for (name, multi, most_parameters, together) in cases {
        let car = CarSpec { drift: false, most_parameters, latency_ms: 1, ..CarSpec::default() };
        let (_, requests, report) = scanned(SimAdapter { multi, ..SimAdapter::default() }, car).await;
        let asked = |request: &[u8]| requests.iter().any(|seen| seen == request);
        assert_eq!(asked(&[0x01, 0x40]), !together, "{name}");
        assert_eq!(asked(&[0x06, 0x20, 0x40, 0x60]), multi == Multi::Whole, "{name}");
        assert_eq!(asked(&[0x06, 0x40]), multi != Multi::Whole, "{name}");
        let names = |list: &str, of: &str| -> Vec<Value> {
            let ecus = report["ecus"].as_array().unwrap().iter();
            ecus.flat_map(|ecu| ecu[list].as_array().unwrap()).map(|item| item[of].clone()).collect()
        };
        reports.push((name, names("values", "pid"), names("monitor_tests", "mid")));
    }
    let (_, values, tests) = &reports[0];
    assert!(values.len() > 40 && tests.len() > 8, "{values:?} {tests:?}");
    for (name, others, their_tests) in &reports {
        assert_eq!((others, their_tests), (values, tests), "{name}");
    }
}

/// Several PIDs are tried on two that a report shows: 02 is empty where no frame is frozen.
#[tokio::test(flavor = "multi_thread")]
async fn an_adapter_is_not_tried_on_what_is_often_empty() {
    let dongle = Dongle::echoing_on_tcp(Arc::new(|command| match command {
        "ATZ" | "ATI" => b"ELM327 v2.2\r\r>".to_vec(),
        "0100" | "01001" => b"7E8064100FE000000\r\r>".to_vec(),
        _ => good(command).into_bytes(),
    }))
    .await;
    let bundle = bundle();
    let mut adapter = Adapter::open(&dongle.link.parse().unwrap(), &bundle, None, None).await.unwrap();
    let first = adapter.ask(Request::current(0x00), None).await.unwrap();
    adapter.learn(&first, &bundle.pids).await.unwrap();
    let heard = dongle.heard_text();
    assert!(heard.contains("\r010305\r") && !heard.contains("\r0102"), "{heard:?}");
}

/// Where the way to the adapter is long and its wait short, no line is typed with care for its
/// digit alone; the digit itself was tried all the same. Two units are addressed one after the
/// other without going back to all.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_line_is_not_gone_twice_for_a_digit() {
    for (line_ms, latency_ms, counted) in [(0, 60, true), (120, 1, false)] {
        let adapter = SimAdapter { line_ms, ..SimAdapter::default() };
        let (commands, ..) = scanned(adapter, CarSpec { latency_ms, ..CarSpec::default() }).await;
        let said = |text: &str| commands.iter().any(|command| command == text);
        assert!(said("01002"), "{commands:?}");
        assert_eq!((said("01012"), said("0101")), (counted, !counted), "{commands:?}");
        assert!(said("ATSH7E0") && said("ATSH7E1") && !said("ATAR"), "{commands:?}");
    }
}

/// The service does so: after its scan no live value is asked for without the digit.
#[tokio::test(flavor = "multi_thread")]
async fn the_service_counts_lines() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_store(dir.path());
    let dongle = Dongle::echoing_on_tcp(Arc::new(|command: &str| good(command).into_bytes())).await;
    let bay = Bay::start(&store, "bay-1", &dongle.link, Poll::Auto);
    bay.nth("vehicle.report", 1).await;
    bay.nth("vehicle.signals", 3).await;
    bay.stop().await;
    let heard = dongle.heard_text();
    let times = |wanted: &str| heard.split('\r').filter(|command| *command == wanted).count();
    for pid in ["0105", "010C", "010D"] {
        assert_eq!(times(pid), 0, "{pid}");
        assert!(times(&format!("{pid}1")) > 2, "{pid}: {}", times(&format!("{pid}1")));
    }
}

/// A battery car of UDS alone is asked for the identifiers that stand for the PIDs.
#[tokio::test(flavor = "multi_thread")]
async fn a_car_of_uds_alone_gives_live_values() {
    let car = CarSpec { obd: false, drive: Drive::Bev, ..CarSpec::default() };
    let profile = Profile { adapter: SimAdapter::default(), car: Some(car) };
    let sim = VehicleSim::spawn_tcp("127.0.0.1:0".parse().unwrap(), profile).await.unwrap();
    let link = format!("elm327+tcp://{}", sim.addr().unwrap());
    let bundle = bundle();
    let mut adapter = Adapter::open(&link.parse().unwrap(), &bundle, None, None).await.unwrap();
    let record =
        scan::run(&mut adapter, &bundle, Uuid::nil(), "bay-1".parse().unwrap(), &mut |_| {}).await.unwrap();
    let mut sampling = Sampling::default();
    sampling.scanned(&record);
    met(&mut adapter, &mut sampling).await;
    let outcomes = sampling.ask(&mut adapter, &bundle.pids, &[0x05, 0x0D, 0x5B]).await.unwrap();
    assert_eq!(units(&outcomes), [(0x0D, 1), (0x5B, 1)], "what nobody has is not asked");
    assert_eq!(outcomes[1].messages[0].payload[..2], [0x41, 0x5B]);
    assert!(sim.requests().ends_with(&[vec![0x22, 0xF4, 0x0D], vec![0x22, 0xF4, 0x5B]]));
}
