//! A script makes things happen to the simulated car and its adapter: faults, other
//! cars, other adapters, the key, an ageing sensor, over a real pseudo-terminal.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "support/wire.rs"]
mod wire;

use baygate::sim::vehicle::{CarSpec, Profile, Script, VehicleSim};
use wire::Wire;

/// Plays one step at once.
async fn play(sim: &mut VehicleSim, action: &str) {
    let script = Script::from_toml(&format!("step = [{{ at = \"0s\", do = {action} }}]")).unwrap();
    script.play(sim).await.unwrap();
}

#[tokio::test]
async fn each_step_is_seen_on_the_wire() {
    let car = CarSpec { drift: false, units: 1, ..CarSpec::default() };
    let mut sim =
        VehicleSim::spawn_pty(Profile { car: Some(car), ..Profile::default() }, None).await.unwrap();
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
async fn the_cable_is_pulled_and_comes_back() {
    let mut sim = VehicleSim::spawn_pty(Profile::default(), None).await.unwrap();
    let path = sim.path();
    play(&mut sim, "\"vanish\"").await;
    assert!(!path.exists());
    play(&mut sim, "\"return\"").await;
    assert!(sim.path().exists());
}
