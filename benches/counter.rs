//! A member card at the counter at 106 kbit/s: what the gateway adds to a tap and to a
//! debit, beside the same APDUs from a bare PC/SC program and as many syncs, and
//! nfc-pcsc asking the same card on the same virtual reader.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]

#[path = "../tests/support/pcscd.rs"]
mod pcscd;
mod setup;
#[path = "../tests/support/vpcd_card.rs"]
mod vpcd_card;

#[path = "setup/member_card.rs"]
mod member_card;
#[path = "setup/reader_watch.rs"]
mod reader_watch;

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use baygate::api::client::{Client, Method};
use member_card::{MemberCard, Tape, ask, lay_tape};
use pcscd::Pcscd;
use reader_watch::{listen, ms, next, watch};
use serde_json::{Value, json};
use setup::broker::Broker;
use setup::daemon::Site;
use setup::figures::{Figure, Found, digits, quantile};
use setup::fill::OneRow;
use setup::{node_peers, number};

const LONG: Duration = Duration::from_secs(60);
const OURS: &str = "Virtual PCD 00 00";
const BARE: &str = "Virtual PCD 00 01";
/// What the gateway may take, as a multiple of the bare work.
const MOST: f64 = 1.3;
/// A debit is two facts: the intent before the card is written, the outcome after.
const SYNCS: f64 = 2.0;
/// What a till may wait for a tap beyond the bare work, p99.
const GRACE_MS: f64 = 20.0;

fn main() {
    let rounds = number("BAYGATE_BENCH_DEBITS", 100);
    let pcscd = Pcscd::start().expect("the machine's own pcscd is in the way");
    let broker = Broker::start();
    let site = Site::new(&["--no-car"]);
    site.write(broker.port, &format!("kind = \"pcsc\"\nname = \"{OURS}\""));
    site.keep_card_keys();
    let daemon = site.start();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let client = runtime.block_on(async { Client::connect(site.control_socket()).await }).unwrap();
    let post = |path: &str, body: Value, key: String| {
        let answer = runtime.block_on(client.request_with_key(Method::POST, path, Some(&body), Some(&key)));
        answer.unwrap().accepted().unwrap_or_else(|error| panic!("{error}\n{}", site.log()))
    };
    let (told, sold) = (listen(&site, "card", "card.tapped"), listen(&site, "ledger", "card.transaction"));
    let (seen, bare_seen) = (watch(OURS), watch(BARE));
    let mut one_row = OneRow::new(&site);
    let card = MemberCard::blank();
    let laid = card.lay(pcscd.port);
    next(&seen, true);
    post("/v1/cards", json!({ "card_no": "8800000042", "type": "named" }), "issue".into());
    let topup = json!({ "kind": "topup", "amount_fen": 50_000, "tenders": [{ "kind": "cash", "amount_fen": 50_000 }] });
    post("/v1/cards/8800000042/transactions", topup, "topup".into());
    sold.recv_timeout(LONG).expect("the top-up at the till");

    let bare = |tape: &Tape| {
        let card = lay_tape(pcscd.port + 1, tape);
        let at = next(&bare_seen, true);
        ask(BARE, tape);
        let took = ms(at.elapsed());
        drop(card);
        next(&bare_seen, false);
        took
    };
    let (mut debits, mut bare_debits, mut syncs) = (Vec::new(), Vec::new(), Vec::new());
    let mut at_the_till = Vec::new();
    let mut said = 0;
    for n in 0..rounds {
        card.tape();
        let began = Instant::now();
        let body = json!({ "kind": "spend", "amount_fen": 1, "order": format!("A-{n}") });
        let done = post("/v1/cards/8800000042/transactions", body, format!("spend-{n}"));
        debits.push(ms(began.elapsed()));
        assert_eq!(done["outcome"], "committed", "{done}");
        let (line, told_at) = sold.recv_timeout(LONG).expect("the sale at the till");
        at_the_till.push(since_made(&line, told_at));
        let tape = card.tape();
        said = tape.len();
        bare_debits.push(bare(&tape));
        syncs.push(one_row.commit(n));
    }
    drop(laid);
    next(&seen, false);

    let (mut taps, mut bare_taps) = (Vec::new(), Vec::new());
    let mut tape = Tape::new();
    while told.try_recv().is_ok() {}
    for _ in 0..rounds {
        card.tape();
        let laid = card.lay(pcscd.port);
        let at = next(&seen, true);
        let (line, told_at) = told.recv_timeout(LONG).unwrap_or_else(|_| panic!("no tap:\n{}", site.log()));
        assert!(line.contains("8800000042"), "{line}");
        taps.push(ms(told_at.saturating_duration_since(at)));
        drop(laid);
        next(&seen, false);
        tape = card.tape();
        bare_taps.push(bare(&tape));
    }
    daemon.stop();

    let mut nfc_pcsc = NfcPcsc::start(&tape);
    let peer: Vec<f64> = (0..rounds)
        .map(|_| {
            let card = lay_tape(pcscd.port + 1, &tape);
            let at = next(&bare_seen, true);
            let took = ms(nfc_pcsc.read().saturating_duration_since(at));
            drop(card);
            next(&bare_seen, false);
            took
        })
        .collect();

    let mut found = Found::default();
    let half = |of: &[f64]| quantile(of, 0.5);
    let bound = half(&bare_debits) + SYNCS * half(&syncs);
    found.figures.push(beside(
        "a debit over HTTP, p50",
        half(&debits),
        bound * MOST,
        format!("{} ms bare APDUs + {SYNCS} × {} ms sync", digits(half(&bare_debits)), digits(half(&syncs))),
        bound,
    ));
    let bound = half(&bare_taps) + half(&syncs);
    found.figures.push(beside(
        "member card seen to card.tapped at the till, p50",
        half(&taps),
        bound * MOST,
        format!("{} ms bare APDUs + {} ms sync", digits(half(&bare_taps)), digits(half(&syncs))),
        bound,
    ));
    let (late, late_bare, late_sync) =
        (quantile(&taps, 0.99), quantile(&bare_taps, 0.99), quantile(&syncs, 0.99));
    let mut figure = Figure::limit(
        "member card seen to card.tapped at the till, p99",
        "ms",
        late,
        late_bare + late_sync + GRACE_MS,
    );
    figure.peer =
        format!("{} ms bare APDUs + {} ms sync + {GRACE_MS} ms", digits(late_bare), digits(late_sync));
    found.figures.push(figure);
    let late_sync = quantile(&syncs, 0.99);
    let mut figure = Figure::limit(
        "card.transaction made, committed and at the till, p99",
        "ms",
        quantile(&at_the_till, 0.99),
        late_sync + GRACE_MS,
    );
    figure.peer = format!("{} ms sync + {GRACE_MS} ms", digits(late_sync));
    found.figures.push(figure);
    found.figures.push(Figure::told(
        "the same card by nfc-pcsc, which keeps nothing, p50",
        format!("{} ms", digits(half(&taps))),
        format!("{} ms", digits(half(&peer))),
    ));
    found.notes.push(format!(
        "counter: an NTAG215 member card at 106 kbit/s, {rounds} debits of {said} commands, {rounds} taps of {} commands; peer nfc-pcsc 0.8.1",
        tape.len()
    ));
    found.keep("counter");
}

