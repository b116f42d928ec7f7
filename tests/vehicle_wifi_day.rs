//! Eight hours, compressed, of a Wi-Fi dongle whose link drops at random moments with
//! nobody looking after it: visits, reports and resources are in the end as they should be.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "support/dice.rs"]
mod dice;
mod vehicle_bay;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use baygate::config::tables::Poll;
use baygate::sim::vehicle::{Adapter, CarSpec, Profile, VehicleSim};
use baygate::vehicle::Timing;
use baygate::vehicle::polling::Pace;
use baygate::vehicle::visit::Patience;
use dice::Dice;
use serde_json::Value;
use vehicle_bay::{Bay, open_store};

/// Eight hours pass in 40 s.
const FASTER: u32 = 720;
const DAY: Duration = Duration::from_secs(8 * 3600);
/// Opening an adapter takes as long as ever; a link away for longer than this ends a visit.
const PATIENCE: Duration = Duration::from_millis(2_000);
/// Drops: those a visit outlives, and those it does not.
const SHORT_MS: (u64, u64) = (20, 400);
const LONG_MS: (u64, u64) = (3_000, 3_500);

fn timing() -> Timing {
    let usual = Timing::default();
    let scaled = |time: Duration| time / FASTER;
    Timing {
        patience: Patience { link_lost: PATIENCE, ..usual.patience },
        pace: Pace {
            look: scaled(usual.pace.look),
            running: scaled(usual.pace.running),
            engine_off: scaled(usual.pace.engine_off),
            engine_off_most: scaled(usual.pace.engine_off_most),
            low_for: scaled(usual.pace.low_for),
            silent_first: scaled(usual.pace.silent_first),
            silent_most: scaled(usual.pace.silent_most),
            vin: scaled(usual.pace.vin),
            // A commit each.
            window: Duration::from_millis(100),
        },
        retry_first: scaled(usual.retry_first),
        retry_most: scaled(usual.retry_most),
    }
}

fn of_kind<'a>(facts: &'a [(String, Value)], kind: &str) -> Vec<&'a Value> {
    facts.iter().filter(|(k, _)| k == kind).map(|(_, data)| data).collect()
}

/// A visit is open and has its report.
fn is_settled(facts: &[(String, Value)]) -> bool {
    let arrived = of_kind(facts, "vehicle.arrived");
    let reports = of_kind(facts, "vehicle.report");
    let open = arrived.len() == of_kind(facts, "vehicle.departed").len() + 1;
    open && reports.iter().any(|report| report["visit"] == arrived.last().unwrap()["visit"])
}

fn open_files() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn eight_hours_of_a_link_that_comes_and_goes() {
    let mut dice = Dice::throw("wifi day");
    let dir = tempfile::tempdir().unwrap();
    let store = open_store(dir.path());
    let adapter = Adapter::named("wifi-v1-5").unwrap();
    let profile = Profile { adapter, car: Some(CarSpec::default()) };
    let mut sim = VehicleSim::spawn_tcp("127.0.0.1:0".parse().unwrap(), profile).await.unwrap();
    let link = format!("elm327+tcp://{}", sim.addr().unwrap());
    let bay = Bay::start_timed(&store, "bay-1", &link, Poll::Auto, timing());
    bay.until("the first report", is_settled).await;
    let runtime = tokio::runtime::Handle::current().metrics();
    let (tasks, files) = (runtime.num_alive_tasks(), open_files());

    let begun = Instant::now();
    let (mut drops, mut long_drops) = (0, 0);
    while begun.elapsed() < DAY / FASTER {
        let settled = dice.chance(700);
        let before = if settled {
            Some(of_kind(&bay.until("the link to be well", is_settled).await, "vehicle.departed").len())
        } else {
            // Cut at any moment: while it is opened, set up, asked.
            tokio::time::sleep(Duration::from_millis(dice.between(0, 600))).await;
            None
        };
        let long = dice.chance(200);
        let (least, most) = if long { LONG_MS } else { SHORT_MS };
        sim.vanish().await;
        tokio::time::sleep(Duration::from_millis(dice.between(least, most))).await;
        drops += 1;
        if long {
            long_drops += 1;
            let facts = bay.facts().await;
            let (arrived, departed) =
                (of_kind(&facts, "vehicle.arrived"), of_kind(&facts, "vehicle.departed"));
            assert_eq!(arrived.len(), departed.len(), "away for longer than its patience ends a visit");
        }
        sim.return_().await;
        if let (Some(before), false) = (before, long) {
            let facts = bay.until("the link to be back", is_settled).await;
            assert_eq!(of_kind(&facts, "vehicle.departed").len(), before, "a short drop ends no visit");
        }
    }

    let facts = bay.until("the last report", is_settled).await;
    bay.until_reason(None).await;
    let mut open: Option<&Value> = None;
    let mut reports: BTreeMap<&str, u32> = BTreeMap::new();
    let mut visits = BTreeSet::new();
    for (kind, data) in &facts {
        match kind.as_str() {
            "vehicle.arrived" => {
                assert!(open.is_none(), "one visit at a time");
                assert!(visits.insert(data["visit"].as_str().unwrap()), "each is a new one");
                assert_eq!(data["vin"], "1M8GDM9AXKP042788");
                open = Some(&data["visit"]);
            }
            "vehicle.departed" => {
                assert_eq!(open.take(), Some(&data["visit"]));
                assert_eq!(data["reason"], "link-lost");
            }
            "vehicle.report" => {
                assert_eq!(open, Some(&data["visit"]), "a report belongs to the open visit");
                assert_eq!(data["errors"], serde_json::json!([]));
                *reports.entry(data["visit"].as_str().unwrap()).or_default() += 1;
            }
            _ => {}
        }
    }
    assert!(reports.values().all(|count| *count == 1), "one report a visit: {reports:?}");
    assert_eq!(open.and_then(Value::as_str).map(|visit| reports[visit]), Some(1));
    println!("{drops} drops, {long_drops} of them long, {} visits, {} reports", visits.len(), reports.len());
    assert!(drops >= 8, "{drops}");

    // Nothing was left behind: the telemetry on its way, and the store's readers, may differ.
    let (tasks_now, files_now) = (runtime.num_alive_tasks(), open_files());
    assert!(tasks_now <= tasks + 1, "{tasks} tasks became {tasks_now}");
    assert!(files_now <= files + 3, "{files} open files became {files_now}");
    assert!(bay.stop().await < Duration::from_secs(5));
    sim.stop().await;
}
