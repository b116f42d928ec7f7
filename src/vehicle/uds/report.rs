//! What UDS told, as parts of the report: codes with status and failure type, snapshots,
//! identification. Pure; from the answers a scan kept.

use std::collections::BTreeMap;

use super::answer::{self, DtcList};
use super::read::{EMISSIONS, IDENTIFICATION};
use super::{Dtc, DtcFormat, Status};
use crate::event::Text;
use crate::event::vehicle::{DtcEntry, DtcState, FreezeFrame, PidValue, Readiness, SupportedCodes};
use crate::protocols::Bundle;
use crate::vehicle::dtc_words::dtc_words;
use crate::vehicle::pids::{Maxima, decode_pid_within};
use crate::vehicle::protocol::EcuAddress;
use crate::vehicle::report::Told;

/// Bytes of a code's extended data in a report; units have some ten.
const EXTENDED_BYTES: usize = 64;

/// Answers of service 19 that one unit gave.
fn told_by<'a>(told: &'a [Told], ecu: &EcuAddress) -> impl Iterator<Item = &'a [u8]> {
    let ecu = ecu.clone();
    told.iter()
        .filter(move |told| told.ecu == ecu && told.request.service() == 0x19)
        .map(|told| told.payload.as_slice())
}

/// A unit's codes: by status (19 02, 19 42) and permanent (19 55), each once. Only those that
/// say something is wrong: a unit may list every code it knows. `brand`: of the car's maker, whose
/// own codes are worded only for it ([`dtc_words`]).
#[must_use]
pub fn codes(told: &[Told], ecu: &EcuAddress, brand: Option<&str>, bundle: &Bundle) -> Vec<DtcEntry> {
    let mut found: BTreeMap<Dtc, (DtcFormat, Status, bool)> = BTreeMap::new();
    for payload in told_by(told, ecu) {
        let by_status = answer::dtcs(payload).or_else(|_| answer::wwh_dtcs(payload, EMISSIONS));
        let (list, permanent) = match (by_status, answer::wwh_permanent(payload, EMISSIONS)) {
            (Ok(list), _) => (list, false),
            (_, Ok(list)) => (list, true),
            _ => continue,
        };
        let DtcList { format, codes, .. } = list;
        for listed in codes.into_iter().filter(|listed| permanent || listed.status.says_something_is_wrong())
        {
            let entry = found.entry(listed.dtc).or_insert((format, listed.status, false));
            entry.1 = Status(entry.1.0 | listed.status.0);
            entry.2 |= permanent;
        }
    }
    let extended = extended_data(told, ecu);
    found
        .into_iter()
        .map(|(dtc, (format, status, permanent))| {
            let text = dtc_words(bundle, brand, &dtc.code_in(format));
            let extended_data = extended.get(&dtc).cloned();
            DtcEntry { extended_data, ..entry(dtc, format, status, permanent, text) }
        })
        .collect()
}

/// Of each code its extended data records as they came: where one ends and the next begins only
/// the maker knows.
fn extended_data(told: &[Told], ecu: &EcuAddress) -> BTreeMap<Dtc, String> {
    let records = told_by(told, ecu).filter_map(|payload| answer::extended(payload).ok());
    let records = records.filter_map(|detail| {
        let first = detail.records.first()?;
        let bytes = [&[first.number], first.data.as_slice()].concat();
        Some((detail.dtc, hex::encode_upper(bytes.get(..EXTENDED_BYTES).unwrap_or(&bytes))))
    });
    records.collect()
}

/// How many codes a unit could store (19 0A); `None`: it did not say.
#[must_use]
pub fn supported(told: &[Told], ecu: &EcuAddress) -> Option<SupportedCodes> {
    let payload = told_by(told, ecu).find(|payload| payload.get(1) == Some(&0x0A))?;
    let DtcList { kept, codes, .. } = answer::dtcs(payload).ok()?;
    let number = |wanted: &dyn Fn(Status) -> bool| {
        u32::try_from(codes.iter().filter(|listed| wanted(listed.status)).count()).unwrap_or(u32::MAX)
    };
    let kept = |bit: fn(Status) -> bool| bit(kept).then(|| number(&bit));
    Some(SupportedCodes {
        count: number(&|_| true),
        not_tested_since_clear: kept(Status::not_tested_since_clear),
        not_tested_this_cycle: kept(Status::not_tested_this_cycle),
    })
}

