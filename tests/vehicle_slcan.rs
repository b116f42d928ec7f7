//! slcan links through real pseudo-terminals and TCP, against the simulated adapter,
//! which shares no codec with the driver. Here: adapters of many habits, and every line of a day;
//! faults, bit rates, trucks, visits and clearings each have a file beside.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "vehicle_slcan/clearing.rs"]
mod clearing;
#[path = "vehicle_slcan/faults.rs"]
mod faults;
#[path = "vehicle_slcan/patience.rs"]
mod patience;
#[path = "vehicle_slcan/rates.rs"]
mod rates;
#[path = "vehicle_slcan/rest.rs"]
mod rest;
#[path = "vehicle_slcan/trucks.rs"]
mod trucks;
mod vehicle_bay;
#[path = "vehicle_slcan/visits.rs"]
mod visits;

use std::time::Duration;

use baygate::config::tables::Poll;
use baygate::config::values::VehicleLink;
use baygate::event::vehicle::VehicleReport;
use baygate::sim::vehicle::{Adapter, CarSpec, Engine, Profile, SlcanProfile, SlcanSim, VehicleSim};
use baygate::vehicle::adapter::Adapter as Link;
use baygate::vehicle::gate::{ExtendedAddress, Request, Target};
use baygate::vehicle::report;
use serde_json::Value;
use vehicle_bay::{Bay, bundle, open_store};

fn car(protocol: u8) -> CarSpec {
    CarSpec {
        protocol,
        units: 3,
        latency_ms: 5,
        drift: false,
        confirmed: vec!["P0420".parse().unwrap(), "P0301".parse().unwrap()],
        ..CarSpec::default()
    }
}

async fn on_tcp(profile: SlcanProfile, car: &CarSpec) -> SlcanSim {
    SlcanSim::spawn_tcp("127.0.0.1:0".parse().unwrap(), profile, car).await.unwrap()
}

async fn reported(link: &str) -> VehicleReport {
    let bundle = bundle();
    let mut adapter = Link::open(&link.parse().unwrap(), &bundle, None, None).await.unwrap();
    report::build(&vehicle_bay::scanned(&mut adapter, &bundle).await.unwrap(), &bundle)
}

