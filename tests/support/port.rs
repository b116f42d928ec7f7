//! Ports for listeners of the tests' own.

use std::net::TcpStream;
use std::sync::atomic::{AtomicU16, Ordering};

/// Where the ports of the tests begin and end: below the range from which the
/// kernel gives ports to everybody else.
const FIRST: u16 = 11_000;
const COUNT: u16 = 20_000;

/// A port on which nobody listens, another one at each call; it is ours again
/// after its listener was killed. Asked by knocking: a listener opened here to
/// try the port could live on for a moment in a child that is just being
/// started, and whoever wants the port would find it taken.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Test programs run one after the other; each begins elsewhere.
    let start = u16::try_from(std::process::id() % 2000).unwrap() * 10;
    for _ in 0..COUNT {
        let step = NEXT.fetch_add(1, Ordering::Relaxed) % COUNT;
        let port = FIRST + (start + step) % COUNT;
        if TcpStream::connect(("127.0.0.1", port)).is_err() {
            return port;
        }
    }
    panic!("no free port from {FIRST} on");
}
