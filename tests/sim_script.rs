//! A script makes things happen to the simulated car and its adapter: faults, other
//! cars, other adapters, the key, an ageing sensor, over a real pseudo-terminal.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "support/wire.rs"]
mod wire;

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use baygate::sim::vehicle::{
    CarSpec, Profile, Script, SlcanProfile, SlcanSim, SpecError, Stage, Truck, VehicleSim,
};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};
use wire::Wire;

/// What a step is to bring about is there by then, on a slow machine, too.
const DEADLINE: Duration = Duration::from_secs(60);

/// Plays one step at once.
async fn play(sim: impl Into<Stage<'_>>, action: &str) {
    let script = Script::from_toml(&format!("step = [{{ at = \"0s\", do = {action} }}]")).unwrap();
    script.play(sim).await.unwrap();
}

fn car() -> CarSpec {
    CarSpec { drift: false, units: 1, ..CarSpec::default() }
}

#[tokio::test]
async fn each_step_is_seen_on_the_wire() {
    let mut sim =
        VehicleSim::spawn_pty(Profile { car: Some(car()), ..Profile::default() }, None).await.unwrap();
    let mut wire = Wire::serial(&sim.path(), 38_400);
    wire.setup(&["ATE0", "ATS0", "ATH1", "ATSP6"]).await;
    for (action, sent, expected) in [
        ("{ set = { signal = \"rpm\", value = 1726 } }", "010C", "7E804410C1AF8\r\r>"),
        ("\"drop\"", "010C", "NO DATA\r\r>"),
        ("{ say = \"BUFFER FULL\" }", "010C", "BUFFER FULL\r\r>"),
        ("{ pending = 1 }", "010C", "7E8037F0178\r7E804410C1AF8\r\r>"),
        ("{ delay = \"30ms\" }", "010C", "7E804410C1AF8\r\r>"),
        ("{ drift = { signal = \"coolant\", to = 83, over = \"0s\" } }", "0105", "7E80341057B\r\r>"),
        ("{ engine = \"off\" }", "010C", "CAN ERROR\r\r>"),
        ("{ engine = \"running\" }", "0105", "7E80341057B\r\r>"),
        ("{ battery-v = 11.4 }", "ATRV", "11.4V\r\r>"),
        ("\"unplug\"", "010C", "CAN ERROR\r\r>"),
        ("{ swap = { drift = false, units = 1, signals = { rpm = 900 } } }", "010C", "7E804410C0E10\r\r>"),
        ("{ adapter = \"stn1110\" }", "ATE0", "ATE0\rOK\r\r>"),
        ("{ adapter = \"stn1110\" }", "STDI", "STDI\rSTN1110 v4.2.0\r\r>"),
    ] {
        play(&mut sim, action).await;
        assert_eq!(wire.ask(sent).await, expected, "{action}");
    }
}

#[tokio::test]
async fn faults_of_a_script_are_seen_on_the_wire() {
    let spec = CarSpec { signals: [("coolant".to_owned(), 83.0)].into(), ..car() };
    let mut sim =
        VehicleSim::spawn_pty(Profile { car: Some(spec), ..Profile::default() }, None).await.unwrap();
    let mut wire = Wire::serial(&sim.path(), 38_400);
    wire.setup(&["ATE0", "ATS0", "ATH1", "ATSP6"]).await;
    let well = "7E80341057B\r\r>";
    for (action, sent, expected) in [
        ("\"garble\"", "0105", "7*80341057B\r\r>"),
        ("{ garble-every = 0 }", "0105", well),
        ("{ garble-every = 1 }", "0105", "7*80341057B\r\r>"),
        ("{ garble-every = 0 }", "0105", well),
        // The first character of the first line.
        ("{ lose-in-turn = 4 }", "ATRV", "?\r\r>"),
        ("{ lose-in-turn = 0 }", "0105", well),
    ] {
        play(&mut sim, action).await;
        assert_eq!(wire.ask(sent).await, expected, "{action}");
    }
    play(&mut sim, "\"nulls\"").await;
    let told = wire.ask("0105").await;
    assert!(told.contains('\0') && told.replace('\0', "") == well, "{told:?}");

    // Half of it; none for a long while; an end of line that never arrived.
    play(&mut sim, "\"half\"").await;
    wire.send(b"0105\r").await;
    assert_eq!(wire.exactly(7).await, "7E80341");
    assert_eq!(wire.ask("").await, "STOPPED\r\r>");
    play(&mut sim, "{ delay = \"10m\" }").await;
    wire.send(b"0105\r").await;
    assert!(wire.silent(Duration::from_millis(300)).await);
    assert_eq!(wire.ask("").await, "STOPPED\r\r>");
    play(&mut sim, "{ lose-ends = 1 }").await;
    wire.send(b"0105\r").await;
    assert!(wire.silent(Duration::from_millis(300)).await);
    play(&mut sim, "{ lose-ends = 0 }").await;
    assert_eq!(wire.ask("").await, well);

    // A sensor that ages goes there by and by.
    play(&mut sim, "{ drift = { signal = \"coolant\", to = 120, over = \"1s\" } }").await;
    let mut told = vec![well.to_owned()];
    let begun = Instant::now();
    while told.last().unwrap() != "7E8034105A0\r\r>" {
        assert!(begun.elapsed() < DEADLINE, "{:?}", told.last());
        told.push(wire.ask("0105").await);
    }
    assert!(told.is_sorted());
    told.dedup();
    assert!(told.len() > 3, "not at once: {told:?}");

    play(&mut sim, "\"brown-out\"").await;
    assert!(wire.reply().await.contains("ELM327"));
    assert!(wire.ask("ATE0").await.starts_with("ATE0"), "its settings are lost");
    play(&mut sim, "\"freeze\"").await;
    wire.send(b"ATI\r").await;
    assert!(wire.silent(Duration::from_millis(300)).await);
}

