//! What waits for the line while the clock jumps: the till sells and cards are tapped with the
//! broker away, the clock jumps ten years ahead, the sweep takes what was delivered long ago by
//! that clock, the clock jumps back. Of what waits nothing is trimmed: headquarters gets each once.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod clock_parts;
mod counter_shop;
#[path = "support/daemon.rs"]
mod daemon;
mod mqtt;
mod port {
    pub use crate::mqtt::free_port;
}

use std::collections::BTreeSet;

use baygate::api::client::{Client, Method};
use baygate::sim::card::{CardSim, Chip, Technology};
use baygate::sim::vehicle::{CarSpec, Profile, VehicleSim};
use clock_parts::{BoxClock, DECADE_S, Headquarters};
use counter_shop::{Shop, blank, credential};
use daemon::Desk;
use mqtt::{LONG, Mosquitto, free_port, until, until_within};
use nix::sys::signal::Signal;
use serde_json::json;

const CARD: &str = "/v1/cards/8800000042/transactions";
/// Rows of the classes ledger and card, delivered or not.
const ROWS: &str = "FROM event e LEFT JOIN delivered d USING (class) WHERE e.class IN (0, 2)";
const DELIVERED: &str = "e.class_sequence <= coalesce(d.class_sequence, 0)";
const WAITING: &str = "e.class_sequence > coalesce(d.class_sequence, 0)";

/// A counter whose clock is set by the test.
struct Counter {
    shop: Shop,
    chip: Option<Chip>,
    sales: u32,
}

impl Counter {
    fn db(&self) -> rusqlite::Connection {
        let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY;
        rusqlite::Connection::open_with_flags(self.shop.desk.path("data/baygate.db"), flags).unwrap()
    }

    fn count(&self, what: &str) -> i64 {
        self.db().query_row(&format!("SELECT count(*) {what}"), [], |row| row.get(0)).unwrap()
    }

    fn delivered(&self) -> i64 {
        self.count(&format!("{ROWS} AND {DELIVERED}"))
    }

    /// The ids of what waits: class and id.
    fn waiting(&self) -> BTreeSet<(i64, String)> {
        let db = self.db();
        let mut query =
            db.prepare(&format!("SELECT e.class, lower(hex(e.id)) {ROWS} AND {WAITING}")).unwrap();
        let rows = query.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
        rows.map(Result::unwrap).collect()
    }

    /// A member comes, pays one fen and goes: rows of both classes.
    async fn sell(&mut self) {
        self.sales += 1;
        let card = self.shop.lay(self.chip.take().unwrap()).await;
        self.shop.member().await;
        let body = json!({ "kind": "spend", "amount_fen": 1 });
        let sold = self.shop.done(CARD, body, &format!("sale-{}", self.sales)).await;
        assert_eq!(sold["outcome"], "committed", "{sold}");
        self.leave(card).await;
    }

    async fn leave(&mut self, card: CardSim) {
        let gone = self.count("FROM event WHERE kind = 'card.removed'");
        self.chip = Some(card.chip());
        card.remove().await;
        until("the card has left", async || {
            (self.count("FROM event WHERE kind = 'card.removed'") > gone).then_some(())
        })
        .await;
    }

