//! `scan --trace` on a bus: every frame as a candump log, the VIN masked, and played back.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod vehicle_bay;

use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use baygate::cli::{Exit, Global, scan};
use baygate::config::values::{Locale, VehicleLink};
use baygate::event::vehicle::VehicleReport;
use baygate::sim::vehicle::{
    Adapter as Dongle, CarSpec, Profile, SlcanProfile, SlcanSim, Tape, Truck, VehicleSim,
};
use baygate::vehicle::adapter::SessionTrace;
use baygate::vehicle::candump;
use vehicle_bay::{bundle, without_times_and_vin};

const VIN: &str = "1M8GDM9AXKP042788";

fn here() -> std::net::SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

fn car(protocol: u8) -> CarSpec {
    CarSpec {
        protocol,
        latency_ms: 2,
        confirmed: vec!["P0420".parse().unwrap()],
        pending: vec!["P0301".parse().unwrap()],
        ..CarSpec::default()
    }
}

/// A car whose units talk among themselves, too.
async fn adapter_on(car: &CarSpec, bitrate: u32) -> (SlcanSim, VehicleLink) {
    let talkative = SlcanProfile { chatter: true, ..SlcanProfile::default() };
    let sim = SlcanSim::spawn_tcp(here(), talkative, car).await.unwrap();
    let link = format!("slcan+tcp://{}?bitrate={bitrate}", sim.name());
    (sim, link.parse().unwrap())
}

/// The report of a scan, and what was written down of it.
async fn traced(link: &VehicleLink, path: &Path) -> (VehicleReport, String) {
    let file = std::fs::File::create(path).unwrap();
    let trace = SessionTrace::begin(Box::new(file), link);
    let report = scan::scan_link(link, &bundle(), Some(trace), Locale::En).await.unwrap();
    (report, std::fs::read_to_string(path).unwrap())
}

