//! A serial line that swallows characters must never turn a read into a clearing, a reset or
//! anything else a car acts on: full scans over real sockets, each character of each line lost
//! in turn, ends of lines too. The simulated car tells what reached it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod vehicle_bay;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use baygate::config::tables::Poll;
use baygate::event::vehicle::VehicleReport;
use baygate::sim::vehicle::{Adapter as SimAdapter, CarSpec, Engine, Fault, Multi, Profile, VehicleSim};
use baygate::store::requests::RequestState;
use baygate::vehicle::adapter::{Adapter, Capabilities};
use baygate::vehicle::batch::{Batch, Promises};
use baygate::vehicle::gate::Request;
use baygate::vehicle::report;
use baygate::vehicle::scan;
use uuid::Uuid;
use vehicle_bay::clearing::grant;
use vehicle_bay::dongle::{Dongle, Script, good};
use vehicle_bay::{Bay, bundle, open_store};

/// Longest line of a scan: `01`, six PIDs and a digit.
const LONGEST: usize = 15;

fn car() -> CarSpec {
    CarSpec {
        confirmed: vec!["P0420".parse().unwrap(), "P0301".parse().unwrap()],
        pending: vec!["P0171".parse().unwrap()],
        engine: Engine::On,
        latency_ms: 1,
        ..CarSpec::default()
    }
}

fn with_one_pid() -> SimAdapter {
    SimAdapter { multi: Multi::Error, ..SimAdapter::default() }
}

/// Services on which no unit acts (SAE J1979, ISO 14230-3, ISO 14229-1), written down here apart
/// from the gate's list: the beginnings that losses leave of them read, or are reserved. 10 and 11
/// with anything but one parameter are refused by every unit for their length.
fn only_reads(request: &[u8]) -> bool {
    match request[0] {
        0x04 | 0x14 => false,
        // Which tests there are: a mask every 20.
        0x08 => request[1..].iter().all(|test| test.is_multiple_of(0x20)),
        0x00..=0x0F => true,
        0x10 | 0x11 => request.len() != 2,
        0x12..=0x26 => true,
        0x2E | 0x2F => request.len() <= 3,
        // GMW3110: complete as it is.
        0x28 => false,
        // Too short to define or to start anything; but `2C 03` forgets definitions.
        0x2A..=0x2D => request.len() == 1 || request.len() == 2 && request[..] != [0x2C, 0x03],
        // 90 to 9F are reserved in each of them (`195533` without its first character is `95 53`).
        0x27..=0x3F | 0x80..=0x8F | 0xA0..=0xBF => request.len() == 1,
        _ => true,
    }
}

async fn open(sim: &VehicleSim) -> Adapter {
    let link = format!("elm327+tcp://{}", sim.addr().unwrap());
    Adapter::open(&link.parse().unwrap(), &bundle(), None, None).await.unwrap()
}

async fn plugged(adapter: SimAdapter) -> VehicleSim {
    let profile = Profile { adapter, car: Some(car()) };
    VehicleSim::spawn_tcp("127.0.0.1:0".parse().unwrap(), profile).await.unwrap()
}

