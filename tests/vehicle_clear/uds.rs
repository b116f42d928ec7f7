//! A car that knows only UDS: cleared by service 14, through a dongle and on a bus.

use baygate::sim::vehicle::{SlcanProfile, SlcanSim};

use super::*;

/// No J1979: its codes and its values are told by J1979-2.
fn only_uds() -> CarSpec {
    CarSpec { obd: false, j1979_2: true, ..car() }
}

/// What either simulator can do.
trait Simulated {
    fn turn(&self, engine: Engine);
    fn asked(&self) -> Vec<Vec<u8>>;
}

impl Simulated for VehicleSim {
    fn turn(&self, engine: Engine) {
        self.engine(engine);
    }
    fn asked(&self) -> Vec<Vec<u8>> {
        self.requests()
    }
}

impl Simulated for SlcanSim {
    fn turn(&self, engine: Engine) {
        self.engine(engine);
    }
    fn asked(&self) -> Vec<Vec<u8>> {
        self.requests()
    }
}

/// Refused while the engine runs; done once when it stands, behind a saved report.
async fn refused_then_done(shop: &Shop<impl Simulated>) {
    let clearings = || -> Vec<Vec<u8>> {
        shop.sim.asked().into_iter().filter(|request| matches!(request[0], 0x04 | 0x14)).collect()
    };
    shop.bay.until_reason(None).await;
    let bearer = format!("Bearer {}", shop.script);
    let reply = shop.served.send("POST", ASK, &[("Authorization", &bearer)], "").await;
    assert_eq!(reply.problem(), (409, "report-missing".into()), "nothing is cleared that was not saved");
    let saved = shop.bay.scan().await.outcome.unwrap();

    let reply = shop.served.send("POST", ASK, &[("Authorization", &bearer)], "").await;
    let asked = reply.json();
    assert_eq!((reply.status, &asked["method"], &asked["codes"]), (202, &json!("uds"), &json!(["P0420"])));
    shop.sim.turn(Engine::Running);
    let reply = shop.say(&shop.till, asked["id"].as_str().unwrap(), yes()).await;
    assert_eq!(reply.problem(), (409, "engine-running".into()));
    assert_eq!(clearings(), Vec::<Vec<u8>>::new());

    shop.sim.turn(Engine::On);
    let id = shop.ask().await;
    let done = shop.say(&shop.till, &id, yes()).await.json();
    assert_eq!(done["outcome"], "cleared", "{done}");
    assert_eq!(clearings(), [[0x14, 0xFF, 0xFF, 0xFF]], "once, to all groups, and no service 04");
    let facts = shop.bay.facts().await;
    let told: Vec<&str> = facts.iter().map(|(kind, _)| kind.as_str()).collect();
    let at = |kind: &str| told.iter().position(|told| *told == kind);
    assert!(at("vehicle.report") < at("vehicle.cleared"), "{told:?}");
    let cleared = shop.bay.nth("vehicle.cleared", 1).await;
    assert_eq!((&cleared["codes"], &cleared["visit"]), (&json!(["P0420"]), &saved["visit"]));
    let after = shop.bay.nth("vehicle.report", 2).await;
    assert_eq!(after["ecus"][0]["dtcs"], json!([]), "the fresh report shows what is left");
}

#[tokio::test(flavor = "multi_thread")]
async fn through_a_dongle() {
    let profile = Profile { adapter: Adapter::default(), car: Some(only_uds()) };
    let sim = VehicleSim::spawn_tcp("127.0.0.1:0".parse().unwrap(), profile).await.unwrap();
    let link = format!("elm327+tcp://{}", sim.name());
    refused_then_done(&Shop::at(sim, &link, Poll::OnRequest).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_bus() {
    let address = "127.0.0.1:0".parse().unwrap();
    let sim = SlcanSim::spawn_tcp(address, SlcanProfile::default(), &only_uds()).await.unwrap();
    let link = format!("slcan+tcp://{}?bitrate=500000", sim.name());
    let shop = Shop::at(sim, &link, Poll::OnRequest).await;
    refused_then_done(&shop).await;
    let frames: Vec<_> = shop.sim.heard().into_iter().filter(|line| line.starts_with("t7DF80414")).collect();
    assert_eq!(frames, ["t7DF80414FFFFFF000000"]);
}
