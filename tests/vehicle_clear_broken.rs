//! Clearing codes, and what breaks in the middle of it: the program is killed (`kill -9`) while
//! the one command is on its way, or just before; the car's bus goes off. Whatever it was, the
//! command reaches the adapter at most once, and what is told of it afterwards is what is known.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "support/daemon.rs"]
mod daemon;
mod vehicle_bay;

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::time::Duration;

use baygate::api::client::{Client, Method};
use baygate::config::tables::Poll;
use baygate::store::requests::RequestState;
use daemon::{Daemon, Desk, LONG};
use serde_json::{Value, json};
use vehicle_bay::clearing::grant;
use vehicle_bay::dongle::{Dongle, Script, good};
use vehicle_bay::{Bay, facts, open_store};

/// What the adapter does with the clearing, and since when.
const ANSWERS: u8 = 0;
/// It says no more: the car works on it.
const SILENT: u8 = 1;
/// Nor to the last look at the engine before it.
const SILENT_BEFORE: u8 = 2;
/// The controller leaves the bus: nothing comes of it or of anything after it.
const BUS_OFF: u8 = 3;

/// A car with a code, engine off, behind an adapter that is told how to take the clearing.
struct Car {
    dongle: Dongle,
    mood: Arc<AtomicU8>,
    cleared: Arc<AtomicUsize>,
    /// Looks at the engine that were not answered.
    looked: Arc<AtomicUsize>,
}

impl Car {
    async fn new() -> Self {
        let (mood, cleared, looked) = <(Arc<AtomicU8>, Arc<AtomicUsize>, Arc<AtomicUsize>)>::default();
        let (acting, counting, looking) = (Arc::clone(&mood), Arc::clone(&cleared), Arc::clone(&looked));
        let off = AtomicU8::new(0);
        let script: Script = Arc::new(move |command| {
            let mood = acting.load(Ordering::SeqCst);
            let is_request = command.starts_with(|c: char| c.is_ascii_digit());
            let said = match (command, mood) {
                ("04", _) => {
                    counting.fetch_add(1, Ordering::SeqCst);
                    match mood {
                        ANSWERS => "7E80144\r\r>",
                        BUS_OFF => {
                            off.store(1, Ordering::SeqCst);
                            "CAN ERROR\r\r>"
                        }
                        _ => "",
                    }
                }
                (_, BUS_OFF) if is_request && off.load(Ordering::SeqCst) == 1 => "CAN ERROR\r\r>",
                // Ignition on, engine off.
                ("010C" | "010C1", SILENT_BEFORE) => {
                    looking.fetch_add(1, Ordering::SeqCst);
                    ""
                }
                ("010C" | "010C1", _) => "7E804410C0000\r\r>",
                ("03", _) if counting.load(Ordering::SeqCst) == 0 => "7E80443010420\r\r>",
                (command, _) => return good(command).into_bytes(),
            };
            said.as_bytes().to_vec()
        });
        Self { dongle: Dongle::echoing_on_tcp(script).await, mood, cleared, looked }
    }

    fn clearings(&self) -> usize {
        self.cleared.load(Ordering::SeqCst)
    }

    /// What it heard on the wire, against what its script counted.
    fn heard_clearings(&self) -> usize {
        self.dongle.heard_text().split('\r').filter(|line| matches!(*line, "04" | "14FFFFFF")).count()
    }
}

