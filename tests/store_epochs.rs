//! Identity doubted, with the real program and a real Mosquitto: a folder copied
//! back by hand, an image put back unseen, a clone beside its original, a start
//! killed before it could speak, a damaged file. Headquarters never sees a number
//! used twice.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "support/daemon.rs"]
mod daemon;
#[path = "support/headquarters.rs"]
mod headquarters;
mod mqtt;
mod sqlite_pages;
mod store_setup;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use baygate::event::Class;
use baygate::sim::headquarters::{Received, Verdict};
use baygate::store::{Batch, Store, StoreOptions};
use daemon::{Daemon, Desk, program};
use headquarters::Headquarters;
use mqtt::{BASE, Mosquitto, publish};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use sqlite_pages::{Format, Kind, PAGE};

impl Headquarters {
    /// Waits for the next new event that fits.
    async fn next(&mut self, what: &str, fits: impl Fn(&Value) -> bool) -> Value {
        loop {
            let received = self.hears(what).await;
            if received.verdict == Verdict::Fresh && fits(&received.event) {
                return received.event;
            }
        }
    }

    async fn started(&mut self, gateway: &str) -> Value {
        let source = format!("/stores/SH-0042/gateways/{gateway}");
        self.next("gateway.started", |event| {
            event["type"] == "baygate.gateway.started" && event["source"] == source.as_str()
        })
        .await
    }

    /// Waits until so many events of a class of an epoch are in, those told as lost too.
    async fn has(&mut self, epoch: &str, class: &str, count: u64) {
        while self.known(epoch, class).len() < count as usize {
            self.next(&format!("{count} of {class}"), |_| true).await;
        }
    }

    fn known(&self, epoch: &str, class: &str) -> BTreeSet<u64> {
        let mut known = BTreeSet::new();
        for Received { event, .. } in &self.seen {
            if event["epoch"] == epoch && event["class"] == class {
                known.insert(event["classsequence"].as_str().unwrap().parse().unwrap());
            }
            let data = &event["data"];
            if event["type"] == "baygate.gateway.gap" && data["gap_epoch"] == epoch && data["class"] == class
            {
                assert_eq!(data["reason"], "damaged");
                known.extend(data["from"].as_u64().unwrap()..=data["to"].as_u64().unwrap());
            }
        }
        known
    }
}

fn desk(port: u16) -> Desk {
    let desk = Desk::new();
    desk.write(&format!("[mqtt]\nurl = \"mqtt://127.0.0.1:{port}\"\nconfirm = \"headquarters\"\n"));
    desk
}

async fn stop(mut daemon: Daemon) {
    daemon.signal(Signal::SIGTERM);
    assert!(daemon.ended().await.success(), "{}", daemon.log());
}

