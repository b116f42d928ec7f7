//! What adapters and cars do wrong in the middle of a session, over real pseudo-terminals
//! and sockets: after each fault the driver comes back by itself and tells the truth.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod vehicle_bay;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use baygate::config::tables::Poll;
use baygate::sim::vehicle::{Adapter as SimAdapter, CarSpec, Fault, Profile, VehicleSim};
use baygate::vehicle::AdapterError;
use baygate::vehicle::adapter::{Adapter, Waits};
use baygate::vehicle::answer::Answer;
use baygate::vehicle::gate::{Request, Target};
use baygate::vehicle::protocol::Protocol;
use vehicle_bay::dongle::{Dongle, Script, good};
use vehicle_bay::{Bay, bundle, open_store};

fn car(protocol: u8) -> CarSpec {
    let signals = [("rpm".to_owned(), 1726.0)].into();
    CarSpec { protocol, drift: false, units: 1, signals, ..CarSpec::default() }
}

fn profile(car: CarSpec) -> Profile {
    Profile { adapter: SimAdapter::default(), car: Some(car) }
}

async fn open(link: &str) -> Adapter {
    Adapter::open(&link.parse().unwrap(), &bundle(), None, None).await.unwrap()
}

async fn on_pty(profile: Profile) -> (VehicleSim, Adapter) {
    let sim = VehicleSim::spawn_pty(profile, None).await.unwrap();
    let adapter = open(&format!("elm327+serial://{}?baud=38400", sim.path().display())).await;
    (sim, adapter)
}

fn told(answer: &Answer) -> Vec<String> {
    answer.messages.iter().map(|m| format!("{} {}", m.sender, hex::encode_upper(&m.payload))).collect()
}

const RPM: [&str; 1] = ["7E8 410C1AF8"];

/// (fault, restarts it must be counted as). The request that meets it is answered all the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_survives_each_fault() {
    for (fault, restarts) in [
        (Fault::Garble, 0),
        (Fault::Nulls, 0),
        (Fault::Delay(Duration::from_millis(400)), 0),
        (Fault::Pending(3), 0),
        (Fault::Say("BUFFER FULL".into()), 0),
        (Fault::Say("BUS BUSY".into()), 0),
        (Fault::Say("FB ERROR".into()), 0),
        (Fault::Say("DATA ERROR".into()), 0),
        (Fault::Say("7E804410C1A <DATA ERROR".into()), 0),
        (Fault::Say("7E804410C1A <RX ERROR".into()), 0),
        (Fault::Say("STOPPED".into()), 0),
        (Fault::Say("CAN ERROR".into()), 0),
        (Fault::Say("BUS ERROR".into()), 0),
        (Fault::Say("BUS INIT: ...ERROR".into()), 0),
        (Fault::Say("UNABLE TO CONNECT".into()), 0),
        (Fault::Say("ABLE TO CONNECT".into()), 0),
        (Fault::Say("NOT CONNECTED".into()), 0),
        (Fault::Say("LV RESET".into()), 1),
        (Fault::Say("ERR94".into()), 1),
        (Fault::Say("ELM327 v1.5".into()), 1),
        (Fault::BrownOut, 1),
    ] {
        let (sim, mut adapter) = on_pty(profile(car(6))).await;
        let rpm = Request::current(0x0C);
        assert_eq!(told(&adapter.ask(rpm, None).await.unwrap()), RPM, "before {fault:?}");
        let before = adapter.restarts();
        sim.fault(fault.clone());
        let answer = adapter.ask(rpm, None).await.unwrap_or_else(|error| panic!("{fault:?}: {error}"));
        assert_eq!(told(&answer), RPM, "{fault:?}: {answer:?}");
        // The settings are as they were: headers, no echo, the same bus.
        assert_eq!(told(&adapter.ask(rpm, None).await.unwrap()), RPM, "after {fault:?}");
        assert_eq!(adapter.protocol(), Some(Protocol::Can11At500), "{fault:?}");
        assert_eq!(adapter.restarts() - before, restarts, "{fault:?}");
    }
}

