//! What a scan makes of the newest PIDs: those with a layout in units, those without as the bytes
//! that came; and of an answer with too few bytes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod vehicle_bay;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use baygate::cli::scan;
use baygate::config::values::Locale;
use baygate::vehicle::adapter::Adapter;
use baygate::vehicle::report;
use vehicle_bay::bundle;
use vehicle_bay::dongle::{Dongle, good, masks_to_c0, plain};

#[tokio::test(flavor = "multi_thread")]
async fn a_pid_without_a_public_layout_is_shown_as_it_came() {
    // It echoes: `0140` could lose its 1 on the way.
    let dongle = Dongle::echoing_on_tcp(Arc::new(|command| {
        let body = match plain(command) {
            // AD and B3; C3.
            "01A0" => "7E80641A000082001",
            "01C0" => "7E80641C020000000",
            "01AD" => "7E80741AD03FF382328",
            "01B3" => "7E80541B3A1B2C3",
            "01C3" => "7E80441C31234",
            asked => match masks_to_c0(asked) {
                Some(mask) => mask,
                None => return good(command).into_bytes(),
            },
        };
        format!("{body}\r\r>").into_bytes()
    }))
    .await;
    let report = scan::scan_link(&dongle.link.parse().unwrap(), &bundle(), None, Locale::En).await.unwrap();
    let values = report.ecus[0].values.iter();
    let told: Vec<(&str, &str, String, &str)> = values
        .map(|value| (value.pid.as_str(), value.name.as_str(), value.value.to_string(), value.unit.as_str()))
        .collect();
    let text = |pid, name, value: &str, unit| (pid, name, value.to_owned(), unit);
    assert_eq!(
        told,
        [
            text("010C", "engine_speed", "812.5", "rpm"),
            text("01AD", "crankcase_pressure", "-50.0", "Pa"),
            text("01AD", "oil_separator_speed", "9000.0", "rpm"),
            text("01B3", "raw_B3", "\"A1B2C3\"", ""),
            text("01C3", "raw_C3", "\"1234\"", ""),
        ]
    );
}

/// One of two bytes is no speed and no silence.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_too_short_is_named() {
    let dongle = Dongle::echoing_on_tcp(Arc::new(|command| {
        let body = match plain(command) {
            "0100" => "7E806410000180000",
            "010C" => "7E803410C0C",
            _ => return good(command).into_bytes(),
        };
        format!("{body}\r\r>").into_bytes()
    }))
    .await;
    let report = scan::scan_link(&dongle.link.parse().unwrap(), &bundle(), None, Locale::En).await.unwrap();
    let values: Vec<&str> = report.ecus[0].values.iter().map(|value| value.pid.as_str()).collect();
    assert_eq!(values, ["010D"]);
    let of_it = report.errors.iter().filter(|error| error.request == "010C");
    let of_it: Vec<&str> = of_it.map(|error| error.error.as_str()).collect();
    assert_eq!(of_it, ["7E8: answer too short (1 of 2 bytes)"], "{:?}", report.errors);
}

/// The last word is why the scan broke off, whatever else was wrong before.
#[tokio::test(flavor = "multi_thread")]
async fn behind_it_stands_why_a_scan_broke_off() {
    let dead = AtomicBool::new(false);
    let dongle = Dongle::echoing_on_tcp(Arc::new(move |command| {
        let body = match plain(command) {
            asked if dead.load(Ordering::SeqCst) || asked.starts_with("06") => {
                dead.store(true, Ordering::SeqCst);
                return Vec::new();
            }
            "0100" => "7E806410000180000",
            "010C" => "7E803410C0C",
            _ => return good(command).into_bytes(),
        };
        format!("{body}\r\r>").into_bytes()
    }))
    .await;
    let bundle = bundle();
    let mut adapter = Adapter::open(&dongle.link.parse().unwrap(), &bundle, None, None).await.unwrap();
    let record = vehicle_bay::scanned(&mut adapter, &bundle).await.unwrap();
    assert_eq!(record.broke_off.as_deref(), Some("adapter-hung"));
    let report = report::build(&record, &bundle);
    let errors: Vec<_> = report.errors.iter().map(|error| (&*error.request, &*error.error)).collect();
    assert!(errors.contains(&("010C", "7E8: answer too short (1 of 2 bytes)")), "{errors:?}");
    assert_eq!(errors.last(), Some(&("scan", "adapter-hung")), "{errors:?}");
}

/// A car that says that its full scale is another one (PID 4F): 101 of 400 kPa, where 255 is usual. Live
/// it reads as in a report.
#[tokio::test(flavor = "multi_thread")]
async fn live_values_have_the_full_scale_that_the_car_gives() {
    let dongle = Dongle::echoing_on_tcp(Arc::new(|command| {
        let body = match plain(command) {
            "0100" => "7E806410000200001",
            "0120" => "7E806412000000001",
            "0140" => "7E806414000020000",
            "010B" => "7E803410B65",
            "014F" => "7E806414F00000028",
            _ => return good(command).into_bytes(),
        };
        format!("{body}\r\r>").into_bytes()
    }))
    .await;
    let report = scan::scan_link(&dongle.link.parse().unwrap(), &bundle(), None, Locale::En).await.unwrap();
    let reported = report.ecus[0].values.iter().find(|value| value.pid == "010B").unwrap();
    assert_eq!(reported.value, 158.431_373);

    let mut program = tokio::process::Command::new(env!("CARGO_BIN_EXE_baygate"));
    let words = ["watch", &dongle.link, "0B", "--rounds", "1", "--json", "--config", "/none.toml"];
    let watching = program.args(words).kill_on_drop(true).output();
    let told = tokio::time::timeout(vehicle_bay::DEADLINE, watching).await.unwrap().unwrap();
    let text = String::from_utf8(told.stdout).unwrap();
    let said = String::from_utf8_lossy(&told.stderr);
    let line: serde_json::Value =
        serde_json::from_str(text.trim()).unwrap_or_else(|_| panic!("{text}{said}"));
    assert_eq!((line["ecu"].as_str(), line["value"].as_f64()), (Some("7E8"), reported.value.as_f64()));
}
