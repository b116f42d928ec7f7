//! Headquarters as a process of its own (`baygate simulate headquarters`) that
//! can be killed, and its journal as a stranger reads it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex};

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Child;
use tokio::sync::watch;
use uuid::Uuid;

use crate::daemon::{LONG, program};

/// One event in headquarters' journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub source: String,
    pub epoch: Uuid,
    pub class: String,
    pub class_sequence: u64,
    pub id: Uuid,
    pub sequence: u64,
    /// Of its body as it came.
    pub sha256: String,
}

/// The whole lines of a journal; a torn last one was never acknowledged.
pub fn read_journal(path: &Path) -> Vec<Entry> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    whole
        .lines()
        .map(|line| {
            let words: Vec<&str> = line.split(' ').collect();
            let [source, epoch, class, class_sequence, id, sequence, sha256] = words[..] else {
                panic!("no line of a journal: {line:?}")
            };
            Entry {
                source: source.into(),
                epoch: epoch.parse().unwrap(),
                class: class.into(),
                class_sequence: class_sequence.parse().unwrap(),
                id: id.parse().unwrap(),
                sequence: sequence.parse().unwrap(),
                sha256: sha256.into(),
            }
        })
        .collect()
}

/// What headquarters said of the events, over all its lives.
#[derive(Debug, Default)]
pub struct Said {
    pub verdicts: BTreeMap<String, u64>,
    /// Whole lines: one is too many.
    pub forks: Vec<String>,
}

pub struct Headquarters {
    pub journal: PathBuf,
    pub said: Arc<Mutex<Said>>,
    /// New events so far.
    pub kept: watch::Receiver<u64>,
    keep: watch::Sender<u64>,
    broker: u16,
    pub acknowledge: bool,
    child: Option<Child>,
}

impl Headquarters {
    pub async fn start(broker: u16, journal: PathBuf, acknowledge: bool) -> Self {
        let (keep, kept) = watch::channel(0);
        let mut headquarters =
            Self { journal, said: Arc::default(), kept, keep, broker, acknowledge, child: None };
        headquarters.up();
        headquarters
    }

    pub fn up(&mut self) {
        let mut command = program();
        command
            .args(["simulate", "headquarters", "--json", "--broker", &format!("127.0.0.1:{}", self.broker)])
            .arg("--journal")
            .arg(&self.journal);
        if !self.acknowledge {
            command.arg("--no-ack");
        }
        let mut child = command.stdout(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let (said, keep) = (Arc::clone(&self.said), self.keep.clone());
        tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                // A kill may tear the last line.
                let Ok(told) = serde_json::from_str::<Value>(&line) else { continue };
                let Some(verdict) = told["verdict"].as_str() else { continue };
                let mut said = said.lock().unwrap();
                *said.verdicts.entry(verdict.to_owned()).or_default() += 1;
                if verdict == "fork" {
                    said.forks.push(line.clone());
                }
                if verdict == "fresh" {
                    keep.send_modify(|kept| *kept += 1);
                }
            }
        });
        self.child = Some(child);
    }

    pub fn pid(&self) -> Option<i32> {
        self.child.as_ref().and_then(Child::id).map(|pid| i32::try_from(pid).unwrap())
    }

    /// How it ended; nothing when it was dead.
    pub async fn kill(&mut self) -> Option<ExitStatus> {
        let mut child = self.child.take()?;
        child.start_kill().unwrap();
        Some(child.wait().await.unwrap())
    }

    /// It was told to stop.
    pub async fn ended(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        tokio::time::timeout(LONG, child.wait()).await.expect("headquarters ends").unwrap();
    }

    pub fn verdicts(&self, verdict: &str) -> u64 {
        self.said.lock().unwrap().verdicts.get(verdict).copied().unwrap_or(0)
    }
}