/// Scans with a line that begins to swallow once the adapter is open; what reached the car.
async fn scanned(adapter: SimAdapter, fault: Fault) -> (Vec<Vec<u8>>, Option<VehicleReport>) {
    let sim = plugged(adapter).await;
    let mut adapter = open(&sim).await;
    sim.fault(fault);
    let bundle = bundle();
    let record = scan::run(&mut adapter, &bundle, Uuid::nil(), "bay-1".parse().unwrap(), &mut |_| {}).await;
    let report = record.ok().map(|record| report::build(&record, &bundle));
    sim.fault(Fault::LoseInTurn { span: 0, from: 0 });
    sim.fault(Fault::LoseEnds(0));
    let requests = sim.requests();
    drop(adapter);
    // Whatever was lost: the codes still stand.
    let mut fresh = open(&sim).await;
    let codes = fresh.ask(Request::confirmed_codes(), None).await.unwrap();
    let engine = &codes.messages[0].payload;
    assert_eq!(engine[..2], [0x43, 2], "the codes stand: {engine:02X?}");
    (requests, report)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_character_lost_in_turn() {
    let mut jobs = Vec::new();
    let adapters = [
        ("one PID", with_one_pid()),
        ("many PIDs", SimAdapter::default()),
        ("no echo", SimAdapter { multi: Multi::Error, ..SimAdapter::named("clone-no-echo").unwrap() }),
    ];
    for (name, adapter) in adapters {
        for from in 0..LONGEST {
            let adapter = adapter.clone();
            jobs.push(tokio::spawn(async move {
                let fault = Fault::LoseInTurn { span: LONGEST, from };
                (format!("{name}, from {from}"), scanned(adapter, fault).await)
            }));
        }
    }
    let (mut asked, mut reports) = (0, 0);
    for job in jobs {
        let (name, (requests, report)) = job.await.unwrap();
        for request in &requests {
            assert!(only_reads(request), "{name}: {request:02X?} reached the car");
        }
        asked += requests.len();
        reports += usize::from(report.is_some_and(|report| report.vin.is_some()));
    }
    // The line is bad, and yet the car is read.
    assert!(asked > 1_000, "{asked} requests reached the cars");
    assert!(reports >= LONGEST, "{reports} reports with a VIN of {}", 3 * LONGEST);
}

/// A lost end makes two lines one; a probe stands between them.
#[tokio::test(flavor = "multi_thread")]
async fn ends_of_lines_lost() {
    let mut jobs = Vec::new();
    for every in [31, 44] {
        for adapter in [with_one_pid(), SimAdapter::default()] {
            jobs.push(tokio::spawn(scanned(adapter, Fault::LoseEnds(every))));
        }
    }
    let mut reports = 0;
    for job in jobs {
        let (requests, report) = job.await.unwrap();
        assert!(requests.iter().all(|request| only_reads(request)), "{requests:02X?}");
        assert!(requests.len() > 20, "{requests:02X?}");
        reports += usize::from(report.is_some());
    }
    assert!(reports > 0, "no report of four");
}

/// Two characters of a line. Which line loses which two goes round: of `0104` it takes the second
/// and the third to leave a clearing, and other lines stand at those turns where a scan begins
/// elsewhere.
#[tokio::test(flavor = "multi_thread")]
async fn two_characters_of_a_line_lost() {
    let mut jobs = Vec::new();
    for (adapter, apart) in [(with_one_pid(), 1), (with_one_pid(), 2), (SimAdapter::default(), 1)] {
        for from in 0..LONGEST {
            let adapter = adapter.clone();
            // Whole lines stand between the spoilt ones.
            let fault = Fault::LoseTwoInTurn { span: 3 * LONGEST, from: 3 * from, apart };
            jobs.push(tokio::spawn(async move { (apart, from, scanned(adapter, fault).await) }));
        }
    }
    let mut asked = 0;
    for job in jobs {
        let (apart, from, (requests, _)) = job.await.unwrap();
        for request in &requests {
            assert!(only_reads(request), "{apart} apart, from {from}: {request:02X?} reached the car");
        }
        asked += requests.len();
    }
    // The line is bad, and yet cars are asked.
    assert!(asked > 500, "{asked} requests reached the cars");
}

/// On a good line nothing is typed twice, and what is fragile is asked and answered.
#[tokio::test(flavor = "multi_thread")]
async fn a_good_line_loses_nothing_by_the_care() {
    for adapter in [with_one_pid(), SimAdapter::default()] {
        let sim = plugged(adapter).await;
        let mut adapter = open(&sim).await;
        let bundle = bundle();
        let record = vehicle_bay::scanned(&mut adapter, &bundle).await.unwrap();
        let report = report::build(&record, &bundle);
        assert_eq!(report.errors, []);
        assert!(report.ecus[0].values.iter().any(|value| value.pid == "0142"));
        assert_eq!(adapter.capabilities().echo, Some(true));
    }
}

/// An adapter that does not echo is not asked what could become a clearing; the report says so.
#[tokio::test(flavor = "multi_thread")]
async fn without_an_echo_it_is_not_asked() {
    let sim = plugged(SimAdapter::named("clone-no-echo").unwrap()).await;
    let mut adapter = open(&sim).await;
    let bundle = bundle();
    let record =
        scan::run(&mut adapter, &bundle, Uuid::nil(), "bay-1".parse().unwrap(), &mut |_| {}).await.unwrap();
    let report = report::build(&record, &bundle);
    assert_eq!(adapter.capabilities().echo, Some(false));
    let unsent = report.errors.iter().filter(|error| error.error.starts_with("not sent:"));
    let unsent: Vec<&str> = unsent.map(|error| error.request.as_str()).collect();
    assert!(unsent.contains(&"0104") && unsent.contains(&"0140") && unsent.contains(&"0904"), "{unsent:?}");
    assert!(
        !sim.requests().iter().any(|request| request.starts_with(&[1, 4]) || request.starts_with(&[1, 0x40]))
    );
    assert_eq!(report.vin.as_ref().map(|vin| vin.as_str()), Some("1M8GDM9AXKP042788"));
    assert!(report.ecus[0].values.iter().any(|value| value.pid == "010C"));
    // Of the freeze frame what no loss can turn into a service that acts.
    let frozen: Vec<&str> =
        report.ecus[0].freeze_frames[0].values.iter().map(|one| one.pid.as_str()).collect();
    assert!(frozen.contains(&"020C") && frozen.contains(&"020D"), "{frozen:?}");
    assert!(unsent.contains(&"020400") && unsent.contains(&"020700"), "{unsent:?}");
}

/// The car says nothing to a clearing. The byte that wakes the adapter is swallowed, and so is
/// all that comes while it says so: no lone CR may find the clearing in its memory.
#[tokio::test(flavor = "multi_thread")]
async fn silence_after_a_clearing_does_not_clear_again() {
    cleared_once(false).await;
}

/// The same where the link drops behind the clearing, and the adapter is still busy with it when
/// it is met again.
#[tokio::test(flavor = "multi_thread")]
async fn a_link_that_drops_behind_a_clearing_does_not_clear_again() {
    cleared_once(true).await;
}

async fn cleared_once(drops: bool) {
    /// What the adapter does, byte by byte: it repeats on a lone CR, and is busy from 04 on.
    #[derive(Default)]
    struct Chip {
        line: String,
        last: String,
        busy: bool,
        deaf: usize,
        cleared: usize,
    }
    impl Chip {
        fn take(&mut self, byte: u8) -> Vec<u8> {
            if self.busy {
                self.busy = false;
                self.deaf = 2;
                return b"STOPPED\r\r>".to_vec();
            }
            // What comes in one breath with the byte that woke it falls on deaf ears, but the end.
            if self.deaf > 0 && byte != b'\r' {
                self.deaf -= 1;
                return Vec::new();
            }
            if byte != b'\r' {
                self.line.push(char::from(byte));
                return Vec::new();
            }
            let mut line = std::mem::take(&mut self.line);
            if line.is_empty() {
                line = self.last.clone();
            }
            self.last = line.clone();
            match line.as_str() {
                "04" => {
                    (self.busy, self.cleared) = (true, self.cleared + 1);
                    Vec::new()
                }
                line if line.contains('X') => b"?\r\r>".to_vec(),
                // Ignition on, engine off.
                "010C" | "010C1" => b"7E804410C0000\r\r>".to_vec(),
                line => good(line).into_bytes(),
            }
        }
    }
    let chip = Arc::new(Mutex::new(Chip::default()));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let link = format!("elm327+tcp://{}", listener.local_addr().unwrap());
    let acting = Arc::clone(&chip);
    let serving = tokio::spawn(async move {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut buffer = [0; 64];
            while let Ok(count @ 1..) = stream.read(&mut buffer).await {
                let said: Vec<u8> = {
                    let mut chip = acting.lock().unwrap();
                    buffer[..count].iter().flat_map(|byte| chip.take(*byte)).collect()
                };
                if stream.write_all(&said).await.is_err() {
                    break;
                }
                if drops && acting.lock().unwrap().busy {
                    break;
                }
            }
        }
    });
    let dir = tempfile::tempdir().unwrap();
    let store = open_store(dir.path());
    let bay = Bay::start(&store, "bay-1", &link, Poll::OnRequest);
    bay.until_reason(None).await;
    let report = bay.scan().await.outcome.unwrap();
    grant(&store, &report["visit"], &[]).await;
    let told = bay.nth("vehicle.cleared", 1).await;
    assert_eq!(told["outcome"], "unknown");
    // One may be refused because the link is away.
    while bay.scan().await.state != RequestState::Done {}
    bay.stop().await;
    serving.abort();
    let chip = chip.lock().unwrap();
    assert_eq!(chip.cleared, 1, "{:?}", chip.last);
}

