//! Whom requests go to: all units, or one by its own address. What lives here:
//! switching the adapter's header and filter between the two, always through the
//! gate's typed addresses. What does not: who is asked what (above).

use super::adapter::Adapter;
use super::reply::{Line, classify};
use crate::vehicle::answer::{Answer, Complaint};
use crate::vehicle::error::AdapterError;
use crate::vehicle::gate::{AtCommand, Target, UnitAddress};
use crate::vehicle::protocol::{HeaderForm, Protocol};

impl Adapter {
    /// Makes requests go to `target`. `Some`: that cannot be done, and why.
    pub(super) async fn address(&mut self, target: Target) -> Result<Option<Complaint>, AdapterError> {
        if self.addressed == target {
            return Ok(None);
        }
        // From one unit of the usual identifiers to another, header and filter are written over.
        let written_over = self.protocol.is_some_and(|protocol| {
            let usual = |target| UnitAddress::of(protocol, target).is_some_and(UnitAddress::answers_as_usual);
            protocol.is_can() && usual(self.addressed) && usual(target) && self.to_take_back.is_empty()
        });
        if !written_over {
            self.address_all().await?;
        }
        match target {
            Target::Functional => return Ok(None),
            Target::Unit(_) | Target::Paired(_) => {}
            // `ATCEA` is not sent: many clones do not know it, and print half of such answers.
            Target::Extended(_) => return Ok(Some(Complaint::NoAddress)),
        }
        let protocol = match self.protocol {
            Some(protocol) => protocol,
            None => match self.assume(target).await? {
                Some(protocol) => protocol,
                None => return Ok(Some(Complaint::NoAddress)),
            },
        };
        let Some(unit) = UnitAddress::of(protocol, target) else { return Ok(Some(Complaint::NoAddress)) };
        self.header_changed = true;
        self.addressed = target;
        let told = self.tell_unit(protocol, unit, written_over).await;
        if !matches!(told, Ok(true)) {
            self.address_all().await?;
        }
        Ok(if told? { None } else { Some(Complaint::NoAddress) })
    }

    /// Header, filter and flow control of one unit. False: it does not take the header, or would
    /// not print the answers. `written_over`: the filter of another unit still stands.
    async fn tell_unit(
        &mut self,
        protocol: Protocol,
        unit: UnitAddress,
        written_over: bool,
    ) -> Result<bool, AdapterError> {
        if protocol.header() == HeaderForm::Can29 && !self.tell_priority(unit).await? {
            return Ok(false);
        }
        if !self.accepts(AtCommand::Header(unit)).await? {
            return Ok(false);
        }
        if unit.answers_as_usual() {
            if protocol.is_can() {
                // Where this is not known, the usual answers are printed: enough for 7E0–7E7.
                if !self.accepts(AtCommand::ReceiveOnly(unit)).await? && written_over {
                    self.at(AtCommand::ReceiveUsual).await?;
                }
            }
            return Ok(true);
        }
        if !self.accepts(AtCommand::ReceiveOnly(unit)).await? {
            return Ok(false);
        }
        // Without these, answers of one frame come nevertheless.
        if self.accepts(AtCommand::FlowHeader(unit)).await? && self.accepts(AtCommand::FlowData).await? {
            self.to_take_back.push(AtCommand::FlowUsual);
            self.at(AtCommand::FlowToUnit).await?;
        }
        Ok(true)
    }

    /// The first byte of 29-bit identifiers. False: it does not take one that is not the usual.
    async fn tell_priority(&mut self, unit: UnitAddress) -> Result<bool, AdapterError> {
        let told = AtCommand::PriorityOf(unit);
        if told.text() == AtCommand::Priority.text() {
            return self.at(AtCommand::Priority).await.map(|_| true);
        }
        self.to_take_back.push(AtCommand::Priority);
        self.accepts(told).await
    }

    /// Requests go to all units again.
    pub(super) async fn address_all(&mut self) -> Result<(), AdapterError> {
        if self.addressed == Target::Functional {
            return Ok(());
        }
        let protocol = self.protocol;
        let done = async {
            self.take_back().await?;
            if let Some(protocol) = protocol {
                self.at(AtCommand::FunctionalHeader(protocol)).await?;
            }
            self.at(AtCommand::ReceiveUsual).await.map(|_| ())
        }
        .await;
        // Half a reply proves nothing of the header: set up anew before the next question.
        self.needs_set_up |= done.is_err();
        self.addressed = Target::Functional;
        done
    }

    /// Settings for one unit that would spoil the next question become the usual ones.
    pub(super) async fn take_back(&mut self) -> Result<(), AdapterError> {
        while let Some(command) = self.to_take_back.last().copied() {
            self.at(command).await?;
            self.to_take_back.pop();
        }
        Ok(())
    }

    /// A car that is silent on 0100 (a battery car) has no known protocol, and the search for one
    /// asks 0100: CAN at the usual rate is taken, with identifiers as wide as the address.
    async fn assume(&mut self, target: Target) -> Result<Option<Protocol>, AdapterError> {
        let wide = target.request_id().is_some_and(|id| id > 0x7FF);
        let protocol = if wide { Protocol::Can29At500 } else { Protocol::Can11At500 };
        if UnitAddress::of(protocol, target).is_none() || !self.accepts(AtCommand::Protocol(protocol)).await?
        {
            return Ok(None);
        }
        self.protocol = Some(protocol);
        self.assumed = true;
        Ok(Some(protocol))
    }

    /// An assumed protocol on which nobody answered is none: the next functional request searches.
    pub(super) async fn doubt_assumption(&mut self, answer: &Answer) -> Result<(), AdapterError> {
        if !std::mem::take(&mut self.assumed) || !answer.is_silence() {
            return Ok(());
        }
        self.close_protocol().await
    }

    pub(super) async fn accepts(&mut self, command: AtCommand) -> Result<bool, AdapterError> {
        let reply = self.at(command).await?;
        Ok(reply.lines.iter().any(|line| classify(line) == Line::Ok))
    }
}
