//! A disk that others fill while the daemon runs, and one that is full when it
//! starts. Telemetry goes first, and is told as gone; money and deliveries go on
//! from the reserve; everybody who asks is told what to do; and when there is
//! room again all goes on by itself.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "support/daemon.rs"]
mod daemon;
#[path = "support/headquarters.rs"]
mod headquarters;
#[path = "support/mount.rs"]
mod mount;
mod mqtt;

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use baygate::api::client::{Client, Method};
use baygate::event::NewEvent;
use baygate::sim::headquarters::{Received, Verdict};
use baygate::store::{Batch, Store, StoreOptions};
use daemon::{Daemon, LONG, program, share};
use headquarters::Headquarters;
use mqtt::{Money, Mosquitto, Signals, Tap, free_port, source, until};
use serde_json::{Value, json};

/// A file system of its own, and a desk beside it.
struct SmallDisk {
    disk: tempfile::TempDir,
    desk: tempfile::TempDir,
}

impl SmallDisk {
    /// Nothing where this test is to be left out.
    fn mount(mib: u32) -> Option<Self> {
        if mount::left_out() {
            return None;
        }
        let small = Self { disk: tempfile::tempdir().unwrap(), desk: tempfile::tempdir().unwrap() };
        mount::small(1024 * mib, small.disk.path());
        Some(small)
    }

    fn data(&self) -> PathBuf {
        self.disk.path().join("data")
    }

    fn config(&self) -> PathBuf {
        self.desk.path().join("baygate.toml")
    }

    fn socket(&self) -> PathBuf {
        self.desk.path().join("control.sock")
    }

    fn write(&self, broker: u16) {
        let desk = self.desk.path().display();
        let text = format!(
            "[gateway]\nstore = \"SH-0042\"\nid = \"gw-1\"\nlocale = \"en\"\ndata_dir = \"{}\"\n{}\n\
             [api]\nlisten = \"127.0.0.1:0\"\ncontrol_socket = \"{desk}/control.sock\"\n\n\
             [buffer]\nmax_bytes = \"64MiB\"\n\n\
             [mqtt]\nurl = \"mqtt://127.0.0.1:{broker}\"\nconfirm = \"headquarters\"\n\n\
             [[printer]]\nid = \"face-1\"\nkind = \"png\"\nlink = \"file://{desk}/faces\"\n",
            self.data().display(),
            share(),
        );
        std::fs::write(self.config(), text).unwrap();
    }

    /// What a night without a line leaves in the log.
    async fn backlog(&self) {
        let options = StoreOptions {
            data_dir: self.data(),
            source: source(),
            machine_id: std::fs::read_to_string("/etc/machine-id").ok().map(|id| id.trim().to_owned()),
            max_bytes: 64 << 20,
            limits: Vec::new(),
        };
        let (store, _) = Store::open(&options).unwrap();
        for n in 0..300 {
            let mut events: Vec<NewEvent> = vec![Signals::event(n, 8000)];
            if n % 10 == 0 {
                events.extend([Money::event(n, 300), Tap::event(n, 300)]);
            }
            for event in events {
                store.commit(Batch::new().event(event)).await.unwrap();
            }
        }
        store.close().await;
    }

    /// Somebody else writes until nothing more fits.
    fn fill(&self) {
        let mut file = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.disk.path().join("filler"))
            .unwrap();
        for piece in [65536, 4096] {
            while file.write_all(&vec![0; piece]).is_ok() {}
        }
    }

    fn empty(&self) {
        std::fs::remove_file(self.disk.path().join("filler")).unwrap();
    }

    /// `baygate buffer …` as it is printed.
    async fn buffer(&self, arguments: &[&str]) -> String {
        let done =
            program().args(["buffer", "--data-dir"]).arg(self.data()).args(arguments).output().await.unwrap();
        String::from_utf8(done.stdout).unwrap()
    }

    async fn status(&self) -> Value {
        serde_json::from_str(&self.buffer(&["status", "--json"]).await).unwrap()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(self.disk.path()).status();
    }
}

impl Headquarters {
    /// Waits until so many different events of a type are in that match.
    async fn gets(&mut self, kind: &str, count: usize, matches: impl Fn(&Value) -> bool) {
        let kind = format!("baygate.{kind}");
        let mut found = self.seen.iter().filter(|r| fits(r, &kind, &matches)).count();
        while found < count {
            let received = self.hears(&format!("{count} {kind}, has {found}")).await;
            found += usize::from(fits(&received, &kind, &matches));
        }
    }

