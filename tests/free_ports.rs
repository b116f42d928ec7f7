//! Ports that the tests give to listeners: nobody else holds them, also while other
//! programs are being started beside.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "support/port.rs"]
mod port;

use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

/// One after the other: what one listens on, the other would find taken.
static TURN: Mutex<()> = Mutex::new(());

#[test]
fn a_free_port_can_be_listened_on_at_once_whatever_is_started_meanwhile() {
    let _turn = TURN.lock();
    let over = AtomicBool::new(false);
    let start = || {
        while !over.load(Ordering::Relaxed) {
            // Between fork and exec a child has whatever its parent had open.
            Command::new("true").stdout(Stdio::null()).status().unwrap();
        }
    };
    std::thread::scope(|scope| {
        let starters = [scope.spawn(start), scope.spawn(start), scope.spawn(start)];
        let held: Vec<u16> = (0..1500)
            .filter_map(|_| {
                let port = port::free_port();
                TcpListener::bind(("127.0.0.1", port)).err().map(|_| port)
            })
            .collect();
        over.store(true, Ordering::Relaxed);
        starters.into_iter().for_each(|starter| starter.join().unwrap());
        assert!(held.is_empty(), "given out and held by somebody: {held:?}");
    });
}

#[test]
fn a_port_that_is_taken_is_not_given_out() {
    let _turn = TURN.lock();
    let first = port::free_port();
    let listeners: Vec<TcpListener> =
        (1..=20).filter_map(|step| TcpListener::bind(("127.0.0.1", first + step)).ok()).collect();
    let taken: Vec<u16> = listeners.iter().map(|one| one.local_addr().unwrap().port()).collect();
    assert!(!taken.is_empty());
    for _ in 0..40 {
        assert!(!taken.contains(&port::free_port()));
    }
}
