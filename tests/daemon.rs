//! The main job end to end with the real program, a real Mosquitto, a simulated
//! car over TCP, a card over the virtual reader's wire and a PNG printer; then
//! signals, a broken configuration, a second daemon and `kill -9`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "support/daemon.rs"]
mod daemon;
#[path = "support/headquarters.rs"]
mod headquarters;
mod mqtt;

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Instant;

use baygate::api::client::{Client, Method};
use baygate::sim::card::{CardProfile, CardSim, Technology};
use baygate::sim::headquarters::{Received, Verdict};
use baygate::sim::vehicle::{CarSpec, Profile, VehicleSim};
use daemon::{Daemon, Desk, program};
use headquarters::Headquarters;
use mqtt::{BASE, Listener, Mosquitto, free_port, until};
use nix::sys::signal::Signal;
use serde_json::json;

impl Headquarters {
    /// Waits for an event of that type, also among those seen before.
    async fn gets(&mut self, kind: &str, matches: impl Fn(&serde_json::Value) -> bool) -> serde_json::Value {
        let kind = format!("baygate.{kind}");
        let fits = |r: &Received| r.event["type"] == kind.as_str() && matches(&r.event["data"]);
        if let Some(found) = self.seen.iter().find(|r| fits(r)) {
            return found.event.clone();
        }
        loop {
            let received = self.hears(&kind).await;
            if fits(&received) {
                return received.event;
            }
        }
    }

    /// Waits until so many different starts are in.
    async fn gets_starts(&mut self, count: usize) {
        let started =
            |r: &&Received| r.verdict != Verdict::Duplicate && r.event["type"] == "baygate.gateway.started";
        while self.seen.iter().filter(started).count() < count {
            self.hears("every start").await;
        }
    }

    /// Exactly once after de-duplication, in order within each class.
    fn assert_whole(&self) {
        let mut next: BTreeMap<(String, String), u64> = BTreeMap::new();
        for received in &self.seen {
            if received.verdict == Verdict::Duplicate {
                continue;
            }
            let text = |key: &str| received.event[key].as_str().unwrap().to_owned();
            let expected = next.entry((text("epoch"), text("class"))).or_insert(1);
            assert_eq!(text("classsequence").parse::<u64>().unwrap(), *expected, "{:?}", received.event);
            *expected += 1;
        }
    }
}

