//! Cards that are stopped, at the real program: reported lost over the control socket, on the list
//! that headquarters sends, of a store whose cards are not taken. Each is refused at its next tap
//! although its own record says active, nothing is written to it, and a kill forgets none of it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "support/daemon.rs"]
mod daemon;
#[path = "support/headquarters.rs"]
mod headquarters;
mod mqtt;

use std::path::Path;

use baygate::api::client::{Client, Method};
use baygate::card::keys::credential;
use baygate::card::medium::format_commands;
use baygate::card::record::{Coupon, MemberRecord};
use baygate::event::Source;
use baygate::event::card::{MemberStatus, Technology};
use baygate::event::ledger::CardType;
use baygate::money::{Fen, Holding};
use baygate::protocols::Bundle;
use baygate::sim::card::{CardProfile, CardSim, Chip, Technology as Sim};
use baygate::sim::headquarters::Verdict;
use baygate::store::ledger_cards::{SeenCard, seen};
use baygate::store::{Batch, Store, StoreOptions};
use daemon::{Daemon, Desk};
use headquarters::Headquarters;
use mqtt::{BASE, Listener, Mosquitto, free_port, publish, until};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use uuid::Uuid;

const STORE: &str = "SH-0042";
const CARD_NO: &str = "8800000042";

fn credential() -> String {
    let keys = ["record", "debit", "credit", "manage", "sun"];
    let lines = (1_u8..).zip(keys).map(|(place, purpose)| {
        let key: [u8; 16] =
            std::array::from_fn(|i| (i as u8).wrapping_mul(73).wrapping_add(place * 41) ^ 0x5A);
        format!("1 {purpose} {}\n", hex::encode(key))
    });
    format!("store {STORE}\ncurrent 1\n{}", lines.collect::<String>())
}

fn record() -> MemberRecord {
    MemberRecord {
        card_no: CARD_NO.parse().unwrap(),
        member_type: CardType::Named,
        status: MemberStatus::Active,
        issuing_store: STORE.parse().unwrap(),
        tier: 0,
        discount_class: 0,
        valid_until: None,
        principal_fen: 50_000,
        bonus_fen: 2_500,
        points: 300,
        coupons: [Coupon::default(); 4],
        counter: 12,
        last: None,
        key_version: 1,
    }
}

fn chip() -> Chip {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("firmware-protocols");
    let layouts = Bundle::load(&folder).unwrap().cards;
    let layout = layouts.iter().find(|layout| layout.technologies.contains(&Technology::Ntag215)).unwrap();
    let mut profile = CardProfile::new(Sim::Ntag215);
    profile.direct_transmit = true;
    let uid = hex::encode_upper(&profile.uid).parse().unwrap();
    let keys = credential::parse(credential().as_bytes(), &STORE.parse().unwrap()).unwrap();
    let mut chip = Chip::new(profile);
    for command in format_commands(Technology::Ntag215, layout, &uid, &record(), &keys).unwrap() {
        assert_eq!(chip.apdu(&command.to_bytes()), [0x90, 0x00]);
    }
    chip.reset();
    chip
}

/// The card was here before.
async fn seen_before(data: &Path, chip: &Chip) {
    std::fs::create_dir_all(data).unwrap();
    let source = Source { store: STORE.parse().unwrap(), gateway: "gw-1".parse().unwrap() };
    let machine_id = std::fs::read_to_string("/etc/machine-id").ok().map(|id| id.trim().to_owned());
    let options = StoreOptions {
        data_dir: data.to_owned(),
        source,
        machine_id,
        max_bytes: 1 << 30,
        limits: Vec::new(),
    };
    let (store, _) = Store::open(&options).unwrap();
    let holding = Holding {
        principal_fen: Fen(50_000),
        bonus_fen: Fen(2_500),
        points: 300,
        coupons: vec![],
        counter: 12,
    };
    let card = SeenCard {
        card_no: CARD_NO.parse().unwrap(),
        uid: hex::encode_upper(&chip.profile().uid).parse().unwrap(),
        technology: Technology::Ntag215,
        card_type: CardType::Named,
        issuing_store: STORE.parse().unwrap(),
        valid_until: None,
        holding,
    };
    store.commit(Batch::new().op(seen(card))).await.unwrap();
    store.close().await;
}

/// A daemon with a reader, a broker and headquarters.
struct Counter {
    desk: Desk,
    mosquitto: Mosquitto,
    hq: Headquarters,
    reader: u16,
    chip: Chip,
}

