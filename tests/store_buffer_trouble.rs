//! `baygate buffer` where something is wrong: backups that are none, a full disk, a
//! kill at any step of a restore. The real program; nothing hangs, nothing is
//! deleted that could not be copied.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "support/buffer_command.rs"]
mod buffer_command;
mod sqlite_pages;
mod store_setup;

use std::collections::BTreeSet;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use baygate::event::Class;
use baygate::store::{Store, backup, inspect};
use buffer_command::{DEADLINE, measured, run};
use sqlite_pages::{Dice, Format, Harm, Kind, PAGE};
use store_setup::{fact, grown, options, positions};

#[tokio::test]
async fn what_is_no_backup_is_refused_with_a_word_and_touches_nothing() {
    let dice = Dice::throw("what_is_no_backup_is_refused_with_a_word_and_touches_nothing");
    let dir = tempfile::tempdir().unwrap();
    let (data, good) = (dir.path().join("data"), dir.path().join("good.db"));
    grown(&data, 1000).await;
    backup::backup(&data, &good, &mut |_, _| {}).unwrap();
    let format = Format::read(&good);
    let leaf = dice.for_case("leaf").pick(&format.of(Kind::TableLeaf, "event"));
    let harmed = |harm| format.harm(&leaf, harm, &mut dice.for_case("harm")).unwrap().0;
    // One bit of what an event says. (A row's share of the class's weight is no such thing: it is
    // reckoned, not told, and has no seal.)
    let mut one_bit = format.bytes.clone();
    let page = &mut one_bit[(leaf.no - 1) * PAGE..leaf.no * PAGE];
    let says = leaf.cells.iter().find_map(|(at, length)| {
        page[*at..at + length].iter().position(|byte| *byte == b'{').map(|place| at + place)
    });
    page[says.unwrap()] ^= 1 << dice.for_case("bit").below(8);
    let mut newer = format.bytes.clone();
    newer[63] = 99;
    std::fs::write(dir.path().join("newer.db"), &newer).unwrap();
    let raw = rusqlite::Connection::open(dir.path().join("newer.db")).unwrap();
    raw.execute("UPDATE meta SET value = '99' WHERE key = 'schema'", []).unwrap();
    drop(raw);
    let newer = std::fs::read(dir.path().join("newer.db")).unwrap();
    let mut rotten = format.bytes.clone();
    rotten[63] = 33;
    let foreign = dir.path().join("foreign.db");
    rusqlite::Connection::open(&foreign)
        .unwrap()
        .execute_batch("CREATE TABLE t (x); INSERT INTO t VALUES (1)")
        .unwrap();
    // (name, content, a word of the answer)
    let cases = [
        ("bit", one_bit, "damaged"),
        ("zeroed", harmed(Harm::Zeroed), "damaged"),
        ("swapped", harmed(Harm::Swapped), "damaged"),
        ("half", format.bytes[..format.bytes.len() / 2 / PAGE * PAGE].to_vec(), "malformed"),
        ("a few bytes", format.bytes[..1000].to_vec(), "cannot be brought back"),
        ("empty", Vec::new(), "not a database of Baygate"),
        (
            "text",
            b"a letter to headquarters, and not a short one, for all that it matters".repeat(99),
            "not a database",
        ),
        ("newer", newer, "schema version 99"),
        ("version", rotten, "damaged"),
        ("foreign", std::fs::read(&foreign).unwrap(), "not a database of Baygate"),
    ];
    let contents = |dir: &Path| -> BTreeSet<(PathBuf, Vec<u8>)> {
        let entry = |entry: std::io::Result<std::fs::DirEntry>| entry.unwrap().path();
        let of = |path: PathBuf| (path.clone(), std::fs::read(path).unwrap());
        let all = std::fs::read_dir(dir).unwrap().map(entry).map(of);
        all.filter(|(path, _)| !path.ends_with("baygate.lock")).collect()
    };
    let before = contents(&data);
    for (name, bytes, word) in cases {
        let file = dir.path().join("case.db");
        std::fs::write(&file, &bytes).unwrap();
        let (code, said) = run(&data, &["restore", file.to_str().unwrap()]);
        assert_eq!(code, 1, "{name}: {said}");
        assert!(said.contains(word) && said.contains("case.db"), "{name}: {said}");
        assert!(contents(&data) == before, "{name}: the data folder changed");
        assert!(std::fs::read(&file).unwrap() == bytes, "{name}: the file changed");
    }
    for missing in ["nowhere.db", "data"] {
        let (code, said) = run(&data, &["restore", dir.path().join(missing).to_str().unwrap()]);
        assert!(code == 1 && said.contains(missing), "{missing}: {said}");
    }
    // Names of the database's own, and what lies there already, are not written over.
    for (words, code) in [
        (vec!["backup", "baygate.db.restore"], 1),
        (vec!["backup", "baygate.db"], 1),
        (vec!["export", "--output", "baygate.db"], 2),
        (vec!["export", "--output", "baygate.db-wal"], 2),
    ] {
        let mut words = words;
        let name = words.pop().unwrap();
        let path = data.join(name);
        words.push(path.to_str().unwrap());
        assert_eq!(run(&data, &words).0, code, "{words:?}");
        assert!(contents(&data) == before, "{words:?}: the data folder changed");
    }
    // While a daemon holds the folder: what needs it stopped says so, the rest works.
    let (store, _) = Store::open(&options(&data)).unwrap();
    let out = dir.path().join("out.jsonl");
    for (words, code) in [
        (vec!["restore", good.to_str().unwrap()], 4),
        (vec!["release"], 4),
        (vec!["status"], 0),
        (vec!["verify"], 0),
        (vec!["quarantine", "list"], 0),
        (vec!["export", "--output", out.to_str().unwrap()], 0),
    ] {
        let (got, said) = run(&data, &words);
        assert_eq!(got, code, "{words:?}: {said}");
        assert!(
            code != 4 || said.contains("stop it first") && said.contains(&std::process::id().to_string()),
            "{said}"
        );
    }
    store.close().await;
    drop(store);
    // A good one comes back; what was there is kept; cards wait for a word.
    let (code, said) = run(&data, &["restore", good.to_str().unwrap()]);
    assert!(code == 0 && said.contains("before-restore-"), "{said}");
    let (store, _) = Store::open(&options(&data)).unwrap();
    assert!(store.read(|r| r.card_writes_held()).await.unwrap().is_some());
    store.close().await;
    drop(store);
    assert!(run(&data, &["release"]).1.contains("may go on"));
    let (store, _) = Store::open(&options(&data)).unwrap();
    assert_eq!(store.read(|r| r.card_writes_held()).await.unwrap(), None);
}

