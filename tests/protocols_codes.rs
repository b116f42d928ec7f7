//! Trouble codes in words and the makers behind VINs, as shipped.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use baygate::ident::Vin;
use baygate::protocols::Bundle;

fn shipped() -> Bundle {
    Bundle::load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("firmware-protocols")).unwrap()
}

fn is_chinese(c: char) -> bool {
    ('\u{4e00}'..='\u{9fff}').contains(&c)
}

#[test]
fn more_than_2500_generic_codes_are_worded_in_both_languages() {
    let bundle = shipped();
    assert!(bundle.dtc_text_count() > 2_500, "{}", bundle.dtc_text_count());
    for (code, text) in bundle.dtc_texts() {
        let generic = ["P0", "P2", "P34", "U0"].iter().any(|start| code.starts_with(start));
        assert!(generic && code.len() == 5, "{code}");
        assert!(text.zh.chars().any(is_chinese), "{code}: {}", text.zh);
        assert!(!text.en.chars().any(is_chinese) && text.en.is_ascii(), "{code}: {}", text.en);
        assert!(text.en.starts_with(|c: char| c.is_ascii_uppercase() || c.is_ascii_digit()), "{}", text.en);
        for part in [&text.zh, &text.en] {
            assert!(part.trim() == part && part.len() > 5, "{code}: {part:?}");
            assert!(!part.contains(['{', '}', '@', '_']) && !part.contains("  "), "{code}: {part}");
        }
        // A word said twice in a row comes of a component and a condition that overlap.
        for twice in ["控制控制", "信号信号", "电路电路", "故障故障", "异常异常", "传感器传感器"]
        {
            assert!(!text.zh.contains(twice), "{code}: {}", text.zh);
        }
    }
}

#[test]
fn no_two_codes_read_the_same() {
    let bundle = shipped();
    let (mut zh, mut en) = (BTreeMap::new(), BTreeMap::new());
    for (code, text) in bundle.dtc_texts() {
        assert_eq!(zh.insert(text.zh.clone(), code), None, "{code}: {}", text.zh);
        assert_eq!(en.insert(text.en.clone(), code), None, "{code}: {}", text.en);
    }
}

#[test]
fn a_code_says_what_where_and_how() {
    let bundle = shipped();
    for (code, zh, en) in [
        (
            "P0118",
            "发动机冷却液温度传感器 1 信号电压过高",
            "Engine coolant temperature sensor 1: signal voltage high",
        ),
        ("P0137", "氧传感器（1 列 2 号）信号电压过低", "Oxygen sensor, bank 1 sensor 2: signal voltage low"),
        ("P0171", "混合气过稀（1 列）", "Mixture too lean, bank 1"),
        ("P0304", "4 缸失火", "Misfire, cylinder 4"),
        ("P0327", "爆震传感器 1 信号电压过低", "Knock sensor 1: signal voltage low"),
        (
            "P0341",
            "凸轮轴位置传感器 A（1 列）信号超出范围或性能异常",
            "Camshaft position sensor A, bank 1: signal out of range or implausible",
        ),
        ("P0352", "点火线圈 B 一次/二次电路故障", "Ignition coil B, primary or secondary: circuit fault"),
        ("P0443", "炭罐电磁阀电路故障", "Evaporative purge valve: circuit fault"),
        ("P0735", "5 挡传动比不正确", "Gear 5: ratio incorrect"),
        (
            "P2135",
            "节气门/加速踏板位置传感器 A/B 不相符",
            "Throttle or pedal position sensor A/B: readings do not agree",
        ),
        (
            "P3425",
            "4 缸停缸/进气门控制电路故障或断路",
            "Cylinder deactivation or intake valve, cylinder 4: control circuit faulty or open",
        ),
        ("U0100", "与发动机控制单元 A 失去通信", "No communication with engine control module A"),
        ("U0415", "收到防抱死制动（ABS）控制单元的无效数据", "Invalid data from anti-lock brake module"),
    ] {
        let text = bundle.dtc_text(code).unwrap();
        assert_eq!((text.zh.as_str(), text.en.as_str()), (zh, en), "{code}");
    }
    assert_eq!(bundle.dtc_text("P1259"), None, "a maker's code has no generic text");
    assert_eq!(bundle.maker_dtc_texts("acura", "P1259")[0].zh, "VTEC 系统故障");
    assert_eq!(bundle.maker_dtc_texts("toyota", "P1259"), []);
}

