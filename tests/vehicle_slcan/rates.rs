//! At which bit rate a bus is asked: known before a byte is sent, where the bus talks.

use baygate::config::tables::Poll;
use baygate::config::values::VehicleLink;
use baygate::sim::vehicle::SlcanProfile;
use baygate::vehicle::adapter::Adapter as Link;

use crate::vehicle_bay::{Bay, bundle, open_store};
use crate::{car, on_tcp, reported};

#[tokio::test(flavor = "multi_thread")]
async fn a_bus_that_talks_tells_its_rate_before_a_byte_is_sent() {
    let talks = SlcanProfile { chatter: true, ..SlcanProfile::default() };
    let sim = on_tcp(talks, &car(8)).await;
    let report = reported(&format!("slcan+tcp://{}", sim.name())).await;
    assert_eq!(report.protocol, "iso15765-4-11bit-250k");
    assert_eq!(sim.sent_at_wrong_rate(), 0);
    let heard = sim.heard();
    let place = |line: &str| {
        heard.iter().position(|heard| heard == line).unwrap_or_else(|| panic!("{line}: {heard:?}"))
    };
    assert!(place("S6") < place("L") && place("L") < place("S5") && place("S5") < place("O"), "{heard:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_rate_is_left_at_once() {
    let talks = SlcanProfile { chatter: true, ..SlcanProfile::default() };
    let sim = on_tcp(talks, &car(8)).await;
    let link: VehicleLink = format!("slcan+tcp://{}?bitrate=500000", sim.name()).parse().unwrap();
    let error = Link::open(&link, &bundle(), None, None).await.err().expect("the rate is wrong");
    assert_eq!(error.code(), "wrong-bitrate");
    assert!(error.to_string().contains("500000"), "{error}");
    let heard = sim.heard();
    assert_eq!((heard.last().map(String::as_str), sim.sent_at_wrong_rate()), (Some("C"), 0), "{heard:?}");
}

/// A gateway says nothing before it is asked: then one frame is the price.
#[tokio::test(flavor = "multi_thread")]
async fn a_silent_bus_costs_one_frame_at_the_wrong_rate() {
    let sim = on_tcp(SlcanProfile::default(), &car(9)).await;
    let report = reported(&format!("slcan+tcp://{}", sim.name())).await;
    assert_eq!((report.protocol.as_str(), sim.sent_at_wrong_rate()), ("iso15765-4-29bit-250k", 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn obd_is_asked_at_its_two_rates_alone() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_store(dir.path());
    let sim = on_tcp(SlcanProfile::default(), &car(6)).await;
    let link = format!("slcan+tcp://{}?bitrate=125000", sim.name());
    let bay = Bay::start(&store, "bay-1", &link, Poll::Auto);
    bay.until_reason(Some("not-obd-bitrate")).await;
    bay.stop().await;
    assert!(sim.heard().is_empty(), "{:?}", sim.heard());
    // Listened to it may be.
    let bay = Bay::start(&store, "bay-2", &link, Poll::ListenOnly);
    bay.until_reason(Some("listen-only")).await;
    bay.stop().await;
    assert!(sim.heard().contains(&"S4".into()), "{:?}", sim.heard());
}
