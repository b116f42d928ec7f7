//! The one gate every byte to a vehicle passes. What lives here: the read-only
//! requests and adapter commands that exist at all, as types, and the only
//! function that turns them into bytes. The driver's write takes [`Outgoing`]
//! and nothing else, so data (protocol files, requests over HTTP, arguments of
//! the CLI) can select from this list and never extend it.
//!
//! Not here: services that change a car (08, 2E, 2F, 31 …). They have no type. Clearing codes
//! (04, 14) has one that only a used-up confirmation of a person makes: [`clear`].
//! Whether a driver can address one unit, or several PIDs at once, is the driver's business.

use std::fmt;

pub mod clear;

use clear::ClearBytes;

/// What the gate refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Not hexadecimal.
    #[error("{0:?} is not a request; write service and PID in hex, like 010C")]
    NotHex(String),
    /// A service that is not read-only, or not known.
    #[error(
        "service {service:02X} is not on the read-only list (01, 02, 03, 05, 06, 07, 09, 0A, 19, 21, 22) and is never sent to a car"
    )]
    Service {
        /// The service asked for.
        service: u8,
    },
    /// A read-only service with the wrong number of bytes.
    #[error("service {service:02X} takes {expected:?} byte(s) after it; write it like {example}")]
    Length {
        /// The service asked for.
        service: u8,
        /// How many bytes may follow.
        expected: &'static [usize],
        /// A well-formed request.
        example: &'static str,
    },
}

/// Most bytes behind a service: six PIDs (SAE J1979 §7.1, one single frame).
const MOST_PARAMETERS: usize = 6;

/// Who is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Target {
    /// Every unit that has to do with emissions (7DF, 18DB33F1, or what the bus uses).
    #[default]
    Functional,
    /// One unit, by the arbitration ID its requests carry on CAN (`7E0`, `18DA10F1`), or by
    /// its node address on an older bus.
    Unit(u32),
}

/// A read-only request (SAE J1979 / ISO 15031-5, ISO 14229-1, ISO 14230-3). Can only be
/// made for the services of the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Request {
    service: u8,
    parameters: [u8; MOST_PARAMETERS],
    parameter_count: usize,
    target: Target,
}

impl Request {
    const fn with<const N: usize>(service: u8, given: [u8; N]) -> Self {
        let mut parameters = [0; MOST_PARAMETERS];
        let mut place = 0;
        while place < N && place < MOST_PARAMETERS {
            #[allow(clippy::indexing_slicing)] // both within their bounds by the condition
            {
                parameters[place] = given[place];
            }
            place += 1;
        }
        Self { service, parameters, parameter_count: place, target: Target::Functional }
    }

    /// The same request to one unit.
    #[must_use]
    pub const fn to(self, target: Target) -> Self {
        Self { target, ..self }
    }

    /// Who is asked.
    #[must_use]
    pub const fn target(self) -> Target {
        self.target
    }

    /// Service 01: up to six PIDs in one request (CAN only). `None`: none, or more than six.
    #[must_use]
    pub fn current_many(pids: &[u8]) -> Option<Self> {
        let mut parameters = [0; MOST_PARAMETERS];
        parameters.get_mut(..pids.len()).filter(|room| !room.is_empty())?.copy_from_slice(pids);
        Some(Self { service: 0x01, parameters, parameter_count: pids.len(), target: Target::Functional })
    }

    /// Service 22 (ISO 14229-1 §11.2): the record of a data identifier.
    #[must_use]
    pub const fn data_by_identifier(did: u16) -> Self {
        let [high, low] = did.to_be_bytes();
        Self::with(0x22, [high, low])
    }

    /// Service 21 (ISO 14230-3): the record of a local identifier, before UDS.
    #[must_use]
    pub const fn local_data(identifier: u8) -> Self {
        Self::with(0x21, [identifier])
    }

    /// Service 19 02 (ISO 14229-1 §12.3): codes whose status has a bit of `mask`.
    #[must_use]
    pub const fn dtcs_by_status(mask: u8) -> Self {
        Self::with(0x19, [0x02, mask])
    }

