//! Typing a line that must not lose a character. What lives here: its text goes out without
//! the end of the line, comes back as the adapter read it, and only what came back exactly is
//! ended; anything else is made useless first. What does not: which lines need it (the gate),
//! whether the adapter echoes (`elm327::echo`).
//!
//! ```text
//!  gateway                    adapter
//!     │ 0142 ──────────────────► │
//!     │ ◄────────────────── 0142 │   the same: CR, and the answer comes as ever
//!     │ 0142 ──────────────────► │
//!     │ ◄─────────────────── 042 │   another: nothing is ended …
//!     │ XXXXXXXX ──────────────► │
//!     │ ◄────────────── XXXXXXXX │   … before it is sure to be no request (`?`)
//!     │ CR ────────────────────► │
//!     │ ◄──────────────────── ?> │   then once more
//! ```
//!
//! The data sheet knows no character that empties a line (a half-typed one is given up after
//! about 20 s, with `?`); a digit that is none makes the chip refuse the whole line.

use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::{PROBE_LIMIT, Port, PortError, Reply};
use crate::vehicle::gate::Outgoing;

/// Until the first character comes back: a Bluetooth link takes some hundred milliseconds.
const FIRST: Duration = Duration::from_millis(800);
/// Between two characters that come back: a Wi-Fi module may hold some back for a beacon or two,
/// and a busy box reads late.
const NEXT: Duration = Duration::from_millis(500);
/// How often one line is typed.
const TYPINGS: u32 = 3;
/// End of a line.
const END: &[u8] = b"\r";

/// What came back of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Echo {
    /// The same text.
    Exact,
    /// Another text.
    Other,
    /// Nothing.
    Nothing,
}

impl Port {
    /// Like [`Port::exchange`], but the line is ended only after the adapter has echoed it exactly.
    ///
    /// # Errors
    /// [`PortError`]; [`PortError::Misheard`] when it never did: then nothing was sent to the car.
    pub async fn exchange_typed(&mut self, command: Outgoing, limit: Duration) -> Result<Reply, PortError> {
        for _ in 0..TYPINGS {
            self.drop_stale()?;
            if std::mem::take(&mut self.restarted) {
                return Err(PortError::Restarted);
            }
            let echo = self.type_text(command).await?;
            self.unechoed = if echo == Echo::Nothing { self.unechoed + 1 } else { 0 };
            if echo == Echo::Exact {
                return self.end(command, limit).await;
            }
            metrics::counter!("baygate_vehicle_misheard_total").increment(1);
            tracing::debug!(command = command.text(), "echoed otherwise; typed again");
            self.give_up_line().await?;
        }
        Err(PortError::Misheard)
    }

    /// Types a harmless command to see what comes back, and ends it whatever it was; with the reply.
    ///
    /// # Errors
    /// [`PortError`].
    pub async fn try_echo(&mut self, command: Outgoing, limit: Duration) -> Result<(Echo, Reply), PortError> {
        self.drop_stale()?;
        let echo = self.type_text(command).await?;
        Ok((echo, self.end(command, limit).await?))
    }

    /// Whether the last reply began with the echo of its command.
    #[must_use]
    pub fn echoed(&self) -> bool {
        self.echoed
    }

    /// Typed texts in a row of which no character came back, since this was last asked.
    pub fn take_unechoed(&mut self) -> u32 {
        std::mem::take(&mut self.unechoed)
    }

    async fn type_text(&mut self, command: Outgoing) -> Result<Echo, PortError> {
        let text = command.text();
        let typed = Instant::now();
        self.write(command, text.as_bytes(), FIRST).await?;
        self.echo(|so_far| so_far.len() >= text.len()).await?;
        let echo = match self.reader.pending() {
            // Lines came meanwhile: somebody speaks who was not asked.
            _ if !self.waiting.is_empty() => Echo::Other,
            "" => Echo::Nothing,
            echo if echo == text => Echo::Exact,
            _ => Echo::Other,
        };
        if echo == Echo::Exact {
            self.pace.echoed(typed.elapsed());
        }
        Ok(echo)
    }

    async fn end(&mut self, command: Outgoing, limit: Duration) -> Result<Reply, PortError> {
        self.write(command, END, limit).await?;
        let reply = self.collect(command, Instant::now() + limit, limit).await;
        if let Some(trace) = &mut self.trace {
            trace.end_exchange();
        }
        reply
    }

    /// Makes what stands in the adapter's line useless, sees that it did, and ends it.
    async fn give_up_line(&mut self) -> Result<(), PortError> {
        for _ in 0..TYPINGS {
            self.forget_waiting();
            let nonsense = Outgoing::Nonsense.text();
            self.write(Outgoing::Nonsense, nonsense.as_bytes(), FIRST).await?;
            self.echo(|so_far| so_far.ends_with(&nonsense)).await?;
            if self.reader.pending().contains(nonsense.chars().last().unwrap_or('X')) {
                self.end(Outgoing::Nonsense, PROBE_LIMIT).await?;
                return Ok(());
            }
        }
        // What stands there is not known, and a probe would end it.
        self.holds_clearing = true;
        Err(PortError::NoPrompt { limit: FIRST * TYPINGS, bytes: 0 })
    }

    /// Collects what comes back, until there is enough of it or no more comes.
    async fn echo(&mut self, enough: impl Fn(&str) -> bool) -> Result<(), PortError> {
        let mut deadline = Instant::now() + FIRST;
        // Somebody who never stops talking echoes nothing.
        let latest = deadline + FIRST;
        while !enough(self.reader.pending()) && self.waiting.is_empty() {
            match timeout_at(deadline, self.receive()).await {
                Ok(received) => {
                    received?;
                }
                Err(_) => break,
            }
            deadline = latest.min(Instant::now() + NEXT);
        }
        Ok(())
    }
}
