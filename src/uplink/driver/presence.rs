//! How headquarters sees us: the retained `state`, and leaving in order.

use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::{Driver, Failed, Line, OFFLINE, STATE};
use crate::store::StoreError;
use crate::uplink::greeting::Phase;
use crate::uplink::pipe::{Packet, PipeEvent};
use crate::uplink::session::{Input, Outcome, Output, Token};
use crate::uplink::word::{OwnState, offline};

/// What an orderly stop may take for each of its two last packets.
const LAST_PACKET: Duration = Duration::from_secs(1);

/// Looks at it now: what changes later is news again.
fn now(version: Option<&mut watch::Receiver<String>>) -> Option<String> {
    version.map(|version| version.borrow_and_update().clone())
}

impl Driver {
    pub(super) async fn tell_state(&mut self, line: &mut Line) -> Result<(), Failed> {
        let ours = self.drain.ours().await?;
        let hotlist_version = self.drain.hotlist_version().await?;
        let hotlist_refused = self.desired.refused();
        let about = &mut self.setup.about;
        let state = OwnState {
            online: true,
            connection: line.connection,
            epoch: ours.epoch,
            since: line.since,
            version: about.version.clone(),
            last: ours.last.iter().map(|(class, last)| (class.as_str(), *last)).collect(),
            hotlist_version,
            hotlist_refused,
            config_version: now(about.config_version.as_mut()),
            protocols_version: now(about.protocols_version.as_mut()),
        };
        let payload = serde_json::to_vec(&state).map_err(|error| StoreError::Corrupt(error.to_string()))?;
        self.publish_state(line, STATE, payload)
    }

    fn publish_state(&self, line: &mut Line, token: Token, payload: Vec<u8>) -> Result<(), Failed> {
        let packet = Packet { topic: self.topics.state().into(), payload: payload.into(), retain: true };
        line.pipe.publish(token, packet).map_err(Failed::from)
    }

    /// Offline first, then DISCONNECT: the will stays silent.
    pub(super) async fn leave(&mut self, mut line: Line) {
        if matches!(line.phase, Phase::Checking { .. } | Phase::Live) && {
            let will = offline(line.connection);
            self.publish_state(&mut line, OFFLINE, will).is_ok()
        } {
            let told = async {
                loop {
                    match line.pipe.next().await {
                        PipeEvent::Settled { token: OFFLINE, .. } | PipeEvent::Lost(_) => return,
                        PipeEvent::Settled { token, outcome } => {
                            let Ok(()) = self.settled_last(token, outcome).await else { return };
                        }
                        _ => {}
                    }
                }
            };
            // Where the broker does not answer in time, its will says the same.
            let _ = tokio::time::timeout(LAST_PACKET, told).await;
        }
        line.pipe.close(LAST_PACKET).await;
        tracing::info!("uplink closed");
    }

    /// A publish that ended while we leave: nothing new goes out for it.
    async fn settled_last(&mut self, token: Token, outcome: Outcome) -> Result<(), StoreError> {
        for output in self.session.step(Instant::now(), Input::Settled { token, outcome }) {
            match output {
                Output::Delivered { class, to } => {
                    self.drain.note(class, to);
                }
                // Passed over, the next position would hide that it is lost.
                Output::SetAside { class, rows, reason } => {
                    let sequence = self.drain.set_aside(class, &rows, &reason).await?;
                    self.voice.set_aside(class, rows.len(), sequence, &reason);
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// In an orderly stop: everything in flight is settled, or it has taken long enough.
    pub(super) fn may_leave(&self, line: &Line) -> bool {
        line.phase != Phase::Live
            || self.session.flow().is_none_or(|flow| flow.in_flight() == 0)
            || line.stopping.is_some_and(|until| until <= Instant::now())
    }

    /// How much of each class is waiting, for the metrics.
    pub(super) async fn figures(&self) -> Result<(), StoreError> {
        let ours = self.drain.ours().await?;
        let running = self.drain.epoch_no(ours.epoch).await?;
        for (class, last) in ours.last {
            let delivered = self.session.delivered(class);
            let done = if Some(delivered.epoch_no) == running { delivered.class_sequence.0 } else { 0 };
            #[allow(clippy::cast_precision_loss)] // a gauge is a float
            let backlog = last.0.saturating_sub(done) as f64;
            metrics::gauge!("baygate_uplink_backlog", "class" => class.as_str()).set(backlog);
        }
        Ok(())
    }
}
