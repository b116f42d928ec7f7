//! What the adapter at hand can do. What lives here: trying each optimisation once,
//! on an answer that is already known, with the verdict in [`Capabilities`]. Each verdict
//! is written down as "no" before the trial: an adapter that dies of it is not tried again.
//!
//! [`Capabilities`]: crate::vehicle::adapter::Capabilities

use super::adapter::Adapter;
use crate::protocols::{PidTable, Use};
use crate::vehicle::adapter::Waits;
use crate::vehicle::answer::{Answer, Complaint, Message};
use crate::vehicle::error::AdapterError;
use crate::vehicle::gate::{AtCommand, Request};
use crate::vehicle::obd;
use crate::vehicle::parts::{self, Of};
use crate::vehicle::protocol::Protocol;

/// "Wrong length" (ISO 14229-1 table A.1): what a unit says of half a request.
const WRONG_LENGTH: u8 = 0x13;
/// The diagnostic session now active (ISO 14229-1 annex C): harmless, short, no personal data.
const ACTIVE_SESSION: u16 = 0xF186;

impl Adapter {
    /// Tries what is not known yet. `first` is the car's answer to 0100.
    ///
    /// # Errors
    /// [`AdapterError`]: it died of a trial.
    pub async fn learn(&mut self, first: &Answer, table: &PidTable) -> Result<(), AdapterError> {
        if first.messages.is_empty() {
            return Ok(());
        }
        self.learn_timing(Request::current(0x00), first).await?;
        // Only on CAN there are several PIDs in a request.
        if self.capabilities.multi_pid.is_none() && self.protocol().is_some_and(Protocol::is_can) {
            self.learn_multi_pid(first, table).await?;
        }
        Ok(())
    }

    /// Tries what makes it wait less and is not known yet. `first` is the car's answer to `request`,
    /// a line of each unit.
    ///
    /// # Errors
    /// [`AdapterError`]: it died of a trial.
    pub async fn learn_timing(&mut self, request: Request, first: &Answer) -> Result<(), AdapterError> {
        self.capabilities.stn = Some(self.identity().firmware.is_some());
        self.doubt_echo();
        if self.capabilities.waits.is_none() {
            self.learn_waits(request, first).await?;
        }
        if self.capabilities.response_count.is_none() {
            self.learn_response_count(request, first).await?;
        }
        Ok(())
    }

    /// For a unit that asked for patience: the longest wait there is. False: it knows no such.
    pub(super) async fn wait_longest(&mut self) -> Result<bool, AdapterError> {
        if let Some(works) = self.waits_longest {
            return Ok(works);
        }
        // Where this fails half way, it is told back before the next question.
        self.waits_longest = Some(false);
        let works =
            self.accepts(AtCommand::FixedTiming).await? & self.accepts(AtCommand::LongestWait).await?;
        self.waits_longest = Some(works);
        Ok(works)
    }

    /// As long as a maker's file says (`tmo`), unless a unit asked for more. One that adapts itself
    /// would take it for the longest wait only (`AT AT`, ELM327 data sheet).
    pub(super) async fn wait_as_told(&mut self, request: Request) -> Result<(), AdapterError> {
        let may = self.waits_longest.is_none() && !self.waits_told;
        let Some(steps) = request.wait_steps().filter(|_| may) else { return Ok(()) };
        self.waits_told = true;
        self.at(AtCommand::FixedTiming).await?;
        self.at(AtCommand::Wait(steps)).await.map(|_| ())
    }

    /// Back from [`Self::wait_longest`] and [`Self::wait_as_told`]; what was learned is told before the
    /// next question.
    pub(super) async fn wait_as_usual(&mut self) -> Result<(), AdapterError> {
        if self.waits_longest.is_some() || self.waits_told {
            self.waits = None;
            self.at(AtCommand::UsualWait).await?;
            self.at(AtCommand::AdaptiveTiming).await?;
            (self.waits_longest, self.waits_told) = (None, false);
        }
        Ok(())
    }

    /// Tells it to wait as was learned, if it is not told yet.
    pub(super) async fn wait_as_learned(&mut self) -> Result<(), AdapterError> {
        // Until something was learned it waits as after a reset, which is adaptive (data sheet).
        if self.waits_longest.is_some() || self.waits.is_none() && self.capabilities.waits.is_none() {
            return Ok(());
        }
        let wanted = self.capabilities.waits.unwrap_or(Waits::Adaptive);
        if self.waits != Some(wanted) {
            self.tell_waits(wanted).await?;
        }
        Ok(())
    }

    async fn tell_waits(&mut self, waits: Waits) -> Result<bool, AdapterError> {
        self.waits = Some(waits);
        self.accepts(match waits {
            Waits::Aggressive => AtCommand::AggressiveTiming,
            Waits::Adaptive => AtCommand::AdaptiveTiming,
            Waits::Short => AtCommand::ShortWait,
            Waits::Usual => AtCommand::UsualWait,
        })
        .await
    }

