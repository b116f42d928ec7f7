//! Cars come and go at a bay: the real service on a real pseudo-terminal or TCP
//! socket, a simulated car behind it, a store on disk.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod vehicle_bay;

use baygate::config::tables::Poll;
use baygate::event::device::DeviceStatus;
use baygate::event::vehicle::{DepartureReason, OdometerSource, Purpose};
use baygate::sim::vehicle::{Adapter, CarSpec, Engine, Fault, Profile, VehicleSim};
use baygate::store::requests::RequestState;
use baygate::store::visits::{TypedIn, VisitOp};
use baygate::store::{Batch, Op, Store};
use serde_json::json;
use uuid::Uuid;
use vehicle_bay::{Bay, open_store, quick};

const A: &str = "1M8GDM9AXKP042788";
const B: &str = "1D4GP00R55B123456";

fn car(vin: &str) -> CarSpec {
    CarSpec { vin: Some(vin.into()), ..CarSpec::default() }
}

fn plugged(spec: CarSpec) -> Profile {
    Profile { adapter: Adapter::default(), car: Some(spec) }
}

fn serial(sim: &VehicleSim) -> String {
    format!("elm327+serial://{}?baud=38400", sim.path().display())
}

async fn on_pty(dir: &std::path::Path, profile: Profile) -> VehicleSim {
    VehicleSim::spawn_pty(profile, Some(dir.join("ttyOBD"))).await.unwrap()
}

