//! The proof that cars are only read: every feature is driven against a tap that records all
//! bytes on their way to the adapter, commands of the adapter included, and each command must
//! stand on a list written down here from the standards ([`list`]; on a bus each frame, [`frames`]),
//! apart from the gate's own. What clears codes appears once, and only behind a person's confirmation.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "vehicle_read_only/bus_day.rs"]
mod bus_day;
#[path = "vehicle_read_only/buses.rs"]
mod buses;
#[path = "vehicle_read_only/clearing.rs"]
mod clearing;
#[path = "vehicle_read_only/frames.rs"]
mod frames;
#[path = "vehicle_read_only/hostile.rs"]
mod hostile;
#[path = "vehicle_read_only/list.rs"]
mod list;
#[path = "vehicle_read_only/makers.rs"]
mod makers;
mod served;
#[path = "vehicle_read_only/tap.rs"]
mod tap;
mod vehicle_bay;

use std::path::Path;
use std::time::Duration;

use baygate::cli::{Exit, Global, scan as scan_command, watch};
use baygate::config::tables::Poll;
use baygate::config::values::Locale;
use baygate::sim::vehicle::{Adapter as SimAdapter, CarSpec, Drive, Engine, Fault};
use baygate::vehicle::adapter::Adapter;
use list::judge;
use serde_json::json;
use served::Setup;
use tap::tapped;
use vehicle_bay::{Bay, bundle, open_store};

fn faulty() -> CarSpec {
    CarSpec {
        confirmed: vec!["P0420".parse().unwrap(), "P0301".parse().unwrap()],
        pending: vec!["P0171".parse().unwrap()],
        permanent: vec!["P0420".parse().unwrap()],
        ..CarSpec::default()
    }
}

fn parsed<A: clap::Args + clap::FromArgMatches>(words: &[&str]) -> A {
    let command = A::augment_args(clap::Command::new("test").no_binary_name(true));
    A::from_arg_matches(&command.get_matches_from(words)).unwrap()
}

/// A bay's day: arrival, report, live values, low battery, key off, swap, faults of every kind,
/// requested scans over HTTP, nonsense over HTTP.
#[tokio::test(flavor = "multi_thread")]
async fn a_day_at_the_bay() {
    let served = Setup::new().serve().await;
    let (mut sim, tap) = tapped(SimAdapter::default(), Some(faulty())).await;
    let bay = Bay::start(&served.store, "bay-1", &tap.link(), Poll::Auto);
    let token = served.token(&["vehicle", "read"]).await;
    bay.nth("vehicle.report", 1).await;
    bay.nth("vehicle.signals", 1).await;
    for (path, body) in [
        ("/v1/vehicles/bay-1/scan", json!({})),
        ("/v1/vehicles/bay-1/scan", json!({"request": "04", "service": 4, "command": "ATPP0CSV23"})),
        ("/v1/vehicles/bay-1%0D04%0D/scan", json!({})),
        ("/v1/vehicles/bay-1/clear-dtcs", json!({"method": "uds", "confirm": true})),
        ("/v1/confirmations/00000000-0000-0000-0000-000000000000", json!({"confirm": true, "operator": "x"})),
    ] {
        let reply = served.post(&token, path, &body).await;
        assert!(reply.status == 200 || reply.status >= 400, "{path}: {reply:?}");
    }
    for fault in [
        Fault::DropReply,
        Fault::Garble,
        Fault::Pending(2),
        Fault::Delay(Duration::from_millis(300)),
        Fault::HalfThenSilence,
        Fault::Nulls,
        Fault::BrownOut,
        Fault::Say("LV RESET".into()),
        Fault::Say("ERR94".into()),
        Fault::Say("BUFFER FULL".into()),
        Fault::Say("CAN ERROR".into()),
        Fault::Say("STOPPED".into()),
        Fault::Say("?".into()),
    ] {
        sim.fault(fault);
        bay.scan().await;
    }
    for engine in [Engine::On, Engine::Off, Engine::Running] {
        sim.engine(engine);
        bay.scan().await;
    }
    sim.battery(Some(11.1));
    sim.engine(Engine::On);
    bay.scan().await;
    sim.battery(None);
    sim.swap(&CarSpec {
        vin: Some("LSVAG2186E2100001".into()),
        engine: Engine::Running,
        ..CarSpec::default()
    })
    .unwrap();
    bay.until("the other car", |facts| {
        facts.iter().any(|(kind, data)| kind == "vehicle.report" && data["vin"] == "LSVAG2186E2100001")
    })
    .await;
    sim.unplug();
    bay.scan().await;
    // A battery car: found by UDS.
    sim.plug(&CarSpec { obd: false, ..faulty() }).unwrap();
    bay.scan().await;
    sim.vanish().await;
    bay.scan().await;
    sim.return_().await;
    sim.plug(&faulty()).unwrap();
    bay.nth("vehicle.arrived", 3).await;
    bay.stop().await;
    assert_eq!(judge("a day", &tap.heard()), [""; 0], "nobody confirmed anything");
    let seen = tap.services();
    for service in ["01", "02", "03", "07", "08", "09", "0A", "19", "22"] {
        assert!(seen.contains(service), "{service} was driven: {seen:?}");
    }
}

