//! The table's decisions, without pcscd.

use wildmatch::WildMatch;

use super::bank::serves;
use super::worker::Outcome;
use super::*;
use crate::card::report::Condition;
use crate::card::report::Report;
use crate::event::device::DeviceStatus;

#[test]
fn globs_and_sam_slots() {
    let cases = [
        ("ACS ACR122U*", ReaderRole::Card, "ACS ACR122U PICC Interface 00 00", true),
        ("ACS ACR122U*", ReaderRole::Card, "HID Omnikey 5022 00 00", false),
        ("*", ReaderRole::Card, "Virtual PCD 00 01", true),
        ("Virtual PCD 00 0?", ReaderRole::Card, "Virtual PCD 00 01", true),
        ("ACS ACR1252*", ReaderRole::Card, "ACS ACR1252 Dual Reader SAM 00 01", false),
        ("ACS ACR1252*", ReaderRole::Sam, "ACS ACR1252 Dual Reader SAM 00 01", true),
        ("*", ReaderRole::Card, "SAMSUNG reader 00 00", true),
    ];
    for (name_glob, role, name, expected) in cases {
        assert_eq!(serves(&WildMatch::new(name_glob), role, name), expected, "{name_glob} on {name}");
    }
}

/// A bank and what it reports, as short words; repeated states once.
struct Bench {
    bank: Bank,
    reports: mpsc::Receiver<Report>,
    _outcomes: mpsc::Receiver<Outcome>,
}

impl Bench {
    fn new(role: ReaderRole) -> Self {
        Self::with(role, "R2")
    }

    /// Where a SAM is looked for in readers of this name.
    fn with(role: ReaderRole, sams: &str) -> Self {
        let (sender, reports) = mpsc::channel(64);
        let (outcomes, finished) = mpsc::channel(16);
        let cards = if role == ReaderRole::Card { vec!["R*".to_owned()] } else { Vec::new() };
        let globs = ReaderGlobs { sams: vec![sams.to_owned()], cards };
        let bank = Bank::new("R*".into(), (role, &globs), None, Reports(sender), outcomes);
        Self { bank, reports, _outcomes: finished }
    }

    async fn see(&mut self, notice: Notice) -> Vec<String> {
        self.bank.notice(notice).await.unwrap();
        let mut words = Vec::new();
        while let Ok(report) = self.reports.try_recv() {
            words.push(match report {
                Report::State(Condition { status: DeviceStatus::Ready, .. }) => "ready".to_owned(),
                Report::State(condition) => condition.reason.unwrap_or("starting").to_owned(),
                Report::AllEmpty => "all-empty".to_owned(),
                other => format!("{other:?}"),
            });
        }
        words
    }
}

fn readers(names: &[&str]) -> Notice {
    Notice::Readers(names.iter().map(|name| (*name).to_owned()).collect())
}

fn present(reader: &str) -> Notice {
    laid(reader, &[0x3B, 0x00])
}

fn laid(reader: &str, atr: &[u8]) -> Notice {
    Notice::Present { reader: reader.into(), atr: atr.to_vec(), seen: Instant::now() }
}

/// DESFire through a contactless reader.
const CONTACTLESS: [u8; 6] = [0x3B, 0x81, 0x80, 0x01, 0x80, 0x80];

#[tokio::test]
async fn emptiness_is_said_only_when_all_was_looked_at() {
    // SAM slots show presence without a word to what is in them.
    let mut bench = Bench::new(ReaderRole::Sam);
    let nothing: [&str; 0] = [];
    assert_eq!(bench.see(readers(&["R1", "other"])).await, nothing);
    assert_eq!(bench.see(present("R1")).await, nothing);
    assert_eq!(bench.see(Notice::Looked).await, ["ready"]);
    assert_eq!(bench.see(present("other")).await, nothing, "does not match the glob");
    // The reader is unplugged with what is in it.
    assert_eq!(bench.see(readers(&["other"])).await, nothing);
    assert_eq!(bench.see(Notice::Looked).await, ["all-empty", "reader-missing"]);
    // And comes back, empty.
    assert_eq!(bench.see(readers(&["other", "R1"])).await, nothing);
    assert_eq!(bench.see(Notice::Empty { reader: "R1".into() }).await, nothing);
    assert_eq!(bench.see(Notice::Looked).await, ["sam-missing"]);
}

