//! Dongles that misbehave: each is told about with a reason and what to do,
//! none stops anything else, and what becomes well again is used again.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod vehicle_bay;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use baygate::config::tables::Poll;
use baygate::event::device::DeviceStatus;
use baygate::sim::vehicle::{Adapter, CarSpec, Profile, VehicleSim};
use vehicle_bay::dongle::{Dongle, Script, good};
use vehicle_bay::{Bay, open_store};

fn script(answer: impl Fn(&str) -> Vec<u8> + Send + Sync + 'static) -> Script {
    Arc::new(answer)
}

/// What each kind of nonsense is called, and words its message must contain.
#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_nonsense_has_a_reason_and_a_hint() {
    type Case = (&'static str, Script, &'static str, DeviceStatus, &'static str);
    let cases: Vec<Case> = vec![
        ("never says anything", script(|_| Vec::new()), "adapter-silent", DeviceStatus::Failed, "baud"),
        (
            "garbage, never a prompt",
            script(|_| vec![0xFE, 0x81, 0xC3, 0x0D, 0x99]),
            "adapter-garbled",
            DeviceStatus::Degraded,
            "baud",
        ),
        (
            "a huge line without CR",
            script(|_| vec![b'A'; 600 * 1024]),
            "adapter-garbled",
            DeviceStatus::Degraded,
            "ELM327",
        ),
        (
            "an echo and nothing else",
            script(|command| format!("{command}\r").into_bytes()),
            "adapter-garbled",
            DeviceStatus::Degraded,
            "baud",
        ),
        (
            "? to everything",
            script(|_| b"?\r\r>".to_vec()),
            "not-elm327",
            DeviceStatus::Failed,
            "another adapter",
        ),
        (
            "another service on that port",
            script(|_| b"HTTP/1.1 400 Bad Request\r\n\r\n<html>".to_vec()),
            "not-elm327",
            DeviceStatus::Failed,
            "link's address",
        ),
        (
            "hangs in the middle of a reply",
            script({
                let hung = AtomicBool::new(false);
                move |command| {
                    if hung.load(Ordering::SeqCst) {
                        return Vec::new();
                    }
                    if command == "0100" {
                        hung.store(true, Ordering::SeqCst);
                        return b"7E8064100".to_vec();
                    }
                    good(command).into_bytes()
                }
            }),
            "adapter-hung",
            DeviceStatus::Degraded,
            "pull it out",
        ),
    ];
    let mut all = Vec::new();
    for (name, script, reason, status, hint) in cases {
        all.push(tokio::spawn(async move {
            let dir = tempfile::tempdir().unwrap();
            let store = open_store(dir.path());
            let dongle = Dongle::on_tcp(script).await;
            let bay = Bay::start(&store, "bay-1", &dongle.link, Poll::Auto);
            let row = bay.until_reason(Some(reason)).await;
            assert_eq!(row.state.state, status, "{name}");
            assert!(row.state.detail.as_deref().unwrap().contains(hint), "{name}: {:?}", row.state.detail);
            let trouble = bay.health.troubles().pop().unwrap();
            assert_eq!((trouble.code.as_str(), trouble.blocks_ready), (reason, false), "{name}");
            assert!(!trouble.text.zh.is_empty());
            assert!(bay.stop().await < Duration::from_secs(5), "{name}");
        }));
    }
    for case in all {
        case.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn spoilt_replies_degrade_and_recover() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_store(dir.path());
    let spoil = Arc::new(AtomicBool::new(false));
    let spoiling = Arc::clone(&spoil);
    let dongle = Dongle::on_pty(
        dir.path(),
        script(move |command| {
            if spoiling.load(Ordering::SeqCst) && command.starts_with("01") {
                return b"7E8\xFF\xFE!!\r\r>".to_vec();
            }
            good(command).into_bytes()
        }),
    );
    let bay = Bay::start(&store, "bay-1", &dongle.link, Poll::Auto);
    let report = bay.nth("vehicle.report", 1).await;
    assert_eq!(report["vin"], "1D4GP00R55B123456");
    assert!(
        report["errors"].as_array().unwrap().iter().any(|e| e["request"] == "0A" && e["error"] == "no data"),
        "what got no answer is listed"
    );
    spoil.store(true, Ordering::SeqCst);
    let row = bay.until_reason(Some("reply-spoilt")).await;
    assert_eq!(row.state.state, DeviceStatus::Degraded);
    assert!(row.state.detail.unwrap().contains("plug and cable"));
    spoil.store(false, Ordering::SeqCst);
    bay.until_reason(None).await;
    bay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn half_a_vin_is_no_vin_and_no_swap() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_store(dir.path());
    let asked = Arc::new(AtomicUsize::new(0));
    let counting = Arc::clone(&asked);
    let dongle = Dongle::on_tcp(script(move |command| {
        // From the third time on only half of the VIN comes.
        if command == "0902" && counting.fetch_add(1, Ordering::SeqCst) >= 2 {
            return b"7E81014490201314434\r7E82242313233343536\r\r>".to_vec();
        }
        good(command).into_bytes()
    }))
    .await;
    let bay = Bay::start(&store, "bay-1", &dongle.link, Poll::Auto);
    bay.nth("vehicle.report", 1).await;
    bay.nth("vehicle.signals", 5).await;
    assert!(asked.load(Ordering::SeqCst) > 3, "the VIN is read again during a visit");
    assert_eq!((bay.count("vehicle.arrived").await, bay.count("vehicle.departed").await), (1, 0));
    bay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_bay_hangs_the_other_works() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_store(dir.path());
    let hanging = Dongle::on_pty(dir.path(), script(|_| Vec::new()));
    let profile = Profile { adapter: Adapter::default(), car: Some(CarSpec::default()) };
    let sim = VehicleSim::spawn_pty(profile, None).await.unwrap();
    let first = Bay::start(&store, "bay-hangs", &hanging.link, Poll::Auto);
    let link = format!("elm327+serial://{}?baud=38400", sim.path().display());
    let second = Bay::start(&store, "bay-works", &link, Poll::Auto);
    second.nth("vehicle.report", 1).await;
    second.nth("vehicle.signals", 2).await;
    first.until_reason(Some("adapter-silent")).await;
    second.until_reason(None).await;
    first.stop().await;
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_held_by_another_process_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_store(dir.path());
    let dongle = Dongle::on_pty(dir.path(), script(|command| good(command).into_bytes()));
    // The same locks as ours, taken by the first service.
    let holder = Bay::start(&store, "bay-holder", &dongle.link, Poll::OnRequest);
    holder.until_reason(None).await;
    let late = Bay::start(&store, "bay-late", &dongle.link, Poll::Auto);
    let row = late.until_reason(Some("port-busy")).await;
    let detail = row.state.detail.unwrap();
    assert!(detail.contains(&format!("process {}", std::process::id())), "{detail}");
    holder.stop().await;
    late.until_reason(None).await;
    late.stop().await;
}
