//! What is on the bus while nothing is asked, and whose car the next question meets: an adapter
//! that listens where nobody answers, a bus that fell silent and is left asleep, a car of another
//! kind than the one before.

use std::time::{Duration, Instant};

use baygate::config::tables::Poll;
use baygate::event::device::DeviceStatus;
use baygate::event::vehicle::VehicleReport;
use baygate::sim::vehicle::{CarSpec, Drive, Engine, SlcanProfile, SlcanSim};
use baygate::store::requests::RequestState;
use baygate::vehicle::Timing;
use metrics_exporter_prometheus::PrometheusBuilder;

use crate::vehicle_bay::{Bay, DEADLINE, open_store, quick};
use crate::{car, on_tcp, reported, told};

/// Waits until the adapter is as wanted.
async fn until(sim: &SlcanSim, what: &str, wanted: impl Fn(&[String]) -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !wanted(&sim.heard()) {
        assert!(Instant::now() < deadline, "waited in vain for {what}: {:?}", sim.heard());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// How the adapter last joined the bus, or left it.
fn mode(heard: &[String]) -> &str {
    heard.iter().rfind(|line| ["O", "L", "C"].contains(&line.as_str())).map_or("", String::as_str)
}

fn frames(heard: &[String]) -> usize {
    heard.iter().filter(|line| line.starts_with(['t', 'T'])).count()
}

/// What one car was is not looked for in the next.
#[tokio::test(flavor = "multi_thread")]
async fn a_requested_scan_meets_cars_of_every_kind_one_after_the_other() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_store(dir.path());
    let one = CarSpec { units: 1, ..car(6) };
    let sim = on_tcp(SlcanProfile::default(), &one).await;
    let bay = Bay::start(&store, "bay-1", &format!("slcan+tcp://{}", sim.name()), Poll::OnRequest);
    let uds_alone = |protocol| CarSpec { obd: false, drive: Drive::Bev, ..car(protocol) };
    for (n, next, protocol, units) in [
        (1, one.clone(), "iso15765-4-11bit-500k", 1),
        // On the same bus, with more units than the one before.
        (2, CarSpec { vin: Some("LSVAA4187E2123456".into()), ..car(6) }, "iso15765-4-11bit-500k", 3),
        (3, car(7), "iso15765-4-29bit-500k", 3),
        (4, car(8), "iso15765-4-11bit-250k", 3),
        (5, uds_alone(6), "iso15765-4-11bit-500k", 3),
        (6, uds_alone(7), "iso15765-4-29bit-500k", 3),
        (7, car(9), "iso15765-4-29bit-250k", 3),
        (8, one.clone(), "iso15765-4-11bit-500k", 1),
    ] {
        sim.swap(&next).unwrap();
        let row = bay.scan().await;
        assert_eq!(row.state, RequestState::Done, "{n} {protocol}: {:?}", row.outcome);
        let report = bay.nth("vehicle.report", n).await;
        let ecus = report["ecus"].as_array().unwrap().len();
        assert_eq!((report["protocol"].as_str().unwrap(), ecus), (protocol, units), "{n}");
        if n == 2 {
            // Nobody was cut off who was not known before.
            let alone = on_tcp(SlcanProfile::default(), &next).await;
            let expected = reported(&format!("slcan+tcp://{}", alone.name())).await;
            let report: VehicleReport = serde_json::from_value(report).unwrap();
            assert_eq!(told(&report)["ecus"], told(&expected)["ecus"]);
        }
    }
    bay.stop().await;
}

/// Not even acknowledged is what the next car says at another rate.
#[tokio::test(flavor = "multi_thread")]
async fn where_nobody_answers_the_adapter_listens() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_store(dir.path());
    let asleep = CarSpec { engine: Engine::Off, ..car(6) };
    for (id, poll) in [("bay-1", Poll::OnRequest), ("bay-2", Poll::Auto)] {
        let sim = on_tcp(SlcanProfile::default(), &asleep).await;
        let bay = Bay::start(&store, id, &format!("slcan+tcp://{}", sim.name()), poll);
        let row = bay.scan().await;
        assert_eq!(row.state, RequestState::Failed, "{row:?}");
        until(&sim, "listening", |heard| frames(heard) > 0 && mode(heard) == "L").await;
        // Awake, and gone again.
        sim.engine(Engine::Running);
        assert_eq!(bay.scan().await.state, RequestState::Done);
        sim.engine(Engine::Off);
        until(&sim, "listening again", |heard| mode(heard) == "L").await;
        // The next car is at another rate and talks: it is not sent a byte at the wrong one.
        let before = sim.sent_at_wrong_rate();
        sim.swap(&CarSpec { vin: Some("LSVAA4187E2123456".into()), ..car(8) }).unwrap();
        sim.talk();
        if poll == Poll::OnRequest {
            assert_eq!(bay.scan().await.state, RequestState::Done);
        }
        bay.until("a car at 250 kbit/s", |facts| {
            facts
                .iter()
                .any(|(kind, data)| kind == "vehicle.report" && data["protocol"] == "iso15765-4-11bit-250k")
        })
        .await;
        assert_eq!(sim.sent_at_wrong_rate(), before);
        bay.stop().await;
    }
}

