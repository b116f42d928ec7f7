//! The shipped protocol data loads; a bad file says where and what to do.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

use baygate::protocols::{Bundle, PidRow, SignalKind, SignalRow, Use, Vector, VectorValue};

fn shipped() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("firmware-protocols")
}

/// A decoder of the table's rules that shares nothing with the one in `vehicle`.
fn decode(row: &PidRow, signal: &SignalRow, vector: &Vector) -> Option<VectorValue> {
    let data = &vector.data;
    let bit = |n: usize| u64::from(data[n / 8] >> (7 - n % 8) & 1);
    if signal.when_bit.is_some_and(|n| bit(n) == 0) || signal.unless_bit.is_some_and(|n| bit(n) == 1) {
        return None;
    }
    if signal.kind == SignalKind::Raw {
        return Some(VectorValue::Text(data.iter().map(|byte| format!("{byte:02X}")).collect()));
    }
    let bytes = row.bytes.unwrap();
    assert!(data.len() == bytes || data.len() == bytes + row.more_bytes);
    // The longer form has it, the shorter one not.
    if signal.bit_offset + signal.bit_length > data.len() * 8 {
        return None;
    }
    let raw = (0..signal.bit_length).fold(0u64, |raw, n| raw << 1 | bit(signal.bit_offset + n));
    if signal.no_value == Some(raw) {
        return None;
    }
    let given = signal.maximum.as_ref().and_then(|m| Some(vector.maxima.get(&m.name)? / m.usual));
    match &signal.kind {
        SignalKind::Number { factor, offset } => {
            let negative = signal.signed && raw >> (signal.bit_length - 1) == 1;
            let number = raw as f64 - if negative { (1u64 << signal.bit_length) as f64 } else { 0.0 };
            Some(VectorValue::Number((number * factor + offset) * given.unwrap_or(1.0)))
        }
        SignalKind::Map(texts) => texts.get(&raw).cloned().map(VectorValue::Text),
        SignalKind::Bits(texts) => {
            let set = texts.iter().rev().filter(|(n, _)| raw >> (signal.bit_length - 1 - **n) & 1 == 1);
            Some(VectorValue::Text(set.map(|(_, text)| text.as_str()).collect::<Vec<_>>().join(" ")))
        }
        SignalKind::Pids(first) => {
            let set = (0..32_u8).filter(|n| raw >> (31 - n) & 1 == 1).map(|n| format!("{:02X}", first + n));
            Some(VectorValue::Text(set.collect::<Vec<_>>().join(" ")))
        }
        SignalKind::Code => {
            let digits = format!("{:04X}", raw & 0x3FFF);
            (raw != 0)
                .then(|| VectorValue::Text(format!("{}{digits}", ["P", "C", "B", "U"][(raw >> 14) as usize])))
        }
        SignalKind::Raw => unreachable!("decoded above"),
    }
}

#[test]
fn every_vector_decodes_to_what_it_says_and_to_nothing_more() {
    let bundle = Bundle::load(&shipped()).unwrap();
    assert!(bundle.pids.len() >= 199, "{}", bundle.pids.len());
    for row in bundle.pids.iter() {
        for vector in &row.vectors {
            let mut got = BTreeMap::new();
            for signal in &row.signals {
                // One name with several scalings: the first that is there.
                if let Some(value) = decode(row, signal, vector) {
                    got.entry(signal.name.clone()).or_insert(value);
                }
            }
            let names: Vec<_> = got.keys().collect();
            assert_eq!(
                names,
                vector.values.keys().collect::<Vec<_>>(),
                "{:02X} {:02X?}",
                row.pid,
                vector.data
            );
            for (name, expected) in &vector.values {
                let same = match (&got[name], expected) {
                    (VectorValue::Number(a), VectorValue::Number(b)) => (a - b).abs() < 2e-6,
                    (got, expected) => got == expected,
                };
                assert!(same, "{:02X} {name}: {:?} instead of {expected:?}", row.pid, got[name]);
            }
        }
    }
}

