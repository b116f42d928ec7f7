//! The simulated vehicle speaks as the public datasheet and standards say, over a
//! real pseudo-terminal and a real socket.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "support/wire.rs"]
mod wire;

use std::time::{Duration, Instant};

use baygate::sim::vehicle::{Adapter, CarSpec, Engine, Fault, Profile, Recording, ReplaySim, VehicleSim};
use wire::Wire;

fn with(car: CarSpec) -> Profile {
    Profile { adapter: Adapter { banner: "ELM327 v1.4b".into(), ..Adapter::default() }, car: Some(car) }
}

fn steady() -> CarSpec {
    CarSpec {
        drift: false,
        units: 1,
        signals: [("rpm".to_owned(), 1726.0), ("coolant".to_owned(), 83.0)].into(),
        vin: Some("1D4GP00R55B123456".into()),
        ..CarSpec::default()
    }
}

async fn pty(profile: Profile) -> (VehicleSim, Wire) {
    let sim = VehicleSim::spawn_pty(profile, None).await.unwrap();
    let wire = Wire::serial(&sim.path(), 38_400);
    (sim, wire)
}

/// Source of the printed forms: ELM327 datasheet (ELM327DSL), "Communicating with the ELM327",
/// "Talking to the Vehicle", "Multiline Responses", "Response Codes".
#[tokio::test]
async fn answers_are_printed_as_in_the_datasheet() {
    let (_sim, mut wire) = pty(with(steady())).await;
    for (sent, expected) in [
        ("ATZ", "ATZ\r\r\rELM327 v1.4b\r\r>"),
        ("AT I", "AT I\rELM327 v1.4b\r\r>"),
        ("AT@1", "AT@1\rOBDII to RS232 Interpreter\r\r>"),
        ("ATRV", "ATRV\r14.1V\r\r>"),
        ("ATXYZ", "ATXYZ\r?\r\r>"),
        ("hello", "hello\r?\r\r>"),
        ("AT DP", "AT DP\rAUTO\r\r>"),
        ("01 05", "01 05\rSEARCHING...\r41 05 7B \r\r>"),
        ("AT DP", "AT DP\rAUTO, ISO 15765-4 (CAN 11/500)\r\r>"),
        ("AT DPN", "AT DPN\rA6\r\r>"),
        ("01 0C", "01 0C\r41 0C 1A F8 \r\r>"),
        ("ATE0", "ATE0\rOK\r\r>"),
        ("010C", "41 0C 1A F8 \r\r>"),
        ("", "41 0C 1A F8 \r\r>"),
        ("0902", "014\r0: 49 02 01 31 44 34 \r1: 47 50 30 30 52 35 35 \r2: 42 31 32 33 34 35 36 \r\r>"),
        ("ATH1", "OK\r\r>"),
        (
            "0902",
            "7E8 10 14 49 02 01 31 44 34 \r7E8 21 47 50 30 30 52 35 35 \r7E8 22 42 31 32 33 34 35 36 \r\r>",
        ),
        ("ATS0", "OK\r\r>"),
        ("0105", "7E803410 57B\r\r>".replace(' ', "").as_str()),
        ("ATL1", "OK\r\n\r\n>"),
        ("0105", "7E80341057B\r\n\r\n>"),
        ("ATL0", "OK\r\r>"),
        ("ATH0", "OK\r\r>"),
        ("0105", "41057B\r\r>"),
        ("01A7", "NO DATA\r\r>"),
        ("ATD", "OK\r\r>"),
        ("0105", "0105\r41 05 7B \r\r>"),
    ] {
        assert_eq!(wire.ask(sent).await, expected, "{sent}");
    }
}

#[tokio::test]
async fn several_parameters_come_in_one_message() {
    let mut car = steady();
    car.confirmed = vec!["P0133".parse().unwrap()];
    let (_sim, mut wire) = pty(with(car)).await;
    wire.setup(&["ATE0", "ATS0", "ATH1", "ATSP6"]).await;
    // Six parameters, three lines wanted: the form of `0101030406070C3` in the field.
    let lines = wire.lines("010C0D0405060F3").await;
    assert_eq!(lines.len(), 3, "{lines:?}");
    assert!(lines[0].starts_with("7E8100E410C1AF80D"), "{lines:?}");
    assert_eq!(wire.lines("03").await, ["7E80443010133"]);
    assert_eq!(wire.lines("07").await, ["7E8024700"]);
    assert_eq!(wire.lines("0A").await, ["7E8024A00"]);
    assert_eq!(wire.lines("0101").await, ["7E806410181076500"]);
    assert_eq!(wire.lines("020200").await, ["7E8054202000133"]);
    assert_eq!(wire.lines("020C00").await, ["7E805420C002580"]);
    // A digit that is too small cuts the answer off: it counts lines.
    assert_eq!(wire.lines("09021").await.len(), 1);
}

