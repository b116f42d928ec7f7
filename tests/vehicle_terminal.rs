//! `scan` and `watch` as people see them: on a terminal, in a pipe, alone and through the daemon;
//! a trace written and played back by the program.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "support/daemon.rs"]
mod daemon;
#[path = "support/terminal.rs"]
mod terminal;

use std::process::{Output, Stdio};
use std::time::Duration;

use baygate::sim::vehicle::{Adapter, CarSpec, Profile, VehicleSim};
use daemon::{Daemon, Desk, program};
use serde_json::Value;
use terminal::{Terminal, column, plain, width};
use tokio::io::{AsyncBufReadExt, BufReader};

const VIN: &str = "1M8GDM9AXKP042788";

fn spec() -> CarSpec {
    let signals = [("rpm".to_owned(), 1726.0), ("coolant".to_owned(), 83.0)].into();
    let confirmed = vec!["P0420".parse().unwrap()];
    CarSpec { signals, drift: false, units: 1, confirmed, ..CarSpec::default() }
}

async fn car(spec: CarSpec) -> (VehicleSim, String) {
    let profile = Profile { adapter: Adapter::default(), car: Some(spec) };
    let sim = VehicleSim::spawn_tcp("127.0.0.1:0".parse().unwrap(), profile).await.unwrap();
    let link = format!("elm327+tcp://{}", sim.name());
    (sim, link)
}

