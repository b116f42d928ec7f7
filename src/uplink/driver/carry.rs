//! What the session says, carried out: publishes at once, pages of the log beside
//! the loop, delivered positions noted for the next commit.

use std::time::Instant;

use super::{Driver, Failed, Line};
use crate::uplink::drain::Page;
use crate::uplink::pipe::Packet;
use crate::uplink::session::{Input, Output};

impl Driver {
    /// Steps the session and carries out what it says.
    pub(super) async fn feed(&mut self, line: &mut Line, input: Input<Packet>) -> Result<(), Failed> {
        let mut wanted = Vec::new();
        for output in self.session.step(Instant::now(), input) {
            if let Output::Fetch { class, after } = output {
                wanted.push((class, after));
            } else {
                self.carry_out(line, output).await?;
            }
        }
        if !wanted.is_empty() {
            line.reading.push(self.drain.read(wanted));
        }
        Ok(())
    }

    /// Pages that were asked for. The session drops those that a rewind made stale.
    pub(super) async fn take_pages(&mut self, line: &mut Line, pages: Vec<Page>) -> Result<(), Failed> {
        for page in pages {
            let rows = Input::Rows { class: page.class, after: page.after, rows: page.rows };
            self.feed(line, rows).await?;
        }
        Ok(())
    }

    async fn carry_out(&mut self, line: &mut Line, output: Output<Packet>) -> Result<(), Failed> {
        match output {
            Output::Publish { token, class, load } => {
                self.tally.published(class);
                line.pipe.publish(token, load)?;
            }
            Output::Delivered { class, to } => {
                let events = self.drain.note(class, to);
                self.tally.acked(class, events);
            }
            Output::SetAside { class, rows, reason } => {
                let sequence = self.drain.set_aside(class, &rows, &reason).await?;
                self.voice.set_aside(class, rows.len(), sequence, &reason);
                self.voice.hangs_up(self.session.hangs_up_at());
            }
            Output::Refused { class, code } => self.voice.refused(class, code),
            Output::TakenAgain { class } => self.voice.taken_again(class),
            Output::Fetch { .. } => {}
        }
        Ok(())
    }
}
