//! What happens at a reader, with its time: a card comes or leaves, as a PC/SC context of
//! our own sees it, and the event of it at an HTTP client.

use std::ffi::CString;
use std::io::{BufRead, BufReader};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use pcsc::{Context, ReaderState, Scope, State};

use crate::setup::daemon::{Site, program};

const LONG: Duration = Duration::from_secs(60);

/// In milliseconds.
pub fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// Watches one slot through a context of its own: when a card came, when it left.
pub fn watch(reader: &str) -> Receiver<(bool, Instant)> {
    let (tell, told) = channel();
    let name = CString::new(reader).unwrap();
    std::thread::spawn(move || {
        let context = Context::establish(Scope::System).unwrap();
        let mut states = [ReaderState::new(name, State::UNAWARE)];
        let mut before = false;
        loop {
            match context.get_status_change(Duration::from_secs(3600), &mut states) {
                Ok(()) | Err(pcsc::Error::Timeout) => {}
                Err(_) => return,
            }
            let (now, at) = (states[0].event_state().contains(State::PRESENT), Instant::now());
            states[0].sync_current_state();
            if now != before && tell.send((now, at)).is_err() {
                return;
            }
            before = now;
        }
    });
    told
}

pub fn next(seen: &Receiver<(bool, Instant)>, present: bool) -> Instant {
    let (now, at) = seen.recv_timeout(LONG).expect("the reader tells of cards");
    assert_eq!(now, present);
    at
}

/// An HTTP client on the event stream: each event of this class and type with the time of its last byte.
pub fn listen(site: &Site, class: &str, kind: &str) -> Receiver<(String, Instant)> {
    let made = program()
        .args(["token", "create", "--name", class, "--scopes", "read", "--json", "--config"])
        .arg(site.config())
        .output()
        .unwrap();
    let made: serde_json::Value = serde_json::from_slice(&made.stdout).unwrap();
    let token = made["token"].as_str().unwrap().to_owned();
    let line = site.says("baygate is running");
    let address = line.split("api=").nth(1).unwrap().split_whitespace().next().unwrap().to_owned();
    let answer = ureq::get(format!("http://{address}/v1/events?class={class}"))
        .header("Authorization", format!("Bearer {token}"))
        .call()
        .unwrap();
    let mut lines = BufReader::new(answer.into_body().into_reader()).lines();
    // The first line comes at once: the stream is open.
    lines.next().unwrap().unwrap();
    let (tell, told) = channel();
    let kind = format!("\"baygate.{kind}\"");
    std::thread::spawn(move || {
        for line in lines.map_while(Result::ok) {
            if line.starts_with("data:") && line.contains(&kind) {
                let _ = tell.send((line, Instant::now()));
            }
        }
    });
    told
}
