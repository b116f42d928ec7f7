//! The list of stopped cards as headquarters wants it, retained on a real Mosquitto
//! (`desired/hotlist`): in the message itself or as a file at an address, also over TLS, whole or as
//! a change.
//! What is older or damaged is refused with a reason in `state`, the list that is here stays, and
//! a restart forgets nothing.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "support/authority.rs"]
mod authority;
mod mqtt;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::thread::JoinHandle;

use authority::Authority;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use baygate::clock::{TimeQuality, UtcMillis};
use baygate::config::tables::MqttVersion;
use mqtt::{BASE, Listener, Mosquitto, Shop, publish, table, until};
use rustls::{ServerConfig, ServerConnection};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// A message for a file at `url`; absent: the file is in it.
fn message(version: u64, base: Option<u64>, age_ms: i64, file: &Value, url: Option<String>) -> Value {
    let file = file.to_string();
    let inline = || format!("data:application/json;base64,{}", STANDARD.encode(&file));
    json!({
        "version": version, "base": base, "as_of": UtcMillis(UtcMillis::now().0 - age_ms),
        "url": url.unwrap_or_else(inline), "sha256": hex::encode(Sha256::digest(&file)), "size": file.len(),
    })
}

struct Headquarters {
    port: u16,
    state: Listener,
}

impl Headquarters {
    async fn wants(&self, message: &Value) {
        publish(self.port, &format!("{BASE}/desired/hotlist"), &message.to_string(), true).await;
    }

    /// What our `state` says once it says so: version here, why the wanted one is not.
    async fn told(&mut self, version: Option<&str>, refused: Option<&str>) {
        loop {
            let told: Value = serde_json::from_str(&self.state.next().await.1).unwrap();
            let why = told["hotlist_refused"].as_str();
            let fits = match refused {
                Some(part) => why.is_some_and(|why| why.contains(part)),
                None => why.is_none(),
            };
            if told["online"] == true && told["hotlist_version"] == json!(version) && fits {
                return;
            }
        }
    }
}

async fn listed(shop: &Shop) -> Vec<String> {
    let cards = shop.store.read(|r| r.hotlist_cards()).await.unwrap();
    let mut cards: Vec<String> = cards.iter().map(ToString::to_string).collect();
    cards.sort();
    cards
}

