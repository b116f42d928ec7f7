//! One connection to the broker, the same for MQTT 5 and 3.1.1. What lives here:
//! dialling, publishing with the outcome of each publish, subscriptions, and
//! what comes in. What does not: what to send and when (`session`), and any
//! memory beyond the connection: after [`PipeEvent::Lost`] the pipe is dropped,
//! with all the client library knew. The log is read again.
//!
//! The library's event loop must not be cancelled in the middle of a write, so
//! it runs in a task of its own (`pump`) and talks through a bounded channel.

pub(super) mod sniff;
mod v4;
mod v5;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::fault::Fault;
use super::session::{Limits, Outcome, Token};
use crate::config::tables::MqttVersion;
use crate::config::values::BrokerUrl;
use crate::event::CONTENT_TYPE;

/// Control packets beside the publishes in flight (state, subscriptions, acknowledgements).
const SPARE: usize = 64;
/// Publishes that go to the line in one write, at most. One at a time, the library's default, a
/// backlog drains by a tenth to a seventh slower (docs/benchmarks.md).
const IN_ONE_WRITE: usize = 64;
/// Incoming packets between the pump and us; beyond that the line itself waits.
const INBOX: usize = 64;
/// Commands and words of headquarters under way to us at once (MQTT 5 receive maximum).
pub(super) const RECEIVE_MAXIMUM: u16 = 32;
/// How long the broker keeps our session while we are away, in seconds: commands
/// sent meanwhile wait for us. A week outlasts the longest holiday closure;
/// older commands have expired by their own `expires_at`.
pub(super) const SESSION_EXPIRY_S: u32 = 7 * 24 * 3600;

/// All it takes to connect.
#[derive(Clone)]
pub(super) struct Dial {
    pub version: MqttVersion,
    pub url: BrokerUrl,
    pub client_id: String,
    pub username: Option<String>,
    pub password: Option<Bytes>,
    pub tls: Option<Arc<rustls::ClientConfig>>,
    pub keep_alive: Duration,
    pub connect_timeout: Duration,
    pub max_in_flight: u16,
    pub max_packet_bytes: u32,
    pub will_topic: String,
    pub will: Vec<u8>,
}

/// What a publish is.
#[derive(Debug, Clone)]
pub(super) struct Packet {
    pub topic: Arc<str>,
    pub payload: Bytes,
    pub retain: bool,
}

impl Packet {
    /// The size of the PUBLISH packet, at most: fixed header 5, topic length 2,
    /// packet id 2, property length 1, content type 3 and its text.
    pub(super) fn bytes(&self) -> u64 {
        u64::try_from(13 + CONTENT_TYPE.len() + self.topic.len() + self.payload.len()).unwrap_or(u64::MAX)
    }
}

/// What comes out of a connection.
#[derive(Debug)]
pub(super) enum PipeEvent {
    Connected {
        limits: Limits,
        /// The broker asked for no pings, and the library sends none.
        pingless: bool,
    },
    /// Filters that were not granted.
    Subscribed {
        refused: Vec<String>,
    },
    Settled {
        token: Token,
        outcome: Outcome,
    },
    Incoming(Incoming),
    Lost(Fault),
}

/// A message from the broker. Its packet is acknowledged by [`Pipe::acknowledge`].
#[derive(Debug)]
pub(super) struct Incoming {
    pub topic: String,
    pub payload: Bytes,
    receipt: Receipt,
}

#[derive(Debug)]
enum Receipt {
    V5(Box<rumqttc::Publish>),
    V4(Box<rumqttc_v4::Publish>),
}

enum Client {
    V5(rumqttc::AsyncClient),
    V4(rumqttc_v4::AsyncClient),
}

type Notice = Pin<Box<dyn Future<Output = Option<PipeEvent>> + Send>>;

/// When anything was last heard from the broker.
#[derive(Clone)]
struct Ear {
    since: Instant,
    last_ms: Arc<AtomicU64>,
}

impl Ear {
    fn hear(&self) {
        let ms = u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last_ms.store(ms, Ordering::Relaxed);
    }
}

/// A connection.
pub(super) struct Pipe {
    client: Client,
    inbox: mpsc::Receiver<PipeEvent>,
    notices: FuturesUnordered<Notice>,
    pump: JoinHandle<()>,
    ear: Ear,
}

