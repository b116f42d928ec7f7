//! Disks that fail otherwise than by being full, under the real program: one that the
//! kernel turns read-only while it runs, and one that has no inodes left. What was
//! answered is kept, what cannot be kept is refused with a word, and the next start
//! needs nobody. Where nothing may be mounted the tests fail and say so.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "support/daemon.rs"]
mod daemon;
#[path = "support/mount.rs"]
mod mount;
#[path = "support/until.rs"]
mod until;

use std::path::PathBuf;
use std::process::{Command, Output};

use baygate::api::client::{Answer, Client, Method};
use daemon::{Daemon, Desk, LONG, program};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use until::until;

/// A file system of its own where the desk has its `data_dir`.
struct Mounted {
    desk: Desk,
}

fn done(command: &mut Command) -> bool {
    let done: Option<Output> = command.output().ok();
    let well = done.as_ref().is_some_and(|done| done.status.success());
    if !well {
        println!("{command:?}: {done:?}");
    }
    well
}

impl Mounted {
    /// `what`: of the mount command, before the place.
    fn mount(desk: Desk, what: &[&str]) -> Self {
        std::fs::create_dir(desk.path("data")).unwrap();
        let printer = desk.path("faces");
        desk.write(&format!(
            "[[printer]]\nid = \"face-1\"\nkind = \"png\"\nlink = \"file://{}\"\n",
            printer.display()
        ));
        mount::mount(what, &desk.path("data"));
        Self { desk }
    }

    fn again(&self, what: &[&str]) -> bool {
        done(Command::new("mount").args(what).arg(self.data()))
    }

    fn data(&self) -> PathBuf {
        self.desk.path("data")
    }

    async fn ask(&self, method: Method, path: &str, body: Option<&Value>) -> Answer {
        let client = Client::connect(self.desk.path("control.sock")).await.unwrap();
        let asked = client.request(method, path, body);
        tokio::time::timeout(LONG, asked).await.expect("an answer, not a silence").unwrap()
    }

    /// A face is asked for.
    async fn print(&self, n: u64) -> Answer {
        let fields = json!({"card_no": format!("{n:08}"), "points": n, "offer": "下次保养工时八折", "qr": "https://example.com"});
        let body = json!({"printer": "face-1", "card_no": format!("{n:08}"), "fields": fields});
        self.ask(Method::POST, "/v1/print-jobs", Some(&body)).await
    }

    async fn buffer(&self, words: &[&str]) -> Output {
        program().args(["buffer", "--data-dir"]).arg(self.data()).args(words).output().await.unwrap()
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        mount::unmount(&self.data());
    }
}

