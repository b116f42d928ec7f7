//! The house keeps its floors: a room uses only rooms below it (docs/architecture.md).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::path::{Path, PathBuf};

/// Rooms and their floors. `sim` stands apart: see below.
const FLOORS: &[(&str, u8)] = &[
    ("ident", 0),
    ("money", 0),
    ("clock", 0),
    ("health", 1),
    ("event", 1),
    ("link", 1),
    ("protocols", 1),
    ("config", 1),
    ("store", 2),
    ("card", 3),
    ("printer", 3),
    ("vehicle", 3),
    ("maintenance", 3),
    ("uplink", 4),
    ("api", 4),
    ("gateway", 5),
    ("demo", 6),
    ("cli", 6),
    ("main", 6),
];

/// What simulators may use: no codec, no driver.
const SIM_MAY_USE: &[&str] = &["ident", "clock", "sim"];

fn rust_files(dir: &Path, into: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            rust_files(&path, into);
        } else if path.extension().is_some_and(|e| e == "rs") {
            into.push(path);
        }
    }
}

fn floor(room: &str) -> Option<u8> {
    FLOORS.iter().find(|(name, _)| *name == room).map(|(_, floor)| *floor)
}

/// Rooms named as `crate::ROOM` in a file, comments aside.
fn rooms_used(text: &str) -> Vec<String> {
    let mut rooms = Vec::new();
    for line in text.lines().filter(|line| !line.trim_start().starts_with("//")) {
        for rest in line.split("crate::").skip(1) {
            let inner = rest.strip_prefix('{').unwrap_or(rest);
            let room: String = inner.chars().take_while(|c| c.is_ascii_lowercase() || *c == '_').collect();
            if !room.is_empty() {
                rooms.push(room);
            }
        }
    }
    rooms
}

#[test]
fn rooms_use_only_rooms_below() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    rust_files(&src, &mut files);
    let mut wrong = Vec::new();
    let mut seen = 0;
    for file in files {
        let relative = file.strip_prefix(&src).unwrap().to_owned();
        let first = relative.components().next().unwrap().as_os_str().to_string_lossy().into_owned();
        let room = first.trim_end_matches(".rs").to_owned();
        if room == "lib" {
            continue;
        }
        for used in rooms_used(&std::fs::read_to_string(&file).unwrap()) {
            seen += 1;
            // Of the tests: it exists in no build of the program (`lib.rs`, cfg(test)). They may
            // play with simulated parts.
            let is_tests =
                relative.file_name().is_some_and(|name| name.to_string_lossy().ends_with("tests.rs"));
            if used == "seed" || used == "test_store" || is_tests && used == "sim" {
                continue;
            }
            let allowed = if room == "sim" {
                SIM_MAY_USE.contains(&used.as_str())
            } else {
                match (floor(&room), floor(&used)) {
                    (Some(6), Some(_)) => true,
                    (Some(6), None) => used == "sim",
                    (Some(own), Some(other)) => room == used || other < own || (own <= 1 && other <= own),
                    _ => false,
                }
            };
            if !allowed {
                wrong.push(format!("{} uses crate::{used}", relative.display()));
            }
        }
    }
    assert!(seen > 20, "the check sees no imports any more");
    assert!(wrong.is_empty(), "calls from a lower room up to a higher one:\n{}", wrong.join("\n"));
}

#[test]
fn sql_stays_in_the_store() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    rust_files(&src, &mut files);
    for file in files {
        let relative = file.strip_prefix(&src).unwrap().to_owned();
        let text = std::fs::read_to_string(&file).unwrap();
        if !relative.starts_with("store") {
            assert!(!text.contains("rusqlite"), "{} knows SQLite", relative.display());
        }
    }
}

/// `make fuzz` shall build what the program is made of: its own lock file must not lag behind.
#[test]
fn the_fuzz_targets_are_locked_to_the_same_crates() {
    let read = |name: &str| -> toml::Table {
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap().parse().unwrap()
    };
    let packages = |lock: &str| -> Vec<(String, toml::Value)> {
        let lock = read(lock);
        let packages = lock["package"].as_array().unwrap().iter();
        packages.map(|one| (one["name"].as_str().unwrap().to_owned(), one.clone())).collect()
    };
    let (ours, theirs) = (packages("Cargo.lock"), packages("fuzz/Cargo.lock"));
    let versions = |of: &[(String, toml::Value)], name: &str| -> Vec<String> {
        let named = of.iter().filter(|(other, _)| other == name);
        named.map(|(_, one)| one["version"].as_str().unwrap().to_owned()).collect()
    };
    let (_, baygate) = theirs.iter().find(|(name, _)| name == "baygate").unwrap();
    let used: Vec<&str> =
        baygate["dependencies"].as_array().unwrap().iter().map(|d| d.as_str().unwrap()).collect();
    for (name, written) in read("Cargo.toml")["dependencies"].as_table().unwrap() {
        let name = written.get("package").and_then(toml::Value::as_str).unwrap_or(name);
        let is_used = used.iter().any(|one| one.split(' ').next() == Some(name));
        let (here, there) = (versions(&ours, name), versions(&theirs, name));
        let same = here.iter().any(|version| there.contains(version));
        assert!(is_used && same, "{name} {here:?}, in fuzz/Cargo.lock {there:?}: cargo update in fuzz/");
    }
}