    async fn learn_waits(&mut self, request: Request, first: &Answer) -> Result<(), AdapterError> {
        self.capabilities.waits = Some(Waits::Adaptive);
        let may = self.profile().is_none_or(|profile| profile.aggressive_timing == Use::Probe);
        for waits in [Waits::Aggressive, Waits::Adaptive, Waits::Short] {
            if (may || waits != Waits::Aggressive) && self.tell_waits(waits).await? {
                // Asking must not set it back meanwhile; whether it stays so is seen below.
                self.capabilities.waits = Some(waits);
                if waits == Waits::Adaptive || self.repeats(request, first, None).await? {
                    return Ok(());
                }
            }
        }
        self.capabilities.waits = Some(Waits::Usual);
        Ok(())
    }

    async fn learn_response_count(&mut self, request: Request, first: &Answer) -> Result<(), AdapterError> {
        self.capabilities.response_count = Some(false);
        let lines = u8::try_from(first.messages.len()).ok().filter(|n| (1..=15).contains(n));
        let may = self.profile().is_none_or(|profile| profile.response_count == Use::Probe);
        // With a digit at its end almost every request is fragile: no echo, no digit.
        let echoes = self.echoes().await?;
        if may && self.capabilities.echo.is_none() {
            // The line is too bad to tell; tried again at the next scan.
            self.capabilities.response_count = None;
        }
        if let (Some(lines), true, true) = (lines, may, echoes) {
            // The digit is written only where it is said to work.
            self.capabilities.response_count = Some(true);
            self.unknown.digit = 0;
            self.tries_digit = true;
            let works = self.repeats(request, first, Some(lines)).await;
            self.tries_digit = false;
            // After a `?` the question is put again without it, and answered.
            let known = self.unknown.digit == 0;
            self.capabilities.response_count = Some(known && matches!(works, Ok(true)));
            works?;
        }
        Ok(())
    }

    async fn learn_multi_pid(&mut self, first: &Answer, table: &PidTable) -> Result<(), AdapterError> {
        self.capabilities.multi_pid = Some(false);
        let profile = self.profile();
        let cuts = profile.is_some_and(|profile| profile.long_requests == Use::Never);
        let may = !cuts && profile.is_none_or(|profile| profile.multi_pid == Use::Probe);
        if cuts {
            self.capabilities.long_requests = Some(false);
        }
        let known = first.messages.iter().find_map(|message| Some((message, short_pair(message, table)?)));
        let (Some((message, pair)), true) = (known, may) else { return Ok(()) };
        let Some(request) = Request::current_many(&pair) else { return Ok(()) };
        let answer = match self.ask(request, None).await {
            Err(AdapterError::HalfReply(_)) => return Ok(()),
            other => other?,
        };
        let told = answer.messages.iter().find(|told| told.sender == message.sender);
        let parts =
            told.map(|told| parts::split(Of::Current, &told.payload, &pair, table)).unwrap_or_default();
        if parts.len() == pair.len() {
            self.capabilities.multi_pid = Some(true);
            self.capabilities.long_requests = Some(true);
        } else if !parts.is_empty() {
            // The adapter, or the car, saw the first one only.
            return self.learn_long_requests().await;
        } else if !answer.complaints.contains(&Complaint::Unknown) {
            // Silence, a refusal by the car, a spoilt reply: nothing is proven about the adapter.
            self.capabilities.multi_pid = None;
        }
        Ok(())
    }

    /// A unit that complains about the length of three bytes did not get them all.
    async fn learn_long_requests(&mut self) -> Result<(), AdapterError> {
        let answer = match self.ask(Request::data_by_identifier(ACTIVE_SESSION), None).await {
            Err(AdapterError::HalfReply(_)) => return Ok(()),
            other => other?,
        };
        if answer.refusals.iter().any(|(_, code)| *code == WRONG_LENGTH) {
            self.capabilities.long_requests = Some(false);
        } else if !answer.messages.is_empty() || !answer.refusals.is_empty() {
            self.capabilities.long_requests = Some(true);
        }
        Ok(())
    }

    /// Whether the request is answered as before.
    async fn repeats(
        &mut self,
        request: Request,
        first: &Answer,
        lines: Option<u8>,
    ) -> Result<bool, AdapterError> {
        match self.ask(request, lines).await {
            Ok(second) => Ok(second.messages == first.messages),
            Err(AdapterError::HalfReply(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// Two PIDs that the unit promises and whose answer fits one frame, so that nothing but their
/// number is tried. Not 02, which is empty where no frame is frozen; not 04: a line that swallows characters must not make "clear codes" of it.
fn short_pair(mask: &Message, table: &PidTable) -> Option<[u8; 2]> {
    let promised = obd::supported(0x00, obd::four_bytes(&mask.payload, 2)?);
    let short = |pid: &u8| {
        *pid != 0x04 && table.shown(0x01, *pid).is_some_and(|row| row.bytes.is_some_and(|bytes| bytes <= 2))
    };
    let mut short = promised.into_iter().filter(short);
    Some([short.next()?, short.next()?])
}