/// Runs a command under strace with a kill at the `n`th of a system call; false when there are not so many.
fn killed(dir: &Path, words: &[&str], call: &str, n: usize) -> bool {
    let done = Command::new("strace")
        .args(["-f", "-qq", "-o", "/dev/null", "-e", &format!("trace={call}"), "-e"])
        .arg(format!("inject={call}:signal=KILL:when={n}"))
        .arg(env!("CARGO_BIN_EXE_baygate"))
        .args(["buffer", "--data-dir"])
        .arg(dir)
        .args(words)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .expect("strace must be installed");
    !done.success()
}

#[tokio::test]
async fn a_restore_killed_anywhere_leaves_the_old_or_the_new() {
    let dir = tempfile::tempdir().unwrap();
    let (old, good) = (dir.path().join("old"), dir.path().join("good.db"));
    grown(&old, 50).await;
    backup::backup(&old, &good, &mut |_, _| {}).unwrap();
    // The old one goes on, and its last commits are only in the WAL, as after a crash.
    let (store, _) = Store::open(&options(&old)).unwrap();
    for _ in 0..20 {
        store.commit(fact(Class::Card)).await.unwrap();
    }
    let files: Vec<(String, Vec<u8>)> = ["baygate.db", "baygate.db-wal"]
        .into_iter()
        .map(|name| (name.to_owned(), std::fs::read(old.join(name)).unwrap()))
        .collect();
    store.close().await;
    drop(store);
    let mut kills = 0;
    for call in ["rename", "fsync,fdatasync", "unlink", "pwrite64"] {
        let step = if call == "pwrite64" { 9 } else { 1 };
        for n in (1..40).step_by(step) {
            let case = format!("killed at {call} {n}");
            let data = dir.path().join(format!("{}-{n}", call.replace(',', "-")));
            std::fs::create_dir(&data).unwrap();
            for (name, bytes) in &files {
                std::fs::write(data.join(name), bytes).unwrap();
            }
            let was_killed = killed(&data, &["restore", good.to_str().unwrap()], call, n);
            kills += usize::from(was_killed);
            let (store, opened) =
                Store::open(&options(&data)).unwrap_or_else(|error| panic!("{case}: {error}"));
            assert!(opened.salvaged.is_none(), "{case}");
            let now = positions(&store, Class::Card).await.len();
            store.close().await;
            drop(store);
            let aside: Vec<PathBuf> = std::fs::read_dir(&data)
                .unwrap()
                .map(|entry| entry.unwrap().path())
                .filter(|path| path.file_name().unwrap().to_str().unwrap().contains("before-restore"))
                .filter(|path| {
                    !path.to_str().unwrap().ends_with("-wal") && !path.to_str().unwrap().ends_with("-shm")
                })
                .collect();
            match now {
                70 => assert!(aside.is_empty(), "{case}: {aside:?}"),
                50 => {
                    // What was there is kept whole, its last commits too.
                    assert_eq!(aside.len(), 1, "{case}: {aside:?}");
                    let conn = rusqlite::Connection::open(&aside[0]).unwrap();
                    let kept: i64 =
                        conn.query_row("SELECT count(*) FROM event", [], |row| row.get(0)).unwrap();
                    assert_eq!(kept, 70, "{case}");
                }
                other => panic!("{case}: {other} events, neither the old nor the new"),
            }
            assert!(inspect::verify(&data, &mut |_| {}).unwrap().sound, "{case}");
            if !was_killed {
                break;
            }
        }
    }
    println!("{kills} kills");
    assert!(kills > 12, "{kills}");
}

