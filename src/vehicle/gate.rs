//! The one gate every byte to a vehicle passes. What lives here: the read-only
//! requests and adapter commands that exist at all, as types, and the only
//! function that turns them into bytes. The driver's write takes [`Outgoing`]
//! and nothing else, so data (protocol files, requests over HTTP, arguments of
//! the CLI) can select from this list and never extend it.
//!
//! Not here: services that change a car (2E, 2F, 31 …). They have no type. Of 08 (control of a
//! system) only the question which tests a unit has is a request; clearing codes (04, 14) has
//! a type that only a used-up confirmation of a person makes: [`clear`]. What may be asked for
//! on a J1939 bus stands in [`group`]; what a bad line can make of a request on its way is worked
//! out in `fragile`.
//! Whether a driver can address one unit, or several PIDs at once, is the driver's business.

use std::fmt;

pub mod clear;
mod extended;
mod fragile;
pub mod group;

use super::protocol::{EcuAddress, HeaderForm, Protocol};
use clear::ClearBytes;
pub use extended::ExtendedAddress;

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
    /// One unit behind an address byte in front of ISO-TP's own (ISO 15765-2 §10.3.4, extended
    /// addressing on 11 bits), as makers use it: see [`ExtendedAddress`].
    Extended(ExtendedAddress),
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

    /// Service and parameters, as a bus without an adapter carries them; whoever frames them
    /// (ISO-TP) adds no more than control bytes.
    #[must_use]
    pub fn payload(self) -> Vec<u8> {
        [&[self.service], self.parameters()].concat()
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

    /// Service 02: up to three PIDs of one stored freeze frame, each with the frame's number
    /// (CAN only; ISO 15031-5 §8.2). `None`: none, or more than three.
    #[must_use]
    pub fn freeze_frame_many(pids: &[u8], frame: u8) -> Option<Self> {
        let pairs: Vec<u8> = pids.iter().flat_map(|pid| [*pid, frame]).collect();
        let mut parameters = [0; MOST_PARAMETERS];
        parameters.get_mut(..pairs.len()).filter(|room| !room.is_empty())?.copy_from_slice(&pairs);
        Some(Self { service: 0x02, parameters, parameter_count: pairs.len(), target: Target::Functional })
    }

    /// Service 03: confirmed codes.
    #[must_use]
    pub const fn confirmed_codes() -> Self {
        Self::with(0x03, [])
    }

    /// Service 05: a test of an oxygen sensor, named by its bit in PID 13 or 1D. Not on CAN.
    #[must_use]
    pub const fn oxygen_sensor_test(test: u8, sensor: u8) -> Self {
        Self::with(0x05, [test, sensor])
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

    /// Service 08 on CAN: which controls after `base` a unit has. Only the masks 00, 20 … E0
    /// can be asked for (SAE J1979 appendix F: those ids answer with a mask and control
    /// nothing); `None` for every other id, which would act on the car.
    #[must_use]
    pub const fn control_support(base: u8) -> Option<Self> {
        if base.is_multiple_of(0x20) { Some(Self::with(0x08, [base])) } else { None }
    }

    /// The same on ISO 9141-2, ISO 14230-4 and SAE J1850, where the data bytes A to E always
    /// follow and are zero in this question (SAE J1979 appendix F).
    #[must_use]
    pub const fn control_support_older_bus(base: u8) -> Option<Self> {
        if base.is_multiple_of(0x20) { Some(Self::with(0x08, [base, 0, 0, 0, 0, 0])) } else { None }
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
        // F190 is the VIN (ISO 14229-1 annex C); 22 F802: the same on cars with OBD on UDS (SAE J1979-2).
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
            // The same; every second byte is the frame's number.
            (0x02, asked) => data.first().is_some_and(|pid| asked.iter().step_by(2).any(|one| one == pid)),
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

/// A unit that an ELM327 may be told to address. Only addresses of diagnosis exist: ISO 15765-4
/// (7E0–7E7; 18DAxxF1), the makers' own in 700–7FF that signal sets name, and the physical
/// header of ISO 14230-2. Answers (7E8–7EF) and the functional 7DF are nobody's request address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct UnitAddress(Place);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Place {
    Can11(u16),
    Can29(u8),
    Kwp(u8),
}

impl UnitAddress {
    /// The unit `address` of [`Target::Unit`] on this bus. `None`: no address of diagnosis there.
    #[must_use]
    pub fn on(protocol: Protocol, address: u32) -> Option<Self> {
        let [_, _, node, _] = address.to_be_bytes();
        Some(Self(match (protocol, address) {
            (Protocol::Can11At500 | Protocol::Can11At250, 0x700..=0x7DE | 0x7E0..=0x7E7 | 0x7F0..=0x7F7) => {
                Place::Can11(u16::try_from(address).ok()?)
            }
            (Protocol::Can29At500 | Protocol::Can29At250, _) if address & 0xFFFF_00FF == 0x18DA_00F1 => {
                Place::Can29(node)
            }
            (Protocol::KwpSlow | Protocol::KwpFast, 0x01..=0xEF) => Place::Kwp(u8::try_from(address).ok()?),
            _ => return None,
        }))
    }

    /// Who answers from there: the sender as lines show it (on CAN by ISO 15765-4: 8 above, or turned round).
    #[must_use]
    pub fn answers_as(self) -> EcuAddress {
        EcuAddress(match self.0 {
            Place::Can11(id) => format!("{:03X}", id + 8),
            Place::Can29(node) => format!("18DAF1{node:02X}"),
            Place::Kwp(node) => format!("{node:02X}"),
        })
    }

    /// What follows `ATSH` (data sheet: the priority of 29 bits is set apart, by `ATCP`).
    fn header(self) -> String {
        match self.0 {
            Place::Can11(id) => format!("{id:03X}"),
            Place::Can29(node) => format!("DA{node:02X}F1"),
            // ISO 14230-2 §4.1: physical addressing; the chip puts the length in.
            Place::Kwp(node) => format!("80{node:02X}F1"),
        }
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
    /// `ATE1`: each character comes back as it was read.
    EchoOn,
    /// `ATL0`: line feeds off.
    LinefeedsOff,
    /// `ATS0`: spaces off.
    SpacesOff,
    /// `ATH1`: headers on.
    HeadersOn,
    /// `ATAT1`: adaptive timing, the default.
    AdaptiveTiming,
    /// `ATAT2`: adaptive timing that waits less.
    AggressiveTiming,
    /// `ATST19`: waits 100 ms (25 steps of 4 ms), twice the 50 ms a unit may take.
    ShortWait,
    /// `ATST32`: waits 200 ms, the default.
    UsualWait,
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
    /// `ATSH…`: requests go to one unit.
    Header(UnitAddress),
    /// `ATSH…`: requests go to all units again, in the bus's own way.
    FunctionalHeader(Protocol),
    /// `ATCP18`: the first byte of 29-bit ids (ISO 15765-4).
    Priority,
    /// `ATCRA…`: only what this unit answers is printed.
    ReceiveOnly(UnitAddress),
    /// `ATAR`: the usual answers are printed again.
    ReceiveUsual,
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
            Self::AdaptiveTiming => "ATAT1",
            Self::AggressiveTiming => "ATAT2",
            Self::ShortWait => "ATST19",
            Self::UsualWait => "ATST32",
            Self::ProtocolAuto => "ATSP0",
            Self::Protocol(protocol) => return format!("ATSP{:X}", protocol.number()),
            Self::ProtocolNumber => "ATDPN",
            Self::ProtocolClose => "ATPC",
            Self::ForgetEvents => "ATFE",
            Self::Identity => "ATI",
            Self::Description => "AT@1",
            Self::StnIdentity => "STDI",
            Self::Voltage => "ATRV",
            Self::Header(unit) => return format!("ATSH{}", unit.header()),
            Self::FunctionalHeader(protocol) => match protocol.header() {
                HeaderForm::Can11 => "ATSH7DF",
                HeaderForm::Can29 => "ATSHDB33F1",
                // ISO 14230-4 §4: functional, all emission-related units; the chip puts the length in.
                HeaderForm::ThreeBytes { .. } => "ATSHC033F1",
            },
            Self::Priority => "ATCP18",
            Self::ReceiveOnly(unit) => return format!("ATCRA{}", unit.answers_as()),
            Self::ReceiveUsual => "ATAR",
        };
        fixed.into()
    }
}

/// Everything that may be written to an ELM327.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outgoing {
    /// Two DELs and CR: answered `?` by an idle adapter, `STOPPED` by a busy
    /// one, and never a repetition of the last command as a lone CR would be.
    Probe,
    /// One DEL and no end of a line: stops what the adapter does, and gives it nothing to do.
    Interrupt,
    /// No command of any adapter, and no request: answered `?`. Makes a line that holds half a
    /// command useless, and takes the place of what a lone CR would repeat.
    Nonsense,
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
            Self::Interrupt => vec![0x7F],
            Self::Nonsense => b"XXXXXXXX\r".to_vec(),
            Self::At(command) => format!("{}\r", command.text()).into_bytes(),
            Self::Obd(request) => format!("{request}\r").into_bytes(),
            Self::ObdCounted(request, lines) => format!("{request}{:X}\r", lines.clamp(1, 15)).into_bytes(),
            Self::Clear(bytes) => format!("{}\r", hex::encode_upper(bytes.payload())).into_bytes(),
        }
    }

    /// The command without CR, to recognise its echo.
    #[must_use]
    pub fn text(self) -> String {
        let wire = self.wire();
        String::from_utf8_lossy(wire.strip_suffix(b"\r").unwrap_or(&wire)).into_owned()
    }

    /// Whether a line that loses characters may make of it a request on which the car acts (a
    /// clearing, a reset, a session …): it is ended only after the adapter has echoed it exactly.
    #[must_use]
    pub fn is_fragile(self) -> bool {
        match self {
            Self::At(_) | Self::Obd(_) | Self::ObdCounted(..) => fragile::is_fragile(&self.text()),
            // No hex digit, or confirmed by a person.
            Self::Probe | Self::Interrupt | Self::Nonsense | Self::Clear(_) => false,
        }
    }

    /// The request to the car, if it is one.
    #[must_use]
    pub fn request(self) -> Option<Request> {
        match self {
            Self::Obd(request) | Self::ObdCounted(request, _) => Some(request),
            Self::Probe | Self::Interrupt | Self::Nonsense | Self::At(_) | Self::Clear(_) => None,
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
    fn a_freeze_frame_has_at_most_three_pids_in_a_question() {
        for count in 0..8 {
            let request = Request::freeze_frame_many(&[0x0C; 8][..count], 0);
            assert_eq!(request.is_some(), (1..=3).contains(&count), "{count}");
        }
        assert_eq!(Request::freeze_frame_many(&[0x0C], 0), Some(Request::freeze_frame(0x0C, 0)));
    }

    #[test]
    fn of_service_08_only_the_masks_can_be_asked_for() {
        for id in 0..=0xFF_u8 {
            for (request, length) in
                [(Request::control_support(id), 1), (Request::control_support_older_bus(id), 6)]
            {
                assert_eq!(
                    request.is_some(),
                    matches!(id, 0 | 0x20 | 0x40 | 0x60 | 0x80 | 0xA0 | 0xC0 | 0xE0)
                );
                let Some(request) = request else { continue };
                assert_eq!((request.service(), request.id()), (0x08, Some(id)));
                assert_eq!(request.parameters().len(), length);
                assert!(request.parameters()[1..].iter().all(|byte| *byte == 0));
                assert!(request.is_answered_by(&[0x48, id, 0, 0, 0, 1]));
            }
            // Text, whatever it says, never becomes a request of this service.
            for more in ["", "00", "0000000000"] {
                assert!(matches!(
                    Request::parse(&format!("08{id:02X}{more}")),
                    Err(Refused::Service { service: 8 })
                ));
            }
        }
        // Source of both forms: SAE J1699-3 test source, format of the service 08 support request.
        assert_eq!(Outgoing::Obd(Request::control_support(0x20).unwrap()).wire(), b"0820\r");
        let older = Request::control_support_older_bus(0).unwrap();
        assert_eq!(Outgoing::Obd(older).wire(), b"08000000000000\r");
    }

    #[test]
    fn wire_form() {
        for (outgoing, bytes) in [
            (Outgoing::Probe, "\x7f\x7f\r"),
            (Outgoing::Interrupt, "\x7f"),
            (Outgoing::Nonsense, "XXXXXXXX\r"),
            (Outgoing::At(AtCommand::Voltage), "ATRV\r"),
            (Outgoing::Obd(Request::freeze_frame(0x0C, 0)), "020C00\r"),
            (Outgoing::Obd(Request::freeze_frame_many(&[0x0C, 0x0D, 0x05], 1).unwrap()), "020C010D010501\r"),
            (Outgoing::Obd(Request::permanent_codes()), "0A\r"),
            (Outgoing::ObdCounted(Request::current(0x0C), 2), "010C2\r"),
        ] {
            assert_eq!(outgoing.wire(), bytes.as_bytes());
        }
    }

    #[test]
    fn only_addresses_of_diagnosis_exist() {
        use Protocol as P;
        for (protocol, address, header, answers) in [
            (P::Can11At500, 0x7E0, "ATSH7E0", "ATCRA7E8"),
            (P::Can11At250, 0x7E7, "ATSH7E7", "ATCRA7EF"),
            (P::Can11At500, 0x710, "ATSH710", "ATCRA718"),
            (P::Can29At500, 0x18DA_10F1, "ATSHDA10F1", "ATCRA18DAF110"),
            (P::KwpFast, 0x10, "ATSH8010F1", "ATCRA10"),
        ] {
            let unit = UnitAddress::on(protocol, address).unwrap();
            assert_eq!(AtCommand::Header(unit).text(), header);
            assert_eq!(AtCommand::ReceiveOnly(unit).text(), answers);
        }
        for (protocol, address) in [
            (P::Can11At500, 0x7DF),
            (P::Can11At500, 0x7E8),
            (P::Can11At500, 0x6FF),
            (P::Can11At500, 0x800),
            (P::Can11At500, 0x18DA_10F1),
            (P::Can29At500, 0x7E0),
            (P::Can29At500, 0x18DB_33F1),
            (P::Can29At500, 0x18DA_10F2),
            (P::Can29At250, 0x0CF0_0400),
            (P::Iso9141, 0x10),
            (P::J1850Vpw, 0x10),
            (P::KwpSlow, 0xF1),
        ] {
            assert_eq!(UnitAddress::on(protocol, address), None, "{address:X}");
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
            (Request::freeze_frame(0x0C, 0), &[0x42, 0x0C, 0x00, 0x0C, 0xB2], true),
            (Request::freeze_frame_many(&[0x0C, 0x0D], 0).unwrap(), &[0x42, 0x0D, 0x00, 0x21], true),
            (Request::freeze_frame_many(&[0x0C, 0x0D], 1).unwrap(), &[0x42, 0x01, 0x01, 0x21], false),
            (Request::data_by_identifier(0xF190), &[0x62, 0xF1, 0x90, 0x4C], true),
            (Request::data_by_identifier(0xF190), &[0x62, 0xF1, 0x8C, 0x4C], false),
            (Request::dtcs_by_status(0xFF), &[0x59, 0x02, 0xFF], true),
        ] {
            assert_eq!(request.is_answered_by(payload), answered, "{request} {payload:02X?}");
        }
    }
}