#[tokio::test]
async fn two_units_answer_a_functional_request_and_one_a_physical_one() {
    let (sim, mut wire) = pty(with(CarSpec { units: 2, ..steady() })).await;
    wire.setup(&["ATE0", "ATS0", "ATH1", "ATSP6"]).await;
    let both = wire.lines("010C").await;
    assert_eq!(both, ["7E804410C1AF8", "7E904410C1AF8"]);
    wire.setup(&["ATSH7E1"]).await;
    assert_eq!(wire.lines("010C").await, ["7E904410C1AF8"]);
    // Negative replies go only to who was asked alone (ISO 15765-4).
    assert_eq!(wire.lines("0105").await, ["7E9037F0112"]);
    assert_eq!(wire.lines("22F190").await, ["7E9037F2231"]);
    wire.setup(&["ATSH7E0"]).await;
    assert_eq!(wire.lines("22F190").await.len(), 3);
    assert_eq!(sim.requests().last().unwrap(), &[0x22, 0xF1, 0x90]);
}

#[tokio::test]
async fn masks_say_what_the_unit_has() {
    let (_sim, mut wire) = pty(with(steady())).await;
    wire.setup(&["ATE0", "ATS0", "ATH0", "ATSP6"]).await;
    for base in [0x00_u32, 0x20, 0x40, 0x60, 0x80, 0xA0] {
        let answer = wire.lines(&format!("01{base:02X}")).await.concat();
        let mask = u32::from_str_radix(&answer[4..], 16).unwrap();
        for bit in 1..32_u32 {
            let pid = base + bit;
            let promised = mask & (1 << (32 - bit)) != 0;
            let answers = wire.ask(&format!("01{pid:02X}1")).await.starts_with("41");
            assert_eq!(promised, answers, "parameter {pid:02X}");
        }
        assert_eq!(mask & 1 == 1, base < 0xA0);
    }
}

#[tokio::test]
async fn other_buses_have_their_own_framing() {
    // (protocol, request, line with headers); KWP form from ISO 14230 examples: format, target, source, data, sum.
    for (protocol, request, first) in [
        (7_u8, "0105", "18 DA F1 10 03 41 05 7B "),
        (5, "0105", "83 F1 10 41 05 7B 45 "),
        (3, "0105", "48 6B 10 41 05 7B 84 "),
        (5, "03", "87 F1 10 43 01 33 00 00 00 00 FF "),
        (5, "0902", "87 F1 10 49 02 01 00 00 00 31 05 "),
    ] {
        let mut car = CarSpec { protocol, ..steady() };
        car.confirmed = vec!["P0133".parse().unwrap()];
        let (_sim, mut wire) = pty(with(car)).await;
        wire.setup(&["ATE0", "ATH1"]).await;
        wire.ask("0100").await;
        let answer = wire.ask(request).await;
        assert_eq!(answer.split('\r').next().unwrap(), first, "protocol {protocol}");
    }
}

#[tokio::test]
async fn nobody_there_is_said_in_the_chips_words() {
    let (sim, mut wire) = pty(Profile::default()).await;
    wire.setup(&["ATE0"]).await;
    assert_eq!(wire.ask("0100").await, "SEARCHING...\rUNABLE TO CONNECT\r\r>");
    assert_eq!(wire.ask("ATRV").await, "0.1V\r\r>");
    sim.plug(&CarSpec { engine: Engine::Off, voltage: Some(12.6), ..steady() }).unwrap();
    assert_eq!(wire.ask("ATRV").await, "12.6V\r\r>");
    assert_eq!(wire.ask("0100").await, "SEARCHING...\rUNABLE TO CONNECT\r\r>");
    sim.ignition(true);
    assert!(wire.ask("0100").await.starts_with("SEARCHING...\r41 00 "));
    sim.unplug();
    assert_eq!(wire.ask("0100").await, "CAN ERROR\r\r>");
    sim.plug(&CarSpec { protocol: 7, ..steady() }).unwrap();
    assert_eq!(wire.ask("0100").await, "NO DATA\r\r>");
    wire.setup(&["ATPC"]).await;
    assert!(wire.ask("0100").await.starts_with("SEARCHING...\r41 00 "));
}