    /// Service 19 04 or 06: snapshot or extended record `record` of a code.
    #[must_use]
    pub const fn dtc_record(extended: bool, dtc: [u8; 3], record: u8) -> Self {
        let [high, middle, low] = dtc;
        Self::with(0x19, [if extended { 0x06 } else { 0x04 }, high, middle, low, record])
    }

    /// Service 19 0A: all codes a unit knows.
    #[must_use]
    pub const fn supported_dtcs() -> Self {
        Self::with(0x19, [0x0A])
    }

    /// Service 19 42: WWH-OBD codes of a functional group by status and severity.
    #[must_use]
    pub const fn wwh_dtcs(group: u8, status: u8, severity: u8) -> Self {
        Self::with(0x19, [0x42, group, status, severity])
    }

    /// Service 19 55: WWH-OBD codes with permanent status of a functional group.
    #[must_use]
    pub const fn wwh_permanent_dtcs(group: u8) -> Self {
        Self::with(0x19, [0x55, group])
    }

    /// Service 19 56: codes of a functional group and readiness group.
    #[must_use]
    pub const fn dtcs_by_readiness(group: u8, readiness: u8) -> Self {
        Self::with(0x19, [0x56, group, readiness])
    }

    /// Service 01: current data of a PID.
    #[must_use]
    pub const fn current(pid: u8) -> Self {
        Self::with(0x01, [pid])
    }

    /// Service 02: a PID of a stored freeze frame.
    #[must_use]
    pub const fn freeze_frame(pid: u8, frame: u8) -> Self {
        Self::with(0x02, [pid, frame])
    }

    /// Service 03: confirmed codes.
    #[must_use]
    pub const fn confirmed_codes() -> Self {
        Self::with(0x03, [])
    }

    /// Service 06: results of a monitor.
    #[must_use]
    pub const fn monitor(mid: u8) -> Self {
        Self::with(0x06, [mid])
    }

    /// Service 07: pending codes.
    #[must_use]
    pub const fn pending_codes() -> Self {
        Self::with(0x07, [])
    }

    /// Service 09: vehicle information.
    #[must_use]
    pub const fn vehicle_info(info: u8) -> Self {
        Self::with(0x09, [info])
    }

    /// Service 0A: permanent codes.
    #[must_use]
    pub const fn permanent_codes() -> Self {
        Self::with(0x0A, [])
    }

    /// From hex such as `010C`; spaces are allowed.
    ///
    /// # Errors
    /// [`Refused`] when it is not one of the read-only requests.
    pub fn parse(text: &str) -> Result<Self, Refused> {
        let digits: String = text.chars().filter(|c| *c != ' ').collect();
        let bytes = hex::decode(&digits).map_err(|_| Refused::NotHex(text.to_owned()))?;
        let (&service, parameters) = bytes.split_first().ok_or_else(|| Refused::NotHex(text.to_owned()))?;
        let (expected, example): (&[usize], _) = match (service, parameters) {
            (0x01, _) => (&[1, 2, 3, 4, 5, 6], "010C"),
            (0x02, _) => (&[2], "020C00"),
            (0x03, _) => (&[0], "03"),
            (0x05, _) => (&[2], "050101"),
            (0x06, _) => (&[1], "0601"),
            (0x07, _) => (&[0], "07"),
            (0x09, _) => (&[1], "0902"),
            (0x0A, _) => (&[0], "0A"),
            (0x19, [0x02, ..]) => (&[2], "1902FF"),
            (0x19, [0x04 | 0x06, ..]) => (&[5], "1904123456FF"),
            (0x19, [0x0A, ..]) => (&[1], "190A"),
            (0x19, [0x42, ..]) => (&[4], "194233FF1E"),
            (0x19, [0x55, ..]) => (&[2], "195533"),
            (0x19, [0x56, ..]) => (&[3], "19563301"),
            (0x21, _) => (&[1], "2101"),
            (0x22, _) => (&[2], "22F190"),
            _ => return Err(Refused::Service { service }),
        };
        let mut room = [0; MOST_PARAMETERS];
        match room.get_mut(..parameters.len()) {
            Some(taken) if expected.contains(&parameters.len()) => taken.copy_from_slice(parameters),
            _ => return Err(Refused::Length { service, expected, example }),
        }
        let parameter_count = parameters.len();
        Ok(Self { service, parameters: room, parameter_count, target: Target::Functional })
    }

