//! A small headquarters for demo and tests: takes every event, removes
//! duplicates, checks the order within each class, answers with `ack`, and
//! reports what it saw. Where it acknowledges, it takes a class only in its
//! order: what comes beyond a hole is left, because the gateway sends it again.
//! It believes nothing the gateway's own code says: it reads the wire's JSON with
//! its own types. What it remembers over a kill: `journal`.

mod journal;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use rumqttc::{AsyncClient, Event, EventLoop, MqttOptions, Packet, PublishOptions, QoS};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use journal::Journal;

/// Words to gateways go out this often, at most.
const ACK_EVERY: Duration = Duration::from_millis(50);
/// Between two tries to reach the broker.
const RETRY: Duration = Duration::from_millis(200);
/// Events remembered a gateway epoch, for the fork alarm.
const REMEMBERED: usize = 100_000;

/// What headquarters needs to know.
#[derive(Debug, Clone)]
pub struct Options {
    /// The broker.
    pub broker: SocketAddr,
    /// First part of every topic.
    pub root: String,
    /// Whether it answers with `ack`.
    pub acknowledge: bool,
}

/// What an event was to headquarters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// New, and the next of its class.
    Fresh,
    /// Others of its class before it are missing. Taken only where nothing is sent again.
    AheadOfOrder,
    /// Seen before, same id, same body.
    Duplicate,
    /// Seen before under another id, or with another body: two gateways speak in one name, or
    /// what was told once is told otherwise.
    Fork,
}

/// An event as it arrived.
#[derive(Debug, Clone)]
pub struct Received {
    /// Its topic.
    pub topic: String,
    /// Its CloudEvent.
    pub event: serde_json::Value,
    /// What it was.
    pub verdict: Verdict,
}

/// The members headquarters orders by.
#[derive(Deserialize)]
struct Envelope {
    id: Uuid,
    source: String,
    epoch: Uuid,
    class: String,
    classsequence: String,
    #[serde(default)]
    sequence: Option<String>,
}

/// SHA-256 of an event's body.
type Digest = [u8; 32];

/// By source and epoch.
type Lives = BTreeMap<(String, Uuid), Life>;

/// One epoch of one gateway.
#[derive(Default)]
struct Life {
    /// By class and class sequence: id and body, where a journal of an earlier version knows it.
    known: HashMap<(String, u64), (Uuid, Option<Digest>)>,
    /// By class: everything up to here is in.
    up_to: BTreeMap<String, u64>,
    /// By class: in, but beyond a hole.
    beyond: BTreeMap<String, BTreeSet<u64>>,
}

impl Life {
    fn take(&mut self, class: &str, sequence: u64, event: (Uuid, Option<Digest>), in_order: bool) -> Verdict {
        if in_order && self.up_to.get(class).is_none_or(|up_to| sequence > *up_to + 1) && sequence > 1 {
            return Verdict::AheadOfOrder;
        }
        if let Some((id, body)) = self.known.get(&(class.to_owned(), sequence)) {
            let same_body = body.is_none() || *body == event.1;
            return if *id == event.0 && same_body { Verdict::Duplicate } else { Verdict::Fork };
        }
        if self.known.len() < REMEMBERED {
            self.known.insert((class.to_owned(), sequence), event);
        }
        let up_to = self.up_to.entry(class.to_owned()).or_default();
        if sequence <= *up_to {
            return Verdict::Duplicate;
        }
        let beyond = self.beyond.entry(class.to_owned()).or_default();
        let next = sequence == *up_to + 1;
        beyond.insert(sequence);
        while beyond.remove(&(*up_to + 1)) {
            *up_to += 1;
        }
        if next { Verdict::Fresh } else { Verdict::AheadOfOrder }
    }

    /// A stretch that will never come.
    fn skip(&mut self, class: &str, from: u64, to: u64) {
        let up_to = self.up_to.entry(class.to_owned()).or_default();
        let beyond = self.beyond.entry(class.to_owned()).or_default();
        if from <= *up_to + 1 {
            *up_to = (*up_to).max(to);
        } else {
            beyond.extend(from..=to.min(from.saturating_add(100_000)));
        }
        while beyond.remove(&(*up_to + 1)) {
            *up_to += 1;
        }
    }
}

/// Runs until `stop`; every event goes to `out`. Reconnects by itself. Forgets everything at its end.
pub async fn serve(options: Options, out: mpsc::Sender<Received>, stop: CancellationToken) {
    serve_with(options, None, out, stop).await;
}

/// As [`serve`], with a memory: what came in is on the disk before it is acknowledged.
///
/// # Errors
/// When the journal cannot be read or opened.
pub async fn serve_journaled(
    options: Options,
    journal: &Path,
    out: mpsc::Sender<Received>,
    stop: CancellationToken,
) -> io::Result<()> {
    serve_with(options, Some(Journal::open(journal)?), out, stop).await;
    Ok(())
}

async fn serve_with(
    options: Options,
    journal: Option<(Journal, Lives)>,
    out: mpsc::Sender<Received>,
    stop: CancellationToken,
) {
    let (client, mut eventloop) = connect(&options);
    let (journal, lives) = journal.map_or((None, BTreeMap::new()), |(journal, lives)| (Some(journal), lives));
    let mut desk = Desk { options, client, lives, due: BTreeSet::new(), journal };
    let mut words = tokio::time::interval(ACK_EVERY);
    let (pumped, mut inbox) = mpsc::channel(256);
    // The event loop must not be cancelled within a write: it gets a task of its own.
    let pump = tokio::spawn(async move {
        loop {
            let event = eventloop.poll().await;
            let failed = event.is_err();
            if pumped.send(event.ok()).await.is_err() {
                return;
            }
            if failed {
                tokio::time::sleep(RETRY).await;
            }
        }
    });
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            _ = words.tick() => desk.answer(),
            event = inbox.recv() => match event {
                Some(Some(Event::Incoming(Packet::ConnAck(_)))) => desk.subscribe(),
                Some(Some(Event::Incoming(Packet::Publish(publish)))) => {
                    if let Some(received) = desk.take(&publish.topic, &publish.payload)
                        && out.send(received).await.is_err()
                    {
                        break;
                    }
                }
                Some(_) => {}
                None => break,
            },
        }
    }
    pump.abort();
    desk.keep();
}

