//! A warning in the running daemon leaves a file of what was heard before it, which
//! plays back.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "support/daemon.rs"]
mod daemon;

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use baygate::api::client::{Client, Method};
use baygate::sim::vehicle::{Adapter, CarSpec, Profile, SlcanProfile, SlcanSim, VehicleSim};
use daemon::{Daemon, Desk, LONG, program};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, BufReader};

const VIN: &str = "1M8GDM9AXKP042788";
/// Parts of it that stand in one frame: `GDM9` in the second, `042788` in the third.
const WITHIN_FRAMES: [&str; 2] = ["47444D39", "303432373838"];

async fn recordings(desk: &Desk) -> Vec<Value> {
    let Ok(client) = Client::connect(desk.path("control.sock")).await else { return Vec::new() };
    let reply = client.request(Method::GET, &format!("/v1/vehicles/{VIN}"), None).await.unwrap();
    let Ok(car) = reply.accepted() else { return Vec::new() };
    car["recordings"].as_array().cloned().unwrap_or_default()
}

/// The recording that a warning leaves.
async fn kept(desk: &Desk, daemon: &Daemon) -> Value {
    let deadline = tokio::time::Instant::now() + LONG;
    loop {
        if let Some(kept) = recordings(desk).await.into_iter().next() {
            return kept;
        }
        assert!(tokio::time::Instant::now() < deadline, "nothing recorded:\n{}", daemon.log());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Its file, and what is in it.
fn unpacked(desk: &Desk, kept: &Value) -> (PathBuf, String) {
    let file = desk.path("data").join("recordings").join(kept["file"].as_str().unwrap());
    let packed = std::fs::read(&file).unwrap();
    assert_eq!(packed.len() as u64, kept["bytes"].as_u64().unwrap());
    assert_eq!(packed[..4], [0x28, 0xB5, 0x2F, 0xFD], "a zstd frame");
    let mut text = String::new();
    std::io::Read::read_to_string(
        &mut ruzstd::decoding::StreamingDecoder::new(&packed[..]).unwrap(),
        &mut text,
    )
    .unwrap();
    (file, text)
}

/// Of a bus: every frame as a line of candump's log, which `baygate decode` reads.
#[tokio::test(flavor = "multi_thread")]
async fn a_warning_leaves_the_frames_of_a_bus() {
    let desk = Desk::new();
    let spec = CarSpec {
        vin: Some(VIN.into()),
        confirmed: vec!["P0420".parse().unwrap(), "P0301".parse().unwrap()],
        ..CarSpec::default()
    };
    let talks = SlcanProfile { chatter: true, ..SlcanProfile::default() };
    let sim = SlcanSim::spawn_tcp("127.0.0.1:0".parse().unwrap(), talks, &spec).await.unwrap();
    desk.write(&format!(
        "[[vehicle]]\nid = \"bay-1\"\nlink = \"slcan+tcp://{}?bitrate=500000\"\n",
        sim.name()
    ));
    let daemon = Daemon::start(&desk.config()).await;
    let kept = kept(&desk, &daemon).await;
    drop(sim);
    daemon.kill().await;
    let (file, text) = unpacked(&desk, &kept);
    assert!(file.to_string_lossy().ends_with(".candump.log.zst"), "{}", file.display());
    assert!(text.contains(" slcan 7DF#0209020000000000") && text.contains(" slcan 7E8#10144902"), "{text}");
    for part in WITHIN_FRAMES {
        assert!(!text.contains(part), "the VIN is masked");
    }
    // The bus's own talk, decoded.
    let (log, dbc) = (desk.path("car.log"), desk.path("car.dbc"));
    std::fs::write(&log, &text).unwrap();
    let database = "VERSION \"\"\nBO_ 640 Engine: 8 ECM\n SG_ Speed : 0|16@1+ (0.25,0) [0|0] \"rpm\" X\n";
    std::fs::write(&dbc, database).unwrap();
    let decoded = program().arg("decode").arg("--dbc").arg(&dbc).arg(&log).output().await.unwrap();
    let decoded = String::from_utf8(decoded.stdout).unwrap();
    let first: Value = serde_json::from_str(decoded.lines().next().unwrap()).unwrap();
    assert_eq!(
        (&first["message"], &first["signals"]["Speed"]),
        (&Value::from("Engine"), &Value::from(914.25))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_warning_leaves_what_was_heard_before_it() {
    let desk = Desk::new();
    let spec = CarSpec {
        vin: Some(VIN.into()),
        confirmed: vec!["P0420".parse().unwrap(), "P0301".parse().unwrap()],
        ..CarSpec::default()
    };
    let profile = Profile { adapter: Adapter::default(), car: Some(spec) };
    let sim = VehicleSim::spawn_tcp("127.0.0.1:0".parse().unwrap(), profile).await.unwrap();
    desk.write(&format!("[[vehicle]]\nid = \"bay-1\"\nlink = \"elm327+tcp://{}\"\n", sim.addr().unwrap()));
    let daemon = Daemon::start(&desk.config()).await;
    let kept = kept(&desk, &daemon).await;
    drop(sim);
    daemon.kill().await;

    let (file, text) = unpacked(&desk, &kept);
    assert!(text.lines().count() > 50, "a whole scan");
    // The VIN as an adapter prints it: hex of its characters; in the trace as text, and as hex of that.
    for part in WITHIN_FRAMES {
        assert!(!text.contains(&hex::encode_upper(part)) && !text.contains(part), "the VIN is masked");
    }

    // The simulator plays it back, and a scan of that finds what was wrong with the car.
    let mut replay = program()
        .args(["simulate", "vehicle", "--listen", "127.0.0.1:0", "--json", "--replay"])
        .arg(&file)
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(replay.stdout.take().unwrap()).lines();
    let said = lines.next_line().await.unwrap().unwrap();
    let said: Value = serde_json::from_str(&said).unwrap();
    let address =
        said.as_object().unwrap().values().find_map(|v| v.as_str().filter(|v| v.contains("127.0.0.1:")));
    let address = address.unwrap_or_else(|| panic!("{said}")).rsplit('/').next().unwrap().to_owned();
    let scan = program()
        .args(["scan", "--json", "--config"])
        .arg(desk.config())
        .arg(format!("elm327+tcp://{address}"))
        .output()
        .await
        .unwrap();
    let report: Value = serde_json::from_slice(&scan.stdout)
        .unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&scan.stderr)));
    let codes: Vec<&str> =
        report["ecus"][0]["dtcs"].as_array().unwrap().iter().filter_map(|dtc| dtc["code"].as_str()).collect();
    assert_eq!(codes, ["P0301", "P0420"]);
    replay.kill().await.unwrap();
}
