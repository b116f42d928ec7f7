//! Copies that do not fit on the disk: a backup and an export, a restore, a salvage. What could not
//! be copied is not deleted, no half copy stays, and with room it is done.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "support/buffer_command.rs"]
mod buffer_command;
#[path = "support/mount.rs"]
mod mount;
mod store_setup;

use std::path::PathBuf;
use std::process::Command;

use baygate::event::Class;
use baygate::store::{Store, backup, inspect};
use buffer_command::run;
use store_setup::{grown, options, positions};

/// A small disk with a folder on it.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount(kib: u32) -> Self {
        let disk = Self(tempfile::tempdir().unwrap());
        mount::small(kib, disk.0.path());
        std::fs::create_dir(disk.data()).unwrap();
        disk
    }

    fn data(&self) -> PathBuf {
        self.0.path().join("data")
    }

    fn grow(&self, kib: u32) {
        mount::mount(&["-o", &format!("remount,size={kib}k")], self.0.path());
    }

    /// Names in the folder that begin so.
    fn names(&self, with: &str) -> Vec<PathBuf> {
        let all = std::fs::read_dir(self.data()).unwrap().map(|entry| entry.unwrap().path());
        all.filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with(with)).collect()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        mount::unmount(self.0.path());
    }
}

#[tokio::test]
async fn a_full_disk_leaves_no_half_copy() {
    if mount::left_out() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    grown(&data, 3000).await;
    let small = dir.path().join("small");
    std::fs::create_dir(&small).unwrap();
    mount::small(512, &small);
    let before = std::fs::read(data.join("baygate.db")).unwrap();
    let mut results = Vec::new();
    for words in [vec!["backup"], vec!["export", "--output"]] {
        let target = small.join("copy");
        let words = [words, vec![target.to_str().unwrap()]].concat();
        let (code, said) = run(&data, &words);
        let left: Vec<_> = std::fs::read_dir(&small).unwrap().map(|entry| entry.unwrap().path()).collect();
        results.push((words.join(" "), code, said, left));
    }
    mount::unmount(&small);
    for (words, code, said, left) in results {
        assert_eq!(code, 1, "{words}: {said}");
        assert!(left.is_empty(), "{words} left {left:?}");
        assert!(said.contains("full") || said.contains("space"), "{words}: {said}");
    }
    assert!(std::fs::read(data.join("baygate.db")).unwrap() == before);
    let (code, said) = {
        let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
        let done = Command::new(env!("CARGO_BIN_EXE_baygate"))
            .args(["buffer", "export", "--data-dir"])
            .arg(&data)
            .stdout(full)
            .output()
            .unwrap();
        (done.status.code(), String::from_utf8_lossy(&done.stderr).into_owned())
    };
    assert_eq!(code, Some(1), "{said}");
}

/// The disk has room for the database, and for half of a second one.
#[tokio::test]
async fn a_restore_that_does_not_fit_leaves_everything_as_it_was() {
    if mount::left_out() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (from, good) = (dir.path().join("from"), dir.path().join("good.db"));
    grown(&from, 3000).await;
    backup::backup(&from, &good, &mut |_, _| {}).unwrap();
    let bytes = std::fs::read(from.join("baygate.db")).unwrap();
    let kib = u32::try_from(bytes.len() / 1024).unwrap();
    let disk = SmallDisk::mount(kib * 3 / 2);
    std::fs::write(disk.data().join("baygate.db"), &bytes).unwrap();
    let (code, said) = run(&disk.data(), &["restore", good.to_str().unwrap()]);
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("full") || said.contains("space"), "{said}");
    assert!(std::fs::read(disk.data().join("baygate.db")).unwrap() == bytes, "the database changed");
    assert_eq!(disk.names("baygate.db."), Vec::<PathBuf>::new(), "left behind");
    assert!(inspect::verify(&good, &mut |_| {}).unwrap().sound);
    // With room it is done, and what was there is kept.
    disk.grow(kib * 4);
    let (code, said) = run(&disk.data(), &["restore", good.to_str().unwrap()]);
    assert_eq!(code, 0, "{said}");
    let aside = disk.names("baygate.db.before-restore-");
    assert!(aside.len() == 1 && std::fs::read(&aside[0]).unwrap() == bytes, "{aside:?}");
    assert!(inspect::verify(&disk.data(), &mut |_| {}).unwrap().sound);
}

