//! The process that does a story and tells, line by line, what it was answered.
//! It waits at gates: while it stands there its tracer is attached or taken away.
//!
//! A batch that failed is done again, as a caller would: after looking whether
//! it is there. While a fault stays (`sticky`), everything is tried once, then
//! the player waits at a second gate until the fault is gone.

use std::io::{BufRead, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

use baygate::event::Event;
use baygate::health::Health;
use baygate::store::{HistoryLimits, Store, StoreError};
use rusqlite::{Connection, OpenFlags};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

use super::run::{Threaded, story_of};
use super::story::{self, Expect, Part, Step};

const PATIENCE: Duration = Duration::from_secs(60);

/// The store said that something failed.
static FAULT: AtomicBool = AtomicBool::new(false);
static LOG: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Listens to the store without a write of its own: those are what is counted.
struct Ears;

impl<S: tracing::Subscriber> tracing_subscriber::Layer<S> for Ears {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        let mut words = Words(String::new());
        event.record(&mut words);
        if words.0.contains("failed") {
            FAULT.store(true, Ordering::SeqCst);
        }
        LOG.lock().unwrap().push(words.0);
    }
}

struct Words(String);

impl tracing::field::Visit for Words {
    fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
        self.0.push_str(&format!("{}={value:?} ", field.name()));
    }
}

fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").unwrap();
    out.flush().unwrap();
}

fn tell_log() {
    for line in LOG.lock().unwrap().drain(..) {
        say(&format!("log {}", line.replace('\n', " ")));
    }
}

fn gate(word: &str) {
    tell_log();
    say(word);
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line).unwrap();
    assert_eq!(line, "go\n");
}

