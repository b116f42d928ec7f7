//! The real program with all its mouths: what it logs, keeps, answers, streams and sends to the broker
//! is searched for every secret that took part.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use baygate::api::client::{Answer, Client, Method};
use baygate::sim::card::{CardSim, Chip, Technology as Sim};
use futures_util::StreamExt;
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::daemon::{Daemon, Desk, program};
use crate::mqtt::{BASE, Listener, Mosquitto, until};
use crate::secrets::Secrets;

pub const CARD_PIN: &str = "31415926";
pub const WRONG_PIN: &str = "27182818";
const OPERATOR_PIN: &str = "161803398874";
const WRONG_OPERATOR_PIN: &str = "161803398875";
const PINS: [&str; 4] = [CARD_PIN, WRONG_PIN, OPERATOR_PIN, WRONG_OPERATOR_PIN];
pub const PURPOSES: [&str; 6] = ["record", "debit", "credit", "manage", "sun", "cpu-maintain"];

/// A master key that nothing else looks like.
pub fn master(version: u8, purpose: &str) -> [u8; 16] {
    let place = (1_u8..).zip(PURPOSES).find(|(_, known)| *known == purpose).unwrap().0;
    let seed = (place * 41).wrapping_add(version * 97);
    std::array::from_fn(|i| (i as u8).wrapping_mul(73).wrapping_add(seed) ^ 0x5A)
}