async fn on_tcp(profile: Profile) -> (VehicleSim, String) {
    let sim = VehicleSim::spawn_tcp("127.0.0.1:0".parse().unwrap(), profile).await.unwrap();
    let link = format!("elm327+tcp://{}", sim.addr().unwrap());
    (sim, link)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_car_arrives_is_reported_and_is_unplugged() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_store(dir.path());
    let spec = CarSpec {
        confirmed: vec!["P0420".parse().unwrap(), "P0301".parse().unwrap()],
        pending: vec!["P0171".parse().unwrap()],
        permanent: vec!["P0420".parse().unwrap()],
        ..car(A)
    };
    let sim = on_pty(dir.path(), Profile { adapter: Adapter::default(), car: None }).await;
    let bay = Bay::start(&store, "bay-1", &serial(&sim), Poll::Auto);
    bay.until_reason(None).await;
    assert_eq!(bay.count("vehicle.arrived").await, 0, "an adapter on the desk is no car");

    sim.plug(&spec).unwrap();
    let arrived = bay.nth("vehicle.arrived", 1).await;
    assert_eq!(arrived["vin"], A);
    assert_eq!(arrived["protocol"], "iso15765-4-11bit-500k");
    let report = bay.nth("vehicle.report", 1).await;
    assert_eq!(report["visit"], arrived["visit"]);
    assert_eq!((&report["vin"], &report["vin_check"]), (&json!(A), &json!("ok")));
    let engine = &report["ecus"][0];
    assert_eq!(
        (&engine["address"], &engine["name"], &engine["mil"]),
        (&json!("7E8"), &json!("ECM"), &json!(true))
    );
    let listed: Vec<_> = engine["dtcs"]
        .as_array()
        .unwrap()
        .iter()
        .map(|dtc| (dtc["code"].as_str().unwrap(), dtc["state"].clone()))
        .collect();
    assert_eq!(
        listed,
        [
            ("P0171", json!(["pending"])),
            ("P0301", json!(["confirmed"])),
            ("P0420", json!(["confirmed", "permanent"])),
        ]
    );
    assert!(engine["dtcs"][2]["text"]["zh"].is_string());
    assert_eq!(engine["freeze_frames"][0]["code"], "P0420");
    let frozen = engine["freeze_frames"][0]["values"].as_array().unwrap();
    assert!(frozen.iter().any(|v| v["pid"] == "020C" && v["value"] == json!(2400.0)), "{frozen:?}");
    assert_eq!(engine["readiness"]["catalyst"], "complete");
    assert!(engine["values"].as_array().unwrap().iter().any(|v| v["pid"] == "010C" && v["unit"] == "rpm"));
    assert_eq!(report["ecus"][1]["address"], "7E9");
    assert_eq!(report["ecus"][1]["dtcs"], json!([]));
    assert_eq!(report["engine_running"], true);
    assert_eq!(report["errors"], json!([]), "a healthy adapter and car leave no request unanswered");

    let window = bay.nth("vehicle.signals", 1).await;
    assert_eq!(window["visit"], arrived["visit"]);
    let signals = window["signals"].as_array().unwrap();
    assert!(
        signals.iter().any(|s| s["name"] == "engine_speed" && s["count"].as_u64() > Some(0)),
        "{signals:?}"
    );

    sim.unplug();
    let departed = bay.nth("vehicle.departed", 1).await;
    assert_eq!((&departed["reason"], &departed["visit"]), (&json!("unplugged"), &arrived["visit"]));
    assert_eq!(bay.count("vehicle.report").await, 1, "one report a visit");
    let visits = store.read(|r| r.visits_of(&A.parse().unwrap(), 10)).await.unwrap();
    assert_eq!(visits.len(), 1);
    assert!(visits[0].ended_at.is_some() && visits[0].report.is_some());
    assert!(bay.stop().await.as_secs() < 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn swap_and_ignition_off_over_tcp() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_store(dir.path());
    let (sim, link) = on_tcp(plugged(car(A))).await;
    let bay = Bay::start(&store, "bay-2", &link, Poll::Auto);
    assert_eq!(bay.nth("vehicle.report", 1).await["vin"], A);

    // Nobody sees the plug out: only the VIN tells.
    sim.swap(&car(B)).unwrap();
    assert_eq!(bay.nth("vehicle.departed", 1).await["reason"], "swapped");
    assert_eq!(bay.nth("vehicle.arrived", 2).await["vin"], B);
    assert_eq!(bay.nth("vehicle.report", 2).await["vin"], B);

    sim.ignition(false);
    assert_eq!(bay.nth("vehicle.departed", 2).await["reason"], "ignition-off");
    let state = bay.until_reason(Some("no-obd-answer")).await;
    assert!(state.state.detail.unwrap().contains("ignition"), "says what it may mean");

    sim.ignition(true);
    assert_eq!(bay.nth("vehicle.arrived", 3).await["vin"], B);
    bay.until_reason(None).await;
    bay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_cable_is_pulled_and_plugged() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_store(dir.path());
    let mut sim = on_pty(dir.path(), plugged(car(A))).await;
    let link = format!("elm327+serial://{}?baud=38400", dir.path().join("ttyOBD").display());
    let bay = Bay::start(&store, "bay-3", &link, Poll::Auto);
    bay.nth("vehicle.report", 1).await;

    // Back within its patience: the same visit goes on.
    sim.vanish().await;
    bay.until_reason(Some("port-missing")).await;
    assert!(bay.health.troubles().iter().any(|t| t.part == "link/bay-3" && !t.blocks_ready));
    sim.return_().await;
    bay.until_reason(None).await;
    assert!(bay.health.troubles().is_empty());
    assert_eq!((bay.count("vehicle.arrived").await, bay.count("vehicle.departed").await), (1, 0));

    // Away for longer.
    sim.vanish().await;
    assert_eq!(bay.nth("vehicle.departed", 1).await["reason"], "link-lost");
    sim.return_().await;
    assert_eq!(bay.nth("vehicle.arrived", 2).await["vin"], A);
    bay.nth("vehicle.report", 2).await;
    bay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_brown_out_is_set_up_again_and_ends_no_visit() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_store(dir.path());
    let sim = on_pty(dir.path(), plugged(car(A))).await;
    let bay = Bay::start(&store, "bay-4", &serial(&sim), Poll::Auto);
    bay.nth("vehicle.signals", 1).await;
    for fault in [
        Fault::BrownOut,
        Fault::Say("LV RESET".into()),
        Fault::Say("ERR94".into()),
        Fault::Say("STOPPED".into()),
        Fault::Say("CAN ERROR".into()),
        Fault::Say("BUFFER FULL".into()),
        Fault::DropReply,
        Fault::Garble,
        Fault::Nulls,
        Fault::Pending(2),
        Fault::HalfThenSilence,
    ] {
        let windows = bay.count("vehicle.signals").await;
        sim.fault(fault);
        // Live values go on.
        bay.nth("vehicle.signals", windows + 2).await;
    }
    assert_eq!((bay.count("vehicle.arrived").await, bay.count("vehicle.departed").await), (1, 0));
    bay.until_reason(None).await;
    bay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn visits_left_open_by_a_crash_are_settled() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_store(dir.path());
    let sim = on_pty(dir.path(), plugged(car(A))).await;
    let link = serial(&sim);
    let bay = Bay::start(&store, "bay-5", &link, Poll::Auto);
    bay.nth("vehicle.report", 1).await;
    bay.kill();

    // The same car answers: the visit goes on, without a second report.
    let bay = Bay::start(&store, "bay-5", &link, Poll::Auto);
    let windows = bay.count("vehicle.signals").await;
    bay.nth("vehicle.signals", windows + 1).await;
    assert_eq!((bay.count("vehicle.arrived").await, bay.count("vehicle.report").await), (1, 1));
    bay.kill();

    // Another one answers: the old visit ends, nobody knows how.
    sim.swap(&car(B)).unwrap();
    let bay = Bay::start(&store, "bay-5", &link, Poll::Auto);
    assert_eq!(bay.nth("vehicle.departed", 1).await["reason"], "link-lost");
    assert_eq!(bay.nth("vehicle.arrived", 2).await["vin"], B);
    bay.nth("vehicle.report", 2).await;
    bay.kill();

    // Nobody answers.
    sim.unplug();
    let bay = Bay::start(&store, "bay-5", &link, Poll::Auto);
    assert_eq!(bay.nth("vehicle.departed", 2).await["reason"], "link-lost");
    assert!(store.read(|r| r.open_visits()).await.unwrap().is_empty());
    bay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requested_scans() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_store(dir.path());
    // Engine off and a low battery: background polling stops, a requested scan runs and warns.
    let spec = CarSpec { engine: Engine::On, voltage: Some(11.4), ..car(A) };
    let (sim, link) = on_tcp(plugged(spec)).await;
    let bay = Bay::start(&store, "bay-6", &link, Poll::Auto);
    let state = bay.until_reason(Some("battery-low")).await.state;
    assert!(state.detail.unwrap().contains("11.4 V"), "the car is not left alone without a word");
    assert_eq!(sim.requests(), Vec::<Vec<u8>>::new(), "and it is left alone");
    let row = bay.scan().await;
    assert_eq!(row.state, RequestState::Done, "{row:?}");
    let outcome = row.outcome.unwrap();
    assert_eq!(outcome["vin"], A);
    assert_eq!(outcome["notices"][0]["code"], "battery-low");
    let committed = bay.nth("vehicle.report", 1).await;
    assert_eq!(committed["visit"], outcome["visit"]);
    assert_eq!(committed["visit"], bay.nth("vehicle.arrived", 1).await["visit"]);

    sim.unplug();
    bay.nth("vehicle.departed", 1).await;
    bay.until_reason(None).await;
    let row = bay.scan().await;
    assert_eq!(row.state, RequestState::Failed);
    let outcome = row.outcome.unwrap();
    assert_eq!(outcome["code"], "no-answer");
    assert!(outcome["text"]["zh"].as_str().unwrap().contains("点火"));
    bay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_request_asks_only_when_asked_and_listen_only_never() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_store(dir.path());
    let (sim, link) = on_tcp(plugged(car(A))).await;
    let bay = Bay::start(&store, "bay-7", &link, Poll::OnRequest);
    bay.until_reason(None).await;
    assert_eq!(sim.requests(), Vec::<Vec<u8>>::new());
    let row = bay.scan().await;
    assert_eq!(row.state, RequestState::Done);
    assert!(!sim.requests().is_empty());
    bay.stop().await;
    drop(sim);

    let (sim, link) = on_tcp(plugged(car(A))).await;
    let bay = Bay::start(&store, "bay-8", &link, Poll::ListenOnly);
    bay.until_reason(Some("listen-only")).await;
    let row = bay.scan().await;
    assert_eq!(row.state, RequestState::Failed);
    assert_eq!(row.outcome.unwrap()["code"], "listen-only");
    assert_eq!(sim.requests(), Vec::<Vec<u8>>::new());
    bay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dongle_that_is_away_answers_requests_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_store(dir.path());
    let link = format!("elm327+serial://{}", dir.path().join("nothing").display());
    let bay = Bay::start(&store, "bay-9", &link, Poll::Auto);
    let row = bay.until_reason(Some("port-missing")).await;
    assert_eq!(row.state.state, DeviceStatus::Absent);
    assert!(row.state.detail.unwrap().contains("baygate devices"));
    let row = bay.scan().await;
    assert_eq!(
        (row.state, row.outcome.unwrap()["code"].clone()),
        (RequestState::Failed, json!("port-missing"))
    );
    bay.stop().await;
}

/// A visit's row as the API would change it.
async fn type_in(store: &Store, visit: Uuid, typed: TypedIn) {
    let row = store.read(move |r| r.visit(visit)).await.unwrap().unwrap();
    let batch = Batch::new()
        .op(Op::Visit(VisitOp::At { visit, revision: row.revision }))
        .op(Op::Visit(VisitOp::TypeIn { visit, typed: Box::new(typed), report: None }));
    store.commit(batch).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_typed_in_is_in_every_later_fact_of_the_visit() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_store(dir.path());
    let (sim, link) = on_tcp(plugged(CarSpec { vin: None, ..CarSpec::default() })).await;
    let bay = Bay::start(&store, "bay-10", &link, Poll::Auto);
    let first = bay.nth("vehicle.report", 1).await;
    assert_eq!((first.get("vin"), &first["vin_check"]), (None, &json!("missing")));
    let visit: Uuid = first["visit"].as_str().unwrap().parse().unwrap();
    let typed = TypedIn {
        vin: A.parse().ok(),
        order: Some("R-117".into()),
        odometer_km: Some(48_210.0),
        odometer_source: Some(OdometerSource::Dashboard),
        purpose: Some(Purpose::PostRepair),
        member: None,
    };
    type_in(&store, visit, typed).await;
    let windows = bay.count("vehicle.signals").await;
    let window = bay.nth("vehicle.signals", windows + 2).await;
    assert_eq!((&window["vin"], &window["order"]), (&json!(A), &json!("R-117")));

    assert_eq!(bay.scan().await.state, RequestState::Done);
    let report = bay.nth("vehicle.report", 2).await;
    assert_eq!((&report["vin"], &report["vin_typed"]), (&json!(A), &json!(true)));
    assert_eq!((&report["vin_check"], &report["vin_source"]), (&json!("ok"), &json!("typed")));
    assert_eq!((&report["order"], &report["purpose"]), (&json!("R-117"), &json!("post-repair")));
    if report["odometer_source"] != json!("obd") {
        assert_eq!(
            (&report["odometer_km"], &report["odometer_source"]),
            (&json!(48210.0), &json!("dashboard"))
        );
    }

    sim.unplug();
    let departed = bay.nth("vehicle.departed", 1).await;
    assert_eq!((&departed["vin"], &departed["order"]), (&json!(A), &json!("R-117")));
    assert_eq!((&departed["odometer_km"], &departed["purpose"]), (&json!(48210.0), &json!("post-repair")));
    bay.stop().await;
}

/// The VIN was read at the arrival; a later scan without it has the visit's, checked, and says so.
#[tokio::test(flavor = "multi_thread")]
async fn a_report_without_a_reading_has_the_visits_vin() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_store(dir.path());
    let (sim, link) = on_tcp(plugged(car(A))).await;
    let bay = Bay::start(&store, "bay-12", &link, Poll::Auto);
    let first = bay.nth("vehicle.report", 1).await;
    let told = |report: &serde_json::Value| ["vin", "vin_check", "vin_source"].map(|key| report[key].clone());
    assert_eq!(told(&first), [json!(A), json!("ok"), json!("scan")]);

    sim.swap(&CarSpec { vin: None, ..CarSpec::default() }).unwrap();
    assert_eq!(bay.scan().await.state, RequestState::Done);
    let later = bay.nth("vehicle.report", 2).await;
    assert_eq!(told(&later), [json!(A), json!("ok"), json!("visit")]);
    assert_eq!(later["visit"], first["visit"]);
    bay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_battery_is_judged_by_what_it_rested_at_before() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_store(dir.path());
    // Two visits in which this car's battery rested at what only lithium rests at.
    for volts in [13.3, 13.2] {
        let visit = Uuid::now_v7();
        let (link, vin) = ("bay-11".parse().unwrap(), A.parse().ok());
        let open = VisitOp::Open { visit, link, vin, protocol: "iso9141-2".into() };
        let close = VisitOp::Close { visit, reason: DepartureReason::Unplugged };
        let ops = [open, VisitOp::Rested { visit, volts }, close].map(Op::Visit).to_vec();
        store.commit(Batch { ops, ..Batch::new() }).await.unwrap();
    }
    // 12.5 V: a good lead-acid battery, an empty lithium one.
    let spec = |vin| CarSpec { engine: Engine::On, voltage: Some(12.5), ..car(vin) };
    let (sim, link) = on_tcp(plugged(spec(B))).await;
    let bay = Bay::start(&store, "bay-11", &link, Poll::Auto);
    assert_eq!(bay.nth("vehicle.report", 1).await["vin"], B);
    let windows = bay.count("vehicle.signals").await;
    bay.nth("vehicle.signals", windows + 2).await;
    bay.until_reason(None).await;

    sim.unplug();
    bay.nth("vehicle.departed", 1).await;
    sim.plug(&spec(A)).unwrap();
    assert_eq!(bay.nth("vehicle.arrived", 2).await["vin"], A);
    let state = bay.until_reason(Some("battery-low")).await.state;
    assert!(state.detail.unwrap().contains("12.5 V"));
    let asked = sim.requests().len();
    // A requested scan runs once and warns; nothing is asked before and after it.
    let outcome = bay.scan().await.outcome.unwrap();
    assert_eq!(outcome["notices"][0]["code"], "battery-low");
    let after = sim.requests().len();
    assert!(after > asked);
    // Recovering a little is not enough; a charger is.
    sim.battery(Some(12.9));
    // Five looks: nothing is to happen, so there is nothing to wait for.
    tokio::time::sleep(5 * quick().pace.look).await;
    assert_eq!(sim.requests().len(), after);
    sim.battery(Some(13.5));
    bay.until_reason(None).await;
    bay.stop().await;
}