/// The key, whose positions differ in what the battery shows, and a day that begins anew.
#[tokio::test]
async fn a_script_turns_the_key_again_and_again() {
    let mut sim =
        VehicleSim::spawn_pty(Profile { car: Some(car()), ..Profile::default() }, None).await.unwrap();
    let mut wire = Wire::serial(&sim.path(), 38_400);
    wire.setup(&["ATE0", "ATS0", "ATH1", "ATSP6"]).await;
    let steps = ["running", "on", "off"].map(|key| format!("{{ engine = \"{key}\" }}"));
    let steps = std::iter::zip(["0s", "1s", "2s"], &steps);
    let steps: Vec<_> = steps.map(|(at, action)| format!("{{ at = \"{at}\", do = {action} }}")).collect();
    let script = format!("repeat_after = \"3s\"\nstep = [{}]", steps.join(", "));
    let script = Script::from_toml(&script).unwrap();
    let (mut told, mut expected) = (Vec::new(), Vec::new());
    let asking = async {
        for volts in ["14.1V\r\r>", "12.4V\r\r>", "12.6V\r\r>"].repeat(2) {
            while wire.ask("ATRV").await != volts {}
            expected.push(volts == "12.6V\r\r>");
            told.push(wire.ask("0105").await.starts_with("CAN ERROR"));
        }
    };
    tokio::select! {
        ended = script.play(&mut sim) => panic!("it repeats: {ended:?}"),
        asked = tokio::time::timeout(DEADLINE, asking) => asked.expect("two days"),
    }
    assert_eq!(told, expected, "units sleep behind a key that is off, and only then");
}

#[tokio::test]
async fn the_cable_is_pulled_and_comes_back() {
    let mut sim = VehicleSim::spawn_pty(Profile::default(), None).await.unwrap();
    let path = sim.path();
    play(&mut sim, "\"vanish\"").await;
    assert!(!path.exists());
    play(&mut sim, "\"return\"").await;
    assert!(sim.path().exists());
}

/// A frame goes out; what comes back, without the acknowledgement.
async fn frame(wire: &mut Wire, data: &str) -> String {
    wire.send(format!("t7DF8{data}\r").as_bytes()).await;
    assert_eq!(wire.until(b'\r').await, "z\r");
    wire.until(b'\r').await
}

