//! Makers' own signals in the running service: the files of a `[[vehicle]]`, asked of
//! the car they fit, through the gate, into windows and the report.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod vehicle_bay;

use std::path::PathBuf;
use std::sync::Arc;

use baygate::config::tables::{Poll, VehicleTable};
use baygate::sim::vehicle::{Adapter, CarSpec, MakersUnit, Profile, SlcanProfile, SlcanSim, VehicleSim};
use baygate::store::requests::RequestState;
use serde_json::{Value, json};
use vehicle_bay::dongle::{Dongle, good};
use vehicle_bay::{Bay, open_store, quick, table};

/// 1D4GP00R55B123456, the car of `good`: position 10 is a 5, model year 2005.
const SET: &str = r#"{"commands":[
 {"hdr":"7E0","rax":"7E8","cmd":{"22":"1E12"},"freq":1,"signals":[
  {"id":"OIL_LIFE","path":"Engine","name":"Oil life","suggestedMetric":"oilLife","fmt":{"len":8,"max":100,"unit":"percent"}},
  {"id":"GEAR","name":"Gear","fmt":{"bix":8,"len":8,"map":{"4":{"description":"Drive","value":"D"}}}}]},
 {"hdr":"7E0","cmd":{"22":"2005"},"freq":1,"filter":{"from":2004,"to":2006},"signals":[
  {"id":"FITS","name":"Fits","fmt":{"len":16,"max":65535,"unit":"scalar"}}]},
 {"hdr":"7E0","cmd":{"22":"2018"},"freq":1,"filter":{"from":2018},"signals":[
  {"id":"TOO_NEW","name":"Too new","fmt":{"len":8,"max":255,"unit":"scalar"}}]},
 {"hdr":"7E0","cmd":{"2E":"1E1200"},"freq":1,"signals":[]},
 {"hdr":"7E0","cmd":{"22":"DEAD"},"freq":1,"signals":[
  {"id":"NEVER","name":"Never","fmt":{"len":8,"max":255,"unit":"scalar"}}]}
]}"#;
const OTHER_MAKERS: &str = r#"{"vin":["KMH*"],"commands":[
 {"hdr":"7E4","cmd":{"22":"0101"},"freq":1,"signals":[{"id":"SOC","name":"SOC","fmt":{"len":8,"max":100,"unit":"percent"}}]}]}"#;

async fn dongle() -> Dongle {
    // It echoes: else 222018, of which lost characters could make a 28, would not be sent in any case.
    Dongle::echoing_on_tcp(Arc::new(|command| {
        // With or without the response count behind it.
        let body = match command.get(..6).unwrap_or(command) {
            "221E12" => "7E805621E124B04",
            "222005" => "7E8056220050102",
            "222018" => "7E80462201801",
            "220101" => "7EC0462010132",
            "22DEAD" => "7E8037F2231",
            _ => return good(command).into_bytes(),
        };
        format!("{body}\r\r>").into_bytes()
    }))
    .await
}

fn with_files(dir: &std::path::Path, link: &str, files: &[(&str, &str)]) -> VehicleTable {
    let write = |(name, text): &(&str, &str)| -> PathBuf {
        std::fs::write(dir.join(name), text).unwrap();
        dir.join(name)
    };
    VehicleTable { signals: files.iter().map(write).collect(), ..table("bay-1", link, Poll::Auto) }
}

