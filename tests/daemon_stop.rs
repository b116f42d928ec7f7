//! SIGTERM while everything hangs: broker, dongle and printer that take the
//! connection and say nothing, and a database that somebody else has locked.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "support/daemon.rs"]
mod daemon;

use std::net::TcpListener;
use std::time::Duration;

use daemon::{Daemon, Desk};
use nix::sys::signal::Signal;

/// Contract §2.
const CONTRACT: Duration = Duration::from_secs(5);

#[tokio::test(flavor = "multi_thread")]
async fn it_ends_within_five_seconds_whatever_hangs() {
    // The kernel takes connections; nobody reads them.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    let desk = Desk::new();
    let config = |printer: &str| {
        desk.write(&format!(
            "[mqtt]\nurl = \"mqtts://127.0.0.1:{port}\"\n\
             [[vehicle]]\nid = \"bay-1\"\nlink = \"elm327+tcp://127.0.0.1:{port}\"\n\
             [[printer]]\nid = \"{printer}\"\nkind = \"star-tcp300\"\nlink = \"tcp://127.0.0.1:{port}\"\n"
        ));
    };
    for reload_first in [false, true] {
        config("face-1");
        let mut daemon = Daemon::start(&desk.config()).await;
        daemon.says("local HTTP ready").await;
        let lock = rusqlite::Connection::open(desk.path("data").join("baygate.db")).unwrap();
        lock.execute_batch("BEGIN IMMEDIATE").unwrap();
        if reload_first {
            config("face-2");
            daemon.signal(Signal::SIGHUP);
            daemon.says("face-1").await;
        }
        daemon.signal(Signal::SIGTERM);
        let ended = tokio::time::timeout(CONTRACT, daemon.ended()).await;
        assert!(ended.is_ok(), "reload first: {reload_first}\n{}", daemon.log());
        drop(lock);
    }
    // What was committed is there, and nobody has to repair anything.
    let mut daemon = Daemon::start(&desk.config()).await;
    daemon.signal(Signal::SIGTERM);
    assert!(tokio::time::timeout(CONTRACT, daemon.ended()).await.unwrap().success());
}
