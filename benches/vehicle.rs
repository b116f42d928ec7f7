//! Reading a car through a dongle as slow as real ones: values per second, and a full
//! report, over the same simulated adapter and car, in turn with python-OBD.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod setup;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use baygate::protocols::Bundle;
use baygate::vehicle::adapter::Adapter;
use baygate::vehicle::sampling::Sampling;
use baygate::vehicle::scan::{self, Contact};
use serde_json::Value;
use setup::daemon::program;
use setup::figures::{Figure, Found, digits, median};
use setup::{RUNS, number, peers};
use uuid::Uuid;

/// From request to answer, as a Bluetooth dongle has it.
const LATENCY_MS: &str = "60";
/// What a mechanic looks at: load, coolant, trims, pressure, speeds, timing, intake, throttle, run time, fuel.
const PIDS: [u8; 12] = [0x04, 0x05, 0x06, 0x07, 0x0B, 0x0C, 0x0D, 0x0E, 0x0F, 0x11, 0x1F, 0x2F];

fn main() {
    let seconds = number("BAYGATE_BENCH_SECONDS", 6);
    let car = Car::plug_in();
    let (mut ours, mut theirs, mut our_reports, mut their_reports) = (vec![], vec![], vec![], vec![]);
    let mut told = (0, 0.0);
    for _ in 0..RUNS {
        ours.push(values(&car, seconds));
        theirs.push(values_of_peer(&car, seconds));
        let (report, took) = report(&car);
        our_reports.push(took);
        let (count, took) = report_of_peer(&car, &frozen(&report));
        their_reports.push(took);
        told = (counted(&report), count);
    }
    let mut found = Found::default();
    found.figures.push(Figure::ratio(
        "values through a dongle",
        "/s",
        median(ours),
        median(theirs),
        Some(4.0),
    ));
    let (us, them) = (median(our_reports), median(their_reports));
    let mut figure = Figure::ratio("full report", "/h", 3600.0 / us, 3600.0 / them, Some(2.5));
    (figure.ours, figure.peer) = (format!("{} s", digits(us)), format!("{} s", digits(them)));
    found.figures.push(figure);
    found.notes.push(format!(
        "vehicle: a reply after {LATENCY_MS} ms, CAN 11 bit, two units; the report holds {} values here, {} in python-OBD 0.7.3",
        told.0, told.1
    ));
    found.keep("vehicle");
}

/// A simulated car behind a simulated adapter. Ends when dropped.
struct Car {
    folder: tempfile::TempDir,
    sim: Child,
}

impl Car {
    fn plug_in() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let sim = program()
            .args(["simulate", "vehicle", "--pty", "--dtc", "P0420", "--latency-ms", LATENCY_MS, "--link-to"])
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
#[allow(clippy::cast_precision_loss)]
fn values(car: &Car, seconds: usize) -> f64 {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
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
        count as f64 / begun.elapsed().as_secs_f64()
    })
}

fn values_of_peer(car: &Car, seconds: usize) -> f64 {
    let pids = PIDS.map(|pid| format!("{pid:02X}"));
    let (count, took) = peer("values", car, &[vec![seconds.to_string()], pids.to_vec()].concat());
    count / took
}

/// The program as a user runs it, starting included.
fn report(car: &Car) -> (Value, f64) {
    let begun = Instant::now();
    let done = program().args(["scan", &car.link(), "--json"]).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let took = begun.elapsed().as_secs_f64();
    (serde_json::from_slice(&done.stdout).unwrap(), took)
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