fn connect(options: &Options) -> (AsyncClient, EventLoop) {
    let name = format!("headquarters-{}", Uuid::new_v4().simple());
    let mut mqtt = MqttOptions::new(name, (options.broker.ip().to_string(), options.broker.port()));
    mqtt.set_keep_alive(10)
        .set_outgoing_inflight_upper_limit(64)
        .set_incoming_packet_size_limit(rumqttc::IncomingPacketSizeLimit::Bytes(1 << 20));
    AsyncClient::builder(mqtt).capacity(256).build()
}

struct Desk {
    options: Options,
    client: AsyncClient,
    lives: Lives,
    /// Acks that are due: topic, source and epoch.
    due: BTreeSet<(String, String, Uuid)>,
    journal: Option<Journal>,
}

impl Desk {
    fn subscribe(&self) {
        let filter = format!("{}/+/+/event/#", self.options.root);
        if let Err(error) = self.client.try_subscribe(filter, QoS::AtLeastOnce) {
            tracing::warn!(%error, "headquarters could not subscribe");
        }
    }

    fn take(&mut self, topic: &[u8], payload: &[u8]) -> Option<Received> {
        let topic = String::from_utf8_lossy(topic).into_owned();
        let event: serde_json::Value = serde_json::from_slice(payload).ok()?;
        let envelope = Envelope::deserialize(&event).ok()?;
        let sequence: u64 = envelope.classsequence.parse().ok()?;
        let life = self.lives.entry((envelope.source.clone(), envelope.epoch)).or_default();
        let body: Digest = Sha256::digest(payload).into();
        let told = (envelope.id, Some(body));
        let verdict = life.take(&envelope.class, sequence, told, self.options.acknowledge);
        let kept = verdict == Verdict::Fresh || verdict == Verdict::AheadOfOrder && !self.options.acknowledge;
        if kept {
            if let Some(journal) = &mut self.journal {
                journal.note(&envelope, sequence, body);
            }
            if event.get("type").and_then(|kind| kind.as_str()) == Some("baygate.gateway.gap") {
                self.note_gap(&envelope, &event);
            }
        }
        if let Some(base) = topic.split("/event/").next() {
            self.due.insert((format!("{base}/ack"), envelope.source, envelope.epoch));
        }
        Some(Received { topic, event, verdict })
    }

    fn note_gap(&mut self, envelope: &Envelope, event: &serde_json::Value) {
        let data = &event["data"];
        let (Some(class), Some(from), Some(to)) =
            (data["class"].as_str(), data["from"].as_u64(), data["to"].as_u64())
        else {
            return;
        };
        let epoch = data["gap_epoch"].as_str().and_then(|epoch| epoch.parse().ok()).unwrap_or(envelope.epoch);
        if let Some(journal) = &mut self.journal {
            journal.note_gap(&envelope.source, epoch, class, from, to);
        }
        self.lives.entry((envelope.source.clone(), epoch)).or_default().skip(class, from, to);
    }

    /// Brings what came in to the disk. False: it is not there, and nothing may be acknowledged.
    fn keep(&mut self) -> bool {
        let Some(Err(error)) = self.journal.as_mut().map(Journal::sync) else { return true };
        tracing::error!(%error, "headquarters cannot write its journal; nothing is acknowledged");
        false
    }

    /// Tells gateways how far everything is in.
    fn answer(&mut self) {
        if !self.keep() {
            return;
        }
        if !self.options.acknowledge {
            self.due.clear();
            return;
        }
        while let Some((topic, source, epoch)) = self.due.pop_first() {
            let Some(life) = self.lives.get(&(source.clone(), epoch)) else { continue };
            let word = serde_json::json!({ "epoch": epoch, "classes": life.up_to }).to_string();
            if self.client.try_publish(topic.clone(), word, PublishOptions::at_least_once()).is_err() {
                // The line is busy or away: the next round says it.
                self.due.insert((topic, source, epoch));
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn duplicates_holes_and_forks_are_told_apart() {
        let (a, b) = (Uuid::new_v4(), Uuid::new_v4());
        let mut life = Life::default();
        let (x, y) = (Some([1; 32]), Some([2; 32]));
        let verdicts: Vec<Verdict> =
            [(1, a, x), (1, a, x), (1, b, x), (1, a, y), (3, a, x), (2, a, None), (2, a, y), (4, a, x)]
                .into_iter()
                .map(|(sequence, id, body)| life.take("card", sequence, (id, body), false))
                .collect();
        use Verdict::{AheadOfOrder, Duplicate, Fork, Fresh};
        assert_eq!(verdicts, [Fresh, Duplicate, Fork, Fork, AheadOfOrder, Fresh, Duplicate, Fresh]);
        assert_eq!(life.up_to["card"], 4);
        life.skip("card", 5, 6);
        assert_eq!(life.take("card", 7, (a, x), false), Fresh);
        assert_eq!(life.take("card", 9, (a, x), true), AheadOfOrder);
        assert_eq!(life.take("card", 8, (a, x), true), Fresh);
        assert_eq!(life.take("card", 9, (a, x), true), Fresh);
    }
}