fn values<'a>(report: &'a Value, address: &str) -> Vec<(&'a str, &'a Value, &'a str)> {
    let ecus = report["ecus"].as_array().unwrap();
    let ecu = ecus.iter().find(|ecu| ecu["address"] == address).unwrap();
    let text = |value: &'a Value, member: &str| value[member].as_str().unwrap();
    ecu["values"]
        .as_array()
        .unwrap()
        .iter()
        .map(|v| (text(v, "name"), &v["value"], text(v, "unit")))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_car_is_asked_what_fits_it_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_store(dir.path());
    let dongle = dongle().await;
    let garbled = "{\"commands\": [\n{\"hdr\": \"7E\"}]}";
    let files = [("garbled.json", garbled), ("set.json", SET), ("other.json", OTHER_MAKERS)];
    let bay = Bay::start_table(&store, with_files(dir.path(), &dongle.link, &files), quick());

    let report = bay.nth("vehicle.report", 1).await;
    assert_eq!(report["vin"], "1D4GP00R55B123456");
    let told = values(&report, "7E8");
    for expected in
        [("OIL_LIFE", &json!(75.0), "percent"), ("GEAR", &json!("D"), ""), ("FITS", &json!(258.0), "scalar")]
    {
        assert!(told.contains(&expected), "{expected:?} in {told:?}");
    }
    assert!(!told.iter().any(|(name, ..)| ["TOO_NEW", "SOC", "NEVER"].contains(name)), "{told:?}");
    let errors = report["errors"].as_array().unwrap();
    assert!(errors.iter().any(|error| error["request"] == "22DEAD"), "what failed is listed: {errors:?}");

    let facts = bay
        .until("makers' signals in a window", |facts| {
            facts.iter().filter(|(kind, _)| kind == "vehicle.signals").any(|(_, window)| {
                let signals = window["signals"].as_array().unwrap();
                signals.iter().any(|signal| signal["name"] == "OIL_LIFE" && signal["last"] == json!(75.0))
            })
        })
        .await;
    let windows = facts.iter().filter(|(kind, _)| kind == "vehicle.signals");
    for window in windows.flat_map(|(_, window)| window["signals"].as_array().unwrap()) {
        assert_ne!(window["name"], "GEAR", "texts have no mean");
        assert_ne!(window["name"], "TOO_NEW");
    }

    let troubles = bay.health.troubles();
    let trouble = troubles.iter().find(|trouble| trouble.part == "link/bay-1/files").unwrap();
    assert!(trouble.text.en.contains("garbled.json:2:"), "{}", trouble.text.en);
    assert!(!trouble.blocks_ready);

    // A requested scan has them too, and asks once more what was left out of the background.
    let row = bay.scan().await;
    assert_eq!(row.state, RequestState::Done);
    assert!(values(&row.outcome.unwrap(), "7E8").iter().any(|(name, ..)| *name == "OIL_LIFE"));
    let health = bay.health.clone();
    bay.stop().await;
    assert!(health.troubles().is_empty());

    let heard = dongle.heard_text();
    for never in ["222018", "220101", "2E1E12", "2E"] {
        assert!(!heard.split('\r').any(|line| line.starts_with(never)), "{never} was sent");
    }
}

/// A unit on 710 that answers on 77A, as makers pair them; the second command does not say where.
const PAIRED: &str = r#"{"commands":[
 {"hdr":"710","rax":"77A","cmd":{"22":"F187"},"freq":1,"signals":[
  {"id":"PART_FIRST","name":"Part","fmt":{"len":8,"max":255,"unit":"scalar"}},
  {"id":"PART_LAST","name":"Part","fmt":{"bix":104,"len":8,"max":255,"unit":"scalar"}}]},
 {"hdr":"710","rax":"77A","cmd":{"22":"F191"},"freq":1,"signals":[
  {"id":"HARDWARE","name":"Hardware","fmt":{"bix":24,"len":8,"max":255,"unit":"scalar"}}]},
 {"hdr":"710","cmd":{"22":"F189"},"freq":1,"signals":[]},
 {"hdr":"6F5","cmd":{"22":"F191"},"freq":1,"signals":[]},
 {"hdr":"710","rax":"77A","cmd":{"22":"F191"},"din":"03","freq":1,"signals":[]}
]}"#;
/// The same with 29 bits and a priority of the maker's.
const PRIORITY: &str = r#"{"commands":[
 {"hdr":"DA17","rax":"17","pri":"14","cmd":{"22":"F187"},"freq":1,"signals":[
  {"id":"PART_FIRST","name":"Part","fmt":{"len":8,"max":255,"unit":"scalar"}},
  {"id":"PART_LAST","name":"Part","fmt":{"bix":104,"len":8,"max":255,"unit":"scalar"}}]},
 {"hdr":"DA17","pri":"14","cmd":{"22":"F191"},"freq":1,"signals":[
  {"id":"HARDWARE","name":"Hardware","fmt":{"bix":24,"len":8,"max":255,"unit":"scalar"}}]}
]}"#;

