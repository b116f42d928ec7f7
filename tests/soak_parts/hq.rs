//! Headquarters' books: what came in, once, in order.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use baygate::sim::headquarters::{Received, Verdict};
use tokio::sync::mpsc;

/// Counts of what came in.
#[derive(Debug, Default, Clone)]
pub struct Books {
    /// New events by class.
    pub fresh: BTreeMap<String, u64>,
    /// New events by type.
    pub kinds: BTreeMap<String, u64>,
    /// Jobs, visits … that came to their end: type and state.
    pub states: BTreeMap<String, u64>,
    pub duplicates: u64,
    /// What must never be: forks, holes that stay, gaps.
    pub wrong: Vec<String>,
    pub stopped: bool,
}

impl Books {
    pub fn total(&self) -> u64 {
        self.fresh.values().sum()
    }

    pub fn kind(&self, kind: &str) -> u64 {
        self.kinds.get(&format!("baygate.{kind}")).copied().unwrap_or(0)
    }

    fn enter(&mut self, received: &Received) {
        let text = |key: &str| received.event[key].as_str().unwrap_or_default().to_owned();
        match received.verdict {
            Verdict::Fork => self.wrong.push(format!("fork: {}", received.event)),
            Verdict::Duplicate => self.duplicates += 1,
            // Beyond a hole: not taken, the gateway sends it again.
            Verdict::AheadOfOrder => {}
            Verdict::Fresh => {
                let (kind, class) = (text("type"), text("class"));
                if kind == "baygate.gateway.gap" {
                    self.wrong.push(format!("gap: {}", received.event["data"]));
                }
                self.stopped |= kind == "baygate.gateway.stopping";
                if let Some(state) = received.event["data"]["state"].as_str() {
                    *self.states.entry(format!("{kind} {state}")).or_default() += 1;
                }
                *self.fresh.entry(class).or_default() += 1;
                *self.kinds.entry(kind).or_default() += 1;
            }
        }
    }
}

/// Keeps the books of what arrives.
pub fn keep(mut received: mpsc::Receiver<Received>) -> Arc<Mutex<Books>> {
    let books = Arc::new(Mutex::new(Books::default()));
    let kept = Arc::clone(&books);
    tokio::spawn(async move {
        while let Some(one) = received.recv().await {
            kept.lock().unwrap().enter(&one);
        }
    });
    books
}
