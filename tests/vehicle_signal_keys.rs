//! Keys of signal sets that say how a command is asked: `tmo`, how long its answer is waited for,
//! and `proto`, the bus it is for. Obeyed on the wire.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod vehicle_bay;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use baygate::config::tables::{Poll, VehicleTable};
use baygate::sim::vehicle::{Adapter, CarSpec, MakersUnit, Profile, SlcanProfile, SlcanSim, VehicleSim};
use baygate::vehicle::AdapterError;
use baygate::vehicle::adapter::Adapter as Opened;
use baygate::vehicle::gate::Request;
use serde_json::{Value, json};
use vehicle_bay::dongle::{Dongle, good};
use vehicle_bay::{Bay, bundle, open_store, quick, table};

fn command(head: &str, id: &str) -> String {
    format!(
        r#"{{{head},"freq":1,"signals":[{{"id":"{id}","name":"","fmt":{{"len":8,"max":255,"unit":"scalar"}}}}]}}"#
    )
}

/// The first report of a car on `link`, and one signal of each command that was answered.
async fn reported(link: &str, commands: &[String]) -> (Value, Vec<String>) {
    let dir = tempfile::tempdir().unwrap();
    let store = open_store(dir.path());
    let bay = Bay::start_table(&store, with_set(dir.path(), link, commands), quick());
    let report = bay.nth("vehicle.report", 1).await;
    bay.stop().await;
    let names = signals(&report);
    (report, names)
}

/// One name for each signal of the makers' in a report.
fn signals(report: &Value) -> Vec<String> {
    let ecus = report["ecus"].as_array().unwrap().iter();
    let values = ecus.flat_map(|ecu| ecu["values"].as_array().into_iter().flatten());
    let names = values.map(|value| value["name"].as_str().unwrap().to_owned());
    names.filter(|name| name.chars().all(|c| c.is_ascii_uppercase() || c == '_')).collect()
}

fn with_set(dir: &Path, link: &str, commands: &[String]) -> VehicleTable {
    let file = dir.join("set.json");
    std::fs::write(&file, format!(r#"{{"commands":[{}]}}"#, commands.join(","))).unwrap();
    VehicleTable { signals: vec![file], ..table("bay-1", link, Poll::Auto) }
}

fn errors_of<'a>(report: &'a Value, request: &str) -> Vec<&'a str> {
    let errors = report["errors"].as_array().unwrap().iter();
    errors.filter(|error| error["request"] == request).map(|error| error["error"].as_str().unwrap()).collect()
}

