//! `scan`, `watch` and `devices` standing alone: report, trace with the VIN
//! masked, exit statuses.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod vehicle_bay;

use std::collections::BTreeSet;

use baygate::cli::{Exit, Global, devices, scan, watch};
use baygate::config::values::{Locale, VehicleLink};
use baygate::event::vehicle::{Readiness, VehicleReport, VinCheck};
use baygate::sim::vehicle::{Adapter, CarSpec, Profile, Recording, ReplaySim, VehicleSim};
use baygate::vehicle::adapter::{Adapter as CarAdapter, SessionTrace};
use baygate::vehicle::{report, scan as full_scan};
use serde_json::Value;
use vehicle_bay::{bundle, without_times_and_vin};

const VIN: &str = "1M8GDM9AXKP042788";

fn global(dir: &std::path::Path) -> Global {
    Global { config: dir.join("none.toml"), json: false, locale: Some(Locale::En) }
}

fn parsed<A: clap::Args + clap::FromArgMatches>(words: &[&str]) -> A {
    let command = A::augment_args(clap::Command::new("test").no_binary_name(true));
    A::from_arg_matches(&command.get_matches_from(words)).unwrap()
}

async fn car() -> (VehicleSim, String) {
    let profile = Profile { adapter: Adapter::default(), car: Some(CarSpec::default()) };
    let sim = VehicleSim::spawn_pty(profile, None).await.unwrap();
    let link = format!("elm327+serial://{}?baud=38400", sim.path().display());
    (sim, link)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scan_reports_and_its_trace_hides_the_vin() {
    let dir = tempfile::tempdir().unwrap();
    let (_sim, link) = car().await;
    let path = dir.path().join("car.jsonl");
    let trace = SessionTrace::begin(Box::new(std::fs::File::create(&path).unwrap()), &link.parse().unwrap());
    let report = scan::scan_link(&link.parse().unwrap(), &bundle(), Some(trace), Locale::En).await.unwrap();
    assert_eq!(report.vin.unwrap().as_str(), VIN);

    let text = std::fs::read_to_string(&path).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines[0]["baygate_trace"], 1);
    let bytes = |direction: &str| -> Vec<u8> {
        lines
            .iter()
            .filter(|line| line["dir"] == direction)
            .flat_map(|line| hex::decode(line["hex"].as_str().unwrap()).unwrap())
            .collect()
    };
    let (sent, received) = (bytes("tx"), String::from_utf8(bytes("rx")).unwrap());
    // Whoever was here before may have left a clearing under way: no bare end of line.
    assert!(sent.starts_with(b"\x7FXXXXXXXX\r"), "{sent:02X?}");
    assert!(String::from_utf8_lossy(&sent).contains("0902\r"));
    // The serial part of the VIN, as hex digits, in whatever frames.
    let digits: String = received.chars().filter(char::is_ascii_hexdigit).collect();
    assert!(!digits.contains(&hex::encode_upper(&VIN[11..])), "{received}");
    assert!(!digits.contains(&hex::encode_upper(&VIN[4..11])), "{received}");
    assert!(received.contains("7E8"), "and the rest is there");
    // Times never go back.
    let times: Vec<f64> = lines[1..].iter().map(|line| line["t_ms"].as_f64().unwrap()).collect();
    assert!(times.windows(2).all(|pair| pair[0] <= pair[1]));
}