/// Reloads make events: one each.
async fn reload(daemon: &Daemon, headquarters: &mut Headquarters, times: usize) {
    for _ in 0..times {
        daemon.signal(Signal::SIGHUP);
        headquarters.next("gateway.config", |event| event["type"] == "baygate.gateway.config").await;
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_file() {
            // Over a file that is there, its inode stays: as `cp` does.
            std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_copied_back_by_hand_uses_no_number_twice() {
    let mosquitto = Mosquitto::start("").await;
    let mut headquarters = Headquarters::open(mosquitto.port);
    let desk = desk(mosquitto.port);
    let daemon = Daemon::start(&desk.config()).await;
    let first = headquarters.started("gw-1").await;
    assert_eq!(first["data"]["new_epoch"], "created");
    reload(&daemon, &mut headquarters, 2).await;
    stop(daemon).await;
    copy(&desk.path("data"), &desk.path("image"));
    let daemon = Daemon::start(&desk.config()).await;
    let second = headquarters.started("gw-1").await;
    assert_eq!((&second["epoch"], &second["data"]["new_epoch"]), (&first["epoch"], &Value::Null));
    reload(&daemon, &mut headquarters, 5).await;
    stop(daemon).await;
    // The folder of yesterday is back; this machine, this store, this gateway.
    std::fs::remove_dir_all(desk.path("data")).unwrap();
    copy(&desk.path("image"), &desk.path("data"));
    let daemon = Daemon::start(&desk.config()).await;
    let third = headquarters.started("gw-1").await;
    assert_ne!(third["epoch"], first["epoch"]);
    assert_eq!(
        (&third["data"]["new_epoch"], &third["data"]["previous_epoch"]),
        (&json!("restored"), &first["epoch"])
    );
    reload(&daemon, &mut headquarters, 3).await;
    stop(daemon).await;
    // It is at home here now.
    let daemon = Daemon::start(&desk.config()).await;
    let fourth = headquarters.started("gw-1").await;
    assert_eq!((&fourth["epoch"], &fourth["data"]["new_epoch"]), (&third["epoch"], &Value::Null));
    stop(daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_put_back_unseen_is_known_by_headquarters_word() {
    for word in ["ack", "state"] {
        let mosquitto = Mosquitto::start("").await;
        let mut headquarters = Headquarters::open(mosquitto.port);
        let desk = desk(mosquitto.port);
        let daemon = Daemon::start(&desk.config()).await;
        let first = headquarters.started("gw-1").await;
        stop(daemon).await;
        copy(&desk.path("data"), &desk.path("image"));
        let daemon = Daemon::start(&desk.config()).await;
        headquarters.started("gw-1").await;
        reload(&daemon, &mut headquarters, 5).await;
        stop(daemon).await;
        // The same file with yesterday's content: nothing here tells.
        copy(&desk.path("image"), &desk.path("data"));
        for leftover in ["baygate.db-wal", "baygate.db-shm"] {
            let _ = std::fs::remove_file(desk.path("data").join(leftover));
        }
        let epoch = first["epoch"].as_str().unwrap();
        let last = *headquarters.known(epoch, "gateway").last().unwrap();
        let text = match word {
            "ack" => json!({ "epoch": epoch, "classes": { "gateway": last } }),
            _ => {
                json!({ "online": true, "connection": uuid::Uuid::new_v4(), "epoch": epoch, "last": { "gateway": last } })
            }
        };
        publish(mosquitto.port, &format!("{BASE}/{word}"), &text.to_string(), true).await;
        let daemon = Daemon::start(&desk.config()).await;
        let started = headquarters.started("gw-1").await;
        assert_ne!(started["epoch"], first["epoch"], "{word}: the start's own event has a number of its own");
        assert_eq!(started["classsequence"], "00000000000000000001", "{word}");
        assert_eq!(started["sequence"], "00000000000000000001", "{word}");
        reload(&daemon, &mut headquarters, 3).await;
        stop(daemon).await;
        let verify =
            program().args(["buffer", "verify", "--config"]).arg(desk.config()).output().await.unwrap();
        assert!(verify.status.success(), "{word}: {verify:?}");
        let status = program()
            .args(["buffer", "status", "--json", "--config"])
            .arg(desk.config())
            .output()
            .await
            .unwrap();
        let status: Value = serde_json::from_slice(&status.stdout).unwrap();
        assert_eq!(status["card_writes_held"]["why"], "ahead", "{word}: {status}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clone_beside_its_original_speaks_for_itself() {
    let mosquitto = Mosquitto::start("").await;
    let mut headquarters = Headquarters::open(mosquitto.port);
    let (original, clone) = (desk(mosquitto.port), desk(mosquitto.port));
    let daemon = Daemon::start(&original.config()).await;
    let first = headquarters.started("gw-1").await;
    reload(&daemon, &mut headquarters, 2).await;
    stop(daemon).await;
    // The disk is cloned, the clone gets a name of its own, and both run.
    copy(&original.path("data"), &clone.path("data"));
    let text = std::fs::read_to_string(clone.config()).unwrap().replace("\"gw-1\"", "\"gw-2\"");
    std::fs::write(clone.config(), text).unwrap();
    let one = Daemon::start(&original.config()).await;
    let again = headquarters.started("gw-1").await;
    assert_eq!((&again["epoch"], &again["data"]["new_epoch"]), (&first["epoch"], &Value::Null));
    let two = Daemon::start(&clone.config()).await;
    let cloned = headquarters.started("gw-2").await;
    assert_eq!(cloned["data"]["new_epoch"], "cloned");
    assert_eq!(cloned["data"]["previous_epoch"], first["epoch"]);
    assert_ne!(cloned["epoch"], first["epoch"]);
    for _ in 0..3 {
        reload(&one, &mut headquarters, 1).await;
        reload(&two, &mut headquarters, 1).await;
    }
    stop(one).await;
    stop(two).await;
}

fn options(data: &Path) -> StoreOptions {
    let machine_id = std::fs::read_to_string("/etc/machine-id").ok().map(|id| id.trim().to_owned());
    StoreOptions { machine_id, ..store_setup::options(data) }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_killed_before_its_first_word_loses_none() {
    let mosquitto = Mosquitto::start("").await;
    let mut headquarters = Headquarters::open(mosquitto.port);
    let desk = desk(mosquitto.port);
    // The store is open, a new epoch has begun, `gateway.started` is not committed: killed.
    drop(Store::open(&options(&desk.path("data"))).unwrap());
    let daemon = Daemon::start(&desk.config()).await;
    let first = headquarters.started("gw-1").await;
    assert_eq!(first["data"]["new_epoch"], "created");
    stop(daemon).await;
    let copy = desk.path("copy.db");
    for words in ["backup", "restore"] {
        let done = program()
            .args(["buffer", words, "--config"])
            .arg(desk.config())
            .arg(&copy)
            .output()
            .await
            .unwrap();
        assert!(done.status.success(), "{done:?}");
    }
    drop(Store::open(&options(&desk.path("data"))).unwrap());
    drop(Store::open(&options(&desk.path("data"))).unwrap());
    let daemon = Daemon::start(&desk.config()).await;
    let second = headquarters.started("gw-1").await;
    assert_eq!(
        (&second["data"]["new_epoch"], &second["data"]["previous_epoch"]),
        (&json!("restored"), &first["epoch"])
    );
    stop(daemon).await;
    let daemon = Daemon::start(&desk.config()).await;
    let third = headquarters.started("gw-1").await;
    assert_eq!((&third["data"]["new_epoch"], &third["epoch"]), (&Value::Null, &second["epoch"]), "told once");
    stop(daemon).await;
}

/// 300 events of two classes that nobody has sent yet. Gives their epoch.
async fn unsent(data: &Path) -> String {
    let (store, opened) = Store::open(&options(data)).unwrap();
    for _ in 0..300 {
        let batch = Batch::new()
            .event(store_setup::event(Class::Card, 300))
            .event(store_setup::event(Class::Ledger, 200));
        store.commit(batch).await.unwrap();
    }
    store.close().await;
    opened.epoch.to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_file_is_salvaged_and_its_rows_are_sent() {
    for harm in ["a leaf gone", "the header gone", "an index gone"] {
        let mosquitto = Mosquitto::start("").await;
        let mut headquarters = Headquarters::open(mosquitto.port);
        let desk = desk(mosquitto.port);
        let epoch = unsent(&desk.path("data")).await;
        let path = desk.path("data").join("baygate.db");
        let format = Format::read(&path);
        let leaf =
            format.of(Kind::TableLeaf, "event").into_iter().find(|page| page.rows.contains(&20)).unwrap();
        let (mut bytes, lost) =
            (format.bytes.clone(), if harm == "a leaf gone" { leaf.rows.len() } else { 0 });
        let mut clear = |no: usize| bytes[(no - 1) * PAGE..no * PAGE].fill(0);
        match harm {
            "a leaf gone" => clear(leaf.no),
            // What lies in it lies in the table as well.
            "an index gone" => {
                let leaves = format.of(Kind::IndexLeaf, "event_by_class");
                assert!(!leaves.is_empty());
                leaves.iter().for_each(|page| clear(page.no));
            }
            _ => bytes[..100].fill(0xA5),
        }
        std::fs::write(&path, &bytes).unwrap();
        let daemon = Daemon::start(&desk.config()).await;
        for class in ["ledger", "card"] {
            headquarters.has(&epoch, class, 300).await;
        }
        let started = headquarters
            .seen
            .iter()
            .find(|r| r.event["type"] == "baygate.gateway.started")
            .unwrap()
            .event
            .clone();
        assert_eq!(
            (&started["data"]["new_epoch"], &started["data"]["previous_epoch"]),
            (&json!("salvaged"), &json!(epoch))
        );
        assert_ne!(started["epoch"], epoch.as_str());
        let fresh = |class: &str| {
            let of = |r: &&Received| {
                r.verdict == Verdict::Fresh && r.event["epoch"] == epoch.as_str() && r.event["class"] == class
            };
            headquarters.seen.iter().filter(of).count()
        };
        assert_eq!(fresh("card") + fresh("ledger"), 600 - lost, "{harm}: what is readable was sent, once");
        let log = daemon.log();
        assert!(log.contains("baygate.db.damaged-") && log.contains("database salvaged"), "{harm}: {log}");
        // Rows are missing, or tables may lie elsewhere than the first page that was lent to it says.
        assert_eq!(log.contains("card-writes-held"), harm != "an index gone", "{harm}: {log}");
        stop(daemon).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_rots_at_run_time_holds_up_its_class_alone() {
    let mosquitto = Mosquitto::start("").await;
    let mut headquarters = Headquarters::open(mosquitto.port);
    let desk = desk(mosquitto.port);
    let epoch = unsent(&desk.path("data")).await;
    let raw = rusqlite::Connection::open(desk.path("data").join("baygate.db")).unwrap();
    raw.execute(
        "UPDATE event SET data = replace(data, 'x\"', 'y\"') WHERE class = 2 AND class_sequence = 150",
        [],
    )
    .unwrap();
    drop(raw);
    let mut daemon = Daemon::start(&desk.config()).await;
    headquarters.has(&epoch, "ledger", 300).await;
    headquarters.has(&epoch, "card", 149).await;
    daemon.says("the database file is damaged").await;
    reload(&daemon, &mut headquarters, 2).await;
    assert_eq!(headquarters.known(&epoch, "card").len(), 149, "nothing beyond what cannot be believed");
    stop(daemon).await;
    let daemon = Daemon::start(&desk.config()).await;
    headquarters.has(&epoch, "card", 300).await;
    stop(daemon).await;
    let mut payloads: BTreeMap<String, usize> = BTreeMap::new();
    for received in &headquarters.seen {
        if let Some(note) = received.event["data"]["note"].as_str() {
            *payloads.entry(note.to_owned()).or_default() += 1;
        }
    }
    assert!(payloads.keys().all(|note| note.bytes().all(|byte| byte == b'x')), "something altered was told");
}
