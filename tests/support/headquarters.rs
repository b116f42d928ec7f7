//! Headquarters in the test's own process: what came, in the order in which it came.
#![allow(dead_code)] // each test file uses its part
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::net::SocketAddr;

use baygate::sim::headquarters::{self, Received, Verdict};
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::mqtt::{LONG, ROOT};

/// Answers with `ack`, what it took being on its disk; each file adds what it looks for.
pub struct Headquarters {
    received: mpsc::Receiver<Received>,
    pub seen: Vec<Received>,
    _stop: DropGuard,
    _folder: tempfile::TempDir,
}

impl Headquarters {
    pub fn open(port: u16) -> Self {
        let (out, received) = mpsc::channel(10_000);
        let (stop, folder) = (CancellationToken::new(), tempfile::tempdir().unwrap());
        let (journal, stopped) = (folder.path().join("journal"), stop.clone());
        let broker = SocketAddr::from(([127, 0, 0, 1], port));
        let options = headquarters::Options { broker, root: ROOT.into(), acknowledge: true };
        tokio::spawn(async move { headquarters::serve_journaled(options, &journal, out, stopped).await });
        Self { received, seen: Vec::new(), _stop: stop.drop_guard(), _folder: folder }
    }

    /// The next event, new or not, while `what` is waited for. No number is ever used twice.
    pub async fn hears(&mut self, what: &str) -> Received {
        let received = tokio::time::timeout(LONG, self.received.recv()).await;
        let received = received.unwrap_or_else(|_| panic!("{what} never came: {:#?}", self.told())).unwrap();
        assert_ne!(received.verdict, Verdict::Fork, "a number was used twice: {}", received.event);
        self.seen.push(received.clone());
        received
    }

    fn told(&self) -> Vec<String> {
        let line = |r: &Received| format!("{:?} {} {}", r.verdict, r.event["type"], r.event["classsequence"]);
        self.seen.iter().map(line).collect()
    }
}
