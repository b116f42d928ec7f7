//! What goes wrong on the way to an adapter and in it, by the steps of a script: what is lost is
//! asked for again and counted, an adapter that restarted is opened anew, and the visit goes on.

use std::time::Duration;

use baygate::config::tables::Poll;
use baygate::sim::vehicle::{Engine, Script, SlcanFault, SlcanProfile, SlcanSim};
use baygate::store::requests::RequestState;
use baygate::vehicle::Timing;
use baygate::vehicle::adapter::Adapter as Link;
use baygate::vehicle::answer::Answer;
use baygate::vehicle::clear::Delivery;
use baygate::vehicle::gate::Request;
use metrics_exporter_prometheus::PrometheusBuilder;

use crate::vehicle_bay::clearing::redeemed;
use crate::vehicle_bay::{Bay, bundle, open_store, quick};
use crate::{car, on_tcp, reported, told};

/// Plays one step at once.
async fn play(sim: &mut SlcanSim, action: &str) {
    let script = Script::from_toml(&format!("step = [{{ at = \"0s\", do = {action} }}]")).unwrap();
    script.play(sim).await.unwrap();
}

/// Who said what.
fn said(answer: &Answer) -> Vec<(String, String)> {
    answer.messages.iter().map(|m| (m.sender.0.clone(), hex::encode_upper(&m.payload))).collect()
}

/// Three units answer; one loses a line, or the rest of its message.
#[tokio::test]
async fn what_is_lost_is_asked_for_again_and_counted() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let _recorder = metrics::set_default_local_recorder(&recorder);
    let mut sim = on_tcp(SlcanProfile::default(), &car(6)).await;
    let name = format!("slcan+tcp://{}?bitrate=500000", sim.name());
    let mut link = Link::open(&name.parse().unwrap(), &bundle(), None, None).await.unwrap();
    // The first frame that ever comes is one of three: the unit behind it is not overlooked for good.
    play(&mut sim, "\"garble\"").await;
    assert_eq!(link.ask(Request::current(0), None).await.unwrap().messages.len(), 3);
    let (codes, vin, calibrations) =
        (Request::confirmed_codes(), Request::vehicle_info(2), Request::vehicle_info(4));
    for (action, request, times, garbled) in [
        ("\"garble\"", codes, 2, 1),
        ("\"garble\"", vin, 2, 1),
        ("\"garble\"", calibrations, 2, 1),
        ("\"half\"", vin, 2, 0),
        ("\"half\"", calibrations, 2, 0),
        ("\"nulls\"", calibrations, 1, 0),
    ] {
        let well = link.ask(request, None).await.unwrap();
        let before = sim.requests().len();
        play(&mut sim, action).await;
        let answer = link.ask(request, None).await.unwrap();
        assert_eq!(said(&answer), said(&well), "{action} {request}: {answer:?}");
        assert_eq!((answer.incomplete.len(), answer.garbage), (0, garbled), "{action} {request}");
        assert_eq!(sim.requests()[before..], vec![request.payload(); times], "{action} {request}");
    }
    let counted = recorder.handle().render();
    let line = counted.lines().find(|line| line.contains("kind=\"garbled\"")).unwrap();
    assert!(line.starts_with("baygate_vehicle_can_errors_total") && line.ends_with(" 4"), "{line}");
}

/// A line in so many is garbled, over a whole scan: not one word of the report is another.
#[tokio::test(flavor = "multi_thread")]
async fn a_scan_over_a_bad_line_tells_the_same() {
    let expected = {
        let sim = on_tcp(SlcanProfile::default(), &car(6)).await;
        told(&reported(&format!("slcan+tcp://{}?bitrate=500000", sim.name())).await)
    };
    for every in [37, 53] {
        let sim = on_tcp(SlcanProfile::default(), &car(6)).await;
        sim.fault(SlcanFault::GarbleEvery(every));
        let report = reported(&format!("slcan+tcp://{}?bitrate=500000", sim.name())).await;
        assert_eq!(report.errors, [], "{every}");
        assert_eq!(told(&report), expected, "{every}");
    }
}

/// Nothing of these may end a visit: they are about the adapter.
fn patient() -> Timing {
    let mut timing = quick();
    timing.patience.link_lost = Duration::from_secs(120);
    timing
}

