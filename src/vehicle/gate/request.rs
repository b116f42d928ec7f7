//! What a car may be asked. What lives here: the read-only request as a type, one constructor
//! for each service of the list, and which payload answers it. Of the services that change a car
//! (2E, 2F, 31 …) there is no constructor, and of 08 (control of a system) only for the question
//! which tests a unit has. What does not: requests written as text ([`parse`]), and who may be
//! asked ([`super::unit`]).

mod parse;

use std::fmt;
use std::time::Duration;

use super::{Target, unit};
pub use parse::Refused;

/// Most bytes behind a service: six PIDs (SAE J1979 §7.1, one single frame).
const MOST_PARAMETERS: usize = 6;

/// A read-only request (SAE J1979 / ISO 15031-5, ISO 14229-1, ISO 14230-3). Can only be
/// made for the services of the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Request {
    service: u8,
    parameters: [u8; MOST_PARAMETERS],
    parameter_count: usize,
    target: Target,
    /// In 4 ms; 0: as usual.
    wait_steps: u8,
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
        Self { service, parameters, parameter_count: place, target: Target::Functional, wait_steps: 0 }
    }

    /// The same request to one unit. `None`: the makers' own identifiers are not asked services
    /// below 10 without an address byte. A unit there that has one (ISO 15765-2 §10.3.4) takes our
    /// length for it and the service for a length: `02 01 04` would be one byte, 04, for unit 02.
    /// From 10 on it reads no single frame (§9.6.1, table 9).
    #[must_use]
    pub const fn to(self, target: Target) -> Option<Self> {
        let doubtful = match target {
            Target::Unit(address) => unit::is_makers_own(address),
            Target::Paired(pair) => unit::is_makers_own(pair.request_id()),
            Target::Functional | Target::Extended(_) => false,
        };
        if doubtful && self.service < 0x10 { None } else { Some(Self { target, ..self }) }
    }

    /// Service and parameters, as a bus without an adapter carries them; whoever frames them
    /// (ISO-TP) adds no more than control bytes.
    #[must_use]
    pub fn payload(self) -> Vec<u8> {
        [&[self.service], self.parameters()].concat()
    }

    /// The same request, whose answer is waited for so many steps of 4 ms; 0: as usual (ELM327 data
    /// sheet, `AT ST`). How long one listens changes nothing of what is sent to the car.
    #[must_use]
    pub const fn waiting(self, wait_steps: u8) -> Self {
        Self { wait_steps, ..self }
    }

    /// The steps of [`Self::waiting`], where it was told.
    #[must_use]
    pub fn wait_steps(self) -> Option<u8> {
        Some(self.wait_steps).filter(|steps| *steps > 0)
    }

    /// The same as time.
    #[must_use]
    pub fn wait(self) -> Option<Duration> {
        self.wait_steps().map(|steps| Duration::from_millis(u64::from(steps) * 4))
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
        Some(Self {
            service: 0x01,
            parameters,
            parameter_count: pids.len(),
            target: Target::Functional,
            wait_steps: 0,
        })
    }

    /// Service 22 (ISO 14229-1 §11.2): the record of a data identifier.
    #[must_use]
    pub const fn data_by_identifier(did: u16) -> Self {
        let [high, low] = did.to_be_bytes();
        Self::with(0x22, [high, low])
    }

    /// Service 22 on CAN: up to three identifiers of one OBD family (F4xx and its like, SAE J1979-2)
    /// in one single frame (ISO 14229-1 §11.2: a unit tells those it has). `None`: none, more than
    /// three, or another family.
    #[must_use]
    pub fn obd_identifiers(family: u8, ids: &[u8]) -> Option<Self> {
        let dids: Vec<u8> = ids.iter().flat_map(|id| [family, *id]).collect();
        let mut parameters = [0; MOST_PARAMETERS];
        let room = parameters.get_mut(..dids.len()).filter(|room| !room.is_empty());
        room.filter(|_| matches!(family, 0xF4 | 0xF6))?.copy_from_slice(&dids);
        Some(Self {
            service: 0x22,
            parameters,
            parameter_count: dids.len(),
            target: Target::Functional,
            wait_steps: 0,
        })
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
        Some(Self {
            service: 0x02,
            parameters,
            parameter_count: pairs.len(),
            target: Target::Functional,
            wait_steps: 0,
        })
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

    /// Service 06 on CAN: up to six masks of monitors in one request (SAE J1979 §6.6, as §7.1 of
    /// service 01). `None`: none, more than six, or one that is no mask.
    #[must_use]
    pub fn monitor_masks(bases: &[u8]) -> Option<Self> {
        let masks = bases.iter().all(|base| base.is_multiple_of(0x20));
        let many = Self::current_many(bases).filter(|_| masks)?;
        Some(Self { service: 0x06, ..many })
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
            (0x01 | 0x06, asked) => data.first().is_some_and(|pid| asked.contains(pid)),
            // The same; every second byte is the frame's number.
            (0x02, asked) => data.first().is_some_and(|pid| asked.iter().step_by(2).any(|one| one == pid)),
            // Fewer may come than were asked for.
            (0x22, asked) => asked.as_chunks::<2>().0.iter().any(|did| data.starts_with(did)),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_freeze_frame_has_at_most_three_pids_in_a_question() {
        for count in 0..8 {
            let request = Request::freeze_frame_many(&[0x0C; 8][..count], 0);
            assert_eq!(request.is_some(), (1..=3).contains(&count), "{count}");
        }
        assert_eq!(Request::freeze_frame_many(&[0x0C], 0), Some(Request::freeze_frame(0x0C, 0)));
    }

    #[test]
    fn three_identifiers_of_obd_go_together() {
        for count in 0..8 {
            let request = Request::obd_identifiers(0xF4, &[0x0C; 8][..count]);
            assert_eq!(request.is_some(), (1..=3).contains(&count), "{count}");
        }
        // The VIN is not among them, nor anything of the maker's.
        for family in (0..=0xFF).filter(|family| !matches!(family, 0xF4 | 0xF6)) {
            assert_eq!(Request::obd_identifiers(family, &[0x02]), None, "{family:02X}");
        }
        assert_eq!(Request::obd_identifiers(0xF4, &[0x0C]), Some(Request::data_by_identifier(0xF40C)));
        let three = Request::obd_identifiers(0xF4, &[0x0C, 0x0D, 0x05]).unwrap();
        assert_eq!(three.to_string(), "22F40CF40DF405");
        assert!(three.is_answered_by(&[0x62, 0xF4, 0x0D, 0x00]));
        assert!(!three.is_answered_by(&[0x62, 0xF4, 0x0B, 0x00]) && !three.is_answered_by(&[0x62, 0xF4]));
    }

    #[test]
    fn of_monitors_only_masks_go_together() {
        for count in 0..8 {
            let request = Request::monitor_masks(&[0x20, 0x40, 0x60, 0x80, 0xA0, 0xC0, 0xE0, 0x00][..count]);
            assert_eq!(request.is_some(), (1..=6).contains(&count), "{count}");
        }
        assert_eq!(Request::monitor_masks(&[0x20, 0x21]), None);
        let both = Request::monitor_masks(&[0x20, 0x40]).unwrap();
        assert_eq!(both.to_string(), "062040");
        assert!(both.is_answered_by(&[0x46, 0x40, 0, 0, 0, 1]) && !both.is_answered_by(&[0x46, 0x60]));
    }

    /// What a unit with an address byte reads of the frames that go to one without: the first byte
    /// is its address, the second says what kind of frame it is.
    #[test]
    fn no_read_is_another_request_behind_an_address_byte() {
        let every = (0..=0xFF_u8).flat_map(|id| {
            let more = [Request::current_many(&[0x0C, id]), Request::freeze_frame_many(&[0x0C, id], 0)];
            let one = [
                Request::current(id),
                Request::monitor(id),
                Request::vehicle_info(id),
                Request::freeze_frame(id, 0),
                Request::local_data(id),
                Request::dtcs_by_status(id),
                Request::data_by_identifier(u16::from_be_bytes([id, 0x04])),
                Request::dtc_record(false, [id, 4, 4], id),
                Request::wwh_dtcs(id, 4, 4),
                Request::confirmed_codes(),
                Request::permanent_codes(),
            ];
            one.into_iter().chain(more.into_iter().flatten())
        });
        let mut asked = 0;
        for request in every {
            for address in 0x700..0x800 {
                if let Some(pair) = Target::answering_on(address, 0x7F9) {
                    assert_eq!(request.to(pair).is_some(), request.to(Target::Unit(address)).is_some());
                }
                let Some(request) = request.to(Target::Unit(address)) else {
                    assert!(!(0x7E0..=0x7E7).contains(&address) && request.service() < 0x10, "{request}");
                    continue;
                };
                // ISO 15765-4: no address bytes.
                if (0x7DF..=0x7EF).contains(&address) {
                    continue;
                }
                asked += 1;
                // Kind 0 is a single frame.
                let payload = request.payload();
                assert_ne!(payload[0] >> 4, 0, "{address:X} {request}");
            }
        }
        assert!(asked > 100_000, "{asked}");
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