impl Counter {
    async fn set_up(purse: &str) -> Self {
        let mosquitto = Mosquitto::start("").await;
        let hq = Headquarters::open(mosquitto.port);
        let (desk, reader, chip) = (Desk::new(), free_port(), chip());
        let folder = desk.path("credentials");
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join("card-keys"), credential()).unwrap();
        seen_before(&desk.path("data"), &chip).await;
        let counter = Self { desk, mosquitto, hq, reader, chip };
        counter.configure(purse);
        counter
    }

    fn configure(&self, purse: &str) {
        self.desk.write(&format!(
            "[mqtt]\nurl = \"mqtt://127.0.0.1:{}\"\n\n[purse]\n{purse}\n\n\
             [[reader]]\nid = \"counter-1\"\nkind = \"vpcd\"\nlisten = \"127.0.0.1:{}\"\n",
            self.mosquitto.port, self.reader
        ));
        let text = std::fs::read_to_string(self.desk.config()).unwrap();
        let synced = format!("time_sync_file = {:?}\n[api]", self.synced().display().to_string());
        std::fs::write(self.desk.config(), text.replacen("[api]", &synced, 1)).unwrap();
    }

    fn synced(&self) -> std::path::PathBuf {
        self.desk.path("synchronized")
    }

    /// Starts; when this returns, headquarters' commands reach it.
    async fn start(&mut self) -> (Daemon, Client) {
        let mut daemon = Daemon::spawn_with(&self.desk.config(), |command| {
            command.env("CREDENTIALS_DIRECTORY", self.desk.path("credentials"));
        });
        daemon.says("baygate is running").await;
        self.hears(&["gateway.started"]).await;
        let client = Client::connect(self.desk.path("control.sock")).await.unwrap();
        (daemon, client)
    }

    /// What headquarters hears of that type next.
    async fn hears(&mut self, kinds: &[&str]) -> Value {
        loop {
            let received = self.hq.hears(kinds[0]).await;
            if received.verdict != Verdict::Fresh {
                continue;
            }
            let heard = received.event;
            let kind = heard["type"].as_str().unwrap().trim_start_matches("baygate.").to_owned();
            if kinds.contains(&kind.as_str()) {
                return heard;
            }
        }
    }

    /// Taps the card: `tapped`, or why it is refused. Nothing is written to it.
    async fn tap(&mut self) -> String {
        let (reader, chip) = (self.reader, self.chip.clone());
        let card = until("the reader listens", async || {
            CardSim::present(("127.0.0.1", reader), chip.clone()).await.ok()
        })
        .await;
        let told = self.hears(&["card.tapped", "card.refused"]).await;
        assert_eq!(card.writes(), 0, "{told}");
        card.remove().await;
        self.hears(&["card.removed"]).await;
        if told["type"] == "baygate.card.tapped" {
            assert_eq!(told["data"]["member"]["status"], "active", "{told}");
            return "tapped".into();
        }
        told["data"]["reason"].as_str().unwrap().to_owned()
    }

    /// A command of headquarters; its result.
    async fn command(&mut self, name: &str, args: Value) -> Value {
        let id = Uuid::now_v7();
        let payload = json!({ "id": id, "args": args }).to_string();
        publish(self.mosquitto.port, &format!("{BASE}/command/{name}"), &payload, false).await;
        loop {
            let result = self.hears(&["command.result"]).await["data"].clone();
            if result["command_id"] == json!(id) {
                return result;
            }
        }
    }
}