/// A batch that is lost says nothing about the car: only when one PID alone is answered the
/// number was too many.
#[tokio::test(flavor = "multi_thread")]
async fn silence_alone_does_not_lower_the_number_of_pids() {
    for (lost, most) in [(6, 6), (2, 3)] {
        let sim = plugged(SimAdapter::default()).await;
        let mut adapter = open(&sim).await;
        let bundle = bundle();
        let record = scan::run(&mut adapter, &bundle, Uuid::nil(), "bay-1".parse().unwrap(), &mut |_| {})
            .await
            .unwrap();
        let promises: Promises =
            record.ecus().into_iter().map(|ecu| (ecu.clone(), record.supported(&ecu))).collect();
        assert_eq!(adapter.most_pids(), 6);
        let batch = Batch { table: &bundle.pids, promises: &promises, broken_in_a_row: 3 };
        // The batch and its repetition, then each alone, twice.
        for _ in 0..lost {
            sim.fault(Fault::DropReply);
        }
        let outcomes =
            batch.ask(&mut adapter, &[0x05, 0x06, 0x07, 0x0B, 0x0D, 0x0F], &mut |_| {}).await.unwrap();
        assert_eq!(outcomes.len(), 6);
        assert_eq!(adapter.most_pids(), most, "{lost} lost");
    }
}

