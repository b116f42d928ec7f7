//! What the uplink's tests share: a real Mosquitto that can be killed and come
//! back, a real store on disk, the uplink under test, and a listener that is
//! not ours (`mosquitto_sub`).
#![allow(dead_code, unused_imports)] // each test file uses its part

#[path = "../support/port.rs"]
pub mod port;
// Some tests load it themselves, too.
#[allow(clippy::duplicate_mod)]
#[path = "../support/store.rs"]
mod store;
#[path = "../support/until.rs"]
mod until;

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use baygate::clock::TimeQuality;
use baygate::config::credentials::Credentials;
use baygate::config::tables::{Confirm, MqttTable, MqttVersion};
use baygate::event::{Class, EventData, NewEvent};
use baygate::health::{Health, Trouble};
use baygate::store::{Batch, Store};
use baygate::uplink::{self, Pace, Setup, UplinkError};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{ChildStdout, Command as TokioCommand};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub use port::free_port;
pub use store::{open_store, source};
pub use until::{LONG, until, until_ok, until_within};

pub const ROOT: &str = "baygate/v1";
pub const BASE: &str = "baygate/v1/SH-0042/gw-1";

macro_rules! test_event {
    ($name:ident, $class:ident, $kind:literal) => {
        #[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
        pub struct $name {
            pub n: u64,
            pub filling: String,
        }
        impl EventData for $name {
            const TYPE: &'static str = $kind;
            const CLASS: Class = Class::$class;
        }
        impl $name {
            pub fn event(n: u64, bytes: usize) -> NewEvent {
                NewEvent::now("test/1", &Self { n, filling: "x".repeat(bytes) }).unwrap()
            }
        }
    };
}
test_event!(Money, Ledger, "card.transaction");
test_event!(Tap, Card, "card.tapped");
test_event!(Removed, Card, "card.removed");
test_event!(Signals, Telemetry, "vehicle.signals");

/// A real broker.
pub struct Mosquitto {
    pub port: u16,
    dir: tempfile::TempDir,
    child: Option<Child>,
}

impl Mosquitto {
    /// `extra`: lines of configuration after `listener`.
    pub async fn start(extra: &str) -> Self {
        Self::start_on(free_port(), extra).await
    }

    /// Where somebody waits for it already.
    pub async fn start_on(port: u16, extra: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let user = std::env::var("USER").unwrap_or_else(|_| "root".into());
        let anonymous = if extra.contains("allow_anonymous") { "" } else { "allow_anonymous true\n" };
        let config = format!(
            "user {user}\npersistence false\nlistener {port} 127.0.0.1\n{anonymous}max_queued_messages 1000000\nlog_type all\n{extra}\n"
        );
        std::fs::write(dir.path().join("mosquitto.conf"), config).unwrap();
        let mut broker = Self { port, dir, child: None };
        broker.up().await;
        broker
    }

    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub async fn up(&mut self) {
        let program = ["/usr/sbin/mosquitto", "/usr/local/sbin/mosquitto"]
            .into_iter()
            .find(|path| Path::new(path).exists())
            .unwrap_or("mosquitto");
        let log = std::fs::File::create(self.dir.path().join("log")).unwrap();
        let child = Command::new(program)
            .arg("-c")
            .arg(self.dir.path().join("mosquitto.conf"))
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("mosquitto must be installed");
        self.child = Some(child);
        let port = self.port;
        until("mosquitto listens", async || std::net::TcpStream::connect(("127.0.0.1", port)).ok()).await;
    }

    /// As a power cut.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        self.kill();
        if std::env::var_os("BROKER_LOG").is_some() {
            eprintln!("{}", std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default());
        }
    }
}

/// A listener that shares no code with us. Lines are `TOPIC PAYLOAD`.
pub struct Listener {
    lines: Lines<BufReader<ChildStdout>>,
    /// Heard while we made sure that it listens.
    early: VecDeque<String>,
    _child: tokio::process::Child,
}

impl Listener {
    pub async fn start(port: u16, version: &str, filter: &str) -> Self {
        let mut child = TokioCommand::new("mosquitto_sub")
            .args(["-h", "127.0.0.1", "-p", &port.to_string(), "-V", version, "-q", "1", "-v"])
            .args(["-t", filter, "-t", "ready"])
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("mosquitto-clients must be installed");
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut listener = Self { lines, early: VecDeque::new(), _child: child };
        loop {
            publish(port, "ready", "now", false).await;
            let heard = tokio::time::timeout(Duration::from_millis(200), listener.lines.next_line()).await;
            match heard {
                Ok(Ok(Some(line))) if line.starts_with("ready ") => return listener,
                Ok(Ok(Some(line))) => listener.early.push_back(line),
                _ => {}
            }
        }
    }

