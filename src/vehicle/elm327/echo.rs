//! Lines that must not lose a character: whether this adapter can be trusted with them. What
//! lives here: turning the echo on, finding out once whether each character comes back before
//! the line is ended, and which form of a request is sent. What does not: which lines are
//! fragile (the gate), typing one (`port`).

use std::time::Duration;

use super::adapter::{AT_LIMIT, Adapter};
use super::port::{Echo, Reply};
use super::reply::{Line, classify};
use crate::protocols::Use;
use crate::vehicle::answer::Complaint;
use crate::vehicle::error::AdapterError;
use crate::vehicle::gate::{AtCommand, Outgoing, Request};

/// Trials, each of which a bad line may spoil.
const TRIALS: u32 = 3;
/// So often, since it was set up, it is tried without a verdict.
const IN_VAIN: u32 = 3;
/// Trials on a good line that must have brought no echo before there is none.
const CLEAN: u32 = 2;

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
        // Over a slow line the echo may take longer than the wait that the digit ends.
        let hurry = !self.tries_digit && !self.port_mut().typing_pays(request.wait());
        if hurry && counted.is_fragile() && !plain.is_fragile() {
            return Ok(Ok(plain));
        }
        if !counted.is_fragile() || self.echoes().await? {
            return Ok(Ok(counted));
        }
        // Without the digit it waits longer, and loses less.
        Ok(if plain.is_fragile() { Err(Complaint::NoEcho) } else { Ok(plain) })
    }

    /// Whether fragile lines can be typed: it echoes, and the echo is on. Tried once, and again
    /// where what it does speaks against the verdict.
    pub(super) async fn echoes(&mut self) -> Result<bool, AdapterError> {
        self.doubt_echo();
        if self.capabilities.echo.is_none() && self.echo_tried < IN_VAIN {
            self.echo_tried += 1;
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

    /// A verdict is remembered for every adapter that says the same of itself, and another one of
    /// them may do otherwise: it echoes although none does, or never while they do.
    pub(super) fn doubt_echo(&mut self) {
        let known = self.capabilities;
        let echoed = std::mem::take(&mut self.echoed_unasked);
        if known.echo == Some(false) && known.line_echo != Some(true) && echoed {
            self.capabilities.echo = None;
            // Without an echo the digit was not tried.
            self.capabilities.response_count = known.response_count.filter(|works| *works);
        } else if known.echo == Some(true) && self.port_mut().take_unechoed() > 0 {
            // The echo is on, and of a whole line not a character came back.
            self.capabilities.echo = None;
        }
    }

    /// `None`: the line spoils too much to know.
    async fn try_echo(&mut self) -> Result<Option<bool>, AdapterError> {
        if self.profile().is_some_and(|profile| profile.echo == Use::Never) {
            return Ok(Some(false));
        }
        // Whole lines first: an adapter that echoes none is found out without waiting.
        // The line that turns the echo on shows nothing; where one was seen before, that will do.
        let (mut whole, mut silent) = (self.echoes_lines, 0);
        if whole {
            self.at(AtCommand::EchoOn).await?;
        }
        for _ in 0..TRIALS {
            if whole {
                break;
            }
            let reply = self.at(AtCommand::EchoOn).await?;
            whole = self.port_echoed();
            silent += u32::from(is_clean(&reply));
        }
        self.capabilities.line_echo = verdict(whole, silent);
        if !whole {
            return Ok(verdict(false, silent));
        }
        self.echo_on = true;
        let mut silent = 0;
        for _ in 0..TRIALS {
            match self.type_harmless(AtCommand::EchoOn, AT_LIMIT).await? {
                (Echo::Exact, _) => return Ok(Some(true)),
                // It reads whole lines only, as some Wi-Fi modules do.
                (Echo::Nothing, reply) => silent += u32::from(is_clean(&reply)),
                (Echo::Other, _) => {}
            }
        }
        Ok(verdict(false, silent))
    }

    async fn type_harmless(
        &mut self,
        command: AtCommand,
        limit: Duration,
    ) -> Result<(Echo, Reply), AdapterError> {
        match self.port_mut().try_echo(Outgoing::At(command), limit).await {
            Ok(told) => Ok(told),
            Err(error) => {
                self.come_back(Outgoing::At(command), error).await.map(|reply| (Echo::Other, reply))
            }
        }
    }
}

/// `OK` and nothing else: the line is good now, so a missing echo means something.
fn is_clean(reply: &Reply) -> bool {
    reply.garbage == 0 && matches!(reply.lines.as_slice(), [line] if classify(line) == Line::Ok)
}

/// What silence proves: nothing, where fewer than two replies came whole.
fn verdict(echoed: bool, silent: u32) -> Option<bool> {
    if echoed { Some(true) } else { (silent >= CLEAN).then_some(false) }
}