/// Words that are no fault of the reply they stand in.
#[tokio::test(flavor = "multi_thread")]
async fn words_beside_the_answer() {
    for words in [
        "SEARCHING...\r7E804410C1AF8",
        "SEARCHING...7E804410C1AF8",
        "BUS INIT: OK\r7E804410C1AF8",
        "BUS INIT: ...OK\r7E804410C1AF8",
        "ACT ALERT\r7E804410C1AF8",
        "!ACT ALERT\r7E804410C1AF8",
        "LP ALERT\r7E804410C1AF8",
        "!LP ALERT\r7E804410C1AF8",
        "+CONNECTED\r7E804410C1AF8",
        // Late frames: of another PID, another service, and the rest of a long answer.
        "7E803410D00\r7E804410C1AF8",
        "7E806410055555555\r7E8024300\r7E82147503030523535\r7E804410C1AF8",
        // "Wait", then the answer, in one reply.
        "7E8037F0178\r7E804410C1AF8",
        "7E8037F0178\r7E8037F0178\r7E804410C1AF8",
        // Another unit refuses.
        "7E9037F0112\r7E804410C1AF8",
        "\r\n7E8 04 41 0C 1A F8 \r\n\r\n",
    ] {
        let (sim, mut adapter) = on_pty(profile(car(6))).await;
        adapter.ask(Request::current(0x00), None).await.unwrap();
        sim.fault(Fault::Say(words.into()));
        let answer = adapter.ask(Request::current(0x0C), None).await.unwrap();
        assert_eq!(told(&answer), RPM, "{words:?}: {answer:?}");
        assert_eq!(adapter.restarts(), 0, "{words:?}");
    }
}

/// A lost reply to what the mask promised is asked for once more; a silence stays one.
#[tokio::test(flavor = "multi_thread")]
async fn no_data_is_doubted_once_where_there_is_a_promise() {
    use baygate::vehicle::batch::{Batch, Promises};
    for (promised, faults, expected) in [(true, 1, true), (true, 2, false), (false, 1, false)] {
        let (sim, mut adapter) = on_pty(profile(car(6))).await;
        let first = adapter.ask(Request::current(0x00), None).await.unwrap();
        let bundle = bundle();
        let sender = first.messages[0].sender.clone();
        let promises: Promises = if promised { [(sender, [0x0C].into())].into() } else { Promises::new() };
        for _ in 0..faults {
            sim.fault(Fault::DropReply);
        }
        let batch = Batch { table: &bundle.pids, promises: &promises, broken_in_a_row: 3 };
        let outcomes = batch.ask(&mut adapter, &[0x0C], &mut |_| {}).await.unwrap();
        assert_eq!(outcomes[0].trouble.is_none(), expected, "{promised} {faults}: {outcomes:?}");
    }
}

/// The car leaves and another one, on another bus, comes: `ATPC`, then 0100.
#[tokio::test(flavor = "multi_thread")]
async fn a_lost_bus_is_looked_for_anew() {
    let (sim, mut adapter) = on_pty(profile(car(6))).await;
    let rpm = Request::current(0x0C);
    adapter.ask(rpm, None).await.unwrap();
    sim.unplug();
    assert!(adapter.ask(rpm, None).await.unwrap().is_silence());
    assert_eq!(adapter.protocol(), None);
    for (protocol, line) in [(7, "18DAF110 410C1AF8"), (5, "10 410C1AF8"), (8, RPM[0])] {
        sim.plug(&car(protocol)).unwrap();
        let mut answer = adapter.ask(rpm, None).await.unwrap();
        if answer.messages.is_empty() {
            // An adapter that still holds the old bus says no more than "no data": that is for
            // who asks in the background to doubt, as the service does.
            adapter.close_protocol().await.unwrap();
            answer = adapter.ask(rpm, None).await.unwrap();
        }
        assert_eq!(told(&answer), [line], "{protocol}");
    }
}