async fn ends_orderly(mut daemon: Daemon) {
    daemon.signal(Signal::SIGTERM);
    assert!(daemon.ended().await.success(), "{}", daemon.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_turns_read_only_loses_nothing_that_was_answered() {
    if mount::left_out() {
        return;
    }
    let desk = Desk::new();
    let image = desk.path("image").display().to_string();
    std::fs::File::create(&image).unwrap().set_len(64 << 20).unwrap();
    assert!(done(Command::new("mkfs.ext4").args(["-q", &image])));
    let what = ["-o", "loop,errors=remount-ro", &image];
    let disk = Mounted::mount(desk, &what);
    let daemon = Daemon::start(&disk.desk.config()).await;
    let mut jobs = Vec::new();
    for n in 1..=20 {
        let answer = disk.print(n).await;
        assert!(answer.status < 300, "{answer:?}");
        jobs.push(answer.body["job"].as_str().unwrap().to_owned());
    }

    // As the kernel does where it finds the file system broken.
    let device = Command::new("findmnt").args(["-no", "SOURCE"]).arg(disk.data()).output().unwrap();
    let device = String::from_utf8(device.stdout).unwrap().trim().replace("/dev/", "");
    if std::fs::write(format!("/sys/fs/ext4/{device}/trigger_fs_error"), "1").is_err() {
        mount::refused(&format!("{device} cannot be broken"));
    }
    for n in 21..=25 {
        let answer = disk.print(n).await;
        assert_eq!((answer.status, &answer.body["code"]), (500, &json!("store-failed")), "{answer:?}");
    }
    let trouble = until("the disk is named", async || {
        let answer = disk.ask(Method::GET, "/readyz", None).await;
        let troubles = answer.body["troubles"].as_array()?.clone();
        let trouble = troubles.into_iter().find(|trouble| trouble["part"] == "store/disk")?;
        (answer.status == 503).then_some(trouble)
    })
    .await;
    assert_eq!((&trouble["code"], &trouble["blocks_ready"]), (&json!("disk-error"), &json!(true)));
    assert!(trouble["text"]["en"].as_str().unwrap().contains("check the storage device"), "{trouble}");
    // What is there can still be read.
    let job = disk.ask(Method::GET, &format!("/v1/print-jobs/{}", jobs[0]), None).await;
    assert_eq!(job.status, 200, "{job:?}");
    ends_orderly(daemon).await;

    // Mounted anew: no repair of ours, no new epoch.
    assert!(done(Command::new("umount").arg(disk.data())));
    // Status 1: it was broken and is not any more.
    let _ = Command::new("e2fsck").args(["-p", &image]).output();
    assert!(disk.again(&what));
    let daemon = Daemon::start(&disk.desk.config()).await;
    for job in &jobs {
        let answer = disk.ask(Method::GET, &format!("/v1/print-jobs/{job}"), None).await;
        assert_eq!(answer.status, 200, "a job that was answered is gone: {answer:?}");
    }
    until("new work is taken", async || (disk.print(30).await.status < 300).then_some(())).await;
    ends_orderly(daemon).await;
    let status: Value = serde_json::from_slice(&disk.buffer(&["status", "--json"]).await.stdout).unwrap();
    assert_eq!(status["epochs"], 1, "{status}");
    let verdict = disk.buffer(&["verify", "--json"]).await;
    assert!(String::from_utf8_lossy(&verdict.stdout).contains("\"sound\":true"), "{verdict:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_inodes_it_goes_on_and_a_start_says_what_to_do() {
    if mount::left_out() {
        return;
    }
    let what = ["-t", "tmpfs", "-o", "size=64m,nr_inodes=40", "tmpfs"];
    let disk = Mounted::mount(Desk::new(), &what);
    let daemon = Daemon::start(&disk.desk.config()).await;
    let small = |n: usize| disk.data().join(format!("small-{n}"));
    let fill = || (0..200).take_while(|n| std::fs::File::create(small(*n)).is_ok()).count();
    assert!(fill() < 40);
    // Its files are there already.
    for n in 1..=20 {
        let answer = disk.print(n).await;
        assert!(answer.status < 300, "{answer:?}");
    }
    assert_eq!(disk.ask(Method::GET, "/readyz", None).await.status, 200);
    ends_orderly(daemon).await;

    // As a store that was copied here has no WAL and no index: they cannot be made.
    let beside = |suffix: &str| disk.data().join(format!("baygate.db-{suffix}"));
    assert_eq!(std::fs::metadata(beside("wal")).map_or(0, |wal| wal.len()), 0, "an orderly end leaves none");
    ["wal", "shm"].into_iter().for_each(|suffix| drop(std::fs::remove_file(beside(suffix))));
    fill();
    let run = program().args(["run", "--config"]).arg(disk.desk.config()).output();
    let refused = tokio::time::timeout(LONG, run).await.expect("it ends").unwrap();
    let said = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert!(said.contains("No space left") && said.contains("inodes") && said.contains("df -i"), "{said}");
    (0..200).for_each(|n| drop(std::fs::remove_file(small(n))));
    let daemon = Daemon::start(&disk.desk.config()).await;
    assert!(disk.print(21).await.status < 300);
    ends_orderly(daemon).await;
    let verdict = disk.buffer(&["verify", "--json"]).await;
    assert!(String::from_utf8_lossy(&verdict.stdout).contains("\"sound\":true"), "{verdict:?}");
}
