//! Payloads of J1979 services to facts: codes, masks, VIN, calibration, readiness.
//! Pure; payloads begin with the answered service (`41`, `43` …). Source: SAE
//! J1979 / ISO 15031-5; which bit is which monitor stands in `firmware-protocols/`.

use std::collections::BTreeMap;

use crate::event::vehicle::{Readiness, VinCheck};
use crate::ident::Vin;
use crate::protocols::{InfoForm, ReadinessTable};

/// A payload is not what its service prescribes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}: {found} byte(s) where {expected} were expected")]
pub struct DecodeError {
    /// What was being read.
    pub what: String,
    /// Bytes found.
    pub found: usize,
    /// Bytes expected at least.
    pub expected: usize,
}

/// A two-byte code as SAE J2012 writes it, e.g. `P0420`.
#[must_use]
pub fn dtc_text(bytes: [u8; 2]) -> String {
    let [high, low] = bytes;
    let system = match high >> 6 {
        0 => 'P',
        1 => 'C',
        2 => 'B',
        _ => 'U',
    };
    format!("{system}{:X}{:X}{low:02X}", high >> 4 & 0x03, high & 0x0F)
}

/// Codes of a 43, 47 or 4A answer. On CAN a count stands before them, elsewhere
/// not; `0000` is padding, never a code.
#[must_use]
pub fn dtcs(payload: &[u8], is_can: bool) -> Vec<String> {
    let codes = match (is_can, payload) {
        (true, [_, count, rest @ ..]) => rest.get(..usize::from(*count) * 2).unwrap_or(rest),
        (false, [_, rest @ ..]) => rest,
        _ => &[],
    };
    codes
        .chunks_exact(2)
        .filter_map(|pair| <[u8; 2]>::try_from(pair).ok())
        .filter(|pair| *pair != [0, 0])
        .map(dtc_text)
        .collect()
}

/// Ids a support mask promises: the 32 after `base`, most significant bit first.
#[must_use]
pub fn supported(base: u8, mask: [u8; 4]) -> Vec<u8> {
    let mask = u32::from_be_bytes(mask);
    (0..32_u8)
        .filter(|bit| mask & (0x8000_0000 >> bit) != 0)
        .filter_map(|bit| base.checked_add(bit + 1))
        .collect()
}

/// The ids a mask answer promises, of any service that has masks: `41`, `42`, `45`, `46`, `48`
/// or `49`, then 00, 20, 40 … `None`: no mask. Between id and mask stand the frame's number (42),
/// on older buses the sensor (45), a filler (46) and the message's number (49); source:
/// ISO 15031-5:2006 and freediag (`do_j1979_getmodeinfo`).
#[must_use]
pub fn support_mask(payload: &[u8], is_can: bool) -> Option<Vec<u8>> {
    let (service, base) = (*payload.first()?, *payload.get(1)?);
    let skip = match (service, is_can) {
        (0x41 | 0x48, _) | (0x46 | 0x49, true) => 2,
        (0x42, _) | (0x45 | 0x46 | 0x49, false) => 3,
        _ => return None,
    };
    let mask = four_bytes(payload, skip)?;
    base.is_multiple_of(0x20).then(|| supported(base, mask))
}

/// The four data bytes of a mask or of PID 01, behind `skip` bytes of service, id (and frame number).
#[must_use]
pub fn four_bytes(payload: &[u8], skip: usize) -> Option<[u8; 4]> {
    payload.get(skip..skip + 4)?.try_into().ok()
}

/// The items of a service 09 answer as one run of bytes. CAN: one message with
/// a count of items; older buses: numbered messages of four bytes.
#[must_use]
pub fn info_bytes(payloads: &[&[u8]], is_can: bool) -> Vec<u8> {
    if is_can {
        return payloads.first().and_then(|payload| payload.get(3..)).unwrap_or_default().to_vec();
    }
    let mut numbered: Vec<(u8, &[u8])> =
        payloads.iter().filter_map(|payload| Some((*payload.get(2)?, payload.get(3..)?))).collect();
    numbered.sort_by_key(|(number, _)| *number);
    numbered.into_iter().flat_map(|(_, data)| data.iter().copied()).collect()
}

/// What a car says its VIN is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VinReading {
    /// It gave none.
    Missing,
    /// It gave something that is no VIN.
    Malformed,
    /// 17 characters of the right set.
    Read(Vin),
}