/// The program with its output in a pipe.
async fn piped(args: &[&str]) -> Output {
    let output = program().args(args).current_dir(env!("CARGO_MANIFEST_DIR")).stdin(Stdio::null()).output();
    tokio::time::timeout(daemon::LONG, output).await.expect("it ends").unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn watch_fits_the_terminal_at_any_size_and_ends_by_ctrl_c() {
    let (_sim, link) = car(spec()).await;
    let args = ["watch", &link, "0C", "05", "04", "0D", "--locale", "zh-CN", "--config", "/none.toml"];
    let mut terminal = Terminal::run((100, 30), &args, &[]);
    let first = terminal.picture("a picture before anything is known", |_| true).await;
    assert!(first[0].contains("按 q 结束") && first[2].contains("正在连接"), "{first:?}");
    let all = |picture: &[String]| picture.iter().filter(|line| line.starts_with("7E8")).count() == 4;
    let picture = terminal.picture("the values", all).await;
    assert!(picture.iter().all(|line| width(line) <= 100), "{picture:?}");
    // What is named stands under its name, though the names are two columns a character.
    let engine = picture.iter().find(|line| line.contains("发动机转速")).unwrap();
    let coolant = picture.iter().find(|line| line.contains("冷却液温度")).unwrap();
    let now = column(&picture[2], "当前");
    assert_eq!((column(engine, "1726"), column(coolant, "83")), (now, now), "{picture:#?}");
    assert_eq!((column(engine, "rpm"), column(coolant, "°C")), (now + 48, now + 48), "{picture:#?}");
    assert_eq!(column(engine, "发动机转速"), column(&picture[2], "信号"));

    // Made small: nothing runs over, and what does not fit is counted.
    terminal.resize(52, 7);
    let picture = terminal.picture("a small picture", |picture| picture.len() == 6).await;
    assert!(picture.iter().all(|line| width(line) <= 52), "{picture:?}");
    assert_eq!(picture[5], "… 2 项未显示", "{picture:?}");
    terminal.resize(120, 40);
    let large = terminal.picture("a large one", all).await;
    assert!(large.iter().all(|line| !line.contains("未显示")), "{large:?}");

    terminal.keys(b"\x03");
    let (status, said) = terminal.ended().await;
    assert_eq!(status, 0, "{said:?}");
    let (_, after) = said.rsplit_once("\x1b[?1049l").unwrap();
    assert!(after.contains("发动机转速"), "the last picture stays: {after:?}");
}

/// What a progress bar drew, one picture after the other.
fn progress(said: &str) -> Vec<String> {
    let drawn = said.split(['\r', '\n']).map(plain).filter(|line| line.contains('/') && line.contains('['));
    drawn.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scan_shows_how_far_it_is_and_colours_where_they_are_wanted() {
    let (_sim, link) = car(CarSpec { latency_ms: 20, ..spec() }).await;
    let args = ["scan", &link, "--locale", "zh-CN", "--config", "/none.toml"];
    let red = "\x1b[31mP0420";
    // (NO_COLOR, coloured)
    for (env, coloured) in [(None, true), (Some(""), true), (Some("1"), false)] {
        let env: Vec<(&str, &str)> = env.map(|value| ("NO_COLOR", value)).into_iter().collect();
        let (status, said) = Terminal::run((60, 24), &args, &env).ended().await;
        assert_eq!(status, 0, "{said:?}");
        let (before, report) = said.split_once("VIN ").unwrap();
        assert_eq!(report.contains(red), coloured, "{env:?} {report:?}");
        assert_eq!(report.contains("\x1b["), coloured, "{env:?} {report:?}");
        for word in [VIN, "故障灯", "1726 rpm", "83 °C"] {
            assert!(report.contains(word), "{word} in {report}");
        }
        let drawn = progress(before);
        assert!(drawn.len() > 5, "{drawn:?}");
        assert!(drawn.iter().all(|line| width(line) <= 60), "{drawn:?}");
        let done: Vec<u32> = drawn
            .iter()
            .map(|line| line.split_once("] ").unwrap().1.split_once('/').unwrap().0.parse().unwrap())
            .collect();
        assert!(done.is_sorted() && done.last() > Some(&10), "{done:?}");
        let in_words = |line: &String| line.chars().any(|c| ('\u{4E00}'..'\u{A000}').contains(&c));
        assert!(drawn.iter().any(in_words), "requests in words: {drawn:?}");
        let left = plain(before.rsplit_once('\r').unwrap().1);
        assert_eq!(left.trim(), "", "the bar leaves its line to the report: {before:?}");
    }

    // Into a pipe: nothing but the report, and nothing about it.
    let output = piped(&args).await;
    assert!(output.status.success());
    let told = text(&output.stdout);
    assert!(told.starts_with(&format!("VIN {VIN}")) && !told.contains('\x1b'), "{told:?}");
    assert_eq!(text(&output.stderr).lines().filter(|line| !line.starts_with("baygate:")).count(), 0);
    let mut json = args.to_vec();
    json.push("--json");
    let output = piped(&json).await;
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["ecus"][0]["dtcs"][0]["code"], "P0420");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scan_that_is_interrupted_leaves_a_clean_line_and_a_free_adapter() {
    let (sim, link) = car(CarSpec { latency_ms: 100, ..spec() }).await;
    let args = ["scan", &link, "--locale", "en", "--config", "/none.toml"];
    let mut terminal = Terminal::run((80, 24), &args, &[]);
    terminal.until("it is under way", |said| progress(said).len() > 3).await;
    terminal.keys(b"\x03");
    let (status, said) = terminal.ended().await;
    assert_eq!(status, 1, "{said:?}");
    let last = plain(said.trim_end().rsplit(['\r', '\n']).next().unwrap());
    assert_eq!(last, "interrupted: there is no report", "{said:?}");
    assert!(!said.contains("Trouble codes"), "{said:?}");

    sim.swap(&spec()).unwrap();
    let output = piped(&args).await;
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains("P0420"));
}

/// A configured link belongs to the daemon: the same commands ask it.
#[tokio::test(flavor = "multi_thread")]
async fn through_the_running_daemon() {
    let (sim, link) = car(spec()).await;
    let desk = Desk::new();
    desk.write(&format!("[[vehicle]]\nid = \"bay-1\"\nlink = \"{link}\"\n"));
    let config = desk.config();
    let config = config.to_str().unwrap();
    let mut daemon = Daemon::start(&desk.config()).await;
    let with = |args: &[&str]| -> Vec<String> {
        args.iter().copied().chain(["--config", config]).map(str::to_owned).collect()
    };
    let asked = async |args: &[&str]| {
        let args = with(args);
        piped(&args.iter().map(String::as_str).collect::<Vec<_>>()).await
    };

    // A report, as the daemon keeps it; on a terminal it is seen that it is on its way.
    let output = asked(&["scan", "bay-1", "--json"]).await;
    assert!(output.status.success(), "{}", text(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((report["vin"].as_str(), report["link"].as_str()), (Some(VIN), Some("bay-1")));
    assert!(report["warnings"].is_array(), "{report}");
    let args = with(&["scan", "bay-1", "--locale", "zh-CN"]);
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let (status, said) = Terminal::run((50, 24), &args, &[]).ended().await;
    let (before, shown) = said.split_once("VIN ").unwrap();
    assert_eq!(status, 0, "{said:?}");
    assert!(before.contains("bay-1 · 守护进程正在读取车辆"), "{before:?}");
    assert_eq!(plain(before.rsplit_once('\r').unwrap().1).trim(), "");
    assert!(shown.contains("\x1b[31mP0420"), "{shown:?}");

    // Live values: a picture at once, whose clock goes on, then values; `q` ends it.
    let args = with(&["watch", "bay-1", "--locale", "en"]);
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let mut terminal = Terminal::run((100, 30), &args, &[]);
    let first = terminal.picture("a picture at once", |_| true).await;
    assert!(first[0].contains("00:00:00"), "{first:?}");
    let later = terminal.picture("a later one", |picture| !picture[0].contains("00:00:00")).await;
    assert!(later[0].contains("bay-1  q ends"), "{later:?}");
    let values = terminal.picture("values", |picture| picture.len() > 4).await;
    let engine = values.iter().find(|line| line.contains("Engine speed")).unwrap();
    assert_eq!(column(engine, "1726"), column(&values[2], "now"), "{values:#?}");
    terminal.keys(b"q");
    let (status, said) = terminal.ended().await;
    assert_eq!(status, 0, "{said:?}");

    // In a pipe, as lines and as JSON Lines; only what was wanted.
    let output = asked(&["watch", "bay-1", "--json", "--rounds", "1"]).await;
    let window: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((window["link"].as_str(), window["vin"].as_str()), (Some("bay-1"), Some(VIN)));
    let output = asked(&["watch", "bay-1", "0C", "--rounds", "1", "--locale", "en"]).await;
    let line = text(&output.stdout);
    assert!(line.trim_end().ends_with("Z  Engine speed 1726 rpm"), "{line:?}");
    assert_eq!(text(&output.stderr), "");

    // What cannot be: a bay that is not there, a value that is not polled, a trace, no car, no daemon.
    let trace = desk.path("trace.jsonl");
    let trace = trace.to_str().unwrap();
    let refusals: [(&[&str], i32, &str); 3] = [
        (&["scan", "bay-2"], 2, "known: bay-1"),
        (&["watch", "bay-1", "2F", "--rounds", "1", "--locale", "en"], 1, "not polled"),
        (&["scan", "bay-1", "--trace", trace, "--locale", "en"], 2, "belongs to the daemon"),
    ];
    for (args, status, words) in refusals {
        let output = asked(args).await;
        let told = text(&output.stderr);
        assert_eq!((output.status.code(), told.contains(words)), (Some(status), true), "{args:?} {told}");
        assert_eq!(text(&output.stdout), "", "{args:?}");
    }
    sim.unplug();
    let output = asked(&["scan", "bay-1", "--locale", "zh-CN"]).await;
    let told = text(&output.stderr);
    assert_eq!((output.status.code(), told.contains("点火开关")), (Some(3), true), "{told}");
    daemon.signal(nix::sys::signal::Signal::SIGTERM);
    assert!(daemon.ended().await.success());
    assert_eq!(asked(&["scan", "bay-1"]).await.status.code(), Some(3), "nobody runs");
}

/// A line the simulator says when it is there.
async fn replaying(trace: &str) -> (Value, tokio::process::Child) {
    let mut command = program();
    command.args(["simulate", "vehicle", "--json", "--listen", "127.0.0.1:0", "--replay", trace]);
    let mut child = command.stdout(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let line = tokio::time::timeout(Duration::from_secs(60), lines.next_line()).await;
    (serde_json::from_str(&line.unwrap().unwrap().unwrap()).unwrap(), child)
}

/// Recorded by one command, played by another, read by a third: the same report without its VIN.
#[tokio::test(flavor = "multi_thread")]
async fn a_trace_is_written_and_played_back_by_the_program() {
    let (_sim, link) = car(spec()).await;
    let desk = Desk::new();
    desk.write("");
    let (path, config) = (desk.path("car.jsonl"), desk.config());
    let (path, config) = (path.to_str().unwrap(), config.to_str().unwrap());
    let read = async |args: &[&str]| -> Value {
        let output = piped(&[args, &["--json", "--config", config]].concat()).await;
        assert!(output.status.success(), "{}", text(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let mut original = read(&["scan", &link, "--trace", path]).await;
    assert_eq!(original["vin"], VIN);

    let (said, _playing) = replaying(path).await;
    let mut again = read(&["scan", said["link"].as_str().unwrap()]).await;
    assert_eq!((&again["vin"], again["vin_check"].as_str()), (&Value::Null, Some("missing")));
    // With the warnings, which are told of the report: their times and ids are their own.
    for report in [&mut original, &mut again] {
        let members = report.as_object_mut().unwrap();
        for name in ["visit", "started_at", "duration_ms", "vin", "vin_check", "vin_source"] {
            members.remove(name);
        }
        let rules = |warning: &Value| warning["rule"].clone();
        let warnings: Vec<Value> = members["warnings"].as_array().unwrap().iter().map(rules).collect();
        members.insert("warnings".into(), warnings.into());
    }
    assert_eq!(again, original);
}