async fn ask(client: &Client, method: Method, path: &str, body: Option<Value>) -> Value {
    client.request(method, path, body.as_ref()).await.unwrap().accepted().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_card_is_refused_at_its_next_tap_also_after_a_kill() {
    let mut counter = Counter::set_up("").await;
    let (daemon, client) = counter.start().await;
    assert_eq!(counter.tap().await, "tapped");
    let (block, unblock) = (format!("/v1/cards/{CARD_NO}/block"), format!("/v1/cards/{CARD_NO}/unblock"));
    let wish = json!({ "reason": "电话挂失", "operator": "wang.fang" });
    ask(&client, Method::POST, &block, Some(wish)).await;
    let told = counter.hears(&["card.status"]).await;
    assert_eq!((&told["class"], &told["subject"]), (&json!("ledger"), &json!(format!("card/{CARD_NO}"))));
    let (data, who) = (&told["data"], json!(["wang.fang", "control", "电话挂失"]));
    assert_eq!(data["status"], "lost", "{told}");
    assert_eq!(json!([data["operator"], data["till"], data["reason"]]), who);
    assert_eq!(counter.tap().await, "blocked");
    daemon.kill().await;

    let (mut daemon, client) = counter.start().await;
    assert_eq!(counter.tap().await, "blocked");
    ask(&client, Method::POST, &unblock, Some(json!({}))).await;
    assert_eq!(counter.tap().await, "tapped");
    daemon.signal(Signal::SIGTERM);
    assert!(daemon.ended().await.success(), "{}", daemon.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn headquarters_stops_a_card_by_its_list() {
    let mut counter = Counter::set_up("max_hotlist_age = \"1d\"").await;
    let mut state = Listener::start(counter.mosquitto.port, "5", &format!("{BASE}/state")).await;
    let (daemon, client) = counter.start().await;
    let put = |version: u64, cards: &[&str]| json!({ "version": version, "cards": cards });
    // Nobody has set the clock: what changes something waits.
    let refused = counter.command("hotlist.put", put(1, &[CARD_NO])).await;
    assert_eq!(refused["outcome"], "refused", "{refused}");
    std::fs::write(counter.synced(), "").unwrap();
    let troubles = ask(&client, Method::GET, "/readyz", None).await.to_string();
    assert!(
        troubles.contains("hotlist-too-old") && troubles.contains("no hotlist has come yet"),
        "{troubles}"
    );
    assert_eq!(counter.tap().await, "tapped");

    let done = counter.command("hotlist.put", put(7, &["4711", CARD_NO])).await;
    assert_eq!((&done["outcome"], &done["result"]), (&json!("done"), &json!({ "version": 7 })));
    assert_eq!(counter.tap().await, "hotlisted");
    let troubles = ask(&client, Method::GET, "/readyz", None).await.to_string();
    assert!(!troubles.contains("hotlist"), "{troubles}");
    let figures = ask(&client, Method::GET, "/metrics", None).await.as_str().unwrap().to_owned();
    for line in ["baygate_hotlist_version 7", "baygate_hotlist_cards 2", "baygate_hotlist_age_seconds "] {
        assert!(figures.contains(line), "{line}: {figures}");
    }
    assert!(!figures.contains(CARD_NO), "no card number in metrics");
    let older = counter.command("hotlist.put", put(6, &[])).await;
    assert_eq!(older["outcome"], "refused", "{older}");
    let skips = json!({ "version": 9, "base": 8, "remove": [CARD_NO] });
    let skips = counter.command("hotlist.put", skips).await;
    assert_eq!(skips["outcome"], "refused", "{skips}");
    assert!(skips["error"].as_str().unwrap().contains("send the whole list"), "{skips}");
    daemon.kill().await;

    let (daemon, client) = counter.start().await;
    assert_eq!(counter.tap().await, "hotlisted");
    loop {
        let told: Value = serde_json::from_str(&state.next().await.1).unwrap();
        if told["hotlist_version"] == "7" {
            break;
        }
    }
    let off = json!({ "version": 8, "base": 7, "remove": [CARD_NO] });
    assert_eq!(counter.command("hotlist.put", off).await["outcome"], "done");
    assert_eq!(counter.tap().await, "tapped");
    // Two days old.
    let old = baygate::clock::UtcMillis(baygate::clock::UtcMillis::now().0 - 2 * 86_400_000);
    daemon.kill().await;
    let raw = rusqlite::Connection::open(counter.desk.path("data/baygate.db")).unwrap();
    raw.execute("UPDATE meta SET value = ?1 WHERE key = 'hotlist'", [format!("8 {} 1", old.0)]).unwrap();
    drop((raw, client));
    let (daemon, client) = counter.start().await;
    let troubles = ask(&client, Method::GET, "/readyz", None).await.to_string();
    assert!(troubles.contains("hotlist-too-old") && troubles.contains("is older than 1day"), "{troubles}");
    std::fs::remove_file(counter.synced()).unwrap();
    let troubles = ask(&client, Method::GET, "/readyz", None).await.to_string();
    assert!(!troubles.contains("hotlist"), "its age is not known by a clock in doubt: {troubles}");
    daemon.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whose_cards_are_taken_follows_the_configuration() {
    let mut counter = Counter::set_up("accept_stores = [\"SH-0001\"]").await;
    let (mut daemon, _client) = counter.start().await;
    assert_eq!(counter.tap().await, "store-not-accepted");
    // A reload that changes no reader's table counts all the same.
    for (n, (stores, expected)) in
        [("\"SH-0001\", \"SH-0042\"", "tapped"), ("\"SH-0001\"", "store-not-accepted"), ("\"all\"", "tapped")]
            .into_iter()
            .enumerate()
    {
        counter.configure(&format!("accept_stores = [{stores}]"));
        daemon.signal(Signal::SIGHUP);
        until("the reload", async || {
            (daemon.log().matches("configuration applied").count() == n + 1).then_some(())
        })
        .await;
        assert_eq!(counter.tap().await, expected, "{stores}");
    }
    daemon.signal(Signal::SIGTERM);
    assert!(daemon.ended().await.success(), "{}", daemon.log());
}