    pub async fn next(&mut self) -> (String, String) {
        loop {
            let line = match self.early.pop_front() {
                Some(line) => line,
                None => tokio::time::timeout(LONG, self.lines.next_line())
                    .await
                    .expect("the listener heard nothing")
                    .unwrap()
                    .expect("the listener ended"),
            };
            if let Some((topic, payload)) = line.split_once(' ')
                && topic != "ready"
            {
                return (topic.to_owned(), payload.to_owned());
            }
        }
    }

    /// The next message on a topic that ends so.
    pub async fn on(&mut self, end: &str) -> serde_json::Value {
        loop {
            let (topic, payload) = self.next().await;
            if topic.ends_with(end) {
                return serde_json::from_str(&payload).unwrap();
            }
        }
    }
}

/// As headquarters' tool.
pub async fn publish(port: u16, topic: &str, payload: &str, retain: bool) {
    let mut command = TokioCommand::new("mosquitto_pub");
    command.args(["-h", "127.0.0.1", "-p", &port.to_string(), "-q", "1", "-t", topic]);
    if payload.is_empty() {
        command.arg("-n");
    } else {
        command.args(["-m", payload]);
    }
    if retain {
        command.arg("-r");
    }
    assert!(command.status().await.unwrap().success());
}

/// Impatient times.
pub fn quick() -> Pace {
    Pace {
        keep_alive: Duration::from_secs(2),
        connect_timeout: Duration::from_secs(2),
        backoff_first: Duration::from_millis(50),
        backoff_most: Duration::from_millis(400),
        healthy_after: Duration::from_secs(1),
        state_every: Duration::from_millis(200),
        ..Pace::default()
    }
}

pub fn table(port: u16, version: MqttVersion) -> MqttTable {
    MqttTable {
        url: format!("mqtt://127.0.0.1:{port}").parse().unwrap(),
        version,
        root: ROOT.into(),
        client_id: "baygate-SH-0042-gw-1".into(),
        username: None,
        ca_file: None,
        client_cert_file: None,
        confirm: Confirm::Broker,
        confirm_timeout: Duration::from_secs(300),
        max_in_flight: 64,
        max_in_flight_bytes: 128 * 1024,
        max_packet_bytes: 131_072,
        replay_per_s: 0,
    }
}

/// A store on disk and, when started, the uplink on it.
pub struct Shop {
    pub store: Store,
    pub health: Health,
    dir: tempfile::TempDir,
    running: Option<(CancellationToken, JoinHandle<Result<(), UplinkError>>)>,
}

impl Shop {
    pub fn open() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = open_store(dir.path());
        Self { store, health: Health::default(), dir, running: None }
    }

    pub fn folder(&self) -> PathBuf {
        self.dir.path().to_owned()
    }

    pub fn credential(&self, name: &str, secret: &str) {
        std::fs::write(self.dir.path().join(name), secret).unwrap();
    }

    pub fn start(&mut self, table: MqttTable) {
        self.start_with(table, |_| {});
    }

    pub fn start_with(&mut self, table: MqttTable, change: impl FnOnce(&mut Setup)) {
        let mut setup = Setup::new(table, source(), Credentials::new(Some(self.folder())));
        setup.pace = quick();
        setup.quality = || TimeQuality::Synced;
        change(&mut setup);
        // RUST_LOG=baygate=debug tells why a test waits.
        let _ = tracing_subscriber::fmt()
            .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
            .with_test_writer()
            .try_init();
        let stop = CancellationToken::new();
        let task = uplink::serve(setup, self.store.clone(), self.health.clone(), stop.clone());
        self.running = Some((stop, tokio::spawn(task)));
    }

    /// Orderly.
    pub async fn stop(&mut self) {
        let (stop, task) = self.running.take().unwrap();
        stop.cancel();
        tokio::time::timeout(Duration::from_secs(5), task).await.expect("stops within 5 s").unwrap().unwrap();
    }

    /// As if the process were gone.
    pub async fn crash(&mut self) {
        let (_, task) = self.running.take().unwrap();
        task.abort();
        assert!(task.await.unwrap_err().is_cancelled());
    }

    /// Still running, not panicked, not ended.
    pub fn assert_running(&self) {
        assert!(!self.running.as_ref().unwrap().1.is_finished(), "the uplink ended");
    }

    pub async fn commit(&self, event: NewEvent) {
        self.store.commit(Batch::new().event(event)).await.unwrap();
    }

    pub async fn delivered(&self, class: Class) -> u64 {
        self.store.read(move |r| r.delivered(class)).await.unwrap().class_sequence.0
    }

    pub async fn await_delivered(&self, class: Class, to: u64) {
        until(&format!("{class} delivered to {to}"), async || {
            (self.delivered(class).await >= to).then_some(())
        })
        .await;
    }

    pub async fn await_trouble(&self, code: &str) -> Trouble {
        until(&format!("trouble {code}, is {:?}", self.health.troubles()), async || {
            self.health.troubles().into_iter().find(|trouble| trouble.code == code)
        })
        .await
    }

    pub async fn await_well(&self) {
        until("no trouble", async || self.health.troubles().is_empty().then_some(())).await;
    }
}