/// A unit that takes 400 ms: the adapter gives up before, unless it is told to wait, and not to adapt
/// itself. The other one answers only an adapter that was told to wait as usual again.
#[tokio::test(flavor = "multi_thread")]
async fn a_dongle_waits_as_long_as_the_file_says_and_then_as_before() {
    let (steps, adapts) = (AtomicU8::new(0x32), AtomicBool::new(true));
    let dongle = Dongle::echoing_on_tcp(Arc::new(move |command| {
        if let Some(told) = command.strip_prefix("ATST").and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            steps.store(told, Ordering::Relaxed);
        }
        if let Some(told) = command.strip_prefix("ATAT") {
            adapts.store(told != "0", Ordering::Relaxed);
        }
        let waits = (steps.load(Ordering::Relaxed) >= 0x64, adapts.load(Ordering::Relaxed));
        let body = match (command.get(..6), waits) {
            (Some("22F187"), (true, false)) => "7E80462F18701",
            (Some("22F188"), (false, true)) => "7E80462F18802",
            _ => return good(command).into_bytes(),
        };
        format!("{body}\r\r>").into_bytes()
    }))
    .await;
    let commands = [
        command(r#""hdr":"7E0","cmd":{"22":"F187"},"tmo":"80""#, "SLOW"),
        command(r#""hdr":"7E0","cmd":{"22":"F188"}"#, "USUAL"),
    ];
    let (report, names) = reported(&dongle.link, &commands).await;
    assert_eq!(names, ["SLOW", "USUAL"], "{}", report["errors"]);
    let heard = dongle.heard_text();
    let lines: Vec<&str> = heard.split('\r').collect();
    let slow = lines.iter().position(|line| *line == "22F187").unwrap();
    let told = |until: usize| lines[..until].iter().rev().find(|line| line.starts_with("ATST"));
    assert_eq!(told(slow), Some(&"ATST80"), "{lines:?}");
}

/// An answer in one frame is counted from the second question on, the wait told all the same. What comes
/// in several frames or from several units is waited out, and so is one that grew: asked again at once,
/// its value is not lost.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_of_one_frame_ends_the_wait() {
    let grown = |counted: bool| match counted {
        true => "7E8100862F18A070809".to_owned(),
        false => "7E8100862F18A070809\r7E8210A0B".to_owned(),
    };
    let asked = AtomicU8::new(0);
    let dongle = Dongle::echoing_on_tcp(Arc::new(move |command| {
        let counted = command.len() % 2 == 1;
        let body = match command.get(..6) {
            Some("22F187") => "7E80462F18701".to_owned(),
            Some("22F188") => "7E8100862F188020304\r7E8210506".to_owned(),
            Some("220A01") => "7E804620A0103".to_owned(),
            Some("22F18A") if asked.fetch_add(1, Ordering::Relaxed) == 0 => "7E80462F18A07".to_owned(),
            Some("22F18A") => grown(counted),
            _ => return good(command).into_bytes(),
        };
        format!("{body}\r\r>").into_bytes()
    }))
    .await;
    let waits = r#""tmo":"80""#;
    let commands = [
        command(&format!(r#""hdr":"7E0","cmd":{{"22":"F187"}},{waits}"#), "ONE"),
        command(&format!(r#""hdr":"7E0","cmd":{{"22":"F188"}},{waits}"#), "LONG"),
        command(&format!(r#""hdr":"7DF","cmd":{{"22":"0A01"}},{waits}"#), "ALL"),
        command(&format!(r#""hdr":"7E0","cmd":{{"22":"F18A"}},{waits}"#), "GROWN"),
    ];
    let dir = tempfile::tempdir().unwrap();
    let store = open_store(dir.path());
    let bay = Bay::start_table(&store, with_set(dir.path(), &dongle.link, &commands), quick());
    let times = |line: &str| dongle.heard_text().split('\r').filter(|heard| *heard == line).count();
    bay.until("each a few times", |_| {
        let waited_out = ["22F188", "220A01", "22F18A"].iter().all(|line| times(line) > 3);
        waited_out && times("22F1871") > 3
    })
    .await;
    let windows = bay.facts().await;
    bay.stop().await;
    assert_eq!(times("22F18A1"), 1, "once in vain");
    assert_eq!((times("22F1881"), times("22F1882"), times("220A011")), (0, 0, 0));
    let heard = dongle.heard_text();
    let lines: Vec<&str> = heard.split('\r').collect();
    let counted = lines.iter().position(|line| *line == "22F1871").unwrap();
    assert!(!lines[counted..].contains(&"22F187"), "{lines:?}");
    let told = |what: &str| lines[..counted].iter().rev().find(|line| line.starts_with(what));
    assert_eq!([told("ATST"), told("ATAT")], [Some(&"ATST80"), Some(&"ATAT0")]);
    let grown = lines.iter().position(|line| *line == "22F18A1").unwrap();
    assert_eq!(lines[grown + 1..].iter().find(|line| line.starts_with("22")), Some(&"22F18A"));
    let signals = windows.iter().filter(|(kind, _)| kind == "vehicle.signals");
    let told: BTreeSet<(&str, String)> = signals
        .flat_map(|(_, data)| data["signals"].as_array().unwrap())
        .map(|signal| (signal["name"].as_str().unwrap(), signal["last"].to_string()))
        .filter(|(name, _)| ["ONE", "LONG", "ALL", "GROWN"].contains(name))
        .collect();
    let values = [("ALL", "3.0"), ("GROWN", "7.0"), ("LONG", "2.0"), ("ONE", "1.0")];
    assert_eq!(told, values.map(|(name, value)| (name, value.to_owned())).into());
}

/// Half of an answer that was waited for longer, then silence: the next question finds the usual wait.
#[tokio::test(flavor = "multi_thread")]
async fn a_question_that_fails_leaves_no_longer_wait_behind() {
    let dongle = Dongle::echoing_on_tcp(Arc::new(|command| match command.get(..6) {
        Some("22F187") => b"7E80462F1".to_vec(),
        Some("22F188") => b"7E80462F18802\r\r>".to_vec(),
        _ => good(command).into_bytes(),
    }))
    .await;
    let mut adapter = Opened::open(&dongle.link.parse().unwrap(), &bundle(), None, None).await.unwrap();
    adapter.ask(Request::current(0x00), None).await.unwrap();
    let slow = Request::data_by_identifier(0xF187).waiting(0x80);
    let error = adapter.ask(slow, None).await.unwrap_err();
    assert!(matches!(error, AdapterError::HalfReply(_)), "{error}");
    adapter.ask(Request::data_by_identifier(0xF188), None).await.unwrap();
    let heard = dongle.heard_text();
    let lines: Vec<&str> = heard.split('\r').collect();
    let told = |question: &str| {
        let asked = lines.iter().position(|line| *line == question).unwrap();
        ["ATST", "ATAT"].map(|what| lines[..asked].iter().rev().find(|line| line.starts_with(what)).copied())
    };
    assert_eq!(told("22F187"), [Some("ATST80"), Some("ATAT0")], "{lines:?}");
    assert_eq!(told("22F188"), [Some("ATST32"), Some("ATAT1")], "{lines:?}");
}

/// Half of an answer is one command that failed. Waiting for the rest of it took the time a report has:
/// the others are named, and have their turn before it in the next one.
#[tokio::test(flavor = "multi_thread")]
async fn half_an_answer_loses_no_other_command() {
    let dongle = Dongle::echoing_on_tcp(Arc::new(|command| match command.get(..6) {
        Some("22F187") => b"7E80462F1".to_vec(),
        Some("22F188") => b"7E80462F18802\r\r>".to_vec(),
        _ => good(command).into_bytes(),
    }))
    .await;
    let commands = [
        command(r#""hdr":"7E0","cmd":{"22":"F187"}"#, "HALF"),
        command(r#""hdr":"7E0","cmd":{"22":"F188"}"#, "WHOLE"),
    ];
    let dir = tempfile::tempdir().unwrap();
    let store = open_store(dir.path());
    let bay = Bay::start_table(&store, with_set(dir.path(), &dongle.link, &commands), quick());
    let report = bay.nth("vehicle.report", 1).await;
    assert_eq!(errors_of(&report, "22F187"), ["half-reply"], "{}", report["errors"]);
    let why = "left out: the report would have taken too long";
    assert_eq!(errors_of(&report, "22F188"), [why], "{}", report["errors"]);

    let next = bay.scan().await.outcome.unwrap();
    assert_eq!(errors_of(&next, "22F188"), [""; 0], "{}", next["errors"]);
    assert_eq!(signals(&next), ["WHOLE"], "{}", next["errors"]);
    bay.stop().await;
}

/// The bus is listened to for 250 ms, or as long as the file says (FF: 1,020 ms). Each answer is far
/// from the end of the wait it is held against.
#[tokio::test(flavor = "multi_thread")]
async fn on_a_bus_the_file_may_ask_for_more_patience() {
    let (report, names) = from_a_late_unit(450).await;
    assert!(names.contains(&"PATIENT".to_owned()), "{names:?} {}", report["errors"]);
    // The wait is the usual one again: so late an answer only patience that was kept would hear.
    let (report, names) = from_a_late_unit(900).await;
    assert!(!names.contains(&"HASTY".to_owned()), "{names:?}");
    assert_eq!(errors_of(&report, "22F191").len(), 1, "{}", report["errors"]);
}

/// A unit of the maker's that answers so late is asked with patience, then without.
async fn from_a_late_unit(makers_late_ms: u64) -> (Value, Vec<String>) {
    let makers_unit = Some(MakersUnit { request: 0x710, answer: 0x77A });
    let car = CarSpec { makers_unit, makers_late_ms, ..CarSpec::default() };
    let sim =
        SlcanSim::spawn_tcp("127.0.0.1:0".parse().unwrap(), SlcanProfile::default(), &car).await.unwrap();
    let commands = [
        command(r#""hdr":"710","rax":"77A","cmd":{"22":"F187"},"tmo":"FF""#, "PATIENT"),
        command(r#""hdr":"710","rax":"77A","cmd":{"22":"F191"}"#, "HASTY"),
    ];
    let link = format!("slcan+tcp://{}?bitrate=500000", sim.name());
    reported(&link, &commands).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_for_another_bus_is_not_asked_and_is_named() {
    let dongle = Dongle::echoing_on_tcp(Arc::new(|command| {
        let body = match command.get(..6) {
            Some("220A01") => "7E804620A0101",
            Some("220A02") => "7E804620A0202",
            Some("220A03") => "7E804620A0303",
            _ => return good(command).into_bytes(),
        };
        format!("{body}\r\r>").into_bytes()
    }))
    .await;
    let commands = [
        command(r#""hdr":"7DF","cmd":{"22":"0A01"},"proto":"15765-4-11bit""#, "ELEVEN"),
        command(r#""hdr":"DB33","cmd":{"22":"0A02"},"proto":"15765-4-29bit""#, "WIDE"),
        command(r#""hdr":"686A","cmd":{"22":"0A03"},"proto":"9141-2""#, "OLDER"),
        command(r#""hdr":"7DF","cmd":{"22":"0A03"},"proto":"15765-4-29bit""#, "NEITHER"),
    ];
    let (report, names) = reported(&dongle.link, &commands).await;
    assert_eq!(names, ["ELEVEN"], "{}", report["errors"]);
    for (request, bus) in [("220A02", "15765-4-29bit"), ("220A03", "9141-2")] {
        let why = format!("left out: it is for {bus} (`proto`), and this car is on iso15765-4-11bit-500k");
        assert_eq!(errors_of(&report, request), [why], "{}", report["errors"]);
        assert!(!dongle.heard_text().contains(request), "{request} was sent");
    }
    let never = report["errors"].as_array().unwrap();
    let never = never.iter().filter(|error| error["error"].as_str().unwrap().contains("never asked"));
    let never: Vec<_> = never.map(|error| error["error"].clone()).collect();
    assert_eq!(never, [json!("set.json: never asked: `hdr` 7DF is no header on 15765-4-29bit (`proto`)")]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_for_iso_9141_is_asked_there() {
    let profile =
        Profile { adapter: Adapter::default(), car: Some(CarSpec { protocol: 3, ..CarSpec::default() }) };
    let sim = VehicleSim::spawn_tcp("127.0.0.1:0".parse().unwrap(), profile).await.unwrap();
    let commands = [
        command(r#""hdr":"686A","cmd":{"01":"05"},"proto":"9141-2""#, "COOLANT"),
        command(r#""hdr":"7DF","cmd":{"01":"05"},"proto":"15765-4-11bit""#, "ELEVEN"),
    ];
    let (report, names) = reported(&format!("elm327+tcp://{}", sim.name()), &commands).await;
    assert_eq!(report["protocol"], "iso9141-2");
    assert!(names.contains(&"COOLANT".to_owned()) && !names.contains(&"ELEVEN".to_owned()), "{names:?}");
}

/// A file with a key that cannot be obeyed is refused whole, with its place.
#[test]
fn what_cannot_be_obeyed_is_refused() {
    for (key, word) in [
        (r#""tmo":"1""#, None),
        (r#""tmo":"1FF""#, Some("`tmo` is \"1FF\": 2 hex digits belong there")),
        (r#""tmo":"XY""#, Some("`tmo`")),
        (
            r#""proto":"9141""#,
            Some("`proto` is \"9141\": 9141-2, 15765-4-11bit or 15765-4-29bit belongs there"),
        ),
    ] {
        let set = format!(
            r#"{{"commands":[{}]}}"#,
            command(&format!(r#""hdr":"7E0","cmd":{{"22":"F187"}},{key}"#), "X")
        );
        let read = baygate::vehicle::signal_set::SignalSet::from_json(set.as_bytes());
        match (read, word) {
            (Ok(_), None) => {}
            (Err(error), Some(word)) => assert!(error.to_string().contains(word), "{key}: {error}"),
            (read, word) => panic!("{key}: {:?}, {word:?}", read.err()),
        }
    }
}
