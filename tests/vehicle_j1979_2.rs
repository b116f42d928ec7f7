//! Cars of SAE J1979-2, which answer UDS alone: how soon they are read, with how few questions, and
//! what is left of them when the adapter dies.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod vehicle_bay;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use baygate::config::tables::Poll;
use baygate::sim::vehicle::{Adapter as SimAdapter, CarSpec, Multi, Profile, VehicleSim};
use baygate::vehicle::adapter::Adapter;
use baygate::vehicle::uds::find;
use baygate::vehicle::{report, scan};
use serde_json::{Value, json};
use vehicle_bay::dongle::{Dongle, Script, good, plain};
use vehicle_bay::{Bay, bundle, open_store};

const VIN: &str = "1M8GDM9AXKP042788";

fn car() -> CarSpec {
    CarSpec { obd: false, j1979_2: true, confirmed: vec!["P0420".parse().unwrap()], ..CarSpec::default() }
}

/// The simulated car behind this adapter, and the link to it.
async fn behind(adapter: SimAdapter, car: CarSpec) -> (VehicleSim, String) {
    let profile = Profile { adapter, car: Some(car) };
    let sim = VehicleSim::spawn_tcp("127.0.0.1:0".parse().unwrap(), profile).await.unwrap();
    let link = format!("elm327+tcp://{}", sim.addr().unwrap());
    (sim, link)
}

/// A car that answers UDS alone never gives an adapter the answer it is tried on elsewhere: it learns
/// from a unit's own not to wait for more after each.
#[tokio::test(flavor = "multi_thread")]
async fn a_car_of_j1979_2_is_read_with_few_questions() {
    let confirmed = vec!["P0420".parse().unwrap(), "P0301".parse().unwrap()];
    let car = CarSpec { latency_ms: 60, confirmed, ..car() };
    let (sim, link) = behind(SimAdapter::default(), car).await;
    let bundle = bundle();
    let mut adapter = Adapter::open(&link.parse().unwrap(), &bundle, None, None).await.unwrap();
    let link = "bay-1".parse().unwrap();
    let begun = Instant::now();
    let record = scan::run(&mut adapter, &bundle, uuid::Uuid::nil(), link, &mut |_| {}).await.unwrap();
    let (took, requests) = (begun.elapsed(), sim.requests());
    println!("J1979-2 at 60 ms a reply: {took:?}, {} requests", requests.len());
    let report = report::build(&record, &bundle);
    assert_eq!(adapter.capabilities().response_count, Some(true), "tried on a unit's own answer");
    assert_eq!(report.errors, []);
    // The search ends with the first unit; calibration ids stand for part numbers (F187), names for F197.
    let asked = |did: u16| {
        let request = [&[0x22][..], &did.to_be_bytes()].concat();
        requests.iter().filter(|seen| **seen == request).count()
    };
    assert_eq!([0xF190, 0xF187, 0xF197, 0xF40C].map(asked), [1, 0, 0, 0]);
    // 141 when each identifier was asked alone. Below 100 the car's replies take less than six of the
    // ten seconds; the clock itself is the machine's, and bounded loosely.
    assert!(requests.len() < 100, "{}", requests.len());
    assert!(took < Duration::from_secs(60), "{took:?}");
}