#[test]
fn the_makers_of_cars_sold_in_china_are_known() {
    let bundle = shipped();
    assert!(bundle.vin.wmi_count() >= 230, "{}", bundle.vin.wmi_count());
    for (wmi, brand) in [
        ("LFV", "vw"),
        ("LSV", "vw"),
        ("LSG", "gm"),
        ("LHG", "honda"),
        ("LVH", "honda"),
        ("LVG", "toyota"),
        ("LFM", "toyota"),
        ("LGB", "nissan"),
        ("LGX", "byd"),
        ("LC0", "byd"),
        ("L6T", "geely"),
        ("LGW", "great_wall"),
        ("LVV", "chery"),
        ("LVS", "ford"),
        ("LBV", "bmw"),
        ("LE4", "mercedes"),
        ("LRW", "tesla"),
        ("LBE", "hyundai"),
        ("LYV", "volvo"),
        ("LZW", "wuling"),
        ("LMG", "gac"),
        ("LSJ", "mg"),
        ("LS4", "changan"),
        ("LS5", "changan"),
        ("LS6", "changan"),
        ("LNB", "baic"),
        ("LNA", "aion"),
        ("LMW", "gac"),
        ("LEF", "jmc"),
        ("LVB", "foton"),
        ("LSF", "maxus"),
        ("LSK", "maxus"),
        ("LNN", "chery"),
        ("LVT", "chery"),
        ("LB2", "geely"),
        ("LFB", "faw"),
        ("L1N", "xpeng"),
        ("LW4", "li_auto"),
        ("HLX", "li_auto"),
        ("HJN", "nio"),
        ("HXM", "xiaomi"),
        ("LFZ", "leapmotor"),
        ("LM8", "seres"),
        ("LUZ", "hozon"),
        ("LDP", "voyah"),
        ("LL6", "mitsubishi"),
        ("L2C", "land_rover"),
        ("LB1", "mercedes"),
        ("WBA", "bmw"),
        ("WDD", "mercedes"),
        ("W1K", "mercedes"),
        ("WAU", "audi"),
        ("WP1", "porsche"),
        ("JTH", "lexus"),
        ("5YJ", "tesla"),
        ("SAL", "land_rover"),
    ] {
        let vin = Vin::new(format!("{wmi}00000000000000")).unwrap();
        let maker = bundle.vin.maker(&vin).unwrap_or_else(|| panic!("{wmi}"));
        assert_eq!(maker.brand, brand, "{wmi}");
        let name = bundle.vin.brand(&maker.brand).unwrap();
        assert!(!maker.name.zh.is_empty() && !maker.name.en.is_empty() && !name.zh.is_empty(), "{wmi}");
        if wmi.starts_with(['L', 'H']) {
            assert_eq!(bundle.vin.country(&vin).unwrap().id, "CN", "{wmi}");
        }
    }
}

/// The daemon loads the bundle at its start and at each reload. The bound is for an
/// unoptimised build on a busy machine; an optimised one is about ten times as fast.
#[test]
fn the_bundle_loads_quickly() {
    let best = (0..3).map(|_| time_of(|| drop(shipped()))).min().unwrap();
    assert!(best < Duration::from_millis(1_500), "{best:?}");
    println!("bundle loaded in {best:?}");
}

fn time_of(work: impl FnOnce()) -> Duration {
    let start = Instant::now();
    work();
    start.elapsed()
}