    /// The service.
    #[must_use]
    pub fn service(self) -> u8 {
        self.service
    }

    /// The PID, monitor or information asked for, where the service has one.
    #[must_use]
    pub fn id(self) -> Option<u8> {
        self.parameters().first().copied()
    }

    /// What follows the service.
    pub fn parameters(&self) -> &[u8] {
        self.parameters.get(..self.parameter_count).unwrap_or_default()
    }

    /// Whether the answer holds the VIN (personal data: masked in traces).
    #[must_use]
    pub fn asks_for_vin(self) -> bool {
        matches!((self.service, self.parameters()), (0x09, [0x02]) | (0x22, [0xF1, 0x90] | [0xF8, 0x02]))
    }

    /// Whether `payload` is a positive answer to this request: the service with
    /// bit 6 set, then what is echoed of the parameters.
    #[must_use]
    pub fn is_answered_by(self, payload: &[u8]) -> bool {
        let Some((answered, data)) = payload.split_first() else { return false };
        if *answered != self.service | 0x40 {
            return false;
        }
        match (self.service, self.parameters()) {
            // Fewer PIDs may come than were asked for, in any order.
            (0x01, asked) => data.first().is_some_and(|pid| asked.contains(pid)),
            (0x22, did) => data.starts_with(did),
            (_, parameters) => parameters.first().is_none_or(|id| data.first() == Some(id)),
        }
    }
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02X}", self.service)?;
        self.parameters().iter().try_for_each(|byte| write!(f, "{byte:02X}"))
    }
}

/// Adapter commands that may be sent (ELM327 v1.x/2.x data sheet). None of them
/// changes what the adapter sends to the car by itself, or its stored settings
/// beyond the protocol memory of `AT SP`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AtCommand {
    /// `ATZ`: reset all.
    Reset,
    /// `ATE0`: echo off.
    EchoOff,
    /// `ATL0`: line feeds off.
    LinefeedsOff,
    /// `ATS0`: spaces off.
    SpacesOff,
    /// `ATH1`: headers on.
    HeadersOn,
    /// `ATAT1`: adaptive timing, the default.
    AdaptiveTiming,
    /// `ATSP0`: find the protocol by yourself.
    ProtocolAuto,
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
}

impl AtCommand {
    /// The command as written, without CR.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::Reset => "ATZ",
            Self::EchoOff => "ATE0",
            Self::LinefeedsOff => "ATL0",
            Self::SpacesOff => "ATS0",
            Self::HeadersOn => "ATH1",
            Self::AdaptiveTiming => "ATAT1",
            Self::ProtocolAuto => "ATSP0",
            Self::ProtocolNumber => "ATDPN",
            Self::ProtocolClose => "ATPC",
            Self::ForgetEvents => "ATFE",
            Self::Identity => "ATI",
            Self::Description => "AT@1",
            Self::StnIdentity => "STDI",
            Self::Voltage => "ATRV",
        }
    }
}

/// Everything that may be written to an ELM327.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outgoing {
    /// Two DELs and CR: answered `?` by an idle adapter, `STOPPED` by a busy
    /// one, and never a repetition of the last command as a lone CR would be.
    Probe,
    /// An adapter command.
    At(AtCommand),
    /// A request to the car.
    Obd(Request),
    /// A request whose number of answer lines is known (1 to 15): the adapter
    /// need not wait for more.
    ObdCounted(Request, u8),
    /// Clears codes, as a person in the store confirmed.
    Clear(ClearBytes),
}

