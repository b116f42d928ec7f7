//! Everything that a bay on a bus does, by steps that play on slcan and on an interface of the
//! kernel alike.
#![allow(dead_code)] // each test file uses its part

use std::path::Path;

use baygate::config::tables::{Poll, VehicleTable};
use baygate::sim::vehicle::{Script, Stage};
use baygate::store::Store;

use super::vehicle_bay::clearing::grant;
use super::vehicle_bay::{Bay, quick, table};

/// What each day must have asked: every service, and every kind of question about codes.
pub const DRIVEN: [&str; 17] = [
    "01", "02", "03", "06", "07", "08", "09", "0A", "1902", "1904", "1906", "190A", "1942", "1955", "1956",
    "21", "22",
];

/// Files that may choose and must not extend: maker's units, an address byte, what changes a car.
const COMMANDS: [&str; 11] = [
    r#""hdr":"7E0","cmd":{"22":"F187"}"#,
    r#""hdr":"710","rax":"77A","cmd":{"22":"F187"}"#,
    r#""hdr":"745","rax":"765","cmd":{"21":"01"}"#,
    r#""hdr":"6F1","eax":"12","tst":"F1","cmd":{"22":"F187"}"#,
    r#""hdr":"DA10","cmd":{"22":"F191"}"#,
    r#""hdr":"710","rax":"77A","cmd":{"2E":"F18700"}"#,
    r#""hdr":"7E0","cmd":{"04":""}"#,
    r#""hdr":"7E0","cmd":{"14":"FFFFFF"}"#,
    r#""hdr":"7E0","cmd":{"31":"01FF00"}"#,
    r#""hdr":"7E8","rax":"77A","cmd":{"22":"F187"}"#,
    r#""hdr":"100","rax":"77A","cmd":{"22":"F187"}"#,
];

async fn step<S>(sim: &mut S, action: &str)
where
    for<'a> Stage<'a>: From<&'a mut S>,
{
    let script = Script::from_toml(&format!("step = [{{ at = \"0s\", do = {action} }}]")).unwrap();
    script.play(Stage::from(sim)).await.unwrap();
}

/// Arrival, report, live values, makers' signals, faults, the key, other cars; then codes are
/// cleared, once, on a person's word.
pub async fn a_day<S>(store: &Store, dir: &Path, link: &str, sim: &mut S)
where
    for<'a> Stage<'a>: From<&'a mut S>,
{
    // A file each: one with a wrong command may be refused as a whole.
    let file = |(place, command): (usize, &str)| {
        let file = dir.join(format!("set-{place}.json"));
        let set = format!(r#"{{"commands":[{{{command},"freq":1,"signals":[]}}]}}"#);
        std::fs::write(&file, set).unwrap();
        file
    };
    let signals: Vec<_> = COMMANDS.into_iter().enumerate().map(file).collect();
    let with_files = VehicleTable { signals, ..table("bay-1", link, Poll::Auto) };
    let bay = Bay::start_table(store, with_files, quick());
    bay.nth("vehicle.report", 1).await;
    bay.nth("vehicle.signals", 2).await;
    for action in [
        "\"drop\"",
        "\"half\"",
        "\"garble\"",
        "{ pending = 2 }",
        "{ engine = \"off\" }",
        "{ swap = { protocol = 7, obd = false, j1979_2 = true, confirmed = [\"P0420\"], failure_type = 17 } }",
        "{ swap = { drive = \"bev\", obd = false } }",
        "\"unplug\"",
        "{ swap = { protocol = 7, truck = { vin = \"1XKDDB9X8YJ123456\", units = [{ source = 0, active = [[100, 1]], lamp = true }] } } }",
    ] {
        step(sim, action).await;
        bay.scan().await;
    }
    step(sim, "{ swap = { units = 3, engine = \"on\", confirmed = [\"P0420\"] } }").await;
    let report = bay.scan().await.outcome.unwrap();
    grant(store, &report["visit"], &["P0420"]).await;
    let cleared = bay.nth("vehicle.cleared", 1).await;
    assert_eq!(cleared["outcome"], "cleared", "{cleared}");
    bay.scan().await;
    bay.stop().await;
}
