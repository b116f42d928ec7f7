//! A store's day, faster: cards, faces, cars, tills, headquarters, outages.
//!
//! | a normal store | an hour | at 100× |
//! |---|---|---|
//! | cards tapped at the counter | 36 | 1 a second |
//! | card faces printed (nine of ten as a picture, one on the card printer) | 12 | 1 in 3 s |
//! | sales and top-ups with members' cards, each with its key | 12 | 1 in 3 s |
//! | cars at four bays: arrive, are reported, warned about, leave | 3.6 | 1 in 10 s |
//! | scans asked by tills, every third with an idempotency key | 3.6 | 1 in 10 s |
//! | commands of headquarters (`ping`, `vehicle.scan`) | 3.6 | 1 in 10 s |
//! | tills that connect to the event stream anew | 7.2 | 1 in 5 s |
//! | looks at readers, cars, metrics | 36 each | 1 a second |
//! | failures of the broker, reloads of the configuration | 0.2 each | 1 in 3 min |
//! | telemetry windows (a car that stays connected gives one in 10 s) | 108 | 3 a second, from the bays and 24 cars that stay |
//!
//! Each kind has to come to four fifths of its number, or the run proves nothing.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use baygate::api::client::{Client, Method};
use baygate::sim::card::{CardProfile, CardSim, Chip, Technology};
use baygate::sim::vehicle::{CarSpec, Profile, VehicleSim};
use futures_util::StreamExt as _;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::dice::Dice;
use crate::till_reader::{Laid, Place, READER, blank};

/// Members' cards, of four kinds.
const MEMBERS: u8 = 4;

/// Everything that was done, to be compared with what came in.
#[derive(Debug, Default)]
pub struct Done {
    pub taps: AtomicU64,
    pub sales: AtomicU64,
    pub faces: AtomicU64,
    pub cars: AtomicU64,
    pub scans: AtomicU64,
    /// Scans that are kept for their keys.
    pub reports: AtomicU64,
    pub looks: AtomicU64,
    pub commands: AtomicU64,
    pub streams: AtomicU64,
    pub outages: AtomicU64,
    pub reloads: AtomicU64,
}

fn count(counter: &AtomicU64) -> u64 {
    counter.fetch_add(1, Ordering::Relaxed)
}

/// How often things happen.
#[derive(Debug, Clone, Copy)]
pub struct Rates {
    pub rate: f64,
}

/// What a normal store does an hour: the table above.
pub mod an_hour {
    pub const TAPS: f64 = 36.0;
    pub const SALES: f64 = 12.0;
    pub const FACES: f64 = 12.0;
    pub const CARS: f64 = 3.6;
    pub const LOOKS: f64 = 36.0;
    /// One look in ten.
    pub const SCANS: f64 = LOOKS / 10.0;
    pub const COMMANDS: f64 = 3.6;
    pub const STREAMS: f64 = 7.2;
    pub const OUTAGES: f64 = 0.2;
}

impl Rates {
    /// From one to the next of what happens so often an hour in a normal store.
    pub fn every(self, an_hour: f64) -> Duration {
        Duration::from_secs_f64(3600.0 / (an_hour * self.rate))
    }
}

/// The local event stream as a till sees it, for the whole run.
#[derive(Debug, Clone, Default)]
pub struct Till {
    pub events: u64,
    pub last_sequence: u64,
    pub last_uid: String,
    pub wrong: Vec<String>,
}

/// What the loads share.
#[derive(Clone)]
pub struct Shop {
    pub client: Arc<Client>,
    pub rates: Rates,
    pub done: Arc<Done>,
    pub stop: CancellationToken,
    pub dice: Arc<Mutex<Dice>>,
}

impl Shop {
    pub fn random(&self) -> u64 {
        self.dice.lock().unwrap().number()
    }

    /// Turns of what happens so often an hour in a normal store.
    pub fn turns(&self, an_hour: f64) -> Turns {
        self.turns_every(self.rates.every(an_hour))
    }

    fn turns_every(&self, every: Duration) -> Turns {
        Turns { shop: self.clone(), every, began: Instant::now(), taken: 0 }
    }

    async fn ask(&self, method: Method, path: &str, body: Option<&Value>, key: Option<&str>) -> Option<u16> {
        // A reload may close the socket for a moment.
        self.client.request_with_key(method, path, body, key).await.ok().map(|answer| answer.status)
    }
}

/// Turns that keep their rate: each comes somewhat early or late, and what took long or came late
/// moves no other.
pub struct Turns {
    shop: Shop,
    every: Duration,
    began: Instant,
    taken: u32,
}

impl Turns {
    /// Waits for the next; false: it is over.
    pub async fn next(&mut self) -> bool {
        let share = 25 + u32::try_from(self.shop.random() % 50).unwrap();
        let due = self.began + self.every * self.taken + self.every * share / 100;
        self.taken += 1;
        tokio::select! {
            biased;
            () = self.shop.stop.cancelled() => false,
            () = tokio::time::sleep_until(due) => true,
        }
    }
}