pub fn all_files(dir: &Path, into: &mut Vec<(String, Vec<u8>)>) {
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

/// What was said and kept, and by whom.
pub struct Shop {
    pub desk: Desk,
    port: u16,
    daemon: Option<Daemon>,
    client: Option<Client>,
    _broker: Mosquitto,
    listens: JoinHandle<()>,
    sent: Arc<Mutex<Vec<u8>>>,
    pub said: Arc<Mutex<Vec<u8>>>,
    asked: u32,
    pub secrets: Secrets,
    codes: Vec<[u8; 3]>,
    places: Vec<(String, Vec<u8>)>,
}

impl Shop {
    /// With these readers; cards are laid down at `port`.
    pub async fn open(readers: &str, port: u16) -> Self {
        let mosquitto = Mosquitto::start("").await;
        let mut listener = Listener::start(mosquitto.port, "5", &format!("{BASE}/#")).await;
        let sent: Arc<Mutex<Vec<u8>>> = Arc::default();
        let hears = Arc::clone(&sent);
        let listens = tokio::spawn(async move {
            loop {
                let (_, payload) = listener.next().await;
                hears.lock().unwrap().extend_from_slice(payload.as_bytes());
            }
        });
        let desk = Desk::new();
        desk.write(&format!(
            "[mqtt]\nurl = \"mqtt://127.0.0.1:{}\"\n\n[[till]]\nid = \"till-1\"\nreader = \"counter-1\"\n\n{readers}",
            mosquitto.port
        ));
        Self {
            desk,
            port,
            daemon: None,
            client: None,
            _broker: mosquitto,
            listens,
            sent,
            said: Arc::default(),
            asked: 0,
            secrets: Secrets::default(),
            codes: Vec::new(),
            places: Vec::new(),
        }
    }

    /// Keys of every version up to the current one.
    fn credential(&mut self, current: u8) -> String {
        let mut text = format!("store SH-0042\ncurrent {current}\n");
        for version in 1..=current {
            for purpose in PURPOSES {
                let key = master(version, purpose);
                self.secrets.add(format!("master key {version} {purpose}"), &key);
                text.push_str(&format!("{version} {purpose} {}\n", hex::encode(key)));
            }
        }
        text
    }

    pub async fn start(&mut self, current: u8) {
        let keys = self.credential(current);
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

    /// Killed at this command of a sale; what it logged is kept.
    pub async fn killed_in_a_sale(&mut self, card_no: &str, chip: Chip, at: usize) -> Chip {
        let card = self.lay(chip).await;
        // Not silent: behind pcscd nobody would hear of the next card.
        card.slow(Duration::from_millis(300));
        let client = self.client.clone().unwrap();
        let deals = format!("/v1/cards/{card_no}/transactions");
        let sale = json!({ "kind": "spend", "amount_fen": 1, "pin": CARD_PIN });
        let before = card.apdus().len();
        let asked = tokio::spawn(async move {
            client.request_with_key(Method::POST, &deals, Some(&sale), Some("killed")).await
        });
        until("the middle of a sale", async || (card.apdus().len() > before + at).then_some(())).await;
        let daemon = self.daemon.take().unwrap();
        self.places.push(("the log before the kill".into(), daemon.log().into_bytes()));
        daemon.kill().await;
        assert!(asked.await.unwrap().is_err());
        let chip = away(&card);
        card.remove().await;
        chip
    }

    async fn ask(&mut self, method: Method, path: &str, body: Option<Value>) -> Answer {
        self.asked += 1;
        let (client, key) = (self.client.as_ref().unwrap(), format!("k-{}", self.asked));
        let answer = client.request_with_key(method, path, body.as_ref(), Some(&key)).await.unwrap();
        self.said.lock().unwrap().extend_from_slice(format!("{answer:?} {}", answer.body).as_bytes());
        answer
    }

    pub async fn post(&mut self, path: &str, body: Value) -> Answer {
        self.ask(Method::POST, path, Some(body)).await
    }

    pub async fn done(&mut self, path: &str, body: Value) -> Value {
        let answer = self.post(path, body).await;
        assert!((200..=201).contains(&answer.status), "{path}: {answer:?}");
        answer.body
    }

    /// At the command line, which says this among other things.
    pub async fn command(&mut self, words: &[&str], says: &str) {
        let mut command = program();
        let done = command.args(words).arg("--config").arg(self.desk.config()).output().await.unwrap();
        let told = [done.stdout, done.stderr].concat();
        assert!(
            String::from_utf8_lossy(&told).contains(says),
            "{words:?}: {}",
            String::from_utf8_lossy(&told)
        );
        self.said.lock().unwrap().extend_from_slice(&told);
    }

    pub async fn lay(&mut self, chip: Chip) -> CardSim {
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

    /// What went over the reader's wire or stands in the chip.
    pub fn learn(&mut self, sim: Sim, card: &CardSim) {
        let (secrets, codes) = (&mut self.secrets, &mut self.codes);
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

    /// An account, a till that is paired, and sessions with a wrong PIN and the right one.
    pub async fn people(&mut self) {
        let account = json!({ "id": "li.wei", "name": "李伟", "role": "cashier", "pin": OPERATOR_PIN });
        self.done("/v1/operators", account).await;
        let pairing =
            self.done("/v1/pairings", json!({ "till": "till-1", "scopes": ["read", "spend"] })).await;
        let (_, till) = self.over_http("/v1/pairings/redeem", "", json!({ "code": pairing["code"] })).await;
        let till = till["token"].as_str().unwrap().to_owned();
        for (pin, status) in [(WRONG_OPERATOR_PIN, 403), (OPERATOR_PIN, 201)] {
            let session = json!({ "operator": "li.wei", "pin": pin });
            assert_eq!(self.over_http("/v1/operator-sessions", &till, session).await.0, status);
        }
    }

    /// Ended orderly, and searched: nothing of it all is anywhere.
    pub async fn tells_nothing(mut self) {
        let mut daemon = self.daemon.take().unwrap();
        daemon.signal(Signal::SIGTERM);
        assert!(daemon.ended().await.success(), "{}", daemon.log());
        self.listens.abort();
        let (sent, said) = (self.sent.lock().unwrap().clone(), self.said.lock().unwrap().clone());
        let told = String::from_utf8_lossy(&sent).to_ascii_lowercase();
        for [a, b, c] in &self.codes {
            let quoted = format!("\"{}\"", hex::encode([*a, *b, *c]));
            assert!(!told.contains(&format!("[{a},{b},{c}]")) && !told.contains(&quoted));
        }
        assert!(!self.codes.is_empty());
        let mut places = self.places;
        places.push(("the log".into(), daemon.log().into_bytes()));
        places.push(("what was sent to the broker".into(), sent));
        places.push(("answers and streams".into(), said));
        for (place, bytes) in &places {
            assert!(bytes.len() > 5_000, "{place} is not listened to");
        }
        all_files(&self.desk.path("data"), &mut places);
        assert!(places.iter().any(|(place, _)| place.ends_with("baygate.db")), "the database is there");
        for (place, bytes) in places {
            assert_eq!(self.secrets.found_in(&bytes), Vec::<String>::new(), "in {place}");
            for pin in PINS {
                let found = bytes.windows(pin.len()).any(|window| window == pin.as_bytes());
                assert!(!found, "{pin} in {place}");
            }
        }
    }
}

pub fn cash(fen: i64) -> Value {
    json!({ "kind": "topup", "amount_fen": fen, "tenders": [{ "kind": "cash", "amount_fen": fen }] })
}

pub fn away(card: &CardSim) -> Chip {
    let mut chip = card.chip();
    chip.reset();
    chip
}
