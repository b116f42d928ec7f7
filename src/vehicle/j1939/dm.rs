//! Diagnostic messages 1 (active codes) and 2 (previously active): lamps and codes (SAE
//! J1939-73 §5.7.1, §5.7.2). Pure and total.

use crate::event::Text;
use crate::event::vehicle::{DtcEntry, DtcState};
use crate::protocols::Bundle;

/// Parameter group of DM1.
pub const DM1: u32 = 65226;
/// Parameter group of DM2.
pub const DM2: u32 = 65227;

/// What a lamp does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Light {
    /// Off.
    Off,
    /// On.
    On,
    /// Flashes once a second.
    SlowFlash,
    /// Flashes twice a second or faster.
    FastFlash,
    /// The unit has no say in it.
    NotTold,
}

impl Light {
    /// Two bits of state, two of flashing.
    fn from_bits(state: u8, flash: u8) -> Self {
        match (state & 0x03, flash & 0x03) {
            (0, _) => Self::Off,
            (1, 0) => Self::SlowFlash,
            (1, 1) => Self::FastFlash,
            (1, _) => Self::On,
            _ => Self::NotTold,
        }
    }

    /// Whether somebody in the cab sees it.
    #[must_use]
    pub fn is_lit(self) -> bool {
        matches!(self, Self::On | Self::SlowFlash | Self::FastFlash)
    }
}

/// The four lamps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lamps {
    /// Malfunction indicator: emissions.
    pub malfunction: Light,
    /// Red: stop.
    pub stop: Light,
    /// Amber: warning.
    pub warning: Light,
    /// Protect: not electronic.
    pub protect: Light,
}

/// One code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TroubleCode {
    /// Suspect parameter number, 19 bits. Of an old unit ([`Self::old_conversion`]) by method 3.
    pub spn: u32,
    /// Failure mode, 5 bits.
    pub fmi: u8,
    /// How often it occurred; `None`: not counted (127).
    pub occurrences: Option<u8>,
    /// The conversion bit is 1: the unit uses one of three methods of before 1996, and which
    /// is not told. See [`Self::spn_by_old_methods`].
    pub old_conversion: bool,
    raw: [u8; 4],
}

impl TroubleCode {
    /// From its four bytes; `None`: no code (all zero), or a place filled up with ones.
    #[must_use]
    pub fn from_bytes(raw: [u8; 4]) -> Option<Self> {
        let [low, middle, high, count] = raw;
        let spn = u32::from_be_bytes([0, high >> 5, middle, low]);
        let fmi = high & 0x1F;
        let nothing = spn == 0 && fmi == 0 || raw == [0xFF; 4];
        let occurrences = Some(count & 0x7F).filter(|count| *count != 0x7F);
        (!nothing).then_some(Self { spn, fmi, occurrences, old_conversion: count & 0x80 != 0, raw })
    }

    /// The number by conversion methods 1, 2 and 3 (J1939-73 §5.7.1.7–9).
    #[must_use]
    pub fn spn_by_old_methods(self) -> [u32; 3] {
        let [first, second, third, _] = self.raw.map(u32::from);
        let low = third >> 5;
        [first << 11 | second << 3 | low, second << 11 | first << 3 | low, self.spn]
    }

    /// As the report's `code` shows it.
    #[must_use]
    pub fn code(self) -> String {
        format!("SPN{}-{}", self.spn, self.fmi)
    }
}

/// A message as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Codes {
    /// The lamps.
    pub lamps: Lamps,
    /// The codes, in the unit's order.
    pub codes: Vec<TroubleCode>,
}

impl Codes {
    /// Reads the data of DM1 or DM2; `None`: shorter than its lamps.
    #[must_use]
    pub fn read(data: &[u8]) -> Option<Self> {
        let [state, flash, codes @ ..] = data else { return None };
        let lamp = |shift: u8| Light::from_bits(state >> shift, flash >> shift);
        let (codes, _) = codes.as_chunks::<4>();
        Some(Self {
            lamps: Lamps { malfunction: lamp(6), stop: lamp(4), warning: lamp(2), protect: lamp(0) },
            codes: codes.iter().filter_map(|bytes| TroubleCode::from_bytes(*bytes)).collect(),
        })
    }

    /// For the report. Active codes are confirmed; previously active ones stand in no list.
    #[must_use]
    pub fn entries(&self, active: bool, bundle: &Bundle) -> Vec<DtcEntry> {
        let state = || if active { vec![DtcState::Confirmed] } else { Vec::new() };
        let entry = |code: &TroubleCode| DtcEntry {
            code: code.code(),
            state: state(),
            source: "j1939".into(),
            status_raw: None,
            failure_type: None,
            extended_data: None,
            text: Some(text(*code, bundle)),
        };
        self.codes.iter().map(entry).collect()
    }
}

