//! Hybrid and battery cars at a bay, from arrival to departure: the real service over TCP,
//! a simulated car behind it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod vehicle_bay;

use std::time::Duration;

use baygate::config::tables::Poll;
use baygate::sim::vehicle::{Adapter, CarSpec, Drive, Engine, Profile, VehicleSim};
use baygate::vehicle::Timing;
use baygate::vehicle::polling::Pace;
use serde_json::{Value, json};
use vehicle_bay::{Bay, open_store, quick};

const VIN: &str = "1M8GDM9AXKP042788";

async fn plugged(car: CarSpec) -> (VehicleSim, String) {
    let profile = Profile { adapter: Adapter::default(), car: Some(car) };
    let sim = VehicleSim::spawn_tcp("127.0.0.1:0".parse().unwrap(), profile).await.unwrap();
    let link = format!("elm327+tcp://{}", sim.addr().unwrap());
    (sim, link)
}

/// Waits until a window has the signal, and its last value is as wanted.
async fn signal(bay: &Bay, name: &str, wanted: impl Fn(f64) -> bool) {
    let has = |data: &Value| {
        let mut signals = data["signals"].as_array().into_iter().flatten();
        signals.any(|signal| signal["name"] == name && signal["last"].as_f64().is_some_and(&wanted))
    };
    bay.until(name, |facts| facts.iter().any(|(kind, data)| kind == "vehicle.signals" && has(data))).await;
}

/// A number of the first unit's values.
fn value(report: &Value, pid: &str) -> Option<f64> {
    let values = report["ecus"][0]["values"].as_array().unwrap();
    values.iter().find(|value| value["pid"] == pid)?["value"].as_f64()
}

/// Driven electrically, its engine off: it moves and is asked as often as a running one.
#[tokio::test(flavor = "multi_thread")]
async fn a_hybrid_from_arrival_to_departure() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_store(dir.path());
    let signals = [("speed".to_owned(), 30.0)].into();
    let (sim, link) =
        plugged(CarSpec { drive: Drive::Hybrid, engine: Engine::On, signals, ..CarSpec::default() }).await;
    // A car that stands with its engine off would be asked once in this test.
    let hour = Duration::from_secs(3600);
    let pace = Pace { engine_off: hour, engine_off_most: hour, ..quick().pace };
    let bay = Bay::start_timed(&store, "bay-1", &link, Poll::Auto, Timing { pace, ..quick() });
    assert_eq!(bay.nth("vehicle.arrived", 1).await["vin"], VIN);
    let report = bay.nth("vehicle.report", 1).await;
    assert_eq!((&report["powertrain"], &report["engine_running"]), (&json!("hybrid"), &json!(false)));
    assert_eq!(value(&report, "010D"), Some(30.0));
    assert!(value(&report, "015B").is_some_and(|percent| (61.0..63.0).contains(&percent)), "{report:#}");
    assert_eq!(report["errors"], json!([]));
    signal(&bay, "hybrid_battery_remaining", |percent| (61.0..63.0).contains(&percent)).await;
    signal(&bay, "vehicle_speed", |kmh| kmh == 30.0).await;
    signal(&bay, "engine_speed", |rpm| rpm == 0.0).await;
    let asked = || {
        let speeds = |request: &&Vec<u8>| request[0] == 0x01 && request[1..].contains(&0x0D);
        sim.requests().iter().filter(speeds).count()
    };
    let before = asked();
    bay.until("asked at the pace of a running engine", |_| asked() >= before + 5).await;
    // The engine starts by itself.
    sim.engine(Engine::Running);
    signal(&bay, "engine_speed", |rpm| rpm > 400.0).await;
    sim.unplug();
    let departed = bay.nth("vehicle.departed", 1).await;
    assert_eq!((&departed["reason"], &departed["vin"]), (&json!("unplugged"), &json!(VIN)));
    bay.stop().await;
}

/// A battery car that answers J1979 (many do), and one that answers UDS alone.
#[tokio::test(flavor = "multi_thread")]
async fn battery_cars_from_arrival_to_departure() {
    for (id, obd) in [("bay-1", true), ("bay-2", false)] {
        let dir = tempfile::tempdir().unwrap();
        let store = open_store(dir.path());
        let car = CarSpec {
            drive: Drive::Bev,
            obd,
            confirmed: vec!["P0A9B".parse().unwrap()],
            failure_type: 0x17,
            ..CarSpec::default()
        };
        let (sim, link) = plugged(car).await;
        let bay = Bay::start(&store, id, &link, Poll::Auto);
        let arrived = bay.nth("vehicle.arrived", 1).await;
        assert_eq!(
            (&arrived["vin"], &arrived["protocol"]),
            (&json!(VIN), &json!("iso15765-4-11bit-500k")),
            "{id}"
        );
        let report = bay.nth("vehicle.report", 1).await;
        assert_eq!((&report["visit"], &report["vin"]), (&arrived["visit"], &json!(VIN)), "{id}");
        assert_eq!(report["powertrain"], "bev", "{id}");
        assert_eq!(report.get("engine_running"), None, "it has no engine to be off");
        let notes = report["inspection"]["notes"].as_array().unwrap();
        assert!(notes.contains(&json!("no-emission-check")), "{id}: {notes:?}");
        let code = &report["ecus"][0]["dtcs"][0];
        let source = if obd { "obd" } else { "uds" };
        assert_eq!(
            (&code["code"], &code["source"], &code["failure_type"]),
            (&json!("P0A9B"), &json!(source), &json!("17")),
            "{id}"
        );
        assert!(value(&report, "015B").is_some_and(|percent| percent > 60.0), "{id}: {report:#}");
        assert_eq!(value(&report, "010C"), None, "{id}");
        signal(&bay, "hybrid_battery_remaining", |percent| percent > 60.0).await;
        signal(&bay, "adapter_voltage", |volts| volts > 12.0).await;
        let asked = sim.requests();
        assert_eq!(asked.iter().any(|request| request[..] == [0x03]), obd, "{id}");
        assert!(asked.iter().any(|request| request[..] == [0x19, 0x02, 0x0D]), "{id}");
        sim.ignition(false);
        let departed = bay.nth("vehicle.departed", 1).await;
        assert_eq!((&departed["reason"], &departed["vin"]), (&json!("ignition-off"), &json!(VIN)), "{id}");
        bay.stop().await;
    }
}

/// A battery car that gives nothing but its VIN and its codes: what drives it stays unknown,
/// silence proves nothing, and the visit has all its facts.
#[tokio::test(flavor = "multi_thread")]
async fn a_car_that_tells_only_vin_and_codes() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_store(dir.path());
    let confirmed = vec!["P0A9B".parse().unwrap()];
    let (sim, link) = plugged(CarSpec { obd: false, confirmed, ..CarSpec::default() }).await;
    let bay = Bay::start(&store, "bay-1", &link, Poll::Auto);
    let report = bay.nth("vehicle.report", 1).await;
    assert_eq!((&report["vin"], &report["powertrain"]), (&json!(VIN), &json!("unknown")));
    assert_eq!(report["ecus"][0]["dtcs"][0]["code"], "P0A9B");
    signal(&bay, "adapter_voltage", |volts| volts > 12.0).await;
    sim.unplug();
    assert_eq!(bay.nth("vehicle.departed", 1).await["reason"], "unplugged");
    bay.stop().await;
}