/// Every adapter of the simulator's table, every bus, every kind of car: scanned and watched.
#[tokio::test(flavor = "multi_thread")]
async fn every_adapter_every_bus_every_kind_of_car() {
    let mut jobs = Vec::new();
    let mut cases: Vec<(String, SimAdapter, CarSpec)> =
        SimAdapter::all().unwrap().into_iter().map(|(name, adapter)| (name, adapter, faulty())).collect();
    for protocol in 1..=9 {
        cases.push((format!("bus {protocol}"), SimAdapter::default(), CarSpec { protocol, ..faulty() }));
    }
    cases.push(("battery car".into(), SimAdapter::default(), CarSpec { obd: false, ..faulty() }));
    let wide = CarSpec { obd: false, protocol: 7, ..faulty() };
    cases.push(("battery car, 29 bits".into(), SimAdapter::default(), wide));
    let modern = CarSpec { obd: false, j1979_2: true, ..faulty() };
    let busy = CarSpec { enhanced: vec!["B1234".parse().unwrap()], uds_waits: 2, ..faulty() };
    cases.push(("codes beyond J1979".into(), SimAdapter::default(), busy));
    cases.push(("no UDS".into(), SimAdapter::default(), CarSpec { uds: false, ..faulty() }));
    for drive in [Drive::Hybrid, Drive::Bev] {
        cases.push((format!("{drive:?}"), SimAdapter::default(), CarSpec { drive, ..faulty() }));
    }
    cases.push(("J1979-2".into(), SimAdapter::default(), modern));
    let asleep = CarSpec { engine: Engine::Off, ..faulty() };
    cases.push(("asleep".into(), SimAdapter::default(), asleep));
    for (name, adapter, car) in cases {
        jobs.push(tokio::spawn(async move {
            let (_sim, tap) = tapped(adapter, Some(car)).await;
            // Whether there is a report is another test's business.
            let bundle = bundle();
            let _ = scan_command::scan_link(&tap.link().parse().unwrap(), &bundle, None, Locale::En).await;
            assert_eq!(judge(&name, &tap.heard()), [""; 0]);
            String::from_utf8(tap.heard()).unwrap()
        }));
    }
    let mut driven = std::collections::BTreeSet::new();
    for job in jobs {
        let heard = job.await.unwrap();
        driven
            .extend(heard.split('\r').filter(|line| line.starts_with("19")).map(|line| line[..4].to_owned()));
    }
    // With all the time they want, so that nothing is left out on a slow machine.
    for car in [faulty(), CarSpec { obd: false, j1979_2: true, ..faulty() }] {
        let (_sim, tap) = tapped(SimAdapter::default(), Some(car)).await;
        let bundle = bundle();
        let mut adapter = Adapter::open(&tap.link().parse().unwrap(), &bundle, None, None).await.unwrap();
        vehicle_bay::scanned(&mut adapter, &bundle).await.unwrap();
        assert_eq!(judge("unhurried", &tap.heard()), [""; 0]);
        let heard = String::from_utf8(tap.heard()).unwrap();
        driven
            .extend(heard.split('\r').filter(|line| line.starts_with("19")).map(|line| line[..4].to_owned()));
    }
    // Every kind of question about codes that UDS and J1979-2 know and a scan asks.
    assert!(driven.iter().eq(["1902", "1904", "1906", "190A", "1942", "1955", "1956"]), "{driven:?}");
    let (_sim, tap) = tapped(SimAdapter::default(), Some(faulty())).await;
    let global = Global { config: Path::new("/none.toml").into(), json: true, locale: Some(Locale::En) };
    for words in [&["--rounds", "3"][..], &["0C", "0104", "--rounds", "2"]] {
        let link = tap.link();
        let words = [&[link.as_str()], words].concat();
        let args = parsed::<watch::Args>(&words);
        assert_eq!(watch::run(args, &global).await.unwrap(), Exit::Done);
    }
    assert_eq!(judge("watch", &tap.heard()), [""; 0]);
}

/// A link that only listens: the adapter is told to be silent, and the car is asked nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_link_that_only_listens() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_store(dir.path());
    let (sim, tap) = tapped(SimAdapter::default(), Some(faulty())).await;
    let bay = Bay::start(&store, "bay-1", &tap.link(), Poll::ListenOnly);
    bay.until_reason(Some("listen-only")).await;
    bay.scan().await;
    bay.stop().await;
    assert_eq!(judge("listening", &tap.heard()), [""; 0]);
    assert!(tap.heard().ends_with(b"ATCSM1\r") && sim.requests().is_empty());
}
