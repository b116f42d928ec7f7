//! What the rows of the protocol data rest on: a standard and two public works each, or the word that it
//! was one; and a vector.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use baygate::event::vehicle::Readiness;
use baygate::protocols::{Bundle, InfoForm, PidRow, SignalKind};
use baygate::vehicle::verify_vectors;

fn shipped() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("firmware-protocols")
}

/// What a part of a `source` may begin with to count as a work.
const WORKS: [&str; 11] = [
    "Wikipedia OBD-II PIDs",
    "python-OBD",
    "OBDb SAEJ1979",
    "SAE J1699-3 test source",
    "AndrOBD pids.csv",
    "vagtune obd/pids.py",
    "Device-ELM327",
    "telemetry-obd add_commands",
    "pcdf-core",
    "ISO 15031-5:2006",
    "General Motors service 06 descriptions",
];

/// `standard; work; work …`: the different works behind the standard that the row follows. What stands
/// in brackets is about a work, none of its own.
fn works(source: &str) -> BTreeSet<&'static str> {
    let (mut plain, mut depth) = (String::new(), 0);
    for c in source.chars() {
        depth += i32::from(c == '(');
        plain.extend((depth == 0).then_some(c));
        depth -= i32::from(c == ')');
    }
    let followed = plain.split(';').skip(1).filter(|part| !part.contains("not followed"));
    followed.filter_map(|part| WORKS.into_iter().find(|work| part.trim().starts_with(work))).collect()
}

#[test]
fn a_source_is_a_standard_and_its_works() {
    for (source, count) in [
        ("SAE J1979:2002 and later, annex B, PID 04", 0),
        ("SAE J1979:2002 and later, annex B, PID 04; Wikipedia OBD-II PIDs", 1),
        ("SAE J1979; Wikipedia OBD-II PIDs; Wikipedia OBD-II PIDs (length)", 1),
        ("SAE J1979; Wikipedia OBD-II PIDs; range 1310.7 g/s gives 0.02 per bit", 1),
        ("SAE J1979; python-OBD; OBDb SAEJ1979 subtracts 32767 and is not followed", 1),
        ("SAE J1979; python-OBD (a slip; AndrOBD pids.csv too)", 1),
        ("SAE J1979; python-OBD UAS table; OBDb SAEJ1979 (not followed for bit 3)", 2),
    ] {
        assert_eq!(works(source).len(), count, "{source}");
    }
}

/// A row with one work says so, and the README counts them: so nobody takes them for checked.
#[test]
fn every_row_names_the_standard_and_two_works_or_says_that_there_is_one() {
    let bundle = Bundle::load(&shipped()).unwrap();
    let (raw, known): (Vec<&PidRow>, Vec<&PidRow>) = bundle
        .pids
        .iter()
        .partition(|row| matches!(row.signals.as_slice(), [one] if one.kind == SignalKind::Raw));
    for row in &raw {
        let says = row.source.starts_with("SAE J1979") && row.source.contains("no public layout");
        assert!(says && works(&row.source).is_empty(), "{:02X}: {}", row.pid, row.source);
    }
    let pids: Vec<(u8, &str)> = known.iter().map(|row| (row.pid, row.source.as_str())).collect();
    let scalings: Vec<(u8, &str)> =
        bundle.monitor_tests.scalings().map(|row| (row.id, row.source.as_str())).collect();
    let mut counted = Vec::new();
    for rows in [&pids, &scalings] {
        let (mut whole, mut part) = (Vec::new(), Vec::new());
        for (id, source) in rows {
            let works = works(source);
            assert!(source.starts_with("SAE J1979"), "{id:02X}: {source}");
            assert!(!works.is_empty(), "{id:02X}: {source}");
            match (works.len() >= 2, source.contains("one source only")) {
                (true, says) => part.extend(says.then(|| format!("{id:02X}"))),
                (false, says) => {
                    assert!(says, "{id:02X} has one work and does not say so: {source}");
                    whole.push(format!("{id:02X}"));
                }
            }
        }
        counted.push((rows.len(), whole, part));
    }
    let [(pids, pid_one, pid_part), (scalings, scaling_one, scaling_part)] = &counted[..] else { panic!() };
    assert!(scaling_part.is_empty(), "{scaling_part:?}");
    let raw: Vec<String> = raw.iter().map(|row| format!("{:02X}", row.pid)).collect();
    let said = format!(
        "Of {} PIDs {} have no public layout ({}). Of the others {} rest on one work ({}) and {} in part ({}); \
         of {scalings} scalings {} do ({}).",
        pids + raw.len(),
        raw.len(),
        raw.join(", "),
        pid_one.len(),
        pid_one.join(", "),
        pid_part.len(),
        pid_part.join(", "),
        scaling_one.len(),
        scaling_one.join(", "),
    );
    let readme = std::fs::read_to_string(shipped().join("README.md")).unwrap();
    let readme = readme.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(readme.contains(&said), "firmware-protocols/README.md should say: {said}");
}

