//! Every adapter of the simulator's table, good, cloned and broken, and every
//! protocol: the same car gives the same report.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod vehicle_bay;

use baygate::config::values::VehicleLink;
use baygate::event::vehicle::{DtcState, RequestError, VehicleReport};
use baygate::sim::vehicle::{Adapter as SimAdapter, CarSpec, Profile, VehicleSim};
use baygate::vehicle::adapter::{Adapter, Capabilities, Waits};
use baygate::vehicle::elm327::baud::open_probing;
use baygate::vehicle::{AdapterError, report, scan};
use serde_json::Value;
use vehicle_bay::bundle;

fn spec(protocol: u8) -> CarSpec {
    let signals = [("rpm", 1726.0), ("coolant", 83.0), ("speed", 50.0), ("odometer", 45231.0)];
    CarSpec {
        protocol,
        drift: false,
        signals: signals.map(|(name, value)| (name.to_owned(), value)).into(),
        confirmed: vec!["P0420".parse().unwrap(), "P0301".parse().unwrap(), "U0100".parse().unwrap()],
        pending: vec!["P0171".parse().unwrap()],
        ..CarSpec::default()
    }
}

/// What the engine's unit of that car must be reported to say.
fn assert_live_values(report: &VehicleReport, name: &str) {
    let value = |pid: &str| {
        let of_pid = report.ecus[0].values.iter().find(|value| value.pid == pid);
        of_pid.map(|value| value.value.clone()).unwrap_or(Value::Null)
    };
    for (pid, expected) in [("010C", 1726.0), ("0105", 83.0), ("010D", 50.0), ("01A6", 45231.0)] {
        assert_eq!(value(pid), Value::from(expected), "{name} {pid}");
    }
    // The transmission's unit has its own speed.
    let other = &report.ecus[1].values;
    assert!(other.iter().any(|value| value.pid == "010C" && value.value == 1726.0), "{name}: {other:?}");
}

/// One scan, and what was learned of the adapter, also when it died of it.
async fn scan_knowing(
    link: &str,
    remembered: Capabilities,
) -> (Result<VehicleReport, AdapterError>, Capabilities) {
    let bundle = bundle();
    let mut adapter = match Adapter::open(&link.parse().unwrap(), &bundle, None, None).await {
        Ok(adapter) => adapter,
        Err(error) => return (Err(error), remembered),
    };
    adapter.remember(remembered);
    // Forty scans share this machine: what the time leaves out is another test's business.
    let report = match vehicle_bay::scanned(&mut adapter, &bundle).await {
        Ok(record) => Ok(report::build(&record, &bundle)),
        Err(scan::ScanError::Adapter(error)) => Err(error),
        Err(error) => panic!("{error}"),
    };
    (report, adapter.capabilities())
}

async fn scan_once(link: &str) -> Result<VehicleReport, AdapterError> {
    scan_knowing(link, Capabilities::default()).await.0
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

/// What an adapter cannot do is listed in the report's errors, at the first scan and at later ones.
fn expected_errors(name: &str, first: bool) -> &'static [(&'static str, &'static str)] {
    match name {
        "clone-freezes-long" | "clone-freezes-long-unannounced" if first => {
            &[("0908", "adapter-hung"), ("scan", "adapter-hung")]
        }
        "clone-freezes-long" | "clone-freezes-long-unannounced" | "clone-browns-out-long" => &[
            ("0908", "adapter fails on long answers"),
            ("090A", "adapter fails on long answers"),
            ("0904", "adapter fails on long answers"),
            ("19020D", "adapter fails on long answers"),
        ],
        // It cuts the question off, and the unit complains.
        "clone-two-bytes" => {
            &[("19020D", "7E8: wrong length or format (13)"), ("19020D", "7E9: wrong length or format (13)")]
        }
        "clone-two-bytes-unannounced" => &[
            ("020200", "adapter reads only two bytes of a request"),
            ("19020D", "adapter reads only two bytes of a request"),
        ],
        _ => &[],
    }
}

fn assert_report(report: &VehicleReport, name: &str, first: bool) {
    assert_eq!(report.vin.as_ref().map(|vin| vin.as_str()), Some("1M8GDM9AXKP042788"), "{name}");
    assert_eq!(codes(report), expected_codes(), "{name}");
    assert_eq!(report.protocol, "iso15765-4-11bit-500k", "{name}");
    assert_eq!(report.ecus.len(), 2, "{name}");
    if name == "clone-no-echo" {
        // What a bad line could turn into a clearing is not asked, the mask of PIDs 41 to 60 among it.
        assert!(report.errors.iter().any(|error| error.request == "0140"), "{:?}", report.errors);
        assert!(report.errors.iter().all(|error| error.error.contains("not sent:")), "{:?}", report.errors);
        return;
    }
    assert!(report.ecus[0].values.len() > 30, "{name}: {}", report.ecus[0].values.len());
    assert_live_values(report, name);
    let volts = match name {
        "clone-no-voltage" => 0.0,
        "clone-volt-off" => 13.1,
        "clone-v1-5" => 13.8,
        "clone-v2-1" => 14.7,
        _ => 14.1,
    };
    assert_eq!(report.adapter.voltage_v, Some(volts), "{name}");
    let errors = report.errors.iter().map(|error| (error.request.as_str(), error.error.as_str()));
    let errors: Vec<(&str, &str)> = errors.collect();
    assert_eq!(errors, expected_errors(name, first), "{name}");
    // Whoever lived to be asked UDS, and passes it on, tells each code's status by it.
    let fails = |(request, error): &(&str, &str)| request.starts_with("19") || *error == "adapter-hung";
    let by_uds = report.ecus[0].dtcs.iter().all(|dtc| dtc.status_raw.is_some());
    assert_eq!(by_uds, !errors.iter().any(fails), "{name}");
    let frames = if name == "clone-two-bytes-unannounced" { 0 } else { 1 };
    assert_eq!(report.ecus[0].freeze_frames.len(), frames, "{name}");
}

