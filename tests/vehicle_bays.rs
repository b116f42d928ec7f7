//! Several bays at once: a dongle that hangs and one that floods disturb nobody.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod vehicle_bay;

use std::sync::Arc;
use std::time::Duration;

use baygate::config::tables::Poll;
use baygate::event::device::DeviceStatus;
use baygate::sim::vehicle::{Adapter, CarSpec, Profile, VehicleSim};
use baygate::store::requests::RequestState;
use vehicle_bay::dongle::{Dongle, good};
use vehicle_bay::{Bay, open_store};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_hangs_and_one_that_floods_disturb_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_store(dir.path());
    let folder = |name: &str| {
        let folder = dir.path().join(name);
        std::fs::create_dir(&folder).unwrap();
        folder
    };
    // Answers its name and then nothing more.
    let hanging = Dongle::on_pty(
        &folder("hanging"),
        Arc::new(|command| match command {
            "ATRV" | "0100" | "01001" => Vec::new(),
            command => good(command).into_bytes(),
        }),
    );
    // Every question to the car brings half a megabyte without a prompt.
    let flooding = Dongle::on_pty(
        &folder("flooding"),
        Arc::new(|command| match command {
            command if command.starts_with("01") => b"7E8 FLOOD FLOOD ".repeat(32 * 1024),
            command => good(command).into_bytes(),
        }),
    );
    let profile = Profile { adapter: Adapter::default(), car: Some(CarSpec::default()) };
    let sim = VehicleSim::spawn_pty(profile, Some(folder("good").join("ttyOBD"))).await.unwrap();
    let bad = [
        Bay::start(&store, "bay-hanging", &hanging.link, Poll::Auto),
        Bay::start(&store, "bay-flooding", &flooding.link, Poll::Auto),
    ];
    let link = format!("elm327+serial://{}?baud=38400", sim.path().display());
    let well = Bay::start(&store, "bay-good", &link, Poll::Auto);

    // The two are in trouble, and it is said.
    for bay in &bad {
        let state = bay
            .until_state("trouble", |row| {
                matches!(row.state.state, DeviceStatus::Degraded | DeviceStatus::Failed)
            })
            .await;
        assert!(state.state.detail.is_some());
    }
    // Meanwhile, and from now on, the good one works as if it were alone.
    well.nth("vehicle.report", 1).await;
    let windows = well.count("vehicle.signals").await;
    let begun = std::time::Instant::now();
    well.nth("vehicle.signals", windows + 5).await;
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?} for five windows of 0.6 s", begun.elapsed());
    let begun = std::time::Instant::now();
    assert_eq!(well.scan().await.state, RequestState::Done);
    assert!(begun.elapsed() < Duration::from_secs(10));
    for bay in &bad {
        assert_eq!((bay.count("vehicle.arrived").await, bay.count("vehicle.report").await), (0, 0));
    }
    assert_eq!(well.count("vehicle.departed").await, 0);
    // All stop in time, also those in the middle of waiting.
    let [hanging_bay, flooding_bay] = bad;
    let (a, b, c) = tokio::join!(hanging_bay.stop(), flooding_bay.stop(), well.stop());
    assert!([a, b, c].iter().all(|took| *took < Duration::from_secs(5)), "{a:?} {b:?} {c:?}");
}
