//! A soak: the real daemon with a real Mosquitto, headquarters and all simulated
//! devices at many times the rate of a store (`soak_parts/load.rs` says what that is).
//! Memory, threads, handles and the log stay flat, the file grows by no more than what has to
//! stay, everything that was committed is at headquarters exactly once, members' cards hold what
//! headquarters counts, and the load really came. Not in CI: `make soak`.
//!
//! `SOAK_MINUTES` (30), `RATE` (100), `BAYGATE_SEED`, `BAYGATE_BIN` (another build of the program).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![allow(clippy::cast_precision_loss)]

#[path = "support/card_keys.rs"]
mod card_keys;
#[path = "support/dice.rs"]
mod dice;
mod mqtt;
mod soak_parts;
#[path = "support/daemon.rs"]
mod support;
#[path = "support/till_reader.rs"]
mod till_reader;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use baygate::api::client::{Client, Method};
use baygate::sim::headquarters::{self, Options};
use baygate::sim::printer::{PrinterProfile, PrinterSim};
use baygate::sim::vehicle::{Profile, VehicleSim};
use dice::Dice;
use mqtt::{BASE, Mosquitto, free_port, until, until_ok};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use soak_parts::gauge::{Sample, too_few, verdict};
use soak_parts::hq::{self, Books};
use soak_parts::load::{self, Done, Rates, Shop, an_hour};
use support::Desk;
use till_reader::Place;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio_util::sync::CancellationToken;

const BAYS: u32 = 4;
const STANDING: u32 = 24;
const SAMPLE_EVERY: Duration = Duration::from_secs(2);
/// Before the run counts: every kind of work was done once, and what is kept for good is there.
const WARM_UP: Duration = Duration::from_secs(60);

fn setting(name: &str, usual: f64) -> f64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(usual)
}

/// The daemon, its log counted and its last lines kept.
struct Daemon {
    child: Child,
    log_bytes: Arc<AtomicU64>,
    tail: Arc<Mutex<Vec<String>>>,
}

impl Daemon {
    fn start(desk: &Desk) -> Self {
        let program = std::env::var_os("BAYGATE_BIN").unwrap_or_else(|| env!("CARGO_BIN_EXE_baygate").into());
        let mut child = Command::new(program)
            .args(["run", "--config"])
            .arg(desk.config())
            .env("CREDENTIALS_DIRECTORY", desk.path("credentials"))
            .env_remove("NOTIFY_SOCKET")
            .env("BAYGATE_LOG", "info")
            // As the unit sets it.
            .env("MALLOC_ARENA_MAX", "2")
            .stderr(Stdio::piped())
            .stdout(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let (log_bytes, tail) = (Arc::new(AtomicU64::new(0)), Arc::new(Mutex::new(Vec::new())));
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let (bytes, kept) = (Arc::clone(&log_bytes), Arc::clone(&tail));
        tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                bytes.fetch_add(line.len() as u64 + 1, Ordering::Relaxed);
                let mut kept = kept.lock().unwrap();
                if kept.len() == 400 {
                    kept.drain(..200);
                }
                kept.push(line);
            }
        });
        Self { child, log_bytes, tail }
    }

    fn pid(&self) -> i32 {
        i32::try_from(self.child.id().expect("the daemon ended")).unwrap()
    }

    fn last_words(&self) -> String {
        self.tail.lock().unwrap().join("\n")
    }
}

/// Small limits, so that trimming is in its steady state well within the run.
fn configuration(
    desk: &Desk,
    broker: u16,
    [reader, till]: [u16; 2],
    api: u16,
    star: &str,
    links: &[(String, String)],
) -> String {
    let dir = desk.dir.path().display();
    let classes = ["ledger", "gateway", "card", "vehicle", "maintenance", "device", "telemetry"]
        .map(|class| format!("{class} = {{ keep_delivered = \"10s\" }}\n"))
        .concat();
    let vehicles: String =
        links.iter().map(|(id, link)| format!("[[vehicle]]\nid = \"{id}\"\nlink = \"{link}\"\n")).collect();
    format!(
        "[gateway]\nstore = \"SH-0042\"\nid = \"gw-1\"\nlocale = \"en\"\ndata_dir = \"{dir}/data\"\n{}\n\
         [api]\nlisten = \"127.0.0.1:{api}\"\ncontrol_socket = \"{dir}/control.sock\"\n\
         [mqtt]\nurl = \"mqtt://127.0.0.1:{broker}\"\nconfirm = \"headquarters\"\nconfirm_timeout = \"10s\"\n\
         [buffer]\nmax_bytes = \"64MiB\"\n[buffer.classes]\n{classes}\
         [buffer.history]\nvisits = 50\nwarnings = 100\nprint_jobs = 50\nrequests = 100\ncommands = 50\n\
         [[reader]]\nid = \"counter-1\"\nkind = \"vpcd\"\nlisten = \"127.0.0.1:{reader}\"\n\
         [[reader]]\nid = \"{}\"\nkind = \"vpcd\"\nlisten = \"127.0.0.1:{till}\"\n\
         [[printer]]\nid = \"face-1\"\nkind = \"png\"\nlink = \"file://{dir}/faces\"\n\
         [[printer]]\nid = \"star-1\"\nkind = \"star-tcp300\"\nlink = \"tcp://{star}\"\n{vehicles}",
        support::share(),
        till_reader::READER
    )
}

