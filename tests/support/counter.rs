//! A reader service on a real store, and waiting for what it commits.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "store.rs"]
mod store;

use std::sync::Arc;
use std::time::Duration;

use baygate::card::counter::Shop;
use baygate::card::member::Members;
use baygate::card::{CardError, serve_reader};
use baygate::config::purse::PurseTable;
use baygate::config::tables::{Feedback, ReaderKind, ReaderRole, ReaderTable};
use baygate::config::values::TimeOfDay;
use baygate::event::device::{DeviceKind, DeviceState, DeviceStatus};
use baygate::health::Health;
use baygate::store::devices::CardInField;
use baygate::store::{Offset, Store, StoreOptions};
use serde_json::Value;
use store::options;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub const PATIENCE: Duration = Duration::from_secs(120);

pub fn vpcd_table(id: &str, port: u16) -> ReaderTable {
    ReaderTable {
        id: id.parse().unwrap(),
        kind: ReaderKind::Vpcd,
        name: None,
        listen: Some(([127, 0, 0, 1], port).into()),
        link: None,
        device: None,
        technology: None,
        role: ReaderRole::Card,
        globs: Default::default(),
        feedback: Feedback::Auto,
    }
}

pub fn pcsc_table(id: &str, glob: &str) -> ReaderTable {
    ReaderTable {
        id: id.parse().unwrap(),
        kind: ReaderKind::Pcsc,
        name: Some(glob.into()),
        listen: None,
        link: None,
        device: None,
        technology: None,
        role: ReaderRole::Card,
        globs: Default::default(),
        feedback: Feedback::Auto,
    }
}

/// The usual rules.
pub fn shop() -> Shop {
    Shop {
        store: "SH-0042".parse().unwrap(),
        rules: PurseTable::default(),
        timezone: jiff::tz::TimeZone::UTC,
        business_day_start: TimeOfDay { hour: 4, minute: 0 },
        has_uplink: false,
    }
}

/// Room that memory must have for the stores of one program, or they lie on the disk.
const MEMORY: u64 = 2 << 30;

/// Stores here are closed and opened, never robbed of what they did not sync (`make power-cut`,
/// `store_every_call` do that): in memory nobody waits for the disk.
fn folder() -> tempfile::TempDir {
    let memory = std::path::Path::new("/dev/shm");
    let room = nix::sys::statvfs::statvfs(memory).map_or(0, |it| it.blocks_available() * it.fragment_size());
    let in_memory = (room >= MEMORY).then(|| tempfile::tempdir_in(memory).ok()).flatten();
    in_memory.unwrap_or_else(|| tempfile::tempdir().unwrap())
}

/// With a small reserve: it counts as memory.
fn open(folder: &tempfile::TempDir) -> Store {
    let options = StoreOptions { max_bytes: 64 << 20, ..options(folder.path()) };
    Store::open(&options).unwrap().0
}

/// The store of a gateway and the services on it.
pub struct Gateway {
    pub store: Store,
    pub health: Health,
    folder: tempfile::TempDir,
}

/// A running reader service.
pub struct Running {
    stop: CancellationToken,
    task: JoinHandle<Result<(), CardError>>,
}

impl Running {
    /// Stops it and insists on the five seconds of the house.
    pub async fn stop(self) {
        self.stop.cancel();
        tokio::time::timeout(Duration::from_secs(5), self.task)
            .await
            .expect("stops within 5 s")
            .unwrap()
            .unwrap();
    }

    /// Drops it where it stands, be it in the middle of a command to a card.
    pub async fn kill(self) {
        self.task.abort();
        let _ = self.task.await;
    }
}

impl Gateway {
    /// What a service keeps beside the store.
    pub fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    /// Its store is opened anew, as at the program's next start.
    pub async fn open_again(&mut self) {
        self.store.close().await;
        self.store = open(&self.folder);
    }

    pub fn new() -> Self {
        let folder = folder();
        let store = open(&folder);
        Self { store, health: Health::default(), folder }
    }

    pub fn serve(&self, table: ReaderTable) -> Running {
        self.serve_members(table, None)
    }

    /// With the keys of member cards.
    pub fn serve_members(&self, table: ReaderTable, members: Option<Arc<Members>>) -> Running {
        self.serve_shop(table, members, shop())
    }

    /// With rules of its own.
    pub fn serve_shop(&self, table: ReaderTable, members: Option<Arc<Members>>, shop: Shop) -> Running {
        let stop = CancellationToken::new();
        let till = Some("till-1".parse().unwrap());
        let shop = watch::Sender::new(Arc::new(shop)).subscribe();
        let (store, health) = (self.store.clone(), self.health.clone());
        let service = serve_reader(table, till, members, shop, store, health, stop.clone());
        Running { stop, task: tokio::spawn(service) }
    }

    /// Everything told so far: `(type, data)`.
    pub async fn told(&self) -> Vec<(String, Value)> {
        let events = self.store.read(|log| log.events_after(Offset(0), 1000)).await.unwrap();
        events
            .iter()
            .map(|logged| {
                (logged.event.kind.to_string(), serde_json::from_str(logged.event.data.get()).unwrap())
            })
            .collect()
    }

    /// The card events told so far by a reader, each as `type UID-or-reason`.
    pub async fn cards(&self, reader: &str) -> Vec<String> {
        let told = self.told().await;
        let cards = told.iter().filter(|(kind, data)| kind.starts_with("card.") && data["reader"] == reader);
        cards
            .map(|(kind, data)| {
                let word = data["uid"].as_str().or(data["reason"].as_str()).unwrap();
                format!("{} {word}", kind.trim_start_matches("card."))
            })
            .collect()
    }

    /// Waits until the card events of a reader are these, and fails as soon as they cannot become so.
    pub async fn expect_cards(&self, reader: &str, expected: &[&str]) {
        let mut head = self.store.head();
        let wait = async {
            loop {
                head.borrow_and_update();
                let cards = self.cards(reader).await;
                if cards == expected {
                    return;
                }
                assert!(expected.len() > cards.len(), "told {cards:?}, expected {expected:?}");
                head.changed().await.unwrap();
            }
        };
        if tokio::time::timeout(PATIENCE, wait).await.is_err() {
            panic!("{reader} told {:?}, expected {expected:?}", self.told().await);
        }
    }

    pub async fn expect_state(
        &self,
        reader: &str,
        status: DeviceStatus,
        reason: Option<&str>,
    ) -> DeviceState {
        let mut head = self.store.head();
        let wait = async {
            loop {
                head.borrow_and_update();
                let rows = self.store.read(|log| log.devices(DeviceKind::Reader)).await.unwrap();
                let row = rows.into_iter().find(|row| row.id.as_str() == reader);
                if let Some(row) = row
                    && row.state.state == status
                    && row.state.reason.as_deref() == reason
                {
                    return row.state;
                }
                head.changed().await.unwrap();
            }
        };
        match tokio::time::timeout(PATIENCE, wait).await {
            Ok(state) => state,
            Err(_) => panic!("{reader} never {status:?} {reason:?}: {:?}", self.told().await),
        }
    }

    pub async fn in_field(&self) -> Vec<CardInField> {
        self.store.read(|log| log.cards_in_field()).await.unwrap()
    }
}