impl Drop for Pipe {
    fn drop(&mut self) {
        self.pump.abort();
    }
}

impl Pipe {
    /// Dials in a task of its own; the first event is `Connected` or `Lost`.
    pub(super) fn open(dial: Dial) -> Self {
        let (out, inbox) = mpsc::channel(INBOX);
        let ear = Ear { since: Instant::now(), last_ms: Arc::default() };
        let capacity = usize::from(dial.max_in_flight) + SPARE;
        let (client, pump) = match dial.version {
            MqttVersion::V5 => {
                let (client, eventloop) = v5::open(dial, capacity);
                (Client::V5(client), tokio::spawn(v5::pump(eventloop, out, ear.clone())))
            }
            MqttVersion::V311 => {
                let (client, eventloop) = v4::open(dial, capacity);
                (Client::V4(client), tokio::spawn(v4::pump(eventloop, out, ear.clone())))
            }
        };
        Self { client, inbox, notices: FuturesUnordered::new(), pump, ear }
    }

    /// The next event. Safe to cancel.
    pub(super) async fn next(&mut self) -> PipeEvent {
        loop {
            tokio::select! {
                biased;
                Some(event) = self.notices.next() => {
                    if let Some(event) = event {
                        return event;
                    }
                }
                event = self.inbox.recv() => {
                    return event.unwrap_or_else(|| PipeEvent::Lost(Fault::Lost("closed".into())));
                }
            }
        }
    }

    /// The next event, if there is one already.
    pub(super) fn ready(&mut self) -> Option<PipeEvent> {
        self.next().now_or_never()
    }

    /// Publishes at `QoS` 1; the outcome comes back as [`PipeEvent::Settled`].
    ///
    /// # Errors
    /// When the connection is gone; nothing is queued then.
    pub(super) fn publish(&mut self, token: Token, packet: Packet) -> Result<(), Fault> {
        let notice = match &self.client {
            Client::V5(client) => v5::publish(client, token, packet)?,
            Client::V4(client) => v4::publish(client, token, packet)?,
        };
        self.notices.push(notice);
        Ok(())
    }

    /// Subscribes at `QoS` 1; the answer comes back as [`PipeEvent::Subscribed`].
    ///
    /// # Errors
    /// When the connection is gone.
    pub(super) fn subscribe(&mut self, filters: &[String]) -> Result<(), Fault> {
        let notice = match &self.client {
            Client::V5(client) => v5::subscribe(client, filters)?,
            Client::V4(client) => v4::subscribe(client, filters)?,
        };
        self.notices.push(notice);
        Ok(())
    }

    /// Tells the broker that a message is dealt with.
    ///
    /// # Errors
    /// When the connection is gone.
    pub(super) fn acknowledge(&self, incoming: Incoming) -> Result<(), Fault> {
        match (&self.client, incoming.receipt) {
            (Client::V5(client), Receipt::V5(publish)) => client.try_ack(&publish).map_err(gone),
            (Client::V4(client), Receipt::V4(publish)) => client.try_ack(&publish).map_err(gone),
            _ => Ok(()),
        }
    }

    /// How long nothing was heard.
    pub(super) fn quiet_for(&self) -> Duration {
        let last = Duration::from_millis(self.ear.last_ms.load(Ordering::Relaxed));
        self.ear.since.elapsed().saturating_sub(last)
    }

    /// Says DISCONNECT and waits for it to be on the line, `limit` at most.
    pub(super) async fn close(mut self, limit: Duration) {
        let asked = match &self.client {
            Client::V5(client) => client.try_disconnect_now().is_ok(),
            Client::V4(client) => client.try_disconnect_now().is_ok(),
        };
        if asked {
            let ended = async { while !matches!(self.next().await, PipeEvent::Lost(_)) {} };
            // After the limit the line is dropped anyway.
            let _ = tokio::time::timeout(limit, ended).await;
        }
    }
}

/// The library's request channel took nothing: its task has ended, or it is full because the line stands.
fn gone(error: impl std::fmt::Display) -> Fault {
    Fault::Lost(error.to_string())
}
