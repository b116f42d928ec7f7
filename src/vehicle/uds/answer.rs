//! Answers of services 22 and 19 as facts. Pure and total: payloads begin with the answered
//! service (`62`, `59`); what is cut short gives what came whole, what is another answer is
//! an error that names what was expected. Source: ISO 14229-1:2020 §11.2 and §12.3, SAE J1979-2.

use super::dtc::{Dtc, DtcFormat, Status};
use crate::vehicle::obd::DecodeError;

/// A code as a list tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listed {
    /// The code.
    pub dtc: Dtc,
    /// Its status.
    pub status: Status,
    /// Severity and class, where the list has them (19 42; ISO 14229-1 annex D.3).
    pub severity: Option<u8>,
}

/// A list of codes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DtcList {
    /// Which bits of the status the unit keeps at all.
    pub kept: Status,
    /// How the codes are to be read.
    pub format: DtcFormat,
    /// The codes, in the unit's order.
    pub codes: Vec<Listed>,
}

/// One record stored with a code: what was measured when it was stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Which record.
    pub number: u8,
    /// Identifiers with their data, as far as lengths are known.
    pub values: Vec<(u16, Vec<u8>)>,
    /// What could not be taken apart: begins with an identifier of unknown length.
    pub rest: Vec<u8>,
}

/// One record of extended data (counters of ageing, occurrence …; the maker's own format).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extended {
    /// Which record.
    pub number: u8,
    /// Its bytes.
    pub data: Vec<u8>,
}

/// A code with its records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Detail<R> {
    /// The code.
    pub dtc: Dtc,
    /// Its status.
    pub status: Status,
    /// Its records; none: the unit stored nothing.
    pub records: Vec<R>,
}

/// 62: the record of `did`.
///
/// # Errors
/// [`DecodeError`] when this is not its answer.
pub fn data(payload: &[u8], did: u16) -> Result<&[u8], DecodeError> {
    let [high, low] = did.to_be_bytes();
    payload.strip_prefix(&[0x62, high, low]).ok_or_else(|| wrong(format!("62 {did:04X}"), payload, 3))
}

/// 59 02 and 59 0A: codes by status, codes the unit knows. The format is not told: SAE J2012.
///
/// # Errors
/// [`DecodeError`] when this is neither.
pub fn dtcs(payload: &[u8]) -> Result<DtcList, DecodeError> {
    match payload {
        [0x59, 0x02 | 0x0A, kept, codes @ ..] => {
            Ok(DtcList { kept: Status(*kept), format: DtcFormat::J2012, codes: listed(codes) })
        }
        _ => Err(wrong("59 02 or 59 0A".into(), payload, 3)),
    }
}

/// 59 42: codes of a functional group (33: emissions) by status and severity.
///
/// # Errors
/// [`DecodeError`] when this is another answer or another group's.
pub fn wwh_dtcs(payload: &[u8], group: u8) -> Result<DtcList, DecodeError> {
    match payload {
        [0x59, 0x42, told, kept, _severities, format, codes @ ..] if *told == group => {
            let (codes, _) = codes.as_chunks::<5>();
            let codes = codes.iter().map(|&[severity, a, b, c, status]| Listed {
                dtc: Dtc([a, b, c]),
                status: Status(status),
                severity: Some(severity),
            });
            let codes = codes.filter(|listed| !listed.dtc.is_padding()).collect();
            Ok(DtcList { kept: Status(*kept), format: DtcFormat::from_byte(*format), codes })
        }
        _ => Err(wrong(format!("59 42 {group:02X}"), payload, 6)),
    }
}

/// 59 55: codes with permanent status of a functional group.
///
/// # Errors
/// [`DecodeError`] when this is another answer or another group's.
pub fn wwh_permanent(payload: &[u8], group: u8) -> Result<DtcList, DecodeError> {
    match payload {
        [0x59, 0x55, told, kept, format, codes @ ..] if *told == group => {
            Ok(DtcList { kept: Status(*kept), format: DtcFormat::from_byte(*format), codes: listed(codes) })
        }
        _ => Err(wrong(format!("59 55 {group:02X}"), payload, 5)),
    }
}

