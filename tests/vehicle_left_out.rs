//! What a car promises and a scan does not ask: named in the report, request by request, and no
//! freeze frame goes short for the sake of another.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod vehicle_bay;

use std::sync::Arc;

use baygate::cli::scan;
use baygate::config::values::Locale;
use baygate::event::vehicle::VehicleReport;
use baygate::protocols::PidTable;
use baygate::sim::vehicle::{CarSpec, Dtc, Profile, VehicleSim};
use vehicle_bay::bundle;
use vehicle_bay::dongle::{Dongle, good, masks_to_c0, plain};

fn single(bytes: &[u8]) -> String {
    format!("7E8{:02X}{}", bytes.len(), hex::encode_upper(bytes))
}

/// What a car with these freeze frames (a mask of PIDs 01 to 20 each) says to a request for one.
fn frozen(frames: &[[u8; 4]], pid: u8, frame: u8, table: &PidTable) -> String {
    let head = [0x42, pid, frame];
    match (frames.get(usize::from(frame)), pid) {
        (None, _) => "NO DATA".into(),
        (Some(_), 0x02) => single(&[&head[..], &[0x03, frame]].concat()),
        (Some(mask), 0x00) => single(&[&head[..], mask].concat()),
        (Some(mask), 0x01..=0x20) if u32::from_be_bytes(*mask) << (pid - 1) >> 31 == 1 => {
            let bytes = table.get(0x02, pid).unwrap().bytes.unwrap();
            single(&[&head[..], &vec![0x40; bytes]].concat())
        }
        _ => "NO DATA".into(),
    }
}

async fn scanned(link: &str) -> VehicleReport {
    scan::scan_link(&link.parse().unwrap(), &bundle(), None, Locale::En).await.unwrap()
}

async fn car_with(frames: Vec<[u8; 4]>) -> Dongle {
    let all = bundle();
    Dongle::echoing_on_tcp(Arc::new(move |command| {
        let command = plain(command);
        let body = match (hex::decode(command).as_deref(), command) {
            (Ok([0x02, pid, frame]), _) => frozen(&frames, *pid, *frame, &all.pids),
            // PID 0C alone; the code in the first frame.
            (_, "0100") => "7E806410000100000".into(),
            (_, "03") => "7E80443010300".into(),
            _ => return good(command).into_bytes(),
        };
        format!("{body}\r\r>").into_bytes()
    }))
    .await
}

/// How many PIDs of each frame are in the report.
fn values(report: &VehicleReport) -> Vec<usize> {
    report.ecus[0].freeze_frames.iter().map(|frame| frame.values.len()).collect()
}

fn left_out(report: &VehicleReport, why: &str) -> Vec<String> {
    let why = format!("left out: {why}");
    report.errors.iter().filter(|error| error.error == why).map(|error| error.request.clone()).collect()
}

const MORE_VALUES: &str = "more values of freeze frames than a scan reads";

/// The first frame promises 04 to 1F, the second 04, 05, 0C and 0D: it has all of them, whatever
/// the first one holds.
#[tokio::test(flavor = "multi_thread")]
async fn no_frame_goes_short_for_another_and_the_rest_is_named() {
    let dongle = car_with(vec![[0x1F, 0xFF, 0xFF, 0xFE], [0x18, 0x18, 0, 0]]).await;
    let report = scanned(&dongle.link).await;
    let frames = &report.ecus[0].freeze_frames;
    assert_eq!(frames.iter().map(|frame| frame.code.as_str()).collect::<Vec<_>>(), ["P0300", "P0301"]);
    let pids = |frame: usize| -> std::collections::BTreeSet<&str> {
        frames[frame].values.iter().map(|value| value.pid.as_str()).collect()
    };
    assert_eq!(pids(1).into_iter().collect::<Vec<_>>(), ["0204", "0205", "020C", "020D"]);
    assert!(pids(0).contains("0217") && !pids(0).contains("0218"), "{:?}", pids(0));
    let named: Vec<String> = (0x18..=0x1F).map(|pid| format!("02{pid:02X}00")).collect();
    assert_eq!(left_out(&report, MORE_VALUES), [named.join(" ")]);
    for request in named {
        assert!(!dongle.heard_text().contains(&request), "{request} was asked");
    }
}

/// Nine frames of four values: three each, and nobody knows what is behind the eighth.
#[tokio::test(flavor = "multi_thread")]
async fn many_frames_share_alike() {
    let report = scanned(&car_with(vec![[0x18, 0x18, 0, 0]; 9]).await.link).await;
    assert_eq!(values(&report), [3; 8]);
    let named: Vec<String> = (0..8).map(|frame| format!("020D{frame:02X}")).collect();
    assert_eq!(left_out(&report, MORE_VALUES), named);
    assert_eq!(left_out(&report, "more freeze frames than a scan reads, if there are any"), ["020208"]);
}

/// A PID that no table has, and records of the ninth and tenth code of a unit.
#[tokio::test(flavor = "multi_thread")]
async fn unknown_pids_and_codes_beyond_the_eighth_are_named() {
    let dongle = Dongle::echoing_on_tcp(Arc::new(|command| {
        let body = match plain(command) {
            // D5.
            "01C0" => "7E80641C000000800",
            // 01 (counts), 02 and 0D.
            "0900" => "7E8064900C0080000",
            asked => match masks_to_c0(asked) {
                Some(mask) => mask,
                None => return good(command).into_bytes(),
            },
        };
        format!("{body}\r\r>").into_bytes()
    }))
    .await;
    let report = scanned(&dongle.link).await;
    assert_eq!(left_out(&report, "not in the table of PIDs"), ["01D5"]);
    assert!(!dongle.heard_text().contains("01D5"));
    assert_eq!(left_out(&report, "no table says what it holds"), ["090D"]);

    let enhanced: Vec<Dtc> = (0..10).map(|n| format!("B123{n}").parse().unwrap()).collect();
    let car = CarSpec { enhanced, ..CarSpec::default() };
    let sim = VehicleSim::spawn_tcp(
        "127.0.0.1:0".parse().unwrap(),
        Profile { car: Some(car), ..Profile::default() },
    );
    let sim = sim.await.unwrap();
    let report = scanned(&format!("elm327+tcp://{}", sim.name())).await;
    let errors =
        report.errors.iter().filter(|error| error.error.contains("more codes than are read one by one"));
    let named: Vec<(&str, Vec<&str>)> =
        errors.map(|error| (error.error.as_str(), error.request.split(' ').collect())).collect();
    let [(why, requests)] = named.as_slice() else { panic!("{named:?}") };
    assert_eq!(*why, "7E8: left out: more codes than are read one by one");
    let kinds = requests.iter().map(|request| &request[..4]).collect::<Vec<_>>();
    assert_eq!(kinds, ["1904", "1904", "1906", "1906"], "{requests:?}");
    let codes: std::collections::BTreeSet<&str> = requests.iter().map(|request| &request[4..8]).collect();
    assert_eq!(codes.len(), 2, "{requests:?}");
}
