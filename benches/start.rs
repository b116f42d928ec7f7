//! From exec to `READY=1` with a million rows in the log, as systemd would see it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod setup;

use std::time::{Duration, Instant};

use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use rusqlite::{Connection, OpenFlags};
use setup::broker::{Broker, free_port};
use setup::daemon::Site;
use setup::figures::{Figure, Found, digits, median};
use setup::process::{self, Watch};
use setup::{RUNS, fill, number};

/// The most it may take.
const MOST_MS: f64 = 200.0;

fn main() {
    let rows = number("BAYGATE_BENCH_ROWS", 1_000_000);
    let site = Site::new(&["--no-car"]);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(fill::fill(&site.data(), rows));
    // No broker answers: a million rows wait, and stay.
    site.write(free_port(), &format!("kind = \"vpcd\"\nlisten = \"127.0.0.1:{}\"", free_port()));

    let (mut orderly, mut killed, mut uncached) = (Vec::new(), Vec::new(), Vec::new());
    for _ in setup::rounds("start", 0..RUNS) {
        let daemon = site.start();
        orderly.push(ms(daemon.ready_after));
        drop(daemon); // killed
        let daemon = site.start();
        killed.push(ms(daemon.ready_after));
        daemon.stop();
        forget(&site);
        let daemon = site.start();
        uncached.push(ms(daemon.ready_after));
        daemon.stop();
    }
    let mut found = Found::default();
    let worst = |times: &[f64]| times.iter().copied().fold(0.0, f64::max);
    let names = [
        (format!("start to READY=1, {rows} rows, median of {RUNS}"), median(orderly.clone())),
        ("the same, slowest".into(), worst(&orderly)),
        ("the same, after kill -9, slowest".into(), worst(&killed)),
    ];
    for (name, took) in names {
        found.figures.push(Figure::limit(&name, "ms", took, MOST_MS));
    }
    found.figures.push(Figure::told(
        "the same, database not in the page cache, slowest",
        format!("{} ms", digits(worst(&uncached))),
        String::new(),
    ));
    // The full check, the gauges and a broker that takes everything, until both have come to their end.
    let broker = Broker::start();
    site.write(broker.port, &format!("kind = \"vpcd\"\nlisten = \"127.0.0.1:{}\"", free_port()));
    let daemon = site.start();
    let watch = Watch::start(daemon.pid());
    wait_until_checked_and_drained(&site, rows);
    let most = watch.end();
    let peak = process::peak(daemon.pid());
    found.figures.push(Figure::limit(
        "resident memory, a million rows checked and drained",
        "MB",
        peak,
        30.0,
    ));
    found.notes.push(format!(
        "start: of the resident memory {} MB heap and stacks, {} MB the program's file and libraries",
        digits(most.anonymous),
        digits(most.file)
    ));
    daemon.stop();
    found.keep("start");
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn wait_until_checked_and_drained(site: &Site, rows: usize) {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY;
    let look = Connection::open_with_flags(site.data().join("baygate.db"), flags).unwrap();
    let sum = "SELECT coalesce(sum(class_sequence), 0) FROM delivered";
    let (rows, deadline) = (i64::try_from(rows).unwrap(), Instant::now() + Duration::from_secs(600));
    loop {
        let delivered: i64 = look.query_row(sum, [], |row| row.get(0)).unwrap();
        let log = site.log();
        if delivered >= rows && log.contains("database checked in full: sound") {
            return;
        }
        assert!(Instant::now() < deadline, "{delivered} of {rows} delivered:\n{log}");
        // Seldom: looking takes the time of the two cores from the daemon alone.
        std::thread::sleep(Duration::from_millis(500));
    }
}

/// Asks the kernel to drop the database from its cache.
fn forget(site: &Site) {
    let file = std::fs::File::open(site.data().join("baygate.db")).unwrap();
    file.sync_all().unwrap();
    posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED).unwrap();
}