/// A value behind a support bit, of two signs, of two lengths: each shown both ways by a vector.
#[test]
fn vectors_show_both_sides_of_every_condition() {
    let bundle = Bundle::load(&shipped()).unwrap();
    for row in bundle.pids.iter() {
        let what = format!("PID {:02X}", row.pid);
        let with_bit = |n: usize, value: u8| {
            row.vectors
                .iter()
                .any(|vector| vector.data.get(n / 8).is_some_and(|byte| byte >> (7 - n % 8) & 1 == value))
        };
        for signal in &row.signals {
            for bit in [signal.when_bit, signal.unless_bit].into_iter().flatten() {
                assert!(with_bit(bit, 0) && with_bit(bit, 1), "{what}: {}", signal.name);
            }
            if signal.signed {
                assert!(
                    with_bit(signal.bit_offset, 0) && with_bit(signal.bit_offset, 1),
                    "{what}: {}",
                    signal.name
                );
            }
            assert!(
                row.vectors.iter().any(|vector| vector.values.contains_key(&signal.name)),
                "{what}: no vector shows {}",
                signal.name
            );
        }
        for length in [row.bytes, row.longest()].into_iter().flatten() {
            assert!(row.vectors.iter().any(|vector| vector.data.len() == length), "{what}: {length} bytes");
        }
    }
}

#[test]
fn the_bundle_loads_fast_enough_to_start_with() {
    let started = Instant::now();
    Bundle::load(&shipped()).unwrap();
    // The start of the daemon has 200 ms in all, in a build with optimisation; this one has none.
    println!("bundle loaded in {:?}", started.elapsed());
}

#[test]
fn every_pid_up_to_c4_is_there_and_freeze_frames_find_them() {
    let bundle = Bundle::load(&shipped()).unwrap();
    for pid in 0x00..=0xC4 {
        let row = bundle.pids.get(1, pid).unwrap_or_else(|| panic!("{pid:02X}"));
        let is_raw = row.signals.iter().any(|signal| signal.kind == SignalKind::Raw);
        // What no public work describes has a name, its bytes, and no formula beside them.
        let not_described = matches!(pid, 0xB0 | 0xB1 | 0xB3..=0xBF | 0xC1..=0xC4);
        assert_eq!((is_raw, row.bytes.is_none()), (not_described, not_described), "{pid:02X}");
        assert_eq!(bundle.pids.shown(1, pid).is_none(), pid == 0x02 || pid.is_multiple_of(0x20), "{pid:02X}");
    }
    assert_eq!(bundle.pids.get(2, 0x0C), bundle.pids.get(1, 0x0C));
    assert!(bundle.pids.get(9, 0x02).is_none());
    assert_eq!(bundle.version().len(), 64);
}

#[test]
fn the_longest_adapter_pattern_wins() {
    let bundle = Bundle::load(&shipped()).unwrap();
    for (identity, id) in [
        ("ELM327 v1.5", "elm327-v1.5"),
        ("ELM327 v2.1", "elm327-v2.1"),
        ("ELM327 v1.3a", "elm327-v1.3"),
        ("STN2120 v5.6.2", "stn"),
        ("elm327 v2.2", "elm327"),
        ("STN1110 v4.0.1", "stn"),
    ] {
        assert_eq!(bundle.adapter(identity).unwrap().id, id, "{identity}");
    }
    assert!(bundle.adapter("MODEM 56k").is_none());
    let clone = bundle.adapter("ELM327 v2.1").unwrap();
    assert!(clone.skips("at @1") && !clone.skips("ATZ") && clone.multi_pid == Use::Never);
}

#[test]
fn every_text_is_there_in_both_languages() {
    let bundle = Bundle::load(&shipped()).unwrap();
    let readiness = &bundle.readiness;
    let monitors = readiness.continuous.iter().chain(&readiness.spark).chain(&readiness.compression);
    let ratios = bundle.in_use_ratios.spark.iter().chain(&bundle.in_use_ratios.compression);
    let texts = bundle
        .pids
        .iter()
        .map(|row| &row.name)
        .chain(monitors.map(|row| &row.text))
        .chain(bundle.monitor_tests.names())
        .chain(ratios.map(|row| &row.text))
        .chain(bundle.info_types.iter().map(|(_, row)| &row.name));
    for text in texts.chain(bundle.adapters.iter().map(|profile| &profile.note)) {
        assert!(!text.zh.trim().is_empty() && !text.en.trim().is_empty(), "{text:?}");
    }
}

fn copy(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            std::fs::create_dir(&to).unwrap();
            copy(&entry.path(), &to);
        } else {
            std::fs::copy(entry.path(), to).unwrap();
        }
    }
}

/// Copies the shipped bundle and replaces one text of one file.
fn broken(file: &str, from: &str, to: &str) -> Vec<String> {
    let dir = tempfile::tempdir().unwrap();
    copy(&shipped(), dir.path());
    let path = dir.path().join(file);
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.contains(from), "{from}");
    std::fs::write(&path, text.replacen(from, to, 1)).unwrap();
    let Err(errors) = Bundle::load(dir.path()) else { panic!("{file}: {from} -> {to} was accepted") };
    let prefix = format!("{}/", dir.path().display());
    errors.iter().map(|error| error.to_string().replace(&prefix, "")).collect()
}