/// The report is the same whether adapter and unit take several identifiers at once or not.
#[tokio::test(flavor = "multi_thread")]
async fn identifiers_go_together_or_alone() {
    let mut reports: Vec<(_, Vec<Value>, Value, Value)> = Vec::new();
    for (name, multi, most_parameters, together, learned) in [
        ("good", Multi::Whole, 6, true, Some(true)),
        ("a unit that takes one", Multi::Whole, 1, false, None),
        ("an adapter that takes one", Multi::Error, 6, false, Some(false)),
        ("an adapter that cuts off", Multi::First, 6, false, Some(true)),
        ("an adapter that stops half way", Multi::Half, 6, false, Some(false)),
    ] {
        let car = CarSpec { units: 1, drift: false, latency_ms: 1, most_parameters, ..car() };
        let (sim, link) = behind(SimAdapter { multi, ..SimAdapter::default() }, car).await;
        let bundle = bundle();
        let mut adapter = Adapter::open(&link.parse().unwrap(), &bundle, None, None).await.unwrap();
        let record = vehicle_bay::scanned(&mut adapter, &bundle).await.unwrap();
        let report = report::build(&record, &bundle);
        assert_eq!(report.errors, [], "{name}");
        assert_eq!(adapter.capabilities().several_identifiers, learned, "{name}");
        let requests = sim.requests();
        let asked = |request: &[u8]| requests.iter().filter(|seen| *seen == request).count();
        assert_eq!(asked(&[0x22, 0xF4, 0x0C]), usize::from(!together), "{name}");
        assert_eq!(asked(&[0x22, 0xF4, 0x20]), usize::from(!together), "{name}");
        // Tried once, and after a failure not again.
        let several = requests.iter().filter(|request| request[0] == 0x22 && request.len() > 3).count();
        assert!(if together { several > 10 } else { several <= 1 }, "{name}: {several}");
        let unit = serde_json::to_value(&report.ecus[0]).unwrap();
        reports.push((
            name,
            // A clock among the values goes on from one car to the next.
            unit["values"]
                .as_array()
                .unwrap()
                .iter()
                .filter(|value| value["pid"] != "011F")
                .cloned()
                .collect(),
            unit["monitor_tests"].clone(),
            unit["readiness"].clone(),
        ));
    }
    let (_, values, tests, readiness) = &reports[0];
    assert!(values.len() > 40, "{values:?}");
    for (name, others, their_tests, theirs) in &reports {
        assert_eq!((others, their_tests, theirs), (values, tests, readiness), "{name}");
    }
}

/// An adapter that dies of several identifiers in one request, or restarts, does so once: what it told
/// before is reported, what failed is named, and the verdict outlives it.
#[tokio::test(flavor = "multi_thread")]
async fn several_identifiers_kill_an_adapter_once() {
    for (multi, reason) in [(Multi::Hang, "adapter-hung"), (Multi::Restart, "adapter-restarting")] {
        let dir = tempfile::tempdir().unwrap();
        let store = open_store(dir.path());
        let path = dir.path().join("obd");
        let profile = Profile { adapter: SimAdapter { multi, ..SimAdapter::default() }, car: Some(car()) };
        let mut sim = VehicleSim::spawn_pty(profile, Some(path.clone())).await.unwrap();
        let link = format!("elm327+serial://{}?baud=38400", path.display());
        let bay = Bay::start(&store, "bay-1", &link, Poll::Auto);
        let cut = bay.nth("vehicle.report", 1).await;
        assert_eq!(cut["vin"], VIN, "{reason}: {cut}");
        assert_eq!(cut["ecus"][0]["dtcs"][0]["code"], "P0420", "{reason}: {cut}");
        let why = cut["not_assessable_because"].as_array().unwrap();
        assert!(why.contains(&"scan-incomplete".into()), "{reason}: {why:?}");
        let failed = ["22F420F440F460", "scan"].map(|request| json!({ "request": request, "error": reason }));
        assert_eq!(cut["errors"], json!(failed), "{reason}");
        if multi == Multi::Hang {
            bay.until_state("hung", |row| {
                matches!(row.state.reason.as_deref(), Some("adapter-hung" | "adapter-silent"))
            })
            .await;
            sim.vanish().await;
            sim.return_().await;
        }
        let whole = bay.nth("vehicle.report", 2).await;
        assert_eq!(whole["errors"], json!([]), "{reason}");
        assert!(whole["ecus"][0]["values"].as_array().unwrap().len() > 20, "{reason}: {whole}");
        let several = sim.requests().iter().filter(|r| r[0] == 0x22 && r.len() > 3).count();
        assert_eq!(several, 0, "{reason}: it never reached the car");
        let remembered_as = format!("ELM327 v1.5 @ {link}");
        let stored = store.read(move |r| r.adapter(&remembered_as)).await.unwrap().unwrap();
        assert!(stored.contains("\"several_identifiers\":false"), "{reason}: {stored}");
        // Several PIDs were never tried.
        assert!(!stored.contains("\"multi_pid\":false"), "{reason}: {stored}");
        bay.stop().await;
    }
}

