//! `baygate simulate headquarters` as a process: it acknowledges what its disk
//! has, knows it again after a kill, and says what is wrong.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod mqtt;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Stdio;

use mqtt::{BASE, LONG, Listener, Mosquitto, publish};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use uuid::Uuid;

const EPOCH: Uuid = Uuid::from_u128(7);

/// Headquarters under `wrapper` (a program and its arguments), or alone.
struct Process {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    /// Class sequences of which copies may still be told.
    repeated: BTreeSet<String>,
}

impl Process {
    async fn start(wrapper: &[&str], port: u16, journal: &Path, more: &[&str]) -> Self {
        let mut words = wrapper.to_vec();
        words.extend([env!("CARGO_BIN_EXE_baygate"), "simulate", "headquarters", "--json"]);
        let mut child = Command::new(words[0])
            .args(&words[1..])
            .args(["--broker", &format!("127.0.0.1:{port}"), "--journal"])
            .arg(journal)
            .args(more)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("strace must be installed");
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut process = Self { child, lines, repeated: BTreeSet::new() };
        assert_eq!(process.next().await["device"], "headquarters");
        process
    }

    async fn next(&mut self) -> Value {
        loop {
            let line = tokio::time::timeout(LONG, self.lines.next_line()).await.expect("says nothing");
            let told: Value = serde_json::from_str(&line.unwrap().expect("ended")).unwrap();
            let is_copy = self.repeated.iter().any(|sequence| told["classsequence"] == *sequence.as_str());
            if !(is_copy && told["verdict"] == "duplicate") {
                return told;
            }
        }
    }

    /// strace lets go of what it traces when it ends: headquarters itself must be ended.
    fn end_traced(&self) {
        let strace = self.child.id().unwrap();
        let traced = std::fs::read_to_string(format!("/proc/{strace}/task/{strace}/children")).unwrap();
        let traced = traced.trim().parse().expect("one child");
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(traced), nix::sys::signal::Signal::SIGKILL)
            .unwrap();
    }

    /// Publishes the event until headquarters, which may still be subscribing, says what it is.
    async fn gets(&mut self, port: u16, sequence: u64) -> String {
        let number = format!("{sequence:020}");
        let mut sent = 0;
        loop {
            send(port, sequence).await;
            sent += 1;
            let heard = tokio::time::timeout(std::time::Duration::from_millis(500), self.next());
            if let Ok(told) = heard.await {
                assert_eq!(told["classsequence"], number);
                if sent > 1 {
                    // It may have been slow, not away: then the others come as copies.
                    self.repeated.insert(number);
                }
                return told["verdict"].as_str().unwrap().to_owned();
            }
        }
    }
}

async fn send(port: u16, sequence: u64) {
    send_with(port, sequence, json!({})).await;
}

async fn send_with(port: u16, sequence: u64, data: Value) {
    let event = json!({ "id": Uuid::from_u128(u128::from(sequence)), "source": "/stores/SH-0042/gateways/gw-1",
        "type": "baygate.card.tapped", "epoch": EPOCH, "sequence": format!("{sequence:020}"),
        "classsequence": format!("{sequence:020}"), "class": "card", "data": data });
    publish(port, &format!("{BASE}/event/card/card.tapped"), &event.to_string(), false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_acknowledged_that_the_disk_did_not_take() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, trace) = (dir.path().join("hq.journal"), dir.path().join("trace"));
    let broker = Mosquitto::start("").await;
    let mut acks = Listener::start(broker.port, "5", &format!("{BASE}/ack")).await;
    // Its first three tries to reach the disk fail.
    let strace = ["strace", "-f", "-qq", "-o", trace.to_str().unwrap(), "-e", "trace=fdatasync"];
    let inject = ["-e", "inject=fdatasync:error=EIO:when=1..3"];
    // Ends by itself where a failure keeps the test from ending it.
    let most = ["--for", "2m"];
    let mut headquarters =
        Process::start(&[&strace[..], &inject[..]].concat(), broker.port, &journal, &most).await;
    assert_eq!(headquarters.gets(broker.port, 1).await, "fresh");
    let ack = acks.on("/ack").await;
    assert_eq!((&ack["classes"]["card"], &ack["epoch"]), (&1.into(), &json!(EPOCH)));
    let trace = std::fs::read_to_string(trace).unwrap();
    let failed = trace.lines().filter(|line| line.contains("INJECTED")).count();
    let done = trace.lines().filter(|line| line.contains("= 0")).count();
    assert!(failed == 3 && done >= 1, "{trace}");
    let text = std::fs::read_to_string(&journal).unwrap();
    assert_eq!(text.lines().count(), 1, "written whole, once: {text}");
    headquarters.end_traced();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_it_acknowledged_it_knows_after_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    let journal = dir.path().join("hq.journal");
    let broker = Mosquitto::start("").await;
    let mut acks = Listener::start(broker.port, "5", &format!("{BASE}/ack")).await;
    let mut headquarters = Process::start(&[], broker.port, &journal, &[]).await;
    assert_eq!(headquarters.gets(broker.port, 1).await, "fresh");
    while acks.on("/ack").await["classes"]["card"] != 1 {}
    send(broker.port, 3).await;
    assert_eq!(headquarters.next().await["verdict"], "ahead", "beyond a hole nothing is taken");

    let second = Command::new(env!("CARGO_BIN_EXE_baygate"))
        .args(["--locale", "en", "simulate", "headquarters"])
        .args(["--broker", &format!("127.0.0.1:{}", broker.port), "--journal"])
        .arg(&journal)
        .output();
    let second = second.await.unwrap();
    let said = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(second.status.code() == Some(1) && said.contains("another headquarters"), "{said}");

    headquarters.child.kill().await.unwrap();
    let mut torn = std::fs::read(&journal).unwrap();
    torn.extend(format!("/stores/SH-0042/gateways/gw-1 {EPOCH} card 2 0000").bytes());
    std::fs::write(&journal, torn).unwrap();
    let mut headquarters = Process::start(&[], broker.port, &journal, &[]).await;
    assert_eq!(headquarters.gets(broker.port, 1).await, "duplicate");
    send_with(broker.port, 1, json!({ "uid": "04A1B2" })).await;
    assert_eq!(headquarters.next().await["verdict"], "fork", "the same id, and another body");
    assert_eq!(headquarters.gets(broker.port, 2).await, "fresh", "the torn line was never acknowledged");
    while acks.on("/ack").await["classes"]["card"] != 2 {}
    assert_eq!(std::fs::read_to_string(&journal).unwrap().lines().count(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_ack_it_keeps_and_stays_silent() {
    let dir = tempfile::tempdir().unwrap();
    let journal = dir.path().join("hq.journal");
    let broker = Mosquitto::start("").await;
    let mut acks = Listener::start(broker.port, "5", &format!("{BASE}/#")).await;
    let mut headquarters = Process::start(&[], broker.port, &journal, &["--no-ack"]).await;
    assert_eq!(headquarters.gets(broker.port, 1).await, "fresh");
    send(broker.port, 3).await;
    assert_eq!(headquarters.next().await["verdict"], "ahead", "nobody sends it again: it is taken");
    mqtt::until("it is kept", async || {
        (std::fs::read_to_string(&journal).unwrap().lines().count() == 2).then_some(())
    })
    .await;
    publish(broker.port, &format!("{BASE}/end"), "1", false).await;
    loop {
        let (topic, _) = acks.next().await;
        assert!(!topic.ends_with("/ack"));
        if topic.ends_with("/end") {
            return;
        }
    }
}
