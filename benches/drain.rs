//! Drain of a backlog to a real Mosquitto at `QoS` 1: the release daemon, every
//! service on, against the bare client library publishing the same payload bytes
//! on the same topics from memory. Equal: broker, window, `QoS`, properties, Nagle
//! off, each publish tracked to its PUBACK, two worker threads in a process of its own.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![allow(clippy::cast_precision_loss)]

mod setup;

use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use baygate::event::{CONTENT_TYPE, Class};
use baygate::store::{Offset, Store};
use baygate::uplink::topics::Topics;
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use rumqttc::{
    AsyncClient, Event, MqttOptions, NetworkOptions, Packet, PublishOptions, PublishProperties, PublishResult,
};
use rusqlite::{Connection, OpenFlags};
use setup::broker::{Broker, free_port};
use setup::daemon::{Site, WINDOW};
use setup::figures::{Figure, Found, digits, median};
use setup::process::{self, Watch};
use setup::{RUNS, fill, number};

/// As [`process::Memory`] may come to, all told.
const MOST_MB: f64 = 30.0;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, publish, port, file] = arguments.as_slice()
        && publish == "publish-from-memory"
    {
        return publish_from_memory(port.parse().unwrap(), Path::new(file));
    }
    let events = number("BAYGATE_BENCH_EVENTS", 200_000);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let site = Site::new(&["--no-car"]);
    let payloads = site.folder.path().join("payloads");
    runtime.block_on(async {
        fill::fill(&site.data(), events).await;
        write_payloads(&site.data(), &payloads).await;
    });

    let (mut ours, mut bare, mut written) = (Vec::new(), Vec::new(), Vec::new());
    let (mut most, mut peak) = (process::Memory::default(), 0.0_f64);
    for _ in setup::rounds("drain", 0..number("BAYGATE_BENCH_RUNS", RUNS)) {
        let run = daemon(&site, events);
        ours.push(run.rate);
        written.push(run.written);
        peak = peak.max(run.peak);
        if run.memory.resident > most.resident {
            most = run.memory;
        }
        bare.push(peer(&payloads));
    }
    let mut found = Found::default();
    found.notes.push(format!("drain: ours {ours:.0?} /s, bare {bare:.0?} /s, as they alternated"));
    let figure = format!("drain of {events} events, QoS 1, window {WINDOW}");
    found.figures.push(Figure::ratio(&figure, "/s", median(ours), median(bare), Some(0.7)));
    found.figures.push(Figure::limit("resident memory while draining, peak", "MB", peak, MOST_MB));
    found.notes.push(format!(
        "drain: of the resident memory {} MB heap and stacks, {} MB the program's file and libraries",
        digits(most.anonymous),
        digits(most.file)
    ));
    found.figures.push(Figure::told(
        "bytes to the disk per drained event",
        format!("{} B", digits(median(written))),
        "0 B (from memory)".into(),
    ));
    found.keep("drain");
}

struct Run {
    rate: f64,
    written: f64,
    memory: process::Memory,
    peak: f64,
}

