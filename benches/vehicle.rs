//! Reading a car through a dongle as slow as real ones: values per second, and a full
//! report, over the same simulated adapter and car, in turn with python-OBD; once with all of the
//! delay in the car, once with most of it between host and adapter.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod setup;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use baygate::protocols::Bundle;
use baygate::vehicle::adapter::{Adapter, Capabilities, SessionTrace};
use baygate::vehicle::report;
use baygate::vehicle::sampling::Sampling;
use baygate::vehicle::scan::{self, Contact};
use serde_json::Value;
use setup::daemon::program;
use setup::figures::{Figure, Found, digits, median};
use setup::{RUNS, number, peers};
use uuid::Uuid;

/// Where the 60 ms from request to answer lie, as a Bluetooth dongle has them.
struct World {
    name: &'static str,
    car_ms: &'static str,
    line_ms: &'static str,
    /// What is asked of the ratios: of values, of the full report, of what both ask, and of that by
    /// an adapter that is known.
    least: [Option<f64>; 4],
}

/// A car as slow as that, for which the adapter waits as long again behind each answer; and a
/// quick one, behind a line on which each way there and back counts.
const WORLDS: [World; 2] = [
    World {
        name: "slow car",
        car_ms: "60",
        line_ms: "0",
        least: [Some(4.0), Some(2.5), Some(2.5), Some(2.5)],
    },
    World { name: "slow line", car_ms: "10", line_ms: "50", least: [None, None, None, Some(2.5)] },
];
/// What our report asks and the peer's does not: permanent codes, what could be controlled, UDS and
/// the addresses for it.
const OURS_ALONE: [&str; 6] = ["0A", "08", "19", "22", "ATSH", "ATCRA"];
/// What a mechanic looks at: load, coolant, trims, pressure, speeds, timing, intake, throttle, run time, fuel.
const PIDS: [u8; 12] = [0x04, 0x05, 0x06, 0x07, 0x0B, 0x0C, 0x0D, 0x0E, 0x0F, 0x11, 0x1F, 0x2F];

fn main() {
    let seconds = number("BAYGATE_BENCH_SECONDS", 6);
    let mut found = Found::default();
    for world in &WORLDS {
        compare(world, seconds, &mut found);
    }
    found.keep("vehicle");
}

fn compare(world: &World, seconds: usize, found: &mut Found) {
    let car = Car::plug_in(world);
    let (mut ours, mut theirs, mut their_reports) = (vec![], vec![], vec![]);
    let (mut whole, mut shared, mut known_whole, mut known_shared) = (vec![], vec![], vec![], vec![]);
    let mut told = (0, 0.0);
    for _ in setup::rounds("vehicle", 0..RUNS) {
        let (rate, known) = values(&car, seconds);
        ours.push(rate);
        theirs.push(values_of_peer(&car, seconds));
        let (report, took) = report(&car);
        whole.push(took.whole);
        shared.push(took.shared);
        let took = report_by_known(&car, known);
        known_whole.push(took.whole);
        known_shared.push(took.shared);
        let (count, took) = report_of_peer(&car, &frozen(&report));
        their_reports.push(took);
        told = (counted(&report), count);
    }
    let [values, report, asked_by_both, by_known] = world.least;
    let name = |what: &str| format!("{what}, {}", world.name);
    found.figures.push(Figure::ratio(
        &name("values through a dongle"),
        "/s",
        median(ours),
        median(theirs),
        values,
    ));
    let them = median(their_reports);
    for (what, us, least) in [
        ("full report", whole, report),
        ("of it what both ask", shared, asked_by_both),
        ("full report, adapter known", known_whole, report),
        ("of it what both ask, adapter known", known_shared, by_known),
    ] {
        let us = median(us);
        let mut figure = Figure::ratio(&name(what), "/h", 3600.0 / us, 3600.0 / them, least);
        (figure.ours, figure.peer) = (format!("{} s", digits(us)), format!("{} s", digits(them)));
        found.figures.push(figure);
    }
    found.notes.push(format!(
        "vehicle, {}: a reply after {} ms in the car and {} ms on the line, CAN 11 bit, two units; the report holds {} values here, {} in python-OBD 0.7.3",
        world.name, world.car_ms, world.line_ms, told.0, told.1
    ));
}

/// A simulated car behind a simulated adapter. Ends when dropped.
struct Car {
    folder: tempfile::TempDir,
    sim: Child,
}

impl Car {
    fn plug_in(world: &World) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let sim = program()
            .args(["simulate", "vehicle", "--pty", "--dtc", "P0420", "--latency-ms", world.car_ms])
            .args(["--line-ms", world.line_ms, "--link-to"])
            .arg(folder.path().join("dongle"))
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let car = Self { folder, sim };
        let deadline = Instant::now() + Duration::from_secs(10);
        while !car.port().exists() {
            assert!(Instant::now() < deadline, "the simulator does not come up");
            std::thread::sleep(Duration::from_millis(5));
        }
        car
    }

    fn port(&self) -> PathBuf {
        self.folder.path().join("dongle")
    }

    fn link(&self) -> String {
        format!("elm327+serial://{}", self.port().display())
    }
}

impl Drop for Car {
    fn drop(&mut self) {
        let _ = self.sim.kill();
        let _ = self.sim.wait();
    }
}