/// Pictures are the user's, not the daemon's: all but the newest go.
fn clear_pictures(folder: &Path) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let old = entry
            .metadata()
            .and_then(|file| file.modified())
            .is_ok_and(|made| made.elapsed().is_ok_and(|age| age > Duration::from_secs(30)));
        if old {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

/// The last class sequences in the log.
fn committed(data: &Path) -> BTreeMap<String, u64> {
    let names = ["ledger", "gateway", "card", "vehicle", "maintenance", "device", "telemetry"];
    let db = rusqlite::Connection::open(data.join("baygate.db")).unwrap();
    let mut query =
        db.prepare("SELECT class, last_sequence FROM class_counter WHERE last_sequence > 0").unwrap();
    let rows = query.query_map([], |row| Ok((row.get::<_, u32>(0)?, row.get::<_, i64>(1)?))).unwrap();
    rows.map(Result::unwrap)
        .map(|(class, last)| (names[class as usize].to_owned(), last.unsigned_abs()))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "half an hour: make soak"]
async fn everything_stays_flat_and_arrives_once() {
    let (minutes, rate) = (setting("SOAK_MINUTES", 30.0), setting("RATE", 100.0));
    let dice = Dice::throw("soak");
    println!("soak: SOAK_MINUTES={minutes} RATE={rate}");
    let mut broker = Mosquitto::start("").await;
    let desk = Desk::new();
    let data = desk.path("data");
    let (out, received) = tokio::sync::mpsc::channel(10_000);
    let options = Options {
        broker: SocketAddr::from(([127, 0, 0, 1], broker.port)),
        root: mqtt::ROOT.into(),
        acknowledge: true,
    };
    let (journal, hq_stop) = (desk.path("headquarters.journal"), CancellationToken::new());
    let headquarters_stop = hq_stop.clone();
    tokio::spawn(
        async move { headquarters::serve_journaled(options, &journal, out, headquarters_stop).await },
    );
    let books = hq::keep(received);

    let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
    let clerk = PrinterProfile { attended: true, ..PrinterProfile::default() };
    let star = PrinterSim::spawn_tcp(any, clerk).await.unwrap();
    let mut bays = Vec::new();
    let mut links = Vec::new();
    for bay in 1..=BAYS {
        let sim = VehicleSim::spawn_tcp(any, Profile::default()).await.unwrap();
        links.push((format!("bay-{bay}"), format!("elm327+tcp://{}", sim.addr().unwrap())));
        bays.push(Arc::new(sim));
    }
    let mut standing = Vec::new();
    for still in 1..=STANDING {
        let sim = load::standing().await;
        links.push((format!("still-{still}"), format!("elm327+tcp://{}", sim.addr().unwrap())));
        standing.push(sim);
    }
    let (reader, till_port, api) = (free_port(), free_port(), free_port());
    std::fs::create_dir(desk.path("credentials")).unwrap();
    std::fs::write(desk.path("credentials").join("card-keys"), card_keys::credential()).unwrap();
    let readers = [reader, till_port];
    let text = configuration(&desk, broker.port, readers, api, &star.addr().unwrap().to_string(), &links);
    std::fs::write(desk.config(), &text).unwrap();
    let mut daemon = Daemon::start(&desk);
    let socket = desk.path("control.sock");
    let client = until("the daemon answers", async || Client::connect(&socket).await.ok()).await;
    let pid = daemon.pid();

    let shop = Shop {
        client: Arc::new(client),
        rates: Rates { rate },
        done: Arc::new(Done::default()),
        stop: CancellationToken::new(),
        dice: Arc::new(Mutex::new(dice)),
    };
    let till = load::watch_stream(&shop);
    let mut work = vec![
        tokio::spawn(load::cards(shop.clone(), reader, till.clone())),
        tokio::spawn(load::faces(shop.clone())),
        tokio::spawn(load::tills(shop.clone(), BAYS, api)),
        tokio::spawn(load::streams(shop.clone())),
        tokio::spawn(load::commands(shop.clone(), broker.port, BASE)),
    ];
    let sales = tokio::spawn(load::sales(shop.clone(), Place::new(socket, till_port)));
    work.extend(bays.iter().map(|sim| tokio::spawn(load::bay(shop.clone(), Arc::clone(sim), BAYS))));

    let began = Instant::now();
    let length = WARM_UP + Duration::from_secs_f64(minutes * 60.0);
    let disturb_every = shop.rates.every(an_hour::OUTAGES).min(length / 3);
    let mut samples: Vec<Sample> = Vec::new();
    let (mut disturb_at, mut broker_back, mut told_at) = (disturb_every / 2, None, Duration::ZERO);
    let done = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let (mut rows, mut telemetry_rows) = (0, 0);
    let mut ticks = tokio::time::interval(SAMPLE_EVERY);
    while began.elapsed() < length {
        ticks.tick().await;
        let at = began.elapsed();
        let (backlog, total) = {
            let books = books.lock().unwrap();
            (till.borrow().last_sequence.saturating_sub(books.total()), books.total())
        };
        let log_kib = daemon.log_bytes.load(Ordering::Relaxed) / 1024;
        let taken = Sample::take(pid, &data);
        let sample = taken.unwrap_or_else(|| panic!("the daemon is gone:\n{}", daemon.last_words()));
        if at >= WARM_UP {
            (rows, telemetry_rows) = rows_of_the_log(&shop.client).await.unwrap_or((rows, telemetry_rows));
            let (reports, sales) = (done(&shop.done.reports), done(&shop.done.sales));
            let counted = Sample { rows, telemetry_rows, reports, sales, ..sample };
            samples.push(Sample { at, backlog, log_kib, ..counted });
        }
        clear_pictures(&desk.path("faces"));
        if told_at <= at {
            told_at = at + Duration::from_secs(10);
            let Sample { rss_kib, threads, handles, db_kib, wal_kib, .. } = sample;
            println!(
                "{:>5.0}s  memory {rss_kib} KiB  threads {threads}  handles {handles}  file {db_kib} KiB  wal {wal_kib} KiB  \
                 backlog {backlog}  log {log_kib} KiB  events {total}  {:?}",
                at.as_secs_f64(),
                shop.done
            );
        }
        if broker_back.is_some_and(|back| back <= at) {
            broker.up().await;
            broker_back = None;
        }
        if disturb_at <= at {
            disturb_at = at + disturb_every;
            broker.kill();
            broker_back = Some(at + Duration::from_secs(3));
            shop.done.outages.fetch_add(1, Ordering::Relaxed);
            // Another reader comes, or goes.
            let more = format!(
                "[[reader]]\nid = \"counter-9\"\nkind = \"vpcd\"\nlisten = \"127.0.0.1:{}\"\n",
                free_port()
            );
            let odd = shop.done.reloads.fetch_add(1, Ordering::Relaxed).is_multiple_of(2);
            std::fs::write(desk.config(), if odd { format!("{text}\n{more}") } else { text.clone() })
                .unwrap();
            kill(Pid::from_raw(pid), Signal::SIGHUP).unwrap();
        }
    }
    if broker_back.is_some() {
        broker.up().await;
    }
    let worked = began.elapsed();
    shop.stop.cancel();
    for task in work {
        task.await.unwrap();
    }
    let members = sales.await.unwrap();
    settle(&books, &shop, &daemon).await;
    kill(Pid::from_raw(pid), Signal::SIGTERM).unwrap();
    let ended = tokio::time::timeout(mqtt::LONG, daemon.child.wait()).await.expect("ends").unwrap();
    assert!(ended.success(), "{}", daemon.last_words());
    until("headquarters has the last word", async || books.lock().unwrap().stopped.then_some(())).await;
    hq_stop.cancel();

    let (table, mut wrong) = verdict(&samples);
    let books = books.lock().unwrap().clone();
    println!("{table}");
    println!(
        "headquarters: {} events, {} copies dropped, {:?}",
        books.total(),
        books.duplicates,
        books.fresh
    );
    println!("done: {:?}", shop.done);
    let seen = till.borrow().clone();
    wrong.extend(books.wrong.clone());
    wrong.extend(seen.wrong.iter().map(|what| format!("a till's stream: {what}")));
    if books.fresh != committed(&data) {
        wrong.push(format!("committed {:?}, arrived {:?}", committed(&data), books.fresh));
    }
    for (what, did, came) in [
        ("cards", done(&shop.done.taps), books.state("card.tapped", "counter-1")),
        ("sales", done(&shop.done.sales), books.state("card.transaction", "committed")),
        ("faces", done(&shop.done.faces), books.state("printer.job", "done")),
        ("commands", done(&shop.done.commands), books.kind("command.result") + 2 * done(&shop.done.outages)),
    ] {
        // A command may be lost with the broker's memory; everything else arrives.
        let fits = if what == "commands" { came >= did } else { came == did };
        if !fits || did == 0 {
            wrong.push(format!("{what}: {did} done, {came} arrived"));
        }
    }
    for load::Member { card_no, shows } in &members {
        let card = (shows["balance_fen"].as_i64().unwrap(), shows["counter"].as_u64().unwrap());
        if books.purses.get(card_no) != Some(&card) {
            wrong
                .push(format!("card {card_no} holds {shows}, headquarters: {:?}", books.purses.get(card_no)));
        }
    }
    let planned = |an_hour: f64| worked.as_secs_f64() / shop.rates.every(an_hour).as_secs_f64();
    let windows = f64::from(STANDING) * worked.as_secs_f64() / 10.0;
    let disturbances = worked.as_secs_f64() / disturb_every.as_secs_f64();
    for (what, did, planned) in [
        ("cards", done(&shop.done.taps), planned(an_hour::TAPS)),
        ("sales", done(&shop.done.sales), planned(an_hour::SALES)),
        ("faces", done(&shop.done.faces), planned(an_hour::FACES)),
        ("cars", done(&shop.done.cars), planned(an_hour::CARS)),
        ("cars that arrived", books.kind("vehicle.arrived"), f64::from(STANDING) + planned(an_hour::CARS)),
        ("looks", done(&shop.done.looks), planned(an_hour::LOOKS)),
        ("scans", done(&shop.done.scans), planned(an_hour::SCANS)),
        ("commands", done(&shop.done.commands), planned(an_hour::COMMANDS)),
        ("streams", done(&shop.done.streams), planned(an_hour::STREAMS)),
        ("outages", done(&shop.done.outages), disturbances),
        ("reloads", done(&shop.done.reloads), disturbances),
        ("telemetry windows", books.fresh.get("telemetry").copied().unwrap_or(0), windows),
    ] {
        println!("load: {what} {did} of {planned:.0} planned");
        wrong.extend(too_few(what, did, planned));
    }
    if books.kind("vehicle.report") == 0 || books.kind("vehicle.departed") == 0 {
        wrong.push("no car was reported".into());
    }
    println!("verdict: {}", if wrong.is_empty() { "flat, everything arrived once" } else { "NOT WELL" });
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Events that stand in the log, and how many of them are telemetry. `None`: a reload closed the line.
async fn rows_of_the_log(client: &Client) -> Option<(u64, u64)> {
    let answer = client.request(Method::GET, "/metrics", None).await.ok()?;
    let rows = |of: &str| -> u64 {
        let lines = answer.body.as_str().unwrap_or_default().lines();
        let mine = lines.filter(|line| line.starts_with(of)).filter_map(|line| line.rsplit(' ').next());
        mine.filter_map(|number| number.parse::<u64>().ok()).sum()
    };
    Some((rows("baygate_store_rows{"), rows("baygate_store_rows{class=\"telemetry\"")))
}

/// Waits until every job is printed and headquarters has everything.
async fn settle(books: &Mutex<Books>, shop: &Shop, daemon: &Daemon) {
    let faces = shop.done.faces.load(Ordering::Relaxed);
    until_ok(2 * mqtt::LONG, Duration::from_millis(200), async || {
        let printed = books.lock().unwrap().state("printer.job", "done");
        let all = (printed >= faces).then_some(());
        all.ok_or_else(|| format!("{printed} of {faces} faces printed:\n{}", daemon.last_words()))
    })
    .await;
}
