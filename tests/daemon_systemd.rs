//! What systemd hears: ready only when it is, fed watchdog, reload, stop.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "support/daemon.rs"]
mod daemon;

use std::process::Stdio;

use daemon::{Desk, LONG, program};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::net::UnixDatagram;

async fn hears(socket: &UnixDatagram, word: &str) {
    let listening = async {
        let mut buffer = [0_u8; 4096];
        loop {
            let length = socket.recv(&mut buffer).await.unwrap();
            let said = String::from_utf8_lossy(&buffer[..length]).into_owned();
            if said.lines().any(|line| line == word) {
                return;
            }
        }
    };
    tokio::time::timeout(LONG, listening).await.unwrap_or_else(|_| panic!("systemd never heard {word}"));
}

#[tokio::test]
async fn systemd_hears_ready_watchdog_reload_and_stop() {
    let desk = Desk::new();
    desk.write("");
    let socket = UnixDatagram::bind(desk.path("notify")).unwrap();
    let mut child = program()
        .args(["run", "--config"])
        .arg(desk.config())
        .env("NOTIFY_SOCKET", desk.path("notify"))
        .env("WATCHDOG_USEC", "300000")
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let pid = Pid::from_raw(i32::try_from(child.id().unwrap()).unwrap());
    hears(&socket, "READY=1").await;
    hears(&socket, "WATCHDOG=1").await;
    kill(pid, Signal::SIGHUP).unwrap();
    hears(&socket, "RELOADING=1").await;
    hears(&socket, "READY=1").await;
    kill(pid, Signal::SIGTERM).unwrap();
    hears(&socket, "STOPPING=1").await;
    assert!(tokio::time::timeout(LONG, child.wait()).await.unwrap().unwrap().success());
}
