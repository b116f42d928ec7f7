//! Makers' own signals in the running service: the files of a `[[vehicle]]`, asked of
//! the car they fit, through the gate, into windows and the report.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod vehicle_bay;

use std::path::PathBuf;
use std::sync::Arc;

use baygate::config::tables::{Poll, VehicleTable};
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
    Dongle::on_tcp(Arc::new(|command| {
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