async fn command(link: &str, trace: &Path) -> Exit {
    let command = <scan::Args as clap::Args>::augment_args(clap::Command::new("test").no_binary_name(true));
    let words = [link, "--trace", trace.to_str().unwrap()];
    let args =
        <scan::Args as clap::FromArgMatches>::from_arg_matches(&command.get_matches_from(words)).unwrap();
    let config = trace.with_file_name("none.toml");
    scan::run(args, &Global { config, json: true, locale: Some(Locale::En) }).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_writes_every_frame_and_not_the_vin() {
    let dir = tempfile::tempdir().unwrap();
    let (_sim, link) = adapter_on(&car(6), 500_000).await;
    let path = dir.path().join("car.log");
    assert_eq!(command(&link.to_string(), &path).await, Exit::Done);

    let text = std::fs::read_to_string(&path).unwrap();
    let marks: Vec<&str> = text.lines().map(|line| line.rsplit(' ').next().unwrap()).collect();
    assert!(marks.len() > 60 && marks.iter().all(|mark| ["T", "R"].contains(mark)), "{} lines", marks.len());
    for line in text.lines() {
        assert!(candump::parse(line.as_bytes()).is_some(), "{line}");
    }
    let sent: Vec<&str> = text.lines().filter(|line| line.ends_with(" T")).collect();
    for frame in [" slcan 7DF#020100", " slcan 7DF#020902", " slcan 7E0#30"] {
        assert!(sent.iter().any(|line| line.contains(frame)), "{frame} in {sent:#?}");
    }
    // Heard before the first question, while nothing was asked.
    assert!(text.starts_with('(') && text.lines().next().unwrap().contains(" slcan 280#"), "{text}");
    for piece in VIN.as_bytes().windows(4) {
        assert!(!text.contains(&hex::encode_upper(piece)), "{piece:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bus_played_back_gives_the_same_report() {
    let dir = tempfile::tempdir().unwrap();
    for (protocol, vin) in [(6, Some(VIN)), (7, Some(VIN)), (6, None)] {
        let car = CarSpec { vin: vin.map(str::to_owned), ..car(protocol) };
        let (sim, link) = adapter_on(&car, 500_000).await;
        let (report, text) = traced(&link, &dir.path().join("car.log")).await;
        assert_eq!(report.vin.as_ref().map(|vin| vin.as_str()), vin);
        assert!(report.ecus[0].calibration_ids.concat().len() > 3, "text that looks like a number");
        sim.stop().await;
        // As it was written, and without the letters that say who spoke.
        let unmarked: String = text.lines().map(|line| format!("{}\n", &line[..line.len() - 2])).collect();
        for log in [text, unmarked] {
            let sim = SlcanSim::replay(Tape::read(&log).unwrap(), Some(here()), None).await.unwrap();
            let link = format!("slcan+tcp://{}?bitrate=500000", sim.name()).parse().unwrap();
            let again = scan::scan_link(&link, &bundle(), None, Locale::En).await.unwrap();
            assert_eq!(again.vin, None, "masked");
            assert_eq!(without_times_and_vin(again), without_times_and_vin(report.clone()), "{protocol}");
            assert!(sim.missed().is_empty(), "{protocol}: {:?}", sim.missed());
            sim.stop().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_truck_broadcasts_again() {
    let dir = tempfile::tempdir().unwrap();
    let truck = CarSpec { protocol: 9, truck: Some(Truck::usual(Some(VIN))), ..CarSpec::default() };
    let (_sim, link) = adapter_on(&truck, 250_000).await;
    let (report, text) = traced(&link, &dir.path().join("truck.log")).await;
    let sim = SlcanSim::replay(Tape::read(&text).unwrap(), Some(here()), None).await.unwrap();
    let link = format!("slcan+tcp://{}?bitrate=250000", sim.name()).parse().unwrap();
    let again = scan::scan_link(&link, &bundle(), None, Locale::En).await.unwrap();
    let codes = |report: &VehicleReport| -> Vec<String> {
        let all = report
            .ecus
            .iter()
            .flat_map(|ecu| ecu.dtcs.iter().map(|dtc| format!("{} {}", ecu.address, dtc.code)));
        all.collect()
    };
    assert_eq!((again.protocol.as_str(), again.vin.clone()), ("j1939", None));
    assert!(!codes(&report).is_empty());
    assert_eq!(codes(&again), codes(&report));
}

/// A bus on which the car also says its number in a frame of its own, before anything is asked, and
/// then the number in answer to 09 02 or, not `told`, nothing at all.
async fn broadcasting(dir: &Path, told: bool) -> (SlcanSim, String) {
    let (sim, link) = adapter_on(&car(6), 500_000).await;
    let (_, text) = traced(&link, &dir.join("car.log")).await;
    sim.stop().await;
    let time = text.split(' ').next().unwrap();
    let number = format!("{time} slcan 3E9#00314D3847444D39 R\n");
    let log = if told {
        format!("{number}{text}")
            .replace("1014490201303030", "1014490201314D38")
            .replace("2130303030303030", "2147444D3941584B")
            .replace("2230303030303030", "2250303432373838")
    } else {
        format!("{number}{time} slcan 7DF#02017F T\n")
    };
    let sim = SlcanSim::replay(Tape::read(&log).unwrap(), Some(here()), None).await.unwrap();
    let link = format!("slcan+tcp://{}?bitrate=500000", sim.name());
    (sim, link)
}

fn hides_the_number(text: &str) {
    assert!(text.contains(" slcan 3E9#0030303030303030 R"), "{text}");
    for piece in VIN.as_bytes().windows(4) {
        assert!(!text.contains(&hex::encode_upper(piece)), "{piece:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_number_that_is_broadcast_is_hidden() {
    let dir = tempfile::tempdir().unwrap();
    let (_sim, link) = broadcasting(dir.path(), true).await;
    let path = dir.path().join("again.log");
    assert_eq!(command(&link, &path).await, Exit::Done);
    hides_the_number(&std::fs::read_to_string(&path).unwrap());
}

/// Without an answer, or killed in the middle: nothing could put the file right behind it.
#[tokio::test(flavor = "multi_thread")]
async fn it_is_hidden_also_where_the_scan_does_not_end_well() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("silent.log");
    let (_sim, link) = broadcasting(dir.path(), false).await;
    assert_ne!(command(&link, &path).await, Exit::Done);
    hides_the_number(&std::fs::read_to_string(&path).unwrap());

    let path = dir.path().join("killed.log");
    let (_sim, link) = broadcasting(dir.path(), true).await;
    let mut program = tokio::process::Command::new(env!("CARGO_BIN_EXE_baygate"));
    program.args(["scan", &link, "--config", "/none.toml", "--json", "--trace"]).arg(&path);
    let mut child = program.kill_on_drop(true).stdout(std::process::Stdio::null()).spawn().unwrap();
    let deadline = std::time::Instant::now() + vehicle_bay::DEADLINE;
    while std::fs::read_to_string(&path).is_ok_and(|text| text.is_empty()) || !path.exists() {
        assert!(std::time::Instant::now() < deadline, "nothing is written");
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    }
    child.start_kill().unwrap();
    assert_eq!(child.wait().await.unwrap().signal(), Some(9), "it was at work");
    hides_the_number(&std::fs::read_to_string(&path).unwrap());
}

/// A full disk, which counts how often it is tried.
#[derive(Clone, Default)]
struct FullDisk(Arc<AtomicUsize>);

impl Write for FullDisk {
    fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
        self.0.fetch_add(1, Ordering::SeqCst);
        Err(std::io::ErrorKind::StorageFull.into())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// And is warned of once, not at each frame.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_tried_once_and_the_report_is_made() {
    let (_bus, of_frames) = adapter_on(&car(6), 500_000).await;
    let profile = Profile { adapter: Dongle::default(), car: Some(car(6)) };
    let dongle = VehicleSim::spawn_tcp(here(), profile).await.unwrap();
    let of_bytes: VehicleLink = format!("elm327+tcp://{}", dongle.name()).parse().unwrap();
    for link in [of_frames, of_bytes] {
        let disk = FullDisk::default();
        let trace = SessionTrace::begin(Box::new(disk.clone()), &link);
        let report = scan::scan_link(&link, &bundle(), Some(trace), Locale::En).await.unwrap();
        assert_eq!(report.vin.as_ref().map(|vin| vin.as_str()), Some(VIN), "{link}");
        assert_eq!(disk.0.load(Ordering::SeqCst), 1, "{link}");
    }
}