/// What does not depend on the way to the car.
fn told(report: &VehicleReport) -> Value {
    let mut report = serde_json::to_value(report).unwrap();
    for key in ["visit", "link", "adapter", "started_at", "duration_ms", "signals", "link_voltage_v"] {
        report.as_object_mut().unwrap().remove(key);
    }
    // The engine runs on while it is asked.
    for ecu in report["ecus"].as_array_mut().unwrap() {
        for value in ecu["values"].as_array_mut().unwrap() {
            value.as_object_mut().unwrap().remove("value");
        }
    }
    report
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_report_as_through_a_dongle() {
    for (protocol, bitrate) in [(6, 500_000), (7, 500_000), (8, 250_000), (9, 250_000)] {
        let car = car(protocol);
        let dongle = Profile { adapter: Adapter::default(), car: Some(car.clone()) };
        let dongle = VehicleSim::spawn_tcp("127.0.0.1:0".parse().unwrap(), dongle).await.unwrap();
        let expected = told(&reported(&format!("elm327+tcp://{}", dongle.name())).await);

        let sim = SlcanSim::spawn_pty(SlcanProfile::default(), &car, None).await.unwrap();
        let report = reported(&format!("slcan+serial://{}?bitrate={bitrate}", sim.name())).await;
        assert_eq!(report.adapter.identity, "slcan V1013 NSIM1");
        assert_eq!(report.adapter.voltage_v, None);
        assert_eq!(report.errors, [], "{protocol}");
        assert_eq!(told(&report), expected, "{protocol}");
        assert_eq!(report.ecus.len(), 3);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn adapters_of_every_kind() {
    let expected = {
        let sim = on_tcp(SlcanProfile::default(), &car(6)).await;
        told(&reported(&format!("slcan+tcp://{}?bitrate=500000", sim.name())).await)
    };
    let usual = SlcanProfile::default();
    for (name, profile) in [
        ("no acknowledgements", SlcanProfile { acknowledges: false, ..usual }),
        (
            "says nothing but frames and its version",
            SlcanProfile { confirms: false, acknowledges: false, ..usual },
        ),
        ("time stamps", SlcanProfile { stamps: true, ..usual }),
        ("byte by byte", SlcanProfile { split_bytes: 1, ..usual }),
        ("garbage between the lines", SlcanProfile { garbage: true, split_bytes: 3, ..usual }),
        ("a bus that talks", SlcanProfile { chatter: true, ..usual }),
        ("all of it", SlcanProfile { stamps: true, garbage: true, chatter: true, split_bytes: 7, ..usual }),
    ] {
        let sim = on_tcp(profile, &car(6)).await;
        let report = reported(&format!("slcan+tcp://{}?bitrate=500000", sim.name())).await;
        assert_eq!(told(&report), expected, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_unit_can_be_asked_and_may_take_its_time() {
    let sim = on_tcp(SlcanProfile::default(), &car(6)).await;
    let link: VehicleLink = format!("slcan+tcp://{}?bitrate=500000", sim.name()).parse().unwrap();
    let mut link = Link::open(&link, &bundle(), None, None).await.unwrap();
    sim.postpone(2);
    let answer = link.ask(Request::vehicle_info(2).to(Target::Unit(0x7E0)).unwrap(), None).await.unwrap();
    assert_eq!(answer.messages.len(), 1, "{answer:?}");
    assert_eq!(answer.messages[0].payload.len(), 20);
    assert_eq!(link.voltage().await.unwrap(), None);
    sim.engine(Engine::Off);
    let answer = link.ask(Request::current(0), None).await.unwrap();
    assert!(answer.is_silence(), "{answer:?}");
}

/// Invariant 6 for slcan: a day at the bay, every line against a list written down here.
#[tokio::test(flavor = "multi_thread")]
async fn every_line_of_a_day_belongs_to_the_list() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_store(dir.path());
    let sim = on_tcp(SlcanProfile::default(), &car(6)).await;
    let bay = Bay::start(&store, "bay-1", &format!("slcan+tcp://{}", sim.name()), Poll::Auto);
    bay.nth("vehicle.report", 1).await;
    sim.postpone(3);
    bay.scan().await;
    sim.engine(Engine::Off);
    bay.nth("vehicle.departed", 1).await;
    sim.engine(Engine::Running);
    bay.nth("vehicle.arrived", 2).await;
    bay.stop().await;
    let heard = sim.heard();
    assert!(heard.len() > 100, "a whole day: {}", heard.len());
    for line in &heard {
        let frame = |ids: &[&str], digits: usize| {
            let rest = line.get(1..)?;
            let (id, rest) = rest.split_at_checked(digits)?;
            let data = hex::decode(rest.strip_prefix('8')?).ok()?;
            ids.iter().any(|known| id.starts_with(known)).then_some(data)
        };
        let data = match line.as_bytes()[0] {
            // 7E0 to 7E7: flow control, and what UDS asks.
            b't' => frame(&["7DF", "7E0", "7E1", "7E2", "7E3", "7E4", "7E5", "7E6", "7E7"], 3),
            b'T' => frame(&["18DB33F1", "18DA"], 8),
            _ => {
                assert!(["C", "V", "N", "F", "L", "O", "S5", "S6"].contains(&line.as_str()), "{line}");
                continue;
            }
        };
        let data = data.unwrap_or_else(|| panic!("{line}"));
        match data.as_slice() {
            [0x30, 0, 0, 0, 0, 0, 0, 0] => {
                assert!(!line.starts_with("t7DF") && !line.starts_with("T18DB"), "{line}")
            }
            // Of 08 the masks alone.
            [2, 0x08, base, 0, 0, 0, 0, 0] => assert!(base.is_multiple_of(0x20), "{line}"),
            // Codes by status, one code's records, all it could store.
            [3, 0x19, 0x02, _, 0, ..] | [6, 0x19, 0x04 | 0x06, ..] | [2, 0x19, 0x0A, 0, ..] => {
                assert!(!line.starts_with("t7DF") && !line.starts_with("T18DB"), "{line}")
            }
            [length @ 1..=7, service, ..] => {
                let fits = match service {
                    0x01 => (2..=7).contains(length),
                    0x06 | 0x09 if *length == 2 => true,
                    // Up to six masks of monitors.
                    0x06 => {
                        (3..=7).contains(length)
                            && data[2..=usize::from(*length)].iter().all(|mask| mask.is_multiple_of(0x20))
                    }
                    0x22 => *length == 3,
                    // A PID and its frame's number, up to three times.
                    0x02 => matches!(length, 3 | 5 | 7),
                    0x03 | 0x07 | 0x0A => *length == 1,
                    _ => false,
                };
                assert!(fits, "{line}");
            }
            _ => panic!("{line}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_slcan_adapter_is_said_so() {
    let profile = Profile { adapter: Adapter::default(), car: Some(car(6)) };
    let dongle = VehicleSim::spawn_tcp("127.0.0.1:0".parse().unwrap(), profile).await.unwrap();
    let link: VehicleLink = format!("slcan+tcp://{}?bitrate=500000", dongle.name()).parse().unwrap();
    let opened =
        tokio::time::timeout(Duration::from_secs(20), Link::open(&link, &bundle(), None, None)).await;
    let error = opened.expect("in time").err().expect("an ELM327 is no slcan adapter");
    assert_eq!(error.code(), "not-slcan", "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_unit_is_asked_by_its_extended_address() {
    let sim = on_tcp(SlcanProfile::default(), &car(6)).await;
    let link: VehicleLink = format!("slcan+tcp://{}?bitrate=500000", sim.name()).parse().unwrap();
    let mut link = Link::open(&link, &bundle(), None, None).await.unwrap();
    let to = |unit| Target::Extended(ExtendedAddress::new(0x6F1, unit, 0xF1).unwrap());
    let answer = link.ask(Request::current(0x0C).to(to(0x12)).unwrap(), None).await.unwrap();
    let told: Vec<_> = answer.messages.iter().map(|m| (m.sender.0.as_str(), &m.payload[..2])).collect();
    assert_eq!(told, [("612", &[0x41, 0x0C][..])], "{answer:?}");
    let nobody = link.ask(Request::current(0x0C).to(to(0x40)).unwrap(), None).await.unwrap();
    assert!(nobody.is_silence(), "{nobody:?}");
    assert!(sim.heard().contains(&"t6F181202010C00000000".to_owned()), "{:?}", sim.heard());
}
