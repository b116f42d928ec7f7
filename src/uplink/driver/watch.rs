//! Whether the line does its work: told to the session when it is ready, given up when it is silent, taken for well
//! only when it has proven itself.

use std::time::{Duration, Instant};

use super::{Driver, Failed, Line};
use crate::config::tables::MqttVersion;
use crate::uplink::fault::Fault;
use crate::uplink::flow::Flow;
use crate::uplink::greeting::Phase;
use crate::uplink::session::Input;

impl Driver {
    /// Events may flow.
    pub(super) async fn go_live(&mut self, line: &mut Line) -> Result<(), Failed> {
        let Phase::Checking { limits, .. } = line.phase else { return Ok(()) };
        line.phase = Phase::Live;
        self.voice.live(match self.setup.table.version {
            MqttVersion::V5 => "5",
            MqttVersion::V311 => "3.1.1",
        });
        let head = self.drain.last();
        self.feed(line, Input::Connected { limits, head }).await?;
        self.prove(line);
        Ok(())
    }

    /// A line that is silent, or takes publishes and never answers, is given up.
    pub(super) fn check_line(&self, line: &Line, now: Instant) -> Result<(), Fault> {
        if matches!(line.phase, Phase::Dialling { .. }) {
            return Ok(());
        }
        let limit = self.setup.pace.keep_alive * 3 / 2;
        let drain = self.session.flow().map_or(Duration::ZERO, Flow::drain_time);
        if line.pipe.quiet_for() > limit + drain {
            return Err(Fault::Silent("nothing heard for one and a half keep-alives"));
        }
        let oldest = self.session.flow().and_then(Flow::oldest);
        if oldest.is_some_and(|sent| now.saturating_duration_since(sent) > limit + drain) {
            return Err(Fault::Silent("a publish was never acknowledged"));
        }
        Ok(())
    }

    /// A broker that answered `state`, and of which nothing more is asked, has proven itself.
    pub(super) fn prove(&mut self, line: &Line) {
        if line.phase == Phase::Live && line.answered && self.session.is_idle() {
            self.voice.proven();
        }
    }
}