impl VinReading {
    /// From the items of 09 02 (padding of zero bytes in front or behind is dropped).
    #[must_use]
    pub fn from_info(bytes: &[u8]) -> Self {
        let text: String = bytes.iter().filter(|b| **b != 0).map(|b| char::from(*b)).collect();
        let text = text.trim().to_ascii_uppercase();
        // Unprogrammed controllers give zeros, blanks, FF, or one character over and over
        // ("000…" even has a right check digit): never one car's own number.
        let mut characters = text.chars();
        let first = characters.next();
        if characters.all(|c| Some(c) == first) {
            return Self::Missing;
        }
        Vin::new(text).map_or(Self::Malformed, Self::Read)
    }

    /// For the report.
    #[must_use]
    pub fn check(&self) -> VinCheck {
        match self {
            Self::Missing => VinCheck::Missing,
            Self::Malformed => VinCheck::Malformed,
            Self::Read(vin) => VinCheck::of(vin),
        }
    }

    /// The VIN, if there is one.
    #[must_use]
    pub fn vin(&self) -> Option<&Vin> {
        match self {
            Self::Read(vin) => Some(vin),
            Self::Missing | Self::Malformed => None,
        }
    }
}

/// The items of an info type as texts, by its form. Empty items (a unit that holds
/// nothing) are left out; counters are read by [`super::in_use_ratio`].
#[must_use]
pub fn info_items(form: InfoForm, bytes: &[u8]) -> Vec<String> {
    match form {
        InfoForm::Count => bytes.first().map(ToString::to_string).into_iter().collect(),
        InfoForm::Text(size) => {
            bytes.chunks(size.max(1)).map(printable).filter(|text| !text.is_empty()).collect()
        }
        InfoForm::Hex(size) => bytes.chunks_exact(size.max(1)).map(hex::encode_upper).collect(),
        InfoForm::Counters => Vec::new(),
    }
}

/// Calibration ids of 09 04: 16 characters each.
#[must_use]
pub fn calibration_ids(bytes: &[u8]) -> Vec<String> {
    bytes.chunks(16).map(printable).filter(|id| !id.is_empty()).collect()
}

/// Calibration verification numbers of 09 06: four bytes each, hex.
#[must_use]
pub fn cvns(bytes: &[u8]) -> Vec<String> {
    bytes.chunks_exact(4).map(hex::encode_upper).collect()
}

/// The name of 09 0A: `ECM`, a zero, then `-EngineControl`; the short part is the name.
#[must_use]
pub fn ecu_name(bytes: &[u8]) -> Option<String> {
    let start = bytes.iter().position(|b| *b != 0)?;
    let short = bytes.get(start..)?.split(|b| *b == 0).next()?;
    Some(printable(short).trim_matches('-').to_owned()).filter(|name| !name.is_empty())
}

/// One PID of a stored freeze frame (service 02).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FreezeFrameData<'a> {
    /// The PID; 02 is the code that froze the frame.
    pub pid: u8,
    /// Which frame; 00 is the one every car keeps (SAE J1979 service 02).
    pub frame: u8,
    /// Data bytes behind the frame's number, as in service 01.
    pub data: &'a [u8],
}

impl<'a> FreezeFrameData<'a> {
    /// Reads a payload that begins with 42. `None`: another service, or nothing behind it.
    #[must_use]
    pub fn read(payload: &'a [u8]) -> Option<Self> {
        match payload {
            [0x42, pid, frame, data @ ..] => Some(Self { pid: *pid, frame: *frame, data }),
            _ => None,
        }
    }

    /// The code of PID 02; `None`: another PID, or no frame is stored (`0000`).
    #[must_use]
    pub fn code(&self) -> Option<String> {
        let code: [u8; 2] = self.data.get(..2)?.try_into().ok()?;
        (self.pid == 0x02 && code != [0, 0]).then(|| dtc_text(code))
    }

    /// The mask of PIDs 00, 20, 40 …: which PIDs this frame holds. `None`: not a mask.
    #[must_use]
    pub fn supported(&self) -> Option<Vec<u8>> {
        let mask = four_bytes(self.data, 0)?;
        self.pid.is_multiple_of(0x20).then(|| supported(self.pid, mask))
    }
}

