//! No key, PIN or code to be found: cards of each way to log in are issued, topped up, charged, paid
//! back and moved to newer keys by the real program, with PINs right and wrong of cards and of people,
//! and a `kill -9` in the middle of it. Then its log at every level, its files, what it answered, streamed
//! and sent to the broker are searched for every secret that took part.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "support/daemon.rs"]
mod daemon;
mod mqtt;
#[path = "support/secrets.rs"]
mod secrets;

use std::path::Path;
use std::sync::{Arc, Mutex};

use baygate::api::client::{Answer, Client, Method};
use baygate::sim::card::{CardFault, CardProfile, CardSim, Chip, Technology as Sim};
use daemon::{Daemon, Desk};
use futures_util::StreamExt;
use mqtt::{BASE, Listener, Mosquitto, free_port, until};
use nix::sys::signal::Signal;
use secrets::Secrets;
use serde_json::{Value, json};

const CARD_PIN: &str = "31415926";
const WRONG_PIN: &str = "27182818";
const OPERATOR_PIN: &str = "161803398874";
const WRONG_OPERATOR_PIN: &str = "161803398875";
const PINS: [&str; 4] = [CARD_PIN, WRONG_PIN, OPERATOR_PIN, WRONG_OPERATOR_PIN];
const PURPOSES: [&str; 5] = ["record", "debit", "credit", "manage", "sun"];
const CARDS: [(&str, Sim); 6] = [
    ("8800000041", Sim::Ntag215),
    ("8800000042", Sim::Classic1k),
    ("8800000043", Sim::Desfire),
    ("8800000044", Sim::UltralightC),
    ("8800000045", Sim::Ntag424),
    ("8800000046", Sim::Sle4442),
];

/// Keys of both versions, that nothing else looks like.
fn credential(current: u8, secrets: &mut Secrets) -> String {
    let mut text = format!("store SH-0042\ncurrent {current}\n");
    for version in 1..=current {
        for (place, purpose) in (1_u8..).zip(PURPOSES) {
            let seed = (place * 41).wrapping_add(version * 97);
            let key: [u8; 16] = std::array::from_fn(|i| (i as u8).wrapping_mul(73).wrapping_add(seed) ^ 0x5A);
            secrets.add(format!("master key {version} {purpose}"), &key);
            text.push_str(&format!("{version} {purpose} {}\n", hex::encode(key)));
        }
    }
    text
}

/// What went over the reader's wire or stands in the chip.
fn learn(secrets: &mut Secrets, codes: &mut Vec<[u8; 3]>, sim: Sim, card: &CardSim) {
    for apdu in card.apdus() {
        match apdu.as_slice() {
            // Delivered and public keys are everybody's.
            [0xFF, 0x82, _, _, 6, 0xFF | 0xA0 | 0xD3 | 0x00, ..] => {}
            [0xFF, 0x82, _, _, 6, key @ ..] => secrets.add("a Classic key", key),
            [0xFF, 0x00, .., 0x1B, a, b, c, d] => secrets.add("a tag's password", &[*a, *b, *c, *d]),
            [0xFF, 0xD6, 0, 0x2C..=0x2F, 4, key @ ..] if sim == Sim::UltralightC => {
                secrets.add("an Ultralight C's key", key);
            }
            // With its command: three bytes stand anywhere by chance.
            [0xFF, 0x20, 0, 0, 3, code @ ..] if code != [0xFF; 3] => {
                codes.push(code.try_into().unwrap());
                secrets.add("a code presented", &[&[0x20, 0, 0, 3][..], code].concat()[..6]);
            }
            _ => {}
        }
    }
    let keys = card.chip().application_keys();
    keys.iter().filter(|key| **key != [0; 16]).for_each(|key| secrets.add("an application's key", key));
}

fn all_files(dir: &Path, into: &mut Vec<(String, Vec<u8>)>) {
    for entry in std::fs::read_dir(dir).unwrap().map(Result::unwrap) {
        match entry.file_type().unwrap() {
            kind if kind.is_dir() => all_files(&entry.path(), into),
            kind if kind.is_file() => {
                into.push((entry.path().display().to_string(), std::fs::read(entry.path()).unwrap()));
            }
            _ => {}
        }
    }
}

/// The program with all its mouths: what it says is kept.
struct Shop {
    desk: Desk,
    port: u16,
    daemon: Option<Daemon>,
    client: Option<Client>,
    said: Arc<Mutex<Vec<u8>>>,
    asked: u32,
}

