//! Ports for listeners of the tests' own.

use std::net::TcpStream;
use std::ops::Range;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::sync::{Mutex, PoisonError};

/// Where the ports of the tests begin and end: below the range from which the
/// kernel gives ports to everybody else.
const FIRST: u16 = 11_000;
const BLOCKS: u16 = 200;
const BLOCK_PORTS: u16 = 100;

/// What this program has taken: nobody else is given a port of these blocks while it lives.
struct Taken {
    names: Vec<UnixListener>,
    /// How many blocks were asked for.
    blocks: u16,
    rest: Range<u16>,
}

impl Taken {
    fn next(&mut self) -> u16 {
        loop {
            if let Some(port) = self.rest.next() {
                return port;
            }
            assert!(self.blocks < BLOCKS, "no free port from {FIRST} on");
            // Each program begins elsewhere.
            let begins = u16::try_from(std::process::id() % u32::from(BLOCKS)).unwrap_or_default();
            let block = (begins + self.blocks) % BLOCKS;
            self.blocks += 1;
            let name = SocketAddr::from_abstract_name(format!("baygate-test-ports-{block}"));
            if let Ok(name) = name.and_then(|name| UnixListener::bind_addr(&name)) {
                self.names.push(name);
                let first = FIRST + block * BLOCK_PORTS;
                self.rest = first..first + BLOCK_PORTS;
            }
        }
    }
}

/// A port on which nobody listens, another one at each call, in this program and those that run
/// beside it; it is ours again after its listener was killed. Asked by knocking: a listener opened
/// here to try the port could live on for a moment in a child that is just being started, and
/// whoever wants the port would find it taken.
pub fn free_port() -> u16 {
    static TAKEN: Mutex<Taken> = Mutex::new(Taken { names: Vec::new(), blocks: 0, rest: 0..0 });
    loop {
        let port = TAKEN.lock().unwrap_or_else(PoisonError::into_inner).next();
        if TcpStream::connect(("127.0.0.1", port)).is_err() {
            return port;
        }
    }
}