    /// Each class without a hole but those told, no event twice; the gaps that were told.
    fn assert_whole(&self) -> Vec<Value> {
        let mut got: BTreeMap<String, Vec<u64>> = BTreeMap::new();
        let mut gaps = Vec::new();
        for received in self.seen.iter().filter(|r| r.verdict == Verdict::Fresh) {
            let event = &received.event;
            let text = |key: &str| event[key].as_str().unwrap();
            got.entry(text("class").into()).or_default().push(text("classsequence").parse().unwrap());
            if event["type"] == "baygate.gateway.gap" {
                gaps.push(event["data"].clone());
            }
        }
        for (class, sequences) in got {
            assert!(sequences.is_sorted_by(|a, b| a < b), "{class}: {sequences:?}");
            let told = |n: u64| {
                let of = gaps.iter().filter(|gap| {
                    gap["class"] == class.as_str()
                        && (gap["from"].as_u64().unwrap()..=gap["to"].as_u64().unwrap()).contains(&n)
                });
                of.count()
            };
            for n in 1..=*sequences.last().unwrap() {
                let here = usize::from(sequences.binary_search(&n).is_ok());
                assert_eq!(here + told(n), 1, "{class} {n}: {gaps:?}");
            }
        }
        gaps
    }
}

fn fits(received: &Received, kind: &str, matches: impl Fn(&Value) -> bool) -> bool {
    received.verdict == Verdict::Fresh && received.event["type"] == kind && matches(&received.event["data"])
}

async fn ready(socket: &Path) -> (u16, Value) {
    let client = Client::connect(socket).await.unwrap();
    let answer = client.request(Method::GET, "/readyz", None).await.unwrap();
    (answer.status, answer.body)
}

/// A face is asked for: its status, its code where it was refused, its job where not.
async fn print(socket: &Path, n: u64) -> (u16, Value) {
    let fields = json!({"card_no": format!("{n:08}"), "points": n, "offer": "下次保养工时八折", "qr": "https://example.com"});
    let body = json!({"printer": "face-1", "card_no": format!("{n:08}"), "fields": fields});
    let client = Client::connect(socket).await.unwrap();
    let asked = client.request(Method::POST, "/v1/print-jobs", Some(&body));
    let answer = tokio::time::timeout(LONG, asked).await.expect("an answer, not a silence").unwrap();
    (answer.status, answer.body)
}

