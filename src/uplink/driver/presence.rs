//! How headquarters sees us: the retained `state`, and leaving in order.

use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::{Driver, Failed, Line, STATE};
use crate::store::StoreError;
use crate::uplink::greeting::Phase;
use crate::uplink::pipe::{Packet, PipeEvent};
use crate::uplink::session::{Input, Output};
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
        let about = &mut self.setup.about;
        let state = OwnState {
            online: true,
            connection: line.connection,
            epoch: ours.epoch,
            since: line.since,
            version: about.version.clone(),
            last: ours.last.iter().map(|(class, last)| (class.as_str(), *last)).collect(),
            hotlist_version: about.hotlist_version.clone(),
            config_version: now(about.config_version.as_mut()),
            protocols_version: now(about.protocols_version.as_mut()),
        };
        let payload = serde_json::to_vec(&state).map_err(|error| StoreError::Corrupt(error.to_string()))?;
        self.publish_state(line, payload)
    }

    fn publish_state(&self, line: &mut Line, payload: Vec<u8>) -> Result<(), Failed> {
        let packet = Packet { topic: self.topics.state().into(), payload: payload.into(), retain: true };
        line.pipe.publish(STATE, packet).map_err(Failed::from)
    }

    /// Offline first, then DISCONNECT: the will stays silent.
    pub(super) async fn leave(&mut self, mut line: Line) {
        if matches!(line.phase, Phase::Checking { .. } | Phase::Live) && {
            let will = offline(line.connection);
            self.publish_state(&mut line, will).is_ok()
        } {
            let told = async {
                loop {
                    match line.pipe.next().await {
                        PipeEvent::Settled { token: STATE, .. } | PipeEvent::Lost(_) => return,
                        PipeEvent::Settled { token, outcome } => {
                            for output in self.session.step(Instant::now(), Input::Settled { token, outcome })
                            {
                                if let Output::Delivered { class, to } = output {
                                    self.drain.note(class, to);
                                }
                            }
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
}
