//! The real pcscd with vsmartcard's virtual reader, one at a time on a machine: its
//! socket and the reader's port are fixed, so test binaries take turns by a file lock.
#![allow(dead_code)]

use std::fs::File;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const SOCKET: &str = "/run/pcscd/pcscd.comm";
/// Port of the virtual reader's first slot (vsmartcard's default); the second has the next.
const PORT: u16 = 35_963;

pub struct Pcscd {
    child: Child,
    /// Held until the daemon is gone.
    _turn: File,
}

impl Pcscd {
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
    }
}

impl Drop for Pcscd {
    fn drop(&mut self) {
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
    }
}