/// 59 56: codes of a functional group that belong to a readiness group (a monitor).
///
/// # Errors
/// [`DecodeError`] when this is another answer or another group's.
pub fn by_readiness(payload: &[u8], group: u8, readiness: u8) -> Result<DtcList, DecodeError> {
    match payload {
        [0x59, 0x56, told, kept, format, monitor, codes @ ..] if *told == group && *monitor == readiness => {
            Ok(DtcList { kept: Status(*kept), format: DtcFormat::from_byte(*format), codes: listed(codes) })
        }
        _ => Err(wrong(format!("59 56 {group:02X} … {readiness:02X}"), payload, 6)),
    }
}

/// Whether the monitor behind 19 56 has run since codes were cleared: all its codes' tests
/// have (SAE J1979-2; bit 4 of the status is 0). `None`: it has no codes, so no such monitor.
#[must_use]
pub fn is_ready(list: &DtcList) -> Option<bool> {
    (!list.codes.is_empty()).then(|| list.codes.iter().all(|listed| !listed.status.not_tested_since_clear()))
}

/// 59 04: the snapshots of a code. `length_of` tells how many bytes an identifier's data
/// has: the answer does not, and behind an unknown one nothing can be taken apart.
///
/// # Errors
/// [`DecodeError`] when this is another answer.
pub fn snapshots(
    payload: &[u8],
    length_of: impl Fn(u16) -> Option<usize>,
) -> Result<Detail<Snapshot>, DecodeError> {
    let (dtc, status, mut rest) = detail(payload, 0x04)?;
    let mut records = Vec::new();
    while let [number, count, behind @ ..] = rest {
        let mut snapshot = Snapshot { number: *number, values: Vec::new(), rest: Vec::new() };
        rest = behind;
        for _ in 0..*count {
            let [high, low, data @ ..] = rest else { break };
            let did = u16::from_be_bytes([*high, *low]);
            let Some((value, behind)) = length_of(did).and_then(|length| data.split_at_checked(length))
            else {
                snapshot.rest = rest.to_vec();
                rest = &[];
                break;
            };
            snapshot.values.push((did, value.to_vec()));
            rest = behind;
        }
        // The last frame's padding looks like a record with nothing in it.
        if snapshot.values.is_empty() && snapshot.rest.is_empty() {
            break;
        }
        records.push(snapshot);
    }
    Ok(Detail { dtc, status, records })
}

/// 59 06: extended data, one record asked for at a time (their lengths are the maker's own).
///
/// # Errors
/// [`DecodeError`] when this is another answer.
pub fn extended(payload: &[u8]) -> Result<Detail<Extended>, DecodeError> {
    let (dtc, status, rest) = detail(payload, 0x06)?;
    let record = rest.split_first().map(|(number, data)| Extended { number: *number, data: data.to_vec() });
    Ok(Detail { dtc, status, records: record.into_iter().collect() })
}

fn detail(payload: &[u8], kind: u8) -> Result<(Dtc, Status, &[u8]), DecodeError> {
    match payload {
        [0x59, told, a, b, c, status, rest @ ..] if *told == kind => {
            Ok((Dtc([*a, *b, *c]), Status(*status), rest))
        }
        _ => Err(wrong(format!("59 {kind:02X}"), payload, 6)),
    }
}

/// Code and status, four bytes each; a piece at the end and padding are no code.
fn listed(bytes: &[u8]) -> Vec<Listed> {
    let (codes, _) = bytes.as_chunks::<4>();
    codes
        .iter()
        .map(|&[a, b, c, status]| Listed { dtc: Dtc([a, b, c]), status: Status(status), severity: None })
        .filter(|listed| !listed.dtc.is_padding())
        .collect()
}

