//! A day, compressed, of a Wi-Fi dongle whose link drops at random moments with nobody looking
//! after it: visits, reports and resources are in the end as they should be.
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
use vehicle_bay::{Bay, UNHURRIED, open_store};

/// How much faster than in a workshop the day passes.
const FASTER: u32 = 720;
/// A day in the workshop.
const DAY: Duration = Duration::from_secs(8 * 3600);
/// So often the link drops, at least.
const DROPS: u32 = 16;
/// Opening an adapter takes as long as ever, on a slow machine too; a link away for longer than
/// this ends a visit.
const PATIENCE: Duration = Duration::from_secs(6);
/// A drop that a visit outlives.
const SHORT_MS: (u64, u64) = (20, 400);

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
        scan: UNHURRIED,
    }
}

fn of_kind<'a>(facts: &'a [(String, Value)], kind: &str) -> Vec<&'a Value> {
    facts.iter().filter(|(k, _)| k == kind).map(|(_, data)| data).collect()
}

/// The link dropped in the middle of its scan.
fn is_cut(report: &Value) -> bool {
    report["not_assessable_because"].as_array().unwrap().contains(&"scan-incomplete".into())
}

/// A visit is open and has its report: a whole one, or as many as are tried.
fn is_settled(facts: &[(String, Value)]) -> bool {
    let arrived = of_kind(facts, "vehicle.arrived");
    let reports = of_kind(facts, "vehicle.report");
    let open = arrived.len() == of_kind(facts, "vehicle.departed").len() + 1;
    let of_it: Vec<_> = reports
        .into_iter()
        .filter(|report| open && report["visit"] == arrived.last().unwrap()["visit"])
        .collect();
    of_it.len() >= 3 || of_it.iter().any(|report| !is_cut(report))
}

fn open_files() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_day_of_a_link_that_comes_and_goes() {
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

    let (mut drops, mut long_drops) = (0, 0);
    let begun = Instant::now();
    while drops < DROPS || begun.elapsed() < DAY / FASTER {
        drops += 1;
        let settled = dice.chance(700);
        let before = if settled {
            Some(of_kind(&bay.until("the link to be well", is_settled).await, "vehicle.departed").len())
        } else {
            // Cut at any moment: while it is opened, set up, asked.
            tokio::time::sleep(Duration::from_millis(dice.between(0, 600))).await;
            None
        };
        let long = dice.chance(200);
        sim.vanish().await;
        tokio::time::sleep(Duration::from_millis(dice.between(SHORT_MS.0, SHORT_MS.1))).await;
        if long {
            long_drops += 1;
            let is_over = |facts: &[(String, Value)]| {
                of_kind(facts, "vehicle.arrived").len() == of_kind(facts, "vehicle.departed").len()
            };
            bay.until("away for longer than its patience ends a visit", is_over).await;
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
                if !is_cut(data) {
                    assert_eq!(data["errors"], serde_json::json!([]));
                    *reports.entry(data["visit"].as_str().unwrap()).or_default() += 1;
                }
            }
            _ => {}
        }
    }
    assert!(reports.values().all(|count| *count == 1), "one whole report a visit: {reports:?}");
    assert!(open.is_some());
    println!(
        "{:.1} h, {drops} drops, {long_drops} of them long, {} visits, {} reports",
        (begun.elapsed() * FASTER).as_secs_f64() / 3600.0,
        visits.len(),
        reports.len()
    );

    // Nothing was left behind: the telemetry on its way, and the store's readers, may differ.
    let (tasks_now, files_now) = (runtime.num_alive_tasks(), open_files());
    assert!(tasks_now <= tasks + 1, "{tasks} tasks became {tasks_now}");
    assert!(files_now <= files + 3, "{files} open files became {files_now}");
    assert!(bay.stop().await < Duration::from_secs(5));
    sim.stop().await;
}
