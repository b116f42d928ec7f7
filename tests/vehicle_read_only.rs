//! The proof that cars are only read: every feature is driven against a tap that records all
//! bytes on their way to the adapter, commands of the adapter included, and each command must
//! stand on a list written down here from the standards, apart from the gate's own. What
//! clears codes appears once, and only behind a person's confirmation.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod served;
mod vehicle_bay;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use baygate::cli::{Exit, Global, scan as scan_command, watch};
use baygate::config::tables::Poll;
use baygate::config::values::Locale;
use baygate::sim::vehicle::{Adapter as SimAdapter, CarSpec, Drive, Engine, Fault, Profile, VehicleSim};
use baygate::store::tokens::TokenOp;
use baygate::store::{Batch, Op};
use baygate::vehicle::adapter::Adapter;
use serde_json::json;
use served::Setup;
use sha2::Digest as _;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use vehicle_bay::dongle::{Dongle, good};
use vehicle_bay::{Bay, bundle, open_store};

/// Adapter commands of the ELM327 data sheet that set up the adapter itself. None sends by
/// itself (as `ATMA`, `ATSI`, `ATFI`, `ATWM`, `ATRTR`, `ATDM1` do) or changes what outlives a
/// reset (as `ATPP`, `ATSD`, `ATBRD`, `AT@3` do); `ATSP` remembers which bus to try first.
const SET_UP: &[&str] = &[
    "ATZ", "ATI", "AT@1", "STDI", "ATRV", "ATE0", "ATE1", "ATL0", "ATS0", "ATH1", "ATAL", "ATR1", "ATAT0",
    "ATAT1", "ATAT2", "ATDPN", "ATPC", "ATFE", "ATAR", "ATCP18", "ATCAF1", "ATCFC1",
];

fn is_hex(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit() || (b'A'..=b'F').contains(&b))
}

/// Commands with a value: which bus, how long to wait, whom to address, whom to listen to.
fn is_set_up_with_a_value(command: &str) -> bool {
    let value = |head: &str| command.strip_prefix(head).filter(|value| is_hex(value));
    if let Some(bus) = value("ATSP") {
        return bus.len() == 1;
    }
    if let Some(steps) = value("ATST") {
        return steps.len() == 2;
    }
    if let Some(header) = value("ATSH") {
        let id = u32::from_str_radix(header, 16).unwrap();
        return match header.len() {
            // Diagnostic requests on 11 bits; never an address that answers come from.
            3 => (0x700..=0x7FF).contains(&id) && !(0x7E8..=0x7EF).contains(&id),
            // ISO 15765-4 physical and functional; ISO 14230-2 physical and functional.
            6 => {
                matches!(header.as_bytes(), [b'D', b'A', _, _, b'F', b'1'] | [b'8', b'0', _, _, b'F', b'1'])
                    || matches!(header, "DB33F1" | "C033F1" | "686AF1")
            }
            _ => false,
        };
    }
    value("ATCRA").is_some()
}

/// Services that only read (SAE J1979, ISO 14230-3, ISO 14229-1), with the bytes that follow.
/// A lone digit at the end is the count of lines to wait for.
fn is_reading(command: &str) -> bool {
    if !is_hex(command) {
        return false;
    }
    let bytes = hex::decode(&command[..command.len() / 2 * 2]).unwrap();
    let Some((&service, rest)) = bytes.split_first() else { return false };
    match service {
        0x01 => (1..=6).contains(&rest.len()),
        // A PID and its frame's number, up to three times (ISO 15031-5 §8.2).
        0x02 => matches!(rest.len(), 2 | 4 | 6),
        0x05 => rest.len() == 2,
        // The masks of what could be controlled; on older buses five zeros follow (SAE J1979 appendix F).
        0x08 => {
            matches!(rest, [base] | [base, 0, 0, 0, 0, 0] if base.is_multiple_of(0x20))
                && command.len().is_multiple_of(2)
        }
        0x03 | 0x07 | 0x0A => rest.is_empty(),
        // A monitor, or up to six masks of them.
        0x06 if rest.len() > 1 => rest.len() <= 6 && rest.iter().all(|mask| mask.is_multiple_of(0x20)),
        0x06 | 0x09 | 0x21 => rest.len() == 1,
        0x22 => rest.len() == 2,
        0x19 => matches!(
            rest,
            [0x02, _]
                | [0x04 | 0x06, _, _, _, _]
                | [0x0A]
                | [0x42, 0x33, _, _]
                | [0x55, 0x33]
                | [0x56, 0x33, _]
        ),
        _ => false,
    }
}

