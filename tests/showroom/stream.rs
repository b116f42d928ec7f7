//! A till on the event stream: it resumes after every break and remembers each
//! event it was told. An event that was told must be in the log for ever.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use baygate::api::client::Client;
use futures_util::StreamExt as _;
use serde_json::Value;
use tokio::sync::watch;
use uuid::Uuid;

/// What the till heard.
#[derive(Debug, Default)]
pub struct Heard {
    /// By sequence.
    pub events: BTreeMap<u64, Uuid>,
    pub epoch: Option<Uuid>,
    /// By type without `baygate.`: the data of each, in order.
    pub kinds: BTreeMap<String, Vec<Value>>,
    /// Where to resume.
    last: Option<String>,
    /// What a stream must never do.
    pub faults: Vec<String>,
}

impl Heard {
    pub fn of(&self, kind: &str) -> &[Value] {
        self.kinds.get(kind).map_or(&[], Vec::as_slice)
    }

    /// Among the latest of its kind.
    pub fn lately(&self, kind: &str, matches: impl Fn(&Value) -> bool) -> bool {
        self.of(kind).iter().rev().take(40).any(matches)
    }

    fn take(&mut self, id: &str, event: &str, data: &str) {
        let data: Value = match serde_json::from_str(data) {
            Ok(data) => data,
            Err(error) => return self.faults.push(format!("{event}: {error}")),
        };
        // Before anything was told it asks for everything, which a `reset` begins.
        if event == "reset" && self.last.is_none() {
            return;
        }
        if event == "reset" {
            return self.faults.push(format!("after {:?}: reset {data}", self.last));
        }
        let Some((epoch, sequence)) = id.split_once('/') else {
            return self.faults.push(format!("{event} at {id:?}"));
        };
        let (epoch, sequence): (Uuid, u64) = (epoch.parse().unwrap(), sequence.parse().unwrap());
        if self.epoch.is_some_and(|known| known != epoch) {
            self.faults.push(format!("a second epoch: {id}"));
        }
        self.epoch = Some(epoch);
        let next = self.events.last_key_value().map_or(sequence, |(last, _)| last + 1);
        if sequence != next {
            self.faults.push(format!("{sequence} came where {next} is next"));
        }
        self.events.insert(sequence, data["id"].as_str().unwrap().parse().unwrap());
        let kind = event.trim_start_matches("baygate.").to_owned();
        self.kinds.entry(kind).or_default().push(data["data"].clone());
        self.last = Some(id.to_owned());
    }
}

pub struct Stream {
    heard: Mutex<Heard>,
    grown: watch::Sender<u64>,
}

impl Stream {
    /// Listens from the log's beginning, as long as the test's runtime lives.
    pub fn listen(socket: PathBuf) -> Arc<Self> {
        let stream = Arc::new(Self { heard: Mutex::default(), grown: watch::channel(0).0 });
        let listening = Arc::clone(&stream);
        tokio::spawn(async move {
            loop {
                listening.once(&socket).await;
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        });
        stream
    }

    /// One connection, until it breaks.
    async fn once(&self, socket: &PathBuf) {
        let query = self.with(|heard| format!("after={}", heard.last.as_deref().unwrap_or("the-beginning")));
        let Ok(client) = Client::connect(socket).await else { return };
        let Ok(events) = client.events(&query).await else { return };
        let mut events = std::pin::pin!(events);
        while let Some(Ok(event)) = events.next().await {
            self.heard.lock().unwrap().take(event.id.as_deref().unwrap_or(""), &event.event, &event.data);
            self.grown.send_modify(|count| *count += 1);
        }
    }

    pub fn with<T>(&self, look: impl FnOnce(&Heard) -> T) -> T {
        look(&self.heard.lock().unwrap())
    }

    pub fn count(&self) -> u64 {
        *self.grown.borrow()
    }

    /// Waits until the till has heard it, `most` so long. False: it has not.
    pub async fn hears(&self, most: Duration, enough: impl Fn(&Heard) -> bool) -> bool {
        let mut grown = self.grown.subscribe();
        let wait = async {
            loop {
                grown.borrow_and_update();
                if self.with(&enough) {
                    return;
                }
                grown.changed().await.unwrap();
            }
        };
        tokio::time::timeout(most, wait).await.is_ok()
    }
}