/// One unit is asked by its own address, and afterwards all of them again.
#[tokio::test(flavor = "multi_thread")]
async fn one_unit_alone_and_all_again() {
    for (protocol, units) in [
        (6, [(0x7E0, "7E8"), (0x7E1, "7E9")]),
        (9, [(0x18DA_10F1, "18DAF110"), (0x18DA_18F1, "18DAF118")]),
        (5, [(0x10, "10"), (0x18, "18")]),
    ] {
        let (_sim, mut adapter) = on_pty(profile(CarSpec { units: 2, ..car(protocol) })).await;
        let rpm = Request::current(0x0C);
        let all: Vec<String> = units.iter().map(|(_, name)| format!("{name} 410C1AF8")).collect();
        assert_eq!(told(&adapter.ask(rpm, None).await.unwrap()), all);
        for (address, name) in units {
            let to_one = rpm.to(Target::Unit(address)).unwrap();
            assert_eq!(told(&adapter.ask(to_one, None).await.unwrap()), [format!("{name} 410C1AF8")]);
        }
        assert_eq!(told(&adapter.ask(rpm, None).await.unwrap()), all, "protocol {protocol}");
        if protocol == 6 {
            // A long answer, whose flow control goes to the same unit, and one that refuses.
            let vin = Request::data_by_identifier(0xF190);
            let answer = adapter.ask(vin.to(Target::Unit(0x7E0)).unwrap(), None).await.unwrap();
            assert_eq!(answer.messages[0].payload[3..], *b"1M8GDM9AXKP042788");
            let answer = adapter.ask(vin.to(Target::Unit(0x7E1)).unwrap(), None).await.unwrap();
            assert_eq!(answer.refusals.len(), 1, "{answer:?}");
            assert_eq!(adapter.ask(rpm, None).await.unwrap().messages.len(), 2);
        }
        // What is no address of diagnosis is never sent.
        for wrong in [0x7DF, 0x7E8, 0x123, 0x18DB_33F1, 0xF1] {
            let answer = adapter.ask(rpm.to(Target::Unit(wrong)).unwrap(), None).await.unwrap();
            assert_eq!(answer.trouble().as_deref(), Some("the unit cannot be addressed"), "{wrong:X}");
        }
        assert_eq!(adapter.ask(rpm, None).await.unwrap().messages.len(), 2);
    }
}

/// A battery car that is silent on 0100 has no known bus; its unit is found by its own address.
#[tokio::test(flavor = "multi_thread")]
async fn a_unit_is_found_without_0100() {
    let (_sim, mut adapter) = on_pty(profile(CarSpec { obd: false, ..car(6) })).await;
    assert!(adapter.ask(Request::current(0x00), None).await.unwrap().is_silence());
    let vin = Request::data_by_identifier(0xF190);
    let answer = adapter.ask(vin.to(Target::Unit(0x7E0)).unwrap(), None).await.unwrap();
    assert_eq!(answer.messages[0].payload[3..], *b"1M8GDM9AXKP042788");
    // Nobody there: the assumption is given up, a car on 0100 is searched for as before.
    let (sim, mut adapter) = on_pty(Profile { adapter: SimAdapter::default(), car: None }).await;
    assert!(adapter.ask(vin.to(Target::Unit(0x7E0)).unwrap(), None).await.unwrap().is_silence());
    sim.plug(&car(5)).unwrap();
    assert_eq!(told(&adapter.ask(Request::current(0x0C), None).await.unwrap()), ["10 410C1AF8"]);
}

fn script(answer: impl Fn(&str) -> Vec<u8> + Send + Sync + 'static) -> Script {
    Arc::new(answer)
}

