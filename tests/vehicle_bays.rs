//! Several bays at once: a dongle that hangs and one that floods disturb nobody.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod vehicle_bay;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use baygate::config::tables::Poll;
use baygate::event::device::DeviceStatus;
use baygate::store::requests::RequestState;
use vehicle_bay::dongle::{Dongle, good};
use vehicle_bay::{Bay, open_store};

/// What happened at the dongles, in its order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// The hanging one was asked what it never answers,
    Hangs,
    /// and is asked something else: it was waited for until now.
    MovesOn,
    /// The good one was asked.
    Asked,
}

/// For each wait that is over: how often the good one was asked meanwhile.
fn asked_meanwhile(steps: &[Step]) -> Vec<usize> {
    let mut waits = Vec::new();
    let mut meanwhile = None;
    for step in steps {
        match (step, &mut meanwhile) {
            (Step::Hangs, None) => meanwhile = Some(0),
            (Step::Asked, Some(count)) => *count += 1,
            (Step::MovesOn, _) => waits.extend(meanwhile.take()),
            _ => {}
        }
    }
    waits
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_hangs_and_one_that_floods_disturb_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_store(dir.path());
    let folder = |name: &str| {
        let folder = dir.path().join(name);
        std::fs::create_dir(&folder).unwrap();
        folder
    };
    let steps = Arc::new(Mutex::new(Vec::new()));
    // Answers its name and then nothing more.
    let seen = Arc::clone(&steps);
    let hanging = Dongle::on_pty(
        &folder("hanging"),
        Arc::new(move |command| {
            let hangs = matches!(command, "ATRV" | "0100" | "01001");
            seen.lock().unwrap().push(if hangs { Step::Hangs } else { Step::MovesOn });
            if hangs { Vec::new() } else { good(command).into_bytes() }
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
    let seen = Arc::clone(&steps);
    let good_one = Dongle::on_pty(
        &folder("good"),
        Arc::new(move |command| {
            seen.lock().unwrap().push(Step::Asked);
            good(command).into_bytes()
        }),
    );
    let bad = [
        Bay::start(&store, "bay-hanging", &hanging.link, Poll::Auto),
        Bay::start(&store, "bay-flooding", &flooding.link, Poll::Auto),
    ];
    let well = Bay::start(&store, "bay-good", &good_one.link, Poll::Auto);

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
    steps.lock().unwrap().clear();
    let windows = well.count("vehicle.signals").await;
    well.nth("vehicle.signals", windows + 2).await;
    // Each wait for the hanging one is two seconds, in which the good one is asked over and over: one
    // question at a time over all dongles would have it wait, too.
    well.until("two waits for the hanging one", |_| asked_meanwhile(&steps.lock().unwrap()).len() >= 2).await;
    let meanwhile = asked_meanwhile(&steps.lock().unwrap());
    assert!(meanwhile.iter().all(|asked| *asked >= 3), "{meanwhile:?}");
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
