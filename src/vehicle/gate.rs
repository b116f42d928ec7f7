//! The one gate every byte to a vehicle passes. What lives here: the read-only
//! requests and adapter commands that exist at all, as types, and the only
//! function that turns them into bytes. The driver's write takes [`Outgoing`]
//! and nothing else, so data (protocol files, requests over HTTP, arguments of
//! the CLI) can select from this list and never extend it.
//!
//! Not here: services that change a car (04, 08, 14, 2E, 2F, 31 …). They have no type.

use std::fmt;

/// What the gate refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Not hexadecimal.
    #[error("{0:?} is not a request; write service and PID in hex, like 010C")]
    NotHex(String),
    /// A service that is not read-only, or not known.
    #[error(
        "service {service:02X} is not on the read-only list (01, 02, 03, 06, 07, 09, 0A) and is never sent to a car"
    )]
    Service {
        /// The service asked for.
        service: u8,
    },
    /// A read-only service with the wrong number of bytes.
    #[error("service {service:02X} takes {expected} byte(s) after it; write it like {example}")]
    Length {
        /// The service asked for.
        service: u8,
        /// How many bytes must follow.
        expected: usize,
        /// A well-formed request.
        example: &'static str,
    },
}

/// A read-only OBD request (SAE J1979 / ISO 15031-5). Can only be made for the services of the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Request {
    service: u8,
    parameters: [u8; 2],
    parameter_count: usize,
}

impl Request {
    const fn with(service: u8, parameters: [u8; 2], parameter_count: usize) -> Self {
        Self { service, parameters, parameter_count }
    }

    /// Service 01: current data of a PID.
    #[must_use]
    pub const fn current(pid: u8) -> Self {
        Self::with(0x01, [pid, 0], 1)
    }

    /// Service 02: a PID of a stored freeze frame.
    #[must_use]
    pub const fn freeze_frame(pid: u8, frame: u8) -> Self {
        Self::with(0x02, [pid, frame], 2)
    }

    /// Service 03: confirmed codes.
    #[must_use]
    pub const fn confirmed_codes() -> Self {
        Self::with(0x03, [0, 0], 0)
    }

    /// Service 06: results of a monitor.
    #[must_use]
    pub const fn monitor(mid: u8) -> Self {
        Self::with(0x06, [mid, 0], 1)
    }

    /// Service 07: pending codes.
    #[must_use]
    pub const fn pending_codes() -> Self {
        Self::with(0x07, [0, 0], 0)
    }

    /// Service 09: vehicle information.
    #[must_use]
    pub const fn vehicle_info(info: u8) -> Self {
        Self::with(0x09, [info, 0], 1)
    }

    /// Service 0A: permanent codes.
    #[must_use]
    pub const fn permanent_codes() -> Self {
        Self::with(0x0A, [0, 0], 0)
    }

    /// From hex such as `010C`; spaces are allowed.
    ///
    /// # Errors
    /// [`Refused`] when it is not one of the read-only requests.
    pub fn parse(text: &str) -> Result<Self, Refused> {
        let digits: String = text.chars().filter(|c| *c != ' ').collect();
        let bytes = hex::decode(&digits).map_err(|_| Refused::NotHex(text.to_owned()))?;
        let (&service, parameters) = bytes.split_first().ok_or_else(|| Refused::NotHex(text.to_owned()))?;
        let (expected, example) = match service {
            0x01 => (1, "010C"),
            0x02 => (2, "020C00"),
            0x03 => (0, "03"),
            0x06 => (1, "0601"),
            0x07 => (0, "07"),
            0x09 => (1, "0902"),
            0x0A => (0, "0A"),
            _ => return Err(Refused::Service { service }),
        };
        match (expected, parameters) {
            (0, []) => Ok(Self::with(service, [0, 0], 0)),
            (1, &[a]) => Ok(Self::with(service, [a, 0], 1)),
            (2, &[a, b]) => Ok(Self::with(service, [a, b], 2)),
            _ => Err(Refused::Length { service, expected, example }),
        }
    }

    /// The service.
    #[must_use]
    pub fn service(self) -> u8 {
        self.service
    }

    /// The PID, monitor or information asked for, where the service has one.
    #[must_use]
    pub fn id(self) -> Option<u8> {
        (self.parameter_count > 0).then_some(self.parameters[0])
    }

    /// What follows the service.
    pub fn parameters(&self) -> &[u8] {
        self.parameters.get(..self.parameter_count).unwrap_or_default()
    }

    /// Whether the answer holds the VIN (personal data: masked in traces).
    #[must_use]
    pub fn asks_for_vin(self) -> bool {
        self.service == 0x09 && self.id() == Some(0x02)
    }

    /// Whether `payload` is a positive answer to this request: the service with
    /// bit 6 set, then the id echoed.
    #[must_use]
    pub fn is_answered_by(self, payload: &[u8]) -> bool {
        payload.first() == Some(&(self.service | 0x40))
            && self.id().is_none_or(|id| payload.get(1) == Some(&id))
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
            Self::Probe | Self::At(_) => None,
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
            ("0A", true),
            ("04", false),
            ("0400", false),
            ("080100", false),
            ("14FFFFFF", false),
            ("2EF190", false),
            ("3101", false),
            ("1101", false),
            ("01", false),
            ("0100 0C", false),
            ("0300", false),
            ("", false),
            ("ATZ", false),
            ("01\r04", false),
        ] {
            assert_eq!(Request::parse(text).is_ok(), passes, "{text:?}");
        }
        // No service byte outside the list passes with any number of bytes.
        for service in 0..=0xFF_u8 {
            let listed = [0x01, 0x02, 0x03, 0x06, 0x07, 0x09, 0x0A].contains(&service);
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
        ] {
            assert_eq!(request.is_answered_by(payload), answered, "{request} {payload:02X?}");
        }
    }
}
