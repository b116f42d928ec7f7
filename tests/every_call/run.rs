//! Counts the calls of one thread in one story, then plays the story once for
//! every call and every fault, several at a time, and lets the judge look.
//! Nothing is left to chance, so there is no seed; `STORE_ONLY=EIO/17` (a fault
//! and the number of a call) runs one alone and tells what was said.

use std::io::{BufRead, BufReader, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use super::judge::{self, Told};
use super::player::copy;
use super::story::{self, Step};
use super::trace::{self, Call, Fault, Hit, Tracer};

/// A player that says nothing for so long hangs.
const PATIENCE: Duration = Duration::from_secs(120);

/// The data folder has the same name in each run: a call is told by the name of its file.
const FOLDER: &str = "data";

/// A run that went another way, because the machine was slow, is done again so often.
const TRIES: usize = 20;

/// Whose calls are meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Threaded {
    Opener,
    Writer,
    Keeper,
}

impl Threaded {
    pub fn name(self) -> &'static str {
        match self {
            Self::Opener => "opener",
            Self::Writer => "store-writer",
            Self::Keeper => "store-keeper",
        }
    }
}

/// What a stage's thread does.
pub fn story_of(stage: &str) -> (Threaded, Vec<Step>) {
    match stage {
        "writer" => (Threaded::Writer, story::day()),
        "keeper" => (Threaded::Keeper, story::checkpoints()),
        "writer-copies" => (Threaded::Writer, story::checkpoints()),
        _ => (Threaded::Opener, story::first()),
    }
}

/// Salvages that read a copy of the damaged file.
const OF_A_COPY: [&str; 2] = ["salvage-wal", "salvage-first-page"];

/// Whether card writes are held after this stage, whatever the fault: a frame is gone, or the schema is
/// a lent one, and nobody can say that no request is missing.
pub fn holds(stage: &str) -> bool {
    OF_A_COPY.contains(&stage)
}

/// The making of that copy.
fn is_of_the_copy(call: &Call) -> bool {
    call.name != "unlink" && call.file.starts_with("baygate.db.patched")
}

/// Whether this fault is played at this call: all of them, but what the salvages of a copy have in common
/// with the plain one fails in all ways there; here the process is killed at it, and it fails once.
fn is_played(stage: &str, fault: Fault, call: &Call) -> bool {
    matches!(fault, Fault::Kill | Fault::Once("EIO")) || !OF_A_COPY.contains(&stage) || is_of_the_copy(call)
}

/// One thread's part: from which folder, and what must hold afterwards besides the usual.
pub struct Stage<'a> {
    pub name: &'static str,
    pub from: &'a Path,
    pub also: &'a (dyn Fn(&Path, &judge::Opening<'_>) + Sync),
}

/// A player with the lines it says.
struct Player {
    child: Child,
    lines: Receiver<String>,
}

impl Player {
    fn start(stage: &str, dir: &Path, fault: Option<Fault>) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "plays_the_store", "--ignored", "--nocapture", "--test-threads=1"])
            .env("STORE_DIR", dir)
            .env("STORE_STAGE", stage)
            .env("STORE_FAULT", if fault.is_some_and(Fault::is_sticky) { "sticky" } else { "once" })
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (say, lines) = channel();
        let out = BufReader::new(child.stdout.take().unwrap());
        let moans = BufReader::new(child.stderr.take().unwrap());
        let moan = say.clone();
        std::thread::spawn(move || out.lines().map_while(Result::ok).try_for_each(|line| say.send(line)));
        std::thread::spawn(move || {
            moans.lines().map_while(Result::ok).try_for_each(|line| moan.send(format!("stderr {line}")))
        });
        Self { child, lines }
    }

    /// The next line, `None` at the end.
    fn line(&mut self, said: &[String]) -> Option<String> {
        match self.lines.recv_timeout(PATIENCE) {
            Ok(line) => Some(line),
            Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => None,
            Err(std::sync::mpsc::RecvTimeoutError::Timeout) => {
                self.child.kill().unwrap();
                panic!("the player hangs after {said:#?}");
            }
        }
    }

    fn go(&mut self) {
        self.child.stdin.as_mut().unwrap().write_all(b"go\n").unwrap();
    }
}

/// Plays a story once. Gives what was said and the calls that were seen.
fn play(stage: &str, dir: &Path, out: &Path, fault: Option<(Fault, &[Call], usize)>) -> Told {
    let mut player = Player::start(stage, dir, fault.map(|(fault, ..)| fault));
    let (mut said, mut tracer) = (Vec::new(), None);
    while let Some(line) = player.line(&said) {
        if let Some(thread) = line.strip_prefix("thread ") {
            tracer = Some(Tracer::attach(thread.parse().unwrap(), out, fault));
            player.go();
        } else if line == "gate" {
            tracer.as_mut().expect("attached before").detach();
            player.go();
        } else {
            said.push(line);
        }
    }
    let ended = player.child.wait().unwrap();
    tracer.unwrap_or_else(|| panic!("never came to the gate: {said:#?}")).end();
    Told { said, killed: !ended.success() }
}