#[test]
fn a_bad_file_says_where_and_what_to_do() {
    let pids = "obd/pids.toml";
    for (file, from, to, place, hint) in [
        (
            pids,
            "pid = \"01\"",
            "pid = \"0101\"",
            "obd/pids.toml:8:7: pid \"0101\" is not a PID",
            "two hex digits",
        ),
        (pids, "pid = \"03\"", "pid = \"01\"", "PID 01 stands twice", "keep one row"),
        (pids, "bit_length = 7 }", "bit_length = 70 }", "lies outside the 32 bits", "bit_offset"),
        (pids, "map = { 0 = \"off\"", "map = { x = \"off\"", "does not say one thing", "factor/offset"),
        (pids, "data = \"8207E500\"", "data = \"8207E5\"", "is not 4 bytes of hex", "data bytes after"),
        (pids, "values = { mil =", "values = { mill =", "\"mill\" is not a signal", "names of `signals`"),
        (pids, "factor = \"100/255\"", "factor = \"100/\"", "a fraction like", ""),
        (pids, "bytes = 4", "byte = 4", "unknown field `byte`", "did you mean `bytes`?"),
        (pids, "[[pid]]", "[[pid", "obd/pids.toml:7:", ""),
        ("obd/dtc/p0.toml", "P0299 =", "X0299 =", "\"X0299\" is not a generic trouble code", "P34 to P39"),
        ("obd/dtc/p0.toml", "P0299 =", "P1299 =", "\"P1299\" is not a generic trouble code", "obd/makers/"),
        ("obd/dtc/p2.toml", "P200E =", "P0118 =", "P0118 has two texts", "leave one"),
        (
            "obd/dtc/p2.toml",
            "catalyst@b1 hot",
            "catalist@b1 hot",
            "P200E: there is no component \"catalist\"",
            "",
        ),
        (
            "obd/dtc/p2.toml",
            "catalyst@b1 hot",
            "catalyst@b1 hott",
            "there is no condition \"hott\"",
            "terms.toml",
        ),
        ("obd/dtc/p2.toml", "catalyst@b1 hot", "catalyst@b9 hot", "\"b9\" is no place", "COMPONENT[@PLACE"),
        (
            "obd/dtc/terms.toml",
            "hot = { zh = \"温度过高\"",
            "hot = { zh = \" \"",
            "hot lacks a text",
            "zh and en",
        ),
        (
            "obd/makers/honda.toml",
            "\"acura\"",
            "\"accura\"",
            "there is no brand \"accura\"",
            "vin/makers.toml",
        ),
        ("obd/makers/honda.toml", "P1259 =", "VTEC =", "\"VTEC\" is not a trouble code", "e.g. P1259"),
        (
            "obd/makers/toyota.toml",
            "[\"toyota\", \"lexus\"]",
            "[\"toyota\", \"honda\"]",
            "honda has two texts for P1128",
            "leave one",
        ),
        (
            "obd/makers/dtc-database-kia.toml",
            "P1123 = \"Long",
            "P1123 = \"\\tLong",
            "P1123 has a tab or a second line",
            "one line",
        ),
        (
            "obd/makers/dtc-database-kia.toml",
            "\"MIT, Copyright (c) 2024 Wal33D (Waleed Judah)\"",
            "\" \"",
            "licence is empty",
            "leave the line out",
        ),
        ("vin/makers.toml", "\"LFV\"", "\"LFO\"", "\"LFO\" is no manufacturer identifier", "e.g. LFV"),
        ("vin/makers.toml", "\"LFV\"", "\"LSV\"", "LSV stands twice", "leave one"),
        ("vin/makers.toml", "brand = \"byd\"", "brand = \"bvd\"", "there is no brand \"bvd\"", "[brands]"),
        ("vin/regions.toml", "\"JA-J0\"", "\"JA-K0\"", "is no range", "\"LA-L0\""),
        ("vin/regions.toml", "\"KL-KR\"", "\"JL-JR\"", "JL belongs to JP and to KR", "correct one"),
        (
            pids,
            "pid = \"03\"",
            "pid = \"9D\"",
            "PID 9D does not belong into obd/pids.toml",
            "pids.toml ends at 60",
        ),
        (pids, "more_bytes = 1", "more_bytes = 2", "is not 1 or 3 bytes of hex", "data bytes after"),
        (
            pids,
            "usual = 255",
            "usual = -255",
            "maximum of \"intake_manifold_pressure\" is not above zero",
            "full scale",
        ),
        (
            "obd/pids-61-8F.toml",
            "when_bit = 3 },\n  { name = \"egr_temperature_12\"",
            "when_bit = 7 },\n  { name = \"egr_temperature_12\"",
            "signal \"egr_temperature_11\" stands twice",
            "its own `when_bit`",
        ),
        (
            "obd/pids-90-FF.toml",
            "when_bit = 7, unless_bit = 3, no_value = 65535 },\n  { name = \"nox_14\"",
            "when_bit = 7, unless_bit = 72, no_value = 65535 },\n  { name = \"nox_14\"",
            "signal \"nox_13\" lies outside the 72 bits of its PID",
            "when_bit and unless_bit",
        ),
        (
            "obd/monitor-tests.toml",
            "mid = \"01\"",
            "mid = \"20\"",
            "monitor id \"20\" is not an id",
            "support masks",
        ),
        (
            "obd/monitor-tests.toml",
            "mid = \"02\"",
            "mid = \"01\"",
            "monitor id \"01\" stands twice",
            "one row an id",
        ),
        (
            "obd/monitor-tests.toml",
            "tid = \"01\"",
            "tid = \"1\"",
            "test id \"1\" is not an id",
            "two hex digits",
        ),
        ("obd/monitor-tests.toml", "data = \"0101", "data = \"x101", "is not hex", "behind the 46"),
        (
            "obd/monitor-tests.toml",
            "service = \"05\"",
            "service = \"04\"",
            "neither 05 nor 06",
            "behind the 45",
        ),
        ("obd/readiness.toml", "data = \"8107", "data = \"81", "is not four bytes of hex", "81076504"),
        ("obd/units-and-scaling.toml", "raw = \"1234\"", "raw = \"12\"", "is not two bytes of hex", "0BB0"),
        ("obd/units-and-scaling.toml", "id = \"02\"", "id = \"01\"", "scaling id \"01\" stands twice", ""),
        ("obd/in-use-ratios.toml", "info = \"08\"", "info = \"09\"", "cannot be read", "\"08\" or \"0B\""),
        ("obd/info-types.toml", "info = \"02\"", "info = \"01\"", "no id of its own", "two hex digits once"),
        ("j1939/failure-modes.toml", "31 =", "32 =", "\"32\" is not a failure mode", "from 0 to 31"),
        ("obd/readiness.toml", "supported = 15", "supported = 32", "uses a bit beyond 31", "31 (D0)"),
        ("adapters/elm327-v1.5.toml", "\"AT@1\"", "\"03\"", "is not an AT command", "AT@1"),
        ("adapters/stn.toml", "id = \"stn\"", "", "missing field `id`", ""),
        (
            "cards/type-2.toml",
            "\"ntag213\"",
            "\"mifare-classic-1k\"",
            "has the layout \"mifare-classic\" already",
            "in one file",
        ),
        ("cards/mifare-classic.toml", "\"787788\"", "\"FF0780\"", "lock a sector or leave it open", "787788"),
    ] {
        let errors = broken(file, from, to);
        let found = errors
            .iter()
            .any(|error| error.starts_with(file) && error.contains(place) && error.contains(hint));
        assert!(found, "{from} -> {to}: {errors:#?}");
    }
}

#[test]
fn a_missing_folder_names_the_setting() {
    let errors = Bundle::load(Path::new("/nonexistent")).unwrap_err();
    assert!(errors.iter().all(|error| error.hint.as_deref().unwrap().contains("gateway.firmware_protocols")));
}

#[test]
fn a_broken_file_does_not_hide_the_mistakes_of_another() {
    let dir = tempfile::tempdir().unwrap();
    copy(&shipped(), dir.path());
    for (file, from) in [("obd/dtc/u0.toml", "U0100 ="), ("vin/regions.toml", "country = [")] {
        let path = dir.path().join(file);
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, text.replacen(from, "garbled garbled", 1)).unwrap();
    }
    let errors: Vec<String> = Bundle::load(dir.path()).unwrap_err().iter().map(ToString::to_string).collect();
    for file in ["obd/dtc/u0.toml:", "vin/regions.toml:"] {
        assert!(errors.iter().any(|error| error.contains(file)), "{file}: {errors:#?}");
    }
}
