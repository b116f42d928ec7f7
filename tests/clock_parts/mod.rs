//! A box whose wall clock the test sets: the real program under libfaketime, which
//! moves only wall time; a time service that touches its file when told; and
//! headquarters, which notes when each event really came.
#![allow(dead_code)]

#[path = "../support/faketime.rs"]
mod faketime;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use baygate::sim::headquarters::{self, Options, Received, Verdict};
use serde_json::Value;
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::daemon::{Daemon, Desk, LONG};
use super::mqtt::until;

pub const HOUR_S: i64 = 3_600;
pub const DAY_S: i64 = 86_400;
pub const DECADE_S: i64 = 3_652 * DAY_S;

pub fn unix_s() -> i64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    i64::try_from(now.as_secs()).unwrap()
}

/// RFC 3339 from seconds since 1970.
pub fn rfc3339(unix_s: i64) -> String {
    baygate::clock::UtcMillis(unix_s * 1000).to_string()
}

pub fn millis(event: &Value) -> i64 {
    baygate::clock::UtcMillis::parse(event["time"].as_str().unwrap()).unwrap().0
}

/// The clock of the box.
pub struct BoxClock {
    file: PathBuf,
    said: PathBuf,
    touches: u64,
}

impl BoxClock {
    /// Set wrong by so many seconds; no time service has spoken.
    pub fn new(desk: &Desk, wrong_by_s: i64) -> Self {
        let clock = Self { file: desk.path("faketime"), said: desk.path("synchronized"), touches: 0 };
        clock.set(wrong_by_s);
        clock
    }

    /// From now on wrong by so many seconds.
    pub fn set(&self, wrong_by_s: i64) {
        let next = self.file.with_extension("next");
        std::fs::write(&next, format!("{wrong_by_s:+}\n")).unwrap();
        std::fs::rename(next, &self.file).unwrap();
    }

    /// The time service says that it has set the clock.
    pub fn say_synchronized(&mut self) {
        self.touches += 1;
        let file = std::fs::File::create(&self.said).unwrap();
        // Another time than before, whatever the file system's resolution.
        file.set_modified(SystemTime::now() + std::time::Duration::from_secs(self.touches)).unwrap();
    }

    /// The line of `[gateway]` that names the time service's file.
    pub fn config(&self) -> String {
        format!("time_sync_file = \"{}\"", self.said.display())
    }

    /// The program on this box. Under libfaketime every look at a clock reads a file, so that
    /// on a loaded machine a rule may take longer than it may: then it is started again.
    pub async fn start(&self, config: &Path) -> Daemon {
        for _ in 0..10 {
            let (file, credentials) = (self.file.clone(), self.file.with_file_name("credentials"));
            let daemon = Daemon::spawn_with(config, |command| {
                if credentials.exists() {
                    command.env("CREDENTIALS_DIRECTORY", credentials);
                }
                command
                    .env("LD_PRELOAD", faketime::library())
                    .env("FAKETIME_TIMESTAMP_FILE", file)
                    .env("FAKETIME_NO_CACHE", "1")
                    .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
                    .env("NO_FAKE_STAT", "1");
            });
            let runs = until("the daemon runs, or says why not", async || {
                let log = daemon.log();
                let runs = log.contains("baygate is running");
                (runs || log.contains("time-limit")).then_some(runs)
            });
            if runs.await {
                return daemon;
            }
        }
        panic!("the daemon does not start");
    }
}

/// Headquarters, with the real time at which each event came. What it took is on its disk
/// before it says `ack`.
pub struct Headquarters {
    received: mpsc::Receiver<Received>,
    pub seen: Vec<(i64, Received)>,
    journal: PathBuf,
    _stop: DropGuard,
    _folder: tempfile::TempDir,
}

impl Headquarters {
    pub fn open(port: u16) -> Self {
        let (out, received) = mpsc::channel(10_000);
        let (stop, folder) = (CancellationToken::new(), tempfile::tempdir().unwrap());
        let (journal, stopped) = (folder.path().join("journal"), stop.clone());
        let broker = SocketAddr::from(([127, 0, 0, 1], port));
        let options = Options { broker, root: super::mqtt::ROOT.into(), acknowledge: true };
        let disk = journal.clone();
        tokio::spawn(async move { headquarters::serve_journaled(options, &disk, out, stopped).await });
        Self { received, seen: Vec::new(), journal, _stop: stop.drop_guard(), _folder: folder }
    }

    /// Waits for a new event, also among those seen before, that fits.
    pub async fn gets(&mut self, kind: &str, fits: impl Fn(&Value) -> bool) -> Value {
        let kind = format!("baygate.{kind}");
        let is_it = |r: &Received| {
            r.verdict == Verdict::Fresh && r.event["type"] == kind.as_str() && fits(&r.event["data"])
        };
        if let Some((_, found)) = self.seen.iter().find(|(_, r)| is_it(r)) {
            return found.event.clone();
        }
        // For all of them: others may come for ever.
        let deadline = tokio::time::Instant::now() + LONG;
        loop {
            let received = tokio::time::timeout_at(deadline, self.received.recv()).await;
            let received =
                received.unwrap_or_else(|_| panic!("{kind} never came; seen: {:#?}", self.summary()));
            let received = received.unwrap();
            self.seen.push((unix_s(), received.clone()));
            if is_it(&received) {
                return received.event;
            }
        }
    }