fn disk_trouble(body: &Value) -> Option<Value> {
    body["troubles"].as_array()?.iter().find(|t| t["part"] == "store/space").cloned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_others_fill_is_outlived() {
    let Some(disk) = SmallDisk::mount(24) else { return };
    let port = free_port();
    disk.write(port);
    disk.backlog().await;
    let mut daemon = Daemon::start(&disk.config()).await;
    let pid = daemon.pid();
    disk.fill();

    // New work is taken as long as it fits, then refused with a word.
    let mut jobs = 0;
    let refused = loop {
        let (status, body) = print(&disk.socket(), jobs).await;
        if status >= 300 {
            break (status, body);
        }
        jobs += 1;
        assert!(jobs < 5000, "never refused");
    };
    assert_eq!((refused.0, &refused.1["code"]), (507, &json!("storage-full")), "{refused:?}");
    let full = until("it says that the disk is full", async || {
        let (status, body) = ready(&disk.socket()).await;
        (status == 503).then(|| disk_trouble(&body)).flatten()
    })
    .await;
    assert_eq!(full["code"], "disk-full");
    assert!(full["text"]["en"].as_str().unwrap().contains("free space on the disk"), "{full}");
    assert!(full["text"]["zh"].as_str().unwrap().contains("清理"), "{full}");
    let status = disk.status().await;
    assert_eq!(status["disk_full"], true, "{status}");
    assert!(disk.buffer(&["status", "--locale", "en"]).await.contains("the disk is full"));
    assert!(disk.buffer(&["status", "--locale", "zh-CN"]).await.contains("磁盘已满"));

    // Telemetry has gone, nothing else.
    let unsent = |status: &Value, class: &str| {
        let classes = status["classes"].as_array().unwrap();
        classes.iter().find(|c| c["class"] == class).unwrap()["unsent_rows"].as_u64().unwrap()
    };
    let status = until("telemetry made room", async || {
        let status = disk.status().await;
        (unsent(&status, "telemetry") < 300).then_some(status)
    })
    .await;
    assert_eq!((unsent(&status, "ledger"), unsent(&status, "card")), (30, 30));

    // The line comes back while the disk is still full: money and the rest arrive, and that is noted.
    let mut broker = Mosquitto::start_on(port, "").await;
    let mut hq = Headquarters::open(port);
    hq.gets("card.transaction", 30, |_| true).await;
    hq.gets("card.tapped", 30, |_| true).await;
    until("the deliveries are noted on the full disk", async || {
        (unsent(&disk.status().await, "ledger") == 0).then_some(())
    })
    .await;
    assert_eq!(disk.status().await["disk_full"], true);

    // Room again: by itself, the same process.
    disk.empty();
    until("it is ready again", async || (ready(&disk.socket()).await.0 == 200).then_some(())).await;
    assert_eq!(disk.status().await["disk_full"], false);
    until("new work is taken", async || (print(&disk.socket(), 9999).await.0 < 300).then_some(())).await;
    assert_eq!(daemon.pid(), pid);
    // Those taken before, and the last.
    let wanted = usize::try_from(jobs).unwrap() + 1;
    hq.gets("printer.job", wanted, |data| data["state"] == "done").await;
    daemon.signal(nix::sys::signal::Signal::SIGTERM);
    assert!(daemon.ended().await.success());
    hq.gets("gateway.stopping", 1, |_| true).await;
    let gaps = hq.assert_whole();
    assert!(
        !gaps.is_empty() && gaps.iter().all(|gap| gap["class"] == "telemetry" && gap["reason"] == "full")
    );
    // One gap a stretch: two that touch would be one.
    let mut ends: Vec<(u64, u64)> =
        gaps.iter().map(|gap| (gap["from"].as_u64().unwrap(), gap["to"].as_u64().unwrap())).collect();
    ends.sort_unstable();
    println!("{jobs} jobs taken before the disk was full; telemetry gone: {ends:?}");
    assert!(ends.windows(2).all(|two| two[0].1 + 1 < two[1].0), "one stretch told in pieces: {ends:?}");
    assert!(disk.buffer(&["verify", "--json"]).await.contains("\"sound\":true"));
    broker.kill();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_full_at_the_start_still_delivers() {
    let Some(disk) = SmallDisk::mount(24) else { return };
    let mut broker = Mosquitto::start("").await;
    let mut hq = Headquarters::open(broker.port);
    disk.write(broker.port);
    disk.backlog().await;
    disk.fill();
    let mut daemon = Daemon::start(&disk.config()).await;
    hq.gets("card.transaction", 30, |_| true).await;
    hq.gets("card.tapped", 30, |_| true).await;
    hq.gets("gateway.started", 1, |_| true).await;
    disk.empty();
    until("it is ready", async || (ready(&disk.socket()).await.0 == 200).then_some(())).await;
    daemon.signal(nix::sys::signal::Signal::SIGTERM);
    assert!(daemon.ended().await.success());
    hq.gets("gateway.stopping", 1, |_| true).await;
    hq.assert_whole();
    assert!(disk.buffer(&["verify", "--json"]).await.contains("\"sound\":true"));
    broker.kill();
}

/// What a daemon says that cannot start.
async fn refusal(disk: &SmallDisk) -> String {
    let run = program().args(["run", "--config"]).arg(disk.config()).stdin(Stdio::null()).output();
    let done = tokio::time::timeout(LONG, run).await.expect("it ends").unwrap();
    assert_eq!(done.status.code(), Some(1), "{done:?}");
    String::from_utf8_lossy(&done.stderr).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_cannot_be_made_says_why() {
    let Some(disk) = SmallDisk::mount(4) else { return };
    disk.write(free_port());
    std::fs::create_dir(disk.data()).unwrap();
    disk.fill();
    let said = refusal(&disk).await;
    assert!(said.contains("full") && said.contains("free space"), "{said}");
    // With room it starts from what the failed start left behind.
    disk.empty();
    let daemon = Daemon::start(&disk.config()).await;
    daemon.kill().await;
    // Read-only, as a disk becomes that the kernel no longer trusts.
    let mount = |how: &str| {
        let options = format!("remount,{how}");
        let done = std::process::Command::new("mount").args(["-o", &options]).arg(disk.disk.path()).status();
        assert!(done.unwrap().success());
    };
    mount("ro");
    let said = refusal(&disk).await;
    assert!(said.contains("Read-only file system"), "{said}");
    mount("rw");
    Daemon::start(&disk.config()).await.kill().await;
}
