//! A box whose clock starts in 1970, is set, and jumps: the real program under
//! libfaketime, with a real Mosquitto and headquarters. Nothing is lost, doubled,
//! reordered, expired or trimmed for it, and headquarters can put every time right.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod clock_parts;
#[path = "support/daemon.rs"]
mod daemon;
mod mqtt;

use std::path::Path;

use baygate::api::client::{Client, Method};
use baygate::sim::card::{CardProfile, CardSim, Technology};
use baygate::sim::printer::{PrinterProfile, PrinterSim};
use baygate::sim::vehicle::{CarSpec, Profile, VehicleSim};
use clock_parts::{BoxClock, DAY_S, DECADE_S, HOUR_S, Headquarters, millis, rfc3339, unix_s};
use daemon::Desk;
use futures_util::StreamExt as _;
use mqtt::{BASE, Mosquitto, free_port, publish, until};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tokio::sync::watch;
use uuid::Uuid;

const ANY: &str = "127.0.0.1:0";
const VIN: &str = "1M8GDM9AXKP042788";

/// A box at its store: devices, broker, headquarters.
struct Shop {
    desk: Desk,
    clock: BoxClock,
    broker: Mosquitto,
    headquarters: Headquarters,
    car: VehicleSim,
    reader: u16,
    taps: u8,
}

impl Shop {
    async fn open(wrong_by_s: i64) -> Self {
        let broker = Mosquitto::start("").await;
        let headquarters = Headquarters::open(broker.port);
        let car = VehicleSim::spawn_tcp(ANY.parse().unwrap(), Profile::default()).await.unwrap();
        let (desk, reader) = (Desk::new(), free_port());
        let printer = desk.path("card-printer");
        let clock = BoxClock::new(&desk, wrong_by_s);
        // Device rows go after three seconds, so that a sweep can be seen; the others stay for days.
        desk.write(&format!(
            "[mqtt]\nurl = \"mqtt://127.0.0.1:{}\"\nconfirm = \"headquarters\"\n\
             [buffer.classes]\ndevice = {{ keep_delivered = \"3s\" }}\n\
             [[reader]]\nid = \"counter-1\"\nkind = \"vpcd\"\nlisten = \"127.0.0.1:{reader}\"\n\
             [[vehicle]]\nid = \"bay-1\"\nlink = \"elm327+tcp://{}\"\n\
             [[printer]]\nid = \"star-1\"\nkind = \"star-tcp300\"\nlink = \"serial://{}?baud=9600\"\n\
             [[till]]\nid = \"till-1\"\n",
            broker.port,
            car.addr().unwrap(),
            printer.display(),
        ));
        let text = std::fs::read_to_string(desk.config()).unwrap();
        let text = text.replacen("locale =", &format!("{}\nlocale =", clock.config()), 1);
        std::fs::write(desk.config(), text).unwrap();
        Self { desk, clock, broker, headquarters, car, reader, taps: 0 }
    }

    async fn client(&self) -> Client {
        Client::connect(self.desk.path("control.sock")).await.unwrap()
    }

    /// A card that was not there before; taken away once its tap is in the local log.
    async fn tap(&mut self, till: &mut watch::Receiver<Vec<Value>>) -> String {
        self.taps += 1;
        let profile = CardProfile::new(Technology::Ntag213).with_uid(&[4, 1, 2, 3, 4, 5, self.taps]);
        let reader = self.reader;
        let card = until("the reader listens", async || {
            CardSim::tap(("127.0.0.1", reader), profile.clone()).await.ok()
        })
        .await;
        let uid = format!("0401020304 05{:02X}", self.taps).replace(' ', "");
        await_event(till, "card.tapped", |d| d["uid"] == uid.as_str()).await;
        card.remove().await;
        await_event(till, "card.removed", |d| d["uid"] == uid.as_str()).await;
        uid
    }

    async fn command(&self, name: &str, expires_at: Option<String>) -> Uuid {
        let id = Uuid::new_v4();
        self.command_again(id, name, expires_at).await;
        id
    }

