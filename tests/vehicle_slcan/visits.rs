//! Visits on an slcan link: cars that come and go, links that only listen, databases.

use std::time::Duration;

use baygate::config::tables::{Poll, VehicleTable};
use baygate::sim::vehicle::{CarSpec, Engine, SlcanProfile, SlcanSim};
use baygate::store::requests::RequestState;
use serde_json::Value;

use crate::vehicle_bay::{Bay, open_store, quick, table};
use crate::{car, on_tcp};

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

/// Nothing measures a voltage at the plug: the car's own word (PID 42) ends the background polling.
#[tokio::test(flavor = "multi_thread")]
async fn a_weak_battery_is_left_alone_on_the_cars_own_word() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_store(dir.path());
    let weak = |volts| CarSpec { engine: Engine::On, voltage: Some(volts), ..car(6) };
    let sim = on_tcp(SlcanProfile::default(), &weak(11.4)).await;
    let mut timing = quick();
    timing.pace.engine_off_most = Duration::from_secs(3600);
    let link = format!("slcan+tcp://{}?bitrate=500000", sim.name());
    let bay = Bay::start_timed(&store, "bay-1", &link, Poll::Auto, timing);
    let state = bay.until_reason(Some("battery-low")).await.state;
    assert!(state.detail.unwrap().contains("11.4 V"));
    assert_eq!(bay.count("vehicle.report").await, 1, "it was known only by asking");
    let asked = sim.requests().len();
    // Several times as long as a standing car is else left alone.
    tokio::time::sleep(timing.pace.engine_off * 6).await;
    assert_eq!(sim.requests().len(), asked);
    assert_eq!(bay.count("vehicle.departed").await, 0);
    // A scan that somebody wants runs, and sees the charger.
    sim.swap(&weak(12.7)).unwrap();
    assert_eq!(bay.scan().await.state, RequestState::Done);
    bay.until_reason(None).await;
    bay.stop().await;

    // Believed for as long as the longest pause: then it is asked again, and found gone.
    sim.swap(&weak(11.4)).unwrap();
    let bay = Bay::start(&store, "bay-2", &link, Poll::Auto);
    bay.until_reason(Some("battery-low")).await;
    sim.engine(Engine::Off);
    bay.nth("vehicle.departed", 1).await;
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

/// The chatter of the simulated bus: 280 with 490E in front.
const DATABASE: &str = "VERSION \"\"\nBO_ 640 Engine: 8 ECM\n SG_ Speed : 0|16@1+ (0.25,0) [0|0] \"rpm\" X\n";

fn overheard(facts: &[(String, Value)]) -> bool {
    facts.iter().filter(|(kind, _)| kind == "vehicle.signals").any(|(_, data)| {
        let signals = data["signals"].as_array().unwrap();
        // 0E49 is 3657 quarters.
        signals.iter().any(|signal| signal["name"] == "Engine.Speed" && signal["last"] == 914.25)
    })
}

/// On one stream with the answers, and on a link that asks nothing at all; beside a garbled database.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_bus_says_unasked_joins_the_visits_telemetry() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_store(dir.path());
    let [garbled, file] = ["garbled.dbc", "car.dbc"].map(|name| dir.path().join(name));
    std::fs::write(&garbled, "VERSION \"\"\n\nBO_ x Engine: 8 ECM\n").unwrap();
    std::fs::write(&file, DATABASE).unwrap();
    let talks = SlcanProfile { chatter: true, ..SlcanProfile::default() };
    for (id, poll) in [("bay-1", Poll::Auto), ("bay-2", Poll::ListenOnly)] {
        let sim = on_tcp(talks, &car(6)).await;
        let link = format!("slcan+tcp://{}?bitrate=500000", sim.name());
        let with_files = VehicleTable { dbc: vec![garbled.clone(), file.clone()], ..table(id, &link, poll) };
        let bay = Bay::start_table(&store, with_files, quick());
        let facts = bay.until("a signal of the database", overheard).await;
        let arrived = facts.iter().find(|(kind, _)| kind == "vehicle.arrived").unwrap();
        assert_eq!(arrived.1["protocol"], "iso15765-4-11bit-500k");
        // The garbled one is told with its place, and kept neither the other out nor the bay from work.
        let troubles = bay.health.troubles();
        let part = format!("link/{id}/files");
        let trouble = troubles.iter().find(|trouble| trouble.part == part).unwrap();
        assert!(trouble.text.en.contains("garbled.dbc:3:"), "{}", trouble.text.en);
        assert!(trouble.text.zh.contains("garbled.dbc:3:") && !trouble.text.en.contains("car.dbc"));
        assert!(!trouble.blocks_ready);
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