impl Shop {
    async fn start(&mut self, keys: &str) {
        let folder = self.desk.path("credentials");
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("card-keys"), keys).unwrap();
        let mut daemon = Daemon::spawn_with(&self.desk.config(), |command| {
            command.env("CREDENTIALS_DIRECTORY", &folder).env("BAYGATE_LOG", "trace");
        });
        daemon.says("baygate is running").await;
        let client = Client::connect(self.desk.path("control.sock")).await.unwrap();
        let stream = client.events("").await.unwrap();
        let said = Arc::clone(&self.said);
        tokio::spawn(stream.for_each(move |event| {
            if let Ok(event) = event {
                said.lock().unwrap().extend_from_slice(event.data.as_bytes());
            }
            std::future::ready(())
        }));
        (self.daemon, self.client) = (Some(daemon), Some(client));
    }

    /// Its log so far is kept as well.
    async fn kill(&mut self, said: &mut Vec<(String, Vec<u8>)>) {
        let daemon = self.daemon.take().unwrap();
        said.push(("the log before the kill".into(), daemon.log().into_bytes()));
        daemon.kill().await;
    }

    async fn ask(&mut self, method: Method, path: &str, body: Option<Value>) -> Answer {
        self.asked += 1;
        let (client, key) = (self.client.as_ref().unwrap(), format!("k-{}", self.asked));
        let answer = client.request_with_key(method, path, body.as_ref(), Some(&key)).await.unwrap();
        self.said.lock().unwrap().extend_from_slice(format!("{answer:?} {}", answer.body).as_bytes());
        answer
    }

    async fn post(&mut self, path: &str, body: Value) -> Answer {
        self.ask(Method::POST, path, Some(body)).await
    }

    async fn done(&mut self, path: &str, body: Value) -> Value {
        let answer = self.post(path, body).await;
        assert!((200..=201).contains(&answer.status), "{path}: {answer:?}");
        answer.body
    }

    async fn lay(&mut self, chip: Chip) -> CardSim {
        until("an empty reader", async || {
            let client = self.client.as_ref().unwrap();
            let shown = client.request(Method::GET, "/v1/readers/counter-1/card", None).await.unwrap();
            (shown.status == 204).then_some(())
        })
        .await;
        let card = until("the reader listens", async || {
            CardSim::present(("127.0.0.1", self.port), chip.clone()).await.ok()
        })
        .await;
        let told = self.ask(Method::GET, "/v1/readers/counter-1/card?wait=20", None).await;
        assert_eq!(told.status, 200, "{told:?}");
        card
    }

    /// At the HTTP listener, as a till does.
    async fn over_http(&self, path: &str, token: &str, body: Value) -> (u16, Value) {
        let log = self.daemon.as_ref().unwrap().log();
        let ready = log.lines().rfind(|line| line.contains("local HTTP ready")).unwrap();
        let (_, port) = ready.split_once("127.0.0.1:").unwrap();
        let port: String = port.chars().take_while(char::is_ascii_digit).collect();
        let (url, bearer) = (format!("http://127.0.0.1:{port}{path}"), format!("Bearer {token}"));
        let sent = tokio::task::spawn_blocking(move || {
            let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
            let request = agent.post(&url);
            let request =
                if bearer == "Bearer " { request } else { request.header("Authorization", &bearer) };
            let mut answer = request.send_json(body).unwrap();
            (answer.status().as_u16(), answer.body_mut().read_json::<Value>().unwrap_or_default())
        });
        let (status, body) = sent.await.unwrap();
        self.said.lock().unwrap().extend_from_slice(body.to_string().as_bytes());
        (status, body)
    }
}

fn cash(fen: i64) -> Value {
    json!({ "kind": "topup", "amount_fen": fen, "tenders": [{ "kind": "cash", "amount_fen": fen }] })
}

