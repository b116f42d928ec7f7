<<<<<<< HEAD
//! The real pcscd with the virtual reader driver. Its socket has a fixed place, so
//! only one can run on a machine: a lock file lets test processes take turns.
#![allow(dead_code)]

use std::fs::File;
use std::net::TcpListener;
=======
//! The real pcscd with vsmartcard's virtual reader, one at a time on a machine: its
//! socket and the reader's port are fixed, so test binaries take turns by a file lock.
#![allow(dead_code)]

use std::fs::File;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixStream;
>>>>>>> sim
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

<<<<<<< HEAD
use baygate::card::pcsc::list_readers;

const PID_FILE: &str = "/run/pcscd/pcscd.pid";
const SOCKET: &str = "/run/pcscd/pcscd.comm";
const DRIVER: &str = "/usr/lib/pcsc/drivers/serial/libifdvpcd.so";

pub struct Pcscd {
    child: Child,
    config: tempfile::TempDir,
    /// Where a card connects for slot 0; slot 1 is the next port.
    pub port: u16,
=======
const SOCKET: &str = "/run/pcscd/pcscd.comm";
/// Port of the virtual reader's first slot (vsmartcard's default); the second has the next.
const PORT: u16 = 35_963;

pub struct Pcscd {
    child: Child,
    /// Held until the daemon is gone.
>>>>>>> sim
    _turn: File,
}

impl Pcscd {
<<<<<<< HEAD
    /// Starts pcscd with two virtual slots. `None`, with the reason printed, where
    /// a pcscd of the machine's own is running: it is not ours to stop.
    pub fn start() -> Option<Self> {
        let turn = File::create(std::env::temp_dir().join("baygate-test-pcscd.lock")).unwrap();
        turn.lock().unwrap();
        if let Some(pid) = running() {
            println!("SKIPPED: pcscd runs on this machine already (process {pid}); stop it to run this test");
            return None;
        }
        assert!(Path::new(DRIVER).exists(), "{DRIVER} is missing: apt install vsmartcard-vpcd");
        let port = two_free_ports();
        let config = tempfile::tempdir().unwrap();
        let text = format!(
            "FRIENDLYNAME \"Virtual PCD\"\nDEVICENAME /dev/null:{port}\nLIBPATH {DRIVER}\nCHANNELID {port}\n"
        );
        std::fs::write(config.path().join("vpcd"), text).unwrap();
        let child = spawn(&config);
        let pcscd = Self { child, config, port, _turn: turn };
        pcscd.wait_until_up();
        Some(pcscd)
    }

    /// Sends a signal by its name, e.g. `STOP`.
    pub fn signal(&self, name: &str) {
        let done = Command::new("kill").args(["-s", name, &self.child.id().to_string()]).status().unwrap();
        assert!(done.success());
    }

    /// As a crash: no chance to tidy up.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        let _ = std::fs::remove_file(PID_FILE);
        let _ = std::fs::remove_file(SOCKET);
    }

    pub fn start_again(&mut self) {
        self.child = spawn(&self.config);
        self.wait_until_up();
    }

    fn wait_until_up(&self) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !list_readers().is_ok_and(|readers| readers.len() == 2) {
            assert!(Instant::now() < deadline, "pcscd shows {:?}", list_readers());
            std::thread::yield_now();
        }
=======
    /// Takes the turn and starts the daemon. Nothing where it is not installed, may not be
    /// started, or a system's own one runs.
    pub fn start() -> Option<Self> {
        let turn = File::create(std::env::temp_dir().join("baygate-pcscd.lock")).unwrap();
        turn.lock().unwrap();
        if !Path::new("/usr/sbin/pcscd").exists() || UnixStream::connect(SOCKET).is_ok() {
            eprintln!("skipped: no pcscd installed, or one runs already");
            return None;
        }
        let mut daemon = Self { child: launch(), _turn: turn };
        daemon.wait_until_ready();
        Some(daemon)
    }

    /// Where a card connects to slot 0 or 1.
    pub fn slot(&self, number: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], PORT + number))
    }

    /// Kills the daemon and starts another, as `systemctl restart` would.
    pub fn restart(&mut self) {
        self.kill();
        self.child = launch();
        self.wait_until_ready();
    }

    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_file(SOCKET);
        wait("port stays taken", || TcpListener::bind(("0.0.0.0", PORT)).is_ok());
    }

    fn wait_until_ready(&mut self) {
        wait("pcscd does not come up", || {
            assert!(self.child.try_wait().unwrap().is_none(), "pcscd ended");
            UnixStream::connect(SOCKET).is_ok() && listening(PORT)
        });
>>>>>>> sim
    }
}

impl Drop for Pcscd {
    fn drop(&mut self) {
<<<<<<< HEAD
        self.kill();
    }
}

fn spawn(config: &tempfile::TempDir) -> Child {
    Command::new("pcscd")
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

fn two_free_ports() -> u16 {
    loop {
        let first = TcpListener::bind("0.0.0.0:0").unwrap();
        let port = first.local_addr().unwrap().port();
        if port < u16::MAX && TcpListener::bind(("0.0.0.0", port + 1)).is_ok() {
            return port;
        }
=======
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_file(SOCKET);
    }
}

fn launch() -> Child {
    std::fs::create_dir_all("/run/pcscd").unwrap();
    let mut command = Command::new("/usr/sbin/pcscd");
    command.arg("--foreground").stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().expect("pcscd starts")
}

/// Whether someone listens on the port. Looked up rather than connected to: the reader
/// would take a connection for a card.
fn listening(port: u16) -> bool {
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap_or_default();
    let wanted = format!(":{port:04X}");
    table
        .lines()
        .skip(1)
        .filter_map(|line| {
            let mut fields = line.split_whitespace().skip(1);
            Some((fields.next()?, fields.nth(1)?))
        })
        .any(|(local, state)| local.ends_with(&wanted) && state == "0A")
}

fn wait(what: &str, mut ready: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !ready() {
        assert!(begin.elapsed() < Duration::from_secs(10), "{what}");
        std::thread::sleep(Duration::from_millis(20));
>>>>>>> sim
    }
}