/// It dies while units are looked for: the number of the one that was found is reported.
#[tokio::test(flavor = "multi_thread")]
async fn a_search_that_breaks_off_keeps_what_was_found() {
    let dead = AtomicBool::new(false);
    let script: Script = Arc::new(move |command| match command {
        _ if dead.load(Ordering::SeqCst) => Vec::new(),
        "22F190" => b"7E8101462F190314D38\r7E82147444D3941584B\r7E82250303432373838\r\r>".to_vec(),
        "22F400" => {
            dead.store(true, Ordering::SeqCst);
            Vec::new()
        }
        _ if command.starts_with('0') => b"NO DATA\r\r>".to_vec(),
        _ => good(command).into_bytes(),
    });
    let dongle = Dongle::echoing_on_tcp(script).await;
    let bundle = bundle();
    let mut adapter = Adapter::open(&dongle.link.parse().unwrap(), &bundle, None, None).await.unwrap();
    let record = vehicle_bay::scanned(&mut adapter, &bundle).await.unwrap();
    assert_eq!(record.broke_off.as_deref(), Some("adapter-hung"));
    let report = report::build(&record, &bundle);
    assert_eq!(report.vin.as_ref().map(|vin| vin.as_str()), Some(VIN));
    assert_eq!(report.protocol, "iso15765-4-11bit-500k");
    let failed: Vec<(&str, &str)> =
        report.errors.iter().map(|error| (error.request.as_str(), error.error.as_str())).collect();
    assert_eq!(failed, [("22F400", "adapter-hung"), ("scan", "adapter-hung")]);
}

/// A unit that misses the one question for all of emissions; and what the engine's unit has that no
/// table knows: F4D5 and F80D are named, and F40C, of which half comes, as it was asked for.
#[tokio::test(flavor = "multi_thread")]
async fn all_units_are_found_and_what_is_unknown_is_named() {
    let (header, asked_all) = (AtomicU32::new(0x7DF), AtomicU32::new(0));
    let script: Script = Arc::new(move |command| {
        if let Some(told) = command.strip_prefix("ATSH").and_then(|hex| u32::from_str_radix(hex, 16).ok()) {
            header.store(told, Ordering::SeqCst);
        }
        let plain = plain(command);
        let body = match (header.load(Ordering::SeqCst), plain) {
            (0x7E0, "22F190") => "7E8101462F190314D38\r7E82147444D3941584B\r7E82250303432373838".to_owned(),
            (0x7DF, "22F400") if asked_all.fetch_add(1, Ordering::SeqCst) == 0 => {
                "7E80762F40080100001".into()
            }
            (0x7DF, "22F400") => "7E80762F40080100001\r7E90762F40080000000".into(),
            (0x7E0, "22F400") => "7E80762F40080100001".into(),
            (0x7E1, "22F400") => "7E90762F40080000000".into(),
            (0x7E0, "22F420" | "22F440" | "22F460" | "22F480" | "22F4A0") => {
                format!("7E80762F4{}00000001", &plain[4..])
            }
            (0x7E0, "22F4C0") => "7E80762F4C000000800".into(),
            (0x7E0, "22F40C") => "7E80462F40C0C".into(),
            // 01 and 0D.
            (0x7E0, "22F800") => "7E80762F80080080000".into(),
            (0x7E0, _) if plain.starts_with('2') => "7E8037F2231".into(),
            (0x7E1, _) if plain.starts_with('2') => "7E9037F2231".into(),
            (0x7E0, _) if plain.starts_with('1') => "7E8037F1911".into(),
            (0x7E1, _) if plain.starts_with('1') => "7E9037F1911".into(),
            _ if plain.starts_with("AT") || plain.starts_with("ST") => return good(command).into_bytes(),
            _ => "NO DATA".into(),
        };
        format!("{body}\r\r>").into_bytes()
    });
    let dongle = Dongle::echoing_on_tcp(script).await;
    let bundle = bundle();
    let mut adapter = Adapter::open(&dongle.link.parse().unwrap(), &bundle, None, None).await.unwrap();
    let record = vehicle_bay::scanned(&mut adapter, &bundle).await.unwrap();
    let report = report::build(&record, &bundle);
    let units: Vec<&str> = report.ecus.iter().map(|ecu| ecu.address.as_str()).collect();
    let left_out = report.errors.iter().filter(|error| error.error.contains("left out"));
    let left_out: Vec<_> = left_out.map(|error| (error.request.as_str(), error.error.as_str())).collect();
    let expected = [
        ("22F4D5", "7E8: left out: not in the table of PIDs"),
        ("22F80D", "7E8: left out: no table says what it holds"),
    ];
    assert_eq!((&units[..], &left_out[..]), (&["7E8", "7E9"][..], &expected[..]));
    let short = report.errors.iter().filter(|error| error.error.contains("too short"));
    let short: Vec<_> = short.map(|error| (error.request.as_str(), error.error.as_str())).collect();
    assert_eq!(short, [("22F40C", "7E8: answer too short (1 of 2 bytes)")]);
}