/// Follows the stream, resuming where it was cut, and checks that nothing is left out.
pub fn watch_stream(shop: &Shop) -> watch::Receiver<Till> {
    let (told, till) = watch::channel(Till::default());
    let shop = shop.clone();
    tokio::spawn(async move {
        let mut resume = String::new();
        loop {
            let Ok(stream) = shop.client.events(&resume).await else {
                tokio::time::sleep(Duration::from_millis(200)).await;
                continue;
            };
            let mut stream = std::pin::pin!(stream);
            while let Some(Ok(event)) = stream.next().await {
                if event.event == "reset" {
                    told.send_modify(|till| till.wrong.push(format!("reset: {}", event.data)));
                }
                let Some(id) = &event.id else { continue };
                resume = format!("after={id}");
                let Ok(fact) = serde_json::from_str::<Value>(&event.data) else { continue };
                let Some(sequence) = fact["sequence"].as_str().and_then(|text| text.parse::<u64>().ok())
                else {
                    continue;
                };
                told.send_modify(|till| {
                    if till.last_sequence > 0 && sequence != till.last_sequence + 1 {
                        till.wrong.push(format!("{} after {}", sequence, till.last_sequence));
                    }
                    till.events += 1;
                    till.last_sequence = sequence;
                    if fact["type"] == "baygate.card.tapped" {
                        till.last_uid = fact["data"]["uid"].as_str().unwrap_or_default().to_owned();
                    }
                });
            }
        }
    });
    till
}

/// Cards at the counter: each is seen before it is taken away.
pub async fn cards(shop: Shop, reader: u16, mut till: watch::Receiver<Till>) {
    let mut turns = shop.turns(an_hour::TAPS);
    while turns.next().await {
        let number = shop.random().to_be_bytes();
        let uid = [0xE0, 4, number[1], number[2], number[3], number[4], number[5], number[6]];
        // A number and no more: a card that could be a member's and is empty is refused.
        let profile = CardProfile::new(Technology::Icode).with_uid(&uid);
        // The reader may just be restarting with a new configuration.
        let Ok(card) = CardSim::tap(("127.0.0.1", reader), profile).await else { continue };
        let uid: String = uid.iter().map(|byte| format!("{byte:02X}")).collect();
        let seen = till.wait_for(|till| till.last_uid == uid);
        if tokio::time::timeout(Duration::from_secs(20), seen).await.is_ok_and(|seen| seen.is_ok()) {
            count(&shop.done.taps);
        }
        card.remove().await;
    }
}

/// A member's card when the day is over, and what its reader read.
pub struct Member {
    pub card_no: String,
    pub shows: Value,
}

/// Members who are topped up and pay, in turn; their cards are given out first, and read at the end.
pub async fn sales(shop: Shop, place: Arc<Place>) -> Vec<Member> {
    let mut drawer: Vec<(String, Chip)> = Vec::new();
    for number in 1..=MEMBERS {
        let card_no = format!("8800000{number:03}");
        let body = json!({ "reader": READER, "card_no": card_no, "type": "named" });
        let laid = Laid::lay(&place, blank(number)).await;
        let (laid, answer) = laid.settle("/v1/cards", &body, &format!("issue-{number}")).await;
        assert_eq!(answer.status, 201, "{answer:?}");
        drawer.push((card_no, laid.take().await));
    }
    let mut turns = shop.turns(an_hour::SALES);
    while turns.next().await {
        let number = count(&shop.done.sales);
        let turn = usize::try_from(number).unwrap() % drawer.len();
        let (card_no, chip) = &mut drawer[turn];
        // A card is topped up each third time it comes, by more than it spends in between.
        let body = match number / u64::from(MEMBERS) % 3 {
            0 => json!({ "reader": READER, "kind": "topup", "amount_fen": 700,
                "tenders": [{ "kind": "cash", "amount_fen": 700 }] }),
            _ => json!({ "reader": READER, "kind": "spend", "amount_fen": 100 + number % 200 }),
        };
        let laid = Laid::lay(&place, chip.clone()).await;
        let path = format!("/v1/cards/{card_no}/transactions");
        let (laid, answer) = laid.settle(&path, &body, &format!("sale-{number}")).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        *chip = laid.take().await;
    }
    let mut members = Vec::new();
    for (card_no, chip) in drawer {
        let mut laid = Laid::lay(&place, chip).await;
        let shows = laid.shown().await["member"].clone();
        laid.take().await;
        members.push(Member { card_no, shows });
    }
    members
}

/// Faces for members.
pub async fn faces(shop: Shop) {
    let mut turns = shop.turns(an_hour::FACES);
    while turns.next().await {
        let number = shop.done.faces.load(Ordering::Relaxed);
        let printer = if number % 10 == 9 { "star-1" } else { "face-1" };
        let body = json!({"printer": printer, "card_no": format!("88{number:05}"),
            "fields": {"card_no": format!("88{number:05}"), "points": number, "offer": "下次保养工时八折",
                       "qr": format!("https://example.com/m/{number}")}});
        if shop
            .ask(Method::POST, "/v1/print-jobs", Some(&body), None)
            .await
            .is_some_and(|status| status < 300)
        {
            count(&shop.done.faces);
        }
    }
}