fn car(protocol: u8, request: u32, answer: u32) -> CarSpec {
    CarSpec { protocol, makers_unit: Some(MakersUnit { request, answer }), ..CarSpec::default() }
}

/// What the unit says of itself: `28101-5LJ-2020` in three frames, `HW02` in one.
fn told_by_the_maker(report: &Value, address: &str) {
    let told = values(report, address);
    for expected in [
        ("PART_FIRST", &json!(f64::from(b'2')), "scalar"),
        ("PART_LAST", &json!(f64::from(b'0')), "scalar"),
        ("HARDWARE", &json!(f64::from(b'2')), "scalar"),
    ] {
        assert!(told.contains(&expected), "{expected:?} in {told:?}");
    }
    // And the others are asked as ever afterwards.
    assert_eq!(report["vin"], "1M8GDM9AXKP042788");
    let pids = report["ecus"].as_array().unwrap().iter().flat_map(|ecu| ecu["values"].as_array().unwrap());
    assert_eq!(pids.filter(|value| value["pid"] == "010C").count(), 2, "{report}");
}

async fn asks_a_makers_unit(link: &str, set: &str, address: &str) -> Value {
    let dir = tempfile::tempdir().unwrap();
    let store = open_store(dir.path());
    let bay = Bay::start_table(&store, with_files(dir.path(), link, &[("set.json", set)]), quick());
    let report = bay.nth("vehicle.report", 1).await;
    told_by_the_maker(&report, address);
    told_by_the_maker(&bay.scan().await.outcome.unwrap(), address);
    bay.stop().await;
    report
}

#[tokio::test(flavor = "multi_thread")]
async fn a_unit_answers_where_the_set_says() {
    for (set, protocol, request, answer) in
        [(PAIRED, 6, 0x710, 0x77A), (PRIORITY, 7, 0x14DA_17F1, 0x14DA_F117)]
    {
        let car = car(protocol, request, answer);
        let address = if protocol == 6 { "77A" } else { "14DAF117" };
        let profile = || Profile { adapter: Adapter::default(), car: Some(car.clone()) };
        let dongle = VehicleSim::spawn_tcp("127.0.0.1:0".parse().unwrap(), profile()).await.unwrap();
        let report = asks_a_makers_unit(&format!("elm327+tcp://{}", dongle.name()), set, address).await;
        if set == PAIRED {
            what_was_not_asked_is_said(&report);
        }

        let dongle = VehicleSim::spawn_pty(profile(), None).await.unwrap();
        asks_a_makers_unit(&format!("elm327+serial://{}?baud=38400", dongle.name()), set, address).await;

        let bus = SlcanSim::spawn_tcp("127.0.0.1:0".parse().unwrap(), SlcanProfile::default(), &car);
        let bus = bus.await.unwrap();
        let link = format!("slcan+tcp://{}?bitrate=500000", bus.name());
        let report = asks_a_makers_unit(&link, set, address).await;
        if set == PAIRED {
            what_was_not_asked_is_said(&report);
            let control = "t71083000000000000000".to_owned();
            assert!(bus.heard().contains(&control), "flow control goes to who was asked");
        }
    }
}

/// Nothing vanishes: neither what is never asked nor who was listened to in vain.
fn what_was_not_asked_is_said(report: &Value) {
    let errors = report["errors"].as_array().unwrap();
    let said = |request: &str, words: &str| {
        errors
            .iter()
            .any(|error| error["request"] == request && error["error"].as_str().unwrap().contains(words))
    };
    assert!(
        said("22F189", "on 718; if the unit answers elsewhere, the file must name it in `rax`"),
        "{errors:?}"
    );
    assert!(said("6F5.22F191", "set.json: never asked: 6F5 is no address of diagnosis"), "{errors:?}");
    assert!(said("710.77A.22F191", "set.json: never asked: it needs other requests around it"), "{errors:?}");
    assert_eq!(errors.iter().filter(|e| e["error"].as_str().unwrap().contains("never asked")).count(), 2);
}