fn away(card: &CardSim) -> Chip {
    let mut chip = card.chip();
    chip.reset();
    chip
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_is_said_kept_or_sent() {
    let mosquitto = Mosquitto::start("").await;
    let mut listener = Listener::start(mosquitto.port, "5", &format!("{BASE}/#")).await;
    let sent = Arc::new(Mutex::new(Vec::new()));
    let hears = Arc::clone(&sent);
    let listens = tokio::spawn(async move {
        loop {
            let (_, payload) = listener.next().await;
            hears.lock().unwrap().extend_from_slice(payload.as_bytes());
        }
    });
    let (mut secrets, mut codes, mut places) = (Secrets::default(), Vec::new(), Vec::new());
    let (desk, port) = (Desk::new(), free_port());
    desk.write(&format!(
        "[mqtt]\nurl = \"mqtt://127.0.0.1:{}\"\n\n[[till]]\nid = \"till-1\"\nreader = \"counter-1\"\n\n\
         [[reader]]\nid = \"counter-1\"\nkind = \"vpcd\"\nlisten = \"127.0.0.1:{port}\"\n",
        mosquitto.port
    ));
    let mut shop = Shop { desk, port, daemon: None, client: None, said: Arc::default(), asked: 0 };
    shop.start(&credential(1, &mut secrets)).await;

    let mut chips = Vec::new();
    for (n, (card_no, sim)) in (1..).zip(CARDS) {
        let mut profile = CardProfile::new(sim);
        *profile.uid.last_mut().unwrap() = n;
        profile.direct_transmit = true;
        let card = shop.lay(Chip::new(profile)).await;
        shop.done("/v1/cards", json!({ "card_no": card_no, "type": "named" })).await;
        let (of, deals) = (format!("/v1/cards/{card_no}"), format!("/v1/cards/{card_no}/transactions"));
        shop.done(&deals, cash(10_000)).await;
        shop.done(&format!("{of}/pin"), json!({ "new_pin": CARD_PIN })).await;
        let wrong =
            shop.post(&deals, json!({ "kind": "spend", "amount_fen": 1_000, "pin": WRONG_PIN })).await;
        assert_eq!(wrong.body["code"], "pin-wrong", "{wrong:?}");
        let sale = shop.done(&deals, json!({ "kind": "spend", "amount_fen": 1_000, "pin": CARD_PIN })).await;
        let id = &sale["transaction_id"];
        let back =
            json!({ "kind": "refund", "amount_fen": 100, "original_transaction_id": id, "pin": CARD_PIN });
        shop.done(&deals, back).await;
        learn(&mut secrets, &mut codes, sim, &card);
        chips.push(away(&card));
        card.remove().await;
    }
    // Killed in the middle of a sale, and on with newer keys: each card is moved to them.
    let card = shop.lay(chips[0].clone()).await;
    card.fault_after(14, CardFault::Mute);
    let client = shop.client.clone().unwrap();
    let deals = format!("/v1/cards/{}/transactions", CARDS[0].0);
    let (sale, before) = (json!({ "kind": "spend", "amount_fen": 1, "pin": CARD_PIN }), card.apdus().len());
    let asked = tokio::spawn(async move {
        client.request_with_key(Method::POST, &deals, Some(&sale), Some("killed")).await
    });
    until("the middle of a sale", async || (card.apdus().len() > before + 14).then_some(())).await;
    shop.kill(&mut places).await;
    assert!(asked.await.unwrap().is_err());
    chips[0] = away(&card);
    card.remove().await;
    shop.start(&credential(2, &mut secrets)).await;
    let mut moved = 0;
    for ((card_no, sim), chip) in CARDS.into_iter().zip(chips) {
        let card = shop.lay(chip).await;
        shop.done(&format!("/v1/cards/{card_no}/transactions"), cash(100)).await;
        // Its code is not changed a second time.
        moved += usize::from(sim != Sim::Sle4442);
        until("the newer keys", async || {
            let told = String::from_utf8_lossy(&shop.said.lock().unwrap()).matches("keys 1 -> 2").count();
            (told == moved).then_some(())
        })
        .await;
        learn(&mut secrets, &mut codes, sim, &card);
        card.remove().await;
    }

    // People.
    let account = json!({ "id": "li.wei", "name": "李伟", "role": "cashier", "pin": OPERATOR_PIN });
    shop.done("/v1/operators", account).await;
    let pairing = shop.done("/v1/pairings", json!({ "till": "till-1", "scopes": ["read", "spend"] })).await;
    let (_, till) = shop.over_http("/v1/pairings/redeem", "", json!({ "code": pairing["code"] })).await;
    let till = till["token"].as_str().unwrap().to_owned();
    for (pin, status) in [(WRONG_OPERATOR_PIN, 403), (OPERATOR_PIN, 201)] {
        let session = json!({ "operator": "li.wei", "pin": pin });
        assert_eq!(shop.over_http("/v1/operator-sessions", &till, session).await.0, status);
    }

    let mut daemon = shop.daemon.take().unwrap();
    daemon.signal(Signal::SIGTERM);
    assert!(daemon.ended().await.success(), "{}", daemon.log());
    listens.abort();
    let sent = sent.lock().unwrap().clone();
    places.push(("the log".into(), daemon.log().into_bytes()));
    places.push(("what was sent to the broker".into(), sent));
    places.push(("answers and streams".into(), shop.said.lock().unwrap().clone()));
    for (place, bytes) in &places {
        assert!(bytes.len() > 5_000, "{place} is not listened to");
    }
    for code in &codes {
        let [a, b, c] = *code;
        let told = String::from_utf8_lossy(&places[2].1).to_ascii_lowercase();
        assert!(
            !told.contains(&format!("[{a},{b},{c}]"))
                && !told.contains(&format!("\"{}\"", hex::encode(code)))
        );
    }
    assert!(!codes.is_empty());
    all_files(&shop.desk.path("data"), &mut places);
    assert!(places.len() > 4, "the database is there");
    for (place, bytes) in places {
        assert_eq!(secrets.found_in(&bytes), Vec::<String>::new(), "in {place}");
        for pin in PINS {
            let found = bytes.windows(pin.len()).any(|window| window == pin.as_bytes());
            assert!(!found, "{pin} in {place}");
        }
    }
}
