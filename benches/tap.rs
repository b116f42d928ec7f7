//! From the reader's state change to the till: real pcscd, its virtual reader, a
//! card with the chip questions of an NTAG215. Ours: from the moment a context of
//! our own sees the card to `card.tapped` at an HTTP client. In turn with it, on
//! the other slot of the same reader: a bare PC/SC program asking the same
//! questions, and one durable row of a bare rusqlite.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "../tests/support/pcscd.rs"]
mod pcscd;
mod setup;
#[path = "../tests/support/vpcd_card.rs"]
mod vpcd_card;

use std::ffi::CString;
use std::io::{BufRead, BufReader};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use ::pcsc::{Context, Disposition, Protocols, ReaderState, Scope, ShareMode, State};
use pcscd::Pcscd;
use rusqlite::Connection;
use setup::broker::Broker;
use setup::daemon::{Site, program};
use setup::figures::{Figure, Found, digits, quantile};
use setup::{fill, number, process};
use vpcd_card::{DOUBTFUL_ATR, Reply, TestCard, bytes, uid_only};

/// On top of bare APDUs and one sync.
const GRACE_MS: f64 = 5.0;
const LONG: Duration = Duration::from_secs(60);

fn main() {
    let taps = number("BAYGATE_BENCH_TAPS", 150);
    let pcscd = Pcscd::start().expect("the machine's own pcscd is in the way");
    let broker = Broker::start();
    let site = Site::new(&["--no-car"]);
    site.write(broker.port, "kind = \"pcsc\"\nname = \"Virtual PCD 00 00\"");
    let daemon = site.start();
    let told = listen(&site);
    let seen = watch("Virtual PCD 00 00");
    let bare_seen = watch("Virtual PCD 00 01");
    let mut one_row = OneRow::new(&site);

    let (mut ours, mut bare, mut sync) = (Vec::new(), Vec::new(), Vec::new());
    for n in 0..taps {
        let uid = format!("04{:012X}", n + 1);
        let card = card(pcscd.port, &uid);
        let at = next(&seen, true);
        let (line, told_at) = told.recv_timeout(LONG).unwrap_or_else(|_| panic!("no tap:\n{}", site.log()));
        assert!(line.contains(&uid), "{line}");
        let asked = card.apdus.lock().unwrap().clone();
        drop(card);
        next(&seen, false);
        ours.push(ms(told_at.saturating_duration_since(at)));

        let card = self::card(pcscd.port + 1, &uid);
        let at = next(&bare_seen, true);
        ask("Virtual PCD 00 01", &asked);
        bare.push(ms(at.elapsed()));
        drop(card);
        next(&bare_seen, false);
        sync.push(one_row.commit(n));
    }
    let peak = process::peak(daemon.pid());
    let log = site.log();
    daemon.stop();
    assert_eq!(ours.len(), taps, "{log}");

    let mut found = Found::default();
    for (name, share) in [("p50", 0.5), ("p99", 0.99)] {
        let (apdus, row) = (quantile(&bare, share), quantile(&sync, share));
        let mut figure = Figure::limit(
            &format!("card seen to card.tapped at the till, {name}"),
            "ms",
            quantile(&ours, share),
            apdus + row + GRACE_MS,
        );
        figure.peer = format!("{} ms bare APDUs + {} ms sync + {GRACE_MS} ms", digits(apdus), digits(row));
        found.figures.push(figure);
    }
    found.figures.push(Figure::limit("resident memory while tapping, peak", "MB", peak, 30.0));
    found.notes.push(format!("tap: {taps} taps of an NTAG215 on each slot"));
    found.keep("tap");
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// A card that answers as an NTAG215 behind a reader that relays.
fn card(port: u16, uid: &str) -> TestCard {
    let uid = bytes(uid);
    TestCard::insert(port, DOUBTFUL_ATR, move |apdu| {
        Reply::Bytes(match apdu {
            [0xFF, 0, 0, 0, 3, 0xD4, 0x42, 0x60] => {
                bytes("D543000004040201001103 9000".replace(' ', "").as_str())
            }
            other => uid_only(&uid, other),
        })
    })
}

/// Watches one slot through a context of its own: when a card came, when it left.
fn watch(reader: &str) -> Receiver<(bool, Instant)> {
    let (tell, told) = channel();
    let name = CString::new(reader).unwrap();
    std::thread::spawn(move || {
        let context = Context::establish(Scope::System).unwrap();
        let mut states = [ReaderState::new(name, State::UNAWARE)];
        let mut before = false;
        loop {
            match context.get_status_change(Duration::from_secs(3600), &mut states) {
                Ok(()) | Err(::pcsc::Error::Timeout) => {}
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

fn next(seen: &Receiver<(bool, Instant)>, present: bool) -> Instant {
    let (now, at) = seen.recv_timeout(LONG).expect("the reader tells of cards");
    assert_eq!(now, present);
    at
}

/// The same questions, by hand.
fn ask(reader: &str, apdus: &[Vec<u8>]) {
    let context = Context::establish(Scope::System).unwrap();
    let name = CString::new(reader).unwrap();
    let mut card = context.connect(&name, ShareMode::Shared, Protocols::ANY).unwrap();
    let transaction = card.transaction().unwrap();
    let mut buffer = [0; 300];
    for apdu in apdus {
        transaction.transmit(apdu, &mut buffer).unwrap();
    }
    transaction.end(Disposition::LeaveCard).map_err(|(_, error)| error).unwrap();
    card.disconnect(Disposition::LeaveCard).map_err(|(_, error)| error).unwrap();
}

/// An HTTP client on the event stream: each `card.tapped` with the time of its last byte.
fn listen(site: &Site) -> Receiver<(String, Instant)> {
    let made = program()
        .args(["token", "create", "--name", "bench", "--scopes", "read", "--json", "--config"])
        .arg(site.config())
        .output()
        .unwrap();
    let made: serde_json::Value = serde_json::from_slice(&made.stdout).unwrap();
    let token = made["token"].as_str().unwrap().to_owned();
    let line = site.says("baygate is running");
    let address = line.split("api=").nth(1).unwrap().split_whitespace().next().unwrap().to_owned();
    let answer = ureq::get(format!("http://{address}/v1/events?class=card"))
        .header("Authorization", format!("Bearer {token}"))
        .call()
        .unwrap();
    let mut lines = BufReader::new(answer.into_body().into_reader()).lines();
    // The first line comes at once: the stream is open.
    lines.next().unwrap().unwrap();
    let (tell, told) = channel();
    std::thread::spawn(move || {
        for line in lines.map_while(Result::ok) {
            if line.starts_with("data:") && line.contains("baygate.card.tapped") {
                let _ = tell.send((line, Instant::now()));
            }
        }
    });
    told
}

/// One row, durable, without us.
struct OneRow {
    conn: Connection,
}

impl OneRow {
    fn new(site: &Site) -> Self {
        let conn = Connection::open(site.folder.path().join("one-row.db")).unwrap();
        conn.execute_batch("PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; CREATE TABLE row (body TEXT)")
            .unwrap();
        Self { conn }
    }

    fn commit(&mut self, n: usize) -> f64 {
        let body = fill::body(n);
        let began = Instant::now();
        self.conn.execute("INSERT INTO row VALUES (?1)", [body]).unwrap();
        ms(began.elapsed())
    }
}