/// The calls of a stage, as two times running agree on them: where the machine is
/// slow, the writer may end a group early.
fn count(stage: &Stage<'_>, scratch: &Path) -> Vec<Call> {
    let mut before = Vec::new();
    for round in 0..TRIES {
        let (dir, out) = (scratch.join(format!("count-{round}")).join(FOLDER), scratch.join("count.trace"));
        copy(stage.from, &dir);
        let told = play(stage.name, &dir, &out, None);
        let calls = trace::calls(&out);
        let (_, story) = story_of(stage.name);
        judge::judge(&dir, &story, &told, None, holds(stage.name), stage.also);
        if calls == before {
            return calls;
        }
        before = calls;
    }
    panic!("{}: the calls are never the same twice", stage.name);
}

/// What all runs of a stage came to.
#[derive(Debug, Default)]
pub struct Tally {
    pub calls: usize,
    /// Of these, syncs of the WAL.
    pub wal_syncs: usize,
    /// And for the copy of a damaged file that a salvage reads in its place.
    pub of_the_copy: usize,
    pub runs: usize,
    /// Of these, done again: the fault met no call, or another than was meant.
    pub again: usize,
    pub failed: usize,
    pub uncertain: usize,
    pub found: usize,
}

/// Every call, every fault.
pub fn every_call(stage: &Stage<'_>, at_once: usize) -> Tally {
    let started = Instant::now();
    let scratch = tempfile::tempdir().unwrap();
    let calls = count(stage, scratch.path());
    assert!(calls.iter().any(|call| call.name.ends_with("sync")), "{calls:?}");
    let only = std::env::var("STORE_ONLY").ok();
    let jobs: Vec<(Fault, usize)> = Fault::ALL
        .into_iter()
        .flat_map(|fault| (0..calls.len()).map(move |place| (fault, place)))
        .filter(|(fault, place)| is_played(stage.name, *fault, &calls[*place]))
        .filter(|(fault, place)| {
            only.as_ref().is_none_or(|only| *only == format!("{}/{place}", fault.text()))
        })
        .collect();
    let (next, tally, wrong) = (AtomicUsize::new(0), Mutex::new(Tally::default()), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..at_once {
            scope.spawn(|| {
                while let Some((fault, place)) = jobs.get(next.fetch_add(1, Ordering::Relaxed)).copied() {
                    let told = Mutex::new(Told::default());
                    let again = AtomicUsize::new(0);
                    let run = || one(stage, scratch.path(), &calls, fault, place, &told, &again);
                    let went = catch_unwind(AssertUnwindSafe(run));
                    let told = told.into_inner().unwrap();
                    let lines = |word: &str| told.said.iter().filter(|line| line.contains(word)).count();
                    let mut tally = tally.lock().unwrap();
                    tally.runs += 1;
                    tally.again += again.into_inner();
                    tally.failed += lines("err ");
                    tally.uncertain += lines("Uncertain");
                    tally.found += lines("found ");
                    if went.is_err() || only.is_some() {
                        let call = &calls[place];
                        println!("{} {}/{place} {call:?}: {told:#?}", stage.name, fault.text());
                    }
                    if went.is_err() {
                        wrong.lock().unwrap().push(format!("{}/{place}", fault.text()));
                    }
                }
            });
        }
    });
    let mut tally = tally.into_inner().unwrap();
    tally.calls = calls.len();
    let syncs_wal = |call: &&Call| call.name.ends_with("sync") && call.file == "baygate.db-wal";
    tally.wal_syncs = calls.iter().filter(syncs_wal).count();
    tally.of_the_copy = calls.iter().filter(|call| is_of_the_copy(call)).count();
    let mut names: Vec<(String, usize)> = Vec::new();
    for call in &calls {
        let what = format!("{} {}", call.name, call.file);
        match names.iter_mut().find(|(name, _)| *name == what) {
            Some((_, count)) => *count += 1,
            None => names.push((what, 1)),
        }
    }
    println!("{}: {tally:?} in {:.1} s; {names:?}", stage.name, started.elapsed().as_secs_f32());
    let wrong = wrong.into_inner().unwrap();
    assert!(wrong.is_empty(), "{}: {} of {} runs: {wrong:?}", stage.name, wrong.len(), tally.runs);
    tally
}

/// Until the fault has met the call that was meant, on the way that was counted.
fn one(
    stage: &Stage<'_>,
    scratch: &Path,
    calls: &[Call],
    fault: Fault,
    place: usize,
    told: &Mutex<Told>,
    again: &AtomicUsize,
) {
    let dir = scratch.join(format!("{}-{place}", fault.text())).join(FOLDER);
    let out = scratch.join(format!("{}-{place}.trace", fault.text()));
    let (_, story) = story_of(stage.name);
    for _ in 0..TRIES {
        copy(stage.from, &dir);
        let said = play(stage.name, &dir, &out, Some((fault, calls, place)));
        told.lock().unwrap().clone_from(&said);
        let hit = trace::hit(&out, fault, calls, place);
        if hit != Hit::Nothing {
            // Also where it met another call: nothing may be lost there either.
            judge::judge(&dir, &story, &said, Some(fault), holds(stage.name), stage.also);
        }
        std::fs::remove_dir_all(&dir).unwrap();
        std::fs::remove_file(&out).unwrap();
        if hit == Hit::Meant {
            return;
        }
        println!("{} {}/{place}, once more: {hit:?}", stage.name, fault.text());
        again.fetch_add(1, Ordering::Relaxed);
    }
    panic!("the call that was meant was never hit");
}
