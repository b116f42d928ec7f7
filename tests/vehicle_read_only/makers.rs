//! Makers' signal sets: files from outside, which may choose and never extend.

use baygate::config::tables::{Poll, VehicleTable};
use baygate::sim::vehicle::{Adapter as SimAdapter, CarSpec, MakersUnit};

use super::faulty;
use super::list::judge;
use super::tap::tapped;
use super::vehicle_bay::{Bay, open_store, quick, table};

/// What a file may ask for, and behind it what it must not: services that change, addresses that
/// answers come from, the bus's own traffic, a line behind the line.
const COMMANDS: [&str; 18] = [
    r#""hdr":"7E0","cmd":{"22":"F187"}"#,
    r#""hdr":"710","rax":"77A","cmd":{"22":"F187"}"#,
    r#""hdr":"745","rax":"100","cmd":{"21":"01"}"#,
    r#""hdr":"DA10","cmd":{"22":"F191"}"#,
    r#""hdr":"DA17","rax":"55","pri":"14","cmd":{"22":"F187"}"#,
    r#""hdr":"6F1","eax":"12","tst":"F1","cmd":{"22":"F187"}"#,
    r#""hdr":"7DF","cmd":{"01":"0C"}"#,
    r#""hdr":"7E0","cmd":{"22":"F195"},"tmo":"80""#,
    r#""hdr":"7E0","cmd":{"22":"F195"},"tmo":"04""#,
    r#""hdr":"710","rax":"77A","cmd":{"2E":"F18700"}"#,
    r#""hdr":"7E0","cmd":{"04":""}"#,
    r#""hdr":"7E0","cmd":{"14":"FFFFFF"}"#,
    r#""hdr":"7E0","cmd":{"31":"01FF00"}"#,
    r#""hdr":"7E0","cmd":{"22":"F187\r04"}"#,
    r#""hdr":"7E0\rATPP0CSV23","cmd":{"22":"F187"}"#,
    r#""hdr":"7E8","rax":"77A","cmd":{"22":"F187"}"#,
    r#""hdr":"100","rax":"77A","cmd":{"22":"F187"}"#,
    r#""hdr":"DA10","pri":"0C","cmd":{"22":"F187"}"#,
];

/// Bays on 11 and 29 bits, on an older bus, and with a clone that cannot be told where flow
/// control goes; what must have been said on each.
#[tokio::test(flavor = "multi_thread")]
async fn makers_signal_sets() {
    let unit = |request, answer| Some(MakersUnit { request, answer });
    let eleven = CarSpec { makers_unit: unit(0x710, 0x77A), ..faulty() };
    let wide = CarSpec { protocol: 7, makers_unit: unit(0x14DA_17F1, 0x14DA_F155), ..faulty() };
    let older = CarSpec { protocol: 5, ..faulty() };
    let clone = SimAdapter { unknown: vec!["FCS".into()], ..SimAdapter::default() };
    let usual = SimAdapter::default;
    let cases: [(&str, SimAdapter, CarSpec, &[&str]); 4] = [
        (
            "11 bits",
            usual(),
            eleven.clone(),
            &[
                "ATSH710",
                "ATCRA77A",
                "ATFCSH710",
                "ATFCSD300000",
                "ATFCSM1",
                "ATFCSM0",
                "ATAT0",
                "ATST80",
                "ATAT1",
                "22F187",
                "2101",
            ],
        ),
        ("29 bits", usual(), wide, &["ATCP14", "ATSHDA17F1", "ATFCSH14DA17F1", "ATFCSM1", "22F191"]),
        ("older bus", usual(), older, &["0902"]),
        ("a clone", clone, eleven, &["ATFCSH710", "22F187"]),
    ];
    let mut jobs = Vec::new();
    for (name, adapter, car, said) in cases {
        jobs.push(tokio::spawn(async move {
            let dir = tempfile::tempdir().unwrap();
            let store = open_store(dir.path());
            // A file each: one with a wrong command may be refused as a whole.
            let file = |(place, command): (usize, &str)| {
                let file = dir.path().join(format!("set-{place}.json"));
                let set = format!(r#"{{"commands":[{{{command},"freq":1,"signals":[]}}]}}"#);
                std::fs::write(&file, set).unwrap();
                file
            };
            let signals: Vec<_> = COMMANDS.into_iter().enumerate().map(file).collect();
            let (_sim, tap) = tapped(adapter, Some(car)).await;
            let table = VehicleTable { signals, ..table("bay-1", &tap.link(), Poll::Auto) };
            let bay = Bay::start_table(&store, table, quick());
            bay.nth("vehicle.report", 1).await;
            bay.scan().await;
            bay.nth("vehicle.signals", 2).await;
            bay.stop().await;
            assert_eq!(judge(name, &tap.heard()), [""; 0]);
            let heard = String::from_utf8(tap.heard()).unwrap();
            let lines: Vec<&str> = heard.split('\r').collect();
            for command in said {
                assert!(lines.contains(command), "{name}: {command} was driven: {lines:?}");
            }
        }));
    }
    for job in jobs {
        job.await.unwrap();
    }
}