/// It says nothing of its restart, and then refuses every frame as if nobody acknowledged.
#[tokio::test(flavor = "multi_thread")]
async fn an_adapter_that_restarts_or_freezes_is_opened_anew_and_the_visit_goes_on() {
    for profile in [
        SlcanProfile::default(),
        SlcanProfile { confirms: false, acknowledges: false, ..SlcanProfile::default() },
    ] {
        let dir = tempfile::tempdir().unwrap();
        let store = open_store(dir.path());
        let mut sim = on_tcp(profile, &car(6)).await;
        let link = format!("slcan+tcp://{}?bitrate=500000", sim.name());
        let bay = Bay::start_timed(&store, "bay-1", &link, Poll::Auto, patient());
        bay.nth("vehicle.report", 1).await;
        for (action, joins) in [("\"brown-out\"", 2), ("\"freeze\"", 3)] {
            play(&mut sim, action).await;
            bay.until_reason(Some("adapter-restarted")).await;
            if joins == 3 {
                bay.until_reason(Some("not-slcan")).await;
                sim.vanish().await;
                sim.come_back().await;
            }
            bay.until_reason(None).await;
            let windows = bay.count("vehicle.signals").await;
            bay.nth("vehicle.signals", windows + 1).await;
            assert_eq!(bay.scan().await.state, RequestState::Done, "{action}");
            let heard = sim.heard();
            let joined: Vec<_> = heard.iter().filter(|line| ["L", "O"].contains(&line.as_str())).collect();
            assert_eq!(joined, ["L", "O"].repeat(joins), "each time it listens first");
        }
        assert_eq!((bay.count("vehicle.arrived").await, bay.count("vehicle.departed").await), (1, 0));
        bay.stop().await;
    }
}

/// A link that only listens would be deaf for ever.
#[tokio::test(flavor = "multi_thread")]
async fn a_listening_adapter_that_restarts_listens_again() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_store(dir.path());
    let talks = SlcanProfile { chatter: true, ..SlcanProfile::default() };
    let mut sim = on_tcp(talks, &car(6)).await;
    let link = format!("slcan+tcp://{}?bitrate=500000", sim.name());
    let bay = Bay::start_timed(&store, "bay-1", &link, Poll::ListenOnly, patient());
    bay.nth("vehicle.arrived", 1).await;
    play(&mut sim, "\"brown-out\"").await;
    bay.until_reason(Some("adapter-restarted")).await;
    bay.until_reason(Some("listen-only")).await;
    let heard = sim.heard();
    assert!(heard.iter().all(|line| !line.starts_with(['t', 'T', 'O'])), "{heard:?}");
    assert_eq!(heard.iter().filter(|line| *line == "L").count(), 2, "{heard:?}");
    bay.stop().await;
}

/// A silence of a car that is asleep is none of the adapter.
#[tokio::test(flavor = "multi_thread")]
async fn a_silent_car_is_not_taken_for_a_silent_adapter() {
    let sim = on_tcp(SlcanProfile::default(), &car(6)).await;
    let link = format!("slcan+tcp://{}?bitrate=500000", sim.name());
    let mut link = Link::open(&link.parse().unwrap(), &bundle(), None, None).await.unwrap();
    assert!(!link.ask(Request::current(0), None).await.unwrap().is_silence());
    sim.engine(Engine::Off);
    for _ in 0..3 {
        assert!(link.ask(Request::current(0), None).await.unwrap().is_silence());
    }
    sim.fault(SlcanFault::BrownOut);
    let error = link.ask(Request::current(0), None).await.expect_err("it left the bus");
    assert_eq!(error.code(), "adapter-restarted");
    assert!(error.to_string().contains("slcan V1013 NSIM1"), "{error}");
}

/// It never left the adapter: that is certain, and said so.
#[tokio::test(flavor = "multi_thread")]
async fn a_clearing_is_not_left_to_an_adapter_that_restarted() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_store(dir.path());
    let sim = on_tcp(SlcanProfile::default(), &car(6)).await;
    let link = format!("slcan+tcp://{}?bitrate=500000", sim.name());
    let mut link = Link::open(&link.parse().unwrap(), &bundle(), None, None).await.unwrap();
    assert!(!link.ask(Request::current(0), None).await.unwrap().is_silence());
    sim.engine(Engine::On);
    sim.fault(SlcanFault::BrownOut);
    let answer = link.clear(redeemed(&store).await).await.unwrap();
    assert_eq!(answer.delivery, Delivery::NotSent, "{answer:?}");
    let heard = sim.heard();
    assert!(heard.iter().all(|line| !line.starts_with("t7DF80104")), "{heard:?}");
}