/// `Oxygen sensor heater, bank 1 sensor 2` and `Secondary air 3` are of the kinds `Oxygen sensor heater` and
/// `Secondary air`.
fn kind(name: &str) -> &str {
    let end = name.find([',', ':', '(']).unwrap_or(name.len());
    name[..end].trim_end_matches(|c: char| c.is_ascii_digit() || c == ' ')
}

#[test]
fn each_kind_of_monitor_and_each_standard_test_has_a_vector() {
    let bundle = Bundle::load(&shipped()).unwrap();
    let tables = &bundle.monitor_tests;
    let shown: Vec<_> = tables.vectors.iter().flat_map(|vector| &vector.tests).collect();
    let on_can = |mid: u8| {
        let on_can = tables.vectors.iter().filter(|vector| vector.service == 6);
        on_can.flat_map(|vector| &vector.tests).any(|test| test.mid == format!("{mid:02X}"))
    };
    let kinds: BTreeSet<&str> = tables.monitors().map(|(_, name)| kind(&name.en)).collect();
    assert_eq!(kinds.len(), 15, "{kinds:?}");
    for wanted in kinds {
        let of_kind = tables.monitors().filter(|(_, name)| kind(&name.en) == wanted);
        assert!(of_kind.map(|(mid, _)| mid).any(on_can), "{wanted}: no monitor of the kind is in a vector");
    }
    for (tid, row) in tables.tests() {
        let services = tables.vectors.iter().filter(|vector| {
            vector
                .tests
                .iter()
                .any(|test| test.tid == format!("{tid:02X}") && test.name.contains(&row.name.en))
        });
        let services: BTreeSet<u8> = services.map(|vector| vector.service).collect();
        assert!(!services.is_empty(), "test {tid:02X}");
        assert!(row.oxygen.is_none() || services.contains(&5), "test {tid:02X} of service 05");
    }
    assert!(shown.iter().any(|test| !test.passed) && shown.iter().any(|test| test.value < 0.0));
    assert_eq!(verify_vectors(&bundle), []);
}

#[test]
fn each_info_type_each_ratio_and_each_readiness_monitor_has_a_vector() {
    let bundle = Bundle::load(&shipped()).unwrap();
    let ratios = &bundle.in_use_ratios;
    for (info, row) in bundle.info_types.iter() {
        let shown = match row.form {
            InfoForm::Counters => ratios.vectors.iter().any(|vector| vector.info == info),
            _ => bundle.info_types.vectors.iter().any(|vector| vector.info == info),
        };
        assert!(shown, "info type {info:02X}");
    }
    for (info, rows) in [(0x08, &ratios.spark), (0x0B, &ratios.compression)] {
        let shown: Vec<_> =
            ratios.vectors.iter().filter(|v| v.info == info).flat_map(|v| &v.ratios).collect();
        for row in rows {
            let bank = row.bank.map(u64::from);
            let same = |ratio: &&serde_json::Value| {
                ratio["monitor"] == row.name.as_str() && ratio["bank"].as_u64() == bank
            };
            assert!(shown.iter().copied().any(|ratio| same(&ratio)), "{info:02X} {} {bank:?}", row.name);
        }
    }
    let readiness = &bundle.readiness;
    for (rows, compression) in [(&readiness.spark, 0), (&readiness.compression, 1)] {
        for row in readiness.continuous.iter().chain(rows) {
            for state in [Readiness::Complete, Readiness::Incomplete] {
                // B3: compression ignition.
                let of_ignition =
                    readiness.vectors.iter().filter(|vector| vector.data[1] >> 3 & 1 == compression);
                let shown = of_ignition.map(|vector| vector.readiness.get(&row.name));
                assert!(shown.into_iter().any(|said| said == Some(&state)), "{} {state:?}", row.name);
            }
        }
    }
}
