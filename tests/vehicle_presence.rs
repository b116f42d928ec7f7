//! When cars are asked, by the real program with its usual times: one whose engine runs, one that
//! stands, one with a weak battery, one on a bus; they leave and come back.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "support/daemon.rs"]
mod daemon;
mod vehicle_bay;

use std::time::{Duration, Instant};

use baygate::api::client::{Client, Method};
use baygate::sim::vehicle::{Adapter, CarSpec, Engine, Profile, SlcanProfile, SlcanSim, VehicleSim};
use daemon::{Daemon, Desk};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use vehicle_bay::{DEADLINE, facts, open_store};

/// Of docs/visits.md: the first pause of a standing car, which doubles; and how long a car may be out
/// of sight before its visit ends.
const FIRST_PAUSE_S: f64 = 5.0;
const UNPLUGGED: Duration = Duration::from_secs(3);

fn car(vin: &str, engine: Engine, voltage: Option<f64>) -> CarSpec {
    CarSpec { vin: Some(vin.into()), engine, voltage, ..CarSpec::default() }
}

async fn dongle(car: &CarSpec) -> VehicleSim {
    let profile = Profile { adapter: Adapter::default(), car: Some(car.clone()) };
    VehicleSim::spawn_tcp("127.0.0.1:0".parse().unwrap(), profile).await.unwrap()
}

/// How often the car was asked whether it is there.
fn looks(requests: &[Vec<u8>]) -> usize {
    requests.iter().filter(|request| request[..] == [0x01, 0x00]).count()
}

async fn until(what: &str, is_so: impl AsyncFn() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !is_so().await {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

struct Shop {
    client: Client,
}

impl Shop {
    /// What the tills see of a bay.
    async fn bay(&self, id: &str) -> Value {
        let answer = self.client.request(Method::GET, "/v1/vehicles", None).await.unwrap();
        let bays = answer.accepted().unwrap()["vehicles"].as_array().unwrap().clone();
        bays.into_iter().find(|bay| bay["link"] == id).unwrap()
    }

    /// The bay's visit, with its report or without.
    async fn visit(&self, id: &str) -> Option<String> {
        self.bay(id).await["visit"]["visit"].as_str().map(str::to_owned)
    }

    async fn until_reported(&self, id: &str) -> String {
        until(&format!("a report at {id}"), async || self.bay(id).await["visit"]["report"].is_object()).await;
        self.visit(id).await.unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn cars_are_asked_as_they_stand_and_are_seen_to_leave() {
    let standing = car("1D4GP00R55B123456", Engine::On, Some(12.4));
    let bus = car("LSVAA4187E2123456", Engine::On, None);
    let runs = dongle(&car("1M8GDM9AXKP042788", Engine::Running, None)).await;
    let stands = dongle(&standing).await;
    let weak = dongle(&car("LSVAG2186E2100001", Engine::On, Some(11.4))).await;
    let address = "127.0.0.1:0".parse().unwrap();
    let on_bus = SlcanSim::spawn_tcp(address, SlcanProfile::default(), &bus).await.unwrap();

    let desk = Desk::new();
    let links = [("runs", runs.name()), ("stands", stands.name()), ("weak", weak.name())];
    let tables: Vec<String> = links
        .iter()
        .map(|(id, at)| format!("[[vehicle]]\nid = \"{id}\"\nlink = \"elm327+tcp://{at}\"\n"))
        .collect();
    let slcan =
        format!("[[vehicle]]\nid = \"bus\"\nlink = \"slcan+tcp://{}?bitrate=500000\"\n", on_bus.name());
    desk.write(&(tables.concat() + slcan.as_str()));
    let mut daemon = Daemon::start(&desk.config()).await;
    let shop = Shop { client: Client::connect(desk.path("control.sock")).await.unwrap() };
    for id in ["runs", "stands", "bus"] {
        shop.until_reported(id).await;
    }

    // Once a second where the engine runs; behind a doubling pause where it stands.
    let begun = Instant::now();
    let counts = || [looks(&runs.requests()), looks(&stands.requests())];
    let before = counts();
    until("fifteen looks at the running car", async || counts()[0] >= before[0] + 15).await;
    let took_s = begun.elapsed().as_secs_f64();
    assert!(took_s >= 10.0, "fifteen looks in {took_s} s");

    // A weak battery: nothing at all, but for the scan that somebody wants, and its warning.
    assert_eq!(weak.requests(), Vec::<Vec<u8>>::new());
    assert_eq!(shop.visit("weak").await, None);
    let told = shop.client.request(Method::POST, "/v1/vehicles/weak/scan", Some(&json!({}))).await.unwrap();
    assert_eq!(told.status, 200, "{told:?}");
    let outcome = told.accepted().unwrap();
    assert_eq!(
        (&outcome["vin"], &outcome["notices"][0]["code"]),
        (&json!("LSVAG2186E2100001"), &json!("battery-low"))
    );
    let scanned = weak.requests().len();
    assert!(scanned > 20);
    let again = counts();
    until("five more looks at the running car", async || counts()[0] >= again[0] + 5).await;
    assert_eq!(weak.requests().len(), scanned, "once");
    // In these twenty seconds a pause that does not double would show.
    let took_s = begun.elapsed().as_secs_f64();
    let most = (took_s / FIRST_PAUSE_S + 1.0).log2().floor() + 1.0;
    let asked = f64::from(u32::try_from(counts()[1] - before[1]).unwrap());
    assert!(asked <= most, "{asked} looks at a standing car in {took_s} s");

    // A plug that is touched is no departure; one that is pulled is.
    let first = shop.visit("stands").await.unwrap();
    stands.unplug();
    tokio::time::sleep(UNPLUGGED / 2).await;
    stands.plug(&standing).unwrap();
    until("it is asked again", async || looks(&stands.requests()) > 0).await;
    assert_eq!(shop.visit("stands").await.as_deref(), Some(first.as_str()));
    stands.unplug();
    until("it left", async || shop.visit("stands").await.is_none()).await;
    stands.plug(&standing).unwrap();
    assert_ne!(shop.until_reported("stands").await, first);
    // Nothing measures a voltage on a bus: the key is turned, then another car stands there.
    let first = shop.visit("bus").await.unwrap();
    on_bus.engine(Engine::Off);
    until("its units sleep", async || shop.visit("bus").await.is_none()).await;
    on_bus.swap(&car("LFV2A21K5D4100002", Engine::Running, None)).unwrap();
    assert_ne!(shop.until_reported("bus").await, first);

    daemon.signal(Signal::SIGTERM);
    assert!(daemon.ended().await.success());
    let log = daemon.log();
    for vin in [
        "1D4GP00R55B123456",
        "LSVAA4187E2123456",
        "1M8GDM9AXKP042788",
        "LSVAG2186E2100001",
        "LFV2A21K5D4100002",
    ] {
        assert!(!log.contains(vin), "whose car it was stands in the log:\n{log}");
    }
    let store = open_store(&desk.path("data"));
    let mut told = Vec::new();
    for id in ["runs", "stands", "weak", "bus"] {
        let departed = facts(&store, id).await.into_iter().filter(|(kind, _)| kind == "vehicle.departed");
        told.push(departed.map(|(_, data)| data["reason"].as_str().unwrap().to_owned()).collect::<Vec<_>>());
    }
    store.close().await;
    assert_eq!(told, [vec![], vec!["unplugged".to_owned()], vec![], vec!["ignition-off".to_owned()]]);
}
