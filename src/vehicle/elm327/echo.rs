//! Lines that must not lose a character: whether this adapter can be trusted with them. What
//! lives here: turning the echo on, finding out once whether each character comes back before
//! the line is ended, and which form of a request is sent. What does not: which lines are
//! fragile (the gate), typing one (`port`).

use std::time::Duration;

use super::adapter::{AT_LIMIT, Adapter};
use super::port::Echo;
use crate::protocols::Use;
use crate::vehicle::answer::Complaint;
use crate::vehicle::error::AdapterError;
use crate::vehicle::gate::{AtCommand, Outgoing, Request};

/// Trials, each of which a bad line may spoil.
const TRIALS: u32 = 3;

impl Adapter {
    /// The form in which `request` may be sent, and how: counted where `lines` are known, typed with
    /// care where it is fragile. `Err`: in no form, and why.
    pub(super) async fn safe_form(
        &mut self,
        request: Request,
        lines: Option<u8>,
    ) -> Result<Result<Outgoing, Complaint>, AdapterError> {
        let plain = Outgoing::Obd(request);
        let counted = lines.map_or(plain, |lines| Outgoing::ObdCounted(request, lines));
        if !counted.is_fragile() || self.echoes().await? {
            return Ok(Ok(counted));
        }
        // Without the digit it waits longer, and loses less.
        Ok(if plain.is_fragile() { Err(Complaint::NoEcho) } else { Ok(plain) })
    }

    /// Whether fragile lines can be typed: it echoes, and the echo is on. Tried once.
    pub(super) async fn echoes(&mut self) -> Result<bool, AdapterError> {
        if self.capabilities.echo.is_none() {
            self.capabilities.echo = self.try_echo().await?;
        }
        if self.capabilities.echo != Some(true) {
            return Ok(false);
        }
        if !self.echo_on {
            self.at(AtCommand::EchoOn).await?;
            self.echo_on = true;
        }
        Ok(true)
    }

    /// `None`: the line spoils too much to know.
    async fn try_echo(&mut self) -> Result<Option<bool>, AdapterError> {
        if self.profile().is_some_and(|profile| profile.echo == Use::Never) {
            return Ok(Some(false));
        }
        // Whole lines first: an adapter that echoes none is found out without waiting.
        let mut whole = false;
        for _ in 0..TRIALS {
            self.at(AtCommand::EchoOn).await?;
            whole = self.port_echoed();
            if whole {
                break;
            }
        }
        if !whole {
            return Ok(Some(false));
        }
        self.echo_on = true;
        let mut heard = false;
        for _ in 0..TRIALS {
            match self.type_harmless(AtCommand::EchoOn, AT_LIMIT).await? {
                Echo::Exact => return Ok(Some(true)),
                Echo::Other => heard = true,
                // It reads whole lines only, as some Wi-Fi modules do.
                Echo::Nothing => {}
            }
        }
        Ok((!heard).then_some(false))
    }

    async fn type_harmless(&mut self, command: AtCommand, limit: Duration) -> Result<Echo, AdapterError> {
        match self.port_mut().try_echo(Outgoing::At(command), limit).await {
            Ok(echo) => Ok(echo),
            Err(error) => self.come_back(Outgoing::At(command), error).await.map(|_| Echo::Other),
        }
    }
}
