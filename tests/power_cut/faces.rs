//! What must agree with the log: the rows of jobs and visits (each written in the
//! transaction of its event), the pictures of faces that were told as printed,
//! and the data folder itself.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use baygate::store::inspect::Inspection;
use serde_json::Value;

use super::shop::say;
use super::words::Word;

/// Compares; with `data`, also the tables. Only while no daemon writes in between.
pub fn check(events: &[Value], data: Option<&Path>) {
    let mut jobs: BTreeMap<&str, &Value> = BTreeMap::new();
    let mut open_visits: BTreeSet<&str> = BTreeSet::new();
    for event in events {
        let told = &event["data"];
        match event["type"].as_str().unwrap() {
            "baygate.printer.job" => drop(jobs.insert(told["job"].as_str().unwrap(), told)),
            "baygate.vehicle.arrived" => drop(open_visits.insert(told["visit"].as_str().unwrap())),
            "baygate.vehicle.departed" => drop(open_visits.remove(told["visit"].as_str().unwrap())),
            _ => {}
        }
    }
    for job in jobs.values().filter(|job| job["state"] == "done") {
        let path = job["output"].as_str().unwrap();
        let whole = std::fs::read(path).is_ok_and(|picture| {
            picture.starts_with(b"\x89PNG") && picture.windows(4).any(|chunk| chunk == b"IEND")
        });
        if !whole {
            say(&Word::Wrong(format!("a face told as printed is not whole: {path}")));
        }
    }
    let Some(data) = data else { return };
    let inspection = match Inspection::open(data) {
        Ok(inspection) => inspection,
        Err(error) => return say(&Word::Wrong(error.to_string())),
    };
    for (id, job) in &jobs {
        let row = inspection.reader().print_job(id.parse().unwrap());
        let state = row.ok().flatten().map(|row| row.state.as_str());
        if state != job["state"].as_str() {
            say(&Word::Wrong(format!("job {id} was told as {} and is {state:?}", job["state"])));
        }
    }
    let rows = inspection.reader().open_visits().unwrap_or_default();
    let rows: BTreeSet<String> = rows.iter().map(|row| row.visit.to_string()).collect();
    if !rows.iter().map(String::as_str).eq(open_visits.iter().copied()) {
        say(&Word::Wrong(format!("visits told as open: {open_visits:?}, in their table: {rows:?}")));
    }
}

/// The start needed no repair.
pub fn nothing_salvaged(data: &Path) {
    for entry in std::fs::read_dir(data).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if name.contains("damaged") || name.contains("restore") {
            say(&Word::Wrong(format!("{name} lies in the data folder")));
        }
    }
}