/// A clone that reboots without a banner prints without headers, with echo: noticed, set up again.
#[tokio::test(flavor = "multi_thread")]
async fn settings_lost_without_a_word() {
    for lost in [
        "010C\rSEARCHING...\r41 0C 0C B2 ",
        "010C\r41 0C 0C B2 ",
        "00A\r0: 41 0C 0C B2 0D 00 \r1: 05 78 04 66 00 00 00 ",
        "014\r0: 49 02 01 31 44 34 \r00A\r0: 41 0C 00 00 00 00 \r1: 47 50 30 30 52 35 35 ",
    ] {
        let asked = AtomicUsize::new(0);
        let dongle = Dongle::on_tcp(script(move |command| {
            if command == "010C" && asked.fetch_add(1, Ordering::SeqCst) == 0 {
                return format!("{lost}\r\r>").into_bytes();
            }
            good(command).into_bytes()
        }))
        .await;
        let mut adapter = open(&dongle.link).await;
        adapter.ask(Request::current(0x00), None).await.unwrap();
        let answer = adapter.ask(Request::current(0x0C), None).await.unwrap();
        assert_eq!(told(&answer), ["7E8 410C0CB2"], "{lost:?}");
        assert_eq!(adapter.restarts(), 1, "{lost:?}");
        let heard = dongle.heard_text();
        assert!(heard.matches("ATH1\r").count() == 2 && heard.matches("ATZ\r").count() == 1, "{heard}");
    }
}

/// Told to give up early, it gives up too early on this car: it is told to wait longer again.
#[tokio::test(flavor = "multi_thread")]
async fn an_adapter_that_gives_up_too_early() {
    let hasty = std::sync::atomic::AtomicBool::new(false);
    let asked = AtomicUsize::new(0);
    let dongle = Dongle::on_tcp(script(move |command| {
        match command {
            "ATAT2" => hasty.store(true, Ordering::SeqCst),
            "ATAT1" => hasty.store(false, Ordering::SeqCst),
            "010C"
                if hasty.load(Ordering::SeqCst) && asked.fetch_add(1, Ordering::SeqCst).is_multiple_of(2) =>
            {
                return b"NO DATA\r\r>".to_vec();
            }
            _ => {}
        }
        good(command).into_bytes()
    }))
    .await;
    let mut adapter = open(&dongle.link).await;
    let first = adapter.ask(Request::current(0x00), None).await.unwrap();
    adapter.learn(&first, &bundle().pids).await.unwrap();
    assert_eq!(adapter.capabilities().waits, Some(Waits::Aggressive));
    for _ in 0..5 {
        adapter.ask(Request::current(0x0C), None).await.unwrap();
    }
    assert_eq!(adapter.capabilities().waits, Some(Waits::Adaptive));
    let answer = adapter.ask(Request::current(0x0C), None).await.unwrap();
    assert_eq!(told(&answer), ["7E8 410C0CB2"]);
    let heard = dongle.heard_text();
    assert!(heard.rfind("ATAT1\r") > heard.rfind("ATAT2\r"), "{heard}");
}

/// The promise to answer is given again and again: bounded, and told.
#[tokio::test(flavor = "multi_thread")]
async fn a_car_that_only_promises() {
    let dongle = Dongle::on_tcp(script(|command| match command {
        "010C" => b"7E8037F0178\r\r>".to_vec(),
        _ => good(command).into_bytes(),
    }))
    .await;
    let mut adapter = open(&dongle.link).await;
    let answer = adapter.ask(Request::current(0x0C), None).await.unwrap();
    assert_eq!(answer.trouble().as_deref(), Some("7E8: still busy (78)"));
    assert_eq!(dongle.heard_text().matches("010C\r").count(), 6);
}

/// It hangs for good; its plug is pulled and put back: the same bay goes on with the same visit.
#[tokio::test(flavor = "multi_thread")]
async fn a_hung_adapter_is_used_again_when_it_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_store(dir.path());
    let link = dir.path().join("obd");
    let mut sim = VehicleSim::spawn_pty(profile(CarSpec::default()), Some(link.clone())).await.unwrap();
    let bay =
        Bay::start(&store, "bay-1", &format!("elm327+serial://{}?baud=38400", link.display()), Poll::Auto);
    bay.nth("vehicle.report", 1).await;
    sim.fault(Fault::Freeze);
    bay.until_state("hung", |row| {
        matches!(row.state.reason.as_deref(), Some("adapter-hung" | "adapter-silent"))
    })
    .await;
    sim.vanish().await;
    bay.until_reason(Some("port-missing")).await;
    sim.return_().await;
    bay.until_reason(None).await;
    bay.stop().await;
}

