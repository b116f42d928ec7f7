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

#[path = "setup/reader_watch.rs"]
mod reader_watch;

use std::ffi::CString;
use std::time::Duration;

use ::pcsc::{Context, Disposition, Protocols, Scope, ShareMode};
use pcscd::Pcscd;
use reader_watch::{listen, ms, next, watch};
use setup::broker::Broker;
use setup::daemon::Site;
use setup::figures::{Figure, Found, digits, quantile};
use setup::fill::OneRow;
use setup::{number, process};
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
    let told = listen(&site, "card", "card.tapped");
    let seen = watch("Virtual PCD 00 00");
    let bare_seen = watch("Virtual PCD 00 01");
    let mut one_row = OneRow::new(&site);

    let (mut ours, mut bare, mut sync) = (Vec::new(), Vec::new(), Vec::new());
    for n in setup::rounds("tap", 0..taps) {
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