/// One run of the daemon over the whole backlog. Its own notes of what is delivered tell how far it is.
fn daemon(site: &Site, events: usize) -> Run {
    let database = site.data().join("baygate.db");
    // The backlog waits again.
    Connection::open(&database).unwrap().execute("DELETE FROM delivered", []).unwrap();
    let broker = Broker::start();
    site.write(broker.port, &format!("kind = \"vpcd\"\nlisten = \"127.0.0.1:{}\"", free_port()));
    let daemon = site.start();
    let watch = Watch::start(daemon.pid());
    let look = Connection::open_with_flags(&database, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    let mut delivered = look
        .prepare("SELECT coalesce(sum(class_sequence), 0) FROM delivered WHERE class IN (2, 5, 6)")
        .unwrap();
    let mut delivered = || -> i64 { delivered.query_row([], |row| row.get(0)).unwrap() };
    let all = i64::try_from(events).unwrap();
    let mut first: Option<(Instant, i64)> = None;
    let deadline = Instant::now() + Duration::from_secs(600);
    let rate = loop {
        let (done, now) = (delivered(), Instant::now());
        match first {
            None if done > 0 => first = Some((now, done)),
            Some((since, before)) if done >= all => {
                break (done - before) as f64 / (now - since).as_secs_f64();
            }
            _ => {}
        }
        assert!(now < deadline, "drained {done} of {events}:\n{}", site.log());
        // Seldom: looking takes the time of the two cores from the daemon alone.
        std::thread::sleep(Duration::from_millis(50));
    };
    let written = process::written(daemon.pid()) / events as f64;
    let peak = process::peak(daemon.pid());
    let memory = watch.end();
    daemon.stop();
    Run { rate, written, memory, peak }
}

/// Topic and payload of each event, as the uplink would send them.
async fn write_payloads(data: &Path, file: &Path) {
    let (store, _) = Store::open(&fill::options(data)).unwrap();
    let (source, topics) = (fill::source(), Topics::new("baygate/v1", &fill::source()));
    let mut out = std::io::BufWriter::new(std::fs::File::create(file).unwrap());
    let mut after = Offset(0);
    loop {
        let page = store.read(move |reader| reader.events_after(after, 1000)).await.unwrap();
        let Some(last) = page.last() else { break };
        after = last.offset;
        for logged in &page {
            let event = &logged.event;
            assert!(matches!(event.class, Class::Card | Class::Device | Class::Telemetry));
            let topic = topics.event(event.class, &event.kind);
            for part in [topic.as_bytes(), &event.to_cloudevent(&source).unwrap()] {
                out.write_all(&u32::try_from(part.len()).unwrap().to_be_bytes()).unwrap();
                out.write_all(part).unwrap();
            }
        }
    }
    out.flush().unwrap();
    store.close().await;
}

/// One run of the bare library, in a process of its own.
fn peer(payloads: &Path) -> f64 {
    let broker = Broker::start();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["publish-from-memory", &broker.port.to_string()])
        .arg(payloads)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut answer = String::new();
    child.stdout.take().unwrap().read_to_string(&mut answer).unwrap();
    assert!(child.wait().unwrap().success());
    answer.trim().parse().unwrap()
}

fn publish_from_memory(port: u16, file: &Path) {
    let bytes = Bytes::from(std::fs::read(file).unwrap());
    let mut packets: Vec<(String, Bytes)> = Vec::new();
    let mut at = 0;
    let mut part = || {
        let length = bytes.get(at..at + 4)?;
        let length = u32::from_be_bytes(length.try_into().unwrap()) as usize;
        at += 4 + length;
        Some(bytes.slice(at - length..at))
    };
    while let (Some(topic), Some(payload)) = (part(), part()) {
        packets.push((String::from_utf8(topic.to_vec()).unwrap(), payload));
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let rate = runtime.block_on(async move {
        let mut options = MqttOptions::new("bare", ("127.0.0.1".to_owned(), port));
        let mut network = NetworkOptions::new();
        network.set_tcp_nodelay(true);
        options.set_keep_alive(30).set_outgoing_inflight_upper_limit(WINDOW).set_network_options(network);
        // As the daemon's own.
        options.set_max_request_batch(64);
        let (client, mut eventloop) = AsyncClient::builder(options).capacity(usize::from(WINDOW) * 2).build();
        while !matches!(eventloop.poll().await.unwrap(), Event::Incoming(Packet::ConnAck(_))) {}
        let pump = tokio::spawn(async move { while eventloop.poll().await.is_ok() {} });
        let count = packets.len();
        let began = Instant::now();
        // In a task, as the daemon's uplink is.
        let publisher = tokio::spawn(async move {
            let mut flying = FuturesUnordered::new();
            for (topic, payload) in packets {
                if flying.len() >= usize::from(WINDOW) {
                    accepted(flying.next().await);
                }
                let about =
                    PublishProperties { content_type: Some(CONTENT_TYPE.to_owned()), ..Default::default() };
                let options = PublishOptions::at_least_once().properties(about);
                let notice = client.publish_tracked(topic, payload, options).await.unwrap();
                flying.push(notice.wait_async());
            }
            while let Some(result) = flying.next().await {
                accepted(Some(result));
            }
        });
        publisher.await.unwrap();
        let took = began.elapsed();
        pump.abort();
        count as f64 / took.as_secs_f64()
    });
    println!("{rate}");
}

fn accepted<E: std::fmt::Debug>(result: Option<Result<PublishResult, E>>) {
    match result.unwrap().unwrap() {
        PublishResult::Qos1(ack) => assert_eq!(ack.reason, rumqttc::PubAckReason::Success),
        other => panic!("{other:?}"),
    }
}