fn printable(bytes: &[u8]) -> String {
    let text: String = bytes.iter().filter(|b| (0x20..0x7F).contains(*b)).map(|b| char::from(*b)).collect();
    text.trim().to_owned()
}

/// PID 41: the monitors in this drive cycle. `unsupported` also means switched off for the
/// rest of this cycle (a cold day switches the evaporative monitor off); the lamp and the
/// count of PID 01 are not repeated here (SAE J1979: byte A is zero).
#[must_use]
pub fn drive_cycle_readiness(data: [u8; 4], table: &ReadinessTable) -> BTreeMap<String, Readiness> {
    MonitorStatus::read(data, table).readiness
}

/// What PID 01 says (data bytes A to D).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MonitorStatus {
    /// A7: lamp on.
    pub mil: bool,
    /// A6–A0: confirmed codes.
    pub dtc_count: u8,
    /// Monitors by name.
    pub readiness: BTreeMap<String, Readiness>,
}

impl MonitorStatus {
    /// Reads the four bytes by the table of monitors.
    #[must_use]
    pub fn read(data: [u8; 4], table: &ReadinessTable) -> Self {
        let bits = u32::from_be_bytes(data);
        let bit = |place: usize| u32::try_from(place).is_ok_and(|n| n < 32 && bits & (0x8000_0000 >> n) != 0);
        // B3: compression ignition.
        let by_ignition = if bit(12) { &table.compression } else { &table.spark };
        let readiness = table
            .continuous
            .iter()
            .chain(by_ignition)
            .map(|row| {
                let state = match (bit(row.supported), bit(row.incomplete)) {
                    (false, _) => Readiness::Unsupported,
                    (true, true) => Readiness::Incomplete,
                    (true, false) => Readiness::Complete,
                };
                (row.name.clone(), state)
            })
            .collect();
        let [a, ..] = data;
        Self { mil: a & 0x80 != 0, dtc_count: a & 0x7F, readiness }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bytes(hex_text: &str) -> Vec<u8> {
        hex::decode(hex_text.replace(' ', "")).unwrap()
    }

    #[test]
    fn codes() {
        for (name, payload, is_can, expected) in [
            // Source: ELM327 data sheet "Interpreting Trouble Codes".
            ("older bus", "43 01 33 00 00 00 00", false, vec!["P0133"]),
            ("CAN, two", "43 02 01 33 D0 16", true, vec!["P0133", "U1016"]),
            ("CAN, none", "43 00", true, vec![]),
            ("CAN, none, padded", "43 00 00 00 00 00", true, vec![]),
            ("CAN, count too high, padded", "43 05 00 00 00 00", true, vec![]),
            ("chassis and body", "47 02 41 23 92 34", true, vec!["C0123", "B1234"]),
            ("half a code", "43 02 01 33 01", true, vec!["P0133"]),
            ("hex digits", "4A 01 0A BC", true, vec!["P0ABC"]),
            ("empty", "43", true, vec![]),
        ] {
            assert_eq!(dtcs(&bytes(payload), is_can), expected, "{name}");
        }
    }

    #[test]
    fn masks() {
        // Source: Wikipedia "OBD-II PIDs", worked example BE1FA813.
        assert_eq!(
            supported(0, [0xBE, 0x1F, 0xA8, 0x13]),
            [
                0x01, 0x03, 0x04, 0x05, 0x06, 0x07, 0x0C, 0x0D, 0x0E, 0x0F, 0x10, 0x11, 0x13, 0x15, 0x1C,
                0x1F, 0x20
            ]
        );
        assert_eq!(supported(0xE0, [0, 0, 0, 1]), [] as [u8; 0]);
    }

    #[test]
    fn vins() {
        // Source: ELM327 data sheet, VIN example on CAN and on older buses.
        let can = bytes("49 02 01 31 44 34 47 50 30 30 52 35 35 42 31 32 33 34 35 36");
        let expected = VinReading::Read(Vin::new("1D4GP00R55B123456").unwrap());
        assert_eq!(VinReading::from_info(&info_bytes(&[&can], true)), expected);
        let lines: Vec<Vec<u8>> = [
            "49 02 01 00 00 00 31",
            "49 02 02 44 34 47 50",
            "49 02 03 30 30 52 35",
            "49 02 05 33 34 35 36",
            "49 02 04 35 42 31 32",
        ]
        .map(bytes)
        .into();
        let lines: Vec<&[u8]> = lines.iter().map(Vec::as_slice).collect();
        assert_eq!(VinReading::from_info(&info_bytes(&lines, false)), expected);
        assert_eq!(VinReading::from_info(&[0; 17]), VinReading::Missing);
        assert_eq!(VinReading::from_info(&[0xFF; 17]), VinReading::Missing);
        assert_eq!(VinReading::from_info(&[b'0'; 17]), VinReading::Missing);
        // Digits at either end belong to the number, padding does not.
        for vin in ["0M8GDM9A1KP042780", "1M8GDM9A1KP042781", "2M8GDM9A1KP042782"] {
            let padded = [&[0, 0, 0], vin.as_bytes(), &[0, 0]].concat();
            assert_eq!(VinReading::from_info(&padded), VinReading::Read(Vin::new(vin).unwrap()));
        }
        assert_eq!(VinReading::from_info(b"1D4GP00R55B12345"), VinReading::Malformed);
        assert_eq!(VinReading::from_info(b"1D4GP00R55B1Z345I"), VinReading::Malformed);
    }

    #[test]
    fn vins_that_begin_or_end_in_0_1_2_are_whole_on_every_bus() {
        // The last digits of the number of items and of a message must not eat those of the VIN.
        for vin in [
            "0000000000000000X",
            "1G1JC5444R7252367",
            "2C3KA43R08H129580",
            "LSVAG2186E2100001",
            "LSVAG2186E2100022",
        ] {
            let can = [&[0x49, 0x02, 0x01], vin.as_bytes()].concat();
            assert_eq!(info_bytes(&[&can], true), vin.as_bytes());
            // Older buses: five numbered messages of four bytes, three zeros first; in any order.
            let padded = [&[0, 0, 0], vin.as_bytes()].concat();
            let mut messages: Vec<Vec<u8>> = padded
                .chunks(4)
                .enumerate()
                .map(|(place, data)| [&[0x49, 0x02, place as u8 + 1], data].concat())
                .collect();
            messages.reverse();
            let messages: Vec<&[u8]> = messages.iter().map(Vec::as_slice).collect();
            let expected = VinReading::Read(Vin::new(vin).unwrap());
            assert_eq!(VinReading::from_info(&info_bytes(&messages, false)), expected, "{vin}");
            assert_eq!(VinReading::from_info(&info_bytes(&[&can], true)), expected, "{vin}");
        }
    }

    #[test]
    fn several_items_on_older_buses() {
        // Two calibration ids are eight messages, two verification numbers two.
        let ids = b"JMB*36761500\0\0\0\0JMB*4787261111\0\0";
        let messages: Vec<Vec<u8>> = ids
            .chunks(4)
            .enumerate()
            .map(|(place, data)| [&[0x49, 0x04, place as u8 + 1], data].concat())
            .collect();
        let messages: Vec<&[u8]> = messages.iter().map(Vec::as_slice).collect();
        assert_eq!(calibration_ids(&info_bytes(&messages, false)), ["JMB*36761500", "JMB*4787261111"]);
        let numbers = [bytes("49 06 02 16 E0 62 BE"), bytes("49 06 01 17 91 BC 82")];
        let numbers: Vec<&[u8]> = numbers.iter().map(Vec::as_slice).collect();
        assert_eq!(cvns(&info_bytes(&numbers, false)), ["1791BC82", "16E062BE"]);
        // More items than one on CAN.
        let can = [&bytes("49 04 02")[..], ids].concat();
        assert_eq!(calibration_ids(&info_bytes(&[&can], true)).len(), 2);
    }

    #[test]
    fn masks_of_every_service_and_bus() {
        for (payload, is_can, ids) in [
            ("41 00 80 00 00 01", true, Some(vec![0x01, 0x20])),
            ("41 20 80 00 00 00", false, Some(vec![0x21])),
            ("42 00 00 40 00 00 00", true, Some(vec![0x02])),
            ("45 00 01 C0 00 00 00", false, Some(vec![0x01, 0x02])),
            ("46 00 C0 00 00 00", true, Some(vec![0x01, 0x02])),
            ("46 00 FF C0 00 00 00", false, Some(vec![0x01, 0x02])),
            ("48 00 00 00 00 00", true, Some(vec![])),
            ("49 00 54 00 00 00", true, Some(vec![0x02, 0x04, 0x06])),
            ("49 00 01 FC 00 00 00", false, Some(vec![1, 2, 3, 4, 5, 6])),
            ("41 0C 1A F8 00 00", true, None),
            ("43 00 00 00 00 00", true, None),
            ("49 00 54", true, None),
        ] {
            assert_eq!(support_mask(&bytes(payload), is_can), ids, "{payload}");
        }
    }

    #[test]
    fn freeze_frames_tell_their_number() {
        // Source: ISO 15031-5:2006, example of service 02 (engine speed 2080 rpm of frame 00).
        let payload = bytes("42 0C 00 20 80");
        let read = FreezeFrameData::read(&payload).unwrap();
        assert_eq!((read.pid, read.frame, read.data, read.code()), (0x0C, 0, &[0x20, 0x80][..], None));
        for (payload, frame, code) in [
            ("42 02 00 01 33", 0, Some("P0133")),
            ("42 02 03 C1 58", 3, Some("U0158")),
            ("42 02 00 00 00", 0, None),
            ("42 02 00 01", 0, None),
        ] {
            let payload = bytes(payload);
            let read = FreezeFrameData::read(&payload).unwrap();
            assert_eq!((read.frame, read.code().as_deref()), (frame, code));
        }
        let mask = bytes("42 00 00 40 00 00 01");
        assert_eq!(FreezeFrameData::read(&mask).unwrap().supported(), Some(vec![0x02, 0x20]));
        assert_eq!(FreezeFrameData::read(&bytes("41 0C 00 20")), None);
        assert_eq!(FreezeFrameData::read(&[0x42, 0x0C]), None);
    }

    #[test]
    fn this_drive_cycle() {
        let table =
            crate::protocols::Bundle::load(std::path::Path::new("firmware-protocols")).unwrap().readiness;
        // Source: ELM327 data sheet bytes of PID 01, read as PID 41: evaporative system not complete.
        let readiness = drive_cycle_readiness([0x00, 0x07, 0x65, 0x04], &table);
        assert_eq!(readiness["evap"], Readiness::Incomplete);
        assert_eq!(readiness["catalyst"], Readiness::Complete);
        assert_eq!(readiness["secondary_air"], Readiness::Unsupported);
        let diesel = drive_cycle_readiness([0x00, 0x1D, 0xEB, 0x42], &table);
        assert_eq!(diesel["misfire"], Readiness::Incomplete);
        assert_eq!(diesel["particulate_filter"], Readiness::Incomplete);
        assert_eq!(diesel["nmhc_catalyst"], Readiness::Complete);
    }

    #[test]
    fn calibration_and_names() {
        // Source: ELM327 data sheet, calibration id and CVN examples; SAE J1979 table of info type 0A.
        let mut two = b"JMB*36761500".to_vec();
        two.resize(16, 0);
        two.extend_from_slice(b"JMB*4787261111\0\0");
        assert_eq!(calibration_ids(&two), ["JMB*36761500", "JMB*4787261111"]);
        assert_eq!(cvns(&bytes("17 91 BC 82 16 E0 62 BE")), ["1791BC82", "16E062BE"]);
        assert_eq!(ecu_name(b"ECM\0-EngineControl\0\0").as_deref(), Some("ECM"));
        assert_eq!(ecu_name(&[0; 20]), None);
    }

    proptest! {
        #![proptest_config(crate::seed::cases(256))]

        #[test]
        fn never_panics(payload in proptest::collection::vec(any::<u8>(), 0..64), can in any::<bool>()) {
            let _ = dtcs(&payload, can);
            let _ = support_mask(&payload, can);
            let _ = FreezeFrameData::read(&payload).map(|read| (read.code(), read.supported()));
            for form in [InfoForm::Count, InfoForm::Text(0), InfoForm::Text(17), InfoForm::Hex(4), InfoForm::Counters] {
                let _ = info_items(form, &payload);
            }
            let _ = VinReading::from_info(&info_bytes(&[&payload], can));
            let _ = (calibration_ids(&payload), cvns(&payload), ecu_name(&payload), four_bytes(&payload, 2));
        }
    }
}