/// The readiness groups a J1979-2 unit has (19 56), by number.
#[must_use]
pub fn readiness_groups(told: &[Told], ecu: &EcuAddress) -> BTreeMap<String, Readiness> {
    let groups = told_by(told, ecu).filter_map(|payload| {
        let group = *payload.get(5)?;
        let ready = answer::is_ready(&answer::by_readiness(payload, EMISSIONS, group).ok()?)?;
        Some((format!("{group:02X}"), if ready { Readiness::Complete } else { Readiness::Incomplete }))
    });
    groups.collect()
}

/// Codes that J1979 told with those that UDS told of the same unit. A code of both stands once, as
/// J1979's: in the lists of either, with the status of UDS, and how it failed where that is one way.
#[must_use]
pub fn join(mut obd: Vec<DtcEntry>, uds: Vec<DtcEntry>) -> Vec<DtcEntry> {
    let mut only_uds = Vec::new();
    for entry in uds {
        let Some(same) = obd.iter_mut().find(|known| known.code == entry.code) else {
            only_uds.push(entry);
            continue;
        };
        same.state.extend(entry.state);
        same.state.sort_unstable();
        same.state.dedup();
        let one_way = same.status_raw.is_none();
        same.failure_type = entry.failure_type.filter(|_| one_way);
        same.extended_data = entry.extended_data.filter(|_| one_way);
        same.status_raw = Some(same.status_raw.unwrap_or(0) | entry.status_raw.unwrap_or(0));
    }
    obd.extend(only_uds);
    obd
}

fn entry(dtc: Dtc, format: DtcFormat, status: Status, permanent: bool, text: Option<Text>) -> DtcEntry {
    let mut state = status.states();
    state.extend(permanent.then_some(DtcState::Permanent));
    DtcEntry {
        text,
        state,
        source: "uds".into(),
        status_raw: Some(status.0),
        failure_type: dtc
            .failure_type()
            .filter(|_| format == DtcFormat::J2012)
            .map(|kind| format!("{kind:02X}")),
        extended_data: None,
        code: dtc.code_in(format),
    }
}

/// What was measured when a unit stored its codes: of each snapshot what J1979 knows (F4xx).
/// The maker's own identifiers cannot be read without his table and are left out. `maxima`: what the
/// unit gave.
#[must_use]
pub fn snapshots(told: &[Told], ecu: &EcuAddress, maxima: &Maxima, bundle: &Bundle) -> Vec<FreezeFrame> {
    let row = |did: u16| match did.to_be_bytes() {
        [0xF4, pid] => bundle.pids.get(0x02, pid),
        _ => None,
    };
    let mut frames = Vec::new();
    for payload in told_by(told, ecu) {
        let Ok(detail) = answer::snapshots(payload, |did| row(did)?.bytes) else { continue };
        for record in detail.records {
            let decoded = record.values.iter().filter_map(|(did, data)| {
                let row = row(*did).filter(|row| !row.is_told_elsewhere())?;
                decode_pid_within(row, data, maxima).ok()
            });
            let values: Vec<PidValue> = decoded
                .flatten()
                .map(|value| PidValue {
                    pid: format!("02{}", value.pid.get(2..).unwrap_or_default()),
                    ..value
                })
                .collect();
            if !values.is_empty() {
                frames.push(FreezeFrame { code: detail.dtc.code(), values });
            }
        }
    }
    frames
}