/// The car, the cable and the adapter on slcan; what only an ELM327 has is refused before anything
/// happens.
#[tokio::test]
async fn a_script_plays_on_slcan() {
    let mut sim =
        SlcanSim::spawn_tcp("127.0.0.1:0".parse().unwrap(), SlcanProfile::default(), &car()).await.unwrap();
    let address = sim.name().parse().unwrap();
    let mut wire = Wire::tcp(address).await;
    for command in ["S6\r", "O\r"] {
        wire.send(command.as_bytes()).await;
        assert_eq!(wire.until(b'\r').await, "\r");
    }
    for (action, sent, expected) in [
        ("{ set = { signal = \"rpm\", value = 1726 } }", "02010C0000000000", "t7E8804410C1AF8000000\r"),
        (
            "{ drift = { signal = \"coolant\", to = 83, over = \"0s\" } }",
            "0201050000000000",
            "t7E880341057B00000000\r",
        ),
        ("{ battery-v = 11.4 }", "0201420000000000", "t7E880441422C88000000\r"),
        ("{ pending = 1 }", "02010C0000000000", "t7E88037F017800000000\r"),
        ("{ engine = \"running\" }", "", "t7E8804410C1AF8000000\r"),
        (
            "{ swap = { drift = false, units = 1, signals = { rpm = 900 } } }",
            "02010C0000000000",
            "t7E8804410C0E10000000\r",
        ),
    ] {
        play(&mut sim, action).await;
        let told = if sent.is_empty() { wire.until(b'\r').await } else { frame(&mut wire, sent).await };
        assert_eq!(told, expected, "{action}");
    }
    // Lost on the way, behind the key, out of the car: acknowledged by nobody or by others, not answered.
    for action in ["\"drop\"", "{ engine = \"off\" }", "\"unplug\""] {
        play(&mut sim, action).await;
        wire.send(b"t7DF802010C0000000000\rV\r").await;
        assert_eq!((wire.until(b'\r').await, wire.until(b'\r').await), ("z\r".into(), "V1013\r".into()));
        play(&mut sim, "{ plug = { drift = false, units = 1 } }").await;
        assert_eq!(frame(&mut wire, "0201050000000000").await, "t7E880341058200000000\r", "{action}");
    }
    faults_on_slcan(&mut sim, &mut wire).await;
    play(&mut sim, "\"freeze\"").await;
    wire.send(b"V\r").await;
    assert!(wire.silent(Duration::from_millis(300)).await);
    drop(wire);
    play(&mut sim, "\"vanish\"").await;
    assert!(tokio::net::TcpStream::connect(address).await.is_err());
    play(&mut sim, "\"return\"").await;
    let mut wire = Wire::tcp(address).await;
    wire.send(b"V\r").await;
    assert_eq!(wire.until(b'\r').await, "V1013\r");
    drop(wire);

    let script = "step = [{ at = \"0s\", do = \"vanish\" }, { at = \"90s\", do = { say = \"STOPPED\" } }]";
    let refused = Script::from_toml(script).unwrap().play(&mut sim).await;
    assert_eq!(refused, Err(SpecError::Step("1m 30s".into())));
    drop(Wire::tcp(address).await);
}

/// Lines that are wrong, half an answer, and a loss of power that nothing tells of.
async fn faults_on_slcan(sim: &mut SlcanSim, wire: &mut Wire) {
    let (asked, well, wrong) = ("0201050000000000", "t7E880341058200000000\r", "t7E88034105*200000000\r");
    for (action, expected) in [
        ("\"garble\"", wrong),
        ("{ garble-every = 0 }", well),
        ("{ garble-every = 2 }", well),
        ("{ garble-every = 1 }", wrong),
        ("{ garble-every = 0 }", well),
    ] {
        play(&mut *sim, action).await;
        assert_eq!(frame(wire, asked).await, expected, "{action}");
    }
    play(&mut *sim, "\"nulls\"").await;
    let told = frame(wire, asked).await;
    assert!(told.contains('\0') && told.replace('\0', "") == well, "{told:?}");
    // Of the rest of the VIN one frame of two.
    play(&mut *sim, "\"half\"").await;
    assert_eq!(frame(wire, "0209020000000000").await, "t7E881014490201314D38\r");
    wire.send(b"t7E083000000000000000\r").await;
    assert_eq!(wire.until(b'\r').await, "z\r");
    assert_eq!(wire.until(b'\r').await, "t7E882147444D3941584B\r");
    assert!(wire.silent(Duration::from_millis(100)).await);
    play(&mut *sim, "\"brown-out\"").await;
    wire.send(b"t7DF80201050000000000\rF\rV\r").await;
    assert_eq!(wire.until(b'\r').await, "\u{7}\u{7}V1013\r", "off the bus, and nothing told of it");
    wire.send(b"O\r").await;
    assert_eq!(wire.until(7).await, "\u{7}", "its bit rate is lost too");
    wire.send(b"S6\rO\r").await;
    assert_eq!((wire.until(b'\r').await, wire.until(b'\r').await), ("\r".into(), "\r".into()));
    assert_eq!(frame(wire, asked).await, well);
}

/// A line the program says when its device is there, and the program.
async fn simulated(args: &[&str]) -> (Value, tokio::process::Child) {
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_baygate"));
    command.args(["simulate", "vehicle", "--json"]).args(args).kill_on_drop(true);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let line = tokio::time::timeout(Duration::from_secs(20), lines.next_line()).await;
    (serde_json::from_str(&line.unwrap().unwrap().unwrap()).unwrap(), child)
}

