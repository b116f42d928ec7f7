//! A shop with the real daemon, a virtual reader, and cards that keep what was done to them.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "../support/card_keys.rs"]
mod card_keys;

use baygate::api::client::{Answer, Client, Method};
use baygate::event::Source;
use baygate::event::ledger::CardTransaction;
use baygate::sim::card::fmcos::Masters;
use baygate::sim::card::{CardProfile, CardSim, Chip, Technology as Sim};
use baygate::store::{Offset, Store, StoreOptions};
use serde_json::{Value, json};

use crate::daemon::{Daemon, Desk};
use crate::port::free_port;
use card_keys::cpu_maintain;
pub use card_keys::{STORE, credential};

/// A card as delivered.
pub fn blank(sim: Sim) -> Chip {
    let mut profile = CardProfile::new(sim);
    profile.direct_transmit = true;
    if sim == Sim::Cpu {
        let [purchase, load, tac] = [[6; 16], [0x47; 16], [0x5A; 16]];
        return Chip::with_purse(profile, &Masters { maintain: cpu_maintain(), purchase, load, tac });
    }
    Chip::new(profile)
}

/// Another one.
pub fn blank_with_uid(sim: Sim, last: u8) -> Chip {
    let mut profile = CardProfile::new(sim);
    *profile.uid.last_mut().unwrap() = last;
    profile.direct_transmit = true;
    Chip::new(profile)
}

pub struct Shop {
    pub desk: Desk,
    pub daemon: Option<Daemon>,
    pub client: Client,
    pub port: u16,
}

impl Shop {
    /// Opens with these rules beside the usual ones.
    pub async fn open(rules: &str) -> Self {
        let port = free_port();
        Self::open_at(&format!("kind = \"vpcd\"\nlisten = \"127.0.0.1:{port}\""), port, rules).await
    }

    /// With another reader than the virtual one.
    pub async fn open_at(reader: &str, port: u16, rules: &str) -> Self {
        Self::open_with(STORE, &credential(), (reader, port), rules).await
    }

    /// Another store's, with keys of its own.
    pub async fn open_of(store: &str, credential: &str, rules: &str) -> Self {
        let port = free_port();
        let reader = format!("kind = \"vpcd\"\nlisten = \"127.0.0.1:{port}\"");
        Self::open_with(store, credential, (&reader, port), rules).await
    }

    async fn open_with(store: &str, credential: &str, (reader, port): (&str, u16), rules: &str) -> Self {
        let desk = Desk::new();
        std::fs::create_dir(desk.path("credentials")).unwrap();
        std::fs::write(desk.path("credentials").join("card-keys"), credential).unwrap();
        desk.write(&format!("[[reader]]\nid = \"counter-1\"\n{reader}\n\n{rules}"));
        let text = std::fs::read_to_string(desk.config()).unwrap();
        let named = format!("store = {store:?}");
        std::fs::write(desk.config(), text.replacen(&format!("store = {STORE:?}"), &named, 1)).unwrap();
        let (daemon, client) = start(&desk).await;
        Self { desk, daemon: Some(daemon), client, port }
    }

    /// As a power cut would end it; then it is started again.
    pub async fn kill_and_restart(&mut self) {
        self.daemon.take().unwrap().kill().await;
        self.start_again().await;
    }

    pub async fn start_again(&mut self) {
        let (daemon, client) = start(&self.desk).await;
        (self.daemon, self.client) = (Some(daemon), client);
    }

    /// Puts a card on the reader, once the one before was seen to leave.
    pub async fn lay(&self, chip: Chip) -> CardSim {
        let deadline = std::time::Instant::now() + crate::daemon::LONG;
        while self.get("/v1/readers/counter-1/card").await.status != 204 {
            assert!(std::time::Instant::now() < deadline, "a card lies there");
        }
        loop {
            match CardSim::present(("127.0.0.1", self.port), chip.clone()).await {
                Ok(card) => return card,
                Err(error) => assert!(std::time::Instant::now() < deadline, "{error}"),
            }
            tokio::task::yield_now().await;
        }
    }

    pub async fn post(&self, path: &str, body: Value, key: &str) -> Answer {
        self.client.request_with_key(Method::POST, path, Some(&body), Some(key)).await.unwrap()
    }

    /// Done at once, or the test fails.
    pub async fn done(&self, path: &str, body: Value, key: &str) -> Value {
        let answer = self.post(path, body, key).await;
        assert!((200..=201).contains(&answer.status), "{path}: {answer:?}");
        answer.body
    }

    pub async fn refused(&self, path: &str, body: Value, key: &str) -> (u16, String) {
        let answer = self.post(path, body, key).await;
        let text = |pointer: &str| answer.body.pointer(pointer).and_then(Value::as_str).unwrap_or("");
        assert!(!text("/text/zh").is_empty() && !text("/text/en").is_empty(), "{answer:?}");
        (answer.status, text("/code").to_owned())
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.client.request(Method::GET, path, None).await.unwrap()
    }

    /// The member that the card on the reader shows, once it has been told.
    pub async fn member(&self) -> Value {
        let answer = self.get("/v1/readers/counter-1/card?wait=20").await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.body["member"].clone()
    }

    /// `baygate card` as somebody types it: exit status, what it said as JSON, what it complained of.
    pub async fn terminal(&self, args: &[&str]) -> (i32, Value, String) {
        let mut command = crate::daemon::program();
        command.arg("card").args(args).arg("--json").arg("--config").arg(self.desk.config());
        let done = command.env_remove("BAYGATE_LOG").output().await.unwrap();
        let said = String::from_utf8(done.stdout).unwrap();
        let told = String::from_utf8(done.stderr).unwrap();
        (done.status.code().unwrap(), serde_json::from_str(&said).unwrap_or_default(), told)
    }

    pub async fn issue(&self, card_no: &str, key: &str) -> Value {
        self.done("/v1/cards", json!({ "card_no": card_no, "type": "named" }), key).await
    }

    /// Stops; what the ledger tells and what the outbox tells.
    pub async fn close(mut self) -> (Vec<CardTransaction>, Vec<(String, Value)>) {
        let mut daemon = self.daemon.take().unwrap();
        daemon.signal(nix::sys::signal::Signal::SIGTERM);
        assert!(daemon.ended().await.success(), "{}", daemon.log());
        let (store, _) = Store::open(&StoreOptions {
            data_dir: self.desk.path("data"),
            source: Source { store: STORE.parse().unwrap(), gateway: "gw-1".parse().unwrap() },
            machine_id: std::fs::read_to_string("/etc/machine-id").ok().map(|id| id.trim().to_owned()),
            max_bytes: 1 << 30,
            limits: Vec::new(),
        })
        .unwrap();
        let card_no = "8800000042".parse().unwrap();
        let mut rows = store.read(move |r| r.transactions_of(&card_no, None, 1000)).await.unwrap();
        rows.reverse();
        let told = store.read(|r| r.events_after(Offset(0), 2000)).await.unwrap();
        let told = told
            .iter()
            .map(|logged| {
                (logged.event.kind.to_string(), serde_json::from_str(logged.event.data.get()).unwrap())
            })
            .collect();
        store.close().await;
        (rows.iter().map(|row| row.current()).collect(), told)
    }
}

async fn start(desk: &Desk) -> (Daemon, Client) {
    let folder = desk.path("credentials");
    let mut daemon = Daemon::spawn_with(&desk.config(), |command| {
        command.env("CREDENTIALS_DIRECTORY", &folder);
    });
    daemon.says("baygate is running").await;
    (daemon, Client::connect(desk.path("control.sock")).await.unwrap())
}