/// Half of a reply, then silence: the adapter is woken and asked on.
#[tokio::test(flavor = "multi_thread")]
async fn half_a_reply_is_an_error_and_no_end() {
    let (sim, mut adapter) = on_pty(profile(car(6))).await;
    let rpm = Request::current(0x0C);
    adapter.ask(rpm, None).await.unwrap();
    sim.fault(Fault::HalfThenSilence);
    let error = adapter.ask(rpm, None).await.unwrap_err();
    assert!(matches!(error, AdapterError::HalfReply(_)), "{error}");
    assert_eq!(told(&adapter.ask(rpm, None).await.unwrap()), RPM);
}

/// A clone that dies of several PIDs in one request dies of it once: the verdict is remembered by
/// its identity and link, through the store, and the next session reports without it.
#[tokio::test(flavor = "multi_thread")]
async fn a_deadly_trial_is_made_once() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_store(dir.path());
    let path = dir.path().join("obd");
    let clone = SimAdapter::named("clone-hangs-multi-unannounced").unwrap();
    let profile = Profile { adapter: clone, car: Some(car(6)) };
    let mut sim = VehicleSim::spawn_pty(profile, Some(path.clone())).await.unwrap();
    let link = format!("elm327+serial://{}?baud=38400", path.display());
    let bay = Bay::start(&store, "bay-1", &link, Poll::Auto);
    bay.until_state("hung", |row| {
        matches!(row.state.reason.as_deref(), Some("adapter-hung" | "adapter-silent"))
    })
    .await;
    assert_eq!(bay.count("vehicle.report").await, 0);
    sim.vanish().await;
    sim.return_().await;
    let report = bay.nth("vehicle.report", 1).await;
    assert_eq!(report["errors"], serde_json::json!([]));
    bay.nth("vehicle.signals", 2).await;
    bay.until_reason(None).await;
    let several = sim.requests().iter().filter(|r| r[0] == 1 && r.len() > 2).count();
    assert_eq!(several, 0, "it never reached the car, and was not tried again");
    // Under the link, too: most clones have this name.
    let remembered_as = format!("ELM327 v1.5 @ {link}");
    let stored = store.read(move |r| r.adapter(&remembered_as)).await.unwrap().unwrap();
    assert!(stored.contains("\"multi_pid\":false"), "{stored}");
    bay.stop().await;
}

/// A link that drops in the middle of a visit's scan: what was heard is reported, and when the
/// link is back the whole car.
#[tokio::test(flavor = "multi_thread")]
async fn a_scan_that_was_cut_off_is_made_again() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_store(dir.path());
    let slow = CarSpec { latency_ms: 30, ..car(6) };
    let mut sim = VehicleSim::spawn_tcp("127.0.0.1:0".parse().unwrap(), profile(slow)).await.unwrap();
    let link = format!("elm327+tcp://{}", sim.addr().unwrap());
    let bay = Bay::start(&store, "bay-1", &link, Poll::Auto);
    let deadline = std::time::Instant::now() + vehicle_bay::DEADLINE;
    // Behind the code lists and the number, in front of the monitors.
    while !sim.requests().iter().any(|request| request.starts_with(&[0x09, 0x02]))
        || sim.requests().len() < 20
    {
        assert!(std::time::Instant::now() < deadline, "no scan");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    sim.vanish().await;
    let cut = bay.nth("vehicle.report", 1).await;
    let is_cut = |report: &serde_json::Value| {
        report["not_assessable_because"].as_array().unwrap().contains(&"scan-incomplete".into())
    };
    assert!(is_cut(&cut), "{cut}");
    sim.return_().await;
    let whole = bay.nth("vehicle.report", 2).await;
    assert!(!is_cut(&whole), "{whole}");
    assert_eq!(whole["visit"], cut["visit"]);
    bay.nth("vehicle.signals", 2).await;
    assert_eq!(bay.count("vehicle.report").await, 2, "the visit has its report");
    bay.stop().await;
}