/// The thread of that name, which may have only just been made.
fn thread(name: &str) -> i32 {
    let since = Instant::now();
    loop {
        for entry in std::fs::read_dir("/proc/self/task").unwrap().flatten() {
            if std::fs::read_to_string(entry.path().join("comm")).is_ok_and(|comm| comm.trim() == name) {
                return entry.file_name().to_str().unwrap().parse().unwrap();
            }
        }
        assert!(since.elapsed() < PATIENCE, "no thread {name}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn code(error: &StoreError) -> String {
    let text = format!("{error:?}");
    text.split(|c: char| !c.is_alphanumeric()).next().unwrap().to_owned()
}

pub struct Player {
    dir: PathBuf,
    sticky: bool,
    /// Of the WAL as it was found.
    salt: OnceLock<Option<Vec<u8>>>,
}

/// Plays the whole process; to be called from an ignored test.
pub fn play() {
    tracing_subscriber::registry().with(Ears).init();
    let env = |name: &str| std::env::var(name).unwrap();
    let player = Player {
        dir: env("STORE_DIR").into(),
        sticky: env("STORE_FAULT") == "sticky",
        salt: OnceLock::new(),
    };
    say("");
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let (threaded, steps) = story_of(&env("STORE_STAGE"));
    runtime.block_on(async {
        let store = match threaded {
            Threaded::Opener => player.open_behind_the_gate(),
            Threaded::Writer | Threaded::Keeper => {
                let (store, _) = Store::open(&story::options(&player.dir)).unwrap();
                gate(&format!("thread {}", thread(threaded.name())));
                store
            }
        };
        let health = Health::default();
        player.story(&store, &steps).await;
        if threaded == Threaded::Keeper {
            if player.sticky {
                gate("gate");
            }
            player.await_cut_back(false);
        }
        // Whatever happened, the store says in the end that it is well.
        store.start_background(health.clone(), CancellationToken::new());
        let since = Instant::now();
        // But that card writes are held, which only a person ends.
        let (held, troubles) = loop {
            let all = health.troubles();
            let (held, others): (Vec<_>, Vec<_>) =
                all.into_iter().partition(|trouble| trouble.code == "card-writes-held");
            if others.is_empty() || since.elapsed() >= PATIENCE {
                break (!held.is_empty(), others);
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        if held {
            say("held");
        }
        for trouble in troubles {
            say(&format!("trouble {} {}", trouble.part, trouble.code));
        }
        store.close().await;
        tell_log();
        say("closed");
    });
}

impl Player {
    fn open_behind_the_gate(&self) -> Store {
        let (say_tid, tid) = std::sync::mpsc::channel();
        let (go, gone) = std::sync::mpsc::channel::<()>();
        let (answer, answered) = std::sync::mpsc::channel();
        let options = story::options(&self.dir);
        let _opener = std::thread::spawn(move || {
            say_tid.send(nix::unistd::gettid().as_raw()).unwrap();
            while gone.recv().is_ok() {
                if answer.send(Store::open(&options)).is_err() {
                    return;
                }
            }
        });
        gate(&format!("thread {}", tid.recv().unwrap()));
        let since = Instant::now();
        let mut waits = self.sticky;
        loop {
            go.send(()).unwrap();
            match answered.recv().unwrap() {
                Ok((store, _)) => {
                    say("opened");
                    return store;
                }
                Err(error) => {
                    say(&format!("err open {} {}", code(&error), error.to_string().replace('\n', " ")));
                    if std::mem::take(&mut waits) {
                        gate("gate");
                    }
                }
            }
            assert!(since.elapsed() < PATIENCE, "never opened");
        }
    }

    async fn story(&self, store: &Store, steps: &[Step]) {
        let mut from = 0;
        if self.sticky {
            while from < steps.len() && self.step(store, &steps[from]).await {
                from += 1;
            }
            // Else the fault lies in the closing.
            if from < steps.len() {
                // Whatever is asked now is answered, with a word.
                for step in steps[from..].iter().skip(1).filter(|step| matches!(step, Step::Commit(_))) {
                    self.step(store, step).await;
                }
                gate("gate");
            }
        }
        for step in &steps[from..] {
            let since = Instant::now();
            while !self.step(store, step).await {
                assert!(since.elapsed() < PATIENCE, "{step:?} never succeeds");
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    }

    /// Does a step once; whether it is done.
    async fn step(&self, store: &Store, step: &Step) -> bool {
        match step {
            Step::Commit(parts) => self.commit(store, parts).await,
            Step::Await(probe, count) => {
                self.wait(|conn| number(conn, probe) >= *count);
                true
            }
            Step::Sweep => {
                let history = HistoryLimits { requests: 0, ..HistoryLimits::default() };
                store.set_history(history).await.unwrap();
                store
                    .set_limits(story::options(&self.dir).max_bytes, story::sweeping(&self.dir))
                    .await
                    .unwrap();
                self.wait(|conn| {
                    number(conn, "SELECT count(*) FROM request WHERE idempotency_key IS NULL") == 0
                        && number(conn, "SELECT count(*) FROM gap") == 0
                });
                true
            }
            Step::AwaitCutBack => {
                self.await_cut_back(true);
                true
            }
        }
    }

    fn look(&self) -> Connection {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        Connection::open_with_flags(self.dir.join("baygate.db"), flags).unwrap()
    }

    /// Until it is so, or a fault was met.
    fn wait(&self, so: impl Fn(&Connection) -> bool) {
        let (since, conn) = (Instant::now(), self.look());
        while !so(&conn) && !FAULT.load(Ordering::SeqCst) {
            assert!(since.elapsed() < PATIENCE, "in vain");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Until the WAL was cut back or begun anew, or will be by whoever writes next, because all of
    /// it is copied: its index says so (SQLite "WAL-mode File Format", §2.1: mxFrame and nBackfill).
    fn await_cut_back(&self, or_fault: bool) {
        let salt = || {
            std::fs::read(self.dir.join("baygate.db-wal"))
                .ok()
                .and_then(|wal| wal.get(16..24).map(<[u8]>::to_vec))
        };
        let (since, at_first) = (Instant::now(), self.salt.get_or_init(salt));
        let copied = || {
            let index = std::fs::read(self.dir.join("baygate.db-shm")).unwrap_or_default();
            let number = |at: usize| {
                index.get(at..at + 4).map_or(0, |four| u32::from_ne_bytes(four.try_into().unwrap()))
            };
            number(16) > 0 && number(96) >= number(16)
        };
        while salt() == *at_first && !copied() && !(or_fault && FAULT.load(Ordering::SeqCst)) {
            assert!(since.elapsed() < PATIENCE, "the WAL is never cut back");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Commits parts together, those that are not there yet; whether each has its answer.
    async fn commit(&self, store: &Store, parts: &[Part]) -> bool {
        let missing: Vec<&Part> = if FAULT.load(Ordering::SeqCst) {
            let conn = self.look();
            parts.iter().filter(|part| !self.is_there(&conn, part)).collect()
        } else {
            parts.iter().collect()
        };
        let last = missing.len().saturating_sub(1);
        let asked = missing.iter().enumerate().map(|(place, part)| {
            let mut batch = part.batch.clone();
            batch.patient &= place != last;
            store.commit(batch)
        });
        let answers = futures_util::future::join_all(asked).await;
        let mut all = true;
        for (part, answer) in missing.iter().zip(answers) {
            all &= tell(part, answer);
        }
        all
    }

    /// A caller that was told of an error looks before it does the thing again.
    fn is_there(&self, conn: &Connection, part: &Part) -> bool {
        let there = part.expect == Expect::Kept && part.probes.iter().all(|probe| number(conn, probe) == 1);
        if there {
            say(&format!("found {}", part.name));
        }
        there
    }
}

fn tell(part: &Part, answer: Result<Vec<std::sync::Arc<Event>>, StoreError>) -> bool {
    let as_expected = match (&answer, part.expect) {
        (Ok(_), Expect::Kept) => true,
        (Err(StoreError::Replayed { request }), Expect::Replayed(id)) => *request == id,
        (Err(StoreError::KeyConflict), Expect::KeyConflict) => true,
        (Err(StoreError::NotFound { .. }), Expect::NotFound) => true,
        _ => false,
    };
    match answer {
        Ok(events) => {
            let mut line = format!("{} {}", if as_expected { "ack" } else { "WRONG ack" }, part.name);
            for event in events {
                line.push_str(&format!(
                    " {}/{}/{}/{}",
                    event.class, event.epoch, event.class_sequence.0, event.id
                ));
            }
            say(&line);
        }
        Err(_) if as_expected => say(&format!("ack {}", part.name)),
        Err(error) => say(&format!("err {} {} {error}", part.name, code(&error))),
    }
    as_expected
}

pub fn number(conn: &Connection, sql: &str) -> i64 {
    conn.query_row(sql, [], |row| row.get(0)).unwrap_or(-1)
}

/// A copy of a folder as a crash would leave it: without the shared memory.
pub fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().flatten() {
        if !entry.file_name().to_string_lossy().ends_with("-shm") {
            std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}

/// Until it is so.
pub fn until(what: &str, so: impl Fn() -> bool) {
    let since = Instant::now();
    while !so() {
        assert!(since.elapsed() < PATIENCE, "in vain until {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}
