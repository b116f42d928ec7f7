//! The real pcscd with the virtual reader driver. Its socket has a fixed place, so
//! only one can run on a machine: a lock file lets test processes take turns.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

// Some tests load it themselves, too.
#[allow(clippy::duplicate_mod)]
#[path = "port.rs"]
mod port;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use baygate::card::pcsc::list_readers;
use port::free_port;

const PID_FILE: &str = "/run/pcscd/pcscd.pid";
const SOCKET: &str = "/run/pcscd/pcscd.comm";
const DRIVER: &str = "/usr/lib/pcsc/drivers/serial/libifdvpcd.so";

pub struct Pcscd {
    child: Child,
    config: tempfile::TempDir,
    lights: Option<Lights>,
    /// Where a card connects for slot 0; slot 1 is the next port.
    pub port: u16,
    _turn: File,
}

/// A reader with lights: our own driver around the virtual one's (`escape_reader.c`).
struct Lights {
    driver: PathBuf,
    /// What was said past the card, a line each.
    escapes: PathBuf,
}

impl Pcscd {
    /// Starts pcscd with two virtual slots. A pcscd of the machine's own that is running is
    /// not ours to stop: the test fails, or with `BAYGATE_WITHOUT_PCSCD` set it is left out (`None`).
    pub fn start() -> Option<Self> {
        Self::start_with(2, None)
    }

    /// As `start`, with a reader that is spoken to past its card as well (SCardControl); what was
    /// said so is written to `escapes` in this folder.
    pub fn start_with_lights(folder: &Path) -> Option<Self> {
        let driver = folder.join("escape_reader.so");
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/escape_reader.c");
        let mut compiler = Command::new("cc");
        compiler.args(["-shared", "-fPIC", "-Wall", "-Werror", "-I/usr/include/PCSC", source, "-o"]);
        assert!(
            compiler.arg(&driver).status().unwrap().success(),
            "apt install build-essential libpcsclite-dev"
        );
        Self::start_with(2, Some(Lights { driver, escapes: folder.join("escapes") }))
    }

    /// As `start`, but no reader is plugged in yet.
    pub fn start_without_readers() -> Option<Self> {
        Self::start_with(0, None)
    }

    fn start_with(readers: usize, lights: Option<Lights>) -> Option<Self> {
        let turn = File::create(std::env::temp_dir().join("baygate-test-pcscd.lock")).unwrap();
        turn.lock().unwrap();
        if let Some(pid) = running() {
            let told = format!("pcscd runs on this machine already (process {pid})");
            let left_out = std::env::var_os("BAYGATE_WITHOUT_PCSCD").is_some();
            assert!(left_out, "{told}: stop it, or set BAYGATE_WITHOUT_PCSCD to leave this test out");
            println!("LEFT OUT: {told}");
            return None;
        }
        assert!(Path::new(DRIVER).exists(), "{DRIVER} is missing: apt install vsmartcard-vpcd");
        let port = two_free_ports();
        let config = tempfile::tempdir().unwrap();
        if readers > 0 {
            write_reader(&config, port, lights.as_ref());
        }
        let child = spawn(&config, lights.as_ref());
        let pcscd = Self { child, config, lights, port, _turn: turn };
        pcscd.wait_until_up(readers);
        Some(pcscd)
    }

    /// Sends a signal by its name, e.g. `STOP`.
    pub fn signal(&self, name: &str) {
        let done = Command::new("kill").args(["-s", name, &self.child.id().to_string()]).status().unwrap();
        assert!(done.success());
    }

    /// Plugs both slots in. This pcscd reads its readers only at its start, which is
    /// the nearest to a USB plug that a virtual reader has.
    pub fn plug_in(&mut self) {
        self.kill();
        write_reader(&self.config, self.port, self.lights.as_ref());
        self.start_again_with(2);
    }

    /// Unplugs them.
    pub fn unplug(&mut self) {
        self.kill();
        std::fs::remove_file(self.config.path().join("vpcd")).unwrap();
        self.start_again_with(0);
    }

    /// As a crash: no chance to tidy up.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        let _ = std::fs::remove_file(PID_FILE);
        let _ = std::fs::remove_file(SOCKET);
    }

    pub fn start_again(&mut self) {
        self.start_again_with(2);
    }

    fn start_again_with(&mut self, readers: usize) {
        self.child = spawn(&self.config, self.lights.as_ref());
        self.wait_until_up(readers);
    }

    fn wait_until_up(&self, readers: usize) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !list_readers().is_ok_and(|there| there.len() == readers) {
            assert!(Instant::now() < deadline, "pcscd shows {:?}", list_readers());
            std::thread::yield_now();
        }
    }
}

impl Drop for Pcscd {
    fn drop(&mut self) {
        self.kill();
    }
}

fn write_reader(config: &tempfile::TempDir, port: u16, lights: Option<&Lights>) {
    let driver = lights.map_or(Path::new(DRIVER), |lights| &lights.driver).display();
    let text = format!(
        "FRIENDLYNAME \"Virtual PCD\"\nDEVICENAME /dev/null:{port}\nLIBPATH {driver}\nCHANNELID {port}\n"
    );
    std::fs::write(config.path().join("vpcd"), text).unwrap();
}

fn spawn(config: &tempfile::TempDir, lights: Option<&Lights>) -> Child {
    let mut command = Command::new("pcscd");
    if let Some(lights) = lights {
        command.env("BAYGATE_VPCD", DRIVER).env("BAYGATE_ESCAPES", &lights.escapes);
    }
    command
        .args(["--foreground", "--config"])
        .arg(config.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("pcscd is installed: apt install pcscd")
}

/// The process id of a pcscd that is alive.
fn running() -> Option<u32> {
    let pid = std::fs::read_to_string(PID_FILE).ok()?.trim().parse().ok()?;
    let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
    (name.trim() == "pcscd").then_some(pid)
}

/// One after the other.
fn two_free_ports() -> u16 {
    let mut port = free_port();
    loop {
        let next = free_port();
        if next == port + 1 {
            return port;
        }
        port = next;
    }
}
