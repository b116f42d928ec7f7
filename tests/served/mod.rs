//! A local HTTP that really serves, on a real store, with raw bytes to ask it.
#![allow(dead_code, unreachable_pub)] // every test file uses another part

pub mod people;
// Some tests load it themselves, too.
#[allow(clippy::duplicate_mod)]
#[path = "../support/store.rs"]
mod store;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use baygate::api::client::{Client, Method};
use baygate::api::{self, ApiError, Context, Directory, FaceCheck, Limits, PrinterEntry, ReaderEntry};
use baygate::card::counter::Shop;
use baygate::config::credentials::Credentials;
use baygate::config::purse::PurseTable;
use baygate::config::tables::{ApiTable, PrinterKind, ReaderKind, ReaderRole};
use baygate::config::values::{Locale, TimeOfDay};
use baygate::event::device::{DeviceState, DeviceStatus};
use baygate::event::{NewEvent, Text};
use baygate::health::Health;
use baygate::store::{Batch, Store};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use serde_json::{Value, json};
use store::{open_store, source};
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub const PATIENCE: Duration = Duration::from_secs(20);

/// Everything a test may want to change before it serves.
pub struct Setup {
    pub dir: TempDir,
    pub table: ApiTable,
    pub limits: Limits,
    pub locale: Locale,
    pub metrics: PrometheusHandle,
    pub credentials: Credentials,
    pub face_check: FaceCheck,
    pub shop: Shop,
}

impl Setup {
    pub fn new() -> Self {
        Self::in_dir(tempfile::tempdir().unwrap())
    }

    pub fn in_dir(dir: TempDir) -> Self {
        let table = ApiTable {
            listen: "127.0.0.1:0".parse().unwrap(),
            control_socket: dir.path().join("control.sock"),
            ..ApiTable::default()
        };
        let face_check: FaceCheck = Arc::new(|template, fields| match (template, fields.get("name")) {
            ("member-face.svg", Some(_)) => Ok(()),
            _ => Err(Text::new("缺少 name", "the template needs `name`")),
        });
        Self {
            dir,
            table,
            limits: Limits::default(),
            locale: Locale::En,
            metrics: PrometheusBuilder::new().build_recorder().handle(),
            credentials: Credentials::default(),
            face_check,
            shop: Shop {
                store: source().store,
                rules: PurseTable::default(),
                timezone: jiff::tz::TimeZone::UTC,
                business_day_start: TimeOfDay { hour: 4, minute: 0 },
                has_uplink: false,
            },
        }
    }

    pub async fn serve(self) -> Served {
        self.try_serve().await.unwrap()
    }

    pub async fn try_serve(self) -> Result<Served, ApiError> {
        let store = open_store(self.dir.path());
        let bound = api::bind(&self.table, self.dir.path(), &self.credentials).await?;
        let (addr, fingerprint) = (bound.local_addr(), bound.fingerprint().map(str::to_owned));
        let (directory, seen) = watch::channel(Arc::new(devices()));
        let health = Health::default();
        let context = Context {
            store: store.clone(),
            source: source(),
            locale: self.locale,
            health: health.clone(),
            directory: seen,
            shop: watch::channel(Arc::new(self.shop)).1,
            metrics: self.metrics,
            face_check: self.face_check,
            limits: self.limits,
        };
        let stop = CancellationToken::new();
        let task = tokio::spawn(api::serve(bound, context, stop.clone()));
        let socket = self.table.control_socket;
        Ok(Served { dir: self.dir, addr, socket, store, health, directory, fingerprint, stop, task })
    }
}

pub struct Served {
    pub dir: TempDir,
    pub addr: SocketAddr,
    pub socket: PathBuf,
    pub store: Store,
    pub health: Health,
    pub directory: watch::Sender<Arc<Directory>>,
    pub fingerprint: Option<String>,
    pub stop: CancellationToken,
    task: JoinHandle<Result<(), ApiError>>,
}

impl Served {
    pub async fn client(&self) -> Client {
        Client::connect(&self.socket).await.unwrap().with_locale(Locale::En)
    }

    /// A token with these scopes, made as the CLI makes it.
    pub async fn token(&self, scopes: &[&str]) -> String {
        self.made_token(scopes).await["token"].as_str().unwrap().to_owned()
    }

    pub async fn made_token(&self, scopes: &[&str]) -> Value {
        let wanted = json!({ "name": "test", "scopes": scopes });
        let answer = self.client().await.request(Method::POST, "/v1/tokens", Some(&wanted)).await.unwrap();
        answer.accepted().unwrap()
    }

    pub async fn get(&self, token: &str, path: &str) -> Reply {
        self.send("GET", path, &[("Authorization", &format!("Bearer {token}"))], "").await
    }

