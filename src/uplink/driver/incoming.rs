//! What comes in: our own `state`, headquarters' `ack`, commands, what is desired. Each message
//! is acknowledged after what it asked for is committed; what is desired stays on the broker
//! until it is here, and comes again at every connection.

use std::collections::BTreeMap;
use std::time::Instant;

use bytes::Bytes;

use super::{Driver, Failed, Line, TURN};
use crate::event::Class;
use crate::ident::{Epoch, Seq};
use crate::uplink::desk::Intake;
use crate::uplink::greeting::{Phase, Whose};
use crate::uplink::pipe::Incoming;
use crate::uplink::session::Input;
use crate::uplink::topics::Heard;
use crate::uplink::word::{Ack, Judgement, SeenState, unreadable_classes};

impl Driver {
    pub(super) async fn incoming(&mut self, line: &mut Line, incoming: Incoming) -> Result<(), Failed> {
        match self.topics.heard(&incoming.topic) {
            Heard::State => self.state_seen(line, &incoming.payload).await?,
            Heard::Ack => self.ack(line, &incoming.payload).await?,
            Heard::Command(name) => match self.desk.take(name, &incoming.payload).await? {
                Intake::Settled(outcome) => {
                    if let Some(left_out) = self.voice.may_say("command") {
                        tracing::info!(command = name, outcome, left_out, "command taken");
                    }
                    metrics::counter!("baygate_uplink_commands_total", "outcome" => outcome).increment(1);
                }
                Intake::Malformed(error) => {
                    if let Some(left_out) = self.voice.may_say("command-unreadable") {
                        tracing::warn!(command = name, %error, left_out, "command not readable");
                    }
                    metrics::counter!("baygate_uplink_commands_total", "outcome" => "malformed").increment(1);
                }
            },
            Heard::DesiredHotlist => self.desired.heard(&incoming.payload),
            Heard::Unknown => tracing::debug!(bytes = incoming.payload.len(), "message on an unknown topic"),
        }
        // Only now: what the message asked for is committed.
        line.pipe.acknowledge(incoming)?;
        Ok(())
    }

    async fn state_seen(&mut self, line: &mut Line, payload: &Bytes) -> Result<(), Failed> {
        let Ok(seen) = serde_json::from_slice::<SeenState>(payload) else {
            if let Some(left_out) = self.voice.may_say("state-unreadable") {
                tracing::warn!(left_out, "our retained state is not readable; it is written again");
            }
            line.state_due.get_or_insert_with(|| Instant::now() + TURN);
            return Ok(());
        };
        match self.connections.whose(seen.connection) {
            Whose::Own => {
                self.connections.told();
                return self.go_live(line).await;
            }
            // Not every broker says 0x8E: a stranger's `state` over ours is as good a proof.
            Whose::Stranger
                if seen.online && (line.phase == Phase::Live || self.connections.told_before()) =>
            {
                self.voice.duplicate();
                line.state_due.get_or_insert_with(|| Instant::now() + self.setup.pace.state_every);
            }
            Whose::Stranger if line.phase == Phase::Live && line.stopping.is_none() => {
                if !seen.online {
                    // Somebody's will came late, or a stranger left: ours must stand.
                    line.state_due = Some(Instant::now() + TURN);
                }
            }
            Whose::Former | Whose::Stranger => {}
        }
        match seen.epoch {
            Some(epoch) => self.judge(line, epoch, &seen.last).await.map(|_| ()),
            None => Ok(()),
        }
    }

    async fn ack(&mut self, line: &mut Line, payload: &Bytes) -> Result<(), Failed> {
        let ack: Ack = match serde_json::from_slice(payload) {
            Ok(ack) => ack,
            Err(error) => {
                if let Some(left_out) = self.voice.may_say("ack-unreadable") {
                    tracing::warn!(%error, left_out, "ack of headquarters not readable; it must be {{\"epoch\":…,\"classes\":{{…}}}}");
                }
                return Ok(());
            }
        };
        let unreadable = unreadable_classes(payload, &ack);
        if unreadable > 0
            && let Some(left_out) = self.voice.may_say("ack-class-unreadable")
        {
            tracing::warn!(
                unreadable,
                left_out,
                "ack of headquarters names classes without an integer; they are passed over"
            );
        }
        let Some(positions) = self.judge(line, ack.epoch, &ack.classes).await? else { return Ok(()) };
        let Some(epoch_no) = self.drain.epoch_no(ack.epoch).await? else { return Ok(()) };
        let ends = self.drain.epoch_ends(epoch_no).await?;
        self.feed(line, Input::Word { epoch_no, positions, ends }).await
    }

    /// Judges positions that somebody names; begins a new epoch when they are ahead of ours.
    async fn judge(
        &mut self,
        line: &mut Line,
        epoch: Epoch,
        positions: &BTreeMap<String, u64>,
    ) -> Result<Option<Vec<(Class, Seq)>>, Failed> {
        match self.drain.ours().await?.judge(epoch, positions) {
            Judgement::Known(positions) => Ok(Some(positions)),
            Judgement::Ahead => {
                if let Some(left_out) = self.voice.may_say("ahead") {
                    tracing::error!(%epoch, left_out, "headquarters knows events ahead of this log; a new epoch begins");
                }
                self.drain.begin_epoch().await?;
                line.state_due = Some(Instant::now());
                Ok(None)
            }
        }
    }
}