impl Outgoing {
    /// The bytes on the wire. The only place where bytes for a vehicle are made.
    #[must_use]
    pub fn wire(self) -> Vec<u8> {
        match self {
            Self::Probe => vec![0x7F, 0x7F, b'\r'],
            Self::At(command) => format!("{}\r", command.text()).into_bytes(),
            Self::Obd(request) => format!("{request}\r").into_bytes(),
            Self::ObdCounted(request, lines) => format!("{request}{:X}\r", lines.clamp(1, 15)).into_bytes(),
            Self::Clear(bytes) => format!("{}\r", hex::encode_upper(bytes.payload())).into_bytes(),
        }
    }

    /// The command without CR, to recognise its echo.
    #[must_use]
    pub fn text(self) -> String {
        let mut wire = self.wire();
        wire.pop();
        String::from_utf8_lossy(&wire).into_owned()
    }

    /// The request to the car, if it is one.
    #[must_use]
    pub fn request(self) -> Option<Request> {
        match self {
            Self::Obd(request) | Self::ObdCounted(request, _) => Some(request),
            Self::Probe | Self::At(_) | Self::Clear(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_read_only_services_pass() {
        for (text, passes) in [
            ("010C", true),
            ("01 0c", true),
            ("020200", true),
            ("03", true),
            ("0601", true),
            ("07", true),
            ("0902", true),
            ("01 0C 0D 05 0B 0F 11", true),
            ("010C0D050B0F1104", false),
            ("22F190", true),
            ("22F190F18C", false),
            ("1902FF", true),
            ("1906123456FF", true),
            ("1901FF", false),
            ("19", false),
            ("2101", true),
            ("0A", true),
            ("04", false),
            ("0400", false),
            ("080100", false),
            ("14FFFFFF", false),
            ("2EF190", false),
            ("3101", false),
            ("1101", false),
            ("01", false),
            ("0300", false),
            ("", false),
            ("ATZ", false),
            ("01\r04", false),
        ] {
            assert_eq!(Request::parse(text).is_ok(), passes, "{text:?}");
        }
        // No service byte outside the list passes with any number of bytes.
        for service in 0..=0xFF_u8 {
            let listed = [1, 2, 3, 5, 6, 7, 9, 0x0A, 0x21, 0x22].contains(&service);
            let any = (0..4).any(|n| Request::parse(&format!("{service:02X}{}", "00".repeat(n))).is_ok());
            assert_eq!(any, listed, "{service:02X}");
        }
    }

    #[test]
    fn wire_form() {
        for (outgoing, bytes) in [
            (Outgoing::Probe, "\x7f\x7f\r"),
            (Outgoing::At(AtCommand::Voltage), "ATRV\r"),
            (Outgoing::Obd(Request::freeze_frame(0x0C, 0)), "020C00\r"),
            (Outgoing::Obd(Request::permanent_codes()), "0A\r"),
            (Outgoing::ObdCounted(Request::current(0x0C), 2), "010C2\r"),
        ] {
            assert_eq!(outgoing.wire(), bytes.as_bytes());
        }
    }

    #[test]
    fn answers_are_matched_by_service_and_id() {
        for (request, payload, answered) in [
            (Request::current(0x0C), &[0x41, 0x0C, 0x0C, 0xB2][..], true),
            (Request::current(0x0C), &[0x41, 0x0D, 0x00], false),
            (Request::confirmed_codes(), &[0x43, 0x00], true),
            (Request::confirmed_codes(), &[0x47, 0x00], false),
            (Request::current(0x0C), &[0x7F, 0x01, 0x12], false),
            (Request::current(0x0C), &[], false),
            (Request::current_many(&[0x0C, 0x0D]).unwrap(), &[0x41, 0x0D, 0x00, 0x0C, 0x0C, 0xB2], true),
            (Request::data_by_identifier(0xF190), &[0x62, 0xF1, 0x90, 0x4C], true),
            (Request::data_by_identifier(0xF190), &[0x62, 0xF1, 0x8C, 0x4C], false),
            (Request::dtcs_by_status(0xFF), &[0x59, 0x02, 0xFF], true),
        ] {
            assert_eq!(request.is_answered_by(payload), answered, "{request} {payload:02X?}");
        }
    }
}
