//! The comparison at the end: what callers were told, the daemon's log, and
//! headquarters' journal must tell one story.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use super::Showroom;
use super::headquarters::Entry;
use super::stream::Heard;
use crate::daemon::{Desk, program};

/// An event of `baygate buffer export`.
#[derive(Debug, Clone)]
pub struct Logged {
    pub id: Uuid,
    pub source: String,
    pub epoch: Uuid,
    pub sequence: u64,
    pub class: String,
    pub class_sequence: u64,
    pub kind: String,
    pub data: Value,
    /// Of the whole envelope.
    pub sha256: String,
}

async fn buffer(desk: &Desk, args: &[&str]) -> String {
    let output = program().args(["buffer", "--data-dir"]).arg(desk.path("data")).args(args).output().await;
    let output = output.unwrap();
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

pub async fn log(desk: &Desk) -> Vec<Logged> {
    let text = |event: &Value, name: &str| event[name].as_str().unwrap().to_owned();
    buffer(desk, &["export"])
        .await
        .lines()
        .map(|line| {
            let event: Value = serde_json::from_str(line).unwrap();
            Logged {
                id: text(&event, "id").parse().unwrap(),
                source: text(&event, "source"),
                epoch: text(&event, "epoch").parse().unwrap(),
                sequence: text(&event, "sequence").parse().unwrap(),
                class: text(&event, "class"),
                class_sequence: text(&event, "classsequence").parse().unwrap(),
                kind: text(&event, "type").trim_start_matches("baygate.").to_owned(),
                data: event["data"].clone(),
                sha256: hex::encode(Sha256::digest(line)),
            }
        })
        .collect()
}

pub async fn status(desk: &Desk) -> Value {
    serde_json::from_str(&buffer(desk, &["status", "--json"]).await).unwrap()
}

/// One epoch, sequences and class sequences without a hole, every id once.
pub fn assert_log_is_whole(log: &[Logged]) {
    let mut classes: BTreeMap<&str, u64> = BTreeMap::new();
    for (event, expected) in log.iter().zip(1..) {
        assert_eq!(event.epoch, log[0].epoch, "a second epoch began: {event:?}");
        assert_eq!(event.sequence, expected, "{event:?}");
        let class = classes.entry(&event.class).or_default();
        *class += 1;
        assert_eq!(event.class_sequence, *class, "{event:?}");
    }
    let ids: BTreeSet<Uuid> = log.iter().map(|event| event.id).collect();
    assert_eq!(ids.len(), log.len(), "an id stands twice in the log");
}

/// Everything that headquarters has is in the log under the same numbers and id, byte for byte
/// and once, and came in order within its class.
pub fn assert_journal_agrees(log: &[Logged], journal: &[Entry], without_holes: bool) {
    let logged: BTreeMap<u64, &Logged> = log.iter().map(|event| (event.sequence, event)).collect();
    let mut keys = BTreeSet::new();
    let mut arrived: BTreeMap<&str, u64> = BTreeMap::new();
    for entry in journal {
        assert!(keys.insert((&entry.source, entry.epoch, entry.sequence)), "twice: {entry:?}");
        let event = logged.get(&entry.sequence).unwrap_or_else(|| panic!("not in the log: {entry:?}"));
        assert_eq!(
            (&entry.source, entry.epoch, &entry.class, entry.class_sequence, entry.id, &entry.sha256),
            (&event.source, event.epoch, &event.class, event.class_sequence, event.id, &event.sha256),
            "headquarters and the log disagree"
        );
        let last = arrived.insert(&entry.class, entry.class_sequence).unwrap_or(0);
        let next = if without_holes { last + 1 } else { entry.class_sequence.max(last + 1) };
        assert_eq!(entry.class_sequence, next, "out of order: {entry:?}");
    }
}

/// The furthest event that a caller was told.
pub fn furthest_told(room: &Showroom) -> u64 {
    room.shop.stream.with(|heard: &Heard| heard.events.keys().next_back().copied().unwrap_or(0))
}

/// What a caller was told stands in the log; asked of what was told before the log was read.
pub fn assert_told_is_kept(room: &Showroom, log: &[Logged], furthest_told: u64) {
    let logged: BTreeMap<u64, Uuid> = log.iter().map(|event| (event.sequence, event.id)).collect();
    room.shop.stream.with(|heard: &Heard| {
        assert_eq!(heard.faults, Vec::<String>::new(), "the event stream");
        assert!(!heard.events.is_empty());
        for (sequence, id) in heard.events.iter().filter(|(sequence, _)| **sequence <= furthest_told) {
            assert_eq!(logged.get(sequence), Some(id), "told as {sequence}, and then not in the log");
        }
    });
    let of = |kind: &'static str| log.iter().filter(move |event| event.kind == kind).map(|event| &event.data);
    let answers = &room.shop.answers;
    assert_eq!(*answers.odd.lock().unwrap(), Vec::<String>::new());
    let jobs: BTreeSet<&str> = of("printer.job").filter_map(|data| data["job"].as_str()).collect();
    let prints = answers.prints.lock().unwrap();
    for print in prints.iter() {
        assert!(jobs.contains(print.job.to_string().as_str()), "accepted and lost: {print:?}");
    }
    let distinct: BTreeSet<Uuid> = prints.iter().map(|print| print.job).collect();
    assert_eq!(distinct.len(), prints.len(), "two keys share a job");
    let reports: BTreeSet<(&str, &str)> = of("vehicle.report")
        .filter_map(|data| Some((data["visit"].as_str()?, data["started_at"].as_str()?)))
        .collect();
    for scan in answers.scans.lock().unwrap().iter().filter(|scan| scan.settled["failed"].is_null()) {
        let told = (scan.settled["visit"].as_str().unwrap(), scan.settled["started_at"].as_str().unwrap());
        assert!(reports.contains(&told), "reported and lost: {scan:?}");
    }
    let shown = of("card.tapped").chain(of("card.refused"));
    let taps: BTreeSet<&str> = shown.filter_map(|data| data["uid"].as_str()).collect();
    for uid in answers.cards.lock().unwrap().iter() {
        assert!(taps.contains(uid.as_str()), "shown to a till and lost: {uid}");
    }
}

/// Each thing happened once, with one beginning and one end.
pub fn assert_stories_are_whole(room: &Showroom, log: &[Logged]) {
    let mut jobs: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let mut visits: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let mut cards: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let mut warnings: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let mut commands: BTreeMap<&str, Vec<&Value>> = BTreeMap::new();
    for Logged { kind, data, .. } in log {
        let text = |name: &str| data[name].as_str().unwrap();
        match kind.as_str() {
            "printer.job" => jobs.entry(text("job")).or_default().push(text("state")),
            "vehicle.arrived" | "vehicle.departed" => visits.entry(text("visit")).or_default().push(kind),
            // A card that leaves before it was known has no UID, and no removal.
            "card.refused" if data["uid"].is_null() => {}
            "card.tapped" | "card.refused" | "card.removed" => {
                cards.entry(text("uid")).or_default().push(kind)
            }
            "maintenance.warning" | "maintenance.cleared" => {
                warnings.entry(text("warning_id")).or_default().push(kind);
            }
            "command.result" => commands.entry(text("command_id")).or_default().push(data),
            _ => {}
        }
    }
    for (job, states) in jobs {
        let ends = states.iter().filter(|state| matches!(**state, "done" | "failed")).count();
        let last = states.last().unwrap();
        assert!(
            states[0] == "queued" && ends == 1 && matches!(*last, "done" | "failed"),
            "job {job}: {states:?}"
        );
    }
    for (visit, story) in visits {
        assert_eq!(story, ["vehicle.arrived", "vehicle.departed"], "visit {visit}");
    }
    for (uid, story) in cards {
        for stay in story.split_inclusive(|kind| *kind == "card.removed") {
            let whole = match stay {
                ["card.tapped" | "card.refused", "card.removed"] => true,
                // Given out while it lay there.
                ["card.refused", "card.tapped", "card.removed"] => true,
                _ => false,
            };
            assert!(whole, "card {uid}: {stay:?} in {story:?}");
        }
    }
    for (warning, story) in warnings {
        let raised = story.iter().filter(|kind| **kind == "maintenance.warning").count();
        assert!(raised == 1 && story[0] == "maintenance.warning" && story.len() <= 2, "{warning}: {story:?}");
    }
    let given = room.orders.given.lock().unwrap();
    for order in given.iter() {
        let results = commands.remove(order.id.to_string().as_str()).unwrap_or_default();
        assert_eq!(results.len(), 1, "{order:?}: {results:?}");
        if order.name == "ping" {
            assert_eq!(results[0]["outcome"], "done", "{order:?}");
        }
    }
    assert!(commands.is_empty(), "nobody gave these: {commands:?}");
}