#[tokio::test]
async fn a_member_card_in_the_slot_is_no_sam() {
    let mut bench = Bench::new(ReaderRole::Sam);
    assert_eq!(bench.see(readers(&["R1"])).await, [""; 0]);
    assert_eq!(bench.see(laid("R1", &CONTACTLESS)).await, [""; 0]);
    assert_eq!(bench.see(Notice::Looked).await, ["all-empty", "sam-missing"]);
    assert_eq!(bench.see(present("R1")).await, [""; 0]);
    assert_eq!(bench.see(Notice::Looked).await, ["ready"]);
    // A reader with a slot that says SAM comes: that one is meant, also empty.
    assert_eq!(bench.see(readers(&["R1", "R SAM"])).await, [""; 0]);
    assert_eq!(bench.see(Notice::Looked).await, ["all-empty", "sam-missing"]);
    bench.see(present("R SAM")).await;
    assert_eq!(bench.see(Notice::Looked).await, ["ready"]);
    // It leaves; the other is there still, alone.
    bench.see(readers(&["R1"])).await;
    assert_eq!(bench.see(Notice::Looked).await, ["ready"]);
    // One of two that do not say it could be a customer's.
    bench.see(readers(&["R1", "R2"])).await;
    assert_eq!(bench.see(Notice::Looked).await, ["all-empty", "reader-missing"]);
}

/// What lies there before the first look is over, in any order.
#[tokio::test]
async fn a_chip_card_is_a_members_where_another_slot_says_sam() {
    let tapped = |bench: &Bench| bench.bank.is_occupied("R ICC");
    for laid in [&["R SAM", "R ICC"][..], &["R ICC", "R SAM"], &["R ICC"]] {
        let mut bench = Bench::with(ReaderRole::Card, "R*");
        bench.see(readers(&["R ICC", "R SAM"])).await;
        for reader in laid {
            bench.see(present(reader)).await;
        }
        bench.see(Notice::Looked).await;
        assert!(tapped(&bench), "{laid:?}");
        // The reader that says SAM goes: the member's card stays one.
        bench.see(readers(&["R ICC"])).await;
        bench.see(Notice::Looked).await;
        assert!(tapped(&bench));
        // And so does what is laid there now: the table says that the reader is for cards, and that
        // no other one is plugged in says nothing.
        bench.see(present("R ICC")).await;
        bench.see(Notice::Looked).await;
        assert!(tapped(&bench));
    }
    // A table that names it more exactly than the cards' has it for its SAM.
    let mut bench = Bench::with(ReaderRole::Card, "R ICC");
    bench.see(readers(&["R ICC", "R1"])).await;
    bench.see(present("R ICC")).await;
    bench.see(present("R1")).await;
    bench.see(Notice::Looked).await;
    assert!(!tapped(&bench) && bench.bank.is_occupied("R1"));
    // A mute card is told as one that cannot be read.
    let mut bench = Bench::with(ReaderRole::Card, "R*");
    bench.see(readers(&["R1", "R2"])).await;
    bench.see(laid("R1", &[])).await;
    bench.see(Notice::Looked).await;
    assert!(bench.bank.is_occupied("R1"));
}

#[tokio::test]
async fn a_service_that_is_down_empties_everything() {
    let mut bench = Bench::new(ReaderRole::Card);
    assert_eq!(bench.see(Notice::Down(pcsc::Error::NoService)).await, ["all-empty", "pcscd-missing"]);
    assert_eq!(bench.see(readers(&["R1"])).await, [""; 0]);
    assert_eq!(bench.see(Notice::Looked).await, ["ready"]);
    assert_eq!(bench.see(Notice::Down(pcsc::Error::NoService)).await, ["pcscd-missing"]);
}