async fn one_adapter(name: String, adapter: SimAdapter) -> (String, Capabilities) {
    let profile = Profile { adapter, car: Some(spec(6)) };
    let dir = tempfile::tempdir().unwrap();
    let mut sim = VehicleSim::spawn_pty(profile, Some(dir.path().join("obd"))).await.unwrap();
    // No baud: it is probed, and three of the adapters understand one rate only.
    let link = format!("elm327+serial://{}", sim.path().display());
    let begun = std::time::Instant::now();
    let (report, learned) = scan_knowing(&link, Capabilities::default()).await;
    let first = begun.elapsed();
    if name == "clone-hangs-multi-unannounced" {
        let error = report.map(|report| report.errors).unwrap_err();
        assert!(matches!(error, AdapterError::Hung(_)), "{error}");
        assert_eq!(learned.multi_pid, Some(false), "dying of it is a verdict");
    } else {
        assert_report(&report.unwrap_or_else(|error| panic!("{name}: {error}")), &name, true);
    }
    // Pulled out and plugged in again; what was learned is remembered: nothing is tried twice.
    sim.vanish().await;
    sim.return_().await;
    let before = sim.requests().len();
    let begun = std::time::Instant::now();
    let (report, again) = scan_knowing(&link, learned).await;
    assert_report(&report.unwrap_or_else(|error| panic!("{name}, again: {error}")), &name, false);
    assert_eq!(again, Capabilities { long_answers: again.long_answers, ..learned }, "{name}");
    let requests = sim.requests().split_off(before);
    let masks = requests.iter().filter(|request| request.starts_with(&[1, 0])).count();
    // The one that forgets does so where the car is asked for a second freeze frame, which nobody
    // answers: it cannot be told from a lost bus.
    let again = ["clone-not-connected", "clone-forgets"].contains(&name.as_str());
    assert!(masks == 1 || again, "{name}: 0100 asked {masks} times");
    println!("{name}: {first:.1?}, then {:.1?} in {} requests", begun.elapsed(), requests.len());
    (name, learned)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_adapter_of_the_table() {
    let scans: Vec<_> = SimAdapter::all()
        .unwrap()
        .into_iter()
        .map(|(name, adapter)| tokio::spawn(one_adapter(name, adapter)))
        .collect();
    let mut learned = std::collections::BTreeMap::new();
    for scan in scans {
        let (name, capabilities) = scan.await.unwrap();
        learned.insert(name, capabilities);
    }
    let yes = Some(true);
    let no = Some(false);
    for (name, expected) in [
        ("genuine-v2-2", Capabilities { multi_pid: yes, long_requests: yes, ..learned["genuine-v2-2"] }),
        ("stn1110", Capabilities { stn: yes, multi_pid: yes, response_count: yes, ..learned["stn1110"] }),
        ("clone-no-count", Capabilities { response_count: no, ..learned["clone-no-count"] }),
        ("clone-refuses-count", Capabilities { response_count: no, ..learned["clone-refuses-count"] }),
        ("clone-first-of-multi", Capabilities { multi_pid: no, ..learned["clone-first-of-multi"] }),
        ("clone-refuses-multi", Capabilities { multi_pid: no, ..learned["clone-refuses-multi"] }),
        (
            "clone-two-bytes-unannounced",
            Capabilities { multi_pid: no, long_requests: no, ..learned["clone-two-bytes-unannounced"] },
        ),
        ("clone-no-adaptive", Capabilities { waits: Some(Waits::Short), ..learned["clone-no-adaptive"] }),
        ("clone-browns-out-long", Capabilities { long_answers: no, ..learned["clone-browns-out-long"] }),
        (
            "genuine-v1-4b",
            Capabilities { waits: Some(Waits::Aggressive), stn: no, ..learned["genuine-v1-4b"] },
        ),
    ] {
        assert_eq!(learned[name], expected, "{name}");
    }
}

/// An answer that is late at the one rate that the adapter understands: all rates are tried once more.
#[tokio::test(flavor = "multi_thread")]
async fn a_late_answer_loses_no_adapter() {
    let adapter = SimAdapter { line_ms: 750, ..SimAdapter::named("stn2120").unwrap() };
    let sim = VehicleSim::spawn_pty(Profile { adapter, car: None }, None).await.unwrap();
    let link = format!("elm327+serial://{}", sim.path().display()).parse().unwrap();
    let VehicleLink::Elm327(transport) = link else { panic!("{link}") };
    let (_port, rate) = open_probing(&transport, None, None).await.unwrap();
    assert_eq!(rate, 115_200);
}

/// Another adapter of the same name took the place of one that could more, on the same link: it is
/// believed no longer than it takes to disprove it.
#[tokio::test(flavor = "multi_thread")]
async fn what_another_adapter_could_is_taken_back() {
    let genuine = Profile { adapter: SimAdapter::default(), car: Some(spec(6)) };
    let sim = VehicleSim::spawn_pty(genuine, None).await.unwrap();
    let link = |sim: &VehicleSim| format!("elm327+serial://{}?baud=38400", sim.path().display());
    let (_, could) = scan_knowing(&link(&sim), Capabilities::default()).await;
    assert_eq!((could.response_count, could.multi_pid), (Some(true), Some(true)));
    for (name, response_count, multi_pid) in
        [("clone-refuses-count", Some(false), Some(true)), ("clone-refuses-multi", Some(true), Some(false))]
    {
        let profile = Profile { adapter: SimAdapter::named(name).unwrap(), car: Some(spec(6)) };
        let sim = VehicleSim::spawn_pty(profile, None).await.unwrap();
        let (report, learned) = scan_knowing(&link(&sim), could).await;
        assert_report(&report.unwrap(), name, true);
        assert_eq!(learned, Capabilities { response_count, multi_pid, ..could }, "{name}");
    }
}

/// A car that takes fewer PIDs at once than the adapter could send: asked in smaller pieces.
#[tokio::test(flavor = "multi_thread")]
async fn a_car_that_takes_few_pids_at_once() {
    for most_parameters in [1, 2, 3] {
        let car = CarSpec { most_parameters, ..spec(6) };
        let profile = Profile { adapter: SimAdapter::named("genuine-v2-2").unwrap(), car: Some(car) };
        let sim = VehicleSim::spawn_pty(profile, None).await.unwrap();
        let link = format!("elm327+serial://{}?baud=38400", sim.path().display());
        let (report, learned) = scan_knowing(&link, Capabilities::default()).await;
        assert_report(&report.unwrap(), "a car of few", true);
        // That was the car: the adapter is not blamed.
        assert_ne!(learned.multi_pid, Some(false), "{most_parameters}");
        let tried = sim.requests().iter().filter(|r| r[0] == 1 && r.len() - 1 > most_parameters).count();
        assert!(tried <= 5, "{most_parameters}: {tried} requests in vain");
    }
}

/// Services 05 and 06 as they are before CAN, scaled where a standard says how.
fn assert_older_results(report: &VehicleReport, name: &str) {
    let told: Vec<_> = report.ecus[0]
        .monitor_tests
        .iter()
        .map(|test| {
            (test.mid.as_str(), test.tid.as_str(), test.value, test.min, test.max, test.unit.as_str())
        })
        .collect();
    let expected = [
        ("01", "01", 0.45, 0.45, 0.45, "V"),
        ("01", "05", 0.072, 0.0, 1.0, "s"),
        ("01", "07", 0.1, 0.0, 0.3, "V"),
        ("01", "08", 0.9, 0.6, 1.275, "V"),
        ("02", "08", 0.75, 0.5, 1.275, "V"),
        ("01", "01", 51.0, 0.0, 192.0, ""),
        ("02", "01", 640.0, 500.0, 65535.0, ""),
        ("21", "05", 7.0, 0.0, 40.0, ""),
    ];
    assert_eq!(told, expected, "{name}");
    assert!(report.ecus[0].monitor_tests.iter().all(|test| test.passed), "{name}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_protocol() {
    let mut scans = Vec::new();
    for protocol in 1..=9 {
        scans.push(tokio::spawn(async move {
            let profile = Profile { adapter: SimAdapter::default(), car: Some(spec(protocol)) };
            let sim = VehicleSim::spawn_pty(profile, None).await.unwrap();
            let link = format!("elm327+serial://{}?baud=38400", sim.path().display());
            (protocol, scan_once(&link).await.unwrap())
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
        assert_live_values(&report, name);
        assert_eq!(report.errors, Vec::<RequestError>::new(), "{name}");
        if protocol < 6 {
            assert_older_results(&report, name);
        }
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

#[test]
fn the_command_lists_them() {
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_baygate"))
        .args(["simulate", "vehicle", "--adapter", "list", "--json"])
        .output()
        .unwrap();
    assert!(output.status.success());
    let names: Vec<String> = String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["adapter"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(names, SimAdapter::all().unwrap().into_keys().collect::<Vec<_>>());
}