/// The parameter by its number, the failure in words.
fn text(code: TroubleCode, bundle: &Bundle) -> Text {
    let mode = bundle.failure_mode(code.fmi);
    let (zh, en) = mode.map_or(("", ""), |text| (text.zh.as_str(), text.en.as_str()));
    let (doubt_zh, doubt_en) = if code.old_conversion {
        let [one, two, _] = code.spn_by_old_methods();
        (format!("（旧编码，也可能是 {one} 或 {two}）"), format!(" (old numbering: may be {one} or {two})"))
    } else {
        (String::new(), String::new())
    };
    let spn = code.spn;
    Text::new(format!("参数 SPN {spn}{doubt_zh}：{zh}"), format!("Parameter SPN {spn}{doubt_en}: {en}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn messages() {
        // Source: Equipment and Tool Institute j1939-84, DM1ActiveDTCsPacketTest.
        let data = hex::decode("11CD6102130021061F00EE100400").unwrap();
        let read = Codes::read(&data).unwrap();
        let lamps = Lamps {
            malfunction: Light::Off,
            stop: Light::SlowFlash,
            warning: Light::Off,
            protect: Light::FastFlash,
        };
        assert_eq!(read.lamps, lamps);
        assert!(lamps.stop.is_lit() && !lamps.warning.is_lit());
        let codes: Vec<_> = read.codes.iter().map(|c| (c.spn, c.fmi, c.occurrences)).collect();
        assert_eq!(codes, [(609, 19, Some(0)), (1569, 31, Some(0)), (4334, 4, Some(0))]);
        for (name, data, expected) in [
            ("nothing active (J1939-73)", "00FF00000000FFFF", vec![]),
            ("one frame, one code", "04FF6400010AFFFF", vec!["SPN100-1"]),
            ("no codes at all", "00FF", vec![]),
        ] {
            let read = Codes::read(&hex::decode(data).unwrap()).unwrap();
            let codes: Vec<_> = read.codes.iter().map(|c| c.code()).collect();
            assert_eq!(codes, expected, "{name}");
        }
        assert_eq!(Codes::read(&[0x40]), None);
    }

    #[test]
    fn codes_and_conversion_methods() {
        // Sources: j1939-84 DiagnosticTroubleCodeTest; python-can-j1939
        // test_dtc_conversion_methods (SPN 0x12345, FMI 5, OC 3 by each method).
        for (bytes, spn, fmi, count, old) in [
            ([0x61, 0x02, 0x13, 0x81], 609, 19, Some(1), true),
            ([0x21, 0x06, 0x1F, 0x23], 1569, 31, Some(35), false),
            ([0xEE, 0x10, 0x04, 0x00], 4334, 4, Some(0), false),
            ([0xFF, 0xFF, 0xE0, 0x00], 524_287, 0, Some(0), false),
            ([0x45, 0x23, 0x25, 0x03], 0x12345, 5, Some(3), false),
            ([0x64, 0x00, 0x01, 0x7F], 100, 1, None, false),
        ] {
            let code = TroubleCode::from_bytes(bytes).unwrap();
            assert_eq!((code.spn, code.fmi, code.occurrences, code.old_conversion), (spn, fmi, count, old));
        }
        let spn = 0x12345_u32;
        let low = u8::try_from((spn & 0x07) << 5).unwrap() | 5;
        let (high, middle) = (u8::try_from(spn >> 11).unwrap(), u8::try_from(spn >> 3 & 0xFF).unwrap());
        assert_eq!(TroubleCode::from_bytes([high, middle, low, 0x83]).unwrap().spn_by_old_methods()[0], spn);
        assert_eq!(TroubleCode::from_bytes([middle, high, low, 0x83]).unwrap().spn_by_old_methods()[1], spn);
        assert_eq!(TroubleCode::from_bytes([0x45, 0x23, 0x25, 0x83]).unwrap().spn_by_old_methods()[2], spn);
        assert_eq!(TroubleCode::from_bytes([0; 4]), None);
    }

    #[test]
    fn entries_say_number_and_failure() {
        let bundle = Bundle::load(std::path::Path::new("firmware-protocols")).unwrap();
        let read = Codes::read(&hex::decode("04FF6E0003056102138100").unwrap()).unwrap();
        let entries = read.entries(true, &bundle);
        assert_eq!((entries[0].code.as_str(), entries[0].source.as_str()), ("SPN110-3", "j1939"));
        assert_eq!(entries[0].text.as_ref().unwrap().zh, "参数 SPN 110：电压高于正常值，或对高电位短路");
        assert!(entries[1].text.as_ref().unwrap().en.contains("may be"), "{:?}", entries[1].text);
        assert_eq!(read.entries(false, &bundle)[0].state, []);
        assert!((0..=31).all(|fmi| bundle.failure_mode(fmi).is_some()));
    }

    proptest! {
        #![proptest_config(crate::seed::cases(512))]

        #[test]
        fn total(data in prop::collection::vec(any::<u8>(), 0..1800)) {
            if let Some(read) = Codes::read(&data) {
                prop_assert!(read.codes.len() * 4 + 2 <= data.len());
                prop_assert!(read.codes.iter().all(|c| c.spn < 1 << 19 && c.fmi < 32));
            } else {
                prop_assert!(data.len() < 2);
            }
        }

        #[test]
        fn what_is_sent_is_read(spn in 1_u32..1 << 19, fmi in 0_u8..32, count in 0_u8..127) {
            let [_, high, middle, low] = spn.to_be_bytes();
            let code = TroubleCode::from_bytes([low, middle, high << 5 | fmi, count]).unwrap();
            prop_assert_eq!((code.spn, code.fmi, code.occurrences), (spn, fmi, Some(count)));
        }
    }
}
