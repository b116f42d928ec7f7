//! The simulated devices: two bays with dongles, one on a truck's bus, a card counter, two printers. They live
//! outside the daemon and see its deaths as any device would.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use baygate::sim::card::{CardProfile, CardSim, Technology};
use baygate::sim::printer::{Pace, PrinterProfile, PrinterSim};
use baygate::sim::vehicle::{CarSpec, Engine, Profile, SlcanProfile, SlcanSim, Truck, TruckUnit, VehicleSim};
use serde_json::Value;
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::Shop;
use super::dice::Dice;
use super::port::free_port;
use crate::daemon::{Desk, LONG};

pub type Printer = Arc<Mutex<PrinterSim>>;

/// The bay on a bus: an slcan adapter.
pub const BUS: &str = "bay-3";

pub struct Devices {
    bays: [VehicleSim; 2],
    bus: SlcanSim,
    printer: PrinterSim,
    links: [String; 3],
    faces: PathBuf,
}

impl Devices {
    /// One bay on TCP, one on a pseudo-terminal, the bus and the printer on TCP.
    pub async fn plug_in(desk: &Desk) -> Self {
        let address = || SocketAddr::from(([127, 0, 0, 1], free_port()));
        let tcp = VehicleSim::spawn_tcp(address(), Profile::default()).await.unwrap();
        let pty = VehicleSim::spawn_pty(Profile::default(), Some(desk.path("obd"))).await.unwrap();
        let bus = SlcanSim::spawn_tcp(address(), SlcanProfile::default(), &parked()).await.unwrap();
        let pace = Pace { print: Duration::from_millis(30), ..Pace::default() };
        let profile = PrinterProfile { folder: Some(desk.path("printed")), pace, attended: true };
        let printer = PrinterSim::spawn_tcp(address(), profile).await.unwrap();
        let links = [
            format!("elm327+tcp://{}", tcp.addr().unwrap()),
            format!("elm327+serial://{}?baud=38400", desk.path("obd").display()),
            format!("slcan+tcp://{}?bitrate=250000", bus.name()),
        ];
        Self { bays: [tcp, pty], bus, printer, links, faces: desk.path("faces") }
    }

    pub fn configuration(&self) -> String {
        let [first, second, third] = &self.links;
        format!(
            "[[vehicle]]\nid = \"bay-1\"\nlink = \"{first}\"\n\n[[vehicle]]\nid = \"bay-2\"\nlink = \"{second}\"\n\n\
             [[vehicle]]\nid = \"{BUS}\"\nlink = \"{third}\"\n\n\
             [[printer]]\nid = \"face-1\"\nkind = \"png\"\nlink = \"file://{}\"\n\n\
             [[printer]]\nid = \"face-2\"\nkind = \"star-tcp300\"\nlink = \"tcp://{}\"\n",
            self.faces.display(),
            self.printer.addr().unwrap()
        )
    }

    /// Cars and cards come and go until `stop`; then every field and every bay is left empty.
    /// The printer stays as long as somebody holds it.
    pub fn work(
        self,
        load: &mut JoinSet<()>,
        shop: &Arc<Shop>,
        dice: &mut Dice,
        stop: &CancellationToken,
    ) -> Printer {
        let printer = Arc::new(Mutex::new(self.printer));
        for (bay, sim) in (1..).zip(self.bays) {
            load.spawn(cars(sim, bay, Arc::clone(shop), dice.fork(), stop.clone()));
        }
        load.spawn(trucks(self.bus, Arc::clone(shop), dice.fork(), stop.clone()));
        load.spawn(cards(Arc::clone(shop), dice.fork(), stop.clone()));
        load.spawn(pull_cable(Arc::clone(&printer), dice.fork(), stop.clone()));
        printer
    }
}