    /// Until the log has noted a step of years, forward or back.
    async fn await_step(&self, forward: bool) {
        let offset = if forward { "> 1000000000" } else { "< -1000000000" };
        let noted =
            format!("FROM event WHERE kind = 'gateway.clock' AND json_extract(data, '$.offset_ms') {offset}");
        until("the step of the clock is noted", async || (self.count(&noted) > 0).then_some(())).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_for_the_line_outlives_ten_years_and_the_way_back() {
    let mut broker = Mosquitto::start("").await;
    let mut hq = Headquarters::open(broker.port);
    let (desk, reader) = (Desk::new(), free_port());
    std::fs::create_dir(desk.path("credentials")).unwrap();
    std::fs::write(desk.path("credentials").join("card-keys"), credential()).unwrap();
    let car = VehicleSim::spawn_tcp("127.0.0.1:0".parse().unwrap(), Profile::default()).await.unwrap();
    car.plug(&CarSpec::default()).unwrap();
    let mut clock = BoxClock::new(&desk, 0);
    clock.say_synchronized();
    // Longer than it takes to sell and to set the clock, so that a sweep can be seen.
    desk.write(&format!(
        "[mqtt]\nurl = \"mqtt://127.0.0.1:{}\"\nconfirm = \"headquarters\"\n\
         [buffer.classes]\nledger = {{ keep_delivered = \"25s\" }}\ncard = {{ keep_delivered = \"25s\" }}\n\
         [[reader]]\nid = \"counter-1\"\nkind = \"vpcd\"\nlisten = \"127.0.0.1:{reader}\"\n\
         [[vehicle]]\nid = \"bay-1\"\nlink = \"elm327+tcp://{}\"\n",
        broker.port,
        car.addr().unwrap()
    ));
    let text = std::fs::read_to_string(desk.config()).unwrap();
    let text = text.replacen("locale =", &format!("{}\nlocale =", clock.config()), 1);
    std::fs::write(desk.config(), text).unwrap();
    let mut daemon = clock.start(&desk.config()).await;
    let client = Client::connect(desk.path("control.sock")).await.unwrap();
    let shop = Shop { desk, daemon: None, client, port: reader };
    let mut counter = Counter { shop, chip: None, sales: 0 };

    let card = counter.shop.lay(blank(Technology::Ntag213)).await;
    counter.shop.issue("8800000042", "issue").await;
    let cash = json!([{ "kind": "cash", "amount_fen": 20_000 }]);
    let topup = json!({ "kind": "topup", "amount_fen": 20_000, "tenders": cash });
    counter.shop.done(CARD, topup, "topup").await;
    counter.leave(card).await;
    until("all is delivered", async || counter.waiting().is_empty().then_some(())).await;

    // The line is away; what waits is sold by the right clock …
    broker.kill();
    counter.sell().await;
    counter.sell().await;
    let by_the_right_clock = counter.waiting();
    clock.set(DECADE_S);
    counter.await_step(true).await;
    assert!(counter.delivered() > 0, "swept before the clock jumped: nothing is seen by it");
    // … and ten years later by the wrong one, in which a sweep runs.
    counter.sell().await;
    let by_the_wrong_clock = counter.waiting();
    assert!(by_the_wrong_clock.is_superset(&by_the_right_clock));
    // The rules hold what they have not read: a report lets them move on.
    let scan = counter.shop.client.request(Method::POST, "/v1/vehicles/bay-1/scan", None);
    scan.await.unwrap().accepted().unwrap();
    let swept = async || (counter.delivered() == 0).then_some(());
    until_within(2 * LONG, "the sweep takes what was delivered", swept).await;
    assert!(counter.waiting().is_superset(&by_the_wrong_clock), "trimmed, and never delivered");
    counter.sell().await;
    // Right again: what waits has times ahead of now.
    clock.set(0);
    clock.say_synchronized();
    counter.await_step(false).await;
    counter.sell().await;
    let waiting = counter.waiting();
    assert!(waiting.is_superset(&by_the_wrong_clock), "trimmed, and never delivered");
    for class in [0, 2] {
        assert!(waiting.iter().filter(|(of, _)| *of == class).count() >= 5, "{class}: {waiting:?}");
    }

    broker.up().await;
    // The uplink may be pausing for a minute.
    let delivered = async || counter.waiting().is_empty().then_some(());
    until_within(2 * LONG, "all is delivered", delivered).await;
    daemon.signal(Signal::SIGTERM);
    assert!(daemon.ended().await.success(), "{}", daemon.log());
    hq.gets("gateway.stopping", |_| true).await;
    hq.assert_whole();
    hq.assert_times_can_be_put_right();
    for (class, id) in waiting {
        let of_it = |event: &serde_json::Value| event["id"].as_str().unwrap().replace('-', "") == id;
        assert_eq!(hq.fresh().filter(|(_, event)| of_it(event)).count(), 1, "{class}/{id} at headquarters");
    }
}