/// All are asked once where the reply breaks off, which takes its time, nobody speaks, or no time is left.
#[tokio::test(flavor = "multi_thread")]
async fn all_are_asked_again_only_where_it_is_worth_the_time() {
    const LATE: Duration = Duration::from_millis(4_100);
    for (name, reply, late, budget, asked, found) in [
        ("half a reply", "7E80762F4", Duration::ZERO, 60, 1, &["7E8", "7E9"][..]),
        ("nobody", "NO DATA\r\r>", Duration::ZERO, 60, 1, &["7E8", "7E9"]),
        ("an answer", "7E80762F40080100001\r\r>", Duration::ZERO, 60, 2, &["7E8"]),
        ("a late answer", "7E80762F40080100001\r\r>", LATE, 4, 1, &["7E8"]),
    ] {
        let (header, asked_all) = (AtomicU32::new(0x7DF), Arc::new(AtomicU32::new(0)));
        let counted = Arc::clone(&asked_all);
        let script: Script = Arc::new(move |command| {
            if let Some(told) = command.strip_prefix("ATSH").and_then(|hex| u32::from_str_radix(hex, 16).ok())
            {
                header.store(told, Ordering::SeqCst);
            }
            let body = match (header.load(Ordering::SeqCst), plain(command)) {
                (0x7DF, "22F400") => {
                    counted.fetch_add(1, Ordering::SeqCst);
                    std::thread::sleep(late);
                    return reply.into();
                }
                (0x7E0, "22F190") => "7E8037F2231",
                (0x7E1, "22F190") => "7E9037F2231",
                _ => return good(command).into_bytes(),
            };
            format!("{body}\r\r>").into_bytes()
        });
        let dongle = Dongle::echoing_on_tcp(script).await;
        let link = dongle.link.parse().unwrap();
        let mut adapter = Adapter::open(&link, &bundle(), None, None).await.unwrap();
        let units = find::units(&mut adapter, Duration::from_secs(budget)).await.unwrap();
        let units: Vec<&str> = units.iter().map(|unit| unit.address.0.as_str()).collect();
        assert_eq!((asked_all.load(Ordering::SeqCst), &units[..]), (asked, found), "{name}");
    }
}