fn wrong(what: String, payload: &[u8], expected: usize) -> DecodeError {
    DecodeError { what, found: payload.len(), expected }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bytes(text: &str) -> Vec<u8> {
        hex::decode(text.replace(' ', "")).unwrap()
    }

    fn told(list: &DtcList) -> Vec<String> {
        list.codes.iter().map(|c| format!("{} {:02X}", c.dtc, c.status.0)).collect()
    }

    #[test]
    fn lists() {
        for (source, payload, expected) in [
            (
                // Also in the tests of python-udsoncan.
                "ISO 14229-1, example of 19 02 84",
                "59 02 7F 0A 9B 17 24 08 05 11 2F",
                vec!["P0A9B-17 24", "P0805-11 2F"],
            ),
            (
                "ISO 14229-1, example of 19 0A",
                "59 0A 7F 12 34 56 24 23 45 05 00 AB CD 01 2F",
                vec!["P1234-56 24", "P2345-05 00", "B2BCD-01 2F"],
            ),
            (
                "one code of an ABS unit, with the frame's padding",
                "59 02 FF 40 35 08 09 00 00 00 00",
                vec!["C0035-08 09"],
            ),
            ("none", "59 02 FF", vec![]),
            ("half a code at the end", "59 02 FF 04 20 00 08 01 71", vec!["P0420-00 08"]),
        ] {
            assert_eq!(told(&dtcs(&bytes(payload)).unwrap()), expected, "{source}");
        }
        assert!(dtcs(&bytes("59 01 FF 01 00 02")).is_err());
        assert!(dtcs(&bytes("7F 19 11")).is_err());
    }

    #[test]
    fn wwh_lists() {
        // Source: a public WWH-OBD unit test with a bench capture (19 42 33 0C 1E), and the
        // codec tests of mdabrowski1990/uds for the layout of 59 55.
        let list = wwh_dtcs(&bytes("59 42 33 FF FF 04 02 04 20 00 08 04 24 63 1F 04"), 0x33).unwrap();
        assert_eq!(told(&list), ["P0420-00 08", "P2463-1F 04"]);
        assert_eq!(list.codes.iter().map(|c| c.severity).collect::<Vec<_>>(), [Some(2), Some(4)]);
        let none = wwh_dtcs(&bytes("59 42 33 FF FF 04"), 0x33).unwrap();
        assert_eq!(told(&none), [""; 0]);
        assert!(wwh_dtcs(&bytes("59 42 33 FF FF 04"), 0xD0).is_err(), "another group");
        assert!(wwh_dtcs(&bytes("59 42 33 FF FF"), 0x33).is_err());

        let list = wwh_permanent(&bytes("59 55 33 FF 04 04 20 00 08 01 71 00 08 AA"), 0x33).unwrap();
        assert_eq!(told(&list), ["P0420-00 08", "P0171-00 08"]);
        let truck =
            wwh_permanent(&bytes("59 55 33 AB 02 21 43 65 87 EF CD AB 89 0F 1E 2D 35"), 0x33).unwrap();
        let codes: Vec<String> = truck.codes.iter().map(|c| c.dtc.code_in(truck.format)).collect();
        assert_eq!(codes, ["SPN213793-5", "SPN380399-11", "SPN73231-13"]);

        let list = by_readiness(&bytes("59 56 33 FF 04 01 04 20 00 00 04 30 00 10"), 0x33, 0x01).unwrap();
        assert_eq!(told(&list), ["P0420-00 00", "P0430-00 10"]);
        assert_eq!(is_ready(&list), Some(false));
        assert_eq!(is_ready(&DtcList { codes: Vec::new(), ..list }), None);
        assert!(by_readiness(&bytes("59 56 33 FF 04 02"), 0x33, 0x01).is_err());
    }

    #[test]
    fn records_of_a_code() {
        // Source: ISO 14229-1, examples of 19 04 and 19 06; the first also in python-udsoncan.
        let length_of = |did: u16| (did == 0x4711).then_some(5);
        let detail = snapshots(&bytes("59 04 12 34 56 24 02 01 47 11 A6 66 07 50 20"), length_of).unwrap();
        assert_eq!((detail.dtc.to_string().as_str(), detail.status.0), ("P1234-56", 0x24));
        assert_eq!(
            detail.records,
            [Snapshot { number: 2, values: vec![(0x4711, bytes("A6 66 07 50 20"))], rest: vec![] }]
        );
        // An identifier of unknown length: what follows it stays together.
        let detail =
            snapshots(&bytes("59 04 12 34 56 24 01 02 47 11 A6 66 07 50 20 99 88 01"), length_of).unwrap();
        assert_eq!(detail.records[0].values.len(), 1);
        assert_eq!(detail.records[0].rest, bytes("99 88 01"));
        let none = snapshots(&bytes("59 04 12 34 56 24 00 00 00"), length_of).unwrap();
        assert_eq!(none.records, []);

        let detail = extended(&bytes("59 06 12 34 56 24 05 17")).unwrap();
        assert_eq!(detail.records, [Extended { number: 5, data: vec![0x17] }]);
        assert_eq!(extended(&bytes("59 06 12 34 56 24")).unwrap().records, []);
        assert!(extended(&bytes("59 04 12 34 56 24")).is_err());
    }

    #[test]
    fn identifiers() {
        // Source: ISO 14229-1, example of 22 F190; scapy's UDS tests for the echo of the identifier.
        let vin = bytes("62 F1 90 57 30 4C 30 30 30 30 34 33 4D 42 35 34 31 33 32 36");
        assert_eq!(data(&vin, 0xF190).unwrap(), b"W0L000043MB541326");
        assert!(data(&vin, 0xF18C).is_err());
        assert_eq!(data(&bytes("62 F4 0C 0B ED"), 0xF40C).unwrap(), bytes("0B ED"));
        assert!(data(&[], 0xF190).is_err());
    }

    proptest! {
        #![proptest_config(crate::seed::cases(512))]

        #[test]
        fn total(payload in prop::collection::vec(any::<u8>(), 0..80), head in 0_usize..6, group in any::<u8>()) {
            let heads: [&[u8]; 6] =
                [&[], &[0x59, 0x02], &[0x59, 0x04], &[0x59, 0x06], &[0x59, 0x42, 0x33], &[0x59, 0x55, 0x33]];
            let payload = [heads[head], payload.as_slice()].concat();
            let _ = (data(&payload, 0xF190), extended(&payload));
            for list in [dtcs(&payload), wwh_dtcs(&payload, group), wwh_permanent(&payload, 0x33), by_readiness(&payload, group, 1)] {
                let Ok(list) = list else { continue };
                prop_assert!(list.codes.len() * 4 <= payload.len());
                prop_assert!(list.codes.iter().all(|c| !c.dtc.is_padding()));
            }
            if let Ok(detail) = snapshots(&payload, |did| Some(usize::from(did % 7))) {
                let kept: usize = detail.records.iter().map(|r| r.rest.len() + r.values.iter().map(|(_, v)| v.len() + 2).sum::<usize>()).sum();
                prop_assert!(kept <= payload.len());
            }
        }

        /// What a unit would send is read as it was meant.
        #[test]
        fn lists_come_back(codes in prop::collection::vec((any::<[u8; 3]>(), any::<u8>()), 0..40), kept in any::<u8>()) {
            let codes: Vec<_> = codes.into_iter().filter(|(dtc, _)| !Dtc(*dtc).is_padding()).collect();
            let mut payload = vec![0x59, 0x02, kept];
            for (dtc, status) in &codes {
                payload.extend_from_slice(dtc);
                payload.push(*status);
            }
            let list = dtcs(&payload).unwrap();
            let back: Vec<_> = list.codes.iter().map(|c| (c.dtc.0, c.status.0)).collect();
            prop_assert_eq!(back, codes);
            prop_assert_eq!(list.kept.0, kept);
        }
    }
}