/// The adapter's word is not taken for it: an echo that lies is no echo.
#[tokio::test(flavor = "multi_thread")]
async fn an_adapter_that_echoes_lines_but_not_characters() {
    let lines = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&lines);
    let script: Script = Arc::new(move |command| {
        counted.fetch_add(1, Ordering::SeqCst);
        format!("{command}\r{}", good(command)).into_bytes()
    });
    let dongle = Dongle::on_tcp(script).await;
    let mut adapter = Adapter::open(&dongle.link.parse().unwrap(), &bundle(), None, None).await.unwrap();
    adapter.ask(Request::current(0x00), None).await.unwrap();
    let answer = adapter.ask(Request::current(0x04), None).await.unwrap();
    assert!(answer.trouble().unwrap().starts_with("not sent"), "{answer:?}");
    assert_eq!(adapter.capabilities().echo, Some(false));
    assert!(!dongle.heard_text().contains("0104"));
    assert!(lines.load(Ordering::SeqCst) > 10);
}

/// What was learned of another adapter that says the same of itself is doubted: one that echoes is
/// used, one that does not is found out, and a bad moment is no verdict.
#[tokio::test(flavor = "multi_thread")]
async fn a_verdict_on_the_echo_is_taken_back() {
    let told = |echo| Capabilities {
        echo: Some(echo),
        response_count: Some(echo),
        multi_pid: Some(true),
        long_requests: Some(true),
        ..Capabilities::default()
    };
    for (name, adapter, remembered, proven) in [
        ("it echoes after all", SimAdapter::default(), false, true),
        ("another one did", SimAdapter::named("clone-no-echo").unwrap(), true, false),
    ] {
        let sim = plugged(adapter).await;
        let mut adapter = open(&sim).await;
        adapter.remember(told(remembered));
        let record =
            scan::run(&mut adapter, &bundle(), Uuid::nil(), "bay-1".parse().unwrap(), &mut |_| {}).await;
        let report = report::build(&record.unwrap(), &bundle());
        assert_eq!(adapter.capabilities().echo, Some(proven), "{name}");
        let unsent = report.errors.iter().filter(|error| error.error.starts_with("not sent")).count();
        assert_eq!(unsent == 0, proven, "{name}: {:?}", report.errors);
        if proven {
            assert_eq!(adapter.capabilities().response_count, Some(true), "the digit is tried then");
        }
    }
}

/// An adapter without echo on a line that spoils every answer, then none.
#[tokio::test(flavor = "multi_thread")]
async fn a_noisy_moment_is_no_verdict() {
    let noisy = Arc::new(AtomicUsize::new(0));
    let spoils = Arc::clone(&noisy);
    let script: Script = Arc::new(move |command| {
        if command == "ATE1" && spoils.load(Ordering::SeqCst) > 0 {
            return b"O\xFFK\r\r>".to_vec();
        }
        good(command).into_bytes()
    });
    let dongle = Dongle::on_tcp(script).await;
    let mut adapter = Adapter::open(&dongle.link.parse().unwrap(), &bundle(), None, None).await.unwrap();
    noisy.store(1, Ordering::SeqCst);
    adapter.ask(Request::current(0x00), None).await.unwrap();
    let answer = adapter.ask(Request::current(0x04), None).await.unwrap();
    assert!(answer.trouble().unwrap().starts_with("not sent"), "{answer:?}");
    assert_eq!(adapter.capabilities().echo, None, "nothing is proven");
    noisy.store(0, Ordering::SeqCst);
    let answer = adapter.ask(Request::current(0x04), None).await.unwrap();
    assert!(answer.trouble().unwrap().starts_with("not sent"), "{answer:?}");
    assert_eq!(adapter.capabilities().echo, Some(false));
    assert!(!dongle.heard_text().contains("0104"));
}