/// Part and version numbers by name (`part_number`, `software_version` …), as text where they
/// are text, else as hex.
#[must_use]
pub fn identification(told: &[Told], ecu: &EcuAddress) -> BTreeMap<String, String> {
    let of_unit = told.iter().filter(|told| told.ecu == *ecu && told.request.service() == 0x22);
    of_unit
        .filter_map(|told| {
            let (did, name) =
                IDENTIFICATION.iter().find(|(did, _)| answer::data(&told.payload, *did).is_ok())?;
            Some(((*name).to_owned(), text(answer::data(&told.payload, *did).ok()?)?))
        })
        .collect()
}

fn text(data: &[u8]) -> Option<String> {
    let filled = |byte: &u8| matches!(byte, 0x00 | 0xFF | b' ');
    let begin = data.iter().position(|byte| !filled(byte))?;
    let end = data.iter().rposition(|byte| !filled(byte))?;
    let data = data.get(begin..=end)?;
    let printable = data.iter().all(|byte| (0x20..0x7F).contains(byte));
    Some(if printable {
        data.iter().map(|byte| char::from(*byte)).collect()
    } else {
        hex::encode_upper(data)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vehicle::gate::Request;

    fn told(request: &str, payload: &str) -> Told {
        Told {
            request: Request::parse(request).unwrap(),
            ecu: EcuAddress("7E8".into()),
            payload: hex::decode(payload.replace(' ', "")).unwrap(),
        }
    }

    #[test]
    fn a_units_parts_of_the_report() {
        let bundle = Bundle::load(std::path::Path::new("firmware-protocols")).unwrap();
        let ecu = EcuAddress("7E8".into());
        let told = [
            told("19020D", "59 02 FF 04 20 00 AF 01 71 17 27 03 00 00 50"),
            told("1942330D1E", "59 42 33 FF FF 04 02 04 20 00 08"),
            told("195533", "59 55 33 FF 04 04 20 00 08 04 30 00 08"),
            told("1904042000FF", "59 04 04 20 00 AF 01 04 F4 0C 25 80 F4 0D 40 F4 0B 65 12 34 07"),
            told("1906042000FF", "59 06 04 20 00 AF 01 03 02 11"),
            told("1906017117FF", "59 06 01 71 17 27"),
            told("190A", "59 0A DF 04 20 00 AF 01 71 17 27 03 00 00 50 03 01 00 40"),
            told("19563301", "59 56 33 FF 04 01 04 20 00 00 04 30 00 10"),
            told("19563302", "59 56 33 FF 04 02 01 71 00 20"),
            told("19563303", "59 56 33 FF 04 03"),
            told("22F187", "62 F1 87 33 37 38 30 35 2D 35 41 41 00 00"),
            told("22F191", "62 F1 91 01 02"),
            told("22F195", "62 F1 95 FF FF"),
        ];
        use DtcState::{Confirmed, Pending, Permanent};
        let codes = codes(&told, &ecu, None, &bundle);
        let listed: Vec<_> = codes
            .iter()
            .map(|c| (c.code.as_str(), c.failure_type.as_deref(), c.state.clone(), c.status_raw))
            .collect();
        assert_eq!(
            listed,
            [
                ("P0171", Some("17"), vec![Pending], Some(0x27)),
                ("P0420", None, vec![Confirmed, Pending, Permanent], Some(0xAF)),
                ("P0430", None, vec![Confirmed, Permanent], Some(0x08)),
            ]
        );
        assert!(codes.iter().all(|code| code.source == "uds"));
        let extended: Vec<_> = codes.iter().map(|c| c.extended_data.as_deref()).collect();
        assert_eq!(extended, [None, Some("01030211"), None], "a record without anything in it is none");
        let supported = supported(&told, &ecu).unwrap();
        // Bit 5 is not kept, bits 4 and 6 are.
        assert_eq!(
            supported,
            SupportedCodes { count: 4, not_tested_since_clear: Some(1), not_tested_this_cycle: Some(2) }
        );
        use Readiness::{Complete, Incomplete};
        let groups: Vec<_> = readiness_groups(&told, &ecu).into_iter().collect();
        assert_eq!(groups, [("01".into(), Incomplete), ("02".into(), Complete)], "03 has no codes");
        let given = PidValue {
            pid: "014F".into(),
            name: "max_intake_manifold_pressure".into(),
            value: 400.into(),
            unit: "kPa".into(),
        };
        let frames = snapshots(&told, &ecu, &Maxima::of(&[given]), &bundle);
        assert_eq!((frames.len(), frames[0].code.as_str()), (1, "P0420"));
        let values: Vec<_> = frames[0].values.iter().map(|v| (v.pid.as_str(), v.value.as_f64())).collect();
        let scaled = ("020B", Some(158.431_373)); // 101 of 400 kPa, where 255 is usual
        assert_eq!(values, [("020C", Some(2400.0)), ("020D", Some(64.0)), scaled]);
        let identification = identification(&told, &ecu);
        assert_eq!(identification["part_number"], "37805-5AA");
        assert_eq!(identification["hardware_number"], "0102");
        assert!(!identification.contains_key("supplier_software_version"), "nothing programmed");
        let other = EcuAddress("7E9".into());
        assert!(super::codes(&told, &other, None, &bundle).is_empty());
        assert_eq!(super::supported(&told, &other), None);
        let keeps_little = [tests::told("190A", "59 0A 0F 04 20 00 0F")];
        let known = super::supported(&keeps_little, &ecu).unwrap();
        assert_eq!(known, SupportedCodes { count: 1, ..SupportedCodes::default() }, "absent, never zero");
    }

    #[test]
    fn a_code_that_both_told_stands_once() {
        use DtcState::{Confirmed, Pending, Permanent};
        let code = |code: &str, state: &[DtcState], status: Option<u8>, kind: Option<&str>| DtcEntry {
            code: code.into(),
            state: state.to_vec(),
            source: if status.is_some() { "uds" } else { "obd" }.into(),
            status_raw: status,
            failure_type: kind.map(str::to_owned),
            extended_data: kind.map(|kind| format!("01{kind}")),
            text: None,
        };
        let joined = join(
            vec![
                code("P0171", &[Permanent], None, None),
                code("P0301", &[Pending], None, None),
                code("P0420", &[Confirmed, Permanent], None, None),
            ],
            vec![
                code("P0301", &[Confirmed], Some(0x08), Some("11")),
                code("P0301", &[Pending], Some(0x24), Some("17")),
                code("P0420", &[Confirmed, Pending], Some(0xAF), Some("11")),
                code("B1234", &[Confirmed], Some(0x08), Some("13")),
                code("B1234", &[Pending], Some(0x04), Some("14")),
            ],
        );
        let mut expected = vec![
            code("P0171", &[Permanent], None, None),
            DtcEntry { source: "obd".into(), ..code("P0301", &[Confirmed, Pending], Some(0x2C), None) },
            DtcEntry {
                source: "obd".into(),
                ..code("P0420", &[Confirmed, Pending, Permanent], Some(0xAF), Some("11"))
            },
        ];
        // What only UDS tells stands as it told it, each way of failing by itself.
        expected.push(code("B1234", &[Confirmed], Some(0x08), Some("13")));
        expected.push(code("B1234", &[Pending], Some(0x04), Some("14")));
        assert_eq!(joined, expected);
    }

    #[test]
    fn a_makers_own_code_has_his_words_on_his_cars_only() {
        let bundle = Bundle::load(std::path::Path::new("firmware-protocols")).unwrap();
        let told = [told("19020D", "59 02 FF 12 53 00 08")];
        for (brand, zh) in [
            (Some("honda"), "VTEC System Circuit Fault（按本田清单）"),
            (Some("byd"), "未收录的厂家自定义码"),
            (None, "厂家自定义码，品牌未知（清单中有此码的：福特、本田、大众）"),
        ] {
            let codes = codes(&told, &EcuAddress("7E8".into()), brand, &bundle);
            assert_eq!((codes.len(), codes[0].code.as_str()), (1, "P1253"));
            assert_eq!(codes[0].text.as_ref().map(|text| text.zh.as_str()), Some(zh));
        }
    }
}