/// Answers one connection after the other with these, each `(status line, body)`; what was asked
/// for, or why nothing was.
fn file_server(answers: Vec<(&'static str, String)>) -> (u16, JoinHandle<Vec<String>>) {
    served(answers, |stream| stream)
}

fn file_server_tls(
    tls: ServerConfig,
    answers: Vec<(&'static str, String)>,
) -> (u16, JoinHandle<Vec<String>>) {
    let tls = Arc::new(tls);
    served(answers, move |stream| {
        rustls::StreamOwned::new(ServerConnection::new(Arc::clone(&tls)).unwrap(), stream)
    })
}

fn served<S: Read + Write>(
    answers: Vec<(&'static str, String)>,
    over: impl Fn(TcpStream) -> S + Send + 'static,
) -> (u16, JoinHandle<Vec<String>>) {
    let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = server.local_addr().unwrap().port();
    let serve = move || {
        let answered = answers.into_iter().map(|(status, body)| {
            let stream = over(server.accept().unwrap().0);
            answer(stream, status, &body).unwrap_or_else(|error| error.to_string())
        });
        answered.collect()
    };
    (port, std::thread::spawn(serve))
}

fn answer(mut stream: impl Read + Write, status: &str, body: &str) -> std::io::Result<String> {
    let (mut request, mut some) = (Vec::new(), [0; 512]);
    while !request.windows(4).any(|end| end == b"\r\n\r\n") {
        match stream.read(&mut some)? {
            0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            n => request.extend_from_slice(&some[..n]),
        }
    }
    let head = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n", body.len());
    stream.write_all(format!("{head}{body}").as_bytes())?;
    stream.flush()?;
    Ok(String::from_utf8(request).unwrap().lines().next().unwrap().to_owned())
}

async fn story(version: MqttVersion) {
    let broker = Mosquitto::start("").await;
    let state = Listener::start(broker.port, "5", &format!("{BASE}/state")).await;
    let mut hq = Headquarters { port: broker.port, state };
    let whole = json!({ "cards": ["8800000042", "4711"] });
    // It stands there before we come.
    hq.wants(&message(7, None, 1000, &whole, None)).await;
    let mut shop = Shop::open();
    shop.start(table(broker.port, version));
    hq.told(Some("7"), None).await;
    assert_eq!(listed(&shop).await, ["4711", "8800000042"]);

    // Older, skipping, damaged, of another day: each with its reason, and nothing changes.
    let change = json!({ "add": ["9"], "remove": ["4711"] });
    hq.wants(&message(6, None, 0, &json!({ "cards": [] }), None)).await;
    hq.told(Some("7"), Some("version 6 is older than 7")).await;
    hq.wants(&message(9, Some(8), 0, &change, None)).await;
    hq.told(Some("7"), Some("publish the whole list")).await;
    let mut damaged = message(9, None, 0, &json!({ "cards": [] }), None);
    damaged["sha256"] = json!("00".repeat(32));
    hq.wants(&damaged).await;
    hq.told(Some("7"), Some("SHA-256")).await;
    let mut cut = message(9, None, 0, &json!({ "cards": [] }), None);
    cut["size"] = json!(11);
    hq.wants(&cut).await;
    hq.told(Some("7"), Some("damaged or another one")).await;
    hq.wants(&json!({ "version": 9 })).await;
    hq.told(Some("7"), Some("the message is not")).await;
    hq.wants(&message(9, None, -3_600_000, &json!({ "cards": [] }), None)).await;
    hq.told(Some("7"), Some("has not come yet")).await;
    hq.wants(&message(9, None, 0, &json!({ "cards": [] }), Some("ftp://127.0.0.1/list".into()))).await;
    hq.told(Some("7"), Some("the address")).await;
    assert_eq!(listed(&shop).await, ["4711", "8800000042"]);

    // The process is gone, and comes back to the last message: damaged, the old list stays.
    shop.crash().await;
    shop.start(table(broker.port, version));
    hq.told(Some("7"), Some("the address")).await;
    assert_eq!(listed(&shop).await, ["4711", "8800000042"]);

    hq.wants(&message(9, Some(7), 0, &change, None)).await;
    hq.told(Some("9"), None).await;
    assert_eq!(listed(&shop).await, ["8800000042", "9"]);
    // Taken while we were away; the same once more renews no age.
    shop.stop().await;
    hq.wants(&message(12, None, 5000, &json!({ "cards": ["9", "10"] }), None)).await;
    shop.start(table(broker.port, version));
    hq.told(Some("12"), None).await;
    assert_eq!(listed(&shop).await, ["10", "9"]);
    let before = shop.store.read(|r| r.hotlist()).await.unwrap().unwrap();
    shop.crash().await;
    shop.start(table(broker.port, version));
    hq.told(Some("12"), None).await;
    assert_eq!(shop.store.read(|r| r.hotlist()).await.unwrap().unwrap(), before);
    // Told anew it does, and its file is not even looked at.
    hq.wants(&message(12, None, 0, &json!({ "cards": [] }), Some("http://127.0.0.1:1/".into()))).await;
    until("its age", async || {
        let now = shop.store.read(|r| r.hotlist()).await.unwrap().unwrap();
        (now.as_of > before.as_of).then_some(())
    })
    .await;
    assert_eq!(listed(&shop).await, ["10", "9"]);
    shop.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_list_that_headquarters_wants_is_here_over_mqtt_5() {
    story(MqttVersion::V5).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_list_that_headquarters_wants_is_here_over_mqtt_3() {
    story(MqttVersion::V311).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_fetched_and_asked_for_again() {
    let broker = Mosquitto::start("").await;
    let state = Listener::start(broker.port, "5", &format!("{BASE}/state")).await;
    let mut hq = Headquarters { port: broker.port, state };
    let mut shop = Shop::open();
    shop.start(table(broker.port, MqttVersion::V5));
    // More than fits into one message.
    let cards: Vec<String> = (0..20_000).map(|n| format!("88{n:08}")).collect();
    let file = json!({ "cards": cards });
    let (port, server) =
        file_server(vec![("503 Service Unavailable", String::new()), ("200 OK", file.to_string())]);
    hq.wants(&message(3, None, 0, &file, Some(format!("http://127.0.0.1:{port}/h/3.json?ticket=77")))).await;
    hq.told(None, Some("503")).await;
    hq.told(Some("3"), None).await;
    assert_eq!(listed(&shop).await, cards);
    assert_eq!(server.join().unwrap(), vec!["GET /h/3.json?ticket=77 HTTP/1.1"; 2]);
    // Longer than was said: it is not read to the end.
    let (port, server) = file_server(vec![("200 OK", " ".repeat(100_000))]);
    hq.wants(&message(4, None, 0, &json!({ "cards": [] }), Some(format!("http://127.0.0.1:{port}/")))).await;
    hq.told(Some("3"), Some("cannot be fetched")).await;
    drop(server);
    // The next word counts at once, whatever the one before waits for.
    hq.wants(&message(5, None, 0, &json!({ "cards": ["1"] }), None)).await;
    hq.told(Some("5"), None).await;
    assert_eq!(listed(&shop).await, ["1"]);
    shop.stop().await;
}

/// A file server with this certificate.
fn tls((certificate, key): (String, String)) -> ServerConfig {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider);
    let builder = builder.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
    let certificate = CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap();
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
    builder.with_single_cert(vec![certificate], key).unwrap()
}

/// Over TLS the file comes from whom `[mqtt]` trusts, under the name in its certificate. Of another one nothing is asked, the reason says what to do, the old list stays.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_over_tls_comes_from_whom_the_gateway_trusts() {
    const HOST: &str = "127.0.0.1";
    let broker = Mosquitto::start("").await;
    let state = Listener::start(broker.port, "5", &format!("{BASE}/state")).await;
    let mut hq = Headquarters { port: broker.port, state };
    let mut shop = Shop::open();
    let (ours, foreign) = (Authority::new(), Authority::new());
    let mut table = table(broker.port, MqttVersion::V5);
    table.ca_file = Some(ours.write(&shop.folder()));
    shop.start(table);

    let file = json!({ "cards": ["4711"] });
    let wants = |version, file: &Value, port| {
        message(version, None, 0, file, Some(format!("https://{HOST}:{port}/h.json?ticket=77")))
    };
    let answers = |file: &Value| vec![("200 OK", file.to_string())];
    let (port, server) = file_server_tls(tls(ours.issue(HOST)), answers(&file));
    hq.wants(&wants(1, &file, port)).await;
    hq.told(Some("1"), None).await;
    assert_eq!(server.join().unwrap(), ["GET /h.json?ticket=77 HTTP/1.1"]);
    assert_eq!(listed(&shop).await, ["4711"]);

    let emptied = json!({ "cards": [] });
    let past = |params: &mut rcgen::CertificateParams| params.not_after = rcgen::date_time_ymd(2020, 1, 1);
    for (version, certificate, why) in [
        (2, foreign.issue(HOST), "signed by nobody we trust; add its CA to mqtt.ca_file"),
        (3, ours.issue("files.example.com"), "for another name"),
        (4, ours.issue_with(HOST, past), "not valid now"),
    ] {
        let (port, server) = file_server_tls(tls(certificate), answers(&emptied));
        hq.wants(&wants(version, &emptied, port)).await;
        hq.told(Some("1"), Some(why)).await;
        let asked = server.join().unwrap();
        assert!(!asked[0].starts_with("GET"), "{why}: {asked:?}");
        assert_eq!(listed(&shop).await, ["4711"], "{why}");
    }
    shop.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_waits_for_the_clock() {
    use std::sync::atomic::{AtomicBool, Ordering};
    static SET: AtomicBool = AtomicBool::new(false);
    let broker = Mosquitto::start("").await;
    let state = Listener::start(broker.port, "5", &format!("{BASE}/state")).await;
    let mut hq = Headquarters { port: broker.port, state };
    hq.wants(&message(1, None, 0, &json!({ "cards": ["1"] }), None)).await;
    let mut shop = Shop::open();
    shop.start_with(table(broker.port, MqttVersion::V5), |setup| {
        setup.quality = || {
            if SET.load(Ordering::SeqCst) { TimeQuality::Synced } else { TimeQuality::Unsynced }
        };
    });
    hq.told(None, Some("clock not synchronised")).await;
    assert!(listed(&shop).await.is_empty());
    SET.store(true, Ordering::SeqCst);
    hq.told(Some("1"), None).await;
    assert_eq!(listed(&shop).await, ["1"]);
    shop.stop().await;
}
