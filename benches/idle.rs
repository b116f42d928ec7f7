//! The idle daemon: reader, vehicle, printer and till configured and quiet, broker
//! connected. How much of a core it takes, and how much memory.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "../tests/support/pcscd.rs"]
mod pcscd;
mod setup;

use std::time::Duration;

use pcscd::Pcscd;
use setup::broker::Broker;
use setup::daemon::Site;
use setup::figures::{Figure, Found, digits};
use setup::process;

/// Until what a start sets off has settled.
const SETTLE: Duration = Duration::from_secs(15);
/// How long is looked.
const LOOK: Duration = Duration::from_secs(30);

fn main() {
    let pcscd = Pcscd::start().expect("the machine's own pcscd is in the way");
    let broker = Broker::start();
    let site = Site::new(&["--no-car"]);
    site.write(broker.port, "kind = \"pcsc\"\nname = \"Virtual PCD 00 00\"");
    let daemon = site.start();
    site.says("uplink up");
    std::thread::sleep(SETTLE);
    let (before, woken, written) = state(daemon.pid());
    std::thread::sleep(LOOK);
    let (after, woken_then, written_then) = state(daemon.pid());
    let seconds = LOOK.as_secs_f64();
    let memory = process::memory(daemon.pid()).unwrap();
    let peak = process::peak(daemon.pid());
    daemon.stop();
    drop(pcscd);

    let mut found = Found::default();
    let share = (after - before) / seconds * 100.0;
    found.figures.push(Figure::limit("idle, of one core", "%", share, 1.0));
    found.figures.push(Figure::limit("resident memory when idle, peak", "MB", peak, 30.0));
    found.notes.push(format!(
        "idle: woken {} times a second, {} bytes to the disk in {seconds} s; {} MB resident, of it {} MB heap and stacks",
        digits((woken_then - woken) / seconds),
        written_then - written,
        digits(memory.resident),
        digits(memory.anonymous)
    ));
    found.keep("idle");
}

fn state(pid: u32) -> (f64, f64, f64) {
    (process::busy(pid), process::wakes(pid), process::written(pid))
}