fn is_clearing(command: &str) -> bool {
    matches!(command, "04" | "14FFFFFF")
}

/// Judges everything an adapter was sent; gives the clearing commands among it.
fn judge(what: &str, heard: &[u8]) -> Vec<String> {
    let text = String::from_utf8(heard.to_vec()).unwrap_or_else(|_| panic!("{what}: not text: {heard:02X?}"));
    let mut commands: Vec<&str> = text.split('\r').collect();
    // A line cut by the end of the test is the beginning of one that is judged below.
    commands.pop();
    let mut clearings = Vec::new();
    for command in commands {
        assert!(!command.is_empty(), "{what}: a lone CR repeats the last command, whatever it was");
        if is_clearing(command) {
            clearings.push(command.to_owned());
            continue;
        }
        // DEL interrupts; X is no digit, so a line that ends in it is no request, whatever it began with.
        let allowed = command == "\u{7F}\u{7F}"
            || command.ends_with("XXXX")
            || SET_UP.contains(&command)
            || is_set_up_with_a_value(command)
            || is_reading(command);
        assert!(allowed, "{what}: {command:?} is not on the list");
    }
    clearings
}

/// A wire with an ear on it: everything the gateway sends is kept, and passed on.
struct Tap {
    address: SocketAddr,
    heard: Arc<Mutex<Vec<u8>>>,
    task: JoinHandle<()>,
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Tap {
    async fn before(sim: &VehicleSim) -> Self {
        let adapter = sim.addr().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let heard = Arc::new(Mutex::new(Vec::new()));
        let record = Arc::clone(&heard);
        let task = tokio::spawn(async move {
            while let Ok((gateway, _)) = listener.accept().await {
                let Ok(adapter) = TcpStream::connect(adapter).await else { continue };
                for side in [&gateway, &adapter] {
                    side.set_nodelay(true).unwrap();
                }
                let (mut from, mut back) = gateway.into_split();
                let (mut answers, mut to) = adapter.into_split();
                let passing = async {
                    let mut buffer = [0; 512];
                    while let Ok(count @ 1..) = from.read(&mut buffer).await {
                        record.lock().unwrap().extend_from_slice(&buffer[..count]);
                        if to.write_all(&buffer[..count]).await.is_err() {
                            return;
                        }
                    }
                };
                let answering = async {
                    let _ = tokio::io::copy(&mut answers, &mut back).await;
                };
                tokio::select! { () = passing => {}, () = answering => {} }
            }
        });
        Self { address, heard, task }
    }

    fn link(&self) -> String {
        format!("elm327+tcp://{}", self.address)
    }

    fn heard(&self) -> Vec<u8> {
        self.heard.lock().unwrap().clone()
    }

    /// The services that were asked, each once.
    fn services(&self) -> std::collections::BTreeSet<String> {
        let text = String::from_utf8(self.heard()).unwrap();
        text.split('\r').filter(|c| is_reading(c)).map(|command| command[..2].to_owned()).collect()
    }
}

async fn tapped(adapter: SimAdapter, car: Option<CarSpec>) -> (VehicleSim, Tap) {
    let profile = Profile { adapter, car };
    let sim = VehicleSim::spawn_tcp("127.0.0.1:0".parse().unwrap(), profile).await.unwrap();
    let tap = Tap::before(&sim).await;
    (sim, tap)
}

fn faulty() -> CarSpec {
    CarSpec {
        confirmed: vec!["P0420".parse().unwrap(), "P0301".parse().unwrap()],
        pending: vec!["P0171".parse().unwrap()],
        permanent: vec!["P0420".parse().unwrap()],
        ..CarSpec::default()
    }
}

fn parsed<A: clap::Args + clap::FromArgMatches>(words: &[&str]) -> A {
    let command = A::augment_args(clap::Command::new("test").no_binary_name(true));
    A::from_arg_matches(&command.get_matches_from(words)).unwrap()
}

/// The list itself: what the standards call writing is not on it.
#[test]
fn the_list_knows_reading_from_writing() {
    for reading in [
        "010C",
        "010C1",
        "010C0D0504",
        "020C00",
        "020C000D0005002",
        "03",
        "0800",
        "08E0",
        "08000000000000",
        "22F190",
        "1902FF",
        "1904123456FF",
        "194233FF1E",
    ] {
        assert!(is_reading(reading) && !is_clearing(reading), "{reading}");
    }
    for writing in [
        "04",
        "041",
        "0400",
        "08",
        "080100",
        "0801",
        "08001",
        "080001",
        "08010000000000",
        "08000000000001",
        "02040005",
        "1003",
        "1101",
        "14",
        "14FFFFFF",
        "14FFFF33",
        "2701",
        "2803",
        "2E",
        "2EF190",
        "2F",
        "3101FF00",
        "34",
        "3E00",
        "8502",
        "1901",
        "22F190F18C",
        "01",
    ] {
        assert!(!is_reading(writing), "{writing}");
    }
    for sending in [
        "ATMA",
        "ATSI",
        "ATFI",
        "ATWM8111F13E",
        "ATPP0CSV23",
        "ATRTR",
        "ATSD00",
        "ATSH7E8",
        "ATSH123",
        "ATBRD23",
    ] {
        assert!(!SET_UP.contains(&sending) && !is_set_up_with_a_value(sending), "{sending}");
    }
}

/// A bay's day: arrival, report, live values, low battery, key off, swap, faults of every kind,
/// requested scans over HTTP, nonsense over HTTP.
#[tokio::test(flavor = "multi_thread")]
async fn a_day_at_the_bay() {
    let served = Setup::new().serve().await;
    let (mut sim, tap) = tapped(SimAdapter::default(), Some(faulty())).await;
    let bay = Bay::start(&served.store, "bay-1", &tap.link(), Poll::Auto);
    let token = served.token(&["vehicle", "read"]).await;
    bay.nth("vehicle.report", 1).await;
    bay.nth("vehicle.signals", 1).await;
    for (path, body) in [
        ("/v1/vehicles/bay-1/scan", json!({})),
        ("/v1/vehicles/bay-1/scan", json!({"request": "04", "service": 4, "command": "ATPP0CSV23"})),
        ("/v1/vehicles/bay-1%0D04%0D/scan", json!({})),
        ("/v1/vehicles/bay-1/clear-dtcs", json!({"method": "uds", "confirm": true})),
        ("/v1/confirmations/00000000-0000-0000-0000-000000000000", json!({"confirm": true, "operator": "x"})),
    ] {
        let reply = served.post(&token, path, &body).await;
        assert!(reply.status == 200 || reply.status >= 400, "{path}: {reply:?}");
    }
    for fault in [
        Fault::DropReply,
        Fault::Garble,
        Fault::Pending(2),
        Fault::Delay(Duration::from_millis(300)),
        Fault::HalfThenSilence,
        Fault::Nulls,
        Fault::BrownOut,
        Fault::Say("LV RESET".into()),
        Fault::Say("ERR94".into()),
        Fault::Say("BUFFER FULL".into()),
        Fault::Say("CAN ERROR".into()),
        Fault::Say("STOPPED".into()),
        Fault::Say("?".into()),
    ] {
        sim.fault(fault);
        bay.scan().await;
    }
    for engine in [Engine::On, Engine::Off, Engine::Running] {
        sim.engine(engine);
        bay.scan().await;
    }
    sim.battery(Some(11.1));
    sim.engine(Engine::On);
    bay.scan().await;
    sim.battery(None);
    sim.swap(&CarSpec {
        vin: Some("LSVAG2186E2100001".into()),
        engine: Engine::Running,
        ..CarSpec::default()
    })
    .unwrap();
    bay.until("the other car", |facts| {
        facts.iter().any(|(kind, data)| kind == "vehicle.report" && data["vin"] == "LSVAG2186E2100001")
    })
    .await;
    sim.unplug();
    bay.scan().await;
    // A battery car: found by UDS.
    sim.plug(&CarSpec { obd: false, ..faulty() }).unwrap();
    bay.scan().await;
    sim.vanish().await;
    bay.scan().await;
    sim.return_().await;
    sim.plug(&faulty()).unwrap();
    bay.nth("vehicle.arrived", 3).await;
    bay.stop().await;
    assert_eq!(judge("a day", &tap.heard()), [""; 0], "nobody confirmed anything");
    let seen = tap.services();
    for service in ["01", "02", "03", "07", "08", "09", "0A", "19", "22"] {
        assert!(seen.contains(service), "{service} was driven: {seen:?}");
    }
}

/// Every adapter of the simulator's table, every bus, every kind of car: scanned and watched.
#[tokio::test(flavor = "multi_thread")]
async fn every_adapter_every_bus_every_kind_of_car() {
    let mut jobs = Vec::new();
    let mut cases: Vec<(String, SimAdapter, CarSpec)> =
        SimAdapter::all().unwrap().into_iter().map(|(name, adapter)| (name, adapter, faulty())).collect();
    for protocol in 1..=9 {
        cases.push((format!("bus {protocol}"), SimAdapter::default(), CarSpec { protocol, ..faulty() }));
    }
    cases.push(("battery car".into(), SimAdapter::default(), CarSpec { obd: false, ..faulty() }));
    let wide = CarSpec { obd: false, protocol: 7, ..faulty() };
    cases.push(("battery car, 29 bits".into(), SimAdapter::default(), wide));
    let modern = CarSpec { obd: false, j1979_2: true, ..faulty() };
    let busy = CarSpec { enhanced: vec!["B1234".parse().unwrap()], uds_waits: 2, ..faulty() };
    cases.push(("codes beyond J1979".into(), SimAdapter::default(), busy));
    cases.push(("no UDS".into(), SimAdapter::default(), CarSpec { uds: false, ..faulty() }));
    for drive in [Drive::Hybrid, Drive::Bev] {
        cases.push((format!("{drive:?}"), SimAdapter::default(), CarSpec { drive, ..faulty() }));
    }
    cases.push(("J1979-2".into(), SimAdapter::default(), modern));
    let asleep = CarSpec { engine: Engine::Off, ..faulty() };
    cases.push(("asleep".into(), SimAdapter::default(), asleep));
    for (name, adapter, car) in cases {
        jobs.push(tokio::spawn(async move {
            let (_sim, tap) = tapped(adapter, Some(car)).await;
            // Whether there is a report is another test's business.
            let bundle = bundle();
            let _ = scan_command::scan_link(&tap.link().parse().unwrap(), &bundle, None, Locale::En).await;
            assert_eq!(judge(&name, &tap.heard()), [""; 0]);
            String::from_utf8(tap.heard()).unwrap()
        }));
    }
    let mut driven = std::collections::BTreeSet::new();
    for job in jobs {
        let heard = job.await.unwrap();
        driven
            .extend(heard.split('\r').filter(|line| line.starts_with("19")).map(|line| line[..4].to_owned()));
    }
    // With all the time they want, so that nothing is left out on a slow machine.
    for car in [faulty(), CarSpec { obd: false, j1979_2: true, ..faulty() }] {
        let (_sim, tap) = tapped(SimAdapter::default(), Some(car)).await;
        let bundle = bundle();
        let mut adapter = Adapter::open(&tap.link().parse().unwrap(), &bundle, None, None).await.unwrap();
        vehicle_bay::scanned(&mut adapter, &bundle).await.unwrap();
        assert_eq!(judge("unhurried", &tap.heard()), [""; 0]);
        let heard = String::from_utf8(tap.heard()).unwrap();
        driven
            .extend(heard.split('\r').filter(|line| line.starts_with("19")).map(|line| line[..4].to_owned()));
    }
    // Every kind of question about codes that UDS and J1979-2 know and a scan asks.
    assert!(driven.iter().eq(["1902", "1904", "1906", "190A", "1942", "1955", "1956"]), "{driven:?}");
    let (_sim, tap) = tapped(SimAdapter::default(), Some(faulty())).await;
    let global = Global { config: Path::new("/none.toml").into(), json: true, locale: Some(Locale::En) };
    for words in [&["--rounds", "3"][..], &["0C", "0104", "--rounds", "2"]] {
        let link = tap.link();
        let words = [&[link.as_str()], words].concat();
        let args = parsed::<watch::Args>(&words);
        assert_eq!(watch::run(args, &global).await.unwrap(), Exit::Done);
    }
    assert_eq!(judge("watch", &tap.heard()), [""; 0]);
}

/// Adapters that do all they can to be sent something else.
#[tokio::test(flavor = "multi_thread")]
async fn hostile_adapters() {
    type Script = fn(&str) -> Vec<u8>;
    let scripts: [(&str, Script); 9] = [
        ("says nothing", |_| Vec::new()),
        ("garbage", |_| vec![0xFE, 0x81, b'\r', 0x99]),
        ("? to everything", |_| b"?\r\r>".to_vec()),
        ("echoes and stops", |command| format!("{command}\rSTOPPED\r\r>").into_bytes()),
        ("restarts at every request", |command| match command.as_bytes() {
            [b'0', ..] => b"\r\rELM327 v1.5\r\r>".to_vec(),
            _ => good(command).into_bytes(),
        }),
        ("asks to wait for ever", |command| match command.as_bytes() {
            [b'0', _, ..] => b"7E8037F0178\r\r>".to_vec(),
            _ => good(command).into_bytes(),
        }),
        ("names itself after commands", |command| match command {
            "ATI" | "AT@1" | "STDI" => b"04\r14FFFFFF\rATPP0CSV23\r\r>".to_vec(),
            _ => good(command).into_bytes(),
        }),
        ("promises every PID and every code", |command| match command {
            c if c.starts_with("01") && c.len() <= 5 => {
                format!("7E80641{}FFFFFFFF\r\r>", &c[2..4]).into_bytes()
            }
            c if c.starts_with("09") => {
                b"7E8101449020130340D303400\r7E8210D30340D30340D\r7E82230340D30340D30\r\r>".to_vec()
            }
            "03" | "07" | "0A" => b"7E8064302FFFF0404\r\r>".to_vec(),
            _ => good(command).into_bytes(),
        }),
        ("half a reply, then silence", |command| match command {
            "0100" => b"7E806".to_vec(),
            _ => good(command).into_bytes(),
        }),
    ];
    let mut jobs = Vec::new();
    for (name, script) in scripts {
        jobs.push(tokio::spawn(async move {
            let dir = tempfile::tempdir().unwrap();
            let store = open_store(dir.path());
            let dongle = Dongle::on_tcp(Arc::new(script)).await;
            let bay = Bay::start(&store, "bay-1", &dongle.link, Poll::Auto);
            // Whether a scan ends well with such an adapter is another test's business.
            let _ = tokio::time::timeout(Duration::from_secs(15), bay.scan()).await;
            bay.stop().await;
            let heard = dongle.heard.lock().unwrap().clone();
            assert!(!heard.is_empty(), "{name}");
            assert_eq!(judge(name, &heard), [""; 0]);
        }));
    }
    for job in jobs {
        job.await.unwrap();
    }
}

/// With a person's word the clearing goes out once; before it, and after it, never.
#[tokio::test(flavor = "multi_thread")]
async fn clearing_goes_out_once_and_only_behind_a_confirmation() {
    clearing_goes_out_once(CarSpec { engine: Engine::On, ..faulty() }, "010C", "04").await;
    let only_uds = CarSpec { engine: Engine::On, obd: false, j1979_2: true, ..faulty() };
    clearing_goes_out_once(only_uds, "22F40C", "14FFFFFF").await;
}

/// `before`: the last question, whether the engine stands.
async fn clearing_goes_out_once(car: CarSpec, before: &str, clearing: &str) {
    let served = Setup::new().serve().await;
    let (sim, tap) = tapped(SimAdapter::default(), Some(car)).await;
    let bay = Bay::start(&served.store, "bay-1", &tap.link(), Poll::Auto);
    bay.nth("vehicle.report", 1).await;
    let till = "bg_till-of-the-read-only-proof";
    let create = TokenOp::Create {
        id: uuid::Uuid::now_v7(),
        name: "till-1".into(),
        sha256: sha2::Sha256::digest(till).into(),
        scopes: vec!["vehicle".into()],
        till: Some("till-1".into()),
    };
    served.store.commit(Batch::new().op(Op::Token(create))).await.unwrap();
    let bearer = format!("Bearer {till}");
    let asked =
        served.send("POST", "/v1/vehicles/bay-1/clear-dtcs", &[("Authorization", &bearer)], "").await.json();
    assert_eq!(judge("asked", &tap.heard()), [""; 0], "asking is not doing");
    let path = format!("/v1/confirmations/{}", asked["id"].as_str().unwrap());
    let word = json!({"confirm": true, "operator": "Li"});
    // Said by many at once.
    let replies = futures_util::future::join_all((0..4).map(|_| served.post(till, &path, &word))).await;
    assert_eq!(replies.iter().filter(|reply| reply.status == 200).count(), 1, "{replies:?}");
    bay.scan().await;
    bay.stop().await;
    assert_eq!(judge("confirmed", &tap.heard()), [clearing]);
    // And the adapter cannot repeat it: another command stands between it and an empty line.
    let text = String::from_utf8(tap.heard()).unwrap();
    let between = text.split(&format!("\r{clearing}\r")).collect::<Vec<_>>();
    assert_eq!(between.len(), 2, "the whole conversation: {text:?}");
    assert!(between[0].ends_with(before) && between[1].starts_with("XXXXXXXX\r"), "{text:?}");
    let cleared = sim.requests().into_iter().filter(|request| matches!(request[0], 0x04 | 0x14));
    assert_eq!(cleared.collect::<Vec<_>>(), [hex::decode(clearing).unwrap()]);
}
