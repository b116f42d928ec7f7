//! A shop at work for the campaigns: the real daemon, a real Mosquitto and a
//! headquarters as processes that can be killed; simulated devices and callers
//! that go on whatever is killed, and remember everything they were told.
#![allow(dead_code)] // each test file uses its part
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

pub mod broker;
pub mod callers;
#[path = "../support/card_keys.rs"]
mod card_keys;
pub mod commands;
pub mod devices;
#[path = "../support/dice.rs"]
pub mod dice;
pub mod faults;
pub mod headquarters;
pub mod judge;
pub mod money;
#[path = "../support/port.rs"]
mod port;
pub mod snapshot;
pub mod stream;
pub mod tap;
pub mod till;
#[path = "../support/till_reader.rs"]
mod till_reader;

use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;
use std::process::ExitStatus;
use std::sync::Arc;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::daemon::{Daemon, Desk};
use broker::Broker;
use callers::Answers;
use commands::Orders;
use dice::Dice;
use faults::Victim;
use headquarters::Headquarters;
use port::free_port;
use snapshot::Snapshot;
use stream::Stream;
use till_reader::Place;

pub const BASE: &str = "baygate/v1/SH-0042/gw-1";

/// What callers and devices share.
pub struct Shop {
    pub socket: PathBuf,
    pub reader: u16,
    /// Where the till lays members' cards.
    pub till_place: Arc<Place>,
    pub stream: Arc<Stream>,
    pub answers: Answers,
}

/// Everything that can be killed, and the load on it.
pub struct Showroom {
    pub desk: Desk,
    pub broker: Broker,
    pub headquarters: Headquarters,
    pub daemon: Option<Daemon>,
    pub shop: Arc<Shop>,
    pub orders: Arc<Orders>,
    /// The end of the load.
    pub stop: CancellationToken,
    /// The end of headquarters' commands, which may come before.
    pub stop_orders: CancellationToken,
    load: JoinSet<()>,
    /// What earlier daemons logged.
    pub logs: Vec<String>,
    /// The log as the last daemon that died left it.
    pub at_rest: Snapshot,
    /// How often each was killed with SIGKILL.
    pub killed: BTreeMap<Victim, u64>,
    _printer: devices::Printer,
}

/// With the keys of members' cards.
fn spawn(desk: &Desk) -> Daemon {
    let folder = desk.path("credentials");
    Daemon::spawn_with(&desk.config(), |command| {
        command.env("CREDENTIALS_DIRECTORY", &folder);
    })
}

impl Showroom {
    /// Starts everything. `uplink` is the port the daemon dials; `None`: the broker's.
    pub async fn open(dice: &mut Dice, broker: Broker, uplink: u16, mqtt: &str, acknowledge: bool) -> Self {
        let desk = Desk::new();
        let (reader, till_port) = (free_port(), free_port());
        std::fs::create_dir(desk.path("credentials")).unwrap();
        std::fs::write(desk.path("credentials").join("card-keys"), card_keys::credential()).unwrap();
        let devices = devices::Devices::plug_in(&desk).await;
        desk.write(&format!(
            "[mqtt]\nurl = \"mqtt://127.0.0.1:{uplink}\"\n{mqtt}\n{}\n\
             [[reader]]\nid = \"counter-1\"\nkind = \"vpcd\"\nlisten = \"127.0.0.1:{reader}\"\n\
             [[reader]]\nid = \"{}\"\nkind = \"vpcd\"\nlisten = \"127.0.0.1:{till_port}\"\n",
            devices.configuration(),
            till_reader::READER
        ));
        let headquarters =
            Headquarters::start(broker.port, desk.path("headquarters.journal"), acknowledge).await;
        let stop = CancellationToken::new();
        let socket = desk.path("control.sock");
        let mut daemon = spawn(&desk);
        daemon.says("baygate is running").await;
        let stream = Stream::listen(socket.clone());
        let till_place = Place::new(socket.clone(), till_port);
        let shop = Arc::new(Shop { socket, reader, till_place, stream, answers: Answers::default() });
        let mut load = JoinSet::new();
        let printer = devices.work(&mut load, &shop, dice, &stop);
        callers::work(&mut load, &shop, dice, &stop);
        Self {
            desk,
            headquarters,
            daemon: Some(daemon),
            shop,
            orders: Arc::default(),
            stop,
            stop_orders: CancellationToken::new(),
            load,
            logs: Vec::new(),
            broker,
            at_rest: Snapshot::default(),
            killed: BTreeMap::new(),
            _printer: printer,
        }
    }

    /// Headquarters begins to give commands. `once`: each goes to the broker one time only.
    pub fn command(&mut self, dice: &mut Dice, once: bool) {
        let desk = commands::CommandDesk {
            port: self.broker.port,
            orders: Arc::clone(&self.orders),
            stream: Arc::clone(&self.shop.stream),
            once,
        };
        self.load.spawn(desk.work(dice.fork(), self.stop_orders.clone()));
    }

    /// Without waiting until it runs.
    pub fn start_daemon(&mut self) {
        self.daemon = Some(spawn(&self.desk));
    }

    /// The daemon, as a power cut would for a process. How it ended; nothing when it was dead.
    pub async fn kill_daemon(&mut self) -> Option<ExitStatus> {
        let daemon = self.daemon.take()?;
        let log = daemon.log();
        let ended = daemon.kill().await;
        self.logs.push(log);
        self.look_at_the_log();
        Some(ended)
    }

    /// The daemon was told to stop: it does, and well, also while it was still starting.
    pub async fn daemon_ended(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            let ended = daemon.ended().await;
            // Before it listens for signals, SIGTERM ends it as it ends any process.
            let early = !daemon.log().contains("baygate is running");
            assert!(ended.success() || early, "{ended}: {}", daemon.log());
            self.logs.push(daemon.log());
            self.look_at_the_log();
        }
    }

    /// While the daemon is dead: what counts as delivered is in headquarters' journal, where
    /// its word is what counts.
    fn look_at_the_log(&mut self) {
        self.at_rest = Snapshot::take(&self.desk);
        if !self.headquarters.acknowledge {
            return;
        }
        let journal = headquarters::read_journal(&self.headquarters.journal);
        let kept: HashSet<Uuid> = journal.into_iter().map(|entry| entry.id).collect();
        for (at, id) in self.at_rest.delivered_ids() {
            assert!(
                kept.contains(&id),
                "class and sequence {at:?} count as delivered; headquarters has them not"
            );
        }
    }

    /// The load ends: everybody waits for the answer to what was asked last.
    pub async fn close(&mut self) {
        self.stop_orders.cancel();
        self.stop.cancel();
        let ended = async {
            while let Some(ended) = self.load.join_next().await {
                ended.unwrap();
            }
        };
        tokio::time::timeout(crate::daemon::LONG * 3, ended).await.unwrap_or_else(|_| {
            panic!("a caller still waits for an answer; the daemon says:\n{}", self.last_log())
        });
    }

    pub fn last_log(&self) -> String {
        self.daemon.as_ref().map(Daemon::log).or_else(|| self.logs.last().cloned()).unwrap_or_default()
    }

    /// No daemon of this run panicked.
    pub fn assert_no_panic(&self) {
        let all = self.logs.iter().cloned().chain(self.daemon.as_ref().map(Daemon::log));
        for log in all {
            assert!(!log.contains("panicked at"), "{log}");
        }
    }
}
