//! The shipped protocol data loads; a bad file says where and what to do.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::path::{Path, PathBuf};

use baygate::protocols::{Bundle, PidRow, SignalKind, SignalRow, Use, VectorValue};

fn shipped() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("firmware-protocols")
}

/// A decoder of the table's rules that shares nothing with the one in `vehicle`.
fn decode(row: &PidRow, signal: &SignalRow, data: &[u8]) -> Option<VectorValue> {
    let bit = |n: usize| u64::from(data[n / 8] >> (7 - n % 8) & 1);
    if signal.when_bit.is_some_and(|n| bit(n) == 0) {
        return None;
    }
    assert_eq!(row.bytes, data.len());
    let raw = (0..signal.bit_length).fold(0u64, |raw, n| raw << 1 | bit(signal.bit_offset + n));
    if signal.no_value == Some(raw) {
        return None;
    }
    match &signal.kind {
        SignalKind::Number { factor, offset } => {
            let negative = signal.signed && raw >> (signal.bit_length - 1) == 1;
            let number = raw as f64 - if negative { (1u64 << signal.bit_length) as f64 } else { 0.0 };
            Some(VectorValue::Number(number * factor + offset))
        }
        SignalKind::Map(texts) => texts.get(&raw).cloned().map(VectorValue::Text),
        SignalKind::Bits(texts) => {
            let set = texts.iter().rev().filter(|(n, _)| raw >> (signal.bit_length - 1 - **n) & 1 == 1);
            Some(VectorValue::Text(set.map(|(_, text)| text.as_str()).collect::<Vec<_>>().join(" ")))
        }
    }
}

#[test]
fn every_vector_decodes_to_what_it_says_and_to_nothing_more() {
    let bundle = Bundle::load(&shipped()).unwrap();
    assert!(bundle.pids.len() >= 95, "{}", bundle.pids.len());
    for row in bundle.pids.iter() {
        for vector in &row.vectors {
            for signal in &row.signals {
                let got = decode(row, signal, &vector.data);
                let expected = vector.values.get(&signal.name).cloned();
                let same = match (&got, &expected) {
                    (Some(VectorValue::Number(a)), Some(VectorValue::Number(b))) => (a - b).abs() < 2e-6,
                    _ => got == expected,
                };
                assert!(same, "{:02X} {}: {got:?} instead of {expected:?}", row.pid, signal.name);
            }
        }
    }
}

#[test]
fn the_common_pids_are_there_and_freeze_frames_find_them() {
    let bundle = Bundle::load(&shipped()).unwrap();
    let wanted = "01 03 04 05 06 07 08 09 0A 0B 0C 0D 0E 0F 10 11 13 14 15 16 17 18 19 1A 1B 1C 1D 1F 21 22 23 \
                  2C 2D 2E 2F 30 31 32 33 34 3C 3D 3E 3F 41 42 43 44 45 46 47 48 49 4A 4B 4C 4D 4E 51 52 5A 5B \
                  5C 5D 5E 61 62 63 64 A6";
    for pid in wanted.split_whitespace() {
        let pid = u8::from_str_radix(pid, 16).unwrap();
        assert!(bundle.pids.get(1, pid).is_some(), "{pid:02X}");
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
    let texts = bundle.pids.iter().map(|row| &row.name).chain(monitors.map(|row| &row.text));
    for text in texts.chain(bundle.adapters.iter().map(|profile| &profile.note)) {
        assert!(!text.zh.trim().is_empty() && !text.en.trim().is_empty(), "{text:?}");
    }
}

/// Copies the shipped bundle and replaces one text of one file.
fn broken(file: &str, from: &str, to: &str) -> Vec<String> {
    let dir = tempfile::tempdir().unwrap();
    for folder in ["obd", "adapters", "j1939"] {
        std::fs::create_dir(dir.path().join(folder)).unwrap();
        for entry in std::fs::read_dir(shipped().join(folder)).unwrap() {
            let entry = entry.unwrap();
            std::fs::copy(entry.path(), dir.path().join(folder).join(entry.file_name())).unwrap();
        }
    }
    let path = dir.path().join(file);
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.contains(from), "{from}");
    std::fs::write(&path, text.replacen(from, to, 1)).unwrap();
    let errors = Bundle::load(dir.path()).unwrap_err();
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
        ("obd/dtc-texts.toml", "P0300 =", "X0300 =", "\"X0300\" is not a trouble code", "e.g. P0420"),
        ("j1939/failure-modes.toml", "31 =", "32 =", "\"32\" is not a failure mode", "from 0 to 31"),
        ("obd/readiness.toml", "supported = 15", "supported = 32", "uses a bit beyond 31", "31 (D0)"),
        ("adapters/elm327-v1.5.toml", "\"AT@1\"", "\"03\"", "is not an AT command", "AT@1"),
        ("adapters/stn.toml", "id = \"stn\"", "", "missing field `id`", ""),
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