#[tokio::test]
async fn faults_strike_once_and_are_over() {
    let (sim, mut wire) = pty(with(steady())).await;
    wire.setup(&["ATE0", "ATSP6"]).await;
    sim.fault(Fault::DropReply);
    assert_eq!(wire.ask("0105").await, "NO DATA\r\r>");
    sim.fault(Fault::Garble);
    assert_eq!(wire.ask("0105").await, "4* 05 7B \r\r>");
    sim.fault(Fault::Say("BUFFER FULL".into()));
    assert_eq!(wire.ask("0105").await, "BUFFER FULL\r\r>");
    sim.fault(Fault::Pending(2));
    assert_eq!(wire.ask("0105").await, "7F 01 78 \r7F 01 78 \r41 05 7B \r\r>");
    sim.fault(Fault::Nulls);
    assert_eq!(wire.ask("0105").await.replace('\0', ""), "41 05 7B \r\r>");
    assert_eq!(wire.ask("0105").await, "41 05 7B \r\r>");
    // A byte while the request runs stops it.
    sim.fault(Fault::Delay(Duration::from_secs(30)));
    wire.send(b"0105\r").await;
    wire.send(b"\n").await;
    assert_eq!(wire.reply().await, "STOPPED\r\r>");
    // Half an answer, then nothing until the host says something.
    sim.fault(Fault::HalfThenSilence);
    wire.send(b"0105\r").await;
    assert_eq!(wire.exactly(6).await, "41 05 ");
    wire.send(b"\r").await;
    assert_eq!(wire.reply().await, "STOPPED\r\r>");
    // The supply dips: banner unasked, echo is back.
    sim.fault(Fault::BrownOut);
    assert_eq!(wire.reply().await, "\r\rELM327 v1.4b\r\r>");
    assert_eq!(wire.ask("ATE0").await, "ATE0\rOK\r\r>");
    // It hangs until its power is cut.
    sim.fault(Fault::Freeze);
    wire.send(b"ATI\r").await;
    assert!(wire.silent(Duration::from_millis(50)).await);
}

#[tokio::test]
async fn the_cable_is_pulled_and_put_back_under_the_same_name() {
    let dir = tempfile::tempdir().unwrap();
    let link = dir.path().join("obd");
    let mut sim = VehicleSim::spawn_pty(with(steady()), Some(link.clone())).await.unwrap();
    assert_eq!(sim.path(), link);
    let mut wire = Wire::serial(&link, 38_400);
    wire.setup(&["ATE0", "ATSP6"]).await;
    sim.vanish().await;
    assert!(std::fs::symlink_metadata(&link).is_err());
    assert!(wire.broken().await);
    sim.return_().await;
    let mut wire = Wire::serial(&link, 38_400);
    assert_eq!(wire.ask("0105").await, "0105\rSEARCHING...\r41 05 7B \r\r>");
    sim.stop().await;
    assert!(std::fs::symlink_metadata(&link).is_err());
}

#[tokio::test]
async fn over_tcp_one_client_follows_another() {
    let mut sim = VehicleSim::spawn_tcp("127.0.0.1:0".parse().unwrap(), with(steady())).await.unwrap();
    let address = sim.addr().unwrap();
    let mut wire = Wire::tcp(address).await;
    assert_eq!(wire.ask("ATI").await, "ATI\rELM327 v1.4b\r\r>");
    drop(wire);
    let mut wire = Wire::tcp(address).await;
    assert_eq!(wire.ask("ATI").await, "ATI\rELM327 v1.4b\r\r>");
    sim.vanish().await;
    assert!(tokio::net::TcpStream::connect(address).await.is_err());
    sim.return_().await;
    assert_eq!(sim.addr().unwrap(), address);
    let mut wire = Wire::tcp(address).await;
    assert_eq!(wire.ask("ATI").await, "ATI\rELM327 v1.4b\r\r>");
}