/// The car would answer, and so wake: that it fell silent is sign enough.
#[tokio::test(flavor = "multi_thread")]
async fn a_bus_that_talked_and_fell_silent_is_asked_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_store(dir.path());
    let talks = SlcanProfile { chatter: true, ..SlcanProfile::default() };
    let sim = on_tcp(talks, &CarSpec { engine: Engine::On, ..car(6) }).await;
    let usual = Timing::default();
    let mut timing = quick();
    // A bus counts as talking by its frames in a second.
    timing.pace.look = usual.pace.look;
    (timing.pace.engine_off, timing.pace.engine_off_most) =
        (Duration::from_secs(20), Duration::from_secs(20));
    let link = format!("slcan+tcp://{}?bitrate=500000", sim.name());
    let bay = Bay::start_timed(&store, "bay-1", &link, Poll::Auto, timing);
    bay.nth("vehicle.report", 1).await;
    bay.nth("vehicle.signals", 1).await;
    sim.hush();
    let asked = frames(&sim.heard());
    assert_eq!(bay.nth("vehicle.departed", 1).await["reason"], "ignition-off");
    assert_eq!(frames(&sim.heard()), asked, "{:?}", sim.heard());
    until(&sim, "listening", |heard| mode(heard) == "L").await;
    // Long after a car that is only silent would have been asked.
    tokio::time::sleep(timing.pace.silent_most * 3).await;
    assert_eq!(frames(&sim.heard()), asked);
    sim.talk();
    bay.nth("vehicle.arrived", 2).await;
    bay.stop().await;
}

/// No gateway beside it speaks J1979 or 11 bits: all addresses fit into one look.
#[tokio::test(flavor = "multi_thread")]
async fn a_battery_car_on_long_identifiers_is_met_at_the_first_look() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_store(dir.path());
    let sim = on_tcp(SlcanProfile::default(), &CarSpec { obd: false, drive: Drive::Bev, ..car(7) }).await;
    let mut timing = quick();
    timing.pace.silent_first = Duration::from_secs(3600);
    timing.pace.silent_most = timing.pace.silent_first;
    let link = format!("slcan+tcp://{}?bitrate=500000", sim.name());
    let bay = Bay::start_timed(&store, "bay-1", &link, Poll::Auto, timing);
    let arrived = bay.nth("vehicle.arrived", 1).await;
    assert_eq!((&arrived["protocol"], arrived["vin"].is_string()), (&"iso15765-4-29bit-500k".into(), true));
    bay.stop().await;
}

/// Told in both languages and left; counted are the adapter's flags and what was heard.
#[tokio::test]
async fn a_wrong_rate_is_told_of_a_link_that_only_listens() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let _recorder = metrics::set_default_local_recorder(&recorder);
    let dir = tempfile::tempdir().unwrap();
    let store = open_store(dir.path());
    let talks = SlcanProfile { chatter: true, ..SlcanProfile::default() };
    for (id, first) in [("bay-1", car(8)), ("bay-2", car(6))] {
        let sim = on_tcp(talks, &first).await;
        let link = format!("slcan+tcp://{}?bitrate=500000", sim.name());
        let bay = Bay::start(&store, id, &link, Poll::ListenOnly);
        if id == "bay-2" {
            bay.nth("vehicle.arrived", 1).await;
            // The next car is at another rate.
            sim.swap(&car(8)).unwrap();
        }
        let row = bay.until_reason(Some("wrong-bitrate")).await;
        assert_eq!(row.state.state, DeviceStatus::Degraded);
        assert!(row.state.detail.unwrap().contains("500000"));
        let trouble =
            bay.health.troubles().into_iter().find(|trouble| trouble.code == "wrong-bitrate").unwrap();
        assert!(trouble.text.zh.contains("500000 bit/s") && trouble.text.en.contains("500000 bit/s"));
        until(&sim, "the bus left", |heard| mode(heard) == "C").await;
        assert_eq!(frames(&sim.heard()), 0);
        // Each time it is tried again it is known before the link is called well.
        let tries = sim.heard().len();
        until(&sim, "another try", |heard| heard.len() > tries + 4 && mode(heard) == "C").await;
        let ready = bay.facts().await.into_iter().filter(|(_, data)| data["reason"] == "listen-only").count();
        assert_eq!(ready, usize::from(id == "bay-2"));
        bay.stop().await;
        let counted = recorder.handle().render();
        let of_bus = |kind: &str| {
            let line = counted.lines().find(|line| {
                line.starts_with("baygate_vehicle_can_errors_total")
                    && line.contains(&sim.name())
                    && line.contains(&format!("kind=\"{kind}\""))
            });
            line.and_then(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).unwrap_or(0)
        };
        // A4: bus error, error-passive, warning.
        assert!(of_bus("nonsense") >= 2 && of_bus("passive") == of_bus("nonsense"), "{counted}");
        assert_eq!((of_bus("unacknowledged"), of_bus("bus-off")), (0, 0), "{counted}");
        let heard = counted.lines().any(|line| {
            line.starts_with(&format!("baygate_vehicle_heard_frames_total{{link=\"{id}\"}}"))
                && !line.ends_with(" 0")
        });
        assert_eq!(heard, id == "bay-2", "{counted}");
    }
}
