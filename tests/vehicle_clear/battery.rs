//! A weak battery is looked at before codes are cleared, whatever leads to the car: at the plug, or
//! by the car's own word where nothing measures there.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use baygate::event::vehicle::DepartureReason;
use baygate::sim::vehicle::{SlcanProfile, SlcanSim};
use baygate::store::visits::VisitOp;

use super::vehicle_bay::dongle::{Dongle, Script, good};
use super::*;

/// What either simulator can do.
trait Powered {
    /// The same car at so many volts, its codes as they were.
    fn at_volts(&self, car: &CarSpec, volts: f64);
    fn asked(&self) -> Vec<Vec<u8>>;
}

impl Powered for VehicleSim {
    fn at_volts(&self, _: &CarSpec, volts: f64) {
        self.battery(Some(volts));
    }
    fn asked(&self) -> Vec<Vec<u8>> {
        self.requests()
    }
}

impl Powered for SlcanSim {
    fn at_volts(&self, car: &CarSpec, volts: f64) {
        self.swap(&CarSpec { voltage: Some(volts), ..car.clone() }).unwrap();
    }
    fn asked(&self) -> Vec<Vec<u8>> {
        self.requests()
    }
}

/// Refused at 11.4 V, told to whoever scans, done with a charger.
async fn refused_until_charged(shop: &Shop<impl Powered>, spec: &CarSpec, name: &str) {
    let cleared = || shop.sim.asked().iter().filter(|asked| matches!(asked[0], 0x04 | 0x14)).count();
    shop.bay.until_reason(None).await;
    assert!(shop.bay.scan().await.outcome.unwrap().get("notices").is_none(), "{name}");
    let id = shop.ask().await;
    // A person takes longer than a pulled plug is waited for; nothing is to happen meanwhile.
    tokio::time::sleep(3 * vehicle_bay::quick().patience.unplugged).await;
    shop.sim.at_volts(spec, 11.4);
    let reply = shop.say(&shop.till, &id, yes()).await;
    assert_eq!(reply.problem(), (409, "battery-low".into()), "{name}: {reply:?}");
    assert!(reply.json()["detail"].as_str().unwrap().contains("11.4 V"), "{name}: {reply:?}");
    assert_eq!((cleared(), shop.bay.count("vehicle.cleared").await), (0, 0), "{name}");
    let scanned = shop.bay.scan().await.outcome.unwrap();
    if scanned["adapter"]["voltage_v"] != json!(0.0) {
        assert_eq!(scanned["notices"][0]["code"], "battery-low", "{name}");
    }

    shop.sim.at_volts(spec, 12.7);
    shop.bay.scan().await;
    let id = shop.ask().await;
    let done = shop.say(&shop.till, &id, yes()).await.json();
    assert_eq!((&done["outcome"], cleared()), (&json!("cleared"), 1), "{name}: {done}");
}

#[tokio::test(flavor = "multi_thread")]
async fn through_a_dongle_with_and_without_a_voltage_pin() {
    for no_voltage in [false, true] {
        let spec = CarSpec { voltage: Some(12.4), ..car() };
        let adapter = Adapter { no_voltage, ..Adapter::default() };
        let profile = Profile { adapter, car: Some(spec.clone()) };
        let sim = VehicleSim::spawn_tcp("127.0.0.1:0".parse().unwrap(), profile).await.unwrap();
        let link = format!("elm327+tcp://{}", sim.name());
        let shop = Shop::at(sim, &link, Poll::OnRequest).await;
        refused_until_charged(&shop, &spec, &format!("no voltage pin: {no_voltage}")).await;
        assert_eq!(shop.bay.count("vehicle.departed").await, 0, "one visit: {no_voltage}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_bus_by_either_of_its_languages() {
    for (name, obd) in [("J1979", true), ("J1979-2", false)] {
        let spec = CarSpec { voltage: Some(12.4), obd, j1979_2: !obd, ..car() };
        let address = "127.0.0.1:0".parse().unwrap();
        let sim = SlcanSim::spawn_tcp(address, SlcanProfile::default(), &spec).await.unwrap();
        let link = format!("slcan+tcp://{}?bitrate=500000", sim.name());
        refused_until_charged(&Shop::at(sim, &link, Poll::OnRequest).await, &spec, name).await;
    }
}

/// 12.4 V is a good lead-acid battery and an empty lithium one: what this car rested at decides.
#[tokio::test(flavor = "multi_thread")]
async fn judged_by_what_the_battery_is_made_of() {
    let spec = CarSpec { voltage: Some(12.4), ..car() };
    let profile = Profile { adapter: Adapter::default(), car: Some(spec) };
    let sim = VehicleSim::spawn_tcp("127.0.0.1:0".parse().unwrap(), profile).await.unwrap();
    let link = format!("elm327+tcp://{}", sim.name());
    let shop = Shop::at(sim, &link, Poll::OnRequest).await;
    for volts in [13.3, 13.2] {
        let visit = Uuid::now_v7();
        let (link, vin) = ("bay-9".parse().unwrap(), car().vin.unwrap().parse().ok());
        let open = VisitOp::Open { visit, link, vin, protocol: "iso15765-4-11bit-500k".into() };
        let close = VisitOp::Close { visit, reason: DepartureReason::Unplugged };
        let ops = [open, VisitOp::Rested { visit, volts }, close].map(Op::Visit).to_vec();
        shop.served.store.commit(Batch { ops, ..Batch::new() }).await.unwrap();
    }
    shop.bay.until_reason(None).await;
    shop.bay.scan().await;
    let id = shop.ask().await;
    assert_eq!(shop.say(&shop.till, &id, yes()).await.problem(), (409, "battery-low".into()));
    assert_eq!(shop.clearings(), 0);
}

/// A pump that starts pulls the voltage down for a moment: one low word is no weak battery.
#[tokio::test(flavor = "multi_thread")]
async fn one_low_word_is_asked_for_again() {
    let dir = tempfile::tempdir().unwrap();
    let store = vehicle_bay::open_store(dir.path());
    let words = Arc::new(AtomicUsize::new(0));
    let told = Arc::clone(&words);
    let script: Script = Arc::new(move |command| {
        let said = match command {
            "ATRV" => "0.0V",
            "04" => "7E80144",
            "010C" | "010C1" => "7E804410C0000",
            // 11.0 V, then 12.5 V.
            "0142" if told.fetch_add(1, Ordering::SeqCst) == 0 => "7E80441422AF8",
            "0142" => "7E804414230D4",
            _ => return good(command).into_bytes(),
        };
        format!("{said}\r\r>").into_bytes()
    });
    let dongle = Dongle::echoing_on_tcp(script).await;
    let bay = Bay::start(&store, "bay-1", &dongle.link, Poll::OnRequest);
    bay.until_reason(None).await;
    let report = bay.scan().await.outcome.unwrap();
    assert_eq!(words.load(Ordering::SeqCst), 0, "its mask does not promise it, so a scan leaves it out");
    let request = grant(&store, &report["visit"], &[]).await.request;
    let told = bay.nth("vehicle.cleared", 1).await;
    assert_eq!((&told["outcome"], words.load(Ordering::SeqCst)), (&json!("cleared"), 2));
    let row = store.read(move |r| r.request(request)).await.unwrap().unwrap();
    assert_eq!(row.state, RequestState::Done);
    bay.stop().await;
}