#[tokio::test]
async fn a_salvage_that_does_not_fit_keeps_the_damaged_file_and_is_done_with_room() {
    if mount::left_out() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let from = dir.path().join("from");
    grown(&from, 3000).await;
    let mut bytes = std::fs::read(from.join("baygate.db")).unwrap();
    // The header: seen before anything else.
    bytes[..16].fill(0);
    let kib = u32::try_from(bytes.len() / 1024).unwrap();
    let disk = SmallDisk::mount(kib * 3 / 2);
    std::fs::write(disk.data().join("baygate.db"), &bytes).unwrap();
    let damaged = |disk: &SmallDisk| {
        let aside = disk.names("baygate.db.damaged-");
        let kept = |path: &PathBuf| std::fs::read(path).unwrap() == bytes;
        assert!(aside.len() == 1 && kept(&aside[0]), "{aside:?}");
    };
    // Tried at each start, and each says why.
    for start in 0..3 {
        let error = Store::open(&options(&disk.data())).map(|_| ()).unwrap_err();
        assert!(error.is_full(), "start {start}: {error}");
        damaged(&disk);
        assert!(!disk.data().join("baygate.db").exists(), "half a database under its name");
        // The disk may be full for nothing but these.
        let copies = [disk.names("baygate.db.salvage"), disk.names("baygate.db.patched")].concat();
        assert_eq!(copies, Vec::<PathBuf>::new(), "start {start}");
    }
    disk.grow(kib * 4);
    let (store, opened) = Store::open(&options(&disk.data())).unwrap();
    let report = opened.salvaged.unwrap();
    assert_eq!((report.lost, report.unreadable), (0, 0), "{report:?}");
    assert_eq!(positions(&store, Class::Card).await.len(), 3000);
    store.close().await;
    drop(store);
    damaged(&disk);
    assert!(inspect::verify(&disk.data(), &mut |_| {}).unwrap().sound);
    // Killed in a salvage, then a backup was brought back: nobody makes the copies anew.
    for name in ["baygate.db.salvage", "baygate.db.patched", "baygate.db.patched-wal"] {
        std::fs::write(disk.data().join(name), "half").unwrap();
    }
    Store::open(&options(&disk.data())).unwrap();
    let copies = [disk.names("baygate.db.salvage"), disk.names("baygate.db.patched")].concat();
    assert_eq!(copies, Vec::<PathBuf>::new());
}

/// A copy that a full disk cut to nothing is no backup; a folder in which nothing was made is well.
#[tokio::test]
async fn a_named_file_that_holds_nothing_is_not_sound() {
    let dir = tempfile::tempdir().unwrap();
    let (data, copy) = (dir.path().join("data"), dir.path().join("copy.db"));
    std::fs::create_dir(&data).unwrap();
    let one_page = {
        let page = dir.path().join("page.db");
        drop(rusqlite::Connection::open(&page).unwrap().pragma_update(None, "journal_mode", "wal"));
        std::fs::read(page).unwrap()
    };
    for bytes in [Vec::new(), one_page] {
        std::fs::write(&copy, &bytes).unwrap();
        std::fs::write(data.join("baygate.db"), &bytes).unwrap();
        let verdict = inspect::verify(&copy, &mut |_| {}).unwrap();
        assert!(!verdict.sound && verdict.empty && verdict.problems.len() == 1, "{verdict:?}");
        let (code, said) = run(&data, &["verify", copy.to_str().unwrap()]);
        assert!(code == 1 && said.contains("not sound") && said.contains("cut short"), "{said}");
        let (code, said) = run(&data, &["verify"]);
        assert!(code == 0 && said.contains("empty, nothing made yet"), "{said}");
        assert!(!said.contains(": sound"), "{said}");
    }
}