    async fn command_again(&self, id: Uuid, name: &str, expires_at: Option<String>) {
        let mut body = json!({"id": id, "args": {"link": "bay-9"}});
        if let Some(at) = expires_at {
            body["expires_at"] = at.into();
        }
        publish(self.broker.port, &format!("{BASE}/command/{name}"), &body.to_string(), false).await;
    }

    async fn outcome(&mut self, name: &str, expires_at: Option<String>) -> String {
        let id = self.command(name, expires_at).await;
        self.headquarters.result_of(id).await["outcome"].as_str().unwrap().to_owned()
    }

    /// Asks for a face; the printer is not there yet.
    async fn queue_face(&self, client: &Client, card_no: &str) -> String {
        let body = json!({"printer": "star-1", "card_no": card_no,
            "fields": {"card_no": card_no, "points": 1, "offer": "保养", "qr": "https://example.com"}});
        let answer = client.request(Method::POST, "/v1/print-jobs", Some(&body)).await.unwrap();
        assert!(answer.status < 300, "{answer:?}");
        answer.body["job"].as_str().unwrap().to_owned()
    }

    fn db(&self) -> rusqlite::Connection {
        let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY;
        rusqlite::Connection::open_with_flags(self.desk.path("data/baygate.db"), flags).unwrap()
    }

    fn count(&self, what: &str) -> i64 {
        self.db().query_row(&format!("SELECT count(*) FROM {what}"), [], |row| row.get(0)).unwrap()
    }

    /// Waits until delivered rows of class `device` up to now are gone: a sweep ran under this
    /// clock. A report in between lets the rules, which hold the rows they have not read, move on.
    async fn await_sweep(&self, client: &Client) {
        let last: i64 = self
            .db()
            .query_row("SELECT max(event_offset) FROM event WHERE class = 5", [], |r| r.get(0))
            .unwrap();
        client.request(Method::POST, "/v1/vehicles/bay-1/scan", None).await.unwrap().accepted().unwrap();
        until("a sweep", async || {
            (self.count(&format!("event WHERE class = 5 AND event_offset <= {last}")) == 0).then_some(())
        })
        .await;
    }

    /// Kills the broker. What counts as delivered, and is still in the log, is on headquarters' disk.
    fn kill_broker(&mut self) {
        self.broker.kill();
        let (db, kept) = (self.db(), self.headquarters.on_disk());
        let sql = "SELECT lower(hex(e.id)) FROM event e JOIN delivered d USING (class)
                   WHERE e.class_sequence <= d.class_sequence";
        let mut rows = db.prepare(sql).unwrap();
        let delivered = rows.query_map([], |row| row.get::<_, String>(0)).unwrap().map(Result::unwrap);
        let delivered: Vec<String> = delivered.collect();
        assert!(!delivered.is_empty());
        for id in delivered {
            assert!(
                kept.iter().any(|kept| kept.replace('-', "") == id),
                "{id} counts as delivered and is not kept"
            );
        }
    }

    /// Waits until headquarters has confirmed everything.
    async fn await_delivered(&self) {
        until("everything is delivered", async || {
            let open = "class_counter c LEFT JOIN delivered d USING (class)
                        WHERE c.last_sequence > coalesce(d.class_sequence, 0)";
            (self.count(open) == 0).then_some(())
        })
        .await;
    }
}

/// A till's stream over all of the run: every event, in order.
async fn follow(socket: &Path) -> watch::Receiver<Vec<Value>> {
    let client = Client::connect(socket).await.unwrap();
    let stream = client.events("after=00000000-0000-0000-0000-000000000000/0").await.unwrap();
    let (told, till) = watch::channel(Vec::new());
    tokio::spawn(async move {
        let mut stream = std::pin::pin!(stream);
        while let Some(Ok(event)) = stream.next().await {
            if let Ok(fact) = serde_json::from_str::<Value>(&event.data)
                && fact["sequence"].is_string()
            {
                told.send_modify(|seen| seen.push(fact));
            }
        }
    });
    till
}