/// One bay: cars come, stay for some time and leave.
pub async fn bay(shop: Shop, sim: Arc<VehicleSim>, bays: u32) {
    let mut turns = shop.turns_every(shop.rates.every(an_hour::CARS) * bays / 2);
    while turns.next().await {
        let mut car = CarSpec { vin: Some(vin(shop.random())), ..CarSpec::default() };
        if shop.random().is_multiple_of(3) {
            car.confirmed = vec!["P0420".parse().unwrap()];
        }
        if sim.plug(&car).is_ok() {
            count(&shop.done.cars);
        }
        let stays = turns.next().await;
        sim.unplug();
        if !stays {
            return;
        }
    }
}

/// A VIN with its check digit (49 CFR 565), so that every car is another one.
fn vin(random: u64) -> String {
    const LETTERS: &[u8] = b"ABCDEFGHJKLMNPRSTUVWXYZ0123456789";
    let value = |c: u8| -> u64 {
        match c {
            b'0'..=b'9' => u64::from(c - b'0'),
            b'A'..=b'H' => u64::from(c - b'A') + 1,
            b'J'..=b'N' => u64::from(c - b'J') + 1,
            b'P' => 7,
            b'R' => 9,
            _ => u64::from(c - b'S') + 2,
        }
    };
    let mut vin: Vec<u8> = b"1M8GDM9A0".to_vec();
    let mut rest = random;
    for _ in 0..8 {
        vin.push(LETTERS[usize::try_from(rest % 33).unwrap()]);
        rest /= 33;
    }
    let weights = [8, 7, 6, 5, 4, 3, 2, 10, 0, 9, 8, 7, 6, 5, 4, 3, 2];
    let sum: u64 = vin.iter().zip(weights).map(|(c, weight)| value(*c) * weight).sum();
    vin[8] = b"0123456789X"[usize::try_from(sum % 11).unwrap()];
    String::from_utf8(vin).unwrap()
}

/// A car that stays connected.
pub async fn standing() -> VehicleSim {
    let any = "127.0.0.1:0".parse().unwrap();
    let sim = VehicleSim::spawn_tcp(any, Profile::default()).await.unwrap();
    sim.plug(&CarSpec::default()).unwrap();
    sim
}

/// Tills and consoles.
pub async fn tills(shop: Shop, bays: u32, port: u16) {
    let agent = ureq::Agent::new_with_defaults();
    let mut turns = shop.turns(an_hour::LOOKS);
    while turns.next().await {
        for path in ["/v1/readers", "/v1/vehicles"] {
            shop.ask(Method::GET, path, None, None).await;
        }
        let agent = agent.clone();
        let looked = tokio::task::spawn_blocking(move || {
            for path in ["metrics", "readyz", "healthz"] {
                let _ = agent.get(format!("http://127.0.0.1:{port}/{path}")).call();
            }
        });
        looked.await.unwrap();
        if count(&shop.done.looks).is_multiple_of(10) {
            let number = count(&shop.done.scans);
            let bay = number % u64::from(bays) + 1;
            let key = number.is_multiple_of(3).then(|| format!("scan-{number}"));
            let asking = shop.clone();
            // It may wait for its outcome up to ten seconds.
            tokio::spawn(async move {
                let path = format!("/v1/vehicles/bay-{bay}/scan");
                asking.ask(Method::POST, &path, None, key.as_deref()).await;
                if key.is_some() {
                    count(&asking.done.reports);
                }
            });
        }
    }
}

/// Streams that come and go.
pub async fn streams(shop: Shop) {
    let mut turns = shop.turns(an_hour::STREAMS);
    while turns.next().await {
        if let Ok(stream) = shop.client.events("class=card,vehicle,device,telemetry").await {
            let mut stream = std::pin::pin!(stream);
            for _ in 0..3 {
                let _ = tokio::time::timeout(Duration::from_secs(2), stream.next()).await;
            }
            count(&shop.done.streams);
        }
    }
}

/// Commands of headquarters; while the broker is away none gets through.
pub async fn commands(shop: Shop, port: u16, base: &'static str) {
    let mut turns = shop.turns(an_hour::COMMANDS);
    while turns.next().await {
        let number = shop.done.commands.load(Ordering::Relaxed);
        let (name, args) = if number.is_multiple_of(2) {
            ("ping", json!({}))
        } else {
            ("vehicle.scan", json!({"link": format!("still-{}", number % 8 + 1)}))
        };
        let body = json!({"id": uuid::Uuid::now_v7(), "args": args}).to_string();
        let topic = format!("{base}/command/{name}");
        let sent = tokio::process::Command::new("mosquitto_pub")
            .args(["-h", "127.0.0.1", "-p", &port.to_string(), "-q", "1", "-t", &topic, "-m", &body])
            .stderr(std::process::Stdio::null())
            .status()
            .await;
        if sent.is_ok_and(|status| status.success()) {
            count(&shop.done.commands);
        }
    }
}