/// From the moment that an event says it was made, which is before its commit, till it was here: the
/// wait behind the commit is less.
fn since_made(line: &str, at: Instant) -> f64 {
    let event: Value = serde_json::from_str(line.trim_start_matches("data:")).unwrap();
    let made: jiff::Timestamp = event["time"].as_str().unwrap().parse().unwrap();
    let here = jiff::Timestamp::now().as_millisecond() as f64 - ms(at.elapsed());
    (here - made.as_millisecond() as f64).max(0.0)
}

/// Ours against a multiple of the bare work; the ratio is to the bare work itself.
fn beside(figure: &str, ours: f64, most: f64, peer: String, bare: f64) -> Figure {
    let mut row = Figure::limit(figure, "ms", ours, most);
    (row.peer, row.ratio, row.wanted) = (peer, Some(ours / bare), format!("≤ {MOST}"));
    row
}

/// The peer, told what to ask. Ends when dropped.
struct NfcPcsc {
    child: Child,
    lines: Receiver<(String, Instant)>,
}

impl NfcPcsc {
    fn start(tape: &Tape) -> Self {
        let words: Vec<String> = tape.iter().map(|(apdu, _)| hex::encode(apdu)).collect();
        let mut child = Command::new("node")
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/benches/peers/nfc_pcsc.js"))
            .args([BARE, &words.join(" ")])
            .env("NODE_PATH", node_peers())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert_eq!(lines.next().unwrap().unwrap(), "ready");
        let (tell, told) = channel();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                if tell.send((line, Instant::now())).is_err() {
                    return;
                }
            }
        });
        Self { child, lines: told }
    }

    fn read(&mut self) -> Instant {
        let (line, at) = self.lines.recv_timeout(LONG).expect("nfc-pcsc reads the card");
        assert_eq!(line, "read");
        at
    }
}

impl Drop for NfcPcsc {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