    /// The result of a command.
    pub async fn result_of(&mut self, id: uuid::Uuid) -> Value {
        let id = id.to_string();
        self.gets("command.result", |d| d["command_id"] == id.as_str()).await["data"].clone()
    }

    /// The correction by so many seconds (to the second or so: the file is not read at once).
    pub async fn correction(&mut self, by_s: i64) -> Value {
        self.gets("gateway.clock", |d| (d["offset_ms"].as_i64().unwrap() - by_s * 1000).abs() < 1_500).await
    }

    fn summary(&self) -> Vec<String> {
        let line = |r: &Received| {
            format!("{} {} {} {}", r.event["sequence"], r.event["type"], r.event["time"], r.event["data"])
        };
        self.seen.iter().map(|(_, r)| line(r).chars().take(240).collect()).collect()
    }

    pub fn fresh(&self) -> impl Iterator<Item = (i64, &Value)> {
        let fresh = self.seen.iter().filter(|(_, r)| r.verdict == Verdict::Fresh);
        fresh.map(|(at, r)| (*at, &r.event))
    }

    /// The ids on its disk, in their order.
    pub fn on_disk(&self) -> Vec<String> {
        let text = std::fs::read_to_string(&self.journal).unwrap();
        text.lines().map(|line| line.split(' ').nth(4).unwrap().to_owned()).collect()
    }

    /// Every event once, each class in its order, all sequences from 1 without a hole.
    pub fn assert_whole(&self) {
        let mut next: BTreeMap<String, u64> = BTreeMap::new();
        let (mut sequences, mut ids) = (BTreeSet::new(), BTreeSet::new());
        for (_, received) in &self.seen {
            // Neither another event under a known number, nor one before its turn.
            assert!(
                !matches!(received.verdict, Verdict::Fork | Verdict::AheadOfOrder),
                "{:?}: {}",
                received.verdict,
                received.event
            );
        }
        for (_, event) in self.fresh() {
            let number = |key: &str| event[key].as_str().unwrap().parse::<u64>().unwrap();
            let expected = next.entry(event["class"].as_str().unwrap().to_owned()).or_insert(1);
            assert_eq!(number("classsequence"), *expected, "{event}");
            *expected += 1;
            assert!(sequences.insert(number("sequence")), "twice: {event}");
            assert!(ids.insert(event["id"].as_str().unwrap().to_owned()), "an id twice: {event}");
            assert_ne!(event["type"], "baygate.gateway.gap", "{event}");
        }
        let highest = *sequences.last().unwrap();
        assert_eq!(sequences.len() as u64, highest, "{:#?}", self.summary());
    }

    /// What a consumer does: a synced time is right as it stands; an unsynced one is right
    /// with every correction of its boot that covers it. Right is: when it came, or within
    /// two minutes before.
    pub fn assert_times_can_be_put_right(&self) {
        let mut seen_through = 0;
        let corrections: Vec<&Value> =
            self.fresh().map(|(_, event)| event).filter(|e| e["type"] == "baygate.gateway.clock").collect();
        for (came_s, event) in self.fresh() {
            let sequence = event["sequence"].as_str().unwrap().parse::<u64>().unwrap();
            let covering = corrections.iter().filter(|c| {
                c["data"]["boot"] == event["boot"]
                    && c["epoch"] == event["epoch"]
                    && (c["data"]["from_sequence"].as_u64().unwrap()
                        ..=c["data"]["to_sequence"].as_u64().unwrap())
                        .contains(&sequence)
            });
            let offset: i64 = match event["timequality"].as_str().unwrap() {
                "synced" => 0,
                _ => covering.map(|c| c["data"]["offset_ms"].as_i64().unwrap()).sum(),
            };
            let early_s = came_s - (millis(event) + offset) / 1000;
            if !(-3..=120).contains(&early_s) && (-3..=120).contains(&(came_s - millis(event) / 1000)) {
                // libfaketime now and then lets one look at the clock through under load: the id,
                // made in the same moment, is of 1970 and the time is the real one.
                let id = event["id"].as_str().unwrap().parse::<uuid::Uuid>().unwrap();
                let (made_s, _) = id.get_timestamp().unwrap().to_unix();
                if came_s - i64::try_from(made_s).unwrap() > 3600 {
                    seen_through += 1;
                    assert_eq!(seen_through, 1, "more than one look past libfaketime: {event}");
                    continue;
                }
            }
            assert!(
                (-3..=120).contains(&early_s),
                "{early_s} s before it came, with {offset} ms: {event}\n{:#?}",
                self.summary()
            );
        }
    }
}