async fn until(what: &str, is_so: impl AsyncFn() -> bool) {
    let deadline = tokio::time::Instant::now() + LONG;
    while !is_so().await {
        assert!(tokio::time::Instant::now() < deadline, "waited in vain for {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The real program at the bay, and a person at its control socket.
struct Shop {
    desk: Desk,
    car: Car,
}

impl Shop {
    async fn open() -> Self {
        let (desk, car) = (Desk::new(), Car::new().await);
        desk.write(&format!("[[vehicle]]\nid = \"bay-1\"\nlink = \"{}\"\n", car.dongle.link));
        Self { desk, car }
    }

    async fn get(&self, path: &str) -> Option<Value> {
        let client = Client::connect(self.desk.path("control.sock")).await.ok()?;
        client.request(Method::GET, path, None).await.ok()?.accepted().ok()
    }

    /// Asks for a clearing and has Li say yes to it; the clearing's id. The answer is not waited for.
    async fn confirmed(&self) -> String {
        until("a report", async || {
            let asked = Client::connect(self.desk.path("control.sock")).await;
            let Ok(client) = asked else { return false };
            let scan = client.request(Method::POST, "/v1/vehicles/bay-1/scan", Some(&json!({}))).await;
            scan.is_ok_and(|reply| reply.status == 200)
        })
        .await;
        let client = Client::connect(self.desk.path("control.sock")).await.unwrap();
        let asked = client.request(Method::POST, "/v1/vehicles/bay-1/clear-dtcs", Some(&json!({}))).await;
        let asked = asked.unwrap().accepted().unwrap();
        assert_eq!(asked["codes"], json!(["P0420"]), "{asked}");
        let id = asked["id"].as_str().unwrap().to_owned();
        let path = format!("/v1/confirmations/{id}");
        tokio::spawn(async move {
            let word = json!({"confirm": true, "operator": "Li"});
            client.request(Method::POST, &path, Some(&word)).await
        });
        id
    }

    /// What came of it, as whoever asked is told.
    async fn settled(&self, id: &str) -> Value {
        let path = format!("/v1/requests/{id}");
        let is_over = |told: &Value| matches!(told["state"].as_str(), Some("done" | "failed"));
        until("an outcome", async || self.get(&path).await.is_some_and(|told| is_over(&told))).await;
        self.get(&path).await.unwrap()
    }

    /// The facts of the bay on the disk, with nobody at it.
    async fn cleared_events(&self) -> Vec<Value> {
        let store = open_store(&self.desk.path("data"));
        let all = facts(&store, "bay-1").await;
        store.close().await;
        all.into_iter().filter(|(kind, _)| kind == "vehicle.cleared").map(|(_, data)| data).collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_while_the_car_clears() {
    let shop = Shop::open().await;
    let daemon = Daemon::start(&shop.desk.config()).await;
    shop.car.mood.store(SILENT, Ordering::SeqCst);
    let id = shop.confirmed().await;
    until("the clearing at the adapter", async || shop.car.clearings() == 1).await;
    daemon.kill().await;
    shop.car.mood.store(ANSWERS, Ordering::SeqCst);

    let daemon = Daemon::start(&shop.desk.config()).await;
    let told = shop.settled(&id).await;
    assert_eq!(told["state"], "failed", "{told}");
    let outcome = &told["outcome"];
    assert_eq!(
        (&outcome["outcome"], &outcome["code"], &outcome["operator"]),
        (&json!("unknown"), &json!("clear-unknown"), &json!("Li"))
    );
    // Confirmed once, for one command: neither another yes nor another start sends it again.
    let client = Client::connect(shop.desk.path("control.sock")).await.unwrap();
    let word = json!({"confirm": true, "operator": "Li"});
    let again = client.request(Method::POST, &format!("/v1/confirmations/{id}"), Some(&word)).await;
    assert_eq!(again.unwrap().status, 409);
    let scanned = client.request(Method::POST, "/v1/vehicles/bay-1/scan", Some(&json!({}))).await;
    assert_eq!(scanned.unwrap().status, 200, "the car is read as before");
    daemon.kill().await;
    let daemon = Daemon::start(&shop.desk.config()).await;
    assert_eq!(shop.settled(&id).await["outcome"]["code"], "clear-unknown");
    daemon.kill().await;
    assert_eq!((shop.car.clearings(), shop.car.heard_clearings()), (1, 1));
    let events = shop.cleared_events().await;
    assert_eq!(events.len(), 1, "told once: {events:?}");
    assert_eq!((&events[0]["outcome"], &events[0]["codes"]), (&json!("unknown"), &json!(["P0420"])));
}

/// Between the person's yes and the command: what was told, and what was sent, agree.
#[tokio::test(flavor = "multi_thread")]
async fn killed_before_the_command_goes_out() {
    let shop = Shop::open().await;
    let daemon = Daemon::start(&shop.desk.config()).await;
    // Until then the engine is looked at in every scan.
    let id = {
        let id = shop.confirmed().await;
        shop.car.mood.store(SILENT_BEFORE, Ordering::SeqCst);
        id
    };
    until("the last look, or the clearing", async || {
        shop.car.looked.load(Ordering::SeqCst) > 0 || shop.car.clearings() == 1
    })
    .await;
    let sent_before = shop.car.clearings();
    daemon.kill().await;
    shop.car.mood.store(ANSWERS, Ordering::SeqCst);

    let daemon = Daemon::start(&shop.desk.config()).await;
    let told = shop.settled(&id).await;
    daemon.kill().await;
    let events = shop.cleared_events().await;
    let sent = shop.car.heard_clearings();
    assert!(sent <= 1 && sent >= sent_before, "{sent} were sent: {told}");
    assert_eq!(events.len(), sent, "whatever was sent is an event, and nothing else: {told}");
    match told["outcome"]["outcome"].as_str() {
        Some("cleared") => assert_eq!((told["state"].as_str(), sent), (Some("done"), 1)),
        Some(other) => assert_eq!((other, sent), ("unknown", 1), "{told}"),
        None => assert_eq!((told["state"].as_str(), sent), (Some("failed"), 0), "{told}"),
    }
}

/// The controller leaves the bus with the command: what came of it is not known, it is not sent
/// again when the bus is back, and the car is read then.
#[tokio::test(flavor = "multi_thread")]
async fn the_bus_goes_off_with_the_clearing() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_store(dir.path());
    let car = Car::new().await;
    let bay = Bay::start(&store, "bay-1", &car.dongle.link, Poll::OnRequest);
    bay.until_reason(None).await;
    let report = bay.scan().await.outcome.unwrap();
    assert_eq!(report["ecus"][0]["dtcs"][0]["code"], "P0420");
    car.mood.store(BUS_OFF, Ordering::SeqCst);
    let request = grant(&store, &report["visit"], &["P0420"]).await.request;
    let told = bay.nth("vehicle.cleared", 1).await;
    assert_eq!((&told["outcome"], &told["units"]), (&json!("unknown"), &json!([])));
    let row = store.read(move |r| r.request(request)).await.unwrap().unwrap();
    assert_eq!((row.state, &row.outcome.unwrap()["code"]), (RequestState::Failed, &json!("clear-unknown")));
    assert_eq!(bay.scan().await.state, RequestState::Failed, "the bus is off");

    car.mood.store(ANSWERS, Ordering::SeqCst);
    let mut tries = 0;
    let read = loop {
        let row = bay.scan().await;
        if row.state == RequestState::Done {
            break row.outcome.unwrap();
        }
        tries += 1;
        assert!(tries < 50, "the bus is back and nothing is read: {row:?}");
    };
    // Whoever asks is told what the car says now.
    assert_eq!(read["ecus"][0]["dtcs"], json!([]));
    assert_eq!((car.clearings(), bay.count("vehicle.cleared").await), (1, 1));
    bay.stop().await;
}
