//! Invariant: bytes to a vehicle pass one gate. A whole day at a bay is recorded
//! at the far end of the wire, and every byte must belong to a list written down
//! here, apart from the code's own.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod vehicle_bay;

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use baygate::config::tables::{Poll, VehicleTable};
use baygate::vehicle::gate::group::GroupRequest;
use vehicle_bay::dongle::{Dongle, good};
use vehicle_bay::{Bay, open_store, quick, table};

/// Commands of the adapter that cannot change a car.
const AT: [&str; 21] = [
    "ATZ", "ATE0", "ATE1", "ATL0", "ATS0", "ATH1", "ATAT0", "ATAT1", "ATAT2", "ATST19", "ATST32", "ATSTFF",
    "ATSP0", "ATDPN", "ATPC", "ATFE", "ATI", "AT@1", "STDI", "ATRV", "ATAR",
];

/// Commands of the adapter that choose the bus and the unit asked: a battery car is looked for
/// by its units' own addresses of diagnosis (ISO 15765-4) on the usual CAN bus.
fn addresses(command: &str) -> bool {
    let unit = |id: &str, first: &[&str]| {
        id.len() == 3 && first.iter().any(|f| id.starts_with(f)) && id.bytes().all(|b| b.is_ascii_hexdigit())
    };
    match command.get(..4) {
        Some("ATSP") => ["6", "7"].contains(&&command[4..]),
        Some("ATSH") => {
            ["7DF", "DB33F1"].contains(&&command[4..])
                || unit(&command[4..], &["7E"])
                || command.len() == 10 && command[4..].starts_with("DA") && command.ends_with("F1")
        }
        Some("ATCR") => {
            unit(&command[5..], &["7E"]) || command.len() == 13 && command[5..].starts_with("18DAF1")
        }
        Some("ATCP") => command == "ATCP18",
        _ => false,
    }
}

/// Read-only services, with the number of hex digits that may follow; one more is the count of lines.
fn is_read_only(command: &str) -> bool {
    let digits = command.len();
    command.bytes().all(|b| b.is_ascii_digit() || (b'A'..=b'F').contains(&b))
        && match command.get(..2) {
            Some("01") => (4..=15).contains(&digits),
            Some("06" | "09") if digits <= 5 => digits >= 4,
            // Masks of monitors, up to six.
            Some("06") => {
                let masks = &command.as_bytes()[2..digits & !1];
                digits <= 15 && masks.chunks(2).all(|mask| b"02468ACE".contains(&mask[0]) && mask[1] == b'0')
            }
            // A PID and its frame's number, up to three times.
            Some("02") => [6, 10, 14].contains(&(digits & !1)),
            // Which controls there are: the masks, and nothing that controls.
            Some("08") => {
                command.len() == 4
                    && ["00", "20", "40", "60", "80", "A0", "C0", "E0"].contains(&&command[2..])
            }
            Some("03" | "07" | "0A") => digits == 2 || digits == 3,
            // UDS: one record by its identifier, or up to three of OBD's own.
            Some("22") if digits > 7 => {
                let dids = &command.as_bytes()[2..digits & !1];
                digits <= 15
                    && dids.len().is_multiple_of(4)
                    && dids.chunks(4).all(|did| did.starts_with(b"F4"))
            }
            Some("22") => digits == 6,
            // Its codes by status, the records of one, and all it could store.
            Some("19") => match &command[2..digits.min(4)] {
                "02" => digits == 6,
                "04" | "06" => digits == 12,
                "0A" => digits == 4,
                _ => false,
            },
            _ => false,
        }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_byte_of_a_day_belongs_to_the_list() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_store(dir.path());
    // 0 good, 1 silent bus, 2 spoilt, 3 restarts, 4 nothing at all, 5 echo on, interrupted
    let mood = Arc::new(AtomicU8::new(0));
    let acting = Arc::clone(&mood);
    let dongle = Dongle::on_pty(
        dir.path(),
        Arc::new(move |command: &str| match acting.load(Ordering::SeqCst) {
            1 if command.starts_with('0') => b"SEARCHING...\rUNABLE TO CONNECT\r\r>".to_vec(),
            2 if command.starts_with("01") => b"7E8 03 7F 01 78\r7E8 06 41 <RX ERROR\r\r>".to_vec(),
            3 if command.starts_with("01") => b"\r\rELM327 v1.5\r\r>".to_vec(),
            4 => Vec::new(),
            5 => format!("{command}\rSTOPPED\r\r>").into_bytes(),
            _ => good(command).into_bytes(),
        }),
    );
    let bay = Bay::start(&store, "bay-1", &dongle.link, Poll::Auto);
    bay.nth("vehicle.report", 1).await;
    bay.scan().await;
    for (now, reason) in [
        (1, "no-obd-answer"),
        (0, ""),
        (3, "adapter-restarting"),
        (0, ""),
        (4, "adapter-silent"),
        (0, ""),
        // Interrupted while it is set up, or while the car is asked.
        (5, "not-elm327|no-obd-answer"),
        (2, ""),
        (0, ""),
    ] {
        mood.store(now, Ordering::SeqCst);
        if reason.is_empty() {
            bay.scan().await;
        } else {
            bay.until_state(reason, |row| {
                row.state.reason.as_deref().is_some_and(|now| reason.split('|').any(|one| one == now))
            })
            .await;
        }
    }
    bay.nth("vehicle.arrived", 2).await;
    bay.stop().await;

    let heard = dongle.heard_text();
    let commands: Vec<&str> = heard.split('\r').collect();
    assert!(commands.len() > 100, "a whole session: {}", commands.len());
    assert_eq!(commands.last(), Some(&""), "every command is ended");
    for command in &commands[..commands.len() - 1] {
        // DEL interrupts, and a line of X is no request; so it is met, and found again.
        let allowed = ["\u{7F}\u{7F}", "\u{7F}XXXXXXXX", "XXXXXXXX"].contains(command)
            || AT.contains(command)
            || addresses(command)
            || is_read_only(command);
        assert!(allowed, "{command:?} is not on the list");
    }
    assert!(!commands[..commands.len() - 1].contains(&""), "a lone CR would repeat the last command");
}

