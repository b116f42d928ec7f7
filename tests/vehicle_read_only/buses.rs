//! A car without a dongle: all bytes to an slcan adapter, its commands and every frame. The same day
//! plays on an interface of the kernel ([`super::bus_day`]).

use std::path::Path;

use baygate::cli::{Global, scan, watch};
use baygate::config::tables::Poll;
use baygate::config::values::Locale;
use baygate::sim::vehicle::{CarSpec, Drive, MakersUnit, SlcanFault, SlcanProfile, SlcanSim, Truck};

use super::bus_day::{DRIVEN, a_day};
use super::frames::{driven_in, judge_lines};
use super::tap::tapped_bus;
use super::vehicle_bay::{Bay, bundle, open_store};
use super::{faulty, parsed};

/// A bay's day, at the end of which codes are cleared, once.
#[tokio::test(flavor = "multi_thread")]
async fn a_day_at_a_bay_without_a_dongle() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_store(dir.path());
    let makers_unit = Some(MakersUnit { request: 0x710, answer: 0x77A });
    let (mut sim, tap) = tapped_bus(SlcanProfile::default(), &CarSpec { makers_unit, ..faulty() }).await;
    a_day(&store, dir.path(), &tap.slcan(), &mut sim).await;
    whole_day("a day", tap.heard());
}

/// The same over a serial line: what the adapter was sent is what it says it heard.
#[tokio::test(flavor = "multi_thread")]
async fn a_day_over_a_serial_line() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_store(dir.path());
    let makers_unit = Some(MakersUnit { request: 0x710, answer: 0x77A });
    let car = CarSpec { makers_unit, ..faulty() };
    let mut sim = SlcanSim::spawn_pty(SlcanProfile::default(), &car, None).await.unwrap();
    let link = format!("slcan+serial://{}", sim.name());
    a_day(&store, dir.path(), &link, &mut sim).await;
    whole_day("a day over a serial line", lines(&sim));
}

/// All lines that an adapter of the simulator heard.
fn lines(sim: &SlcanSim) -> Vec<u8> {
    let heard = sim.heard();
    assert!(heard.len() < 10_000, "it keeps no more");
    heard.iter().flat_map(|line| format!("{line}\r").into_bytes()).collect()
}

fn whole_day(what: &str, heard: Vec<u8>) {
    assert_eq!(judge_lines(what, &heard), ["04"], "once, and on a person's word");
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

/// `scan` and `watch` on every bus, with every habit of an adapter, before every kind of car, over
/// TCP and over a serial line.
#[tokio::test(flavor = "multi_thread")]
async fn scan_and_watch_on_every_bus_over_tcp_and_a_serial_line() {
    let usual = SlcanProfile::default;
    let mut cases: Vec<(String, SlcanProfile, CarSpec)> = (6..=9)
        .map(|protocol| (format!("bus {protocol}"), usual(), CarSpec { protocol, ..faulty() }))
        .collect();
    for (name, profile) in [
        ("says nothing of its own", SlcanProfile { confirms: false, acknowledges: false, ..usual() }),
        ("cannot listen", SlcanProfile { listens: false, ..usual() }),
        ("stamps", SlcanProfile { stamps: true, ..usual() }),
        ("in pieces", SlcanProfile { split_bytes: 3, ..usual() }),
        ("garbage", SlcanProfile { garbage: true, ..usual() }),
        ("talk and errors", SlcanProfile { chatter: true, tells_errors: true, ..usual() }),
    ] {
        cases.push((name.into(), profile, faulty()));
    }
    for (name, car) in [
        ("battery car", CarSpec { obd: false, ..faulty() }),
        ("J1979-2", CarSpec { obd: false, j1979_2: true, ..faulty() }),
        ("no UDS", CarSpec { uds: false, ..faulty() }),
        ("hybrid", CarSpec { drive: Drive::Hybrid, ..faulty() }),
        ("truck", CarSpec { protocol: 9, truck: Some(Truck::usual(None)), ..CarSpec::default() }),
    ] {
        cases.push((name.into(), usual(), car));
    }
    let mut jobs = Vec::new();
    for (name, profile, car) in cases {
        jobs.push(tokio::spawn(async move {
            let (_sim, tap) = tapped_bus(profile, &car).await;
            asked_by_hand(&tap.slcan()).await;
            let by_tcp = obeyed(profile, &tap.heard());
            assert_eq!(judge_lines(&name, &by_tcp), [""; 0]);
            let sim = SlcanSim::spawn_pty(profile, &car, None).await.unwrap();
            asked_by_hand(&format!("slcan+serial://{}", sim.name())).await;
            let by_serial = obeyed(profile, &lines(&sim));
            assert_eq!(judge_lines(&name, &by_serial), [""; 0]);
            [by_tcp, by_serial].map(|heard| driven_in(&heard))
        }));
    }
    let mut driven = [std::collections::BTreeSet::new(), std::collections::BTreeSet::new()];
    for job in jobs {
        for (all, its) in std::iter::zip(&mut driven, job.await.unwrap()) {
            all.extend(its);
        }
    }
    for way in driven {
        let services: Vec<_> = ["01", "02", "03", "06", "07", "09", "0A", "1902", "22"].to_vec();
        assert!(services.iter().all(|service| way.contains(*service)), "{way:?}");
    }
}

/// An adapter that does not know `L` stays off the bus when told so.
fn obeyed(profile: SlcanProfile, heard: &[u8]) -> Vec<u8> {
    let lines = heard.split_inclusive(|byte| *byte == b'\r');
    lines.filter(|line| profile.listens || *line != b"L\r").flatten().copied().collect()
}

/// The commands; whether there is a report is another test's business.
async fn asked_by_hand(link: &str) {
    let _ = scan::scan_link(&link.parse().unwrap(), &bundle(), None, Locale::En).await;
    let global = Global { config: Path::new("/none.toml").into(), json: true, locale: Some(Locale::En) };
    for words in [&["--rounds", "2"][..], &["0C", "0104", "--rounds", "2"]] {
        let _ = watch::run(parsed::<watch::Args>(&[&[link], words].concat()), &global).await;
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