/// The chip hears each byte at once and its answers are late by the line, all by the same.
#[tokio::test]
async fn a_slow_line_delays_what_is_written_and_nothing_else() {
    let line = Duration::from_millis(400);
    let slow = Adapter { banner: "ELM327 v1.4b".into(), line_ms: 400, ..Adapter::default() };
    let (sim, mut wire) = pty(Profile { adapter: slow, car: Some(steady()) }).await;
    let begun = Instant::now();
    wire.send(b"AT").await;
    assert_eq!(wire.exactly(2).await, "AT");
    assert!(begun.elapsed() >= line, "an echo too is under way");
    wire.send(b"I\r").await;
    assert_eq!(wire.reply().await, "I\rELM327 v1.4b\r\r>");
    assert!(begun.elapsed() >= line * 2);
    // Eight characters at once: none is lost, and none waits for the echo of the one before.
    let begun = Instant::now();
    assert_eq!(wire.ask("AT DPN").await, "AT DPN\rA0\r\r>");
    assert!((line..line * 4).contains(&begun.elapsed()), "{:?}", begun.elapsed());
    // What stands at the end of the line may change, the line does not.
    sim.replace_adapter(Adapter::default());
    let begun = Instant::now();
    assert_eq!(wire.ask("ATI").await, "ATI\rELM327 v1.5\r\r>");
    assert!(begun.elapsed() >= line);
}

#[tokio::test]
async fn the_wrong_rate_reads_garbage() {
    let profile = Profile { adapter: Adapter::named("clone-9600").unwrap(), car: Some(steady()) };
    let sim = VehicleSim::spawn_pty(profile, None).await.unwrap();
    let mut wrong = Wire::serial(&sim.path(), 38_400);
    wrong.send(b"\x7F\x7F\r").await;
    let noise = wrong.exactly_bytes(3).await;
    assert!(!noise.contains(&b'>') && noise.iter().all(|b| !b.is_ascii()), "{noise:?}");
    drop(wrong);
    let mut right = Wire::serial(&sim.path(), 9_600);
    assert!(right.ask("\x7F\x7F").await.ends_with("?\r\r>"));
    assert_eq!(right.ask("ATI").await, "ATI\rELM327 v1.4\r\r>");
}

#[tokio::test]
async fn clones_break_as_their_table_says() {
    for (name, sent, expected) in [
        ("clone-no-at1", "AT@1", "?\r\r>"),
        ("clone-v2-1", "ATAL", "?\r\r>"),
        ("clone-v2-1", "010C0D", "?\r\r>"),
        ("clone-first-of-multi", "010C05", "41 0C 1A F8 \r\r>"),
        ("clone-two-bytes", "010C05", "41 0C 1A F8 \r\r>"),
        ("clone-no-voltage", "ATRV", "0.0V\r\r>"),
        ("clone-no-count", "01051", "41 05 7B \r\r>"),
        ("stn1110", "STDI", "STN1110 v4.2.0\r\r>"),
        ("genuine-v1-4b", "STDI", "?\r\r>"),
    ] {
        let (_sim, mut wire) =
            pty(Profile { adapter: Adapter::named(name).unwrap(), car: Some(steady()) }).await;
        wire.setup(&["ATE0", "ATSP6"]).await;
        assert_eq!(wire.ask(sent).await, expected, "{name} {sent}");
    }
    let freezes = Profile { adapter: Adapter::named("clone-freezes-long").unwrap(), car: Some(steady()) };
    let (_sim, mut wire) = pty(freezes).await;
    wire.setup(&["ATE0", "ATH1", "ATS0", "ATSP6"]).await;
    wire.send(b"0908\r").await;
    assert!(!wire.until_silent(Duration::from_millis(300)).await.contains('>'));
}

/// A trace in the form `baygate scan --trace` writes.
#[tokio::test]
async fn a_recorded_session_is_played_back() {
    let trace = "{\"baygate_trace\":1,\"link\":\"elm327+tcp://x:1\",\"vin_masked\":true}\n\
        {\"t_ms\":0.5,\"dir\":\"tx\",\"hex\":\"303130350D\",\"ascii\":\"0105\\\\r\"}\n\
        {\"t_ms\":30.5,\"dir\":\"rx\",\"hex\":\"343130\",\"ascii\":\"410\"}\n\
        {\"t_ms\":31.0,\"dir\":\"rx\",\"hex\":\"3537420D0D3E\",\"ascii\":\"57B\\\\r\\\\r>\"}\n";
    let recording = Recording::read(trace).unwrap();
    let sim = ReplaySim::spawn_tcp("127.0.0.1:0".parse().unwrap(), recording).await.unwrap();
    let mut wire = Wire::tcp(sim.name().parse().unwrap()).await;
    let begin = Instant::now();
    assert_eq!(wire.ask("0105").await, "41057B\r\r>");
    assert!(begin.elapsed() >= Duration::from_millis(30), "with the pause of then");
    assert_eq!(wire.ask("010C").await, "NO DATA\r\r>");
    sim.stop().await;
}