/// The order of a backup's steps, as the kernel saw them.
#[tokio::test]
async fn a_backup_has_its_name_only_when_it_is_on_the_disk() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    grown(&data, 50).await;
    let (log, copy) = (dir.path().join("strace"), dir.path().join("copy.db"));
    let done = Command::new("strace")
        .args(["-f", "-y", "-qq", "-e", "trace=fsync,fdatasync,rename,renameat,renameat2,pwrite64", "-o"])
        .arg(&log)
        .arg(env!("CARGO_BIN_EXE_baygate"))
        .args(["buffer", "--data-dir"])
        .arg(&data)
        .args(["backup"])
        .arg(&copy)
        .status()
        .expect("strace must be installed");
    assert!(done.success());
    let log = std::fs::read_to_string(log).unwrap();
    let lines: Vec<&str> = log.lines().collect();
    let at = |fits: &dyn Fn(&str) -> bool| {
        lines.iter().rposition(|line| fits(line)).unwrap_or_else(|| panic!("{log}"))
    };
    let written = at(&|line| line.contains("pwrite64") && line.contains("copy.db.part>"));
    let synced = at(&|line| line.contains("sync(") && line.contains("copy.db.part>"));
    let named = at(&|line| line.contains("rename") && line.contains("copy.db.part"));
    let folder = at(&|line| line.contains("sync(") && line.contains(&format!("{}>", dir.path().display())));
    assert!(written < synced && synced < named && named < folder, "{log}");
}

#[tokio::test]
async fn a_bar_is_for_terminals_and_help_has_examples() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    grown(&data, 3000).await;
    let output = measured(&data, &["verify", "--json"], DEADLINE).output;
    assert!(output.stderr.is_empty(), "{output:?}");
    let verdict: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&verdict["sound"], &verdict["rows"]), (&serde_json::json!(true), &serde_json::json!(3000)));
    let pty = nix::pty::openpty(None, None).unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_baygate"))
        .args(["buffer", "verify", "--data-dir"])
        .arg(&data)
        .env("TERM", "xterm")
        .stdout(Stdio::null())
        .stderr(Stdio::from(pty.slave))
        .spawn()
        .unwrap();
    let mut terminal = std::fs::File::from(pty.master);
    let reader = std::thread::spawn(move || {
        let (mut all, mut part) = (Vec::new(), [0; 4096]);
        // The end of a pty whose other side is closed is an error.
        while let Ok(read @ 1..) = terminal.read(&mut part) {
            all.extend_from_slice(&part[..read]);
        }
        all
    });
    assert!(child.wait().unwrap().success());
    // The last of our handles to the slave goes with the command.
    drop(child);
    assert!(!reader.join().unwrap().is_empty(), "no progress on a terminal");
    for command in ["status", "export", "verify", "quarantine", "backup", "restore", "release"] {
        let help =
            Command::new(env!("CARGO_BIN_EXE_baygate")).args(["buffer", command, "--help"]).output().unwrap();
        let help = String::from_utf8_lossy(&help.stdout).into_owned();
        assert!(help.contains(&format!("baygate buffer {command}")) && help.contains("示例"), "{help}");
    }
    // In the operator's language.
    let said = Command::new(env!("CARGO_BIN_EXE_baygate"))
        .args(["buffer", "--locale", "zh-CN", "restore", "nowhere.db", "--data-dir"])
        .arg(&data)
        .output()
        .unwrap();
    assert!(String::from_utf8_lossy(&said.stderr).contains("文件无法读写"), "{said:?}");
}
