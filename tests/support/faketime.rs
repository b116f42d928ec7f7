//! libfaketime: another clock for a program that the test starts.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used)] // each test file uses its part

use std::path::{Path, PathBuf};

pub fn library() -> PathBuf {
    let lib = Path::new("/usr/lib");
    let folders = std::fs::read_dir(lib).unwrap().flatten().map(|entry| entry.path().join("faketime"));
    folders
        .map(|folder| folder.join("libfaketime.so.1"))
        .find(|path| path.exists())
        .expect("libfaketime must be installed (make deps-test)")
}

/// The environment in which all clocks and waits of a program run so many times as fast.
pub fn hurried(times: u32) -> [(&'static str, String); 2] {
    [("LD_PRELOAD", library().display().to_string()), ("FAKETIME", format!("+0 x{times}"))]
}
