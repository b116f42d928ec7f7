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

/// docs/testing.md names tests, and what was broken on purpose for them: where one of them has another
/// name by now, nobody can repeat it.
#[test]
fn what_the_page_of_the_proofs_names_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    for place in ["src", "tests"] {
        rust_files(&root.join(place), &mut files);
    }
    let named =
        |file: &PathBuf| format!("/{}", file.strip_prefix(root).unwrap().with_extension("").display());
    let sources: Vec<(String, String)> =
        files.iter().map(|file| (named(file), std::fs::read_to_string(file).unwrap())).collect();
    // `store/wal.rs`, `uplink/session`, `store::wal`, `store_wal`; tests beside the code with it.
    let of = |name: &str| -> Vec<&str> {
        let path = format!("/{}", name.trim_end_matches(".rs").replace("::", "/"));
        let (tests, below) = (format!("{path}_tests"), format!("{path}/"));
        let is_of = |file: &str| file.ends_with(&path) || file.ends_with(&tests) || file.contains(&below);
        let found = sources.iter().filter(|(file, _)| is_of(file));
        found.map(|(_, text)| text.as_str()).collect()
    };
    let is_name = |word: &str| word.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    let is_file = |word: &str| word.ends_with(".rs") || word.contains(['/', ':']);
    let everywhere = |word: &str| sources.iter().any(|(_, text)| text.contains(word));
    let doc = std::fs::read_to_string(root.join("docs/testing.md")).unwrap();
    let (mut seen, mut gone) = (0, Vec::new());
    for name in doc.split('`').skip(1).step_by(2).filter(|name| name.starts_with("tests/")) {
        let family = name.split_once('*').map(|(begins, _)| format!("/{begins}"));
        let is_there = |begins: String| sources.iter().any(|(file, _)| file.starts_with(&begins));
        if !family.map_or_else(|| root.join(name).exists(), is_there) {
            gone.push(name.to_owned());
        }
    }
    let (_, list) = doc.split_once("## Broken on purpose").unwrap();
    let (list, _) = list.split_once("\n## ").unwrap();
    for line in list.lines() {
        let [_, _, broken, caught, ..] = line.split('|').collect::<Vec<_>>()[..] else { continue };
        for (cell, is_caught) in [(broken, false), (caught, true)] {
            let mut within: Vec<&str> = sources.iter().map(|(_, text)| text.as_str()).collect();
            for (n, part) in cell.split('`').enumerate() {
                let mut words = vec![part];
                if n % 2 == 0 {
                    let test = |word: &&str| is_caught && is_name(word) && word.contains('_');
                    words = part.split(|c: char| !c.is_alphanumeric() && c != '_').filter(test).collect();
                } else if part.starts_with("crate::")
                    || !is_name(&part.trim_end_matches(".rs").replace(['/', ':'], ""))
                {
                    continue; // a command, a setting, what was written there
                } else if is_file(part) || is_caught && !of(part).is_empty() {
                    within = of(part);
                    words.clear();
                    if within.is_empty() {
                        gone.push(format!("{part}, in: {line}"));
                    }
                }
                seen += 1;
                for word in words {
                    let anywhere = n % 2 == 1 && is_caught;
                    let there = within.iter().any(|text| text.contains(word)) || anywhere && everywhere(word);
                    if !there {
                        gone.push(format!("{word}, in: {line}"));
                    }
                }
            }
        }
    }
    assert!(seen > 500, "the list is not read any more: {seen}");
    assert!(gone.is_empty(), "not there any more:\n{}", gone.join("\n"));
}