#[tokio::test]
async fn the_program_plays_a_script_and_is_a_truck() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("day.toml");
    std::fs::write(
        &path,
        "step = [{ at = \"0s\", do = { swap = { units = 1, protocol = 8, drift = false } } }]",
    )
    .unwrap();
    let path = path.to_str().unwrap();
    // A car on another bus until the script begins.
    let (said, _child) = simulated(&["--listen", "127.0.0.1:0", "--script", path]).await;
    let mut wire = Wire::tcp(said["listening"].as_str().unwrap().parse().unwrap()).await;
    wire.setup(&["ATE0", "ATS0", "ATH1", "ATSP8"]).await;
    let begun = Instant::now();
    while wire.ask("0105").await != "7E803410582\r\r>" {
        assert!(begun.elapsed() < DEADLINE, "another bus than before");
    }

    let (said, _child) = simulated(&["--listen", "127.0.0.1:0", "--slcan", "--script", path]).await;
    let mut wire = Wire::tcp(said["listening"].as_str().unwrap().parse().unwrap()).await;
    wire.send(b"S5\rO\r").await;
    let begun = Instant::now();
    loop {
        assert!(begun.elapsed() < DEADLINE, "another bus than before");
        wire.send(b"t7DF80201050000000000\r").await;
        if wire.until_silent(Duration::from_millis(200)).await.ends_with("t7E880341058200000000\r") {
            break;
        }
    }

    let (said, _child) = simulated(&["--listen", "127.0.0.1:0", "--slcan", "--truck"]).await;
    let link = said["link"].as_str().unwrap();
    assert!(link.ends_with("bitrate=250000"), "{link}");
    let mut wire = Wire::tcp(said["listening"].as_str().unwrap().parse().unwrap()).await;
    wire.send(b"S5\rL\r").await;
    let mut told = Vec::new();
    // DM1 of the engine: its lamp, SPN 100 FMI 1.
    while !told.contains(&"T18FECA00840FF64000101FFFF\r".to_owned()) {
        assert!(told.len() < 1000, "{told:?}");
        told.push(wire.until(b'\r').await);
    }
}

#[test]
fn what_cannot_be_played_there_is_refused_in_words() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("day.toml");
    std::fs::write(&path, "step = [{ at = \"90s\", do = { say = \"STOPPED\" } }]").unwrap();
    let power = dir.path().join("power.toml");
    std::fs::write(&power, "step = [{ at = \"90s\", do = \"brown-out\" }]").unwrap();
    let (path, power) = (path.to_str().unwrap(), power.to_str().unwrap());
    // (arguments, words in English, words in Chinese)
    let cases: [(&[&str], &str, &str); 9] = [
        (&["--slcan", "--pty", "--script", path], "1m 30s", "1m 30s 的步骤"),
        (&["--can", "vcan-none", "--script", power], "1m 30s", "1m 30s 的步骤"),
        (&["--pty", "--truck"], "--slcan or --can", "卡车"),
        (&["--can", "vcan-none", "--garble-every", "3"], "--garble-every", "--garble-every"),
        (&["--pty", "--replay", path, "--script", path], "--script", "--script"),
        (&["--pty", "--slcan", "--line-ms", "50"], "--line-ms", "--line-ms"),
        (&["--can", "vcan-none", "--line-ms", "50"], "--line-ms", "--line-ms"),
        (&["--pty", "--replay", path, "--line-ms", "50"], "--line-ms", "--line-ms"),
        (&["--pty", "--line-ms", "60000"], "0..=5000", "0..=5000"),
    ];
    for (args, en, zh) in cases {
        for (locale, words) in [("en", en), ("zh-CN", zh)] {
            let mut command = Command::new(env!("CARGO_BIN_EXE_baygate"));
            command.args(["simulate", "vehicle", "--locale", locale, "--for", "1ms"]).args(args);
            let output = command.stdin(Stdio::null()).output().unwrap();
            let told = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(2), "{args:?} {told}");
            assert!(told.contains(words), "{args:?} {locale}: {told}");
        }
    }
}

/// A car's file has its truck too; a script may bring one.
#[tokio::test]
async fn a_truck_stands_in_a_file_and_comes_by_script() {
    let text = "protocol = 9\n[truck]\nobd = true\nvin = \"1XKDDB9X8YJ123456\"\n\
                [[truck.units]]\nsource = 11\nactive = [[96, 4]]\nlamp = true\n";
    let spec = CarSpec::from_toml(text).unwrap();
    let unit = &spec.truck.as_ref().unwrap().units[0];
    assert_eq!((unit.source, unit.active.as_slice(), unit.lamp), (11, &[(96, 4)][..], true));
    let mut sim = VehicleSim::spawn_pty(Profile::default(), None).await.unwrap();
    assert_eq!(sim.plug(&spec), Err(SpecError::Truck), "a dongle shows no broadcasts");
    let swap =
        "step = [{ at = \"0s\", do = { swap = { protocol = 9, truck = { units = [{ source = 0 }] } } } }]";
    let script = Script::from_toml(swap).unwrap();
    assert_eq!(script.play(&mut sim).await, Err(SpecError::Step("0s".into())));
    let spec = CarSpec { truck: Some(Truck::usual(None)), ..CarSpec::default() };
    assert_eq!(spec.bitrate(), 500_000, "as the file says it");
}