fn broker(port: u16) -> String {
    format!("[mqtt]\nurl = \"mqtt://127.0.0.1:{port}\"\nconfirm = \"headquarters\"\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn card_car_and_face_reach_headquarters_exactly_once() {
    let mosquitto = Mosquitto::start("").await;
    let mut headquarters = Headquarters::open(mosquitto.port);
    let any = "127.0.0.1:0".parse().unwrap();
    let sim = VehicleSim::spawn_tcp(any, Profile::default()).await.unwrap();
    let reader = free_port();
    let desk = Desk::new();
    desk.write(&format!(
        "{}\n[[reader]]\nid = \"counter-1\"\nkind = \"vpcd\"\nlisten = \"127.0.0.1:{reader}\"\n\n\
         [[vehicle]]\nid = \"bay-1\"\nlink = \"elm327+tcp://{}\"\n\n\
         [[printer]]\nid = \"face-1\"\nkind = \"png\"\nlink = \"file://{}\"\n",
        broker(mosquitto.port),
        sim.addr().unwrap(),
        desk.path("faces").display(),
    ));
    let mut daemon = Daemon::start(&desk.config()).await;
    headquarters.gets("gateway.started", |d| d["new_epoch"] == "created").await;

    // The counter: a card, its face.
    headquarters.gets("device.state", |d| d["state"] == "ready").await;
    let card = CardProfile::new(Technology::Ntag215);
    let card =
        until("the reader listens", async || CardSim::tap(("127.0.0.1", reader), card.clone()).await.ok())
            .await;
    let tapped = headquarters.gets("card.tapped", |_| true).await;
    assert_eq!(tapped["data"]["technology"], "ntag215");
    assert_eq!(tapped["subject"], format!("card/{}", tapped["data"]["uid"].as_str().unwrap()));
    card.remove().await;
    headquarters.gets("card.removed", |d| d["uid"] == tapped["data"]["uid"]).await;
    let client = Client::connect(desk.path("control.sock")).await.unwrap();
    let body = json!({"printer": "face-1", "card_no": "8800001",
        "fields": {"card_no": "8800001", "points": 1250, "offer": "下次保养工时八折", "qr": "https://example.com/m/8800001"}});
    let answer = client.request(Method::POST, "/v1/print-jobs", Some(&body)).await.unwrap();
    assert!(answer.status < 300, "{answer:?}");
    let done = headquarters.gets("printer.job", |d| d["state"] == "done").await;
    let picture = done["data"]["output"].as_str().expect("a path").to_owned();
    assert!(std::fs::read(&picture).unwrap().starts_with(b"\x89PNG"), "{picture}");

    // The bay: arrives, is reported, warned about, leaves.
    let car = CarSpec { confirmed: vec!["P0420".parse().unwrap()], ..CarSpec::default() };
    sim.plug(&car).unwrap();
    let arrived = headquarters.gets("vehicle.arrived", |_| true).await;
    let report = headquarters.gets("vehicle.report", |_| true).await;
    assert_eq!(report["data"]["visit"], arrived["data"]["visit"]);
    assert_eq!(report["data"]["vin"], "1M8GDM9AXKP042788");
    assert_eq!(report["data"]["vin_check"], "ok");
    let warning = headquarters
        .gets("maintenance.warning", |d| d["rule"].as_str().is_some_and(|r| r.contains("confirmed")))
        .await;
    assert!(!warning["data"]["title"]["zh"].as_str().unwrap().is_empty());
    assert!(!warning["data"]["evidence"].as_array().unwrap().is_empty());
    sim.unplug();
    headquarters.gets("vehicle.departed", |d| d["visit"] == arrived["data"]["visit"]).await;

    let began = Instant::now();
    daemon.signal(Signal::SIGTERM);
    assert!(daemon.ended().await.success(), "{}", daemon.log());
    // The contract's own limit, not a speed test.
    assert!(began.elapsed().as_secs() < 5, "SIGTERM took {:?}", began.elapsed());
    headquarters.assert_whole();
}

#[tokio::test(flavor = "multi_thread")]
async fn reload_restarts_only_what_changed_and_refuses_a_broken_file() {
    let mosquitto = Mosquitto::start("").await;
    let mut headquarters = Headquarters::open(mosquitto.port);
    let desk = Desk::new();
    let (first, second) = (free_port(), free_port());
    let reader = |id: &str, port: u16| {
        format!("[[reader]]\nid = \"{id}\"\nkind = \"vpcd\"\nlisten = \"127.0.0.1:{port}\"\n")
    };
    desk.write(&format!("{}{}", broker(mosquitto.port), reader("a", first)));
    let mut daemon = Daemon::start(&desk.config()).await;

    let mut text = std::fs::read_to_string(desk.config()).unwrap();
    text.push_str("[[reder]]\n");
    std::fs::write(desk.config(), &text).unwrap();
    daemon.signal(Signal::SIGHUP);
    let refused = headquarters.gets("gateway.config", |d| d["outcome"] == "refused").await;
    let error = refused["data"]["error"].as_str().unwrap();
    let line = text.lines().count();
    assert!(
        error.contains(&format!("baygate.toml:{line}:3:")) && error.contains("did you mean `reader`?"),
        "{error}"
    );

    desk.write(&format!("{}{}{}", broker(mosquitto.port), reader("a", first), reader("b", second)));
    daemon.signal(Signal::SIGHUP);
    let applied = headquarters.gets("gateway.config", |d| d["outcome"] == "applied").await;
    assert_eq!(applied["data"]["changed"], json!(["reader/b"]));
    let version = applied["data"]["version"].clone();
    let mut state = Listener::start(mosquitto.port, "5", &format!("{BASE}/state")).await;
    while state.on("/state").await["config_version"] != version {}

    let telemetry = "[buffer.classes]\ntelemetry = { keep = \"1MiB\" }\n";
    desk.write(&format!(
        "{}{}{}{telemetry}",
        broker(mosquitto.port),
        reader("a", first),
        reader("b", second)
    ));
    daemon.signal(Signal::SIGHUP);
    headquarters.gets("gateway.config", |d| d["changed"] == json!(["buffer"])).await;
    until("reader b listens", async || std::net::TcpStream::connect(("127.0.0.1", second)).ok()).await;

    std::fs::write(
        desk.config(),
        std::fs::read_to_string(desk.config()).unwrap().replace("SH-0042", "SH-0043"),
    )
    .unwrap();
    daemon.signal(Signal::SIGHUP);
    headquarters
        .gets("gateway.config", |d| d["error"].as_str().is_some_and(|e| e.contains("gateway.store")))
        .await;
    daemon.signal(Signal::SIGTERM);
    assert!(daemon.ended().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_daemon_and_a_bad_start_say_what_to_do() {
    let desk = Desk::new();
    desk.write("");
    let mut daemon = Daemon::start(&desk.config()).await;
    let second = program().args(["run", "--config"]).arg(desk.config()).output().await.unwrap();
    let said = String::from_utf8_lossy(&second.stderr);
    assert_eq!(second.status.code(), Some(1), "{said}");
    assert!(said.contains("in use by another baygate") && said.contains(&daemon.pid().to_string()), "{said}");
    daemon.signal(Signal::SIGTERM);
    assert!(daemon.ended().await.success());

    std::fs::write(desk.config(), "[gateway]\nstore = 1\n").unwrap();
    for command in ["run", "check"] {
        let output = program().args([command, "--config"]).arg(desk.config()).output().await.unwrap();
        let said =
            format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert_eq!(output.status.code(), Some(2), "{command}: {said}");
        assert!(said.contains("baygate.toml:2:9:"), "{command}: {said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_moment_nothing_is_lost_or_doubled() {
    let mosquitto = Mosquitto::start("").await;
    let mut headquarters = Headquarters::open(mosquitto.port);
    let desk = Desk::new();
    let port = free_port();
    desk.write(&format!(
        "{}[[reader]]\nid = \"a\"\nkind = \"vpcd\"\nlisten = \"127.0.0.1:{port}\"\n",
        broker(mosquitto.port)
    ));
    for round in 0..5_u8 {
        let daemon = Daemon::start(&desk.config()).await;
        let profile = CardProfile::new(Technology::Ntag213).with_uid(&[4, 1, 2, 3, 4, 5, round]);
        let uid = format!("0401020304050{round}");
        let card = until("the reader listens", async || {
            CardSim::tap(("127.0.0.1", port), profile.clone()).await.ok()
        })
        .await;
        // Killed as soon as headquarters has the tap: between publish and the local mark of delivery.
        headquarters.gets("card.tapped", |d| d["uid"] == uid.as_str()).await;
        daemon.kill().await;
        drop(card);
    }
    let mut daemon = Daemon::start(&desk.config()).await;
    headquarters.gets_starts(6).await;
    daemon.signal(Signal::SIGTERM);
    assert!(daemon.ended().await.success());
    headquarters.assert_whole();
    let unclean =
        |r: &&Received| r.verdict != Verdict::Duplicate && r.event["data"]["clean_shutdown"] == false;
    assert_eq!(headquarters.seen.iter().filter(unclean).count(), 5);
    let taps = headquarters
        .seen
        .iter()
        .filter(|r| r.verdict != Verdict::Duplicate && r.event["type"] == "baygate.card.tapped");
    assert_eq!(taps.count(), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_else_reads_the_data_whatever_the_folder_allows() {
    let desk = Desk::new();
    desk.write("");
    std::fs::create_dir(desk.path("data")).unwrap();
    std::fs::set_permissions(desk.path("data"), std::fs::Permissions::from_mode(0o755)).unwrap();
    let mut daemon = Daemon::start(&desk.config()).await;
    let mut seen = 0;
    for entry in std::fs::read_dir(desk.path("data")).unwrap() {
        let entry = entry.unwrap();
        let mode = entry.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode & 0o077, 0, "{:?} is open to others: {mode:o}", entry.file_name());
        seen += 1;
    }
    assert!(seen > 0, "a database is there");
    daemon.signal(Signal::SIGTERM);
    assert!(daemon.ended().await.success());
}
