//! Headquarters beyond the line: what it took, in which order, how often.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use baygate::config::tables::Confirm;
use baygate::event::Class;
use baygate::sim::headquarters::{self, Received, Verdict};
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::mqtt::{ROOT, until};

/// What headquarters took: class sequences by class, in the order of arrival, and the rest as counts.
#[derive(Default)]
pub struct Taken {
    pub fresh: BTreeMap<String, Vec<u64>>,
    pub total: u64,
    pub duplicates: u64,
    pub early: u64,
    /// One key, two ids or bodies: in plain text a garbled event may look like a good one.
    pub forks: Vec<serde_json::Value>,
}

/// Headquarters, straight at the broker. Where it answers with `ack`, what it took is on its disk before.
pub struct Hq {
    pub taken: Arc<Mutex<Taken>>,
    _stop: DropGuard,
    _journal: tempfile::TempDir,
}

impl Hq {
    pub fn start(port: u16, confirm: Confirm) -> Self {
        let (out, mut inbox) = mpsc::channel::<Received>(1024);
        let (stop, folder) = (CancellationToken::new(), tempfile::tempdir().unwrap());
        let (journal, stopped) = (folder.path().join("journal"), stop.clone());
        let acknowledge = confirm == Confirm::Headquarters;
        let options =
            headquarters::Options { broker: ([127, 0, 0, 1], port).into(), root: ROOT.into(), acknowledge };
        tokio::spawn(async move { headquarters::serve_journaled(options, &journal, out, stopped).await });
        let taken = Arc::new(Mutex::new(Taken::default()));
        let book = Arc::clone(&taken);
        tokio::spawn(async move {
            while let Some(received) = inbox.recv().await {
                let mut taken = book.lock().unwrap();
                taken.early += u64::from(received.verdict == Verdict::AheadOfOrder);
                match received.verdict {
                    Verdict::Duplicate => taken.duplicates += 1,
                    // What comes beyond a hole is left: it comes again, in its turn.
                    Verdict::AheadOfOrder if acknowledge => {}
                    Verdict::Fresh | Verdict::AheadOfOrder => {
                        let text = |name: &str| received.event[name].as_str().unwrap().to_owned();
                        let sequence = text("classsequence").parse().unwrap();
                        taken.fresh.entry(text("class")).or_default().push(sequence);
                        taken.total += 1;
                    }
                    Verdict::Fork => taken.forks.push(received.event),
                }
            }
        });
        Self { taken, _stop: stop.drop_guard(), _journal: folder }
    }

    pub fn total(&self) -> u64 {
        self.taken.lock().unwrap().total
    }

    /// Until `total` different events are in.
    pub async fn collect(&self, what: &str, total: u64) {
        until(&format!("{what}: {total} events, has {}", self.total()), async || {
            (self.total() >= total).then_some(())
        })
        .await;
    }

    /// Exactly 1, 2, 3 … `last` of a class, in this order.
    pub fn assert_whole(&self, class: Class, last: u64) {
        let taken = self.taken.lock().unwrap();
        let got = taken.fresh.get(class.as_str()).map_or(&[][..], Vec::as_slice);
        let wrong = (1..=last).zip(got).find(|(expected, got)| expected != *got);
        assert!(wrong.is_none(), "{class}: (expected, got) {wrong:?}");
        assert_eq!(got.len() as u64, last, "{class}: too few or too many");
        assert!(taken.forks.is_empty(), "one key, two ids or bodies: {:?}", taken.forks);
    }
}
