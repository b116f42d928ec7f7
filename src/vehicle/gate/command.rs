//! Commands to the adapter itself. What lives here: those that exist, and how they are written.

use super::UnitAddress;
use crate::vehicle::protocol::{HeaderForm, Protocol};

/// Adapter commands that may be sent (ELM327 v1.x/2.x data sheet). None of them
/// changes what the adapter sends to the car by itself, but whom its flow control
/// goes to, or its stored settings beyond the protocol memory of `AT SP`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AtCommand {
    /// `ATZ`: reset all.
    Reset,
    /// `ATE0`: echo off.
    EchoOff,
    /// `ATE1`: each character comes back as it was read.
    EchoOn,
    /// `ATL0`: line feeds off.
    LinefeedsOff,
    /// `ATS0`: spaces off.
    SpacesOff,
    /// `ATH1`: headers on.
    HeadersOn,
    /// `ATAT0`: waits as `ATST` says, whatever the car's habits.
    FixedTiming,
    /// `ATAT1`: adaptive timing, the default.
    AdaptiveTiming,
    /// `ATAT2`: adaptive timing that waits less.
    AggressiveTiming,
    /// `ATST19`: waits 100 ms (25 steps of 4 ms), twice the 50 ms a unit may take.
    ShortWait,
    /// `ATST32`: waits 200 ms, the default.
    UsualWait,
    /// `ATSTFF`: waits 1.02 s, the longest there is.
    LongestWait,
    /// `ATST…`: waits so many steps of 4 ms, for a command whose file says so (`tmo`).
    Wait(u8),
    /// `ATSP0`: find the protocol by yourself.
    ProtocolAuto,
    /// `ATSPn`: this protocol.
    Protocol(Protocol),
    /// `ATDPN`: the protocol's number.
    ProtocolNumber,
    /// `ATPC`: close the protocol (after the bus was lost).
    ProtocolClose,
    /// `ATFE`: forget events (after `ERR94`).
    ForgetEvents,
    /// `ATI`: identity.
    Identity,
    /// `AT@1`: description.
    Description,
    /// `STDI`: identity of STN-class chips.
    StnIdentity,
    /// `ATRV`: voltage at the socket.
    Voltage,
    /// `ATCSM1`: acknowledges no frame of a CAN bus that is listened to.
    SilentMonitoring,
    /// `ATSH…`: requests go to one unit.
    Header(UnitAddress),
    /// `ATSH…`: requests go to all units again, in the bus's own way.
    FunctionalHeader(Protocol),
    /// `ATCP18`: the first byte of 29-bit ids (ISO 15765-4).
    Priority,
    /// `ATCP…`: the first byte of this unit's.
    PriorityOf(UnitAddress),
    /// `ATCRA…`: only what this unit answers is printed.
    ReceiveOnly(UnitAddress),
    /// `ATAR`: the usual answers are printed again.
    ReceiveUsual,
    /// `ATFCSH…`: whom flow control goes to, where the answer's id does not tell.
    FlowHeader(UnitAddress),
    /// `ATFCSD300000`: send on, all of it, without pauses (ISO 15765-2 §9.6.5); what the adapter
    /// sends by itself, too. A unit with address bytes reads a frame of no bytes.
    FlowData,
    /// `ATFCSM1`: flow control as these two say.
    FlowToUnit,
    /// `ATFCSM0`: flow control by the adapter's own rule again.
    FlowUsual,
}

impl AtCommand {
    /// The command as written, without CR.
    #[must_use]
    pub fn text(self) -> String {
        let fixed = match self {
            Self::Reset => "ATZ",
            Self::EchoOff => "ATE0",
            Self::EchoOn => "ATE1",
            Self::LinefeedsOff => "ATL0",
            Self::SpacesOff => "ATS0",
            Self::HeadersOn => "ATH1",
            Self::FixedTiming => "ATAT0",
            Self::AdaptiveTiming => "ATAT1",
            Self::AggressiveTiming => "ATAT2",
            Self::ShortWait => "ATST19",
            Self::UsualWait => "ATST32",
            Self::LongestWait => "ATSTFF",
            Self::Wait(steps) => return format!("ATST{steps:02X}"),
            Self::ProtocolAuto => "ATSP0",
            Self::Protocol(protocol) => return format!("ATSP{:X}", protocol.number()),
            Self::ProtocolNumber => "ATDPN",
            Self::ProtocolClose => "ATPC",
            Self::ForgetEvents => "ATFE",
            Self::Identity => "ATI",
            Self::Description => "AT@1",
            Self::StnIdentity => "STDI",
            Self::Voltage => "ATRV",
            Self::SilentMonitoring => "ATCSM1",
            Self::Header(unit) => return format!("ATSH{}", unit.header()),
            Self::FunctionalHeader(protocol) => match protocol.header() {
                HeaderForm::Can11 => "ATSH7DF",
                HeaderForm::Can29 => "ATSHDB33F1",
                // ISO 14230-4 §4: functional, all emission-related units; the chip puts the length in.
                HeaderForm::ThreeBytes { .. } => "ATSHC033F1",
            },
            Self::Priority => "ATCP18",
            Self::PriorityOf(unit) => return format!("ATCP{:02X}", unit.priority()),
            Self::ReceiveOnly(unit) => return format!("ATCRA{}", unit.answers_as()),
            Self::ReceiveUsual => "ATAR",
            Self::FlowHeader(unit) => return format!("ATFCSH{}", unit.flow_header()),
            Self::FlowData => "ATFCSD300000",
            Self::FlowToUnit => "ATFCSM1",
            Self::FlowUsual => "ATFCSM0",
        };
        fixed.into()
    }
}