async fn await_event(
    till: &mut watch::Receiver<Vec<Value>>,
    kind: &str,
    fits: impl Fn(&Value) -> bool,
) -> Value {
    let kind = format!("baygate.{kind}");
    let is_it = |fact: &&Value| fact["type"] == kind.as_str() && fits(&fact["data"]);
    let seen = tokio::time::timeout(daemon::LONG, till.wait_for(|seen| seen.iter().any(|f| is_it(&f)))).await;
    let seen = seen.unwrap_or_else(|_| panic!("{kind} is not in the stream")).unwrap();
    seen.iter().find(is_it).unwrap().clone()
}

fn stay_s(departed: &Value) -> u64 {
    departed["data"]["duration_s"].as_u64().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn from_1970_forward_back_and_ten_years_ahead() {
    let since_1970 = unix_s() - 60;
    let mut shop = Shop::open(-since_1970).await;
    let mut daemon = shop.clock.start(&shop.desk.config()).await;
    let client = shop.client().await;
    let mut till = follow(&shop.desk.path("control.sock")).await;

    // 1970. Facts flow; nothing expires, because nobody knows the time; a till is paired.
    let started = shop.headquarters.gets("gateway.started", |_| true).await;
    assert!(started["time"].as_str().unwrap().starts_with("1970-01-01T00:0"), "{started}");
    assert_eq!(started["timequality"], "unsynced");
    shop.tap(&mut till).await;
    shop.car.plug(&CarSpec::default()).unwrap();
    let first_visit = shop.headquarters.gets("vehicle.report", |_| true).await["data"]["visit"].clone();
    let (now, in_1970) = (unix_s(), Some(rfc3339(1)));
    for (name, expires_at, outcome) in [
        ("ping", None, "done"),
        ("ping", Some(rfc3339(now + HOUR_S)), "done"),
        ("ping", in_1970.clone(), "done"),
        ("no.such.command", Some(rfc3339(now + HOUR_S)), "refused"),
    ] {
        assert_eq!(shop.outcome(name, expires_at.clone()).await, outcome, "{name} until {expires_at:?}");
    }
    // Nobody serves this link: it is given up after five minutes, whatever the date says.
    let patient = shop.command("vehicle.scan", None).await;
    let pairing = json!({"till": "till-1", "scopes": ["read"]});
    let pairing =
        client.request(Method::POST, "/v1/pairings", Some(&pairing)).await.unwrap().accepted().unwrap();
    let scan = || client.request_with_key(Method::POST, "/v1/vehicles/bay-1/scan", None, Some("scan-1"));
    let scanned = scan().await.unwrap().accepted().unwrap();
    assert_eq!(scanned["vin"], VIN);

    // The time service sets the clock and says so.
    shop.clock.set(0);
    shop.clock.say_synchronized();
    // Perhaps before the watch has seen it: this tap has the new time already.
    shop.tap(&mut till).await;
    let set = shop.headquarters.correction(since_1970).await;
    assert_eq!(set["data"]["from_sequence"], 1);
    assert_eq!(set["timequality"], "synced");
    let to = set["data"]["to_sequence"].as_u64().unwrap();
    for (_, event) in shop.headquarters.fresh() {
        let before = event["sequence"].as_str().unwrap().parse::<u64>().unwrap() <= to;
        assert_eq!(before, millis(event) < DAY_S * 1000, "{event}");
        assert_eq!(before, event["timequality"] == "unsynced", "{event}");
    }
    let cars = client.request(Method::GET, "/v1/vehicles", None).await.unwrap().body;
    let began = cars["vehicles"][0]["visit"]["started_at"].as_str().unwrap().to_owned();
    let began_s = baygate::clock::UtcMillis::parse(&began).unwrap().0 / 1000;
    assert!((unix_s() - 300..=unix_s()).contains(&began_s), "the visit began at {began}");
    shop.tap(&mut till).await;
    assert_eq!(shop.outcome("ping", Some(rfc3339(unix_s() - HOUR_S))).await, "expired");
    assert_eq!(shop.outcome("ping", Some(rfc3339(unix_s() + HOUR_S))).await, "done");
    let open = "request WHERE kind = 'command.vehicle.scan' AND settled_at IS NULL";
    assert_eq!(shop.count(open), 1, "the patient command {patient} was given up");
    let first_face = shop.queue_face(&client, "8800001").await;

    // Somebody sets it back by a day, while the broker is away: the wait for it goes on by
    // the monotonic clock, and the clock is not believed any more.
    shop.await_delivered().await;
    shop.kill_broker();
    until("the uplink waits for the broker", async || {
        let ready = client.request(Method::GET, "/readyz", None).await.ok()?;
        ready.body.to_string().contains("\"uplink\"").then_some(())
    })
    .await;
    shop.clock.set(-DAY_S);
    let back = await_event(&mut till, "gateway.clock", |d| d["offset_ms"].as_i64().unwrap() < 0).await;
    assert_eq!(back["timequality"], "unsynced");
    shop.tap(&mut till).await;
    shop.broker.up().await;
    shop.headquarters.correction(-DAY_S).await;
    assert_eq!(shop.outcome("ping", Some(rfc3339(unix_s() - 2 * DAY_S))).await, "done");
    let second_face = shop.queue_face(&client, "8800002").await;
    shop.car.unplug();
    let left = shop.headquarters.gets("vehicle.departed", |d| d["visit"] == first_visit).await;
    assert!(stay_s(&left) < 600, "{left}");
    shop.car.plug(&CarSpec::default()).unwrap();
    let again = shop.headquarters.gets("vehicle.report", |d| d["visit"] != first_visit).await;
    let car = client.request(Method::GET, &format!("/v1/vehicles/{VIN}"), None).await.unwrap().body;
    assert_eq!(car["visits"][0]["visit"], again["data"]["visit"], "the newest visit is first: {car}");

    // Ten years ahead, as with a dead battery: nothing grows old by that.
    let kept =
        ["event WHERE class IN (1, 2, 3)", "request WHERE idempotency_key IS NOT NULL", "visit", "command"];
    let before = kept.map(|table| shop.count(table));
    shop.clock.set(DECADE_S);
    shop.headquarters.correction(DECADE_S + DAY_S).await;
    let third_face = shop.queue_face(&client, "8800003").await;
    shop.await_delivered().await;
    shop.await_sweep(&client).await;
    for (table, before) in kept.into_iter().zip(before) {
        assert!(shop.count(table) >= before, "{table}: {before} before");
    }
    assert_eq!(scan().await.unwrap().accepted().unwrap(), scanned, "the key finds its request");
    let redeem = json!({"code": pairing["code"]});
    let redeemed = client.request(Method::POST, "/v1/pairings/redeem", Some(&redeem)).await.unwrap();
    assert_eq!(redeemed.status, 200, "a code is good for 120 s, whatever the date: {redeemed:?}");
    shop.kill_broker();
    let unsent = shop.tap(&mut till).await;

    // Right again.
    shop.clock.set(0);
    shop.clock.say_synchronized();
    let right =
        await_event(&mut till, "gateway.clock", |d| d["offset_ms"].as_i64().unwrap() < -2 * DAY_S * 1000)
            .await;
    assert_eq!(right["timequality"], "synced");
    // What waits for the broker now has times that run backwards.
    shop.tap(&mut till).await;
    shop.broker.up().await;
    shop.headquarters.correction(-DECADE_S).await;
    shop.headquarters.gets("card.tapped", |d| d["uid"] == unsent.as_str()).await;
    assert_eq!(scan().await.unwrap().accepted().unwrap(), scanned, "the key finds its request");
    assert_eq!(shop.count(open), 1, "the patient command {patient} was given up");
    shop.car.unplug();
    let left = shop.headquarters.gets("vehicle.departed", |d| d["visit"] == again["data"]["visit"]).await;
    assert!(stay_s(&left) < 600, "{left}");

    // The printer is carried in at last: faces come in the order in which they were asked for.
    let clerk = PrinterProfile { attended: true, ..PrinterProfile::default() };
    let at = Some(shop.desk.path("card-printer"));
    let _printer = PrinterSim::spawn_pty(clerk, at).await.unwrap();
    for job in [&first_face, &second_face, &third_face] {
        shop.headquarters.gets("printer.job", |d| d["job"] == job.as_str() && d["state"] == "done").await;
    }
    let done: Vec<&Value> = shop
        .headquarters
        .fresh()
        .map(|(_, event)| &event["data"])
        .filter(|d| d["state"] == "done" && d["job"].is_string())
        .map(|d| &d["job"])
        .collect();
    assert_eq!(done, [&first_face, &second_face, &third_face]);

    daemon.signal(Signal::SIGTERM);
    assert!(daemon.ended().await.success(), "{}", daemon.log());
    shop.headquarters.gets("gateway.stopping", |_| true).await;
    shop.headquarters.assert_whole();
    shop.headquarters.assert_times_can_be_put_right();
    // The till saw the same, in the order of the log.
    let seen: Vec<u64> =
        till.borrow().iter().map(|fact| fact["sequence"].as_str().unwrap().parse().unwrap()).collect();
    assert!(seen.len() > 50 && seen.iter().zip(1..).all(|(sequence, n)| *sequence == n), "{seen:?}");
    // No wait was cut short by a jump: nothing was sent twice.
    assert_eq!(shop.headquarters.seen.len(), shop.headquarters.fresh().count());
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_and_started_again_while_nobody_knows_the_time() {
    let since_1970 = unix_s() - 3 * HOUR_S;
    let mut shop = Shop::open(-since_1970).await;
    let daemon = shop.clock.start(&shop.desk.config()).await;
    let mut till = follow(&shop.desk.path("control.sock")).await;
    shop.tap(&mut till).await;
    shop.car.plug(&CarSpec::default()).unwrap();
    let visit = shop.headquarters.gets("vehicle.report", |_| true).await["data"]["visit"].clone();
    let command = shop.command("ping", None).await;
    shop.headquarters.result_of(command).await;
    daemon.kill().await;

    let daemon = shop.clock.start(&shop.desk.config()).await;
    let mut till = follow(&shop.desk.path("control.sock")).await;
    shop.tap(&mut till).await;
    // Killed with the last tap perhaps not sent, and the clock set while it is down.
    daemon.kill().await;
    let last = shop.count("event") as u64;
    shop.clock.set(0);
    shop.clock.say_synchronized();

    let mut daemon = shop.clock.start(&shop.desk.config()).await;
    let mut till = follow(&shop.desk.path("control.sock")).await;
    let set = shop.headquarters.correction(since_1970).await;
    assert_eq!(set["data"]["from_sequence"], 1, "both runs of the boot are covered");
    assert!(set["data"]["to_sequence"].as_u64().unwrap() >= last, "{set}");
    shop.tap(&mut till).await;
    // The same command again, also now that the time is another, acts no second time.
    shop.command_again(command, "ping", None).await;
    assert_eq!(shop.outcome("ping", None).await, "done");
    let results = shop.headquarters.fresh().filter(|(_, e)| e["data"]["command_id"] == command.to_string());
    assert_eq!(results.count(), 1);
    shop.car.unplug();
    let left = shop.headquarters.gets("vehicle.departed", |d| d["visit"] == visit).await;
    assert!(stay_s(&left) < 600, "{left}");

    daemon.signal(Signal::SIGTERM);
    assert!(daemon.ended().await.success(), "{}", daemon.log());
    shop.headquarters.gets("gateway.stopping", |_| true).await;
    shop.headquarters.assert_whole();
    shop.headquarters.assert_times_can_be_put_right();
}