/// A set may say where a unit answers, never whom else to ask: the header stays one of diagnosis,
/// flow control goes to who was asked and says "send on", and all is set back afterwards.
#[tokio::test(flavor = "multi_thread")]
async fn a_set_that_says_where_units_answer_adds_no_byte_to_the_car() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_store(dir.path());
    let set = dir.path().join("set.json");
    let command = |head: &str| format!(r#"{{"hdr":{head},"freq":1,"signals":[]}}"#);
    let commands: Vec<_> = [
        r#""710","rax":"77A","cmd":{"22":"F187"}"#,
        r#""745","rax":"100","cmd":{"21":"01"}"#,
        r#""710","rax":"77A","cmd":{"2E":"F18700"}"#,
        r#""710","rax":"77A","cmd":{"01":"0C"}"#,
        r#""7E8","rax":"77A","cmd":{"22":"F187"}"#,
        r#""100","rax":"77A","cmd":{"22":"F187"}"#,
    ]
    .map(command)
    .into();
    std::fs::write(&set, format!(r#"{{"commands":[{}]}}"#, commands.join(","))).unwrap();
    let dongle = Dongle::echoing_on_tcp(Arc::new(|command: &str| good(command).into_bytes())).await;
    let table = VehicleTable { signals: vec![set], ..table("bay-1", &dongle.link, Poll::Auto) };
    let bay = Bay::start_table(&store, table, quick());
    bay.nth("vehicle.report", 1).await;
    bay.scan().await;
    bay.stop().await;
    let heard = dongle.heard_text();
    let commands: Vec<&str> = heard.split_terminator('\r').collect();
    for command in &commands {
        let paired = [
            "ATSH710",
            "ATCRA77A",
            "ATFCSH710",
            "ATSH745",
            "ATCRA100",
            "ATFCSH745",
            "ATFCSD300000",
            "ATFCSM1",
            "ATFCSM0",
            "2101",
        ];
        let allowed = ["\u{7F}\u{7F}", "\u{7F}XXXXXXXX", "XXXXXXXX"].contains(command)
            || AT.contains(command)
            || addresses(command)
            || paired.contains(command)
            || is_read_only(command);
        assert!(allowed, "{command:?} is not on the list");
    }
    // Between a question to such a unit and the next to everybody the adapter is set back.
    let asked = commands.iter().position(|command| *command == "ATFCSM1").expect("the unit is asked");
    let later = &commands[asked..];
    let back = later.iter().position(|command| *command == "ATFCSM0").expect("set back");
    let others = later.iter().position(|command| command.starts_with('0')).unwrap_or(usize::MAX);
    assert!(back < others, "{later:?}");
}

/// What is said before the first prompt, and the one command that makes a dongle silent.
const SILENCED: &str = "\u{7F}XXXXXXXX\rATCSM1\r";

#[tokio::test(flavor = "multi_thread")]
async fn listen_only_silences_the_dongle_and_sends_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_store(dir.path());
    let dongle = Dongle::on_tcp(Arc::new(|command: &str| good(command).into_bytes())).await;
    let bay = Bay::start(&store, "bay-1", &dongle.link, Poll::ListenOnly);
    bay.until_reason(Some("listen-only")).await;
    bay.scan().await;
    bay.stop().await;
    assert_eq!(dongle.heard_text(), SILENCED);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dongle_that_does_not_say_that_it_is_silent_is_not_listened_with() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_store(dir.path());
    let answer = |command: &str| match command {
        "ATCSM1" => b"?\r\r>".to_vec(),
        _ => good(command).into_bytes(),
    };
    let dongle = Dongle::on_tcp(Arc::new(answer)).await;
    let bay = Bay::start(&store, "bay-1", &dongle.link, Poll::ListenOnly);
    let row = bay.until_reason(Some("not-listen-only")).await;
    assert!(row.state.detail.unwrap().contains("ATCSM1"));
    bay.stop().await;
    // Tried again after each pause, with the same words.
    let heard = dongle.heard_text();
    assert!(SILENCED.repeat(heard.len() / SILENCED.len() + 1).starts_with(&heard), "{heard:?}");
    assert!(heard.len() >= SILENCED.len());
}

/// Groups of J1939 that only tell: DM2 (FECB) and the vehicle's number (FEEC), from the address
/// of an off-board tool, to all. DM3 (FECC) and DM11 (FED3) clear codes when asked for.
#[test]
fn two_groups_can_be_asked_for_on_a_trucks_bus() {
    let frames: Vec<_> =
        GroupRequest::ALL.iter().map(|request| (request.id(), hex::encode(request.data()))).collect();
    assert_eq!(frames, [(0x18EA_FFF9, "cbfe00".to_owned()), (0x18EA_FFF9, "ecfe00".to_owned())]);
}
