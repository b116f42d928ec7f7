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
    /// Jobs, devices … by type and state; transactions and commands by outcome, taps by reader.
    pub states: BTreeMap<String, u64>,
    /// By card number: fen, and how many committed transactions.
    pub purses: BTreeMap<String, (i64, u64)>,
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

    /// Of the type, in this state, with this outcome or from this reader.
    pub fn state(&self, kind: &str, state: &str) -> u64 {
        self.states.get(&format!("baygate.{kind} {state}")).copied().unwrap_or(0)
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
                let data = &received.event["data"];
                let detail = ["state", "outcome", "reader"].into_iter().find_map(|name| data[name].as_str());
                if let Some(detail) = detail {
                    *self.states.entry(format!("{kind} {detail}")).or_default() += 1;
                }
                if kind == "baygate.card.transaction" && detail == Some("committed") {
                    let card_no = data["card_no"].as_str().unwrap_or_default().to_owned();
                    let purse = self.purses.entry(card_no).or_default();
                    purse.0 += data["amount_fen"].as_i64().unwrap_or_default();
                    purse.1 += 1;
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