async fn cars(mut sim: VehicleSim, bay: u32, shop: Arc<Shop>, mut dice: Dice, stop: CancellationToken) {
    let mut count = 0;
    while !stop.is_cancelled() {
        count += 1;
        let vin = format!("LSVAA49J1{:08}", bay * 1_000_000 + count);
        let confirmed = if dice.percent(60) { vec!["P0420".parse().unwrap()] } else { Vec::new() };
        sim.plug(&CarSpec { vin: Some(vin.clone()), confirmed, ..CarSpec::default() }).unwrap();
        let wait = Duration::from_secs(6);
        shop.stream
            .hears(wait, |heard| heard.lately("vehicle.report", |data| data["vin"] == vin.as_str()))
            .await;
        tokio::time::sleep(dice.pause(1500)).await;
        if dice.percent(15) {
            sim.vanish().await;
            tokio::time::sleep(dice.pause(400)).await;
            sim.return_().await;
        }
        sim.unplug();
        if dice.percent(60) {
            // Seen away once, another car at the next look.
            tokio::time::sleep(Duration::from_millis(1000) + dice.pause(600)).await;
        } else {
            shop.stream
                .hears(wait, |h| h.lately("vehicle.departed", |data| data["vin"] == vin.as_str()))
                .await;
        }
    }
    sim.unplug();
    await_last_departure(&shop, &format!("bay-{bay}")).await;
}

/// The last visit ends while the adapter is still there.
async fn await_last_departure(shop: &Shop, link: &str) {
    let over = |heard: &super::stream::Heard| {
        let of = |kind: &str| heard.of(kind).iter().filter(|data| data["link"] == link).count();
        of("vehicle.arrived") == of("vehicle.departed")
    };
    assert!(shop.stream.hears(LONG, over).await, "{link}: the last car never left");
}

/// A bus that sleeps.
fn parked() -> CarSpec {
    CarSpec { protocol: 9, engine: Engine::Off, ..CarSpec::default() }
}

/// Trucks that broadcast their codes come to the bus and go.
async fn trucks(mut sim: SlcanSim, shop: Arc<Shop>, mut dice: Dice, stop: CancellationToken) {
    let mut count = 0;
    while !stop.is_cancelled() {
        count += 1;
        let vin = format!("1XKDDB9X8YJ{count:06}");
        let engine = TruckUnit { active: vec![(100, 1)], lamp: true, ..TruckUnit::default() };
        sim.swap(&parked()).unwrap();
        sim.truck(Truck::new(vec![engine], Some(&vin)));
        sim.engine(Engine::Running);
        let told = |kind: &'static str| {
            let of_it = |data: &Value| data["vin"] == vin.as_str();
            shop.stream.hears(Duration::from_secs(15), move |heard| heard.lately(kind, of_it))
        };
        told("vehicle.report").await;
        tokio::time::sleep(dice.pause(1500)).await;
        if dice.percent(15) {
            sim.vanish().await;
            tokio::time::sleep(dice.pause(400)).await;
            sim.come_back().await;
        }
        sim.engine(Engine::Off);
        told("vehicle.departed").await;
    }
    sim.engine(Engine::Off);
    await_last_departure(&shop, BUS).await;
}

async fn cards(shop: Arc<Shop>, mut dice: Dice, stop: CancellationToken) {
    let mut count = 0_u32;
    while !stop.is_cancelled() {
        count += 1;
        let [.., a, b, c] = count.to_be_bytes();
        // A number and no more, or an empty card, which is refused.
        let (profile, tag) = match dice.below(3) {
            0 => (CardProfile::new(Technology::Ntag213), [0x04, 0xC0, 0xDE, a, b, c, 0x80].to_vec()),
            _ => (CardProfile::new(Technology::Icode), [0xE0, 0x04, 0x01, 0xC0, 0xDE, a, b, c].to_vec()),
        };
        let profile = profile.with_uid(&tag);
        let uid = hex::encode_upper(&profile.uid);
        let Ok(card) = CardSim::tap(("127.0.0.1", shop.reader), profile).await else {
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        };
        let told = |heard: &super::stream::Heard| {
            let this = |data: &Value| data["uid"] == uid.as_str();
            heard.lately("card.tapped", this) || heard.lately("card.refused", this)
        };
        shop.stream.hears(Duration::from_secs(1), told).await;
        tokio::time::sleep(dice.pause(150)).await;
        card.remove().await;
    }
}

/// The printer loses its cable now and then.
async fn pull_cable(printer: Printer, mut dice: Dice, stop: CancellationToken) {
    loop {
        let pause = Duration::from_secs(4) + dice.pause(10_000);
        if stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
            return;
        }
        let mut printer = printer.lock().await;
        printer.vanish().await;
        tokio::time::sleep(dice.pause(500)).await;
        printer.return_().await;
    }
}
