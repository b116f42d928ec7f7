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
use baygate::sim::card::Technology;
use member_card::{MemberCard, Tape, ask};
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

/// What is measured with, and where.
struct Counter<'a> {
    rounds: usize,
    port: u16,
    site: &'a Site,
    runtime: &'a tokio::runtime::Runtime,
    client: &'a Client,
    told: Receiver<(String, Instant)>,
    sold: Receiver<(String, Instant)>,
    seen: Receiver<(bool, Instant)>,
    bare_seen: Receiver<(bool, Instant)>,
    one_row: OneRow,
}

/// Milliseconds of each, and what was said.
struct Measured {
    debits: Vec<f64>,
    bare_debits: Vec<f64>,
    taps: Vec<f64>,
    bare_taps: Vec<f64>,
    syncs: Vec<f64>,
    at_the_till: Vec<f64>,
    /// Commands of a debit.
    said: usize,
    /// The last tap.
    tape: Tape,
}

fn main() {
    let pcscd = Pcscd::start().expect("the machine's own pcscd is in the way");
    let broker = Broker::start();
    let site = Site::new(&["--no-car"]);
    site.write(broker.port, &format!("kind = \"pcsc\"\nname = \"{OURS}\""));
    site.keep_card_keys();
    let daemon = site.start();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let client = runtime.block_on(async { Client::connect(site.control_socket()).await }).unwrap();
    let mut counter = Counter {
        rounds: number("BAYGATE_BENCH_DEBITS", 100),
        port: pcscd.port,
        site: &site,
        runtime: &runtime,
        client: &client,
        told: listen(&site, "card", "card.tapped"),
        sold: listen(&site, "ledger", "card.transaction"),
        seen: watch(OURS),
        bare_seen: watch(BARE),
        one_row: OneRow::new(&site),
    };
    let mut found = Found::default();
    let ntag = MemberCard::blank(Technology::Ntag215);
    let of_ntag = counter.measure(&ntag, "8800000042");
    let of_desfire = counter.measure(&MemberCard::blank(Technology::Desfire), "8800000043");
    daemon.stop();
    let peer = counter.nfc_pcsc(&ntag, &of_ntag.tape);
    let half = |of: &[f64]| quantile(of, 0.5);

    for (card, of) in [("", &of_ntag), (", DESFire EV2", &of_desfire)] {
        let (bare, sync) = (half(&of.bare_debits), half(&of.syncs));
        let parts = format!("{} ms bare APDUs + {SYNCS} × {} ms sync", digits(bare), digits(sync));
        let bound = bare + SYNCS * sync;
        let figure = format!("a debit over HTTP{card}, p50");
        found.figures.push(beside(&figure, half(&of.debits), bound * MOST, parts, bound));
        let bare = half(&of.bare_taps);
        let parts = format!("{} ms bare APDUs + {} ms sync", digits(bare), digits(sync));
        let bound = bare + sync;
        let figure = format!("member card{card} seen to card.tapped at the till, p50");
        found.figures.push(beside(&figure, half(&of.taps), bound * MOST, parts, bound));
        let late = [&of.taps, &of.bare_taps, &of.syncs].map(|of| quantile(of, 0.99));
        let [late, late_bare, late_sync] = late;
        let figure = format!("member card{card} seen to card.tapped at the till, p99");
        let mut figure = Figure::limit(&figure, "ms", late, late_bare + late_sync + GRACE_MS);
        figure.peer =
            format!("{} ms bare APDUs + {} ms sync + {GRACE_MS} ms", digits(late_bare), digits(late_sync));
        found.figures.push(figure);
    }
    let sync = quantile(&of_ntag.syncs, 0.99);
    let sold = quantile(&of_ntag.at_the_till, 0.99);
    let name = "card.transaction made, committed and at the till, p99";
    let mut figure = Figure::limit(name, "ms", sold, sync + GRACE_MS);
    figure.peer = format!("{} ms sync + {GRACE_MS} ms", digits(sync));
    found.figures.push(figure);
    found.figures.push(Figure::told(
        "the same card by nfc-pcsc, which keeps nothing, p50",
        format!("{} ms", digits(half(&of_ntag.taps))),
        format!("{} ms", digits(half(&peer))),
    ));
    found.notes.push(format!(
        "counter: member cards at 106 kbit/s, {rounds} debits and {rounds} taps each: of an NTAG215 {} and {} commands, \
         of a DESFire EV2 {} and {}; peer nfc-pcsc 0.8.1 with the NTAG215",
        of_ntag.said,
        of_ntag.tape.len(),
        of_desfire.said,
        of_desfire.tape.len(),
        rounds = counter.rounds,
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

impl Counter<'_> {
    fn post(&self, path: &str, body: &Value, key: &str) -> Value {
        let asked = self.client.request_with_key(Method::POST, path, Some(body), Some(key));
        let answer = self.runtime.block_on(asked).unwrap();
        answer.accepted().unwrap_or_else(|error| panic!("{error}\n{}", self.site.log()))
    }

    /// The daemon's own commands, from a bare program.
    fn bare(&self, card: &MemberCard, tape: &Tape) -> f64 {
        let card = card.lay_tape(self.port + 1, tape);
        let at = next(&self.bare_seen, true);
        ask(BARE, tape);
        let took = ms(at.elapsed());
        drop(card);
        next(&self.bare_seen, false);
        took
    }

    /// A card is issued and charged; then debits, then taps, each beside the bare work.
    fn measure(&mut self, card: &MemberCard, card_no: &str) -> Measured {
        let deal = format!("/v1/cards/{card_no}/transactions");
        let laid = card.lay(self.port);
        next(&self.seen, true);
        self.post("/v1/cards", &json!({ "card_no": card_no, "type": "named" }), &format!("issue-{card_no}"));
        let cash = json!([{ "kind": "cash", "amount_fen": 50_000 }]);
        let topup = json!({ "kind": "topup", "amount_fen": 50_000, "tenders": cash });
        self.post(&deal, &topup, &format!("topup-{card_no}"));
        self.sold.recv_timeout(LONG).expect("the top-up at the till");
        let (mut debits, mut bare_debits, mut syncs, mut said) = (Vec::new(), Vec::new(), Vec::new(), 0);
        let mut at_the_till = Vec::new();
        for n in setup::rounds("counter, debits", 0..self.rounds) {
            card.tape();
            let began = Instant::now();
            let body = json!({ "kind": "spend", "amount_fen": 1, "order": format!("A-{n}") });
            let done = self.post(&deal, &body, &format!("spend-{card_no}-{n}"));
            debits.push(ms(began.elapsed()));
            assert_eq!(done["outcome"], "committed", "{done}");
            let (line, told_at) = self.sold.recv_timeout(LONG).expect("the sale at the till");
            at_the_till.push(since_made(&line, told_at));
            let tape = card.tape();
            said = tape.len();
            bare_debits.push(self.bare(card, &tape));
            syncs.push(self.one_row.commit(n));
        }
        drop(laid);
        next(&self.seen, false);

        let (mut taps, mut bare_taps, mut tape) = (Vec::new(), Vec::new(), Tape::new());
        while self.told.try_recv().is_ok() {}
        for _ in setup::rounds("counter, taps", 0..self.rounds) {
            card.tape();
            let laid = card.lay(self.port);
            let at = next(&self.seen, true);
            let told = self.told.recv_timeout(LONG);
            let (line, told_at) = told.unwrap_or_else(|_| panic!("no tap:\n{}", self.site.log()));
            assert!(line.contains(card_no), "{line}");
            taps.push(ms(told_at.saturating_duration_since(at)));
            drop(laid);
            next(&self.seen, false);
            tape = card.tape();
            bare_taps.push(self.bare(card, &tape));
        }
        Measured { debits, bare_debits, taps, bare_taps, syncs, at_the_till, said, tape }
    }

    /// The peer's time for the same tap.
    fn nfc_pcsc(&self, card: &MemberCard, tape: &Tape) -> Vec<f64> {
        let mut nfc_pcsc = NfcPcsc::start(tape);
        let mut took = Vec::new();
        for _ in setup::rounds("counter, nfc-pcsc", 0..self.rounds) {
            let laid = card.lay_tape(self.port + 1, tape);
            let at = next(&self.bare_seen, true);
            took.push(ms(nfc_pcsc.read().saturating_duration_since(at)));
            drop(laid);
            next(&self.bare_seen, false);
        }
        took
    }
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
