//! Makers' own trouble codes, as shipped: whose text stands beside a code.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::path::{Path, PathBuf};

use baygate::ident::Vin;
use baygate::protocols::Bundle;
use baygate::vehicle::dtc_words::dtc_words;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("firmware-protocols")
}

/// `Wal33D/dtc-database` (MIT), its files of twelve makers, less the rows that the head of each
/// file here names; a list of ours beside it adds its own rows.
#[test]
fn every_row_of_the_list_is_there() {
    let bundle = Bundle::load(&folder()).unwrap();
    for (brand, listed, ours) in [
        ("vw", 528, 7),
        ("bmw", 250, 0),
        ("mercedes", 32, 0),
        ("honda", 94, 6),
        ("toyota", 44, 7),
        ("nissan", 42, 3),
        ("mazda", 233, 0),
        ("mitsubishi", 33, 0),
        ("subaru", 92, 0),
        ("suzuki", 17, 0),
        ("kia", 76, 0),
        ("ford", 398, 0),
    ] {
        assert_eq!(bundle.maker_dtc_text_count(brand), listed + ours, "{brand}");
    }
    for brand in ["byd", "geely", "tesla", "no such brand"] {
        assert_eq!(bundle.maker_dtc_text_count(brand), 0, "{brand}");
    }
}

/// First, last and one between of each file, as upstream words them.
#[test]
fn a_list_in_english_is_shown_as_it_is() {
    let bundle = Bundle::load(&folder()).unwrap();
    for (brand, code, en) in [
        ("vw", "P1101", "Oxygen Sensor Circuit Bank 1 Sensor 1 Voltage Too Low/Air Leak"),
        ("vw", "P1373", "Cylinder 7 Ignition Circuit Open"),
        ("vw", "P1866", "Data Bus Powertrain Missing Messages"),
        ("bmw", "P1083", "Fuel Control Mixture Lean Bank 1 Sensor 1"),
        ("bmw", "P1351", "Misfire Cylinder 5 With Fuel Cut-off"),
        ("bmw", "P1780", "CAN Torque Reduction"),
        ("mercedes", "P1105", "Atmospheric Pressure Sensor In Control Module"),
        ("mercedes", "P1781", "Upshift Delay Switchover Valve ATCC Y35"),
        ("honda", "P1106", "BARO Circuit Range Performance Malfunction"),
        ("honda", "P1753", "TCM A/T Lockup Solenoid Valve \"A\" Fault"),
        ("honda", "P1795", "Automatic Transmission System Malfunction"),
        ("toyota", "P1100", "BARO Sensor Circuit"),
        ("toyota", "P1656", "OCV Circuit"),
        ("nissan", "P1105", "MAP BARO Pressure Switch Solenoid Valve"),
        ("nissan", "P1760", "Overrun Clutch Solenoid Valve Circuit"),
        ("mazda", "P1000", "OBD II Monitor Testing Not Completed"),
        ("mazda", "P1901", "Torque Converter Clutch Circuit Intermittent"),
        ("mitsubishi", "P1390", "Timing Belt Skipped One Tooth Or More"),
        ("subaru", "P1513", "Idle Air Control Solenoid Signal 2 Circuit High Input"),
        ("suzuki", "P1895", "TCM To ECM Torque Reduction Circuit Malfunction"),
        ("kia", "P1216", "Fuel Injector 4 Circuit High Voltage"),
        ("ford", "P1260", "Theft Detected Engine Disabled"),
        ("ford", "P1904", "Kickdown Solenoid Circuit High Voltage"),
    ] {
        let texts = bundle.maker_dtc_texts(brand, code);
        assert_eq!(texts.len(), 1, "{brand} {code}");
        assert_eq!((texts[0].en.as_str(), texts[0].zh.as_str()), (en, en), "{brand} {code}");
    }
}

/// What was left out stays out: rows of another maker, two meanings in one, letters lost.
#[test]
fn rows_that_cannot_be_right_are_not_shown() {
    let bundle = Bundle::load(&folder()).unwrap();
    for (brand, code) in [
        ("nissan", "P1780"),
        ("nissan", "P1901"),
        ("toyota", "P1895"),
        ("subaru", "P1301"),
        ("ford", "P1294"),
    ] {
        assert_eq!(
            dtc_words(&bundle, Some(brand), code).unwrap().en,
            "Maker-specific code, not in our list",
            "{brand} {code}"
        );
    }
}

/// P1130 means something else on each of these cars.
#[test]
fn the_vin_says_whose_text_it_is() {
    let bundle = Bundle::load(&folder()).unwrap();
    for (wmi, zh, en) in [
        (
            "LSV",
            "长期燃油修正（乘法）2 列：混合气过稀（按大众清单；另一清单：",
            "Volkswagen; another list: Long Term",
        ),
        ("LGB", "Swirl Control Valve Control Solenoid Valve（按日产清单）", "(by the list for Nissan)"),
        ("LVR", "HO2S Bank 1 Sensor 1 Not Switching", "(by the list for Mazda)"),
        ("LVS", "Lack of Upstream Heated Oxygen Sensor Switch", "(by the list for Ford)"),
        ("LGX", "未收录的厂家自定义码", "Maker-specific code, not in our list"),
        ("LBV", "未收录的厂家自定义码", "Maker-specific code, not in our list"),
    ] {
        let vin = Vin::new(format!("{wmi}00000000000000")).unwrap();
        let brand = bundle.vin.maker(&vin).unwrap().brand.clone();
        let text = dtc_words(&bundle, Some(&brand), "P1130").unwrap();
        assert!(text.zh.starts_with(zh), "{wmi}: {}", text.zh);
        assert!(text.en.contains(en), "{wmi}: {}", text.en);
    }
}

/// Somebody's list comes with his licence and name, gives words to no generic code, and is one line
/// of English a code.
#[test]
fn a_list_of_others_says_whose_it_is() {
    let bundle = Bundle::load(&folder()).unwrap();
    let licence = std::fs::read_to_string(folder().join("obd/makers/LICENSE-dtc-database")).unwrap();
    let mut lists = 0;
    for entry in std::fs::read_dir(folder().join("obd/makers")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if !name.starts_with("dtc-database-") {
            continue;
        }
        lists += 1;
        let list: toml::Table = std::fs::read_to_string(&path).unwrap().parse().unwrap();
        let (kind, holder) = list["licence"].as_str().unwrap().split_once(", ").unwrap();
        assert!(kind == "MIT" && licence.starts_with("MIT License\n"), "{name}");
        assert!(licence.contains(&format!("\n{holder}\n")), "{name}: {holder}");
        for (code, text) in list["codes"].as_table().unwrap() {
            let text = text.as_str().unwrap();
            assert!(code.starts_with("P1") && bundle.dtc_text(code).is_none(), "{name} {code}");
            assert!(text.is_ascii() && text.trim() == text && text.len() >= 3, "{name} {code}: {text}");
        }
    }
    assert_eq!(lists, 12);
}