/// Contract §5: `scan` joins the warnings in, also where no daemon runs.
#[tokio::test(flavor = "multi_thread")]
async fn a_scan_beside_the_daemon_tells_its_warnings_too() {
    let dir = tempfile::tempdir().unwrap();
    let spec = CarSpec { confirmed: vec!["P0420".parse().unwrap()], ..CarSpec::default() };
    let profile = Profile { adapter: Adapter::default(), car: Some(spec) };
    let sim = VehicleSim::spawn_pty(profile, None).await.unwrap();
    let link = format!("elm327+serial://{}?baud=38400", sim.path().display());
    let root = env!("CARGO_MANIFEST_DIR");
    let config = |rules: &str| {
        let path = dir.path().join("baygate.toml");
        let text = format!(
            "[gateway]\nstore = \"S\"\nid = \"g\"\nfirmware_protocols = \"{root}/firmware-protocols\"\nshare_dir = \"{rules}\"\n"
        );
        std::fs::write(&path, text).unwrap();
        path
    };
    let scan = async |rules: &str| {
        let output = tokio::process::Command::new(env!("CARGO_BIN_EXE_baygate"))
            .args(["scan", &link, "--json", "--config"])
            .arg(config(rules))
            .output()
            .await
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        (report, String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (report, _) = scan(&format!("{root}/config")).await;
    let rules: Vec<&str> =
        report["warnings"].as_array().unwrap().iter().map(|w| w["rule"].as_str().unwrap()).collect();
    assert!(rules.contains(&"dtc-confirmed"), "{rules:?}");
    assert_eq!(report["warnings"][0]["visit"], report["visit"]);
    // Rules that cannot be used cost the warnings, not the report, and an empty list is not claimed.
    let (report, said) = scan("/nowhere").await;
    assert_eq!((&report["vin_check"], report.get("warnings")), (&Value::from("ok"), None));
    assert!(said.contains("/nowhere/rules"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn exit_statuses() {
    let dir = tempfile::tempdir().unwrap();
    let global = global(dir.path());
    let (sim, link) = car().await;
    let scan_args = |words: &[&str]| parsed::<scan::Args>(words);
    assert_eq!(scan::run(scan_args(&[&link]), &global).await.unwrap(), Exit::Done);
    let json = Global { json: true, ..global.clone() };
    assert_eq!(scan::run(scan_args(&[&link]), &json).await.unwrap(), Exit::Done);
    let watch_args = parsed::<watch::Args>(&[&link, "0C", "--rounds", "2"]);
    assert_eq!(watch::run(watch_args, &json).await.unwrap(), Exit::Done);
    let unknown = parsed::<watch::Args>(&[&link, "D5"]);
    assert_eq!(watch::run(unknown, &json).await.unwrap(), Exit::Usage);

    // Held: the locks of a first scan that is under way.
    let VehicleLink::Elm327(transport) = link.parse().unwrap() else { panic!("{link} is an ELM327") };
    let held = baygate::link::open(&transport, None).await.unwrap();
    assert_eq!(scan::run(scan_args(&[&link]), &global).await.unwrap(), Exit::Device);
    drop(held);

    // No car, no port, nobody listening.
    sim.unplug();
    assert_eq!(scan::run(scan_args(&[&link]), &global).await.unwrap(), Exit::Device);
    let missing = format!("elm327+serial://{}", dir.path().join("none").display());
    assert_eq!(scan::run(scan_args(&[&missing]), &global).await.unwrap(), Exit::Device);
    let closed = scan_args(&["elm327+tcp://127.0.0.1:1"]);
    assert_eq!(scan::run(closed, &global).await.unwrap(), Exit::Device);
    // An id without a configuration, and a trace that cannot be written.
    assert_eq!(scan::run(scan_args(&["bay-1"]), &global).await.unwrap(), Exit::Usage);
    let trace = scan_args(&[&link, "--trace", "/proc/none/x"]);
    assert!(scan::run(trace, &global).await.unwrap_err().to_string().contains("trace file"));
    assert_eq!(devices::run(devices::Args {}, &global).await.unwrap(), Exit::Done);
}

/// Everything of J1979 that the report holds, in order of worth, within the promised time.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_scan_asks_all_services_and_takes_less_than_ten_seconds() {
    let spec = CarSpec {
        latency_ms: 30,
        confirmed: vec!["P0420".parse().unwrap()],
        pending: vec!["P0301".parse().unwrap()],
        ..CarSpec::default()
    };
    let profile = Profile { adapter: Adapter::default(), car: Some(spec) };
    let sim = VehicleSim::spawn_pty(profile, None).await.unwrap();
    let link = format!("elm327+serial://{}?baud=38400", sim.path().display());
    let report = scan::scan_link(&link.parse().unwrap(), &bundle(), None, Locale::En).await.unwrap();
    let requests = sim.requests();
    println!("full scan at 30 ms a reply: {} ms, {} requests", report.duration_ms, requests.len());
    let frames = requests.iter().filter(|request| request[0] == 0x02).count();
    println!("freeze frames: {frames} requests");
    assert!(report.duration_ms < 10_000, "{} ms", report.duration_ms);
    assert_eq!(report.errors, []);
    let engine = &report.ecus[0];
    assert_eq!(engine.monitor_tests.len(), 10, "{:?}", engine.monitor_tests);
    assert!(engine.monitor_tests.iter().all(|test| test.passed));
    assert!(engine.iupr.len() > 2 && !engine.cvns.is_empty(), "{:?}", engine.iupr);
    // Alone, or somewhere among others.
    let holds = |request: &[u8], payload: &[u8]| {
        request.starts_with(payload)
            || request[0] == payload[0]
                && payload.len() > 1
                && request[1..].windows(payload.len() - 1).any(|part| part == &payload[1..])
    };
    let first = |payload: &[u8]| {
        let place = requests.iter().position(|request| holds(request, payload));
        place.unwrap_or_else(|| panic!("{} was not asked", hex::encode_upper(payload)))
    };
    // Masks, readiness, codes, VIN, freeze frame, live data, monitors, then the long answers.
    let order: Vec<usize> = [
        &[0x01, 0x00][..],
        &[0x01, 0x01],
        &[0x03],
        &[0x07],
        &[0x0A],
        &[0x09, 0x02],
        &[0x02, 0x02, 0x00],
        // How many frames there are, before they share the questions.
        &[0x02, 0x02, 0x01],
        &[0x02, 0x03, 0x00],
        &[0x01, 0x0C],
        &[0x06, 0x00],
        &[0x06, 0x21],
        &[0x06, 0xA5],
        &[0x08, 0x00],
        &[0x09, 0x06],
        &[0x09, 0x08],
        &[0x09, 0x0A],
        &[0x09, 0x04],
        &[0x19, 0x02],
        &[0x19, 0x06],
    ]
    .map(first)
    .into();
    assert!(order.is_sorted(), "{order:?}");
    assert!(requests.iter().all(|request| request[0] != 0x05), "05 is not used on CAN");
    assert!(requests.contains(&vec![0x08, 0x00]) && requests.iter().all(|r| r[0] != 0x08 || r.len() == 2));
    assert_eq!(engine.controls, ["01"]);
    assert_eq!(engine.readiness_this_cycle["catalyst"], Readiness::Complete);
    let values = engine.freeze_frames[0].values.iter();
    let frozen: BTreeSet<_> = values.map(|value| value.pid.as_str()).collect();
    assert_eq!(frozen.len(), 9, "{frozen:?}");
    // Code, mask, nine PIDs in three questions, and whether there is another frame.
    assert_eq!(frames, 6);
}

/// The car is driven away, or the plug pulled, in the middle: what was read stands, and says so.
#[tokio::test(flavor = "multi_thread")]
async fn a_car_that_goes_away_leaves_a_marked_report() {
    for (name, code) in [("the car", "car-silent"), ("the adapter", "adapter-gone")] {
        let (mut sim, link) = car().await;
        let bundle = bundle();
        let mut adapter = CarAdapter::open(&link.parse().unwrap(), &bundle, None, None).await.unwrap();
        let (gone, mut going) = tokio::sync::mpsc::unbounded_channel();
        let whole = code == "adapter-gone";
        let mut step = move |progress: full_scan::Progress| {
            if progress.request.service() == 0x01 && progress.request.parameters().contains(&0x0C) {
                let _ = gone.send(());
            }
        };
        let id = "bay-1".parse().unwrap();
        let scanning = full_scan::run(&mut adapter, &bundle, uuid::Uuid::nil(), id, &mut step);
        let leaving = async {
            going.recv().await;
            if whole { sim.vanish().await } else { sim.unplug() }
        };
        let (record, ()) = tokio::join!(scanning, leaving);
        let record = record.unwrap();
        assert_eq!(record.broke_off.as_deref(), Some(code), "{name}");
        let report = report::build(&record, &bundle);
        assert_eq!(report.vin.as_ref().map(|vin| vin.as_str()), Some(VIN), "{name}");
        assert!(!report.assessable && report.not_assessable_because.contains(&"scan-incomplete".into()));
        assert_eq!(report.inspection.blocking.contains(&"communication-failed".into()), !whole, "{name}");
        assert!(report.errors.len() < 20, "{name}: {:?}", report.errors);
        let last = report.errors.last().map(|error| (error.request.as_str(), error.error.as_str()));
        assert_eq!(last, Some(("scan", code)), "{name}");
    }
}

async fn replayed(trace: &str) -> (VehicleReport, std::collections::BTreeMap<String, u64>) {
    let recording = Recording::read(trace).unwrap();
    let sim = ReplaySim::spawn_tcp("127.0.0.1:0".parse().unwrap(), recording).await.unwrap();
    let link = format!("elm327+tcp://{}", sim.name());
    let report = scan::scan_link(&link.parse().unwrap(), &bundle(), None, Locale::En).await.unwrap();
    (report, sim.missed())
}

/// The lines of a trace as exchanges: what was sent, with what came back.
fn exchanges(trace: &str) -> Vec<Vec<&str>> {
    let mut exchanges: Vec<Vec<&str>> = Vec::new();
    let mut ended = true;
    for line in trace.lines().skip(1) {
        let record: Value = serde_json::from_str(line).unwrap();
        // A line that is looked at in the echo before it is ended is sent in two parts.
        if record["dir"] == "tx" && ended {
            exchanges.push(vec![line]);
        } else {
            exchanges.last_mut().unwrap().push(line);
        }
        if record["dir"] == "tx" {
            ended = record["hex"].as_str().unwrap().ends_with("0D");
        }
    }
    exchanges
}

fn command(exchange: &[&str]) -> String {
    let sent: Value = serde_json::from_str(exchange[0]).unwrap();
    String::from_utf8(hex::decode(sent["hex"].as_str().unwrap()).unwrap()).unwrap().trim().to_owned()
}

/// Contract §1: a trace played back gives the same report, in any order of asking, and with
/// a hole in it all but what the hole held. On every kind of bus.
#[tokio::test(flavor = "multi_thread")]
async fn a_replayed_trace_gives_the_same_report() {
    for protocol in [6, 7, 3, 5] {
        let dir = tempfile::tempdir().unwrap();
        let spec = CarSpec {
            protocol,
            latency_ms: 2,
            confirmed: vec!["P0420".parse().unwrap()],
            pending: vec!["P0301".parse().unwrap()],
            ..CarSpec::default()
        };
        let profile = Profile { adapter: Adapter::default(), car: Some(spec) };
        let sim = VehicleSim::spawn_tcp("127.0.0.1:0".parse().unwrap(), profile).await.unwrap();
        let link = format!("elm327+tcp://{}", sim.addr().unwrap());
        let path = dir.path().join("car.jsonl");
        let trace =
            SessionTrace::begin(Box::new(std::fs::File::create(&path).unwrap()), &link.parse().unwrap());
        let original =
            scan::scan_link(&link.parse().unwrap(), &bundle(), Some(trace), Locale::En).await.unwrap();
        assert_eq!(original.vin.as_ref().map(|vin| vin.as_str()), Some(VIN));
        let original = without_times_and_vin(original);
        let trace = std::fs::read_to_string(&path).unwrap();

        let (again, missed) = replayed(&trace).await;
        assert_eq!((again.vin.clone(), again.vin_check), (None, VinCheck::Missing), "a masked VIN is no VIN");
        assert_eq!(missed.len(), 0, "{missed:?}");
        assert_eq!(without_times_and_vin(again), original, "protocol {protocol}");

        // Recorded in another order: what follows the first contact, backwards; what one unit alone
        // was asked stays behind the choice of that unit.
        let mut parts = exchanges(&trace);
        let first = parts.iter().position(|exchange| command(exchange).starts_with("0100")).unwrap();
        let alone = parts.iter().position(|exchange| command(exchange).starts_with("ATSH"));
        let alone = alone.unwrap_or(parts.len());
        parts[first + 1..alone].reverse();
        let header = trace.lines().next().unwrap();
        let (again, missed) = replayed(&format!("{header}\n{}", parts.concat().join("\n"))).await;
        assert_eq!(missed.len(), 0, "{missed:?}");
        assert_eq!(without_times_and_vin(again), original, "protocol {protocol}, backwards");

        // With a hole.
        parts.retain(|exchange| !command(exchange).starts_with("0906"));
        let (again, missed) = replayed(&format!("{header}\n{}", parts.concat().join("\n"))).await;
        assert_eq!(missed.keys().collect::<Vec<_>>(), ["0906"]);
        let failed: Vec<_> = again.errors.iter().filter(|error| error.request == "0906").collect();
        assert_eq!(failed.len(), 1);
        assert_eq!(failed[0].error, "no data");
    }
}

/// `watch` on a terminal of its own: drawn in place, ended by a key, and given back.
#[tokio::test(flavor = "multi_thread")]
async fn watch_draws_in_place_and_gives_the_terminal_back() {
    use std::io::{Read, Write};
    let dir = tempfile::tempdir().unwrap();
    let (_sim, link) = car().await;
    let pty = nix::pty::openpty(None, None).unwrap();
    let before = nix::sys::termios::tcgetattr(&pty.slave).unwrap();
    let terminal = || std::process::Stdio::from(pty.slave.try_clone().unwrap());
    let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_baygate"))
        .args(["watch", &link, "0C", "05", "--locale", "zh-CN", "--config"])
        .arg(dir.path().join("none.toml"))
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .stdin(terminal())
        .stdout(terminal())
        .stderr(terminal())
        .spawn()
        .unwrap();
    let mut master = std::fs::File::from(pty.master);
    let mut keyboard = master.try_clone().unwrap();
    let (told, mut telling) = tokio::sync::mpsc::unbounded_channel::<Vec<u8>>();
    std::thread::spawn(move || {
        let mut piece = [0; 4096];
        while let Ok(n) = master.read(&mut piece) {
            if n == 0 || told.send(piece[..n].to_vec()).is_err() {
                return;
            }
        }
    });
    let mut screen = Vec::new();
    let deadline = tokio::time::Instant::now() + vehicle_bay::DEADLINE;
    while String::from_utf8_lossy(&screen).matches("\x1b[H").count() < 3 {
        let piece = tokio::time::timeout_at(deadline, telling.recv()).await;
        screen.extend(piece.expect("three pictures").expect("it still runs"));
    }
    let shown = String::from_utf8_lossy(&screen).into_owned();
    for word in ["\x1b[?1049h", "发动机转速", "冷却液温度", "rpm", "°C", "最小", "个/秒"] {
        assert!(shown.contains(word), "{word} in {shown:?}");
    }
    keyboard.write_all(b"q").unwrap();
    let ended = tokio::task::spawn_blocking(move || child.wait().unwrap());
    assert!(tokio::time::timeout_at(deadline, ended).await.expect("q ends it").unwrap().success());
    // What it said last may still be on its way.
    loop {
        let shown = String::from_utf8_lossy(&screen).into_owned();
        let after = shown.split_once("\x1b[?25h\x1b[?1049l").map_or("", |(_, after)| after);
        if after.contains("发动机转速") {
            break;
        }
        let piece = tokio::time::timeout_at(deadline, telling.recv()).await.ok().flatten();
        screen.extend(piece.unwrap_or_else(|| panic!("the last picture does not stay: {shown:?}")));
    }
    let after = nix::sys::termios::tcgetattr(&pty.slave).unwrap();
    assert_eq!(after.local_flags, before.local_flags);
}

/// The page beside the report: written, in the asked language, with the store's name.
#[tokio::test(flavor = "multi_thread")]
async fn a_scan_writes_a_page_to_hand_out() {
    let dir = tempfile::tempdir().unwrap();
    let spec = CarSpec { confirmed: vec!["P0420".parse().unwrap()], ..CarSpec::default() };
    let profile = Profile { adapter: Adapter::default(), car: Some(spec) };
    let sim = VehicleSim::spawn_pty(profile, None).await.unwrap();
    let link = format!("elm327+serial://{}?baud=38400", sim.path().display());
    let page = dir.path().join("report.html");
    let output = tokio::process::Command::new(env!("CARGO_BIN_EXE_baygate"))
        .args(["scan", &link, "--json", "--locale", "zh-CN", "--store-name", "<星河> & 店", "--html"])
        .arg(&page)
        .arg("--config")
        .arg(dir.path().join("none.toml"))
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .await
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["inspection"]["blocking"], serde_json::json!(["mil-on", "dtc-confirmed"]));
    let page = std::fs::read_to_string(&page).unwrap();
    for word in ["&lt;星河&gt; &amp; 店", VIN, "P0420", "预计不通过", "发动机故障灯点亮"] {
        assert!(page.contains(word), "{word}");
    }
}
