//! A file system of the test's own. Where nothing may be mounted the test fails, and
//! says how it is left out.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::panic)] // each test file uses its part

use std::io::Write as _;
use std::path::Path;
use std::process::Command;

const WITHOUT: &str = "BAYGATE_WITHOUT_MOUNT";

/// Whether this test is to be left out; then it says so, past the harness, which keeps
/// what passing tests print.
pub fn left_out() -> bool {
    let out = std::env::var_os(WITHOUT).is_some();
    if out {
        let test = std::thread::current().name().unwrap_or("a test").to_owned();
        let _ = writeln!(std::io::stderr(), "{test} LEFT OUT: {WITHOUT} is set");
    }
    out
}

/// Mounts; `what` stands before the place in the command.
pub fn mount(what: &[&str], place: &Path) {
    let done = Command::new("mount").args(what).arg(place).output();
    let why = match &done {
        Ok(done) if done.status.success() => return,
        Ok(done) => String::from_utf8_lossy(&done.stderr).trim().to_owned(),
        Err(error) => error.to_string(),
    };
    refused(&format!("mount {}: {why}", what.join(" ")));
}

/// Ends the test: this machine does not let it have its disk.
pub fn refused(why: &str) -> ! {
    panic!("no disk for this test here ({why}): run as root, or set {WITHOUT}=1 to leave it out")
}

/// So many KiB in memory.
pub fn small(kib: u32, place: &Path) {
    mount(&["-t", "tmpfs", "-o", &format!("size={kib}k"), "tmpfs"], place);
}

/// Takes it away, also where somebody still looks into it.
pub fn unmount(place: &Path) {
    let _ = Command::new("umount").arg("-l").arg(place).status();
}