/// Values per second, connecting and learning the adapter not counted; nor does the peer count it.
/// And what was learned.
#[allow(clippy::cast_precision_loss)]
fn values(car: &Car, seconds: usize) -> (f64, Capabilities) {
    runtime().block_on(async {
        let bundle = Bundle::load(Path::new("firmware-protocols")).unwrap();
        let mut adapter = Adapter::open(&car.link().parse().unwrap(), &bundle, None, None).await.unwrap();
        let record = scan::run(&mut adapter, &bundle, Uuid::nil(), "bench".parse().unwrap(), &mut |_| {})
            .await
            .unwrap();
        // What the service samples with, knowing what the scan and the last contact told it.
        let mut sampling = Sampling::default();
        sampling.scanned(&record);
        match scan::contact(&mut adapter).await.unwrap() {
            Contact::Answers(_, units) => sampling.met(&units),
            Contact::Silent(why) => panic!("the car fell silent: {why}"),
        }
        let (mut count, begun) = (0, Instant::now());
        while begun.elapsed() < Duration::from_secs(seconds as u64) {
            let outcomes = sampling.ask(&mut adapter, &bundle.pids, &PIDS).await.unwrap();
            count += outcomes.iter().filter(|outcome| !outcome.messages.is_empty()).count();
        }
        (count as f64 / begun.elapsed().as_secs_f64(), adapter.capabilities())
    })
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

fn values_of_peer(car: &Car, seconds: usize) -> f64 {
    let pids = PIDS.map(|pid| format!("{pid:02X}"));
    let (count, took) = peer("values", car, &[vec![seconds.to_string()], pids.to_vec()].concat());
    count / took
}

/// How long a report took, in seconds.
struct Took {
    whole: f64,
    /// Without what the peer does not ask.
    shared: f64,
}

/// The program as a user runs it, starting included.
fn report(car: &Car) -> (Value, Took) {
    let trace = car.folder.path().join("trace.jsonl");
    let begun = Instant::now();
    let done = program().args(["scan", &car.link(), "--json", "--trace"]).arg(&trace).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let whole = begun.elapsed().as_secs_f64();
    (serde_json::from_slice(&done.stdout).unwrap(), Took { whole, shared: whole - alone(&trace) })
}

/// As the daemon scans by an adapter that it met before: connecting counted, nothing tried out.
fn report_by_known(car: &Car, known: Capabilities) -> Took {
    let bundle = Bundle::load(Path::new("firmware-protocols")).unwrap();
    let path = car.folder.path().join("known.jsonl");
    let trace =
        SessionTrace::begin(Box::new(std::fs::File::create(&path).unwrap()), &car.link().parse().unwrap());
    let begun = Instant::now();
    runtime().block_on(async {
        let mut adapter =
            Adapter::open(&car.link().parse().unwrap(), &bundle, None, Some(trace)).await.unwrap();
        adapter.remember(known);
        let record = scan::run(&mut adapter, &bundle, Uuid::nil(), "bench".parse().unwrap(), &mut |_| {})
            .await
            .unwrap();
        assert!(report::build(&record, &bundle).errors.is_empty());
    });
    let whole = begun.elapsed().as_secs_f64();
    Took { whole, shared: whole - alone(&path) }
}

/// Seconds of a session that went to [`OURS_ALONE`]: from each such line to the next line.
fn alone(trace: &Path) -> f64 {
    let text = std::fs::read_to_string(trace).unwrap();
    let rows: Vec<Value> = text.lines().skip(1).map(|row| serde_json::from_str(row).unwrap()).collect();
    let at = |row: &Value| row["t_ms"].as_f64().unwrap() / 1000.0;
    let mut lines: Vec<(f64, String)> = Vec::new();
    for row in rows.iter().filter(|row| row["dir"] == "tx") {
        let text = row["ascii"].as_str().unwrap();
        match lines.last_mut().filter(|(_, line)| !line.ends_with("\\r")) {
            Some((_, line)) => line.push_str(text),
            None => lines.push((at(row), text.to_owned())),
        }
    }
    lines.push((at(rows.last().unwrap()), String::new()));
    let ours = lines.windows(2).filter(|two| OURS_ALONE.iter().any(|begin| two[0].1.starts_with(begin)));
    let ours: Vec<f64> = ours.map(|two| two[1].0 - two[0].0).collect();
    assert!(ours.len() >= 4, "0A, 08 and two units' 19 at least: {lines:?}");
    ours.iter().sum()
}

fn report_of_peer(car: &Car, frozen: &[String]) -> (f64, f64) {
    peer("report", car, frozen)
}

/// PIDs of the freeze frame in our report, so that the peer asks the same.
fn frozen(report: &Value) -> Vec<String> {
    let frames =
        report["ecus"].as_array().unwrap().iter().flat_map(|ecu| ecu["freeze_frames"].as_array().unwrap());
    let values = frames.flat_map(|frame| frame["values"].as_array().unwrap());
    let pids: BTreeSet<String> = values.map(|value| value["pid"].as_str().unwrap()[2..].to_owned()).collect();
    pids.into_iter().collect()
}

/// Values in all places of the report.
fn counted(report: &Value) -> usize {
    let of = |ecu: &Value| {
        let lists = ["values", "dtcs", "monitor_tests", "iupr", "calibration_ids", "cvns"];
        lists.iter().map(|list| ecu[list].as_array().map_or(0, Vec::len)).sum::<usize>()
    };
    report["ecus"].as_array().unwrap().iter().map(of).sum()
}

fn peer(what: &str, car: &Car, more: &[String]) -> (f64, f64) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/peers/python_obd.py");
    let done = Command::new(peers()).arg(script).arg(what).arg(car.port()).args(more).output().unwrap();
    let text = String::from_utf8(done.stdout).unwrap();
    let words: Vec<f64> = text.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    let [count, seconds] = words[..] else {
        panic!("the peer said {text:?}: {}", String::from_utf8_lossy(&done.stderr))
    };
    assert!(count > 0.0, "the peer reads the car: {}", String::from_utf8_lossy(&done.stderr));
    (count, seconds)
}