    pub async fn post(&self, token: &str, path: &str, body: &Value) -> Reply {
        let headers =
            [("Authorization", format!("Bearer {token}")), ("Content-Type", "application/json".into())];
        let headers: Vec<(&str, &str)> = headers.iter().map(|(n, v)| (*n, v.as_str())).collect();
        self.send("POST", path, &headers, &body.to_string()).await
    }

    /// One request with exactly these headers, besides `Host` when none is given.
    pub async fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Reply {
        let mut stream = TcpStream::connect(self.addr).await.unwrap();
        stream.write_all(head_of(self.addr, method, path, headers, body).as_bytes()).await.unwrap();
        read_reply(&mut stream).await
    }

    /// Stops serving; the folder is kept for the next one.
    pub async fn stop(self) -> TempDir {
        self.stop.cancel();
        tokio::time::timeout(Duration::from_secs(5), self.task)
            .await
            .expect("stops within 5 s")
            .unwrap()
            .unwrap();
        self.store.close().await;
        self.dir
    }
}

pub fn head_of(addr: SocketAddr, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> String {
    let mut text = format!("{method} {path} HTTP/1.1\r\nConnection: close\r\n");
    if !headers.iter().any(|(name, _)| *name == "Host") {
        text.push_str(&format!("Host: {addr}\r\n"));
    }
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    format!("{text}Content-Length: {}\r\n\r\n{body}", body.len())
}

#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Reply {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e}: {:?}", self))
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        let wanted = format!("{name}: ");
        self.head.lines().find_map(|line| {
            line.get(..wanted.len())
                .filter(|start| start.eq_ignore_ascii_case(&wanted))
                .and_then(|_| line.get(wanted.len()..))
        })
    }

    /// Status and problem code; makes sure that it is a whole problem.
    pub fn problem(&self) -> (u16, String) {
        let body = self.json();
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{self:?}");
        assert_eq!(body["status"], self.status, "{self:?}");
        assert!(!body["text"]["zh"].as_str().unwrap().is_empty(), "{self:?}");
        assert!(!body["text"]["en"].as_str().unwrap().is_empty(), "{self:?}");
        (self.status, body["code"].as_str().unwrap().to_owned())
    }
}

pub async fn read_reply<S: AsyncRead + Unpin>(stream: &mut S) -> Reply {
    let mut bytes = Vec::new();
    // A connection that is cut after the answer is an answer all the same.
    let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut bytes)).await.expect("an answer in time");
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head.get(9..12).and_then(|digits| digits.parse().ok()).unwrap_or(0);
    let body = if head.to_ascii_lowercase().contains("transfer-encoding: chunked") {
        unchunk(body)
    } else {
        body.to_owned()
    };
    Reply { status, head: head.to_owned(), body }
}

fn unchunk(mut text: &str) -> String {
    let mut body = String::new();
    while let Some((size, rest)) = text.split_once("\r\n") {
        let Ok(size) = usize::from_str_radix(size, 16) else { break };
        if size == 0 || rest.len() < size {
            break;
        }
        body.push_str(&rest[..size]);
        text = rest[size..].trim_start_matches("\r\n");
    }
    body
}

pub fn devices() -> Directory {
    Directory {
        readers: vec![ReaderEntry {
            id: "counter-1".parse().unwrap(),
            kind: ReaderKind::Pcsc,
            role: ReaderRole::Card,
            till: Some("till-1".parse().unwrap()),
        }],
        links: vec!["bay-1".parse().unwrap()],
        printers: vec![PrinterEntry {
            id: "face-1".parse().unwrap(),
            kind: PrinterKind::Png,
            template: "member-face.svg".into(),
            reader: None,
            tills: vec!["till-1".parse().unwrap()],
        }],
        tills: vec!["till-1".parse().unwrap()],
    }
}

/// A `device.state` of a reader; `detail` makes it as large as wanted.
pub fn fact(detail: &str) -> NewEvent {
    let data = DeviceState { state: DeviceStatus::Ready, reason: None, detail: Some(detail.to_owned()) };
    NewEvent::now("reader/counter-1", &data).unwrap()
}

pub async fn commit(store: &Store, event: NewEvent) {
    store.commit(Batch::new().event(event)).await.unwrap();
}

/// Asks until the condition holds.
pub async fn until<F, Fut>(what: &str, mut holds: F)
where
    F: FnMut() -> Fut,
    Fut: Future<Output = bool>,
{
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !holds().await {
        assert!(tokio::time::Instant::now() < deadline, "never came: {what}");
        tokio::task::yield_now().await;
    }
}
