//! A car without a dongle: all bytes to an slcan adapter, its commands and every frame. The same day
//! plays on an interface of the kernel ([`super::bus_day`]).

use baygate::config::tables::Poll;
use baygate::sim::vehicle::{CarSpec, MakersUnit, SlcanFault, SlcanProfile};

use super::bus_day::{DRIVEN, a_day};
use super::faulty;
use super::frames::{driven_in, judge_lines};
use super::tap::tapped_bus;
use super::vehicle_bay::{Bay, open_store};

/// A bay's day, at the end of which codes are cleared, once.
#[tokio::test(flavor = "multi_thread")]
async fn a_day_at_a_bay_without_a_dongle() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_store(dir.path());
    let makers_unit = Some(MakersUnit { request: 0x710, answer: 0x77A });
    let (mut sim, tap) = tapped_bus(SlcanProfile::default(), &CarSpec { makers_unit, ..faulty() }).await;
    a_day(&store, dir.path(), &tap.slcan(), &mut sim).await;
    let heard = tap.heard();
    assert_eq!(judge_lines("a day", &heard), ["04"], "once, and on a person's word");
    let driven = driven_in(&heard);
    let left_out: Vec<_> = DRIVEN.iter().filter(|kind| !driven.contains(**kind)).collect();
    assert!(left_out.is_empty(), "{left_out:?} of {driven:?}");
    let text = String::from_utf8(heard).unwrap();
    for line in [
        // Both groups of a truck; flow control to a unit; a maker's unit; one behind an address byte.
        "T18EAFFF93CBFE00",
        "T18EAFFF93ECFE00",
        "t7E083000000000000000",
        "t71080322F18700000000",
        "t6F18120322F187000000",
    ] {
        assert!(text.split('\r').any(|heard| heard == line), "{line} was driven");
    }
}

/// A link that only listens writes no frame at all, and never joins the bus to send.
#[tokio::test(flavor = "multi_thread")]
async fn a_link_that_only_listens_without_a_dongle() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_store(dir.path());
    let talks = SlcanProfile { chatter: true, ..SlcanProfile::default() };
    let (sim, tap) = tapped_bus(talks, &faulty()).await;
    let link = format!("{}?bitrate=500000", tap.slcan());
    let bay = Bay::start(&store, "bay-1", &link, Poll::ListenOnly);
    bay.nth("vehicle.arrived", 1).await;
    bay.scan().await;
    sim.fault(SlcanFault::BrownOut);
    bay.until_reason(Some("adapter-restarted")).await;
    bay.until_reason(Some("listen-only")).await;
    bay.stop().await;
    let text = String::from_utf8(tap.heard()).unwrap();
    assert!(!text.split('\r').any(|line| line.starts_with(['t', 'T', 'O'])), "{text:?}");
    assert_eq!(judge_lines("listening", text.as_bytes()), [""; 0]);
}
